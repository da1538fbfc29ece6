"""What one message says: envelope, headers, body and raw, held against what was sent and what postcat prints."""

import re

import pytest

from postqueue_api.sandbox import mail
from postqueue_api.sandbox.sites import REFUSING
from tests.live.mailbox import SENDER, Mailbox
from tests.live.service import Service


def invoice(mailbox: Mailbox) -> str:
    """Send the German invoice of mail.py. Returns:  its queue ID"""
    (one,) = (each for each in mail.everything() if each.recipients == ("buchhaltung@scanner.test",))
    queue_id = mailbox.box.send(one.sender, one.recipients, one.content, one.mail_options)
    mailbox.wait_for(queue_id, "deferred")
    return queue_id


def test_the_envelope_is_what_was_sent_with_its_dsn_parameters(service: Service, mailbox: Mailbox) -> None:
    queue_id = mailbox.deferred(
        mail_options=["RET=HDRS", f"ENVID=env-{mailbox.word}"],
        rcpt_options=["NOTIFY=FAILURE,DELAY", "ORCPT=rfc822;Bert+2B1@elsewhere.example"],
    )
    row = mailbox.row(queue_id)
    answer = service.ask("GET", f"/v1/messages/{queue_id}/envelope", "viewer")
    found = answer.json()
    assert row is not None
    assert answer.status == 200
    assert (found["queue_id"], found["queue_name"], found["trusted"]) == (queue_id, "deferred", True)
    assert (found["sender"], found["arrival_time"], found["message_size"]) == (
        SENDER,
        row["arrival_time"],
        row["message_size"],
    )
    assert (found["dsn_ret"], found["dsn_envid"]) == ("HDRS", f"env-{mailbox.word}")
    (recipient,) = found["recipients"]
    assert recipient["address"] == f"bert@{REFUSING}"
    assert sorted(recipient["notify"]) == ["DELAY", "FAILURE"]
    assert recipient["orcpt"].lower().startswith("rfc822;bert")
    assert (found["done_recipients"], found["forced_expire"]) == ([], False)


def test_a_recipient_who_has_the_mail_is_a_done_recipient(service: Service, mailbox: Mailbox) -> None:
    queue_id = mailbox.deferred("chloe@example.net", f"bert@{REFUSING}")
    found = service.ask("GET", f"/v1/messages/{queue_id}/envelope", "viewer").json()
    assert [each["address"] for each in found["recipients"]] == [f"bert@{REFUSING}"]
    assert [each["address"] for each in found["done_recipients"]] == ["chloe@example.net"]


def test_headers_are_decoded_and_in_their_order(service: Service, mailbox: Mailbox) -> None:
    queue_id = invoice(mailbox)
    document = service.ask("GET", f"/v1/messages/{queue_id}/headers", "reader").json()
    headers = [(each["name"], each["value"]) for each in document["headers"]]
    names = re.findall(rb"^([!-9;-~]+):", mailbox.stored(queue_id).partition(b"\n\n")[0], re.M)
    assert [name for name, _ in headers] == [name.decode() for name in names]
    assert headers[0][0] == "Received"
    assert dict(headers)["Subject"] == "Rechnung für März: 1.234,50 € fällig"
    assert "Jürgen Müßig" in dict(headers)["From"]
    assert document["truncated"] is False


def test_the_body_is_text_and_a_list_of_attachments(service: Service, mailbox: Mailbox) -> None:
    queue_id = invoice(mailbox)
    document = service.ask("GET", f"/v1/messages/{queue_id}/body", "reader").json()
    (text,) = document["texts"]
    assert text["content_type"] == "text/plain"
    assert (
        text["text"] == "Grüße aus Köln! Die Rechnung für März liegt bei; bitte überweisen Sie bis zum Fünfzehnten.\n"
    )
    (attachment,) = document["attachments"]
    assert (attachment["filename"], attachment["content_type"]) == ("Rechnung März.pdf", "application/pdf")
    assert 80_000 < attachment["size"] < 100_000
    assert document["truncated"] is False


@pytest.mark.parametrize("queue_name", ["deferred", "hold"])
def test_raw_is_what_postcat_prints_as_an_attachment(service: Service, mailbox: Mailbox, queue_name: str) -> None:
    queue_id = mailbox.deferred() if queue_name == "deferred" else mailbox.held()
    answer = service.ask("GET", f"/v1/messages/{queue_id}/raw", "reader")
    assert (answer.status, answer.headers["Content-Type"]) == (200, "message/rfc822")
    assert answer.headers["Content-Disposition"] == f'attachment; filename="{queue_id}.eml"'
    assert answer.body == mailbox.stored(queue_id)
    assert answer.body.endswith(f"\n.\n..\n\nthe last line, {mailbox.word}\n".encode())


def test_every_message_of_a_full_sandbox_can_be_read_and_its_raw_is_unchanged(
    service: Service, mailbox: Mailbox
) -> None:
    queue_ids = [
        mailbox.box.send(one.sender, one.recipients, one.content, one.mail_options) for one in mail.everything()[-12:]
    ]
    mailbox.box.wait_until_settled()
    for queue_id in queue_ids:
        assert service.ask("GET", f"/v1/messages/{queue_id}/raw", "reader").body == mailbox.stored(queue_id)
        for part, who in (("envelope", "viewer"), ("headers", "reader"), ("body", "reader")):
            answer = service.ask("GET", f"/v1/messages/{queue_id}/{part}", who)
            assert answer.status == 200
            assert answer.json()


@pytest.mark.parametrize(
    ("part", "who"), [("envelope", "viewer"), *((each, "reader") for each in ("headers", "body", "raw"))]
)
def test_a_message_that_is_not_there_has_nothing_to_show(service: Service, part: str, who: str) -> None:
    answer = service.ask("GET", f"/v1/messages/4zzzzzzzzzzzzzz9/{part}", who)
    assert (answer.status, answer.code) == (404, "no_such_message")
