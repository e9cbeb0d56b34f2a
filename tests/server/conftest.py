"""A segment of its own for each test that does without a server."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tlog.anchor import Anchor
from tlog.sequencer import sign_head
from tlog.store.segment import SegmentStore
from tlog.tree import EMPTY_TREE
from tlog_core.note import SignerKey, signer_from_seed


@pytest.fixture
def signer() -> SignerKey:
    return signer_from_seed("example.com/segments/payments", bytes(32))


@pytest.fixture
def store(tmp_path: Path, signer: SignerKey) -> Iterator[SegmentStore]:
    path = tmp_path / "payments.db"
    SegmentStore.create(path, sign_head(EMPTY_TREE, 1000, signer))
    opened = SegmentStore(path)
    yield opened
    opened.close()


@pytest.fixture
def anchor(tmp_path: Path, store: SegmentStore, signer: SignerKey) -> Iterator[Anchor]:
    path = tmp_path / "payments.anchor"
    Anchor.create(path, store.head().note)
    opened = Anchor.open(path, signer.verifier)
    yield opened
    opened.close()
