"""How `scripts/bench peers` runs each log: the settings, the servers, and what drives them."""

import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, closing, contextmanager
from dataclasses import dataclass
from functools import partial
from http.client import HTTPConnection
from pathlib import Path
from typing import Final

from bench import COMMANDS, free_port, running, stop
from bench_load import HOST, TIMEOUT_SECONDS, check
from bench_peers_cache import build, libraries, unpack

from tlog.config import Config

SEGMENT: Final = "bench"
_TRILLIAN: Final = "github.com/google/trillian/cmd/trillian_log_"
_DATABASE_CONNECTIONS: Final = 1_000
_TESSERA: Final = "github.com/transparency-dev/tessera/cmd/conformance/posix"
_IMMUDB: Final = "github.com/codenotary/immudb/cmd/immudb"


@dataclass(frozen=True, slots=True)
class Load:
    """So many connections, each of which sends so many events at a time.

    Or the log is filled with so many entries first, and then asked only for `proofs` that one is among them.
    """

    connections: int
    batch: int = 1
    proofs: int = 0

    def __str__(self) -> str:
        """Say so."""
        if self.proofs:
            return f"inclusion proofs at {self.proofs:,}, {self.connections:,} at once"
        each = "single entries" if self.batch == 1 else f"batches of {self.batch:,}"
        return f"{each}, {self.connections:,} at once"


@dataclass(frozen=True, slots=True)
class Place:
    """Where a log puts its data, and where the programs of the peers are kept."""

    folder: Path
    cache: Path

    @property
    def data(self) -> Path:
        """All that counts as on disk."""
        return self.folder / "data"


@dataclass(frozen=True, slots=True)
class Running:
    """The servers of a log, the command that drives it, and of which version is what no file of ours pins."""

    servers: tuple["subprocess.Popen[bytes]", ...]
    driver: tuple[str | Path, ...]
    version: str = ""


@dataclass(frozen=True, slots=True)
class Peer:
    """A log that is measured. `proves` says whether its proofs are under a signed head.

    What has a name that ends with one of `passing` is soon gone or written over, and does not count as on disk.
    """

    name: str
    settings: str
    loads: tuple[Load, ...]
    run: Callable[[Place], AbstractContextManager[Running]]
    proves: bool = True
    passing: tuple[str, ...] = ()


@contextmanager
def run_tlog(place: Place, *, writer: bool = False) -> Iterator[Running]:
    """Run tlog as it is, with one segment."""
    script = Path(__file__).with_name("bench_writer.py")
    drive = (sys.executable, script) if writer else (build(place.cache, "."), "tlog")
    config, port = Config(place.data / "log"), free_port()
    place.data.mkdir()
    command: list[str | Path] = [COMMANDS / "tlog", "serve", "--unguarded", "--data", config.data, "--port", str(port)]
    with running(command, config, port) as server:
        with closing(HTTPConnection(HOST, port, timeout=TIMEOUT_SECONDS)) as connection:
            connection.request("PUT", f"/segments/{SEGMENT}")
            key = json.loads(check(connection, 201))["vkey"]
        url = f"http://{HOST}:{port}/segments/{SEGMENT}"
        yield Running((server.process,), (*drive, "--at", url, "--key", key))


@contextmanager
def run_tessera(place: Place, *, poll: str, options: Sequence[str] | None = None) -> Iterator[Running]:
    """Run Tessera's conformance server, or with `options` one that differs only in these."""
    drivers, port, secret = build(place.cache, "."), free_port(), place.folder / "key"
    program = [build(place.cache, _TESSERA)] if options is None else [drivers, "serve-tessera", *options]
    key = subprocess.run([drivers, "key", secret], check=True, capture_output=True, text=True).stdout.strip()
    command = [*program, f"--storage_dir={place.data}", f"--listen={HOST}:{port}", f"--private_key={secret}"]
    with ExitStack() as stack:
        server = stack.enter_context(serving(place, command, port))
        yield Running((server,), (drivers, "tessera", f"--poll={poll}", "--at", f"http://{HOST}:{port}", "--key", key))


