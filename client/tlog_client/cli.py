"""The command `tlog-client`: append, read, verify and watch from a shell.

What it finds out is its exit status: 0 verified, 1 refused, 2 wrong usage, 3 could not fetch, or not write what it
found, 4 logged and not cosigned. Results go to standard output; everything else, on lines that begin with
`tlog-client: `, to standard error.
"""

import getpass
import json
import os
import re
import secrets
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import CancelledError
from contextlib import ExitStack, contextmanager, nullcontext, suppress
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from itertools import chain, islice
from pathlib import Path
from random import SystemRandom
from traceback import format_exception
from typing import IO, TYPE_CHECKING, Any, Final, NoReturn

import click
import requests
from click.core import ParameterSource

from tlog_client.answers import OpenedEntry
from tlog_client.cloudtrail import DoneFile, ImportReport, find_files, import_file
from tlog_client.credential import Bearer, credential_of
from tlog_client.errors import RefusedError, StateError, TransientError
from tlog_client.events import MAX_BATCH_BYTES
from tlog_client.feeder import Feeder
from tlog_client.files import (
    JSON_SUFFIX,
    LINES_SUFFIXES,
    STANDARD_INPUT,
    Line,
    is_zip,
    read_events,
    read_evidence,
    read_key,
    read_peers,
    read_policy,
    read_receipts,
    read_signer,
    read_whole,
    read_writer_key,
    write_new,
    write_signer,
)
from tlog_client.log import Log
from tlog_client.state import default_folder
from tlog_client.text import format_time, printable
from tlog_client.transport import Backoff, Transport, check_url, is_web, new_session
from tlog_client.writer import Writer
from tlog_core.checkpoint import Checkpoint, parse_checkpoint, parse_head
from tlog_core.encoding import canonicalize, decode_text, encode_base64
from tlog_core.entry import parse_entry
from tlog_core.errors import (
    EvidenceError,
    FetchError,
    InconsistencyError,
    MalformedError,
    QuorumError,
    SignatureError,
    TlogError,
)
from tlog_core.evidence import describe_evidence
from tlog_core.gossip import format_peers, parse_peers
from tlog_core.note import MAX_NOTE_BYTES, SEED_BYTES, VerifierKey, parse_note, sign_note, signer_from_seed
from tlog_core.policy import TrustPolicy
from tlog_core.receipt import JSON_TYPE, Receipt, verify_receipt
from tlog_core.tile import TILE_WIDTH
from tlog_core.tlog_proof import format_tlog_proof

if TYPE_CHECKING:
    from tlog_client.monitor.command import Listen
    from tlog_client.monitor.gossip import Gossip
    from tlog_client.monitor.rounds import Rounds

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)

REFUSED: Final = 1
USAGE: Final = 2
NOT_FETCHED: Final = 3
NOT_COSIGNED: Final = 4
NO_MONITOR: Final = 5
SIGNALLED: Final = 128
INTERRUPTED: Final = 130
BROKEN_PIPE: Final = 141

MAX_INTERVAL: Final = 86_400.0
MAX_SECONDS: Final = 1_000_000_000

Advance = Callable[[int], None]
"""Given the bytes of input that are done with."""

Command = Callable[..., None]
Decorator = Callable[[Command], Command]


@contextmanager
def _as_usage(param: click.Parameter | None = None) -> Iterator[None]:
    try:
        yield
    except TlogError as error:
        raise (click.BadParameter(str(error), param=param) if param else click.UsageError(str(error))) from None


def _convert_key(_: click.Context, param: click.Parameter, value: str | None) -> VerifierKey | None:
    with _as_usage(param):
        return None if value is None else read_key(value)


def _convert_policy(_: click.Context, param: click.Parameter, value: Path | None) -> TrustPolicy | None:
    with _as_usage(param):
        return None if value is None else read_policy(value)


def _convert_writer_keys(_: click.Context, param: click.Parameter, values: tuple[str, ...]) -> list[VerifierKey]:
    with _as_usage(param):
        return [read_writer_key(value) for value in values]


def _convert_address(_: click.Context, param: click.Parameter, value: str | None) -> tuple[str, int] | None:
    if value is None:
        return None
    host, _colon, port = value.rpartition(":")
    if not host or not re.fullmatch("[0-9]{1,5}", port) or int(port) > 65_535:
        raise click.BadParameter("expected HOST:PORT, such as 127.0.0.1:9100 or [::1]:9100", param=param)
    return host.strip("[]"), int(port)


def _convert_places(
    context: click.Context, param: click.Parameter, values: tuple[str, ...]
) -> list[tuple[str, int] | Path]:
    found = (Path(value) if "/" in value else _convert_address(context, param, value) for value in values)
    return [place for place in found if place is not None]


def _convert_interval(_: click.Context, param: click.Parameter, value: float) -> float:
    # Not a number is neither above nor below anything.
    if not 0 < value <= MAX_INTERVAL:
        raise click.BadParameter(f"expected more than 0 and at most {MAX_INTERVAL:,.0f} seconds", param=param)
    return value


def _convert_time(_: click.Context, param: click.Parameter, value: str | None) -> int | None:
    if value is None:
        return None
    with suppress(ValueError, OverflowError):
        found = datetime.fromisoformat(value)
        if found.tzinfo is not None and found >= _EPOCH:
            return (found - _EPOCH) // timedelta(milliseconds=1)
    raise click.BadParameter("it is no time since 1970 with its zone, such as 2026-07-01T09:30:00Z", param=param)


def _convert_webhook(_: click.Context, param: click.Parameter, value: str | None) -> str | None:
    # It may be a secret, and is not shown.
    if value is not None and not is_web(value):
        raise click.BadParameter("expected an http or https URL, such as https://alerts.example/tlog", param=param)
    return value


INPUT: Final = click.Path(exists=True, dir_okay=False, allow_dash=True, path_type=Path)


def key_option(*, required: bool) -> Decorator:
    """Return the option that pins the segment's key."""
    return click.option(
        "--key",
        envvar="TLOG_KEY",
        callback=_convert_key,
        metavar="VKEY",
        required=required,
        help="The segment's verifier key, or a file that holds it. [env: TLOG_KEY]",
    )


