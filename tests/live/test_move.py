"""A queue moves from one real Postfix to another: byte for byte, and each message is delivered once, come what may."""

import contextlib
import hashlib
import io
import json
import os
import re
import socket
import subprocess
import tarfile
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from postqueue_api.errors import Error, InvalidArgument
from postqueue_api.sandbox import Sandbox, fresh_directory
from postqueue_api.sandbox.sink import LOOPBACK
from postqueue_api.sandbox.sites import REFUSING
from tests.live import service as services
from tests.live.agent_with_failpoint import Starter
from tests.live.agents import ACTOR, Agents, agents
from tests.live.disks import fill, small_disk
from tests.live.mailbox import Mailbox
from tests.live.service import AUTHORIZATION, Answer, Service
from tests.live.test_faults import STEPS
from tests.live.test_operations import done, operate, refused, results
from tests.live.test_trash import copy_of, is_well, queue_file_of, restore, restored

TAR = {"Content-Type": "application/x-tar"}
WAIT = {"Prefer": "wait=30"}


@dataclass(frozen=True)
class Side:
    """A Postfix, its service and the mail of one test there."""

    mail: Mailbox
    service: Service

    def files(self) -> dict[str, bytes]:
        """All queue files, by queue ID."""
        return {row["queue_id"]: queue_file_of(self.mail, row["queue_id"]) for row in self.mail.box.queue()}

    def waiting(self) -> int:
        """How much the trash could give back."""
        return int(self.service.ask("GET", "/v1/trash", "viewer").json()["messages"])

    def trash_files(self) -> list[str]:
        return sorted(path.name for path in (self.service.state_directory / "trash").iterdir())


@pytest.fixture(scope="module")
def old_service() -> Iterator[tuple[Sandbox, Service]]:
    with Sandbox(fresh_directory()) as box, services.started(box, {"lock_wait_seconds": "1"}) as made:
        yield box, made


@pytest.fixture(scope="module")
def new_service() -> Iterator[tuple[Sandbox, Service]]:
    with Sandbox(fresh_directory()) as box, services.started(box, {"lock_wait_seconds": "1"}) as made:
        yield box, made


@pytest.fixture
def old(old_service: tuple[Sandbox, Service]) -> Iterator[Side]:
    side = Side(Mailbox(old_service[0]), old_service[1])
    yield side
    side.mail.postfix("postsuper", "-d", "ALL")


@pytest.fixture
def new(old: Side, new_service: tuple[Sandbox, Service]) -> Iterator[Side]:
    side = Side(Mailbox(new_service[0]), new_service[1])
    side.mail.word = old.mail.word
    yield side
    side.mail.postfix("postsuper", "-d", "ALL")


def exported(side: Side, *queue_ids: str) -> bytes:
    """Take messages out of a queue. Returns:  the tar of them"""
    operation = done(operate(side.service, "export", {"queue_ids": list(queue_ids)}), removed=len(queue_ids))
    return tar_of(side, operation["operation_id"])


def tar_of(side: Side, operation_id: str) -> bytes:
    answer = side.service.ask("GET", f"/v1/trash/export?operation_id={operation_id}", "mover")
    assert (answer.status, answer.headers["Content-Type"]) == (200, "application/x-tar"), answer.body
    return answer.body


def bring_in(side: Side, tar: bytes, query: str = "") -> Answer:
    return side.service.ask("POST", f"/v1/trash/import{query}", "mover", TAR, tar)


def imported(answer: Answer, **outcomes: int) -> dict[str, Any]:
    """The answer of an import that was carried out, with these sums."""
    document: dict[str, Any] = answer.json()
    assert (answer.status, document["outcomes"]) == (200, outcomes), document
    assert len(document["copies"]) == sum(outcomes.values())
    return document


def confirm(side: Side, receipt: dict[str, Any]) -> dict[str, Any]:
    answer = side.service.ask("POST", "/v1/trash/exported", "admin", body=receipt)
    assert answer.status == 200, answer.body
    document: dict[str, Any] = answer.json()
    assert (document["action"], document["state"]) == ("confirm", "done")
    return document


def restore_all(side: Side, receipt: dict[str, Any], to: str | None = None, **outcomes: int) -> dict[str, Any]:
    path = f"/v1/operations/{receipt['operation_id']}/restore"
    body = {} if to is None else {"to": to}
    return done(side.service.ask("POST", path, "admin", WAIT, body), **outcomes)


