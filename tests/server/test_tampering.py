"""Whoever has the machine changes files while no server runs: what was changed stops with a clear error.

The rest goes on. The segments that tlog writes itself are no exception: without `control` nothing changes, without
`access` nothing is read.
"""

import json
import shutil
import sqlite3
import subprocess
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from live import JSON, NDJSON, PATIENCE, TLOG, Answer, Server, start, tell, tlog

from tlog.config import Config
from tlog.store.codec import decode_entries, entry_runs
from tlog_client import Log
from tlog_core.checkpoint import open_checkpoint
from tlog_core.commitment import Opening, commit
from tlog_core.entry import encode_entries, parse_entry
from tlog_core.errors import FetchError, InconsistencyError
from tlog_core.note import VerifierKey, parse_verifier, signer_from_seed

POLICY = """
[[rule]]
name = "writer"
roles = ["writer"]
principals = ["writer"]
segments = ["*"]

[[rule]]
name = "auditor"
roles = ["auditor"]
principals = ["auditor"]
segments = ["*", "access", "control"]

[[rule]]
name = "admin"
roles = ["admin"]
principals = ["admin"]
segments = ["control"]
"""


@dataclass(frozen=True)
class Files:
    """A data folder of which no server runs, and the tokens of who may come."""

    data: Path
    tokens: dict[str, str]

    def copy(self, target: Path) -> "Files":
        shutil.copytree(self.data, target)
        shutil.copytree(f"{self.data}.anchor", f"{target}.anchor")
        return Files(target, self.tokens)

    def id(self, segment: str) -> str:
        [(found,)] = self._execute(self.data / "control.db", "select id from segment where name = ?", segment)
        return str(found)

    def vkey(self, segment: str) -> VerifierKey:
        [(found,)] = self._execute(self.data / "control.db", "select vkey from segment where name = ?", segment)
        return parse_verifier(str(found))

    def key(self, segment: str) -> Path:
        return self.data / "keys" / f"{self.id(segment)}.key"

    def execute(self, segment: str, statement: str, *values: object) -> list[tuple[Any, ...]]:
        return self._execute(self.data / "segments" / f"{self.id(segment)}.db", statement, *values)

    def _execute(self, path: Path, statement: str, *values: object) -> list[tuple[Any, ...]]:
        with closing(sqlite3.connect(path, isolation_level=None)) as connection:
            return connection.execute(statement, values).fetchall()

    def note(self, segment: str) -> bytes:
        [(note,)] = self.execute(segment, "select note from head")
        return bytes(note)


@dataclass(frozen=True)
class Running:
    """A server on such a folder."""

    server: Server
    tokens: dict[str, str]

    def ask(self, who: str, method: str, path: str, body: bytes | None = None, kind: str = NDJSON) -> Answer:
        headers = {"Authorization": f"Bearer {self.tokens[who]}", "Content-Type": kind}
        return self.server.request(method, path, body, headers)

    def append(self, segment: str) -> Answer:
        return self.ask("writer", "POST", f"/segments/{segment}/entries", b"1\n")

    def read(self, segment: str, what: str) -> Answer:
        return self.ask("auditor", "GET", f"/segments/{segment}/{what}")


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Files:
    """Two segments of 300 entries, and both reserved ones with some."""
    data = tmp_path_factory.mktemp("sound") / "data"
    for name in ("payments", "refunds"):
        tell("segment", "create", name, "--data", data, "--log-name", "example.com/audit")
    policy = data.parent / "policy.toml"
    policy.write_text(POLICY)
    tell("policy", "apply", policy, "--data", data)
    issued = {who: tell("token", "issue", who, "--data", data) for who in ("writer", "auditor", "admin")}
    running = Running(start(data, workers=1, guarded=True, log_name=None), issued)
    for name in ("payments", "refunds"):
        body = b"1\n" * 300
        assert running.ask("writer", "POST", f"/segments/{name}/entries", body).status == 201
        assert running.read(name, "entries/0").status == 200
    assert running.server.stop() == 0
    return Files(data, issued)


