"""A monitor that is killed at its first, second, third … operation on the disk, each time on a fresh copy of a folder.

Run as a program: `crashing.py POLICY BASE OUT`. For each N a child looks at the log once, on a copy of BASE in OUT/N,
and kills itself before its N-th statement of SQL, fsync, rename, or os.open, by which a folder is opened to sync it;
the first child that lives to its end is the last. What a child reported is in OUT/N.reported. Nothing is killed within
a statement, where what SQLite does is SQLite's promise, nor within the writing of a file, which has another name until
it is synced.
"""

import os
import shutil
import signal
import sys
from pathlib import Path
from typing import Any

from monitoring import Watch

from tlog_client.monitor.follower import Settings
from tlog_core.policy import TrustPolicy, parse_policy


class Counter:
    """Counts operations, and kills the process before the N-th."""

    def __init__(self, last: int) -> None:
        self.left = last

    def count(self, *_: Any) -> None:
        self.left -= 1
        if self.left == 0:
            os.kill(os.getpid(), signal.SIGKILL)

    def before(self, work: Any) -> Any:
        def counted(*arguments: Any, **named: Any) -> Any:
            self.count()
            return work(*arguments, **named)

        return counted


def look_once(policy: TrustPolicy, folder: Path, reported: Path, counter: Counter) -> None:
    out = os.open(reported, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    for name in ("fsync", "rename", "replace", "open"):
        setattr(os, name, counter.before(getattr(os, name)))
    watch = Watch(policy, folder, Settings())
    watch.memory._connection.set_trace_callback(counter.count)
    watch.follower._verified = lambda tree: os.write(out, f"verified {tree.size}\n".encode())  # type: ignore[assignment]
    watch.follower.round()
    for number, line, _ in watch.memory.untold():
        os.write(out, line)
        watch.memory.tell(number)


def main(policy: str, base: str, out: str) -> None:
    parsed = parse_policy(Path(policy).read_bytes())
    for number in range(1, 1000):
        folder = Path(out) / str(number)
        shutil.copytree(base, folder)
        child = os.fork()
        if child == 0:
            look_once(parsed, folder, Path(out) / f"{number}.reported", Counter(number))
            os._exit(0)
        _, status = os.waitpid(child, 0)
        if status == 0:
            return
        assert os.WTERMSIG(status) == signal.SIGKILL, status
    raise AssertionError("no child came to its end")


if __name__ == "__main__":
    main(*sys.argv[1:])