@contextmanager
def run_trillian(
    place: Place, *, poll: str, flags: Sequence[str] = (), options: Sequence[str] = (), tags: Sequence[str] = ()
) -> Iterator[Running]:
    """Run Trillian's log server and signer on a MariaDB, both with these flags, and the signer with these options."""
    drivers = build(place.cache, ".")
    programs = [build(place.cache, f"{_TRILLIAN}{part}", *tags) for part in ("server", "signer")]
    with ExitStack() as stack:
        database = free_port()
        mariadb, version = stack.enter_context(run_mariadb(place, database))
        uri = f"bench@tcp({HOST}:{database})/bench"
        subprocess.run([drivers, "tables", uri, trillian_tables()], check=True, capture_output=True)
        shared = [f"--mysql_uri={uri}", "--http_endpoint=", *flags]
        ports = free_port(), free_port()
        # By itself the log server would open a connection for each request, and close it again.
        special = ([f"--mysql_max_idle_conns={_DATABASE_CONNECTIONS}"], ["--force_master", *options])
        servers = [
            stack.enter_context(serving(place, [program, *shared, f"--rpc_endpoint={HOST}:{port}", *more], port))
            for program, port, more in zip(programs, ports, special, strict=True)
        ]
        driver = (drivers, "trillian", f"--poll={poll}", "--at", f"{HOST}:{ports[0]}")
        yield Running((mariadb, *servers), driver, version)


@contextmanager
def run_mariadb(place: Place, port: int) -> Iterator[tuple["subprocess.Popen[bytes]", str]]:
    """Run MariaDB on a fresh and empty database; yield its version too. It asks nobody who they are."""
    folder = unpack(place.cache, "mariadb-server-core")
    share, environment = folder / "usr/share/mysql", libraries(folder)
    place.data.mkdir()
    command: list[str | Path] = [folder / "usr/sbin/mariadbd", "--no-defaults", f"--datadir={place.data}"]
    command += [f"--lc-messages-dir={share}", f"--character-sets-dir={share / 'charsets'}", "--skip-grant-tables"]
    command += ["--user=root"] if os.geteuid() == 0 else []
    tables = [share / f"mysql_{name}.sql" for name in ("system_tables", "performance_tables", "system_tables_data")]
    first = ["create database bench;", "create database mysql;", "use mysql;", *(table.read_text() for table in tables)]
    setup = "\n".join(first).encode()
    subprocess.run([*command, "--bootstrap"], input=setup, env=environment, check=True, capture_output=True)
    options = [f"--port={port}", f"--bind-address={HOST}", f"--socket={place.folder / 'mariadb.sock'}"]
    # A request takes up to two, and each that waits for its second holds up those that have one.
    options += [f"--max-connections={_DATABASE_CONNECTIONS}"]
    with serving(place, [*command, *options], port, environment) as server:
        yield server, version_of(command[0], environment)


def trillian_tables() -> Path:
    """Return the file of Trillian's tables, which is in its module."""
    module = Path(__file__).with_name("bench_peers")
    command = ["go", "list", "-m", "-f", "{{.Dir}}", "github.com/google/trillian"]
    found = subprocess.run(command, cwd=module, check=True, capture_output=True, text=True).stdout.strip()
    return Path(found) / "storage/mysql/schema/storage.sql"


@contextmanager
def run_chain(place: Place) -> Iterator[Running]:
    """Run PostgreSQL on a fresh database, on loopback, with its settings as they are."""
    drivers, port = build(place.cache, "."), free_port()
    programs, environment = postgresql(place.cache)
    place.data.mkdir()
    # It refuses to be run by root.
    user = "nobody" if os.geteuid() == 0 else None
    if user is not None:
        shutil.chown(place.data, user)
    login = ["-U", "bench", "--auth=trust", "-E", "UTF8", "--no-locale"]
    subprocess.run(
        [programs / "initdb", "-D", place.data, *login], check=True, capture_output=True, user=user, env=environment
    )
    options = ["-c", f"listen_addresses={HOST}", "-c", "unix_socket_directories="]
    command: list[str | Path] = [programs / "postgres", "-D", place.data, "-p", str(port), *options]
    with serving(place, command, port, environment, user) as server:
        driver = (drivers, "chain", "--at", f"postgres://bench@{HOST}:{port}/postgres")
        yield Running((server,), driver, version_of(command[0], environment))


def version_of(program: str | Path, environment: Mapping[str, str]) -> str:
    """Return what a program says of its version."""
    said = subprocess.run([program, "--version"], env=environment, check=True, capture_output=True, text=True).stdout
    return said.strip().removeprefix(str(program)).strip()


def postgresql(cache: Path) -> tuple[Path, Mapping[str, str]]:
    """Return the folder of its programs, and their environment: installed ones, else unpacked ones."""
    installed = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"))
    if installed:
        return installed[-1].parent, {}
    folder = unpack(cache, "postgresql-15")
    return folder / "usr/lib/postgresql/15/bin", libraries(folder)


