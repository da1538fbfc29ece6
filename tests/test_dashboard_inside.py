"""The dashboard asks /v1 as the one who is logged in, and can do nothing that /v1 does not allow."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from flask import Flask, g, request

from postqueue_api.config import Settings
from postqueue_api.web import audit
from postqueue_api.web.app import create_app
from postqueue_api.web.credentials import Principal
from postqueue_api.web.dashboard import inside
from postqueue_api.web.dashboard.inside import Problem

CREDENTIALS = f'[viewer]\ntoken_sha256 = "{"1" * 64}"\nroles = ["viewer"]\n'
ID = "4zzzzzzzzzzzzzz9"


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> Flask:
    """An application whose agent is not there."""
    place = tmp_path_factory.mktemp("state")
    return create_app(Settings(credentials=CREDENTIALS, state_directory=place, agent_socket=Path(place / "agent.sock")))


@pytest.fixture
def viewer(app: Flask) -> Iterator[None]:
    with app.test_request_context("/trash?lang=ja", environ_base={"REMOTE_ADDR": "192.0.2.7"}):
        g.principal, g.request_id = Principal("viewer", frozenset({"viewer"})), "the-request"
        yield


@pytest.mark.usefixtures("viewer")
def test_an_answer_has_status_document_and_headers() -> None:
    answer = inside.ask("GET", "/v1/operations", {"limit": 5, "next": None})
    assert (answer.status, answer.body) == (200, {"operations": [], "next": None})
    assert answer.headers["Content-Type"] == "application/json"


@pytest.mark.usefixtures("viewer")
def test_pairs_are_asked_for_as_they_are() -> None:
    with pytest.raises(Problem) as caught:
        inside.ask("GET", "/v1/messages", [("queue_name", "hold"), ("queue_name", "nonsense")])
    assert (caught.value.status, caught.value.code) == (400, "invalid_argument")
    assert str(caught.value.field).startswith("queue_name")


@pytest.mark.usefixtures("viewer")
def test_the_request_that_asks_stays_as_it_was() -> None:
    inside.ask("GET", "/v1/operations")
    assert request.path == "/trash"
    assert g.principal.name == "viewer"
    assert audit.request_id() == "the-request"


@pytest.mark.parametrize(
    ("method", "path", "json", "status", "code"),
    [
        ("GET", f"/v1/messages/{ID}/raw", None, 403, "forbidden"),
        ("POST", f"/v1/messages/{ID}/hold", {}, 403, "forbidden"),
        ("DELETE", f"/v1/messages/{ID}", {}, 403, "forbidden"),
        ("POST", "/v1/operations", {"action": "delete", "selection": {"everything": True}}, 403, "forbidden"),
        ("GET", "/v1/operations/nonsense", None, 400, "invalid_argument"),
        ("GET", "/v1/operations/op-0000000000000000", None, 404, "no_such_operation"),
        ("GET", "/v1/messages/a?b#c/../..", None, 400, "invalid_argument"),
        ("GET", "/v1/nothing", None, 404, "not_found"),
        ("PUT", "/v1/operations", None, 405, "method_not_allowed"),
        ("GET", f"/v1/messages/{ID}/envelope", None, 503, "agent_unavailable"),
    ],
)
@pytest.mark.usefixtures("viewer")
def test_every_no_is_a_problem_with_its_status_and_code(
    method: str, path: str, json: object, status: int, code: str
) -> None:
    with pytest.raises(Problem) as caught:
        inside.ask(method, path, json=json)
    assert (caught.value.status, caught.value.code) == (status, code)
    assert caught.value.detail
    assert caught.value.members["request_id"] == "the-request"


@pytest.mark.parametrize("path", ["/", "/trash", "/metrics", "/v1", "//v1/operations", "http://example.org/v1/x"])
@pytest.mark.usefixtures("viewer")
def test_nothing_but_v1_is_asked(path: str) -> None:
    with pytest.raises(ValueError, match="not below /v1"):
        inside.ask("GET", path)


@pytest.mark.usefixtures("viewer")
def test_a_refusal_is_in_the_audit_with_the_address_of_the_client(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(Problem):
        inside.ask("POST", f"/v1/messages/{ID}/hold", json={})
    said = capfd.readouterr().out
    assert '"actor": "viewer"' in said
    assert '"address": "192.0.2.7"' in said
    assert '"action": "POST /v1/messages/<queue_id>/hold"' in said


def test_a_fault_of_a_page_tells_nothing_of_itself(app: Flask, caplog: pytest.LogCaptureFixture) -> None:
    from postqueue_api.web.dashboard import page

    with app.test_request_context("/trash"):
        response = page.of_a_bug(ZeroDivisionError("a secret of ours"))
    assert response.status_code == 500
    assert "a secret of ours" not in response.get_data(as_text=True)
    assert "a secret of ours" in caplog.text
