from typing import Any

from policies import Document, moment, write

from tlog.access.action import Action
from tlog.access.compare import Change, compare
from tlog.access.document import parse_policy
from tlog.access.principal import Principal
from tlog.access.rule import Target

NOW = 1_800_000_000_000
PAYMENTS = Target("payments")


def rule(**members: Any) -> dict[str, Any]:
    return {"name": "it", "roles": ["creator"], "segments": ["payments"], **members}


def changes(old: Document, new: Document, *principals: Principal) -> list[Change]:
    return compare(parse_policy(write(old)), parse_policy(write(new)), principals, [PAYMENTS], now=NOW)


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
