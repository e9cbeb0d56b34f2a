import re
from ipaddress import IPv4Address, IPv6Address, ip_address
from pathlib import Path
from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from policies import Document, allowed, moment, naive_decide, write
from random_policies import LABELS, NAMES, NOW, PRINCIPALS, SEGMENTS, random_rules

from tlog.access.action import Action, Role
from tlog.access.document import parse_policy
from tlog.access.policy import MAX_CACHED, Decider, Decision, decide
from tlog.access.principal import ANONYMOUS, Principal
from tlog.access.rule import Grant, Policy, Target
from tlog.errors import PolicyError

BOB = Principal("bob")


def ask(
    rules: Document,
    principal: Principal,
    action: Action,
    target: Target | None,
    *,
    now: int = NOW,
    address: IPv4Address | IPv6Address | None = None,
    grants: tuple[Grant, ...] = (),
) -> Decision:
    return decide(parse_policy(write(rules)), principal, action, target, now=now, address=address, grants=grants)


def rule(**members: Any) -> dict[str, Any]:
    return {"name": "it", "roles": ["auditor"], "principals": ["bob"], "segments": ["*"], **members}


# -- roles


@pytest.mark.parametrize("segment", ["payments", "control", "access"])
@pytest.mark.parametrize("role", [role.value for role in Role])
def test_a_role_lets_one_do_what_the_table_says_and_nothing_else(role: str, segment: str) -> None:
    decider = Decider(parse_policy(write([rule(roles=[role], segments=["*", "control", "access"])])))
    can = {a.value for a in Action if decider.decide(BOB, a, Target(segment), now=NOW, address=None).allowed}
    assert can == allowed(role, segment) | {"server:operate", "segment:list", "event:ingest"}


def test_an_empty_policy_refuses_everything_that_is_not_open_to_all() -> None:
    decider = Decider(Policy())
    can = {
        a
        for a in Action
        for target in (None, Target("a"))
        if decider.decide(BOB, a, target, now=NOW, address=None).allowed
    }
    assert can == {Action.OPERATE, Action.LIST_SEGMENTS, Action.INGEST}


@pytest.mark.parametrize("segment", ["control", "access"])
@pytest.mark.parametrize("action", [Action.APPEND, Action.CREATE_SEGMENT, Action.SEAL_SEGMENT])
def test_nobody_writes_creates_or_seals_a_reserved_segment(segment: str, action: Action) -> None:
    decision = ask([rule(roles=["writer", "creator"], segments=[segment])], BOB, action, Target(segment))
    assert not decision.allowed
    assert segment in decision.reason


def test_what_names_no_segment_is_decided_on_control() -> None:
    here = [rule(roles=["admin"], segments=["control"])]
    assert ask(here, BOB, Action.APPLY_POLICY, None).allowed
    assert not ask([rule(roles=["admin"])], BOB, Action.APPLY_POLICY, None).allowed


# -- where


@pytest.mark.parametrize("pattern", ["*", "c*", "contro*", "{ns}"])
def test_only_its_whole_name_selects_a_reserved_segment(pattern: str) -> None:
    principal = Principal("bob", claims=(("ns", "control"),))
    assert not ask([rule(segments=[pattern])], principal, Action.READ_PAYLOAD, Target("control")).allowed


def test_labels_alone_select_no_reserved_segment() -> None:
    labelled = {"name": "it", "roles": ["auditor"], "principals": ["bob"], "labels": {"env": "prod"}}
    target = Target("access", (("env", "prod"),))
    assert not ask([labelled], BOB, Action.READ_PAYLOAD, target).allowed


@pytest.mark.parametrize(
    ("claims", "segment", "may"),
    [
        ([("ns", "pay")], "k8s-pay-a", True),
        ([("ns", "pay")], "k8s-pays-a", False),
        ([("ns", "*")], "k8s-pay-a", False),
        ([("ns", "Pay")], "k8s-Pay-a", False),
        ([("ns", "")], "k8s--a", False),
        ([("ns", "pay\n")], "k8s-pay-a", False),
        ([("ns", "pay"), ("ns", "pay-2")], "k8s-pay-a", False),
        ([("other", "pay")], "k8s-pay-a", False),
    ],
)
def test_a_claim_in_a_pattern_stands_for_its_one_plain_value(
    claims: list[tuple[str, str]], segment: str, may: bool
) -> None:
    rules = [rule(segments=["k8s-{ns}-*"])]
    principal = Principal("bob", claims=tuple(claims))
    assert ask(rules, principal, Action.READ_PAYLOAD, Target(segment)).allowed == may


