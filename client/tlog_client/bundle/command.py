"""What the commands `tlog-client export` and `tlog-client verify` do with bundles."""

import time
from collections.abc import Iterator, Mapping
from importlib.metadata import version
from pathlib import Path

from tlog_client.bundle.archive import MAX_BUNDLE_BYTES
from tlog_client.bundle.export import Advance, Exporter, export
from tlog_client.bundle.manifest import SEGMENTS, reserved_beside
from tlog_client.bundle.page import make_page
from tlog_client.bundle.report import Report, report
from tlog_client.bundle.source import LogSource
from tlog_client.bundle.verify import trust_of, verify_bundle
from tlog_client.files import read_whole
from tlog_client.log import Log
from tlog_core.errors import MalformedError
from tlog_core.note import VerifierKey
from tlog_core.policy import TrustPolicy


def export_bundle(
    terms: Mapping[str, str | int],
    span: tuple[int, int | None],
    log: Log,
    reserved: Mapping[str, Log],
    trust: TrustPolicy,
    *,
    by: str,
    advance: Advance,
) -> bytes:
    """Return the bundle of what a search finds or, without terms, of a span of entries; raises as `export`.

    A span ends before its second number, or where the log ends.
    """
    source, (start, end) = LogSource(log), span
    asked = terms or range(start, source.head(trust).checkpoint.size if end is None else end)
    if not asked:
        raise MalformedError(f"there is no entry from {start} on to export")
    tool = f"tlog-client {version('tlog-client')}"
    exporter = Exporter(by, time.time_ns() // 1_000_000, tool, trust, make_page())
    return export(asked, source, {name: LogSource(other) for name, other in reserved.items()}, exporter, advance)


def reserved_logs(url: str, key: VerifierKey, trust: TrustPolicy) -> Iterator[tuple[str, str, VerifierKey]]:
    """Yield name, URL and key of each of the segments `control` and `access` beside one that a trust policy has."""
    log, is_segment, _ = key.name.rpartition(SEGMENTS)
    base, is_ours, _ = url.rstrip("/").rpartition(SEGMENTS)
    for name in reserved_beside(key.name) if is_segment and is_ours else ():
        for other in trust.log_keys(f"{log}{SEGMENTS}{name}")[:1]:
            yield name, f"{base}{SEGMENTS}{name}", other


def read_report(path: Path, trust: VerifierKey | TrustPolicy) -> Report:
    """Return what is said of the bundle in a file, after verifying it; raises as `verify_bundle`, or FetchError."""
    policy = trust if isinstance(trust, TrustPolicy) else trust_of(trust)
    return report(verify_bundle(read_whole(path, limit=MAX_BUNDLE_BYTES), policy))
