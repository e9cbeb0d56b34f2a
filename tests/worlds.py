"""The two worlds that a model test moves: a log within this process, and one behind a real server with a witness.

Both are over a copy of one folder that was laid before, and crash for real: by SIGKILL of whoever was at work.
"""

import atexit
import json
import os
import pickle
import shutil
import signal
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from functools import cache, partial
from http.client import HTTPException
from pathlib import Path
from tempfile import mkdtemp
from threading import Thread
from typing import Any, TypeVar

import policies
import reference
from crashing import Counter
from live import LOG_NAME, PATIENCE, TLOG, Answer, Server, free_port, start, until
from model import UNKNOWN, Sent, Shown
from model import Answer as Answered
from panels import panel
from sqlite_utils.utils import sqlite3 as database  # type: ignore[attr-defined]
from witnessing import RunningWitness, start_witness

from tlog.access.token import parse_token
from tlog.backup import back_up, restore
from tlog.clock import now
from tlog.config import Config
from tlog.control import OPERATOR, Control
from tlog.errors import (
    FrozenError,
    IdempotencyError,
    NotFoundError,
    SealedError,
    SignatureRequiredError,
    UnavailableError,
)
from tlog.fsck.run import Plan, check
from tlog.lost import bring_back, find
from tlog.segments import Nobody, Segments, prepare_data
from tlog.store.changes import SegmentRow
from tlog.store.connection import copy_database
from tlog.store.control import ControlStore
from tlog.submit import append, commit_to
from tlog_client import Backoff, Log
from tlog_client.answers import parse_consistency
from tlog_client.errors import RefusedError, TransientError
from tlog_client.monitor.follower import Follower, Settings
from tlog_client.monitor.judge import Judge
from tlog_client.monitor.memory import Memory
from tlog_client.monitor.report import EvidenceFolder
from tlog_client.monitor.source import http_source
from tlog_core.checkpoint import open_checkpoint
from tlog_core.encoding import canonicalize
from tlog_core.errors import FetchError
from tlog_core.note import VerifierKey, parse_verifier, signer_from_seed
from tlog_core.policy import parse_policy
from tlog_core.proof import prove_consistency
from tlog_core.receipt import JSON_TYPE, Receipt, mint_receipts, parse_batch_receipt, parse_receipt, verify_receipt
from tlog_core.tile import TILE_WIDTH

T = TypeVar("T")
NAMES = ("payments", "refunds")
SIGNED = "orders"
WRITER = signer_from_seed("writer", reference.sha256(b"writer"))
_EVERYWHERE = ["*", "access", "control"]
_WORDS = {
    FrozenError: "frozen",
    SealedError: "sealed",
    UnavailableError: "unavailable",
    IdempotencyError: "idempotency-mismatch",
    SignatureRequiredError: "signature-required",
    NotFoundError: "not-found",
}


def policy(*, guest: bool) -> bytes:
    """Return the policy under which a guest may write, or may not."""
    writers = ["writer", "guest"] if guest else ["writer"]
    return policies.write(
        [
            {"name": "a", "roles": ["admin", "creator"], "principals": ["admin"], "segments": _EVERYWHERE},
            {"name": "w", "roles": ["writer"], "principals": writers, "segments": ["*"]},
            {"name": "r", "roles": ["auditor"], "principals": ["auditor"], "segments": _EVERYWHERE},
        ]
    )


@cache
def _laid() -> tuple[Path, dict[str, str]]:
    """Lay a folder once for all worlds, and return it with the tokens of its people."""
    data = Path(mkdtemp()) / "data"
    atexit.register(shutil.rmtree, data.parent)
    config = Config(data)
    prepare_data(config, LOG_NAME)
    segments = Segments(config, Nobody(), now)
    control = Control(config, segments, now)
    control.catch_up()
    for name in NAMES:
        control.create_segment(OPERATOR, name, {})
    control.create_segment(OPERATOR, SIGNED, {}, signed=True)
    control.apply_policy(OPERATOR, 0, policy(guest=True).decode())
    control.add_key(OPERATOR, str(WRITER.verifier))
    people = ("admin", "writer", "auditor", "guest")
    tokens = {name: control.issue_token(OPERATOR, name, (), 90).text() for name in people}
    segments.close()
    return data, tokens


