"""Who may do what, at a real server: every role at every route, tokens, the record, and changes under load."""

import http.client
import itertools
import json
import secrets
import shutil
import socket
import sqlite3
import subprocess
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import median
from typing import Any
from urllib.parse import quote

import pytest
from house import PEOPLE, POLICY, TOML, House, build, lay
from live import (
    JSON,
    LOG_NAME,
    NDJSON,
    PATIENCE,
    TLOG,
    Answer,
    answered,
    paste_lines,
    stalled,
    start,
    tell,
    until,
)

from tlog.access.change import PolicyApplied, encode_change
from tlog.api.route import Services, check_guarded
from tlog.app import create_app
from tlog.config import MAX_DISCARDING, Config
from tlog.errors import ConfigError
from tlog.files import exclusive
from tlog.segments import Nobody, Segments
from tlog.submit import append, commit_to
from tlog.web import PAGES
from tlog_client import Log
from tlog_client.signing import SIGNED_TYPE, sign_batch
from tlog_core.commitment import Opening
from tlog_core.encoding import encode_base64
from tlog_core.note import signer_from_seed

DAY = 86_400_000


def send(house: House, who: str | None, row: "Row", segment: str = "", **headers: str) -> Answer:
    kind = {"Content_Type": row.kind} if row.body else {}
    given = {name.replace("-", "_"): value for name, value in row.headers.items()}
    return house.ask(who, row.method, row.path(segment), row.body, **{**kind, **given, **headers})


def rule_everywhere(who: str) -> str:
    labels = 'labels = { env = "prod" }' if EVERYWHERE[who] == "creator" else ""
    return f"""
[[rule]]
name = "{who}, everywhere"
roles = ["{EVERYWHERE[who]}"]
principals = ["{who}"]
segments = ["*", "control", "access"]
{labels}
"""


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    """A house that tests leave as it is, but for entries and seals, and in which some have one role everywhere."""
    built = build(tmp_path_factory.mktemp("house") / "data", POLICY + "".join(map(rule_everywhere, EVERYWHERE)))
    for name in EVERYWHERE.keys() - set(PEOPLE):
        issued = built.ask("root", "POST", "/tokens", json.dumps({"principal": name, "days": 1}).encode())
        built.tokens[name] = issued.json()["token"]
    for _ in range(3):
        assert built.append("writer").status == 201
    yield built
    assert built.server.stop() == 0
    built.check_no_secret()


@pytest.fixture(scope="module")
def laid(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, str]]:
    """A folder on which no server has run, and its tokens: made once, since each command takes its time."""
    data = tmp_path_factory.mktemp("laid") / "data"
    return data, lay(data)


@pytest.fixture
def own_house(tmp_path: Path, laid: tuple[Path, dict[str, str]]) -> Iterator[House]:
    """A house of the test's own, in which no secret is found whatever the test did."""
    shutil.copytree(laid[0], tmp_path / "data")
    shutil.copytree(f"{laid[0]}.anchor", tmp_path / "data.anchor")
    built = House(start(tmp_path / "data", guarded=True, log_name=None), dict(laid[1]))
    yield built
    built.server.kill()
    built.check_no_secret()


# Every role at every route

FILLED = {
    "<segment>": "{}",
    "<index>": "0",
    "<path:path>": "0/000.p/1",
    "<size>": "1",
    "<old>": "1",
    "<new>": "2",
    "<id>": "0",
}


@dataclass(frozen=True)
class Row:
    """A route, its action and who may, written by hand, and a request that is right up to where access is decided."""

    method: str
    route: str
    action: str
    roles: str
    body: bytes | None = None
    kind: str = JSON
    headers: Mapping[str, str] = field(default_factory=dict)
    filled: Mapping[str, str] = field(default_factory=lambda: FILLED)

    @property
    def key(self) -> tuple[str, str]:
        return self.method, self.route

    def path(self, segment: str) -> str:
        path = self.route
        for parameter, value in self.filled.items():
            path = path.replace(parameter, value)
        return path.format(segment)


S = "/segments/<segment>"
SEEN, FOLLOWED = "writer monitor auditor admin", "writer monitor auditor"
BUNDLE = {**FILLED, "<path:path>": "entries/000.p/1"}
# In the segment of the route.
ROUTES = (
    Row("PUT", S, "segment:create", "creator", b'{"labels":{"env":"prod"}}'),
    Row("GET", S, "segment:read", SEEN),
    Row("POST", f"{S}/access-requests", "segment:read", SEEN, b'{"reason":"drill","minutes":1}'),
    Row("GET", f"{S}/access-requests", "grant:approve", "approver"),
    Row("PUT", f"{S}/access-requests/<id>/approval", "grant:approve", "approver", b""),
    Row("POST", f"{S}/entries", "entry:append", "writer", b"1"),
    Row("GET", f"{S}/entries", "payload:read", "auditor"),
    Row("GET", f"{S}/entries/<index>", "payload:read", "auditor"),
    Row("GET", f"{S}/checkpoint", "checkpoint:read", FOLLOWED),
    Row("GET", f"{S}/checkpoint/cosigned", "checkpoint:read", FOLLOWED),
    Row("GET", f"{S}/tile/<path:path>", "tile:read", "monitor auditor"),
    Row("GET", f"{S}/tile/<path:path>", "tile:read", "monitor auditor", filled=BUNDLE),
    Row("GET", f"{S}/proof/inclusion/<size>/<index>", "proof:read", FOLLOWED),
    Row("GET", f"{S}/proof/consistency/<old>/<new>", "proof:read", FOLLOWED),
    Row("POST", f"{S}/bulletins", "bulletin:post", "monitor auditor", b"x", "text/plain"),
    Row("GET", f"{S}/bulletins", "checkpoint:read", FOLLOWED),
    Row("PUT", f"{S}/seal", "segment:seal", "admin", b""),
)
# In `control`.
GLOBAL = (
    Row("GET", "/policy", "policy:read", "auditor admin"),
    Row("PUT", "/policy", "policy:apply", "admin", b"", TOML, {"If-Match": '"0"'}),
    Row("GET", "/tokens", "token:issue", "admin"),
    Row("POST", "/tokens", "token:issue", "admin", b'{"principal":"x y","days":1}'),
    Row("POST", "/tokens/<id>/rotation", "token:issue", "admin", b'{"overlap_days":99}'),
    Row("DELETE", "/tokens/<id>", "token:issue", "admin"),
    Row("GET", "/keys", "key:add", "admin"),
    Row("POST", "/keys", "key:add", "admin", b'{"vkey":"x"}'),
    Row("POST", "/keys/removal", "key:add", "admin", b'{"vkey":"x"}'),
    Row("GET", "/metrics", "metrics:read", "monitor auditor admin"),
)
SPLUNK = [f"/services/collector{path}" for path in ("", "/event", "/event/1.0", "/raw", "/raw/1.0")]
OPEN = (
    Row("GET", "/segments", "segment:list", "everyone"),
    Row("GET", "/healthz", "server:operate", "everyone"),
    Row("GET", "/readyz", "server:operate", "everyone"),
    Row("GET", "/openapi.json", "server:operate", "everyone"),
    *(Row("OPTIONS", path, "server:operate", "everyone") for path in SPLUNK),
    Row("GET", "/services/collector/health", "server:operate", "everyone"),
    Row("GET", "/services/collector/health/1.0", "server:operate", "everyone"),
)
# For who shows a credential, whoever it is: each event is decided upon by its segment.
KNOWN = (
    Row("POST", "/ingest/kubernetes", "event:ingest", "everyone"),
    Row("POST", "/ingest/cloudtrail", "event:ingest", "everyone"),
    Row("POST", "/ingest/json", "event:ingest", "everyone"),
    Row("POST", "/ingest/syslog", "event:ingest", "everyone"),
    Row("POST", "/ingest/vault", "event:ingest", "everyone"),
    Row("POST", "/v1/logs", "event:ingest", "everyone"),
    Row("POST", "/ingest/cloudevents", "event:ingest", "everyone"),
    Row("POST", "/services/collector/ack", "event:ingest", "everyone"),
    *(Row("POST", path, "event:ingest", "everyone") for path in SPLUNK),
)
TLOG_ALONE = {"segment:create", "segment:seal", "entry:append"}
# Who has just one role: in `payments` only, or in every segment, also `control` and `access`.
HERE = {
    "writer": "writer",
    "monitor": "monitor",
    "auditor": "auditor",
    "admin": "admin",
    "creator": "creator",
    "first": "approver",
    "nobody": "none",
}
EVERYWHERE = {
    "scribe": "writer",
    "follower": "monitor",
    "examiner": "auditor",
    "root": "admin",
    "maker": "creator",
    "chair": "approver",
}


