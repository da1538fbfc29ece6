"""The dashboard asks /v1 within this process, as the one who is logged in: it can do nothing that /v1 cannot.

A view below /v1 is matched, its role is checked as at the door, and it is called in a request of its own.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

import msgspec
from flask import Response, current_app, g, request
from werkzeug.datastructures import Headers, MultiDict
from werkzeug.exceptions import HTTPException
from werkzeug.test import EnvironBuilder

from postqueue_api.errors import Error
from postqueue_api.web import audit, auth, problem


@dataclass(frozen=True)
class Answer:
    """What /v1 said. `body` is the decoded JSON document; None for an empty answer."""

    status: int
    body: Any
    headers: Headers


class Problem(Exception):
    """/v1 said no. `members` is the whole problem document."""

    def __init__(self, members: Mapping[str, Any]) -> None:
        super().__init__(members["detail"])
        self.members = members
        self.status = int(members["status"])
        self.code = str(members["code"])
        self.detail = str(members["detail"])
        self.field: str | None = members.get("field")


def ask(
    method: str,
    path: str,
    query: Mapping[str, Any] | Iterable[tuple[str, Any]] | None = None,
    json: Any = None,
    headers: Mapping[str, str] | None = None,
) -> Answer:
    """Ask /v1 and read the answer.

    `query`: parameters by name, or pairs of name and value; one that is None is left out.
    Raises:   Problem for every answer of 400 or more
    """
    response = call(method, path, query, json, headers)
    body = response.get_data()
    response.close()
    answer = Answer(response.status_code, msgspec.json.decode(body) if body else None, response.headers)
    _note_snapshot(answer.body)
    return answer


def _note_snapshot(body: Any) -> None:
    """Remember the listing that this page is made from, so that its script can tell when there is a newer one."""
    snapshot = body.get("snapshot") if isinstance(body, dict) else None
    if isinstance(snapshot, dict) and "snapshot_id" not in g:
        g.snapshot_id = snapshot.get("snapshot_id")


def call(
    method: str,
    path: str,
    query: Mapping[str, Any] | Iterable[tuple[str, Any]] | None = None,
    json: Any = None,
    headers: Mapping[str, str] | None = None,
) -> Response:
    """Ask /v1, for an answer that is handed on as it is: a stream, or a message to be saved. Raises Problem."""
    if not path.startswith("/v1/"):
        raise ValueError(f"{path} is not below /v1")
    pairs = query.items() if isinstance(query, Mapping) else query or ()
    given = MultiDict([pair for pair in pairs if pair[1] is not None])
    sent = Headers(list((headers or {}).items()))
    builder = EnvironBuilder(path=quote(path), method=method, query_string=given, json=json, headers=sent)
    builder.environ_base = {"REMOTE_ADDR": request.remote_addr or ""}
    principal, request_id = g.principal, audit.request_id()
    try:
        with current_app.app_context(), current_app.request_context(builder.get_environ()):
            g.principal, g.request_id = principal, request_id
            response = _answered()
    except (Error, HTTPException) as error:
        response = problem.of(error)
    if response.status_code >= 400:
        raise Problem(msgspec.json.decode(response.get_data()))
    return response


def _answered() -> Response:
    if request.routing_exception is not None:
        raise request.routing_exception
    for role in auth.declared_roles(current_app, request.endpoint):
        auth.require(role)
    view: Any = current_app.view_functions[str(request.endpoint)]
    return current_app.make_response(view(**(request.view_args or {})))
