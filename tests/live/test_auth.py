"""Every rule of the URL map, with every kind of credential: nothing is behind the door but for who may enter."""

import base64
from collections.abc import Iterator

import pytest

from postqueue_api.config import load
from postqueue_api.web.app import create_app
from tests.live.service import CREDENTIALS, SECRETS, Service, basic

ID = "4zzzzzzzzzzzzzz9"
OPEN = {"/health/live", "/health/ready", "/openapi.json"}
OPEN_BELOW = "/docs"
CAN_ALSO = {
    "viewer": {"viewer", "operator", "admin", "mover"},
    "operator": {"operator", "admin", "mover"},
    "admin": {"admin", "mover"},
    "content": {"reader", "mover"},
    "admin and content": {"mover"},
}
PARAMETERS = {"queue_id": ID, "operation_id": "op-0000000000000000", "site": "example.com", "rest": f"{ID}/nothing"}


def rules() -> Iterator[tuple[str, str, str | None]]:
    """Method, path and declared role of each rule; None for what is open to all. The dashboard has a door of its own,
    which tests/dashboard/test_login.py tries."""
    app = create_app(load({"POSTQUEUE_API_CREDENTIALS": CREDENTIALS}))
    for rule in app.url_map.iter_rules():
        if rule.endpoint.startswith("dashboard."):
            continue
        is_open = rule.rule in OPEN or rule.rule.startswith(OPEN_BELOW)
        role = None if is_open else app.view_functions[rule.endpoint].__dict__["required_role"]
        path = rule.rule
        for argument in rule.arguments:
            value = "swagger-ui.css" if is_open else PARAMETERS[argument]
            path = path.replace(f"<{argument}>", value).replace(f"<path:{argument}>", value)
        assert "<" not in path
        for method in sorted((rule.methods or set()) - {"OPTIONS"}):
            yield method, path, role


RULES = list(rules())
GUARDED = [(method, path, role) for method, path, role in RULES if role is not None]
WRONG = {
    "none at all": None,
    "empty": "",
    "a scheme alone": "Basic",
    "an empty token": "Bearer ",
    "a space": "Bearer  ",
    "not base64": "Basic %%%",
    "no colon": "Basic " + base64.b64encode(b"admin").decode(),
    "no name": basic("", SECRETS["admin"]),
    "no password": basic("admin", ""),
    "a wrong password": basic("admin", "wrong-" + SECRETS["admin"]),
    "another's password": basic("admin", SECRETS["operator"]),
    "a stranger": basic("stranger", SECRETS["admin"]),
    "a name in capitals": basic("ADMIN", SECRETS["admin"]),
    "a NUL after the password": basic("admin", SECRETS["admin"] + "\0"),
    "a wrong token": "Bearer " + SECRETS["viewer"][::-1],
    "a password as a token": "Bearer " + SECRETS["admin"],
    "a token as a password": basic("viewer", SECRETS["viewer"]),
    "another scheme": "Digest " + SECRETS["viewer"],
    "two credentials": f"Bearer {SECRETS['viewer']}, Bearer {SECRETS['viewer']}",
    "very long": "Bearer " + "a" * 5000,
}


def test_the_map_has_rules_for_every_role_and_open_ones() -> None:
    assert {role for _, _, role in RULES} == {None, "viewer", "operator", "admin", "content", "admin and content"}
    assert len({path for _, path, role in RULES if role is not None}) >= 10


@pytest.mark.parametrize("kind", ["none at all", "a wrong password", "a wrong token", "an empty token"])
def test_without_a_good_credential_every_guarded_rule_answers_401(service: Service, kind: str) -> None:
    header = WRONG[kind]
    before = service.commands()
    for method, path in {
        *((method, path) for method, path, _ in GUARDED),
        *(("OPTIONS", path) for _, path, _ in GUARDED),
    }:
        answer = service.ask(method, path, None, {} if header is None else {"Authorization": header})
        assert answer.status == 401, (method, path)
        assert len(answer.headers.get_all("WWW-Authenticate") or []) == 2, (method, path)
        if method != "HEAD":
            assert answer.code == "unauthorized"
    assert service.commands() == before


@pytest.mark.parametrize("kind", WRONG)
@pytest.mark.parametrize(
    ("method", "path"), [("GET", "/v1/messages"), ("DELETE", f"/v1/messages/{ID}"), ("GET", f"/v1/messages/{ID}/raw")]
)
def test_no_malformed_or_wrong_credential_opens_the_door(service: Service, method: str, path: str, kind: str) -> None:
    header = WRONG[kind]
    answer = service.ask(method, path, None, {} if header is None else {"Authorization": header})
    assert (answer.status, answer.code) == (401, "unauthorized")


@pytest.mark.parametrize("who", ["viewer", "operator", "admin", "reader", "mover"])
def test_each_principal_enters_where_its_role_does_and_nowhere_else(service: Service, who: str) -> None:
    for method, path, role in GUARDED:
        if path == "/v1/flush" and method == "POST":
            path += "?stopped-by-this-parameter=1"  # the door comes first, and nothing is flushed
        answer = service.ask(method, path, who)
        if who in CAN_ALSO[str(role)]:
            assert answer.status not in (401, 403), (method, path)
        else:
            assert answer.status == 403, (method, path, role)
            if method != "HEAD":
                assert answer.code == "forbidden"
                assert answer.json()["required_role"] in str(role).split(" and ")


def test_what_is_open_needs_no_credential(service: Service) -> None:
    paths = {path for method, path, role in RULES if role is None and method == "GET"}
    assert len(paths) >= 4
    for path in paths:
        assert service.ask("GET", path, None).status in (200, 301, 302, 308), path


def test_reasons_of_health_are_for_those_with_a_credential(service: Service) -> None:
    assert set(service.ask("GET", "/health/ready", None).json()) == {"ready"}
    assert set(service.ask("GET", "/health/ready", None, {"Authorization": "Bearer no"}).json()) == {"ready"}
    known = service.ask("GET", "/health/ready", "viewer").json()
    assert set(known["checks"]) == {"agent", "postfix", "credentials"}
    assert all(check["ok"] for check in known["checks"].values())