def policy_option(help_text: str, *, required: bool) -> Decorator:
    """Return the option that names the trust policy."""
    return click.option(
        "--policy",
        type=click.Path(exists=True, dir_okay=False, path_type=Path),
        callback=_convert_policy,
        metavar="FILE",
        required=required,
        help=help_text,
    )


def listening_option(name: str, help_text: str) -> Decorator:
    """Return an option that names where to listen for something, any number of times."""
    return click.option(name, multiple=True, callback=_convert_places, metavar="ADDRESS", help=help_text)


KEPT: Final = click.Path(exists=True, dir_okay=False, path_type=Path)

URL: Final[Decorator] = click.option(
    "--url",
    envvar="TLOG_URL",
    metavar="URL",
    required=True,
    help="The segment, such as https://log.example/segments/payments. [env: TLOG_URL]",
)
SERVER: Final[Decorator] = click.option(
    "--server",
    envvar="TLOG_SERVER",
    metavar="URL",
    required=True,
    help="The server, such as https://log.example. [env: TLOG_SERVER]",
)
STATE: Final[Decorator] = click.option(
    "--state",
    envvar="TLOG_STATE",
    type=click.Path(file_okay=False, path_type=Path),
    help="The folder that remembers the last verified checkpoint. [env: TLOG_STATE]",
)
WRITER_KEYS: Final[Decorator] = click.option(
    "--writer-key",
    "writer_keys",
    callback=_convert_writer_keys,
    multiple=True,
    metavar="VKEY",
    help="A writer's verifier key, or a file that holds it: refuse what is in that writer's name and not signed by it. "
    "May be given more than once.",
)
SECONDS: Final = click.IntRange(1, MAX_SECONDS)
OUTPUT: Final[Decorator] = click.option(
    "-o",
    "--output",
    type=click.File("wb", lazy=True),
    default="-",
    help="Write to this file, and not to standard output.",
)


def segment(command: Command) -> Command:
    """Give a command the options that name a segment."""
    return URL(key_option(required=True)(STATE(command)))


def searching(command: Command) -> Command:
    """Give a command the options that say what to search for."""
    options = [
        click.option(
            "--actor", metavar="WHO", help="Who did it. Here and below, a value that ends in * is how it begins."
        ),
        click.option("--action", metavar="WHAT", help="What was done."),
        click.option("--target", metavar="WHAT", help="What it was done to."),
        click.option("--outcome", type=click.Choice(["success", "failure"]), help="How it ended."),
        click.option("--source", metavar="WHERE", help="From where it was done."),
        click.option(
            "--since", callback=_convert_time, metavar="TIME", help="Not before this, such as 2026-07-01T09:30:00Z."
        ),
        click.option("--until", callback=_convert_time, metavar="TIME", help="Before this."),
        click.argument("words", nargs=-1, metavar="[WORD]..."),
    ]
    for option in reversed(options):
        command = option(command)
    return command


@click.group(
    no_args_is_help=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="""\b
Example:
    $ export TLOG_URL=https://log.example/segments/payments TLOG_KEY=payments.vkey
    $ echo '{"action":"refund","amount_cents":1200}' | tlog-client append > receipt.json
    $ tlog-client verify receipt.json
    verified: log.example/audit/segments/payments, entry 7 of 9, logged 2026-07-01T09:30:00.000Z by alice

\b
Exit status: 0 verified, 1 refused, 2 wrong usage, 3 could not fetch, or not write what it found, 4 logged and not
cosigned.""",
)
@click.version_option(package_name="tlog-client")
def cli() -> None:
    """Write to a segment of a tlog transparency log, and verify what it says.

    Nothing is believed but the segment's verifier key. The last verified checkpoint is kept in a folder, so that
    a log which goes back, or shows two histories, is caught. The credential to show is in TLOG_TOKEN, or in the
    file that TLOG_TOKEN_FILE names.
    """


@cli.command(
    epilog="""\b
Example:
    $ tlog-client append --receipts receipts.ndjson events.ndjson
    $ journalctl --follow --output json | tlog-client append --receipts receipts.ndjson
    $ tlog-client append --type application/pdf contract.pdf"""
)
@segment
@click.option("--type", "payload_type", metavar="TYPE", help="Log each FILE as one payload of this media type.")
@click.option(
    "--receipts", "output", type=click.File("ab"), default="-", help="Add the receipts to this file, one a line."
)
@click.option(
    "--sign",
    "signer",
    envvar="TLOG_SIGN",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    metavar="KEYFILE",
    help="Sign with the key in this file, as keygen makes it. [env: TLOG_SIGN]",
)
@click.option(
    "--cosigned",
    is_flag=True,
    help="Have the receipts cosigned by the log's witnesses. Ends with status 4 if not all were in time.",
)
@click.argument("files", nargs=-1, metavar="[FILE]...", type=INPUT)
def append(
    url: str,
    key: VerifierKey,
    state: Path | None,
    payload_type: str | None,
    output: IO[bytes],
    signer: Path | None,
    cosigned: bool,
    files: tuple[Path, ...],
) -> None:
    """Log events, and write their receipts.

    Receipts come one a line, in the order of the events. A FILE that ends in .json is one event, one that ends in
    .ndjson or .jsonl has one event a line. Without FILE, or for -, events are read from standard input, one a line,
    as they come. The first bad line ends it: what stood before it is logged, what stands after it is not.
    """
    files = files or (Path(STANDARD_INPUT),)
    if payload_type is None:
        _check_suffixes(files)
    receipts = Receipts(output)
    try:
        with _open_log(url, key, state, signer=signer, cosigned=cosigned) as log, _progress(files, output) as advance:
            if payload_type is None:
                _append_events(log, chain.from_iterable(map(read_events, files)), receipts, advance)
            else:
                _append_payloads(log, files, payload_type, receipts, advance)
    finally:
        if cosigned and receipts.uncosigned:
            _say_uncosigned(receipts.uncosigned)
    if cosigned and receipts.uncosigned:
        raise click.exceptions.Exit(NOT_COSIGNED)


