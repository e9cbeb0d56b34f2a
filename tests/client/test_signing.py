"""A writer that signs, before a log that lies: nothing in its name is believed but what it signed, and no gap."""

import json
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from simulator import ORIGIN, Answer, Simulator, alter, drop_after, drop_before, refuse

from tlog_client import (
    Backoff,
    InconsistencyError,
    Log,
    MalformedError,
    OutcomeUnknownError,
    ProofError,
    SignatureError,
    StateError,
    parse_receipt,
)
from tlog_client.cli import run
from tlog_client.sequences import Expected, parse_expected
from tlog_client.watching import Followed, parse_followed
from tlog_core.commitment import Commitment, Opening, commit
from tlog_core.entry import WriterSignature, writer_message
from tlog_core.note import SignerKey, signer_from_seed
from tlog_core.writer import sign_commitments

ALICE = signer_from_seed("alice", b"\x05" * 32)
KEYS = [ALICE.verifier]
FORGED = commit(opening=Opening(bytes(32)), payload_type="text/plain", payload=b"x")

Open = Callable[..., Log]


@pytest.fixture
def opened(sim: Simulator, backoff: Backoff, tmp_path: Path) -> Iterator[Open]:
    """Open a client that signs, as after a restart."""
    logs: list[Log] = []

    def open_it(folder: str = "state", signer: SignerKey | None = ALICE, **options: Any) -> Log:
        state = tmp_path / folder
        logs.append(Log(sim.url, sim.key, state=state, signer=signer, writer_keys=KEYS, backoff=backoff, **options))
        return logs[-1]

    yield open_it
    for log in logs:
        log.close()


@pytest.fixture
def writer(opened: Open) -> Log:
    return opened()


def sequences(sim: Simulator) -> list[int]:
    return [one.signed.sequence for one in sim.logged if one.signed is not None]


def forged(sequence: int, signer: SignerKey = ALICE, commitment: Commitment = FORGED) -> WriterSignature:
    """What a log can put beside its own payload: a signature of another commitment, or of another key."""
    message = writer_message(origin=ORIGIN, writer="alice", sequence=sequence, commitment=commitment)
    return WriterSignature(sequence, ALICE.verifier.id + signer.sign(message))


# Writing


def test_the_sequence_goes_on_after_a_restart(opened: Open, sim: Simulator) -> None:
    for _ in range(3):
        opened().append_many([1, 2])
    assert sequences(sim) == list(range(6))


def test_an_answer_that_got_lost_leaves_no_gap_and_no_repeat(opened: Open, sim: Simulator) -> None:
    opened().append(0)
    for fault in (drop_after, drop_before):
        sim.faults += [fault] * 3
        with pytest.raises(OutcomeUnknownError):
            opened().append_many([1, 2, 3])
        opened().append(4)
    # What was sent behind the first fault is logged, and what was sent behind the second is not.
    assert sequences(sim) == list(range(6))


def test_a_client_that_is_killed_goes_on_where_it_was(sim: Simulator, opened: Open, tmp_path: Path) -> None:
    program = (
        "import sys; from tlog_client import Log; "
        "log = Log(sys.argv[1], sys.argv[2], state=sys.argv[3], signer=sys.argv[4])\n"
        "while True: log.append_many([1, 2, 3])"
    )
    arguments = [sim.url, str(sim.key), str(tmp_path / "state"), ALICE.format()]
    for _ in range(4):
        before = sim.size
        process = subprocess.Popen([sys.executable, "-c", program, *arguments])
        end = time.monotonic() + 20
        while sim.size < before + 9 and time.monotonic() < end:
            time.sleep(0.002)
        process.send_signal(signal.SIGKILL)
        process.wait()
    opened().append(1)
    assert sequences(sim) == list(range(sim.size))


def test_a_log_that_lost_entries_is_an_error_that_says_both_numbers(writer: Log, sim: Simulator) -> None:
    writer.append_many([1, 2, 3])
    sim.sequence = 1
    with pytest.raises(StateError, match="expects sequence 1, and the writer's next is 3"):
        writer.append(4)


def test_somebody_else_who_signs_with_the_key_is_noticed(opened: Open, sim: Simulator) -> None:
    writer = opened()
    writer.append(1)
    opened("other machine").append(2)
    with pytest.raises(StateError, match="expects sequence 2, and the writer's next is 1"):
        writer.append(3)
    assert sequences(sim) == [0, 1]


def test_a_log_that_never_takes_what_it_says_it_expects_ends_the_attempt(opened: Open, sim: Simulator) -> None:
    sim.faults += [refuse(409, kind="sequence-conflict", expected_sequence=7)] * 2
    with pytest.raises(Exception, match="refused"):
        opened().append(1)
    assert len(sim.requests) == 2


def test_an_expected_sequence_that_is_none_is_an_ordinary_refusal(writer: Log, sim: Simulator) -> None:
    for value in ("7", -1, 1.5, True, None):
        sim.faults.append(refuse(409, kind="sequence-conflict", expected_sequence=value))
        with pytest.raises(Exception, match="refused"):
            writer.append(1)
    writer.append(1)


