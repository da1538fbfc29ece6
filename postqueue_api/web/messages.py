"""/v1/messages and one row of it: what is in the queue."""

from typing import Any

import msgspec
from apiflask import APIBlueprint
from flask import Response, current_app, request
from werkzeug.exceptions import HTTPException, MethodNotAllowed

from postqueue_api.errors import InvalidArgument, NotFound
from postqueue_api.postfix.arguments import QueueId
from postqueue_api.queue import page
from postqueue_api.queue.snapshot import Snapshot
from postqueue_api.web import schemas, stream
from postqueue_api.web.auth import role
from postqueue_api.web.context import answer_from, context, fresh_snapshot, kept_snapshot, raw_list

messages = APIBlueprint("messages", __name__, url_prefix="/v1/messages", tag="Messages")

DEFAULT_LIMIT = 100


@messages.get("")
@messages.input(schemas.MessagesQuery, location="query", arg_name="query")
@messages.output(schemas.MessagesOutput)
@messages.doc(responses=stream.RESPONSES)
@role("viewer")
def list_messages(query: schemas.MessagesQuery) -> Response:
    """The messages that fit a selection: one page, or with another Accept header a stream of all of them."""
    selection, order = query.selection(), page.Order.parse(query.sort)
    kind = request.accept_mimetypes.best_match(["application/json", *stream.MEDIA_TYPES], default="application/json")
    if kind in stream.MEDIA_TYPES:
        _refuse_paging(query)
        return context().limits.hold_stream(stream.answer(_chosen(query), selection, order, kind))
    found = _chosen(query)
    shown = page.page(found, selection, order, query.limit or DEFAULT_LIMIT, query.next)
    if shown.next is not None:
        context().agent.keep(found.info.snapshot_id)
    members = {"total": shown.total, "messages": raw_list(shown.documents), "next": shown.next}
    return answer_from(found, members)


def _chosen(query: schemas.MessagesQuery) -> Snapshot:
    """The snapshot that a cursor or the question names, or a fresh one."""
    wanted = query.snapshot_id if query.next is None else page.cursor_snapshot(query.next)
    if wanted is None:
        return fresh_snapshot()
    if query.snapshot_id not in (None, wanted):
        raise InvalidArgument("next belongs to another snapshot.", field="next", accepted="one of the same snapshot_id")
    return kept_snapshot(wanted, "snapshot_id" if query.next is None else "next")


def _refuse_paging(query: schemas.MessagesQuery) -> None:
    for name in ("limit", "next"):
        if getattr(query, name) is not None:
            raise InvalidArgument(f"{name} is for pages, and this is a stream.", field=name, accepted="no value")


@messages.get("/<queue_id>")
@messages.input(schemas.NoQuery, location="query", arg_name="query")
@messages.output(schemas.MessageRowOutput)
@role("viewer")
def show_message(queue_id: str, query: schemas.NoQuery) -> Response:
    """One message as it is listed. A message that is newer than the snapshot is looked up in the queue itself."""
    parsed = QueueId.parse(queue_id)
    found = fresh_snapshot()
    document = found.document(parsed)
    if document is None:
        known = context().agent.look_up(parsed)
        found = fresh_snapshot(max_age=0)
        document = found.document(parsed) or _incomplete(parsed, known)
    return answer_from(found, {"message": msgspec.Raw(document)})


@messages.route("/<path:rest>", methods=["GET", "POST", "PUT", "PATCH", "DELETE"])
@messages.doc(hide=True)
@role("viewer")
def nothing_here(rest: str) -> Response:
    """A queue ID that is none is told so, also where it holds a slash and so fits no other route."""
    QueueId.parse(rest.partition("/")[0])
    adapter = current_app.url_map.bind("")
    allowed = [method for method in ("DELETE", "GET", "HEAD", "OPTIONS", "POST") if _fits(adapter, method)]
    if allowed:
        raise MethodNotAllowed(allowed)
    raise NotFound("There is nothing at this address: see /docs for all that there is.")


def _fits(adapter: Any, method: str) -> bool:
    try:
        endpoint, _ = adapter.match(request.path, method)
    except HTTPException:
        return False
    return bool(endpoint != request.endpoint)


def _incomplete(queue_id: QueueId, known: dict[str, Any]) -> bytes:
    """A message that is in the queue and moved past the listing: what the queue file tells, the rest null."""
    return msgspec.json.encode({**known, "queue_id": str(queue_id), "message_size": None, "recipients": None})
