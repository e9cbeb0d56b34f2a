"""What `scripts/bench scale` found: each cost beside its expected growth, judged, as a table and as small charts."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from statistics import linear_regression
from typing import Any, Final

from bench import Target, verdicts
from bench_svg import label, picture

ENTRIES: Final = "entries"
SEGMENTS: Final = "segments"

GROWTHS: Final[Mapping[str, Callable[[int], float]]] = {
    "constant": lambda _: 1.0,
    "log n": lambda count: 1 + math.log2(count),
    "n": float,
}


@dataclass(frozen=True, slots=True)
class Cost:
    """What something costs by the number `of` entries or segments, and how it is expected to grow.

    `found` has what it cost by their number. What was measured of fewer than `least` is shown, and not judged.
    `within` is how many times as expected it may grow, for what disturbs a measurement.
    """

    name: str
    unit: str
    of: str
    growth: str
    within: float = 1.5
    least: int = 1
    found: dict[int, float] = field(default_factory=dict)

    def shares(self) -> dict[int, float]:
        """Return what it cost by what its growth allows: if it grows as expected, they are all alike, or fall."""
        return {
            count: value / GROWTHS[self.growth](count) for count, value in self.found.items() if count >= self.least
        }

    def excess(self) -> float:
        """Return how many times as expected it grew, from any number to any larger one, at most.

        A fixed part, which hides growth among few, does not hide it between the largest numbers.
        """
        shares = [share for _, share in sorted(self.shares().items())]
        return max((after / before for before, after in combinations(shares, 2)), default=1.0)

    def slope(self) -> float:
        """Return the power of n as which it grew, by least squares over all that is judged."""
        return _slope({count: self.found[count] for count in self.shares()})

    def expected_slope(self) -> float:
        """Return that of its expected growth over the same numbers."""
        return _slope({count: GROWTHS[self.growth](count) for count in self.shares()})


def _slope(values: Mapping[int, float]) -> float:
    if len(values) < 2:
        return 0.0
    return linear_regression([math.log(count) for count in values], [math.log(one) for one in values.values()]).slope


@dataclass(frozen=True, slots=True)
class Curves:
    """A run: on what, and what it found."""

    machine: Mapping[str, Any]
    costs: list[Cost]


def tabulate(curves: Curves) -> Iterator[str]:
    """Yield the lines of a table for entries and one for segments, and a verdict on each cost."""
    for of in (ENTRIES, SEGMENTS):
        yield from (*_table(of, [cost for cost in curves.costs if cost.of == of]), "")
    yield from verdicts([judge(cost) for cost in curves.costs])


def _table(of: str, costs: Sequence[Cost]) -> Iterator[str]:
    counts = sorted({count for cost in costs for count in cost.found})
    width = max((len(cost.name) for cost in costs), default=0)
    head = f"{of:{width}}  {'':7}  {'growth':8}" + "".join(f"  {count:>10,}" for count in counts)
    yield f"{head}  {'slope':>6}  {'expected':>8}  {'excess':>6}"
    for cost in costs:
        line = f"{cost.name:{width}}  {cost.unit:7}  {cost.growth:8}"
        line += "".join(f"  {_figure(cost.found.get(count)):>10}" for count in counts)
        yield f"{line}  {cost.slope():6.2f}  {cost.expected_slope():8.2f}  {cost.excess():6.2f}"


def _figure(value: float | None) -> str:
    return "" if value is None else f"{value:,.{0 if value >= 100 else 2}f}"


def judge(cost: Cost) -> Target:
    """Return whether a cost grows no faster than expected."""
    return Target(f"{cost.name} by {cost.of}, of {cost.growth}", cost.excess(), "times", at_most=cost.within)


_PLOT: Final = (200, 120)
_GAP: Final = (50, 60)
_ACROSS: Final = 4
_TITLE: Final = 30


def draw(curves: Curves) -> str:
    """Return an SVG with a plot for each cost, both scales in powers of ten; the expected growth is dashed.

    It goes through the point that is cheapest by it, so that what grows faster rises above it from there on.
    """
    rows = -(-len(curves.costs) // _ACROSS)
    width, height = _ACROSS * (_PLOT[0] + _GAP[0]) + _GAP[0], rows * (_PLOT[1] + _GAP[1]) + _TITLE
    machine = f"{curves.machine['date']}, {curves.machine['cpus']} CPUs; dashed: the expected growth"
    parts = [label(8, 16, machine)]
    for place, cost in enumerate(curves.costs):
        left = _GAP[0] + place % _ACROSS * (_PLOT[0] + _GAP[0])
        parts += _plot(cost, left, _TITLE + place // _ACROSS * (_PLOT[1] + _GAP[1]) + 26)
    return picture(width, height, parts)


def _plot(cost: Cost, left: float, top: float) -> Iterator[str]:
    color = "#2563eb" if judge(cost).reached() else "#dc2626"
    yield label(left, top - 16, cost.name, bold=True)
    yield label(left, top - 4, f"{cost.unit}; {cost.growth}, as n^{cost.slope():.2f}", color=color)
    yield f'<rect x="{left}" y="{top}" width="{_PLOT[0]}" height="{_PLOT[1]}" fill="none" stroke="#d1d5db"/>'
    if not cost.shares():
        return
    cheapest = min(cost.shares().values())
    expected = {count: cheapest * GROWTHS[cost.growth](count) for count in cost.found}
    scale = _Scale(cost, [*cost.found.values(), *expected.values()], left, top)
    yield scale.line(expected, 'stroke="#9ca3af" stroke-dasharray="4"')
    yield scale.line(cost.found, f'stroke="{color}" stroke-width="2"')
    for count, value in cost.found.items():
        x, y = scale.place(count, value)
        fill = color if count >= cost.least else "white"
        yield f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{fill}" stroke="{color}"/>'
    yield from (label(left - 40, y, text, color="#6b7280") for y, text in scale.marks())
    yield label(left, top + _PLOT[1] + 14, f"{min(cost.found):,} to {max(cost.found):,} {cost.of}", color="#6b7280")


class _Scale:
    """Where the points of a plot are."""

    def __init__(self, cost: Cost, values: Sequence[float], left: float, top: float) -> None:
        counts = [math.log10(count) for count in cost.found]
        self._low, self._high = math.floor(math.log10(min(values))), math.ceil(math.log10(max(values)) + 0.01)
        self._first, self._across = min(counts), max(max(counts) - min(counts), 1)
        self._left, self._top = left, top

    def place(self, count: int, value: float) -> tuple[float, float]:
        x = (math.log10(count) - self._first) / self._across
        y = (math.log10(value) - self._low) / (self._high - self._low)
        return self._left + _PLOT[0] * x, self._top + _PLOT[1] * (1 - y)

    def line(self, values: Mapping[int, float], style: str) -> str:
        points = " ".join("{:.1f},{:.1f}".format(*self.place(*point)) for point in sorted(values.items()))
        return f'<polyline points="{points}" fill="none" {style}/>'

    def marks(self) -> Iterator[tuple[float, str]]:
        yield self._top + _PLOT[1], f"{10.0**self._low:g}"
        yield self._top + 8, f"{10.0**self._high:g}"
