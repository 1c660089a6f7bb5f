"""The description of the API, in OpenAPI 3.1, made of the routes and of the types that they name.

Invariants:
- Nothing is described that is not checked, or answered, by the same type.
"""

import inspect
from collections.abc import Iterable, Mapping, Sequence
from typing import Final, cast

import msgspec

from taskd import __version__
from taskd.http.errors import ErrorDocument
from taskd.http.forms import FORM, JSON_FIELD
from taskd.http.routes import API, AnyRoute
from taskd.http.sse import MEDIA_TYPE

Schema = dict[str, object]

_REF: Final = "#/components/schemas/{name}"

_ANY: Final = {"description": "Any JSON."}


def describe(routes: Sequence[AnyRoute], prefix: str) -> Schema:
    """Return the document.

    Args:
        routes: All there are.
        prefix: Of every path, as the server is reached.
    """
    types: list[object] = [ErrorDocument]
    for route in routes:
        types += route.types[1:]
    schemas, components = msgspec.json.schema_components(types, ref_template=_REF, schema_hook=_hook)
    errors, rest = schemas[0], iter(schemas[1:])
    paths: dict[str, Schema] = {}
    for route, body, answer in zip(routes, rest, rest, strict=False):
        told = _operation(route, body, answer, errors)
        paths.setdefault(route.path.replace(":path}", "}"), {})[route.method.lower()] = told
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "taskd",
            "version": __version__,
            "description": "Everything that taskd's command line does. See docs/http.md.",
        },
        "servers": [{"url": prefix + API}],
        "security": [{"token": []}],
        "paths": paths,
        "components": {
            "schemas": components,
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
        },
    }


def _operation(route: AnyRoute, body: Schema, answer: Schema, error: Schema) -> Schema:
    summary, _, more = (inspect.getdoc(route.handler) or "").partition("\n")
    told: Schema = {
        "operationId": getattr(route.handler, "__name__", ""),
        "tags": [route.path.split("/")[1]],
        "summary": summary.rstrip("."),
        "description": f"{more.partition('Raises:')[0].strip()}\n\nFor {', '.join(route.roles)}.".strip(),
        "parameters": list(_parameters(route)),
        "responses": {
            str(route.status): {
                "description": "Done.",
                "content": {kind: {"schema": answer} for kind in _kinds(route)},
            },
            "default": {"description": "Refused.", "content": {"application/json": {"schema": error}}},
        },
    }
    if route.method == "POST":
        content: Schema = {"application/json": {"schema": body}}
        if route.takes_payload:
            form = {
                "type": "object",
                "properties": {JSON_FIELD: body},
                "additionalProperties": {"type": "string", "format": "binary"},
            }
            content[FORM] = {"schema": form, "encoding": {JSON_FIELD: {"contentType": "application/json"}}}
        told["requestBody"] = {"content": content}
    return told


def _kinds(route: AnyRoute) -> list[str]:
    """Return what it may answer."""
    if not route.streams:
        return ["application/json"]
    return ["application/json", MEDIA_TYPE] if route.pages else [MEDIA_TYPE]


def _parameters(route: AnyRoute) -> Iterable[Schema]:
    """Yield what path and query say: the fields of one type, none of which has parts of its own."""
    path = route.path
    [asked] = msgspec.json.schema_components([route.types[0]])[1].values()
    required = cast("Sequence[str]", asked.get("required", ()))
    for name, schema in cast("Mapping[str, Schema]", asked.get("properties", {})).items():
        in_path = f"{{{name}}}" in path or f"{{{name}:path}}" in path
        bare = {key: value for key, value in schema.items() if key != "description"}
        told: Schema = {"name": name, "in": "path" if in_path else "query", "required": in_path or name in required}
        if "description" in schema:
            told["description"] = schema["description"]
        yield {**told, "schema": bare}


def _hook(kind: type) -> Schema:
    if kind in {object, msgspec.Raw}:
        return dict(_ANY)
    raise NotImplementedError
