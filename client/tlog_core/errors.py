"""Every error that tlog raises about data and its transport.

TlogError
├── MalformedError        the bytes are not what the format says
├── SignatureError        no signature by the expected key, or a wrong one
│   └── QuorumError       all that is signed holds, and too few witnesses have cosigned
├── ProofError            a Merkle proof or a commitment does not hold
├── EvidenceError         evidence that does not prove misbehaviour
├── InconsistencyError    two signed checkpoints that cannot both be honest; carries both notes
└── FetchError            we could not get it, or it was refused; says nothing about its truth
"""


class TlogError(Exception):
    """The root of all errors below."""


class MalformedError(TlogError):
    """The bytes do not have the form that their specification demands."""


class SignatureError(TlogError):
    """A note is not signed by the expected key, or carries a wrong signature under its name."""


class QuorumError(SignatureError):
    """A checkpoint that the log signed has no quorum of witnesses; it may have one later."""


class ProofError(TlogError):
    """A proof does not lead to the root, or a payload does not open its commitment."""


class EvidenceError(TlogError):
    """What is held against a log or a witness does not prove that it did wrong."""

    def __init__(self, reason: str) -> None:
        """Say that nothing is proven, and why."""
        super().__init__(f"not proven: {reason}")


class InconsistencyError(TlogError):
    """A log contradicted itself: it went back, or shows two histories.

    `older` and `newer` are the signed notes as received. `evidence` is a file (`spec/evidence.md`) that proves it to
    anyone who has the log's key; None if they and the log's proof make none, as where it only went back.
    """

    def __init__(self, message: str, *, older: bytes, newer: bytes, evidence: bytes | None = None) -> None:
        """Keep both notes beside the message."""
        shown = f"{older.decode()}\n{newer.decode()}" if evidence is None else evidence.decode()
        super().__init__(f"{message}\n\n{shown}")
        self.older = older
        self.newer = newer
        self.evidence = evidence


class FetchError(TlogError):
    """The network, the disk or the server did not give us what we asked for."""
