"""Whatever bytes the log answers, they become a value or an error of ours."""

import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from simulator import Simulator

from tlog_client.answers import parse_consistency, parse_found, parse_inclusion, parse_opened, parse_page
from tlog_core.encoding import encode_base64
from tlog_core.errors import FetchError, MalformedError

Parser = Callable[[bytes], object]

PARSERS: list[Parser] = [
    lambda raw: parse_inclusion(raw, index=2, size=5),
    lambda raw: parse_consistency(raw, old_size=2, new_size=5),
    lambda raw: parse_opened(raw, index=2),
    lambda raw: parse_page(raw, start=2, limit=2),
    lambda raw: parse_found(raw, before=5),
]

SIM = Simulator()
SIM.grow(5)
ENTRY = SIM.logged[2].entry.decode()

scalars = st.none() | st.booleans() | st.integers(-(2**53) + 1, 2**53 - 1) | st.floats(-1e9, 1e9) | st.text()
values = st.recursive(scalars, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=5)
members = st.fixed_dictionaries(
    {},
    optional={
        "index": st.just(2) | values,
        "size": st.just(5) | values,
        "old_size": st.just(2) | values,
        "new_size": st.just(5) | values,
        "proof": st.lists(st.just(encode_base64(bytes(32))) | values) | values,
        "entry": st.just(ENTRY) | values,
        "opening": st.just(encode_base64(bytes(32))) | values,
        "payload": values,
        "payload_type": st.just("application/json") | st.just("text/plain") | values,
    },
)
NUMBERS = st.integers(0, 9) | values
pages = st.fixed_dictionaries(
    {"entries": st.lists(members, max_size=3)},
    optional={"indexed": NUMBERS, "size": NUMBERS, "next": NUMBERS, "checkpoint": values},
)
answers = members | pages | values


@pytest.mark.parametrize("parse", PARSERS)
@settings(deadline=None, derandomize=True, max_examples=100)
@given(raw=st.binary() | answers.map(lambda value: json.dumps(value).encode()))
def test_any_answer_gives_a_value_or_an_error_of_ours(parse: Parser, raw: bytes) -> None:
    try:
        parse(raw)
    except (MalformedError, FetchError):
        return


@pytest.mark.parametrize("depth", [1, 60, 64])
def test_an_event_as_deep_as_allowed_is_read_back_from_a_page(depth: int) -> None:
    event: Any = 1
    for _ in range(depth):
        event = {"in": event}
    members = {**SIM.answer_of(2), "payload": event}
    (opened,) = parse_page(json.dumps({"entries": [members]}).encode(), start=2, limit=1)
    assert opened.event() == event


def test_an_event_deeper_than_allowed_is_not_read_back() -> None:
    event = json.loads("[" * 68 + "]" * 68)
    with pytest.raises(MalformedError, match="deeper"):
        parse_opened(json.dumps({"payload": event}).encode(), index=2)


@pytest.mark.parametrize(("following", "holds"), [(5, True), (6, False), (2**53 - 1, False)])
def test_no_log_leads_a_search_on_beyond_its_size(following: int, holds: bool) -> None:
    page = {"checkpoint": "", "entries": [], "indexed": 5, "next": following, "size": 5}
    raw = json.dumps(page).encode()
    if holds:
        assert parse_found(raw, before=2**60).next == following
    else:
        with pytest.raises(MalformedError):
            parse_found(raw, before=2**60)
