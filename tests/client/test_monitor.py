"""The monitor, over real HTTP and real files, against a log that breaks one rule at a time."""

import random
import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import pytest
from live import until
from monitoring import NOW, WITNESS_PATH, Watch, policy_of, witness
from simulator import ORIGIN, START, Answer, Logged, Simulator, alter, drop_before, flip, refuse

from tlog_client.errors import BudgetError, StateError
from tlog_client.monitor import follower as following
from tlog_client.monitor import memory as remembering
from tlog_client.monitor.follower import Follower, Settings
from tlog_client.monitor.head import open_head
from tlog_client.monitor.judge import MAX_FILES, MAX_SHARE, MAX_UNRESOLVED, Heard, Judge
from tlog_client.monitor.memory import IN_MEMORY, MAX_REPORTED, Memory
from tlog_client.monitor.report import Teller
from tlog_client.monitor.rounds import MAX_OF_HOST, Rounds
from tlog_core.checkpoint import Checkpoint, sign_checkpoint
from tlog_core.commitment import Commitment, Opening
from tlog_core.cosignature import cosign
from tlog_core.entry import Entry
from tlog_core.errors import EvidenceError, MalformedError, SignatureError
from tlog_core.evidence import EmptyRoot, Fork, format_evidence
from tlog_core.gossip import MAX_HEAD_BYTES
from tlog_core.merkle import EMPTY_ROOT, Hash, range_hash
from tlog_core.note import Note, Signature, parse_note, signer_from_seed
from tlog_core.policy import Group, TrustedLog, TrustPolicy
from tlog_core.writer import sign_commitments

LOG = "log"


@pytest.fixture
def watch(sim: Simulator, tmp_path: Path) -> Iterator[Callable[..., Watch]]:
    """Start a monitor of the simulator with the given policy, none of witnesses unless given."""
    opened: list[Watch] = []

    def start(policy: TrustPolicy | None = None, **settings: Any) -> Watch:
        opened.append(Watch(policy or policy_of(sim), tmp_path / f"state{len(opened)}", Settings(**settings)))
        return opened[-1]

    yield start
    for one in opened:
        one.memory.close()


def entry(time: int, *, writer: str = "alice", origin: str = ORIGIN) -> Logged:
    raw = bytes(Entry(Commitment(bytes(32)), origin, time, writer))
    return Logged(raw, "text/plain", Opening(bytes(32)), b"x")


def signed_entries(sim: Simulator, *sequences: int) -> None:
    signer = signer_from_seed("alice", bytes([9]) * 32)
    for sequence in sequences:
        commitment = Commitment(bytes(32))
        [signed] = sign_commitments([commitment], origin=ORIGIN, first=sequence, signer=signer)
        raw = bytes(Entry(commitment, ORIGIN, START + sim.size, "alice", signed))
        sim.take(Logged(raw, "text/plain", Opening(bytes(32)), b"x", signed))


ALICE = signer_from_seed("alice", bytes([9]) * 32).verifier


# An honest log


def test_an_honest_log_is_verified_at_every_size_and_nothing_is_reported(
    sim: Simulator, watch: Callable[..., Watch]
) -> None:
    one = watch()
    assert one.round() == []
    for number in (1, 1, 1, 252, 1, 1, 300, 700):
        sim.grow(number)
        assert one.round() == []
        assert one.size == sim.size
    assert [tree.size for tree in one.verified] == [0, 1, 2, 3, 255, 256, 257, 557, 1257]
    log = one.memory.known(ORIGIN)
    for size in range(sim.size + 1):
        assert one.memory.root(log, size) == range_hash(0, size, sim.node)


def test_what_was_looked_at_is_not_fetched_again(sim: Simulator, watch: Callable[..., Watch]) -> None:
    one = watch()
    sim.grow(600)
    one.round()
    sim.requests.clear()
    sim.grow(1)
    one.restart()
    one.round()
    assert [route for route in sim.routes() if "entries" in route] == ["GET tile/entries/002.p/89"]
    sim.requests.clear()
    one.round()
    assert sim.routes() == ["GET checkpoint"]


def interrupted(sim: Simulator, watch: Callable[..., Watch], monkeypatch: pytest.MonkeyPatch) -> Watch:
    """Return a monitor that was stopped after 512 of the 1,000 entries of a log."""
    monkeypatch.setattr(following, "STEP_BUNDLES", 1)
    one = watch()
    sim.grow(1000)
    one.stop_after = 2
    one.round()
    return one


def test_catching_up_goes_on_where_it_was_interrupted_also_under_a_larger_head(
    sim: Simulator, watch: Callable[..., Watch], monkeypatch: pytest.MonkeyPatch
) -> None:
    one = interrupted(sim, watch, monkeypatch)
    assert (one.steps, one.size, one.memory.known(ORIGIN).looked) == ([256, 512], 0, 512)
    one.stop_after = 1 << 30
    sim.grow(100)
    one.restart()
    sim.requests.clear()
    assert one.round() == []
    assert (one.steps, one.size) == ([256, 512, 768, 1024, 1100], 1100)
    assert next(route for route in sim.routes() if "entries" in route) == "GET tile/entries/002"
    assert one.memory.unresolved(one.memory.known(ORIGIN)) == []


def test_a_fork_within_what_was_looked_at_but_not_verified_is_evidence(
    sim: Simulator, watch: Callable[..., Watch], monkeypatch: pytest.MonkeyPatch
) -> None:
    one = interrupted(sim, watch, monkeypatch)
    sim.fork(300)
    sim.grow(5)
    one.restart()
    one.convicts(one.round(), "prefix")


# Evidence


def test_two_roots_of_one_size_are_evidence(sim: Simulator, watch: Callable[..., Watch]) -> None:
    one = watch()
    sim.grow(9)
    one.round()
    sim.fork(3)
    assert "signed two roots of 9 entries" in one.convicts(one.round(), "fork")[0]


