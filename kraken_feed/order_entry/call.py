"""Send one request of order entry, once: the only module that can change an account. A tail imports nothing from here.

First connect, then fetch a token, then send the frame. After that, no error says "try again": the outcome is Kraken's
answer, or unknown.
"""

from __future__ import annotations

import asyncio
import re
import sys
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, TypeVar

from structlog.typing import FilteringBoundLogger

from ..config.schema import Config
from ..errors import CallRefused, CredentialsRefused, FeedError, OutcomeUnknown, OutputFailed, ReaderGone, Transient
from ..protocol.refusals import UNKNOWN, classify, normal
from ..protocol.signing import Credentials
from ..protocol.wire import one_line
from ..telemetry.stderr import Stderr, json_line
from ..text import MASK, Secrets
from ..transport import connection
from ..transport.connection import Dial, Socket
from ..transport.rest import refused_credentials
from .request import Request
from .responses import Answers

GRACE_S = 0.5  # for further answers of a request with one answer per order; they come together
FAULTS = ("egeneral:internal error", "edatabase:")  # Kraken's own failures: it may have done the request
PARTLY = "eorder:reduce only:position is closed"  # comes with an order that was filled in part, its rest canceled
NOTHING = "Nothing was sent."
TIMER = "\nKraken cannot show the timer. The same request sets it again."

T = TypeVar("T")


class _Stopped(Exception):
    """A signal stopped the call."""


