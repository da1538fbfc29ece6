"""Status for those who poll: cheap when nothing changed, and null, never 0, where Postfix could not be asked."""

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from postqueue_api.sandbox import Sandbox, processes
from tests.live import service as services
from tests.live.mailbox import Mailbox
from tests.live.service import FRESH, Answer, Service

UNKNOWN = ("instance", "snapshot", "queues", "oldest_arrival_time", "top_reasons", "operations")
PATIENT = {"Cache-Control": "max-age=3600"}


def status(service: Service, headers: dict[str, str] | None = None) -> Answer:
    return service.ask("GET", "/v1/status", "viewer", headers)


def test_status_says_what_is_in_the_queue_and_who_keeps_it(service: Service, box: Sandbox, mailbox: Mailbox) -> None:
    mailbox.deferred("a@full.example")
    document = status(service, FRESH).json()
    listed = box.queue()
    assert document["mail_system"] == "running"
    assert document["problem"] is None
    assert document["operations"] == []
    assert document["instance"]["mail_version"]
    assert document["queues"] == service.ask("GET", "/v1/queues", "viewer").json()["queues"]
    assert sum(queue["messages"] for queue in document["queues"]) == len(listed)
    assert document["oldest_arrival_time"] == min(row["arrival_time"] for row in listed)
    groups = service.ask("GET", "/v1/groups?by=reason_group&limit=11", "viewer").json()["groups"]
    assert [(reason["name"], reason["messages"]) for reason in document["top_reasons"]] == [
        (group["key"], group["messages"]) for group in groups if group["key"]
    ][:10]


def test_what_did_not_change_is_not_sent_again_and_what_changed_is(service: Service, mailbox: Mailbox) -> None:
    mailbox.deferred()
    first = status(service, FRESH)
    assert first.headers["Cache-Control"].startswith("private, max-age=")
    assert first.headers["Age"] == "0"
    time.sleep(1.1)
    again = status(service, {"If-None-Match": first.headers["ETag"], **PATIENT})
    assert (again.status, again.body) == (304, b"")
    assert again.headers["ETag"] == first.headers["ETag"]
    assert int(again.headers["Age"]) >= 1
    assert again.headers["Cache-Control"].startswith("private, max-age=")
    mailbox.deferred()
    other = status(service, {"If-None-Match": first.headers["ETag"], **FRESH})
    assert other.status == 200
    assert other.headers["ETag"] != first.headers["ETag"]


def test_pollers_cost_no_listing_while_theirs_is_fresh_enough(service: Service) -> None:
    status(service, FRESH)
    before = service.commands()
    for _ in range(30):
        assert status(service, PATIENT).status == 200
    assert service.commands() == before


def nothing_is_known(answer: Answer, code: str) -> dict[str, Any]:
    assert answer.status == 200
    document: dict[str, Any] = answer.json()
    assert {name: document[name] for name in UNKNOWN} == dict.fromkeys(UNKNOWN)
    assert document["problem"]["code"] == code
    assert document["problem"]["detail"]
    assert b"/" not in document["problem"]["detail"].encode()
    return document


def metrics(service: Service) -> list[str]:
    """The names of all values about Postfix."""
    lines = service.ask("GET", "/metrics", "viewer", FRESH).body.decode().splitlines()
    return [line for line in lines if line.startswith(("postfix_", "postqueue_api_queue", "postqueue_api_snapshot"))]


def test_without_an_agent_nothing_is_known_and_nothing_is_zero(box: Sandbox) -> None:
    with services.started(box, command="web", wait=False) as web:
        processes.wait_until(lambda: services_answer(web), 60)
        document = nothing_is_known(status(web, FRESH), "agent_unavailable")
        assert document["mail_system"] is None
        assert metrics(web) == ["postfix_up 0.0"]


def services_answer(web: Service) -> bool:
    try:
        return web.ask("GET", "/health/live", None).status == 200
    except OSError:
        return False


def test_with_a_wrong_configuration_nothing_is_known_and_nothing_is_zero(tmp_path: Any) -> None:
    with services.started(None, {"config_directory": str(tmp_path / "nothing")}) as service:
        nothing_is_known(status(service, FRESH), "misconfigured")
        assert metrics(service) == ["postfix_up 0.0"]


