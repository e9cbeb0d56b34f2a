"""Who asks, at a running server: API tokens, and tokens of an issuer in a process of its own."""

import base64
import json
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from issuer import Running, running_issuer
from live import JSON, PATIENCE, TLOG, Answer, Server, tell, until

from tlog_core.entry import parse_entry
from tlog_core.receipt import parse_receipt

POLICY = """
[[rule]]
name = "pods make segments of their own namespace"
roles = ["creator"]
claims = { "kubernetes.io/namespace" = "*" }
segments = ["k8s-{kubernetes.io/namespace}-*"]
labels = { namespace = "{kubernetes.io/namespace}" }

[[rule]]
name = "pods write to segments of their own namespace"
roles = ["writer"]
claims = { "kubernetes.io/namespace" = "*" }
segments = ["k8s-*"]
labels = { namespace = "{kubernetes.io/namespace}" }

[[rule]]
name = "the auditor reads what pods wrote"
roles = ["auditor"]
principals = ["auditor"]
segments = ["k8s-*"]
"""


@pytest.fixture(scope="module")
def issuer() -> Iterator[Running]:
    with running_issuer() as running:
        yield running


@pytest.fixture
def guarded(start_server: Callable[..., Server], issuer: Running, tmp_path: Path) -> Server:
    """A server that asks who comes, takes tokens of the issuer, and has the policy above."""
    data = tmp_path / "data"
    data.mkdir()
    (data / "issuers.toml").write_text(
        f'[[issuer]]\nissuer = "{issuer.url}"\naudience = ["tlog"]\nalgorithms = ["RS256", "ES256"]\n'
        'name_prefix = "k8s:"\n'
    )
    server = start_server(data, workers=1, guarded=True)
    (tmp_path / "policy.toml").write_text(POLICY)
    tell("policy", "apply", "--data", data, tmp_path / "policy.toml")
    return server


def pod(namespace: str) -> dict[str, Any]:
    now = int(time.time())
    return {
        "aud": ["tlog"],
        "sub": f"system:serviceaccount:{namespace}:api",
        "iat": now,
        "exp": now + 600,
        "kubernetes.io": {"namespace": namespace, "serviceaccount": {"name": "api", "uid": "1"}},
    }


def ask(server: Server, token: str | None, method: str, path: str, body: bytes | None = None) -> Answer:
    headers = {"Content-Type": JSON, **({"Authorization": f"Bearer {token}"} if token else {})}
    return server.request(method, path, body, headers)


def make_segment(server: Server, token: str, namespace: str) -> None:
    body = json.dumps({"labels": {"namespace": namespace}}).encode()
    assert ask(server, token, "PUT", f"/segments/k8s-{namespace}-api", body).status == 201


def test_a_pod_makes_and_writes_the_segment_of_its_own_namespace_and_no_other(guarded: Server, issuer: Running) -> None:
    ours, theirs = issuer.token(pod("payments")), issuer.token(pod("other"))
    make_segment(guarded, ours, "payments")
    answer = ask(guarded, ours, "POST", "/segments/k8s-payments-api/entries", b"{}")
    assert answer.status == 201
    assert parse_entry(parse_receipt(answer.body).entry).writer == "k8s:system:serviceaccount:payments:api"
    missing = ask(guarded, theirs, "POST", "/segments/k8s-none-api/entries", b"{}")
    forbidden = ask(guarded, theirs, "POST", "/segments/k8s-payments-api/entries", b"{}")
    assert (missing.status, forbidden.status) == (404, 404)
    assert ask(guarded, theirs, "PUT", "/segments/k8s-payments-web", b'{"labels":{"namespace":"other"}}').status == 404


def test_keys_rotate_in_the_middle_of_a_run(guarded: Server, issuer: Running) -> None:
    make_segment(guarded, issuer.token(pod("payments")), "payments")
    entries = "/segments/k8s-payments-api/entries"
    issuer.add_key("rotated", "ES256")
    token = issuer.token(pod("payments"), kid="rotated")

    def written() -> bool:
        # Whoever holds a token of the key before goes on meanwhile.
        assert ask(guarded, issuer.token(pod("payments")), "POST", entries, b"{}").status == 201
        answer = ask(guarded, token, "POST", entries, b"{}")
        assert answer.status in (201, 401)
        return answer.status == 201

    until(written, "the new key to be fetched", PATIENCE)


def test_a_credential_that_is_none_is_unauthorized(guarded: Server) -> None:
    for credential in ("", " ", "x", "tlog_", "a.b.c", "tlog_0000000000000000_" + "A" * 43, "e30.e30.AA", "\xe9"):
        answer = guarded.request("GET", "/segments/k8s-a", None, {"Authorization": f"Bearer {credential}"})
        assert (answer.status, answer.headers["WWW-Authenticate"]) == (401, 'Bearer realm="tlog"')


def test_no_secret_is_in_a_log_or_a_stored_file(guarded: Server, issuer: Running) -> None:
    issued = tell("token", "issue", "--data", guarded.data, "auditor")
    rotated = tell("token", "rotate", "--data", guarded.data, issued.split("_")[1])
    jwt = issuer.token(pod("payments"))
    make_segment(guarded, jwt, "payments")
    for token in (issued, rotated, jwt, issuer.token({**pod("payments"), "exp": 1}), jwt + "x", issued[:-1] + "!"):
        for path in ("/segments", "/segments/k8s-payments-api", "/segments/none", "/segments/control/entries?limit=9"):
            ask(guarded, token, "GET", path)
    # An issuer that cannot be asked is a fault that is logged with its cause.
    issuer.answer("error")
    try:
        issuer.add_key("unknown")
        lost = issuer.token(pod("payments"), kid="unknown")
        until(lambda: ask(guarded, lost, "GET", "/segments").status == 503, "the failing issuer to be asked", PATIENCE)
    finally:
        issuer.answer("well")
    files = [path for path in (*guarded.data.rglob("*"), guarded.log) if path.is_file()]
    assert any(path.name == "control.db-wal" for path in files)
    stored = {path: path.read_bytes() for path in files}
    for token in (jwt, lost):
        assert_absent(token.rpartition(".")[2].encode(), stored)
        assert_absent(token.encode(), stored)
    for token in (issued, rotated):
        text = token[-43:]
        secret = base64.urlsafe_b64decode(text + "=")
        for form in (text.encode(), secret, secret.hex().encode(), base64.b64encode(secret).rstrip(b"=")):
            assert_absent(form, stored)


def assert_absent(secret: bytes, stored: dict[Path, bytes]) -> None:
    assert [path for path, content in stored.items() if secret in content] == []


def test_a_server_does_not_start_with_issuers_that_it_cannot_take(tmp_path: Path) -> None:
    (tmp_path / "issuers.toml").write_text(
        '[[issuer]]\nissuer = "https://a.example"\naudience = ["tlog"]\nalgorithms = ["HS256"]\nname_prefix = "a:"\n'
    )
    ran = subprocess.run(
        [TLOG, "serve", "--data", tmp_path, "--log-name", "example.com/audit", "--port", "1"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode != 0
    assert "issuers.toml: issuer https://a.example: a token is not to be signed by HS256; choose of RS256" in ran.stderr
    assert not (tmp_path / "control.db").exists()
