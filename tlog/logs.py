"""Structured logs: one JSON object a line on standard error, never with anything of a payload."""

import logging
import os
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, Final

import msgspec
import structlog
from structlog.typing import FilteringBoundLogger

_STDERR: Final = 2


class _StandardError:
    """Writes each line by one system call: lines of several threads and processes do not mix, and none is held back."""

    def msg(self, line: bytes) -> None:
        write_lines(line + b"\n")

    debug = info = warning = error = critical = msg


class _Known:
    """Leaves out what the HTTP server says at each start of the number of threads, which was chosen by measurement."""

    def filter(self, record: logging.LogRecord) -> bool:
        return not record.getMessage().startswith("Configuration allows spawning up to")


def write_lines(lines: bytes) -> None:
    """Write whole lines to standard error."""
    # Whoever reads the log may have gone, or its disk be full; requests are answered all the same.
    with suppress(OSError):
        os.write(_STDERR, lines)


def server_logging() -> dict[str, Any]:
    """Return the configuration by which the HTTP server's own messages come out as lines of the same form."""
    formatter = {
        "()": structlog.stdlib.ProcessorFormatter,
        "processors": [
            structlog.stdlib.ProcessorFormatter.remove_processors_meta,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.JSONRenderer(serializer=lambda event, **_: _encode(event).decode()),
        ],
    }
    return {
        "formatters": {"json": formatter},
        "filters": {"known": {"()": _Known}},
        "handlers": {
            "console": {
                "class": "logging.StreamHandler",
                "formatter": "json",
                "filters": ["known"],
                "stream": "ext://sys.stderr",
            }
        },
        "loggers": {"_granian": {"handlers": ["console"], "propagate": False}},
    }


def make_logger() -> FilteringBoundLogger:
    """Return the logger of this process."""
    logger: FilteringBoundLogger = structlog.wrap_logger(
        _StandardError(),
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            structlog.processors.JSONRenderer(serializer=_encode),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(20),
    )
    return logger


def _encode(event: Mapping[str, Any], **_options: Any) -> bytes:
    return msgspec.json.encode(event, enc_hook=str)
