"""Databases as an earlier version left them, and upgrades of them that are killed.

Run as a program: `upgrading.py KIND PATH COPIES`. For each N a child brings a fresh copy of PATH to the present schema,
and kills itself before its N-th statement of SQL; the first child that lives to its end is the last. Nothing is killed
within a statement, where what SQLite does is SQLite's promise. After each kill the parent does it again, to the end.
"""

import os
import shutil
import signal
import sqlite3
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, Final
from unittest import mock

from sqlite_utils import Database, Migrations

from tlog.store import schema
from tlog.store.connection import Connection, connect
from tlog.store.schema import migrate_control, migrate_segment, migrate_witness

MIGRATE: Final[Mapping[str, Callable[[Connection], None]]] = {
    "segment": migrate_segment,
    "control": migrate_control,
    "witness": migrate_witness,
}


def only(count: int) -> Any:
    """Have only the first migrations be there, as in the version that had no more."""

    class First(Migrations):
        def pending(self, db: Database) -> list[Any]:
            return super().pending(db)[: max(0, count - len(self.applied(db)))]

    return mock.patch.object(schema, "Migrations", First)


def versions(kind: str) -> int:
    """Return how many migrations a kind of database has."""
    connection = Database(memory=True, execute_plugins=False).conn
    MIGRATE[kind](connection)
    return len(applied(connection))


def applied(connection: Connection) -> list[str]:
    return [name for (name,) in connection.execute("select name from _sqlite_migrations order by id")]


def make_later(path: Path, kind: str) -> None:
    """Make a database one that a later version of tlog has written."""
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute(
            "insert into _sqlite_migrations (migration_set, name, applied_at) values (?, 'm999_later', '')", [kind]
        )
        connection.execute("pragma user_version = 999")


def make_earlier(kind: str, present: Path, path: Path, version: int) -> None:
    """Make at `path` what a database of an earlier version has of the rows of a present one."""
    with closing(connect(path, create=True)) as connection:
        with only(version):
            MIGRATE[kind](connection)
        assert len(applied(connection)) == version
        if kind == "segment":
            connection.execute(f"pragma user_version = {version}")
        connection.execute("attach ? as present", [str(present)])
        for table, columns in tables(connection).items():
            connection.execute(f"delete from {table}")  # noqa: S608
            listed = ", ".join(columns)
            connection.execute(f"insert into {table} ({listed}) select {listed} from present.{table}")  # noqa: S608


def tables(connection: Connection) -> dict[str, list[str]]:
    """Return the tables with their columns, less the one that says which migrations there were."""
    names = connection.execute("select name from main.sqlite_schema where type = 'table' order by name").fetchall()
    return {
        name: [row[1] for row in connection.execute(f"pragma main.table_info({name})")]
        for (name,) in names
        if not name.startswith(("_sqlite", "sqlite_"))
    }


def content(path: Path, shape: Mapping[str, Sequence[str]] | None = None) -> dict[str, Any]:
    """Return all rows of a database, or of these columns of these tables."""
    with closing(connect(path)) as connection:
        assert connection.execute("pragma integrity_check").fetchone() == ("ok",)
        return {
            table: connection.execute(f"select {', '.join(columns)} from {table} order by 1").fetchall()  # noqa: S608
            for table, columns in (shape or tables(connection)).items()
        }


def shape_of(path: Path) -> dict[str, list[str]]:
    with closing(connect(path)) as connection:
        return tables(connection)


def schema_of(path: Path) -> list[Any]:
    """Return what the schema of a database is, and of which version it says to be."""
    with closing(connect(path)) as connection:
        found = sorted(connection.execute("select name, sql from sqlite_schema").fetchall(), key=str)
        return [*found, *applied(connection), connection.execute("pragma user_version").fetchone()]


def upgrade(kind: str, path: Path, *, killed_at: int = 0) -> None:
    left = killed_at

    def count(_statement: str) -> None:
        nonlocal left
        left -= 1
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)

    with closing(connect(path)) as connection:
        connection.set_trace_callback(count)
        MIGRATE[kind](connection)


def main(kind: str, path: str, copies: str) -> None:
    for number in range(1, 1000):
        copy = Path(copies) / f"{number}.db"
        shutil.copy(path, copy)
        child = os.fork()
        if child == 0:
            upgrade(kind, copy, killed_at=number)
            os._exit(0)
        _, status = os.waitpid(child, 0)
        if status == 0:
            return
        assert os.WTERMSIG(status) == signal.SIGKILL, status
        upgrade(kind, copy)
    raise AssertionError("no child came to its end")


if __name__ == "__main__":
    main(*sys.argv[1:])
