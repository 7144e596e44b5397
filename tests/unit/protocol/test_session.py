"""One connection's protocol: scripts frame by frame, and random faults of the simulated exchange."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kraken_feed.protocol import spot_v1, spot_v2
from kraken_feed.protocol.session import (
    OUTSTANDING,
    Answered,
    Complete,
    EngineChanged,
    Event,
    Live,
    Notice,
    Opaque,
    Resnapshot,
    Session,
    Timing,
)
from kraken_feed.protocol.wire import Data
from kraken_feed.simulator.exchange import Exchange
from kraken_feed.simulator.faults.fault import PARAMETERS, VARIANTS, Fault
from kraken_feed.simulator.faults.scenario import Scenario

from ...support.cases import each
from ...support.examples import examples
from ...support.exchange_driver import T0, TIMING, Line

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


def pong(req_id: int | str | None) -> bytes:
    return b'{"event":"pong"}' if req_id is None else b'{"event":"pong","reqid":%b}' % str(req_id).encode()


def delta(status: bytes = b"open") -> bytes:
    return b'{"OAAAAA-BBBBB-CCCCC1":{"status":"%b","userref":0}}' % status


class Script:
    """A v1 session that has asked for its channels at time 0; frames arrive a millisecond apart.

    The stamp of a ping is the time of its sending, in nanoseconds.
    """

    def __init__(self, *channels: str) -> None:
        self.session = Session(spot_v1, channels or ("openOrders",), TIMING)
        self.now = 0.0
        self.events: list[Event] = []
        self.session.connected(0.0)
        self.hear(GREETING)
        self.session.authorize("token", 0.0, 0)
        self.requests = self.session.data_to_send()

    def hear(self, *frames: bytes) -> Script:
        for frame in frames:
            self.now += 0.001
            self.events += self.session.receive(frame, self.now)
        return self

    def wait(self, seconds: float) -> Script:
        self.now += seconds
        self.session.tick(self.now, round(self.now * 1e9))
        return self

    def pings(self) -> list[int]:
        """The numbers of the pings that are to be sent."""
        requests = [json.loads(text) for text in self.session.data_to_send()]
        return [r.get("reqid", r.get("req_id")) for r in requests if "ping" in (r.get("event"), r.get("method"))]

    @property
    def stamps(self) -> list[int]:
        return [event.stamp for event in self.events if isinstance(event, Answered)]

    @property
    def records(self) -> list[tuple[str | None, int | None, int]]:
        """Type, sequence and epoch of each."""
        return [(e.type, e.sequence, e.epoch) for e in self.events if isinstance(e, Data)]

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
    assert [event.type for event in script.events if isinstance(event, Data)] == ["snapshot"]
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
    assert [event.type for event in script.events if isinstance(event, Data)] == ["update"]
    assert script.wait(5.0).cause == "no_snapshot"


def test_a_snapshot_may_start_at_any_number() -> None:
    script = Script().hear(ack(1), data(120, FULL), data(121, delta()))
    assert script.live == ["openOrders"]
    assert script.cause is None


def test_frames_without_a_sequence_are_taken_as_they_come() -> None:
    script = Script().hear(ack(1), b'[[%b],"openOrders"]' % FULL, b'[[%b],"openOrders"]' % delta())
    assert script.live == ["openOrders"]
    assert [e.sequence for e in script.events if isinstance(e, Data)] == [None, None]


def test_each_request_has_a_number_of_its_own_and_no_pair() -> None:
    requests = Script("openOrders", "ownTrades").requests
    assert ['"reqid":1' in requests[0], '"reqid":2' in requests[1]] == [True, True]
    assert not any("pair" in request for request in requests)


def test_warnings_in_an_acknowledgement_are_noticed_and_not_fatal() -> None:
    session = Session(spot_v2, ("executions",), TIMING)
    session.connected(0.0)
    session.authorize("token", 0.0, 0)
    frame = (
        b'{"method":"subscribe","req_id":1,"result":{"channel":"executions","warnings":["old"]},'
        b'"success":true,"time_in":"x","time_out":"x"}'
    )
    events = session.receive(frame, 0.1)
    assert [(e.event, e.fields["text"]) for e in events if isinstance(e, Notice)] == [("kraken_warns", "old")]
    assert session.failure is None


# -- refused, unanswered, taken back


@each("text", ["ESession:Invalid session", "EGeneral:Permission denied", "whatever else"])
def test_a_refused_subscription_fails_with_krakens_words(text: str) -> None:
    frame = b'{"errorMessage":"%b","event":"subscriptionStatus","reqid":1,"status":"error"}' % text.encode()
    failure = Script().hear(frame).session.failure
    assert failure is not None
    assert (failure.cause, failure.refusal, failure.detail) == ("refused", text, f"openOrders: {text}")


@each(
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


@each(
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
    assert [e.sequence for e in script.events if isinstance(e, Data)] == [1, 2, 4]


def test_an_exact_repeat_is_left_out_and_noticed() -> None:
    script = Script().hear(ack(1), data(1, FULL), data(2, delta()), data(2, delta()), data(3, delta()))
    assert [e.sequence for e in script.events if isinstance(e, Data)] == [1, 2, 3]
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
    (records,) = [e for e in script.events if isinstance(e, Data) and e.sequence == 2]
    assert [item.data for item in records.items] == [
        b'{"status":"open","userref":0}',
        b'{"status":"closed","userref":0}',
    ]


# -- silence


def test_silence_after_a_heartbeat_kills_without_another_ping() -> None:
    script = Script().hear(ack(1), data(1), HEARTBEAT)
    script.wait(9.9)
    assert (script.cause, script.session.data_to_send()) == (None, [])
    assert script.wait(0.2).cause == "silence"


def test_pongs_do_not_stand_in_for_heartbeats() -> None:
    script = Script().hear(ack(1), data(1), HEARTBEAT)
    for number in (2, 3):
        script.hear(pong(number)).wait(6.0)
    assert script.cause == "silence"


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
    session.tick(5.0, 0)
    assert session.data_to_send() != []
    session.tick(10.0, 0)
    assert session.failure is not None
    assert session.failure.cause == "silence"


def test_time_in_which_we_did_not_listen_is_no_silence() -> None:
    script = Script()
    script.session.add_grace(60.0)
    assert script.wait(60.0).cause is None
    assert script.wait(4.9).cause is None
    assert script.wait(0.2).cause == "no_ack"


# -- pings for evidence


def test_the_subscriptions_come_with_a_ping() -> None:
    script = Script()
    assert [json.loads(request)["event"] for request in script.requests] == ["subscribe", "ping"]
    assert script.hear(ack(1), data(1), pong(2)).stamps == [0]


def test_a_quiet_account_is_asked_every_ten_seconds() -> None:
    script = Script().hear(ack(1), data(1), HEARTBEAT, pong(2))
    asked = []
    for second in range(1, 61):
        script.hear(HEARTBEAT).now = second
        script.wait(0.0)
        for number in script.pings():
            asked.append(second)
            script.hear(pong(number))
    assert asked == [10, 20, 30, 40, 50, 60]
    assert script.stamps == [second * 10**9 for second in (0, *asked)]


def test_the_deadline_is_that_of_the_next_ping() -> None:
    script = Script().hear(ack(1), data(1), pong(2))
    script.now = 9.0
    script.hear(HEARTBEAT)
    assert script.session.deadline() == 10.0


def test_a_ping_without_an_answer_is_the_only_one_for_a_minute() -> None:
    script = Script().hear(ack(1), data(1), HEARTBEAT)
    asked = []
    for second in range(1, 130):
        script.hear(HEARTBEAT).now = second
        asked += [second for _ in script.wait(0.0).pings()]
    assert asked == [60, 120]


def test_a_ping_that_was_answered_late_is_followed_by_another_at_once() -> None:
    script = Script().hear(ack(1), data(1), HEARTBEAT)
    for second in range(1, 31):
        script.hear(HEARTBEAT).now = second
        assert script.wait(0.0).pings() == []
    assert script.hear(pong(2)).stamps == [0]
    assert script.wait(0.0).pings() == [3]


def test_a_confirmation_stands_in_order_with_what_else_was_said() -> None:
    script = Script().hear(ack(1), data(1, FULL), data(2, delta()), pong(2), data(3, delta()))
    kinds = [type(event) for event in script.events if isinstance(event, Data | Answered | Live)]
    assert kinds == [Data, Live, Data, Answered, Data]


def test_where_nobody_greeted_the_first_word_of_the_engine_on_a_live_connection_is_a_change() -> None:
    """Orders end without a word until it is online, and the outage has to have a beginning."""
    for status, changes in (("post_only", ["post_only", "online"]), ("online", [])):
        session = Session(spot_v1, ("openOrders",), TIMING)
        session.connected(0.0)
        session.authorize("token", 0.0, 0)
        events: list[Event] = []
        for frame in (ack(1), data(1, FULL), GREETING.replace(b"online", status.encode()), GREETING):
            events += session.receive(frame, 1.0)
        assert [event.engine for event in events if isinstance(event, EngineChanged)] == changes


def proofs(script: Script) -> list[int]:
    return [event.stamp for event in script.events if isinstance(event, Complete)]


@each("speaks", [HEARTBEAT, data(2, delta())])
def test_an_answered_ping_proves_the_feed_complete_once_the_feed_has_spoken_behind_the_answer(speaks: bytes) -> None:
    script = Script().hear(ack(1), data(1, FULL), pong(2))
    assert script.stamps == [0]
    assert proofs(script) == []
    script.hear(speaks)
    assert proofs(script) == [0]
    script.hear(HEARTBEAT)
    assert proofs(script) == [0], "once"


def test_a_frame_behind_a_missing_one_proves_nothing() -> None:
    script = Script().hear(ack(1), data(1, FULL), pong(2), data(3, delta()))
    assert script.cause == "sequence"
    assert proofs(script) == []


def test_a_pong_of_v2_brings_krakens_times() -> None:
    session = Session(spot_v2, ("executions",), TIMING)
    session.connected(0.0)
    session.authorize("token", 0.0, 77)
    times = b'"time_in":"2025-10-09T09:05:10.5Z","time_out":"2025-10-09T09:05:10.75Z"'
    events = session.receive(b'{"method":"pong","req_id":2.0,%b}' % times, 1.0)
    assert events == (Answered(77, 1_760_000_710_500_000_000, 1_760_000_710_750_000_000),)


@each("req_id", ['"2"', "2.0", "2e0", '"2.0"'])
def test_a_pong_is_matched_by_the_value_of_its_number(req_id: str) -> None:
    assert Script().hear(pong(req_id)).stamps == [0]


@each("req_id", ["1", "3", "77", '"x"', "true", "[2]", "2.5", '""'])
def test_a_pong_with_a_number_of_none_of_our_pings_says_nothing(req_id: str) -> None:
    assert Script().hear(pong(req_id)).stamps == []


def test_a_second_pong_of_one_ping_says_nothing() -> None:
    assert Script().hear(pong(2), pong(2), pong(None)).stamps == [0]


def hurried(times: int) -> Script:
    """A live session with so many pings on their way after the first, one a second."""
    script = Script().hear(ack(1), data(1), HEARTBEAT)
    for second in range(1, times + 1):
        script.now = second - 0.5
        script.hear(HEARTBEAT)
        script.session.ping_now()
        assert (script.session.deadline() or 0) <= script.now
        script.now = second
        script.wait(0.0)
        assert len(script.pings()) == 1
    return script


def test_in_a_hurry_a_ping_leaves_at_once_although_another_is_on_its_way() -> None:
    script = hurried(1)
    assert script.wait(0.0).pings() == []
    assert script.hear(pong(3)).stamps == [10**9]


def test_a_pong_without_a_number_answers_the_oldest_ping() -> None:
    assert hurried(2).hear(pong(None), pong(None), pong(None), pong(None)).stamps == [0, 10**9, 2 * 10**9]


def test_a_late_pong_is_evidence_for_its_own_ping() -> None:
    assert hurried(2).hear(pong(4), pong(2)).stamps == [2 * 10**9, 0]


def test_of_many_pings_the_oldest_is_dropped() -> None:
    script = hurried(OUTSTANDING)
    assert script.hear(pong(2)).stamps == []
    assert script.hear(pong(3)).stamps == [10**9]


def test_a_pong_without_a_number_may_be_that_of_a_dropped_ping() -> None:
    assert hurried(OUTSTANDING).hear(pong(None)).stamps == []
    assert hurried(OUTSTANDING).hear(pong(None), pong(None)).stamps == [10**9]


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["hurry", "wait", "answer", "answer", "late", "lose", "repeat"]),
            st.integers(0, 12),
            st.booleans(),
        ),
        max_size=60,
    ),
    st.booleans(),
)
def test_a_confirmation_never_speaks_of_a_ping_later_than_the_last_that_was_answered(
    script: list[tuple[str, int, bool]], numbered: bool
) -> None:
    """Pongs get lost, come late and out of order, come twice (with their number), and come without a number."""
    mine = Script().hear(ack(1), data(1), HEARTBEAT)
    open_pings, answered, sent = [2], [-1], {2: 0}
    again: list[int] = []
    for action, which, bare in script:
        if action == "hurry":
            mine.session.ping_now()
        if action in ("hurry", "wait"):
            mine.now += 0.5 + which
            mine.session.add_grace(which + 1)  # the feed speaks, too
            before = mine.now
            for req_id in mine.wait(0.0).pings():
                sent[req_id] = round(before * 1e9)
                open_pings.append(req_id)
        elif action == "repeat" and again:
            mine.hear(pong(again[which % len(again)]))
        elif open_pings and action != "repeat":
            req_id = open_pings.pop(which % len(open_pings) if action == "late" else 0)
            if action == "lose":
                continue
            answered.append(sent[req_id])
            if bare and not numbered:
                mine.hear(pong(None))
            else:
                again.append(req_id)
                mine.hear(pong(req_id))
        assert max(mine.stamps, default=-1) <= max(answered)
        assert mine.cause is None
        if numbered:
            assert sorted(mine.stamps) == sorted(set(mine.stamps))
            assert set(mine.stamps) <= set(answered)


# -- another snapshot of a live channel


def v2(sequence: object, *rows: str, type: str = "update", channel: str = "executions") -> bytes:
    return f'{{"channel":"{channel}","type":"{type}","sequence":{sequence},"data":[{",".join(rows)}]}}'.encode()


class ScriptV2(Script):
    """The same for v2's executions, acknowledged."""

    def __init__(self) -> None:
        super().__init__()
        self.session = Session(spot_v2, ("executions",), TIMING)
        self.session.connected(0.0)
        self.session.authorize("token", 0.0, 0)
        self.session.data_to_send()
        self.events = []
        self.hear(b'{"method":"subscribe","req_id":1,"result":{"channel":"executions"},"success":true}')


