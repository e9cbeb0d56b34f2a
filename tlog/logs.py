"""Structured logs: one JSON object a line on standard error, never with anything of a payload."""

import sys
from collections.abc import Mapping
from typing import Any

import msgspec
import structlog
from structlog.typing import FilteringBoundLogger


def make_logger() -> FilteringBoundLogger:
    """Return the logger of this process."""
    logger: FilteringBoundLogger = structlog.wrap_logger(
        structlog.BytesLogger(sys.stderr.buffer),
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
