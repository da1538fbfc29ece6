"""What is not accepted: a problem document that names the field, and no command is started for it."""

import http.client
from collections.abc import Iterator
from contextlib import closing
from urllib.parse import quote

import pytest

from postqueue_api.sandbox.sink import LOOPBACK
from tests.live.mailbox import Mailbox
from tests.live.service import AUTHORIZATION, Answer, Service

CHANGES = [
    ("DELETE", "", "admin"),
    *(("POST", f"/{each}", "admin") for each in ("flush", "hold", "release", "requeue", "expire")),
]
READS = [
    ("GET", "", "viewer"),
    ("GET", "/envelope", "viewer"),
    *(("GET", f"/{each}", "reader") for each in ("headers", "body", "raw")),
]
GOOD_ID = "4zzzzzzzzzzzzzz9"
ARABIC_DIGITS = quote("".join(map(chr, range(0x660, 0x66A))))
WIDE_LETTERS = quote("".join(map(chr, range(0xFF21, 0xFF27))))
IDS = [
    "ALL", "all", "-", "*", ".", "A", "ABCDE",
    "-d", "-ALLALL", "--help",
    "..", "%2e%2e",
    "ABCDEF%0A", "A%0A", "ABCDEF%0D", "A%00", "ABCDEF%00junk", "ABCDEF%20deferred", "ABCDEF;id", "$(id)", "`id`", "%7C",
    "A" * 65, "A" * 3000,
    ARABIC_DIGITS, WIDE_LETTERS, "%C3%84BCDEF", "%ff%fe%fdABC", "ABCDEF%E2%80%A8", "ABC_DEF", "ABC.DEF",
]  # fmt: skip


@pytest.fixture(autouse=True)
def nothing_is_started(service: Service) -> Iterator[None]:
    """No command runs for what is refused: the commands of this service note each start."""
    before = service.commands()
    yield
    assert service.commands() == before


def is_refused(answer: Answer, status: int, code: str, field: str | None = None) -> None:
    assert (answer.status, answer.code) == (status, code), answer.body
    document = answer.json()
    assert {"type", "title", "status", "detail", "code", "request_id"} <= set(document)
    assert document["status"] == status
    if field is not None:
        assert document["field"] == field
        assert document["accepted"]


@pytest.mark.parametrize("queue_id", IDS, ids=lambda text: text[:20])
def test_what_is_no_queue_id_is_refused_by_every_route(service: Service, queue_id: str) -> None:
    for method, suffix, who in CHANGES + READS:
        if queue_id == "." and not suffix:
            continue  # asks for the list
        is_refused(service.ask(method, f"/v1/messages/{queue_id}{suffix}", who), 400, "invalid_argument", "queue_id")


@pytest.mark.parametrize("queue_id", ["..%2fx", "..%2Fx", "..%2f..%2fetc%2fpasswd", "%2e%2e%2fx", "ALL%2f", "x/../y"])
def test_what_is_no_queue_id_is_told_so_also_with_a_slash_in_it(service: Service, queue_id: str) -> None:
    for method, suffix, _ in CHANGES + READS:
        answer = service.ask(method, f"/v1/messages/{queue_id}{suffix}", "admin")
        is_refused(answer, 400, "invalid_argument", "queue_id")
        assert service.ask(method, f"/v1/messages/{queue_id}{suffix}", "reader").status == 403


