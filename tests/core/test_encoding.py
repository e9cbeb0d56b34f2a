import json
import math
from collections.abc import Callable
from enum import IntEnum
from typing import Any

import pytest
import rfc8785
from hypothesis import given
from hypothesis import strategies as st

from tlog_core.encoding import (
    canonical_json,
    canonicalize,
    decode_base64,
    encode_base64,
    parse_decimal,
    parse_json,
    readable_json,
)
from tlog_core.errors import MalformedError

# Whole doubles from 2^53 to 1e21 have no canonical form that can be read back.
floats = st.floats(allow_nan=False, allow_infinity=False).filter(lambda number: not 2**53 <= abs(number) < 1e21)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers(1 - 2**53, 2**53 - 1) | floats | st.text(),
    lambda values: st.lists(values) | st.dictionaries(st.text(), values),
    max_leaves=20,
)


@given(st.binary())
def test_base64_gives_back_the_bytes(data: bytes) -> None:
    assert decode_base64(encode_base64(data), length=len(data)) == data


@pytest.mark.parametrize(
    "text",
    [
        "A",
        "AA",
        "AAA",
        "AAAAA",
        "AA=",
        "AAA==",
        "AAA=A",
        "AAAA=",
        "====",
        "AAB=",
        "AB==",
        "AA==AA==",
        "AAAA\n",
        "AA\r\nAA",
        " AAAA",
        "AAAA ",
        "A-A_",
        "AAA\u00e9",
        "AAA\u0660",
        "\ud800AAA",
        "AAA\x00",
    ],
)
def test_base64_that_is_not_canonical_is_refused(text: str) -> None:
    with pytest.raises(MalformedError):
        decode_base64(text)


@pytest.mark.parametrize("length", [0, 2, 4, 32])
def test_base64_of_another_length_is_refused(length: int) -> None:
    with pytest.raises(MalformedError):
        decode_base64("AAAA", length=length)


@given(st.integers(0, 2**63 - 1))
def test_decimals_give_back_the_number(number: int) -> None:
    assert parse_decimal(str(number)) == number


def test_the_largest_decimal_is_that_of_63_bits() -> None:
    assert parse_decimal("9223372036854775807") == 2**63 - 1


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "-1",
        "-0",
        "+1",
        "00",
        "01",
        "1_0",
        " 1",
        "1 ",
        "1\n",
        "1.0",
        "1e1",
        "0x1",
        "\u0661",
        "\u00b2",
        "9223372036854775808",
        "10000000000000000000",
        "1" * 5000,
    ],
)
def test_decimals_in_any_other_form_are_refused(text: str) -> None:
    with pytest.raises(MalformedError):
        parse_decimal(text)


def nested(depth: int, opening: str = "[", closing: str = "]") -> bytes:
    return (opening * depth + "0" + closing * depth).encode()


