"""Lives in which a log is checked or mended, with a fault at a file call: `tlog fsck`, import, and a start with peers.

How a life is lived, and which faults meet it, is in `tests/faulting.py`.
"""

import hashlib
import json
import secrets
import shutil
from collections.abc import Callable, Mapping
from contextlib import closing, suppress
from functools import partial
from pathlib import Path
from typing import Any, Final

from faulting import (
    SEGMENT,
    Bench,
    Faults,
    Life,
    Notes,
    Place,
    Visitor,
    enter,
    in_a_fork,
    judge_log,
    live,
    meet_one,
    run,
    short_life,
)
from recorder import judge
from tally import Tally
from witnessing import other_root

import tlog.fsck.run
import tlog.lost
import tlog.peers
import tlog.status
from tlog.access.action import CONTROL
from tlog.cli import main
from tlog.config import Config
from tlog.fsck.finding import HARMLESS
from tlog.fsck.run import Plan, check
from tlog.peers import Peers
from tlog.segments import Segments, read_segments, read_signer
from tlog.shell import report
from tlog.store.connection import connect
from tlog_client.transport import new_session
from tlog_core.checkpoint import Checkpoint, sign_checkpoint

Contents = Mapping[str, object]
"""Of each file of a place its bytes, or of a database its rows."""

_OTHER: Final = "other"
_KNOWN: Final = "known"


def contents(place: Place) -> Contents:
    """Return what is in the data folder and its anchors, whatever files SQLite has it in."""
    copy = place.root / "looked at"
    for folder in ("data", "data.anchor"):
        shutil.copytree(place.root / folder, copy / folder)
    paths = [path for path in copy.rglob("*") if path.suffix == ".db" or path.parent.name in ("keys", "data.anchor")]
    found = {str(path.relative_to(copy)): _content(path) for path in paths}
    shutil.rmtree(copy)
    return found


def _content(path: Path) -> object:
    if path.suffix != ".db":
        return path.read_bytes()
    with closing(connect(path)) as database:
        tables = database.execute("select name, sql from sqlite_schema order by name").fetchall()
        rows = [database.execute(f'select * from "{name}"').fetchall() for name, sql in tables if _is_table(sql)]  # noqa: S608
    return tables, rows


def _is_table(sql: str | None) -> bool:
    return sql is not None and sql.lower().startswith("create table")


def either(before: Contents, after: Contents) -> Callable[[Place], list[str]]:
    """Return what says which files of a place are neither as they were before nor as they are to be."""

    def between(place: Place) -> list[str]:
        found = contents(place)
        names = before.keys() | found.keys()
        return [f"{name} is neither as it was nor whole" for name in names if not _is_either(name, found)]

    def _is_either(name: str, found: Contents) -> bool:
        return found.get(name) in (before.get(name), after.get(name))

    return between


# fsck


def fsck_life(place: Place, notes: Notes) -> None:
    """Check a log that nobody serves, are interrupted, and go on."""
    for act, segments in (("check", 2), ("go on", 99)):
        enter(act)
        report(partial(_check, place, notes, segments))


def again_fsck_life(place: Place, notes: Notes) -> None:
    """Check what is not checked yet."""
    enter("check again")
    report(lambda: _check(place, notes, 99))


def served_fsck_life(place: Place, notes: Notes) -> None:
    """Start, check while events are logged, and stop."""
    live(place, notes, lambda visitor: _log_and_check(place, visitor))


def again_served_fsck_life(place: Place, notes: Notes) -> None:
    """Start, log, stop, and check what is not checked yet."""
    short_life(place, notes)
    again_fsck_life(place, notes)


def _log_and_check(place: Place, visitor: Visitor) -> None:
    for number in range(2):
        enter(f"append {number}")
        visitor.append(SEGMENT, f"{number}", *[b'"%d of %d"' % (one, number) for one in range(5)])
        enter(f"check {number}")
        # It is another process, whose end is not that of the server.
        with suppress(SystemExit):
            report(lambda: _check(place, visitor.notes, 99))


