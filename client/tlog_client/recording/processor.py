"""A processor for structlog, which is not needed to import it."""

from collections.abc import MutableMapping
from typing import Any

from tlog_client.recording.record import of_structlog
from tlog_client.recording.recorder import Recorder


class TlogProcessor:
    """Records what it is given, and hands it on as it is. It goes before the processor that renders."""

    def __init__(self, recorder: Recorder) -> None:
        """Record by `recorder`."""
        self._recorder = recorder

    def __call__(self, _: Any, name: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
        """Record an event, and return it."""
        self._recorder.record(of_structlog(name, event))
        return event
