"""Evidence bundles that are made without a server."""

from collections.abc import Sequence
from typing import Final

from tlog_client.answers import OpenedEntry
from tlog_client.bundle.archive import format_archive
from tlog_client.bundle.archive import member as zip_member
from tlog_client.bundle.manifest import Manifest, comment_of, listed
from tlog_client.bundle.part import Part, make_part
from tlog_client.bundle.verify import trust_of
from tlog_core.checkpoint import Checkpoint, sign_checkpoint
from tlog_core.commitment import Opening, commit
from tlog_core.entry import Entry
from tlog_core.merkle import Frontier, leaf_hash
from tlog_core.note import SignerKey, signer_from_seed

NOTHING: Final = {"control": None, "access": None}
"""What was looked through of `control` and `access`: nothing."""

LOG: Final = signer_from_seed("example.com/segments/payments", bytes(32))


def part_of(events: Sequence[tuple[str, bytes]], log: SignerKey = LOG) -> Part:
    """Return a part with all entries of a log that has these payloads, each after its media type."""
    opening, opened = Opening(bytes(32)), list[OpenedEntry]()
    for index, (kind, payload) in enumerate(events):
        commitment = commit(opening=opening, payload_type=kind, payload=payload)
        opened.append(OpenedEntry(index, Entry(commitment, log.name, index, "w"), kind, opening, payload))
    root = Frontier().grow([leaf_hash(bytes(one.entry)) for one in opened]).frontier.root()
    return make_part("segment", bytes(sign_checkpoint(Checkpoint(log.name, len(opened), root), log)), [], opened)


def bundle_of(part: Part, size: int, page: bytes = b"", log: SignerKey = LOG) -> bytes:
    """Return the bundle of a part that has so many entries."""
    trust = zip_member("trust.policy", bytes(trust_of(log.verifier)))
    members = [trust, *part.members(), zip_member("verify.html", page)]
    manifest = bytes(Manifest(range(size), 0, "ann", listed(members), log.name, NOTHING, "test"))
    return format_archive([zip_member("manifest.json", manifest), *members], comment_of(manifest))
