"""The OpenAPI document: APIFlask makes it from the views; here is what is the same for all of them."""

from typing import Any

from apiflask import APIFlask

from postqueue_api.no_request import OF_THE_HEAD
from postqueue_api.web import session

_DESCRIPTION = (
    "Manage one Postfix mail queue. Times are seconds since the epoch, sizes bytes. Every error is a problem"
    " document (RFC 9457) with a stable `code`. GET never changes anything."
)
_SESSION = "A session of the dashboard; over TLS the name begins with __Host-. docs/dashboard.md."
_CSRF = "The session's token, from a page of the dashboard; a change needs it besides the cookie."
_PROBLEM = {
    "type": "object",
    "properties": {
        "type": {"type": "string"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string", "description": "what is wrong and what to do"},
        "code": {"type": "string", "description": "stable; README lists them"},
        "request_id": {"type": "string", "description": "in the log too; not of a head that is too large"},
        "field": {"type": "string", "description": "what was not accepted"},
        "accepted": {"type": "string", "description": "what would be"},
    },
    "required": ["type", "title", "status", "detail", "code"],
}
_OPEN = ("/health/", "/openapi.json", "/docs")
_TAR = {"/v1/trash/import": {"content": {"application/x-tar": {"schema": {"type": "string"}}}}}
_MAY_CONFLICT = ("/v1/drain", "/v1/trash/import", "/v1/trash/export")
_NEEDS_BODY = ("/v1/operations", "/v1/drain", "/v1/trash/import", "/v1/trash/exported")


def describe(app: APIFlask) -> None:
    """Set what the document says of the service as a whole, and what every operation may answer."""
    app.config.update(
        OPENAPI_VERSION="3.1.0",
        DESCRIPTION=_DESCRIPTION,
        AUTO_OPERATION_ID=True,
        # Not from the Host header: the document is made once, for whoever asks first, and kept.
        AUTO_SERVERS=False,
        SERVERS=[{"url": "/"}],
        AUTO_404_RESPONSE=False,
        AUTO_AUTH_ERROR_RESPONSE=False,
        AUTO_VALIDATION_ERROR_RESPONSE=False,
    )
    app.security_schemes = {
        "basic": {"type": "http", "scheme": "basic"},
        "bearer": {"type": "http", "scheme": "bearer"},
        "session": {"type": "apiKey", "in": "cookie", "name": session.COOKIE, "description": _SESSION},
        "token": {"type": "apiKey", "in": "header", "name": "X-CSRF-Token", "description": _CSRF},
    }
    app.spec_processor(_complete)


def _complete(spec: dict[Any, Any] | str) -> dict[Any, Any] | str:
    assert isinstance(spec, dict)
    schemas = spec.setdefault("components", {}).setdefault("schemas", {})
    schemas["Problem"] = _PROBLEM
    for path, methods in spec["paths"].items():
        for method, operation in methods.items():
            if method != "parameters":
                _correct(operation)
                if not path.startswith(_OPEN):
                    _describe_operation(method, path, operation)
    spec["tags"] = [tag for tag in spec.get("tags", []) if tag["name"] in _used_tags(spec)]
    return spec


def _used_tags(spec: dict[Any, Any]) -> set[str]:
    operations = (each for methods in spec["paths"].values() for name, each in methods.items() if name != "parameters")
    return {tag for operation in operations for tag in operation.get("tags", [])}


def _correct(operation: dict[str, Any]) -> None:
    """What is made from pydantic models and says more than is so: a parameter left out is not null, a 304 is empty."""
    for parameter in operation.get("parameters", ()):
        schema = parameter["schema"]
        if schema.get("default", ...) is None:
            del schema["default"]
        kinds = [kind for kind in schema.get("anyOf", ()) if kind != {"type": "null"}]
        if len(kinds) == 1:
            schema.pop("anyOf")
            schema.update(kinds[0])
    operation["responses"].get("304", {}).pop("content", None)


def _describe_operation(method: str, path: str, operation: dict[str, Any]) -> None:
    by_session: dict[str, list[str]] = {"session": []} if method == "get" else {"session": [], "token": []}
    operation["security"] = [{"basic": []}, {"bearer": []}, by_session]
    statuses = ["400", "401", "403", *(f"{status:d}" for status in OF_THE_HEAD), "500", "502", "503", "504", "507"]
    if "{queue_id}" in path or "{site}" in path or "/operations" in path or path in _MAY_CONFLICT:
        statuses += ["404", "409"]
    if any(parameter.get("name") == "snapshot_id" for parameter in operation.get("parameters", ())):
        statuses += ["410"]
    if path in _TAR:  # a stream, which no model reads
        operation["requestBody"] = {**_TAR[path]}
    if "requestBody" in operation:
        operation["requestBody"]["required"] = path in _NEEDS_BODY
        statuses += ["413", "415"]
    for status in statuses:
        operation["responses"].setdefault(
            status,
            {
                "description": "A problem document",
                "content": {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}},
            },
        )
