"""Operations and outcomes on disk: what the writer promises and what a reader sees, whatever happened to the writer."""

import os
import resource
import signal
import sqlite3
import stat
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from postqueue_api.errors import Misconfigured, NoSuchOperation, StorageFull
from postqueue_api.queue.journal import VERSION, Journal
from postqueue_api.queue.journal_reader import JournalReader
from postqueue_api.queue.operation import OUTCOMES, Item, Operation, Request, Settlement, Target

REQUEST = Request("hold", "alice", "operator", '{"queue_ids": ["AAAAAA"]}', "192.0.2.1", "request-1", "ticket 4711")
TARGETS = [Target("AAAAAA", 1000, "a@example.com"), Target("BBBBBB"), Target("CCCCCC", 1001, "MAILER-DAEMON")]
NOBODY = 65534


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "journal.sqlite"


@pytest.fixture
def journal(path: Path) -> Iterator[Journal]:
    opened = Journal(path)
    yield opened
    opened.close()


def states(path: Path) -> dict[str, str]:
    return {each.operation_id: each.state for each in JournalReader(path).operations(100)}


def write_one(path: Path) -> None:
    journal = Journal(path)
    operation = journal.begin("op-1", REQUEST, TARGETS[:1])
    journal.settle(operation.number, [Settlement(1, "held")])
    journal.finish(operation.number, "done")


def in_child(work: Callable[[], object]) -> int:
    """Do something in another process; its exit status (1 after an exception), negative for a signal."""
    pid = os.fork()
    if pid:
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    status = 1
    try:
        work()
        status = 0
    finally:
        os._exit(status)


