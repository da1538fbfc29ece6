"""/v1/messages/{queue_id}/envelope, headers, body and raw: what one message says.

MIME is taken apart here, in the process without rights: its author may be anybody.
"""

from collections.abc import Iterator
from itertools import chain
from typing import Any

from apiflask import APIBlueprint
from flask import Response

from postqueue_api.postfix.arguments import QueueId
from postqueue_api.web import mime, schemas
from postqueue_api.web.auth import role
from postqueue_api.web.context import answer, context

content = APIBlueprint("content", __name__, url_prefix="/v1/messages", tag="Content")

_RAW: dict[int | str, dict[str, str | dict[str, dict[str, Any]]]] = {
    200: {"description": "The message as it is stored", "content": {"message/rfc822": {"schema": {"type": "string"}}}}
}


@content.get("/<queue_id>/envelope")
@content.input(schemas.NoQuery, location="query", arg_name="query")
@content.output(schemas.EnvelopeOutput)
@role("viewer")
def show_envelope(queue_id: str, query: schemas.NoQuery) -> Response:
    """Sender, recipients, times and attributes, from the queue file's own records."""
    return answer(context().agent.envelope(QueueId.parse(queue_id)))


@content.get("/<queue_id>/headers")
@content.input(schemas.NoQuery, location="query", arg_name="query")
@content.output(schemas.HeadersOutput)
@role("content")
def show_headers(queue_id: str, query: schemas.NoQuery) -> Response:
    """The headers, decoded, in their order."""
    raw, whole = _beginning(QueueId.parse(queue_id), b"\n\n")
    headers = mime.headers(mime.split(raw)[0])
    return answer({"headers": headers.headers, "truncated": headers.truncated or not whole})


@content.get("/<queue_id>/body")
@content.input(schemas.NoQuery, location="query", arg_name="query")
@content.output(schemas.BodyOutput)
@role("content")
def show_body(queue_id: str, query: schemas.NoQuery) -> Response:
    """The text parts, and a list of attachments."""
    raw, whole = _beginning(QueueId.parse(queue_id))
    body = mime.body(raw)
    return answer({"texts": body.texts, "attachments": body.attachments, "truncated": body.truncated or not whole})


@content.get("/<queue_id>/raw")
@content.input(schemas.NoQuery, location="query", arg_name="query")
@content.doc(responses=_RAW)
@role("content")
def download(queue_id: str, query: schemas.NoQuery) -> Response:
    """The message byte for byte as it is stored, with LF line ends, to be saved."""
    parsed = QueueId.parse(queue_id)
    chunks = context().agent.content(parsed)
    first = next(chunks, b"")  # what goes wrong before the first byte is still a problem document
    response = Response(chain([first], chunks), mimetype="message/rfc822")
    response.headers["Content-Disposition"] = f'attachment; filename="{parsed}.eml"'
    return response


def _beginning(queue_id: QueueId, until: bytes | None = None) -> tuple[bytes, bool]:
    """The message up to CONTENT_LIMIT_BYTES, or only until some bytes came by; and whether that is all we want."""
    limit = context().settings.content_limit_bytes
    raw = bytearray()
    for chunk in _closing(context().agent.content(queue_id)):
        searched = max(0, len(raw) - len(until or b""))
        raw += chunk
        if until is not None and raw.find(until, searched) >= 0:
            return bytes(raw), True
        if len(raw) >= limit:
            return bytes(raw[:limit]), False
    return bytes(raw), True


def _closing(chunks: Iterator[bytes]) -> Iterator[bytes]:
    try:
        yield from chunks
    finally:
        close = getattr(chunks, "close", None)
        if close is not None:
            close()
