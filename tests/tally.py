"""What came of trying many points of one class of faults."""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Tally:
    """How many points were tried, and what was wrong at which, a line for each finding."""

    points: int
    wrong: Sequence[str]
