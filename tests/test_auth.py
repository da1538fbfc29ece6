"""The door, on a small application of its own."""

import base64
import hashlib
import json
from collections.abc import Iterator

import bcrypt
import pytest
from apiflask import APIBlueprint, APIFlask
from flask import Flask, g
from flask.testing import FlaskClient
from pydantic import BaseModel
from werkzeug.test import TestResponse

from postqueue_api.config import Settings
from postqueue_api.errors import Error, Unauthorized
from postqueue_api.web import audit, auth
from postqueue_api.web.credentials import Store

PASSWORD, TOKEN = "correct horse battery", "A-random-token-of-some-length"
HASH = bcrypt.hashpw(PASSWORD.encode(), bcrypt.gensalt(10)).decode()
ACCENTED = bcrypt.hashpw("pässwörter sind schön".encode(), bcrypt.gensalt(10)).decode()
STORE = Store(
    Settings(
        credentials=f"""
        [alice]
        password_hash = "{HASH}"
        roles = ["operator"]
        [zoe]
        password_hash = "{ACCENTED}"
        roles = ["admin"]
        [grafana]
        token_sha256 = "{hashlib.sha256(TOKEN.encode()).hexdigest()}"
        roles = ["viewer"]
        [reader]
        token_sha256 = "{hashlib.sha256(b"reader's token").hexdigest()}"
        roles = ["content"]
        """
    )
)


class Body(BaseModel):
    number: int


def application() -> tuple[APIFlask, APIBlueprint]:
    app = APIFlask(__name__, enable_openapi=False)
    app.testing = True
    door = APIBlueprint("v1", __name__, url_prefix="/v1")
    inner = APIBlueprint("messages", __name__, url_prefix="/messages")

    @inner.get("/<queue_id>")
    @auth.role("viewer")
    def read(queue_id: str) -> dict[str, object]:
        return {"name": g.principal.name, "queue_id": queue_id}

    @inner.delete("/<queue_id>")
    @auth.role("admin")
    def delete(queue_id: str) -> dict[str, object]:
        return {"queue_id": queue_id}

    @inner.get("/<queue_id>/raw")
    @auth.role("content")
    def raw(queue_id: str) -> str:
        return queue_id

    @door.post("/operations")
    @door.input(Body, location="json")
    @auth.role("viewer")
    def operate(json_data: Body) -> dict[str, int]:
        auth.require("operator")
        return {"number": json_data.number}

    @app.get("/health")
    def health() -> str:
        return "well"

    @app.errorhandler(Error)
    def problem(error: Error) -> tuple[dict[str, object], int]:
        return {"code": error.code, "detail": error.detail, **error.members}, error.status

    door.register_blueprint(inner)
    auth.protect(door, STORE)
    app.register_blueprint(door)
    auth.check(app, door)
    return app, door


@pytest.fixture
def client() -> FlaskClient:
    return application()[0].test_client()


@pytest.fixture
def kinds() -> Iterator[list[str]]:
    seen: list[str] = []

    def count(_sender: object, *, kind: str, **_: object) -> None:
        seen.append(kind)

    with audit.credential_refused.connected_to(count):
        yield seen


def basic(name: str, password: str, encoding: str = "utf-8") -> str:
    return "Basic " + base64.b64encode(f"{name}:{password}".encode(encoding)).decode()


ALICE, ZOE = basic("alice", PASSWORD), basic("zoe", "pässwörter sind schön")
GRAFANA = f"Bearer {TOKEN}"


def ask(client: FlaskClient, header: str | None, method: str = "GET", path: str = "/v1/messages/ABC") -> TestResponse:
    headers = {} if header is None else {"Authorization": header}
    return client.open(path, method=method, headers=headers)


@pytest.mark.parametrize(
    ("header", "name"),
    [
        (ALICE, "alice"),
        (ALICE.replace("Basic", "basic"), "alice"),
        (ALICE.replace("Basic ", "BASIC   "), "alice"),
        (ZOE, "zoe"),
        (GRAFANA, "grafana"),
        (GRAFANA.replace("Bearer", "bearer"), "grafana"),
    ],
)
def test_a_good_credential_opens_the_door(client: FlaskClient, header: str, name: str) -> None:
    answer = ask(client, header)
    assert answer.status_code == 200
    assert answer.get_json() == {"name": name, "queue_id": "ABC"}


