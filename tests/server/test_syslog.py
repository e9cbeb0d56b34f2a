"""Messages of syslog as events, and back to the byte."""

import json
from base64 import b64decode
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tlog.formats.fields import Fields
from tlog.formats.known import format_of
from tlog.formats.syslog_message import format_message, parse_message
from tlog.receivers.syslog import read_messages
from tlog_core.errors import MalformedError

# RFC 5424 section 6.5, and what RFC 3164 section 5.4 has.
BOM = b"\xef\xbb\xbf"
FIRST = b"<34>1 2003-10-11T22:14:15.003Z mymachine.example.com su - ID47 - " + BOM + b"'su root' failed for lonvick"
SECOND = b"<165>1 2003-08-24T05:14:15.000003-07:00 192.0.2.1 myproc 8710 - - %% It's time to make the do-nuts."
THIRD = (
    b"<165>1 2003-10-11T22:14:15.003Z mymachine.example.com evntslog - ID47 "
    b'[exampleSDID@32473 iut="3" eventSource="Application" eventID="1011"] ' + BOM + b"An application event"
)
FOURTH = b'<165>1 - - evntslog - ID47 [a@32473 iut="3"][examplePriority@32473 class="high"]'
OLD = b"<34>Oct 11 22:14:15 mymachine su: 'su root' failed for lonvick on /dev/pts/8"

NAMES = st.text(st.characters(min_codepoint=33, max_codepoint=126, exclude_characters='=]"'), min_size=1, max_size=32)
VALUES = st.text(st.characters(exclude_categories=["Cs"]) | st.sampled_from('\\"]'), max_size=12)


def names(most: int) -> st.SearchStrategy[str | None]:
    return st.none() | st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=1, max_size=most).filter(
        lambda text: text != "-"
    )


PAIRS = st.lists(st.fixed_dictionaries({"key": NAMES, "value": VALUES}), max_size=3)
ELEMENTS = st.lists(
    st.fixed_dictionaries({"key": NAMES, "value": PAIRS}), min_size=1, max_size=3, unique_by=lambda one: one["key"]
)
TIMES = st.none() | st.sampled_from(["2003-10-11T22:14:15.003Z", "2024-02-29T00:00:00-07:00", "1999-12-31T23:59:59Z"])
MEMBERS = st.fixed_dictionaries(
    {"facility": st.integers(0, 23), "severity": st.integers(0, 7), "version": st.just(1)},
    optional={
        "timestamp": TIMES,
        "hostname": names(255),
        "app_name": names(48),
        "procid": names(128),
        "msgid": names(32),
        "structured_data": ELEMENTS,
        "message": st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\ufeff")),
    },
).map(lambda members: {name: value for name, value in members.items() if value is not None})


@given(MEMBERS)
def test_whatever_rfc_5424_can_say_comes_back_from_its_bytes(members: dict[str, Any]) -> None:
    assert parse_message(format_message(members)) == members


@given(st.binary() | st.sampled_from([FIRST, SECOND, THIRD, FOURTH, OLD]).flatmap(lambda raw: damaged(raw)))
def test_any_bytes_are_a_message_that_comes_back_to_the_byte_or_refused(raw: bytes) -> None:
    try:
        members = parse_message(raw)
    except MalformedError:
        return
    again = json.loads(json.dumps(members))
    assert again == members
    assert format_message(again) == raw


def damaged(raw: bytes) -> st.SearchStrategy[bytes]:
    """Replace a piece somewhere."""
    pieces = st.sampled_from([b"\\", b'"', b"]", b"[", b" ", b"-", b"\xff", b"=", b"", b"<", b"9", BOM, b"\\x", b"\n"])
    return st.builds(
        lambda place, length, piece: raw[:place] + piece + raw[place + length :],
        st.integers(0, len(raw)),
        st.integers(0, 3),
        pieces,
    )


@given(st.lists(st.binary(min_size=1)))
def test_of_a_body_nothing_is_lost(bodies: list[bytes]) -> None:
    found = read_messages(b"".join(b"%d %b" % (len(one), one) for one in bodies))
    events = [format_message(json.loads(text)["syslog"]) for text in found.texts]
    assert sorted([*events, *found.faults]) == sorted(bodies)


@given(st.binary())
def test_no_body_makes_the_receiver_raise(raw: bytes) -> None:
    found = read_messages(raw)
    assert all(json.loads(text)["syslog"] for text in found.texts)


def test_a_message_of_rfc_5424_is_told_in_members() -> None:
    assert parse_message(FIRST) == {
        "facility": 4,
        "severity": 2,
        "version": 1,
        "timestamp": "2003-10-11T22:14:15.003Z",
        "hostname": "mymachine.example.com",
        "app_name": "su",
        "msgid": "ID47",
        "bom": True,
        "message": "'su root' failed for lonvick",
    }
    assert parse_message(SECOND)["procid"] == "8710"
    [element] = parse_message(THIRD)["structured_data"]
    assert (element["key"], element["value"][1]) == (
        "exampleSDID@32473",
        {"key": "eventSource", "value": "Application"},
    )
    assert "message" not in parse_message(FOURTH)


