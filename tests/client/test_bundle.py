"""Bundles under a quorum of witnesses, and from a log that lies."""

import json
import os
import subprocess
from dataclasses import replace
from importlib.resources import files
from pathlib import Path

import pytest
from bundling import LOG, NOTHING, bundle_of, part_of
from nodejs import NODE, needs_node
from simulator import Simulator, alter

from tlog_client import Log
from tlog_client.answers import OpenedEntry
from tlog_client.bundle.archive import MAX_BUNDLE_BYTES, format_archive, member, parse_archive
from tlog_client.bundle.export import Exporter, about_segment, export
from tlog_client.bundle.manifest import Manifest, comment_of, listed, parse_manifest
from tlog_client.bundle.part import make_part, verify_range
from tlog_client.bundle.report import report
from tlog_client.bundle.source import LogSource
from tlog_client.bundle.verify import trust_of, verify_bundle
from tlog_client.cloudtrail import parse_records
from tlog_client.errors import RefusedError
from tlog_core.checkpoint import Checkpoint
from tlog_core.commitment import Opening, commit
from tlog_core.cosignature import cosign
from tlog_core.encoding import canonicalize
from tlog_core.entry import Entry
from tlog_core.errors import MalformedError, ProofError, QuorumError
from tlog_core.merkle import Frontier, leaf_hash, range_hash
from tlog_core.note import COSIGNATURE, Note, SignerKey, sign_note, signer_from_seed
from tlog_core.policy import Group, TrustedLog, TrustedWitness, TrustPolicy
from tlog_core.receipt import JSON_TYPE

WITNESSES = [signer_from_seed(name, name.encode() * 6 + b"xx", key_type=COSIGNATURE) for name in ("north", "south")]
CLAUSES = str(files("tlog_client") / "browser" / "clauses.json")
RUNNER = Path(__file__).parent.parent / "web" / "bundle.mjs"
PAGE = b"<!doctype html>"
REAL = os.environ.get("TLOG_EVENTS")


def policy(sim: Simulator, threshold: int, *witnesses: SignerKey) -> TrustPolicy:
    members = tuple(one.name for one in witnesses)
    trusted = tuple(TrustedWitness(one.name, one.verifier) for one in witnesses)
    return TrustPolicy((TrustedLog(sim.key),), trusted, (Group("enough", threshold, members),), "enough")


def export_all(log: Log, trust: TrustPolicy, size: int) -> bytes:
    return export(range(size), LogSource(log), {}, Exporter("ann", 0, "test", trust, PAGE))


def test_a_bundle_is_exported_under_the_head_that_a_quorum_cosigned(log: Log, sim: Simulator) -> None:
    sim.grow(5)
    sim.cosigned, sim.quorum = 4, WITNESSES
    bundle = verify_bundle(export_all(log, policy(sim, 2, *WITNESSES), 4), policy(sim, 1, *WITNESSES))
    assert bundle.parts[0].head.checkpoint.size == 4
    assert "Independent witnesses cosigned the head: enough, by " in str(report(bundle))


def test_who_asks_for_more_witnesses_than_cosigned_refuses_a_bundle(log: Log, sim: Simulator) -> None:
    sim.grow(5)
    sim.cosigned, sim.quorum = 5, WITNESSES[:1]
    raw = export_all(log, policy(sim, 1, *WITNESSES), 5)
    with pytest.raises(QuorumError) as error:
        verify_bundle(raw, policy(sim, 2, *WITNESSES))
    assert error.value.__notes__ == ["segment/checkpoint"]
    with pytest.raises(QuorumError):
        export_all(log, policy(sim, 2, *WITNESSES), 5)


def test_an_export_ends_before_more_than_is_to_be_in_memory_is_read(log: Log, sim: Simulator) -> None:
    sim.grow(5)
    trust = TrustPolicy((TrustedLog(sim.key),), (), (), None)
    exporter = Exporter("ann", 0, "test", trust, PAGE, most=len(b'{"n":0}') * 5)
    export(range(5), LogSource(log), {}, exporter)
    with pytest.raises(MalformedError, match="more than 34 bytes; export fewer"):
        export(range(5), LogSource(log), {}, replace(exporter, most=exporter.most - 1))


def test_nothing_is_exported_under_a_quorum_that_never_cosigned(log: Log, sim: Simulator) -> None:
    sim.grow(5)
    with pytest.raises(RefusedError):
        export_all(log, policy(sim, 1, *WITNESSES), 5)


@needs_node
def test_the_page_says_of_a_quorum_what_the_command_says(log: Log, sim: Simulator, tmp_path: Path) -> None:
    sim.grow(5)
    sim.cosigned, sim.quorum = 5, WITNESSES
    trust = policy(sim, 2, *WITNESSES)
    raw = export_all(log, trust, 5)
    assert said_by_the_page(tmp_path, raw, trust) == str(report(verify_bundle(raw, trust)))


