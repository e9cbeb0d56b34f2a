import pytest
from hypothesis import given
from hypothesis import strategies as st

from tlog_core.encoding import encode_base64
from tlog_core.errors import MalformedError, SignatureError
from tlog_core.note import (
    COSIGNATURE,
    ED25519,
    SUBTREE,
    KeyId,
    Note,
    Signature,
    VerifierKey,
    key_id,
    open_note,
    parse_note,
    parse_signer,
    parse_verifier,
    sign_note,
    signer_from_seed,
)

# The example of C2SP signed-note.
FOO = parse_verifier("example.com/foo+530d903a+AekyeRrm56hApGFkyQR4ZCbV54Id2LKaANYcrnKv3U2k")
FOO_NOTE = (
    "This is an example message.\n\n"
    "\u2014 example.com/foo Uw2QOkn8srV1yJGh2VYRlL1Tnagv1YEq6TfXppzi2ONncAlTgK7Ztg1ERYNZXsYjOBH3mFXmRK"
    "uwHjG1Yu72IneyaQM=\n"
).encode()

# The keys and the note of golang.org/x/mod/sumdb/note.
PETER = parse_signer("PRIVATE+KEY+PeterNeumann+c74f20a3+AYEKFALVFGyNhPJEMzD1QIDr+Y7hfZx09iUvxdXHKDFz")
PETER_TEXT = "If you think cryptography is the answer to your problem,\nthen you don't know what your problem is.\n"
PETER_LINE = (
    "\u2014 PeterNeumann x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM=\n"
)

ONE = signer_from_seed("one.example", bytes(32))
TWO = signer_from_seed("two.example", b"\x02" * 32)
TEXT = "some text\n\nwith an empty line\n"

names = st.text(min_size=1).filter(lambda name: "+" not in name and not any(c.isspace() or c < " " for c in name))


def test_the_example_of_the_specification_opens() -> None:
    assert open_note(FOO_NOTE, [FOO]).text == "This is an example message.\n"


def test_signing_gives_the_bytes_that_go_gives() -> None:
    assert str(PETER.verifier) == "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW"
    assert bytes(sign_note(PETER_TEXT, PETER)) == f"{PETER_TEXT}\n{PETER_LINE}".encode()


@given(names, st.binary(min_size=32, max_size=32), st.sampled_from([ED25519, COSIGNATURE]))
def test_keys_are_read_back_from_their_text(name: str, seed: bytes, key_type: int) -> None:
    signer = signer_from_seed(name, seed, key_type=key_type)
    assert parse_verifier(str(signer.verifier)) == signer.verifier
    again = parse_signer(signer.format())
    assert again.format() == signer.format()
    assert again.verifier == signer.verifier


def test_the_key_id_binds_name_type_and_key() -> None:
    public = ONE.verifier.public
    ids = {
        key_id("one.example", ED25519, public),
        key_id("two.example", ED25519, public),
        key_id("one.example", COSIGNATURE, public),
        key_id("one.example", ED25519, TWO.verifier.public),
    }
    assert len(ids) == 4
    assert key_id(FOO.name, FOO.type, FOO.public).hex() == "530d903a"


@pytest.mark.parametrize(
    "name",
    ["", "a b", "a+b", "a\tb", "a\nb", "a\u00a0b", "a\u2003b", "a\u0085b", "a\x00b", "a\x1fb", "\ud800"],
)
def test_names_that_no_key_may_have_are_refused(name: str) -> None:
    with pytest.raises(MalformedError):
        VerifierKey(name, ED25519, ONE.verifier.public)
    with pytest.raises(MalformedError):
        signer_from_seed(name, bytes(32))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "++",
        "one.example",
        "one.example+7b2b8b3d",
        str(FOO) + "\n",
        " " + str(FOO),
        str(FOO).replace("530d903a", "530D903A"),
        str(FOO).replace("530d903a", "530d903b"),
        str(FOO).replace("530d903a", "0530d903a"),
        str(FOO).replace("530d903a", ""),
        str(FOO).replace("/foo", "/bar"),
        str(FOO).replace("/foo", ""),
        str(FOO).replace("+Aek", "+Bek"),
        str(FOO).replace("U2k", "U2l"),
        str(FOO)[:-1],
        str(FOO)[:-4],
        str(FOO) + "AAAA",
        str(FOO) + "=",
    ],
)
def test_a_verifier_key_in_any_other_form_is_refused(text: str) -> None:
    with pytest.raises(MalformedError):
        parse_verifier(text)


