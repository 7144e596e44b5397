"""Messages out of a stream: as many, in the same order and with the same bytes as the library finds."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st
from websockets.frames import Frame, Opcode

from kraken_feed.transport.stream import Splitter

LIMIT = 70_000

sizes = st.one_of(st.integers(0, 130), st.sampled_from([125, 126, 127, 65_535, 65_536, LIMIT]))
messages = st.builds(
    lambda size, opcode: Frame(opcode, b"x" * size), sizes, st.sampled_from([Opcode.TEXT, Opcode.BINARY])
)
controls = st.builds(
    lambda size, opcode: Frame(opcode, b"p" * size), st.integers(0, 125), st.sampled_from([Opcode.PING, Opcode.PONG])
)


def wire(frames: list[Frame], *, mask: bool = False) -> bytes:
    return b"".join(frame.serialize(mask=mask) for frame in frames)


def feed(splitter: Splitter, stream: bytes, cuts: list[int]) -> tuple[list[bytes], bytes]:
    """The stream in pieces, cut at these places: everything that comes of it."""
    found: list[bytes] = []
    others = b""
    edges = sorted({0, len(stream), *(cut % (len(stream) + 1) for cut in cuts)})
    for start, stop in itertools.pairwise(edges):
        new, left = splitter.feed(stream[start:stop])
        found += new
        others += left
        if splitter.handed_over:
            others += stream[stop:]
            break
    return found, others


@given(st.lists(messages | controls, max_size=12), st.lists(st.integers(0, 1 << 20), max_size=12))
def test_every_message_is_found_and_every_control_frame_left_however_the_stream_is_cut(
    frames: list[Frame], cuts: list[int]
) -> None:
    splitter = Splitter(LIMIT)
    found, others = feed(splitter, wire(frames), cuts)
    assert found == [bytes(f.data) for f in frames if f.opcode in (Opcode.TEXT, Opcode.BINARY)]
    assert others == wire([f for f in frames if f.opcode in (Opcode.PING, Opcode.PONG)])
    assert not splitter.handed_over


@pytest.mark.parametrize(
    "odd",
    [
        wire([Frame(Opcode.TEXT, b"a part", fin=False)]),
        wire([Frame(Opcode.CONT, b"the rest")]),
        wire([Frame(Opcode.CLOSE, b"\x03\xe9bye")]),
        wire([Frame(Opcode.TEXT, b"masked")], mask=True),
        wire([Frame(Opcode.TEXT, b"x" * (LIMIT + 1))]),
        b"\x81\x7f" + (1 << 62).to_bytes(8),
        b"\xc1\x03ext",  # with an extension
        b"\x83\x00",  # an opcode that is not defined
        b"\x89\x7e\x00\xc8" + b"p" * 200,  # a ping longer than pings may be
        b"\x09\x00",  # a ping in fragments
    ],
    ids=[
        "fragment",
        "continuation",
        "close",
        "masked",
        "too long",
        "absurdly long",
        "extension",
        "opcode",
        "ping",
        "part",
    ],
)
@given(
    before=st.lists(messages | controls, max_size=4),
    after=st.binary(max_size=40),
    cuts=st.lists(st.integers(0, 1 << 20), max_size=6),
)
def test_what_is_not_simple_and_all_that_follows_is_left_as_it_came(
    odd: bytes, before: list[Frame], after: bytes, cuts: list[int]
) -> None:
    splitter = Splitter(LIMIT)
    found, others = feed(splitter, wire(before) + odd + after, cuts)
    assert found == [bytes(f.data) for f in before if f.opcode in (Opcode.TEXT, Opcode.BINARY)]
    assert others == wire([f for f in before if f.opcode in (Opcode.PING, Opcode.PONG)]) + odd + after
    assert splitter.handed_over


def test_a_long_message_in_many_pieces_is_not_looked_at_for_each_of_them() -> None:
    """Each look would copy what is there already: a snapshot of 30 MB comes in a hundred pieces."""
    splitter = Splitter(1 << 30)
    stream = wire([Frame(Opcode.TEXT, b"x" * 1_000_000)])
    looks = 0
    for start in range(0, len(stream), 1000):
        need = splitter._need
        found, others = splitter.feed(stream[start : start + 1000])
        looks += splitter._need != need
    assert found == [b"x" * 1_000_000]
    assert others == b""
    assert looks <= 3


ends = st.lists(messages | controls, max_size=5)


@given(ends, ends, st.booleans(), st.lists(st.integers(0, 1 << 20), max_size=8))
def test_it_tells_whether_the_bytes_end_within_a_message(
    before: list[Frame], after: list[Frame], fragmented: bool, cuts: list[int]
) -> None:
    """Also when the library reads them: then a message may lie in several frames, with control frames between."""
    frames = [*before, *after]
    if fragmented:
        parts = [Frame(Opcode.TEXT, b"a", fin=False), Frame(Opcode.CONT, b"b" * 300, fin=False)]
        frames = [*before, parts[0], Frame(Opcode.PING, b"p"), parts[1], Frame(Opcode.CONT, b"", fin=True), *after]
    complete, within, at = {0}, False, 0
    for frame in frames:
        at += len(frame.serialize(mask=False))
        if frame.opcode in (Opcode.TEXT, Opcode.BINARY, Opcode.CONT):
            within = not frame.fin
        if not within:
            complete.add(at)
    stream, splitter = wire(frames), Splitter(LIMIT)
    edges = sorted({0, len(stream), *complete, *(cut % (len(stream) + 1) for cut in cuts)})
    for start, stop in itertools.pairwise(edges):
        if splitter.handed_over:
            splitter.follow(stream[start:stop])
        else:
            splitter.feed(stream[start:stop])
        assert splitter.partial is (stop not in complete)
