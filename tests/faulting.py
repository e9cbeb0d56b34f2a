"""A log in one process, with a fault at one of its file calls, or from one on; and then another while it recovers.

A life is lived by a fork of this process: start, requests to the real app, stop. strace attaches to it, names its file
calls below the data folder, and has one of them fail or be the last. What an outsider saw goes to `tests/recorder.py`,
which judges in the end. Whoever lives answers for how errors look: a problem 503, or a line and a status; what else
comes is kept as a complaint.

A call is known by its number among those of its name since strace attached, which is the same in each life over the
same folder; whether the fault met it shows in the trace.
"""

import contextlib
import io
import json
import os
import random
import re
import secrets
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

from flask import Flask
from flask.testing import FlaskClient
from recorder import Recorder, Seen, judge
from tally import Tally
from werkzeug.test import TestResponse
from witnessing import NAME as WITNESS
from witnessing import contradictions, make_log

from tlog.app import create_app
from tlog.backup import Manifest, back_up, restore
from tlog.clock import now
from tlog.config import Config
from tlog.control import Control
from tlog.files import lock_data
from tlog.fsck.run import Plan, check
from tlog.logs import make_logger
from tlog.quickstart import begin
from tlog.segments import Nobody, Segments, prepare_data
from tlog.serve import Listen, _fold, _prepare_access
from tlog.shell import report
from tlog.store.witness import WitnessStore
from tlog.witness.app import create_app as witness_app
from tlog.witness.cosigner import Witness
from tlog.witness.folder import Folder
from tlog_core.errors import TlogError

LOG_NAME: Final = "example.com/audit"
SEGMENT: Final = "first"
WITNESSED: Final = make_log("example.com/witnessed", 30)
PATIENCE: Final = 240.0
TRIES: Final = 4
JSON: Final = "application/json"
NDJSON: Final = "application/x-ndjson"
NO_HEADERS: Final[Mapping[str, str]] = MappingProxyType({})

OPENS = ("openat", "mkdir")
READS = ("read", "pread64", "newfstatat", "access", "getdents64", "lseek")
WRITES = ("write", "pwrite64", "fsync", "fdatasync", "ftruncate", "fallocate", "rename", "unlink", "rmdir", "sendfile")
LOCKS = ("flock", "fcntl")
CALLS: Final = (*OPENS, *READS, *WRITES, *LOCKS, "mmap", "close")

_NAME = re.compile(r"(\w+)\(")
_ACT = re.compile(r'access\("/act/([\w ]+)"')


@dataclass(frozen=True)
class Point:
    """The `number`-th call of this name, during this act, and the file that it is about."""

    act: str
    call: str
    number: int
    file: str


@dataclass(frozen=True)
class Fault:
    """What happens at a call, as strace says it; if it `lasts`, at each later call of the name too."""

    what: str
    lasts: bool = False

    def inject(self, point: Point) -> str:
        """Return what strace is told."""
        return f"inject={point.call}:{self.what}:when={point.number}{'+' if self.lasts else ''}"


KILL: Final = Fault("signal=SIGKILL")
EIO: Final = Fault("error=EIO")


def faults_of(call: str) -> Iterator[Fault]:
    """Yield what may happen at a call of this name."""
    yield KILL
    # Injected, a close would not close, and Linux closes whatever it says. A lock that fails SQLite takes for one that
    # another holds, and waits 30 seconds for it.
    if call in ("close", "fcntl"):
        return
    for lasts in (False, True):
        yield Fault(f"error={'ENOMEM' if call == 'mmap' else 'EIO'}", lasts)
        if call in (*OPENS, "write", "pwrite64", "sendfile", "fallocate", "rename", "ftruncate"):
            yield Fault("error=ENOSPC", lasts)
        if call == "openat":
            yield Fault("error=EMFILE", lasts)
    if call in ("openat", "read", "pread64", "write", "pwrite64", "fsync", "fdatasync", "ftruncate", "flock"):
        # Whoever is interrupted tries again, for as long as that takes.
        yield Fault("error=EINTR")