@cli.command(
    epilog="""\b
Example:
    $ tlog-client get 7
    {"entry":{...},"index":7,"opening":"...","payload":{"action":"refund"},"payload_type":"application/json"}
    $ tlog-client get 0 --stop 1000 | jq .payload"""
)
@segment
@click.option("--stop", type=click.IntRange(0), metavar="N", help="Print all from INDEX to before this one.")
@click.argument("index", type=click.IntRange(0), metavar="INDEX")
def get(url: str, key: VerifierKey, state: Path | None, stop: int | None, index: int) -> None:
    """Print the verified entry at INDEX, and its payload.

    As JSON, one entry a line; a payload that is not JSON is printed in base64.
    """
    with _open_log(url, key, state) as log:
        for opened in [log.entry(index)] if stop is None else log.entries(index, stop):
            click.echo(_format_opened(opened))


@cli.command(
    epilog="""\b
Example:
    $ tlog-client search --actor alice --action refund --since 2026-07-01T00:00:00Z
    $ tlog-client search --target 'secrets/payments/*' --outcome failure chargeback | jq .payload"""
)
@segment
@searching
@click.option("--limit", type=click.IntRange(1), metavar="N", help="No more than N.")
def search(
    url: str, key: VerifierKey, state: Path | None, limit: int | None, words: tuple[str, ...], **given: str | int | None
) -> None:
    """Print the verified entries that have all this, the latest first, as get does.

    A WORD may be anywhere in the event. That no other entry has all this is only the log's word. Where its index is
    behind, that is said.
    """
    terms = _terms(words, given)
    if not terms:
        raise click.UsageError("say what to search for")
    with _open_log(url, key, state) as log:
        found = log.search(**terms)
        if found.indexed < found.size:
            _say(f"the index is behind: of {found.size} entries those from {found.indexed} on were not looked at")
        for opened, _ in islice(found, limit):
            click.echo(_format_opened(opened))


@cli.command(
    epilog="""\b
Example:
    $ tlog-client prove 7 -o receipt.json"""
)
@segment
@OUTPUT
@click.argument("index", type=click.IntRange(0), metavar="INDEX")
def prove(url: str, key: VerifierKey, state: Path | None, output: IO[bytes], index: int) -> None:
    """Fetch a fresh receipt of the entry at INDEX.

    It is under the log's latest checkpoint.
    """
    with _open_log(url, key, state) as log:
        receipt = log.prove(index)
    # Only now is the file opened, and what was in it lost.
    output.write(bytes(receipt))


@cli.command(
    epilog="""\b
Example:
    $ tlog-client upgrade receipt.json --policy trust.policy -o cosigned.json"""
)
@segment
@policy_option("Also check that this trust policy (C2SP tlog-policy) holds then.", required=False)
@OUTPUT
@click.argument("receipt", type=INPUT, metavar="RECEIPT")
def upgrade(
    url: str, key: VerifierKey, state: Path | None, policy: TrustPolicy | None, output: IO[bytes], receipt: Path
) -> None:
    """Put receipts under the newest checkpoint that the log's witnesses have cosigned.

    RECEIPT is as for verify; -o names another file. Ends with status 3 if an entry is not under such a checkpoint yet.
    """
    upgraded = []
    with _open_log(url, key, state) as log:
        for where, one in read_receipts(receipt):
            try:
                upgraded.append(log.upgrade(one))
                if policy is not None:
                    verify_receipt(upgraded[-1], key=policy)
            except TlogError as error:
                raise _at(where, error) from None
    # Only now is the file opened, and what was in it lost.
    for one in upgraded:
        output.write(bytes(one))


@cli.command(
    epilog="""\b
Example:
    $ tlog-client verify receipt.json --event event.json
    verified: log.example/audit/segments/payments, entry 7 of 9, logged 2026-07-01T09:30:00.000Z by alice, the event too
    $ tlog-client verify receipt.json --policy trust.policy"""
)
@key_option(required=False)
@policy_option(
    "A trust policy (C2SP tlog-policy), in place of the key: which logs to believe, and which witnesses must have "
    "cosigned.",
    required=False,
)
@click.option(
    "--event",
    type=INPUT,
    metavar="FILE",
    help="Also check that this is what was logged. JSON may be spaced and ordered otherwise; "
    "for many receipts, one event a line.",
)
@WRITER_KEYS
@click.argument("receipt", type=INPUT, metavar="RECEIPT")
@click.pass_context
def verify(
    context: click.Context,
    key: VerifierKey | None,
    policy: TrustPolicy | None,
    event: Path | None,
    writer_keys: list[VerifierKey],
    receipt: Path,
) -> None:
    """Verify receipts offline, and the events; or an evidence bundle.

    RECEIPT is a file of one receipt, of many, one a line, or a .tlog-proof; - is standard input. With --writer-key each
    must be by a writer whose key is given, and signed by it. Or it is a bundle, as export writes it: then a report is
    printed.
    """
    trust = _trust(context, key, policy)
    if is_zip(receipt):
        if event is not None or writer_keys:
            raise click.UsageError("a bundle has its events with it, and is verified without --event and --writer-key")
        _verify_bundle(receipt, trust)
        return
    for where, one, payload in _with_events(read_receipts(receipt), event):
        _verify_one(where, one, trust, payload, writer_keys)
        signed = ", who signed it" if writer_keys else ""
        click.echo(f"verified: {_describe(one)}{signed}{'' if payload is None else ', the event too'}")


