from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tlog.access.issuer import ALGORITHMS, Issuer, SignIn, parse_issuers, read_issuers
from tlog.errors import ConfigError

ONE = """
[[issuer]]
issuer = "https://one.example"
audience = ["tlog"]
algorithms = ["RS256"]
name_prefix = "one:"
"""


def changed(old: str, new: str) -> bytes:
    assert old in ONE
    return ONE.replace(old, new).encode()


def refusal(document: bytes) -> str:
    with pytest.raises(ConfigError) as refused:
        parse_issuers(document)
    return str(refused.value)


def test_a_document_says_what_its_members_say() -> None:
    more = """
    [[issuer]]
    issuer = "http://127.0.0.1:9/realm/"
    audience = ["a", "b"]
    algorithms = ["RS256", "PS256", "ES256", "ES384", "EdDSA"]
    name_prefix = "two:"
    principal_claim = "email"
    groups_claim = "realm_access/roles"
    jwks_uri = "https://keys.example/two"
    """
    assert parse_issuers((ONE + more).encode()) == (
        Issuer(issuer="https://one.example", audience=("tlog",), algorithms=("RS256",), name_prefix="one:"),
        Issuer(
            issuer="http://127.0.0.1:9/realm/",
            audience=("a", "b"),
            algorithms=ALGORITHMS,
            name_prefix="two:",
            principal_claim="email",
            groups_claim="realm_access/roles",
            jwks_uri="https://keys.example/two",
        ),
    )


def test_the_discovery_document_is_below_the_issuer_with_or_without_a_slash_at_its_end() -> None:
    (one,), (other,) = parse_issuers(ONE.encode()), parse_issuers(changed("one.example", "one.example/"))
    assert one.discovery_uri() == other.discovery_uri() == "https://one.example/.well-known/openid-configuration"


def test_the_issuers_of_the_specification_are_taken() -> None:
    page = (Path(__file__).parents[3] / "spec" / "access.md").read_text("utf-8")
    (document,) = [block for block in page.split("```toml\n")[1:] if "[[issuer]]" in block]
    prefixes = [issuer.name_prefix for issuer in parse_issuers(document.split("```")[0].encode())]
    assert prefixes == ["k8s:", "spiffe:", "people:"]


def test_without_a_file_there_are_no_issuers(tmp_path: Path) -> None:
    assert read_issuers(tmp_path / "issuers.toml") == ""


def test_a_file_that_cannot_be_read_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "issuers.toml").mkdir()
    with pytest.raises(ConfigError, match=r"issuers\.toml cannot be read: is a directory"):
        read_issuers(tmp_path / "issuers.toml")


@pytest.mark.parametrize("algorithm", ["none", "None", "HS256", "HS512", "RS1", "rs256", "RS256 "])
def test_an_algorithm_by_which_its_reader_could_sign_is_refused(algorithm: str) -> None:
    said = refusal(changed('"RS256"', f'"RS256", "{algorithm}"'))
    assert said.startswith(f"issuers.toml: issuer https://one.example: a token is not to be signed by {algorithm}; ")


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ('name_prefix = "one:"', 'name_prefix = "one:"\nsecret = 1', "unknown field `secret`"),
        ('name_prefix = "one:"', "", "missing required field `name_prefix`"),
        ('name_prefix = "one:"', 'name_prefix = ""', "`$.name_prefix`"),
        ('name_prefix = "one:"', 'name_prefix = "o ne"', "name_prefix: "),
        ('name_prefix = "one:"', 'name_prefix = "tlog/"', "name_prefix: "),
        ('["tlog"]', "[]", "`$.audience`"),
        ('["tlog"]', '"tlog"', "`$.audience`"),
        ('["tlog"]', '[""]', "`$.audience[0]`"),
        ('["RS256"]', "[]", "`$.algorithms`"),
        ('"tlog"', '"\\u0007"', "printable"),
    ],
)
def test_a_wrong_member_is_refused_by_its_name_and_that_of_the_issuer(old: str, new: str, says: str) -> None:
    said = refusal(changed(old, new))
    assert said.startswith("issuers.toml: issuer https://one.example: ")
    assert says in said


