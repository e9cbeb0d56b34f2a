"""A message of syslog as an object, and back (spec/formats.md): RFC 5424 to the letter, RFC 3164 as far as it goes."""

import re
from base64 import b64decode, b64encode
from collections.abc import Iterator, Mapping
from typing import Any, Final

from tlog.formats.fields import milliseconds
from tlog_core.errors import MalformedError

_BOM: Final = b"\xef\xbb\xbf"
_ESCAPED: Final = re.compile(rb'\\(["\\\]])')
_TO_ESCAPE: Final = re.compile(r'(["\\\]])')

# RFC 5424 section 6. What repeats takes all it can and gives nothing back, so that no message takes long to refuse.
_NAME: Final = rb"[!#-<>-\\^-~]{1,32}"
_PARAM: Final = rb' (%b)="((?:[^"\\\]]|\\.)*+)"' % _NAME
_ELEMENT: Final = rb"\[(%b)((?:%b)*+)\]" % (_NAME, _PARAM)
_TIME: Final = rb"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(?:\.[0-9]{1,6})?(?:Z|[+-][0-9]{2}:[0-9]{2})"
_PRIORITY: Final = rb"<(0|[1-9][0-9]{0,2})>"
_STRICT: Final = re.compile(
    rb"%b1 (-|%b) ([!-~]{1,255}) ([!-~]{1,48}) ([!-~]{1,128}) ([!-~]{1,32}) (-|(?:%b)++)(?: (.*))?"
    % (_PRIORITY, _TIME, _ELEMENT),
    re.DOTALL,
)
_PARAMS: Final = re.compile(_PARAM, re.DOTALL)
_ELEMENTS: Final = re.compile(_ELEMENT, re.DOTALL)
_IS_STRICT: Final = re.compile(rb"%b[1-9][0-9]{0,2} (?:- |[0-9]{4}-)" % _PRIORITY)
_LENIENT: Final = re.compile(
    rb"%b(?:([A-Z][a-z]{2} [ 0-9][0-9] [0-9]{2}:[0-9]{2}:[0-9]{2}|%b) )?(.*)" % (_PRIORITY, _TIME), re.DOTALL
)
_TAGGED: Final = re.compile(rb"([!-9;-Z\\^-~]{1,48})(?:\[([!-Z\\^-~]{0,128})\])?:(?: (.*))?", re.DOTALL)
_HOST: Final = re.compile(rb"([!-~]{1,255}) ")
_HEADER: Final = ("timestamp", "hostname", "app_name", "procid", "msgid")
_MOST: Final = 191


def parse_message(raw: bytes) -> dict[str, Any]:
    """Return the members of a message; raise MalformedError if it is none, neither of RFC 5424 nor of RFC 3164."""
    if _IS_STRICT.match(raw) is None:
        return _lenient(raw)
    members = _strict(raw)
    return members if format_message(members) == raw else members | _text("raw", raw)


def format_message(members: Mapping[str, Any]) -> bytes:
    """Return the message of which `parse_message` made these members."""
    if "raw" in members:
        raw: str = members["raw"]
        return raw.encode()
    if "raw_base64" in members:
        return b64decode(members["raw_base64"])
    header = " ".join(members.get(name, "-") for name in _HEADER)
    priority = members["facility"] * 8 + members["severity"]
    elements = "".join(map(_format_element, members.get("structured_data", ()))) or "-"
    return b"<%d>1 %b%b" % (priority, f"{header} {elements}".encode(), b"".join(_format_text(members)))


def _strict(raw: bytes) -> dict[str, Any]:
    found = _STRICT.fullmatch(raw)
    if found is None:
        raise MalformedError("it is not as the grammar of RFC 5424 has it")
    header = {name: part.decode() for name, part in zip(_HEADER, found.groups()[1:6], strict=True) if part != b"-"}
    if "timestamp" in header and milliseconds(header["timestamp"]) is None:
        raise MalformedError("there is no such time")
    data = {} if found[7] == b"-" else {"structured_data": _elements(found[7])}
    return {**_priority(found[1]), "version": 1, **header, **data, **_message(found[found.re.groups])}


def _lenient(raw: bytes) -> dict[str, Any]:
    found = _LENIENT.fullmatch(raw)
    if found is None:
        raise MalformedError("a message of syslog begins with its priority, such as <34>")
    _, time, rest = found.groups()
    told = _message(rest) if time is None else {"timestamp": time.decode(), **_tagged(rest)}
    return {**_priority(found[1]), **told, **_text("raw", raw)}


def _tagged(rest: bytes) -> dict[str, Any]:
    """Return what stands behind the time: a tag, with or without a host before it, or a message alone."""
    host = None if _TAGGED.fullmatch(rest) else _HOST.match(rest)
    found = _TAGGED.fullmatch(rest, 0 if host is None else host.end())
    if found is None:
        return _message(rest)
    told = {"hostname": host and host[1], "app_name": found[1], "procid": found[2]}
    return {**{name: part.decode() for name, part in told.items() if part}, **_message(found[3])}


def _priority(digits: bytes) -> dict[str, int]:
    if int(digits) > _MOST:
        raise MalformedError(f"a priority is at most {_MOST}")
    return dict(zip(("facility", "severity"), divmod(int(digits), 8), strict=True))


def _elements(raw: bytes) -> list[dict[str, Any]]:
    found = [{"key": one[1].decode(), "value": _params(one[2])} for one in _ELEMENTS.finditer(raw)]
    if len({one["key"] for one in found}) < len(found):
        raise MalformedError("an SD-ID comes twice")
    return found


def _params(raw: bytes) -> list[dict[str, str]]:
    try:
        return [
            {"key": one[1].decode(), "value": _ESCAPED.sub(rb"\1", one[2]).decode()} for one in _PARAMS.finditer(raw)
        ]
    except UnicodeDecodeError:
        raise MalformedError("the value of a parameter is not UTF-8") from None


def _message(raw: bytes | None) -> dict[str, Any]:
    if raw is None:
        return {}
    text = _text("message", raw.removeprefix(_BOM))
    if "message" in text:
        return {**text, "bom": True} if raw.startswith(_BOM) else text
    return _text("message", raw)


def _text(name: str, raw: bytes) -> dict[str, Any]:
    try:
        return {name: raw.decode()}
    except UnicodeDecodeError:
        return {f"{name}_base64": b64encode(raw).decode()}


def _format_element(element: Mapping[str, Any]) -> str:
    params = (' {}="{}"'.format(one["key"], _TO_ESCAPE.sub(r"\\\1", one["value"])) for one in element["value"])
    return f"[{element['key']}{''.join(params)}]"


def _format_text(members: Mapping[str, Any]) -> Iterator[bytes]:
    if "message" in members:
        yield b" "
        yield _BOM if "bom" in members else b""
        yield members["message"].encode()
    elif "message_base64" in members:
        yield b" "
        yield b64decode(members["message_base64"])