@pytest.mark.parametrize("queue_id", ["../x", "../../etc/passwd", "ABCDEF/../ALL", "//", "%2fetc%2fpasswd", "A" * 5000])
def test_a_path_that_climbs_reaches_nothing(service: Service, queue_id: str) -> None:
    for method, suffix, who in CHANGES + READS:
        answer = service.ask(method, f"/v1/messages/{queue_id}{suffix}", who)
        assert answer.status in (400, 403, 404, 405, 414), (method, queue_id, suffix)
        if len(queue_id) < 4000:  # beyond, gunicorn itself refuses the line
            assert answer.code in ("invalid_argument", "forbidden", "not_found", "method_not_allowed")


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("limit=0", "limit"), ("limit=-1", "limit"), ("limit=1001", "limit"), ("limit=ten", "limit"),
        ("limit=", "limit"), ("limit=1e2", "limit"), ("limit=%D9%A1", "limit"), ("limit=1&limit=2", "limit"),
        ("limit=+5", "limit"), ("limit=5%0A", "limit"), ("limit=" + "9" * 400, "limit"),
        ("unknown=1", "unknown"), ("Limit=1", "Limit"), ("queue_id=ALL", "queue_id"), ("limit[]=1", "limit[]"),
        ("queue_name=corrupt", "queue_name.0"), ("queue_name=", "queue_name.0"), ("queue_name=hold%00", "queue_name.0"),
        ("sort=size", "sort"), ("sort=", "sort"), ("sort=arrival_time%20DESC;--", "sort"),
        ("sender=", "sender"), ("sender=a%0Ab", "sender"), ("sender=%00", "sender"), ("sender=" + "a" * 2000, "sender"),
        ("recipient=%E2%80%A8", "recipient"), ("recipient=a&recipient=b", "recipient"),
    ],
    ids=lambda text: text[:30],
)  # fmt: skip
def test_a_query_that_is_not_accepted_is_refused_and_its_field_named(service: Service, query: str, field: str) -> None:
    is_refused(service.ask("GET", f"/v1/messages?{query}", "viewer"), 400, "invalid_argument", field)


ROUTES = [
    *((method, f"/v1/messages/{GOOD_ID}{suffix}", who) for method, suffix, who in CHANGES + READS),
    ("GET", "/v1/messages", "viewer"),
    ("GET", "/v1/queues", "viewer"),
    ("POST", "/v1/flush", "operator"),
]


@pytest.mark.parametrize("query", ["unknown=1", "recursive", "%00=1", "confirm=yes&confirm=no"])
def test_no_route_takes_a_parameter_that_it_does_not_know(service: Service, query: str) -> None:
    for method, path, who in ROUTES:
        answer = service.ask(method, f"{path}?{query}", who)
        is_refused(answer, 400, "invalid_argument", answer.json().get("field"))


BODIES: list[tuple[str, bytes, int, str]] = [
    ("application/x-www-form-urlencoded", b"reason=x", 415, "unsupported_media_type"),
    ("application/x-www-form-urlencoded", b"", 415, "unsupported_media_type"),
    ("multipart/form-data; boundary=x", b"--x\r\n\r\n--x--", 415, "unsupported_media_type"),
    ("text/plain", b'{"reason": "x"}', 415, "unsupported_media_type"),
    ("application/jsonx", b"{}", 415, "unsupported_media_type"),
    ("", b'{"reason": "x"}', 415, "unsupported_media_type"),
    ("application/json", b"", 400, "invalid_argument"),
    ("application/json", b"{", 400, "invalid_argument"),
    ("application/json", b"{'reason': 1}", 400, "invalid_argument"),
    ("application/json", b'{"reason": "x"} {}', 400, "invalid_argument"),
    ("application/json", b'{"reason": "\xff"}', 400, "invalid_argument"),
    ("application/json", b"[" * 100_000, 400, "invalid_argument"),
    ("application/json", b"[]", 400, "invalid_argument"),
    ("application/json", b"null", 400, "invalid_argument"),
    ("application/json", b'"reason"', 400, "invalid_argument"),
    ("application/json", b"NaN", 400, "invalid_argument"),
    ("application/json", b'{"unknown": 1}', 400, "invalid_argument"),
    ("application/json", b'{"queue_ids": ["ALL"]}', 400, "invalid_argument"),
    ("application/json", b'{"reason": 1}', 400, "invalid_argument"),
    ("application/json", b'{"reason": ""}', 400, "invalid_argument"),
    ("application/json", b'{"reason": ["x"]}', 400, "invalid_argument"),
    ("application/json", b'{"reason": "a\\nb"}', 400, "invalid_argument"),
    ("application/json", b'{"reason": "a\\u2028b"}', 400, "invalid_argument"),
    ("application/json", b'{"reason": "a\\u0000b"}', 400, "invalid_argument"),
    ("application/json", b'{"reason": "\\ud800"}', 400, "invalid_argument"),
    ("application/json", b'{"reason": "a\\u0085b"}', 400, "invalid_argument"),
    ("application/json", b'{"reason": "' + b"x" * 1001 + b'"}', 400, "invalid_argument"),
    ("application/json", b'{"reason": "x", "reason": "y"}', 400, "invalid_argument"),
]