@contextmanager
def full_disk(room: int) -> Iterator[None]:
    """No file may grow beyond `room` bytes, as on a disk that is full."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_an_operation_is_written_down_as_it_was_asked_for(journal: Journal, path: Path) -> None:
    operation = journal.begin("op-1", REQUEST, TARGETS)
    assert journal.operation("op-1") == operation == JournalReader(path).operation("op-1")
    assert (operation.action, operation.state, operation.actor, operation.role) == (
        "hold", "queued", "alice", "operator",
    )  # fmt: skip
    assert (operation.address, operation.request_id, operation.reason) == ("192.0.2.1", "request-1", "ticket 4711")
    assert (operation.selection, operation.requested, operation.outcomes) == (REQUEST.selection, 3, {})
    assert not operation.is_over
    assert journal.unsettled(operation.number, 10) == [
        Item(position, target, None, None, None, None, None) for position, target in enumerate(TARGETS, 1)
    ]


def test_intent_outcomes_and_end_are_on_disk_when_the_call_returns(journal: Journal, path: Path) -> None:
    number = journal.begin("op-1", REQUEST, TARGETS).number
    journal.start(number)
    assert states(path) == {"op-1": "running"}
    journal.intend(number, [(1, False, None), (3, True, "DDDDDD")])
    assert [each.was_held for each in JournalReader(path).results("op-1", 10)] == [False, None, True]
    journal.settle(number, [Settlement(1, "held"), Settlement(2, "not_found", "it is not there")])
    journal.finish(number, "interrupted", "mail_system_down: Postfix is not running")
    read = JournalReader(path)
    assert [(each.outcome, each.detail) for each in read.results("op-1", 10)] == [
        ("held", None),
        ("not_found", "it is not there"),
        (None, None),
    ]
    operation = read.operation("op-1")
    assert (operation.is_over, operation.failure) == (True, "mail_system_down: Postfix is not running")
    assert operation.outcomes == {"held": 1, "not_found": 1}


@pytest.mark.parametrize("second", OUTCOMES)
def test_an_outcome_that_stands_is_never_replaced(journal: Journal, second: str) -> None:
    number = journal.begin("op-1", REQUEST, TARGETS[:1]).number
    journal.settle(number, [Settlement(1, "removed", "first")])
    journal.settle(number, [Settlement(1, second, "second"), Settlement(1, second)])
    assert journal.operation("op-1").outcomes == {"removed": 1}


def test_of_two_outcomes_for_one_message_the_first_stands(journal: Journal) -> None:
    number = journal.begin("op-1", REQUEST, TARGETS).number
    journal.settle(number, [Settlement(1, "held"), Settlement(2, "failed"), Settlement(1, "failed")])
    assert journal.operation("op-1").outcomes == {"held": 1, "failed": 1}


def test_outcomes_are_counted_by_kind(journal: Journal) -> None:
    number = journal.begin("op-1", REQUEST, [Target(f"A{each:06}") for each in range(1000)]).number
    journal.settle(number, [Settlement(each, "held" if each % 4 else "failed") for each in range(1, 1001)])
    assert journal.operation("op-1").outcomes == {"held": 750, "failed": 250}
    assert journal.unsettled(number, 10) == []


def test_what_an_agent_before_left_is_found_in_its_order(path: Path) -> None:
    def leave() -> None:
        journal = Journal(path)
        for name in ("op-3", "op-1", "op-2"):
            journal.begin(name, REQUEST, TARGETS)
        journal.start(1)
        journal.finish(2, "done")
        os.kill(os.getpid(), signal.SIGKILL)

    assert in_child(leave) == -signal.SIGKILL
    journal = Journal(path)
    assert [(each.operation_id, each.state) for each in journal.unfinished()] == [
        ("op-3", "running"), ("op-2", "queued"),
    ]  # fmt: skip
    journal.close()


def test_operations_are_listed_newest_first_and_page_by_number(journal: Journal, path: Path) -> None:
    for number in range(1, 6):
        journal.begin(f"op-{number}", REQUEST, TARGETS)
    read = JournalReader(path)
    assert [each.number for each in read.operations(2)] == [5, 4]
    assert [each.number for each in read.operations(9, before=4)] == [3, 2, 1]
    assert [each.position for each in read.results("op-1", 2)] == [1, 2]
    assert [each.position for each in read.results("op-1", 2, after=2)] == [3]


def test_results_are_found_by_their_outcomes(journal: Journal, path: Path) -> None:
    number = journal.begin("op-1", REQUEST, TARGETS).number
    journal.settle(number, [Settlement(1, "removed"), Settlement(2, "failed", "no room")])
    read = JournalReader(path)
    assert [each.position for each in read.results("op-1", 9, outcomes=["failed", "skipped"])] == [2]
    assert [each.position for each in read.results("op-1", 9, outcomes=["removed", "failed"])] == [1, 2]
    assert read.results("op-1", 9, after=2, outcomes=["removed", "failed"]) == []


def test_an_unknown_operation_is_told_as_such(journal: Journal, path: Path) -> None:
    with pytest.raises(NoSuchOperation):
        journal.operation("op-1")
    for ask in (JournalReader(path).operation, lambda name: JournalReader(path).results(name, 1)):
        with pytest.raises(NoSuchOperation):
            ask("op-1")


def test_without_a_journal_no_operation_is_known_and_none_is_made(path: Path) -> None:
    with pytest.raises(NoSuchOperation):
        JournalReader(path).operation("op-1")
    assert not path.exists()


def test_one_identifier_is_given_once(journal: Journal) -> None:
    journal.begin("op-1", REQUEST, TARGETS)
    with pytest.raises(Exception, match="UNIQUE"):
        journal.begin("op-1", REQUEST, TARGETS)
    assert journal.begin("op-2", REQUEST, TARGETS).requested == 3


def test_a_text_with_any_characters_is_kept(journal: Journal, path: Path) -> None:
    reason = "Grüße\u2028'; DROP TABLE operation; --\U0001f4ee"
    journal.begin("op-1", Request("hold", reason, "operator", "{}", reason=reason), TARGETS)
    assert JournalReader(path).operation("op-1").reason == reason


def test_a_reader_sees_what_is_committed_while_the_writer_writes(journal: Journal, path: Path) -> None:
    number = journal.begin("op-1", REQUEST, TARGETS).number
    with journal.transaction() as database:
        database.execute("UPDATE operation SET state = 'done' WHERE number = ?", (number,))
        assert states(path) == {"op-1": "queued"}
    assert states(path) == {"op-1": "done"}


@pytest.fixture
def shared() -> Iterator[Path]:
    """A directory that its group may only read, as the agent makes it for web's user."""
    directory = Path(f"/var/tmp/postqueue-api-journal-{os.getpid()}")
    directory.mkdir(mode=0o750)
    os.chown(directory, 0, NOBODY)
    directory.chmod(0o2750)
    yield directory
    for path in directory.iterdir():
        path.unlink()
    directory.rmdir()


def as_nobody(work: Callable[[], object]) -> int:
    def drop_and_work() -> None:
        os.setgroups([])
        os.setgid(NOBODY)
        os.setuid(NOBODY)
        work()

    return in_child(drop_and_work)


def sees_it(path: Path) -> Callable[[], None]:
    def look() -> None:
        operation: Operation = JournalReader(path).operation("op-1")
        assert (operation.state, operation.outcomes) == ("done", {"held": 1})

    return look


def write_and_be_killed(path: Path) -> None:
    write_one(path)
    os.kill(os.getpid(), signal.SIGKILL)


def write_and_close(path: Path) -> None:
    write_one(path)
    Journal(path).close()


ENDS: list[tuple[Callable[[Path], None], int]] = [(write_and_be_killed, -signal.SIGKILL), (write_and_close, 0)]


def test_another_user_who_may_only_read_sees_it_while_the_writer_has_it_open(shared: Path) -> None:
    journal = Journal(shared / "journal.sqlite")
    number = journal.begin("op-1", REQUEST, TARGETS[:1]).number
    journal.settle(number, [Settlement(1, "held")])
    journal.finish(number, "done")
    assert as_nobody(sees_it(shared / "journal.sqlite")) == 0
    journal.close()


