"""Where findings go: lines for programs and people, a folder of evidence, and a webhook (`spec/monitoring.md`)."""

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from threading import Event, Lock, Thread
from typing import Final

import requests

from tlog_client.durable import replace_durably, sync_folder
from tlog_client.errors import StateError
from tlog_client.monitor.memory import Memory
from tlog_core.evidence import MAX_EVIDENCE_BYTES

SUFFIX: Final = ".evidence"
WEBHOOK_SECONDS: Final = 10.0
MAX_PAUSE: Final = 300.0

_BATCH: Final = 100


class Teller:
    """Tells each finding once, and again only if a crash left open whether it was told."""

    def __init__(self, memory: Memory, tell: Callable[[bytes, str], None]) -> None:
        """`tell` takes a finding as a line for programs and as text for people."""
        self._memory = memory
        self._tell = tell
        self._turn = Lock()

    def flush(self) -> None:
        """Tell what was not told yet, in order; forget what nobody waits for any more."""
        with self._turn:
            untold = self._memory.untold()
            for number, line, text in untold:
                self._tell(line, text)
                self._memory.tell(number)
            if untold:
                self._memory.prune()


class EvidenceFolder:
    """A folder of evidence, each file named by the SHA-256 of its content; nothing ever removes one."""

    def __init__(self, path: Path) -> None:
        """Make the folder if it is not there; StateError if it cannot be."""
        self._path = path
        try:
            path.mkdir(mode=0o700, parents=True, exist_ok=True)
            sync_folder(path.parent)
        except OSError as error:
            raise StateError(f"cannot keep evidence in {path}: {error.strerror}") from error

    def keep(self, name: str, raw: bytes) -> None:
        """Store a file, durable with its name when this returns; StateError if that fails."""
        try:
            # What is there may have been cut short since.
            if _content(self._path / name) != raw:
                replace_durably(self._path / name, raw)
        except OSError as error:
            raise StateError(f"cannot keep evidence in {self._path}: {error.strerror}") from error

    def files(self, *, passed_over: Callable[[str], None]) -> dict[str, bytes]:
        """Return the name and content of each file that is there; `passed_over` hears of what can be no evidence."""
        found: dict[str, bytes] = {}
        for path in sorted(self._path.glob(f"*{SUFFIX}")):
            raw = _content(path)
            if raw is None:
                passed_over(f"{path}: passed over, for it is no file of at most {MAX_EVIDENCE_BYTES} bytes to read")
            else:
                found[path.name] = raw
        return found


def _content(path: Path) -> bytes | None:
    """Return what is in a file that may be one of evidence, None if it is none: a pipe would be waited for."""
    try:
        if path.is_file() and path.stat().st_size <= MAX_EVIDENCE_BYTES:
            return path.read_bytes()
    except OSError:
        pass
    return None


class Webhook:
    """Posts findings to a URL, in order, each until the answer is 2xx: at least once, and from the memory."""

    def __init__(self, memory: Memory, url: str, *, failed: Callable[[str], None]) -> None:
        """`failed` hears why a finding was not taken, once until it is. The URL may be a secret and is never shown."""
        self._memory = memory
        self._url = url
        self._failed = failed
        self._wake = Event()
        self._stop = False
        self._session = requests.Session()
        self._thread = Thread(target=self._run, name="tlog-webhook", daemon=True)

    def start(self) -> None:
        """Begin to deliver."""
        self._thread.start()

    def wake(self) -> None:
        """Say that there may be more to deliver."""
        self._wake.set()

    def stop(self, seconds: float) -> None:
        """Deliver what can be delivered at once, and stop; what is left is delivered by the next run."""
        self._stop = True
        self._wake.set()
        self._thread.join(seconds)

    def _run(self) -> None:
        # A memory that fails stops the monitor, which says so.
        with suppress(StateError):
            self._deliver_all()

    def _deliver_all(self) -> None:
        pause, quiet = 1.0, False
        while True:
            reason = self._deliver()
            if reason and not quiet:
                self._failed(reason)
            quiet, pause = bool(reason), min(MAX_PAUSE, pause * 2) if reason else 1.0
            if self._stop and (reason or not self._memory.undelivered(1)):
                return
            if reason or not self._wake.is_set():
                self._wake.wait(pause if reason else None)
            self._wake.clear()

    def _deliver(self) -> str:
        """Return why delivering stopped, nothing if all is delivered."""
        while batch := self._memory.undelivered(_BATCH):
            for number, line in batch:
                if reason := self._post(line):
                    return reason
                self._memory.deliver(number)
        self._memory.prune()
        return ""

    def _post(self, line: bytes) -> str:
        try:
            with self._session.post(
                self._url,
                data=line,
                headers={"Content-Type": "application/json"},
                timeout=WEBHOOK_SECONDS,
                allow_redirects=False,
                stream=True,
            ) as response:
                status = response.status_code
        except requests.RequestException as error:
            return f"no answer from the webhook: {type(error).__name__}"
        return "" if 200 <= status < 300 else f"the webhook answered with HTTP status {status}"
