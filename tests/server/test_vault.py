"""With software that is not ours: the socket audit device of Vault (tests/vault), and what OpenBao's HTTP device does.

Needs Go, and what `tests/vault/go.sum` names, which Go fetches if it has not got it.
"""

import json
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from live import until
from others import needs_go, run_go
from relaying import Log, lines_of, make_log, relaying

from tlog.formats.fields import Fields
from tlog.formats.known import format_of
from tlog.receivers.receive import concatenated

# As OpenBao 2.5 and Vault 1.15 write it: what a version adds is stored as it is.
RESPONSE: dict[str, Any] = {
    "time": "2026-01-02T03:04:05.000678Z",
    "type": "response",
    "auth": {"client_token": "hmac-sha256:aa", "display_name": "userpass-ann", "entity_id": "e-1", "policies": ["x"]},
    "request": {
        "id": "0b5f",
        "operation": "read",
        "namespace": {"id": "n1", "path": "payments/"},
        "path": "secret/data/key",
        "remote_address": "192.0.2.7",
    },
    "response": {"mount_type": "kv"},
}


def test_an_entry_of_vault_says_who_did_what_to_what() -> None:
    assert (format_of(RESPONSE).name, format_of(RESPONSE).id(RESPONSE)) == ("vault", "0b5f/response")
    assert format_of(RESPONSE).fields(RESPONSE) == Fields(
        time=1767323045000,
        actor="userpass-ann",
        action="read",
        target="secret/data/key",
        outcome="success",
        source="192.0.2.7",
        namespace="payments/",
        service="vault",
    )


def test_of_a_request_it_is_not_said_how_it_went_unless_it_failed() -> None:
    asked = RESPONSE | {"type": "request"}
    denied = RESPONSE | {"error": "1 error occurred:\n\t* permission denied\n\n"}
    assert [format_of(one).fields(one).outcome for one in (asked, denied, denied | {"type": "request"})] == [
        None,
        "failure",
        "failure",
    ]


@given(st.lists(st.binary(max_size=20) | st.just(json.dumps(RESPONSE).encode())))
def test_of_lines_nothing_is_lost(lines: list[bytes]) -> None:
    found = concatenated(b"\n".join(lines))
    kept = b"".join([*found.texts, *found.faults])
    assert Counter(kept) >= Counter(re.sub(rb"\s", b"", b"".join(lines))) - Counter(b" \t\r\n")
    assert found.texts.count(json.dumps(RESPONSE).encode()) <= len(lines)


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    built = tmp_path_factory.mktemp("vault") / "vault"
    run_go("build", "-mod=readonly", "-o", built, ".", folder=Path(__file__).parent.parent / "vault")
    return built


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Log]:
    made = make_log(tmp_path_factory.mktemp("log") / "data")
    yield made
    made.server.kill()


def ids(log: Log) -> Counter[tuple[str, str]]:
    return Counter((one["request"]["id"], one["type"]) for one in log.payloads("vault"))


def both(first: int, count: int) -> Counter[tuple[str, str]]:
    """Return what there is to be of so many requests: each with its response, once."""
    return Counter((f"id-{number}", kind) for number in range(first, first + count) for kind in ("request", "response"))


@needs_go
def test_what_vault_audits_over_a_socket_is_logged_once(program: Path, log: Log, tmp_path: Path) -> None:
    log.mark()
    path = tmp_path / "vault.sock"
    with relaying(tmp_path, log.server.url, log.token, "--vault", "127.0.0.1:0", "--vault", path) as relay:
        for place, where in ((0, ("tcp", f"127.0.0.1:{relay.ports[0]}")), (500, ("unix", path))):
            said = lines_of(program, "socket", *where, place, 500, 9)
            assert said == [f"{number} audited" for number in range(place, place + 500)]
        assert relay.stop() == 0
    assert ids(log) == both(0, 1_000)
    events = log.payloads("vault")
    found = [format_of(event).fields(event) for event in events]
    assert {(one.actor, one.action, one.target) for one in found} == {("token-till", "update", "transit/sign/till")}
    assert Counter(one.outcome for one in found) == {None: 1_000, "failure": 100, "success": 900}
    assert "c2VjcmV0" not in json.dumps(events)


@needs_go
def test_a_relay_that_reads_no_more_stops_vault_and_not_what_it_audited(
    program: Path, log: Log, tmp_path: Path
) -> None:
    log.mark()
    log.server.kill()
    path = tmp_path / "vault.sock"
    with relaying(tmp_path, log.server.url, log.token, "--vault", path) as relay:
        said = lines_of(program, "socket", "unix", path, 0, 600, 90_000)
        audited = sum(line.endswith(" audited") for line in said)
        assert 100 < audited < 600
        log.restart()
        until(lambda: log.came("vault") >= 2 * audited, "all that was audited")
        assert lines_of(program, "socket", "unix", path, 2_000, 1, 9) == ["2000 audited"]
        assert relay.stop() == 0
    found = ids(log)
    for number in (*range(audited), 2_000):
        assert found[f"id-{number}", "request"] == found[f"id-{number}", "response"] == 1


@needs_go
def test_what_openbao_posts_is_answered_when_it_is_durable(program: Path, log: Log) -> None:
    log.mark()
    where = ("http", f"{log.server.url}/ingest/vault")
    assert lines_of(program, *where, 0, 50, 9, TLOG_TOKEN=log.token) == [f"{number} audited" for number in range(50)]
    log.server.kill()
    [said] = lines_of(program, *where, 50, 1, 9, TLOG_TOKEN=log.token)
    assert said.startswith('50 refused: "Post')
    log.restart()
    assert ids(log) == both(0, 50)
    other = {"TLOG_TOKEN": "tlog_wrong"}
    assert lines_of(program, *where, 51, 1, 9, **other) == ['51 refused: "status code not 2xx: 401"']


def test_what_cannot_be_read_does_not_fail_the_request_that_openbao_audits(log: Log) -> None:
    log.mark()
    shown = {"Authorization": f"Bearer {log.token}"}
    for body in (b"prefix: {}", json.dumps(RESPONSE).encode()[:-9], b"\xff"):
        assert log.server.request("POST", "/ingest/vault", body, shown).json() == {
            "logged": 0,
            "quarantined": 1,
            "seen": 0,
        }
    line = json.dumps(RESPONSE).encode()
    answers = [log.server.request("POST", "/ingest/vault", line, shown).json() for _ in range(2)]
    assert [(answer["logged"], answer["seen"]) for answer in answers] == [(1, 0), (0, 1)]
