"""What is not there is said, each lack in its own words, with what to do and without a path of the machine."""

import contextlib
import http.client
import os
import re
import signal
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import pytest

from postqueue_api.queue.journal_reader import JournalReader
from postqueue_api.sandbox import Sandbox, fresh_directory, processes
from postqueue_api.sandbox.sites import SLOW
from tests.live import service as services
from tests.live.mailbox import Mailbox
from tests.live.service import FRESH, Answer, Service

SHORT_WAIT = {"lock_wait_seconds": "1", "command_timeout_seconds": "10"}


def says(answer: Answer, status: int, code: str, what_to_do: str) -> str:
    assert (answer.status, answer.code) == (status, code), answer.body
    detail = str(answer.json()["detail"])
    assert what_to_do in detail
    assert re.search(r"(?<![\w.])/[a-z]+/", detail) is None, detail
    return detail


@pytest.fixture(scope="module")
def own_box() -> Iterator[Sandbox]:
    """A sandbox of its own: it is stopped here."""
    with Sandbox(fresh_directory()) as made:
        yield made


@pytest.fixture(scope="module")
def halves(own_box: Sandbox) -> Iterator[tuple[Service, Service]]:
    """Agent and web as two processes that were started one by one."""
    with ExitStack() as stack:
        agent = stack.enter_context(services.started(own_box, SHORT_WAIT, command="agent", wait=False))
        processes.wait_until(agent.agent_socket.is_socket, 20)
        yield agent, stack.enter_context(services.started(own_box, {**agent.shared, **SHORT_WAIT}, command="web"))


@pytest.fixture
def stopped(own_box: Sandbox) -> Iterator[Mailbox]:
    """A sandbox whose Postfix does not run, with one deferred message."""
    mailbox = Mailbox(own_box)
    mailbox.deferred()
    own_box.stop_postfix()
    yield mailbox
    own_box.start_postfix()


def test_with_postfix_stopped_the_queue_can_be_read_and_a_flush_says_who_is_missing(
    halves: tuple[Service, Service], stopped: Mailbox
) -> None:
    web = halves[1]
    listed = web.ask("GET", "/v1/messages", "viewer", FRESH)
    assert listed.status == 200
    assert listed.json()["snapshot"]["mail_system"] == "down"
    assert listed.json()["snapshot"]["complete"] is True
    (row,) = listed.json()["messages"]
    says(web.ask("POST", "/v1/flush", "operator"), 503, "mail_system_down", "start it")
    says(web.change("flush", row["queue_id"]), 503, "mail_system_down", "start it")
    ready = web.ask("GET", "/health/ready", "viewer", FRESH)
    assert ready.status == 503
    assert ready.json()["checks"]["agent"]["ok"] is True
    assert ready.json()["checks"]["postfix"]["code"] == "mail_system_down"
    assert web.ask("GET", f"/v1/messages/{row['queue_id']}/raw", "reader").body == stopped.stored(row["queue_id"])
    assert web.ask("GET", "/health/live", None).status == 200


@pytest.mark.parametrize(
    ("action", "before", "after"),
    [
        ("hold", "deferred", "hold"),
        ("release", "hold", "deferred"),
        ("delete", "deferred", None),
        ("delete", "hold", None),
    ],
)
def test_with_postfix_stopped_a_change_that_is_said_to_be_done_was_done(
    halves: tuple[Service, Service], own_box: Sandbox, action: str, before: str, after: str | None
) -> None:
    """postsuper cannot open Postfix's log then, after its first message: whatever is answered must be so."""
    mailbox = Mailbox(own_box)
    queue_id = mailbox.deferred() if before == "deferred" else mailbox.held()
    own_box.stop_postfix()
    try:
        answer = halves[1].change(action, queue_id)
        assert mailbox.queue_name(queue_id) == (after if answer.status == 200 else before), answer.body
        if answer.status == 200:
            assert answer.json()["outcome"] in ("held", "released", "removed")
        else:
            assert answer.code in ("command_failed", "mail_system_down")
    finally:
        own_box.start_postfix()


def test_with_the_agent_stopped_web_says_so_and_shows_the_last_listing_with_its_age(
    halves: tuple[Service, Service], own_box: Sandbox
) -> None:
    agent, web = halves
    queue_id = Mailbox(own_box).deferred()
    last = web.ask("GET", "/v1/messages", "viewer", FRESH).json()["snapshot"]
    assert agent.stop() == 0
    requests = [
        ("GET", "/v1/messages", "viewer"), ("GET", "/v1/queues", "viewer"),
        ("GET", f"/v1/messages/{queue_id}", "viewer"),
        ("GET", f"/v1/messages/{queue_id}/envelope", "viewer"), ("GET", f"/v1/messages/{queue_id}/raw", "reader"),
        ("POST", f"/v1/messages/{queue_id}/hold", "operator"), ("DELETE", f"/v1/messages/{queue_id}", "admin"),
        ("POST", "/v1/flush", "operator"),
    ]  # fmt: skip
    for method, path, who in requests:
        says(web.ask(method, path, who, FRESH), 503, "agent_unavailable", "postqueue-api agent")
    ready = web.ask("GET", "/health/ready", "viewer")
    assert (ready.status, ready.json()["checks"]["agent"]["code"]) == (503, "agent_unavailable")
    old = web.ask("GET", "/v1/messages", "viewer", {"Cache-Control": "max-age=3600"})
    assert (old.status, old.json()["snapshot"]["snapshot_id"]) == (200, last["snapshot_id"])
    assert old.json()["snapshot"]["age"] > last["age"]
    with services.started(own_box, {**agent.shared, **SHORT_WAIT}, command="agent", wait=False):
        processes.wait_until(lambda: web.ask("GET", "/v1/messages", "viewer", FRESH).status == 200, 20)
        assert web.change("hold", queue_id).json()["outcome"] == "held"


