"""Text from elsewhere, made safe to show, and names that were nearly right."""

from __future__ import annotations

from collections.abc import Iterable


def printable(text: str) -> str:
    """``text`` with whatever is no plain character escaped: control characters, bidirectional marks, surrogates."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def near_miss(given: str, known: Iterable[str], path: str = "") -> str:
    """``Did you mean …?`` for the nearest of ``known``, or the list of them."""
    import difflib  # only when somebody has made a mistake

    names = list(known)
    folded = {name.casefold(): name for name in reversed(names)}
    near = difflib.get_close_matches(given.casefold(), folded, n=1, cutoff=0.6)
    if near:
        return f"Did you mean {path}{folded[near[0]]}?"
    return f"Known here: {', '.join(names)}."