def members(tar: bytes) -> dict[str, bytes]:
    """What a tar holds, as Python's own module reads it."""
    with tarfile.open(fileobj=io.BytesIO(tar)) as archive:
        found = {}
        for member in archive:
            assert member.isreg()
            file = archive.extractfile(member)
            assert file is not None
            found[member.name] = file.read()
        return found


def deliver_all(side: Side, seconds: float = 20) -> None:
    """Release everything, and let it be delivered."""
    with side.mail.open_site():
        side.mail.postfix("postsuper", "-H", "ALL")

        def is_empty() -> bool:
            side.mail.pick_up()
            return not side.mail.box.queue()

        side.mail.box.wait_until(is_empty, seconds)


def large(mail: Mailbox) -> str:
    """A deferred message of 900 kB."""
    text = 20_000 * b"the quick brown fox jumps over the lazy dog\n"
    queue_id = mail.box.send(
        "anna@example.com", [f"bert@{REFUSING}"], b"Subject: " + mail.word.encode() + b"\n\n" + text
    )
    mail.wait_for(queue_id, "deferred")
    return queue_id


def everything(mail: Mailbox) -> dict[str, str]:
    """Mail that is hard to move, by what is hard about it; all of it rests, one of it on hold."""
    word = mail.word.encode()
    half = mail.deferred("anna@example.com", f"half@{REFUSING}", f"too@{REFUSING}")
    held = mail.held()
    latin = b"From: fax@example.net\nSubject: T\xe9l\xe9copie " + word + b"\n\n.\n..\n\0 d\xe9j\xe0 vu\nno end of line"
    large = b"From: a\nSubject: " + word + b"\n\n" + 45_000 * b"the quick brown fox jumps over the lazy dog, again\n"
    many = [f"member{number:03d}@{REFUSING}" for number in range(300)]
    dsn = mail.send(
        f"dsn@{REFUSING}",
        mail_options=["RET=HDRS", f"ENVID={mail.word}"],
        rcpt_options=["NOTIFY=SUCCESS,FAILURE", "ORCPT=rfc822;original@example.org"],
    )
    sent = {
        "latin": mail.box.send("fax@example.net", [f"latin@{REFUSING}"], latin, ["BODY=8BITMIME"]),
        "large": mail.box.send("anna@example.com", [f"large@{REFUSING}"], large),
        "many": mail.box.send("club@example.net", many, b"Subject: " + word + b"\n\nMany of us.\n"),
        "bounce": mail.box.send("", [f"bounce@{REFUSING}"], b"Subject: " + word + b"\n\nSorry.\n"),
        "dsn": dsn,
    }
    mail.box.wait_until_settled()
    return {"half": half, "held": held, **sent}


def recipients(mail: Mailbox) -> list[str]:
    """Each recipient of what arrived, once for each time."""
    return sorted(each.split(":", 1)[1].split(">")[0].strip("<") for got in mail.arrived() for each in got.rcpt)


def test_a_whole_queue_moves_byte_for_byte_and_each_message_is_delivered_once(old: Side, new: Side) -> None:
    ids = everything(old.mail)
    before = old.files()
    assert set(ids.values()) == set(before)
    rows = {row["queue_id"]: row for row in old.mail.box.queue()}
    lines = len(old.service.audit())

    operation = done(operate(old.service, "export", {"everything": True}), removed=len(ids))
    assert old.files() == {}
    copy = copy_of(old.service, ids["half"])
    assert (copy["state"], copy["expires_at"], copy["recipients"]) == ("kept", None, 2)
    tar = old.service.ask("GET", "/v1/trash/export", "mover").body
    receipt = imported(bring_in(new, tar, "?reason=a%20new%20task"), imported=len(ids))
    assert {each["queue_id"]: each["checksum"] for each in receipt["copies"]} == {
        queue_id: hashlib.blake2b(content, digest_size=32).hexdigest() for queue_id, content in before.items()
    }
    assert new.files() == {}
    assert confirm(old, receipt)["outcomes"] == {"exported": len(ids)}
    restore_all(new, receipt, restored=len(ids))

    assert old.files() == {}
    assert new.files() == before
    after = {row["queue_id"]: row for row in new.mail.box.queue()}
    for queue_id, row in rows.items():
        assert {name: after[queue_id][name] for name in ("queue_name", "arrival_time", "message_size", "sender")} == {
            name: row[name] for name in ("queue_name", "arrival_time", "message_size", "sender")
        }
    is_well(new.mail.box)
    is_well(old.mail.box)
    assert recipients(old.mail) == ["anna@example.com"]
    deliver_all(new)
    expected = ["half", "too", "bert", "latin", "large", "bounce", "dsn", *(f"member{n:03d}" for n in range(300))]
    assert recipients(new.mail) == sorted(f"{name}@{REFUSING}" for name in expected)
    assert recipients(old.mail) == ["anna@example.com"]
    (dsn,) = [each for each in new.mail.arrived() if any("dsn@" in rcpt for rcpt in each.rcpt)]
    assert {"RET=HDRS", f"ENVID={new.mail.word}"} <= set(dsn.mail.split())
    assert {"NOTIFY=SUCCESS,FAILURE", "ORCPT=rfc822;original@example.org"} <= set(dsn.rcpt[0].split())
    check_audit(old.service.audit()[lines:], new.service.audit(), set(ids.values()), operation["operation_id"])


