"""The policy in force, and another: what it would change is shown before it is applied (spec/pages.md)."""

from typing import Any, Final

from flask import Response, request

from tlog.access import Action
from tlog.access.action import CONTROL
from tlog.access.rule import Target
from tlog.api.answer import number, query
from tlog.api.route import Call
from tlog.errors import ConflictError
from tlog.web.difference import difference
from tlog.web.page import field, form, page, redirect, shown
from tlog_core.errors import MalformedError

PLACE: Final = "/web/operations/policy"


def rights(call: Call) -> dict[str, bool]:
    """Return what the pages of operations offer to who asks."""
    may, target = call.services.guard.may, Target(CONTROL)
    wanted = {"applies": Action.APPLY_POLICY, "issues": Action.ISSUE_TOKEN, "counts": Action.READ_METRICS}
    return {name: may(call.caller, action, target) for name, action in wanted.items()}


def show(call: Call) -> Response:
    """Answer `GET /web/operations/policy`."""
    return _page(call, applied=query(request, "applied").get("applied"))


def propose(call: Call) -> Response:
    """Answer `POST /web/operations/policy`: what a draft would change."""
    draft, version = field("document"), number("version", field("version"))
    try:
        policy = call.services.control.try_policy_as(call.caller.principal, call.caller.address, version, draft)
        in_force = call.services.control.store.policy()[1]
    except (MalformedError, ConflictError) as error:
        return _refused(call, draft, error)
    found = difference(call.services.control, in_force, policy, draft)
    return page(call, "policy-proposal.html", difference=found, draft=draft, version=version, **rights(call))


def apply(call: Call) -> Response:
    """Answer `POST /web/operations/policy/application`."""
    draft, version = field("document"), number("version", field("version"))
    try:
        applied = call.services.control.apply_policy_as(call.caller.principal, call.caller.address, version, draft)
    except (MalformedError, ConflictError) as error:
        return _refused(call, draft, error)
    return redirect(f"{PLACE}?applied={applied}")


def _refused(call: Call, draft: str, error: Exception) -> Response:
    status = 409 if isinstance(error, ConflictError) else 400
    return _page(call, status=status, draft=draft, error=str(error))


def _page(call: Call, *, status: int = 200, **values: Any) -> Response:
    version, document = call.services.control.store.policy()
    shown_values = {"draft": document, "error": None, "applied": None, **values}
    return page(call, "policy.html", status=status, version=version, document=document, **shown_values, **rights(call))


ROUTES = (
    shown(PLACE, Action.READ_POLICY, show, "The policy in force", query=("applied",)),
    form(PLACE, Action.APPLY_POLICY, propose, "What another policy would change"),
    form(f"{PLACE}/application", Action.APPLY_POLICY, apply, "Put a policy in force", grows=True),
)
