"""One listing at a time, whoever asks, and what everybody gets when it fails or takes long."""

import json
import sqlite3
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from postqueue_api.agent.refresh import Refresher, Retention
from postqueue_api.errors import (
    CommandFailed,
    CommandTimeout,
    Error,
    MailSystemDown,
    NotInstalled,
    NotPermitted,
    StorageFull,
    UnexpectedOutput,
)
from postqueue_api.postfix import postqueue
from postqueue_api.postfix.process import Postfix
from postqueue_api.queue import snapshot
from postqueue_api.queue.snapshot import SnapshotInfo
from postqueue_api.queue.snapshot_writer import SnapshotWriter
from tests.fake_commands import BROKE_OFF, DOWN, NOT_ALLOWED, FakeCommands, commands

__all__ = ["commands"]

READERS = 20


def rows(count: int) -> str:
    row = {
        "queue_name": "deferred",
        "arrival_time": 1000,
        "message_size": 10,
        "sender": "a@example.com",
        "recipients": [{"address": "b@example.org"}],
    }
    return "".join(json.dumps({**row, "queue_id": f"A{number:06}"}) + "\n" for number in range(count))


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    made = tmp_path / "snapshots"
    made.mkdir()
    return made


@pytest.fixture
def refresher(commands: FakeCommands, directory: Path) -> Refresher:
    return Refresher(lambda: commands.postfix, directory)


def all_at_once(ask: Callable[[], object]) -> list[object]:
    """What each of many readers gets who ask at the same moment: a value or an error."""
    barrier = threading.Barrier(READERS)

    def one(_: int) -> object:
        barrier.wait()
        try:
            return ask()
        except Error as error:
            return error

    with ThreadPoolExecutor(READERS) as pool:
        return list(pool.map(one, range(READERS)))


def lists(commands: FakeCommands, count: int, script: str = "") -> None:
    """A postqueue that lists so many messages, after a few lines of shell."""
    (commands.directory / "rows").write_text(rows(count))
    commands.write("postqueue", f"{script}\ncat $here/rows")


def test_many_readers_at_once_cost_one_listing_and_get_the_same(commands: FakeCommands, refresher: Refresher) -> None:
    lists(commands, 3, "sleep 0.5")
    got = all_at_once(lambda: refresher.ensure(0.5, 10))
    assert {getattr(each, "snapshot_id", each) for each in got} == {getattr(got[0], "snapshot_id", None)}
    assert commands.starts("postqueue") == [("-j",)]


def test_a_listing_that_is_young_enough_is_not_made_again(commands: FakeCommands, refresher: Refresher) -> None:
    lists(commands, 3)
    first = refresher.ensure(1, 10)
    assert refresher.ensure(60, 10) == first
    assert len(commands.starts("postqueue")) == 1
    time.sleep(0.05)
    assert refresher.ensure(0.02, 10) != first
    assert len(commands.starts("postqueue")) == 2


def test_readers_one_after_the_other_who_want_it_fresh_cost_one_listing_each(
    commands: FakeCommands, refresher: Refresher
) -> None:
    lists(commands, 1)
    for _ in range(20):
        refresher.ensure(0, 10)
    assert len(commands.starts("postqueue")) == 20


def test_a_reader_who_wants_fresher_data_than_the_running_listing_has_waits_for_the_next(
    commands: FakeCommands, refresher: Refresher
) -> None:
    lists(commands, 3, "sleep 0.4")
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(refresher.ensure, 0.1, 10)
        time.sleep(0.2)
        asked = time.time()
        second = pool.submit(refresher.ensure, 0.1, 10)
    assert first.result().taken_at < asked - 0.1 <= second.result().taken_at
    assert len(commands.starts("postqueue")) == 2


@pytest.mark.parametrize(
    ("complaint", "error"), [(DOWN, MailSystemDown), (NOT_ALLOWED, NotPermitted), (BROKE_OFF, CommandFailed)]
)
def test_a_failure_reaches_everybody_who_waits_and_the_next_reader_tries_again(
    commands: FakeCommands, refresher: Refresher, complaint: tuple[str, int], error: type[Error]
) -> None:
    commands.says("postqueue", complaint)
    assert {type(each) for each in all_at_once(lambda: refresher.ensure(0, 10))} == {error}
    lists(commands, 2)
    assert refresher.ensure(0, 10).messages == 2


def test_the_failure_of_many_readers_is_not_a_listing_each(commands: FakeCommands, refresher: Refresher) -> None:
    commands.write("postqueue", "sleep 0.5; exit 69")
    all_at_once(lambda: refresher.ensure(0.5, 10))
    assert len(commands.starts("postqueue")) == 1


def test_a_failure_is_kept_as_long_as_a_listing_would_be(commands: FakeCommands, refresher: Refresher) -> None:
    commands.says("postqueue", DOWN)
    for _ in range(5):
        with pytest.raises(MailSystemDown):
            refresher.ensure(60, 10)
    assert len(commands.starts("postqueue")) == 1