OPEN = '{"order_id":"O1","exec_type":"new"}'
STATUS = '{"order_id":"O1","exec_type":"status"}'


@each("number", [1, 4, 3, 1000])
def test_another_snapshot_of_a_live_channel_is_told_and_the_sequence_goes_on_from_it(number: int) -> None:
    script = ScriptV2().hear(v2(1, OPEN, type="snapshot"), v2(2, STATUS), v2(3, STATUS))
    script.hear(v2(number, OPEN, type="snapshot"), v2(number + 1, STATUS))
    assert script.cause is None
    kinds = [type(e) for e in script.events if not isinstance(e, Notice)]
    assert kinds == [Data, Live, Data, Data, Resnapshot, Data, Live, Data]
    assert script.records[3:] == [("snapshot", number, 1), ("update", number + 1, 1)]
    assert {epoch for _, _, epoch in script.records[:3]} == {0}
    assert script.hear(v2(number + 3, STATUS)).cause == "sequence"


def test_every_further_snapshot_has_an_epoch_of_its_own() -> None:
    script = ScriptV2()
    for _ in range(3):
        script.hear(v2(1, OPEN, type="snapshot"), v2(2, STATUS))
    assert [epoch for _, _, epoch in script.records] == [0, 0, 1, 1, 2, 2]
    assert script.live == ["executions"] * 3


