"""`tlog witness`, a real process over real HTTP: what it refuses and how, and that it never goes back."""

import resource
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPException
from itertools import count, pairwise
from pathlib import Path

import pytest
import reference
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from live import answered, stalled, until
from witnessing import (
    NAME,
    Log,
    RunningWitness,
    command,
    cosigned,
    forged,
    log_list,
    make_log,
    other_root,
    start_witness,
    submission,
    with_lines,
    witness_signer,
)

from tlog.config import MAX_WAITING
from tlog.errors import CorruptError, StaleError
from tlog.store.connection import connect
from tlog.store.witness import NOTHING, Cosigned, WitnessStore, make_database
from tlog.witness.cosigner import Witness, hash_origin
from tlog.witness.log_list import ListedLog, parse_log_list
from tlog.witness.submission import MAX_SUBMISSION_BYTES, Submission, parse_submission
from tlog_core.checkpoint import open_checkpoint
from tlog_core.cosignature import cosign, open_cosignature
from tlog_core.errors import MalformedError
from tlog_core.note import Note, parse_note, sign_note

SIZE = 40
A = make_log("example.com/a", SIZE)
# Of these nothing is ever cosigned but what a test asks for.
LOGS = [make_log(f"example.com/log-{number}", SIZE, number) for number in range(100, 160)]
_FRESH = iter(LOGS)
STRANGER = make_log("example.com/stranger", SIZE)


@pytest.fixture(scope="module")
def witness(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningWitness]:
    """One witness for all tests that leave it running; it must never have answered with a fault of its own."""
    running = start_witness(tmp_path_factory.mktemp("witness") / "data", *[log.key for log in [A, *LOGS]])
    yield running
    assert running.server.stop() == 0
    assert [line for line in running.server.logged() if line["level"] == "error"] == []


@pytest.fixture
def log() -> Log:
    """A log of which the shared witness has cosigned nothing yet."""
    return next(_FRESH)


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., RunningWitness]]:
    """Start a witness of the test's own on the folder `data`."""
    running: list[RunningWitness] = []

    def start_it(*logs: Log, name: str | None = NAME) -> RunningWitness:
        running.append(start_witness(tmp_path / "data", *[log.key for log in logs], name=name))
        return running[-1]

    yield start_it
    for one in running:
        one.server.kill()


def test_a_log_that_grows_is_cosigned_and_the_cosignature_verifies(witness: RunningWitness, log: Log) -> None:
    old, before = 0, int(time.time())
    for size in (0, 1, 2, 3, 7, 8, 33, SIZE):
        answer = witness.add(log.body(old, size))
        assert (answer.status, answer.headers["Content-Type"]) == (200, "text/plain; charset=utf-8"), answer.body
        note = cosigned(log, size, answer)
        assert before <= open_cosignature(note, witness.key).time <= time.time()
        old = size
        latest = witness.latest(log)
        assert latest.status == 200
        # The served note is the log's, and carries the very cosignature that was answered.
        assert open_checkpoint(latest.body, log.key).size == size
        assert parse_note(latest.body).signatures == note.signatures


def test_the_latest_checkpoint_is_cosigned_anew_and_time_goes_on(witness: RunningWitness, log: Log) -> None:
    first = open_cosignature(cosigned(log, 5, witness.add(log.body(0, 5))), witness.key)
    until(lambda: time.time() >= first.time + 1, "the next second")
    again = witness.add(log.body(5, 5))
    assert again.status == 200
    second = open_cosignature(cosigned(log, 5, again), witness.key)
    assert second.time > first.time
    assert open_cosignature(parse_note(witness.latest(log).body), witness.key) == second


def test_witness_refuses_to_roll_back(witness: RunningWitness, log: Log) -> None:
    assert witness.add(log.body(0, 20)).status == 200
    for old, size in ((0, 3), (0, 20), (3, 20), (19, 20), (5, 33), (0, 0)):
        answer = witness.add(log.body(old, size))
        assert (answer.status, answer.body) == (409, b"20\n")
        assert answer.headers["Content-Type"] == "text/x.tlog.size"
    # Of a smaller checkpoint the old size of the witness would be the larger one.
    assert witness.add(log.body(20, 3, proof=[])).status == 400
    assert witness.size(log) == 20


