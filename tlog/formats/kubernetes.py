"""Audit events of Kubernetes, `audit.k8s.io` of any version."""

from collections.abc import Mapping
from typing import Any, Final

from tlog.formats.fields import FAILURE, SUCCESS, Fields, Format, Outcome, find, joined, milliseconds, text

_FIRST_FAILURE: Final = 400


def _recognizes(event: Mapping[str, Any]) -> bool:
    return "stage" in event and "verb" in event


def _fields(event: Any) -> Fields:
    object_of = find(event, "objectRef")
    namespace = text(object_of, "namespace")
    return Fields(
        time=_time(event),
        actor=text(event, "user", "username"),
        action=text(event, "verb"),
        target=joined("/", _resource(object_of), namespace, text(object_of, "name")) or text(event, "requestURI"),
        outcome=_outcome(event),
        source=_first(find(event, "sourceIPs")),
        namespace=namespace,
        service="kubernetes",
        severity=text(event, "level"),
    )


def _time(event: Any) -> int | None:
    return milliseconds(find(event, "requestReceivedTimestamp") or find(event, "timestamp"))


def _resource(object_of: Any) -> str | None:
    return joined("/", text(object_of, "resource"), text(object_of, "subresource"))


def _outcome(event: Any) -> Outcome | None:
    code = find(event, "responseStatus", "code")
    if find(event, "stage") == "Panic":
        return FAILURE
    if not isinstance(code, int):
        return None
    return FAILURE if code >= _FIRST_FAILURE else SUCCESS


def _first(addresses: Any) -> str | None:
    return text({"first": addresses[0]}, "first") if isinstance(addresses, list) and addresses else None


def _id(event: Any) -> str | None:
    audit_id, stage = text(event, "auditID"), text(event, "stage")
    return f"{audit_id}/{stage}" if audit_id and stage else None


FORMAT: Final = Format("kubernetes", "auditID", _recognizes, _fields, _id, _time)
