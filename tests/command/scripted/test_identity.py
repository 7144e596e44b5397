"""Ids are claims: items that share one are both written, and items without one all are."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from .exchange import Answer, Close, Script, Step
from .play import Played, play, settled
from .shapes import CHANNELS, LEDGER, OF_ORDERS, ORDERS, T0, lost_once, order, snapshot, update

LAST = {
    "openOrders": '{"OAAAAA-BBBBB-999999":{"status":"open","userref":9}}',
    "ownTrades": '{"TAAAAA-BBBBB-999999":{"ordertxid":"OAAAAA-BBBBB-999999","vol":"1.0","userref":9}}',
    "executions": '{"order_id":"OAAAAA-BBBBB-999999","exec_type":"status"}',
    "balances": '{"asset":"EUR","asset_class":"currency","balance":1.0,"ledger_id":"LAAAAA-BBBBB-999999"}',
}
Updates = Sequence[Sequence[str]]  # the items of each frame


async def hear(home: Path, updates: dict[str, Updates], orders: int = 1) -> Played:
    """Return what was written about these updates; the last is followed by one that ends the wait."""
    steps: dict[str, list[Step]] = {}
    for channel, frames in updates.items():
        before = [order(channel, number + 1) for number in range(orders)] if channel in OF_ORDERS else []
        items = enumerate([*frames, (LAST[channel],)], 2)
        steps[channel] = [snapshot(channel, 1, *before), *(update(channel, number, *each) for number, each in items)]
    played = await play(
        home,
        Script(connections=[steps]),
        *updates,
        to=lambda played: all(any(b"999999" in line for line in one.lines) for one in played.each),
    )
    assert played.repeated_ids == []
    return played


def written(played: Played) -> dict[str, list[str]]:
    """Return the bytes of each channel's updates, but for the last."""
    found = {}
    for one in played.each:
        lines = [line for line in one.lines if b'"type":"update"' in line]
        found[one.channel] = [line[line.index(b'"data":') + 7 : -1].decode() for line in lines[:-1]]
    return found


# -- one id, different bytes

BARE = '{"status":"closed"}'
RICHER = (
    '{"status":"closed","vol_exec":"1.00000000","cost":"1.00000","fee":"0.00160"}',
    '{"status":"closed","userref":7}',
    '{"status":"canceled","cancel_reason":"STP"}',
)


async def test_an_order_that_ends_bare_and_again_with_its_volumes_ends_with_them(tmp_path: Path) -> None:
    """In one frame or in two."""
    frames: list[list[str]] = []
    expected = []
    for number, full in enumerate(RICHER * 2, 1):
        bare, rich = (f'{{"{ORDERS.id(number)}":{end}}}' for end in (BARE, full))
        frames += [[bare, bare, rich]] if number <= len(RICHER) else [[bare, bare], [rich]]
        expected += [BARE, full]
    played = await hear(tmp_path, {"openOrders": frames}, orders=len(RICHER) * 2)
    assert written(played) == {"openOrders": expected}
    ends = [f"{ORDERS.id(number)}:end" for number in range(1, len(RICHER) * 2 + 1)]
    assert [record["id"].rpartition(":openOrders:")[2] for record in played.of_type("update")[:-1:2]] == ends


async def test_an_order_end_on_v2_with_other_members_is_written_too(tmp_path: Path) -> None:
    bare = f'{{"order_id":"{ORDERS.id(1)}","exec_type":"canceled","order_status":"canceled"}}'
    rich = bare.replace("}", ',"cum_qty":1.0,"reason":"STP"}')
    played = await hear(tmp_path, {"executions": [(bare,), (bare, rich), (rich,)]})
    assert written(played) == {"executions": [bare, rich]}


async def test_two_items_under_one_id_are_both_written_and_repeats_are_not(tmp_path: Path) -> None:
    texts = {
        "ownTrades": '{{"TAAAAA-BBBBB-000001":{{"vol":"{}","userref":1}}}}',
        "executions": '{{"order_id":"OAAAAA-BBBBB-000001","exec_type":"trade","exec_id":"TAAAAA-BBBBB-000001","n":{}}}',
        "balances": '{{"asset":"EUR","asset_class":"currency","amount":{},"ledger_id":"LAAAAA-BBBBB-000001"}}',
    }
    two = {channel: (text.format(1), text.format(2)) for channel, text in texts.items()}
    found = written(await hear(tmp_path, {channel: [each[:1], each[1:], each] for channel, each in two.items()}))
    two["ownTrades"] = ('{"vol":"1","userref":1}', '{"vol":"2","userref":1}')
    assert found == {channel: list(each) for channel, each in two.items()}


async def test_two_legs_of_a_transfer_under_one_ledger_id_are_both_written(tmp_path: Path) -> None:
    leg = '{{"asset":"EUR","asset_class":"currency","amount":{},"balance":5.0,"ledger_id":"{}","wallet_type":"{}"}}'
    legs = [leg.format("-5.0", LEDGER.id(1), "spot"), leg.format("5.0", LEDGER.id(1), "earn")]
    assert written(await hear(tmp_path, {"balances": [legs]})) == {"balances": legs}


