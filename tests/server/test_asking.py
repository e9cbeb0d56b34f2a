"""`tlog serve --witnesses`: heads cosigned by a quorum, whatever single witnesses do; and what stops a segment."""

import shutil
import sqlite3
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import pytest
import requests
from dripping import DRIPS, raw_server
from history import History, load
from live import JSON, NDJSON, PATIENCE, TLOG, Segment, Server, free_port, tell, until
from panels import SIZE_TYPE, Heard, Reply, hearing, honestly, make_data, panel, trusting
from witnessing import RunningWitness, start_witness, submission, witness_signer

from tlog.config import MAX_WAITING, Config
from tlog.witnesses.lane import Lane
from tlog.witnesses.request import ANSWER_SECONDS, Answer, Refused, submit
from tlog_client import Log
from tlog_core.checkpoint import Checkpoint, open_checkpoint, sign_checkpoint
from tlog_core.cosignature import cosign
from tlog_core.errors import SignatureError, TlogError
from tlog_core.merkle import EMPTY_ROOT
from tlog_core.note import VerifierKey, parse_note, signer_from_seed
from tlog_core.policy import TrustedWitness, TrustPolicy, open_witnessed
from tlog_core.receipt import mint_receipts, parse_batch_receipt, parse_receipt, verify_receipt

NAMES = ("payments", "refunds")


@dataclass
class House:
    """A log and its witnesses, most of them up: the folder, the keys of the segments, and whom the log asks."""

    folder: Path
    keys: dict[str, VerifierKey]
    starting: Callable[..., Server]
    policy: TrustPolicy | None = None
    witnesses: list[RunningWitness] = field(default_factory=list)

    @property
    def data(self) -> Path:
        return self.folder / "data"

    @property
    def all_keys(self) -> list[VerifierKey]:
        return list(self.keys.values())

    def start_witness(self, number: int, port: int | None = None) -> RunningWitness:
        name = f"witness.example/w{number}"
        running = start_witness(self.folder / f"w{number}", *self.all_keys, name=name, port=port)
        self.witnesses.append(running)
        return running

    def real(self, number: int) -> None:
        """Start so many real witnesses, of which all but one are the quorum."""
        found = [self.start_witness(place) for place in range(number)]
        self.policy = panel([(one.key, one.server.url) for one in found], number - 1 or 1)

    def heard(self, threshold: int, *heard: Heard) -> None:
        self.policy = panel([(one.key, one.url) for one in heard], threshold)

    def serve(self, *options: str, workers: int = 2, asking: bool = True) -> Server:
        file = self.folder / "witnesses"
        if self.policy is not None:
            file.write_bytes(bytes(self.policy))
        more = ["--witnesses", str(file)] if asking else []
        return self.starting(self.data, workers=workers, options=[*more, *options])

    def segment(self, server: Server, name: str = "payments") -> Segment:
        return server.segment(name, str(self.keys[name]))

    def trust(self, name: str = "payments") -> TrustPolicy:
        assert self.policy is not None
        return trusting(self.policy, self.keys[name])


@pytest.fixture
def house(tmp_path: Path, start_server: Callable[..., Server]) -> Iterator[House]:
    built = House(tmp_path, make_data(tmp_path / "data", *NAMES, signed=["orders"]), start_server)
    yield built
    for one in built.witnesses:
        one.server.kill()


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as opened:
        yield opened


def honest(house: House, stack: ExitStack, seed: int = 2) -> Heard:
    """Run an honest witness in a thread, of all segments."""
    signer = witness_signer(seed, f"witness.example/h{seed}")
    return stack.enter_context(hearing(honestly(house.folder, signer, house.all_keys), seed))


def until_swept(house: House, witness: Heard) -> None:
    """Return once everything was asked about at the start."""
    origins = {key.name for key in house.all_keys}
    until(lambda: {origin for origin, _ in witness.heads()} == origins, "all segments to be cosigned")


