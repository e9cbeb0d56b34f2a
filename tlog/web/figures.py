"""Metrics as tables: of Prometheus' text format, what a person would read."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import groupby
from math import isfinite
from typing import Any

from prometheus_client.parser import text_string_to_metric_families

_MOST = 0.99


@dataclass(frozen=True, slots=True)
class Figure:
    """One number, with its labels. Of a distribution, `within` is what 99 % of the values do not exceed, if known.

    `unit` is `time`, in seconds since the epoch, `bytes`, `seconds`, or empty for what is counted.
    """

    labels: str
    value: float
    count: float | None = None
    within: float | None = None
    unit: str = ""


@dataclass(frozen=True, slots=True)
class Table:
    """The figures of one metric: its name, what it is, and whether each is a distribution, with its mean as `value`."""

    name: str
    about: str
    spread: bool
    figures: tuple[Figure, ...]


def tables(text: bytes) -> list[Table]:
    """Return what metrics in Prometheus' text format say; those that nothing was counted for are left out."""
    found = (_table(family) for family in text_string_to_metric_families(text.decode()))
    return [table for table in found if table.figures]


def _table(family: Any) -> Table:
    spread = family.type == "histogram"
    figures = _distributions(family) if spread else _numbers(family)
    return Table(family.name, family.documentation, spread, tuple(figures))


def _numbers(family: Any) -> Iterator[Figure]:
    for sample in family.samples:
        if not sample.name.endswith("_created"):
            yield Figure(_labels(sample.labels), sample.value, unit=_unit(family.name))


def _distributions(family: Any) -> Iterator[Figure]:
    def of(sample: Any) -> str:
        return _labels({name: value for name, value in sample.labels.items() if name != "le"})

    for labels, samples in groupby(sorted(family.samples, key=of), of):
        kept = [(one.name.removeprefix(family.name), one) for one in samples]
        [total], [count] = ([one.value for name, one in kept if name == wanted] for wanted in ("_sum", "_count"))
        bounds = sorted((float(one.labels["le"]), one.value) for name, one in kept if name == "_bucket")
        if count:
            within = next(bound for bound, below in bounds if below >= _MOST * count)
            yield Figure(labels, total / count, count, within if isfinite(within) else None, _unit(family.name))


def _labels(labels: Mapping[str, str]) -> str:
    return ", ".join(f"{name} {value}" for name, value in sorted(labels.items()))


def _unit(name: str) -> str:
    units = {"_time_seconds": "time", "_seconds": "seconds", "_bytes": "bytes"}
    return next((unit for ending, unit in units.items() if name.endswith(ending)), "")
