"""Writers' signatures: with one, not even the operator of a log can make an entry in a writer's name (`spec/entry.md`).

A writer signs each commitment, bound to the log, to its own name, and to its own counter there. A key of a writer is a
verifier key of type 01 whose name is the writer's.
"""

from collections.abc import Iterable, Iterator, Sequence

from tlog_core.commitment import Commitment
from tlog_core.entry import Entry, WriterSignature, writer_message
from tlog_core.errors import MalformedError, ProofError, SignatureError
from tlog_core.note import ED25519, KEY_ID_BYTES, SignerKey, VerifierKey, parse_signer, parse_verifier


def parse_writer_key(text: str) -> VerifierKey:
    """Return the key of a writer from its vkey; raise MalformedError, also for the key of a witness."""
    key = parse_verifier(text)
    check_writer_key(key)
    return key


def parse_writer_signer(text: str) -> SignerKey:
    """Return the signer key of a writer; raise MalformedError, which never shows the secret."""
    signer = parse_signer(text)
    check_writer_key(signer.verifier)
    return signer


def check_writer_key(key: VerifierKey) -> None:
    """Raise MalformedError for the key of a witness: each key signs one kind of thing."""
    if key.type != ED25519:
        raise MalformedError(f"the key of {key.name} is a witness's; make one for the writer")


def sign_commitments(
    commitments: Iterable[Commitment], *, origin: str, first: int, signer: SignerKey
) -> Iterator[WriterSignature]:
    """Yield a signature for each commitment, the writer's sequence counting on from `first`."""
    for sequence, commitment in enumerate(commitments, first):
        message = writer_message(origin=origin, writer=signer.name, sequence=sequence, commitment=commitment)
        yield WriterSignature(sequence, signer.verifier.id + signer.sign(message))


def verify_signature(
    signed: WriterSignature, *, origin: str, writer: str, commitment: Commitment, keys: Sequence[VerifierKey]
) -> None:
    """Check that one of `keys`, and one of that writer, signed a commitment; raise SignatureError."""
    known = [key for key in keys if key.name == writer and key.type == ED25519]
    key = next((key for key in known if key.id == signed.signature[:KEY_ID_BYTES]), None)
    if key is None:
        raise SignatureError(f"not signed by a known key of {writer}")
    message = writer_message(origin=origin, writer=writer, sequence=signed.sequence, commitment=commitment)
    key.verify(message, signed.signature[KEY_ID_BYTES:])


def verify_writer(entry: Entry, keys: Sequence[VerifierKey]) -> None:
    """Check that an entry is signed by its writer, if `keys` has a key of that writer; raise SignatureError."""
    if all(key.name != entry.writer for key in keys):
        return
    if entry.signed is None:
        raise SignatureError(f"an entry in the name of {entry.writer} is not signed")
    verify_signature(entry.signed, origin=entry.origin, writer=entry.writer, commitment=entry.commitment, keys=keys)


def verify_sequence(entry: Entry, expected: int) -> int:
    """Check that a signed entry is its writer's next, and return what the sequence of the one after it is to be.

    A writer's first has sequence 0. Raises ProofError if entries were left out, or one came twice.
    """
    if entry.signed is None:
        raise ProofError(f"an entry in the name of {entry.writer} has no sequence")
    found = entry.signed.sequence
    if found > expected:
        raise ProofError(f"{found - expected} entries of {entry.writer} are missing before sequence {found}")
    if found < expected:
        raise ProofError(f"sequence {found} of {entry.writer} comes again, where {expected} was to come")
    return expected + 1
