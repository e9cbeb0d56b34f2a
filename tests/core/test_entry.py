import json
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tlog_core.commitment import Commitment
from tlog_core.encoding import encode_base64
from tlog_core.entry import (
    Entry,
    WriterSignature,
    encode_entries,
    has_commitment,
    has_time,
    parse_entry,
    writer_message,
)
from tlog_core.errors import MalformedError

COMMITMENT = Commitment(bytes(range(32)))
PLAIN = Entry(COMMITMENT, "example.com/log", 1_764_000_000_000, "till-7")
SIGNED = Entry(COMMITMENT, "example.com/log", 1_764_000_000_000, "till-7", WriterSignature(3, b"\x01" * 68))

writers = st.text(min_size=1, max_size=63)
times = st.integers(0, 2**53 - 1)
commitments = st.binary(min_size=32, max_size=32).map(Commitment)
signatures = st.builds(WriterSignature, times, st.binary(min_size=68, max_size=68))


def test_an_entry_has_the_form_that_the_specification_says() -> None:
    assert bytes(PLAIN) == (
        b'{"commitment":"AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=","origin":"example.com/log",'
        b'"time":1764000000000,"v":1,"writer":"till-7"}'
    )
    assert bytes(SIGNED) == bytes(PLAIN)[:-1] + b',"writer_sequence":3,"writer_signature":"%s"}' % (
        encode_base64(b"\x01" * 68).encode()
    )


@given(st.builds(Entry, commitments, st.text(min_size=1), times, writers, st.none() | signatures))
def test_an_entry_is_read_back(entry: Entry) -> None:
    assert parse_entry(bytes(entry)) == entry


# Some of them escaped in JSON, or not ASCII.
names = st.text('aé"\\ \x7f/~', min_size=1, max_size=4)


@given(st.builds(Entry, commitments, names, times, names, st.none() | signatures), st.data())
def test_of_bytes_that_are_nearly_an_entry_only_the_form_of_one_is_read(entry: Entry, data: st.DataObject) -> None:
    raw = bytearray(bytes(entry))
    raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.sampled_from(b'AB=/0129"\\ ,}\n'))
    with suppress(MalformedError):
        assert bytes(parse_entry(bytes(raw))) == raw


