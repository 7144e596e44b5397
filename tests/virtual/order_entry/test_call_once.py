"""The moments of a call that no exchange can be made to meet: just before a request leaves, and while it does."""

from __future__ import annotations

import asyncio
import io
import json
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import pytest
from websockets.exceptions import ConnectionClosedError
from websockets.frames import Close

from kraken_feed.config.schema import Config, ConnectionConfig
from kraken_feed.errors import (
    CallRefused,
    CredentialsRefused,
    FeedError,
    OutcomeUnknown,
    OutputFailed,
    Transient,
    UsageError,
)
from kraken_feed.order_entry import call
from kraken_feed.order_entry.call import GRACE_S, Call
from kraken_feed.order_entry.request import build
from kraken_feed.protocol.signing import Credentials
from kraken_feed.telemetry.loggers import diagnostics_logger
from kraken_feed.text import Secrets
from kraken_feed.transport.connection import Socket

from ...support import virtual_time
from ...support.cases import each

NOW = 1_760_000_000.0
CLOSED = ConnectionClosedError(Close(1001, "restarting"), None)
ADD = ("add_order", "order_type=market", "side=buy", "symbol=BTC/USD", "order_qty=1", "req_id=7")
CANCEL = ("cancelOrder", "txid=OA", "txid=OB", "reqid=7")
SAID = io.StringIO()  # on stderr
V1_OK = b'{"event":"cancelOrderStatus","reqid":7,"status":"ok"}'


class Wire:
    """A socket that says what the test wants, and notes what it is told. After the last there is silence."""

    def __init__(self, *said: Sequence[bytes] | Exception, takes: bool = True, closes: bool = True) -> None:
        self.sent: list[str] = []
        self.arriving: tuple[float, float] | None = None
        self.delay = 0.0
        self.aborted = False
        self.transport: Any = self
        self._said = list(said)
        self._takes, self._closes = takes, closes

    async def burst(self) -> Sequence[bytes]:
        # what answers a request comes after it
        if not self._said or (not self.sent and not isinstance(self._said[0], Exception)):
            await asyncio.Event().wait()
        said = self._said.pop(0)
        if isinstance(said, Exception):
            raise said
        return said

    async def send(self, message: str) -> None:
        self.sent.append(message)
        if not self._takes:
            await asyncio.Event().wait()

    async def close(self, code: int = 1000, reason: str = "") -> None:
        if not self._closes:
            await asyncio.Event().wait()

    def abort(self) -> None:
        self.aborted = True


class Play:
    """One call on a wire, in virtual time: what came of it, and when."""

    def __init__(
        self, wire: Wire, *words: str, clock: float = NOW, at_token: str = "", later: float = 0.0,
        broken: bool = False, stalled: bool = False,
    ) -> None:  # fmt: skip
        self.wire, self.printed = wire, list[str]()
        self._broken, self._stalled = broken, stalled
        self.error: FeedError | None = None
        self.reason = ""
        self._words, self._clock, self._at_token, self._later = words, clock, at_token, later
        self.took = virtual_time.run(self._run())

    def _say(self, line: str) -> None:
        if self._broken:
            raise RuntimeError("nobody foresaw this")
        self.printed.append(line)

    async def _run(self) -> float:
        asked: Call

        async def dial(url: str, config: ConnectionConfig) -> Socket:
            return self.wire

        async def token() -> str:
            if self._at_token:
                asked.stop(self._at_token)
            return "TOKEN"

        asked = Call(
            build(self._words, None, 7, NOW, live=True, unknown=False), Config(),
            Credentials("K" * 20, "c2VjcmV0", source="a test"), token=token, say=self._say,
            secrets=Secrets(), timeout=10.0, look="look", dial=dial, unix=lambda: self._clock,
            log=diagnostics_logger(Secrets(), level="error", fmt="json", colors=False, stream=SAID),
        )  # fmt: skip
        loop = asyncio.get_running_loop()
        if self._stalled:  # whoever reads stdout: the thread that writes there does not come back
            loop.run_in_executor = lambda *call: loop.create_future()  # type: ignore[method-assign]  # a test's loop
        if self._later:
            loop.call_later(self._later, asked.stop, "SIGTERM")
        try:
            self.reason = await asked.run()
        except FeedError as error:
            self.error = error
        return loop.time()


def test_a_connection_that_is_closed_before_the_request_was_sent_nothing() -> None:
    play = Play(Wire(CLOSED), *ADD)
    assert isinstance(play.error, Transient)
    assert play.error.remedy == "Nothing was sent."
    assert play.wire.sent == []


def test_a_deadline_that_comes_near_while_the_token_is_fetched_was_sent_nothing() -> None:
    deadline = f"deadline={datetime.fromtimestamp(NOW + 5, UTC).isoformat()}"
    assert Play(Wire([b"{}"], CLOSED), *ADD, deadline, clock=NOW + 4).wire.sent
    play = Play(Wire(), *ADD, deadline, clock=NOW + 4.6)
    assert isinstance(play.error, UsageError)
    assert play.error.remedy.startswith("Nothing was sent.")
    assert play.wire.sent == []


