"""/v1/drain: empty the queue before its task or host goes, and see how far that is."""

from apiflask import APIBlueprint
from flask import Response

from postqueue_api.errors import Error
from postqueue_api.web import asking, audit, schemas
from postqueue_api.web.auth import role
from postqueue_api.web.context import answer, context

drain = APIBlueprint("drain", __name__, url_prefix="/v1/drain", tag="Drain")


@drain.get("")
@drain.input(schemas.NoQuery, location="query", arg_name="query")
@drain.output(schemas.DrainOutput)
@role("viewer")
def show_drain(query: schemas.NoQuery) -> Response:
    """How far the last drain is, and what is left in the queue, held mail apart."""
    return answer(context().agent.drain())


@drain.post("")
@drain.input(schemas.NoQuery, location="query", arg_name="query")
@drain.input(schemas.DrainInput, location="json", arg_name="body")
@drain.output(schemas.DrainOutput, status_code=202)
@role("operator")
def begin_drain(query: schemas.NoQuery, body: schemas.DrainInput) -> Response:
    """Try to deliver everything, again and again, until nothing but held mail is left or the time is over."""
    wanted = {"seconds": body.seconds, "actor": asking.actor(), "reason": body.reason}
    try:
        state = context().agent.begin_drain(wanted)
    except Error as error:
        audit.failed("drain", error, queue_id="ALL", reason=body.reason)
        raise
    audit.record(action="drain", outcome="scheduled", queue_id="ALL", reason=body.reason, seconds=body.seconds)
    return answer(state, 202)
