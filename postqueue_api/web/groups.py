"""/v1/groups: what fills the queue; /v1/ages: how old it is, as qshape has it."""

from functools import lru_cache

from apiflask import APIBlueprint
from flask import Response

from postqueue_api.queue.ages import ages, bounds
from postqueue_api.queue.groups import group
from postqueue_api.web import schemas
from postqueue_api.web.auth import role
from postqueue_api.web.context import answer_from, fresh_snapshot

groups = APIBlueprint("groups", __name__, url_prefix="/v1", tag="Groups")

# A snapshot never changes, and every open dashboard asks the same few of it; more of them would be much to remember.
_FEW = 20
_few_groups = lru_cache(maxsize=16)(group)
_few_ages = lru_cache(maxsize=16)(ages)


@groups.get("/groups")
@groups.input(schemas.GroupsQuery, location="query", arg_name="query")
@groups.output(schemas.GroupsOutput)
@role("viewer")
def list_groups(query: schemas.GroupsQuery) -> Response:
    """The largest groups of messages, each with the selection that finds it again."""
    found = fresh_snapshot()
    count = _few_groups if query.limit <= _FEW else group
    largest, more = count(found, query.selection(), query.by, query.limit)
    return answer_from(found, {"by": query.by, "groups": largest, "more": more})


@groups.get("/ages")
@groups.input(schemas.AgesQuery, location="query", arg_name="query")
@groups.output(schemas.AgesOutput)
@role("viewer")
def list_ages(query: schemas.AgesQuery) -> Response:
    """How much mail of each domain is how old."""
    found = fresh_snapshot()
    limits = bounds(query.columns, query.first, query.linear)
    count = _few_ages if query.limit <= _FEW else ages
    table = count(found, query.selection(), query.by, limits, query.limit)
    return answer_from(found, {"by": query.by, "bounds": table.bounds, "total": table.total, "rows": table.rows})
