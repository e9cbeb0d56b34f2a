"""How far a check has come, in a file: a line with the SHA-256 of the rest, and the rest in JSON."""

import hashlib
from pathlib import Path
from typing import TypeVar

import msgspec

from tlog.errors import CorruptError

T = TypeVar("T")


def read_bookmark(path: Path, kind: type[T]) -> T | None:
    """Return what a file says, None if there is none; CorruptError."""
    try:
        digest, _, content = path.read_bytes().partition(b"\n")
        if digest == hashlib.sha256(content).hexdigest().encode():
            return msgspec.json.decode(content, type=kind)
    except FileNotFoundError:
        return None
    except msgspec.DecodeError:
        pass
    raise CorruptError(f"{path} does not say how far a check has come; delete it, and everything is checked")


def write_bookmark(path: Path, bookmark: object) -> None:
    """Replace what a file says."""
    content = msgspec.json.encode(bookmark)
    fresh = path.with_name(f"{path.name}.new")
    fresh.write_bytes(hashlib.sha256(content).hexdigest().encode() + b"\n" + content)
    # Not synced: what a crash loses of it is checked again.
    fresh.replace(path)