def test_a_key_of_ml_dsa_44_is_read_back() -> None:
    signer = signer_from_seed("one.example", bytes(range(32)), key_type=SUBTREE)
    assert len(signer.verifier.public) == 1_312
    assert parse_verifier(str(signer.verifier)) == signer.verifier
    again = parse_signer(signer.format())
    assert (again.verifier, again.format()) == (signer.verifier, signer.format())
    signature = signer.sign(b"message")
    assert len(signature) == 2_420
    again.verifier.verify(b"message", signature)
    for message, wrong in ((b"massage", signature), (b"message", signature[:-1]), (b"message", bytes(64))):
        with pytest.raises(SignatureError):
            signer.verifier.verify(message, wrong)


@pytest.mark.parametrize(
    ("key_type", "length"), [(ED25519, 1_312), (COSIGNATURE, 31), (SUBTREE, 32), (SUBTREE, 1_311), (SUBTREE, 0)]
)
def test_a_key_has_the_length_of_its_type(key_type: int, length: int) -> None:
    with pytest.raises(MalformedError, match="bytes"):
        VerifierKey("one.example", key_type, bytes(length))


def test_a_signer_key_has_a_seed() -> None:
    public = signer_from_seed("one.example", bytes(32), key_type=SUBTREE).verifier.public
    text = f"one.example+{key_id('one.example', SUBTREE, public).hex()}+{encode_base64(bytes([SUBTREE]) + public)}"
    with pytest.raises(MalformedError, match="32 bytes"):
        parse_signer(f"PRIVATE+KEY+{text}")
    with pytest.raises(MalformedError):
        parse_signer("PRIVATE+KEY+one.example+00000000+")


@pytest.mark.parametrize("key_type", [0x00, 0x02, 0x03, 0x05, 0x07, 0xFA, 0xFF])
def test_keys_of_other_types_are_refused(key_type: int) -> None:
    public, seed = ONE.verifier.public, bytes(32)
    identity = key_id("one.example", key_type, public).hex()
    with pytest.raises(MalformedError, match="unknown type"):
        parse_verifier(f"one.example+{identity}+{encode_base64(bytes([key_type]) + public)}")
    with pytest.raises(MalformedError, match="unknown type"):
        parse_signer(f"PRIVATE+KEY+one.example+{identity}+{encode_base64(bytes([key_type]) + seed)}")


@pytest.mark.parametrize(
    "text",
    [
        "",
        str(ONE.verifier),
        "PRIVATE+KEY+",
        "PRIVATE+KEY+one.example",
        ONE.format().lower(),
        ONE.format() + "\n",
        ONE.format().replace("one", "two"),
        ONE.format().replace("one.example", ""),
        ONE.format()[:-4],
        ONE.format()[:-1] + "B",
    ],
)
def test_a_signer_key_in_any_other_form_is_refused_without_showing_it(text: str) -> None:
    with pytest.raises(MalformedError) as caught:
        parse_signer(text)
    assert "AAAA" not in str(caught.value)


# The curve -x^2 + y^2 = 1 + d x^2 y^2 (RFC 8032, section 5.1), to know its points of small order.
P = 2**255 - 19
CURVE_D = -121665 * pow(121666, -1, P) % P
# The little-endian encodings that everybody lists, without their sign bits.
SMALL_ORDER_Y = [
    int.from_bytes(bytes.fromhex(encoding), "little")
    for encoding in (
        "0000000000000000000000000000000000000000000000000000000000000000",
        "0100000000000000000000000000000000000000000000000000000000000000",
        "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
        "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
        "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
    )
]


