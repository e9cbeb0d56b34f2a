"""Checkpoints, tiles, bundles and proofs, byte for byte as C2SP tlog-tiles and RFC 9162 say.

What is right is computed here from the entries, by `reference` and by the words of the specification alone.
"""

import base64
import gzip
import hashlib
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from random import Random

import pytest
import reference
import zstandard
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from live import LOG_NAME, NDJSON, Answer, Segment, Server

from tlog.store.codec import decode_entries, entry_runs

# At each of these sizes the log signed a checkpoint.
SIZES = [1, 2, 3, 200, 255, 256, 257, 300, 511, 512, 513, 10_300, 60_000, 65_535, 65_536, 65_537, 65_800, 70_000]
IMMUTABLE = "public, max-age=31536000, immutable"


@dataclass(frozen=True)
class Grown:
    """A log that grew through SIZES: its entries, leaf hashes, and the checkpoint at each size."""

    server: Server
    segment: Segment
    entries: list[bytes]
    leaves: list[bytes]
    notes: dict[int, bytes]

    def fetch(self, path: str, **headers: str) -> Answer:
        return self.server.request("GET", f"/segments/{self.segment.name}{path}", None, headers)


# Of the session, as its server is: tests of a module may be taken apart, and it would be made twice.
@pytest.fixture(scope="session")
def grown(server: Server) -> Grown:
    segment = server.create("grown")
    notes = {0: segment.note()}
    size = 0
    for target in SIZES:
        while size < target:
            count = min(target - size, 10_000)
            segment.append(b"".join(b'{"n":%d}\n' % number for number in range(size, size + count)), NDJSON)
            size += count
        notes[size] = segment.note()
    entries = [entry["entry"].encode() for entry in segment.entries(0, size)]
    return Grown(server, segment, entries, [reference.leaf(entry) for entry in entries], notes)


# Tiles


@dataclass(frozen=True)
class Place:
    """A tile of level and index, and its width; the path as tlog-tiles spells it."""

    level: int
    index: int
    width: int

    def number(self) -> str:
        groups: list[str] = []
        number = self.index
        while number >= 1000:
            groups.insert(0, f"{number % 1000:03}")
            number //= 1000
        groups.insert(0, f"{number:03}")
        return "x".join(["", *(group + "/" for group in groups[:-1])]) + groups[-1]

    def suffix(self) -> str:
        return f"{self.number()}.p/{self.width}" if self.width < 256 else self.number()