def test_postfix_that_comes_later_is_found(directory: Path, commands: FakeCommands) -> None:
    refresher = Refresher(lambda: commands.postfix, directory)
    with pytest.raises(NotInstalled):
        refresher.ensure(0, 10)
    lists(commands, 1)
    assert refresher.ensure(0, 10).messages == 1


def test_the_last_listing_is_served_when_the_next_takes_longer_than_the_reader_waits(
    commands: FakeCommands, refresher: Refresher
) -> None:
    lists(commands, 1)
    first = refresher.ensure(0, 10)
    lists(commands, 2, "sleep 1")
    before = time.monotonic()
    assert refresher.ensure(0, 0.2) == first
    assert refresher.ensure(0, 0) == first
    assert time.monotonic() - before < 0.9
    assert refresher.ensure(0, 10).messages == 2
    assert len(commands.starts("postqueue")) <= 4


def test_the_first_listing_is_waited_for_although_the_reader_waits_for_less(
    commands: FakeCommands, refresher: Refresher
) -> None:
    lists(commands, 1, "sleep 0.5")
    assert refresher.ensure(0, 0.1).messages == 1


def test_a_listing_that_does_not_end_gives_what_it_had_and_says_why_it_broke_off(
    commands: FakeCommands, directory: Path
) -> None:
    (commands.directory / "rows").write_text(rows(3))
    commands.write("postqueue", "cat $here/rows; exec sleep 60")
    refresher = Refresher(lambda: Postfix(commands.directory, None, 0.5), directory)
    info = refresher.ensure(0, 10)
    assert (info.complete, info.problem, info.mail_system, info.messages) == (False, "command_timeout", None, 3)


def test_a_listing_that_does_not_begin_is_a_timeout(commands: FakeCommands, directory: Path) -> None:
    commands.write("postqueue", "exec sleep 60")
    refresher = Refresher(lambda: Postfix(commands.directory, None, 0.3), directory)
    with pytest.raises(CommandTimeout):
        refresher.ensure(0, 10)


def test_a_listing_of_which_no_line_can_be_read_is_an_error_and_no_empty_queue(
    commands: FakeCommands, refresher: Refresher
) -> None:
    commands.write("postqueue", "echo garbage; echo more")
    with pytest.raises(UnexpectedOutput, match="not one line"):
        refresher.ensure(0, 10)


def test_half_a_listing_is_marked_and_garbage_is_counted(commands: FakeCommands, refresher: Refresher) -> None:
    commands.says("postqueue", BROKE_OFF, stdout=rows(3) + "garbage\n" + rows(1)[:20])
    info = refresher.ensure(0, 10)
    assert (info.complete, info.problem, info.messages, info.skipped_lines) == (False, "command_failed", 3, 2)


def test_a_listing_past_a_stopped_mail_system_is_complete_and_says_so(
    commands: FakeCommands, refresher: Refresher
) -> None:
    commands.says("postqueue", ("postqueue: warning: Mail system is down -- accessing queue directly", 0), rows(2))
    info = refresher.ensure(0, 10)
    assert (info.complete, info.mail_system, info.messages) == (True, "down", 2)


