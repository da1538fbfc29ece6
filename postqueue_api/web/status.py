"""/v1/status: all that a dashboard polls, in one small document that costs the same for any length of queue."""

import hashlib
from functools import lru_cache
from typing import Any

import msgspec
from apiflask import APIBlueprint
from flask import Response, request

from postqueue_api.errors import Error
from postqueue_api.queue.snapshot import Snapshot, as_json
from postqueue_api.web import schemas
from postqueue_api.web.auth import role
from postqueue_api.web.context import answer, context, fresh_snapshot

status = APIBlueprint("status", __name__, url_prefix="/v1", tag="Status")


@status.get("/status")
@status.input(schemas.NoQuery, location="query", arg_name="query")
@status.output(schemas.StatusOutput)
@status.doc(responses={304: "Nothing changed since the ETag given"})
@role("viewer")
def show_status(query: schemas.NoQuery) -> Response:
    """Mail system, version, queues, oldest message, top reasons and running operations; null where not known."""
    try:
        found = fresh_snapshot()
    except Error as error:
        members = _unknown(error)
        return _tagged(members, members, 0)
    members = {**_counted(found), "instance": _instance(), "operations": _running()}
    named = {**members, "snapshot": as_json(found.info)}
    return _tagged([found.info.snapshot_id, members], named, found.info.age)


@lru_cache(maxsize=4)
def _counted(found: Snapshot) -> dict[str, Any]:
    """What does not change while a snapshot is the newest, so that a poll costs next to nothing."""
    queues = found.queues()
    problem = None
    if not found.info.complete:
        problem = {"code": found.info.problem, "detail": "The listing broke off, so messages may be missing."}
    return {
        "mail_system": found.info.mail_system,
        "problem": problem,
        "queues": queues,
        "oldest_arrival_time": min(
            (queue.oldest_arrival_time for queue in queues if queue.oldest_arrival_time is not None), default=None
        ),
        "top_reasons": found.top_reasons(),
    }


def _unknown(error: Error) -> dict[str, Any]:
    """Postfix could not be asked: nothing is known of it, and a 0 would be a lie."""
    return {
        "mail_system": "down" if error.code == "mail_system_down" else None,
        "instance": None,
        "problem": {"code": error.code, "detail": error.detail},
        "snapshot": None,
        "queues": None,
        "oldest_arrival_time": None,
        "top_reasons": None,
        "operations": None,
    }


def _running() -> list[dict[str, Any]]:
    return [
        {
            "operation_id": operation.operation_id,
            "action": operation.action,
            "state": operation.state,
            "actor": operation.actor,
            "requested": operation.requested,
            "finished": operation.finished,
        }
        for operation in context().journal.unfinished()
    ]


def _instance() -> dict[str, Any] | None:
    try:
        return context().agent.known_instance()
    except Error:
        return None


def _tagged(identity: Any, members: dict[str, Any], age: float) -> Response:
    """The document with an ETag of what it says, its age left out; 304 when the client has it already."""
    response = answer(members)
    response.set_etag(hashlib.blake2s(msgspec.json.encode(identity), digest_size=12).hexdigest(), weak=True)
    # Whoever keeps it takes its Age off this by himself (RFC 9111, section 4.2).
    response.headers["Cache-Control"] = f"private, max-age={context().settings.snapshot_max_age_seconds}"
    response.headers["Age"] = str(int(age))
    return response.make_conditional(request.environ)  # type: ignore[return-value]
