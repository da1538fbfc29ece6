"""Undo of a delete on a real Postfix: what comes back is the message that was there, and it is delivered once."""

import stat
from pathlib import Path
from typing import Any

import pytest

from postqueue_api.sandbox import Sandbox, fresh_directory, processes
from postqueue_api.sandbox.sites import REFUSING
from tests.live import service as services
from tests.live.mailbox import SENDER, Mailbox
from tests.live.service import Answer, Service
from tests.live.test_changes import UNKNOWN_ID
from tests.live.test_operations import done, operate, refused, results, sender_of, several, shown

COPY = {
    "queue_id", "operation_id", "state", "queue_name", "arrival_time", "sender", "recipients", "queue_file_bytes",
    "forced_expire", "kept_at", "expires_at", "restored_as", "origin", "exported_at",
}  # fmt: skip


def delete(service: Service, queue_id: str) -> None:
    answer = service.change("delete", queue_id)
    assert (answer.status, answer.json()["outcome"]) == (200, "removed")


def restore(service: Service, queue_id: str, who: str = "admin", **members: str) -> Answer:
    return service.ask("POST", f"/v1/trash/{queue_id}/restore", who, body=members or None)


def restored(answer: Answer) -> str:
    """What the answer tells of where the message is."""
    document = answer.json()
    assert (answer.status, document["action"], document["outcome"]) == (200, "restore", "restored"), document
    return str(document["detail"])


def copy_of(service: Service, queue_id: str) -> dict[str, Any]:
    answer = service.ask("GET", f"/v1/trash/{queue_id}", "viewer")
    assert answer.status == 200, answer.body
    document: dict[str, Any] = answer.json()
    assert set(document) == COPY
    return document


def queue_file_of(mailbox: Mailbox, queue_id: str) -> bytes:
    (path,) = mailbox.files(queue_id)
    return path.read_bytes()


def is_well(box: Sandbox) -> None:
    """Postfix finds nothing to repair in its queue and nothing to complain of."""
    names = {path.name for path in box.queue_directory.rglob("*") if path.is_file()}
    for command, words in (("postsuper", ("-s",)), ("postfix", ("check",))):
        finished = processes.run(processes.command(command), "-c", str(box.config_directory), *words)
        assert (finished.returncode, finished.stdout, finished.stderr) == (0, b"", b"")
    assert {path.name for path in box.queue_directory.rglob("*") if path.is_file()} == names


@pytest.mark.parametrize("to", [None, "hold", "deferred"])
@pytest.mark.parametrize("was", ["hold", "deferred"])
def test_a_deleted_message_comes_back_byte_for_byte_to_where_it_was_or_was_asked_for(
    service: Service, mailbox: Mailbox, was: str, to: str | None
) -> None:
    queue_id = mailbox.held() if was == "hold" else mailbox.deferred()
    content, row = queue_file_of(mailbox, queue_id), mailbox.row(queue_id)
    assert row is not None
    delete(service, queue_id)
    kept = copy_of(service, queue_id)
    assert (kept["state"], kept["recipients"], kept["sender"]) == ("kept", 1, SENDER)
    # A flush that another test asked for may try it at that very moment.
    assert kept["queue_name"] == was or (was, kept["queue_name"]) == ("deferred", "active")
    assert (kept["queue_file_bytes"], kept["arrival_time"]) == (len(content), row["arrival_time"])
    assert 86399 < kept["expires_at"] - kept["kept_at"] < 86401
    assert mailbox.queue_name(queue_id) is None
    then = to or was
    answer = restore(service, queue_id, **({} if to is None else {"to": to}))
    assert restored(answer) == f"it is in {then} again"
    assert mailbox.queue_name(queue_id) == then
    assert queue_file_of(mailbox, queue_id) == content
    again = mailbox.row(queue_id)
    assert again is not None
    assert {name: again[name] for name in ("arrival_time", "message_size", "sender", "forced_expire")} == {
        name: row[name] for name in ("arrival_time", "message_size", "sender", "forced_expire")
    }
    assert [each["address"] for each in again["recipients"]] == [f"bert@{REFUSING}"]
    assert (copy_of(service, queue_id)["state"], copy_of(service, queue_id)["restored_as"]) == ("restored", queue_id)
    (path,) = mailbox.files(queue_id)
    owner, status = (mailbox.box.queue_directory / "hold").stat(), path.stat()
    assert (status.st_uid, stat.S_IMODE(status.st_mode), status.st_nlink) == (owner.st_uid, 0o700, 1)
    is_well(mailbox.box)
    if then == "hold":
        mailbox.postfix("postsuper", "-H", "-", stdin=queue_id.encode())
    with mailbox.open_site():
        mailbox.let_go(queue_id)
        mailbox.pick_up()
    assert len(mailbox.arrived()) == 1