@pytest.mark.parametrize("size", [3, 4, 8])
def test_a_smaller_head_of_another_history_is_evidence(sim: Simulator, watch: Callable[..., Watch], size: int) -> None:
    one = watch()
    sim.grow(9)
    one.round()
    sim.shrink(size)
    sim.fork(1)
    one.convicts(one.round(), "prefix")


@pytest.mark.parametrize("size", [1, 7, 8, 256, 300])
def test_a_larger_head_that_does_not_extend_the_last_is_evidence(
    sim: Simulator, watch: Callable[..., Watch], size: int
) -> None:
    one = watch()
    sim.grow(size)
    one.round()
    sim.fork(0)
    sim.grow(300)
    one.convicts(one.round(), "prefix")
    assert one.size == size


def test_a_fork_whose_tiles_are_withheld_is_proven_by_the_log_s_own_proof(
    sim: Simulator, watch: Callable[..., Watch]
) -> None:
    one = watch()
    sim.grow(7)
    one.round()
    sim.fork(0)
    sim.grow(4)
    sim.lies["tile"] = lambda answer: replace(answer, status=404)
    one.convicts(one.round(), "prefix")


def test_a_root_of_nothing_is_evidence(sim: Simulator, watch: Callable[..., Watch]) -> None:
    one = watch()
    sim.lies["checkpoint"] = lambda answer: replace(answer, body=sim.sign(Checkpoint(ORIGIN, 0, Hash(bytes(32)))))
    one.convicts(one.round(), "empty")


def test_a_convicted_log_stays_red_and_is_not_asked_again(sim: Simulator, watch: Callable[..., Watch]) -> None:
    one = watch()
    sim.grow(3)
    one.round()
    before = list(sim.logged)
    sim.fork(1)
    one.convicts(one.round(), "fork")
    sim.logged[:] = before
    sim._rebuild()
    one.restart()
    sim.requests.clear()
    assert one.round() == []
    assert (sim.routes(), one.memory.is_convicted(ORIGIN), one.judge.heads(9)) == ([], True, [])
    assert len(one.judge.evidence()) == 1


def test_the_file_of_evidence_is_there_before_the_finding(sim: Simulator, watch: Callable[..., Watch]) -> None:
    one = watch()
    sim.grow(3)
    one.round()
    sim.fork(1)

    def fail(_name: str, _raw: bytes) -> None:
        raise StateError("no space left")

    one.judge._keep = fail
    with pytest.raises(StateError):
        one.round()
    assert (one.findings(), one.memory.is_convicted(ORIGIN)) == ([], False)
    one.restart()
    one.convicts(one.round(), "fork")


def test_an_entry_dated_a_day_before_what_its_witnesses_had_seen_is_evidence(
    sim: Simulator, watch: Callable[..., Watch]
) -> None:
    one = watch(policy_of(sim, "w", quorum="w"))
    sim.cosigners[witness("w")] = NOW
    sim.grow(3)
    one.round()
    sim.cosigners[witness("w")] = NOW + 90_000
    one.now = NOW + 90_000
    one.round()
    sim.take(entry(START + 5))
    assert "dated entry 3 to" in one.convicts(one.round(), "backdating")[0]


@pytest.mark.parametrize(
    ("name", "kinds"),
    [
        ("log.example/audit/segments/other", [("violation", "origin", "new"), ("violation", "backdating", "new")]),
        ("log.example/\x1b[2J\n", [("violation", "origin", "new"), ("violation", "backdating", "new")]),
    ],
)
def test_what_only_looks_backdated_is_a_violation_and_the_monitor_goes_on(
    sim: Simulator, watch: Callable[..., Watch], name: str, kinds: list[tuple[str, str, str]]
) -> None:
    one = watch(policy_of(sim, "w", quorum="w"))
    sim.cosigners[witness("w")] = NOW + 90_000
    one.now = NOW + 90_000
    sim.grow(3)
    one.round()
    sim.take(entry(START + 5, origin=name))
    found = one.round()
    assert sorted((one["class"], one["kind"], one["state"]) for one in found) == sorted(kinds)
    assert all(one["detail"].isprintable() for one in found)
    one.restart()
    sim.take(entry(one.now * 1000))
    assert (one.round(), one.size) == ([], 5)


def test_evidence_of_backdating_has_no_cosignature_that_it_does_not_rest_on(
    sim: Simulator, watch: Callable[..., Watch]
) -> None:
    one = watch(policy_of(sim, "ml1", "ml2", "ml3", "w", quorum="w"))
    for name in ("ml1", "ml2", "ml3", "w"):
        sim.cosigners[witness(name)] = NOW + 90_000
    one.now = NOW + 90_000
    sim.grow(3)
    one.round()
    sim.take(entry(START + 5))
    one.convicts(one.round(), "backdating")
    [file] = (one.path / "evidence").iterdir()
    assert len(file.read_bytes()) < 2_000


def test_an_entry_dated_less_than_a_day_before_is_not(sim: Simulator, watch: Callable[..., Watch]) -> None:
    one = watch(policy_of(sim, "w", quorum="w"))
    one.now = START // 1000 + 86_400
    sim.cosigners[witness("w")] = START // 1000 + 86_400
    sim.grow(3)
    one.round()
    sim.take(entry(START + 5))
    assert one.round() == []


# Violations


@pytest.mark.parametrize(
    ("broken", "kind"),
    [
        ([entry(START + 9), entry(START + 8)], "time"),
        ([entry(START + 9, origin="log.example/audit/segments/other")], "origin"),
        ([replace(entry(START + 9), entry=b"{}")], "malformed"),
        ([entry(START + 9, writer="tlog/seal"), entry(START + 9)], "sealed"),
    ],
)
def test_a_signed_entry_that_breaks_a_rule_is_a_violation_reported_once(
    sim: Simulator, watch: Callable[..., Watch], broken: list[Logged], kind: str
) -> None:
    one = watch()
    sim.grow(5)
    one.round()
    sim.take(*broken)
    [found] = one.round()
    assert (found["class"], found["kind"], found["index"]) == ("violation", kind, sim.size - 1)
    one.restart()
    assert (one.round(), one.size) == ([], sim.size)


