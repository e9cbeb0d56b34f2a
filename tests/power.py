"""Runs of the real server on a disk that loses power: what it did to its files, what it released, and what is left.

Each run is recorded once. Then power is lost after every operation of it, in several ways; what is on the disk is
opened anew, and judged by what had been released until then (`tests/recorder.py`).
"""

import json
import os
import re
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, replace
from functools import partial, partialmethod
from http.client import HTTPException
from multiprocessing import get_context
from pathlib import Path
from random import Random
from types import MappingProxyType
from typing import Final
from unittest.mock import patch

import psutil
from disk import Disk, Image, cuts, digest, read_image, write_image
from live import JSON, NDJSON, Answer, Server, free_port, tell, tlog, until
from recorder import Recorder, Seen, judge, opened
from sqlite_utils import Migrations
from tally import Tally
from tracing import Operation, read_trace, strace
from witnessing import NAME, contradictions, log_list, make_log

from tlog.access import ANONYMOUS
from tlog.access.action import RESERVED
from tlog.backup import restore
from tlog.control import OPERATOR
from tlog.errors import ConfigError
from tlog.store import schema
from tlog.store.connection import Connection, connect
from tlog.store.witness import WitnessStore
from tlog.witness.cosigner import Witness
from tlog.witness.folder import Folder
from tlog_core.note import SEED_BYTES, signer_from_seed

_BEGUN: Final = frozenset({"sent", "sealing"})
_PLANTED: Final = Path(__file__).with_name("planted.py")
_SHM: Final = Path("/dev/shm")  # noqa: S108
SIZES: Final = (0, 1, 3, 7, 7, 12, 20, 20)
WITNESSED: Final = (make_log("example.com/a", 30, 31), make_log("example.com/b", 30, 32))


@dataclass(frozen=True)
class Terms:
    """What is asked of what is left of a run.

    Segments may refuse to sign until what `until` marks was told, or the commands `again` were given once more, after
    which `then` is so. One that is `closed` refuses always.
    """

    until: str = ""
    again: Sequence[str] = ()
    then: Sequence[Seen] = ()
    closed: str = ""
    judge: "Judge | None" = None


@dataclass(frozen=True)
class Run:
    """What was on the disk at first, what was done then, what an outsider saw of it, and what whoever reads sees."""

    base: Image
    operations: Sequence[Operation]
    seen: Sequence[Seen]
    left: Image
    terms: Terms = Terms()


@dataclass(frozen=True)
class State:
    """What may be on the disk after so many operations of a run, and what was seen until then."""

    name: str
    image: Image
    seen: Sequence[Seen]
    terms: Terms = Terms()
    may_refuse: bool = False


Judge = Callable[[Path, State], list[str]]
"""Says what is wrong with the folder of a state."""


@dataclass(frozen=True)
class Client:
    """Asks a server, and keeps what comes back. Each request has a mark, by which the trace has it too."""

    server: Server
    recorder: Recorder
    token: str = ""
    writer: str = ANONYMOUS.name

    def ask(
        self, method: str, path: str, body: bytes | None = None, kind: str = JSON, **headers: str
    ) -> tuple[Recorder, Answer | None]:
        """Return what came back, None if nothing did, and who keeps what it says."""
        recorder = replace(self.recorder, mark=secrets.token_hex(4))
        return recorder, self._send(recorder, method, path, body, kind, headers)

    def _send(
        self, recorder: Recorder, method: str, path: str, body: bytes | None, kind: str, headers: dict[str, str]
    ) -> Answer | None:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        bearer = {"Authorization": f"Bearer {self.token}"} if self.token else {}
        try:
            return self.server.request(
                method, path, body, {"Content-Type": kind, "X-Request-Id": recorder.mark, **bearer, **named}
            )
        except (OSError, HTTPException):
            return None

    def create(self, name: str) -> None:
        recorder, answer = self.ask("PUT", f"/segments/{name}", b"{}")
        if answer is not None and answer.status == 201:
            recorder.created(name, answer.json()["vkey"])

    def append(self, name: str, count: int = 1) -> int:
        """Append new events, and return the status, or 0 if nothing came back."""
        recorder, batch, key = replace(self.recorder, mark=secrets.token_hex(4)), count > 1, secrets.token_hex(8)
        events = [b'{"at":%d,"in":"%b-%b"}' % (place, name.encode(), key.encode()) for place in range(count)]
        number = recorder.sent(name, events, key, batch=batch, writer=self.writer)
        path, kind = f"/segments/{name}/entries", NDJSON if batch else JSON
        answer = self._send(recorder, "POST", path, b"\n".join(events), kind, {"Idempotency-Key": key})
        if answer is not None and answer.status == 201:
            recorder.receipt(number, answer.body)
        elif answer is not None and answer.status != 503:
            recorder.refused(number)
        return 0 if answer is None else answer.status

    def watch(self, name: str) -> None:
        """Take the latest checkpoint, and the first entries."""
        recorder, answer = self.ask("GET", f"/segments/{name}/checkpoint")
        if answer is not None and answer.status == 200:
            recorder.note(name, answer.body)

    def read(self, name: str) -> None:
        recorder, answer = self.ask("GET", f"/segments/{name}/entries?limit=20")
        if answer is not None and answer.status == 200:
            recorder.entries(name, answer.body)

    def seal(self, name: str) -> None:
        recorder = replace(self.recorder, mark=secrets.token_hex(4))
        recorder.sealing(name)
        answer = self._send(recorder, "PUT", f"/segments/{name}/seal", b"", JSON, {})
        if answer is not None and answer.status == 200:
            recorder.sealed(name)