def test_an_exact_repeat_of_a_snapshot_is_no_other_snapshot() -> None:
    script = ScriptV2().hear(v2(1, OPEN, type="snapshot"), v2(1, OPEN, type="snapshot"))
    assert (script.live, script.notices) == (["executions"], ["frame_repeated"])


def test_a_second_snapshot_before_the_acknowledgement_is_no_second_time_live() -> None:
    session = Session(spot_v2, ("executions",), TIMING)
    session.connected(0.0)
    session.authorize("token", 0.0, 0)
    for number in (1, 2):
        (records,) = session.receive(v2(number, OPEN, type="snapshot"), 0.1)
        assert isinstance(records, Data)
        assert (records.type, records.epoch) == ("snapshot", number - 1)
    answer = b'{"method":"subscribe","req_id":1,"result":{"channel":"executions"},"success":true}'
    assert session.receive(answer, 0.2) == (Live("executions"),)


def test_complete_items_under_number_one_are_another_snapshot_in_v1() -> None:
    script = Script().hear(ack(1), data(1, FULL), data(2, delta()), data(1, FULL, FULL), data(2, delta()))
    assert script.cause is None
    assert script.live == ["openOrders", "openOrders"]
    assert script.records == [("snapshot", 1, 0), ("update", 2, 0), ("snapshot", 1, 1), ("update", 2, 1)]
    assert [event.channel for event in script.events if isinstance(event, Resnapshot)] == ["openOrders"]


