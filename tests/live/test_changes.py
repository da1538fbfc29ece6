"""Changes of one message, each checked with Postfix's own tools, and never said to be more than they are."""

import threading
import time
from collections.abc import Iterator

import pytest

from postqueue_api.sandbox.sites import REFUSING, SLOW
from tests.live.mailbox import SENDER, Mailbox
from tests.live.service import FRESH, Answer, Service

UNKNOWN_ID = "4zzzzzzzzzzzzzz9"
LATER_SECONDS = 0.5


def outcome(answer: Answer, status: int = 200) -> str:
    document = answer.json()
    assert answer.status == status, document
    assert set(document) == {"operation_id", "action", "queue_id", "outcome", "detail", "new_queue_id"}
    return str(document["outcome"])


def refused(answer: Answer, status: int, code: str) -> str:
    assert (answer.status, answer.code) == (status, code)
    return str(answer.json()["outcome"])


def test_a_held_message_lies_in_hold_and_is_not_delivered(service: Service, mailbox: Mailbox) -> None:
    queue_id = mailbox.deferred()
    assert outcome(service.change("hold", queue_id, "operator")) == "held"
    assert mailbox.queue_name(queue_id) == "hold"
    with mailbox.open_site():
        mailbox.flush(queue_id)
        mailbox.pick_up()
        time.sleep(LATER_SECONDS)
    assert mailbox.queue_name(queue_id) == "hold"
    assert mailbox.arrived() == []


def test_a_released_message_lies_in_deferred_and_can_be_delivered(service: Service, mailbox: Mailbox) -> None:
    queue_id = mailbox.held()
    assert outcome(service.change("release", queue_id, "operator")) == "released"
    assert mailbox.queue_name(queue_id) == "deferred"
    with mailbox.open_site():
        mailbox.let_go(queue_id)
    assert len(mailbox.arrived()) == 1


@pytest.mark.parametrize("queue_name", ["deferred", "hold"])
def test_a_deleted_message_is_gone_and_never_delivered(service: Service, mailbox: Mailbox, queue_name: str) -> None:
    queue_id = mailbox.deferred() if queue_name == "deferred" else mailbox.held()
    other = mailbox.deferred("other@busy.example")
    assert outcome(service.change("delete", queue_id)) == "removed"
    assert mailbox.queue_name(queue_id) is None
    assert mailbox.queue_name(other) == "deferred"
    with mailbox.open_site():
        mailbox.pick_up()
        time.sleep(LATER_SECONDS)
    assert mailbox.arrived() == []


def test_a_flushed_message_arrives_byte_for_byte_as_it_was_shown(service: Service, mailbox: Mailbox) -> None:
    queue_id = mailbox.deferred()
    other = mailbox.deferred()
    stored = mailbox.stored(queue_id)
    shown = service.ask("GET", f"/v1/messages/{queue_id}/raw", "reader")
    with mailbox.open_site():
        assert outcome(service.change("flush", queue_id, "operator"), 202) == "scheduled"
        mailbox.wait_for(queue_id, None)
        (arrived,) = mailbox.arrived()
    # Both have LF line ends: postcat prints them so, and the sink takes CRLF for LF.
    assert arrived.content == shown.body == stored
    assert arrived.rcpt[0].split()[1] == f"TO:<bert@{REFUSING}>"
    assert mailbox.queue_name(other) == "deferred"


def test_a_requeued_message_has_a_new_id_and_its_old_arrival_time(service: Service, mailbox: Mailbox) -> None:
    queue_id = mailbox.deferred()
    before = mailbox.row(queue_id)
    time.sleep(1.1)
    assert outcome(service.change("requeue", queue_id, "operator")) == "requeued"
    mailbox.pick_up()
    new_id = mailbox.new_id(queue_id)
    mailbox.wait_for(new_id, "deferred")
    after = mailbox.row(new_id)
    assert before is not None
    assert after is not None
    assert new_id != queue_id
    assert mailbox.queue_name(queue_id) is None
    assert after["arrival_time"] == before["arrival_time"]
    assert [each["address"] for each in after["recipients"]] == [f"bert@{REFUSING}"]
    with mailbox.open_site():
        mailbox.let_go(new_id)
    assert len(mailbox.arrived()) == 1


def test_an_expired_message_bounces_to_its_sender_without_waiting_for_its_next_attempt(
    service: Service, mailbox: Mailbox
) -> None:
    queue_id = mailbox.deferred()
    assert outcome(service.change("expire", queue_id)) == "expired"
    bounce = mailbox.wait_for_arrival()
    assert (bounce.mail.split()[1], bounce.rcpt[0].split()[1]) == ("FROM:<>", f"TO:<{SENDER}>")
    assert b"Undelivered Mail Returned to Sender" in bounce.content
    mailbox.wait_for(queue_id, None)
    assert len(mailbox.arrived()) == 1


