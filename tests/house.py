"""A guarded server with people of every role, and what each of them shows."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from live import JSON, LOG_NAME, Answer, Server, start, tell

from tlog.config import Config
from tlog.segments import Nobody, Segments

TOML = "application/toml"

POLICY = """
[[rule]]
name = "root"
roles = ["admin"]
principals = ["root"]
segments = ["*", "control", "access"]

[[rule]]
name = "examiner"
roles = ["auditor"]
principals = ["examiner"]
segments = ["*", "control", "access"]

[[rule]]
name = "writer"
roles = ["writer"]
principals = ["writer", "till"]
segments = ["payments"]

[[rule]]
name = "monitor"
roles = ["monitor"]
principals = ["monitor"]
segments = ["payments"]

[[rule]]
name = "auditor"
roles = ["auditor"]
principals = ["auditor"]
segments = ["payments"]

[[rule]]
name = "admin"
roles = ["admin"]
principals = ["admin"]
segments = ["payments"]

[[rule]]
name = "creator"
roles = ["creator"]
principals = ["creator"]
segments = ["payments", "fresh-*"]
labels = { env = "prod" }

[[rule]]
name = "approvers"
roles = ["approver"]
principals = ["till", "first", "second"]
segments = ["payments"]

[[rule]]
name = "both, by groups"
roles = ["writer"]
groups = ["tills"]
segments = ["payments"]

[[rule]]
name = "and more, by another"
roles = ["admin"]
groups = ["managers"]
segments = ["payments"]
"""

PEOPLE = ("root", "examiner", "writer", "till", "monitor", "auditor", "admin", "creator", "first", "second", "nobody")


@dataclass
class House:
    """A guarded server, and what each of its people shows."""

    server: Server
    tokens: dict[str, str]

    def ask(self, who: str | None, method: str, path: str, body: bytes | None = None, **headers: str) -> Answer:
        shown = {} if who is None else {"Authorization": f"Bearer {self.tokens.get(who, who)}"}
        kind = {"Content-Type": JSON} if body else {}
        given = {**kind, **{name.replace("_", "-"): value for name, value in headers.items()}}
        return self.server.request(method, path, body, {**shown, **given})

    def append(self, who: str, body: bytes = b"1", segment: str = "payments") -> Answer:
        return self.ask(who, "POST", f"/segments/{segment}/entries", body, Content_Type=JSON)

    def apply(self, document: str, version: int, who: str = "root") -> Answer:
        return self.ask(who, "PUT", "/policy", document.encode(), Content_Type=TOML, If_Match=f'"{version}"')

    def check_no_secret(self) -> None:
        """Check that no secret is in the log, or in any file of the data."""
        secrets = [token.split("_", 2)[2].encode() for token in self.tokens.values() if token.startswith("tlog_")]
        for path in (self.server.log, *self.server.data.rglob("*")):
            if path.is_file():
                content = path.read_bytes()
                assert not any(secret in content for secret in secrets), path

    def recorded(self, segment: str) -> list[Any]:
        """Return the payloads of a reserved segment as they are, from its database."""
        config = Config(self.server.data)
        opened = Segments(config, Nobody(), lambda: 0)
        try:
            with opened.use(segment) as found:
                payloads = found.store.payloads(0, found.store.head().size)
        finally:
            opened.close()
        return [json.loads(one.data) for one in payloads]


def lay(data: Path, policy: str = POLICY) -> dict[str, str]:
    """Make segments, a policy and tokens in a folder, and return the tokens by the names of who has them."""
    tell("segment", "create", "payments", "--data", data, "--label", "env=prod", "--log-name", LOG_NAME)
    tell("segment", "create", "secrets", "--data", data, "--label", "env=prod")
    document = data.parent / "policy.toml"
    document.write_text(policy)
    tell("policy", "apply", document, "--data", data)
    return {name: tell("token", "issue", name, "--data", data) for name in PEOPLE}


def build(data: Path, policy: str = POLICY) -> House:
    tokens = lay(data, policy)
    return House(start(data, guarded=True, log_name=None), tokens)
