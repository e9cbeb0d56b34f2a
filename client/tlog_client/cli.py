"""The command `tlog-client`: append, read, verify and watch from a shell.

What it finds out is its exit status: 0 verified, 1 refused, 2 wrong usage, 3 could not fetch. Results go to
standard output; everything else, on lines that begin with `tlog-client: `, to standard error.
"""

import json
import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext
from datetime import UTC, datetime
from itertools import chain
from pathlib import Path
from typing import IO, Any, Final

import click
from tlog_core.checkpoint import open_checkpoint
from tlog_core.encoding import canonicalize, encode_base64
from tlog_core.entry import parse_entry
from tlog_core.errors import FetchError, MalformedError, SignatureError, TlogError
from tlog_core.note import VerifierKey
from tlog_core.receipt import JSON_TYPE, Receipt, verify_receipt
from tlog_core.tlog_proof import format_tlog_proof

from tlog_client.answers import OpenedEntry
from tlog_client.errors import RefusedError
from tlog_client.feeder import Feeder
from tlog_client.files import (
    JSON_SUFFIX,
    LINES_SUFFIXES,
    Line,
    read_events,
    read_key,
    read_lines,
    read_receipts,
    read_whole,
)
from tlog_client.log import Log
from tlog_client.text import printable
from tlog_client.writer import Writer

REFUSED: Final = 1
USAGE: Final = 2
NOT_FETCHED: Final = 3
INTERRUPTED: Final = 130
BROKEN_PIPE: Final = 141

Advance = Callable[[int], None]
"""Given the bytes of input that are done with."""

Command = Callable[..., None]


class KeyType(click.ParamType):
    """A verifier key on the command line, or the path of a file that holds one."""

    name = "vkey"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> VerifierKey:
        """Return the key; whatever is wrong with it is wrong usage."""
        try:
            return value if isinstance(value, VerifierKey) else read_key(value)
        except TlogError as error:
            self.fail(str(error), param, ctx)


KEY: Final = click.option(
    "--key",
    envvar="TLOG_KEY",
    type=KeyType(),
    required=True,
    help="The segment's verifier key, or a file that holds it. [env: TLOG_KEY]",
)
URL: Final = click.option(
    "--url",
    envvar="TLOG_URL",
    metavar="URL",
    required=True,
    help="The segment, such as https://log.example/segments/payments. [env: TLOG_URL]",
)
STATE: Final = click.option(
    "--state",
    envvar="TLOG_STATE",
    type=click.Path(file_okay=False, path_type=Path),
    help="The folder that remembers the last verified checkpoint. [env: TLOG_STATE]",
)
OUTPUT: Final = click.option(
    "-o", "--output", type=click.File("wb", lazy=True), default="-", help="Write to this file."
)


def segment(command: Command) -> Command:
    """Give a command the options that name a segment."""
    return URL(KEY(STATE(command)))


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
Exit status: 0 verified, 1 refused, 2 wrong usage, 3 could not fetch.""",
)
@click.version_option(package_name="tlog-client")
def cli() -> None:
    """Write to a segment of a tlog transparency log, and verify what it says.

    Nothing is believed but the segment's verifier key. The last verified checkpoint is kept in a folder, so that
    a log which goes back, or shows two histories, is caught.
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
@click.argument("files", nargs=-1, metavar="[FILE]...", type=click.Path(allow_dash=True, path_type=Path))
def append(
    url: str,
    key: VerifierKey,
    state: Path | None,
    payload_type: str | None,
    output: IO[bytes],
    files: tuple[Path, ...],
) -> None:
    """Log events, and write their receipts, one a line, in the order of the events.

    A FILE that ends in .json is one event, one that ends in .ndjson or .jsonl has one event a line. Without FILE,
    or for -, events are read from standard input, one a line, as they come.
    """
    with _open_log(url, key, state) as log, _progress(files, output) as advance:
        if payload_type is None:
            _append_events(log, _read_all(files or (Path("-"),)), output, advance)
        else:
            _append_payloads(log, files, payload_type, output, advance)


@cli.command(
    epilog="""\b
Example:
    $ tlog-client get 7
    {"entry":{...},"index":7,"opening":"...","payload":{"action":"refund"},"payload_type":"application/json"}
    $ tlog-client get 0 --stop 1000 | jq .payload"""
)
@segment
@click.option("--stop", type=click.IntRange(0), metavar="N", help="All from INDEX up to, and not with, this one.")
@click.argument("index", type=click.IntRange(0), metavar="INDEX")
def get(url: str, key: VerifierKey, state: Path | None, stop: int | None, index: int) -> None:
    """Print the verified entry at INDEX and its payload as JSON, one entry a line.

    A payload that is not JSON is printed in base64.
    """
    with _open_log(url, key, state) as log:
        for opened in [log.entry(index)] if stop is None else log.entries(index, stop):
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
    """Fetch a fresh receipt of the entry at INDEX, under the log's latest checkpoint."""
    with _open_log(url, key, state) as log:
        output.write(bytes(log.prove(index)))


@cli.command(
    epilog="""\b
Example:
    $ tlog-client verify receipt.json --event event.json
    verified: log.example/audit/segments/payments, entry 7 of 9, logged 2026-07-01T09:30:00.000Z by alice, and the event"""
)
@KEY
@click.option(
    "--event",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Also check that this is what was logged. JSON may be spaced and ordered otherwise; "
    "for many receipts, one event a line.",
)
@click.argument("receipt", type=click.Path(path_type=Path), metavar="RECEIPT")
def verify(key: VerifierKey, event: Path | None, receipt: Path) -> None:
    """Verify a receipt without the log: one, many, one a line, or a .tlog-proof."""
    receipts = list(read_receipts(receipt))
    events = _payload_lines(event, len(receipts))
    for (where, one), line in zip(receipts, events, strict=True):
        with_event = _verify_one(where, one, key, line)
        click.echo(f"verified: {_describe(one, key)}{', and the event' if with_event else ''}")
