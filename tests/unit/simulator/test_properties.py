"""What holds whatever the seed, the rate, the faults and the moments of reading are."""

from collections import defaultdict
from decimal import Decimal
from typing import Any, Literal

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from kraken_feed.simulator.exchange import Exchange
from kraken_feed.simulator.faults.fault import Fault
from kraken_feed.simulator.faults.scenario import RandomFaults, Scenario
from kraken_feed.simulator.market.ledger import Ledger
from kraken_feed.simulator.market.order import TERMINAL
from kraken_feed.simulator.quirks.quirk import Quirks
from kraken_feed.simulator.wire.outgoing import Text
from tests.support.account import T0, Account, Tap

from ...support.examples import examples

CHANNELS: dict[Literal["v1", "v2"], tuple[str, str]] = {
    "v1": ("openOrders", "ownTrades"),
    "v2": ("executions", "balances"),
}
seeds = st.integers(0, 10_000)
steps = st.lists(st.floats(0.01, 5.0), min_size=1, max_size=15)
dialects = st.sampled_from(["v1", "v2"])
few = settings(max_examples=examples(40))


def subscribed(exchange: Exchange, dialect: Literal["v1", "v2"]) -> Tap:
    token = Account(exchange).token(T0)
    tap = Tap(exchange, dialect, T0)
    for channel in CHANNELS[dialect]:
        tap.subscribe(channel, token, T0)
    return tap


def data(texts: list[bytes]) -> list[tuple[str, int, list[bytes]]]:
    """Channel, sequence and the items' raw bytes of each data frame."""
    found = []
    for text in texts:
        if text.startswith(b"["):
            items, channel, tail = msgspec.json.decode(text, type=tuple[list[msgspec.Raw], str, dict[str, int]])
            found.append((channel, tail["sequence"], [bytes(item) for item in items]))
        elif b'"sequence"' in text:
            frame = msgspec.json.decode(text, type=dict[str, msgspec.Raw])
            rows = msgspec.json.decode(frame["data"], type=list[msgspec.Raw])
            channel = msgspec.json.decode(frame["channel"], type=str)
            found.append((channel, int(bytes(frame["sequence"])), [bytes(row) for row in rows]))
    return found


@few
@given(seeds, dialects, steps)
def test_sequences_are_contiguous_and_the_ledger_has_the_frames_bytes(
    seed: int, dialect: Literal["v1", "v2"], pauses: list[float]
) -> None:
    exchange = Exchange(now=T0, seed=seed, rate=5.0)
    tap = subscribed(exchange, dialect)
    now, texts = T0, tap.bytes()
    for pause in pauses:
        now += pause
        exchange.advance(now)
        texts += tap.bytes()
    frames = data(texts)
    for channel in CHANNELS[dialect]:
        numbers = [number for name, number, _ in frames if name == channel]
        assert numbers == list(range(1, len(numbers) + 1))
    published: dict[tuple[str, int], list[bytes]] = {(name, number): [] for name, number, _ in frames}
    for item in exchange.ledger.published:
        assert item.connection_id == tap.peer.connection_id
        published[item.channel, item.sequence].append(item.data)
    assert published == {(name, number): rows for name, number, rows in frames}


@few
@given(seeds, st.floats(0.5, 30.0))
def test_volumes_add_up_exactly_and_ended_orders_stay_ended(seed: int, rate: float) -> None:
    exchange = Exchange(now=T0, seed=seed, rate=rate)
    exchange.advance(T0 + 20)
    filled: dict[str, Decimal] = defaultdict(Decimal)
    cost: dict[str, Decimal] = defaultdict(Decimal)
    ended: set[str] = set()
    for change in exchange.ledger.changes:
        order = change.order
        assert order.id not in ended
        if change.trade is not None:
            filled[order.id] += change.trade.volume
            cost[order.id] += change.trade.cost
        assert (order.vol_exec, order.cost) == (filled[order.id], cost[order.id])
        assert 0 <= order.vol_exec <= order.volume
        assert (order.status == "closed") <= (order.vol_exec == order.volume)
        if order.status in TERMINAL:
            ended.add(order.id)
    assert ended.isdisjoint(exchange.book.open)


