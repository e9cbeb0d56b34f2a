"""Evidence bundles: what is exported is proven to who has the file alone, and any other is refused, at its place."""

import io
import json
import re
import subprocess
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from hashlib import sha256
from importlib.resources import files
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest
import requests
from live import Answer, Server, start, tell, until
from nodejs import NODE, needs_node
from panels import hearing, honestly, make_data, panel, trusting
from witnessing import witness_signer

from tlog_client import Log
from tlog_client.bundle.archive import format_archive, member, parse_archive
from tlog_client.bundle.export import Exporter, export
from tlog_client.bundle.manifest import NAME, comment_of, listed, parse_manifest
from tlog_client.bundle.report import report
from tlog_client.bundle.source import LogSource
from tlog_client.bundle.verify import VerifiedBundle, trust_of, verify_bundle
from tlog_client.cli import run
from tlog_core.errors import FetchError, MalformedError, ProofError, SignatureError, TlogError
from tlog_core.note import VerifierKey, signer_from_seed
from tlog_core.policy import TrustedLog, TrustPolicy

POLICY = """
[[rule]]
name = "tills write"
roles = ["writer"]
principals = ["till"]
segments = ["payments", "other"]

[[rule]]
name = "ann audits"
roles = ["auditor"]
principals = ["ann"]
segments = ["payments", "other", "control", "access"]

[[rule]]
name = "bob audits payments"
roles = ["auditor"]
principals = ["bob"]
segments = ["payments"]
"""
EVENTS = [
    *(
        {"actor": who, "action": "refund", "target": f"orders/{number}"}
        for number, who in enumerate(["ann", "bob"] * 3)
    ),
    {"note": "Grüße\n\u2028", "nested": [{"a": None}]},
]
PAGE = b"<!doctype html>"
CLAUSES = str(files("tlog_client") / "browser" / "clauses.json")
RUNNER = Path(__file__).parent.parent / "web" / "bundle.mjs"


@dataclass
class House:
    """A guarded server with events in two segments, keys and tokens."""

    server: Server
    keys: dict[str, VerifierKey]
    tokens: dict[str, str]
    folder: Path

    def log(self, name: str, who: str = "ann") -> Log:
        return Log(self.url(name), self.keys[name], state=self.folder / who, token=self.tokens[who])

    def url(self, name: str) -> str:
        return f"{self.server.url}/segments/{name}"

    def trust(self, *names: str) -> TrustPolicy:
        return TrustPolicy(tuple(TrustedLog(self.keys[name]) for name in names), (), (), None)

    def export(self, asked: Any, *names: str, who: str = "ann", **other: Any) -> bytes:
        trust = self.trust("payments", *names)
        exporter = replace(Exporter("Ann, internal audit", 1_764_000_000_000, "tlog-client 1", trust, PAGE), **other)
        reserved = {name: LogSource(self.log(name, who)) for name in names}
        return export(asked, LogSource(self.log("payments", who)), reserved, exporter)


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    folder = tmp_path_factory.mktemp("bundles")
    data = folder / "data"
    keys = make_data(data, "payments", "other")
    (folder / "policy.toml").write_text(POLICY)
    tell("policy", "apply", folder / "policy.toml", "--data", data)
    tokens = {name: tell("token", "issue", name, "--data", data) for name in ("till", "ann", "bob")}
    server = start(data, workers=1, guarded=True)
    made = House(server, keys, tokens, folder)
    lines = [json.dumps(event) for event in EVENTS]
    for name in ("payments", "other"):
        made.log(name, "till").append_many([json.loads(line) for line in lines])
    made.log("payments", "till").append_payload(b"\x00\xff\n", 'text/plain; charset="utf-8"')
    list(made.log("other", "ann").entries())
    until(lambda: made.log("payments").search(action="refund").indexed == 8, "the events to be indexed")
    yield made
    server.stop()


@pytest.fixture(scope="module")
def small(house: House) -> bytes:
    return house.export(range(1, 4), "control")


def verified(house: House, raw: bytes) -> VerifiedBundle:
    return verify_bundle(raw, house.trust("payments", "control", "access"))


