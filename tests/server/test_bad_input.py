"""Bad input, over real HTTP: each is refused with a problem that says what and where, and changes nothing."""

import gzip
import http.client
import json
import re
import socket
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from live import JSON, NDJSON, PATIENCE, Answer, Segment, Server

from tlog.access import Action
from tlog.api.route import Route, Services
from tlog.app import create_app
from tlog.config import Config

# Stands in every body that can hold it, and must never stand in the log.
SECRET = b"hunter2-in-the-payload"
MIB = 1 << 20
DIGITS = "%D9%A3"  # an Arabic three, for which int() has no objection
# Where a number is asked for.
NO_NUMBERS = [
    "+1",
    "01",
    DIGITS,
    "-1",
    "1_0",
    "%20" + "1",
    "1%0A",
    "1.0",
    "0x1",
    "a",
    str(2**63),
    str(2**64),
    "9" * 400,
]


@dataclass(frozen=True)
class Bad:
    """A request, and how it is refused: status, type, and words of the detail that name place and remedy."""

    method: str
    path: str
    body: bytes | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    status: int = 400
    type: str = "malformed"
    says: Sequence[str] = ()
    line: int | None = None


def event(body: bytes, *says: str, status: int = 400, type: str = "malformed", kind: str = JSON) -> Bad:
    return Bad("POST", "/segments/NAME/entries", body, {"Content-Type": kind}, status, type, says)


def batch(body: bytes, line: int | None, *says: str, status: int = 400, type: str = "malformed") -> Bad:
    place = [] if line is None else [f"line {line}: "]
    return Bad("POST", "/segments/NAME/entries", body, {"Content-Type": NDJSON}, status, type, [*place, *says], line)


def typed(kind: str | None, *says: str, **headers: str) -> Bad:
    named = {} if kind is None else {"Content-Type": kind}
    encoded = {name.replace("_", "-"): value for name, value in headers.items()}
    slug = "unsupported-encoding" if encoded else "unsupported-type"
    return Bad("POST", "/segments/NAME/entries", b'{"a":"%b"}' % SECRET, {**named, **encoded}, 415, slug, says)


def get(path: str, *says: str, status: int = 400, type: str = "malformed") -> Bad:
    return Bad("GET", f"/segments/NAME{path}", None, {}, status, type, says)


def missing(path: str, *says: str) -> Bad:
    return get(path, *says, status=404, type="not-found")


def create(name: str, body: bytes = b"", *says: str, status: int = 400, type: str = "malformed") -> Bad:
    return Bad("PUT", f"/segments/{name}", body, {"Content-Type": JSON}, status, type, says)


def labels(body: bytes, *says: str) -> Bad:
    return create("never-made", body, *says)


