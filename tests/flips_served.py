"""The flips of `tests/flips.py` on the disk of a real server while it runs; a recorder keeps what it releases."""

import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory

import recorder
from flips import BATCHES, ON_DISK, Answer, Ground, open_head
from live import JSON, NDJSON, TLOG, Server, start
from recorder import Recorder
from tally import Tally

from tlog.config import Config
from tlog_core.errors import TlogError
from tlog_core.receipt import mint_receipts, parse_batch_receipt, parse_receipt, verify_receipt


@dataclass
class Served(Ground):
    """A ground that a server answers for once it has begun. What is flipped is flipped back: there is no other copy."""

    server: Server | None = None
    sent: dict[str, tuple[str, Sequence[bytes]]] = field(default_factory=dict)

    def begin(self, program: Sequence[str | Path] = (TLOG,)) -> None:
        """Let go of the folder, and start a server on it."""
        self.services.segments.close()
        os.close(self.client.application.config["LOCK"])
        self.recorder = Recorder(self.config.data.with_suffix(".seen"))
        self.recorder.created("payments", str(self.key))
        for number, batch in enumerate(BATCHES):
            self._sent(f"batch-{number}", batch, batch=True)
        # The event that was logged here, signed.
        self.recorder.sent("payments", [b"1"], writer="till-7")
        # The scrub would freeze the segment, and that is another promise. What is idle is closed ten times a second, so
        # that some is read anew, and some from memory.
        self.server = start(
            self.config.data,
            log_name=None,
            options=["--scrub-rate", "0"],
            environment={"TLOG_IDLE_SECONDS": "0"},
            program=program,
        )

    def ask(self, path: str) -> Answer:
        if self.server is None:
            return super().ask(path)
        found = self.server.request("GET", f"/segments/payments/{path}")
        if found.status == 200 and path.startswith("entries"):
            self.recorder.entries("payments", found.body)
        # What does not verify convinces nobody.
        if found.status == 200 and path == "checkpoint" and open_head(found.body, self.key) is not None:
            self.recorder.note("payments", found.body)
        return Answer(found.status, found.body)

    def post(self, body: bytes, kind: str, key: str) -> Answer:
        if self.server is None:
            return super().post(body, kind, key)
        number, events = self.sent.get(key) or self._sent(key, [body], batch=False)
        headers = {"Content-Type": kind, "Idempotency-Key": key}
        found = self.server.request("POST", "/segments/payments/entries", body, headers)
        if found.status == 201 and self._verifies(found.body, events, batch=kind == NDJSON):
            self.recorder.receipt(number, found.body)
        return Answer(found.status, found.body)

    def _sent(self, key: str, events: Sequence[bytes], *, batch: bool) -> tuple[str, Sequence[bytes]]:
        self.sent[key] = self.recorder.sent("payments", events, key, batch=batch), events
        return self.sent[key]

    def _verifies(self, body: bytes, events: Sequence[bytes], *, batch: bool) -> bool:
        with suppress(TlogError):
            if batch:
                mint_receipts(parse_batch_receipt(body), payloads=events, key=self.key)
            else:
                verify_receipt(parse_receipt(body), key=self.key, payload=events[0])
            return True
        return False

    def wrong_growth(self) -> list[str]:
        """Log nothing while a bit is flipped: with new entries it could not be flipped back."""
        return []

    def end(self) -> list[str]:
        """Log an event, stop, and return what the recorder finds wrong with what is left."""
        assert self.server is not None
        fresh = self.post(b'{"fresh":1}', JSON, "fresh")
        found = [] if fresh.status == 201 else [f"nothing can be logged afterwards: {fresh}"]
        assert self.server.stop() == 0
        verdict = recorder.check(self.config.data, self.recorder.seen(), self.config.data.with_name("judged"))
        return [*found, *verdict.wrong, *(f"{name} refuses: {why}" for name, why in verdict.refused.items())]


def served_on_disk(ground: Served, name: str, random: Random) -> list[str]:
    """Flip a bit of a class, and flip it back; return what is wrong about what was released meanwhile."""
    at = ON_DISK[name][0](ground, random)
    try:
        return [f"{name}: {one}, after {at!r}" for one in ground.wrong()]
    finally:
        ground.undo()


@contextmanager
def served_ground(program: Sequence[str | Path] = (TLOG,)) -> Iterator[Served]:
    with TemporaryDirectory() as folder:
        one = Served(Config(Path(folder) / "data", unguarded=True, idle_seconds=-1.0, scrub_rate=0))
        one.begin(program)
        assert one.server is not None
        try:
            yield one
        finally:
            one.server.kill()


def run(seed: int, seconds: float) -> Tally:
    """Flip bits of all classes below a server, one after the other, for so many seconds; see `scripts/torture`."""
    random, wrong, points, end = Random(seed), list[str](), 0, time.monotonic() + seconds  # noqa: S311
    with served_ground() as one:
        while time.monotonic() < end:
            for name in ON_DISK:
                wrong += served_on_disk(one, name, random)
            points += len(ON_DISK)
        wrong += one.end()
    return Tally(points, wrong)
