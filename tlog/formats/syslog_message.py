"""A message of syslog as an object, and back (spec/formats.md): RFC 5424 to the letter, RFC 3164 as far as it goes."""

import re
from base64 import b64decode, b64encode
from collections.abc import Mapping
from typing import Any, Final

from tlog.formats.fields import milliseconds
from tlog_core.errors import MalformedError

_BOM: Final = "\ufeff"
_ESCAPED: Final = re.compile(r'\\(["\\\]])')
_TO_ESCAPE: Final = re.compile(r'(["\\\]])')

# RFC 5424 section 6. What repeats takes all it can and gives nothing back, so that no message takes long to refuse.
_NAME: Final = r"[!#-<>-\\^-~]{1,32}"
_PARAM: Final = rf' ({_NAME})="((?:[^"\\\]]|\\.)*+)"'
_ELEMENT: Final = rf"\[({_NAME})((?:{_PARAM})*+)\]"
_TIME: Final = r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(?:\.[0-9]{1,6})?(?:Z|[+-][0-9]{2}:[0-9]{2})"
_PRIORITY: Final = r"<(0|[1-9][0-9]{0,2})>"
_STRICT: Final = re.compile(
    rf"{_PRIORITY}1 (-|{_TIME}) ([!-~]{{1,255}}) ([!-~]{{1,48}}) ([!-~]{{1,128}}) ([!-~]{{1,32}})"
    rf" (-|(?:{_ELEMENT})++)(?: (?P<message>.*))?",
    re.DOTALL,
)
_PARAMS: Final = re.compile(_PARAM, re.DOTALL)
_ELEMENTS: Final = re.compile(_ELEMENT, re.DOTALL)
_IS_STRICT: Final = re.compile(rf"{_PRIORITY}[1-9][0-9]{{0,2}} (?:- |[0-9]{{4}}-)")
_LENIENT: Final = re.compile(
    rf"{_PRIORITY}(?:([A-Z][a-z]{{2}} [ 0-9][0-9] [0-9]{{2}}:[0-9]{{2}}:[0-9]{{2}}|{_TIME}) )?(.*)", re.DOTALL
)
_TAGGED: Final = re.compile(r"([!-9;-Z\\^-~]{1,48})(?:\[([!-Z\\^-~]{0,128})\])?:(?: (.*))?", re.DOTALL)
_HOST: Final = re.compile(r"([!-~]{1,255}) ")
_HEADER: Final = ("timestamp", "hostname", "app_name", "procid", "msgid")
_MOST: Final = 191


def parse_message(raw: bytes) -> dict[str, Any]:
    """Return the members of a message; raise MalformedError if it is none, neither of RFC 5424 nor of RFC 3164."""
    # A byte that is not UTF-8 becomes half of a surrogate pair, which is no character of anything but the message.
    text = raw.decode("utf-8", "surrogateescape")
    if _IS_STRICT.match(text) is None:
        return _lenient(text)
    members = _strict(text)
    # Only a backslash can be written in two ways.
    return members | _text("raw", text) if "\\" in text and format_message(members) != raw else members


def format_message(members: Mapping[str, Any]) -> bytes:
    """Return the message of which `parse_message` made these members."""
    if "raw" in members or "raw_base64" in members:
        return _bytes("raw", members)
    header = " ".join(members.get(name, "-") for name in _HEADER)
    priority = members["facility"] * 8 + members["severity"]
    elements = "".join(map(_format_element, members.get("structured_data", ()))) or "-"
    told = f"<{priority}>1 {header} {elements}".encode()
    if "message" not in members and "message_base64" not in members:
        return told
    return b"%b %b%b" % (told, _BOM.encode() if "bom" in members else b"", _bytes("message", members))


def _strict(text: str) -> dict[str, Any]:
    found = _STRICT.fullmatch(text)
    if found is None:
        raise MalformedError("it is not as the grammar of RFC 5424 has it")
    priority, *parts, data = found.group(1, 2, 3, 4, 5, 6, 7)
    header = {name: part for name, part in zip(_HEADER, parts, strict=True) if part != "-"}
    if "timestamp" in header and milliseconds(header["timestamp"]) is None:
        raise MalformedError("there is no such time")
    elements = {} if data == "-" else {"structured_data": _elements(data)}
    return {**_priority(priority), "version": 1, **header, **elements, **_message(found["message"])}


def _lenient(text: str) -> dict[str, Any]:
    found = _LENIENT.fullmatch(text)
    if found is None:
        raise MalformedError("a message of syslog begins with its priority, such as <34>")
    priority, time, rest = found.groups()
    told = _message(rest) if time is None else {"timestamp": time, **_tagged(rest)}
    return {**_priority(priority), **told, **_text("raw", text)}


def _tagged(rest: str) -> dict[str, Any]:
    """Return what stands behind the time: a tag, with or without a host before it, or a message alone."""
    host = None if _TAGGED.fullmatch(rest) else _HOST.match(rest)
    found = _TAGGED.fullmatch(rest, 0 if host is None else host.end())
    if found is None:
        return _message(rest)
    told = {"hostname": host and host[1], "app_name": found[1], "procid": found[2]}
    return {**{name: part for name, part in told.items() if part}, **_message(found[3])}


def _priority(digits: str) -> dict[str, int]:
    number = int(digits)
    if number > _MOST:
        raise MalformedError(f"a priority is at most {_MOST}")
    return {"facility": number >> 3, "severity": number & 7}


def _elements(data: str) -> list[dict[str, Any]]:
    if not _is_utf8(data):
        raise MalformedError("the value of a parameter is not UTF-8")
    found = [{"key": key, "value": _params(params)} for key, params, *_ in _ELEMENTS.findall(data)]
    if len({one["key"] for one in found}) < len(found):
        raise MalformedError("an SD-ID comes twice")
    return found


def _params(text: str) -> list[dict[str, str]]:
    return [{"key": key, "value": _ESCAPED.sub(r"\1", value)} for key, value in _PARAMS.findall(text)]


def _message(text: str | None) -> dict[str, Any]:
    if text is None:
        return {}
    if text.startswith(_BOM) and _is_utf8(text):
        return {"message": text[1:], "bom": True}
    return _text("message", text)


def _text(name: str, text: str) -> dict[str, Any]:
    if _is_utf8(text):
        return {name: text}
    return {f"{name}_base64": b64encode(text.encode("utf-8", "surrogateescape")).decode()}


def _bytes(name: str, members: Mapping[str, Any]) -> bytes:
    text: str | None = members.get(name)
    return b64decode(members[f"{name}_base64"]) if text is None else text.encode()


def _is_utf8(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _format_element(element: Mapping[str, Any]) -> str:
    params = (' {}="{}"'.format(one["key"], _TO_ESCAPE.sub(r"\\\1", one["value"])) for one in element["value"])
    return f"[{element['key']}{''.join(params)}]"
