"""Writers sign: what the server takes and refuses, that nobody can sign for another, and that an honest retry works."""

import json
import secrets
import sqlite3
import subprocess
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import requests
from click.testing import Result
from live import JSON, NDJSON, PATIENCE, TLOG, Segment, Server, tell, tlog

from tlog_client import Log, RefusedError, SignatureError, StateError, Writer
from tlog_client.signing import SIGNED_TYPE, SignedBatch, sign_batch
from tlog_core.checkpoint import Checkpoint, sign_checkpoint
from tlog_core.commitment import Opening
from tlog_core.encoding import encode_base64
from tlog_core.entry import parse_entry
from tlog_core.note import COSIGNATURE, SignerKey, key_id, parse_verifier, signer_from_seed
from tlog_core.receipt import mint_receipts, parse_batch_receipt

# The server of the tests asks nobody who they are.
ME = "anonymous"


def register(data: Path, vkey: str, folder: Path) -> Result:
    path = folder / f"{secrets.token_hex(4)}.vkey"
    path.write_text(f"{vkey}\n")
    return tlog("writer", "add", path, "--data", data)


UNSCRUBBED = ["--scrub-rate", "0"]


@pytest.fixture
def signer(server: Server, tmp_path: Path) -> SignerKey:
    """A key that is registered for whoever writes to the server."""
    key = signer_from_seed(ME, secrets.token_bytes(32))
    assert register(server.data, str(key.verifier), tmp_path).exit_code == 0
    return key


@pytest.fixture
def log(segment: Segment, signer: SignerKey, tmp_path: Path) -> Iterator[Log]:
    with Log(
        segment.url, segment.key, state=tmp_path / "state", signer=signer, writer_keys=[signer.verifier]
    ) as opened:
        yield opened


def signed(
    segment: Segment,
    signer: SignerKey,
    first: int = 0,
    payloads: Sequence[bytes] = (b'{"n":1}', b'{"n":2}'),
    kind: str = JSON,
) -> SignedBatch:
    openings = tuple(Opening(secrets.token_bytes(32)) for _ in payloads)
    return sign_batch(payloads, kind, openings=openings, origin=segment.key.name, first=first, signer=signer)


def post(segment: Segment, batch: SignedBatch, key: str | None = None) -> requests.Response:
    return segment.post(batch.body(), SIGNED_TYPE, key)


def problem(response: requests.Response) -> tuple[int, str]:
    return response.status_code, response.json()["type"].removeprefix("urn:tlog:problem:")


def verified(segment: Segment, batch: SignedBatch, signer: SignerKey, raw: bytes) -> list[int]:
    """Return the sequences of a batch after checking each receipt as a stranger would who knows the writer's key."""
    receipts = mint_receipts(
        parse_batch_receipt(raw),
        payloads=batch.payloads,
        payload_type=batch.payload_type,
        key=segment.key,
        writer_keys=[signer.verifier],
    )
    found = [parse_entry(receipt.entry).signed for receipt in receipts]
    return [one.sequence for one in found if one is not None]


@pytest.mark.parametrize(
    ("kind", "payloads"),
    [
        (JSON, [b'{"a":1,"b":"\xc3\xa4"}', b"[" * 64 + b"]" * 64, b"null"]),
        ("text/plain", [b"\x00\xff", b"x"]),
        ('text/x; a="\\"q\\""', [b'"']),
    ],
)
def test_a_signed_batch_is_logged_as_its_writer_signed_it(
    segment: Segment, signer: SignerKey, kind: str, payloads: list[bytes]
) -> None:
    batch = signed(segment, signer, payloads=payloads, kind=kind)
    response = post(segment, batch)
    assert response.status_code == 201, response.text
    assert verified(segment, batch, signer, response.content) == list(range(len(payloads)))
    following = signed(segment, signer, first=len(payloads), payloads=payloads, kind=kind)
    assert verified(segment, following, signer, post(segment, following).content)[0] == len(payloads)


