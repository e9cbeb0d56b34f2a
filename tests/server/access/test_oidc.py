import base64
import hashlib
import hmac
import json
import ssl
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from certificate import make_certificate
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import example, given, settings
from hypothesis import strategies as st
from issuer import Running, encode, make_key, public_jwk, running_issuer, sign
from live import until

from tlog.access import Principal, jwks
from tlog.access.fetch import fetch_document
from tlog.access.issuer import ALGORITHMS, Issuer
from tlog.access.jwks import FRESH, MAX_WAITING, PAUSE, USABLE
from tlog.access.oidc import KEPT, LEEWAY, MAX_CLAIMS, MAX_DEPTH, MAX_TOKEN_BYTES, Oidc
from tlog.errors import UnauthorizedError, UnavailableError
from tlog_core.errors import FetchError

NOW = 1_900_000_000
KEY = make_key("RS256")
SECRET_PART = 20


class Clock:
    """Milliseconds since the epoch, which pass when a test says so."""

    def __init__(self) -> None:
        self.now = NOW * 1000

    def __call__(self) -> int:
        return self.now


class Shown:
    """Documents that are there without a network, and how often each was asked for."""

    def __init__(self, documents: dict[str, Any]) -> None:
        self.documents = documents
        self.asked: list[str] = []

    def __call__(self, url: str) -> bytes:
        self.asked.append(url)
        if url not in self.documents:
            raise FetchError("there is nothing")
        return json.dumps(self.documents[url]).encode()


@pytest.fixture(scope="module")
def process() -> Iterator[Running]:
    with running_issuer() as running:
        yield running


@pytest.fixture
def issuer(process: Running) -> Iterator[Running]:
    yield process
    process.answer("well")


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def oidc(issuer: Running, clock: Clock) -> Oidc:
    return Oidc([configured(issuer.url)], clock, fetch_document)


def configured(url: str, **members: Any) -> Issuer:
    return replace(
        Issuer(issuer=url, audience=("tlog", "log"), algorithms=ALGORITHMS, name_prefix="ci:"),
        **members,
    )


def claims(**members: Any) -> dict[str, Any]:
    return {"sub": "alice", "aud": "tlog", "exp": NOW + 3600, **members}


def refusal(oidc: Oidc, token: str, kind: type[Exception] = UnauthorizedError) -> str:
    """Return how a token is refused, which never shows it."""
    with pytest.raises(kind) as refused:
        oidc.identify(token)
    said = str(refused.value)
    assert said.isprintable()
    assert not any(part in said for part in token.split(".") if len(part) > SECRET_PART)
    return said


def without_network(*jwks: dict[str, Any], **members: Any) -> Oidc:
    """Return a verifier whose issuer shows these keys."""
    shown = Shown({"https://keys.example": {"keys": list(jwks)}})
    return Oidc([configured("https://a.example", jwks_uri="https://keys.example", **members)], Clock(), shown)


def signed(payload: str | None = None, *, key: Any = KEY, algorithm: str = "RS256", **header: Any) -> str:
    said = json.dumps({"alg": algorithm, "kid": "k", **header})
    return sign(algorithm, key, said, payload or json.dumps(claims(iss="https://a.example")))


# Whom tokens speak for


def test_a_token_as_kubernetes_projects_it_into_a_pod_speaks_for_its_service_account(
    issuer: Running, clock: Clock
) -> None:
    oidc = Oidc([configured(issuer.url, algorithms=("RS256",), name_prefix="k8s:")], clock, fetch_document)
    token = issuer.token(
        {
            "aud": ["tlog"],
            "exp": NOW + 3607,
            "iat": NOW,
            "jti": "ea28ed49-2e11-4280-9ec5-bc3d1d84661a",
            "kubernetes.io": {
                "namespace": "payments",
                "node": {"name": "worker-1", "uid": "646e7c5e-32d6-4d42-9dbd-e504e6cbe6b1"},
                "pod": {"name": "api-0", "uid": "5e0bd49b-f040-43b0-99b7-22765a53f7f3"},
                "serviceaccount": {"name": "api", "uid": "14ee3fa4-a7e2-420f-9f9a-dbc4507c3798"},
                "warnafter": NOW + 3000,
            },
            "nbf": NOW,
            "sub": "system:serviceaccount:payments:api",
        },
        header={"typ": "JWT"},
    )
    principal = oidc.identify(token)
    assert principal.name == "k8s:system:serviceaccount:payments:api"
    assert principal.groups == frozenset()
    assert dict(principal.claims) == {
        "iss": issuer.url,
        "aud": "tlog",
        "sub": "system:serviceaccount:payments:api",
        "kubernetes.io/namespace": "payments",
        "kubernetes.io/node/name": "worker-1",
        "kubernetes.io/node/uid": "646e7c5e-32d6-4d42-9dbd-e504e6cbe6b1",
        "kubernetes.io/pod/name": "api-0",
        "kubernetes.io/pod/uid": "5e0bd49b-f040-43b0-99b7-22765a53f7f3",
        "kubernetes.io/serviceaccount/name": "api",
        "kubernetes.io/serviceaccount/uid": "14ee3fa4-a7e2-420f-9f9a-dbc4507c3798",
        "kubernetes.io/warnafter": str(NOW + 3000),
    }


