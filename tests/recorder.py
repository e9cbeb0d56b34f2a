"""An outside observer of a log: it keeps what was released in a run, and judges the data that is left by it.

It sees bytes alone: what was sent, and what came back. Each is a line of a file as soon as it is seen, so that whoever
observes may crash, and share the file with others. `check` then opens the data by the real code, lives on in it (what
was begun is sent again, something new is appended), and says which of these does not hold:

- I1 the released heads of a segment, those of the second life with them, are heads of one list of entries;
- I2, I3 what a receipt or an answer says was logged is there, byte for byte, where it says, under every later head;
- I4 what has no known outcome is there once or not at all, and sent again with its key gets one receipt;
- I5 nothing of one segment is in another; I6 neither size nor time goes back;
- I8 `tlog fsck` finds nothing, or the segment refuses to sign;
- the anchor of a segment, if it is there, has every head that was released.

Roots come from the stored entries by `tests/reference.py`, never from the code under test. Events that are sent must be
distinct. I7 is of erasure, of which there is nothing to observe yet.
"""

import json
import os
import secrets
import shutil
from base64 import b64decode, b64encode
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

import reference
from history import roots

from tlog.access import ANONYMOUS
from tlog.access.action import RESERVED
from tlog.access.token import parse_token
from tlog.clock import now
from tlog.config import Config
from tlog.control import OPERATOR, Control
from tlog.fsck.run import Plan
from tlog.fsck.run import check as fsck
from tlog.segments import Nobody, Segment, Segments, prepare_data
from tlog.store.connection import DatabaseError
from tlog.submit import SUCCESSION_WRITER, append, commit_to
from tlog_core.checkpoint import Checkpoint, open_checkpoint
from tlog_core.encoding import canonicalize, decode_base64
from tlog_core.entry import Entry, parse_entry
from tlog_core.errors import TlogError
from tlog_core.note import VerifierKey, parse_verifier
from tlog_core.receipt import JSON_TYPE, Receipt, mint_receipts, parse_batch_receipt, parse_receipt, verify_receipt

Seen = Mapping[str, Any]
"""One line: `kind`, and what goes with it."""


@dataclass(frozen=True)
class Recorder:
    """Keeps what is seen in the file `path`; any number of threads and processes may share it.

    `mark`, if there is one, names the request that a line is of.
    """

    path: Path
    mark: str = ""

    def created(self, segment: str, vkey: str) -> None:
        """Keep that a segment was said to be there, with this key."""
        self._keep("created", segment=segment, vkey=vkey)

    def sent(
        self,
        segment: str,
        events: Sequence[bytes],
        key: str | None = None,
        *,
        batch: bool = False,
        kind: str = JSON_TYPE,
        writer: str = ANONYMOUS.name,
    ) -> str:
        """Keep, before they are sent, that events are; return the number by which its outcome is kept."""
        payloads = [canonicalize(event) if kind == JSON_TYPE else event for event in events]
        number = secrets.token_hex(8)
        packed = [b64encode(payload).decode() for payload in payloads]
        values = {"key": key, "payloads": packed, "batch": batch, "type": kind, "writer": writer}
        self._keep("sent", segment=segment, number=number, **values)
        return number

    def receipt(self, number: str, body: bytes) -> None:
        """Keep the receipt that came back."""
        self._keep("receipt", number=number, body=body.decode())

    def refused(self, number: str) -> None:
        """Keep that the log said of what was sent that it did not log it, and never will."""
        self._keep("refused", number=number)

    def note(self, segment: str, note: bytes) -> None:
        """Keep a checkpoint, cosigned or not."""
        self._keep("note", segment=segment, note=note.decode())

    def entries(self, segment: str, body: bytes) -> None:
        """Keep the answer of `GET /segments/<name>/entries` or `/entries/<index>`."""
        self._keep("entries", segment=segment, body=body.decode())

    def sealing(self, segment: str) -> None:
        """Keep, before it is asked for, that a segment is to be sealed."""
        self._keep("sealing", segment=segment)

    def sealed(self, segment: str) -> None:
        """Keep that a segment was said to be sealed."""
        self._keep("sealed", segment=segment)

    def policy(self, version: int, document: str) -> None:
        """Keep that a policy was said to be in force."""
        self._keep("policy", version=version, document=document)

    def token(self, token: str) -> None:
        """Keep a token that was given."""
        self._keep("token", token=token)

    def writer_key(self, vkey: str) -> None:
        """Keep that the key of a writer was said to be registered."""
        self._keep("writer_key", vkey=vkey)

    def seen(self) -> list[Seen]:
        """Return what was seen, in order; a line that a crash cut short is none."""
        whole, _, _ = self.path.read_bytes().rpartition(b"\n") if self.path.exists() else (b"", b"", b"")
        return [json.loads(line) for line in whole.splitlines()]

    def _keep(self, kind: str, **values: object) -> None:
        self.keep({"kind": kind, "mark": self.mark, **values})

    def keep(self, one: Seen) -> None:
        """Keep a line as another has kept it."""
        line = json.dumps(one).encode() + b"\n"
        descriptor = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        try:
            assert os.write(descriptor, line) == len(line)
        finally:
            os.close(descriptor)