@pytest.mark.parametrize(
    ("header", "kind"),
    [
        (None, "missing"),
        ("", "malformed"),
        (" ", "malformed"),
        ("Basic", "malformed"),
        ("Basic ", "malformed"),
        ("Bearer", "malformed"),
        ("Bearer ", "malformed"),
        ("Basic !!!", "malformed"),
        ("Basic YWxpY2U", "malformed"),
        ("Basic YWxpY2U=", "malformed"),
        (ALICE.replace("Basic ", "Basic !"), "malformed"),
        (ALICE.replace("Basic ", "Basic ~---"), "malformed"),
        (ALICE.replace("Basic ", "Basic \xe9"), "malformed"),
        (ALICE.replace("Basic", "Digest"), "malformed"),
        (ALICE.replace("Basic", "Foo"), "malformed"),
        (ALICE.replace("Basic", "Bearer"), "refused"),
        (f"{ALICE}, {GRAFANA}", "malformed"),
        (f"{GRAFANA}, {ALICE}", "malformed"),
        (f"{ALICE},{ALICE}", "malformed"),
        (f"{GRAFANA} {GRAFANA}", "malformed"),
        ("Bearer token=" + TOKEN, "malformed"),
        ("Bearer " + "x" * 5000, "malformed"),
        ("Bearer x", "refused"),
        (basic("", ""), "malformed"),
        (basic("", PASSWORD), "malformed"),
        (basic("alice", PASSWORD + "\0"), "malformed"),
        (basic("alice", PASSWORD + "\n"), "malformed"),
        (basic("zoe", "pässwörter sind schön", "latin-1"), "malformed"),
        (basic("alice", ""), "refused"),
        (basic("alice", "wrong"), "refused"),
        (basic("bob", PASSWORD), "refused"),
        (basic("grafana", TOKEN), "refused"),
        (basic("alice", "x" * 1000), "refused"),
        (basic("alice", "wrong").rstrip("="), "malformed"),
    ],
)
def test_any_other_header_is_401_with_both_challenges(
    client: FlaskClient, kinds: list[str], header: str | None, kind: str
) -> None:
    answer = ask(client, header)
    assert answer.status_code == 401
    assert answer.headers.getlist("WWW-Authenticate") == list(auth.CHALLENGES)
    assert answer.get_json()["code"] == "unauthorized"
    assert kinds == [kind]


def test_two_authorization_headers_are_401(client: FlaskClient) -> None:
    answer = client.get("/v1/messages/ABC", headers=[("Authorization", ALICE), ("Authorization", ALICE)])
    assert answer.status_code == 401


@pytest.mark.parametrize("method", ["GET", "HEAD", "OPTIONS", "DELETE"])
def test_no_method_passes_without_a_credential(client: FlaskClient, method: str) -> None:
    assert ask(client, None, method).status_code == 401


def test_a_right_password_is_needed_after_options_too(client: FlaskClient) -> None:
    assert ask(client, ALICE, "OPTIONS").status_code == 200
    assert ask(client, basic("alice", "wrong"), "OPTIONS").status_code == 401


@pytest.mark.parametrize(
    ("header", "request_line", "needed"),
    [
        (GRAFANA, "DELETE /v1/messages/ABC", "admin"),
        (ALICE, "DELETE /v1/messages/ABC", "admin"),
        (ALICE, "GET /v1/messages/ABC/raw", "content"),
        (ZOE, "GET /v1/messages/ABC/raw", "content"),
        (GRAFANA, "POST /v1/operations", "operator"),
    ],
)
def test_a_credential_without_the_role_is_403_and_names_the_role(
    client: FlaskClient, kinds: list[str], header: str, request_line: str, needed: str
) -> None:
    method, path = request_line.split()
    body = {"number": 1} if method == "POST" else None
    answer = client.open(path, method=method, headers={"Authorization": header}, json=body)
    assert answer.status_code == 403
    assert answer.get_json()["required_role"] == needed
    assert "WWW-Authenticate" not in answer.headers
    assert kinds == ["forbidden"]


def test_the_role_survives_what_apiflask_wraps_around_a_view(client: FlaskClient) -> None:
    answer = client.post("/v1/operations", headers={"Authorization": ALICE}, json={"number": 3})
    assert answer.get_json() == {"number": 3}


