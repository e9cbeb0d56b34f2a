"""`tlog fsck`: silent over sound data, and over damage it names the segment and the place, whatever was damaged."""

import shutil
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from random import Random
from subprocess import run
from typing import Any

import pytest
import zstandard
from click.testing import CliRunner, Result
from history import History, load, wait_for
from live import LOG_NAME, NDJSON, TLOG, Server, start

from tlog.cli import main
from tlog.sequencer import sign_head
from tlog.tree import Tree
from tlog_core.merkle import Frontier
from tlog_core.note import parse_signer

SIZE = 70_000


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
    found = CliRunner().invoke(main, ["fsck", "--data", str(folder), *names])
    assert isinstance(found.exception, SystemExit | None), found.exception
    return found


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Data:
    """Two segments of 600 entries: full tiles, partial ones, and runs of every kind."""
    return grow(tmp_path_factory.mktemp("small") / "data", [1, 255, 1, 300, 1, 41, 1])


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Data:
    """A tree of three levels of tiles."""
    return grow(tmp_path_factory.mktemp("large") / "data", [10_000] * (SIZE // 10_000))


def grow(folder: Path, batches: Sequence[int]) -> Data:
    server = start(folder)
    try:
        for name in ("payments", "refunds"):
            segment = server.create(name)
            for batch in batches:
                segment.append(b"".join(b'{"n":%d,"by":"%b"}\n' % (n, name.encode()) for n in range(batch)), NDJSON)
            segment.append(b"\x00bytes", "application/octet-stream")
        assert server.stop() == 0
    finally:
        server.kill()
    with closing(sqlite3.connect(folder / "control.db")) as control:
        [(segment_id,)] = control.execute("select id from segment where name = 'payments'").fetchall()
    return Data(folder, segment_id)


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


def test_a_folder_of_segments_without_entries_has_no_findings(tmp_path: Path) -> None:
    run([TLOG, "segment", "create", "payments", "--data", tmp_path], check=True, capture_output=True)
    found = fsck(tmp_path)
    assert (found.exit_code, found.stdout) == (0, "")


def test_the_command_says_by_its_exit_status_what_it_found(data: Data) -> None:
    command: list[str | Path] = [TLOG, "fsck", "--data", data.folder]
    sound = run(command, capture_output=True, text=True, check=False)
    assert (sound.returncode, sound.stdout) == (0, "")
    assert sound.stderr.splitlines() == [
        "control: 2 entries checked",
        "payments: 601 entries checked",
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
        ("tile", "level = 0 and place = 133", "tile/0/133 "),
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
    assert found.stdout == f"qayments: control.db gives it another origin, {LOG_NAME}/segments/payments\n"


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
        ("delete from bundle where start = (select max(start) from bundle)", "entries 512 to "),
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
        f"segments/{'0' * 32}.db belongs to no segment; it may be deleted\n"
        f"keys/{'0' * 32}.key belongs to no segment; it may be deleted\n"
    )


def test_damage_is_not_repaired_or_hidden_by_looking(data: Data) -> None:
    data.flip("payload", "openings", "start = 0", 3)
    first = fsck(data)
    check_found(first, "entry 0")
    assert fsck(data).stdout == first.stdout
