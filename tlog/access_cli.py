"""The commands `tlog token`, `tlog policy` and `tlog writer`: who may do what, changed on the machine itself."""

from collections.abc import Iterator
from ipaddress import ip_address
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from tlog.clock import now
from tlog.config import Config
from tlog.control import OPERATOR
from tlog.shell import change, config_of, data_option, labels_of, report, time_of
from tlog_core.errors import MalformedError

if TYPE_CHECKING:
    from tlog.access import Action, Principal
    from tlog.access.rule import Address, Target
    from tlog.control import Control
    from tlog.store.control import ControlStore

_NO_ADMINISTRATOR: Final = (
    "tlog: warning: there is no lasting administrator: by this policy, or once rules of it expire, nobody can apply "
    'another over HTTP; add a rule with roles = ["admin"] and segments = ["control"] that does not expire'
)


@click.group()
def token() -> None:
    """Issue, rotate and revoke API tokens.

    Works whether or not a server runs. Each change is on record.
    """


@token.command("issue")
@data_option
@click.argument("principal")
@click.option("--group", "groups", multiple=True, help="A group of the principal. May be given more than once.")
@click.option("--days", default=30.0, show_default=True, help="How long it is good for: at most 90 days.")
def issue(data: Path, principal: str, groups: tuple[str, ...], days: float) -> None:
    """Issue a token for a principal and print it, this once."""
    change(
        config_of(data),
        lambda control: click.echo(control.issue_token(OPERATOR, principal, groups, days).text()),
    )


@token.command("rotate")
@data_option
@click.argument("token_id")
@click.option("--overlap-days", default=1.0, show_default=True, help="How long the old one goes on: at most 7 days.")
def rotate(data: Path, token_id: str, overlap_days: float) -> None:
    """Issue a token in the place of another and print it, this once."""
    change(
        config_of(data),
        lambda control: click.echo(control.rotate_token(OPERATOR, token_id, overlap_days).text()),
    )


@token.command("revoke")
@data_option
@click.argument("token_id")
def revoke(data: Path, token_id: str) -> None:
    """Revoke a token. No request that begins after this has returned is answered for it."""
    change(config_of(data), lambda control: control.revoke_token(OPERATOR, token_id))


@token.command("list")
@data_option
def list_tokens(data: Path) -> None:
    """Print each token: ID, principal, groups, end, last use, state, separated by tabs."""

    def show() -> None:
        for one in _open(config_of(data)).tokens():
            state = "revoked" if one.revoked is not None else "expired" if now() >= one.expires else "in use"
            times = f"{time_of(one.expires)}\t{'-' if one.last_used is None else time_of(one.last_used)}"
            click.echo(f"{one.id}\t{one.principal}\t{','.join(one.groups) or '-'}\t{times}\t{state}")

    report(show)


@click.group()
def writer() -> None:
    """Register the keys by which writers sign.

    Works whether or not a server runs. Each change is on record.
    """


@writer.command("add")
@data_option
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
def add_writer(data: Path, file: Path) -> None:
    """Register the verifier key in FILE for the writer whose name it has."""

    def run() -> None:
        vkey = _read(file).strip()
        change(config_of(data), lambda control: control.add_key(OPERATOR, vkey))

    report(run)


@writer.command("remove")
@data_option
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
def remove_writer(data: Path, file: Path) -> None:
    """Let nobody sign with the key in FILE any more. What it signed before stays, and is verified with it."""

    def run() -> None:
        vkey = _read(file).strip()
        change(config_of(data), lambda control: control.remove_key(OPERATOR, vkey))

    report(run)


@writer.command("list")
@data_option
def list_writers(data: Path) -> None:
    """Print each verifier key of writers, since when it is there, and whether it is in use, separated by tabs."""

    def show() -> None:
        for row in _open(config_of(data)).all_writer_keys():
            state = "in use" if row.removed is None else f"removed {time_of(row.removed)}"
            click.echo(f"{row.key}\t{time_of(row.added)}\t{state}")

    report(show)


@click.group()
def policy() -> None:
    """Say who may do what, and ask why.

    Works whether or not a server runs. Each change is on record.
    """


@policy.command("apply")
@data_option
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--version", type=int, help="Refuse if another version than this is in force.")
def apply(data: Path, file: Path, version: int | None) -> None:
    """Check a policy and put it in force, as a whole. No request that begins after this is decided by the old one."""

    def run() -> None:
        document = _read(file)
        change(config_of(data), lambda control: _apply(control, version, document))

    report(run)


@policy.command("show")
@data_option
def show_policy(data: Path) -> None:
    """Print the policy in force."""
    report(lambda: click.echo(_open(config_of(data)).policy()[1], nl=False))


