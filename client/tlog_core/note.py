"""Signed notes: text with signature lines, and the text forms of keys (C2SP signed-note).

    <text, ending in a newline>

    — <key name> <base64 of key ID and signature>

A key is known by its name and its ID together. Signatures by unknown keys are ignored; a wrong signature by a known key
condemns the whole note.
"""

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, NewType

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.mldsa import MLDSA44PrivateKey, MLDSA44PublicKey

from tlog_core.encoding import decode_base64, decode_text, encode_base64
from tlog_core.errors import MalformedError, SignatureError

KeyId = NewType("KeyId", bytes)
"""The first four bytes of SHA-256(name || newline || type || public key)."""

ED25519: Final = 0x01
"""The type of a key that signs the text of notes."""

COSIGNATURE: Final = 0x04
"""The type of an Ed25519 key that signs timestamped cosignatures (C2SP tlog-cosignature)."""

SUBTREE: Final = 0x06
"""The type of an ML-DSA-44 key that signs timestamped cosignatures, of subtrees too (C2SP tlog-cosignature)."""

KEY_ID_BYTES: Final = 4
PUBLIC_KEY_BYTES: Final = {ED25519: 32, COSIGNATURE: 32, SUBTREE: 1_312}
SIGNATURE_BYTES: Final = 64
SUBTREE_SIGNATURE_BYTES: Final = 2_420
SEED_BYTES: Final = 32
MAX_NOTE_BYTES: Final = 1_000_000
MAX_SIGNATURES: Final = 100

_PRIME: Final = 2**255 - 19
_ORDER_8: Final = 0x05FC536D880238B13933C6D305ACDFD5F098EFF289F4C345B027B2C28F95E826
# The y coordinates of the eight points of small order (RFC 8032 curve): a key among them verifies forged signatures.
_SMALL_ORDER: Final = frozenset((0, 1, _PRIME - 1, _ORDER_8, _PRIME - _ORDER_8))
_SIGNATURE_LINE: Final = re.compile("\u2014 ([^ \n]+) ([A-Za-z0-9+/=]+)\n")
_CONTROL: Final = re.compile("[\x00-\x09\x0b-\x1f]")


@dataclass(frozen=True, slots=True)
class Signature:
    """One signature line: the key it claims, and what that key made, of a form that its type decides."""

    name: str
    key_id: KeyId
    blob: bytes

    def __str__(self) -> str:
        """Return the line with its newline."""
        return f"\u2014 {self.name} {encode_base64(self.key_id + self.blob)}\n"


@dataclass(frozen=True, slots=True)
class Note:
    """A text, ending in a newline, and its signature lines."""

    text: str
    signatures: tuple[Signature, ...]

    def __bytes__(self) -> bytes:
        """Return the note as it is stored and sent."""
        return (self.text + "\n" + "".join(map(str, self.signatures))).encode("utf-8")


@dataclass(frozen=True, slots=True)
class VerifierKey:
    """A public key by which notes are checked; its text form (vkey) is what people exchange and pin."""

    name: str
    type: int
    public: bytes

    def __post_init__(self) -> None:
        """Raise MalformedError for a name, a type or a point that no key may have."""
        _check_name(self.name)
        _check_length(self.type, self.public, PUBLIC_KEY_BYTES)
        if self.type != SUBTREE:
            _check_point(self.public)

    @property
    def id(self) -> KeyId:
        """The four bytes that stand for this key on a signature line."""
        return key_id(self.name, self.type, self.public)

    def __str__(self) -> str:
        """Return `<name>+<key ID in hex>+<base64 of type and public key>`."""
        return f"{self.name}+{self.id.hex()}+{encode_base64(bytes([self.type]) + self.public)}"

    def verify(self, message: bytes, signature: bytes) -> None:
        """Check a signature over `message`; raise SignatureError.

        It is one of Ed25519 (RFC 8032) and 64 bytes, or, if the key is of type 06, of ML-DSA-44 (FIPS 204, with an
        empty context) and 2,420 bytes.
        """
        kind = MLDSA44PublicKey if self.type == SUBTREE else Ed25519PublicKey
        try:
            kind.from_public_bytes(self.public).verify(signature, message)
        except InvalidSignature:
            raise SignatureError(f"wrong signature by {self.name}") from None


