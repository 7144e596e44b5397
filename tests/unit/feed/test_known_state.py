"""What the output holds decides what is news. An id is a claim: only the same item is left out, never another."""

from __future__ import annotations

import sys
from collections import Counter
from types import FrameType
from typing import Any
from zlib import crc32

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kraken_feed.feed import known_state, order_states
from kraken_feed.feed.known_state import Knowledge, Remembered, is_end
from kraken_feed.feed.order_states import compare_fields, fold, merged
from kraken_feed.protocol import spot_v1, spot_v2
from kraken_feed.protocol.wire import Data, Item
from kraken_feed.records.view import parse
from kraken_feed.state.checkpoint import ChannelState, Entry, Known

from ...support.cases import each
from ...support.examples import examples
from ...support.repository import FRAMES

ORDER_ID = "OAAAAA-BBBBB-CCCCC1"
TRADE_ID = "TAAAAA-BBBBB-CCCCC1"
END = f"{ORDER_ID}:end"
OPEN = b'{"status":"open","vol":"1.00","vol_exec":"0.00","descr":{"price":"1.0"},"limitprice":"0.0"}'


def end(data: bytes) -> Item:
    return Item(data, ORDER_ID, None, END)


def fill(data: bytes, name: str = TRADE_ID) -> Item:
    return Item(data, ORDER_ID, name, name)


def again(identity: str, data: bytes) -> str:
    return f"{identity}~{crc32(data):08x}"


def compare(known: bytes, complete: bytes) -> order_states.Difference:
    """Return how a snapshot's object differs from the known state of the order."""
    return compare_fields(merged([known]), parse(complete))


def restarted(knowledge: Knowledge) -> Knowledge:
    """The next run's, which has only what the checkpoint kept."""
    state = ChannelState()
    entry = msgspec.convert(msgspec.to_builtins(knowledge.everything()), Entry)
    entry.apply(state)
    return Knowledge(knowledge.channel, state.orders, state.ended, state.seen, before_first_snapshot=False)


# ------------------------------------------------------------------------------------------------ ids


@settings(max_examples=examples(500))
@given(st.integers(1, 4), st.lists(st.sampled_from("ABCDEFG") | st.none(), max_size=40))
def test_the_last_ids_are_remembered_also_over_restarts(limit: int, known: list[str | None]) -> None:
    """None is a restart, whose journal has everything that was added, each where it stands last."""
    remembered, journal, recent = Remembered(limit), dict[Known, None](), dict[str, None]()
    for name in known:
        if name is None:
            remembered = Remembered(limit, list(journal))
            continue
        assert remembered.add(name) == "new" or name in recent
        recent.pop(name, None)
        recent[name] = None
        for added in remembered.take():
            journal.pop(added, None)
            journal[added] = None
        assert all(last in remembered for last in list(recent)[-limit:])
        assert len(remembered) <= 3 * limit


ARRIVALS = st.lists(st.tuples(st.sampled_from("AB"), st.none() | st.integers(0, 2) | st.just("restart")), max_size=30)


@settings(max_examples=examples(300))
@given(ARRIVALS)
def test_an_id_keeps_the_first_bytes_that_an_update_brought_also_over_restarts(arrivals: list[tuple[str, Any]]) -> None:
    remembered, journal, first = Remembered(10), list[Known](), dict[str, int | None]()
    for name, crc in arrivals:
        if crc == "restart":
            remembered = Remembered(10, journal)
            continue
        if name not in first:
            expected, first[name] = "new", crc
        elif crc is None or first[name] is None:
            expected, first[name] = "known", crc if first[name] is None else first[name]
        else:
            expected = "repeat" if first[name] == crc else "other"
        assert remembered.add(name, crc) == expected
        assert remembered.crc(name) == first[name]
        journal += remembered.take()
        assert {known if isinstance(known, str) else known[0] for known in remembered.everything()} == first.keys()


@settings(max_examples=examples(300))
@given(st.integers(1, 3), st.lists(st.tuples(st.sampled_from("ABCDE"), st.none() | st.integers(0, 1)), max_size=40))
def test_everything_that_is_remembered_makes_the_same_memory_again(limit: int, adds: list[tuple[str, Any]]) -> None:
    remembered = Remembered(limit)
    for name, crc in adds:
        remembered.add(name, crc)
    same = Remembered(3 * limit, remembered.everything())
    assert len(same) == len(remembered)
    assert all(same.crc(name) == remembered.crc(name) for name, _ in adds if name in remembered)


