"""Envelopes: events around an event of another format, whose fields they have too (spec/formats.md)."""

from collections.abc import Callable, Mapping
from dataclasses import fields
from typing import Any, Final

from tlog.formats import plain
from tlog.formats.fields import Fields, Format

FormatOf = Callable[[Any], Format]
"""Returns the format of an event that is no envelope."""

_NAMES: Final = tuple(field.name for field in fields(Fields))


def envelope(
    name: str,
    mark: str,
    recognizes: Callable[[Mapping[str, Any]], bool],
    own: Callable[[Any], Fields],
    within: Callable[[Any], Any],
    format_of: FormatOf,
) -> Format:
    """Return the format of envelopes with fields of their `own` around what stands `within`, whose id they have."""

    def fields_of(event: Any) -> Fields:
        inner = within(event)
        found = format_of(inner)
        # Where members are only called what others call theirs, the envelope knows better.
        if found is plain.FORMAT:
            return _over(own(event), found.fields(inner))
        return _over(found.fields(inner), own(event))

    def id_of(event: Any) -> str | None:
        inner = within(event)
        found = format_of(inner)
        # What is counted is the whole event, and that is another here.
        return None if found.counts else found.id(inner)

    def time_of(event: Any) -> int | None:
        inner = within(event)
        return format_of(inner).time(inner)

    return Format(name, mark, recognizes, fields_of, id_of, time_of)


def _over(first: Fields, second: Fields) -> Fields:
    return Fields(**{name: _either(getattr(first, name), getattr(second, name)) for name in _NAMES})


def _either(first: Any, second: Any) -> Any:
    return second if first is None else first
