"""/health: live for who restarts us, ready for who sends us requests. No credential is needed.

Reasons are shown to those with a credential only: they tell how the machine is set up.
"""

from collections.abc import Callable
from typing import Any

from apiflask import APIBlueprint
from flask import Response, current_app, request

from postqueue_api.errors import Error, MailSystemDown, Misconfigured, TooManyRequests, Unauthorized
from postqueue_api.web import schemas
from postqueue_api.web.auth import within
from postqueue_api.web.context import answer, context, fresh_snapshot
from postqueue_api.web.credentials import Store

health = APIBlueprint("health", __name__, url_prefix="/health", tag="Health")

_ACCEPTED_AGE_SECONDS = 30.0
_RESPONSES: dict[int | str, dict[str, str | dict[str, dict[str, Any]]]] = {
    503: {
        "description": "Something cannot be used",
        "content": {"application/json": {"schema": {"$ref": "#/components/schemas/ReadyOutput"}}},
    }
}


@health.get("/live")
@health.output(schemas.LiveOutput)
def live() -> Response:
    """A process is there and answers."""
    return answer({"status": "live"})


@health.get("/ready")
@health.output(schemas.ReadyOutput)
@health.doc(responses=_RESPONSES)
def ready() -> Response:
    """Agent, Postfix and credentials can be used: 200, else 503."""
    checks = {"agent": _agent, "postfix": _postfix, "credentials": _credentials}
    found = {name: _result(check) for name, check in checks.items()}
    well = all(result["ok"] for result in found.values())
    body: dict[str, Any] = {"ready": well}
    if _is_known():
        body["checks"] = found
    return answer(body, 200 if well else 503)


def _result(check: Callable[[], None]) -> dict[str, Any]:
    try:
        check()
    except Error as error:
        return {"ok": False, "code": error.code, "detail": error.detail}
    return {"ok": True, "code": None, "detail": None}


def _agent() -> None:
    context().agent.instance()


def _postfix() -> None:
    found = fresh_snapshot(_ACCEPTED_AGE_SECONDS)
    if found.info.mail_system == "down":
        raise MailSystemDown("Postfix is not running: start it. The queue can be read, but no mail moves.")


def _credentials() -> None:
    problem = _store().problem
    if problem is not None:
        raise Misconfigured(problem)


def _store() -> Store:
    store: Store = current_app.extensions["credentials"]
    return store


def _is_known() -> bool:
    if "Authorization" not in request.headers:
        return False
    try:
        within(context().limits, _store())
    except (Unauthorized, TooManyRequests):
        return False
    return True
