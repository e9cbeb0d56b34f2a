"""What the vectors cannot hold: limits that need long lists, and what the one who signs is refused."""

import re
from dataclasses import replace

import pytest
from reference import sha256

from tlog_core.bulletin import Bulletin
from tlog_core.checkpoint import parse_head
from tlog_core.errors import MalformedError, SignatureError
from tlog_core.gossip import (
    MAX_HEADS,
    MAX_MESSAGE_BYTES,
    MAX_PEERS,
    MAX_URL_BYTES,
    Message,
    Peer,
    format_peers,
    parse_message,
    parse_peers,
    sign_message,
)
from tlog_core.note import COSIGNATURE, signer_from_seed

ME, OTHER = (signer_from_seed(f"m{number}", bytes([number]) * 32) for number in (1, 2))


def peers(count: int) -> list[Peer]:
    keys = [signer_from_seed(f"m{number}", sha256(b"%d" % number)).verifier for number in range(count)]
    return [Peer(key) for key in keys]


def test_a_list_has_up_to_4096_peers() -> None:
    most = peers(MAX_PEERS)
    assert parse_peers(format_peers(most)) == tuple(most)
    with pytest.raises(MalformedError, match="1 to 4096 lines"):
        format_peers([*most, Peer(OTHER.verifier)])


def test_a_wrong_line_of_the_list_is_named() -> None:
    with pytest.raises(MalformedError, match=r"^line 3: "):
        parse_peers(format_peers(peers(2)).replace("peer m1", "peer m9"))


def test_a_url_has_up_to_1024_bytes() -> None:
    longest = Peer(ME.verifier, "https://".ljust(MAX_URL_BYTES, "a"))
    assert parse_peers(format_peers([longest])) == (longest,)
    with pytest.raises(MalformedError, match="not the URL"):
        format_peers([replace(longest, url=longest.url + "a")])


def test_a_message_has_up_to_65536_bytes() -> None:
    evidence, heads = (bytes(16_384), bytes([1]) * 16_384), (bytes(8_192), bytes([1]) * 7_000)
    message = Message(OTHER.verifier, 0, evidence, heads)
    # The name of the sender stands in the message once: it fills it to the last byte.
    free = MAX_MESSAGE_BYTES - len(sign_message(message, ME))
    longest, longer = (signer_from_seed(ME.name + "x" * more, bytes(32)) for more in (free, free + 1))
    assert len(sign_message(message, longest)) == MAX_MESSAGE_BYTES
    with pytest.raises(MalformedError, match="at most 65536 bytes"):
        sign_message(message, longer)


def test_what_nobody_would_read_is_not_signed() -> None:
    too_many = tuple(b"%d" % number for number in range(MAX_HEADS + 1))
    for heads in [too_many, (b"a", b"a"), (b"",)]:
        with pytest.raises(MalformedError):
            sign_message(Message(OTHER.verifier, 0, heads=heads), ME)


def test_the_key_of_a_witness_signs_no_message() -> None:
    witness = signer_from_seed("w", bytes(32), key_type=COSIGNATURE)
    with pytest.raises(SignatureError):
        sign_message(Message(OTHER.verifier, 0), witness)


def test_neither_a_message_nor_a_list_nor_a_bulletin_is_a_checkpoint() -> None:
    texts = [parse_message(sign_message(Message(OTHER.verifier, 0), ME)).note.text, format_peers(peers(2))]
    for text in [*texts, str(Bulletin("o", 0))]:
        assert len(re.findall("\n", text)) == 3
        with pytest.raises(MalformedError):
            parse_head(text)
