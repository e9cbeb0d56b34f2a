"""What servers refuse, beside the errors of `tlog_core`.

`api.problems` gives each its status, and `witness.app` each that a witness has.

TlogError
├── MalformedError
│   ├── LineError                one line of a batch is at fault
│   └── PolicyError              a policy is not what its specification says, or would break the separation of duties
├── UnauthorizedError            no credential, or none that holds
├── CrossSiteError               a page of another site made a browser send the request
├── NotFoundError                no such segment, entry, tile or size
├── LostError                    the entry is there, and its payload is not
├── ConflictError                the segment exists, and is another
├── SealedError                  the segment takes no more entries
├── FrozenError                  the segment takes no entries: a witness knows what its database does not
├── NoWitnessesError             a cosigned receipt, of a server that asks no witnesses
├── RepeatedError                some of the events were logged before
├── UnroutedError                no segment is meant for the event
├── SequenceError                the signed events are not the writer's next in this segment
├── WrongSignatureError          an event is not signed by a registered key of its writer, or a bulletin by its monitor
├── UnknownMonitorError          a bulletin by a key that the operator did not give
├── SignatureRequiredError       the segment takes signed events only
├── QuotaError                   too much for now
├── LengthRequiredError          a body that does not say how long it is
├── TooLargeError                beyond a limit
├── UnsupportedTypeError         a media type that cannot be logged
├── UnsupportedEncodingError     a compressed request body
├── IdempotencyError             one key, two different requests
├── OutcomeUnknownError          the commit failed, and may be durable all the same
├── UnavailableError             refused before it began; nothing was logged
├── BusyError                    as many requests are at work, or sending their bodies, as may; nothing was logged
├── FullError                    the disk has less free than its reserve; nothing was logged
├── StaleError                   another size than that of the latest checkpoint the witness cosigned
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


class PolicyError(MalformedError):
    """A policy is refused: `line`, counted from 1, and the name of the `rule` or quota at fault, where there is one."""

    def __init__(self, message: str, *, line: int | None = None, rule: str | None = None) -> None:
        """Put the line before the message, which names the rule itself."""
        super().__init__(message if line is None else f"line {line}: {message}")
        self.line = line
        self.rule = rule


class UnauthorizedError(TlogError):
    """A request shows no credential, or one that does not hold."""


class CrossSiteError(TlogError):
    """A browser says that a page of another site had it send the request."""


class RepeatedError(TlogError):
    """Some of the events of a submission were logged before; nothing was logged."""

    def __init__(self) -> None:
        """Say so."""
        super().__init__("some of these events were logged before")


class UnroutedError(TlogError):
    """No segment is meant for an event, or none can be."""


class NotFoundError(TlogError):
    """There is no such segment, entry, tile or size."""


class LostError(TlogError):
    """The payloads of [start, end) were lost, and their entries brought back without them."""

    def __init__(self, start: int, end: int) -> None:
        """Say where there may be payloads again."""
        super().__init__(
            f"the payload of entry {start} was lost, and the entry was brought back without it; read entries as tiles, "
            f"and payloads from {end} on"
        )
        self.end = end


class ConflictError(TlogError):
    """What is there already is another than what was to be made."""


class SealedError(TlogError):
    """The last entry of the segment says that it is the last."""


class FrozenError(TlogError):
    """A witness has seen a head that the segment's database cannot have grown to: it may be an old copy."""


class NoWitnessesError(TlogError):
    """A cosigned receipt is asked of a server that has no witnesses to ask."""


class SequenceError(TlogError):
    """The sequence of a writer's signed events does not begin with `expected`, the writer's next in this segment."""

    def __init__(self, found: int, expected: int) -> None:
        """Say both."""
        super().__init__(f"writer_sequence begins with {found}, and {expected} is expected; sign again from there")
        self.expected = expected


class WrongSignatureError(TlogError):
    """What is signed is not signed by the key that it names; `line`, counted from 1, is that of an event at fault."""

    def __init__(self, message: str, line: int | None = None) -> None:
        """Put the line, if there is one, before the message."""
        super().__init__(message if line is None else f"line {line}: {message}")
        self.line = line


class UnknownMonitorError(TlogError):
    """A bulletin names a key that is not among those of the monitors that the operator knows."""


class SignatureRequiredError(TlogError):
    """An unsigned event for a segment that takes signed ones only."""


class QuotaError(TlogError):
    """A quota is used up; `wait` is in how many seconds it is worth to try again."""

    def __init__(self, message: str, wait: float) -> None:
        """Keep the wait beside the message."""
        super().__init__(message)
        self.wait = wait


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


class BusyError(TlogError):
    """As many requests do the same just now as may: no fault, and over soon."""


class FullError(TlogError):
    """The disk has less free than what is kept for what must go on: nothing was logged."""


class StaleError(TlogError):
    """A submission does not start from the latest checkpoint that the witness cosigned, whose size is `size`."""

    def __init__(self, size: int) -> None:
        """Keep the size beside the message."""
        super().__init__(f"the latest checkpoint cosigned has size {size}; prove consistency with that")
        self.size = size


class CorruptError(TlogError):
    """Stored data contradicts itself or its signed head."""


class ConfigError(TlogError):
    """The server cannot run with this configuration, or not here and now."""