# Recording


@contextmanager
def serving(
    home: Path,
    trace: Path | None,
    *,
    guarded: bool = False,
    bug: str = "",
    printed: Path | None = None,
    workers: int = 1,
) -> Iterator[Server]:
    """Run the server on `home/data`, traced from its start if `trace` is given."""
    options = ["--data", f"{home}/data", "--workers", str(workers), *([] if guarded else ["--unguarded"])]
    with _running(home, trace, [*_tlog(bug), "serve", *options], printed, "/readyz", 200) as server:
        yield server


@contextmanager
def _running(
    home: Path, trace: Path | None, command: Sequence[str], printed: Path | None, path: str, status: int
) -> Iterator[Server]:
    """Run a server until this ends; it is ready once it answers so at this path."""
    port, log = free_port(), printed or home.with_suffix(".log")
    words = [*(strace(trace) if trace else []), *command, "--port", str(port)]
    with log.open("ab") as out:
        process = subprocess.Popen(words, stdout=out, stderr=out)
    server = Server(process, port, home / "data", log)
    try:
        until(lambda: _is_ready(server, path, status), f"the server to be ready; see {log}")
        yield server
    finally:
        # Of strace the child is the server, and it ends with that.
        for one in psutil.Process(process.pid).children() if trace and process.poll() is None else [process]:
            with suppress(psutil.NoSuchProcess):
                one.send_signal(signal.SIGTERM)
        process.wait(60)


def _tlog(bug: str) -> list[str]:
    return [sys.executable, str(_PLANTED), bug] if bug else [str(Path(sys.executable).with_name("tlog"))]


def _is_ready(server: Server, path: str, status: int) -> bool:
    assert server.process.poll() is None, server.log.read_text()
    with suppress(OSError, HTTPException):
        return server.request("GET", path).status == status
    return False


@contextmanager
def attached(server: Server, trace: Path, *inject: str) -> Iterator[None]:
    """Trace the workers of a running server, from when this begins until it ends."""
    workers = [str(one.pid) for one in server.workers()]
    tracer = subprocess.Popen([*strace(trace, *inject, attach=True), "-p", ",".join(workers)], stderr=subprocess.PIPE)
    until(lambda: all(_traced(int(one)) for one in workers), "strace to attach")
    try:
        yield
    finally:
        _end(tracer)


def _end(tracer: subprocess.Popen[bytes]) -> None:
    """End strace, which has written each line by then. It may wait for ever for a process that was killed."""
    for end, patience in ((tracer.terminate, 1), (tracer.kill, 60)):
        end()
        with suppress(subprocess.TimeoutExpired):
            tracer.communicate(timeout=patience)
            return


def _traced(process: int) -> bool:
    tasks = list(Path(f"/proc/{process}/task").iterdir())
    return all("TracerPid:\t0" not in (one / "status").read_text() for one in tasks)


