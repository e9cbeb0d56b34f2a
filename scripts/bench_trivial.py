"""The most that Flask and the HTTP server can do: one route that does nothing, behind the very server of `tlog serve`.

    bench_trivial.py FOLDER PORT

`scripts/bench` runs it beside tlog: the share of this that tlog reaches means the same on every machine.
"""

import os
import sys
from functools import partialmethod
from pathlib import Path
from typing import Any
from unittest.mock import patch

from flask import Flask
from granian.server import Server

from tlog.config import Config
from tlog.serve import Listen, serve


def main(folder: Path, port: int) -> None:
    """Serve until told to stop."""
    # Another app in the place of tlog's: workers, threads and all else stay as they are.
    with patch.object(Server, "serve", partialmethod(_serve, Server.serve)):
        serve(Config(folder), Listen("127.0.0.1", port, os.cpu_count() or 1), None)


def _serve(server: Any, proper: Any, *, target_loader: object, **options: Any) -> None:  # noqa: ARG001
    proper(server, target_loader=_load, **options)


def _load(*_target: Any) -> Flask:
    app = Flask("trivial", static_folder=None)
    app.add_url_rule("/readyz", "ready", lambda: b"ok")
    return app


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
