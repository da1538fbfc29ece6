"""What POST /v1/operations does not accept, for each field: refused by web, before the agent hears of it.

No agent listens here: whatever got past the checks would be answered 503, as the good requests are.
"""

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from postqueue_api.config import Settings
from postqueue_api.web.app import create_app

TOKEN = "a-token-of-sufficient-length-for-tests"
CREDENTIALS = f'[admin]\ntoken_sha256 = "{hashlib.sha256(TOKEN.encode()).hexdigest()}"\nroles = ["admin"]\n'
ID = "4zzzzzzzzzzzzzz9"
SENDER = {"sender": "anna@example.com"}
GOOD: dict[str, Any] = {"action": "delete", "selection": SENDER, "reason": "a test"}


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> FlaskClient:
    state = tmp_path_factory.mktemp("state")
    return create_app(
        Settings(credentials=CREDENTIALS, state_directory=state, agent_socket=state / "agent.sock")
    ).test_client()


def post(client: FlaskClient, body: bytes, path: str = "/v1/operations", **headers: str) -> TestResponse:
    given = {"Authorization": f"Bearer {TOKEN}", "Content-Type": "application/json", **headers}
    return client.post(path, data=body, headers=given)


def code(answer: TestResponse) -> str:
    assert answer.mimetype == "application/problem+json", answer.data
    return str(answer.get_json(force=True)["code"])


@pytest.mark.parametrize(
    "changed",
    [
        {},
        {"dry_run": True, "reason": None},
        {"selection": {"queue_ids": [ID]}, "reason": None},
        {"selection": {"queue_ids": [ID, ID]}, "reason": None},
        {"selection": {"everything": True}},
        {"selection": {"min_age": "2h", "queue_name": ["hold", "deferred"], "forced_expire": False}},
        {"expected_count": 0, "keep_copy": False},
        {"reason": "Grüße" * 200},
        {"action": "flush", "max_per_second": 0.5, "reason": None},
    ],
    ids=str,
)
def test_what_is_accepted_goes_to_the_agent(client: FlaskClient, changed: dict[str, Any]) -> None:
    answer = post(client, json.dumps({**GOOD, **changed}).encode())
    assert (answer.status_code, code(answer)) == (503, "agent_unavailable")


VALUES: dict[str, list[Any]] = {
    "action": ["", "remove", "DELETE", "restore", "delete ", None, 1, ["delete"]],
    "selection": [
        {}, None, "all", [], [ID], {"everything": False}, {"queue_name": []}, {"queue_ids": None},
        {"queue_ids": [ID], "everything": True}, {"queue_ids": [ID], **SENDER}, {"everything": True, **SENDER},
    ],
    "reason": [
        "", "x" * 1001, "x" * 10240, "a\nb", "a\0b", "a\x1b[0m", "a\x7f", "a\u2028b", "\ud800", 5, ["why"], None,
    ],
    "expected_count": [-1, "3", True, 1.5, 1.0, [3], "", {}],
    "dry_run": ["true", "no", 1, 0, None, [], ""],
    "keep_copy": ["true", "no", 1, 0, None, [], ""],
    "max_per_second": [0, -1, 10_001, "5", [], True, 5],
    "force": [True],
    "wait": [3],
}  # fmt: skip
CONDITIONS: dict[str, list[Any]] = {
    "queue_ids": [[], ID, {"0": ID}],
    "queue_ids.1": [
        [ID, queue_id]
        for queue_id in ("ALL", "-", "", "ABCDE", "A" * 65, "ABCDEF\n", "ABCDEF;id", "ABC DEF", "ÄBCDEF", "١٢٣٤٥٦",
                         123456, None, [ID])
    ],
    "everything": ["yes", 1.5, None],
    "queue_name": ["hold"],
    "queue_name.0": [["corrupt"], ["all"]],
    "sender": ["", "a\nb", "a\0b", "x" * 1001, ["a"]],
    "recipient_domain": ["a\r"],
    "reason": [5],
    "min_age": ["2 h", 7200, "-1s"],
    "min_size": [-1, True],
    "max_size": ["1e3"],
    "forced_expire": ["no"],
    "queue_id": [ID],
    "colour": ["red"],
    "sort": ["sender"],
    "limit": [3],
}  # fmt: skip
BAD = [
    *((name, {name: value}) for name, values in VALUES.items() for value in values),
    *(
        (f"selection.{name}", {"selection": {name.partition(".")[0]: value}})
        for name, values in CONDITIONS.items()
        for value in values
    ),
    ("max_per_second", {"action": "flush", "max_per_second": 0}),
    ("max_per_second", {"action": "flush", "max_per_second": True}),
    ("max_per_second", {"action": "flush", "max_per_second": "5"}),
    ("reason", {"selection": {"queue_ids": [ID, ID[::-1]]}, "reason": None}),
    ("min_size", {"selection": {"min_size": 3, "max_size": 2}}),
]