def test_a_log_that_lies_gets_nothing_into_a_bundle(log: Log, sim: Simulator) -> None:
    sim.grow(5)
    trust = TrustPolicy((TrustedLog(sim.key),), (), (), None)
    sim.lies["entries"] = alter(lambda answer: answer["entries"][2].update(payload={"n": 7}))
    with pytest.raises(ProofError):
        export_all(log, trust, 5)


def test_entries_whose_times_fall_are_refused(log: Log, sim: Simulator) -> None:
    sim.grow(3)
    sim.fork(1, time=0)
    trust = TrustPolicy((TrustedLog(sim.key),), (), (), None)
    with pytest.raises(ProofError, match="older than the entry before it") as error:
        export_all(log, trust, 3)
    assert error.value.__notes__ == ["segment/entries.ndjson, line 2, entry 1"]


@needs_node
@pytest.mark.skipif(REAL is None, reason="TLOG_EVENTS names no folder of real CloudTrail and Kubernetes events")
def test_real_events_verify_in_both_languages(tmp_path: Path) -> None:
    folder = Path(REAL or "")
    records = [one for path in sorted(folder.glob("cloudtrail/*.json")) for one in parse_records(path.read_bytes())]
    payloads = [canonicalize(one) for one in records]
    payloads += [canonicalize(line) for line in (folder / "kubernetes" / "audit.jsonl").read_bytes().splitlines()]
    assert len(payloads) > 2_900
    raw = bundle_of(part_of([("application/json", one) for one in payloads]), len(payloads))
    told = said_by_the_page(tmp_path, raw, trust_of(LOG.verifier))
    assert told == str(report(verify_bundle(raw, trust_of(LOG.verifier))))


def said_by_the_page(folder: Path, raw: bytes, trust: TrustPolicy) -> object:
    """Return the text of the page's report, or where and why it refuses."""
    (folder / "b.zip").write_bytes(raw)
    (folder / "trust").write_bytes(bytes(trust))
    command = [str(NODE), str(RUNNER), str(folder / "b.zip"), str(folder / "trust"), CLAUSES]
    run = subprocess.run(command, input="[]\n", capture_output=True, text=True, check=True, timeout=60)
    return json.loads(run.stdout)


def hand_made(payloads: list[bytes], events: bytes, *, cosigned: int) -> tuple[bytes, TrustPolicy]:
    """Return a bundle, with these lines of events, of a log that commits to anything, and who is to believe it."""
    log, [north, _] = signer_from_seed("log.example/segments/a", bytes(32)), WITNESSES
    opening = Opening(bytes(32))
    opened = [
        OpenedEntry(
            index,
            Entry(commit(opening=opening, payload_type=JSON_TYPE, payload=payload), log.name, 0, "ann"),
            JSON_TYPE,
            opening,
            payload,
        )
        for index, payload in enumerate(payloads)
    ]
    node = Frontier().grow([leaf_hash(bytes(one.entry)) for one in opened]).node
    note = sign_note(str(Checkpoint(log.name, len(opened), range_hash(0, len(opened), node))), log)
    head = Note(note.text, (*note.signatures, cosign(note.text, time=cosigned, signer=north)))
    trust = TrustPolicy((TrustedLog(log.verifier),), (TrustedWitness("north", north.verifier),), (), "north")
    part = replace(make_part("segment", bytes(head), [], opened), events=events)
    rest = [member("trust.policy", bytes(trust)), *part.members(), member("verify.html", PAGE)]
    manifest = bytes(Manifest(range(len(opened)), 0, "ann", listed(rest), log.name, NOTHING, "test"))
    return format_archive([member("manifest.json", manifest), *rest], comment_of(manifest)), trust


@needs_node
def test_a_line_that_is_missing_is_no_payload_without_bytes(tmp_path: Path) -> None:
    payloads = [b"1", b""]
    raw, trust = hand_made(payloads, b"1\n\n", cosigned=1)
    assert said_by_the_page(tmp_path, raw, trust) == str(report(verify_bundle(raw, trust)))
    raw, trust = hand_made(payloads, b"1\n", cosigned=1)
    with pytest.raises(MalformedError) as error:
        verify_bundle(raw, trust)
    place, message = error.value.__notes__[0], str(error.value)
    assert said_by_the_page(tmp_path, raw, trust) == {"place": place, "message": message}


@needs_node
def test_a_time_beyond_every_calendar_is_told_alike(tmp_path: Path) -> None:
    raw, trust = hand_made([b"1"], b"1\n", cosigned=2**63 - 1)
    told = str(report(verify_bundle(raw, trust)))
    assert f"north {(2**63 - 1) * 1000} ms" in told
    assert said_by_the_page(tmp_path, raw, trust) == told