async def test_an_order_end_from_the_feed_and_from_rest_is_one(tmp_path: Path) -> None:
    """Their bytes differ, for these are two dialects; what they tell is the same."""
    ends = {
        "openOrders": f'{{"{ORDERS.id(1)}":{BARE}}}',
        "executions": f'{{"order_id":"{ORDERS.id(1)}","exec_type":"canceled","order_status":"canceled"}}',
    }
    page = ORDERS.page([f'"{ORDERS.id(1)}":{{"status":"canceled","closetm":{T0}.5}}'])
    first: dict[str, list[Step]] = {
        channel: [snapshot(channel, 1, order(channel, 1)), update(channel, 2, end), Close()]
        for channel, end in ends.items()
    }
    script = Script(
        connections=[first, {channel: [snapshot(channel)] for channel in ends}],
        rest={"ClosedOrders": [lambda form: page if form.get("ofs", "0") == "0" else ORDERS.page([])]},
    )
    played = await play(tmp_path, script, *ends, to=settled)
    for one in played.each:
        assert len(one.of_type("update")) == 1
        assert one.of_type("backfill") == []
        assert one.gaps == []


# -- no id


async def test_items_without_an_id_are_all_written(tmp_path: Path) -> None:
    """The id is empty, null, of another type, or missing; what else they say may be the same."""
    updates: dict[str, list[list[str]]] = {channel: [] for channel in CHANNELS}
    for ledger_id in ('"ledger_id":"",', '"ledger_id":null,', "", '"ledger_id":7,'):
        entries = [
            f'{{"asset":"EUR","asset_class":"currency","amount":{amount},{ledger_id}"type":"deposit"}}'
            for amount in (5, 7, 7)
        ]
        updates["balances"] += [entries[:1], entries[1:]]
    for exec_id in ('"exec_id":"",', '"exec_id":null,', ""):
        fills = [
            f'{{"order_id":"OAAAAA-BBBBB-000002","exec_type":"trade",{exec_id}"last_qty":{volume}}}'
            for volume in (5, 7, 7)
        ]
        updates["executions"] += [fills[:1], fills[1:]]
    for order_id in ('""', "null"):
        updates["executions"] += [
            [f'{{"order_id":{order_id},"exec_type":"canceled","order_status":"canceled","order_userref":{number}}}']
            for number in (1, 2)
        ]
    for channel in ("openOrders", "ownTrades"):
        updates[channel] = [[f'{{"":{{"status":"closed","userref":{number}}}}}'] for number in (1, 2)]
    expected = {channel: [item for frame in frames for item in frame] for channel, frames in updates.items()}
    for channel in ("openOrders", "ownTrades"):
        expected[channel] = [item.removeprefix('{"":').removesuffix("}") for item in expected[channel]]
    assert written(await hear(tmp_path, dict(updates))) == expected


# -- one asset, two classes


def spy(asset_class: str, balance: int) -> str:
    return f'{{"asset":"SPY","asset_class":"{asset_class}","balance":{balance}}}'


async def test_an_asset_in_several_classes_is_not_news_at_every_reconnect(tmp_path: Path) -> None:
    classes = ("tokenized_asset", "currency", "future_class")
    items = [spy(name, number) for number, name in enumerate(classes)]
    steps: list[Step] = [snapshot("balances", 1, *items), Close()]
    script = Script(connections=[{"balances": steps}] * 2 + [{"balances": steps[:1]}])
    played = await play(tmp_path, script, "balances", to=lambda played: len(played.named("feed.live")) == 3)
    assert [record["data"]["asset_class"] for record in played.of_type("snapshot")] == list(classes)
    assert played.repeated_ids == []


async def test_a_balance_that_changes_in_one_class_is_written_alone(tmp_path: Path) -> None:
    connections: list[dict[str, list[Step]]] = [
        {"balances": [snapshot("balances", 1, spy("currency", 1), spy("tokenized_asset", 2)), Close()]},
        {"balances": [snapshot("balances", 1, spy("currency", 1), spy("tokenized_asset", 3))]},
    ]
    played = await play(
        tmp_path, Script(connections=connections), "balances", to=lambda played: len(played.named("feed.live")) == 2
    )
    assert [record["data"]["balance"] for record in played.of_type("snapshot")] == [1, 2, 3]


async def test_the_ledger_of_every_class_that_was_seen_is_asked_for(tmp_path: Path) -> None:
    """By default, REST shows one class."""
    row = LEDGER.row(1).replace('"currency"', '"tokenized_asset"')
    asked_for = ("tokenized_asset", "0")
    rest: dict[str, list[Answer]] = {
        "Ledgers": [lambda form: LEDGER.page([row] if (form.get("aclass"), form.get("ofs", "0")) == asked_for else [])]
    }
    before = {"balances": [spy("currency", 1), spy("tokenized_asset", 2)]}
    played = await play(tmp_path, lost_once(["balances"], rest, before), "balances", to=settled)
    classes = {call.form.get("aclass", "currency") for call in played.exchange.asked("Ledgers")}
    assert classes == {"currency", "tokenized_asset"}
    assert len(played.of_type("backfill")) == 1
