"""With software that is not ours (tests/interop): its clients read our segments, and our client follows its logs.

Needs Go, and what `tests/interop/go.sum` names, which Go fetches if it has not got it.
"""

import os
import subprocess
import threading
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import requests
from live import NDJSON, PATIENCE, TLOG, Server, tell
from others import needs_go
from simulator import running

from tlog_client import InconsistencyError, Log, MalformedError, SignatureError
from tlog_core.note import SignerKey, signer_from_seed

pytestmark = needs_go

SAMPLE = (Path(__file__).parent.parent / "samples" / "kubernetes.jsonl").read_bytes().splitlines()
POLICY = """
[[rule]]
name = "tills"
roles = ["writer"]
principals = ["till"]
segments = ["*"]

[[rule]]
name = "who watches"
roles = ["monitor"]
principals = ["monitor"]
segments = ["*"]
"""


@dataclass
class Ours:
    """A guarded segment of ours, whose events a till writes and which a monitor reads."""

    url: str
    vkey: str
    till: str
    monitor: str

    def append(self, number: int) -> None:
        """Log so many Kubernetes audit events, each with an ID of its own."""
        lines = [
            SAMPLE[place % len(SAMPLE)].replace(b"{", b'{"uid":"%s",' % str(uuid.uuid4()).encode(), 1)
            for place in range(number)
        ]
        headers = {"Content-Type": NDJSON, "Authorization": f"Bearer {self.till}"}
        answer = requests.post(f"{self.url}/entries", b"\n".join(lines), headers=headers, timeout=PATIENCE)
        assert answer.status_code == 201, answer.content


@pytest.fixture
def ours(start_server: Callable[..., Server], tmp_path: Path) -> Ours:
    data, policy = tmp_path / "data", tmp_path / "policy.toml"
    vkey = tell("segment", "create", "kubernetes", "--data", data, "--log-name", "example.com/audit")
    policy.write_text(POLICY)
    tell("policy", "apply", policy, "--data", data)
    till, monitor = (tell("token", "issue", name, "--data", data) for name in ("till", "monitor"))
    server = start_server(data, guarded=True, log_name=None)
    return Ours(f"{server.url}/segments/kubernetes", vkey, till, monitor)


def read(
    program: Path, url: str, ours: Ours, state: Path, token: str | None = None
) -> subprocess.CompletedProcess[str]:
    """Have the clients of others read all of our segment, as its monitor, and compare with what they read before."""
    return subprocess.run(
        [program, "read", url, ours.vkey, state],
        env={**os.environ, "TLOG_TOKEN": ours.monitor if token is None else token},
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE,
    )


def test_clients_of_others_read_and_verify_our_segments_as_they_grow(interop: Path, ours: Ours, tmp_path: Path) -> None:
    known = size = 0
    # One entry, a full tile to the entry, one beyond it, two full tiles, and partial ones of both levels.
    for growth in (1, 255, 1, 255, 1, 300, 211):
        ours.append(growth)
        size += growth
        run = read(interop, ours.url, ours, tmp_path / "read")
        assert run.returncode == 0, run.stderr
        assert run.stdout == f"{size} entries, of which {known} were known\n"
        known = size


def test_clients_of_others_read_nothing_without_the_credential_of_a_monitor(
    interop: Path, ours: Ours, tmp_path: Path
) -> None:
    ours.append(300)
    for token, status in (("", "401"), (ours.till, "not exist")):
        run = read(interop, ours.url, ours, tmp_path / "read", token)
        assert (run.returncode, run.stdout) == (1, "")
        assert status in run.stderr


Lies = dict[str, Callable[[bytes], bytes]]


