"""Operations on many messages: what is chosen, what becomes of each by Postfix's own tools, and how it is told."""

import json
import os
import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from postqueue_api.sandbox import Sandbox, processes
from postqueue_api.sandbox.sites import REFUSING, SLOW
from tests.live import service as services
from tests.live.mailbox import Mailbox
from tests.live.service import FRESH, Answer, Service

ACTIONS = {
    "delete": "removed",
    "hold": "held",
    "release": "released",
    "requeue": "requeued",
    "expire": "expired",
    "flush": "scheduled",
}
UNKNOWN_ID = "4zzzzzzzzzzzzzz9"
PROGRESS = {
    "operation_id", "action", "state", "cancel_requested", "requested", "finished", "outcomes", "rate", "seconds_left",
    "actor", "role", "address", "request_id", "reason", "selection", "keep_copy", "max_per_second", "created_at",
    "started_at", "finished_at", "failure",
}  # fmt: skip


def operate(
    service: Service,
    action: str,
    selection: dict[str, Any],
    who: str = "admin",
    headers: dict[str, str] | None = None,
    **members: Any,
) -> Answer:
    """Ask for an operation, with a reason, and wait for its end unless `headers` say otherwise."""
    given = {"Prefer": "wait=20"} if headers is None else headers
    body = {"action": action, "selection": selection, "reason": "a test", **members}
    return service.ask("POST", "/v1/operations", who, given, {name: body[name] for name in body if body[name] != ""})


def done(answer: Answer, **outcomes: int) -> dict[str, Any]:
    """The document of an operation that came to its end with these sums."""
    document: dict[str, Any] = answer.json()
    assert answer.status == 200, document
    assert answer.headers["Location"] == f"/v1/operations/{document['operation_id']}"
    assert (document["state"], document["failure"], document["seconds_left"]) == ("done", None, None)
    assert document["outcomes"] == outcomes
    assert document["requested"] == document["finished"] == sum(outcomes.values())
    return document


def results(service: Service, operation: dict[str, Any]) -> dict[str, str]:
    """What became of each message."""
    path = f"/v1/operations/{operation['operation_id']}/results?limit=1000"
    return {row["queue_id"]: row["outcome"] for row in service.ask("GET", path, "viewer").json()["results"]}


def refused(answer: Answer, status: int, code: str) -> dict[str, Any]:
    assert (answer.status, answer.code) == (status, code), answer.body
    document: dict[str, Any] = answer.json()
    return document


def several(mailbox: Mailbox, count: int, *, held: bool = False) -> list[str]:
    """Deferred messages of a sender that only this test has, or messages on hold."""
    queue_ids = [mailbox.send(sender=sender_of(mailbox)) for _ in range(count)]
    for queue_id in queue_ids:
        mailbox.wait_for(queue_id, "deferred")
    if held:
        mailbox.postfix("postsuper", "-h", "-", stdin="".join(f"{each}\n" for each in queue_ids).encode())
    return queue_ids


def sender_of(mailbox: Mailbox) -> str:
    return f"{mailbox.word}@example.com"


def state_of(mailbox: Mailbox, queue_ids: list[str]) -> list[tuple[str, int]]:
    """Where each file is, with its inode: the same only when nobody moved it or put another in its place."""
    paths = [path for queue_id in queue_ids for path in mailbox.files(queue_id)]
    # Not its time: picking up what was requeued tries the others again too.
    return [(str(path), each.st_ino) for path in paths for each in [path.stat()]]


