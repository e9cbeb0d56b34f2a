"""The commands about policies, on the machine itself: what they print, and what they say of what they cannot take."""

import re
import subprocess
from pathlib import Path

import pytest
from live import LOG_NAME, PATIENCE, TLOG

ADMINISTRATOR = """
[[rule]]
name = "administrator"
roles = ["admin"]
groups = ["platform"]
segments = ["control"]
"""
POLICY = f"""
[[rule]]
name = "developers"
roles = ["auditor"]
groups = ["developers"]
labels = {{ kind = "application" }}

[[rule]]
name = "pods"
roles = ["creator"]
claims = {{ ns = "*" }}
segments = ["k8s-{{ns}}-*"]
labels = {{ namespace = "{{ns}}" }}
{ADMINISTRATOR}"""
READS = ("payload:read", "app-shop")


class Folder:
    """A data folder, and the commands run on it."""

    def __init__(self, place: Path) -> None:
        self.place = place

    def run(self, *arguments: str | Path) -> tuple[int, list[str], str]:
        """Return the exit status, the lines that were printed, and what stands on standard error."""
        done = subprocess.run(
            [TLOG, *arguments, "--data", self.place / "data"],
            capture_output=True,
            text=True,
            check=False,
            timeout=PATIENCE,
        )
        return done.returncode, done.stdout.splitlines(), done.stderr

    def file(self, content: str | bytes) -> Path:
        path = self.place / "document"
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return path

    def apply(self, document: str, *options: str) -> tuple[int, list[str], str]:
        return self.run("policy", "apply", self.file(document), *options)

    def explain(self, *arguments: str) -> list[str]:
        status, lines, errors = self.run("policy", "explain", *arguments)
        assert (status, errors) == (0, "")
        return lines

    def issue(self, name: str, *groups: str) -> str:
        status, [token], _ = self.run("token", "issue", name, *(f"--group={group}" for group in groups))
        assert status == 0
        return token.split("_")[1]


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return build(tmp_path)


@pytest.fixture(scope="module")
def common(tmp_path_factory: pytest.TempPathFactory) -> Folder:
    """A folder in which tests change nothing."""
    return build(tmp_path_factory.mktemp("common"))


def build(place: Path) -> Folder:
    made = Folder(place)
    assert made.run("segment", "create", "app-shop", "--label=kind=application", f"--log-name={LOG_NAME}")[0] == 0
    assert made.apply(POLICY) == (0, ["version 1"], "")
    return made


# apply


def test_apply_says_which_version_it_replaced_and_refuses_another_than_it_was_told(folder: Folder) -> None:
    assert folder.apply(POLICY) == (0, ["version 2, in the place of version 1"], "")
    assert folder.apply(POLICY, "--version=2") == (0, ["version 3, in the place of version 2"], "")
    for version in (2, 4, -1, 2**63 - 1, 2**64):
        status, lines, errors = folder.apply(POLICY, f"--version={version}")
        assert (status, lines) == (1, [])
        assert errors == "tlog: the policy in force has version 3; read it, and apply yours to that\n"


@pytest.mark.parametrize(
    "document",
    [
        "",
        ADMINISTRATOR + "expires = 9999-01-01T00:00:00Z",
        ADMINISTRATOR.replace('["control"]', '["*", "access"]'),
        ADMINISTRATOR.replace('"admin"', '"auditor"'),
        ADMINISTRATOR.replace("groups", 'effect = "deny"\ngroups'),
        ADMINISTRATOR + 'labels = { env = "prod" }',
    ],
)
def test_apply_warns_of_a_policy_without_a_lasting_administrator_and_applies_it(folder: Folder, document: str) -> None:
    status, lines, errors = folder.apply(document)
    assert (status, lines) == (0, ["version 2, in the place of version 1"])
    assert errors.startswith("tlog: warning: there is no lasting administrator")
    assert folder.apply(ADMINISTRATOR) == (0, ["version 3, in the place of version 2"], "")


def test_what_the_pages_and_the_quick_start_apply_keeps_an_administrator(folder: Folder) -> None:
    root = Path(__file__).parents[2]
    worked = re.findall(r"```toml\n(.*?)```", (root / "spec/access.md").read_text("utf-8"), re.DOTALL)[-1]
    assert folder.apply(worked)[2] == ""
    assert folder.apply((root / "tests/samples/policy.toml").read_text("utf-8"))[2] == ""
    # Where a server began on the empty folder, its administrator is the one of the README's policy.
    [line] = folder.explain("admin", "policy:apply", "control")
    assert line.startswith("allowed: ")


@pytest.mark.parametrize("command", ["policy apply", "policy diff", "writer add", "writer remove"])
def test_a_file_that_is_not_text_is_an_error_of_one_line(common: Folder, command: str) -> None:
    path = common.file(b"\xff\xfe")
    assert common.run(*command.split(), path) == (2, [], f"tlog: {path} is not UTF-8\n")


