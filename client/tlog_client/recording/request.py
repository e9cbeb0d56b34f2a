"""What the event of a request to a web application is (`spec/python.md`)."""

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any

from tlog_client.recording.recorder import Recorder
from tlog_client.text import format_time


@dataclass(slots=True)
class Exchange:
    """A request, and what becomes of it; recorded once, when it has ended."""

    recorder: Recorder
    method: str
    path: str
    source: str | None
    who: Callable[[], Any]
    status: int | None = None
    began: int = field(default_factory=lambda: time.time_ns() // 1_000_000)
    _start: float = field(default_factory=time.monotonic)
    _ended: bool = False

    def end(self, error: BaseException | None = None) -> None:
        """Record it, with what was raised if anything was."""
        if not self._ended:
            self._ended = True
            self.recorder.record(self._event(error))

    def _event(self, error: BaseException | None) -> dict[str, Any]:
        status = HTTPStatus.INTERNAL_SERVER_ERROR if self.status is None else self.status
        event = {
            "time": format_time(self.began),
            "actor": self._actor(),
            "action": self.method,
            "target": self.path,
            "outcome": "success" if status < HTTPStatus.BAD_REQUEST and error is None else "failure",
            "source": self.source,
            "status": int(status),
            "duration_ms": round((time.monotonic() - self._start) * 1000),
            # Its type alone: the message may hold what was in the request.
            "exception": None if error is None else type(error).__name__,
        }
        return {name: value for name, value in event.items() if value is not None}

    def _actor(self) -> Any:
        try:
            return self.who()
        except Exception:  # it is the application's; the request was made all the same
            logging.getLogger(__name__).exception("cannot tell who made a request")
            return None
