"""One flipped bit, of any class, on disk or in memory: nothing wrong is released, and fsck names the place."""

import sys
from collections.abc import Iterator
from random import Random

import planted
import pytest
from flips import IN_MEMORY, ON_DISK, Ground, ground, in_memory, on_disk
from flips_served import Served, served_ground, served_on_disk

from tlog.nodes import Nodes
from tlog.sequencer import Sequencer, Submission
from tlog_core.commitment import Commitment


@pytest.fixture(scope="module")
def sound() -> Iterator[Ground]:
    with ground() as one:
        assert one.wrong() == []
        one.restore()
        yield one


@pytest.fixture
def random(request: pytest.FixtureRequest) -> Random:
    return Random(request.node.name)  # noqa: S311 - repeatable, not secret


@pytest.mark.parametrize("name", ON_DISK)
def test_after_a_flip_on_disk_nothing_wrong_is_released_and_fsck_names_it(
    sound: Ground, name: str, random: Random
) -> None:
    assert on_disk(sound, name, random) == []


@pytest.mark.parametrize("name", IN_MEMORY)
def test_after_a_flip_in_memory_nothing_wrong_is_signed_or_released(sound: Ground, name: str, random: Random) -> None:
    assert in_memory(sound, name, random) == []


def test_a_retry_over_a_damaged_tree_is_told_so_and_nothing_is_signed(sound: Ground) -> None:
    [(nodes,)] = sound.execute("select nodes from tile where level = 0")
    # The nodes beside the way from the first entry up: by these the tree of one entry is in that of all.
    for place in (32 * number for number in (129, 193, 225, 241, 249, 253)):
        spoiled = nodes[:place] + bytes([nodes[place] ^ 1]) + nodes[place + 1 :]
        sound.execute("update tile set nodes = ? where nodes = ?", spoiled, nodes)
        sound.reopen()
        answer = sound.retry(0)
        assert (answer.status, answer.kind) == (500, "corrupt")
        sound.execute("update tile set nodes = ? where nodes = ?", nodes, spoiled)
    sound.restore()


@pytest.fixture(scope="module")
def served() -> Iterator[Served]:
    """A ground behind a server; in the end all is there that it released, whatever was flipped and flipped back."""
    with served_ground() as one:
        yield one
        assert one.end() == []


@pytest.mark.parametrize("name", ON_DISK)
def test_while_a_bit_is_flipped_below_a_server_nothing_wrong_comes_out_of_it(
    served: Served, name: str, random: Random
) -> None:
    assert served_on_disk(served, name, random) == []


# Logs that trust their disk, or their memory


def test_a_server_that_trusts_its_disk_is_caught_over_http_and_by_the_recorder(random: Random) -> None:
    with served_ground((sys.executable, planted.__file__, "trust_the_disk")) as one:
        found = [line for _ in range(3) for line in served_on_disk(one, "an entry", random)]
        assert any("entries" in line for line in found)
        assert any("was released, and is not there" in line for line in one.end())


@pytest.mark.parametrize("name", ["an entry", "a tile"])
def test_a_log_that_does_not_compare_entries_with_the_tree_is_caught(
    sound: Ground, monkeypatch: pytest.MonkeyPatch, random: Random, name: str
) -> None:
    monkeypatch.setattr(Nodes, "check_entries", lambda *_: None)
    monkeypatch.setattr(Nodes, "_hashes", lambda nodes, tile: nodes._store.full_tile(tile).hashes)
    assert any("tile/" in line or "entries" in line for line in on_disk(sound, name, random))


def test_a_log_that_does_not_open_commitments_is_caught(
    sound: Ground, monkeypatch: pytest.MonkeyPatch, random: Random
) -> None:
    def has_any(_raw: bytes, _commitment: Commitment) -> bool:
        return True

    monkeypatch.setattr("tlog.submit.has_commitment", has_any)
    assert any("entries" in line for line in on_disk(sound, "an opening", random))


@pytest.mark.parametrize("name", ["an entry", "a leaf hash", "a node", "the root"])
def test_a_log_that_computes_a_root_once_is_caught(
    sound: Ground, monkeypatch: pytest.MonkeyPatch, random: Random, name: str
) -> None:
    monkeypatch.setattr(Sequencer, "_check_again", lambda *_: None)
    assert any("another tree" in line or "fsck" in line for line in in_memory(sound, name, random))


def test_a_log_that_does_not_compare_what_it_queued_is_caught(
    sound: Ground, monkeypatch: pytest.MonkeyPatch, random: Random
) -> None:
    monkeypatch.setattr(Submission, "holds", lambda _: True)
    assert any("answered 201" in line for line in in_memory(sound, "a payload, committed to", random))


def test_a_log_that_takes_its_tree_from_memory_unseen_is_caught(
    sound: Ground, monkeypatch: pytest.MonkeyPatch, random: Random
) -> None:
    monkeypatch.setattr("tlog.sequencer._check_root", lambda *_: None)
    monkeypatch.setattr(Sequencer, "_check_again", lambda *_: None)
    assert any("another tree" in line for line in in_memory(sound, "a frontier that was kept", random))