JSON_TEXTS = {
    "not JSON": event(SECRET, "line 1, column 1"),
    "an unclosed object": event(b'{"a":"%b"' % SECRET, "line 1, column 30"),
    "two values": event(b'{"a":"%b"} {}' % SECRET, "line 1, column 32"),
    "a trailing comma": event(b'["%b",]' % SECRET, "line 1"),
    "single quotes": event(b"{'a':'%b'}" % SECRET, "line 1, column 2"),
    "an error on the second line": event(b'{"a":"%b",\n  x}' % SECRET, "line 2, column 3"),
    "a raw control character": event(b'"%b\x01"' % SECRET, "line 1"),
    "a comment": event(b'{"a":"%b"} // %b' % (SECRET, SECRET), "line 1"),
    "a leading zero": event(b'["%b",01]' % SECRET, "line 1"),
    "a plus sign": event(b'["%b",+1]' % SECRET, "line 1"),
    "two members of one name": event(b'{"a":1,"b":"%b","a":1}' % SECRET, "two members of one name", "keep one"),
    "two members of one name, deep": event(b'[{"x":[{"a":"%b","\\u0061":2}]}]' % SECRET, "two members of one name"),
    "two members of one name that differ in spelling": event(b'{"\xc3\xa9":1,"\\u00e9":2}', "two members of one name"),
    "NaN": event(b'["%b",NaN]' % SECRET, "NaN is not JSON", "send null or a string"),
    "Infinity": event(b'["%b",Infinity]' % SECRET, "Infinity is not JSON"),
    "minus Infinity": event(b'["%b",-Infinity]' % SECRET, "-Infinity is not JSON"),
    "1e400": event(b'["%b",1e400]' % SECRET, "beyond the range of a double", "send it as a string"),
    "-1e400": event(b'["%b",-1e400]' % SECRET, "beyond the range of a double"),
    "2^53": event(b'["%b",9007199254740992]' % SECRET, "an integer beyond 2^53-1", "send it as a string"),
    "-2^53": event(b'["%b",-9007199254740992]' % SECRET, "an integer beyond 2^53-1"),
    "an integer of 5,000 digits": event(b'["%b",%b]' % (SECRET, b"1" * 5000), "an integer beyond 2^53-1"),
    "an integer of 900,000 digits": event(b"1" * 900_000, "an integer beyond 2^53-1"),
    "a fraction of 900,000 digits that is too large": event(b"1" * 400 + b"." + b"1" * 899_000, "beyond the range"),
    "1e16": event(b'["%b",1e16]' % SECRET, "beyond 2^53-1", "send it as a string"),
    "9007199254740993.0": event(b'["%b",9007199254740993.0]' % SECRET, "beyond 2^53-1"),
    "a lone high surrogate": event(b'{"%b":"\\ud800"}' % SECRET, "lone surrogate", "send text as UTF-8"),
    "a lone low surrogate": event(b'"\\udc00%b"' % SECRET, "lone surrogate"),
    "surrogates the wrong way round": event(b'"%b\\ude00\\ud83d"' % SECRET, "lone surrogate"),
    "a lone surrogate in a name": event(b'{"\\ud800":"%b"}' % SECRET, "lone surrogate"),
    "UTF-16 with its mark": event('["x"]'.encode("utf-16"), "not UTF-8 at byte 0", "send JSON as UTF-8"),
    "UTF-16 without a mark": event('["x"]'.encode("utf-16-le"), "not JSON"),
    "UTF-32": event('["x"]'.encode("utf-32"), "not UTF-8 at byte 0"),
    "a byte order mark": event(b'\xef\xbb\xbf"%b"' % SECRET, "byte order mark", "without one"),
    "a byte that is never UTF-8": event(b'"%b\xff"' % SECRET, "not UTF-8 at byte 23"),
    "a byte that is never UTF-8, in a name": event(b'{"\xff":"%b"}' % SECRET, "not UTF-8 at byte 2"),
    "a surrogate in UTF-8": event(b'"%b\xed\xa0\x80"' % SECRET, "not UTF-8 at byte 23"),
    "an overlong slash": event(b'"%b\xc0\xaf"' % SECRET, "not UTF-8 at byte 23"),
    "a character beyond U+10FFFF": event(b'"%b\xf4\x90\x80\x80"' % SECRET, "not UTF-8 at byte 23"),
    "depth 65": event(b"[" * 65 + b'"%b"' % SECRET + b"]" * 65, "deeper than 64", "character 64", "flatten it"),
    "depth 65 of objects": event(b'{"a":' * 65 + b"1" + b"}" * 65, "deeper than 64"),
    "depth 100,000": event(b"[" * 100_000 + b"]" * 100_000, "deeper than 64"),
    "depth 100,000 that never ends": event(b"[" * 100_000, "deeper than 64"),
    "depth 100,000 of objects": event(b'{"a":' * 100_000, "deeper than 64"),
    "empty body": event(b"", "empty", "send an event"),
    "white space only": event(b" \n", "not JSON"),
    "empty opaque body": event(b"", "empty", "send an event", kind="text/plain"),
}
SIZES = {
    "an event of 1 MiB and a byte": event(
        b'"%b"' % SECRET.ljust(MIB - 1, b"x"), str(MIB), "shorten it", status=413, type="too-large"
    ),
    "an event that RFC 8785 makes longer than 1 MiB": event(
        b"[" + b",".join([b"1e20"[:3] + b"5"] * 200_000) + b"]", str(MIB), status=413, type="too-large"
    ),
    "an opaque payload of 1 MiB and a byte": event(
        SECRET.ljust(MIB + 1), str(MIB), status=413, type="too-large", kind="text/plain"
    ),
    "a line of 1 MiB and a byte": batch(
        b'1\n"%b"\n' % SECRET.ljust(MIB - 1, b"x"), 2, str(MIB), "shorten it", status=413, type="too-large"
    ),
    "a batch of 16 MiB and a byte": batch(
        b'"%b"\n' % SECRET * (16 * MIB // 25 + 1), None, str(16 * MIB), "split it", status=413, type="too-large"
    ),
    "an event of 17 MiB": event(SECRET.ljust(17 * MIB), "split it", status=413, type="too-large"),
    "a batch of 10,001 events": batch(
        b"1\n" * 10_001, None, "10000 events", "10001", "split it", status=413, type="too-large"
    ),
}
BATCHES = {
    "no line": batch(b"", None, "empty", "one event a line"),
    "one empty line": batch(b"\n", 1, "not JSON"),
    "an empty line at the end": batch(b'"%b"\n\n' % SECRET, 2, "not JSON"),
    "an empty line in the middle": batch(b'1\n\n"%b"\n' % SECRET, 2, "not JSON"),
    "a line of spaces": batch(b'1\n  \n"%b"\n' % SECRET, 2, "not JSON"),
    "a bad line in the middle": batch(b'1\n2\n{"a":"%b",}\n4\n' % SECRET, 3, "column"),
    "a bad last line": batch(b"1\n" * 9999 + b'"%b' % SECRET, 10_000, "not JSON"),
    "an event over two lines": batch(b'{"a":\n"%b"}\n' % SECRET, 1, "not JSON"),
    "two events on a line": batch(b'1\n2 "%b"\n' % SECRET, 2, "column 3"),
    "one name twice in a line": batch(b'1\n{"a":1,"a":"%b"}\n' % SECRET, 2, "two members of one name"),
    "invalid UTF-8 in a line": batch(b'1\n2\n"%b\xff"\n' % SECRET, 3, "not UTF-8 at byte 23"),
    "NUL": batch(b'1\n\x00"%b"\n' % SECRET, 2, "not JSON"),
    "a JSON array over lines": batch(b'[\n"%b"\n]\n' % SECRET, 1, "not JSON"),
}
HEADERS = {
    "no Content-Type": typed(None, "no Content-Type", JSON),
    "empty Content-Type": typed("", "Content-Type"),
    "half a media type": typed("json", "not a media type"),
    "no subtype": typed("application/", "not a media type"),
    "two media types": typed("application/json, text/plain", "not a media type"),
    "a parameter without value": typed("application/json; charset", "not a media type"),
    "an unclosed parameter": typed('text/plain; a="b', "not a media type"),
    "a character that no type has": typed("application/js\xf6n", "Content-Type"),
    "a media type of 256 bytes": typed("text/" + "x" * 251, "255"),
    "a form": typed("application/x-www-form-urlencoded", "a form", JSON),
    "a form in capitals": typed("Application/X-WWW-Form-Urlencoded", "a form"),
    "a form of parts": typed("multipart/form-data; boundary=x", "a form"),
    "latin-1": typed("application/json; charset=latin-1", "UTF-8"),
    "UTF-16 by its name": typed("application/json; charset=utf-16", "UTF-8"),
    "a batch in latin-1": typed("application/x-ndjson; charset=iso-8859-1", "UTF-8"),
    "gzip": typed(JSON, "without Content-Encoding", Content_Encoding="gzip"),
    "gzip in capitals": typed(JSON, "without Content-Encoding", Content_Encoding="GZIP"),
    "zstd": typed("text/plain", "without Content-Encoding", Content_Encoding="zstd"),
    "two encodings": typed(JSON, "without Content-Encoding", Content_Encoding="identity, gzip"),
}
NAMES = {
    f"the name {name!r}": create(name, b"", "a-z", "0-9")
    for name in [
        ".",
        "..",
        "a.b",
        "A",
        "pAyments",
        "-a",
        "_a",
        "a_b",
        "a%20b",
        "a%0A",
        "a" * 64,
        "a" * 5000,
        "%D9%A3",
        "a%00b",
        "%C3%BC",
        "%FF",
        "a%5Cb",
        "%EF%BC%A1",
    ]
}
PATHS = {
    "a slash in a name": create("a/b", status=404, type="not-found"),
    "an escaped slash in a name": create("a%2fb", status=404, type="not-found"),
    "an empty name": create("", status=404, type="not-found"),
    "a path that climbs": Bad("GET", "/segments/../../etc/passwd", None, {}, 404, "not-found"),
    "no such segment": Bad("GET", "/segments/no-such", None, {}, 404, "not-found", ["no such segment"]),
    "a name that no segment has": Bad("GET", "/segments/NO.SUCH/checkpoint", None, {}, 404, "not-found"),
    "an event for no segment": Bad(
        "POST", "/segments/no-such/entries", b'"%b"' % SECRET, {"Content-Type": JSON}, 404, "not-found"
    ),
    "no such route": missing("/no-such", "/openapi.json"),
    "a slash too many": missing("/checkpoint/"),
    "a slash too many in the middle": Bad("GET", "/segments//NAME/checkpoint", None, {}, 404, "not-found"),
    "no index": missing("/entries/"),
}
NUMBERS = {
    **{f"index {text[:24]}": get(f"/entries/{text}", "index", "decimal") for text in NO_NUMBERS},
    **{f"start {text[:24]}": get(f"/entries?start={text}", "start", "decimal") for text in [*NO_NUMBERS, ""]},
    **{f"limit {text[:24]}": get(f"/entries?limit={text}", "limit") for text in [*NO_NUMBERS, "", "0", "1001"]},
    **{f"size {text[:24]}": get(f"/proof/inclusion/{text}/0", "size", "decimal") for text in NO_NUMBERS},
    **{f"proof of index {text[:24]}": get(f"/proof/inclusion/1/{text}", "index") for text in NO_NUMBERS},
    **{f"old size {text[:24]}": get(f"/proof/consistency/{text}/1", "old", "decimal") for text in NO_NUMBERS},
    **{f"new size {text[:24]}": get(f"/proof/consistency/1/{text}", "new", "decimal") for text in NO_NUMBERS},
    "index at the head": missing("/entries/300", "index", "300 entries now"),
    "the largest index": missing(f"/entries/{2**63 - 1}", "index", "300 entries now"),
    "start beyond the head": missing("/entries?start=301", "start", "300 entries now"),
    "size beyond the head": missing("/proof/inclusion/301/0", "size", "300 entries now"),
    "the largest size": missing(f"/proof/inclusion/{2**63 - 1}/0", "size", "300 entries now"),
    "new size beyond the head": missing("/proof/consistency/1/301", "new", "300 entries now"),
    "index at the size": get("/proof/inclusion/5/5", "index", "ask for a larger size"),
    "index in the empty tree": get("/proof/inclusion/0/0", "index"),
    "from larger to smaller": get("/proof/consistency/5/4", "old is larger", "the other way round"),
    "an unknown parameter": get("/entries?from=1", "start", "limit", "from"),
    "a repeated parameter": get("/entries?start=1&start=1", "each once", "start"),
    "a parameter in capitals": get("/entries?Start=1", "Start"),
    "an unknown parameter of the list": Bad("GET", "/segments?page=2", None, {}, 400, "malformed", ["after", "page"]),
    "limit 0 of the list": Bad("GET", "/segments?limit=0", None, {}, 400, "malformed", ["1 to 1000"]),
    "limit 1001 of the list": Bad("GET", "/segments?limit=1001", None, {}, 400, "malformed", ["1 to 1000"]),
    "limit abc of the list": Bad("GET", "/segments?limit=abc", None, {}, 400, "malformed", ["limit"]),
}
TILES = {
    f"tile {path}": missing(f"/tile/{path}")
    for path in [
        "0/000.p/0",
        "0/000.p/256",
        "0/000.p/257",
        "0/000.p/300",
        "0/000.p/01",
        "0/000.p/+1",
        f"0/000.p/{DIGITS}",
        "0/000.p/",
        "0/000.p",
        "0/000.p/1/",
        "0/001",
        "0/001.p/45",
        "0/002.p/1",
        "1/000",
        "1/000.p/2",
        "2/000.p/1",
        "64/000",
        "63/000.p/1",
        "8/000.p/1",
        "00/000",
        "01/000",
        "-1/000",
        f"{DIGITS}/000",
        "0/0",
        "0/00",
        "0/0000",
        "0/x000/000",
        "0/000/000",
        "0/x000000",
        "0/x001/000/",
        "0/X001/000",
        "0/1",
        "0/" + "x999/" * 20 + "999",
        "entries/000.p/0",
        "entries/000.p/256",
        "entries/001",
        "entries/001.p/45",
        "entries/0",
        "entries/",
        "entries",
        "data/000",
        "",
        "0",
        "0//000",
        "0/000%0A",
    ]
}
LABELS = {
    "labels that are no JSON": labels(SECRET, "line 1"),
    "labels beside others": labels(b'{"labels":{},"owner":"%b"}' % SECRET, "labels"),
    "signed that is no boolean": labels(b'{"signed":"%b"}' % SECRET, "signed"),
    "labels in a list": labels(b'{"labels":["%b"]}' % SECRET, "labels"),
    "an array": labels(b"[]", "labels"),
    "null": labels(b"null", "labels"),
    "labels that are null": labels(b'{"labels":null}', "labels"),
    "a label that is a number": labels(b'{"labels":{"a":1}}', "labels"),
    "a label that is null": labels(b'{"labels":{"a":null}}', "labels"),
    "a label twice": labels(b'{"labels":{"a":"1","a":"%b"}}' % SECRET, "two members of one name"),
    "a key in capitals": labels(b'{"labels":{"Env":"%b"}}' % SECRET, "key"),
    "an empty key": labels(b'{"labels":{"":"%b"}}' % SECRET, "key"),
    "a key of 64 characters": labels(b'{"labels":{"%b":""}}' % (b"k" * 64), "63"),
    "a value of 256 bytes": labels(b'{"labels":{"a":"%b"}}' % ("é".encode() * 128), "255"),
    "33 labels": labels(json.dumps({"labels": {f"l{n}": "" for n in range(33)}}).encode(), "32"),
    "labels with a lone surrogate": labels(b'{"labels":{"a":"\\ud800"}}', "lone surrogate"),
    "compressed labels": labels(gzip.compress(b'{"labels":{}}'), "UTF-8"),
}
METHODS = {
    f"{method} {path}": Bad(method, path, None, {}, 405, "method-not-allowed", ["the Allow header"])
    for method, path in [
        ("DELETE", "/segments/NAME"),
        ("PATCH", "/segments/NAME"),
        ("POST", "/segments/NAME"),
        ("PUT", "/segments/NAME/entries"),
        ("DELETE", "/segments/NAME/entries/0"),
        ("POST", "/segments/NAME/checkpoint"),
        ("OPTIONS", "/segments/NAME/checkpoint"),
        ("PUT", "/segments/NAME/tile/0/000"),
        ("POST", "/segments"),
        ("POST", "/readyz"),
        ("BREW", "/metrics"),
    ]
}
CASES = {
    **JSON_TEXTS,
    **SIZES,
    **BATCHES,
    **HEADERS,
    **NAMES,
    **PATHS,
    **NUMBERS,
    **TILES,
    **LABELS,
    **METHODS,
}


# Of the session, as its server is: tests of a module may be taken apart, and it would be made twice.
@pytest.fixture(scope="session")
def log(server: Server) -> Iterator[Segment]:
    """A segment of 300 entries; nothing that is sent here may reach the server's log."""
    segment = server.create("bad-input", {"env": "test"})
    segment.append(b"1\n" * 300, NDJSON)
    yield segment
    assert SECRET not in server.log.read_bytes()


def check(answer: Answer, bad: Bad) -> None:
    """Check that an answer is a problem of the promised kind."""
    assert (answer.status, answer.headers["Content-Type"]) == (bad.status, "application/problem+json")
    problem = answer.json()
    assert set(problem) == {"type", "title", "status", "detail", "request_id"} | ({"line"} if bad.line else set())
    assert (problem["type"], problem["status"]) == (f"urn:tlog:problem:{bad.type}", bad.status)
    assert (problem["request_id"], problem.get("line")) == (answer.headers["X-Request-Id"], bad.line)
    assert problem["title"]
    assert problem["detail"]
    for words in bad.says:
        assert words in problem["detail"]
    assert SECRET not in answer.body
    assert answer.headers["Cache-Control"] == "no-store"


def check_refused(route: Route, answer: Answer, bad: Bad) -> None:
    """Check the same of what a receiver answers, where that is in the words of its senders."""
    if route.refuse is None:
        check(answer, bad)
        return
    assert answer.status == bad.status
    assert all(words.encode() in answer.body for words in bad.says)
    assert SECRET not in answer.body


@pytest.mark.parametrize("bad", CASES.values(), ids=CASES.keys())
def test_bad_input_is_refused_and_changes_nothing(server: Server, log: Segment, bad: Bad) -> None:
    before = log.note(), server.request("GET", "/segments?limit=1000").body
    path = bad.path.replace("NAME", log.name)
    answer = server.request(bad.method, path, bad.body, bad.headers)
    check(answer, bad)
    assert (log.note(), server.request("GET", "/segments?limit=1000").body) == before
    # The server says in its log that it refused, and nothing of what.
    assert server.logged_request(answer.json()["request_id"])["status"] == bad.status


@pytest.mark.parametrize("bad", METHODS.values(), ids=METHODS.keys())
def test_a_wrong_method_is_told_which_are_right(server: Server, log: Segment, bad: Bad) -> None:
    answer = server.request(bad.method, bad.path.replace("NAME", log.name))
    allowed = {method.strip() for method in answer.headers["Allow"].split(",")}
    assert allowed
    assert bad.method not in allowed
    for method in allowed & {"GET", "HEAD"}:
        assert server.request(method, bad.path.replace("NAME", log.name)).status == 200


def test_a_segment_that_is_there_keeps_its_labels(server: Server, log: Segment) -> None:
    for body in (b"", b"{}", b'{"labels":{}}', b'{"labels":{"env":"prod"}}', b'{"labels":{"env":"test","a":"b"}}'):
        bad = create(log.name, body, "other labels", "another name", status=409, type="conflict")
        check(server.request("PUT", f"/segments/{log.name}", body, {"Content-Type": JSON}), bad)
    again = server.request("PUT", f"/segments/{log.name}", b'{"labels":{"env":"test"}}', {"Content-Type": JSON})
    assert (again.status, again.json()) == (200, log.get("").json())


def test_limits_themselves_are_allowed(server: Server, segment: Segment) -> None:
    segment.append(b"[" * 64 + b"]" * 64)
    segment.append(b"x" * MIB, "text/plain")
    segment.append(b'"' + b"x" * (MIB - 2) + b'"\n' + b"1\n" * 9_999, NDJSON)
    segment.append((b'"' + b"x" * (MIB - 3) + b'"\n') * 16, NDJSON)
    assert segment.checkpoint().size == 2 + 10_000 + 16
    many = {f"l{number}": "é" * 127 for number in range(31)} | {"k" * 63: ""}
    assert (
        server.request(
            "PUT", "/segments/" + "a" * 63, json.dumps({"labels": many}).encode(), {"Content-Type": JSON}
        ).status
        == 201
    )


def routes(tmp_path: Path) -> Sequence[Route]:
    services: Services = create_app(Config(tmp_path / "data")).config["SERVICES"]
    services.segments.close()
    return services.routes


def place(route: Route, log: Segment) -> str:
    return re.sub("<.*?>", "0", route.path.replace("<segment>", log.name))


FORM = "application/x-www-form-urlencoded"
OTHERS = (None, "", "text/plain", FORM, "multipart/form-data; boundary=x", "application/jso", f"{JSON}; charset=utf-16")


BODY = b'{"reason":"x","minutes":1,"principal":"x","days":1,"vkey":"x"}'


def test_each_route_takes_bodies_of_its_own_types_and_no_others(server: Server, log: Segment, tmp_path: Path) -> None:
    before, tried = server.request("GET", "/segments?limit=1000").body, 0
    for route in routes(tmp_path):
        for kind in others_than(route) if route.action is not Action.INGEST else ():
            headers = {} if kind is None else {"Content-Type": kind}
            answer = server.request(route.method, place(route, log), BODY, headers)
            if not route.takes:
                check(answer, Bad("", "", says=["no body"]))
            elif "*/*" not in route.takes:
                check(answer, Bad("", "", status=415, type="unsupported-type", says=[*route.takes, "Content-Type"]))
                compressed = {"Content-Type": next(iter(route.takes)), "Content-Encoding": "gzip"}
                encoded = server.request(route.method, place(route, log), BODY, compressed)
                check(encoded, Bad("", "", status=415, type="unsupported-encoding"))
            tried += 1
    assert tried > 150
    assert server.request("GET", "/segments?limit=1000").body == before
    assert server.request("GET", f"/segments/{log.name}").json()["sealed"] is None
    # Chunked, so that no length tells that there is one.
    head = f"PUT /segments/{log.name}/seal HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"
    check(raw(server, head.encode() + chunks(b"x", b"")), Bad("", "", says=["no body"]))


def test_a_receiver_that_takes_some_types_only_says_which(server: Server, log: Segment, tmp_path: Path) -> None:
    some = [route for route in routes(tmp_path) if route.action is Action.INGEST and "*/*" not in route.takes]
    assert [route.path for route in some] == ["/v1/logs"]
    for route, kind in ((each, kind) for each in some for kind in others_than(each)):
        answer = server.request(route.method, place(route, log), BODY, {} if kind is None else {"Content-Type": kind})
        # It goes by the type alone: JSON is UTF-8 (RFC 8259), whatever else is said.
        if kind is None or kind.partition(";")[0] not in route.takes:
            check_refused(route, answer, Bad("", "", status=415, says=[*route.takes]))


def others_than(route: Route) -> Sequence[str | None]:
    kinds = (*OTHERS, JSON, "application/toml", "text/plain; charset=utf-16")
    return [kind for kind in kinds if kind not in route.takes]


def test_json_that_is_no_event_is_short(server: Server) -> None:
    body = json.dumps({"labels": {"a": "x" * (1 << 16)}}).encode()
    answer = server.request("PUT", "/segments/never-made", body, {"Content-Type": JSON})
    check(answer, Bad("", "", status=413, type="too-large", says=["65536"]))


OWN = [
    {},
    {"Sec-Fetch-Site": "same-origin"},
    {"Sec-Fetch-Site": "none"},
    {"Origin": "http://HOST"},
    {"Origin": "https://HOST"},
]
OWN += [{"Sec-Fetch-Site": "same-origin", "Origin": "https://proxied.example"}]
FOREIGN = [
    {"Sec-Fetch-Site": site} for site in ("cross-site", "same-site", "", "Cross-Site", "same-origin, cross-site")
]
FOREIGN += [
    {"Origin": origin}
    for origin in ("http://evil.example", "null", "", "HOST", "http://HOST1", "http://evil.example/http://HOST")
]
FOREIGN += [{"Origin": "http://localhost:PORT"}, {"Sec-Fetch-Site": "cross-site", "Origin": "http://HOST"}]


def marked(server: Server, marks: Mapping[str, str]) -> dict[str, str]:
    host = f"127.0.0.1:{server.port}"
    return {name: value.replace("HOST", host).replace("PORT", str(server.port)) for name, value in marks.items()}


@pytest.mark.parametrize("marks", FOREIGN, ids=str)
def test_no_page_of_another_site_changes_anything(
    server: Server, log: Segment, tmp_path: Path, marks: Mapping[str, str]
) -> None:
    before = log.note(), server.request("GET", "/segments?limit=1000").body
    refused = Bad("", "", status=403, type="cross-site", says=["another site"])
    for route in routes(tmp_path):
        kind = next(iter(route.takes), "text/plain")
        headers = {"Content-Type": "text/plain" if kind == JSON else kind, **marked(server, marks)}
        answer = server.request(route.method, place(route, log), b"" if route.method == "GET" else b"{}", headers)
        if route.method == "GET":
            assert answer.status != 403
            assert "Access-Control-Allow-Origin" not in answer.headers
        else:
            check_refused(route, answer, refused)
    assert (log.note(), server.request("GET", "/segments?limit=1000").body) == before


@pytest.mark.parametrize(
    "name", ["evil.example", "localhost.evil.example", "127.0.0.1.evil.example", "127.0.0.1@evil.example", ""]
)
def test_no_page_under_a_name_that_points_to_this_machine_has_an_answer_of_an_unguarded_server(
    server: Server, log: Segment, tmp_path: Path, name: str
) -> None:
    before = log.note()
    refused = Bad("", "", status=403, type="cross-site", says=["localhost"])
    for route in routes(tmp_path):
        kind = next(iter(route.takes), "text/plain")
        headers = {"Content-Type": kind, "Host": f"{name}:{server.port}", "Origin": f"http://{name}:{server.port}"}
        body = b"" if route.method == "GET" else b"{}"
        check_refused(route, server.request(route.method, place(route, log), body, headers), refused)
    assert log.note() == before


@pytest.mark.parametrize("name", ["localhost", "LocalHost", "127.0.0.1", "127.1.2.3", "[::1]"])
def test_an_unguarded_server_answers_by_each_name_of_this_machine(server: Server, name: str) -> None:
    assert server.request("GET", "/segments", None, {"Host": f"{name}:1"}).status == 200
    assert server.request("GET", "/segments", None, {"Host": name}).status == 200


@pytest.mark.parametrize("marks", OWN, ids=str)
def test_programs_and_the_servers_own_pages_are_let_in(
    server: Server, segment: Segment, marks: Mapping[str, str]
) -> None:
    headers = {"Content-Type": "text/plain", **marked(server, marks)}
    assert server.request("POST", f"/segments/{segment.name}/entries", b"x", headers).status == 201


def raw(server: Server, request: bytes, *, half_close: bool = False) -> Answer:
    """Send bytes as they are, say that no more will come if so, and return the answer."""
    with socket.create_connection(("127.0.0.1", server.port), PATIENCE) as connection:
        connection.sendall(request)
        if half_close:
            connection.shutdown(socket.SHUT_WR)
        with connection.makefile("rb") as stream:
            status = int(stream.readline().split(b" ")[1])
            headers = http.client.parse_headers(stream)
            return Answer(status, headers, stream.read(int(headers["Content-Length"])))


def test_a_body_that_comes_in_pieces_is_taken_whole(server: Server, segment: Segment) -> None:
    lines = b'{"n":1}\n' * 10_000
    pieces = [lines[start : start + 17_001] for start in range(0, len(lines), 17_001)]
    head = f"POST /segments/{segment.name}/entries HTTP/1.1\r\nHost: localhost\r\nContent-Type: {NDJSON}\r\n"
    with socket.create_connection(("127.0.0.1", server.port), PATIENCE) as connection:
        connection.sendall(f"{head}Content-Length: {len(lines)}\r\n\r\n".encode())
        for piece in pieces:
            time.sleep(0.05)
            connection.sendall(piece)
        assert connection.recv(12) == b"HTTP/1.1 201"
    assert segment.checkpoint().size == 10_000


def chunks(*parts: bytes) -> bytes:
    return b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in parts)


