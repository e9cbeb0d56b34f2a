"""`tlog search`: build, erase, and look after the indexes by which segments are searched."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from tlog.shell import config_of, data_option, report

if TYPE_CHECKING:
    from tlog.search.indexes import Indexes
    from tlog.segments import Segments

_MIB: Final = 1 << 20

_names = click.argument("names", nargs=-1, metavar="[SEGMENT]...")


@click.group()
def search() -> None:
    """Look after the indexes by which segments are searched.

    Works whether or not a server runs.
    """


@search.command("build")
@data_option
@_names
def build(data: Path, names: tuple[str, ...]) -> None:
    """Bring the indexes of all segments, or of these, up to date, and make those that are not there."""
    _each(data, names, _build, lambda segments, _: [row.name for row in segments.list()])


@search.command("status")
@data_option
@_names
def status(data: Path, names: tuple[str, ...]) -> None:
    """Say of all indexes, or of those of these segments, how far they have come."""
    _each(data, names, _show, lambda _, indexes: indexes.followed())


@search.command("erase")
@data_option
@_names
def erase(data: Path, names: tuple[str, ...]) -> None:
    """Delete all indexes, or those of these segments. The next search begins another."""
    _each(data, names, _erase, lambda _, indexes: indexes.followed())


def _each(
    data: Path,
    names: tuple[str, ...],
    do: "Callable[[Segments, Indexes, str], None]",
    default: "Callable[[Segments, Indexes], list[str]]",
) -> None:
    from tlog.search.indexes import Indexes
    from tlog.status import open_segments

    def run() -> None:
        config = config_of(data)
        with open_segments(config) as segments:
            indexes = Indexes(config)
            for name in names or default(segments, indexes):
                # An error names the segment that is asked for, before there is a file of its name.
                segments.control.find(name)
                do(segments, indexes, name)

    report(run)


def _build(segments: "Segments", indexes: "Indexes", name: str) -> None:
    from tlog.search.follow import step

    indexes.want(name)
    progress = step(indexes, segments, name)
    with click.progressbar(length=progress.size, label=name, file=sys.stderr) as bar:
        bar.update(progress.indexed)
        while progress.indexed < progress.size:
            before, progress = progress, step(indexes, segments, name)
            bar.update(progress.indexed - before.indexed)
    _show(segments, indexes, name)


def _show(segments: "Segments", indexes: "Indexes", name: str) -> None:
    with segments.use(name) as segment, indexes.use(name) as index:
        indexed, size = index.state().indexed, segment.store.head().size
    click.echo(f"{name}: {indexed} of {size} entries indexed, {indexes.bytes(name) / _MIB:.1f} MiB")


def _erase(_: "Segments", indexes: "Indexes", name: str) -> None:
    indexes.erase(name)
    click.echo(f"{name}: index erased")
