"""`tlog route`: where the routing would put events (spec/ingest.md, "Routing")."""

import sys
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Final

import click

from tlog.config import Config
from tlog.shell import REFUSED, config_of, data_option, report

if TYPE_CHECKING:
    from tlog.placing import Place
    from tlog.routing import Routing
    from tlog.store.changes import SegmentRow

_SHOWN: Final = 60


@click.group()
def route() -> None:
    """See where events go that come without a segment."""


@route.command("test")
@data_option
@click.option(
    "--routes",
    type=click.Path(exists=True, path_type=Path, dir_okay=False),
    help="Go by this file, and not by routes.toml of the data folder.",
)
@click.argument("file", type=click.File("rb"))
def test(data: Path, routes: Path | None, file: BinaryIO) -> None:
    """Print for each event of FILE: number, format, segment, and a remark, separated by tabs.

    The remark is `new` and the labels of a segment that is yet to be made, or why the event goes into quarantine; what
    is no event comes last. FILE is an EventList of Kubernetes, a file of CloudTrail, or JSON: an array, lines, or one
    value behind the other. Who may write there is not looked at: tlog policy explain tells that. Exits 1 if an event
    goes into quarantine.
    """
    from tlog.canonical import Canonicalizer
    from tlog.placing import Placing
    from tlog.receivers.file import read_file
    from tlog.routing import read_routing

    def run() -> None:
        config = config_of(data)
        routing = read_routing(config.routes if routes is None else routes)
        rows = _rows(config, needed=routes is None and not config.routes.exists())
        found = read_file(file.read())
        lost = False
        for number, place in enumerate(Placing(routing, Canonicalizer()).find(found.texts, found.faults), 1):
            line, well = _tell(place, routing, rows)
            click.echo(f"{number}\t{line}")
            lost = lost or not well
        if lost:
            sys.exit(REFUSED)

    report(run)


def _rows(config: Config, *, needed: bool) -> Mapping[str, "SegmentRow"]:
    """Return the segments that are there; a folder that holds no log yet has none, unless a log is needed."""
    from tlog.segments import check_begun
    from tlog.store.control import ControlStore

    if needed:
        check_begun(config)
    elif not config.control.exists():
        return {}
    with closing(ControlStore.open(config.control)) as control:
        return {row.name: row for row in control.list()}


def _tell(place: "Place", routing: "Routing", rows: Mapping[str, "SegmentRow"]) -> tuple[str, bool]:
    """Return what there is to say of an event, and whether it goes into a segment other than quarantine."""
    reason = place.reason if place.target is None else _closed(rows.get(place.target.segment))
    if place.target is None or reason:
        # What cannot be read has no number that whoever wrote the file would know.
        begins = "" if place.format else f": {place.data[:_SHOWN].decode('utf-8', 'replace')!r}"
        return f"{place.format or '-'}\t{routing.quarantine.segment}\t{reason}{begins}", False
    labels = ",".join(f"{key}={value}" for key, value in place.target.labels)
    new = "" if place.target.segment in rows else f"\tnew {labels}".rstrip()
    return f"{place.format}\t{place.target.segment}{new}", True


def _closed(row: "SegmentRow | None") -> str:
    """Return why a segment takes no such events, or nothing if it does."""
    from tlog.access.action import RESERVED

    if row is None:
        return ""
    if row.name in RESERVED:
        return f"nobody may write to the segment {row.name}"
    if row.sealed is not None:
        return f"the segment {row.name} is sealed"
    return f"the segment {row.name} takes signed events only" if row.signed else ""