@few
@given(seeds)
def test_balances_are_the_sum_of_their_entries(seed: int) -> None:
    start = Exchange(now=T0, seed=seed, rate=0.0, past_trades=0).book.balances
    exchange = Exchange(now=T0, seed=seed, rate=20.0, past_trades=0)
    exchange.advance(T0 + 20)
    balances = dict(start)
    for entry in (entry for change in exchange.ledger.changes for entry in change.entries):
        balances[entry.asset.v2] += entry.amount - entry.fee
        assert entry.balance == balances[entry.asset.v2]
    assert balances == exchange.book.balances


@few
@given(seeds, steps)
def test_the_flow_depends_on_the_seed_and_not_on_who_looks(seed: int, pauses: list[float]) -> None:
    alone, watched = (Exchange(now=T0, seed=seed, rate=5.0) for _ in range(2))
    subscribed(watched, "v1")
    subscribed(watched, "v2")
    now = T0
    for pause in pauses:
        now += pause
        watched.advance(now)
    alone.advance(now)
    assert (alone.key, alone.secret) == (watched.key, watched.secret)
    assert alone.ledger.changes == watched.ledger.changes


@few
@given(seeds, dialects, steps)
def test_under_random_faults_every_publication_arrives_and_nothing_else_counts(
    seed: int, dialect: Literal["v1", "v2"], pauses: list[float]
) -> None:
    scenario = Scenario(random=RandomFaults(every=0.7), tier="pro")
    exchange = Exchange(now=T0, seed=seed, rate=5.0, scenario=scenario)
    account = Account(exchange)
    texts: dict[int, list[bytes]] = {}
    tap: Tap | None = None
    now = T0
    for pause in pauses:
        now += pause
        exchange.advance(now)
        if tap is None or tap.peer.closed:
            tap = reconnected(exchange, account, dialect, now)
        if tap is not None:
            texts.setdefault(tap.peer.connection_id, []).extend(tap.bytes())
    for frame in exchange.ledger.frames:
        assert frame.text in texts[frame.connection_id]


def reconnected(exchange: Exchange, account: Account, dialect: Literal["v1", "v2"], now: float) -> Tap | None:
    """A new connection, if the faults of the day allow it."""
    answer = account.raw("GetWebSocketsToken", now)
    if answer.status != 200 or b'"token"' not in answer.body:
        return None
    try:
        tap = Tap(exchange, dialect, now)
    except ConnectionRefusedError:
        return None
    token = msgspec.json.decode(answer.body)["result"]["token"]
    for channel in CHANNELS[dialect]:
        tap.subscribe(channel, token, now)
    return tap


@few
@given(st.sampled_from(["v1", "v2"]), st.binary(max_size=200))
def test_no_bytes_of_a_client_can_break_a_connection(dialect: Literal["v1", "v2"], text: bytes) -> None:
    exchange = Exchange(now=T0, seed=1, rate=0.0)
    tap = Tap(exchange, dialect, T0)
    tap.bytes()
    tap.peer.receive(text, T0)
    assert len(tap.bytes()) == 1
    assert not tap.peer.closed


json_values: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)
names = st.sampled_from(
    ["event", "method", "reqid", "req_id", "subscription", "params", "name", "channel", "token", "pair"]
)
words = st.sampled_from(["subscribe", "unsubscribe", "ping", "openOrders", "executions", "*", 1, True, None])
requests = st.dictionaries(names, words | st.dictionaries(names, words | json_values, max_size=4), max_size=5)


@settings(max_examples=examples(120))
@given(st.sampled_from(["v1", "v2"]), requests)
def test_every_request_gets_an_answer(dialect: Literal["v1", "v2"], request: dict[str, Any]) -> None:
    exchange = Exchange(now=T0, seed=1, rate=0.0)
    tap = Tap(exchange, dialect, T0)
    tap.bytes()
    tap.send(request, T0)
    assert len(tap.bytes()) == 1


@few
@given(st.binary(max_size=100), st.sampled_from(["", "application/json"]))
def test_no_body_can_break_rest(body: bytes, content_type: str) -> None:
    exchange = Exchange(now=T0, seed=1, rate=0.0)
    headers = {"API-Key": exchange.key, "API-Sign": "x", "Content-Type": content_type}
    assert exchange.rest("POST", "/0/private/Balance", headers, body, T0).status == 200


