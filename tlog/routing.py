"""Which segment an event belongs into, as `routes.toml` says (spec/ingest.md, "Routing")."""

import re
import tomllib
from dataclasses import dataclass, fields, replace
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any, Final

import msgspec

from tlog.access.rule import Target, matches_glob
from tlog.errors import ConfigError, UnroutedError
from tlog.formats.fields import Fields, Format
from tlog.segments import check_labels, check_name, is_name
from tlog_core.errors import MalformedError

DEFAULT: Final = """\
[[route]]
match = { format = "splunk" }
segment = "{/index}"

[[route]]
segment = "{format}"
"""
"""What holds where there is no file: each event goes into the segment that has the name of its index, or its format."""

_MAX_BYTES: Final = 1 << 18
_FORMAT: Final = "format"
_NAMES: Final = frozenset({_FORMAT, *(field.name for field in fields(Fields))} - {"time"})
_PART: Final = re.compile(r"\{([^{}]*)\}")
_NOT_ASKED: Final = Fields()
_UNFIT: Final = re.compile(r"[^a-z0-9-]")
_DAY: Final = 86_400_000
_Text = Annotated[str, msgspec.Meta(min_length=1, max_length=1024)]
_Globs = _Text | Annotated[tuple[_Text, ...], msgspec.Meta(min_length=1)]


@dataclass(frozen=True, slots=True)
class Steps:
    """Where a value stands in an event: the steps of a JSON Pointer (RFC 6901), or one field, `format` among them."""

    field: str
    pointer: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Template:
    """A text with values of the event in it: texts, and between each two the place of a value."""

    texts: tuple[str, ...]
    places: tuple[Steps, ...]


@dataclass(frozen=True, slots=True)
class Rule:
    """One `[[route]]`: what an event must have, of each any of some patterns, and into which segment it then goes."""

    match: tuple[tuple[Steps, tuple[str, ...]], ...]
    segment: Template
    labels: tuple[tuple[str, Template], ...]


# By itself, and not by what it says: what is found of a routing is kept with it.
@dataclass(frozen=True, slots=True, eq=False)
class Routing:
    """All routes, in their order; where events go that have none; how long an event is told from its like, in ms.

    `asks` tells whether any route goes by a common field, which takes longer to find than all else.
    """

    rules: tuple[Rule, ...]
    quarantine: Target
    remembers: int
    asks: bool


