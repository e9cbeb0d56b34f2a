import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tlog_core.commitment import Commitment, Opening, commit, verify_commitment
from tlog_core.errors import MalformedError, ProofError

OPENING = Opening(bytes(range(32)))
JSON = "application/json"

openings = st.binary(min_size=32, max_size=32).map(Opening)
types = st.text(st.characters(codec="ascii"), min_size=1, max_size=255)


@given(opening=openings, payload_type=types, payload=st.binary())
def test_a_commitment_is_the_hash_that_the_specification_says(
    opening: Opening, payload_type: str, payload: bytes
) -> None:
    length = len(payload_type).to_bytes(2, "big")
    framed = b"tlog/commitment/v1\n" + opening + length + payload_type.encode() + payload
    commitment = commit(opening=opening, payload_type=payload_type, payload=payload)
    assert commitment == hashlib.sha256(framed).digest()
    verify_commitment(commitment, opening=opening, payload_type=payload_type, payload=payload)


def test_a_commitment_opens_to_its_own_payload_only() -> None:
    commitment = commit(opening=OPENING, payload_type=JSON, payload=b"{}")
    for opening, kind, payload in [
        (OPENING, JSON, b"[]"),
        (OPENING, JSON, b"{} "),
        (OPENING, "application/jso", b"n{}"),
        (OPENING, "application/json{", b"}"),
        (OPENING, "text/plain", b"{}"),
        (Opening(OPENING[::-1]), JSON, b"{}"),
    ]:
        with pytest.raises(ProofError):
            verify_commitment(commitment, opening=opening, payload_type=kind, payload=payload)
    for wrong in (Commitment(commitment[:-1]), Commitment(bytes(32))):
        with pytest.raises(ProofError):
            verify_commitment(wrong, opening=OPENING, payload_type=JSON, payload=b"{}")


def test_a_type_may_have_255_bytes() -> None:
    assert len(commit(opening=OPENING, payload_type="a" * 255, payload=b"")) == 32


@pytest.mark.parametrize("payload_type", ["", "a" * 256, "text/pl\u00e4in", "\ud800"])
def test_a_type_that_is_empty_long_or_not_ascii_is_refused(payload_type: str) -> None:
    with pytest.raises(MalformedError):
        commit(opening=OPENING, payload_type=payload_type, payload=b"")


@pytest.mark.parametrize("length", [0, 31, 33])
def test_an_opening_of_another_length_is_refused(length: int) -> None:
    with pytest.raises(MalformedError):
        commit(opening=Opening(bytes(length)), payload_type=JSON, payload=b"")