def test_a_client_without_state_learns_the_size(witness: RunningWitness, log: Log) -> None:
    assert witness.add(log.body(1, 4)).body == b"0\n"
    assert witness.add(log.body(0, 4)).status == 200
    assert witness.add(log.body(0, 9)).body == b"4\n"


def test_an_unknown_origin_is_not_found(witness: RunningWitness) -> None:
    assert witness.add(STRANGER.body(0, 3)).status == 404
    # Not even signed by the key of a log that is known.
    note = bytes(sign_note(STRANGER.text(3), A.signer))
    assert witness.add(STRANGER.body(0, 3, note=note)).status == 404
    assert witness.latest(STRANGER).status == 404


def test_what_the_log_did_not_sign_is_forbidden(witness: RunningWitness, log: Log) -> None:
    key = log.key
    by_stranger = bytes(sign_note(log.text(3), STRANGER.signer))
    same_name = make_log(log.origin, SIZE, seed=99).note(3)
    for note in (
        by_stranger,
        same_name,
        with_lines(by_stranger, forged(key, 64)),
        # A wrong line under the log's name and ID, beside the right one.
        with_lines(log.note(3), forged(key, 64)),
        with_lines(log.note(3), forged(key, 7)),
    ):
        assert witness.add(log.body(0, 3, note=note)).status == 403, note
    assert witness.latest(log).status == 404


def test_a_proof_that_does_not_hold_is_unprocessable(witness: RunningWitness, log: Log) -> None:
    # Nothing before: there is nothing to prove.
    assert witness.add(log.body(0, 6, proof=[other_root()])).status == 422
    assert witness.add(log.body(0, 0, note=log.note(0, other_root()))).status == 422
    assert witness.add(log.body(0, 0, proof=[other_root()])).status == 422
    assert witness.latest(log).status == 404
    assert witness.add(log.body(0, 0)).status == 200
    assert witness.add(log.body(0, 0, note=log.note(0, other_root()))).status == 422
    assert witness.add(log.body(0, 6)).status == 200
    right = log.proof(6, 13)
    for proof in ([], right[:-1], right[1:], right[::-1], [*right, right[0]], [other_root(), *right[1:]]):
        assert witness.add(log.body(6, 13, proof=proof)).status == 422, proof
    assert witness.add(log.body(6, 13, note=log.note(13, other_root()))).status == 422
    assert witness.add(log.body(6, 6, proof=right)).status == 422
    assert witness.size(log) == 6
    assert witness.add(log.body(6, 13)).status == 200


def test_another_root_of_the_same_size_is_refused_and_kept_as_evidence(witness: RunningWitness, log: Log) -> None:
    assert witness.add(log.body(0, 6)).status == 200
    lie = log.note(6, other_root())
    assert witness.add(log.body(6, 6, note=lie)).status == 422
    noted = [
        line for line in witness.server.logged() if line["event"] == "contradiction" and log.origin in line["newer"]
    ]
    assert [line["newer"].encode() for line in noted] == [lie]
    older = open_checkpoint(noted[0]["older"].encode(), log.key)
    assert (older.size, older.root) == (6, reference.mth(log.leaves[:6]))


def test_a_forged_line_under_the_witness_name_does_not_wedge_it(witness: RunningWitness, log: Log) -> None:
    for old, size in ((0, 4), (4, 4), (4, 9)):
        note = with_lines(log.note(size), forged(witness.key, 72), forged(witness.key, 5))
        assert witness.add(log.body(old, size, note=note)).status == 200
        served = parse_note(witness.latest(log).body)
        open_cosignature(served, witness.key)
        assert {line.name for line in served.signatures} == {log.origin, NAME}
        assert len(served.signatures) == 2


def test_lines_of_other_keys_are_neither_judged_nor_kept(witness: RunningWitness, log: Log) -> None:
    other = witness_signer(name="witness.example/w2")
    note = with_lines(log.note(4), cosign(log.text(4), time=1, signer=other), forged(STRANGER.key, 64))
    assert witness.add(log.body(0, 4, note=note)).status == 200
    assert len(parse_note(witness.latest(log).body).signatures) == 2


