"""Creating segments, over HTTP and by the command, and finding them again."""

import json
import stat
import subprocess
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from importlib.metadata import version
from pathlib import Path
from threading import Lock

import click
import pytest
from live import JSON, LOG_NAME, TLOG, Server

from tlog.cli import main
from tlog.clock import now
from tlog.config import Config
from tlog.control import Control
from tlog.errors import FrozenError
from tlog.segments import Nobody, Segment, Segments, prepare_data
from tlog.store.connection import DatabaseError, connect
from tlog.store.cosigned import Frozen
from tlog.store.segment import Head, SegmentStore
from tlog_client.cli import cli
from tlog_core.merkle import EMPTY_ROOT
from tlog_core.note import parse_verifier


def test_a_segment_is_created_with_a_key_of_its_own_and_an_empty_tree(server: Server) -> None:
    labels = {"team": "payments", "env": "prod", "0.a_b-c": ""}
    answer = server.request("PUT", "/segments/created", json.dumps({"labels": labels}).encode(), {"Content-Type": JSON})
    assert (answer.status, answer.headers["Content-Type"]) == (201, JSON)
    assert answer.headers["Location"] == "/segments/created"
    assert answer.headers["Cache-Control"] == "no-cache"
    described = answer.json()
    assert set(described) == {"created", "frozen", "labels", "name", "origin", "sealed", "signed", "size", "vkey"}
    assert (described["name"], described["labels"], described["size"]) == ("created", labels, 0)
    assert described["origin"] == f"{LOG_NAME}/segments/created"
    assert parse_verifier(described["vkey"]).name == described["origin"]
    assert server.request("GET", "/segments/created").json() == described
    assert server.segment("created", described["vkey"]).checkpoint().size == 0


def test_creating_a_segment_again_changes_nothing(server: Server) -> None:
    first = server.request("PUT", "/segments/twice", b'{"labels":{"a":"1","b":"2"}}', {"Content-Type": JSON})
    again = server.request("PUT", "/segments/twice", b'{ "labels": {"b": "2", "a": "1"} }', {"Content-Type": JSON})
    assert (first.status, again.status) == (201, 200)
    assert again.json() == first.json()


def test_of_many_who_create_a_segment_at_once_one_does(server: Server) -> None:
    with ThreadPoolExecutor(12) as threads:
        answers = list(threads.map(lambda _: server.request("PUT", "/segments/raced"), range(24)))
    assert sorted(answer.status for answer in answers) == [200] * 23 + [201]
    assert len({answer.body for answer in answers}) == 1


def test_names_may_be_as_long_and_as_short_as_they_may_be(server: Server) -> None:
    for name in ("0", "z", "a-", "0-0", "b" * 63):
        assert server.request("PUT", f"/segments/{name}").status == 201
        assert server.request("GET", f"/segments/{name}/checkpoint").status == 200