def open_to(house: House, who: str | None, rows: Sequence[Row], segment: str = "") -> set[tuple[str, str]]:
    """Return the routes that did not answer as if there were nothing, or nobody."""
    found, closed = set[tuple[str, str]](), set[tuple[str, str]]()
    for row in rows:
        answer = send(house, who, row, segment)
        # Past the choke point there may be another 404, which says another thing.
        hidden = answer.status == 404 and answer.json()["detail"] in (
            "no such segment",
            "there is nothing for you here",
        )
        assert answer.status < 500
        (closed if hidden or answer.status == 401 else found).add(row.key)
    assert not found & closed
    return found


def may(role: str, rows: Sequence[Row], *, reserved: bool = False) -> set[tuple[str, str]]:
    return {row.key for row in rows if role in row.roles.split() and not (reserved and row.action in TLOG_ALONE)}


@pytest.mark.parametrize("who", HERE)
def test_each_role_may_do_at_each_route_what_the_table_says_and_nothing_elsewhere(house: House, who: str) -> None:
    assert open_to(house, who, ROUTES, "payments") == may(HERE[who], ROUTES)
    for segment in ("secrets", "no-such", "control", "access"):
        assert open_to(house, who, ROUTES, segment) == set(), segment
    assert open_to(house, who, GLOBAL) == set()
    assert open_to(house, who, (*OPEN, *KNOWN)) == may("everyone", (*OPEN, *KNOWN))


@pytest.mark.parametrize("who", EVERYWHERE)
def test_whoever_has_a_role_everywhere_may_do_no_more_and_changes_no_segment_of_tlogs_own(
    house: House, who: str
) -> None:
    role = EVERYWHERE[who]
    for segment in ("payments", "secrets"):
        assert open_to(house, who, ROUTES, segment) == may(role, ROUTES)
    for segment in ("control", "access"):
        assert open_to(house, who, ROUTES, segment) == may(role, ROUTES, reserved=True)
    assert open_to(house, who, GLOBAL) == may(role, GLOBAL)
    assert open_to(house, who, OPEN) == may("everyone", OPEN)


def test_who_shows_no_credential_is_asked_for_one_everywhere(house: House) -> None:
    for segment in ("payments", "no-such", "control", "access"):
        assert open_to(house, None, ROUTES, segment) == set()
    assert open_to(house, None, (*GLOBAL, *KNOWN)) == set()
    assert [send(house, None, row).status for row in OPEN] == [200] * len(OPEN)
    assert house.ask(None, "GET", "/segments").json() == {"next": None, "segments": []}


def test_every_route_has_the_action_that_the_table_says_and_no_route_is_left_out(tmp_path: Path) -> None:
    services: Services = create_app(Config(tmp_path / "data")).config["SERVICES"]
    services.segments.close()
    served = {(route.method, route.path): route.action.value for route in services.routes}
    assert len(served) == len(services.routes)
    assert {row.key: row.action for row in (*ROUTES, *GLOBAL, *OPEN, *KNOWN)} == served


def test_no_probe_finds_a_healthy_server_ill_because_its_credential_has_ended(house: House) -> None:
    wrong = ("x", f"tlog_{'0' * 16}_{'A' * 43}", house.tokens["writer"][:-1])
    for row in OPEN:
        wanted = 401 if row.action == "segment:list" else 200
        assert [send(house, shown, row).status for shown in wrong] == [wanted] * len(wrong), row


def test_an_app_that_serves_what_nobody_decides_on_does_not_start(tmp_path: Path) -> None:
    app = create_app(Config(tmp_path / "data"))
    services: Services = app.config["SERVICES"]
    services.segments.close()
    check_guarded(app, (*services.routes, *PAGES))
    without = replace(services.routes[0], action=None)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="/segments"):
        check_guarded(app, (without, *services.routes[1:], *PAGES))
    app.add_url_rule("/back-door", "back-door", lambda: "open")
    with pytest.raises(ConfigError, match="/back-door"):
        check_guarded(app, (*services.routes, *PAGES))


def test_a_list_shows_each_what_they_may_see(house: House) -> None:
    def names(who: str) -> list[str]:
        return [one["name"] for one in house.ask(who, "GET", "/segments").json()["segments"]]

    assert names("root") == names("examiner") == ["access", "control", "payments", "secrets"]
    assert names("writer") == names("monitor") == names("admin") == ["payments"]
    assert names("creator") == names("nobody") == []


# What one learns of what is not theirs


@pytest.mark.parametrize("who", ["auditor", "writer", "nobody", None])
def test_missing_and_forbidden_are_the_same_to_the_byte(house: House, who: str | None) -> None:
    for row in ROUTES:
        answers = [
            send(house, who, row, name, X_Request_Id="same") for name in ("secrets", "missing", "control", "a" * 63)
        ]
        [first, *others] = [(one.status, one.body, _steady(one)) for one in answers]
        assert [one for one in others if one != first] == [], (row, first)


def _steady(answer: Answer) -> list[tuple[str, str]]:
    # Whether the connection goes on depends on whether the body had come by then, and on nothing else.
    return sorted((name, value) for name, value in answer.headers.items() if name.lower() not in ("date", "connection"))


