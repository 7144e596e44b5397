"""What the WebSockets may send that nobody expects, and that it costs neither an item nor the connection."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from .exchange import ACKS, Burst, Close, Script, Step
from .play import Played, Until, play
from .shapes import CHANNELS, dialect, frame, item, order, snapshot, update, value

each_channel = pytest.mark.parametrize("channel", CHANNELS)
each_dialect = pytest.mark.parametrize("channel", ["openOrders", "executions"], ids=["v1", "v2"])


async def hear(home: Path, channel: str, *steps: Step, to: Until, **script: Any) -> Played:
    """Return what was written about the frames of one connection."""
    return await play(home, Script(connections=[{channel: steps}], **script), channel, to=to)


def updated(number: int) -> Until:
    """Return what holds once the update with that item is on the output."""
    return lambda played: any(re.search(rf"-{number:06}\b", str(record)) for record in played.of_type("update"))


def uninterrupted(played: Played, channel: str, *items: int) -> None:
    """Assert that these items were written as updates, in this order, on one connection.

    What can be read of an unknown frame may be written besides.
    """
    read = [data for data in played.data("update") if data.get("reason") != "busted"]
    assert read == [value(channel, number) for number in items]
    assert played.named("feed.lost") == []
    assert played.exchange.connections == 1
    assert len(played.named("feed.live")) == 1
    assert played.repeated_ids == []


@each_channel
async def test_what_is_expected_is_written_as_it_is(tmp_path: Path, channel: str) -> None:
    """The scripts' own frames are Kraken's."""
    steps = [snapshot(channel), *(update(channel, number, item(channel, number)) for number in (2, 3))]
    uninterrupted(await hear(tmp_path, channel, *steps, to=updated(3)), channel, 2, 3)


# -- frames that are not known

UNKNOWN: dict[str, dict[str, str]] = {
    "v1": {
        "an object in the place of the entries": '[{"OA":{"reason":"busted"}},"CHANNEL",{"sequence":3}]',
        "a fourth element": '[[{"OA":{"reason":"busted"}}],"CHANNEL",{"sequence":3},"busted"]',
        "text in the place of the entries": '["busted","CHANNEL",{"sequence":3}]',
        "an entry without an id": '[[{}],"CHANNEL",{"sequence":3}]',
    },
    "v2": {
        "a new type": '{"channel":"CHANNEL","type":"correction","sequence":3,"data":[{"reason":"busted"}]}',
        "no type": '{"channel":"CHANNEL","sequence":3,"data":[{"reason":"busted"}]}',
        "an object in the place of the list": '{"channel":"CHANNEL","type":"update","sequence":3,"data":{"n":2}}',
        "no data": '{"channel":"CHANNEL","type":"update","sequence":3}',
    },
}
CASES = [
    *((channel, name) for channel in ("openOrders", "executions") for name in UNKNOWN[dialect(channel)]),
    ("ownTrades", "an object in the place of the entries"),
    ("balances", "a new type"),
]


@pytest.mark.parametrize(("channel", "kind"), CASES)
async def test_an_unknown_frame_counts_in_the_sequence_and_is_written(tmp_path: Path, channel: str, kind: str) -> None:
    odd = UNKNOWN[dialect(channel)][kind].replace("CHANNEL", channel)
    steps = [
        snapshot(channel),
        update(channel, 2, item(channel, 2)),
        odd.encode(),
        update(channel, 4, item(channel, 4)),
    ]
    played = await hear(tmp_path, channel, *steps, to=updated(4))
    uninterrupted(played, channel, 2, 4)
    assert len(played.named("unknown")) == 1
    assert any(f'"data":{odd}'.encode() in line for line in played.lines)


@each_channel
async def test_an_item_that_is_no_object_does_not_hide_the_others(tmp_path: Path, channel: str) -> None:
    steps = [snapshot(channel), update(channel, 2, item(channel, 2), "null", item(channel, 3), "7")]
    played = await hear(tmp_path, channel, *steps, update(channel, 3, item(channel, 4)), to=updated(4))
    uninterrupted(played, channel, 2, 3, 4)
    assert len(played.named("unknown")) == 1


@each_channel
async def test_null_for_an_empty_snapshot_is_an_empty_list(tmp_path: Path, channel: str) -> None:
    steps = [frame(channel, "snapshot", 1, "null"), update(channel, 2, item(channel, 2))]
    uninterrupted(await hear(tmp_path, channel, *steps, to=updated(2)), channel, 2)


@each_channel
async def test_null_for_an_empty_update_is_an_empty_list(tmp_path: Path, channel: str) -> None:
    steps = [snapshot(channel), frame(channel, "update", 2, "null"), update(channel, 3, item(channel, 3))]
    uninterrupted(await hear(tmp_path, channel, *steps, to=updated(3)), channel, 3)


# -- numbers of another spelling


@each_dialect
@pytest.mark.parametrize("sequence", ["{}.0", '"{}"', "{}e0"], ids=["1.0", "text", "1e0"])
async def test_an_integral_number_is_an_integer_however_it_is_written(
    tmp_path: Path, channel: str, sequence: str
) -> None:
    steps = [snapshot(channel, sequence.format(1))]
    steps += [update(channel, sequence.format(number), item(channel, number)) for number in (2, 3)]
    played = await hear(tmp_path, channel, *steps, to=updated(3))
    uninterrupted(played, channel, 2, 3)
    assert [record["sequence"] for record in played.of_type("update")] == [2, 3]


@each_dialect
@pytest.mark.parametrize("req_id", ['"REQ_ID"', "REQ_ID.0"], ids=["text", "1.0"])
async def test_an_acknowledgement_is_recognised_by_the_value_of_its_number(
    tmp_path: Path, channel: str, req_id: str
) -> None:
    acks = {name: ack.replace("REQ_ID", req_id) for name, ack in ACKS.items()}
    played = await hear(tmp_path, channel, snapshot(channel), to=lambda played: played.named("feed.live"), acks=acks)
    assert played.named("feed.lost") == []
    assert played.exchange.connections == 1


# -- a second snapshot on one connection


@pytest.mark.parametrize(
    ("channel", "sequence"),
    [("executions", 1), ("executions", 3), ("executions", 40), ("openOrders", 1)],
    ids=["v2 restarts", "v2 goes on", "v2 jumps", "v1 restarts"],
)
async def test_orders_that_a_second_snapshot_lacks_are_looked_for(tmp_path: Path, channel: str, sequence: int) -> None:
    ended = b'{"error":[],"result":{"OAAAAA-BBBBB-000001":{"status":"closed","vol":"1.0","vol_exec":"0.0"}}}'
    steps = [
        snapshot(channel, 1, order(channel, 1), order(channel, 2)),
        update(channel, 2, item(channel, 2)),
        snapshot(channel, sequence, order(channel, 2)),
        update(channel, sequence + 1, item(channel, 2)),
    ]
    played = await hear(tmp_path, channel, *steps, to=lambda played: played.settled, rest={"QueryOrders": [ended]})
    (end,) = played.of_type("backfill")
    assert end["id"].endswith("OAAAAA-BBBBB-000001:end")
    assert played.data("update") == [value(channel, 2)] * 2
    assert played.repeated_ids == []
    assert played.gaps == []


async def test_a_balance_that_a_second_snapshot_changes_is_written(tmp_path: Path) -> None:
    one = '{"asset":"EUR","asset_class":"currency","balance":1}'
    other = '{"asset":"USD","asset_class":"currency","balance":1}'
    steps = [
        snapshot("balances", 1, one, other),
        update("balances", 2, item("balances", 7)),
        snapshot("balances", 1, one, other.replace(":1}", ":2}")),
        update("balances", 2, item("balances", 8)),
    ]
    played = await hear(tmp_path, "balances", *steps, to=updated(8))
    assert {"asset": "USD", "asset_class": "currency", "balance": 2} in played.data("snapshot")
    assert played.data("update") == [value("balances", 7), value("balances", 8)]
    assert played.repeated_ids == []


@pytest.mark.parametrize("channel", ["executions", "balances"])
async def test_what_follows_a_second_snapshot_has_ids_of_its_own(tmp_path: Path, channel: str) -> None:
    """Its numbers, and even its bytes, may be those of what came before."""
    anonymous = '{"asset":"EUR","exec_type":"status","balance":1.0}'
    steps = [snapshot(channel), update(channel, 2, anonymous), update(channel, 3, item(channel, 7))] * 2
    played = await hear(
        tmp_path, channel, *steps, update(channel, 4, item(channel, 8)), to=lambda played: len(played.settled) >= 1
    )
    assert played.data("update").count({"asset": "EUR", "exec_type": "status", "balance": 1.0}) == 2
    assert played.repeated_ids == []


# -- what is not JSON


@each_dialect
@pytest.mark.parametrize("garbage", [b'{"channel":"executions" garbage %d', b"\xff\xfe %d"])
async def test_a_burst_of_unreadable_frames_is_one_outage(tmp_path: Path, channel: str, garbage: bytes) -> None:
    burst = Burst(tuple(garbage % number for number in range(20)))
    played = await hear(
        tmp_path,
        channel,
        snapshot(channel),
        0.1,
        burst,
        to=lambda played: played.settled and len(unreadable(played)) == 20,
    )
    assert len(played.settled) == 1
    assert played.repeated_ids == []


async def test_unreadable_frames_between_updates_hide_none_of_them(tmp_path: Path) -> None:
    frames = [update("executions", number, item("executions", number)) for number in range(2, 6)]
    burst = Burst((frames[0], b"{", frames[1], b"}", frames[2], b"\xff", frames[3]))
    played = await hear(tmp_path, "executions", snapshot("executions"), burst, to=lambda played: played.settled)
    assert played.data("update") == [value("executions", number) for number in range(2, 6)]
    assert played.repeated_ids == []


def unreadable(played: Played) -> list[dict[str, Any]]:
    return [record for record in played.named("unknown") if "data_base64" in record]


async def test_several_outages_of_one_channel_have_markers_of_their_own(tmp_path: Path) -> None:
    """Each is declared or recovered once, and no two markers share an id."""
    garbage: list[Step] = [snapshot("executions"), b"{", 0.2, b"}", 0.2, Close()]
    script = Script(
        connections=[{"executions": garbage}, {"executions": garbage}, {"executions": [snapshot("executions")]}]
    )
    played = await play(
        tmp_path, script, "executions", to=lambda played: len(played.named("feed.live")) == 3 and played.settled
    )
    assert played.repeated_ids == []
