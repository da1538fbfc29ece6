"""A drain of directories that stand for a queue, with commands that do what the real ones cannot be made to do."""

import json
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from postqueue_api.agent.drain import Asker, Drain, DrainState
from postqueue_api.errors import Conflict, MailSystemDown
from postqueue_api.postfix.process import Postfix
from postqueue_api.queue.snapshot import Snapshot
from tests.fake_commands import CANNOT_FLUSH, FakeCommands, commands

__all__ = ["commands"]

QUEUE_ID = "4jY9mn3nLLz2FfH9"
ASKER = Asker("anna", reason="ticket 12")


def no_listing() -> Snapshot:
    raise MailSystemDown("Postfix is not running.")


@pytest.fixture
def queue_directory(tmp_path: Path) -> Path:
    for name in ("maildrop", "incoming", "active", "deferred", "hold"):
        (tmp_path / "spool" / name).mkdir(parents=True)
    (tmp_path / "spool" / "deferred" / QUEUE_ID).touch()
    return tmp_path / "spool"


@pytest.fixture
def make(commands: FakeCommands, queue_directory: Path) -> Callable[..., Drain]:
    commands.write("postqueue")

    def made(find_postfix: Callable[[], Postfix] = lambda: commands.postfix) -> Drain:
        return Drain(find_postfix, lambda: queue_directory, no_listing)

    return made


def ended(drain: Drain, seconds: float = 15) -> DrainState:
    limit = time.monotonic() + seconds
    while (state := drain.state()).state == "draining":
        assert time.monotonic() < limit
        time.sleep(0.02)
    return state


def test_the_end_is_told_in_one_line(
    make: Callable[..., Drain], queue_directory: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (queue_directory / "hold" / "4jY9mn3nLLz2FfH0").touch()
    drain = make()
    assert drain.begin(60, ASKER).state == "draining"
    (queue_directory / "deferred" / QUEUE_ID).unlink()
    state = ended(drain)
    assert (state.state, state.left, state.held, state.reasons) == ("drained", 0, 1, [])
    (line,) = [json.loads(line) for line in capfd.readouterr().out.splitlines()]
    assert (line["event"], line["outcome"], line["actor"], line["reason"]) == ("drain", "drained", "anna", "ticket 12")
    assert (line["left"], line["left_deferred"], line["held"], line["problem"]) == (0, 0, 1, None)


def test_a_flush_that_hangs_does_not_keep_the_drain_beyond_its_time(
    make: Callable[..., Drain], commands: FakeCommands
) -> None:
    commands.write("postqueue", "sleep 60")
    begun = time.monotonic()
    drain = make()
    drain.begin(2, ASKER)
    state = ended(drain)
    assert time.monotonic() - begun < 4.5
    assert (state.state, state.left) == ("left", 1)
    assert state.problem is not None
    assert state.problem.code == "command_timeout"
    assert state.reasons is None  # not known is not none


def test_mail_that_moves_while_it_is_looked_at_is_not_taken_for_gone(
    make: Callable[..., Drain], queue_directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = queue_directory / "deferred" / QUEUE_ID
    drain = make()
    looked = drain._looked
    looks: list[int | None] = []

    def once_unseen(state: DrainState) -> DrainState:
        found = looked(state)
        if len(looks) == 1:
            path.rename(queue_directory / "active" / QUEUE_ID)
            found = DrainState(state.state, left=0, queues={}, held=0)
        looks.append(found.left)
        return found

    monkeypatch.setattr(drain, "_looked", once_unseen)
    drain.begin(3, ASKER)
    state = ended(drain)
    assert looks[:2] == [1, 0]
    assert (state.state, state.left) == ("left", 1)


def test_one_at_a_time_but_a_signal_takes_over_and_shortens(make: Callable[..., Drain]) -> None:
    drain = make()
    drain.begin(600, ASKER)
    with pytest.raises(Conflict):
        drain.begin(5, ASKER)
    begun = time.monotonic()
    drain.begin(0, Asker("SIGTERM"), take_over=True)
    assert ended(drain).state == "left"
    assert time.monotonic() - begun < 4
    drain.begin(0, ASKER)
    assert ended(drain).state == "left"


def test_a_postfix_that_is_down_ends_the_drain_early(make: Callable[..., Drain], commands: FakeCommands) -> None:
    commands.says("postqueue", CANNOT_FLUSH)
    drain = make()
    drain.begin(600, ASKER)
    state = ended(drain)
    assert state.problem is not None
    assert (state.state, state.left, state.problem.code) == ("left", 1, "mail_system_down")


def test_a_queue_that_cannot_be_seen_is_unknown_and_not_empty(
    make: Callable[..., Drain], queue_directory: Path
) -> None:
    (queue_directory / "incoming").rmdir()
    drain = make()
    drain.begin(1, ASKER)
    state = ended(drain)
    assert (state.state, state.left, state.queues, state.held, state.gone) == ("left", None, None, None, None)
    assert state.problem is not None
    assert "No such file" in state.problem.detail


def test_however_many_ask_the_queue_is_looked_at_at_a_pace(
    make: Callable[..., Drain], monkeypatch: pytest.MonkeyPatch
) -> None:
    drain = make()
    looked = drain._looked
    looks: list[DrainState] = []

    def counted(state: DrainState) -> DrainState:
        looks.append(state)
        return looked(state)

    monkeypatch.setattr(drain, "_looked", counted)
    assert {drain.state().left for _ in range(100)} == {1}
    assert len(looks) <= 2
