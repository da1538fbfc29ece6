"""From the journal to an answer: an operation as it stands; and of one message what was done, or why it was not."""

import time
from typing import Any

import msgspec
from flask import Response

from postqueue_api.errors import CommandFailed, Conflict, NoSuchMessage, by_code
from postqueue_api.queue.operation import Operation
from postqueue_api.web.context import answer, context

_CONFLICTS = ("changed", "in_flight", "already_delivered")
_ERRORS = by_code()


def shown(operation: Operation) -> dict[str, Any]:
    """An operation as clients see it. `rate` in messages a second, `seconds_left` an estimate; null when unknown."""
    elapsed = (operation.finished_at or time.time()) - (operation.started_at or time.time())
    rate = operation.finished / elapsed if elapsed > 0 and operation.finished else None
    left = operation.requested - operation.finished
    return {
        "operation_id": operation.operation_id,
        "action": operation.action,
        "state": operation.state,
        "cancel_requested": operation.cancel_requested,
        "requested": operation.requested,
        "finished": operation.finished,
        "outcomes": operation.outcomes,
        "rate": None if rate is None else round(rate, 2),
        "seconds_left": None if rate is None or operation.is_over else round(left / rate, 1),
        "actor": operation.actor,
        "role": operation.role,
        "address": operation.address,
        "request_id": operation.request_id,
        "reason": operation.reason,
        "selection": msgspec.json.decode(operation.selection),
        "keep_copy": operation.keep_copy,
        "max_per_second": operation.max_per_second,
        "created_at": operation.created_at,
        "started_at": operation.started_at,
        "finished_at": operation.finished_at,
        "failure": operation.failure,
    }


def answer_change(operation: Operation, queue_id: str, status: int) -> Response:
    """Answer what became of the one message of an operation: `status` when it was done, 200 when there was nothing
    to do, 202 and where to look when others are before it or it takes long.

    Raises:   NoSuchMessage, Conflict, and the error that kept Postfix from doing it
    """
    items = context().journal.results(operation.operation_id, 1)
    outcome, detail = (items[0].outcome, items[0].detail) if items else (None, None)
    new_queue_id = items[0].new_queue_id if outcome else None
    _refuse_what_was_not_done(operation, outcome, detail, new_queue_id)
    change = {
        "operation_id": operation.operation_id,
        "action": operation.action,
        "queue_id": queue_id,
        "outcome": outcome,
        "detail": detail if outcome else "it is not its turn yet, or takes long: ask for the operation",
        "new_queue_id": new_queue_id,
    }
    response = answer(change, {None: 202, "no_change": 200}.get(outcome, status))
    response.headers["Location"] = f"/v1/operations/{operation.operation_id}"
    return response


def _refuse_what_was_not_done(
    operation: Operation, outcome: str | None, detail: str | None, new_queue_id: str | None
) -> None:
    known: dict[str, Any] = {"outcome": outcome, "operation_id": operation.operation_id}
    if new_queue_id is not None:
        known["new_queue_id"] = new_queue_id
    if outcome == "not_found":
        raise NoSuchMessage(f"There is no such message to act on: {detail}.", **known)
    if outcome in _CONFLICTS:
        raise Conflict(f"Nothing was done: {detail}.", **known)
    if outcome in ("failed", "skipped"):
        code, _, sentence = (operation.failure or "").partition(": ")
        raise _ERRORS.get(code, CommandFailed)(sentence or f"Postfix did not do it: {detail}.", **known)
