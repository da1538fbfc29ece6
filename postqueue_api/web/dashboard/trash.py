"""GET /trash: what was deleted and can come back; one message of it is restored from here."""

from itertools import groupby
from operator import itemgetter
from typing import Any

from flask import Blueprint, Response, current_app, redirect, request, url_for

from postqueue_api.web.dashboard import inside, page
from postqueue_api.web.dashboard.inside import Problem

trash = Blueprint("trash", __name__)

_ROWS = 50


@trash.get("/trash")
def list_trash() -> Response:
    """What is kept, newest first, under the operation that deleted it."""
    return _page()


@trash.get("/trash/<queue_id>/restore")
def look_again(queue_id: str) -> Response:
    """What a restore that was refused leads back to, for who reads it anew or in another language."""
    return current_app.make_response(redirect(url_for("dashboard.trash.list_trash"), 303))


@trash.post("/trash/<queue_id>/restore")
def restore(queue_id: str) -> Response:
    """Put one message back into the queue, and go to the operation that did it."""
    try:
        done = inside.ask("POST", f"/v1/trash/{queue_id}/restore", json={"to": request.form.get("to") or None})
    except Problem as problem:
        if problem.status != 409:
            raise
        return _page(problem, inside.ask("GET", f"/v1/trash/{queue_id}").body)
    address = url_for("dashboard.operations.show_operation", operation_id=done.body["operation_id"])
    return current_app.make_response(redirect(address, 303))


def _page(problem: Problem | None = None, refused: Any = None) -> Response:
    """`refused`: the copy that was not restored, and what became of it."""
    wanted = request.args.get("queue_id", "").strip()
    found = inside.ask("GET", "/v1/trash", query={"limit": _ROWS, "next": request.args.get("next")}).body
    if wanted:
        try:
            found |= {"copies": [inside.ask("GET", f"/v1/trash/{wanted}").body], "next": None}
        except Problem as missing:
            found |= {"copies": [], "next": None}
            problem = missing
    return page.render(
        "trash.html",
        200 if problem is None else problem.status,
        found=found,
        deletes=[(name, list(copies)) for name, copies in groupby(found["copies"], itemgetter("operation_id"))],
        is_first="next" not in request.args,
        wanted=wanted,
        problem=problem,
        refused=refused,
    )
