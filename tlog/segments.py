"""The segments of a log: creating them, and keeping those in use open, few at a time.

A segment is one row of `control.db`, one database, and one key file. It is open while requests use it, and for a while
after; ten thousand idle ones cost disk and nothing else.
"""

import re
import secrets
import stat
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from threading import Event, Lock, Thread
from typing import Final, Protocol

from tlog.access.action import RESERVED
from tlog.anchor import Anchor
from tlog.clock import now
from tlog.config import Config
from tlog.errors import ConfigError, CorruptError, FrozenError, NotFoundError, UnavailableError
from tlog.files import exclusive, make_folder, sync_folder, write_durably
from tlog.latest import open_anchor
from tlog.nodes import Nodes
from tlog.sequencer import Sequencer, sign_head
from tlog.store.changes import SegmentRow
from tlog.store.connection import DatabaseError, may_pass
from tlog.store.control import ControlStore
from tlog.store.cosigned import Frozen
from tlog.store.segment import Head, SegmentStore, Transaction
from tlog.tree import EMPTY_TREE
from tlog_core.checkpoint import Checkpoint, open_checkpoint
from tlog_core.errors import MalformedError, TlogError
from tlog_core.evidence import MAX_LAG
from tlog_core.note import SEED_BYTES, SignerKey, parse_signer, parse_verifier, signer_from_seed

_NAME: Final = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")
_LOG_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._~:/-]{0,127}")
_LABEL: Final = re.compile(r"[a-z0-9][a-z0-9_.-]{0,62}")
_MAX_LABELS: Final = 32
_MAX_LABEL_BYTES: Final = 255

PATIENCE: Final = MAX_LAG * 1000 // 2
"""For how many milliseconds an entry may wait for witnesses: half of what the log promises (spec/evidence.md)."""


_LOOK_AGAIN: Final = 5_000  # milliseconds


class Observer(Protocol):
    """Who is told what the segments do."""

    def committed(self, segment: str, events: int, seconds: float, size: int) -> None:
        """Hear of a commit: how many events, in how many seconds, and the size after it."""

    def opened(self, segments: int) -> None:
        """Hear how many segments are open now."""

    def froze(self, segment: str) -> None:
        """Hear of a segment that is frozen, each time that it is opened."""


class Nobody:
    """An observer where nobody counts."""

    def committed(self, segment: str, events: int, seconds: float, size: int) -> None:
        """Hear it, and do nothing."""

    def opened(self, segments: int) -> None:
        """Hear it, and do nothing."""

    def froze(self, segment: str) -> None:
        """Hear it, and do nothing."""


@dataclass(slots=True)
class Segment:
    """An open segment. `users` counts the requests in it, `used` is when the last one left, in seconds.

    Without an `anchor` it signs nothing, and `halted` says why.
    """

    row: SegmentRow
    signer: SignerKey
    store: SegmentStore
    nodes: Nodes
    sequencer: Sequencer
    anchor: Anchor | None
    halted: Frozen | None
    users: int = 0
    used: float = 0.0
    seen_size: int = 0
    key_id: str = field(init=False)

    def __post_init__(self) -> None:
        """Have the ID of its key, in hex, at hand."""
        self.key_id = self.signer.verifier.id.hex()

    def size(self, wanted: int) -> int:
        """Return a size that the segment has by now; the store is asked only for more than was seen last."""
        if wanted > self.seen_size:
            self.seen_size = self.store.head().size
        return self.seen_size

    def frozen(self) -> Frozen | None:
        """Return why the segment is frozen, if it is."""
        return self.store.frozen() or self.halted

    def settle(self, head: Head) -> None:
        """Have a head that was committed in the anchor before it is shown, where it is else put a moment later.

        Raises UnavailableError, CorruptError, and FrozenError if there is another of its size.
        """
        if self.anchor is None:
            return
        try:
            self.anchor.advance(Checkpoint(self.signer.name, head.size, head.root), head.note)
        except OSError as error:
            raise _unusable(self.row, error) from error

    @contextmanager
    def writing(self) -> Iterator[Transaction]:
        """Begin a write transaction beside the appends, durable when this returns; DatabaseError."""
        try:
            with self.store.write() as transaction:
                yield transaction
        except DatabaseError:
            # As after a failed append: what the connection would go on from is unknown.
            self.sequencer.broken = True
            raise

    def close(self) -> None:
        """Close its files; nobody may be using it."""
        self.store.close()
        if self.anchor is not None:
            self.anchor.close()


