"""Draining the queue before the service goes, on Postfix: what is delivered, what is left, and how that is told."""

import signal
import time
from collections.abc import Iterator
from typing import Any

import pytest

from postqueue_api.drain_at_stop import MAIL_IS_LEFT
from postqueue_api.sandbox import Sandbox, fresh_directory, processes
from postqueue_api.sandbox.sites import REFUSING
from tests.live import service as services
from tests.live.mailbox import Mailbox
from tests.live.service import Service

LOST = "this mail is lost with the task"


@pytest.fixture(scope="module")
def own_box() -> Iterator[Sandbox]:
    """A queue of our own: a drain waits for whatever is in it."""
    with Sandbox(fresh_directory()) as made:
        yield made


@pytest.fixture
def own(own_box: Sandbox) -> Iterator[Mailbox]:
    yield Mailbox(own_box)
    own_box.close_site(REFUSING)
    for row in own_box.queue():
        done = processes.run(processes.command("postsuper"), "-c", str(own_box.config_directory), "-d", row["queue_id"])
        assert done.returncode == 0


def end(service: Service) -> tuple[int, dict[str, Any], str]:
    """Wait for the end. Returns:  the exit status, the line of the drain, of which there is one, and the last words"""
    status = service.process.wait(30)
    lines = [line for line in service.audit() if line["event"] == "drain"]
    assert len(lines) == 1
    return status, lines[0], (service.stderr.splitlines() or [""])[-1]


def drain_of(service: Service) -> dict[str, Any]:
    answer = service.ask("GET", "/v1/drain", "viewer")
    assert answer.status == 200
    found: dict[str, Any] = answer.json()
    return found


def is_over(service: Service, own: Mailbox) -> bool:
    """Postfix is asked to try once more at each look: an attempt made before the site was opened may end after it."""
    own.pick_up()
    return drain_of(service)["state"] not in ("idle", "draining")


def test_a_stop_delivers_what_can_be_delivered_and_ends_with_0(own: Mailbox) -> None:
    queue_id = own.deferred()
    with services.started(own.box, {"drain_seconds": "20"}) as service, own.open_site():
        begun = time.monotonic()
        service.process.send_signal(signal.SIGTERM)
        status, line, last = end(service)
        assert status == 0
        assert time.monotonic() - begun < 15
    assert len(own.arrived()) == 1
    assert own.row(queue_id) is None
    assert line["actor"] == "SIGTERM"
    assert (line["outcome"], line["before"], line["gone"], line["left"], line["held"]) == ("drained", 1, 1, 0, 0)
    assert last == ""


def test_mail_that_is_left_is_told_by_queue_and_reason_and_by_the_exit_status(own: Mailbox) -> None:
    queue_ids = [own.deferred() for _ in range(2)]
    with services.started(own.box, {"drain_seconds": "3"}) as service:
        service.process.send_signal(signal.SIGTERM)
        time.sleep(1)
        assert drain_of(service)["state"] == "draining"
        assert service.ask("GET", "/v1/status", "viewer").status == 200
        status, line, last = end(service)
    assert status == MAIL_IS_LEFT == 75
    assert (line["outcome"], line["before"], line["gone"], line["left"]) == ("left", 2, 0, 2)
    assert line["left_deferred"] + line["left_active"] == 2
    assert line["left_maildrop"] == line["left_incoming"] == 0
    assert line["left_reasons"].startswith("2 x ")
    assert "Connection refused" in line["left_reasons"]
    assert 2.5 < line["seconds"] < 8
    assert "2 messages are left in the queue" in last
    assert LOST in last
    assert [own.queue_name(queue_id) for queue_id in queue_ids] == ["deferred", "deferred"]


def test_held_mail_is_told_but_never_waited_for(own: Mailbox) -> None:
    own.held()
    with services.started(own.box, {"drain_seconds": "30"}) as service:
        begun = time.monotonic()
        service.process.send_signal(signal.SIGTERM)
        status, line, last = end(service)
        assert time.monotonic() - begun < 15
    assert status == 0
    assert (line["outcome"], line["left"], line["held"]) == ("drained", 0, 1)
    assert "1 message on hold" in last


def test_a_second_signal_shortens_the_drain_of_an_agent_that_runs_alone(own: Mailbox) -> None:
    own.deferred()
    with services.started(own.box, {"drain_seconds": "600"}, command="agent", wait=False) as service:
        processes.wait_until(lambda: services.listens(service.agent_socket), 20)
        begun = time.monotonic()
        service.process.send_signal(signal.SIGTERM)
        time.sleep(2)
        assert service.process.poll() is None
        service.process.send_signal(signal.SIGTERM)
        status, line, _ = end(service)
        assert time.monotonic() - begun < 15
    assert (status, line["left"]) == (MAIL_IS_LEFT, 1)


def test_a_drain_on_demand_is_one_at_a_time_and_tells_how_it_ends(own: Mailbox) -> None:
    own.deferred()
    with services.started(own.box) as service:
        assert drain_of(service)["state"] == "idle"
        assert drain_of(service)["queues"]["deferred"] == 1
        assert service.ask("POST", "/v1/drain", "viewer", body={"seconds": 5}).code == "forbidden"
        for wrong in ({}, {"seconds": 0}, {"seconds": "5"}, {"seconds": 5, "more": 1}):
            assert service.ask("POST", "/v1/drain", "operator", body=wrong).code == "invalid_argument"
        begun = service.ask("POST", "/v1/drain", "operator", body={"seconds": 60, "reason": "ticket 12"})
        assert (begun.status, begun.json()["state"]) == (202, "draining")
        assert begun.json()["actor"] == "operator"
        assert service.ask("POST", "/v1/drain", "operator", body={"seconds": 5}).code == "conflict"
        with own.open_site():
            processes.wait_until(lambda: is_over(service, own), 45)
        found = drain_of(service)
        assert (found["state"], found["left"], found["gone"], found["problem"]) == ("drained", 0, 1, None)
        assert len(own.arrived()) == 1
        assert service.stop() == 0
        _, line, _ = end(service)
        assert (line["actor"], line["reason"], line["outcome"]) == ("operator", "ticket 12", "drained")


def test_postfix_that_does_not_run_is_told_and_not_waited_for_to_the_end(own: Mailbox) -> None:
    own.deferred()
    with services.started(own.box, {"drain_seconds": "300"}) as service:
        own.box.stop_postfix()
        try:
            begun = time.monotonic()
            service.process.send_signal(signal.SIGTERM)
            status, line, last = end(service)
            assert time.monotonic() - begun < 25
        finally:
            own.box.start_postfix()
    assert (status, line["outcome"], line["left"]) == (MAIL_IS_LEFT, "left", 1)
    assert line["problem"] == "mail_system_down"
    assert "1 message is left" in last


def test_an_agent_that_is_gone_is_told_and_not_waited_for(own: Mailbox) -> None:
    with services.started(own.box, {"drain_seconds": "300"}, command="agent", wait=False) as service:
        processes.wait_until(lambda: services.listens(service.agent_socket), 20)
        service.agent_socket.unlink()
        service.agent_socket.touch()
        service.process.send_signal(signal.SIGTERM)
        assert service.process.wait(20) == MAIL_IS_LEFT
        last = service.stderr.splitlines()[-1]
    assert "what is left is not known" in last
