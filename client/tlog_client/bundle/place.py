"""Where in a bundle something is wrong: the note that an error carries."""

from collections.abc import Iterator
from contextlib import contextmanager

from tlog_core.errors import TlogError


@contextmanager
def at(where: str) -> Iterator[None]:
    """Note on an error of ours that comes through where it came up, unless that is noted already."""
    try:
        yield
    except TlogError as error:
        if not hasattr(error, "__notes__"):
            error.add_note(where)
        raise
