"""The exchange over real HTTP: monitors that answer, and peers that are slow, silent, or lead elsewhere."""

import hashlib
import random
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from time import monotonic

import pytest
import requests
from dripping import DRIPS, Talk, raw_server, silent
from gossiping import Clock, History, Watcher, log_key, monitor_keys, policy_of
from live import free_port, until
from simulator import Simulator, running

from tlog_client.monitor.app import TEXT, Answer, Handler
from tlog_client.monitor.exchange import PATH, answer_exchange, exchange_route, run, send_exchange
from tlog_client.monitor.exposition import listening
from tlog_client.monitor.gossip import Gossip, Outcome, Report
from tlog_core.bulletin import open_bulletin
from tlog_core.errors import FetchError
from tlog_core.gossip import MAX_MESSAGE_BYTES, Peer
from tlog_core.note import parse_verifier

LOG = log_key()
ONE = History(LOG, "one", 20)
OTHER = History(LOG, "other", 20)
KEYS = monitor_keys(2)
CLIENT = Path(sys.executable).parent / "tlog-client"


@contextmanager
def serving(path: str, handle: Handler) -> Iterator[str]:
    """Answer POST requests to a path as a monitor that listens does, and yield the URL."""
    urls: list[str] = []
    with listening("127.0.0.1", 0, {("POST", path): handle}, ready=urls.append):
        yield urls[0]


def dialling(urls: list[str], place: int, watcher: Watcher) -> Gossip:
    peers = [Peer(key.verifier, url) for key, url in zip(KEYS, urls, strict=True)]
    seeded = random.Random(place)  # noqa: S311 - to be repeated
    return Gossip(KEYS[place], peers, watcher.judge, clock=Clock(), random=seeded, send=send_exchange)


def peer_at(url: str) -> Peer:
    return Peer(KEYS[1].verifier, url)


def test_two_monitors_that_were_shown_two_histories_find_out_over_http() -> None:
    watchers = [Watcher(policy_of(LOG), Clock()), Watcher(policy_of(LOG), Clock())]
    watchers[0].follow(ONE, 9)
    watchers[1].follow(OTHER, 7)
    there = dialling(["", ""], 1, watchers[1])
    handler = exchange_route(there)["POST", PATH]
    with serving(f"/monitor{PATH}", handler) as url:
        # One that cannot be called itself, behind a prefix that the other has.
        here = dialling(["", f"{url}/monitor"], 0, watchers[0])
        reports = [*here.round(), *here.round()]
    assert [report.outcome for report in reports] == [Outcome.HEARD] * 2
    assert watchers[0].evidence()
    assert watchers[1].evidence()


def test_a_refusal_says_why() -> None:
    watcher = Watcher(policy_of(LOG), Clock())
    there = dialling(["", ""], 1, watcher)
    with (
        serving(PATH, partial(answer_exchange, there)) as url,
        pytest.raises(FetchError, match="status 400: a note is text"),
    ):
        send_exchange(peer_at(url), b"garbage")


def test_a_request_that_is_too_large_is_refused() -> None:
    there = dialling(["", ""], 1, Watcher(policy_of(LOG), Clock()))
    with (
        serving(PATH, partial(answer_exchange, there)) as url,
        pytest.raises(FetchError, match="status 413"),
    ):
        send_exchange(peer_at(url), bytes(MAX_MESSAGE_BYTES + 1))


def test_nobody_there_is_a_report() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        url = f"http://127.0.0.1:{taken.getsockname()[1]}"
    [report] = dialling(["", url], 0, Watcher(policy_of(LOG), Clock())).round()
    assert report.outcome is Outcome.UNREACHABLE
    assert "refused" in report.reason


@pytest.mark.parametrize("url", ["http://127.0.0.1:99999", "http://[::1", "https://\x7f"])
def test_a_url_that_leads_nowhere_is_no_answer(url: str) -> None:
    with pytest.raises(FetchError):
        send_exchange(peer_at(url), b"x")


def test_redirects_are_not_followed() -> None:
    requests: list[bytes] = []

    def handle(raw: bytes) -> Answer:
        requests.append(raw)
        return Answer(307, TEXT, b"", {"Location": PATH})

    with serving(PATH, handle) as url, pytest.raises(FetchError, match="status 307"):
        send_exchange(peer_at(url), b"x")
    assert requests == [b"x"]


def test_no_more_of_an_answer_is_read_than_shows_that_it_is_too_long() -> None:
    with serving(PATH, lambda _: Answer(200, TEXT, bytes(10 * MAX_MESSAGE_BYTES))) as url:
        assert len(send_exchange(peer_at(url), b"x")) == MAX_MESSAGE_BYTES + 1


@pytest.mark.parametrize("talk", [*DRIPS, silent])
def test_a_peer_that_spins_out_its_answer_is_cut_off(talk: Talk) -> None:
    outcome: list[str] = []

    def dial(url: str) -> None:
        try:
            send_exchange(peer_at(url), b"x", seconds=0.5)
        except FetchError as error:
            outcome.append(str(error))

    with raw_server(talk) as url:
        thread = threading.Thread(target=dial, args=(url,), daemon=True)
        thread.start()
        # Without the cut, the drops would keep it there until the test is over.
        thread.join(20)
        assert not thread.is_alive()
    assert len(outcome) == 1