def command(
    home: Path, out: Path, recorder: Recorder, *arguments: str, bug: str = "", data: str = "data"
) -> tuple[list[Operation], str]:
    """Run `tlog` on a folder, and return what it did and what it printed, which is told when it is printed."""
    words = [*strace(out), *_tlog(bug), *arguments, "--data", f"{home}/{data}"]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    return _told_when_printed(read_trace(out, home), recorder.mark), done.stdout


def begin(home: Path, *names: str) -> Recorder:
    """Make a log with these segments, on a disk that has all of it, and return who has seen them."""
    home.mkdir(parents=True)
    (home / "data").mkdir(mode=0o700)
    recorder = Recorder(home.with_suffix(".seen"))
    with opened(home / "data") as control:
        for name in names:
            recorder.created(name, control.create_segment(OPERATOR, name, {})[0].vkey)
    return recorder


# Runs


def appends(home: Path, bug: str = "", *, rounds: int = 1) -> Run:
    """Single events and batches, across the packing of 256, to two segments; a third is made, and one is sealed."""
    recorder = begin(home, "payments", "refunds")
    base = read_image(home)
    with serving(home, trace := home.with_suffix(".trace"), bug=bug) as server:
        client = Client(server, recorder)
        for _ in range(rounds):
            for count in (1, 1, 251, 1, 9, 1):
                client.append("payments", count)
                client.watch("payments")
            client.append("refunds")
            client.append("refunds", 3)
            client.watch("refunds")
            client.read("payments")
        client.create("late")
        client.append("late")
        client.append("late")
        client.seal("refunds")
        client.seal("refunds")
        client.append("payments")
    return Run(base, read_trace(trace, home), recorder.seen(), read_image(home))


def changes(home: Path, bug: str = "") -> Run:
    """A log that begins on nothing, with credentials; then policies, tokens, keys of writers, and a segment."""
    home.mkdir(parents=True)
    recorder, printed = Recorder(home.with_suffix(".seen"), "begin"), home.with_suffix(".printed")
    with serving(home, trace := home.with_suffix(".trace"), guarded=True, bug=bug, printed=printed) as server:
        greeting = printed.read_text()
        tokens = re.findall(r"tlog_[0-9a-f]{16}_[\w-]{43}", greeting)[:3]
        recorder.created("first", (home / "data" / "first.vkey").read_text().strip())
        for token in tokens:
            recorder.token(token)
        admin = Client(server, replace(recorder, mark=""), tokens[0])
        writer = Client(server, replace(recorder, mark=""), tokens[1], "writer")
        writer.append("first")
        document = admin.ask("GET", "/policy")[1]
        assert document is not None
        for number in range(2):
            _apply(admin, document.body + b"\n# %d\n" % number, number + 1)
            _issue(admin)
        admin.create("late")
        writer.append("late")
        _register(admin)
    return Run({}, _told_when_printed(read_trace(trace, home), "begin"), recorder.seen(), read_image(home))


def _told_when_printed(operations: Sequence[Operation], mark: str) -> list[Operation]:
    """Have something told when the first is printed, or else at the end."""
    at = next((place for place, one in enumerate(operations) if one.kind == "printed"), len(operations))
    return [*operations[:at], Operation("told", data=mark.encode()), *operations[at:]]


def _apply(admin: Client, document: bytes, version: int) -> None:
    recorder, answer = admin.ask("PUT", "/policy", document, "application/toml", If_Match=f'"{version}"')
    assert answer is not None
    if answer.status == 200:
        recorder.policy(version + 1, document.decode())


def _issue(admin: Client) -> None:
    body = json.dumps({"principal": "someone", "groups": [], "days": 1}).encode()
    recorder, answer = admin.ask("POST", "/tokens", body)
    assert answer is not None
    if answer.status == 201:
        recorder.token(answer.json()["token"])


def _register(admin: Client) -> None:
    vkey = str(signer_from_seed("someone", secrets.token_bytes(SEED_BYTES)).verifier)
    recorder, answer = admin.ask("POST", "/keys", json.dumps({"vkey": vkey}).encode())
    assert answer is not None
    if answer.status == 201:
        recorder.writer_key(vkey)


