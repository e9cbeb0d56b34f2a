"""Databases of every earlier version are taken on as they are, those of a later one are left alone."""

import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
import upgrading
from live import JSON, LOG_NAME, NDJSON, PATIENCE, TLOG, Server, free_port
from upgrading import MIGRATE, content, make_earlier, make_later, schema_of, shape_of, upgrade, versions

from tlog.access.action import RESERVED
from tlog.clock import now
from tlog.config import Config
from tlog.control import OPERATOR, Control
from tlog.errors import ConfigError
from tlog.fsck.run import Plan, check
from tlog.segments import Nobody, Segments, prepare_data
from tlog.store.bulletin import BulletinRow
from tlog.store.connection import connect
from tlog.submit import append, commit_to
from tlog.witness.folder import Folder
from tlog_core.bulletin import Bulletin, sign_bulletin
from tlog_core.note import signer_from_seed
from tlog_core.receipt import JSON_TYPE, parse_receipt, verify_receipt

VERSIONS = range(1, max(versions("control"), versions("segment")) + 1)
POLICY = '[[rule]]\nname = "w"\nroles = ["writer"]\nprincipals = ["till-7"]\nsegments = ["*"]\n'
BODIES = [(b"1\n" * 600, NDJSON), (b"opaque", "text/plain")]
MONITOR, BULLETIN = signer_from_seed("monitor.example", bytes(32)), Bulletin(f"{LOG_NAME}/segments/payments", 1)
KEYS = [str(signer_from_seed(f"till-{number}", bytes([number]) * 32).verifier) for number in range(2)]


@pytest.fixture
def fast(tmp_path: Path) -> Iterator[Path]:
    """A folder in memory, where there is such a place: nothing here depends on the disk."""
    memory = Path("/dev/shm")  # noqa: S108
    with TemporaryDirectory(dir=memory if memory.is_dir() else tmp_path) as path:
        yield Path(path)


@contextmanager
def opened(data: Path) -> Iterator[tuple[Control, Segments]]:
    config = Config(data)
    prepare_data(config, LOG_NAME)
    segments = Segments(config, Nobody(), now)
    try:
        yield Control(config, segments, now), segments
    finally:
        segments.close()


def log(segments: Segments, name: str, *numbers: int) -> None:
    with segments.use(name) as segment:
        for number in numbers:
            payloads = [b"%d" % one for one in range(number)]
            append(segment, commit_to(writer="w", kind=JSON_TYPE, payloads=payloads, idempotency_key=str(number)))


def fill(data: Path, version: int) -> None:
    """Make a folder with something in it of all that a version of control.db had, and of nothing that came later."""
    with opened(data) as (control, segments):
        control.create_segment(OPERATOR, "payments", {"env": "prod"})
        control.create_segment(OPERATOR, "empty", {})
        log(segments, "payments", 1, 700, 3)
        if version >= 2:
            control.apply_policy(OPERATOR, 0, POLICY)
            control.revoke_token(OPERATOR, control.issue_token(OPERATOR, "till-7", ["tills"], 30).id)
            request = control.request_access("ann", "payments", "incident", 5)
            control.create_segment(OPERATOR, "sealed", {})
            log(segments, "sealed", 2)
            control.seal_segment(OPERATOR, "sealed")
        if version >= 3:
            control.add_key(OPERATOR, KEYS[0])
            control.add_key(OPERATOR, KEYS[1])
        if version >= 4:
            control.remove_key(OPERATOR, KEYS[0])
        if version >= 6:
            control.approve_access("joan", request)
            control.approve_access("john", request)
        if version >= 7:
            with segments.use("payments") as segment, segment.writing() as transaction:
                row = BulletinRow(str(MONITOR.verifier), BULLETIN.time, 1, sign_bulletin(BULLETIN, MONITOR))
                assert transaction.put_bulletin(row, latest=1)


def age(data: Path, version: int) -> None:
    """Bring the databases of a folder back to what they were when there were so many migrations of each."""
    named = names(data)
    for path in (data / "segments").glob("*.db"):
        if version == 1 and named[path.name] in RESERVED:
            # There were none of tlog's own.
            for file in data.rglob(f"{path.stem}.*"):
                file.unlink()
        else:
            replace("segment", path, version)
    replace("control", data / "control.db", version)
    if version == 1:
        with closing(sqlite3.connect(data / "control.db")) as connection, connection:
            connection.execute("delete from segment where name in ('access', 'control')")


def names(data: Path) -> dict[str, str]:
    """Return the name of the segment of each file."""
    with closing(sqlite3.connect(data / "control.db")) as connection:
        return {f"{row[0]}.db": row[1] for row in connection.execute("select id, name from segment")}


def replace(kind: str, path: Path, version: int) -> None:
    before = path.rename(path.with_suffix(".before"))
    make_earlier(kind, before, path, min(version, versions(kind)))
    before.unlink()


