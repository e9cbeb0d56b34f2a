import random
from collections.abc import Iterable, Iterator
from ipaddress import IPv4Address
from itertools import permutations, product
from time import process_time
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from policies import Document, moment, naive_decide, write
from random_policies import NOW, PRINCIPALS, SEGMENTS, random_rules

from tlog.access.action import OPEN_ACTIONS, RESERVED, Action
from tlog.access.compare import Change, compare, differences
from tlog.access.document import parse_policy, read_policy
from tlog.access.effort import MAX_STEPS, Budget
from tlog.access.principal import Principal
from tlog.access.rule import Policy, Target
from tlog.errors import PolicyError

PAYMENTS = Target("payments")


def rule(**members: Any) -> dict[str, Any]:
    return {"name": "it", "roles": ["creator"], "segments": ["payments"], **members}


def changes(old: Document, new: Document, *principals: Principal) -> list[Change]:
    return list(compared(parse_policy(write(old)), parse_policy(write(new)), principals, [PAYMENTS]))


def compared(
    old: Policy, new: Policy, principals: Iterable[Principal], targets: Iterable[Target], steps: int = MAX_STEPS
) -> Iterator[Change]:
    return compare(old, new, principals, targets, now=NOW, step=Budget(steps).step)


def stated(old: Document, new: Document, *quotas: Document) -> list[str]:
    """Return what is said of the rules and quotas themselves, where no segment is that anything could be said of."""
    before, after = quotas or ([], [])
    policies = parse_policy(write(old, before)), parse_policy(write(new, after))
    return list(differences(*policies, [], [], now=NOW))


def lines(old: Document, new: Document, *principals: Principal) -> list[str]:
    return [str(change) for change in changes(old, new, *principals)]


def test_nothing_changes_between_a_policy_and_itself() -> None:
    assert lines([rule(groups=["g"])], [rule(groups=["g"])]) == []


def test_what_is_gained_is_told_with_the_rule_that_gives_it() -> None:
    gained = changes([], [rule(principals=["bob"])])
    assert [(c.gained, c.principal, c.action, c.segment) for c in gained] == [
        (True, "bob", Action.CREATE_SEGMENT, "payments")
    ]
    assert str(gained[0]) == '+ bob  segment:create  payments  (rule "it")'


def test_what_is_lost_is_told_with_the_rule_that_gave_or_now_denies_it() -> None:
    assert lines([rule(groups=["g"])], []) == ['- anyone in group g  segment:create  payments  (rule "it")']
    denied = [rule(groups=["g"]), rule(name="no", groups=["g"], effect="deny")]
    assert lines([rule(groups=["g"])], denied) == ['- anyone in group g  segment:create  payments  (rule "no")']
    assert lines([rule(groups=["g"])], [rule(groups=["g"], expires=moment(NOW))]) == [
        '- anyone in group g  segment:create  payments  (rule "it")'
    ]


def test_known_principals_are_compared_with_their_groups_and_claims() -> None:
    known = Principal("alice", frozenset({"g"}), (("ns", "a"),))
    assert lines([], [rule(groups=["g"], claims={"ns": "a"})], known) == [
        '+ alice  segment:create  payments  (rule "it")',
        '+ anyone in group g with ns = a  segment:create  payments  (rule "it")',
    ]


def test_whom_a_rule_names_in_several_ways_is_compared_as_that() -> None:
    assert lines([], [rule(principals=["bob"], claims={"ns": ["a", "*"]})]) == [
        '+ bob with ns = a  segment:create  payments  (rule "it")',
        '+ bob with ns = any  segment:create  payments  (rule "it")',
    ]


def test_who_has_no_credential_is_compared_too() -> None:
    public = rule(anyone=True, roles=["monitor"])
    assert '+ anonymous  tile:read  payments  (rule "it")' in lines([], [public])


def test_reserved_segments_are_compared_too() -> None:
    new = [rule(principals=["bob"], roles=["admin"], segments=["control"])]
    assert '+ bob  policy:apply  control  (rule "it")' in lines([], new)


def test_what_changes_from_one_network_is_told_for_that_network() -> None:
    here = [rule(principals=["bob"], networks=["10.0.0.0/8"])]
    assert lines([], here) == ['+ bob  segment:create  payments from 10.0.0.0/8  (rule "it")']
    assert lines(here, [rule(principals=["bob"])]) == ['+ bob  segment:create  payments  (rule "it")']
    not_all = [*here, rule(name="no", effect="deny", principals=["bob"], networks=["10.0.0.0/9"])]
    assert lines([], not_all) == ['+ bob  segment:create  payments from 10.0.0.0/8  (rule "it")']
    both = [*here, rule(name="other", principals=["bob"])]
    assert lines([], both) == ['+ bob  segment:create  payments  (rule "other")']
    elsewhere = [rule(principals=["bob"], networks=["192.0.2.0/24"])]
    assert lines(here, elsewhere) == [
        '- bob  segment:create  payments from 10.0.0.0/8  (rule "it")',
        '+ bob  segment:create  payments from 192.0.2.0/24  (rule "it")',
    ]


