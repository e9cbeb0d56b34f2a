"""A disk that loses power: what may be on it after each operation of a trace.

A file has what was synced, and of what was written since as much as the disk pleases, torn at 512 bytes. A name is
there, or gone, for certain only once its folder was synced. What was not synced when a sync failed is not on the disk,
though whoever reads the file sees it, until it is written anew (Rebello et al., Can Applications Recover from fsync
Failures?, USENIX ATC 2020).
"""

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Final, Generic, TypeVar

from tracing import VOLATILE, Operation

SECTOR: Final = 512
PAGE: Final = 4096

Image = Mapping[str, bytes | None]
"""Each path with its bytes, or None for a folder."""

Keep = Callable[[int], bool]
"""Says whether a write, or a part of one, of so many bytes is on the disk."""


Change = TypeVar("Change")


@dataclass
class Pending(Generic[Change]):
    """What was changed since the last sync, in order; and of each thread that syncs how much of it was there before."""

    changes: list[Change] = field(default_factory=list)
    syncing: dict[int, int] = field(default_factory=dict)

    def begin(self, thread: int) -> None:
        self.syncing[thread] = len(self.changes)

    def take(self, thread: int) -> list[Change]:
        """Take out what was there when a thread began to sync."""
        # None, of a file that came to have this name meanwhile.
        count = self.syncing.pop(thread, 0)
        taken, self.changes = self.changes[:count], self.changes[count:]
        self.syncing = {other: max(0, before - count) for other, before in self.syncing.items()}
        return taken

    def put_back(self, changes: list[Change]) -> None:
        self.changes = [*changes, *self.changes]
        self.syncing = {other: before + len(changes) for other, before in self.syncing.items()}


