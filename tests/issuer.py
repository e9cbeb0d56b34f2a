"""A real OIDC issuer in a process of its own, on loopback: it makes keys, shows them, signs, and fails on demand.

People sign in at it by authorization code with PKCE. Run as a program, with the name of this machine that its URL is
to have, it prints its URL, and serves until its standard input ends.
"""

import base64
import hashlib
import json
import secrets
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from time import sleep, time
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit

import requests
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, SECP384R1
from cryptography.hazmat.primitives.asymmetric.ec import generate_private_key as make_ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key as make_rsa
from jwt.algorithms import Algorithm, get_default_algorithms

PATIENCE = 30.0


def encode(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


def make_key(algorithm: str, *, bits: int = 2048) -> Any:
    match algorithm:
        case "ES256":
            return make_ec(SECP256R1())
        case "ES384":
            return make_ec(SECP384R1())
        case "EdDSA":
            return Ed25519PrivateKey.generate()
        case _:
            return make_rsa(65537, bits)


def by_name(algorithm: str) -> Algorithm:
    return get_default_algorithms()[algorithm]


def public_jwk(algorithm: str, key: Any, **members: str) -> dict[str, Any]:
    return {**json.loads(by_name(algorithm).to_jwk(key.public_key())), **members}


def sign(algorithm: str, key: Any, header: str, payload: str) -> str:
    """Return a token with these bytes as header and payload, whatever they are."""
    signed = f"{encode(header.encode())}.{encode(payload.encode())}"
    return f"{signed}.{encode(by_name(algorithm).sign(signed.encode(), key))}"


@dataclass
class Running:
    """An issuer that the tests started. A token says what its header and claims say, and may contradict itself."""

    url: str
    process: subprocess.Popen[str]

    def token(self, claims: dict[str, Any] | str, *, kid: str = "1", header: dict[str, Any] | str | None = None) -> str:
        """Return a token signed by the key of this ID; `header` adds to or, as text, replaces what it says."""
        payload = claims if isinstance(claims, str) else json.dumps({"iss": self.url, **claims})
        return str(self._ask("sign", {"kid": kid, "header": header or {}, "payload": payload})["token"])

    def add_key(self, kid: str, algorithm: str = "RS256", **options: Any) -> None:
        """Make a key; `bits` of RSA, and `members` that replace those of the JWK."""
        self._ask("add", {"kid": kid, "algorithm": algorithm, **options})

    def retire_key(self, kid: str) -> None:
        """Show a key no more, as after it was stolen. Who stole it can still sign."""
        self._ask("retire", {"kid": kid})

    def answer(self, how: str) -> None:
        """Answer what is fetched with `well`, or `error`, `redirect`, `slow`, `long`, `garbage`, `other`."""
        self._ask("answer", {"how": how})

    def fetched(self) -> int:
        """Return how often its keys were asked for."""
        return int(self._ask("fetched", {})["fetched"])

    def authorized(self) -> list[str]:
        """Return what credentials it was shown when anything was fetched."""
        return list(self._ask("authorized", {})["authorized"])

    def expect(self, **person: Any) -> None:
        """Have this person sign in from now on.

        `claims` replace those of the ID token, or take them out if they are None; `back` replaces likewise what the
        browser is sent back with. `secret` is that of the client, which comes in the header or `by_form`; `answer`
        replaces what the token endpoint answers. `discovery` adds to the discovery document.
        """
        self._ask("expect", person)

    def redeemed(self) -> list[dict[str, str]]:
        """Return the forms that came to the token endpoint."""
        return list(self._ask("redeemed", {})["redeemed"])

    def stop(self) -> None:
        self.process.communicate(timeout=PATIENCE)

    def _ask(self, what: str, body: dict[str, Any]) -> dict[str, Any]:
        response = requests.post(f"{self.url}/{what}", json=body, timeout=PATIENCE)
        assert response.status_code == 200, response.content
        answer: dict[str, Any] = response.json()
        return answer


@contextmanager
def running_issuer(host: str = "127.0.0.1") -> Iterator[Running]:
    with subprocess.Popen(
        [sys.executable, str(Path(__file__)), host], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        running = Running(process.stdout.readline().strip(), process)
        try:
            yield running
        finally:
            if process.poll() is None:
                running.stop()


@dataclass
class _Issuer:
    keys: dict[str, tuple[str, Any]] = field(default_factory=dict)
    shown: dict[str, dict[str, Any]] = field(default_factory=dict)
    how: str = "well"
    fetched: int = 0
    authorized: list[str] = field(default_factory=list)
    url: str = ""
    person: dict[str, Any] = field(default_factory=dict)
    codes: dict[str, dict[str, str]] = field(default_factory=dict)
    redeemed: list[dict[str, str]] = field(default_factory=list)

    def document(self) -> dict[str, Any]:
        more: dict[str, Any] = self.person.get("discovery", {})
        return {
            "issuer": self.url,
            "jwks_uri": f"{self.url}/keys",
            "authorization_endpoint": f"{self.url}/authorize",
            "token_endpoint": f"{self.url}/token",
        } | more

    def authorize(self, asked: dict[str, str]) -> str:
        """Return where the browser goes on, signed in at once."""
        assert asked["response_type"] == "code"
        assert asked["code_challenge_method"] == "S256"
        assert "openid" in asked["scope"].split(" ")
        code = secrets.token_urlsafe()
        self.codes[code] = asked
        back = {"code": code, "state": asked["state"], "session_state": "x", "iss": self.url}
        back |= self.person.get("back", {})
        return f"{asked['redirect_uri']}?{urlencode({k: v for k, v in back.items() if v is not None})}"

    def redeem(self, form: dict[str, str], basic: str | None) -> tuple[int, Any]:
        """Return what the token endpoint answers, as RFC 6749 and RFC 7636 have it."""
        self.redeemed.append(form)
        if "answer" in self.person:
            return tuple(self.person["answer"])
        begun = self.codes.pop(form["code"], None)
        if begun is None or form["grant_type"] != "authorization_code" or form["redirect_uri"] != begun["redirect_uri"]:
            return 400, {"error": "invalid_grant"}
        if encode(hashlib.sha256(form["code_verifier"].encode()).digest()) != begun["code_challenge"]:
            return 400, {"error": "invalid_grant"}
        if not self.knows(form, basic, begun["client_id"]):
            return 401, {"error": "invalid_client"}
        claims = {"iss": self.url, "sub": "p", "aud": begun["client_id"], "nonce": begun["nonce"]}
        now = int(time())
        claims |= {"iat": now, "exp": now + 600} | self.person.get("claims", {})
        payload = json.dumps({name: value for name, value in claims.items() if value is not None})
        token = self.do_sign({"kid": "1", "header": {}, "payload": payload})["token"]
        return 200, {"access_token": "a", "token_type": "Bearer", "id_token": token}

    def knows(self, form: dict[str, str], basic: str | None, client: str) -> bool:
        """Tell whether the client said who it is, in the way that it is to."""
        secret, shown = self.person.get("secret"), (form.get("client_id"), form.get("client_secret"))
        if secret is None:
            return basic is None and shown == (client, None)
        if self.person.get("by_form"):
            return basic is None and shown == (client, secret)
        return basic == "Basic " + base64.b64encode(f"{client}:{secret}".encode()).decode() and shown == (None, None)

    def add(self, asked: dict[str, Any]) -> dict[str, Any]:
        kid, algorithm = asked["kid"], asked["algorithm"]
        key = make_key(algorithm, bits=asked.get("bits", 2048))
        self.keys[kid] = algorithm, key
        self.shown[kid] = public_jwk(algorithm, key, kid=kid, use="sig") | asked.get("members", {})
        return {}

    def do_sign(self, asked: dict[str, Any]) -> dict[str, Any]:
        algorithm, key = self.keys[asked["kid"]]
        header = asked["header"]
        if isinstance(header, dict):
            header = json.dumps({"alg": algorithm, "kid": asked["kid"], "typ": "JWT", **header})
        return {"token": sign(algorithm, key, header, asked["payload"])}

    def act(self, what: str, asked: dict[str, Any]) -> dict[str, Any]:
        match what:
            case "sign":
                return self.do_sign(asked)
            case "add":
                return self.add(asked)
            case "retire":
                del self.shown[asked["kid"]]
            case "answer":
                self.how = asked["how"]
            case "expect":
                self.person = asked
        return {"fetched": self.fetched, "authorized": self.authorized, "redeemed": self.redeemed}


def main() -> None:
    issuer = _Issuer()
    issuer.add({"kid": "1", "algorithm": "RS256"})

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            if self.path == "/token":
                status, said = issuer.redeem(dict(parse_qsl(body.decode())), self.headers.get("Authorization"))
                self.send(said.encode() if isinstance(said, str) else json.dumps(said).encode(), status)
                return
            asked = json.loads(body)
            self.send(json.dumps(issuer.act(self.path[1:], asked)).encode())

        def do_GET(self) -> None:
            if self.path.startswith("/authorize?"):
                self.send(b"", 302, {"Location": issuer.authorize(dict(parse_qsl(urlsplit(self.path).query)))})
                return
            discovery = self.path == "/.well-known/openid-configuration"
            issuer.fetched += not discovery
            issuer.authorized += self.headers.get_all("Authorization", [])
            document = issuer.document()
            match issuer.how, discovery:
                case "error", _:
                    self.send(b"", 500)
                case "redirect", _:
                    self.send(b"", 302, {"Location": f"{url}/elsewhere"})
                case "slow", _:
                    # A byte now and then, so that no single wait is too long.
                    self.send(b" " * 20, pause=1.0)
                case "long", _:
                    self.send(b" " * (1 << 21))
                case "garbage", _:
                    self.send(b'{"keys": [')
                case "other", True:
                    self.send(json.dumps(document | {"issuer": f"{url}/"}).encode())
                case _, True:
                    self.send(json.dumps(document).encode())
                case _:
                    self.send(json.dumps({"keys": list(issuer.shown.values())}).encode())

        def send(
            self, body: bytes, status: int = 200, headers: dict[str, str] | None = None, pause: float = 0.0
        ) -> None:
            self.send_response(status)
            for name, value in {**(headers or {}), "Content-Length": str(len(body))}.items():
                self.send_header(name, value)
            self.end_headers()
            try:
                for start in range(0, len(body), 1 if pause else len(body)):
                    self.wfile.write(body[start : start + (1 if pause else len(body))])
                    self.wfile.flush()
                    sleep(pause)
            except OSError:
                # Whoever asked has heard enough.
                self.close_connection = True

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    url = issuer.url = f"http://{sys.argv[1]}:{server.server_port}"
    threading.Thread(target=server.serve_forever, daemon=True).start()
    sys.stdout.write(f"{url}\n")
    sys.stdout.flush()
    sys.stdin.read()


if __name__ == "__main__":
    main()
