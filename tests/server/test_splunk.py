"""Splunk's HTTP Event Collector: as Docker's own driver sends to it, built by Go, and as others do, over real HTTP."""

import gzip
import json
import os
import subprocess
from base64 import b64encode
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from live import LOG_NAME, PATIENCE, Answer, Server, free_port, start, tell, until
from others import SOURCES, needs_go, run_go

from tlog.config import MAX_INGEST_BYTES
from tlog.errors import TooLargeError
from tlog.receivers.acks import give_ack, was_given
from tlog.receivers.splunk import read_events, read_lines

POLICY = """
[[rule]]
name = "senders"
roles = ["writer", "creator"]
principals = ["sender"]
segments = ["*"]

[[rule]]
name = "auditors"
roles = ["auditor"]
principals = ["auditor"]
segments = ["*"]

[[rule]]
name = "those of one index"
roles = ["writer"]
principals = ["narrow"]
segments = ["main"]

[[rule]]
name = "those who send much"
roles = ["writer"]
principals = ["busy"]
segments = ["*"]

[[quota]]
name = "a little"
principals = ["busy"]
segments = ["*"]
requests_per_second = 1
"""
PEOPLE = ("sender", "auditor", "narrow", "busy")
EVENT = "/services/collector/event"
RAW = "/services/collector/raw"
ACK = "/services/collector/ack"
KUBERNETES = {"auditID": "7a3e", "stage": "ResponseComplete", "verb": "get", "user": {"username": "ann"}}


class House:
    """A guarded server, and what its senders and its auditor show."""

    def __init__(self, data: Path) -> None:
        policy = data.parent / "policy.toml"
        policy.write_text(POLICY)
        tell("segment", "create", "main", "--data", data, "--log-name", LOG_NAME)
        tell("policy", "apply", policy, "--data", data)
        self.tokens = {name: tell("token", "issue", name, "--data", data) for name in PEOPLE}
        self.server = start(data, guarded=True, log_name=None)

    def send(self, path: str, body: bytes, who: str = "sender", **headers: str) -> Answer:
        given = {name.replace("_", "-"): value for name, value in headers.items()}
        return self.server.request("POST", path, body, {"Authorization": f"Splunk {self.tokens[who]}", **given})

    def payloads(self, segment: str) -> list[Any]:
        return self.server.payloads(segment, {"Authorization": f"Bearer {self.tokens['auditor']}"})


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    house = House(tmp_path_factory.mktemp("splunk") / "data")
    yield house
    assert house.server.stop() == 0


