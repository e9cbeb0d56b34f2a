"""The modules that verify in a browser agree with spec/vectors and with the core, here under Node.js."""

import json
from itertools import pairwise
from pathlib import Path
from random import Random
from typing import Any

import pytest
from nodejs import needs_node, outcomes

from tlog_core.merkle import Frontier, Hash, leaf_hash
from tlog_core.note import SUBTREE, parse_verifier
from tlog_core.errors import MalformedError
from tlog_core.proof import is_subtree, prove_consistency, prove_inclusion, prove_range, prove_subtree

VECTORS = Path(__file__).parent.parent.parent / "spec" / "vectors"
SAID = {"accept": "accepted", "malformed": "malformed", "signature": "refused", "proof": "refused", "evidence": "refused"}
NOT_COVERED = {
    "batch-receipt": "a batch is minted by its writer's client, not by a page",
    "bundle": "the pages read no tiles",
    "gossip": "monitors talk to each other, and not to pages",
    "peers": "monitors read lists of peers",
    "subtree-cosignature": "WebCrypto has no ML-DSA-44",
    "tile-path": "the pages read no tiles",
    "tlog-proof": "the pages read receipts as JSON",
}
COVERED = sorted({path.name for path in VECTORS.iterdir() if path.is_dir()} - NOT_COVERED.keys())
Case = tuple[str, dict[str, Any]]

pytestmark = needs_node


def vectors(folder: str) -> dict[str, dict[str, Any]]:
    return {path.stem: json.loads(path.read_text()) for path in sorted((VECTORS / folder).glob("*.json"))}


def is_by_ml_dsa(case: dict[str, Any]) -> bool:
    try:
        return parse_verifier(case.get("vkey", "")).type == SUBTREE
    except MalformedError:
        return False


def expected(folder: str, case: dict[str, Any]) -> str:
    # WebCrypto has no ML-DSA-44: what it cosigned is read, and never counted.
    unchecked = folder == "cosignature" and is_by_ml_dsa(case)
    return "refused" if unchecked else SAID[case["expect"]]


@pytest.mark.parametrize("options", [(), ("--without-ed25519",)], ids=["WebCrypto", "noble"])
def test_the_modules_agree_with_the_vectors(options: tuple[str, ...]) -> None:
    cases = [(folder, name, case) for folder in COVERED for name, case in vectors(folder).items()]
    found = outcomes([(folder, case) for folder, _, case in cases], *options)
    assert {(folder, name): said for (folder, name, _), said in zip(cases, found, strict=True)} == {
        (folder, name): expected(folder, case) for folder, name, case in cases
    }
    assert len(cases) > 250
