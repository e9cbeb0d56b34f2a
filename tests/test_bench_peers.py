"""The comparison with peers: what it asks for, and how it shows what it found. Of all of them only our own runs."""

import re
import subprocess
import sys
import xml.etree.ElementTree as ET
from dataclasses import replace
from pathlib import Path

import pytest
from bench_load import write_events
from bench_peers import disk, drive, each, measure, parse_arguments
from bench_peers_report import COLUMNS, Comparison, Measured, draw, tabulate
from bench_peers_servers import PEERS, Load, Place, Running

TESSERA = Measured(
    peer="Tessera & Co",
    settings="a checkpoint each second",
    load=str(Load(64)),
    proves=True,
    rate=1_000.0,
    p50=500.0,
    p99=900.0,
    cpu=100.0,
    disk=None,
    memory=20.0,
)
SINGLE = replace(TESSERA, peer="tlog", rate=2_000.0, p99=50.0, cpu=90.0, disk=212.5)
BATCH = replace(SINGLE, load=str(Load(4, 1_000)), rate=6_000.0)
CHAIN = replace(TESSERA, peer="hash chain", proves=False, rate=9_000.0, p99=1.0, cpu=1.0)


def comparison(*figures: Measured) -> Comparison:
    return Comparison({"date": "2026-01-02", "cpus": 2}, 10, list(figures), {"immudb": "no module"})


def verdicts(*figures: Measured) -> dict[str, str]:
    lines = [line.split(maxsplit=1) for line in tabulate(comparison(*figures))]
    return {line[1].split(":")[0]: line[0] for line in lines if line and line[0] in {"reached", "MISSED"}}


@pytest.mark.parametrize("words", [["--seconds", "0"], ["--seconds", "ten"], ["--only", "rekor"]])
def test_arguments_that_mean_nothing_are_refused_with_what_to_give(
    words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        parse_arguments(words)
    assert re.search("at least 1|choose from.*tessera", capsys.readouterr().err)


def test_arguments_choose_peers_and_files() -> None:
    arguments = parse_arguments(["--seconds", "3", "--only", "tlog", "chain", "--svg", "x.svg"])
    assert (arguments.seconds, arguments.only, arguments.svg) == (3, ["tlog", "chain"], Path("x.svg"))
    assert parse_arguments([]).seconds == 10


def test_every_peer_states_its_settings_and_is_asked_for_single_entries() -> None:
    own = [peer for name, peer in PEERS.items() if name != "writer"]
    assert all(peer.settings and {Load(1), Load(64)} <= set(peer.loads) for peer in own)


@pytest.mark.long
def test_the_writer_is_measured(tmp_path: Path) -> None:
    write_events(tmp_path / "events")
    (tmp_path / "log").mkdir()
    writer = PEERS["writer"]
    found = measure(writer, writer.loads[0], Place(tmp_path / "log", tmp_path), tmp_path / "events", 1)
    assert found.rate > 0
    assert 0 < found.p50 <= found.p99
    assert found.cpu > 0


def test_immudb_is_asked_for_all_that_tlog_is_and_compared_with_it() -> None:
    peer = PEERS["immudb-fast"]
    assert set(peer.loads) == set(PEERS["tlog"].loads)
    shown = replace(TESSERA, peer=peer.name, proves=peer.proves)
    assert f"single entries, 64 at once, of {peer.name}" in verdicts(SINGLE, shown)


def test_the_table_has_every_figure_and_setting_and_what_is_missing() -> None:
    text = "\n".join(tabulate(comparison(SINGLE, TESSERA)))
    assert re.search(r"tlog: single entries, 64 at once +2,000\.0 +500\.0 +50\.0 +90\.0 +212\.5 +20\.0\n", text)
    assert "Tessera & Co: a checkpoint each second\n" in text
    assert "missing: immudb: no module\n" in text


def test_the_verdicts_compare_with_the_best_peer_that_proves() -> None:
    assert verdicts(SINGLE, BATCH, TESSERA, CHAIN) == {
        "batches of 1,000, of Tessera & Co, single entries, 64 at once": "reached",
        "single entries, 64 at once, of Tessera & Co": "reached",
        "single entries, 64 at once, p99 of Tessera & Co": "reached",
        "single entries, 64 at once, CPU of Tessera & Co": "reached",
        "the least CPU, of Tessera & Co, single entries, 64 at once": "reached",
    }


def test_proofs_are_compared_with_proofs_and_with_nothing_else() -> None:
    load = str(Load(64, proofs=1_000_000))
    assert load == "inclusion proofs at 1,000,000, 64 at once"
    asked = replace(SINGLE, load=load, rate=5_000.0, cpu=1.0)
    for rate, word in ((4_000.0, "reached"), (6_000.0, "MISSED")):
        found = verdicts(SINGLE, TESSERA, asked, replace(TESSERA, load=load, rate=rate, cpu=0.5))
        assert found.pop(f"{load}, of Tessera & Co") == word
        assert found == verdicts(SINGLE, TESSERA)


def test_the_verdicts_say_where_a_peer_is_ahead() -> None:
    faster = replace(TESSERA, peer="fast", rate=2_500.0, p99=100.0, cpu=80.0)
    writer = replace(BATCH, peer="tlog Writer")
    found = verdicts(SINGLE, BATCH, writer, TESSERA, faster)
    assert len(found) == 6
    assert set(found.values()) == {"MISSED"}
    assert all("fast" in name for name in found)


def test_nothing_is_judged_without_a_peer() -> None:
    assert verdicts(SINGLE, BATCH, CHAIN) == {}


def test_the_chart_has_a_bar_for_each_figure_that_is_there() -> None:
    shown = ET.fromstring(draw(comparison(SINGLE, BATCH, TESSERA)))  # noqa: S314 - it is ours
    bars = shown.findall("{*}rect")
    assert len(bars) == 3 * len(COLUMNS) - 1
    assert len([bar for bar in bars if bar.get("fill") == bars[0].get("fill")]) == 2 * len(COLUMNS)
    rates = [float(bar.get("width", "")) for bar in bars[:3]]
    assert rates[1] > rates[0] > rates[2] > 0


def test_what_is_soon_gone_takes_no_disk(tmp_path: Path) -> None:
    (tmp_path / "tile.p").mkdir()
    (tmp_path / "lasting").write_bytes(bytes(8_192))
    before = disk(tmp_path, (".p",))
    (tmp_path / "tile.p" / "5").write_bytes(bytes(8_192))
    assert disk(tmp_path, (".p",)) == before
    assert disk(tmp_path, ()) >= before + 8_192


def test_a_driver_that_fails_is_heard() -> None:
    script = "import sys; print('begin'); print('end'); sys.exit('the chain breaks at 7')"
    with pytest.raises(RuntimeError, match="the chain breaks at 7"):
        drive(Running((), ()), [sys.executable, "-c", script])


def test_a_driver_that_says_nothing_more_has_failed() -> None:
    with pytest.raises(RuntimeError, match="failed"):
        drive(Running((), ()), [sys.executable, "-c", "print('begin')"])


def test_a_server_that_ends_meanwhile_does_not_end_the_run() -> None:
    with subprocess.Popen(["sleep", "60"]) as server:
        running = Running((server,), ())
        assert list(each(running, lambda one: one.pid)) == [server.pid]
        server.kill()
        server.wait()
        assert list(each(running, lambda one: one.pid)) == []
