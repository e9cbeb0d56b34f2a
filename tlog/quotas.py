"""Quotas, which the workers of a server share (spec/access.md, "Quotas").

Each quota that somebody draws on is one number in a file that is mapped into memory: the time up to which what was
admitted is paid for, at the quota's rate (the generic cell rate algorithm). It may run ahead by a second. Two processes
that draw at the same instant may count as one, which lets a little more through.
"""

import hashlib
import struct
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tlog.access.rule import Each, Quota
from tlog.errors import QuotaError
from tlog.files import map_file

_SLOT: Final = struct.Struct("<QQ")
_SLOTS: Final = 1 << 16
_PROBES: Final = 16
_AHEAD: Final = 1_000_000
"""By how much one may be ahead, in microseconds: a second's worth may come at once."""

_LONGEST: Final = 3_600_000_000
"""A time farther ahead than this many microseconds was left by the clock of before a reboot."""


@dataclass(frozen=True, slots=True)
class Draw:
    """What a request draws on a quota: who sends it, to which segment, and how many bytes."""

    quota: Quota
    principal: str
    segment: str
    body: int


class Quotas:
    """What was drawn on each quota. Threads and processes share it."""

    def __init__(self, path: Path, clock: Callable[[], int]) -> None:
        """Open the file at `path`, made if it is not there. `clock` is in microseconds, and nobody sets it."""
        self._map = map_file(path, _SLOTS * _SLOT.size)
        self._clock = clock

    def draw(self, draws: Sequence[Draw]) -> None:
        """Count what one request draws; raise QuotaError, and count nothing, if a quota is used up for now.

        However much it draws on one quota, that counts as one: what is ahead already is what it is refused for.
        """
        now, owed = self._clock(), Counter[int]()
        for one in draws:
            for tag, microseconds in _costs(one):
                _, paid = self._find(tag, now)
                if paid - now > _AHEAD:
                    wait = (paid - now - _AHEAD) / 1_000_000
                    raise QuotaError(f'the quota "{one.quota.name}" is used up for now; retry later', wait)
                owed[tag] += microseconds
        for tag, microseconds in owed.items():
            place, paid = self._find(tag, now)
            # More would be taken for what another clock has left.
            _SLOT.pack_into(self._map, place, tag, min(max(paid, now) + microseconds, now + _LONGEST - 1))

    def give_back(self, draws: Sequence[Draw]) -> None:
        """Count what one request drew no more."""
        for one in draws:
            for tag, microseconds in _costs(one):
                now = self._clock()
                place, paid = self._find(tag, now)
                _SLOT.pack_into(self._map, place, tag, max(now, paid - microseconds))

    def used(self, quota: Quota, of: str) -> float:
        """Return how much of what may come at once is used now, from 0 to 1.

        `of` is the principal or the segment if each has its own, and is not looked at if not.
        """
        now = self._clock()
        ahead = max(self._find(tag, now)[1] - now for tag, _ in _costs(Draw(quota, of, of, 0)))
        return min(max(ahead / _AHEAD, 0.0), 1.0)

    def _find(self, tag: int, now: int) -> tuple[int, int]:
        """Return the place of a slot, and the time up to which it is paid for; one that is past is anybody's."""
        free = None
        for probe in range(_PROBES):
            place = (tag + probe) % _SLOTS * _SLOT.size
            owner, paid = _SLOT.unpack_from(self._map, place)
            if owner == tag and paid - now < _LONGEST:
                return place, paid
            if free is None and (paid <= now or paid - now >= _LONGEST):
                free = place
        # All taken: sixteen others at one place of 65,536. Whoever comes then shares with the first.
        return (tag % _SLOTS * _SLOT.size if free is None else free), now


def _costs(draw: Draw) -> Iterator[tuple[int, int]]:
    """Yield each number that is drawn on, by its tag, and how many microseconds that costs there."""
    quota = draw.quota
    of = {Each.PRINCIPAL: draw.principal, Each.SEGMENT: draw.segment, None: ""}[quota.each]
    for unit, rate, cost in (("requests", quota.requests_per_second, 1), ("bytes", quota.bytes_per_second, draw.body)):
        if rate is not None:
            key = f"{quota.name}\n{unit}\n{of}"
            tag = int.from_bytes(hashlib.sha256(key.encode()).digest()[:8], "little") | 1
            yield tag, int(cost / rate * 1_000_000)
