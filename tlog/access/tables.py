"""The tables of a policy document: their shape, and where they stand (spec/access.md, "Policy").

`tomllib` reads the document and `msgspec` checks the shape. Neither tells lines; `lines` finds those.
"""

import re
import tomllib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import date, datetime, time
from enum import Enum, unique
from typing import Annotated, Any, Final, TypeVar

import msgspec

from tlog.access.action import Role
from tlog.access.lines import has_long_key, header_lines, member_line
from tlog.access.rule import Each
from tlog.errors import PolicyError

MAX_POLICY_BYTES: Final = 1 << 20
MAX_RULES: Final = 10_000
MAX_NAME: Final = 128

_AT_LINE: Final = re.compile(r"(.*) \(at line (\d+), column \d+\)")
# Greedy: what a document says may be quoted in the message, but the place is always last.
_AT_MEMBER: Final = re.compile(r"(.*) - at (?:`key` in )?`\$\.(rule|quota)(?:\[(\d+)\])?(?:\.(\w+))?[^`]*`", re.DOTALL)
_NOT_A_CHOICE: Final = re.compile(r"Invalid enum value (.*)", re.DOTALL)
_UNKNOWN: Final = re.compile(r"Object contains unknown field `(.*)`", re.DOTALL)

_Text = Annotated[str, msgspec.Meta(min_length=1, max_length=1024)]
_Name = Annotated[str, msgspec.Meta(min_length=1, max_length=MAX_NAME)]
_Texts = Annotated[list[_Text], msgspec.Meta(min_length=1)]
_Claims = Annotated[dict[_Text, _Text | _Texts], msgspec.Meta(min_length=1)]
_Labels = Annotated[dict[_Text, str], msgspec.Meta(min_length=1)]
_Rate = Annotated[float, msgspec.Meta(gt=0, le=1e15)]


@unique
class Effect(Enum):
    """What a rule does with its roles."""

    ALLOW = "allow"
    DENY = "deny"


class Table(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What rules and quotas have in common."""

    name: _Name
    principals: _Texts | None = None
    groups: _Texts | None = None
    claims: _Claims | None = None
    anyone: bool | None = None
    segments: _Texts | None = None
    labels: _Labels | None = None


class RuleTable(Table, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What a rule has beside that."""

    roles: Annotated[list[Role], msgspec.Meta(min_length=1)]
    effect: Effect = Effect.ALLOW
    expires: Annotated[datetime, msgspec.Meta(tz=True)] | None = None
    networks: _Texts | None = None


class QuotaTable(Table, frozen=True, forbid_unknown_fields=True):
    """What a quota has beside that."""

    each: Each | None = None
    requests_per_second: _Rate | None = None
    bytes_per_second: _Rate | None = None


class _Document(msgspec.Struct, frozen=True):
    rule: Annotated[list[RuleTable], msgspec.Meta(max_length=MAX_RULES)] = []
    quota: Annotated[list[QuotaTable], msgspec.Meta(max_length=MAX_RULES)] = []


_AnyTable = TypeVar("_AnyTable", bound=Table)


@dataclass(frozen=True, slots=True)
class Place:
    """Where in a document a rule or quota is, so that an error can say so; `line` is that of its header."""

    text: str
    kind: str
    number: int
    name: str
    line: int

    def error(self, member: str, message: str) -> PolicyError:
        """Return an error that names the rule or quota, and the line of this member of it."""
        line = member_line(self.text, member, self.kind, self.number)
        name = plain(self.name)
        return PolicyError(f'{self.kind} "{name}": {message}', line=line, rule=name)


def read_document(raw: bytes) -> tuple[list[tuple[RuleTable, Place]], list[tuple[QuotaTable, Place]]]:
    """Return the rules and the quotas of a document, as they stand there; PolicyError."""
    if len(raw) > MAX_POLICY_BYTES:
        raise PolicyError(f"a policy has at most {MAX_POLICY_BYTES} bytes; select by labels, groups or claims")
    try:
        text = raw.decode().replace("\r\n", "\n")
    except UnicodeDecodeError as error:
        line = raw[: error.start].count(b"\n") + 1
        raise PolicyError("a policy is UTF-8; this line is not", line=line) from None
    document = _shaped(text, _toml(text))
    return _placed(text, "rule", document.rule), _placed(text, "quota", document.quota)


def plain(text: str) -> str:
    """Return a text without the characters that a terminal would act upon."""
    return "".join(character if character.isprintable() else "?" for character in text)


def _ours(message: str) -> str:
    """Make another's message one of ours."""
    return plain(message[:1].lower() + message[1:])


def _toml(text: str) -> dict[str, Any]:
    if has_long_key(text):
        raise PolicyError("a line has a key of more parts than any that a policy knows")
    try:
        return tomllib.loads(text)
    except (ValueError, RecursionError) as error:
        found = _AT_LINE.fullmatch(str(error))
        if found is not None:
            raise PolicyError(f"not TOML: {_ours(found[1])}", line=int(found[2])) from None
        raise PolicyError(f"not TOML: {_ours(str(error))}", line=text.count("\n", 0, -1) + 1) from None


def _shaped(text: str, content: dict[str, Any]) -> _Document:
    for member in content:
        if member not in _Document.__struct_fields__:
            known = _choices(_Document.__struct_fields__)
            raise PolicyError(f"{plain(member)}: there is no such member, only {known}", line=member_line(text, member))
    try:
        # Dates stay what TOML says they are: text that looks like one is text.
        return msgspec.convert(content, _Document, builtin_types=(datetime, date, time))
    except msgspec.ValidationError as error:
        raise _misshapen(text, content, str(error)) from None


def _misshapen(text: str, content: dict[str, Any], message: str) -> PolicyError:
    """Return what msgspec says of a place such as `$.rule[0].roles`, said of a rule and a line."""
    [(what, kind, number, member)] = _AT_MEMBER.findall(message)
    for unknown in _UNKNOWN.findall(what):
        fields = (RuleTable if kind == "rule" else QuotaTable).__struct_fields__
        member, what = unknown, f"there is no such member, only {_choices(fields)}"
    for value in _NOT_A_CHOICE.findall(what):
        enum = {"roles": Role, "effect": Effect, "each": Each}[member]
        what = f"{value} is none of {_choices(one.value for one in enum)}"
    if not number:
        return PolicyError(f"{kind}: {_ours(what)}", line=member_line(text, kind))
    name = _name_of(content[kind][int(number)])
    title = f'{kind} "{name}"' if name else f"{kind} {int(number) + 1}"
    said = f"{plain(member)}: {_ours(what)}" if member else _ours(what)
    return PolicyError(f"{title}: {said}", line=member_line(text, member, kind, int(number)), rule=name)


def _choices(names: Iterable[str]) -> str:
    return ", ".join(names)


def _name_of(table: object) -> str | None:
    name = table.get("name") if isinstance(table, dict) else None
    return name if isinstance(name, str) and name.isprintable() and 0 < len(name) <= MAX_NAME else None


def _placed(text: str, kind: str, tables: Sequence[_AnyTable]) -> list[tuple[_AnyTable, Place]]:
    lines = header_lines(text, kind)
    if len(lines) != len(tables):
        raise PolicyError(f"write each {kind} under a header of its own, [[{kind}]]", line=member_line(text, kind))
    pairs = enumerate(zip(tables, lines, strict=True))
    return [(table, Place(text, kind, number, table.name, line)) for number, (table, line) in pairs]
