"""The choke point, when access changes in the middle of a request: whatever the order, nobody goes by the old state."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from flask import Request
from live import LOG_NAME
from werkzeug.test import EnvironBuilder

from tlog.access import Action
from tlog.access.oidc import Oidc
from tlog.clock import now
from tlog.config import Config
from tlog.control import Control
from tlog.errors import NotFoundError, UnauthorizedError
from tlog.files import SharedNumber
from tlog.guard import Guard
from tlog.segments import Nobody, Segments, prepare_data
from tlog.sessions import Sessions
from tlog_core.note import signer_from_seed

POLICY = """
[[rule]]
name = "till"
roles = ["writer"]
principals = ["till"]
segments = ["payments"]

[[rule]]
name = "approvers"
roles = ["approver"]
principals = ["first", "second"]
segments = ["payments"]
"""
KEY = signer_from_seed("till", bytes(32)).verifier


@dataclass
class Worker:
    """One process of a server, as far as it decides: what it knows of the others it reads from the files."""

    control: Control
    guard: Guard


@dataclass
class Workers:
    """Two workers on one data folder: one answers requests, the other makes changes in the middle of them."""

    answering: Worker
    changing: Worker
    opened: list[Segments] = field(default_factory=list)
    token: str = ""

    def may(self, action: Action, segment: str = "payments") -> bool:
        environ = EnvironBuilder(headers=[("Authorization", f"Bearer {self.token}")]).get_environ()
        try:
            self.answering.guard.authorize(Request(environ), action, segment)
        except (NotFoundError, UnauthorizedError):
            return False
        return True


@pytest.fixture
def workers(tmp_path: Path) -> Iterator[Workers]:
    config, opened = Config(tmp_path / "data"), list[Segments]()
    prepare_data(config, LOG_NAME)

    def worker() -> Worker:
        opened.append(Segments(config, Nobody(), now))
        control = Control(config, opened[-1], now)
        return Worker(control, Guard(config, control, Oidc([], now, lambda _: b""), Sessions(bytes(32), now)))

    two = Workers(worker(), worker(), opened)
    change = two.changing.control
    change.create_segment("root", "payments", {})
    change.apply_policy("root", 0, POLICY)
    change.add_key("root", str(KEY))
    two.token = change.issue_token("root", "till", [], 1).text()
    yield two
    for segments in opened:
        segments.close()


def afterwards(owner: Any, name: str, happens: Callable[[], object], patched: pytest.MonkeyPatch) -> None:
    """Let something happen once, right after `owner` has returned what it read."""
    read, left = getattr(owner, name), [happens]

    def reading(*given: Any) -> Any:
        found = read(*given)
        while left:
            left.pop()()
        return found

    patched.setattr(owner, name, reading)


@pytest.mark.parametrize("step", ["generation", "policy", "grants", "token"])
@pytest.mark.parametrize("change", ["policy", "token"])
def test_a_change_in_the_middle_of_a_look_is_seen_by_the_next_request(
    workers: Workers, monkeypatch: pytest.MonkeyPatch, step: str, change: str
) -> None:
    """Whichever of the reads a change comes after, what was read before it is not kept as if it came after."""
    control, store = workers.changing.control, workers.answering.control.store

    def happens() -> None:
        if change == "policy":
            control.apply_policy("root", 1, POLICY.replace('"till"]', '"other"]'))
        else:
            control.revoke_token("root", workers.token.split("_")[1])

    owner, name = {
        "generation": (workers.answering.control.generation, "read"),
        "policy": (store, "policy"),
        "grants": (store, "grants"),
        "token": (store, "token"),
    }[step]
    afterwards(owner, name, happens, monkeypatch)
    # This one began before the change was acknowledged, and may go by either state.
    workers.may(Action.APPEND)
    assert [workers.may(Action.APPEND) for _ in range(3)] == [False] * 3


@pytest.mark.parametrize("step", ["generation", "policy", "grants"])
def test_what_is_gained_in_the_middle_of_a_look_is_there_for_the_next_request(
    workers: Workers, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    control, store = workers.changing.control, workers.answering.control.store
    made = control.request_access("till", "payments", "incident", 1)
    control.approve_access("first", made)
    owner, name = {
        "generation": (workers.answering.control.generation, "read"),
        "policy": (store, "policy"),
        "grants": (store, "grants"),
    }[step]
    afterwards(owner, name, lambda: control.approve_access("second", made), monkeypatch)
    workers.may(Action.READ_PAYLOAD)
    assert workers.may(Action.READ_PAYLOAD)


def test_a_key_that_is_removed_while_it_is_looked_up_signs_no_more(
    workers: Workers, monkeypatch: pytest.MonkeyPatch
) -> None:
    control, guard = workers.changing.control, workers.answering.guard
    afterwards(
        workers.answering.control.store, "writer_keys", lambda: control.remove_key("root", str(KEY)), monkeypatch
    )
    assert guard.writer_keys("till") == [KEY]
    assert guard.writer_keys("till") == []


def test_a_segment_that_is_made_while_it_is_looked_for_is_found_by_the_next_request(
    workers: Workers, monkeypatch: pytest.MonkeyPatch
) -> None:
    control = workers.changing.control
    control.apply_policy("root", 1, POLICY.replace('segments = ["payments"]', 'segments = ["*"]'))
    read = workers.answering.control.store.find

    def finding(name: str) -> Any:
        try:
            return read(name)
        except NotFoundError:
            control.create_segment("root", name, {})
            raise

    monkeypatch.setattr(workers.answering.control.store, "find", finding)
    assert [workers.may(Action.APPEND, "fresh") for _ in range(2)] == [False, True]


def test_missing_and_forbidden_are_looked_up_alike_once_and_then_not_at_all(workers: Workers) -> None:
    workers.changing.control.create_segment("root", "secrets", {})
    assert workers.may(Action.APPEND)
    statements: list[str] = []
    connection = workers.answering.control.store._connection
    connection.set_trace_callback(statements.append)

    def asked(name: str) -> list[str]:
        statements.clear()
        assert not workers.may(Action.APPEND, name)
        return [one.replace(name, "…") for one in statements]

    assert asked("secrets") == asked("missing") != []
    assert [asked(name) for name in ("secrets", "missing") * 3] == [[]] * 6
    connection.set_trace_callback(None)


def test_a_change_whose_maker_dies_before_it_says_so_is_in_force_for_who_looked_meanwhile(
    workers: Workers, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the commit and the number that tells of it, as at any other place, a process may end."""
    changing, generation = workers.changing.control, workers.changing.control.generation
    seen = []

    class DiedError(Exception):
        pass

    def write(number: int) -> None:
        if not number & 1:
            raise DiedError
        SharedNumber.write(generation, number)
        # The old state, read when the number is odd already.
        seen.append(workers.may(Action.APPEND))

    monkeypatch.setattr(generation, "write", write)
    with pytest.raises(DiedError):
        changing.apply_policy("root", 1, POLICY.replace('"till"]', '"other"]'))
    assert seen == [True]
    assert not workers.may(Action.APPEND)