@pytest.mark.parametrize(
    ("pattern", "name", "may"),
    [
        ("a*b*c", "abc", True),
        ("a*b*c", "a-b-b-c", True),
        ("a*b*c", "acb", False),
        ("aba*aba", "aba", False),
        ("aba*aba", "abaaba", True),
        ("**", "x", True),
        ("x", "x", True),
        ("x", "xx", False),
    ],
)
def test_a_star_stands_for_any_run_of_characters(pattern: str, name: str, may: bool) -> None:
    assert ask([rule(segments=[pattern])], BOB, Action.READ_PAYLOAD, Target(name)).allowed == may


def test_all_labels_must_be_on_the_segment() -> None:
    rules = [rule(labels={"env": "prod", "team": "pay"})]
    assert ask(rules, BOB, Action.READ_PAYLOAD, Target("s", (("env", "prod"), ("team", "pay"), ("x", "y")))).allowed
    assert not ask(rules, BOB, Action.READ_PAYLOAD, Target("s", (("env", "prod"),))).allowed


# -- creating


def test_a_segment_is_created_with_just_the_labels_of_the_rule() -> None:
    principal = Principal("bob", claims=(("ns", "pay"),))
    rules = [rule(roles=["creator"], segments=["k8s-*"], labels={"namespace": "{ns}"})]
    own, other, more = (("namespace", "pay"),), (("namespace", "hr"),), (("env", "prod"), ("namespace", "pay"))
    may = [ask(rules, principal, Action.CREATE_SEGMENT, Target("k8s-a", x)).allowed for x in (own, other, more, ())]
    assert may == [True, False, False, False]


def test_without_labels_in_the_rule_a_segment_is_created_without_labels() -> None:
    rules = [rule(roles=["creator"])]
    assert ask(rules, BOB, Action.CREATE_SEGMENT, Target("a")).allowed
    assert not ask(rules, BOB, Action.CREATE_SEGMENT, Target("a", (("env", "prod"),))).allowed


def test_a_label_more_does_not_evade_a_rule_that_denies_creating() -> None:
    rules = [
        rule(name="may", roles=["creator"], labels={"env": "prod", "team": "pay"}),
        rule(name="may not", roles=["creator"], labels={"env": "prod"}, effect="deny"),
    ]
    target = Target("a", (("env", "prod"), ("team", "pay")))
    decision = ask(rules, BOB, Action.CREATE_SEGMENT, target)
    assert (decision.allowed, decision.reason) == (False, 'rule "may not" (line 8) denies it')


# -- when and whence


def test_a_rule_is_void_from_the_moment_it_expires() -> None:
    rules = [rule(expires=moment(NOW))]
    assert ask(rules, BOB, Action.READ_PAYLOAD, Target("a"), now=NOW - 1).allowed
    decision = ask(rules, BOB, Action.READ_PAYLOAD, Target("a"), now=NOW)
    assert (decision.allowed, decision.reason) == (False, 'rule "it" (line 1) would allow it, but has expired')


@pytest.mark.parametrize(
    ("address", "may"),
    [("10.1.2.3", True), ("11.1.2.3", False), ("::ffff:10.1.2.3", True), ("::1", True), ("::2", False), (None, False)],
)
def test_a_rule_for_networks_holds_for_requests_from_there(address: str | None, may: bool) -> None:
    rules = [rule(networks=["10.0.0.0/8", "::1/128"])]
    source = None if address is None else ip_address(address)
    assert ask(rules, BOB, Action.READ_PAYLOAD, Target("a"), address=source).allowed == may


@pytest.mark.parametrize(
    ("address", "may"), [("10.1.2.3", False), ("::ffff:10.1.2.3", False), ("11.1.2.3", True), (None, False)]
)
def test_an_unknown_address_is_denied_what_some_network_is(address: str | None, may: bool) -> None:
    rules = [rule(name="may"), rule(name="may not", effect="deny", networks=["10.0.0.0/8"])]
    source = None if address is None else ip_address(address)
    assert ask(rules, BOB, Action.READ_PAYLOAD, Target("a"), address=source).allowed == may


# -- separation of duties and grants


def test_who_is_admin_and_auditor_by_two_groups_is_neither() -> None:
    rules = [
        rule(name="x", roles=["admin"], principals=["bob", "eve"]),
        {"name": "y", "roles": ["auditor"], "groups": ["audit"], "segments": ["a"]},
    ]
    both = Principal("bob", frozenset({"audit"}))
    decision = ask(rules, both, Action.READ_PAYLOAD, Target("a"))
    assert not decision.allowed
    assert decision.reason == (
        'one principal may not be admin by rule "x" and auditor by rule "y", so these roles are void here'
    )
    assert not ask(rules, both, Action.SEAL_SEGMENT, Target("a")).allowed
    assert ask(rules, both, Action.SEAL_SEGMENT, Target("b")).allowed
    assert ask(rules, Principal("eve"), Action.SEAL_SEGMENT, Target("a")).allowed