def until_confirmed(house: House) -> None:
    """Return once the witnesses have said of all segments that they know of nothing later."""
    folder, number = Config(house.data).confirmed, len(house.all_keys)
    until(lambda: len(list(folder.iterdir())) == number, "all segments to be confirmed")


def post(segment: Segment, body: bytes, kind: str = JSON, query: str = "?cosigned=true") -> requests.Response:
    return requests.post(
        f"{segment.url}/entries{query}", data=body, headers={"Content-Type": kind}, timeout=2 * PATIENCE
    )


def cosigned(segment: Segment) -> bytes:
    """Return the newest cosigned head, empty if there is none."""
    answer = segment.get("/checkpoint/cosigned")
    assert answer.status_code in (200, 404), answer.content
    return answer.content if answer.status_code == 200 else b""


def until_cosigned(segment: Segment, trust: TrustPolicy, size: int) -> None:
    """Return once the quorum has cosigned a head of that size, which then holds."""
    until(lambda: b"\n%d\n" % size in cosigned(segment), f"a cosigned head of {size}")
    assert open_witnessed(cosigned(segment), trust).checkpoint.size == size


def describe(segment: Segment) -> dict[str, object]:
    found = segment.get("").json()
    assert isinstance(found, dict)
    return found


def fsck(data: Path) -> tuple[int, str]:
    found = subprocess.run([TLOG, "fsck", "--data", data], capture_output=True, text=True, check=False)
    return found.returncode, found.stdout


def database(data: Path, name: str) -> Path:
    with closing(sqlite3.connect(data / "control.db")) as control:
        [(segment_id,)] = control.execute("select id from segment where name = ?", [name]).fetchall()
    return data / "segments" / f"{segment_id}.db"


def test_a_receipt_that_is_to_be_cosigned_verifies_under_the_quorum(house: House) -> None:
    house.real(3)
    server = house.serve()
    segment, trust = house.segment(server), house.trust()
    single = post(segment, b'{"n":1}')
    assert single.status_code == 201, single.content
    verify_receipt(parse_receipt(single.content), key=trust, payload=b'{"n":1}')
    batch = post(segment, b"1\n2\n3\n", NDJSON)
    parsed = parse_batch_receipt(batch.content)
    for receipt, payload in zip(
        mint_receipts(parsed, payloads=[b"1", b"2", b"3"], key=segment.key), (b"1", b"2", b"3"), strict=True
    ):
        verify_receipt(receipt, key=trust, payload=payload)
    until(lambda: len(parse_note(segment.note()).signatures) == 4, "all three witnesses to have cosigned")
    # Whoever comes later finds the same head, with its cosignatures, in the same bytes.
    assert segment.get("/checkpoint/cosigned").content == cosigned(segment)
    assert open_witnessed(segment.note(), trust).checkpoint.size == 4
    # An append moves the head on, and what was said of the last one is not said of it.
    before = segment.get("/checkpoint")
    segment.append(b"5")
    assert open_checkpoint(segment.note(), segment.key).size == 5
    assert segment.get("/checkpoint", **{"If-None-Match": before.headers["ETag"]}).status_code == 200
    until_cosigned(segment, trust, 5)
    # Of all segments, and tlog's own among them.
    until_cosigned(house.segment(server, "refunds"), house.trust("refunds"), 0)
    metrics = server.metrics()
    assert all(metrics[f'tlog_witness_answers_total{{outcome="cosigned",witness="w{place}"}}'] for place in range(3))
    assert metrics["tlog_cosigned_time_seconds"] > time.time() - 600
    assert server.stop() == 0
    assert fsck(house.data) == (0, "")


def test_reserved_segments_are_cosigned_as_all_others(house: House, stack: ExitStack) -> None:
    witness = honest(house, stack)
    house.heard(1, witness)
    house.serve()
    assert len(house.all_keys) == 5
    until_swept(house, witness)