def check_audit(old: list[dict[str, Any]], new: list[dict[str, Any]], queue_ids: set[str], operation_id: str) -> None:
    """Who took out, sent, brought in, confirmed and gave back which messages, and how many."""
    sent = [line for line in old if line["event"] == "export"]
    assert {line["queue_id"] for line in sent} == queue_ids
    assert {(line["actor"], line["operation_id"], line["outcome"]) for line in sent} == {
        ("mover", operation_id, "sent")
    }
    (end,) = [line for line in old if line["event"] == "export_end"]
    assert (end["messages"], end["outcome"], end["left_out"]) == (len(queue_ids), "sent", 0)
    for lines, action, actor, outcome in (
        (old, "export", "admin", "removed"),
        (old, "confirm", "admin", "exported"),
        (new, "import", "mover", "imported"),
        (new, "restore", "admin", "restored"),
    ):
        mine = [line for line in lines if line.get("action") == action and line["event"] == "change"]
        assert queue_ids <= {line["queue_id"] for line in mine}
        assert {(line["actor"], line["outcome"]) for line in mine if line["queue_id"] in queue_ids} == {
            (actor, outcome)
        }
        events = [line["event"] for line in lines if line.get("action") == action]
        assert events.count("operation") == events.count("operation_end") >= 1


# --- each message once --------------------------------------------------------------------------------------


def test_what_was_imported_is_not_imported_again_before_and_after_it_was_restored(old: Side, new: Side) -> None:
    ids = [old.mail.deferred(), old.mail.held()]
    tar = exported(old, *ids)
    first = imported(bring_in(new, tar), imported=2)
    waiting, files = new.waiting(), new.trash_files()
    again = imported(bring_in(new, tar), no_change=2)
    assert (new.waiting(), new.trash_files()) == (waiting, files)
    assert results(new.service, again) == dict.fromkeys(ids, "no_change")
    restore_all(new, first, "hold", restored=2)
    imported(bring_in(new, tar), no_change=2)
    refused(new.service.ask("POST", f"/v1/operations/{again['operation_id']}/restore"), 409, "conflict")
    # The answer of the second import confirms as well: the first one may have been lost on its way.
    assert confirm(old, again)["outcomes"] == {"exported": 2}
    assert confirm(old, first)["outcomes"] == {"no_change": 2}
    deliver_all(new)
    imported(bring_in(new, tar), no_change=2)
    assert recipients(new.mail) == [f"bert@{REFUSING}"] * 2


def test_a_message_that_changed_since_is_not_brought_in_twice_either(old: Side, new: Side) -> None:
    """It was restored at the old place after all, and one of two recipients got it there."""
    queue_id = old.mail.deferred(f"first@{REFUSING}", "second@full.example")
    imported(bring_in(new, exported(old, queue_id)), imported=1)
    restored(restore(old.service, queue_id))
    with old.mail.open_site():
        old.mail.flush(queue_id)
        old.mail.wait_for_arrival()
        old.mail.wait_for(queue_id, "deferred")
    receipt = imported(bring_in(new, exported(old, queue_id)), changed=1)
    refused(old.service.ask("POST", "/v1/trash/exported", body=receipt), 400, "invalid_argument")
    restored(restore(old.service, queue_id))


def test_what_was_imported_before_comes_again_if_somebody_insists(old: Side, new: Side) -> None:
    queue_id = old.mail.held()
    tar = exported(old, queue_id)
    imported(bring_in(new, tar), imported=1)
    again = imported(bring_in(new, tar, "?although_imported=true"), imported=1)
    listed = [each for each in new.service.ask("GET", "/v1/trash").json()["copies"] if each["queue_id"] == queue_id]
    assert len(listed) == 2
    restore_all(new, again, restored=1)
    assert new.mail.queue_name(queue_id) == "hold"


