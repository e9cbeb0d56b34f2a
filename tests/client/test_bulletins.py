"""Bulletins of a monitor: what it says of a log in public, to the log itself and to whoever asks."""

import subprocess
import sys
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from time import monotonic

import pytest
import requests
from dripping import DRIPS, Talk, raw_server, silent
from live import NDJSON, Segment, Server, free_port, until
from lying import lying
from monitoring import NOW, Watch, policy_of
from simulator import ORIGIN, START, Answer, Logged, Simulator, refuse

from tlog_client.cli import run
from tlog_client.monitor.bulletin import EVERY, Herald, http_sender
from tlog_client.monitor.follower import Settings
from tlog_core.bulletin import Bulletin, Round, Tally, Verified, open_bulletin
from tlog_core.checkpoint import Checkpoint, sign_checkpoint
from tlog_core.commitment import Commitment, Opening
from tlog_core.entry import Entry
from tlog_core.errors import FetchError
from tlog_core.merkle import Hash
from tlog_core.note import parse_signer, signer_from_seed
from tlog_core.policy import TrustedLog

CLIENT = Path(sys.executable).parent / "tlog-client"
ME = signer_from_seed("monitor.example", bytes(32))
PATH = f"/{sha256(ORIGIN.encode()).hexdigest()}/bulletin"


class Teller:
    """A monitor of the simulated log that posts its bulletins there, and what it says when that fails."""

    def __init__(self, sim: Simulator, folder: Path) -> None:
        self.sim = sim
        self.watch = Watch(policy_of(sim), folder, Settings())
        self.gossip: Round | None = None
        self.said: list[str] = []
        herald = Herald(
            ME,
            self.watch.judge,
            gossip=lambda: self.gossip,
            clock=lambda: int(self.watch.now * 1000),
            send=http_sender(None),
            say=self.said.append,
        )
        self.watch.ended = herald.post

    def look(self) -> list[Bulletin]:
        """Look at the log once, and return the bulletins that this brought it."""
        before = len(self.sim.requests)
        self.watch.round()
        found = [one for one in self.sim.requests[before:] if one.method == "POST"]
        assert {one.path for one in found} <= {"bulletins"}
        return [open_bulletin(one.body, ME.verifier) for one in found]


@pytest.fixture
def teller(sim: Simulator, tmp_path: Path) -> Teller:
    return Teller(sim, tmp_path / "state")


def test_it_says_what_was_verified_and_what_was_found(sim: Simulator, teller: Teller) -> None:
    time = NOW * 1000
    sim.faults.append(refuse(404))
    unreachable, violation = Tally("complaint", "unreachable", 1), Tally("violation", "time", 2)
    assert teller.look() == [Bulletin(ORIGIN, time, tallies=(unreachable,))]
    sim.grow(1)
    teller.watch.now += 1
    seen = Verified(1, sim.node(0, 0), time + 1000)
    assert teller.look() == [Bulletin(ORIGIN, time + 1000, seen)]
    for _ in range(2):
        raw = bytes(Entry(Commitment(bytes(32)), ORIGIN, START - 5, "alice"))
        sim.take(Logged(raw, "text/plain", Opening(bytes(32)), b"x"))
    teller.gossip = Round(time, 3, 2)
    [bulletin] = teller.look()
    assert (bulletin.head and bulletin.head.size, bulletin.gossip, bulletin.tallies) == (3, teller.gossip, (violation,))
    sim.faults.append(refuse(404))
    assert teller.look()[0].tallies == (unreachable, violation)
    sim.fork(0)
    [last] = teller.look()
    assert (last.convicted, last.head) == (True, bulletin.head)
    assert last.tallies == (unreachable, Tally("evidence", "fork", 1), violation)