@dataclass(frozen=True)
class Sent:
    """What was sent, and the receipts that came back, if they did. `begun` says that nobody knows what became of it."""

    key: str | None
    payloads: tuple[bytes, ...]
    batch: bool
    type: str
    writer: str
    receipts: tuple[Receipt, ...] = ()
    refused: bool = False

    @property
    def begun(self) -> bool:
        return not self.receipts and not self.refused


@dataclass
class Released:
    """All that an outsider knows of one segment."""

    vkey: str = ""
    heads: set[Checkpoint] = field(default_factory=set)
    sent: dict[str, Sent] = field(default_factory=dict)
    pages: list[tuple[int, bytes, bytes]] = field(default_factory=list)
    sealing: bool = False
    sealed: bool = False

    @property
    def key(self) -> VerifierKey:
        return _key(self.vkey)


@dataclass
class Verdict:
    """What is wrong, in words; and which segments refuse to sign, and why: `*` is the whole log."""

    wrong: list[str] = field(default_factory=list)
    refused: dict[str, str] = field(default_factory=dict)


def check(data: Path, seen: Sequence[Seen], scratch: Path) -> Verdict:
    """Judge the data by what was seen, on a copy in `scratch`, with its anchors beside it, which is made anew."""
    for source, copy in ((data, scratch), (_anchors(data), _anchors(scratch))):
        shutil.rmtree(copy, ignore_errors=True)
        if source.is_dir():
            shutil.copytree(source, copy)
    return judge(scratch, seen)


def _anchors(data: Path) -> Path:
    return Config(data).anchor_of("any").parent


def judge(data: Path, seen: Sequence[Seen]) -> Verdict:
    """Judge the data by what was seen. The data is lived on in, and is not what it was."""
    verdict, released = Verdict(), understand(seen)
    # Before the log is opened, which brings them up.
    _judge_anchors(data, released, verdict)
    try:
        with opened(data) as control:
            _judge_control(control, seen, verdict)
            for name, one in released.items():
                _judge_segment(control, name, one, released, verdict)
    except (TlogError, DatabaseError) as error:
        verdict.refused["*"] = f"{type(error).__name__}: {error}"
    verdict.wrong += [one for one in findings(data) if not any(one.startswith(f"{name}:") for name in verdict.refused)]
    return verdict


def _judge_anchors(data: Path, released: Mapping[str, Released], verdict: Verdict) -> None:
    places = [path.read_bytes()[at : at + 4096] for path in _anchors(data).glob("*") for at in (0, 4096)]
    for name, one in released.items():
        anchored = [head.size for place in places if one.vkey and (head := _head_in(place, one.key)) is not None]
        shown = max((head.size for head in one.heads), default=0)
        if anchored and max(anchored) < shown:
            verdict.wrong.append(f"{name}: its anchor has {max(anchored)} entries, and a head of {shown} was released")


def _head_in(place: bytes, key: VerifierKey) -> Checkpoint | None:
    try:
        return open_checkpoint(place.rstrip(b"\0"), key)
    except TlogError:
        return None


def findings(data: Path) -> list[str]:
    """Return what `tlog fsck` says, but for files of segments that a crash kept from coming to be."""
    try:
        found = list(map(str, fsck(Config(data), Plan(), lambda *_: None)))
    except (TlogError, DatabaseError) as error:
        found = [f"*: {error}"]
    return [one for one in found if "it is of no segment" not in one]


@contextmanager
def opened(data: Path) -> Iterator[Control]:
    """Open a folder as `tlog serve` does when it starts."""
    config = Config(data, unguarded=True)
    prepare_data(config, None)
    segments = Segments(config, Nobody(), now)
    try:
        control = Control(config, segments, now)
        control.catch_up()
        yield control
    finally:
        segments.close()


