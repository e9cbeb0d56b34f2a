"""What `Log` promises, to a log that is honest, late, lost or lying."""

import json
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from simulator import (
    ORIGIN,
    Answer,
    Lie,
    Simulator,
    alter,
    drop_after,
    drop_before,
    flip,
    refuse,
    truncate,
    unavailable,
)

from tlog_client import (
    FetchError,
    InconsistencyError,
    Log,
    MalformedError,
    OutcomeUnknownError,
    ProofError,
    RefusedError,
    Search,
    SignatureError,
    TlogError,
    TransientError,
    parse_receipt,
    verify_receipt,
)
from tlog_core.checkpoint import open_checkpoint
from tlog_core.evidence import parse_evidence, verify_evidence
from tlog_core.note import COSIGNATURE, KeyId, Note, Signature, parse_note, sign_note, signer_from_seed
from tlog_core.policy import parse_policy

OpenLog = Callable[..., Log]


def size_of(note: bytes, sim: Simulator) -> int:
    return open_checkpoint(note, sim.key).size


def nested(depth: int) -> Any:
    value: Any = 1
    for _ in range(depth):
        value = [value]
    return value


# Appending


def test_an_appended_event_comes_back_as_a_receipt_that_verifies_offline(log: Log, sim: Simulator) -> None:
    receipt = log.append({"b": 1, "a": [True, None]})
    verify_receipt(parse_receipt(bytes(receipt)), key=sim.key, payload=b'{"a":[true,null],"b":1}')


