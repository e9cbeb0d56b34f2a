"""What the commands share: the folder, changes made on the machine itself, and errors as lines and exit statuses."""

import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Final, NoReturn

import click

from tlog.clock import now
from tlog.config import Config, from_environment
from tlog.errors import ConfigError, NotFoundError, UnavailableError
from tlog.store.connection import DatabaseError
from tlog_core.errors import MalformedError, TlogError

if TYPE_CHECKING:
    from tlog.control import Control

REFUSED: Final = 1
USAGE: Final = 2

data_option = click.option(
    "--data",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("data"),
    envvar="TLOG_DATA",
    show_default=True,
    help="The folder that holds everything.",
)

log_name_option = click.option(
    "--log-name",
    help="The log's name for ever, such as example.com/audit, if the folder is new; random if it is not given.",
)


def config_of(data: Path) -> Config:
    """Return the settings for a folder; ConfigError."""
    return from_environment(data)


def labels_of(pairs: tuple[str, ...]) -> dict[str, str]:
    """Return the labels that are given as KEY=VALUE; MalformedError."""
    labels = dict(pair.split("=", 1) for pair in pairs if "=" in pair)
    if len(labels) != len(pairs):
        raise MalformedError("a label is KEY=VALUE, and each key comes once")
    return labels


def change(
    config: Config, make: Callable[["Control"], object], *, begin: bool = False, log_name: str | None = None
) -> None:
    """Change who may do what in a folder, whether or not a server runs on it; `begin` a log where there is none."""
    from tlog.control import Control
    from tlog.status import open_segments

    def run() -> None:
        with open_segments(config, begin=begin, log_name=log_name) as segments:
            make(Control(config, segments, now))

    report(run)


def report(action: Callable[[], None]) -> None:
    """Do something, and end the command with a line and a status if it fails."""
    try:
        action()
    except (ConfigError, MalformedError, NotFoundError) as error:
        _fail(error, USAGE)
    except TlogError as error:
        _fail(error, REFUSED)
    except BrokenPipeError:
        # Whoever read what is printed has gone, and hears nothing more.
        raise
    except OSError as error:
        what = "a file of the data folder" if error.filename is None else error.filename
        _fail(ConfigError(f"cannot use {what}: {(error.strerror or '').lower()}"), USAGE)
    except DatabaseError as error:
        _fail(
            UnavailableError(f"a database of the data folder fails: {error}; run tlog fsck once the disk is well"),
            REFUSED,
        )


def _fail(error: TlogError, status: int) -> NoReturn:
    click.echo(f"tlog: {error}", err=True)
    sys.exit(status)


def time_of(milliseconds: int) -> str:
    """Return a time since the epoch as people read it, in UTC."""
    return datetime.fromtimestamp(milliseconds / 1000, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