@pytest.mark.parametrize(
    ("raw", "canonical"),
    [
        (b"null", b"null"),
        (b" \t\r\n[ true , false ]\n", b"[true,false]"),
        (b'{"b":1,"a":{"d":[],"c":{}}}', b'{"a":{"c":{},"d":[]},"b":1}'),
        (b"-0", b"0"),
        (b"-0.0", b"0"),
        (b"0e5", b"0"),
        (b"1.0", b"1"),
        (b"1E2", b"100"),
        (b"0.1", b"0.1"),
        (b"1e-7", b"1e-7"),
        (b"0.000001", b"0.000001"),
        (b"1e-400", b"0"),
        (b"5e-324", b"5e-324"),
        (b"1.7976931348623157e308", b"1.7976931348623157e+308"),
        (b"1e21", b"1e+21"),
        (b"-1e21", b"-1e+21"),
        (b"9007199254740991", b"9007199254740991"),
        (b"-9007199254740991", b"-9007199254740991"),
        (b"9007199254740991.0", b"9007199254740991"),
        (b"333333333.33333329", b"333333333.3333333"),
        # The sample of RFC 8785, section 3.2.2.
        (
            rb'{"numbers":[333333333.33333329,1E30,4.50,2e-3,0.000000000000000000000000001],'
            rb'"string":"\u20ac$\u000F\u000aA'
            rb"'"
            rb'\u0042\u0022\u005c\\\"\/","literals":[null,true,false]}',
            b'{"literals":[null,true,false],"numbers":[333333333.3333333,1e+30,4.5,0.002,1e-27],'
            b'"string":"\xe2\x82\xac$\\u000f\\nA'
            b"'"
            b'B\\"\\\\\\\\\\"/"}',
        ),
        # Sorted by UTF-16 code units, U+1F600 stands before U+FB33 (RFC 8785, section 3.2.3).
        (
            rb'{"\u20ac":1,"\r":2,"\ufb33":3,"1":4,"\ud83d\ude00":5,"\u0080":6,"\u00f6":7}',
            '{"\\r":2,"1":4,"\u0080":6,"\u00f6":7,"\u20ac":1,"\U0001f600":5,"\ufb33":3}'.encode(),
        ),
        (rb'"\ud83d\ude00"', '"\U0001f600"'.encode()),
        (rb'"\\ud800"', rb'"\\ud800"'),
        (b'"\x7f"', b'"\x7f"'),
        ('"\ufeff"'.encode(), '"\ufeff"'.encode()),
        (nested(64), nested(64)),
        (b'["' + b"[" * 100 + rb"\"[{" + b'"]', b'["' + b"[" * 100 + rb"\"[{" + b'"]'),
        (b"[" + b"[]," * 100 + b"0]", b"[" + b"[]," * 100 + b"0]"),
    ],
)
def test_json_has_one_canonical_form(raw: bytes, canonical: bytes) -> None:
    assert canonicalize(raw) == canonical
    assert canonicalize(canonical) == canonical


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b" ",
        b"\x00",
        b"nul",
        b"True",
        b"'a'",
        b"{a:1}",
        b"[1,]",
        b'{"a":1,}',
        b"[1",
        b"[1]]",
        b"{}{}",
        b"1 2",
        b"1x",
        b"// no\n1",
        b"01",
        b"+1",
        b".5",
        b"5.",
        b"1e",
        b"0x1",
        b"1_0",
        "\u0661".encode(),
        b'"a',
        b'"a\\',
        b'"\\"',
        b'"\\x"',
        b'"\\u12"',
        b'"\n"',
        b'"\x00"',
        b'"\x1f"',
        b"\xa01",
        b'"\xff"',
        b'"\xc0\xaf"',
        b'"\xed\xa0\x80"',
        "1".encode("utf-16"),
        "1".encode("utf-16-le"),
        '{"a":1}'.encode("utf-16-be"),
        "1".encode("utf-32"),
        b"\xef\xbb\xbf1",
        b'"\\ud800"',
        b'"\\udc00"',
        b'"\\ude00\\ud83d"',
        b'["\\ud83d","\\ude00"]',
        b'{"\\udfff":1}',
        b'{"a":{"b":["\\ud800"]}}',
        b'{"a":1,"a":1}',
        b'{"a":1,"\\u0061":2}',
        b'[{"a":{"b":1,"c":2,"b":3}}]',
        b"NaN",
        b"[Infinity]",
        b'{"a":-Infinity}',
        b"1e400",
        b"-1e400",
        b"9007199254740992",
        b"-9007199254740992",
        b"9" * 17,
        b"9" * 18,
        b"9" * 5000,
        b"-" + b"9" * 5000,
        b"9007199254740992.0",
        b"9007199254740991.5",
        b"1e16",
        b"-1e16",
        b"123456789012345678901e-1",
        b"999999999999999868928.0",
        nested(65),
        nested(65, '{"a":', "}"),
        nested(100_000),
        b"[" * 100_000,
        b'{"a":' * 100_000,
        b"[0]" + b"]" * 1000 + b"[" * 1000,
        b'["\\"' + b"[" * 100,
        b'["\\"",' + nested(64) + b',"\\""]',
        b'["\\\\",' + nested(64) + b',"\\\\"]',
        b'[\\"' + b"[" * 100_000,
    ],
)
def test_json_that_two_readers_may_understand_differently_is_refused(raw: bytes) -> None:
    with pytest.raises(MalformedError):
        parse_json(raw)


def test_brackets_count_across_kinds() -> None:
    assert parse_json(nested(32, '{"]}":[', "]}"))
    with pytest.raises(MalformedError, match="nests deeper than 64 at character"):
        parse_json(nested(33, '{"]}":[', "]}"))


@pytest.mark.parametrize("depth", [1, 63, 66])
def test_another_depth_can_be_asked_for(depth: int) -> None:
    assert parse_json(nested(depth), depth=depth)
    with pytest.raises(MalformedError, match=f"nests deeper than {depth} at character {depth};"):
        parse_json(nested(depth + 1), depth=depth)


tricky = st.text('a"\\[]{}/é', max_size=4)


def depth_of(value: Any) -> int:
    members = value.values() if isinstance(value, dict) else value if isinstance(value, list) else None
    return 0 if members is None else 1 + max(map(depth_of, members), default=0)