def test_the_client_has_cosigned_receipts_signed_ones_too(house: House, stack: ExitStack) -> None:
    house.heard(1, honest(house, stack))
    signer = signer_from_seed("anonymous", bytes(range(32)))
    (house.folder / "till.vkey").write_text(str(signer.verifier))
    tell("writer", "add", house.folder / "till.vkey", "--data", house.data)
    server = house.serve()
    for name, key in (("orders", signer), ("payments", None)):
        segment = house.segment(server, name)
        with Log(segment.url, segment.key, state=house.folder / "state", signer=key, cosigned=True) as log:
            receipts = [log.append({"n": 1}), *log.append_many([1, 2, 3])]
            assert log.cosigned_checkpoint().checkpoint.size >= 4
        for receipt in receipts:
            verify_receipt(receipt, key=house.trust(name))


def test_without_a_quorum_the_receipt_comes_in_time_and_is_upgraded_later(house: House) -> None:
    house.real(3)
    server = house.serve("--cosigned-seconds", "1")
    segment, trust = house.segment(server), house.trust()
    until_confirmed(house)
    for running in house.witnesses[1:]:
        assert running.server.stop() == 0
    began = time.monotonic()
    answer = post(segment, b'{"n":1}')
    assert time.monotonic() - began >= 1
    assert answer.status_code == 201
    receipt = parse_receipt(answer.content)
    verify_receipt(receipt, key=segment.key, payload=b'{"n":1}')
    with pytest.raises(SignatureError):
        verify_receipt(receipt, key=trust)
    assert b"\n0\n" in cosigned(segment)
    with Log(segment.url, segment.key, state=house.folder / "state") as log:
        with pytest.raises(TlogError):
            log.upgrade(receipt)
        house.start_witness(1, house.witnesses[1].server.port)
        until_cosigned(segment, trust, 1)
        upgraded = log.upgrade(receipt)
        verify_receipt(upgraded, key=trust, payload=b'{"n":1}')
        assert (upgraded.entry, upgraded.index, upgraded.opening) == (receipt.entry, receipt.index, receipt.opening)


Lie = Callable[[Heard, bytes], Reply]


def _line_of(heard: Heard, body: bytes, seed: int) -> bytes:
    note = parse_note(body.partition(b"\n\n")[2])
    return str(cosign(note.text, time=1_764_000_000, signer=witness_signer(seed, heard.signer.name))).encode()


def _of_other_text(heard: Heard, _: bytes) -> Reply:
    return 200, {}, str(cosign("example.com/other\n0\n\n", time=9, signer=heard.signer)).encode()


def _slow(_: Heard, __: bytes) -> Reply:
    time.sleep(3)
    return 200, {}, b""


def _time_0(heard: Heard, body: bytes) -> Reply:
    note = parse_note(body.partition(b"\n\n")[2])
    return 200, {}, str(cosign(note.text, time=0, signer=heard.signer)).encode()


def _dated(heard: Heard, body: bytes, ahead: int) -> Reply:
    note = parse_note(body.partition(b"\n\n")[2])
    return 200, {}, str(cosign(note.text, time=int(time.time()) + ahead, signer=heard.signer)).encode()


LIES: dict[str, Lie] = {
    "a signature of something else": _of_other_text,
    "the line of another key": lambda heard, body: (200, {}, _line_of(heard, body, 77)),
    "a line of time 0": _time_0,
    "a line of a time to come": lambda heard, body: _dated(heard, body, 330),
    "no lines": lambda *_: (200, {}, b""),
    "a huge body": lambda *_: (200, {}, b"x" * (4 << 20)),
    "a redirect": lambda heard, _: (302, {"Location": f"{heard.url}/elsewhere"}, b""),
    "slow": _slow,
    "no size in a 409": lambda *_: (409, {}, b"3\n"),
    "not a number": lambda *_: (409, SIZE_TYPE, b"03\n"),
    "the size that was asked from": lambda _, body: (409, SIZE_TYPE, body.split(b"\n")[0][4:] + b"\n"),
    "cut short": lambda *_: (200, {"Content-Length": "100"}, b"\xe2\x80\x94 w"),
    "unknown": lambda *_: (404, {}, b""),
    "forbidden": lambda *_: (403, {}, b""),
    "too many": lambda *_: (429, {}, b""),
    "a fault": lambda *_: (500, {}, b""),
}


