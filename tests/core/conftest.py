"""What the tests of the core share: repeatable hypothesis runs, and a small log with its receipts."""

import pytest
import reference
from hypothesis import settings

from tlog_core.checkpoint import Checkpoint, sign_checkpoint
from tlog_core.commitment import Opening, commit
from tlog_core.entry import encode_entries
from tlog_core.merkle import Hash, leaf_hash
from tlog_core.note import SignerKey, signer_from_seed
from tlog_core.receipt import JSON_TYPE, BatchReceipt, Receipt

settings.register_profile("core", deadline=None, derandomize=True)
settings.load_profile("core")

PAYLOADS = [b'{"action":"pay","n":%d}' % number for number in range(5)]
OPENINGS = tuple(Opening(bytes([number]) * 32) for number in range(5))
TIME = 1_764_000_000_000


@pytest.fixture(scope="session")
def log() -> SignerKey:
    return signer_from_seed("example.com/segments/payments", bytes(32))


@pytest.fixture(scope="session")
def payloads() -> list[bytes]:
    """The events 1 to 3 of a log of five: the batch of `batch_receipt`."""
    return PAYLOADS[1:4]


@pytest.fixture(scope="session")
def entries(log: SignerKey) -> list[bytes]:
    commitments = [
        commit(opening=opening, payload_type=JSON_TYPE, payload=payload)
        for opening, payload in zip(OPENINGS, PAYLOADS, strict=True)
    ]
    return encode_entries(commitments, origin=log.name, time=TIME, writer="till-7")


@pytest.fixture(scope="session")
def leaves(entries: list[bytes]) -> list[Hash]:
    return [leaf_hash(entry) for entry in entries]


@pytest.fixture(scope="session")
def checkpoint(log: SignerKey, leaves: list[Hash]) -> bytes:
    return bytes(sign_checkpoint(Checkpoint(log.name, 5, Hash(reference.mth(leaves))), log))


@pytest.fixture(scope="session")
def receipts(entries: list[bytes], leaves: list[Hash], checkpoint: bytes) -> list[Receipt]:
    return [
        Receipt(
            entry=entry,
            payload_type=JSON_TYPE,
            opening=OPENINGS[index],
            index=index,
            checkpoint=checkpoint,
            proof=tuple(Hash(sibling) for sibling in reference.path(index, leaves)),
        )
        for index, entry in enumerate(entries)
    ]


@pytest.fixture(scope="session")
def batch_receipt(leaves: list[Hash], checkpoint: bytes) -> BatchReceipt:
    return BatchReceipt(
        first_index=1,
        time=TIME,
        writer="till-7",
        openings=OPENINGS[1:4],
        left=(leaves[0],),
        right=(leaves[4],),
        checkpoint=checkpoint,
    )
