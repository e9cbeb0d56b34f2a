"""The second act of the demonstration: a log shows one of three monitors another history, and is convicted by gossip.

A log, two witnesses that cosign its heads, and three monitors, all of them processes of their own on loopback. Then a
copy of the log, with the same key, that goes on otherwise: two monitors see the one, the third sees the other.
"""

import json
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from tlog_client import Log

COMMANDS = Path(sys.executable).parent
MOST = 1_000
PATIENCE = 90
"""Seconds. A monitor makes its first round of gossip within 60."""


def watch(place: Path, events: Sequence[Any]) -> None:
    """Do all of it in an empty folder, with events for one segment; exit with 1 if it is not as it should be."""
    data, fork = place / "log", place / "fork"
    key = run("tlog", "segment", "create", "payments", "--data", data, "--log-name", "example.com/audit").strip()
    listed = run("tlog", "segment", "list", "--data", data).splitlines()
    ports = [free_port() for _ in range(7)]
    with ExitStack() as running:
        witnesses = start_witnesses(place, [line.split()[-1] for line in listed], ports[:2], running)
        (place / "witnesses").write_text(witnesses)
        with serving(data, ports[2], "--witnesses", place / "witnesses") as url:
            load(url, key, events, place)
        # With its anchors: without, the copy would refuse to sign.
        shutil.copytree(data, fork)
        shutil.copytree(f"{data}.anchor", f"{fork}.anchor")
        honest = running.enter_context(serving(data, ports[2], "--witnesses", place / "witnesses"))
        lying = running.enter_context(serving(fork, ports[3]))
        diverge(place, key, {"log": honest, "fork": lying}, witnesses)
        began = time.monotonic()
        monitors = start_monitors(place, key, {"A": honest, "B": honest, "C": lying}, witnesses, ports[4:], running)
        for folder in monitors.values():
            wait_until_verified(folder)
        say("monitors A and B are shown the log, and C the copy: each has verified all that it sees")
        found = [alarm(folder) for folder in monitors.values()]
        say(f"alarm after {time.monotonic() - began:.0f} s, by gossip, at {', '.join(monitors)}; A says:")
        say(f"  {found[0]['class']}: {found[0]['detail']}")
    judge(place, monitors["A"] / "evidence" / found[0]["evidence"])


def start_witnesses(place: Path, logs: Sequence[str], ports: Sequence[int], running: ExitStack) -> str:
    """Start two witnesses of these logs, and return the policy by which both must cosign."""
    (place / "logs").write_text("logs/v0\n" + "".join(f"vkey {log}\nqpd 86400\ncontact nobody\n" for log in logs))
    lines = []
    for number, port in enumerate(ports, 1):
        folder = place / f"w{number}"
        key = run("tlog", "witness", "key", "--data", folder, "--name", f"witness.example/w{number}").strip()
        command = ["tlog", "witness", "serve", "--data", folder, "--logs", place / "logs", "--port", port]
        running.enter_context(process(place / f"w{number}.log", *command))
        wait_for(port)
        lines.append(f"witness w{number} {key} http://127.0.0.1:{port}\n")
    return "".join([*lines, "group both all w1 w2\nquorum both\n"])


def load(url: str, key: str, events: Sequence[Any], place: Path) -> None:
    """Log events, the last of them under a head that both witnesses cosigned."""
    with Log(f"{url}/segments/payments", key, state=place / "state", cosigned=True) as log:
        receipt = log.append_many(events[:MOST])[-1]
    (place / "honest.receipt").write_bytes(bytes(receipt))
    say(f"{receipt.index + 1} events logged, and their head cosigned by two witnesses; then the log's folder is copied")


def diverge(place: Path, key: str, logs: Mapping[str, str], witnesses: str) -> None:
    """Log an event in the log, and another in its copy, and see that only one of them has its witnesses."""
    (place / "trust.policy").write_text(f"log {key}\n{witnesses}")
    for name, url in logs.items():
        with Log(f"{url}/segments/payments", key, state=place / name / "client", cosigned=name == "log") as log:
            receipt = log.append({"action": "pay", "to": name})
        path = place / f"{name}.receipt"
        path.write_bytes(bytes(receipt))
        command = [str(COMMANDS / "tlog-client"), "verify", str(path), "--policy", str(place / "trust.policy")]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode != (name == "fork"):
            sys.exit(f"verify exited with {done.returncode} for the receipt of the {name}: {done.stderr}")
    say(f"entry {receipt.index} differs in the log and in the copy, both signed by the log's key")
    say("who demands the witnesses' cosignatures refuses the copy's receipt at once; the monitors do not demand them")


