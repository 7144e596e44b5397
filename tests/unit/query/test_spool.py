"""The rows of a query on disk: their order, their identities, and who may open the file."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from kraken_feed.errors import OutputFailed, OutputHeld, UsageError
from kraken_feed.feed.backfill import CLOSED_ORDERS, LEDGERS, TOKENIZED, TRADES, Source, read_page, sources_of
from kraken_feed.query.spool import Period, Question, Spool

from ...support.cases import each

NS = 1_000_000_000
TOKENS = sources_of("balances", [TOKENIZED])[1]
QUESTION = Question(account="main", channels=("ownTrades",), since="2h", until=None, format="json", rest="x")
PERIOD = Period(0, 100 * NS, False, "run")


def page(spool: Spool, source: Source, rows: str, *, offset: int = 0, reading: int = 1) -> int:
    """Add a page; ``rows`` are its members, the newest first."""
    found = read_page(source, b'{"%b":{%b}}' % (source.key.encode(), rows.encode()))
    return spool.add(source, found, offset=offset, reading=reading, ts_ns=7, otherwise_ns=99 * NS)


def spool_with(period: Period = PERIOD) -> Spool:
    spool = Spool.temporary()
    spool.begin(period)
    return spool


def identities(spool: Spool) -> list[str]:
    return [row.identity for row in spool.result()]


# -- order


def test_rows_of_all_sources_come_oldest_first_and_a_fill_before_its_orders_end() -> None:
    spool = spool_with()
    page(spool, CLOSED_ORDERS, '"O2":{"closetm":5,"status":"closed"},"O1":{"closetm":3,"status":"closed"}')
    page(spool, TRADES, '"T3":{"time":6},"T2":{"time":5}')
    page(spool, TRADES, '"T1":{"time":1}', offset=2)
    page(spool, LEDGERS, '"L1":{"time":5}')
    assert identities(spool) == ["T1", "O1:end", "T2", "L1", "O2:end", "T3"]


def test_rows_of_one_time_keep_the_order_of_krakens_list() -> None:
    spool = spool_with()
    page(spool, TRADES, '"T6":{"time":1},"T5":{"time":1}')
    page(spool, TRADES, '"T4":{"time":1},"T3":{"time":1}', offset=2)
    assert identities(spool) == ["T3", "T4", "T5", "T6"]


def test_a_row_without_a_readable_time_stands_beside_its_neighbours_and_is_always_written() -> None:
    spool = spool_with(Period(2 * NS, 4 * NS, False, "run"))
    page(spool, TRADES, '"T4":{"time":4},"T3":{"time":"soon"},"T2":{"time":2},"T1":{"time":1}')
    page(spool, TRADES, '"T0":{}', offset=4)
    assert identities(spool) == ["T2", "T3", "T4", "T0"]
    assert [row.time_ns for row in spool.result()] == [2 * NS, None, 4 * NS, None]


def test_the_ends_of_the_period_belong_to_it() -> None:
    spool = spool_with(Period(2 * NS, 4 * NS, False, "run"))
    page(spool, TRADES, ",".join(f'"T{second}":{{"time":{second}}}' for second in range(5, 0, -1)))
    assert identities(spool) == ["T2", "T3", "T4"]
    assert spool.counts() == {"trade": 3}


# -- identities


def test_two_rows_under_one_id_are_two_rows_with_identities_of_their_own() -> None:
    spool = spool_with()
    assert page(spool, LEDGERS, '"L1":{"time":2,"amount":"1"},"L1":{"time":2,"amount":"-1"}') == 2
    assert page(spool, LEDGERS, '"L1":{"time":2,"amount":"2"}', offset=1) == 1
    first, *others = identities(spool)
    assert first == "L1"
    assert all(name.startswith("L1~") for name in others)
    assert len({first, *others}) == 3


def test_a_row_that_a_later_page_repeats_is_there_once() -> None:
    spool = spool_with()
    assert page(spool, TRADES, '"T2":{"time":2},"T1":{"time":1}') == 2
    assert page(spool, TRADES, '"T1":{"time":1},"T0":{"time":0.5}', offset=2) == 1
    assert identities(spool) == ["T0", "T1", "T2"]


def test_another_query_of_the_same_rows_counts_them_again() -> None:
    spool = spool_with()
    rows = '"O2":{"closetm":2,"status":"closed"},"O1":{"closetm":1,"status":"closed"}'
    assert page(spool, CLOSED_ORDERS, rows, reading=1) == page(spool, CLOSED_ORDERS, rows, reading=2) == 2
    assert spool.returned(CLOSED_ORDERS, 1) == 0
    assert spool.returned(CLOSED_ORDERS, 2) == 2
    assert spool.rows == 2


def test_a_ledger_entry_that_two_asset_classes_show_is_written_once() -> None:
    spool = spool_with()
    page(spool, LEDGERS, '"L2":{"time":2,"a":1},"L1":{"time":1}')
    page(spool, TOKENS, '"L2":{"time":2,"a":1},"L2":{"time":2,"a":2}', reading=2)
    found = identities(spool)
    assert found[:2] == ["L1", "L2"]
    assert len(found) == 3
    assert spool.returned(TOKENS, 2) == 2


def test_rows_without_an_id_are_known_by_their_bytes() -> None:
    spool = spool_with()
    assert page(spool, LEDGERS, '"":{"time":2},"":{"time":1},"":{"time":2}') == 2
    assert all(name.startswith("row-") for name in identities(spool))
    assert {row.ledger_id for row in spool.result()} == {""}


# -- evidence


def test_an_order_whose_end_is_not_known_is_odd_unless_another_row_has_it() -> None:
    spool = spool_with()
    rows = ('"O1":{"closetm":1,"status":"rejected"}', '"O2":{"closetm":2,"status":"open"}')
    page(spool, CLOSED_ORDERS, ",".join((*rows, '"O3":{"closetm":3,"status":"Closed"}')))
    page(spool, CLOSED_ORDERS, '"O1":{"closetm":1,"status":"canceled"},"":{"closetm":2,"status":"odd"}', offset=3)
    assert {(order.order_id[:4], order.status, order.state) for order in spool.odd_orders()} == {
        ("O2", "open", "open"),
        ("row-", "odd", "unknown"),
    }
    assert "O2:open" not in identities(spool)  # as in the feed: an open order has no end


# -- the file


def test_what_was_committed_is_there_again(tmp_path: Path) -> None:
    path = str(tmp_path / "x.jsonl")
    with closing(Spool.open(path, QUESTION)) as spool:
        spool.begin(PERIOD)
        page(spool, TRADES, '"T1":{"time":1}')
        spool.commit()
        page(spool, TRADES, '"T2":{"time":2}')
    with closing(Spool.open(path, QUESTION)) as spool:
        assert (spool.period, spool.rows, identities(spool)) == (PERIOD, 1, ["T1"])
    assert Path(f"{path}.partial").stat().st_mode & 0o777 == 0o600


def test_nothing_is_left_when_it_is_removed(tmp_path: Path) -> None:
    spool = Spool.open(str(tmp_path / "x.jsonl"), QUESTION)
    spool.begin(PERIOD)
    page(spool, TRADES, '"T1":{"time":1}')
    spool.commit()
    spool.remove()
    assert list(tmp_path.iterdir()) == []


def test_it_belongs_to_one_process_at_a_time(tmp_path: Path) -> None:
    path = str(tmp_path / "x.jsonl")
    spool = Spool.open(path, QUESTION)
    with pytest.raises(OutputHeld):
        Spool.open(path, QUESTION)
    spool.close()
    Spool.open(path, QUESTION).close()


def test_a_file_of_another_layout_begins_anew(tmp_path: Path) -> None:
    path = str(tmp_path / "x.jsonl")
    with closing(Spool.open(path, QUESTION)) as spool:
        spool.begin(PERIOD)
    with closing(sqlite3.connect(f"{path}.partial")) as database:
        database.execute("PRAGMA user_version = 99")
    with closing(Spool.open(path, QUESTION)) as spool:
        assert spool.period is None


@each("name", ["missing/x.jsonl", "directory"])
def test_a_place_that_cannot_be_used_is_an_error_with_a_remedy(name: str, tmp_path: Path) -> None:
    (tmp_path / "directory.partial").mkdir(exist_ok=True)
    with pytest.raises(OutputFailed, match="Cannot keep in") as raised:
        Spool.open(str(tmp_path / name), QUESTION)
    assert raised.value.exit_code == 74


def test_another_question_is_refused_and_named(tmp_path: Path) -> None:
    path = str(tmp_path / "x.jsonl")
    Spool.open(path, QUESTION).close()
    other = Question(account="main", channels=("balances",), since="2h", until="1h", format="json", rest="x")
    with pytest.raises(UsageError) as raised:
        Spool.open(path, other)
    assert "ownTrades --since 2h --format json --account main" in raised.value.what
    assert raised.value.why == "This one differs in: channels, until."