def test_a_body_is_not_looked_at_before_the_credential(client: FlaskClient) -> None:
    answer = client.post("/v1/operations", data="{", content_type="application/json")
    assert answer.status_code == 401


def test_what_is_outside_the_door_needs_no_credential(client: FlaskClient) -> None:
    assert client.get("/health").status_code == 200
    assert client.get("/health", headers={"Authorization": "nonsense"}).status_code == 200


def test_a_view_without_a_role_stops_the_start_and_is_never_reached() -> None:
    app = Flask(__name__)
    app.testing = True
    door = APIBlueprint("v1", __name__, url_prefix="/v1")
    reached: list[int] = []

    @door.get("/forgotten")
    def forgotten() -> str:
        reached.append(1)
        return ""

    auth.protect(door, STORE)
    app.register_blueprint(door)
    app.register_error_handler(Unauthorized, lambda error: ("", 401))
    with pytest.raises(RuntimeError, match=r"v1\.forgotten declares no role"):
        auth.check(app, door)
    assert ask(app.test_client(), None, path="/v1/forgotten").status_code == 401
    with pytest.raises(RuntimeError, match="declares no role"):
        ask(app.test_client(), ZOE, path="/v1/forgotten")
    assert reached == []


def test_a_role_that_does_not_exist_cannot_be_declared() -> None:
    with pytest.raises(ValueError, match="'root' is not a role"):
        auth.role("root")


@pytest.mark.parametrize("path", ["/v1/messages/ABC", "/health", "/nowhere"])
def test_each_answer_has_a_request_id_of_its_own(client: FlaskClient, path: str) -> None:
    first, second = (client.get(path).headers["X-Request-Id"] for _ in range(2))
    assert len(first) == 32
    assert first != second


@pytest.mark.parametrize("offered", ["abc-1_2.3", "x" * 64])
def test_a_plain_request_id_of_the_client_is_kept(client: FlaskClient, offered: str) -> None:
    assert client.get("/health", headers={"X-Request-Id": offered}).headers["X-Request-Id"] == offered


@pytest.mark.parametrize("offered", ["", "a b", "x" * 65, "é", '"', "a,b", "a;b"])
def test_any_other_request_id_is_replaced(client: FlaskClient, offered: str) -> None:
    assert len(client.get("/health", headers={"X-Request-Id": offered}).headers["X-Request-Id"]) == 32


@pytest.mark.parametrize(
    ("header", "actor"),
    [
        (basic("alice", "a wrong password"), "alice"),
        (basic("mallory", "a wrong password"), None),
        (basic(f" {TOKEN}", "a wrong password"), None),
        (basic(TOKEN, "a wrong password"), None),
        ("Bearer a-wrong-token", None),
        ("Nonsense a-wrong-token", None),
    ],
)
def test_a_refused_credential_is_one_line_without_the_secret(
    client: FlaskClient, capfd: pytest.CaptureFixture[str], header: str, actor: str | None
) -> None:
    answer = ask(client, header)
    (text,) = capfd.readouterr().out.splitlines()
    line = json.loads(text)
    assert line["event"] == "refused"
    assert line["actor"] == actor
    assert line["action"] == "GET /v1/messages/<queue_id>"
    assert line["address"] == "127.0.0.1"
    assert line["request_id"] == answer.headers["X-Request-Id"]
    assert line["outcome"] == "unauthorized"
    for secret in ("a wrong password", "a-wrong-token", TOKEN, header.split()[-1]):
        assert secret not in text


def test_a_missing_credential_is_no_line(client: FlaskClient, capfd: pytest.CaptureFixture[str]) -> None:
    ask(client, None)
    assert capfd.readouterr().out == ""


def test_a_missing_role_is_one_line_with_who_it_was_and_what_was_needed(
    client: FlaskClient, capfd: pytest.CaptureFixture[str]
) -> None:
    ask(client, GRAFANA, "DELETE")
    line = json.loads(capfd.readouterr().out)
    assert (line["actor"], line["role"], line["required_role"]) == ("grafana", "viewer", "admin")
    assert (line["outcome"], line["queue_id"]) == ("forbidden", "ABC")
