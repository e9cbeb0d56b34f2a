"""The server's fast canonical form is the core's, to the byte, for any text at all; or both refuse it."""

import json
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any

import orjson
import pytest
import rfc8785
from hypothesis import given, settings
from hypothesis import strategies as st

from tlog.canonical import TOGETHER, Canonicalizer
from tlog_core.encoding import MAX_JSON_INTEGER, canonicalize
from tlog_core.errors import MalformedError

fast = Canonicalizer()
thorough = settings(max_examples=1500, derandomize=True, deadline=None)


def outcome(function: Any, raw: bytes) -> bytes | str:
    """Return what becomes of a text; any error but MalformedError fails the test."""
    try:
        return bytes(function(raw))
    except MalformedError as error:
        return str(error)


def check(raw: bytes) -> None:
    assert outcome(fast, raw) == outcome(canonicalize, raw)


# Characters where encodings, escapes and orders differ, beside all others.
ODD = '\x00\x1f\x7f\x80\xff\u0130\u2028\ud7ff\ue000\uf8ff\ufb33\ufeff\ufffd\uffff\U00010000\U0001f600\U0010ffff"\\/aéz'
texts = st.text(st.sampled_from(ODD) | st.characters(exclude_categories=["Cs"]), max_size=8)
integers = (
    st.integers()
    | st.integers(-(2**65), 2**65)
    | st.sampled_from(
        [0, MAX_JSON_INTEGER, MAX_JSON_INTEGER + 1, -MAX_JSON_INTEGER, -MAX_JSON_INTEGER - 1, 2**63, 2**64, 10**400]
    )
)
# Among them those where orjson and ECMAScript begin to write an exponent, and the last that have a fraction.
floats = (
    st.floats()
    | st.sampled_from([1764000000.123, 1e-3, 1e-5, 1.5e-5, 1e-6, 123456789012345.67, 4503599627370495.5])
    | st.sampled_from([-0.0, 1e-7, 1e16, 1e20, 1e21, 1e22, 5e-324, 0.1, 9007199254740992.0, 1.5])
)
scalars = st.none() | st.booleans() | integers | floats | texts
values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=5) | st.dictionaries(texts, inner, max_size=5), max_leaves=25
)


@thorough
@given(values)
def test_whatever_python_writes(value: Any) -> None:
    check(json.dumps(value).encode())
    check(json.dumps(value, ensure_ascii=False).encode())
    check(json.dumps(value, separators=(",", ":"), sort_keys=True, ensure_ascii=False).encode())


@thorough
@given(st.dictionaries(texts, st.integers(0, 9), max_size=8))
def test_members_in_any_order(value: dict[str, int]) -> None:
    by_utf_16 = sorted(value, key=lambda name: name.encode("utf-16-be"))
    by_code_point = sorted(value)
    for names in (list(value), by_utf_16, by_code_point, by_utf_16[::-1]):
        raw = json.dumps({name: value[name] for name in names}, ensure_ascii=False, separators=(",", ":")).encode()
        check(raw)
        assert fast(raw) == rfc8785.dumps(value)


@thorough
@given(st.lists(st.tuples(st.sampled_from(["a", "b", "é", "\ue000", "\U00010000"]), scalars), max_size=4))
def test_members_of_one_name(members: list[tuple[str, Any]]) -> None:
    inner = ",".join(f"{json.dumps(name, ensure_ascii=False)}:{json.dumps(value)}" for name, value in members)
    check(b"{" + inner.encode() + b"}")
    escaped = ",".join(f"{json.dumps(name)}:{json.dumps(value)}" for name, value in members)
    check(b'[{"x":{' + escaped.encode() + b"}}]")


digits = st.text("0123456789", min_size=1, max_size=25)


