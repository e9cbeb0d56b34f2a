"""One bit flips, on disk or in memory: what a log releases then is right, does not verify, or is an error.

`ON_DISK` and `IN_MEMORY` are the classes of bits. A `Ground` is a log in this process, whose answers are compared with
those that it gave before, and whose heads must be over exactly what was logged.
"""

import json
import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, redirect_stdout, suppress
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory
from types import MappingProxyType
from typing import Any, Final

import pytest
import reference
import zstandard
from click.testing import CliRunner
from live import JSON, LOG_NAME, NDJSON
from tally import Tally
from witnessing import witness_signer

from tlog import sequencer
from tlog.app import create_app
from tlog.cli import main
from tlog.config import Config
from tlog.store.bulletin import BulletinRow
from tlog.store.connection import connect
from tlog.store.cosigned import CosignedHead, WitnessLine
from tlog.submit import Signed, append, commit_to
from tlog_client.signing import sign_batch
from tlog_core.bulletin import Bulletin, sign_bulletin
from tlog_core.checkpoint import open_checkpoint
from tlog_core.commitment import Opening
from tlog_core.cosignature import cosign
from tlog_core.errors import TlogError
from tlog_core.note import VerifierKey, parse_verifier, signer_from_seed
from tlog_core.receipt import mint_receipts, parse_batch_receipt, parse_receipt, verify_receipt

LOCAL: Final = {"REMOTE_ADDR": "127.0.0.1"}
BATCHES: Final = tuple([b'{"n":%d,"of":%d}' % (n, size) for n in range(size)] for size in (1, 259, 249))
WRITER: Final = signer_from_seed("till-7", bytes(32))
MONITOR: Final = signer_from_seed("monitor.example", bytes(32))
# One more makes 511, and another fills the second tile.
SIZE: Final = sum(map(len, BATCHES)) + 1
PATHS: Final = (
    "checkpoint",
    "entries?start=0&limit=256",
    f"entries?start=256&limit={SIZE - 256}",
    "entries/7",
    "tile/entries/000",
    f"tile/entries/001.p/{SIZE - 256}",
    "tile/entries/000.p/9",
    "tile/0/000",
    f"tile/0/001.p/{SIZE - 256}",
    "tile/1/000.p/1",
    f"proof/inclusion/{SIZE}/7",
    f"proof/inclusion/{SIZE}/{SIZE - 1}",
    "proof/inclusion/200/7",
    f"proof/consistency/100/{SIZE}",
    f"proof/consistency/256/{SIZE}",
)


@dataclass
class Answer:
    status: int
    body: bytes

    @property
    def kind(self) -> str:
        return str(json.loads(self.body)["type"]).rpartition(":")[2] if self.status >= 400 else ""


