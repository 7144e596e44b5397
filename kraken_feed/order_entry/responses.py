"""Read the answers to one request of order entry: which frames are answers, what they say, whether all have come.

The connection has only our request, so an answer without a number belongs to it.

Source: as for :mod:`kraken_feed.order_entry.methods`; frames of the field are in tests/frames.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import msgspec

from ..protocol.refusals import normal
from .request import Request

V1_OTHERS = ("systemStatus", "subscriptionStatus")  # they end like answers, but are not answers
NO_REASON = "an error without a text"


class Answer(NamedTuple):
    """One answer, with its bytes as ``frame``.

    ``errors`` are Kraken's texts. ``success`` is None if the frame is neither a success nor an error. ``order`` is the
    order that it is about; ``orders`` are those that it names as existing. ``covers`` is the number of orders that it
    answers, ``done`` the number of a batch's orders that it reports (None: not given).
    """

    frame: bytes
    success: bool | None
    errors: tuple[str, ...] = ()
    order: str = ""
    orders: tuple[str, ...] = ()
    covers: int = 1
    done: int | None = None


class Answers:
    """Collects the answers to one request.

    A request to cancel several orders gets one answer per order. In v2 each answer names its order, and a repeated
    answer counts once. In v1 the answers for two orders have the same bytes, so each answer counts. One too many means
    that they do not prove anything (``surplus``).
    """

    def __init__(self, request: Request) -> None:
        self._request = request
        self.wanted = max(1, len(request.orders))
        self.known: list[Answer] = []
        self.repeated = 0
        self.unreadable = 0

    def take(self, frame: bytes) -> Answer | None:
        """Return the answer in the frame; None if it is something else, or a repeated answer."""
        try:
            message = msgspec.json.decode(frame)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            self.unreadable += 1
            return None
        if not isinstance(message, dict) or not self._ours(message):
            return None
        answer = _read_v1(frame, message) if self._request.method.dialect == "v1" else _read_v2(frame, message)
        if any(self._same(answer, other) for other in self.known):
            self.repeated += 1
            return None
        self.known.append(answer)
        return answer

    @property
    def complete(self) -> bool:
        """Whether every named order is answered, or the request is refused as a whole."""
        return self._refused or sum(answer.covers for answer in self.known) >= self.wanted

    @property
    def open_ended(self) -> bool:
        """Whether more answers may come although all seem to be there. A userref can name several orders, a refusal may
        be about only one of them, and a surplus answer of v1 must be noticed."""
        return self._numbers or (self.wanted > 1 and (self._refused or self._request.method.dialect == "v1"))

    @property
    def surplus(self) -> bool:
        """Whether more answers came than orders were named."""
        return not self._numbers and len(self.known) > self.wanted

    @property
    def uneven(self) -> str:
        """The text ``1 of 2 orders`` if a success reports only a part of a batch, else empty."""
        batch = self._request.batch
        done = next((answer.done for answer in self.known if answer.done is not None), batch)
        return "" if not batch or done == batch else f"{done} of {batch} orders"

    @property
    def _numbers(self) -> bool:
        """Whether orders are named by a userref."""
        return any(name.lstrip("-").isdigit() for name in self._request.orders)

    @property
    def _refused(self) -> bool:
        """Whether the only answer is about the request as a whole, not about one order."""
        return len(self.known) == 1 and any(not normal(text).startswith("eorder:") for text in self.known[0].errors)

    def _same(self, answer: Answer, other: Answer) -> bool:
        """Return whether one answer is a repeat of the other."""
        if answer.order or other.order:
            return answer.order == other.order
        distinct = self.wanted == 1 or self._request.method.dialect == "v2"
        return distinct and answer.frame == other.frame

    def _ours(self, message: dict[str, Any]) -> bool:
        method = self._request.method
        number = message.get(method.number)
        if number is not None and str(number) != self._request.number:
            return False
        if method.dialect == "v1":
            event = message.get("event")
            if event in ("error", None):
                return "errorMessage" in message or "Error" in message
            if number is not None:
                return isinstance(event, str) and event.endswith("Status") and event not in V1_OTHERS
            return bool(event == f"{method.name}Status")
        named = message.get("method")
        if number is not None:
            return named is not None or "error" in message
        return named == method.name or (named in (None, "error") and message.get("error") is not None)


def _read_v1(frame: bytes, message: dict[str, Any]) -> Answer:
    status, count = message.get("status"), message.get("count")
    text = message.get("errorMessage", message.get("Error"))
    error = status == "error" or (text is not None and status != "ok")
    success = False if error else True if status == "ok" and not text else None
    named = _texts(message.get("txid"))
    many = count if isinstance(count, int) and message.get("event") == "cancelOrderStatus" else 1
    return Answer(frame, success, _words(text) if error else (), orders=named, covers=max(1, many))


def _read_v2(frame: bytes, message: dict[str, Any]) -> Answer:
    result, text = message.get("result"), message.get("error")
    success = message.get("success")
    success = success if isinstance(success, bool) else (False if text is not None else None)
    if success is False:
        return Answer(frame, False, _words(text))
    rows = _rows(result) or _rows(message.get("orders"))
    errors = tuple(
        str(row.get("error") or NO_REASON) for row in rows if row.get("error") or row.get("success") is False
    )
    orders = tuple(_field(row, "order_id") for row in rows if _field(row, "order_id"))
    order = next((_field(row, "order_id") or _field(row, "cl_ord_id") for row in rows), "")
    success = None if text else False if errors else success  # a success with an error counts as neither
    return Answer(frame, success, errors, order, orders, done=_done(message, rows))


def _done(message: dict[str, Any], rows: list[dict[str, Any]]) -> int | None:
    """Return the number of orders whose outcome a batch's answer reports."""
    if message.get("method") == "batch_cancel":
        counts = (message.get("orders_cancelled"), *(row.get("count") for row in (message, *rows)))
        return next((count for count in counts if type(count) is int), None)
    return sum(1 for row in rows if _field(row, "order_id") or row.get("error") or row.get("success") is False)


def _words(text: object) -> tuple[str, ...]:
    """Return Kraken's error or errors, as texts."""
    texts = text if isinstance(text, list) else [text]
    return tuple(str(each) for each in texts if each is not None) or (NO_REASON,)


def _rows(result: object) -> list[dict[str, Any]]:
    """Return the result's rows, one per order of a batch. An array, or an object with one: both were recorded."""
    rows = result.get("orders", [result]) if isinstance(result, dict) else result
    return [row for row in rows if isinstance(row, dict)] if isinstance(rows, list) else []


def _field(row: dict[str, Any], name: str) -> str:
    value = row.get(name)
    return value if isinstance(value, str) else ""


def _texts(value: object) -> tuple[str, ...]:
    return tuple(text for text in (value if isinstance(value, list) else [value]) if isinstance(text, str) and text)