class InterruptedCheckError(Exception):
    """Who checks had to go."""


def _check(place: Place, notes: Notes, segments: int) -> None:
    """Check so many segments, or all, and keep what was found; complain of damage, which there is none."""
    setattr(tlog.fsck.run, "_SAVE_SECONDS", 0.0)  # noqa: B010
    done, found = list[str](), list[str]()

    def progress(name: str, *_: int) -> None:
        done.append(name)
        if len(done) == segments:
            raise InterruptedCheckError

    with suppress(InterruptedCheckError):
        for finding in check(Config(place.data), Plan((), 1, _resume(place)), progress):
            found.append(str(finding))
            if finding.kind not in HARMLESS:
                notes.complain(f"damage was found: {finding}")
        notes.keep({"kind": "checked", "findings": found})


def _resume(place: Place) -> Path:
    return place.root / "data.resume"


def judge_checked(place: Place) -> list[str]:
    """Say what of the log does not hold, and what the last check found, which was met by no fault.

    What is complained of already it may remember.
    """
    checked = [one["findings"] for one in place.recorder.seen() if one["kind"] == "checked"]
    known = "\n".join(place.complaints())
    wrong = [f"found without a fault: {finding}" for last in checked[-1:] for finding in last if finding not in known]
    return wrong + ["the check is not at its end"] * _resume(place).exists() + judge_log(place)


def fsck_faults(bench: Bench, life: Life = fsck_life) -> Faults:
    """Return what meets calls while a log is checked that nobody serves: it stays what it is."""
    before = contents(bench.place())
    return Faults(bench, life, again_fsck_life, judge_checked, either(before, before))


def served_fsck_faults(bench: Bench, life: Life = served_fsck_life) -> Faults:
    """Return what meets calls while a running log is checked."""
    return Faults(bench, life, again_served_fsck_life, judge_checked)


# Import


def import_life(place: Place, _: Notes) -> None:
    """Bring back what an older copy lacks."""
    for name in (CONTROL, SEGMENT):
        enter(f"import {name}")
        _import(place, name)


def again_import_life(place: Place, _: Notes) -> None:
    """Bring back what was not brought back yet; of what was, there is nothing, and the command says so."""
    enter("import again")
    for name in (CONTROL, SEGMENT):
        with suppress(SystemExit):
            _import(place, name)


def _import(place: Place, name: str) -> None:
    later = place.root / "data.later"
    try:
        main.main(["segment", "import", name, str(later), "--data", str(place.data)])
    except SystemExit as end:
        if end.code:
            raise


def import_faults(bench: Bench, life: Life = import_life) -> Faults:
    """Return what meets calls while what was lost is brought back: each segment is as it was, or whole."""
    base = _lose(bench)
    before, whole = contents(bench.place(base)), bench.place(base)
    with whole.notes() as notes:
        assert in_a_fork(lambda: import_life(whole, notes), whole.root / "log") == 0
    return Faults(bench, life, again_import_life, judge_log, either(before, contents(whole)), base=base)


def _lose(bench: Bench) -> Path:
    """Make a place where a log is an older copy than its anchors know; the later one is beside it."""
    place = bench.place()
    with place.notes() as notes:
        assert in_a_fork(lambda: live(place, notes, _more), place.root / "log") == 0
    place.data.rename(place.root / "data.later")
    shutil.copytree(bench.base / "data", place.data)
    return place.root


def _more(visitor: Visitor) -> None:
    visitor.append(SEGMENT, "more", *[b'"more %d"' % place for place in range(20)])
    visitor.append(SEGMENT, "one more", b'"one more"')
    visitor.issue("till-8")


# Peers


def peered_life(place: Place, notes: Notes) -> None:
    """Start with a peer that has seen what two segments have not, be written to, and stop."""
    known = json.loads((place.root / _KNOWN).read_text())
    setattr(tlog.peers, "_fetch", lambda _, url: known.get(url.split("/")[-2], "").encode() or None)  # noqa: B010
    ask_at_once()
    live(place, notes, _write_to_each, peers=place.root / "data.peers")