@dataclass
class Ground:
    """A log with the segment payments; `before` has what it answered when it was sound."""

    config: Config
    id: str = ""
    key: VerifierKey = field(default_factory=lambda: WRITER.verifier)
    leaves: list[bytes] = field(default_factory=list)
    before: dict[str, bytes] = field(default_factory=dict)
    undo: Callable[[], object] = lambda: None

    def __post_init__(self) -> None:
        made = CliRunner().invoke(
            main, ["segment", "create", "payments", "--data", str(self.config.data), "--log-name", LOG_NAME]
        )
        assert made.exit_code == 0, made.output
        app = create_app(self.config)
        self.client, self.services = app.test_client(), app.config["SERVICES"]
        # Files are put back while the segment is closed: nobody else may be closing it then.
        self.services.segments._closed.set()
        row = self.services.segments.control.find("payments")
        self.id, self.key = row.id, parse_verifier(row.vkey)
        for number in range(len(BATCHES)):
            assert self.retry(number).status == 201
        self.services.control.add_key("root", str(WRITER.verifier))
        self.sign(0)
        self.cosign()
        self.carry()
        for path in PATHS:
            answer = self.ask(path)
            assert answer.status == 200, (path, answer)
            self.before[path] = answer.body
        entries = [one for path in PATHS[1:3] for one in json.loads(self.before[path])["entries"]]
        self.leaves = [reference.leaf(one["entry"].encode()) for one in entries]
        assert len(self.leaves) == SIZE
        self.reopen()
        self.pristine = self.config.data.parent / "pristine"
        for file in self.files():
            self.pristine.mkdir(exist_ok=True)
            shutil.copy(file, self.pristine / file.name.replace(self.id, file.parent.name))

    @property
    def database(self) -> Path:
        return self.config.segment(self.id)

    def files(self) -> list[Path]:
        return [self.database, self.config.key(self.id), self.config.anchor_of(self.id)]

    def ask(self, path: str) -> Answer:
        answer = self.client.get(f"/segments/payments/{path}", environ_base=LOCAL)
        return Answer(answer.status_code, answer.data)

    def post(self, body: bytes, kind: str, key: str) -> Answer:
        headers = {"Content-Type": kind, "Idempotency-Key": key}
        answer = self.client.post("/segments/payments/entries", data=body, headers=headers, environ_base=LOCAL)
        return Answer(answer.status_code, answer.data)

    def retry(self, number: int) -> Answer:
        return self.post(b"\n".join(BATCHES[number]), NDJSON, f"batch-{number}")

    def sign(self, first: int) -> None:
        """Log an event that is signed with this sequence; TlogError."""
        with self.services.segments.use("payments") as segment:
            opening = Opening(bytes([first + 1]) * 32)
            batch = sign_batch([b"1"], JSON, openings=(opening,), origin=self.key.name, first=first, signer=WRITER)
            signed = Signed([opening], batch.signed)
            append(segment, commit_to(writer="till-7", kind=JSON, payloads=batch.payloads, signed=signed))

    def cosign(self) -> None:
        signer = witness_signer()
        with self.services.segments.use("payments") as segment, segment.store.write() as transaction:
            head = transaction.head()
            line = str(cosign(head.note.decode().partition("\n\n")[0] + "\n", time=1_764_000_000, signer=signer))
            row = WitnessLine(str(signer.verifier), head.size, head.root, 1_764_000_000, line)
            assert transaction.put_cosignature(row)
            whole = CosignedHead(head.size, head.root, row.time, head.time, head.note + line.encode())
            assert transaction.put_cosigned(whole, afresh=False)

    def carry(self) -> None:
        time = 1_764_000_000_000
        raw = sign_bulletin(Bulletin(self.key.name, time), MONITOR)
        with self.services.segments.use("payments") as segment, segment.store.write() as transaction:
            assert transaction.put_bulletin(BulletinRow(str(MONITOR.verifier), time, time, raw), latest=time)

    def reopen(self) -> None:
        """Have nothing in memory, as after a restart."""
        self.services.segments.close_idle()

    def restore(self) -> None:
        self.reopen()
        for file in self.files():
            for more in ("-wal", "-shm"):
                file.with_name(file.name + more).unlink(missing_ok=True)
            shutil.copy(self.pristine / file.name.replace(self.id, file.parent.name), file)

    def execute(self, statement: str, *values: object, control: bool = False) -> list[Any]:
        path = self.config.control if control else self.database
        # By the log's own library: another in the same process would drop its locks.
        with closing(connect(path)) as connection:
            connection.text_factory = bytes
            connection.execute("pragma ignore_check_constraints = 1")
            return connection.execute(statement, values).fetchall()

    def fsck(self) -> str:
        found = CliRunner().invoke(main, ["fsck", "--data", str(self.config.data), "payments"])
        assert isinstance(found.exception, SystemExit | None), found.exception
        # Where control.db cannot be read at all, there is nothing but an error that says so.
        return (found.stdout or found.stderr) if found.exit_code else found.stdout

    def wrong(self) -> list[str]:
        """Return what is wrong about what is released now, reads first, then writes."""
        found = [path for path in PATHS if self._is_wrong(path, self.ask(path))]
        for number, batch in enumerate(BATCHES):
            answer = self.retry(number)
            if answer.kind == "internal" or (answer.status == 201 and self._is_wrong_head(note_of(answer.body))):
                found.append(f"retry of batch {number}: {answer.body!r}")
            if answer.status == 201 and number:
                self._check_batch(answer.body, batch)
        return [*found, *self.wrong_growth()]

    def _is_wrong(self, path: str, answer: Answer) -> bool:
        if answer.status >= 400:
            return answer.kind in ("internal", "quota")
        if path == "checkpoint":
            return self._is_wrong_head(answer.body)
        if path.startswith("proof"):
            # Other hashes do not verify. What they are of must be right.
            now, then = json.loads(answer.body), json.loads(self.before[path])
            return {**now, "proof": []} != {**then, "proof": []}
        return answer.body != self.before[path]

    def _is_wrong_head(self, note: bytes) -> bool:
        """Tell whether a note verifies, and is not over what was logged."""
        head = open_head(note, self.key)
        return head is not None and (head[0] > len(self.leaves) or reference.mth(self.leaves[: head[0]]) != head[1])

    def _check_batch(self, body: bytes, batch: Sequence[bytes]) -> None:
        # What verifies is right: the payloads are those of the writer, and the head was looked at.
        with suppress(TlogError):
            mint_receipts(parse_batch_receipt(body), payloads=batch, key=self.key)

    def wrong_growth(self) -> list[str]:
        """Log an event, and one that is signed, and return what is wrong about it."""
        answer = self.post(b'{"fresh":1}', JSON, "fresh")
        if answer.status != 201:
            return [f"fresh: {answer.body!r}"] if answer.kind == "internal" else []
        entry = json.loads(answer.body)["entry"].encode()
        grown = reference.mth([*self.leaves, reference.leaf(entry)])
        if open_head(note_of(answer.body), self.key) not in (None, (SIZE + 1, grown)):
            return [f"fresh, over another tree: {answer.body!r}"]
        with suppress(TlogError):
            verify_receipt(parse_receipt(answer.body), key=self.key, payload=b'{"fresh":1}')
            if abs(json.loads(entry)["time"] / 1000 - time.time()) > 3600:
                return [f"fresh, of another time: {entry!r}"]
        with suppress(TlogError):
            self.sign(1)
        return []