def commands(home: Path, bug: str = "") -> Run:
    """The commands of the operator, on a folder that nobody serves: a log begins, keys and tokens are made."""
    home.mkdir(parents=True)
    recorder, operations = Recorder(home.with_suffix(".seen")), list[Operation]()
    for number, name in enumerate(("payments", "refunds")):
        marked = replace(recorder, mark=f"command-{number}")
        done, printed = command(home, home.with_suffix(f".{number}"), marked, "segment", "create", name, bug=bug)
        marked.created(name, printed.strip())
        operations += done
    marked = replace(recorder, mark="token")
    done, printed = command(home, home.with_suffix(".token"), marked, "token", "issue", "someone", bug=bug)
    found = re.search(r"tlog_[0-9a-f]{16}_[\w-]{43}", printed)
    assert found is not None
    marked.token(found[0])
    operations += done
    marked = replace(recorder, mark="seal")
    done, _ = command(home, home.with_suffix(".seal"), marked, "segment", "seal", "refunds", bug=bug)
    marked.sealed("refunds")
    replace(marked, mark="").sealing("refunds")
    return Run({}, [*operations, *done], recorder.seen(), read_image(home))


def migration(home: Path, bug: str = "") -> Run:
    """A folder of the first schema of all is brought up to date, and appended to."""
    recorder = begin(home, "payments", "refunds")
    with serving(home, None) as server:
        client = Client(server, recorder)
        for count in (1, 255, 1, 3):
            client.append("payments", count)
        client.watch("payments")
        client.append("refunds")
    age(home / "data")
    recorder, base = past(home, recorder)
    with serving(home, trace := home.with_suffix(".trace"), bug=bug) as server:
        client = Client(server, recorder)
        for name in ("payments", "refunds"):
            client.watch(name)
            client.append(name)
            client.watch(name)
    return Run(base, read_trace(trace, home), recorder.seen(), read_image(home))


def past(home: Path, recorder: Recorder) -> tuple[Recorder, Image]:
    """Return what is on the disk now, and who goes on seeing: what was seen until now, was seen before the trace."""
    later = Recorder(home.with_suffix(".later"))
    for one in recorder.seen():
        later.keep({**one, "mark": ""})
    return later, read_image(home)


def age(data: Path) -> None:
    """Make of a folder what it would be, had it been made by the first release: the first migrations, and no more."""
    with closing(connect(data / "control.db")) as control:
        rows = control.execute("select id, name from segment").fetchall()
    for segment_id, name in rows:
        path = data / "segments" / f"{segment_id}.db"
        if name in RESERVED:
            path.unlink()
            (data / "keys" / f"{segment_id}.key").unlink()
        else:
            _age(path, schema.migrate_segment, "m002_seal", ("bundle", "payload", "tile", "request", "head"))
    _age(data / "control.db", schema.migrate_control, "m002_access", ("log", "segment"))
    with closing(connect(data / "control.db")) as control:
        control.execute("delete from segment where name in ('access', 'control')")
    for volatile in [*data.glob("*.lock"), *data.glob("segments/*.lock")]:
        volatile.unlink()


def _age(path: Path, migrate: Callable[[Connection], None], before: str, tables: Sequence[str]) -> None:
    new = path.with_suffix(".new")
    path.rename(new)
    with closing(connect(path, create=True)) as old:
        with patch.object(Migrations, "apply", partialmethod(Migrations.apply, stop_before=before)):
            migrate(old)
        old.execute("pragma user_version = 1" if before == "m002_seal" else "pragma user_version = 0")
        old.execute("attach ? as new", [str(new)])
        for table in tables:
            names = ", ".join(row[1] for row in old.execute(f"pragma main.table_info({table})"))
            old.execute(f"insert into main.{table} ({names}) select {names} from new.{table}")  # noqa: S608
        old.execute("detach new")
    new.unlink()


def killed(home: Path, bug: str = "") -> Run:
    """All is killed between the writing of a commit and its sync; the server starts again, and shows its head."""
    recorder, operations = begin(home, "payments"), list[Operation]()
    with serving(home, None, bug=bug) as server:
        client = Client(server, recorder)
        client.append("payments")
        recorder, base = past(home, recorder)
        client = Client(server, recorder)
        # Who starts workers is to start no other in the place of the one that dies.
        server.process.send_signal(signal.SIGSTOP)
        with attached(server, trace := home.with_suffix(".1"), "fsync:signal=SIGKILL:when=1"):
            assert client.append("payments") == 0
            server.kill()
    operations += read_trace(trace, home)
    with serving(home, trace := home.with_suffix(".2"), bug=bug) as server:
        client = Client(server, recorder)
        client.watch("payments")
        client.read("payments")
        client.append("payments")
        client.watch("payments")
    return Run(base, [*operations, *read_trace(trace, home)], recorder.seen(), read_image(home))