class World:
    """What both worlds have in common: a folder, and what its operator does with it while nothing runs."""

    def __init__(self) -> None:
        laid, self.tokens = _laid()
        self.folder = Path(mkdtemp())
        self.data = self.folder / "data"
        self.config = Config(self.data)
        self.late = 0
        shutil.copytree(laid, self.data)
        shutil.copytree(laid.with_name("data.anchor"), self.anchors)

    @property
    def anchors(self) -> Path:
        return self.data.with_name("data.anchor")

    def close(self) -> None:
        shutil.rmtree(self.folder)

    def clock(self) -> int:
        """Return the time in milliseconds by a clock that may be late."""
        return now() - self.late

    @contextmanager
    def control(self) -> Iterator[Control]:
        """Open the log in this process, for a while."""
        prepare_data(self.config, None)
        segments = Segments(self.config, Nobody(), self.clock)
        try:
            yield Control(self.config, segments, self.clock)
        finally:
            segments.close()

    def keys(self) -> dict[str, VerifierKey]:
        """Return the key of each segment."""
        return {row.name: parse_verifier(row.vkey) for row in self._rows(self.data)}

    def ids(self, data: Path) -> dict[str, str]:
        """Return the random ID of each segment of a folder."""
        return {row.name: row.id for row in self._rows(data)}

    def _rows(self, data: Path) -> list[SegmentRow]:
        # By the server's own SQLite: another in this process would drop its locks.
        with closing(ControlStore.open(Config(data).control)) as control:
            return control.list()

    def backup(self, name: str) -> dict[str, bytes]:
        """Make a backup, and return the heads that it has."""
        manifest = back_up(self.config, self.folder / name, now, lambda *_: None)
        return {segment: one.checkpoint.encode() for segment, one in manifest.segments.items()}

    def put_back(self, name: str, later: str) -> dict[str, int]:
        """Put a backup in the place of the data, and return the sizes that it has."""
        self.data.rename(self.folder / later)
        manifest = restore(self.folder / name, self.data)
        return {name: one.size for name, one in manifest.segments.items()}

    def bring_back(self, later: Sequence[str]) -> None:
        """Bring back what later copies have: first `control`, which says what segments there are, then their files."""
        folders = {one: self.ids(self.folder / one) for one in later}
        self._import("control", folders)
        with self.control() as control:
            control.catch_up()
        ids = self.ids(self.data)
        for one, segments in folders.items():
            for name, segment_id in segments.items():
                if ids.get(name) == segment_id and not self.config.key(segment_id).exists():
                    copy = Config(self.folder / one)
                    shutil.copy(copy.key(segment_id), self.config.key(segment_id))
                    copy_database(copy.segment(segment_id), self.config.segment(segment_id))
        for name in ids:
            self._import(name, folders)

    def _import(self, name: str, folders: Mapping[str, Mapping[str, str]]) -> None:
        sources = [str(self.folder / one) for one, segments in folders.items() if name in segments]
        with self.control() as control, control._segments.use(name) as segment:
            found = find(self.config, segment.row, segment.store.head().size, sources, [])
            if any(size > segment.store.head().size for size in found.heads):
                bring_back(segment, found)

    def lose_anchor(self, name: str) -> str:
        """Lose the anchor of a segment, and return why it is frozen then."""
        self.config.anchor_of(self.ids(self.data)[name]).unlink()
        with self.control() as control, control._segments.use(name) as segment:
            halted = segment.frozen()
            return "" if halted is None else halted.reason

    def accept(self, name: str) -> None:
        with self.control() as control:
            control.accept_segment(OPERATOR, name)

    def findings(self) -> list[str]:
        """Return what `tlog fsck` says, but for files of segments that a crash kept from coming to be."""
        found = map(str, check(self.config, Plan(), lambda *_: None))
        return [one for one in found if "it is of no segment" not in one]

    def reserved(self, name: str) -> Shown:
        """Return what a segment of tlog's own has."""
        with self.control() as control:
            return _shown(control, name)