def _unusable(row: SegmentRow, error: OSError) -> UnavailableError:
    return UnavailableError(f"the anchor of {row.name} cannot be used now: {error}; retry")


def check_begun(config: Config) -> None:
    """Raise ConfigError for a folder that holds no log: who mistyped its name does not mean to begin another."""
    if not config.control.exists():
        raise ConfigError(
            f"{config.data} holds no log; is that the right --data? tlog serve and tlog segment create begin one"
        )


def prepare_data(config: Config, log_name: str | None) -> str:
    """Make the data folder if it is not there, bring its control database up to date, and return the log's name.

    The reserved segments come with it. Raises ConfigError if the folder belongs to a log of another name.
    """
    if log_name is not None and _LOG_NAME.fullmatch(log_name) is None:
        raise ConfigError("a log's name is 1 to 128 characters of a URL without scheme, such as example.com/audit")
    for folder in (config.data, config.data / "segments", config.data / "keys"):
        make_folder(folder)
    # One process at a time: SQLite does not wait when two make the same database.
    with exclusive(config.control.with_suffix(".lock")):
        control = ControlStore.create(config.control, log_name, f"tlog-{secrets.token_hex(4)}.local")
        name = control.log_name()
        for reserved in sorted(RESERVED.difference(row.name for row in control.each())):
            draft = _draft(config, f"{name}/segments/{reserved}", {}, now(), signed=False)
            draft.make_files()
            with control.changing() as changing:
                changing.add_segment(draft.row)
        control.close()
        sync_folder(config.data)
    return name