@contextmanager
def run_immudb(place: Place, *, driver: str) -> Iterator[Running]:
    """Run immudb, which signs its state and serves nothing but its own protocol."""
    drivers, port, secret = build(place.cache, "."), free_port(), place.folder / "key"
    key = subprocess.run([drivers, "ec-key", secret], check=True, capture_output=True, text=True).stdout.strip()
    command: list[str | Path] = [build(place.cache, _IMMUDB), f"--dir={place.data}", f"--signingKey={secret}"]
    command += [f"--address={HOST}", f"--port={port}"]
    command += [f"--{server}-server=false" for server in ("metrics", "pgsql", "web")]
    with serving(place, command, port) as server:
        yield Running((server,), (drivers, driver, "--at", f"{HOST}:{port}", "--key", key))


@contextmanager
def serving(
    place: Place,
    command: Sequence[str | Path],
    port: int,
    environment: Mapping[str, str] | None = None,
    user: str | None = None,
) -> Iterator["subprocess.Popen[bytes]"]:
    """Run a server until the block ends, which begins when it listens."""
    with (place.folder / "servers.log").open("ab") as log:
        process = subprocess.Popen(
            command, stdout=log, stderr=log, env={**os.environ, **(environment or {})}, user=user
        )
        try:
            wait_until_listening(process, port)
            yield process
        finally:
            stop(process)


def wait_until_listening(process: "subprocess.Popen[bytes]", port: int) -> None:
    """Return when somebody listens; RuntimeError if the server ends, or nobody does for a minute."""
    deadline = time.monotonic() + TIMEOUT_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        with socket.socket() as probe:
            if probe.connect_ex((HOST, port)) == 0:
                return
        time.sleep(0.05)
    raise RuntimeError(f"{process.args!r} did not get ready")


_SINGLE: Final = (Load(1), Load(64))
_OF_MARIADB: Final = ("ibtmp1", "ib_logfile0", "ibdata1")
_BATCHES: Final = (Load(1, 1_000), Load(4, 1_000))
# For who takes no batches, and is the faster the more wait for the same one.
_CROWD: Final = (*_SINGLE, Load(256))
_CROWDS: Final = (*_CROWD, Load(2_048))
_PROOFS: Final = Load(64, proofs=100_000)

PEERS: Final[Mapping[str, Peer]] = {
    "tlog": Peer(
        "tlog",
        "as it is: a signed head each commit, SQLite synchronous=full",
        (*_SINGLE, *_BATCHES, _PROOFS),
        run_tlog,
        passing=(".log",),
    ),
    "writer": Peer(
        "tlog Writer",
        "16 producers share a Writer of the Python client as it is",
        (Load(16, 1_000),),
        partial(run_tlog, writer=True),
        passing=(".log",),
    ),
    "tessera": Peer(
        "Tessera POSIX",
        "v1.0.4, its conformance server: batches of 256 or 1 s, a checkpoint each second; looked at each 50 ms",
        _CROWDS,
        partial(run_tessera, poll="50ms"),
        passing=(".p",),
    ),
    "tessera-fast": Peer(
        "Tessera POSIX, fastest",
        "v1.0.4, batches of 256 or 10 ms, a checkpoint each 100 ms, the least it takes; looked at each 5 ms",
        _CROWDS,
        partial(run_tessera, poll="5ms", options=["--batch-age=10ms", "--checkpoint-interval=100ms"]),
        passing=(".p",),
    ),
    "trillian": Peer(
        "Trillian, MariaDB",
        "v1.8.0 as it is, nothing signed: signer each 100 ms, batches of 1,000; looked at each 20 ms; Debian's MariaDB",
        _CROWD,
        partial(run_trillian, poll="20ms"),
        passing=_OF_MARIADB,
    ),
    "trillian-fast": Peer(
        "Trillian, MariaDB, fastest",
        "v1.8.0, the same with batched_queue, no quotas, signer each 2 ms, batches of 1,800; looked at each 5 ms",
        (*_CROWD, _PROOFS),
        partial(
            run_trillian,
            poll="5ms",
            flags=["--quota_system=noop"],
            options=["--sequencer_interval=2ms", "--batch_size=1800"],
            tags=["batched_queue"],
        ),
        passing=_OF_MARIADB,
    ),
    "immudb": Peer(
        "immudb",
        "v1.10.0 as it is, synced, signed state for each answer, room for 100 commits at once instead of 30",
        (*_SINGLE, *_BATCHES),
        partial(run_immudb, driver="immudb"),
    ),
    "immudb-fast": Peer(
        "immudb, fastest",
        "v1.10.0, the same with syncFrequency 0 instead of 20 ms, and embeddedValues",
        (*_SINGLE, *_BATCHES, _PROOFS),
        partial(run_immudb, driver="immudb-fast"),
    ),
    "chain": Peer(
        "hash chain, PostgreSQL",
        "one function that locks, reads the last hash and inserts; fsync and synchronous_commit on; nothing is signed",
        (*_SINGLE, *_BATCHES),
        run_chain,
        proves=False,
        passing=("pg_wal",),
    ),
}