@pytest.mark.parametrize("version", VERSIONS)
def test_a_folder_of_every_earlier_version_is_taken_on_as_it_is(fast: Path, version: int) -> None:
    data = fast / "data"
    fill(data, version)
    schemas = {path: schema_of(path) for path in data.rglob("*.db")}
    age(data, version)
    shapes = {path: shape_of(path) for path in data.rglob("*.db")}
    before = {path: content(path) for path in shapes}
    with opened(data) as (control, segments):
        control.catch_up()
        for row in segments.list():
            with segments.use(row.name):
                pass
    assert {path: schema_of(path) for path in shapes} == {path: schemas[path] for path in shapes}
    after = {path: content(path, shape) for path, shape in shapes.items()}
    if version == 1:
        # That version had no segments of tlog's own.
        rows = after[data / "control.db"]["segment"]
        assert {row[0] for row in rows} == {"access", "control", "empty", "payments"}
        rows[:] = [row for row in rows if row[0] not in RESERVED]
    assert after == before
    assert list(check(Config(data), Plan(), lambda *_: None)) == []


def test_a_server_goes_on_with_a_folder_of_the_first_version(
    start_server: Callable[..., Server],
) -> None:
    server = start_server(workers=1)
    segment = server.create("payments")
    receipts = [segment.append(body, kind, key=kind) for body, kind in BODIES]
    assert server.stop() == 0
    age(server.data, 1)
    (server.data / "routes.toml").write_text('[[route]]\nsegment = "payments"\n')
    server = start_server(port=server.port)
    # The same key finds the same entries, and what is signed for them is the same.
    assert [segment.append(body, kind, key=kind) for body, kind in BODIES] == receipts
    parsed = parse_receipt(segment.append(b'"more"'))
    verify_receipt(parsed, key=segment.key, payload=b'"more"')
    assert (parsed.index, segment.checkpoint().size) == (601, 602)
    event = b'{"auditID":"1","stage":"Panic","verb":"get"}'
    for logged in (1, 0):
        answer = server.request("POST", "/ingest/json", event, {"Content-Type": JSON})
        assert answer.json() == {"logged": logged, "quarantined": 0, "seen": 1 - logged}
    assert [row["name"] for row in server.request("GET", "/segments").json()["segments"]] == ["payments"]
    assert list(check(Config(server.data), Plan(), lambda *_: None)) == []


@pytest.mark.parametrize("kind", MIGRATE)
def test_an_upgrade_that_is_killed_anywhere_goes_on(fast: Path, kind: str) -> None:
    data, copies = fast / "data", fast / "copies"
    fill(data, 1)
    Folder(fast / "witness").open("witness.example/w1")
    present = {
        "control": data / "control.db",
        "segment": next(path for path in (data / "segments").glob("*.db") if content(path)["bundle"]),
        "witness": fast / "witness/witness.db",
    }[kind]
    # Of the witness there is one version so far.
    make_earlier(kind, present, fast / "earlier.db", 0 if versions(kind) == 1 else 1)
    upgrade_killed_everywhere(kind, fast / "earlier.db", copies)


@pytest.mark.parametrize("kind", MIGRATE)
def test_the_making_of_a_database_that_is_killed_anywhere_goes_on(fast: Path, kind: str) -> None:
    connect(fast / "empty.db", create=True).close()
    upgrade_killed_everywhere(kind, fast / "empty.db", fast / "copies")


def upgrade_killed_everywhere(kind: str, earlier: Path, copies: Path) -> None:
    copies.mkdir()
    run = subprocess.run(
        [sys.executable, upgrading.__file__, kind, earlier, copies], capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stderr
    upgraded = [content(path) for path in sorted(copies.glob("*.db"))]
    assert len(upgraded) > 5
    upgrade(kind, earlier)
    assert all(one == content(earlier) for one in upgraded)
    assert all(schema_of(path) == schema_of(earlier) for path in copies.glob("*.db"))


def test_a_log_of_a_later_version_is_refused(fast: Path) -> None:
    data = fast / "data"
    fill(data, 1)
    make_later(data / "control.db", "control")
    before = content(data / "control.db")
    port = str(free_port())
    for command in (["serve", "--port", port, "--unguarded"], ["segment", "create", "refunds"]):
        run = subprocess.run(
            [TLOG, *command, "--data", data], capture_output=True, text=True, check=False, timeout=PATIENCE
        )
        assert (run.returncode, run.stdout) == (2, "")
        assert run.stderr == (
            "tlog: the control database was written by a later version of tlog, which has m999_later; "
            "run that version\n"
        )
    assert content(data / "control.db") == before


def test_a_segment_of_a_later_version_is_left_alone_and_the_others_go_on(start_server: Callable[..., Server]) -> None:
    server = start_server(workers=1)
    later, other = server.create("later"), server.create("other")
    later.append(b"1")
    path = next(path for path in (server.data / "segments").glob("*.db") if names(server.data)[path.name] == "later")
    assert server.stop() == 0
    make_later(path, "segment")
    before = content(path)
    server = start_server(port=server.port, workers=1)
    [worker] = server.workers()
    assert other.append(b"1")
    files = worker.num_fds()
    for _ in range(5):
        for refused in (later.post(b"2"), later.get("/checkpoint")):
            assert (refused.status_code, refused.json()["type"]) == (503, "urn:tlog:problem:unavailable")
            assert "run that version" in refused.json()["detail"]
    assert other.append(b"2")
    assert worker.num_fds() <= files + 2
    assert content(path) == before
    [finding] = check(Config(server.data), Plan(), lambda *_: None)
    assert "run that version" in str(finding)


def test_a_witness_of_a_later_version_is_refused(tmp_path: Path) -> None:
    folder = Folder(tmp_path / "witness")
    folder.open("witness.example/w1")
    make_later(folder.database, "witness")
    with pytest.raises(ConfigError, match="run that version"):
        folder.open(None)