class Segments:
    """The segments of one data folder, for the threads of one process."""

    def __init__(
        self,
        config: Config,
        observer: Observer,
        clock: Callable[[], int],
        confirmed: Callable[[str, float], bool] = lambda _, __: True,
    ) -> None:
        """Open the folder that `prepare_data` made. `clock` is in milliseconds.

        `confirmed` waits so many seconds at most, and says whether the witnesses know of no later head of a segment.
        """
        self._config = config
        self._observer = observer
        self._clock = clock
        self._confirmed = confirmed
        self.control = ControlStore.open(config.control)
        self._log_name = self.control.log_name()
        self._lock = Lock()
        self._open: OrderedDict[str, Segment] = OrderedDict()
        self._closed = Event()

    def draft(self, name: str, labels: Mapping[str, str], *, signed: bool) -> "Draft":
        """Return a new segment of this name, of which nothing exists yet; MalformedError if it cannot be."""
        check_name(name)
        check_labels(labels)
        return _draft(self._config, f"{self._log_name}/segments/{name}", labels, self._clock(), signed=signed)

    def list(self, *, after: str = "", limit: int = -1) -> list[SegmentRow]:
        """Return segments in the order of their names; see `ControlStore.list`."""
        return self.control.list(after=after, limit=limit)

    def missing_files(self, row: SegmentRow) -> Sequence[Path]:
        """Return which are not there of the key file and the database of a segment."""
        return missing_files(self._config, row)

    @contextmanager
    def use(self, name: str) -> Iterator[Segment]:
        """Give the open segment of this name, which stays open while it is used; NotFoundError, CorruptError."""
        segment = self._enter(name)
        try:
            yield segment
        finally:
            self._leave(segment)

    def close_idle(self) -> None:
        """Close the segments that nobody used for a while, and those beyond the bound that nobody uses now."""
        horizon = time.monotonic() - self._config.idle_seconds
        with self._lock:
            surplus = len(self._open) - self._config.open_segments
            idle = [
                segment
                for place, segment in enumerate(self._open.values())
                if segment.users == 0 and (segment.used < horizon or place < surplus)
            ]
            for segment in idle:
                del self._open[segment.row.name]
            self._observer.opened(len(self._open))
        # Closing may sync to disk, for which nobody has to wait.
        for segment in idle:
            segment.close()

    def keep_house(self) -> None:
        """Close idle segments from now on, in a thread that ends with the process."""
        interval = max(self._config.idle_seconds / 2, 0.1)

        def loop() -> None:
            while not self._closed.wait(interval):
                self.close_idle()

        Thread(target=loop, name="housekeeping", daemon=True).start()

    @property
    def is_closed(self) -> bool:
        """Whether `close` was called: who goes through the segments by and by then ends."""
        return self._closed.is_set()

    def close(self) -> None:
        """Close everything; nobody may be using a segment."""
        self._closed.set()
        with self._lock:
            while self._open:
                self._open.popitem()[1].close()
            self.control.close()

    def _enter(self, name: str) -> Segment:
        with self._lock:
            segment = self._usable(name)
            if segment is not None:
                return segment
        loaded = self._load(name)
        with self._lock:
            # Another thread may have been faster, and then its segment is the one in use.
            segment, idle = self._usable(name), [loaded]
            if segment is None:
                idle = [self._open.pop(name)] if name in self._open else []
                segment, loaded.users = loaded, 1
                self._open[name] = loaded
            # Who still uses the one before closes it; said under the lock, or both would.
            idle = [one for one in idle if one.users == 0]
        for one in idle:
            one.close()
        self.close_idle()
        return segment

    def _usable(self, name: str) -> Segment | None:
        segment = self._open.get(name)
        # After a failed commit the segment is opened anew; whoever still reads from the old one closes it.
        if segment is None or segment.sequencer.broken or self._is_stale(segment):
            return None
        segment.users += 1
        self._open.move_to_end(name)
        return segment

    def _is_stale(self, segment: Segment) -> bool:
        """Tell whether a segment was found not to be the latest so long ago that it is worth to look again."""
        return segment.halted is not None and not 0 <= self._clock() - segment.halted.at < _LOOK_AGAIN

    def _leave(self, segment: Segment) -> None:
        with self._lock:
            segment.users -= 1
            segment.used = time.monotonic()
            if segment.sequencer.broken and self._open.get(segment.row.name) is segment:
                del self._open[segment.row.name]
            unused = segment.users == 0 and self._open.get(segment.row.name) is not segment
        if unused:
            segment.close()

    def _load(self, name: str) -> Segment:
        if not is_name(name):
            raise NotFoundError("no such segment")
        row = self.control.find(name)
        signer = read_signer(self._config, row)
        store = open_store(self._config, row)
        try:
            nodes = Nodes(store)
            anchor, halted = self._anchor(row, signer, store, nodes)
        except BaseException:
            store.close()
            raise
        if halted is not None or store.frozen() is not None:
            self._observer.froze(name)
        sequencer = Sequencer(
            store,
            signer,
            clock=self._clock,
            on_commit=partial(self._observer.committed, name),
            anchor=anchor,
            halted="" if halted is None else halted.reason,
            confirmed=partial(self._confirmed, name),
            patience=None if self._config.witnesses is None else PATIENCE,
        )
        return Segment(row, signer, store, nodes, sequencer, anchor, halted)

    def _anchor(
        self, row: SegmentRow, signer: SignerKey, store: SegmentStore, nodes: Nodes
    ) -> tuple[Anchor | None, Frozen | None]:
        """Return the anchor of a segment, or why there is none that it extends."""
        try:
            return open_anchor(self._config.anchor_of(row.id), signer.verifier, store, nodes), None
        except FrozenError as error:
            return None, Frozen(self._clock(), None, store.head().size, str(error))
        except OSError as error:
            raise _unusable(row, error) from error


@dataclass(frozen=True, slots=True)
class Draft:
    """A segment to be. Its files come first and its row last: what a crash leaves behind is never seen."""

    row: SegmentRow
    signer: SignerKey
    config: Config

    def make_files(self) -> None:
        """Make key, anchor and database, durable when this returns; none is left if that fails."""
        try:
            self._make_files()
        except BaseException:
            self.remove_files()
            raise

    def remove_files(self) -> None:
        """Remove what was made, as far as that goes, of a segment that did not come to be."""
        database, anchor = self.config.segment(self.row.id), self.config.anchor_of(self.row.id)
        beside = [database.with_name(f"{database.name}{more}") for more in ("-wal", "-shm", "-journal")]
        for path in (database, *beside, anchor, anchor.with_suffix(".new"), self.config.key(self.row.id)):
            with suppress(OSError):
                path.unlink(missing_ok=True)

    def _make_files(self) -> None:
        head = sign_head(EMPTY_TREE, self.row.created, self.signer)
        write_durably(self.config.key(self.row.id), self.signer.format().encode())
        Anchor.create(self.config.anchor_of(self.row.id), head.note)
        SegmentStore.create(self.config.segment(self.row.id), head)
        sync_folder(self.config.segment(self.row.id).parent)