def test_a_spiffe_jwt_svid_speaks_for_its_workload(issuer: Running, clock: Clock) -> None:
    # The keys of a SPIFFE bundle have a use of their own and no algorithm.
    issuer.add_key("svid", "ES256", members={"use": "jwt-svid"})
    oidc = Oidc([configured(issuer.url, algorithms=("ES256",), name_prefix="spiffe:")], clock, fetch_document)
    svid = {"sub": "spiffe://example.org/ns/payments/sa/api", "aud": ["tlog"], "exp": NOW + 300, "iat": NOW}
    principal = oidc.identify(issuer.token(svid, kid="svid", header={"typ": "JOSE"}))
    assert principal.name == "spiffe:spiffe://example.org/ns/payments/sa/api"


def test_a_jwt_svid_without_iss_is_refused(issuer: Running, oidc: Oidc) -> None:
    said = refusal(oidc, issuer.token(json.dumps(claims(sub="spiffe://example.org/api"))))
    assert said == "not a token of an issuer: iss is not a string, or is empty"


def test_the_token_of_a_ci_job_speaks_for_its_repository_and_groups(issuer: Running, clock: Clock) -> None:
    oidc = Oidc([configured(issuer.url, principal_claim="repository", groups_claim="org/teams")], clock, fetch_document)
    token = issuer.token(
        claims(
            sub="repo:example/app:ref:refs/heads/main",
            aud=["other", "log"],
            repository="example/app",
            run_attempt=1,
            protected=True,
            environment=None,
            org={"teams": ["build", "release"]},
        )
    )
    assert oidc.identify(token) == Principal(
        "ci:example/app",
        frozenset({"ci:build", "ci:release"}),
        (
            ("iss", issuer.url),
            ("sub", "repo:example/app:ref:refs/heads/main"),
            ("aud", "other"),
            ("aud", "log"),
            ("repository", "example/app"),
            ("run_attempt", "1"),
            ("protected", "true"),
            ("org/teams", "build"),
            ("org/teams", "release"),
        ),
    )


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_each_configured_algorithm_is_taken_and_no_other(algorithm: str) -> None:
    key = make_key(algorithm)
    jwk = public_jwk(algorithm, key, kid="k")
    token = signed(key=key, algorithm=algorithm)
    assert without_network(jwk).identify(token).name == "ci:alice"
    others = tuple(one for one in ALGORITHMS if one != algorithm)
    assert "algorithm" in refusal(without_network(jwk, algorithms=others), token)


def test_a_renewed_token_speaks_for_the_same_principal(issuer: Running, oidc: Oidc) -> None:
    first, second = (issuer.token(claims(exp=NOW + more, iat=NOW, jti=str(more))) for more in (60, 120))
    assert oidc.identify(first) == oidc.identify(second)


@pytest.mark.parametrize(
    "sub", ["", " ", "a b", "a\n", "\u0007", "x" * 300, ["a", "b"], ["alice"], 5, None, {"a": "b"}, True]
)
def test_a_token_that_names_no_possible_principal_is_refused(issuer: Running, oidc: Oidc, sub: Any) -> None:
    refusal(oidc, issuer.token(claims(sub=sub)))


@pytest.mark.parametrize(("prefix", "sub"), [("anon", "ymous"), ("tlog", "/operator")])
def test_no_token_speaks_for_a_name_of_tlogs_own(issuer: Running, clock: Clock, prefix: str, sub: str) -> None:
    oidc = Oidc([configured(issuer.url, name_prefix=prefix)], clock, fetch_document)
    assert "a name of tlog's own" in refusal(oidc, issuer.token(claims(sub=sub)))


@pytest.mark.parametrize("named", [{}, {"name": ["a", "b"]}, {"name": []}, {"name": None}, {"name": {"first": "a"}}])
def test_the_claim_that_names_the_principal_has_one_value(issuer: Running, clock: Clock, named: dict[str, Any]) -> None:
    oidc = Oidc([configured(issuer.url, principal_claim="name")], clock, fetch_document)
    assert "just one value" in refusal(oidc, issuer.token(claims(**named)))