def test_a_refusal_reaches_who_still_sends_the_body(house: House) -> None:
    """As many clients do, headers first, and the body in a packet of its own; and the connection goes on."""
    for shown, status in (("", 401), (f"Authorization: Bearer {house.tokens['nobody']}\r\n", 404)):
        head = f"POST /segments/payments/entries HTTP/1.1\r\nHost: x\r\n{shown}Content-Length: 5000\r\n\r\n"
        with socket.create_connection(("127.0.0.1", house.server.port), PATIENCE) as connection:
            for _ in range(3):
                connection.sendall(head.encode())
                time.sleep(0.05)
                connection.sendall(b" " * 5000)
                answer = connection.recv(65_536)
                assert answer.startswith(b"HTTP/1.1 %d " % status)
                assert b"connection: close" not in answer.lower()


@pytest.mark.parametrize(
    ("who", "request_line", "kind", "status"),
    [
        (None, "POST /segments/payments/entries", JSON, 401),
        ("nobody", "POST /segments/payments/entries", JSON, 404),
        (None, "POST /segments/payments/entries", "", 401),
        (None, "PUT /segments/another", JSON, 401),
        (None, "PUT /policy", TOML, 401),
        (None, "PUT /policy", "", 415),
        (None, "PUT /segments/payments/seal", "", 400),
    ],
)
def test_who_may_not_is_refused_before_the_body_comes(
    own_house: House, who: str | None, request_line: str, kind: str, status: int
) -> None:
    house = own_house
    shown = [f"Content-Type: {kind}"] if kind else []
    if who:
        shown.append(f"Authorization: Bearer {house.tokens[who]}")
    with stalled(house.server.port, 300, request_line, *shown) as held:
        # Of a few of each worker the rest is waited for.
        until(lambda: len(answered(held)) >= 300 - 2 * MAX_DISCARDING, "the others to be refused")
        assert {one.recv(12) for one in answered(held)} == {b"HTTP/1.1 %d" % status}
        for _ in range(10):
            assert house.ask(None, "GET", "/healthz").status == 200
            assert house.append("writer").status == 201


def test_nothing_of_another_segment_shows_in_any_answer(own_house: House) -> None:
    """The auditor of A gets the same answers whether B is there, is full, or was never made."""
    house = own_house

    def answers() -> list[tuple[int, bytes]]:
        paths = [row.path(name) for name in ("payments", "fresh-b") for row in ROUTES if row.method == "GET"]
        paths += ["/segments", "/segments?after=a", "/segments?limit=1", "/healthz", "/readyz", "/metrics", "/policy"]
        asked = [house.ask("auditor", "GET", path, X_Request_Id="same") for path in paths]
        return [(one.status, one.body) for one in asked]

    assert house.append("writer").status == house.append("writer").status == 201
    before = answers()
    tell("segment", "create", "fresh-b", "--data", house.server.data)
    assert answers() == before
    opened = house.apply(POLICY.replace('segments = ["payments"]', 'segments = ["payments", "fresh-b"]', 1), 1)
    assert opened.status == 200
    assert house.append("writer", segment="fresh-b").status == 201
    assert answers() == before


@pytest.mark.alone
def test_missing_and_forbidden_take_the_same_time_to_refuse(house: House) -> None:
    """At the median, over one connection, in turns. That both are looked up alike, test_guard.py shows."""
    shown = {"Authorization": f"Bearer {house.tokens['auditor']}"}

    def ratio() -> float:
        times: dict[str, list[float]] = {"secrets": [], "missing": []}
        with closing(http.client.HTTPConnection("127.0.0.1", house.server.port, timeout=PATIENCE)) as connection:
            for name in ("secrets", "missing", "missing", "secrets") * 750:
                began = time.perf_counter()
                connection.request("GET", f"/segments/{name}/checkpoint", headers=shown)
                response = connection.getresponse()
                response.read()
                times[name].append(time.perf_counter() - began)
                assert response.status == 404
        return median(times["secrets"]) / median(times["missing"])

    # Where missing names are looked up each time, it is 1.08; as it is, 1.003.
    assert any(1 / 1.04 < ratio() < 1.04 for _ in range(5))


# Tokens


def test_a_token_that_does_not_hold_is_refused_and_says_why_only_to_who_has_the_secret(own_house: House) -> None:
    house, token = own_house, own_house.tokens["writer"]
    _, token_id, secret = token.split("_", 2)
    other = f"tlog_{token_id}_{house.tokens['admin'].split('_', 2)[2]}"
    unknown = f"tlog_{'0' * 16}_{secret}"
    said = {house.ask(shown, "GET", "/segments/payments", X_Request_Id="same").body for shown in (other, unknown)}
    assert len(said) == 1
    for shown in ("", "x", token + "A", token[:-1], token.upper(), "tlog__", "\xff", token[:-1] + "-"):
        answer = house.ask(shown, "GET", "/segments/payments")
        assert (answer.status, answer.headers["WWW-Authenticate"]) == (401, 'Bearer realm="tlog"')
    assert house.server.request("GET", "/segments/payments", headers={"Authorization": f"Basic {token}"}).status == 401


def test_a_revoked_token_is_refused_by_every_worker_at_once(own_house: House) -> None:
    house, token = own_house, own_house.tokens["writer"]
    assert all(house.append("writer").status == 201 for _ in range(20))
    assert house.ask("root", "DELETE", f"/tokens/{token.split('_')[1]}").status == 204
    assert [house.append("writer").status for _ in range(40)] == [401] * 40
    assert house.ask("root", "DELETE", f"/tokens/{token.split('_')[1]}").status == 404


def test_a_rotated_token_goes_on_for_the_overlap_and_no_longer(own_house: House) -> None:
    house, old = own_house, own_house.tokens["writer"].split("_")[1]
    overlap = json.dumps({"overlap_days": 2 / 86_400}).encode()
    answer = house.ask("root", "POST", f"/tokens/{old}/rotation", overlap)
    assert (answer.status, answer.headers["Cache-Control"]) == (201, "no-store")
    house.tokens["rotated"] = answer.json()["token"]
    assert house.append("writer").status == house.append("rotated").status == 201
    until(lambda: house.append("writer").status == 401, "the old token to end")
    assert house.append("rotated").status == 201


def test_a_token_expires_and_has_an_end_that_is_near(own_house: House) -> None:
    house = own_house
    for days in (0, -1, 1e-9, 0.9 / 86_400, 90.001, 1e9, 1e308):
        body = json.dumps({"principal": "writer", "days": days}).encode()
        assert house.ask("root", "POST", "/tokens", body).status == 400
    for principal in ("", "anonymous", "tlog/operator", "a b", "a\n", "\u202ex", "x" * 256):
        body = json.dumps({"principal": principal, "days": 1}).encode()
        assert house.ask("root", "POST", "/tokens", body).status == 400, principal
    answer = house.ask("root", "POST", "/tokens", json.dumps({"principal": "writer", "days": 1 / 86_400}).encode())
    house.tokens["short"] = answer.json()["token"]
    assert house.append("short").status == 201
    until(lambda: house.append("short").status == 401, "the token to expire")


def test_when_a_token_was_used_last_is_known_soon(own_house: House) -> None:
    house = own_house
    assert house.append("till").status == 201

    def last() -> int | None:
        tokens = house.ask("root", "GET", "/tokens").json()["tokens"]
        used: list[int | None] = [one["last_used"] for one in tokens if one["principal"] == "till"]
        return used[0]

    until(lambda: last() is not None, "it to be noted")
    assert abs((last() or 0) / 1000 - time.time()) < PATIENCE


