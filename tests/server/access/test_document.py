import textwrap
import time
from ipaddress import ip_network

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from policies import write

from tlog.access.action import Role
from tlog.access.document import parse_policy
from tlog.access.lines import header_lines, member_line
from tlog.access.rule import Each, Policy, Quota, Rule, Where, Who
from tlog.access.tables import MAX_POLICY_BYTES, MAX_RULES
from tlog.errors import PolicyError

FULL = b"""\
# a comment with [[rule]] in it
[[rule]]
name = "one"
roles = ["writer", "monitor"]
effect = "allow"
principals = ["ci-bot"]
groups = ["developers"]
expires = 2026-12-31T01:00:00+01:00
networks = ["10.0.0.0/8", "::1/128"]
segments = ["payments", "k8s-{kubernetes.io/namespace}-*"]
labels = { env = "prod", namespace = "{kubernetes.io/namespace}" }
claims = { "kubernetes.io/namespace" = "payments", aud = ["a", "*"] }

[[quota]]
name = "one"
each = "segment"
requests_per_second = 5

[[rule]]
name = "two"
effect = "deny"
roles = ["auditor"]
groups = ["[[rule]]"]
segments = ["*"]
"""


def test_a_document_says_what_its_members_say() -> None:
    policy = parse_policy(FULL)
    assert policy == Policy(
        rules=(
            Rule(
                name="one",
                line=2,
                roles=frozenset({Role.WRITER, Role.MONITOR}),
                allows=True,
                who=Who(
                    principals=frozenset({"ci-bot"}),
                    groups=frozenset({"developers"}),
                    claims=(
                        ("aud", frozenset({"a", "*"})),
                        ("kubernetes.io/namespace", frozenset({"payments"})),
                    ),
                ),
                where=Where(
                    segments=("payments", "k8s-{kubernetes.io/namespace}-*"),
                    labels=(("env", "prod"), ("namespace", "{kubernetes.io/namespace}")),
                ),
                expires=1_798_675_200_000,
                networks=(ip_network("10.0.0.0/8"), ip_network("::1/128")),
            ),
            Rule(
                name="two",
                line=19,
                roles=frozenset({Role.AUDITOR}),
                allows=False,
                who=Who(groups=frozenset({"[[rule]]"})),
                where=Where(segments=("*",)),
            ),
        ),
        quotas=(Quota("one", 14, Who(), Each.SEGMENT, None, 5, None),),
    )


def test_no_document_is_too_empty() -> None:
    assert parse_policy(b"") == parse_policy(b"# nothing\r\n") == Policy()


# Each begins on line 1 with a rule, and a rule "It" on line 7; the fault goes to line 9.
BEFORE = """\
[[rule]]
name = "first" # ]]
roles = ["monitor"]
anyone = true
segments = ["*"]

[[rule]]
name = "It"
"""


