"""The tables, as migrations in the order in which they came. A migration that was released never changes."""

from sqlite_utils import Database, Migrations

from tlog.store.connection import Connection

_SEGMENT = """
create table head (
    one integer primary key check (one = 1),
    size integer not null check (size >= 0),
    time integer not null,
    root blob not null check (length(root) = 32),
    note blob not null
) strict;

-- Entry bundles: runs of entries that never cross a multiple of 256; packed into one row when 256 are full.
create table bundle (
    start integer primary key,
    count integer not null check (count between 1 and 256),
    entries blob not null
) strict;

-- Payloads beside their openings, in runs like the bundles', but cut where a row would grow large.
create table payload (
    start integer primary key,
    count integer not null check (count between 1 and 256),
    openings blob not null check (length(openings) = 32 * count),
    payloads blob not null
) strict;

-- Full tiles, and the partial ones above level 0; the partial one at level 0 follows from the entries. A full one has
-- the nodes above its hashes too, 128 and 64 and so on up to 1, so that a proof reads them and hashes nothing.
create table tile (
    level integer not null,
    place integer not null,
    hashes blob not null,
    nodes blob not null,
    primary key (level, place)
) strict;

-- Where the request of an idempotency key went. The key is a hash of writer and key.
create table request (
    key blob primary key check (length(key) = 32),
    start integer not null,
    count integer not null,
    size integer not null
) strict, without rowid;
"""

_CONTROL = """
create table log (
    one integer primary key check (one = 1),
    name text not null
) strict;

create table segment (
    name text primary key,
    id text not null unique,
    origin text not null unique,
    vkey text not null,
    labels text not null,
    created integer not null
) strict;
"""


def migrate_segment(connection: Connection) -> None:
    """Bring the database of a segment to the present schema."""
    migrations = Migrations("segment")

    @migrations()
    def m001_foundation(database: Database) -> None:
        _run(database, _SEGMENT)

    migrations.apply(Database(connection, execute_plugins=False))


def migrate_control(connection: Connection) -> None:
    """Bring the database of segments to the present schema."""
    migrations = Migrations("control")

    @migrations()
    def m001_foundation(database: Database) -> None:
        _run(database, _CONTROL)

    migrations.apply(Database(connection, execute_plugins=False))


def _run(database: Database, script: str) -> None:
    # Not `executescript`, which would commit the migration's own transaction first.
    for statement in script.split(";\n"):
        database.execute(statement)
