"""Hostile requests to the server, a witness and a monitor: each is answered soon, and all are as well afterwards."""

import json
import random
import subprocess
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial

import pytest
from hostile import CORPUS, LONG, MOST_GROWTH, Reply, ask, fill, get, post, replies, sized, talk, throw
from live import NDJSON, TLOG, Segment, Server, start
from witnessing import make_log, start_witness

from tlog_client.monitor.app import TEXT, Answer
from tlog_client.monitor.exposition import listening

LOG = make_log("example.com/hostile", 3)


@dataclass(frozen=True)
class Target:
    """A server of any kind, and its two paths."""

    port: int
    get: bytes
    post: bytes

    def send(self, request: bytes, answers: int = 1) -> list[Reply]:
        return replies(talk(self.port, fill(request, self.get, self.post), answers=answers))


@pytest.fixture(scope="module")
def victim(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Segment]:
    """A segment of 300 entries on a server of two workers, which is as well at the end as at the beginning."""
    server = start(tmp_path_factory.mktemp("hostile") / "data")
    segment = server.create("victim")
    segment.append(b"1\n" * 300, NDJSON)
    before = server.memory()
    yield segment
    check_well(server, segment)
    assert server.memory() - before < MOST_GROWTH
    assert server.stop() == 0
    # Each line is JSON: nothing that was sent has broken into the log.
    faults = [line for line in server.logged() if line.get("status", 0) >= 500 or line["level"] == "error"]
    assert faults == []
    done = subprocess.run([TLOG, "fsck", "--data", server.data], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def check_well(server: Server, segment: Segment) -> None:
    """Check that an append and its proof succeed, on connections that either worker may have."""
    for _ in range(4):
        segment.append(b'"well"', "text/plain")
        size = segment.checkpoint().size
        proof = segment.get(f"/proof/inclusion/{size}/{size - 1}")
        assert (proof.status_code, proof.json()["size"]) == (200, size)
    assert len(server.workers()) == 2


def target(segment: Segment) -> Target:
    place = f"/segments/{segment.name}"
    return Target(int(segment.url.split("/")[2].rpartition(":")[2]), place.encode(), f"{place}/entries".encode())


def check_problem(reply: Reply) -> None:
    """Check that an answer is a problem, unless the server of HTTP gave it before tlog saw anything."""
    if "x-request-id" in reply.headers:
        assert reply.headers["content-type"] == "application/problem+json"
        assert json.loads(reply.body)["status"] == reply.status
    else:
        assert (reply.status in (400, 414, 431), reply.body) == (True, b"")


@pytest.mark.parametrize("request_", CORPUS.values(), ids=CORPUS.keys())
def test_what_is_no_request_is_refused_and_logs_nothing(victim: Segment, request_: bytes) -> None:
    before = victim.note()
    given = target(victim).send(request_)
    assert len(given) <= 1
    for one in given:
        assert 400 <= one.status < 500
        check_problem(one)
    assert victim.note() == before


CLOSE = b"Connection: close"
RANGES = b"Range: bytes=" + b",".join(b"%d-%d" % (n, n) for n in range(2000))
READ, TILE = b"GET/checkpoint", b"GET/tile/entries/000"
KEYS: Mapping[str, tuple[bytes, list[int]]] = {
    f"the key {name}": (post(b"1", b"Content-Length: 1", b"Idempotency-Key: " + key, CLOSE), [status])
    for name, key, status in [
        ("of no bytes", b"", 400),
        ("with a space", b"a b", 400),
        ("with a tab", b"a\tb", 400),
        ("of Latin-1", b"\xff", 400),
        ("of UTF-8", "ü".encode(), 400),
        ("of 256 bytes", b"k" * 256, 400),
        ("of 70 KB", LONG, 400),
        ("of 255 bytes", b"k" * 255, 201),
        ("that is SQL", b"'--;drop", 201),
        ("that is a path", b"../../%00", 201),
    ]
}
PATHS: Mapping[str, tuple[bytes, list[int]]] = {
    f"the path {path[:24].decode('latin-1')}": (get(path, CLOSE), [404])
    for path in [
        b"//healthz", b"/%2fhealthz", b"/./healthz", b"/%2e/healthz", b"/healthz/.", b"/healthz%00", b"/healthz;x=1",
        b"/segments/x/../../healthz", b"/segments/%2e%2e/healthz", b"/segments/..%2fvictim", b"/segments/victim%2f",
        b"/segments/%zz", b"/segments/%", b"/segments/%ff%fe", b"/segments/a%0d%0aX:%20y",
        b"/segments/" + b"a" * 60_000,
        b"/segments/victim/tile/0/%3000%00", b"/segments/victim/tile/..%2f..%2fcontrol.db", b"healthz", b"*",
        b"http://x//healthz", "/segments/é".encode(),
    ]
}  # fmt: skip
ODD: Mapping[str, tuple[bytes, list[int]]] = {
    **KEYS,
    **PATHS,
    "five at once": (get() * 4 + get(b"GET", CLOSE), [200] * 5),
    "appends at once": (sized(b"1") * 2 + post(b"1", b"Content-Length: 1", CLOSE), [201] * 3),
    "one behind a body that is refused": (
        ask(b"POST POST HTTP/1.1", b"Host: localhost", b"Content-Length: 3", body=b"GET") + get(b"/readyz", CLOSE),
        [415, 200],
    ),
    "an announced body": (post(b"1", b"Content-Length: 1", b"Expect: 100-continue", CLOSE), [201]),
    "another expectation": (post(b"1", b"Content-Length: 1", b"Expect: 200-ok", CLOSE), [201]),
    "an announced body that is too large": (post(b"", b"Content-Length: 20000000", b"Expect: 100-continue"), [413]),
    "to another host": (get(b"http://evil.example/healthz", CLOSE), [200]),
    "two hosts": (get(b"GET", b"Host: y", CLOSE), [403]),
    "a host that is none": (ask(b"PUT GET HTTP/1.1", b"Host: a b@[::1:9/\\", b"Content-Length: 0", CLOSE), [403]),
    "a host and an origin of Latin-1": (
        ask(b"PUT GET HTTP/1.1", b"Host: \xff", b"Origin: http://[::1", b"Content-Length: 0", CLOSE),
        [403],
    ),
    "an upgrade": (get(b"/healthz", b"Upgrade: h2c, websocket", b"HTTP2-Settings: AAMAAABkAAQAAP__", CLOSE), [200]),
    "CONNECT": (ask(b"CONNECT evil.example:443 HTTP/1.1", b"Host: localhost", CLOSE), [404]),
    "TRACE": (ask(b"TRACE GET HTTP/1.1", b"Host: localhost", CLOSE), [405]),
    "OPTIONS of everything": (ask(b"OPTIONS * HTTP/1.1", b"Host: localhost", CLOSE), [404]),
    "a method of 5,000 letters": (ask(b"A" * 5000 + b" GET HTTP/1.1", b"Host: localhost", CLOSE), [405]),
    "a body where none is due": (
        ask(b"GET GET HTTP/1.1", b"Host: localhost", b"Content-Length: 1", CLOSE, body=b"1"),
        [400],
    ),
    "a range": (get(READ, b"Range: bytes=0-3", CLOSE), [200]),
    "2,000 ranges": (get(READ, RANGES, CLOSE), [200]),
    "a range if": (get(READ, b"Range: bytes=0-3", b'If-Range: "x"', CLOSE), [200]),
    "if it is another": (get(READ, b'If-Match: "x"', CLOSE), [412]),
    "if there is none": (get(READ, b"If-None-Match: *", CLOSE), [304]),
    "if it is none of 9,000": (get(READ, b"If-None-Match: " + b'"a",' * 9_000, CLOSE), [200]),
    "if it is newer than a year that is none": (get(READ, b"If-Modified-Since: 9 Nov 99999", CLOSE), [200]),
    "encodings without sense": (get(TILE, b"Accept-Encoding: zstd;q=nan," + LONG, CLOSE), [200]),
    "a query of 8,000": (get(b"/segments?" + b"&".join(b"a%d=1" % n for n in range(8000)), CLOSE), [400]),
    "a query that is no text": (get(b"/segments?%ff=%fe&&=", CLOSE), [400]),
    "forwarded for somebody": (get(b"GET", b"X-Forwarded-For: 8.8.8.8", b"Forwarded: for=8.8.8.8", CLOSE), [200]),
    "a credential of Latin-1": (get(b"GET", b"Authorization: Bearer \xff\xfe", CLOSE), [200]),
    "a credential of 70 KB": (get(b"GET", b"Authorization: Bearer tlog_" + LONG, CLOSE), [200]),
}


@pytest.mark.parametrize(("request_", "expected"), ODD.values(), ids=ODD.keys())
def test_what_is_odd_has_an_answer_of_its_own(victim: Segment, request_: bytes, expected: list[int]) -> None:
    aim = target(victim)
    given = aim.send(request_, len(expected))
    assert [one.status for one in given] == expected
    for one in given:
        if one.status >= 400:
            check_problem(one)


def test_what_is_made_up_as_a_method_does_not_fill_the_log(server: Server) -> None:
    answer = server.request("A" * 5_000, "/healthz")
    assert server.logged_request(answer.json()["request_id"])["method"] == "A" * 16


def storm(aim: Target, chance: random.Random) -> list[str]:
    return [wrong for _ in range(20) if (wrong := throw(aim.port, aim.get, aim.post, chance))]


def test_whatever_bytes_come_from_twenty_at_once_the_server_answers_and_keeps_its_memory(victim: Segment) -> None:
    aim = target(victim)
    chances = [random.Random(seed) for seed in range(20)]  # noqa: S311 - to be repeated
    with ThreadPoolExecutor(20) as pool:
        assert [*pool.map(partial(storm, aim), chances)] == [[]] * 20


@pytest.fixture(scope="module")
def others(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mapping[str, tuple[Target, Callable[[], bool]]]]:
    """A witness and a monitor that listens, each with how to see that it is well; neither logs a fault of its own."""
    heard: list[bytes] = []

    def hear(raw: bytes) -> Answer:
        heard.append(raw)
        return Answer(200, TEXT, b"ok\n")

    urls: list[str] = []
    folder = tmp_path_factory.mktemp("others")
    witness = start_witness(folder / "witness", LOG.key)
    routes = {("GET", "/healthz"): hear, ("POST", "/gossip/v1/exchange"): hear}
    with ExitStack() as stack:
        stack.callback(witness.server.kill)
        stack.enter_context(listening("127.0.0.1", 0, routes, ready=urls.append))
        monitor = Target(int(urls[0].rpartition(":")[2]), b"/healthz", b"/gossip/v1/exchange")
        origin = LOG.path.encode()
        yield {
            "witness": (
                Target(witness.server.port, origin, b"/add-checkpoint"),
                lambda: witness.add(LOG.body(witness.size(LOG), 3)).status == 200,
            ),
            "monitor": (monitor, lambda: [one.status for one in monitor.send(get())] == [200]),
        }
        assert [line for line in witness.server.logged() if line["level"] == "error"] == []


@pytest.mark.parametrize("request_", CORPUS.values(), ids=CORPUS.keys())
@pytest.mark.parametrize("who", ["witness", "monitor"])
def test_a_witness_and_a_monitor_answer_such_too(
    others: Mapping[str, tuple[Target, Callable[[], bool]]], who: str, request_: bytes
) -> None:
    aim, well = others[who]
    for one in aim.send(request_):
        # RFC 9112 6.1: an unknown coding is answered with 501.
        assert one.status < 500 or (who, one.status) == ("monitor", 501)
    assert well()