@cli.command(
    epilog="""\b
Example:
    $ tlog-client export --policy trust.policy --start 0 --end 10000 -o first.bundle.zip
    $ tlog-client export --actor alice --since 2026-07-01T00:00:00Z --by 'Ann, internal audit' -o alice.bundle.zip"""
)
@segment
@policy_option(
    "A trust policy (C2SP tlog-policy) by which to verify, and under whose quorum to export. If it has the logs "
    "control and access, what they say of the segment is exported too, as far as you may read it.",
    required=False,
)
@click.option("--start", type=click.IntRange(0), metavar="N", help="The first entry.")
@click.option("--end", type=click.IntRange(0), metavar="N", help="The entry before which to end.")
@searching
@click.option(
    "--by", default=getpass.getuser, metavar="WHO", help="Who exports: it stands in the bundle. [default: your login]"
)
@click.option("-o", "--output", required=True, type=click.Path(dir_okay=False, path_type=Path), help="The bundle.")
def export(
    url: str,
    key: VerifierKey,
    state: Path | None,
    policy: TrustPolicy | None,
    by: str,
    output: Path,
    words: tuple[str, ...],
    start: int | None,
    end: int | None,
    **given: str | int | None,
) -> None:
    """Write entries, and all that proves them, into one file: an evidence bundle.

    It is a zip (spec/bundle.md) with a page that verifies it offline in a browser. All entries from --start to before
    --end are exported, or those that a search finds, or else all. Nothing is written that does not hold.
    """
    # Only now: every other command would wait for it.
    from tlog_client.bundle.command import export_bundle, reserved_logs
    from tlog_client.bundle.verify import trust_of

    terms = _terms(words, given)
    if terms and (start, end) != (None, None):
        raise click.UsageError("give a range or what to search for")
    trust = trust_of(key) if policy is None else policy
    with ExitStack() as stack:
        log = stack.enter_context(_open_log(url, key, state))
        others = {
            name: stack.enter_context(_open_log(where, other, state))
            for name, where, other in reserved_logs(url, key, trust)
        }
        advance = stack.enter_context(_counting("exporting"))
        whole = export_bundle(terms, (start or 0, end), log, others, trust, by=by, advance=advance)
    write_new(output, whole)
    _say(f"exported and verified: {output}, {len(whole)} bytes; tlog-client verify {output} verifies it again")


@cli.command(
    "verify-page",
    epilog="""\b
Example:
    $ tlog-client verify-page -o verify.html""",
)
@OUTPUT
def verify_page(output: IO[bytes]) -> None:
    """Write the page that verifies evidence bundles in a browser, offline.

    It is the one that export puts into each bundle. Its SHA-256 is told on standard error.
    """
    from tlog_client.bundle.page import make_page

    page = make_page()
    output.write(page)
    _say(f"SHA-256 of the page: {sha256(page).hexdigest()}")


@cli.command(
    "verify-evidence",
    epilog="""\b
Example:
    $ tlog-client verify-evidence fork.evidence --policy trust.policy
    proven: log log.example/audit/segments/payments signed two roots of 9 entries: 1wUQZbkq... and 9cJpMzw7...""",
)
@policy_option("The trust policy (C2SP tlog-policy) with the keys that you believe.", required=True)
@click.argument("evidence", type=INPUT, metavar="FILE")
def verify_evidence(policy: TrustPolicy, evidence: Path) -> None:
    """Judge evidence against a log or a witness offline.

    Prints who did what, and ends with status 0, only if FILE proves it by keys of the trust policy; - is standard
    input. Otherwise it ends with status 1, and says why nothing is proven; with 3 if FILE cannot be read, or what is
    proven not be written.
    """
    found = read_evidence(evidence)
    try:
        sentence = describe_evidence(found, policy, now=time.time(), format_time=format_time)
    except EvidenceError as error:
        raise _at(str(evidence), error) from None
    click.echo(f"proven: {_one_line(sentence)}")


@cli.command(
    "export-proof",
    epilog="""\b
Example:
    $ tlog-client export-proof receipt.json -o receipt.tlog-proof""",
)
@OUTPUT
@click.argument("receipt", type=INPUT, metavar="RECEIPT")
def export_proof(output: IO[bytes], receipt: Path) -> None:
    """Write a receipt as a C2SP tlog-proof.

    Other tools of that ecosystem read it. It is not verified here.
    """
    receipts = [one for _, one in read_receipts(receipt)]
    if len(receipts) != 1:
        raise click.UsageError(f"{receipt} has {len(receipts)} receipts; a tlog-proof holds one")
    proof = format_tlog_proof(receipts[0])
    output.write(proof)


@cli.command(
    epilog="""\b
Example:
    $ tlog-client watch --interval 60
    log.example/audit/segments/payments 9 1wUQZbkqUWPbFyUXQlyA4rIyGUrWqkRr6Zr+FXgbBgg="""
)
@segment
@click.option(
    "--interval",
    type=float,
    callback=_convert_interval,
    default=10.0,
    show_default=True,
    metavar="SECONDS",
    help="How long to wait between looks.",
)
@click.option("--once", is_flag=True, help="Look once.")
@WRITER_KEYS
def watch(
    url: str,
    key: VerifierKey,
    state: Path | None,
    interval: float,
    once: bool,
    writer_keys: list[VerifierKey],
) -> None:
    """Follow the segment's checkpoint.

    Prints origin, size and root of each new one that extends all before it. Ends with status 1, and both signed
    notes, if the log goes back or shows two histories; with the index of an entry, if it is in the name of a writer
    whose key is given and not signed by it, or if the writer's entries before it are not all there.
    """
    with _open_log(url, key, state, writer_keys=writer_keys) as log:
        for checkpoint in _looks(log, once=once, interval=interval):
            click.echo(f"{checkpoint.origin} {checkpoint.size} {encode_base64(checkpoint.root)}")