def failing(home: Path, bug: str = "") -> Run:
    """A sync of a commit fails, and what it was of is lost; the segment goes on."""
    recorder, operations = begin(home, "payments"), list[Operation]()
    with serving(home, None, bug=bug) as server:
        client = Client(server, recorder)
        client.append("payments")
        client.append("payments", 3)
        recorder, base = past(home, recorder)
        client = Client(server, recorder)
        with attached(server, trace := home.with_suffix(".1"), "fsync:error=EIO:when=1"):
            client.append("payments")
        operations += read_trace(trace, home)
        with attached(server, trace := home.with_suffix(".2")):
            for _ in range(3):
                client.watch("payments")
                client.append("payments")
            client.watch("payments")
        left = read_image(home)
    return Run(base, [*operations, *read_trace(trace, home)], recorder.seen(), left)


def failing_and_killed(home: Path, bug: str = "") -> Run:
    """Each sync fails for a while, and all is killed; the server starts again on what the page cache shows."""
    recorder = begin(home, "payments")
    with serving(home, None, bug=bug) as server:
        client = Client(server, recorder)
        client.append("payments")
        client.append("payments", 3)
        recorder, base = past(home, recorder)
        client = Client(server, recorder)
        with attached(server, trace := home.with_suffix(".1"), "fsync:error=EIO"):
            client.append("payments")
            server.kill()
    operations = read_trace(trace, home)
    with serving(home, trace := home.with_suffix(".2"), bug=bug) as server:
        client = Client(server, recorder)
        client.watch("payments")
        client.append("payments")
        client.watch("payments")
    return Run(base, [*operations, *read_trace(trace, home)], recorder.seen(), read_image(home))


def restoring(home: Path, bug: str = "") -> Run:
    """A backup is made, the disk with the data is lost, and the backup is put back."""
    recorder = begin(home, "payments")
    with serving(home, None) as server:
        client = Client(server, recorder)
        client.append("payments")
        client.append("payments", 3)
        client.watch("payments")
    recorder, base = past(home, recorder)
    saved, _ = command(home, home.with_suffix(".1"), replace(recorder, mark="saved"), "backup", f"{home}/copy", bug=bug)
    shutil.rmtree(home / "data")
    lost = [Operation("unlink", "data"), Operation("begin", ""), Operation("sync", "")]
    back = replace(recorder, mark="restored")
    put, _ = command(home, home.with_suffix(".2"), back, "restore", f"{home}/copy", bug=bug)
    return Run(base, [*saved, *lost, *put], recorder.seen(), read_image(home))


def importing(home: Path, bug: str = "") -> Run:
    """An older backup is put back, and what was signed after it is brought back from the later data."""
    recorder, base = _older(home)
    marked = replace(recorder, mark="imported")
    words = "segment import payments {home}/later"
    done, _ = command(home, home.with_suffix(".trace"), marked, *words.format(home=home).split(), bug=bug)
    return Run(base, done, recorder.seen(), read_image(home), Terms("imported", [words]))


def _older(home: Path) -> tuple[Recorder, Image]:
    """Put an older backup back, beside the later data, and return as `past` does."""
    recorder = begin(home, "payments")
    with serving(home, None) as server:
        client = Client(server, recorder)
        client.append("payments")
        _run(home, "backup", f"{home}/copy")
        client.append("payments", 3)
        client.append("payments")
        client.watch("payments")
    (home / "data").rename(home / "later")
    _run(home, "restore", f"{home}/copy")
    return past(home, recorder)


def succeeding(home: Path, bug: str = "") -> Run:
    """An older backup is put back, nobody has more, and another segment goes on in the place of the one."""
    recorder, base = _older(home)
    marked, words = replace(recorder, mark="succeeded"), "segment succeed payments payments-2"
    done, printed = command(home, home.with_suffix(".trace"), marked, *words.split(), bug=bug)
    marked.created("payments-2", printed.strip())
    marked.sealed("payments")
    then = [{"kind": "sealed", "segment": "payments", "mark": ""}]
    return Run(base, done, recorder.seen(), read_image(home), Terms("succeeded", [words], then, "payments"))


