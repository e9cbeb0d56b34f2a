"""The tables, as migrations in the order in which they came. A migration that was released never changes."""

from sqlite_utils import Database, Migrations

from tlog.errors import ConfigError
from tlog.store.connection import Connection

SEGMENT_VERSION = 7
"""How many migrations the database of a segment has seen."""

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


_ACCESS = """
-- How many entries of the segment `control` are in these tables, which are what its entries come to.
create table recorded (
    one integer primary key check (one = 1),
    entries integer not null
) strict;

insert into recorded (one, entries) values (1, 0);

-- The policy in force; version 0, the empty one, is in no row.
create table policy (
    one integer primary key check (one = 1),
    version integer not null,
    document text not null
) strict;

-- When a segment was sealed, in milliseconds.
alter table segment add column sealed integer;

-- Tokens, without their secrets: `hash` is SHA-256 of one.
create table token (
    id text primary key,
    hash blob not null check (length(hash) = 32),
    principal text not null,
    groups text not null,
    created integer not null,
    expires integer not null,
    last_used integer,
    revoked integer
) strict;

-- Break-glass: who asks to read which segment for how long, and who has approved; `until` is there once two have.
create table access_request (
    id text primary key,
    principal text not null,
    segment text not null,
    reason text not null,
    milliseconds integer not null,
    requested integer not null,
    approver text,
    until integer
) strict;
"""

_SEAL = """
-- Whether the last entry says that it is the last.
alter table head add column sealed integer not null default 0 check (sealed in (0, 1));
"""

_WRITER = """
-- The sequence that the next entry is to have which a writer signs.
create table writer (
    name text primary key,
    next integer not null check (next > 0)
) strict, without rowid;
"""

_COSIGNED = """
-- The latest cosignature of each witness, as its signature line, and the head that it cosigned; `time` is in POSIX
-- seconds.
create table cosignature (
    vkey text primary key,
    size integer not null check (size >= 0),
    root blob not null check (length(root) = 32),
    time integer not null check (time > 0),
    line text not null
) strict, without rowid;

-- The newest head that the quorum cosigned, as the note with all cosignatures. `time` is the quorum time in POSIX
-- seconds, `last` that of the head's last entry in milliseconds.
create table cosigned (
    one integer primary key check (one = 1),
    size integer not null check (size >= 0),
    root blob not null check (length(root) = 32),
    time integer not null,
    last integer not null,
    note blob not null
) strict;

-- Which witness said when, in milliseconds, what cannot be if this is the latest copy of the segment.
create table frozen (
    one integer primary key check (one = 1),
    at integer not null,
    witness text not null,
    size integer not null,
    reason text not null
) strict;
"""

_ANCHORED = """
-- Whether the segment has an anchor outside the data folder: one from before there were any is given one.
alter table head add column anchored integer not null default 0 check (anchored in (0, 1));
"""

_EVENTS = """
-- Events that were logged lately and have an id, each by a hash of what tells it apart, after the time at which it says
-- that it happened, so that neighbours share a page; `time` is that of its entry.
create table event (
    key blob primary key check (length(key) = 38),
    time integer not null
) strict, without rowid;

create index event_by_time on event (time);
"""

_BULLETIN = """
-- The latest bulletin of each monitor, as a signed note: when it was signed, and when it came, in milliseconds.
create table bulletin (
    vkey text primary key,
    time integer not null,
    received integer not null,
    note blob not null
) strict, without rowid;
"""

_KEYS = """
-- The verifier keys by which writers sign; `name` is that in the key.
create table writer_key (
    vkey text primary key,
    name text not null,
    added integer not null
) strict;

create index writer_key_by_name on writer_key (name, added);

-- Whether a segment takes signed events only.
alter table segment add column signed integer not null default 0 check (signed in (0, 1));
"""

_REMOVED_KEYS = """
-- Since when nobody signs with it any more, in milliseconds; it stays, to verify what it signed before.
alter table writer_key add column removed integer;
"""

