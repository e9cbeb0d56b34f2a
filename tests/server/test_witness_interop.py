"""With software that is not ours (tests/interop): their log and client at our witness, their witness at our log.

Needs Go, and what `tests/interop/go.sum` names, which Go fetches if it has not got it.
"""

import os
import re
import shutil
import sqlite3
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path

import pytest
import reference
import requests
from live import JSON, NDJSON, PATIENCE, Segment, Server, free_port, until
from others import GO, SOURCES, needs_go, run_go
from panels import make_data, panel, trusting
from witnessing import NAME, make_log, start_witness, submission, witness_signer

from tlog_core.cosignature import open_cosignature
from tlog_core.encoding import decode_base64, encode_base64
from tlog_core.note import COSIGNATURE, ED25519, VerifierKey, parse_note
from tlog_core.receipt import parse_receipt, verify_receipt

LITEWITNESS = "filippo.io/torchwood/cmd/litewitness@v0.9.0"
AGENT = ("ssh-agent", "ssh-add", "ssh-keygen")

pytestmark = needs_go


def test_a_log_and_a_client_of_others_are_cosigned_and_refused_as_they_expect(interop: Path, tmp_path: Path) -> None:
    log = make_log("go.example/log", 0)
    running = start_witness(tmp_path / "data", log.key, subtrees=True)
    try:
        run = subprocess.run(
            [interop, "log", running.server.url, str(running.key), str(running.subtree_key), log.signer.format()],
            capture_output=True,
            text=True,
            check=False,
            timeout=PATIENCE,
        )
        assert run.returncode == 0, run.stderr
        assert run.stdout.splitlines() == [
            *[f"cosigned {size}" for size in (0, 1, 2, 5, 5, 8, 9, 64, 100)],
            "stale 100",
            "forged 0",
            "unproven 0",
            "backwards 0",
            "unknown 0",
        ]
    finally:
        running.server.kill()


@pytest.mark.usefixtures("interop")
def test_what_litewitness_is_tested_with_our_witness_answers_alike(tmp_path: Path) -> None:
    listed = subprocess.run(
        [str(GO), "list", "-m", "-f", "{{.Dir}}", "filippo.io/torchwood"],
        cwd=SOURCES,
        capture_output=True,
        text=True,
        check=True,
    )
    cases = Path(listed.stdout.strip(), "cmd/litewitness/testdata/litewitness.txt").read_text()
    # The log of these cases, whose signer key nobody here has.
    public = bytes.fromhex("ffdc2d4d98e4124d3feaf788c0c2f9abfd796083d1f0495437f302ec79cf100f")
    key = VerifierKey(f"sigsum.org/v1/tree/{reference.sha256(public).hex()}", ED25519, public)
    running = start_witness(tmp_path / "data", key)
    try:
        found = re.findall(r"^POST \S+/add-checkpoint\n```\n(.*?)```\nHTTP (\d+)", cases, re.DOTALL | re.MULTILINE)
        answers = [(int(status), running.add(body.encode()).status) for body, status in found]
        # The wrong signature among them is not in canonical base64 either, which is malformed here, and not there.
        assert answers == [(theirs, 400 if theirs == 403 else theirs) for theirs, _ in answers]
        assert {theirs for theirs, _ in answers} == {200, 403, 404, 409, 422}
    finally:
        running.server.kill()


