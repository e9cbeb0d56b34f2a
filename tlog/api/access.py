"""Who may do what: the policy, tokens, and access that two others approve (spec/access.md)."""

import re
from typing import Final

from flask import Response, request

from tlog.access import Action
from tlog.access.token import Presented
from tlog.api.answer import SECRET, answer, json_answer, page, query
from tlog.api.body import read_body, read_model
from tlog.api.models import (
    AccessRequest,
    AccessRequestList,
    IssuedToken,
    KeyList,
    ListedKey,
    ListedToken,
    NewAccessRequest,
    NewToken,
    PolicyVersion,
    Rotation,
    TokenList,
    WriterKey,
)
from tlog.api.route import Call, Route
from tlog.config import DEFAULT_PAGE, MAX_PAGE
from tlog.store.changes import REQUEST_WAITS
from tlog.store.changes import AccessRequest as Requested
from tlog_core.encoding import parse_decimal
from tlog_core.errors import MalformedError

_TOML: Final = "application/toml"
_VERSION: Final = re.compile(r'"([0-9]+)"')
_LATEST: Final = 1_000


def read_policy(call: Call) -> Response:
    """Answer `GET /policy`: the document in force, its version as the `ETag`."""
    version, document = call.services.control.store.policy()
    response = answer(document.encode(), _TOML)
    response.set_etag(str(version))
    return response


def apply_policy(call: Call) -> Response:
    """Answer `PUT /policy`."""
    match = _VERSION.fullmatch(request.environ.get("HTTP_IF_MATCH", ""))
    if match is None:
        raise MalformedError(
            'say which policy yours takes the place of: If-Match: "<version>", the ETag of GET /policy'
        )
    try:
        document = read_body(request).decode("utf-8")
    except UnicodeDecodeError:
        raise MalformedError("a policy is UTF-8") from None
    caller, version = call.caller, parse_decimal(match[1])
    applied = call.services.control.apply_policy_as(caller.principal, caller.address, version, document)
    return json_answer(PolicyVersion(applied))


def list_tokens(call: Call) -> Response:
    """Answer `GET /tokens`."""
    tokens = [
        ListedToken(one.created, one.expires, list(one.groups), one.id, one.last_used, one.principal, one.revoked)
        for one in call.services.control.store.tokens()
    ]
    return json_answer(TokenList(tokens))


def issue_token(call: Call) -> Response:
    """Answer `POST /tokens`."""
    wanted = read_model(request, NewToken)
    return _issued(
        call.services.control.issue_token(call.caller.principal.name, wanted.principal, wanted.groups, wanted.days)
    )


def rotate_token(call: Call, id: str) -> Response:
    """Answer `POST /tokens/<id>/rotation`."""
    overlap = read_model(request, Rotation).overlap_days
    return _issued(call.services.control.rotate_token(call.caller.principal.name, id, overlap))


def revoke_token(call: Call, id: str) -> Response:
    """Answer `DELETE /tokens/<id>`."""
    call.services.control.revoke_token(call.caller.principal.name, id)
    return answer(b"", "text/plain", status=204)


def list_keys(call: Call) -> Response:
    """Answer `GET /keys`."""
    given = query(request, "after", "limit")
    limit = page(given, default=DEFAULT_PAGE, most=MAX_PAGE)
    rows = call.services.control.store.all_writer_keys(after=given.get("after", ""), limit=limit + 1)
    keys = [ListedKey(one.added, one.removed, str(one.key)) for one in rows[:limit]]
    return json_answer(KeyList(keys, keys[-1].vkey if len(rows) > limit else None))


def add_key(call: Call) -> Response:
    """Answer `POST /keys`."""
    wanted = read_model(request, WriterKey)
    fresh = call.services.control.add_key(call.caller.principal.name, wanted.vkey)
    return json_answer(wanted, status=201 if fresh else 200)


def remove_key(call: Call) -> Response:
    """Answer `POST /keys/removal`."""
    wanted = read_model(request, WriterKey)
    call.services.control.remove_key(call.caller.principal.name, wanted.vkey)
    return json_answer(wanted)


