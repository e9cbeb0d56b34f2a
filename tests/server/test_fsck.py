"""`tlog fsck`: silent over sound data, and over damage it names the segment and the place, whatever was damaged."""

import json
import os
import pty
import shutil
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from random import Random
from subprocess import PIPE, run
from typing import Any

import pytest
import zstandard
from click.testing import Result
from damaging import damaged
from history import History, load, wait_for
from live import JSON, LOG_NAME, NDJSON, TLOG, Server, start, tlog, until

from tlog.clock import now
from tlog.config import Config
from tlog.control import Control
from tlog.fsck import run as checks
from tlog.fsck import scrub
from tlog.fsck.chunk import CHUNK, check_chunk
from tlog.fsck.joined import Joined
from tlog.fsck.run import Plan, check
from tlog.fsck.scrub import Progress, Scrub
from tlog.fsck.segment import Depth, Run, Step, check_segment
from tlog.logs import make_logger
from tlog.metrics import Metrics
from tlog.segments import Nobody, Segments
from tlog.sequencer import sign_head
from tlog.store import control as store
from tlog.store import ordered
from tlog.store.audit import Audit, Request
from tlog.store.changes import SegmentRow
from tlog.store.codec import Run as StoredRun
from tlog.submit import Signed, append, commit_to
from tlog.tree import Tree
from tlog_client.signing import sign_batch
from tlog_core.commitment import Opening
from tlog_core.merkle import Frontier
from tlog_core.note import parse_signer, signer_from_seed

SIZE = 70_000
POLICY = """
[[rule]]
name = "tills"
groups = ["tills"]
segments = ["payments"]
roles = ["writer"]
"""


@dataclass(frozen=True)
class Data:
    """A data folder with two segments, and where the first is."""

    folder: Path
    id: str

    @property
    def database(self) -> Path:
        return self.folder / "segments" / f"{self.id}.db"

    @property
    def key(self) -> Path:
        return self.folder / "keys" / f"{self.id}.key"

    def copy(self, target: Path) -> "Data":
        shutil.copytree(self.folder, target)
        shutil.copytree(f"{self.folder}.anchor", f"{target}.anchor")
        return Data(target, self.id)

    def execute(self, statement: str, *values: object, control: bool = False) -> list[Any]:
        path = self.folder / "control.db" if control else self.database
        with closing(sqlite3.connect(path, isolation_level=None)) as connection:
            return connection.execute(statement, values).fetchall()

    def flip(self, table: str, column: str, where: str, byte: int, bit: int = 0, *, control: bool = False) -> None:
        """Flip one bit of a stored value; a negative byte counts from its end."""
        [(value,)] = self.execute(f"select {column} from {table} where {where}", control=control)  # noqa: S608
        raw = bytearray(value.encode() if isinstance(value, str) else value)
        raw[byte] ^= 1 << bit
        stored = raw.decode() if isinstance(value, str) else bytes(raw)
        self.execute(f"update {table} set {column} = ? where {where}", stored, control=control)  # noqa: S608