def test_a_request_has_10000_signed_events_and_no_more(segment: Segment, signer: SignerKey) -> None:
    payloads = [b'{"n":%d}' % number for number in range(10_000)]
    batch = signed(segment, signer, payloads=payloads)
    one_more = signed(segment, signer, first=10_000, payloads=[b"1"])
    assert problem(segment.post(batch.body() + one_more.body(), SIGNED_TYPE)) == (413, "too-large")
    assert segment.checkpoint().size == 0
    response = post(segment, batch)
    assert response.status_code == 201, response.text
    assert verified(segment, batch, signer, response.content) == list(range(10_000))
    assert [entry["payload"]["n"] for entry in segment.entries(9_990, 10_000)] == list(range(9_990, 10_000))
    # All or nothing, too, where the last of them is at fault.
    spoiled = signed(segment, signer, first=10_000, payloads=payloads).body()
    head, line = spoiled[:-1].rsplit(b"\n", 1)
    refused = segment.post(head + b"\n" + line.replace(b'"n":9999', b'"n":9998'), SIGNED_TYPE)
    assert (*problem(refused), refused.json()["line"]) == (403, "wrong-signature", 10_000)
    assert problem(post(segment, signed(segment, signer, first=9_999, payloads=[b"1"]))) == (409, "sequence-conflict")
    assert post(segment, one_more).status_code == 201
    assert segment.checkpoint().size == 10_001


def test_a_replay_under_one_key_is_the_same_receipt_and_logs_nothing(segment: Segment, signer: SignerKey) -> None:
    batch = signed(segment, signer)
    first = post(segment, batch, "key")
    # Signed anew, as by a writer that crashed before it heard: the openings differ, and the sequence may.
    for again in (batch, signed(segment, signer), signed(segment, signer, first=2)):
        assert post(segment, again, "key").content == first.content
    assert segment.checkpoint().size == 2
    assert problem(post(segment, signed(segment, signer, 2, [b"3"]), "key")) == (422, "idempotency-mismatch")
    assert problem(segment.post(b'{"n":1}\n{"n":2}\n', NDJSON, "key")) == (422, "idempotency-mismatch")
    assert problem(post(segment, batch)) == (409, "sequence-conflict")
    assert segment.checkpoint().size == 2


@pytest.mark.parametrize("first", [1, 2, 2**53 - 2])
def test_the_first_sequence_is_0_and_the_log_says_what_it_expects(
    segment: Segment, signer: SignerKey, first: int
) -> None:
    response = post(segment, signed(segment, signer, first=first))
    assert problem(response) == (409, "sequence-conflict")
    assert response.json()["expected_sequence"] == 0
    assert "0 is expected" in response.json()["detail"]
    assert segment.checkpoint().size == 0


def test_what_is_signed_for_one_segment_is_refused_in_another(
    server: Server, segment: Segment, signer: SignerKey
) -> None:
    other = server.create(f"{segment.name}-b")
    batch = signed(segment, signer)
    assert post(segment, batch).status_code == 201
    assert problem(post(other, batch)) == (403, "wrong-signature")
    assert other.checkpoint().size == 0


def test_what_is_not_signed_by_a_registered_key_of_its_writer_is_refused(segment: Segment, signer: SignerKey) -> None:
    strangers = {
        "unregistered": signer_from_seed(ME, b"\x01" * 32),
        "another name": signer_from_seed("mallory", secrets.token_bytes(32)),
        "another name, the same secret": signer_from_seed("mallory", signer.private.private_bytes_raw()),
    }
    for stranger in strangers.values():
        refused = post(segment, signed(segment, stranger))
        assert problem(refused) == (403, "wrong-signature")
        assert refused.json()["detail"] == (
            f"line 1: not signed by a known key of {ME}; "
            "register it by tlog writer add; its name is to be the name of the principal"
        )
    lines = signed(segment, signer).body().splitlines(keepends=True)
    spoiled = {
        "another payload": lines[1].replace(b'"n":2', b'"n":3'),
        "another opening": lines[1].replace(lines[1][12:56], encode_base64(bytes(32)).encode()),
    }
    for line in spoiled.values():
        response = segment.post(lines[0] + line, SIGNED_TYPE)
        assert problem(response) == (403, "wrong-signature")
        assert response.json()["line"] == 2
        assert "tlog writer add" not in response.json()["detail"]
    assert segment.checkpoint().size == 0


