"""`tlog serve`: the app under granian, with several worker processes on one data folder."""

import fcntl
import ipaddress
import os
import shutil
import signal
import socket
import sys
import time
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from threading import Thread
from typing import Any

from granian.constants import Interfaces
from granian.server import Server

from tlog.config import WORKER_THREADS, Config
from tlog.errors import ConfigError
from tlog.files import lock_data
from tlog.logs import server_logging
from tlog.segments import prepare_data
from tlog.store.connection import DatabaseError, connect

_SWITCH_SECONDS = 0.0005
# What is answered by then is answered; a client that never sends its whole body cannot hold the server up.
_STOP_SECONDS = 10


@dataclass(frozen=True, slots=True)
class Listen:
    """Where to listen, and with how many worker processes."""

    host: str
    port: int
    workers: int


def serve(config: Config, listen: Listen, log_name: str | None) -> None:
    """Run the server until it is told to stop; raise ConfigError if it cannot run like this."""
    listen = replace(listen, host=_loopback(listen.host))
    lock_data(config.lock, shared=False)
    _check_free(listen)
    prepare_data(config, log_name)
    # Read by the metrics library when it is imported, which is why the app is imported only now; and here, so that the
    # workers need not each do it. They make the app themselves: what opens files or starts threads must not be forked.
    os.environ["PROMETHEUS_MULTIPROC_DIR"] = str(_fresh_folder(config.metrics))
    from tlog.app import create_app

    def load(*_target: Any) -> Any:
        # What the parent does on this signal is not for a worker, which until it serves can simply end.
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        # Whoever holds a segment's write lock has not to wait long for the interpreter's.
        sys.setswitchinterval(_SWITCH_SECONDS)
        _settle(config, listen.workers)
        Thread(target=_end_with, args=(os.getppid(),), name="parent", daemon=True).start()
        return create_app(config, locked=True)

    server = Server(
        "tlog",
        address=listen.host,
        port=listen.port,
        interface=Interfaces.WSGI,
        workers=listen.workers,
        blocking_threads=WORKER_THREADS,
        websockets=False,
        respawn_failed_workers=True,
        workers_kill_timeout=_STOP_SECONDS,
        log_dictconfig=server_logging(),
    )
    try:
        server.serve(target_loader=load, wrap_loader=False)
    finally:
        _fold(config)


def _fresh_folder(path: Path) -> Path:
    shutil.rmtree(path, ignore_errors=True)
    path.mkdir(mode=0o700)
    return path


def _fold(config: Config) -> None:
    """Fold what is in each WAL into its database: a stopped server leaves files that are whole by themselves."""
    for path in config.data.rglob("*.db-wal"):
        with suppress(DatabaseError):
            connect(path.with_name(path.name.removesuffix("-wal"))).close()


def _settle(config: Config, workers: int) -> None:
    """Keep this worker to one processor, which no other has unless there are more workers than processors.

    Its threads take turns at the interpreter anyway; `spec/decisions/0005-group-commit.md` says what that saves.
    """
    if not hasattr(os, "sched_setaffinity"):
        return
    processors = sorted(os.sched_getaffinity(0))
    for place in range(workers):
        # Held until this worker ends, so that the one in its stead takes its place.
        descriptor = os.open(config.metrics / f"worker-{place}.lock", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            continue
        os.sched_setaffinity(0, {processors[place % len(processors)]})
        return


def _end_with(parent: int) -> None:
    """Stop this worker when the process that started it is gone: nobody else would."""
    while True:
        time.sleep(1)
        # Again and again: while the worker is still starting, a signal is lost on it.
        if os.getppid() != parent:
            os.kill(os.getpid(), signal.SIGTERM)


def _check_free(listen: Listen) -> None:
    # The workers share their port, so that another server's would silently take a part of the requests.
    family = socket.AF_INET6 if ":" in listen.host else socket.AF_INET
    try:
        socket.create_server((listen.host, listen.port), family=family).close()
    except OSError as error:
        reason = os.strerror(error.errno or 0).lower()
        raise ConfigError(f"cannot listen at port {listen.port}: {reason}; choose another with --port") from None


def _loopback(host: str) -> str:
    address = "127.0.0.1" if host == "localhost" else host
    try:
        loopback = ipaddress.ip_address(address).is_loopback
    except ValueError:
        loopback = False
    if not loopback:
        raise ConfigError(
            f"{host} is not a loopback address; there is no access control yet, so put a proxy that has one in front"
        )
    return address
