"""The commands `tlog token`, `tlog policy` and `tlog writer`: who may do what, changed on the machine itself."""

from datetime import UTC, datetime
from ipaddress import ip_address
from pathlib import Path
from typing import TYPE_CHECKING

import click

from tlog.clock import now
from tlog.config import Config
from tlog.control import OPERATOR
from tlog.shell import change, config_of, data_option, report
from tlog_core.errors import MalformedError

if TYPE_CHECKING:
    from tlog.access import Action, Principal
    from tlog.access.rule import Target
    from tlog.store.control import ControlStore


@click.group()
def token() -> None:
    """Issue, rotate and revoke API tokens, whether or not a server runs. Each change is on record."""


@token.command("issue")
@data_option
@click.argument("principal")
@click.option("--group", "groups", multiple=True, help="May be given more than once.")
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
            times = f"{_time(one.expires)}\t{'-' if one.last_used is None else _time(one.last_used)}"
            click.echo(f"{one.id}\t{one.principal}\t{','.join(one.groups) or '-'}\t{times}\t{state}")

    report(show)


@click.group()
def writer() -> None:
    """Register the keys by which writers sign, whether or not a server runs. Each change is on record."""


@writer.command("add")
@data_option
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
def add_writer(data: Path, file: Path) -> None:
    """Register the verifier key in FILE for the writer whose name it has."""
    vkey = _read(file).strip()
    change(config_of(data), lambda control: control.add_key(OPERATOR, vkey))


@writer.command("remove")
@data_option
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
def remove_writer(data: Path, file: Path) -> None:
    """Let nobody sign with the key in FILE any more. What it signed before stays, and is verified with it."""
    vkey = _read(file).strip()
    change(config_of(data), lambda control: control.remove_key(OPERATOR, vkey))


@writer.command("list")
@data_option
def list_writers(data: Path) -> None:
    """Print each verifier key of a writer, since when it is there, and whether it is in use, separated by tabs."""

    def show() -> None:
        for row in _open(config_of(data)).all_writer_keys():
            state = "in use" if row.removed is None else f"removed {_time(row.removed)}"
            click.echo(f"{row.key}\t{_time(row.added)}\t{state}")

    report(show)


@click.group()
def policy() -> None:
    """Say who may do what, and ask why, whether or not a server runs. Each change is on record."""


@policy.command("apply")
@data_option
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--version", type=int, help="Refuse if another version than this is in force.")
def apply(data: Path, file: Path, version: int | None) -> None:
    """Check a policy and put it in force, as a whole. No request that begins after this is decided by the old one."""
    document = _read(file)
    change(
        config_of(data),
        lambda control: click.echo(
            "version "
            + str(control.apply_policy(OPERATOR, control.store.policy()[0] if version is None else version, document))
        ),
    )


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
@click.option("--group", "groups", multiple=True, help="A group that the principal is in.")
@click.option("--claim", "claims", multiple=True, metavar="PATH=VALUE", help="A claim that the principal has.")
@click.option("--address", help="Where the request comes from.")
def explain(
    data: Path,
    principal: str,
    action: str,
    segment: str,
    groups: tuple[str, ...],
    claims: tuple[str, ...],
    address: str | None,
) -> None:
    """Print whether a principal may do ACTION, such as payload:read, in a segment, and the rule that decides."""
    from tlog.access.document import read_policy
    from tlog.access.policy import decide

    def run() -> None:
        store = _open(config_of(data))
        decision = decide(
            read_policy(store.policy()[1].encode()),
            _principal(principal, groups, claims),
            _action(action),
            _target(store, segment),
            now=now(),
            address=None if address is None else ip_address(address),
            grants=store.grants(now()),
        )
        click.echo(f"{'allowed' if decision.allowed else 'refused'}: {decision.reason}")

    report(run)


@policy.command("diff")
@data_option
@click.argument("new", type=click.Path(exists=True, dir_okay=False, path_type=Path))
def diff(data: Path, new: Path) -> None:
    """Print who gains (+) and who loses (-) what in which segment if the policy in NEW were applied."""
    from tlog.access import Principal
    from tlog.access.compare import compare
    from tlog.access.document import parse_policy, read_policy
    from tlog.access.rule import Target

    def run() -> None:
        store = _open(config_of(data))
        holders = {Principal(one.principal, frozenset(one.groups)) for one in store.tokens()}
        targets = [Target(row.name, row.labels) for row in store.list()]
        old = read_policy(store.policy()[1].encode())
        for line in compare(old, parse_policy(_read(new).encode()), holders, targets, now=now()):
            click.echo(str(line))

    report(run)


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


def _principal(name: str, groups: tuple[str, ...], claims: tuple[str, ...]) -> "Principal":
    from tlog.access import Principal

    pairs = tuple((path, value) for path, _, value in (claim.partition("=") for claim in claims))
    return Principal(name, frozenset(groups), pairs)


def _action(text: str) -> "Action":
    from tlog.access import Action

    try:
        return Action(text)
    except ValueError:
        raise MalformedError(f"there is no action {text}; there are {', '.join(one.value for one in Action)}") from None


def _target(store: "ControlStore", segment: str) -> "Target":
    from tlog.access.rule import Target

    return Target(segment, store.find(segment).labels)


def _time(milliseconds: int) -> str:
    return datetime.fromtimestamp(milliseconds / 1000, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