@dataclass(frozen=True, slots=True)
class SignerKey:
    """A private key that signs notes, with its public half. Its text form is a secret."""

    verifier: VerifierKey
    private: Ed25519PrivateKey | MLDSA44PrivateKey

    @property
    def name(self) -> str:
        """The name under which it signs."""
        return self.verifier.name

    def format(self) -> str:
        """Return `PRIVATE+KEY+<name>+<key ID in hex>+<base64 of type and seed>`, the text form of Go's tools."""
        secret = bytes([self.verifier.type]) + self.private.private_bytes_raw()
        return f"PRIVATE+KEY+{self.name}+{self.verifier.id.hex()}+{encode_base64(secret)}"

    def sign(self, message: bytes) -> bytes:
        """Return the signature over `message`, as `VerifierKey.verify` takes it; that of ML-DSA-44 is random."""
        return self.private.sign(message)


def key_id(name: str, key_type: int, public: bytes) -> KeyId:
    """Return the ID of a key from its name, type byte and public key."""
    return KeyId(hashlib.sha256(name.encode("utf-8") + b"\n" + bytes([key_type]) + public).digest()[:KEY_ID_BYTES])


def signer_from_seed(name: str, seed: bytes, *, key_type: int = ED25519) -> SignerKey:
    """Return the key that a seed of 32 random bytes makes; raise MalformedError for a name that no key may have."""
    if key_type == SUBTREE:
        private: Ed25519PrivateKey | MLDSA44PrivateKey = MLDSA44PrivateKey.from_seed_bytes(seed)
    else:
        private = Ed25519PrivateKey.from_private_bytes(seed)
    return SignerKey(VerifierKey(name, key_type, private.public_key().public_bytes_raw()), private)


def parse_verifier(text: str) -> VerifierKey:
    """Return the key of a vkey; raise MalformedError if its ID, type or point is not right."""
    name, id_text, encoded = _split_key(text)
    key = VerifierKey(name, *_split_type(encoded))
    if key.id.hex() != id_text:
        raise MalformedError("the key ID of the verifier key does not belong to it; copy the key again")
    return key


def parse_signer(text: str) -> SignerKey:
    """Return the key of a signer's secret text form; raise MalformedError, which never shows the secret."""
    if not text.startswith("PRIVATE+KEY+"):
        raise MalformedError("not a signer key")
    name, id_text, encoded = _split_key(text.removeprefix("PRIVATE+KEY+"))
    key_type, seed = _split_type(encoded)
    _check_length(key_type, seed, dict.fromkeys(PUBLIC_KEY_BYTES, SEED_BYTES))
    signer = signer_from_seed(name, seed, key_type=key_type)
    if signer.verifier.id.hex() != id_text:
        raise MalformedError("the key ID of the signer key does not belong to it")
    return signer


def parse_note(raw: bytes) -> Note:
    """Return the note in `raw`, with no signature checked; raise MalformedError."""
    if len(raw) > MAX_NOTE_BYTES:
        raise MalformedError(f"a note has at most {MAX_NOTE_BYTES} bytes")
    whole = decode_text(raw, "a note")
    text, blank, lines = whole.rpartition("\n\n")
    if not blank or _CONTROL.search(whole):
        raise MalformedError("a note is text, an empty line, and signature lines")
    note = Note(text + "\n", _parse_signatures(lines))
    if bytes(note) != raw:
        raise MalformedError("a signature line of the note is not in its only form")
    return note