def test_the_example_of_the_readme_runs(sim: Simulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    readme = (Path(__file__).parents[2] / "client" / "README.md").read_text()
    example = readme.split("```python\n")[1].split("```")[0]
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    Path("payments.vkey").write_text(f"{sim.key}\n")
    exec(example.replace("http://127.0.0.1:8080/segments/payments", sim.url), {})  # noqa: S102
    assert sim.size == 1


def test_equal_events_are_sent_as_equal_bytes(log: Log, sim: Simulator) -> None:
    log.append({"b": 1.0, "a": "\u00e9"})
    log.append(json.loads('{"a": "\\u00e9", "b": 1}'))
    assert sim.requests[0].body == sim.requests[1].body == '{"a":"é","b":1}'.encode()


@pytest.mark.parametrize("event", [None, 0, "text", [], {}, nested(64)])
def test_any_json_value_can_be_logged_and_read_back(log: Log, event: Any) -> None:
    index = log.append(event).index
    assert log.entry(index).event() == event
    assert [opened.event() for opened in log.entries()] == [event]


@pytest.mark.parametrize(
    "event",
    [float("nan"), 2**53, 1e20, "\ud800", b"bytes", {1: 2}, nested(65), "x" * (1 << 20), {"set"}],
    ids=lambda event: type(event).__name__,
)
def test_what_the_log_would_refuse_is_not_even_sent(log: Log, sim: Simulator, event: Any) -> None:
    with pytest.raises(MalformedError):
        log.append(event)
    with pytest.raises(MalformedError, match="event 2"):
        log.append_many([1, event])
    assert sim.requests == []


def test_an_opaque_payload_is_logged_as_the_bytes_it_is(log: Log, sim: Simulator) -> None:
    receipt = log.append_payload(b"\x00\xff", "application/pdf; version=1")
    verify_receipt(receipt, key=sim.key, payload=b"\x00\xff")
    assert log.entry(0).payload == b"\x00\xff"
    with pytest.raises(MalformedError, match="not JSON"):
        log.entry(0).event()


@pytest.mark.parametrize(
    "payload_type",
    [
        "application/json",
        "Application/JSON; x=y",
        "application/x-ndjson",
        "application/ndjson",
        "multipart/form-data; boundary=x",
        "pdf",
        "é/x",
        "a/b\r\nX-Evil: 1",
        "text/" + "x" * 251,
    ],
)
def test_a_payload_that_would_not_be_opaque_is_not_sent(log: Log, sim: Simulator, payload_type: str) -> None:
    with pytest.raises(MalformedError):
        log.append_payload(b"1", payload_type)
    assert sim.requests == []


@pytest.mark.parametrize("payload", [b"", bytes((1 << 20) + 1)])
def test_an_opaque_payload_beyond_the_limits_is_not_sent(log: Log, sim: Simulator, payload: bytes) -> None:
    with pytest.raises(MalformedError, match="1048576"):
        log.append_payload(payload, "text/plain")
    assert sim.requests == []


@pytest.mark.parametrize("before", [0, 1, 5, 300])
def test_each_event_of_a_batch_gets_a_receipt_of_its_own(log: Log, sim: Simulator, before: int) -> None:
    sim.grow(before)
    receipts = log.append_many({"n": number} for number in range(7))
    assert [receipt.index for receipt in receipts] == list(range(before, before + 7))
    for number, receipt in enumerate(receipts):
        verify_receipt(receipt, key=sim.key, payload=b'{"n":%d}' % number)


def test_a_batch_of_nothing_asks_for_nothing(log: Log, sim: Simulator) -> None:
    assert log.append_many([]) == []
    assert sim.requests == []


@pytest.mark.parametrize("events", [[0] * 10_001, ["x" * 1_000_000] * 17], ids=["too many events", "too many bytes"])
def test_a_batch_beyond_the_limits_is_refused_whole_and_not_sent(log: Log, sim: Simulator, events: list[Any]) -> None:
    with pytest.raises(MalformedError, match="use a Writer"):
        log.append_many(events)
    assert sim.requests == []


# Appending over a bad network


@pytest.mark.parametrize(
    "fault", [drop_after, drop_before, truncate, unavailable(), refuse(503, kind="outcome-unknown")]
)
def test_a_retry_never_logs_an_event_twice(log: Log, sim: Simulator, fault: Any) -> None:
    sim.faults += [fault, fault]
    assert log.append({"n": 1}).index == 0
    assert sim.size == 1
    assert len(sim.requests) == 3
    assert len({request.headers["idempotency-key"] for request in sim.requests}) == 1


def test_two_events_never_share_an_idempotency_key(log: Log, sim: Simulator) -> None:
    log.append(1)
    log.append(1)
    log.append_many([1, 1])
    assert len({request.headers["idempotency-key"] for request in sim.requests}) == 3


def test_when_all_attempts_fail_the_error_carries_the_key_of_a_safe_retry(log: Log, sim: Simulator) -> None:
    sim.faults += [drop_before, drop_after, unavailable()]
    with pytest.raises(OutcomeUnknownError) as caught:
        log.append({"n": 1})
    assert log.append({"n": 1}, idempotency_key=caught.value.idempotency_key).index == 0
    assert sim.size == 1


def test_an_event_that_certainly_was_not_logged_is_not_called_unknown(log: Log, sim: Simulator) -> None:
    sim.faults += [unavailable()] * 3
    with pytest.raises(TransientError) as caught:
        log.append({"n": 1})
    assert not isinstance(caught.value, OutcomeUnknownError)
    assert sim.size == 0


def test_a_key_of_ones_own_makes_an_append_safe_to_repeat(log: Log, open_log: OpenLog, sim: Simulator) -> None:
    first = log.append({"n": 1}, idempotency_key="order-17")
    log.append_many([2, 3])
    assert open_log().append({"n": 1}, idempotency_key="order-17") == first
    assert sim.size == 3


def test_one_idempotency_key_for_two_events_is_refused(log: Log) -> None:
    log.append(1, idempotency_key="k")
    with pytest.raises(RefusedError) as caught:
        log.append(2, idempotency_key="k")
    assert caught.value.status == 422
    assert caught.value.type == "urn:tlog:problem:idempotency-mismatch"


@pytest.mark.parametrize("key", ["", "a b", "ä", "x" * 256, "a\n"])
def test_an_idempotency_key_that_no_header_can_carry_is_not_sent(log: Log, sim: Simulator, key: str) -> None:
    with pytest.raises(MalformedError):
        log.append(1, idempotency_key=key)
    assert sim.requests == []


def test_a_refusal_is_not_repeated(log: Log, sim: Simulator, pauses: list[float]) -> None:
    sim.faults.append(refuse(400, detail="line 2: not JSON", line=2))
    with pytest.raises(RefusedError, match="line 2: not JSON") as caught:
        log.append_many([1, 2])
    assert caught.value.line == 2
    assert (len(sim.requests), pauses) == (1, [])


# Appending to a liar


def test_no_bit_of_a_receipt_can_be_flipped(log: Log, sim: Simulator) -> None:
    sim.grow(5)
    length = len(bytes(log.append({"n": 1}, idempotency_key="k")))
    for place in range(0, length - 1, 3):
        sim.lies["entries"] = flip(place)
        with pytest.raises(TlogError):
            log.append({"n": 1}, idempotency_key="k")


def test_no_bit_of_a_batch_receipt_can_be_flipped(log: Log, sim: Simulator) -> None:
    sim.grow(5)
    log.append_many([1, 2], idempotency_key="k")
    length = len(bytes(sim.batch_receipt(5, 7)))
    for place in range(0, length - 1, 3):
        sim.lies["entries"] = flip(place)
        with pytest.raises(TlogError):
            log.append_many([1, 2], idempotency_key="k")


def test_a_receipt_for_another_event_is_refused(log: Log, sim: Simulator) -> None:
    sim.grow(1)
    sim.lies["entries"] = lambda answer: replace(answer, body=bytes(sim.receipt(0)))
    with pytest.raises(ProofError):
        log.append({"mine": True})


def test_a_receipt_for_another_type_is_refused(log: Log, sim: Simulator) -> None:
    def answer_as_html(work: Callable[[], Answer]) -> Answer:
        work()
        index = sim.log(b"hi", payload_type="text/html")
        return Answer(201, bytes(sim.receipt(index)))

    sim.faults.append(answer_as_html)
    with pytest.raises(ProofError, match="text/html"):
        log.append_payload(b"hi", "text/plain")


def test_two_equal_events_cannot_be_answered_with_one_entry(log: Log, sim: Simulator) -> None:
    first = log.append({"n": 1})
    sim.lies["entries"] = lambda answer: replace(answer, body=bytes(sim.receipt(first.index)))
    with pytest.raises(ProofError, match="before the events were sent"):
        log.append({"n": 1})


def test_a_batch_receipt_with_too_few_openings_is_refused(log: Log, sim: Simulator) -> None:
    sim.lies["entries"] = alter(lambda receipt: receipt["openings"].pop())
    with pytest.raises(ProofError):
        log.append_many([1, 2, 3])


def test_nothing_of_a_receipt_that_fails_is_remembered(log: Log, sim: Simulator) -> None:
    log.append(1)
    before = log.verified()
    sim.lies["entries"] = alter(lambda receipt: receipt.update(index=0))
    with pytest.raises(ProofError):
        log.append(2)
    assert log.verified() == before


# Each head against the last


def test_a_receipt_proves_by_itself_that_the_log_grew(log: Log, sim: Simulator) -> None:
    for _ in range(9):
        log.append(1)
        log.append_many([1, 2, 3])
    assert sim.routes() == ["POST entries"] * 18
    verified = log.verified()
    assert verified is not None
    assert verified.checkpoint.size == 36


def test_a_receipt_after_others_wrote_takes_a_consistency_proof(log: Log, sim: Simulator) -> None:
    log.append(1)
    sim.grow(3)
    log.append(2)
    assert sim.routes() == ["POST entries", "POST entries", "GET proof/consistency/1/5"]


def test_a_late_receipt_is_accepted_when_its_tree_is_a_prefix(log: Log, open_log: OpenLog, sim: Simulator) -> None:
    late = open_log("elsewhere").append(1, idempotency_key="k")
    sim.grow(3)
    assert log.checkpoint().size == 4
    sim.requests.clear()
    assert log.append(1, idempotency_key="k") == late
    assert sim.routes() == ["POST entries", "GET proof/consistency/1/4"]
    assert log.checkpoint().size == 4


def test_receipts_that_come_in_the_wrong_order_prove_each_other(log: Log, open_log: OpenLog, sim: Simulator) -> None:
    elsewhere = open_log("elsewhere")
    for number in range(5):
        elsewhere.append(number, idempotency_key=f"k{number}")
    sim.requests.clear()
    for number in (3, 4, 2, 0, 1):
        log.append(number, idempotency_key=f"k{number}")
    # Only 0 was not yet shown by its successor.
    assert [route for route in sim.routes() if "POST" not in route] == ["GET proof/consistency/1/5"]


def test_a_late_receipt_of_another_history_is_caught(log: Log, open_log: OpenLog, sim: Simulator) -> None:
    sim.grow(3)
    open_log("elsewhere").append(1, idempotency_key="k")
    sim.fork(1)
    sim.grow(2)
    log.checkpoint()
    with pytest.raises(InconsistencyError):
        log.append(1, idempotency_key="k")


def test_a_growing_log_is_followed(log: Log, sim: Simulator) -> None:
    assert log.checkpoint().size == 0
    for size in range(1, 20):
        sim.grow(1)
        assert log.checkpoint().size == size


def test_the_signed_note_is_at_hand_as_received(log: Log, sim: Simulator) -> None:
    sim.grow(3)
    assert log.signed_checkpoint().note == sim.note()
    verified = log.verified()
    assert verified is not None
    assert verified.note == sim.note()


def test_a_rollback_is_caught_with_both_notes_even_after_a_restart(log: Log, open_log: OpenLog, sim: Simulator) -> None:
    sim.grow(8)
    log.checkpoint()
    sim.shrink(5)
    for client in (log, open_log()):
        with pytest.raises(InconsistencyError, match="went back from 8 to 5") as caught:
            client.checkpoint()
        assert size_of(caught.value.older, sim) == 8
        assert size_of(caught.value.newer, sim) == 5


def test_a_retry_at_a_log_that_went_back_is_told_so_and_not_that_there_is_no_proof(log: Log, sim: Simulator) -> None:
    sim.grow(8)
    log.checkpoint()
    sim.shrink(5)
    with pytest.raises(InconsistencyError, match="went back from 8 to 6") as caught:
        log.append("again", idempotency_key="one")
    assert (size_of(caught.value.older, sim), size_of(caught.value.newer, sim)) == (8, 6)
    with pytest.raises(InconsistencyError, match="went back from 8 to 7"):
        log.append_many(["again"])


def test_an_entry_that_is_gone_is_a_rollback_and_one_that_is_withheld_is_refused(log: Log, sim: Simulator) -> None:
    sim.grow(8)
    log.checkpoint()
    sim.lies["entries"] = lambda _: Answer(404, b"")
    with pytest.raises(RefusedError):
        log.entry(6)
    sim.lies.clear()
    sim.shrink(5)
    with pytest.raises(InconsistencyError, match="went back from 8 to 5"):
        log.entry(6)


@pytest.mark.parametrize("growth", [0, 1, 2, 7])
@pytest.mark.parametrize("size", [8, 9])
def test_a_fork_is_caught_with_both_notes_and_evidence_where_the_proof_makes_one(
    log: Log, sim: Simulator, size: int, growth: int
) -> None:
    sim.grow(size)
    older = log.signed_checkpoint()
    sim.fork(3)
    sim.grow(growth)
    with pytest.raises(InconsistencyError, match="two histories") as caught:
        log.checkpoint()
    assert caught.value.older == older.note
    assert caught.value.newer == sim.note()
    assert log.verified() == older
    # A proof from 8, a power of two, does not say what it starts from.
    evidence = caught.value.evidence
    assert (evidence is None) == (size == 8 and growth > 0)
    if evidence is not None:
        verify_evidence(parse_evidence(evidence), parse_policy(f"log {sim.key}\nquorum none\n".encode()))
        assert evidence.decode() in str(caught.value)


def test_lines_that_nobody_verified_do_not_crowd_the_proof_out_of_evidence(log: Log, sim: Simulator) -> None:
    def crowd(answer: Answer) -> Answer:
        note = parse_note(answer.body)
        junk = [Signature(sim.key.name, KeyId(b"%04d" % number), bytes(64)) for number in range(20)]
        return replace(answer, body=bytes(Note(note.text, (*junk, *note.signatures))))

    sim.lies["checkpoint"] = crowd
    sim.grow(9)
    log.checkpoint()
    sim.fork(3)
    with pytest.raises(InconsistencyError) as caught:
        log.checkpoint()
    assert caught.value.evidence is not None
    verify_evidence(parse_evidence(caught.value.evidence), parse_policy(f"log {sim.key}\nquorum none\n".encode()))


def test_a_rollback_that_grew_again_is_caught(log: Log, sim: Simulator) -> None:
    sim.grow(8)
    log.checkpoint()
    sim.shrink(5)
    sim.log(*[b"0"] * 10)
    with pytest.raises(InconsistencyError):
        log.checkpoint()


def test_a_log_that_withholds_the_proof_is_not_believed(log: Log, sim: Simulator) -> None:
    sim.grow(3)
    log.checkpoint()
    sim.grow(3)
    sim.lies["proof"] = lambda _: Answer(500, b"")
    with pytest.raises(FetchError):
        log.checkpoint()
    verified = log.verified()
    assert verified is not None
    assert verified.checkpoint.size == 3


@pytest.mark.parametrize("name", ["old_size", "new_size"])
def test_an_answer_to_another_question_is_not_taken_for_a_fork(log: Log, sim: Simulator, name: str) -> None:
    sim.grow(3)
    log.checkpoint()
    sim.grow(3)
    sim.lies["proof"] = alter(lambda answer: answer.update({name: 4}))
    with pytest.raises(MalformedError, match="not to the question"):
        log.checkpoint()


def test_a_checkpoint_signed_by_another_key_is_refused(log: Log, sim: Simulator) -> None:
    sim.signer = signer_from_seed(sim.signer.name, b"\x08" * 32)
    with pytest.raises(SignatureError):
        log.checkpoint()
    assert log.verified() is None


def test_the_key_of_a_witness_is_not_taken_for_that_of_a_log(sim: Simulator) -> None:
    witness = signer_from_seed("witness.example", b"\x01" * 32, key_type=COSIGNATURE)
    with pytest.raises(MalformedError, match="witness"):
        Log(sim.url, str(witness.verifier))


def test_a_key_is_taken_as_text_too(sim: Simulator) -> None:
    with Log(sim.url, f"{sim.key}\n") as log:
        assert log.key == sim.key


def test_the_latest_checkpoint_is_shown_to_extend_an_older_one(log: Log, sim: Simulator) -> None:
    sim.grow(4)
    older = sim.note(3)
    assert log.consistency(older).size == 4
    sim.grow(4)
    assert log.consistency(older).size == 8


def test_an_older_checkpoint_of_another_history_is_caught(log: Log, sim: Simulator) -> None:
    sim.grow(4)
    older = sim.note(3)
    sim.fork(1)
    with pytest.raises(InconsistencyError) as caught:
        log.consistency(older)
    assert caught.value.older == older


def test_an_older_checkpoint_that_is_larger_shows_a_rollback(log: Log, sim: Simulator) -> None:
    sim.grow(4)
    older = sim.note()
    sim.shrink(3)
    with pytest.raises(InconsistencyError, match="went back"):
        log.consistency(older)


def test_an_older_checkpoint_that_nobody_signed_proves_nothing(log: Log, sim: Simulator) -> None:
    sim.grow(4)
    with pytest.raises(TlogError):
        log.consistency(sim.note(3).replace(b"\n3\n", b"\n2\n"))


# Many at once


def test_concurrent_appends_all_get_receipts_that_verify(log: Log, open_log: OpenLog, sim: Simulator) -> None:
    other = open_log()
    with ThreadPoolExecutor(8) as pool:
        receipts = list(pool.map(lambda n: (log if n % 2 else other).append({"n": n}), range(80)))
    for number, receipt in enumerate(receipts):
        verify_receipt(receipt, key=sim.key, payload=b'{"n":%d}' % number)
    assert sorted(receipt.index for receipt in receipts) == list(range(80))
    verified = log.verified()
    assert verified is not None
    assert verified.checkpoint.size == 80


def test_a_checkpoint_that_is_overtaken_on_its_way_is_no_rollback(log: Log, open_log: OpenLog, sim: Simulator) -> None:
    sim.grow(3)
    asked, overtaken = threading.Event(), threading.Event()

    def answer_late(work: Callable[[], Answer]) -> Answer:
        answer = work()
        asked.set()
        overtaken.wait(5)
        return answer

    sim.faults.append(answer_late)
    with ThreadPoolExecutor(1) as pool:
        late = pool.submit(log.checkpoint)
        asked.wait(5)
        sim.grow(2)
        open_log().checkpoint()
        overtaken.set()
        assert late.result().size == 3
    assert log.checkpoint().size == 5


# Reading


def test_an_entry_is_read_with_its_payload(log: Log, sim: Simulator) -> None:
    sim.grow(5)
    opened = log.entry(3)
    assert (opened.index, opened.event(), opened.entry.writer) == (3, {"n": 3}, "alice")
    assert bytes(opened.entry) == sim.logged[3].entry


def test_an_entry_that_is_covered_needs_no_new_checkpoint(log: Log, sim: Simulator) -> None:
    sim.grow(5)
    log.checkpoint()
    sim.requests.clear()
    log.entry(3)
    assert sim.routes() == ["GET entries/3", "GET proof/inclusion/5/3"]


@pytest.mark.parametrize(
    "lie",
    [
        alter(lambda answer: answer.update(payload={"n": 4})),
        alter(lambda answer: answer.update(payload_type="text/plain", payload="eyJuIjozfQ==")),
        alter(lambda answer: answer.update(opening="A" * 43 + "=")),
        alter(lambda answer: answer.update(index=4)),
        alter(lambda answer: answer.update(index=True)),
        alter(lambda answer: answer.update(entry=answer["entry"].replace("payments", "salaries"))),
        alter(lambda answer: answer.update(entry=answer["entry"].replace("alice", "bob"))),
        alter(lambda answer: answer.update(entry=None)),
        alter(lambda answer: answer.pop("payload")),
        lambda answer: replace(answer, body=b"[]"),
        lambda answer: replace(answer, body=answer.body[:-1]),
    ],
)
def test_an_entry_that_was_altered_is_not_returned(log: Log, sim: Simulator, lie: Lie) -> None:
    sim.grow(5)
    sim.lies["entries"] = lie
    with pytest.raises((ProofError, MalformedError)):
        log.entry(3)


def test_an_entry_that_was_exchanged_for_its_neighbour_is_not_returned(log: Log, sim: Simulator) -> None:
    sim.grow(5)
    sim.logged[3] = sim.logged[2]
    with pytest.raises(ProofError):
        log.entry(3)
    with pytest.raises(ProofError):
        list(log.entries())
    with pytest.raises(ProofError):
        list(log.committed())


def test_an_inclusion_proof_of_another_entry_is_refused(log: Log, sim: Simulator) -> None:
    sim.grow(5)
    sim.lies["proof"] = alter(lambda answer: answer["proof"].reverse())
    with pytest.raises(ProofError):
        log.entry(3)
    sim.lies["proof"] = alter(lambda answer: answer.update(index=2))
    with pytest.raises(MalformedError, match="not to the question"):
        log.entry(3)


def indexes(found: Search) -> list[int]:
    return [opened.index for opened, _ in found]


def test_what_is_found_comes_with_receipts_page_by_page_the_latest_first(log: Log, sim: Simulator) -> None:
    sim.grow(7)
    sim.page = 3
    found = log.search(actor="ann", q="to be", since=5)
    assert (found.indexed, found.size) == (7, 7)
    for index, (opened, receipt) in zip(range(6, -1, -1), found, strict=True):
        assert (opened.index, opened.event(), receipt.index) == (index, {"n": index}, index)
        verify_receipt(receipt, key=sim.key, payload=opened.payload)
    assert [request.query for request in sim.requests if request.path == "entries"] == [
        {"actor": "ann", "q": "to be", "since": "5", **more} for more in ({}, {"before": "4"}, {"before": "1"})
    ]


def test_a_search_says_what_was_not_looked_at(log: Log, sim: Simulator) -> None:
    sim.grow(7)
    sim.unindexed = 4
    found = log.search(q="x")
    assert (found.indexed, found.size, indexes(found)) == (3, 7, [2, 1, 0])


def test_pages_of_a_search_may_be_under_later_checkpoints_of_one_history(log: Log, sim: Simulator) -> None:
    sim.grow(7)
    sim.page = 3
    found = iter(log.search(q="x"))
    assert [next(found)[0].index for _ in range(3)] == [6, 5, 4]
    sim.grow(2)
    assert [opened.index for opened, _ in found] == [3, 2, 1, 0]
    assert log.verified() == log.signed_checkpoint()


def test_a_search_at_a_log_that_went_back_is_caught(log: Log, sim: Simulator) -> None:
    sim.grow(7)
    assert len(indexes(log.search(q="x"))) == 7
    sim.shrink(3)
    with pytest.raises(InconsistencyError):
        log.search(q="x")


@pytest.mark.parametrize(
    "lie",
    [
        alter(lambda answer: answer["entries"][1].update(payload={"n": 9})),
        alter(lambda answer: answer["entries"][1].update(index=5)),
        alter(lambda answer: answer["entries"][1].update(opening="A" * 43 + "=")),
        alter(lambda answer: answer["entries"][1]["proof"].reverse()),
        alter(lambda answer: answer["entries"][1].update(proof=answer["entries"][0]["proof"])),
        alter(lambda answer: answer["entries"][1].pop("proof")),
        alter(lambda answer: answer["entries"].reverse()),
        alter(lambda answer: answer["entries"].insert(0, answer["entries"][0])),
        alter(lambda answer: answer["entries"][0].update(index=7)),
        alter(lambda answer: answer.update(checkpoint=answer["checkpoint"].replace("\n6\n", "\n7\n"))),
        alter(lambda answer: answer.update(size=7)),
        alter(lambda answer: answer.update(indexed=7)),
        alter(lambda answer: answer.update(indexed=None)),
        alter(lambda answer: answer.update(next=5)),
        alter(lambda answer: answer.update(next=-1)),
    ],
)
def test_what_is_found_and_altered_is_not_returned(log: Log, sim: Simulator, lie: Lie) -> None:
    sim.grow(6)
    sim.lies["entries"] = lie
    with pytest.raises((ProofError, MalformedError, SignatureError, FetchError)):
        indexes(log.search(q="x"))


def test_pages_of_a_search_cannot_go_round_in_circles(log: Log, sim: Simulator) -> None:
    sim.grow(6)
    sim.lies["entries"] = alter(lambda answer: answer.update(entries=[], next=4))
    with pytest.raises(MalformedError, match="not a page"):
        indexes(log.search(q="x"))


def test_an_entry_beyond_the_head_is_not_asked_for(log: Log, sim: Simulator) -> None:
    sim.grow(5)
    with pytest.raises(FetchError, match="the log has 5"):
        log.entry(5)
    with pytest.raises(FetchError):
        log.entry(-1)
    assert sim.routes() == ["GET checkpoint"]


def test_a_fresh_receipt_is_under_the_latest_checkpoint(log: Log, sim: Simulator) -> None:
    log.append({"n": 1})
    sim.grow(5)
    receipt = log.prove(0)
    assert receipt.checkpoint == sim.note()
    verify_receipt(receipt, key=sim.key, payload=b'{"n":1}')


RANGES = [(0, None), (0, 0), (3, 3), (0, 1), (255, 257), (256, 512), (300, 301), (500, None), (700, 700)]


@pytest.mark.parametrize(("start", "stop"), RANGES)
def test_a_range_is_read_with_its_payloads(log: Log, sim: Simulator, start: int, stop: int | None) -> None:
    sim.grow(700)
    entries = list(log.entries(start, stop))
    assert [opened.index for opened in entries] == list(range(start, 700 if stop is None else stop))
    assert all(opened.payload == b'{"n":%d}' % opened.index for opened in entries)


@pytest.mark.parametrize(("start", "stop"), RANGES)
def test_a_range_is_read_without_payloads(log: Log, sim: Simulator, start: int, stop: int | None) -> None:
    sim.grow(700)
    entries = list(log.committed(start, stop))
    assert [one.index for one in entries] == list(range(start, 700 if stop is None else stop))
    assert all(bytes(one.entry) == sim.logged[one.index].entry for one in entries)
    assert {route.split("/")[0] for route in sim.routes()} <= {"GET checkpoint", "GET tile"}


@pytest.mark.parametrize("read", [Log.entries, Log.committed, Log.logged])
def test_reading_all_ends_where_the_log_ended_when_it_began(
    log: Log, sim: Simulator, read: Callable[[Log], Iterator[Any]]
) -> None:
    """Also where each thing that is read is an entry more, as in a record of reads."""
    sim.grow(300)
    seen = 0
    for _ in read(log):
        sim.grow(1)
        seen += 1
    assert (seen, sim.size) == (300, 600)


def test_an_empty_log_has_no_entries(log: Log) -> None:
    assert list(log.entries()) == []
    assert list(log.committed()) == []


@pytest.mark.parametrize("read", [Log.entries, Log.committed])
@pytest.mark.parametrize(("start", "stop"), [(0, 11), (11, None), (5, 4), (-1, 3)])
def test_a_range_that_the_log_does_not_have_is_an_error_and_not_less(
    log: Log, sim: Simulator, read: Callable[..., Any], start: int, stop: int | None
) -> None:
    sim.grow(10)
    with pytest.raises(FetchError, match="the log has 10"):
        list(read(log, start, stop))


@pytest.mark.parametrize("read", [Log.entries, Log.committed])
@pytest.mark.parametrize("place", [0, 31, 1000])
def test_no_bit_of_a_tile_can_be_flipped(log: Log, sim: Simulator, read: Callable[..., Any], place: int) -> None:
    sim.grow(300)
    sim.lies["tile"] = lambda answer: flip(place % len(answer.body))(answer)
    with pytest.raises((ProofError, MalformedError)):
        list(read(log))


@pytest.mark.parametrize("index", [0, 150, 255, 256, 299])
def test_an_entry_altered_in_a_bundle_is_caught(log: Log, sim: Simulator, index: int) -> None:
    sim.grow(300)
    honest = sim.logged[index]
    sim.logged[index] = replace(honest, entry=honest.entry.replace(b"alice", b"carol"))
    for read in (log.entries, log.committed):
        seen: list[int] = []
        with pytest.raises(ProofError):
            seen.extend(one.index for one in read())
        assert index not in seen


def test_an_entry_of_another_log_is_caught_even_if_it_is_in_the_tree(log: Log, sim: Simulator) -> None:
    sim.grow(3)
    stolen = sim.logged[1]
    sim.logged[1] = replace(stolen, entry=stolen.entry.replace(b"payments", b"salaries"))
    sim.fork(0)
    for read in (log.entries, log.committed):
        with pytest.raises(ProofError, match="salaries"):
            list(read())
    with pytest.raises(ProofError, match="salaries"):
        log.entry(1)


@pytest.mark.parametrize(
    ("lie", "error"),
    [
        (alter(lambda answer: answer.update(entries=[])), FetchError),
        (alter(lambda answer: answer["entries"].append(answer["entries"][-1])), MalformedError),
        (alter(lambda answer: answer["entries"].reverse()), MalformedError),
        (alter(lambda answer: answer["entries"][3].update(payload={"n": 4})), ProofError),
        (alter(lambda answer: answer["entries"].insert(0, 7)), MalformedError),
        (alter(lambda answer: answer.update(entries={})), MalformedError),
    ],
)
def test_a_page_that_was_altered_is_not_returned(log: Log, sim: Simulator, lie: Lie, error: type[TlogError]) -> None:
    sim.grow(10)
    sim.lies["entries"] = lie
    with pytest.raises(error):
        list(log.entries())


def test_many_entries_are_verified_from_few_tiles_held_one_at_a_time(log: Log, sim: Simulator) -> None:
    sim.grow(66_000)
    assert sum(1 for _ in log.committed(60_000)) == 6_000
    tiles = [route for route in sim.routes() if route.startswith("GET tile/") and "entries" not in route]
    # The right edge, on three levels, and the one full tile above the bundles.
    assert len(tiles) == 4


# Cosigned receipts


def test_a_cosigned_receipt_is_asked_for_only_if_wanted(sim: Simulator, tmp_path: Path) -> None:
    for cosigned in (False, True):
        with Log(sim.url, sim.key, state=tmp_path / "state", cosigned=cosigned) as log:
            log.append({"n": 1})
            log.append_many([1, 2])
    posted = [request.query for request in sim.requests if request.method == "POST"]
    assert posted == [{}, {}, {"cosigned": "true"}, {"cosigned": "true"}]


def test_a_receipt_is_upgraded_to_the_newest_cosigned_checkpoint(log: Log, sim: Simulator) -> None:
    sim.grow(3)
    receipt = log.prove(1)
    sim.grow(5)
    log.checkpoint()
    sim.cosigned, sim.quorum = 6, [signer_from_seed("w.example", bytes(32), key_type=COSIGNATURE)]
    assert log.cosigned_checkpoint().checkpoint.size == 6
    upgraded = log.upgrade(receipt)
    assert upgraded == replace(sim.receipt(1, 6), checkpoint=upgraded.checkpoint)
    assert len(parse_note(upgraded.checkpoint).signatures) == 2
    verify_receipt(upgraded, key=sim.key, payload=b'{"n":1}')


def test_a_receipt_that_is_not_cosigned_yet_stays_as_it_is(log: Log, sim: Simulator) -> None:
    sim.grow(3)
    receipt = log.prove(2)
    with pytest.raises(RefusedError):
        log.upgrade(receipt)
    sim.cosigned = 2
    with pytest.raises(FetchError, match="2 entries, and not yet entry 2"):
        log.upgrade(receipt)


def test_an_upgrade_that_does_not_hold_is_refused(log: Log, sim: Simulator) -> None:
    sim.grow(9)
    receipt = log.prove(4)
    log.checkpoint()
    sim.cosigned = 7
    with (
        sim_lies(sim, "proof", lambda answer: answer["proof"].clear() if "index" in answer else None),
        pytest.raises(ProofError),
    ):
        log.upgrade(receipt)
    # What is to be upgraded is verified first.
    with pytest.raises(ProofError):
        log.upgrade(replace(receipt, index=3))
    with pytest.raises(SignatureError):
        log.upgrade(replace(receipt, checkpoint=bytes(sign_note(parse_note(receipt.checkpoint).text, OTHER))))


def test_a_cosigned_checkpoint_of_another_history_is_evidence(log: Log, sim: Simulator) -> None:
    sim.grow(9)
    log.checkpoint()
    sim.fork(2)
    sim.cosigned = 9
    with pytest.raises(InconsistencyError):
        log.cosigned_checkpoint()


OTHER = signer_from_seed(ORIGIN, b"other" * 6 + b"xx")


@contextmanager
def sim_lies(sim: Simulator, route: str, change: Callable[[Any], None]) -> Iterator[None]:
    sim.lies[route] = alter(change)
    try:
        yield
    finally:
        del sim.lies[route]