def test_the_same_is_said_again_after_five_minutes_and_not_before(sim: Simulator, teller: Teller) -> None:
    sim.grow(1)
    teller.gossip = Round(1, 3, 2)
    assert len(teller.look()) == 1
    for seconds, count in ((1, 0), (EVERY / 1000 - 2, 0), (1, 1), (1, 0)):
        teller.watch.now += seconds
        # Other times say nothing new.
        teller.gossip = Round(int(teller.watch.now), 3, 2)
        assert len(teller.look()) == count
    teller.gossip = Round(1, 3, 1)
    assert len(teller.look()) == 1


def test_a_convicted_log_is_looked_at_no_more_and_told_all_the_same(sim: Simulator, teller: Teller) -> None:
    sim.grow(2)
    teller.look()
    sim.fork(0)
    [first] = teller.look()
    asked = len(sim.requests)
    assert teller.look() == []
    teller.watch.now += EVERY / 1000
    [again] = teller.look()
    assert (first.convicted, again.convicted) == (True, True)
    assert sim.routes()[asked:] == ["POST bulletins"]


def test_a_monitor_that_is_to_end_posts_nothing_more(sim: Simulator, teller: Teller) -> None:
    sim.grow(1)
    teller.watch.stop_after = 0
    assert teller.look() == []


def test_that_a_log_takes_none_is_said_when_it_begins_and_when_it_ends_and_is_no_finding(
    sim: Simulator, teller: Teller
) -> None:
    sim.grow(1)
    sim.lies["bulletins"] = lambda _: Answer(503, b'{"type":"urn:tlog:problem:unavailable","detail":"full"}')
    assert [len(teller.look()) for _ in range(3)] == [1, 1, 1]
    assert teller.said == [f"bulletin for {ORIGIN}: full"]
    sim.lies.clear()
    assert [len(teller.look()) for _ in range(2)] == [1, 0]
    assert teller.said[1:] == [f"bulletin for {ORIGIN}: taken again"]
    assert teller.watch.findings() == []


def test_one_that_is_not_later_is_signed_once_more_and_then_another_has_the_key(sim: Simulator, teller: Teller) -> None:
    sim.grow(1)
    refused = Answer(409, b'{"type":"urn:tlog:problem:conflict","detail":"not later"}')

    def once(_: Answer) -> Answer:
        del sim.lies["bulletins"]
        return refused

    sim.lies["bulletins"] = once
    first, second = teller.look()
    assert first.time < second.time
    assert (teller.look(), teller.said) == ([], [])
    sim.lies["bulletins"] = lambda _: refused
    sim.grow(1)
    assert len(teller.look()) == 2
    assert len(teller.said) == 1
    assert "another monitor uses the key" in teller.said[0]


def test_no_bulletin_is_earlier_than_the_one_before_unless_the_clock_was_far_ahead(
    sim: Simulator, teller: Teller
) -> None:
    times = []
    for moved in (0, -250, -1, -3600):
        teller.watch.now += moved
        sim.grow(1)
        times += [one.time - NOW * 1000 for one in teller.look()]
    assert times == [0, 1, 2, -3_851_000]


@pytest.mark.parametrize("talk", [*DRIPS, silent])
def test_a_log_that_spins_it_out_is_not_waited_for(talk: Talk) -> None:
    with raw_server(talk) as url:
        begun = monotonic()
        with pytest.raises(FetchError):
            http_sender(None, seconds=0.3)(TrustedLog(ME.verifier, url), b"x")
        assert monotonic() - begun < 5


def test_a_log_is_shown_the_same_credential_as_when_it_is_read(sim: Simulator) -> None:
    http_sender("tlog_secret")(policy_of(sim).logs[0], b"x")
    [asked] = sim.requests
    assert (asked.body, asked.headers["authorization"], "idempotency-key" in asked.headers) == (
        b"x",
        "Bearer tlog_secret",
        False,
    )


# The command, and a real server


def monitor(folder: Path, *more: str | Path) -> list[str]:
    arguments = ["monitor", "--policy", folder / "trust.policy", "--state", folder / "state", *more]
    return list(map(str, arguments))


def followed(folder: Path, segment: Segment, url: str) -> list[Path | str]:
    (folder / "trust.policy").write_text(f"log {segment.key} {url}\nquorum none\n")
    return ["--bulletins", "--gossip-key", folder / "monitor.key"]


