"""The command `tlog`: run a server, and look after its data.

Results go to standard output, all else to standard error as `tlog: …`, in lower case and without a full stop.
"""

import os
import sys
from collections.abc import Callable
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import NoReturn

import click

from tlog.config import Config, from_environment
from tlog.errors import ConfigError, NotFoundError
from tlog_core.errors import MalformedError, TlogError

REFUSED, USAGE = 1, 2

_data = click.option(
    "--data",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("data"),
    envvar="TLOG_DATA",
    show_default=True,
    help="The folder that holds everything.",
)

_log_name = click.option(
    "--log-name",
    help="The log's name for ever, such as example.com/audit, if the folder is new; random if it is not given.",
)


@click.group(
    epilog="""\b
Example:
  $ tlog segment create payments --data audit --log-name example.com/audit --label env=prod
  $ tlog serve --data audit &
  $ tlog fsck --data audit
"""
)
def main() -> None:
    """Run a transparency log of audit events, and look after its data."""
    # Whoever made the folder: what is in it is for this user alone.
    os.umask(0o077)


@main.command()
@_data
@click.option("--host", default="127.0.0.1", show_default=True, help="A loopback address.")
@click.option("--port", default=8080, show_default=True, type=click.IntRange(1, 65535))
@click.option("--workers", default=os.cpu_count() or 1, show_default=True, type=click.IntRange(1, 64))
@_log_name
def serve(data: Path, host: str, port: int, workers: int, log_name: str | None) -> None:
    """Run the server on a data folder, which is made if it is not there. One server a folder."""
    from tlog.serve import Listen
    from tlog.serve import serve as run

    _report(lambda: run(_config(data), Listen(host, port, workers), log_name))


@main.group()
def segment() -> None:
    """Create and list segments, whether or not a server runs."""


@segment.command("create")
@_data
@click.argument("name")
@click.option("--label", "labels", multiple=True, metavar="KEY=VALUE", help="May be given more than once.")
@_log_name
def create(data: Path, name: str, labels: tuple[str, ...], log_name: str | None) -> None:
    """Create a segment and print its verifier key, which clients pin."""
    from tlog.segments import create_segment

    _report(lambda: click.echo(create_segment(_config(data), name, _labels(labels), log_name).vkey))


@segment.command("list")
@_data
def list_segments(data: Path) -> None:
    """Print each segment: name, size, labels, verifier key, separated by tabs."""
    from tlog.segments import read_segments

    def show() -> None:
        for row, head in read_segments(_config(data)):
            labels = ",".join(f"{key}={value}" for key, value in row.labels)
            click.echo(f"{row.name}\t{head.size}\t{labels}\t{row.vkey}")

    _report(show)


@main.command()
@_data
@click.argument("names", nargs=-1, metavar="[SEGMENT]...")
def fsck(data: Path, names: tuple[str, ...]) -> None:
    """Check every byte that is stored: payloads, commitments, entries, tiles, roots, signatures.

    Exits 0 if all is well, and 1 after printing each finding with its place. A server may run meanwhile.
    """
    from tlog.fsck import check

    def run() -> None:
        findings = 0
        for finding in check(_config(data), names, _progress):
            findings += 1
            click.echo(finding)
        if findings:
            sys.exit(REFUSED)

    _report(run)


@main.command("version")
def show_version() -> None:
    """Print the version."""
    click.echo(version("tlog"))


def _progress(name: str, done: int, size: int) -> None:
    if sys.stderr.isatty():
        click.echo(f"\r{name}: {done} of {size} entries\x1b[K", nl=done >= size, err=True)
    elif done >= size:
        click.echo(f"{name}: {size} entries checked", err=True)


def _config(data: Path) -> Config:
    return replace(from_environment(), data=data.absolute())


def _labels(pairs: tuple[str, ...]) -> dict[str, str]:
    labels = dict(pair.split("=", 1) for pair in pairs if "=" in pair)
    if len(labels) != len(pairs):
        raise MalformedError("a label is KEY=VALUE, and each key comes once")
    return labels


def _report(action: Callable[[], None]) -> None:
    try:
        action()
    except (ConfigError, MalformedError, NotFoundError) as error:
        _fail(error, USAGE)
    except TlogError as error:
        _fail(error, REFUSED)


def _fail(error: TlogError, status: int) -> NoReturn:
    click.echo(f"tlog: {error}", err=True)
    sys.exit(status)
