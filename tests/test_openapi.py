"""The OpenAPI document is valid, complete and true to the routes."""

import hashlib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from openapi_spec_validator import OpenAPIV31SpecValidator

from postqueue_api.config import Settings
from postqueue_api.errors import by_code
from postqueue_api.no_request import OF_THE_HEAD
from postqueue_api.web.app import create_app

TOKEN = "a-token-of-sufficient-length-for-tests"
CREDENTIALS = f'[reader]\ntoken_sha256 = "{hashlib.sha256(TOKEN.encode()).hexdigest()}"\nroles = ["viewer"]\n'
OPEN = re.compile(r"/health/")


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> Flask:
    state = tmp_path_factory.mktemp("state")
    return create_app(
        Settings(credentials=CREDENTIALS, state_directory=state, agent_socket=Path("/nonexistent/agent.sock"))
    )


@pytest.fixture(scope="module")
def document(app: Flask) -> dict[str, Any]:
    found: dict[str, Any] = app.test_client().get("/openapi.json").get_json()
    return found


def operations(document: dict[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            if method != "parameters":
                yield path, method.upper(), operation


def routes(app: Flask) -> set[tuple[str, str]]:
    """What the API answers, documents and the catch-all left out, as OpenAPI writes it; the dashboard is none."""
    return {
        (re.sub(r"<(?:\w+:)?(\w+)>", r"{\1}", rule.rule), method)
        for rule in app.url_map.iter_rules()
        for method in (rule.methods or set()) - {"HEAD", "OPTIONS"}
        if not rule.rule.startswith(("/docs", "/openapi.json", "/static")) and "<path:" not in rule.rule
        if not rule.endpoint.startswith("dashboard.")
    }


def references(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        if isinstance(value.get("$ref"), str):
            yield value["$ref"]
        for each in value.values():
            yield from references(each)
    elif isinstance(value, list):
        for each in value:
            yield from references(each)


def test_the_document_is_valid_openapi_3_1(document: dict[str, Any]) -> None:
    assert document["openapi"].startswith("3.1.")
    assert [error.message for error in OpenAPIV31SpecValidator(document).iter_errors()] == []


def test_every_route_is_in_the_document_with_its_methods_and_no_other(app: Flask, document: dict[str, Any]) -> None:
    assert {(path, method) for path, method, _ in operations(document)} == routes(app)


def refusals(operation: dict[str, Any]) -> set[str]:
    return {status for status in operation["responses"] if not status.startswith(("2", "3"))}


def test_every_reference_leads_somewhere_and_every_schema_is_referred_to(document: dict[str, Any]) -> None:
    found = set(references(document))
    schemas = {f"#/components/schemas/{name}" for name in document["components"]["schemas"]}
    assert found <= schemas
    assert schemas - found == set()


def test_every_operation_has_an_identifier_of_its_own_and_a_summary(document: dict[str, Any]) -> None:
    identifiers = [operation["operationId"] for _, _, operation in operations(document)]
    assert len(identifiers) == len(set(identifiers))
    assert [path for path, _, operation in operations(document) if not operation.get("summary")] == []


def test_every_parameter_of_a_path_is_described(document: dict[str, Any]) -> None:
    for path, _, operation in operations(document):
        described = {each["name"] for each in operation.get("parameters", []) if each["in"] == "path"}
        described |= {each["name"] for each in document["paths"][path].get("parameters", []) if each["in"] == "path"}
        assert described == set(re.findall(r"\{(\w+)\}", path))


def test_every_error_is_a_problem_document(document: dict[str, Any]) -> None:
    for path, method, operation in operations(document):
        for status in refusals(operation) if not OPEN.match(path) else ():
            content = operation["responses"][status]["content"]
            assert content["application/problem+json"]["schema"] == {"$ref": "#/components/schemas/Problem"}, (
                path,
                method,
                status,
            )
            assert set(content) == {"application/problem+json"}


def test_every_operation_behind_the_door_says_what_it_may_refuse(document: dict[str, Any]) -> None:
    for path, method, operation in operations(document):
        if OPEN.match(path):
            assert "security" not in operation or operation["security"] == [], path
            continue
        by_session: dict[str, list[str]] = {"session": []} if method == "GET" else {"session": [], "token": []}
        assert operation["security"] == [{"basic": []}, {"bearer": []}, by_session]
        expected = {"400", "401", "403", "414", "431", "500", "502", "503", "504", "507"}
        if "{queue_id}" in path:
            expected |= {"404"}
        if method != "GET":
            expected |= {"413", "415"}
        assert expected <= set(operation["responses"]), (path, method)


def test_every_status_of_an_error_is_one_that_errors_have(document: dict[str, Any]) -> None:
    known = {str(cls.status) for cls in by_code().values()} | {str(status.value) for status in OF_THE_HEAD}
    for path, _, operation in operations(document):
        if not OPEN.match(path):
            assert refusals(operation) <= known


def test_what_was_there_before_may_be_gone_and_what_did_not_change_has_no_content(document: dict[str, Any]) -> None:
    found = {path: operation["responses"] for path, method, operation in operations(document) if method == "GET"}
    assert {path for path, responses in found.items() if "410" in responses} == {"/v1/messages"}
    assert {path for path, responses in found.items() if "304" in responses} == {"/v1/status"}
    assert "content" not in found["/v1/status"]["304"]
    assert "503" in found["/health/ready"]


def test_a_parameter_says_what_it_takes_and_is_never_null(document: dict[str, Any]) -> None:
    for path, _, operation in operations(document):
        for each in operation.get("parameters", ()):
            schema = each["schema"]
            assert "type" in schema, (path, each["name"])
            assert schema.get("default", "") is not None, (path, each["name"])
            assert schema["type"] != "integer" or {"minimum", "maximum"} <= set(schema), (path, each["name"])
            assert not {"ge", "le"} & set(schema), (path, each["name"])


def test_every_input_refuses_what_it_does_not_name(document: dict[str, Any]) -> None:
    schemas = document["components"]["schemas"]
    for _, _, operation in operations(document):
        if "application/json" in operation.get("requestBody", {}).get("content", ()):
            reference = operation["requestBody"]["content"]["application/json"]["schema"]["$ref"]
            assert schemas[reference.rpartition("/")[2]]["additionalProperties"] is False


def test_a_real_problem_has_what_its_schema_requires(app: Flask, document: dict[str, Any]) -> None:
    schema = document["components"]["schemas"]["Problem"]
    for path in ("/v1/queues", "/v1/nothing", "/nothing"):
        problem = app.test_client().get(path).get_json(force=True)
        assert set(schema["required"]) <= set(problem) <= set(schema["properties"]), path


def test_the_document_needs_no_credential_and_no_agent(app: Flask) -> None:
    response = app.test_client().get("/openapi.json")
    assert response.status_code == 200
    assert response.mimetype == "application/json"


def test_the_host_that_a_client_names_is_not_in_the_document(tmp_path: Path) -> None:
    client = create_app(Settings(credentials=CREDENTIALS, state_directory=tmp_path)).test_client()
    document = client.get("/openapi.json", headers={"Host": "attacker.example"}).get_json()
    assert "attacker" not in str(document)
    assert document["servers"] == [{"url": "/"}]


def test_every_tag_has_operations_and_every_operation_a_tag(document: dict[str, Any]) -> None:
    used = [tag for _, _, operation in operations(document) for tag in operation["tags"]]
    assert {tag["name"] for tag in document["tags"]} == set(used)
    assert len(used) == len(list(operations(document)))
