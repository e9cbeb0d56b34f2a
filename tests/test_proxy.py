"""A log behind Debian's nginx, set up by `spec/nginx.conf` itself: what is kept, for whom, and what never is."""

import gzip
import socket
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from ssl import create_default_context
from urllib.request import urlopen

import pytest
import zstandard
from certificate import make_certificate
from live import JSON, NDJSON, PATIENCE, Answer, Server, free_port, start, tell
from proxying import WITHOUT_TLS, proxying

from tlog_client import Log

POLICY = """
[[rule]]
name = "writers"
roles = ["writer"]
groups = ["writers"]
segments = ["open", "shut"]

[[rule]]
name = "auditors"
roles = ["auditor"]
groups = ["auditors"]
segments = ["open", "shut"]

[[rule]]
name = "everyone"
roles = ["monitor"]
anyone = true
segments = ["open"]
"""
SIZE = 600
TILES = ("tile/0/000", "tile/0/002.p/88", "tile/1/000.p/2", "tile/entries/000", "tile/entries/002.p/88")


@dataclass(frozen=True)
class Front:
    """A guarded log, the proxy in front of it, and what its writer and its auditor show."""

    log: Server
    proxy: Server
    tokens: dict[str, str]
    keys: dict[str, str]

    def ask(self, path: str, who: str | None = None, method: str = "GET", **headers: str) -> Answer:
        shown = {} if who is None else {"Authorization": f"Bearer {self.tokens.get(who, who)}"}
        given = {name.replace("_", "-"): value for name, value in headers.items()}
        return self.proxy.request(method, f"/segments/{path}", None, {**shown, **given})

    def client(self, segment: str, who: str = "writer") -> Log:
        return Log(f"{self.proxy.url}/segments/{segment}", self.keys[segment], token=self.tokens[who])

    def posts(self) -> int:
        """Return how many requests to write the log has answered so far, as its own log says."""
        last = self.log.request("GET", "/healthz").headers["X-Request-Id"]
        self.log.logged_request(last)
        return sum(line.get("method") == "POST" for line in self.log.logged())


@contextmanager
def behind(log: Server, folder: Path, changes: Mapping[str, str] = {}) -> Iterator[Server]:
    """Run a proxy before a log, without TLS, and with other words for some of the file's."""
    port = free_port()
    with proxying(folder, port=port, log=log.port, changes={**WITHOUT_TLS, **changes}) as process:
        yield Server(process, port, folder, folder / "error.log")


@pytest.fixture(scope="module")
def front(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Front]:
    """A proxy in front of a log with a public and a private segment, which tests leave at no less than SIZE entries."""
    data = tmp_path_factory.mktemp("front") / "data"
    keys = {name: tell("segment", "create", name, "--data", data) for name in ("open", "shut")}
    policy = data.parent / "policy.toml"
    policy.write_text(POLICY)
    tell("policy", "apply", policy, "--data", data)
    tokens = {
        name: tell("token", "issue", name, "--group", f"{name}s", "--data", data) for name in ("writer", "auditor")
    }
    # Of one worker, which writes the lines of its log in the order of its answers.
    log = start(data, guarded=True, log_name=None, workers=1)
    with behind(log, data.parent / "nginx") as proxy:
        built = Front(log, proxy, tokens, keys)
        for segment in keys:
            with built.client(segment) as client:
                client.append_many([{"n": number} for number in range(SIZE)])
        yield built
    assert log.stop() == 0


def how(answer: Answer) -> str | None:
    return answer.headers["X-Cache-Status"]


def test_a_public_tile_is_fetched_from_the_log_once(front: Front) -> None:
    for tile in TILES:
        path = f"open/{tile}"
        answers = [front.ask(path) for _ in range(4)]
        assert [how(answer) for answer in answers] == ["MISS", "HIT", "HIT", "HIT"]
        first = answers[0]
        assert first.body == front.log.request("GET", f"/segments/{path}").body
        for answer in answers:
            assert (answer.status, answer.body, answer.headers["ETag"]) == (200, first.body, first.headers["ETag"])
        head = front.ask(path, method="HEAD")
        assert (head.status, head.body, how(head)) == (200, b"", "HIT")
        assert head.headers["Content-Length"] == str(len(first.body))
        # It would be the same in each.
        assert "X-Request-Id" not in first.headers


