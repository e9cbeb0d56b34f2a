import pytest
from hypothesis import given
from hypothesis import strategies as st

from tlog_core.cosignature import Cosignature, cosign, open_cosignature, parse_cosignature
from tlog_core.errors import MalformedError, SignatureError
from tlog_core.note import (
    COSIGNATURE,
    Note,
    Signature,
    parse_note,
    parse_verifier,
    sign_note,
    signer_from_seed,
)

LOG = signer_from_seed("example.com/log", bytes(32))
WITNESS = signer_from_seed("witness.example", b"\x01" * 32, key_type=COSIGNATURE)
TEXT = "example.com/log\n7\nBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwc=\n"
TIME = 1_764_000_000


def cosigned(*times: int) -> Note:
    lines = tuple(cosign(TEXT, time=time, signer=WITNESS) for time in times)
    return Note(TEXT, sign_note(TEXT, LOG).signatures + lines)


def test_the_vector_of_a_running_witness_opens() -> None:
    key = parse_verifier("witness.example.org+b8a2cf20+BFLN3yikSfFkVAJtrnh/CiY3Zozkoy7clp+P7XB28qUN")
    raw = (
        "rome2026h1.example.org\n300\nlCkHUpkmVBEms2r2T1K6Og69+wUuuN3MIEW1/ezu2v0=\n\n"
        "\u2014 witness.example.org uKLPIAAAAABpVGeAhm2bOvKc3LaB9PFN1ruG19Y5yqslmcAAbhftnn1Zznmo0LXFZq4LGvqK"
        "qLX8jWlwLKasxEGTLIqAVusneCBmBw==\n"
    ).encode()
    assert open_cosignature(parse_note(raw), key).time == 1_767_139_200
    with pytest.raises(SignatureError):
        open_cosignature(parse_note(raw.replace(b"\n300\n", b"\n301\n")), key)


@given(st.integers(0, 2**63 - 1), st.binary(min_size=64, max_size=64))
def test_a_cosignature_is_read_back(time: int, signature: bytes) -> None:
    cosignature = Cosignature(time, signature)
    assert len(bytes(cosignature)) == 72
    assert parse_cosignature(bytes(cosignature)) == cosignature


@pytest.mark.parametrize("blob", [b"", bytes(64), bytes(71), bytes(73), b"\x80" + bytes(71), b"\xff" * 72], ids=len)
def test_a_cosignature_in_any_other_form_is_refused(blob: bytes) -> None:
    with pytest.raises(MalformedError):
        parse_cosignature(blob)


@given(st.integers(0, 2**63 - 1))
def test_what_a_witness_cosigns_opens_with_its_time(time: int) -> None:
    note = cosigned(time)
    assert open_cosignature(parse_note(bytes(note)), WITNESS.verifier).time == time


def test_the_message_is_that_of_the_specification() -> None:
    blob = parse_cosignature(cosigned(TIME).signatures[1].blob)
    WITNESS.verifier.verify(f"cosignature/v1\ntime {TIME}\n{TEXT}".encode(), blob.signature)


def test_the_latest_cosignature_counts() -> None:
    assert open_cosignature(cosigned(TIME, TIME + 9, TIME + 5), WITNESS.verifier).time == TIME + 9


def test_a_note_without_a_line_of_the_witness_is_refused() -> None:
    twin = signer_from_seed("witness.example", b"\x02" * 32, key_type=COSIGNATURE)
    namesake = signer_from_seed("other.example", b"\x01" * 32, key_type=COSIGNATURE)
    for key in (twin.verifier, namesake.verifier):
        with pytest.raises(SignatureError, match="not cosigned"):
            open_cosignature(cosigned(TIME), key)


def test_every_line_of_the_witness_must_hold() -> None:
    note = cosigned(TIME)
    forged = Signature(WITNESS.name, WITNESS.verifier.id, bytes(Cosignature(TIME + 1, bytes(64))))
    for lines in ((*note.signatures, forged), (forged, *note.signatures)):
        with pytest.raises(SignatureError, match="wrong signature"):
            open_cosignature(Note(TEXT, lines), WITNESS.verifier)
    short = Signature(WITNESS.name, WITNESS.verifier.id, bytes(64))
    with pytest.raises(MalformedError):
        open_cosignature(Note(TEXT, (*note.signatures, short)), WITNESS.verifier)


def test_a_cosignature_binds_time_and_text() -> None:
    line = cosigned(TIME).signatures[1]
    later = bytes(Cosignature(TIME + 1, parse_cosignature(line.blob).signature))
    with pytest.raises(SignatureError):
        open_cosignature(Note(TEXT, (Signature(line.name, line.key_id, later),)), WITNESS.verifier)
    with pytest.raises(SignatureError):
        open_cosignature(Note(TEXT.replace("7", "8"), (line,)), WITNESS.verifier)


def test_only_the_key_of_a_witness_cosigns() -> None:
    with pytest.raises(SignatureError, match="not the key of a witness"):
        cosign(TEXT, time=TIME, signer=LOG)
    with pytest.raises(SignatureError, match="not the key of a witness"):
        open_cosignature(cosigned(TIME), LOG.verifier)