def tiles(size: int) -> Iterator[Place]:
    """Yield every tile that a log of this size has: full ones, and the partial one of each level."""
    for level in range(8):
        nodes = size // 256**level
        yield from (Place(level, index, 256) for index in range(nodes // 256))
        if nodes % 256:
            yield Place(level, nodes // 256, nodes % 256)


def tile_bytes(leaves: list[bytes], place: Place) -> bytes:
    span = 256**place.level
    first = place.index * 256 * span
    starts = range(first, first + place.width * span, span)
    return b"".join(reference.mth(leaves[start : start + span]) for start in starts)


def bundle_bytes(entries: list[bytes], place: Place) -> bytes:
    first = place.index * 256
    return b"".join(len(entry).to_bytes(2, "big") + entry for entry in entries[first : first + place.width])


def test_the_tiles_of_a_size_are_those_that_the_specification_names() -> None:
    # The examples of C2SP tlog-tiles, against which the helpers above are checked.
    of_70_000 = set(tiles(70_000))
    assert {place for place in of_70_000 if place.level} == {Place(1, 0, 256), Place(1, 1, 17), Place(2, 0, 1)}
    assert len({place for place in of_70_000 if place.level == 0 and place.width == 256}) == 273
    assert Place(0, 273, 112) in of_70_000
    assert set(tiles(256)) == {Place(0, 0, 256), Place(1, 0, 1)}
    assert Place(0, 1_234_067, 5).suffix() == "x001/x234/067.p/5"


def test_every_tile_of_every_size_that_was_signed_is_served(grown: Grown) -> None:
    places = {place for size in SIZES for place in tiles(size)}
    assert len([place for place in places if place.width < 256]) >= len(SIZES)
    for place in places:
        answer = grown.fetch(f"/tile/{place.level}/{place.suffix()}")
        assert (answer.status, answer.body) == (200, tile_bytes(grown.leaves, place)), place
        assert answer.headers["Content-Type"] == "application/octet-stream"
        assert answer.headers["Cache-Control"] == IMMUTABLE
        assert "Content-Encoding" not in answer.headers


def test_every_bundle_of_every_size_that_was_signed_is_served(grown: Grown) -> None:
    for place in {place for size in SIZES for place in tiles(size) if place.level == 0}:
        answer = grown.fetch(f"/tile/entries/{place.suffix()}")
        assert (answer.status, answer.body) == (200, bundle_bytes(grown.entries, place)), place
        assert answer.headers["Content-Type"] == "application/octet-stream"
        assert answer.headers["Cache-Control"] == IMMUTABLE


def test_a_tile_has_every_width_up_to_its_own(grown: Grown) -> None:
    wide = {level: tile_bytes(grown.leaves, Place(level, 0, 256)) for level in (0, 1)}
    for width in range(1, 256):
        for level, expected in wide.items():
            assert grown.fetch(f"/tile/{level}/{Place(level, 0, width).suffix()}").body == expected[: 32 * width]


def test_a_log_has_at_each_of_its_first_sizes_the_tiles_of_that_size(server: Server, segment: Segment) -> None:
    # While it is that size, and not only later: one by one, by batches, and over the end of a tile.
    size = 0
    for count in [1, 1, 253, 1, 1, 43, 211, 2, 255, 1, 300]:
        segment.append(b"1\n" * count, NDJSON)
        size += count
        entries = [entry["entry"].encode() for entry in segment.entries(0, size)]
        leaves = [reference.leaf(entry) for entry in entries]
        for place in tiles(size):
            path = f"/segments/{segment.name}/tile/"
            assert server.request("GET", f"{path}{place.level}/{place.suffix()}").body == tile_bytes(leaves, place)
            if place.level == 0:
                bundle = server.request("GET", f"{path}entries/{place.suffix()}").body
                assert bundle == bundle_bytes(entries, place)
        beyond = Place(0, size // 256, size % 256 + 1)
        assert server.request("GET", f"{path}0/{beyond.suffix()}").status == 404
        assert server.request("GET", f"{path}entries/{beyond.suffix()}").status == 404
        assert segment.checkpoint().root == reference.mth(leaves)


def decode(answer: Answer) -> bytes:
    encoding = answer.headers["Content-Encoding"]
    if encoding == "gzip":
        return gzip.decompress(answer.body)
    if encoding == "zstd":
        return zstandard.ZstdDecompressor().decompress(answer.body)
    assert encoding is None
    return answer.body


@pytest.mark.parametrize("place", [Place(0, 0, 256), Place(0, 100, 256), Place(0, 273, 112), Place(0, 0, 1)])
def test_a_bundle_is_the_same_however_it_is_compressed(grown: Grown, place: Place) -> None:
    expected = bundle_bytes(grown.entries, place)
    full = place.width == 256
    asked = {
        None: None,
        "": None,
        "identity": None,
        "gzip": "gzip",
        "GZIP": "gzip",
        "gzip, deflate, br": "gzip",
        "zstd": "zstd" if full else None,
        "gzip, zstd": "zstd" if full else "gzip",
        "zstd;q=0, gzip": "gzip",
        "gzip;q=0": None,
        "gzip;q=0, zstd;q=0": None,
        "br": None,
    }
    for accept, encoding in asked.items():
        headers = {} if accept is None else {"Accept-Encoding": accept}
        answer = grown.fetch(f"/tile/entries/{place.suffix()}", **headers)
        assert (answer.status, answer.headers["Content-Encoding"]) == (200, encoding), accept
        assert decode(answer) == expected
        # A cache must not give one client what another asked for.
        assert answer.headers["Vary"] == "Accept-Encoding"
        assert answer.headers["Content-Length"] == str(len(answer.body))


def test_the_head_of_a_tile_can_be_asked_for_without_its_body(grown: Grown) -> None:
    for path in ("/tile/0/000", "/tile/entries/000", "/checkpoint"):
        answer = grown.server.request("HEAD", f"/segments/{grown.segment.name}{path}")
        assert (answer.status, answer.body) == (200, b"")
        assert answer.headers["Content-Type"] == grown.fetch(path).headers["Content-Type"]


def test_what_never_changes_is_not_sent_again_to_who_has_it(grown: Grown) -> None:
    tags = set()
    paths = ["/tile/0/000", "/tile/0/000.p/7", "/tile/1/000", "/tile/entries/000", "/tile/entries/000.p/7"]
    for path in [*paths, "/proof/inclusion/70000/7", "/proof/inclusion/300/7", "/proof/consistency/7/70000"]:
        for encoding in ("", "gzip", "zstd"):
            asked = {"Accept-Encoding": encoding}
            first = grown.fetch(path, **asked)
            tag = first.headers["ETag"]
            assert tag.startswith(f'"{grown.segment.key.id.hex()}/' if not first.headers["Content-Encoding"] else "W/")
            tags.add((tag.removeprefix("W/"), first.body))
            for condition in (tag, f'"other", {tag}', "*"):
                again = grown.fetch(path, **asked, **{"If-None-Match": condition})
                assert (again.status, again.body, again.headers["ETag"]) == (304, b"", tag)
                for name in ("Cache-Control", "Vary"):
                    assert again.headers[name] == first.headers[name]
            assert grown.fetch(path, **asked, **{"If-None-Match": '"other"'}).body == first.body
            assert grown.fetch(path, **asked, **{"If-Match": '"other"'}).status == 412
            # A part is no answer that could be verified.
            assert grown.fetch(path, **asked, Range="bytes=0-3").body == first.body
    # One tag, one sequence of bytes; and no two answers share one.
    assert len({tag for tag, _ in tags}) == len({body for _, body in tags}) == len(tags)


def test_what_does_not_exist_is_not_confirmed_to_who_claims_to_have_it(grown: Grown) -> None:
    for path in ("/tile/0/273.p/113", "/tile/2/000.p/2", "/tile/entries/274.p/1", "/proof/inclusion/70001/7"):
        assert grown.fetch(path, **{"If-None-Match": "*"}).status == 404, path


def test_what_is_damaged_gets_no_tag_and_who_has_the_right_bytes_needs_no_others(
    tmp_path: Path, start_server: Callable[..., Server]
) -> None:
    server = start_server()
    server.create("payments").append(b"1\n" * 256, NDJSON)
    bundle, tile = paths = ["/segments/payments/tile/entries/000", "/segments/payments/tile/0/000"]
    tags = [server.request("GET", path).headers["ETag"] for path in paths]
    (database,) = [path for path in (tmp_path / "data/segments").glob("*.db") if bundles(path)]
    with closing(sqlite3.connect(database, isolation_level=None)) as connection:
        entries = decode_entries(bundles(database)[0], 256)
        entries[7] = entries[7].replace(b'"v":1', b'"v":2')
        (run,) = entry_runs(0, entries)
        connection.execute("update bundle set entries = ?", [run.blob])
        assert b"entry 7 or its leaf hash is damaged" in server.request("GET", bundle).body
        connection.execute("update tile set hashes = zeroblob(8192) where level = 0")
        assert b"tile/0/000 is damaged" in server.request("GET", tile).body
    for path, tag in zip(paths, tags, strict=True):
        damaged = server.request("GET", path)
        assert (damaged.status, damaged.headers["ETag"], damaged.headers["Cache-Control"]) == (500, None, "no-store")
        assert server.request("GET", path, headers={"If-None-Match": tag}).status == 304


def bundles(database: Path) -> list[bytes]:
    with closing(sqlite3.connect(database)) as connection:
        return [blob for (blob,) in connection.execute("select entries from bundle where count = 256")]


def test_a_tag_of_one_log_is_none_of_another(server: Server, segment: Segment) -> None:
    other = server.create(f"{segment.name}-other")
    tags = set()
    for one in (segment, other):
        one.append(b"1")
        tags.add(one.get("/tile/0/000.p/1").headers["ETag"])
    assert len(tags) == 2


# Checkpoints


def expected_note(vkey: str, leaves: list[bytes], note: bytes) -> bytes:
    """Return the checkpoint of these leaves, with the signature of `note` after checking it."""
    name, key_id, encoded = vkey.split("+", 2)
    public = base64.b64decode(encoded)
    assert (public[0], len(public)) == (1, 33)
    assert hashlib.sha256(name.encode() + b"\n" + public).digest()[:4].hex() == key_id
    root = base64.b64encode(reference.mth(leaves)).decode()
    text = f"{name}\n{len(leaves)}\n{root}\n".encode()
    signature = base64.b64decode(note.split(b" ")[-1])
    Ed25519PublicKey.from_public_bytes(public[1:]).verify(signature[4:], text)
    assert signature[:4].hex() == key_id
    line = f"— {name} {base64.b64encode(signature).decode()}\n".encode()
    return text + b"\n" + line


def test_each_checkpoint_is_the_root_of_the_entries_of_its_size(grown: Grown) -> None:
    assert list(grown.notes) == [0, *SIZES]
    vkey = grown.segment.get("").json()["vkey"]
    assert vkey.startswith(f"{LOG_NAME}/segments/grown+")
    for size, note in grown.notes.items():
        assert note == expected_note(vkey, grown.leaves[:size], note)


def test_a_checkpoint_is_the_same_for_every_caller(grown: Grown) -> None:
    expected = grown.notes[SIZES[-1]]
    headers = [
        {"User-Agent": "curl/8"},
        {"Accept": "application/json"},
        {"Accept-Encoding": "gzip, zstd"},
        {"Authorization": "Bearer x"},
        {"Cookie": "a=b"},
        {"X-Forwarded-For": "192.0.2.1"},
        {"Range": "bytes=0-3"},
        {},
    ]
    # Each over a connection of its own, so that both workers answer.
    for given in headers * 8:
        answer = grown.fetch("/checkpoint", **given)
        assert (answer.status, answer.body) == (200, expected)
        assert answer.headers["Content-Type"] == "text/plain; charset=utf-8"
        assert answer.headers["Cache-Control"] == "no-cache"
        assert "Content-Encoding" not in answer.headers


def test_a_checkpoint_is_sent_again_only_when_it_changed(segment: Segment) -> None:
    first = segment.get("/checkpoint")
    tag = first.headers["ETag"]
    for given in (tag, f'"other", {tag}', f"W/{tag}", "*"):
        again = segment.get("/checkpoint", **{"If-None-Match": given})
        assert (again.status_code, again.content, again.headers["ETag"]) == (304, b"", tag)
        assert again.headers["Cache-Control"] == "no-cache"
    segment.append(b"1")
    changed = segment.get("/checkpoint", **{"If-None-Match": tag})
    assert changed.status_code == 200
    assert changed.content != first.content
    assert changed.headers["ETag"] not in (tag, None)


def test_segments_of_one_log_have_keys_and_checkpoints_of_their_own(server: Server, segment: Segment) -> None:
    other = server.create(f"{segment.name}-other")
    assert segment.key.public != other.key.public
    assert segment.note().split(b"\n")[1:3] == other.note().split(b"\n")[1:3]
    assert segment.note() != other.note()


# Proofs


def hashes(answer: Answer) -> list[bytes]:
    assert answer.status == 200
    assert answer.headers["Content-Type"] == "application/json"
    assert answer.headers["Cache-Control"] == IMMUTABLE
    return [base64.b64decode(value, validate=True) for value in answer.json()["proof"]]


def test_every_proof_of_a_small_log_is_that_of_the_rfc(server: Server, segment: Segment) -> None:
    most = 21
    segment.append(b"1\n" * (most + 12), NDJSON)
    leaves = [reference.leaf(entry["entry"].encode()) for entry in segment.entries(0, most)]
    prefix = f"/segments/{segment.name}/proof"
    for size in range(1, most + 1):
        tree = leaves[:size]
        for index in range(size):
            answer = server.request("GET", f"{prefix}/inclusion/{size}/{index}")
            assert hashes(answer) == reference.path(index, tree)
            assert (answer.json()["index"], answer.json()["size"]) == (index, size)
        for old in range(size + 1):
            answer = server.request("GET", f"{prefix}/consistency/{old}/{size}")
            assert hashes(answer) == reference.proof(old, tree)
            assert (answer.json()["old_size"], answer.json()["new_size"]) == (old, size)
    assert hashes(server.request("GET", f"{prefix}/consistency/0/0")) == []


def test_proofs_of_a_large_log_and_of_its_earlier_sizes_are_those_of_the_rfc(grown: Grown) -> None:
    random = Random(9162)  # noqa: S311 - repeatable, not secret
    sizes = [300, 513, 10_300, 65_536, 65_537, 70_000, random.randrange(1, 70_000), random.randrange(1, 70_000)]
    for size in sizes:
        tree = grown.leaves[:size]
        for index in {0, size - 1, size // 2, random.randrange(size)}:
            assert hashes(grown.fetch(f"/proof/inclusion/{size}/{index}")) == reference.path(index, tree)
        for old in {1, size - 1, 256, random.randrange(1, size)} & set(range(size)):
            assert hashes(grown.fetch(f"/proof/consistency/{old}/{size}")) == reference.proof(old, tree)