@given(
    st.recursive(tricky, lambda inner: st.lists(inner) | st.dictionaries(tricky, inner), max_leaves=30),
    st.integers(0, 4),
    st.booleans(),
)
def test_only_brackets_outside_strings_count(value: Any, most: int, ascii_only: bool) -> None:
    raw = json.dumps(value, ensure_ascii=ascii_only).encode()
    if depth_of(value) <= most:
        assert parse_json(raw, depth=most) == value
    else:
        with pytest.raises(MalformedError, match=f"nests deeper than {most}"):
            parse_json(raw, depth=most)


def test_refusals_of_json_say_where() -> None:
    with pytest.raises(MalformedError, match=r"not JSON at line 2, column 2: expecting value"):
        parse_json(b"[1,\n x]")
    with pytest.raises(MalformedError, match="not UTF-8 at byte 3"):
        parse_json(b'"ab\xff"')
    with pytest.raises(MalformedError, match="byte order mark"):
        parse_json(b"\xef\xbb\xbf1")


@given(json_values)
def test_canonical_json_is_stable_and_that_of_rfc_8785(value: Any) -> None:
    raw = canonical_json(value)
    assert raw == rfc8785.dumps(value)
    assert canonical_json(parse_json(raw)) == raw


@given(json_values | st.floats() | st.integers())
def test_readable_json_is_what_is_read_back_alike_or_refused(value: Any) -> None:
    try:
        raw = canonical_json(value)
        expected: Any = parse_json(raw)
    except MalformedError:
        with pytest.raises(MalformedError):
            readable_json(value)
    else:
        assert readable_json(value) == raw
        assert canonical_json(expected) == raw


@pytest.mark.parametrize("within", [lambda value: [value], lambda value: {"a": value}, lambda value: (value,)])
def test_a_value_that_is_within_itself_has_no_canonical_form(within: Callable[[Any], Any]) -> None:
    value: list[Any] = []
    value.append(within(value))
    with pytest.raises(MalformedError, match="canonical form"):
        canonical_json(value)


def test_readable_json_is_not_too_deep() -> None:
    deep: Any = 1
    for _ in range(64):
        deep = [deep]
    assert parse_json(readable_json(deep)) == deep
    with pytest.raises(MalformedError, match="nests deeper than 64"):
        readable_json({"a": deep})
    assert readable_json([[]] * 100)


class Number(IntEnum):
    ONE = 1


class Text(str):
    __slots__ = ()


@pytest.mark.parametrize(
    "value",
    [
        {"\ue000": 1, "\U0001f600": 2, "a": 3},
        {"a": {"\U0001f600": 2, "\ue000": 1}},
        "".join(map(chr, range(0x300))) + "\u2028\u2029\ufeff\uffff\U0010ffff",
        [2**53 - 1, -(2**53 - 1), 0, -0.0, 1e21, 1e-7, 0.1, 10.0],
        [True, False, None, "", [], {}],
        Number.ONE,
        [Text("x")],
        ("a", 1),
    ],
    ids=repr,
)
def test_each_trap_of_canonical_json_is_written_as_the_library_does(value: Any) -> None:
    assert canonical_json(value) == rfc8785.dumps(value)


@given(json_values, st.sampled_from([None, 0, 3]))
def test_json_in_any_dress_has_the_same_canonical_form(value: Any, indent: int | None) -> None:
    for ascii_only in (True, False):
        dressed = json.dumps(value, indent=indent, ensure_ascii=ascii_only).encode()
        assert canonicalize(dressed) == canonical_json(value)


@given(st.floats())
def test_a_double_is_read_back_or_refused(number: float) -> None:
    raw = json.dumps(number).encode()
    if math.isfinite(number) and not 2**53 <= abs(number) < 1e21:
        assert parse_json(canonicalize(raw)) == number
    else:
        with pytest.raises(MalformedError):
            parse_json(raw)


@given(st.integers(-(10**20), 10**20) | st.integers(2**53 - 2, 2**53 + 1) | st.integers())
def test_an_integer_is_read_exactly_or_refused(number: int) -> None:
    raw = str(number).encode()
    if abs(number) < 2**53:
        assert parse_json(raw) == number
    else:
        with pytest.raises(MalformedError):
            parse_json(raw)


def endless() -> list[Any]:
    values: list[Any] = []
    values.append(values)
    return values


@pytest.mark.parametrize(
    "value",
    [
        float("nan"),
        float("inf"),
        [2**53],
        {"a": -(2**53)},
        "\ud800",
        {"\ud800": 1},
        b"bytes",
        {1: 2},
        {b"a": 1},
        {"a": {1}},
        endless(),
    ],
    ids=repr,
)
def test_what_json_cannot_say_has_no_canonical_form(value: Any) -> None:
    with pytest.raises(MalformedError):
        canonical_json(value)