@contextmanager
def their_witness(interop: Path, log: VerifierKey) -> Iterator[tuple[str, VerifierKey]]:
    """Run a witness of transparency-dev/witness, of one log; give its URL and its verifier key."""
    signer = witness_signer()
    process = subprocess.Popen([interop, "witness", str(log), signer.format()], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        yield process.stdout.readline().strip(), signer.verifier
    finally:
        process.kill()
        process.communicate()


def test_a_witness_of_others_cosigns_our_segments(interop: Path, segment: Segment) -> None:
    with their_witness(interop, segment.key) as (url, key):
        follow(segment, url, key)


@contextmanager
def litewitness(tmp_path: Path, log: VerifierKey) -> Iterator[tuple[str, VerifierKey]]:
    """Run a litewitness, of one log, whose key an SSH agent holds; give its URL and its verifier key."""
    if missing := [name for name in AGENT if shutil.which(name) is None]:
        pytest.skip(f"there is no {missing[0]} here, in which litewitness has its key")
    run_go("install", LITEWITNESS, GOBIN=str(tmp_path))
    # A path that is short enough for a socket.
    with tempfile.TemporaryDirectory() as folder, ExitStack() as running:
        key, agent, database = Path(folder, "key"), Path(folder, "agent"), Path(folder, "db")
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key], check=True)
        running.callback(end, subprocess.Popen(["ssh-agent", "-D", "-a", agent], stdout=subprocess.DEVNULL))
        until(agent.exists, "the agent's socket")
        subprocess.run(["ssh-add", "-q", key], check=True, env={**os.environ, "SSH_AUTH_SOCK": str(agent)})
        # The last of what is in a public key of OpenSSH are the 32 bytes of it.
        public = decode_base64(key.with_suffix(".pub").read_text().split()[1])[-32:]
        listen = f"127.0.0.1:{free_port()}"
        options = {"ssh-agent": agent, "name": NAME, "key": reference.sha256(public).hex(), "db": database}
        process = subprocess.Popen(
            [tmp_path / "litewitness", f"-listen={listen}", *[f"-{name}={value}" for name, value in options.items()]],
            stderr=subprocess.DEVNULL,
        )
        running.callback(end, process)
        until(lambda: is_up(f"http://{listen}"), "litewitness to answer")
        with closing(sqlite3.connect(database)) as rows, rows:
            empty = encode_base64(reference.mth([]))
            rows.execute("insert into log (origin, tree_size, tree_hash) values (?, 0, ?)", [log.name, empty])
            rows.execute("insert into key (origin, key) values (?, ?)", [log.name, str(log)])
        yield f"http://{listen}", VerifierKey(NAME, COSIGNATURE, public)


def end(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    process.wait()


def is_up(url: str) -> bool:
    try:
        return requests.get(url, timeout=PATIENCE).ok
    except requests.ConnectionError:
        return False


def test_litewitness_cosigns_our_segments(segment: Segment, tmp_path: Path) -> None:
    with litewitness(tmp_path, segment.key) as (url, key):
        follow(segment, url, key)


def test_a_log_gets_its_quorum_from_witnesses_of_others(
    interop: Path, tmp_path: Path, start_server: Callable[..., Server]
) -> None:
    log = make_data(tmp_path / "data", "payments")["payments"]
    with their_witness(interop, log) as one, litewitness(tmp_path, log) as other:
        policy = panel([(key, url) for url, key in (one, other)], 2)
        (tmp_path / "witnesses").write_bytes(bytes(policy))
        server = start_server(options=["--witnesses", str(tmp_path / "witnesses")])
        segment = server.segment("payments", str(log))
        for number in range(6):
            body = b"%d" % number
            answer = requests.post(f"{segment.url}/entries?cosigned=true", json=number, timeout=PATIENCE)
            verify_receipt(parse_receipt(answer.content), key=trusting(policy, log), payload=body)


def follow(segment: Segment, url: str, key: VerifierKey) -> None:
    """Have a segment's checkpoints cosigned as it grows, with proofs that it serves; then as what was not signed."""
    old = 0
    for _ in range(4):
        segment.append(b'{"n":1}', JSON)
        segment.append(b"1\n2\n3\n", NDJSON)
        size = segment.checkpoint().size
        proof: list[bytes] = []
        if old:
            answer = segment.get(f"/proof/consistency/{old}/{size}").json()
            proof = [decode_base64(value) for value in answer["proof"]]
        note = segment.note()
        response = requests.post(f"{url}/add-checkpoint", submission(str(old), proof, note), timeout=PATIENCE)
        assert response.status_code == 200, response.content
        cosigned = parse_note(note + response.content)
        assert open_cosignature(cosigned, key).time > 0
        old = size
    stale = requests.post(f"{url}/add-checkpoint", submission("1", [], segment.note()), timeout=PATIENCE)
    assert (stale.status_code, stale.content) == (409, f"{old}\n".encode())