def accepting(home: Path, bug: str = "") -> Run:
    """All anchors are gone, and what is there is taken for the latest."""
    recorder, names = begin(home, "payments"), ("control", "access", "payments")
    with serving(home, None) as server:
        client = Client(server, recorder)
        client.append("payments", 3)
        client.watch("payments")
    shutil.rmtree(home / "data.anchor")
    recorder, base = past(home, recorder)
    words = [f"segment accept {name} --yes" for name in names]
    marked, trace = replace(recorder, mark="accepted"), home.with_suffix(".trace")
    done, _ = command(home, trace, marked, *words[0].split(), *names[1:], bug=bug)
    return Run(base, done, recorder.seen(), read_image(home), Terms("accepted", words))


def crowded(home: Path, bug: str = "") -> Run:
    """Several clients at once, with single events and batches, of two workers."""
    recorder = begin(home, "payments", "refunds")
    base = read_image(home)
    with serving(home, trace := home.with_suffix(".trace"), bug=bug, workers=2) as server:
        until(lambda: _listening(server) == 2, "both workers to listen")
        with ThreadPoolExecutor(4) as clients:
            list(
                clients.map(partial(_write, Client(server, recorder)), ("payments", "refunds", "payments", "payments"))
            )
    return Run(base, read_trace(trace, home), recorder.seen(), read_image(home))


def _listening(server: Server) -> int:
    """Return how many workers of a traced server listen."""
    [first] = psutil.Process(server.process.pid).children()
    ports = [{one.laddr.port for one in worker.net_connections("tcp")} for worker in first.children()]
    return sum(server.port in found for found in ports)


def _write(client: Client, name: str) -> None:
    for count in (1, 90, 1, 9):
        client.append(name, count)
        client.watch(name)


def cosigning(home: Path, bug: str = "") -> Run:
    """A witness is made, cosigns two logs at once, is killed while it does, and goes on."""
    home.mkdir(parents=True)
    recorder = Recorder(home.with_suffix(".seen"), "made")
    words = ["witness", "key", "--name", NAME]
    made, printed = command(home, home.with_suffix(".1"), recorder, *words, bug=bug, data="witness")
    recorder.keep({"kind": "witness", "vkey": printed.strip(), "mark": "made"})
    begun, gone_on = home.with_suffix(".2"), home.with_suffix(".3")
    with _witness(home, begun, bug) as server, ThreadPoolExecutor(len(WITNESSED)) as clients:
        done = [clients.submit(_have_cosigned, server, recorder, place, SIZES) for place in range(len(WITNESSED))]
        until(lambda: len(recorder.seen()) > 8, "some to be cosigned")
        _kill(server)
        for one in done:
            one.result()
    with _witness(home, gone_on, bug) as server:
        for place in range(len(WITNESSED)):
            _have_cosigned(server, recorder, place, (SIZES[-1], 25))
    operations = [*made, *read_trace(begun, home), *read_trace(gone_on, home)]
    return Run({}, operations, recorder.seen(), read_image(home), Terms(judge=judge_witness))


@contextmanager
def _witness(home: Path, trace: Path, bug: str) -> Iterator[Server]:
    """Run a witness of `WITNESSED` on `home/witness`, traced from its start."""
    listed = home.with_suffix(".logs")
    listed.write_text(log_list(*(log.key for log in WITNESSED)))
    options = ["--data", f"{home}/witness", "--logs", str(listed)]
    with _running(home, trace, [*_tlog(bug), "witness", "serve", *options], None, "/", 404) as server:
        yield server


def _have_cosigned(server: Server, recorder: Recorder, place: int, sizes: Sequence[int]) -> None:
    """Submit checkpoints of a log, from the first of these sizes on, until nothing comes back."""
    log, old = WITNESSED[place], sizes[0]
    for size in sizes[1:]:
        with suppress(OSError, HTTPException):
            answer = server.request("POST", "/add-checkpoint", log.body(old, size))
            if answer.status == 409:
                answer = server.request("POST", "/add-checkpoint", log.body(int(answer.body), size))
            lines = answer.body.decode()
            assert answer.status == 200, lines
            recorder.keep({"kind": "cosigned", "log": place, "size": size, "lines": lines, "mark": lines.split()[2]})
            old = size


def _kill(server: Server) -> None:
    """Kill a server that is traced from its start, and its workers."""
    [first] = psutil.Process(server.process.pid).children()
    # It is to start no other in the place of the one that dies.
    first.suspend()
    for one in (*first.children(), first):
        one.kill()
    # strace ends with them, as a rule; it has been seen to wait for ever.
    try:
        server.process.wait(10)
    except subprocess.TimeoutExpired:
        _end(server.process)


