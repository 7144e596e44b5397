"""Markers as sentences: one per event, whichever channels it concerns."""

from __future__ import annotations

from typing import Any

from kraken_feed.output.markers import CAUSES, Markers
from kraken_feed.output.zone import Zone
from kraken_feed.telemetry.causes import LOSS_CAUSES, STOP_REASONS

from ...support.cases import each

TS = "2026-11-20T22:41:05.123456Z"
LATER = "2026-11-20T22:43:05.123456Z"
SPAN = "22:41:05 to 22:43:05"
BOTH = ("openOrders", "ownTrades", "executions")


class Told:
    """Markers of one account, and the sentences for them."""

    def __init__(self, *channels: str, orders: int | None = None) -> None:
        self._markers = Markers(channels, Zone(), lambda account, channel: orders)

    def say(self, event: str, channel: str = "openOrders", account: str = "main", **fields: Any) -> str | None:
        record = {"event": f"feed.{event}", "ts": TS, "account": account, "channel": channel, **fields}
        return self._markers.sentence(record)

    def live(self, *channels: str, **fields: Any) -> list[str | None]:
        return [self.say("live", channel, **{"attempt": 1, "engine": "online", **fields}) for channel in channels]


def test_a_connection_is_live_once_with_all_its_channels() -> None:
    told = Told(*BOTH, orders=3)
    assert told.live("openOrders", "executions", "ownTrades") == [
        None, "live: executions; 3 open orders", "live: openOrders, ownTrades; 3 open orders",
    ]  # fmt: skip


def test_a_disconnect_is_told_once() -> None:
    told = Told(*BOTH)
    told.live(*BOTH)
    lost = [told.say("lost", channel, cause="closed", detail="1006 gone") for channel in BOTH]
    assert lost == [
        "lost: openOrders, ownTrades; connection closed: 1006 gone", None,
        "lost: executions; connection closed: 1006 gone",
    ]  # fmt: skip


def test_a_connection_that_is_live_again_tells_how_long_it_was_lost() -> None:
    told = Told("openOrders", "ownTrades")
    told.live("openOrders", "ownTrades")
    for channel in ("openOrders", "ownTrades"):
        told.say("lost", channel, cause="silence")
    again = told.live("openOrders", "ownTrades", ts=LATER, attempt=4, engine="post_only")
    assert again == [
        None, "live again after 120s: openOrders, ownTrades; Kraken's engine: post_only",
    ]  # fmt: skip


def test_a_second_snapshot_concerns_one_channel() -> None:
    told = Told("openOrders", "ownTrades")
    told.live("openOrders", "ownTrades")
    assert told.say("lost", cause="resnapshot", detail="x") == "lost: openOrders; another snapshot: x"
    assert told.live("openOrders", ts=LATER) == ["live again after 120s: openOrders"]
    assert told.say("lost", "ownTrades", cause="closed") == "lost: ownTrades, openOrders; connection closed"
    assert told.say("lost", "openOrders", cause="closed") is None


def test_accounts_are_told_apart() -> None:
    told = Told("openOrders")
    for account in ("main", "treasury"):
        assert told.live("openOrders", account=account) == ["live: openOrders"]
    assert told.say("lost", cause="closed", account="main")
    assert told.say("lost", cause="closed", account="treasury")


def test_the_engines_state_is_told_once_per_change() -> None:
    told = Told("openOrders", "ownTrades")
    told.live("openOrders", "ownTrades")
    states = ["maintenance", "maintenance", "online", "online", "maintenance"]
    assert [told.say("status", engine=state) for state in states] == [
        "Kraken's engine: maintenance", None, "Kraken's engine: online", None, "Kraken's engine: maintenance",
    ]  # fmt: skip


@each(
    ("event", "fields", "said"),
    [
        ("backfilled", {"orders": 1, "trades": 2}, f"recovered: openOrders {SPAN}; from history: 1 order, 2 trades"),
        ("backfilled", {"orders": 0, "trades": 0}, f"recovered: openOrders {SPAN}; nothing more in history"),
        ("backfilled", {"channel": "balances", "trades": 2}, f"recovered: balances {SPAN}; from history: 2 changes"),
        ("gap", {"reason": "no answer"}, f"GAP: openOrders {SPAN} could not be recovered; no answer"),
        ("gap", {"reason": "x", "from": None}, "GAP: openOrders up to 22:43:05 could not be recovered; x"),
        ("stopped", {"reason": "error: Kraken refused the key."}, "stopped: error: Kraken refused the key."),
        ("something_new", {"further": 1}, "something_new: openOrders"),
    ],
)  # fmt: skip
def test_other_markers(event: str, fields: dict[str, Any], said: str) -> None:
    assert Told("openOrders").say(event, **{"from": TS, "to": LATER, "ts": LATER, **fields}) == said


@each("reason", STOP_REASONS)
def test_the_end_of_all_accounts_is_left_to_the_last_row(reason: str) -> None:
    assert Told("openOrders").say("stopped", reason=reason) is None


def test_an_accounts_end_is_told_once() -> None:
    told = Told("openOrders", "ownTrades")
    assert told.say("stopped", reason="error: x")
    assert told.say("stopped", "ownTrades", reason="error: x") is None


def test_every_cause_of_a_loss_has_words() -> None:
    assert CAUSES.keys() == LOSS_CAUSES.keys()
