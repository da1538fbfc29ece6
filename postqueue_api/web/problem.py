"""Every error as application/problem+json (RFC 9457), in one place.

A problem document has `type`, `title`, `status`, `detail`, a stable `code`, the `request_id`, and for a value
that was not accepted `field` and `accepted`. A bug stays a 500 and tells nothing of itself.
"""

import logging
from typing import Any

import msgspec
from flask import Flask, Response, request
from werkzeug.exceptions import HTTPException

from postqueue_api.errors import Error, TooManyRequests
from postqueue_api.web import audit

log = logging.getLogger(__name__)

MEDIA_TYPE = "application/problem+json"

_HTTP_CODES = {404: "not_found", 405: "method_not_allowed", 413: "payload_too_large", 415: "unsupported_media_type"}
_HTTP_DETAILS = {
    404: "There is nothing at this address: see /docs for all that there is.",
    405: "This address does not take that method; the Allow header names those that it takes.",
    411: "Send a form with its Content-Length.",
    413: "The request body is larger than POSTQUEUE_API_BODY_LIMIT_BYTES allows.",
}


def install(app: Flask) -> None:
    """Make the application answer every error this way."""
    app.register_error_handler(Error, _of_ours)
    app.register_error_handler(HTTPException, _of_http)
    app.register_error_handler(Exception, _of_a_bug)


def of(error: Error | HTTPException) -> Response:
    """The problem document of an error."""
    return _of_ours(error) if isinstance(error, Error) else _of_http(error)


def _of_ours(error: Error) -> Response:
    response = _problem(error.status, error.title, error.detail, error.code, error.members)
    if isinstance(error, TooManyRequests):
        response.headers["Retry-After"] = str(error.retry_after)
    return response


def _of_http(error: HTTPException) -> Response:
    status = error.code or 500
    code = _HTTP_CODES.get(status, "invalid_argument" if status < 500 else "error")
    detail = _HTTP_DETAILS.get(status, "The request is not one that HTTP allows here.")
    response = _problem(status, error.name, detail, code, {})
    if "Allow" in (headers := dict(error.get_headers(request.environ))):
        response.headers["Allow"] = headers["Allow"]
    return response


def _of_a_bug(error: Exception) -> Response:
    log.error("request %s met a fault", audit.request_id(), exc_info=error)
    return _problem(500, Error.title, "A fault of the service; its log has it under the request_id.", Error.code, {})


def _problem(status: int, title: str, detail: str, code: str, members: dict[str, Any]) -> Response:
    document = {
        "type": "about:blank",
        "title": title,
        "status": status,
        "detail": detail,
        "code": code,
        "request_id": audit.request_id(),
        **members,
    }
    return Response(msgspec.json.encode(document), status, mimetype=MEDIA_TYPE)
