"""Logs with witnesses to ask: real ones in processes of their own, and one in a thread that may lie or only listen."""

import sqlite3
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from live import LOG_NAME, PATIENCE, tell
from witnessing import witness_signer

from tlog.errors import NotFoundError, StaleError
from tlog.store.witness import WitnessStore, make_database
from tlog.witness.cosigner import Witness
from tlog.witness.submission import parse_submission
from tlog_core.checkpoint import parse_checkpoint
from tlog_core.errors import InconsistencyError, ProofError
from tlog_core.note import SignerKey, VerifierKey, parse_verifier
from tlog_core.policy import Group, TrustedLog, TrustedWitness, TrustPolicy, parse_policy

Reply = tuple[int, dict[str, str], bytes]
"""Status, headers and body."""

SIZE_TYPE = {"Content-Type": "text/x.tlog.size"}


def make_data(data: Path, *names: str, signed: Sequence[str] = ()) -> dict[str, VerifierKey]:
    """Make a folder with segments, and return the keys of all, the reserved ones among them."""
    for name in (*names, *signed):
        more = ["--signed"] if name in signed else []
        tell("segment", "create", name, "--data", data, "--log-name", LOG_NAME, *more)
    with closing(sqlite3.connect(data / "control.db")) as control:
        return {name: parse_verifier(vkey) for name, vkey in control.execute("select name, vkey from segment")}


def panel(witnesses: Sequence[tuple[VerifierKey, str]], threshold: int, *logs: VerifierKey) -> TrustPolicy:
    """Return the policy of so many of these witnesses, each with its key and where it is."""
    members = tuple(f"w{number}" for number in range(len(witnesses)))
    return TrustPolicy(
        logs=tuple(map(TrustedLog, logs)),
        witnesses=tuple(TrustedWitness(name, key, url) for name, (key, url) in zip(members, witnesses, strict=True)),
        groups=(Group("enough", threshold, members),),
        quorum="enough",
    )


def trusting(policy: TrustPolicy, *logs: VerifierKey) -> TrustPolicy:
    """Return the policy of one who believes these logs under the same quorum, as he reads it from a file."""
    whole = TrustPolicy(tuple(map(TrustedLog, logs)), policy.witnesses, policy.groups, policy.quorum)
    return parse_policy(bytes(whole))


@dataclass
class Heard:
    """A witness in a thread: `reply` makes its answers from the bodies of submissions, which are kept."""

    reply: Callable[[bytes], Reply]
    signer: SignerKey
    url: str = ""
    bodies: list[bytes] = field(default_factory=list)
    paths: list[str] = field(default_factory=list)
    cosigned: list[bytes] = field(default_factory=list)

    @property
    def key(self) -> VerifierKey:
        return self.signer.verifier

    def heads(self) -> list[tuple[str, int]]:
        """Return origin and size of each submission that was cosigned."""
        heads = [parse_checkpoint(parse_submission(body).note.text) for body in list(self.cosigned)]
        return [(head.origin, head.size) for head in heads]


@contextmanager
def hearing(reply: Callable[[bytes], Reply], seed: int = 2) -> Iterator[Heard]:
    """Run a witness that replies like this; raw bytes go out as they are, whatever their headers say."""
    heard = Heard(reply, witness_signer(seed, f"witness.example/h{seed}"))

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            heard.bodies.append(b"GET")

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            heard.bodies.append(body)
            heard.paths.append(self.path)
            status, headers, answer = heard.reply(body)
            if status == 200:
                heard.cosigned.append(body)
            self.send_response(status)
            for name, value in {"Content-Length": str(len(answer)), **headers}.items():
                self.send_header(name, value)
            self.end_headers()
            # Some drip their answers: each byte comes by itself.
            for part in [answer[at : at + 1] for at in range(len(answer))] if "X-Drip" in headers else [answer]:
                self.wfile.write(part)
                self.wfile.flush()
                if "X-Drip" in headers:
                    time.sleep(0.02)

        def log_message(self, *_: object) -> None:
            pass

    class Quiet(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, request: object, client_address: object) -> None:
            """Who asked has gone, as it may."""

    server = Quiet(("127.0.0.1", 0), Handler)
    heard.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield heard
    finally:
        server.shutdown()
        server.server_close()
        thread.join(PATIENCE)


def honestly(folder: Path, signer: SignerKey, keys: Sequence[VerifierKey]) -> Callable[[bytes], Reply]:
    """Return the replies of an honest witness of these logs, with a time that is always a second later."""
    path = folder / f"{signer.verifier.id.hex()}.db"
    make_database(path, str(signer.verifier))
    times = iter(range(1_764_000_000, 1 << 40))
    witness = Witness(signer, None, {key.name: key for key in keys}, WitnessStore(path), lambda: next(times))

    def reply(body: bytes) -> Reply:
        try:
            return 200, {}, "".join(map(str, witness.add_checkpoint(parse_submission(body)))).encode()
        except StaleError as error:
            return 409, SIZE_TYPE, f"{error.size}\n".encode()
        except NotFoundError:
            return 404, {}, b""
        except (ProofError, InconsistencyError):
            return 422, {}, b""

    return reply
