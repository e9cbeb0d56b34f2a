"""The anchor: what is not the latest copy of a segment signs nothing."""

import os
import shutil
from collections.abc import Callable
from contextlib import closing, suppress
from dataclasses import replace
from pathlib import Path
from threading import Barrier, BrokenBarrierError, Thread

import pytest
from live import NDJSON, Segment, Server, until

from tlog.anchor import Anchor
from tlog.config import Config
from tlog.errors import CorruptError, FrozenError, OutcomeUnknownError
from tlog.latest import open_anchor
from tlog.nodes import Nodes
from tlog.sequencer import Sequencer, Submission, sign_head
from tlog.store.connection import copy_database
from tlog.store.segment import RequestRow, SegmentStore
from tlog.tree import EMPTY_TREE
from tlog_core.checkpoint import Checkpoint, sign_checkpoint
from tlog_core.commitment import Opening, commit
from tlog_core.merkle import Hash
from tlog_core.note import SignerKey, signer_from_seed
from tlog_core.receipt import JSON_TYPE

Starting = Callable[..., Server]


def submission(number: int) -> Submission:
    opening, payload = Opening(bytes(32)), b"%d" % number
    commitment = commit(opening=opening, payload_type=JSON_TYPE, payload=payload)
    return Submission("till-7", JSON_TYPE, [opening], [payload], [commitment], None)


def sequencer(store: SegmentStore, signer: SignerKey, anchor: Anchor) -> Sequencer:
    return Sequencer(store, signer, clock=lambda: 5000, on_commit=lambda *_: None, anchor=anchor)


def head_of(signer: SignerKey, size: int, byte: int = 1) -> tuple[Checkpoint, bytes]:
    checkpoint = Checkpoint(signer.name, size, Hash(bytes([byte]) * 32))
    return checkpoint, bytes(sign_checkpoint(checkpoint, signer))


# The file