@pytest.fixture(scope="module")
def docker(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The program of tests/interop/splunk."""
    program = tmp_path_factory.mktemp("go") / "splunk"
    run_go("build", "-mod=readonly", "-o", program, ".", folder=SOURCES / "splunk")
    return program


def run_driver(program: Path, server: Server, token: str, lines: bytes, *options: str) -> str:
    """Send lines by Docker's driver, which must end well, and return what it says."""
    command: list[str | Path] = [program, f"splunk-url={server.url}", f"splunk-token={token}", *options]
    done = subprocess.run(command, input=lines, capture_output=True, timeout=PATIENCE, check=False)
    assert done.returncode == 0, done.stderr
    return done.stderr.decode()


@needs_go
@pytest.mark.parametrize("options", [(), ("splunk-gzip=true",), ("splunk-index-acknowledgment=true",)])
def test_dockers_driver_asks_whether_it_may_and_sends_what_a_container_says(
    house: House, docker: Path, options: tuple[str, ...]
) -> None:
    index = f"docker-{len(''.join(options))}"
    lines = b'{"actor":"ann","action":"refund"}\nplain \xe2\x82\xac\nnot \xff UTF-8\n'
    said = run_driver(
        docker, house.server, house.tokens["sender"], lines, f"splunk-index={index}", "splunk-format=json", *options
    )
    assert said == ""
    found = house.payloads(index)
    said_by_it = [one["event"]["line"] for one in found]
    assert said_by_it == [{"actor": "ann", "action": "refund"}, "plain \u20ac", "not \ufffd UTF-8"]
    assert {(one["index"], one["event"]["source"], type(one["time"])) for one in found} == {(index, "stdout", str)}


@needs_go
def test_dockers_driver_hears_why_it_is_refused(house: House, docker: Path) -> None:
    wrong = house.tokens["sender"][:-4] + "AAAA"
    said = run_driver(docker, house.server, wrong, b"x\n")
    assert "403" in said
    assert '"text":"Invalid token","code":4' in said.replace("\\", "")


@needs_go
def test_what_docker_sends_while_the_log_is_down_is_there_once_it_is_up(
    docker: Path, tmp_path: Path, start_server: Callable[..., Server]
) -> None:
    port = free_port()
    url = f"splunk-url=http://127.0.0.1:{port}"
    command: list[str | Path] = [docker, url, "splunk-token=x", "splunk-verify-connection=false"]
    often = {**os.environ, "SPLUNK_LOGGING_DRIVER_POST_MESSAGES_FREQUENCY": "100ms"}
    with subprocess.Popen(command, stdin=subprocess.PIPE, stderr=subprocess.PIPE, env=often) as driver:
        assert driver.stdin is not None
        assert driver.stderr is not None
        try:
            driver.stdin.write(b"".join(b"%d\n" % number for number in range(100)))
            driver.stdin.flush()
            assert b"connection refused" in driver.stderr.readline()
            server = start_server(tmp_path / "data", port=port)
            until(lambda: len(numbers(server)) >= 100, "what was sent while the log was down")
            driver.stdin.close()
            assert driver.wait(PATIENCE) == 0
        finally:
            driver.kill()
    assert numbers(server) == list(range(100))


def numbers(server: Server) -> list[int]:
    answer = server.request("GET", "/segments/splunk/entries?limit=1000")
    entries = answer.json()["entries"] if answer.status == 200 else []
    return [int(one["payload"]["event"]["line"]) for one in entries]


@needs_go
def test_events_that_docker_sends_are_each_there_once_though_the_log_is_killed_in_between(
    docker: Path, tmp_path: Path, start_server: Callable[..., Server]
) -> None:
    port, ids = free_port(), [f"id-{number}" for number in range(2_000)]
    url = f"splunk-url=http://127.0.0.1:{port}"
    command: list[str | Path] = [docker, url, "splunk-token=x", "splunk-format=json", "splunk-verify-connection=false"]
    few = {
        **os.environ,
        "SPLUNK_LOGGING_DRIVER_POST_MESSAGES_FREQUENCY": "50ms",
        "SPLUNK_LOGGING_DRIVER_POST_MESSAGES_BATCH_SIZE": "20",
    }
    server = start_server(tmp_path / "data", port=port)
    with subprocess.Popen(command, stdin=subprocess.PIPE, stderr=subprocess.DEVNULL, env=few) as driver:
        assert driver.stdin is not None
        try:
            driver.stdin.write(b"".join(json.dumps(KUBERNETES | {"auditID": one}).encode() + b"\n" for one in ids))
            driver.stdin.flush()
            until(lambda: logged(server) >= 200, "the first events")
            server.kill()
            server = start_server(tmp_path / "data", port=port)
            until(lambda: logged(server) >= len(ids), "all events")
            driver.stdin.close()
            assert driver.wait(PATIENCE) == 0
        finally:
            driver.kill()
    pages = [server.request("GET", f"/segments/splunk/entries?start={start}&limit=1000").json() for start in (0, 1_000)]
    found = [one["payload"]["event"]["line"]["auditID"] for page in pages for one in page["entries"]]
    assert logged(server) == len(ids)
    assert sorted(found) == sorted(ids)


def logged(server: Server) -> int:
    answer = server.request("GET", "/segments/splunk")
    return int(answer.json()["size"]) if answer.status == 200 else 0


def test_the_good_events_are_logged_and_the_bad_kept_and_the_answer_is_success(house: House) -> None:
    good = [{"event": number, "index": "mixed"} for number in range(3)]
    bad = [b'{"index":"mixed"}', b'{"event":"","index":"mixed"}', b'{"event":null}', b"7", b'{"event": "cut']
    body = b"".join([json.dumps(good[0]).encode(), *bad[:4], json.dumps(good[1]).encode(), b"\n", bad[4], b"\n"])
    answer = house.send(EVENT, body + json.dumps(good[2]).encode())
    assert (answer.status, answer.body) == (200, b'{"text":"Success","code":0}')
    assert house.payloads("mixed") == good
    kept = {one["text"].encode() for one in house.payloads("quarantine") if one["receiver"] == "splunk"}
    assert kept >= {*bad}


@pytest.mark.parametrize("path", [EVENT, f"{EVENT}/1.0", "/services/collector"])
def test_an_event_goes_into_the_segment_of_its_index_or_of_its_format(house: House, path: str) -> None:
    index = f"i{len(path)}"
    events = [
        {"event": {"n": 1}, "index": index, "time": 1767323045.5, "sourcetype": path},
        {"event": "x", "host": "h", "source": path},
        {"event": "x", "index": "_no name", "host": path},
    ]
    packed = gzip.compress(b"\r\n".join(json.dumps(event).encode() for event in events))
    assert house.send(path, packed, Content_Encoding="gzip", Content_Type="text/plain").status == 200
    assert house.payloads(index) == events[:1]
    assert [one for one in house.payloads("splunk") if one.get("source") == path] == events[1:2]
    assert [one for one in house.payloads("quarantine") if path in one["text"]] != []


@pytest.mark.parametrize("path", [RAW, f"{RAW}/1.0"])
def test_each_line_of_raw_text_is_an_event_with_what_the_query_says(house: House, path: str) -> None:
    index = f"raw-{len(path)}"
    query = f"?index={index}&host=web%201&source=/var/log/x&sourcetype=access&time=1767323045&other=ignored"
    answer = house.send(path + query, b'one\r\n\n  \n{"two": 2}\nthr\xffee\nfour', Content_Type="text/plain")
    assert answer.json() == {"text": "Success", "code": 0}
    meta = {"index": index, "host": "web 1", "source": "/var/log/x", "sourcetype": "access", "time": "1767323045"}
    assert house.payloads(index) == [{"event": event, **meta} for event in ("one", '{"two": 2}', "four")]
    assert [one for one in house.payloads("quarantine") if one.get("data") == "dGhy/2Vl"] != []


def test_an_event_with_an_id_within_is_logged_once_however_often_it_is_sent(house: House) -> None:
    body = json.dumps({"event": KUBERNETES, "index": "once", "time": 1}).encode()
    for _ in range(2):
        assert house.send(EVENT, body * 2).status == 200
    assert len(house.payloads("once")) == 1


# As Fluent Bit's out_splunk packs records (pack_map: time, metadata, event), and Vector's sink `splunk_hec_logs` does.
@pytest.mark.parametrize(
    "form",
    [
        b'{"time":1767323045.000678,"host":"web-1","index":"%b","event":{"log":"line %d"}}',
        b'{"event":{"message":"line %d"},"fields":{"till":"3"},"time":1767323045.001,"host":"web-1","index":"%b"}',
    ],
    ids=["fluent-bit", "vector"],
)
def test_events_come_as_fluent_bit_and_vector_send_them(house: House, form: bytes) -> None:
    index = f"form-{len(form)}"
    bodies = [form.replace(b"%b", index.encode()).replace(b"%d", b"%d" % number) for number in range(3)]
    channel = {"X_Splunk_Request_Channel": "2ab1a4c2-1d0a-4a0b-8b0a-0d7a6d3c6f31"}
    answer = house.send(EVENT, gzip.compress(b"".join(bodies)), Content_Encoding="gzip", **channel)
    assert answer.status == 200
    assert house.payloads(index) == list(map(json.loads, bodies))
    ack = answer.json()["ackId"]
    polled = house.send(ACK, json.dumps({"acks": [ack]}).encode(), Content_Type="application/json", **channel)
    assert polled.json() == {"acks": {str(ack): True}}


@pytest.mark.parametrize("scheme", ["Splunk {}", "Bearer {}", "Basic {}"])
def test_every_way_to_show_a_token_will_do(house: House, scheme: str) -> None:
    token = house.tokens["sender"]
    shown = b64encode(f"x:{token}".encode()).decode() if "Basic" in scheme else token
    answer = house.server.request("POST", EVENT, b'{"event":1}', {"Authorization": scheme.format(shown)})
    assert answer.json() == {"text": "Success", "code": 0}


def said(answer: Answer) -> tuple[int, int, str]:
    return answer.status, answer.json()["code"], answer.json()["text"]


def test_errors_are_in_splunks_words(house: House) -> None:
    server, event = house.server, b'{"event":1,"index":"main"}'
    for path in (EVENT, RAW, ACK):
        assert said(server.request("POST", path, event)) == (401, 2, "Token is required")
        assert said(server.request("POST", path, event, {"Authorization": "Digest x"})) == (
            401,
            3,
            "Invalid authorization",
        )
        assert said(server.request("POST", path, event, {"Authorization": "Splunk x"})) == (403, 4, "Invalid token")
    for path in (EVENT, RAW):
        for body in (b"", b" \r\n"):
            assert said(house.send(path, body)) == (400, 5, "No data")
        assert said(house.send(path, b"x", Content_Encoding="snappy")) == (415, 6, "Invalid data format")
        assert said(house.send(path, b"x", Content_Encoding="gzip")) == (400, 6, "Invalid data format")
        assert said(house.send(path, b"x" * (MAX_INGEST_BYTES + 1))) == (413, 6, "Invalid data format")
    assert said(house.send(RAW + "?host=" + "x" * 900, b"x\n" * 100_000)) == (413, 6, "Invalid data format")
    assert said(house.send(EVENT, event, "narrow")) == (200, 0, "Success")
    refused = house.send(EVENT, b'{"event":1,"index":"secrets"}', "narrow")
    assert said(refused) == (400, 7, "Incorrect index")
    assert "narrow" in refused.json()["detail"]


def test_who_sends_too_much_is_told_when_to_come_again(house: House) -> None:
    answers = [house.send(EVENT, b'{"event":1,"index":"main"}', "busy") for _ in range(4)]
    assert said(answers[0]) == (200, 0, "Success")
    assert said(answers[-1]) == (429, 9, "Server is busy")
    assert int(answers[-1].headers["Retry-After"]) >= 1


def test_a_full_disk_is_a_busy_server_and_shows_in_its_health(start_server: Callable[..., Server]) -> None:
    server = start_server(options=("--reserve-mib", str(1 << 30)))
    answer = server.request("POST", EVENT, b'{"event":1}')
    assert said(answer) == (503, 9, "Server is busy")
    assert answer.headers["Retry-After"]
    for path in ("/services/collector/health", "/services/collector/health/1.0"):
        assert said(server.request("GET", path)) == (503, 18, "HEC is unhealthy, queues are full")


def test_health_and_options_ask_nobody_who_they_are(house: House) -> None:
    for path in ("/services/collector/health", "/services/collector/health/1.0"):
        for shown in ({}, {"Authorization": "Splunk ended"}):
            answer = house.server.request("GET", path, headers=shown)
            assert (answer.status, answer.body) == (200, b'{"text":"HEC is healthy","code":17}')
    for path in (EVENT, f"{EVENT}/1.0", RAW, f"{RAW}/1.0", "/services/collector"):
        answer = house.server.request("OPTIONS", path)
        assert (answer.status, answer.headers["Allow"]) == (200, "POST, OPTIONS")


def told(house: House, channel: str, *acks: int) -> Any:
    answer = house.send(f"{ACK}?channel={channel}", json.dumps({"acks": acks}).encode())
    assert answer.status == 200, answer.body
    return answer.json()["acks"]


def test_an_ack_holds_on_its_channel_at_every_worker_and_after_a_crash(tmp_path: Path) -> None:
    house = House(tmp_path / "data")
    try:
        event = b'{"event":1,"index":"acked"}'
        by_header = house.send(EVENT, event, X_Splunk_Request_Channel="one").json()["ackId"]
        by_query = house.send(f"{RAW}?index=acked&channel=one", b"x").json()["ackId"]
        assert by_header != by_query
        assert "ackId" not in house.send(EVENT, event).json()
        house.server.kill()
        house.server = start(tmp_path / "data", guarded=True, log_name=None)
        for _ in range(8):
            assert told(house, "one", by_header, by_query, 0, 1, -1, 1 << 60) == {
                str(by_header): True,
                str(by_query): True,
                **{str(made_up): False for made_up in (0, 1, -1, 1 << 60)},
            }
        assert told(house, "two", by_header) == {str(by_header): False}
        assert len(house.payloads("acked")) == 3
    finally:
        house.server.kill()


def test_what_is_no_question_about_acks_is_refused(house: House) -> None:
    assert said(house.send(ACK, b'{"acks":[1]}')) == (400, 10, "Data channel is missing")
    for body in (b"", b"[]", b'{"acks":1}', b'{"acks":["1"]}', b'{"acks":[1.5]}', b"\xff"):
        assert said(house.send(f"{ACK}?channel=x", body)) == (400, 6, "Invalid data format")


@given(st.text(), st.text())
def test_an_ack_shows_by_itself_where_it_was_given(channel: str, other: str) -> None:
    acks = {give_ack(channel) for _ in range(4)}
    assert all(was_given(channel, ack) and 0 <= ack < 1 << 53 for ack in acks)
    assert channel == other or not all(was_given(other, ack) for ack in acks)
    assert not any(was_given(channel, -ack - 1) or was_given(channel, ack + (1 << 52)) for ack in acks)


EVENTS = [b'{"event":1}', b'{"event":"\xff"}', b'{"event":{"a":[1]},"index":"x"}', b'{"event":"\\ud800"}', b'{"a":1}']
PIECES = st.sampled_from([*EVENTS, b"{", b"}", b'"', b"\n", b" ", b"[1]", b"\\", b"\x00"])


def solid(parts: list[bytes]) -> Counter[int]:
    return Counter(byte for part in parts for byte in part if byte not in b" \t\r\n")


@given(st.binary() | st.lists(PIECES).map(b"".join))
def test_nothing_of_any_body_is_lost(raw: bytes) -> None:
    found = read_events(raw)
    assert solid([*found.texts, *found.faults]) == solid([raw])
    for text in found.texts:
        assert json.loads(text.decode("utf-8", "replace"))["event"] not in (None, "")


@given(st.binary() | st.lists(PIECES).map(b"".join), st.dictionaries(st.sampled_from(["host", "index"]), st.text()))
def test_nothing_of_any_text_is_lost(raw: bytes, metadata: dict[str, str]) -> None:
    found = read_lines(raw, metadata)
    events = [json.loads(text) for text in found.texts]
    assert all(event.keys() == {"event", *metadata} for event in events)
    lines = sorted([*(event["event"].encode() for event in events), *found.faults])
    assert lines == sorted(line for line in raw.splitlines() if line.strip())


def test_many_short_lines_do_not_become_many_times_as_long() -> None:
    with pytest.raises(TooLargeError, match="send less"):
        read_lines(b"x\n" * 1_000_000, {"host": "h" * 100})