@dataclass(frozen=True)
class Notes(Recorder):
    """A recorder, and who keeps complaints, whose files are open already, and written by a call that no fault meets."""

    seen_in: int = -1
    complaints_in: int = -1

    def keep(self, one: Seen) -> None:
        os.writev(self.seen_in, [json.dumps(one).encode() + b"\n"])

    def complain(self, line: str) -> None:
        os.writev(self.complaints_in, [f"{line}\n".encode()])


Life = Callable[["Place", Notes], None]
"""Lives in the data folder of a place, and tells what comes of it."""


_DAMAGED = re.compile("urn:tlog:problem:corrupt|what the witness stores is damaged|damage was found")
_CLEAR = ((503, "unavailable"), (503, "outcome-unknown"))


def problem(response: TestResponse) -> str:
    """Return which problem an answer is, "" if it is none."""
    if response.content_type != "application/problem+json":
        return ""
    return str(json.loads(response.data)["type"]).removeprefix("urn:tlog:problem:")


@dataclass
class Visitor:
    """Asks the app as clients do, sends again what failed, and complains of what is no clear answer."""

    client: FlaskClient
    tokens: Mapping[str, str]
    notes: Notes

    def ask(
        self, who: str, method: str, path: str, body: bytes | None = None, headers: Mapping[str, str] = NO_HEADERS
    ) -> TestResponse:
        """Send one request as one of the three people."""
        sent = {"Authorization": f"Bearer {self.tokens[who]}", **headers}
        response = self.client.open(path, method=method, data=body, headers=sent)
        self.notes.keep({"kind": "answer", "asked": f"{method} {path}", "problem": problem(response)})
        if response.status_code >= 500 and (response.status_code, problem(response)) not in _CLEAR:
            self.notes.complain(f"{method} {path} got {response.status_code}: {response.text!r}")
        return response

    def insist(
        self, who: str, method: str, path: str, body: bytes | None = None, headers: Mapping[str, str] = NO_HEADERS
    ) -> TestResponse:
        """Ask until the answer is none of a failing disk."""
        for _ in range(TRIES):
            response = self.ask(who, method, path, body, headers)
            if response.status_code != 503:
                return response
        return response

    def append(self, segment: str, key: str, *events: bytes) -> None:
        """Log events, as one or as a batch, under a key."""
        kind = NDJSON if len(events) > 1 else JSON
        sent = self.notes.sent(segment, events, key, batch=len(events) > 1, writer="writer")
        headers = {"Content-Type": kind, "Idempotency-Key": key}
        kinds = set()
        for _ in range(TRIES):
            response = self.ask("writer", "POST", f"/segments/{segment}/entries", b"\n".join(events), headers)
            if response.status_code == 201:
                self.notes.receipt(sent, response.data)
                return
            kinds.add(problem(response))
        # It was said each time that nothing was logged.
        if kinds == {"unavailable"}:
            self.notes.refused(sent)

    def create(self, segment: str) -> None:
        response = self.insist("admin", "PUT", f"/segments/{segment}")
        if response.status_code in (200, 201):
            self.notes.created(segment, json.loads(response.data)["vkey"])

    def apply(self, line: str) -> None:
        """Put a policy in force that has one more line."""
        found = self.insist("admin", "GET", "/policy")
        if found.status_code != 200:
            return
        document = f"{found.text}\n# {line}\n"
        headers = {"Content-Type": "application/toml", "If-Match": found.headers["ETag"]}
        response = self.insist("admin", "PUT", "/policy", document.encode(), headers)
        if response.status_code == 200:
            self.notes.policy(json.loads(response.data)["version"], document)
        elif response.status_code == 409 and self.insist("admin", "GET", "/policy").text != document:
            self.notes.complain(f"the policy is another: {response.text}")

    def issue(self, principal: str) -> None:
        body = json.dumps({"principal": principal, "groups": [], "days": 1}).encode()
        response = self.insist("admin", "POST", "/tokens", body, {"Content-Type": JSON})
        if response.status_code == 201:
            self.notes.token(json.loads(response.data)["token"])

    def read(self, segment: str, index: int) -> None:
        response = self.insist("auditor", "GET", f"/segments/{segment}/entries/{index}")
        if response.status_code == 200:
            self.notes.entries(segment, response.data)

    def look(self, segment: str) -> None:
        response = self.insist("auditor", "GET", f"/segments/{segment}/checkpoint")
        if response.status_code == 200:
            self.notes.note(segment, response.data)

    def seal(self, segment: str) -> None:
        self.notes.sealing(segment)
        if self.insist("admin", "PUT", f"/segments/{segment}/seal").status_code == 200:
            self.notes.sealed(segment)