def test_roles_made_void_are_told_as_lost() -> None:
    bob = Principal("bob", frozenset({"g"}))
    old = [rule(name="x", principals=["bob"], roles=["admin"])]
    new = [*old, rule(name="y", groups=["g"], roles=["auditor"])]
    assert '- bob  segment:seal  payments  (rule "x")' in lines(old, new, bob)


def test_what_changes_for_who_calls_from_one_network_only_is_not_told_of_everywhere() -> None:
    denied = rule(name="no", principals=["bob"], effect="deny", networks=["0.0.0.0/1", "10.0.0.0/8"])
    assert lines([rule(principals=["bob"])], [rule(principals=["bob"]), denied]) == [
        '- bob  segment:create  payments from 0.0.0.0/1  (rule "no")',
        '- bob  segment:create  payments from 10.0.0.0/8  (rule "no")',
    ]


# Whom a policy is tried on


def test_each_principal_of_one_name_is_compared_in_whatever_order_they_come() -> None:
    known = [Principal("ann", frozenset(groups)) for groups in ((), ("g",), ("h",), ("g", "h"))]
    for order in permutations(known):
        assert lines([], [rule(groups=["g"])], *order) == [
            '+ ann in group g  segment:create  payments  (rule "it")',
            '+ ann in groups g, h  segment:create  payments  (rule "it")',
            '+ anyone in group g  segment:create  payments  (rule "it")',
        ]
        assert lines([rule(principals=["ann"])], [], *order)[-1] == (
            '- ann in no group  segment:create  payments  (rule "it")'
        )


@pytest.mark.parametrize(
    ("pattern", "name", "values"),
    [
        ("k-{ns}-*", "k-pay-web", ["pay"]),
        ("k-{ns}-*", "k-a-b-x", ["a", "a-b"]),
        ("{ns}-*-{ns}", "a-b-a", ["a"]),
        ("*-{ns}", "k-pay", ["pay"]),
        ("{ns}", "pay", ["pay"]),
        ("k-{ns}*", "k-pay", []),
        ("k-{ns}-*", "pay", []),
        ("{ns}", "control", []),
    ],
)
def test_claims_are_tried_with_the_values_that_names_of_segments_call_for(
    pattern: str, name: str, values: list[str]
) -> None:
    pods = parse_policy(write([rule(claims={"ns": "*"}, segments=[pattern])]))
    found = {change.principal for change in compared(Policy(), pods, [], [Target(name)])}
    assert found == {f"anyone with ns = {value}" for value in values}


def test_claims_are_tried_with_the_values_that_labels_of_segments_call_for() -> None:
    pods = rule(principals=["bob"], claims={"iss": "x"}, segments=["{app}-{ns}"], labels={"of": "n-{ns}"})
    target = Target("web-pay", (("of", "n-pay"),))
    new = parse_policy(write([pods]))
    assert list(map(str, compared(Policy(), new, [], [target, PAYMENTS]))) == [
        '+ bob with app = web with iss = x with ns = pay  segment:create  web-pay  (rule "it")'
    ]


def test_of_the_values_that_a_name_leaves_only_those_are_tried_that_the_labels_allow() -> None:
    pods = rule(name="pods", claims={"ns": "*"}, segments=["k-{ns}-*"], labels={"of": "{ns}"})
    everywhere = rule(name="all", roles=["approver"], claims={"ns": "*"}, segments=["*"])
    target = Target("k-a-b-x", (("of", "a-b"),))
    new = parse_policy(write([pods, everywhere]))
    assert {change.principal for change in compared(Policy(), new, [], [target])} == {
        "anyone with ns = a-b",
        "anyone with ns = any",
    }


def test_whom_a_rule_names_is_compared_as_their_tokens_have_it() -> None:
    assert lines([], [rule(principals=["bob"])], Principal("bob", frozenset({"g"}))) == [
        '+ bob  segment:create  payments  (rule "it")'
    ]


# What the policies state