@pytest.mark.parametrize(("field", "changed"), BAD, ids=[f"{field}-{number}" for number, (field, _) in enumerate(BAD)])
def test_what_is_not_accepted_is_refused_with_the_name_of_the_field(
    client: FlaskClient, field: str, changed: dict[str, Any]
) -> None:
    answer = post(client, json.dumps({**GOOD, **changed}).encode())
    assert (answer.status_code, code(answer)) == (400, "invalid_argument"), changed
    problem = answer.get_json(force=True)
    assert (problem["field"], bool(problem["accepted"])) == (field, True)


@pytest.mark.parametrize("missing", ["action", "selection", "reason"])
def test_what_is_needed_is_named(client: FlaskClient, missing: str) -> None:
    answer = post(client, json.dumps({name: value for name, value in GOOD.items() if name != missing}).encode())
    assert (answer.status_code, answer.get_json(force=True)["field"]) == (400, missing)


@pytest.mark.parametrize(
    "body",
    [
        b"", b"{", b"null", b"[]", b'"delete"', b"1", b"{}", b"\xff", b'{"action": "delete"', b"NaN", b"[" * 100_000,
        json.dumps(GOOD).encode() + b"{}",
        b'{"action": "hold", "action": "delete", "selection": {"everything": true}, "reason": "x"}',
        b'{"action": "delete", "selection": {"sender": "a", "sender": "b"}, "reason": "x"}',
        b'{"action": "flush", "selection": {"everything": true}, "max_per_second": Infinity}',
        b'{"action": "flush", "selection": {"everything": true}, "max_per_second": 1e999}',
    ],
    ids=repr,
)  # fmt: skip
def test_a_body_that_is_no_json_object_with_each_member_once_is_refused(client: FlaskClient, body: bytes) -> None:
    answer = post(client, body)
    assert (answer.status_code, code(answer)) == (400, "invalid_argument")


@pytest.mark.parametrize(
    "kind", ["", "text/plain", "application/x-www-form-urlencoded", "application/xml", "text/json"]
)
def test_a_body_of_another_content_type_is_refused(client: FlaskClient, kind: str) -> None:
    answer = post(client, json.dumps(GOOD).encode(), **{"Content-Type": kind})
    assert (answer.status_code, code(answer)) == (415, "unsupported_media_type")


@pytest.mark.parametrize("query", ["?dry_run=true", "?wait=5", "?action=delete"])
def test_a_query_parameter_is_refused(client: FlaskClient, query: str) -> None:
    assert post(client, json.dumps(GOOD).encode(), f"/v1/operations{query}").status_code == 400


def test_a_million_and_one_messages_are_too_many_and_the_limit_is_named(client: FlaskClient) -> None:
    queue_ids = [f"4jY9mn{number:010}" for number in range(1_000_001)]
    answer = post(client, json.dumps({**GOOD, "selection": {"queue_ids": queue_ids}}).encode())
    assert (answer.status_code, code(answer)) == (413, "payload_too_large")
    assert "1000000" in answer.get_json(force=True)["detail"]
    assert "POSTQUEUE_API_OPERATION_LIMIT_MESSAGES" in answer.get_json(force=True)["detail"]


def test_a_body_above_the_limit_is_not_read(tmp_path: Path) -> None:
    settings = Settings(
        credentials=CREDENTIALS, state_directory=tmp_path, agent_socket=tmp_path / "none", body_limit_bytes=2048
    )
    answer = post(create_app(settings).test_client(), json.dumps({**GOOD, "reason": "x" * 2048}).encode())
    assert (answer.status_code, code(answer)) == (413, "payload_too_large")


@pytest.mark.parametrize("path", [f"/v1/trash/{ID}/restore", "/v1/operations/op-0123456789abcdef/restore"])
@pytest.mark.parametrize(
    ("field", "body"),
    [("to", {"to": "active"}), ("to", {"to": ""}), ("to", {"to": ["hold"]}), ("reason", {"reason": "a\nb"}),
     ("reason", {"reason": "x" * 10240}), ("queue_id", {"queue_id": ID}), ("body", [])],
)  # fmt: skip
def test_a_restore_takes_a_queue_and_a_reason_and_nothing_else(
    client: FlaskClient, path: str, field: str, body: Any
) -> None:
    answer = post(client, json.dumps(body).encode(), path)
    assert (answer.status_code, answer.get_json(force=True)["field"]) == (400, field)
