"""DELETE /v1/messages/{queue_id}, and flush, hold, release, requeue and expire of one message.

Each is shorthand for an operation of one message, and waits for its end.
"""

from typing import NamedTuple

from apiflask import APIBlueprint
from flask import Response

from postqueue_api.errors import Error
from postqueue_api.postfix.arguments import QueueId
from postqueue_api.queue.operation import Action
from postqueue_api.web import asking, audit, schemas
from postqueue_api.web.auth import role
from postqueue_api.web.context import context
from postqueue_api.web.outcome import answer_change

changes = APIBlueprint("changes", __name__, url_prefix="/v1/messages", tag="Changes")


_LATER = {202: "Others are before it, or it takes long: Location says where to ask"}


class _Change(NamedTuple):
    action: Action
    role: str
    method: str
    suffix: str
    status: int
    summary: str


_CHANGES = (
    _Change("delete", "admin", "DELETE", "", 200, "Remove a message; the trash keeps a copy for a while."),
    _Change("flush", "operator", "POST", "/flush", 202, "Ask for an attempt to deliver a message now."),
    _Change("hold", "operator", "POST", "/hold", 200, "Put a message on hold: no delivery, no expiry until released."),
    _Change("release", "operator", "POST", "/release", 200, "Take a message off hold."),
    _Change("requeue", "operator", "POST", "/requeue", 200, "Send a message through Postfix again, under a new ID."),
    _Change("expire", "admin", "POST", "/expire", 200, "Return a message to its sender; a held one once released."),
)


def _add(change: _Change) -> None:
    @changes.route(f"/<queue_id>{change.suffix}", methods=[change.method], endpoint=change.action)
    @changes.input(schemas.NoQuery, location="query", arg_name="query")
    @changes.input(schemas.ChangeInput, location="json", arg_name="body")
    @changes.output(schemas.ChangeOutput, status_code=change.status)
    @changes.doc(summary=change.summary, responses={} if change.status == 202 else _LATER)
    @role(change.role)
    def view(queue_id: str, query: schemas.NoQuery, body: schemas.ChangeInput) -> Response:
        return _carry_out(change.action, QueueId.parse(queue_id), body.reason, change.status)


for _row in _CHANGES:
    _add(_row)


def _carry_out(action: Action, queue_id: QueueId, reason: str | None, status: int) -> Response:
    settings = context().settings
    try:
        operation = context().agent.operate(
            {
                "action": action,
                "queue_ids": [str(queue_id)],
                "actor": asking.actor(),
                "reason": reason,
                "shorthand": True,
                "wait": settings.command_timeout_seconds + settings.lock_wait_seconds,
            }
        )
    except Error as error:
        # Of what the agent takes up it writes the line itself, also when nobody waits for the end any more.
        audit.failed(action, error, queue_id=str(queue_id), reason=reason)
        raise
    return answer_change(operation, str(queue_id), status)