def test_what_no_segment_shows_yet_is_told_as_the_rule_that_states_it() -> None:
    later = rule(
        roles=["writer", "auditor"],
        effect="deny",
        principals=["b", "a"],
        groups=["g"],
        claims={"kubernetes.io/ns": "*", "iss": ["y", "x"]},
        segments=["k8s-*"],
        labels={"env": "pr\u001bod"},
        expires=moment(NOW),
        networks=["10.0.0.0/8"],
    )
    assert stated([], [later]) == [
        '+ rule "it": roles = ["auditor", "writer"], effect = "deny", principals = ["a", "b"], groups = ["g"], '
        'claims = { iss = ["x", "y"], "kubernetes.io/ns" = "*" }, segments = ["k8s-*"], '
        'labels = { env = "pr\\u001bod" }, expires = 2027-01-15T08:00:00Z, networks = ["10.0.0.0/8"]'
    ]
    public = [rule(anyone=True, roles=["monitor"])]
    assert stated(public, [*public, rule(name="b", groups=["g"]), rule(name="a", groups=["g"])]) == [
        '+ rule "a": roles = ["creator"], groups = ["g"], segments = ["payments"]',
        '+ rule "b": roles = ["creator"], groups = ["g"], segments = ["payments"]',
    ]
    assert '- rule "it": roles = ["monitor"], anyone = true, segments = ["payments"]' in stated(public, [])


def test_a_rule_that_is_to_expire_is_told_as_it_was_and_as_it_is_to_be() -> None:
    old = rule(groups=["g"])
    assert stated([old], [old | {"expires": moment(NOW + 1)}]) == [
        '- rule "it": roles = ["creator"], groups = ["g"], segments = ["payments"]',
        '+ rule "it": roles = ["creator"], groups = ["g"], segments = ["payments"], '
        "expires = 2027-01-15T08:00:00.001000Z",
    ]


def test_quotas_are_told_after_rules() -> None:
    each = {"name": "a", "each": "principal", "requests_per_second": 500}
    shared = {"name": "b", "groups": ["g"], "labels": {"env": "x"}, "bytes_per_second": 10_000_001.5}
    public = {"name": "c", "anyone": True, "bytes_per_second": 1e15}
    assert stated([], [rule(groups=["g"])], [each, shared], [each | {"requests_per_second": 0.1}, public]) == [
        '+ rule "it": roles = ["creator"], groups = ["g"], segments = ["payments"]',
        '- quota "a": each = "principal", requests_per_second = 500',
        '+ quota "a": each = "principal", requests_per_second = 0.1',
        '- quota "b": groups = ["g"], labels = { env = "x" }, bytes_per_second = 10000001.5',
        '+ quota "c": anyone = true, bytes_per_second = 1000000000000000',
    ]


@pytest.mark.parametrize("moment", ["9999-12-31T23:59:59-12:00", "0001-01-01T00:00:00+12:00"])
def test_a_time_beyond_the_years_that_can_be_written_is_told_all_the_same(moment: str) -> None:
    document = write([rule(groups=["g"])]) + f"expires = {moment}\n".encode()
    [line] = differences(Policy(), parse_policy(document), [], [], now=1 << 60)
    assert line.endswith(" ms after 1970")


SHARED: Document = [{"each": "principal"}, {"each": "segment"}, {"groups": ["g", "h"]}, {"anyone": True}]
QUOTAS = st.lists(
    st.builds(
        lambda who, rate: {"name": "quota", **who, "bytes_per_second": rate},
        st.sampled_from(SHARED),
        st.sampled_from([1, 1.5, 10_000_000, 10_000_001]),
    ),
    max_size=1,
)


def content(policy: Policy) -> Any:
    """Return all that a policy says, and nothing of the order in which it does."""
    rules = {
        (
            r.name,
            r.roles,
            r.allows,
            r.who,
            frozenset(r.where.segments),
            r.where.labels,
            r.expires,
            frozenset(r.networks),
        )
        for r in policy.rules
    }
    quotas = {(q.name, q.who, q.each, q.where, q.requests_per_second, q.bytes_per_second) for q in policy.quotas}
    return rules, quotas


def shuffled(document: Document, dice: random.Random) -> Document:
    def turned(value: Any) -> Any:
        return dice.sample(value, len(value)) if isinstance(value, list) else value

    rules = [dict(dice.sample([(k, turned(v)) for k, v in one.items()], len(one))) for one in document]
    return dice.sample(rules, len(rules))


