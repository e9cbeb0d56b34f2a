"""What `scripts/bench peers` found, as a table and as a chart."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import Any, Final

from bench import Target, verdicts
from bench_svg import label, picture


@dataclass(frozen=True, slots=True)
class Measured:
    """A log under one load: entries a second, milliseconds until an entry's proof is verified, and what that took.

    Where only proofs are asked for, each counts as an entry.

    `cpu` is in seconds for a million entries, `disk` in bytes an entry, or None after few entries, `memory` in MiB.
    """

    peer: str
    settings: str
    load: str
    proves: bool
    rate: float
    p50: float
    p99: float
    cpu: float
    disk: float | None
    memory: float


@dataclass(frozen=True, slots=True)
class Comparison:
    """A run: on what, how long each load was measured, the figures, and why some are missing."""

    machine: Mapping[str, Any]
    seconds: int
    figures: list[Measured]
    missing: dict[str, str]


COLUMNS: Final[Mapping[str, str]] = {
    "rate": "entries/s",
    "p50": "p50 ms",
    "p99": "p99 ms",
    "cpu": "CPU s/M",
    "disk": "B/entry",
    "memory": "MiB",
}
_OWN: Final = "tlog"
_WRITER: Final = "tlog Writer"
_PROOFS: Final = "inclusion proofs"


def tabulate(found: Comparison) -> Iterator[str]:
    """Yield the lines of the table, of the settings, of what is missing, and of who is ahead."""
    names = [f"{one.peer}: {one.load}" for one in found.figures]
    width = max(map(len, names), default=0)
    yield f"{'':{width}}" + "".join(f"  {title:>10}" for title in COLUMNS.values())
    for name, one in zip(names, found.figures, strict=True):
        yield f"{name:{width}}" + "".join(f"  {_figure(one, column):>10}" for column in COLUMNS)
    yield ""
    for peer, settings in {one.peer: one.settings for one in found.figures}.items():
        yield f"{peer}: {settings}"
    for name, reason in found.missing.items():
        yield f"missing: {name}: {reason}"
    yield from ("", *verdicts(list(judge(found.figures))))


def _figure(one: Measured, column: str) -> str:
    value = getattr(one, column)
    return "" if value is None else f"{value:,.1f}"


def judge(figures: Sequence[Measured]) -> Iterator[Target]:
    """Yield how tlog compares with the best of its peers, as far as both were measured.

    A hash chain has no proofs under a signed head: it is in the table, and not among these.
    """
    yield from _judge_proofs([one for one in figures if one.load.startswith(_PROOFS)])
    figures = [one for one in figures if not one.load.startswith(_PROOFS)]
    own = {one.load: one for one in figures if one.peer == _OWN}
    peers = [one for one in figures if one.proves and one.peer not in {_OWN, _WRITER}]
    if not peers:
        return
    best = max(peers, key=attrgetter("rate"))
    batches = [one for load, one in own.items() if load.startswith("batches of 1,000")]
    if batches:
        rate = max(one.rate for one in batches)
        yield Target(f"batches of 1,000, of {best.peer}, {best.load}", rate / best.rate, "times", at_least=5)
    for one in figures:
        if one.peer == _WRITER:
            yield Target(f"Writer, of {best.peer}, {best.load}", one.rate / best.rate, "times", at_least=3)
    yield from _judge_single(own, peers)
    if own:
        least = min(peers, key=attrgetter("cpu"))
        ours = min(one.cpu for one in own.values())
        yield Target(f"the least CPU, of {least.peer}, {least.load}", ours / least.cpu, "times", at_most=1)


def _judge_proofs(figures: Sequence[Measured]) -> Iterator[Target]:
    for one in figures:
        if one.peer == _OWN:
            for peer in figures:
                if peer.load == one.load and peer is not one:
                    yield Target(f"{one.load}, of {peer.peer}", one.rate / peer.rate, "times", at_least=1)


def _judge_single(own: Mapping[str, Measured], peers: Sequence[Measured]) -> Iterator[Target]:
    load = "single entries, 64 at once"
    same = [one for one in peers if one.load == load]
    if load in own and same:
        fastest = max(same, key=attrgetter("rate"))
        soonest, least = min(same, key=attrgetter("p99")), min(same, key=attrgetter("cpu"))
        yield Target(f"{load}, of {fastest.peer}", own[load].rate / fastest.rate, "times", at_least=1)
        yield Target(f"{load}, p99 of {soonest.peer}", own[load].p99 / soonest.p99, "times", at_most=0.1)
        yield Target(f"{load}, CPU of {least.peer}", own[load].cpu / least.cpu, "times", at_most=1)


_LINE: Final = 18
_HEAD: Final = 44
_LABEL: Final = 380
_COLUMN: Final = 150


def draw(found: Comparison) -> str:
    """Return an SVG with a line for each load and a column of bars for each figure, all on scales of powers of ten."""
    width, height = _LABEL + _COLUMN * len(COLUMNS), _HEAD + _LINE * (len(found.figures) + 1)
    title = f"{found.machine['date']}, {found.machine['cpus']} CPUs, {found.seconds} s a load; bars are logarithmic"
    parts = [label(8, 16, title)]
    for number, one in enumerate(found.figures):
        top = _HEAD + _LINE * number + 12
        parts.append(label(8, top, f"{one.peer}: {one.load}", bold=one.peer.startswith(_OWN)))
    for place, (column, name) in enumerate(COLUMNS.items()):
        left = _LABEL + _COLUMN * place
        parts.append(label(left, 34, name, bold=True))
        parts += _bars(left, [(number, getattr(one, column), one.peer) for number, one in enumerate(found.figures)])
    return picture(width, height, parts)


def _bars(left: int, rows: Sequence[tuple[int, float | None, str]]) -> Iterator[str]:
    # The least gets a bar too: it begins at the power of ten below it.
    powers = {number: math.log10(max(value, 0.01)) for number, value, _ in rows if value is not None}
    low = math.floor(min(powers.values(), default=0) - 0.01)
    span = max(powers.values(), default=0) - low
    for number, value, peer in rows:
        if value is not None:
            top, length = _HEAD + _LINE * number, 80 * (powers[number] - low) / span
            color = "#2563eb" if peer.startswith(_OWN) else "#9ca3af"
            yield f'<rect x="{left}" y="{top + 2}" width="{length:.1f}" height="{_LINE - 5}" fill="{color}"/>'
            yield label(left + length + 4, top + 12, f"{value:,.{0 if value >= 1_000 else 1}f}")
