"""A large log, real from end to end: entries are appended, and read back from tiles alone.

Of a million the same is seen by `scripts/bench --only client`, of ten million by `scripts/bench scale`.
"""

from collections.abc import Callable
from pathlib import Path

from live import NDJSON, Server

from tlog_client import Log
from tlog_core.receipt import parse_batch_receipt

# Above 65,536 the tree has tiles of a third level.
ENTRIES = 200_000
BATCH = 10_000


def test_the_entries_of_a_large_log_verify_from_tiles_alone(
    start_server: Callable[..., Server], tmp_path: Path
) -> None:
    segment = start_server().create("large")
    for start in range(0, ENTRIES, BATCH):
        body = b"".join(b'{"event":%d}\n' % number for number in range(start, start + BATCH))
        assert parse_batch_receipt(segment.append(body, NDJSON)).first_index == start
    with Log(segment.url, segment.key, state=tmp_path / "state") as log:
        indexes = [logged.index for logged in log.committed()]
    assert indexes == list(range(ENTRIES))
