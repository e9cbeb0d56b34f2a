"""Between an input that may pause or never end, and the receipts that come back in its order."""

import threading
from collections import deque
from collections.abc import Iterable
from concurrent.futures import Future
from dataclasses import dataclass
from types import TracebackType
from typing import Final

from tlog_client.files import Line, parse_event
from tlog_client.writer import Writer
from tlog_core.errors import MalformedError, TlogError
from tlog_core.receipt import Receipt

MAX_UNREAD: Final = 20_000


@dataclass(frozen=True, slots=True)
class Submitted:
    """A piece of input, and the future of its receipt."""

    line: Line
    receipt: Future[Receipt]


class Feeder:
    """Submits lines from a thread of its own, so that waiting for the next holds up no receipt.

    The input ends at its first bad line. The thread does not keep the program alive: it may be waiting for
    input that never comes.
    """

    def __init__(self, writer: Writer, lines: Iterable[Line]) -> None:
        """Begin to read."""
        self._writer = writer
        self._lines = lines
        self._submitted: deque[Submitted] = deque()
        self._failure: TlogError | None = None
        self._ended = False
        self._changed = threading.Condition()
        self._turn = threading.Lock()
        self._slots = threading.Semaphore(MAX_UNREAD)
        threading.Thread(target=self._run, name="tlog-feeder", daemon=True).start()

    def __enter__(self) -> "Feeder":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def first(self) -> Submitted | None:
        """Wait for the first piece of input not yet done with; None after the last.

        Raises what was wrong with the input once all before it is done with.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._submitted or self._ended)
            if self._submitted:
                return self._submitted[0]
            if self._failure is not None:
                raise self._failure
            return None

    def is_answered(self) -> bool:
        """Say whether there is a first, and its receipt is there, so that nobody need wait for it."""
        with self._changed:
            return bool(self._submitted) and self._submitted[0].receipt.done()

    def done(self) -> None:
        """Be done with the first."""
        with self._changed:
            self._submitted.popleft()
        self._slots.release()

    def stop(self, *, cancel: bool = False) -> None:
        """Read no more; what was submitted still comes out, its future cancelled on demand if it was not sent yet."""
        with self._turn, self._changed:
            self._ended = True
            for submitted in self._submitted if cancel else ():
                submitted.receipt.cancel()
            self._changed.notify_all()

    def _run(self) -> None:
        try:
            for line in self._lines:
                self._slots.acquire()
                if not self._submit(line):
                    return
        except TlogError as error:
            self._failure = error
        finally:
            self.stop()

    def _submit(self, line: Line) -> bool:
        event = parse_event(line)
        # Under the lock, so that nothing is submitted after `stop` and then waited for by nobody.
        with self._turn:
            if self._ended:
                return False
            try:
                submitted = Submitted(line, self._writer.submit(event))
            except MalformedError as error:
                raise MalformedError(f"{line.where}: {error}") from None
            with self._changed:
                self._submitted.append(submitted)
                if len(self._submitted) == 1:
                    self._changed.notify_all()
        return True