def tell_lies(liars: Sequence[Heard]) -> None:
    for liar, lie in zip(liars, LIES.values(), strict=True):
        liar.bodies.clear()
        liar.reply = lambda body, lie=lie, liar=liar: lie(liar, body)  # type: ignore[misc]


def test_a_witness_that_lies_harms_nothing(house: House, stack: ExitStack) -> None:
    good = honest(house, stack, 2)
    liars = [honest(house, stack, 100 + place) for place in range(len(LIES))]
    replies = [liar.reply for liar in liars]
    # If any of what they say were taken for a cosignature, it would make the quorum.
    house.heard(2, good, *liars)
    server = house.serve("--cosigned-seconds", "1")
    segment = house.segment(server)
    # Else there would be nothing to lie about.
    until_confirmed(house)
    until_cosigned(segment, house.trust(), 0)
    tell_lies(liars)
    for number in range(3):
        answer = post(segment, b"%d" % number)
        assert answer.status_code == 201
        verify_receipt(parse_receipt(answer.content), key=segment.key)
    until(lambda: all(one.bodies for one in liars), "each of them to be asked")
    until(lambda: len(parse_note(segment.note()).signatures) == 2, "the honest one to have cosigned")
    assert parse_note(segment.note()).signatures[1].key_id == good.key.id
    assert b"\n0\n" in cosigned(segment)
    assert describe(segment)["frozen"] is None
    # Nobody was sent elsewhere.
    assert all(b"old " in body for liar in liars for body in liar.bodies)
    # And with another honest one all is well, beside the liars.
    other = honest(house, stack, 3)
    assert server.stop() == 0
    house.heard(2, good, *liars, other)
    for liar, reply in zip(liars, replies, strict=True):
        liar.reply = reply
    segment = house.segment(house.serve())
    until_confirmed(house)
    tell_lies(liars)
    verify_receipt(parse_receipt(post(segment, b"4").content), key=house.trust())


def test_a_cosignature_is_taken_unless_it_is_dated_more_than_300_seconds_ahead(house: House, stack: ExitStack) -> None:
    ahead = [270]
    witness = stack.enter_context(hearing(lambda body: _dated(witness, body, ahead[0])))
    house.heard(1, witness)
    server = house.serve("--cosigned-seconds", "1")
    segment = house.segment(server)
    until_cosigned(segment, house.trust(), 0)
    ahead[0] = 330
    post(segment, b"1")
    until(lambda: any(line["event"] == "not cosigned" for line in server.logged()), "the log to say so")
    said = next(line for line in server.logged() if line["event"] == "not cosigned")
    assert said["outcome"] == "invalid"
    assert "seconds ahead of this log's clock" in said["reason"]
    assert b"\n0\n" in cosigned(segment)
    assert len(parse_note(segment.note()).signatures) == 1