@cli.command(
    "monitor",
    epilog="""\b
Example:
    $ tlog-client monitor --policy trust.policy --state monitor --once
    tlog-client: verified log.example/audit/segments/payments 9 1wUQZbkqUWPbFyUXQlyA4rIyGUrWqkRr6Zr+FXgbBgg=

\b
Exit status with --once: 0 nothing found, 1 evidence, 2 wrong usage, 3 complaints that last, 4 a violation, 5 the
monitor could not do its work.""",
)
@policy_option(
    "The trust policy (C2SP tlog-policy): the logs to follow, with their URLs, and the witnesses.", required=True
)
@click.option(
    "--state",
    envvar="TLOG_MONITOR",
    type=click.Path(file_okay=False, path_type=Path),
    help="The folder that remembers, and keeps the evidence; never remove it. [env: TLOG_MONITOR]",
)
@click.option("--once", is_flag=True, help="Look at each log once.")
@click.option(
    "--interval",
    type=float,
    callback=_convert_interval,
    default=60.0,
    show_default=True,
    metavar="SECONDS",
    help="How long to wait between looks at a log, on average.",
)
@click.option(
    "--max-age",
    type=SECONDS,
    default=1800,
    show_default=True,
    metavar="SECONDS",
    help="How old the quorum's latest cosignatures may be.",
)
@click.option(
    "--patience",
    type=SECONDS,
    default=3600,
    show_default=True,
    metavar="SECONDS",
    help="How long a log may take to show what it has shown to others.",
)
@WRITER_KEYS
@click.option(
    "--webhook",
    envvar="TLOG_WEBHOOK",
    callback=_convert_webhook,
    metavar="URL",
    help="Post each finding there. [env: TLOG_WEBHOOK]",
)
@click.option(
    "--listen", callback=_convert_address, metavar="HOST:PORT", help="Serve /metrics and /healthz at this address."
)
@click.option("--receipt", "receipts", type=INPUT, multiple=True, metavar="FILE", help="Also judge these receipts.")
@click.option("--peers", type=KEPT, metavar="FILE", help="Gossip with the monitors of this signed list.")
@click.option("--peers-key", callback=_convert_key, metavar="VKEY", help="The key that must have signed the list.")
@click.option("--gossip-key", type=KEPT, metavar="KEYFILE", help="Our own key, as keygen makes it.")
@click.option("--bulletins", is_flag=True, help="Tell each log what we know of it, in public, signed with our key.")
def run_monitor(
    policy: TrustPolicy,
    state: Path | None,
    once: bool,
    interval: float,
    max_age: int,
    patience: int,
    writer_keys: list[VerifierKey],
    webhook: str | None,
    listen: tuple[str, int] | None,
    receipts: tuple[Path, ...],
    peers: Path | None,
    peers_key: VerifierKey | None,
    gossip_key: Path | None,
    bulletins: bool,
) -> None:
    """Follow every log of a trust policy from outside.

    Fetches heads from logs and witnesses, rebuilds each tree from its entries, and checks all that spec/monitoring.md
    says. Prints a line of JSON for each finding: evidence that convicts, as a file too; violations of the rules;
    complaints that prove nothing. The credential in TLOG_TOKEN is shown to the logs.

    With --peers it tells other monitors what it verified, and hears them (spec/gossip.md), at --listen too. With
    --bulletins it tells each log, which shows it to its readers (spec/bulletin.md).
    """
    with _monitoring():
        # Only now: every other command would wait for it.
        from tlog_client.monitor.command import Options, check_policy, monitor, status
        from tlog_client.monitor.exchange import gossiping
        from tlog_client.monitor.follower import Settings

        token = credential_of(os.environ)
        _check_gossip(peers, peers_key, gossip_key, bulletins=bulletins)
        with _as_usage():
            signer = None if gossip_key is None else read_signer(gossip_key)
            listed = None if peers is None or peers_key is None else read_peers(peers, peers_key)
            check_policy(policy, credential=token is not None)
            judged = [(where, bytes(one)) for path in receipts for where, one in read_receipts(path)]
        with _looking_bar() as progress:
            options = Options(
                policy=policy,
                state=default_folder(os.environ) / "monitor" if state is None else state,
                settings=Settings(writer_keys, max_age, patience),
                interval=interval,
                token=token,
                webhook=webhook,
                receipts=judged,
                tell=_tell_finding,
                say=_say,
                verified=lambda tree: _say(_one_line(f"verified {tree.origin} {tree.size} {encode_base64(tree.root)}")),
                progress=progress,
                listen=None if listen is None else _listen_at(*listen),
                peers=listed,
                signer=signer,
                posts=bulletins,
            )
            with monitor(options) as (judge, rounds, gossip), _stopping(rounds.stop) as signals:
                if once:
                    _look_once(rounds, gossip)
                else:
                    with nullcontext() if gossip is None else gossiping(gossip, random=SystemRandom(), say=_say):
                        rounds.run()
                found = status(judge)
        raise click.exceptions.Exit(SIGNALLED + signals[0] if signals else found)


@cli.command(
    epilog="""\b
Example:
    $ tlog-client keygen till-7 -o till-7.key > till-7.vkey"""
)
@click.option(
    "-o",
    "--output",
    required=True,
    type=click.Path(path_type=Path),
    help="Write the signer key, a secret, to this file.",
)
@click.argument("name", metavar="NAME")
def keygen(output: Path, name: str) -> None:
    """Make a key by which the writer NAME signs, or a monitor, or whoever keeps the list of monitors.

    Prints its verifier key, which the operator registers, and who reads the log pins. NAME is that under which the
    log knows the writer, or its peers the monitor.
    """
    with _as_usage():
        signer = signer_from_seed(name, secrets.token_bytes(SEED_BYTES))
    write_signer(output, signer)
    click.echo(str(signer.verifier))


@cli.group("import")
def import_() -> None:
    """Bring in what other systems have written to files."""


@import_.command(
    epilog="""\b
Example:
    $ tlog-client import cloudtrail --server https://log.example AWSLogs/
    files: 55 imported, 0 skipped, 0 failed; events: 2900 logged, 0 seen, 0 quarantined"""
)
@SERVER
@click.option(
    "--state",
    envvar="TLOG_STATE",
    type=click.Path(file_okay=False, path_type=Path),
    help="The folder that remembers which files are done with. [env: TLOG_STATE]",
)
@click.argument("paths", nargs=-1, required=True, metavar="PATH...", type=click.Path(exists=True, path_type=Path))
def cloudtrail(server: str, state: Path | None, paths: tuple[Path, ...]) -> None:
    """Log the events of AWS CloudTrail files, each once.

    A PATH is a file, or a folder of which all files that end in .json or .json.gz are taken. The server puts each event
    into its segment, and logs none again that it has seen. Files that are done with are remembered in the folder of
    --state and skipped; after an interruption the same command goes on. Of a file that is no CloudTrail file it is said
    what is wrong, the others are logged, and it ends with status 1.
    """
    files = list(find_files(paths))
    report = ImportReport()
    done = DoneFile(default_folder(os.environ) if state is None else state, server)
    with new_session() as session:
        transport = _server(server, session)
        try:
            with _bar(files, "importing") as advance:
                for path in files:
                    import_file(path, transport, done, report)
                    advance(_length(path))
        finally:
            # Not while the bar is there, whose line it would break.
            for problem in report.failed:
                _say(problem)
            click.echo(str(report))
    if report.failed:
        raise click.exceptions.Exit(REFUSED)


