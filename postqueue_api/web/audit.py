"""Who did what: one JSON line on standard output for each change and each refused credential.

    time         RFC 3339, UTC          request_id   also in the answer, as X-Request-Id
    event        change, refused,       action       delete, hold, ...; for a refusal the route
                 session
    actor        the principal's name   reason       the client's words; for a refusal one word
    role         its highest role       queue_id     of the message, or null
    address      of the client          outcome      as journalled; for a refusal the error's code

The lines are written by postqueue_api/audit.py. None holds a secret, nor what a message says.
"""

import re
import secrets

from blinker import Namespace
from flask import g, has_request_context, request

from postqueue_api.audit import cut, write_line
from postqueue_api.errors import AgentLost, Error

NAME_LIMIT = 64

KINDS = ("missing", "malformed", "refused", "certificate", "session", "csrf", "forbidden")
# Sent with kind (one of KINDS), name and address for each 401 and 403.
credential_refused = Namespace().signal("credential-refused")


def request_id() -> str:
    """The identifier of this request: the client's X-Request-Id if it is a short plain word, else a random one."""
    if "request_id" not in g:
        offered = request.headers.get("X-Request-Id", "")
        plain = re.fullmatch(r"[A-Za-z0-9._-]{1,64}", offered, re.ASCII) is not None
        g.request_id = offered if plain else secrets.token_hex(16)
    return str(g.request_id)


def record(*, action: str, outcome: str | None, **members: object) -> None:
    """Write the line of one change.

    Actor, role, address and request id are those of the present request; a member of the same name overrides them.
    Further members (queue_id, reason, and others) are added. Texts are cut after 512 characters, and further if the
    line would not fit PIPE_BUF. When standard output fails, the line goes to standard error and the request goes on.
    """
    line: dict[str, object] = {"actor": None, "role": None, "address": None, "request_id": None}
    if has_request_context():
        principal = g.get("principal")
        line |= {"address": request.remote_addr, "request_id": request_id()}
        if principal is not None:
            line |= {"actor": principal.name, "role": principal.role}
    event = str(members.pop("event", "change"))
    write_line(event, **{**line, "action": action, "reason": None, "queue_id": None, "outcome": outcome, **members})


def failed(action: str, error: Error, **members: object) -> None:
    """Write the line of a change that the agent did not take up; its outcome is null if nobody knows whether it did."""
    record(action=action, outcome=None if isinstance(error, AgentLost) else "failed", code=error.code, **members)


def locked_out(seconds: int) -> None:
    """Write the line of an address that is not listened to for so many seconds."""
    rule = request.url_rule.rule if request.url_rule is not None else None
    action = f"{request.method} {rule}"
    record(event="refused", action=action, reason="lockout", outcome="too_many_requests", retry_after=seconds)


def refused(kind: str, *, name: str | None, **members: str | None) -> None:
    """Write the line of one refused credential, and tell those who count.

    kind: missing, malformed, refused, certificate (that is nobody's), session (that has ended, or is forged), csrf (a
    change that another site may have made) or forbidden. A request without any credential is
    counted only: nothing was refused, and each browser begins with one. name: whom the client claims to be, cut after
    64 characters. members: what the line says besides.
    """
    credential_refused.send(None, kind=kind, name=name, address=request.remote_addr)
    if kind == "missing":
        return
    rule = request.url_rule.rule if request.url_rule is not None else None
    record(
        event="refused",
        action=f"{request.method} {rule}",
        reason=kind,
        queue_id=(request.view_args or {}).get("queue_id"),
        outcome="forbidden" if kind in ("forbidden", "csrf") else "unauthorized",
        actor=None if name is None else cut(name, NAME_LIMIT),
        **members,
    )