def test_a_second_line_of_the_log_is_malformed(witness: RunningWitness, log: Log) -> None:
    line = parse_note(log.note(4)).signatures[0]
    assert witness.add(log.body(0, 4, note=with_lines(log.note(4), line))).status == 400


NOTE = A.note(3)
MALFORMED = {
    "nothing": b"",
    "no old line": b"\n" + NOTE,
    "no empty line": b"old 0\n" + NOTE.replace(b"\n\n", b"\n"),
    "only the note": NOTE,
    "OLD": submission("0", [], NOTE).replace(b"old", b"OLD"),
    "two blanks": submission(" 0", [], NOTE),
    "a leading zero": submission("00", [], NOTE),
    "a sign": submission("+0", [], NOTE),
    "a trailing blank": submission("0 ", [], NOTE),
    "an Arabic digit": submission("٣", [], NOTE),
    "five": submission("five", [], NOTE),
    "2^63": submission(str(2**63), [], NOTE),
    "CRLF": submission("0", [], NOTE).replace(b"\n", b"\r\n"),
    "CR in the old line": submission("0\r", [], NOTE),
    "64 hashes": submission("1", [bytes(32)] * 64, NOTE),
    "31 bytes of hash": submission("1", [bytes(31)], NOTE),
    "an empty hash": b"old 1\n\n\n" + NOTE,
    "base64 that is not canonical": submission("1", [bytes(32)], NOTE).replace(b"A=\n\n", b"B=\n\n", 1),
    "no signatures": submission("0", [], A.text(3).encode()),
    "a signature line without its newline": submission("0", [], NOTE[:-1]),
    "something after the note": submission("0", [], NOTE + b"x"),
    "an empty line after the note": submission("0", [], NOTE + b"\n"),
    "extension lines": submission("0", [], bytes(sign_note(A.text(3) + "more\n", A.signer))),
    "two lines only": submission("0", [], bytes(sign_note(f"{A.origin}\n3\n", A.signer))),
    "size 03": submission("0", [], bytes(sign_note(A.text(3).replace("\n3\n", "\n03\n"), A.signer))),
    "a root of 31 bytes": submission("0", [], A.note(3, bytes(31))),
    "an old size beyond the new": submission("4", [], NOTE),
    "101 signatures": submission("0", [], with_lines(NOTE, *[forged(STRANGER.key, 64)] * 100)),
}


@pytest.mark.parametrize("body", MALFORMED.values(), ids=MALFORMED)
def test_what_is_malformed_is_a_bad_request(witness: RunningWitness, body: bytes) -> None:
    answer = witness.add(body)
    assert answer.status == 400, answer.body
    assert answer.headers["Content-Type"].startswith("text/plain")
    assert witness.latest(A).status == 404


def test_63_hashes_and_16_large_signatures_are_taken(witness: RunningWitness, log: Log) -> None:
    note = with_lines(log.note(4), *[forged(STRANGER.key, 5000)] * 16)
    # Read, and then refused for what it says.
    assert witness.add(log.body(0, 4, proof=[bytes(32)] * 63, note=note)).status == 422
    assert witness.add(log.body(0, 4, note=note)).status == 200


def test_a_body_beyond_the_limit_is_too_large(witness: RunningWitness) -> None:
    answer = witness.add(bytes(MAX_SUBMISSION_BYTES + 1))
    assert (answer.status, answer.body) == (413, b"a submission has at most 131072 bytes\n")
    assert witness.add(bytes(MAX_SUBMISSION_BYTES)).status == 400


def test_there_are_no_other_routes(witness: RunningWitness, log: Log) -> None:
    request = witness.server.request
    assert request("GET", "/add-checkpoint").status == 405
    assert witness.add(log.body(0, 1)).status == 200
    for path in (log.path.upper(), log.path[:-1], log.path.replace("/checkpoint", ""), f"/0{log.path[1:]}", "//"):
        assert request("GET", path).status == 404
    assert request("POST", log.path, b"").status == 405


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary(max_size=400))
def test_any_bytes_as_the_body_are_the_clients_fault(witness: RunningWitness, body: bytes) -> None:
    assert 400 <= witness.add(body).status < 500


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_a_submission_with_any_change_is_no_fault_of_the_witness(witness: RunningWitness, data: st.DataObject) -> None:
    body = LOGS[-1].body(0, 5)
    place = data.draw(st.integers(0, len(body)))
    end = data.draw(st.integers(place, min(len(body), place + 4)))
    changed = body[:place] + data.draw(st.binary(max_size=4)) + body[end:]
    status = witness.add(changed).status
    assert 400 <= status < 500 or (status == 200 and changed == body)