def enter(act: str) -> None:
    """Say in the trace which act begins."""
    os.access(f"/act/{act}", os.F_OK)


def start(config: Config) -> Any:
    """Start as `tlog serve` and its worker do, and return the app."""
    lock_data(config.lock, shared=False)
    prepare_data(config, LOG_NAME)
    _prepare_access(config, Listen("127.0.0.1", 1, 1), begins=False)
    return create_app(config, locked=True)


def whole_life(place: "Place", notes: Notes) -> None:
    """Start, do everything once, and stop."""
    live(place, notes, _everything)


def short_life(place: "Place", notes: Notes) -> None:
    """Start, look, append, and stop: what comes after a fault."""
    live(place, notes, _a_little)


def first_life(place: "Place", _: Notes) -> None:
    """Begin a log in a folder that is not there, or in what is left of an earlier attempt."""
    enter("first start")
    report(lambda: _begin(Config(place.data)))


def _begin(config: Config) -> None:
    lock_data(config.lock, shared=False)
    empty = not config.control.exists()
    prepare_data(config, LOG_NAME)
    _prepare_access(config, Listen("127.0.0.1", 1, 1), begins=empty)


def live(place: "Place", notes: Notes, act: Callable[[Visitor], None], *, peers: Path | None = None) -> None:
    """Start, do something, and stop."""
    config, apps = Config(place.data, peers=peers), list[Any]()
    tokens = json.loads((place.root / "tokens").read_text())
    enter("start")
    report(lambda: apps.append(start(config)))
    act(Visitor(apps[0].test_client(), tokens, notes))
    enter("stop")
    report(apps[0].config["SERVICES"].segments.close)
    report(lambda: _fold(config))


def _everything(visitor: Visitor) -> None:
    acts: Mapping[str, Callable[[], None]] = {
        "append": lambda: visitor.append(SEGMENT, "one", b'"one"'),
        "batch": lambda: visitor.append(SEGMENT, "many", *[b'"of many %d"' % place for place in range(10)]),
        "read": lambda: visitor.read(SEGMENT, 251),
        "look": lambda: visitor.look(SEGMENT),
        "create": lambda: visitor.create("second"),
        "policy": lambda: visitor.apply("one more line"),
        "token": lambda: visitor.issue("till-8"),
        "append again": lambda: visitor.append(SEGMENT, "two", b'"two"'),
        "seal": lambda: visitor.seal("other"),
    }
    for act, work in acts.items():
        enter(act)
        work()


def _a_little(visitor: Visitor) -> None:
    enter("recover")
    visitor.look(SEGMENT)
    # As a new one, which no earlier life was refused.
    after = f"after {secrets.token_hex(8)}"
    visitor.append(SEGMENT, after, b'"%b"' % after.encode())
    visitor.issue("till-9")


def witness_life(place: "Place", notes: Notes) -> None:
    """Start a witness, have it cosign a log that grows, and stop."""
    _witness(place, notes, (3, 7, 7, 20))


def short_witness_life(place: "Place", notes: Notes) -> None:
    """Start a witness, and have it cosign what is next: what comes after a fault."""
    _witness(place, notes, (30,))


def _witness(place: "Place", notes: Notes, sizes: Sequence[int]) -> None:
    apps = list[Any]()
    enter("start")
    report(lambda: apps.append(witness_app(start_witness(place), make_logger())))
    client, old = apps[0].test_client(), 0
    _look(client, notes)
    for size in sizes:
        enter(f"to {size}")
        old = _submit(client, notes, old, size)
    enter("look")
    _look(client, notes)


def start_witness(place: "Place") -> Witness:
    """Start as `tlog witness serve` and its worker do, with a clock that stands still.

    The same checkpoint is stored again once a second has gone by, and each life must make the same calls.
    """
    folder = Folder(place.witness)
    lock_data(folder.lock, shared=False)
    signer = folder.open(WITNESS)
    store, started = WitnessStore(folder.database), now() // 1000
    return Witness(signer, None, {WITNESSED.origin: WITNESSED.key}, store, lambda: started)


