"""What the agent's routes share: what web sends, read; what it gets; and the workplace of the one agent."""

from typing import TypeVar

import msgspec
from flask import Response, current_app, request

from postqueue_api.agent.workplace import Workplace
from postqueue_api.errors import InvalidArgument

_T = TypeVar("_T")


class Actor(msgspec.Struct, forbid_unknown_fields=True):
    """Who asks, as web found out."""

    name: str
    role: str
    address: str | None = None
    request_id: str | None = None


def workplace() -> Workplace:
    """What the agent has."""
    found: Workplace = current_app.config["WORKPLACE"]
    return found


def read(kind: type[_T]) -> _T:
    """The request's body. Raises InvalidArgument."""
    return decoded(request.get_data(), kind)


def decoded(content: bytes, kind: type[_T]) -> _T:
    """A document of a kind. Raises InvalidArgument."""
    try:
        return msgspec.json.decode(content, type=kind)
    except msgspec.DecodeError as error:
        raise InvalidArgument(f"The agent cannot read this request: {error}.") from None


def answer(value: object, status: int = 200) -> Response:
    """A JSON document of plain values, dataclasses and structs."""
    return Response(msgspec.json.encode(value), status, mimetype="application/json")