# ------------------------------------------------------------------------------------------------ updates


def test_an_end_without_volumes_that_ends_again_with_them_is_written_twice() -> None:
    bare, rich = b'{"status":"closed"}', b'{"status":"closed","vol_exec":"1.00000000","cost":"1.00000"}'
    frame = b'[[{"%b":%b},{"%b":%b}],"openOrders",{"sequence":2}]'
    knowledge = Knowledge("openOrders", {ORDER_ID: [OPEN]}, before_first_snapshot=False)
    written: list[Item] = []
    for first, second in ((bare, bare), (rich, bare)):
        name = ORDER_ID.encode()
        said = spot_v1.decode(frame % (name, first, name, second))
        assert isinstance(said, Data)
        written += [item for item in said.items if knowledge.update(item)]
    assert [(item.data, item.identity) for item in written] == [(bare, END), (rich, again(END, rich))]
    assert knowledge.repeats == 2
    assert ORDER_ID not in knowledge.orders


def test_a_repeat_of_a_second_item_is_recognised_also_after_a_restart() -> None:
    knowledge = Knowledge("openOrders")
    assert knowledge.update(end(b"1"))
    assert knowledge.update(end(b"2"))
    assert not knowledge.update(end(b"2"))
    knowledge = restarted(knowledge)
    assert not knowledge.update(end(b"1"))
    assert not knowledge.update(end(b"2"))
    third = end(b"3")
    assert knowledge.update(third)
    assert third.identity == again(END, b"3")


def test_two_ledger_legs_under_one_id_are_two_records() -> None:
    knowledge = Knowledge("balances")
    legs = [Item(b'{"asset":"EUR","amount":%d}' % amount, None, None, "LAAAAA-BBBBB-CCCCC1") for amount in (-5, 5)]
    assert [knowledge.update(leg) for leg in legs] == [True, True]
    assert legs[0].identity != legs[1].identity


@each("way", ["snapshot", "rest"])
@each("known", [fill(b"1"), end(b"1")])
def test_one_fact_that_comes_three_ways_is_written_once(way: str, known: Item) -> None:
    """Its bytes differ from way to way. Those of the first update are remembered, to compare the next update with."""
    knowledge = Knowledge("executions", before_first_snapshot=False)

    def comes(data: bytes) -> bool:
        item = Item(data, known.order_id, known.exec_id, known.identity)
        knowledge.begin_pass()
        return next(knowledge.snapshot([item], "changes")) if way == "snapshot" else knowledge.backfilled(item)

    assert comes(b"1")
    assert not knowledge.update(Item(b"2", known.order_id, known.exec_id, known.identity))
    assert not comes(b"3")
    assert knowledge.repeats == 0
    assert not knowledge.update(Item(b"2", known.order_id, known.exec_id, known.identity))
    assert knowledge.repeats == 1
    assert knowledge.update(Item(b"3", known.order_id, known.exec_id, known.identity))


@each("channel", ["openOrders", "ownTrades", "executions", "balances"])
def test_an_empty_id_is_no_identity(channel: str) -> None:
    knowledge = Knowledge(channel)
    items = [Item(b'{"n":%d}' % n, "", None, "") for n in (1, 2, 2)]
    assert [knowledge.update(item) for item in items] == [True] * 3
    assert list(knowledge.snapshot(items, "changes")) == [True] * 3
    assert not knowledge.backfilled(items[0])
    assert knowledge.take() == Entry()
    assert knowledge.vanished == set()


UPDATES = st.lists(st.tuples(st.sampled_from([END, TRADE_ID]), st.binary(max_size=1), st.booleans()), max_size=30)


@settings(max_examples=examples(300))
@given(UPDATES)
def test_every_different_update_is_written_once_under_an_id_of_its_own(updates: list[tuple[str, bytes, bool]]) -> None:
    """The last member of each is whether a restart comes before it."""
    knowledge, written, repeats = Knowledge("executions"), dict[str, bytes](), 0
    for identity, data, restart in updates:
        if restart:
            repeats += knowledge.repeats
            knowledge = restarted(knowledge)
        item = Item(data, ORDER_ID, None, identity)
        if knowledge.update(item):
            assert item.identity
            assert item.identity not in written
            written[item.identity] = data
    claims = {(identity, data) for identity, data, _ in updates}
    assert len(written) == len(claims)
    assert repeats + knowledge.repeats == len(updates) - len(claims)
    assert {name for name in written if is_end(name)} == {name for name in written if name.startswith(ORDER_ID)}