@cli.command(
    "relay",
    epilog="""\b
Example:
    $ tlog-client relay --server https://log.example --syslog 127.0.0.1:601 --vault /run/tlog/vault.sock
    tlog-client: listening for syslog at 127.0.0.1:601
    tlog-client: listening for vault at /run/tlog/vault.sock""",
)
@SERVER
@click.option(
    "--state",
    envvar="TLOG_RELAY",
    type=click.Path(file_okay=False, path_type=Path),
    help="The folder that keeps what is not logged yet. [env: TLOG_RELAY]",
)
@listening_option("--syslog", "Take syslog over TCP.")
@listening_option("--syslog-tls", "Take syslog over TLS.")
@listening_option("--vault", "Take what a socket audit device of OpenBao or Vault sends.")
@click.option("--certificate", type=KEPT, metavar="FILE", help="Our certificate for TLS, as PEM.")
@click.option("--certificate-key", type=KEPT, metavar="FILE", help="The key of the certificate, as PEM.")
@click.option(
    "--clients", type=KEPT, metavar="FILE", help="Take TLS only of clients with a certificate of these authorities."
)
@click.option("--client", "names", multiple=True, metavar="NAME", help="And of those, only from this DNS name.")
def run_relay(
    server: str,
    state: Path | None,
    syslog: list[tuple[str, int] | Path],
    syslog_tls: list[tuple[str, int] | Path],
    vault: list[tuple[str, int] | Path],
    certificate: Path | None,
    certificate_key: Path | None,
    clients: Path | None,
    names: tuple[str, ...],
) -> None:
    """Take syslog, and what Vault audits, and have it logged.

    Where to listen is HOST:PORT, or the path of a Unix socket; each option may be given more than once. While the
    server is away what comes is kept in a folder, up to 16 MiB, and then no more is read, so that senders wait
    (spec/relay.md). The credential to show is in TLOG_TOKEN, or in the file that TLOG_TOKEN_FILE names.
    """
    # Only now: every other command would wait for it.
    import asyncio

    from tlog_client.relay.command import Options, read_tls, relay

    if not (syslog or syslog_tls or vault):
        raise click.UsageError("there is nothing to listen for; give --syslog, --syslog-tls or --vault")
    if bool(syslog_tls) != bool(certificate and certificate_key) or bool(clients) > bool(syslog_tls):
        raise click.UsageError("--syslog-tls needs --certificate and --certificate-key, and is what --clients is for")
    if bool(names) > bool(clients):
        raise click.UsageError("--client needs --clients: the authorities that the name is of")
    with _as_usage():
        tls = read_tls(certificate, certificate_key, clients, names) if certificate and certificate_key else None
        check_url(server)
    folder = default_folder(os.environ) / "relay" if state is None else state
    asyncio.run(relay(Options(server, credential_of(os.environ), folder, syslog, syslog_tls, vault, tls, say=_say)))


@cli.command(
    "sign-peers",
    epilog="""\b
Example:
    $ tlog-client sign-peers --sign list.key < list > peers""",
)
@click.option("--sign", "signer", type=KEPT, required=True, metavar="KEYFILE", help="The key of the list.")
@click.argument("path", default="-", metavar="[FILE]", type=INPUT)
def sign_peers(signer: Path, path: Path) -> None:
    """Sign a list of monitors that gossip with each other.

    The list is tlog/peers/v1, then a line for each: peer, its verifier key, and its URL if it answers at one.
    """
    with _as_usage():
        text = format_peers(parse_peers(decode_text(read_whole(path, limit=MAX_NOTE_BYTES), "a list of peers")))
        signed = sign_note(text, read_signer(signer))
    click.echo(bytes(signed), nl=False)


def main() -> NoReturn:
    """Run the command on the arguments of the process, and exit."""
    _open_streams()
    status = run(sys.argv[1:])
    _drop_unwritten()
    sys.exit(status)


def run(arguments: list[str]) -> int:
    """Run the command and return its exit status; what can be foreseen to go wrong is told on standard error."""
    try:
        with cli.make_context("tlog-client", arguments) as context:
            cli.invoke(context)
            sys.stdout.flush()
    except click.exceptions.Exit as error:
        return error.exit_code
    except click.ClickException as error:
        return _say_usage(error)
    except (click.Abort, KeyboardInterrupt):
        return INTERRUPTED
    except BrokenPipeError:
        return BROKEN_PIPE
    except OSError as error:
        # What is read names its file in an error of ours.
        _say(f"what was found cannot be written: {(error.strerror or str(error)).lower()}")
        return NOT_FETCHED
    except TlogError as error:
        return _say_failure(error)
    return 0


def _open_log(
    url: str,
    key: VerifierKey,
    state: Path | None,
    *,
    signer: Path | None = None,
    writer_keys: Sequence[VerifierKey] = (),
    cosigned: bool = False,
) -> Log:
    try:
        return Log(
            url,
            key,
            state=state,
            token=credential_of(os.environ),
            signer=None if signer is None else read_signer(signer),
            writer_keys=writer_keys,
            cosigned=cosigned,
        )
    except MalformedError as error:
        raise click.UsageError(str(error)) from None


def _terms(words: Sequence[str], given: Mapping[str, str | int | None]) -> dict[str, str | int]:
    terms = {**given, "q": " ".join(words) or None}
    return {name: value for name, value in terms.items() if value is not None}


def _server(url: str, session: requests.Session) -> Transport:
    token = credential_of(os.environ)
    if token is not None:
        session.auth = Bearer(token)
    with _as_usage():
        return Transport(url, session=session, timeout=60.0, backoff=Backoff())


def _trust(context: click.Context, key: VerifierKey | None, policy: TrustPolicy | None) -> VerifierKey | TrustPolicy:
    # A key in the environment is there for the other commands, and does not stand against a policy.
    if policy is not None and context.get_parameter_source("key") is not ParameterSource.COMMANDLINE:
        return policy
    if key is None or policy is not None:
        raise click.UsageError("give either --key, or TLOG_KEY, or --policy")
    return key


