"""Ids are claims: items that share one are both written, and items without one all are."""

from __future__ import annotations

from pathlib import Path

import pytest

from .exchange import Close, Script, Step
from .play import Played, play
from .shapes import LEDGER, T0, lost_once, order, snapshot, update

V1_ID = "OAAAAA-BBBBB-000001"
BARE, FULL = '{"status":"closed"}', '{"status":"closed","vol_exec":"1.00000000","cost":"1.00000","fee":"0.00160"}'


async def hear(home: Path, channel: str, *updates: tuple[str, ...]) -> Played:
    """Return what was written about these updates, each a frame; the last is followed by one that ends the wait."""
    end = {
        "openOrders": '{"OAAAAA-BBBBB-999999":{"status":"open","userref":9}}',
        "ownTrades": '{"TAAAAA-BBBBB-999999":{"ordertxid":"OAAAAA-BBBBB-999999","vol":"1.0","userref":9}}',
        "executions": '{"order_id":"OAAAAA-BBBBB-999999","exec_type":"status"}',
        "balances": '{"asset":"EUR","asset_class":"currency","balance":1.0,"ledger_id":"LAAAAA-BBBBB-999999"}',
    }[channel]
    before = [order(channel, 1)] if channel in ("openOrders", "executions") else []
    frames = [update(channel, number, *items) for number, items in enumerate([*updates, (end,)], 2)]
    script = Script(connections=[{channel: [snapshot(channel, 1, *before), *frames]}])
    played = await play(home, script, channel, to=lambda played: any(b"999999" in line for line in played.lines))
    assert played.repeated_ids == []
    return played


def written(played: Played) -> list[bytes]:
    """Return the bytes of the updates, but for the last."""
    lines = [line for line, record in zip(played.lines, played.records, strict=True) if record.get("type") == "update"]
    return [line[line.index(b'"data":') + 7 : -1] for line in lines[:-1]]


# -- one id, different bytes


@pytest.mark.parametrize(
    "full", [FULL, '{"status":"closed","userref":7}', '{"status":"canceled","cancel_reason":"STP"}']
)
@pytest.mark.parametrize("together", [True, False], ids=["in one frame", "in two frames"])
async def test_an_order_that_ends_bare_and_again_with_its_volumes_ends_with_them(
    tmp_path: Path, full: str, together: bool
) -> None:
    bare, rich = f'{{"{V1_ID}":{BARE}}}', f'{{"{V1_ID}":{full}}}'
    played = await hear(tmp_path, "openOrders", *([(bare, bare, rich)] if together else [(bare, bare), (rich,)]))
    assert written(played) == [BARE.encode(), full.encode()]
    assert played.named("order")[1]["id"].endswith(f"{V1_ID}:end")


async def test_an_order_end_on_v2_with_other_members_is_written_too(tmp_path: Path) -> None:
    bare = f'{{"order_id":"{V1_ID}","exec_type":"canceled","order_status":"canceled"}}'
    rich = f'{{"order_id":"{V1_ID}","exec_type":"canceled","order_status":"canceled","cum_qty":1.0,"reason":"STP"}}'
    played = await hear(tmp_path, "executions", (bare,), (bare, rich), (rich,))
    assert written(played) == [bare.encode(), rich.encode()]


@pytest.mark.parametrize(
    ("channel", "text"),
    [
        ("ownTrades", '{{"TAAAAA-BBBBB-000001":{}}}'),
        (
            "executions",
            '{{"order_id":"OAAAAA-BBBBB-000001","exec_type":"trade","exec_id":"TAAAAA-BBBBB-000001","n":{}}}',
        ),
        ("balances", '{{"asset":"EUR","asset_class":"currency","amount":{},"ledger_id":"LAAAAA-BBBBB-000001"}}'),
    ],
)
async def test_two_items_under_one_id_are_both_written_and_repeats_are_not(
    tmp_path: Path, channel: str, text: str
) -> None:
    first, second = ('{"vol":"1.0","userref":1}', '{"vol":"2.0","userref":1}') if channel == "ownTrades" else ("1", "2")
    one, two = text.format(first), text.format(second)
    played = await hear(tmp_path, channel, (one,), (two,), (one, two))
    inner = [text.encode() for text in ((first, second) if channel == "ownTrades" else (one, two))]
    assert written(played) == inner


async def test_two_legs_of_a_transfer_under_one_ledger_id_are_both_written(tmp_path: Path) -> None:
    leg = '{{"asset":"EUR","asset_class":"currency","amount":{},"balance":5.0,"ledger_id":"{}","wallet_type":"{}"}}'
    out, back = leg.format("-5.0", LEDGER.id(1), "spot"), leg.format("5.0", LEDGER.id(1), "earn")
    played = await hear(tmp_path, "balances", (out, back))
    assert written(played) == [out.encode(), back.encode()]


