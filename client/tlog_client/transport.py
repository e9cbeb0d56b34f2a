"""HTTP to one segment (`spec/http-api.md`): what comes back is bytes of bounded length, or an error.

Nothing here believes an answer. Redirects are not followed: the segment is where its user says it is.
"""

import itertools
import math
import random
import socket
import time
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from http.cookiejar import DefaultCookiePolicy
from typing import Any, Final
from urllib.parse import urlsplit

import requests
import urllib3

from tlog_client.deadline import TOO_LONG, DeadlineAdapter, DeadlineError
from tlog_client.errors import RefusedError, SlowError, TransientError
from tlog_client.text import printable
from tlog_core.encoding import parse_decimal, parse_json
from tlog_core.errors import FetchError, MalformedError

CONNECT_SECONDS: Final = 10.0
MAX_PROBLEM_BYTES: Final = 65_536
MAX_DETAIL: Final = 1_000
RETRY_STATUSES: Final = frozenset({429, 502, 503, 504})

_CHUNK_BYTES: Final = 16_384
_GZIP: Final = 16 + zlib.MAX_WBITS

# By so much an answer that does not get smaller may be longer than what is in it: a header, and five bytes a block.
_OVERHEAD_BYTES: Final = 65_536


@dataclass(frozen=True, slots=True)
class Backoff:
    """How often a request is tried, and how long to wait in between, in seconds.

    The wait doubles from `first` on, with jitter, or is what the log asked for if that is longer, up to `longest`.
    """

    attempts: int = 6
    first: float = 0.2
    longest: float = 30.0
    sleep: Callable[[float], None] = time.sleep
    jitter: Callable[[], float] = random.random

    def pause(self, attempt: int, *, asked: float) -> None:
        """Sleep after the failed `attempt`, counted from 1."""
        wait = self.first * 2 ** (attempt - 1) * (0.5 + self.jitter() / 2)
        self.sleep(min(self.longest, max(asked, wait)))


class Transport:
    """The routes of one segment, below its prefix."""

    def __init__(
        self,
        url: str,
        *,
        session: requests.Session,
        timeout: float,
        backoff: Backoff,
        deadline: float = math.inf,
    ) -> None:
        """Take the segment's prefix and the longest silence, in seconds, to bear; raise MalformedError for no URL.

        `deadline` is how many seconds an answer may take in all, so that one which trickles cannot last for ever.
        """
        self._url = check_url(url)
        self._deadline = deadline
        self._session = session
        self._timeout = timeout
        self._backoff = backoff

    def get(self, path: str, *, limit: int) -> bytes:
        """Return the answer, at most `limit` bytes; raise FetchError."""
        headers = {"Accept-Encoding": "gzip", "Cache-Control": "no-cache"}
        return self._retried(lambda: self._once("GET", path, expected=200, limit=limit, headers=headers))

    def post(
        self,
        path: str,
        body: bytes,
        *,
        content_type: str,
        limit: int,
        idempotency_key: str | None = None,
        expected: int = 201,
    ) -> bytes:
        """Return the answer, at most `limit` bytes, to what is safe to send again, be it by a key; raise FetchError.

        Any other status than the one that is `expected` is an error.
        """
        headers = {
            "Accept-Encoding": "identity",
            "Content-Type": content_type,
            **({} if idempotency_key is None else {"Idempotency-Key": idempotency_key}),
        }
        return self._retried(
            lambda: self._once("POST", path, expected=expected, limit=limit, headers=headers, body=body)
        )

    def _retried(self, once: Callable[[], bytes]) -> bytes:
        reached = False
        for attempt in itertools.count(1):
            try:
                return once()
            except TransientError as error:
                reached = reached or error.reached
                if attempt >= self._backoff.attempts:
                    raise TransientError(str(error), wait=error.wait, reached=reached) from error
                self._backoff.pause(attempt, asked=error.wait)
        raise AssertionError("counting ended")

    def _once(
        self,
        method: str,
        path: str,
        *,
        expected: int,
        limit: int,
        headers: Mapping[str, str],
        body: bytes | None = None,
    ) -> bytes:
        end = time.monotonic() + self._deadline
        try:
            with self._session.request(
                method,
                f"{self._url}/{path}",
                data=body,
                headers=headers,
                timeout=(CONNECT_SECONDS, self._timeout),
                allow_redirects=False,
                stream=True,
            ) as response:
                if response.status_code == expected:
                    return _read(response, limit, end)
                raise _failure(response, _read(response, MAX_PROBLEM_BYTES, end))
        except requests.RequestException as error:
            raise self._unanswered(error) from error

    def _unanswered(self, error: requests.RequestException) -> FetchError:
        cause = _cause(error)
        message = f"no answer from {self._url}: {_describe(cause)}"
        if isinstance(cause, DeadlineError):
            return SlowError(message)
        passing = (
            requests.ConnectionError,
            requests.Timeout,
            requests.exceptions.ChunkedEncodingError,
        )
        # A certificate does not become right by asking again.
        if isinstance(error, passing) and not isinstance(error, requests.exceptions.SSLError):
            never_left = isinstance(cause, (ConnectionRefusedError, socket.gaierror))
            return TransientError(message, reached=not never_left)
        return FetchError(message)


