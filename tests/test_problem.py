"""Every error is one kind of document, and a bug tells nothing of itself."""

from typing import Any, NoReturn

import pytest
from flask import Flask, abort, request
from flask.testing import FlaskClient
from werkzeug.exceptions import RequestedRangeNotSatisfiable

from postqueue_api import errors
from postqueue_api.errors import Error, InvalidArgument, TooManyRequests, by_code
from postqueue_api.web import problem

MEMBERS = {"type", "title", "status", "detail", "code", "request_id"}


@pytest.fixture
def client() -> FlaskClient:
    app = Flask(__name__)
    app.config["MAX_CONTENT_LENGTH"] = 10
    problem.install(app)

    @app.post("/read")
    def read() -> str:
        return request.get_data(as_text=True)

    @app.get("/abort/<int:status>")
    def give_up(status: int) -> NoReturn:
        if status == 416:
            raise RequestedRangeNotSatisfiable
        abort(status)

    @app.get("/bug")
    def bug() -> NoReturn:
        raise ZeroDivisionError("/etc/secret hunter2")

    @app.get("/raise/<code>")
    def raise_ours(code: str) -> NoReturn:
        kind = by_code()[code]
        if kind is TooManyRequests:
            raise TooManyRequests("Slow down.", retry_after=7)
        raise kind("What is wrong.")

    @app.get("/field")
    def field() -> NoReturn:
        raise InvalidArgument("limit is wrong.", field="limit", accepted='<script> "\u2028"')

    return app.test_client()


def ask(client: FlaskClient, path: str, method: str = "GET", **arguments: Any) -> dict[str, Any]:
    """The problem document; its status is the answer's, and it has all that one must have."""
    response = client.open(path, method=method, **arguments)
    assert response.mimetype == "application/problem+json"
    document: dict[str, Any] = response.get_json(force=True)
    assert set(document) >= MEMBERS
    assert document["status"] == response.status_code
    assert document["type"] == "about:blank"
    assert len(document["request_id"]) == 32
    return document


@pytest.mark.parametrize("kind", by_code().values())
def test_each_error_of_ours_is_told_by_status_title_code_and_sentence(client: FlaskClient, kind: type[Error]) -> None:
    document = ask(client, f"/raise/{kind.code}")
    assert (document["status"], document["title"], document["code"]) == (kind.status, kind.title, kind.code)
    assert document["detail"] in ("What is wrong.", "Slow down.")


def test_a_field_is_named_with_what_would_be_accepted_and_any_text_is_valid_json(client: FlaskClient) -> None:
    document = ask(client, "/field")
    assert (document["field"], document["accepted"]) == ("limit", '<script> "\u2028"')


def test_who_asks_too_often_is_told_when_to_come_again(client: FlaskClient) -> None:
    assert client.get("/raise/too_many_requests").headers["Retry-After"] == "7"
    assert ask(client, "/raise/too_many_requests")["retry_after"] == 7


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/nothing", 404, "not_found"),
        ("DELETE", "/read", 405, "method_not_allowed"),
        ("GET", "/abort/400", 400, "invalid_argument"),
        ("GET", "/abort/413", 413, "payload_too_large"),
        ("GET", "/abort/415", 415, "unsupported_media_type"),
        ("GET", "/abort/418", 418, "invalid_argument"),
        ("GET", "/abort/416", 416, "invalid_argument"),
        ("GET", "/abort/500", 500, "error"),
        ("GET", "/abort/503", 503, "error"),
    ],
)
def test_what_flask_itself_refuses_is_told_the_same_way(
    client: FlaskClient, method: str, path: str, status: int, code: str
) -> None:
    document = ask(client, path, method)
    assert (document["status"], document["code"]) == (status, code)
    assert document["detail"].endswith(".")


def test_a_body_over_the_limit_names_the_setting(client: FlaskClient) -> None:
    assert "POSTQUEUE_API_BODY_LIMIT_BYTES" in ask(client, "/read", "POST", data=b"x" * 11)["detail"]


def test_a_method_that_is_not_taken_is_answered_with_those_that_are(client: FlaskClient) -> None:
    assert set(client.delete("/read").headers["Allow"].split(", ")) == {"POST", "OPTIONS"}


def test_a_bug_is_a_500_that_tells_nothing_and_is_in_the_log_with_its_request(
    client: FlaskClient, caplog: pytest.LogCaptureFixture
) -> None:
    document = ask(client, "/bug")
    assert (document["status"], document["code"]) == (500, "error")
    assert "hunter2" not in str(document)
    assert "ZeroDivision" not in str(document)
    (record,) = caplog.records
    assert document["request_id"] in record.getMessage()
    assert record.exc_info is not None
    assert record.exc_info[0] is ZeroDivisionError


@pytest.mark.parametrize("code", ["not_found", "payload_too_large", "unsupported_media_type"])
def test_a_code_is_the_same_whoever_refuses(code: str) -> None:
    assert by_code()[code].status == {"not_found": 404, "payload_too_large": 413}.get(code, 415)
    assert errors.NotFound.code == "not_found"