def _check_gossip(peers: Path | None, key: VerifierKey | None, signer: Path | None, *, bulletins: bool) -> None:
    if bulletins and signer is None:
        raise click.UsageError("to post bulletins, give --gossip-key: they are signed with it")
    wanted = (peers, key) if bulletins else (peers, key, signer)
    if any(one is not None for one in wanted) and None in (peers, key, signer):
        raise click.UsageError("to gossip, give --peers, --peers-key and --gossip-key")


@contextmanager
def _monitoring() -> Iterator[None]:
    """Have what is not foreseen end a monitor with a status of its own: that of Python, 1, would mean evidence."""
    try:
        yield
    except (click.ClickException, click.exceptions.Exit, click.Abort):
        raise
    except Exception as error:
        known = isinstance(error, StateError)
        _say(str(error) if known else f"this program failed; please report this\n{''.join(format_exception(error))}")
        raise click.exceptions.Exit(NO_MONITOR) from None


def _look_once(rounds: "Rounds", gossip: "Gossip | None") -> None:
    rounds.once()
    for report in () if gossip is None else gossip.round():
        _say(str(report))


def _tell_finding(line: bytes, text: str) -> None:
    _say(_one_line(text))
    try:
        click.echo(line, nl=False)
        sys.stdout.flush()
    except OSError as error:
        # It is not taken for told.
        reason = (error.strerror or str(error)).lower()
        raise StateError(f"what was found cannot be written to standard output: {reason}") from error


def _listen_at(host: str, port: int) -> "Listen":
    try:
        from tlog_client.monitor.exposition import listening, routes
    except ImportError:
        raise click.UsageError("to listen, install the extra: pip install 'tlog-client[monitor]'") from None
    return lambda judge, rounds, more: listening(
        host, port, {**routes(judge, rounds), **more}, ready=lambda url: _say(f"listening on {url}")
    )


@contextmanager
def _looking_bar() -> Iterator[Callable[[str, int, int], None]]:
    # Only where somebody looks, and for a log that takes more than a step.
    bars: dict[str, tuple[Any, int]] = {}
    turn = threading.Lock()

    def advance(origin: str, looked: int, size: int) -> None:
        with turn:
            if origin not in bars and looked < size and not bars:
                bars[origin] = click.progressbar(length=size, label=_one_line(origin), file=sys.stderr), 0
            if origin in bars:
                bar, before = bars[origin]
                bar.update(looked - before)
                bars[origin] = bar, looked
                if looked == size:
                    bar.render_finish()
                    del bars[origin]

    yield advance if sys.stderr.isatty() else lambda _origin, _looked, _size: None


def _check_suffixes(files: Iterable[Path]) -> None:
    for path in files:
        if str(path) != STANDARD_INPUT and path.suffix not in (JSON_SUFFIX, *LINES_SUFFIXES):
            raise click.UsageError(f"{path} ends in none of .json, .ndjson and .jsonl; log it as it is with --type")


class Receipts:
    """Where receipts are written, and how many of them were not cosigned."""

    def __init__(self, output: IO[bytes]) -> None:
        """Write to `output`."""
        self.uncosigned = 0
        self.flush = output.flush
        self._output = output

    def write(self, receipt: Receipt) -> None:
        """Write one."""
        self._output.write(bytes(receipt))
        # The log has it under a head that a quorum cosigned, or under one with its own signature alone.
        note = parse_note(receipt.checkpoint)
        self.uncosigned += all(line.name == parse_head(note.text).origin for line in note.signatures)


def _say_uncosigned(number: int) -> None:
    _say(f"logged, but no quorum of the log's witnesses cosigned in time; receipts that are not cosigned: {number}")
    _say("hint: do not append again; tlog-client upgrade has them cosigned later")


def _append_events(log: Log, lines: Iterator[Line], receipts: Receipts, advance: Advance) -> None:
    with Writer(log) as writer, Feeder(writer, lines) as feeder, _stopping(feeder.stop) as signals:
        _write_receipts(feeder, receipts, advance)
    if signals:
        raise click.exceptions.Exit(SIGNALLED + signals[0])


