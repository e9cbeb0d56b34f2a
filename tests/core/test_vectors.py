"""The core agrees with every file of spec/vectors, and the files are those that scripts/vectors writes."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tlog_client.bundle.manifest import parse_manifest
from tlog_core.bulletin import open_bulletin
from tlog_core.checkpoint import open_checkpoint
from tlog_core.commitment import Commitment, Opening, verify_commitment
from tlog_core.cosignature import Subtree, open_cosignature, verify_cosigned_subtree
from tlog_core.encoding import canonicalize, decode_base64
from tlog_core.entry import parse_entry, writer_message
from tlog_core.errors import EvidenceError, MalformedError, ProofError, SignatureError
from tlog_core.evidence import describe_evidence, format_evidence, parse_evidence
from tlog_core.gossip import open_peers, parse_message
from tlog_core.merkle import Hash, leaf_hash
from tlog_core.note import Signature, open_note, open_parsed, parse_note, parse_verifier
from tlog_core.policy import open_witnessed, parse_policy
from tlog_core.proof import (
    prefix_root,
    verify_consistency,
    verify_inclusion,
    verify_range,
    verify_subset,
    verify_subtree,
)
from tlog_core.receipt import mint_receipts, parse_batch_receipt, parse_receipt, verify_receipt
from tlog_core.tile import Tile, join_bundle, parse_path, split_bundle
from tlog_core.tlog_proof import parse_tlog_proof
from tlog_core.writer import parse_writer_key, verify_writer

Case = dict[str, Any]

ROOT = Path(__file__).parent.parent.parent
VECTORS = ROOT / "spec" / "vectors"
REFUSALS = {"malformed": MalformedError, "signature": SignatureError, "proof": ProofError, "evidence": EvidenceError}


def raw(case: Case, member: str) -> bytes:
    """Return the bytes of a member that is text, or hex under another name."""
    if f"{member}_hex" in case:
        return bytes.fromhex(case[f"{member}_hex"])
    text: str = case[member]
    return text.encode()


def one(case: Case, member: str) -> Hash:
    return Hash(bytes.fromhex(case[member]))


def many(case: Case, member: str) -> list[Hash]:
    return [Hash(bytes.fromhex(value)) for value in case[member]]


def inclusion(case: Case) -> None:
    verify_inclusion(
        leaf=one(case, "leaf"),
        index=case["index"],
        size=case["size"],
        proof=many(case, "proof"),
        root=one(case, "root"),
    )


def consistency(case: Case) -> None:
    verify_consistency(
        old_size=case["old_size"],
        new_size=case["new_size"],
        old_root=one(case, "old_root"),
        new_root=one(case, "new_root"),
        proof=many(case, "proof"),
    )


def subtree(case: Case) -> None:
    verify_subtree(
        start=case["start"],
        end=case["end"],
        subtree=one(case, "subtree"),
        size=case["size"],
        proof=many(case, "proof"),
        root=one(case, "root"),
    )


def prefix(case: Case) -> None:
    found = prefix_root(
        old_size=case["old_size"],
        new_size=case["new_size"],
        proof=many(case, "proof"),
        new_root=one(case, "new_root"),
    )
    assert found == one(case, "old_root")


def leaf_range(case: Case) -> None:
    verify_range(
        leaves=many(case, "leaves"),
        start=case["start"],
        size=case["size"],
        left=many(case, "left"),
        right=many(case, "right"),
        root=one(case, "root"),
    )


def subset(case: Case) -> None:
    verify_subset(
        indexes=case["indexes"],
        leaves=many(case, "leaves"),
        size=case["size"],
        proof=many(case, "proof"),
        root=one(case, "root"),
    )


def vkey(case: Case) -> None:
    key = parse_verifier(case["vkey"])
    assert (key.name, key.id.hex(), key.type, key.public.hex()) == (
        case["name"],
        case["key_id"],
        case["type"],
        case["public"],
    )


def note(case: Case) -> None:
    opened = open_note(raw(case, "note"), [parse_verifier(text) for text in case["vkeys"]])
    assert [line.name for line in opened.signatures] == case["signers"]


def checkpoint(case: Case) -> None:
    opened = open_checkpoint(raw(case, "checkpoint"), parse_verifier(case["vkey"]))
    assert (opened.origin, str(opened.size), opened.root.hex()) == (case["origin"], case["size"], case["root"])


def cosignature(case: Case) -> None:
    opened = open_cosignature(parse_note(raw(case, "note")), parse_verifier(case["vkey"]))
    assert opened.time == case["time"]


def subtree_cosignature(case: Case) -> None:
    key = parse_verifier(case["vkey"])
    line = Signature(key.name, key.id, decode_base64(case["signature"]))
    part = Subtree(case["origin"], case["start"], case["end"], Hash(bytes.fromhex(case["hash"])))
    verify_cosigned_subtree(line, part, key)


def policy(case: Case) -> None:
    read = parse_policy(raw(case, "policy"))
    opened = open_witnessed(raw(case, "checkpoint"), read)
    assert (dict(opened.cosigned), opened.time) == (case["cosigned"], case["time"])
    assert parse_policy(bytes(read)) == read


def evidence(case: Case) -> None:
    found = parse_evidence(raw(case, "evidence"))
    assert format_evidence(found) == raw(case, "evidence")
    assert describe_evidence(found, parse_policy(raw(case, "policy"))) == case["sentence"]


def bulletin(case: Case) -> None:
    found = open_bulletin(raw(case, "bulletin"), parse_verifier(case["vkey"]))
    head, gossip = found.head, found.gossip
    assert (found.origin, str(found.time), found.convicted) == (case["origin"], case["time"], case["convicted"])
    assert case["head"] == (head and {"size": str(head.size), "root": head.root.hex(), "time": str(head.time)})
    assert case["gossip"] == (gossip and {"time": str(gossip.time), "asked": gossip.asked, "heard": gossip.heard})
    assert case["findings"] == [
        {"class": one.found, "kind": one.kind, "number": str(one.number)} for one in found.tallies
    ]


def gossip(case: Case) -> None:
    read, key = parse_message(raw(case, "message")), parse_verifier(case["vkey"])
    open_parsed(read.note, [key])
    message = read.message
    assert read.sender == (key.name, key.id)
    assert (str(message.to), message.time) == (case["to"], case["time"])
    assert message.request == (bytes.fromhex(case["request"]) if case["request"] else None)
    assert [item.hex() for item in message.evidence] == case["evidence"]
    assert [item.hex() for item in message.heads] == case["heads"]


def peers(case: Case) -> None:
    found = open_peers(raw(case, "peers"), parse_verifier(case["vkey"]))
    assert [[str(peer.key), peer.url] for peer in found] == case["listed"]


def commitment(case: Case) -> None:
    verify_commitment(
        Commitment(one(case, "commitment")),
        opening=Opening(one(case, "opening")),
        payload_type=case["payload_type"],
        payload=raw(case, "payload"),
    )


def entry(case: Case) -> None:
    parsed = parse_entry(raw(case, "entry"))
    assert leaf_hash(raw(case, "entry")).hex() == case["leaf_hash"]
    assert (parsed.signed is None) == ("writer_vkey" not in case)
    if parsed.signed is not None:
        key = parse_verifier(case["writer_vkey"])
        message = writer_message(
            origin=parsed.origin,
            writer=parsed.writer,
            sequence=parsed.signed.sequence,
            commitment=parsed.commitment,
        )
        assert parsed.signed.signature[:4] == key.id
        key.verify(message, parsed.signed.signature[4:])


def receipt(case: Case) -> None:
    payload = raw(case, "payload") if "payload" in case else None
    verify_receipt(parse_receipt(raw(case, "receipt")), key=parse_verifier(case["vkey"]), payload=payload)


def batch_receipt(case: Case) -> None:
    minted = mint_receipts(
        parse_batch_receipt(raw(case, "receipt")),
        payloads=[payload.encode() for payload in case["payloads"]],
        key=parse_verifier(case["vkey"]),
    )
    assert [bytes(single).decode() for single in minted] == case["receipts"]


def writer(case: Case) -> None:
    verify_writer(parse_entry(raw(case, "entry")), [parse_writer_key(text) for text in case["writer_vkeys"]])


def tlog_proof(case: Case) -> None:
    parsed = parse_tlog_proof(raw(case, "tlog_proof"))
    verify_receipt(parsed, key=parse_verifier(case["vkey"]), payload=raw(case, "payload"))


def tile_path(case: Case) -> None:
    place = parse_path(case["path"])
    level = str(place.level) if isinstance(place, Tile) else "entries"
    assert (level, place.index, place.width) == (case["level"], case["index"], case["width"])
    assert str(place) == case["path"]


def bundle(case: Case) -> None:
    entries = split_bundle(bytes.fromhex(case["bundle"]), case["width"])
    assert [entry.hex() for entry in entries] == case["entries"]
    assert join_bundle(entries).hex() == case["bundle"]


def manifest(case: Case) -> None:
    found = parse_manifest(raw(case, "manifest"))
    looked = {name: None if one is None else range(one["start"], one["end"]) for name, one in case["reserved"].items()}
    assert (found.origin, found.reserved) == (case["origin"], looked)
    assert bytes(found) == raw(case, "manifest")


def canonical(case: Case) -> None:
    assert canonicalize(raw(case, "json")).decode() == case["canonical"]


CHECKS: dict[str, Callable[[Case], None]] = {
    "inclusion": inclusion,
    "consistency": consistency,
    "subtree": subtree,
    "prefix": prefix,
    "range": leaf_range,
    "subset": subset,
    "vkey": vkey,
    "note": note,
    "checkpoint": checkpoint,
    "cosignature": cosignature,
    "subtree-cosignature": subtree_cosignature,
    "policy": policy,
    "evidence": evidence,
    "bulletin": bulletin,
    "gossip": gossip,
    "peers": peers,
    "commitment": commitment,
    "entry": entry,
    "receipt": receipt,
    "batch-receipt": batch_receipt,
    "writer": writer,
    "tlog-proof": tlog_proof,
    "tile-path": tile_path,
    "bundle": bundle,
    "manifest": manifest,
    "json": canonical,
}


@pytest.mark.parametrize("path", sorted(VECTORS.glob("*/*.json")), ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_the_core_agrees_with_the_vector(path: Path) -> None:
    case = json.loads(path.read_text())
    check = CHECKS[path.parent.name]
    if case["expect"] == "accept":
        check(case)
    else:
        with pytest.raises(REFUSALS[case["expect"]]):
            check(case)


def test_every_folder_of_vectors_is_checked_and_described() -> None:
    folders = {path.name for path in VECTORS.iterdir() if path.is_dir()}
    assert folders == CHECKS.keys()
    described = (VECTORS / "README.md").read_text()
    assert all(f"### `{noun}`" in described for noun in CHECKS)


@pytest.mark.parametrize("noun", CHECKS)
def test_every_folder_accepts_and_refuses(noun: str) -> None:
    expected = {json.loads(path.read_text())["expect"] for path in (VECTORS / noun).iterdir()}
    assert "accept" in expected
    assert expected - {"accept"}


def test_the_files_are_those_that_the_script_writes() -> None:
    command = [sys.executable, str(ROOT / "scripts" / "vectors"), "--check"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