def test_the_seal_and_the_time_are_remembered_across_rounds(sim: Simulator, watch: Callable[..., Watch]) -> None:
    one = watch()
    sim.take(entry(START + 9, writer="tlog/seal"))
    assert one.round() == []
    one.restart()
    sim.take(entry(START + 8))
    assert [kind for _, kind, _ in one.kinds()] == ["sealed", "time"]


@pytest.mark.parametrize(
    ("sequences", "kind"), [((0, 1, 3, 4), "sequence"), ((0, 1, 1, 2), "sequence"), ((1, 2), "sequence")]
)
def test_a_broken_sequence_of_a_writer_is_a_violation(
    sim: Simulator, watch: Callable[..., Watch], sequences: tuple[int, ...], kind: str
) -> None:
    one = watch(writer_keys=[ALICE])
    signed_entries(sim, *sequences)
    assert one.kinds() == [("violation", kind, "new")]


def test_an_unsigned_entry_in_the_name_of_a_writer_is_a_violation(sim: Simulator, watch: Callable[..., Watch]) -> None:
    one = watch(writer_keys=[ALICE])
    signed_entries(sim, 0)
    assert one.round() == []
    sim.grow(1)
    assert one.kinds() == [("violation", "writer", "new")]


def test_a_writer_whose_key_is_given_later_is_followed_from_the_beginning(
    sim: Simulator, watch: Callable[..., Watch], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(following, "STEP_BUNDLES", 1)
    one = watch()
    signed_entries(sim, 0, 1, 3, *range(4, 300))
    assert one.round() == []
    one.settings = Settings([ALICE])
    one.restart()
    assert one.kinds() == [("violation", "sequence", "new")]
    one.restart()
    sim.requests.clear()
    assert (one.round(), sim.routes()) == ([], ["GET checkpoint"])


def test_of_many_violations_of_a_kind_the_first_are_told_and_all_are_counted(
    sim: Simulator, watch: Callable[..., Watch]
) -> None:
    one = watch()
    sim.take(entry(START + 9), *[entry(START)] * 40)
    assert one.kinds() == [("violation", "time", "new")] * MAX_REPORTED
    assert one.memory.counted() == [(ORIGIN, "violation", "time", 40)]


# Complaints


@pytest.mark.parametrize(
    ("make", "kind"),
    [
        (lambda sim: sim.faults.append(drop_before), "unreachable"),
        (lambda sim: sim.faults.append(refuse(404)), "unreachable"),
        (lambda sim: sim.faults.append(refuse(200)), "invalid"),
        (lambda sim: sim.faults.append(lambda _: Answer(200, b"\n".join(sim.note().split(b"\n")[:2]))), "invalid"),
        (lambda sim: sim.faults.append(lambda _: Answer(200, _other_key(sim))), "invalid"),
        (lambda sim: sim.faults.append(lambda _: Answer(200, sim.note(2))), "stale"),
    ],
)
def test_what_proves_nothing_is_a_complaint_that_begins_and_ends(
    sim: Simulator, watch: Callable[..., Watch], make: Callable[[Simulator], None], kind: str
) -> None:
    one = watch()
    sim.grow(5)
    one.round()
    make(sim)
    assert one.kinds() == [("complaint", kind, "begun")]
    one.restart()
    make(sim)
    assert one.kinds() == []
    assert one.kinds() == [("complaint", kind, "ended")]


def _other_key(sim: Simulator) -> bytes:
    other = signer_from_seed(ORIGIN, bytes([5]) * 32)
    return bytes(sign_checkpoint(Checkpoint(ORIGIN, sim.size, range_hash(0, sim.size, sim.node)), other))


def test_a_wrong_line_under_the_key_of_a_witness_condemns_the_note(sim: Simulator, watch: Callable[..., Watch]) -> None:
    one = watch(policy_of(sim, "w"))
    sim.grow(2)
    key = witness("w").verifier
    forged = f"{sim.note().decode()}{Signature(key.name, key.id, bytes(72))}".encode()
    sim.faults.append(lambda _: Answer(200, forged))
    assert one.kinds() == [("complaint", "invalid", "begun")]
    assert one.size == 0


@pytest.mark.parametrize(
    ("lie", "kind"),
    [
        (flip(-1), "unproven"),
        (lambda answer: replace(answer, body=answer.body[:-1]), "unproven"),
        (lambda answer: replace(answer, status=404), "withheld"),
    ],
)
def test_entries_that_do_not_give_the_signed_root_prove_nothing_and_are_asked_for_again(
    sim: Simulator, watch: Callable[..., Watch], lie: Callable[[Answer], Answer], kind: str
) -> None:
    one = watch()
    sim.grow(5)
    one.round()
    sim.grow(300)
    sim.lies["tile"] = lie
    assert one.kinds() == [("complaint", kind, "begun")]
    assert (one.size, one.memory.known(ORIGIN).looked) == (5, 5)
    sim.lies.clear()
    assert (one.kinds(), one.size) == ([("complaint", kind, "ended")], 305)


def test_a_head_that_no_quorum_cosigned_for_too_long_is_a_complaint(
    sim: Simulator, watch: Callable[..., Watch]
) -> None:
    one = watch(policy_of(sim, "w", quorum="w"), max_age=100)
    sim.cosigners[witness("w")] = NOW
    sim.grow(2)
    assert one.round() == []
    one.now = NOW + 101
    assert one.kinds() == [("complaint", "old", "begun")]
    sim.cosigners[witness("w")] = NOW + 101
    assert one.kinds() == [("complaint", "old", "ended")]


def test_a_log_that_nobody_cosigns_is_a_complaint_under_a_quorum(sim: Simulator, watch: Callable[..., Watch]) -> None:
    one = watch(policy_of(sim, "w", quorum="w"))
    sim.grow(2)
    assert one.kinds() == [("complaint", "old", "begun")]
    assert one.size == 2


def test_a_cosignature_that_the_log_leaves_out_is_taken_from_the_witness(
    sim: Simulator, watch: Callable[..., Watch]
) -> None:
    one = watch(policy_of(sim, "w", quorum="w", shown=True))
    sim.grow(2)
    sim.elsewhere[WITNESS_PATH] = _cosigned(sim.note(), "w", NOW)
    assert one.round() == []
    assert open_head(parse_note(one.judge.heads(1)[0]), one.policy, now=NOW).time == NOW


def _cosigned(note: bytes, name: str, time: int) -> bytes:
    parsed = parse_note(note)
    line = cosign(parsed.text, time=time, signer=witness(name))
    return bytes(Note(parsed.text, (*parsed.signatures, line)))


# What witnesses show


def test_a_head_that_only_a_witness_shows_is_kept_and_after_patience_withheld(
    sim: Simulator, watch: Callable[..., Watch]
) -> None:
    one = watch(policy_of(sim, "w", shown=True), patience=50)
    sim.grow(9)
    sim.elsewhere[WITNESS_PATH] = sim.note()
    sim.lies["checkpoint"] = lambda answer: replace(answer, body=sim.note(5))
    assert (one.round(), one.size) == ([], 5)
    one.now += 51
    one.restart()
    assert one.kinds() == [("complaint", "withholding", "begun")]
    sim.lies.clear()
    assert (one.kinds(), one.size) == ([("complaint", "withholding", "ended")], 9)


def test_a_witness_that_shows_another_history_convicts_the_log(sim: Simulator, watch: Callable[..., Watch]) -> None:
    one = watch(policy_of(sim, "w", shown=True))
    sim.grow(9)
    other = sim.note()
    sim.fork(3)
    one.round()
    sim.elsewhere[WITNESS_PATH] = other
    [found] = one.round()
    one.convicts([found], "fork")
    assert (found["source"], found["witness"]) == ("witness w", None)


def test_a_larger_head_of_another_history_convicts_as_soon_as_the_log_grows_past_it(
    sim: Simulator, watch: Callable[..., Watch]
) -> None:
    one = watch(policy_of(sim, "w", shown=True))
    sim.grow(9)
    sim.elsewhere[WITNESS_PATH] = sim.note()
    sim.shrink(5)
    assert one.round() == []
    sim.grow(1)
    sim.log(b'"other"', b'"history"', b'"here"', b'"now"')
    one.convicts(one.round(), "prefix")


def test_a_witness_that_cosigned_both_histories_is_convicted_too(sim: Simulator, watch: Callable[..., Watch]) -> None:
    one = watch(policy_of(sim, "w", "v"))
    sim.cosigners[witness("w")] = NOW
    sim.grow(9)
    one.round()
    sim.fork(3)
    sim.cosigners[witness("v")] = NOW
    findings = one.round()
    sentences = one.convicts(findings, "fork", 2)
    assert [found["witness"] for found in findings] == [None, "w"]
    assert sentences[1].startswith("witness w.example cosigned")
    assert one.memory.is_convicted(str(witness("w").verifier))
    assert not one.memory.is_convicted(str(witness("v").verifier))


def test_a_convicted_witness_counts_for_no_quorum_and_is_not_asked(sim: Simulator, watch: Callable[..., Watch]) -> None:
    one = watch(policy_of(sim, "w", "v", quorum="w", shown=True), max_age=50)
    sim.cosigners[witness("w")] = NOW
    sim.grow(9)
    assert one.round() == []
    assert one.memory.known(ORIGIN).quorum_time == NOW
    # It cosigned, for another log, what no witness may: nothing is wrong with ours.
    other = "log.example/audit/segments/other"
    notes = [Checkpoint(other, 5, Hash(bytes([number]) * 32)) for number in range(2)]
    one_side, other_side = (Note(str(tree), (cosign(str(tree), time=NOW, signer=witness("w")),)) for tree in notes)
    raw = format_evidence(Fork(one_side, other_side, witness("w").verifier))
    assert one.judge.hear_evidence(raw, source="peer")
    one.convicts(one.findings(), "fork")
    for _ in range(2):
        assert one.memory.known(ORIGIN).quorum_time == 0
        assert [name.name for name in one.judge.policy.witnesses] == ["v"]
        one.restart()
    sim.grow(1)
    assert (one.kinds(), one.size) == ([("complaint", "old", "begun")], 10)
    assert one.memory.known(ORIGIN).quorum_time == 0


def test_a_quorum_reached_without_the_convicted_witness_still_counts(
    sim: Simulator, watch: Callable[..., Watch]
) -> None:
    policy = policy_of(sim, "w", "v", quorum="none")
    policy = replace(policy, groups=(Group("g", 1, ("w", "v")),), quorum="g")
    one = watch(policy)
    sim.cosigners.update({witness("w"): NOW, witness("v"): NOW - 7})
    sim.grow(9)
    one.round()
    sim.fork(3)
    del sim.cosigners[witness("v")]
    assert len(one.convicts(one.round(), "fork", 2)) == 2
    assert one.memory.known(ORIGIN).quorum_time == NOW - 7


def test_a_witness_that_is_out_of_reach_is_a_complaint_and_one_that_knows_nothing_is_none(
    sim: Simulator, watch: Callable[..., Watch]
) -> None:
    one = watch(policy_of(sim, "w", shown=True))
    sim.grow(2)
    assert one.round() == []
    sim.elsewhere[WITNESS_PATH] = b"nothing"
    assert one.kinds() == [("complaint", "witness", "begun")]
    sim.elsewhere[WITNESS_PATH] = sim.note()
    assert one.kinds() == [("complaint", "witness", "ended")]


@pytest.mark.parametrize("shown", [False, True])
def test_a_cosignature_of_the_future_counts_for_nothing_and_is_complained_of(
    sim: Simulator, watch: Callable[..., Watch], shown: bool
) -> None:
    one = watch(policy_of(sim, "w", quorum="w", shown=shown))
    sim.cosigners[witness("w")] = NOW
    sim.grow(3)
    assert one.round() == []
    # Its clock is two days ahead for a while.
    note = _cosigned(sim.sign(Checkpoint(ORIGIN, 3, range_hash(0, 3, sim.node))), "v", NOW)
    sim.cosigners[witness("w")] = NOW + 172_800
    if shown:
        sim.elsewhere[WITNESS_PATH] = sim.note()
        sim.lies["checkpoint"] = lambda answer: replace(answer, body=note)
    [found] = one.round()
    assert (found["kind"], found["witness"], found["state"]) == ("witness", "w", "begun")
    assert "still to come" in found["detail"]
    sim.lies.clear()
    sim.cosigners[witness("w")] = NOW
    sim.elsewhere.clear()
    sim.take(entry(START + 5))
    assert one.kinds() == [("complaint", "witness", "ended")]
    # Nor when the time has come: it was not kept.
    one.now = NOW + 180_000
    sim.cosigners[witness("w")] = NOW + 180_000
    sim.take(entry(one.now * 1000))
    assert (one.round(), one.size, one.memory.is_convicted(ORIGIN)) == ([], 5, False)


def test_what_is_not_looked_at_yet_is_not_late(
    sim: Simulator, watch: Callable[..., Watch], monkeypatch: pytest.MonkeyPatch
) -> None:
    one = watch(policy_of(sim, "w", quorum="w"), max_age=50)
    sim.cosigners[witness("w")] = NOW
    sim.grow(3)
    assert one.round() == []
    # The monitor was away for a while, and the log was not.
    monkeypatch.setattr(following, "TURN", 0.0)
    one.now = NOW + 7_200
    sim.cosigners[witness("w")] = NOW + 7_200
    sim.grow(1_000)
    assert [one.kinds() for _ in range(5)] == [[]] * 5
    assert one.size == 1_003
    # But who is slow for too long is late.
    one.settings = Settings(max_age=50, patience=0)
    one.restart()
    one.now = NOW + 9_000
    sim.grow(1_000)
    assert one.kinds() == [("complaint", "old", "begun")]


def test_what_a_convicted_witness_says_of_the_time_convicts_nobody(sim: Simulator, watch: Callable[..., Watch]) -> None:
    policy = policy_of(sim, "w", quorum="w")
    one, other = watch(policy), watch(policy)
    sim.cosigners[witness("w")] = NOW + 90_000
    one.now = other.now = NOW + 90_000
    sim.grow(3)
    one.round()
    sim.take(entry(START + 5))
    one.convicts(one.round(), "backdating")
    [backdating] = one.judge.evidence()
    trees = [Checkpoint("log.example/2", 5, Hash(bytes([root]) * 32)) for root in range(2)]
    left, right = [Note(str(tree), (cosign(str(tree), time=NOW, signer=witness("w")),)) for tree in trees]
    assert other.judge.hear_evidence(format_evidence(Fork(left, right, witness("w").verifier)), source="peer")
    with pytest.raises(EvidenceError):
        other.judge.hear_evidence(backdating, source="peer")
    assert not other.memory.is_convicted(ORIGIN)


def test_a_witness_that_did_not_answer_rests(sim: Simulator, watch: Callable[..., Watch]) -> None:
    one = watch(policy_of(sim, "w", shown=True))
    one.rest = 60.0
    one.restart()
    sim.grow(2)
    sim.elsewhere[WITNESS_PATH] = sim.note()
    sim.lies[""] = lambda answer: replace(answer, body=b"", headers={"Content-Length": "9"})
    for kinds in ([("complaint", "witness", "begun")], []):
        sim.requests.clear()
        assert (one.kinds(), sum(WITNESS_PATH in route for route in sim.routes())) == (kinds, bool(kinds))


# What others tell


def test_a_head_that_is_heard_is_known_agrees_is_unresolved_or_convicts(
    sim: Simulator, watch: Callable[..., Watch]
) -> None:
    one = watch()
    sim.grow(9)
    hear = one.judge.hear_head
    assert hear(sim.note(5), source="peer") is Heard.UNRESOLVED
    assert hear(sim.note(5), source="peer") is Heard.KNOWN
    one.round()
    assert hear(sim.note(), source="peer") is Heard.KNOWN
    assert [hear(sim.note(size), source="peer") for size in range(9)] == [Heard.AGREES] * 9
    sim.grow(1)
    assert hear(sim.note(), source="peer") is Heard.UNRESOLVED
    sim.shrink(9)
    sim.fork(0)
    assert hear(sim.note(9), source="peer") is Heard.CONVICTS
    [found] = one.findings()
    assert (found["kind"], found["source"]) == ("fork", "peer")


def test_two_unresolved_heads_of_one_size_convict_at_once(sim: Simulator, watch: Callable[..., Watch]) -> None:
    one = watch()
    sim.grow(4)
    assert one.judge.hear_head(sim.note(), source="peer") is Heard.UNRESOLVED
    sim.fork(0)
    assert one.judge.hear_head(sim.note(), source="other") is Heard.CONVICTS
    one.convicts(one.findings(), "fork")


def test_what_is_not_signed_by_a_key_of_the_policy_is_refused_and_never_kept(
    sim: Simulator, watch: Callable[..., Watch]
) -> None:
    one = watch(policy_of(sim, "w"))
    sim.grow(4)
    key = witness("w").verifier
    elsewhere = signer_from_seed("log.example/other", bytes([5]) * 32)
    foreign = bytes(sign_checkpoint(Checkpoint(elsewhere.name, 0, EMPTY_ROOT), elsewhere))
    forged = f"{sim.note().decode()}{Signature(key.name, key.id, bytes(72))}".encode()
    for note in (_other_key(sim), foreign, forged):
        with pytest.raises(SignatureError):
            one.judge.hear_head(note, source="peer")
    with pytest.raises(MalformedError):
        one.judge.hear_head(b"no note", source="peer")
    assert one.judge.heads(9) == []
    stranger = Signature("stranger", key.id, bytes(72))
    one.judge.hear_head(f"{sim.note().decode()}{stranger}".encode(), source="peer")
    assert one.judge.heads(9) == [sim.note()]
    # Known by its text, it is still not believed what is added to it.
    with pytest.raises(SignatureError):
        one.judge.hear_head(forged, source="peer")


def test_later_cosignatures_of_a_known_head_are_kept_and_earlier_ones_change_nothing(
    sim: Simulator, watch: Callable[..., Watch]
) -> None:
    one = watch(policy_of(sim, "w", "v", quorum="w"))
    sim.grow(4)
    for note in (_cosigned(sim.note(), "w", NOW + 5), _cosigned(sim.note(), "v", NOW), _cosigned(sim.note(), "w", 7)):
        one.judge.hear_head(note, source="peer")
    [kept] = one.judge.heads(9)
    assert open_head(parse_note(kept), one.policy, now=NOW).time == NOW + 5
    assert len(parse_note(kept).signatures) == 3
    one.round()
    assert one.judge.heads(9) == [kept]
    one.judge.hear_head(_cosigned(sim.note(), "w", NOW + 6), source="peer")
    assert one.memory.known(ORIGIN).quorum_time == NOW + 6


def test_a_source_fills_its_share_of_unresolved_heads_and_nobody_drives_one_out(
    sim: Simulator, watch: Callable[..., Watch]
) -> None:
    one = watch()
    notes = [sim.sign(Checkpoint(ORIGIN, 1000 + place, Hash(bytes([place]) * 32))) for place in range(200)]
    for note in notes[:MAX_SHARE]:
        one.judge.hear_head(note, source="flood")
    with pytest.raises(BudgetError):
        one.judge.hear_head(notes[MAX_SHARE], source="flood")
    assert [found["kind"] for found in one.findings()] == ["flood"]
    for place in range(MAX_SHARE, MAX_UNRESOLVED):
        one.judge.hear_head(notes[place], source=f"peer {place}")
    with pytest.raises(BudgetError):
        one.judge.hear_head(notes[MAX_UNRESOLVED], source="honest")
    assert (one.judge.heads(999), one.findings()) == (notes[:MAX_UNRESOLVED], [])
    assert one.judge.heads(5) == notes[:5]


def test_unresolved_heads_go_once_a_proof_ties_them_to_the_newest(sim: Simulator, watch: Callable[..., Watch]) -> None:
    one = watch()
    sim.grow(40)
    for size in range(1, 31):
        one.judge.hear_head(sim.note(size), source="peer")
    sim.grow(1)
    tile, entries = sim._tile, "tile/entries"
    # Tiles are shown, entries are not: the heads are tied to the new one, which is kept in their place.
    sim._tile = lambda place: tile(place) if not str(place).startswith(entries) else Answer(404, b"")  # type: ignore[method-assign]
    assert one.kinds() == [("complaint", "withheld", "begun")]
    assert one.judge.heads(99) == [sim.note()]
    sim._tile = tile  # type: ignore[method-assign]
    one.round()
    assert (one.judge.heads(99), one.size) == ([sim.note()], 41)


def test_evidence_that_is_heard_counts_once_and_only_if_our_policy_proves_it(
    sim: Simulator, watch: Callable[..., Watch]
) -> None:
    first, second = watch(), watch()
    sim.grow(9)
    first.round()
    sim.fork(3)
    first.round()
    [raw] = first.judge.evidence()
    assert second.judge.hear_evidence(raw, source="peer")
    assert not second.judge.hear_evidence(raw, source="peer")
    second.convicts(second.findings(), "fork")
    assert second.memory.is_convicted(ORIGIN)
    honest = parse_note(sim.sign(Checkpoint(ORIGIN, 0, EMPTY_ROOT)))
    third = watch()
    with pytest.raises(EvidenceError):
        third.judge.hear_evidence(format_evidence(EmptyRoot(honest)), source="peer")
    with pytest.raises(MalformedError):
        third.judge.hear_evidence(raw[:-1], source="peer")
    assert third.judge.evidence() == []


def test_a_convicted_log_cannot_fill_the_disk_with_evidence(sim: Simulator, watch: Callable[..., Watch]) -> None:
    one = watch()
    for number in range(1, MAX_FILES + 9):
        note = parse_note(sim.sign(Checkpoint(ORIGIN, 0, Hash(bytes([number]) * 32))))
        assert one.judge.hear_evidence(format_evidence(EmptyRoot(note)), source="peer") is (number <= MAX_FILES)
    assert len(list((one.path / "evidence").iterdir())) == MAX_FILES


def test_a_convicted_witness_cannot_fill_the_memory_with_logs_that_nobody_follows(
    sim: Simulator, watch: Callable[..., Watch]
) -> None:
    one = watch(policy_of(sim, "w"))
    for number in range(MAX_FILES + 9):
        trees = [Checkpoint(f"log.example/{number}", 5, Hash(bytes([root]) * 32)) for root in range(2)]
        left, right = [Note(str(tree), (cosign(str(tree), time=NOW, signer=witness("w")),)) for tree in trees]
        raw = format_evidence(Fork(left, right, witness("w").verifier))
        assert one.judge.hear_evidence(raw, source="peer") is (number < MAX_FILES)
    with closing(sqlite3.connect(one.memory.path)) as database:
        assert database.execute("select count(*) from log").fetchone() == (1 + MAX_FILES,)


def test_a_head_with_more_cosignatures_than_a_message_takes_is_told_with_fewer(
    sim: Simulator, watch: Callable[..., Watch]
) -> None:
    policy = policy_of(sim, "ml1", "ml2", "ml3")
    one, other = watch(policy), watch(replace(policy, quorum="ml2"))
    for number in (1, 2, 3):
        sim.cosigners[witness(f"ml{number}")] = NOW
    sim.grow(3)
    for watching, names in ((one, []), (other, ["ml2.example"])):
        watching.round()
        assert len(watching.memory.known(ORIGIN).note) > MAX_HEAD_BYTES
        [told] = watching.judge.heads(9)
        assert len(told) <= MAX_HEAD_BYTES
        assert [line.name for line in parse_note(told).signatures] == [ORIGIN, *names]
        assert other.judge.hear_head(told, source="peer") is (Heard.KNOWN if names else Heard.UNRESOLVED)


def test_a_larger_head_by_a_key_that_the_policy_gave_up_is_forgotten(
    sim: Simulator, watch: Callable[..., Watch]
) -> None:
    second = signer_from_seed(ORIGIN, b"2" * 32)
    policy = policy_of(sim)
    one = watch(replace(policy, logs=(*policy.logs, TrustedLog(second.verifier))))
    sim.grow(9)
    one.round()
    one.judge.hear_head(bytes(sign_checkpoint(Checkpoint(ORIGIN, 99, Hash(b"9" * 32)), second)), source="peer")
    one.policy = policy
    one.restart()
    assert one.memory.unresolved(one.memory.known(ORIGIN)) == []
    sim.grow(1)
    assert (one.round(), one.size) == ([], 10)


def test_a_receipt_of_another_entry_is_evidence(sim: Simulator, watch: Callable[..., Watch]) -> None:
    one = watch()
    sim.grow(9)
    receipt = bytes(sim.receipt(3))
    sim.fork(3)
    sim.grow(2)
    one.round()
    assert one.judge.hear_receipt(receipt, source="receipt") is Heard.CONVICTS
    findings = one.findings()
    assert [(found["kind"], found["index"]) for found in findings] == [("entry", 3), ("prefix", None)]
    one.convicts(findings[:1], "entry")


def test_a_good_receipt_agrees_and_one_from_ahead_is_unresolved(sim: Simulator, watch: Callable[..., Watch]) -> None:
    one = watch()
    sim.grow(9)
    assert one.judge.hear_receipt(bytes(sim.receipt(3)), source="receipt") is Heard.UNRESOLVED
    one.round()
    assert one.judge.hear_receipt(bytes(sim.receipt(3, 5)), source="receipt") is Heard.AGREES


# The memory


def test_one_monitor_runs_on_a_folder(watch: Callable[..., Watch]) -> None:
    one = watch()
    with pytest.raises(StateError, match="another monitor runs"):
        Memory(one.path)
    one.restart()


@pytest.mark.parametrize(
    "damage",
    [
        "update tile set hashes = zeroblob(length(hashes))",
        "delete from tile",
        "update log set note = cast(replace(cast(note as text), 'payments', 'Payments') as blob)",
        "pragma user_version = 7",
    ],
)
def test_a_damaged_memory_is_not_gone_on_with(sim: Simulator, watch: Callable[..., Watch], damage: str) -> None:
    one = watch()
    sim.grow(9)
    one.round()
    one.memory._write(damage)
    with pytest.raises(StateError):
        one.restart()
    one.memory.close()


def test_a_file_that_is_no_memory_is_refused(tmp_path: Path) -> None:
    (tmp_path / "memory.db").write_bytes(b"something else, which is no database at all" * 99)
    with pytest.raises(StateError):
        Memory(tmp_path)


def test_a_policy_without_the_key_that_signed_is_told_what_to_do(sim: Simulator, watch: Callable[..., Watch]) -> None:
    one = watch()
    sim.grow(9)
    one.round()
    sim.signer = signer_from_seed(ORIGIN, bytes([5]) * 32)
    one.policy = policy_of(sim)
    with pytest.raises(StateError, match="put the log's earlier key into the trust policy"):
        one.restart()
    one.memory.close()


def test_a_long_catching_up_makes_place_for_others_and_comes_again(
    sim: Simulator, watch: Callable[..., Watch], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(following, "TURN", 0.0)
    one = watch()
    sim.grow(1000)
    assert [one.follower.round() for _ in range(5)] == [True, True, True, False, False]
    assert (one.steps, one.size) == ([256, 512, 768, 1000], 1000)
    one.settings = Settings([ALICE])
    one.restart()
    # What a writer did so far is looked at in turns too.
    assert [one.follower.round() for _ in range(5)] == [True, True, True, False, False]
    assert one.memory.writers(one.memory.known(ORIGIN))["alice"][0] == 1000


@dataclass(eq=False)
class Slow:
    """What takes its time, in place of the follower of a log."""

    host: str
    over: threading.Event
    origin: str = ORIGIN
    rounds: int = 0

    def round(self) -> bool:
        self.rounds += 1
        self.over.wait()
        return False


def test_the_logs_of_one_host_hold_up_no_other() -> None:
    over = threading.Event()
    slow, quick = [Slow("slow", over) for _ in range(20)], Slow("quick", threading.Event())
    quick.over.set()
    followers = [cast(Follower, one) for one in (*slow, quick)]
    rounds = Rounds(followers, interval=0.01, random=random.random, failed=lambda *_: None)
    thread = threading.Thread(target=rounds.run)
    thread.start()
    try:
        until(lambda: quick.rounds > 5, "rounds of the other host")
        assert sum(one.rounds for one in slow) == MAX_OF_HOST
        over.set()
        # Each has its turn.
        until(lambda: all(one.rounds > 1 for one in slow), "rounds of the slow host")
    finally:
        over.set()
        rounds.stop()
        thread.join()


def test_a_fault_of_ours_in_one_log_stops_no_other_and_is_not_taken_for_a_good_end(
    sim: Simulator, watch: Callable[..., Watch], monkeypatch: pytest.MonkeyPatch
) -> None:
    broken, sound, said = watch(), watch(), list[str]()
    monkeypatch.setattr(broken.judge, "hear", lambda *_, **__: 1 / 0)
    sim.grow(5)
    rounds = Rounds(
        [broken.follower, sound.follower],
        interval=1.0,
        random=random.random,
        failed=lambda origin, error: said.append(f"{origin}: {error}"),
    )
    with pytest.raises(StateError, match="not every log"):
        rounds.once()
    assert (sound.size, said) == (5, [f"{ORIGIN}: division by zero"])


def test_a_memory_that_fails_stops_all_rounds(watch: Callable[..., Watch]) -> None:
    one = watch()
    one.memory.close()
    rounds = Rounds([one.follower], interval=0.01, random=random.random, failed=lambda *_: None)
    with pytest.raises(StateError, match="memory"):
        rounds.run()


def test_complaints_that_come_and_go_do_not_fill_the_memory(
    sim: Simulator, watch: Callable[..., Watch], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remembering, "MAX_KEPT", 6)
    one, told = watch(), list[str]()
    teller = Teller(one.memory, lambda _, text: told.append(text))
    for _ in range(10):
        for lies in ({"checkpoint": flip(3)}, {}):
            sim.lies = lies
            one.follower.round()
            teller.flush()
    sim.take(entry(5), entry(3))
    one.follower.round()
    teller.flush()
    # All were told. Of complaints the newest are there for a webhook, of all else everything.
    assert [text.partition(" ")[0] for text in told] == ["complaint"] * 20 + ["violation"]
    assert len(one.memory.undelivered(99)) == 7


def test_many_monitors_without_files_are_cheap(sim: Simulator) -> None:
    policy = policy_of(sim)
    judges = [Judge(policy, Memory(IN_MEMORY), clock=lambda: NOW) for _ in range(50)]
    sim.grow(3)
    assert {judge.hear_head(sim.note(), source="peer") for judge in judges} == {Heard.UNRESOLVED}
    for judge in judges:
        judge.memory.close()


def test_lies_of_json_do_not_matter_to_a_monitor(sim: Simulator, watch: Callable[..., Watch]) -> None:
    one = watch()
    sim.grow(5)
    sim.lies["proof"] = alter(lambda value: value.update(proof=[]))
    sim.lies["entries"] = alter(lambda value: value.clear())
    assert (one.round(), one.size) == ([], 5)


def test_a_head_for_which_there_was_no_place_is_kept_once_it_ties_the_others(
    sim: Simulator, watch: Callable[..., Watch]
) -> None:
    one = watch()
    sim.lies["tile"] = lambda answer: replace(answer, status=404)
    for _ in range(MAX_SHARE + 1):
        sim.grow(1)
        one.round()
    assert len(one.judge.heads(99)) == MAX_SHARE
    assert ("flood", "") in one.memory.troubles(one.memory.known(ORIGIN))
    tile = sim._tile
    del sim.lies["tile"]
    sim._tile = lambda place: Answer(404, b"") if "entries" in str(place) else tile(place)  # type: ignore[method-assign]
    assert ("complaint", "flood", "ended") in one.kinds()
    assert one.judge.heads(99) == [sim.note()]


def test_a_smaller_head_beside_what_was_looked_at_proves_nothing_and_spoils_nothing(
    sim: Simulator, watch: Callable[..., Watch], monkeypatch: pytest.MonkeyPatch
) -> None:
    one = interrupted(sim, watch, monkeypatch)
    one.stop_after = 1 << 30
    honest = list(sim.logged)
    sim.shrink(600)
    sim.fork(300)
    assert one.kinds() == [("complaint", "unproven", "begun")]
    sim.logged[:] = honest
    sim._rebuild()
    # The head of another history waited, and convicts now.
    one.convicts(one.round(), "prefix")


def test_a_smaller_head_of_what_was_looked_at_is_verified_at_once(
    sim: Simulator, watch: Callable[..., Watch], monkeypatch: pytest.MonkeyPatch
) -> None:
    one = interrupted(sim, watch, monkeypatch)
    sim.lies["checkpoint"] = lambda answer: replace(answer, body=sim.note(500))
    one.stop_after = 1 << 30
    assert (one.round(), one.size, one.memory.known(ORIGIN).looked) == ([], 500, 512)
    sim.lies.clear()
    assert (one.round(), one.size) == ([], 1000)


def test_entries_that_were_there_when_a_head_was_cosigned_late_are_not_backdated(
    sim: Simulator, watch: Callable[..., Watch]
) -> None:
    one = watch(policy_of(sim, "w", quorum="w", shown=True))
    late = NOW + 90_000
    one.now = late
    sim.grow(9)
    sim.elsewhere[WITNESS_PATH] = _cosigned(sim.note(), "w", late)
    sim.lies["checkpoint"] = lambda answer: replace(answer, body=sim.note(5))
    assert (one.kinds(), one.size) == ([("complaint", "old", "begun")], 5)
    sim.lies.clear()
    sim.take(entry(late * 1000))
    assert (one.kinds(), one.size) == ([("complaint", "old", "ended")], 10)
    assert one.memory.known(ORIGIN).quorum_time == late


def test_the_latest_quorum_time_is_not_forgotten_for_an_earlier_one(
    sim: Simulator, watch: Callable[..., Watch]
) -> None:
    one = watch(policy_of(sim, "w", quorum="w"))
    for time in (NOW + 200, NOW):
        sim.cosigners[witness("w")] = time
        sim.grow(1)
        one.round()
    assert (one.size, one.memory.known(ORIGIN).quorum_time) == (2, NOW + 200)
