"""The API as OpenAPI 3.1, from the routes and their models: what is not there is not served."""

import re
from collections.abc import Sequence
from importlib.metadata import version
from typing import Any

import msgspec

from tlog.api.models import Problem
from tlog.api.route import Route

_REFERENCE = "#/components/schemas/{name}"
_PARAMETER = re.compile(r"<(?:path:)?([a-z]+)>")


def describe(routes: Sequence[Route]) -> bytes:
    """Return the OpenAPI document of these routes as JSON."""
    models = [Problem, *(model for route in routes for model in _models(route))]
    schemas, components = msgspec.json.schema_components(models, ref_template=_REFERENCE)
    known = dict(zip(models, schemas, strict=True))
    paths: dict[str, dict[str, Any]] = {}
    for route in routes:
        path = _PARAMETER.sub(r"{\1}", route.path)
        paths.setdefault(path, {})[route.method.lower()] = _operation(route, known)
    document = {
        "openapi": "3.1.0",
        "info": {
            "title": "tlog",
            "version": version("tlog"),
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "paths": paths,
        "components": {"schemas": components},
    }
    return msgspec.json.encode(document)


def _models(route: Route) -> list[Any]:
    return [
        *route.takes.values(),
        *(model for given in route.gives.values() if not isinstance(given, str) for model in given),
    ]


def _operation(route: Route, schemas: dict[Any, Any]) -> dict[str, Any]:
    operation: dict[str, Any] = {
        "summary": route.summary,
        "operationId": route.view.__name__,
        "parameters": [
            *(
                {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}
                for name in _PARAMETER.findall(route.path)
            ),
            *({"name": name, "in": "query", "schema": {"type": "string"}} for name in route.query),
        ],
        "responses": {
            **{str(status): _answer(route.summary, given, schemas) for status, given in route.gives.items()},
            "default": {
                "description": "A problem (RFC 9457)",
                "content": {"application/problem+json": {"schema": schemas[Problem]}},
            },
        },
    }
    if route.takes:
        operation["requestBody"] = {
            "content": {kind: {"schema": schemas[model]} for kind, model in route.takes.items()}
        }
    return operation


def _answer(description: str, given: str | tuple[type, ...], schemas: dict[Any, Any]) -> dict[str, Any]:
    if isinstance(given, str):
        return {"description": description, "content": {given: {}}}
    several = [schemas[model] for model in given]
    schema = several[0] if len(several) == 1 else {"oneOf": several}
    return {"description": description, "content": {"application/json": {"schema": schema}}}
