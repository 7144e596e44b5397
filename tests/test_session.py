"""One connection's protocol: scripts frame by frame, and random faults of the simulated exchange."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kraken_feed import spot_v1, spot_v2
from kraken_feed.session import EngineChanged, Event, Live, Notice, Opaque, Records, Session, Timing
from kraken_feed.simulator.exchange import Exchange
from kraken_feed.simulator.fault import PARAMETERS, VARIANTS, Fault
from kraken_feed.simulator.scenario import Scenario

from .exchange_driver import T0, TIMING, Line

GREETING = b'{"connectionID":12345678901234567890,"event":"systemStatus","status":"online","version":"1.9.6"}'
HEARTBEAT = b'{"event":"heartbeat"}'
FULL = b'{"OAAAAA-BBBBB-CCCCC1":{"descr":{"pair":"XBT/USD"},"status":"open"}}'


def ack(req_id: int, channel: str = "openOrders") -> bytes:
    return (
        b'{"channelName":"%b","event":"subscriptionStatus","reqid":%d,"status":"subscribed","subscription":{"name":"%b"}}'
        % (channel.encode(), req_id, channel.encode())
    )


def data(sequence: int, *entries: bytes, channel: bytes = b"openOrders") -> bytes:
    return b'[[%b],"%b",{"sequence":%d}]' % (b",".join(entries), channel, sequence)


def delta(status: bytes = b"open") -> bytes:
    return b'{"OAAAAA-BBBBB-CCCCC1":{"status":"%b","userref":0}}' % status


class Script:
    """A v1 session that has asked for its channels at time 0; frames arrive a millisecond apart."""

    def __init__(self, *channels: str) -> None:
        self.session = Session(spot_v1, channels or ("openOrders",), TIMING)
        self.now = 0.0
        self.events: list[Event] = []
        self.session.connected(0.0)
        self.hear(GREETING)
        self.session.authorize("token", 0.0)
        self.requests = self.session.data_to_send()

    def hear(self, *frames: bytes) -> Script:
        for frame in frames:
            self.now += 0.001
            self.events += self.session.receive(frame, self.now)
        return self

    def wait(self, seconds: float) -> Script:
        self.now += seconds
        self.session.tick(self.now)
        return self

    @property
    def live(self) -> list[str]:
        return [event.channel for event in self.events if isinstance(event, Live)]

    @property
    def cause(self) -> str | None:
        return self.session.failure.cause if self.session.failure else None

    @property
    def notices(self) -> list[str]:
        return [event.event for event in self.events if isinstance(event, Notice)]


# -- becoming live


def test_live_needs_acknowledgement_and_snapshot() -> None:
    script = Script().hear(ack(1))
    assert script.live == []
    assert script.hear(data(1, FULL)).live == ["openOrders"]
    assert script.session.live


def test_snapshot_before_the_acknowledgement_is_written_and_counts() -> None:
    script = Script().hear(data(1, FULL))
    assert script.live == []
    assert [event.type for event in script.events if isinstance(event, Records)] == ["snapshot"]
    assert script.hear(ack(1)).live == ["openOrders"]


def test_an_acknowledgement_is_matched_by_its_number_not_by_the_channel() -> None:
    script = Script("openOrders", "ownTrades").hear(ack(2, "openOrders"), data(1, channel=b"openOrders"))
    assert script.live == []
    assert script.hear(data(1, channel=b"ownTrades")).live == ["ownTrades"]


def test_an_acknowledgement_with_a_number_nobody_asked_with_makes_nothing_live() -> None:
    script = Script().hear(ack(99), data(1, FULL))
    assert script.live == []
    assert "answer_unexpected" in script.notices


def test_an_acknowledgement_without_a_number_is_matched_by_its_channel() -> None:
    frame = b'{"event":"subscriptionStatus","status":"subscribed","subscription":{"name":"openOrders"}}'
    assert Script().hear(frame, data(1)).live == ["openOrders"]


def test_an_empty_snapshot_is_a_snapshot() -> None:
    assert Script().hear(ack(1), data(1)).live == ["openOrders"]


def test_an_update_is_not_taken_for_the_missing_snapshot() -> None:
    script = Script().hear(ack(1), data(2, delta()))
    assert script.live == []
    assert [event.type for event in script.events if isinstance(event, Records)] == ["update"]
    assert script.wait(5.0).cause == "no_snapshot"


def test_a_snapshot_may_start_at_any_number() -> None:
    script = Script().hear(ack(1), data(120, FULL), data(121, delta()))
    assert script.live == ["openOrders"]
    assert script.cause is None


def test_frames_without_a_sequence_are_taken_as_they_come() -> None:
    script = Script().hear(ack(1), b'[[%b],"openOrders"]' % FULL, b'[[%b],"openOrders"]' % delta())
    assert script.live == ["openOrders"]
    assert [e.sequence for e in script.events if isinstance(e, Records)] == [None, None]


def test_each_request_has_a_number_of_its_own_and_no_pair() -> None:
    requests = Script("openOrders", "ownTrades").requests
    assert ['"reqid":1' in requests[0], '"reqid":2' in requests[1]] == [True, True]
    assert not any("pair" in request for request in requests)


def test_warnings_in_an_acknowledgement_are_noticed_and_not_fatal() -> None:
    session = Session(spot_v2, ("executions",), TIMING)
    session.connected(0.0)
    session.authorize("token", 0.0)
    frame = (
        b'{"method":"subscribe","req_id":1,"result":{"channel":"executions","warnings":["old"]},'
        b'"success":true,"time_in":"x","time_out":"x"}'
    )
    events = session.receive(frame, 0.1)
    assert [(e.event, e.fields["text"]) for e in events if isinstance(e, Notice)] == [("kraken_warns", "old")]
    assert session.failure is None


# -- refused, unanswered, taken back


@pytest.mark.parametrize("text", ["ESession:Invalid session", "EGeneral:Permission denied", "whatever else"])
def test_a_refused_subscription_fails_with_krakens_words(text: str) -> None:
    frame = b'{"errorMessage":"%b","event":"subscriptionStatus","reqid":1,"status":"error"}' % text.encode()
    failure = Script().hear(frame).session.failure
    assert failure is not None
    assert (failure.cause, failure.refusal, failure.detail) == ("refused", text, f"openOrders: {text}")


@pytest.mark.parametrize(
    "frame",
    [
        b'{"errorMessage":"Exceeded msg rate","event":"error","reqid":1}',
        b'{"errorMessage":"Exceeded msg rate","event":"error"}',
        b'{"event":"subscriptionStatus","status":"error","errorMessage":"Exceeded msg rate"}',
        b'{"Error":"Exceeded msg rate"}',
    ],
)
def test_every_shape_of_exceeded_msg_rate_refuses_what_waits_for_an_answer(frame: bytes) -> None:
    failure = Script().hear(frame).session.failure
    assert failure is not None
    assert (failure.cause, failure.refusal) == ("refused", "Exceeded msg rate")


def test_an_error_with_another_requests_number_refuses_nothing() -> None:
    script = Script().hear(b'{"errorMessage":"Exceeded msg rate","event":"error","reqid":77}')
    assert script.cause is None
    assert "kraken_error" in script.notices


def test_an_unanswered_subscription_fails_at_its_deadline() -> None:
    script = Script()
    assert script.session.deadline() == 5.0
    assert script.wait(4.9).cause is None
    assert script.wait(0.2).cause == "no_ack"


def test_heartbeats_do_not_stand_in_for_the_snapshot() -> None:
    script = Script().hear(ack(1))
    for _ in range(5):
        script.hear(HEARTBEAT).wait(0.9)
    assert script.cause is None
    assert script.wait(0.6).cause == "no_snapshot"


@pytest.mark.parametrize(
    "frame",
    [
        b'{"event":"subscriptionStatus","status":"unsubscribed","subscription":{"name":"openOrders"}}',
        b'{"errorMessage":"ESession:Invalid session","event":"subscriptionStatus","status":"error",'
        b'"subscription":{"name":"openOrders"}}',
        b'{"event":"subscriptionStatus","reqid":9,"status":"unsubscribed","subscription":{"name":"openOrders"}}',
    ],
)
def test_a_subscription_that_the_server_takes_back_is_a_failure(frame: bytes) -> None:
    assert Script().hear(ack(1), data(1), frame).cause == "unsubscribed"


def test_nothing_is_said_after_a_failure() -> None:
    script = Script().hear(ack(1), data(1, FULL), data(3, delta()))
    before = len(script.events)
    assert script.hear(data(4, delta()), HEARTBEAT, GREETING).events[before:] == []
    assert script.session.deadline() is None
    assert not script.session.live


# -- sequence


def test_a_jump_in_the_sequence_fails_and_the_frame_that_shows_it_is_written() -> None:
    script = Script().hear(ack(1), data(1, FULL), data(2, delta()), data(4, delta(b"closed")))
    failure = script.session.failure
    assert failure is not None
    assert (failure.cause, failure.detail) == ("sequence", "openOrders: 4 after 2")
    assert [e.sequence for e in script.events if isinstance(e, Records)] == [1, 2, 4]


def test_an_exact_repeat_is_left_out_and_noticed() -> None:
    script = Script().hear(ack(1), data(1, FULL), data(2, delta()), data(2, delta()), data(3, delta()))
    assert [e.sequence for e in script.events if isinstance(e, Records)] == [1, 2, 3]
    assert script.notices.count("frame_repeated") == 1
    assert script.cause is None


def test_another_frame_under_the_same_number_is_a_jump() -> None:
    assert Script().hear(ack(1), data(1), data(2, delta()), data(2, delta(b"closed"))).cause == "sequence"


def test_channels_count_separately() -> None:
    script = Script("openOrders", "ownTrades").hear(ack(1), ack(2, "ownTrades"), data(1), data(1, channel=b"ownTrades"))
    script.hear(data(2, delta()), data(3, delta()), data(2, b'{"T1":{"userref":0}}', channel=b"ownTrades"))
    assert script.cause is None


def test_the_same_order_twice_in_a_frame_is_two_items_in_order() -> None:
    script = Script().hear(ack(1), data(1), data(2, delta(b"open"), delta(b"closed")))
    (records,) = [e for e in script.events if isinstance(e, Records) and e.sequence == 2]
    assert [item.data for item in records.items] == [
        b'{"status":"open","userref":0}',
        b'{"status":"closed","userref":0}',
    ]


# -- silence


def test_silence_after_a_heartbeat_kills_without_a_ping() -> None:
    script = Script().hear(ack(1), data(1), HEARTBEAT)
    script.wait(9.9)
    assert (script.cause, script.session.data_to_send()) == (None, [])
    assert script.wait(0.2).cause == "silence"


def test_before_a_heartbeat_was_heard_a_quiet_peer_is_asked_once() -> None:
    script = Script().hear(ack(1), data(1)).wait(5.0)
    (ping,) = script.session.data_to_send()
    assert '"ping"' in ping
    assert script.wait(1.0).session.data_to_send() == []
    script.hear(b'{"event":"pong","reqid":2}').wait(4.0)
    assert script.cause is None
    assert script.wait(1.1).session.data_to_send() != []
    assert script.wait(5.0).cause == "silence"


def test_a_pong_does_not_stand_in_for_heartbeats_once_there_were_some() -> None:
    script = Script().hear(ack(1), data(1), HEARTBEAT).wait(8.0)
    assert script.session.data_to_send() == []


def test_a_peer_that_never_says_a_word_is_found_out_before_any_token() -> None:
    session = Session(spot_v1, ("openOrders",), TIMING)
    session.connected(0.0)
    session.tick(5.0)
    assert session.data_to_send() != []
    session.tick(10.0)
    assert session.failure is not None
    assert session.failure.cause == "silence"


def test_time_in_which_we_did_not_listen_is_no_silence() -> None:
    script = Script()
    script.session.excuse(60.0)
    assert script.wait(60.0).cause is None
    assert script.wait(4.9).cause is None
    assert script.wait(0.2).cause == "no_ack"


# -- greeting, engine, what is not known


def test_the_greeting_is_not_insisted_on_and_not_a_change() -> None:
    session = Session(spot_v1, ("openOrders",), TIMING)
    session.connected(0.0)
    session.authorize("token", 0.0)
    session.receive(ack(1), 0.1)
    session.receive(data(1), 0.2)
    assert session.live
    assert session.engine is None
    assert not any(isinstance(event, EngineChanged) for event in session.receive(GREETING, 0.3))
    assert session.engine == "online"


def test_a_change_of_the_engine_is_told_once() -> None:
    script = Script().hear(ack(1), data(1))
    for state in (b"maintenance", b"maintenance", b"cancel_only", b"online", b"a new one"):
        script.hear(b'{"connectionID":1,"event":"systemStatus","status":"%b"}' % state)
    changes = [event.engine for event in script.events if isinstance(event, EngineChanged)]
    assert changes == ["maintenance", "cancel_only", "online", "a new one"]


@pytest.mark.parametrize(
    ("frame", "is_json"),
    [
        (b'{"event":"addOrderStatus","status":"ok"}', True),
        (b'[[],"book-10",{"sequence":4}]', True),
        (b'[0,{},"ticker","XBT/USD"]', True),
        (b"12", True),
        (b'[[{}],"openOrders",{"sequence":2}]', True),
        (b'[["OAAAAA"],"openOrders",{"sequence":2}]', True),
        (b"not json", False),
        (b"\xff\xfe", False),
        (b"", False),
        (b"[" * 100_000, False),
    ],
)
def test_a_frame_that_is_not_known_is_handed_on_whole(frame: bytes, is_json: bool) -> None:
    script = Script().hear(ack(1), data(1), frame)
    (opaque,) = [event for event in script.events if isinstance(event, Opaque)]
    assert (opaque.frame, opaque.json) == (frame, is_json)
    assert script.cause is None


def test_a_channel_that_was_not_asked_for_is_handed_on_whole() -> None:
    frame = data(1, b'{"T1":{}}', channel=b"ownTrades")
    (opaque,) = [event for event in Script().hear(frame).events if isinstance(event, Opaque)]
    assert opaque.frame == frame


# -- the simulated exchange


def test_a_quiet_exchange_keeps_every_channel_live_for_an_hour() -> None:
    for dialect, channels in (("v1", ("openOrders", "ownTrades")), ("v2", ("executions", "balances"))):
        exchange = Exchange(now=T0, seed=3, rate=0.0)
        line = Line(exchange, dialect, channels, T0)
        line.authorize(T0)
        line.run(T0, T0 + 3600)
        assert line.session.failure is None
        assert line.live == list(channels)
        assert line.items() == line.published()


def test_a_lively_exchange_is_passed_on_item_by_item() -> None:
    for dialect, channels in (("v1", ("openOrders", "ownTrades")), ("v2", ("executions", "balances"))):
        exchange = Exchange(now=T0, seed=4, rate=50.0, open_orders=40)
        line = Line(exchange, dialect, channels, T0)
        line.authorize(T0)
        line.run(T0, T0 + 60)
        assert line.session.failure is None
        assert len(line.items()) > 2000
        assert line.items() == line.published()


_KINDS = sorted(set(PARAMETERS) - {"upgrade_refused", "many_orders", "big_frame"})


@st.composite
def faults(draw: st.DrawFn) -> Fault:
    kind = draw(st.sampled_from(_KINDS))
    fields: dict[str, object] = {"at": draw(st.floats(0, 40))}
    if kind in VARIANTS:
        fields["variant"] = draw(st.sampled_from(VARIANTS[kind]))
    if "for" in PARAMETERS[kind]:
        fields["duration"] = draw(st.sampled_from([None, 0.5, 4.0, 30.0]))
    if kind == "drop":
        fields["code"] = draw(st.sampled_from([None, 1000, 1001, 1006, 1008, 1011, 1013]))
    if kind == "delay_ack":
        fields["seconds"] = draw(st.floats(0, 10))
    if kind == "sequence_skip":
        fields["count"] = draw(st.sampled_from([None, 1, 3]))
    return Fault(kind, **fields)  # type: ignore[arg-type]  # the fields that fit the kind


@settings(max_examples=400)
@given(
    script=st.lists(faults(), max_size=4),
    seed=st.integers(0, 2**31),
    rate=st.sampled_from([0.0, 0.5, 5.0]),
    dialect=st.sampled_from(["v1", "v2"]),
    channels=st.sampled_from([1, 2]),
    token_after=st.floats(0, 20),
)
def test_no_script_of_faults_makes_a_session_raise_lie_or_sit_there_deaf(
    script: list[Fault], seed: int, rate: float, dialect: str, channels: int, token_after: float
) -> None:
    exchange = Exchange(now=T0, seed=seed, rate=rate, open_orders=3, past_trades=2, scenario=Scenario(tuple(script)))
    names = {"v1": ("openOrders", "ownTrades"), "v2": ("executions", "balances")}[dialect][:channels]
    line = Line(exchange, dialect, names, T0)
    now = line.run(T0, T0 + token_after)
    asked = now
    if line.session.failure is None:
        line.authorize(now)
    now = line.run(now, now + 60)
    session = line.session
    if session.failure is None:
        # Not deaf: every channel is live (Line asserts that the server had said yes), and it was heard of lately.
        assert session.live
        assert session.last_text is not None
        assert now - session.last_text <= TIMING.silence
        assert set(names) <= set(line.peer.subscriptions), "the server sends nothing for a channel that is called live"
    else:
        assert session.failure.detail
        # Found out in time: the last frame, or the request, is at most the deadlines ago.
        assert session.last_text is not None
        last = max(session.last_text, asked)
        assert now - last <= max(2 * TIMING.ack, TIMING.silence) + 0.01
    for channel in names:
        numbers = [event.sequence or 0 for event in line.records if event.channel == channel]
        if session.failure is not None and session.failure.cause == "sequence" and numbers:
            numbers = numbers[:-1] or numbers  # the frame that shows the jump is written
        assert numbers == list(range(numbers[0], numbers[0] + len(numbers))) if numbers else True
    published = line.published()
    items = line.items()
    if session.failure is None:
        assert items == published
    else:
        for channel in names:
            mine = [item for item in items if item[0] == channel]
            assert mine == [item for item in published if item[0] == channel][: len(mine)]


def test_a_timing_is_whatever_the_configuration_says() -> None:
    session = Session(spot_v1, ("openOrders",), Timing(ack=1.0, silence=100.0))
    session.connected(0.0)
    session.authorize("token", 10.0)
    assert session.deadline() == 11.0