def test_the_keys_of_writers_are_listed_page_by_page_also_those_removed(own_house: House) -> None:
    house = own_house
    vkeys = sorted(str(signer_from_seed(name, secrets.token_bytes(32)).verifier) for name in ("till", "till", "a", "b"))
    for vkey in vkeys:
        assert house.ask("root", "POST", "/keys", json.dumps({"vkey": vkey}).encode()).status == 201
    assert house.ask("root", "POST", "/keys/removal", json.dumps({"vkey": vkeys[1]}).encode()).status == 200
    seen, after = [], ""
    for left in (3, 2, 1, 0):
        answer = house.ask("root", "GET", f"/keys?limit=1&after={quote(after, safe='')}").json()
        seen += answer["keys"]
        assert (len(answer["keys"]), answer["next"] is None) == (1, left == 0)
        after = answer["next"]
    assert house.ask("root", "GET", "/keys").json() == {"keys": seen, "next": None}
    assert [one["vkey"] for one in seen] == vkeys
    assert [one["vkey"] for one in seen if one["removed"] is not None] == [vkeys[1]]
    assert all(one["added"] <= (one["removed"] or one["added"]) for one in seen)
    assert house.ask("root", "GET", "/keys?limit=0").status == 400
    assert house.ask("root", "GET", "/keys?offset=1").status == 400
    lines = [line.split("\t") for line in tell("writer", "list", "--data", house.server.data).splitlines()]
    assert [(vkey, state.split()[0]) for vkey, _, state in lines] == [
        (vkey, "removed" if vkey == vkeys[1] else "in") for vkey in vkeys
    ]


def test_no_secret_is_in_any_file_or_log(own_house: House) -> None:
    house = own_house
    for who in PEOPLE:
        house.ask(who, "GET", "/segments/payments")
        house.ask(who, "GET", f"/segments/{house.tokens[who]}")
        house.ask(who, "GET", f"/no-such?token={house.tokens[who]}")
    assert house.server.stop() == 0
    house.check_no_secret()


def test_nothing_that_was_sent_or_given_out_is_in_the_log_of_a_whole_run(own_house: House) -> None:
    """Every route with what is secret where it belongs, where it does not, and where it makes the server fail."""
    house, marks = own_house, itertools.count()
    sent: list[str] = []

    def mark(kind: str) -> str:
        # With an underscore, which no segment's name has: those are logged.
        sent.append(f"{kind}_{next(marks)}_{secrets.token_hex(8)}")
        return sent[-1]

    def sweep() -> None:
        for who in ("root", "examiner", "writer", "auditor", "creator", mark("no-token"), None):
            for row in (*ROUTES, *GLOBAL, *OPEN):
                for name in ("payments", "missing", mark("in-the-path"), house.tokens["writer"]):
                    place = f"{row.path(name)}?{mark('in-the-query')}={mark('in-the-query')}"
                    given = {name.replace("-", "_"): value for name, value in row.headers.items()}
                    given |= {"Idempotency_Key": mark("key"), "Content_Type": row.kind}
                    house.ask(who, row.method, place, row.body, **given)

    def issued(answer: Answer) -> str:
        house.tokens[mark("token")] = token = answer.json()["token"]
        return str(token.split("_")[1])

    for text in (mark("payload"), f'{{"{mark("member")}": "{mark("payload")}"}}', f'"{mark("cut")}'):
        for kind in (JSON, NDJSON, "text/plain", mark("type"), SIGNED_TYPE):
            house.ask("writer", "POST", "/segments/payments/entries", text.encode(), Content_Type=kind)
    openings = house.ask("auditor", "GET", "/segments/payments/entries").json()["entries"]
    assert len(openings) > 3
    sent += [one["opening"] for one in openings]
    key = signer_from_seed("till", secrets.token_bytes(32))
    assert house.ask("root", "POST", "/keys", json.dumps({"vkey": str(key.verifier)}).encode()).status == 201
    opening = Opening(secrets.token_bytes(32))
    batch = sign_batch(
        [json.dumps(mark("signed")).encode()],
        JSON,
        openings=(opening,),
        origin=f"{LOG_NAME}/segments/payments",
        first=0,
        signer=key,
    )
    for status in (201, 409):
        answer = house.ask("till", "POST", "/segments/payments/entries", batch.body(), Content_Type=SIGNED_TYPE)
        assert answer.status == status
    sent += [encode_base64(opening), opening.hex(), key.format()]
    body = json.dumps({"principal": "new", "days": 1}).encode()
    token_id = issued(house.ask("root", "POST", "/tokens", body))
    token_id = issued(house.ask("root", "POST", f"/tokens/{token_id}/rotation", b'{"overlap_days":0}'))
    assert house.ask("root", "DELETE", f"/tokens/{token_id}").status == 204
    for wrong in (mark("body"), json.dumps({mark("member"): mark("value")})):
        for path in ("/tokens", "/keys", "/keys/removal", f"/tokens/{token_id}/rotation"):
            assert house.ask("root", "POST", path, wrong.encode()).status == 400
    assert house.apply(f'{mark("policy")} = "{mark("policy")}"', 1).status == 400
    assert house.apply(f"{POLICY}# {mark('comment')}\n", 1).status == 200
    asked = json.dumps({"reason": mark("reason"), "minutes": 1}).encode()
    request = house.ask("monitor", "POST", "/segments/payments/access-requests", asked).json()["id"]
    for who in ("first", "second", "second"):
        house.ask(who, "PUT", f"/segments/payments/access-requests/{request}/approval", b"")
    sweep()
    # Again, while what is stored is damaged: what fails is logged with its cause.
    assert house.server.stop() == 0
    [(name,)] = _rows(Config(house.server.data), "select id from segment where name = 'payments'")
    database = Config(house.server.data).segment(name)
    database.write_bytes(database.read_bytes()[:4096].ljust(40_960, b"\0"))
    house.server = start(house.server.data, guarded=True, log_name=None)
    for kind in (JSON, NDJSON, SIGNED_TYPE):
        damaged = batch.body() if kind == SIGNED_TYPE else json.dumps(mark("payload")).encode()
        who = "till" if kind == SIGNED_TYPE else "writer"
        assert house.ask(who, "POST", "/segments/payments/entries", damaged, Content_Type=kind).status == 500
    sweep()
    assert house.server.stop() == 0
    log = house.server.log.read_text()
    assert log.count('"request"') > 1_000
    assert log.count('"failed"') > 3
    assert [secret for secret in sent if secret in log] == []
    house.check_no_secret()


# Policy