def test_a_fault_of_ours_ends_the_wait_of_everybody_and_the_next_reader_tries_again(
    commands: FakeCommands, directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[object] = []
    monkeypatch.setattr(threading, "excepthook", lambda arguments: seen.append(arguments.exc_type))

    def find() -> Postfix:
        if not seen:
            raise ZeroDivisionError
        return commands.postfix

    lists(commands, 1)
    refresher = Refresher(find, directory)
    got = {type(each) for each in all_at_once(lambda: refresher.ensure(0, 10))}
    assert got <= {Error, SnapshotInfo}
    assert seen == [ZeroDivisionError]


def test_what_an_agent_before_left_is_removed_and_only_few_are_kept(commands: FakeCommands, directory: Path) -> None:
    lists(commands, 1)
    before = Refresher(lambda: commands.postfix, directory)
    for _ in range(4):
        before.ensure(0, 10)
    assert len(list(directory.glob("*.sqlite"))) <= 3
    Refresher(lambda: commands.postfix, directory)
    assert snapshot.current(directory) is None


def test_of_listings_that_broke_off_each_names_the_last_complete_one_which_stays_to_be_read(
    commands: FakeCommands, refresher: Refresher, directory: Path
) -> None:
    lists(commands, 5)
    complete = refresher.ensure(0, 10)
    assert (complete.complete, complete.last_complete) == (True, None)
    for count in (3, 2, 1, 2):
        commands.says("postqueue", BROKE_OFF, stdout=rows(count))
        partial = refresher.ensure(0, 10)
        assert (partial.complete, partial.messages) == (False, count)
        assert partial.last_complete == complete.snapshot_id
        assert snapshot.by_id(directory, complete.snapshot_id).document("A000004") is not None
    lists(commands, 4)
    again = refresher.ensure(0, 10)
    assert (again.complete, again.last_complete, again.messages) == (True, None, 4)
    refresher.ensure(0, 10)
    assert not (directory / f"{complete.snapshot_id}.sqlite").exists()


def test_the_good_lines_of_a_strange_listing_are_served_and_the_bad_are_counted(
    commands: FakeCommands, refresher: Refresher, directory: Path
) -> None:
    good = rows(6).splitlines()
    members = json.loads(good[1]) | {"novelty": {"a": [1.5, None]}, "queue_name": "novelty"}
    members["recipients"][0] |= {"orig_address": "c@example.org", "bounce_reason": "x"}
    long = json.loads(good[2]) | {"recipients": 200_000 * [{"address": "somebody@recipients.example.org"}]}
    lines = [
        good[0],
        json.dumps(members),
        json.dumps(long),  # a line of ten megabytes
        "garbage",
        "",
        "[]",
        '{"queue_id": "A000009"}',
        good[3].replace("A000003", "../etc"),
        good[4].replace('"message_size": 10', '"message_size": "10"'),
        good[4].replace('"message_size": 10', f'"message_size": {2**63 - 1}'),
        good[4].replace('"arrival_time": 1000', f'"arrival_time": {2**63}'),
        good[4].replace('"arrival_time": 1000', '"arrival_time": -1'),
        "{" * 10_000,
        "\ufeff" + good[3],
        "x" * (20 << 20),
        good[5],
        good[4][:40],  # the last one, without a newline
    ]
    (commands.directory / "rows").write_text("\n".join(lines))
    commands.write("postqueue", "cat $here/rows; printf '\\377' ")
    info = refresher.ensure(0, 30)
    assert (info.complete, info.messages, info.skipped_lines) == (True, 4, 13)
    found = snapshot.by_id(directory, info.snapshot_id)
    assert json.loads(found.document("A000001") or b"") == {**members, "next_attempt_time": None}
    assert len(found.document("A000002") or b"") > 9_000_000
    assert found.document("A000005") is not None


def test_a_listing_for_which_the_disk_has_no_room_is_said_and_the_next_reader_tries_again(
    commands: FakeCommands, refresher: Refresher, monkeypatch: pytest.MonkeyPatch
) -> None:
    lists(commands, 1)
    first = refresher.ensure(0, 10)
    with monkeypatch.context() as patch:
        patch.setattr(SnapshotWriter, "publish", full)
        assert {type(each) for each in all_at_once(lambda: refresher.ensure(0, 10))} == {StorageFull}
    assert refresher.ensure(60, 10) == first
    assert refresher.ensure(0, 10) != first


def full(*_: object, **__: object) -> SnapshotInfo:
    raise sqlite3.OperationalError("database or disk is full")


def listed_and_kept(refresher: Refresher, count: int) -> list[str]:
    """So many listings, each paged through by somebody."""
    found = []
    for _ in range(count):
        found.append(refresher.ensure(0, 10).snapshot_id)
        refresher.keep(found[-1])
    return found


def left(directory: Path) -> set[str]:
    return {path.stem for path in directory.glob("*.sqlite")}


@pytest.mark.parametrize(
    ("retention", "kept"), [(Retention(limit=2), 2), (Retention(limit=4), 4), (Retention(bytes=300_000), 1)]
)
def test_of_listings_that_are_paged_through_the_latest_are_kept_as_many_as_may_be(
    commands: FakeCommands, directory: Path, retention: Retention, kept: int
) -> None:
    lists(commands, 1)
    refresher = Refresher(lambda: commands.postfix, directory, retention=retention)
    found = listed_and_kept(refresher, 6)
    newer = [refresher.ensure(0, 10).snapshot_id for _ in range(3)]
    assert left(directory) == {*found[len(found) - kept :], *newer[1:]}


def test_a_listing_that_comes_in_drops_is_read_in_gulps(
    commands: FakeCommands, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postqueue, "_PAUSE_SECONDS", 0.5)
    monkeypatch.setattr(postqueue, "_PAUSE_SHARE", 1)
    commands.write("postqueue", "i=0; while [ $i -lt 100 ]; do echo line; sleep 0.005; i=$((i + 1)); done")
    with postqueue.listing(commands.postfix) as queue:
        pieces = list(queue.chunks())
    assert b"".join(pieces) == b"line\n" * 100
    assert len(pieces) < 30


def test_a_listing_that_nobody_pages_through_any_more_is_not_kept_for_longer(
    commands: FakeCommands, directory: Path
) -> None:
    lists(commands, 1)
    refresher = Refresher(lambda: commands.postfix, directory, retention=Retention(seconds=0.6))
    once, twice = listed_and_kept(refresher, 2)
    time.sleep(0.4)
    refresher.keep(twice)
    time.sleep(0.3)
    newer = [refresher.ensure(0, 10).snapshot_id for _ in range(3)]
    assert left(directory) == {twice, *newer[1:]}
    assert once not in left(directory)
