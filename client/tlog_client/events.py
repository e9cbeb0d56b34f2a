"""What the log takes (`spec/entry.md`, `spec/http-api.md`), checked here, so that one bad event harms no other."""

import re
from collections.abc import Sequence
from typing import Any, Final

from tlog_core.commitment import MAX_TYPE_BYTES
from tlog_core.encoding import readable_json
from tlog_core.errors import MalformedError
from tlog_core.receipt import JSON_TYPE

NDJSON_TYPE: Final = "application/x-ndjson"
MAX_PAYLOAD_BYTES: Final = 1 << 20
MAX_BATCH_BYTES: Final = 16 << 20
MAX_BATCH_EVENTS: Final = 10_000

_EVENT_TYPES: Final = (JSON_TYPE, NDJSON_TYPE, "application/ndjson")
_FORM_TYPES: Final = ("application/x-www-form-urlencoded", "multipart/form-data")
_MEDIA_TYPE: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+/[!#$%&'*+.^_`|~0-9A-Za-z-]+( *;[\x20-\x7e]*)?")


def canonical_event(event: Any) -> bytes:
    """Return the RFC 8785 form of an event: any JSON value of at most 1 MiB in that form.

    Raises MalformedError for what the log would refuse: what is not JSON, or nests deeper than 64, or has numbers or
    strings that not every reader understands alike.
    """
    payload = readable_json(event)
    verify_payload_length(payload)
    return payload


def verify_payload_length(payload: bytes) -> None:
    """Check that a payload has 1 byte to 1 MiB; raise MalformedError."""
    if not 1 <= len(payload) <= MAX_PAYLOAD_BYTES:
        raise MalformedError(f"a payload has 1 to {MAX_PAYLOAD_BYTES} bytes, not {len(payload)}")


def verify_opaque_type(payload_type: str) -> None:
    """Check that the log takes a payload of this media type as the bytes it is; raise MalformedError."""
    if _MEDIA_TYPE.fullmatch(payload_type) is None or len(payload_type) > MAX_TYPE_BYTES:
        raise MalformedError(f"not a media type: {payload_type!r}; give one such as text/plain")
    essence = payload_type.partition(";")[0].strip().lower()
    if essence in _EVENT_TYPES:
        raise MalformedError(f"{payload_type} is for events: append them as JSON values")
    if essence in _FORM_TYPES:
        raise MalformedError(f"{payload_type} is for forms, which the log refuses; give another type")


def join_batch(payloads: Sequence[bytes]) -> bytes:
    """Return the body of a batch: each event, in RFC 8785 form, and a newline; MalformedError beyond its limits."""
    if len(payloads) > MAX_BATCH_EVENTS:
        raise MalformedError(f"a batch has at most {MAX_BATCH_EVENTS} events, not {len(payloads)}; use a Writer")
    body = b"\n".join([*payloads, b""])
    if len(body) > MAX_BATCH_BYTES:
        raise MalformedError(f"a batch has at most {MAX_BATCH_BYTES} bytes, not {len(body)}; use a Writer")
    return body
