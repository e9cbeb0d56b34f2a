"""What `tlog fsck` shows: findings as lines of text or JSON, and how far it is."""

import json
import sys
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from tlog.fsck.finding import Finding


class Report:
    """Shows the findings of one run on standard output, and its progress on standard error: a bar on a terminal."""

    def __init__(self, as_json: bool) -> None:
        self._as_json = as_json
        self._bar: Any = None
        self._done = 0
        self._segments = 0
        self._entries = 0

    def show(self, findings: Iterable["Finding"]) -> int:
        """Show findings as they come, and return how many there were."""
        count = 0
        for finding in findings:
            count += 1
            click.echo(_line(finding) if self._as_json else str(finding))
        if self._as_json:
            click.echo(json.dumps({"segments": self._segments, "entries": self._entries, "findings": count}))
        return count

    def progress(self, name: str, done: int, size: int) -> None:
        """Show that so many entries of a segment are checked, all of them when `done` is `size`."""
        if sys.stderr.isatty():
            self._move(name, done, size)
        elif done == size > 0:
            click.echo(f"{name}: {size} entries checked", err=True)
        if done == size:
            self._segments += 1
            self._entries += size

    def _move(self, name: str, done: int, size: int) -> None:
        if self._bar is None:
            self._bar = click.progressbar(length=size, label=name, file=sys.stderr)
            self._done = 0
        self._bar.update(done - self._done)
        self._done = done
        if done == size:
            self._bar.render_finish()
            self._bar = None


def _line(finding: "Finding") -> str:
    return json.dumps(
        {"segment": finding.segment, "place": finding.place, "kind": finding.kind.value, "text": finding.text}
    )
