"""/v1/trash: what was deleted and can come back."""

import math
from typing import Any

from apiflask import APIBlueprint
from flask import Response

from postqueue_api.errors import Conflict
from postqueue_api.postfix.arguments import QueueId
from postqueue_api.queue.trash import Copy
from postqueue_api.web import asking, schemas
from postqueue_api.web.auth import role
from postqueue_api.web.context import answer, context
from postqueue_api.web.outcome import answer_change

trash = APIBlueprint("trash", __name__, url_prefix="/v1/trash", tag="Trash")


@trash.get("")
@trash.input(schemas.NewestFirstQuery, location="query", arg_name="query")
@trash.output(schemas.TrashOutput)
@role("viewer")
def list_trash(query: schemas.NewestFirstQuery) -> Response:
    """What is kept and can come back, newest first; and how much that is in all."""
    book = context().trash
    found = book.page(query.limit + 1, query.next)
    messages, size = book.totals()
    following = found[query.limit - 1].number if len(found) > query.limit else None
    copies = [_shown(copy) for copy in found[: query.limit]]
    return answer({"messages": messages, "bytes": size, "copies": copies, "next": following})


@trash.get("/<queue_id>")
@trash.input(schemas.NoQuery, location="query", arg_name="query")
@trash.output(schemas.CopyOutput)
@role("viewer")
def show_copy(queue_id: str, query: schemas.NoQuery) -> Response:
    """The newest copy of a message, also when it was restored or its time was over."""
    return answer(_shown(context().trash.newest(QueueId.parse(queue_id))))


@trash.post("/<queue_id>/restore")
@trash.input(schemas.NoQuery, location="query", arg_name="query")
@trash.input(schemas.RestoreInput, location="json", arg_name="body")
@trash.output(schemas.ChangeOutput)
@role("admin")
def restore_copy(queue_id: str, query: schemas.NoQuery, body: schemas.RestoreInput) -> Response:
    """Put a message back into the queue: the same sender, recipients still due, DSN parameters, arrival time, bytes."""
    parsed = QueueId.parse(queue_id)
    context().trash.newest(parsed)
    operation = context().agent.restore(
        {
            "queue_id": str(parsed),
            "to": body.to,
            "although_exported": body.although_exported,
            "reason": body.reason,
            "actor": asking.actor(),
            "wait": context().settings.command_timeout_seconds,
        }
    )
    items = context().journal.results(operation.operation_id, 1)
    if items and items[0].outcome == "no_change":
        raise Conflict(items[0].detail or "It was restored before.", operation_id=operation.operation_id)
    return answer_change(operation, str(parsed), 200)


def _shown(copy: Copy) -> dict[str, Any]:
    return {
        "queue_id": copy.queue_id,
        "operation_id": copy.operation_id,
        "state": "exported" if copy.state == "kept" and copy.exported_at is not None else copy.state,
        "queue_name": copy.queue_name,
        "arrival_time": copy.arrival_time,
        "sender": copy.sender,
        "recipients": copy.recipients,
        "queue_file_bytes": copy.length,
        "forced_expire": copy.forced_expire,
        "kept_at": copy.kept_at,
        "expires_at": None if math.isinf(copy.expires_at) else copy.expires_at,
        "restored_as": copy.restored_as,
        "origin": copy.origin,
        "exported_at": copy.exported_at,
    }
