"""What is kept of events that have no place: their bytes, and why (spec/ingest.md, "Quarantine")."""

import hashlib
from base64 import b64encode
from collections.abc import Iterator, Mapping
from typing import Any, Final

from tlog.formats.fields import Fields, Format
from tlog_core.encoding import canonical_json

MAX_PART_BYTES: Final = 512 << 10
"""How many bytes one entry keeps: in base64, or escaped, they are below what a payload may have."""

_MAX_TEXT_BYTES: Final = 128 << 10
_MAX_REASON: Final = 1_000


def enclose(data: bytes, receiver: str, reason: str) -> Iterator[bytes]:
    """Yield the payloads, in canonical form, that keep these bytes, as they came to a receiver, and the reason."""
    parts = [data[place : place + MAX_PART_BYTES] for place in range(0, len(data), MAX_PART_BYTES)] or [b""]
    for number, part in enumerate(parts, 1):
        yield canonical_json(
            {
                **_kept(part),
                "part": number,
                "parts": len(parts),
                "quarantined": reason.encode("utf-8", "replace").decode()[:_MAX_REASON],
                "receiver": receiver,
                "sha256": hashlib.sha256(data).hexdigest(),
            }
        )


def _kept(part: bytes) -> dict[str, str]:
    # Escaped, a text may become six times as long.
    if len(part) <= _MAX_TEXT_BYTES:
        try:
            return {"text": part.decode()}
        except UnicodeDecodeError:
            pass
    return {"data": b64encode(part).decode()}


def _recognizes(event: Mapping[str, Any]) -> bool:
    return "sha256" in event and "receiver" in event


FORMAT: Final = Format("quarantine", "quarantined", _recognizes, lambda _: Fields(), lambda _: None)
