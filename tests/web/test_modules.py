"""The modules that verify in a browser agree with spec/vectors and with the core, here under Node.js."""

import json
import unicodedata
from collections.abc import Iterator
from dataclasses import astuple
from pathlib import Path
from random import Random
from typing import Any

import pytest
from nodejs import needs_node, outcomes

from tlog.web.visible import visible
from tlog_core.bulletin import Bulletin, open_bulletin
from tlog_core.encoding import canonical_json, encode_base64
from tlog_core.errors import MalformedError, TlogError
from tlog_core.evidence import evidence_heads, parse_evidence
from tlog_core.merkle import Frontier, Hash, NodeReader, leaf_hash, node_hash, range_hash
from tlog_core.note import SUBTREE, parse_verifier, sign_note, signer_from_seed
from tlog_core.policy import open_witnessed, parse_policy
from tlog_core.proof import (
    cover,
    prove_consistency,
    prove_inclusion,
    prove_prefix,
    prove_range,
    prove_subtree,
)

VECTORS = Path(__file__).parent.parent.parent / "spec" / "vectors"
SAID = {
    "accept": "accepted",
    "malformed": "malformed",
    "signature": "refused",
    "proof": "refused",
    "evidence": "refused",
}
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
NO_BASE64 = ["not base64", "base64 is not canonical"]
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
    unchecked = folder == "cosignature" and is_by_ml_dsa(case) and case["expect"] == "accept"
    return "refused" if unchecked else SAID[case["expect"]]


@pytest.mark.parametrize("options", [(), ("--without-ed25519",)], ids=["WebCrypto", "noble"])
def test_the_modules_agree_with_the_vectors(options: tuple[str, ...]) -> None:
    cases = [(folder, name, case) for folder in COVERED for name, case in vectors(folder).items()]
    found = outcomes([(folder, case) for folder, _, case in cases], *options)
    assert {(folder, name): said for (folder, name, _), said in zip(cases, found, strict=True)} == {
        (folder, name): expected(folder, case) for folder, name, case in cases
    }
    assert len(cases) > 250


def test_no_folder_of_vectors_is_left_out_unsaid() -> None:
    folders = {path.name for path in VECTORS.iterdir() if path.is_dir()}
    assert NOT_COVERED.keys() < folders
    assert outcomes([(folder, {}) for folder in sorted(NOT_COVERED)]) == ["unknown"] * len(NOT_COVERED)


def test_what_only_ml_dsa_cosigned_is_never_counted() -> None:
    cases = vectors("cosignature").values()
    unchecked = [("cosignature", case) for case in cases if is_by_ml_dsa(case) and case["expect"] == "accept"]
    assert set(outcomes(unchecked)) == {"refused"}


@pytest.fixture
def chance(request: pytest.FixtureRequest) -> Random:
    return Random(request.node.name)  # noqa: S311 - repeatable, not secret


def test_the_modules_accept_what_the_core_proves_and_refuse_each_flipped_bit(chance: Random) -> None:
    cases = [case for _ in range(60) for case in proofs_of_a_tree(chance)]
    assert set(outcomes(cases)) == {"accepted"}
    flipped = [(folder, flip(folder, case, chance)) for folder, case in cases for _ in range(3)]
    assert set(outcomes(flipped)) == {"refused"}


def test_the_modules_take_sizes_beyond_2_to_the_53() -> None:
    # A tree whose leaves are all alike has one node a level, however large it is.
    row = [Hash(bytes(32))]
    for _ in range(62):
        row.append(node_hash(row[-1], row[-1]))
    size, index = 2**62 + 12_345, 2**62 + 1
    root = range_hash(0, size, lambda level, _: row[level])
    proof = [each.hex() for each in prove_inclusion(index=index, size=size, node=lambda level, _: row[level])]
    case = {"leaf": row[0].hex(), "size": str(size), "proof": proof, "root": root.hex()}
    found = outcomes([("inclusion", {**case, "index": str(place)}) for place in (index, index + 2**40)])
    assert found == ["accepted", "refused"]


@pytest.mark.parametrize("options", [(), ("--without-ed25519",)], ids=["WebCrypto", "noble"])
def test_a_signature_with_a_part_of_small_order_is_refused(options: tuple[str, ...]) -> None:
    assert outcomes([("torsion", {"order": order}) for order in (1, 2, 4, 8)], *options) == [
        "accepted",
        *["refused"] * 3,
    ]