@pytest.mark.parametrize("way", ["selection", "queue_ids", "everything"])
@pytest.mark.parametrize("action", ACTIONS)
def test_an_action_does_to_each_message_that_is_meant_what_it_says_and_to_no_other(
    request: pytest.FixtureRequest, action: str, way: str
) -> None:
    prefix = "short_" if way == "everything" else ""
    service: Service = request.getfixturevalue(f"{prefix}service")
    mailbox: Mailbox = request.getfixturevalue(f"{prefix}mailbox")
    queue_ids = several(mailbox, 2, held=action == "release")
    others = [] if way == "everything" else [Mailbox(mailbox.box).deferred("other@busy.example")]
    untouched = state_of(mailbox, others)
    ways: dict[str, dict[str, Any]] = {
        "selection": {"sender": sender_of(mailbox).upper(), "min_size": 1},
        "queue_ids": {"queue_ids": queue_ids},
        "everything": {"everything": True},
    }
    with mailbox.open_site():
        operation = done(operate(service, action, ways[way]), **{ACTIONS[action]: 2})
        assert results(service, operation) == dict.fromkeys(queue_ids, ACTIONS[action])
        is_true(mailbox, action, queue_ids)
    mailbox.wait_until(lambda: state_of(mailbox, others) == untouched)  # once more, if it is being tried just now


def is_true(mailbox: Mailbox, action: str, queue_ids: list[str]) -> None:
    """What was told is so."""
    if action == "requeue":
        mailbox.pick_up()
        new_ids = {mailbox.new_id(queue_id) for queue_id in queue_ids}
        assert len(new_ids - set(queue_ids)) == 2

        def tried(queue_id: str) -> bool:
            mailbox.flush(queue_id)
            return True

        # qmgr may still take the site for dead and defer them once more.
        mailbox.box.wait_until(lambda: all(map(tried, new_ids)) and len(mailbox.arrived()) == 2)
    then = {"hold": "hold", "release": "deferred"}.get(action)
    for queue_id in queue_ids:
        mailbox.wait_for(queue_id, then)
        assert mailbox.queue_name(queue_id) == then
    arrivals = {"requeue": REFUSING, "flush": REFUSING, "expire": "example.com"}
    if action in arrivals:
        mailbox.box.wait_until(lambda: len(mailbox.arrived()) == 2)
    assert {each.site for each in mailbox.arrived()} == ({arrivals[action]} if action in arrivals else set())


# --- what is meant ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("action", ACTIONS)
def test_a_dry_run_tells_what_would_go_and_changes_nothing(service: Service, mailbox: Mailbox, action: str) -> None:
    queue_ids = several(mailbox, 2, held=action == "release")
    before, lines = state_of(mailbox, queue_ids), len(service.audit())
    commands = len(service.commands())
    answer = operate(service, action, {"sender": sender_of(mailbox)}, dry_run=True, reason="")
    document = answer.json()
    rows = [mailbox.row(queue_id) for queue_id in queue_ids]
    queue_name = "hold" if action == "release" else "deferred"
    assert (answer.status, answer.headers["Location"]) == (200, None)
    assert (document["dry_run"], document["action"], document["expected_count"]) == (True, action, 2)
    assert (document["messages"], document["queues"]) == (2, {queue_name: 2})
    assert document["bytes"] == sum(row["message_size"] for row in rows if row is not None)
    assert [(each["key"], each["messages"]) for each in document["groups"]["sender"]] == [(sender_of(mailbox), 2)]
    assert [each["key"] for each in document["groups"]["recipient_domain"]] == [REFUSING]
    assert sorted(each["queue_id"] for each in document["sample"]) == sorted(queue_ids)
    assert document["trash_seconds"] == (86400 if action == "delete" else None)
    assert state_of(mailbox, queue_ids) == before
    assert [command.split()[0] for command in service.commands()[commands:]] == ["postqueue"]
    assert service.audit()[lines:] == []
    accepted = operate(service, action, {"sender": sender_of(mailbox)}, expected_count=document["expected_count"])
    done(accepted, **{ACTIONS[action]: 2})


def test_a_dry_run_of_a_list_counts_the_list_and_tells_what_of_it_is_there(service: Service, mailbox: Mailbox) -> None:
    (queue_id,) = several(mailbox, 1)
    chosen = {"queue_ids": [queue_id, UNKNOWN_ID, queue_id]}
    document = operate(service, "delete", chosen, dry_run=True, keep_copy=False).json()
    assert (document["expected_count"], document["messages"], document["queues"]) == (2, 1, {"deferred": 1})
    assert document["trash_seconds"] is None
    assert [(each["key"], each["messages"]) for each in document["groups"]["recipient_domain"]] == [(REFUSING, 1)]
    done(operate(service, "delete", chosen, expected_count=2), removed=1, not_found=1)


