"""The policy, against the simulated exchange in memory and in virtual time: hours pass in a moment."""

from __future__ import annotations

import asyncio
import itertools
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import msgspec
import pytest

from kraken_feed.config.schema import BackfillConfig, Config, ReconnectConfig
from kraken_feed.errors import CredentialsRefused, FeedError, OutageTooLong, RequestRefused
from kraken_feed.feed import checkpointer
from kraken_feed.feed.environment import Limits
from kraken_feed.protocol.signing import Credentials
from kraken_feed.simulator.exchange import Exchange
from kraken_feed.simulator.faults.fault import Fault
from kraken_feed.simulator.faults.scenario import LIKELY, RandomFaults, Scenario
from kraken_feed.state.checkpoint import ChannelState, Checkpoint

from ...support import memory, virtual_time
from ...support.examples import some
from ...support.exchange_driver import T0
from ...support.ledger_check import Published, check

ALL = ("openOrders", "ownTrades", "executions", "balances")


def exchange(*faults: Fault, rate: float = 0.0, seed: int = 1, **options: Any) -> Exchange:
    return Exchange(now=T0, seed=seed, rate=rate, scenario=Scenario(faults=faults), **options)


def hours(count: float) -> Limits:
    return Limits(duration=count * 3600)


def tail(*arguments: Any, **options: Any) -> memory.Run:
    return virtual_time.run(memory.tail(*arguments, **options))


def ended(*arguments: Any, **options: Any) -> tuple[FeedError, memory.Run]:
    """A run that ends with an error, and the error."""
    keep: list[memory.Run] = []

    async def main() -> None:
        exchange, path, *channels = arguments
        with memory.running(exchange) as world:
            run = memory.Run(
                world, path, tuple(channels) or ("openOrders",), options.pop("config", Config()),
                options.pop("limits", hours(24)), **options,
            )  # fmt: skip
            keep.append(run)
            await run.feed.run()

    with pytest.raises(FeedError) as raised:
        virtual_time.run(main())
    return raised.value, keep[0]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "out.jsonl"


def ledger(run: memory.Run) -> list[Published]:
    return [
        Published(item.connection_id, item.channel, item.sequence, item.value)
        for item in run.world.exchange.ledger.published
    ]


# -- connect, token, subscribe


def test_every_connection_gets_a_fresh_token(path: Path) -> None:
    run = tail(exchange(Fault("drop", every=40.0, code=1001)), path, limits=hours(0.3))
    tokens = [msgspec.json.decode(text)["subscription"]["token"] for text in run.world.sent if '"subscribe"' in text]
    assert len(tokens) > 20
    assert len(set(tokens)) == len(tokens)


def test_the_channels_of_an_endpoint_share_a_connection_and_its_token(path: Path) -> None:
    run = tail(exchange(), path, *ALL, limits=Limits(once=True))
    assert len(run.world.dials) == 2
    assert run.world.exchange.world.token_calls == 2
    tokens = [msgspec.json.decode(text) for text in run.world.sent]
    asked = [t["subscription"]["token"] for t in tokens if t.get("event") == "subscribe"]
    assert asked == [tokens[0]["subscription"]["token"]] * 2
    assert {line["connection"] for line in run.named("feed.live")} == set(run.connections())


def test_both_endpoints_use_one_sequence_of_nonces_and_one_call_at_a_time(path: Path) -> None:
    run = tail(exchange(Fault("drop", every=35.0, code=1011)), path, *ALL, limits=hours(0.3))
    nonces = [int(parse_qs(body.decode())["nonce"][0]) for _, _, body in run.world.calls]
    assert len(nonces) > 50
    assert nonces == sorted(set(nonces))


def test_a_network_outage_costs_no_rest_call(path: Path) -> None:
    async def main() -> memory.Run:
        with memory.running(exchange()) as world:
            world.network = False
            run = memory.Run(world, path, ("openOrders",), Config(), hours(2))
            await run.feed.run()
            return run

    run = virtual_time.run(main())
    assert len(run.world.dials) > 50
    assert run.world.calls == []


# -- backoff and budget


