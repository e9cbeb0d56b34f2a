"""Write to a tlog transparency log and verify all that it says.

    from tlog_client import Log

    with Log("https://log.example/segments/payments", "log.example/audit/segments/payments+…+…") as log:
        receipt = log.append({"action": "refund", "amount_cents": 1200})

`Log` is one segment, seen through its pinned key. `Writer` appends in the background, many events a request. What they
return was verified; what does not hold raises an error below `TlogError`.
"""

from tlog_client.answers import IndexedEntry, OpenedEntry
from tlog_client.errors import OutcomeUnknownError, RefusedError, StateError, TransientError
from tlog_client.log import Log
from tlog_client.search import Search
from tlog_client.state import SignedCheckpoint
from tlog_client.transport import Backoff
from tlog_client.writer import Writer
from tlog_core.checkpoint import Checkpoint
from tlog_core.encoding import canonicalize
from tlog_core.entry import Entry
from tlog_core.errors import (
    EvidenceError,
    FetchError,
    InconsistencyError,
    MalformedError,
    ProofError,
    SignatureError,
    TlogError,
)
from tlog_core.evidence import parse_evidence, verify_evidence
from tlog_core.note import SignerKey, VerifierKey, parse_verifier
from tlog_core.policy import TrustPolicy, parse_policy
from tlog_core.receipt import Receipt, parse_receipt, verify_receipt
from tlog_core.tlog_proof import format_tlog_proof, parse_tlog_proof
from tlog_core.writer import parse_writer_key, parse_writer_signer

__all__ = [
    "Backoff",
    "Checkpoint",
    "Entry",
    "EvidenceError",
    "FetchError",
    "InconsistencyError",
    "IndexedEntry",
    "Log",
    "MalformedError",
    "OpenedEntry",
    "OutcomeUnknownError",
    "ProofError",
    "Receipt",
    "RefusedError",
    "Search",
    "SignatureError",
    "SignedCheckpoint",
    "SignerKey",
    "StateError",
    "TlogError",
    "TransientError",
    "TrustPolicy",
    "VerifierKey",
    "Writer",
    "canonicalize",
    "format_tlog_proof",
    "parse_evidence",
    "parse_policy",
    "parse_receipt",
    "parse_tlog_proof",
    "parse_verifier",
    "parse_writer_key",
    "parse_writer_signer",
    "verify_evidence",
    "verify_receipt",
]