def test_structured_data_is_told_without_its_escapes() -> None:
    raw = rb'<34>1 - - - - - [x@1 a="say \"hi\" [\]\\" b=""][y]'
    members = parse_message(raw)
    assert members["structured_data"] == [
        {"key": "x@1", "value": [{"key": "a", "value": 'say "hi" []\\'}, {"key": "b", "value": ""}]},
        {"key": "y", "value": []},
    ]
    assert "raw" not in members
    # Another backslash stands for itself, and could be written with two: so the message is kept too.
    odd = rb'<34>1 - - - - - [x@1 a="C:\dir"]'
    assert parse_message(odd)["structured_data"][0]["value"] == [{"key": "a", "value": r"C:\dir"}]
    assert parse_message(odd)["raw"] == odd.decode()


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b"<165>", b"<192>"),
        (b"<165>", b"<0165>"),
        (b"<165>1", b"<165>2"),
        (b".003Z", b".0000003Z"),
        (b".003Z", b".Z"),
        (b"T22", b"t22"),
        (b"T22", b"T24"),
        (b"10-11", b"02-30"),
        (b":15.", b":60."),
        (b"mymachine.example.com", b"h" * 256),
        (b"evntslog", b"a" * 49),
        (b"evntslog - ", b"evntslog %b " % (b"p" * 129)),
        (b"ID47", b"m" * 33),
        (b"ID47 ", b"ID47  "),
        (b"iut=", b"i" * 33 + b"="),
        (b'iut="3"', b"iut=3"),
        (b'"3"', b'"]"'),
        (b'"3"', b'"\xff"'),
        (b"] ", b"][exampleSDID@32473] "),
        (b"] ", b"]x "),
        (b"mymachine", "mäschine".encode()),
    ],
)
def test_what_is_not_as_the_grammar_has_it_is_refused(old: bytes, new: bytes) -> None:
    assert THIRD.count(old) == 1 or old in (b"] ", b"10-11")
    with pytest.raises(MalformedError):
        parse_message(THIRD.replace(old, new, 1))


def test_the_longest_of_everything_is_taken() -> None:
    raw = b'<191>1 2003-10-11T22:14:15.000003Z %b %b %b %b [%b %b="x"]' % tuple(
        b"a" * length for length in (255, 48, 128, 32, 32, 32)
    )
    assert parse_message(raw)["version"] == 1


def test_a_message_that_is_no_utf_8_keeps_its_bytes() -> None:
    for message in (b"caf\xe9", BOM + b"caf\xe9"):
        members = parse_message(b"<34>1 - - - - - - " + message)
        assert b64decode(members["message_base64"]) == message
    assert b64decode(parse_message(b"<34>caf\xe9")["raw_base64"]) == b"<34>caf\xe9"


OLDER = {
    OLD: ("Oct 11 22:14:15", "mymachine", "su", None, "'su root' failed for lonvick on /dev/pts/8"),
    b"<30>Nov  6 09:00:00 tag[12]: a: b": ("Nov  6 09:00:00", None, "tag", "12", "a: b"),
    b"<30>Nov  6 09:00:00 fe80::1 tag[12]: a": ("Nov  6 09:00:00", "fe80::1", "tag", "12", "a"),
    b"<30>2026-11-26T09:00:00.123456+00:00 h sshd[3]: a": ("2026-11-26T09:00:00.123456+00:00", "h", "sshd", "3", "a"),
    b"<30>Nov  6 09:00:00 some words": ("Nov  6 09:00:00", None, None, None, "some words"),
    b"<30>tag: no time, no telling": (None, None, None, None, "tag: no time, no telling"),
    b"<30>5 apples": (None, None, None, None, "5 apples"),
    b"<30>": (None, None, None, None, ""),
}


@pytest.mark.parametrize("raw", OLDER)
def test_a_message_of_an_older_sender_is_kept_with_what_can_be_told(raw: bytes) -> None:
    members = parse_message(raw)
    told = tuple(members.get(name) for name in ("timestamp", "hostname", "app_name", "procid", "message"))
    assert told == OLDER[raw]
    assert (members["raw"], "version" in members) == (raw.decode(), False)


@pytest.mark.parametrize("raw", [b"", b"34", b"<>", b"<a>", b"<192>x", b"<034>x", b" <34>x", b"{}"])
def test_what_has_no_priority_is_no_message(raw: bytes) -> None:
    with pytest.raises(MalformedError):
        parse_message(raw)


def fields_of(raw: bytes) -> Fields:
    event = {"syslog": parse_message(raw)}
    assert format_of(event).name == "syslog"
    assert format_of(event).id(event) is None
    return format_of(event).fields(event)


def test_a_message_says_when_and_where() -> None:
    assert fields_of(FIRST) == Fields(
        time=1065910455003, action="ID47", source="mymachine.example.com", service="su", severity="crit"
    )
    assert fields_of(OLD) == Fields(source="mymachine", service="su", severity="crit")


def test_an_event_within_a_message_says_more() -> None:
    inner = {"actor": "ann", "target": "order 7", "service": "other"}
    for text in (json.dumps(inner), "@cee:" + json.dumps(inner), "@cee: " + json.dumps(inner)):
        found = fields_of(b"<34>1 - till app - ID1 - " + text.encode())
        assert found == Fields(
            actor="ann", action="ID1", target="order 7", source="till", service="app", severity="crit"
        )
    vault = {"type": "response", "request": {"id": "7", "operation": "read", "path": "secret/x"}, "error": "no"}
    event = {"syslog": parse_message(b"<34>Oct 11 22:14:15 till bao[1]: " + json.dumps(vault).encode())}
    assert format_of(event).fields(event) == Fields(
        action="read", target="secret/x", outcome="failure", source="till", service="vault", severity="crit"
    )
    assert format_of(event).id(event) == "7/response"
    assert fields_of(b"<34>1 - - - - - - {not json}") == Fields(severity="crit")


def test_a_message_that_takes_long_to_refuse_is_none() -> None:
    for piece in (b"[a", b'[a b="', b'[a b=""]', b'[a b="\\', b" a=", b"[a" + b' b="c"' * 9):
        with pytest.raises(MalformedError):
            parse_message(b"<34>1 - - - - - " + piece * 50_000 + b"!")
