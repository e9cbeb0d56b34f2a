"""Where the peers come from: released Go modules, pinned in `bench_peers/go.mod`, and Debian packages, unpacked.

They stay in a folder outside the project, and nothing is installed: it needs Go, and apt-get and dpkg, but not root.
"""

import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Final

_MODULE: Final = Path(__file__).with_name("bench_peers")
_DEBIAN: Final = Path("/usr/lib/x86_64-linux-gnu")


class MissingError(Exception):
    """A peer that cannot be had here; it says why."""


def build(cache: Path, package: str, *tags: str) -> Path:
    """Build a command of the module or of one that it pins; `.` is the drivers. Return its path; raise MissingError."""
    place = cache / "-".join(["bin", *tags]) / (Path(package).name or "drivers")
    _run(["go", "build", "-mod=readonly", f"-tags={','.join(tags)}", "-o", place, package], _MODULE)
    return place


def unpack(cache: Path, package: str) -> Path:
    """Unpack a Debian package, and the libraries that it names, into a folder of the cache; return it.

    Raises MissingError.
    """
    folder, done = cache / package, cache / package / "unpacked"
    if not done.exists():
        folder.mkdir(parents=True, exist_ok=True)
        _run(["apt-get", "-q", "download", package, *_libraries(package)], folder)
        for archive in folder.glob("*.deb"):
            _run(["dpkg", "-x", archive, folder], folder)
        done.touch()
    return folder


def libraries(folder: Path) -> dict[str, str]:
    """Return the environment in which programs find the libraries that were unpacked with them."""
    inside = _DEBIAN.relative_to("/")
    return {"LD_LIBRARY_PATH": f"{folder / inside}:{folder / inside.relative_to('usr')}"}


def _libraries(package: str) -> list[str]:
    words = [line.split() for line in _run(["apt-cache", "depends", package], Path.cwd()).splitlines()]
    names = [line[-1] for line in words if line[0] == "Depends:"]
    # Those of the machine itself go with its loader.
    return [name for name in names if name.startswith("lib") and name not in {"libc6", "libgcc-s1", "libstdc++6"}]


def _run(command: Sequence[str | Path], folder: Path) -> str:
    try:
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True)
    except FileNotFoundError:
        raise MissingError(f"there is no {command[0]}") from None
    except subprocess.CalledProcessError as error:
        raise MissingError(f"{' '.join(map(str, command))}: {error.stderr.strip()[-300:]}") from None
    return done.stdout
