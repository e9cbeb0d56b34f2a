"""A server whose answers a recorder keeps, whoever asks, and which is judged by them at its end."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import requests
from live import JSON, NDJSON, PATIENCE, Answer, Segment, Server
from recorder import Recorder, check

from tlog.access.action import RESERVED
from tlog_core.note import parse_verifier

_BELOW = re.compile(r"/segments/([^/?]+)/(entries|checkpoint|seal)")


@dataclass
class Observed(Server):
    """A server that is asked by one process. All events that are sent to it must be distinct."""

    recorder: Recorder
    sent: dict[tuple[str, str, bytes], str] = field(default_factory=dict)

    def segment(self, name: str, vkey: str) -> "ObservedSegment":
        self.recorder.created(name, vkey)
        return ObservedSegment(f"{self.url}/segments/{name}", name, parse_verifier(vkey), self)

    def request(
        self,
        method: str,
        path: str,
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        timeout: float = PATIENCE,
    ) -> Answer:
        number = self.asked(method, path, body, headers or {})
        answer = super().request(method, path, body, headers, timeout)
        self.told(path, number, answer.status, answer.body)
        return answer

    def asked(self, method: str, path: str, body: bytes | None, headers: Mapping[str, str]) -> str:
        """Keep what is about to be sent, and return the number of events, "" if there are none."""
        found = _BELOW.match(path)
        if found is None or method == "GET":
            return ""
        if found[2] == "seal":
            self.recorder.sealing(found[1])
            return ""
        key, kind = headers.get("Idempotency-Key"), headers["Content-Type"]
        body, batch = body or b"", kind == NDJSON
        known = self.sent.get((found[1], key, body)) if key else None
        events, kind = (body.splitlines(), JSON) if batch else ([body], kind)
        number = known or self.recorder.sent(found[1], events, key, batch=batch, kind=kind)
        if key:
            # Sent again it is the same request.
            self.sent[found[1], key, body] = number
        return number

    def told(self, path: str, number: str, status: int, body: bytes) -> None:
        """Keep what came back."""
        found = _BELOW.match(path)
        # What is put into tlog's own segments nobody sends.
        if found is None or found[1] in RESERVED or status == 503:
            return
        if number and status == 201:
            self.recorder.receipt(number, body)
        elif number:
            self.recorder.refused(number)
        elif status == 200:
            {"entries": self.recorder.entries, "checkpoint": self.recorder.note}.get(found[2], self._sealed)(
                found[1], body
            )

    def _sealed(self, name: str, _: bytes) -> None:
        self.recorder.sealed(name)

    def judge(self) -> None:
        """Stop, and check that what is left bears out all that was released, and goes on."""
        if self.process.poll() is None:
            assert self.stop() == 0
        verdict = check(self.data, self.recorder.seen(), self.recorder.path.with_name("judged"))
        assert (verdict.wrong, verdict.refused) == ([], {})


@dataclass(frozen=True)
class ObservedSegment(Segment):
    """A segment of an observed server."""

    server: Observed

    def get(self, path: str, **headers: str) -> requests.Response:
        found = super().get(path, **headers)
        self.server.told(f"/segments/{self.name}{path}", "", found.status_code, found.content)
        return found

    def post(self, body: bytes, kind: str = JSON, key: str | None = None) -> requests.Response:
        path, headers = f"/segments/{self.name}/entries", {"Content-Type": kind}
        number = self.server.asked("POST", path, body, headers | ({"Idempotency-Key": key} if key else {}))
        found = super().post(body, kind, key)
        self.server.told(path, number, found.status_code, found.content)
        return found


def observe(server: Server, seen: Path | None = None) -> Observed:
    """Keep in a file, by default beside the data, what a server releases from now on."""
    return Observed(**vars(server), recorder=Recorder(seen or server.data.with_suffix(".seen")))
