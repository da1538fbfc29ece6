"""GET /messages/<queue_id>: one message, why it waits, what it says to those who may read it, and what can be done."""

from typing import Any

from flask import Blueprint, Response, current_app, g, redirect, request, url_for

from postqueue_api.web.dashboard import freshness, inside, page
from postqueue_api.web.dashboard.inside import Problem

message = Blueprint("message", __name__)

DIRECT = ("flush", "hold", "release", "requeue")  # done at once; the others, which end a message, have a preview
RECIPIENTS_LIMIT = 200
VALUE_LIMIT = 1000  # characters of a header that are shown before the rest is folded away
_TOLD = ("from", "to", "cc", "subject", "date")
_MISSING = "no_such_message"


@message.get("/messages/<queue_id>")
def show_message(queue_id: str) -> Response:
    """All that is known of it, as far as the roles allow."""
    return _page(queue_id)


@message.get("/messages/<queue_id>/raw")
def save_message(queue_id: str) -> Response:
    """The message byte for byte, as a file."""
    return inside.call("GET", f"/v1/messages/{queue_id}/raw")


@message.get("/messages/<queue_id>/<any(flush, hold, release, requeue):action>")
def look_again(queue_id: str, action: str) -> Response:
    """What a change that was refused leads back to, for who reads it anew or in another language."""
    return current_app.make_response(redirect(url_for("dashboard.message.show_message", queue_id=queue_id), 303))


@message.post("/messages/<queue_id>/<any(flush, hold, release, requeue):action>")
def change_message(queue_id: str, action: str) -> Response:
    """Do one thing to it, and show it again with what became of that."""
    reason = request.form.get("why", "").strip() or None
    try:
        done = inside.ask("POST", f"/v1/messages/{queue_id}/{action}", json={"reason": reason})
    except Problem as problem:
        return _page(queue_id, problem)
    operation_id = done.body.get("operation_id")
    address = url_for("dashboard.message.show_message", queue_id=queue_id, operation=operation_id)
    return current_app.make_response(redirect(address, 303))


def _page(queue_id: str, problem: Problem | None = None) -> Response:
    path = f"/v1/messages/{queue_id}"
    try:
        found = inside.ask("GET", path, headers=freshness.headers()).body
        envelope = _part(f"{path}/envelope")
        found["message"]["queue_name"] = envelope.get("queue_name") or found["message"]["queue_name"]  # true by now
    except Problem as missing:
        if missing.code != _MISSING:
            raise
        return _gone(queue_id, problem)
    may_read = "content" in g.principal.roles
    headers, body = (_part(f"{path}/{part}") if may_read else None for part in ("headers", "body"))
    return page.render(
        "message.html",
        200 if problem is None else problem.status,
        message=found["message"],
        snapshot=found["snapshot"],
        envelope=envelope,
        waiting=_waiting(found["message"], envelope),
        headers=headers,
        told=_told(headers),
        body=body,
        problem=problem,
        change=_change(queue_id),
        recipients_limit=None if "recipients" in request.args else RECIPIENTS_LIMIT,
        value_limit=VALUE_LIMIT,
        direct=DIRECT,
    )


def _part(path: str) -> Any:
    """One of the documents about a message; {"problem": ...} when there is none. Raises Problem when it is gone."""
    try:
        return inside.ask("GET", path).body
    except Problem as problem:
        if problem.code == _MISSING:
            raise
        return {"problem": problem}


def _gone(queue_id: str, problem: Problem | None) -> Response:
    """What is still known of a message that is not in the queue: the copy in the trash."""
    try:
        copy = inside.ask("GET", f"/v1/trash/{queue_id}").body
    except Problem as missing:
        if missing.status != 404:
            raise
        copy = None
    return page.render("gone.html", 404, queue_id=queue_id, copy=copy, problem=problem, change=_change(queue_id))


def _waiting(listed: Any, envelope: Any) -> list[tuple[str | None, list[str]]]:
    """Each reason with the recipients that wait for it, most first; where none are listed, those of the envelope."""
    recipients = listed["recipients"] if listed["recipients"] is not None else envelope.get("recipients", [])
    # Of more than duplicate_filter_limit (1,000) recipients showq lists the others twice, once without their reason.
    has_reason = {each["address"] for each in recipients if each.get("delay_reason")}
    found: dict[str | None, list[str]] = {}
    for each in recipients:
        if each.get("delay_reason") or each["address"] not in has_reason:
            found.setdefault(each.get("delay_reason"), []).append(each["address"])
    return sorted(found.items(), key=lambda pair: -len(pair[1]))


def _told(headers: Any) -> list[tuple[str, str]]:
    """The headers that a reader of mail sees, in the order of a mail program."""
    rows = headers.get("headers", []) if headers else []
    found = [(each["name"], each["value"]) for each in rows if each["name"].lower() in _TOLD]
    return sorted(found, key=lambda pair: _TOLD.index(pair[0].lower()))


def _change(queue_id: str) -> Any:
    """What became of the change that the address names; None when it names none of this message."""
    operation_id = request.args.get("operation")
    if not operation_id:
        return None
    try:
        operation = inside.ask("GET", f"/v1/operations/{operation_id}").body
        results = inside.ask("GET", f"/v1/operations/{operation_id}/results", query={"limit": 1}).body["results"]
    except Problem:
        return None
    fits = [each for each in results if each["queue_id"] == queue_id]
    return {"operation": operation, "result": fits[0]} if fits else None