@thorough
@given(
    st.sampled_from(["", "-", "+", "--"]),
    digits,
    st.none() | digits,
    st.none() | st.tuples(st.sampled_from("eE"), st.sampled_from(["", "+", "-"]), digits),
)
def test_numbers_in_any_spelling(sign: str, whole: str, part: str | None, power: tuple[str, str, str] | None) -> None:
    number = sign + whole + ("" if part is None else f".{part}") + "".join(power or ())
    for raw in (number, f"[{number}]", f'{{"a":{number}}}', f" {number} "):
        check(raw.encode())


@thorough
@given(st.integers(-(10**17), 10**17), st.integers(0, 24))
def test_fractions_of_any_length(number: int, places: int) -> None:
    whole, part = divmod(abs(number), 10**places)
    text = f"{'-' * (number < 0)}{whole}.{part:0{places}}"
    for raw in (text, f'{{"b":1,"a":{text}}}', f'{{"a":{text},"b":[{text},0.5]}}'):
        check(raw.encode())


# JSON and what looks like it, with one thing or another changed.
spellings = st.lists(
    st.sampled_from(
        [
            *'{}[]:,"\\/ \t\r\n-+.eE019',
            "true",
            "false",
            "null",
            "NaN",
            "Infinity",
            "-Infinity",
            '"a"',
            '"b"',
            '"\\u0061"',
            "\\u",
            "\\ud83d",
            "\\ude00",
            '"\\ud800"',
            "\\u0000",
            "é",
            "\ue000",
            "\U00010000",
            "\ufeff",
            "//",
            "'",
            "\x00",
            "\x0b",
            "\u00a0",
        ]
    ),
    max_size=12,
).map("".join)


@thorough
@given(spellings)
def test_texts_that_look_like_json(text: str) -> None:
    check(text.encode())


@thorough
@given(values, st.data())
def test_bytes_changed_anywhere(value: Any, data: st.DataObject) -> None:
    raw = bytearray(json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode())
    for _ in range(data.draw(st.integers(1, 3))):
        place = data.draw(st.integers(0, len(raw)))
        change = data.draw(st.sampled_from(["flip", "insert", "delete", "repeat"]))
        if change == "insert":
            raw[place:place] = data.draw(st.binary(min_size=1, max_size=3))
        elif change == "delete":
            del raw[place : place + data.draw(st.integers(1, 3))]
        elif change == "repeat":
            raw[place:place] = raw[place : place + data.draw(st.integers(1, 8))]
        elif place < len(raw):
            raw[place] ^= 1 << data.draw(st.integers(0, 7))
    check(bytes(raw))


def check_lines(lines: Sequence[bytes]) -> None:
    """Check that lines give together what each gives alone, or what the first that is wrong gives."""
    alone = [outcome(canonicalize, line) for line in lines]
    wrong = [one for one in alone if isinstance(one, str)]
    try:
        together: list[bytes] | str = fast.lines(lines)
    except MalformedError as error:
        together = str(error)
    assert together == (wrong[0] if wrong else alone)
    if not wrong:
        read = [pair for start in range(0, len(lines), TOGETHER) for pair in fast.read(lines[start : start + TOGETHER])]
        assert read == [(form, json.loads(form)) for form in together]


compact = values.map(lambda value: json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode())


@thorough
@given(st.lists(compact | spellings.map(str.encode), max_size=5).map(lambda lines: [line for line in lines if line]))
def test_lines_together_as_each_alone(lines: list[bytes]) -> None:
    check_lines([line.replace(b"\n", b" ") for line in lines])


@thorough
@given(values, st.data())
def test_a_value_cut_into_lines_is_none(value: Any, data: st.DataObject) -> None:
    raw = json.dumps([value, value], separators=(",", ":"), sort_keys=True).encode()
    places = sorted(data.draw(st.sets(st.integers(1, len(raw) - 1), min_size=1, max_size=4)))
    parts = [raw[start:end] for start, end in pairwise([0, *places, len(raw)])]
    check_lines(parts)
    # Where a comma was, as lines are joined by commas.
    check_lines([part.strip(b",") or b"0" for part in parts])
    check_lines(raw.split(b","))