class Looked(threading.Event):
    """News that come when it was looked for them once, and not before."""

    def is_set(self) -> bool:
        there = super().is_set()
        self.set()
        return there


def test_rounds_are_made_until_told_to_stop_and_news_brings_one_forward() -> None:
    watchers = [Watcher(policy_of(LOG), Clock()), Watcher(policy_of(LOG), Clock())]
    there = dialling(["", ""], 1, watchers[1])
    stop, reports = threading.Event(), list[Report]()
    with serving(PATH, partial(answer_exchange, there)) as url:
        here = dialling(["", url], 0, watchers[0])
        here.news = Looked()
        # The regular round would be most of a minute away.
        late = random.Random()  # noqa: S311
        late.random = lambda: 0.9  # type: ignore[method-assign]
        options = {"random": late, "stop": stop, "report": reports.append}
        thread = threading.Thread(target=run, args=(here,), kwargs=options)
        start = monotonic()
        thread.start()
        try:
            until(lambda: bool(reports), "a round")
            assert monotonic() - start < 0.9 * 60
        finally:
            stop.set()
            thread.join(20)
        assert not thread.is_alive()
    assert reports[0].outcome is Outcome.HEARD


def client(*arguments: object, stdin: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run([CLIENT, *map(str, arguments)], capture_output=True, text=True, input=stdin)


def test_two_monitors_to_whom_a_log_shows_two_histories_convict_it_between_them(tmp_path: Path) -> None:
    port = free_port()
    vkeys = {name: client("keygen", name, "-o", tmp_path / name).stdout.strip() for name in ("one", "two", "list")}
    text = f"tlog/peers/v1\npeer {vkeys['one']} http://127.0.0.1:{port}\npeer {vkeys['two']}\n"
    peers = tmp_path / "peers"
    peers.write_text(client("sign-peers", "--sign", tmp_path / "list", stdin=text).stdout)

    def arguments(name: str, sim: Simulator) -> list[object]:
        policy = tmp_path / f"{name}.policy"
        policy.write_text(f"log {sim.key} {sim.url}\nquorum none\n")
        circle = ["--peers", peers, "--peers-key", vkeys["list"], "--gossip-key", tmp_path / name]
        return ["monitor", "--policy", policy, "--state", tmp_path / f"{name}.state", *circle]

    with running() as shown_one, running() as shown_two:
        shown_one.log(b'{"n":1}')
        shown_two.log(b'{"n":2}')
        log = tmp_path / "one.txt"
        command = [str(CLIENT), *map(str, arguments("one", shown_one)), "--listen", f"127.0.0.1:{port}"]
        with log.open("wb") as output, subprocess.Popen(command, stdout=output, stderr=output) as one:
            try:
                until(lambda: b"verified" in log.read_bytes(), "the first monitor to have verified a head")
                two = client(*arguments("two", shown_two), "--once")
                until(lambda: list(tmp_path.glob("one.state/evidence/*.evidence")), "evidence at the other")
                path = f"{hashlib.sha256(shown_one.key.name.encode()).hexdigest()}/bulletin"
                said = requests.get(f"http://127.0.0.1:{port}/{path}", timeout=30).content
            finally:
                one.terminate()
        # What it would post it says to whoever asks, though it posts nothing.
        assert open_bulletin(said, parse_verifier(vkeys["one"])).convicted
        assert "POST bulletins" not in shown_one.routes()
        assert two.returncode == 1, two.stderr
        [file] = tmp_path.glob("two.state/evidence/*.evidence")
        assert client("verify-evidence", file, "--policy", tmp_path / "one.policy").returncode == 0
        assert "peer one: heard" in two.stderr
        # The same again: what convicts stays, and the process ended as a signal has it.
        assert one.returncode == 128 + 15


def test_a_list_that_another_key_signed_or_half_of_the_options_is_wrong_usage(tmp_path: Path) -> None:
    vkey = client("keygen", "one", "-o", tmp_path / "one").stdout.strip()
    other = client("keygen", "two", "-o", tmp_path / "two").stdout.strip()
    (tmp_path / "policy").write_text(f"log {other}\nquorum none\n")
    signed = client("sign-peers", "--sign", tmp_path / "one", stdin=f"tlog/peers/v1\npeer {vkey}\n").stdout
    (tmp_path / "peers").write_text(signed)
    monitor = ["monitor", "--policy", tmp_path / "policy", "--state", tmp_path / "state", "--once"]
    circle = ["--peers", tmp_path / "peers", "--gossip-key", tmp_path / "one", "--peers-key"]
    assert client(*monitor, *circle, vkey).returncode == 0
    for wrong, why in [([*circle, other], "not signed by two"), (circle[:2], "give --peers, --peers-key and")]:
        done = client(*monitor, *wrong)
        assert done.returncode == 2
        assert why in done.stderr


def test_a_list_that_nobody_would_read_is_not_signed(tmp_path: Path) -> None:
    client("keygen", "one", "-o", tmp_path / "one")
    done = client("sign-peers", "--sign", tmp_path / "one", stdin="tlog/peers/v1\npeer one\n")
    # As for the monitor that is given such a list.
    assert (done.returncode, done.stdout) == (2, "")
    assert "line 2" in done.stderr
