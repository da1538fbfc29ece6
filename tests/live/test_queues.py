"""GET /v1/queues: what postqueue -j lists, counted."""

from tests.live.mailbox import Mailbox
from tests.live.service import FRESH, Service


def test_queues_are_counted_as_postfix_lists_them_with_explicit_zeros(service: Service, mailbox: Mailbox) -> None:
    mailbox.deferred()
    mailbox.deferred("a@full.example", "b@full.example", "c@strange.test")
    mailbox.held()
    answer = service.ask("GET", "/v1/queues", "viewer", FRESH)
    listed = mailbox.box.queue()
    document = answer.json()
    assert answer.status == 200
    assert [each["queue_name"] for each in document["queues"]] == ["maildrop", "incoming", "active", "deferred", "hold"]
    for count in document["queues"]:
        rows = [row for row in listed if row["queue_name"] == count["queue_name"]]
        assert count == {
            "queue_name": count["queue_name"],
            "messages": len(rows),
            "bytes": sum(row["message_size"] for row in rows),
            "recipients": sum(len(row["recipients"]) for row in rows),
            "oldest_arrival_time": min((row["arrival_time"] for row in rows), default=None),
        }
    assert {"deferred", "hold"} <= {each["queue_name"] for each in document["queues"] if each["messages"]}
    assert document["snapshot"]["complete"] is True
    assert document["snapshot"]["skipped_lines"] == 0
    assert document["snapshot"]["mail_system"] == "running"
    assert document["snapshot"]["messages"] == len(listed)
