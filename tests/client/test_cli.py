"""The command, as a shell sees it: what goes in, what comes out, and the exit status."""

import io
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from simulator import ORIGIN, Simulator, alter, refuse, running, unavailable

from tlog_client import Backoff, Receipt, parse_receipt, parse_tlog_proof, verify_receipt
from tlog_client.cli import run
from tlog_core.cosignature import cosign
from tlog_core.evidence import Backdating, Fork, find_contradiction, format_evidence
from tlog_core.merkle import EMPTY_ROOT
from tlog_core.note import COSIGNATURE, Note, parse_note, signer_from_seed
from tlog_core.tlog_proof import format_tlog_proof

VERIFIED, REFUSED, USAGE, NOT_FETCHED, NOT_COSIGNED = 0, 1, 2, 3, 4
TIME = 1_764_000_000
WITNESSES = [signer_from_seed(name, name.encode() * 6 + b"xx", key_type=COSIGNATURE) for name in ("north", "south")]


@pytest.fixture(autouse=True)
def environment(sim: Simulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A shell in an empty folder, with the segment in its environment."""
    monkeypatch.setenv("TLOG_URL", sim.url)
    monkeypatch.setenv("TLOG_KEY", str(sim.key))
    monkeypatch.setenv("TLOG_STATE", str(tmp_path / "state"))
    monkeypatch.setattr("tlog_client.log.Backoff", lambda: Backoff(attempts=3, sleep=lambda _: None))
    monkeypatch.chdir(tmp_path)


class Output:
    """What a command left behind."""

    def __init__(self, status: int, out: str, err: str) -> None:
        self.status, self.out, self.err = status, out, err

    @property
    def receipts(self) -> list[Receipt]:
        return [parse_receipt(line.encode()) for line in self.out.splitlines()]


Shell = Callable[..., Output]


@pytest.fixture
def tlog(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Shell:
    """Run the command in this process."""

    def call(*arguments: object, stdin: str | bytes = "") -> Output:
        raw = stdin.encode() if isinstance(stdin, str) else stdin
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(raw)))
        capsys.readouterr()
        status = run([str(argument) for argument in arguments])
        return Output(status, *capsys.readouterr())

    return call


def start(*arguments: str, **options: Any) -> subprocess.Popen[bytes]:
    """Start the command as a process of its own."""
    command = shutil.which("tlog-client", path=str(Path(sys.executable).parent))
    assert command is not None
    return subprocess.Popen([command, *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE, **options)


# append


def test_a_json_file_is_one_event_however_it_is_spaced(tlog: Shell, sim: Simulator) -> None:
    Path("event.json").write_text('{\n  "b": 1,\n  "a": [1, 2]\n}\n')
    output = tlog("append", "event.json")
    assert (output.status, output.err) == (VERIFIED, "")
    (receipt,) = output.receipts
    verify_receipt(receipt, key=sim.key, payload=b'{"a":[1,2],"b":1}')


@pytest.mark.parametrize("name", ["events.ndjson", "events.jsonl"])
@pytest.mark.parametrize("end", ["", "\n"])
def test_a_file_of_lines_is_one_event_a_line(tlog: Shell, sim: Simulator, name: str, end: str) -> None:
    Path(name).write_text('{"n": 0}\n2\n"drei"' + end)
    output = tlog("append", name)
    assert output.status == VERIFIED
    for receipt, payload in zip(output.receipts, (b'{"n":0}', b"2", b'"drei"'), strict=True):
        verify_receipt(receipt, key=sim.key, payload=payload)


@pytest.mark.parametrize("arguments", [(), ("-",)])
def test_a_pipe_is_one_event_a_line(tlog: Shell, arguments: tuple[str, ...]) -> None:
    output = tlog("append", *arguments, stdin="1\n2\n3\n")
    assert [receipt.index for receipt in output.receipts] == [0, 1, 2]


def test_receipts_come_in_the_order_of_the_events(tlog: Shell, sim: Simulator) -> None:
    Path("first.jsonl").write_text("".join(f'{{"n":{number}}}\n' for number in range(2500)))
    Path("second.json").write_text('{"n": 2500}')
    output = tlog("append", "first.jsonl", "second.json", "-", stdin='{"n": 2501}\n')
    assert output.status == VERIFIED
    assert [receipt.index for receipt in output.receipts] == list(range(2502))
    verify_receipt(output.receipts[-1], key=sim.key, payload=b'{"n":2501}')
    assert len(sim.requests) < 10


def test_receipts_are_added_to_a_file(tlog: Shell) -> None:
    for number in range(2):
        assert tlog("append", "--receipts", "r.jsonl", stdin=f"{number}\n").out == ""
    lines = Path("r.jsonl").read_bytes().splitlines()
    assert [parse_receipt(line).index for line in lines] == [0, 1]


def test_an_opaque_file_is_logged_as_it_is(tlog: Shell, sim: Simulator) -> None:
    Path("a.pdf").write_bytes(b"%PDF\n\xff")
    output = tlog("append", "--type", "application/pdf", "a.pdf", "-", stdin=b"\x00")
    first, second = output.receipts
    verify_receipt(first, key=sim.key, payload=b"%PDF\n\xff")
    verify_receipt(second, key=sim.key, payload=b"\x00")


@pytest.mark.parametrize("kind", [(), ("--type", "text/plain")])
def test_who_asked_for_cosignatures_and_got_none_is_told_and_has_the_receipt(
    tlog: Shell, sim: Simulator, kind: tuple[str, ...]
) -> None:
    output = tlog("append", "--cosigned", *kind, stdin="1\n")
    assert (output.status, [one.index for one in output.receipts], sim.size) == (NOT_COSIGNED, [0], 1)
    assert "receipts that are not cosigned: 1\n" in output.err
    assert "tlog-client upgrade" in output.err
    # Who did not ask is not told, and a failure stays one.
    assert (tlog("append", *kind, stdin="2\n").status, tlog("append", *kind, stdin="3\n").err) == (VERIFIED, "")
    sim.cosigners[WITNESSES[0]] = TIME
    output = tlog("append", "--cosigned", *kind, stdin="4\n")
    assert (output.status, output.err, len(output.receipts)) == (VERIFIED, "", 1)


def test_cosignatures_that_are_missing_do_not_hide_a_failure(tlog: Shell) -> None:
    output = tlog("append", "--cosigned", stdin="1\n{\n")
    assert (output.status, len(output.receipts)) == (REFUSED, 1)
    assert "receipts that are not cosigned: 1\n" in output.err
    assert "not JSON" in output.err


def test_a_bad_line_is_named_and_those_before_it_are_logged(tlog: Shell, sim: Simulator) -> None:
    Path("events.jsonl").write_text('1\n2\n{"n":\n4\n')
    output = tlog("append", "events.jsonl")
    assert output.status == REFUSED
    assert output.err == "tlog-client: events.jsonl:3: not JSON at line 1, column 6: expecting value\n"
    assert len(output.receipts) == sim.size == 2


@pytest.mark.parametrize("line", ["", "[" * 65 + "]" * 65, "1e999", '{"a":1,"a":2}', '"' + "x" * (1 << 20) + '"'])
def test_a_line_that_the_log_would_refuse_is_named(tlog: Shell, sim: Simulator, line: str) -> None:
    output = tlog("append", stdin=f"1\n{line}\n3\n")
    assert output.status == REFUSED
    assert output.err.startswith("tlog-client: standard input:2: ")
    assert len(output.receipts) == sim.size == 1


def test_a_line_without_end_is_not_read_to_its_end(tlog: Shell) -> None:
    output = tlog("append", stdin="1\n" + "2" * (3 << 20))
    assert (output.status, len(output.receipts)) == (REFUSED, 1)
    assert "standard input:2: an event has at most 1048576 bytes" in output.err


def test_a_refused_event_is_named_and_the_others_get_their_receipts(tlog: Shell, sim: Simulator) -> None:
    sim.faults.append(refuse(400, detail="I do not like it", line=2))
    output = tlog("append", stdin="1\n2\n3\n")
    assert (output.status, len(output.receipts)) == (REFUSED, 2)
    assert "tlog-client: standard input:2: refused: I do not like it\n" in output.err


def test_after_a_batch_has_failed_the_rest_is_not_sent(tlog: Shell, sim: Simulator) -> None:
    sim.faults += [unavailable()] * 3
    output = tlog("append", stdin="".join(f"{number}\n" for number in range(12_000)))
    assert output.status == NOT_FETCHED
    assert output.err.startswith("tlog-client: standard input:1: come back later")
    assert len(sim.requests) < 10


def test_an_opaque_file_that_cannot_be_logged_is_named(tlog: Shell, sim: Simulator) -> None:
    for name in ("a", "b"):
        Path(name).write_bytes(name.encode())
    sim.faults += [lambda work: work(), refuse(400, detail="no")]
    output = tlog("append", "--type", "text/plain", "a", "b")
    assert (output.status, len(output.receipts)) == (REFUSED, 1)
    assert "tlog-client: b: refused: no\n" in output.err


@pytest.mark.parametrize("name", ["events.txt", "events"])
def test_a_file_of_unknown_kind_is_wrong_usage_before_anything_is_logged(
    tlog: Shell, sim: Simulator, name: str
) -> None:
    Path(name).write_text("1\n")
    Path("good.json").write_text("1")
    output = tlog("append", "good.json", name)
    assert output.status == USAGE
    assert "with --type" in output.err
    assert sim.requests == []


def test_receipts_do_not_wait_for_the_next_event() -> None:
    with running() as sim:
        environment = {**os.environ, "TLOG_URL": sim.url}
        with start("append", env=environment) as process:
            assert process.stdin is not None
            assert process.stdout is not None
            for number in range(3):
                process.stdin.write(b'{"n":%d}\n' % number)
                process.stdin.flush()
                receipt = parse_receipt(process.stdout.readline())
                verify_receipt(receipt, key=sim.key, payload=b'{"n":%d}' % number)
            process.stdin.close()
            assert process.wait(10) == VERIFIED


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_endless_pipe_can_be_ended_and_loses_no_receipt(sim: Simulator, number: signal.Signals) -> None:
    with start("append", stderr=subprocess.PIPE) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdin.write(b"1\n2\n3")
        process.stdin.flush()
        first = process.stdout.readline()
        process.send_signal(number)
        receipts = [first, *process.stdout.read().splitlines()]
        assert process.wait(10) == 128 + number
        assert b"Traceback" not in process.stderr.read()
    assert [parse_receipt(raw).index for raw in receipts] == list(range(sim.size)) == [0, 1]


def test_a_refusal_ends_an_endless_pipe(sim: Simulator) -> None:
    sim.faults.append(refuse(403, detail="not you"))
    with start("append", stderr=subprocess.PIPE) as process:
        assert process.stdin is not None
        assert process.stderr is not None
        process.stdin.write(b"1\n")
        process.stdin.flush()
        assert process.wait(10) == REFUSED
        assert process.stderr.read() == b"tlog-client: standard input:1: refused: not you\n"


def test_progress_is_shown_on_a_terminal_only(tlog: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    Path("events.jsonl").write_text("1\n2\n")
    assert tlog("append", "--receipts", "r", "events.jsonl").err == ""
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    shown: list[int] = []
    monkeypatch.setattr("click.progressbar", _bar(shown))
    assert tlog("append", "--receipts", "r", "events.jsonl").status == VERIFIED
    assert (shown[0], sum(shown[1:])) == (4, 4)
    assert tlog("append", "--receipts", "r", stdin="1\n").err == ""


def _bar(shown: list[int]) -> Callable[..., Any]:
    class Bar:
        def __init__(self, length: int, **_: object) -> None:
            shown.append(length)

        def __enter__(self) -> "Bar":
            return self

        def __exit__(self, *_: object) -> None:
            pass

        def update(self, number: int) -> None:
            shown.append(number)

    return Bar


# get and prove


def test_get_prints_entry_and_payload(tlog: Shell, sim: Simulator) -> None:
    sim.grow(3)
    output = tlog("get", 1)
    value = json.loads(output.out)
    assert (output.status, value["index"], value["payload"]) == (VERIFIED, 1, {"n": 1})
    assert value["entry"] == json.loads(sim.logged[1].entry)


def test_get_prints_a_range_one_entry_a_line(tlog: Shell, sim: Simulator) -> None:
    sim.grow(300)
    output = tlog("get", 2, "--stop", 290)
    assert [json.loads(line)["payload"]["n"] for line in output.out.splitlines()] == list(range(2, 290))


def test_get_prints_what_is_not_json_in_base64(tlog: Shell, sim: Simulator) -> None:
    sim.log(b"\xff", payload_type="application/pdf")
    value = json.loads(tlog("get", 0).out)
    assert (value["payload"], value["payload_type"]) == ("/w==", "application/pdf")


def test_get_prints_nothing_that_it_could_not_verify(tlog: Shell, sim: Simulator) -> None:
    sim.grow(3)
    sim.lies["entries"] = alter(lambda answer: answer.update(payload={"n": 2}))
    output = tlog("get", 1)
    assert (output.status, output.out) == (REFUSED, "")
    assert output.err == "tlog-client: the payload is not the one that the entry commits to\n"


def test_search_prints_what_is_found_and_that_the_index_is_behind(tlog: Shell, sim: Simulator) -> None:
    sim.grow(5)
    sim.unindexed = 2
    output = tlog("search", "--actor", "ann", "--since", "2026-07-01T09:30:00Z", "--limit", 2, "to", "be")
    assert [json.loads(line)["payload"]["n"] for line in output.out.splitlines()] == [2, 1]
    assert output.err == "tlog-client: the index is behind: of 5 entries those from 3 on were not looked at\n"
    [asked] = [request.query for request in sim.requests if request.path == "entries"]
    assert asked == {"actor": "ann", "since": "1782898200000", "q": "to be"}


@pytest.mark.parametrize(
    "arguments", [(), ("--since", "yesterday"), ("--until", "2026-07-01T09:30:00"), ("--since", "1969-12-31T23:59:59Z")]
)
def test_search_says_what_it_cannot_search_for(tlog: Shell, sim: Simulator, arguments: tuple[str, ...]) -> None:
    assert tlog("search", *arguments).status == USAGE
    assert sim.requests == []


def test_get_of_what_is_not_there_is_not_fetched(tlog: Shell, sim: Simulator) -> None:
    sim.grow(3)
    output = tlog("get", 3)
    assert (output.status, output.out) == (NOT_FETCHED, "")
    assert "the log has 3" in output.err


def test_get_into_a_pipe_that_closes_is_quiet(sim: Simulator) -> None:
    sim.grow(5000)
    with start("get", "0", "--stop", "5000", stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.readline()
        process.stdout.close()
        assert process.wait(10) == 141
        assert process.stderr.read() == b""


def test_append_into_a_pipe_that_closes_is_quiet(sim: Simulator) -> None:
    Path("events.jsonl").write_text("".join(f"{number}\n" for number in range(30_000)))
    with start("append", "events.jsonl", stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.readline()
        process.stdout.close()
        assert process.wait(10) == 141
        assert process.stderr.read() == b""
    assert sim.size < 30_000


def test_prove_writes_a_fresh_receipt(tlog: Shell, sim: Simulator) -> None:
    sim.grow(3)
    assert tlog("prove", 1, "-o", "receipt").out == ""
    receipt = parse_receipt(Path("receipt").read_bytes())
    verify_receipt(receipt, key=sim.key, payload=b'{"n":1}')
    assert tlog("prove", 1).out.encode() == bytes(receipt)


def test_a_proof_that_fails_leaves_the_file_as_it_was(tlog: Shell, sim: Simulator) -> None:
    sim.grow(3)
    Path("receipt").write_bytes(b"precious")
    sim.lies["proof"] = alter(lambda answer: answer["proof"].clear())
    assert tlog("prove", 1, "-o", "receipt").status == REFUSED
    assert Path("receipt").read_bytes() == b"precious"


def test_upgrade_puts_each_receipt_under_what_witnesses_cosigned(tlog: Shell, sim: Simulator, policy: Path) -> None:
    sim.grow(3)
    Path("receipts").write_text(tlog("prove", 0).out + tlog("prove", 2).out)
    Path("better").write_bytes(b"precious")
    arguments = ("upgrade", "receipts", "-o", "better")
    sim.cosigned = 2
    output = tlog(*arguments)
    assert (output.status, output.out) == (NOT_FETCHED, "")
    assert "receipts:2: " in output.err
    sim.grow(4)
    # Not by one of those whom the policy wants.
    sim.cosigned, sim.quorum = 5, [signer_from_seed("west", b"w" * 32, key_type=COSIGNATURE)]
    assert tlog(*arguments, "--policy", policy).status == REFUSED
    assert Path("better").read_bytes() == b"precious"
    sim.quorum = list(WITNESSES)
    assert tlog(*arguments, "--policy", policy).status == VERIFIED
    verified = tlog("verify", "better", "--policy", policy)
    assert (verified.status, verified.out.count(" of 5, ")) == (VERIFIED, 2)
    assert tlog("upgrade", "receipts").out.encode() == Path("better").read_bytes()


# verify and export-proof


@pytest.fixture
def receipt(sim: Simulator) -> Iterator[Path]:
    """A receipt of {"a":1,"b":[2]}; the log that gave it is out of reach."""
    sim.grow(7)
    sim.log(b'{"a":1,"b":[2]}')
    sim.grow(1)
    path = Path("receipt.json")
    path.write_bytes(bytes(sim.receipt(7)))
    yield path
    assert sim.requests == []


def test_verify_says_what_was_verified(tlog: Shell, receipt: Path) -> None:
    output = tlog("verify", receipt)
    assert output.status == VERIFIED
    assert output.out == (
        "verified: log.example/audit/segments/payments, entry 7 of 9, logged 2025-11-24T16:00:00.007Z by alice\n"
    )


@pytest.mark.parametrize("event", ['{"a":1,"b":[2]}', '{ "b" : [2.0],\r\n"a": 1 }\n', '{"\\u0061":1,"b":[2]}'])
def test_verify_takes_the_event_in_any_spelling(tlog: Shell, receipt: Path, event: str) -> None:
    Path("event.json").write_text(event)
    output = tlog("verify", receipt, "--event", "event.json")
    assert output.status == VERIFIED
    assert output.out.endswith("by alice, the event too\n")


@pytest.mark.parametrize("event", ['{"a":1,"b":[3]}', '{"a":1,"b":["2"]}', "{}", "", "not json", "\ufeff{}"])
def test_verify_refuses_another_event(tlog: Shell, receipt: Path, event: str) -> None:
    Path("event.json").write_text(event)
    output = tlog("verify", receipt, "--event", "event.json")
    assert (output.status, output.out) == (REFUSED, "")
    assert output.err.startswith("tlog-client: receipt.json:1: ")


def test_verify_takes_a_receipt_that_was_formatted_again(tlog: Shell, receipt: Path) -> None:
    receipt.write_text(json.dumps(json.loads(receipt.read_text()), indent=2))
    assert tlog("verify", receipt).status == VERIFIED


def test_verify_takes_a_receipt_from_a_pipe(tlog: Shell, receipt: Path) -> None:
    assert tlog("verify", "-", stdin=receipt.read_bytes()).status == VERIFIED


@pytest.mark.parametrize("member", ["checkpoint", "entry", "index", "opening", "payload_type", "proof"])
def test_verify_refuses_a_receipt_that_was_altered(tlog: Shell, receipt: Path, member: str) -> None:
    Path("event.json").write_text('{"a":1,"b":[2]}')
    value = json.loads(receipt.read_text())
    value[member] = {"index": 6, "proof": value["proof"][::-1]}.get(member, f"{value[member]}x")
    receipt.write_text(json.dumps(value))
    output = tlog("verify", receipt, "--event", "event.json")
    assert (output.status, output.out) == (REFUSED, "")


def test_verify_with_another_key_asks_whether_it_is_the_right_one(tlog: Shell, receipt: Path) -> None:
    other = signer_from_seed(ORIGIN, b"\x09" * 32).verifier
    output = tlog("verify", receipt, "--key", other)
    assert output.status == REFUSED
    assert "hint: is this the key, or the trust policy, of that log, or of that writer?" in output.err


@pytest.fixture
def policy(sim: Simulator) -> Path:
    """A trust policy by which one of two witnesses must have cosigned."""
    keys = [f"witness {witness.name} {witness.verifier}" for witness in WITNESSES]
    path = Path("trust.policy")
    path.write_text("\n".join([f"log {sim.key}", *keys, "group one any north south", "quorum one", ""]))
    return path


def cosigned(note: bytes, *times: int) -> Note:
    text, lines = parse_note(note).text, parse_note(note).signatures
    more = (cosign(text, time=time, signer=witness) for time, witness in zip(times, WITNESSES, strict=False))
    return Note(text, (*lines, *more))


def test_verify_by_a_trust_policy_demands_its_quorum(tlog: Shell, sim: Simulator, receipt: Path, policy: Path) -> None:
    output = tlog("verify", receipt, "--policy", policy)
    assert (output.status, output.out) == (REFUSED, "")
    assert "cosigned by nobody, which is not the quorum one" in output.err
    assert "tlog-client upgrade" in output.err
    assert "is this the key" not in output.err
    one = sim.receipt(7)
    good = replace(one, checkpoint=bytes(cosigned(one.checkpoint, TIME)))
    for raw in (bytes(good), format_tlog_proof(good)):
        Path("cosigned").write_bytes(raw)
        output = tlog("verify", "cosigned", "--policy", policy)
        assert output.status == VERIFIED
        assert output.out.startswith("verified: log.example/audit/segments/payments, entry 7 of 9")


def test_verify_by_a_trust_policy_needs_no_key_and_a_key_no_policy(
    tlog: Shell, receipt: Path, policy: Path, sim: Simulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    policy.write_text(f"log {sim.key}\nquorum none\n")
    # What is in the environment is for the other commands.
    monkeypatch.setenv("TLOG_KEY", str(signer_from_seed(ORIGIN, b"\x09" * 32).verifier))
    assert tlog("verify", receipt, "--policy", policy).status == VERIFIED
    monkeypatch.delenv("TLOG_KEY")
    assert tlog("verify", receipt, "--policy", policy).status == VERIFIED
    for arguments in ((), ("--policy", policy, "--key", sim.key)):
        output = tlog("verify", receipt, *arguments)
        assert (output.status, output.out) == (USAGE, "")
        assert "give either --key" in output.err


def test_a_trust_policy_that_is_none_is_wrong_usage(tlog: Shell, receipt: Path, policy: Path) -> None:
    policy.write_text("# nothing\n\nquorum two\n")
    for arguments in (("verify", receipt), ("verify-evidence", receipt)):
        output = tlog(*arguments, "--policy", policy)
        assert (output.status, output.out) == (USAGE, "")
        assert "trust.policy: line 3: no witness or group two above" in output.err


# verify-evidence


def test_evidence_of_a_fork_is_proven_offline(tlog: Shell, sim: Simulator, policy: Path) -> None:
    sim.grow(4)
    one = parse_note(sim.note())
    sim.fork(2)
    evidence = find_contradiction(one, parse_note(sim.note()), node=lambda *_: EMPTY_ROOT)
    assert evidence is not None
    Path("fork.evidence").write_bytes(format_evidence(evidence))
    for output in (
        tlog("verify-evidence", "fork.evidence", "--policy", policy),
        tlog("verify-evidence", "-", "--policy", policy, stdin=format_evidence(evidence)),
    ):
        assert (output.status, output.err) == (VERIFIED, "")
        assert output.out.startswith(f"proven: log {ORIGIN} signed two roots of 4 entries: ")
    assert sim.requests == []


def test_a_backdated_entry_is_told_with_times_to_read(tlog: Shell, sim: Simulator, policy: Path) -> None:
    sim.grow(4)
    receipt = sim.receipt(3)
    earlier = cosigned(sim.note(3), TIME + 86_401)
    evidence = Backdating(3, receipt.entry, receipt.proof, parse_note(receipt.checkpoint), earlier)
    Path("back.evidence").write_bytes(format_evidence(evidence))
    output = tlog("verify-evidence", "back.evidence", "--policy", policy)
    assert output.out == (
        f"proven: log {ORIGIN} dated entry 3 to 2025-11-24T16:00:00.000Z, but the quorum of its witnesses knew of no "
        "more than 3 entries at 2025-11-25T16:00:01.000Z\n"
    )


def test_what_is_not_proven_ends_with_status_1_and_says_why(tlog: Shell, sim: Simulator, policy: Path) -> None:
    sim.grow(4)
    note = parse_note(sim.note())
    Path("none.evidence").write_bytes(format_evidence(Fork(note, note)))
    Path("rubbish").write_bytes(b"\xff")
    Path("large").write_bytes(bytes(20_000))
    for name, reason in [
        ("none.evidence", "none.evidence: not proven: the heads are not two roots of one size"),
        ("rubbish", "rubbish: evidence is UTF-8"),
        ("large", "large has more than 16384 bytes"),
    ]:
        output = tlog("verify-evidence", name, "--policy", policy)
        assert (output.status, output.out, output.err) == (REFUSED, "", f"tlog-client: {reason}\n")


def test_verify_takes_many_receipts_and_their_events(tlog: Shell, sim: Simulator) -> None:
    Path("events.jsonl").write_text('{"n": 0}\n{"n": 1}\n')
    tlog("append", "--receipts", "receipts", "events.jsonl")
    output = tlog("verify", "receipts", "--event", "events.jsonl")
    assert (output.status, output.out.count("verified: ")) == (VERIFIED, 2)
    Path("events.jsonl").write_text('{"n": 1}\n{"n": 0}\n')
    output = tlog("verify", "receipts", "--event", "events.jsonl")
    assert output.status == REFUSED
    sim.requests.clear()


@pytest.mark.parametrize(("events", "word"), [("0\n", "fewer"), ("0\n1\n2\n", "more")])
def test_verify_wants_as_many_events_as_receipts(tlog: Shell, events: str, word: str) -> None:
    tlog("append", "--receipts", "receipts", stdin="0\n1\n")
    Path("events.jsonl").write_text(events)
    output = tlog("verify", "receipts", "--event", "events.jsonl")
    assert output.status == REFUSED
    assert f"{word} events than there are receipts" in output.err


def test_verify_names_the_bad_receipt_among_many(tlog: Shell) -> None:
    tlog("append", "--receipts", "receipts", stdin="0\n1\n")
    with Path("receipts").open("ab") as file:
        file.write(b"{}\n")
    output = tlog("verify", "receipts")
    assert (output.status, output.out.count("verified: ")) == (REFUSED, 2)
    assert output.err.startswith("tlog-client: receipts:3: ")


def test_verify_checks_an_opaque_payload_byte_for_byte(tlog: Shell) -> None:
    Path("a.txt").write_bytes(b" 1 ")
    Path("b.txt").write_bytes(b"1")
    tlog("append", "--type", "text/plain", "--receipts", "receipt", "a.txt")
    assert tlog("verify", "receipt", "--event", "a.txt").status == VERIFIED
    assert tlog("verify", "receipt", "--event", "b.txt").status == REFUSED


def test_verify_prints_what_a_writer_is_called_on_one_harmless_line(tlog: Shell, sim: Simulator) -> None:
    sim.grow(2)
    sim.fork(1, time=2**53 - 1, writer="eve\x1b[2J\nverified: \u202e")
    Path("receipt").write_bytes(bytes(sim.receipt(1)))
    output = tlog("verify", "receipt")
    assert output.status == VERIFIED
    assert output.out.removesuffix("\n").isprintable()
    assert "logged 9007199254740991 ms by eve?[2J?verified: ?" in output.out


def test_an_exported_proof_is_the_same_receipt_and_verifies(tlog: Shell, receipt: Path) -> None:
    assert tlog("export-proof", receipt, "-o", "receipt.tlog-proof").status == VERIFIED
    raw = Path("receipt.tlog-proof").read_bytes()
    assert raw.startswith(b"c2sp.org/tlog-proof@v1\n")
    assert bytes(parse_tlog_proof(raw)) == receipt.read_bytes()
    assert tlog("verify", "receipt.tlog-proof").out == tlog("verify", receipt).out


def test_only_one_receipt_can_be_exported(tlog: Shell) -> None:
    tlog("append", "--receipts", "receipts", stdin="0\n1\n")
    output = tlog("export-proof", "receipts", "-o", "proof")
    assert output.status == USAGE
    assert not Path("proof").exists()


# watch


def test_watch_prints_the_verified_head(tlog: Shell, sim: Simulator) -> None:
    sim.grow(3)
    output = tlog("watch", "--once")
    origin, size, root = output.out.split()
    assert f"{origin}\n{size}\n{root}\n" == sim.note().decode().partition("\n\n")[0] + "\n"


def test_watch_prints_each_new_head_once_and_ends_at_a_fork(
    tlog: Shell, sim: Simulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes = iter([2, 2, 3])

    def sleep(_: float) -> None:
        size = next(sizes, None)
        if size is None:
            sim.fork(1)
        else:
            sim.grow(size - sim.size)

    monkeypatch.setattr(time, "sleep", sleep)
    output = tlog("watch")
    assert output.status == REFUSED
    assert [line.split()[1] for line in output.out.splitlines()] == ["0", "2", "3"]
    assert "two histories" in output.err
    assert output.err.count("— log.example/audit/segments/payments ") == 2


def test_watch_ends_at_a_rollback_with_both_notes(tlog: Shell, sim: Simulator) -> None:
    sim.grow(5)
    older = sim.note().decode()
    tlog("watch", "--once")
    sim.shrink(4)
    output = tlog("watch", "--once")
    assert (output.status, output.out) == (REFUSED, "")
    assert older in output.err
    assert sim.note().decode() in output.err


def test_watch_waits_for_a_log_that_is_away(tlog: Shell, sim: Simulator, monkeypatch: pytest.MonkeyPatch) -> None:
    sim.faults += [unavailable(), unavailable(), unavailable(), refuse(500, detail="a fault")]

    def sleep(_: float) -> None:
        if len(sim.requests) > 4:
            raise KeyboardInterrupt

    monkeypatch.setattr(time, "sleep", sleep)
    output = tlog("watch")
    assert output.status == 130
    assert output.err == (
        "tlog-client: come back later; trying again\ntlog-client: HTTP status 500: a fault; trying again\n"
    )
    assert output.out.split()[1] == "0"


def test_one_look_at_a_log_that_is_away_is_not_fetched(tlog: Shell, sim: Simulator) -> None:
    sim.faults += [unavailable()] * 3
    output = tlog("watch", "--once")
    assert output.status == NOT_FETCHED
    assert output.err == "tlog-client: come back later\ntlog-client: hint: is the log running, and is --url right?\n"


# Streams


@pytest.mark.parametrize("output", [">/dev/full", ">&-"])
def test_what_cannot_be_written_is_no_refusal(sim: Simulator, policy: Path, output: str) -> None:
    sim.grow(4)
    one = parse_note(sim.note())
    sim.fork(2)
    evidence = find_contradiction(one, parse_note(sim.note()), node=lambda *_: EMPTY_ROOT)
    assert evidence is not None
    Path("fork.evidence").write_bytes(format_evidence(evidence))
    for command in (f"verify-evidence fork.evidence --policy {policy}", "watch --once", "prove 1", "append"):
        process = start_shell(f"echo 1 | tlog-client {command} {output}")
        _, said = process.communicate(timeout=60)
        assert process.returncode == NOT_FETCHED, command
        assert said.startswith(b"tlog-client: what was found cannot be written: ")
        assert said.count(b"\n") == 1


def start_shell(line: str) -> subprocess.Popen[bytes]:
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    return subprocess.Popen(
        ["sh", "-c", line], stdout=subprocess.PIPE, stderr=subprocess.PIPE, env={**os.environ, "PATH": path}
    )


@pytest.mark.parametrize("closed", ["2>&-", "2>/dev/full"])
def test_who_closes_standard_error_gets_results_and_statuses_all_the_same(sim: Simulator, closed: str) -> None:
    for line, status, lines in (("get 0", VERIFIED, 1), ("get 7", NOT_FETCHED, 0), ("append", VERIFIED, 1)):
        sim.grow(1)
        process = start_shell(f"echo 1 | tlog-client {line} {closed}")
        out, _ = process.communicate(timeout=60)
        assert (process.returncode, out.count(b"\n")) == (status, lines), line


# Usage


def test_the_key_may_be_in_a_file(tlog: Shell, sim: Simulator, monkeypatch: pytest.MonkeyPatch) -> None:
    Path("payments.vkey").write_text(f"{sim.key}\n")
    monkeypatch.setenv("TLOG_KEY", "payments.vkey")
    assert tlog("watch", "--once").status == VERIFIED


@pytest.mark.parametrize(
    "arguments",
    [
        (),
        ("bogus",),
        ("append", "--bogus"),
        ("append", "missing.json"),
        ("get",),
        ("get", "x"),
        ("get", "-1"),
        ("watch", "--key", "missing.vkey"),
        ("watch", "--key", "a+b+c"),
        ("watch", "--url", "payments"),
        *(("watch", "--interval", seconds) for seconds in ("0", "-1", "nan", "inf", "1e10", "86401", "x")),
        ("verify", "missing.json"),
        ("verify-evidence", "missing.evidence", "--policy", "missing.policy"),
        ("verify-evidence", "-"),
    ],
)
def test_wrong_usage_is_told_in_a_line_and_a_hint(tlog: Shell, sim: Simulator, arguments: tuple[str, ...]) -> None:
    output = tlog(*arguments)
    assert (output.status, output.out) == (USAGE, "")
    assert [line.startswith("tlog-client: ") for line in output.err.splitlines()] == [True, True]
    assert "--help" in output.err
    assert sim.requests == []


@pytest.mark.parametrize("name", ["TLOG_URL", "TLOG_KEY"])
def test_a_segment_must_be_named(tlog: Shell, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.delenv(name)
    output = tlog("watch", "--once")
    assert output.status == USAGE
    assert name in output.err


@pytest.mark.parametrize(
    "command",
    ["", "append", "get", "prove", "verify", "verify-evidence", "export-proof", "watch", "import cloudtrail"],
)
def test_help_ends_with_an_example(tlog: Shell, command: str) -> None:
    output = tlog(*command.split(), "--help")
    assert output.status == VERIFIED
    usage, _, example = output.out.partition("Example:\n")
    assert usage.startswith("Usage: tlog-client")
    assert "$ tlog-client" in example


def test_a_list_of_peers_or_a_key_that_is_none_is_wrong_usage(tlog: Shell) -> None:
    vkey = tlog("keygen", "one", "-o", "one.key").out
    output = tlog("sign-peers", "--sign", "one.key", stdin="tlog/peers/v1\n")
    assert (output.status, output.out) == (USAGE, "")
    Path("one.vkey").write_text(vkey)
    peers = f"tlog/peers/v1\npeer {vkey}"
    output = tlog("sign-peers", "--sign", "one.vkey", stdin=peers)
    assert output.status == USAGE
    assert "one.vkey holds a verifier key, the public half" in output.err
    assert tlog("sign-peers", "--sign", "one.key", stdin=peers).status == VERIFIED


def test_a_damaged_state_says_what_to_do(tlog: Shell, tmp_path: Path) -> None:
    tlog("watch", "--once")
    for path in (tmp_path / "state").iterdir():
        path.write_bytes(b"rubbish")
    output = tlog("watch", "--once")
    assert output.status == REFUSED
    assert "restore it from a backup" in output.err


def test_no_answer_of_the_log_can_write_on_the_terminal(tlog: Shell, sim: Simulator) -> None:
    sim.faults.append(refuse(400, detail="\x1b]0;owned\x07"))
    assert "\x1b" not in tlog("append", stdin="1\n").err
