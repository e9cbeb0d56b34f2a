"""One request of add-checkpoint to one witness (C2SP tlog-witness), and what its answer comes to.

Nothing here believes an answer: of a cosignature only the line under the witness's own key is taken, once it holds.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import Final

import requests
from urllib3.exceptions import HTTPError

from tlog.witnesses.panel import submission_url
from tlog_client.errors import SlowError
from tlog_client.transport import read_body
from tlog_core.cosignature import open_cosignature
from tlog_core.encoding import encode_base64, parse_decimal
from tlog_core.errors import FetchError, MalformedError, SignatureError
from tlog_core.merkle import Hash
from tlog_core.note import Note, Signature, VerifierKey, parse_note
from tlog_core.policy import TrustedWitness

MAX_ANSWER_BYTES: Final = 16_384
ANSWER_SECONDS: Final = 10.0
"""How long an answer may take, from the first byte sent."""

_CONNECT_SECONDS: Final = 5.0
_SIZE_TYPE: Final = "text/x.tlog.size"


@dataclass(frozen=True, slots=True)
class Cosigned:
    """The witness cosigned, at `time` in POSIX seconds, by this signature line, which was verified."""

    time: int
    line: Signature


@dataclass(frozen=True, slots=True)
class Latest:
    """The latest checkpoint that the witness cosigned has this size, and not that from which it was asked."""

    size: int


@dataclass(frozen=True, slots=True)
class Refused:
    """No cosignature, and why: the `outcome` is one of a few words.

    `unreachable`, `busy`: no answer, or one that says to come back; so for every segment. `unknown`: the witness does
    not know this log. `contradicts`: it says that the proof does not hold. `invalid`: not an answer of a witness, or
    one that does not hold. `refused`: anything else.
    """

    outcome: str
    reason: str


Answer = Cosigned | Latest | Refused


def submit(session: requests.Session, witness: TrustedWitness, old: int, proof: Sequence[Hash], note: Note) -> Answer:
    """Submit a checkpoint, with the proof that it extends the one of size `old`, and return what the witness says."""
    hashes = "".join(f"{encode_base64(one)}\n" for one in proof)
    submitted = f"old {old}\n{hashes}\n".encode() + bytes(note)
    end = time.monotonic() + ANSWER_SECONDS
    try:
        with session.post(
            submission_url(witness),
            data=submitted,
            headers={"Accept-Encoding": "identity", "Content-Type": "text/plain; charset=utf-8"},
            timeout=(_CONNECT_SECONDS, ANSWER_SECONDS),
            allow_redirects=False,
            stream=True,
        ) as response:
            body = read_body(response, limit=MAX_ANSWER_BYTES, end=end)
            return _judge(response.status_code, response.headers, body, note, witness.key)
    except (OSError, HTTPError) as error:
        return Refused("unreachable", type(error).__name__)
    except SlowError as error:
        return Refused("unreachable", str(error))
    except FetchError as error:
        return Refused("invalid", str(error))


def _judge(
    status: int, headers: "requests.structures.CaseInsensitiveDict[str]", body: bytes, note: Note, key: VerifierKey
) -> Answer:
    try:
        if status == HTTPStatus.OK:
            return _cosigned(body, note, key)
        if status == HTTPStatus.CONFLICT:
            return _latest(headers.get("Content-Type", ""), body)
    except (MalformedError, SignatureError) as error:
        return Refused("invalid", str(error))
    if status == HTTPStatus.NOT_FOUND:
        return Refused("unknown", "it does not know this log; have it put on its list")
    if status == HTTPStatus.UNPROCESSABLE_ENTITY:
        return Refused("contradicts", "it says that this head does not extend what it has seen")
    if status == HTTPStatus.TOO_MANY_REQUESTS or status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        return Refused("busy", f"HTTP status {status}")
    return Refused("refused", f"HTTP status {status}")


def _cosigned(body: bytes, note: Note, key: VerifierKey) -> Cosigned:
    # C2SP tlog-witness: lines of keys that are not known are ignored, and so are not stored either.
    answered = parse_note(f"{note.text}\n".encode() + body)
    cosignature = open_cosignature(answered, key)
    if cosignature.time == 0:
        raise MalformedError("a cosignature of time 0 is not one of a whole tree")
    return Cosigned(cosignature.time, Signature(key.name, key.id, bytes(cosignature)))


def _latest(kind: str, body: bytes) -> Latest:
    if kind.partition(";")[0].strip().lower() != _SIZE_TYPE or not body.endswith(b"\n"):
        raise MalformedError(f"a 409 without the size as {_SIZE_TYPE}")
    try:
        return Latest(parse_decimal(body[:-1].decode("ascii")))
    except UnicodeDecodeError:
        raise MalformedError("the size is not a decimal") from None
