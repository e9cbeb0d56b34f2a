"""What is to be said of a segment, to who looks after it: whether it takes entries, and if not, why and what to do."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from tlog.access.action import CONTROL, RESERVED
from tlog.clock import now
from tlog.config import Config
from tlog.errors import CorruptError
from tlog.segments import Nobody, Segment, Segments, check_begun, prepare_data
from tlog.store.cosigned import BY_FSCK, Frozen


@contextmanager
def open_segments(config: Config, *, begin: bool = False, log_name: str | None = None) -> Iterator[Segments]:
    """Open the segments of a folder, whether or not a server runs; `begin` a log if there is none, else ConfigError."""
    if not begin:
        check_begun(config)
    prepare_data(config, log_name)
    segments = Segments(config, Nobody(), now)
    try:
        yield segments
    finally:
        segments.close()


def describe_all(config: Config, names: Sequence[str]) -> tuple[list[str], bool]:
    """Return what there is to say of these segments, or of all, as lines, and whether all are well; NotFoundError."""
    with open_segments(config) as segments:
        found = [describe(segments, name) for name in names or [row.name for row in segments.list()]]
    return [line for lines, _ in found for line in lines], all(well for _, well in found)


def describe(segments: Segments, name: str) -> tuple[list[str], bool]:
    """Return what there is to say of a segment, as lines, and whether it is well; NotFoundError."""
    try:
        with segments.use(name) as segment:
            return _describe(segment)
    except CorruptError as error:
        return [f"{name}: damaged: {error}", *(f"  {line}" for line in _advice_for_lost(segments, name))], False


def _advice_for_lost(segments: Segments, name: str) -> list[str]:
    row = segments.control.find(name)
    if name in RESERVED or row.sealed is not None or not segments.missing_files(row):
        return []
    return [f"if nobody has it, tlog segment succeed {name} NEW_NAME   closes it, and goes on in a new segment"]


def _describe(segment: Segment) -> tuple[list[str], bool]:
    name, head = segment.row.name, segment.store.head()
    frozen = segment.frozen()
    if frozen is None:
        state = "sealed" if head.sealed else "open"
        return [f"{name}: {state}, {head.size} entries"], True
    lines = [f"{name}: frozen at {head.size} entries: {frozen.reason}"]
    if segment.row.sealed is None:
        lines += [f"  {line}" for line in _advice(segment, frozen)]
    return lines, False


def _advice(segment: Segment, frozen: Frozen) -> list[str]:
    name = segment.row.name
    advice = ["it serves reads and signs nothing. Put back the data that is the latest, with its anchor; or"]
    if frozen.witness == BY_FSCK:
        advice.append(f"tlog segment accept {name}   once tlog fsck {name} finds nothing more")
    else:
        advice.append(
            f"tlog segment import {name} SOURCE...   brings back what a later copy, a mirror or receipts have"
        )
    if name == CONTROL:
        advice.append("nothing of access changes before that; if nobody has its payloads, begin another log")
    if name not in RESERVED:
        advice.append(f"tlog segment succeed {name} NEW_NAME   closes it, and goes on in a new segment")
    if frozen.witness is None:
        advice.append(f"tlog segment accept {name}   if the anchor is gone, and nothing was signed after this")
    return advice