@given(st.builds(Entry, commitments, st.text(min_size=1), times, writers, st.none() | signatures), commitments)
def test_an_entry_has_its_own_commitment_and_no_other(entry: Entry, other: Commitment) -> None:
    assert has_time(bytes(entry), entry.time)
    assert not any(
        has_time(bytes(entry), time) for time in {entry.time + 1, entry.time // 10, entry.time * 10} - {entry.time}
    )
    assert has_commitment(bytes(entry), entry.commitment)
    assert has_commitment(bytes(entry), other) == (other == entry.commitment)


def changed(**members: Any) -> bytes:
    """Return the signed entry with members replaced, or left out if None, in canonical form."""
    whole = {**json.loads(bytes(SIGNED)), **members}
    kept = {name: value for name, value in whole.items() if value is not None}
    return json.dumps(kept, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def test_the_helper_of_these_tests_changes_nothing_by_itself() -> None:
    assert changed() == bytes(SIGNED)
    assert changed(writer_sequence=None, writer_signature=None) == bytes(PLAIN)


@pytest.mark.parametrize(
    "members",
    [
        {"v": None},
        {"v": 0},
        {"v": 2},
        {"v": "1"},
        {"v": True},
        {"v": 1.5},
        {"commitment": None},
        {"commitment": ""},
        {"commitment": 1},
        {"commitment": encode_base64(bytes(31))},
        {"commitment": encode_base64(bytes(33))},
        {"commitment": encode_base64(bytes(32))[:-1]},
        {"commitment": encode_base64(COMMITMENT)[:-2] + "9="},
        {"commitment": COMMITMENT.hex()},
        {"origin": None},
        {"origin": ""},
        {"origin": ["example.com/log"]},
        {"time": None},
        {"time": -1},
        {"time": 1.5},
        {"time": "1764000000000"},
        {"time": True},
        {"time": 2**53},
        {"writer": None},
        {"writer": ""},
        {"writer": 7},
        {"writer": "a" * 256},
        {"writer": "\u00e4" * 128},
        {"writer_sequence": None},
        {"writer_signature": None},
        {"writer_sequence": -1},
        {"writer_sequence": "3"},
        {"writer_signature": ""},
        {"writer_signature": encode_base64(bytes(64))},
        {"writer_signature": encode_base64(bytes(69))},
        {"note": "a member too many"},
    ],
    ids=str,
)
def test_an_entry_with_a_wrong_member_is_refused(members: dict[str, Any]) -> None:
    with pytest.raises(MalformedError):
        parse_entry(changed(**members))


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"1",
        b"[]",
        b"null",
        b"{}",
        b'"v"',
        bytes(PLAIN) + b"\n",
        b" " + bytes(PLAIN),
        bytes(PLAIN).replace(b":1,", b": 1,"),
        bytes(PLAIN).replace(b'"v":1', b'"v":1.0'),
        bytes(PLAIN).replace(b'"time":1764000000000', b'"time":1.764e12'),
        bytes(PLAIN).replace(b'"time":1764000000000', b'"time":01764000000000'),
        bytes(SIGNED).replace(b'"writer_sequence":3', b'"writer_sequence":03'),
        bytes(PLAIN).replace(b"till-7", rb"till\u002d7"),
        bytes(PLAIN).replace(b"till-7", rb"\ud800"),
        bytes(PLAIN).replace(b"example.com/log", rb"example.com\/log"),
        bytes(PLAIN).replace(b'"v":1,', b'"v":1,"v":1,'),
        json.dumps(dict(reversed(json.loads(bytes(PLAIN)).items())), separators=(",", ":")).encode(),
    ],
)
def test_an_entry_that_is_not_canonical_is_refused(raw: bytes) -> None:
    with pytest.raises(MalformedError):
        parse_entry(raw)


def test_a_writer_has_at_most_255_bytes() -> None:
    for writer in ("a" * 255, "\u00e4" * 127):
        entry = Entry(COMMITMENT, "example.com/log", 0, writer)
        assert parse_entry(bytes(entry)) == entry
    for writer in ("a" * 256, "\u00e4" * 128):
        with pytest.raises(MalformedError, match="255"):
            bytes(Entry(COMMITMENT, "example.com/log", 0, writer))
        with pytest.raises(MalformedError, match="255"):
            encode_entries([COMMITMENT], origin="example.com/log", time=0, writer=writer)


def test_an_entry_has_at_most_65535_bytes() -> None:
    spare = 65_535 - len(bytes(Entry(COMMITMENT, "", 0, "w")))
    largest = Entry(COMMITMENT, "o" * spare, 0, "w")
    assert parse_entry(bytes(largest)) == largest
    with pytest.raises(MalformedError, match="65535"):
        parse_entry(bytes(Entry(COMMITMENT, "o" * (spare + 1), 0, "w")))


@given(st.lists(commitments, max_size=5), st.text(min_size=1), times, writers)
def test_entries_made_together_are_those_made_one_by_one(
    batch: list[Commitment], origin: str, time: int, writer: str
) -> None:
    together = encode_entries(batch, origin=origin, time=time, writer=writer)
    assert together == [bytes(Entry(commitment, origin, time, writer)) for commitment in batch]


def test_a_writer_signs_the_message_of_the_specification() -> None:
    message = writer_message(origin="example.com/log", writer="till-7", sequence=3, commitment=COMMITMENT)
    assert message == (b"tlog/writer/v1\nexample.com/log\ntill-7\n3\nAAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=\n")


@pytest.mark.parametrize(
    "entry",
    [
        Entry(COMMITMENT, "example.com/log", 2**53, "w"),
        Entry(COMMITMENT, "example.com/\ud800", 0, "w"),
        Entry(COMMITMENT, "example.com/log", 0, "\ud800"),
    ],
    ids=repr,
)
def test_values_that_no_entry_has_are_not_written(entry: Entry) -> None:
    with pytest.raises(MalformedError):
        bytes(entry)
