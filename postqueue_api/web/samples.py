"""/v1/samples: how long the queue was over the last hours, as the agent wrote it down."""

from apiflask import APIBlueprint
from flask import Response

from postqueue_api.queue import samples as rings
from postqueue_api.web import schemas
from postqueue_api.web.auth import role
from postqueue_api.web.context import answer, context

samples = APIBlueprint("samples", __name__, url_prefix="/v1", tag="Samples")


@samples.get("/samples")
@samples.input(schemas.SamplesQuery, location="query", arg_name="query")
@samples.output(schemas.SamplesOutput)
@role("viewer")
def list_samples(query: schemas.SamplesQuery) -> Response:
    """Depth by queue over the last hours, with arrivals and removals, oldest first; no listing is made for it."""
    ring = rings.read(context().settings.state_directory / rings.NAME)
    if ring is None:
        return answer({"interval_seconds": None, "samples": []})
    found = [sample.as_json() for sample in ring.samples if sample.taken_at > query.since]
    return answer({"interval_seconds": ring.interval_seconds, "samples": found})
