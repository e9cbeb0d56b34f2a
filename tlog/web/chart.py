"""How a segment grew, as a picture: a step line over time, in the coordinates of an SVG of fixed size."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from tlog.web.overview import Sample

WIDTH: Final = 640
HEIGHT: Final = 160


@dataclass(frozen=True, slots=True)
class Chart:
    """The line and the area below it, as data of SVG paths, and what stands at the ends of the axes."""

    line: str
    area: str
    first: int
    last: int
    most: int


def chart(samples: Sequence[Sample], now: int) -> Chart | None:
    """Return the picture of a growth up to `now`, in milliseconds; None of less than two entries."""
    if len(samples) < 2:
        return None
    first, last = samples[0].time, max(now, samples[-1].time)
    span, most = max(last - first, 1), samples[-1].size
    points = [(WIDTH * (one.time - first) / span, HEIGHT * (1 - one.size / most)) for one in samples]
    steps = "".join(f"H{x:.1f}V{y:.1f}" for x, y in points)
    line = f"M0 {HEIGHT}{steps}H{WIDTH}"
    return Chart(line, f"{line}V{HEIGHT}Z", first, last, most)
