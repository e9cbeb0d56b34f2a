"""What servers have in common: where they listen, and how their workers begin and end."""

import ipaddress
import os
import resource
import signal
import socket
import time
from collections.abc import Callable
from pathlib import Path
from threading import Thread
from typing import Any, Final

from granian.constants import HTTPModes, Interfaces
from granian.server import Server

from tlog.config import WORKER_THREADS
from tlog.errors import ConfigError
from tlog.logs import make_logger, server_logging

# What is answered by then is answered; a client that never sends its whole body cannot hold the server up.
_STOP_SECONDS: Final = 10
_INSIST_SECONDS: Final = 0.5

_MOST_CONNECTIONS: Final = 16_384
"""How many connections a worker has open at most; who comes then waits until one is closed."""

_FILES: Final = 4_096
"""How many other files it may need."""


def parse_address(host: str) -> str:
    """Return the IP address of this machine that a host names; ConfigError if it names none."""
    try:
        return str(ipaddress.ip_address("127.0.0.1" if host == "localhost" else host))
    except ValueError:
        raise ConfigError(f"{host} is no IP address; give one of this machine, such as 127.0.0.1") from None


def check_free(host: str, port: int) -> None:
    """Raise ConfigError if another server listens there already."""
    # The workers share their port, so that another server's would silently take a part of the requests.
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        socket.create_server((host, port), family=family).close()
    except OSError as error:
        reason = os.strerror(error.errno or 0).lower()
        raise ConfigError(f"cannot listen at port {port}: {reason}; choose another with --port") from None


def file_limit() -> int:
    """Return how many files a worker may have open, and warn if they are few."""
    # The soft limit, which granian raised to the hard one when it was imported.
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    wanted = _MOST_CONNECTIONS + _FILES
    if limit == resource.RLIM_INFINITY:
        return wanted
    if limit < 2 * _FILES:
        make_logger().warning(
            f"no more than {limit} files may be open, and a worker takes {connections_within(limit)} connections; "
            f"raise the limit to {wanted} (LimitNOFILE, ulimit -n)"
        )
    return limit


def connections_within(limit: int) -> int:
    """Return how many connections a worker takes that may have so many files open: they leave enough for the rest."""
    return min(_MOST_CONNECTIONS, max(limit - _FILES, limit // 2))


def run_workers(
    name: str,
    load: Callable[[], Any],
    *,
    host: str,
    port: int,
    workers: int,
    certificate: Path | None = None,
    key: Path | None = None,
) -> None:
    """Serve the WSGI app that `load` makes in each worker process, by granian, until this process is told to stop."""

    def begin(*_target: Any) -> Any:
        # What the parent does on this signal is not for a worker, which until it serves can simply end.
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        Thread(target=_end_with, args=(os.getppid(),), name="parent", daemon=True).start()
        return load()

    server = Server(
        name,
        address=host,
        port=port,
        interface=Interfaces.WSGI,
        # By HTTP/2 a few bytes can stand for headers of gigabytes, and no client of ours speaks it.
        http=HTTPModes.http1,
        workers=workers,
        blocking_threads=WORKER_THREADS,
        websockets=False,
        # The number of connections, however little comes from each; so many would else keep all others out.
        backpressure=connections_within(file_limit()),
        ssl_cert=certificate,
        ssl_key=key,
        respawn_failed_workers=True,
        workers_kill_timeout=_STOP_SECONDS,
        log_dictconfig=server_logging(),
    )
    Thread(target=_insist, args=(server,), name="insist", daemon=True).start()
    server.serve(target_loader=begin, wrap_loader=False)


def _end_with(parent: int) -> None:
    """Stop this worker when the process that started it is gone: nobody else would."""
    while True:
        time.sleep(1)
        # Again and again: while the worker is still starting, a signal is lost on it.
        if os.getppid() != parent:
            os.kill(os.getpid(), signal.SIGTERM)


def _insist(server: Any) -> None:
    """Once the server is to stop, tell its workers so again and again: while one is still starting, it is lost on it.

    It would be killed in the end, with requests that it has accepted.
    """
    while True:
        time.sleep(_INSIST_SECONDS)
        if server.interrupt_signal:
            for worker in server.wrks:
                worker.terminate()