def contents(raw: bytes) -> dict[str, bytes]:
    """Read a bundle as any program for zips does."""
    with zipfile.ZipFile(io.BytesIO(raw)) as archive:
        assert archive.testzip() is None
        return {name: archive.read(name) for name in archive.namelist()}


def rebuilt(raw: bytes, **changed: bytes) -> bytes:
    """Return a bundle as somebody makes one who knows how, with other members: its hashes are right."""
    members, _ = parse_archive(raw)
    found = [member(one.name, changed.get(one.name, one.content)) for one in members[1:]]
    manifest = bytes(replace(parse_manifest(members[0].content), files=listed(found)))
    return format_archive([member(NAME, manifest), *found], comment_of(manifest))


def saying(raw: bytes, **said: Any) -> bytes:
    """Return a bundle whose manifest says something else."""
    members, _ = parse_archive(raw)
    manifest = bytes(replace(parse_manifest(members[0].content), **said))
    return format_archive([member(NAME, manifest), *members[1:]], comment_of(manifest))


def place_of(error: pytest.ExceptionInfo[TlogError]) -> str:
    return str(getattr(error.value, "__notes__", ["nowhere"])[0])


def test_a_range_is_proven_with_every_payload(house: House) -> None:
    raw = house.export(range(8))
    assert verified(house, raw).parts[0].indexes == tuple(range(8))
    found = contents(raw)
    lines = found["segment/events.ndjson"].splitlines()
    assert [json.loads(line) for line in lines] == [*EVENTS, "AP8K"]
    assert found["segment/proof"] == b""


def test_what_a_search_found_is_proven_under_one_head(house: House) -> None:
    raw = house.export({"actor": "bob"})
    bundle = verified(house, raw)
    assert bundle.parts[0].indexes == (1, 3, 5)
    assert bundle.manifest.asked == {"actor": "bob", "before": 8}
    assert "3 entries, found by actor=bob, before=8" in str(report(bundle))
    assert "word of the log" in str(report(bundle))


def test_what_control_and_access_say_of_the_segment_goes_along_and_nothing_else(house: House) -> None:
    found = contents(house.export(range(2), "control", "access"))
    control = [json.loads(line) for line in found["control/events.ndjson"].splitlines()]
    assert [(one["event"], one.get("name")) for one in control] == [
        ("segment.created", "payments"),
        ("policy.applied", None),
    ]
    assert control[-1]["document"] == POLICY
    reads = [one for line in found["access/events.ndjson"].splitlines() for one in json.loads(line)["reads"]]
    assert {one["segment"] for one in reads} == {"payments"}
    # This export is on record in what it exports.
    assert (reads[-1]["by"], reads[-1]["start"], reads[-1]["end"]) == ("ann", 0, 2)


def test_what_the_exporter_may_not_read_is_left_out_and_the_bundle_says_so(house: House) -> None:
    bundle = verified(house, house.export(range(2), "control", "access", who="bob"))
    assert [part.name for part in bundle.parts] == ["segment"]
    assert bundle.manifest.reserved == {"control": None, "access": None}
    assert "Of control:     not looked through\n" in str(report(bundle))
    assert "something was left out" in str(report(bundle))


def test_all_of_control_and_access_is_looked_through_and_the_bundle_says_so(house: House) -> None:
    bundle = verified(house, house.export(range(2), "control", "access"))
    for part in bundle.parts[1:]:
        assert bundle.manifest.reserved[part.name] == range(part.head.checkpoint.size)
    assert "left out" not in str(report(bundle))


def test_what_is_too_old_to_be_looked_through_is_left_out_and_the_bundle_says_so(house: House) -> None:
    bundle = verified(house, house.export(range(2), "control", "access", reach=2))
    # The last on record are that this export read the segment, and control; the last in control are tokens.
    assert [(part.name, len(part.indexes)) for part in bundle.parts] == [("segment", 2), ("access", 1)]
    end = bundle.parts[1].head.checkpoint.size
    assert bundle.manifest.reserved["access"] == range(end - 2, end)
    told = f"1 of the entries {end - 2} to {end - 1}; those before {end - 2} were not looked through"
    assert f"Of access:      {told}\n" in str(report(bundle))
    assert f"Reads of this segment are in the log: {told}; the last of " in str(report(bundle))
    assert "Of control:     0 of the entries " in str(report(bundle))
    assert "something was left out" in str(report(bundle))


