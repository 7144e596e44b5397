"""Make text safe to show: mask secrets, escape control characters. Also suggest names that were nearly right."""

from __future__ import annotations

import codecs
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import re

MASK = "[masked]"
PLAIN = "kraken-feed.plain"  # the ``errors`` of an encoding that never fails, and is readable
SPELLED = {"…": "...", "–": "-", "—": "-", "·": "*", "“": '"', "”": '"', "‘": "'", "’": "'", "→": "->"}
WORD = 8  # characters; a shorter secret is masked only where it is a separate word
LONG = 16  # a shorter secret can be a word that the program itself writes
LONGEST = 24  # the longest such word without a digit is cancel_all_orders_after: 23
URL_SAFE = str.maketrans("+/", "-_")
_ESCAPE = r"(?<=%[0-9A-Fa-f]{2})|(?<=\\[bfnrt])"  # the end of a URL's or JSON's escape is not part of a word

Mask = Callable[[str], str]  # removes secrets from a text from outside
word = str.lower  # Kraken's fixed words (trade, filled, market) mean the same in any case; all readers fold them so


class Secrets:
    """The texts that must not leave the process.

    Text from outside (Kraken, libraries, proxies, other programs) is masked once, where it enters: :meth:`mask`. Our
    own words are not: a one-time password can be any word, "on" or "2026". After that, :meth:`mask_long` is the last
    line of defence, for all text that leaves: it masks only secrets that cannot be a word of the program.
    """

    def __init__(self) -> None:
        self._short = dict[str, None]()  # in the order in which they came, as everywhere here
        self._heads = dict[str, dict[str, None]]()  # by the first characters of its forms, each longer secret

    def add(self, *texts: str) -> None:
        """Mask these secrets from now on, in every form that :func:`_forms` returns."""
        for text in filter(None, texts):
            if len(text) < WORD:
                self._short[text] = None
                continue
            for form in _forms(text):
                self._heads.setdefault(form[:WORD], {})[text] = None

    def discard(self, text: str) -> None:
        """Stop masking a token that is no longer valid."""
        self._short.pop(text, None)
        for head in {form[:WORD] for form in _forms(text)} if len(text) >= WORD else ():
            owners = self._heads.get(head, {})
            owners.pop(text, None)
            if not owners:
                self._heads.pop(head, None)

    def mask(self, text: str) -> str:
        """Return a text from outside with all secrets masked. To mask it again changes nothing."""
        return _masked(text, {**self._short, **self._possible(text)})

    def mask_long(self, text: str) -> str:
        """Return any text with those secrets masked that cannot be a word that the program itself writes."""
        return _masked(text, filter(_unmistakable, self._possible(text)))

    def _possible(self, text: str) -> dict[str, None]:
        """Return the longer secrets that may be in ``text``: usually none, however many there are."""
        if not self._heads:
            return {}
        windows = {text[start : start + WORD] for start in range(len(text) - WORD + 1)}
        return {secret: None for head in windows & self._heads.keys() for secret in self._heads[head]}


def _masked(text: str, secrets: Iterable[str]) -> str:
    """Return ``text`` with all forms of ``secrets`` masked."""
    pattern = _pattern(list(secrets))
    return pattern.sub(MASK, text) if pattern is not None else text


def _unmistakable(text: str) -> bool:
    """Return whether a secret cannot be a word of the program: Kraken's never are, a password may be any word."""
    return len(text) >= LONG and " " not in text and (len(text) >= LONGEST or any(map(str.isdigit, text)))


def _pattern(secrets: Sequence[str]) -> re.Pattern[str] | None:
    """Return a pattern of all forms of the secrets, the longest first, and of the mask itself; None without secrets."""
    if not secrets:
        return None
    import re  # only where there are secrets: `--version` has none

    found = {form: re.escape(form) for secret in secrets if len(secret) >= WORD for form in _forms(secret)}
    # A short secret is masked only as a separate word: any text may contain its letters.
    short = {form for secret in secrets if len(secret) < WORD for form in _plain(secret)}
    found |= {form: rf"(?:(?<!\w)|{_ESCAPE}){re.escape(form)}(?!\w)" for form in short}
    ordered = sorted(found, key=lambda form: (-len(form), form))
    return re.compile("|".join([re.escape(MASK), *(found[form] for form in ordered)]))