def test_a_held_message_that_is_expired_stays_on_hold(service: Service, mailbox: Mailbox) -> None:
    queue_id = mailbox.held()
    assert outcome(service.change("expire", queue_id)) == "expired"
    assert mailbox.queue_name(queue_id) == "hold"
    assert (mailbox.row(queue_id) or {})["forced_expire"] is True


def test_flush_of_everything_lets_what_was_deferred_go(service: Service, mailbox: Mailbox) -> None:
    queue_ids = [mailbox.deferred() for _ in range(3)]
    held = mailbox.held()
    with mailbox.open_site():
        answer = service.ask("POST", "/v1/flush", "operator", body={"reason": "the site is back"})
        assert (answer.status, answer.json()) == (202, {"outcome": "scheduled"})
        for queue_id in queue_ids:
            mailbox.wait_for(queue_id, None)
    assert len(mailbox.arrived()) == 3
    assert mailbox.queue_name(held) == "hold"


def test_flush_of_a_site_lets_go_what_is_for_it_and_nothing_else(service: Service, mailbox: Mailbox) -> None:
    here, elsewhere = mailbox.deferred(), mailbox.deferred("a@full.example")
    before = service.commands()
    with mailbox.open_site():
        answer = service.ask("POST", f"/v1/sites/{REFUSING}/flush", "operator", body={"reason": "the site is back"})
        assert (answer.status, answer.json()) == (202, {"outcome": "scheduled"})
        mailbox.wait_for(here, None)
    assert mailbox.queue_name(elsewhere) == "deferred"
    assert [words.rpartition(" -s ")[2] for words in service.commands()[len(before) :] if " -s " in words] == [REFUSING]
    line = next(line for line in reversed(service.audit()) if line["action"] == "flush")
    assert (line["site"], line["outcome"], line["reason"]) == (REFUSING, "scheduled", "the site is back")


def test_flush_of_a_site_that_postfix_keeps_no_list_of_is_a_conflict(
    short_service: Service, short_mailbox: Mailbox
) -> None:
    answer = short_service.ask("POST", f"/v1/sites/{REFUSING}/flush", "operator")
    assert (answer.status, answer.code) == (409, "conflict")
    assert "fast_flush_domains" in answer.json()["detail"]


# --- truthful outcomes --------------------------------------------------------------------------------------


@pytest.mark.parametrize("action", ["delete", "flush", "hold", "release", "requeue", "expire"])
def test_a_change_of_a_message_that_is_not_there_is_not_found(service: Service, action: str) -> None:
    assert refused(service.change(action, UNKNOWN_ID), 404, "no_such_message") == "not_found"


@pytest.mark.parametrize(
    ("action", "is_held"), [("hold", True), ("flush", True), ("release", False)], ids=["hold", "flush", "release"]
)
def test_a_change_that_changes_nothing_says_so(service: Service, mailbox: Mailbox, action: str, is_held: bool) -> None:
    queue_id = mailbox.held() if is_held else mailbox.deferred()
    before = (mailbox.row(queue_id), file_of(mailbox, queue_id))
    assert outcome(service.change(action, queue_id)) == "no_change"
    assert (mailbox.row(queue_id), file_of(mailbox, queue_id)) == before


def file_of(mailbox: Mailbox, queue_id: str) -> tuple[str, int, int, int]:
    """Path, inode, mode, and mtime: the time of the next attempt."""
    (path,) = mailbox.files(queue_id)
    found = path.stat()
    return str(path), found.st_ino, found.st_mode, found.st_mtime_ns


@pytest.mark.parametrize(
    ("first", "second"), [("delete", "delete"), ("delete", "hold"), ("hold", "hold"), ("release", "release")]
)
def test_what_was_done_once_is_not_done_twice(service: Service, mailbox: Mailbox, first: str, second: str) -> None:
    queue_id = mailbox.held() if first == "release" else mailbox.deferred()
    assert outcome(service.change(first, queue_id)) in ("removed", "held", "released")
    again = service.change(second, queue_id)
    if first == "delete":
        assert refused(again, 404, "no_such_message") == "not_found"
    else:
        assert outcome(again) == "no_change"


@pytest.fixture
def slow_site(mailbox: Mailbox) -> Iterator[None]:
    yield
    mailbox.box.open_site(SLOW, delay_seconds=0.1)


@pytest.mark.usefixtures("slow_site")
@pytest.mark.parametrize("action", ["delete", "hold", "requeue", "expire"])
def test_a_change_during_a_delivery_that_succeeds_says_that_it_came_too_late(
    service: Service, mailbox: Mailbox, action: str
) -> None:
    queue_id = mailbox.delivering(0.6)
    assert refused(service.change(action, queue_id), 409, "conflict") == "already_delivered"
    _is_delivered_once_and_gone(mailbox, queue_id)