@pytest.fixture
def files(sound: Files, tmp_path: Path) -> Files:
    """A copy to change."""
    return sound.copy(tmp_path / "data")


def run(files: Files, start_server: Callable[..., Server]) -> Running:
    return Running(start_server(files.data, workers=1, guarded=True, log_name=None), files.tokens)


def check_stopped(running: Running, files: Files, segment: str, *words: str) -> None:
    """Check that nothing is appended to a segment and nothing read from it, and that the other goes on."""
    for _ in range(2):
        for answer in (running.append(segment), *(running.read(segment, what) for what in ("checkpoint", "entries/0"))):
            assert (answer.status, answer.json()["type"]) == (500, "urn:tlog:problem:corrupt"), answer.body
            assert all(word in answer.json()["detail"] for word in words), answer.json()
    assert running.append("refunds").status == 201
    assert running.read("refunds", "entries/300").status == 200
    note = running.read("refunds", "checkpoint").body
    assert open_checkpoint(note, files.vkey("refunds")).size == 301


# Key files


def _cut(path: Path) -> None:
    path.write_text(path.read_text()[:-20])


def _replace(path: Path) -> None:
    path.write_text(signer_from_seed("example.com/audit/segments/payments", bytes(32)).format())


def _folder(path: Path) -> None:
    path.unlink()
    path.mkdir(mode=0o700)


KEY_FILES: dict[str, tuple[Callable[[Path], object], str]] = {
    "missing": (Path.unlink, "is missing, and without it nothing is signed; tlog segment import payments SOURCE"),
    "empty": (lambda path: path.write_text(""), "cannot be read; restore it"),
    "truncated": (_cut, "cannot be read; restore it"),
    "not text": (lambda path: path.write_bytes(b"\xff"), "cannot be read; restore it"),
    "no file": (_folder, "cannot be read; restore it"),
    "another key of the same name": (_replace, "holds another key"),
    "readable by the group": (lambda path: path.chmod(0o640), "open to others than its owner"),
    "writable by others": (lambda path: path.chmod(0o602), "open to others than its owner"),
}


@pytest.mark.parametrize(("damage", "words"), KEY_FILES.values(), ids=KEY_FILES)
def test_without_its_key_file_a_segment_stops_and_nothing_is_signed(
    files: Files, start_server: Callable[..., Server], damage: Callable[[Path], object], words: str
) -> None:
    path, note = files.key("payments"), files.note("payments")
    damage(path)
    running = run(files, start_server)
    check_stopped(running, files, "payments", path.name, words)
    assert running.server.stop() == 0
    assert files.note("payments") == note
    text = running.server.log.read_text()
    assert "PRIVATE" not in text
    found = tlog("fsck", "payments", "--data", files.data)
    assert (found.exit_code, found.stdout.count(words)) == (1, 1)


def test_the_key_file_of_one_segment_does_not_sign_for_another(
    files: Files, start_server: Callable[..., Server]
) -> None:
    shutil.copy(files.key("refunds"), files.key("payments"))
    check_stopped(run(files, start_server), files, "payments", "holds another key")


def test_a_key_file_that_is_put_back_is_taken_by_the_running_server(
    files: Files, start_server: Callable[..., Server]
) -> None:
    path = files.key("payments")
    path.rename(path.with_suffix(".away"))
    running = run(files, start_server)
    assert running.append("payments").status == 500
    path.with_suffix(".away").rename(path)
    assert running.append("payments").status == 201


def test_without_the_key_of_control_no_server_starts_and_nothing_changes(files: Files) -> None:
    files.key("control").chmod(0o644)
    check_does_not_start(files, "of control is open to others than its owner")


# The signed head

