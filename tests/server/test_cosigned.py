"""The parts of asking, alone: what is stored never goes back, entries that wait too long close a segment, and turns."""

import itertools
import json
import shutil
import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing
from itertools import product
from pathlib import Path

import pytest
import reference
import requests
from click.testing import CliRunner
from damaging import damaged
from live import until
from panels import SIZE_TYPE, Heard, Reply, hearing, honestly, make_data, panel
from witnessing import witness_signer

from tlog.anchor import Anchor
from tlog.app import create_app
from tlog.cli import main
from tlog.clock import now
from tlog.config import Config
from tlog.errors import CorruptError, FrozenError, UnavailableError
from tlog.logs import make_logger
from tlog.metrics import Metrics
from tlog.segments import PATIENCE, Nobody, Segments
from tlog.sequencer import Logged, Sequencer, Submission, sign_head
from tlog.store.cosigned import CosignedHead, Frozen, WitnessLine
from tlog.store.segment import SegmentStore
from tlog.tree import EMPTY_TREE
from tlog.witnesses.agenda import PAUSE, Again, Agenda, Told
from tlog.witnesses.confirmed import Confirmed
from tlog.witnesses.lane import Backoff, Lane
from tlog.witnesses.request import MAX_ANSWER_BYTES, Cosigned, Latest, Refused, submit
from tlog.witnesses.rounds import Rounds
from tlog_core.commitment import Opening, commit
from tlog_core.evidence import MAX_LAG
from tlog_core.merkle import Hash
from tlog_core.note import SignerKey, parse_note
from tlog_core.policy import TrustedWitness, TrustPolicy
from tlog_core.receipt import JSON_TYPE

ROOTS = [Hash(reference.sha256(b"%d" % number)) for number in range(2)]


LOCAL = {"REMOTE_ADDR": "127.0.0.1"}


def submission(number: int, key: bytes | None = None) -> Submission:
    opening, payload = Opening(bytes(32)), b"%d" % number
    commitment = commit(opening=opening, payload_type=JSON_TYPE, payload=payload)
    return Submission("till-7", JSON_TYPE, [opening], [payload], [commitment], key)


def grow(store: SegmentStore, signer: SignerKey, anchor: Anchor, number: int) -> Sequencer:
    sequencer = Sequencer(store, signer, clock=lambda: 1000, on_commit=lambda *_: None, anchor=anchor)
    for one in range(number):
        sequencer.append(submission(one))
    return sequencer


# What is stored


def test_a_stored_cosignature_never_goes_back(store: SegmentStore, signer: SignerKey, anchor: Anchor) -> None:
    grow(store, signer, anchor, 3)
    found = {
        (size, root, at): WitnessLine("w+1+x", size, ROOTS[root], at, f"{size} {root} {at}\n")
        for size, root, at in product((1, 2, 3), (0, 1), (5, 6))
    }
    for (old, before), (new, after) in product(found.items(), found.items()):
        with store.write() as transaction:
            transaction._connection.execute("delete from cosignature")
            assert transaction.put_cosignature(before)
            later = new[0] > old[0] or (new[:2] == old[:2] and new[2] >= old[2])
            assert transaction.put_cosignature(after) == later
        assert store.cosignatures() == [after if later else before]


def test_a_stored_cosigned_head_never_goes_back(store: SegmentStore, signer: SignerKey, anchor: Anchor) -> None:
    grow(store, signer, anchor, 3)
    found = {
        (size, root, at): CosignedHead(size, ROOTS[root], at, 1000, b"%d %d %d" % (size, root, at))
        for size, root, at in product((1, 2, 3), (0, 1), (5, 6))
    }
    for (old, before), (new, after), afresh in product(found.items(), found.items(), (False, True)):
        with store.write() as transaction:
            transaction._connection.execute("delete from cosigned")
            assert transaction.put_cosigned(before, afresh=False)
            later = new[0] > old[0] or (new[:2] == old[:2] and (afresh or new[2] >= old[2]))
            assert transaction.put_cosigned(after, afresh=afresh) == later
        assert store.cosigned() == (after if later else before)


def test_nothing_is_stored_of_a_head_that_is_not_there(store: SegmentStore, signer: SignerKey, anchor: Anchor) -> None:
    grow(store, signer, anchor, 2)
    with store.write() as transaction:
        assert not transaction.put_cosignature(WitnessLine("w+1+x", 3, ROOTS[0], 5, "line\n"))
        assert not transaction.put_cosigned(CosignedHead(3, ROOTS[0], 5, 1000, b""), afresh=True)
    assert (store.cosignatures(), store.cosigned()) == ([], None)


