"""What the client raises beyond the errors of `tlog_core.errors`.

TlogError
├── StateError              the folder with the last verified checkpoint cannot be relied on
├── BudgetError             more was brought than is kept of one log; nothing of it was kept
└── FetchError
    ├── SlowError           the time for an answer is over, however much of it came
    ├── RefusedError        the log answered that it will not, and why; nothing was logged
    └── TransientError      the same request may succeed later
        └── OutcomeUnknownError   events may or may not be logged; carries the key that makes a retry safe
"""

from tlog_core.errors import FetchError, TlogError


class StateError(TlogError):
    """What was last verified is not readable any more; to go on without it would be to trust the log blindly."""


class BudgetError(TlogError):
    """A monitor has no place for a head: it holds as many unresolved ones as it keeps, and forgets none of them."""


class SlowError(FetchError):
    """An answer takes too long in all: whoever spins it out is not waited for again at once."""


class RefusedError(FetchError):
    """The log refused the request (a 4xx answer): the segment is as it was.

    `status` is that of HTTP, `type` and `detail` are those of the problem document (RFC 9457), `about:blank` and a
    sentence of ours if there was none. `line` is the line of a batch at fault, counted from 1. `expected_sequence` is
    there if signed events are not the writer's next: what the log says is.
    """

    def __init__(
        self,
        detail: str,
        *,
        status: int,
        kind: str = "about:blank",
        line: int | None = None,
        expected_sequence: int | None = None,
    ) -> None:
        """Keep what the problem document said."""
        super().__init__(f"refused: {detail}")
        self.status = status
        self.type = kind
        self.detail = detail
        self.line = line
        self.expected_sequence = expected_sequence


class TransientError(FetchError):
    """No answer, or one that says to come back later.

    `wait` is how many seconds the log asked for, 0 if it did not say. `reached` is false if the request certainly did
    nothing: it never left, or the log refused it before it began.
    """

    def __init__(self, message: str, *, wait: float = 0.0, reached: bool = True) -> None:
        """Keep both beside the message."""
        super().__init__(message)
        self.wait = wait
        self.reached = reached


class OutcomeUnknownError(TransientError):
    """All attempts to append failed, and the log may have taken the events all the same.

    The same call with this `idempotency_key` logs them once, whatever happened.
    """

    def __init__(self, message: str, *, idempotency_key: str) -> None:
        """Keep the key beside the message."""
        super().__init__(f"{message}; it may be logged or not: retry with the idempotency key {idempotency_key}")
        self.idempotency_key = idempotency_key
