"""GET /messages: the queue as a table that is searched, sorted, paged through, and chosen from."""

from typing import Any, NamedTuple

from flask import Blueprint, Response, current_app, redirect, request

from postqueue_api.postfix.arguments import QUEUE_NAMES
from postqueue_api.web.dashboard import freshness, inside, page
from postqueue_api.web.dashboard.inside import Problem
from postqueue_api.web.dashboard.search import CHOOSE, FIELDS, POSITION, Search

messages = Blueprint("messages", __name__)

# Column: what sorts by it.
COLUMNS = {
    "queue_name": "queue_name",
    "sender": "sender",
    "sender_domain": "sender_domain",
    "recipients": "recipients",
    "reason": None,
    "age": "arrival_time",
    "arrival_time": "arrival_time",
    "next_attempt_time": "next_attempt_time",
    "message_size": "message_size",
}
SHOWN = ("queue_name", "sender", "recipients", "reason", "age", "message_size")
NUMBERS = ("age", "message_size")
OPPOSITE = {"ascending": "descending", "descending": "ascending"}
ROWS = (50, 100, 250, 1000)
REASON_LIMIT, ADDRESS_LIMIT = 300, 200  # characters in the table; the page of the message has all of them
_COOKIE = "postqueue_api_columns"


class Row(NamedTuple):
    """A message as the table has it: of its recipients the first and how many there are, and the first reason."""

    queue_id: str
    queue_name: str
    forced_expire: bool
    arrival_time: int | None
    next_attempt_time: int | None
    message_size: int | None
    sender: str
    recipient: str
    recipients: int
    reason: str
    reasons: int

    @property
    def sender_domain(self) -> str:
        """What stands behind the last @."""
        return self.sender.rpartition("@")[2] if "@" in self.sender else ""


class Header(NamedTuple):
    """The head of a column: its name, how it is sorted now as aria-sort says it, and the search sorted by it."""

    name: str
    direction: str | None
    by: Search | None


@messages.get("/messages")
def show_messages() -> Response:
    """One page of what is searched for."""
    search = Search(request.args.items(multi=True))
    if search.was_typed:
        return _see(search.canonical().address())
    try:
        return _page(search, _asked(search))
    except Problem as problem:
        if problem.code != "gone":
            return _page(search, None, problem)
    search = search.with_()
    return _page(search, _asked(search), was_gone=True)


@messages.post("/messages/columns")
def keep_columns() -> Response:
    """Remember in this browser which columns are wanted."""
    chosen = [name for name in COLUMNS if name in request.form.getlist("column")]
    response = _see(page.local(request.form.get("back"), Search(()).address()))
    page.keep(response, _COOKIE, ".".join(chosen) or "none")
    return response


def _see(address: str) -> Response:
    return current_app.make_response(redirect(address, 303))


def _asked(search: Search) -> Any:
    query = search.asked()
    limit = () if search.values("limit") else (("limit", str(ROWS[0])),)
    return inside.ask("GET", "/v1/messages", query=(*query, *limit), headers=freshness.headers()).body


def _page(search: Search, found: Any, problem: Problem | None = None, *, was_gone: bool = False) -> Response:
    first = search.number(POSITION) if search.values("next") else 0
    return page.render(
        "messages.html",
        200 if problem is None else problem.status,
        search=search,
        found=found,
        problem=problem,
        was_gone=was_gone,
        is_misplaced=problem is not None and problem.field not in (*FIELDS, "limit"),
        rows=[row(message) for message in found["messages"]] if found else [],
        first=first,
        id_header=_header("queue_id", "queue_id", search),
        headers=[_header(name, COLUMNS[name], search) for name in _columns()],
        all_columns=COLUMNS,
        numbers=NUMBERS,
        queue_names=QUEUE_NAMES,
        all_chosen=search.value(CHOOSE) == "page",
        limits=ROWS,
        is_detailed=_is_detailed(search, problem),
    )


def row(message: Any) -> Row:
    """What the table shows of a message as the API lists it."""
    recipients = message["recipients"] or []
    reasons = {each["delay_reason"]: None for each in recipients if each.get("delay_reason")}
    return Row(
        message["queue_id"],
        message["queue_name"],
        message.get("forced_expire") is True,
        message["arrival_time"],
        message.get("next_attempt_time"),
        message["message_size"],
        message["sender"][:ADDRESS_LIMIT],
        recipients[0]["address"][:ADDRESS_LIMIT] if recipients else "",
        len({each["address"] for each in recipients}),  # showq lists some twice: see message.py
        next(iter(reasons), "")[:REASON_LIMIT],
        len(reasons),
    )


def _header(name: str, field: str | None, search: Search) -> Header:
    if field is None:
        return Header(name, None, None)
    direction = search.direction(field)
    if name == "age" and direction is not None:  # the oldest arrived first
        direction = OPPOSITE[direction]
    return Header(name, direction, search.sorted_by(field))


def _columns() -> list[str]:
    kept = request.cookies.get(_COOKIE)
    wanted = SHOWN if kept is None else kept.split(".")
    return [name for name in COLUMNS if name in wanted]


def _is_detailed(search: Search, problem: Problem | None) -> bool:
    """Whether a field that is folded away otherwise is in use, or wrong."""
    used = {name for name, _ in search.conditions()} | {problem.field if problem is not None else None}
    return bool(used - {"queue_name", "sender", "recipient", "recipient_domain", "reason", "min_age", None})