def test_a_witness_that_knows_more_freezes_the_segment_for_good(house: House, stack: ExitStack) -> None:
    witness = honest(house, stack)
    house.heard(1, witness)
    server = house.serve()
    segment = house.segment(server)
    assert post(segment, b"1").status_code == 201
    until_swept(house, witness)
    honest_reply = witness.reply
    witness.reply = lambda body: (409, SIZE_TYPE, b"7000\n") if b"/payments\n" in body else honest_reply(body)
    before = int(time.time() * 1000)
    segment.append(b"2", key="second")
    until(lambda: describe(segment)["frozen"], "the segment to freeze")
    for running in (server, None):
        server = running or house.serve()
        segment = house.segment(server)
        frozen = describe(segment)["frozen"]
        assert isinstance(frozen, dict)
        assert (frozen["size"], frozen["witness"]) == (7000, witness.key.name)
        assert before <= frozen["at"] <= time.time() * 1000
        refused = segment.post(b"3")
        assert (refused.status_code, refused.json()["type"]) == (409, "urn:tlog:problem:frozen")
        assert witness.key.name in refused.json()["detail"]
        # What is there can be read, proven, and asked for again under its key.
        assert segment.checkpoint().size == 2
        # What was said of the first head is not said of this one.
        assert len(parse_note(segment.note()).signatures) == 1
        assert segment.get("/proof/inclusion/2/1").status_code == 200
        assert parse_receipt(segment.append(b"2", key="second")).index == 1
        assert open_witnessed(cosigned(segment), house.trust()).checkpoint.size == 1
        # No other segment is touched.
        assert post(house.segment(server, "refunds"), b"1").status_code == 201
        assert server.metrics()['tlog_segment_frozen{segment="payments"}'] == 1
        assert [line["level"] for line in server.logged() if line["event"] == "frozen"] == ["error"]
        assert server.request("PUT", "/segments/payments/seal").status == 409
        # Not even if the witness takes it back.
        witness.reply = honest_reply
        assert server.stop() == 0
    status, found = fsck(house.data)
    assert status == 1
    assert "payments: frozen" in found
    assert found.count("\n") == 1


def test_a_witness_that_knows_another_root_freezes_the_segment(house: House, stack: ExitStack) -> None:
    witness = honest(house, stack)
    house.heard(1, witness)
    server = house.serve()
    segment = house.segment(server)
    assert post(segment, b"1").status_code == 201
    until_swept(house, witness)
    honest_reply = witness.reply
    witness.reply = lambda body: (422, {}, b"") if b"/payments\n" in body else honest_reply(body)
    segment.append(b"2")
    until(lambda: describe(segment)["frozen"], "the segment to freeze")
    assert segment.post(b"3").status_code == 409


def test_new_heads_go_to_those_who_answer_while_another_is_left_alone(house: House, stack: ExitStack) -> None:
    """One of two refuses, and both are the quorum, so that no round is ever over."""
    willing, other = honest(house, stack), stack.enter_context(hearing(lambda _: (403, {}, b"no"), 3))
    house.heard(2, willing, other)
    segment = house.segment(house.serve(workers=1))
    until(lambda: len(other.bodies) > 0, "the one who refuses to be asked")
    for size in range(1, 4):
        segment.append(b"%d" % size)
        # The other would be left alone for a minute.
        until(lambda size=size: (segment.key.name, size) in willing.heads(), "the head to be cosigned", 20)  # type: ignore[misc]
    # Nor is he pressed by what comes meanwhile.
    assert len(other.bodies) < 3 * len(house.keys) + 3


def test_a_witness_that_is_elsewhere_is_asked_again_from_there(house: House) -> None:
    house.real(1)
    server = house.serve(asking=False)
    segment = house.segment(server)
    segment.append(b"1\n2\n3\n4\n5\n", NDJSON)
    # The log does not know what the witness has cosigned already.
    assert house.witnesses[0].add(submission("0", [], segment.note())).status == 200
    segment.append(b"6\n7\n8\n9\n", NDJSON)
    assert server.stop() == 0
    server = house.serve()
    segment = house.segment(server)
    until_cosigned(segment, house.trust(), 9)
    assert server.metrics()['tlog_witness_answers_total{outcome="behind",witness="w0"}'] == 1
    # A witness that has lost what it knew begins anew.
    assert describe(segment)["frozen"] is None


