"""What the event of a log record is, also of one that no JSON could hold."""

import logging
import sys
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
import structlog
from hypothesis import given, settings
from hypothesis import strategies as st
from live import Segment

from tlog_client.events import MAX_PAYLOAD_BYTES
from tlog_client.recording import Recorder, TlogProcessor
from tlog_client.recording.plain import MAX_TEXT, event_bytes
from tlog_client.recording.record import of_record, of_structlog
from tlog_core.encoding import parse_json


def make(message: Any = "paid", *arguments: Any, extra: dict[str, Any] | None = None, **more: Any) -> logging.LogRecord:
    logger = logging.Logger("shop.till")
    info = more.pop("exc_info", None)
    return logger.makeRecord(
        "shop.till", logging.WARNING, "/srv/till.py", 12, message, arguments, info, "pay", extra, **more
    )


def event_of(record: logging.LogRecord) -> Any:
    return parse_json(event_bytes(of_record(record)))


def raised(error: BaseException) -> Any:
    try:
        raise error
    except type(error):
        return sys.exc_info()


class Nasty:
    """What raises whatever is asked of it."""

    def __repr__(self) -> str:
        raise ValueError("no repr")

    def __str__(self) -> str:
        raise ValueError("no str")


class NastyError(Exception):
    def __str__(self) -> str:
        raise ValueError("no str")


def test_a_record_is_what_the_table_says() -> None:
    record = make("paid %d", 12)
    record.created = 1_764_000_000.5
    assert event_of(record) == {
        "time": "2025-11-24T16:00:00.500Z",
        "level": "WARNING",
        "logger": "shop.till",
        "message": "paid 12",
        "code": "/srv/till.py:12 in pay",
        "process": record.process,
        "thread": "MainThread",
    }


def test_extras_come_out_beside_it() -> None:
    given_ = {"actor": "alice", "action": "refund", "target": {"id": "order-7"}, "outcome": "success", "amount": 12}
    event = event_of(make(extra=given_))
    assert {name: event[name] for name in given_} == given_


def test_no_extra_poses_as_what_the_record_says() -> None:
    event = event_of(make(extra={"time": "never", "level": "DEBUG", "extra": 1, "exception": "none"}))
    assert event["level"] == "WARNING"
    assert "exception" not in event
    assert event["extra"] == {"time": "never", "level": "DEBUG", "extra": 1, "exception": "none"}


def test_an_exception_is_told_with_its_traceback() -> None:
    exception = event_of(make(exc_info=raised(ValueError("no money"))))["exception"]
    assert (exception["type"], exception["message"]) == ("ValueError", "no money")
    assert "Traceback" in exception["traceback"]
    assert exception["traceback"].endswith("ValueError: no money\n")


def test_of_a_long_traceback_the_end_is_kept() -> None:
    exception = event_of(make(exc_info=raised(ValueError("x" * 2 * MAX_TEXT + "end"))))["exception"]
    assert exception["traceback"].endswith("xend\n")
    assert len(exception["traceback"]) == MAX_TEXT


@pytest.mark.parametrize(
    ("value", "becomes"),
    [
        (2**53 - 1, 2**53 - 1),
        (2**53, "9007199254740992"),
        (-(2**70), "-1180591620717411303424"),
        ([10**5000], ["<int>"]),
        (float("nan"), "nan"),
        (float("-inf"), "-inf"),
        (1e16, "1e+16"),
        (1e300, 1e300),
        (0.1, 0.1),
        (True, True),
        (None, None),
        ("\ud800x\udfff", "\\ud800x\\udfff"),
        ("x" * (MAX_TEXT + 1), "x" * MAX_TEXT + "…"),
        ((1, [2, {3}]), [1, [2, [3]]]),
        ({1: "a", None: "b", "c": 3}, {"1": "a", "None": "b", "c": 3}),
        (b"\xff", "b'\\xff'"),
        (datetime(2026, 1, 2, tzinfo=UTC), "2026-01-02T00:00:00+00:00"),
        (Path("/etc/passwd"), "/etc/passwd"),
        (UUID(int=1), "00000000-0000-0000-0000-000000000001"),
        (Decimal("1.50"), "1.50"),
        (range(3), "range(0, 3)"),
        (Nasty(), "<Nasty instance at "),
    ],
)
def test_what_is_no_json_becomes_text(value: Any, becomes: Any) -> None:
    found = event_of(make(extra={"value": value}))["value"]
    if isinstance(value, Nasty):
        assert found.startswith(becomes)
    else:
        assert found == becomes
        assert type(found) is type(becomes)


