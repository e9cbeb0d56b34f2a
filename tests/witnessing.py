"""A real witness, `tlog witness serve` in processes of its own, and a log that signs what it is told to."""

import hashlib
import subprocess
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import reference
from live import PATIENCE, TLOG, Answer, Server, free_port, until

from tlog.errors import NotFoundError
from tlog.witness.cosigner import Witness, hash_origin
from tlog.witness.submission import parse_submission
from tlog_core.cosignature import open_cosignature
from tlog_core.encoding import encode_base64
from tlog_core.errors import TlogError
from tlog_core.merkle import Hash
from tlog_core.note import (
    COSIGNATURE,
    Note,
    Signature,
    SignerKey,
    VerifierKey,
    parse_note,
    parse_verifier,
    sign_note,
    signer_from_seed,
)

NAME = "witness.example/w1"


@dataclass(frozen=True)
class Log:
    """A log of so many entries. It signs any of its sizes, and another root too if it is told to."""

    signer: SignerKey
    leaves: Sequence[bytes]

    @property
    def origin(self) -> str:
        return self.signer.name

    @property
    def key(self) -> VerifierKey:
        return self.signer.verifier

    @property
    def path(self) -> str:
        """Where a witness shows its latest checkpoint."""
        return f"/{hashlib.sha256(self.origin.encode()).hexdigest()}/checkpoint"

    def text(self, size: int, root: bytes | None = None, origin: str | None = None) -> str:
        stated = reference.mth(self.leaves[:size]) if root is None else root
        return f"{origin or self.origin}\n{size}\n{encode_base64(stated)}\n"

    def note(self, size: int, root: bytes | None = None) -> bytes:
        return bytes(sign_note(self.text(size, root), self.signer))

    def proof(self, old: int, size: int) -> list[bytes]:
        return reference.proof(old, self.leaves[:size])

    def body(self, old: int, size: int, *, proof: Sequence[bytes] | None = None, note: bytes | None = None) -> bytes:
        """Return a submission, by default a right one."""
        hashes = self.proof(old, size) if proof is None else proof
        return submission(str(old), hashes, self.note(size) if note is None else note)


def make_log(origin: str, size: int, seed: int = 1) -> Log:
    signer = signer_from_seed(origin, reference.sha256(b"%d" % seed))
    return Log(signer, [reference.leaf(f"{origin} {index}".encode()) for index in range(size)])


def submission(old: str, proof: Sequence[bytes], note: bytes) -> bytes:
    lines = "".join(f"{encode_base64(value)}\n" for value in proof)
    return f"old {old}\n{lines}\n".encode() + note


def with_lines(note: bytes, *lines: Signature) -> bytes:
    """Return a note with further signature lines, whatever they are worth."""
    return note + "".join(map(str, lines)).encode()


def forged(key: VerifierKey, length: int) -> Signature:
    """Return a line under somebody's name and ID that nobody with the key made."""
    return Signature(key.name, key.id, (reference.sha256(b"forged") * length)[:length])


def other_root(seed: int = 7) -> Hash:
    return Hash(reference.sha256(b"%d" % seed))


def log_list(*logs: VerifierKey) -> str:
    return "logs/v0\n" + "".join(f"vkey {log}\nqpd 86400\ncontact nobody\n" for log in logs)


@dataclass
class RunningWitness:
    """A running witness, its verifier key, and its key of ML-DSA-44 if it has one."""

    server: Server
    key: VerifierKey
    subtree_key: VerifierKey | None = None

    def add(self, body: bytes) -> Answer:
        return self.server.request("POST", "/add-checkpoint", body)

    def sign(self, body: bytes) -> Answer:
        return self.server.request("POST", "/sign-subtree", body)

    def latest(self, log: Log) -> Answer:
        return self.server.request("GET", log.path)

    def size(self, log: Log) -> int:
        """Return the size that the witness shows for a log, 0 if it shows none."""
        answer = self.latest(log)
        return int(answer.body.split(b"\n")[1]) if answer.status == 200 else 0


def command(data: Path, *more: str) -> list[str]:
    return [str(TLOG), "witness", *more[:1], "--data", str(data), *more[1:]]


def start_witness(
    data: Path, *logs: VerifierKey, name: str | None = NAME, subtrees: bool = False, port: int | None = None
) -> RunningWitness:
    """Start a witness of these logs and return when it is ready."""
    listed = data.parent / f"{data.name}.logs"
    listed.write_text(log_list(*logs))
    named = [] if name is None else ["--name", name]
    more = ["--ml-dsa-44"] if subtrees else []
    keys = subprocess.run(command(data, "key", *named, *more), check=True, capture_output=True, text=True).stdout
    port = port or free_port()
    output = data.parent / f"{data.name}.log"
    with output.open("ab") as out:
        process = subprocess.Popen(
            command(data, "serve", "--logs", str(listed), "--port", str(port), *named),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=out,
        )
    server = Server(process, port, data, output)
    try:
        until(lambda: _is_ready(server), f"the witness to be ready; see {output}", PATIENCE)
    except BaseException:
        server.kill()
        raise
    return RunningWitness(server, *map(parse_verifier, keys.split()))


def _is_ready(server: Server) -> bool:
    assert server.process.poll() is None, server.log.read_text()
    try:
        return server.request("GET", "/").status == 404
    except OSError:
        return False


def witness_signer(seed: int = 2, name: str = NAME) -> SignerKey:
    return signer_from_seed(name, reference.sha256(b"%d" % seed), key_type=COSIGNATURE)


def contradictions(witness: Witness, log: Log, released: Sequence[tuple[int, str]]) -> list[str]:
    """Say what of the lines that a witness released, each with the size of its checkpoint, it does not stand by."""
    wrong = list[str]()
    most = max((size for size, _ in released), default=0)
    stands = stands_at(witness, log)
    wrong += [f"{log.origin} was cosigned at {most}, and the witness stands at {stands}"] * (stands < most)
    for size in {size for size, _ in released}:
        forked = log.body(size, size, note=log.note(size, other_root()))
        wrong += [f"cosigned a fork of {log.origin} at {size}"] * (_cosign(witness, forked) is not None)
        wrong += [f"cosigned {log.origin} again at {size}, from 0"] * (_cosign(witness, log.body(0, size)) is not None)
    return wrong + _goes_on(witness, log, stands, max((_time(witness, log, *one) for one in released), default=0))


def stands_at(witness: Witness, log: Log) -> int:
    """Return the size that a witness has cosigned last, 0 if it has none."""
    with suppress(NotFoundError):
        return int(witness.latest(hash_origin(log.origin)).split(b"\n")[1])
    return 0


def _goes_on(witness: Witness, log: Log, stands: int, time: int) -> list[str]:
    lines = _cosign(witness, log.body(stands, len(log.leaves)))
    if lines is None:
        return [f"{log.origin} is not cosigned any more, from {stands} on"]
    return [f"the time of {log.origin} went back"] * (_time(witness, log, len(log.leaves), lines) < time)


def _time(witness: Witness, log: Log, size: int, lines: str) -> int:
    """Return the time of a cosignature, which must hold."""
    return open_cosignature(parse_note(log.note(size) + lines.encode()), witness.signer.verifier).time


def _cosign(witness: Witness, body: bytes) -> str | None:
    try:
        return "".join(map(str, witness.add_checkpoint(parse_submission(body))))
    except TlogError:
        return None


def cosigned(log: Log, size: int, answer: Answer) -> Note:
    """Return the checkpoint with the cosignature of an answer, as a client puts them together."""
    return parse_note(log.note(size) + answer.body)