def test_a_policy_is_read_and_replaced_by_version_and_a_bad_one_changes_nothing(own_house: House) -> None:
    house = own_house
    read = house.ask("examiner", "GET", "/policy")
    assert (read.body.decode(), read.headers["ETag"], read.headers["Content-Type"]) == (POLICY, '"1"', TOML)
    bad = house.apply(POLICY.replace('roles = ["monitor"]', 'roles = ["spy"]'), 1)
    assert bad.status == 400
    assert "monitor" in bad.json()["detail"]
    assert "line " in bad.json()["detail"]
    both = POLICY.replace('roles = ["admin"]\nprincipals = ["admin"]', 'roles = ["admin"]\nprincipals = ["auditor"]')
    assert house.apply(both, 1).status == 400
    assert house.apply(POLICY, 0).status == house.apply(POLICY, 2).status == 409
    assert house.ask("root", "PUT", "/policy", POLICY.encode(), Content_Type=TOML).status == 400
    assert house.append("writer").status == 201
    assert house.apply(POLICY.replace('"writer", "till"', '"till"'), 1).json() == {"version": 2}
    assert house.append("writer").status == 404
    assert house.append("till").status == 201


def test_a_version_that_cannot_be_is_refused_as_one_that_is_not_in_force(own_house: House) -> None:
    answer = own_house.apply(POLICY, 2**63 - 1)
    assert (answer.status, answer.json()["detail"]) == (
        409,
        "the policy in force has version 1; read it, and apply yours to that",
    )


ADMINISTRATORS = POLICY.partition('[[rule]]\nname = "examiner"')[0]


@pytest.mark.parametrize(
    ("document", "says"),
    [
        ("", "you could not apply the next one"),
        (ADMINISTRATORS.replace('"root"]', '"admin"]'), "you could not apply the next one"),
        (ADMINISTRATORS.replace(', "control"', ""), "you could not apply the next one"),
        (f'{ADMINISTRATORS}networks = ["192.0.2.0/24"]', "you could not apply the next one"),
        (f"{ADMINISTRATORS}expires = 2020-01-01T00:00:00Z", "you could not apply the next one"),
        (f"{ADMINISTRATORS}expires = 9999-01-01T00:00:00Z", "there is soon no administrator"),
        (
            ADMINISTRATORS + ADMINISTRATORS.replace('name = "root"', 'name = "not"\neffect = "deny"'),
            "you could not apply the next one",
        ),
    ],
)
def test_nobody_locks_out_everybody_over_http(house: House, document: str, says: str) -> None:
    answer = house.apply(document, 1)
    assert (answer.status, answer.json()["type"]) == (400, "urn:tlog:problem:malformed")
    assert says in answer.json()["detail"]
    assert 'add a rule with roles = ["admin"] and segments = ["control"] that ' in answer.json()["detail"]
    assert house.ask("examiner", "GET", "/policy").headers["ETag"] == '"1"'


def test_who_can_apply_the_next_policy_may_do_so_by_a_rule_that_ends_or_from_one_network(own_house: House) -> None:
    here = 'expires = 9999-01-01T00:00:00Z\nnetworks = ["127.0.0.0/8"]'
    ends = ADMINISTRATORS.replace('name = "root"', f'name = "for now"\n{here}')
    assert own_house.apply(ends + ADMINISTRATORS.replace('"root"]', '"another"]'), 1).status == 200
    assert own_house.apply(ADMINISTRATORS, 2).json() == {"version": 3}


def test_two_who_replace_a_policy_at_once_do_not_undo_each_other(own_house: House) -> None:
    with ThreadPoolExecutor(8) as threads:
        answers = list(threads.map(lambda n: own_house.apply(f"{POLICY}# {n}\n", 1).status, range(8)))
    assert sorted(answers) == [200] + [409] * 7


@pytest.mark.alone
def test_no_request_that_begins_after_a_change_is_decided_by_the_old_policy(own_house: House) -> None:
    """Under load, at both workers: what begins after a change was acknowledged is decided by it."""
    house, seen, ends = own_house, list[tuple[float, int]](), threading.Event()
    refused = POLICY.replace('"writer", "till"', '"till"')

    def hammer() -> None:
        while not ends.is_set():
            began = time.monotonic()
            seen.append((began, house.append("writer").status))

    threads = [threading.Thread(target=hammer) for _ in range(8)]
    for thread in threads:
        thread.start()
    changed: list[tuple[float, float, bool]] = []
    for version in range(1, 21):
        allows = version % 2 == 0
        asked = time.monotonic()
        assert house.apply(POLICY if allows else refused, version).status == 200
        changed.append((asked, time.monotonic(), allows))
        time.sleep(0.1)
    ends.set()
    for thread in threads:
        thread.join()
    changed.append((time.monotonic(), time.monotonic(), False))
    checked = 0
    for (_, acknowledged, allows), (asked, _, _) in itertools.pairwise(changed):
        # Answers to what began before the next change was asked for may come after it, and go by it.
        between = [status for began, status in seen if acknowledged < began < asked - 0.05]
        wanted = 201 if allows else 404
        assert set(between) <= {wanted}
        checked += len(between)
    assert checked > 100


def test_explain_names_the_deciding_rule_and_diff_says_who_gains_and_loses(own_house: House, tmp_path: Path) -> None:
    data = own_house.server.data
    explained = tell("policy", "explain", "writer", "entry:append", "payments", "--data", data)
    assert explained.startswith('allowed: rule "writer"')
    assert (
        tell("policy", "explain", "nobody", "payload:read", "payments", "--data", data)
        == "refused: no rule allows it (by a token of nobody in no group)"
    )
    conflict = tell(
        *("policy", "explain", "joan", "entry:append", "payments", "--group", "tills", "--group", "managers"),
        *("--data", data),
    )
    assert conflict.startswith("refused: one principal may not be admin")
    new = tmp_path / "new.toml"
    new.write_text(POLICY.replace('principals = ["monitor"]', 'principals = ["watcher"]'))
    lines = tell("policy", "diff", new, "--data", data).splitlines()
    assert [line for line in lines if "tile:read" in line] == [
        '- monitor  tile:read  payments  (rule "monitor")',
        '+ watcher  tile:read  payments  (rule "monitor")',
    ]
    assert tell("policy", "show", "--data", data) == POLICY.strip()


def test_a_workload_makes_its_segment_with_the_labels_of_the_rule_and_no_others(own_house: House) -> None:
    house = own_house
    assert house.ask("creator", "PUT", "/segments/fresh-1", b'{"labels":{"env":"prod"}}').status == 201
    assert house.ask("creator", "PUT", "/segments/fresh-1", b'{"labels":{"env":"prod"}}').status == 200
    for body in (b"", b'{"labels":{"env":"dev"}}', b'{"labels":{"env":"prod","team":"x"}}'):
        assert house.ask("creator", "PUT", "/segments/fresh-2", body).status == 404
    assert house.ask("creator", "PUT", "/segments/other", b'{"labels":{"env":"prod"}}').status == 404
    assert house.ask("root", "PUT", "/segments/control", b"").status == 404