def test_no_signature_of_another_kind_is_taken_for_a_writers(segment: Segment, signer: SignerKey) -> None:
    batch = signed(segment, signer, payloads=[b"1"])
    head = str(Checkpoint(segment.key.name, 0, segment.checkpoint().root))
    kinds = {
        "checkpoint": head,
        "cosignature": f"cosignature/v1\ntime 1764000000\n{head}",
        "payload": "1",
        "opening": encode_base64(batch.openings[0]),
    }
    for text in kinds.values():
        blob = encode_base64(signer.verifier.id + signer.sign(text.encode())).encode()
        line = batch.body().replace(encode_base64(batch.signed[0].signature).encode(), blob)
        assert problem(segment.post(line, SIGNED_TYPE)) == (403, "wrong-signature")
    # And the reverse: what a writer signed is no checkpoint of a log that had its key.
    note = sign_checkpoint(Checkpoint(ME, 0, segment.checkpoint().root), signer)
    with pytest.raises(SignatureError):
        signer.verifier.verify(note.text.encode(), batch.signed[0].signature[4:])


def test_an_envelope_has_one_form(segment: Segment, signer: SignerKey) -> None:
    line = signed(segment, signer, payloads=[b'{"n":1}']).body()
    members = json.loads(line)

    def changed(**values: Any) -> bytes:
        kept = {name: value for name, value in {**members, **values}.items() if value is not ...}
        return json.dumps(kept, sort_keys=True, separators=(",", ":")).encode() + b"\n"

    assert changed() == line
    wrong = {
        "empty": b"",
        "an empty line": b"\n",
        "no object": b"[]\n",
        "white space": line.replace(b'":', b'": ', 1),
        "a member twice": line.replace(b'"opening"', b'"opening":"","opening"', 1),
        "another order": json.dumps(dict(reversed(members.items())), separators=(",", ":")).encode(),
        "a member too many": changed(x=1),
        "a member is missing": changed(opening=...),
        "a payload with white space": line.replace(b'{"n":1}', b'{"n": 1}'),
        "a payload with a member twice": line.replace(b'{"n":1}', b'{"n":1,"n":1}'),
        "a payload that is too deep": line.replace(b'{"n":1}', b"[" * 65 + b"]" * 65),
        "no payload": line.replace(b'{"n":1}', b""),
        "half a payload": line.replace(b'{"n":1}', b'{"n":1'),
        "not UTF-8": line.replace(b'{"n":1}', b'"\xff"'),
        "an opening of 31 bytes": changed(opening=encode_base64(bytes(31))),
        "an opening that is no base64": changed(opening="*" * 44),
        "a signature of 67 bytes": changed(writer_signature=encode_base64(bytes(67))),
        "a sequence below 0": changed(writer_sequence=-1),
        "a sequence of 2 to the 53": changed(writer_sequence=2**53),
        "a sequence that is no integer": changed(writer_sequence=1.5),
        "true for a sequence": changed(writer_sequence=True),
        "a type of nothing": changed(payload_type=""),
        "opaque and not base64": changed(payload_type="text/plain"),
        "opaque and empty": changed(payload_type="text/plain", payload=""),
        "opaque and escaped": line.replace(b'{"n":1}', b'"AA\\u003d="').replace(b"application/json", b"text/plain"),
        "JSON under another name": changed(payload_type="application/json; charset=utf-8", payload="MQ=="),
        "a batch within": changed(payload_type=NDJSON, payload="MQ=="),
        "signed within": changed(payload_type=SIGNED_TYPE, payload="MQ=="),
    }
    for what, body in wrong.items():
        response = segment.post(body, SIGNED_TYPE)
        assert response.status_code in (400, 415), (what, response.text)
    two = signed(segment, signer).body().splitlines(keepends=True)
    assert problem(segment.post(two[1] + two[0], SIGNED_TYPE)) == (400, "malformed")
    kinds = signed(segment, signer, 1, [b"x"], "text/plain").body()
    assert "line 2: another payload_type" in segment.post(two[0] + kinds, SIGNED_TYPE).json()["detail"]
    assert segment.checkpoint().size == 0


