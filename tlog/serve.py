"""`tlog serve`: the app under granian, with several worker processes on one data folder."""

import fcntl
import ipaddress
import os
import shutil
import sys
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from shlex import quote

from flask import Flask

from tlog.access.issuer import read_issuers
from tlog.bulletins import read_monitor_keys
from tlog.clock import now
from tlog.config import Config
from tlog.control import Control
from tlog.errors import ConfigError, FrozenError
from tlog.files import lock_data
from tlog.fsck.start import check_at_start
from tlog.listen import check_free, parse_address, run_workers
from tlog.peers import read_peers
from tlog.quickstart import begin, describe
from tlog.routing import read_routing
from tlog.scratch import make_scratch
from tlog.segments import Nobody, Segments, prepare_data
from tlog.store.connection import DatabaseError, connect
from tlog.witnesses.panel import read_panel

_SWITCH_SECONDS = 0.0005
_NO_POLICY = """\
tlog: no policy is in force, so nobody may do anything. Write one (spec/access.md), then
  tlog policy apply FILE --data {0}
  tlog token issue NAME --data {0}"""


@dataclass(frozen=True, slots=True)
class Listen:
    """Where to listen, and with how many worker processes.

    With a `certificate` and its key, both PEM files, by TLS. Without, others can listen in, so that an address that
    they reach needs `plain_http`: TLS then ends at a proxy in front.
    """

    host: str
    port: int
    workers: int
    certificate: Path | None = None
    key: Path | None = None
    plain_http: bool = False


def serve(config: Config, listen: Listen, log_name: str | None) -> None:
    """Run the server until it is told to stop; raise ConfigError if it cannot run like this."""
    listen = replace(listen, host=parse_address(listen.host))
    _check_private(config, listen)
    lock_data(config.lock, shared=False)
    check_free(listen.host, listen.port)
    # Taken only below, but what is wrong with them is said before anything is made.
    read_issuers(config.issuers)
    routing = read_routing(config.routes)
    if config.witnesses is not None:
        read_panel(config.witnesses)
    if config.peers is not None:
        read_peers(config.peers)
    read_monitor_keys(config.monitor_keys)
    empty = not config.control.exists()
    prepare_data(config, log_name)
    check_at_start(config)
    _prepare_access(config, listen, begins=empty and not config.unguarded)
    _fresh_folder(config.confirmed)
    # They go by a clock that begins anew when the machine does.
    config.quotas.unlink(missing_ok=True)
    # Read by the metrics library when it is imported, which is why the app is imported only now; and here, so that the
    # workers need not each do it. They make the app themselves: what opens files or starts threads must not be forked.
    metrics = _metrics_folder(config)
    os.environ["PROMETHEUS_MULTIPROC_DIR"] = str(metrics)
    from tlog.app import create_app

    def load() -> Flask:
        # Whoever holds a segment's write lock has not to wait long for the interpreter's.
        sys.setswitchinterval(_SWITCH_SECONDS)
        _settle(metrics, listen.workers)
        return create_app(config, locked=True, routing=routing)

    try:
        run_workers(
            "tlog",
            load,
            host=listen.host,
            port=listen.port,
            workers=listen.workers,
            certificate=listen.certificate,
            key=listen.key,
        )
    finally:
        shutil.rmtree(metrics, ignore_errors=True)
        _fold(config)


def _prepare_access(config: Config, listen: Listen, *, begins: bool) -> None:
    """Put in force what a crash left undone, and on an empty folder begin with credentials, shown this once."""
    segments = Segments(config, Nobody(), now)
    try:
        control = Control(config, segments, now)
        control.catch_up()
        try:
            control.take_issuers()
        except FrozenError as error:
            # Reads go on, by what is on record.
            print(f"tlog: {config.issuers.name} is not taken: {error}", file=sys.stderr, flush=True)  # noqa: T201
        if begins:
            host = f"[{listen.host}]" if ":" in listen.host else listen.host
            scheme = "http" if listen.certificate is None else "https"
            lines = describe(begin(control, config.data), f"{scheme}://{host}:{listen.port}")
            print("\n".join(lines), flush=True)  # noqa: T201
        elif not config.unguarded and control.store.policy()[0] == 0:
            print(_NO_POLICY.format(quote(str(config.data))), file=sys.stderr, flush=True)  # noqa: T201
    finally:
        segments.close()


def _fresh_folder(path: Path) -> Path:
    shutil.rmtree(path, ignore_errors=True)
    path.mkdir(mode=0o700)
    return path


def _metrics_folder(config: Config) -> Path:
    """Return an empty folder for the counters, in memory if there is one: they are written through mapped files.

    Who writes to such a file while its disk is full is killed.
    """
    with suppress(OSError):
        return make_scratch()
    return _fresh_folder(config.metrics)


def _fold(config: Config) -> None:
    """Fold what is in each WAL into its database: a stopped server leaves files that are whole by themselves."""
    for path in config.data.rglob("*.db-wal"):
        with suppress(DatabaseError):
            connect(path.with_name(path.name.removesuffix("-wal"))).close()


def _settle(folder: Path, workers: int) -> None:
    """Keep this worker to one processor, which no other has unless there are more workers than processors.

    Its threads take turns at the interpreter anyway; `spec/decisions/0005-group-commit.md` says what that saves.
    """
    if not hasattr(os, "sched_setaffinity"):
        return
    processors = sorted(os.sched_getaffinity(0))
    for place in range(workers):
        # Held until this worker ends, so that the one in its stead takes its place.
        descriptor = os.open(folder / f"worker-{place}.lock", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            continue
        os.sched_setaffinity(0, {processors[place % len(processors)]})
        return


def _check_private(config: Config, listen: Listen) -> None:
    if (listen.certificate is None) != (listen.key is None):
        raise ConfigError("a certificate goes with its key; give both --certificate and --key")
    for path in (listen.certificate, listen.key):
        if path is not None and not os.access(path, os.R_OK):
            raise ConfigError(f"{path} cannot be read")
    if ipaddress.ip_address(listen.host).is_loopback:
        return
    if config.unguarded:
        raise ConfigError(f"{listen.host} is not a loopback address; unguarded, a server binds to no other")
    if listen.certificate is None and not listen.plain_http:
        raise ConfigError(
            f"{listen.host} is not a loopback address, and credentials would be sent in the clear; "
            "give --certificate and --key, or --plain-http if TLS ends at a proxy in front"
        )