@pytest.mark.parametrize(("media_type", "body", "status", "code"), BODIES, ids=lambda value: repr(value)[:40])
def test_a_body_that_is_not_accepted_is_refused_by_every_change(
    service: Service, media_type: str, body: bytes, status: int, code: str
) -> None:
    headers = {"Content-Type": media_type} if media_type else {}
    for method, path, who in [route for route in ROUTES if route[0] != "GET"]:
        answer = service.ask(method, path, who, headers, body)
        is_refused(answer, status, code, answer.json().get("field") if status == 415 else answer.json()["field"])


def test_a_body_over_the_limit_is_refused_by_every_change(service: Service) -> None:
    body = b'{"reason": "' + b"x" * service.body_limit_bytes + b'"}'
    for method, path, who in [route for route in ROUTES if route[0] != "GET"]:
        answer = service.ask(method, path, who, {"Content-Type": "application/json"}, body)
        is_refused(answer, 413, "payload_too_large")


def test_a_body_over_the_limit_that_does_not_say_its_length_is_refused_too(service: Service) -> None:
    body = b'{"reason": "' + b"x" * service.body_limit_bytes + b'"}'
    with closing(http.client.HTTPConnection(LOOPBACK, service.port, timeout=20)) as connection:
        headers = {"Authorization": AUTHORIZATION["admin"], "Content-Type": "application/json"}
        connection.request("DELETE", f"/v1/messages/{GOOD_ID}", iter([body]), headers, encode_chunked=True)
        response = connection.getresponse()
        is_refused(Answer(response.status, response.headers, response.read()), 413, "payload_too_large")


@pytest.mark.parametrize("method", ["PUT", "PATCH", "POST", "TRACE", "CONNECT", "FOO"])
def test_a_method_that_a_route_does_not_take_is_refused(service: Service, method: str) -> None:
    answer = service.ask(method, f"/v1/messages/{GOOD_ID}", "admin")
    assert answer.status in (405, 501)
    if answer.status == 405:
        assert answer.code == "method_not_allowed"
        assert "DELETE" in answer.headers["Allow"]


def test_what_was_refused_changed_nothing(service: Service, mailbox: Mailbox) -> None:
    """With a message that is really there, so that each of these would act if it were let through."""
    queue_id = mailbox.deferred()
    before = mailbox.files(queue_id)
    for method, suffix, who in CHANGES:
        for bad in (
            f"{queue_id}%0A",
            f"{queue_id}%00",
            f"{queue_id}%20",
            f"%20{queue_id}",
            f"-{queue_id}",
            f"./{queue_id}",
        ):
            assert service.ask(method, f"/v1/messages/{bad}{suffix}", who).status in (400, 404)
        assert service.ask(method, f"/v1/messages/{queue_id}{suffix}?x=1", who).status == 400
        assert service.ask(method, f"/v1/messages/{queue_id}{suffix}", who, body={"x": "1"}).status == 400
    assert mailbox.files(queue_id) == before
    assert mailbox.queue_name(queue_id) == "deferred"
