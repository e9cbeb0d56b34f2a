"""The server does as its own description says, whoever asks, whether it is guarded or not: schemathesis sees to it."""

import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path

from conforming import SEGMENTS, conform
from live import LOG_NAME, NDJSON, TLOG, Server

POLICY = """
[[rule]]
name = "root"
roles = ["admin", "approver"]
principals = ["root"]
segments = ["*", "control", "access"]

[[rule]]
name = "all but to administer"
roles = ["writer", "auditor", "creator", "approver"]
principals = ["clerk"]
segments = ["*"]
"""
PEOPLE = ("clerk", "root")
APPROVAL = ("PUT", "/segments/<segment>/access-requests/<id>/approval")
# What nothing made up leads to: a path with slashes, a server with witnesses, a monitor, and two others who approve.
NEVER_FOUND = {
    ("GET", "/segments/<segment>/tile/<path:path>"),
    ("GET", "/segments/<segment>/checkpoint/cosigned"),
    ("POST", "/segments/<segment>/bulletins"),
    APPROVAL,
}
SEED, EXAMPLES = 1, 5


def tlog(*arguments: object) -> str:
    done = subprocess.run([TLOG, *map(str, arguments)], capture_output=True, text=True, check=True)
    return done.stdout.strip()


def begin(folder: Path) -> Mapping[str, str]:
    """Put the policy in force over a new log, and return the tokens."""
    (folder / "policy.toml").write_text(POLICY)
    tlog("segment", "create", "first", "--data", folder / "data", "--log-name", LOG_NAME)
    tlog("policy", "apply", folder / "policy.toml", "--data", folder / "data")
    return {name: tlog("token", "issue", name, "--data", folder / "data") for name in PEOPLE}


def fill(server: Server, **credential: str) -> None:
    for name in SEGMENTS:
        assert server.request("PUT", f"/segments/{name}", b"", credential).status == 201
        batch = {"Content-Type": NDJSON, **credential}
        assert server.request("POST", f"/segments/{name}/entries", b"1\n" * 300, batch).status == 201


def served(server: Server) -> Mapping[tuple[str, str], set[int]]:
    """Return the statuses with which the routes were answered."""
    assert server.stop() == 0
    found: dict[tuple[str, str], set[int]] = {}
    for line in server.logged():
        assert line.get("status", 0) < 500, line
        assert line["level"] != "error", line
        if line["event"] == "request" and line["route"] != "none":
            found.setdefault((line["method"], line["route"]), set()).add(line["status"])
    return found


def well(statuses: Mapping[tuple[str, str], set[int]]) -> set[tuple[str, str]]:
    return {route for route, given in statuses.items() if any(status < 300 for status in given)}


def test_an_unguarded_server_does_as_its_description_says(start_server: Callable[..., Server], tmp_path: Path) -> None:
    server = start_server()
    fill(server)
    done = conform(server, tmp_path, seed=SEED, examples=EXAMPLES, token="")
    assert done.returncode == 0, done.stdout
    statuses = served(server)
    assert statuses.keys() - well(statuses) == NEVER_FOUND - {APPROVAL}


def test_a_guarded_server_does_as_its_description_says_whoever_asks(
    start_server: Callable[..., Server], tmp_path: Path
) -> None:
    tokens = begin(tmp_path)
    server = start_server(guarded=True, log_name=None)
    fill(server, Authorization=f"Bearer {tokens['clerk']}")
    # Last who seals segments, and replaces the policy.
    for name in PEOPLE:
        done = conform(server, tmp_path, seed=SEED, examples=EXAMPLES, token=tokens[name])
        assert done.returncode == 0, done.stdout
    statuses = served(server)
    assert statuses.keys() - well(statuses) == NEVER_FOUND
