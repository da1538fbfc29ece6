"""Read what a client sends into pydantic models, strictly: unknown, doubled and malformed values are refused.

APIFlask reads a query string into a plain dict and takes any body for JSON. This adapter stands in for its own,
so that a view says `@blueprint.input(Model, location="query")` and gets what it asked for, or nothing happens.
"""

import json
import sys
from typing import Any, get_origin

from apiflask.schema_adapters import registry
from apiflask.schema_adapters.pydantic import PydanticAdapter
from flask import Request
from pydantic import BaseModel, ConfigDict, ValidationError

from postqueue_api.errors import InvalidArgument, PayloadTooLarge, UnsupportedMediaType


class Input(BaseModel):
    """What all inputs have in common: members that are not named are refused, and nothing is guessed."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class StrictAdapter(PydanticAdapter):
    """Validates where APIFlask's own adapter guesses. Raises InvalidArgument and UnsupportedMediaType."""

    def validate_input(self, request: Request, location: str, **_: Any) -> BaseModel:
        """The model that the request's query string or JSON body holds."""
        data = self._query(request) if location == "query" else _body(request)
        try:
            return self.model_class.model_validate(data)
        except ValidationError as error:
            raise _refusal(error, self.model_class) from None

    def _query(self, request: Request) -> dict[str, Any]:
        data: dict[str, Any] = {}
        for name, values in request.args.lists():
            field = self.model_class.model_fields.get(name)
            if field is not None and get_origin(field.annotation) in (tuple, list):
                data[name] = values
            elif len(values) > 1:
                raise InvalidArgument(f"{name} is given more than once.", field=name, accepted="one value")
            else:
                data[name] = values[0]
        return data


def _body(request: Request) -> Any:
    if request.mimetype != "application/json":
        if not request.mimetype and not _content(request):
            return {}
        raise UnsupportedMediaType("Send the body as application/json.")
    try:
        text = _content(request).decode("utf-8-sig")
        return json.loads(text, object_pairs_hook=_members, parse_constant=_refuse_constant)
    except (ValueError, RecursionError):
        raise InvalidArgument("The body is not JSON.", field="body", accepted="a JSON object in UTF-8") from None


def _content(request: Request) -> bytes:
    content = request.get_data()
    # A body that does not say its length (chunked) is cut at the limit by Werkzeug 3.1, without a word.
    if request.content_length is None and len(content) >= (request.max_content_length or sys.maxsize):
        raise PayloadTooLarge("The request body is larger than POSTQUEUE_API_BODY_LIMIT_BYTES allows.")
    return content


def _members(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) < len(pairs):
        name = next(name for name, _ in pairs if [other for other, _ in pairs].count(name) > 1)
        raise InvalidArgument(f"{name} is given more than once.", field=name, accepted="one value")
    return members


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def _refusal(error: ValidationError, model: type[BaseModel]) -> InvalidArgument:
    first = error.errors(include_url=False, include_input=False)[0]
    field = ".".join(str(part) for part in first["loc"]) or "body"
    if first["type"] == "extra_forbidden":
        known = ", ".join(model.model_fields) or "no member at all"
        return InvalidArgument(f"{field} is not known here.", field=field, accepted=known)
    said = first["ctx"]["error"] if "error" in first.get("ctx", {}) else first["msg"]
    return InvalidArgument(f"{field} is not accepted: {said}.", field=field, accepted=str(said))


# At import: a view's decorator asks the registry when its module is read, and that imports this one first.
registry.register("pydantic", StrictAdapter)
