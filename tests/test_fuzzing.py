"""Each target of the fuzzer holds for its seeds and for what was found by fuzzing (`tests/corpus`)."""

from collections.abc import Iterator

import pytest
from fuzzing import CORPUS, TARGETS, Target

from tlog_core.errors import TlogError


def kept(name: str) -> Iterator[bytes]:
    return (path.read_bytes() for path in sorted((CORPUS / name).glob("*")))


def is_taken(target: Target, raw: bytes) -> bool:
    try:
        target.run(raw)
    except TlogError:
        return False
    return True


@pytest.mark.parametrize("name", TARGETS)
def test_seeds_and_what_fuzzing_found_are_refused_as_promised_or_come_out_as_they_went_in(name: str) -> None:
    for raw in (*TARGETS[name].seeds(), *kept(name)):
        TARGETS[name].check(raw)


@pytest.mark.parametrize("name", TARGETS)
def test_the_seeds_of_each_target_lead_all_the_way_through(name: str) -> None:
    assert any(is_taken(TARGETS[name], raw) for raw in TARGETS[name].seeds())


def test_what_is_kept_belongs_to_a_target() -> None:
    assert {path.name for path in CORPUS.iterdir()} <= set(TARGETS)