@needs_node
@pytest.mark.parametrize("before", ["", "x" * 0xFFFF], ids=["members", "bytes after the end"])
def test_a_zip_with_more_than_the_end_of_one_can_count_is_refused(tmp_path: Path, before: str) -> None:
    whole = format_archive([member("a", b"")], before)
    raw = whole + b"x" if before else whole[:31] * 70_000
    with pytest.raises(MalformedError) as error:
        parse_archive(raw)
    refusal = {"place": error.value.__notes__[0], "message": str(error.value)}
    assert said_by_the_page(tmp_path, raw, TrustPolicy((), (), (), None)) == refusal


MANIFEST = Manifest(
    range(3), 1, "ann", (), "log.example/segments/a", {"control": range(5, 5), "access": None}, "tlog-client 0"
)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b'"start":0', b'"start":3'),
        (b'"start":0', b'"start":-1'),
        (b'"start":0', b'"first":0'),
        (b'{"end":3,"start":0}', b'{"search":{}}'),
        (b'{"end":3,"start":0}', b'{"search":{"limit":3}}'),
        (b'{"end":3,"start":0}', b'{"search":{"q":true}}'),
        (b'"by":"ann"', b'"by":""'),
        (b'"by":"ann"', b'"by":"%b"' % (256 * b"x")),
        (b'"files":[]', b'"files":{}'),
        (b'"files":[]', b'"files":[1]'),
        (b'"access":null', b'"access":{}'),
        (b'"access":null', b'"access":0'),
        (b'"access":null,', b""),
        (b'"access":null', b'"access":null,"payments":null'),
        (b'{"access":null,"control":{"end":5,"start":5}}', b"null"),
        (b'"start":5', b'"start":6'),
        (b'"start":5', b'"start":-1'),
        (b'"start":5', b'"start":5,"step":1'),
        (b"log.example/segments/a", b"log.example/segments/control"),
        (b'"v":1', b'"v":2'),
        (b'"v":1', b'"v":1,"w":1'),
        (b'{"asked"', b' {"asked"'),
    ],
)
def test_a_manifest_has_one_form(old: bytes, new: bytes) -> None:
    raw = bytes(MANIFEST)
    assert parse_manifest(raw) == MANIFEST
    assert old in raw
    with pytest.raises(MalformedError):
        parse_manifest(raw.replace(old, new))


def test_the_whole_of_a_zip_is_read_back_and_nothing_else() -> None:
    members = [member("a", b""), member("b/c.d", bytes(1000))]
    raw = format_archive(members, "what it is")
    assert parse_archive(raw) == (members, "what it is")
    for name in ("../a", "a/b/c", "A", "a b", "", "/a", "a.b.c", "ä"):
        with pytest.raises(MalformedError):
            parse_archive(format_archive([member(name, b"x")], ""))
    # A member that itself looks like the next one.
    inner = format_archive([member("x", b"y")], "")
    assert parse_archive(format_archive([member("a", inner)], ""))[0] == [member("a", inner)]


def test_a_bundle_that_is_too_large_is_not_begun() -> None:
    with pytest.raises(MalformedError, match="export fewer"):
        format_archive([member("a", bytes(MAX_BUNDLE_BYTES))], "")
    with pytest.raises(MalformedError, match="1 to 1000000 entries"):
        make_part("segment", b"", [], [])


@pytest.mark.parametrize(("indexes", "missing"), [((0, 2), 1), ((0, 1), 2), ((1, 2, 3), 0), ((0, 1, 2, 3), 3)])
def test_a_range_has_all_its_entries_and_no_other(indexes: tuple[int, ...], missing: int) -> None:
    with pytest.raises(ProofError, match=f"entry {missing} is not where it is due"):
        verify_range(indexes, range(3))
    verify_range((0, 1, 2), range(3))


def test_what_is_about_a_segment_is_told_from_what_is_not() -> None:
    asked: set[str] = set()

    def is_about(**event: object) -> bool:
        return about_segment(event, "payments", asked)

    assert is_about(event="segment.created", name="payments")
    assert is_about(event="segment.succeeded", segment="old", successor="payments")
    assert not is_about(event="segment.created", name="payment")
    assert is_about(event="policy.applied", version=3)
    assert not is_about(event="token.issued", id="1", principal="payments")
    assert not is_about(event="access.approved", id="7")
    assert is_about(event="access.requested", id="7", segment="payments")
    assert is_about(event="access.approved", id="7")
    assert is_about(event="payload.read", reads=[{"segment": "other"}, {"segment": "payments"}])
    assert not is_about(event="payload.read", reads=[{"segment": "other"}, "payments"])
    assert not about_segment("payments", "payments", asked)