def test_who_may_create_and_not_read_learns_that_a_name_is_taken_and_nothing_else(own_house: House) -> None:
    house, data = own_house, own_house.server.data

    def put(name: str, body: bytes = b'{"labels":{"env":"prod"}}') -> tuple[int, bytes]:
        answer = house.ask("creator", "PUT", f"/segments/{name}", body, X_Request_Id="same")
        return answer.status, answer.body

    said = 200, b'{"labels":{"env":"prod"},"name":"payments","signed":false}'
    assert put("payments") == said
    assert house.append("writer").status == 201
    assert house.ask("admin", "PUT", "/segments/payments/seal").status == 200
    assert put("payments") == said
    # Other labels, no labels, or another `signed`: taken is taken.
    tell("segment", "create", "fresh-dev", "--data", data, "--label", "env=dev")
    tell("segment", "create", "fresh-bare", "--data", data)
    taken = {put(name) for name in ("fresh-dev", "fresh-bare")} | {
        put("payments", b'{"labels":{"env":"prod"},"signed":true}')
    }
    assert [status for status, _ in taken] == [409]
    # Beyond its rule a creator cannot ask.
    unasked = {put(name, b'{"labels":{"env":"dev"}}') for name in ("fresh-dev", "fresh-no-such", "payments")}
    unasked |= {put("secrets"), put("no-such")}
    assert [status for status, _ in unasked] == [404]
    assert house.ask("creator", "GET", "/segments/payments").status == 404


# On the record


def test_every_change_is_an_entry_of_control_in_its_order(own_house: House) -> None:
    house = own_house
    issued = house.ask("root", "POST", "/tokens", b'{"principal":"new","days":1,"groups":["b","a"]}').json()
    house.ask("root", "POST", f"/tokens/{issued['id']}/rotation", b'{"overlap_days":0}')
    house.ask("creator", "PUT", "/segments/fresh-9", b'{"labels":{"env":"prod"}}')
    house.ask("admin", "PUT", "/segments/payments/seal", b"")
    changes = house.recorded("control")
    begun = ["segment.created"] * 2 + ["policy.applied"] + ["token.issued"] * len(PEOPLE)
    assert [one["event"] for one in changes] == [
        *begun,
        "token.issued",
        "token.rotated",
        "segment.created",
        "segment.sealed",
    ]
    assert [one["by"] for one in changes[len(begun) :]] == ["root", "root", "creator", "admin"]
    assert changes[2]["document"] == POLICY
    assert changes[-4]["groups"] == ["a", "b"]
    assert issued["token"] not in json.dumps(changes)
    fsck = subprocess.run([TLOG, "fsck", "--data", house.server.data], capture_output=True, text=True, check=False)
    assert fsck.returncode == 0, fsck.stdout


def test_every_read_of_a_payload_is_on_record_before_it_is_answered(own_house: House) -> None:
    house = own_house
    for _ in range(5):
        house.append("writer")
    assert house.ask("auditor", "GET", "/segments/payments/entries/3").status == 200
    assert len(house.ask("auditor", "GET", "/segments/payments/entries?start=1&limit=3").json()["entries"]) == 3
    assert house.ask("auditor", "GET", "/segments/payments/entries/99").status == 404
    assert house.ask("nobody", "GET", "/segments/payments/entries/0").status == 404
    reads = [read for entry in house.recorded("access") for read in entry["reads"]]
    assert [(one["by"], one["segment"], one["start"], one["end"], one["policy"]) for one in reads] == [
        ("auditor", "payments", 3, 4, 1),
        ("auditor", "payments", 1, 4, 1),
    ]


def test_the_record_of_reads_can_be_read_to_its_end_though_each_page_is_an_entry_more(
    own_house: House, tmp_path: Path
) -> None:
    house = own_house
    house.append("writer")
    for _ in range(3):
        assert house.ask("auditor", "GET", "/segments/payments/entries").status == 200
    vkey = house.ask("examiner", "GET", "/segments/access").json()["vkey"]
    with Log(f"{house.server.url}/segments/access", vkey, state=tmp_path, token=house.tokens["examiner"]) as log:
        assert len(list(log.entries())) == 3
        assert len(list(log.entries())) > 3


def test_many_reads_at_once_share_entries_of_the_record_and_none_is_missing(own_house: House) -> None:
    house = own_house
    house.ask("writer", "POST", "/segments/payments/entries", b"1\n" * 200, Content_Type=NDJSON)
    with ThreadPoolExecutor(32) as threads:
        answers = list(
            threads.map(lambda n: house.ask("auditor", "GET", f"/segments/payments/entries/{n}").status, range(200))
        )
    assert answers == [200] * 200
    entries = house.recorded("access")
    assert sorted(read["start"] for entry in entries for read in entry["reads"]) == list(range(200))
    assert len(entries) < 200


def test_a_payload_is_not_served_when_its_read_cannot_be_recorded(own_house: House) -> None:
    house = own_house
    house.append("writer")
    assert house.server.stop() == 0
    [(name,)] = _rows(Config(house.server.data), "select id from segment where name = 'access'")
    (house.server.data / "keys" / f"{name}.key").unlink()
    again = House(start(house.server.data, guarded=True, log_name=None, port=house.server.port), house.tokens)
    try:
        assert again.ask("auditor", "GET", "/segments/payments/entries/0").status == 500
        assert again.append("writer").status == 201
    finally:
        again.server.kill()


def test_a_change_that_a_crash_left_on_record_only_is_in_force_after_the_next_start(own_house: House) -> None:
    house = own_house
    assert house.server.stop() == 0
    config = Config(house.server.data)
    segments = Segments(config, Nobody(), lambda: 1)
    change = PolicyApplied(by="root", at=1, version=2, document=POLICY.replace('"writer", "till"', '"till"'))
    with exclusive(config.changes), segments.use("control") as control:
        append(control, commit_to(writer="root", kind=JSON, payloads=[encode_change(change)]))
    segments.close()
    again = House(start(house.server.data, guarded=True, log_name=None), house.tokens)
    try:
        assert again.ask("examiner", "GET", "/policy").headers["ETag"] == '"2"'
        assert (again.append("writer").status, again.append("till").status) == (404, 201)
    finally:
        again.server.kill()


def test_changes_that_are_not_on_record_any_more_stop_all_further_ones(own_house: House, tmp_path: Path) -> None:
    """Whoever puts back an older `control` to hide a change does not get to make others."""
    house = own_house
    assert house.server.stop() == 0
    config = Config(house.server.data)
    [(name,)] = _rows(config, "select id from segment where name = 'control'")
    path = config.segment(name)
    shutil.copy(path, tmp_path / "older")
    tell("token", "issue", "accomplice", "--data", config.data)
    for stale in path.parent.glob(f"{name}.db-*"):
        stale.unlink()
    shutil.copy(tmp_path / "older", path)
    refused = subprocess.run(
        [TLOG, "token", "issue", "x", "--data", config.data], capture_output=True, text=True, check=False
    )
    assert (refused.returncode, refused.stdout) == (1, "")
    assert "control.db holds" in refused.stderr


def _rows(config: Config, query: str) -> list[Any]:
    connection = sqlite3.connect(config.control)
    try:
        return connection.execute(query).fetchall()
    finally:
        connection.close()


# Break-glass