@each(
    "frame", [data(1), data(1, delta()), data(1, FULL, delta()), data(1, FULL, b"null"), data(7, FULL), data(2, FULL)]
)
def test_any_other_jump_in_v1_is_a_failure(frame: bytes) -> None:
    script = Script().hear(ack(1), data(1, FULL), data(2, delta()), data(3, delta()), frame)
    assert script.cause == "sequence"
    assert script.live == ["openOrders"]


def test_a_late_snapshot_does_not_reset_the_sequence() -> None:
    script = ScriptV2().hear(v2(3, STATUS), v2(1, OPEN, type="snapshot"))
    assert script.live == ["executions"]
    assert script.hear(v2(4, STATUS)).cause is None
    script = ScriptV2().hear(v2(3, STATUS), v2(1, OPEN, type="snapshot"))
    assert script.hear(v2(2, STATUS)).cause == "sequence"


def test_an_update_before_the_snapshot_keeps_the_higher_count() -> None:
    script = ScriptV2().hear(v2(3, STATUS), v2(5, OPEN, type="snapshot"), v2(6, STATUS))
    assert script.cause is None
    assert script.hear(v2(4, STATUS)).cause == "sequence"


def test_updates_before_the_snapshot_have_to_follow_each_other() -> None:
    assert ScriptV2().hear(v2(1, STATUS), v2(2, STATUS)).cause is None
    assert ScriptV2().hear(v2(1, STATUS), v2(3, STATUS)).cause == "sequence"