def test_what_has_no_end_has_one() -> None:
    loop: list[Any] = []
    loop.append(loop)
    wide: list[Any] = []
    for _ in range(200):
        wide = [wide] * 10
    event = event_of(make(extra={"loop": loop, "wide": wide}))
    assert set(event) >= {"loop", "wide"}


@pytest.mark.parametrize(
    "record",
    [
        make("%d %s", "x"),
        make(Nasty()),
        make("%s", Nasty()),
        make(extra={"x" * 70_000: 1, "\udc80": Nasty()}),
        make(exc_info=raised(NastyError())),
        make(exc_info=(None, None, None)),
        logging.makeLogRecord({"created": "yesterday", "args": 7, "exc_text": "Traceback …"}),
        logging.makeLogRecord({"created": float("nan"), "name": None, "levelname": Nasty()}),
    ],
)
def test_any_record_is_an_event(record: logging.LogRecord) -> None:
    assert {"time", "message"} <= set(event_of(record))


def test_an_event_that_is_too_large_is_cut_and_says_so() -> None:
    more = {f"{number}{'x' * 1000}": ["\0" * 30_000] for number in range(100)}
    event = event_of(make("y" * 2_000_000, extra={"actor": "alice", **more}))
    assert len(event_bytes(event)) <= MAX_PAYLOAD_BYTES
    assert (event["cut"], event["actor"], event["logger"]) == (True, "alice", "shop.till")
    assert event["message"].startswith("yyy")


VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(st.characters(exclude_categories=[]))
    | st.binary()
    | st.datetimes()
    | st.complex_numbers(),
    lambda inner: (
        st.lists(inner)
        | st.frozensets(st.integers())
        | st.dictionaries(st.text(st.characters()) | st.integers(), inner)
    ),
)


@settings(max_examples=30, deadline=None)
@given(st.dictionaries(st.text(st.characters(exclude_categories=[])), VALUES))
def test_any_values_are_an_event_that_the_log_takes(values: dict[str, Any]) -> None:
    parse_json(event_bytes(values))


# structlog


@pytest.fixture
def recorder(segment: Segment, tmp_path: Path) -> Recorder:
    return Recorder(segment.url, segment.key, tmp_path / "spool", state=tmp_path / "state")


def test_structlog_hands_on_what_was_recorded(segment: Segment, recorder: Recorder) -> None:
    shown: list[dict[str, Any]] = []

    def render(_logger: Any, _name: str, event: Any) -> str:
        shown.append(dict(event))
        return str(event)

    log = structlog.wrap_logger(
        structlog.PrintLogger(),
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso"),
            TlogProcessor(recorder),
            render,
        ],
    )
    with structlog.contextvars.bound_contextvars(actor="alice"):
        log.warning("refunded", action="refund", message="mine")
        try:
            raise ValueError("no money")
        except ValueError:
            log.exception("failed")
    recorder.close()
    first, second = (entry["payload"] for entry in segment.entries(0, 2))
    assert shown[0]["event"] == "refunded"
    assert first == {
        "time": shown[0]["timestamp"],
        "level": "warning",
        "message": "refunded",
        "actor": "alice",
        "action": "refund",
        "extra": {"message": "mine"},
    }
    assert second["exception"]["message"] == "no money"
    assert second["exception"]["traceback"].endswith("ValueError: no money\n")


def test_structlog_needs_no_processor_before() -> None:
    event = of_structlog("info", {"event": "x", "exc_info": ValueError("no"), "n": 1})
    assert (event["level"], event["message"], event["n"]) == ("info", "x", 1)
    assert event["exception"]["type"] == "ValueError"
    assert event["time"].endswith("Z")