LINES = b'{"n":"%b"}\n' % SECRET * 2


@pytest.mark.parametrize("body", [LINES, LINES[:-5], b""], ids=["ends after a line", "ends within a line", "is empty"])
@pytest.mark.parametrize("kind", [NDJSON, JSON, "text/plain"])
def test_a_body_that_ends_early_is_not_taken_for_a_whole_one(
    server: Server, log: Segment, kind: str, body: bytes
) -> None:
    before = log.note()
    headers = f"Host: localhost\r\nContent-Type: {kind}\r\nContent-Length: 100"
    head = f"POST /segments/{log.name}/entries HTTP/1.1\r\n{headers}\r\n\r\n"
    answer = raw(server, head.encode() + body, half_close=True)
    check(answer, Bad("POST", "", status=400, says=[f"{len(body)} bytes", "Content-Length is 100"]))
    assert log.note() == before


TYPED = b"PUT /segments/never-made HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"


def test_a_segment_is_not_made_from_half_a_request(server: Server) -> None:
    answer = raw(server, TYPED + b"Content-Length: 20\r\n\r\n", half_close=True)
    check(answer, Bad("PUT", "", status=400, says=["Content-Length is 20"]))
    answer = raw(server, TYPED + b"Transfer-Encoding: chunked\r\n\r\n", half_close=True)
    check(answer, Bad("PUT", "", status=411, type="length-required"))
    assert server.request("GET", "/segments/never-made").status == 404