@pytest.mark.parametrize(
    ("members", "line", "message"),
    [
        ('rolls = ["monitor"]', 9, "rolls: there is no such member, only name, principals, groups, claims, "),
        ('Roles = ["monitor"]', 9, "Roles: there is no such member"),
        ('"a\\u0007b" = 1', 9, "a?b: there is no such member"),
        ("roles = 3", 9, "roles: expected `array`, got `int`"),
        ("roles = []", 9, "roles: expected `array` of length >= 1"),
        ('roles = ["monitors"]', 9, "roles: 'monitors' is none of writer, monitor, auditor, admin, creator, approver"),
        ('effect = "permit"', 9, "effect: 'permit' is none of allow, deny"),
        ('principals = "bob"', 9, "principals: expected `array | null`, got `str`"),
        ("principals = []", 9, "principals: expected `array` of length >= 1"),
        ('principals = [""]', 9, "principals: expected `str` of length >= 1"),
        ('principals = ["anonymous"]', 9, "anonymous is who shows no credential; say anyone = true"),
        ('principals = ["a\\nb"]', 9, "what is named consists of printable characters"),
        ("groups = [1]", 9, "groups: expected `str`, got `int`"),
        ("claims = {}", 9, "claims: expected `object` of length >= 1"),
        ("claims = { a = [] }", 9, "claims: expected `array` of length >= 1"),
        ('claims = { a = { b = "c" } }', 9, "claims: expected `str | array`, got `object`"),
        ("claims.a.b = 3", 9, "claims: expected `str | array`, got `object`"),
        ('claims = { "" = "a" }', 9, "claims: expected `str` of length >= 1"),
        ("anyone = 1", 9, "anyone: expected `bool | null`, got `int`"),
        ("anyone = false", 9, "anyone is true, and stands instead of principals, groups and claims"),
        ('segments = ["Payments"]', 9, "'Payments' is no pattern of a-z, 0-9, -, * and {claim}"),
        ('segments = ["a{b"]', 9, "'a{b' is no pattern of a-z, 0-9, -, * and {claim}"),
        ('segments = ["a\\n"]', 9, "'a\\n' is no pattern of a-z, 0-9, -, * and {claim}"),
        ("segments = []", 9, "segments: expected `array` of length >= 1"),
        ('labels = { Env = "prod" }', 9, "'Env' is no key of a label"),
        ('labels = { env = "{a" }', 9, "the braces in '{a' are not those of a {claim}"),
        ("labels = { env = 1 }", 9, "labels: expected `str`, got `int`"),
        ("labels = {}", 9, "labels: expected `object` of length >= 1"),
        ('expires = "2026-12-31T00:00:00Z"', 9, "expires: expected `datetime | null`, got `str`"),
        ("expires = 2026-12-31T00:00:00", 9, "expires: expected `datetime` with a timezone component"),
        ("expires = 2026-12-31", 9, "expires: expected `datetime | null`, got `date`"),
        ('networks = ["10.0.0.0/33"]', 9, "'10.0.0.0/33' is no network such as 10.0.0.0/8 or ::1/128"),
        ('networks = ["10.0.0.1/8"]', 9, "'10.0.0.1/8' is no network such as 10.0.0.0/8 or ::1/128"),
        ('networks = ["10.0.0.1"]', 9, "write '10.0.0.1' as 10.0.0.1/32"),
        ('networks = ["::ffff:10.0.0.0/104"]', 9, "write ::ffff:10.0.0.0/104 as a network of IPv4"),
        ("networks = []", 9, "networks: expected `array` of length >= 1"),
        ('[rule.claims]\nname = ""', 9, "claims: expected `str` of length >= 1"),
    ],
)
def test_an_error_names_the_rule_and_the_line(members: str, line: int, message: str) -> None:
    rest = {"roles": '["auditor"]', "groups": '["g"]', "segments": '["*"]'}
    said = "\n".join(f"{k} = {v}" for k, v in rest.items() if not members.startswith(k))
    place = f"{said}\n{members}" if members.startswith("[") else f"{members}\n{said}"
    line += len(rest) if members.startswith("[") else 0
    with pytest.raises(PolicyError) as caught:
        parse_policy(f"{BEFORE}{place}\n".encode())
    assert (caught.value.line, caught.value.rule) == (line, "It")
    assert str(caught.value).startswith(f'line {line}: rule "It": ')
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("text", "line", "rule", "message"),
    [
        ('[[rule]]\nroles = ["admin"]', 1, None, "rule 1: object missing required field `name`"),
        ('[[rule]]\nname = ""', 2, None, "rule 1: name: expected `str` of length >= 1"),
        ("[[rule]]\nname = 5", 2, None, "rule 1: name: expected `str`, got `int`"),
        (f'[[rule]]\nname = "{"x" * 129}"', 2, None, "rule 1: name: expected `str` of length <= 128"),
        ('[[rule]]\nname = "x"', 1, "x", 'rule "x": object missing required field `roles`'),
        ('[[rule]]\nname = "x"\nroles = ["admin"]\nsegments = ["*"]', 1, "x", 'rule "x": say who'),
        ('[[rule]]\nname = "x"\nroles = ["admin"]\ngroups = ["a"]', 1, "x", 'rule "x": say where'),
        ("rule = 3", 1, None, "rule: expected `array`"),
        ('\n[rule]\nname = "x"', 2, None, "rule: expected `array`"),
        ("#\nrule = [\n{}]", 2, None, "rule 1: object missing required field `name`"),
        ("#\nrules = []", 2, None, "rules: there is no such member, only rule, quota"),
        ("#\n[[rules]]\n", 2, None, "rules: there is no such member"),
        ("#\n[rules.a]\n", 2, None, "rules: there is no such member"),
        ("#\nx = [[", 2, None, "not TOML: invalid value"),
        ("#\nx = 1 2\n", 2, None, "not TOML: expected newline or end of document after a statement"),
        ("#\n[[rule]]\nname='a'\nname='b'\n", 4, None, "not TOML: cannot overwrite a value"),
        ("a" + ".a" * 500_000 + " = 1", None, None, "a key of more parts than any"),
    ],
)
def test_an_error_outside_of_rules_names_the_line(text: str, line: int | None, rule: str | None, message: str) -> None:
    with pytest.raises(PolicyError) as caught:
        parse_policy(text.encode())
    assert (caught.value.line, caught.value.rule) == (line, rule)
    assert message in str(caught.value)


