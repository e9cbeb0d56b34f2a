"""CloudTrail files come to a server whole, whatever interrupts that, and a bad file stops no good one."""

import gzip
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from live import PATIENCE, Segment, Server, until
from simulator import Answer, Request, Simulator, refuse, unavailable

from tlog_client import Backoff
from tlog_client.cli import run

DONE, FAILED, USAGE, NOT_FETCHED = 0, 1, 2, 3
REAL = os.environ.get("TLOG_EVENTS")
SAMPLE = Path(__file__).parent.parent / "samples" / "cloudtrail.json"
COMMAND = str(Path(sys.executable).parent / "tlog-client")


class Ingest:
    """What the server does with what it is sent: it logs an event once, and each body is as large as it may be."""

    def __init__(self) -> None:
        self.bodies: list[bytes] = []
        self.faults: list[Callable[[Any], Answer | None]] = []
        self.ids: list[str] = []
        self.tokens: set[str | None] = set()

    def __call__(self, request: Request) -> Answer | None:
        assert (request.method, request.path) == ("POST", "/ingest/cloudtrail")
        assert request.headers["content-type"] == "application/json"
        assert request.headers["idempotency-key"] == hashlib.sha256(request.body).hexdigest()
        assert len(request.body) <= 20 << 20
        self.tokens.add(request.headers.get("authorization"))
        self.bodies.append(request.body)
        if self.faults:
            return self.faults.pop(0)(lambda: self._work(request.body))
        return self._work(request.body)

    def _work(self, body: bytes) -> Answer:
        ids = [record["eventID"] for record in json.loads(body)["Records"]]
        fresh = [one for one in ids if one not in self.ids]
        self.ids += fresh
        answer = {"logged": len(fresh), "quarantined": 0, "seen": len(ids) - len(fresh)}
        return Answer(200, json.dumps(answer).encode(), {"Content-Type": "application/json"})