def test_an_older_copy_whose_anchor_is_as_old_is_frozen_by_a_witness_before_it_signs(house: House) -> None:
    house.real(2)
    server = house.serve()
    assert post(house.segment(server), b"1\n2\n", NDJSON).status_code == 201
    assert server.stop() == 0
    anchor = house.data.with_name("data.anchor")
    for folder in (house.data, anchor):
        shutil.copytree(folder, house.folder / "old" / folder.name)
    server = house.serve()
    assert post(house.segment(server), b"3").status_code == 201
    assert post(house.segment(server, "refunds"), b"3").status_code == 201
    assert server.stop() == 0
    for folder in (house.data, anchor):
        shutil.rmtree(folder)
        (house.folder / "old" / folder.name).rename(folder)
    # The copy knows no better than that its head is cosigned, and takes nothing before the witnesses have been asked.
    server = house.serve()
    for name in NAMES:
        assert house.segment(server, name).post(b"4").status_code in (409, 503)
        until(lambda name=name: describe(house.segment(server, name))["frozen"], "the old copy to be frozen")  # type: ignore[misc]
        assert house.segment(server, name).post(b"4").status_code == 409
        assert house.segment(server, name).checkpoint().size in (0, 2)
    assert describe(house.segment(server, "orders"))["frozen"] is None


def test_nothing_is_signed_before_enough_witnesses_were_asked(house: House) -> None:
    house.real(3)
    server = house.serve()
    segment = house.segment(server)
    assert post(segment, b"1").status_code == 201
    assert server.stop() == 0
    # Two of three are the quorum: a later head may be known to two that do not answer.
    for running in house.witnesses[1:]:
        assert running.server.stop() == 0
    server = house.serve()
    key = "the-key"
    for _ in range(3):
        refused = house.segment(server).post(b"2", key=key)
        assert (refused.status_code, refused.json()["type"]) == (503, "urn:tlog:problem:unavailable")
        assert "know of no later head" in refused.json()["detail"]
    assert house.segment(server).checkpoint().size == 1
    house.start_witness(1, house.witnesses[1].server.port)
    until(lambda: house.segment(server).post(b"2", key=key).status_code == 201, "the segment to take entries")
    assert house.segment(server).checkpoint().size == 2


def test_two_workers_under_load_ask_for_no_head_twice_and_never_go_back(house: House, stack: ExitStack) -> None:
    witnesses = [honest(house, stack, seed) for seed in (2, 3, 4)]
    house.heard(2, *witnesses)
    server = house.serve()
    history = History(house.segment(server))
    # Everyone is asked once about everything at the start, which is over.
    for witness in witnesses:
        until_swept(house, witness)
    trust, seen = house.trust(), list[bytes]()
    with load(server, [history], writers=8, sizes=(1, 1, 30)):
        goal = history.acknowledged() + 1500
        while history.acknowledged() < goal:
            seen.append(cosigned(history.segment))
    assert set(history.statuses) == {201}
    history.check()
    sizes = [open_witnessed(note, trust).checkpoint.size for note in dict.fromkeys(seen)]
    assert sizes == sorted(sizes)
    assert len(set(sizes)) > 5
    # In the end the quorum has all of it.
    until_cosigned(history.segment, trust, history.segment.checkpoint().size)
    for witness in witnesses:
        # Where it stood a witness may have to say first, when another worker's request is still on the way.
        asked = [(origin, size) for origin, size in witness.heads() if size]
        assert len(asked) > 5
        assert len(asked) == len(set(asked))
        of_one = [size for origin, size in asked if origin == history.segment.key.name]
        assert of_one == sorted(of_one)
    assert server.stop() == 0
    assert fsck(house.data) == (0, "")


def test_heads_that_stay_as_they_are_are_cosigned_anew(house: House) -> None:
    house.real(1)
    server = house.serve("--recosign-seconds", "1")
    segment, trust = house.segment(server), house.trust()
    assert post(segment, b"1").status_code == 201
    first = open_witnessed(cosigned(segment), trust)
    before = segment.get("/checkpoint")
    until(lambda: (open_witnessed(cosigned(segment), trust).time or 0) > (first.time or 0), "a later quorum time")
    until(lambda: segment.note() != before.content, "the new cosignature beside the head")
    after = segment.get("/checkpoint", **{"If-None-Match": before.headers["ETag"]})
    assert after.status_code == 200
    assert open_witnessed(after.content, trust).checkpoint == first.checkpoint
    again = open_witnessed(cosigned(segment), trust)
    assert again.checkpoint == first.checkpoint
    assert len(parse_note(cosigned(segment)).signatures) == 2