# diff


def test_diff_of_what_would_take_for_ever_tells_the_rules_and_what_to_do(common: Folder) -> None:
    claims = ", ".join(f"c{claim} = {[str(value) for value in range(20)]}" for claim in range(10))
    hostile = POLICY.replace('claims = { ns = "*" }', f"claims = {{ {claims} }}")
    status, lines, errors = common.run("policy", "diff", common.file(hostile))
    assert status == 2
    assert [line[:12] for line in lines] == ['- rule "pods', '+ rule "pods']
    assert "takes too many steps; name fewer principals, groups and values of claims in one rule" in errors


def test_diff_prints_rules_and_quotas_and_then_who_gains_and_loses(folder: Folder) -> None:
    folder.issue("dev", "developers")
    folder.issue("dev", "developers", "interns")
    folder.run("token", "revoke", folder.issue("dev", "developers", "gone"))
    quota = '[[quota]]\nname = "all"\neach = "principal"\nrequests_per_second = 5\n'
    later = ADMINISTRATOR.replace("administrator", "later").replace("control", "new-*")
    new = folder.file(POLICY.replace('roles = ["auditor"]', 'roles = ["monitor"]') + later + quota)
    status, lines, errors = folder.run("policy", "diff", new)
    who = 'groups = ["developers"], labels = { kind = "application" }'
    assert (status, errors) == (0, "")
    assert lines == [
        f'- rule "developers": roles = ["auditor"], {who}',
        f'+ rule "developers": roles = ["monitor"], {who}',
        '+ rule "later": roles = ["admin"], groups = ["platform"], segments = ["new-*"]',
        '+ quota "all": each = "principal", requests_per_second = 5',
        '- anyone in group developers  payload:read  app-shop  (rule "developers")',
        '- dev in group developers  payload:read  app-shop  (rule "developers")',
        '- dev in groups developers, interns  payload:read  app-shop  (rule "developers")',
    ]
    assert folder.run("policy", "diff", folder.file(f"# the same\n{POLICY}")) == (0, [], "")


# explain


def test_explain_answers_for_each_set_of_groups_of_the_tokens_in_use(folder: Folder) -> None:
    folder.issue("dev", "interns")
    folder.issue("dev", "developers", "staff")
    folder.issue("dev", "staff", "developers")
    folder.run("token", "revoke", folder.issue("dev"))
    allowed = 'allowed: rule "developers" (line 2) allows it'
    assert folder.explain("dev", *READS) == [
        f"{allowed} (by a token of dev in groups developers, staff)",
        "refused: no rule allows it (by a token of dev in group interns)",
    ]
    folder.issue("ann")
    assert folder.explain("ann", *READS) == ["refused: no rule allows it (by a token of ann in no group)"]
    assert folder.explain("bob", *READS) == [
        "refused: no rule allows it (no token of bob is in use: by the name alone)"
    ]
    assert folder.explain("dev", *READS, "--group=developers") == [allowed]
    assert folder.explain("dev", *READS, "--claim=ns=developers") == ["refused: no rule allows it"]


def test_explain_answers_for_segments_that_are_yet_to_be_made(folder: Folder) -> None:
    def asked(*arguments: str) -> str:
        [line] = folder.explain("pod", "segment:create", *arguments, "--claim=ns=pay")
        return line.partition(":")[0]

    assert asked("k8s-pay-web", "--label=namespace=pay") == "allowed"
    assert asked("k8s-pay-web", "--label=namespace=hr") == asked("k8s-hr-web", "--label=namespace=pay") == "refused"
    assert asked("k8s-pay-web") == asked("k8s-pay-web", "--label=namespace=pay", "--label=kind=x") == "refused"
    # Also where one is, it is asked for with the labels that are given.
    assert folder.run("segment", "create", "k8s-pay-old", "--label=namespace=pay")[0] == 0
    assert asked("k8s-pay-old", "--label=namespace=pay") == "allowed"
    assert asked("k8s-pay-old") == "refused"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([*READS, "--address=banana"], "banana is no address such as 192.0.2.7 or 2001:db8::7"),
        ([*READS, "--claim=ns"], "a claim is PATH=VALUE, not ns"),
        ([*READS, "--label=a=b"], "--label is for segment:create; a segment that is there has its own"),
        (["segment:create", "new", "--label=a"], "a label is KEY=VALUE, and each key comes once"),
        (["segment:create", "N eu"], "no segment may be named N eu"),
        (["payload:read", "new"], "no such segment"),
    ],
)
def test_explain_says_what_it_cannot_take(common: Folder, arguments: list[str], message: str) -> None:
    assert common.run("policy", "explain", "dev", *arguments) == (2, [], f"tlog: {message}\n")