def test_pages_of_segments_neither_skip_nor_repeat_any(start_server: Callable[..., Server]) -> None:
    server = start_server()
    assert server.request("GET", "/segments").json() == {"next": None, "segments": []}
    names = sorted(f"zone-{number}" for number in range(23))
    for name in reversed(names):
        server.create(name, {"of": name})
    for limit in (1, 7, 22, 23, 24, 1000):
        found, after, pages = [], "", 0
        while True:
            page = server.request("GET", f"/segments?limit={limit}" + (f"&after={after}" if after else "")).json()
            found += page["segments"]
            pages += 1
            if page["next"] is None:
                break
            after = page["next"]
            assert len(page["segments"]) == limit
        assert [segment["name"] for segment in found] == names
        assert pages == -(-23 // limit)
    assert all(segment["labels"] == {"of": segment["name"]} for segment in found)
    assert set(found[0]) == {"created", "labels", "name", "origin", "sealed", "signed", "vkey"}
    assert server.request("GET", "/segments?after=zone-9").json() == {"next": None, "segments": []}
    # Any text has a place in the order of names, whether or not it is one.
    assert len(server.request("GET", "/segments?after=zone-2%00'").json()["segments"]) == 10
    assert server.request("GET", "/segments?after=%F0%9F%98%80").json()["segments"] == []


def test_segments_and_their_keys_survive_a_restart(start_server: Callable[..., Server]) -> None:
    server = start_server()
    server.create("payments", {"env": "prod"}).append(b"1")
    before = server.request("GET", "/segments/payments").body, server.request("GET", "/segments").body
    server.kill()
    start_server(port=server.port)
    assert (server.request("GET", "/segments/payments").body, server.request("GET", "/segments").body) == before


class Giving:
    """A lock, whose second holder has something happen right after."""

    def __init__(self, happen: Callable[[], None]) -> None:
        self._lock, self._happen, self._given = Lock(), happen, 0

    def __enter__(self) -> None:
        self._lock.acquire()

    def __exit__(self, *_: object) -> None:
        self._lock.release()
        self._given += 1
        if self._given == 2:
            self._happen()


def test_a_segment_that_is_left_while_it_is_opened_anew_is_closed_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = Config(tmp_path / "data")
    prepare_data(config, LOG_NAME)
    segments, closed = Segments(config, Nobody(), now), list[object]()
    monkeypatch.setattr(Segment, "close", lambda self: closed.append(self))
    old = segments._enter("control")
    old.sequencer.broken = True
    monkeypatch.setattr(segments, "_lock", Giving(lambda: segments._leave(old)))
    assert segments._enter("control") is not old
    assert closed == [old]


def files_in(folder: Path) -> set[Path]:
    return {path for path in folder.rglob("*") if path.is_file() and path.suffix in (".key", ".db", ".anchor", "")}


@pytest.mark.parametrize("where", ["tlog.segments.SegmentStore.create", "tlog.segments.Anchor.create"])
def test_a_segment_that_could_not_be_made_leaves_no_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    config = Config(tmp_path / "data")
    prepare_data(config, LOG_NAME)
    with closing(Segments(config, Nobody(), now)) as segments:
        control, before = Control(config, segments, now), files_in(tmp_path)
        with monkeypatch.context() as patch:
            patch.setattr(where, fail)
            with pytest.raises(OSError, match="Too many open files"):
                control.create_segment("root", "payments", {})
        # Nor one whose record was refused.
        with segments.use("control") as opened, opened.writing() as transaction:
            assert transaction.freeze(Frozen(0, None, 0, "damaged"), behind=False)
        with pytest.raises(FrozenError):
            control.create_segment("root", "payments", {})
        assert files_in(tmp_path) == before


def fail(*_: object) -> None:
    raise OSError(24, "Too many open files")


def test_a_database_is_made_as_a_whole_or_stays_empty(tmp_path: Path) -> None:
    path = tmp_path / "made.db"
    with pytest.raises(DatabaseError, match="CHECK"):
        SegmentStore.create(path, Head(size=-1, time=0, root=EMPTY_ROOT, note=b""))
    with closing(connect(path)) as connection:
        assert connection.execute("select name from sqlite_schema").fetchall() == []


def test_keys_and_data_are_the_owners_alone(start_server: Callable[..., Server]) -> None:
    server = start_server()
    server.create("payments").append(b"1")
    for folder in (server.data, server.data / "keys", server.data / "segments"):
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    keys = list((server.data / "keys").iterdir())
    assert [stat.S_IMODE(key.stat().st_mode) for key in keys] == [0o600] * 3
    # The name of a segment is in no name of a file.
    assert not [path for path in server.data.rglob("*") if "payments" in path.name]


def tlog(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([TLOG, *arguments], capture_output=True, text=True, check=False)


def test_the_command_names_a_log_at_random_unless_it_is_told(tmp_path: Path) -> None:
    names = set()
    for folder in ("one", "other"):
        made = tlog("segment", "create", "payments", "--data", tmp_path / folder)
        assert (made.returncode, made.stderr) == (0, "")
        names.add(parse_verifier(made.stdout.strip()).name)
    assert len(names) == 2
    assert all(name.endswith(".local/segments/payments") for name in names)


def test_the_command_refuses_what_no_segment_may_be_called(tmp_path: Path) -> None:
    for name in ("Payments", "a.b", "-a", "a" * 64, ""):
        refused = tlog("segment", "create", "--data", tmp_path / "data", "--", name)
        assert (refused.returncode, refused.stdout) == (2, "")
        assert refused.stderr.startswith("tlog: a segment's name has 1 to 63 characters")
    assert tlog("segment", "list", "--data", tmp_path / "nothing").returncode == 2
    assert not (tmp_path / "nothing").exists()


def commands(one: click.Command) -> Iterator[click.Command]:
    yield one
    for below in one.commands.values() if isinstance(one, click.Group) else ():
        yield from commands(below)


def test_a_list_of_commands_says_what_each_is_for_and_each_option_has_help() -> None:
    assert [name for name, one in main.commands.items() if one.get_short_help_str(65).endswith("...")] == []
    options = [param for one in (*commands(main), *commands(cli)) for param in one.params]
    assert [one.name for one in options if isinstance(one, click.Option) and not one.help] == []


def test_the_command_says_its_version_and_its_use() -> None:
    assert tlog("version").stdout == version("tlog") + "\n"
    help_text = tlog("--help").stdout
    for name in ("serve", "segment", "fsck", "version"):
        assert f"\n  {name} " in help_text
        assert tlog(name, "--help").returncode == 0