def spacing(run: memory.Run) -> list[float]:
    times = [time for time, _, _ in run.world.dials]
    return [later - earlier for earlier, later in itertools.pairwise(times)]


def busiest(run: memory.Run, window: float) -> int:
    times = [time for time, _, _ in run.world.dials]
    return max(sum(start <= time < start + window for time in times) for start in times)


def test_a_refused_token_in_a_loop_slows_down_and_stays_under_the_budget(path: Path) -> None:
    run = tail(exchange(Fault("refuse_token", at=0.0, duration=1e9)), path, limits=hours(0.5))
    assert run.named("feed.live") == []
    assert busiest(run, 600.0) < 100
    waits = [entry["retry_in"] for entry in run.said("connection_failed")]
    assert len(waits) == len(run.world.dials) - 1 or len(waits) == len(run.world.dials)
    assert waits[:4] == [1.5, 2.0, 3.0, 5.0]  # a second that the refusal demands, and half of 1, 2, 4, 8 s
    assert waits[10] == 31.0


def test_accept_then_close_does_not_reset_the_backoff(path: Path) -> None:
    run = tail(exchange(Fault("drop", every=0.1, code=1001)), path, limits=hours(0.2))
    assert busiest(run, 600.0) < 40
    assert spacing(run)[-1] == pytest.approx(30.0, abs=0.5)


def test_a_connection_that_lasted_resets_the_backoff(path: Path) -> None:
    run = tail(exchange(Fault("drop", every=60.0, code=1001)), path, limits=hours(0.25))
    assert {entry["retry_in"] for entry in run.said("connection_lost")} == {0.5}


def test_a_connection_that_was_live_only_shortly_does_not(path: Path) -> None:
    run = tail(exchange(Fault("drop", every=20.0, code=1001)), path, limits=hours(0.1))
    waits = [entry["retry_in"] for entry in run.said("connection_lost")]
    assert waits[:5] == [0.5, 1.0, 2.0, 4.0, 8.0]


@pytest.mark.parametrize("draw", [0.0, 0.999])
def test_the_budget_holds_for_all_connections_of_the_process_together(path: Path, draw: float) -> None:
    config = Config(reconnect=ReconnectConfig(budget=10, window_s=100.0, max_s=1.0))
    broken = exchange(Fault("drop", every=0.1, code=1001))
    run = tail(broken, path, *ALL, config=config, limits=hours(0.08), draw=lambda: draw)
    assert busiest(run, 100.0) == 10
    assert run.said("connect_postponed") != []


def test_the_first_failure_of_an_outage_is_a_warning_and_the_others_are_not(path: Path) -> None:
    run = tail(exchange(Fault("upgrade_refused", at=0.0, duration=1000.0, status=503)), path, limits=hours(0.3))
    levels = [entry["log_level"] for entry in run.said("connection_failed")]
    assert levels[0] == "warning"
    assert set(levels[1:]) == {"info"}


def test_a_banned_address_waits_until_the_ban_is_over(path: Path) -> None:
    run = tail(exchange(Fault("upgrade_refused", on_connect=1, status=429)), path, limits=hours(1))
    assert spacing(run)[0] >= 600.0


# -- what Kraken says about the key


@pytest.mark.parametrize("channels", [("openOrders",), ALL])
def test_a_refused_key_is_tried_twice_slowly_and_no_more(path: Path, channels: tuple[str, ...]) -> None:
    wrong = Credentials("K" * 56, "c2VjcmV0", source="the test")
    error, run = ended(exchange(), path, *channels, credentials=wrong)
    assert isinstance(error, CredentialsRefused)
    times = [time for time, _, _ in run.world.calls]
    assert len(times) == 2
    assert times[1] - times[0] >= 5.0
    assert "EAPI:Invalid key" in error.what
    assert "…KKKK (from the test)" in error.what
    assert "2FA" in error.remedy


def test_a_key_refused_once_in_an_outage_is_not_given_up(path: Path) -> None:
    run = tail(exchange(Fault("rest_error", on_token=1, text="EAPI:Invalid key")), path, limits=hours(0.1))
    assert len(run.named("feed.live")) == 1