_ISSUERS = """
-- The OIDC issuers whose tokens are taken, as the file had them that was read last; none before there was any.
create table issuers (
    one integer primary key check (one = 1),
    document text not null
) strict;

insert into issuers (one, document) values (1, '');
"""

_SECOND_APPROVER = """
-- Who else approved; null if nobody did, or before this column was there.
alter table access_request add column second text;
"""

_WITNESS = """
create table witness (
    one integer primary key check (one = 1),
    vkey text not null
) strict;

-- The latest checkpoint cosigned for each origin, with its time in POSIX seconds. A row is never deleted.
create table cosigned (
    origin_hash blob primary key check (length(origin_hash) = 32),
    size integer not null check (size >= 0),
    root blob not null check (length(root) = 32),
    time integer not null,
    note blob not null
) strict, without rowid;
"""


def migrate_segment(connection: Connection) -> None:
    """Bring the database of a segment to the present schema, one process at a time; ConfigError if it is later."""
    migrations = Migrations("segment")

    @migrations()
    def m001_foundation(database: Database) -> None:
        _run(database, _SEGMENT)

    @migrations()
    def m002_seal(database: Database) -> None:
        _run(database, _SEAL)

    @migrations()
    def m003_writer(database: Database) -> None:
        _run(database, _WRITER)

    @migrations()
    def m004_cosigned(database: Database) -> None:
        _run(database, _COSIGNED)

    @migrations()
    def m005_anchored(database: Database) -> None:
        _run(database, _ANCHORED)

    @migrations()
    def m006_events(database: Database) -> None:
        _run(database, _EVENTS)

    @migrations()
    def m007_bulletin(database: Database) -> None:
        _run(database, _BULLETIN)

    _apply(migrations, connection)
    connection.execute(f"pragma user_version = {SEGMENT_VERSION}")


def migrate_control(connection: Connection) -> None:
    """Bring the database of segments to the present schema; ConfigError if it is later."""
    migrations = Migrations("control")

    @migrations()
    def m001_foundation(database: Database) -> None:
        _run(database, _CONTROL)

    @migrations()
    def m002_access(database: Database) -> None:
        _run(database, _ACCESS)

    @migrations()
    def m003_keys(database: Database) -> None:
        _run(database, _KEYS)

    @migrations()
    def m004_removed_keys(database: Database) -> None:
        _run(database, _REMOVED_KEYS)

    @migrations()
    def m005_issuers(database: Database) -> None:
        _run(database, _ISSUERS)

    @migrations()
    def m006_second_approver(database: Database) -> None:
        _run(database, _SECOND_APPROVER)

    _apply(migrations, connection)


def migrate_witness(connection: Connection) -> None:
    """Bring the database of a witness to the present schema; ConfigError if it is later."""
    migrations = Migrations("witness")

    @migrations()
    def m001_foundation(database: Database) -> None:
        _run(database, _WITNESS)

    _apply(migrations, connection)


def _apply(migrations: Migrations, connection: Connection) -> None:
    database = Database(connection, execute_plugins=False)
    known = {one.name for one in migrations.pending(Database(memory=True, execute_plugins=False))}
    # What a later version wrote would be taken for what this one means by it.
    if later := {one.name for one in migrations.applied(database)} - known:
        raise ConfigError(
            f"the {migrations.name} database was written by a later version of tlog, which has "
            f"{', '.join(sorted(later))}; run that version"
        )
    migrations.ensure_migrations_table(database)
    # The library makes this index after the table, in a transaction of its own: power may be lost in between.
    database.table(migrations.migrations_table).create_index(["migration_set", "name"], unique=True, if_not_exists=True)
    migrations.apply(database)


def _run(database: Database, script: str) -> None:
    # Not `executescript`, which would commit the migration's own transaction first.
    for statement in script.split(";\n"):
        database.execute(statement)
