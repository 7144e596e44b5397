"""Parse one request of order entry from words or JSON, check it, and encode it as one frame."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple, NoReturn

from ..errors import UsageError
from ..text import near_miss
from .methods import BATCH_CANCEL, METHODS, Kind, Method, Parameter, Shape

# -- JSON whose numbers stay as they were written: ``0.10`` and ``0.1`` are different bytes

MAX_DEPTH = 64  # Kraken's requests need five; far below Python's limit


class Number(str):
    """A JSON number as it was written. It is a ``str`` in Python only."""

    __slots__ = ()


def decode(text: str) -> Any:
    """Parse JSON, with a :class:`Number` for every number. Raises ValueError, also for a repeated key in an object."""
    try:
        read = json.loads(text, parse_int=Number, parse_float=Number, parse_constant=_constant, object_pairs_hook=_once)
    except RecursionError as error:
        raise ValueError(_TOO_DEEP) from error
    _check_depth(read, MAX_DEPTH)
    return read


def encode(value: Any) -> str:
    """Return compact JSON, with every :class:`Number` as it was written."""
    if isinstance(value, Number):
        return str(value)
    if isinstance(value, Mapping):
        return "{" + ",".join(f"{encode(key)}:{encode(each)}" for key, each in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ",".join(map(encode, value)) + "]"
    return json.dumps(value, ensure_ascii=False)


_TOO_DEEP = "it is nested too deeply"


def _check_depth(value: Any, left: int) -> None:
    if not isinstance(value, dict | list):
        return
    if not left:
        raise ValueError(_TOO_DEEP)
    for each in value.values() if isinstance(value, dict) else value:
        _check_depth(each, left - 1)


def _constant(word: str) -> NoReturn:
    raise ValueError(f"{word} is not JSON")


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    read = dict(pairs)
    if len(read) < len(pairs):
        raise ValueError("an object has a key twice")
    return read


DEADLINE_S = (0.5, 60.0)  # Kraken's limits: seconds from now, at least and at most
MAX_NUMBER = 2**64
MAX_TIMER_S = 86_399
NAMES = ("cl_ord_id", "userref", "order_userref", "txid", "orderid", "order_id")
OURS = ("token", "event", "method", "params")  # members of a frame that are not parameters

_WORD = re.compile(r"([A-Za-z][\w\[\]]*)(:?=)(.*)", re.S)
_NUMBER = re.compile(r"-?(0|[1-9]\d*)(\.\d+)?([eE][+-]?\d+)?", re.A)
_INTEGER = re.compile(r"-?(0|[1-9]\d{0,19})", re.A)  # as many digits as 2^64 has
_AMOUNT = re.compile(r"\d+(\.\d+)?", re.A)
_RFC_3339 = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)", re.A)
_PRICE = re.compile(r"[+#-]?\d+(\.\d+)?%?", re.A)
_ANY = re.compile(r".+", re.S)


def _text(value: Any, pattern: re.Pattern[str] = _ANY) -> bool:
    return isinstance(value, str) and not isinstance(value, Number) and pattern.fullmatch(value) is not None


def _number(value: Any, pattern: re.Pattern[str] = _INTEGER) -> bool:
    return isinstance(value, Number) and pattern.fullmatch(value) is not None


def _list(value: Any, fits: Callable[[Any], bool]) -> bool:
    return isinstance(value, list) and all(map(fits, value))


# What each kind of parameter must be: in words, and as a test.
_FORMS: Mapping[Kind, tuple[str, Callable[[Any], bool]]] = {
    "text": ("a string that is not empty", _text),
    "flags": ("a list of words with commas between them", lambda value: value == "" or _text(value)),
    "price": ("a price in a string, such as 61000.5, or relative: +5, -1.5%, #2", lambda value: _text(value, _PRICE)),
    "amount": ("a number in a string, such as 0.25", lambda value: _text(value, _AMOUNT)),
    "digits": ("a whole number, in a string or bare", lambda value: _number(value) or _text(value, _INTEGER)),
    "flag text": (
        "true or false, in a string or bare", lambda value: isinstance(value, bool) or value in ("true", "false"),
    ),
    "deadline": (
        "an RFC 3339 time with its zone, such as 2026-01-31T08:00:05.000Z",
        lambda value: _text(value) and not math.isnan(_moment(value)),
    ),
    "number": ("a number, such as 0.25", lambda value: _number(value, _NUMBER)),
    "integer": ("a whole number", _number),
    "seconds": (
        "a whole number of seconds from 0 to 86399", lambda value: _number(value) and 0 <= int(value) <= MAX_TIMER_S,
    ),
    "flag": ("true or false", lambda value: isinstance(value, bool)),
    "texts": ("a list of strings", lambda value: _list(value, _text)),
    "integers": ("a list of whole numbers", lambda value: bool(value) and _list(value, _number)),
    "object": ("a JSON object", lambda value: isinstance(value, dict)),
    "objects": ("a list of JSON objects", lambda value: _list(value, lambda each: isinstance(each, dict))),
}  # fmt: skip


class Request(NamedTuple):
    """One request to Kraken. ``number`` is its reqid or req_id; ``live``: it may change the account."""

    method: Method
    params: Mapping[str, Any]
    number: Number
    live: bool

    def frame(self, token: str) -> str:
        method, number = self.method, {self.method.number: self.number}
        if method.dialect == "v1":
            return encode({"event": method.name, "token": token, **number, **self.params})
        return encode({"method": method.name, "params": {**self.params, "token": token}, **number})

    @property
    def orders(self) -> tuple[str, ...]:
        """The orders with an answer each; empty if there is one answer to all."""
        return tuple(str(name) for field in self.method.named for name in self.params.get(field, ()))

    @property
    def batch(self) -> int:
        """The number of orders that a batch's answer reports. 0 if unknown: no batch, only a check, or orders that are
        named by a userref, which can name several."""
        if not self.live or not self.method.name.startswith("batch_"):
            return 0
        named = [*self.params.get("orders", ()), *self.params.get("cl_ord_id", ())]
        return 0 if any(isinstance(name, str) and name.lstrip("-").isdigit() for name in named) else len(named)

    @property
    def names(self) -> str:
        """The ids of the request and its orders, as text for messages."""
        batch = self.params.get("orders", [])
        rows = [self.params, *(row for row in batch if isinstance(row, dict))]
        known = [f"{field} {_listed(row[field])}" for row in rows for field in NAMES if field in row]
        if batch and self.method.name == "batch_cancel":
            known.append(f"orders {_listed(batch)}")
        return ", ".join([f"{self.method.number} {self.number}", *known])

    def check_deadline(self, unix_now: float) -> None:
        """Raise UsageError if the deadline is too near or too far by now."""
        name, text = self.method.name, self.params.get("deadline")
        if text is None:
            return
        ahead = _moment(text) - unix_now
        if not DEADLINE_S[0] <= ahead <= DEADLINE_S[1]:
            raise UsageError(
                f"{name}: the deadline {text} is {ahead:+.3f} s from now.",
                why=f"Kraken accepts deadlines {DEADLINE_S[0]:g} to {DEADLINE_S[1]:g} s from now.",
                remedy="Correct it, or this machine's clock: `kraken-feed check` compares it with Kraken's.",
            )


def build(
    words: Sequence[str], extra: str | None, number: int, unix_now: float, *, live: bool, unknown: bool
) -> Request:
    """Build the request from ``words``: the method, then ``key=value`` and ``key:=JSON``.

    Args:
        extra: a JSON object with further parameters.
        number: the request's number, if the words have none.
        unix_now: the time to compare a deadline with.
        live: whether the account may change. Otherwise Kraken only checks the request, if the method allows that.
        unknown: whether to send parameters and values that are not in the table.

    Raises:
        UsageError: the request is wrong; nothing must be sent.
    """
    method = _method(words)
    params = _read(method, words[1:], extra, unknown=unknown)
    typed = params.pop(method.number, Number(number))
    _check(method, method.shape, params, "", unknown=unknown)
    params = _documented(method.shape, params)
    _check_number(method, typed)
    if method.name == "batch_cancel":
        _check_batch(params)
    if method.checks and not live and _off(params.setdefault("validate", _on(method))):
        raise UsageError(
            f"{method.name}: validate is false, but --live is not given.",
            why="Without --live the account must not change.",
            remedy="Leave out validate to check the request, or add --live to carry it out.",
        )
    may_change = live and not (method.checks and "validate" in params and not _off(params["validate"]))
    request = Request(method, params, typed, may_change)
    request.check_deadline(unix_now)
    try:
        request.frame("").encode()
    except UnicodeEncodeError as error:
        raise UsageError(
            f"{method.name}: a parameter is not valid Unicode.", remedy="Check that the terminal uses UTF-8."
        ) from error
    return request


def parameter_list(method: Method) -> str:
    """Return the method's parameters in one line; required ones have a star."""
    names = [name + "*" * field.required for name, field in method.shape.fields.items()]
    return (
        f"Parameters: {', '.join([*names, method.number])} (*: required)."
        if names
        else f"Its only parameter is {method.number}."
    )


