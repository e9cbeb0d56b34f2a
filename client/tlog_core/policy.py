"""Trust policies: which logs to believe, and which witnesses must have cosigned (C2SP tlog-policy).

    log <vkey> [<url>]
    witness <name> <vkey> [<url>]
    group <name> all|any|<number> <member>…
    quorum <name>|none

Names and URLs are bytes to the format: here they are text in which bytes that are not UTF-8 stand as lone surrogates.
What is ours beside the format is in `spec/trust-policy.md`.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from tlog_core.checkpoint import Checkpoint, check_lines, open_checkpoint, parse_checkpoint, parse_head
from tlog_core.cosignature import WITNESS_TYPES, open_all, time_of
from tlog_core.encoding import parse_decimal
from tlog_core.errors import MalformedError, QuorumError, SignatureError
from tlog_core.note import ED25519, Note, VerifierKey, open_parsed, parse_note, parse_verifier

MAX_POLICY_BYTES: Final = 1 << 20
MAX_ORIGIN_BYTES: Final = 255
NO_QUORUM: Final = "none"

_FORBIDDEN: Final = re.compile("[\x00-\x08\x0b-\x1f\x7f]")


@dataclass(frozen=True, slots=True)
class TrustedLog:
    """A log to believe, by its key, whose name is the origin; and where it is, if the policy says."""

    key: VerifierKey
    url: str = ""


@dataclass(frozen=True, slots=True)
class TrustedWitness:
    """A witness to count, under the name that it has in the policy only; and where it is, if the policy says."""

    name: str
    key: VerifierKey
    url: str = ""


@dataclass(frozen=True, slots=True)
class Group:
    """Witnesses and groups, of which at least `threshold` must have cosigned for the group to have done so."""

    name: str
    threshold: int
    members: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class TrustPolicy:
    """The logs to believe, and the witness or group that must have cosigned; with `quorum` None, nobody must."""

    logs: tuple[TrustedLog, ...]
    witnesses: tuple[TrustedWitness, ...]
    groups: tuple[Group, ...]
    quorum: str | None

    def __bytes__(self) -> bytes:
        """Return the policy as a file that is read as the same policy."""
        lines: list[tuple[str, ...]] = [("log", str(log.key), log.url) for log in self.logs]
        lines += [("witness", one.name, str(one.key), one.url) for one in self.witnesses]
        lines += [("group", group.name, str(group.threshold), *group.members) for group in self.groups]
        lines.append(("quorum", self.quorum or NO_QUORUM))
        return "".join(f"{' '.join(filter(None, words))}\n" for words in lines).encode("utf-8", "surrogateescape")

    def log_keys(self, origin: str) -> list[VerifierKey]:
        """Return the keys that speak for the log of this origin."""
        return [log.key for log in self.logs if log.key.name == origin]

    def times(self, note: Note) -> dict[str, int]:
        """Return when each witness cosigned, by its name in the policy, of a note whose lines were verified before."""
        lines = {(line.name, line.key_id): line for line in note.signatures}
        return {
            one.name: time_of(line)
            for one in self.witnesses
            if (line := lines.get((one.key.name, one.key.id))) is not None
        }

    def quorum_time(self, times: Mapping[str, int]) -> int | None:
        """Return the latest time such that those who cosigned then or later make the quorum.

        `times` are those of the cosignatures by the names of the witnesses. None if they make no quorum, or the policy
        asks for none.
        """
        reached = dict(times)
        for group in self.groups:
            latest = sorted((reached[name] for name in group.members if name in reached), reverse=True)
            if len(latest) >= group.threshold:
                reached[group.name] = latest[group.threshold - 1]
        return None if self.quorum is None else reached.get(self.quorum)


@dataclass(frozen=True, slots=True)
class Witnessed:
    """A checkpoint that a trust policy accepts.

    `cosigned` has the name in the policy, and the time in POSIX seconds, of each of its witnesses that cosigned. `time`
    is the latest such that those who cosigned then or later make the quorum; None if the policy asks for none.
    """

    checkpoint: Checkpoint
    cosigned: tuple[tuple[str, int], ...]
    time: int | None


def parse_policy(raw: bytes) -> TrustPolicy:
    """Return the trust policy of a file; raise MalformedError, which names the line."""
    reader = _Reader()
    for number, words in _statements(raw):
        try:
            reader.read(words)
        except MalformedError as error:
            raise MalformedError(f"line {number}: {error}") from None
    if len(reader.quorums) != 1:
        raise MalformedError("a trust policy has one quorum line; write quorum none to ask for no witnesses")
    quorum = None if reader.quorums[0] == NO_QUORUM else reader.quorums[0]
    return TrustPolicy(tuple(reader.logs), tuple(reader.witnesses), tuple(reader.groups), quorum)


def verify_log(note: Note, policy: TrustPolicy) -> None:
    """Check that the note is a head signed by the log of its origin, and the policy knows it.

    Raises MalformedError, or SignatureError. No key may have two signature lines, and each line under a key that the
    policy has for the log must hold. Witnesses are not looked at.
    """
    check_lines(note)
    origin = parse_head(note.text).origin
    keys = policy.log_keys(origin)
    if not keys:
        raise SignatureError(f"the trust policy has no log {origin}")
    open_parsed(note, keys)


def open_witnessed(raw: bytes, policy: TrustPolicy) -> Witnessed:
    """Return the checkpoint in `raw` after a log of the policy signed it and the quorum cosigned it.

    Raises MalformedError or SignatureError: also for a wrong line under the key of any witness of the policy. It is
    QuorumError if nothing is wrong but the number of those who cosigned.
    """
    note = parse_note(raw)
    verify_log(note, policy)
    cosigned = open_cosignatures(note, policy)
    time = policy.quorum_time(dict(cosigned))
    if policy.quorum is not None and time is None:
        names = ", ".join(name for name, _ in cosigned) or "nobody"
        raise QuorumError(f"cosigned by {names}, which is not the quorum {policy.quorum}")
    return Witnessed(parse_checkpoint(note.text), cosigned, time)


def open_cosignatures(note: Note, policy: TrustPolicy) -> tuple[tuple[str, int], ...]:
    """Return the name in the policy, and the time, of each of its witnesses that cosigned, be they no quorum.

    Raises MalformedError or SignatureError for a wrong line under the key of any of them.
    """
    return tuple(
        (witness.name, found[-1].time) for witness in policy.witnesses if (found := open_all(note, witness.key))
    )


def open_trusted(raw: bytes, trust: VerifierKey | TrustPolicy) -> Checkpoint:
    """Return the checkpoint in `raw` after it was opened with the key of its log, or under a trust policy."""
    return open_witnessed(raw, trust).checkpoint if isinstance(trust, TrustPolicy) else open_checkpoint(raw, trust)


class _Reader:
    """What the lines so far have said."""

    def __init__(self) -> None:
        self.logs: list[TrustedLog] = []
        self.witnesses: list[TrustedWitness] = []
        self.groups: list[Group] = []
        self.quorums: list[str] = []
        self._names: set[str] = set()
        self._members: set[str] = set()
        self._roles: dict[bytes, str] = {}

    def read(self, words: list[str]) -> None:
        match words:
            case ["log", vkey, *url] if len(url) <= 1:
                self.logs.append(TrustedLog(_of_log(self._key(vkey, "log", (ED25519,))), *url))
            case ["witness", name, vkey, *url] if len(url) <= 1:
                self._define(name)
                self.witnesses.append(TrustedWitness(name, self._key(vkey, "witness", WITNESS_TYPES), *url))
            case ["group", name, count, *members] if members:
                # Before its own name is there, so that no group is a member of itself.
                for member in members:
                    self._join(member)
                self._define(name)
                self.groups.append(Group(name, _threshold(count, len(members)), tuple(members)))
            case ["quorum", name]:
                if name not in self._names | {NO_QUORUM}:
                    raise MalformedError(f"no witness or group {name} above")
                self.quorums.append(name)
            case _:
                raise MalformedError("expected log, witness, group or quorum, and what belongs to it")

    def _key(self, vkey: str, whose: str, types: tuple[int, ...]) -> VerifierKey:
        key = parse_verifier(vkey)
        if key.type not in types:
            due = " or ".join(f"{one:#04x}" for one in types)
            raise MalformedError(f"a key of type {key.type:#04x}, where {due} is due")
        # The same key under another name is the same log, or the same witness; and a log would witness itself.
        if key.public in self._roles:
            raise MalformedError(f"this key stands above already, as that of a {self._roles[key.public]}")
        self._roles[key.public] = whose
        return key

    def _define(self, name: str) -> None:
        if name == NO_QUORUM or name in self._names:
            raise MalformedError(f"the name {name} is taken")
        self._names.add(name)

    def _join(self, name: str) -> None:
        if name not in self._names:
            raise MalformedError(f"no witness or group {name} above")
        if name in self._members:
            raise MalformedError(f"{name} is a member already; each counts once in the whole policy")
        self._members.add(name)


def _statements(raw: bytes) -> Iterator[tuple[int, list[str]]]:
    if len(raw) > MAX_POLICY_BYTES:
        raise MalformedError(f"a trust policy has at most {MAX_POLICY_BYTES} bytes")
    text = raw.decode("utf-8", "surrogateescape")
    if _FORBIDDEN.search(text):
        raise MalformedError("a trust policy has no control characters but tab and newline")
    *lines, rest = text.split("\n")
    # A file cut short could ask for another quorum than was meant.
    if rest:
        raise MalformedError("the last line of a trust policy does not end in a newline; is the file whole?")
    for number, line in enumerate(lines, 1):
        words = [word for word in re.split("[ \t]", line) if word]
        if words and not words[0].startswith("#"):
            yield number, words


def _of_log(key: VerifierKey) -> VerifierKey:
    if len(key.name.encode()) > MAX_ORIGIN_BYTES:
        raise MalformedError(f"the origin of a log has at most {MAX_ORIGIN_BYTES} bytes")
    return key


def _threshold(count: str, members: int) -> int:
    if count in ("any", "all"):
        return 1 if count == "any" else members
    threshold = parse_decimal(count)
    if not 1 <= threshold <= members:
        raise MalformedError(f"{threshold} of {members} members cannot be")
    return threshold