def note_of(receipt: bytes) -> bytes:
    return str(json.loads(receipt)["checkpoint"]).encode()


def open_head(note: bytes, key: VerifierKey) -> tuple[int, bytes] | None:
    """Return size and root of a note, or None if it does not verify."""
    try:
        head = open_checkpoint(note, key)
    except TlogError:
        return None
    return head.size, head.root


def flipped(value: Any, random: Random, bits: int = 8) -> Any:
    """Return a value that differs in one bit: of bytes or a text anywhere, of a number in its lowest bits."""
    if isinstance(value, int):
        return value ^ 1 << random.randrange(bits)
    raw = bytearray(value)
    raw[random.randrange(len(raw))] ^= 1 << random.randrange(8)
    return bytes(raw)


# On disk. All of these names are constants of this file.
# ruff: noqa: S608

Flip = Callable[[Ground, Random], Any]


def value(table: str, column: str, where: str = "true", *, bits: int = 8, control: bool = False) -> Flip:
    """Flip a bit of a column in one of the rows, and return its value before and after."""

    def flip(ground: Ground, random: Random) -> Any:
        rows = ground.execute(f"select {column}, typeof({column}) from {table} where {where}", control=control)
        before, kind = rows[random.randrange(len(rows))]
        after, this = flipped(before, random, bits), "cast(? as text)" if kind == b"text" else "?"
        # Nothing can make two rows of one key, neither can a bit on disk: pages are in the order of their keys.
        while any(after == other for other, _ in rows):
            after = flipped(before, random, bits)
        statement = f"update {table} set {column} = {this} where {column} = {this}"
        ground.execute(f"{statement} and {where}", after, before, control=control)
        # What picked the row may be what was flipped.
        statement = statement if column in where else f"{statement} and {where}"
        ground.undo = partial(ground.execute, statement, before, after, control=control)
        return before, after

    return flip


def file(which: int) -> Flip:
    """Flip a bit of the key file, or of the anchor where it is not empty."""

    def flip(ground: Ground, random: Random) -> Any:
        path = ground.files()[which]
        raw = bytearray(path.read_bytes())
        ground.undo = partial(path.write_bytes, bytes(raw))
        place = random.choice([place for place, byte in enumerate(raw) if byte])
        raw[place] ^= 1 << random.randrange(8)
        path.write_bytes(raw)
        return path, place

    return flip


ROW: Final = "name = cast('payments' as text)"