def test_an_update_shows_that_a_missing_order_is_there() -> None:
    knowledge = Knowledge(
        "openOrders", {"A": [OPEN], "B": [OPEN], "C": [OPEN], "D": [OPEN]}, before_first_snapshot=False
    )
    assert list(knowledge.snapshot([Item(OPEN, "D")], "changes")) == [False]
    assert knowledge.vanished == {"A", "B", "C"}
    knowledge.update(Item(b'{"userref":1}', "A"))
    assert knowledge.vanished == {"B", "C"}
    knowledge.update(Item(b'{"status":"closed"}', "B", None, "B:end"))
    assert knowledge.vanished == {"C"}
    list(knowledge.snapshot([Item(OPEN, "A"), Item(OPEN, "C"), Item(OPEN, "D")], "changes"))
    assert knowledge.vanished == set()


def test_a_forgotten_order_leaves_the_checkpoint_and_may_still_end() -> None:
    knowledge = Knowledge("openOrders", {ORDER_ID: [OPEN]}, before_first_snapshot=False)
    list(knowledge.snapshot([], "changes"))
    knowledge.forget_order(ORDER_ID)
    assert knowledge.vanished == set()
    assert knowledge.take().orders == {ORDER_ID: []}
    assert knowledge.backfilled(end(b'{"status":"closed"}'))


class Calls:
    """Counts the Python functions that are entered."""

    def __init__(self) -> None:
        self.names: Counter[str] = Counter()

    def __enter__(self) -> Counter[str]:
        sys.setprofile(self._note)
        return self.names

    def __exit__(self, *args: object) -> None:
        sys.setprofile(None)

    def _note(self, frame: FrameType, event: str, argument: Any) -> None:
        if event == "call" and frame.f_code is not Calls.__exit__.__code__:
            self.names[frame.f_code.co_qualname] += 1


@each(("item", "calls"), [(Item(b"{}", ORDER_ID), 1), (fill(b"{}"), 3), (end(b"{}"), 5)])
def test_an_update_takes_few_calls(item: Item, calls: int) -> None:
    knowledge = Knowledge("executions", {ORDER_ID: [OPEN]}, before_first_snapshot=False)
    with Calls() as names:
        knowledge.update(item)
    assert names.total() == calls, names


# ------------------------------------------------------------------------------------------------ snapshots, REST


def test_a_snapshot_writes_every_fill_that_shares_an_id_and_its_repeat_none() -> None:
    frame = msgspec.json.decode(
        (FRAMES / "v1-ownTrades-snapshot-same-id.json").read_bytes(), type=dict[str, msgspec.Raw]
    )
    knowledge = Knowledge("ownTrades")
    for expected in ([True, True], [False, False]):
        said = spot_v1.decode(bytes(frame["frame"]))
        assert isinstance(said, Data)
        assert list(knowledge.snapshot(said.items, "changes")) == expected


def test_items_that_share_an_id_keep_ids_of_their_own_when_every_snapshot_is_written() -> None:
    knowledge = Knowledge("ownTrades")
    for _ in range(2):
        items = [fill(b"1"), fill(b"2")]
        assert list(knowledge.snapshot(items, "all")) == [True, True]
        assert [item.identity for item in items] == [TRADE_ID, again(TRADE_ID, b"2")]


def test_one_id_twice_on_a_page_is_two_records_and_the_next_pass_adds_none() -> None:
    knowledge = Knowledge("executions")
    for expected in ([True, True, False], [False, False, False]):
        knowledge.begin_pass()
        rows = [fill(b'{"vol":"%d"}' % volume) for volume in (1, 2, 1)]
        assert [knowledge.backfilled(row, "TradesHistory") for row in rows] == expected
        if expected[0]:
            assert [row.identity for row in rows[:2]] == [TRADE_ID, again(TRADE_ID, b'{"vol":"2"}')]


def test_rows_that_differ_under_an_id_that_the_feed_brought_are_one_more_record() -> None:
    """The first is the feed's fact in another shape; the second is another."""
    knowledge = Knowledge("executions")
    knowledge.update(fill(b'{"last_qty":1}'))
    knowledge.begin_pass()
    assert [knowledge.backfilled(fill(b'{"vol":"%d"}' % volume)) for volume in (1, 2)] == [False, True]