def test_the_cache_answers_conditions_and_ranges(front: Front) -> None:
    for tile in TILES:
        path = f"open/{tile}"
        whole = front.ask(path)
        tag = whole.headers["ETag"]
        again = front.ask(path, If_None_Match=tag)
        assert (again.status, again.body, again.headers["ETag"], how(again)) == (304, b"", tag, "HIT")
        assert front.ask(path, If_None_Match='"other"').body == whole.body
        for given in ({}, {"If_Range": tag}):
            part = front.ask(path, Range="bytes=32-63", **given)
            assert (part.status, part.body, how(part)) == (206, whole.body[32:64], "HIT")
        assert front.ask(path, Range="bytes=32-63", If_Range='"other"').body == whole.body


def test_a_range_of_what_is_not_in_the_cache_yet_does_not_become_the_whole(front: Front) -> None:
    part = front.ask("open/tile/0/001", Range="bytes=0-31")
    assert (part.status, len(part.body), how(part)) == (206, 32, "MISS")
    whole = front.ask("open/tile/0/001")
    assert (len(whole.body), how(whole)) == (8192, "HIT")
    assert whole.body.startswith(part.body)


def decode(answer: Answer) -> bytes:
    undo: dict[str | None, Callable[[bytes], bytes]] = {
        "gzip": gzip.decompress,
        "zstd": lambda body: zstandard.ZstdDecompressor().decompress(body),
        None: lambda body: body,
    }
    return undo[answer.headers["Content-Encoding"]](answer.body)


ENCODINGS = {
    "": (None, None),
    "identity": (None, None),
    "gzip": ("gzip", "gzip"),
    "gzip, deflate, br": ("gzip", "gzip"),
    "deflate, gzip, br, zstd": ("zstd", "gzip"),
    "zstd": ("zstd", None),
    "br;q=1.0,zstd": ("zstd", None),
    "gzip;q=0": (None, None),
    "zstd;q=0,gzip;q=0": (None, None),
    "xgzip, zstdx": (None, None),
}


@pytest.mark.parametrize("width", ["", ".p/7"])
def test_no_reader_gets_the_form_that_another_asked_for(front: Front, width: str) -> None:
    path = f"open/tile/entries/001{width}"
    expected = front.log.request("GET", f"/segments/{path}").body
    kinds = set()
    # Each after each other.
    for accepted in (*ENCODINGS, *reversed(ENCODINGS)):
        answer = front.ask(path, Accept_Encoding=accepted)
        assert answer.headers["Content-Encoding"] == ENCODINGS[accepted][bool(width)], accepted
        assert decode(answer) == expected
        assert "Accept-Encoding" in answer.headers["Vary"]
        kinds.add(how(answer))
    assert kinds == {"MISS", "HIT"}


BYPASS = "proxy_cache_bypass $http_authorization;"
KEEP_OUT = "proxy_no_cache $http_authorization;"


@pytest.mark.parametrize("changes", [{}, {BYPASS: "", KEEP_OUT: ""}], ids=["as it is", "by the log's word alone"])
def test_a_private_tile_is_never_kept(front: Front, tmp_path: Path, changes: Mapping[str, str]) -> None:
    with behind(front.log, tmp_path / "nginx", changes) as proxy:
        there = Front(front.log, proxy, front.tokens, front.keys)
        for tile in TILES:
            for _ in range(3):
                answer = there.ask(f"shut/{tile}", "auditor")
                assert (answer.status, how(answer) == "HIT") == (200, False)
            assert there.ask(f"shut/{tile}").status == 401
            assert there.ask(f"shut/{tile}", "nobody").status == 401
            # Who writes reads no tiles.
            assert there.ask(f"shut/{tile}", "writer").status == 404
        assert not [path for path in (tmp_path / "nginx/cache").rglob("*") if path.is_file()]
        # A public one is for all, whoever asked first, if the proxy leaves it to the log.
        asked = [there.ask("open/tile/0/000", "auditor"), there.ask("open/tile/0/000")]
        assert [answer.status for answer in asked] == [200, 200]
        assert how(asked[1]) == ("HIT" if changes else "MISS")