@pytest.mark.parametrize(
    "body",
    [chunks(LINES, b""), chunks(LINES), chunks(*[LINES * 1000] * 400, b"")],
    ids=["whole", "without its end", "beyond the limit"],
)
def test_a_chunked_body_is_refused_since_nobody_can_tell_that_it_is_whole(
    server: Server, log: Segment, body: bytes
) -> None:
    before = log.note()
    head = f"POST /segments/{log.name}/entries HTTP/1.1\r\nHost: localhost\r\nContent-Type: {NDJSON}\r\n"
    head += "Transfer-Encoding: chunked\r\n\r\n"
    # What is beyond the limit is not read to its end, so it is not sent to its end either.
    answer = raw(server, head.encode() + body[:100_000])
    check(answer, Bad("POST", "", status=411, type="length-required", says=["Content-Length", "not chunked"]))
    assert log.note() == before


def test_a_request_id_is_echoed_only_if_it_is_harmless(server: Server) -> None:
    given = "a.b-c_D" + "9" * 121
    assert server.request("GET", "/healthz", headers={"X-Request-Id": given}).headers["X-Request-Id"] == given
    for bad in ["", "x" * 129, 'a"b', "a b", "<script>", "\xe9"]:
        fresh = server.request("GET", "/healthz", headers={"X-Request-Id": bad}).headers["X-Request-Id"]
        assert len(fresh) == 32
        assert fresh.isalnum()
    refused = server.request("GET", "/no-such", headers={"X-Request-Id": "mine"})
    assert refused.json()["request_id"] == refused.headers["X-Request-Id"] == "mine"
