"""POST /preview says what a change would do; POST /changes does it: once, and only if it is still as many messages."""

import re
import secrets
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from flask import Blueprint, Response, current_app, redirect, request, url_for
from werkzeug.datastructures import MultiDict

from postqueue_api.web.dashboard import inside, page
from postqueue_api.web.dashboard.chosen import OPPOSITES, Chosen
from postqueue_api.web.dashboard.inside import Problem

actions = Blueprint("actions", __name__)

_GROUPS = ("sender", "recipient_domain", "reason_group")
_MOVING = ("incoming", "active")
_RESULTS_AT_ONCE = 1000
_WAIT_SECONDS = 1  # so that the page of a small operation shows its end at once


@dataclass(frozen=True)
class Answers:
    """What the operator said to a preview, as typed."""

    expected_count: str = ""
    key: str = ""
    count: str = ""
    why: str = ""
    no_copy: bool = False
    max_per_second: str = ""

    @classmethod
    def of_form(cls, form: MultiDict[str, str]) -> "Answers":
        """What the form of a preview has besides the messages chosen. Their delay reason is a condition too, named
        `reason`; so the operator's is `why`."""
        texts = ("expected_count", "key", "count", "why", "max_per_second")
        return cls(**{name: form.get(name, "").strip() for name in texts}, no_copy="no_copy" in form)


@actions.get("/preview")
@actions.get("/changes")
def look_again() -> Response:
    """A preview has no address of its own: who reads it in another language, say, begins with the messages."""
    return _see("/messages")


@actions.post("/preview")
def show_preview() -> Response:
    """What would be done; nothing is."""
    return _preview(Chosen.of_form(request.form), Answers(why=request.form.get("why", "").strip()))


@actions.post("/changes")
def make_change() -> Response:
    """Do what was shown, and go to its page. What is not accepted shows the preview anew, with what was typed."""
    chosen, answers = Chosen.of_form(request.form), Answers.of_form(request.form)
    try:
        headers = {"Idempotency-Key": answers.key, "Prefer": f"wait={_WAIT_SECONDS}"}
        done = inside.ask("POST", "/v1/operations", json=_body(chosen, answers), headers=headers)
    except Problem as problem:
        return _preview(chosen, answers, problem)
    return _see(url_for("dashboard.operations.show_operation", operation_id=done.body["operation_id"]))


@actions.post("/operations/<operation_id>/opposite")
def show_opposite(operation_id: str) -> Response:
    """The preview of what undoes a hold or a release, for the messages to which that was done."""
    operation = inside.ask("GET", f"/v1/operations/{operation_id}").body
    if operation["action"] not in OPPOSITES:
        raise _not_accepted("action", ", ".join(OPPOSITES))
    action, outcome = OPPOSITES[operation["action"]]
    queue_ids = list(_queue_ids(operation_id, outcome))
    return _preview(Chosen(action, {"queue_ids": queue_ids} if queue_ids else {}), Answers())


def _queue_ids(operation_id: str, outcome: str) -> Iterator[str]:
    """The messages of an operation that have an outcome, by their newest names."""
    following: int | None = 0
    while following is not None:
        query = {"limit": _RESULTS_AT_ONCE, "next": following, "outcome": outcome}
        page_ = inside.ask("GET", f"/v1/operations/{operation_id}/results", query=query).body
        yield from (row["new_queue_id"] or row["queue_id"] for row in page_["results"])
        following = page_["next"]


def _see(address: str) -> Response:
    return current_app.make_response(redirect(address, 303))


def _body(chosen: Chosen, answers: Answers) -> dict[str, Any]:
    """The body of POST /v1/operations. Raises Problem."""
    expected = whole_number(answers.expected_count)
    if expected is None or not answers.key:
        raise _not_accepted("expected_count", "what the preview said")
    if chosen.is_final and expected > 1 and whole_number(answers.count) != expected:
        raise _not_accepted("count", str(expected))
    body: dict[str, Any] = {
        "action": chosen.action,
        "selection": chosen.selection,
        "reason": answers.why or None,
        "expected_count": expected,
    }
    if chosen.action == "delete" and answers.no_copy:
        body["keep_copy"] = False
    if chosen.action == "flush" and answers.max_per_second:
        body["max_per_second"] = pace(answers.max_per_second)
    return body


def _preview(chosen: Chosen, answers: Answers, problem: Problem | None = None) -> Response:
    """The preview by a dry run of now, with what was typed before and what was wrong with it."""
    found = None
    try:
        wanted = {"action": chosen.action, "selection": chosen.selection, "dry_run": True}
        found = inside.ask("POST", "/v1/operations", json=wanted).body
    except Problem as refused:
        problem = problem or refused
    return page.render(
        "preview.html",
        200 if problem is None else problem.status,
        chosen=chosen,
        answers=answers,
        problem=problem,
        found=found,
        moving=0 if found is None else sum(found["queues"].get(name, 0) for name in _MOVING),
        groups=_GROUPS,
        back=page.local(request.form.get("back"), chosen.address),
        key=secrets.token_urlsafe(18),
    )


def _not_accepted(field: str, accepted: str) -> Problem:
    detail = f"{field} is not accepted."
    return Problem({"status": 400, "code": "invalid_argument", "detail": detail, "field": field, "accepted": accepted})


def whole_number(text: str) -> int | None:
    """A count as people type it: with separators, and in the wide digits of Japanese keyboards."""
    plain = re.sub(r"[\s.,'\u2019]", "", unicodedata.normalize("NFKC", text))
    return int(plain) if re.fullmatch(r"[0-9]{1,12}", plain, re.ASCII) else None


def pace(text: str) -> float:
    """Messages a second, as people type them. Raises Problem."""
    plain = unicodedata.normalize("NFKC", text).replace(",", ".")
    if re.fullmatch(r"[0-9]{1,6}(\.[0-9]{1,6})?", plain, re.ASCII) is None:
        raise _not_accepted("max_per_second", "a number above 0, at most 10000")
    return float(plain)
