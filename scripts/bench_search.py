"""What `scripts/bench` searches for, by the API and on the pages: filters that match much, little and nothing."""

import json
import random
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from datetime import UTC, datetime
from http.client import HTTPConnection

from bench_load import HOST, TIMEOUT_SECONDS, check

WAIT_SECONDS = 1_200


def searches(size: int, now: int, count: int, moment: Callable[[int], str] = str) -> Mapping[str, Sequence[str]]:
    """Return queries by what they are for, so many each, of a segment of a size that was filled up to `now`.

    `moment` writes a time, which is in milliseconds.
    """
    chance = random.Random(1)  # noqa: S311  # no secrets
    kinds: Mapping[str, Callable[[], str]] = {
        "the latest": lambda: f"since={moment(0)}",
        "a page further back": lambda: f"before={chance.randrange(1, size)}",
        "an actor of a fifth": lambda: f"actor=j.smith&before={chance.randrange(1, size)}",
        "an actor's failures": lambda: f"actor=amara.okafor&outcome=failure&before={chance.randrange(1, size)}",
        "a rare target": lambda: f"target=role/{chance.randint(1, 4000)}",
        "targets that begin alike": lambda: f"target=role/{chance.randint(1, 9)}*",
        "all that has a target": lambda: "target=*",
        "words": lambda: "q=ticket+4711+terraform",
        "words that nothing has": lambda: "q=ticket+nowhere",
        "the time": lambda: f"actor=svc-backup&until={moment(now - chance.randrange(0, 60_000))}",
    }
    return {name: [make() for _ in range(count)] for name, make in kinds.items()}


def asked(segment: str, size: int, now: int, count: int) -> Mapping[str, Sequence[str]]:
    """Return paths by what they are for, so many each: of the API, and of the pages."""
    chance = random.Random(2)  # noqa: S311  # no secrets
    entries = f"/web/segments/{segment}/entries"
    return {
        **{
            f"search, p95: {name}": [f"/segments/{segment}/entries?{query}" for query in queries]
            for name, queries in searches(size, now, count).items()
        },
        "page, p95: all entries": [entries] * count,
        "page, p95: all further back": [f"{entries}?before={chance.randrange(1, size)}" for _ in range(count)],
        "page, p95: one entry": [f"{entries}/{chance.randrange(size)}" for _ in range(count)],
        **{
            f"page, p95: {name}": [f"{entries}?{query}" for query in queries]
            for name, queries in searches(size, now, count, _in_form).items()
        },
    }


def _in_form(milliseconds: int) -> str:
    return datetime.fromtimestamp(milliseconds / 1_000, UTC).replace(tzinfo=None).isoformat(timespec="milliseconds")


def wait_until_indexed(port: int, segment: str) -> float:
    """Begin an index, and return how many seconds it took to come to the end; RuntimeError if it does not."""
    began = time.perf_counter()
    with closing(HTTPConnection(HOST, port, timeout=TIMEOUT_SECONDS)) as connection:
        while time.perf_counter() - began < WAIT_SECONDS:
            connection.request("GET", f"/segments/{segment}/entries?before=0")
            page = json.loads(check(connection, 200))
            if page["indexed"] == page["size"]:
                return time.perf_counter() - began
            time.sleep(0.2)
    raise RuntimeError(f"{segment} was not indexed within {WAIT_SECONDS} seconds")


def time_answers(port: int, paths: Sequence[str]) -> list[float]:
    """Ask one after the other, and return what each answer took in milliseconds."""
    spent = []
    with closing(HTTPConnection(HOST, port, timeout=TIMEOUT_SECONDS)) as connection:
        for path in paths:
            began = time.perf_counter()
            connection.request("GET", path)
            check(connection, 200)
            spent.append(1_000 * (time.perf_counter() - began))
    return spent
