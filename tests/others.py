"""Software that is not ours: the Go programs of these folders, and what npm fetches for tests/interop/js."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

SOURCES = Path(__file__).parent / "interop"
GO = shutil.which("go")
NPM = shutil.which("npm")
BUILD_SECONDS = 600
FETCH_SECONDS = 120

needs_go = pytest.mark.skipif(GO is None, reason="there is no Go here, in which the other side is written")
needs_npm = pytest.mark.skipif(NPM is None, reason="there is no Node.js here, in which the other side is written")


def run_npm(folder: Path) -> None:
    """Have a copy of tests/interop/js in a folder, with all that its lock names."""
    shutil.copytree(SOURCES / "js", folder, dirs_exist_ok=True, ignore=shutil.ignore_patterns("node_modules"))
    options = ["--no-audit", "--no-fund", "--ignore-scripts", "--prefer-offline"]
    run = subprocess.run(
        [str(NPM), "ci", *options], cwd=folder, capture_output=True, text=True, check=False, timeout=FETCH_SECONDS
    )
    if "ENOTFOUND" in run.stderr or "ECONNREFUSED" in run.stderr or "EAI_AGAIN" in run.stderr:
        pytest.skip("npm cannot fetch what is needed here")
    assert run.returncode == 0, run.stderr


def run_go(*arguments: str | Path, folder: Path = SOURCES, **environment: str) -> None:
    run = subprocess.run(
        [str(GO), *arguments],
        cwd=folder,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
        timeout=BUILD_SECONDS,
    )
    if "dial tcp" in run.stderr or "no such host" in run.stderr:
        pytest.skip("Go has not all that is needed here, and cannot fetch it")
    assert run.returncode == 0, run.stderr
