"""A witness with a key of ML-DSA-44 beside the other: it cosigns by both, and signs subtrees."""

import stat
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
import reference
from live import Answer
from witnessing import NAME, RunningWitness, command, cosigned, forged, make_log, other_root, start_witness

from tlog_core.cosignature import Subtree, cosign, cosign_subtree, open_cosignature, verify_cosigned_subtree
from tlog_core.encoding import encode_base64
from tlog_core.merkle import Frontier, Hash
from tlog_core.note import SUBTREE, Note, VerifierKey, parse_note, parse_signer, signer_from_seed
from tlog_core.proof import prove_subtree

SIZE = 13
LOG = make_log("example.com/a", SIZE)
OTHER = make_log("example.com/b", SIZE)
STRANGER = make_log("example.com/stranger", SIZE)
NODE = Frontier().grow([Hash(leaf) for leaf in LOG.leaves]).node


@pytest.fixture(scope="module")
def witness(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningWitness]:
    folder = tmp_path_factory.mktemp("witness") / "data"
    running = start_witness(folder, LOG.key, OTHER.key, subtrees=True)
    assert running.add(LOG.body(0, SIZE)).status == 200
    yield running
    assert running.server.stop() == 0
    assert [line for line in running.server.logged() if line["level"] == "error"] == []


def key_of(witness: RunningWitness) -> VerifierKey:
    assert witness.subtree_key is not None
    return witness.subtree_key


def body(
    reference_note: bytes,
    start: object,
    end: object,
    *,
    subtree: bytes | None = None,
    proof: Sequence[bytes] | None = None,
) -> bytes:
    """Return a request for a subtree, by default a right one."""
    first, last = (int(str(number)) for number in (start, end))
    if subtree is None:
        subtree = reference.mth(LOG.leaves[first:last])
    if proof is None:
        proof = prove_subtree(start=first, end=last, size=SIZE, node=NODE)
    lines = "".join(f"{encode_base64(value)}\n" for value in (subtree, *proof))
    return f"subtree {start} {end}\n{lines}\n".encode() + reference_note


def latest(witness: RunningWitness) -> bytes:
    return witness.latest(LOG).body


def signed(answer: Answer, start: int, end: int, key: VerifierKey) -> None:
    assert answer.status == 200, answer.body
    (line,) = parse_note(b"x\n\n" + answer.body).signatures
    part = Subtree(LOG.origin, start, end, Hash(reference.mth(LOG.leaves[start:end])))
    verify_cosigned_subtree(line, part, key)


def test_a_checkpoint_is_cosigned_by_both_keys(witness: RunningWitness) -> None:
    answer = witness.add(OTHER.body(0, 5))
    note = cosigned(OTHER, 5, answer)
    times = {open_cosignature(note, key).time for key in (witness.key, key_of(witness))}
    assert len(times) == 1
    shown = parse_note(witness.latest(OTHER).body)
    assert {open_cosignature(shown, key).time for key in (witness.key, key_of(witness))} == times
    assert len(shown.signatures) == 3


def test_every_subtree_of_a_cosigned_checkpoint_is_signed_and_nothing_else(witness: RunningWitness) -> None:
    shown, count = latest(witness), 0
    for start in range(SIZE):
        for end in range(start + 1, SIZE + 1):
            if start % (1 << (end - start - 1).bit_length()):
                assert witness.sign(body(shown, start, end, proof=[])).status == 400
            else:
                signed(witness.sign(body(shown, start, end)), start, end, key_of(witness))
                count += 1
    assert count == 35


def test_a_subtree_of_a_checkpoint_that_was_cosigned_earlier_is_signed(witness: RunningWitness) -> None:
    early = make_early(witness)
    proof = prove_subtree(start=4, end=6, size=8, node=Frontier().grow([Hash(leaf) for leaf in LOG.leaves[:8]]).node)
    signed(witness.sign(body(early, 4, 6, proof=proof)), 4, 6, key_of(witness))


def make_early(witness: RunningWitness) -> bytes:
    """Return a checkpoint of 8 entries as the witness would have cosigned it, by its key."""
    seed = (witness.server.data / "witness-ml-dsa-44.key").read_text()
    text = LOG.text(8)
    return bytes(Note(text, (cosign(text, time=1, signer=parse_signer(seed)),)))


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"subtree 0 4\n\n",
        b"subtree 0\nAAAA\n\nx\n\ny\n",
        b"subtree 0 4 5\nAAAA\n\nx\n\ny\n",
        b"subtree 00 4\n47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=\n\nx\n\ny\n",
        b"subtree 0 4\n47DEQpj8HBSa\n\nx\n\ny\n",
        b"old 0\n47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=\n\nx\n\ny\n",
        b"subtree 0 \xff\n\nx\n\ny\n",
    ],
    ids=repr,
)
def test_what_is_no_request_is_refused(witness: RunningWitness, raw: bytes) -> None:
    assert witness.sign(raw).status == 400