def test_a_segment_can_demand_signatures(server: Server, signer: SignerKey) -> None:
    created = requests.put(f"{server.url}/segments/strict", json={"signed": True}, timeout=PATIENCE)
    assert (created.status_code, created.json()["signed"]) == (201, True)
    segment = server.segment("strict", created.json()["vkey"])
    for body, kind in [(b"1", JSON), (b"1\n", NDJSON), (b"x", "text/plain")]:
        assert problem(segment.post(body, kind)) == (403, "signature-required")
    assert post(segment, signed(segment, signer)).status_code == 201
    assert segment.get("").json()["signed"] is True
    listed = requests.get(f"{server.url}/segments?after=stric", timeout=PATIENCE).json()["segments"]
    assert listed[0]["signed"] is True
    again = requests.put(f"{server.url}/segments/strict", json={"signed": True}, timeout=PATIENCE)
    assert again.status_code == 200
    otherwise = requests.put(f"{server.url}/segments/strict", json={}, timeout=PATIENCE)
    assert problem(otherwise) == (409, "conflict")
    tell("fsck", "strict", "--data", server.data)


def test_keys_follow_one_another_and_no_weak_key_is_registered(
    server: Server, segment: Segment, signer: SignerKey, tmp_path: Path
) -> None:
    second = signer_from_seed(ME, secrets.token_bytes(32))
    assert problem(post(segment, signed(segment, second))) == (403, "wrong-signature")
    for _ in range(2):
        assert register(server.data, str(second.verifier), tmp_path).exit_code == 0
    assert post(segment, signed(segment, signer)).status_code == 201
    assert post(segment, signed(segment, second, first=2)).status_code == 201
    listed = tlog("writer", "list", "--data", server.data).stdout.splitlines()
    assert [line.split("\t")[0] for line in listed].count(str(second.verifier)) == 1
    tell("fsck", segment.name, "--data", server.data)


PRIME = 2**255 - 19
ORDER_8 = 0x05FC536D880238B13933C6D305ACDFD5F098EFF289F4C345B027B2C28F95E826
SIGN = 1 << 255
# The points of order 1, 2, 4 and 8, and each other way to write them that some verifier would take.
WEAK = [value | sign for value in (0, 1, PRIME - 1, ORDER_8, PRIME - ORDER_8, PRIME, PRIME + 1) for sign in (0, SIGN)]


@pytest.mark.parametrize("value", WEAK, ids=range(len(WEAK)))
def test_a_key_of_small_order_enters_nowhere(server: Server, segment: Segment, tmp_path: Path, value: int) -> None:
    point = value.to_bytes(32, "little")
    for kind in (1, COSIGNATURE):
        vkey = f"{ME}+{key_id(ME, kind, point).hex()}+{encode_base64(bytes([kind]) + point)}"
        path = tmp_path / "weak.vkey"
        path.write_text(vkey)
        client = Path(TLOG).parent / "tlog-client"
        receipt = tmp_path / "receipt"
        receipt.write_text("{}")
        commands = [
            [client, "verify", "--key", vkey, receipt],
            [client, "verify", "--key", segment.key, "--writer-key", path, receipt],
            [client, "watch", "--once", "--url", segment.url, "--key", path],
            [client, "watch", "--once", "--url", segment.url, "--key", segment.key, "--writer-key", path],
        ]
        assert tlog("writer", "add", path, "--data", server.data).exit_code == 2
        # Once is enough to see that the command line asks the parser; the parser sees them all.
        for command in commands if value == 1 else []:
            done = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False)
            assert done.returncode == 2, done
        with pytest.raises(Exception, match="weak public key"):
            parse_verifier(vkey)


def test_a_witness_key_is_no_writers(server: Server, segment: Segment, tmp_path: Path) -> None:
    witness = signer_from_seed(ME, bytes(32), key_type=COSIGNATURE)
    done = register(server.data, str(witness.verifier), tmp_path)
    assert (done.exit_code, "witness's" in done.stderr) == (2, True)
    with pytest.raises(Exception, match="witness's"):
        Log(segment.url, segment.key, signer=witness, state=tmp_path)
    with pytest.raises(Exception, match="witness's"):
        Log(segment.url, segment.key, writer_keys=[witness.verifier], state=tmp_path)


