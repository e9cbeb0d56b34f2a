"""Reading ahead: of what is read one after the other, a few are asked for at once, which on a slow network saves most.

The threads are daemons, and no executor's: whoever stops reading, or ends the program, does not wait for an answer.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from threading import Thread
from typing import Final, TypeVar

Place = TypeVar("Place")
Answer = TypeVar("Answer")

AT_ONCE: Final = 4
"""How many answers are waited for, or in hand, at most."""


def read_ahead(fetch: Callable[[Place], Answer], places: Iterable[Place]) -> Iterator[tuple[Place, Answer]]:
    """Yield each place, in order, with what `fetch` returns for it, or raise what it raises; threads call it."""
    under_way: deque[tuple[Place, Future[Answer]]] = deque()
    for place in places:
        under_way.append((place, _begin(fetch, place)))
        if len(under_way) == AT_ONCE:
            yield _finish(*under_way.popleft())
    while under_way:
        yield _finish(*under_way.popleft())


def _begin(fetch: Callable[[Place], Answer], place: Place) -> Future[Answer]:
    answer: Future[Answer] = Future()
    Thread(target=_settle, args=(answer, fetch, place), name="tlog-reader", daemon=True).start()
    return answer


def _finish(place: Place, answer: Future[Answer]) -> tuple[Place, Answer]:
    return place, answer.result()


def _settle(answer: Future[Answer], fetch: Callable[[Place], Answer], place: Place) -> None:
    try:
        answer.set_result(fetch(place))
    except BaseException as error:  # whatever it is, who waits must hear of it
        answer.set_exception(error)