HEADS = {
    "another root": "update head set root = zeroblob(32)",
    "a size forward": "update head set size = size + 1",
    "a size back": "update head set size = size - 1",
    "another checkpoint": "update head set note = cast(replace(cast(note as text), '/segments/', '/segment/') as blob)",
    "no head": "delete from head",
    "no table": "drop table head",
}


@pytest.mark.parametrize("edit", HEADS.values(), ids=HEADS)
def test_a_segment_whose_head_was_changed_stops_and_others_go_on(
    files: Files, start_server: Callable[..., Server], edit: str
) -> None:
    files.execute("payments", edit)
    check_stopped(run(files, start_server), files, "payments")


def test_the_head_of_another_segment_is_not_taken_for_its_own(
    files: Files, start_server: Callable[..., Server]
) -> None:
    """Well signed, of a tree of as many entries, and yet of another origin."""
    [head] = files.execute("refunds", "select size, time, root, note from head")
    files.execute("payments", "update head set size = ?, time = ?, root = ?, note = ?", *head)
    check_stopped(run(files, start_server), files, "payments", "cannot be trusted")


@pytest.mark.parametrize("edit", HEADS.values(), ids=HEADS)
def test_no_server_starts_on_a_control_whose_head_was_changed(files: Files, edit: str) -> None:
    files.execute("control", edit)
    check_does_not_start(files, "control")


@pytest.mark.parametrize("edit", HEADS.values(), ids=HEADS)
def test_no_payload_is_read_where_the_head_of_the_record_was_changed(
    files: Files, start_server: Callable[..., Server], edit: str
) -> None:
    files.execute("access", edit)
    check_nothing_is_read(run(files, start_server))


# What is in the tree


def _edit_entry(files: Files, segment: str) -> None:
    """Change the last entry of a segment in such a way that nothing about it looks odd by itself."""
    [(start, count, blob)] = files.execute(
        segment, "select start, count, entries from bundle order by start desc limit 1"
    )
    entries = decode_entries(blob, count)
    last = parse_entry(entries[-1])
    [entries[-1]] = encode_entries(
        [commit(opening=Opening(bytes(32)), payload_type="application/json", payload=b"2")],
        origin=last.origin,
        time=last.time,
        writer=last.writer,
    )
    [run] = entry_runs(start, entries)
    files.execute(segment, "update bundle set entries = ? where start = ?", run.blob, start)


def _edit_tile(files: Files, segment: str) -> None:
    """Change the hash of a full tile where those above it are kept."""
    [(hashes,)] = files.execute(segment, "select hashes from tile where level = 1")
    changed = bytes([hashes[0] ^ 1]) + hashes[1:]
    files.execute(segment, "update tile set hashes = ? where level = 1", changed)


@pytest.mark.parametrize("edit", [_edit_entry, _edit_tile], ids=["the last entry", "a tile"])
def test_nothing_is_signed_over_a_tree_that_was_changed(
    files: Files, start_server: Callable[..., Server], edit: Callable[[Files, str], None]
) -> None:
    edit(files, "payments")
    note = files.note("payments")
    running = run(files, start_server)
    for _ in range(3):
        answer = running.append("payments")
        assert (answer.status, answer.json()["type"]) == (500, "urn:tlog:problem:corrupt")
        assert "nothing is signed, run tlog fsck" in answer.json()["detail"]
        assert running.append("refunds").status == 201
    # What was signed before is shown to everyone still, and nothing that does not fit it.
    assert running.read("payments", "checkpoint").body == note
    with Log(
        f"{running.server.url}/segments/payments",
        files.vkey("payments"),
        token=files.tokens["auditor"],
        state=files.data.parent / "state",
    ) as log:
        with pytest.raises(FetchError, match="are damaged; run tlog fsck"):
            log.entry(299)
        with pytest.raises(FetchError, match="are damaged; run tlog fsck"):
            list(log.entries())
    assert running.server.stop() == 0
    assert files.note("payments") == note


