"""Audit entries of OpenBao and HashiCorp Vault."""

from collections.abc import Mapping
from typing import Any, Final

from tlog.formats.fields import FAILURE, SUCCESS, Fields, Format, Outcome, find, milliseconds, text

_RESPONSE: Final = "response"


def _recognizes(event: Mapping[str, Any]) -> bool:
    return event.get("type") in ("request", _RESPONSE) and text(event, "request", "id") is not None


def _fields(event: Any) -> Fields:
    return Fields(
        time=milliseconds(find(event, "time")),
        actor=text(event, "auth", "display_name") or text(event, "auth", "entity_id"),
        action=text(event, "request", "operation"),
        target=text(event, "request", "path"),
        outcome=_outcome(event),
        source=text(event, "request", "remote_address"),
        namespace=text(event, "request", "namespace", "path"),
        service="vault",
    )


def _outcome(event: Any) -> Outcome | None:
    if find(event, "error"):
        return FAILURE
    # What becomes of a request is known from its response.
    return SUCCESS if find(event, "type") == _RESPONSE else None


def _id(event: Any) -> str | None:
    own, stage = text(event, "request", "id"), text(event, "type")
    return f"{own}/{stage}" if own and stage else None


FORMAT: Final = Format("vault", "request", _recognizes, _fields, _id, lambda event: milliseconds(find(event, "time")))
