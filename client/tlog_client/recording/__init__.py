"""Recording what a Python program does: a handler for `logging`, a processor for structlog, middleware for the web.

All put events into the spool of a `Recorder`, from where they come into a log, each once (`spec/python.md`).
"""

from tlog_client.recording.asgi import AsgiMiddleware
from tlog_client.recording.handler import TlogHandler, open_handler
from tlog_client.recording.processor import TlogProcessor
from tlog_client.recording.recorder import Recorder
from tlog_client.recording.wsgi import WsgiMiddleware

__all__ = ["AsgiMiddleware", "Recorder", "TlogHandler", "TlogProcessor", "WsgiMiddleware", "open_handler"]
