"""What a draft of a policy changes (spec/access.md, "Comparing"), as far as a page can show it."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from difflib import unified_diff
from itertools import takewhile
from typing import Final

from tlog.access.compare import Change, compare
from tlog.access.document import read_policy
from tlog.access.effort import Budget
from tlog.access.rule import Policy, Target
from tlog.access.wording import restated
from tlog.control import Control
from tlog.errors import PolicyError

_MAX_SECONDS: Final = 1.0
_MAX_STEPS: Final = 5_000_000
_MAX_SEGMENTS: Final = 1_000
_MAX_CHANGES: Final = 500
_MAX_LINES: Final = 2_000
_CONTEXT: Final = 3


@dataclass(frozen=True, slots=True)
class Difference:
    """What another policy changes: what it states, who gains and loses what, and lines of its text.

    `changes` or `lines` are None where there is too much to compare; `more` counts the changes that are left out.
    `same` says that it is the policy in force, to the letter.
    """

    same: bool
    restated: Sequence[str]
    changes: Sequence[Change] | None
    more: int
    lines: Sequence[str] | None


def difference(control: Control, document: str, new: Policy, draft: str) -> Difference:
    """Return what a draft, which states the policy `new`, changes of the document in force."""
    old = read_policy(document.encode())
    changes = _changes(control, old, new)
    few = None if changes is None else changes[:_MAX_CHANGES]
    more = len(changes or ()) - len(few or ())
    lines = _lines(*(text.removesuffix("\n").split("\n") for text in (document, draft)))
    return Difference(document == draft, restated(old, new), few, more, lines)


class _Patience(Budget):
    """Ends a comparison also by the time of the processor that it took."""

    def __init__(self) -> None:
        super().__init__(_MAX_STEPS)
        self._end = time.thread_time() + _MAX_SECONDS

    def step(self, steps: int) -> None:
        super().step(steps if time.thread_time() < self._end else _MAX_STEPS + 1)


def _changes(control: Control, old: Policy, new: Policy) -> Sequence[Change] | None:
    now = control.now()
    targets = [Target(row.name, row.labels) for row in control.store.list(limit=_MAX_SEGMENTS + 1)]
    if len(targets) > _MAX_SEGMENTS:
        return None
    try:
        return list(compare(old, new, control.store.holders(now), targets, now=now, step=_Patience().step))
    except PolicyError:
        return None


def _lines(old: Sequence[str], new: Sequence[str]) -> list[str] | None:
    # Most of a long policy stays as it is, and to compare the rest takes time by its square.
    head = _alike(old, new)
    tail = min(_alike(old[::-1], new[::-1]), min(len(old), len(new)) - head)
    if max(len(old), len(new)) - head - tail > _MAX_LINES:
        return None
    first, last = max(head - _CONTEXT, 0), max(tail - _CONTEXT, 0)
    found = unified_diff(old[first : len(old) - last], new[first : len(new) - last], lineterm="", n=_CONTEXT)
    return list(found)[2:]


def _alike(one: Sequence[str], other: Sequence[str]) -> int:
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(one, other, strict=False)))
