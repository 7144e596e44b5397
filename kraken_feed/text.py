"""Text made safe to show: secrets masked, control characters escaped; and names that were nearly right."""

from __future__ import annotations

import codecs
from collections.abc import Iterable

MASK = "[masked]"
PLAIN = "kraken-feed.plain"  # for encoding: the ``errors`` that never fail, and read well
SPELLED = {"…": "...", "–": "-", "—": "-", "·": "*", "“": '"', "”": '"', "‘": "'", "’": "'", "→": "->"}

word = str.lower  # Kraken's fixed words (trade, filled, market) mean the same in any case; every reader folds them so


class Secrets:
    """The texts that must not leave the process, wherever they turn up."""

    def __init__(self) -> None:
        self._texts: list[str] = []

    def add(self, *texts: str) -> None:
        """Mask these from now on, also where a JSON text escapes their slashes."""
        for text in texts:
            self._texts += [form for form in (text, text.replace("/", "\\/")) if form and form not in self._texts]
        self._texts.sort(key=len, reverse=True)

    def discard(self, text: str) -> None:
        """A token that is no longer good for anything needs no watching over."""
        forms = (text, text.replace("/", "\\/"))
        self._texts = [known for known in self._texts if known not in forms]

    def mask(self, text: str) -> str:
        """``text`` without any of them."""
        for secret in self._texts:
            if secret in text:
                text = text.replace(secret, MASK)
        return text


def without(frame: bytes, token: str) -> bytes:
    """A frame that echoes our token, without it, also where its slashes are escaped."""
    for form in (token, token.replace("/", "\\/")):
        if form:
            frame = frame.replace(form.encode(), MASK.encode())
    return frame


def encodable(text: str) -> str:
    """Return ``text`` as UTF-8 can hold it: lone surrogates, which JSON's escapes can make, become escapes again."""
    return text if text.isascii() else text.encode(errors="backslashreplace").decode()


def printable(text: str) -> str:
    """``text`` with whatever is no plain character escaped: control characters, bidirectional marks, surrogates."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def printable_json(lines: str) -> str:
    """Escape the same in lines of JSON, as JSON does: ``\\u009b``. Their values stay the same."""
    import json  # only where there is a terminal

    if lines.isascii() and "\x7f" not in lines:  # JSON allows no other control characters in a string
        return lines
    return "".join(c if c.isprintable() or c in "\t\n" else json.dumps(c)[1:-1] for c in lines)


def near_miss(given: str, known: Iterable[str], path: str = "") -> str:
    """``Did you mean …?`` for the nearest of ``known``, or the list of them."""
    import difflib  # only when somebody has made a mistake

    names = list(known)
    folded = {name.casefold(): name for name in reversed(names)}
    near = difflib.get_close_matches(given.casefold(), folded, n=1, cutoff=0.6)
    if near:
        return f"Did you mean {path}{folded[near[0]]}?"
    return f"Known here: {', '.join(names)}."


def plainly(error: UnicodeError) -> tuple[str, int]:
    """Handle an encoding error: what has a spelling in ASCII is spelled so, everything else is escaped."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    lost = error.object[error.start : error.end]
    return "".join(SPELLED.get(c) or c.encode("ascii", "backslashreplace").decode() for c in lost), error.end


codecs.register_error(PLAIN, plainly)
