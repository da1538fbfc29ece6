"""/v1/trash/export, import and exported: messages that move to another Postfix, each of them once."""

from collections.abc import Iterator
from itertools import chain
from typing import Any

import msgspec
from apiflask import APIBlueprint
from flask import Response, request
from werkzeug.exceptions import ClientDisconnected

from postqueue_api.errors import Error, InvalidArgument, PayloadTooLarge, UnsupportedMediaType
from postqueue_api.queue.moves import TAKEN_OVER
from postqueue_api.queue.operation import Operation
from postqueue_api.web import asking, audit, schemas
from postqueue_api.web.auth import role
from postqueue_api.web.context import answer, context
from postqueue_api.web.outcome import shown

moves = APIBlueprint("moves", __name__, url_prefix="/v1/trash", tag="Move")

MEDIA_TYPE = "application/x-tar"
_CHUNK_BYTES = 1 << 16
_TAR: dict[int | str, dict[str, str | dict[str, dict[str, Any]]]] = {
    200: {"description": "A tar of queue files", "content": {MEDIA_TYPE: {"schema": {"type": "string"}}}}
}


@moves.get("/export")
@moves.input(schemas.ExportQuery, location="query", arg_name="query")
@moves.doc(responses=_TAR)
@role("admin", "content")
def export(query: schemas.ExportQuery) -> Response:
    """All that waits to be moved, or what one operation put into the trash, as a tar. It stays here until confirmed."""
    chunks = context().agent.export({"actor": asking.actor(), "operation_id": query.operation_id})
    first = next(chunks, b"")  # what goes wrong before the first byte is still a problem document
    response = Response(chain([first], chunks), mimetype=MEDIA_TYPE)
    response.headers["Content-Disposition"] = 'attachment; filename="messages.tar"'
    return context().limits.hold_stream(response)


@moves.post("/import")
@moves.input(schemas.ImportQuery, location="query", arg_name="query")
@moves.output(schemas.ImportOutput)
@role("admin", "content")
def bring_in(query: schemas.ImportQuery) -> Response:
    """Take a tar from the export of another Postfix into the trash, all of it or nothing. Restore it when it is
    confirmed there; the answer, sent to /v1/trash/exported there, confirms it."""
    wanted = {"actor": asking.actor(), "reason": query.reason, "again": query.although_imported}
    try:
        operation = context().agent.bring_in(wanted, _body(context().settings.import_limit_bytes))
    except Error as error:
        audit.record(action="import", outcome=error.code, reason=query.reason)
        raise
    rows = context().moves.receipts(operation.operation_id)
    return Response(_receipt(operation, rows), mimetype="application/json")


@moves.post("/exported")
@moves.input(schemas.NoQuery, location="query", arg_name="query")
@moves.input(schemas.ExportedInput, location="json", arg_name="body")
@moves.output(schemas.OperationOutput)
@role("admin")
def confirm(query: schemas.NoQuery, body: schemas.ExportedInput) -> Response:
    """Note that somebody else has these messages: they are not restored here any more. Takes an import's answer."""
    copies = [
        {"queue_id": each.queue_id, "checksum": each.checksum} for each in body.copies if each.outcome in TAKEN_OVER
    ]
    if not copies:
        raise InvalidArgument("No message of these was taken over.", field="copies", accepted="what an import answered")
    try:
        wanted = {"actor": asking.actor(), "copies": copies, "reason": body.reason}
        return answer(shown(context().agent.confirm(wanted)))
    except Error as error:
        audit.record(action="confirm", outcome=error.code, reason=body.reason)
        raise


def _body(limit: int) -> Iterator[bytes]:
    """The request's body as it comes. Raises PayloadTooLarge, UnsupportedMediaType, and InvalidArgument for a cut one.

    BODY_LIMIT_BYTES is for what is read into memory, and does not hold here.
    """
    if request.mimetype != MEDIA_TYPE:
        raise UnsupportedMediaType(f"Send the tar as {MEDIA_TYPE}.")
    too_large = PayloadTooLarge(f"The tar is larger than {limit} bytes: see POSTQUEUE_API_IMPORT_LIMIT_BYTES.")
    if (request.content_length or 0) > limit:
        raise too_large
    request.max_content_length = limit + 1  # it is counted here
    left = limit
    while part := _received():
        left -= len(part)
        if left < 0:
            raise too_large
        yield part


def _received() -> bytes:
    try:
        return request.stream.read(_CHUNK_BYTES)
    except (OSError, ClientDisconnected):  # gunicorn's and Werkzeug's words for a client that is gone, or too slow
        raise InvalidArgument("The body broke off.", field="body", accepted="a whole tar") from None


def _receipt(operation: Operation, rows: Iterator[tuple[str, str, str]]) -> Iterator[bytes]:
    """What is sent on to where the tar came from; made while it is sent, when the request is over."""
    head = msgspec.json.encode({"operation_id": operation.operation_id, "outcomes": operation.outcomes})
    yield head[:-1] + b',"copies":['
    block = bytearray()
    for number, (queue_id, checksum, outcome) in enumerate(rows):
        row = {"queue_id": queue_id, "checksum": checksum, "outcome": outcome}
        block += (b"," if number else b"") + msgspec.json.encode(row)
        if len(block) >= _CHUNK_BYTES:
            yield bytes(block)
            block.clear()
    yield bytes(block) + b"]}"