def test_a_complete_item_that_follows_an_update_is_not_the_snapshot_in_v1() -> None:
    script = Script().hear(ack(1), data(2, delta()), data(3, FULL))
    assert (script.live, script.cause) == ([], None)
    assert script.hear(data(1, FULL)).live == ["openOrders"]


# -- what is not understood


def test_a_frame_of_an_unknown_type_counts_and_is_written() -> None:
    odd = v2(2, '{"exec_id":"T1"}', type="correction")
    script = ScriptV2().hear(v2(1, type="snapshot"), odd, v2(3, STATUS))
    assert script.cause is None
    assert [event.frame for event in script.events if isinstance(event, Opaque)] == [odd]
    assert "frame_unknown" in script.notices


def test_an_unknown_frame_that_jumps_fails_and_is_written() -> None:
    odd = v2(4, type="correction")
    script = ScriptV2().hear(v2(1, type="snapshot"), odd)
    failure = script.session.failure
    assert failure is not None
    assert (failure.cause, failure.detail) == ("sequence", "executions: 4 after 1")
    assert [event.frame for event in script.events if isinstance(event, Opaque)] == [odd]


def test_an_unknown_frame_that_is_repeated_is_left_out() -> None:
    odd = v2(2, type="correction")
    script = ScriptV2().hear(v2(1, type="snapshot"), odd, odd, v2(3, STATUS))
    assert script.cause is None
    assert [event.frame for event in script.events if isinstance(event, Opaque)] == [odd]


