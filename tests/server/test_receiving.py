"""What stands in a body: whatever it is, nothing of it is lost, and nothing is made up."""

import json
from collections import Counter
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tlog.receivers.file import read_file
from tlog.receivers.json import read_events
from tlog.receivers.receive import Found, listed

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)
SPACES = st.text(" \t\r\n", max_size=3)
# Much that is nearly JSON.
PIECES = st.sampled_from(
    [b"{", b"}", b"[", b"]", b",", b'"', b":", b"\n", b" ", b"1", b'{"a":1}', b'"\\ud800"', b"\xff"]
)
BODIES = st.binary(max_size=40) | st.lists(PIECES, max_size=20).map(b"".join)
MEMBERS = ("items", "Records")


def dump(value: Any, spaces: str) -> bytes:
    return (spaces + json.dumps(value, indent=1 if spaces else None) + spaces).encode()


def values(found: Found) -> list[Any]:
    assert list(found.faults) == []
    return [json.loads(text) for text in found.texts]


def content(*parts: bytes) -> Counter[int]:
    return Counter(byte for part in parts for byte in part if byte not in b" \t\r\n")


@given(st.lists(VALUES, max_size=4), st.dictionaries(st.text(max_size=4), VALUES, max_size=2), SPACES)
def test_a_list_is_read_item_by_item_whatever_stands_beside_it(items: list[Any], more: Any, spaces: str) -> None:
    for member in MEMBERS:
        assert values(listed(dump({**more, member: items, "last": more}, spaces), member)) == items


@given(BODIES)
@example(b'{"items":[' + b"[" * 100_000)
def test_a_body_that_is_no_list_is_kept_whole(raw: bytes) -> None:
    for member in MEMBERS:
        found = listed(raw, member)
        if found.faults:
            assert (list(found.texts), list(found.faults)) == ([], [raw])
        else:
            assert values(found) == json.loads(raw)[member]


@pytest.mark.parametrize("name", [b"items", b"\\u0069tems"])
def test_a_body_with_two_lists_of_one_name_is_kept_whole(name: bytes) -> None:
    for one, other in ((b"[1]", b"[2]"), (b"[1]", b"[1]"), (b"[]", b"[1]")):
        raw = b'{"items":%b,"%b":%b}' % (one, name, other)
        assert listed(raw, "items").faults == [raw]


@given(st.lists(VALUES, max_size=4), SPACES)
def test_json_is_read_as_an_array_or_one_behind_the_other(events: list[Any], spaces: str) -> None:
    assert values(read_events(dump(events, spaces))) == events
    behind = b"\n".join(dump(event, spaces) for event in [*events, {}])
    assert values(read_events(behind)) == [*events, {}]


@given(BODIES)
@example(b'1 {"a" 2\n3')
@example(b"[" * 100_000)
@example(b'"\n' * 1_000)
def test_of_any_bytes_at_all_nothing_is_lost(raw: bytes) -> None:
    found = read_events(raw)
    for text in found.texts:
        json.loads(text.decode("latin-1"))
    if content(raw) != content(*found.texts, *found.faults):
        # It is an array, whose brackets and commas are no events.
        assert not found.faults
        assert [json.loads(text) for text in found.texts] == json.loads(raw)


@given(BODIES)
def test_a_file_may_be_anything_at_all(raw: bytes) -> None:
    read_file(raw)
