"""Connections to SQLite with durable settings, each read back before use."""

from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Final

from sqlite_utils.utils import sqlite3  # type: ignore[attr-defined]  # pysqlite3 where there is one

from tlog.errors import ConfigError
from tlog.files import sync

Connection = sqlite3.Connection

DatabaseError = sqlite3.Error
"""What any statement may raise."""

OperationalError = sqlite3.OperationalError
"""Of these, what the file's content is mostly not to blame for: see `may_pass`."""

_MINIMUM_VERSION: Final = (3, 51, 3)
# A commit is durable when it returns (WAL, FULL), damage shows early, what is deleted is overwritten.
_SETTINGS: Final = {
    "journal_mode": "wal",
    "synchronous": 2,
    "fullfsync": 1,
    "checkpoint_fullfsync": 1,
    "foreign_keys": 1,
    "trusted_schema": 0,
    "cell_size_check": 1,
    "mmap_size": 0,
    "secure_delete": 1,
    "busy_timeout": 30_000,
    # What a write-ahead log shrinks to again that grew while a reader held on.
    "journal_size_limit": 32 << 20,
}


def may_pass(error: DatabaseError) -> bool:
    """Tell whether it is no damage: a disk that is full or fails, a file that cannot be opened, a lock."""
    # What SQLite has no other name for is a statement that does not fit: a table is gone. Text that is not UTF-8 has no
    # code at all.
    code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR)
    return isinstance(error, OperationalError) and code != sqlite3.SQLITE_ERROR


def is_damage(error: Exception) -> bool:
    """Tell whether an error says that the content of a file is no database; so a file is called that cannot be read."""
    # The classes under this one are of other causes.
    return type(error) is sqlite3.DatabaseError


def connect(path: Path, *, create: bool = False) -> Connection:
    """Return a connection that may write, with transactions begun by hand; it may move between threads.

    Raises ConfigError if SQLite is too old or refuses a setting, and DatabaseError if there is no database at `path`.
    """
    if sqlite3.sqlite_version_info < _MINIMUM_VERSION:
        raise ConfigError(
            f"SQLite {sqlite3.sqlite_version} can lose a commit (the WAL-reset bug); 3.51.3 or later is needed"
        )
    connection = sqlite3.connect(
        f"{path.as_uri()}?mode={'rwc' if create else 'rw'}",
        uri=True,
        isolation_level=None,
        check_same_thread=False,
    )
    for name, value in _SETTINGS.items():
        row = connection.execute(f"pragma {name} = {value}").fetchone()
        row = row or connection.execute(f"pragma {name}").fetchone()
        # There is no answer about mmap where SQLite was built without it, which is as good as 0.
        if row is not None and row[0] != value:
            connection.close()
            raise ConfigError(f"SQLite answers {name} = {row[0]}, and {value} is needed; see spec/decisions")
    return connection


@contextmanager
def transaction(connection: Connection) -> Iterator[None]:
    """Begin a write transaction, which is durable when this returns, or rolled back if the block or the commit failed.

    After a DatabaseError of the commit it may be durable all the same.
    """
    connection.execute("begin immediate")
    try:
        yield
        connection.execute("commit")
    except BaseException:
        with suppress(DatabaseError):
            connection.execute("rollback")
        raise


def settle(connection: Connection, path: Path) -> None:
    """Make durable what the connection sees, the first of all on the database at `path`.

    After a crash SQLite takes from the WAL what was written there, whether or not it was synced, or could be: if it
    were shown, a loss of power could take it back. Raises DatabaseError and OSError if it cannot be made durable.
    """
    # Whoever is in the way has opened the database before, and has done it.
    connection.execute("pragma busy_timeout = 0")
    connection.execute("pragma wal_checkpoint(truncate)")
    connection.execute(f"pragma busy_timeout = {_SETTINGS['busy_timeout']}")
    # That the WAL is empty is not durable by itself, and an older one would be put over the newer pages. SQLite has no
    # lock on this file that closing it could drop.
    with suppress(FileNotFoundError):
        sync(path.with_name(f"{path.name}-wal"))


def check_writable(connection: Connection) -> None:
    """Raise DatabaseError if SQLite only reads, as it does for good if it once could not open to write."""
    connection.execute("begin immediate")
    connection.execute("rollback")


def connect_reader(path: Path) -> Connection:
    """Return a connection that only reads; errors as for `connect`."""
    connection = connect(path)
    connection.execute("pragma query_only = 1")
    return connection


def copy_database(source: Path, target: Path) -> None:
    """Make a copy of a database as it is at one moment, whoever writes meanwhile; DatabaseError."""
    with closing(connect_reader(source)) as old, closing(sqlite3.connect(target)) as new:
        old.backup(new)
