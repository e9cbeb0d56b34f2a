"""`tlog serve`: the app under granian, with several worker processes on one data folder."""

import ipaddress
import os
import tempfile
from dataclasses import dataclass
from functools import partial
from typing import Any

from granian.constants import Interfaces
from granian.server import Server

from tlog.config import Config
from tlog.errors import ConfigError
from tlog.files import lock_data
from tlog.segments import prepare_data

_THREADS = 16


@dataclass(frozen=True, slots=True)
class Listen:
    """Where to listen, and with how many worker processes."""

    host: str
    port: int
    workers: int


def serve(config: Config, listen: Listen, log_name: str | None) -> None:
    """Run the server until it is told to stop; raise ConfigError if it cannot run like this."""
    _check_loopback(listen.host)
    config.data.mkdir(mode=0o700, parents=True, exist_ok=True)
    lock_data(config.lock, shared=False)
    prepare_data(config, log_name)
    with tempfile.TemporaryDirectory(prefix="tlog-metrics-") as metrics:
        # Read by the metrics library when a worker imports it.
        os.environ["PROMETHEUS_MULTIPROC_DIR"] = metrics
        server = Server(
            "tlog",
            address=listen.host,
            port=listen.port,
            interface=Interfaces.WSGI,
            workers=listen.workers,
            blocking_threads=_THREADS,
            websockets=False,
            respawn_failed_workers=True,
        )
        server.serve(target_loader=partial(_load, config), wrap_loader=False)


def _load(config: Config, *_target: Any) -> Any:
    # Imported in the worker: everything below opens files, starts threads, and must not be shared by a fork.
    from tlog.app import create_app

    return create_app(config, locked=True)


def _check_loopback(host: str) -> None:
    try:
        loopback = ipaddress.ip_address("127.0.0.1" if host == "localhost" else host).is_loopback
    except ValueError:
        loopback = False
    if not loopback:
        raise ConfigError(
            f"{host} is not a loopback address; there is no access control yet, so put a proxy that has one in front"
        )
