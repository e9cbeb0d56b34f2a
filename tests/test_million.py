"""A large log, real from end to end: a million entries are appended, and read back from tiles alone."""

from collections.abc import Callable
from pathlib import Path

from live import NDJSON, Server

from tlog_client import Log
from tlog_core.receipt import parse_batch_receipt

ENTRIES = 1_000_000
BATCH = 10_000


def test_a_million_appended_entries_verify_from_tiles_alone(
    start_server: Callable[..., Server], tmp_path: Path
) -> None:
    segment = start_server().create("large")
    for start in range(0, ENTRIES, BATCH):
        body = b"".join(b'{"event":%d}\n' % number for number in range(start, start + BATCH))
        assert parse_batch_receipt(segment.append(body, NDJSON)).first_index == start
    with Log(segment.url, segment.key, state=tmp_path / "state") as log:
        indexes = [logged.index for logged in log.committed()]
    assert indexes == list(range(ENTRIES))