def fsck(data: Data | Path, *names: str) -> Result:
    """Run the command within this process, which spares most of its time."""
    folder = data.folder if isinstance(data, Data) else data
    return tlog("fsck", "--data", folder, *names)


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Data:
    """Two segments of 600 entries: full tiles, partial ones, runs of every kind, and all that can be on record."""
    folder = tmp_path_factory.mktemp("small") / "data"
    data = grow(folder, [1, 255, 1, 300, 1, 41, 1])
    # Which the server has scrubbed a while.
    Config(folder).scrubbed.unlink(missing_ok=True)
    put_on_record(Config(folder))
    return data


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Data:
    """A tree of three levels of tiles."""
    return grow(tmp_path_factory.mktemp("large") / "data", [10_000] * (SIZE // 10_000))


def grow(folder: Path, batches: Sequence[int]) -> Data:
    server = start(folder)
    try:
        for name in ("payments", "refunds"):
            segment = server.create(name)
            for place, batch in enumerate(batches):
                events = b"".join(b'{"n":%d,"by":"%b"}\n' % (n, name.encode()) for n in range(batch))
                segment.append(events, NDJSON, key=f"batch-{place}")
            segment.append(b"\x00bytes", "application/octet-stream")
        assert server.stop() == 0
    finally:
        server.kill()
    with closing(sqlite3.connect(folder / "control.db")) as control:
        [(segment_id,)] = control.execute("select id from segment where name = 'payments'").fetchall()
    return Data(folder, segment_id)


def put_on_record(config: Config) -> None:
    """Have each kind of change on record, and two entries of a writer that signs as the last but one of `payments`."""
    signer = signer_from_seed("till-7", bytes(32))
    with closing(Segments(config, Nobody(), now)) as segments:
        control = Control(config, segments, now)
        control.apply_policy("root", 0, POLICY)
        token = control.issue_token("root", "till-7", ["tills"], 30)
        control.rotate_token("root", token.id, 1)
        control.revoke_token("root", token.id)
        for seed in (bytes(32), bytes([1]) * 32):
            control.add_key("root", str(signer_from_seed("till-7", seed).verifier))
        control.remove_key("root", str(signer_from_seed("till-7", bytes([1]) * 32).verifier))
        request = control.request_access("eve", "payments", "incident 7", 5)
        control.approve_access("ann", request)
        control.approve_access("bob", request)
        with segments.use("payments") as segment:
            openings = [Opening(bytes([place]) * 32) for place in range(2)]
            batch = sign_batch(
                [b"1", b"2"], JSON, openings=tuple(openings), origin=segment.row.origin, first=0, signer=signer
            )
            submission = commit_to(
                writer="till-7", kind=JSON, payloads=batch.payloads, signed=Signed(openings, batch.signed)
            )
            append(segment, submission)


@pytest.fixture
def data(small: Data, tmp_path: Path) -> Data:
    """A copy to damage."""
    return small.copy(tmp_path / "data")


def check_found(found: Result, *words: str) -> None:
    """Check that a finding of the first segment, and of nothing else, names the place."""
    assert found.exit_code == 1, found.stderr
    findings = found.stdout.splitlines()
    assert findings
    assert all(finding.startswith("payments: ") for finding in findings), findings
    assert any(all(word in finding for word in words) for finding in findings), findings


# Sound data


def test_sound_data_has_no_findings(small: Data, large: Data) -> None:
    for data in (small, large):
        found = fsck(data)
        assert (found.exit_code, found.stdout) == (0, "")
        assert "payments: " in found.stderr
        assert "refunds: " in found.stderr


def test_the_requests_of_a_segment_are_read_once_however_many_entries_it_has(
    large: Data, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, read = Audit.requests, list[int]()

    def counted(self: Audit, start: int) -> Iterator[Request]:
        found = list(real(self, start))
        read.append(len(found))
        return iter(found)

    monkeypatch.setattr(Audit, "requests", counted)
    assert list(check(Config(large.folder), Plan(["payments"]), lambda *_: None)) == []
    assert read == [SIZE // 10_000]


def test_few_segments_are_in_hand_at_a_time_however_many_there_are(
    small: Data, monkeypatch: pytest.MonkeyPatch
) -> None:
    given, done, most = list[str](), list[str](), list[int]()

    def progress(name: str, checked: int, size: int) -> None:
        done.extend([name] if checked == size else [])

    class Counting(ThreadPoolExecutor):
        def submit(self, function: Any, /, *values: Any, **options: Any) -> Any:
            given.append(values[1].name)
            most.append(len(given) - len(done))
            return super().submit(function, *values, **options)

    @contextmanager
    def counting(*_: object) -> Iterator[ThreadPoolExecutor]:
        with Counting(2) as pool:
            yield pool

    monkeypatch.setattr(checks, "_pool", counting)
    monkeypatch.setattr(checks, "_AHEAD", 2)
    assert list(check(Config(small.folder), Plan(), progress)) == []
    assert given == done == ["access", "control", "payments", "refunds"]
    assert max(most) == 2


def test_a_request_with_entries_of_one_in_the_chunk_before_is_found(data: Data) -> None:
    # Those from 257 up to 557 were logged by one.
    data.execute("insert into request values (zeroblob(32), 520, 1, 557)")
    with closing(store.ControlStore.open(Config(data.folder).control)) as control:
        row = control.find("payments")
    steps = check_segment(Config(data.folder), row, LOG_NAME, partial(map, check_chunk), Depth(chunk=256))
    assert any(text.startswith("it has entries of the request") for step in steps for _, _, text in step.faults)


@pytest.mark.parametrize("count", [0, 1, 6, 7, 1_000])
def test_more_than_fits_into_memory_comes_in_order(count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ordered, "_RUN", 7)
    monkeypatch.setattr(ordered, "_READ", 3)
    chance = Random(count)  # noqa: S311 - no secrets
    values = [chance.randbytes(2) for _ in range(count)]
    assert list(ordered.in_order(iter(values), 2)) == sorted(values)


def test_a_folder_of_segments_without_entries_has_no_findings(tmp_path: Path) -> None:
    run([TLOG, "segment", "create", "payments", "--data", tmp_path], check=True, capture_output=True)
    found = fsck(tmp_path)
    assert (found.exit_code, found.stdout) == (0, "")


def test_the_command_says_by_its_exit_status_what_it_found(data: Data) -> None:
    command: list[str | Path] = [TLOG, "fsck", "--data", data.folder]
    sound = run(command, capture_output=True, text=True, check=False)
    assert (sound.returncode, sound.stdout) == (0, "")
    assert sound.stderr.splitlines() == [
        "control: 12 entries checked",
        "payments: 603 entries checked",
        "refunds: 601 entries checked",
    ]
    data.flip(*WHERE["the first openings"], 0)
    damaged = run(command, capture_output=True, text=True, check=False)
    assert (damaged.returncode, damaged.stderr) == (1, sound.stderr)
    assert damaged.stdout == "payments: entry 0: the payload is not the one that the entry commits to\n"


def test_segments_can_be_checked_by_name(data: Data) -> None:
    data.flip("head", "root", "true", 0)
    assert fsck(data, "refunds").exit_code == 0
    check_found(fsck(data, "payments"), "head")
    check_found(fsck(data, "refunds", "payments"), "head")


def test_a_folder_or_a_name_that_is_not_there_is_an_error_of_usage(data: Data, tmp_path: Path) -> None:
    for found in (fsck(tmp_path / "nothing"), fsck(data, "no-such")):
        assert (found.exit_code, found.stdout) == (2, "")
        assert found.stderr.startswith("tlog: ")
    assert not (tmp_path / "nothing").exists()


def test_a_server_may_append_meanwhile(start_server: Callable[..., Server]) -> None:
    server = start_server()
    histories = [History(server.create(f"zone-{number}")) for number in range(3)]
    with load(server, histories, writers=2, sizes=(1, 30, 1)):
        for _ in range(5):
            wait_for(histories, 20)
            found = fsck(server.data)
            assert (found.exit_code, found.stdout) == (0, "")
    for history in histories:
        history.check()


def test_a_segment_that_is_being_made_meanwhile_is_no_stranger(start_server: Callable[..., Server]) -> None:
    server = start_server()
    made = 0

    def create() -> Iterator[None]:
        nonlocal made
        while True:
            server.create(f"zone-{made}")
            made += 1
            yield

    creating = create()
    with ThreadPoolExecutor(1) as thread:
        for _ in range(3):
            running = thread.submit(lambda: [next(creating) for _ in range(60)])
            while not running.done():
                found = fsck(server.data)
                assert (found.exit_code, found.stdout) == (0, "")
            running.result()
    assert made == 180


# One flipped bit

WHERE = {
    "the first bundle": ("bundle", "entries", "start = 0"),
    "a full bundle": ("bundle", "entries", "start = 256"),
    "the last bundle": ("bundle", "entries", "start = (select max(start) from bundle)"),
    "the first payloads": ("payload", "payloads", "start = 0"),
    "full payloads": ("payload", "payloads", "start = 256"),
    "the last payloads": ("payload", "payloads", "start = (select max(start) from payload)"),
    "the first openings": ("payload", "openings", "start = 0"),
    "the last openings": ("payload", "openings", "start = (select max(start) from payload)"),
    "a full leaf tile": ("tile", "hashes", "level = 0 and place = 1"),
    "the nodes above a full tile": ("tile", "nodes", "level = 0 and place = 1"),
    "a partial tile": ("tile", "hashes", "level = 1 and place = 0"),
}
PLACES = {"bundle": "entr", "payload": "entr", "tile": "tile/"}


@pytest.mark.parametrize("byte", [0, 20, -1], ids=["at the beginning", "in the middle", "at the end"])
@pytest.mark.parametrize("where", WHERE.values(), ids=WHERE.keys())
def test_one_flipped_bit_is_found_with_its_place(data: Data, where: tuple[str, str, str], byte: int) -> None:
    data.flip(*where, byte)
    check_found(fsck(data), PLACES[where[0]])


@pytest.mark.parametrize(
    ("table", "where", "place"),
    [
        ("bundle", "start = 34048", "entries 34048 to 34303"),
        ("payload", "start = 34048", "entries 34048 to 34303"),
        ("tile", "level = 0 and place = 133", "tile/0/133: "),
        ("tile", "level = 1 and place = 0", "tile/1/000"),
        ("tile", "level = 1 and place = 1", "tile/1/001"),
        ("tile", "level = 2 and place = 0", "tile/2/000"),
    ],
)
def test_one_flipped_bit_is_found_in_a_tree_of_three_levels(
    large: Data, tmp_path: Path, table: str, where: str, place: str
) -> None:
    data = large.copy(tmp_path / "data")
    column = {"bundle": "entries", "payload": "payloads", "tile": "hashes"}[table]
    data.flip(table, column, where, 5)
    check_found(fsck(data, "payments"), place)


def test_no_bit_of_a_row_can_be_flipped_unseen(small: Data, tmp_path: Path) -> None:
    """A compressed row has bits that mean nothing: flipping them changes no entry. All others are found."""
    data = small.copy(tmp_path / "data")
    random = Random(6962)  # noqa: S311 - repeatable, not secret
    unseen = 0
    for table, column, where in [WHERE["a full bundle"], WHERE["full payloads"]]:
        [(blob,)] = data.execute(f"select {column} from {table} where {where}")  # noqa: S608
        whole = zstandard.ZstdDecompressor().decompress(blob)
        for _ in range(12):
            byte, bit = random.randrange(len(blob)), random.randrange(8)
            data.flip(table, column, where, byte, bit)
            found = fsck(data, "payments")
            if found.exit_code == 0:
                [(flipped,)] = data.execute(f"select {column} from {table} where {where}")  # noqa: S608
                assert zstandard.ZstdDecompressor().decompress(flipped) == whole
                unseen += 1
            else:
                check_found(found, "entr")
            data.flip(table, column, where, byte, bit)
    assert unseen <= 2
    assert fsck(data).exit_code == 0


HEAD = {
    "its root": "update head set root = zeroblob(32)",
    "its size, larger": "update head set size = size + 1",
    "its size, smaller": "update head set size = size - 1",
    "its size, none": "update head set size = 0",
    "no head": "delete from head",
    "a time before that of the last entry": "update head set time = time - 1",
    "a time after that of the last entry": "update head set time = time + 3600000",
}


@pytest.mark.parametrize("statement", HEAD.values(), ids=HEAD.keys())
def test_a_changed_head_is_found(data: Data, statement: str) -> None:
    data.execute(statement)
    check_found(fsck(data), "head")


@pytest.mark.parametrize("byte", [0, 25, 40, -1, -30], ids=["origin", "size or root", "root", "newline", "signature"])
def test_one_flipped_bit_of_the_checkpoint_is_found(data: Data, byte: int) -> None:
    data.flip("head", "note", "true", byte)
    check_found(fsck(data), "head")


def test_a_checkpoint_signed_for_another_tree_is_found(data: Data) -> None:
    # As whoever holds the key could make it: head and signature agree, and the entries do not.

    [(size, time)] = data.execute("select size, time from head")
    forged = Frontier(size, tuple(bytes([n]) * 32 for n in range(size.bit_count())))  # type: ignore[misc]
    head = sign_head(Tree(forged, ()), time, parse_signer(data.key.read_text()))
    data.execute("update head set root = ?, note = ?", head.root, head.note)
    check_found(fsck(data), f"do not make the signed root of size {size}")


def test_a_changed_key_file_is_found(data: Data, small: Data) -> None:
    text = data.key.read_text()
    data.key.write_text(text[:-10] + ("A" if text[-10] != "A" else "B") + text[-9:])
    check_found(fsck(data), "key file", data.key.name)
    others = [path for path in (small.folder / "keys").iterdir() if path.name != data.key.name]
    shutil.copy(others[0], data.key)
    check_found(fsck(data), "key file", data.key.name)
    data.key.write_bytes(b"\xff")
    check_found(fsck(data), "key file", data.key.name)


@pytest.mark.parametrize(("column", "byte"), [("vkey", 0), ("vkey", 50), ("vkey", -5), ("origin", 0), ("origin", -1)])
def test_a_changed_row_of_the_segment_is_found(data: Data, column: str, byte: int) -> None:
    data.flip("segment", column, "name = 'payments'", byte, control=True)
    check_found(fsck(data))


def test_a_renamed_segment_is_found(data: Data) -> None:
    data.execute("update segment set name = 'qayments' where name = 'payments'", control=True)
    found = fsck(data)
    assert found.exit_code == 1
    assert f"qayments: control.db: it has another origin, {LOG_NAME}/segments/payments" in found.stdout.splitlines()
    assert "payments: control.db, segment payments: it is missing" in found.stdout


def test_a_renamed_log_is_found(data: Data) -> None:
    data.execute("update log set name = 'example.com/other'", control=True)
    found = fsck(data)
    assert found.exit_code == 1
    assert [line.partition(": ")[0] for line in found.stdout.splitlines()] == [
        *("access", "control", "payments", "refunds")
    ]


def test_the_keys_of_two_segments_cannot_be_exchanged(data: Data) -> None:
    [(other,)] = data.execute("select vkey from segment where name = 'refunds'", control=True)
    data.execute("update segment set vkey = ? where name = 'payments'", other, control=True)
    check_found(fsck(data), "control.db", "key")


# Things that are gone, and things that are too many


@pytest.mark.parametrize(
    ("statement", "words"),
    [
        ("delete from bundle where start = 256", "entries 256 to 511"),
        ("delete from bundle where start = (select max(start) from bundle)", "entries 601 to 602"),
        ("delete from payload where start = 256", "entries 256 to 511"),
        ("delete from payload where start = (select max(start) from payload)", "entries 512 to "),
        ("delete from tile where level = 0 and place = 1", "tile/0/001"),
        ("delete from tile where level = 1", "tile/1/000"),
        ("drop table payload", ""),
        ("drop table head", "head"),
    ],
)
def test_a_row_that_is_gone_is_found(data: Data, statement: str, words: str) -> None:
    data.execute(statement)
    check_found(fsck(data), words)


def test_entries_in_another_order_are_found(data: Data) -> None:
    data.execute("update bundle set start = 1000000 where start = 0")
    data.execute("update bundle set start = 0 where start = 256")
    data.execute("update bundle set start = 256 where start = 1000000")
    check_found(fsck(data), "entry 0", "commits")


def test_entries_of_another_segment_are_found(data: Data, small: Data) -> None:
    [(other,)] = data.execute("select id from segment where name = 'refunds'", control=True)
    shutil.copy(small.folder / "segments" / f"{other}.db", data.database)
    check_found(fsck(data), "head")


def test_a_file_that_is_gone_is_found(data: Data) -> None:
    data.key.rename(data.folder / "key")
    check_found(fsck(data), "key file")
    (data.folder / "key").rename(data.key)
    data.database.unlink()
    check_found(fsck(data), "database", "missing")
    assert not data.database.exists()


def test_a_file_that_is_no_database_is_found(data: Data) -> None:
    data.database.write_bytes(b"no database" * 1000)
    check_found(fsck(data), "database")
    data.database.write_bytes(b"")
    check_found(fsck(data))


def test_a_page_of_zeros_is_found(data: Data) -> None:
    pages = data.database.stat().st_size // 4096
    assert pages > 8
    whole = data.database.read_bytes()
    for page in range(1, pages, 3):
        data.database.write_bytes(whole[: page * 4096] + bytes(4096) + whole[(page + 1) * 4096 :])
        check_found(fsck(data))


@pytest.mark.parametrize("cut", [0.0, 0.5], ids=["empty", "half"])
def test_a_broken_control_database_is_said_in_one_line(data: Data, cut: float) -> None:
    path = data.folder / "control.db"
    path.write_bytes(b"x" * 100 + path.read_bytes()[100 : int(path.stat().st_size * cut)])
    found = fsck(data)
    assert (found.exit_code, found.stdout) == (1, "")
    assert found.stderr.startswith("tlog: control.db cannot be read: ")
    assert len(found.stderr.splitlines()) == 1


def test_files_that_no_segment_has_are_named(data: Data) -> None:
    (data.folder / "segments" / f"{'0' * 32}.db").write_bytes(b"")
    (data.folder / "keys" / f"{'0' * 32}.key").write_bytes(b"")
    found = fsck(data)
    assert found.exit_code == 1
    assert found.stdout == (
        f"segments/{'0' * 32}.db: it is of no segment; it may be deleted\n"
        f"keys/{'0' * 32}.key: it is of no segment; it may be deleted\n"
    )


def test_damage_is_not_repaired_or_hidden_by_looking(data: Data) -> None:
    data.flip("payload", "openings", "start = 0", 3)
    first = fsck(data)
    check_found(first, "entry 0")
    assert fsck(data).stdout == first.stdout


# Every column

# What nothing else that is stored speaks of (spec/fsck.md).
UNSEEN = {("head", "anchored"), ("request", "key"), ("request", "count")}
UNSEEN_IN_CONTROL = {("token", "last_used")}


def test_one_bit_of_every_column_of_a_segment_is_found_with_its_place(data: Data) -> None:
    unseen, seen = set[tuple[str, str]](), set[tuple[str, str]]()
    for column in damaged(data.database):
        found = fsck(data, "payments")
        (seen if found.exit_code else unseen).add(column)
        assert all(line.startswith("payments: ") for line in found.stdout.splitlines()), (column, found.stdout)
        assert found.exit_code == 0 or PLACE[column[0]] in found.stdout, (column, found.stdout)
    assert unseen == UNSEEN
    assert {table for table, _ in seen} == {"head", "bundle", "payload", "tile", "request", "writer"}
    assert fsck(data).exit_code == 0


PLACE = {
    "head": "head",
    "bundle": "entr",
    "payload": "entr",
    "tile": "tile/",
    "request": "request ",
    "writer": "writer ",
}


def test_one_bit_of_every_column_of_the_control_database_is_found_with_its_place(data: Data) -> None:
    unseen, seen = set[tuple[str, str]](), set[tuple[str, str]]()
    for table, column in damaged(data.folder / "control.db"):
        found = fsck(data)
        (seen if found.exit_code else unseen).add((table, column))
        place = f"control.db, {table} " if table not in ("log", "recorded") else ""
        assert found.exit_code == 0 or place in found.stdout, (table, column, found.stdout)
    assert unseen == UNSEEN_IN_CONTROL
    tables = {"access_request", "issuers", "log", "policy", "recorded", "segment", "token", "writer_key"}
    assert {table for table, _ in seen} == tables
    assert fsck(data).exit_code == 0


@pytest.mark.parametrize(
    ("statement", "words"),
    [
        ("update bundle set start = 700 where start = (select max(start) from bundle)", "bundle at 700"),
        ("insert into bundle select start + 1000, count, entries from bundle where start = 256", "bundle at 1256"),
        (
            "insert into payload select 1, 1, substr(openings, 1, 32), payloads from payload where start = 0",
            "payload at 1",
        ),
        ("insert into tile select 0, 7, hashes, nodes from tile where level = 0 and place = 0", "tile/0 at 7"),
        ("insert into request values (zeroblob(32), 5000, 1, 5001)", f"request {'0' * 64}"),
        ("insert into request values (zeroblob(32), 300, 2, 302)", "has another size"),
        ("insert into request values (zeroblob(32), 300, 2, 557)", "it has entries of the request"),
        ("insert into bundle select 603, 1, entries from bundle where start = 600", "bundle at 603"),
        ("insert into payload select 603, 1, openings, payloads from payload where start = 600", "payload at 603"),
        ("insert into writer values ('nobody', 3)", "writer nobody"),
    ],
)
def test_a_row_that_is_too_many_is_found(data: Data, statement: str, words: str) -> None:
    data.execute(statement)
    check_found(fsck(data), words)


@pytest.mark.parametrize(
    ("statement", "words", "control"),
    [
        ("update writer set name = cast(x'ff' || name as text)", "writer \\xff", False),
        ("update segment set labels = '{' where name = 'payments'", "labels", True),
        ("update token set principal = cast(x'ff' as text)", "principal", True),
        ("update head set size = 1 << 60", "head", False),
        ("update bundle set start = 1 << 60 where start = 256", "entries 256 to 511", False),
        ("update tile set level = 1 << 60 where level = 1", "tile/1/000", False),
        ("update request set start = 1 << 60, size = 1 << 61", "request ", False),
    ],
)
def test_no_value_is_so_wrong_that_nothing_is_said_of_it(data: Data, statement: str, words: str, control: bool) -> None:
    data.execute(statement, control=control)
    found = fsck(data)
    assert found.exit_code == 1
    assert words in found.stdout
    assert len(found.stdout.splitlines()) < 40


# Reports


def test_findings_come_as_json(data: Data) -> None:
    data.flip(*WHERE["the first openings"], 0)
    found = fsck(data, "--json")
    assert found.exit_code == 1
    assert [json.loads(line) for line in found.stdout.splitlines()] == [
        {
            "segment": "payments",
            "place": "entry 0",
            "kind": "payload",
            "text": "the payload is not the one that the entry commits to",
        },
        {"segments": 4, "entries": 12 + 603 + 601, "findings": 1},
    ]


def test_a_bar_shows_on_a_terminal_how_far_it_is(data: Data) -> None:
    leader, follower = pty.openpty()
    done = run([TLOG, "fsck", "--data", data.folder, "payments"], stderr=follower, stdout=PIPE, check=False)
    os.close(follower)
    shown = os.read(leader, 65_536)
    os.close(leader)
    assert (done.returncode, done.stdout) == (0, b"")
    assert b"payments" in shown
    assert b"100%" in shown


# Several processes, and going on


def test_several_processes_find_the_same_as_one(large: Data, tmp_path: Path) -> None:
    data = large.copy(tmp_path / "data")
    for place in (0, 8192, 34048, 69888):
        data.flip("payload", "openings", f"start = {place}", 5)
    data.flip("tile", "hashes", "level = 1 and place = 1", 5)
    found = fsck(data, "payments", "--processes", "2")
    assert [line for line in found.stdout.splitlines() if "entry" in line] == [
        f"payments: entry {place}: the payload is not the one that the entry commits to"
        for place in (0, 8192, 34048, 69888)
    ]
    assert "payments: tile/1/001.p/17: it differs from the entries, first in hash 0" in found.stdout.splitlines()
    assert len(found.stdout.splitlines()) == 5


def interrupted(data: Data, state: Path, at: int) -> list[str]:
    """Check until so many entries of `payments` are checked, and return the findings until then."""
    found: list[str] = []

    def stop(name: str, done: int, _: int) -> None:
        if name == "payments" and done >= at:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        found.extend(map(str, check(Config(data.folder), Plan(("payments",), resume=state), stop)))
    return found


def test_an_interrupted_check_goes_on_where_it_was(large: Data, tmp_path: Path) -> None:
    data, state = large.copy(tmp_path / "data"), tmp_path / "state"
    data.flip("payload", "openings", "start = 0", 5)
    interrupted(data, state, 4 * CHUNK)
    checked: list[tuple[str, int]] = []
    # What was checked is not read again, and what comes after it is: of two new faults one is found.
    data.flip("payload", "openings", "start = 512", 5)
    data.flip("payload", "openings", "start = 69888", 5)
    found = check(
        Config(data.folder), Plan(("payments",), resume=state), lambda name, done, _: checked.append((name, done))
    )
    assert [str(one) for one in found] == [
        f"payments: entry {place}: the payload is not the one that the entry commits to" for place in (0, 69888)
    ]
    assert checked[0] == ("payments", 4 * CHUNK)
    assert checked[-1] == ("payments", SIZE + 1)
    assert not state.exists()


def test_a_check_that_goes_on_finds_that_the_tree_is_another(large: Data, tmp_path: Path) -> None:
    data, state = large.copy(tmp_path / "data"), tmp_path / "state"
    interrupted(data, state, 2 * CHUNK)
    data.flip("head", "root", "true", 0)
    assert "head: the entries do not make the signed root" in fsck(data, "payments", "--resume", str(state)).stdout


def test_a_state_of_another_check_or_a_damaged_one_is_refused(data: Data, tmp_path: Path) -> None:
    state = tmp_path / "state"
    interrupted(data, state, 0)
    whole = state.read_bytes()
    other = fsck(data, "refunds", "--resume", str(state))
    assert (other.exit_code, other.stdout) == (2, "")
    assert "name another file" in other.stderr
    state.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    damaged_state = fsck(data, "payments", "--resume", str(state))
    assert (damaged_state.exit_code, damaged_state.stdout) == (1, "")
    assert "delete it" in damaged_state.stderr
    state.write_bytes(whole)
    assert fsck(data, "payments", "--resume", str(state)).exit_code == 0


# The end only, and the start of a server


@pytest.mark.parametrize(
    ("statement", "words"),
    [
        ("update head set root = zeroblob(32)", "head"),
        ("update head set time = time + 1", "head"),
        (
            "update payload set openings = zeroblob(32 * count) where start = (select max(start) from payload)",
            "entry 602",
        ),
        ("update payload set openings = zeroblob(32 * count) where start = 256", "entry 256"),
        ("update tile set hashes = zeroblob(8192) where level = 0 and place = 1", "tile/0/001"),
        ("update tile set hashes = zeroblob(64) where level = 1", "tile/1/000"),
        ("update tile set hashes = cast(zeroblob(32) || substr(hashes, 33) as blob) where level = 1", "head"),
        ("update writer set next = next + 1", "writer till-7"),
    ],
)
def test_a_fast_check_finds_what_is_wrong_at_the_end(data: Data, statement: str, words: str) -> None:
    assert fsck(data, "--fast").exit_code == 0
    data.execute(statement)
    check_found(fsck(data, "--fast"), words)


def test_a_fast_check_reads_only_the_end(data: Data) -> None:
    data.flip(*WHERE["the first openings"], 0)
    assert fsck(data, "--fast").exit_code == 0
    refused = fsck(data, "--fast", "--resume", "state")
    assert (refused.exit_code, refused.stdout) == (2, "")


def refused(server: Server, name: str) -> bool:
    """Try to append to a segment, and say whether it is frozen; it is, or it takes the event."""
    answer = server.request("POST", f"/segments/{name}/entries", b"1", {"Content-Type": JSON})
    assert answer.status in (201, 409), answer.body
    assert answer.status == 201 or answer.json()["type"] == "urn:tlog:problem:frozen"
    return answer.status == 409


def test_what_a_server_finds_at_its_start_freezes_that_segment(data: Data, start_server: Callable[..., Server]) -> None:
    data.flip("payload", "payloads", "start = (select max(start) from payload)", 9)
    server = start_server(data.folder, options=["--scrub-rate", "0"])
    assert refused(server, "payments")
    assert not refused(server, "refunds")
    assert server.request("GET", "/segments/payments/entries?start=0&limit=1").status == 200
    [said] = [line for line in server.logged() if line["event"] == "damaged"]
    assert (said["segment"], said["place"], said["level"]) == ("payments", "entry 601", "error")
    assert server.stop() == 0
    assert "frozen: tlog fsck found, at entry 601" in fsck(data, "payments").stdout


# The scrub

FAST = ("--scrub-rate", "50000")
PASSED = "tlog_scrub_pass_time_seconds"


def test_the_scrub_freezes_the_segment_in_which_it_finds_something(
    data: Data, start_server: Callable[..., Server]
) -> None:
    server = start_server(data.folder, options=FAST)
    until(lambda: server.metrics().get(PASSED), "a pass through all segments")
    assert server.metrics()["tlog_scrub_entries_total"] >= 603 + 601
    assert not refused(server, "payments")
    data.flip(*WHERE["the first openings"], 0)
    until(lambda: refused(server, "payments"), "the segment to be frozen")
    assert not refused(server, "refunds")
    until(lambda: server.metrics().get("tlog_scrub_findings_total"), "the finding to be counted")
    [line] = [line for line in server.logged() if line["event"] == "damaged"][:1]
    assert (line["segment"], line["place"], line["kind"]) == ("payments", "entry 0", "payload")
    until(lambda: server.metrics().get('tlog_segment_frozen{segment="payments"}'), "the metric")


def test_the_scrub_says_what_is_wrong_of_no_segment_and_freezes_nothing(
    data: Data, start_server: Callable[..., Server]
) -> None:
    data.execute("update token set groups = '[]'", control=True)
    server = start_server(data.folder, options=FAST)
    until(lambda: server.metrics().get("tlog_scrub_findings_total"), "the scrub to find it")
    assert any(line.get("place", "").startswith("control.db, token ") for line in server.logged())
    assert not refused(server, "payments")


@pytest.mark.long
def test_the_scrub_finds_nothing_under_load(start_server: Callable[..., Server]) -> None:
    server = start_server(options=["--scrub-rate", "20000"])
    histories = [History(server.create(f"zone-{number}")) for number in range(2)]
    passes = set[float]()

    def passed() -> bool:
        passes.add(server.metrics().get(PASSED, 0.0))
        return len(passes) > 2

    with load(server, histories, writers=2, sizes=(1, 30, 300)):
        until(passed, "two passes")
    assert server.metrics().get("tlog_scrub_findings_total", 0.0) == 0
    assert not [line for line in server.logged() if line["event"] in ("damaged", "scrubbing failed")]
    for history in histories:
        history.check()


def scrub_pass(config: Config, metrics: Metrics) -> None:
    """Do what is left of a pass, as a server that has just begun."""
    with closing(Segments(config, Nobody(), now)) as segments:
        Scrub(config, segments, metrics, make_logger(), now).scrub_once()


def test_the_scrub_goes_on_where_it_was_after_a_restart(data: Data, monkeypatch: pytest.MonkeyPatch) -> None:
    config, visited = Config(data.folder, scrub_rate=1e9), list[tuple[str, int]]()
    real, stops = check_segment, True

    def noted(one: Config, row: SegmentRow, name: str, run: Run, depth: Depth, joined: Joined) -> Iterator[Step]:
        visited.append((row.name, joined.size))
        for step in real(one, row, name, run, depth, joined):
            yield step
            if stops and (row.name, step.joined.size) == ("payments", 512):
                raise KeyboardInterrupt

    monkeypatch.setattr(scrub, "check_segment", noted)
    monkeypatch.setattr(scrub, "_SAVE_SECONDS", -1)
    monkeypatch.setattr(store, "_FEW", 2)
    with pytest.raises(KeyboardInterrupt):
        scrub_pass(config, Metrics())
    visited.clear()
    stops = False
    metrics, passes = Metrics(), list[int]()
    monkeypatch.setattr(metrics, "scrub_passed", passes.append)
    scrub_pass(config, metrics)
    assert visited == [("payments", 512), ("refunds", 0)]
    scrub_pass(config, metrics)
    # When the last pass ended is known again at the start.
    assert passes[0] == 0 < passes[1] == passes[2]
    with closing(Segments(config, Nobody(), now)) as segments:
        progress = Scrub(config, segments, metrics, make_logger(), now).progress()
    assert progress == Progress(1e9, passes[-1])


def test_what_is_wrong_in_memory_only_freezes_nothing(data: Data, monkeypatch: pytest.MonkeyPatch) -> None:
    """A pass sees a payload with another bit once, and the stored one when it looks again."""
    real, seen = Audit.payload, list[int]()

    def spoiled(audit: Audit, index: int) -> StoredRun | None:
        found = real(audit, index)
        if found is None or seen:
            return found
        seen.append(index)
        return replace(found, openings=bytes(len(found.openings)))

    monkeypatch.setattr(Audit, "payload", spoiled)
    config = Config(data.folder, scrub_rate=1e9)
    scrub_pass(config, Metrics())
    assert seen
    with closing(Segments(config, Nobody(), now)) as segments:
        for row in segments.list():
            with segments.use(row.name) as segment:
                assert segment.store.frozen() is None