ON_DISK: Final[Mapping[str, tuple[Flip, str | None]]] = MappingProxyType(
    {
        "a payload": (value("payload", "payloads"), "entr"),
        "an opening": (value("payload", "openings"), "entr"),
        "an entry": (value("bundle", "entries"), "entr"),
        "where a run of entries begins": (value("bundle", "start"), "entr"),
        "how many entries are in a run": (value("bundle", "count"), "entr"),
        "a tile": (value("tile", "hashes", "level = 0"), "tile/"),
        "a tile at the edge": (value("tile", "hashes", "level = 1"), "tile/"),
        "a node above a tile": (value("tile", "nodes", "level = 0"), "tile/"),
        "the root": (value("head", "root"), "head"),
        "the size": (value("head", "size"), "head"),
        "the time": (value("head", "time", bits=50), "head"),
        "the seal": (value("head", "sealed", bits=1), "seal"),
        "the note": (value("head", "note"), "head"),
        "the line of a cosignature": (value("cosignature", "line"), "cosign"),
        "the root of a cosignature": (value("cosignature", "root"), "cosign"),
        "the time of a cosignature": (value("cosignature", "time"), "cosign"),
        "the root of the cosigned head": (value("cosigned", "root"), "cosigned head"),
        "the cosigned head": (value("cosigned", "note"), "cosigned head"),
        "a bulletin": (value("bulletin", "note"), "bulletin of"),
        "the time of a bulletin": (value("bulletin", "time"), "bulletin of"),
        "where a request went": (value("request", "start", f"size = {SIZE - 1}"), "request "),
        "how many entries a request has": (value("request", "count", f"size = {SIZE - 1}"), None),
        "the size that a request was answered with": (value("request", "size", f"size = {SIZE - 1}"), "request "),
        "the next sequence of a writer": (value("writer", "next"), "writer "),
        "the key file": (file(1), "key file"),
        # Of its two places the other is taken, and this one written anew.
        "the anchor": (file(2), None),
        "the verifier key": (value("segment", "vkey", ROW, control=True), "control.db"),
    }
)
"""How each class is flipped, and a word of what fsck says of it, None where it says nothing or not always."""


def on_disk(ground: Ground, name: str, random: Random) -> list[str]:
    """Flip a bit of a class, and return what is wrong about what happens; the ground is sound again afterwards."""
    flip, word = ON_DISK[name]
    control = ground.execute(f"select vkey from segment where {ROW}", control=True)[0][0]
    at = flip(ground, random)
    try:
        said = ground.fsck()
        found = [f"{one}, after {at!r}" for one in ground.wrong()]
        if word is not None and word not in said and not _means_nothing(at):
            found.append(f"fsck says {said!r} of {at!r}")
    finally:
        ground.execute(f"update segment set vkey = cast(? as text) where {ROW}", control, control=True)
        ground.restore()
    return [f"{name}: {one}" for one in found]


def _means_nothing(at: Any) -> bool:
    """Tell whether a bit of a compressed row was flipped that changes nothing of what comes out."""
    try:
        before, after = (zstandard.ZstdDecompressor().decompress(one) for one in at)
    except (zstandard.ZstdError, TypeError):
        return False
    return bool(before == after)


# In memory


def once(patch: pytest.MonkeyPatch, target: str, change: Callable[[Any], Any], *, before: bool = False) -> None:
    """Have a function's last argument, or its result, changed in its next call."""
    owner, _, attribute = target.rpartition(".")
    module = __import__(owner, fromlist=[attribute])
    real, left = getattr(module, attribute), [True]

    def faulty(*arguments: Any, **named: Any) -> Any:
        now, left[:] = bool(left), []
        if before and now:
            arguments = (*arguments[:-1], change(arguments[-1]))
        result = real(*arguments, **named)
        return change(result) if now and not before else result

    patch.setattr(target, faulty)


Spoil = Callable[[Ground, pytest.MonkeyPatch, Callable[[bytes], bytes]], None]


def _submission(name: str) -> Spoil:
    def spoil(_: Ground, patch: pytest.MonkeyPatch, flip: Callable[[bytes], bytes]) -> None:
        def change(one: Any) -> Any:
            return replace(one, **{name: [flip(getattr(one, name)[0])]})

        once(patch, "tlog.api.entries.commit_to", change)

    return spoil