def test_a_signal_in_the_last_moment_prevents_the_request() -> None:
    play = Play(Wire(), *ADD, at_token="SIGTERM")
    assert (play.reason, play.error, play.wire.sent) == ("SIGTERM", None, [])


@each(("wire", "says"), [
    (Wire(), "no answer came within 10 s"),
    (Wire(takes=False), "no answer came within 10 s"),
    (Wire(CLOSED, takes=False), "Nothing was sent."),
    (Wire([b'{"event":"heartbeat"}'], CLOSED), "before the connection was over: 1001 restarting"),
])  # fmt: skip
def test_whatever_happens_once_it_is_handed_over_is_unknown(wire: Wire, says: str) -> None:
    play = Play(wire, *ADD)
    assert play.error is not None
    assert says in str(play.error)
    assert isinstance(play.error, OutcomeUnknown) is bool(wire.sent)
    assert len(wire.sent) <= 1


def test_a_peer_that_does_not_agree_to_the_end_does_not_hold_up_who_has_asked_for_it() -> None:
    play = Play(Wire(closes=False), *ADD, later=3.0)
    assert isinstance(play.error, OutcomeUnknown)
    assert play.wire.aborted
    assert play.took == pytest.approx(3.0)


ADDED = b'{"method":"add_order","req_id":7,"success":true,"result":{"order_id":"OA"}}'


@each(("later", "took"), [(0.0, 10.0), (3.0, 3.0)])
def test_a_reader_that_does_not_read_holds_up_neither_the_timeout_nor_a_signal(later: float, took: float) -> None:
    play = Play(Wire([ADDED]), *ADD, stalled=True, later=later)
    assert isinstance(play.error, OutputFailed)
    assert f"Kraken did the request: {ADDED.decode()}" in str(play.error)
    assert play.took == pytest.approx(took + GRACE_S)


def test_what_comes_is_heard_while_nobody_reads_what_came() -> None:
    play = Play(Wire([V1_OK], [V1_OK]), *CANCEL, stalled=True)
    assert isinstance(play.error, OutputFailed)
    partly = Play(Wire([V1_OK], CLOSED), *CANCEL, stalled=True, later=60.0)
    assert isinstance(partly.error, OutcomeUnknown)
    assert "only 1 of 2 answers came before the connection was over" in str(partly.error)


def test_a_batch_that_does_not_tell_of_every_order_is_unknown() -> None:
    row = '{"order_type":"market","side":"buy","order_qty":1}'
    answer = b'{"method":"batch_add","req_id":7,"success":true,"result":[{"order_id":"OA"}]}'
    play = Play(Wire([answer]), "batch_add", "symbol=BTC/USD", f"orders:=[{row},{row}]", "req_id=7")
    assert isinstance(play.error, OutcomeUnknown)
    assert "Kraken's answer reports only 1 of 2 orders" in str(play.error)


def refusal(text: str | list[str], order: str = "") -> bytes:
    return json.dumps({"method": "cancel_order", "req_id": 7, "success": False, "error": text, "at": order}).encode()


V2_CANCEL = ("cancel_order", "order_id=OA", "order_id=OB", "req_id=7")
V2_OK = b'{"method":"cancel_order","req_id":7,"success":true,"result":{"order_id":"OA"}}'


@each("text", [
    "EGeneral:Internal error", "EGeneral: Internal error", "egeneral:internal error", "EDatabase :x",
    ["EOrder:Unknown order", "EGeneral:Internal error"],
])  # fmt: skip
def test_a_fault_at_kraken_is_unknown_however_it_is_written(text: str | list[str]) -> None:
    assert isinstance(Play(Wire([refusal(text)]), *V2_CANCEL[:2], "req_id=7").error, OutcomeUnknown)


LOOK = "It is not repeated. Check the result before you send it again: look"


@each(("text", "remedy"), [
    ("EOrder:Unknown order", "The request was not done. It is not repeated."),
    ("EOrder:Something new", "The request was not done. It is not repeated."),
    ("EOrder:Reduce only:No position exists", "The request was not done. It is not repeated."),
    ("EOrder: Reduce only: Position is closed", LOOK),
    ("EService:Busy", LOOK),
    ("eservice : busy", LOOK),
    ("Timeout waiting for engine", LOOK),
    ("EGeneral:Something new", LOOK),
    ([], LOOK),
])  # fmt: skip
def test_that_it_was_not_done_is_said_of_texts_alone_that_are_known_to_mean_it(
    text: str | list[str], remedy: str
) -> None:
    play = Play(Wire([refusal(text)]), *V2_CANCEL[:2], "req_id=7")
    assert isinstance(play.error, CallRefused)
    assert play.error.remedy == remedy
    partly = Play(Wire([V2_OK, refusal(text)]), *V2_CANCEL)
    assert isinstance(partly.error, CallRefused)
    rest = "A part was done: stdout has every answer."
    assert partly.error.remedy == (f"{rest} {LOOK}" if remedy == LOOK else rest)


