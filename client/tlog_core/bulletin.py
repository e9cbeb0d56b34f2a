"""What a monitor says in public of one log that it follows (`spec/bulletin.md`): the text of a signed note.

tlog/bulletin/v1
origin <origin>
time <decimal, milliseconds>
[head <size> <root in base64> <decimal, milliseconds>]
[gossip <decimal, milliseconds> <asked> <heard>]
[convicted]
[finding <class> <kind> <number>]
…
"""

import re
from dataclasses import dataclass
from typing import Final

from tlog_core.encoding import decode_base64, encode_base64, parse_decimal
from tlog_core.errors import MalformedError
from tlog_core.merkle import HASH_BYTES, Hash
from tlog_core.note import Note, SignerKey, VerifierKey, open_parsed, parse_lone, sign_note

BULLETIN_HEADER: Final = "tlog/bulletin/v1"
MAX_BULLETIN_BYTES: Final = 8_192
MAX_ASKED: Final = 4_096
MAX_TALLIES: Final = 64
MAX_AHEAD: Final = 300_000
"""How many milliseconds the time of one may be ahead of the clock of who takes it."""

CLASSES: Final = ("complaint", "evidence", "violation")

_KIND: Final = re.compile(r"[a-z]{1,32}")


@dataclass(frozen=True, slots=True)
class Verified:
    """The newest head that the monitor verified, and when, in milliseconds, the log last showed one that held."""

    size: int
    root: Hash
    time: int

    def __str__(self) -> str:
        """Return the line without its newline."""
        return f"head {self.size} {encode_base64(self.root)} {self.time}"


@dataclass(frozen=True, slots=True)
class Round:
    """The last round of gossip: when it ended, in milliseconds, and of how many peers asked how many were heard."""

    time: int
    asked: int
    heard: int

    def __str__(self) -> str:
        """Return the line without its newline."""
        return f"gossip {self.time} {self.asked} {self.heard}"


@dataclass(frozen=True, slots=True)
class Tally:
    """How many findings of a class and kind there were, or, of complaints, how many last."""

    found: str
    kind: str
    number: int

    def __str__(self) -> str:
        """Return the line without its newline."""
        return f"finding {self.found} {self.kind} {self.number}"


@dataclass(frozen=True, slots=True)
class Bulletin:
    """What a monitor says of the log `origin` at `time`, in milliseconds since the epoch.

    `tallies` are in the order of class and kind, each pair once.
    """

    origin: str
    time: int
    head: Verified | None = None
    gossip: Round | None = None
    convicted: bool = False
    tallies: tuple[Tally, ...] = ()

    def __str__(self) -> str:
        """Return the text that is signed."""
        lines: list[object] = [BULLETIN_HEADER, f"origin {self.origin}", f"time {self.time}"]
        lines += [one for one in (self.head, self.gossip) if one is not None]
        lines += ["convicted"] * self.convicted
        lines += self.tallies
        return "".join(f"{line}\n" for line in lines)


@dataclass(frozen=True, slots=True)
class SignedBulletin:
    """A bulletin with the note that carries it, whose signature nobody has verified yet."""

    bulletin: Bulletin
    note: Note


def sign_bulletin(bulletin: Bulletin, signer: SignerKey) -> bytes:
    """Return the bulletin as it is sent; MalformedError beyond a limit, SignatureError for the key of a witness."""
    raw = bytes(sign_note(str(bulletin), signer))
    parse_bulletin(raw)
    return raw


def parse_bulletin(raw: bytes) -> SignedBulletin:
    """Return the bulletin in `raw`, of at most 8,192 bytes, not verified; raise MalformedError."""
    note = parse_lone(raw, what="a bulletin", limit=MAX_BULLETIN_BYTES)
    bulletin = _parse_text(note.text)
    if str(bulletin) != note.text:
        raise MalformedError("the lines of the bulletin are not in order, or not in their only form")
    return SignedBulletin(bulletin, note)


def open_bulletin(raw: bytes, key: VerifierKey) -> Bulletin:
    """Return the bulletin in `raw` that the monitor with this key signed; raise MalformedError or SignatureError."""
    signed = parse_bulletin(raw)
    open_parsed(signed.note, [key])
    return signed.bulletin


def _parse_text(text: str) -> Bulletin:
    header, *lines = text.split("\n")
    if header != BULLETIN_HEADER:
        raise MalformedError(f"a bulletin starts with {BULLETIN_HEADER}")
    origin, time, head, gossip, convicted, tallies = "", "", None, None, False, list[Tally]()
    # In any order: the caller compares with the one in which they are written.
    for line in lines[:-1]:
        word, _, value = line.partition(" ")
        match word:
            case "origin":
                origin = value
            case "time":
                time = value
            case "head":
                head = _parse_verified(value)
            case "gossip":
                gossip = _parse_round(value)
            case "convicted":
                convicted = True
            case "finding":
                tallies.append(_parse_tally(value))
            case _:
                raise MalformedError("expected origin, time, head, gossip, convicted or finding")
    order = [(tally.found, tally.kind) for tally in tallies]
    if len(tallies) > MAX_TALLIES or order != sorted(set(order)):
        raise MalformedError(f"a bulletin has at most {MAX_TALLIES} findings, in order, and nothing twice")
    if not origin:
        raise MalformedError("the bulletin names no origin")
    return Bulletin(origin, parse_decimal(time), head, gossip, convicted, tuple(tallies))


def _parse_verified(value: str) -> Verified:
    match value.split(" "):
        case [size, root, time]:
            return Verified(parse_decimal(size), Hash(decode_base64(root, length=HASH_BYTES)), parse_decimal(time))
    raise MalformedError("expected head, a size, a root and a time")


def _parse_round(value: str) -> Round:
    match value.split(" "):
        case [time, asked, heard]:
            found = Round(parse_decimal(time), parse_decimal(asked), parse_decimal(heard))
            if found.heard <= found.asked <= MAX_ASKED:
                return found
    raise MalformedError(f"expected gossip, a time, how many were asked, up to {MAX_ASKED}, and how many were heard")


def _parse_tally(value: str) -> Tally:
    match value.split(" "):
        case [found, kind, number] if found in CLASSES and _KIND.fullmatch(kind) and parse_decimal(number):
            return Tally(found, kind, parse_decimal(number))
    raise MalformedError("expected finding, evidence or violation or complaint, a kind, and how many")
