"""Heads as a monitor holds them: signed notes with the verified lines of the policy's keys, and no others."""

from dataclasses import dataclass

from tlog_core.checkpoint import Checkpoint, parse_head
from tlog_core.cosignature import time_of
from tlog_core.evidence import MAX_AHEAD
from tlog_core.note import Note, parse_note
from tlog_core.policy import TrustPolicy, open_cosignatures, verify_log


@dataclass(frozen=True, slots=True)
class Head:
    """A signed head; `time` is its quorum time in POSIX seconds, None where the quorum has not cosigned, or is `none`.

    `ahead` are the names, in the policy, of witnesses that cosigned at a time still to come: their lines were left out.
    A head of size 0 may have a root that no tree has: whoever judges it has to look.
    """

    note: Note
    tree: Checkpoint
    time: int | None
    ahead: tuple[str, ...] = ()


def open_head(note: Note, policy: TrustPolicy, *, now: float) -> Head:
    """Return the head of a note that a log of the policy signed; raise MalformedError or SignatureError.

    `now` is in POSIX seconds.

    A wrong line under a key of the log, or of any witness of the policy, condemns the note. No quorum is demanded.
    """
    verify_log(note, policy)
    opened = open_cosignatures(note, policy)
    cosigned = {name: time for name, time in opened if time <= now + MAX_AHEAD}
    ahead = tuple(name for name, _ in opened if name not in cosigned)
    tree = parse_head(note.text)
    keys = [*policy.log_keys(tree.origin), *(one.key for one in policy.witnesses if one.name in cosigned)]
    known = {(key.name, key.id) for key in keys}
    lines = tuple(line for line in note.signatures if (line.name, line.key_id) in known)
    return Head(Note(note.text, lines), tree, policy.quorum_time(cosigned), ahead)


def recall_head(raw: bytes, policy: TrustPolicy) -> Head:
    """Return the head of a note that was verified when it was stored, without checking its signatures again."""
    note = parse_note(raw)
    return Head(note, parse_head(note.text), policy.quorum_time(policy.times(note)))


def merge_heads(one: Head, other: Head, policy: TrustPolicy) -> Head:
    """Return the head that two of one text make: each line once, each cosignature as late as either has it."""
    lines = {(line.name, line.key_id): line for line in one.note.signatures}
    witnesses = {(witness.key.name, witness.key.id) for witness in policy.witnesses}
    for line in other.note.signatures:
        key = (line.name, line.key_id)
        if key not in lines or (key in witnesses and time_of(line) > time_of(lines[key])):
            lines[key] = line
    return recall_head(bytes(Note(one.note.text, tuple(lines.values()))), policy)


def only_needed(head: Head, policy: TrustPolicy) -> Note:
    """Return the note without the cosignatures that its quorum time does not rest on, the longest left out first."""
    lengths = {(line.name, line.key_id): len(line.blob) for line in head.note.signatures}
    keys = {one.name: (one.key.name, one.key.id) for one in policy.witnesses}
    needed = policy.times(head.note)
    dropped = set[tuple[str, bytes]]()
    for name in sorted(needed, key=lambda one: lengths[keys[one]], reverse=True):
        rest = {other: time for other, time in needed.items() if other != name}
        if policy.quorum_time(rest) == head.time:
            needed = rest
            dropped.add(keys[name])
    kept = tuple(line for line in head.note.signatures if (line.name, line.key_id) not in dropped)
    return Note(head.note.text, kept)


def cosigners(one: Head, other: Head, policy: TrustPolicy) -> list[str]:
    """Return the names, in the policy, of the witnesses that cosigned both heads."""
    lines = [{(line.name, line.key_id) for line in head.note.signatures} for head in (one, other)]
    return [
        witness.name
        for witness in policy.witnesses
        if all((witness.key.name, witness.key.id) in there for there in lines)
    ]