def test_two_others_open_a_segment_for_a_while_and_it_closes_by_itself(own_house: House) -> None:
    house, path = own_house, "/segments/payments/access-requests"
    house.append("writer")
    body = json.dumps({"reason": "incident 4711", "minutes": 4 / 60}).encode()

    def reads() -> int:
        return house.ask("monitor", "GET", "/segments/payments/entries/0").status

    request = house.ask("monitor", "POST", path, body)
    assert (request.status, request.json()["until"]) == (201, None)
    approval = f"{path}/{request.json()['id']}/approval"
    assert reads() == 404
    assert house.ask("monitor", "PUT", approval, b"").status == 404
    assert house.ask("first", "PUT", approval, b"").json()["approvers"] == ["first"]
    assert house.ask("first", "PUT", approval, b"").status == 409
    assert reads() == 404
    granted = house.ask("second", "PUT", approval, b"").json()
    until_then = granted["until"]
    assert granted["approvers"] == ["first", "second"]
    assert granted["lapses"] == granted["requested"] + DAY
    assert house.ask("first", "GET", path).json() == {"requests": [granted]}
    assert 0 < until_then / 1000 - time.time() < 5
    assert [reads() for _ in range(10)] == [200] * 10
    assert house.ask("till", "PUT", approval, b"").status == 409
    until(lambda: reads() == 404, "the access to end")
    assert time.time() >= until_then / 1000
    recorded = [(one["event"], one["by"]) for one in house.recorded("control")][-3:]
    assert recorded == [("access.requested", "monitor"), ("access.approved", "first"), ("access.approved", "second")]
    # It was asked for in this segment, and is to be approved in no other.
    elsewhere = approval.replace("payments", "secrets")
    assert house.ask("first", "PUT", elsewhere, b"").status == 404


def test_who_asks_for_access_cannot_be_one_of_the_two_and_cannot_ask_for_long(own_house: House) -> None:
    house, path = own_house, "/segments/payments/access-requests"
    both = POLICY.replace('principals = ["till", "first", "second"]', 'principals = ["monitor", "first", "second"]')
    assert house.apply(both, 1).status == 200
    lengths = [(minutes, "x") for minutes in (0, -1, 1e-9, 0.9 / 60, 60.001, 1e308)]
    for minutes, reason in (*lengths, (1, ""), (1, "a\nb"), (1, "x" * 501)):
        body = json.dumps({"reason": reason, "minutes": minutes}).encode()
        assert house.ask("monitor", "POST", path, body).status == 400
    made = house.ask("monitor", "POST", path, b'{"reason":"x","minutes":1}').json()["id"]
    assert house.ask("monitor", "PUT", f"{path}/{made}/approval", b"").status == 409
    assert house.ask("first", "PUT", f"{path}/{made}/approval", b"").status == 200
    assert house.ask("monitor", "PUT", f"{path}/{made}/approval", b"").status == 409
    assert house.ask("monitor", "GET", "/segments/payments/entries/0").status == 404


def test_a_request_that_two_have_not_approved_within_a_day_lapses(own_house: House) -> None:
    house, path = own_house, "/segments/payments/access-requests"

    def requested(ago: int) -> str:
        made = str(house.ask("monitor", "POST", path, b'{"reason":"incident","minutes":1}').json()["id"])
        with closing(sqlite3.connect(house.server.data / "control.db")) as control, control:
            control.execute("update access_request set requested = requested - ? where id = ?", [ago, made])
        return made

    def approve(who: str, made: str) -> tuple[int, str]:
        answer = house.ask(who, "PUT", f"{path}/{made}/approval", b"")
        return answer.status, answer.json().get("detail", "")

    def pass_a_day(made: str) -> None:
        with closing(sqlite3.connect(house.server.data / "control.db")) as control, control:
            control.execute("update access_request set requested = requested - ? where id = ?", [DAY, made])

    old, started, in_time = requested(DAY), requested(0), requested(DAY - 1_000 * int(PATIENCE))
    assert approve("first", started)[0] == approve("first", in_time)[0] == approve("second", in_time)[0] == 200
    pass_a_day(started)
    before = len(house.recorded("control"))
    for who, made in (("first", old), ("second", started), ("first", started)):
        status, detail = approve(who, made)
        assert (status, "lapsed" in detail) == (409, True)
    pass_a_day(in_time)
    status, detail = approve("till", in_time)
    assert (status, "lapsed" in detail) == (409, False)
    assert len(house.recorded("control")) == before
    until_then = {one["id"]: one["until"] for one in house.ask("first", "GET", path).json()["requests"]}
    assert [until_then[made] is None for made in (old, started, in_time)] == [True, True, False]


def test_who_asks_again_and_again_does_not_push_the_requests_of_others_out_of_reach(own_house: House) -> None:
    house, path = own_house, "/segments/payments/access-requests"
    made = house.ask("monitor", "POST", path, b'{"reason":"incident","minutes":1}').json()["id"]
    with closing(sqlite3.connect(house.server.data / "control.db")) as control, control:
        control.executemany(
            "insert into access_request (id, principal, segment, reason, milliseconds, requested)"
            " select ?, principal, segment, reason, milliseconds, requested + ? from access_request where id = ?",
            [(f"{number:016x}", number, made) for number in range(1, 1_001)],
        )
    listed = house.ask("first", "GET", path).json()["requests"]
    assert (len(listed), made in [one["id"] for one in listed]) == (1_000, False)
    answers = [house.ask(who, "PUT", f"{path}/{made}/approval", b"").json() for who in ("first", "second")]
    assert [(one["id"], one["approvers"], one["until"] is None) for one in answers] == [
        (made, ["first"], True),
        (made, ["first", "second"], False),
    ]
    # By another segment's path it is not to be had, whoever knows it.
    both = POLICY.replace('"first", "second"]\nsegments = ["payments"]', '"first", "second"]\nsegments = ["*"]')
    assert house.apply(both, 1).status == 200
    elsewhere = house.ask("first", "PUT", f"{path.replace('payments', 'secrets')}/{made}/approval", b"")
    assert (elsewhere.status, elsewhere.json()["detail"]) == (404, "no such access request")


# Sealing


def test_a_sealed_segment_takes_no_more_and_stays_provable(own_house: House) -> None:
    house = own_house
    first = house.ask("writer", "POST", "/segments/payments/entries", b"1", Content_Type=JSON, Idempotency_Key="k")
    sealed = house.ask("admin", "PUT", "/segments/payments/seal", b"")
    assert (sealed.status, sealed.json()["size"]) == (200, 2)
    assert sealed.json()["sealed"] is not None
    refused = house.append("writer")
    assert (refused.status, refused.json()["type"]) == (409, "urn:tlog:problem:sealed")
    again = house.ask("admin", "PUT", "/segments/payments/seal", b"")
    assert (again.status, again.body) == (200, sealed.body)
    retried = house.ask("writer", "POST", "/segments/payments/entries", b"1", Content_Type=JSON, Idempotency_Key="k")
    assert (retried.status, retried.body) == (201, first.body)
    last = json.loads(house.ask("auditor", "GET", "/segments/payments/entries/1").json()["entry"])
    assert last["writer"] == "tlog/seal"
    assert house.ask("auditor", "GET", "/segments/payments/proof/inclusion/2/1").status == 200