def test_the_ledger_streams_what_it_keeps() -> None:
    lines: list[bytes] = []
    exchange = Exchange(now=T0, seed=4, rate=5.0, ledger=Ledger(lines.append))
    tap = subscribed(exchange, "v1")
    exchange.inject(Fault("duplicate_frame"), T0)
    exchange.advance(T0 + 10)
    texts = [message.data for message in tap.peer.outgoing() if isinstance(message, Text)]
    records = [msgspec.json.decode(line) for line in b"".join(lines).splitlines()]
    items = [record for record in records if record["record"] == "item"]
    assert [record["data"].encode() for record in items] == [item.data for item in exchange.ledger.published]
    assert [record["order_id"] for record in records if record["record"] == "change"] == [
        change.order.id for change in exchange.ledger.changes
    ]
    frames = [record for record in records if record["record"] == "frame"]
    assert len(frames) == len(data(texts)) - 2  # the duplicates are no publications
    assert {record["record"] for record in records} == {"item", "frame", "change", "fault"}


def test_the_value_of_a_v1_item_is_what_stands_under_its_id() -> None:
    exchange = Exchange(now=T0, seed=4, rate=0.0)
    tap = subscribed(exchange, "v1")
    tap.bytes()
    for item in exchange.ledger.published:
        ((ident, value),) = msgspec.json.decode(item.data, type=dict[str, msgspec.Raw]).items()
        assert (item.ids, item.value) == ((ident,), bytes(value))


shares = st.sampled_from([0.0, 0.3, 1.0])
quirks = st.builds(
    Quirks,
    short_pages=st.booleans(),
    merged_pages=st.booleans(),
    repeated_rows=shares,
    count=st.sampled_from(["asked", "always", "null"]),
    history_cost=st.just(0.0),
    trades_lag=st.sampled_from([None, 0.0, 5.0]),
    late_orders=st.booleans(),
    odd_states=shares,
    empty_as_list=st.booleans(),
    errors=st.sampled_from(["list", "object", "warning"]),
    integers=st.sampled_from(["plain", "float", "text"]),
    unknown_members=st.booleans(),
    surrogates=shares,
    double_ends=st.sampled_from(["once", "richer", "identical", "both"]),
    null_snapshots=st.booleans(),
    null_items=st.booleans(),
    strange_frames=shares,
    no_v1_heartbeats=st.booleans(),
    line_rate=st.sampled_from([0.0, 500.0, 50_000.0]),
    empty_ledger_ids=shares,
    shared_ledger_ids=shares,
    asset_classes=st.booleans(),
)
restarts = st.lists(
    st.builds(
        Fault,
        st.just("resnapshot"),
        at=st.floats(0, 20),
        duration=st.floats(0, 5),
        variant=st.sampled_from(["restart", "continue", "jump"]),
    ),
    max_size=2,
)


@few
@given(seeds, dialects, steps, quirks, restarts)
def test_the_ledger_is_right_whatever_the_quirks(
    seed: int, dialect: Literal["v1", "v2"], pauses: list[float], quirks: Quirks, faults: list[Fault]
) -> None:
    scenario = Scenario(tuple(faults), quirks=quirks)
    exchange = Exchange(now=T0, seed=seed, rate=10.0, scenario=scenario)
    tap = subscribed(exchange, dialect)
    texts = tap.bytes()
    now = T0
    for pause in pauses:
        now += pause
        exchange.advance(now)
        texts += tap.bytes()
    sent = iter(texts)
    for frame in exchange.ledger.frames:  # in order among what was sent, each with its items
        assert frame.text in sent
        assert all(item.data in frame.text for item in frame.items)
    account, known, offset = Account(exchange), set[str](), 0
    while page := account.call("TradesHistory", now + 6, ofs=str(offset))["result"]["trades"]:
        known |= set(page)
        offset += len(page)
    assert known >= {
        change.trade.id for change in exchange.ledger.changes if change.trade is not None and change.at <= now
    }
    assert len({entry.fact for change in exchange.ledger.changes for entry in change.entries}) == sum(
        len(change.entries) for change in exchange.ledger.changes
    )
