"""`control.db` against the entries of the segment `control`: each change is made anew, and the tables are compared."""

from collections.abc import Iterator, Mapping
from contextlib import closing
from typing import Final

from tlog.access.action import CONTROL, RESERVED
from tlog.access.change import decode_change
from tlog.config import Config
from tlog.control import project
from tlog.errors import CorruptError
from tlog.fsck.chunk import Breathe
from tlog.fsck.finding import Finding, Kind, fault_of
from tlog.store.audit import Audit, ControlAudit, Projection, Row
from tlog.store.codec import LOST, Payload, decode_payloads
from tlog_core.errors import TlogError

_UNRECORDED: Final = {("token", "last_used")}
"""Columns that no entry speaks of."""

_OWN: Final = {("segment", name) for name in RESERVED}
"""Rows that were there before the first entry."""

Tables = Mapping[str, Mapping[str, Row]]


def check_records(config: Config, breathe: Breathe = lambda _: None) -> Iterator[Finding]:
    """Yield what of `control.db` is not what the entries say, or is damaged; CorruptError if it cannot be read."""
    try:
        with closing(ControlAudit(config.control)) as audit:
            yield from (Finding("", "control.db", Kind.CONTROL, text) for text in audit.faults())
            # Before the entries: one that comes meanwhile is not expected.
            tables = audit.tables()
    except CorruptError as error:
        raise CorruptError(f"control.db cannot be read: {error}") from None
    try:
        yield from _compare(config, tables, breathe)
    except TlogError as error:
        yield Finding(CONTROL, *fault_of("database", Kind.FILE, error))


def _compare(config: Config, tables: Tables, breathe: Breathe) -> Iterator[Finding]:
    log, recorded, own = tables["log"].get("1"), tables["recorded"].get("1"), tables["segment"].get(CONTROL)
    if log is None or recorded is None or own is None:
        yield Finding("", "control.db", Kind.CONTROL, f"the log, the count of changes or the segment {CONTROL} is gone")
        return
    made = Projection(str(log["name"]))
    with closing(Audit(config.segment(str(own["id"])))) as audit:
        for index in range(int(recorded["entries"])):
            try:
                if (payload := _payload(audit, index)) == LOST:
                    yield Finding(
                        CONTROL,
                        f"entry {index}",
                        Kind.LOOSE,
                        "its payload is lost, so that control.db cannot be compared",
                    )
                    return
                project(made.changing, decode_change(payload.data))
                made.changing.count_entry(index)
            except TlogError as error:
                yield Finding(CONTROL, *fault_of(f"entry {index}", Kind.CONTROL, error))
                return
            breathe(1)
    yield from _differences(tables, made.tables(), int(own["created"]))


def _payload(audit: Audit, index: int) -> Payload:
    run = audit.payload(index)
    if run is None or run.start + run.count <= index:
        raise CorruptError("control.db counts it, and it is missing from the store; restore both, of one time")
    payloads = decode_payloads(run.blob, run.openings)
    if len(payloads) != run.count:
        raise CorruptError("its run of payloads holds more or fewer than it says")
    return payloads[index - run.start]


def _differences(stored: Tables, made: Tables, since: int) -> Iterator[Finding]:
    """Yield what differs; of segments that were made before `since`, when `control` was, there is no record."""
    for table in sorted(made):
        for key in sorted({*stored.get(table, {}), *made[table]}):
            if (table, key) in _OWN:
                continue
            one, other = stored[table].get(key), made[table].get(key)
            if table == "segment" and other is None and one is not None and one["created"] < since:
                continue
            texts = [_gone(one)] if one is None or other is None else _columns(table, one, other)
            name = key if table == "segment" else ""
            for text in texts:
                yield Finding(name, f"control.db, {table} {key}", Kind.CONTROL, text)


def _gone(stored: Row | None) -> str:
    return f"it is {'missing' if stored is None else 'not to be there'}, as the entries of {CONTROL} say"


def _columns(table: str, stored: Row, made: Row) -> list[str]:
    return [
        f"{column} is not what the entries of {CONTROL} say"
        for column in made
        if (table, column) not in _UNRECORDED and stored.get(column) != made[column]
    ]