def _draft(config: Config, origin: str, labels: Mapping[str, str], now: int, *, signed: bool) -> Draft:
    signer = signer_from_seed(origin, secrets.token_bytes(SEED_BYTES))
    row = SegmentRow(
        name=origin.rpartition("/")[2],
        id=secrets.token_hex(16),
        origin=origin,
        vkey=str(signer.verifier),
        labels=tuple(sorted(labels.items())),
        created=now,
        signed=signed,
    )
    return Draft(row, signer, config)


def missing_files(config: Config, row: SegmentRow) -> Sequence[Path]:
    """Return which are not there of the key file and the database of a segment."""
    return [path for path in (config.key(row.id), config.segment(row.id)) if not path.exists()]


def _hint(row: SegmentRow) -> str:
    return f"tlog segment import {row.name} SOURCE brings it back from a later data folder or backup"


def read_signer(config: Config, row: SegmentRow) -> SignerKey:
    """Return the key of a segment from its file, its owner's alone; raise CorruptError or UnavailableError."""
    path = config.key(row.id)
    name = f"the key file {path.name} of {row.name}"
    try:
        if path.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO):
            raise CorruptError(f"{name} is open to others than its owner; find out who read it, and chmod 600 it")
        signer = parse_signer(path.read_text("utf-8"))
    except FileNotFoundError:
        raise CorruptError(f"{name} is missing, and without it nothing is signed; {_hint(row)}") from None
    except (IsADirectoryError, PermissionError, UnicodeDecodeError, MalformedError):
        raise CorruptError(f"{name} cannot be read; restore it, without it nothing is signed") from None
    except OSError as error:
        raise UnavailableError(f"{name} cannot be read now: {error.strerror}; retry") from error
    if str(signer.verifier) != row.vkey:
        raise CorruptError(f"{name} holds another key; restore the right one, by this one nothing is signed")
    return signer


def open_store(config: Config, row: SegmentRow) -> SegmentStore:
    """Return the store of a segment after checking its signed head; raise CorruptError or UnavailableError."""
    path = config.segment(row.id)
    if not path.exists():
        raise CorruptError(f"the database {path.name} of {row.name} is missing; {_hint(row)}")
    try:
        store = SegmentStore(path)
    except DatabaseError as error:
        if may_pass(error):
            raise UnavailableError(f"the database of {row.name} cannot be opened now: {error}; retry") from error
        raise CorruptError(f"the database of {row.name} cannot be opened: {error}") from error
    except OSError as error:
        raise UnavailableError(f"the database of {row.name} cannot be opened now: {error}; retry") from error
    except ConfigError as error:
        raise UnavailableError(f"the database of {row.name} cannot be opened by this server: {error}") from error
    try:
        head = store.head()
        checkpoint = open_checkpoint(head.note, parse_verifier(row.vkey))
        if (checkpoint.size, checkpoint.root) != (head.size, head.root):
            raise CorruptError(f"the head of {row.name} is not the one signed")
    except UnavailableError:
        store.close()
        raise
    except TlogError as error:
        store.close()
        reason = str(error).removesuffix("; run tlog fsck")
        raise CorruptError(f"the head of {row.name} cannot be trusted: {reason}; run tlog fsck") from None
    return store


def is_name(name: str) -> bool:
    """Tell whether a segment may have this name."""
    return _NAME.fullmatch(name) is not None


def check_name(name: str) -> None:
    """Raise MalformedError if no segment may have this name."""
    if not is_name(name):
        raise MalformedError("a segment's name has 1 to 63 characters from a-z, 0-9 and -, and does not start with -")


def check_labels(labels: Mapping[str, str]) -> None:
    """Raise MalformedError if no segment may have these labels."""
    if len(labels) > _MAX_LABELS:
        raise MalformedError(f"a segment has at most {_MAX_LABELS} labels")
    for key, value in labels.items():
        if _LABEL.fullmatch(key) is None or len(value.encode()) > _MAX_LABEL_BYTES:
            raise MalformedError(
                "a label's key has 1 to 63 characters from a-z, 0-9, -, _ and ., its value at most 255 bytes"
            )


def read_segments(config: Config) -> Iterator[tuple[SegmentRow, Head]]:
    """Yield each segment of a data folder with its head, checked against its signature; ConfigError, CorruptError."""
    check_begun(config)
    control = ControlStore.open(config.control)
    try:
        for row in control.list():
            store = open_store(config, row)
            yield row, store.head()
            store.close()
    finally:
        control.close()
