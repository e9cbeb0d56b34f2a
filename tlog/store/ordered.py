"""Values in their order, of which there may be more than memory has room for (`spec/fsck.md`)."""

import os
from collections.abc import Iterator
from heapq import merge
from itertools import islice, pairwise
from tempfile import TemporaryFile
from typing import Final

_RUN: Final = 65_536
_READ: Final = 256


def in_order(values: Iterator[bytes], width: int) -> Iterator[bytes]:
    """Yield values of `width` bytes each in their order; OSError.

    All are taken at the first. As many as fit into memory are sorted at a time, and wait in a file that is gone with
    this iterator.
    """
    with TemporaryFile() as file:
        ends = [0]
        while run := sorted(islice(values, _RUN)):
            ends.append(ends[-1] + file.write(b"".join(run)))
        file.flush()
        yield from merge(*(_read(file.fileno(), start, end, width) for start, end in pairwise(ends)))


def _read(file: int, start: int, end: int, width: int) -> Iterator[bytes]:
    for place in range(start, end, _READ * width):
        part = os.pread(file, min(_READ * width, end - place), place)
        yield from (part[at : at + width] for at in range(0, len(part), width))