def test_an_unknown_frame_opens_no_channel() -> None:
    script = ScriptV2().hear(v2(1, type="correction"))
    assert script.live == []
    assert script.hear(v2(2, type="snapshot"), v2(3, STATUS)).live == ["executions"]
    assert script.cause is None
    script = Script().hear(ack(1), b'[{},"openOrders",{"sequence":1}]', data(2, FULL))
    assert (script.live, script.cause) == ([], None)


def test_an_unknown_frame_of_a_channel_that_nobody_asked_for_counts_nowhere() -> None:
    odd = v2(7, type="correction", channel="balances")
    script = ScriptV2().hear(v2(1, type="snapshot"), odd, v2(2, STATUS))
    assert script.cause is None
    assert [event.frame for event in script.events if isinstance(event, Opaque)] == [odd]


def test_the_good_items_of_an_odd_frame_are_written_and_then_the_frame() -> None:
    odd = v2(2, STATUS, "null", STATUS)
    script = ScriptV2().hear(v2(1, type="snapshot"), odd, v2(3, STATUS))
    assert script.cause is None
    (records, opaque) = [e for e in script.events[2:-1] if not isinstance(e, Notice)]
    assert isinstance(records, Data)
    assert len(records.items) == 2
    assert opaque == Opaque(odd, json=True)


def test_an_odd_snapshot_opens_its_channel() -> None:
    script = ScriptV2().hear(v2(1, OPEN, "7", type="snapshot"))
    assert [type(event) for event in script.events] == [Data, Opaque, Notice, Live]


def test_an_odd_frame_that_jumps_is_written_too() -> None:
    script = ScriptV2().hear(v2(1, type="snapshot"), v2(9, STATUS, "7"))
    assert script.cause == "sequence"
    assert [type(event) for event in script.events[2:]] == [Data, Opaque, Notice]


_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(st.characters(), max_size=8)
    | st.sampled_from(["\ud800", "", "closed", "openOrders", "ownTrades", "executions", "snapshot", "trade"]),
    lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(st.sampled_from(["status", "order_id", "sequence", "descr", ""]) | st.text(max_size=3), inner),
    max_leaves=8,
)  # fmt: skip
_finite = _json.filter(lambda value: "Infinity" not in json.dumps(value))


def _places(message: Any) -> list[tuple[Any, Any]]:
    """Every place inside a value: its container, and its index or key there."""
    found: list[tuple[Any, Any]] = []
    inside = message.items() if isinstance(message, dict) else enumerate(message) if isinstance(message, list) else ()
    for key, value in inside:
        found += [(message, key), *_places(value)]
    return found