def understand(seen: Sequence[Seen]) -> dict[str, Released]:
    """Return what was seen by segments. A receipt or a checkpoint that does not verify offline raises TlogError."""
    found: dict[str, Released] = {}
    where: dict[str, str] = {}
    for one in seen:
        name = one.get("segment") or where.get(one.get("number", ""))
        if name is None:
            continue
        released = found.setdefault(name, Released())
        match one["kind"]:
            case "created":
                assert released.vkey in ("", one["vkey"]), f"{name} was given two keys"
                released.vkey = one["vkey"]
            case "sent":
                where[one["number"]] = name
                released.sent[one["number"]] = Sent(
                    one["key"], tuple(map(b64decode, one["payloads"])), one["batch"], one["type"], one["writer"]
                )
            case "receipt":
                _take_receipt(released, one["number"], one["body"])
            case "refused":
                _replace(released, one["number"], refused=True)
            case "note":
                released.heads.add(_head(one["note"], released.vkey))
            case "entries":
                released.pages += _page(one["body"])
            case "sealing":
                released.sealing = True
            case "sealed":
                released.sealed = True
    return found


def _replace(released: Released, number: str, **changes: Any) -> None:
    sent = released.sent[number]
    released.sent[number] = Sent(
        **{name: changes.get(name, getattr(sent, name)) for name in Sent.__dataclass_fields__},
    )


def _take_receipt(released: Released, number: str, body: str) -> None:
    sent = released.sent[number]
    receipts = _receipts(body, released.vkey, sent.payloads, sent.type, sent.batch)
    _replace(released, number, receipts=receipts)
    released.heads.add(_head(receipts[0].checkpoint.decode(), released.vkey))


@cache
def _key(vkey: str) -> VerifierKey:
    return parse_verifier(vkey)


@lru_cache(1 << 16)
def _entry(raw: bytes) -> Entry:
    return parse_entry(raw)


@cache
def _head(note: str, vkey: str) -> Checkpoint:
    return open_checkpoint(note.encode(), _key(vkey))


@cache
def _receipts(body: str, vkey: str, payloads: tuple[bytes, ...], kind: str, batch: bool) -> tuple[Receipt, ...]:
    """Return the receipts in an answer, verified offline against the head that they name."""
    if batch:
        parsed = parse_batch_receipt(body.encode())
        return tuple(mint_receipts(parsed, payloads=payloads, key=_key(vkey), payload_type=kind))
    receipt = parse_receipt(body.encode())
    verify_receipt(receipt, key=_key(vkey), payload=payloads[0])
    return (receipt,)


@cache
def _page(body: str) -> list[tuple[int, bytes, bytes]]:
    """Return index, entry and payload of each entry in an answer."""
    answer = json.loads(body)
    found = answer.get("entries", [answer])
    return [(one["index"], one["entry"].encode(), _payload(one)) for one in found]


def _payload(one: Mapping[str, Any]) -> bytes:
    if one["payload_type"] == JSON_TYPE:
        return canonicalize(json.dumps(one["payload"]).encode())
    return bytes(decode_base64(one["payload"]))


def _judge_control(control: Control, seen: Sequence[Seen], verdict: Verdict) -> None:
    """Check that the changes that were said to be in force are."""
    store = control.store
    rows = {row.name: row for row in store.list()}
    keys = {str(row.key) for row in store.all_writer_keys()}
    version, document = store.policy()
    for one in seen:
        match one["kind"]:
            case "created" if one["segment"] not in rows or rows[one["segment"]].vkey != one["vkey"]:
                verdict.wrong.append(f"the segment {one['segment']} is not there with its key")
            case "sealed" if one["segment"] not in rows or rows[one["segment"]].sealed is None:
                verdict.wrong.append(f"the segment {one['segment']} is not sealed")
            case "policy" if (one["version"], one["document"]) != (version, document) and one["version"] >= version:
                verdict.wrong.append(f"the policy of version {one['version']} is not in force")
            case "token" if store.token(parse_token(one["token"]).id) is None:
                verdict.wrong.append(f"the token {parse_token(one['token']).id} is not known")
            case "writer_key" if one["vkey"] not in keys:
                verdict.wrong.append(f"the key {one['vkey']} is not registered")


def _judge_segment(
    control: Control, name: str, released: Released, everyone: Mapping[str, Released], verdict: Verdict
) -> None:
    if not released.vkey:
        return
    try:
        with control._segments.use(name) as segment:
            verdict.wrong += [f"{name}: {one}" for one in _before(segment, released)]
            try:
                verdict.wrong += [f"{name}: {one}" for one in _live_on(control, segment, released)]
            except (TlogError, DatabaseError) as error:
                verdict.refused[name] = f"{type(error).__name__}: {error}"
            wrong = [*_after(segment, released), *_strangers(segment, name, everyone)]
            verdict.wrong += [f"{name}: {one}" for one in wrong]
    except (TlogError, DatabaseError) as error:
        verdict.refused[name] = f"{type(error).__name__}: {error}"


