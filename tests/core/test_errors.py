import pytest

from tlog_core.errors import (
    EvidenceError,
    FetchError,
    InconsistencyError,
    MalformedError,
    ProofError,
    QuorumError,
    SignatureError,
    TlogError,
)


def test_an_inconsistency_carries_both_notes_and_shows_them() -> None:
    error = InconsistencyError("the log went back", older=b"older\n", newer=b"newer\n")
    assert (error.older, error.newer) == (b"older\n", b"newer\n")
    assert str(error) == "the log went back\n\nolder\n\nnewer\n"


@pytest.mark.parametrize(
    "kind", [EvidenceError, FetchError, InconsistencyError, MalformedError, ProofError, QuorumError, SignatureError]
)
def test_every_error_is_a_tlog_error(kind: type[Exception]) -> None:
    assert issubclass(kind, TlogError)