def _look(client: FlaskClient, notes: Notes) -> None:
    """Keep at which size the witness stands, unless it cannot say."""
    response = client.get(WITNESSED.path)
    if response.status_code in (200, 404):
        notes.keep({"kind": "stands", "size": 0 if response.status_code == 404 else int(response.text.split()[1])})


def _submit(client: FlaskClient, notes: Notes, old: int, size: int) -> int:
    """Submit a checkpoint until it is cosigned, and return the size that the witness is known to stand at."""
    for _ in range(TRIES):
        response = client.post("/add-checkpoint", data=WITNESSED.body(old, size))
        match response.status_code:
            case 200:
                notes.keep({"kind": "cosigned", "size": size, "lines": response.text})
                return size
            case 409 if int(response.text) <= size:
                old = int(response.text)
            case 503:
                continue
            case _:
                notes.complain(f"from {old} to {size} got {response.status_code}: {response.text!r}")
    return old


def judge_witness(place: "Place") -> list[str]:
    """Say what of all that a witness cosigned it does not stand by, or did not in between."""
    witness = start_witness(place)
    seen, most, wrong = place.recorder.seen(), 0, list[str]()
    for one in (one for one in seen if one["kind"] in ("cosigned", "stands")):
        if one["size"] < most:
            wrong.append(f"cosigned {most}, and then: {one}")
        most = max(most, one["size"])
    released = [(one["size"], one["lines"]) for one in seen if one["kind"] == "cosigned"]
    return wrong + contradictions(witness, WITNESSED, released)


def backup_life(place: "Place", notes: Notes) -> None:
    """Back a log up, and put the backup back as another folder."""
    enter("back up")
    report(lambda: _keep_that(notes, "backed up", back_up(Config(place.data), place.backup, now, lambda *_: None)))
    enter("restore")
    report(lambda: _keep_that(notes, "restored", restore(place.backup, place.restored)))


def again_backup_life(place: "Place", notes: Notes) -> None:
    """Take away what was cut off, as one is told to, and do what was not done."""
    for path in (place.backup, place.restored):
        shutil.rmtree(path.with_name(f"{path.name}.new"), ignore_errors=True)
    if not place.backup.exists():
        report(lambda: _keep_that(notes, "backed up", back_up(Config(place.data), place.backup, now, lambda *_: None)))
    if not place.restored.exists():
        report(lambda: _keep_that(notes, "restored", restore(place.backup, place.restored)))


def _keep_that(notes: Notes, kind: str, _: Manifest) -> None:
    notes.keep({"kind": kind})


def judge_backup(place: "Place") -> list[str]:
    """Say what is wrong with a backup, or what was put back, that has its name; and with the log."""
    restore(place.backup, place.root / "tried")
    wrong = [
        f"{data.name}: {finding}"
        for data in (place.restored, place.root / "tried")
        for finding in check(Config(data, anchor=place.root / "data.anchor"), Plan(), lambda *_: None)
    ]
    return wrong + judge_log(place)


@dataclass
class Bench:
    """A folder in which lives are lived: each on a copy of the folder `base`, in a place of its own."""

    root: Path
    number: int = 0

    @property
    def base(self) -> Path:
        return self.root / "base"

    def make_base(self) -> None:
        """Make a log with three people and two segments, one of which is about to fill a tile."""
        config = Config(self.base / "data")
        prepare_data(config, LOG_NAME)
        segments = Segments(config, Nobody(), now)
        control = Control(config, segments, now)
        beginning = begin(control, config.data)
        other, _ = control.create_segment("admin", "other", {})
        segments.close()
        (self.base / "tokens").write_text(json.dumps(beginning.tokens))
        place = Place(self.base)
        Folder(place.witness).open(WITNESS)
        with place.notes() as notes:
            notes.created(SEGMENT, beginning.vkey.read_text().strip())
            notes.created("other", other.vkey)
            assert in_a_fork(lambda: live(place, notes, _fill), self.base / "log") == 0
        assert not place.complaints()

    def place(self, base: Path | None = None) -> "Place":
        """Return a fresh copy of a place."""
        self.number += 1
        root = self.root / str(self.number)
        shutil.copytree(base or self.base, root)
        return Place(root)

    def bare(self) -> "Place":
        """Return a place without any data."""
        self.number += 1
        root = self.root / str(self.number)
        root.mkdir()
        return Place(root)


