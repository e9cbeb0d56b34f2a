"""The body of a request of signed events: one envelope a line, each in its only form (spec/http-api.md)."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import msgspec

from tlog.canonical import Canonicalizer
from tlog.config import MAX_PAYLOAD_BYTES
from tlog.errors import LineError, TooLargeError
from tlog.submit import Signed
from tlog_core.commitment import OPENING_BYTES, Opening
from tlog_core.encoding import MAX_JSON_INTEGER, decode_base64, encode_base64
from tlog_core.entry import WriterSignature
from tlog_core.errors import MalformedError
from tlog_core.note import KEY_ID_BYTES, SIGNATURE_BYTES
from tlog_core.receipt import JSON_TYPE

SIGNED_TYPE: Final = "application/vnd.tlog.signed"


class Envelope(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A line of a request of signed events; members are in the order of RFC 8785."""

    opening: str
    payload: msgspec.Raw
    payload_type: str
    writer_sequence: int
    writer_signature: str


@dataclass(frozen=True, slots=True)
class Opened:
    """What an envelope holds."""

    kind: str
    payload: bytes
    opening: Opening
    signed: WriterSignature


def read_envelopes(lines: Sequence[bytes], canonicalize: Canonicalizer) -> tuple[str, list[bytes], Signed]:
    """Return type, payloads and signatures of envelopes, at least one; raise LineError or TooLargeError."""
    opened: list[Opened] = []
    for number, line in enumerate(lines, 1):
        try:
            one = _open(line, canonicalize)
            if len(one.payload) > MAX_PAYLOAD_BYTES:
                raise TooLargeError(f"a payload has at most {MAX_PAYLOAD_BYTES} bytes; shorten it", number)
            if opened:
                _check_follows(opened[0], one, number)
        except MalformedError as error:
            raise LineError(number, str(error)) from None
        opened.append(one)
    signed = Signed([one.opening for one in opened], [one.signed for one in opened])
    return opened[0].kind, [one.payload for one in opened], signed


def _open(line: bytes, canonicalize: Canonicalizer) -> Opened:
    try:
        envelope = msgspec.json.decode(line, type=Envelope)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise MalformedError(f"not an envelope of a signed event: {error}") from None
    payload = bytes(envelope.payload)
    # The payload is in RFC 8785 form, and so is what is around it: an envelope has one form, and no member twice.
    if canonicalize(payload) != payload or msgspec.json.encode(envelope) != line:
        raise MalformedError("the envelope is not in RFC 8785 form")
    if envelope.writer_sequence > MAX_JSON_INTEGER or envelope.writer_sequence < 0:
        raise MalformedError("writer_sequence is not a whole number from 0 to 2^53-1")
    signature = decode_base64(envelope.writer_signature, length=KEY_ID_BYTES + SIGNATURE_BYTES)
    return Opened(
        kind=envelope.payload_type,
        payload=payload if envelope.payload_type == JSON_TYPE else _opaque(payload),
        opening=Opening(decode_base64(envelope.opening, length=OPENING_BYTES)),
        signed=WriterSignature(envelope.writer_sequence, signature),
    )


def _opaque(payload: bytes) -> bytes:
    data = decode_base64(payload[1:-1].decode()) if payload[:1] == b'"' else b""
    if not data or b'"%s"' % encode_base64(data).encode() != payload:
        raise MalformedError("a payload that is not JSON is a string of base64, and not empty")
    return data


def _check_follows(first: Opened, one: Opened, number: int) -> None:
    if one.kind != first.kind:
        raise MalformedError("another payload_type than on line 1; send it in a request of its own")
    if one.signed.sequence != first.signed.sequence + number - 1:
        raise MalformedError("writer_sequence does not follow that of the line before")