@pytest.mark.parametrize(
    ("member", "may"),
    [({"expires": moment(NOW)}, True), ({"networks": ["192.0.2.0/24"]}, False), ({"effect": "deny"}, True)],
)
def test_a_role_held_from_other_networks_conflicts_and_one_that_expired_or_is_denied_does_not(
    member: dict[str, Any], may: bool
) -> None:
    rules = [rule(roles=["admin"]), {"name": "y", "roles": ["auditor"], "groups": ["g"], "segments": ["*"], **member}]
    both = Principal("bob", frozenset({"g"}))
    assert ask(rules, both, Action.SEAL_SEGMENT, Target("a"), address=IPv4Address("10.0.0.1")).allowed == may


def test_a_grant_lets_one_read_payloads_of_one_segment_for_a_while() -> None:
    grants = (Grant("bob", "a", NOW + 1),)
    decision = ask([], BOB, Action.READ_PAYLOAD, Target("a"), grants=grants)
    assert (decision.allowed, decision.rule) == (True, None)
    assert decision.reason == "a break-glass grant allows it until 2027-01-15 08:00:00.001000+00:00"
    assert not ask([], BOB, Action.READ_PAYLOAD, Target("b"), grants=grants).allowed
    assert not ask([], BOB, Action.APPEND, Target("a"), grants=grants).allowed
    assert not ask([], Principal("eve"), Action.READ_PAYLOAD, Target("a"), grants=grants).allowed
    assert not ask([], BOB, Action.READ_PAYLOAD, Target("a"), grants=grants, now=NOW + 1).allowed


def test_nobody_is_granted_anything_without_a_credential() -> None:
    grants = (Grant("anonymous", "a", NOW + 1),)
    assert not ask([], ANONYMOUS, Action.READ_PAYLOAD, Target("a"), grants=grants).allowed


def test_a_denial_wins_over_a_grant() -> None:
    grants = (Grant("bob", "a", NOW + 1),)
    assert not ask([rule(effect="deny")], BOB, Action.READ_PAYLOAD, Target("a"), grants=grants).allowed


def test_a_grant_to_an_admin_makes_both_roles_void() -> None:
    grants = (Grant("bob", "a", NOW + 1),)
    decision = ask([rule(roles=["admin"])], BOB, Action.READ_PAYLOAD, Target("a"), grants=grants)
    assert not decision.allowed
    assert "auditor by a grant" in decision.reason
    assert not ask([rule(roles=["admin"])], BOB, Action.SEAL_SEGMENT, Target("a"), grants=grants).allowed


# -- quotas


def test_a_request_draws_on_every_quota_that_covers_it() -> None:
    quotas: Document = [
        {"name": "each", "each": "principal", "requests_per_second": 5},
        {"name": "bob", "principals": ["bob"], "segments": ["a*"], "bytes_per_second": 1.5},
    ]
    decider = Decider(parse_policy(write([], quotas)))
    assert [quota.name for quota in decider.quotas(BOB, Target("ab"))] == ["each", "bob"]
    assert [quota.name for quota in decider.quotas(Principal("eve"), Target("ab"))] == ["each"]
    assert [quota.name for quota in decider.quotas(BOB, None)] == ["each"]


def test_what_is_kept_at_hand_is_bounded() -> None:
    decider = Decider(parse_policy(write([rule(segments=["1*"])])))
    for number in range(MAX_CACHED + 2):
        decider.quotas(BOB, Target(str(number)))
    assert decider.decide(BOB, Action.READ_PAYLOAD, Target("1"), now=NOW, address=None).allowed
    assert len(decider._found) <= MAX_CACHED


# -- the worked policy of the specification


def worked_policy() -> Policy:
    page = (Path(__file__).parents[3] / "spec" / "access.md").read_text("utf-8")
    blocks = re.findall(r"```toml\n(.*?)```", page, re.DOTALL)
    return parse_policy(blocks[-1].encode())


DEVELOPER = Principal("dev@example.com", frozenset({"developers"}))
COMPLIANCE = Principal("officer@example.com", frozenset({"compliance"}))
MONITOR = Principal("outside-monitor")
PLATFORM = Principal("ops@example.com", frozenset({"platform"}))
APPLICATION = Target("shop", (("kind", "application"),))
SECURITY = Target("logins", (("kind", "security"),))


CLUSTER = "https://kubernetes.default.svc.cluster.local"


