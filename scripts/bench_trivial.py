"""What Flask and the server can do at most: one route that does nothing, behind the very server of `tlog serve`.

    bench_trivial.py FOLDER PORT

`scripts/bench` runs it beside tlog, since only the share of this that tlog reaches means the same on every machine.
"""

import os
import sys
from pathlib import Path
from typing import Any

from flask import Flask

from tlog import serve
from tlog.config import Config


def _load(config: Config, *_target: Any) -> Flask:  # noqa: ARG001
    app = Flask("trivial", static_folder=None)
    app.add_url_rule("/readyz", "ready", lambda: b"ok")
    return app


if __name__ == "__main__":
    # Another app in the place of tlog's: workers, threads and all else stay as they are.
    serve._load = _load
    serve.serve(Config(Path(sys.argv[1])), serve.Listen("127.0.0.1", int(sys.argv[2]), os.cpu_count() or 1), None)
