"""What a client sends is read strictly: what is unknown, doubled, malformed or of another type is refused."""

from typing import Any

import pytest
from apiflask import APIFlask
from flask.testing import FlaskClient

from postqueue_api.web import problem
from postqueue_api.web.validation import Input


class Query(Input):
    name: str = "nobody"
    several: tuple[str, ...] = ()


class Body(Input):
    reason: str | None = None
    number: int = 0


@pytest.fixture
def client() -> FlaskClient:
    app = APIFlask(__name__)
    problem.install(app)

    @app.get("/query")
    @app.input(Query, location="query", arg_name="query")
    def query(query: Query) -> dict[str, Any]:
        return query.model_dump()

    @app.post("/body")
    @app.input(Body, location="json", arg_name="body")
    def body(body: Body) -> dict[str, Any]:
        return body.model_dump()

    return app.test_client()


@pytest.mark.parametrize(
    ("query", "read"),
    [
        ("", {"name": "nobody", "several": []}),
        ("name=alice", {"name": "alice", "several": []}),
        ("name=", {"name": "", "several": []}),
        ("several=a", {"name": "nobody", "several": ["a"]}),
        ("several=a&several=b", {"name": "nobody", "several": ["a", "b"]}),
        ("name=a%26b%20%C3%BC", {"name": "a&b ü", "several": []}),
    ],
)
def test_a_query_is_read_as_its_model(client: FlaskClient, query: str, read: dict[str, Any]) -> None:
    response = client.get(f"/query?{query}")
    assert (response.status_code, response.get_json()) == (200, read)


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("unknown=1", "unknown"), ("Name=1", "Name"), ("name[]=1", "name[]"), ("name=a&name=b", "name"),
        ("name=a&name=a", "name"), ("name=a&unknown", "unknown"), ("=1", "body"), ("__class__=1", "__class__"),
    ],
)  # fmt: skip
def test_a_query_that_does_not_fit_is_refused_by_its_field(client: FlaskClient, query: str, field: str) -> None:
    response = client.get(f"/query?{query}")
    document = response.get_json(force=True)
    assert (response.status_code, document["code"], document["field"]) == (400, "invalid_argument", field)
    assert document["accepted"]


@pytest.mark.parametrize(
    ("arguments", "read"),
    [
        ({}, {"reason": None, "number": 0}),
        ({"json": {}}, {"reason": None, "number": 0}),
        ({"json": {"reason": "why"}}, {"reason": "why", "number": 0}),
        ({"data": b'{"number": 3}', "content_type": "application/json; charset=utf-8"}, {"reason": None, "number": 3}),
        ({"data": '{"reason": "ü"}'.encode(), "content_type": "application/json"}, {"reason": "ü", "number": 0}),
        ({"data": b'\xef\xbb\xbf{"number": 3}', "content_type": "application/json"}, {"reason": None, "number": 3}),
    ],
)
def test_a_body_is_read_as_its_model_and_may_be_left_out(
    client: FlaskClient, arguments: dict[str, Any], read: dict[str, Any]
) -> None:
    response = client.post("/body", **arguments)
    assert (response.status_code, response.get_json()) == (200, read)


@pytest.mark.parametrize(
    ("body", "field"),
    [
        (b"", "body"),
        (b"{", "body"),
        (b"null", "body"),
        (b"[]", "body"),
        (b'"x"', "body"),
        (b"\xff\xfe", "body"),
        (b'{"reason": "\xff"}', "body"),
        ('{"reason": "why"}'.encode("utf-16"), "body"),
        ('{"reason": "why"}'.encode("utf-32-le"), "body"),
        (b"[" * 100_000, "body"),
        (b'{"a": ' * 100_000, "body"),
        (b'{"unknown": 1}', "unknown"),
        (b'{"reason": 1}', "reason"),
        (b'{"reason": ["x"]}', "reason"),
        (b'{"number": "three"}', "number"),
        (b'{"number": 1.5}', "number"),
        (b'{"number": NaN}', "body"),
        (b'{"number": 1' + b"0" * 5000 + b"}", "body"),
    ],
    ids=lambda value: ascii(value)[:30],
)
def test_a_body_that_does_not_fit_is_refused_by_its_field(client: FlaskClient, body: bytes, field: str) -> None:
    response = client.post("/body", data=body, content_type="application/json")
    document = response.get_json(force=True)
    assert (response.status_code, document["code"], document["field"]) == (400, "invalid_argument", field)
    assert document["accepted"]


@pytest.mark.parametrize(
    "content_type",
    [
        "application/x-www-form-urlencoded",
        "multipart/form-data",
        "text/plain",
        "application/xml",
        "application/jsonx",
        None,
    ],
)
def test_a_body_of_another_type_is_refused_unread(client: FlaskClient, content_type: str | None) -> None:
    response = client.post("/body", data=b'{"reason": "why"}', content_type=content_type)
    assert response.status_code == 415
    assert response.get_json(force=True)["code"] == "unsupported_media_type"


@pytest.mark.parametrize("body", [b'{"reason": "a", "reason": "b"}', b'{"number": 1, "number": 1}'])
def test_a_member_that_is_given_twice_is_refused(client: FlaskClient, body: bytes) -> None:
    assert client.post("/body", data=body, content_type="application/json").status_code == 400


def test_a_refusal_never_repeats_the_value(client: FlaskClient) -> None:
    for response in (
        client.post("/body", json={"number": "hunter2"}),
        client.get("/query?name=hunter2&name=hunter2"),
        client.post("/body", data=b"hunter2", content_type="application/json"),
    ):
        assert "hunter2" not in response.get_data(as_text=True)
