"""Verifying a bundle: all that is proven in it, by the trust policy of who verifies (`spec/bundle.md`, "Verifying")."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from tlog_client.bundle.archive import Member, parse_archive, verify_crc
from tlog_client.bundle.manifest import NAME, PAGE, POLICY, SEGMENTS, Manifest, comment_of, listed, parse_manifest
from tlog_client.bundle.part import ACCESS, CONTROL, FILES, SEGMENT, Part, verify_range
from tlog_client.bundle.place import at
from tlog_core.checkpoint import parse_checkpoint
from tlog_core.errors import MalformedError, ProofError
from tlog_core.note import VerifierKey, parse_note
from tlog_core.policy import TrustedLog, TrustPolicy, Witnessed, open_witnessed, parse_policy
from tlog_core.proof import verify_subset

Advance = Callable[[int], None]
"""Given how many bytes are done with."""

_ZIP: Final = "the zip"


@dataclass(frozen=True, slots=True)
class VerifiedPart:
    """A part that holds: under which head, by which keys of the log, and which entries, with their times.

    `is_own` says that the trust policy of who verifies has the log, and not only that of the bundle. `quorum` is what
    had to cosign, None if nobody had to.
    """

    name: str
    head: Witnessed
    keys: tuple[VerifierKey, ...]
    quorum: str | None
    is_own: bool
    indexes: tuple[int, ...]
    first_time: int
    last_time: int


@dataclass(frozen=True, slots=True)
class VerifiedBundle:
    """A bundle that holds: its manifest, what the exporter says of it, and its parts, that of the segment first."""

    manifest: Manifest
    parts: tuple[VerifiedPart, ...]
    page_sha256: str


def trust_of(key: VerifierKey) -> TrustPolicy:
    """Return the trust policy of who believes one log, by its key, and asks for no witnesses."""
    return TrustPolicy((TrustedLog(key),), (), (), None)


def verify_bundle(raw: bytes, trust: TrustPolicy, advance: Advance = lambda _: None) -> VerifiedBundle:
    """Return what a bundle proves; raise MalformedError, SignatureError or ProofError, with its place as a note."""
    members, comment = parse_archive(raw)
    manifest = _manifest(members, comment)
    changed = {one.name for one, due in zip(listed(members[1:]), manifest.files, strict=True) if one != due}
    contents = {one.name: one.content for one in members}
    with at(POLICY):
        stated = parse_policy(contents[POLICY])
    parts = tuple(
        _verify_part(_part(name, contents), changed, trust, stated, advance) for name in _names(list(contents))
    )
    with at(NAME):
        _verify_origins(manifest.origin, parts)
        for part in parts[1:]:
            _verify_looked(manifest.reserved.get(part.name), part)
        if isinstance(manifest.asked, range):
            verify_range(parts[0].indexes, manifest.asked)
    for name in contents:
        if name in changed:
            with at(name):
                raise MalformedError("it is not the file that the manifest has")
    verify_crc(members)
    return VerifiedBundle(manifest, parts, manifest.files[-1].sha256)


def _manifest(members: Sequence[Member], comment: str) -> Manifest:
    with at(NAME):
        if members[0].name != NAME:
            raise MalformedError("it is not the first member of the zip")
        if comment_of(members[0].content) != comment:
            raise MalformedError("it, or the comment of the zip, is not as it was: their hashes differ")
        manifest = parse_manifest(members[0].content)
    names = [one.name for one in members[1:]]
    due = _due(_names(names))
    for place, name in enumerate(due):
        if names[place : place + 1] != [name] or [one.name for one in manifest.files[place : place + 1]] != [name]:
            with at(name):
                raise MalformedError("it is not in its place, in the zip or in the manifest")
    if not len(due) == len(names) == len(manifest.files):
        with at(_ZIP):
            raise MalformedError("there are members that no bundle has")
    return manifest


def _names(files: Sequence[str]) -> list[str]:
    return [SEGMENT, *(name for name in (CONTROL, ACCESS) if f"{name}/{FILES[0]}" in files)]


def _due(parts: Sequence[str]) -> list[str]:
    return [POLICY, *(f"{part}/{file}" for part in parts for file in FILES), PAGE]


def _part(name: str, contents: dict[str, bytes]) -> Part:
    return Part(name, *(contents[f"{name}/{file}"] for file in FILES))


def _verify_part(
    part: Part, changed: set[str], own: TrustPolicy, stated: TrustPolicy, advance: Advance
) -> VerifiedPart:
    def blame(file: str) -> str:
        # Where a member is not as it was, that is what is wrong, wherever it comes up.
        ours = [f"{part.name}/{one}" for one in FILES]
        return next((name for name in ours if name in changed), f"{part.name}/{file}")

    with at(f"{part.name}/checkpoint"):
        origin = parse_checkpoint(parse_note(part.checkpoint).text).origin
        is_own = part.name == SEGMENT or bool(own.log_keys(origin))
        trust = own if is_own else stated
        head = open_witnessed(part.checkpoint, trust)
    with at(f"{part.name}/proof"):
        proof = part.hashes()
    indexes, leaves, times = [], [], []
    for opened, leaf in part.opened(origin, blame):
        indexes.append(opened.index)
        leaves.append(leaf)
        times.append(opened.entry.time)
        advance(len(opened.payload))
    with at(blame("proof")):
        tree = head.checkpoint
        verify_subset(indexes=indexes, leaves=leaves, size=tree.size, proof=proof, root=tree.root)
    keys = tuple(trust.log_keys(origin))
    return VerifiedPart(part.name, head, keys, trust.quorum, is_own, tuple(indexes), times[0], times[-1])


def _verify_origins(origin: str, parts: Sequence[VerifiedPart]) -> None:
    log, _, _ = origin.rpartition(SEGMENTS)
    for part in parts:
        due = origin if part.name == SEGMENT else f"{log}{SEGMENTS}{part.name}"
        if part.head.checkpoint.origin != due:
            raise ProofError(f"{part.name} is of {part.head.checkpoint.origin}, not of {due}")


def _verify_looked(looked: range | None, part: VerifiedPart) -> None:
    if looked is None:
        raise ProofError(f"{part.name} was not looked through, and is there")
    size, first = part.head.checkpoint.size, part.indexes[0]
    if looked.stop != size or first < looked.start:
        told = f"was looked through from {looked.start} to before {looked.stop}"
        raise ProofError(f"{part.name} {told}, but it has {size} entries, and entry {first} is there")
