"""The API as OpenAPI 3.1, from the routes and their models: what is not there is not served."""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from typing import Any, Final

import msgspec

from tlog.access import Action
from tlog.api.body import ANY_TYPE
from tlog.api.models import Problem
from tlog.api.route import Route
from tlog.config import MAX_PAGE
from tlog.search.terms import MAX_VALUE
from tlog_core.encoding import MAX_INTEGER, MAX_JSON_INTEGER

_REFERENCE: Final = "#/components/schemas/{name}"
_PARAMETER: Final = re.compile(r"<(?:path:)?([a-z]+)>")
_NUMBER: Final = {"type": "integer", "minimum": 0, "maximum": MAX_INTEGER}
_VALUE: Final[Mapping[str, Any]] = {"type": "string", "minLength": 1, "maxLength": MAX_VALUE}
_PARAMETERS: Final[Mapping[str, Mapping[str, Any]]] = {
    "action": _VALUE,
    "actor": _VALUE,
    "after": {"type": "string"},
    "before": _NUMBER,
    "cosigned": {"type": "string", "enum": ["true"]},
    "id": {"type": "string", "pattern": "^[0-9a-f]{16}$"},
    "index": _NUMBER,
    "limit": {"type": "integer", "minimum": 1, "maximum": MAX_PAGE},
    "new": _NUMBER,
    "old": _NUMBER,
    "outcome": {"type": "string", "enum": ["success", "failure"]},
    "path": {"type": "string", "pattern": r"^([0-7]|entries)/(x[0-9]{3}/)*[0-9]{3}(\.p/[1-9][0-9]{0,2})?$"},
    "q": {**_VALUE, "pattern": r"[\p{L}\p{N}_]"},
    "segment": {"type": "string", "pattern": "^[a-z0-9][a-z0-9-]{0,62}$"},
    "since": _NUMBER,
    "size": _NUMBER,
    "source": _VALUE,
    "start": _NUMBER,
    "target": _VALUE,
    "until": _NUMBER,
    "Idempotency-Key": {"type": "string", "pattern": "^[!-~]{1,255}$"},
    "If-Match": {"type": "string", "pattern": '^"(0|[1-9][0-9]{0,17})"$'},
}
_STRING: Final = {"type": "string"}
# RFC 8785 writes each of these numbers so that every reader reads it alike.
_EVENT: Final = {
    "description": "A JSON value, nesting at most 64 deep.",
    "anyOf": [
        {"type": ["null", "boolean", "string"]},
        {"type": "number", "minimum": -MAX_JSON_INTEGER, "maximum": MAX_JSON_INTEGER},
        {"type": "number", "minimum": 1e21},
        {"type": "number", "maximum": -1e21},
        {"type": "array", "items": {"$ref": "#/components/schemas/Event"}},
        {"type": "object", "additionalProperties": {"$ref": "#/components/schemas/Event"}},
    ],
}
_PROBLEM: Final = {
    "description": "A problem (RFC 9457)",
    "content": {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}},
}
_CREDENTIAL: Final = {"credential": list[str]()}


def describe(routes: Sequence[Route], *, guarded: bool) -> bytes:
    """Return the OpenAPI document of these routes as JSON; a server that is not guarded asks for no credential."""
    models = [Problem, *(model for route in routes for model in _models(route))]
    schemas, components = msgspec.json.schema_components(models, ref_template=_REFERENCE)
    known = dict(zip(models, schemas, strict=True)) | {Any: {"$ref": "#/components/schemas/Event"}}
    views = Counter(route.view for route in routes)
    paths: dict[str, dict[str, Any]] = {}
    for route in routes:
        path = _PARAMETER.sub(r"{\1}", route.path)
        operation = _operation(route, known) | _security(route.action, guarded)
        # Of a view that several paths have, the paths tell the operations apart.
        behind = "" if views[route.view] == 1 else re.sub(r"\W+", "_", path)
        operation["operationId"] = f"{route.view.__name__}{behind}"
        paths.setdefault(path, {})[route.method.lower()] = operation
    document = {
        "openapi": "3.1.0",
        "info": {
            "title": "tlog",
            "version": version("tlog"),
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "paths": paths,
        "components": {
            "schemas": {**components, "Event": _EVENT},
            "securitySchemes": {"credential": {"type": "http", "scheme": "bearer"}},
        },
    }
    return msgspec.json.encode(document)


def _models(route: Route) -> list[Any]:
    return [
        *route.takes.values(),
        *(model for given in route.gives.values() if not isinstance(given, str) for model in given),
        *([] if route.refusal is None else [route.refusal]),
    ]


def _operation(route: Route, schemas: dict[Any, Any]) -> dict[str, Any]:
    errors = _errors(route, schemas)
    operation: dict[str, Any] = {
        "summary": route.summary,
        "parameters": [
            *(_parameter(name, "path", required=True) for name in _PARAMETER.findall(route.path)),
            *(_parameter(name, "query", _schemas_of_query(route)) for name in route.query),
            *(_parameter(name, "header", required=needed) for name, needed in route.headers.items()),
        ],
        "responses": {
            **{str(status): _answer(route.summary, given, schemas) for status, given in route.gives.items()},
            "4XX": errors,
            "5XX": errors,
        },
    }
    if route.takes:
        operation["requestBody"] = _body(route, schemas)
    return operation


def _errors(route: Route, schemas: dict[Any, Any]) -> dict[str, Any]:
    if route.refuse is None:
        return _PROBLEM
    said = "An error, in the words of the sender's protocol"
    return {"description": said} if route.refusal is None else _answer(said, (route.refusal,), schemas)


def _security(action: Action, guarded: bool) -> dict[str, Any]:
    if not guarded or action is Action.OPERATE:
        return {}
    return {"security": [{}, _CREDENTIAL] if action is Action.LIST_SEGMENTS else [_CREDENTIAL]}


def _schemas_of_query(route: Route) -> Mapping[str, Any]:
    # To Splunk, index and source are texts, as all else in a query.
    return {} if route.path.startswith("/services/") else _PARAMETERS


def _parameter(
    name: str, place: str, schemas: Mapping[str, Any] = _PARAMETERS, *, required: bool = False
) -> dict[str, Any]:
    return {"name": name, "in": place, "required": required, "schema": schemas.get(name, _STRING)}


def _body(route: Route, schemas: dict[Any, Any]) -> dict[str, Any]:
    content = {kind: {"schema": schemas[model]} for kind, model in route.takes.items()}
    opaque = content.pop(ANY_TYPE, None)
    # A segment is made without a body too, and a receiver takes whatever it is sent, so that nothing is lost.
    receives = route.action is Action.INGEST
    body: dict[str, Any] = {"required": route.labels is None and not receives, "content": content}
    if receives and opaque is not None:
        content[ANY_TYPE] = {}
    elif opaque is not None:
        # To say `*/*` would promise that forms are taken.
        content["application/octet-stream"] = opaque
        body["description"] = "Of any other media type, but that of a form, the body is one opaque payload."
    return body


def _answer(description: str, given: str | tuple[type, ...], schemas: dict[Any, Any]) -> dict[str, Any]:
    if isinstance(given, str):
        return {"description": description, "content": {given: {}} if given else {}}
    several = [schemas[model] for model in given]
    schema = several[0] if len(several) == 1 else {"anyOf": several}
    return {"description": description, "content": {"application/json": {"schema": schema}}}