@dataclass
class File:
    """What whoever reads sees; what is on the disk for certain; and what was written since then, in order."""

    seen: bytearray = field(default_factory=bytearray)
    stable: bytearray = field(default_factory=bytearray)
    pending: Pending[tuple[int, bytes | None]] = field(default_factory=Pending)
    ghosts: set[int] = field(default_factory=set)

    def write(self, offset: int, data: bytes) -> None:
        offset = len(self.seen) if offset < 0 else offset
        put(self.seen, offset, data)
        pages = set(range(offset // PAGE, -(-(offset + len(data)) // PAGE)))
        if pages & self.ghosts:
            # A page is written as a whole, and with it what a failed sync had lost of it.
            self.ghosts -= pages
            offset, end = offset // PAGE * PAGE, -(-(offset + len(data)) // PAGE) * PAGE
            data = bytes(self.seen[offset:end])
        self.pending.changes.append((offset, data))

    def truncate(self, size: int) -> None:
        resize(self.seen, size)
        self.pending.changes.append((size, None))

    def begin(self, thread: int) -> None:
        self.pending.begin(thread)

    def sync(self, thread: int) -> None:
        apply(self.stable, self.pending.take(thread))

    def fail(self, thread: int) -> None:
        lost = self.pending.take(thread)
        for offset, data in lost:
            self.ghosts |= set(range(offset // PAGE, -(-(offset + len(data or b"")) // PAGE)))
        # What was cut off, or grew, is metadata of the file, which the failure did not lose.
        self.pending.put_back([one for one in lost if one[1] is None])

    def after(self, keep: Keep | None) -> bytes:
        """Return what is on the disk if power is lost now; None keeps nothing that is not certain."""
        content = bytearray(self.stable)
        if keep is not None:
            apply(content, [part for offset, data in self.pending.changes for part in _parts(offset, data, keep)])
        return bytes(content)


def put(content: bytearray, offset: int, data: bytes) -> None:
    if offset > len(content):
        content.extend(bytes(offset - len(content)))
    content[offset : offset + len(data)] = data


def resize(content: bytearray, size: int) -> None:
    del content[size:]
    content.extend(bytes(size - len(content)))


def apply(content: bytearray, changes: Sequence[tuple[int, bytes | None]]) -> None:
    for offset, data in changes:
        if data is None:
            resize(content, offset)
        else:
            put(content, offset, data)


def _parts(offset: int, data: bytes | None, keep: Keep) -> Iterator[tuple[int, bytes | None]]:
    if data is None:
        if keep(0):
            yield offset, None
        return
    if keep(len(data)):
        yield offset, data
        return
    place = 0
    while place < len(data):
        end = min(len(data), place + SECTOR - (offset + place) % SECTOR)
        if end - place < len(data) and keep(-1):
            yield offset + place, data[place:end]
        place = end


GONE: Final = "gone"


@dataclass
class Folder:
    """What its names stand for, as it is seen and for certain, and the changes since, each of one or more names."""

    seen: "dict[str, File | Folder]" = field(default_factory=dict)
    stable: "dict[str, File | Folder]" = field(default_factory=dict)
    pending: "Pending[Mapping[str, File | Folder | str]]" = field(default_factory=Pending)

    def change(self, changes: "Mapping[str, File | Folder | str]") -> None:
        rename(self.seen, changes)
        self.pending.changes.append(changes)

    def begin(self, thread: int) -> None:
        self.pending.begin(thread)

    def sync(self, thread: int) -> None:
        for changes in self.pending.take(thread):
            rename(self.stable, changes)

    def fail(self, thread: int) -> None:
        self.pending.put_back(self.pending.take(thread))

    def after(self, names: Callable[[], bool]) -> "Mapping[str, File | Folder]":
        """Return what is there if power is lost now. Changes come in order: behind one that is not there none is."""
        there = dict(self.stable)
        for changes in self.pending.changes:
            if not names():
                break
            rename(there, changes)
        return there


def rename(names: dict[str, File | Folder], changes: Mapping[str, File | Folder | str]) -> None:
    for name, node in changes.items():
        if isinstance(node, str):
            names.pop(name, None)
        else:
            names[name] = node


class Disk:
    """A folder and all that is in it."""

    def __init__(self, base: Image) -> None:
        self.root = Folder()
        for path, content in sorted(base.items()):
            folder, name = self._place(path)
            node = Folder() if content is None else File(bytearray(content), bytearray(content))
            folder.seen[name] = folder.stable[name] = node

    def do(self, one: Operation) -> None:
        """Do what was done."""
        folder, name = self._place(one.path)
        there = folder.seen.get(name) if one.path else self.root
        match one.kind:
            case "make" if there is None:
                folder.change({name: File()})
            case "folder" if there is None:
                folder.change({name: Folder()})
            case "unlink":
                folder.change({name: GONE})
            case "rename" if there is not None:
                other, new = self._place(one.data.decode())
                assert other is folder, "a name that moves to another folder is not modelled"
                folder.change({new: there, name: GONE})
            case "write" if isinstance(there, File):
                there.write(one.offset, one.data)
            case "copy" if isinstance(there, File):
                source, place = self.as_seen()[one.data.decode()], len(there.seen)
                there.write(place, (source or b"")[place : place + one.offset])
            case "truncate" if isinstance(there, File):
                there.truncate(one.offset)
            case "begin" | "sync" | "fail" if there is not None:
                getattr(there, one.kind)(one.offset)

    def _place(self, path: str) -> tuple[Folder, str]:
        """Return the folder of a path, and its name there."""
        *parents, name = path.split("/")
        folder = self.root
        for parent in parents:
            inner = folder.seen[parent]
            assert isinstance(inner, Folder)
            folder = inner
        return folder, name

    def image(self, keep: Keep | None, names: Callable[[], bool]) -> Image:
        """Return what is there after a loss of power now: `names` says of each change of a name whether it is."""
        return dict(_walk(self.root, "", lambda folder: folder.after(names), lambda file: file.after(keep)))

    def as_seen(self) -> Image:
        """Return what whoever reads sees now."""
        return dict(_walk(self.root, "", lambda folder: folder.seen, lambda file: bytes(file.seen)))


def _walk(
    folder: Folder,
    prefix: str,
    names: Callable[[Folder], Mapping[str, File | Folder]],
    content: Callable[[File], bytes],
) -> Iterator[tuple[str, bytes | None]]:
    for name, node in names(folder).items():
        if isinstance(node, File):
            yield f"{prefix}{name}", content(node)
        else:
            yield f"{prefix}{name}", None
            yield from _walk(node, f"{prefix}{name}/", names, content)


def cuts(seeded: Random) -> dict[str, tuple[Keep | None, Callable[[], bool]]]:
    """Return what may be left by a loss of power, by its name."""
    return {
        "dropped": (None, lambda: False),
        "kept": (lambda _: True, lambda: True),
        "names only": (None, lambda: True),
        "bytes only": (lambda _: True, lambda: False),
        "some": (lambda length: length >= 0 and seeded.random() < 0.5, lambda: seeded.random() < 0.7),
        "torn": (lambda length: seeded.random() < (0.5 if length < 0 else 0.3), lambda: seeded.random() < 0.9),
    }


def digest(image: Image) -> bytes:
    """Return what two images share if they are the same."""
    found = hashlib.blake2b(digest_size=16)
    for path, content in sorted(image.items()):
        found.update(f"{path} {-1 if content is None else len(content)}\n".encode())
        found.update(content or b"")
    return found.digest()


def read_image(folder: Path) -> Image:
    """Return what is in a folder, less what a trace leaves out."""
    paths = {str(path.relative_to(folder)): path for path in sorted(folder.rglob("*"))}
    return {
        name: None if path.is_dir() else path.read_bytes()
        for name, path in paths.items()
        if not VOLATILE.search(f"/{name}")
    }


def write_image(image: Image, folder: Path) -> None:
    """Write an image into a folder, which is made."""
    folder.mkdir(parents=True)
    for path, content in sorted(image.items()):
        if content is None:
            (folder / path).mkdir(mode=0o700)
        else:
            (folder / path).write_bytes(content)
            (folder / path).chmod(0o600)