@pytest.mark.parametrize("dry_run", [False, True])
def test_a_count_that_fits_no_more_is_refused_with_the_new_one(
    service: Service, mailbox: Mailbox, dry_run: bool
) -> None:
    queue_ids = several(mailbox, 3)
    before, operations = state_of(mailbox, queue_ids), newest(service)
    for selection in ({"sender": sender_of(mailbox)}, {"queue_ids": [*queue_ids, queue_ids[0]]}):
        problem = refused(
            operate(service, "delete", selection, expected_count=2, dry_run=dry_run, keep_copy=False), 409, "conflict"
        )
        assert problem["expected_count"] == 3
    assert state_of(mailbox, queue_ids) == before
    assert newest(service) == operations


def newest(service: Service) -> list[Any]:
    found: list[Any] = service.ask("GET", "/v1/operations?limit=1", "viewer").json()["operations"]
    return found


def test_a_list_runs_each_message_once_in_its_order_and_tells_what_is_not_there(
    service: Service, mailbox: Mailbox
) -> None:
    first, second = several(mailbox, 2)
    chosen = {"queue_ids": [second, first, second, UNKNOWN_ID, first]}
    operation = done(operate(service, "hold", chosen, "operator"), held=2, not_found=1)
    rows = service.ask("GET", f"/v1/operations/{operation['operation_id']}/results", "viewer").json()["results"]
    assert [(row["position"], row["queue_id"], row["outcome"]) for row in rows] == [
        (1, second, "held"), (2, first, "held"), (3, UNKNOWN_ID, "not_found"),
    ]  # fmt: skip
    assert [row["arrival_time"] for row in rows] == [
        *((mailbox.row(queue_id) or {})["arrival_time"] for queue_id in (second, first)), None,
    ]  # fmt: skip
    assert rows[2]["detail"] == "there is no message with this queue ID in the queue"


def test_what_is_there_already_is_no_change(service: Service, mailbox: Mailbox) -> None:
    held, other = several(mailbox, 2)
    mailbox.postfix("postsuper", "-h", "-", stdin=held.encode())
    before = state_of(mailbox, [held])
    for action, expected in (("flush", {held: "no_change", other: "scheduled"}),
                             ("hold", {held: "no_change", other: "held"})):  # fmt: skip
        operation = operate(service, action, {"sender": sender_of(mailbox)}, "operator").json()
        assert results(service, operation) == expected
    assert state_of(mailbox, [held]) == before
    done(operate(service, "release", {"queue_ids": [held]}, "operator"), released=1)
    done(operate(service, "release", {"queue_ids": [held]}, "operator"), no_change=1)


def test_a_selection_that_fits_nothing_is_done_at_once(service: Service, mailbox: Mailbox) -> None:
    done(operate(service, "delete", {"sender": sender_of(mailbox)}))


def test_flush_of_a_selection_needs_no_fast_flush_domain(short_service: Service, short_mailbox: Mailbox) -> None:
    several(short_mailbox, 2)
    box = short_mailbox.box
    site = processes.run(processes.command("postqueue"), "-c", str(box.config_directory), "-s", REFUSING)
    assert site.returncode == 69
    with short_mailbox.open_site():
        done(operate(short_service, "flush", {"recipient_domain": REFUSING}, "operator"), scheduled=2)
        box.wait_until(lambda: len(short_mailbox.arrived()) == 2)


# --- truth --------------------------------------------------------------------------------------------------


@pytest.fixture
def slow_site(mailbox: Mailbox) -> Iterator[None]:
    yield
    mailbox.box.open_site(SLOW, delay_seconds=0.1)