def failures(service: Service) -> list[Answer]:
    return [
        service.ask("GET", "/v1/messages", "viewer", FRESH),
        service.ask("DELETE", "/v1/messages/4zzzzzzzzzzzzzz9", "admin"),
        service.ask("POST", "/v1/flush", "operator"),
    ]


def test_a_wrong_config_directory_is_said_to_be_wrong(tmp_path: Path) -> None:
    with services.started(None, {"config_directory": str(tmp_path / "nothing")}) as service:
        details = {says(answer, 500, "misconfigured", "POSTQUEUE_API_CONFIG_DIRECTORY") for answer in failures(service)}
        ready = service.ask("GET", "/health/ready", "viewer")
        assert (ready.status, ready.json()["checks"]["agent"]["code"]) == (503, "misconfigured")
        assert service.ask("GET", "/health/live", None).status == 200
    assert not any(str(tmp_path) in detail for detail in details)


def test_missing_commands_are_said_to_be_missing_and_found_when_they_come(box: Sandbox, tmp_path: Path) -> None:
    with services.started(box, {"command_directory": str(tmp_path)}) as service:
        details = {says(answer, 500, "not_installed", "install Postfix") for answer in failures(service)}
        for name in services.COMMANDS:
            (tmp_path / name).symlink_to(processes.command(name))
        # A failure is remembered for two seconds, so that many who ask do not start as many commands that fail.
        processes.wait_until(lambda: service.ask("GET", "/v1/queues", "viewer", FRESH).status == 200, 5)
    assert not any(str(tmp_path) in detail for detail in details)


def ask_in_vain(service: Service, action: str, queue_id: str) -> None:
    with contextlib.suppress(OSError, http.client.HTTPException):
        service.change(action, queue_id)


def journalled(service: Service) -> str | None:
    """The outcome in the newest operation of the journal."""
    journal = JournalReader(service.state_directory / "journal.sqlite")
    (item,) = journal.results(journal.operations(1)[0].operation_id, 1)
    return item.outcome


def test_a_change_whose_agent_is_lost_is_not_said_to_have_failed(own_box: Sandbox) -> None:
    """Its next worker goes on with it, so the answer says where to look, and the outcome is unknown until then."""
    mailbox = Mailbox(own_box)
    with services.started(own_box, {"lock_wait_seconds": "20"}) as service, ThreadPoolExecutor(1) as pool:
        queue_id = mailbox.delivering(2.5)
        asking = pool.submit(service.change, "delete", queue_id)
        mailbox.taken_out(queue_id)
        agent, _ = service.halves()
        (worker,) = (pid for pid in service.tree() if services.parent(pid) == agent)
        os.kill(worker, signal.SIGKILL)
        says(asking.result(), 503, "agent_lost", "/v1/operations")
        processes.wait_until(lambda: journalled(service) is not None, 20)
        lines = [line for line in service.audit() if line["queue_id"] == queue_id]
        assert [line["outcome"] for line in lines] == [None, journalled(service)]
        assert lines[0]["code"] == "agent_lost"
        assert lines[0]["request_id"] == lines[1]["request_id"]
    mailbox.wait_for(queue_id, None)


@pytest.mark.parametrize(
    ("action", "site_says", "queue_name"),
    [
        ("delete", b"", None),
        ("hold", b"451 4.3.0 Not now", "hold"),
        ("expire", b"451 4.3.0 Not now", None),
    ],
    ids=["delete-delivered", "hold-deferred", "expire-returned"],
)
def test_an_agent_that_is_killed_in_mid_change_ends_it_truly_when_it_is_back(
    own_box: Sandbox, action: str, site_says: bytes, queue_name: str | None
) -> None:
    """It had put the message on hold only to act on it: nothing may stay there that was not meant to."""
    mailbox = Mailbox(own_box)
    with services.started(own_box, {"lock_wait_seconds": "20"}) as service:
        queue_id = mailbox.delivering(2.5)
        asking = threading.Thread(target=ask_in_vain, args=(service, action, queue_id))
        asking.start()
        new_queue_id = mailbox.taken_out(queue_id)
        for pid in service.tree():
            os.kill(pid, signal.SIGKILL)
        service.process.wait(10)
        if site_says:
            own_box.close_site(SLOW, "END", site_says)
        with services.started(own_box, {**service.shared, "lock_wait_seconds": "10"}):
            processes.wait_until(lambda: journalled(service) is not None, 15)
        asking.join()
        said = {"delete": "removed", "hold": "held", "expire": "expired"}[action] if site_says else "already_delivered"
        assert journalled(service) == said
    mailbox.wait_for(new_queue_id, queue_name)
    # What was expired has bounced: the one arrival is its return to the sender.
    assert len(mailbox.arrived()) == (0 if site_says and action != "expire" else 1)