@pytest.mark.parametrize("name", ["tlog/seal", "tlog/operator"])
def test_nobody_registers_a_key_for_a_name_of_tlogs_own(server: Server, tmp_path: Path, name: str) -> None:
    assert register(server.data, str(signer_from_seed(name, bytes(32)).verifier), tmp_path).exit_code == 2


def test_a_removed_key_signs_no_more_and_proves_what_it_signed(
    server: Server, segment: Segment, signer: SignerKey, tmp_path: Path
) -> None:
    assert post(segment, signed(segment, signer)).status_code == 201
    vkey = tmp_path / "till.vkey"
    vkey.write_text(str(signer.verifier))
    tell("writer", "remove", vkey, "--data", server.data)
    # Over connections of their own, so that every worker is asked.
    answers = [post(segment, signed(segment, signer, first=2)) for _ in range(20)]
    assert {problem(answer) for answer in answers} == {(403, "wrong-signature")}
    twice = tlog("writer", "remove", vkey, "--data", server.data)
    assert (twice.exit_code, "no such key is in use" in twice.stderr) == (2, True)
    again = tlog("writer", "add", vkey, "--data", server.data)
    assert (again.exit_code, "does not come back" in again.stderr) == (1, True)
    tell("fsck", "--data", server.data)
    with Log(segment.url, segment.key, writer_keys=[signer.verifier], state=tmp_path / "state") as log:
        log.verify_writers(log.checkpoint())


def test_a_key_is_on_record_and_registered_by_an_administrator_only(
    start_server: Callable[..., Server], tmp_path: Path
) -> None:
    server = start_server(guarded=True)

    def token(name: str) -> dict[str, str]:
        return {"Authorization": f"Bearer {tell('token', 'issue', name, '--data', server.data)}"}

    admin, writer = token("admin"), token("writer")
    key = signer_from_seed("writer", secrets.token_bytes(32))
    body = {"vkey": str(key.verifier)}
    statuses = [
        requests.post(f"{server.url}/keys", json=body, headers=who, timeout=PATIENCE).status_code
        for who in ({}, writer, admin, admin)
    ]
    assert statuses == [401, 404, 201, 200]
    listed = tlog("writer", "list", "--data", server.data).stdout
    assert (listed.split("\t")[0], listed.endswith("\tin use\n"), listed.count("\n")) == (str(key.verifier), True, 1)
    segment = server.segment("first", (server.data / "first.vkey").read_text().strip())
    with Log(
        segment.url,
        segment.key,
        state=tmp_path / "state",
        token=writer["Authorization"].removeprefix("Bearer "),
        signer=key,
        writer_keys=[key.verifier],
    ) as log:
        assert parse_entry(log.append(1).entry).writer == "writer"
    # Signed by the writer's own key, and sent by somebody else.
    stolen = signed(segment, key, first=1).body()
    answer = requests.post(
        f"{segment.url}/entries",
        data=stolen,
        headers={**admin, "Content-Type": SIGNED_TYPE},
        timeout=PATIENCE,
    )
    assert answer.status_code == 404
    statuses = [
        requests.post(f"{server.url}{path}", json=body, headers=who, timeout=PATIENCE).status_code
        for path, who in (
            *(("/keys/removal", who) for who in ({}, writer, admin, admin)),
            ("/keys", admin),
        )
    ]
    assert statuses == [401, 404, 200, 404, 409]
    assert server.stop() == 0
    tell("fsck", "--data", server.data)


def test_the_client_signs_one_event_many_and_by_a_writer(log: Log) -> None:
    log.append({"n": 0})
    log.append_payload(b"x", "text/plain")
    log.append_many([{"n": 2}, {"n": 3}])
    with Writer(log, batch=7) as writer:
        futures = [writer.submit({"n": number}) for number in range(4, 30)]
    assert [future.result().index for future in futures] == list(range(4, 30))
    found = [opened.entry.signed for opened in log.entries()]
    assert [one.sequence for one in found if one] == list(range(30))
    log.verify_writers(log.checkpoint())


def test_an_honest_client_retries_under_its_key_after_it_lost_everything(
    segment: Segment, signer: SignerKey, tmp_path: Path
) -> None:
    def client(folder: str) -> Log:
        return Log(segment.url, segment.key, state=tmp_path / folder, signer=signer)

    with client("one") as log, client("lost") as other:
        log.append(0)
        receipt = log.append(1, idempotency_key="mine")
        assert other.append(1, idempotency_key="mine").entry == receipt.entry
        assert log.append(1, idempotency_key="mine").entry == receipt.entry
        # With its state gone it learns from the log where it is.
        assert other.append(2).index == 2


