"""A key on trial, against the exchange in memory and in virtual time: what is refused, what passes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from kraken_feed.check.key import KeyCheck
from kraken_feed.check.key_settings import ITEMS
from kraken_feed.check.report import CheckResult
from kraken_feed.config.schema import Config
from kraken_feed.protocol.signing import Credentials, Nonce
from kraken_feed.simulator.access.key import ApiKey, Limits
from kraken_feed.simulator.exchange import Exchange
from kraken_feed.simulator.faults.fault import Fault
from kraken_feed.text import Secrets
from kraken_feed.transport.rest import Rest

from ...support import virtual_time
from ...support.cases import each
from ...support.exchange_driver import T0
from ...support.memory import Transport, World, running

ALL = ("openOrders", "ownTrades", "executions", "balances")


class Tried:
    """What a trial said, and how long it took."""

    def __init__(self) -> None:
        self.results: list[CheckResult] = []
        self.secrets = Secrets()
        self.seconds = 0.0
        self.calls: list[str] = []
        self.connects = 0

    def __getitem__(self, item: str) -> CheckResult:
        (result,) = [result for result in self.results if result.item == item]
        return result

    def statuses(self, *items: str) -> list[str]:
        return [self[item].status for item in items]


def trial(
    exchange: Exchange,
    *channels: str,
    key: ApiKey | None = None,
    secret: str = "",
    lost: Sequence[str] = (),
    faults: Sequence[Fault] = (),
) -> Tried:
    tried = Tried()

    async def main() -> None:
        with running(exchange) as world:
            for fault in faults:
                exchange.inject(fault, world.now())
            await _run(world, tried, channels or ALL, key or exchange.keys[exchange.key], secret, lost)

    virtual_time.run(main())
    return tried


async def _run(
    world: World, tried: Tried, channels: Sequence[str], key: ApiKey, secret: str, lost: Sequence[str]
) -> None:
    config = Config()
    credentials = Credentials(key.key, secret or key.secret, key.otp, source="the test")
    transport = Transport(world)
    rest = Rest(config.endpoints.rest, credentials, Nonce(), transport=transport, unix_ns=world.unix_ns)
    one = KeyCheck(
        config, channels, credentials, rest, say=tried.results.append, secrets=tried.secrets, dial=world.dial,
        unix_ns=world.unix_ns,
    )  # fmt: skip
    try:
        await one.run({dialect: f"ws_{dialect}" for dialect in lost})
    finally:
        await rest.close()
    tried.seconds = world.now() - T0
    tried.calls = [path.rpartition("/")[2] for _, path, _ in world.calls]
    tried.connects = len(world.dials)
    assert not world.sockets, "a connection was left open"


def exchange(**options: Any) -> Exchange:
    return Exchange(now=T0, seed=1, rate=0.0, **options)


# ------------------------------------------------------------------------------------------------ all well


def test_a_good_key_brings_every_channel_live_with_a_connection_an_endpoint() -> None:
    tried = trial(exchange(open_orders=5, past_trades=3))
    assert tried.statuses("key", "permissions", "token", *ALL) == ["OK"] * 7
    assert [tried[channel].facts["snapshot"] for channel in ("openOrders", "ownTrades")] == [5, 3]
    assert tried.connects == 2
    assert tried.calls == ["GetApiKeyInfo", "GetWebSocketsToken", "GetWebSocketsToken"]


def test_everything_is_said_once_and_in_order() -> None:
    tried = trial(exchange())
    assert [result.item for result in tried.results] == ["key", *ITEMS, "token", *ALL]
    assert [result.channel for result in tried.results if result.item in ALL] == list(ALL)


def test_tokens_are_masked_from_then_on() -> None:
    here = exchange()
    issued: list[str] = []
    issue = here.world.issue_token
    here.world.issue_token = lambda key, now: issued.append(issue(key, now)) or issued[-1]  # type: ignore[method-assign,func-returns-value]  # append returns nothing
    tried = trial(here)
    assert len(issued) == 2
    assert all(tried.secrets.mask(token) == "[masked]" for token in issued)


def test_an_engine_that_is_not_online_is_a_warning() -> None:
    here = exchange()
    tried = trial(here, "openOrders", faults=[Fault("maintenance", maintenance=0.0, cancel_only=600.0)])
    assert tried["openOrders"].status == "WARN"
    assert "cancel_only" in tried["openOrders"].what


# ------------------------------------------------------------------------------------------------ the key


def test_a_wrong_secret_is_met_once_and_skips_the_rest() -> None:
    tried = trial(exchange(), secret="QUFB")
    assert (tried["key"].status, tried["key"].exit_code) == ("FAIL", 77)
    assert "EAPI:Invalid signature" in tried["key"].what
    assert "private key" in tried["key"].remedy
    assert tried.statuses(*ITEMS, "token", *ALL) == ["SKIP"] * (len(ITEMS) + 5)
    assert tried.calls == ["GetApiKeyInfo"]


@each("limits", [Limits(valid_until=int(T0) - 1), Limits(ip_allowlist=("192.0.2.1",))])
def test_a_key_that_kraken_does_not_know_gets_one_slow_retry(limits: Limits) -> None:
    """Unknown, expired and from an address that is not allowed are one and the same answer."""
    here = exchange()
    tried = trial(here, key=here.add_key(limits=limits))
    assert (tried["key"].status, tried["key"].exit_code) == ("FAIL", 77)
    assert "allow-list" in tried["key"].remedy
    assert tried.calls == ["GetApiKeyInfo"] * 2
    assert 5.0 <= tried.seconds < 10.0


def test_a_key_refused_by_mistake_is_a_good_one() -> None:
    tried = trial(
        exchange(), "openOrders", faults=[Fault("rest_error", text="EAPI:Invalid key", method="GetApiKeyInfo")]
    )
    assert tried.statuses("key", "token", "openOrders") == ["OK"] * 3


@each("text", ["EService:Unavailable", "EGeneral:Temporary lockout", "EAPI:Rate limit exceeded"])
def test_what_passes_by_itself_is_69_and_not_tried_again(text: str) -> None:
    tried = trial(exchange(), "openOrders", faults=[Fault("rest_error", text=text, duration=1e6)])
    assert (tried["key"].status, tried["key"].exit_code) == ("FAIL", 69)
    assert len(tried.calls) == 1
    assert tried.seconds < 1.0


def test_an_exchange_that_says_nothing_about_keys_is_a_warning_and_the_token_is_tried() -> None:
    faults = [Fault("rest_error", text="EGeneral:Unknown method", method="GetApiKeyInfo", duration=1e6)]
    tried = trial(exchange(), "openOrders", faults=faults)
    assert tried.statuses("key", *ITEMS) == ["WARN", *["SKIP"] * len(ITEMS)]
    assert tried.statuses("token", "openOrders") == ["OK", "OK"]


# ------------------------------------------------------------------------------------------------ the channels


def test_a_refused_channel_does_not_hide_the_others() -> None:
    here = exchange()
    key = here.add_key(permissions=("create-ws-token", "query-closed-trades"))
    tried = trial(here, "openOrders", "ownTrades", key=key)
    assert tried.statuses("openOrders", "ownTrades") == ["FAIL", "OK"]
    assert tried["openOrders"].exit_code == 77
    assert "Query open orders & trades" in tried["openOrders"].why
    assert "Switch it on" in tried["openOrders"].remedy


def test_a_stale_token_is_replaced_as_a_tail_would() -> None:
    tried = trial(exchange(), "openOrders", faults=[Fault("expired_token")])
    assert tried["openOrders"].status == "OK"
    assert tried.calls.count("GetWebSocketsToken") == 2


def test_a_token_that_is_never_good_ends_after_two() -> None:
    tried = trial(exchange(), "openOrders", faults=[Fault("expired_token", duration=1e6)])
    assert (tried["openOrders"].status, tried["openOrders"].exit_code) == ("FAIL", 69)
    assert "no longer valid" in tried["openOrders"].why
    assert tried.calls.count("GetWebSocketsToken") == 2


@each(("kind", "says"), [("no_ack", "was not answered"), ("no_snapshot", "no snapshot came")])
def test_a_channel_that_stays_silent_fails_within_its_deadline(kind: str, says: str) -> None:
    tried = trial(exchange(), "openOrders", "ownTrades", faults=[Fault(kind, channel="openOrders", duration=1e6)])
    assert (tried["openOrders"].status, tried["openOrders"].exit_code) == ("FAIL", 69)
    assert says in tried["openOrders"].why
    assert tried["ownTrades"].status == "OK"
    assert tried.seconds < 11.0


def test_a_connection_that_is_lost_at_once_fails_its_channels() -> None:
    tried = trial(exchange(), faults=[Fault("upgrade_refused", dialect="v1", status=503, duration=1e6)])
    assert tried.statuses(*ALL) == ["FAIL", "FAIL", "OK", "OK"]
    assert tried["openOrders"].exit_code == 69


def test_channels_of_an_endpoint_that_is_not_reached_are_skipped() -> None:
    tried = trial(exchange(), lost=["v2"])
    assert tried.statuses(*ALL) == ["OK", "OK", "SKIP", "SKIP"]
    assert "ws_v2" in tried["balances"].what
    assert tried.connects == 1


def test_a_refusal_that_nobody_knows_is_met_twice_and_said_to_be_one() -> None:
    tried = trial(exchange(), "openOrders", faults=[Fault("refuse_token", text="Brand new", duration=1e6)])
    assert tried["openOrders"].status == "FAIL"
    assert "Brand new" in tried["openOrders"].what
    assert tried.connects == 2