def _before(segment: Segment, released: Released) -> Iterator[str]:
    """Say what of the head, as it is found, is behind what was released."""
    head = segment.store.head()
    most = max((one.size for one in released.heads), default=0)
    if head.size < most:
        yield f"a head of size {most} was released, and now there is one of {head.size}"
    last = max((_entry(one.entry).time for sent in released.sent.values() for one in sent.receipts), default=0)
    if head.time < last:
        yield "the time of the head went back"


def _live_on(control: Control, segment: Segment, released: Released) -> Iterator[str]:
    """Send again what was begun, under the same key, and append something new; take what comes back as released."""
    for number, sent in list(released.sent.items()):
        if sent.begun and sent.key is not None:
            once, again = _append(segment, sent), _append(segment, sent)
            if once != again:
                yield f"{sent.key} got two receipts"
            _replace(released, number, receipts=once)
            released.heads.add(open_checkpoint(once[0].checkpoint, released.key))
    if released.sealing:
        control.seal_segment(OPERATOR, segment.row.name)
    if not segment.store.head().sealed:
        fresh = Sent(None, (b'{"second life":"%s"}' % secrets.token_hex(8).encode(),), False, JSON_TYPE, ANONYMOUS.name)
        receipts = _append(segment, fresh)
        released.sent["second life"] = Sent(None, fresh.payloads, False, JSON_TYPE, ANONYMOUS.name, receipts)
    released.heads.add(open_checkpoint(segment.store.head().note, released.key))


def _append(segment: Segment, sent: Sent) -> tuple[Receipt, ...]:
    """Append as a request does, and return what its receipt says."""
    submission = commit_to(writer=sent.writer, kind=sent.type, payloads=sent.payloads, idempotency_key=sent.key)
    submission, logged = append(segment, submission)
    return tuple(
        Receipt(entry, sent.type, opening, index, logged.note, ())
        for index, (entry, opening) in enumerate(zip(logged.entries, submission.openings, strict=True), logged.start)
    )


def _after(segment: Segment, released: Released) -> Iterator[str]:
    """Say what of all that was released the stored entries do not bear out."""
    size = segment.store.head().size
    entries, payloads = segment.store.entries(0, size), segment.store.payloads(0, size)
    history = roots([reference.leaf(entry) for entry in entries])
    # Each is the root of a prefix of one list: so no two contradict each other, and each is in every later one.
    for head in released.heads:
        if head.size > size or history[head.size] != head.root:
            yield f"a head of size {head.size} was released that contradicts the entries"
    said = [(one.index, one.entry) for sent in released.sent.values() for one in sent.receipts]
    said += [(index, entry) for index, entry, _ in released.pages]
    for index, entry in said:
        if index >= size or entries[index] != entry:
            yield f"entry {index} was released, and is not there"
    for sent in released.sent.values():
        for receipt, payload in zip(sent.receipts, sent.payloads, strict=False):
            if receipt.index < size:
                stored = payloads[receipt.index]
                if (stored.opening, stored.type, stored.data) != (receipt.opening, sent.type, payload):
                    yield f"the payload or the opening of entry {receipt.index} is another"
    for index, _, payload in released.pages:
        if index < size and payloads[index].data != payload:
            yield f"the payload of entry {index} is another than was shown"
    times = [_entry(entry).time for entry in entries]
    if times != sorted(times):
        yield "the times of entries go back"
    yield from _counts(segment, released, Counter(one.data for one in payloads))


def _counts(segment: Segment, released: Released, stored: Counter[bytes]) -> Iterator[str]:
    """Say which events are there twice, or in part, or though they were refused, or though nobody sent them."""
    for sent in released.sent.values():
        found = [stored.pop(payload, 0) for payload in sent.payloads]
        if any(count > 1 for count in found) or len(set(found)) > 1:
            yield f"events of {sent.key} are there {found} times"
        if sent.refused and any(found):
            yield f"events of {sent.key} were refused, and are there"
    strangers = len(stored) - segment.store.head().sealed - _succeeds(segment)
    if strangers > 0 and segment.row.name not in RESERVED:
        yield f"{strangers} events are there that nobody sent"


def _succeeds(segment: Segment) -> bool:
    """Tell whether the first entry is the log's own, and says what the segment goes on from."""
    first = segment.store.entries(0, min(1, segment.store.head().size))
    return any(_entry(entry).writer == SUCCESSION_WRITER for entry in first)


def _strangers(segment: Segment, name: str, everyone: Mapping[str, Released]) -> Iterator[str]:
    """Say what of other segments is in this one."""
    size = segment.store.head().size
    payloads = {one.data for one in segment.store.payloads(0, size)}
    for other, released in everyone.items():
        if other != name and payloads & {payload for sent in released.sent.values() for payload in sent.payloads}:
            yield f"events of {other} are in it"
    if any(_entry(entry).origin != segment.row.origin for entry in segment.store.entries(0, size)):
        yield "entries of another origin are in it"