def test_claims_beyond_the_limit_refuse_the_token(issuer: Running, oidc: Oidc) -> None:
    # Three are there anyway.
    most = MAX_CLAIMS - 3
    assert len(oidc.identify(issuer.token(claims(roles=["a"] * most))).claims) == MAX_CLAIMS
    assert "more than 256" in refusal(oidc, issuer.token(claims(roles=["a"] * (most + 1))))
    nested: Any = "a"
    for _ in range(MAX_DEPTH - 1):
        nested = {"a": nested}
    assert ("a" + "/a" * (MAX_DEPTH - 1), "a") in oidc.identify(issuer.token(claims(a=nested))).claims
    assert "deeper" in refusal(oidc, issuer.token(claims(a={"a": nested})))


# What is refused


@pytest.mark.parametrize("aud", ["other", ["other"], [], "", "TLOG", "tlog ", ["tlog", 5], None, 5, {"tlog": 1}])
def test_a_token_for_another_audience_is_refused(issuer: Running, oidc: Oidc, aud: Any) -> None:
    refusal(oidc, issuer.token(claims(aud=aud)))


@pytest.mark.parametrize("iss", ["https://other.example", "", None, 5, "{url}/", "{url} ", ["{url}"]])
def test_a_token_of_an_issuer_that_is_not_configured_is_refused(issuer: Running, oidc: Oidc, iss: Any) -> None:
    iss = json.loads(json.dumps(iss).replace("{url}", issuer.url))
    refusal(oidc, issuer.token(claims(iss=iss)))


@pytest.mark.parametrize("name", ["exp", "iss", "aud", "sub"])
def test_a_token_without_one_of_its_claims_is_refused(issuer: Running, oidc: Oidc, name: str) -> None:
    said = claims(iss=issuer.url)
    del said[name]
    refusal(oidc, issuer.token(json.dumps(said)))


@pytest.mark.parametrize("alg", ["none", "None", "NONE", ""])
def test_an_unsigned_token_is_refused(oidc: Oidc, issuer: Running, alg: str) -> None:
    header = encode(json.dumps({"alg": alg, "kid": "1", "typ": "JWT"}).encode())
    payload = encode(json.dumps(claims(iss=issuer.url)).encode())
    for signature in ("", "AA", issuer.token(claims()).split(".")[2]):
        refusal(oidc, f"{header}.{payload}.{signature}")


def test_a_public_key_is_no_shared_secret() -> None:
    jwk = public_jwk("RS256", KEY, kid="k")
    oidc = without_network(jwk)
    payload = encode(json.dumps(claims(iss="https://a.example")).encode())
    pem = KEY.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    for secret in (pem, pem.strip(), json.dumps(jwk).encode(), base64.urlsafe_b64decode(jwk["n"] + "==")):
        start = encode(json.dumps({"alg": "HS256", "kid": "k"}).encode()) + "." + payload
        token = f"{start}.{encode(hmac.digest(secret, start.encode(), 'sha256'))}"
        assert "algorithm" in refusal(oidc, token)


def test_a_token_with_a_bit_changed_is_refused(issuer: Running, oidc: Oidc) -> None:
    token = issuer.token(claims())
    oidc.identify(token)
    for place in range(0, len(token), 7):
        other = "B" if token[place] == "A" else "A"
        refusal(oidc, token[:place] + other + token[place + 1 :])


def test_an_expired_token_is_refused_though_it_was_taken_before(issuer: Running, oidc: Oidc, clock: Clock) -> None:
    token = issuer.token(claims(exp=NOW + 1))
    end = (NOW + 1) * 1000 + LEEWAY
    for now in (NOW * 1000, end - KEPT, end - 1):
        clock.now = now
        oidc.identify(token)
    clock.now = end
    assert "expired" in refusal(oidc, token)


@pytest.mark.parametrize("name", ["nbf", "iat"])
def test_a_token_of_the_future_is_refused(issuer: Running, oidc: Oidc, name: str) -> None:
    leeway = LEEWAY // 1000
    oidc.identify(issuer.token(claims(**{name: NOW + leeway})))
    assert "future" in refusal(oidc, issuer.token(claims(**{name: NOW + leeway + 1})))


@pytest.mark.parametrize("name", ["exp", "nbf", "iat"])
@pytest.mark.parametrize("value", ["1900000000", None, True, [], {}, -1, -1e308, 1e308])
def test_a_time_that_is_no_number_is_refused(issuer: Running, oidc: Oidc, name: str, value: Any) -> None:
    refusal(oidc, issuer.token(claims(**{name: value})))


