"""What monitors send each other, and the list of those who may (`spec/gossip.md`): texts of signed notes.

tlog/peers/v1                         tlog/gossip/v1
peer <vkey> [<url>]                   to <vkey>
…                                     time <decimal, milliseconds>
                                      [re <base64 of the SHA-256 of the request>]
                                      [evidence <base64>]
                                      …
                                      [head <base64>]
                                      …
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from tlog_core.encoding import decode_base64, encode_base64, parse_decimal
from tlog_core.errors import MalformedError
from tlog_core.evidence import MAX_EVIDENCE_BYTES
from tlog_core.merkle import HASH_BYTES
from tlog_core.note import (
    ED25519,
    KeyId,
    Note,
    SignerKey,
    VerifierKey,
    open_note,
    parse_lone,
    parse_verifier,
    sign_note,
)

MESSAGE_HEADER: Final = "tlog/gossip/v1"
PEERS_HEADER: Final = "tlog/peers/v1"
MAX_MESSAGE_BYTES: Final = 65_536
MAX_HEADS: Final = 64
MAX_HEAD_BYTES: Final = 8_192
MAX_PEERS: Final = 4_096
MAX_URL_BYTES: Final = 1_024

_URL: Final = re.compile(r"https?://(?!/)(?:(?![?#@])[!-~])*(?![?#@/])[!-~]")
_EVIDENCE: Final = "evidence "
_HEAD: Final = "head "


@dataclass(frozen=True, slots=True)
class Peer:
    """A monitor that may gossip, by its key; and where it answers, if it does: the URL without a slash at its end."""

    key: VerifierKey
    url: str = ""

    def __str__(self) -> str:
        """Return the line of the list without its newline."""
        return f"peer {self.key} {self.url}".rstrip(" ")


@dataclass(frozen=True, slots=True)
class Message:
    """What one monitor tells another.

    `time` is when it was signed, in milliseconds since the epoch. `evidence` are whole files of evidence, `heads` whole
    signed notes, of which nothing is known yet but their length. `request` is the SHA-256, 32 bytes, of the message
    that this one answers; None if it is a request itself.
    """

    to: VerifierKey
    time: int
    evidence: tuple[bytes, ...] = ()
    heads: tuple[bytes, ...] = ()
    request: bytes | None = None

    def __str__(self) -> str:
        """Return the text that is signed."""
        lines = [MESSAGE_HEADER, f"to {self.to}", f"time {self.time}"]
        lines += [] if self.request is None else [f"re {encode_base64(self.request)}"]
        lines += map(evidence_line, self.evidence)
        lines += map(head_line, self.heads)
        return "".join(f"{line}\n" for line in lines)


@dataclass(frozen=True, slots=True)
class SignedMessage:
    """A message with the note that carries it, whose signature nobody has verified yet."""

    message: Message
    note: Note

    @property
    def sender(self) -> tuple[str, KeyId]:
        """The name and the ID of the key that it claims to be signed by."""
        line = self.note.signatures[0]
        return line.name, line.key_id


def evidence_line(raw: bytes) -> str:
    """Return the line, without its newline, that carries a file of evidence."""
    return f"{_EVIDENCE}{encode_base64(raw)}"


def head_line(raw: bytes) -> str:
    """Return the line, without its newline, that carries a signed note."""
    return f"{_HEAD}{encode_base64(raw)}"


def sign_message(message: Message, signer: SignerKey) -> bytes:
    """Return the message as it is sent; MalformedError beyond a limit, SignatureError for the key of a witness."""
    raw = bytes(sign_note(str(message), signer))
    parse_message(raw)
    return raw


def parse_message(raw: bytes) -> SignedMessage:
    """Return the message in `raw`, of at most 64 KiB, not verified; raise MalformedError.

    `open_parsed` of its note with the key of the sender verifies it. Its items may be anything.
    """
    note = parse_lone(raw, what="a message", limit=MAX_MESSAGE_BYTES)
    message = _parse_text(note.text)
    if str(message) != note.text:
        raise MalformedError("the lines of the message are not in order, or not in their only form")
    return SignedMessage(message, note)


def format_peers(peers: Sequence[Peer]) -> str:
    """Return the text of a list of peers, to be signed; raise MalformedError for one that nobody would read."""
    text = f"{PEERS_HEADER}\n" + "".join(f"{peer}\n" for peer in peers)
    parse_peers(text)
    return text


def parse_peers(text: str) -> tuple[Peer, ...]:
    """Return the peers of the text of a list, in its order; raise MalformedError, which names the line."""
    header, *lines = text.split("\n")
    if header != PEERS_HEADER:
        raise MalformedError(f"a list of peers starts with {PEERS_HEADER}")
    if not lines or lines.pop() or not 1 <= len(lines) <= MAX_PEERS:
        raise MalformedError(f"a list of peers has 1 to {MAX_PEERS} lines, and ends in a newline")
    peers = tuple(_parse_lines(lines))
    names, points = {peer.key.name for peer in peers}, {peer.key.public for peer in peers}
    if min(len(names), len(points)) < len(peers):
        raise MalformedError("two peers of the list have one name, or one key")
    return peers


def open_peers(raw: bytes, key: VerifierKey) -> tuple[Peer, ...]:
    """Return the peers of a list that `key` signed; raise MalformedError or SignatureError."""
    return parse_peers(open_note(raw, [key]).text)


def _parse_text(text: str) -> Message:
    header, *lines = text.split("\n")
    if header != MESSAGE_HEADER:
        raise MalformedError(f"a message starts with {MESSAGE_HEADER}")
    to, time, request, evidence, heads = "", "", None, list[bytes](), list[bytes]()
    # In any order: the caller compares with the one in which they are written.
    for line in lines[:-1]:
        word, _, value = line.partition(" ")
        match word:
            case "to":
                to = value
            case "time":
                time = value
            case "re":
                request = decode_base64(value, length=HASH_BYTES)
            case "evidence":
                evidence.append(_item(value, MAX_EVIDENCE_BYTES))
            case "head":
                heads.append(_item(value, MAX_HEAD_BYTES))
            case _:
                raise MalformedError("expected to, time, re, evidence or head")
    if len(heads) > MAX_HEADS or len(set(evidence)) < len(evidence) or len(set(heads)) < len(heads):
        raise MalformedError(f"a message has at most {MAX_HEADS} heads, and nothing twice")
    return Message(_parse_key(to), parse_decimal(time), tuple(evidence), tuple(heads), request)


def _item(value: str, limit: int) -> bytes:
    raw = decode_base64(value)
    if not 1 <= len(raw) <= limit:
        raise MalformedError(f"an item of {len(raw)} bytes, where 1 to {limit} may be")
    return raw


def _parse_peer(line: str) -> Peer:
    word, _, rest = line.partition(" ")
    vkey, _, url = rest.partition(" ")
    peer = Peer(_parse_key(vkey), url)
    if url and (len(url) > MAX_URL_BYTES or _URL.fullmatch(url) is None):
        raise MalformedError(
            "not the URL of a peer; expected such as https://monitor.example, with no slash at its end"
        )
    if word != "peer" or str(peer) != line:
        raise MalformedError("expected peer, a verifier key, and a URL if it has one")
    return peer


def _parse_key(vkey: str) -> VerifierKey:
    key = parse_verifier(vkey)
    if key.type != ED25519:
        raise MalformedError(f"a key of type {key.type:#04x}, where {ED25519:#04x} is due")
    return key


def _parse_lines(lines: Sequence[str]) -> Iterator[Peer]:
    for number, line in enumerate(lines, 2):
        try:
            yield _parse_peer(line)
        except MalformedError as error:
            raise MalformedError(f"line {number}: {error}") from None