@pytest.mark.parametrize("text", ["EAPI:Invalid key", "EAPI:Invalid signature", "EGeneral:Permission denied"])
def test_a_key_that_has_worked_and_is_refused_for_twenty_minutes_comes_back(path: Path, text: str) -> None:
    trouble = Fault("rest_error", at=100.0, duration=1200.0, text=text)
    run = tail(exchange(Fault("drop", at=101.0), trouble, rate=0.1), path, limits=hours(0.6))
    tries = [time for time, _, _ in run.world.calls if 100.0 < time - run.world.calls[0][0] < 1300.0]
    assert 3 <= len(tries) <= 6  # Kraken locks out whoever tries much more often
    assert len(run.named("feed.live")) == 2
    assert len(run.named("feed.backfilled")) == 1
    assert run.named("feed.gap") == []


def test_a_key_that_has_worked_is_given_up_after_hours(path: Path) -> None:
    trouble = Fault("rest_error", at=100.0, duration=1e6, text="EAPI:Invalid key")
    config = Config(reconnect=ReconnectConfig(refused_s=7200.0))
    error, run = ended(exchange(Fault("drop", at=101.0), trouble), path, config=config)
    assert isinstance(error, CredentialsRefused)
    assert 7200.0 <= run.world.now() - T0 - 100.0 < 8200.0


def test_a_key_that_worked_in_an_earlier_run_is_not_given_up_at_the_next_start(path: Path) -> None:
    known = Checkpoint(channels={"openOrders": ChannelState(complete_ns=int((T0 - 60) * 1e9))})
    trouble = Fault("rest_error", at=0.0, duration=1200.0, text="EAPI:Invalid key")
    run = tail(exchange(trouble), path, checkpoint=known, limits=hours(1))
    assert len(run.named("feed.live")) == 1


@pytest.mark.parametrize("text", ["Service temporarily unavailable", "Malformed request"])
def test_a_channel_that_was_live_survives_whatever_its_subscription_is_refused_with(path: Path, text: str) -> None:
    trouble = Fault("refuse_token", at=100.0, times=3, text=text)
    run = tail(exchange(trouble, Fault("drop", at=101.0)), path, limits=hours(0.3))
    assert len(run.named("feed.live")) == 2
    assert [path for _, path, _ in run.world.calls].count("/0/private/GetWebSocketsToken") == 5


@pytest.mark.parametrize("ahead_s", [4, 3 * 3600, 5 * 365 * 86_400])
def test_a_nonce_behind_another_programs_is_got_ahead_of_within_two_minutes(path: Path, ahead_s: int) -> None:
    world = exchange()
    world.keys[world.key].nonce = int((T0 + ahead_s) * 1e9)
    run = tail(world, path, limits=hours(0.1))
    first, *_, last = [time for time, _, _ in run.world.calls]
    assert len(run.named("feed.live")) == 1
    assert last - first < 120.0  # with the jitter


def test_a_key_that_never_worked_is_given_up_for_its_nonce_after_a_minute_of_tries(path: Path) -> None:
    error, run = ended(exchange(Fault("rest_error", at=0.0, duration=1e6, text="EAPI:Invalid nonce")), path)
    assert isinstance(error, CredentialsRefused)
    assert len(run.world.calls) == 7
    assert 60.0 <= run.world.now() - T0 < 120.0
    for word in ("clock", "program"):
        assert word in error.why
        assert word in error.remedy
    assert "permission" not in str(error)


def test_a_key_that_has_worked_outlasts_an_hour_of_refused_nonces(path: Path) -> None:
    trouble = Fault("rest_error", at=100.0, duration=3600.0, text="EAPI:Invalid nonce")
    run = tail(exchange(Fault("drop", at=101.0), trouble), path, limits=hours(1.4))
    assert len(run.named("feed.live")) == 2


def test_a_wrong_secret_is_final_at_once(path: Path) -> None:
    world = exchange()
    error, run = ended(world, path, credentials=Credentials(world.key, "c2VjcmV0", source="the test"))
    assert isinstance(error, CredentialsRefused)
    assert len(run.world.calls) == 1
    assert "EAPI:Invalid signature" in str(error)