def _fill(visitor: Visitor) -> None:
    visitor.append(SEGMENT, "fill", *[b'"filled %d"' % place for place in range(250)])
    visitor.append("other", "fill", b'"other"')


def in_a_fork(life: Callable[[], None], log: Path, go: socket.socket | None = None) -> int:
    """Fork, do something in the child, and return its process ID if it is to wait for `go`, or else its status."""
    child = os.fork()
    if child:
        return child if go is not None else os.waitpid(child, 0)[1]
    status = 70
    try:
        out = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        for descriptor in (1, 2):
            os.dup2(out, descriptor)
        sys.stdout = sys.stderr = Said()
        if go is not None:
            # Only by calls that no fault meets: from the moment when strace attaches, all others count.
            go.send(b"ready")
            select.select([go], [], [])
        life()
        status = 0
    except SystemExit as end:
        status = int(end.code or 0)
    except BaseException:
        traceback.print_exc()
    finally:
        # Whatever else the parent would do at its end is not for the child.
        os._exit(status)


class Said(io.TextIOBase):
    """What a life prints: it is written by a call that no fault meets."""

    encoding = "utf-8"

    def write(self, text: str) -> int:
        return os.writev(2, [text.encode()])


@dataclass
class Place:
    """Where one life after another is lived over one data folder."""

    root: Path
    trace: list[str] = field(default_factory=list)

    @property
    def data(self) -> Path:
        return self.root / "data"

    @property
    def witness(self) -> Path:
        """A witness's folder, which a real one has elsewhere."""
        return self.data / "witness"

    @property
    def backup(self) -> Path:
        return self.root / "data.backup"

    @property
    def restored(self) -> Path:
        return self.root / "data.restored"

    @property
    def recorder(self) -> Recorder:
        return Recorder(self.root / "seen")

    def live(self, life: Life, *injected: str) -> str:
        """Live under strace, and return how that ended: `well`, `killed`, `refused`, or what is wrong."""
        with self.notes() as notes:
            return self._live(life, notes, injected)

    def _live(self, life: Life, notes: Notes, injected: Sequence[str]) -> str:
        go, waits = socket.socketpair()
        child = in_a_fork(lambda: life(self, notes), self.root / "log", waits)
        waits.close()
        assert go.recv(5) == b"ready", (self.root / "log").read_text()
        traced = self.root / "trace"
        command = ["strace", "-p", str(child), "-o", str(traced), "-y", "-s", "0", "-e", f"trace={','.join(CALLS)}"]
        options = [option for one in injected for option in ("-e", one)]
        strace = subprocess.Popen([*command, *options], stderr=subprocess.PIPE)
        try:
            assert strace.stderr is not None
            said = strace.stderr.readline()
            assert b"attached" in said, said
            go.send(b"go")
            status = _wait(child)
        finally:
            go.close()
        strace.wait(PATIENCE)
        strace.stderr.close()
        self.trace = traced.read_text(errors="replace").splitlines()
        return self._ended(status)

    def _ended(self, status: int | None) -> str:
        if status is None:
            return "hangs"
        if os.WIFSIGNALED(status):
            return "killed" if os.WTERMSIG(status) == signal.SIGKILL else f"signal {os.WTERMSIG(status)}"
        lines = [
            line for line in (self.root / "log").read_text(errors="replace").splitlines() if not line.startswith("{")
        ]
        match os.WEXITSTATUS(status):
            case 0:
                return "well"
            case 1 | 2 if lines and lines[-1].startswith(("tlog: ", "Error: ")):
                return "refused"
        return f"status {os.WEXITSTATUS(status)}: {lines[-1] if lines else ''}"

    def points(self) -> list[Point]:
        """Return the calls of the last life that were about the data."""
        found, act, numbers = list[Point](), "", Counter[str]()
        for line in self.trace:
            if entered := _ACT.match(line):
                act = entered[1]
            name = _NAME.match(line)
            if name is None:
                continue
            numbers[name[1]] += 1
            if str(self.data) in line:
                file = line.partition(str(self.data))[2]
                file = re.split(r'[">]', file)[0].rpartition("/")[2]
                found.append(Point(act, name[1], numbers[name[1]], re.sub(r"[0-9a-f]{32}", "ID", file)))
        return found

    def met(self) -> bool:
        """Tell whether the fault that was injected met a call about the data."""
        met = [line for line in self.trace if "(INJECTED)" in line]
        if self.trace[-1].startswith("+++ killed"):
            met = [line for line in self.trace if _NAME.match(line)][-1:]
        return any(str(self.data) in line for line in met)

    @contextlib.contextmanager
    def notes(self) -> Iterator[Notes]:
        opened = [os.open(self.root / name, os.O_WRONLY | os.O_CREAT | os.O_APPEND) for name in ("seen", "complaints")]
        try:
            yield Notes(self.root / "seen", seen_in=opened[0], complaints_in=opened[1])
        finally:
            for one in opened:
                os.close(one)

    def complaints(self) -> list[str]:
        return (self.root / "complaints").read_text().splitlines()


