"""What is said of a bundle that holds: the same here and on the page that is in it, `browser/bundle.js`."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.resources import files

from tlog_client.bundle.part import ACCESS, CONTROL
from tlog_client.bundle.verify import VerifiedBundle, VerifiedPart
from tlog_client.text import format_time
from tlog_core.encoding import encode_base64


@dataclass(frozen=True, slots=True)
class Check:
    """A check that was made: what holds, of what, and the clauses that it speaks to."""

    title: str
    detail: str
    clauses: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Report:
    """What is in a bundle, which checks it passed, and what nothing proves."""

    facts: tuple[tuple[str, str], ...]
    checks: tuple[Check, ...]
    notes: tuple[str, ...]

    def __str__(self) -> str:
        """Return it as text, each line with its newline."""
        facts = [f"{label + ':':<15} {value}" for label, value in self.facts]
        checks = [line for one in self.checks for line in (f"  {one.title}: {one.detail}", f"    {_joined(one)}")]
        return "".join(f"{line}\n" for line in [*facts, "checked:", *checks, *(f"note: {one}" for one in self.notes)])


def report(bundle: VerifiedBundle) -> Report:
    """Return what is said of a bundle."""
    table = json.loads((files("tlog_client") / "browser" / "clauses.json").read_bytes())
    details = dict(_details(bundle))
    return Report(
        tuple(_facts(bundle)),
        tuple(
            Check(one["title"], details[one["id"]], tuple(one["clauses"]))
            for one in table["checks"]
            if one["id"] in details
        ),
        tuple(table["notes"][name] for name in _notes(bundle)),
    )


def _facts(bundle: VerifiedBundle) -> Iterator[tuple[str, str]]:
    manifest, part = bundle.manifest, bundle.parts[0]
    tree = part.head.checkpoint
    yield "Segment", manifest.origin
    yield "Exported", _exported(bundle)
    yield "Logged", f"{format_time(part.first_time)} to {format_time(part.last_time)}"
    yield "Key of the log", " ".join(map(str, part.keys))
    yield "Head", f"{tree.size} entries, root {encode_base64(tree.root)}"
    yield "Cosigned by", _cosigned(part) or "nobody whom this trust policy knows"
    for name in (one for one in (CONTROL, ACCESS) if one in manifest.reserved):
        yield f"Of {name}", _looked(manifest.reserved[name], _count(bundle, name))
    yield "Exported by", manifest.by
    yield "Exported at", format_time(manifest.at)
    yield "Exported with", manifest.tool


def _details(bundle: VerifiedBundle) -> Iterator[tuple[str, str]]:
    manifest, part = bundle.manifest, bundle.parts[0]
    count = len(part.indexes)
    yield "signature", manifest.origin
    if part.head.time is not None:
        yield "quorum", f"{part.quorum}, by {format_time(1000 * part.head.time)}"
    yield "inclusion", f"{count} of {part.head.checkpoint.size}"
    yield "commitment", str(count)
    if isinstance(manifest.asked, range):
        yield "complete", f"{manifest.asked.start} to {manifest.asked.stop - 1}"
    for one in bundle.parts[1:]:
        looked = _looked(manifest.reserved[one.name], len(one.indexes))
        yield one.name, f"{looked}; the last of {format_time(one.last_time)}"
    yield "bytes", str(len(manifest.files) + 1)


def _notes(bundle: VerifiedBundle) -> Iterator[str]:
    yield "claims"
    if not isinstance(bundle.manifest.asked, range):
        yield "search"
    looked = bundle.manifest.reserved.values()
    if any(one is not None for one in looked):
        yield "parts"
    if any(one is None or one.start for one in looked):
        yield "omitted"
    if not all(one.is_own for one in bundle.parts):
        yield "stated"
    yield "clauses"


def _exported(bundle: VerifiedBundle) -> str:
    asked = bundle.manifest.asked
    if isinstance(asked, range):
        return f"entries {asked.start} to {asked.stop - 1}"
    count = len(bundle.parts[0].indexes)
    return f"{count} entries, found by {', '.join(f'{name}={asked[name]}' for name in sorted(asked))}"


def _count(bundle: VerifiedBundle, name: str) -> int:
    return sum(len(one.indexes) for one in bundle.parts if one.name == name)


def _looked(looked: range | None, count: int) -> str:
    if looked is None:
        return "not looked through"
    told = f"{count} of the entries {looked.start} to {looked.stop - 1}" if looked else "no entries"
    return f"{told}; those before {looked.start} were not looked through" if looked.start else told


def _cosigned(part: VerifiedPart) -> str:
    return ", ".join(f"{name} {format_time(1000 * time)}" for name, time in part.head.cosigned)


def _joined(check: Check) -> str:
    return "; ".join(check.clauses)