@dataclass(eq=False, repr=False)
class Call:
    """One request, sent once. A signal prevents the sending; after the sending, it ends the wait for the answers."""

    request: Request
    config: Config  # the endpoints and the deadlines
    credentials: Credentials  # for messages
    token: Callable[[], Awaitable[str]]  # fetches a token
    say: Callable[[str], None]  # receives Kraken's answers, one line each; called in a thread, and may block
    secrets: Secrets  # the token is added to it
    timeout: float  # seconds to wait for the answers
    log: FilteringBoundLogger
    look: str  # the command that shows whether the request was done
    dial: Dial = connection.dial
    unix: Callable[[], float] = time.time  # the wall clock, for deadlines

    reopens: ClassVar[bool] = False

    def __post_init__(self) -> None:
        self._mask = self.secrets.mask
        self._answers = Answers(self.request)
        self._value = ""  # the token's value
        self._echo = re.compile("(?!)")  # matches the token in any JSON spelling
        self._sent = False
        self._signal = ""
        self._stop = asyncio.Event()
        self._unwritten: OutputFailed | ReaderGone | None = None
        self._written: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._written.set_result(None)

    async def run(self) -> str:
        """Send the request, and print Kraken's answers. Return the signal that prevented the sending, or "".

        Raises:
            OutcomeUnknown: it was sent, and its outcome is unknown.
            CallRefused, CredentialsRefused: Kraken refused it.
            OutputFailed: Kraken answered, and the answer could not be written.
            FeedError: any other error; nothing was sent that could change the account.
        """
        reported = False  # whether the caller learns the outcome
        try:
            lacking = await self._exchange()
            if lacking is not None:
                self._judge(lacking)
            reported = True
        except FeedError:
            reported = True
            raise
        finally:
            if self._sent and not reported:  # a bug in kraken-feed: the exception says nothing about the outcome
                self.log.error("outcome_unknown", request=self.request.names, look=self.look)
        return self._signal if lacking is None else ""

    # -- called by signals

    def stop(self, reason: str) -> None:
        self._signal = self._signal or reason
        self._stop.set()

    def reopen(self) -> None:
        """Do nothing: there is no file to reopen."""

    def tell(self) -> None:
        known = {"sent": self._sent, "answers": len(self._answers.known), "wanted": self._answers.wanted}
        state = {"event": "state", "request": self.request.names, **known}
        Stderr(sys.stderr).info(json_line(sys.stderr, state))

    # -- before the request is sent

    async def _exchange(self) -> str | None:
        """Connect, send and disconnect. Return how the wait for answers ended: an empty string if all came, None if a
        signal prevented the sending."""
        socket: Socket | None = None
        try:
            url = getattr(self.config.endpoints, f"ws_{self.request.method.dialect}")
            socket = await self._before(connection.open_socket(self.dial, url, self.config.connection, self._mask))
            self._value = await self._before(self.token())
            self.secrets.add(self._value)
            self._echo = re.compile("".join(map(_written, self._value)))
            await self._listen(socket)
            return await self._ask(socket)
        except _Stopped:
            return None
        except FeedError as error:
            error.remedy = f"{NOTHING} {error.remedy}".strip()
            raise
        finally:
            if socket is not None:  # the outcome is reported after this, so wait only briefly after a signal
                await connection.hang_up(socket, 0.0 if self._stop.is_set() else connection.CLOSE_S)

    async def _before(self, work: Awaitable[T]) -> T:
        """Run ``work``, unless a signal comes first."""
        task, stopped = asyncio.ensure_future(work), asyncio.ensure_future(self._stop.wait())
        try:
            await asyncio.wait({task, stopped}, return_when=asyncio.FIRST_COMPLETED)
            if task.done():
                return task.result()
            raise _Stopped
        finally:
            for each in (task, stopped):
                each.cancel()
            await asyncio.gather(task, stopped, return_exceptions=True)

    async def _listen(self, socket: Socket) -> None:
        """Read the frames that have arrived, usually the greeting. This raises if the connection is closed already."""
        try:
            async with asyncio.timeout(0):
                while True:
                    await connection.burst(socket, self._mask)
        except TimeoutError:
            return

    # -- after the request was sent

    async def _ask(self, socket: Socket) -> str:
        """Send the request, and read the answers; return how the wait ended if answers are missing."""
        frame = self.request.frame(self._value)
        self.request.check_deadline(self.unix())
        if self._stop.is_set():
            raise _Stopped
        self.log.debug("call_sent", method=self.request.method.name, names=self.request.names)
        self._sent = True  # from here on it may have arrived, even if an exception is raised
        deadline = asyncio.get_running_loop().time() + self.timeout
        try:
            return await self._hear(socket, frame, deadline)
        finally:
            await self._write_out(deadline)

    async def _hear(self, socket: Socket, frame: str, deadline: float) -> str:
        try:
            async with asyncio.timeout_at(deadline):
                await self._before(connection.send(socket, frame, self._mask))
            complete = False
            while not complete:  # repeat if the first answer looked like one to the whole request, and was not
                async with asyncio.timeout_at(deadline):
                    while not self._answers.complete:
                        self._take(await self._before(connection.burst(socket, self._mask)))
                if self._answers.open_ended:
                    await self._read_further(socket)
                complete = self._answers.complete
        except TimeoutError:
            return f"within {self.timeout:g} s"
        except Transient as error:
            return f"before the connection was over: {error.why}"
        except _Stopped:
            return f"before {self._signal} came"
        return ""

    async def _read_further(self, socket: Socket) -> None:
        """Read further answers, without an error if none come."""
        try:
            async with asyncio.timeout(GRACE_S):
                while True:
                    self._take(await self._before(connection.burst(socket, self._mask)))
        except (TimeoutError, Transient, _Stopped):
            return

    def _take(self, frames: Sequence[bytes]) -> None:
        """Print every frame that is an answer. Continue even if printing fails, because the answers have to be read."""
        for frame in frames:
            if self._answers.take(frame) is not None:
                self._written = asyncio.ensure_future(self._write(self._line(frame), after=self._written))

    async def _write(self, line: str, after: asyncio.Future[None]) -> None:
        await after
        if self._unwritten is None:
            try:
                await asyncio.get_running_loop().run_in_executor(None, self.say, line)
            except (OutputFailed, ReaderGone) as error:
                self._unwritten = error

    async def _write_out(self, deadline: float) -> None:
        """Wait for the printing to end, until shortly after the deadline or a signal."""
        stopped: asyncio.Future[Any] = asyncio.ensure_future(self._stop.wait())
        left = max(0.0, deadline - asyncio.get_running_loop().time())
        await asyncio.wait({self._written, stopped}, timeout=left, return_when=asyncio.FIRST_COMPLETED)
        stopped.cancel()
        await asyncio.wait({self._written}, timeout=GRACE_S)
        if self._written.done():
            self._written.result()  # raises unexpected exceptions
        else:
            self._written.cancel()
            self._unwritten = OutputFailed("Cannot write to stdout.", why="Its reader does not read.")

    def _line(self, frame: bytes) -> str:
        text = self.secrets.mask_long(one_line(frame).decode("utf-8", "surrogateescape"))
        return self._echo.sub(MASK, text) if "\\u" in text else text

    # -- the outcome

    def _judge(self, lacking: str) -> None:
        """Raise the error that follows from the answers, unless they prove success."""
        if self._answers.repeated:
            self.log.warning("answer_repeated", times=self._answers.repeated)
        known, request = self._answers.known, self.request
        texts = tuple(dict.fromkeys(text for answer in known for text in answer.errors))
        placed = self._placed()
        reason = self._lacking(lacking) if lacking else self._doubt(texts)
        if placed:
            reason = f"only a check was requested, but Kraken's answer names an order, {placed}"
        if reason and not (request.live or placed or request.method.unproven):
            raise Transient(
                f"{request.method.name} was not checked: {reason}.",
                cause="no_ack",
                remedy="It was only a check, so the account did not change. Try again.",
            )
        if reason:
            raise OutcomeUnknown(
                f"Unknown whether {request.method.name} was done: {reason}.",
                why=f"The request was sent once, with {request.names}. It is not repeated.",
                remedy=f"Check the result before you send the request again: {self.look}"
                + TIMER * ("timeout" in request.params),
            )
        if self._unwritten is not None:
            raise self._not_written(self._unwritten, texts)
        if texts:
            raise self._refused(texts)

    def _lacking(self, lacking: str) -> str:
        came, wanted = sum(answer.covers for answer in self._answers.known), self._answers.wanted
        unreadable = ", and a frame that cannot be read" if self._answers.unreadable else ""
        what = "no answer" if not came else f"only {came} of {wanted} answers"
        return f"{what} came {lacking}{unreadable}"

    def _doubt(self, texts: Sequence[str]) -> str:
        """Return why the answers do not prove an outcome; empty if they do."""
        if any(answer.success is None for answer in self._answers.known):
            return "Kraken's answer is neither a success nor an error"
        if self._answers.surplus:
            return "more answers came than orders were named"
        if self._answers.uneven:
            return f"Kraken's answer reports only {self._answers.uneven}"
        return next((f"Kraken answered {self._mask(text)}" for text in texts if normal(text).startswith(FAULTS)), "")

    def _placed(self) -> str:
        """Return the order that a mere check should not have placed; empty if there is none."""
        if self.request.live:
            return ""
        named_before = set(map(str, self.request.params.values()))
        named = (order for answer in self._answers.known for order in answer.orders)
        return next((order for order in named if order not in named_before), "")

    def _refused(self, texts: Sequence[str]) -> FeedError:
        name, refusals = self.request.method.name, {text: classify(text, self.unix()) for text in texts}
        partly = "A part was done: stdout has every answer." if self._partly else ""
        for text, refusal in refusals.items():
            if refusal.error is CredentialsRefused:
                error = refused_credentials(name, self._mask(text), refusal, self.credentials)
                error.remedy = f"{error.remedy} {partly}".strip()
                return error
        meanings = dict.fromkeys(refusal.meaning for refusal in refusals.values())
        remedy = partly or "The request was not done. It is not repeated."
        if self.request.live and any(refusal in UNKNOWN or _unclear(text) for text, refusal in refusals.items()):
            remedy = f"{partly} It is not repeated. Check the result before you send it again: {self.look}".strip()
        return CallRefused(
            f"Kraken refused {name}: {'; '.join(map(self._mask, texts))}",
            why=f"That means: {'; '.join(meanings)}.",
            remedy=remedy,
        )

    @property
    def _partly(self) -> bool:
        """Whether a part of a refused request was carried out."""
        return any(answer.success or answer.orders for answer in self._answers.known)

    def _not_written(self, error: FeedError, texts: Sequence[str]) -> OutputFailed:
        said = "; ".join(map(self._mask, texts)) or "; ".join(
            self._line(answer.frame) for answer in self._answers.known
        )
        outcome = f"Kraken refused the request: {said}" if texts else f"Kraken did the request: {said}"
        return OutputFailed(
            "Kraken's answer cannot be written to stdout.",
            why=f"{error.why or error.what}\n{outcome}",
            remedy="Do not send the request again: Kraken has answered it.",
        )


def _written(character: str) -> str:
    """Return a pattern for all forms of the character in a JSON string."""
    return rf"(?:\\?{re.escape(character)}|\\u(?i:{ord(character):04x}))"


def _unclear(text: str) -> bool:
    """Return whether Kraken may have done a part of the request before this refusal."""
    return normal(text).startswith(("eservice:", PARTLY))
