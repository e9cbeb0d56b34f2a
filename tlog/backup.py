"""Backups of a data folder, taken while a server runs, and putting one back, which cannot fork (`spec/durability.md`).

A copy of the files of a running server is older than it looks, or torn. A backup has each database as SQLite itself
copies it, and a manifest of the signed heads in it; it is there under its name once all of it was verified.
"""

import hashlib
import shutil
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Final

import msgspec

from tlog.access.action import CONTROL
from tlog.access.change import SegmentSucceeded
from tlog.config import Config
from tlog.control import end_on_record
from tlog.errors import ConfigError, CorruptError
from tlog.files import exclusive, sync, sync_folder, write_durably
from tlog.fsck.finding import Kind
from tlog.fsck.freeze import serious
from tlog.fsck.run import Plan, Progress, check
from tlog.segments import check_begun, missing_files, open_store, read_signer
from tlog.store.changes import SegmentRow
from tlog.store.connection import copy_database
from tlog.store.control import ControlStore
from tlog_core.encoding import canonicalize

_MANIFEST: Final = "manifest.json"
_FORMAT: Final = "tlog/backup/v1"


class BackedUp(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A segment in a backup: its origin, its size, its root in hex, and the signed head that says so."""

    origin: str
    size: int
    root: str
    checkpoint: str


class Manifest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What is in a backup that was begun at `at`, in milliseconds: its segments by name, and its files.

    Of each file by its path there is the SHA-256 in hex.
    """

    format: str
    log: str
    at: int
    segments: dict[str, BackedUp]
    files: dict[str, str]


def back_up(config: Config, target: Path, clock: Callable[[], int], progress: Progress) -> Manifest:
    """Make a backup of a data folder as the new folder `target`, durable when this returns, and return its manifest.

    Raises ConfigError if the folder is there, CorruptError with the first finding if what was copied is damaged, and
    DatabaseError or OSError.
    """
    check_begun(config)
    if target.exists():
        raise ConfigError(f"{target} is there already; choose a new folder for each backup")
    at, fresh = clock(), _fresh(target)
    copy = Config(fresh)
    # Before `control`, which then has each change that the database has.
    copy_database(config.control, copy.control)
    name, rows = _contents(copy)
    gone = {row.name for row in rows if _is_gone(config, row)}
    for row in (one for one in rows if one.name not in gone):
        if missing := missing_files(config, row):
            raise CorruptError(f"{missing[0]} of {row.name} is missing; tlog segment status {row.name} says what to do")
        copy_database(config.segment(row.id), copy.segment(row.id))
        shutil.copy(config.key(row.id), copy.key(row.id))
    if config.issuers.exists():
        shutil.copy(config.issuers, copy.issuers)
    # What is frozen is worth a copy, too, and what a monitor said is none of the log's own.
    for finding in (one for one in check(copy, Plan(), progress) if one.kind not in (Kind.FROZEN, Kind.BULLETIN)):
        if finding.segment in gone:
            continue
        raise CorruptError(f"what was copied is damaged, and is left in {fresh}: {finding}")
    segments = _backed_up(copy)
    _tidy(fresh)
    manifest = Manifest(_FORMAT, name, at, segments, dict(_digests(fresh)))
    write_durably(fresh / _MANIFEST, canonicalize(msgspec.json.encode(manifest)))
    _put_in_place(fresh, target)
    return manifest


def restore(backup: Path, data: Path) -> Manifest:
    """Put a backup back as the new data folder `data`, durable when this returns, and return its manifest.

    Nothing is signed in it before its anchors, and the log's witnesses, have shown that nothing was signed after it.
    Raises ConfigError if there is something, or `backup` is none, and CorruptError if it is not what it was.
    """
    if data.exists() and any(data.iterdir()):
        raise ConfigError(
            f"{data} is not empty; move away what is there, and keep it: it may have what the backup has not"
        )
    manifest = read_manifest(backup)
    fresh = _fresh(data)
    for path in manifest.files:
        shutil.copy(backup / path, fresh / path)
    if dict(_digests(fresh)) != manifest.files:
        raise CorruptError(f"{backup} is damaged: its files are not those of the manifest; nothing was put back")
    if _backed_up(Config(fresh)) != manifest.segments:
        raise CorruptError(f"{backup} is damaged: its heads are not those of the manifest; nothing was put back")
    _tidy(fresh)
    if data.exists():
        data.rmdir()
    _put_in_place(fresh, data)
    return manifest


def read_manifest(backup: Path) -> Manifest:
    """Return the manifest of a backup after comparing it with the files that there are; ConfigError, CorruptError."""
    try:
        raw = (backup / _MANIFEST).read_bytes()
    except FileNotFoundError:
        raise ConfigError(f"{backup} is no backup: it has no {_MANIFEST}; is it complete?") from None
    try:
        manifest = msgspec.json.decode(raw, type=Manifest)
        well = manifest.format == _FORMAT and canonicalize(msgspec.json.encode(manifest)) == raw
    except (msgspec.MsgspecError, UnicodeDecodeError, ValueError):
        well = False
    if not well:
        raise CorruptError(f"{backup / _MANIFEST} is not the manifest of a backup of this version")
    there = {str(path.relative_to(backup)) for path in _files(backup)} - {_MANIFEST}
    if there != set(manifest.files):
        odd = sorted(there ^ set(manifest.files))[0]
        raise CorruptError(f"{backup} and its manifest do not have the same files; see {odd}")
    return manifest


def copy_missing(config: Config, row: SegmentRow, sources: Iterable[str], progress: Progress) -> bool:
    """Copy key file and database of a segment that lacks them from the first of these data folders that has them.

    Return whether anything was missing. Nothing that is there is replaced, and nothing is put in place before all of it
    was checked, and is durable. Raises ConfigError if none has them, and CorruptError if what it has is damaged.
    """
    with exclusive(config.importing.with_suffix(".lock")):
        missing = missing_files(config, row)
        if not missing:
            return False
        _check_alone(config.segment(row.id))
        folders = [Config(Path(source).absolute()) for source in sources]
        source = next((one for one in folders if one.control.exists() and not missing_files(one, row)), None)
        if source is None:
            names = " and ".join(str(path.relative_to(config.data)) for path in missing)
            raise ConfigError(f"{names} of {row.name} is missing; name a later data folder or backup that has it")
        shutil.rmtree(config.importing, ignore_errors=True)
        try:
            _copy_checked(Config(config.importing), config, source, row, progress)
            for path in missing:
                (config.importing / path.relative_to(config.data)).rename(path)
                sync_folder(path.parent)
        finally:
            shutil.rmtree(config.importing, ignore_errors=True)
        return True


def _check_alone(database: Path) -> None:
    """Raise ConfigError if there is a WAL without its database: SQLite would put it over any other."""
    left = [database.with_name(f"{database.name}{more}") for more in ("-wal", "-shm")]
    if not database.exists() and any(path.exists() for path in left):
        raise ConfigError(f"{left[0].name} is left of a database that is gone; move it, and its -shm, out of the data")


def _copy_checked(copy: Config, config: Config, source: Config, row: SegmentRow, progress: Progress) -> None:
    """Make a data folder with one segment in it, of which each file is ours or else the source's; CorruptError."""
    for folder in (copy.data, copy.data / "segments", copy.data / "keys"):
        folder.mkdir(mode=0o700)
    copy_database(config.control, copy.control)
    key, database = config.key(row.id), config.segment(row.id)
    write_durably(copy.key(row.id), (key if key.exists() else source.key(row.id)).read_bytes())
    copy_database(database if database.exists() else source.segment(row.id), copy.segment(row.id))
    # Without the right key it would only be said.
    read_signer(copy, row)
    for finding in serious(check(copy, Plan([row.name]), progress)):
        raise CorruptError(f"what {source.data} has is damaged, and was not taken: {finding}")
    _tidy(copy.data)
    sync(copy.segment(row.id))


def _is_gone(config: Config, row: SegmentRow) -> bool:
    """Tell whether a segment has lost its files for good: another goes on in its place."""
    if row.sealed is None or not missing_files(config, row):
        return False
    with (
        closing(ControlStore.open(config.control)) as control,
        closing(open_store(config, control.find(CONTROL))) as store,
    ):
        return isinstance(end_on_record(store, row.name), SegmentSucceeded)


def _contents(copy: Config) -> tuple[str, list[SegmentRow]]:
    with closing(ControlStore.open(copy.control)) as control:
        return control.log_name(), control.list()


def _backed_up(copy: Config) -> dict[str, BackedUp]:
    found = {}
    for row in _contents(copy)[1]:
        if _is_gone(copy, row):
            continue
        with closing(open_store(copy, row)) as store:
            head = store.head()
        found[row.name] = BackedUp(row.origin, head.size, head.root.hex(), head.note.decode())
    return found


def _fresh(target: Path) -> Path:
    """Return an empty folder beside the target, which takes its name once it is complete."""
    fresh = target.with_name(f"{target.name}.new")
    if fresh.exists():
        raise ConfigError(f"{fresh} is left from an attempt that was cut off; delete it first")
    for folder in (fresh, fresh / "segments", fresh / "keys"):
        folder.mkdir(mode=0o700, parents=True)
    return fresh


def _tidy(folder: Path) -> None:
    """Delete what opening the databases has left beside them."""
    for pattern in ("*.lock", "*-wal", "*-shm"):
        for path in folder.rglob(pattern):
            path.unlink()


def _files(folder: Path) -> Iterator[Path]:
    return (path for path in sorted(folder.rglob("*")) if not path.is_dir())


def _digests(folder: Path) -> Iterator[tuple[str, str]]:
    for path in _files(folder):
        with path.open("rb") as file:
            yield str(path.relative_to(folder)), hashlib.file_digest(file, "sha256").hexdigest()


def _put_in_place(fresh: Path, target: Path) -> None:
    """Make all of a folder durable, then give it its name."""
    for path in _files(fresh):
        sync(path)
    for folder in (fresh / "segments", fresh / "keys", fresh):
        sync_folder(folder)
    fresh.rename(target)
    sync_folder(target.parent)