def _stored(kind: str, place: int, name: str = "") -> Spoil:
    """Flip a bit of an entry or payload as it becomes a row: the last is new, the first was a row of its own before."""

    def spoil(_: Ground, patch: pytest.MonkeyPatch, flip: Callable[[bytes], bytes]) -> None:
        def change(items: Any) -> Any:
            spoiled = [*(getattr(items, name) if name else items)]
            spoiled[place] = flip(spoiled[place])
            return replace(items, **{name: spoiled}) if name else spoiled

        once(patch, f"tlog.store.segment.{kind}_runs", change, before=True)

    return spoil


def _result(target: str, change: Callable[[Any, Callable[[bytes], bytes]], Any]) -> Spoil:
    return lambda _, patch, flip: once(patch, target, lambda result: change(result, flip))


def _grown(result: Any, flip: Callable[[bytes], bytes]) -> Any:
    frontier = result.tree.frontier
    spoiled = replace(frontier, peaks=(*frontier.peaks[:-1], flip(frontier.peaks[-1])))
    return replace(result, tree=replace(result.tree, frontier=spoiled))


def _tiles(result: Any, flip: Callable[[bytes], bytes]) -> Any:
    return replace(result, tiles=tuple(replace(one, hashes=flip(one.hashes)) for one in result.tiles))


def _signature(note: Any, flip: Callable[[bytes], bytes]) -> Any:
    line = note.signatures[0]
    return replace(note, signatures=(replace(line, blob=flip(line.blob)),))


def _note(head: Any, flip: Callable[[bytes], bytes]) -> Any:
    return replace(head, note=flip(head.note))


def _head(change: Callable[[Any, Callable[[bytes], bytes]], Any]) -> Spoil:
    def spoil(_: Ground, patch: pytest.MonkeyPatch, flip: Callable[[bytes], bytes]) -> None:
        real = sequencer.sign_head

        def faulty(*arguments: Any) -> Any:
            patch.setattr(sequencer, "sign_head", real)
            # Not one that an anchor is told of.
            once(patch, "tlog.sequencer.Checkpoint", lambda result: change(result, flip))
            return real(*arguments)

        patch.setattr(sequencer, "sign_head", faulty)

    return spoil


def _kept(name: str) -> Spoil:
    def spoil(ground: Ground, _: pytest.MonkeyPatch, flip: Callable[[bytes], bytes]) -> None:
        with ground.services.segments.use("payments") as segment:
            # A first append reads the tree, which is kept for the next.
            tree = segment.sequencer._tree
            if name == "frontier":
                peaks = tree.frontier.peaks
                tree = replace(tree, frontier=replace(tree.frontier, peaks=(flip(peaks[0]), *peaks[1:])))
            else:
                tree = replace(tree, edge=(tree.edge[0], tuple(map(flip, tree.edge[1]))))
            segment.sequencer._tree = tree

    return spoil


IN_MEMORY: Final[Mapping[str, tuple[Spoil, int, str]]] = MappingProxyType(
    {
        "a payload, committed to": (_submission("payloads"), 503, ""),
        "an opening, committed to": (_submission("openings"), 503, ""),
        "a commitment": (_submission("commitments"), 503, ""),
        "an entry": (_result("tlog.sequencer.encode_entries", lambda one, flip: [flip(one[0]), *one[1:]]), 503, ""),
        "an entry, hashed": (_stored("entry", -1), 503, ""),
        "a leaf hash": (_result("tlog.sequencer.leaf_hashes", lambda one, flip: [flip(one[0]), *one[1:]]), 503, ""),
        "a node": (_result("tlog.sequencer.grow_tree", _grown), 503, ""),
        "a tile": (_result("tlog.sequencer.grow_tree", _tiles), 201, "tile/"),
        "the root": (_head(lambda one, flip: replace(one, root=flip(one.root))), 503, ""),
        "the size": (_head(lambda one, _: replace(one, size=one.size ^ 4)), 503, ""),
        "a signature": (_result("tlog.sequencer.sign_checkpoint", _signature), 503, ""),
        "a frontier that was kept": (_kept("frontier"), 500, ""),
        # Not before they are stored: fsck finds them, and whoever reads them hears that they are damaged.
        "the edge of a tree that was kept": (_kept("edge"), 201, "tile/"),
        "an entry from before, packed": (_stored("entry", 0), 201, "entr"),
        "a payload, being stored": (_stored("payload", -1, "data"), 201, "entr"),
        "an opening, being stored": (_stored("payload", -1, "openings"), 201, "entr"),
        "a payload from before, packed": (_stored("payload", 0, "data"), 201, "entr"),
        "the note, verified": (_result("tlog.sequencer.sign_head", _note), 201, "head"),
    }
)
"""How each class is flipped while an event is logged, what is answered, and a word of what fsck finds then."""