def test_two_clients_with_one_key_notice_each_other(segment: Segment, signer: SignerKey, tmp_path: Path) -> None:
    with (
        Log(segment.url, segment.key, state=tmp_path / "one", signer=signer) as one,
        Log(segment.url, segment.key, state=tmp_path / "two", signer=signer) as two,
    ):
        one.append(1)
        two.append(2)
        with pytest.raises(StateError, match=r"expects sequence 2, and the writer's next is 1"):
            one.append(3)
    assert segment.checkpoint().size == 2


def test_clients_that_share_a_folder_take_turns(segment: Segment, signer: SignerKey, tmp_path: Path) -> None:
    def work(number: int) -> int:
        with Log(segment.url, segment.key, state=tmp_path / "state", signer=signer) as log:
            for event in range(5):
                log.append([number, event])
        return number

    with ThreadPoolExecutor(6) as pool:
        assert sorted(pool.map(work, range(6))) == list(range(6))
    with Log(segment.url, segment.key, state=tmp_path / "fresh", writer_keys=[signer.verifier]) as log:
        log.verify_writers(log.checkpoint())
        assert log.checkpoint().size == 30


def test_of_signed_requests_that_race_for_a_sequence_one_is_logged_and_no_other_fails(
    segment: Segment, signer: SignerKey
) -> None:
    unsigned = [lambda: segment.post(b"1")] * 10
    racing = [lambda: post(segment, signed(segment, signer))] * 10
    with ThreadPoolExecutor(20) as pool:
        waiting = [pool.submit(one) for pair in zip(unsigned, racing, strict=True) for one in pair]
        statuses = sorted(one.result().status_code for one in waiting)
    assert statuses == [201] * 11 + [409] * 9
    assert segment.checkpoint().size == 12


def test_a_key_that_is_not_registered_fails_a_whole_writer_at_once(segment: Segment, tmp_path: Path) -> None:
    stranger = signer_from_seed(ME, secrets.token_bytes(32))
    with Log(segment.url, segment.key, state=tmp_path, signer=stranger) as log, Writer(log) as writer:
        futures = [writer.submit(number) for number in range(100)]
    for future in futures:
        with pytest.raises(RefusedError, match="not signed by a known key"):
            future.result()


def test_fsck_finds_what_a_key_does_not_vouch_for(start_server: Callable[..., Server], tmp_path: Path) -> None:
    server = start_server()
    key = signer_from_seed(ME, secrets.token_bytes(32))
    assert register(server.data, str(key.verifier), tmp_path).exit_code == 0
    segment = server.create("payments")
    assert post(segment, signed(segment, key)).status_code == 201
    assert server.stop() == 0
    tell("fsck", "--data", server.data)
    with sqlite3.connect(server.data / "control.db") as control:
        control.execute("update segment set signed = 1 where name = 'payments'")
        control.execute("delete from writer_key")
    control.close()
    done = tlog("fsck", "payments", "--data", server.data)
    assert (done.exit_code, done.stdout.count("not signed by a known key of anonymous")) == (1, 2)


# What whoever has the machine can do, and is found by whoever looks

EDITS = {
    "a gap": (5, "entry 2: 3 entries of anonymous are missing before sequence 5"),
    "a repetition": (1, "entry 2: sequence 1 of anonymous comes again, where 2 was to come"),
}


@pytest.mark.parametrize(("first", "finding"), EDITS.values(), ids=EDITS)
def test_fsck_finds_a_sequence_that_is_not_the_writers_next(
    start_server: Callable[..., Server], tmp_path: Path, first: int, finding: str
) -> None:
    """All of it well signed, by the writer and by the log, whose operator changed what is expected next."""
    server = start_server(options=UNSCRUBBED)
    key = signer_from_seed(ME, secrets.token_bytes(32))
    assert register(server.data, str(key.verifier), tmp_path).exit_code == 0
    segment = server.create("payments")
    assert post(segment, signed(segment, key)).status_code == 201
    # While it runs: at its start it would find it.
    edit_segment(server.data, "payments", "update writer set next = ?", first)
    assert post(segment, signed(segment, key, first=first)).status_code == 201
    assert server.stop() == 0
    done = tlog("fsck", "payments", "--data", server.data)
    assert (done.exit_code, done.stdout) == (1, f"payments: {finding}\n")