def test_idle_heads_are_cosigned_anew_also_after_the_list_of_segments_could_not_be_read(house: House) -> None:
    house.real(1)
    server = house.serve("--recosign-seconds", "1")
    segment, trust = house.segment(server), house.trust()
    assert post(segment, b"1").status_code == 201
    with closing(sqlite3.connect(house.data / "control.db", isolation_level=None)) as control:
        control.execute("alter table segment rename to gone")
        until(lambda: any(line["event"] == "sweeping failed" for line in server.logged()), "a failure")
        control.execute("alter table gone rename to segment")
    first = open_witnessed(cosigned(segment), trust)
    until(lambda: (open_witnessed(cosigned(segment), trust).time or 0) > (first.time or 0) + 1, "a later quorum time")


def test_what_was_committed_while_nobody_asked_is_asked_for_at_the_start(house: House, stack: ExitStack) -> None:
    house.heard(1, honest(house, stack))
    server = house.serve(asking=False)
    house.segment(server).append(b"1")
    assert server.stop() == 0
    server = house.serve()
    until_cosigned(house.segment(server), house.trust(), 1)
    # Behind the back of the server: the first sweep is over, the next one finds it.
    assert server.stop() == 0
    server = house.serve("--recosign-seconds", "1")
    until_cosigned(house.segment(server), house.trust(), 1)
    tell("segment", "seal", "payments", "--data", house.data)
    until_cosigned(house.segment(server), house.trust(), 2)


def test_a_segment_that_no_witness_knows_goes_on(house: House) -> None:
    house.real(1)
    server = house.serve("--cosigned-seconds", "0.5")
    new = server.create("new")
    for number in range(3):
        assert parse_receipt(post(new, b"%d" % number).content).index == number
    assert cosigned(new) == b""
    until(lambda: [line for line in server.logged() if line["event"] == "not cosigned"], "the log to say so")
    said = [line for line in server.logged() if line["event"] == "not cosigned"]
    # Once by each worker that asked, whatever number of times.
    assert len(said) <= 2
    assert {(line["segment"], line["outcome"], line["witness"]) for line in said} == {("new", "unknown", "w0")}
    assert post(house.segment(server), b"1").status_code == 201


def test_only_so_many_requests_wait_for_witnesses_at_once(house: House, stack: ExitStack) -> None:
    witness = stack.enter_context(hearing(lambda _: (404, {}, b"")))
    house.heard(1, witness)
    server = house.serve("--cosigned-seconds", "60", workers=1)
    segment = house.segment(server)
    until_confirmed(house)
    witness.reply = lambda _: (500, {}, b"")
    with ThreadPoolExecutor(2 * MAX_WAITING) as pool:
        waiting = [pool.submit(post, segment, b"1") for _ in range(2 * MAX_WAITING)]
        done, rest = wait(waiting, timeout=PATIENCE, return_when=FIRST_COMPLETED)
        until(lambda: sum(future.done() for future in waiting) == MAX_WAITING, "half of them to be answered")
        assert server.request("GET", "/healthz").status == 200
        assert segment.append(b"2")
        assert sum(future.done() for future in waiting) == MAX_WAITING
        server.kill()
    assert done
    assert rest


def test_without_witnesses_nothing_is_logged_that_was_to_be_cosigned(segment: Segment) -> None:
    refused = post(segment, b"1")
    assert (refused.status_code, refused.json()["type"]) == (400, "urn:tlog:problem:no-witnesses")
    for query in ("?cosigned=1", "?cosigned=false", "?cosigned=", "?cosigned=true&cosigned=true", "?other=1"):
        malformed = post(segment, b"1", query=query)
        assert (malformed.status_code, malformed.json()["type"]) == (400, "urn:tlog:problem:malformed")
    assert segment.checkpoint().size == 0
    missing = segment.get("/checkpoint/cosigned")
    assert (missing.status_code, missing.json()["type"]) == (404, "urn:tlog:problem:not-found")