def test_an_older_copy_of_a_segment_does_not_get_past_who_has_seen_a_newer_head(
    files: Files, start_server: Callable[..., Server]
) -> None:
    """All of it is well signed: only who remembers, as clients, monitors and witnesses do, can tell."""
    copied = [
        files.data / "segments" / f"{files.id('payments')}.db",
        Config(files.data).anchor_of(files.id("payments")),
    ]
    for path in copied:
        shutil.copy(path, files.data.parent / f"older-{path.name}")
    running = run(files, start_server)

    def log() -> Log:
        return Log(
            f"{running.server.url}/segments/payments",
            files.vkey("payments"),
            token=files.tokens["auditor"],
            state=files.data.parent / "state",
        )

    assert running.append("payments").status == 201
    with log() as opened:
        assert opened.checkpoint().size == 301
    assert running.server.stop() == 0
    for path in copied:
        shutil.copy(files.data.parent / f"older-{path.name}", path)
    running = run(files, start_server)
    # Even when it has grown again to the same size.
    for _ in range(2):
        with log() as opened, pytest.raises(InconsistencyError):
            opened.checkpoint()
        assert running.append("payments").status == 201


def test_nothing_changes_after_an_entry_of_control_was_changed(
    files: Files, start_server: Callable[..., Server]
) -> None:
    _edit_entry(files, "control")
    note = files.note("control")
    running = run(files, start_server)
    for _ in range(3):
        answer = running.ask("admin", "POST", "/tokens", b'{"principal":"accomplice","days":1}', JSON)
        assert (answer.status, answer.json()["type"]) == (500, "urn:tlog:problem:corrupt")
        assert "nothing is signed, run tlog fsck" in answer.json()["detail"]
    tokens = running.ask("admin", "GET", "/tokens").json()["tokens"]
    assert sorted(one["principal"] for one in tokens) == ["admin", "auditor", "writer"]
    for segment in ("payments", "refunds"):
        assert running.append(segment).status == 201
        assert running.read(segment, "entries/0").status == 200
    assert running.server.stop() == 0
    assert files.note("control") == note


def test_no_payload_is_read_after_an_entry_of_the_record_was_changed(
    files: Files, start_server: Callable[..., Server]
) -> None:
    _edit_entry(files, "access")
    note = files.note("access")
    running = run(files, start_server)
    check_nothing_is_read(running)
    assert running.server.stop() == 0
    assert files.note("access") == note


def check_nothing_is_read(running: Running) -> None:
    """Check that no payload is answered, of no segment, and that what is not on the record goes on."""
    for segment in ("payments", "refunds", "control"):
        for what in ("entries/0", "entries"):
            answer = running.read(segment, what)
            assert (answer.status, answer.json()["type"]) == (500, "urn:tlog:problem:corrupt"), answer.body
        assert running.read(segment, "checkpoint").status == 200
        assert running.read(segment, "tile/entries/000.p/1").status == 200
    assert running.append("payments").status == 201
    assert running.ask("admin", "POST", "/tokens", b'{"principal":"another","days":1}', JSON).status == 201


def check_does_not_start(files: Files, words: str) -> None:
    """Check that no server starts and no command changes anything, each with a line that says why."""
    for command in (["serve", "--port", "1"], ["token", "issue", "x"]):
        whole = [str(TLOG), *command, "--data", str(files.data)]
        refused = subprocess.run(whole, capture_output=True, text=True, check=False, timeout=PATIENCE)
        assert (refused.returncode, refused.stdout) == (1, ""), refused
        # A start has looked at what is stored, too, and logs what it found.
        *logged, said = refused.stderr.splitlines()
        assert said.startswith("tlog: ")
        assert words in said
        assert {json.loads(line)["event"] for line in logged} <= {"damaged"}
    tokens = tlog("token", "list", "--data", files.data).stdout.splitlines()
    assert len(tokens) == len(files.tokens)