@contextmanager
def _stopping(stop: Callable[[], None]) -> Iterator[list[int]]:
    """Have the first signal to end call `stop`, because what was sent is logged, and its receipts must not be lost."""
    caught: list[int] = []

    def handle(number: int, _: object) -> None:
        caught.append(number)
        # A second signal ends the program at once.
        signal.signal(number, before[number])
        # In a thread of its own: this one may hold the locks that it needs.
        threading.Thread(target=stop).start()

    before = {int(number): signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield caught
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _write_receipts(feeder: Feeder, receipts: Receipts, advance: Advance) -> None:
    failure: TlogError | None = None
    while (submitted := feeder.first()) is not None:
        try:
            receipts.write(submitted.receipt.result())
        except TlogError as error:
            failure = failure or _at(submitted.line.where, error)
            feeder.stop(cancel=True)
        except CancelledError:
            pass
        feeder.done()
        advance(len(submitted.line.raw) + 1)
        # Whoever reads the other end of the pipe waits for them, but not for each alone.
        if not feeder.is_answered():
            receipts.flush()
    if failure is not None:
        raise failure


def _append_payloads(log: Log, files: Iterable[Path], payload_type: str, receipts: Receipts, advance: Advance) -> None:
    for path in files:
        payload = read_whole(path)
        try:
            receipt = log.append_payload(payload, payload_type)
        except TlogError as error:
            raise _at(str(path), error) from None
        receipts.write(receipt)
        receipts.flush()
        advance(len(payload))


@contextmanager
def _progress(files: tuple[Path, ...], output: IO[bytes]) -> Iterator[Advance]:
    # Only where somebody looks, the end is known, and no receipts run across the screen.
    if output.isatty() or Path(STANDARD_INPUT) in files:
        yield lambda _: None
        return
    with _bar(files, "appending") as advance:
        yield advance


@contextmanager
def _bar(files: Sequence[Path], label: str) -> Iterator[Advance]:
    if not sys.stderr.isatty():
        yield lambda _: None
        return
    with click.progressbar(length=sum(map(_length, files)), label=label, file=sys.stderr) as bar:
        yield bar.update


def _length(path: Path) -> int:
    return path.stat().st_size if path.is_file() else 0


def _format_opened(opened: OpenedEntry) -> str:
    is_json = opened.payload_type == JSON_TYPE
    return json.dumps(
        {
            "entry": json.loads(bytes(opened.entry)),
            "index": opened.index,
            "opening": encode_base64(opened.opening),
            "payload": opened.event() if is_json else encode_base64(opened.payload),
            "payload_type": opened.payload_type,
        },
        separators=(",", ":"),
    )


def _with_events(
    receipts: Iterator[tuple[str, Receipt]], event: Path | None
) -> Iterator[tuple[str, Receipt, bytes | None]]:
    """Yield each receipt with the event that it is to be checked against, None if none was given."""
    if event is None:
        yield from ((where, receipt, None) for where, receipt in receipts)
        return
    first = list(islice(receipts, 2))
    if len(first) < 2:
        yield from ((where, receipt, read_whole(event, limit=MAX_BATCH_BYTES)) for where, receipt in first)
    else:
        events = read_events(event)
        for where, receipt in chain(first, receipts):
            line = next(events, None)
            if line is None:
                raise MalformedError(f"{event} has fewer events than there are receipts")
            yield where, receipt, line.raw
        if next(events, None) is not None:
            raise MalformedError(f"{event} has more events than there are receipts")


def _verify_one(
    where: str,
    receipt: Receipt,
    trust: VerifierKey | TrustPolicy,
    event: bytes | None,
    writer_keys: list[VerifierKey],
) -> None:
    try:
        if event is not None and receipt.payload_type == JSON_TYPE:
            event = canonicalize(event)
        _check_writer(parse_entry(receipt.entry).writer, writer_keys)
        verify_receipt(receipt, key=trust, payload=event, writer_keys=writer_keys)
    except TlogError as error:
        raise _at(where, error) from None


def _verify_bundle(path: Path, trust: VerifierKey | TrustPolicy) -> None:
    from tlog_client.bundle.command import read_report

    told = read_report(path, trust)
    click.echo(f"verified: {path}")
    click.echo(printable(str(told)), nl=False)


@contextmanager
def _counting(label: str) -> Iterator[Advance]:
    # Only where somebody looks: how many there will be is not known beforehand.
    count = 0

    def advance(more: int) -> None:
        nonlocal count
        count += more
        if count % TILE_WIDTH == 0:
            click.echo(f"\r{label}: {count} entries", nl=False, err=True)

    if sys.stderr.isatty():
        yield advance
        click.echo(err=True)
    else:
        yield lambda _: None


def _check_writer(writer: str, keys: list[VerifierKey]) -> None:
    # A log could name somebody else as the writer: who gives a key wants to hear that it signed.
    if keys and all(key.name != writer for key in keys):
        raise SignatureError(f"it is by {writer}, and none of the keys of --writer-key is")


def _describe(receipt: Receipt) -> str:
    entry, size = parse_entry(receipt.entry), parse_checkpoint(parse_note(receipt.checkpoint).text).size
    logged = f"logged {format_time(entry.time)} by {entry.writer}"
    return _one_line(f"{entry.origin}, entry {receipt.index} of {size}, {logged}")


def _one_line(text: str) -> str:
    return printable(text).replace("\n", "?")


def _looks(log: Log, *, once: bool, interval: float) -> Iterator[Checkpoint]:
    last = None
    while True:
        try:
            checkpoint = log.checkpoint()
            if checkpoint != last:
                log.verify_writers(checkpoint)
        except FetchError as error:
            if once or isinstance(error, RefusedError):
                raise
            _say(f"{error}; trying again")
        else:
            if checkpoint != last:
                yield checkpoint
            last = checkpoint
        if once:
            return
        time.sleep(interval)


def _at(where: str, error: TlogError) -> TlogError:
    # The same error may be the answer to many events; it is told for the first of them.
    error.add_note(where)
    return error


def _say(message: str) -> None:
    # Where nobody can hear it the work goes on.
    with suppress(OSError):
        click.echo(f"tlog-client: {printable(message)}", err=True)


def _say_failure(error: TlogError) -> int:
    where = getattr(error, "__notes__", [])[:1]
    _say(": ".join([*where, str(error)]))
    hint = _hint(error)
    if hint:
        _say(f"hint: {hint}")
    return NOT_FETCHED if isinstance(error, FetchError) and not isinstance(error, RefusedError) else REFUSED


def _say_usage(error: click.ClickException) -> int:
    message = error.format_message().rstrip(".")
    variable = error.param.envvar if isinstance(error, click.MissingParameter) and error.param else None
    _say(message[:1].lower() + message[1:] + (f"; give it, or set {variable}" if variable else ""))
    context = getattr(error, "ctx", None)
    _say(f"hint: see {context.command_path if context else 'tlog-client'} --help")
    return USAGE


def _hint(error: TlogError) -> str:
    match error:
        case QuorumError():
            return "the log's witnesses may have cosigned a later head: tlog-client upgrade fetches it"
        case SignatureError():
            return "is this the key, or the trust policy, of that log, or of that writer?"
        case InconsistencyError(evidence=None):
            return "keep the notes above, and ask others what they were shown"
        case InconsistencyError():
            return (
                "keep what is above, from tlog/evidence on, in a file: tlog-client verify-evidence proves it to anyone"
            )
        case RefusedError(status=404):
            return "does the segment exist, and may you see it? check --url"
        case TransientError():
            return "is the log running, and is --url right?"
        case _:
            return ""


def _open_streams() -> None:
    # A shell can close them (`>&-`, `2>&-`): nobody hears what is said, and a result cannot be written. In this order,
    # so that each has the number that it should, and no other file has it.
    sys.stdin = sys.stdin or os.fdopen(os.open(os.devnull, os.O_RDONLY))
    sys.stdout = sys.stdout or os.fdopen(os.open(os.devnull, os.O_RDONLY), "w")
    sys.stderr = sys.stderr or os.fdopen(os.open(os.devnull, os.O_WRONLY), "w")


def _drop_unwritten() -> None:
    # Python would flush once more at exit, complain, and end with a status of its own.
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