def new_session(head_seconds: float | None = None) -> requests.Session:
    """Return a session that keeps no cookies: by one a log could know each client, and show it a history of its own.

    With `head_seconds`, the headers of no answer take longer, whatever trickles in.
    """
    session = requests.Session()
    if head_seconds is not None:
        for scheme in ("http://", "https://"):
            session.mount(scheme, DeadlineAdapter(head_seconds))
    session.cookies.set_policy(DefaultCookiePolicy(allowed_domains=[]))
    return session


def check_url(url: str) -> str:
    """Return a prefix without a slash at its end; raise MalformedError if it is no URL of HTTP."""
    if not is_web(url) or "?" in url:
        raise MalformedError(f"not the URL of a segment: {url}; expected such as https://log.example/segments/payments")
    return url.rstrip("/")


def is_web(url: str) -> bool:
    """Tell whether a text is a URL of HTTP that leads to some host."""
    try:
        parts = urlsplit(url)
        return parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False


def read_body(response: requests.Response, *, limit: int, end: float, decode: bool = False) -> bytes:
    """Return the body of an answer that comes as a stream, with the Content-Encoding gzip undone if it is to `decode`.

    Raises FetchError if it has more than `limit` bytes, SlowError if it is not there by `end` on the monotonic clock,
    and what urllib3 does.
    """
    body, received = bytearray(), 0
    packed = zlib.decompressobj(_GZIP) if decode and response.headers.get("Content-Encoding") == "gzip" else None
    # As much as has come, and not iter_content, which waits until a chunk is full, however slowly it trickles in. Nor
    # has urllib3 anything to unpack: it reads on for as long as nothing comes of it.
    while chunk := response.raw.read1(_CHUNK_BYTES, decode_content=False):
        received += len(chunk)
        body += chunk if packed is None else packed.decompress(chunk, limit + 1 - len(body))
        if len(body) > limit or received > limit + _OVERHEAD_BYTES:
            raise FetchError(f"the answer is longer than {limit} bytes")
        if time.monotonic() > end:
            raise SlowError(TOO_LONG)
    if packed is not None and not (packed.eof and not packed.unused_data):
        raise zlib.error("it does not end where it should")
    return bytes(body)


def _read(response: requests.Response, limit: int, end: float) -> bytes:
    try:
        return read_body(response, limit=limit, end=end, decode=True)
    except zlib.error as error:
        raise FetchError(f"the answer is no gzip: {error}") from error
    except urllib3.exceptions.HTTPError as error:
        raise requests.ConnectionError(error) from error


def _failure(response: requests.Response, body: bytes) -> FetchError:
    status, problem = response.status_code, _problem(body)
    detail = _one_line(problem.get("detail")) or f"HTTP status {status}, without a problem document"
    if status in RETRY_STATUSES:
        # 503 unavailable and 429 say that the work was not begun; behind any other the log may have done it.
        begun = status != 429 and problem.get("type") != "urn:tlog:problem:unavailable"
        return TransientError(detail, wait=_retry_after(response.headers.get("Retry-After", "")), reached=begun)
    if not 400 <= status < 500:
        return FetchError(f"HTTP status {status}: {detail}" if "detail" in problem else f"unexpected {detail}")
    line, expected = problem.get("line"), problem.get("expected_sequence")
    return RefusedError(
        detail,
        status=status,
        kind=_one_line(problem.get("type")) or "about:blank",
        line=line if type(line) is int and line > 0 else None,
        expected_sequence=expected if type(expected) is int and expected >= 0 else None,
    )


def _problem(body: bytes) -> dict[str, Any]:
    try:
        problem = parse_json(body)
    except MalformedError:
        return {}
    return problem if isinstance(problem, dict) else {}


def _one_line(value: Any) -> str:
    return printable(value)[:MAX_DETAIL].replace("\n", " ") if isinstance(value, str) else ""


def _retry_after(text: str) -> float:
    # The form with a date would need a clock that agrees with the log's; the backoff is as good.
    try:
        return float(parse_decimal(text))
    except MalformedError:
        return 0.0


def _cause(error: BaseException) -> BaseException:
    # What requests says itself is a repr within a repr; the system's own words stand at the bottom.
    while deeper := error.__cause__ or (None if error.__suppress_context__ else error.__context__):
        error = deeper
    return error


def _describe(error: BaseException) -> str:
    text = (isinstance(error, OSError) and error.strerror) or str(error) or type(error).__name__
    return text[:1].lower() + text[1:]
