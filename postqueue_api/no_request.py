"""The answers that gunicorn gives in our place, to what is no request: problem documents, and nothing of what was sent.

gunicorn's own are pages that repeat the request line and the header that it did not like; so does its log.
"""

import json
import ssl
from http import HTTPStatus

from gunicorn.http import errors  # type: ignore[import-untyped]

TOO_LARGE = HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE
OF_THE_HEAD = (HTTPStatus.REQUEST_URI_TOO_LONG, TOO_LARGE)  # what a request that is well-formed may meet
_DETAILS = {
    HTTPStatus.BAD_REQUEST: "This is not a request as HTTP/1.1 has it: RFC 9112.",
    HTTPStatus.REQUEST_URI_TOO_LONG: "The request line is longer than 4094 bytes.",
    HTTPStatus.EXPECTATION_FAILED: "The one expectation that can be met is 100-continue, of HTTP/1.1.",
    TOO_LARGE: "The head of the request is too large: 100 fields of 8190 bytes, 32768 bytes in all.",
    HTTPStatus.NOT_IMPLEMENTED: "The one transfer coding is chunked.",
    HTTPStatus.INTERNAL_SERVER_ERROR: "A fault of the service; its log has it.",
}
_STATUSES: dict[type[Exception], HTTPStatus] = {
    errors.LimitRequestLine: HTTPStatus.REQUEST_URI_TOO_LONG,
    errors.ExpectationFailed: HTTPStatus.EXPECTATION_FAILED,
    errors.LimitRequestHeaders: TOO_LARGE,
    errors.UnsupportedTransferCoding: HTTPStatus.NOT_IMPLEMENTED,
}
_OURS = (errors.InvalidResponseHeader, errors.InvalidResponseHeaderName, errors.ConfigurationProblem)


def status_of(error: Exception) -> HTTPStatus:
    """The status that an error of gunicorn's parser, or of TLS, stands for; 500 for every other."""
    if isinstance(error, errors.ParseException) and not isinstance(error, _OURS):
        return _STATUSES.get(type(error), HTTPStatus.BAD_REQUEST)
    if isinstance(error, ssl.SSLError):
        return HTTPStatus.BAD_REQUEST
    return HTTPStatus.INTERNAL_SERVER_ERROR


def answer(status: HTTPStatus) -> bytes:
    """A whole response, after which the connection ends."""
    document = {
        "type": "about:blank",
        "title": status.phrase,
        "status": status.value,
        "detail": _DETAILS[status],
        "code": "error" if status == HTTPStatus.INTERNAL_SERVER_ERROR else "invalid_argument",
    }
    body = json.dumps(document).encode()
    head = (
        f"HTTP/1.1 {status.value} {status.phrase}\r\nConnection: close\r\nCache-Control: no-store\r\n"
        f"Content-Type: application/problem+json\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body