@pytest.fixture
def server(start_server: Callable[..., Server], tmp_path: Path) -> Server:
    """A server that knows the key of the monitor."""
    (tmp_path / "monitor.key").write_text(ME.format())
    (tmp_path / "monitor.vkey").write_text(str(ME.verifier))
    return start_server(workers=1, options=["--monitor-key", str(tmp_path / "monitor.vkey")])


def carried(segment: Segment) -> Bulletin:
    [one] = segment.get("/bulletins").json()["bulletins"]
    return open_bulletin(one["note"].encode(), ME.verifier)


def test_a_log_carries_what_convicts_it(server: Server, tmp_path: Path) -> None:
    segment = server.create("payments")
    segment.append(b"1\n2\n", NDJSON)
    [key] = [
        parse_signer(path.read_text()) for path in server.data.glob("keys/*.key") if "payments" in path.read_text()
    ]
    with lying(server) as liar:
        options = followed(tmp_path, segment, f"{liar.url}/segments/payments")
        assert run(monitor(tmp_path, *options, "--once")) == 0
        before = carried(segment)
        tree = segment.checkpoint()
        assert (before.head and (before.head.size, before.head.root), before.tallies) == ((2, tree.root), ())
        other = bytes(sign_checkpoint(Checkpoint(key.name, 2, Hash(bytes(32))), key))
        liar.lies["/segments/payments/checkpoint"] = lambda _: other
        assert run(monitor(tmp_path, *options, "--once")) == 1
    after = carried(segment)
    assert (after.convicted, after.head, after.tallies) == (True, before.head, (Tally("evidence", "fork", 1),))


def test_whoever_asks_a_monitor_hears_the_same_as_the_log(server: Server, tmp_path: Path) -> None:
    segment = server.create("payments")
    segment.append(b"1")
    port, log = free_port(), tmp_path / "monitor.txt"
    options = followed(tmp_path, segment, segment.url)
    command = [str(CLIENT), *monitor(tmp_path, *options, "--interval", "0.1", "--listen", f"127.0.0.1:{port}")]
    with log.open("wb") as out, subprocess.Popen(command, stdout=out, stderr=out) as process:
        try:
            until(lambda: segment.get("/bulletins").json()["bulletins"], "the log to have been told")
            path = f"/{sha256(segment.key.name.encode()).hexdigest()}/bulletin"
            answer = requests.get(f"http://127.0.0.1:{port}{path}", timeout=30)
            unknown = requests.get(f"http://127.0.0.1:{port}{PATH}", timeout=30).status_code
        finally:
            process.terminate()
    assert (answer.status_code, answer.headers["Content-Type"], unknown) == (200, "text/plain; charset=utf-8", 404)
    said, told = open_bulletin(answer.content, ME.verifier), carried(segment)
    assert said.time >= told.time
    assert (said.origin, said.head and said.head.root) == (told.origin, told.head and told.head.root)


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (["--bulletins"], "to post bulletins, give --gossip-key"),
        (["--gossip-key", "KEY"], "to gossip, give --peers, --peers-key and --gossip-key"),
        (["--bulletins", "--gossip-key", "KEY", "--peers", "KEY"], "to gossip, give --peers, --peers-key and"),
        (["--bulletins", "--gossip-key", "POLICY"], "holds"),
    ],
)
def test_half_of_the_options_is_wrong_usage(
    sim: Simulator, tmp_path: Path, capsys: pytest.CaptureFixture[str], options: list[str], reason: str
) -> None:
    (tmp_path / "trust.policy").write_bytes(bytes(policy_of(sim)))
    (tmp_path / "monitor.key").write_text(ME.format())
    files = {"KEY": str(tmp_path / "monitor.key"), "POLICY": str(tmp_path / "trust.policy")}
    assert run(monitor(tmp_path, "--once", *[files.get(one, one) for one in options])) == 2
    assert reason in capsys.readouterr().err
    assert not (tmp_path / "state").exists()