def test_a_segment_is_frozen_only_by_what_is_beyond_its_head_on_disk(
    store: SegmentStore, signer: SignerKey, anchor: Anchor
) -> None:
    sequencer = grow(store, signer, anchor, 2)
    with store.write() as transaction:
        # Another process has committed since the witness was asked.
        assert not transaction.freeze(Frozen(1, "w", 2, "why"), behind=True)
    assert isinstance(sequencer.append(submission(2)), Logged)
    with store.write() as transaction:
        assert transaction.freeze(Frozen(1, "w", 4, "why"), behind=True)
        assert not transaction.freeze(Frozen(2, "x", 5, "again"), behind=True)
    assert store.frozen() == Frozen(1, "w", 4, "why")
    with pytest.raises(FrozenError, match="why"):
        sequencer.append(submission(3))
    assert not sequencer.broken
    assert store.head().size == 3
    # The statement that moves the head has a guard of its own.
    head = store.head()
    with pytest.raises(CorruptError), store.write() as transaction:
        transaction.move_head(head, head)


def test_a_segment_from_before_there_were_witnesses_is_brought_up_to_date(
    tmp_path: Path, signer: SignerKey, anchor: Anchor
) -> None:
    path = tmp_path / "old.db"
    SegmentStore.create(path, sign_head(EMPTY_TREE, 1000, signer))
    with closing(sqlite3.connect(path)) as old, old:
        for table in ("cosignature", "cosigned", "frozen"):
            old.execute(f"drop table {table}")
        old.execute("alter table head drop column anchored")
        for table in ("event", "bulletin"):
            old.execute(f"drop table {table}")
        assert old.execute("delete from _sqlite_migrations where name > 'm004'").rowcount == 4
        old.execute("pragma user_version = 3")
    store = SegmentStore(path)
    grow(store, signer, anchor, 2)
    assert (store.frozen(), store.cosigned(), store.cosignatures()) == (None, None, [])
    store.close()


def test_those_who_append_and_those_who_ask_take_turns(store: SegmentStore, signer: SignerKey, anchor: Anchor) -> None:
    sequencer = grow(store, signer, anchor, 1)
    failures, done = list[BaseException](), threading.Event()

    def ask() -> None:
        try:
            for at in range(1, 200):
                with store.write() as transaction:
                    transaction.put_cosignature(WitnessLine("w+1+x", 1, ROOTS[0], at, f"{at}\n"))
        except BaseException as error:
            failures.append(error)
        done.set()

    thread = threading.Thread(target=ask)
    thread.start()
    number = 1
    while not done.is_set():
        sequencer.append(submission(number))
        number += 1
    thread.join()
    assert failures == []
    assert store.head().size == number
    assert store.cosignatures()[0].time == 199


# The promise (spec/evidence.md, `backdating`)


def cosign_all(store: SegmentStore) -> None:
    head = store.head()
    with store.write() as transaction:
        assert transaction.put_cosigned(CosignedHead(head.size, head.root, 1, head.time, head.note), afresh=True)


def test_a_segment_is_closed_while_an_entry_waits_too_long_for_its_witnesses(
    store: SegmentStore, signer: SignerKey, anchor: Anchor
) -> None:
    at = [10_000]
    sequencer = Sequencer(store, signer, clock=lambda: at[0], on_commit=lambda *_: None, anchor=anchor, patience=100)
    key = b"k" * 32
    sequencer.append(submission(0, key))
    at[0] = 10_050
    sequencer.append(submission(1))
    at[0] = 10_100
    sequencer.append(submission(2))
    at[0] = 10_101
    for _ in range(2):
        with pytest.raises(UnavailableError, match="from 0 on"):
            sequencer.append(submission(3))
    assert (store.head().size, sequencer.broken) == (3, False)
    # What was logged before is found again.
    assert sequencer.append(submission(0, key)).start == 0
    cosign_all(store)
    at[0] = 99_000
    # However long ago it was: all that there is was shown.
    sequencer.append(submission(3))
    at[0] = 99_100
    sequencer.append(submission(4))
    at[0] = 99_101
    with pytest.raises(UnavailableError, match="from 3 on"):
        sequencer.append(submission(5))
    # A part is not enough.
    with store.write() as transaction:
        transaction.put_cosigned(CosignedHead(4, ROOTS[0], 2, 99_000, b""), afresh=True)
    sequencer.append(submission(5))
    at[0] = 99_201
    with pytest.raises(UnavailableError, match="from 4 on"):
        sequencer.append(submission(6))


