"""A server that asks who comes, and takes events without a segment: its routes, its policy, and what it has logged."""

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import requests
from live import LOG_NAME, PATIENCE, Server, tell

ROUTES = """
[[route]]
match = { format = "kubernetes", namespace = "*" }
segment = "k8s-{namespace}"
labels = { system = "kubernetes" }

[[route]]
match = { format = "kubernetes" }
segment = "k8s-cluster"
labels = { system = "kubernetes" }

[[route]]
match = { service = "*" }
segment = "{format}-{service}"
labels = { system = "other" }
"""
POLICY = """
[[rule]]
name = "senders write"
roles = ["writer"]
principals = ["sender"]
segments = ["k8s-*", "cloudtrail-*", "plain-*", "quarantine"]

[[rule]]
name = "senders make what they write to"
roles = ["creator"]
principals = ["sender"]
segments = ["k8s-*"]
labels = { system = "kubernetes" }

[[rule]]
name = "and what is not of Kubernetes"
roles = ["creator"]
principals = ["sender"]
segments = ["cloudtrail-*", "plain-*"]
labels = { system = "other" }

[[rule]]
name = "the auditor reads all of it"
roles = ["auditor"]
principals = ["auditor"]
segments = ["*", "access", "control"]
"""


@dataclass
class Log:
    """A guarded log, as its auditor reads it; `start` runs its server, at the same port each time."""

    data: Path
    sender: str
    auditor: str
    server: Server
    starter: Callable[..., Server]

    def start(self, **options: Any) -> None:
        was = self.server
        self.server = self.starter(
            self.data, port=was.port, guarded=True, log_name=None, certificate=was.certificate, **options
        )

    def get(self, path: str) -> requests.Response:
        shown = {"Authorization": f"Bearer {self.auditor}"}
        return requests.get(f"{self.server.url}{path}", headers=shown, timeout=PATIENCE, verify=self._verify())

    def post(self, kind: str, body: bytes, **headers: str) -> requests.Response:
        shown = {"Authorization": f"Bearer {self.sender}", "Content-Type": "application/json", **headers}
        url = f"{self.server.url}/ingest/{kind}"
        return requests.post(url, data=body, headers=shown, timeout=PATIENCE, verify=self._verify())

    def _verify(self) -> str | bool:
        return str(self.server.certificate or "") or True

    def names(self) -> list[str]:
        return [one["name"] for one in self.get("/segments").json()["segments"]]

    def entries(self, name: str) -> Iterator[Any]:
        start = 0
        while page := self.get(f"/segments/{name}/entries?start={start}&limit=1000").json()["entries"]:
            yield from page
            start += len(page)

    def payloads(self, name: str) -> list[Any]:
        return [one["payload"] for one in self.entries(name)]

    def ids(self, member: str = "auditID") -> Counter[str]:
        """Return how often each event is there, in whatever segment but quarantine, by a member that tells it apart."""
        names = [name for name in self.names() if name not in ("quarantine", "control", "access")]
        return Counter(payload[member] for name in names for payload in self.payloads(name))


def make_log(
    start_server: Callable[..., Server], data: Path, *, policy: str = POLICY, routes: str = ROUTES, **options: Any
) -> Log:
    """Make a log with a quarantine segment, a policy and routes, and start its server."""
    tell("segment", "create", "quarantine", "--data", data, "--log-name", LOG_NAME)
    (data / "routes.toml").write_text(routes)
    (data.parent / "policy.toml").write_text(policy)
    tell("policy", "apply", data.parent / "policy.toml", "--data", data)
    sender, auditor = (tell("token", "issue", name, "--data", data) for name in ("sender", "auditor"))
    return Log(data, sender, auditor, start_server(data, guarded=True, log_name=None, **options), start_server)