def test_only_who_is_still_due_gets_a_restored_message_and_its_dsn_parameters_are_kept(
    service: Service, mailbox: Mailbox
) -> None:
    envid, orcpt = f"ENVID={mailbox.word}", f"ORCPT=rfc822;{mailbox.word}@example.org"
    queue_id = mailbox.deferred(
        "anna@example.com",
        f"bert@{REFUSING}",
        mail_options=["RET=HDRS", envid],
        rcpt_options=["NOTIFY=SUCCESS,FAILURE", orcpt],
    )
    assert [each.rcpt[0].split()[1] for each in mailbox.arrived()] == ["TO:<anna@example.com>"]
    content = queue_file_of(mailbox, queue_id)
    delete(service, queue_id)
    assert copy_of(service, queue_id)["recipients"] == 1
    restored(restore(service, queue_id, to="hold"))
    assert queue_file_of(mailbox, queue_id) == content
    envelope = service.ask("GET", f"/v1/messages/{queue_id}/envelope", "viewer").json()
    assert [each["address"] for each in envelope["recipients"]] == [f"bert@{REFUSING}"]
    assert [each["address"] for each in envelope["done_recipients"]] == ["anna@example.com"]
    mailbox.postfix("postsuper", "-H", "-", stdin=queue_id.encode())
    with mailbox.open_site():
        mailbox.let_go(queue_id)
    _, *delivered = mailbox.arrived()
    assert [(each.rcpt[0].split()[1], len(each.rcpt)) for each in delivered] == [(f"TO:<bert@{REFUSING}>", 1)]
    assert {"RET=HDRS", envid} <= set(delivered[0].mail.split())
    assert {"NOTIFY=SUCCESS,FAILURE", orcpt} <= set(delivered[0].rcpt[0].split())


def test_a_bounce_of_a_restored_message_names_the_envelope_as_its_sender_did(
    service: Service, mailbox: Mailbox
) -> None:
    queue_id = mailbox.deferred(
        mail_options=["RET=HDRS", f"ENVID={mailbox.word}"], rcpt_options=["ORCPT=rfc822;original@example.org"]
    )
    delete(service, queue_id)
    restored(restore(service, queue_id))
    assert service.change("expire", queue_id).status == 200
    bounce = mailbox.wait_for_arrival()
    assert bounce.mail.split()[1] == "FROM:<>"
    assert f"Original-Envelope-Id: {mailbox.word}".encode() in bounce.content
    assert b"Original-Recipient: rfc822;original@example.org" in bounce.content
    assert b"text/rfc822-headers" in bounce.content
    assert b"the last line" not in bounce.content


def test_a_message_that_was_expired_comes_back_as_such(service: Service, mailbox: Mailbox) -> None:
    queue_id = mailbox.held()
    mailbox.postfix("postsuper", "-e", "-", stdin=queue_id.encode())
    delete(service, queue_id)
    assert copy_of(service, queue_id)["forced_expire"] is True
    restored(restore(service, queue_id))
    assert (mailbox.row(queue_id) or {})["forced_expire"] is True
    assert stat.S_IMODE(mailbox.files(queue_id)[0].stat().st_mode) == 0o710


def test_a_second_restore_is_refused_and_the_trash_has_it_no_more(service: Service, mailbox: Mailbox) -> None:
    queue_id = mailbox.deferred()
    delete(service, queue_id)
    restored(restore(service, queue_id))
    assert "restored before" in refused(restore(service, queue_id), 409, "conflict")["detail"]
    delete(service, queue_id)  # and a second delete keeps a second copy
    assert copy_of(service, queue_id)["state"] == "kept"
    restored(restore(service, queue_id))
    mailbox.postfix("postsuper", "-d", "-", stdin=queue_id.encode())
    refused(restore(service, queue_id), 409, "conflict")
    assert mailbox.queue_name(queue_id) is None
    listed = service.ask("GET", "/v1/trash?limit=1000", "viewer").json()
    assert queue_id not in {each["queue_id"] for each in listed["copies"]}


def test_what_is_not_in_the_trash_is_not_found(service: Service) -> None:
    refused(service.ask("GET", f"/v1/trash/{UNKNOWN_ID}", "viewer"), 404, "no_such_message")
    refused(restore(service, UNKNOWN_ID), 404, "no_such_message")
    refused(restore(service, "ALL"), 400, "invalid_argument")