@settings(max_examples=examples(300))
@given(value=_finite, place=st.integers(0, 50), more=st.booleans(), ascii_only=st.booleans())
@pytest.mark.parametrize("dialect", ["v1", "v2"])
def test_any_json_in_place_of_any_part_of_a_data_frame_costs_nothing_but_that_part(
    dialect: str, value: Any, place: int, more: bool, ascii_only: bool
) -> None:
    """But for the parts that say which channel's frame it is, and which one."""
    if dialect == "v1":
        script = Script().hear(ack(1), data(1, FULL))
        message: Any = [[{"O1": {"status": "open", "userref": 0}}, {"O2": {"vol_exec": "1.0"}}], "openOrders"]
        places = _places(message)[:-1]
        following = data(3, delta())
    else:
        script = ScriptV2().hear(v2(1, OPEN, type="snapshot"))
        rows = [{"order_id": "O1", "exec_type": "trade", "exec_id": "T1"}, {"order_id": "O2", "exec_type": "new"}]
        message = {"channel": "executions", "type": "update", "data": rows}
        places = [(container, key) for container, key in _places(message) if key != "channel"]
        following = v2(3, STATUS)
    container, key = places[place % len(places)]
    container[key] = value
    if dialect == "v1":
        message += [{"sequence": 2}, value] if more else [{"sequence": 2}]
    else:
        message["sequence"] = 2
        if more:
            message["more"] = value
    try:
        frame = json.dumps(message, ensure_ascii=ascii_only).encode()
    except UnicodeEncodeError:  # a lone surrogate has no bytes, only an escape
        frame = json.dumps(message).encode()
    before = len(script.events)
    script.hear(frame)
    assert script.cause is None
    written = script.events[before:]
    assert any(isinstance(event, Data | Opaque) for event in written)
    kind = message.get("type") if dialect == "v2" else "update"
    if kind == "update" and not any(isinstance(event, Opaque) for event in written):
        (records,) = [event for event in written if isinstance(event, Data)]
        expected = (message[0] if dialect == "v1" else message["data"]) or []
        assert len(records.items) >= len(expected)
    script.hear(following)
    assert script.cause is None
    assert script.records[-1][:2] == ("update", 3)
    assert script.session.live


@each("req_id", ['"1"', "1.0", "1e0", '"1.0"'])
def test_an_acknowledgement_is_matched_by_the_value_of_its_number(req_id: str) -> None:
    frame = ack(1).replace(b'"reqid":1', b'"reqid":' + req_id.encode())
    assert Script().hear(frame, data(1, FULL)).live == ["openOrders"]
    refusal = b'{"errorMessage":"Exceeded msg rate","event":"error","reqid":%b}' % req_id.encode()
    assert Script().hear(refusal).cause == "refused"


# -- greeting, engine, other unknown frames


def test_the_greeting_is_not_insisted_on_and_not_a_change() -> None:
    session = Session(spot_v1, ("openOrders",), TIMING)
    session.connected(0.0)
    session.authorize("token", 0.0, 0)
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


@each("state", ["post_only", "maintenance", "Cancel_Only"])
def test_the_first_online_after_another_greeting_is_a_change(state: str) -> None:
    session = Session(spot_v1, ("openOrders",), TIMING)
    session.connected(0.0)
    said = b'{"event":"systemStatus","status":"%b"}'
    assert not any(isinstance(event, EngineChanged) for event in session.receive(said % state.encode(), 0.1))
    assert session.engine == state
    assert session.receive(said % b"Online", 0.2) == (EngineChanged("online"),)
    assert session.engine == "online"


def test_states_that_differ_in_letter_case_are_one_state() -> None:
    script = Script()
    for state in (b"ONLINE", b"Maintenance", b"maintenance"):
        script.hear(b'{"event":"systemStatus","status":"%b"}' % state)
    assert [event.engine for event in script.events if isinstance(event, EngineChanged)] == ["Maintenance"]


@each(
    ("frame", "is_json"),
    [
        (b'{"event":"addOrderStatus","status":"ok"}', True),
        (b'{"event":"systemStatus"}', True),
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
        line.run(T0, T0 + 25)
        assert line.session.failure is None
        assert len(line.items()) > 800
        assert line.items() == line.published()


# A second snapshot is a loss by itself, and an exact repeat of the last frame is dropped: they have tests of their own.
_KINDS = sorted(set(PARAMETERS) - {"upgrade_refused", "many_orders", "big_frame", "resnapshot"})


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


@settings(max_examples=examples(400))
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
        # Frames that are not understood are counted as well; they are not among the records.
        strange = sum(fault.kind == "unknown_frame" and fault.variant == "type" for fault in script)
        assert numbers == sorted(set(numbers))
        assert not numbers or numbers[-1] - numbers[0] - (len(numbers) - 1) <= strange
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
    session.authorize("token", 10.0, 0)
    assert session.deadline() == 11.0