@pytest.mark.parametrize(("write", "status"), ENDS)
def test_another_user_who_may_only_read_sees_it_however_the_writer_ended(
    shared: Path, write: Callable[[Path], None], status: int
) -> None:
    path = shared / "journal.sqlite"
    assert in_child(lambda: write(path)) == status
    assert as_nobody(sees_it(path)) == 0
    sees_it(path)()


@pytest.mark.parametrize("umask", [0, 0o022, 0o077])
def test_the_journal_and_its_log_are_for_its_group_and_for_nobody_else_whatever_the_umask(
    path: Path, umask: int
) -> None:
    before = os.umask(umask)
    try:
        journal = Journal(path)
        journal.begin("op-1", REQUEST, TARGETS)
    finally:
        os.umask(before)
    modes = {each.name: stat.S_IMODE(each.stat().st_mode) for each in path.parent.iterdir()}
    assert modes == {f"journal.sqlite{suffix}": 0o640 for suffix in ("", "-shm", "-wal")}
    journal.close()


@pytest.mark.parametrize("room", [0, 1000, 60_000, 200_000])
def test_on_a_full_disk_nothing_is_begun_and_the_journal_goes_on_when_there_is_room(path: Path, room: int) -> None:
    journal = Journal(path)
    journal.begin("op-1", REQUEST, TARGETS)
    many = [Target(f"A{number:06}") for number in range(20_000)]
    for _ in range(2):
        with full_disk(room), pytest.raises(StorageFull):
            journal.begin("op-2", REQUEST, many)
    assert states(path) == {"op-1": "queued"}
    journal.begin("op-3", REQUEST, TARGETS)
    assert states(path) == {"op-1": "queued", "op-3": "queued"}
    journal.close()


def test_a_journal_that_sqlite_itself_calls_full_goes_on_when_there_is_room(journal: Journal, path: Path) -> None:
    journal.begin("op-1", REQUEST, TARGETS)
    (pages,) = journal._database.execute("PRAGMA page_count").fetchone()
    journal._database.execute(f"PRAGMA max_page_count = {pages}")
    with pytest.raises(StorageFull):
        journal.begin("op-2", REQUEST, [Target(f"A{number:06}") for number in range(20_000)])
    journal._database.execute("PRAGMA max_page_count = 1000000")
    journal.begin("op-3", REQUEST, TARGETS)
    assert states(path) == {"op-1": "queued", "op-3": "queued"}


def test_a_journal_that_cannot_be_made_for_lack_of_room_says_so(path: Path) -> None:
    with full_disk(0), pytest.raises(StorageFull):
        Journal(path)


def user_version(path: Path, new: int | None = None) -> int:
    with closing(sqlite3.connect(path)) as database:
        if new is not None:
            database.execute(f"PRAGMA user_version = {new}")
        (found,) = database.execute("PRAGMA user_version").fetchone()
        return int(found)


def test_a_journal_of_before_there_were_versions_is_taken_over_with_all_in_it(path: Path) -> None:
    write_one(path)
    user_version(path, 0)
    Journal(path).close()
    assert user_version(path) == VERSION
    assert states(path) == {"op-1": "done"}


def test_a_journal_of_the_first_version_is_taken_over_and_takes_what_is_new(path: Path) -> None:
    write_one(path)
    with closing(sqlite3.connect(path)) as database:
        database.execute("ALTER TABLE item DROP COLUMN new_queue_id")
    user_version(path, 1)
    journal = Journal(path)
    number = journal.begin("op-2", REQUEST, TARGETS).number
    journal.intend(number, [(1, False, "DDDDDD")])
    assert journal.unsettled(number, 1)[0].new_queue_id == "DDDDDD"
    journal.settle(number, [Settlement(1, "held", "named anew", "DDDDDD"), Settlement(2, "held")])
    journal.close()
    assert [each.new_queue_id for each in JournalReader(path).results("op-1", 10)] == [None]
    assert [each.new_queue_id for each in JournalReader(path).results("op-2", 10)] == ["DDDDDD", None, None]
    assert user_version(path) == VERSION


def test_a_journal_of_a_newer_version_is_left_alone(path: Path) -> None:
    write_one(path)
    user_version(path, VERSION + 1)
    with pytest.raises(Misconfigured, match=f"of version {VERSION + 1}"):
        Journal(path)
    assert user_version(path) == VERSION + 1


def test_a_file_that_is_no_journal_is_left_alone(path: Path) -> None:
    path.write_bytes(b"not a database" * 1000)
    with pytest.raises(Misconfigured, match="not a database"):
        Journal(path)
    assert path.read_bytes() == b"not a database" * 1000
