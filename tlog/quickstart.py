"""What a server on an empty folder begins with: a segment, a policy, and a credential for each of three people."""

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from shlex import quote
from typing import Final

from tlog.control import OPERATOR, Control
from tlog.files import write_durably

SEGMENT: Final = "first"
_PEOPLE: Final = ("admin", "writer", "auditor")
_DAYS: Final = 90
_POLICY: Final = """\
# The policy that tlog began with; spec/access.md says what it may say.

[[rule]]
name = "the administrator"
roles = ["admin", "creator", "approver"]
principals = ["admin"]
segments = ["*", "access", "control"]

[[rule]]
# Who makes segments too: what receivers take goes into segments that are made for it; spec/ingest.md.
name = "the writer"
roles = ["writer", "creator"]
principals = ["writer"]
segments = ["*"]

[[rule]]
name = "the auditor"
roles = ["auditor"]
principals = ["auditor"]
segments = ["*", "access", "control"]
"""


@dataclass(frozen=True, slots=True)
class Beginning:
    """What was made: the file of the segment's verifier key, and each person's token, which nobody can show again."""

    vkey: Path
    tokens: dict[str, str]


def begin(control: Control, data: Path) -> Beginning:
    """Make segment, policy and credentials in a folder that has none."""
    row, _ = control.create_segment(OPERATOR, SEGMENT, {})
    vkey = data / f"{SEGMENT}.vkey"
    write_durably(vkey, f"{row.vkey}\n".encode())
    control.apply_policy(OPERATOR, 0, _POLICY)
    return Beginning(vkey, {name: control.issue_token(OPERATOR, name, (), _DAYS).text() for name in _PEOPLE})


def describe(beginning: Beginning, url: str) -> Iterator[str]:
    """Yield the lines that tell who began a log what to do first, from any folder, in any shell."""
    # Where it is, since nobody who ran scripts/serve has it on the path.
    client = quote(str(Path(sys.executable).with_name("tlog-client")))
    key = f"--key {quote(str(beginning.vkey))}"
    segment = f"--url {url}/segments/{SEGMENT} {key}"
    yield f"A new log. These credentials are good for {_DAYS} days, and are shown this once:"
    for name, token in beginning.tokens.items():
        yield f"  {name:8} {token}"
    yield "Append, read, verify:"
    append, read = beginning.tokens["writer"], beginning.tokens["auditor"]
    yield f"""  echo '{{"action":"hello"}}' | TLOG_TOKEN={append} {client} append {segment} > hello.receipt"""
    yield f"  TLOG_TOKEN={read} {client} get {segment} 0"
    yield f"  {client} verify {key} hello.receipt"
    yield f"Or open {url}/ in a browser, and sign in with the auditor's token."
