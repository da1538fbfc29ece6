"""What the agent does at its start when something is not as it should be, and which listing is new enough."""

import sqlite3
import threading
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from postqueue_api.agent import workplace
from postqueue_api.agent.workplace import Workplace
from postqueue_api.errors import CommandTimeout, StorageFull
from postqueue_api.queue.snapshot import Snapshot, SnapshotInfo
from postqueue_api.queue.snapshot_writer import SnapshotWriter
from postqueue_api.web import context


class Enough(BaseException):
    """Ends what else goes on for ever."""


class Stubs:
    """Stands for all that the start uses; what it looks at fails once, and so does the first purge."""

    queue_directory = Path("/nonexistent")
    resume_operations = True
    trash_retention_seconds = 0

    def __init__(self, failure: Exception) -> None:
        self.failure = failure
        self.recovered = self.purged = 0
        self.started = threading.Event()
        self.instance = self.settings = self.executor = self.trash = self._restorer = self

    def recover(self, _queue_directory: Path) -> None:
        self.recovered += 1
        if self.recovered == 1:
            raise self.failure

    def start(self, *, resume: bool) -> None:
        assert resume
        self.started.set()

    def purge(self) -> None:
        self.purged += 1
        if self.purged > 1:
            raise Enough
        raise self.failure

    def _remove_marks(self, _queue_directory: Path) -> None:
        pass


@pytest.mark.parametrize(
    "failure", [OSError(5, "I/O"), StorageFull("full"), sqlite3.OperationalError("disk I/O error")]
)
def test_operations_begin_as_soon_as_what_failed_at_the_start_works(
    failure: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(workplace, "_RETRY_SECONDS", 0)
    stubs: Any = Stubs(failure)
    with pytest.raises(Enough):
        Workplace._open(stubs)
    assert stubs.started.is_set()
    assert (stubs.recovered, stubs.purged) == (2, 2)


def chosen_by_agent(directory: Path, info: SnapshotInfo, _: pytest.MonkeyPatch) -> Snapshot:
    settings = SimpleNamespace(listing_timeout_seconds=1, state_directory=directory)
    here: Any = SimpleNamespace(refresher=SimpleNamespace(ensure=lambda max_age, wait: info), settings=settings)
    return Workplace.new_snapshot(here)


def chosen_by_web(directory: Path, info: SnapshotInfo, monkeypatch: pytest.MonkeyPatch) -> Snapshot:
    settings = SimpleNamespace(listing_timeout_seconds=1, state_directory=directory)
    agent = SimpleNamespace(snapshot=lambda max_age, wait: info)
    monkeypatch.setattr(context, "context", lambda: SimpleNamespace(agent=agent, settings=settings))
    return context.new_snapshot()


@pytest.mark.parametrize("choose", [chosen_by_agent, chosen_by_web])
def test_nothing_is_chosen_from_a_listing_that_began_before_it_was_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, choose: Any
) -> None:
    (tmp_path / "snapshots").mkdir()
    with SnapshotWriter(tmp_path / "snapshots") as writer:
        info = writer.publish(mail_system="running")
    monkeypatch.setattr(time, "time", lambda: info.taken_at)
    assert choose(tmp_path, info, monkeypatch).info == info
    monkeypatch.setattr(time, "time", lambda: info.taken_at + 0.01)
    with pytest.raises(CommandTimeout):
        choose(tmp_path, info, monkeypatch)
