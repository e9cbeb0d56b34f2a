"""The log's JSON answers about entries and proofs (`spec/http-api.md`), parsed, and compared with what was asked."""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Final

from tlog_core.commitment import OPENING_BYTES, Opening, verify_commitment
from tlog_core.encoding import MAX_JSON_DEPTH, canonical_json, decode_base64, parse_json
from tlog_core.entry import Entry, parse_entry
from tlog_core.errors import FetchError, MalformedError, ProofError
from tlog_core.merkle import Hash
from tlog_core.proof import parse_hashes
from tlog_core.receipt import JSON_TYPE

# An answer wraps payloads, which may nest as deep as any event, in an object, and a page in a list and one more.
_ANSWER_DEPTH: Final = MAX_JSON_DEPTH + 3


@dataclass(frozen=True, slots=True)
class IndexedEntry:
    """An entry and its place in the log: what everybody may see of an event."""

    index: int
    entry: Entry


@dataclass(frozen=True, slots=True)
class OpenedEntry:
    """An entry, its place in the log, and the payload that its commitment opens to.

    `payload` is in RFC 8785 form if `payload_type` is `application/json`, else as it was received.
    """

    index: int
    entry: Entry
    payload_type: str
    opening: Opening
    payload: bytes

    def event(self) -> Any:
        """Return the JSON value that was logged; MalformedError for a payload of another type."""
        if self.payload_type != JSON_TYPE:
            raise MalformedError(f"the payload is not JSON but {self.payload_type}")
        return parse_json(self.payload)


def verify_opened(opened: OpenedEntry, *, origin: str) -> None:
    """Check that an entry is of the log `origin` and commits to its payload; raise ProofError or MalformedError."""
    verify_origin(opened.entry, origin=origin)
    verify_commitment(
        opened.entry.commitment,
        opening=opened.opening,
        payload_type=opened.payload_type,
        payload=opened.payload,
    )


def verify_origin(entry: Entry, *, origin: str) -> None:
    """Check that an entry is of the log `origin`; raise ProofError."""
    if entry.origin != origin:
        raise ProofError(f"the entry belongs to {entry.origin}, not to {origin}")


def parse_opened(raw: bytes, *, index: int) -> OpenedEntry:
    """Return the entry at `index` from its answer, not yet verified; raise MalformedError."""
    return _opened(_object(parse_json(raw, depth=_ANSWER_DEPTH)), index)


def parse_page(raw: bytes, *, start: int, limit: int) -> list[OpenedEntry]:
    """Return up to `limit` entries from `start` on, at least one, not yet verified; MalformedError or FetchError."""
    page = _list(_object(parse_json(raw, depth=_ANSWER_DEPTH)), "entries")
    if not page:
        raise FetchError(f"the log withholds entry {start}, which its checkpoint covers")
    if len(page) > limit:
        raise MalformedError(f"{len(page)} entries where {limit} were asked for")
    return [_opened(_object(members), index) for index, members in enumerate(page, start)]


@dataclass(frozen=True, slots=True)
class FoundPage:
    """A page of what a search found, not yet verified: entries with their inclusion proofs, under a signed note.

    Below `next` there may be more, unless it is None. From `indexed` on nothing was looked at, of `size` entries.
    """

    note: bytes
    hits: tuple[tuple[OpenedEntry, tuple[Hash, ...]], ...]
    next: int | None
    indexed: int
    size: int


def parse_found(raw: bytes, *, before: int) -> FoundPage:
    """Return a page of what was found, the latest first, all below `before`; raise MalformedError."""
    members = _object(parse_json(raw, depth=_ANSWER_DEPTH))
    hits = tuple(_hit(_object(hit)) for hit in _list(members, "entries"))
    indexed, size = _number(members, "indexed"), _number(members, "size")
    following = None if members.get("next") is None else _number(members, "next")
    places = [before, *(opened.index for opened, _ in hits), *([] if following is None else [following])]
    # The next page may begin where the last entry of this one is.
    falls = all(one > other for one, other in pairwise(places[: len(hits) + 1])) and places == sorted(places)[::-1]
    # A page may be empty, but a log has no more of them than entries.
    if not falls or following == before or max(indexed, following or 0) > size:
        raise MalformedError("the answer is not a page of what was found, the latest first")
    return FoundPage(_text(members, "checkpoint").encode(), hits, following, indexed, size)


def parse_inclusion(raw: bytes, *, index: int, size: int) -> tuple[Hash, ...]:
    """Return the inclusion proof from its answer, not yet verified; raise MalformedError."""
    return _proof(raw, {"index": index, "size": size})


def parse_consistency(raw: bytes, *, old_size: int, new_size: int) -> tuple[Hash, ...]:
    """Return the consistency proof from its answer, not yet verified; raise MalformedError."""
    return _proof(raw, {"old_size": old_size, "new_size": new_size})


def _proof(raw: bytes, asked: Mapping[str, int]) -> tuple[Hash, ...]:
    members = _object(parse_json(raw))
    # A cache that mixes answers up is found here, and not blamed on the log.
    for name, number in asked.items():
        _check_echo(members, name, number)
    return parse_hashes(_checked_text(text) for text in _list(members, "proof"))


def _opened(members: dict[str, Any], index: int) -> OpenedEntry:
    _check_echo(members, "index", index)
    payload_type = _text(members, "payload_type")
    return OpenedEntry(
        index=index,
        entry=parse_entry(_text(members, "entry").encode()),
        payload_type=payload_type,
        opening=Opening(decode_base64(_text(members, "opening"), length=OPENING_BYTES)),
        payload=_payload(members, payload_type),
    )


def _hit(members: dict[str, Any]) -> tuple[OpenedEntry, tuple[Hash, ...]]:
    opened = _opened(members, _number(members, "index"))
    return opened, parse_hashes(_checked_text(text) for text in _list(members, "proof"))


def _payload(members: dict[str, Any], payload_type: str) -> bytes:
    if payload_type != JSON_TYPE:
        return decode_base64(_text(members, "payload"))
    if "payload" not in members:
        raise MalformedError("the answer has no payload")
    return canonical_json(members["payload"])


def _check_echo(members: dict[str, Any], name: str, asked: int) -> None:
    answered = members.get(name)
    if type(answered) is not int or answered != asked:
        raise MalformedError(f"the answer is not to the question: its {name} is not {asked}")


def _object(value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise MalformedError("the answer is not an object where it must be one")
    return value


def _number(members: dict[str, Any], name: str) -> int:
    value = members.get(name)
    if type(value) is not int or value < 0:
        raise MalformedError(f"the answer has no number {name}")
    return value


def _list(members: dict[str, Any], name: str) -> list[Any]:
    value = members.get(name)
    if not isinstance(value, list):
        raise MalformedError(f"the answer has no list {name}")
    return value


def _text(members: dict[str, Any], name: str) -> str:
    return _checked_text(members.get(name))


def _checked_text(value: Any) -> str:
    if not isinstance(value, str):
        raise MalformedError("the answer lacks a string where it must have one")
    return value