# ------------------------------------------------------------------------------------------------ reading


def _method(words: Sequence[str]) -> Method:
    if not words:
        raise UsageError("No method is named.", remedy=f"Methods: {', '.join(METHODS)}.")
    if words[0] not in METHODS:
        raise UsageError(f'There is no method "{words[0]}".', remedy=near_miss(words[0], METHODS))
    return METHODS[words[0]]


def _read(method: Method, words: Sequence[str], extra: str | None, *, unknown: bool) -> dict[str, Any]:
    params: dict[str, Any] = {}
    if extra is not None:
        params = _json(method.name, "--params", extra)
        if not isinstance(params, dict):
            raise UsageError(f"{method.name}: --params is not a JSON object.", remedy=parameter_list(method))
    in_file = frozenset(params)
    for word in words:
        match = _WORD.fullmatch(word)
        if match is None:
            raise UsageError(
                f'{method.name}: "{word}" is not a parameter.',
                why="Write key=value or key:=JSON.",
                remedy=parameter_list(method),
            )
        name, sign, text = match.groups()
        field = _field(method, name)
        value = _json(method.name, name, text) if sign == ":=" else _typed(field, text)
        before = params.get(name)
        both_lists = isinstance(before, list) and isinstance(value, list)
        if name in params and not (both_lists and sign == "=" and name not in in_file):
            raise UsageError(f"{method.name}: {name} is given twice.", remedy="Leave out one of them.")
        params[name] = before + value if both_lists else value
    for name in params:
        if name in OURS:
            raise UsageError(f"{method.name}: kraken-feed sets {name} itself.", remedy="Leave it out.")
        if _field(method, name) is None and not unknown:
            _no_parameter(method, name, method.shape)
    return params