def test_a_key_without_the_token_permission_is_told_which(path: Path) -> None:
    world = exchange()
    key = world.add_key(permissions=("query-open-trades",))
    error, _ = ended(world, path, credentials=Credentials(key.key, key.secret, source="the test"))
    assert isinstance(error, CredentialsRefused)
    for spelling in ("WebSocket interface", "Access WebSockets API", "create-ws-token"):
        assert spelling in str(error)


@pytest.mark.parametrize(
    ("channel", "permission"),
    [
        ("openOrders", "query-open-trades"),
        ("ownTrades", "query-closed-trades"),
        ("executions", "query-open-trades"),
        ("balances", "query-funds"),
    ],
)
def test_a_key_without_the_channels_permission_is_told_which(path: Path, channel: str, permission: str) -> None:
    world = exchange()
    key = world.add_key(permissions=("create-ws-token",))
    error, run = ended(world, path, channel, credentials=Credentials(key.key, key.secret, source="the test"))
    assert isinstance(error, CredentialsRefused)
    assert permission in str(error)
    assert channel in str(error)
    assert run.named("feed.stopped")[0]["reason"].startswith("error: Kraken refused the API key")


def test_a_subscription_that_is_called_malformed_is_our_defect(path: Path) -> None:
    refusal = Fault("refuse_token", at=0.0, duration=1e9, text="EGeneral:Invalid arguments:token")
    error, run = ended(exchange(refusal), path)
    assert isinstance(error, RequestRefused)
    assert error.exit_code == 1
    assert len(run.world.dials) == 1


def test_an_unknown_refusal_is_tried_once_more_on_a_fresh_connection(path: Path) -> None:
    error, run = ended(exchange(Fault("refuse_token", at=0.0, duration=1e9, text="Not on Saturdays")), path)
    assert "Not on Saturdays" in str(error)
    assert len(run.world.dials) == 2


def test_a_lockout_means_no_call_and_no_connect_for_a_quarter_of_an_hour(path: Path) -> None:
    lockout = Fault("rest_error", on_token=1, text="EGeneral:Temporary lockout")
    run = tail(exchange(lockout), path, *ALL, limits=hours(1))
    calls = [time for time, _, _ in run.world.calls]
    assert calls[1] - calls[0] >= 900.0
    assert all(time <= calls[0] or time >= calls[0] + 900.0 for time, _, _ in run.world.dials)
    assert len(run.named("feed.live")) == 4


def test_a_lockout_that_the_websocket_tells_of_holds_for_the_other_connection_too(path: Path) -> None:
    """The key is locked, whichever way it was said: nobody fetches a token, and nobody connects to fetch one."""
    lockout = Fault("refuse_token", at=0.0, text="EGeneral:Temporary lockout", dialect="v1")
    drop = Fault("drop", at=30.0, dialect="v2")
    run = tail(exchange(lockout, drop), path, *ALL, limits=hours(1))
    again = [time for time, _, _ in run.world.dials if time > 1.0]
    assert min(again) >= 900.0


@pytest.mark.parametrize(("retry_after", "least", "most"), [(120, 120.0, 121.0), (None, 600.0, 601.0)])
def test_a_ban_says_itself_how_long_it_lasts(path: Path, retry_after: int | None, least: float, most: float) -> None:
    ban = Fault("upgrade_refused", on_connect=1, status=429, retry_after=retry_after)
    run = tail(exchange(ban), path, limits=hours(0.25))
    assert least <= spacing(run)[0] <= most


def test_old_tokens_are_not_remembered_for_ever(path: Path) -> None:
    run = tail(exchange(Fault("drop", every=40.0, code=1001)), path, limits=hours(0.5))
    assert run.world.exchange.world.token_calls > 40
    kept = {text for owners in run.secrets._heads.values() for text in owners}
    assert len(kept) < 10


