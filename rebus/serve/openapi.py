"""The request bodies in `/openapi.json`, which handlers parse without FastAPI, whose errors echo them."""

from collections.abc import Sequence
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic.json_schema import models_json_schema

from rebus import __version__
from rebus.serve import bodies

_REF = "#/components/schemas/{model}"
_BODIES = [kind for kind in vars(bodies).values() if isinstance(kind, type) and issubclass(kind, bodies.Body)]
_ERROR = {
    "type": "object",
    "required": ["error"],
    "properties": {
        "error": {
            "type": "object",
            "required": ["message", "type", "param", "code"],
            "properties": {
                "message": {"type": "string"},
                "type": {"type": "string"},
                "param": {"type": ["string", "null"]},
                "code": {"type": "string"},
            },
        }
    },
}
_FAILED = {"description": "an error", "content": {"application/json": {"schema": {"$ref": _REF.format(model="Error")}}}}
_STATUSES = ("400", "401", "403", "404", "408", "413", "415", "429", "500", "503", "504")


def takes(kind: type[bodies.Body] | None, raw: Sequence[str] = (), query: Sequence[str] = ()) -> dict[str, Any]:
    """Options of a route: its JSON body, or an image as it is with the rest in the `query`."""
    content: dict[str, Any] = {media: {"schema": {"type": "string", "format": "binary"}} for media in raw}
    if kind is not None:
        content["application/json"] = {"schema": {"$ref": _REF.format(model=kind.__name__)}}
    parameters = [{"name": name, "in": "query", "required": False, "schema": {"type": "string"}} for name in query]
    extra: dict[str, Any] = {"requestBody": {"required": True, "content": content}} if content else {}
    return {"openapi_extra": {**extra, **({"parameters": parameters} if parameters else {})}}


def describe(app: FastAPI) -> dict[str, Any]:
    """The schema of all routes."""
    found = get_openapi(title="rebus", version=__version__, routes=app.routes)
    _, schemas = models_json_schema([(kind, "validation") for kind in _BODIES], ref_template=_REF)
    components = found.setdefault("components", {}).setdefault("schemas", {})
    components |= {**schemas.get("$defs", {}), "Error": _ERROR}
    if app.state.service.settings.api_key is not None:
        found["components"]["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer"}}
        found["security"] = [{"key": []}]
    for path, methods in found["paths"].items():
        for method in methods.values():
            names = [part[1:-1] for part in path.split("/") if part.startswith("{")]
            if names:
                given = [{"name": n, "in": "path", "required": True, "schema": {"type": "string"}} for n in names]
                method["parameters"] = [*given, *method.get("parameters", [])]
            method["responses"] = {**method["responses"], **dict.fromkeys(_STATUSES, _FAILED)}
            method["responses"].pop("422", None)
    return found