@pytest.mark.usefixtures("slow_site")
@pytest.mark.parametrize("action", ["delete", "hold", "requeue", "expire"])
def test_a_change_during_a_delivery_that_outlasts_the_waiting_time_is_not_made(
    service: Service, mailbox: Mailbox, action: str
) -> None:
    queue_id = mailbox.delivering(2.0)
    assert refused(service.change(action, queue_id), 409, "conflict") == "in_flight"
    assert mailbox.arrived() == []
    _is_delivered_once_and_gone(mailbox, queue_id)


def _is_delivered_once_and_gone(mailbox: Mailbox, queue_id: str) -> None:
    mailbox.wait_for_arrival()
    mailbox.pick_up()
    time.sleep(LATER_SECONDS)
    mailbox.let_go(queue_id)
    time.sleep(LATER_SECONDS)
    assert mailbox.files(queue_id) == []
    assert [each.site for each in mailbox.arrived()] == [SLOW]


@pytest.mark.usefixtures("slow_site")
@pytest.mark.parametrize(
    ("action", "done", "then"),
    [("delete", "removed", None), ("hold", "held", "hold"), ("expire", "expired", None)],
)
def test_a_change_during_a_delivery_that_fails_is_made(
    service: Service, mailbox: Mailbox, action: str, done: str, then: str | None
) -> None:
    queue_id = mailbox.delivering(0.6)
    mailbox.box.close_site(SLOW, "END", b"451 4.3.0 Not now", delay_seconds=0.6)
    answer = service.change(action, queue_id)
    assert outcome(answer) == done
    new_queue_id = answer.json()["new_queue_id"]
    mailbox.wait_for(new_queue_id, then)
    mailbox.box.open_site(SLOW)
    mailbox.pick_up()
    time.sleep(LATER_SECONDS)
    assert [each.site for each in mailbox.arrived()] == ([] if action != "expire" else ["example.com"])
    assert mailbox.queue_name(new_queue_id) == ("hold" if action == "hold" else None)
    assert mailbox.queue_name(queue_id) is None


@pytest.mark.usefixtures("slow_site")
def test_a_message_that_is_requeued_during_a_delivery_that_fails_arrives_once(
    service: Service, mailbox: Mailbox
) -> None:
    queue_id = mailbox.delivering(0.6)
    mailbox.box.close_site(SLOW, "END", b"451 4.3.0 Not now", delay_seconds=0.6)
    answer = service.change("requeue", queue_id)
    assert outcome(answer) == "requeued"
    mailbox.box.open_site(SLOW)
    mailbox.pick_up()
    new_id = mailbox.new_id(answer.json()["new_queue_id"])
    mailbox.wait_for(new_id, None)
    assert len(mailbox.arrived()) == 1
    assert mailbox.queue_name(queue_id) is None


@pytest.mark.usefixtures("slow_site")
def test_delete_of_a_message_with_one_recipient_delivered_keeps_it_from_the_other(
    service: Service, mailbox: Mailbox
) -> None:
    mailbox.box.open_site(SLOW, delay_seconds=1.0)
    queue_id = mailbox.send(f"bert@{SLOW}", f"chloe@{REFUSING}")
    mailbox.wait_for(queue_id, "active")
    assert outcome(service.change("delete", queue_id)) == "removed"
    with mailbox.open_site():
        mailbox.pick_up()
        time.sleep(LATER_SECONDS)
    assert [each.site for each in mailbox.arrived()] == [SLOW]
    assert mailbox.queue_name(queue_id) is None


def test_of_many_that_delete_one_message_at_once_one_is_told_that_it_did(service: Service, mailbox: Mailbox) -> None:
    queue_id = mailbox.deferred()
    answers: list[Answer] = []
    threads = [threading.Thread(target=lambda: answers.append(service.change("delete", queue_id))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(answer.status for answer in answers) == [200] + 7 * [404]
    assert mailbox.queue_name(queue_id) is None


def test_a_listing_that_is_asked_for_fresh_shows_each_change_at_once(service: Service, mailbox: Mailbox) -> None:
    queue_id = mailbox.deferred()
    for action, queue_name in (("hold", "hold"), ("release", "deferred")):
        assert service.change(action, queue_id).status == 200
        shown = service.ask("GET", f"/v1/messages/{queue_id}", "viewer", FRESH).json()["message"]
        row = mailbox.row(queue_id)
        assert row is not None
        assert shown == mailbox.shown(row)
        assert shown["queue_name"] == queue_name
    service.change("delete", queue_id)
    gone = service.ask("GET", f"/v1/messages/{queue_id}", "viewer", FRESH)
    assert (gone.status, gone.code) == (404, "no_such_message")