@pytest.mark.parametrize(
    ("fault", "least"),
    [
        (Fault("rest_error", on_token=1, text="EAPI:Rate limit exceeded"), 15.0),
        (Fault("rest_error", on_token=1, text="EGeneral:Too many requests"), 60.0),
        (Fault("rest_error", on_token=1, text="EService:Unavailable"), 5.0),
        (Fault("rest_error", on_token=1, text="EAPI:Invalid nonce"), 1.0),
        (Fault("rest_error", on_token=1, text="EBrandnew:Never seen"), 1.0),
        (Fault("http_502", on_token=1), 1.0),
        (Fault("http_403", on_token=1), 300.0),
        (Fault("http_429", on_token=1, retry_after=120), 120.0),
        (Fault("rest_timeout", on_token=1), 10.0),
        (Fault("expired_token", on_token=1), 1.0),
    ],
)
def test_what_passes_is_waited_for(path: Path, fault: Fault, least: float) -> None:
    run = tail(exchange(fault), path, limits=hours(0.25))
    calls = [time for time, _, _ in run.world.calls]
    assert len(calls) == 2
    assert calls[1] - calls[0] >= least
    assert len(run.named("feed.live")) == 1


# -- losses


@pytest.mark.parametrize(
    ("fault", "cause"),
    [
        (Fault("drop", at=30.0), "closed"),
        (Fault("drop", at=30.0, code=1001), "closed"),
        (Fault("drop", at=30.0, code=1006), "closed"),
        (Fault("half_open", at=30.0), "silence"),
        (Fault("silent", at=30.0), "silence"),
        (Fault("unsubscribe", at=30.0), "unsubscribed"),
        (Fault("sequence_skip", at=30.0), "sequence"),
        (Fault("sequence_skip", at=30.0, variant="lost"), "sequence"),
    ],
)
def test_a_loss_is_declared_with_its_cause_and_made_good(path: Path, fault: Fault, cause: str) -> None:
    run = tail(exchange(fault, rate=2.0), path, limits=hours(0.04))
    assert [line["cause"] for line in run.named("feed.lost")] == [cause]
    assert [line["attempt"] for line in run.named("feed.live")] == [1, 1]
    lost = run.named("feed.lost")[0]
    orders = [line for line in run.named("order") if line["connection"] == lost["connection"]]
    last = orders[-2 if cause == "sequence" else -1]  # the frame that shows a jump is written, and counts no more
    assert lost["last_sequence"] == last["sequence"]
    # What is not confirmed by an answered ping may be missing; the last one was sent at 20 s.
    began = datetime.fromisoformat(lost["last_ts"]).timestamp() - T0
    assert 19.5 <= began <= (30.0 if cause == "silence" else 20.0) or (cause == "sequence" and began <= 20.0)


@pytest.mark.parametrize("kind", ["no_ack", "no_snapshot", "no_greeting", "delay_ack", "early_data", "msg_rate"])
def test_a_bad_start_is_never_called_live_and_is_got_over(path: Path, kind: str) -> None:
    fault = Fault(kind, at=0.0, seconds=9.0 if kind == "delay_ack" else None)
    run = tail(exchange(fault, rate=1.0), path, limits=hours(0.1))
    assert run.named("feed.lost") == []
    assert len(run.named("feed.live")) == 1


def leap(after: float, seconds: float) -> Any:
    """Something that stops the process, or the machine, for a while: the clock moves, and nothing else does."""

    async def main(path: Path) -> memory.Run:
        with memory.running(exchange(rate=0.2)) as world:
            run = memory.Run(world, path, ("openOrders",), Config(), Limits(duration=after + seconds + 60.0))
            loop = asyncio.get_running_loop()
            assert isinstance(loop, virtual_time.VirtualLoop)

            def stop_the_clock() -> None:
                loop.elapsed += seconds
                assert world._timer is not None
                world._timer.cancel()  # the peer's frames are not here at once when we run again
                loop.call_later(0.5, world.turn)

            loop.call_later(after, stop_the_clock)
            await run.feed.run()
            return run

    return main