def square_roots(value: int) -> set[int]:
    root = pow(value, (P + 3) // 8, P)
    candidates = (root, root * pow(2, (P - 1) // 4, P) % P)
    return {sign * x % P for x in candidates for sign in (1, -1) if x * x % P == value % P}


def points(y: int) -> set[tuple[int, int]]:
    square = (y * y - 1) * pow(CURVE_D * y * y + 1, -1, P)
    return {(x, y) for x in square_roots(square)}


def double(point: tuple[int, int]) -> tuple[int, int]:
    x, y = point
    product = CURVE_D * x * x * y * y
    return (2 * x * y * pow(1 + product, -1, P) % P, (y * y + x * x) * pow(1 - product, -1, P) % P)


def test_the_points_of_small_order_are_all_listed() -> None:
    small = {point for y in SMALL_ORDER_Y for point in points(y)}
    assert len(small) == 8
    assert {double(double(double(point))) for point in small} == {(0, 1)}


@pytest.mark.parametrize("sign", [0, 1])
def test_keys_of_small_order_and_keys_that_are_not_canonical_are_refused(sign: int) -> None:
    for y in [*SMALL_ORDER_Y, *range(P, 2**255)]:
        public = (y | sign << 255).to_bytes(32, "little")
        with pytest.raises(MalformedError, match="weak"):
            VerifierKey("one.example", ED25519, public)
        identity, encoded = key_id("one.example", ED25519, public).hex(), encode_base64(b"\x01" + public)
        with pytest.raises(MalformedError, match="weak"):
            parse_verifier(f"one.example+{identity}+{encoded}")


@pytest.mark.parametrize("length", [0, 31, 33, 64])
def test_a_public_key_of_another_length_is_refused(length: int) -> None:
    with pytest.raises(MalformedError):
        VerifierKey("one.example", ED25519, b"\x09" * length)


def test_a_key_off_the_curve_verifies_nothing() -> None:
    assert not points(2)
    key = VerifierKey("one.example", ED25519, (2).to_bytes(32, "little"))
    with pytest.raises(SignatureError):
        key.verify(b"message", bytes(64))


def test_signatures_with_any_bit_flipped_are_refused() -> None:
    good = ONE.sign(b"message")
    ONE.verifier.verify(b"message", good)
    for bit in range(512):
        wrong = bytearray(good)
        wrong[bit // 8] ^= 1 << bit % 8
        with pytest.raises(SignatureError):
            ONE.verifier.verify(b"message", bytes(wrong))
    for other in (b"", good[:-1], good + b"\x00"):
        with pytest.raises(SignatureError):
            ONE.verifier.verify(b"message", other)
    with pytest.raises(SignatureError):
        TWO.verifier.verify(b"message", good)


def test_a_signature_whose_scalar_is_not_reduced_is_refused() -> None:
    order = 2**252 + 27742317777372353535851937790883648493
    good = ONE.sign(b"message")
    scalar = int.from_bytes(good[32:], "little") + order
    with pytest.raises(SignatureError):
        ONE.verifier.verify(b"message", good[:32] + scalar.to_bytes(32, "little"))


def test_a_note_is_read_back() -> None:
    note = sign_note(TEXT, ONE, TWO)
    assert parse_note(bytes(note)) == note
    assert open_note(bytes(note), [ONE.verifier, TWO.verifier]) == note


def test_opening_keeps_only_the_lines_that_were_checked() -> None:
    note = sign_note(TEXT, ONE, TWO)
    stranger = Signature("two.example", ONE.verifier.id, b"anything")
    raw = bytes(Note(TEXT, (*note.signatures, stranger)))
    assert open_note(raw, [TWO.verifier]) == Note(TEXT, (note.signatures[1],))


def test_the_key_of_a_witness_does_not_sign_a_note() -> None:
    with pytest.raises(SignatureError, match="witness"):
        sign_note(TEXT, ONE, signer_from_seed("witness.example", bytes(32), key_type=COSIGNATURE))


def test_a_note_that_no_known_key_signed_is_refused() -> None:
    raw = bytes(sign_note(TEXT, ONE))
    for keys in ([], [TWO.verifier], [signer_from_seed("one.example", b"\x02" * 32).verifier]):
        with pytest.raises(SignatureError, match="not signed by"):
            open_note(raw, keys)


def test_the_key_of_a_witness_does_not_open_a_note() -> None:
    witness = signer_from_seed("one.example", bytes(32), key_type=COSIGNATURE)
    line = Signature(witness.name, witness.verifier.id, witness.sign(TEXT.encode()))
    with pytest.raises(SignatureError):
        open_note(bytes(Note(TEXT, (line,))), [witness.verifier])


def test_a_wrong_line_of_a_known_key_condemns_the_note() -> None:
    good, forged = sign_note(TEXT, ONE, TWO).signatures
    forged = Signature(forged.name, forged.key_id, good.blob)
    for lines in ((good, forged), (forged, good), (forged,)):
        raw = bytes(Note(TEXT, lines))
        with pytest.raises(SignatureError, match="wrong signature"):
            open_note(raw, [ONE.verifier, TWO.verifier])
    assert open_note(bytes(Note(TEXT, (good, forged))), [ONE.verifier]).signatures == (good,)


def test_a_changed_text_is_refused() -> None:
    raw = bytes(sign_note(TEXT, ONE))
    for wrong in (raw.replace(b"some", b"same"), b"\n" + raw, raw.replace(b"\n\nwith", b"\nwith")):
        with pytest.raises(SignatureError):
            open_note(wrong, [ONE.verifier])


def test_the_last_empty_line_ends_the_text() -> None:
    inner = bytes(sign_note("inner\n", ONE))
    outer = bytes(sign_note(inner.decode(), TWO))
    assert open_note(outer, [TWO.verifier]).text == inner.decode()
    with pytest.raises(SignatureError):
        open_note(outer, [ONE.verifier])


def test_a_note_may_have_a_hundred_signatures_and_no_more() -> None:
    (line,) = sign_note(TEXT, ONE).signatures
    assert len(open_note(bytes(Note(TEXT, (line,) * 100)), [ONE.verifier]).signatures) == 100
    with pytest.raises(MalformedError):
        parse_note(bytes(Note(TEXT, (line,) * 101)))


def test_a_note_may_have_a_million_bytes_and_no_more() -> None:
    spare = 1_000_000 - len(bytes(sign_note("\n", ONE)))
    assert len(bytes(parse_note(bytes(sign_note("a" * spare + "\n", ONE))))) == 1_000_000
    with pytest.raises(MalformedError):
        parse_note(bytes(sign_note("a" * (spare + 1) + "\n", ONE)))


LINE = str(sign_note("text\n", ONE).signatures[0])
BLOB = LINE.split(" ")[2].strip()


@pytest.mark.parametrize(
    "raw",
    [
        "",
        "\n",
        "\n\n",
        "text\n",
        "text\n\n",
        f"text\n{LINE}",
        f"text{LINE}",
        LINE,
        f"\n{LINE}",
        f"text\n\n{LINE}".removesuffix("\n"),
        f"text\n\n{LINE}\n",
        f"text\n\n{LINE}\n\n",
        f"text\n\n{LINE}trailing\n",
        f"text\n\nleading\n{LINE}",
        f"text\n\n{LINE} {LINE}",
        f"text\r\n\r\n{LINE}",
        f"text\n\n{LINE}".replace("\n", "\r\n"),
        f"te\txt\n\n{LINE}",
        f"te\x00xt\n\n{LINE}",
        f"te\x1fxt\n\n{LINE}",
        f"text\n\n{LINE}".replace("\u2014", "-"),
        f"text\n\n{LINE}".replace("\u2014", "\u2013"),
        f"text\n\n{LINE}".replace("\u2014 ", "\u2014"),
        f"text\n\n{LINE}".replace("\u2014 ", "\u2014  "),
        f"text\n\n{LINE}".replace("\u2014 ", " \u2014 "),
        f"text\n\n\u2014 one.example  {BLOB}\n",
        f"text\n\n\u2014 one.example {BLOB} \n",
        f"text\n\n\u2014 one.example {BLOB} {BLOB}\n",
        f"text\n\n\u2014 {BLOB}\n",
        f"text\n\n\u2014  {BLOB}\n",
        f"text\n\n\u2014 one+example {BLOB}\n",
        f"text\n\n\u2014 one\u00a0example {BLOB}\n",
        f"text\n\n\u2014 one.example {BLOB[:-1]}\n",
        f"text\n\n\u2014 one.example {BLOB[:-2]}R=\n",
        f"text\n\n\u2014 one.example {BLOB.replace('/', '_').replace('+', '-')}\n",
        "text\n\n\u2014 one.example \n",
        "text\n\n\u2014 one.example ====\n",
        "text\n\n\u2014 one.example AAAA\n",
        "text\n\n\u2014 one.example AAAAAA==\n",
    ],
)
def test_a_note_in_any_other_form_is_refused(raw: str) -> None:
    with pytest.raises(MalformedError):
        parse_note(raw.encode())
    with pytest.raises(MalformedError):
        open_note(raw.encode(), [ONE.verifier])


@pytest.mark.parametrize("raw", [b"te\xffxt", b"\xed\xa0\x80", b"\xc0\xaf", b"\xe2\x80"])
def test_a_note_that_is_not_utf8_is_refused(raw: bytes) -> None:
    with pytest.raises(MalformedError):
        parse_note(raw + b"\n\n" + LINE.encode())


def test_the_shortest_signature_has_one_byte_after_the_key_id() -> None:
    note = parse_note("text\n\n\u2014 one.example AAAAAAA=\n".encode())
    assert note.signatures == (Signature("one.example", KeyId(bytes(4)), b"\x00"),)