def start_monitors(
    place: Path, key: str, shown: Mapping[str, str], witnesses: str, ports: Sequence[int], running: ExitStack
) -> Mapping[str, Path]:
    """Start a monitor for each name, which sees the log at that URL; return their folders."""
    peers = []
    for name, port in zip(shown, ports, strict=True):
        vkey = run("tlog-client", "keygen", f"{name}.example", "-o", place / f"{name}.key").strip()
        peers.append(f"peer {vkey} http://127.0.0.1:{port}\n")
    (place / "list").write_text("".join(["tlog/peers/v1\n", *peers]))
    list_key = run("tlog-client", "keygen", "list.example", "-o", place / "list.key").strip()
    (place / "peers").write_text(run("tlog-client", "sign-peers", "--sign", place / "list.key", place / "list"))
    # Whoever can show C another log keeps it from the witnesses too.
    hidden = "".join(
        " ".join(line.split()[:3]) + "\n" if "http" in line else f"{line}\n" for line in witnesses.splitlines()
    )
    for (name, url), port in zip(shown.items(), ports, strict=True):
        policy = place / f"{name}.policy"
        policy.write_text(f"log {key} {url}/segments/payments\n{hidden if name == 'C' else witnesses}")
        circle = ["--peers", place / "peers", "--peers-key", list_key, "--gossip-key", place / f"{name}.key"]
        folder = place / f"monitor-{name}"
        command = ["tlog-client", "monitor", "--policy", policy, "--state", folder, *circle]
        running.enter_context(process(place / f"monitor-{name}.log", *command, "--listen", f"127.0.0.1:{port}"))
    return {name: place / f"monitor-{name}" for name in shown}


def alarm(folder: Path) -> Mapping[str, Any]:
    """Return the evidence that a monitor reports against the log, once it does."""
    for line in said(folder):
        if line.startswith("{"):
            finding: Mapping[str, Any] = json.loads(line)
            if finding["class"] == "evidence" and finding["witness"] is None:
                return finding
    sys.exit(f"{folder.name} raised no alarm")


def wait_until_verified(folder: Path) -> None:
    """Return once a monitor has verified a head."""
    if not any(line.startswith("tlog-client: verified ") for line in said(folder)):
        sys.exit(f"{folder.name} verified nothing")


def said(folder: Path) -> Iterator[str]:
    """Yield the lines of a monitor, from the first on, as they come; stop when patience is at an end."""
    end = time.monotonic() + PATIENCE
    with folder.with_suffix(".log").open() as log:
        while time.monotonic() < end:
            if line := log.readline():
                yield line
            else:
                time.sleep(0.05)


def judge(place: Path, evidence: Path) -> None:
    """Verify evidence offline: all that served and watched has ended."""
    say(f"everything is stopped; {evidence.stat().st_size} bytes of evidence remain, judged offline by the log's key:")
    say(f"  {run('tlog-client', 'verify-evidence', evidence, '--policy', place / 'trust.policy').strip()}")


@contextmanager
def serving(data: Path, port: int, *options: object) -> Iterator[str]:
    """Run a log and give its URL."""
    command = ["tlog", "serve", "--unguarded", "--data", data, "--port", port, *options]
    with process(data.with_suffix(".log"), *command):
        wait_for(port)
        yield f"http://127.0.0.1:{port}"


@contextmanager
def process(log: Path, *command: object) -> Iterator[None]:
    """Run a command, with what it prints in a file, and end it."""
    with log.open("ab") as out:
        started = subprocess.Popen([COMMANDS / str(command[0]), *map(str, command[1:])], stdout=out, stderr=out)
    try:
        yield
    finally:
        started.terminate()
        started.wait(PATIENCE)


def run(*command: object) -> str:
    """Run a command and return what it prints."""
    words = [str(COMMANDS / str(command[0])), *map(str, command[1:])]
    return subprocess.run(words, check=True, capture_output=True, text=True).stdout


def free_port() -> int:
    """Return a port of loopback that nobody listens at."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def wait_for(port: int) -> None:
    """Return once somebody listens at a port."""
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        try:
            socket.create_connection(("127.0.0.1", port)).close()
        except OSError:
            time.sleep(0.05)
        else:
            return
    sys.exit(f"nobody listens at port {port}")


def say(line: str) -> None:
    """Print a line now."""
    print(line, flush=True)