@pytest.mark.parametrize(
    "change",
    [
        lambda receipt: receipt.update(writer="mallory"),
        lambda receipt: receipt.update(writer_sequence=receipt["writer_sequence"] + 1),
        lambda receipt: receipt["writer_signatures"].reverse(),
        lambda receipt: receipt["openings"].reverse(),
        lambda receipt: (receipt.pop("writer_sequence"), receipt.pop("writer_signatures")),
    ],
)
def test_a_receipt_that_is_not_for_what_was_signed_is_refused(
    writer: Log, sim: Simulator, change: Callable[[Any], Any]
) -> None:
    sim.lies["entries"] = alter(change)
    with pytest.raises((ProofError, SignatureError)):
        writer.append_many([1, 2])


def test_a_log_that_takes_signed_events_as_unsigned_is_refused(writer: Log, sim: Simulator) -> None:
    def strip(envelopes: list[dict[str, Any]]) -> Answer:
        first = sim.log(*(json.dumps(one["payload"]).encode() for one in envelopes))
        return Answer(201, bytes(sim.batch_receipt(first, sim.size)))

    sim._append_signed = strip  # type: ignore[method-assign]
    with pytest.raises(ProofError, match="not as signed"):
        writer.append(1)


def test_a_damaged_state_file_stops_the_writer(opened: Open, tmp_path: Path) -> None:
    opened().append(1)
    [path] = (tmp_path / "state").glob("*.sequence")
    for raw in (b"", b"{}", b'{"least":2,"most":1}', b'{"least":1,"most":1}\n', b"[]"):
        path.write_bytes(raw)
        with pytest.raises(StateError, match="damaged"):
            opened().append(2)


@given(st.binary() | st.builds(lambda a, b: b'{"least":%d,"most":%d}' % (a, b), st.integers(), st.integers()))
def test_any_bytes_are_a_state_or_malformed(raw: bytes) -> None:
    for parse in (parse_expected, parse_followed):
        value: Expected | Followed
        try:
            value = parse(raw)
        except MalformedError:
            continue
        assert bytes(value) == raw


# Reading


@pytest.mark.parametrize(
    "signed",
    [
        None,
        forged(1, signer_from_seed("alice", b"\x06" * 32)),
        forged(1, commitment=Commitment(bytes(32))),
        WriterSignature(1, bytes(68)),
    ],
    ids=["unsigned", "by another key", "of another commitment", "of nothing"],
)
def test_an_entry_that_the_log_made_in_a_writers_name_is_refused_everywhere(
    opened: Open, sim: Simulator, signed: WriterSignature | None
) -> None:
    opened().append(0)
    index = sim.forge(signed)
    reader = opened("reader", signer=None)
    for read in (
        lambda: reader.entry(index),
        lambda: reader.prove(index),
        lambda: list(reader.entries()),
        lambda: list(reader.committed()),
        lambda: reader.verify_writers(reader.checkpoint()),
    ):
        with pytest.raises(SignatureError, match=f"entry {index}"):
            read()


def test_entries_of_writers_whose_key_is_not_known_are_nobodys_business(opened: Open, sim: Simulator) -> None:
    sim.forge(None, writer="bob")
    sim.forge(WriterSignature(9, bytes(68)), writer="bob")
    reader = opened("reader", signer=None)
    reader.verify_writers(reader.checkpoint())
    assert len(list(reader.entries())) == 2


def test_a_writers_signature_of_another_segment_does_not_hold_here(opened: Open, sim: Simulator) -> None:
    [elsewhere] = sign_commitments([FORGED], origin=f"{ORIGIN}-b", first=0, signer=ALICE)
    sim.forge(elsewhere)
    with pytest.raises(SignatureError, match="entry 0: wrong signature by alice"):
        list(opened(signer=None).committed())


def test_an_entry_that_was_left_out_is_missed_at_the_next_one(opened: Open, sim: Simulator) -> None:
    opened().append_many([0, 1, 2, 3])
    sim.drop(2)
    reader = opened("reader", signer=None)
    with pytest.raises(ProofError, match="entry 2: 1 entries of alice are missing before sequence 3"):
        reader.verify_writers(reader.checkpoint())


def test_a_gap_is_found_across_restarts_and_stays_found(opened: Open, sim: Simulator) -> None:
    opened().append_many([0, 1])
    reader = opened("reader", signer=None)
    reader.verify_writers(reader.checkpoint())
    sim.forge(forged(3))
    for _ in range(2):
        reader = opened("reader", signer=None)
        sim.requests.clear()
        with pytest.raises(ProofError, match="entry 2: 1 entries of alice are missing before sequence 3"):
            reader.verify_writers(reader.checkpoint())


def test_a_signed_entry_that_is_logged_twice_is_found(opened: Open, sim: Simulator) -> None:
    opened().append_many([0, 1])
    sim.take(sim.logged[1])
    reader = opened("reader", signer=None)
    with pytest.raises(ProofError, match="entry 2: sequence 1 of alice comes again, where 2 was to come"):
        reader.verify_writers(reader.checkpoint())