def test_many_lines_of_which_one_is_otherwise() -> None:
    line = b'{"a":[1,"x"]}'
    odd = [
        b'{"b":1,"a":2}',
        b"1.0",
        b'{"a" :1}',
        b"[" * 65 + b"]" * 65,
        b'["\xee\x80\x80","\xf0\x90\x80\x80"]',
        b"1,2",
        b"1 2",
    ]
    for one in odd:
        for place in (0, 15, 16, 39):
            check_lines([*[line] * place, one, *[line] * (39 - place)])


@thorough
@given(st.binary(max_size=20))
def test_any_bytes(raw: bytes) -> None:
    check(raw)
    check(b'"' + raw + b'"')
    check(b'{"' + raw + b'":1}')


def nested(depth: int) -> Iterator[str]:
    """Yield texts that nest so deep, or seem to."""
    yield "[" * depth + "]" * depth
    yield '{"a":' * depth + "1" + "}" * depth
    yield "[" * depth
    yield "[" * (depth // 2) + '{"a":' * (depth - depth // 2) + "0" + "}" * (depth - depth // 2) + "]" * (depth // 2)
    yield json.dumps("[" * depth)
    yield json.dumps(["{" * depth] * 3)
    yield "[" + "{}," * depth + "[" * (depth // 2) + "]" * (depth // 2) + "]"
    yield "[" + ",".join(["[]"] * depth) + "]"
    yield '{"' + "[" * depth + '":1}'
    yield '["\\"' + "[" * depth + '"]'


@pytest.mark.parametrize("depth", [1, 2, 62, 63, 64, 65, 66, 128, 1000, 100_000])
def test_any_depth(depth: int) -> None:
    for text in nested(depth):
        check(text.encode())
    accepted = not isinstance(outcome(fast, b"[" * depth + b"]" * depth), str)
    assert accepted == (depth <= 64)


@pytest.mark.parametrize(
    "raw",
    [
        b"-0",
        b"[-0]",
        b"[-0.0]",
        b"1e16",
        b"[9007199254740993.0]",
        b"9007199254740991.5",
        b"1e-400",
        b"[1e308,1e309]",
        b'{"\xee\x80\x80":1,"\xf0\x90\x80\x80":2}',
        b'{"\xf0\x90\x80\x80":1,"\xee\x80\x80":2}',
        b'["\xef\xbf\xbf","\xf4\x8f\xbf\xbf"]',
        b'{"a":1,"\\u0061":2}',
        b'{"a":{"b":1,"b":1}}',
        b'"\\/"',
        b'"\\u002f\\u007f\\u0080\\u2028"',
        b'"\\uD83D\\uDE00"',
        b'"\\ud83d"',
        b'"\xed\xa0\xbd\xed\xb8\x80"',
        b'"\xc0\x80"',
        b'{"\xff":1}',
        b'{"aaaaaaaa\xff":1}',
        b'{"' + b"a" * 100 + b'\xff":1}',
        b"\xef\xbb\xbf{}",
        b"",
        b" ",
        b"{} ",
        b"{}\x00",
        b"[1,]",
        b"1 2",
        b"18446744073709551615",
        b"18446744073709551616",
        b"-9223372036854775809",
        b"1" * 5000,
        b"0." + b"1" * 100_000,
        b"[" + b"1" * 400 + b".5]",
    ],
)
def test_each_known_trap(raw: bytes) -> None:
    check(raw)


def test_the_short_way_is_taken_where_it_can_be(monkeypatch: pytest.MonkeyPatch) -> None:
    """Otherwise all of the above would compare the core with itself."""

    def never(raw: bytes) -> bytes:
        raise AssertionError(f"the strict way was taken for {raw!r}")

    monkeypatch.setattr("tlog.canonical.canonicalize", never)
    for raw in (b'{"b":1,"a":["\xc3\xa9",null,true,-5]}', b'{"a":1,"b":2}', b"[]", b'"x"', b"9007199254740991", b"{}"):
        assert fast(raw) == rfc8785.dumps(orjson.loads(raw))