def test_the_modules_say_of_each_bulletin_what_the_core_says(chance: Random) -> None:
    signer = signer_from_seed("monitor.example", bytes(32))
    texts = [case["bulletin"].partition("\n\n")[0] for case in vectors("bulletin").values() if "bulletin" in case]
    due = []
    for _ in range(600):
        note = bytes(sign_note(altered(chance.choice(texts), chance), signer)).decode()
        case = {"bulletin": note, "vkey": str(signer.verifier)}
        try:
            opened = open_bulletin(note.encode(), signer.verifier)
        except TlogError as error:
            # `atob` takes what lacks its padding, and it is refused for its form.
            said = NO_BASE64 if str(error) in NO_BASE64 else [str(error)]
            due.append(("refusedBulletin", {**case, "said": said}))
        else:
            due.append(("bulletin", case | bulletin_members(opened)))
    assert outcomes(due) == ["accepted"] * len(due)
    assert 50 < len([kind for kind, _ in due if kind == "bulletin"]) < 550


def altered(text: str, chance: Random) -> str:
    """Return the text of a bulletin with a word or a line that is another, twice, gone or elsewhere; or as it was."""
    lines = [line.split(" ") for line in text.split("\n")]
    line = chance.randrange(len(lines))
    word = chance.randrange(len(lines[line]))
    words = [
        "0",
        "01",
        "4097",
        "9223372036854775808",
        "",
        "AAE=",
        "x",
        "head",
        "convicted",
        "finding",
        "evidence",
        "fork",
    ]
    match chance.randrange(6):
        case 0:
            lines[line][word] = chance.choice(words)
        case 1:
            lines[line].insert(word, chance.choice(words))
        case 2:
            lines.insert(chance.randrange(len(lines)), lines[line])
        case 3:
            lines.insert(chance.randrange(len(lines)), lines.pop(line))
        case 4:
            lines.pop(line)
    return "".join(" ".join(words) + "\n" for words in lines)


def bulletin_members(said: Bulletin) -> dict[str, Any]:
    """Return a bulletin as the vectors give it."""
    return {
        "origin": said.origin,
        "time": str(said.time),
        "head": said.head and {"size": str(said.head.size), "root": said.head.root.hex(), "time": str(said.head.time)},
        "gossip": said.gossip
        and {"time": str(said.gossip.time), "asked": said.gossip.asked, "heard": said.gossip.heard},
        "convicted": said.convicted,
        "findings": [{"class": one.found, "kind": one.kind, "number": str(one.number)} for one in said.tallies],
    }


def test_base64_has_one_form() -> None:
    whole = encode_base64(b"\0\1")
    others = ["AAF=", "AAE", "AAE=\n", " AAE=", "AAE==", "A-E=", "AAE=AAE=", "=", "A"]
    found = outcomes([("base64", {"text": text, "data": "0001"}) for text in (whole, *others)])
    assert found == ["accepted", *["malformed"] * len(others)]


def test_an_entry_of_more_than_65535_bytes_is_none() -> None:
    members = {"commitment": encode_base64(bytes(32)), "origin": "", "time": 0, "v": 1, "writer": "w"}
    empty = len(canonical_json({**members, "origin": ""}))
    raw = [canonical_json({**members, "origin": "o" * (length - empty)}) for length in (65_535, 65_536)]
    cases = [{"entry": one.decode(), "leaf_hash": leaf_hash(one).hex()} for one in raw]
    assert outcomes(("entry", case) for case in cases) == ["accepted", "malformed"]


def test_a_cosignature_from_the_future_proves_nothing_yet() -> None:
    case = vectors("evidence")["a-backdated-entry"]
    policy = parse_policy(case["policy"].encode())
    earlier = evidence_heads(parse_evidence(case["evidence"].encode()))[1]
    time = open_witnessed(bytes(earlier), policy).time
    assert time is not None
    cases = [{**case, "now": time - ahead} for ahead in (300, 301)]
    assert outcomes(("evidence", one) for one in cases) == ["accepted", "refused"]


def test_what_a_page_would_not_show_is_made_visible_as_the_server_does() -> None:
    texts = [
        "a\u202eb",
        "\x1b[31m",
        "é😀\n\t\r",
        "\U000e0041",
        "\u2028\u2029\u00ad\u200d\ufeff\ue000\uffff\x7f\x85\xa0",
    ]
    cases = [{"text": text, "keep": keep, "shown": visible(text, keep)} for text in texts for keep in ("", "\n")]
    assert outcomes(("visible", case) for case in cases) == ["accepted"] * len(cases)


def test_json_by_lines_has_its_tokens_as_they_are_stored_and_in_their_order() -> None:
    texts = ['{"10":{},"2":[],"~":["a\\"{[,:",1e+21,-0.5,{"é":null}]}', '"[,]"', "7", "[[]]", "{}"]
    cases = [{"text": one, "lines": json.dumps(json.loads(one), indent=2, ensure_ascii=False)} for one in texts]
    # It may take 2 MiB, and not a byte more.
    fits = [f'["{"x" * (2**21 - length)}"]' for length in (8, 7)]
    cases += [{"text": fits[0], "lines": f"[\n  {fits[0][1:-1]}\n]"}, {"text": fits[1], "lines": fits[1]}]
    assert outcomes([("lines", case) for case in cases]) == ["accepted"] * len(cases)