def test_what_changes_or_is_secret_never_comes_from_the_cache(front: Front) -> None:
    with front.client("open") as client:
        for _ in range(5):
            receipt = client.append({"late": True})
            note = front.ask("open/checkpoint")
            assert (note.status, how(note)) == (200, None)
            assert int(note.body.split(b"\n")[1]) == receipt.index + 1
            front.log.logged_request(note.headers["X-Request-Id"])
    tag = note.headers["ETag"]
    assert front.ask("open/checkpoint", If_None_Match=tag).status == 304
    for path in ("open/entries/0", "open/entries"):
        answer = front.ask(path, "auditor")
        assert (answer.status, how(answer)) == (200, None)
        assert front.ask(path).status == 401


def test_receipts_that_come_through_a_proxy_are_verified_like_any(front: Front) -> None:
    with front.client("shut") as client:
        receipts = [client.append({"one": 1}), *client.append_many([{"n": number} for number in range(1_000)])]
        large = client.append("x" * 1_000_000)
        assert [one.index for one in (*receipts, large)] == list(range(receipts[0].index, receipts[0].index + 1_002))
    with front.client("shut", "auditor") as reader:
        assert reader.prove(receipts[500].index).entry == receipts[500].entry


def test_a_page_of_the_proxy_s_own_host_is_no_other_site(front: Front) -> None:
    headers = {"Authorization": f"Bearer {front.tokens['writer']}", "Content-Type": JSON}
    for origin, status in ((front.proxy.url, 201), (front.log.url, 403)):
        answer = front.proxy.request("POST", "/segments/open/entries", b"1", {**headers, "Origin": origin})
        assert answer.status == status


def test_a_body_that_stops_coming_is_cut_off_before_the_log_hears_of_it(front: Front, tmp_path: Path) -> None:
    head = f"POST /segments/open/entries HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {front.tokens['writer']}\r\n"
    before = front.posts()
    with (
        behind(front.log, tmp_path / "nginx", {"client_body_timeout 10s;": "client_body_timeout 1s;"}) as proxy,
        socket.create_connection(("127.0.0.1", proxy.port), PATIENCE) as slow,
    ):
        slow.sendall(f"{head}Content-Type: {NDJSON}\r\nContent-Length: 9\r\n\r\n1".encode())
        assert slow.recv(1_000) == b""
    answer = front.proxy.request("POST", "/segments/open/entries", b"1" * (20 << 20 | 1), {"Content-Type": NDJSON})
    assert (answer.status, front.posts()) == (413, before)


def test_what_was_kept_is_served_while_the_log_is_down(tmp_path: Path, start_server: Callable[..., Server]) -> None:
    log = start_server()
    segment = log.create("payments")
    segment.append(b"1\n" * 300, NDJSON)
    with behind(log, tmp_path / "nginx") as proxy:
        path = "/segments/payments/tile"
        kept = [proxy.request("GET", f"{path}/{place}") for place in ("0/000", "entries/001.p/44")]
        log.kill()
        again = [proxy.request("GET", f"{path}/{place}") for place in ("0/000", "entries/001.p/44")]
        assert [answer.status for answer in again] == [200, 200]
        assert [answer.body for answer in again] == [answer.body for answer in kept]
        assert proxy.request("GET", f"{path}/0/001.p/44").status == 502
        assert proxy.request("GET", "/segments/payments/checkpoint").status == 502


def test_the_file_speaks_tls_as_it_stands(front: Front, tmp_path: Path) -> None:
    certificate, key = tmp_path / "certificate", tmp_path / "key"
    make_certificate(certificate, key)
    port = free_port()
    changes = {
        "/etc/ssl/certs/log.example.com.pem": str(certificate),
        "/etc/ssl/private/log.example.com.key": str(key),
    }
    with proxying(tmp_path / "nginx", port=port, log=front.log.port, changes=changes):
        trusting = create_default_context(cafile=certificate)
        with urlopen(f"https://localhost:{port}/segments/open/checkpoint", timeout=PATIENCE, context=trusting) as note:
            assert note.read() == front.ask("open/checkpoint").body
