"""The client installs and works alone: a stranger verifies a receipt without anything of the server."""

import json
import re
import subprocess
import sys
import venv
import zipfile
from collections.abc import Sequence
from pathlib import Path

import pytest
from live import JSON, Segment

ROOT = Path(__file__).parent.parent.parent
DECLARED = {"click", "cryptography", "requests", "rfc8785", "urllib3"}
# Prints each installed distribution with what it requires on this machine, extras left out.
INSTALLED = """
import json
from importlib.metadata import distributions

print(json.dumps({one.metadata["Name"].lower(): one.requires or [] for one in distributions()}))
"""
# Imports every module of tlog_core, and prints the names of all modules that this brought.
IMPORTED = """
import importlib, pkgutil, sys
import tlog_core

for module in pkgutil.iter_modules(tlog_core.__path__):
    importlib.import_module(f"tlog_core.{module.name}")
print("\\n".join(sys.modules))
"""


def run(*command: str | Path, cwd: Path | None = None, text: str | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=cwd, input=text)


@pytest.fixture(scope="module")
def thin(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fresh environment with the client in it, and its folder of programs."""
    folder = tmp_path_factory.mktemp("thin")
    venv.create(folder / "venv", with_pip=True)
    programs = folder / "venv" / "bin"
    made = run(programs / "python", "-m", "pip", "install", "--quiet", "--disable-pip-version-check", ROOT / "client")
    assert made.returncode == 0, made.stderr
    return programs


def closure(first: str, requirements: dict[str, Sequence[str]]) -> set[str]:
    """Return what a distribution brings, and what that brings."""
    found, waiting = set[str](), [first]
    while waiting:
        name = waiting.pop()
        if name in requirements and name not in found:
            found.add(name)
            plain = [one for one in requirements[name] if "extra ==" not in one]
            waiting += [re.split(r"[^A-Za-z0-9._-]", one, maxsplit=1)[0].lower().replace("_", "-") for one in plain]
    return found


def test_the_client_brings_what_it_declares_and_nothing_else(thin: Path) -> None:
    requirements: dict[str, Sequence[str]] = json.loads(run(thin / "python", "-c", INSTALLED).stdout)
    names = {name.replace("_", "-"): value for name, value in requirements.items()}
    plain = [one for one in names["tlog-client"] if "extra ==" not in one]
    declared = {re.split(r"[^A-Za-z0-9._-]", one, maxsplit=1)[0] for one in plain}
    assert declared == DECLARED
    assert set(names) - {"pip", "setuptools", "wheel"} == closure("tlog-client", names)
    server = {"tlog", "flask", "werkzeug", "granian", "sqlite-utils", "msgspec", "orjson", "structlog", "zstandard"}
    assert not server & set(names)
    assert run(thin / "python", "-I", "-c", "import tlog").returncode == 1


def test_a_stranger_verifies_a_stored_receipt(thin: Path, segment: Segment, tmp_path: Path) -> None:
    event = b'{"b":1.50, "a":"\\u00e9"}'
    (tmp_path / "receipt.json").write_bytes(segment.append(event))
    (tmp_path / "event.json").write_bytes(event)
    (tmp_path / "other.json").write_bytes(b'{"a":"e","b":1.5}')
    (tmp_path / "log.vkey").write_text(str(segment.key))
    verify: list[str | Path] = [thin / "tlog-client", "verify", "receipt.json", "--key", "log.vkey", "--event"]
    good = run(*verify, "event.json", cwd=tmp_path)
    assert (good.returncode, good.stderr) == (0, "")
    assert good.stdout.startswith(f"verified: {segment.key.name}, entry 0 of 1, ")
    assert run(*verify, "other.json", cwd=tmp_path).returncode == 1
    receipt = json.loads((tmp_path / "receipt.json").read_bytes())
    receipt["entry"] = receipt["entry"].replace("anonymous", "anonymouse")
    (tmp_path / "receipt.json").write_text(json.dumps(receipt))
    bad = run(*verify, "event.json", cwd=tmp_path)
    assert (bad.returncode, bad.stdout) == (1, "")
    assert "Traceback" not in bad.stderr


def test_the_core_alone_verifies_a_stored_receipt(thin: Path, segment: Segment, tmp_path: Path) -> None:
    (tmp_path / "receipt.json").write_bytes(segment.append(b'{"b":1.50, "a":"\\u00e9"}', JSON))
    script = f"""
from tlog_core.note import parse_verifier
from tlog_core.receipt import parse_receipt, verify_receipt

receipt = parse_receipt(open("receipt.json", "rb").read())
verify_receipt(receipt, key=parse_verifier({str(segment.key)!r}), payload={'{"a":"é","b":1.5}'.encode()!r})
"""
    verified = run(thin / "python", "-I", "-c", script, cwd=tmp_path)
    assert (verified.returncode, verified.stderr) == (0, "")


def test_the_core_imports_neither_the_network_nor_the_server(thin: Path) -> None:
    for python in (thin / "python", Path(sys.executable)):
        imported = set(run(python, "-I", "-c", IMPORTED).stdout.split())
        assert {"tlog_core.receipt", "tlog_core.tlog_proof"} <= imported
        names = {name.partition(".")[0] for name in imported}
        assert not names & {"requests", "urllib3", "flask", "click", "sqlite3", "tlog", "tlog_client", "http"}


def test_the_wheel_holds_the_two_packages_and_nothing_else(thin: Path, tmp_path: Path) -> None:
    build: list[str | Path] = [
        thin / "python",
        "-m",
        "pip",
        "wheel",
        "--quiet",
        "--disable-pip-version-check",
        "--no-deps",
    ]
    built = run(*build, "--wheel-dir", tmp_path, ROOT / "client")
    assert built.returncode == 0, built.stderr
    [wheel] = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    tops = {name.partition("/")[0] for name in names if ".dist-info/" not in name}
    assert tops == {"tlog_core", "tlog_client"}
    assert {"tlog_core/py.typed", "tlog_client/py.typed"} <= names
    assert not [name for name in names if "__pycache__" in name]
