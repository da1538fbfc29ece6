"""Writing a listing down, publishing it, reading it, and throwing it away."""

import json
import resource
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from postqueue_api.errors import Gone
from postqueue_api.queue import snapshot
from postqueue_api.queue.snapshot import QueueCount, Snapshot, SnapshotInfo
from postqueue_api.queue.snapshot_writer import SnapshotWriter


def row(queue_id: str, **changed: object) -> bytes:
    members = {
        "queue_name": "deferred",
        "queue_id": queue_id,
        "arrival_time": 1000,
        "message_size": 10,
        "sender": "a@example.com",
        "recipients": [{"address": "b@example.org", "delay_reason": "refused"}],
    }
    return json.dumps({**members, **changed}).encode()


def publish(directory: Path, *rows: bytes, problem: str | None = None) -> SnapshotInfo:
    with SnapshotWriter(directory) as writer:
        writer.add(rows)
        return writer.publish(mail_system=None if problem else "running", problem=problem)


def newest(directory: Path) -> Snapshot:
    found = snapshot.current(directory)
    assert found is not None
    return found


def files(directory: Path) -> set[str]:
    return {path.name for path in directory.iterdir()}


@contextmanager
def full_disk(room: int) -> Iterator[None]:
    """No file may grow beyond `room` bytes, as on a disk that is full."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_directory_without_a_snapshot_has_no_current_one(tmp_path: Path) -> None:
    assert snapshot.current(tmp_path) is None


def test_a_published_snapshot_is_the_current_one_and_says_what_it_is(tmp_path: Path) -> None:
    info = publish(tmp_path, row("AAAAAA"), b"garbage", row("BBBBBB"))
    assert newest(tmp_path).info == info
    assert (info.complete, info.skipped_lines, info.mail_system, info.messages) == (True, 1, "running", 2)
    assert info.problem is None
    assert 0 <= info.age < 60
    assert snapshot.as_json(info)["age"] >= 0


def test_an_empty_queue_is_a_complete_snapshot(tmp_path: Path) -> None:
    info = publish(tmp_path)
    assert (info.complete, info.messages) == (True, 0)
    assert {each.messages for each in newest(tmp_path).queues()} == {0}


def test_a_listing_that_broke_off_is_marked_with_the_reason(tmp_path: Path) -> None:
    info = publish(tmp_path, row("AAAAAA"), problem="command_failed")
    assert (info.complete, info.problem, info.mail_system, info.messages) == (False, "command_failed", None, 1)


def test_a_message_that_is_listed_twice_counts_once_and_its_last_line_is_the_truth(tmp_path: Path) -> None:
    twice = [{"address": "b@example.org"}, {"address": "c@example.org"}]
    info = publish(
        tmp_path, row("AAAAAA", queue_name="active"), row("BBBBBB"), row("AAAAAA", queue_name="hold", recipients=twice)
    )
    found = newest(tmp_path)
    assert info.messages == 2
    assert json.loads(found.document("AAAAAA") or b"")["queue_name"] == "hold"
    assert {each.queue_name: (each.messages, each.recipients) for each in found.queues() if each.messages} == {
        "deferred": (1, 1),
        "hold": (1, 2),
    }


def test_a_listing_with_hundreds_of_doubles_becomes_a_sound_file(tmp_path: Path) -> None:
    rows = [row(f"A{number:06}") for number in range(5000)]
    info = publish(tmp_path, *rows, *rows[:362], *rows[:10])
    assert info.messages == 5000
    with closing(sqlite3.connect(tmp_path / f"{info.snapshot_id}.sqlite")) as database:
        assert database.execute("PRAGMA integrity_check").fetchall() == [("ok",)]


def test_recipients_of_one_domain_and_reason_take_one_row_and_each_is_counted(tmp_path: Path) -> None:
    many = [{"address": f"b{number % 50}@example.org", "delay_reason": "refused"} for number in range(80)]
    info = publish(tmp_path, row("AAAAAA", recipients=[*many, {"address": "c@example.net", "delay_reason": "refused"}]))
    with closing(sqlite3.connect(tmp_path / f"{info.snapshot_id}.sqlite")) as database:
        found = database.execute("SELECT name, recipients, firsts FROM destination JOIN domain ON domain.row = domain")
        assert found.fetchall() == [("example.org", 80, 3), ("example.net", 1, 1)]
        assert database.execute("SELECT count(*) FROM recipient").fetchone() == (51,)
    assert {each.recipients for each in newest(tmp_path).queues()} == {0, 81}


def test_queue_ids_differ_in_case(tmp_path: Path) -> None:
    publish(tmp_path, row("4jY9Jtz"), row("4JY9JTZ", queue_name="hold"))
    assert json.loads(newest(tmp_path).document("4JY9JTZ") or b"")["queue_name"] == "hold"


def test_every_queue_is_counted_with_explicit_zeros_in_the_order_of_the_mail(tmp_path: Path) -> None:
    publish(
        tmp_path,
        row("AAAAAA", queue_name="hold", message_size=5, arrival_time=300),
        row("BBBBBB", queue_name="hold", message_size=7, arrival_time=200, recipients=[]),
        row("CCCCCC", queue_name="novelty"),
    )
    assert newest(tmp_path).queues() == [
        QueueCount("maildrop", 0, 0, 0, None),
        QueueCount("incoming", 0, 0, 0, None),
        QueueCount("active", 0, 0, 0, None),
        QueueCount("deferred", 0, 0, 0, None),
        QueueCount("hold", 2, 12, 1, 200),
        QueueCount("novelty", 1, 10, 1, 1000),
    ]


def test_a_document_is_what_was_listed_and_none_for_an_unknown_id(tmp_path: Path) -> None:
    listed = row("AAAAAA", novelty=[1])
    publish(tmp_path, listed)
    assert newest(tmp_path).document("AAAAAA") == listed[:-1] + b', "next_attempt_time": null}'
    assert newest(tmp_path).document("BBBBBB") is None


def test_a_writer_that_is_left_before_it_published_leaves_nothing(tmp_path: Path) -> None:
    publish(tmp_path, row("AAAAAA"))
    before = files(tmp_path)
    with SnapshotWriter(tmp_path) as writer:
        writer.add([row("BBBBBB")])
        assert newest(tmp_path).document("BBBBBB") is None
    assert files(tmp_path) == before


def test_a_published_snapshot_is_for_its_group_and_for_nobody_else(tmp_path: Path) -> None:
    info = publish(tmp_path, row("AAAAAA"))
    assert (tmp_path / f"{info.snapshot_id}.sqlite").stat().st_mode & 0o777 == 0o640


def test_a_sweep_keeps_the_newest_and_removes_what_a_killed_writer_left(tmp_path: Path) -> None:
    infos = [publish(tmp_path, row("AAAAAA")) for _ in range(4)]
    (tmp_path / ".dead.partial").touch()
    (tmp_path / ".dead.partial-journal").touch()
    (tmp_path / ".dead.link").symlink_to("nowhere")
    snapshot.sweep(tmp_path, keep={info.snapshot_id for info in infos[2:]})
    assert files(tmp_path) == {"current", *(f"{info.snapshot_id}.sqlite" for info in infos[2:])}
    assert newest(tmp_path).info == infos[3]


def test_a_swept_snapshot_is_gone_and_no_current_one_is_left(tmp_path: Path) -> None:
    publish(tmp_path, row("AAAAAA"))
    held = newest(tmp_path)
    snapshot.sweep(tmp_path, keep=())
    assert snapshot.current(tmp_path) is None
    with pytest.raises(Gone):
        held.queues()


@pytest.mark.parametrize("room", [0, 30_000, 100_000])
def test_a_full_disk_leaves_the_last_snapshot_and_nothing_that_a_sweep_would_not_remove(
    tmp_path: Path, room: int
) -> None:
    publish(tmp_path, row("AAAAAA"))
    before = files(tmp_path)
    with full_disk(room), pytest.raises(sqlite3.OperationalError):
        publish(tmp_path, *(row(f"B{number:06}") for number in range(20_000)))
    snapshot.sweep(tmp_path, keep={newest(tmp_path).info.snapshot_id})
    assert files(tmp_path) == before
    assert newest(tmp_path).document("AAAAAA") is not None