def test_an_id_that_is_in_use_again_is_refused_and_that_message_is_left_alone(
    service: Service, mailbox: Mailbox
) -> None:
    queue_id, other = mailbox.held(), mailbox.held()
    delete(service, queue_id)
    (path,) = mailbox.files(other)
    path.rename(path.with_name(queue_id))
    content = queue_file_of(mailbox, queue_id)
    refused(restore(service, queue_id), 409, "conflict")
    assert queue_file_of(mailbox, queue_id) == content
    path.with_name(queue_id).rename(path)
    restored(restore(service, queue_id))


def test_a_whole_operation_is_undone_once(service: Service, mailbox: Mailbox) -> None:
    queue_ids = several(mailbox, 3)
    contents = {queue_id: queue_file_of(mailbox, queue_id) for queue_id in queue_ids}
    before = service.ask("GET", "/v1/trash", "viewer").json()
    deleted = done(operate(service, "delete", {"sender": sender_of(mailbox)}), removed=3)
    page = service.ask("GET", "/v1/trash?limit=2", "viewer").json()
    assert page["messages"] - before["messages"] == 3
    assert page["bytes"] - before["bytes"] == sum(map(len, contents.values()))
    rest = service.ask("GET", f"/v1/trash?limit=1&next={page['next']}", "viewer").json()
    assert {each["queue_id"] for each in page["copies"] + rest["copies"]} == set(queue_ids)
    restored(restore(service, queue_ids[0]))
    path = f"/v1/operations/{deleted['operation_id']}/restore"
    assert refused(service.ask("POST", path, "operator"), 403, "forbidden")["required_role"] == "admin"
    assert refused(restore(service, queue_ids[1], "operator"), 403, "forbidden")["required_role"] == "admin"
    lines = len(service.audit())
    undone = done(service.ask("POST", path, "admin", {"Prefer": "wait=20"}, {"to": "hold", "reason": "why not"}),
                  restored=2)  # fmt: skip
    assert shown(service, undone)["selection"]["operation_id"] == deleted["operation_id"]
    assert set(results(service, undone)) == set(queue_ids[1:])
    assert [line["event"] for line in service.audit()[lines:]] == ["operation", "change", "change", "operation_end"]
    assert {line["outcome"] for line in service.audit()[lines + 1 : -1]} == {"restored"}
    assert [mailbox.queue_name(queue_id) for queue_id in queue_ids] == ["deferred", "hold", "hold"]
    assert {queue_id: queue_file_of(mailbox, queue_id) for queue_id in queue_ids} == contents
    refused(service.ask("POST", path, "admin"), 409, "conflict")


def test_a_delete_can_ask_for_no_copy(service: Service, mailbox: Mailbox) -> None:
    (queue_id,) = several(mailbox, 1)
    operation = done(operate(service, "delete", {"queue_ids": [queue_id]}, keep_copy=False), removed=1)
    assert mailbox.queue_name(queue_id) is None
    refused(service.ask("GET", f"/v1/trash/{queue_id}", "viewer"), 404, "no_such_message")
    path = f"/v1/operations/{operation['operation_id']}/restore"
    refused(service.ask("POST", path, "admin"), 409, "conflict")


def test_copies_are_for_root_alone(service: Service, mailbox: Mailbox) -> None:
    delete(service, mailbox.deferred())
    directory = service.state_directory / "trash"
    assert (directory.stat().st_uid, stat.S_IMODE(directory.stat().st_mode)) == (0, 0o700)
    files = list(directory.iterdir())
    assert files
    assert {(path.stat().st_uid, stat.S_IMODE(path.stat().st_mode)) for path in files} == {(0, 0o600)}


def test_a_short_queue_id_comes_back_as_another_that_postfix_leaves_alone(
    short_service: Service, short_mailbox: Mailbox
) -> None:
    queue_id = short_mailbox.deferred()
    content = queue_file_of(short_mailbox, queue_id)
    delete(short_service, queue_id)
    told = restored(restore(short_service, queue_id, to="hold"))
    new_id = told.rpartition(" ")[2]
    assert told == f"it is in hold again, with the queue ID {new_id}"
    assert copy_of(short_service, queue_id)["restored_as"] == new_id
    assert short_mailbox.queue_name(new_id) == "hold"
    assert queue_file_of(short_mailbox, new_id) == content
    assert int(new_id[5:], 16) == short_mailbox.files(new_id)[0].stat().st_ino
    is_well(short_mailbox.box)
    assert short_service.change("release", new_id).status == 200
    with short_mailbox.open_site():
        short_mailbox.let_go(new_id)
    assert len(short_mailbox.arrived()) == 1


# --- bounds -------------------------------------------------------------------------------------------------