@settings(max_examples=200, deadline=None)
@given(random_rules(), random_rules(), QUOTAS, QUOTAS, st.data())
def test_nothing_is_told_only_if_both_policies_say_the_same(
    rules: Document, others: Document, quotas: Document, more: Document, data: st.DataObject
) -> None:
    """Also of two that differ in one member of one rule: who has something of the other, or it left out."""
    one, other = data.draw(st.sampled_from(rules)), data.draw(st.sampled_from(others))
    member = data.draw(st.sampled_from(sorted(other)))
    changed = [each if each is not one else one | {member: other[member]} for each in rules]
    old = read_policy(write(rules, quotas))
    for document, new_quotas in ((others, quotas), (rules, more), (changed, quotas), (rules[1:], quotas)):
        try:
            new = read_policy(write(document, new_quotas))
        except PolicyError:
            continue
        told = list(differences(old, new, [], [PAYMENTS], now=NOW))
        assert (told == []) == (content(old) == content(new)), told
    dice = data.draw(st.randoms(use_true_random=False))
    again = read_policy(write(shuffled(rules, dice), quotas))
    assert list(differences(old, again, [], [PAYMENTS], now=NOW)) == []


NETWORKS = ["0.0.0.0/1", "10.0.0.0/8", "10.0.0.0/16", "10.255.0.0/16"]
# One address of each region that these make.
ADDRESSES = list(map(IPv4Address, ["1.0.0.0", "10.0.0.0", "10.1.0.0", "10.255.0.0", "11.0.0.0", "128.0.0.0"]))


@settings(max_examples=100, deadline=None)
@given(random_rules(), random_rules(), PRINCIPALS, st.data())
def test_what_is_told_of_who_is_known_is_where_one_decides_otherwise(
    rules: Document, others: Document, known: Principal, data: st.DataObject
) -> None:
    for one in (*rules, *others):
        if "networks" in one or data.draw(st.booleans()):
            one["networks"] = data.draw(st.lists(st.sampled_from(NETWORKS), min_size=1, max_size=2))
    others = [*data.draw(st.lists(st.sampled_from(rules), unique_by=str)), *others]
    others = [one | {"name": f"rule {number}"} for number, one in enumerate(others)]
    places = [Target(name, (("env", "a"),)) for name in SEGMENTS if name not in RESERVED] + list(map(Target, RESERVED))
    asked = list(product((one for one in Action if one not in OPEN_ACTIONS), places, ADDRESSES))
    was, now_is = (
        [
            naive_decide(each, known, action, where, now=NOW, address=address, grants=[])
            for action, where, address in asked
        ]
        for each in (rules, others)
    )
    other = zip(asked, was, now_is, strict=True)
    expected = {(after, action, where.segment) for (action, where, _), before, after in other if before != after}
    changed = compared(read_policy(write(rules)), read_policy(write(others)), [known], places)
    told = {(one.gained, one.action, one.segment) for one in changed if one.principal == known.name}
    assert told == expected


# What is too much to compare

MANY = [str(number) for number in range(2_000)]
LONG = Target("-".join("x" * 30))


@pytest.mark.parametrize(
    "rules",
    [
        [{"principals": [f"p{one}" for one in MANY], "groups": [f"g{one}" for one in MANY]}],
        [{"claims": {f"c{claim}": MANY[:20] for claim in range(10)}}],
        [{"claims": dict.fromkeys("abcdefgh", "*"), "segments": [f"{{{'}-{'.join('abcdefgh')}}}"]}],
        [{"claims": dict.fromkeys([f"c{number}" for number in range(30_000)], "v")}],
        [{"groups": ["g"], "segments": [f"{{c{number}}}-*" for number in range(30_000)]}],
        [
            {
                "name": one,
                "groups": ["g"],
                "roles": ["auditor"],
                "networks": [f"10.{n}.{len(one)}.{int(one) % 250}/32" for n in range(9)],
            }
            for one in MANY
        ],
    ],
)
def test_what_would_take_for_ever_to_compare_is_refused_at_once(rules: list[dict[str, Any]]) -> None:
    policy = read_policy(write([rule(**{"segments": ["*"], **each}) for each in rules]))
    begun = process_time()
    with pytest.raises(PolicyError, match="takes too many steps; name fewer principals"):
        list(compared(Policy(), policy, [], [LONG]))
    assert process_time() - begun < 10


def test_what_the_policies_have_in_common_is_cheap_to_compare() -> None:
    rules = [rule(name=name, groups=[f"g{name}"], segments=["*"]) for name in MANY[:300]]
    old, new = (read_policy(write(each)) for each in (rules[1:], rules))
    everywhere = [Target(f"s{name}") for name in MANY]
    assert len(list(compared(old, new, [], everywhere, 1_000_000))) == 2_000
    with pytest.raises(PolicyError):
        list(compared(Policy(), new, [], everywhere, 1_000_000))