def test_after_the_confirmation_a_restore_is_refused_unless_somebody_insists(old: Side, new: Side) -> None:
    ids = [old.mail.deferred(), old.mail.held()]
    tar = exported(old, *ids)
    receipt = imported(bring_in(new, tar), imported=2)
    confirmed = confirm(old, receipt)
    assert results(old.service, confirmed) == dict.fromkeys(ids, "exported")
    for queue_id in ids:
        assert "taken this message over" in refused(restore(old.service, queue_id), 409, "conflict")["detail"]
        copy = copy_of(old.service, queue_id)
        assert copy["state"] == "exported"
        assert 86390 < copy["expires_at"] - copy["exported_at"] < 86410
    made_by = copy_of(old.service, ids[0])["operation_id"]
    answer = old.service.ask("POST", f"/v1/operations/{made_by}/restore", "admin", WAIT)
    done(answer, no_change=2)
    assert old.files() == {}
    assert members(tar_of(old, made_by)).keys() == {"manifest.json"}
    body = {"although_exported": True, "to": "hold"}
    restored(old.service.ask("POST", f"/v1/trash/{ids[0]}/restore", "admin", body=body))
    assert old.mail.queue_name(ids[0]) == "hold"
    assert confirm(old, receipt)["outcomes"] == {"failed": 1, "no_change": 1}


def test_a_confirmation_says_of_each_message_what_it_means(old: Side, new: Side) -> None:
    moved, restored_here, other = (old.mail.held() for _ in range(3))
    tar = exported(old, moved, restored_here, other)
    receipt = imported(bring_in(new, tar), imported=3)
    restored(restore(old.service, restored_here))
    for each in receipt["copies"]:
        if each["queue_id"] == other:
            each["checksum"] = "0" * 64
    confirmed = confirm(old, receipt)
    assert results(old.service, confirmed) == {moved: "exported", restored_here: "failed", other: "not_found"}
    restored(restore(old.service, other))
    path = f"/v1/operations/{confirmed['operation_id']}/results"
    said = {row["queue_id"]: row["detail"] for row in old.service.ask("GET", path).json()["results"]}
    assert f"restored here, as {restored_here}" in said[restored_here]


def test_a_restore_while_the_export_is_sent_ends_with_the_message_in_one_place(old: Side, new: Side) -> None:
    ids = [old.mail.held() for _ in range(6)]
    operation = done(operate(old.service, "export", {"queue_ids": ids}), removed=6)
    path = f"/v1/operations/{operation['operation_id']}/restore"
    answers: list[Answer] = []
    thread = threading.Thread(target=lambda: answers.append(old.service.ask("POST", path, "admin", WAIT)))
    thread.start()
    tars = []
    while thread.is_alive():
        tars.append(tar_of(old, operation["operation_id"]))
    thread.join()
    done(answers[0], restored=6)
    for tar in tars:
        answer = bring_in(new, tar)
        if (receipt := answer.json())["copies"]:
            assert set(confirm(old, receipt)["outcomes"]) == {"failed"}
    assert set(old.files()) == set(ids)


# --- what breaks --------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def tar_and_ids(old_service: tuple[Sandbox, Service]) -> tuple[bytes, list[str]]:
    side = Side(Mailbox(old_service[0]), old_service[1])
    ids = [side.mail.held(), large(side.mail), side.mail.held()]
    return exported(side, *ids), ids


def test_a_stream_that_is_cut_anywhere_is_refused_as_a_whole(tar_and_ids: tuple[bytes, list[str]], new: Side) -> None:
    tar, _ = tar_and_ids
    waiting, files = new.waiting(), new.trash_files()
    lines = len(new.service.audit())
    places = [0, 1, 511, 512, 600, *range(1024, len(tar) - 512, 21111), len(tar) - 512, len(tar) - 1]
    for place in places:
        assert "Nothing of this tar was taken" in refused(bring_in(new, tar[:place]), 400, "invalid_argument")["detail"]
    assert (new.waiting(), new.trash_files()) == (waiting, files)
    said = [(line["action"], line["actor"], line["outcome"]) for line in new.service.audit()[lines:]]
    assert said == [("import", "mover", "invalid_argument")] * len(places)