@each("restart", [False, True])
def test_two_legs_of_a_transfer_under_one_ledger_id_are_two_records_wherever_they_stand(restart: bool) -> None:
    """They can be rows of two asset classes, and be read by two passes of two runs."""
    knowledge, legs = Knowledge("balances"), (b'{"amount":"-1"}', b'{"amount":"1"}')
    written = []
    for leg in (*legs, *legs):
        knowledge.begin_pass()
        row = Item(leg, None, None, "LEDGER")
        if knowledge.backfilled(row, "Ledgers"):
            written.append(row.identity)
        knowledge = restarted(knowledge) if restart else knowledge
    assert written == ["LEDGER", again("LEDGER", legs[1])]


def test_the_feeds_ledger_entry_is_not_written_again_and_the_other_leg_is() -> None:
    knowledge = Knowledge("balances")
    assert knowledge.update(Item(b'{"ledger_id":"LEDGER","amount":1.0}', None, None, "LEDGER"))
    for first in (True, False):
        knowledge.begin_pass()
        rows = [Item(leg, None, None, "LEDGER") for leg in (b'{"amount":"1"}', b'{"amount":"-1"}')]
        assert knowledge.backfilled(rows[0], "Ledgers") is False
        assert knowledge.backfilled(rows[1], "Ledgers") is first
    assert knowledge.update(Item(b'{"ledger_id":"LEDGER","amount":1.0}', None, None, "LEDGER")) is False


def test_a_row_that_reads_differently_in_another_pass_or_source_is_the_same() -> None:
    """ClosedOrders and QueryOrders show one order differently; a row may get its fee a minute later."""
    knowledge = Knowledge("openOrders")
    knowledge.begin_pass()
    assert knowledge.backfilled(end(b'{"status":"closed"}'), "QueryOrders")
    assert not knowledge.backfilled(end(b'{"status":"closed","reason":null}'), "ClosedOrders")
    knowledge.begin_pass()
    assert not knowledge.backfilled(end(b'{"status":"closed","fee":"1"}'), "QueryOrders")


def test_a_row_may_be_taken_by_two_channels_one_after_the_other() -> None:
    v1, v2 = Knowledge("openOrders"), Knowledge("executions")
    v1.backfilled(end(b"1"))
    shared = end(b"2")
    assert v1.backfilled(shared)
    assert shared.identity == again(END, b"2")
    assert v2.backfilled(shared)
    assert shared.identity == END


def test_a_fill_without_an_id_in_a_snapshot_is_written_and_is_no_open_order() -> None:
    knowledge = Knowledge("executions", {ORDER_ID: [OPEN]}, before_first_snapshot=False)
    said = spot_v2.decode(
        b'{"channel":"executions","type":"snapshot","sequence":1,"data":['
        b'{"order_id":"%b","exec_type":"Trade","order_status":"filled","last_qty":1.0}]}' % ORDER_ID.encode()
    )
    assert isinstance(said, Data)
    assert list(knowledge.snapshot(said.items, "changes")) == [True]
    assert knowledge.vanished == {ORDER_ID}
    assert knowledge.orders == {ORDER_ID: [OPEN]}


# ------------------------------------------------------------------------------------------------ balances


def balance(asset: str, asset_class: str | None, amount: int) -> Item:
    told = {"asset": asset, "balance": amount} | ({} if asset_class is None else {"asset_class": asset_class})
    return Item(msgspec.json.encode(told))


def test_one_asset_in_two_classes_is_two_balances() -> None:
    knowledge = Knowledge("balances")
    items = [balance("SPY", "currency", 1), balance("SPY", "tokenized_asset", 2), balance("EUR", None, 3)]
    assert list(knowledge.snapshot(items, "changes")) == [True] * 3
    assert list(knowledge.snapshot(items, "changes")) == [False] * 3
    assert knowledge.orders.keys() == {"SPY", "SPY tokenized_asset", "EUR", " tokenized_asset"}
    assert knowledge.classes == {"tokenized_asset"}
    assert restarted(knowledge).classes == {"tokenized_asset"}
    knowledge.update(Item(b'{"asset":"SPY","asset_class":"tokenized_asset","balance":1}', None, "L1", "L1"))
    assert "SPY tokenized_asset" not in knowledge.orders
    assert restarted(knowledge).classes == {"tokenized_asset"}, "also once its assets have changed"
    assert list(knowledge.snapshot([items[0], balance("SPY", "tokenized_asset", 3)], "changes")) == [False, True]