def _shown(control: Control, name: str) -> Shown:
    with control._segments.use(name) as segment:
        head = segment.store.head()
        payloads = [one.data for one in segment.store.payloads(0, head.size)]
        return Shown(head.note, segment.store.entries(0, head.size), payloads, segment.frozen() is not None)


def _guarded(call: Callable[[], T]) -> T | str:
    try:
        return call()
    except tuple(_WORDS) as error:
        return _WORDS[type(error)]


class Direct(World):
    """A log within this process. Who is to crash is a child, killed before its N-th statement or sync."""

    def __init__(self) -> None:
        super().__init__()
        self._life: Segments | None = None
        self.start()

    @property
    def live(self) -> Control:
        assert self._life is not None
        return Control(self.config, self._life, self.clock)

    def start(self) -> None:
        prepare_data(self.config, None)
        self._life = Segments(self.config, Nobody(), self.clock)
        self.live.catch_up()

    def stop(self) -> None:
        if self._life is not None:
            self._life.close()
            self._life = None

    def close(self) -> None:
        self.stop()
        super().close()

    def create(self, name: str) -> str:
        """Create a segment, and return its key, or why there is none."""
        return _guarded(lambda: self.live.create_segment("admin", name, {})[0].vkey)

    def seal(self, name: str) -> str:
        """Seal a segment, and return why that cannot be, "" if it was done."""
        return _guarded(lambda: self.live.seal_segment("admin", name).name).removeprefix(name)

    def append(self, name: str, sent: Sent) -> Answered:
        return _guarded(lambda: self._append(name, sent))

    def _append(self, name: str, sent: Sent) -> tuple[Receipt, ...]:
        submission = commit_to(writer="writer", kind=JSON_TYPE, payloads=sent.payloads, idempotency_key=sent.key)
        with self.live._segments.use(name) as segment:
            submission, logged = append(segment, submission)
        return tuple(
            Receipt(entry, JSON_TYPE, opening, index, logged.note, ())
            for index, (entry, opening) in enumerate(
                zip(logged.entries, submission.openings, strict=True), logged.start
            )
        )

    def show(self, name: str) -> Shown:
        return _shown(self.live, name)

    def proof(self, name: str, old: int, new: int) -> list[bytes]:
        """Return the proof that the tree of one size extends that of another."""
        with self.live._segments.use(name) as segment:
            return list(prove_consistency(old_size=old, new_size=new, node=segment.nodes.at(new)))

    def apply_policy(self, *, guest: bool) -> bool:
        """Let a guest write, or not; return whether that is in force."""
        version = self.live.store.policy()[0]
        return bool(
            _guarded(lambda: self.live.apply_policy("admin", version, policy(guest=guest).decode())) != "frozen"
        )

    def guest_may(self) -> bool:
        return self.live.store.policy()[1] == policy(guest=True).decode()

    def issue(self) -> str:
        """Issue a token, and return it, or why there is none."""
        return _guarded(lambda: self.live.issue_token("admin", "auditor", (), 1).text())

    def revoke(self, token: str) -> str:
        """Revoke a token, and return why that cannot be, "" if it was done."""
        return _guarded(lambda: self.live.revoke_token("admin", parse_token(token).id)) or ""

    def works(self, token: str) -> bool:
        """Tell whether a token is in use."""
        given = parse_token(token)
        found = self.live.store.token(given.id)
        return found is not None and found.hash == given.hash() and found.revoked is None

    def crash(self, at: int, work: Callable[[], T]) -> T | str:
        """Have a child open the log and do something, which dies before its operation number `at`.

        They are counted from when it opens the log, or, if the number is below zero, once it has.
        """
        self.stop()
        answer = self.folder / "answer"
        child = os.fork()
        if child == 0:
            self._die(at, work, answer)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) in (0, -signal.SIGKILL)
        self.start()
        if not answer.exists():
            return UNKNOWN
        found: T | str = pickle.loads(answer.read_bytes())  # noqa: S301 - our own child wrote it
        answer.unlink()
        return found

    def _die(self, at: int, work: Callable[[], object], answer: Path) -> None:
        try:
            counter = Counter(max(at, 0))
            for name in ("fsync", "fdatasync", "pwrite", "rename", "replace", "open"):
                setattr(os, name, counter.before(getattr(os, name)))
            connect = database.connect

            def traced(*arguments: Any, **named: Any) -> Any:
                connection = connect(*arguments, **named)
                connection.set_trace_callback(counter.count)
                return connection

            database.connect = traced
            self.start()
            counter.left = counter.left if at > 0 else -at
            found = pickle.dumps(work())
            counter.left = 0
            answer.write_bytes(found)
        except BaseException:
            import traceback

            traceback.print_exc()
            os._exit(1)
        os._exit(0)


