"""The record of a real run: one line for each change and each refused credential, and nothing that should not be."""

import datetime
from typing import Any
from urllib.parse import urlencode

import pytest

from tests.live.mailbox import Mailbox
from tests.live.service import SECRETS, Service, basic

FIELDS = {"time", "event", "actor", "role", "address", "request_id", "action", "reason", "queue_id", "outcome"}


def lines_of(service: Service, before: int) -> list[dict[str, Any]]:
    lines = service.audit()[before:]
    for line in lines:
        assert set(line) >= FIELDS
        at = datetime.datetime.fromisoformat(line["time"])
        assert abs(datetime.datetime.now(datetime.UTC) - at) < datetime.timedelta(seconds=20)
        assert line["address"] == "127.0.0.1"
    return lines


def test_each_change_is_one_line_with_who_what_why_and_what_came_of_it(service: Service, mailbox: Mailbox) -> None:
    queue_id = mailbox.deferred()
    before = len(service.audit())
    wanted = [("hold", "held"), ("hold", "no_change"), ("flush", "no_change"), ("release", "released"),
              ("delete", "removed"), ("delete", "not_found")]  # fmt: skip
    ids = []
    for action, _ in wanted:
        answer = service.change(action, queue_id, reason=f"the reason to {action}: «Grüße» \u202e\u2029"[:-1])
        ids.append(answer.headers["X-Request-Id"])
    lines = lines_of(service, before)
    assert [(line["action"], line["outcome"]) for line in lines] == wanted
    assert [line["request_id"] for line in lines] == ids
    for line, (action, _) in zip(lines, wanted, strict=True):
        assert (line["event"], line["actor"], line["role"], line["queue_id"]) == ("change", "admin", "admin", queue_id)
        assert line["reason"] == f"the reason to {action}: «Grüße» \u202e"
        assert line["operation_id"].startswith("op-")


def test_a_flush_of_everything_is_a_line(service: Service) -> None:
    before = len(service.audit())
    service.ask("POST", "/v1/flush", "operator", {"X-Request-Id": "mine-1"}, {"reason": "all of it"})
    (line,) = lines_of(service, before)
    assert (line["action"], line["outcome"], line["actor"], line["request_id"], line["reason"]) == (
        "flush", "scheduled", "operator", "mine-1", "all of it",
    )  # fmt: skip


def test_each_refused_credential_is_a_line_and_a_missing_one_is_not(service: Service) -> None:
    path = "/v1/messages/4zzzzzzzzzzzzzz9"
    before = len(service.audit())
    service.ask("DELETE", path, None, {"Authorization": basic("admin", "not the password")})
    service.ask("DELETE", path, None, {"Authorization": "Bearer not-the-token"})
    service.ask("DELETE", path, None, {"Authorization": "Nonsense"})
    for name in (SECRETS["viewer"], f" {SECRETS['viewer']}", "a password, typed into the wrong field"):
        service.ask("DELETE", path, None, {"Authorization": basic(name, "")})
        form = urlencode({"name": name, "password": "x"}).encode()
        headers = {"Content-Type": "application/x-www-form-urlencoded", "Sec-Fetch-Site": "same-origin"}
        assert service.ask("POST", "/login", None, headers, form).status == 401
    service.ask("DELETE", path, None)
    service.ask("DELETE", path, "operator")
    service.ask("GET", f"{path}/raw", "admin")
    found = [(line["event"], line["actor"], line["reason"], line["outcome"]) for line in lines_of(service, before)]
    assert found == [
        ("refused", "admin", "refused", "unauthorized"),
        ("refused", None, "refused", "unauthorized"),
        ("refused", None, "malformed", "unauthorized"),
        *6 * [("refused", None, "refused", "unauthorized")],
        ("refused", "operator", "forbidden", "forbidden"),
        ("refused", "admin", "forbidden", "forbidden"),
    ]


def test_reading_leaves_no_line(service: Service, mailbox: Mailbox) -> None:
    queue_id = mailbox.deferred()
    before = len(service.audit())
    for path, who in (("", "viewer"), (f"/{queue_id}", "viewer"), (f"/{queue_id}/raw", "reader")):
        assert service.ask("GET", f"/v1/messages{path}", who).status == 200
    assert service.audit()[before:] == []


@pytest.mark.parametrize("name", ["a\n{}", 'a"}\n{"event":"change"}', "\u2028", "x" * 5000, "\x1b[31m", "\u202egro"])
def test_a_name_of_an_attacker_cannot_make_a_line(service: Service, name: str) -> None:
    before = len(service.audit())
    service.ask("DELETE", "/v1/messages/4zzzzzzzzzzzzzz9", None, {"Authorization": basic(name, "x")})
    (line,) = lines_of(service, before)
    assert line["event"] == "refused"
    text = service.stdout
    assert text.isascii()
    assert len(text.splitlines()) == len(service.audit())
    assert max(map(len, text.splitlines())) < 4096


@pytest.mark.parametrize("reason", ["two\nlines", "a\u2028b", "a\rb", "a\x00b", "a\x1b[0m"])
def test_a_reason_with_a_line_break_is_refused_and_leaves_the_message_alone(
    service: Service, mailbox: Mailbox, reason: str
) -> None:
    queue_id = mailbox.deferred()
    before = len(service.audit())
    answer = service.change("delete", queue_id, reason=reason)
    assert (answer.status, answer.code, answer.json()["field"]) == (400, "invalid_argument", "reason")
    assert mailbox.queue_name(queue_id) == "deferred"
    assert service.audit()[before:] == []


def test_neither_mail_nor_a_secret_is_in_what_the_service_says(service: Service, mailbox: Mailbox) -> None:
    queue_id = mailbox.deferred()
    service.ask("GET", f"/v1/messages/{queue_id}/body", "reader")
    service.change("delete", queue_id)
    service.ask("GET", "/v1/messages", None, {"Authorization": basic(SECRETS["viewer"], "")})
    service.ask("GET", "/v1/messages", None, {"Authorization": basic("admin", SECRETS["admin"] + "x")})
    assert mailbox.word not in service.stdout + service.stderr
    service.check_what_it_said()