@pytest.fixture
def ingest(sim: Simulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Ingest:
    """A server, and a shell in an empty folder that knows it."""
    monkeypatch.setenv("TLOG_SERVER", sim.url.removesuffix("/segments/payments"))
    monkeypatch.setenv("TLOG_STATE", str(tmp_path / "state"))
    monkeypatch.setattr("tlog_client.cli.Backoff", lambda: Backoff(sleep=lambda _: None))
    monkeypatch.chdir(tmp_path)
    one = Ingest()
    monkeypatch.setattr(sim, "answer", one)
    return one


def record(number: int, **more: Any) -> dict[str, Any]:
    return {"eventID": f"id-{number}", "eventName": "DescribeRegions", **more}


def write(name: str, *records: Any) -> Path:
    path = Path(name)
    path.parent.mkdir(parents=True, exist_ok=True)
    raw = json.dumps({"Records": records}).encode()
    path.write_bytes(gzip.compress(raw) if path.suffix == ".gz" else raw)
    return path


def load(capsys: pytest.CaptureFixture[str], *paths: object) -> tuple[int, str, str]:
    status = run(["import", "cloudtrail", *map(str, paths)])
    return status, *capsys.readouterr()


def test_files_and_folders_are_sent_packed_or_not(ingest: Ingest, capsys: pytest.CaptureFixture[str]) -> None:
    write("one.json", record(1), record(2))
    write("logs/2023/a.json.gz", record(3))
    write("logs/b.json", record(4))
    Path("logs/notes.txt").write_text("no event")
    write("logs/CloudTrail-Digest/d.json", "no event")
    status, out, err = load(capsys, "one.json", "logs")
    assert (status, err) == (DONE, "")
    assert out == "files: 3 imported, 0 skipped, 0 failed; events: 4 logged, 0 seen, 0 quarantined\n"
    assert ingest.ids == ["id-1", "id-2", "id-3", "id-4"]


def test_records_arrive_as_the_bytes_that_they_are(ingest: Ingest) -> None:
    Path("a.json").write_text(
        '\n{ "Records" : [ {"eventID":"a" , "n":1.50, "big":12345678901234567890} ,\n{"eventID":"b"}] }\n'
    )
    assert run(["import", "cloudtrail", "a.json"]) == DONE
    assert ingest.bodies == [b'{"Records":[{"eventID":"a" , "n":1.50, "big":12345678901234567890},{"eventID":"b"}]}']


def test_what_is_done_is_not_sent_again_until_it_changes(ingest: Ingest, capsys: pytest.CaptureFixture[str]) -> None:
    write("a.json", record(1))
    load(capsys, "a.json")
    assert load(capsys, "a.json")[1].startswith("files: 0 imported, 1 skipped, 0 failed; events: 0 logged")
    assert len(ingest.bodies) == 1
    write("a.json", record(1), record(2))
    assert load(capsys, ".")[1] == "files: 1 imported, 0 skipped, 0 failed; events: 1 logged, 1 seen, 0 quarantined\n"


def test_a_file_that_changes_while_it_is_sent_is_sent_again(ingest: Ingest) -> None:
    write("a.json", record(1))

    def change(work: Callable[[], Answer]) -> Answer:
        write("a.json", record(1), record(2))
        return work()

    ingest.faults.append(change)
    for _ in range(2):
        assert run(["import", "cloudtrail", "a.json"]) == DONE
    assert ingest.ids == ["id-1", "id-2"]


def test_what_one_server_has_another_has_not(ingest: Ingest, monkeypatch: pytest.MonkeyPatch) -> None:
    write("a.json", record(1))
    assert run(["import", "cloudtrail", "a.json"]) == DONE
    monkeypatch.setenv("TLOG_SERVER", os.environ["TLOG_SERVER"].replace("127.0.0.1", "localhost"))
    assert run(["import", "cloudtrail", "a.json"]) == DONE
    assert len(ingest.bodies) == 2


def test_a_torn_line_of_what_is_done_counts_for_nothing(ingest: Ingest, tmp_path: Path) -> None:
    write("a.json", record(1))
    run(["import", "cloudtrail", "a.json"])
    (kept,) = (tmp_path / "state").iterdir()
    kept.write_bytes(kept.read_bytes()[:-1])
    assert run(["import", "cloudtrail", "a.json"]) == DONE
    assert run(["import", "cloudtrail", "a.json"]) == DONE
    assert len(ingest.bodies) == 2


@pytest.mark.parametrize("size", [100, 300_000])
def test_a_file_of_many_records_is_several_requests(ingest: Ingest, size: int) -> None:
    count = 2_500 if size == 100 else 9
    write("a.json", *(record(number, pad="x" * size) for number in range(count)))
    assert run(["import", "cloudtrail", "a.json"]) == DONE
    assert ingest.ids == [f"id-{number}" for number in range(count)]
    assert len(ingest.bodies) == 3
    assert max(map(len, ingest.bodies)) < 1_100_000


def test_a_record_larger_than_a_part_is_sent_alone(ingest: Ingest) -> None:
    write("a.json", record(1), record(2, pad="x" * (3 << 20)), record(3))
    assert run(["import", "cloudtrail", "a.json"]) == DONE
    assert [len(json.loads(body)["Records"]) for body in ingest.bodies] == [1, 1, 1]


@pytest.mark.parametrize(
    ("raw", "wrong"),
    [
        (b"", "not a CloudTrail file"),
        (b"[]", "not a CloudTrail file"),
        (b'{"digestStartTime":1}', "not a CloudTrail file"),
        (b'{"Records":{}}', "not a CloudTrail file"),
        (b'{"Records":[{"eventID":"x"},{"eventID":]}', "record 2 is not JSON"),
        (b'{"Records":[{"eventID":"x"}', "neither another record nor the end"),
        (b'{"Records":[{"eventID":"x"}]} {}', "neither another record nor the end"),
        (b'{"Records":[{"eventID":"x"},]}', "record 2 is not JSON"),
        (b'{"Records":["\xff"]}', "not UTF-8 at byte 13"),
        (b'{"Records":[' + b"[" * 100_000, "record 1 is not JSON"),
        (gzip.compress(b'{"Records":[]}', mtime=0)[:-9], "not gzip"),
        (b"\x1f\x8b\x00", "not gzip"),
        (b'{"Records":[{"x":"' + b"x" * (20 << 20) + b'"}]}', "record 1 has 209"),
    ],
)
def test_a_bad_file_is_named_and_stops_no_other(
    ingest: Ingest, capsys: pytest.CaptureFixture[str], raw: bytes, wrong: str
) -> None:
    Path("b.json").write_bytes(raw)
    for name, number in (("a.json", 1), ("c.json", 2)):
        write(name, record(number))
    status, out, err = load(capsys, ".")
    assert (status, ingest.ids) == (FAILED, ["id-1", "id-2"])
    assert err.startswith("tlog-client: b.json: ")
    assert wrong in err
    assert "2 imported, 0 skipped, 1 failed" in out


def test_a_name_that_is_no_text_stops_no_other(ingest: Ingest, capsys: pytest.CaptureFixture[str]) -> None:
    for number, name in enumerate((b"logs/a\xff.json", b"logs/b.json")):
        write(os.fsdecode(name), record(number))
    status, out, _ = load(capsys, "logs")
    assert (status, ingest.ids) == (DONE, ["id-0", "id-1"])
    assert out.startswith("files: 2 imported, 0 skipped, 0 failed")
    assert load(capsys, "logs")[1].startswith("files: 0 imported, 2 skipped, 0 failed")


def _open_unless_forbidden(real: Callable[..., Any]) -> Callable[..., Any]:
    # For root, as whom tests may run, no file is forbidden.
    def open_it(path: Path, *rest: Any, **named: Any) -> Any:
        if path.name == "b.json":
            raise PermissionError(13, "Permission denied")
        return real(path, *rest, **named)

    return open_it


def test_a_file_that_cannot_be_read_is_named(
    ingest: Ingest, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    write("a.json", record(1))
    write("b.json", record(2))
    Path("c.json").symlink_to("c.json")
    monkeypatch.setattr(Path, "open", _open_unless_forbidden(Path.open))
    status, _, err = load(capsys, "a.json", ".")
    assert (status, err, ingest.ids) == (FAILED, "tlog-client: b.json: permission denied\n", ["id-1"])


def test_a_file_that_the_server_refuses_is_named_and_stops_no_other(
    ingest: Ingest, capsys: pytest.CaptureFixture[str]
) -> None:
    write("a.json", record(1))
    write("b.json", record(2))
    ingest.faults.append(refuse(400, detail="a number beyond 2^53-1"))
    status, out, err = load(capsys, ".")
    assert (status, err) == (FAILED, "tlog-client: a.json: refused: a number beyond 2^53-1\n")
    assert "1 imported, 0 skipped, 1 failed" in out
    # And it is tried again.
    assert load(capsys, ".")[1].startswith("files: 1 imported, 1 skipped, 0 failed")


@pytest.mark.parametrize(("status", "ended"), [(401, FAILED), (404, FAILED)])
def test_a_refusal_of_who_asks_ends_it(
    ingest: Ingest, capsys: pytest.CaptureFixture[str], status: int, ended: int
) -> None:
    write("a.json", record(1))
    write("b.json", record(2))
    ingest.faults.append(refuse(status, detail="not you"))
    found, out, err = load(capsys, ".")
    assert (found, len(ingest.bodies)) == (ended, 1)
    assert "not you" in err
    assert out.startswith("files: 0 imported")


def test_a_busy_server_is_waited_for(ingest: Ingest, capsys: pytest.CaptureFixture[str]) -> None:
    write("a.json", record(1))
    ingest.faults += [unavailable("1"), refuse(429), lambda work: (work(), None)[1]]
    assert load(capsys, "a.json")[1].endswith("events: 0 logged, 1 seen, 0 quarantined\n")
    assert len(ingest.bodies) == 4
    ingest.faults += [unavailable()] * 6
    write("b.json", record(2))
    assert load(capsys, "b.json")[0] == NOT_FETCHED


def test_the_credential_is_shown(ingest: Ingest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TLOG_TOKEN", "secret")
    write("a.json", record(1))
    run(["import", "cloudtrail", "a.json"])
    assert ingest.tokens == {"Bearer secret"}


@pytest.mark.parametrize("answer", [b"", b"[]", b'{"logged":1}', b'{"logged":-1,"quarantined":0,"seen":0}'])
def test_an_answer_that_says_nothing_ends_it(ingest: Ingest, answer: bytes) -> None:
    write("a.json", record(1))
    ingest.faults.append(lambda _: Answer(200, answer))
    assert run(["import", "cloudtrail", "a.json"]) == FAILED
    assert run(["import", "cloudtrail", "a.json"]) == DONE
    assert len(ingest.bodies) == 2


@pytest.mark.usefixtures("ingest")
def test_what_is_no_server_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    write("a.json", record(1))
    assert run(["import", "cloudtrail", "--server", "nowhere", "a.json"]) == USAGE
    assert "nowhere" in capsys.readouterr().err


def test_a_killed_import_goes_on_where_it_was(ingest: Ingest, capsys: pytest.CaptureFixture[str]) -> None:
    for number in range(20):
        write(f"{number:02}.json", *(record(100 * number + place) for place in range(100)))
    killed = threading.Event()

    def hold(work: Callable[[], Answer]) -> Answer:
        assert killed.wait(PATIENCE)
        return work()

    ingest.faults += [lambda work: work()] * 4 + [hold]
    child = subprocess.Popen([COMMAND, "import", "cloudtrail", "."])
    until(lambda: len(ingest.bodies) == 5, "the fifth file to be sent")
    child.kill()
    child.wait(PATIENCE)
    killed.set()
    until(lambda: len(ingest.ids) == 500, "the fifth file to be logged")
    assert load(capsys, ".") == (
        DONE,
        "files: 16 imported, 4 skipped, 0 failed; events: 1500 logged, 100 seen, 0 quarantined\n",
        "",
    )


@pytest.mark.usefixtures("ingest")
def test_who_looks_sees_how_far_it_is() -> None:
    write("a.json", *(record(number) for number in range(100)))
    if shutil.which("script") is None:
        pytest.skip("script, which makes a terminal, is not installed")
    seen = subprocess.run(
        ["script", "--quiet", "--command", f"{COMMAND} import cloudtrail a.json", "/dev/null"],
        check=True,
        capture_output=True,
        stdin=subprocess.DEVNULL,
        timeout=PATIENCE,
    )
    assert b"importing" in seen.stdout
    assert b"100%" in seen.stdout


# The real server


def segment_of(server: Server, name: str = "cloudtrail") -> Segment | None:
    """The segment that events of a format go into unless a route says otherwise."""
    answer = server.request("GET", f"/segments/{name}")
    return server.segment(name, answer.json()["vkey"]) if answer.status == 200 else None


def logged(server: Server, name: str = "cloudtrail") -> list[Any]:
    segment = segment_of(server, name)
    assert segment is not None
    return [entry["payload"] for entry in segment.entries(0, segment.checkpoint().size)]


def test_a_real_server_logs_each_event_once(
    start_server: Callable[..., Server], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    server = start_server(workers=1)
    for state, events in (("a", "8 logged, 0 seen"), ("b", "0 logged, 8 seen")):
        arguments = ["--server", server.url, "--state", str(tmp_path / state), str(SAMPLE)]
        assert run(["import", "cloudtrail", *arguments]) == DONE
        assert f"events: {events}, 0 quarantined" in capsys.readouterr().out
    # One of them is as Insights writes it, without the name of an event.
    records = json.loads(SAMPLE.read_bytes())["Records"]
    assert [one for one in records if "eventName" not in one]
    assert logged(server) == records


@pytest.mark.skipif(REAL is None, reason="TLOG_EVENTS names no folder of real CloudTrail events")
def test_a_killed_import_of_real_events_goes_on_and_logs_each_once(
    start_server: Callable[..., Server], tmp_path: Path
) -> None:
    server = start_server()
    folder = Path(REAL or "") / "cloudtrail"
    arguments = ["import", "cloudtrail", "--server", server.url, "--state", str(tmp_path / "state"), str(folder)]
    child = subprocess.Popen([COMMAND, *arguments], stdout=subprocess.DEVNULL)
    until(lambda: segment_of(server), "the first events to be logged")
    child.kill()
    assert child.wait(PATIENCE) == -signal.SIGKILL
    between = len(logged(server))
    assert run(arguments) == DONE
    events = [one for path in sorted(folder.glob("*.json")) for one in json.loads(path.read_bytes())["Records"]]
    assert 0 < between < len(events)
    found = {event["eventID"]: event for event in logged(server)}
    assert len(logged(server)) == len(found) == len(events)
    assert found == {event["eventID"]: event for event in events}