@pytest.mark.usefixtures("slow_site")
@pytest.mark.parametrize(("action", "seconds"), [("delete", 0.6), ("hold", 0.6), ("delete", 2.0), ("requeue", 2.0)])
def test_what_is_being_delivered_gets_its_true_outcome_and_the_rest_is_done(
    service: Service, mailbox: Mailbox, action: str, seconds: float
) -> None:
    resting = mailbox.deferred()
    moving = mailbox.delivering(seconds)
    operation = operate(service, action, {"queue_ids": [moving, resting]}).json()
    told = "already_delivered" if seconds < 1 else "in_flight"
    assert results(service, operation) == {moving: told, resting: ACTIONS[action]}
    mailbox.wait_for_arrival()
    mailbox.pick_up()
    time.sleep(0.5)
    mailbox.flush(moving)  # what was in flight and put back has no recipient left: Postfix removes it
    mailbox.wait_for(moving, None)
    assert mailbox.files(moving) == []
    assert [each.site for each in mailbox.arrived()] == [SLOW]


@pytest.mark.parametrize("way", ["selection", "queue_ids"])
def test_a_queue_id_that_names_another_message_by_now_is_left_alone(
    short_service: Service, short_mailbox: Mailbox, way: str
) -> None:
    """The same file name with another message in it is what Postfix makes when it uses a short queue ID again."""
    queue_id, same = several(short_mailbox, 2)
    other = short_mailbox.deferred("other@busy.example", sender="other@example.com")
    slow = short_mailbox.delivering(3.0)
    first = operate(short_service, "hold", {"queue_ids": [slow]}, headers={}).json()
    ways: dict[str, dict[str, Any]] = {
        "selection": {"sender": sender_of(short_mailbox)},
        "queue_ids": {"queue_ids": [queue_id, same]},
    }
    second = operate(short_service, "delete", ways[way], headers={}).json()
    assert second["state"] == "queued"
    (path,), (others,) = short_mailbox.files(queue_id), short_mailbox.files(other)
    replace(path, others)
    untouched = state_of(short_mailbox, [queue_id])
    ended = poll(short_service, second)
    assert results(short_service, first) == {slow: "in_flight"}
    assert results(short_service, ended) == {queue_id: "changed", same: "removed"}
    assert state_of(short_mailbox, [queue_id]) == untouched
    assert path.read_bytes() == others.read_bytes()


def replace(path: Path, by: Path) -> None:
    """Put a copy of a queue file in the place of another, as Postfix's own: the old message is gone."""
    status, copy = by.stat(), path.with_name("copy")
    copy.write_bytes(by.read_bytes())
    os.chown(copy, status.st_uid, status.st_gid)
    copy.chmod(status.st_mode & 0o7777)
    os.utime(copy, ns=(status.st_atime_ns, status.st_mtime_ns))
    copy.rename(path)