def test_the_anchor_has_the_head_before_anybody_hears_of_it(
    store: SegmentStore, signer: SignerKey, anchor: Anchor, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced, real = list[int](), os.fdatasync

    def sync(file: int) -> None:
        synced.append(store.head().size)
        real(file)

    monkeypatch.setattr("os.fdatasync", sync)
    one = sequencer(store, signer, anchor)
    for number in range(3):
        one.append(submission(number))
        assert anchor.newest().note == store.head().note
    assert synced == [1, 2, 3]


def test_the_next_write_does_not_wait_until_the_anchor_is_synced(
    store: SegmentStore, signer: SignerKey, anchor: Anchor, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, real = sequencer(store, signer, anchor), os.fdatasync
    writers = [Thread(target=one.append, args=(submission(number),)) for number in range(2)]
    sizes = list[int]()

    def sync(file: int) -> None:
        sizes.append(store.head().size)
        if len(sizes) == 1:
            writers[1].start()
            until(lambda: store.head().size == 2, "the second to be committed")
        real(file)

    monkeypatch.setattr("os.fdatasync", sync)
    writers[0].start()
    writers[0].join()
    writers[1].join()
    assert sizes == [1, 2]
    assert anchor.newest().note == store.head().note


def test_whatever_is_not_synced_yet_one_head_is_whole(anchor: Anchor, signer: SignerKey, tmp_path: Path) -> None:
    path = tmp_path / "payments.anchor"
    anchor.advance(*head_of(signer, 5))
    others, durable = Anchor.open(path, signer.verifier), [path.read_bytes()]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("os.fdatasync", lambda _: durable.append(path.read_bytes()))
        # Two put in heads in turn, and neither comes to syncing its own; then what the first says comes too late.
        for size in range(6, 12):
            (anchor, others)[size % 2].put(*head_of(signer, size))
            now = path.read_bytes()
            torn = bytes(new if old == new else 0 for old, new in zip(durable[-1], now, strict=True))
            (tmp_path / "torn.anchor").write_bytes(torn)
            with closing(Anchor.open(tmp_path / "torn.anchor", signer.verifier)) as opened:
                assert opened.newest().checkpoint.size == size - 1
            if size == 9:
                anchor.sync(8)
                durable.pop()
    others.close()


def test_an_anchor_never_goes_back(anchor: Anchor, signer: SignerKey) -> None:
    anchor.advance(*head_of(signer, 9))
    for size in (8, 0):
        anchor.advance(*head_of(signer, size, byte=2))
    assert anchor.newest().checkpoint == head_of(signer, 9)[0]


def test_a_write_that_is_torn_anywhere_leaves_the_head_before_it(
    anchor: Anchor, signer: SignerKey, tmp_path: Path
) -> None:
    path = tmp_path / "payments.anchor"
    for size in (5, 6):
        anchor.advance(*head_of(signer, size))
    before = path.read_bytes()
    anchor.put(*head_of(signer, 7))
    after = path.read_bytes()
    differs = [place for place in range(len(before)) if before[place] != after[place]]
    for cut in range(differs[0], differs[-1] + 1):
        path.write_bytes(after[:cut] + before[cut:])
        opened = Anchor.open(path, signer.verifier)
        assert opened.newest().checkpoint.size == 6
        opened.close()


def test_heads_of_others_are_not_anchors(anchor: Anchor, signer: SignerKey, tmp_path: Path) -> None:
    stranger = signer_from_seed(signer.name, bytes([7]) * 32)
    (tmp_path / "payments.anchor").write_bytes(head_of(stranger, 9)[1].ljust(8192, b"\0"))
    with pytest.raises(CorruptError, match="no head that the log has signed"):
        anchor.newest()


# A segment and its anchor


def grow(store: SegmentStore, signer: SignerKey, anchor: Anchor) -> Sequencer:
    one = sequencer(store, signer, anchor)
    for number in range(3):
        one.append(submission(number))
    return one


@pytest.mark.parametrize(
    ("size", "words"),
    [(4, "has a head of 4 entries, and the segment has 3"), (3, "another history"), (2, "another history")],
)
def test_what_contradicts_its_anchor_is_frozen(
    store: SegmentStore, signer: SignerKey, anchor: Anchor, tmp_path: Path, size: int, words: str
) -> None:
    grow(store, signer, anchor)
    path = tmp_path / "other.anchor"
    Anchor.create(path, head_of(signer, size)[1])
    with pytest.raises(FrozenError, match=words):
        open_anchor(path, signer.verifier, store, Nodes(store))


def test_an_anchor_that_a_crash_left_behind_is_brought_up(
    store: SegmentStore, signer: SignerKey, anchor: Anchor, tmp_path: Path
) -> None:
    one = sequencer(store, signer, anchor)
    one.append(submission(0))
    path = tmp_path / "late.anchor"
    Anchor.create(path, store.head().note)
    for number in range(300):
        one.append(submission(number))
    opened = open_anchor(path, signer.verifier, store, Nodes(store))
    assert opened.newest().note == store.head().note
    opened.close()


def test_a_second_signer_with_the_same_key_is_noticed_in_the_next_write(
    store: SegmentStore, signer: SignerKey, anchor: Anchor
) -> None:
    grown = grow(store, signer, anchor)
    anchor.advance(*head_of(signer, 4))
    with pytest.raises(FrozenError, match="another server signs with the same key"):
        grown.append(submission(4))
    assert store.head().size == 3


def test_of_two_copies_that_write_at_once_one_alone_signs(
    store: SegmentStore, signer: SignerKey, anchor: Anchor, tmp_path: Path
) -> None:
    copy_database(tmp_path / "payments.db", tmp_path / "copy.db")
    # Each waits, after it has looked into the anchor, for the other to do so too.
    both, answers = Barrier(2), list[str]()

    def meet() -> int:
        with suppress(BrokenBarrierError):
            both.wait(0.5)
        return 5000

    def write(one: SegmentStore, shared: Anchor) -> None:
        try:
            Sequencer(one, signer, clock=meet, on_commit=lambda *_: None, anchor=shared).append(submission(0))
            answers.append("signed")
        except FrozenError as error:
            answers.append(str(error))

    with closing(SegmentStore(tmp_path / "copy.db")) as other:
        shared = Anchor.open(tmp_path / "payments.anchor", signer.verifier)
        threads = [Thread(target=write, args=one) for one in ((store, anchor), (other, shared))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        shared.close()
        assert sorted([store.head().size, other.head().size]) == [0, 1]
    assert answers.count("signed") == 1
    assert any("another server signs with the same key" in answer for answer in answers)


def test_without_an_anchor_nothing_is_signed(store: SegmentStore, signer: SignerKey, tmp_path: Path) -> None:
    with pytest.raises(FrozenError, match="is missing"):
        open_anchor(tmp_path / "none", signer.verifier, store, Nodes(store))
    halted = Sequencer(store, signer, clock=lambda: 1, on_commit=lambda *_: None, anchor=None, halted="why")
    with pytest.raises(FrozenError, match="why"):
        halted.append(submission(0))
    assert store.head().size == 0


def test_an_anchor_that_cannot_be_written_makes_the_outcome_unknown(
    store: SegmentStore, signer: SignerKey, anchor: Anchor, monkeypatch: pytest.MonkeyPatch
) -> None:
    grown = grow(store, signer, anchor)
    monkeypatch.setattr("os.fdatasync", fail)
    with pytest.raises(Exception, match="outcome is unknown"):
        grown.append(submission(3))
    assert grown.broken


def test_what_a_killed_writer_committed_is_in_the_anchor_before_a_retry_is_answered(
    store: SegmentStore, signer: SignerKey, anchor: Anchor, tmp_path: Path
) -> None:
    keyed = replace(submission(0), key=bytes(32))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Anchor, "put", lambda *_: raise_killed())
        with pytest.raises(Killed):
            sequencer(store, signer, anchor).append(keyed)
    assert (store.head().size, anchor.newest().checkpoint.size) == (1, 0)
    other = Anchor.open(tmp_path / "payments.anchor", signer.verifier)
    assert isinstance(sequencer(store, signer, other).append(keyed), RequestRow)
    assert other.newest().note == store.head().note
    other.close()


class Killed(BaseException):
    pass


def raise_killed() -> None:
    raise Killed


def test_nobody_waits_for_ever_for_a_leader_that_is_gone(
    store: SegmentStore, signer: SignerKey, anchor: Anchor, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, said = sequencer(store, signer, anchor), list[str]()
    here = Barrier(3)

    def append(number: int) -> None:
        here.wait()
        try:
            one.append(submission(number))
        except (Killed, OutcomeUnknownError) as error:
            said.append(type(error).__name__)

    monkeypatch.setattr(Anchor, "put", lambda *_: raise_killed())
    threads = [Thread(target=append, args=(number,)) for number in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert len(said) == 3


def test_a_sync_that_failed_is_not_believed_the_next_time(
    anchor: Anchor, signer: SignerKey, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, real = tmp_path / "payments.anchor", os.fdatasync
    anchor.advance(*head_of(signer, 5))
    anchor.put(*head_of(signer, 6))
    monkeypatch.setattr("os.fdatasync", fail)
    with pytest.raises(OSError, match="Input/output error"):
        anchor.sync(6)
    monkeypatch.setattr("os.fdatasync", real)
    with pytest.raises(OSError, match="could not be synced before"):
        anchor.sync(6)
    with pytest.raises(OSError, match="could not be synced before"):
        anchor.put(*head_of(signer, 7))
    # The next process writes it anew, as what is read may be nowhere else than in memory.
    writes, pwrite = list[int](), os.pwrite

    def write(file: int, content: bytes, at: int) -> int:
        writes.append(at)
        return pwrite(file, content, at)

    monkeypatch.setattr("os.pwrite", write)
    with closing(Anchor.open(path, signer.verifier)) as opened:
        opened.mend()
        assert writes == [opened.newest().place * 4096, 8192]
        opened.mend()
        assert len(writes) == 2


def fail(_: int) -> None:
    raise OSError(5, "Input/output error")


def test_a_damaged_word_of_what_was_synced_keeps_nothing_from_being_synced(
    anchor: Anchor, signer: SignerKey, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    anchor.advance(*head_of(signer, 5))
    with (tmp_path / "payments.anchor").open("r+b") as file:
        file.seek(8192)
        file.write(bytes([1]))
    synced = list[int]()
    monkeypatch.setattr("os.fdatasync", synced.append)
    anchor.advance(*head_of(signer, 6))
    assert len(synced) == 2
    anchor.advance(*head_of(signer, 7))
    assert len(synced) == 3


def test_of_two_heads_of_one_size_the_second_is_not_put_in(anchor: Anchor, signer: SignerKey) -> None:
    anchor.advance(*head_of(signer, 5))
    with pytest.raises(FrozenError, match="another history"):
        anchor.advance(*head_of(signer, 5, byte=2))


def test_a_segment_from_before_there_were_anchors_is_given_one(tmp_path: Path, signer: SignerKey) -> None:
    path = tmp_path / "old.db"
    SegmentStore.create(path, sign_head(EMPTY_TREE, 1000, signer))
    store = SegmentStore(path)
    with store.write() as transaction:
        transaction._connection.execute("update head set anchored = 0")
    anchor = open_anchor(tmp_path / "anchors" / "one", signer.verifier, store, Nodes(store))
    assert anchor.newest().note == store.head().note
    anchor.close()
    # And only once.
    (tmp_path / "anchors" / "one").unlink()
    with pytest.raises(FrozenError, match="is missing"):
        open_anchor(tmp_path / "anchors" / "one", signer.verifier, store, Nodes(store))
    store.close()


# The server


def frozen_of(segment: Segment) -> dict[str, object]:
    found = segment.get("").json()["frozen"]
    assert isinstance(found, dict)
    return found


def expect_frozen(segment: Segment, size: int, words: str) -> None:
    """Expect reads to be served as ever, and nothing to be signed."""
    assert segment.checkpoint().size == size
    assert segment.get(f"/tile/entries/000.p/{size}").status_code == 200
    assert segment.get(f"/proof/inclusion/{size}/0").status_code == 200
    refused = segment.post(b"9")
    assert (refused.status_code, refused.json()["type"]) == (409, "urn:tlog:problem:frozen")
    assert words in refused.json()["detail"]
    assert words in str(frozen_of(segment)["reason"])
    assert frozen_of(segment)["witness"] is None


def test_a_head_is_in_the_anchor_before_it_is_shown(tmp_path: Path, start_server: Starting) -> None:
    segment = start_server(tmp_path / "data").create("payments")
    segment.append(b"1")
    [anchor] = [path for path in (tmp_path / "data.anchor").iterdir() if b"payments" in path.read_bytes()]
    behind = anchor.read_bytes()
    segment.append(b"2")
    # As after a crash between a commit and this.
    anchor.write_bytes(behind)
    assert segment.checkpoint().size == 2
    with closing(Anchor.open(anchor, segment.key)) as opened:
        assert opened.newest().checkpoint.size == 2


def test_an_older_copy_serves_reads_and_signs_nothing(tmp_path: Path, start_server: Starting) -> None:
    data = tmp_path / "data"
    server = start_server(data)
    key = server.create("payments").key
    first = server.segment("payments", str(key)).append(b"1\n2\n", NDJSON, key="one")
    assert server.stop() == 0
    shutil.copytree(data, tmp_path / "old")
    server = start_server(data)
    server.segment("payments", str(key)).append(b"3")
    assert server.stop() == 0
    shutil.rmtree(data)
    (tmp_path / "old").rename(data)
    segment = start_server(data).segment("payments", str(key))
    expect_frozen(segment, 2, "has a head of 3 entries, and the segment has 2")
    # A retry of what is there gets its receipt, under the head that was signed already.
    assert segment.post(b"1\n2\n", NDJSON, key="one").content == first


def test_a_copy_without_the_anchor_signs_nothing_and_others_are_not_touched(
    tmp_path: Path, start_server: Starting
) -> None:
    data = tmp_path / "data"
    server = start_server(data)
    key = server.create("payments").key
    server.segment("payments", str(key)).append(b"1")
    assert server.stop() == 0
    shutil.copytree(data, tmp_path / "copy")
    expect_frozen(start_server(tmp_path / "copy").segment("payments", str(key)), 1, "is missing")
    assert start_server(data).segment("payments", str(key)).post(b"2").status_code == 201


def test_of_two_copies_with_one_anchor_one_alone_goes_on(tmp_path: Path, start_server: Starting) -> None:
    data = tmp_path / "data"
    server = start_server(data)
    key = server.create("payments").key
    server.segment("payments", str(key)).append(b"1")
    assert server.stop() == 0
    shutil.copytree(data, tmp_path / "copy")
    anchor = {"TLOG_ANCHOR": str(Config(data).anchor_of("x").parent)}
    one = start_server(data).segment("payments", str(key))
    two = start_server(tmp_path / "copy", environment=anchor).segment("payments", str(key))
    assert one.post(b"2").status_code == 201
    expect_frozen(two, 1, "has a head of 2 entries, and the segment has 1")
    assert one.post(b"3").status_code == 201


def test_a_log_whose_control_is_frozen_starts_and_serves_reads(tmp_path: Path, start_server: Starting) -> None:
    data = tmp_path / "data"
    server = start_server(data)
    segment = server.create("payments")
    segment.append(b"1")
    assert server.stop() == 0
    shutil.copytree(data, tmp_path / "copy")
    (tmp_path / "copy" / "issuers.toml").write_text(
        '[[issuer]]\nissuer = "https://ci.example"\naudience = ["tlog"]\nalgorithms = ["ES256"]\nname_prefix = "ci:"\n'
    )
    server = start_server(tmp_path / "copy", guarded=True)
    assert "issuers.toml is not taken" in server.log.read_text()
    assert server.request("GET", "/readyz").status == 200