@contextmanager
def lying(honest: str, lies: Lies) -> Iterator[str]:
    """Serve what is at `honest`, but for the paths below it that are in `lies`."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            shown = {"Authorization": self.headers["Authorization"], "Accept-Encoding": "identity"}
            answer = requests.get(f"{honest}{self.path}", headers=shown, timeout=PATIENCE)
            body = lies.get(self.path, bytes)(answer.content)
            self.send_response(answer.status_code)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.005,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()
            thread.join()


def flip(place: int) -> Callable[[bytes], bytes]:
    return lambda body: body[:place] + bytes([body[place] ^ 1]) + body[place + 1 :]


@pytest.mark.parametrize(
    "path",
    [
        "/tile/entries/000",
        "/tile/entries/002.p/88",
        "/tile/0/001",
        "/tile/0/002.p/88",
        "/tile/1/000.p/2",
    ],
)
def test_one_bit_of_an_entry_or_a_tile_is_noticed_by_clients_of_others(
    interop: Path, ours: Ours, tmp_path: Path, path: str
) -> None:
    ours.append(600)
    with lying(ours.url, {}) as url:
        assert read(interop, url, ours, tmp_path / "honest").returncode == 0
    with lying(ours.url, {path: flip(13)}) as url:
        run = read(interop, url, ours, tmp_path / "read")
    assert (run.returncode, run.stdout) == (1, "")
    assert ["torchwood" in run.stderr, "tessera" in run.stderr] == [True, True], run.stderr
    assert not (tmp_path / "read").exists()


def test_a_log_that_forgets_is_noticed_by_clients_of_others(interop: Path, ours: Ours, tmp_path: Path) -> None:
    ours.append(300)
    assert read(interop, ours.url, ours, tmp_path / "read").returncode == 0
    older = requests.get(
        f"{ours.url}/checkpoint", headers={"Authorization": f"Bearer {ours.monitor}"}, timeout=PATIENCE
    )
    ours.append(1)
    assert read(interop, ours.url, ours, tmp_path / "read").returncode == 0
    with lying(ours.url, {"/checkpoint": lambda _: older.content}) as url:
        run = read(interop, url, ours, tmp_path / "read")
    assert (run.returncode, run.stdout) == (1, "")
    assert ["torchwood" in run.stderr, "tessera" in run.stderr] == [True, True], run.stderr


def test_a_log_with_two_histories_is_noticed_by_clients_of_others(interop: Path, tmp_path: Path) -> None:
    with running() as liar:
        ours = Ours(liar.url, str(liar.key), "", "")
        liar.grow(300)
        assert read(interop, liar.url, ours, tmp_path / "read").returncode == 0
        liar.fork(7)
        for growth in (0, 1, 300):
            liar.grow(growth)
            run = read(interop, liar.url, ours, tmp_path / "read")
            assert (run.returncode, run.stdout) == (1, "")
            assert ["torchwood" in run.stderr, "tessera" in run.stderr] == [True, True], run.stderr


# Their logs


@dataclass
class Theirs:
    """A log of Tessera that serves its files; `fork` begins another history under the same key."""

    program: Path
    signer: SignerKey
    folder: Path
    url: str = ""
    running: list[subprocess.Popen[str]] = field(default_factory=list)

    def start(self, text: str) -> None:
        folder = self.folder / text
        folder.mkdir()
        command = [str(self.program), "tiles", self.signer.format(), str(folder), text]
        self.running.append(subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True))
        self.url = self._answer()

    def tell(self, command: str) -> str:
        stdin = self.running[-1].stdin
        assert stdin is not None
        stdin.write(f"{command}\n")
        stdin.flush()
        return self._answer()

    def grow(self, size: int) -> None:
        assert self.tell(str(size)) == f"size {size}"

    def _answer(self) -> str:
        stdout = self.running[-1].stdout
        assert stdout is not None
        return stdout.readline().strip()


@pytest.fixture
def theirs(interop: Path, tmp_path: Path) -> Iterator[Theirs]:
    log = Theirs(interop, signer_from_seed("go.example/tessera", b"\x09" * 32), tmp_path / "tessera")
    log.folder.mkdir()
    log.start("first")
    yield log
    for process in log.running:
        process.kill()
        process.communicate()


def open_log(theirs: Theirs, state: Path) -> Log:
    return Log(theirs.url, theirs.signer.verifier, state=state)


def watch(theirs: Theirs, state: Path) -> str:
    command = [str(TLOG.parent / "tlog-client"), "watch", "--once", "--url", theirs.url, "--state", str(state)]
    command += ["--key", str(theirs.signer.verifier)]
    run = subprocess.run(command, capture_output=True, text=True, check=False, timeout=PATIENCE)
    assert run.returncode == 0, run.stderr
    return run.stdout


def test_our_client_follows_a_log_of_others_as_it_grows(theirs: Theirs, tmp_path: Path) -> None:
    notes = []
    for size in (1, 3, 256, 300, 512, 520, 1_100):
        theirs.grow(size)
        with open_log(theirs, tmp_path / "state") as log:
            seen = log.signed_checkpoint()
            assert seen.checkpoint.size == size
            assert watch(theirs, tmp_path / "watched").startswith(f"go.example/tessera {size} ")
            assert list(log.logged()) == [b"first %d" % index for index in range(size)]
            notes.append(seen.note)
            for older in notes:
                assert log.consistency(older).size == size


def test_a_log_of_others_that_forks_is_caught_by_our_client(theirs: Theirs, tmp_path: Path) -> None:
    theirs.grow(300)
    with open_log(theirs, tmp_path / "state") as log:
        older = log.signed_checkpoint()
    theirs.start("second")
    for size in (300, 700):
        theirs.grow(size)
        with open_log(theirs, tmp_path / "state") as log:
            with pytest.raises(InconsistencyError, match="two histories") as caught:
                log.checkpoint()
            assert caught.value.older == older.note
            assert log.verified() == older


def test_a_log_of_others_is_refused_under_another_key_and_with_extension_lines(theirs: Theirs, tmp_path: Path) -> None:
    theirs.grow(3)
    stranger = signer_from_seed(theirs.signer.name, b"\x0a" * 32).verifier
    with Log(theirs.url, stranger, state=tmp_path / "stranger") as log, pytest.raises(SignatureError):
        log.checkpoint()
    with open_log(theirs, tmp_path / "state") as log:
        known = log.signed_checkpoint()
        assert theirs.tell("extend") == "extended"
        with pytest.raises(MalformedError, match="checkpoint"):
            log.checkpoint()
        assert log.verified() == known