def test_without_retention_nothing_is_kept_and_a_dry_run_says_so(box: Sandbox, mailbox: Mailbox) -> None:
    with services.started(box, {"trash_retention_seconds": "0"}) as service:
        (queue_id,) = several(mailbox, 1)
        dry_run = operate(service, "delete", {"queue_ids": [queue_id]}, dry_run=True).json()
        assert dry_run["trash_seconds"] is None
        delete(service, queue_id)
        assert service.ask("GET", "/v1/trash", "viewer").json() == {
            "messages": 0, "bytes": 0, "copies": [], "next": None,
        }  # fmt: skip
        assert list((service.state_directory / "trash").iterdir()) == []
        refused(restore(service, queue_id), 404, "no_such_message")


def test_a_copy_is_purged_at_its_time_with_a_line_in_the_audit(box: Sandbox, mailbox: Mailbox) -> None:
    with services.started(box, {"trash_retention_seconds": "1"}) as service:
        queue_id = mailbox.deferred()
        delete(service, queue_id)
        operation_id = copy_of(service, queue_id)["operation_id"]
        box.wait_until(lambda: service.audit()[-1]["event"] == "purge", 5)
        line = service.audit()[-1]
        assert (line["queue_id"], line["operation_id"], line["outcome"]) == (queue_id, operation_id, "purged")
        assert line["reason"] == "its time was over"
        box.wait_until(lambda: copy_of(service, queue_id)["state"] == "purged", 2)  # the line comes first
        box.wait_until(lambda: not list((service.state_directory / "trash").iterdir()), 2)
        problem = refused(restore(service, queue_id), 409, "conflict")
        assert "time" in problem["detail"]
        assert mailbox.queue_name(queue_id) is None


def test_the_oldest_copies_go_when_newer_ones_need_the_room(box: Sandbox, mailbox: Mailbox) -> None:
    with services.started(box, {"trash_limit_messages": "2"}) as service:
        oldest, *others = several(mailbox, 3)
        for queue_id in (oldest, *others):
            delete(service, queue_id)
        assert [copy_of(service, each)["state"] for each in (oldest, *others)] == ["purged", "kept", "kept"]
        assert service.ask("GET", "/v1/trash", "viewer").json()["messages"] == 2
        purged = [line for line in service.audit() if line["event"] == "purge"]
        assert [(line["queue_id"], line["reason"]) for line in purged] == [(oldest, "newer copies needed its room")]
        restored(restore(service, others[0]))


def test_what_is_larger_than_the_trash_is_not_deleted(box: Sandbox, mailbox: Mailbox) -> None:
    with services.started(box, {"trash_limit_bytes": "1000"}) as service:
        deferred, held = mailbox.deferred(), mailbox.held()
        before = {queue_id: queue_file_of(mailbox, queue_id) for queue_id in (deferred, held)}
        assert min(map(len, before.values())) > 1000
        for queue_id in (deferred, held):
            refused(service.change("delete", queue_id), 507, "storage_full")
        operation = operate(service, "delete", {"queue_ids": [deferred, held]}).json()
        assert (operation["state"], operation["outcomes"]) == ("failed", {"failed": 2})
        assert operation["failure"].startswith("storage_full: ")
        assert (mailbox.queue_name(deferred), mailbox.queue_name(held)) == ("deferred", "hold")
        assert {queue_id: queue_file_of(mailbox, queue_id) for queue_id in (deferred, held)} == before
        assert list((service.state_directory / "trash").iterdir()) == []
        done(operate(service, "delete", {"queue_ids": [deferred, held]}, keep_copy=False), removed=2)


def test_nothing_is_restored_into_a_hold_queue_that_is_hashed() -> None:
    """There Postfix looks for a file in directories below hold, which the restore does not make."""
    with Sandbox(fresh_directory(), extra_main_cf={"hash_queue_names": "deferred, defer, hold"}) as box:
        mailbox = Mailbox(box)
        with services.started(box) as service:
            queue_id = mailbox.held()
            delete(service, queue_id)
            assert "hash_queue_names" in refused(restore(service, queue_id), 500, "misconfigured")["detail"]
            assert (copy_of(service, queue_id)["state"], mailbox.queue_name(queue_id)) == ("kept", None)


def test_a_copy_outlives_a_restart(box: Sandbox, mailbox: Mailbox, tmp_path: Path) -> None:
    with services.place() as directory:
        shared = {"state_directory": str(directory / "state"), "agent_socket": str(directory / "run" / "agent.sock")}
        queue_id = mailbox.deferred()
        content = queue_file_of(mailbox, queue_id)
        with services.started(box, shared) as service:
            delete(service, queue_id)
        with services.started(box, shared) as service:
            restored(restore(service, queue_id))
    assert queue_file_of(mailbox, queue_id) == content