@pytest.mark.parametrize(
    "url",
    [
        "http://one.example",
        "http://169.254.169.254",
        "http://127.0.0.1.example",
        "ftp://127.0.0.1",
        "https://",
        "https://user@one.example",
        "https://one.example?a",
        "https://one.example#a",
        "https://one.example:0",
        "https://one.example:port",
        "https://one .example",
        "https://[::1",
        "one.example",
        "file:///etc/passwd",
        "ftp://localhost/keys",
        "http://localhost.example/keys",
    ],
)
def test_keys_are_fetched_over_https_or_from_loopback_only(url: str) -> None:
    for member, document in (
        ("issuer", changed("https://one.example", url)),
        ("jwks_uri", changed("name_prefix", f'jwks_uri = "{url}"\nname_prefix')),
    ):
        assert f": {member}: n" in refusal(document)


@pytest.mark.parametrize("url", ["http://localhost:8080/a", "http://[::1]", "http://127.0.0.2:1", "https://a.example"])
def test_a_url_on_loopback_may_be_plain(url: str) -> None:
    assert parse_issuers(changed("https://one.example", url))[0].issuer == url


def test_an_issuer_whose_keys_are_elsewhere_need_not_be_a_url() -> None:
    document = changed("https://one.example", "kubernetes/serviceaccount").replace(
        b"name_prefix", b'jwks_uri = "https://one.example/keys"\nname_prefix'
    )
    assert parse_issuers(document)[0].issuer == "kubernetes/serviceaccount"


def test_one_issuer_cannot_name_the_principals_of_another() -> None:
    other = ONE.replace("one.example", "two.example").replace('"one:"', '"one:two:"')
    for document in (ONE + other, other + ONE):
        said = refusal(document.encode())
        assert "issuer https://two.example: name_prefix begins as that of https://one.example" in said


def test_an_issuer_is_there_once() -> None:
    assert "issuer https://one.example: it is there twice" in refusal((ONE + ONE).encode())


@pytest.mark.parametrize(
    "document", [b"issuer = 1", b"[issuer]", b"other = 1", b"[[issuers]]", b"\xff", b"[[issuer]", b"issuer = [1]"]
)
def test_what_is_no_list_of_issuers_is_refused(document: bytes) -> None:
    assert refusal(document).startswith("issuers.toml")


@given(st.binary() | st.text().map(str.encode) | st.tuples(st.just(ONE), st.text()).map(lambda t: "".join(t).encode()))
def test_any_bytes_are_issuers_or_an_error(document: bytes) -> None:
    with suppress(ConfigError):
        assert isinstance(parse_issuers(document), tuple)


SIGN_IN = """
[issuer.sign_in]
name = "One"
client_id = "tlog"
redirect_uri = "https://log.example/web/sign-in/return"
"""


def test_a_document_says_how_people_sign_in() -> None:
    [issuer] = parse_issuers((ONE + SIGN_IN).encode())
    assert issuer.sign_in == SignIn(
        name="One", client_id="tlog", redirect_uri="https://log.example/web/sign-in/return", scope="openid"
    )


@pytest.mark.parametrize(
    ("old", "new", "why"),
    [
        ('"tlog"\nredirect', '"other"\nredirect', "client_id is not one of audience, so that no token would be taken"),
        ("https://log", "http://log", "redirect_uri: neither https nor on loopback"),
        ("/return", "/return/", "redirect_uri does not end in /web/sign-in/return"),
        ("/return", "/return?x", "redirect_uri: not a URL"),
        ('name = "One"', 'name = "O\\u0007ne"', "its members consist of printable characters"),
        ('name = "One"', 'name = "One"\nscope = "email"', "scope lacks openid, without which there is no ID token"),
        ('name = "One"', 'name = "One"\nsecret = "x"', "object contains unknown field `secret`"),
        ('name = "One"\n', "", "object missing required field `name`"),
    ],
)
def test_a_sign_in_that_could_not_work_is_refused(old: str, new: str, why: str) -> None:
    assert old in SIGN_IN
    said = refusal((ONE + SIGN_IN.replace(old, new)).encode())
    assert said.startswith("issuers.toml: issuer https://one.example: ")
    assert why in said


@pytest.mark.parametrize("content", [None, "", "two\nlines", "a b", "é", "x" * 1_025])
def test_no_server_starts_without_the_secret_of_a_client(tmp_path: Path, content: str | None) -> None:
    document = ONE + SIGN_IN + 'client_secret_file = "client.secret"\n'
    (tmp_path / "issuers.toml").write_text(document)
    if content is not None:
        (tmp_path / "client.secret").write_text(content)
    with pytest.raises(ConfigError, match=r"issuer https://one\.example: sign_in: client_secret_file"):
        read_issuers(tmp_path / "issuers.toml")
    (tmp_path / "client.secret").write_text("s3cret\n")
    assert read_issuers(tmp_path / "issuers.toml") == document