def request_access(call: Call) -> Response:
    """Answer `POST /segments/<name>/access-requests`."""
    wanted = read_model(request, NewAccessRequest)
    made = call.services.control.request_access(
        call.caller.principal.name, call.target.segment, wanted.reason, wanted.minutes
    )
    return json_answer(_request(call, made), status=201)


def list_requests(call: Call) -> Response:
    """Answer `GET /segments/<name>/access-requests`."""
    latest = call.services.control.store.access_requests(call.target.segment, _LATEST)
    return json_answer(AccessRequestList([_shown(one) for one in latest]))


def approve_access(call: Call, id: str) -> Response:
    """Answer `PUT /segments/<name>/access-requests/<id>/approval`."""
    # It must be a request of this segment: for this one the caller may approve.
    _request(call, id)
    call.services.control.approve_access(call.caller.principal.name, id)
    return json_answer(_request(call, id))


def _issued(token: Presented) -> Response:
    return json_answer(IssuedToken(token.id, token.text()), status=201, caching=SECRET)


def _request(call: Call, id: str) -> AccessRequest:
    return _shown(call.services.control.store.access_request(call.target.segment, id))


def _shown(one: Requested) -> AccessRequest:
    return AccessRequest(
        approvers=[by for by in (one.approver, one.second) if by is not None],
        id=one.id,
        lapses=one.requested + REQUEST_WAITS,
        milliseconds=one.milliseconds,
        principal=one.principal,
        reason=one.reason,
        requested=one.requested,
        segment=one.segment,
        until=one.until,
    )


ROUTES = (
    Route("GET", "/policy", Action.READ_POLICY, read_policy, "Read the policy in force", gives={200: _TOML}),
    Route(
        "PUT",
        "/policy",
        Action.APPLY_POLICY,
        apply_policy,
        "Put a policy in force",
        gives={200: (PolicyVersion,)},
        takes={_TOML: str},
        headers={"If-Match": True},
        grows=True,
    ),
    Route("GET", "/tokens", Action.ISSUE_TOKEN, list_tokens, "List tokens", gives={200: (TokenList,)}),
    Route(
        "POST",
        "/tokens",
        Action.ISSUE_TOKEN,
        issue_token,
        "Issue a token",
        gives={201: (IssuedToken,)},
        takes={"application/json": NewToken},
        grows=True,
    ),
    Route(
        "POST",
        "/tokens/<id>/rotation",
        Action.ISSUE_TOKEN,
        rotate_token,
        "Issue a token in the place of another",
        gives={201: (IssuedToken,)},
        takes={"application/json": Rotation},
        grows=True,
    ),
    Route("DELETE", "/tokens/<id>", Action.ISSUE_TOKEN, revoke_token, "Revoke a token", gives={204: "text/plain"}),
    Route(
        "GET",
        "/keys",
        Action.ADD_KEY,
        list_keys,
        "List the keys of writers",
        gives={200: (KeyList,)},
        query=("after", "limit"),
    ),
    Route(
        "POST",
        "/keys",
        Action.ADD_KEY,
        add_key,
        "Register a key of a writer",
        gives={200: (WriterKey,), 201: (WriterKey,)},
        takes={"application/json": WriterKey},
        grows=True,
    ),
    Route(
        "POST",
        "/keys/removal",
        Action.ADD_KEY,
        remove_key,
        "Let nobody sign with a key of a writer any more",
        gives={200: (WriterKey,)},
        takes={"application/json": WriterKey},
    ),
    Route(
        "POST",
        "/segments/<segment>/access-requests",
        Action.READ_SEGMENT,
        request_access,
        "Ask to read the payloads of a segment for a while",
        gives={201: (AccessRequest,)},
        takes={"application/json": NewAccessRequest},
        opens=False,
        grows=True,
    ),
    Route(
        "GET",
        "/segments/<segment>/access-requests",
        Action.APPROVE,
        list_requests,
        "List who asked to read the payloads of a segment",
        gives={200: (AccessRequestList,)},
        opens=False,
    ),
    Route(
        "PUT",
        "/segments/<segment>/access-requests/<id>/approval",
        Action.APPROVE,
        approve_access,
        "Approve that somebody reads the payloads of a segment for a while",
        gives={200: (AccessRequest,)},
        opens=False,
    ),
)
