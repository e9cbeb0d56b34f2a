import re
from itertools import product
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from policies import Document, write

from tlog.access.action import Role
from tlog.access.document import parse_policy, read_policy
from tlog.access.duties import MAX_COMPARED, share_name, void_roles
from tlog.errors import PolicyError


def admin(**members: Any) -> dict[str, Any]:
    return {"name": "first", "roles": ["admin"], **members}


def auditor(**members: Any) -> dict[str, Any]:
    return {"name": "second", "roles": ["auditor"], **members}


EVERYWHERE = {"segments": ["*"]}
BOB = {"principals": ["bob"]}


def refused(*rules: dict[str, Any]) -> bool:
    try:
        parse_policy(write(list(rules)))
    except PolicyError as error:
        if "of one segment; give one of them to others" not in str(error):
            raise
        return True
    return False


@pytest.mark.parametrize(
    ("roles", "void"),
    [
        ("writer admin", "writer admin"),
        ("admin auditor", "admin auditor"),
        ("writer admin auditor", "writer admin auditor"),
        ("writer admin monitor", "writer admin"),
        ("writer auditor monitor creator approver", ""),
        ("admin monitor creator approver", ""),
        ("", ""),
    ],
)
def test_roles_that_conflict_are_void(roles: str, void: str) -> None:
    assert void_roles(map(Role, roles.split())) == set(map(Role, void.split()))


def test_one_rule_gives_no_roles_that_conflict() -> None:
    both = {"name": "x", "roles": ["admin", "writer"], **BOB, **EVERYWHERE}
    with pytest.raises(PolicyError) as caught:
        parse_policy(write([both]))
    assert str(caught.value) == (
        'line 1: rule "x" makes one principal both writer and admin of one segment; give one of them to others'
    )
    assert (caught.value.line, caught.value.rule) == (1, "x")


def test_the_refusal_names_both_rules_and_their_lines() -> None:
    with pytest.raises(PolicyError) as caught:
        parse_policy(write([auditor(**BOB, **EVERYWHERE), admin(**BOB, **EVERYWHERE)]))
    assert str(caught.value) == (
        'line 7: rule "second" (line 1) and rule "first" make one principal both admin and auditor of one segment; '
        "give one of them to others"
    )


@pytest.mark.parametrize(
    ("one", "other", "overlap"),
    [
        (BOB, {"principals": ["eve", "bob"]}, True),
        (BOB, {"principals": ["eve"]}, False),
        ({"groups": ["g", "h"]}, {"groups": ["g"]}, True),
        ({"groups": ["g"]}, {"groups": ["h"]}, False),
        (BOB, {"groups": ["g"]}, False),
        (BOB, BOB | {"groups": ["g"]}, True),
        (BOB | {"groups": ["g"]}, {"principals": ["eve"], "groups": ["g"]}, False),
        ({"claims": {"ns": "a"}}, {"claims": {"ns": ["b", "a"]}}, True),
        ({"claims": {"ns": "a"}}, {"claims": {"ns": "b"}}, False),
        ({"claims": {"ns": "a"}}, {"claims": {"ns": "*"}}, True),
        ({"claims": {"ns": "*"}}, {"claims": {"aud": "*"}}, False),
    ],
)
def test_rules_overlap_that_provably_name_one_principal(
    one: dict[str, Any], other: dict[str, Any], overlap: bool
) -> None:
    assert refused(admin(**one, **EVERYWHERE), auditor(**other, **EVERYWHERE)) == overlap
    assert refused(admin(**other, **EVERYWHERE), auditor(**one, **EVERYWHERE)) == overlap