def _plain(secret: str) -> set[str]:
    """Return the secret unchanged, and as JSON, URLs and forms write it."""
    import re
    from urllib.parse import quote, quote_plus

    escaped = json_text(secret)
    quoted = {quote(secret, safe="", errors="surrogatepass"), quote_plus(secret, errors="surrogatepass")}
    small = {re.sub("%[0-9A-F]{2}", lambda found: found[0].lower(), form) for form in quoted}
    return {secret, secret.replace("/", "\\/"), escaped, escaped.replace("/", "\\/"), *quoted, *small}


def _forms(secret: str) -> set[str]:
    """Return all forms in which the secret may appear: plain, in hex, and in base64 at any offset."""
    import base64

    raw, codes = secret.encode(errors="surrogatepass"), set[str]()
    if len(raw) >= LONG:
        codes = {raw.hex(), raw.hex().upper()}
        for shift in range(3):  # the text before it decides where it is cut
            code = base64.b64encode(b"." * shift + raw)[4 if shift else 0 :].decode().rstrip("=")[:-2]
            codes |= {code, code.translate(URL_SAFE)}
    return _plain(secret) | codes


def without(frame: bytes, token: str) -> bytes:
    """Return a frame with our token removed, also if its slashes are escaped."""
    for form in (token, token.replace("/", "\\/")):
        if form:
            frame = frame.replace(form.encode(), MASK.encode())
    return frame


def encodable(text: str) -> str:
    """Return ``text`` in a form that UTF-8 can hold: lone surrogates, which JSON can make, become escapes."""
    return text if text.isascii() else text.encode(errors="backslashreplace").decode()


def printable(text: str) -> str:
    """Return ``text`` with every special character escaped: control characters, bidirectional marks, surrogates."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def displayed(text: str) -> str:
    """Return ``text`` as :func:`printable` does, with combining marks escaped, too: terminals do not agree on their
    width."""
    if text.isascii() and text.isprintable():
        return text
    from unicodedata import category

    return printable("".join(c.encode("unicode_escape").decode() if category(c)[0] == "M" else c for c in text))


def cell_width(text: str) -> int:
    """Return how many cells of a terminal a displayed text takes: two for each wide character."""
    if text.isascii():
        return len(text)
    from unicodedata import east_asian_width

    return sum(2 if east_asian_width(c) in "FW" else 1 for c in text)


def printable_json(lines: str) -> str:
    """Escape the same characters in lines of JSON, as JSON does: ``\\u009b``. The values stay the same."""
    if lines.isascii() and "\x7f" not in lines:  # JSON allows no other control characters in a string
        return lines
    return "".join(c if c.isprintable() or c in "\t\n" else json_text(c) for c in lines)


def json_text(text: str) -> str:
    """Return ``text`` as it is written between the quotes of a JSON string, in ASCII."""
    import json  # only where there is a terminal, or a secret

    return json.dumps(text)[1:-1]


def trace(error: BaseException, mask: Mask) -> str:
    """Return the traceback of ``error``. The lines of code in it are ours; the texts of exceptions are masked."""
    from traceback import TracebackException  # only after an error

    whole = TracebackException.from_exception(error)
    pending, words = [whole], set[str]()
    while pending:
        one = pending.pop()
        words.update(_bare(line) for text in one.format_exception_only() for line in text.splitlines())
        pending += [cause for cause in (one.__cause__, one.__context__, *(one.exceptions or ())) if cause is not None]
    lines = "".join(whole.format()).splitlines()
    return "\n".join(mask(line) if _bare(line) in words else line for line in lines)


def _bare(line: str) -> str:
    """Return a line of a traceback without the frame that is drawn around exceptions of a group."""
    return line.strip(" |+-")


def counted(number: int, noun: str) -> str:
    """Return a number and a noun, with a plural s if it needs one."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def near_miss(given: str, known: Iterable[str], path: str = "") -> str:
    """Return ``Did you mean …?`` with the nearest of ``known``, or the list of them."""
    import difflib  # only after a mistake

    names = list(known)
    folded = {name.casefold(): name for name in reversed(names)}
    near = difflib.get_close_matches(given.casefold(), folded, n=1, cutoff=0.6)
    if near:
        return f"Did you mean {path}{folded[near[0]]}?"
    return f"Known here: {', '.join(names)}."


def plainly(error: UnicodeError) -> tuple[str, int]:
    """Handle an encoding error: use the ASCII spelling of a character if it has one, else escape it."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    lost = error.object[error.start : error.end]
    return "".join(SPELLED.get(c) or c.encode("ascii", "backslashreplace").decode() for c in lost), error.end


codecs.register_error(PLAIN, plainly)