def test_a_key_of_another_issuer_is_refused(issuer: Running, clock: Clock) -> None:
    with running_issuer() as other:
        other.add_key("theirs")
        oidc = Oidc(
            [configured(issuer.url), configured(other.url, name_prefix="other:")],
            clock,
            fetch_document,
        )
        assert oidc.identify(other.token(claims(), kid="theirs")).name == "other:alice"
        refusal(oidc, other.token(claims(iss=issuer.url), kid="theirs"))
        # By the same ID, but not the same key.
        assert "signature" in refusal(oidc, other.token(claims(iss=issuer.url)))


def test_keys_that_a_token_names_itself_are_ignored() -> None:
    thief = make_key("RS256")
    oidc = without_network(public_jwk("RS256", KEY, kid="k"))
    theirs = public_jwk("RS256", thief, kid="k")
    brought: dict[str, Any] = {
        "jwk": theirs,
        "jku": "https://thief.example",
        "x5u": "https://thief.example",
        "x5c": ["AA=="],
    }
    assert "signature" in refusal(oidc, signed(key=thief, **brought))
    assert oidc.identify(signed(**brought)).name == "ci:alice"


@pytest.mark.parametrize("crit", [["exp"], ["b64"], [], None, "exp"])
def test_a_token_with_something_critical_is_refused(crit: Any) -> None:
    oidc = without_network(public_jwk("RS256", KEY, kid="k"))
    assert "crit" in refusal(oidc, signed(crit=crit, b64=True))
    refusal(oidc, signed(b64=False))


@pytest.mark.parametrize("typ", ["logout+jwt", "secevent+jwt", "dpop+jwt", "", None, 5, "JWE"])
def test_a_token_of_another_kind_is_refused(typ: Any) -> None:
    assert "typ" in refusal(without_network(public_jwk("RS256", KEY, kid="k")), signed(typ=typ))


@pytest.mark.parametrize("typ", ["JWT", "jwt", "at+jwt", "application/at+JWT", "JOSE"])
def test_a_token_of_the_right_kind_is_taken(typ: str) -> None:
    without_network(public_jwk("RS256", KEY, kid="k")).identify(signed(typ=typ))


@pytest.mark.parametrize("kid", [None, "", 5, ["k"], "K", "unknown"])
def test_a_token_that_names_no_key_of_the_issuer_is_refused(kid: Any) -> None:
    refusal(without_network(public_jwk("RS256", KEY, kid="k")), signed(kid=kid))