def _run(home: Path, *arguments: str) -> None:
    tell(*arguments, "--data", f"{home}/data")


def recovering(home: Path, state: State, bug: str = "") -> Run:
    """The server starts on what a loss of power has left, and shows its head; then power is lost again."""
    write_image(state.image, home)
    recorder = Recorder(home.with_suffix(".seen"))
    for one in state.seen:
        recorder.keep({**one, "mark": ""})
    names = [one["segment"] for one in state.seen if one["kind"] == "created"]
    with serving(home, trace := home.with_suffix(".trace"), bug=bug) as server:
        client = Client(server, recorder)
        for name in names:
            client.watch(name)
        client.append(names[0])
    return Run(state.image, read_trace(trace, home), recorder.seen(), read_image(home))


RUNS: Final[Mapping[str, Callable[[Path], Run]]] = MappingProxyType(
    {
        one.__name__: one
        for one in (
            *(appends, crowded, changes, commands, migration, restoring, importing, succeeding, accepting, cosigning),
            *(killed, failing, failing_and_killed),
        )
    }
)


# States


def states(run: Run, seeded: Random, *, most: int | None = None) -> Iterator[State]:
    """Yield what may be on the disk when power is lost, each image once, with the most that had been seen by then.

    With `most`, no more than so many, of operations drawn at random, and of the one after which the first was told.
    """
    number = seeded.getrandbits(32)
    chosen = set(range(len(run.operations) + 1))
    kinds = len(cuts(seeded))
    if most is not None and most < len(chosen) * kinds:
        told = next((at for at, one in enumerate(run.operations, 1) if one.kind == "told"), 0)
        chosen = {told, *seeded.sample(sorted(chosen), max(1, most // kinds - 1))}
    last = {found: (at, name) for at, name, image in _images(run, number, chosen) for found in [digest(image)]}
    for at, name, image in _images(run, number, chosen):
        if last[digest(image)] == (at, name):
            may_refuse = run.terms.until not in ("", *_marks(run, at, "told"))
            yield State(f"{name} after {at} operations", image, _seen(run, at), run.terms, may_refuse)


def _images(run: Run, number: int, chosen: set[int]) -> Iterator[tuple[int, str, Image]]:
    disk = Disk(run.base)
    for at in range(len(run.operations) + 1):
        if at in chosen:
            for name, (keep, names) in cuts(Random(f"{number} {at}")).items():  # noqa: S311
                yield at, name, disk.image(keep, names)
        if at < len(run.operations):
            disk.do(run.operations[at])


def _marks(run: Run, at: int, kind: str) -> set[str]:
    return {one.data.decode() for one in run.operations[:at] if one.kind == kind}


def _seen(run: Run, at: int) -> list[Seen]:
    asked, told = _marks(run, at, "asked"), _marks(run, at, "told")
    return [one for one in run.seen if one["mark"] in ("", *told) or (one["kind"] in _BEGUN and one["mark"] in asked)]


def is_complete(run: Run) -> bool:
    """Say whether after all operations the model shows the bytes that were in the folder: it has missed nothing."""
    disk = Disk(run.base)
    for one in run.operations:
        disk.do(one)
    return _worth(disk.as_seen()) == _worth(run.left)


def _worth(image: Image) -> Image:
    """Return an image without WALs that are empty: one process may make what another deletes at the same moment."""
    return {path: content for path, content in image.items() if content or not path.endswith("-wal")}


# Judging


def wrong(state: State) -> list[str]:
    """Return what is wrong with the data after a loss of power, beginning with what state it is."""
    found = _wrong(state, ())
    if state.may_refuse:
        found += _wrong(replace(state, seen=[*state.seen, *state.terms.then], may_refuse=False), state.terms.again)
    return found


def _wrong(state: State, commands: Sequence[str]) -> list[str]:
    """Return what is wrong after a loss of power, and after these commands."""
    folder = Path(tempfile.mkdtemp(dir=_SHM if _SHM.is_dir() else None))
    try:
        home = folder / "home"
        write_image(state.image, home)
        for words in commands:
            # One of which nothing is left to do says so; what it has to have done is judged.
            tlog(*words.format(home=home).split(), "--data", home / "data")
        found = (state.terms.judge or judge_data)(home, state)
    except Exception as error:
        found = [f"{type(error).__name__}: {error}"]
    finally:
        shutil.rmtree(folder)
    return [f"{state.name}{' and once more' * bool(commands)}: {one}" for one in found]


def judge_data(home: Path, state: State) -> list[str]:
    """Say what of all that was released the data does not bear out, and which segments refuse to sign."""
    if not (home / "data").exists() and (home / "copy").exists():
        # As the command says if one was cut off.
        shutil.rmtree(home / "data.new", ignore_errors=True)
        restore(home / "copy", home / "data")
    if not (home / "data").exists():
        return ["the whole folder is gone"] * any(map(_promises, state.seen))
    verdict = judge(home / "data", state.seen)
    closed = state.terms.closed
    stopped = {*verdict.refused, *RESERVED} if state.may_refuse else {closed}
    return [
        *(one for one in verdict.wrong if one.partition(":")[0] not in stopped),
        *(f"{name} refuses to sign: {why}" for name, why in verdict.refused.items() if name not in stopped),
        *[f"{closed} signs, and is closed"] * (closed not in ("", *verdict.refused)),
    ]


def judge_witness(home: Path, state: State) -> list[str]:
    """Say what of all that a witness released it does not stand by."""
    keys = [one["vkey"] for one in state.seen if one["kind"] == "witness"]
    folder = Folder(home / "witness")
    try:
        signer = folder.open(NAME)
    except ConfigError:
        # Cut off while it was made, before anybody knew it: who runs it is told to begin another.
        if not keys:
            return []
        raise
    if keys and str(signer.verifier) != keys[0]:
        return ["the witness has another key"]
    # Whatever the clock says.
    witness = Witness(
        signer, None, {log.origin: log.key for log in WITNESSED}, WitnessStore(folder.database), lambda: 1
    )
    cosigned = [one for one in state.seen if one["kind"] == "cosigned"]
    return [
        line
        for place, log in enumerate(WITNESSED)
        for line in contradictions(
            witness, log, [(one["size"], one["lines"]) for one in cosigned if one["log"] == place]
        )
    ]


def _promises(one: Seen) -> bool:
    return one["kind"] not in _BEGUN


@contextmanager
def judges() -> Iterator[ProcessPoolExecutor]:
    """Give as many processes as there are processors."""
    with ProcessPoolExecutor(os.cpu_count(), get_context("spawn")) as pool:
        yield pool


def judged(pool: ProcessPoolExecutor, found: Iterable[State]) -> Iterator[list[str]]:
    """Yield for each state what is wrong with it; few wait in memory at once."""
    waiting: deque[Future[list[str]]] = deque()
    for state in found:
        waiting.append(pool.submit(wrong, state))
        if len(waiting) > 8:
            yield waiting.popleft().result()
    while waiting:
        yield waiting.popleft().result()


# The long form


def run(name: str, seed: int, seconds: float) -> Tally:
    """Lose power in one of `RUNS` for so long, each time at other operations."""
    with tempfile.TemporaryDirectory() as folder:
        recorded = RUNS[name](Path(folder) / "home")
    assert is_complete(recorded), "the trace does not have all that was done to the files"
    return _try(seed, seconds, lambda seeded: states(recorded, seeded, most=300))


def run_recovering(seed: int, seconds: float) -> Tally:
    """Lose power in `appends`, and again while the server recovers from that, for so long."""
    with tempfile.TemporaryDirectory() as folder:
        first = appends(Path(folder) / "home")

        def again(seeded: Random) -> Iterator[State]:
            known = [state for state in states(first, seeded, most=60) if any(map(_promises, state.seen))]
            second = recovering(Path(folder) / secrets.token_hex(4), seeded.choice(known))
            yield from states(second, seeded, most=300)

        return _try(seed, seconds, again)


def _try(seed: int, seconds: float, draw: Callable[[Random], Iterator[State]]) -> Tally:
    seeded, end = Random(seed), time.monotonic() + seconds  # noqa: S311
    points, found = 0, list[str]()
    with judges() as pool:
        while time.monotonic() < end:
            for lines in judged(pool, draw(seeded)):
                points, found = points + 1, [*found, *lines]
                if time.monotonic() > end:
                    break
    return Tally(points, found)
