"""GET /operations and each of them: who did what when, how far it is, what became of each message; cancel and undo."""

from collections import Counter
from collections.abc import Mapping
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
_TRASH_ROWS, _TRASH_PAGES, _SAMPLE_ROWS = 1000, 100, 10
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


@operations.get("/operations/<operation_id>/<any(cancel, opposite):change>")
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


@operations.get("/operations/<operation_id>/restore")
def preview_restore(operation_id: str) -> Response:
    """What would come back of a delete; nothing does yet."""
    operation = inside.ask("GET", f"/v1/operations/{operation_id}").body
    return page.render("restore.html", operation=operation, found=_kept(operation))


@operations.post("/operations/<operation_id>/restore")
def restore(operation_id: str) -> Response:
    """Undo a delete: all that it removed and the trash still has."""
    wanted = {"to": request.form.get("to") or None, "reason": request.form.get("why", "").strip() or None}
    try:
        done = inside.ask("POST", f"/v1/operations/{operation_id}/restore", json=wanted, headers=_WAIT)
    except Problem as problem:
        return _refused(operation_id, problem)
    return _see(done.body["operation_id"])


def _kept(operation: Mapping[str, Any]) -> dict[str, Any]:
    """What the trash still has of a delete: messages, bytes, how many were in which queue, until when, and some of it.

    The trash has what was deleted last first, so it is read until all is found that the delete removed, or what was
    kept before it began. `is_all` is False when that would be too much to read: there may be more then.
    """
    found: dict[str, Any] = {"messages": 0, "bytes": 0, "queues": Counter(), "until": None, "sample": []}
    following: int | None = None
    for _ in range(_TRASH_PAGES):
        listed = inside.ask("GET", "/v1/trash", query={"limit": _TRASH_ROWS, "next": following}).body
        for copy in listed["copies"]:
            if copy["operation_id"] == operation["operation_id"] and copy["state"] == "kept":
                _count(found, copy)
        following, oldest = listed["next"], min((copy["kept_at"] for copy in listed["copies"]), default=0)
        is_found = found["messages"] >= operation["outcomes"].get("removed", 0)
        if is_found or following is None or oldest < operation["created_at"]:
            return {**found, "is_all": True}
    return {**found, "is_all": False}


def _count(found: dict[str, Any], copy: Mapping[str, Any]) -> None:
    found["messages"] += 1
    found["bytes"] += copy["queue_file_bytes"]
    found["queues"][copy["queue_name"]] += 1
    if copy["expires_at"] is not None:
        found["until"] = min(copy["expires_at"], found["until"] or copy["expires_at"])
    if len(found["sample"]) < _SAMPLE_ROWS:
        found["sample"].append(copy)


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