def test_a_client_that_goes_away_in_the_middle_leaves_nothing(tar_and_ids: tuple[bytes, list[str]], new: Side) -> None:
    tar, _ = tar_and_ids
    waiting, files = new.waiting(), new.trash_files()
    head = "POST /v1/trash/import HTTP/1.1\r\nHost: x\r\nContent-Type: application/x-tar\r\n"
    head += f"Authorization: {AUTHORIZATION['mover']}\r\n"
    for how in (f"Content-Length: {len(tar)}\r\n\r\n".encode(), b"Transfer-Encoding: chunked\r\n\r\n%x\r\n" % len(tar)):
        lines = len(new.service.audit())
        with closing(socket.create_connection((LOOPBACK, new.service.port))) as connection:
            connection.sendall(head.encode() + how + tar[: len(tar) // 2])
            new.mail.box.wait_until(lambda: len(new.trash_files()) > len(files))
        new.mail.box.wait_until(lambda lines=lines: len(new.service.audit()) > lines)  # type: ignore[misc]
        assert new.service.audit()[-1]["outcome"] == "invalid_argument"
        assert (new.waiting(), new.trash_files()) == (waiting, files)


def test_a_byte_that_changed_spoils_one_message_or_all_but_never_goes_unseen(old: Side, new: Side) -> None:
    ids = [old.mail.held() for _ in range(3)]
    before = {queue_id: old.files()[queue_id] for queue_id in ids}
    tar = exported(old, *ids)
    spoilt = bytearray(tar)
    spoilt[tar.index(before[ids[1]]) + len(before[ids[1]]) // 2] ^= 1
    receipt = imported(bring_in(new, bytes(spoilt)), imported=2, failed=1)
    assert results(new.service, receipt) == {ids[0]: "imported", ids[1]: "failed", ids[2]: "imported"}
    assert confirm(old, receipt)["outcomes"] == {"exported": 2}
    assert copy_of(old.service, ids[1])["state"] == "kept"
    receipt = imported(bring_in(new, tar), imported=1, no_change=2)
    assert confirm(old, receipt)["outcomes"] == {"exported": 1, "no_change": 2}
    waiting = new.waiting()
    name = tar.index(b'"sender"')
    for place in (name + 1, name + 12, tar.index(b'"messages"') + 12, tar.index(b"manifest.json"), 0, 130, 150):
        spoilt = bytearray(tar)
        spoilt[place] ^= 1
        refused(bring_in(new, bytes(spoilt)), 400, "invalid_argument")
    assert new.waiting() == waiting


def test_too_large_and_of_another_type(old: Side, new: Side) -> None:
    box = new.mail.box
    tar = exported(old, old.mail.held())
    with services.started(box, {"import_limit_bytes": "4096"}) as service:
        side = Side(new.mail, service)
        problem = refused(bring_in(side, tar), 413, "payload_too_large")
        assert "POSTQUEUE_API_IMPORT_LIMIT_BYTES" in problem["detail"]
        assert service.audit()[-1]["outcome"] == "payload_too_large"
        body = (tar[at : at + 1000] for at in range(0, len(tar), 1000))
        problem = refused(service.ask("POST", "/v1/trash/import", "mover", TAR, body), 413, "payload_too_large")  # type: ignore[arg-type]
        assert side.trash_files() == []
    answer = new.service.ask("POST", "/v1/trash/import", "mover", {"Content-Type": "application/gzip"}, tar)
    refused(answer, 415, "unsupported_media_type")
    refused(new.service.ask("POST", "/v1/trash/import?force=1", "mover", TAR, tar), 400, "invalid_argument")
    refused(
        new.service.ask("GET", "/v1/trash/export?operation_id=op-0000000000000000", "mover"), 404, "no_such_operation"
    )


def test_the_trash_gives_up_nothing_that_waits_to_move(old: Side, new: Side) -> None:
    box, mail = old.mail.box, old.mail
    with services.started(box, {"trash_limit_messages": "2", "trash_retention_seconds": "1"}) as service:
        ids = [mail.held() for _ in range(3)]
        # One by one, since the messages of one chunk are refused together.
        for queue_id in ids[:2]:
            done(operate(service, "export", {"queue_ids": [queue_id]}), removed=1)
        refused_one = operate(service, "export", {"queue_ids": ids[2:]}).json()
        assert (refused_one["state"], refused_one["outcomes"]) == ("failed", {"failed": 1})
        assert refused_one["failure"].startswith("storage_full")
        refused(service.change("delete", ids[2]), 507, "storage_full")
        assert mail.queue_name(ids[2]) == "hold"
        time.sleep(2.5)  # purged twice by now
        assert [copy_of(service, queue_id)["state"] for queue_id in ids[:2]] == ["kept", "kept"]
        side = Side(mail, service)
        tar = service.ask("GET", "/v1/trash/export", "mover").body
        confirm(side, imported(bring_in(new, tar), imported=2))
        box.wait_until(lambda: side.trash_files() == [])
        assert copy_of(service, ids[0])["state"] == "purged"


def test_without_retention_a_queue_moves_all_the_same_and_what_came_waits(old: Side, new: Side) -> None:
    with (
        services.started(old.mail.box, {"trash_retention_seconds": "0"}) as source,
        services.started(new.mail.box, {"trash_retention_seconds": "0"}) as target,
    ):
        queue_id = old.mail.held()
        there, here = Side(old.mail, source), Side(new.mail, target)
        receipt = imported(bring_in(here, exported(there, queue_id)), imported=1)
        confirm(there, receipt)
        restore_all(here, receipt, restored=1)
        assert new.mail.queue_name(queue_id) == "hold"


def test_a_full_trash_refuses_an_import_as_a_whole(old: Side, new: Side) -> None:
    ids = [old.mail.held() for _ in range(3)]
    tar = exported(old, *ids)
    with services.started(new.mail.box, {"trash_limit_messages": "2"}) as service:
        side = Side(new.mail, service)
        problem = refused(bring_in(side, tar), 507, "storage_full")
        assert "POSTQUEUE_API_TRASH_LIMIT_MESSAGES" in problem["detail"]
        assert (side.waiting(), side.trash_files()) == (0, [])


def test_a_full_disk_refuses_an_import_as_a_whole_and_when_there_is_room_it_succeeds(old: Side, new: Side) -> None:
    text = b"From: a\nSubject: " + old.mail.word.encode() + b"\n\n" + 4000 * b"the quick brown fox jumps over the dog\n"
    ids = [old.mail.box.send("anna@example.com", [f"bert@{REFUSING}"], text) for _ in range(4)]
    old.mail.box.wait_until_settled()
    tar = exported(old, *ids)
    with services.place() as place, small_disk(place / "small") as filler:
        state = filler.parent / "state"
        with services.started(new.mail.box, {"state_directory": str(state)}) as service:
            side = Side(new.mail, service)
            for leave in (300_000, 4096):
                fill(filler, leave)
                refused(bring_in(side, tar), 507, "storage_full")
                assert side.trash_files() == []
                assert side.waiting() == 0
            filler.unlink()
            assert service.ask("GET", "/v1/operations", "viewer").json()["operations"] == []
            receipt = imported(bring_in(side, tar), imported=4)
            restore_all(side, receipt, restored=4)
    confirm(old, receipt)
    deliver_all(new)
    assert recipients(new.mail) == [f"bert@{REFUSING}"] * 4


def test_two_imports_at_once_are_one_after_the_other(tar_and_ids: tuple[bytes, list[str]], new: Side) -> None:
    tar, _ = tar_and_ids
    files = new.trash_files()
    going_on = threading.Event()

    def slowly() -> Iterator[bytes]:
        yield tar[: len(tar) // 2]
        going_on.wait(20)
        yield tar[len(tar) // 2 :]

    answers: list[Answer] = []
    thread = threading.Thread(
        target=lambda: answers.append(new.service.ask("POST", "/v1/trash/import", "mover", TAR, slowly()))  # type: ignore[arg-type]
    )
    thread.start()
    new.mail.box.wait_until(lambda: len(new.trash_files()) > len(files))
    refused(bring_in(new, tar), 409, "conflict")
    going_on.set()
    thread.join()
    imported(answers[0], imported=3)


# --- names, other tools -------------------------------------------------------------------------------------


def test_an_id_that_is_in_use_there_gets_another_one(old: Side, new: Side) -> None:
    queue_id = old.mail.deferred()
    content = old.files()[queue_id]
    receipt = imported(bring_in(new, exported(old, queue_id)), imported=1)
    other = new.mail.held()
    (path,) = new.mail.files(other)
    path.rename(path.with_name(queue_id))
    told = restored(restore(new.service, queue_id, to="hold"))
    name = copy_of(new.service, queue_id)["restored_as"]
    assert told == f"it is in hold again, with the queue ID {name}"
    assert name != queue_id
    assert queue_file_of(new.mail, name) == content
    is_well(new.mail.box)
    confirm(old, receipt)
    deliver_all(new)
    assert recipients(new.mail) == [f"bert@{REFUSING}"] * 2


def test_long_and_short_queue_ids_become_what_the_other_postfix_would_make(
    old: Side, short_service: Service, short_mailbox: Mailbox
) -> None:
    short_mailbox.word = old.mail.word
    short = Side(short_mailbox, short_service)
    queue_id = old.mail.held()
    content = old.files()[queue_id]
    receipt = imported(bring_in(short, exported(old, queue_id)), imported=1)
    confirm(old, receipt)
    restore_all(short, receipt, restored=1)
    (short_id,) = short.files()
    assert (len(short_id) < len(queue_id), "z" in short_id) == (True, False)
    assert short.files() == {short_id: content}
    is_well(short_mailbox.box)
    receipt = imported(bring_in(old, exported(short, short_id)), imported=1)
    confirm(short, receipt)
    restore_all(old, receipt, restored=1)
    (long_id,) = old.files()
    assert "z" in long_id
    assert old.files() == {long_id: content}
    is_well(old.mail.box)
    deliver_all(old)
    assert recipients(old.mail) == [f"bert@{REFUSING}"]


def test_tar_and_b2sum_read_an_export_and_what_tar_packs_again_is_taken(old: Side, new: Side, tmp_path: Path) -> None:
    ids = [old.mail.held(), old.mail.deferred("anna@example.com", f"bert@{REFUSING}")]
    before = {queue_id: old.files()[queue_id] for queue_id in ids}
    tar = exported(old, *ids)
    (tmp_path / "queue.tar").write_bytes(tar)
    (tmp_path / "queue").mkdir()

    def run(*words: str) -> str:
        finished = subprocess.run(words, cwd=tmp_path, capture_output=True, check=True)
        assert finished.stderr == b""
        return finished.stdout.decode()

    names = run("tar", "-tf", "queue.tar").split()
    assert names == sorted(names) == [*members(tar)]
    run("tar", "-xf", "queue.tar", "-C", "queue")
    for queue_id in ids:
        (stem,) = {name.partition(".")[0] for name in names if queue_id in name}
        metadata = json.loads((tmp_path / "queue" / f"{stem}.json").read_text())
        assert (metadata["queue_id"], metadata["bytes"]) == (queue_id, len(before[queue_id]))
        assert metadata["recipients"] == [f"bert@{REFUSING}"]
        assert (tmp_path / "queue" / f"{stem}.queue").read_bytes() == before[queue_id]
        assert run("b2sum", "-l", "256", f"queue/{stem}.queue").split()[0] == metadata["checksum"]
    run("tar", "--format=ustar", "--sort=name", "-C", "queue", "-cf", "again.tar", ".")
    run("tar", "--sort=name", "-C", "queue", "-cf", "gnu.tar", ".")
    receipt = imported(bring_in(new, (tmp_path / "again.tar").read_bytes()), imported=2)
    imported(bring_in(new, (tmp_path / "gnu.tar").read_bytes()), no_change=2)
    restore_all(new, receipt, restored=2)
    assert new.files() == before


def test_the_lines_of_the_manual_move_a_queue(old: Side, new: Side, tmp_path: Path) -> None:
    ids = [old.mail.held(), old.mail.deferred()]
    text = (Path(__file__).parents[2] / "docs" / "fargate.md").read_text().partition("## Moving a queue")[2]
    commands = re.findall(r"^    \$ (curl .*(?:\n        .*)*)$", text, re.MULTILINE)
    assert len(commands) == 5
    environ = {
        "PATH": os.environ["PATH"],
        "OLD": f"http://{LOOPBACK}:{old.service.port}",
        "NEW": f"http://{LOOPBACK}:{new.service.port}",
    }
    credential = f'-H "Authorization: {AUTHORIZATION["mover"]}"'  # ours is a token
    for command in commands:
        script = command.replace("-u $LOGIN", f"-sS {credential}")
        subprocess.run(("bash", "-ec", script), cwd=tmp_path, env=environ, check=True, capture_output=True)
        if (tmp_path / "receipt.json").exists():
            environ["OPERATION_ID"] = json.loads((tmp_path / "receipt.json").read_text())["operation_id"]
    assert [new.mail.queue_name(queue_id) for queue_id in ids] == ["hold", "deferred"]
    assert [copy_of(old.service, queue_id)["state"] for queue_id in ids] == ["exported"] * 2
    pipe = f"curl -sSf {credential} $OLD/v1/trash/export | curl -sSf {credential} -H 'Content-Type: application/x-tar'"
    script = f"set -o pipefail; {pipe} -T - -X POST $NEW/v1/trash/import"
    done_ = subprocess.run(("bash", "-ec", script), env=environ, check=True, capture_output=True)
    assert json.loads(done_.stdout)["copies"] == []


# --- kill -9 ------------------------------------------------------------------------------------------------


@pytest.fixture
def agent(new: Side, starter: Starter) -> Iterator[Agents]:
    with agents(new.mail.box, starter) as made:
        yield made


def wanted(**members: object) -> dict[str, Any]:
    return {"actor": ACTOR, "reason": None, "again": False, **members}


@pytest.mark.parametrize("step", ["", *STEPS["import"]])
def test_an_agent_killed_while_it_imports_has_all_of_it_or_nothing_and_a_second_try_ends_it(
    old: Side, new: Side, agent: Agents, step: str
) -> None:
    ids = [old.mail.held() for _ in range(3)]
    tar = exported(old, *ids)
    directory = agent.state_directory / "trash"

    def parts() -> Iterator[bytes]:
        yield tar[: len(tar) // 2]
        if not step:
            agent.box.wait_until(lambda: directory.exists() and list(directory.iterdir()))
            agent.kill()
        yield tar[len(tar) // 2 :]

    agent.start(step)
    with pytest.raises(Error):
        agent.client.bring_in(wanted(), parts())
    agent.wait_for_end()
    assert list(directory.iterdir())
    agent.start()
    is_noted = step == "import noted"
    agent.box.wait_until(lambda: bool(list(directory.iterdir())) == is_noted)
    assert sorted(agent.trash()) == (sorted(ids) if is_noted else [])
    operation = agent.client.bring_in(wanted(), [tar])
    assert set(agent.outcomes(operation).values()) == {"no_change" if is_noted else "imported"}
    assert sorted(agent.trash()) == sorted(ids)
    for queue_id in ids:
        assert agent.outcomes(agent.restore(queue_id)) == {queue_id: "restored"}
    assert agent.trash() == []
    agent.check_what_is_left()
    deliver_all(new)
    assert recipients(new.mail) == [f"bert@{REFUSING}"] * 3


@pytest.mark.parametrize("step", ["kept", "acted", "settling"])
def test_an_agent_killed_while_it_takes_out_of_the_queue_ends_it_with_copies_that_wait(
    new: Side, agent: Agents, step: str
) -> None:
    ids = [new.mail.held(), new.mail.deferred()]
    agent.start(step, trash_retention_seconds="0")
    thread = agent.in_background("export", ids)
    agent.wait_for_end()
    thread.join()
    agent.start(trash_retention_seconds="0")
    operation = agent.wait_until_over()
    assert (operation.action, agent.outcomes(operation)) == ("export", dict.fromkeys(ids, "removed"))
    assert sorted(agent.trash()) == sorted(ids)
    assert new.files() == {}
    tar = b"".join(agent.client.export({"actor": ACTOR, "operation_id": None}))
    assert {name.partition(".")[0][10:] for name in members(tar)} - {""} == set(ids)


def test_an_agent_killed_while_it_exports_sends_a_tar_that_nobody_takes(old: Side, new: Side, agent: Agents) -> None:
    queue_id = large(new.mail)
    agent.start()
    operation = agent.operate("export", [queue_id])
    blocks = agent.client.export({"actor": ACTOR, "operation_id": operation.operation_id})
    tar = next(blocks)
    agent.kill()
    with contextlib.suppress(Error):
        for block in blocks:
            tar += block
    refused(bring_in(old, tar), 400, "invalid_argument")
    agent.start()
    assert agent.trash() == [queue_id]
    tar = b"".join(agent.client.export({"actor": ACTOR, "operation_id": None}))
    imported(bring_in(old, tar), imported=1)


def test_the_agent_does_not_believe_web(new: Side, agent: Agents, old: Side) -> None:
    """Its own limits hold, whoever asks; and a name that is none never becomes a path."""
    tar = exported(old, old.mail.held())
    agent.start(import_limit_bytes="2048")
    with pytest.raises(Error, match="IMPORT_LIMIT"):
        agent.client.bring_in(wanted(), [tar])
    for line in ({}, wanted(more=1), wanted(actor="alice")):
        with pytest.raises(InvalidArgument):
            agent.client.bring_in(line, [tar])
    with pytest.raises(InvalidArgument):
        agent.operate("import", ["4zzzzzzzzzzzzzz9"])
    assert list((agent.state_directory / "trash").iterdir()) == []
