"""/v1/queues: how much is in each queue; /v1/flush: an attempt to deliver all that is deferred."""

from apiflask import APIBlueprint
from flask import Response

from postqueue_api.errors import Error
from postqueue_api.web import audit, schemas
from postqueue_api.web.auth import role
from postqueue_api.web.context import answer, answer_from, context, fresh_snapshot

queues = APIBlueprint("queues", __name__, url_prefix="/v1", tag="Queues")


@queues.get("/queues")
@queues.input(schemas.NoQuery, location="query", arg_name="query")
@queues.output(schemas.QueuesOutput)
@role("viewer")
def list_queues(query: schemas.NoQuery) -> Response:
    """Messages, bytes, recipients and the oldest arrival, queue by queue, with explicit zeros."""
    found = fresh_snapshot()
    return answer_from(found, {"queues": found.queues()})


@queues.post("/flush")
@queues.input(schemas.NoQuery, location="query", arg_name="query")
@queues.input(schemas.ChangeInput, location="json", arg_name="body")
@queues.output(schemas.FlushOutput, status_code=202)
@role("operator")
def flush_all(query: schemas.NoQuery, body: schemas.ChangeInput) -> Response:
    """Ask for an attempt to deliver everything that is deferred. Often slows all other mail."""
    try:
        context().agent.flush()
    except Error as error:
        audit.record(action="flush", outcome="failed", code=error.code, queue_id="ALL", reason=body.reason)
        raise
    audit.record(action="flush", outcome="scheduled", queue_id="ALL", reason=body.reason)
    return answer({"outcome": "scheduled"}, 202)