def parse_lone(raw: bytes, *, what: str, limit: int) -> Note:
    """Return the note in `raw`, of at most `limit` bytes and with one Ed25519 signature line; raise MalformedError.

    The error says `what` should have been such a note. Nothing is verified.
    """
    if len(raw) > limit:
        raise MalformedError(f"{what} has at most {limit} bytes")
    note = parse_note(raw)
    if len(note.signatures) != 1 or len(note.signatures[0].blob) != SIGNATURE_BYTES:
        raise MalformedError(f"{what} has one signature line, of one Ed25519 signature")
    return note


def sign_note(text: str, *signers: SignerKey) -> Note:
    """Return the note of `text`, which must end in a newline, signed by each of `signers`.

    SignatureError for a key whose type signs something else.
    """
    if any(key.verifier.type != ED25519 for key in signers):
        raise SignatureError("the key of a witness does not sign notes; see cosignature.cosign")
    message = text.encode("utf-8")
    return Note(text, tuple(Signature(key.name, key.verifier.id, key.sign(message)) for key in signers))


def open_note(raw: bytes, keys: Sequence[VerifierKey]) -> Note:
    """Return the note in `raw` with only the signatures of `keys`, all of them checked.

    Raises MalformedError, or SignatureError if none of `keys` signed, or if a line under one of them is wrong.
    """
    return open_parsed(parse_note(raw), keys)


def open_parsed(note: Note, keys: Sequence[VerifierKey]) -> Note:
    """Return a note that is parsed already with only the signatures of `keys`; otherwise as `open_note`."""
    known = {(key.name, key.id): key for key in keys if key.type == ED25519}
    verified = tuple(line for line in note.signatures if (line.name, line.key_id) in known)
    message = note.text.encode("utf-8")
    for line in verified:
        known[line.name, line.key_id].verify(message, line.blob)
    if not verified:
        raise SignatureError(f"not signed by {' or '.join(key.name for key in keys)}")
    return Note(note.text, verified)


def _parse_signatures(lines: str) -> tuple[Signature, ...]:
    matches = list(_SIGNATURE_LINE.finditer(lines))
    if not matches or len(matches) > MAX_SIGNATURES:
        raise MalformedError(f"a note has between 1 and {MAX_SIGNATURES} signatures")
    return tuple(_parse_signature(match[1], match[2]) for match in matches)


def _parse_signature(name: str, encoded: str) -> Signature:
    _check_name(name)
    data = decode_base64(encoded)
    if len(data) <= KEY_ID_BYTES:
        raise MalformedError("a signature line is too short")
    return Signature(name, KeyId(data[:KEY_ID_BYTES]), data[KEY_ID_BYTES:])


def _split_key(text: str) -> tuple[str, str, str]:
    parts = text.split("+", 2)
    if len(parts) != 3:
        raise MalformedError("a key is <name>+<key ID>+<base64>")
    return parts[0], parts[1], parts[2]


def _split_type(encoded: str) -> tuple[int, bytes]:
    data = decode_base64(encoded)
    if not data:
        raise MalformedError("a key has a type")
    return data[0], data[1:]


def _check_length(key_type: int, key: bytes, lengths: Mapping[int, int]) -> None:
    if key_type not in lengths:
        raise MalformedError(f"a key of unknown type {key_type:#04x}")
    if len(key) != lengths[key_type]:
        raise MalformedError(f"a key of type {key_type:#04x} has {lengths[key_type]} bytes")


def _check_name(name: str) -> None:
    # Each note has its names checked, and to ask each character takes forty times as long.
    if name.split() != [name] or "+" in name or _CONTROL.search(name):
        raise MalformedError("a key name is not empty and has no white space and no plus")
    try:
        name.encode("utf-8")
    except UnicodeEncodeError:
        raise MalformedError("a key name is Unicode text") from None


def _check_point(public: bytes) -> None:
    y = int.from_bytes(public, "little") & (1 << 255) - 1
    if y >= _PRIME or y in _SMALL_ORDER:
        raise MalformedError("a weak public key: not canonical, or of small order")
