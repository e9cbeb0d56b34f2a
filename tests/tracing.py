"""What a program does to the files below a folder, and what it hears and says meanwhile: its system calls by strace.

A trace is a list of operations in the order in which they happened. Shared memory is not in it, nor locks: neither is
there any more after a loss of power.
"""

import re
import subprocess
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Final

_SCRIPTS: Final = Path(__file__).parent.parent / "scripts"
_CALLS: Final = (
    "openat,write,writev,pwrite64,pwritev,ftruncate,fallocate,sendfile,copy_file_range,fsync,fdatasync,"
    "rename,renameat,renameat2,unlink,unlinkat,mkdir,mkdirat,rmdir,link,linkat,recvfrom,sendto,sendmsg"
)
_LINE: Final = re.compile(r"(\d+) +(?:<\.\.\. \w+ resumed>)?(.*)", re.DOTALL)
_CALL: Final = re.compile(r"(\w+)\((.*)\) += (-?\d+|\?)(.*)", re.DOTALL)
_TEXT: Final = re.compile(r'"((?:\\x[0-9a-f]{2})*)"')
_OPENED: Final = re.compile(r"<((?:\\x[0-9a-f]{2})+)>")
VOLATILE: Final = re.compile(r"-shm$|\.lock$|\.asking$|/metrics(/|$)|/generation$|/quotas$")
_MARK: Final = re.compile(rb"(?:x-request-id: |\xe2\x80\x94 witness\.example/w1 )([\w+/=-]+)", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Operation:
    """One operation. `kind` is one of

    - `make`, `folder`, `unlink`, and `rename`, to the path `data`;
    - `write` of `data` at `offset`, and `truncate` to `offset`;
    - `copy` of `offset` more bytes to its end, from the same place in the file `data`;
    - `begin` of a sync, and `sync`, or `fail`, its end; `offset` is the thread that syncs;
    - `asked` and `told`: a request was read, or its answer is being sent; `data` is its X-Request-Id, or, of a witness,
      the cosignature;
    - `printed`: something went to the standard output.
    """

    kind: str
    path: str = ""
    offset: int = -1
    data: bytes = b""


def strace(out: Path, *inject: str, attach: bool = False) -> list[str]:
    """Return the command that runs the command behind it, or attaches to `-p`, and writes a trace to `out`."""
    _have_strace()
    # By a filter in the kernel, so that the other calls cost nothing.
    options = [
        "-f",
        *([] if attach else ["--seccomp-bpf"]),
        "-qq",
        "-y",
        "-xx",
        "-s",
        "100000000",
        "-e",
        f"trace={_CALLS}",
        "-e",
        "signal=none",
    ]
    return ["strace", *options, *(word for one in inject for word in ("-e", f"inject={one}")), "-o", str(out)]


@cache
def _have_strace() -> None:
    done = subprocess.run([_SCRIPTS / "strace"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def read_trace(out: Path, folder: Path) -> list[Operation]:
    """Return the operations of a trace, of files those below the folder, with their paths from there on."""
    with out.open() as lines:
        return [one for call in _calls(lines) for one in _operations(*call, str(folder))]


def _calls(lines: Iterable[str]) -> Iterator[tuple[int, str, str, str]]:
    """Yield thread, name, arguments and result of each call; of one that took a while first without the result."""
    halves: dict[str, str] = {}
    for line in lines:
        match = _LINE.fullmatch(line.rstrip("\n"))
        assert match is not None, line[:200]
        process, text = match[1], match[2]
        if text.endswith("<unfinished ...>"):
            halves[process] = text.removesuffix("<unfinished ...>")
            name, _, arguments = halves[process].partition("(")
            yield int(process), name, arguments, ""
            continue
        begun = halves.pop(process, None) if "resumed>" in line[:60] else None
        call = _CALL.fullmatch((begun or "") + text)
        if call is not None:
            if begun is None:
                yield int(process), call[1], call[2], ""
            yield int(process), call[1], call[2], call[3]


def _operations(thread: int, name: str, arguments: str, result: str, folder: str) -> Iterator[Operation]:
    opened = _OPENED.search(arguments)
    path = _bytes(opened[1]).decode(errors="replace") if opened else ""
    if path.startswith(("socket:", "TCP")) or re.match(r"1<", arguments):
        yield from _spoken(name, arguments, result, path)
        return
    texts = [_bytes(text) for text in _TEXT.findall(arguments)]
    if name in ("fsync", "fdatasync"):
        one = None if "(deleted)" in arguments else _within(path, folder)
        if one is not None and not result:
            yield Operation("begin", one, thread)
        elif one is not None and result != "?":
            yield Operation("sync" if result == "0" else "fail", one, thread)
    # Of all others nothing is said before they are done, and nothing of those that failed.
    elif result.isdigit():
        yield from _changed(name, arguments, int(result), path, texts, folder)


def _changed(
    name: str, arguments: str, result: int, path: str, texts: Sequence[bytes], folder: str
) -> Iterator[Operation]:
    if name.startswith(("open", "mkdir", "unlink", "rename", "rmdir", "link")):
        names = [_within(text.decode(), folder) for text in texts]
        if not any(names):
            return
        first = names[0] or ""
        if name.startswith("open"):
            if "O_CREAT" in arguments:
                yield Operation("make", first)
            if "O_TRUNC" in arguments:
                yield Operation("truncate", first, 0)
        elif name.startswith("mkdir"):
            yield Operation("folder", first)
        elif name.startswith(("unlink", "rmdir")):
            yield Operation("unlink", first)
        elif name.startswith("rename"):
            yield Operation("rename", first, data=(names[1] or "").encode())
        else:
            raise AssertionError(f"{name} is not modelled")
        return
    within = _within(path, folder)
    if within is None or "(deleted)" in arguments:
        return
    if name in ("write", "writev"):
        # Files that are not of SQLite are only ever written at their end.
        yield Operation("write", within, -1, b"".join(texts)[:result])
    elif name == "pwrite64":
        yield Operation("write", within, int(arguments.rpartition(", ")[2]), texts[0][:result])
    elif name == "sendfile":
        source = _within(_bytes(_OPENED.findall(arguments)[1]).decode(), folder)
        assert source is not None, "a copy of what is not traced is not modelled"
        yield Operation("copy", within, result, source.encode())
    elif name == "ftruncate":
        yield Operation("truncate", within, _number(arguments.rpartition(", ")[2]))
    else:
        raise AssertionError(f"{name} is not modelled")


def _spoken(name: str, arguments: str, result: str, path: str) -> Iterator[Operation]:
    if not path.startswith(("socket:", "TCP")):
        if name == "write" and not result:
            yield Operation("printed")
        return
    match = _MARK.search(b"".join(_bytes(text) for text in _TEXT.findall(arguments)))
    if match is None:
        return
    # What is sent may be read before the call returns; what is received is there when it has.
    if name == "recvfrom" and result:
        yield Operation("asked", data=match[1])
    elif name != "recvfrom" and not result:
        yield Operation("told", data=match[1])


def _within(path: str, folder: str) -> str | None:
    if path != folder and not path.startswith(f"{folder}/"):
        return None
    inner = path[len(folder) :].strip("/")
    return None if VOLATILE.search(f"/{inner}") else inner


def _number(text: str) -> int:
    return int(text, 0)


def _bytes(text: str) -> bytes:
    return bytes.fromhex(text.replace("\\x", ""))