def _field(method: Method, name: str) -> Parameter | None:
    return Parameter("integer") if name == method.number else method.shape.fields.get(name)


def _typed(field: Parameter | None, text: str) -> Any:
    """Convert the text of ``key=text``: to a string or a number, whichever Kraken wants."""
    kind = field.kind if field is not None else "text"
    if kind in ("number", "integer", "seconds"):
        return Number(text)
    if kind == "texts":
        return [text]
    if kind == "integers":
        return [Number(text)]
    if kind == "flag":
        return {"true": True, "false": False}.get(text, text)
    return text


def _json(method: str, name: str, text: str) -> Any:
    try:
        return decode(text)
    except ValueError as error:
        remedy = "Correct the file." if name == "--params" else f"Quote it for the shell: {name}:='…'"
        raise UsageError(f"{method}: {name} is not valid JSON.", why=str(error), remedy=remedy) from error


# ------------------------------------------------------------------------------------------------ checking


def _check(method: Method, shape: Shape, params: Mapping[str, Any], path: str, *, unknown: bool) -> None:
    for name, value in params.items():
        field = shape.fields.get(name)
        if field is None:
            if not unknown:
                _no_parameter(method, path + name, shape)
            continue
        _check_form(method, field, value, path + name)
        if field.choices and not unknown:
            _check_choice(method, field, str(value), path + name)
        for inner, each in _objects(field, value, path + name):
            assert field.shape is not None  # an object has one
            _check(method, field.shape, each, inner, unknown=unknown)
    for group in shape.alone:
        if len(both := [name for name in group if name in params]) > 1:
            raise UsageError(f"{method.name}: {path}{both[0]} and {path}{both[1]} exclude each other.")
    for lacking in _lacking(shape, params):
        raise UsageError(f"{method.name} needs {path}{lacking}.", why=parameter_list(method))


def _lacking(shape: Shape, params: Mapping[str, Any]) -> Iterator[str]:
    yield from (name for name, field in shape.fields.items() if field.required and name not in params)
    kind = params.get("ordertype", params.get("order_type"))
    for name in shape.needs.get(kind, ()) if isinstance(kind, str) else ():
        if name not in params:
            yield f"{name} for {kind}"
    yield from (" or ".join(group) for group in shape.some if not any(name in params for name in group))