@policy.command("explain")
@data_option
@click.argument("principal")
@click.argument("action")
@click.argument("segment")
@click.option("--group", "groups", multiple=True, help="A group of the principal.")
@click.option("--claim", "claims", multiple=True, metavar="PATH=VALUE", help="A claim of the principal.")
@click.option("--label", "labels", multiple=True, metavar="KEY=VALUE", help="A label to make the segment with.")
@click.option("--address", help="The IP address that the request comes from.")
def explain(
    data: Path,
    principal: str,
    action: str,
    segment: str,
    groups: tuple[str, ...],
    claims: tuple[str, ...],
    labels: tuple[str, ...],
    address: str | None,
) -> None:
    """Print whether a principal may do ACTION, such as payload:read, in a segment, and the rule that decides.

    Without --group and --claim, once for each set of groups of the tokens in use that the principal has. --label is for
    segment:create.
    """
    from tlog.access.document import read_policy
    from tlog.access.policy import Decider

    def run() -> None:
        store = _open(config_of(data))
        decider = Decider(read_policy(store.policy()[1].encode()))
        wanted = _action(action)
        target = _target(store, wanted, segment, labels_of(labels))
        for one, which in _asking(store, principal, groups, claims):
            decision = decider.decide(
                one, wanted, target, now=now(), address=_address(address), grants=store.grants(now())
            )
            click.echo(f"{'allowed' if decision.allowed else 'refused'}: {decision.reason}{which}")

    report(run)


@policy.command("diff")
@data_option
@click.argument("new", type=click.Path(exists=True, dir_okay=False, path_type=Path))
def diff(data: Path, new: Path) -> None:
    """Print what would change if the policy in NEW were applied: what goes after -, what comes after +.

    First rules and quotas, then who gains and who loses what in which segment. Nothing if they are the same.
    """
    from tlog.access.compare import differences
    from tlog.access.document import parse_policy, read_policy
    from tlog.access.rule import Target

    def run() -> None:
        store = _open(config_of(data))
        targets = [Target(row.name, row.labels) for row in store.list()]
        old = read_policy(store.policy()[1].encode())
        for line in differences(old, parse_policy(_read(new).encode()), store.holders(now()), targets, now=now()):
            click.echo(line)

    report(run)


def _apply(control: "Control", version: int | None, document: str) -> None:
    from tlog.access.document import read_policy
    from tlog.access.lockout import has_lasting_administrator

    replaced = control.store.policy()[0] if version is None else version
    applied = control.apply_policy(OPERATOR, replaced, document)
    click.echo(f"version {applied}, in the place of version {replaced}" if replaced else f"version {applied}")
    if not has_lasting_administrator(read_policy(document.encode())):
        click.echo(_NO_ADMINISTRATOR, err=True)


def _open(config: Config) -> "ControlStore":
    from tlog.segments import check_begun, prepare_data
    from tlog.store.control import ControlStore

    check_begun(config)
    prepare_data(config, None)
    return ControlStore.open(config.control)


def _read(file: Path) -> str:
    try:
        return file.read_text("utf-8")
    except UnicodeDecodeError:
        raise MalformedError(f"{file} is not UTF-8") from None


def _asking(
    store: "ControlStore", name: str, groups: tuple[str, ...], claims: tuple[str, ...]
) -> "Iterator[tuple[Principal, str]]":
    """Yield each principal that is meant, and what tells which that is, if it was left open."""
    from tlog.access import Principal
    from tlog.access.people import describe_fully

    if groups or claims:
        yield Principal(name, frozenset(groups), tuple(_claim(claim) for claim in claims)), ""
        return
    holders = [one for one in store.holders(now()) if one.name == name]
    for one in holders:
        yield one, f" (by a token of {describe_fully(one)})"
    if not holders:
        yield Principal(name), f" (no token of {name} is in use: by the name alone)"


def _claim(text: str) -> tuple[str, str]:
    path, equals, value = text.partition("=")
    if not equals:
        raise MalformedError(f"a claim is PATH=VALUE, not {text}")
    return path, value


def _action(text: str) -> "Action":
    from tlog.access import Action

    try:
        return Action(text)
    except ValueError:
        raise MalformedError(f"there is no action {text}; there are {', '.join(one.value for one in Action)}") from None


def _target(store: "ControlStore", action: "Action", segment: str, labels: dict[str, str]) -> "Target":
    from tlog.access import Action
    from tlog.access.rule import Target
    from tlog.segments import is_name

    if action is not Action.CREATE_SEGMENT:
        if labels:
            raise MalformedError(f"--label is for {Action.CREATE_SEGMENT.value}; a segment that is there has its own")
        return Target(segment, store.find(segment).labels)
    if not is_name(segment):
        raise MalformedError(f"no segment may be named {segment}")
    return Target(segment, tuple(sorted(labels.items())))


def _address(text: str | None) -> "Address | None":
    try:
        return None if text is None else ip_address(text)
    except ValueError:
        raise MalformedError(f"{text} is no address such as 192.0.2.7 or 2001:db8::7") from None
