"""How payloads are printed: to the token, whatever they say, and none of it as markup."""

import json
import unicodedata
from html.parser import HTMLParser
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from tlog.store.codec import Payload
from tlog.web.payload import beginning, shown
from tlog.web.visible import visible
from tlog_core.commitment import Opening
from tlog_core.encoding import canonical_json

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53) + 1, 2**53 - 1) | st.floats(-1e15, 1e15)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
)  # fmt: skip


class Text(HTMLParser):
    """Takes markup apart: its text, and the names of its elements."""

    def __init__(self, markup: str) -> None:
        super().__init__()
        self.text, self.tags = "", set[str]()
        self.feed(markup)
        self.close()

    def handle_data(self, data: str) -> None:
        self.text += data

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        assert not attrs


def payload(kind: str, data: bytes) -> Payload:
    return Payload(Opening(bytes(32)), kind, data)


def text_of(markup: str) -> str:
    found = Text(str(markup))
    assert found.tags <= {"span", "bdi"}
    return found.text


@given(JSON)
def test_json_is_printed_by_lines_with_its_tokens_as_they_are_stored(value: Any) -> None:
    stored = canonical_json(value)
    assert text_of(shown(payload("application/json", stored)).text) == visible(by_lines(json.loads(stored)), keep="\n")


def by_lines(value: Any, margin: str = "\n") -> str:
    inner = f"{margin}  "
    if isinstance(value, dict) and value:
        members = [f"{inner}{by_lines(name)}: {by_lines(one, inner)}" for name, one in value.items()]
        return f"{{{','.join(members)}{margin}}}"
    if isinstance(value, list) and value:
        return f"[{','.join(inner + by_lines(one, inner) for one in value)}{margin}]"
    return canonical_json(value).decode()


@given(st.text())
def test_text_is_printed_to_the_character(text: str) -> None:
    assert text_of(shown(payload("text/plain", text.encode())).text) == visible(text, keep="\n")


@given(
    st.sampled_from(["text/plain", "application/json", "image/png"]),
    st.text() | st.text("\u05d0<>&[]{}\"',:a", max_size=900),
)
def test_a_beginning_is_one_short_line_without_markup(kind: str, text: str) -> None:
    data = canonical_json(text) if kind == "application/json" else text.encode()
    line = text_of(beginning(payload(kind, data)))
    assert "\n" not in line
    assert len(line) <= 10 * 200
    if kind == "application/json":
        assert visible(data.decode()).startswith(line)


def test_what_runs_from_right_to_left_is_isolated() -> None:
    for code in range(0x110000):
        character = chr(code)
        if unicodedata.bidirectional(character) in ("R", "AL", "AN") and visible(character) == character:
            assert "<bdi>" in shown(payload("text/plain", character.encode())).text, hex(code)
    printed = shown(payload("application/json", '{"שלום":"a","b":["<b>"]}'.encode())).text
    assert "<bdi>&#34;שלום&#34;</bdi><span>: &#34;a&#34;" in printed


def test_what_is_not_whole_text_is_in_hex() -> None:
    found = shown(payload("text/plain", b"\xc3(" * 2048))
    assert (found.kind, found.is_whole, text_of(found.text).splitlines()[-1][:8]) == ("hex", True, "000ff8  ")
    assert not shown(payload("application/x", bytes(4097))).is_whole
