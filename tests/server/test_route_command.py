"""`tlog route test`: it says of each event where the server puts it, and the server does."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ingesting import ROUTES
from live import LOG_NAME, Server, tell, tlog

EVENT = {"auditID": "1", "stage": "ResponseComplete", "verb": "get", "objectRef": {"namespace": "Web.Shop"}}


@pytest.fixture
def routes(tmp_path: Path) -> Path:
    path = tmp_path / "routes.toml"
    path.write_text(ROUTES)
    return path


def run(tmp_path: Path, body: bytes, *options: object) -> tuple[int, list[list[str]], str]:
    """Return the exit status, the columns of each line, and what stands on standard error."""
    file = tmp_path / "events"
    file.write_bytes(body)
    done = tlog("route", "test", file, "--data", tmp_path / "data", *options)
    return done.exit_code, [line.split("\t") for line in done.stdout.splitlines()], done.stderr


def lines(*events: Any) -> bytes:
    return b"".join(json.dumps(event).encode() + b"\n" for event in events)


@pytest.mark.parametrize(
    "body",
    [
        json.dumps({"kind": "EventList", "apiVersion": "audit.k8s.io/v1", "items": [EVENT, EVENT]}).encode(),
        json.dumps({"Records": [EVENT, EVENT]}).encode(),
        json.dumps([EVENT, EVENT], indent=1).encode(),
        lines(EVENT, EVENT),
        json.dumps(EVENT).encode() * 2,
    ],
    ids=["EventList", "Records", "array", "lines", "one behind the other"],
)
def test_a_file_is_whatever_the_receivers_take(tmp_path: Path, routes: Path, body: bytes) -> None:
    told = ["kubernetes", "k8s-web-shop", "new system=kubernetes"]
    assert run(tmp_path, body, "--routes", routes) == (0, [["1", *told], ["2", *told]], "")


def test_an_event_that_has_items_or_records_is_one_event(tmp_path: Path, routes: Path) -> None:
    for member in ("items", "Records"):
        status, told, _ = run(tmp_path, lines({"service": "till", member: [EVENT, EVENT]}), "--routes", routes)
        assert (status, told) == (0, [["1", "plain", "plain-till", "new system=other"]])


def test_a_route_is_passed_by_an_event_that_cannot_fill_its_labels(tmp_path: Path) -> None:
    routes = tmp_path / "routes.toml"
    routes.write_text(
        '[[route]]\nsegment = "labelled"\nlabels = { of = "{account}", kind = "{format}" }\n'
        '[[route]]\nsegment = "other"\n'
    )
    status, told, _ = run(tmp_path, lines({"account": "7"}, {"a": 1}), "--routes", routes)
    assert (status, [line[2:] for line in told]) == (0, [["labelled", "new kind=plain,of=7"], ["other", "new"]])


def test_it_says_why_an_event_goes_into_quarantine_and_exits_1(tmp_path: Path, routes: Path) -> None:
    body = lines(EVENT, {"who": "ann"}, {"service": "-" * 90}) + b'{"a": 9007199254740993}\nbroken \xff\n'
    status, told, _ = run(tmp_path, body, "--routes", routes)
    assert status == 1
    assert [line[:3] for line in told] == [
        ["1", "kubernetes", "k8s-web-shop"],
        ["2", "plain", "quarantine"],
        ["3", "plain", "quarantine"],
        ["4", "-", "quarantine"],
        ["5", "-", "quarantine"],
    ]
    reasons = [line[3] for line in told[1:]]
    assert reasons[0] == "no route matches"
    assert "no segment can have the name" in reasons[1]
    assert reasons[2].endswith(""": '{"a": 9007199254740993}'""")
    assert reasons[3].endswith(": 'broken \N{REPLACEMENT CHARACTER}'")


def test_it_goes_by_the_routes_and_segments_of_the_data_folder(tmp_path: Path) -> None:
    data = tmp_path / "data"
    for name, more in (("there", []), ("sealed", []), ("signed", ["--signed"])):
        tell("segment", "create", name, "--data", data, "--log-name", LOG_NAME, *more)
    tell("segment", "seal", "sealed", "--data", data)
    (data / "routes.toml").write_text('[quarantine]\nsegment = "lost"\n[[route]]\nsegment = "{service}"\n')
    names = ["there", "new", "sealed", "signed", "control"]
    status, told, _ = run(tmp_path, lines(*[{"service": name} for name in names]))
    assert status == 1
    assert [line[1:] for line in told] == [
        ["plain", "there"],
        ["plain", "new", "new"],
        ["plain", "lost", "the segment sealed is sealed"],
        ["plain", "lost", "the segment signed takes signed events only"],
        ["plain", "lost", "nobody may write to the segment control"],
    ]


def test_the_server_does_as_it_says(start_server: Callable[..., Server], tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    (data / "routes.toml").write_text(ROUTES)
    server = start_server(workers=1)
    server.create("plain-there")
    events = [{"service": f"{name}", "number": number} for number, name in enumerate(("there", "New", "?", "there"))]
    body = lines(EVENT, *events, {"who": "ann"}) + b"broken\n"
    status, told, _ = run(tmp_path, body)
    assert status == 1
    answer = server.request("POST", "/ingest/json", body, {"Content-Type": "application/json"})
    assert answer.json()["quarantined"] == sum(line[2] == "quarantine" for line in told)
    for name in {line[2] for line in told}:
        kept = server.request("GET", f"/segments/{name}/entries").json()["entries"]
        assert len(kept) == sum(line[2] == name for line in told)


def test_what_it_cannot_go_by_it_says(tmp_path: Path, routes: Path) -> None:
    status, _, said = run(tmp_path, b"")
    assert (status, "holds no log" in said) == (2, True)
    routes.write_text('[[route]]\nsegment = "{nothing}"\n')
    status, _, said = run(tmp_path, b"", "--routes", routes)
    assert (status, "routes.toml, route 1: 'nothing' is neither" in said) == (2, True)
    status, told, _ = run(tmp_path, b"", "--routes", tmp_path / "missing")
    assert (status, told) == (2, [])
