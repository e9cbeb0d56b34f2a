"""Damage, done by hand: every column of every table of a database, one after the other."""

import sqlite3
from collections.abc import Collection, Iterator
from contextlib import closing
from pathlib import Path

from tlog.store.codec import LOST, columns_of, decode_payloads, payload_runs
from tlog.store.connection import connect

TABLES = """
select one.name, column.name from sqlite_schema as one, pragma_table_xinfo(one.name) as column
where one.type = 'table' and one.name not like '%sqlite%' order by one.name, column.cid
"""


def columns(database: Path) -> list[tuple[str, str]]:
    """Return each column of each table that has a row."""
    with closing(sqlite3.connect(database)) as connection:
        found = connection.execute(TABLES).fetchall()
        return [(table, column) for table, column in found if connection.execute(f"select 1 from {table}").fetchone()]  # noqa: S608


def damaged(database: Path, tables: Collection[str] = ()) -> Iterator[tuple[str, str]]:
    """Yield each column, of these tables or of all, while its value in the last row differs in one bit."""
    for table, column in columns(database):
        if tables and table not in tables:
            continue
        with closing(sqlite3.connect(database, isolation_level=None)) as connection:
            connection.execute("pragma ignore_check_constraints = 1")
            before = connection.execute(f"select * from {table}").fetchall()  # noqa: S608
            place = [name for one, name in columns(database) if one == table].index(column)
            row = [*before[-1]]
            row[place] = other(row[place], [one[place] for one in before])
            replace(connection, table, [*before[:-1], row])
        yield table, column
        with closing(sqlite3.connect(database, isolation_level=None)) as connection:
            replace(connection, table, before)


def replace(connection: sqlite3.Connection, table: str, rows: list[list[object]]) -> None:
    connection.execute(f"delete from {table}")  # noqa: S608
    marks = ", ".join("?" * len(rows[0]))
    connection.executemany(f"insert into {table} values ({marks})", rows)  # noqa: S608


def other(value: object, taken: list[object]) -> object:
    """Return a value that differs in one bit, and is not among those `taken`; or one where there was none."""
    if isinstance(value, int):
        return next(value ^ 1 << bit for bit in range(16) if value ^ 1 << bit not in taken)
    if isinstance(value, str):
        return value[:-1] + chr(ord(value[-1]) ^ 1) if value else "x"
    return value[:-1] + bytes([value[-1] ^ 1]) if isinstance(value, bytes) and value else 1


def lose(database: Path, lost: set[int]) -> None:
    """Have the only run of payloads of a segment without those at these indexes."""
    with closing(connect(database)) as connection:
        [(start, openings, blob)] = connection.execute("select start, openings, payloads from payload").fetchall()
        kept = [LOST if n in lost else one for n, one in enumerate(decode_payloads(blob, openings), start)]
        [run] = payload_runs(start, columns_of(kept))
        connection.execute("update payload set openings = ?, payloads = ?", [run.openings, run.blob])
