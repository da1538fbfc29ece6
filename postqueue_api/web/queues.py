"""/v1/queues: how much is in each queue; an attempt to deliver all that is deferred, or all of it for one site."""

from collections.abc import Callable
from functools import partial

from apiflask import APIBlueprint
from flask import Response

from postqueue_api.errors import Error
from postqueue_api.postfix.arguments import Site
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
    return _flush(context().agent.flush, body.reason, queue_id="ALL")


@queues.post("/sites/<site>/flush")
@queues.input(schemas.NoQuery, location="query", arg_name="query")
@queues.input(schemas.ChangeInput, location="json", arg_name="body")
@queues.output(schemas.FlushOutput, status_code=202)
@role("operator")
def flush_site(site: str, query: schemas.NoQuery, body: schemas.ChangeInput) -> Response:
    """Ask for an attempt to deliver what is deferred for one site, which fast_flush_domains must name."""
    parsed = Site.parse(site)
    return _flush(partial(context().agent.flush_site, parsed), body.reason, site=parsed)


def _flush(ask: Callable[[], None], reason: str | None, **what: str) -> Response:
    try:
        ask()
    except Error as error:
        audit.failed("flush", error, reason=reason, **what)
        raise
    audit.record(action="flush", outcome="scheduled", reason=reason, **what)
    return answer({"outcome": "scheduled"}, 202)