@pytest.mark.long
def test_a_witness_that_spins_out_its_answer_is_given_up_in_time(stack: ExitStack) -> None:
    signer = witness_signer(1, "witness.example/w1")
    note = sign_checkpoint(Checkpoint("log.example", 0, EMPTY_ROOT), signer_from_seed("log.example", bytes(32)))
    witnesses = [TrustedWitness("w", signer.verifier, stack.enter_context(raw_server(talk))) for talk in DRIPS]
    start = time.monotonic()
    asking = [partial(submit, witness=one, old=0, proof=[], note=note) for one in witnesses]
    futures = [Lane[Answer]("w").submit(work) for work in asking]
    answers = [future.result(3 * ANSWER_SECONDS) for future in futures]
    assert all(isinstance(answer, Refused) for answer in answers)
    assert time.monotonic() - start < 2 * ANSWER_SECONDS


W = str(witness_signer(5, "witness.example/w5").verifier)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (f"witness a {W} https://w.example\nquorum none\n", "quorum none"),
        (f"witness a {W}\nquorum a\n", "needs a printable name, and after its key the URL"),
        (f"witness a {W} w.example/prefix\nquorum a\n", "the URL"),
        (f"witness a {W} ftp://w.example\nquorum a\n", "the URL"),
        (f"witness a {W} https://w.example/?x=1\nquorum a\n", "the URL"),
        (f"witness a {W} https://me@w.example/\nquorum a\n", "the URL"),
        (f"witness a {W} http://w.example/\nquorum a\n", "asked over http"),
        (f"witness a {W} http://10.0.0.1:8081\nquorum a\n", "asked over http"),
        (f"witness a {W} https://w.example\n", "one quorum line"),
        (f"witness a {W} https://w.example\nquorum a", "newline"),
        (
            f"log {signer_from_seed('l.example', bytes(32)).verifier}\nwitness a {W} https://w.example\nquorum a\n",
            "log",
        ),
    ],
)
def test_a_server_does_not_start_with_witnesses_that_it_cannot_ask(tmp_path: Path, text: str, says: str) -> None:
    (tmp_path / "witnesses").write_text(text)
    options = ["--data", str(tmp_path / "data"), "--port", str(free_port()), "--unguarded"]
    command = [str(TLOG), "serve", *options, "--witnesses", str(tmp_path / "witnesses")]
    run = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert run.returncode == 2
    assert says in run.stderr
    assert "witnesses" in run.stderr
    assert not (tmp_path / "data" / "control.db").exists()


def test_the_witnesses_of_a_restarted_server_may_be_others(house: House, stack: ExitStack) -> None:
    first, second = honest(house, stack, 2), honest(house, stack, 3)
    house.heard(1, first)
    server = house.serve()
    assert post(house.segment(server), b"1").status_code == 201
    assert server.stop() == 0
    # What counted before does not count under another quorum, until it is reached.
    house.policy = panel([(second.key, second.url)], 1)
    down, second.reply = second.reply, lambda _: (500, {}, b"")
    server = house.serve()
    assert cosigned(house.segment(server)) == b""
    second.reply = down
    until_cosigned(house.segment(server), house.trust(), 1)


def test_a_witness_may_cosign_by_ml_dsa_44(house: House) -> None:
    running = start_witness(house.folder / "w0", *house.all_keys, name="witness.example/w0", subtrees=True)
    house.witnesses.append(running)
    assert running.subtree_key is not None
    house.policy = panel([(running.key, running.server.url), (running.subtree_key, running.server.url)], 2)
    segment = house.segment(house.serve())
    receipt = parse_receipt(post(segment, b'{"a":1}').content)
    verify_receipt(receipt, key=house.trust(), payload=b'{"a":1}')
    assert set(dict(open_witnessed(receipt.checkpoint, house.trust()).cosigned)) == {"w0", "w1"}