def test_an_oversized_token_is_refused_before_it_is_read(issuer: Running, oidc: Oidc) -> None:
    empty = len(issuer.token(claims(pad="")))
    largest = issuer.token(claims(pad="x" * ((MAX_TOKEN_BYTES - empty) * 3 // 4 - 2)))
    assert MAX_TOKEN_BYTES - 8 < len(largest) <= MAX_TOKEN_BYTES
    oidc.identify(largest)
    refusal(oidc, issuer.token(claims(pad="x" * ((MAX_TOKEN_BYTES - empty) * 3 // 4 + 8))))


def test_base64_in_another_form_is_refused(issuer: Running, oidc: Oidc) -> None:
    header, payload, signature = issuer.token(claims()).split(".")
    # 256 bytes of a signature leave four bits of the last character without a meaning.
    other = signature[:-1] + chr(ord(signature[-1]) + 1)
    assert base64.urlsafe_b64decode(other + "==") == base64.urlsafe_b64decode(signature + "==")
    for token in (
        f"{header}.{payload}.{other}",
        f"{header}.{payload}.{signature}==",
        f"{header}.{payload}.{signature}\n",
        f"{header}\n.{payload}.{signature}",
        f"{header}.{payload}.{signature}.",
        f"{header}.{payload}",
        f" {header}.{payload}.{signature}",
        f"{header}.{payload}.{signature.replace('-', '+').replace('_', '/')}!",
        f"{header}.{payload}.{signature}A",
    ):
        refusal(oidc, token)


@pytest.mark.parametrize(
    "payload",
    [
        '{{"iss": "{url}", "sub": "bob", "sub": "alice", "aud": "tlog", "exp": 2000000000}}',
        '{{"iss": "{url}", "sub": "alice", "aud": "tlog", "exp": 2000000000, "a": {{"b": 1, "b": 2}}}}',
        '{{"iss": "{url}", "sub": "alice", "aud": "tlog", "exp": NaN}}',
        '{{"iss": "{url}", "sub": "alice", "aud": "tlog", "exp": 1e400}}',
        '{{"iss": "{url}", "sub": "alice", "aud": "tlog", "exp": 20000000000000000000000000}}',
        '{{"iss": "{url}", "sub": "ali\\ud800ce", "aud": "tlog", "exp": 2000000000}}',
        '\ufeff{{"iss": "{url}", "sub": "alice", "aud": "tlog", "exp": 2000000000}}',
        '[{{"iss": "{url}"}}]',
        '"{url}"',
        "null",
    ],
)
def test_claims_in_which_two_readers_could_see_two_things_are_refused(
    issuer: Running, oidc: Oidc, payload: str
) -> None:
    refusal(oidc, issuer.token(payload.format(url=issuer.url)))


def test_a_header_with_a_name_twice_is_refused(issuer: Running, oidc: Oidc) -> None:
    header = '{"alg": "none", "kid": "1", "alg": "RS256"}'
    assert "two members of one name" in refusal(oidc, issuer.token(claims(), header=header))


@pytest.mark.parametrize(
    "members",
    [
        {"use": "enc"},
        {"alg": "RS512"},
        {"alg": "HS256"},
        {"kty": "oct", "k": "c2VjcmV0"},
        {"kty": "unknown"},
        {"kty": 5},
        {"crv": ["P-256"]},
        {"kid": 5},
        {"n": "AQAB"},
        {"n": 5},
        {"e": "AQ"},
        {"d": "AQAB"},
    ],
)
def test_a_key_that_is_not_for_this_is_left_out(members: dict[str, Any]) -> None:
    jwk = {**public_jwk("RS256", KEY, kid="k"), **members}
    good = make_key("ES256")
    oidc = without_network(5, jwk, public_jwk("ES256", good, kid="good"))  # type: ignore[arg-type]
    refusal(oidc, signed())
    assert oidc.identify(signed(key=good, algorithm="ES256", kid="good")).name == "ci:alice"


def test_a_weak_key_of_an_issuer_is_left_out(issuer: Running, oidc: Oidc) -> None:
    issuer.add_key("weak", bits=2047)
    assert "does not show" in refusal(oidc, issuer.token(claims(), kid="weak"))


@pytest.mark.parametrize("point", [bytes(32), bytes([1]) + bytes(31), b"\xff" * 32])
def test_an_ed25519_key_by_which_any_signature_is_right_is_left_out(point: bytes) -> None:
    oidc = without_network({"kty": "OKP", "crv": "Ed25519", "kid": "k", "x": encode(point)})
    start = signed(key=make_key("EdDSA"), algorithm="EdDSA").rpartition(".")[0]
    assert "does not show" in refusal(oidc, f"{start}.{encode(bytes([1]) + bytes(63))}")


def test_a_key_is_good_for_the_algorithm_of_its_own_curve_only() -> None:
    key = make_key("ES384")
    oidc = without_network(public_jwk("ES384", key, kid="k"))
    payload = json.dumps(claims(iss="https://a.example"))
    token = sign("ES384", key, json.dumps({"alg": "ES256", "kid": "k"}), payload)
    assert "does not show" in refusal(oidc, token)


def test_without_issuers_any_token_is_as_unknown() -> None:
    def nobody(_url: str) -> bytes:
        raise AssertionError("asked without a reason")

    oidc = Oidc([], Clock(), nobody)
    assert {refusal(oidc, token) for token in ("", "a", "a.b.c", signed(), "\u20ac" * 9)} == {
        "the token is not one of ours; ask who runs the log for another"
    }


PARTS = st.sampled_from(
    ["", "e30", "bnVsbA", "W10", signed().split(".")[0], signed().split(".")[1], "AA", "A", "=", "é"]
)
JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(),
    lambda one: st.lists(one) | st.dictionaries(st.text(), one),
)


@given(st.text() | st.lists(PARTS, max_size=4).map(".".join) | st.binary().map(lambda raw: raw.decode("latin-1")))
@example("..")
@example("a.b.c")
def test_any_text_speaks_for_somebody_or_is_refused(text: str) -> None:
    refuses_or_names(without_network(public_jwk("RS256", KEY, kid="k")), text)


@settings(max_examples=200)
@given(
    st.dictionaries(st.sampled_from(["iss", "sub", "aud", "exp", "nbf", "iat", "jti", "a/b"]), JSON_VALUES),
    st.dictionaries(st.sampled_from(["typ", "crit", "b64", "kid", "alg", "jwk"]), JSON_VALUES),
)
def test_any_claims_under_a_right_signature_speak_for_somebody_or_are_refused(
    more: dict[str, Any], header: dict[str, Any]
) -> None:
    oidc = without_network(public_jwk("RS256", KEY, kid="k"))
    said = json.dumps({"alg": "RS256", "kid": "k", **header})
    refuses_or_names(oidc, sign("RS256", KEY, said, json.dumps(claims(iss="https://a.example") | more)))


@given(JSON_VALUES, JSON_VALUES)
def test_whatever_an_issuer_shows_its_tokens_speak_for_somebody_or_are_refused(keys: Any, member: Any) -> None:
    good = public_jwk("RS256", KEY, kid="k")
    for shown in (keys, {"keys": keys}, {"keys": [{**good, "n": member}]}, {"keys": [{**good, "use": member}]}):
        fetch = Shown({"https://keys.example": shown})
        configuration = configured("https://a.example", jwks_uri="https://keys.example")
        with suppress(UnauthorizedError, UnavailableError):
            assert Oidc([configuration], Clock(), fetch).identify(signed()).name == "ci:alice"


def refuses_or_names(oidc: Oidc, token: str) -> None:
    with suppress(UnauthorizedError):
        assert oidc.identify(token).name.startswith("ci:")


# Keys that change, and issuers that fail


def test_a_new_key_is_fetched_in_the_middle_of_a_run(issuer: Running, oidc: Oidc, clock: Clock) -> None:
    oidc.identify(issuer.token(claims()))
    issuer.add_key("next", "ES256")
    clock.now += PAUSE
    assert oidc.identify(issuer.token(claims(), kid="next")).name == "ci:alice"
    # The one before goes on until it is retired.
    assert oidc.identify(issuer.token(claims(sub="bob"))).name == "ci:bob"


def test_tokens_of_a_retired_key_end(issuer: Running, oidc: Oidc, clock: Clock) -> None:
    issuer.add_key("stolen")
    taken, new = (issuer.token(claims(sub=sub, exp=NOW + 9999), kid="stolen") for sub in ("a", "b"))
    oidc.identify(taken)
    issuer.retire_key("stolen")
    clock.now += FRESH
    assert "does not show" in refusal(oidc, new)
    assert "does not show" in refusal(oidc, taken)


def test_the_tokens_of_a_retired_key_end_as_soon_as_a_new_one_is_seen(
    issuer: Running, oidc: Oidc, clock: Clock
) -> None:
    issuer.add_key("old")
    oidc.identify(issuer.token(claims(), kid="old"))
    issuer.add_key("new")
    issuer.retire_key("old")
    clock.now += PAUSE
    oidc.identify(issuer.token(claims(), kid="new"))
    assert "does not show" in refusal(oidc, issuer.token(claims(sub="bob"), kid="old"))


def test_strangers_cannot_make_the_server_press_an_issuer(issuer: Running, oidc: Oidc, clock: Clock) -> None:
    oidc.identify(issuer.token(claims()))
    before = issuer.fetched()
    _, payload, signature = issuer.token(claims()).split(".")

    def invent(number: int) -> None:
        invented = encode(json.dumps({"alg": "RS256", "kid": f"invented-{number}"}).encode())
        refusal(oidc, f"{invented}.{payload}.{signature}")

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(invent, range(200)))
        assert issuer.fetched() == before
        clock.now += PAUSE
        list(pool.map(invent, range(200)))
    assert issuer.fetched() == before + 1


def test_many_threads_fetch_keys_once_and_all_get_them(issuer: Running, oidc: Oidc) -> None:
    before = issuer.fetched()
    tokens = [issuer.token(claims(sub=f"user-{number}")) for number in range(16)]
    with ThreadPoolExecutor(8) as pool:
        names = [principal.name for principal in pool.map(oidc.identify, tokens)]
    assert names == [f"ci:user-{number}" for number in range(16)]
    assert issuer.fetched() == before + 1


def test_nothing_is_fetched_before_a_token_comes_or_for_a_stranger_to_all_issuers(clock: Clock) -> None:
    shown = Shown({})
    oidc = Oidc([configured("https://b.example")], clock, shown)
    refusal(oidc, signed())
    assert shown.asked == []


@pytest.mark.parametrize("how", ["error", "redirect", "long", "garbage", "other"])
def test_an_issuer_that_fails_is_done_without_for_an_hour(issuer: Running, oidc: Oidc, clock: Clock, how: str) -> None:
    oidc.identify(issuer.token(claims()))
    issuer.answer(how)
    start = clock.now
    for minutes in range(0, USABLE // 60_000, 4):
        clock.now = start + minutes * 60_000
        assert oidc.identify(issuer.token(claims(sub=f"at-{minutes}"))).name == f"ci:at-{minutes}"
    clock.now = start + USABLE
    token = issuer.token(claims(exp=NOW + 9999))
    assert "cannot be fetched" in refusal(oidc, token, UnavailableError)
    issuer.answer("well")
    clock.now += PAUSE
    assert oidc.identify(token).name == "ci:alice"


def test_an_issuer_that_is_gone_is_said_to_be_unavailable(clock: Clock) -> None:
    with running_issuer() as gone:
        token = gone.token(claims())
    oidc = Oidc([configured(gone.url)], clock, fetch_document)
    assert "cannot be fetched" in refusal(oidc, token, UnavailableError)


def test_an_issuer_that_answers_in_single_bytes_is_given_up_in_time(issuer: Running, oidc: Oidc) -> None:
    token = issuer.token(claims())
    issuer.answer("slow")
    began = time.monotonic()
    refusal(oidc, token, UnavailableError)
    assert time.monotonic() - began < 8


def test_who_has_a_key_does_not_wait_for_an_issuer_that_hangs(clock: Clock) -> None:
    asked, go_on = threading.Event(), threading.Event()
    shown = Shown({"https://keys.example": {"keys": [public_jwk("RS256", KEY, kid="k")]}})

    def hang(url: str) -> bytes:
        if shown.asked:
            asked.set()
            assert go_on.wait(30)
        return shown(url)

    oidc = Oidc([configured("https://a.example", jwks_uri="https://keys.example")], clock, hang)
    oidc.identify(signed())
    clock.now += FRESH
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(oidc.identify, signed())
        assert asked.wait(30)
        others = [json.dumps(claims(iss="https://a.example", sub=sub)) for sub in ("b", "c")]
        assert [oidc.identify(signed(other)).name for other in others] == ["ci:b", "ci:c"]
        go_on.set()
        assert waiting.result().name == "ci:alice"


def test_few_wait_for_a_slow_issuer_however_many_name_keys_that_nobody_has(
    clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of two slow issuers, so that none of the two has threads of its own to hold."""
    monkeypatch.setattr(jwks, "_WAIT_SECONDS", 30.0)
    asked, go_on = threading.Semaphore(0), threading.Event()
    places = [f"https://{name}.example" for name in ("a", "b")]
    shown = Shown({f"{place}/keys": {"keys": [public_jwk("RS256", KEY, kid="k")]} for place in places})

    def hang(url: str) -> bytes:
        asked.release()
        assert go_on.wait(30)
        return shown(url)

    oidc = Oidc([configured(place, jwks_uri=f"{place}/keys") for place in places], clock, hang)

    def name_a_key(number: int) -> str:
        place = places[number % 2]
        return refusal(oidc, signed(json.dumps(claims(iss=place)), kid=f"invented-{number}"), Exception)

    with ThreadPoolExecutor(40) as pool:
        fetching = [pool.submit(name_a_key, number) for number in range(2)]
        assert all(asked.acquire(timeout=30) for _ in fetching)
        others = [pool.submit(name_a_key, number) for number in range(2, 40)]
        until(lambda: sum(one.done() for one in others) == 38 - MAX_WAITING, "all but a few to be answered", 20)
        # At once, and not by what is not known yet: the key may be there.
        at_once = [one.result() for one in others if one.done()]
        assert all("cannot be fetched now" in said for said in at_once)
        go_on.set()
        waited = [one.result() for one in (*fetching, *others)]
    assert sum("does not show" in said for said in waited) == 2 + MAX_WAITING
    assert sorted(shown.asked) == [f"{place}/keys" for place in places]
    # Whoever waited has made room for others.
    clock.now += PAUSE
    go_on.clear()
    with ThreadPoolExecutor(10) as pool:
        again = [pool.submit(name_a_key, 0)]
        assert asked.acquire(timeout=30)
        again += [pool.submit(name_a_key, 2 * number) for number in range(1, MAX_WAITING + 2)]
        until(lambda: sum(one.done() for one in again) == 1, "one too many to be answered", 20)
        go_on.set()


def test_who_gives_up_waiting_does_not_hear_that_the_key_is_not_there(
    clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jwks, "_WAIT_SECONDS", 0.01)
    asked, go_on = threading.Event(), threading.Event()

    def hang(_: str) -> bytes:
        asked.set()
        assert go_on.wait(30)
        return json.dumps({"keys": [public_jwk("RS256", KEY, kid="k")]}).encode()

    oidc = Oidc([configured("https://a.example", jwks_uri="https://keys.example")], clock, hang)
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(oidc.identify, signed())
        assert asked.wait(30)
        assert "cannot be fetched now" in refusal(oidc, signed(), UnavailableError)
        go_on.set()
        assert first.result().name == "ci:alice"


def test_an_issuer_that_takes_long_is_left_alone_for_a_while_after_it(clock: Clock) -> None:
    """Else one that always takes so long would be asked all the time."""
    asked = []

    def fetch(url: str) -> bytes:
        asked.append(url)
        clock.now += 2 * PAUSE
        raise FetchError("too slow")

    oidc = Oidc([configured("https://a.example", jwks_uri="https://keys.example")], clock, fetch)
    for wait, times in ((0, 1), (PAUSE - 1, 1), (1, 2)):
        clock.now += wait
        refusal(oidc, signed(json.dumps(claims(iss="https://a.example", exp=NOW + 9999))), UnavailableError)
        assert len(asked) == times


def test_the_environment_says_nothing_of_how_keys_are_fetched(
    issuer: Running, oidc: Oidc, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither a proxy nor credentials; and of certificates which are believed, and no more."""
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login alice password hunter2\n")
    netrc.chmod(0o600)
    token = issuer.token(claims())
    with monkeypatch.context() as environment:
        environment.setenv("NETRC", str(netrc))
        # Nobody listens there: who went by it would get no answer.
        for name in ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
            environment.setenv(name, "http://127.0.0.1:9")
        for name in ("no_proxy", "NO_PROXY"):
            environment.delenv(name, raising=False)
        assert oidc.identify(token).name == "ci:alice"
    assert issuer.authorized() == []


def test_whose_certificates_are_believed_the_environment_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    certificate, key = tmp_path / "certificate.pem", tmp_path / "key.pem"
    make_certificate(certificate, key)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b"{}")

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        url = f"https://localhost:{server.server_port}/"
        with pytest.raises(FetchError, match="SSLError"):
            fetch_document(url)
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(certificate))
        assert fetch_document(url) == b"{}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.mark.parametrize(
    ("issuer_url", "jwks_uri", "taken"),
    [
        ("https://a.example", "https://keys.example", True),
        ("https://a.example", "http://keys.example", False),
        ("https://a.example", "http://127.0.0.1:8080/keys", False),
        ("https://a.example", "file:///etc/passwd", False),
        ("https://a.example", "https://user:password@keys.example", False),
        ("http://127.0.0.1:1", "http://127.0.0.1:2/keys", True),
        ("http://127.0.0.1:1", "http://keys.example", False),
    ],
)
def test_a_discovery_document_sends_nobody_anywhere(issuer_url: str, jwks_uri: str, taken: bool, clock: Clock) -> None:
    discovery = f"{issuer_url}/.well-known/openid-configuration"
    shown = Shown(
        {
            discovery: {"issuer": issuer_url, "jwks_uri": jwks_uri},
            jwks_uri: {"keys": [public_jwk("RS256", KEY, kid="k")]},
        }
    )
    oidc = Oidc([configured(issuer_url)], clock, shown)
    token = signed(json.dumps(claims(iss=issuer_url)))
    if taken:
        assert oidc.identify(token).name == "ci:alice"
    else:
        refusal(oidc, token, UnavailableError)
    assert shown.asked == [discovery, jwks_uri][: 1 + taken]


# What is kept


def test_a_token_is_verified_once_a_minute(clock: Clock) -> None:
    shown = Shown({"https://keys.example": {"keys": [public_jwk("RS256", KEY, kid="k")]}})
    oidc = Oidc([configured("https://a.example", jwks_uri="https://keys.example")], clock, shown)
    oidc.identify(signed())
    first = oidc.identify(signed())
    clock.now += KEPT - 1
    assert oidc.identify(signed()) is first
    clock.now += 1
    assert oidc.identify(signed()) is not first


def test_a_clock_that_goes_back_makes_no_token_last_longer(clock: Clock) -> None:
    shown = Shown({"https://keys.example": {"keys": [public_jwk("RS256", KEY, kid="k")]}})
    oidc = Oidc([configured("https://a.example", jwks_uri="https://keys.example")], clock, shown)
    clock.now += 600_000
    oidc.identify(signed())
    clock.now -= 600_000
    shown.documents = {}
    refusal(oidc, signed(), UnavailableError)


def test_neither_a_token_nor_its_text_is_kept() -> None:
    oidc = without_network(public_jwk("RS256", KEY, kid="k"))
    token = signed()
    oidc.identify(token)
    kept = repr(everything(oidc))
    assert hashlib.sha256(token.encode()).hexdigest() not in kept
    assert token not in kept
    assert token.rpartition(".")[2] not in kept


def everything(value: object, depth: int = 6) -> list[object]:
    """Return the parts of a value, down to some depth."""
    inner: Sequence[object] = [*value.items()] if isinstance(value, dict) else []
    if isinstance(value, tuple | list):
        inner = value
    names = getattr(type(value), "__slots__", ()) or getattr(value, "__dict__", {})
    inner = [*inner, *(getattr(value, name, None) for name in names)]
    return [value, *(everything(one, depth - 1) for one in inner if depth)]
