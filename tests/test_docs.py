"""Every command in the documentation is run, in the order in which it stands, in a copy of the project."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from live import free_port

ROOT = Path(__file__).parent.parent
BLOCK = re.compile(r"^```(console|python)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
DONE = "-- done: "


def documents() -> list[Path]:
    listed = subprocess.run(["git", "ls-files", "*.md"], cwd=ROOT, check=True, capture_output=True, text=True)
    pages = [ROOT / name for name in listed.stdout.split()]
    return [page for page in pages if BLOCK.search(page.read_text("utf-8"))]


def script_of(page: Path, port: int, witness_port: int) -> tuple[str, list[tuple[str, str]]]:
    """Return the page as one shell script that says when a command is done, and each command with its output."""
    # Whatever happens, the servers that the page starts end with it.
    commands: list[tuple[str, str]] = []
    lines = ["set -m; trap 'kill $(jobs -p) 2>/dev/null; wait' EXIT"]
    for kind, body in BLOCK.findall(page.read_text("utf-8")):
        body = body.replace("8080", str(port)).replace("tlog serve", f"tlog serve --port {port}")
        body = body.replace("8081", str(witness_port))
        if kind == "python":
            lines.append(f"python - <<'END' || exit 1\n{body}END")
            continue
        for part in re.split(r"^\$ ", body, flags=re.MULTILINE)[1:]:
            command, _, expected = part.partition("\n")
            # The next command is typed when the server stands; on a busy machine that takes as long as a client waits.
            suffix = waiting_for(command, port, witness_port) if command.endswith("&") else " || exit 1"
            lines += [command + suffix, f"echo '{DONE}{len(commands)}'"]
            commands.append((command, expected))
    return "\n".join(lines) + "\n", commands


def waiting_for(command: str, *ports: int) -> str:
    """Return what waits, in bash, until the first of these ports that is named in the command is listened at."""
    named = [port for port in ports if str(port) in command]
    return "".join(f"\nuntil (echo > /dev/tcp/127.0.0.1/{port}) 2>/dev/null; do sleep 0.1; done" for port in named[:1])


def matches(expected: str, output: str) -> bool:
    pattern = re.escape(expected).replace("…", ".*")
    return re.search(pattern, output) is not None


def copy_project(target: Path) -> None:
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    )
    for name in listed.stdout.splitlines():
        if (ROOT / name).exists():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, target / name)


@pytest.fixture(scope="session")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the environment of a copy of the project, as `scripts/install` makes it."""
    folder = tmp_path_factory.mktemp("installed")
    copy_project(folder)
    subprocess.run([folder / "scripts/install"], check=True, env=environment(folder), capture_output=True)
    return folder / ".venv"


def environment(folder: Path) -> dict[str, str]:
    return {
        "HOME": str(folder / "home"),
        # The interpreter that runs the tests stands for the machine's python3.
        "PATH": f"{Path(sys.base_prefix) / 'bin'}:/usr/local/bin:/usr/bin:/bin",
        **{name: value for name, value in os.environ.items() if name.startswith("PIP_")},
    }


@pytest.mark.parametrize("page", documents(), ids=lambda page: str(page.relative_to(ROOT)))
def test_every_command_of_a_page_does_what_the_page_says(
    page: Path, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    copy_project(tmp_path)
    # Who reads the README has nothing yet; to set it up again for each further page would show nothing more.
    if page != ROOT / "README.md":
        (tmp_path / ".venv").symlink_to(request.getfixturevalue("installed"))
    script, commands = script_of(page, free_port(), free_port())
    run = subprocess.run(
        ["bash", "-c", script],
        cwd=tmp_path,
        env=environment(tmp_path),
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert run.returncode == 0, f"after {run.stdout[-2000:]}\n{run.stderr[-2000:]}"
    rest = run.stdout
    for number, (command, expected) in enumerate(commands):
        output, done, rest = rest.partition(f"{DONE}{number}\n")
        assert done, f"{command} did not end: {output}"
        assert matches(expected, output), f"{command} printed {output!r}, not {expected!r}"


def test_there_is_a_page_with_commands() -> None:
    assert ROOT / "README.md" in documents()