def test_of_many_who_append_while_a_segment_is_sealed_each_is_before_it_or_refused(own_house: House) -> None:
    house = own_house
    with ThreadPoolExecutor(16) as threads:
        statuses = [threads.submit(lambda: house.append("writer").status) for _ in range(200)]
        time.sleep(0.05)
        size = house.ask("admin", "PUT", "/segments/payments/seal", b"").json()["size"]
        answers = [status.result() for status in statuses]
    assert set(answers) <= {201, 409}
    assert answers.count(201) + 1 == size
    assert house.ask("auditor", "GET", "/segments/payments").json()["size"] == size


# Quotas


@pytest.mark.alone
def test_a_noisy_tenant_is_slowed_and_the_quiet_one_is_not(tmp_path: Path) -> None:
    quota = """
[[quota]]
name = "tills"
each = "principal"
requests_per_second = 2
"""
    house = build(tmp_path / "data", POLICY + quota)
    try:
        with ThreadPoolExecutor(8) as threads:
            answers = list(threads.map(lambda _: house.append("writer"), range(120)))
        refused = [answer for answer in answers if answer.status == 429]
        assert {answer.status for answer in answers} == {201, 429}
        assert len(refused) > 40
        assert {answer.json()["type"] for answer in refused} == {"urn:tlog:problem:quota"}
        assert all(1 <= int(answer.headers["Retry-After"]) <= 2 for answer in refused)
        began = time.monotonic()
        again = [house.append("writer").status for _ in range(10)].count(429)
        assert again > 5
        assert time.monotonic() - began >= 0.1 * again, "who asked again at once was answered at once"
        assert house.append("till").status == 201
        # Nobody's probes are among what is counted.
        assert [house.ask(None, "GET", "/healthz").status for _ in range(20)] == [200] * 20
        time.sleep(1.1)
        assert house.append("writer").status == 201
    finally:
        house.server.kill()


def test_a_quota_of_bytes_counts_bodies(tmp_path: Path) -> None:
    quota = """
[[quota]]
name = "bytes"
principals = ["writer"]
bytes_per_second = 1000
"""
    house = build(tmp_path / "data", POLICY + quota)
    try:
        large = json.dumps("x" * 3_000).encode()
        statuses = [house.append("writer", large).status for _ in range(3)]
        assert statuses == [201, 429, 429]
        assert house.append("till", large).status == 201
        until(lambda: house.append("writer", b"1").status == 201, "what was sent to be paid for", 10)
    finally:
        house.server.kill()


def test_whose_tokens_are_taken_is_on_record_before_they_are(tmp_path: Path) -> None:
    data, document = tmp_path / "data", ""

    def recorded(*, guarded: bool = True) -> list[Any]:
        server = start(data, guarded=guarded)
        assert server.stop() == 0
        changes = House(server, {}).recorded("control")
        return [change["document"] for change in changes if change["event"] == "issuers.changed"]

    seen = recorded()
    assert seen == []
    for name in ("one", "two"):
        document += f'[[issuer]]\nissuer = "https://{name}.example"\naudience = ["a"]\nalgorithms = ["ES256"]\n'
        document += f'name_prefix = "{name}:"\n'
        (data / "issuers.toml").write_text(document)
        # A server that asks nobody who they are takes nobody's tokens.
        assert recorded(guarded=False) == seen
        seen = recorded()
        assert (seen[-1], len(seen)) == (document, 1 if name == "one" else 2)
        # Read again, and nothing new.
        assert recorded() == seen
    (data / "issuers.toml").unlink()
    assert recorded(guarded=False) == seen
    assert recorded() == [*seen, ""]


# How a server begins


def test_a_server_on_an_empty_folder_gives_credentials_once_and_lines_that_work(tmp_path: Path) -> None:
    server = start(tmp_path / "the data", guarded=True)
    try:
        assert paste_lines(server.log.read_text(), tmp_path)[2].startswith("verified: ")
    finally:
        server.stop()
    again = start(tmp_path / "the data", guarded=True)
    again.stop()
    assert again.log.read_text().count("tlog-client append") == 1
    assert "no policy" not in again.log.read_text()


def test_a_server_that_nobody_may_use_says_what_to_do(tmp_path: Path) -> None:
    tell("segment", "create", "payments", "--data", str(tmp_path / "data"), "--log-name", LOG_NAME)
    server = start(tmp_path / "data", guarded=True)
    server.stop()
    assert "tlog policy apply FILE --data" in server.log.read_text()


@pytest.mark.parametrize(
    "command",
    [
        ["token", "issue", "somebody"],
        ["token", "list"],
        ["policy", "show"],
        ["policy", "apply", "pyproject.toml"],
        ["segment", "seal", "payments"],
        ["segment", "list"],
        ["fsck"],
    ],
)
def test_a_command_on_a_mistyped_folder_begins_no_log(tmp_path: Path, command: list[str]) -> None:
    run = subprocess.run(
        [str(TLOG), *command, "--data", str(tmp_path / "typo")], capture_output=True, text=True, check=False
    )
    assert (run.returncode, run.stdout) == (2, "")
    assert "holds no log; is that the right --data?" in run.stderr
    assert not (tmp_path / "typo").exists()


def test_an_unguarded_server_binds_to_loopback_only(tmp_path: Path) -> None:
    command = [str(TLOG), "serve", "--data", str(tmp_path / "data"), "--unguarded", "--host", "0.0.0.0"]  # noqa: S104
    refused = subprocess.run(command, capture_output=True, text=True, check=False, timeout=PATIENCE)
    assert refused.returncode == 2
    assert refused.stderr == "tlog: 0.0.0.0 is not a loopback address; unguarded, a server binds to no other\n"
    assert not (tmp_path / "data").exists()


# What caches may keep

IMMUTABLE = ("/tile/0/000.p/1", "/tile/entries/000.p/1", "/proof/inclusion/1/0", "/proof/consistency/0/1")
ANYONE = '[[rule]]\nname = "open"\nroles = ["monitor"]\nanyone = true\nsegments = ["payments"]\n'


def test_a_shared_cache_may_keep_what_anyone_may_read_from_anywhere_and_nothing_else(own_house: House) -> None:
    house = own_house
    assert house.append("writer").status == 201
    for version, (more, who, public) in enumerate(
        [
            ("", ("monitor",), False),
            (ANYONE, ("monitor", None), True),
            # This caller is let in by where it is, which a cache does not ask.
            (f'{ANYONE}networks = ["127.0.0.0/8"]\n', ("monitor", None), False),
        ],
        start=1,
    ):
        assert house.apply(f"{POLICY}\n{more}", version).status == 200
        for path, one in itertools.product(IMMUTABLE, who):
            headers = house.ask(one, "GET", f"/segments/payments{path}").headers
            kind = "public" if public else "private"
            assert headers["Cache-Control"] == f"{kind}, max-age=31536000, immutable", (path, one)
            assert ("Authorization" in headers.get_all("Vary", [])) is not public
    for path in ("/entries/0", "/entries"):
        assert house.ask("auditor", "GET", f"/segments/payments{path}").headers["Cache-Control"] == "no-store"
    for path in (*IMMUTABLE, "/entries/0"):
        refused = house.ask(None, "GET", f"/segments/secrets{path}", If_None_Match="*")
        assert (refused.status, refused.headers["Cache-Control"]) == (401, "no-store")