def _wait(child: int) -> int | None:
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return status
        time.sleep(0.002)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return None


@dataclass(frozen=True)
class Outcome:
    """What came of one fault, or of one and then another: what is wrong, in words, and how each life ended."""

    faults: tuple[tuple[Point, Fault], ...]
    ends: tuple[str, ...]
    wrong: tuple[str, ...]
    met: bool

    def __str__(self) -> str:
        where = " then ".join(f"{fault.what}{'+' if fault.lasts else ''} at {point}" for point, fault in self.faults)
        return f"{where}: {', '.join(self.ends)}: {'; '.join(self.wrong) or 'well'}"


def judge_log(place: Place) -> list[str]:
    """Say what of all that a log released it does not stand by, and which segments refuse to sign."""
    verdict = judge(place.data, place.recorder.seen())
    return [*verdict.wrong, *(f"{name} refuses to sign: {why}" for name, why in verdict.refused.items())]


Choose = Callable[[Sequence[Point]], tuple[Point, Fault]]


def drawn(points: Sequence[Point], chance: random.Random) -> tuple[Point, Fault]:
    """Return one of these points, and a fault that may meet it, once or from then on."""
    point = chance.choice(points)
    return point, chance.choice([*faults_of(point.call)])


@dataclass(frozen=True)
class Faults:
    """Tries one fault after another in a life; `after` is how it is gone on with. A `bare` life has no data yet.

    Others live on a copy of the place `base`, by default that of the bench. `between` says what is wrong with what a
    fault has left, before anyone goes on.
    """

    bench: Bench
    life: Life = whole_life
    after: Life = short_life
    judge: Callable[[Place], list[str]] = judge_log
    between: Callable[[Place], list[str]] = lambda _: []
    bare: bool = False
    base: Path | None = None

    def _place(self) -> Place:
        return self.bench.bare() if self.bare else self.bench.place(self.base)

    def points(self) -> list[Point]:
        """Return the file calls about the data in a life without a fault."""
        place = self._place()
        assert place.live(self.life) == "well", (place.root / "log").read_text()
        assert not place.complaints(), place.complaints()
        found = place.points()
        shutil.rmtree(place.root)
        return found

    def try_one(self, point: Point, fault: Fault) -> Outcome:
        """Live with one fault, live on without, and judge."""
        place = self._place()
        end = place.live(self.life, fault.inject(point))
        return self._judge(place, ((point, fault),), (end,), place.met())

    def try_two(self, point: Point, fault: Fault, chance: random.Random) -> Outcome:
        """Live with one fault, live on with another at some call while that recovers, and judge."""
        return self.try_both(point, fault, partial(drawn, chance=chance))

    def try_both(self, point: Point, fault: Fault, choose: Choose) -> Outcome:
        """Do the same with a second fault that is chosen among the calls of recovering."""
        place = self._place()
        end, met = place.live(self.life, fault.inject(point)), place.met()
        rehearsal = self.bench.place(place.root)
        rehearsal.live(self.after)
        second, then = choose(rehearsal.points())
        shutil.rmtree(rehearsal.root)
        again = place.live(self.after, then.inject(second))
        return self._judge(place, ((point, fault), (second, then)), (end, again), met and place.met())

    def _judge(self, place: Place, faults: Any, ends: tuple[str, ...], met: bool) -> Outcome:
        wrong = [end for end in ends if end not in ("well", "killed", "refused")]
        wrong += self.between(place)
        last = place.live(self.after)
        if last != "well":
            wrong.append(f"the log does not start again: {last}")
        # What a disk cannot read SQLite calls damage, and so it is.
        unread = any(point.call == "pread64" for point, _ in faults)
        wrong += [one for one in place.complaints() if not (unread and _DAMAGED.search(one))]
        try:
            wrong += self.judge(place)
        except TlogError as error:
            # A receipt, a checkpoint or a cosignature that was released does not hold.
            wrong.append(f"{type(error).__name__}: {error}")
        if not wrong:
            shutil.rmtree(place.root)
        return Outcome(faults, ends, tuple(wrong), met)