@pytest.mark.parametrize("channel", ["openOrders", "executions"])
async def test_an_order_end_from_the_feed_and_from_rest_is_one(tmp_path: Path, channel: str) -> None:
    """Their bytes differ, for these are two dialects; what they tell is the same."""
    end = f'{{"{V1_ID}":{BARE}}}' if channel == "openOrders" else (
        f'{{"order_id":"{V1_ID}","exec_type":"canceled","order_status":"canceled"}}'
    )  # fmt: skip
    row = f'{{"error":[],"result":{{"closed":{{"{V1_ID}":{{"status":"canceled","closetm":{T0}.5}}}}}}}}'.encode()
    empty = b'{"error":[],"result":{"closed":{}}}'
    steps: list[Step] = [snapshot(channel, 1, order(channel, 1)), update(channel, 2, end), 0.1, Close()]
    script = Script(
        connections=[{channel: steps}, {channel: [snapshot(channel)]}],
        rest={"ClosedOrders": [lambda form: row if form.get("ofs", "0") == "0" else empty]},
    )
    played = await play(tmp_path, script, channel, to=lambda played: played.settled)
    assert len(played.of_type("update")) == 1
    assert played.of_type("backfill") == []
    assert played.gaps == []


# -- no id


@pytest.mark.parametrize("ledger_id", ['"ledger_id":"",', '"ledger_id":null,', "", '"ledger_id":7,'])
async def test_ledger_entries_without_an_id_are_all_written(tmp_path: Path, ledger_id: str) -> None:
    entries = [
        f'{{"asset":"EUR","asset_class":"currency","amount":{amount},{ledger_id}"type":"deposit"}}'
        for amount in (5, 7, 7)
    ]
    played = await hear(tmp_path, "balances", (entries[0],), (entries[1], entries[2]))
    assert written(played) == [entry.encode() for entry in entries]


@pytest.mark.parametrize("exec_id", ['"exec_id":"",', '"exec_id":null,', ""])
async def test_executions_without_an_id_are_all_written(tmp_path: Path, exec_id: str) -> None:
    fills = [
        f'{{"order_id":"OAAAAA-BBBBB-000002","exec_type":"trade",{exec_id}"last_qty":{volume}}}' for volume in (5, 7, 7)
    ]
    played = await hear(tmp_path, "executions", (fills[0],), (fills[1], fills[2]))
    assert written(played) == [fill.encode() for fill in fills]


@pytest.mark.parametrize("order_id", ['""', "null"])
async def test_ends_of_orders_without_an_id_are_all_written(tmp_path: Path, order_id: str) -> None:
    ends = [
        f'{{"order_id":{order_id},"exec_type":"canceled","order_status":"canceled","order_userref":{number}}}'
        for number in (1, 2)
    ]
    played = await hear(tmp_path, "executions", (ends[0],), (ends[1],))
    assert written(played) == [end.encode() for end in ends]


@pytest.mark.parametrize("channel", ["openOrders", "ownTrades"])
async def test_entries_of_v1_under_an_empty_id_are_all_written(tmp_path: Path, channel: str) -> None:
    values = [f'{{"status":"closed","userref":{number}}}' for number in (1, 2)]
    played = await hear(tmp_path, channel, (f'{{"":{values[0]}}}',), (f'{{"":{values[1]}}}',))
    assert written(played) == [value.encode() for value in values]


# -- one asset, two classes


def spy(asset_class: str, balance: int) -> str:
    return f'{{"asset":"SPY","asset_class":"{asset_class}","balance":{balance}}}'


@pytest.mark.parametrize("classes", [("currency", "tokenized_asset"), ("tokenized_asset", "currency", "future_class")])
async def test_an_asset_in_several_classes_is_not_news_at_every_reconnect(
    tmp_path: Path, classes: tuple[str, ...]
) -> None:
    items = [spy(name, number) for number, name in enumerate(classes)]
    steps: list[Step] = [snapshot("balances", 1, *items), 0.1, Close()]
    script = Script(connections=[{"balances": steps}] * 2 + [{"balances": steps[:1]}])
    played = await play(tmp_path, script, "balances", to=lambda played: len(played.named("feed.live")) == 3)
    assert [record["data"]["asset_class"] for record in played.of_type("snapshot")] == list(classes)
    assert played.repeated_ids == []


async def test_a_balance_that_changes_in_one_class_is_written_alone(tmp_path: Path) -> None:
    connections: list[dict[str, list[Step]]] = [
        {"balances": [snapshot("balances", 1, spy("currency", 1), spy("tokenized_asset", 2)), 0.1, Close()]},
        {"balances": [snapshot("balances", 1, spy("currency", 1), spy("tokenized_asset", 3))]},
    ]
    played = await play(
        tmp_path, Script(connections=connections), "balances", to=lambda played: len(played.named("feed.live")) == 2
    )
    assert [record["data"]["balance"] for record in played.of_type("snapshot")] == [1, 2, 3]


async def test_the_ledger_of_every_class_that_was_seen_is_asked_for(tmp_path: Path) -> None:
    """By default, REST shows one class."""
    row = LEDGER.row(1).replace('"currency"', '"tokenized_asset"')
    empty = LEDGER.page([])
    script = lost_once(
        "balances",
        {
            "Ledgers": [
                lambda form: (
                    LEDGER.page([row])
                    if (form.get("aclass"), form.get("ofs", "0")) == ("tokenized_asset", "0")
                    else empty
                )
            ]
        },
        [spy("currency", 1), spy("tokenized_asset", 2)],
    )
    played = await play(tmp_path, script, "balances", to=lambda played: played.settled)
    assert {call.form.get("aclass", "currency") for call in played.exchange.asked("Ledgers")} == {
        "currency",
        "tokenized_asset",
    }
    assert len(played.of_type("backfill")) == 1