@pytest.mark.parametrize("after", [20.0, 20.3, 20.99])
@pytest.mark.parametrize("seconds", [11.0, 60.0, 3600.0])
def test_time_in_which_the_process_did_not_run_is_not_the_peers_silence(
    path: Path, after: float, seconds: float
) -> None:
    run = virtual_time.run(leap(after, seconds)(path))
    assert run.named("feed.lost") == []


def test_silence_after_such_a_time_is_found_out_as_soon_as_ever(path: Path) -> None:
    async def main() -> memory.Run:
        with memory.running(exchange()) as world:
            run = memory.Run(world, path, ("openOrders",), Config(), Limits(duration=100.0))
            loop = asyncio.get_running_loop()
            assert isinstance(loop, virtual_time.VirtualLoop)

            def stop_the_clock() -> None:
                world.exchange.inject(Fault("half_open"), world.now())
                loop.elapsed += 30.0

            loop.call_later(20.0, stop_the_clock)
            await run.feed.run()
            return run

    run = virtual_time.run(main())
    (lost,) = run.said("connection_lost")
    assert lost["cause"] == "silence"
    assert run.world.dials[1][0] < 20.0 + 30.0 + 10.0 + 2.0


def test_attempts_are_counted_until_live(path: Path) -> None:
    run = tail(exchange(Fault("upgrade_refused", at=0.0, duration=10.0)), path, limits=hours(0.1))
    (live,) = run.named("feed.live")
    assert live["attempt"] == len(run.world.dials) > 2


def test_the_engines_states_are_marked_on_every_channel(path: Path) -> None:
    run = tail(exchange(Fault("maintenance", at=60.0)), path, "openOrders", "ownTrades", limits=hours(0.1))
    for channel in ("openOrders", "ownTrades"):
        states = [line["engine"] for line in run.named("feed.status") if line["channel"] == channel]
        assert states == ["maintenance", "cancel_only", "post_only", "online"]
    assert len({line["id"] for line in run.lines}) == len(run.lines)


def test_an_outage_longer_than_allowed_ends_with_69(path: Path) -> None:
    config = Config(reconnect=ReconnectConfig(max_outage_s=300.0))
    error, run = ended(exchange(Fault("upgrade_refused", at=0.0, duration=1e9)), path, config=config)
    assert isinstance(error, OutageTooLong)
    assert error.exit_code == 69
    assert error.why.startswith("What failed last: upgrade: ")
    assert run.world.now() - T0 == pytest.approx(300.0, abs=0.1)


def test_without_a_limit_an_outage_of_a_day_is_survived(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpointer, "CHECKPOINT_S", 60.0)  # else the day is 86,400 saves
    day = 86400.0
    run = tail(exchange(Fault("upgrade_refused", at=0.0, duration=day)), path, limits=Limits(duration=day + 600))
    assert len(run.named("feed.live")) == 1


# -- stopping


def test_what_had_arrived_when_the_stop_came_is_written(path: Path) -> None:
    """A stop drains: frames that were received and not read yet are not thrown away."""

    async def main() -> memory.Run:
        with memory.running(exchange()) as world:
            run = memory.Run(world, path, ("openOrders",), Config(), Limits())
            task = asyncio.create_task(run.feed.run())
            await virtual_time.elapse(5.0)
            for _ in range(20):
                world.exchange.new_order(world.now())
            world.deliver()
            run.feed.stop("SIGTERM")
            await task
            return run

    run = virtual_time.run(main())
    assert check(path.read_bytes(), ledger(run), run.connections())["undelivered"] == 0
    assert len([line for line in run.named("order") if line["type"] == "update"]) >= 20


