"""What one can do, the roles that let one do it, and the reserved segments (spec/access.md, "Roles")."""

from enum import Enum, unique
from typing import Final

CONTROL: Final = "control"
ACCESS: Final = "access"
RESERVED: Final = frozenset({CONTROL, ACCESS})
"""Segments that tlog makes and writes itself. A rule selects one only by its whole name."""


@unique
class Action(Enum):
    """What a request wants to do. Each route declares exactly one."""

    CREATE_SEGMENT = "segment:create"
    LIST_SEGMENTS = "segment:list"
    READ_SEGMENT = "segment:read"
    SEAL_SEGMENT = "segment:seal"
    APPEND = "entry:append"
    INGEST = "event:ingest"
    READ_PAYLOAD = "payload:read"
    READ_CHECKPOINT = "checkpoint:read"
    READ_TILE = "tile:read"
    PROVE = "proof:read"
    POST_BULLETIN = "bulletin:post"
    OPERATE = "server:operate"
    READ_METRICS = "metrics:read"
    READ_POLICY = "policy:read"
    APPLY_POLICY = "policy:apply"
    ISSUE_TOKEN = "token:issue"
    ADD_KEY = "key:add"
    APPROVE = "grant:approve"


@unique
class Role(Enum):
    """A set of actions under one name."""

    WRITER = "writer"
    MONITOR = "monitor"
    AUDITOR = "auditor"
    ADMIN = "admin"
    CREATOR = "creator"
    APPROVER = "approver"


OPEN_ACTIONS: Final = frozenset({Action.OPERATE, Action.LIST_SEGMENTS, Action.INGEST})
"""What everyone may do. A list shows only the segments that its reader may read, and an event that is sent in is
decided upon by the segment that it goes into; who sends one must show a credential."""

CONFLICTS: Final = ((Role.WRITER, Role.ADMIN), (Role.ADMIN, Role.AUDITOR))
"""Pairs of roles that nobody holds both of in one segment."""

_MONITOR: Final = frozenset(
    {Action.READ_SEGMENT, Action.READ_CHECKPOINT, Action.READ_TILE, Action.PROVE, Action.POST_BULLETIN}
)

_ACTIONS: Final = {
    Role.WRITER: frozenset({Action.READ_SEGMENT, Action.APPEND, Action.READ_CHECKPOINT, Action.PROVE}),
    Role.MONITOR: _MONITOR,
    Role.AUDITOR: _MONITOR | {Action.READ_PAYLOAD},
    Role.ADMIN: frozenset({Action.READ_SEGMENT, Action.SEAL_SEGMENT}),
    Role.CREATOR: frozenset({Action.CREATE_SEGMENT}),
    Role.APPROVER: frozenset({Action.APPROVE}),
}

_CONTROL_ACTIONS: Final = {
    Role.MONITOR: frozenset({Action.READ_METRICS}),
    Role.AUDITOR: frozenset({Action.READ_METRICS, Action.READ_POLICY}),
    Role.ADMIN: frozenset(
        {Action.READ_METRICS, Action.READ_POLICY, Action.APPLY_POLICY, Action.ISSUE_TOKEN, Action.ADD_KEY}
    ),
}

NOT_IN_RESERVED: Final = frozenset({Action.CREATE_SEGMENT, Action.SEAL_SEGMENT, Action.APPEND})
"""What no role lets one do in a reserved segment."""


def role_actions(role: Role, segment: str) -> frozenset[Action]:
    """Return what a role lets one do in the segment of this name."""
    if segment not in RESERVED:
        return _ACTIONS[role]
    more = _CONTROL_ACTIONS.get(role, frozenset()) if segment == CONTROL else frozenset()
    return (_ACTIONS[role] | more) - NOT_IN_RESERVED