def test_fsck_finds_an_unsigned_entry_in_a_segment_of_signed_ones(
    start_server: Callable[..., Server], tmp_path: Path
) -> None:
    server = start_server()
    key = signer_from_seed(ME, secrets.token_bytes(32))
    assert register(server.data, str(key.verifier), tmp_path).exit_code == 0
    created = requests.put(f"{server.url}/segments/strict", json={"signed": True}, timeout=PATIENCE)
    segment = server.segment("strict", created.json()["vkey"])
    assert post(segment, signed(segment, key)).status_code == 201
    assert server.stop() == 0
    edit_control(server.data, "update segment set signed = ? where name = 'strict'", 0)
    server = start_server(port=server.port, options=UNSCRUBBED)
    assert segment.post(b"unsigned", "text/plain").status_code == 201
    edit_control(server.data, "update segment set signed = ? where name = 'strict'", 1)
    # What comes after it, and the seal, which is tlog's own, are in order.
    assert post(segment, signed(segment, key, first=2)).status_code == 201
    assert requests.put(f"{segment.url}/seal", timeout=PATIENCE).status_code == 200
    assert server.stop() == 0
    done = tlog("fsck", "strict", "--data", server.data)
    assert (done.exit_code, done.stdout) == (
        1,
        "strict: entry 2: it is not signed by its writer, as the segment demands\n",
    )


@pytest.mark.parametrize("value", [1, 0, PRIME + 1, ORDER_8], ids=["order 1", "order 4", "not canonical", "order 8"])
def test_a_weak_key_that_is_planted_in_the_database_is_not_trusted(
    start_server: Callable[..., Server], tmp_path: Path, value: int
) -> None:
    """Under a key of order 1 anyone's signature is right: whoever writes the database could be any writer."""
    server = start_server(workers=1)
    key = signer_from_seed(ME, secrets.token_bytes(32))
    assert register(server.data, str(key.verifier), tmp_path).exit_code == 0
    segment = server.create("payments")
    point = value.to_bytes(32, "little")
    vkey = f"{ME}+{key_id(ME, 1, point).hex()}+{encode_base64(bytes([1]) + point)}"
    assert server.stop() == 0
    edit_control(server.data, "insert into writer_key (vkey, name, added) values (?, ?, 0)", vkey, ME)
    start_server(port=server.port)
    batch = signed(segment, key, payloads=[b"1"])
    # R is the neutral element and S is 0, which is right for every message under a key of order 1.
    forged = encode_base64(key_id(ME, 1, point) + (1).to_bytes(32, "little") + bytes(32))
    body = batch.body().replace(encode_base64(batch.signed[0].signature).encode(), forged.encode())
    for line in (body, batch.body()):
        answer = segment.post(line, SIGNED_TYPE)
        assert problem(answer) == (500, "corrupt")
        assert "a stored key of a writer: a weak public key" in answer.json()["detail"]
    assert segment.checkpoint().size == 0
    # Who does not sign needs no key.
    assert segment.post(b"1").status_code == 201
    done = tlog("fsck", "--data", server.data)
    assert (done.exit_code, "it is not to be there" in done.stdout, vkey in done.stdout) == (1, True, True)
    done = tlog("writer", "list", "--data", server.data)
    assert (done.exit_code, "weak public key" in done.stderr) == (1, True)


def edit_control(data: Path, statement: str, *values: object) -> list[Any]:
    with closing(sqlite3.connect(data / "control.db", isolation_level=None)) as control:
        return control.execute(statement, values).fetchall()


def edit_segment(data: Path, name: str, statement: str, *values: object) -> None:
    [(segment_id,)] = edit_control(data, "select id from segment where name = ?", name)
    with closing(sqlite3.connect(data / "segments" / f"{segment_id}.db", isolation_level=None)) as segment:
        segment.execute(statement, values)