def test_a_defect_leaves_behind_what_was_received_before_it(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> memory.Run:
        with memory.running(exchange(rate=5.0)) as world:
            run = memory.Run(world, path, ("openOrders",), Config(), Limits())
            loop = asyncio.get_running_loop()
            loop.call_later(30.0, monkeypatch.setattr, "kraken_feed.feed.recorder.Recorder.write", None)
            with pytest.raises(ExceptionGroup):
                await run.feed.run()
            return run

    run = virtual_time.run(main())
    assert len(run.named("order")) > 50
    assert run.lines[-1]["event_name"] == "feed.stopped"
    assert run.lines[-1]["reason"] == "defect"


def test_once_writes_every_snapshot_and_ends(path: Path) -> None:
    run = tail(exchange(), path, *ALL, limits=Limits(once=True))
    assert {line["channel"] for line in run.named("feed.live")} == set(ALL)
    assert {line["type"] for line in run.lines if "data" in line} == {"snapshot"}
    assert [line["reason"] for line in run.named("feed.stopped")] == ["once"] * 4


def test_count_counts_items_not_markers(path: Path) -> None:
    run = tail(exchange(rate=5.0), path, "openOrders", "executions", limits=Limits(count=7))
    assert len([line for line in run.lines if "data" in line]) == 7
    assert {line["reason"] for line in run.named("feed.stopped")} == {"count"}


def test_duration_is_kept_to_the_second(path: Path) -> None:
    run = tail(exchange(), path, limits=Limits(duration=42.0))
    assert run.world.now() - T0 == pytest.approx(42.0, abs=0.1)


# -- secrets


def test_an_unknown_frame_that_echoes_the_token_is_written_without_it(path: Path) -> None:
    async def main() -> memory.Run:
        with memory.running(exchange()) as world:
            run = memory.Run(world, path, ("openOrders",), Config(), Limits(duration=5.0))

            def echo() -> None:
                (socket,) = world.sockets
                token = msgspec.json.decode(world.sent[0])["subscription"]["token"]
                for text in (token, token.replace("/", "\\/")):
                    socket._frames.put_nowait(b'{"event":"new","subscription":{"token":"%b"}}' % text.encode())
                    socket._frames.put_nowait(b"no json " + text.encode())

            asyncio.get_running_loop().call_later(2.0, echo)
            await run.feed.run()
            return run

    run = virtual_time.run(main())
    token = msgspec.json.decode(run.world.sent[0])["subscription"]["token"]
    unknown = run.named("unknown")
    assert [("data" in line, "data_base64" in line) for line in unknown] == [(True, False), (False, True)] * 2
    assert unknown[0]["data"] == {"event": "new", "subscription": {"token": "[masked]"}}
    assert token not in path.read_text()


@pytest.mark.parametrize("frame", [b'{"event":"new%d"}', b"no json %d"])
def test_very_many_unknown_frames_are_written_and_counted_and_only_a_few_are_warned_of(
    path: Path, frame: bytes
) -> None:
    async def main() -> memory.Run:
        with memory.running(exchange()) as world:
            run = memory.Run(world, path, ("openOrders",), Config(), Limits(duration=5.0))

            def flood() -> None:
                (socket,) = world.sockets
                for number in range(5_000):
                    socket._frames.put_nowait(frame % number)

            asyncio.get_running_loop().call_later(2.0, flood)
            await run.feed.run()
            return run

    run = virtual_time.run(main())
    assert len(run.named("unknown")) == 5_000
    assert run.feed.figures().records["unknown", "unknown"] == 5_000
    assert [entry.get("times", 1) for entry in run.said("frame_unknown")] == [1, 10, 100, 1000]


# -- the promise


@pytest.mark.seeds
@pytest.mark.parametrize("seed", some(range(24)))
def test_every_published_item_is_on_the_output_or_in_a_declared_outage(path: Path, seed: int) -> None:
    kinds = dict(LIKELY) | {"no_greeting": 1.0, "msg_rate": 1.0}
    scenario = Scenario(random=RandomFaults(every=5.0, kinds=kinds), tier="pro")
    world = Exchange(now=T0, seed=seed, rate=5.0, scenario=scenario)
    config = Config(backfill=BackfillConfig(enabled=False))  # what REST says first, the feed need not say again
    run = tail(world, path, *ALL, limits=hours(1 / 12), draw=lambda: 0.1, snapshots="all", config=config)
    counts = check(path.read_bytes(), ledger(run), run.connections())
    assert counts["written"] > 1000
    assert len(run.named("feed.lost")) > 10
    assert len({fault.kind for fault in world.ledger.faults}) >= 8