def test_names_of_members_are_not_taken_for_those_of_others() -> None:
    due = {"names": ["a", "b"], "together": ["c", "d"]}
    taken = ['{"b":1,"a":2}', '{"a":1,"b":2,"c":3,"d":4}']
    others = [
        '{"a,b":1}',
        '{"a":1,"b,c":2,"d":3}',
        '{"a":1}',
        '{"a":1,"b":2,"c":3}',
        '{"a":1,"b":2,"x":3,"y":4}',
        "[]",
        "null",
    ]
    found = outcomes([("members", {**due, "json": json}) for json in taken + others])
    assert found == ["accepted"] * len(taken) + ["malformed"] * len(others)


def test_no_character_is_hidden_from_a_script_alone_or_from_the_server_alone() -> None:
    # Of those that are unassigned here, another release of Unicode may know some.
    known = (chr(code) for code in range(0x110000) if unicodedata.category(chr(code)) not in ("Cn", "Cs"))
    text = "".join(known)
    assert outcomes([("visible", {"text": text, "keep": "", "shown": visible(text)})]) == ["accepted"]
    assert visible("\u3164\u115f\u2800\ufe0f\u034f") == "[U+3164][U+115F][U+2800][U+FE0F][U+034F]"


def test_a_whole_number_that_is_written_as_a_fraction_is_no_index() -> None:
    case = next(case for case in vectors("receipt").values() if case["expect"] == "accept")
    members = json.loads(case["receipt"])
    index = members.pop("index")
    found = [
        {**case, "receipt": json.dumps(members)[:-1] + f', "index": {written}}}'}
        for written in (str(index), f"{index}.0", f"{index}e0")
    ]
    assert outcomes([("receipt", one) for one in found]) == ["accepted", "malformed", "malformed"]


def proofs_of_a_tree(chance: Random) -> Iterator[Case]:
    """Yield one proof of each kind of a tree of 2 to 300 leaves."""
    size = chance.randint(2, chance.choice([4, 9, 300]))
    leaves = [Hash(chance.randbytes(32)) for _ in range(size)]
    node = Frontier().grow(leaves).node
    whole = {"size": size, "root": range_hash(0, size, node).hex()}
    index = chance.randrange(size)
    proof = prove_inclusion(index=index, size=size, node=node)
    yield "inclusion", {**whole, "index": index, "leaf": leaves[index].hex(), "proof": hexes(proof)}
    yield from prefixes(chance.randint(1, size - 1), size, node)
    start = chance.randrange(size)
    end = chance.randint(start + 1, size)
    for low, high in cover(start, end):
        if low < high:
            part = range_hash(low, high, node).hex()
            proof = prove_subtree(start=low, end=high, size=size, node=node)
            yield "subtree", {**whole, "start": low, "end": high, "subtree": part, "proof": hexes(proof)}
    _, left, right = astuple(prove_range(start=start, end=end, size=size, node=node))
    sides = {"left": hexes(left), "right": hexes(right)}
    yield "range", {**whole, **sides, "start": start, "leaves": hexes(leaves[start:end])}


def prefixes(old_size: int, new_size: int, node: NodeReader) -> Iterator[Case]:
    old_root, new_root = (range_hash(0, size, node).hex() for size in (old_size, new_size))
    whole = {"old_size": old_size, "new_size": new_size, "old_root": old_root, "new_root": new_root}
    proof = prove_consistency(old_size=old_size, new_size=new_size, node=node)
    yield "consistency", {**whole, "proof": hexes(proof)}
    yield "prefix", {**whole, "proof": hexes(prove_prefix(old_size=old_size, new_size=new_size, node=node))}


def hexes(hashes: list[Hash] | tuple[Hash, ...]) -> list[str]:
    return [value.hex() for value in hashes]


def flip(folder: str, case: dict[str, Any], chance: Random) -> dict[str, Any]:
    """Return a case with one bit of one of its hashes turned over."""
    # The old root is what a prefix proof yields.
    given = {name: value for name, value in case.items() if (folder, name) != ("prefix", "old_root")}
    name = chance.choice([name for name, value in given.items() if value and not isinstance(value, int)])
    if isinstance(case[name], str):
        return {**case, name: flip_bit(case[name], chance)}
    place = chance.randrange(len(case[name]))
    return {**case, name: [*case[name][:place], flip_bit(case[name][place], chance), *case[name][place + 1 :]]}


def flip_bit(text: str, chance: Random) -> str:
    data = bytearray.fromhex(text)
    data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
    return data.hex()