def test_a_rule_stands_under_a_header_of_its_own() -> None:
    inline = b'#\nrule = [{name = "x", roles = ["monitor"], anyone = true, segments = ["*"]}]'
    with pytest.raises(PolicyError, match=r"line 2: write each rule under a header of its own, \[\[rule\]\]"):
        parse_policy(inline)


@pytest.mark.parametrize("kind", ["rule", "quota"])
def test_names_are_unique_and_printable(kind: str) -> None:
    rule = {"name": "x", "roles": ["monitor"], "anyone": True, "segments": ["*"]}
    quota = {"name": "x", "each": "segment", "bytes_per_second": 1}
    table = {"rule": rule, "quota": quota}[kind]
    twice = {"rule": write([table, table]), "quota": write([], [table, table])}[kind]
    with pytest.raises(PolicyError, match=f'line {len(table) + 4}: {kind} "x": another {kind} has this'):
        parse_policy(twice)
    odd = table | {"name": "\u202ex"}
    with pytest.raises(PolicyError, match=f'line 2: {kind} "\\?x": a name consists of printable characters'):
        parse_policy(write([odd]) if kind == "rule" else write([], [odd]))


@pytest.mark.parametrize("role", [role.value for role in Role if role is not Role.MONITOR])
def test_anyone_is_a_monitor_and_nothing_else(role: str) -> None:
    public = {"name": "x", "roles": ["monitor"], "anyone": True, "segments": ["*"]}
    parse_policy(write([public]))
    for wrong in ({"roles": ["monitor", role]}, {"roles": [role]}, {"effect": "deny"}, {"groups": ["g"]}):
        with pytest.raises(PolicyError, match=r'line \d: rule "x": anyone (can be|is true)'):
            parse_policy(write([public | wrong]))


@pytest.mark.parametrize(
    ("members", "line", "message"),
    [
        ({"each": "segment"}, 1, "say how much"),
        ({"each": "network", "bytes_per_second": 1}, 3, "each: 'network' is none of principal, segment"),
        ({"bytes_per_second": 1}, 1, "say who shares it"),
        ({"each": "segment", "groups": ["g"], "bytes_per_second": 1}, 3, "say who shares it"),
        ({"each": "segment", "bytes_per_second": 0}, 4, "expected `float` > 0"),
        ({"each": "segment", "bytes_per_second": True}, 4, "expected `float | null`, got `bool`"),
        ({"each": "segment", "requests_per_second": -1}, 4, "expected `float` > 0"),
        (
            {"each": "segment", "bytes_per_second": 1, "roles": ["writer"]},
            5,
            "roles: there is no such member, only name, ",
        ),
        ({"each": "segment", "segments": ["A"], "bytes_per_second": 1}, 4, "is no pattern"),
    ],
)
def test_an_error_names_the_quota_and_the_line(members: dict[str, object], line: int, message: str) -> None:
    with pytest.raises(PolicyError, match=f'line {line}: quota "x": ') as caught:
        parse_policy(write([], [{"name": "x", **members}]))
    assert message in str(caught.value)


@pytest.mark.parametrize("rate", ["inf", "nan"])
def test_a_rate_is_a_number_above_0(rate: str) -> None:
    with pytest.raises(PolicyError, match='line 4: quota "x": '):
        parse_policy(f'[[quota]]\nname = "x"\neach = "segment"\nbytes_per_second = {rate}'.encode())


def test_a_document_has_bounds() -> None:
    assert parse_policy(b"#" + b" " * (MAX_POLICY_BYTES - 1)) == Policy()
    with pytest.raises(PolicyError, match="at most 1048576 bytes"):
        parse_policy(b"#" + b" " * MAX_POLICY_BYTES)
    with pytest.raises(PolicyError, match="line 1: rule: expected `array` of length <= 10000"):
        parse_policy(b"[[rule]]\n" * (MAX_RULES + 1))


