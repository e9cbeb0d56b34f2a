from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tlog_core.cosignature import (
    Cosignature,
    Subtree,
    cosign,
    cosign_subtree,
    open_cosignature,
    parse_cosignature,
    time_of,
    verify_cosigned_subtree,
)
from tlog_core.errors import MalformedError, SignatureError
from tlog_core.merkle import Hash
from tlog_core.note import (
    COSIGNATURE,
    SUBTREE,
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


SUBTREE_WITNESS = signer_from_seed("w.example", b"\x03" * 32, key_type=SUBTREE)
PART = Subtree("example.com/log", 4, 6, Hash(bytes(32)))


def test_a_witness_cosigns_by_ml_dsa_44_too() -> None:
    note = Note(TEXT, (*sign_note(TEXT, LOG).signatures, cosign(TEXT, time=TIME, signer=SUBTREE_WITNESS)))
    read = parse_note(bytes(note))
    assert open_cosignature(read, SUBTREE_WITNESS.verifier).time == time_of(read.signatures[1]) == TIME
    assert len(read.signatures[1].blob) == 2_428
    for text in (TEXT.replace("\n7\n", "\n8\n"), TEXT.replace("example.com/log", "example.com/lag")):
        with pytest.raises(SignatureError, match="wrong signature"):
            open_cosignature(Note(text, note.signatures), SUBTREE_WITNESS.verifier)


def test_the_message_of_ml_dsa_44_is_that_of_the_specification() -> None:
    line = parse_cosignature(cosign(TEXT, time=TIME, signer=SUBTREE_WITNESS).blob, SUBTREE)
    message = b"subtree/v1\n\0" + b"\x09w.example" + TIME.to_bytes(8, "big") + b"\x0fexample.com/log"
    message += bytes(8) + (7).to_bytes(8, "big") + b"\7" * 32
    SUBTREE_WITNESS.verifier.verify(message, line.signature)


def test_a_subtree_without_a_time_is_no_cosignature_and_spoils_none() -> None:
    whole = Subtree("example.com/log", 0, 7, Hash(b"\7" * 32))
    line = cosign_subtree(whole, SUBTREE_WITNESS)
    verify_cosigned_subtree(line, whole, SUBTREE_WITNESS.verifier)
    with pytest.raises(SignatureError, match="not cosigned"):
        open_cosignature(Note(TEXT, (line,)), SUBTREE_WITNESS.verifier)
    both = Note(TEXT, (line, cosign(TEXT, time=TIME, signer=SUBTREE_WITNESS)))
    assert open_cosignature(both, SUBTREE_WITNESS.verifier).time == TIME


def test_a_subtree_is_cosigned_and_no_other() -> None:
    line = cosign_subtree(PART, SUBTREE_WITNESS)
    verify_cosigned_subtree(line, PART, SUBTREE_WITNESS.verifier)
    others = [
        replace(PART, origin="example.com/lag"),
        replace(PART, start=0),
        replace(PART, end=7),
        replace(PART, hash=Hash(b"\1" * 32)),
    ]
    for other in others:
        with pytest.raises(SignatureError, match="wrong signature"):
            verify_cosigned_subtree(line, other, SUBTREE_WITNESS.verifier)


def test_a_line_of_another_or_with_a_time_says_nothing_of_subtrees() -> None:
    line, key = cosign_subtree(PART, SUBTREE_WITNESS), SUBTREE_WITNESS.verifier
    timed = Signature(line.name, line.key_id, b"\0" * 7 + b"\1" + line.blob[8:])
    twin = signer_from_seed("w.example", b"\x04" * 32, key_type=SUBTREE)
    for one, judge in ((timed, key), (line, twin.verifier), (replace(line, name="v.example"), key)):
        with pytest.raises(SignatureError):
            verify_cosigned_subtree(one, PART, judge)


def test_only_a_key_of_ml_dsa_44_speaks_of_subtrees() -> None:
    with pytest.raises(SignatureError, match="not a key that signs subtrees"):
        cosign_subtree(PART, WITNESS)
    with pytest.raises(SignatureError, match="not a key that signs subtrees"):
        verify_cosigned_subtree(cosign_subtree(PART, SUBTREE_WITNESS), PART, WITNESS.verifier)


@pytest.mark.parametrize(
    "part",
    [
        replace(PART, start=3),
        replace(PART, start=8),
        replace(PART, start=0, end=2**63),
        replace(PART, origin=""),
        replace(PART, origin="o" * 256),
        replace(PART, origin="a\nb"),
    ],
    ids=str,
)
def test_of_what_is_no_subtree_nothing_is_said(part: Subtree) -> None:
    with pytest.raises(MalformedError):
        cosign_subtree(part, SUBTREE_WITNESS)


def test_a_witness_of_too_long_a_name_cannot_cosign_by_ml_dsa_44() -> None:
    signer = signer_from_seed("w" * 256, bytes(32), key_type=SUBTREE)
    with pytest.raises(MalformedError, match="255 bytes"):
        cosign(TEXT, time=TIME, signer=signer)
