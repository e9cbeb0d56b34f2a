"""A small log in memory that can lie: the real client talks to it over real HTTP.

It is honest until told otherwise. `faults` befall the next requests, one each; `lies` alter every answer of a route
until they are taken away; `fork` and `shrink` rewrite what is logged, under the same key. `cosigners` cosign whatever
it shows, each at its time; `elsewhere` is what is shown outside the log's prefix, such as by its witnesses. With
`tiles_only` it is as the logs of others are: without routes of ours, or partial tiles once there are full ones. A
page of it has `page` entries at most.
"""

import json
import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from hashlib import sha256
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

from tlog_core.checkpoint import Checkpoint, sign_checkpoint
from tlog_core.commitment import Opening, commit
from tlog_core.cosignature import cosign
from tlog_core.encoding import canonical_json, canonicalize, decode_base64, encode_base64
from tlog_core.entry import Entry, WriterSignature, encode_entries
from tlog_core.errors import MalformedError
from tlog_core.merkle import Hash, leaf_hash, node_hash, range_hash
from tlog_core.note import Note, SignerKey, VerifierKey, parse_note, signer_from_seed
from tlog_core.proof import prove_consistency, prove_inclusion, prove_range
from tlog_core.receipt import JSON_TYPE, BatchReceipt, Receipt
from tlog_core.tile import TILE_HEIGHT, TILE_WIDTH, Bundle, Tile, join_bundle, join_hashes, parse_path

ORIGIN = "log.example/audit/segments/payments"
PREFIX = "/segments/payments"
START = 1_764_000_000_000


@dataclass(frozen=True)
class Answer:
    status: int
    body: bytes
    headers: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Request:
    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    body: bytes


@dataclass(frozen=True)
class Logged:
    entry: bytes
    payload_type: str
    opening: Opening
    payload: bytes
    signed: WriterSignature | None = None


Work = Callable[[], Answer]
Fault = Callable[[Work], Answer | None]
"""Given the honest work, the answer to send instead; None drops the connection."""

Lie = Callable[[Answer], Answer]


def drop_before(_: Work) -> None:
    """Hang up with nothing done."""


def drop_after(work: Work) -> None:
    """Do the work, log what is to be logged, and hang up without a word."""
    work()


