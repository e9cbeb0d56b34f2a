"""Metrics as tables: of Prometheus' text format, what a person would read."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from math import isfinite
from operator import itemgetter
from typing import Any, Final

from prometheus_client.parser import text_string_to_metric_families

_MOST: Final = 0.99
_ALONE: Final = (("The whole log", False), ("Times and sizes", True))


@dataclass(frozen=True, slots=True)
class Figure:
    """One number. Of a distribution, `within` is what 99 % of the values do not exceed, if that is known.

    `unit` is `time`, in seconds since the epoch, `bytes`, `seconds`, or empty for what is counted.
    """

    value: float
    count: float | None = None
    within: float | None = None
    unit: str = ""


@dataclass(frozen=True, slots=True)
class Table:
    """Figures under one caption, each with its title. In a `spread` each is a distribution, and its value the mean."""

    caption: str
    spread: bool
    rows: tuple[tuple[str, Figure], ...]


def tables(text: bytes) -> list[Table]:
    """Return what metrics in Prometheus' text format say; those that nothing was counted for are left out.

    What has no labels comes first, in one table of numbers and one of distributions.
    """
    found = [_table(family) for family in text_string_to_metric_families(text.decode())]
    alone = [Table(caption, spread, _alone(found, spread)) for caption, spread in _ALONE]
    return [table for table in (*alone, *(one for one in found if not _is_alone(one))) if table.rows]


def _alone(found: Sequence[Table], spread: bool) -> tuple[tuple[str, Figure], ...]:
    return tuple((one.caption, one.rows[0][1]) for one in found if _is_alone(one) and one.spread is spread)


def _is_alone(table: Table) -> bool:
    return [title for title, _ in table.rows] == [""]


def _table(family: Any) -> Table:
    spread = family.type == "histogram"
    rows = sorted(_distributions(family) if spread else _numbers(family), key=itemgetter(0))
    caption = family.documentation.removesuffix(".").removesuffix(", in seconds since the epoch")
    return Table(caption, spread, tuple(rows))


def _numbers(family: Any) -> Iterator[tuple[str, Figure]]:
    for sample in family.samples:
        if not sample.name.endswith("_created"):
            yield _labels(sample.labels), Figure(sample.value, unit=_unit(family.name))


def _distributions(family: Any) -> Iterator[tuple[str, Figure]]:
    def of(sample: Any) -> str:
        return _labels({name: value for name, value in sample.labels.items() if name != "le"})

    for labels, samples in groupby(sorted(family.samples, key=of), of):
        kept = [(one.name.removeprefix(family.name), one) for one in samples]
        [total], [count] = ([one.value for name, one in kept if name == wanted] for wanted in ("_sum", "_count"))
        bounds = sorted((float(one.labels["le"]), one.value) for name, one in kept if name == "_bucket")
        if count:
            within = next(bound for bound, below in bounds if below >= _MOST * count)
            yield labels, Figure(total / count, count, within if isfinite(within) else None, _unit(family.name))


def _labels(labels: Mapping[str, str]) -> str:
    return " ".join(value for _, value in sorted(labels.items()))


def _unit(name: str) -> str:
    units = {"_time_seconds": "time", "_seconds": "seconds", "_bytes": "bytes"}
    return next((unit for ending, unit in units.items() if name.endswith(ending)), "")