def test_an_update_forgets_the_balance_of_its_class_and_shows_the_class() -> None:
    knowledge = Knowledge("balances", {"SPY": [b"{}"], "SPY tokenized_asset": [b"{}"]}, before_first_snapshot=False)
    knowledge.update(balance("SPY", "tokenized_asset", 1))
    assert knowledge.orders.keys() == {"SPY"}
    knowledge = Knowledge("balances")
    knowledge.update(balance("SPY", "derivative", 1))
    assert knowledge.classes == {"derivative"}


# ------------------------------------------------------------------------------------------------ order states


V2_OPEN = b'{"order_qty":2.0,"cum_qty":1.0,"limit_price":10.0,"triggers":{"price":1.0}}'


@each(
    ("known", "now"),
    [
        (V2_OPEN, V2_OPEN.replace(b'"limit_price":10.0', b'"limit_price":11.0')),
        (V2_OPEN, V2_OPEN.replace(b'"order_qty":2.0', b'"order_qty":3.0')),
        (V2_OPEN, V2_OPEN.replace(b'"price":1.0', b'"price":1.00000000000000000001')),
        (OPEN, OPEN.replace(b'"limitprice":"0.0"', b'"limitprice":"5.0"')),
        (OPEN, OPEN.replace(b'"price":"1.0"', b'"price":"2.0"')),
        (OPEN, OPEN.replace(b'"open"', b'"pending"')),
    ],
)
def test_an_order_that_was_amended_without_a_fill_is_news(known: bytes, now: bytes) -> None:
    assert compare(known, now) == "newer"
    knowledge = Knowledge("openOrders", {ORDER_ID: [known]}, before_first_snapshot=False)
    assert list(knowledge.snapshot([Item(now, ORDER_ID)], "changes")) == [True]


@each("told", [b"1", b"0.5", b'"0.00000001"', b'"GTC"', b"true", b'{"price":0}', b'["0"]'])
def test_a_member_that_comes_for_the_first_time_and_says_something_is_news(told: bytes) -> None:
    now = OPEN[:-1] + b',"first":%b}' % told
    assert not order_states._equal(None, msgspec.Raw(told))
    assert compare(OPEN, now) == "newer"


@each("told", [b"null", b'""', b"false", b"0", b'"0.00000"'])
def test_a_member_that_comes_for_the_first_time_and_says_nothing_is_no_news(told: bytes) -> None:
    assert compare(OPEN, OPEN[:-1] + b',"first":%b}' % told) == "same"


def test_a_snapshot_in_another_scale_is_no_news_and_one_with_less_executed_is_old() -> None:
    scaled = V2_OPEN.replace(b"2.0", b"2.00").replace(b"1.0", b"1.00")
    assert compare(V2_OPEN, scaled) == "same"
    assert compare(V2_OPEN, V2_OPEN.replace(b'"cum_qty":1.0', b'"cum_qty":0.5')) == "older"


HOSTILE = [
    b'{"cum_qty":"NaN"}', b'{"cum_qty":"Infinity"}', b'{"cum_qty":1e999999999999999999999}', b'{"a":[1e400]}',
    b'{"a":"\\ud800"}', b'{"\\ud800":1}', b'{"a":1,"a":2}', b'{"cum_qty":null}', b"{}", b"null", b"[]", b"7",
    b'{"a":' + b"[" * 300 + b"]" * 300 + b"}", b'{"a":' + b"[" * 50_000 + b"]" * 50_000 + b"}",
]  # fmt: skip


@each("known", [*HOSTILE, V2_OPEN])
@each("now", HOSTILE)
def test_whatever_a_snapshot_holds_what_changed_is_news(known: bytes, now: bytes) -> None:
    knowledge = Knowledge("executions", before_first_snapshot=False)
    knowledge.update(Item(known, ORDER_ID))
    (news,) = knowledge.snapshot([Item(now, ORDER_ID)], "changes")
    assert news or known == now or merged([now]) == {} or "cum_qty" in merged([now])
    assert list(knowledge.snapshot([Item(now, ORDER_ID)], "changes")) == [False]


def test_a_lone_surrogate_is_a_change_like_any_other() -> None:
    before, now = b'{"misc":"\\ud800","a":{"b":"\\ud800"}}', b'{"misc":"\\ud801","a":{"b":"\\ud800"}}'
    assert compare(before, now) == "newer"
    assert compare(before, before.replace(b'{"b":', b'{ "b":')) == "same"