@dataclass(frozen=True)
class Looked:
    """What a monitor said in one round: its findings, and the sizes that it verified."""

    findings: list[dict[str, Any]]
    verified: list[int]


class Served(World):
    """A log behind `tlog serve`, guarded, with a witness that is a quorum by itself, and a monitor of one segment.

    The server is started as `program`, which may have a bug.
    """

    program: Sequence[str | Path] = (TLOG,)

    options: Sequence[str] = ()

    def __init__(self) -> None:
        super().__init__()
        self.witness_port = free_port()
        self.witness: RunningWitness | None = None
        self.server: Server | None = None
        self.confirmed = True
        self.watched = self.keys()
        self.start_witness()
        assert self.witness is not None
        policy_file = self.folder / "witnesses"
        policy_file.write_bytes(bytes(panel([(self.witness.key, self.witness.server.url)], 1)))
        self.options = ["--witnesses", str(policy_file)]
        self.start()

    def start(self) -> None:
        self.confirmed = self.witness is not None
        self.server = start(self.data, guarded=True, log_name=None, program=self.program, options=self.options)

    def stop(self) -> None:
        if self.server is not None:
            assert self.server.stop() == 0, self.server.log.read_text()
            self.server = None

    def start_witness(self) -> None:
        self.witness = start_witness(self.folder / "witness", *self.watched.values(), port=self.witness_port)

    def kill_witness(self) -> None:
        if self.witness is not None:
            self.witness.server.kill()
            self.witness = None

    def close(self) -> None:
        if self.server is not None:
            self.server.kill()
        self.kill_witness()
        super().close()

    def request(
        self, who: str, method: str, path: str, body: bytes | None = None, timeout: float = PATIENCE, **more: str
    ) -> Answer:
        assert self.server is not None
        headers = {"Authorization": f"Bearer {self.tokens[who]}", "Content-Type": JSON_TYPE}
        headers |= {name.replace("_", "-"): value for name, value in more.items()}
        return self.server.request(method, path, body, headers, timeout)

    def create(self, name: str) -> str:
        answer = self.request("admin", "PUT", f"/segments/{name}", b"")
        return str(answer.json()["vkey"]) if answer.status in (200, 201) else _word(answer)

    def seal(self, name: str) -> str:
        answer = self.request("admin", "PUT", f"/segments/{name}/seal", b"")
        return "" if answer.status == 200 else _word(answer)

    def append(self, name: str, sent: Sent, who: str = "writer") -> Answered:
        if sent.signed:
            return self._append_signed(name, sent)
        kind = "application/x-ndjson" if sent.batch else JSON_TYPE
        body = b"\n".join(sent.payloads)
        answer = self.request(
            who, "POST", f"/segments/{name}/entries", body, Content_Type=kind, Idempotency_Key=sent.key
        )
        if answer.status != 201:
            return _word(answer)
        key = self.keys()[name]
        if sent.batch:
            return tuple(mint_receipts(parse_batch_receipt(answer.body), payloads=sent.payloads, key=key))
        receipt = parse_receipt(answer.body)
        verify_receipt(receipt, key=key, payload=sent.payloads[0])
        return (receipt,)

    def _append_signed(self, name: str, sent: Sent) -> Answered:
        with self.log(name, "writer", signer=WRITER) as log:
            try:
                return tuple(log.append_canonical(sent.payloads, idempotency_key=sent.key))
            except RefusedError as error:
                return error.type.rpartition(":")[2]
            except TransientError as error:
                return UNKNOWN if error.reached else "unavailable"

    def log(self, name: str, who: str, **more: Any) -> Log:
        """Return the segment as the client library sees it, which remembers from one time to the next."""
        assert self.server is not None
        return Log(
            f"{self.server.url}/segments/{name}",
            self.keys()[name],
            token=self.tokens[who],
            state=self.folder / f"state-{who}",
            backoff=Backoff(attempts=1),
            **more,
        )

    def show(self, name: str) -> Shown:
        """Read a segment: its entries from tiles, and its payloads as far as reading them can be put on record."""
        note = self.request("auditor", "GET", f"/segments/{name}/checkpoint").body
        size = open_checkpoint(note, self.keys()[name]).size
        entries: list[bytes] = []
        while len(entries) < size:
            width = min(TILE_WIDTH, size - len(entries))
            place = f"{len(entries) // TILE_WIDTH:03}" + (f".p/{width}" if width < TILE_WIDTH else "")
            body = self.request("auditor", "GET", f"/segments/{name}/tile/entries/{place}").body
            while body:
                length = int.from_bytes(body[:2], "big")
                entries.append(body[2 : 2 + length])
                body = body[2 + length :]
        return Shown(note, entries, self._payloads(name, size), self.is_frozen(name))

    def proof(self, name: str, old: int, new: int) -> list[bytes]:
        answer = self.request("writer", "GET", f"/segments/{name}/proof/consistency/{old}/{new}")
        assert answer.status == 200, answer.body
        return list(parse_consistency(answer.body, old_size=old, new_size=new))

    def is_frozen(self, name: str) -> bool:
        answer = self.request("auditor", "GET", f"/segments/{name}")
        assert answer.status == 200, answer.body
        return answer.json()["frozen"] is not None

    def _payloads(self, name: str, size: int) -> list[bytes]:
        if not size:
            return []
        answer = self.request("auditor", "GET", f"/segments/{name}/entries?start=0&limit={size}")
        if answer.status != 200:
            assert answer.status in (409, 503), answer.body
            return []
        return [canonicalize(json.dumps(one["payload"]).encode()) for one in answer.json()["entries"]]

    def apply_policy(self, *, guest: bool) -> bool:
        version = self.request("admin", "GET", "/policy").headers["ETag"]
        answer = self.request(
            "admin", "PUT", "/policy", policy(guest=guest), If_Match=version, Content_Type="application/toml"
        )
        assert answer.status == 200 or _word(answer) in ("frozen", "unavailable"), answer.body
        return answer.status == 200

    def guest_may(self) -> bool:
        """Tell whether a guest may ask for a checkpoint, as writers may."""
        return self.request("guest", "GET", f"/segments/{NAMES[0]}/checkpoint").status == 200

    def issue(self) -> str:
        answer = self.request("admin", "POST", "/tokens", b'{"principal":"auditor","days":1}')
        return str(answer.json()["token"]) if answer.status == 201 else _word(answer)

    def revoke(self, token: str) -> str:
        answer = self.request("admin", "DELETE", f"/tokens/{parse_token(token).id}")
        return "" if answer.status == 204 else _word(answer)

    def works(self, token: str) -> bool:
        assert self.server is not None
        headers = {"Authorization": f"Bearer {token}"}
        # Either worker may answer.
        statuses = {
            self.server.request("GET", f"/segments/{NAMES[0]}/checkpoint", headers=headers).status for _ in range(4)
        }
        assert statuses in ({200}, {401}), statuses
        return statuses == {200}

    def crash(self, at: int, work: Callable[[], T]) -> T | str:
        """Kill the server `at` milliseconds after something was begun."""
        assert self.server is not None
        found: list[T | str] = []

        def run() -> None:
            try:
                found.append(work())
            except (OSError, HTTPException, FetchError):
                found.append(UNKNOWN)

        thread = Thread(target=run)
        thread.start()
        time.sleep(at / 1000)
        self.server.kill()
        thread.join(2 * PATIENCE)
        self.start()
        return found[0]

    def kill_worker(self) -> None:
        """Kill one of the processes that answer; return once there is another."""
        assert self.server is not None
        server, victim = self.server, self.server.workers()[0]
        victim.kill()
        until(lambda: not victim.is_running() and len(server.workers()) == 2 and self._answers(), "another worker")

    def _answers(self) -> bool:
        with suppress(OSError, HTTPException):
            return self.request("auditor", "GET", "/readyz", timeout=1.0).status == 200
        return False

    def until_witnessed(self) -> None:
        """Return once the witness has cosigned the latest head of each segment that it knows."""
        assert self.server is not None
        for name, key in self.watched.items():
            until(partial(self._is_witnessed, name, key), f"the latest head of {name} to be cosigned")

    def _is_witnessed(self, name: str, key: VerifierKey) -> bool:
        assert self.witness is not None
        path = f"/{reference.sha256(key.name.encode()).hex()}/checkpoint"
        latest = self.witness.server.request("GET", path).body
        head = open_checkpoint(self.request("auditor", "GET", f"/segments/{name}/checkpoint").body, key)
        return latest.startswith(f"{head.origin}\n{head.size}\n".encode())

    def monitor(self, at: int | None = None) -> Looked | None:
        """Have a monitor look at a segment once, in a process of its own, killed before its operation number `at`.

        Return what it said, None if it was killed.
        """
        out = self.folder / "looked"
        out.unlink(missing_ok=True)
        child = os.fork()
        if child == 0:
            self._monitor(at, out)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) in (0, -signal.SIGKILL)
        return Looked(**json.loads(out.read_text())) if out.exists() else None

    def _monitor(self, at: int | None, out: Path) -> None:
        assert self.server is not None
        try:
            log = f"log {self.watched[NAMES[0]]} {self.server.url}/segments/{NAMES[0]}\nquorum none\n"
            trust, memory, verified = parse_policy(log.encode()), Memory(self.folder / "monitor"), list[int]()
            keep = EvidenceFolder(self.folder / "monitor" / "evidence").keep
            follower = Follower(
                trust.logs[0],
                Judge(trust, memory, clock=time.time, keep=keep),
                http_source(
                    clock=time.time,
                    token=self.tokens["auditor"],
                    timeout=5.0,
                    backoff=Backoff(attempts=1),
                    deadline=10.0,
                ),
                settings=Settings(),
                verified=lambda tree: verified.append(tree.size),
            )
            if at is not None:
                counter = Counter(at)
                for name in ("fsync", "rename", "replace", "open"):
                    setattr(os, name, counter.before(getattr(os, name)))
                memory._connection.set_trace_callback(counter.count)
            follower.round()
            findings = [json.loads(line) for _, line, _ in memory.untold()]
            memory.close()
            out.write_text(json.dumps({"findings": findings, "verified": verified}))
        except BaseException:
            import traceback

            traceback.print_exc()
            os._exit(1)
        os._exit(0)


def _word(answer: Answer) -> str:
    """Return the last word of the type of a problem."""
    assert answer.status < 500 or answer.status == 503, answer.body
    word = str(answer.json()["type"]).rpartition(":")[2]
    return UNKNOWN if word == "outcome-unknown" else word
