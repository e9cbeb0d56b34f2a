"""Whether a server does as its own `/openapi.json` says: schemathesis asks it, and checks each answer."""

import json
import os
import subprocess
import sys
import tempfile
import time
from itertools import count
from pathlib import Path
from typing import Final

import reference
from live import NDJSON, Server, start
from tally import Tally

from tlog_core.note import signer_from_seed

_SCHEMATHESIS: Final = Path(sys.executable).parent / "st"
SEGMENTS: Final = ["payments", *(f"open-{n}" for n in range(9))]
# The ID of a key is a hash of it: nobody comes upon one that holds.
_VKEYS: Final = [str(signer_from_seed(f"till-{n}", reference.sha256(b"%d" % n)).verifier) for n in range(3)]
_GUARDED: Final = "^/(policy|tokens|keys)|/access-requests"
_CONFIG: Final = f"""
hooks = "api_hooks"
suppress-health-check = ["all"]
warnings = false

[generation]
database = "none"

[dictionaries]
vkeys = {{ values = {json.dumps(_VKEYS)} }}
segments = {{ values = {json.dumps(SEGMENTS)} }}
versions = {{ values = ['"1"', '"2"', '"3"'] }}
sizes = {{ values = [0, 1, 2, 3, 299, 300] }}

# Who may not hears so before what they did not send.
[checks.missing_required_header]
expected-statuses = [400, 401, 404]

# Of a request that is good in part, that part is taken.
[[operations]]
include-path = "/v1/logs"
checks.negative_data_rejection.enabled = false

# Nobody comes upon what a monitor has signed.
[[operations]]
include-path-regex = "/bulletins$"
checks.positive_data_acceptance.expected-statuses = ["2xx", "400", "401", "403", "404", "409"]

# No schema says that there is an event, or a channel.
[[operations]]
include-path-regex = "^/services/collector|^/ingest/cloudevents"
checks.positive_data_acceptance.expected-statuses = ["2xx", "400", "401", "404", "415"]

[parameters]
"body.vkey" = {{ dictionary = "vkeys", probability = 1.0 }}
"header.If-Match" = {{ dictionary = "versions", probability = 0.8 }}
"path.segment" = {{ dictionary = "segments", probability = 0.8 }}
"path.index" = {{ dictionary = "sizes", probability = 0.8 }}
"path.size" = {{ dictionary = "sizes", probability = 0.8 }}
"path.old" = {{ dictionary = "sizes", probability = 0.8 }}
"path.new" = {{ dictionary = "sizes", probability = 0.8 }}
"query.start" = {{ dictionary = "sizes", probability = 0.8 }}
"""


def conform(server: Server, folder: Path, *, seed: int, examples: int, token: str) -> subprocess.CompletedProcess[str]:
    """Run schemathesis against a server with what `token` lets one do; its status is 0 if nothing was found."""
    config = folder / "schemathesis.toml"
    config.write_text(_CONFIG)
    command = [str(_SCHEMATHESIS), "--config-file", str(config), "run", "--no-color", "--seed", str(seed)]
    command += ["--max-examples", str(examples)]
    # Unguarded, a server lets nobody change who may do what.
    command += ["--header", f"Authorization: Bearer {token}"] if token else ["--exclude-path-regex", _GUARDED]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent)}
    return subprocess.run(
        [*command, f"{server.url}/openapi.json"], capture_output=True, text=True, cwd=folder, env=environment
    )


def run(seed: int, seconds: float) -> Tally:
    """Ask an unguarded server for so long, each time by another seed that follows from this one."""
    end, found = time.monotonic() + seconds, list[str]()
    with tempfile.TemporaryDirectory() as folder:
        server = start(Path(folder) / "data")
        try:
            for name in SEGMENTS:
                server.create(name).append(b"1\n" * 300, NDJSON)
            for turn in count():
                done = conform(server, Path(folder), seed=seed * 1_000 + turn, examples=20, token="")
                found += [done.stdout] if done.returncode else []
                if time.monotonic() > end:
                    return Tally(turn + 1, found)
        finally:
            server.kill()
    raise AssertionError("numbers do not end")