def test_only_what_is_new_is_read_again(opened: Open, sim: Simulator) -> None:
    opened().append_many(list(range(600)))
    reader = opened("reader", signer=None)
    reader.verify_writers(reader.checkpoint())
    opened().append(600)
    sim.requests.clear()
    reader = opened("reader", signer=None)
    reader.verify_writers(reader.checkpoint())
    assert [route for route in sim.routes() if "entries" in route] == ["GET tile/entries/002.p/89"]


# The command


@pytest.fixture
def shell(sim: Simulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TLOG_URL", sim.url)
    monkeypatch.setenv("TLOG_KEY", str(sim.key))
    monkeypatch.setenv("TLOG_STATE", str(tmp_path / "state"))
    monkeypatch.chdir(tmp_path)


@pytest.mark.usefixtures("shell")
def test_a_key_is_made_for_its_owner_only_and_never_twice(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["keygen", "alice", "-o", "alice.key"]) == 0
    vkey = capsys.readouterr().out.strip()
    assert vkey.startswith("alice+")
    made = Path("alice.key")
    assert stat.S_IMODE(made.stat().st_mode) == 0o600
    assert made.read_text().startswith("PRIVATE+KEY+alice+")
    before = made.read_bytes()
    assert run(["keygen", "alice", "-o", "alice.key"]) == 3
    assert made.read_bytes() == before
    assert run(["keygen", "two words", "-o", "x.key"]) == 2


@pytest.mark.usefixtures("shell")
def test_append_signs_verify_checks_and_watch_follows(
    sim: Simulator, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("alice.key").write_text(ALICE.format() + "\n")
    Path("alice.vkey").write_text(f"{ALICE.verifier}\n")
    Path("events.ndjson").write_text("1\n2\n3\n")
    assert run(["append", "--sign", "alice.key", "events.ndjson"]) == 0
    receipts = capsys.readouterr().out
    Path("receipts").write_text(receipts)
    assert run(["verify", "--writer-key", "alice.vkey", "receipts"]) == 0
    assert capsys.readouterr().out.splitlines()[0].endswith(" by alice, who signed it")
    # Somebody else's key says nothing about what is alice's.
    Path("eve.vkey").write_text(f"{signer_from_seed('eve', bytes(32)).verifier}\n")
    assert run(["verify", "--writer-key", "eve.vkey", "receipts"]) == 1
    said = capsys.readouterr()
    assert (said.out, "it is by alice, and none of the keys" in said.err) == ("", True)
    assert run(["verify", "--writer-key", "eve.vkey", "--writer-key", "alice.vkey", "receipts"]) == 0
    monkeypatch.setenv("TLOG_SIGN", "alice.key")
    Path("x").write_text("x")
    assert run(["append", "--type", "text/plain", "x"]) == 0
    assert sequences(sim) == [0, 1, 2, 3]
    assert run(["watch", "--once", "--writer-key", "alice.vkey"]) == 0
    index = sim.forge(None)
    Path("forged").write_bytes(bytes(sim.receipt(index)))
    assert run(["verify", "forged"]) == 0
    assert run(["verify", "--writer-key", "alice.vkey", "forged"]) == 1
    capsys.readouterr()
    assert run(["watch", "--once", "--writer-key", "alice.vkey"]) == 1
    assert f"entry {index}: an entry in the name of alice is not signed" in capsys.readouterr().err
    assert parse_receipt(receipts.splitlines()[0].encode()).index == 0


@pytest.mark.usefixtures("shell")
def test_a_file_that_holds_no_signer_key_is_wrong_usage_and_not_shown(capsys: pytest.CaptureFixture[str]) -> None:
    Path("bad.key").write_text(ALICE.format()[:-4])
    Path("events.ndjson").write_text("1\n")
    assert run(["append", "--sign", "bad.key", "events.ndjson"]) == 2
    assert ALICE.format()[30:60] not in capsys.readouterr().err


def test_a_writer_whose_log_went_back_is_told_so(writer: Log, opened: Open, sim: Simulator) -> None:
    for number in range(4):
        writer.append(number)
    sim.shrink(2)
    # It takes what comes, at an index that there was before; under a key of one's own that could be a retry.
    with pytest.raises(InconsistencyError, match="went back from 4 to 3"):
        writer.append(5)
    # It has forgotten the sequences, too.
    sim.shrink(2)
    sim.sequence = 2
    for key in (None, "mine"):
        with pytest.raises(InconsistencyError, match="went back from 4 to 2"):
            writer.append(5, idempotency_key=key)
    # Who keeps no sequence believes what it expects, and then sees its head.
    fresh = opened("fresh")
    fresh.checkpoint()
    sim.shrink(0)
    with pytest.raises(InconsistencyError, match="went back from 2 to 1"):
        fresh.append(5, idempotency_key="mine")
