"""The command `tlog`: run a server or a witness, and look after their data.

Results go to standard output, all else to standard error as `tlog: …`, in lower case and without a full stop.
"""

import os
import sys
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

import click

from tlog.access_cli import policy, token, writer
from tlog.clock import now
from tlog.route_cli import route
from tlog.search_cli import search
from tlog.segment_cli import segment
from tlog.shell import REFUSED, config_of, data_option, log_name_option, report, time_of
from tlog.witness_cli import witness


@click.group(
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="""\b
Example:
  $ tlog segment create payments --data audit --log-name example.com/audit --label env=prod
  $ tlog serve --data audit &
  $ tlog fsck --data audit
""",
)
def main() -> None:
    """Run a transparency log of audit events, and look after its data."""
    # Whoever made the folder: what is in it is for this user alone.
    os.umask(0o077)


@main.command()
@data_option
@click.option(
    "--anchor",
    type=click.Path(path_type=Path, file_okay=False),
    envvar="TLOG_ANCHOR",
    help="The folder of anchors, best on another disk; by default DATA.anchor beside the data.",
)
@click.option("--host", default="127.0.0.1", show_default=True, help="The IP address to listen at.")
@click.option("--port", default=8080, show_default=True, type=click.IntRange(1, 65535), help="The port to listen at.")
@click.option(
    "--workers",
    default=os.cpu_count() or 1,
    show_default=True,
    type=click.IntRange(1, 64),
    help="How many processes answer requests.",
)
@click.option("--certificate", type=click.Path(path_type=Path), help="Speak TLS with this PEM file.")
@click.option("--key", type=click.Path(path_type=Path), help="The certificate's private key, a PEM file.")
@click.option("--plain-http", is_flag=True, help="Bind to any address without TLS, which ends at a proxy in front.")
@click.option("--unguarded", is_flag=True, help="Let everyone do everything; on loopback only.")
@click.option(
    "--witnesses",
    type=click.Path(path_type=Path),
    envvar="TLOG_WITNESSES",
    help="Ask the witnesses of this trust policy, a C2SP tlog-policy, to cosign.",
)
@click.option(
    "--peers",
    type=click.Path(path_type=Path),
    envvar="TLOG_PEERS",
    help="Before anything is signed, ask the monitors whose URLs are in this file, one a line, for the head they know.",
)
@click.option(
    "--monitor-key",
    "monitor_keys",
    multiple=True,
    type=click.Path(path_type=Path),
    envvar="TLOG_MONITOR_KEYS",
    help="Carry what the monitor says whose verifier key is in this file; may be given more than once.",
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
    default=200.0,
    show_default=True,
    type=click.FloatRange(min=0),
    envvar="TLOG_SCRUB_RATE",
    help="How many stored entries a second are checked, from the first to the last and again; 0 for none.",
)
@click.option(
    "--reserve-mib",
    default=256,
    show_default=True,
    type=click.IntRange(min=0),
    envvar="TLOG_RESERVE_MIB",
    help="Take nothing more in while the disk has less free than this.",
)
@log_name_option
def serve(
    data: Path,
    anchor: Path | None,
    host: str,
    port: int,
    workers: int,
    certificate: Path | None,
    key: Path | None,
    plain_http: bool,
    unguarded: bool,
    witnesses: Path | None,
    peers: Path | None,
    monitor_keys: tuple[Path, ...],
    recosign_seconds: float,
    cosigned_seconds: float,
    scrub_rate: float,
    reserve_mib: int,
    log_name: str | None,
) -> None:
    """Run the server on a data folder.

    The folder is made if it is not there, and has one server. On an empty one it begins with a segment, a policy, and
    credentials, which it prints once.
    """
    from tlog.serve import Listen
    from tlog.serve import serve as run

    def start() -> None:
        listen = Listen(host, port, workers, certificate, key, plain_http)
        config = replace(
            config_of(data),
            anchor=None if anchor is None else anchor.absolute(),
            unguarded=unguarded,
            witnesses=witnesses,
            peers=peers,
            monitor_keys=monitor_keys,
            recosign_seconds=recosign_seconds,
            cosigned_seconds=cosigned_seconds,
            scrub_rate=scrub_rate,
            reserve=reserve_mib << 20,
        )
        run(config, listen, log_name)

    report(start)


@main.command()
@data_option
@click.option("--fast", is_flag=True, help="Check only the heads, and the last entries below them.")
@click.option("--json", "as_json", is_flag=True, help="Print a JSON object for each finding, and one that sums up.")
@click.option(
    "--processes",
    default=os.cpu_count() or 1,
    show_default=True,
    type=click.IntRange(1, 64),
    help="How many processes check.",
)
@click.option(
    "--resume",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Keep in this file how far the check has come, and go on from there.",
)
@click.argument("names", nargs=-1, metavar="[SEGMENT]...")
def fsck(data: Path, fast: bool, as_json: bool, processes: int, resume: Path | None, names: tuple[str, ...]) -> None:
    """Check every byte that is stored, of all segments or of these.

    That is payloads, commitments, entries, tiles, roots, signatures, indexes. A server may run meanwhile. Exits 0 if
    all is well, and 1 after printing each finding with its place.
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


@main.command()
@data_option
@click.argument("target", type=click.Path(path_type=Path))
def backup(data: Path, target: Path) -> None:
    """Make a verified backup of a data folder in the new folder TARGET. A server may run meanwhile.

    The backup has the signer keys: keep it as safe as the data itself.
    """
    from tlog.backup import back_up
    from tlog.fsck_shell import Report

    def run() -> None:
        manifest = back_up(config_of(data), target.absolute(), now, Report(as_json=False).progress)
        entries = sum(segment.size for segment in manifest.segments.values())
        click.echo(f"{target}: {len(manifest.segments)} segments of {manifest.log}, {entries} entries, verified")

    report(run)


@main.command()
@data_option
@click.argument("backup", type=click.Path(path_type=Path))
def restore(data: Path, backup: Path) -> None:
    """Put a backup back as a new data folder.

    Says which segments may sign: one is frozen unless its anchor shows that nothing was signed after the backup.
    """
    from tlog import backup as backups
    from tlog.status import describe_all

    def run() -> None:
        manifest = backups.restore(backup.absolute(), data.absolute())
        click.echo(f"{data}: {manifest.log} as it was at {time_of(manifest.at)}")
        click.echo("\n".join(describe_all(config_of(data), [])[0]))

    report(run)


@main.command("version")
def show_version() -> None:
    """Print the version."""
    click.echo(version("tlog"))


main.add_command(segment)
main.add_command(search)
main.add_command(token)
main.add_command(policy)
main.add_command(route)
main.add_command(writer)
main.add_command(witness)