def _write_to_each(visitor: Visitor) -> None:
    for name in (SEGMENT, _OTHER):
        enter(f"append to {name}")
        visitor.append(name, "contradiction", b'"contradiction"')
    enter("create")
    visitor.create("second")
    # As new ones, which no earlier life was refused.
    one = secrets.token_hex(8)
    visitor.append("second", one, b'"%b"' % one.encode())


def ask_at_once() -> None:
    """Have peers asked by whoever waits for them: of the threads of a life only the first meets faults."""

    def keep(self: Peers, segments: Segments) -> None:
        setattr(self, "opened", segments)  # noqa: B010

    def wait(self: Any, segment: str, seconds: float) -> bool:
        if seconds and segment not in self._asked:
            self._ends[segment] = 0.0
            with new_session(seconds) as session:
                self._ask(self.opened, session, segment)
        return segment in self._asked

    setattr(Peers, "keep", keep)  # noqa: B010
    setattr(Peers, "wait", wait)  # noqa: B010


def peers_faults(bench: Bench, life: Life = peered_life) -> Faults:
    """Return what meets calls while a log asks a peer: what the peer contradicts never goes on, and the rest does."""
    place = bench.place()
    (place.root / "data.peers").write_text("http://127.0.0.1:1\n")
    (place.root / _KNOWN).write_text(json.dumps(_contradictions(place)))
    before = {row.name: head.note for row, head in read_segments(Config(place.data))}
    return Faults(bench, life, peered_life, lambda place: judge_peered(place, before), base=place.root)


def _contradictions(place: Place) -> Mapping[str, str]:
    """Return what the log has signed elsewhere: of the first segment another history, of the other a later head."""
    config, found = Config(place.data), {}
    for row, head in read_segments(config):
        if row.name in (SEGMENT, _OTHER):
            size = head.size - 50 if row.name == SEGMENT else head.size + 1
            note = sign_checkpoint(Checkpoint(row.origin, size, other_root()), read_signer(config, row))
            found[hashlib.sha256(row.origin.encode()).hexdigest()] = bytes(note).decode()
    return found


def judge_peered(place: Place, before: Mapping[str, bytes]) -> list[str]:
    """Say which segment signed what a peer contradicts, or is not frozen, and what is wrong with the others."""
    seen, wrong = place.recorder.seen(), list[str]()
    notes = {row.name: head.note for row, head in read_segments(Config(place.data))}
    for name in (SEGMENT, _OTHER):
        wrong += [f"{name} signed, and a peer has another history"] * (notes[name] != before[name])
        answers = [one["problem"] for one in seen if one.get("asked") == f"POST /segments/{name}/entries"]
        wrong += [f"{name} is not frozen: {answers[-1:]}"] * (answers[-1:] != ["frozen"])
    verdict = judge(place.data, [one for one in seen if one.get("segment") not in (SEGMENT, _OTHER)])
    wrong += [one for one in verdict.wrong if not one.startswith((f"{SEGMENT}: frozen:", f"{_OTHER}: frozen:"))]
    return wrong + [f"{name} refuses to sign: {why}" for name, why in verdict.refused.items()]


# The long form


def run_fsck(seed: int, seconds: float) -> Tally:
    """Meet a call in a check of a log, and another while that is gone on with, for so long."""
    return run(seed, seconds, fsck_faults, Faults.try_two)


def run_served_fsck(seed: int, seconds: float) -> Tally:
    """Meet one call after another in a check of a log that runs, for so long."""
    return run(seed, seconds, served_fsck_faults, meet_one)


def run_import(seed: int, seconds: float) -> Tally:
    """Meet one call after another while what was lost is brought back, for so long."""
    return run(seed, seconds, import_faults, meet_one)


def run_peers(seed: int, seconds: float) -> Tally:
    """Meet a call in a start with peers, and another in the start after it, for so long."""
    return run(seed, seconds, peers_faults, Faults.try_two)