@pytest.mark.parametrize(
    ("one", "other", "overlap"),
    [
        ({"segments": ["a*"]}, {"segments": ["*b"]}, True),
        ({"segments": ["a*"]}, {"segments": ["b*", "c"]}, False),
        ({"segments": ["a-{ns}"]}, {"segments": ["a-b"]}, True),
        ({"segments": ["control"]}, {"segments": ["*"]}, False),
        ({"segments": ["control"]}, {"segments": ["x", "control"]}, True),
        ({"segments": ["control"]}, {"labels": {"env": "prod"}}, False),
        ({"segments": ["a"]}, {"labels": {"env": "prod"}}, True),
        ({"labels": {"env": "prod"}}, {"labels": {"env": "test"}}, False),
        ({"labels": {"env": "prod"}}, {"labels": {"team": "pay"}}, True),
        ({"labels": {"env": "{ns}"}}, {"labels": {"env": "test"}}, True),
        ({"segments": ["a"], "labels": {"env": "prod"}}, {"segments": ["a"], "labels": {"env": "test"}}, False),
    ],
)
def test_rules_overlap_that_may_select_one_segment(one: dict[str, Any], other: dict[str, Any], overlap: bool) -> None:
    assert refused(admin(**BOB, **one), auditor(**BOB, **other)) == overlap
    assert refused(admin(**BOB, **other), auditor(**BOB, **one)) == overlap


def test_only_rules_that_allow_count() -> None:
    assert not refused(admin(**BOB, **EVERYWHERE), auditor(**BOB, **EVERYWHERE, effect="deny"))


def test_an_expired_rule_counts() -> None:
    document = write([admin(**BOB, **EVERYWHERE), auditor(**BOB, **EVERYWHERE)])
    with pytest.raises(PolicyError, match="one principal both"):
        parse_policy(document + b"expires = 1980-01-01T00:00:00Z\n")


@pytest.mark.parametrize("roles", [("writer", "auditor"), ("admin", "monitor"), ("creator", "admin")])
def test_other_roles_go_together(roles: tuple[str, str]) -> None:
    rules: Document = [{"name": role, "roles": [role], **BOB, **EVERYWHERE} for role in roles]
    assert not refused(*rules)


# Long enough for a name that fits both patterns, if there is one: each character of either, once.
NAMES = ["".join(name) for length in range(9) for name in product("ab", repeat=length)]


@settings(max_examples=300, deadline=None)
@given(st.text("ab*", max_size=4), st.text("ab*", max_size=4))
def test_two_patterns_overlap_if_some_name_fits_both(one: str, other: str) -> None:
    def fits(pattern: str) -> set[str]:
        return {name for name in NAMES if re.fullmatch(pattern.replace("*", ".*"), name)}

    assert share_name(one, other) == share_name(other, one) == bool(fits(one) & fits(other))


@pytest.mark.long
def test_a_policy_of_ten_thousand_rules_is_taken_where_each_namespace_has_its_own() -> None:
    """As what makes policies by itself would write it; all compared with all would be 25 million pairs."""
    for who in ("groups", "principals", "claims"):
        rules = [
            {
                "name": str(number),
                "roles": [role],
                who: {"namespace": f"n{number}"} if who == "claims" else [f"n{number}"],
                **EVERYWHERE,
            }
            for number, role in enumerate(["writer", "admin"] * 5_000)
        ]
        assert not refused(*rules)
        # And is looked through to the end: the last writer is made the last admin.
        rules[-1][who] = rules[-2][who]
        assert refused(*rules)


def test_a_policy_that_would_take_long_to_check_is_refused_and_says_where() -> None:
    def policy(count: int) -> bytes:
        return write(
            [
                {"name": str(number), "roles": [role], "groups": ["g"], "segments": [f"s{number}"]}
                for number, role in enumerate(["writer", "admin"] * count)
            ]
        )

    most = int(MAX_COMPARED**0.5)
    parse_policy(policy(most))
    with pytest.raises(PolicyError, match="more than 1000000 pairs of patterns are to be compared") as caught:
        parse_policy(policy(most + 1))
    assert caught.value.rule == str(2 * (most - 1))
    patterns = [f"s{number}" for number in range(most + 1)]
    others = [f"t{number}" for number in range(most)]
    with pytest.raises(PolicyError, match="fewer rules"):
        parse_policy(write([admin(groups=["g"], segments=patterns), auditor(groups=["g"], segments=others)]))


def test_a_policy_in_force_is_not_checked_for_duties_again() -> None:
    """Every worker reads it, in the middle of requests; and what conflicts is void anyway."""
    assert len(read_policy(write([admin(**BOB, **EVERYWHERE), auditor(**BOB, **EVERYWHERE)])).rules) == 2
