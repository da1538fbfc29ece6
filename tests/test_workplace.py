"""What the agent does at its start, when something is not as it should be."""

import sqlite3
import threading
from pathlib import Path
from typing import Any

import pytest

from postqueue_api.agent import workplace
from postqueue_api.agent.workplace import Workplace
from postqueue_api.errors import StorageFull


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