def truncate(work: Work) -> Answer:
    """Promise the whole body and send half of it."""
    answer = work()
    return replace(
        answer,
        body=answer.body[: len(answer.body) // 2],
        headers={**answer.headers, "Content-Length": str(len(answer.body))},
    )


def refuse(
    status: int,
    *,
    kind: str = "malformed",
    detail: str = "no",
    headers: dict[str, str] | None = None,
    **more: Any,
) -> Fault:
    """Answer with a problem document, without doing the work."""
    problem = {"type": f"urn:tlog:problem:{kind}", "title": "No", "status": status, "detail": detail, **more}
    answer = Answer(status, json.dumps(problem).encode(), headers or {})
    return lambda _: answer


def unavailable(retry_after: str | None = None) -> Fault:
    headers = {} if retry_after is None else {"Retry-After": retry_after}
    return refuse(503, kind="unavailable", detail="come back later", headers=headers)


def flip(place: int) -> Lie:
    """Turn one bit of the body."""

    def lie(answer: Answer) -> Answer:
        body = bytearray(answer.body)
        body[place] ^= 1
        return replace(answer, body=bytes(body))

    return lie


def alter(change: Callable[[Any], None]) -> Lie:
    """Change the JSON value of the body in place."""

    def lie(answer: Answer) -> Answer:
        value = json.loads(answer.body)
        change(value)
        return replace(answer, body=json.dumps(value).encode())

    return lie


class Simulator:
    """A log of one segment at `url`. `requests` are those that came, in order."""

    def __init__(self) -> None:
        self.signer: SignerKey = signer_from_seed(ORIGIN, b"\x07" * 32)
        self.logged: list[Logged] = []
        self.requests: list[Request] = []
        self.faults: deque[Fault] = deque()
        self.lies: dict[str, Lie] = {}
        self.cosigners: dict[SignerKey, int] = {}
        self.elsewhere: dict[str, bytes] = {}
        self.page = 100
        # How many of the last entries a search does not know of.
        self.unindexed = 0
        self.url = ""
        self.tiles_only = False
        self.sequence = 0
        # The size that a quorum has cosigned, and the keys by which it did.
        self.cosigned: int | None = None
        self.quorum: list[SignerKey] = []
        self._answers: dict[str, tuple[bytes, Answer]] = {}
        self._nodes: dict[tuple[int, int], Hash] = {}
        self._lock = threading.Lock()

    @property
    def key(self) -> VerifierKey:
        return self.signer.verifier

    @property
    def size(self) -> int:
        return len(self.logged)

    def routes(self) -> list[str]:
        """The requests so far, such as `POST entries`, with numbers as they were."""
        return [f"{request.method} {request.path}" for request in self.requests]

    # What an honest log does

    def log(self, *payloads: bytes, payload_type: str = JSON_TYPE) -> int:
        """Append payloads as one batch, and return the index of the first."""
        first = self.size
        openings = [Opening(sha256(b"opening %d" % (first + place)).digest()) for place in range(len(payloads))]
        commitments = [
            commit(opening=opening, payload_type=payload_type, payload=payload)
            for opening, payload in zip(openings, payloads, strict=True)
        ]
        entries = encode_entries(commitments, origin=ORIGIN, time=START + first, writer="alice")
        self.logged += [
            Logged(entry, payload_type, opening, payload)
            for entry, opening, payload in zip(entries, openings, payloads, strict=True)
        ]
        self._grow(first)
        return first

    def grow(self, number: int) -> None:
        """Log so many small events."""
        self.log(*(b'{"n":%d}' % (self.size + place) for place in range(number)))

    def note(self, size: int | None = None) -> bytes:
        """The signed checkpoint of the first `size` entries, of all unless given."""
        size = self.size if size is None else size
        root = range_hash(0, size, self.node)
        return self.sign(Checkpoint(ORIGIN, size, root))

    def sign(self, checkpoint: Checkpoint) -> bytes:
        """Sign what it should or should not, and have it cosigned."""
        note = sign_checkpoint(checkpoint, self.signer)
        lines = [cosign(note.text, time=time, signer=signer) for signer, time in self.cosigners.items()]
        return bytes(Note(note.text, (*note.signatures, *lines)))

    def receipt(self, index: int, size: int | None = None) -> Receipt:
        size = self.size if size is None else size
        logged = self.logged[index]
        return Receipt(
            entry=logged.entry,
            payload_type=logged.payload_type,
            opening=logged.opening,
            index=index,
            checkpoint=self.note(size),
            proof=tuple(prove_inclusion(index=index, size=size, node=self.node)),
        )

    def batch_receipt(self, first: int, end: int) -> BatchReceipt:
        proof = prove_range(start=first, end=end, size=self.size, node=self.node)
        return BatchReceipt(
            first_index=first,
            time=START + first,
            writer="alice",
            openings=tuple(logged.opening for logged in self.logged[first:end]),
            left=proof.left,
            right=proof.right,
            checkpoint=self.note(),
            signed=tuple(one.signed for one in self.logged[first:end] if one.signed is not None),
        )

    def node(self, level: int, index: int) -> Hash:
        return self._nodes[level, index]

    def take(self, *events: Logged) -> int:
        """Append entries as they are, and return the index of the first."""
        first = self.size
        self.logged += events
        self._grow(first)
        return first

    # What it should not do

    def forge(self, signed: WriterSignature | None, *, writer: str = "alice") -> int:
        """Append an entry of its own making in a writer's name, and return its index."""
        opening = Opening(bytes(32))
        commitment = commit(opening=opening, payload_type="text/plain", payload=b"x")
        entry = bytes(Entry(commitment, ORIGIN, START + self.size, writer, signed))
        return self.take(Logged(entry, "text/plain", opening, b"x", signed))

    def drop(self, index: int) -> None:
        """Leave out the entry at `index`, and begin a history in which it never was."""
        del self.logged[index]
        self._rebuild()

    def fork(self, index: int, *, time: int = START, writer: str = "eve") -> None:
        """Put another entry in the place of the one at `index`: a second history under the same key."""
        other = self.logged[index]
        commitment = commit(opening=other.opening, payload_type="text/plain", payload=b"x")
        entry = bytes(Entry(commitment, ORIGIN, time, writer))
        self.logged[index] = replace(other, entry=entry, payload_type="text/plain", payload=b"x")
        self._rebuild()

    def shrink(self, size: int) -> None:
        """Forget the entries from `size` on."""
        del self.logged[size:]
        self._rebuild()

    def _rebuild(self) -> None:
        self._nodes.clear()
        self._grow(0)

    def _grow(self, first: int) -> None:
        for index in range(first, self.size):
            self._nodes[0, index] = leaf_hash(self.logged[index].entry)
            level = 0
            while index & 1:
                level, index = level + 1, index >> 1
                left, right = self._nodes[level - 1, 2 * index], self._nodes[level - 1, 2 * index + 1]
                self._nodes[level, index] = node_hash(left, right)

    # The routes

    def answer(self, request: Request) -> Answer | None:
        with self._lock:
            self.requests.append(request)
            fault = self.faults.popleft() if self.faults else None
        answer = fault(lambda: self._work(request)) if fault else self._work(request)
        if answer is None:
            return None
        route = request.path.partition("/")[0]
        return self.lies[route](answer) if route in self.lies and answer.status < 300 else answer

    def _work(self, request: Request) -> Answer:
        try:
            with self._lock:
                return self._post(request) if request.method == "POST" else self._get(request)
        except (MalformedError, KeyError, IndexError, ValueError) as error:
            problem = {
                "type": "urn:tlog:problem:not-found",
                "title": "No",
                "status": 404,
                "detail": repr(error),
            }
            return Answer(404, json.dumps(problem).encode())

    def _post(self, request: Request) -> Answer:
        if request.path == "bulletins":
            return Answer(204, b"")
        key = request.headers["idempotency-key"]
        if key in self._answers:
            body, answer = self._answers[key]
            if body == request.body:
                return answer
            return Answer(422, b'{"type":"urn:tlog:problem:idempotency-mismatch","detail":"another body"}')
        answer = self._append(request.headers["content-type"], request.body)
        if answer.status < 300:
            self._answers[key] = (request.body, answer)
        return answer

    def _append(self, payload_type: str, body: bytes) -> Answer:
        if payload_type == "application/x-ndjson":
            lines = [canonicalize(line) for line in body.split(b"\n")[:-1]]
            first = self.log(*lines)
            return Answer(201, bytes(self.batch_receipt(first, self.size)))
        if payload_type == "application/vnd.tlog.signed":
            return self._append_signed([json.loads(line) for line in body.splitlines()])
        payload = canonicalize(body) if payload_type == JSON_TYPE else body
        return Answer(201, bytes(self.receipt(self.log(payload, payload_type=payload_type))))

    def _append_signed(self, envelopes: list[dict[str, Any]]) -> Answer:
        found = envelopes[0]["writer_sequence"]
        if found != self.sequence:
            problem = {"type": "urn:tlog:problem:sequence-conflict", "detail": "not next", "status": 409}
            return Answer(409, json.dumps({**problem, "expected_sequence": self.sequence}).encode())
        self.sequence += len(envelopes)
        first = self.size
        for one in envelopes:
            kind, opening = one["payload_type"], Opening(decode_base64(one["opening"]))
            payload = canonical_json(one["payload"]) if kind == JSON_TYPE else decode_base64(one["payload"])
            signed = WriterSignature(one["writer_sequence"], decode_base64(one["writer_signature"]))
            commitment = commit(opening=opening, payload_type=kind, payload=payload)
            entry = bytes(Entry(commitment, ORIGIN, START + first, "alice", signed))
            self.take(Logged(entry, kind, opening, payload, signed))
        return Answer(201, bytes(self.batch_receipt(first, self.size)))

    def _get(self, request: Request) -> Answer:
        if request.path.startswith("/"):
            return Answer(200, self.elsewhere[request.path])
        route, _, rest = request.path.partition("/")
        if request.path == "checkpoint/cosigned":
            if self.cosigned is None:
                raise KeyError("no cosigned checkpoint")
            note = self.note(self.cosigned)
            lines = [cosign(parse_note(note).text, time=START // 1000, signer=one) for one in self.quorum]
            return Answer(200, note + "".join(map(str, lines)).encode(), {"Content-Type": "text/plain; charset=utf-8"})
        if self.tiles_only and route not in ("checkpoint", "tile"):
            raise KeyError(route)
        if route == "checkpoint":
            return Answer(200, self.note(), {"Content-Type": "text/plain; charset=utf-8"})
        if route == "entries":
            return self._entries(rest, request.query)
        if route == "proof":
            kind, first, second = rest.split("/")
            return self._proof(kind, int(first), int(second))
        return self._tile(parse_path(request.path))

    def _entries(self, index: str, query: dict[str, str]) -> Answer:
        if index:
            return _json(self.answer_of(int(index)))
        if "start" not in query:
            return self._search(query)
        start, limit = int(query["start"]), int(query["limit"])
        # Fewer than asked for, as a log may when they are large.
        stop = min(self.size, start + min(limit, self.page))
        return _json({"entries": [self.answer_of(place) for place in range(start, stop)]})

    def _search(self, query: dict[str, str]) -> Answer:
        """Answer a search, by whose terms everything is found that is indexed."""
        indexed = self.size - self.unindexed
        before = min(int(query.get("before", self.size)), indexed)
        start = max(before - self.page, 0)
        proofs = {at: prove_inclusion(index=at, size=self.size, node=self.node) for at in range(start, before)}
        found = [self.answer_of(at) | {"proof": [*map(encode_base64, proofs[at])]} for at in reversed(proofs)]
        more = {"indexed": indexed, "next": start or None, "size": self.size}
        return _json({"checkpoint": self.note().decode(), "entries": found, **more})

    def answer_of(self, index: int) -> dict[str, Any]:
        logged = self.logged[index]
        is_json = logged.payload_type == JSON_TYPE
        return {
            "entry": logged.entry.decode(),
            "index": index,
            "opening": encode_base64(logged.opening),
            "payload": json.loads(logged.payload) if is_json else encode_base64(logged.payload),
            "payload_type": logged.payload_type,
        }

    def _proof(self, kind: str, first: int, second: int) -> Answer:
        if kind == "inclusion":
            proof = prove_inclusion(index=second, size=first, node=self.node)
            return _json({"index": second, "proof": list(map(encode_base64, proof)), "size": first})
        proof = prove_consistency(old_size=first, new_size=second, node=self.node)
        return _json({"new_size": second, "old_size": first, "proof": list(map(encode_base64, proof))})

    def _tile(self, place: Tile | Bundle) -> Answer:
        if place.end() > self.size:
            raise IndexError(place.end())
        if self.tiles_only and place.width < TILE_WIDTH and replace(place, width=TILE_WIDTH).end() <= self.size:
            raise KeyError("a partial tile of which the full one is there")
        start = place.index * 256
        if isinstance(place, Bundle):
            return Answer(200, join_bundle([logged.entry for logged in self.logged[start : start + place.width]]))
        level = place.level * TILE_HEIGHT
        return Answer(200, join_hashes([self.node(level, start + at) for at in range(place.width)]))


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: object, client_address: object) -> None:
        """Say nothing of clients that hung up: they had reasons."""


@contextmanager
def running() -> Iterator[Simulator]:
    """Start a simulator on a free port of the loopback interface."""
    simulator = Simulator()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        wbufsize = -1  # one packet an answer: two would wait for each other's acknowledgement
        disable_nagle_algorithm = True

        def do_GET(self) -> None:
            self._serve()

        def do_POST(self) -> None:
            self._serve()

        def _serve(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            parts = urlsplit(self.path)
            request = Request(
                self.command,
                parts.path.removeprefix(PREFIX + "/"),
                {name: values[0] for name, values in parse_qs(parts.query).items()},
                {name.lower(): value for name, value in self.headers.items()},
                body,
            )
            answer = simulator.answer(request)
            if answer is None:
                self.close_connection = True
                return
            self.send_response(answer.status)
            for name, value in {"Content-Length": str(len(answer.body)), **answer.headers}.items():
                self.send_header(name, value)
                self.close_connection |= name == "Content-Length" and value != str(len(answer.body))
            self.end_headers()
            self.wfile.write(answer.body)

        def log_message(self, *_: Any) -> None:
            pass

    with _Server(("127.0.0.1", 0), Handler) as server:
        simulator.url = f"http://127.0.0.1:{server.server_address[1]}{PREFIX}"
        thread = threading.Thread(target=server.serve_forever, args=(0.005,))
        thread.start()
        try:
            yield simulator
        finally:
            server.shutdown()
            thread.join()


def _json(value: Any) -> Answer:
    return Answer(200, json.dumps(value).encode(), {"Content-Type": "application/json"})
