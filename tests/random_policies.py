"""Any policy at all, as a document, and principals and segments that its rules may be about."""

from typing import Any, Final

from hypothesis import strategies as st
from policies import Document, moment

from tlog.access.action import Role
from tlog.access.principal import ANONYMOUS, Principal

NOW: Final = 1_800_000_000_000

NAMES = st.sampled_from(["alice", "bob"])
GROUPS = st.sampled_from(["g", "h"])
VALUES = st.sampled_from(["a", "b-a", "B", "control"])
CLAIMS = st.sampled_from(["ns", "kubernetes.io/ns"])
SEGMENTS = ["a", "b", "a-b-a", "k-a-x", "k-b-a", "control", "access"]
PATTERNS = st.just("*") | st.sampled_from(
    ["a", "b*", "*a", "k-{ns}-*", "{kubernetes.io/ns}", "a*b*", "control", "access", "c*"]
)
LABELS = st.sampled_from([{}, {"env": "a"}, {"env": "a", "team": "b"}])
# Those that conflict more often, and groups, where a document does not show it.
ROLES = st.sampled_from([role.value for role in Role]) | st.sampled_from(["admin", "auditor", "writer"])
RULE_LABELS = st.dictionaries(st.just("env"), st.sampled_from(["a", "{ns}"]), min_size=1)


def some(values: st.SearchStrategy[str]) -> st.SearchStrategy[list[str]]:
    return st.lists(values, min_size=1, max_size=2)


def roles_of(role: st.SearchStrategy[str], **who: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    return st.fixed_dictionaries({"roles": some(role), **who})


CLAIMED = st.dictionaries(CLAIMS, some(VALUES | st.just("*")), min_size=1, max_size=1)
PUBLIC = roles_of(st.just("monitor"), anyone=st.just(True))
NAMED = (
    roles_of(ROLES, principals=some(NAMES))
    | roles_of(ROLES, groups=some(GROUPS))
    | roles_of(ROLES, claims=CLAIMED)
    | roles_of(ROLES, principals=some(NAMES), groups=some(GROUPS))
)
# Chance alone seldom finds two roles that conflict by two groups.
CLASHING = st.tuples(
    roles_of(st.just("admin"), groups=st.just(["g"])),
    roles_of(st.sampled_from(["auditor", "writer"]), groups=st.just(["h"])),
).map(list)
SUBJECTS = st.lists(NAMED | PUBLIC, min_size=1, max_size=5) | st.builds(
    list.__add__, CLASHING, st.lists(NAMED, max_size=2)
)


@st.composite
def random_rules(draw: st.DrawFn) -> Document:
    some_parts = st.sampled_from([["segments"], ["segments"], ["segments", "labels"], ["labels"]])
    rules = []
    for number, subject in enumerate(draw(SUBJECTS)):
        made = {"name": f"rule {number}", **subject}
        made |= {part: draw({"segments": some(PATTERNS), "labels": RULE_LABELS}[part]) for part in draw(some_parts)}
        if "anyone" not in made and draw(st.integers(0, 3)) == 0:
            made["effect"] = "deny"
        if draw(st.integers(0, 3)) == 0:
            made["expires"] = moment(NOW + draw(st.integers(-1, 1)))
        if draw(st.integers(0, 3)) == 0:
            made["networks"] = [draw(st.sampled_from(["10.0.0.0/8", "192.0.2.0/24"]))]
        rules.append(made)
    return rules


PRINCIPALS = st.builds(
    Principal,
    NAMES,
    st.just(frozenset({"g", "h"})) | st.frozensets(GROUPS),
    st.lists(st.tuples(CLAIMS, VALUES), max_size=3).map(tuple),
) | st.just(ANONYMOUS)