def test_folding_keeps_every_member_also_under_odd_names() -> None:
    parts = [b'{"a":1,"\\ud800":"\\ud801"}', b'{"a":2,"b":[1.00]}', b'{"c":"\\udfff"}']
    folded = fold(parts)
    assert {name: bytes(raw) for name, raw in merged([folded]).items()} == {
        "a": b"2", "\ud800": b'"\\ud801"', "b": b"[1.00]", "c": b'"\\udfff"',
    }  # fmt: skip


def test_an_id_that_no_database_takes_costs_the_checkpoint_nothing_else() -> None:
    knowledge = Knowledge("executions")
    for name in ("A", "\ud800", "Ä"):
        knowledge.update(Item(b"{}", name))
        knowledge.update(Item(b"{}", None, f"T{name}", f"T{name}"))
    everything = knowledge.everything()
    for entry in (knowledge.take(), everything):
        assert entry.orders.keys() == {"A", "Ä"}
        assert [known[0] for known in entry.seen] == ["TA", "TÄ"]
    knowledge.update(Item(b"{}", "\ud800", None, "\ud800:end"))
    assert knowledge.take() == Entry()


# ------------------------------------------------------------------------------------------------ the checkpoint


def test_a_checkpoint_is_not_told_of_what_came_and_went_before_it_asked() -> None:
    """A burst of short-lived orders would make it forget thousands that it has never known."""
    knowledge = Knowledge("openOrders", {"KEPT": [b'{"status":"open"}']})
    for name in ("KEPT", "BRIEF", "STAYS"):
        knowledge.update(Item(b'{"status":"open"}', name))
    for name in ("KEPT", "BRIEF"):
        knowledge.update(Item(b'{"status":"closed"}', name, None, f"{name}:end"))
    assert knowledge.take().orders == {"KEPT": [], "STAYS": [b'{"status":"open"}']}
    knowledge.update(Item(b'{"status":"closed"}', "STAYS", None, "STAYS:end"))
    assert knowledge.take().orders == {"STAYS": []}
    assert knowledge.take() == Entry()


ORDER = st.sampled_from("ABC")
HAPPENINGS = st.lists(
    st.one_of(
        st.tuples(st.just("update"), ORDER),
        st.tuples(st.just("end"), ORDER),
        st.tuples(st.just("end again"), ORDER),
        st.tuples(st.just("fill"), st.sampled_from("TUVWX")),
        st.tuples(st.just("row"), st.sampled_from("TUVWX")),
        st.tuples(st.just("forget"), ORDER),
        st.tuples(st.just("snapshot"), st.sets(ORDER)),
        st.tuples(st.just("take"), st.booleans()),
    ),
    max_size=40,
)


@settings(max_examples=examples(300))
@given(HAPPENINGS)
def test_whatever_happens_the_entries_of_a_checkpoint_come_to_what_is_known(
    happenings: list[tuple[str, Any]],
) -> None:
    """Orders grow, are folded, replaced by snapshots, end and come again; some entries are of everything."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(known_state, "CHANGES_KEPT", 3)
        patch.setattr(known_state, "ENDED_KEPT", 2)
        patch.setattr(known_state, "SEEN_KEPT", 2)
        knowledge, kept = Knowledge("openOrders"), ChannelState()
        for number, (what, which) in enumerate([*happenings, ("take", False)]):
            data = b'{"n":%d,"vol_exec":"%d"}' % (number, number)
            match what:
                case "update":
                    knowledge.update(Item(data, which))
                case "end":
                    knowledge.update(Item(b"{}", which, None, f"{which}:end"))
                case "end again":
                    knowledge.update(Item(data, which, None, f"{which}:end"))
                case "fill":
                    knowledge.update(Item(data, None, which, which))
                case "row":
                    knowledge.backfilled(Item(data, None, which, which))
                case "forget":
                    knowledge.forget_order(which)
                case "snapshot":
                    list(knowledge.snapshot([Item(data, name) for name in sorted(which)], "changes"))
                case "take":
                    entry = knowledge.take()
                    kept = ChannelState() if which else kept
                    (knowledge.everything() if which else entry).apply(kept)
    assert kept.orders == knowledge.orders
    for remembered, ids in ((knowledge.ended, kept.ended), (knowledge.seen, kept.seen)):
        names = [known if isinstance(known, str) else known[0] for known in ids]
        last = list(dict.fromkeys(reversed(names)))[:2]
        again = Remembered(2, ids)
        assert all(name in remembered and name in again for name in last)
        assert all(remembered.crc(name) == again.crc(name) for name in last)
        assert len(remembered.everything()) == len(remembered) <= 6
