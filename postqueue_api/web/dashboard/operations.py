"""GET /operations and each of them: who did what when, how far it is, what became of each message; cancel and undo."""

from typing import Any
from urllib.parse import urlencode

from flask import Blueprint, Response, current_app, redirect, request, url_for
from werkzeug.datastructures import MultiDict

from postqueue_api.web.dashboard import inside, page
from postqueue_api.web.dashboard.chosen import OPPOSITES, conditions
from postqueue_api.web.dashboard.inside import Problem

operations = Blueprint("operations", __name__)

# What somebody should look at: the message is where it was, or not what was meant.
NOT_DONE = ("failed", "in_flight", "changed", "not_found", "already_delivered", "skipped")
_ADMIN = ("delete", "expire", "restore")
_ROWS = 50
_NOT_DONE_ROWS = 20
_WAIT = {"Prefer": "wait=1"}  # so that the page of a small operation shows its end at once


@operations.get("/operations")
def list_operations() -> Response:
    """The history, newest first."""
    found = inside.ask("GET", "/v1/operations", query={"limit": _ROWS, "next": request.args.get("next")}).body
    return page.render("operations.html", found=found, is_first="next" not in request.args)


@operations.get("/operations/<operation_id>")
def show_operation(operation_id: str) -> Response:
    """One operation as it stands, with a page of its results."""
    return _page(operation_id)


@operations.get("/operations/<operation_id>/results")
def save_results(operation_id: str) -> Response:
    """What became of each message, as a file of NDJSON."""
    path = f"/v1/operations/{operation_id}/results"
    answer = inside.call("GET", path, headers={"Accept": "application/x-ndjson"})
    answer.headers["Content-Disposition"] = f'attachment; filename="{operation_id}.ndjson"'
    return answer


@operations.get("/operations/<operation_id>/<any(cancel, restore, opposite):change>")
def look_again(operation_id: str, change: str) -> Response:
    """What a form that was refused leads back to, for who reads it anew or in another language."""
    return _see(operation_id)


@operations.post("/operations/<operation_id>/cancel")
def cancel(operation_id: str) -> Response:
    """End it before its next messages."""
    try:
        inside.ask("POST", f"/v1/operations/{operation_id}/cancel", json={})
    except Problem as problem:
        return _refused(operation_id, problem)
    return _see(operation_id)


@operations.post("/operations/<operation_id>/restore")
def restore(operation_id: str) -> Response:
    """Undo a delete: all that it removed and the trash still has."""
    wanted = {"to": request.form.get("to") or None, "reason": request.form.get("why", "").strip() or None}
    try:
        done = inside.ask("POST", f"/v1/operations/{operation_id}/restore", json=wanted, headers=_WAIT)
    except Problem as problem:
        return _refused(operation_id, problem)
    return _see(done.body["operation_id"])


def _refused(operation_id: str, problem: Problem) -> Response:
    """The operation's page with what was wrong; a page of its own when there is no such operation."""
    if problem.status == 404:
        raise problem
    return _page(operation_id, problem)


def _page(operation_id: str, problem: Problem | None = None) -> Response:
    path = f"/v1/operations/{operation_id}"
    operation = inside.ask("GET", path).body
    given = request.args if request.method == "GET" else MultiDict[str, str]()
    wanted = given.getlist("outcome")
    only = [("outcome", name) for name in wanted]
    asked = [*only, ("limit", _ROWS), ("next", given.get("next"))]
    results = inside.ask("GET", f"{path}/results", query=asked).body
    not_done = {name: count for name, count in operation["outcomes"].items() if name in NOT_DONE}
    return page.render(
        "operation.html",
        200 if problem is None else problem.status,
        problem=problem,
        operation=operation,
        is_over=operation["finished_at"] is not None,
        needed_role="admin" if operation["action"] in _ADMIN else "operator",
        opposite=OPPOSITES.get(operation["action"], ("", ""))[1],
        conditions=conditions(operation["selection"]),
        not_done=_some(path, list(not_done)) if not_done else [],
        not_done_count=sum(not_done.values()),
        all_not_done=_query([("outcome", name) for name in not_done]),
        results=results,
        wanted=wanted,
        is_first="next" not in given,
        first=_query(only),
        more=_query([*only, ("next", str(results["next"]))]),
    )


def _some(path: str, outcomes: list[str]) -> Any:
    """The first messages with one of these outcomes."""
    asked = [("limit", _NOT_DONE_ROWS), *(("outcome", name) for name in outcomes)]
    return inside.ask("GET", f"{path}/results", query=asked).body["results"]


def _query(pairs: list[tuple[str, str]]) -> str:
    return f"?{urlencode(pairs)}" if pairs else ""


def _see(operation_id: str) -> Response:
    address = url_for("dashboard.operations.show_operation", operation_id=operation_id)
    return current_app.make_response(redirect(address, 303))