class _Quarantine(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    segment: _Text = "quarantine"
    labels: dict[str, str] = {}


class _Route(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    segment: _Text
    labels: dict[str, str] = {}
    match: dict[str, _Globs] = {}


class _Document(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    route: tuple[_Route, ...] = ()
    quarantine: _Quarantine = _Quarantine()
    remember_days: Annotated[float, msgspec.Meta(gt=0, le=3_660)] = 7.0


def read_routing(path: Path) -> Routing:
    """Return what a file says, or the default if it is not there; ConfigError if it cannot be read or says no such."""
    try:
        return parse_routing(path.read_bytes())
    except FileNotFoundError:
        return parse_routing(DEFAULT.encode())
    except OSError as error:
        raise ConfigError(f"{path.name} cannot be read: {(error.strerror or '').lower()}") from None


def parse_routing(raw: bytes) -> Routing:
    """Return what a document says; raise ConfigError that says what is wrong with it, and in which route."""
    if len(raw) > _MAX_BYTES:
        raise ConfigError(f"routes.toml has at most {_MAX_BYTES} bytes")
    try:
        document = msgspec.convert(tomllib.loads(raw.decode()), _Document)
    except (msgspec.ValidationError, ValueError, RecursionError) as error:
        text = str(error)
        raise ConfigError(f"routes.toml is not as spec/ingest.md says: {text[:1].lower()}{text[1:]}") from None
    rules = tuple(_rule(route, number) for number, route in enumerate(document.route, 1))
    try:
        check_name(document.quarantine.segment)
        check_labels(document.quarantine.labels)
    except MalformedError as error:
        raise ConfigError(f"routes.toml, quarantine: {error}") from None
    quarantine = Target(document.quarantine.segment, tuple(sorted(document.quarantine.labels.items())))
    return Routing(rules, quarantine, int(document.remember_days * _DAY), any(map(_asks, rules)))


def route(routing: Routing, event: Any, form: Format) -> Target:
    """Return the segment for an event of a format, with the labels that it has if it is to be made.

    The first route decides that matches and for whose segment and labels the event has all values. Raises UnroutedError
    if there is none, or if what comes out can be no name.
    """
    settled = _settled(routing, form.name)
    if settled is not None:
        return settled
    found = form.fields(event) if routing.asks else _NOT_ASKED
    for rule in _open(routing, form.name):
        target = _by(rule, event, form.name, found)
        if target is not None:
            return target
    raise UnroutedError("no route matches")


@lru_cache(maxsize=64)
def _settled(routing: Routing, name: str) -> Target | None:
    """Return where all events of a format go, None if that is for each to say."""
    rules = _open(routing, name)
    # Whatever else the first goes by is not there.
    return _by(rules[0], None, name, _NOT_ASKED) if rules else None


@lru_cache(maxsize=64)
def _open(routing: Routing, name: str) -> tuple[Rule, ...]:
    """Return the routes that events of a format may take, less what they ask of the format."""
    return tuple(
        replace(rule, match=tuple(asked for asked in rule.match if asked[0].field != _FORMAT))
        for rule in routing.rules
        if all(_has(None, name, _NOT_ASKED, *asked) for asked in rule.match if asked[0].field == _FORMAT)
    )


def _by(rule: Rule, event: Any, name: str, found: Fields) -> Target | None:
    """Return where a route has an event go, None if it does not match, or the event has not all values."""
    for steps, globs in rule.match:
        if not _has(event, name, found, steps, globs):
            return None
    segment = _fill(rule.segment, event, name, found)
    return _target(segment, tuple([(key, _fill(template, event, name, found)) for key, template in rule.labels]))


# Of many events few segments come, and to check their names takes longer than to find them.
@lru_cache(maxsize=4_096)
def _target(segment: str | None, labels: tuple[tuple[str, str | None], ...]) -> Target | None:
    filled = {key: value for key, value in labels if value is not None}
    if segment is None or len(filled) < len(labels):
        return None
    fitting = _UNFIT.sub("-", segment.lower())
    try:
        check_labels(filled)
    except MalformedError as error:
        raise UnroutedError(str(error)) from None
    if not is_name(fitting):
        raise UnroutedError(f"no segment can have the name {fitting[:100]!r}")
    return Target(fitting, tuple(sorted(filled.items())))


def _has(event: Any, name: str, found: Fields, steps: Steps, globs: tuple[str, ...]) -> bool:
    value = _value(event, name, found, steps)
    return value is not None and any(matches_glob(glob, value) for glob in globs)


def _fill(template: Template, event: Any, name: str, found: Fields) -> str | None:
    parts = [template.texts[0]]
    for place, text in zip(template.places, template.texts[1:], strict=True):
        value = _value(event, name, found, place)
        if value is None:
            return None
        parts += value, text
    return "".join(parts)


def _value(event: Any, name: str, found: Fields, steps: Steps) -> str | None:
    if steps.pointer:
        return _text(_follow(event, steps.pointer))
    if steps.field == _FORMAT:
        return name
    value: str | None = getattr(found, steps.field)
    return value


def _follow(value: Any, pointer: tuple[str, ...]) -> Any:
    """Return what a JSON Pointer leads to, None if to nothing; in a list of pairs, a step may be the name of one."""
    for step in pointer:
        if isinstance(value, list):
            value = _in_list(value, step)
        elif isinstance(value, dict):
            value = value.get(step)
        else:
            return None
    return value


def _in_list(values: list[Any], step: str) -> Any:
    if step.isascii() and step.isdigit():
        return values[int(step)] if len(step) <= len(str(len(values))) and int(step) < len(values) else None
    pairs = (one for one in values if isinstance(one, dict) and one.get("key") == step)
    return next((pair.get("value") for pair in pairs), None)


def _text(value: Any) -> str | None:
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value) if isinstance(value, str | int | float) and value != "" else None


def _rule(given: _Route, number: int) -> Rule:
    try:
        return Rule(
            match=tuple(
                (_steps(key), (globs,) if isinstance(globs, str) else globs) for key, globs in given.match.items()
            ),
            segment=_template(given.segment),
            labels=tuple((key, _template(value)) for key, value in given.labels.items()),
        )
    except MalformedError as error:
        raise ConfigError(f"routes.toml, route {number}: {error}") from None


def _asks(rule: Rule) -> bool:
    templates = (rule.segment, *(template for _, template in rule.labels))
    places = [steps for steps, _ in rule.match] + [place for template in templates for place in template.places]
    return any(not place.pointer and place.field != _FORMAT for place in places)


def _template(text: str) -> Template:
    parts = _PART.split(text)
    if any("{" in part or "}" in part for part in parts[::2]):
        raise MalformedError(f"{text!r} has a brace without its other; write {{field}} or {{/pointer}}")
    return Template(tuple(parts[::2]), tuple(map(_steps, parts[1::2])))


def _steps(text: str) -> Steps:
    if text.startswith("/"):
        # RFC 6901 section 4: ~1 first, or ~01 would become a slash.
        return Steps("", tuple(step.replace("~1", "/").replace("~0", "~") for step in text[1:].split("/")))
    if text not in _NAMES:
        raise MalformedError(
            f"{text!r} is neither a JSON Pointer, as /user/name, nor one of {', '.join(sorted(_NAMES))}"
        )
    return Steps(text)