@each(
    ("text", "meaning"),
    [
        ("EOrder:Reduce only:Non-PC", "certified for margin trading as a Permitted Client"),
        ("EOrder:Reduce only:No position exists", "there is no open position"),
        ("EOrder: Reduce only: Position is closed", "a part can be filled, the rest is canceled"),
        ("EOrder:Reduce only:Something new", "does not accept the order as reduce-only"),
        ("EOrder:Scheduled orders limit exceeded", "maximum number of orders with a start time"),
    ],
)
def test_reduce_only_and_scheduled_orders_are_refused_by_name(text: str, meaning: str) -> None:
    error = Play(Wire([refusal(text)]), *V2_CANCEL[:2], "req_id=7").error
    assert isinstance(error, CallRefused)
    assert text in error.what
    assert meaning in error.why


EDIT = ("editOrder", "orderid=OA", "pair=XBT/USD", "volume=1", "validate=true")


def test_an_unanswered_check_of_an_edit_counts_as_sent() -> None:
    """No recording shows that Kraken's check of an edit leaves the order unchanged."""
    edit, add = Play(Wire(), *EDIT), Play(Wire(), *ADD, "validate=true")
    assert isinstance(edit.error, OutcomeUnknown)
    assert isinstance(add.error, Transient)
    assert "the account did not change" in add.error.remedy


def test_an_edit_that_was_carried_out_instead_of_checked_is_an_unknown_outcome() -> None:
    done = b'{"event":"editOrderStatus","originaltxid":"OA","reqid":7,"status":"ok","txid":"OB"}'
    error = Play(Wire([done]), *EDIT).error
    assert isinstance(error, OutcomeUnknown)
    assert "only a check was requested, but Kraken's answer names an order, OB" in error.what
    checked = b'{"event":"editOrderStatus","originaltxid":"OA","reqid":7,"status":"ok"}'
    assert Play(Wire([checked]), *EDIT).error is None


def test_a_refusal_that_looked_like_one_of_the_whole_does_not_speak_for_orders_that_were_not_answered() -> None:
    busy, words = refusal("EService:Busy"), (*V2_CANCEL, "order_id=OC")
    assert isinstance(Play(Wire([busy]), *words).error, CallRefused)
    play = Play(Wire([busy], [V2_OK]), *words)
    assert isinstance(play.error, OutcomeUnknown)
    assert "only 2 of 3 answers came within 10 s" in str(play.error)


def test_a_key_that_is_refused_for_a_part_is_told_that_the_rest_was_done() -> None:
    denied = refusal("EGeneral:Permission denied")
    play, partly = Play(Wire([denied]), *V2_CANCEL), Play(Wire([V2_OK, denied]), *V2_CANCEL)
    assert isinstance(play.error, CredentialsRefused)
    assert isinstance(partly.error, CredentialsRefused)
    assert "A part was done" not in play.error.remedy
    assert partly.error.remedy == f"{play.error.remedy} A part was done: stdout has every answer."


def test_a_refusal_of_one_order_does_not_end_the_waiting_for_the_other_however_it_is_written() -> None:
    play = Play(Wire([refusal("eorder: Unknown order")]), *V2_CANCEL)
    assert isinstance(play.error, OutcomeUnknown)
    assert "only 1 of 2 answers" in str(play.error)


@pytest.mark.parametrize(("place", "name"), [(Wire, "close"), (call, "classify")], ids=["hang up", "judge"])
def test_a_defect_after_the_answer_tells_of_the_outcome_all_the_same(
    place: object, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def defect(*anything: object) -> None:
        raise RuntimeError("nobody foresaw this")

    monkeypatch.setattr(place, name, defect)
    said = len(SAID.getvalue())
    with pytest.raises(RuntimeError):
        Play(Wire([refusal("EOrder:Unknown order")]), *V2_CANCEL[:2], "req_id=7")
    (entry,) = map(json.loads, SAID.getvalue()[said:].splitlines())
    assert (entry["event"], entry["request"]) == ("outcome_unknown", "req_id 7, order_id OA")


def test_a_defect_after_the_request_tells_of_the_outcome_all_the_same() -> None:
    said = len(SAID.getvalue())
    with pytest.raises(RuntimeError):
        Play(Wire([V1_OK]), *CANCEL, broken=True)
    (entry,) = map(json.loads, SAID.getvalue()[said:].splitlines())
    assert (entry["event"], entry["request"]) == ("outcome_unknown", "reqid 7, txid OA OB")


def test_answers_of_v1_are_waited_upon_a_little_longer_than_they_are_many() -> None:
    play = Play(Wire([V1_OK], [V1_OK]), *CANCEL)
    assert (play.error, play.printed) == (None, [V1_OK.decode()] * 2)
    assert play.took == pytest.approx(GRACE_S)
    surplus = Play(Wire([V1_OK], [V1_OK], [V1_OK]), *CANCEL)
    assert isinstance(surplus.error, OutcomeUnknown)
