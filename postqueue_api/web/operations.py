"""/v1/operations: one action on many messages, tried beforehand, watched, cancelled, and accounted for one by one."""

import hashlib
import re
from collections.abc import Iterator, Sequence
from typing import Any

import msgspec
from apiflask import APIBlueprint
from flask import Response, request

from postqueue_api.errors import InvalidArgument
from postqueue_api.queue.journal_reader import JournalReader
from postqueue_api.queue.operation import Item, too_many
from postqueue_api.web import asking, preview, schemas
from postqueue_api.web.auth import require, role
from postqueue_api.web.context import answer, context, new_snapshot
from postqueue_api.web.outcome import shown

operations = APIBlueprint("operations", __name__, url_prefix="/v1/operations", tag="Operations")

ROLE_OF = {
    "flush": "operator",
    "hold": "operator",
    "release": "operator",
    "requeue": "operator",
    "expire": "admin",
    "delete": "admin",
    "export": "admin",
    "restore": "admin",
    "import": "admin",
    "confirm": "admin",
}
_RESULTS_AT_ONCE = 1000
_WAIT_LIMIT_SECONDS = 60


@operations.post("")
@operations.input(schemas.NoQuery, location="query", arg_name="query")
@operations.input(schemas.OperationInput, location="json", arg_name="body")
@operations.output(schemas.OperationOutput, status_code=202)
@operations.doc(
    summary="Do something to many messages, or with dry_run say what would be done.",
    responses={200: "Done within Prefer: wait=SECONDS, or the answer to a dry run"},
)
@role("operator")
def make_operation(query: schemas.NoQuery, body: schemas.OperationInput) -> Response:
    """The selection is resolved on a listing that is taken after the request."""
    require(ROLE_OF[body.action])
    limit = context().settings.operation_limit_messages
    if body.selection.queue_ids is not None and len(body.selection.queue_ids) > limit:
        raise too_many(limit)
    if body.dry_run:
        return answer(preview.preview(new_snapshot(), body))
    operation = context().agent.operate(
        {
            "action": body.action,
            "actor": asking.actor(),
            **_chosen(body),
            "reason": body.reason,
            "expected_count": body.expected_count,
            "keep_copy": body.keep_copy,
            "max_per_second": body.max_per_second,
            "key": asking.idempotency_key(),
            "fingerprint": hashlib.blake2b(msgspec.json.encode(body.model_dump()), digest_size=16).hexdigest(),
            "wait": asking.wait_seconds(_WAIT_LIMIT_SECONDS),
        }
    )
    response = answer(shown(operation), 200 if operation.is_over else 202)
    response.headers["Location"] = f"/v1/operations/{operation.operation_id}"
    return response


@operations.get("")
@operations.input(schemas.NewestFirstQuery, location="query", arg_name="query")
@operations.output(schemas.OperationsOutput)
@role("viewer")
def list_operations(query: schemas.NewestFirstQuery) -> Response:
    """The operations, newest first."""
    found = context().journal.operations(query.limit + 1, query.next)
    following = found[query.limit - 1].number if len(found) > query.limit else None
    return answer({"operations": [shown(operation) for operation in found[: query.limit]], "next": following})


@operations.get("/<operation_id>")
@operations.input(schemas.NoQuery, location="query", arg_name="query")
@operations.output(schemas.OperationOutput)
@role("viewer")
def show_operation(operation_id: str, query: schemas.NoQuery) -> Response:
    """State, progress and the outcomes so far."""
    return answer(shown(context().journal.operation(_checked(operation_id))))


@operations.get("/<operation_id>/results")
@operations.input(schemas.ResultsQuery, location="query", arg_name="query")
@operations.output(schemas.ResultsOutput)
@role("viewer")
def list_results(operation_id: str, query: schemas.ResultsQuery) -> Response:
    """One row per message with what became of it and why; with Accept: application/x-ndjson all of them."""
    parsed = _checked(operation_id)
    if request.accept_mimetypes.best_match(["application/json", "application/x-ndjson"]) == "application/x-ndjson":
        context().journal.operation(parsed)
        stream = Response(_stream(context().journal, parsed, query.outcome or None), mimetype="application/x-ndjson")
        return context().limits.hold_stream(stream)
    found = context().journal.results(parsed, query.limit + 1, query.next, query.outcome or None)
    following = found[query.limit - 1].position if len(found) > query.limit else None
    return answer({"results": [_result(item) for item in found[: query.limit]], "next": following})


@operations.post("/<operation_id>/cancel")
@operations.input(schemas.NoQuery, location="query", arg_name="query")
@operations.input(schemas.ChangeInput, location="json", arg_name="body")
@operations.output(schemas.OperationOutput)
@role("operator")
def cancel_operation(operation_id: str, query: schemas.NoQuery, body: schemas.ChangeInput) -> Response:
    """End an operation before its next messages; what it did not come to is skipped. Needs the role of its action."""
    parsed = _checked(operation_id)
    require(ROLE_OF[context().journal.operation(parsed).action])
    return answer(shown(context().agent.cancel(parsed)))


@operations.post("/<operation_id>/restore")
@operations.input(schemas.NoQuery, location="query", arg_name="query")
@operations.input(schemas.RestoreInput, location="json", arg_name="body")
@operations.output(schemas.OperationOutput, status_code=202)
@role("admin")
def restore_operation(operation_id: str, query: schemas.NoQuery, body: schemas.RestoreInput) -> Response:
    """Undo a delete, or end a move: put all that the operation brought into the trash, and is there, into the queue."""
    wanted = {
        "operation_id": _checked(operation_id),
        "to": body.to,
        "although_exported": body.although_exported,
        "reason": body.reason,
        "actor": asking.actor(),
        "wait": asking.wait_seconds(_WAIT_LIMIT_SECONDS),
    }
    operation = context().agent.restore(wanted)
    response = answer(shown(operation), 200 if operation.is_over else 202)
    response.headers["Location"] = f"/v1/operations/{operation.operation_id}"
    return response


def _chosen(body: schemas.OperationInput) -> dict[str, Any]:
    if body.selection.queue_ids is not None:
        return {"queue_ids": list(body.selection.queue_ids)}
    if body.selection.everything:
        return {"everything": True}
    return {"selection": body.selection.selection().as_dict()}


def _checked(operation_id: str) -> str:
    if re.fullmatch(r"op-[0-9a-f]{16}", operation_id, re.ASCII) is None:
        raise InvalidArgument(
            "operation_id is not one of ours.", field="operation_id", accepted="what the operation's answer said"
        )
    return operation_id


def _result(item: Item) -> dict[str, Any]:
    return {
        "position": item.position,
        "queue_id": item.target.queue_id,
        "arrival_time": item.target.arrival_time,
        "sender": item.target.sender,
        "outcome": item.outcome,
        "detail": item.detail,
        "new_queue_id": None if item.outcome is None else item.new_queue_id,
        "finished_at": item.finished_at,
    }


def _stream(journal: JournalReader, operation_id: str, outcomes: Sequence[str] | None) -> Iterator[bytes]:
    """Made while it is sent, when the request that asked for it is over."""
    after, sent = 0, 0
    while items := journal.results(operation_id, _RESULTS_AT_ONCE, after, outcomes):
        yield b"".join(msgspec.json.encode(_result(item)) + b"\n" for item in items)
        after, sent = items[-1].position, sent + len(items)
    yield msgspec.json.encode({"complete": True, "results": sent}) + b"\n"