def in_memory(ground: Ground, name: str, random: Random) -> list[str]:
    """Flip a bit of a class while an event is logged, and return what is wrong about what happens."""
    spoil, status, word = IN_MEMORY[name]
    leaves = ground.leaves
    with pytest.MonkeyPatch.context() as patch:
        # So that the tree is kept from before.
        first = ground.post(b'{"first":1}', JSON, "first")
        assert first.status == 201, first
        ground.leaves = [*leaves, reference.leaf(json.loads(first.body)["entry"].encode())]
        spoil(ground, patch, lambda raw: flipped(raw, random))
        try:
            return [f"{name}: {one}" for one in _wrong_in_memory(ground, status, word)]
        finally:
            patch.undo()
            ground.leaves = leaves
            ground.restore()


def _wrong_in_memory(ground: Ground, status: int, word: str) -> Iterator[str]:
    answer = ground.post(b'{"second":2}', JSON, "second")
    # A note that is no text any more cannot be put into an answer.
    if answer.status != status and (word, answer.status) != ("head", 500):
        yield f"answered {answer.status}, {answer.body!r}"
    leaves = list(ground.leaves)
    if answer.status == 201:
        leaves.append(reference.leaf(json.loads(answer.body)["entry"].encode()))
        head = open_head(note_of(answer.body), ground.key)
        if head not in (None, (len(leaves), reference.mth(leaves))):
            yield f"a head over another tree: {answer.body!r}"
        with suppress(TlogError):
            verify_receipt(parse_receipt(answer.body), key=ground.key, payload=b'{"second":2}')
    ground.reopen()
    said = ground.fsck()
    if (word == "") != (said == "") or word not in said:
        yield f"fsck says {said!r}"
    checkpoint = ground.ask("checkpoint")
    shown = open_head(checkpoint.body, ground.key) if checkpoint.status == 200 else None
    if shown not in (None, (len(leaves), reference.mth(leaves))):
        yield f"a checkpoint over another tree: {checkpoint.body!r}"
    yield from (path for path in PATHS[1:7] if ground._is_wrong(path, ground.ask(path)))
    for index in range(SIZE, len(leaves)):
        entry = ground.ask(f"entries/{index}")
        payload = [b'{"first":1}', b'{"second":2}'][index - SIZE]
        if entry.status == 200 and (
            json.loads(entry.body)["payload"] != json.loads(payload)
            or reference.leaf(json.loads(entry.body)["entry"].encode()) != leaves[index]
        ):
            yield f"another entry: {entry.body!r}"
    if status in (500, 503) and (again := ground.post(b'{"second":2}', JSON, "second")).status != 201:
        yield f"a retry is answered {again.body!r}"


@contextmanager
def ground() -> Iterator[Ground]:
    with TemporaryDirectory() as folder:
        yield Ground(Config(Path(folder) / "data", unguarded=True, idle_seconds=-1.0, scrub_rate=0))


def run(seed: int, seconds: float) -> Tally:
    """Flip bits of all classes, one after the other, for so many seconds; see `scripts/torture`."""
    random, wrong, points, end = Random(seed), list[str](), 0, time.monotonic() + seconds  # noqa: S311
    # What a server would write to its log.
    with Path(os.devnull).open("w") as nowhere, redirect_stdout(nowhere), ground() as one:
        while time.monotonic() < end:
            for name in ON_DISK:
                wrong += on_disk(one, name, random)
            for name in IN_MEMORY:
                wrong += in_memory(one, name, random)
            points += len(ON_DISK) + len(IN_MEMORY)
    return Tally(points, wrong)