def poll(service: Service, operation: dict[str, Any], seconds: float = 20) -> dict[str, Any]:
    """Ask for an operation until it is over."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        document: dict[str, Any] = shown(service, operation)
        if document["finished_at"] is not None:
            return document
        time.sleep(0.05)
    raise AssertionError(document)


def shown(service: Service, operation: dict[str, Any]) -> dict[str, Any]:
    answer = service.ask("GET", f"/v1/operations/{operation['operation_id']}", "viewer")
    assert answer.status == 200
    document: dict[str, Any] = answer.json()
    assert set(document) == PROGRESS
    return document


# --- progress -----------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("slow_site")
def test_operations_run_one_after_the_other_and_everybody_reads_meanwhile(service: Service, mailbox: Mailbox) -> None:
    resting = mailbox.deferred()
    moving = mailbox.delivering(2.0)
    first = operate(service, "hold", {"queue_ids": [moving]}, headers={})
    second = operate(service, "hold", {"queue_ids": [resting]}, headers={"Prefer": "respond-async, wait=0"})
    assert (first.status, second.status) == (202, 202)
    assert second.json()["state"] == "queued"
    assert second.headers["Location"] == f"/v1/operations/{second.json()['operation_id']}"
    began = time.monotonic()
    row = service.ask("GET", f"/v1/messages/{resting}", "viewer", FRESH).json()["message"]
    assert (row["queue_name"], time.monotonic() - began < 0.7) == ("deferred", True)
    assert shown(service, first.json())["state"] == "running"
    assert shown(service, second.json())["started_at"] is None
    ended = [poll(service, each.json()) for each in (first, second)]
    assert [each["outcomes"] for each in ended] == [{"in_flight": 1}, {"held": 1}]
    assert ended[1]["started_at"] >= ended[0]["finished_at"] >= ended[0]["started_at"] + 0.9
    found = service.ask("GET", "/v1/operations?limit=2", "viewer").json()
    assert [each["operation_id"] for each in found["operations"]] == [each["operation_id"] for each in ended[::-1]]
    following = service.ask("GET", f"/v1/operations?limit=1&next={found['next']}", "viewer").json()["operations"]
    assert following[0]["created_at"] < ended[0]["created_at"]


def test_a_paced_flush_keeps_its_pace_and_tells_how_far_it_is(service: Service, mailbox: Mailbox) -> None:
    several(mailbox, 5)
    answer = operate(service, "flush", {"sender": sender_of(mailbox)}, "operator", {"Prefer": "wait=1"},
                     max_per_second=4)  # fmt: skip
    progress = answer.json()
    assert (answer.status, progress["state"], progress["max_per_second"]) == (202, "running", 4.0)
    assert progress["requested"] == 5
    assert 1 <= progress["finished"] == progress["outcomes"]["scheduled"] < 5
    assert 1 < progress["rate"] < 8
    assert 0 < progress["seconds_left"] < 5
    ended = poll(service, progress)
    path = f"/v1/operations/{ended['operation_id']}/results"
    times = [row["finished_at"] for row in service.ask("GET", path, "viewer").json()["results"]]
    assert 0.95 <= times[-1] - times[0] <= 3
    assert min(later - earlier for earlier, later in pairwise(times)) > 0.1


def test_a_cancelled_operation_skips_the_rest_and_says_so(service: Service, mailbox: Mailbox) -> None:
    queue_ids = several(mailbox, 6)
    with mailbox.open_site():
        operation = operate(
            service, "flush", {"queue_ids": queue_ids}, "operator", {"Prefer": "wait=1"}, max_per_second=2
        ).json()
        path = f"/v1/operations/{operation['operation_id']}/cancel"
        assert service.ask("POST", path, "viewer").code == "forbidden"
        cancelled = service.ask("POST", path, "operator")
        assert (cancelled.status, cancelled.json()["cancel_requested"]) == (200, True)
        ended = poll(service, operation, 1)
        scheduled = [each for each, outcome in results(service, ended).items() if outcome == "scheduled"]
        mailbox.box.wait_until(lambda: len(mailbox.arrived()) == len(scheduled))
    assert (ended["state"], ended["finished"]) == ("cancelled", 6)
    assert ended["outcomes"] == {"scheduled": len(scheduled), "skipped": 6 - len(scheduled)}
    assert 1 <= len(scheduled) <= 4
    assert scheduled == queue_ids[: len(scheduled)]
    for queue_id in queue_ids:
        assert mailbox.queue_name(queue_id) == (None if queue_id in scheduled else "deferred")
    refused(service.ask("POST", path, "operator"), 409, "conflict")


def test_a_queued_operation_that_is_cancelled_touches_nothing(service: Service, mailbox: Mailbox) -> None:
    queue_ids = several(mailbox, 2)
    before = state_of(mailbox, queue_ids)
    moving = mailbox.delivering(1.5)
    operate(service, "hold", {"queue_ids": [moving]}, headers={})
    operation = operate(service, "delete", {"queue_ids": queue_ids}, headers={}).json()
    path = f"/v1/operations/{operation['operation_id']}/cancel"
    assert refused(service.ask("POST", path, "operator"), 403, "forbidden")["required_role"] == "admin"
    assert service.ask("POST", path, "admin").status == 200
    assert poll(service, operation)["outcomes"] == {"skipped": 2}
    assert state_of(mailbox, queue_ids) == before


def test_results_come_page_by_page_and_as_a_stream_that_says_that_it_is_complete(
    service: Service, mailbox: Mailbox
) -> None:
    queue_ids = several(mailbox, 3)
    operation = done(operate(service, "hold", {"queue_ids": [*queue_ids, UNKNOWN_ID]}), held=3, not_found=1)
    path = f"/v1/operations/{operation['operation_id']}/results"
    first = service.ask("GET", f"{path}?limit=3", "viewer").json()
    second = service.ask("GET", f"{path}?limit=3&next={first['next']}", "viewer").json()
    assert (len(first["results"]), len(second["results"]), second["next"]) == (3, 1, None)
    stream = service.ask("GET", path, "viewer", {"Accept": "application/x-ndjson"})
    assert stream.headers["Content-Type"] == "application/x-ndjson"
    *rows, last = [json.loads(line) for line in stream.body.split(b"\n")[:-1]]
    assert rows == first["results"] + second["results"]
    assert [row["queue_id"] for row in rows] == [*queue_ids, UNKNOWN_ID]
    assert last == {"complete": True, "results": 4}
    assert rows[3:] == service.ask("GET", f"{path}?outcome=failed&outcome=not_found", "viewer").json()["results"]
    few = service.ask("GET", f"{path}?outcome=not_found", "viewer", {"Accept": "application/x-ndjson"}).body
    assert [json.loads(line) for line in few.split(b"\n")[:-1]] == [*rows[3:], {"complete": True, "results": 1}]
    refused(service.ask("GET", f"{path}?outcome=gone", "viewer"), 400, "invalid_argument")
    for row in rows:
        assert set(row) == {
            "position", "queue_id", "arrival_time", "sender", "outcome", "detail", "new_queue_id", "finished_at",
        }  # fmt: skip
        assert operation["started_at"] <= row["finished_at"] <= operation["finished_at"]


@pytest.mark.parametrize("suffix", ["", "/results", "/cancel", "/restore"])
def test_an_operation_that_never_was_is_not_found(service: Service, suffix: str) -> None:
    method = "GET" if suffix in ("", "/results") else "POST"
    path = f"/v1/operations/op-0123456789abcdef{suffix}"
    refused(service.ask(method, path, "admin"), 404, "no_such_operation")
    accept = {"Accept": "application/x-ndjson"}
    refused(service.ask(method, path, "admin", accept), 404, "no_such_operation")
    refused(service.ask(method, path.replace("op-0", "op-x"), "admin"), 400, "invalid_argument")


# --- who may, and once only ---------------------------------------------------------------------------------


def test_the_same_key_is_the_same_operation_and_another_body_is_refused(service: Service, mailbox: Mailbox) -> None:
    first, second = several(mailbox, 2)
    headers = {"Prefer": "wait=20", "Idempotency-Key": mailbox.word}
    one = done(operate(service, "hold", {"queue_ids": [first]}, headers=headers), held=1)
    mailbox.postfix("postsuper", "-H", "-", stdin=first.encode())
    again = operate(service, "hold", {"queue_ids": [first]}, headers=headers)
    assert (again.status, again.json()) == (200, one)
    assert mailbox.queue_name(first) == "deferred"
    refused(operate(service, "hold", {"queue_ids": [second]}, headers=headers), 409, "conflict")
    refused(operate(service, "delete", {"queue_ids": [first]}, headers=headers), 409, "conflict")
    assert mailbox.queue_name(second) == "deferred"
    other = done(operate(service, "hold", {"queue_ids": [second]}, "operator", headers), held=1)
    assert (other["operation_id"] != one["operation_id"], other["actor"]) == (True, "operator")


@pytest.mark.parametrize("key", ["", "two words", "x" * 129, "é"])
def test_a_key_that_is_no_short_plain_word_is_refused(service: Service, key: str) -> None:
    answer = operate(service, "hold", {"queue_ids": [UNKNOWN_ID]}, headers={"Idempotency-Key": key})
    assert refused(answer, 400, "invalid_argument")["field"] == "Idempotency-Key"


@pytest.mark.parametrize("dry_run", [False, True])
@pytest.mark.parametrize("action", ACTIONS)
def test_the_role_is_that_of_the_action(service: Service, mailbox: Mailbox, action: str, dry_run: bool) -> None:
    (queue_id,) = several(mailbox, 1)
    before = state_of(mailbox, [queue_id])
    needs_admin = action in ("delete", "expire")
    for who, role in [
        ("viewer", "operator"),
        ("reader", "operator"),
        *([("operator", "admin")] if needs_admin else []),
    ]:
        answer = operate(service, action, {"queue_ids": [queue_id]}, who, dry_run=dry_run)
        assert refused(answer, 403, "forbidden")["required_role"] == role
    assert state_of(mailbox, [queue_id]) == before
    if not needs_admin:
        assert operate(service, action, {"queue_ids": [queue_id]}, "operator", dry_run=dry_run).status == 200


@pytest.mark.parametrize("action", ["delete", "expire"])
def test_what_destroys_more_than_one_message_needs_a_reason(service: Service, mailbox: Mailbox, action: str) -> None:
    queue_ids = several(mailbox, 2)
    before = state_of(mailbox, queue_ids)
    for selection in ({"queue_ids": queue_ids}, {"sender": sender_of(mailbox)}, {"everything": True}):
        problem = refused(operate(service, action, selection, reason=""), 400, "invalid_argument")
        assert problem["field"] == "reason"
    assert state_of(mailbox, queue_ids) == before
    done(operate(service, action, {"queue_ids": queue_ids[:1]}, reason=""), **{ACTIONS[action]: 1})


def test_the_audit_has_a_line_for_the_operation_one_for_each_message_and_one_for_its_end(
    service: Service, mailbox: Mailbox
) -> None:
    queue_ids = several(mailbox, 2)
    before = len(service.audit())
    headers = {"Prefer": "wait=20", "X-Request-Id": mailbox.word}
    operation = done(operate(service, "delete", {"queue_ids": [*queue_ids, UNKNOWN_ID]}, headers=headers),
                     removed=2, not_found=1)  # fmt: skip
    began, *changes, ended = service.audit()[before:]
    common = {
        "actor": "admin", "role": "admin", "address": "127.0.0.1", "request_id": mailbox.word, "action": "delete",
        "reason": "a test", "operation_id": operation["operation_id"],
    }  # fmt: skip
    for line in (began, *changes, ended):
        assert line.items() >= common.items()
    assert (began["event"], began["messages"]) == ("operation", 3)
    assert json.loads(began["selection"]) == {"queue_ids": [*queue_ids, UNKNOWN_ID], "count": 3}
    assert {(line["event"], line["queue_id"], line["outcome"]) for line in changes} == {
        *(("change", queue_id, "removed") for queue_id in queue_ids), ("change", UNKNOWN_ID, "not_found"),
    }  # fmt: skip
    assert len(changes) == 3
    assert (ended["event"], ended["state"]) == ("operation_end", "done")
    assert ended["outcomes"] == {"removed": 2, "not_found": 1}


def test_more_messages_than_the_limit_are_refused_however_they_are_chosen(box: Sandbox, mailbox: Mailbox) -> None:
    with services.started(box, {"operation_limit_messages": "2"}) as service:
        queue_ids = several(mailbox, 3)
        before = state_of(mailbox, queue_ids)
        for selection in ({"sender": sender_of(mailbox)}, {"queue_ids": queue_ids}):
            for dry_run in (False, True):
                problem = refused(operate(service, "hold", selection, dry_run=dry_run), 413, "payload_too_large")
                assert "2 messages" in problem["detail"]
        assert state_of(mailbox, queue_ids) == before
        assert newest(service) == []
        done(operate(service, "hold", {"queue_ids": queue_ids[:2]}), held=2)
