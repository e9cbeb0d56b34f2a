"""What the server refuses, beside the errors of `tlog_core`. `api.problems` gives each its status.

TlogError
├── MalformedError
│   └── LineError                one line of a batch is at fault
├── NotFoundError                no such segment, entry, tile or size
├── ConflictError                the segment exists, and is another
├── LengthRequiredError          a body that does not say how long it is
├── TooLargeError                beyond a limit
├── UnsupportedTypeError         a media type that cannot be logged
├── UnsupportedEncodingError     a compressed request body
├── IdempotencyError             one key, two different requests
├── OutcomeUnknownError          the commit failed, and may be durable all the same
├── UnavailableError             refused before it began; nothing was logged
├── CorruptError                 what is stored contradicts itself; nothing is signed on top of it
└── ConfigError                  the server cannot run like this
"""

from tlog_core.errors import MalformedError, TlogError


class LineError(MalformedError):
    """One line of a batch, counted from 1, is at fault."""

    def __init__(self, line: int, message: str) -> None:
        """Put the line before the message."""
        super().__init__(f"line {line}: {message}")
        self.line = line


class NotFoundError(TlogError):
    """There is no such segment, entry, tile or size."""


class ConflictError(TlogError):
    """A segment of this name exists, with other labels."""


class LengthRequiredError(TlogError):
    """A request has a body without Content-Length: nobody could tell whether all of it arrived."""


class TooLargeError(TlogError):
    """A payload, a batch or a request is beyond its limit; `line`, counted from 1, is the one at fault in a batch."""

    def __init__(self, message: str, line: int | None = None) -> None:
        """Put the line, if there is one, before the message."""
        super().__init__(message if line is None else f"line {line}: {message}")
        self.line = line


class UnsupportedTypeError(TlogError):
    """The media type of a request is missing, malformed, or none that can be logged."""


class UnsupportedEncodingError(TlogError):
    """The body of a request is compressed."""


class IdempotencyError(TlogError):
    """An idempotency key came back with other events."""


class OutcomeUnknownError(TlogError):
    """A commit failed: the entries may or may not be durable."""


class UnavailableError(TlogError):
    """The server refused the work before it began: nothing was logged."""


class CorruptError(TlogError):
    """Stored data contradicts itself or its signed head."""


class ConfigError(TlogError):
    """The server cannot run with this configuration, or not here and now."""
