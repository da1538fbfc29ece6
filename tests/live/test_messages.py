"""The listing: rows as Postfix has them whatever a remote server wrote into them, and never listed more than needed."""

import threading
import time

import pytest

from tests.live.mailbox import SENDER, Mailbox
from tests.live.service import FRESH, Answer, Service

STRANGE = "guest@strange.test"


def listings(service: Service) -> int:
    return sum(command.endswith(" -j") for command in service.commands())


def test_a_page_holds_the_rows_as_postfix_lists_them(service: Service, mailbox: Mailbox) -> None:
    queue_ids = [mailbox.deferred() for _ in range(3)]
    answer = service.ask("GET", "/v1/messages?limit=1000", "viewer", FRESH)
    document = answer.json()
    listed = {row["queue_id"]: mailbox.shown(row) for row in mailbox.box.queue()}
    assert (answer.status, answer.headers["Content-Type"]) == (200, "application/json")
    assert document["total"] == len(document["messages"]) == len(listed)
    assert {row["queue_id"]: row for row in document["messages"]} == listed
    assert set(queue_ids) <= set(listed)


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("sender={sender}&sort=arrival_time", [0, 1]),
        ("sender={sender}&sort=-queue_id&limit=1", None),
        ("sender={sender}&queue_name=hold", [1]),
        ("sender={sender}&queue_name=deferred&queue_name=hold", [0, 1]),
        ("recipient=BERT-{word}@full.example", [0]),
        ("sender={sender}&recipient=nobody@example.com", []),
    ],
)
def test_a_selection_finds_what_fits_it_and_nothing_else(
    service: Service, mailbox: Mailbox, query: str, expected: list[int] | None
) -> None:
    sender = f"{mailbox.word}@example.com"
    deferred = mailbox.deferred(f"bert-{mailbox.word}@full.example", sender=sender)
    held = mailbox.deferred("chloe@full.example", sender=sender)
    assert service.change("hold", held).status == 200
    path = "/v1/messages?" + query.format(sender=sender, word=mailbox.word)
    document = service.ask("GET", path, "viewer", FRESH).json()
    found = [row["queue_id"] for row in document["messages"]]
    if expected is None:
        assert (found, document["total"]) == ([max(deferred, held)], 2)
    else:
        assert sorted(found) == sorted((deferred, held)[number] for number in expected)


def test_text_that_a_remote_server_chose_keeps_its_row_and_breaks_no_document(
    service: Service, mailbox: Mailbox
) -> None:
    queue_id = mailbox.deferred(STRANGE)
    listed = mailbox.postfix("postqueue", "-j")
    line = next(each for each in listed.split(b"\n") if queue_id.encode() in each)
    with pytest.raises(UnicodeDecodeError):
        line.decode()  # Postfix says it as the server did; without this, the test would show nothing
    for path in (f"/v1/messages/{queue_id}", f"/v1/messages?recipient={STRANGE}&limit=1000"):
        answer = service.ask("GET", path, "viewer", FRESH)
        document = answer.json()
        (row,) = (
            [document["message"]]
            if "message" in document
            else [each for each in document["messages"] if each["queue_id"] == queue_id]
        )
        assert answer.headers["Content-Type"] == "application/json"
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        reason = row["recipients"][0]["delay_reason"]
        assert "<script>alert(1)</script>" in reason
        assert "\ufffd" in reason
        assert "\u2028" in reason
        assert "\u202e" in reason
        assert "plein & 50%" in reason
        assert document["snapshot"]["skipped_lines"] == 0


def test_many_readers_at_once_cost_one_listing(service: Service, mailbox: Mailbox) -> None:
    mailbox.deferred()
    service.ask("GET", "/v1/messages", "viewer", FRESH)
    time.sleep(1.1)
    before = listings(service)
    answers: list[Answer] = []
    gate = threading.Barrier(20)

    def read() -> None:
        gate.wait()
        answers.append(service.ask("GET", "/v1/messages?limit=1", "viewer", {"Cache-Control": "max-age=1"}))

    threads = [threading.Thread(target=read) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [answer.status for answer in answers] == 20 * [200]
    assert len({answer.json()["snapshot"]["snapshot_id"] for answer in answers}) == 1
    assert listings(service) == before + 1


def test_a_listing_is_as_fresh_as_the_reader_asks(service: Service, mailbox: Mailbox) -> None:
    first = service.ask("GET", "/v1/queues", "viewer", FRESH)
    before = listings(service)
    taken = first.json()["snapshot"]["snapshot_id"]
    time.sleep(1.1)
    for headers in ({}, {"Cache-Control": "max-age=30"}):
        again = service.ask("GET", "/v1/queues", "viewer", headers)
        assert again.json()["snapshot"]["snapshot_id"] == taken
        assert int(again.headers["Age"]) >= 1
        assert again.json()["snapshot"]["age"] >= 1.1
    assert listings(service) == before
    for headers in ({"Cache-Control": "max-age=1"}, FRESH, {"Cache-Control": "max-age=0"}):
        fresh = service.ask("GET", "/v1/queues", "viewer", headers)
        assert fresh.json()["snapshot"]["snapshot_id"] != taken
        assert fresh.headers["Age"] == "0"
        taken = fresh.json()["snapshot"]["snapshot_id"]
    assert listings(service) == before + 3


def test_a_message_that_is_newer_than_the_listing_is_shown_all_the_same(service: Service, mailbox: Mailbox) -> None:
    service.ask("GET", "/v1/messages", "viewer", FRESH)
    queue_id = mailbox.deferred()
    answer = service.ask("GET", f"/v1/messages/{queue_id}", "viewer", {"Cache-Control": "max-age=3600"})
    assert answer.status == 200
    assert answer.json()["message"]["sender"] == SENDER


def test_a_message_that_is_not_there_is_not_found(service: Service) -> None:
    answer = service.ask("GET", "/v1/messages/4zzzzzzzzzzzzzz9", "viewer")
    assert (answer.status, answer.code) == (404, "no_such_message")
