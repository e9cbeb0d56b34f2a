"""The simulation holds its claims where it is quick, tells liars from honest logs, and is the same each time."""

import subprocess
import xml.etree.ElementTree as ET
from dataclasses import astuple
from pathlib import Path

import pytest
from gossiping import History
from simulation import LOG, Plan, World, policy

from tlog_core.evidence import describe_evidence, parse_evidence

SIMULATE = Path(__file__).parent.parent / "scripts" / "simulate"
HONEST = History(LOG, "honest", 30)
LIE = History(LOG, "lie", 30)


def targeted(place: int, _now: int) -> tuple[History, int]:
    return (HONEST if place else LIE), 21


def honest(_place: int, now: int) -> tuple[History, int]:
    return HONEST, 10 + now // 60_000


@pytest.mark.long
def test_the_quick_run_holds_its_claims_and_draws_a_plot(tmp_path: Path) -> None:
    plot = tmp_path / "spread.svg"
    done = subprocess.run([SIMULATE, "--quick", "--svg", plot], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "honest log" in done.stdout
    assert ET.parse(plot).getroot().tag.endswith("svg")  # noqa: S314 - it is ours


@pytest.mark.parametrize("view", [targeted, honest])
def test_a_seed_replays_to_the_last_byte(view: object) -> None:
    plan = Plan(12, view, colluders=4, loss=0.2, look=60_000, until=600_000)  # type: ignore[arg-type]
    assert astuple(World(plan, 7).run()) == astuple(World(plan, 7).run())
    assert World(plan, 7).run().sent_bytes != World(plan, 8).run().sent_bytes


def test_a_lie_is_found_out_by_all_and_an_honest_log_by_nobody() -> None:
    lied = World(Plan(12, targeted, colluders=4), 1).run()
    assert len(lied.convicted) == 8
    assert all(
        "signed two roots" in describe_evidence(parse_evidence(raw), policy(witnessed=False)) for raw in lied.files
    )
    told = World(Plan(12, honest, colluders=4, look=60_000, until=900_000, lag=300_000, loss=0.2), 1).run()
    assert not told.files
    assert told.exchanges > 100


def test_witnesses_that_cosign_two_histories_are_convicted_too() -> None:
    result = World(Plan(6, targeted, witnessed=True), 1).run()
    accused = {parse_evidence(raw).witness.name for raw in result.files if b"\nwitness " in raw}  # type: ignore[union-attr]
    assert accused == {"witness-0", "witness-1"}