def pod(namespace: str, issuer: str = CLUSTER) -> Principal:
    claims = (("iss", issuer), ("kubernetes.io/namespace", namespace))
    return Principal(f"pod-of-{namespace}", claims=claims)


def of_namespace(name: str, namespace: str) -> Target:
    return Target(name, (("kind", "application"), ("namespace", namespace)))


@pytest.mark.parametrize(
    ("principal", "action", "target", "may"),
    [
        (DEVELOPER, Action.READ_PAYLOAD, APPLICATION, True),
        (DEVELOPER, Action.READ_PAYLOAD, SECURITY, False),
        (DEVELOPER, Action.READ_TILE, SECURITY, False),
        (COMPLIANCE, Action.READ_PAYLOAD, SECURITY, True),
        (COMPLIANCE, Action.READ_PAYLOAD, APPLICATION, True),
        (COMPLIANCE, Action.APPEND, SECURITY, False),
        (COMPLIANCE, Action.READ_PAYLOAD, Target("access"), True),
        (COMPLIANCE, Action.READ_PAYLOAD, Target("control"), True),
        (DEVELOPER, Action.READ_PAYLOAD, Target("access"), False),
        (PLATFORM, Action.READ_PAYLOAD, Target("control"), False),
        (Principal("both", frozenset({"developers", "compliance"})), Action.READ_PAYLOAD, SECURITY, False),
        (pod("pay"), Action.APPEND, of_namespace("k8s-pay-web", "pay"), True),
        (pod("pay"), Action.APPEND, of_namespace("k8s-hr-web", "hr"), False),
        (pod("a"), Action.APPEND, of_namespace("k8s-a-b-web", "a-b"), False),
        (pod("pay"), Action.READ_PAYLOAD, of_namespace("k8s-pay-web", "pay"), False),
        (pod("pay"), Action.APPEND, SECURITY, False),
        (pod("pay"), Action.CREATE_SEGMENT, of_namespace("k8s-pay-new", "pay"), True),
        (pod("pay"), Action.CREATE_SEGMENT, of_namespace("k8s-pay-new", "hr"), False),
        (pod("pay"), Action.CREATE_SEGMENT, of_namespace("k8s-hr-new", "hr"), False),
        (pod("pay"), Action.CREATE_SEGMENT, Target("k8s-pay-new", (("kind", "security"), ("namespace", "pay"))), False),
        (MONITOR, Action.READ_CHECKPOINT, SECURITY, True),
        (MONITOR, Action.READ_TILE, SECURITY, True),
        (MONITOR, Action.READ_PAYLOAD, SECURITY, False),
        (MONITOR, Action.READ_PAYLOAD, APPLICATION, False),
        (MONITOR, Action.READ_CHECKPOINT, Target("access"), False),
        (PLATFORM, Action.APPLY_POLICY, None, True),
        (PLATFORM, Action.SEAL_SEGMENT, SECURITY, True),
        (PLATFORM, Action.READ_PAYLOAD, SECURITY, False),
        (ANONYMOUS, Action.READ_CHECKPOINT, APPLICATION, False),
        # Whoever else may write claims into tokens is no pod.
        (
            pod("payments", "https://login.example.com"),
            Action.APPEND,
            of_namespace("k8s-payments-a", "payments"),
            False,
        ),
    ],
)
def test_the_worked_policy_does_what_it_is_said_to(
    principal: Principal, action: Action, target: Target | None, may: bool
) -> None:
    assert decide(worked_policy(), principal, action, target, now=NOW, address=None).allowed == may


# -- any policy at all

ADDRESSES = st.sampled_from([None, IPv4Address("10.0.0.1"), IPv4Address("192.0.2.7")])
GRANTS = st.lists(
    st.builds(Grant, NAMES | st.just("anonymous"), st.sampled_from(SEGMENTS), st.integers(NOW, NOW + 1)), max_size=2
)


@settings(max_examples=300, deadline=None)
@given(random_rules(), st.lists(PRINCIPALS, min_size=1, max_size=3), LABELS, ADDRESSES, GRANTS)
def test_any_policy_decides_as_its_specification_reads(
    rules: Document,
    principals: list[Principal],
    labels: dict[str, str],
    address: IPv4Address | None,
    grants: list[Grant],
) -> None:
    try:
        decider = Decider(parse_policy(write(rules)))
    except PolicyError as error:
        assume("one principal both" not in str(error))
        raise
    for principal in principals:
        for target in (Target(name, tuple(sorted(labels.items()))) for name in SEGMENTS):
            for action in Action:
                decision = decider.decide(principal, action, target, now=NOW, address=address, grants=grants)
                expected = naive_decide(rules, principal, action, target, now=NOW, address=address, grants=grants)
                assert decision.allowed == expected, (principal, action, target, decision)
