"""A log against a naive model: whatever people do and whatever crashes, nothing is lost, and nothing forks."""

import re
import subprocess
import sys

import machine
import pytest
from machine import DirectMachine, ServedMachine

# A retry was logged again, or refused as if it was new.
FORGOTTEN = r" got two receipts| is at \[\[| refused key-\d+: \w+, and not \(\)"


def test_a_log_does_what_a_list_would_whatever_crashes() -> None:
    machine.move(DirectMachine, examples=8, steps=40, seed=1)


def test_server_witness_monitor_and_clients_agree_with_the_model_whatever_is_killed() -> None:
    machine.move(ServedMachine, examples=2, steps=40, seed=1)


@pytest.mark.parametrize(
    ("bug", "found", "seed"),
    [
        ("forget_the_last_commit", "payments went back from | got two receipts", "1"),
        ("forget_keys_at_a_restart", FORGOTTEN, "2"),
        ("ask_no_anchor", " is behind, and signed ", "1"),
        ("be_frozen_in_word_only", " is behind, and signed ", "1"),
        ("anchor_before_the_commit", r": frozen, and not \(\)|payments is frozen", "11"),
        ("unseal_at_a_restart", " is sealed, and took more", "1"),
        ("catch_up_less_revocations", "a token that never again works", "3"),
    ],
)
def test_a_planted_bug_is_found(bug: str, found: str, seed: str) -> None:
    expect_found(bug, found, "DirectMachine", "10", "50", seed)


@pytest.mark.long
def test_a_bug_planted_in_the_server_is_found() -> None:
    expect_found("forget_keys_at_a_restart", FORGOTTEN, "ServedMachine", "3", "30", "6")


def expect_found(bug: str, found: str, *how: str) -> None:
    command = [sys.executable, machine.__file__, bug, *how]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, bool(re.search(found, done.stderr))) == (1, True), done.stderr
