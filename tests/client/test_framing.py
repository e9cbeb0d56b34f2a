"""How messages are found in a stream: whatever the bytes, and however they are cut up, none is lost."""

import re
from collections.abc import Sequence
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tlog_client.relay.framing import NO_BEGINNING, NO_END, Frame, Lines, Syslog

LARGE = 1 << 20
# Bytes of which framing is made come often.
PIECES = st.sampled_from([b"\n", b"\r\n", b"\0", b"\r", b"<34>1 - - - - - -", b"5 ", b"12 ", b"1", b" ", b"0", b"x"])
STREAMS = st.lists(PIECES | st.binary(max_size=8), max_size=12).map(b"".join)
BREAKS = re.compile(rb"\A(?:\r?\n|\0)+")
BETWEEN = re.compile(rb"\A[\r\n]*[1-9][0-9]{0,8} ")
CUTS = st.lists(st.integers(0, 200), max_size=6)


def frames(stream: bytes, cuts: Sequence[int] = (), limit: int = LARGE, *, clean: bool = True) -> list[Frame]:
    framer = Syslog(limit)
    places = [0, *sorted(min(cut, len(stream)) for cut in cuts), len(stream)]
    found = [frame for start, end in pairwise(places) for frame in framer.feed(stream[start:end])]
    return [*found, *framer.end(clean=clean)]


def messages(found: Sequence[Frame]) -> list[bytes]:
    assert not [frame for frame in found if frame.fault]
    return [frame.data for frame in found]


@given(st.lists(st.binary(min_size=1), min_size=1), CUTS, st.sampled_from([b"", b"\n"]))
def test_counted_messages_may_hold_any_bytes(texts: list[bytes], cuts: list[int], between: bytes) -> None:
    stream = b"".join(b"%d %b%b" % (len(text), text, between) for text in texts)
    assert messages(frames(stream, cuts)) == texts


@given(
    st.lists(st.binary().filter(lambda text: not re.search(rb"[\n\0]|\r\Z", text)).map(b"<".__add__)),
    CUTS,
    st.sampled_from([b"\n", b"\r\n", b"\0"]),
)
def test_lines_end_as_senders_end_them(texts: list[bytes], cuts: list[int], end: bytes) -> None:
    stream = b"".join(text + end for text in texts)
    assert messages(frames(stream, cuts)) == texts
    # Many end a connection and not its last line.
    assert messages(frames(stream.removesuffix(end), cuts)) == texts


@given(STREAMS, CUTS, st.booleans())
def test_no_byte_of_any_stream_is_lost(stream: bytes, cuts: list[int], clean: bool) -> None:
    found = frames(stream, cuts, clean=clean)
    assert found == frames(stream, clean=clean)
    for frame in found:
        # Only what is between two messages may be passed over.
        after_count, after_break = BETWEEN.sub(b"", stream, count=1), BREAKS.sub(b"", stream, count=1)
        stream = next(rest for rest in (after_count, after_break, stream) if rest.startswith(frame.data))
        stream = stream[len(frame.data) :]
    assert not stream.strip(b"\r\n\0")


@given(st.binary(min_size=1), CUTS, st.integers(2, 9))
def test_what_is_too_long_comes_in_parts_which_say_so(text: bytes, cuts: list[int], limit: int) -> None:
    *parts, after = frames(b"%d %b2 ok" % (len(text), text), cuts, limit)
    assert after == Frame(b"ok")
    assert b"".join(part.data for part in parts) == text
    *others, last = [part.fault for part in parts]
    if len(text) <= limit:
        assert (others, last) == ([], None)
        return
    assert others == [f"part {number} of a message that is too long" for number in range(1, len(parts))]
    assert last == f"the last part {len(parts)} of a message that is too long"
    assert {len(part.data) for part in parts[:-1]} == {limit}


def test_a_line_that_is_too_long_says_where_it_ends() -> None:
    framer = Lines(4)
    found = [*framer.feed(b"abcdef"), *framer.feed(b"gh"), *framer.feed(b"i\nj\n")]
    assert [frame.data for frame in found] == [b"abcd", b"efghi", b"j"]
    assert [frame.fault for frame in found] == [
        "part 1 of a message that is too long",
        "the last part 2 of a message that is too long",
        None,
    ]


@pytest.mark.parametrize(
    ("stream", "found"),
    [
        (b"5 hell", [Frame(b"hell", NO_END)]),
        (b"5 ", [Frame(b"", NO_END)]),
        (b"2 ok2ok\n3 abc", [Frame(b"ok"), Frame(b"2ok\n3 abc", NO_BEGINNING)]),
        (b"2 ok<34>no count", [Frame(b"ok"), Frame(b"<34>no count", NO_BEGINNING)]),
        (b"2 ok1234567890 x", [Frame(b"ok"), Frame(b"1234567890 x", NO_BEGINNING)]),
        (b"2 ok12", [Frame(b"ok"), Frame(b"12", NO_BEGINNING)]),
        (b"12", [Frame(b"12")]),
        (b"007 bond", [Frame(b"007 bond")]),
        (b"2026-01-01 no priority\n", [Frame(b"2026-01-01 no priority")]),
    ],
)
def test_what_is_no_whole_message_is_kept_and_named(stream: bytes, found: list[Frame]) -> None:
    assert frames(stream) == found


def test_a_line_that_a_broken_connection_ends_is_not_taken_for_whole() -> None:
    assert frames(b"<34>one\n<34>tw", clean=False) == [Frame(b"<34>one"), Frame(b"<34>tw", NO_END)]
    assert frames(b"<34>one\n", clean=False) == [Frame(b"<34>one")]


def test_a_stream_is_pending_from_the_first_byte_of_a_message_to_its_last() -> None:
    for stream in (b"2 ok", b"<1>ok\n"):
        framer = Syslog(LARGE)
        assert not framer.pending
        for number in range(1, len(stream) + 1):
            list(framer.feed(stream[number - 1 : number]))
            assert framer.pending == (number < len(stream))
