"""Limits, counted by all workers together: requests, refused credentials, streams at once."""

import concurrent.futures
import socket
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace

import pytest

from postqueue_api.sandbox import Sandbox
from postqueue_api.sandbox.processes import wait_until
from postqueue_api.sandbox.sink import LOOPBACK
from tests.live import service as services
from tests.live.service import AUTHORIZATION, Answer, Service

LIMITS = {
    "requests_per_minute": "30",
    "requests_per_minute_per_address": "100",
    "lockout_refusals": "4",
    "lockout_seconds": "2",
    "concurrent_streams": "2",
}


@pytest.fixture(scope="module")
def limited(box: Sandbox) -> Iterator[Service]:
    with services.started(box, LIMITS) as made:
        yield made


def from_address(service: Service, number: int) -> Service:
    """The service as somebody else on loopback asks it."""
    return replace(service, source=f"127.0.1.{number}")


def check_refused(answer: Answer, most: int) -> None:
    assert (answer.status, answer.code) == (429, "too_many_requests")
    assert 0 < int(answer.headers["Retry-After"]) <= most
    assert answer.json()["retry_after"] == int(answer.headers["Retry-After"])


def test_after_some_refused_credentials_an_address_is_locked_out_for_its_time(limited: Service) -> None:
    client = from_address(limited, 1)
    wrong = {"Authorization": services.basic("admin", "not the password")}
    begun = time.monotonic()
    assert [client.ask("GET", "/v1/queues", None, wrong).status for _ in range(4)] == [401] * 4
    refused = time.monotonic()
    for _ in range(20):
        check_refused(client.ask("GET", "/v1/queues", None, wrong), 2)
    assert (time.monotonic() - refused) / 20 < (refused - begun) / 4 / 2, "no password is tried any more"
    check_refused(client.ask("GET", "/v1/queues", "admin"), 2)
    assert from_address(limited, 2).ask("GET", "/v1/queues", "viewer").status == 200
    lines = [line for line in limited.audit() if line["address"] == "127.0.1.1"]
    assert [line["reason"] for line in lines] == ["refused"] * 4 + ["lockout"]
    time.sleep(2.1)
    assert client.ask("GET", "/v1/queues", "viewer").status == 200


def test_health_is_no_way_around_the_lockout(limited: Service) -> None:
    client = from_address(limited, 5)
    wrong = {"Authorization": services.basic("admin", "not the password")}
    assert {frozenset(client.ask("GET", "/health/ready", None, wrong).json()) for _ in range(4)} == {
        frozenset({"ready"})
    }
    assert set(client.ask("GET", "/health/ready", "admin").json()) == {"ready"}
    check_refused(client.ask("GET", "/v1/queues", "admin"), 2)
    time.sleep(2.1)
    assert set(client.ask("GET", "/health/ready", "admin").json()) == {"ready", "checks"}


def test_a_request_without_credential_locks_nobody_out(limited: Service) -> None:
    client = from_address(limited, 3)
    assert [client.ask("GET", "/v1/queues", None).status for _ in range(10)] == [401] * 10


def test_a_principal_has_so_many_requests_a_minute_whichever_worker_answers(limited: Service) -> None:
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        asked = pool.map(lambda number: from_address(limited, number).ask("GET", "/v1/queues", "reader"), range(10, 50))
        found = Counter(answer.status for answer in asked)
    assert found == {403: 30, 429: 10}
    check_refused(from_address(limited, 51).ask("GET", "/v1/queues", "reader"), 60)
    assert from_address(limited, 51).ask("GET", "/v1/queues", "operator").status == 200


def test_an_address_has_so_many_requests_a_minute_whoever_asks(limited: Service) -> None:
    client = from_address(limited, 4)
    found = Counter(client.ask("GET", "/v1/queues", None).status for _ in range(110))
    assert found == {401: 100, 429: 10}
    assert client.ask("GET", "/health/live", None).status == 200


def test_a_stream_that_ends_makes_room_for_the_next(limited: Service) -> None:
    authorization = AUTHORIZATION["operator"]
    ask = f"GET /v1/messages HTTP/1.1\r\nHost: x\r\nAccept: text/csv\r\nAuthorization: {authorization}\r\n\r\n"
    for _ in range(4):
        # A place is given back just after the last byte, so the next one may come a moment too early.
        wait_until(lambda: first_words(limited, ask) == b"HTTP/1.1 200", 5)


ROW = (
    '{"queue_name": "deferred", "queue_id": "4jYCGg%05dz2FfPb", "arrival_time": 1795450009, "message_size": 900,'
    ' "forced_expire": false, "sender": "a@example.com", "recipients": [{"address": "b@example.com",'
    ' "delay_reason": "connect to example.com[192.0.2.1]:25: Connection refused, and so on: %s"}]}\n'
)
ROWS = 30_000


@pytest.fixture(scope="module")
def long_queue(box: Sandbox) -> Iterator[Service]:
    """A listing of 12 MB, which no socket's buffers hold, and two streams at once."""
    with services.place() as directory:
        commands = services.watched_commands(directory / "commands")
        (directory / "listing").write_text("".join(ROW % (number, "x" * 150) for number in range(ROWS)))
        (commands / "postqueue").write_text(f"#!/bin/sh\nexec cat {directory}/listing\n")
        settings = {"command_directory": str(commands), "concurrent_streams": "2", "snapshot_max_age_seconds": "600"}
        with services.started(box, settings) as made:
            assert made.ask("GET", "/v1/queues", "viewer").status == 200
            yield made


def open_stream(service: Service) -> socket.socket:
    """Ask for all of it, and read no more than how the answer begins."""
    client = socket.socket()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    client.settimeout(20)
    client.connect((LOOPBACK, service.port))
    head = {"Host": "x", "Accept": "application/x-ndjson", "Authorization": AUTHORIZATION["viewer"]}
    lines = ["GET /v1/messages HTTP/1.1", *(f"{name}: {value}" for name, value in head.items())]
    client.sendall("".join(f"{line}\r\n" for line in [*lines, ""]).encode())
    assert client.recv(12) == b"HTTP/1.1 200"
    return client


def test_beyond_so_many_streams_at_once_the_next_is_told_to_wait_and_others_are_answered(long_queue: Service) -> None:
    def one_more() -> Answer:
        return long_queue.ask("GET", "/v1/messages", "viewer", {"Accept": "text/csv"})

    with open_stream(long_queue) as first, open_stream(long_queue):
        for _ in range(3):
            refused = one_more()
            check_refused(refused, 5)
            assert "POSTQUEUE_API_CONCURRENT_STREAMS" in refused.json()["detail"]
        page = long_queue.ask("GET", "/v1/messages?limit=1", "viewer")
        assert (page.status, page.json()["total"]) == (200, ROWS)
        first.close()  # who hangs up makes room
        answered: list[Answer] = []

        def is_answered() -> bool:
            answered.append(one_more())
            return answered[-1].status == 200

        wait_until(is_answered, 20)
        assert answered[-1].body.endswith(f"# complete: {ROWS} messages\r\n".encode())


def first_words(service: Service, ask: str) -> bytes:
    """How an answer begins, read to its end."""
    with socket.create_connection((LOOPBACK, service.port)) as client:
        client.sendall(ask.encode())
        answer = b""
        while not answer.endswith(b"\r\n\r\n") and (part := client.recv(65536)):
            answer += part
        return answer[:12]