def in_turn(points: Sequence[Point], chance: random.Random) -> Iterator[tuple[Point, Fault]]:
    """Yield each fault at each point, those first that differ in act, name and file, in an order that is drawn."""
    groups: dict[tuple[str, str, str, Fault], list[Point]] = {}
    for point in points:
        for fault in faults_of(point.call):
            groups.setdefault((point.act, point.call, point.file, fault), []).append(point)
    for group in groups.values():
        chance.shuffle(group)
    while groups:
        for key in chance.sample(list(groups), len(groups)):
            yield groups[key].pop(), key[3]
            if not groups[key]:
                del groups[key]


# The long form


def run_one(seed: int, seconds: float) -> Tally:
    """Meet one call after another in a whole life, for so long."""
    return run(seed, seconds, Faults, meet_one)


def run_two(seed: int, seconds: float) -> Tally:
    """Meet a call in a whole life, and another while the log recovers, for so long."""
    return run(seed, seconds, Faults, Faults.try_two)


def run_witness(seed: int, seconds: float) -> Tally:
    """Meet a call in the life of a witness, and another while it recovers, for so long."""
    return run(seed, seconds, witness_faults, Faults.try_two)


def run_backup(seed: int, seconds: float) -> Tally:
    """Meet one call after another while a log is backed up and restored, for so long."""
    return run(seed, seconds, backup_faults, meet_one)


def run_beginning(seed: int, seconds: float) -> Tally:
    """Meet one call after another while a log begins, for so long."""
    return run(seed, seconds, beginning_faults, meet_one)


def beginning_faults(bench: Bench) -> Faults:
    """Return what meets calls while a log begins."""
    return Faults(bench, first_life, first_life, bare=True)


def backup_faults(bench: Bench) -> Faults:
    """Return what meets calls while a log is backed up and restored."""
    return Faults(bench, backup_life, again_backup_life, judge_backup)


def witness_faults(bench: Bench) -> Faults:
    """Return what meets calls of a witness."""
    return Faults(bench, witness_life, short_witness_life, judge_witness)


def meet_one(faults: Faults, point: Point, fault: Fault, _: random.Random) -> Outcome:
    """Have a fault, and nothing drawn after it."""
    return faults.try_one(point, fault)


def run(
    seed: int,
    seconds: float,
    make: Callable[[Bench], Faults],
    meet: Callable[[Faults, Point, Fault, random.Random], Outcome],
) -> Tally:
    """Meet one call after another, for so long."""
    chance, end = random.Random(seed), time.monotonic() + seconds  # noqa: S311 - to be repeated
    tried, wrong = 0, list[str]()
    with workbench() as bench:
        faults = make(bench)
        for point, fault in in_turn(faults.points(), chance):
            if time.monotonic() > end:
                break
            outcome = meet(faults, point, fault, chance)
            tried += outcome.met
            if outcome.wrong:
                wrong.append(str(outcome))
    return Tally(tried, wrong)


@contextlib.contextmanager
def workbench() -> Iterator[Bench]:
    """Give a bench that is gone afterwards, in memory where that can be: nothing here has to be on a disk."""
    # Looks for its own version once, which is not for a life to do.
    Flask("tlog").test_client()
    memory = Path("/dev/shm")  # noqa: S108 - what is made in it has a name that nobody else has
    with tempfile.TemporaryDirectory(dir=memory if os.access(memory, os.W_OK) else None) as folder:
        bench = Bench(Path(folder))
        bench.make_base()
        yield bench
