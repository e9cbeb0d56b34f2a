import pytest
from hypothesis import given
from hypothesis import strategies as st

from tlog_core.checkpoint import Checkpoint, open_checkpoint, parse_checkpoint, sign_checkpoint
from tlog_core.encoding import decode_base64, encode_base64
from tlog_core.errors import MalformedError, SignatureError
from tlog_core.merkle import EMPTY_ROOT, Hash
from tlog_core.note import COSIGNATURE, Note, Signature, sign_note, signer_from_seed

LOG = signer_from_seed("example.com/log", bytes(32))
OTHER = signer_from_seed("example.com/other", b"\x01" * 32)
ROOT = Hash(b"\x07" * 32)
ROOT_TEXT = encode_base64(ROOT)
CHECKPOINT = Checkpoint(LOG.name, 7, ROOT)


def test_the_vector_of_the_community_is_signed_and_opened() -> None:
    origin = "sigsum.org/v1/tree/e796172b92befd62d9dc67e41c2f5bc9d3100a3023b20b1ca40288dd1c679e69"
    signer = signer_from_seed(origin, b"\x11" + bytes(31))
    root = Hash(decode_base64("HA5HAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="))
    raw = (
        f"{origin}\n10\nHA5HAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=\n\n"
        f"\u2014 {origin} gJ2ho0n8F8olcerUF1FFdv235A/5as/coWrpLrtE7ovMeP5whgwouYExowG/lTznxu6OUGjjt5yJ"
        "Q6bXtTcf718MqAQ=\n"
    ).encode()
    assert signer.verifier.public.hex() == ("66e0b858e462a609e66fe71370c816d8846ff103d5499a22a7fec37fdbc424a7")
    assert bytes(sign_checkpoint(Checkpoint(origin, 10, root), signer)) == raw
    assert open_checkpoint(raw, signer.verifier) == Checkpoint(origin, 10, root)


@given(
    origin=st.text(st.characters(exclude_characters="\n"), min_size=1),
    size=st.integers(1, 2**63 - 1),
    root=st.binary(min_size=32, max_size=32),
)
def test_a_checkpoint_is_read_back_from_its_text(origin: str, size: int, root: bytes) -> None:
    checkpoint = Checkpoint(origin, size, Hash(root))
    assert parse_checkpoint(str(checkpoint)) == checkpoint


def test_the_checkpoint_of_size_0_has_the_empty_root_only() -> None:
    empty = Checkpoint(LOG.name, 0, EMPTY_ROOT)
    assert parse_checkpoint(str(empty)) == empty
    with pytest.raises(MalformedError):
        parse_checkpoint(str(Checkpoint(LOG.name, 0, ROOT)))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "\n\n\n",
        "a\n7\n",
        f"a\n7\n{ROOT_TEXT}",
        f"\n7\n{ROOT_TEXT}\n",
        f"a\n7\n{ROOT_TEXT}\n\n",
        f"a\n7\n{ROOT_TEXT}\nextension\n",
        f"a\n\n7\n{ROOT_TEXT}\n",
        f"a\n07\n{ROOT_TEXT}\n",
        f"a\n+7\n{ROOT_TEXT}\n",
        f"a\n-7\n{ROOT_TEXT}\n",
        f"a\n7 \n{ROOT_TEXT}\n",
        f"a\n\u0667\n{ROOT_TEXT}\n",
        f"a\n9223372036854775808\n{ROOT_TEXT}\n",
        f"a\r\n7\r\n{ROOT_TEXT}\r\n",
        f"a\n7\n{ROOT_TEXT[:-1]}\n",
        f"a\n7\n {ROOT_TEXT}\n",
        f"a\n7\n{ROOT_TEXT[:-2]}d=\n",
        f"a\n7\n{encode_base64(ROOT[1:])}\n",
        f"a\n7\n{encode_base64(ROOT + b'0')}\n",
        f"a\n7\n{ROOT.hex()}\n",
    ],
)
def test_a_checkpoint_in_any_other_form_is_refused(text: str) -> None:
    with pytest.raises(MalformedError):
        parse_checkpoint(text)
    if text:
        with pytest.raises(MalformedError):
            open_checkpoint(bytes(sign_note(text, LOG)), LOG.verifier)


def test_only_the_key_named_by_the_origin_signs() -> None:
    with pytest.raises(SignatureError):
        sign_checkpoint(CHECKPOINT, OTHER)


def test_a_checkpoint_opens_with_the_key_of_its_log() -> None:
    raw = bytes(sign_checkpoint(CHECKPOINT, LOG))
    assert open_checkpoint(raw, LOG.verifier) == CHECKPOINT
    for key in (OTHER.verifier, signer_from_seed(LOG.name, b"\x01" * 32).verifier):
        with pytest.raises(SignatureError):
            open_checkpoint(raw, key)


def test_a_checkpoint_of_another_origin_is_refused() -> None:
    raw = bytes(sign_note(str(Checkpoint("example.com/else", 7, ROOT)), LOG))
    with pytest.raises(SignatureError, match="a checkpoint of example"):
        open_checkpoint(raw, LOG.verifier)


def test_two_lines_of_one_key_are_refused() -> None:
    (line,) = sign_checkpoint(CHECKPOINT, LOG).signatures
    (other,) = sign_note(str(CHECKPOINT), OTHER).signatures
    forged = Signature(OTHER.name, OTHER.verifier.id, bytes(64))
    for lines in ((line, line), (other, line, other), (other, forged, line)):
        with pytest.raises(MalformedError, match="two signature lines"):
            open_checkpoint(bytes(Note(str(CHECKPOINT), lines)), LOG.verifier)


def test_what_others_sign_does_not_matter() -> None:
    (line,) = sign_checkpoint(CHECKPOINT, LOG).signatures
    (other,) = sign_note(str(CHECKPOINT), OTHER).signatures
    for stranger in (other, Signature(OTHER.name, OTHER.verifier.id, bytes(64))):
        raw = bytes(Note(str(CHECKPOINT), (stranger, line)))
        assert open_checkpoint(raw, LOG.verifier) == CHECKPOINT


def test_a_changed_checkpoint_is_refused() -> None:
    raw = bytes(sign_checkpoint(CHECKPOINT, LOG))
    for wrong in (raw.replace(b"\n7\n", b"\n8\n"), raw.replace(b"BwcH", b"BwcI", 1)):
        assert wrong != raw
        with pytest.raises(SignatureError):
            open_checkpoint(wrong, LOG.verifier)


def test_the_key_of_a_witness_does_not_open_a_checkpoint() -> None:
    witness = signer_from_seed(LOG.name, bytes(32), key_type=COSIGNATURE)
    with pytest.raises(SignatureError):
        open_checkpoint(bytes(sign_checkpoint(CHECKPOINT, LOG)), witness.verifier)
