"""Following writers: of each, every entry is signed, and no sequence is left out or comes twice (`spec/entry.md`)."""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tlog_client.answers import IndexedEntry
from tlog_client.durable import locked, naming_disk, read_if_there, replace_durably
from tlog_client.errors import StateError
from tlog_core.encoding import canonical_json, number_member, parse_json
from tlog_core.errors import MalformedError, ProofError
from tlog_core.note import VerifierKey
from tlog_core.writer import verify_sequence


@dataclass(frozen=True, slots=True)
class Followed:
    """How many entries were looked at, and of each writer in them the sequence that is to come next."""

    size: int = 0
    following: Mapping[str, int] = field(default_factory=dict)

    def __bytes__(self) -> bytes:
        """Return what the file holds."""
        return canonical_json({"following": dict(self.following), "size": self.size})


def parse_followed(raw: bytes) -> Followed:
    """Return what is in the file; raise MalformedError."""
    members = parse_json(raw)
    if not isinstance(members, dict) or not isinstance(members.get("following"), dict):
        raise MalformedError("not an object with the members following and size")
    names = members["following"]
    followed = Followed(number_member(members, "size"), {name: number_member(names, name) for name in names})
    if bytes(followed) != raw:
        raise MalformedError("not exactly the members following and size")
    return followed


def follow(known: Followed, entries: Iterable[IndexedEntry], writers: frozenset[str]) -> Followed:
    """Return how far writers are after the entries that come next, whose signatures were verified; raise ProofError."""
    size, following = known.size, dict(known.following)
    for one in entries:
        size, writer = one.index + 1, one.entry.writer
        if writer in writers:
            try:
                following[writer] = verify_sequence(one.entry, following.get(writer, 0))
            except ProofError as error:
                raise ProofError(f"entry {one.index}: {error}") from None
    return Followed(size, following)


class FollowedFile:
    """How far the writers of these keys were followed in a log; it only ever moves forward.

    Its name is a hash of the log's key and of the writers' names: a writer more, and all is looked at anew.
    """

    def __init__(self, folder: Path, log: VerifierKey, writer_keys: Sequence[VerifierKey]) -> None:
        """Name the file; it is made when something was looked at."""
        self.writers = frozenset(key.name for key in writer_keys)
        name = hashlib.sha256("\n".join([str(log), *sorted(self.writers)]).encode()).hexdigest()
        self._path = folder / f"{name}.followed"

    def read(self) -> Followed:
        """Return how far writers were followed; StateError, or FetchError for a failing disk."""
        with naming_disk(self._path):
            raw = read_if_there(self._path)
        try:
            return Followed() if raw is None else parse_followed(raw)
        except MalformedError as error:
            raise StateError(
                f"the state file {self._path} is damaged: {error}; remove it, and all is looked at anew"
            ) from None

    def keep(self, followed: Followed) -> None:
        """Keep this for good, unless more was looked at meanwhile by another; errors as for `read`."""
        with naming_disk(self._path), locked(self._path):
            if followed.size > self.read().size:
                replace_durably(self._path, bytes(followed))
