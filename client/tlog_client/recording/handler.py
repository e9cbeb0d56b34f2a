"""A handler for `logging` that records each record in a log."""

import logging
from pathlib import Path

from tlog_client.recording.record import of_record
from tlog_client.recording.recorder import MAX_BYTES, Recorder
from tlog_client.recording.sender import is_ours


class TlogHandler(logging.Handler):
    """Puts an event of each record (`spec/python.md`) into the spool of a `Recorder`, and never waits for the log.

    When `emit` has returned the event survives the process; `flush` makes it durable on this machine; `close`, which
    `logging` calls at the end of the program, closes the recorder. What the threads that send say is not recorded.
    """

    def __init__(self, recorder: Recorder, level: int | str = logging.NOTSET) -> None:
        """Record by `recorder`, which others may use too."""
        super().__init__(level)
        self._recorder = recorder
        # A filter, and not in `emit`, which runs under the handler's lock: `logging` holds that while it closes.
        self.addFilter(lambda record: not is_ours(record))

    def emit(self, record: logging.LogRecord) -> None:
        """Record it; what goes wrong is for `handleError`, and never raised."""
        try:
            self._recorder.record(of_record(record))
        except Exception:  # as every handler does
            self.handleError(record)

    def flush(self) -> None:
        """Make what was recorded durable on this machine; raise OSError."""
        self._recorder.flush()

    def close(self) -> None:
        """Close the recorder: within five seconds, and without loss."""
        self._recorder.close()
        super().close()


def open_handler(
    *,
    url: str,
    key: str,
    spool: str,
    token_file: str | None = None,
    signer: str | None = None,
    state: str | None = None,
    max_bytes: int = MAX_BYTES,
) -> TlogHandler:
    """Return a handler with a recorder of its own, from texts alone, as `logging.config` has them; see `Recorder`."""
    token = None if token_file is None else Path(token_file)
    return TlogHandler(Recorder(url, key, spool, token=token, signer=signer, state=state, max_bytes=max_bytes))
