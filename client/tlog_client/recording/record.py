"""What the event of a log record is (`spec/python.md`), of the standard library's and of structlog's."""

import logging
import sys
import time
from collections.abc import Mapping
from traceback import format_exception
from typing import Any, Final

from tlog_client.recording.plain import MAX_TEXT, shown
from tlog_client.text import format_time

# Those of the table in the spec: nothing else is written under these names.
_OURS: Final = ("time", "level", "logger", "message", "code", "process", "thread", "exception", "stack", "extra")

# What `logging.LogRecord` has, and formatters put there.
_STANDARD: Final = frozenset(
    {
        "args",
        "asctime",
        "created",
        "exc_info",
        "exc_text",
        "filename",
        "funcName",
        "levelname",
        "levelno",
        "lineno",
        "message",
        "module",
        "msecs",
        "msg",
        "name",
        "pathname",
        "process",
        "processName",
        "relativeCreated",
        "stack_info",
        "taskName",
        "thread",
        "threadName",
    }
)

# What structlog and its processors put into an event.
_OF_STRUCTLOG: Final = frozenset(
    {"event", "timestamp", "level", "logger", "exc_info", "exception", "stack_info", "stack"}
)


def of_record(record: logging.LogRecord) -> dict[str, Any]:
    """Return the event of a record of `logging`: whatever `extra` it has beside."""
    members = {
        "time": _time(record.created),
        "level": record.levelname,
        "logger": record.name,
        "message": _message(record),
        "code": f"{record.pathname}:{record.lineno} in {record.funcName}",
        "process": record.process,
        "thread": record.threadName,
        "exception": _exception(record.exc_info, record.exc_text),
        "stack": record.stack_info,
    }
    return _merged(members, {name: value for name, value in vars(record).items() if name not in _STANDARD})


def of_structlog(name: str, event: Mapping[str, Any]) -> dict[str, Any]:
    """Return the event of what structlog was given through the method `name`, such as `info`."""
    members = {
        "time": event.get("timestamp", format_time(time.time_ns() // 1_000_000)),
        "level": event.get("level", name),
        "logger": event.get("logger"),
        "message": event.get("event"),
        "exception": _exception(event.get("exc_info"), event.get("exception")),
        "stack": event.get("stack") or event.get("stack_info"),
    }
    return _merged(members, {key: value for key, value in event.items() if key not in _OF_STRUCTLOG})


def _merged(members: Mapping[str, Any], extra: Mapping[str, Any]) -> dict[str, Any]:
    free = {name: value for name, value in extra.items() if name not in _OURS}
    taken = {name: value for name, value in extra.items() if name in _OURS}
    present = {name: value for name, value in members.items() if value is not None}
    return {**present, **free, **({"extra": taken} if taken else {})}


def _time(seconds: Any) -> str:
    try:
        return format_time(int(seconds * 1000))
    except (TypeError, ValueError, OverflowError, OSError):
        return shown(seconds)


def _message(record: logging.LogRecord) -> str:
    try:
        return record.getMessage()
    except Exception:  # the arguments are the program's, and need not fit
        return f"{shown(record.msg)} {shown(record.args)}"


def _exception(info: Any, text: Any) -> Any:
    error = _error(info)
    if error is None:
        return None if text is None else {"traceback": text}
    # Its end says more than its beginning.
    traceback = "".join(format_exception(error))[-MAX_TEXT:]
    return {"type": type(error).__name__, "message": _str(error), "traceback": traceback}


def _error(info: Any) -> BaseException | None:
    if info is True:
        info = sys.exc_info()
    error = info[1] if isinstance(info, tuple) and len(info) == 3 else info
    return error if isinstance(error, BaseException) else None


def _str(error: BaseException) -> str:
    try:
        return str(error)
    except Exception:  # as above
        return shown(error)
