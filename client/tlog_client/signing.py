"""Appending signed events: what is sent, and what must come back (`spec/http-api.md`)."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from tlog_client.events import MAX_BATCH_BYTES, MAX_BATCH_EVENTS
from tlog_core.commitment import Opening, commit_all
from tlog_core.encoding import canonical_json, encode_base64
from tlog_core.entry import WriterSignature
from tlog_core.errors import MalformedError
from tlog_core.note import SignerKey
from tlog_core.receipt import JSON_TYPE
from tlog_core.writer import sign_commitments

SIGNED_TYPE: Final = "application/vnd.tlog.signed"

MAX_ENVELOPE_BYTES: Final = 320
"""How much longer than an event of JSON its line is at most."""


@dataclass(frozen=True, slots=True)
class SignedBatch:
    """Payloads of one media type, each with its opening, signed in order from the sequence `first` on."""

    payloads: Sequence[bytes]
    payload_type: str
    openings: tuple[Opening, ...]
    first: int
    signed: tuple[WriterSignature, ...]

    def body(self) -> bytes:
        """Return the body of the request: one envelope a line; MalformedError beyond the limits of a batch."""
        if len(self.payloads) > MAX_BATCH_EVENTS:
            raise MalformedError(f"a batch has at most {MAX_BATCH_EVENTS} events, not {len(self.payloads)}")
        body = b"".join(map(self._line, range(len(self.payloads))))
        if len(body) > MAX_BATCH_BYTES:
            raise MalformedError(f"a signed batch has at most {MAX_BATCH_BYTES} bytes, not {len(body)}; use a Writer")
        return body

    def _line(self, place: int) -> bytes:
        payload, one = self.payloads[place], self.signed[place]
        return b'{"opening":"%s","payload":%s,"payload_type":%s,"writer_sequence":%d,"writer_signature":"%s"}\n' % (
            encode_base64(self.openings[place]).encode(),
            payload if self.payload_type == JSON_TYPE else canonical_json(encode_base64(payload)),
            canonical_json(self.payload_type),
            one.sequence,
            encode_base64(one.signature).encode(),
        )


def sign_batch(
    payloads: Sequence[bytes],
    payload_type: str,
    *,
    openings: tuple[Opening, ...],
    origin: str,
    first: int,
    signer: SignerKey,
) -> SignedBatch:
    """Return payloads, in RFC 8785 form if they are JSON, signed for the log `origin` from this sequence on.

    `openings` are 32 fresh random bytes for each. MalformedError for a media type that cannot be committed to.
    """
    commitments = commit_all(openings, payload_type, payloads)
    signed = tuple(sign_commitments(commitments, origin=origin, first=first, signer=signer))
    return SignedBatch(payloads, payload_type, openings, first, signed)