def _check_form(method: Method, field: Parameter, value: Any, name: str) -> None:
    form, fits = _FORMS[field.kind]
    if not fits(value):
        raise UsageError(
            f"{method.name}: {name} must be {form}, not {encode(value)}.",
            remedy=f"Write {name}:='…' with JSON in it." if field.kind in ("object", "objects") else "",
        )
    if field.kind in ("texts", "integers") and len(set(value)) < len(value):
        raise UsageError(f"{method.name}: {name} has the same element twice.", remedy="Leave out one of them.")
    if field.kind in ("texts", "objects") and not field.least <= len(value) <= field.most:
        raise UsageError(f"{method.name}: {name} takes {field.least} to {field.most} elements, not {len(value)}.")


def _documented(shape: Shape, params: Mapping[str, Any]) -> dict[str, Any]:
    """Return checked parameters in the types that Kraken documents, with listed values in the listed case."""
    return {name: _as_documented(shape.fields.get(name), value) for name, value in params.items()}


def _as_documented(field: Parameter | None, value: Any) -> Any:
    if field is None:
        return value
    if field.kind == "flag text" and isinstance(value, bool):
        return "true" if value else "false"
    if field.kind == "digits":
        return str(value)
    if field.any_case:
        return _listed_value(field, value)
    if field.shape is None:
        return value
    if field.kind == "objects":
        return [_documented(field.shape, each) for each in value]
    return _documented(field.shape, value)


def _listed_value(field: Parameter, text: str) -> str:
    """Return the listed value that ``text`` means, else ``text``."""
    if not field.any_case:
        return text
    return next((choice for choice in field.choices if choice.casefold() == text.casefold()), text)


def _check_choice(method: Method, field: Parameter, text: str, name: str) -> None:
    words = [word for word in text.split(",") if word] if field.kind == "flags" else [text]
    for word in words:
        if _listed_value(field, word) not in field.choices:
            raise UsageError(
                f'{method.name}: {name} cannot be "{word}".',
                why=f"It is one of: {', '.join(field.choices)}.",
                remedy="Use --allow-unknown to send it anyway.",
            )


def _check_number(method: Method, number: Any) -> None:
    if not (_number(number) and 0 < int(number) < MAX_NUMBER):
        raise UsageError(f"{method.name}: {method.number} must be a whole number above 0 and below 2^64.")


def _check_batch(params: Mapping[str, Any]) -> None:
    """Check the number of orders; the limits apply to both lists together."""
    count = len(params.get("orders", ())) + len(params.get("cl_ord_id", ()))
    if not BATCH_CANCEL[0] <= count <= BATCH_CANCEL[1]:
        raise UsageError(
            f"batch_cancel takes {BATCH_CANCEL[0]} to {BATCH_CANCEL[1]} orders, not {count}.",
            remedy="Repeat orders=… or cl_ord_id=…; use cancel_order for a single one.",
        )


def _no_parameter(method: Method, name: str, shape: Shape) -> NoReturn:
    path, _, last = name.rpartition(".")
    known = [*shape.fields, method.number] if shape is method.shape else shape.fields
    raise UsageError(
        f'{method.name}: there is no parameter "{name}".',
        why=near_miss(last, known, f"{path}." if path else ""),
        remedy="Use --allow-unknown to send it anyway.",
    )


def _objects(field: Parameter, value: Any, name: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yield the objects in a value, each with the path of its members."""
    if field.kind == "object":
        yield f"{name}.", value
    elif field.kind == "objects":
        yield from ((f"{name}[{index}].", each) for index, each in enumerate(value))


def _moment(text: str) -> float:
    """Return a time in unix seconds; NaN if it is not an RFC 3339 time. Python also accepts other forms of ISO 8601."""
    try:
        return datetime.fromisoformat(text).timestamp() if _RFC_3339.fullmatch(text) else float("nan")
    except ValueError:
        return float("nan")


def _on(method: Method) -> bool | str:
    """Return true in the documented type of ``validate``: a string for addOrder, a boolean for other methods."""
    return "true" if method.shape.fields["validate"].kind == "flag text" else True


def _off(flag: Any) -> bool:
    return flag in (False, "false")


def _listed(value: Any) -> str:
    return " ".join(map(str, value)) if isinstance(value, list) else str(value)
