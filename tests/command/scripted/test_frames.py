"""What the WebSockets may send that nobody expects, and that it costs neither an item nor the connection."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from .exchange import ACKS, Burst, Close, Script, Step, dialect_of
from .play import Played, Until, play, settled
from .shapes import CHANNELS, OF_ORDERS, frame, item, order, snapshot, update, value

ONE_OF_EACH_DIALECT = OF_ORDERS


async def hear(
    home: Path, steps: Callable[[str], Sequence[Step]], channels: Sequence[str] = CHANNELS, *, to: Until, **script: Any
) -> Played:
    """Return what was written about the frames of one connection of each dialect."""
    return await play(
        home, Script(connections=[{channel: steps(channel) for channel in channels}], **script), *channels, to=to
    )


def updated(number: int) -> Until:
    """Return what holds once the update with that item is on the output, of every channel."""
    item_id = re.compile(rf"-{number:06}\b")
    return lambda played: all(
        any(item_id.search(str(record)) for record in one.of_type("update")) for one in played.each
    )


def uninterrupted(played: Played, *items: int) -> None:
    """Assert of every channel that these items were written as updates, in this order, on one connection.

    What can be read of an unknown frame may be written besides.
    """
    for one in played.each:
        read = [data for data in one.data("update") if data.get("reason") != "busted"]
        assert read == [value(one.channel, number) for number in items]
        assert one.named("feed.lost") == []
        assert len(one.named("feed.live")) == 1
    assert set(played.exchange.connections.values()) == {1}
    assert played.repeated_ids == []


async def test_what_is_expected_is_written_as_it_is(tmp_path: Path) -> None:
    """The scripts' own frames are Kraken's."""

    def steps(channel: str) -> list[Step]:
        return [snapshot(channel), *(update(channel, number, item(channel, number)) for number in (2, 3))]

    uninterrupted(await hear(tmp_path, steps, to=updated(3)), 2, 3)


# -- frames that are not known

UNKNOWN = {
    "v1": (
        '[{"OA":{"reason":"busted"}},"CHANNEL",{"sequence":3}]',  # an object in the place of the entries
        '[[{"OA":{"reason":"busted"}}],"CHANNEL",{"sequence":4},"busted"]',  # a fourth element
        '["busted","CHANNEL",{"sequence":5}]',  # text in the place of the entries
        '[[{}],"CHANNEL",{"sequence":6}]',  # an entry without an id
    ),
    "v2": (
        '{"channel":"CHANNEL","type":"correction","sequence":3,"data":[{"reason":"busted"}]}',  # a new type
        '{"channel":"CHANNEL","sequence":4,"data":[{"reason":"busted"}]}',  # no type
        '{"channel":"CHANNEL","type":"update","sequence":5,"data":{"n":2}}',  # an object in the place of the list
        '{"channel":"CHANNEL","type":"update","sequence":6}',  # no data
    ),
}


async def test_unknown_frames_count_in_the_sequence_and_are_written(tmp_path: Path) -> None:
    def odd(channel: str) -> list[bytes]:
        return [text.replace("CHANNEL", channel).encode() for text in UNKNOWN[dialect_of(channel)]]

    def steps(channel: str) -> list[Step]:
        before, after = update(channel, 2, item(channel, 2)), update(channel, 7, item(channel, 7))
        return [snapshot(channel), before, *odd(channel), after]

    played = await hear(tmp_path, steps, to=updated(7))
    uninterrupted(played, 2, 7)
    unknown = [line[line.index(b'"data":') + 7 : -1] for line in played.lines if b'"event_name":"unknown"' in line]
    assert sorted(unknown) == sorted(frame for channel in CHANNELS for frame in odd(channel))


async def test_an_item_that_is_no_object_does_not_hide_the_others(tmp_path: Path) -> None:
    def steps(channel: str) -> list[Step]:
        odd = update(channel, 2, item(channel, 2), "null", item(channel, 3), "7")
        return [snapshot(channel), odd, update(channel, 3, item(channel, 4))]

    played = await hear(tmp_path, steps, to=updated(4))
    uninterrupted(played, 2, 3, 4)
    assert len(played.named("unknown")) == len(CHANNELS)


async def test_null_for_an_empty_snapshot_is_an_empty_list(tmp_path: Path) -> None:
    def steps(channel: str) -> list[Step]:
        return [frame(channel, "snapshot", 1, "null"), update(channel, 2, item(channel, 2))]

    uninterrupted(await hear(tmp_path, steps, to=updated(2)), 2)


async def test_null_for_an_empty_update_is_an_empty_list(tmp_path: Path) -> None:
    def steps(channel: str) -> list[Step]:
        return [snapshot(channel), frame(channel, "update", 2, "null"), update(channel, 3, item(channel, 3))]

    uninterrupted(await hear(tmp_path, steps, to=updated(3)), 3)


# -- numbers of another spelling


async def test_an_integral_number_is_an_integer_however_it_is_written(tmp_path: Path) -> None:
    def steps(channel: str) -> list[Step]:
        spelled = (update(channel, text, item(channel, number)) for number, text in ((2, '"2"'), (3, "3e0"), (4, "4")))
        return [snapshot(channel, "1.0"), *spelled]

    played = await hear(tmp_path, steps, to=updated(4))
    uninterrupted(played, 2, 3, 4)
    for one in played.each:
        assert [record["sequence"] for record in one.of_type("update")] == [2, 3, 4]


@pytest.mark.parametrize("req_id", ['"REQ_ID"', "REQ_ID.0"], ids=["text", "1.0"])
async def test_an_acknowledgement_is_recognised_by_the_value_of_its_number(tmp_path: Path, req_id: str) -> None:
    acks = {name: ack.replace("REQ_ID", req_id) for name, ack in ACKS.items()}

    def live(played: Played) -> bool:
        return all(one.named("feed.live") for one in played.each)

    played = await hear(tmp_path, lambda channel: [snapshot(channel)], to=live, acks=acks)
    assert played.named("feed.lost") == []
    assert set(played.exchange.connections.values()) == {1}


# -- a second snapshot on one connection


@pytest.mark.parametrize(
    ("channels", "sequence"),
    [(OF_ORDERS, 1), (("executions",), 3), (("executions",), 40)],
    ids=["restarts", "goes on", "jumps"],
)
async def test_orders_that_a_second_snapshot_lacks_are_looked_for(
    tmp_path: Path, channels: tuple[str, ...], sequence: int
) -> None:
    def steps(channel: str) -> list[Step]:
        return [
            snapshot(channel, 1, order(channel, 1), order(channel, 2)),
            update(channel, 2, item(channel, 2)),
            snapshot(channel, sequence, order(channel, 2)),
            update(channel, sequence + 1, item(channel, 2)),
        ]

    ended = b'{"error":[],"result":{"OAAAAA-BBBBB-000001":{"status":"closed","vol":"1.0","vol_exec":"0.0"}}}'
    played = await hear(tmp_path, steps, channels, to=settled, rest={"QueryOrders": [ended]})
    for one in played.each:
        (end,) = one.of_type("backfill")
        assert end["id"].endswith("OAAAAA-BBBBB-000001:end")
        assert one.data("update") == [value(one.channel, 2)] * 2
        assert one.gaps == []
    assert played.repeated_ids == []


async def test_a_balance_that_a_second_snapshot_changes_is_written(tmp_path: Path) -> None:
    one = '{"asset":"EUR","asset_class":"currency","balance":1}'
    other = '{"asset":"USD","asset_class":"currency","balance":1}'
    frames = [
        snapshot("balances", 1, one, other),
        update("balances", 2, item("balances", 7)),
        snapshot("balances", 1, one, other.replace(":1}", ":2}")),
        update("balances", 2, item("balances", 8)),
    ]
    played = await hear(tmp_path, lambda channel: frames, ["balances"], to=updated(8))
    assert {"asset": "USD", "asset_class": "currency", "balance": 2} in played.data("snapshot")
    assert played.data("update") == [value("balances", 7), value("balances", 8)]
    assert played.repeated_ids == []


async def test_what_follows_a_second_snapshot_has_ids_of_its_own(tmp_path: Path) -> None:
    """Its numbers, and even its bytes, may be those of what came before."""
    anonymous = '{"asset":"EUR","exec_type":"status","balance":1.0}'

    def steps(channel: str) -> list[Step]:
        twice = [snapshot(channel), update(channel, 2, anonymous), update(channel, 3, item(channel, 7))] * 2
        return [*twice, update(channel, 4, item(channel, 8))]

    played = await hear(tmp_path, steps, ["executions", "balances"], to=settled)
    for one in played.each:
        assert one.data("update").count({"asset": "EUR", "exec_type": "status", "balance": 1.0}) == 2
    assert played.repeated_ids == []


# -- what is not JSON


async def test_a_burst_of_unreadable_frames_is_one_outage(tmp_path: Path) -> None:
    burst = Burst(tuple(b'{"channel":"executions" garbage %d' % number for number in range(10)) + (b"\xff\xfe",) * 10)

    def over(played: Played) -> bool:
        return settled(played) and len(unreadable(played)) == len(burst.frames) * len(ONE_OF_EACH_DIALECT)

    played = await hear(tmp_path, lambda channel: [snapshot(channel), burst], ONE_OF_EACH_DIALECT, to=over)
    assert [len(one.settled) for one in played.each] == [1, 1]
    assert played.repeated_ids == []


async def test_unreadable_frames_between_updates_hide_none_of_them(tmp_path: Path) -> None:
    frames = [update("executions", number, item("executions", number)) for number in range(2, 6)]
    burst = Burst((frames[0], b"{", frames[1], b"}", frames[2], b"\xff", frames[3]))
    played = await hear(tmp_path, lambda channel: [snapshot(channel), burst], ["executions"], to=settled)
    assert played.data("update") == [value("executions", number) for number in range(2, 6)]
    assert played.repeated_ids == []


def unreadable(played: Played) -> list[dict[str, Any]]:
    return [record for record in played.named("unknown") if "data_base64" in record]


async def test_several_outages_of_one_channel_have_markers_of_their_own(tmp_path: Path) -> None:
    """Each is declared or recovered once, and no two markers share an id."""
    garbage: list[Step] = [snapshot("executions"), b"{", b"}", Close()]
    script = Script(
        connections=[{"executions": garbage}, {"executions": garbage}, {"executions": [snapshot("executions")]}]
    )
    played = await play(
        tmp_path, script, "executions", to=lambda played: len(played.named("feed.live")) == 3 and played.settled
    )
    assert played.repeated_ids == []
