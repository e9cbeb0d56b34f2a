"""The demonstration: events in, receipts out, all of it verified; a flipped bit, and a second history, caught.

    scripts/demo [FOLDER]

FOLDER holds CloudTrail files (*.json, {"Records": […]}) and Kubernetes audit lines (*.jsonl), at any depth. Without
one, the samples of the tests are taken. The server is a real one, on loopback and in a temporary folder.
"""

import shutil
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, BinaryIO

from demo_watching import COMMANDS, free_port, run, say, serving, watch
from pysqlite3 import dbapi2 as sqlite3

from tlog_client import Log, TlogError, parse_receipt, parse_verifier, verify_receipt
from tlog_core.encoding import canonical_json, parse_json

SAMPLES = Path(__file__).parent.parent / "tests" / "samples"
BATCH = 100

Events = Mapping[str, Sequence[Any]]
"""JSON values by segment, in order."""


def main() -> None:
    """Run the demonstration; exit with 1 at the first thing that is not as it should be."""
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else SAMPLES
    events = read_events(folder)
    say(f"{sum(map(len, events.values()))} events for {len(events)} segments, from {folder.name}")
    if not events:
        sys.exit("there are no CloudTrail files and no Kubernetes audit lines")
    with tempfile.TemporaryDirectory(prefix="tlog-demo-") as place:
        demonstrate(Path(place), events)
    with tempfile.TemporaryDirectory(prefix="tlog-demo-") as place:
        watch(Path(place), max(events.values(), key=len))


def demonstrate(place: Path, events: Events) -> None:
    """Do all of it in an empty folder."""
    data, receipts = place / "data", place / "receipts.jsonl"
    keys = {name: create_segment(data, name) for name in events}
    began = time.perf_counter()
    with serving(data, free_port()) as url, receipts.open("wb") as out:
        for name, values in events.items():
            with Log(f"{url}/segments/{name}", keys[name], state=place / "state") as log:
                append(log, values, out)
    seconds = time.perf_counter() - began
    say(f"each logged, each answer verified, each last head shown to extend the first, in {seconds:.1f} s")
    verify_offline(receipts, events, keys)
    if fsck(data).returncode:
        sys.exit("fsck found damage in what was just written")
    say("fsck: every stored byte agrees with the signed heads")
    flip_a_bit(data, place / "copy")


def read_events(folder: Path) -> Events:
    """Return the events of a folder, each CloudTrail event for the segment of its source."""
    events: dict[str, list[Any]] = defaultdict(list)
    for path in sorted(folder.rglob("*.json")):
        for record in parse_json(path.read_bytes())["Records"]:
            # Insight events have their source elsewhere, and some have none.
            events[record.get("eventSource", "no-source").replace(".", "-")].append(record)
    for path in sorted(folder.rglob("*.jsonl")):
        events["kubernetes-audit"] += map(parse_json, path.read_bytes().splitlines())
    return dict(events)


def create_segment(data: Path, name: str) -> str:
    """Create a segment and return its verifier key."""
    return run("tlog", "segment", "create", name, "--data", data).strip()


def append(log: Log, values: Sequence[Any], out: BinaryIO) -> None:
    """Log the first event, then the rest in batches; write receipts; check that the last head extends the first."""
    first = log.append(values[0])
    out.write(bytes(first))
    for start in range(1, len(values), BATCH):
        out.writelines(map(bytes, log.append_many(values[start : start + BATCH])))
    log.consistency(first.checkpoint)


def verify_offline(receipts: Path, events: Events, keys: Mapping[str, str]) -> None:
    """Check each receipt against its event, spelled as it came, with nothing but the key."""
    began = time.perf_counter()
    lines = iter(receipts.read_bytes().splitlines())
    for name, values in events.items():
        key = parse_verifier(keys[name])
        for value in values:
            verify_receipt(parse_receipt(next(lines)), key=key, payload=canonical_json(value))
    if list(lines):
        sys.exit("there are more receipts than events")
    say(f"{sum(map(len, events.values()))} receipts verified offline in {time.perf_counter() - began:.1f} s")


def fsck(data: Path) -> "subprocess.CompletedProcess[str]":
    """Run `tlog fsck` on a data folder."""
    return subprocess.run([COMMANDS / "tlog", "fsck", "--data", data], capture_output=True, text=True, check=False)


def flip_a_bit(data: Path, copy: Path) -> None:
    """Flip one bit of one stored opening in a copy of the data, and see fsck name the entry."""
    shutil.copytree(data, copy)
    shutil.copytree(f"{data}.anchor", f"{copy}.anchor")
    path = max((copy / "segments").glob("*.db"), key=lambda path: path.stat().st_size)
    with closing(sqlite3.connect(path)) as connection, connection:
        start, openings = connection.execute("select start, openings from payload order by start").fetchone()
        connection.execute(
            "update payload set openings = ? where start = ?", [bytes([openings[0] ^ 1]) + openings[1:], start]
        )
    found = fsck(copy)
    if found.returncode != 1 or "entry 0" not in found.stdout:
        sys.exit(f"a flipped bit went unnoticed: fsck exited with {found.returncode}")
    say(f"one bit flipped in a copy, and caught: {found.stdout.strip()}")


if __name__ == "__main__":
    try:
        main()
    except TlogError as error:
        sys.exit(f"refused: {error}")