def test_bytes_that_are_not_text_are_refused_with_their_line() -> None:
    with pytest.raises(PolicyError, match="line 2: a policy is UTF-8"):
        parse_policy(b"#\n#\xff")


def test_a_document_of_many_rules_is_read_in_seconds() -> None:
    rules = [
        {"name": f"{n}", "roles": ["auditor" if n % 2 else "admin"], "principals": [f"p{n}"], "segments": [f"s{n}-*"]}
        for n in range(9_000)
    ]
    raw = write(rules)
    assert len(raw) > MAX_POLICY_BYTES * 0.7
    begin = time.process_time()
    assert len(parse_policy(raw).rules) == 9_000
    assert time.process_time() - begin < 20


# -- any bytes at all


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=200) | st.text(max_size=200).map(str.encode))
@example(b"[" * 100_000)
@example(b"x = " + b"[" * 100_000)
@example(b"x = " + b"9" * 5_000)
@example(b'"x` - at `$.rule[0].name" = 1')
@example(b"[[rule]]\nname = 'x'\nroles = ['x` - at `$.quota[7].name']")
@example(b"[[rule]]\n'x` - at `$.quota[7].name' = 1")
@example(b"[[quota]]\nname = 'x'\neach = 'segment'\nbytes_per_second = 1" + b"0" * 400)
@example(b"x = 2026-13-01")
@example(b'x = """' + b'\\"' * 100_000)
@example(b"\xef\xbb\xbf")
@example(b"[[rule]]\n[[rule.name]]\n")
@example(b"[[rule]]\n[rule.labels]\n[[quota]]\n")
def test_any_bytes_are_a_policy_or_an_error_of_policies(raw: bytes) -> None:
    _parse_or_refuse(raw)


PARTS = st.sampled_from(
    [b"", b"\n", b'"', b"'", b"[", b"]", b"[[rule]]\n", b"[[quota]]\n", b"#", b"{", b"}", b"=", b"\\", b"\xff", b'"""',
     b"'''", b"[rule.labels]\n", b"rule", b"0", b"*", b".", b"expires = 0001-01-01T00:00:00+23:59\n", b"x = 1\n",
     b"networks = ['fe80::%1/64']\n", b"1e999"]
)  # fmt: skip


@settings(max_examples=500, deadline=None)
@given(st.lists(st.tuples(st.integers(0, len(FULL)), st.integers(0, 12), PARTS), min_size=1, max_size=4))
def test_a_spoiled_document_is_a_policy_or_an_error_of_policies(edits: list[tuple[int, int, bytes]]) -> None:
    raw = FULL
    for place, cut, put in edits:
        raw = raw[:place] + put + raw[place + cut :]
    _parse_or_refuse(raw)


def _parse_or_refuse(raw: bytes) -> None:
    lines = raw.split(b"\n")
    try:
        places = [(rule.line, b"rule") for rule in parse_policy(raw).rules]
    except PolicyError as refusal:
        assert str(refusal).isprintable()  # noqa: PT017
        places = [(refusal.line or 1, b"")]
    assert all(line >= 1 and word in lines[line - 1] for line, word in places)


# -- lines


def test_lines_are_those_of_tables_and_not_of_what_looks_like_them() -> None:
    text = textwrap.dedent('''\
        a = """
        [[rule]]
        \\""" [[rule]] """"" # "
        b = [
          [[ "rule" ]],
        [["]"], ["""]"""", """]"]"""]] # ]]
        ]
        c = \'\'\'
        [[rule]] \'\'\'\'
        [[ "r\\u0075le" ]] # the first
        name = { x = "}" }
        [rule.inner]
        name = 1
        other = 2
        [[quota]]
        name = 2
        [[rule]]
        [[rule.rule]]
        name = 3
        """rule"""
        ''').replace('"""rule"""\n', "")
    assert header_lines(text, "rule") == [10, 17]
    assert member_line(text, "name", "rule", 0) == 11
    assert member_line(text, "inner", "rule", 0) == 12
    assert member_line(text, "other", "rule", 0) == 10
    assert member_line(text, "name", "rule", 1) == 17
    assert member_line(text, "rule", "rule", 1) == 18
    assert member_line(text, "name", "quota", 0) == 16
    assert member_line(text, "c") == 8
    assert member_line(text, "none") == 1