def test_what_there_is_no_room_for_is_left_out_from_the_oldest_on(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = verified(house, house.export(range(2), "control")).parts[1]
    [_, last] = contents(house.export(range(2), "control"))["control/events.ndjson"].splitlines()
    for room, first in ((len(last), whole.indexes[0] + 1), (len(last) - 1, whole.indexes[1] + 1)):
        monkeypatch.setattr("tlog_client.bundle.export.MAX_RESERVED_BYTES", room)
        bundle = verified(house, house.export(range(2), "control"))
        assert bundle.manifest.reserved["control"] == range(first, whole.head.checkpoint.size)
        assert [part.indexes for part in bundle.parts[1:]] == ([whole.indexes[1:]] if room == len(last) else [])


def test_any_program_for_zips_reads_a_bundle(small: bytes) -> None:
    names = list(contents(small))
    assert names[:3] == ["manifest.json", "trust.policy", "segment/checkpoint"]
    assert names[-1] == "verify.html"


def test_each_byte_that_is_changed_is_refused_at_its_place(house: House, small: bytes) -> None:
    trust = house.trust("payments", "control", "access")
    members, _ = parse_archive(small)
    places = {
        one.name: range(start, start + len(one.content)) for one in members for start in [small.index(one.content)]
    }
    for place in range(len(small)):
        changed = bytearray(small)
        changed[place] ^= 1 << place % 8
        with pytest.raises((MalformedError, ProofError, SignatureError)) as error:
            verify_bundle(bytes(changed), trust)
        name = next((name for name, span in places.items() if place in span), "")
        assert place_of(error).startswith(name), (place, place_of(error), str(error.value))
        before = small[places[name].start : place] if name.endswith(".ndjson") else b""
        # Another index is found out by the proof, which is one for all; and the last line must end.
        if before and not before.endswith(b'"index":') and place + 1 != places[name].stop:
            assert f"{name}, line {before.count(bytes([10])) + 1}" in place_of(error), place


def test_a_bundle_that_is_cut_short_or_goes_on_is_refused(house: House, small: bytes) -> None:
    for other in (*(small[:end] for end in range(0, len(small), 97)), small + b"\0", b"\0" + small, small + small):
        with pytest.raises(MalformedError):
            verified(house, other)


def frauds(house: House, small: bytes) -> dict[str, tuple[bytes, str, str]]:
    """Return bundles in which all hashes of files are right, with what is said of each, and the place."""
    events = contents(small)["segment/events.ndjson"].replace(b'"orders/2"', b'"orders/9"')
    found = segment_of(house.export({"actor": "bob", "start": 1, "before": 4}))
    exporter = Exporter("x", 0, "x", house.trust("other"), PAGE)
    other = segment_of(export(range(1, 4), LogSource(house.log("other")), {}, exporter))
    mixed = {name: content for name, content in other.items() if name != "segment/checkpoint"}
    proof = {"segment/proof": contents(small)["segment/proof"].split(b"\n", 1)[1]}
    index = {"segment/openings.ndjson": contents(small)["segment/openings.ndjson"].replace(b'"index":3', b'"index":4')}
    return {
        "another payload": (
            rebuilt(small, **{"segment/events.ndjson": events}),
            "not the one that the entry commits to",
            "segment/entries.ndjson, line 2, entry 2",
        ),
        "an entry is left out of a range": (rebuilt(small, **found), "entry 2 is not where it is due", NAME),
        "all of another segment": (rebuilt(small, **other), "other, not of ", NAME),
        "entries of another segment": (
            rebuilt(small, **mixed),
            "belongs to",
            "segment/entries.ndjson, line 1, entry 1",
        ),
        "a hash is missing in the proof": (rebuilt(small, **proof), "the proof", "segment/proof"),
        "another index": (rebuilt(small, **index), "", "segment/proof"),
        **{
            f"control was looked through otherwise: {looked}": (
                saying(small, reserved={"control": looked, "access": None}),
                "control was",
                NAME,
            )
            for looked in looked_otherwise(parse_manifest(contents(small)[NAME]).reserved["control"])
        },
    }


def looked_otherwise(control: range | None) -> list[range | None]:
    """Return what cannot have been looked through of a segment whose first entry is in the bundle."""
    assert control is not None
    return [None, range(1, control.stop), range(control.stop + 1), range(control.stop - 1)]


def segment_of(raw: bytes) -> dict[str, bytes]:
    return {name: content for name, content in contents(raw).items() if name.startswith("segment/")}


def test_what_is_not_in_the_log_is_refused_although_all_hashes_of_files_are_right(house: House, small: bytes) -> None:
    for what, (raw, says, place) in frauds(house, small).items():
        with pytest.raises(ProofError) as error:
            verify_bundle(raw, house.trust("payments", "other", "control"))
        assert says in str(error.value), what
        assert place_of(error) == place, what


def test_a_bundle_is_believed_by_the_keys_of_who_verifies_alone(house: House, small: bytes) -> None:
    stranger = signer_from_seed(house.keys["payments"].name, bytes(32)).verifier
    with pytest.raises(SignatureError) as error:
        verify_bundle(small, trust_of(stranger))
    assert place_of(error) == "segment/checkpoint"
    with pytest.raises(SignatureError, match="has no log"):
        verify_bundle(small, house.trust("control"))


def test_keys_that_only_the_bundle_has_are_told_apart(house: House, small: bytes) -> None:
    assert [part.is_own for part in verified(house, small).parts] == [True, True]
    bundle = verify_bundle(small, trust_of(house.keys["payments"]))
    assert [part.is_own for part in bundle.parts] == [True, False]
    assert "taken from the bundle" in str(report(bundle))
    assert "taken from the bundle" not in str(report(verified(house, small)))


def test_nothing_is_exported_that_is_not_there(house: House) -> None:
    with pytest.raises(FetchError, match="the log has 8"):
        house.export(range(9))
    with pytest.raises(MalformedError, match="no entry to export"):
        house.export({"actor": "nobody"})


def otherwise(raw: bytes) -> dict[str, tuple[bytes, str]]:
    """Return bundles whose parts are right, and which are not put together as they must be, with the place of each."""
    members, comment = parse_archive(raw)
    manifest, policy, *rest = members
    wrong = replace(rest[0], crc=rest[0].crc ^ 1)
    extra = member("segment/more", b"")
    unlisted = replace(parse_manifest(manifest.content), files=listed([policy, *rest[:-1]]))
    short = member(NAME, bytes(unlisted))
    openings = contents(raw)["segment/openings.ndjson"]
    return {
        "a CRC-32 is wrong, in both places": (
            format_archive([manifest, policy, wrong, *rest[1:]], comment),
            rest[0].name,
        ),
        "two members are swapped": (format_archive([manifest, *rest[:1], policy, *rest[1:]], comment), policy.name),
        "a member is missing": (format_archive([manifest, policy, *rest[:-1]], comment), "verify.html"),
        "a member too many": (format_archive([*members, extra], comment), "the zip"),
        "the manifest is not the first": (format_archive([policy, manifest, *rest], comment), NAME),
        "the manifest leaves one out": (
            format_archive([short, policy, *rest], comment_of(short.content)),
            "verify.html",
        ),
        "openings that end without a newline": (
            rebuilt(raw, **{"segment/openings.ndjson": openings[:-1]}),
            "segment/openings.ndjson",
        ),
        "a line of openings goes on": (
            rebuilt(raw, **{"segment/openings.ndjson": openings.replace(b"}", b"} ", 1)}),
            "segment/openings.ndjson, line 1",
        ),
        "another comment": (format_archive(members, f"{comment}0"), NAME),
    }


def test_a_bundle_has_one_form(house: House, small: bytes) -> None:
    for what, (raw, place) in otherwise(small).items():
        with pytest.raises(MalformedError) as error:
            verified(house, raw)
        assert place_of(error) == place, what


# The modules of the page, under Node.js


@pytest.fixture(scope="module")
def paths(house: House, small: bytes) -> list[str]:
    """The files of the small bundle, of the trust policy, and of the table of clauses."""
    (house.folder / "small.zip").write_bytes(small)
    (house.folder / "trust.policy").write_bytes(bytes(house.trust("payments", "control")))
    return [str(house.folder / "small.zip"), str(house.folder / "trust.policy"), CLAUSES]


def in_node(paths: list[str], *changes: list[tuple[int, int]]) -> list[Any]:
    """Return what the modules say of a bundle, each time with other bytes changed."""
    told = "".join(f"{json.dumps(one)}\n" for one in changes)
    run = subprocess.run(
        [str(NODE), RUNNER, *paths], input=told, capture_output=True, text=True, check=False, timeout=120
    )
    assert run.returncode == 0, run.stderr
    return [json.loads(line) for line in run.stdout.splitlines()]


@needs_node
def test_the_page_and_the_command_say_the_same(house: House, small: bytes, paths: list[str]) -> None:
    assert in_node(paths, []) == [str(report(verify_bundle(small, house.trust("payments", "control"))))]
    searched = house.export({"q": "refund"}, by="Ann \u202e \U0001f5c4")
    for other in (searched, house.export(range(8)), house.export(range(2), "control", "access", reach=2)):
        (house.folder / "other.zip").write_bytes(other)
        [told] = in_node([str(house.folder / "other.zip"), *paths[1:]], [])
        assert told == str(report(verify_bundle(other, house.trust("payments", "control"))))


@needs_node
def test_the_page_says_where_no_key_was_given(paths: list[str]) -> None:
    [told] = in_node([paths[0], "-", paths[2]], [])
    assert "nothing says whose it is" in told


@needs_node
def test_each_byte_that_is_changed_is_refused_by_the_page_at_the_same_place(
    house: House, small: bytes, paths: list[str]
) -> None:
    changes = [(place, small[place] ^ 1 << place % 8) for place in range(0, len(small), 5)]
    told = in_node(paths, *([one] for one in changes))
    for (place, value), said in zip(changes, told, strict=True):
        with pytest.raises(TlogError) as error:
            verify_bundle(small[:place] + bytes([value]) + small[place + 1 :], house.trust("payments", "control"))
        assert said["place"] == place_of(error), (place, said, str(error.value))


@needs_node
def test_the_page_takes_no_other_form_and_no_fraud_either(house: House, small: bytes, paths: list[str]) -> None:
    (house.folder / "more.policy").write_bytes(bytes(house.trust("payments", "other", "control")))
    wrong = {what: (raw, "", place) for what, (raw, place) in otherwise(small).items()}
    for what, (raw, says, place) in {**wrong, **frauds(house, small)}.items():
        (house.folder / "other.zip").write_bytes(raw)
        [said] = in_node([str(house.folder / "other.zip"), str(house.folder / "more.policy"), paths[2]], [])
        assert said["place"] == place, what
        assert says in said["message"], what


@needs_node
def test_the_page_believes_the_keys_of_who_verifies_alone(house: House, paths: list[str]) -> None:
    stranger = signer_from_seed(house.keys["payments"].name, bytes(32)).verifier
    for trust in (trust_of(stranger), house.trust("control")):
        (house.folder / "other.policy").write_bytes(bytes(trust))
        [said] = in_node([paths[0], str(house.folder / "other.policy"), paths[2]], [])
        assert said["place"] == "segment/checkpoint"
    (house.folder / "other.policy").write_bytes(bytes(house.trust("payments")))
    assert "taken from the bundle" in in_node([paths[0], str(house.folder / "other.policy"), paths[2]], [])[0]


# The form of the pages


def test_an_unguarded_server_exports_under_the_head_that_its_witnesses_cosigned(
    tmp_path: Path, start_server: Callable[..., Server]
) -> None:
    keys = make_data(tmp_path / "data", "payments")
    signer = witness_signer(2, "witness.example/h2")
    with hearing(honestly(tmp_path, signer, list(keys.values()))) as witness:
        asked = panel([(witness.key, f"{witness.url}/secret-path")], 1)
        (tmp_path / "witnesses").write_bytes(bytes(asked))
        server = start_server(workers=1, options=["--witnesses", str(tmp_path / "witnesses")])
        segment = server.segment("payments", str(keys["payments"]))
        assert post_form(server, {"start": "0", "end": "1"}).status == 400
        for number in range(3):
            assert requests.post(f"{segment.url}/entries?cosigned=true", json=number, timeout=60).status_code == 201
        answer = post_form(server, {"start": "1", "end": "3"})
        assert answer.status == 200, answer.body
        assert answer.headers["Content-Disposition"] == 'attachment; filename="payments.bundle.zip"'
        assert answer.headers["Content-Type"] == "application/zip"
        assert "default-src 'none'" in answer.headers["Content-Security-Policy"]
        # By the policy of who verifies, and not of the server.
        bundle = verify_bundle(answer.body, trusting(asked, keys["payments"]))
        assert bundle.parts[0].indexes == (1, 2)
        assert bundle.parts[0].head.time is not None
        assert bundle.manifest.by == "anonymous"
        assert b"secret-path" not in answer.body


def test_more_than_the_server_has_room_for_is_not_exported_there(
    tmp_path: Path, start_server: Callable[..., Server]
) -> None:
    make_data(tmp_path / "data", "payments")
    server = start_server(workers=1)
    event = b'"%b"' % (b"x" * 900_000)
    for _ in range(3):
        body = b"\n".join([event] * 13)
        kind = {"Content-Type": "application/x-ndjson"}
        assert server.request("POST", "/segments/payments/entries", body, kind).status == 201
    answer = post_form(server, {"start": "0", "end": "39"})
    assert (answer.status, b"more than 33554432 bytes" in answer.body) == (400, True)


def post_form(server: Server, fields: dict[str, str]) -> Answer:
    page = server.request("GET", "/web/segments/payments/export").body
    found = re.search(rb'name="form_token" value="([0-9a-f]{64})"', page)
    assert found is not None
    body = urlencode({**fields, "form_token": found[1].decode()}).encode()
    kind = {"Content-Type": "application/x-www-form-urlencoded"}
    return server.request("POST", "/web/segments/payments/export", body, kind)


# The commands


def test_the_commands_export_and_verify(
    house: House, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TLOG_TOKEN", house.tokens["ann"])
    monkeypatch.setenv("TLOG_STATE", str(tmp_path / "state"))
    Path("trust.policy").write_bytes(bytes(house.trust("payments", "control", "access")))
    where = ["--url", house.url("payments"), "--key", str(house.keys["payments"])]
    assert run(["export", *where, "--policy", "trust.policy", "--start", "1", "--by", "Ann", "-o", "b.zip"]) == 0
    assert run(["verify", "--policy", "trust.policy", "b.zip"]) == 0
    out = capsys.readouterr().out
    assert "Exported:       entries 1 to 7\n" in out
    assert "Exported by:    Ann\n" in out
    assert "No entry of the range is missing: 1 to 7\n" in out
    # What is there is not written over.
    assert run(["export", *where, "--actor", "bob", "-o", "b.zip"]) == 3
    assert run(["verify", "--policy", "trust.policy", "b.zip"]) == 0
    raw = Path("b.zip").read_bytes()
    Path("b.zip").write_bytes(raw.replace(b"orders/3", b"orders/4"))
    capsys.readouterr()
    assert run(["verify", *where[2:], "b.zip"]) == 1
    assert "segment/events.ndjson, line 3, entry 3: " in capsys.readouterr().err


def test_the_page_is_in_each_bundle_and_can_be_had_elsewhere(
    house: House, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TLOG_TOKEN", house.tokens["ann"])
    where = ["--url", house.url("payments"), "--key", str(house.keys["payments"]), "--state", "state"]
    assert run(["export", *where, "-o", "b.zip"]) == 0
    assert run(["verify-page", "-o", "page.html"]) == 0
    page = Path("page.html").read_bytes()
    assert contents(Path("b.zip").read_bytes())["verify.html"] == page
    assert sha256(page).hexdigest() in capsys.readouterr().err
