"""Style sheet and scripts: files of the package, under a path that names what is in all of them."""

import gzip
import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from types import MappingProxyType
from typing import Final

from flask import Response, request

from tlog.access import Action
from tlog.api.answer import FOR_EVER, answer
from tlog.api.route import Call, Route
from tlog.errors import NotFoundError

_KINDS: Final = MappingProxyType(
    {"css": "text/css; charset=utf-8", "js": "text/javascript; charset=utf-8", "svg": "image/svg+xml"}
)
_FOLDERS: Final = ("tlog.web", "static"), ("tlog_client", "browser")


@dataclass(frozen=True, slots=True)
class Asset:
    """A file, its media type, and its bytes as they are and as gzip has them."""

    kind: str
    plain: bytes
    packed: bytes


@dataclass(frozen=True, slots=True)
class Assets:
    """All files by their names, and a digest of them all, in hex."""

    digest: str
    files: MappingProxyType[str, Asset]

    def path(self, name: str) -> str:
        """Return where a file is; KeyError if there is none of this name."""
        if name not in self.files:
            raise KeyError(name)
        return f"/web/static/{self.digest}/{name}"


@cache
def assets() -> Assets:
    """Return the files that the package has."""
    found = dict(sorted(_found()))
    digest = hashlib.sha256()
    for name, raw in found.items():
        digest.update(f"{name} {len(raw)}\n".encode() + raw)
    packed = {
        name: Asset(_KINDS[name.rpartition(".")[2]], raw, gzip.compress(raw, mtime=0)) for name, raw in found.items()
    }
    return Assets(digest.hexdigest()[:16], MappingProxyType(packed))


def _found() -> Iterator[tuple[str, bytes]]:
    for package, folder in _FOLDERS:
        for file in (files(package) / folder).iterdir():
            if file.name.rpartition(".")[2] in _KINDS:
                yield file.name, file.read_bytes()


def static(_call: Call, digest: str, name: str) -> Response:
    """Answer `GET /web/static/<digest>/<name>`."""
    found = assets().files.get(name)
    if found is None or digest != assets().digest:
        raise NotFoundError("there is no such file; load the page again")
    more = [("Vary", "Accept-Encoding"), ("X-Content-Type-Options", "nosniff")]
    if request.accept_encodings["gzip"] > 0:
        more.append(("Content-Encoding", "gzip"))
        return answer(found.packed, found.kind, caching=FOR_EVER, more=more)
    return answer(found.plain, found.kind, caching=FOR_EVER, more=more)


ROUTES = (
    Route(
        "GET",
        "/web/static/<digest>/<name>",
        Action.OPERATE,
        static,
        "A style sheet or script",
        gives={200: "text/plain"},
    ),
)