def test_without_witnesses_nothing_waits_for_them(store: SegmentStore, signer: SignerKey, anchor: Anchor) -> None:
    at = iter([1000, 10**15])
    sequencer = Sequencer(store, signer, clock=lambda: next(at), on_commit=lambda *_: None, anchor=anchor)
    for number in range(2):
        sequencer.append(submission(number))


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as opened:
        yield opened


def witnessed(tmp_path: Path, stack: ExitStack) -> tuple[Config, Heard]:
    """Make a folder with the segment payments, and its one witness, which is out of order."""
    keys = make_data(tmp_path / "data", "payments")
    signer = witness_signer(9, "witness.example/h9")
    heard = stack.enter_context(hearing(honestly(tmp_path, signer, list(keys.values())), 9))
    (tmp_path / "witnesses").write_bytes(bytes(panel([(heard.key, heard.url)], 1)))
    return Config(tmp_path / "data", unguarded=True, witnesses=tmp_path / "witnesses"), heard


def test_the_log_takes_no_entries_until_its_witnesses_are_back(
    tmp_path: Path, stack: ExitStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert PATIENCE * 2 == MAX_LAG * 1000
    at, began = [0], now()
    monkeypatch.setattr("tlog.app.now", lambda: began + at[0])
    config, witness = witnessed(tmp_path, stack)
    client = create_app(config).test_client()

    def post(number: int) -> tuple[int, str]:
        answer = client.post("/segments/payments/entries", json=number, environ_base=LOCAL)
        return answer.status_code, answer.json.get("detail", "") if answer.json else ""

    assert post(0)[0] == 201
    until(lambda: b"\n1\n" in client.get("/segments/payments/checkpoint/cosigned", environ_base=LOCAL).data, "a quorum")
    honest_reply, witness.reply = witness.reply, lambda _: (500, {}, b"")
    assert post(1)[0] == 201
    at[0] = PATIENCE - 1000
    assert post(2)[0] == 201
    at[0] = PATIENCE + 60_000
    status, detail = post(3)
    assert status == 503
    assert "until a quorum of its witnesses has cosigned those from 1 on" in detail
    shown = client.get("/segments/payments", environ_base=LOCAL)
    assert json.loads(shown.data)["size"] == 3
    witness.reply = honest_reply
    until(lambda: post(4)[0] == 201, "the segment to take entries again")


# Two workers


def rounds(folder: Path, panel_of_all: TrustPolicy) -> Rounds:
    """Return what asks in one worker, of which nothing runs by itself."""
    config = Config(folder, witnesses=folder / "witnesses")
    segments = Segments(config, Nobody(), now)
    config.confirmed.mkdir(exist_ok=True)
    confirmed = Confirmed(panel_of_all, Agenda(), config.confirmed)
    return Rounds(
        config, panel_of_all, segments, Metrics(), make_logger(), clock=now, ended=lambda: None, confirmed=confirmed
    )


def test_what_one_worker_has_asked_for_the_other_does_not(tmp_path: Path, stack: ExitStack) -> None:
    config, witness = witnessed(tmp_path, stack)
    refusing = stack.enter_context(hearing(lambda _: (404, {}, b""), 10))
    honest_reply = witness.reply

    def slowly(body: bytes) -> Reply:
        # Long enough for the other to ask too, if it would.
        time.sleep(0.5)
        return honest_reply(body)

    witness.reply = slowly
    policy = panel([(witness.key, witness.url), (refusing.key, refusing.url)], 1)
    workers = [rounds(config.data, policy) for _ in range(2)]
    threads = [threading.Thread(target=worker.ask, args=("payments",)) for worker in workers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(witness.bodies) == 1
    # The quorum has the head: who refused it is not asked again by the other either.
    until(lambda: len(refusing.bodies) == 1, "the other witness to be asked")
    assert [worker.ask("payments") for worker in workers] == [None, None]
    assert (len(witness.bodies), len(refusing.bodies)) == (1, 1)


# fsck


@pytest.mark.parametrize(
    ("statement", "words"),
    [
        ("update cosignature set line = replace(line, 'h9 ', 'h8 ')", "not cosigned by"),
        ("update cosignature set time = time + 1", "another time"),
        ("update cosignature set size = 2", "does not hold"),
        ("update cosignature set root = zeroblob(32)", "root of size 3"),
        ("update cosignature set vkey = 'x' || vkey", "does not hold"),
        ("update cosigned set root = zeroblob(32)", "root of the cosigned head of size 3"),
        ("update cosigned set size = 2", "not the one signed"),
        ("update cosigned set size = 9", "root of the cosigned head of size 9"),
        ("update cosigned set note = substr(note, 1, 60)", "cannot be trusted"),
        ("insert into frozen values (1, 1, 'w', 9, 'why')", "frozen: why"),
    ],
)
def test_fsck_finds_what_is_wrong_about_witnesses(whole: Path, tmp_path: Path, statement: str, words: str) -> None:
    data = tmp_path / "data"
    shutil.copytree(whole, data)
    shutil.copytree(f"{whole}.anchor", f"{data}.anchor")
    assert fsck(data) == (0, "")
    with closing(sqlite3.connect(database_of(data))) as database, database:
        assert database.execute(statement).rowcount == 1
    status, found = fsck(data)
    assert status == 1
    assert words in found
    assert all(line.startswith("payments: ") for line in found.splitlines())


def test_fsck_finds_one_bit_of_every_column_about_witnesses(whole: Path, tmp_path: Path) -> None:
    data = tmp_path / "data"
    shutil.copytree(whole, data)
    shutil.copytree(f"{whole}.anchor", f"{data}.anchor")
    database = database_of(data)
    columns = [one for one in damaged(database, ("cosignature", "cosigned")) if fsck(data)[0] == 0]
    assert columns == []
    assert fsck(data) == (0, "")


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of a log whose segment payments, of three entries, was cosigned."""
    folder = tmp_path_factory.mktemp("whole")
    with ExitStack() as stack:
        config, _ = witnessed(folder, stack)
        app = create_app(config)
        client, asker = app.test_client(), app.config["SERVICES"].asker
        local = {"REMOTE_ADDR": "127.0.0.1"}
        answer = client.post(
            "/segments/payments/entries?cosigned=true",
            data=b"1\n2\n3\n",
            content_type="application/x-ndjson",
            environ_base=local,
        )
        assert answer.status_code == 201
        segments = app.config["SERVICES"].segments
        with segments.use("payments") as segment:
            assert asker.newest(segment).size == 3
    target = folder / "copy"
    # Whole by itself: SQLite's own copies, and the other files as they are.
    shutil.copytree(config.data, target, ignore=shutil.ignore_patterns("*.db*", "*.lock"))
    for path in config.data.rglob("*.db"):
        with (
            closing(sqlite3.connect(path)) as source,
            closing(sqlite3.connect(target / path.relative_to(config.data))) as copied,
        ):
            source.backup(copied)
    shutil.copytree(f"{config.data}.anchor", f"{target}.anchor")
    return target


def database_of(data: Path) -> Path:
    with closing(sqlite3.connect(data / "control.db")) as control:
        [(one,)] = control.execute("select id from segment where name = 'payments'").fetchall()
    return data / "segments" / f"{one}.db"


def fsck(data: Path) -> tuple[int, str]:
    found = CliRunner().invoke(main, ["fsck", "--data", str(data)])
    assert isinstance(found.exception, SystemExit | None), found.exception
    return found.exit_code, found.stdout


# One request


def ask(heard: Heard, note: bytes) -> Cosigned | Latest | Refused:
    witness = TrustedWitness("w", heard.key, f"{heard.url}/prefix/")
    with requests.Session() as session:
        return submit(session, witness, 0, [], parse_note(note))


def test_an_answer_is_of_bounded_length_and_time(
    stack: ExitStack, signer: SignerKey, monkeypatch: pytest.MonkeyPatch
) -> None:
    note = sign_head(EMPTY_TREE, 0, signer).note
    heard = stack.enter_context(hearing(lambda _: (200, {}, b"x" * (MAX_ANSWER_BYTES + 1)), 9))
    answer = ask(heard, note)
    assert isinstance(answer, Refused)
    assert (answer.outcome, answer.reason) == ("invalid", f"the answer is longer than {MAX_ANSWER_BYTES} bytes")
    # Byte by byte, each of which comes in time.
    ticks = itertools.count(step=4)
    monkeypatch.setattr("tlog.witnesses.request.time.monotonic", lambda: next(ticks))
    heard.reply = lambda _: (200, {"X-Drip": "yes"}, b"x" * 9)
    answer = ask(heard, note)
    assert isinstance(answer, Refused)
    assert answer.reason == "the answer takes too long"


def test_a_witness_is_asked_below_its_prefix_as_the_specification_says(stack: ExitStack, signer: SignerKey) -> None:
    note = sign_head(EMPTY_TREE, 0, signer).note
    heard = stack.enter_context(hearing(lambda _: (409, SIZE_TYPE, b"12\n"), 9))
    assert ask(heard, note) == Latest(12)
    assert heard.bodies == [b"old 0\n\n" + note]
    assert heard.paths == ["/prefix/add-checkpoint"]
    for status, outcome in ((404, "unknown"), (422, "contradicts"), (429, "busy"), (503, "busy"), (400, "refused")):
        heard.reply = lambda _, status=status: (status, {}, b"")  # type: ignore[misc]
        answer = ask(heard, note)
        assert isinstance(answer, Refused)
        assert answer.outcome == outcome


# Whose turn it is


def taken(agenda: Agenda) -> str:
    """Take the next one, which must come."""
    found: list[str] = []
    thread = threading.Thread(target=lambda: found.append(agenda.take()), daemon=True)
    thread.start()
    thread.join(30)
    assert found, "nobody's turn comes"
    return found[0]


def test_what_is_committed_while_it_is_asked_about_comes_again_and_not_before() -> None:
    agenda = Agenda()
    told = Told(agenda, Nobody())
    for _ in range(3):
        told.committed("payments", 1, 0.1, 1)
    assert len(agenda) == 1
    assert taken(agenda) == "payments"
    told.committed("payments", 1, 0.1, 2)
    told.committed("refunds", 1, 0.1, 1)
    # Nobody else gets one that is being asked about.
    assert taken(agenda) == "refunds"
    agenda.done("refunds", None)
    before = time.monotonic()
    agenda.done("payments", None)
    assert taken(agenda) == "payments"
    assert time.monotonic() - before >= PAUSE
    agenda.done("payments", None)
    assert len(agenda) == 0


def test_what_failed_everywhere_is_asked_about_again_at_its_time_whatever_is_committed() -> None:
    agenda = Agenda()
    agenda.put("payments")
    assert taken(agenda) == "payments"
    retry = time.monotonic() + 0.3
    agenda.done("payments", Again(missing=retry, anyone=retry))
    agenda.put("payments")
    agenda.put("refunds")
    assert taken(agenda) == "refunds"
    assert taken(agenda) == "payments"
    assert time.monotonic() >= retry


@pytest.mark.parametrize("meanwhile", [False, True])
def test_what_failed_at_one_is_asked_about_at_the_others_when_something_is_committed(meanwhile: bool) -> None:
    agenda = Agenda()
    agenda.put("payments")
    assert taken(agenda) == "payments"
    if meanwhile:
        agenda.put("payments")
    retry = time.monotonic() + 0.5
    agenda.done("payments", Again(missing=retry, anyone=time.monotonic()))
    if not meanwhile:
        agenda.put("payments")
    assert taken(agenda) == "payments"
    assert time.monotonic() < retry
    # The one who is missing is not forgotten for that.
    agenda.done("payments", Again(missing=retry, anyone=time.monotonic()))
    assert taken(agenda) == "payments"
    assert time.monotonic() >= retry


def test_a_witness_that_fails_is_left_alone_longer_and_longer(monkeypatch: pytest.MonkeyPatch) -> None:
    at = [100.0]
    monkeypatch.setattr("tlog.witnesses.lane.time.monotonic", lambda: at[0])
    backoff = Backoff()
    assert backoff.until("w", "payments") == 0
    waits = []
    for number in range(9):
        assert backoff.failed("w") == (number == 0)
        # At the same moment: one failure.
        assert not backoff.failed("w")
        waits.append(backoff.until("w", "payments") - at[0])
        at[0] = backoff.until("w", "payments")
    assert waits == [1, 2, 4, 8, 16, 32, 60, 60, 60]
    waits = []
    for number in range(4):
        assert backoff.failed("w", "payments", first=90, longest=300) == (number == 0)
        waits.append(backoff.until("w", "payments") - at[0])
        at[0] = backoff.until("w", "payments")
    assert waits == [90, 180, 300, 300]
    assert backoff.failed("w", "payments", first=90) is False
    assert backoff.until("w", "refunds") <= at[0]
    assert backoff.until("v", "payments") == 0
    backoff.answered("w", "payments")
    assert backoff.until("w", "payments") == 0


def test_a_lane_passes_on_what_went_wrong() -> None:
    lane: Lane[int] = Lane("w")

    def fail(_: object) -> int:
        raise ValueError("wrong")

    assert isinstance(lane.submit(fail).exception(30), ValueError)
    assert lane.submit(lambda _: 7).result(30) == 7


def test_segments_without_witnesses_are_not_patient(tmp_path: Path) -> None:
    make_data(tmp_path / "data", "payments")
    for config, patience in (
        (Config(tmp_path / "data"), None),
        (Config(tmp_path / "data", witnesses=tmp_path / "witnesses"), PATIENCE),
    ):
        segments = Segments(config, Nobody(), now)
        with segments.use("payments") as segment:
            assert segment.sequencer._patience == patience
        segments.close()