DOWN = "postqueue: fatal: Queue report unavailable - mail system is down"


def test_a_queue_that_nobody_may_list_is_unknown_and_the_mail_system_is_down(box: Sandbox) -> None:
    """As postqueue says it to anybody but root."""
    with services.place() as directory:
        commands = services.watched_commands(directory / "commands")
        (commands / "postqueue").write_text(f"#!/bin/sh\necho '{DOWN}' >&2\nexit 69\n")
        with services.started(box, {"command_directory": str(commands)}) as service:
            document = nothing_is_known(status(service, FRESH), "mail_system_down")
            assert document["mail_system"] == "down"
            assert metrics(service) == ["postfix_up 0.0"]
            etag = status(service, FRESH).headers["ETag"]
            assert status(service, {"If-None-Match": etag, **FRESH}).status == 304


@pytest.fixture
def slow(box: Sandbox) -> Iterator[tuple[Service, Path]]:
    """A service whose listings take most of a second, as those of a long queue do, and its postqueue."""
    with services.place() as directory:
        commands = services.watched_commands(directory / "commands")
        postqueue = commands / "postqueue"
        postqueue.write_text(postqueue.read_text().replace("exec", "sleep 0.7; exec"))
        given = {"command_directory": str(commands), "snapshot_max_age_seconds": "1", "sample_interval_seconds": "0"}
        with services.started(box, given) as service:
            yield service, postqueue


def snapshot_id(answer: Answer) -> str:
    return str(answer.json()["snapshot"]["snapshot_id"])


def test_who_polls_a_long_queue_is_answered_from_the_last_listing_while_the_next_is_made(
    slow: tuple[Service, Path],
) -> None:
    service, _ = slow
    first = snapshot_id(status(service, FRESH))
    time.sleep(0.5)
    polled = status(service)
    assert snapshot_id(polled) == first
    assert int(polled.headers["Age"]) >= 1
    assert polled.headers["Cache-Control"] == "private, max-age=1"
    processes.wait_until(lambda: snapshot_id(status(service)) != first, 10)
    time.sleep(4)
    answer = status(service)
    assert int(answer.headers["Age"]) <= 2, "who comes after nobody asked for long waits for a new one"
    assert snapshot_id(status(service, {"Cache-Control": "max-age=0"})) != snapshot_id(answer), "and who says so"


def test_a_listing_that_hangs_takes_no_thread_from_others_and_is_told(box: Sandbox) -> None:
    with services.place() as directory:
        commands = services.watched_commands(directory / "commands")
        given = {"command_directory": str(commands), "snapshot_max_age_seconds": "1", "sample_interval_seconds": "0"}
        few = {"web_workers": "1", "web_threads": "4", "listing_timeout_seconds": "4", "snapshot_wait_seconds": "20"}
        with services.started(box, {**given, **few}) as service, ThreadPoolExecutor(12) as pool:
            status(service, FRESH)
            (commands / "postqueue").write_text("#!/bin/sh\nexec sleep 600\n")
            time.sleep(1.1)
            polls = [pool.submit(status, service) for _ in range(48)]
            begun = time.monotonic()
            for _ in range(10):
                assert service.ask("GET", "/health/live", None).status == 200
            assert time.monotonic() - begun < 3, "of four threads one waits for the listing, for four seconds"
            assert {poll.result().status for poll in polls} == {200}
            processes.wait_until(lambda: status(service).json()["problem"] is not None, 10)
            nothing_is_known(status(service), "command_timeout")


def test_who_polls_a_long_queue_is_told_within_seconds_that_it_cannot_be_listed_any_more(
    slow: tuple[Service, Path],
) -> None:
    service, postqueue = slow
    status(service, FRESH)
    postqueue.write_text(f"#!/bin/sh\necho '{DOWN}' >&2\nexit 69\n")
    processes.wait_until(lambda: status(service).json()["problem"] is not None, 10)
    nothing_is_known(status(service, FRESH), "mail_system_down")


@pytest.mark.parametrize("path", ["/v1/status", "/v1/groups?by=sender", "/v1/ages", "/v1/messages", "/metrics"])
def test_nobody_without_a_role_sees_the_queue(service: Service, path: str) -> None:
    assert service.ask("GET", path, None).status == 401
    assert service.ask("GET", path, "reader").status == 403