@pytest.mark.parametrize(("start", "end"), [(4, 4), (6, 4), (2, 5), ("+4", 6), ("04", 6)])
def test_what_is_no_subtree_is_refused(witness: RunningWitness, start: object, end: object) -> None:
    assert witness.sign(body(latest(witness), start, end, subtree=bytes(32), proof=[])).status == 400


def test_a_subtree_beyond_the_checkpoint_is_refused(witness: RunningWitness) -> None:
    assert witness.sign(body(latest(witness), 12, 14, subtree=bytes(32), proof=[])).status == 400


def test_64_hashes_of_a_proof_are_too_many(witness: RunningWitness) -> None:
    right = body(latest(witness), 4, 6)
    assert witness.sign(body(latest(witness), 4, 6, proof=[bytes(32)] * 64)).status == 400
    assert witness.sign(body(latest(witness), 4, 6, proof=[bytes(32)] * 63)).status == 422
    assert witness.sign(right).status == 200


def test_an_origin_that_is_not_on_the_list_is_unknown(witness: RunningWitness) -> None:
    text = STRANGER.text(SIZE)
    note = bytes(Note(text, parse_note(latest(witness)).signatures))
    assert witness.sign(body(note, 4, 6)).status == 404


def test_only_a_checkpoint_with_its_own_cosignature_by_that_key_counts(witness: RunningWitness) -> None:
    note = parse_note(latest(witness))
    key = key_of(witness)
    own = next(line for line in note.signatures if line.key_id == key.id)
    others = tuple(line for line in note.signatures if line.key_id != key.id)
    part = cosign_subtree(
        Subtree(LOG.origin, 0, SIZE, Hash(reference.mth(LOG.leaves))),
        signer_from_seed(NAME, bytes(32), key_type=SUBTREE),
    )
    for lines in (others, (part,), (forged(key, 2_428),), (own, forged(key, 2_428))):
        assert witness.sign(body(bytes(Note(note.text, lines)), 4, 6)).status == 403
    assert witness.sign(body(bytes(Note(LOG.text(SIZE, other_root()), (own,))), 4, 6)).status == 403
    assert witness.sign(body(bytes(Note(note.text, (own,))), 4, 6)).status == 200


def test_a_proof_that_does_not_hold_is_refused(witness: RunningWitness) -> None:
    shown = latest(witness)
    proof = prove_subtree(start=4, end=6, size=SIZE, node=NODE)
    for wrong in (proof[:-1], [*proof, bytes(32)], [bytes(32), *proof[1:]], []):
        assert witness.sign(body(shown, 4, 6, proof=wrong)).status == 422
    assert witness.sign(body(shown, 4, 6, subtree=other_root())).status == 422


def test_a_witness_without_the_key_signs_no_subtrees(tmp_path: Path) -> None:
    running = start_witness(tmp_path / "data", LOG.key)
    try:
        assert running.subtree_key is None
        answer = running.add(LOG.body(0, SIZE))
        assert answer.body.count(b"\n") == 1
        assert running.sign(body(running.latest(LOG).body, 4, 6)).status == 404
    finally:
        running.server.kill()


def test_a_witness_that_is_given_the_key_later_goes_on_from_where_it_was(tmp_path: Path) -> None:
    running = start_witness(tmp_path / "data", LOG.key)
    assert running.add(LOG.body(0, 8)).status == 200
    running.server.stop()
    again = start_witness(tmp_path / "data", LOG.key, subtrees=True)
    try:
        assert again.key == running.key
        assert again.add(LOG.body(0, SIZE)).status == 409
        note = cosigned(LOG, SIZE, again.add(LOG.body(8, SIZE)))
        assert open_cosignature(note, key_of(again)).time == open_cosignature(note, again.key).time
    finally:
        again.server.kill()


def test_the_key_is_a_secret_made_once_and_no_other_is_taken(tmp_path: Path) -> None:
    def key(*more: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(command(tmp_path / "w", "key", *more), capture_output=True, text=True, check=False)

    made = key("--name", NAME, "--ml-dsa-44").stdout
    assert len(made.split()) == 2
    assert key().stdout == key("--ml-dsa-44").stdout == made
    path = tmp_path / "w" / "witness-ml-dsa-44.key"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    for wrong in (
        b"\xff",
        b"",
        signer_from_seed("other.example", bytes(32), key_type=SUBTREE).format().encode(),
        signer_from_seed(NAME, bytes(32)).format().encode(),
    ):
        path.write_bytes(wrong)
        refused = key()
        assert refused.returncode != 0
        assert "put the right one back" in refused.stderr


def test_a_name_of_256_bytes_has_no_key_of_ml_dsa_44(tmp_path: Path) -> None:
    name = "w" * 256
    done = subprocess.run(
        command(tmp_path / "w", "key", "--name", name, "--ml-dsa-44"), capture_output=True, text=True, check=False
    )
    assert done.returncode != 0
    assert "255 bytes" in done.stderr