def test_a_thousand_requests_at_once_never_roll_it_back(start: Callable[..., RunningWitness]) -> None:
    log = make_log("example.com/busy", 700)
    running = start(log)
    steps: list[tuple[int, int]] = []
    shown: list[int] = []
    done = threading.Event()

    def watch() -> None:
        while not done.is_set():
            shown.append(running.size(log))

    def submit(seed: int) -> None:
        old = 0
        for turn in range(1000 // 20):
            # From the same size each thread goes its own way.
            size = old + (seed + turn) % 5
            answer = running.add(log.body(old, size))
            assert answer.status in (200, 409), answer.body
            if answer.status == 200:
                open_cosignature(cosigned(log, size, answer), running.key)
                steps.append((old, size))
            old = size if answer.status == 200 else int(answer.body)

    watcher = threading.Thread(target=watch)
    watcher.start()
    with ThreadPoolExecutor(20) as pool:
        list(pool.map(submit, range(20)))
    done.set()
    watcher.join()
    # What it agreed to is one history: from each size it went on to one other.
    grown = sorted(step for step in steps if step[0] < step[1])
    assert grown[0][0] == 0
    assert all(first[1] == second[0] for first, second in pairwise(grown)), grown
    assert running.size(log) == grown[-1][1] > 20
    assert all(first <= second for first, second in pairwise(shown))


def test_killed_under_load_it_knows_all_that_it_cosigned(start: Callable[..., RunningWitness]) -> None:
    log = make_log("example.com/killed", 900)
    # Sizes that were answered, each with the root; by whichever thread.
    answered = [0]
    for round_ in range(3):
        running = start(log)
        assert running.size(log) >= max(answered)
        reached = max(answered)

        def submit(running: RunningWitness = running) -> None:
            old = 0
            while True:
                try:
                    answer = running.add(log.body(old, old + 1))
                except (OSError, HTTPException):
                    return
                if answer.status == 200:
                    answered.append(old + 1)
                old = old + 1 if answer.status == 200 else int(answer.body)

        with ThreadPoolExecutor(4) as pool:
            load = [pool.submit(submit) for _ in range(4)]
            until(lambda reached=reached: max(answered) > reached + 25, f"progress in round {round_}")  # type: ignore[misc]
            running.server.kill()
        for one in load:
            one.result()
    running = start(log)
    assert max(answered) <= running.size(log) <= max(answered) + 1
    # It still answers for that, and for nothing older.
    size = running.size(log)
    assert running.add(log.body(size - 1, size)).body == f"{size}\n".encode()
    assert running.add(log.body(size, size + 1)).status == 200


def test_state_outlives_the_list_and_the_key_of_the_log(start: Callable[..., RunningWitness]) -> None:
    running = start(A)
    assert running.add(A.body(0, 9)).status == 200
    assert running.server.stop() == 0
    running = start(LOGS[0], name=None)
    assert running.add(A.body(9, 10)).status == 404
    assert running.latest(A).status == 200
    assert running.server.stop() == 0
    renewed = make_log(A.origin, SIZE, seed=5)
    running = start(renewed)
    assert running.add(A.body(9, 10)).status == 403
    assert running.add(renewed.body(0, 3)).body == b"9\n"
    assert running.add(renewed.body(9, 10)).status == 200


def test_a_full_disk_is_said_and_passes(start: Callable[..., RunningWitness]) -> None:
    running = start(A)
    assert running.add(A.body(0, 9)).status == 200
    (worker,) = running.server.workers()
    limits = resource.prlimit(worker.pid, resource.RLIMIT_FSIZE)
    resource.prlimit(worker.pid, resource.RLIMIT_FSIZE, (1000, limits[1]))
    answer = running.add(A.body(9, 10))
    assert (answer.status, running.size(A)) == (503, 9)
    # What is not new needs no disk, and what was refused for good is still refused.
    assert running.add(A.body(3, 10)).status == 409
    resource.prlimit(worker.pid, resource.RLIMIT_FSIZE, limits)
    assert running.add(A.body(9, 10)).status == 200


@pytest.mark.parametrize("path", ["/add-checkpoint", "/sign-subtree"])
def test_those_who_stall_keep_out_submissions_only_and_only_while_they_are_there(
    start: Callable[..., RunningWitness], path: str
) -> None:
    running = start(A)
    assert running.add(A.body(0, 9)).status == 200
    with stalled(running.server.port, 300, f"POST {path}") as held:
        until(lambda: len(answered(held)) >= 300 - MAX_WAITING, "the others to be refused")
        assert {one.recv(12) for one in answered(held)} == {b"HTTP/1.1 503"}
        assert running.size(A) == 9
        refused = running.add(A.body(9, 10))
        assert (refused.status, refused.headers["Retry-After"]) == (503, "1")
        assert b"retry later" in refused.body
    until(lambda: running.add(A.body(9, 10)).status == 200, "submissions to be taken", 1)
    assert [line for line in running.server.logged() if line["level"] == "error"] == []


def refused(*arguments: str) -> str:
    run = subprocess.run(arguments, capture_output=True, text=True, check=False, timeout=30)
    assert run.returncode == 2, run
    assert run.stdout == ""
    return run.stderr


def test_the_key_is_made_once_and_for_its_owner_only(tmp_path: Path) -> None:
    def key(*more: str) -> str:
        return subprocess.run(command(tmp_path / "w", "key", *more), check=True, capture_output=True, text=True).stdout

    assert "--name" in refused(*command(tmp_path / "w", "key"))
    first = key("--name", NAME)
    assert first == key() == key("--name", NAME)
    assert first.startswith(f"{NAME}+")
    assert {path.stat().st_mode & 0o077 for path in (tmp_path / "w").iterdir()} == {0}
    assert NAME in refused(*command(tmp_path / "w", "key", "--name", "witness.example/w2"))
    assert "key name" in refused(*command(tmp_path / "v", "key", "--name", "two words"))


@pytest.mark.parametrize("gone", ["witness.key", "witness.db"])
def test_a_witness_that_lost_a_part_does_not_start(tmp_path: Path, gone: str) -> None:
    subprocess.run(command(tmp_path / "w", "key", "--name", NAME), check=True, capture_output=True)
    (tmp_path / "w" / gone).unlink()
    assert "is gone" in refused(*command(tmp_path / "w", "key", "--name", NAME))


def test_a_witness_does_not_start_with_another_key(tmp_path: Path) -> None:
    subprocess.run(command(tmp_path / "w", "key", "--name", NAME), check=True, capture_output=True)
    key = tmp_path / "w" / "witness.key"
    key.write_text(witness_signer().format())
    assert "put the right key back" in refused(*command(tmp_path / "w", "key"))
    key.write_text("PRIVATE+KEY+")
    assert "put the right one back" in refused(*command(tmp_path / "w", "key"))


def test_a_witness_does_not_start_where_it_would_do_harm(start: Callable[..., RunningWitness], tmp_path: Path) -> None:
    def serve(folder: str, listed: str, name: str = NAME) -> str:
        (tmp_path / "list").write_text(listed)
        return refused(*command(tmp_path / folder, "serve", "--logs", str(tmp_path / "list"), "--name", name))

    start(A)
    assert "another server runs" in serve("data", log_list(A.key))
    assert "has the name of the witness" in serve("w", log_list(A.key), A.origin)
    other = log_list(A.key).replace("\nqpd", "\norigin somewhere\nqpd")
    assert "has the name of the witness" in serve("v", other, A.origin)
    assert "has the name of the witness" in serve("u", other, "somewhere")
    assert "line 3: expected qpd" in serve("w", log_list(A.key).replace("qpd", "quota"), A.origin)
    assert "line 1: " in serve("t", "")
    # What is named is named for ever, so that nothing was.
    assert not any((tmp_path / folder).exists() for folder in "tuvw")


def test_damaged_state_is_never_signed_upon(tmp_path: Path) -> None:
    signer = witness_signer()
    path = tmp_path / "w.db"
    make_database(path, str(signer.verifier))
    origin = hash_origin(A.origin)
    cosigner = Witness(signer, None, {A.origin: A.key}, WitnessStore(path), lambda: 1000)
    cosigner.add_checkpoint(parse_submission(A.body(0, 9)))
    right = cosigner.latest(origin)
    other = bytes(Note(A.text(5), (cosign(A.text(5), time=1000, signer=witness_signer(3)),)))
    for change, value in (
        ("size = ?", 5),
        ("root = ?", bytes(32)),
        ("time = ?", 7),
        ("note = ?", other),
        ("note = ?", b""),
        ("note = ?", right.replace(b"\n9\n", b"\n8\n")),
    ):
        connection = connect(path)
        before = connection.execute("select size, root, time, note from cosigned").fetchone()
        connection.execute(f"update cosigned set {change}", [value])  # noqa: S608
        with pytest.raises(CorruptError):
            cosigner.add_checkpoint(parse_submission(A.body(9, 10)))
        with pytest.raises(CorruptError):
            cosigner.latest(origin)
        connection.execute("update cosigned set size = ?, root = ?, time = ?, note = ?", before)
        connection.close()
    cosigner.add_checkpoint(parse_submission(A.body(9, 10)))


def test_time_never_goes_back(tmp_path: Path) -> None:
    signer = witness_signer()
    make_database(tmp_path / "w.db", str(signer.verifier))
    times = iter([1000, 900, 1000, 950, 1001, 1])
    cosigner = Witness(signer, None, {A.origin: A.key}, WitnessStore(tmp_path / "w.db"), clock=lambda: next(times))
    found = []
    for old, size in ((0, 4), (4, 4), (4, 4), (4, 9), (9, 9), (9, 12)):
        lines = cosigner.add_checkpoint(parse_submission(A.body(old, size)))
        found.append(open_cosignature(Note(A.text(size), lines), signer.verifier).time)
    assert found == [1000, 1000, 1000, 1000, 1001, 1001]


def test_the_statement_itself_moves_on_only_from_what_was_checked(tmp_path: Path) -> None:
    make_database(tmp_path / "w.db", "w")
    store, origin = WitnessStore(tmp_path / "w.db"), hash_origin("o")
    first, second = Cosigned(5, other_root(), 10, b"a"), Cosigned(9, other_root(8), 12, b"b")
    assert store.advance(origin, NOTHING, first)
    for old, new in (
        (NOTHING, second),
        (second, Cosigned(12, other_root(9), 13, b"c")),
        (Cosigned(5, other_root(8), 10, b"a"), second),
        (first, Cosigned(9, other_root(8), 9, b"b")),
    ):
        assert not store.advance(origin, old, new)
        assert store.latest(origin) == first
    assert store.advance(origin, first, second)
    assert store.latest(origin) == second


def test_one_that_came_second_is_checked_anew(tmp_path: Path) -> None:
    signer = witness_signer()
    make_database(tmp_path / "w.db", str(signer.verifier))
    # What comes between the check of a submission and its being stored.
    between, seconds = [A.body(0, 9)], count(1000)

    def clock() -> int:
        if between:
            cosigner.add_checkpoint(parse_submission(between.pop()))
        return next(seconds)

    cosigner = Witness(signer, None, {A.origin: A.key}, WitnessStore(tmp_path / "w.db"), clock)
    with pytest.raises(StaleError, match="has size 9"):
        cosigner.add_checkpoint(parse_submission(A.body(0, 4)))
    between.append(A.body(9, 12))
    with pytest.raises(StaleError, match="has size 12"):
        cosigner.add_checkpoint(parse_submission(A.body(9, 9)))
    assert parse_note(cosigner.latest(hash_origin(A.origin))).text == A.text(12)


@settings(max_examples=300, deadline=None)
@given(
    st.one_of(st.binary(max_size=200), st.builds(lambda head, note: head + b"\n\n" + note, st.binary(), st.binary()))
)
def test_any_bytes_are_a_submission_or_malformed(raw: bytes) -> None:
    try:
        parsed = parse_submission(raw)
    except MalformedError:
        return
    assert written(parsed) == raw


def written(parsed: Submission) -> bytes:
    return submission(str(parsed.old), parsed.proof, bytes(parsed.note))


@given(st.integers(0, 2**63 - 1), st.lists(st.binary(min_size=32, max_size=32), max_size=63))
def test_a_submission_is_read_as_it_is_written(old: int, proof: list[bytes]) -> None:
    raw = submission(str(old), proof, NOTE)
    parsed = parse_submission(raw)
    assert (parsed.old, list(parsed.proof), bytes(parsed.note)) == (old, proof, NOTE)
    assert written(parsed) == raw


VKEY = str(A.key)
LIST = f"""
# a comment
  # and another

logs/v0
vkey {VKEY}
qpd 86400
contact https://example.com/contact us
\t vkey {STRANGER.key} \t
 origin go.sum database tree
qpd 1

contact nobody"""


def test_a_list_is_read_as_it_says() -> None:
    assert parse_log_list(LIST.encode()) == (
        ListedLog(A.origin, A.key, 86400, "https://example.com/contact us"),
        ListedLog("go.sum database tree", STRANGER.key, 1, "nobody"),
    )
    assert parse_log_list(b"logs/v0\n") == ()


ENTRY = f"vkey {VKEY}\nqpd 5\ncontact me\n"
WEAK = "x+2d8a8d01+AQEAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"
BAD_LISTS = {
    "": 1,
    "logs/v1\n" + ENTRY: 1,
    ENTRY: 1,
    "logs/v0\nlogs/v0\n": 2,
    "logs/v0\n" + ENTRY + ENTRY: 7,
    "logs/v0\n" + ENTRY + ENTRY.replace("\nqpd", f"\norigin {A.origin}\nqpd"): 8,
    "logs/v0\nvkey x\n": 2,
    "logs/v0\nvkey\n": 2,
    f"logs/v0\nvkey {WEAK}\nqpd 1\ncontact x\n": 2,
    f"logs/v0\nvkey {witness_signer().verifier}\nqpd 1\ncontact x\n": 2,
    f"logs/v0\nvkey {VKEY}\ncontact me\nqpd 5\n": 3,
    f"logs/v0\nqpd 5\nvkey {VKEY}\ncontact me\n": 2,
    f"logs/v0\nvkey {VKEY}\nqpd 5\norigin o\ncontact me\n": 4,
    f"logs/v0\nvkey {VKEY}\norigin o\norigin o\nqpd 5\ncontact me\n": 4,
    f"logs/v0\nvkey {VKEY}\nqpd 5\n": 3,
    f"logs/v0\nvkey {VKEY}\nqpd 5\ncontact\n": 4,
    "logs/v0\n" + ENTRY + "more x\n": 5,
    "logs/v0\n" + ENTRY.replace(" 5", " 0"): 3,
    "logs/v0\n" + ENTRY.replace(" 5", " 05"): 3,
    "logs/v0\n" + ENTRY.replace(" 5", " +5"): 3,
    "logs/v0\n" + ENTRY.replace(" 5", " ٣"): 3,
    "logs/v0\n" + ENTRY.replace(" 5", f" {2**31}"): 3,
    "logs/v0\n" + ENTRY.replace("\nqpd", f"\norigin {'o' * 256}\nqpd"): 3,
    "logs/v0\n" + ENTRY.replace("\nqpd", "\rqpd"): 2,
}


@pytest.mark.parametrize("text", BAD_LISTS)
def test_a_list_that_is_not_strict_is_refused_with_its_line(text: str) -> None:
    with pytest.raises(MalformedError, match=f"^line {BAD_LISTS[text]}: "):
        parse_log_list(text.encode())


@given(st.one_of(st.binary(max_size=200), st.text(max_size=100).map(lambda more: (LIST + more).encode())))
def test_any_bytes_are_a_list_or_malformed(raw: bytes) -> None:
    try:
        logs = parse_log_list(raw)
    except MalformedError:
        return
    assert len({log.origin for log in logs}) == len(logs)
