"""Records of AWS CloudTrail."""

from collections.abc import Mapping
from typing import Any, Final

from tlog.formats.fields import FAILURE, SUCCESS, Fields, Format, find, milliseconds, text


def _recognizes(event: Mapping[str, Any]) -> bool:
    return ("eventSource" in event and "eventName" in event) or "insightDetails" in event


def _fields(event: Any) -> Fields:
    who = find(event, "userIdentity")
    return Fields(
        time=_time(event),
        actor=text(who, "arn") or text(who, "userName") or text(who, "invokedBy") or text(who, "principalId"),
        action=text(event, "eventName") or text(event, "insightDetails", "eventName"),
        target=_target(event),
        outcome=FAILURE if find(event, "errorCode") else SUCCESS,
        source=text(event, "sourceIPAddress"),
        service=_service(event),
        account=text(event, "recipientAccountId") or text(who, "accountId"),
    )


def _time(event: Any) -> int | None:
    return milliseconds(find(event, "eventTime"))


def _target(event: Any) -> str | None:
    resources = find(event, "resources")
    first = resources[0] if isinstance(resources, list) and resources else None
    return text(first, "ARN") or _service(event)


def _service(event: Any) -> str | None:
    # An Insights event says what it is about one step further down.
    return text(event, "eventSource") or text(event, "insightDetails", "eventSource")


def _id(event: Any) -> str | None:
    return text(event, "eventID")


FORMAT: Final = Format("cloudtrail", "eventID", _recognizes, _fields, _id, _time)
