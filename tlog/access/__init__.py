"""Who may do what in which segment: the one choke point that every route passes."""

from dataclasses import dataclass
from enum import Enum

from flask import Request


class Action(Enum):
    """What a request wants to do. Each route declares exactly one."""

    CREATE_SEGMENT = "segment:create"
    LIST_SEGMENTS = "segment:list"
    READ_SEGMENT = "segment:read"
    APPEND = "entry:append"
    READ_PAYLOAD = "payload:read"
    READ_CHECKPOINT = "checkpoint:read"
    READ_TILE = "tile:read"
    PROVE = "proof:read"
    OPERATE = "server:operate"


@dataclass(frozen=True, slots=True)
class Principal:
    """Who asks; `name` is what an entry shows as its writer."""

    name: str


def authorize(request: Request, action: Action, segment: str | None) -> Principal:  # noqa: ARG001
    """Return who asks, if they may do this in the segment of this name.

    There is no policy yet: everyone may do everything, which is why the server binds to loopback only.
    """
    return Principal("anonymous")
