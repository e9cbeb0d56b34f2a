"""The command `tlog`: run a server or a witness, and look after their data.

Results go to standard output, all else to standard error as `tlog: …`, in lower case and without a full stop.
"""

import os
import sys
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

import click

from tlog.access_cli import policy, token, writer
from tlog.control import OPERATOR
from tlog.shell import REFUSED, change, config_of, data_option, labels_of, log_name_option, report
from tlog.witness_cli import witness

if TYPE_CHECKING:
    from tlog.control import Control


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
@data_option
@click.option("--host", default="127.0.0.1", show_default=True, help="An IP address of this machine.")
@click.option("--port", default=8080, show_default=True, type=click.IntRange(1, 65535))
@click.option("--workers", default=os.cpu_count() or 1, show_default=True, type=click.IntRange(1, 64))
@click.option("--certificate", type=click.Path(path_type=Path), help="Speak TLS with this PEM file.")
@click.option("--key", type=click.Path(path_type=Path), help="The certificate's private key, a PEM file.")
@click.option("--plain-http", is_flag=True, help="Bind to any address without TLS, which ends at a proxy in front.")
@click.option("--unguarded", is_flag=True, help="Let everyone do everything; on loopback only.")
@click.option(
    "--witnesses",
    type=click.Path(path_type=Path),
    envvar="TLOG_WITNESSES",
    help="Ask the witnesses in this file, a C2SP tlog-policy, to cosign.",
)
@click.option(
    "--recosign-seconds",
    default=600.0,
    show_default=True,
    type=click.FloatRange(min=1),
    envvar="TLOG_RECOSIGN_SECONDS",
    help="How often a head that stays as it is is cosigned anew.",
)
@click.option(
    "--cosigned-seconds",
    default=10.0,
    show_default=True,
    type=click.FloatRange(min=0, max=60),
    envvar="TLOG_COSIGNED_SECONDS",
    help="How long a request waits at most for a cosigned receipt.",
)
@click.option(
    "--scrub-rate",
    default=1_000.0,
    show_default=True,
    type=click.FloatRange(min=0),
    envvar="TLOG_SCRUB_RATE",
    help="How many entries a second are checked again, all over and over; 0 for none.",
)
@log_name_option
def serve(
    data: Path,
    host: str,
    port: int,
    workers: int,
    certificate: Path | None,
    key: Path | None,
    plain_http: bool,
    unguarded: bool,
    witnesses: Path | None,
    recosign_seconds: float,
    cosigned_seconds: float,
    scrub_rate: float,
    log_name: str | None,
) -> None:
    """Run the server on a data folder, which is made if it is not there. One server a folder.

    On an empty folder it begins with a segment, a policy, and credentials, which it prints once.
    """
    from tlog.serve import Listen
    from tlog.serve import serve as run

    def start() -> None:
        listen = Listen(host, port, workers, certificate, key, plain_http)
        config = replace(
            config_of(data),
            unguarded=unguarded,
            witnesses=witnesses,
            recosign_seconds=recosign_seconds,
            cosigned_seconds=cosigned_seconds,
            scrub_rate=scrub_rate,
        )
        run(config, listen, log_name)

    report(start)


@main.group()
def segment() -> None:
    """Create and list segments, whether or not a server runs."""


@segment.command("create")
@data_option
@click.argument("name")
@click.option("--label", "labels", multiple=True, metavar="KEY=VALUE", help="May be given more than once.")
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


@main.command()
@data_option
@click.option("--fast", is_flag=True, help="Check only the heads, and the last entries below them.")
@click.option("--json", "as_json", is_flag=True, help="Print a JSON object for each finding, and one that sums up.")
@click.option("--processes", default=os.cpu_count() or 1, show_default=True, type=click.IntRange(1, 64))
@click.option(
    "--resume",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Keep in this file how far the check has come, and go on from there.",
)
@click.argument("names", nargs=-1, metavar="[SEGMENT]...")
def fsck(data: Path, fast: bool, as_json: bool, processes: int, resume: Path | None, names: tuple[str, ...]) -> None:
    """Check every byte that is stored: payloads, commitments, entries, tiles, roots, signatures, indexes.

    Exits 0 if all is well, and 1 after printing each finding with its place. A server may run meanwhile.
    """
    from tlog.fsck.run import Plan, check, check_ends
    from tlog.fsck_shell import Report

    def run() -> None:
        shown = Report(as_json)
        config = config_of(data)
        findings = (
            check_ends(config, names, shown.progress)
            if fast
            else check(config, Plan(names, processes, resume), shown.progress)
        )
        if shown.show(findings):
            sys.exit(REFUSED)

    if fast and resume is not None:
        raise click.UsageError("a fast check begins anew each time; leave out --resume")
    report(run)


@main.command("version")
def show_version() -> None:
    """Print the version."""
    click.echo(version("tlog"))


main.add_command(token)
main.add_command(policy)
main.add_command(writer)
main.add_command(witness)
