"""`tlog segment`: create, list, and close segments, and bring back what one has lost."""

import sys
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import click

from tlog.access.action import CONTROL
from tlog.clock import now
from tlog.config import Config
from tlog.control import OPERATOR
from tlog.errors import FrozenError
from tlog.shell import REFUSED, change, config_of, data_option, labels_of, log_name_option, report

if TYPE_CHECKING:
    from tlog.control import Control
    from tlog.segments import Segments


@click.group()
def segment() -> None:
    """Create and list segments, and look after them.

    Works whether or not a server runs.
    """


@segment.command("create")
@data_option
@click.argument("name")
@click.option("--label", "labels", multiple=True, metavar="KEY=VALUE", help="A label. May be given more than once.")
@click.option("--signed", is_flag=True, help="Take signed events only.")
@log_name_option
def create(data: Path, name: str, labels: tuple[str, ...], signed: bool, log_name: str | None) -> None:
    """Create a segment and print its verifier key, which clients pin."""

    def create_it(control: "Control") -> None:
        click.echo(control.create_segment(OPERATOR, name, labels_of(labels), signed=signed)[0].vkey)

    change(config_of(data), create_it, begin=True, log_name=log_name)


@segment.command("list")
@data_option
def list_segments(data: Path) -> None:
    """Print each segment: name, size, labels, whether it takes signed events only, verifier key, separated by tabs."""
    from tlog.segments import read_segments

    def show() -> None:
        for row, head in read_segments(config_of(data)):
            labels = ",".join(f"{key}={value}" for key, value in row.labels)
            click.echo(f"{row.name}\t{head.size}\t{labels}\t{'signed' if row.signed else '-'}\t{row.vkey}")

    report(show)


@segment.command("seal")
@data_option
@click.argument("name")
def seal_segment(data: Path, name: str) -> None:
    """Seal a segment by a last entry that says so: it takes no more, and what is there stays provable."""
    change(config_of(data), lambda control: control.seal_segment(OPERATOR, name))


@segment.command("status")
@data_option
@click.argument("names", nargs=-1, metavar="[SEGMENT]...")
def status(data: Path, names: tuple[str, ...]) -> None:
    """Say of each segment, or of these, whether it takes entries; if it does not, why, and what to do.

    Exits 1 if one is frozen or damaged.
    """
    from tlog.status import describe_all

    def show() -> None:
        lines, well = describe_all(config_of(data), names)
        click.echo("\n".join(lines))
        if not well:
            sys.exit(REFUSED)

    report(show)


@segment.command("import")
@data_option
@click.argument("name")
@click.argument("sources", nargs=-1, required=True, metavar="SOURCE...")
@click.option(
    "--events",
    multiple=True,
    type=click.Path(path_type=Path),
    help="A file with payloads of the receipts. May be given more than once.",
)
def import_entries(data: Path, name: str, sources: tuple[str, ...], events: tuple[Path, ...]) -> None:
    """Bring back entries that a frozen segment has lost, up to a head that the log has signed; or its missing files.

    A SOURCE is a later data folder or backup, a folder or URL with a copy of the segment's tiles, or a file of
    receipts, the payloads of which are in --events. Nothing is taken that does not make the signed root.
    """
    from tlog.status import open_segments

    def bring() -> None:
        config = config_of(data)
        with open_segments(config) as segments:
            _bring_back(config, segments, name, sources, events)
            if name == CONTROL:
                _put_in_force(config, segments)

    report(bring)


def _bring_back(
    config: Config, segments: "Segments", name: str, sources: tuple[str, ...], events: tuple[Path, ...]
) -> None:
    from tlog.backup import copy_missing
    from tlog.control import Control
    from tlog.fsck_shell import Report
    from tlog.lost import bring_back, find
    from tlog.status import describe

    if copy_missing(config, segments.control.find(name), sources, Report(as_json=False).progress):
        click.echo(f"{name}: its files brought back")
        # What was sealed or succeeded meanwhile does not take entries again.
        with suppress(FrozenError):
            Control(config, segments, now).finish_seal(name)
    else:
        with segments.use(name) as opened:
            before = opened.store.head().size
            head = bring_back(opened, find(config, opened.row, before, sources, events))
            click.echo(f"{name}: {head.size - before} entries brought back")
            # Opened anew, it is compared with its anchor again.
            opened.sequencer.broken = True
    click.echo("\n".join(describe(segments, name)[0]))


def _put_in_force(config: Config, segments: "Segments") -> None:
    """Put in force what was brought back of `control`, and name the segments of which nothing else is there."""
    from tlog.control import Control
    from tlog.segments import missing_files
    from tlog.status import describe

    Control(config, segments, now).catch_up()
    for row in segments.list():
        if missing_files(config, row):
            click.echo("\n".join(describe(segments, row.name)[0]))


@segment.command("succeed")
@data_option
@click.argument("name")
@click.argument("successor")
def succeed(data: Path, name: str, successor: str) -> None:
    """Close a sealed, frozen or lost segment for good, and create SUCCESSOR.

    Its first entry is the old one's last signed head.

    Prints the verifier key of the successor, which clients pin.
    """
    change(config_of(data), lambda control: click.echo(control.succeed_segment(OPERATOR, name, successor).vkey))


@segment.command("accept")
@data_option
@click.argument("names", nargs=-1, required=True, metavar="SEGMENT...")
@click.option("--yes", is_flag=True, help="Do not ask.")
def accept(data: Path, names: tuple[str, ...], yes: bool) -> None:
    """Take what segments have for the latest although their anchors are gone, or for whole after fsck froze them.

    They are checked first, and it is put on record. If anything was signed after what they have, the log forks with
    its next entry, and whoever holds a receipt of it can prove so. Import what there may be first.
    """
    if not yes:
        click.confirm(f"Is this the latest that the log has signed in {', '.join(names)}?", abort=True, err=True)

    from tlog.fsck.freeze import serious
    from tlog.fsck.run import Plan, check

    config = config_of(data)

    def accept_them(control: "Control") -> None:
        findings = serious(check(config, Plan(names), lambda *_: None))
        for finding in findings:
            click.echo(str(finding))
        if findings:
            sys.exit(REFUSED)
        for name in names:
            control.accept_segment(OPERATOR, name)

    change(config, accept_them)
