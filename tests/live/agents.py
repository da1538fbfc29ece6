"""Agents of one state directory, killed and started again, and what their journal and trash say."""

import contextlib
import os
import signal
import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from postqueue_api.agent.executor import CHUNK_MESSAGES
from postqueue_api.errors import CommandTimeout, Error
from postqueue_api.queue.journal_reader import JournalReader
from postqueue_api.queue.operation import Item, Operation
from postqueue_api.sandbox import Sandbox, processes
from postqueue_api.web.agent_client import AgentClient
from tests.live import service as services
from tests.live.agent_with_failpoint import Starter

ACTOR = {"name": "alice", "role": "admin"}


class Agents:
    """One agent at a time, on one state directory."""

    def __init__(self, box: Sandbox, starter: Starter, directory: Path) -> None:
        self.box = box
        self.directory = directory
        self.state_directory = directory / "state"
        self.said = directory / "said"
        self._starter = starter
        self._socket = directory / "run" / "agent.sock"
        self._pid = 0
        self.client = AgentClient(self._socket, 40)

    @property
    def journal(self) -> JournalReader:
        return JournalReader(self.state_directory / "journal.sqlite")

    def start(self, step: str = "", *, wait: bool = True, chunk: int = CHUNK_MESSAGES, **settings: str) -> int:
        """Start an agent that ends itself at a step; "": at none."""
        given = services.settings_of(self.directory, self.box.config_directory, 1)
        given |= {"lock_wait_seconds": "5", "command_timeout_seconds": "30", **settings}
        self._socket.unlink(missing_ok=True)  # a worker that is just being killed would still seem to listen
        self._pid = self._starter.start(services.environment(given), self.said, step, chunk)
        if wait:
            processes.wait_until(lambda: services.listens(self._socket) or not self.is_alive(), 20)
        return self._pid

    def is_alive(self) -> bool:
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            return services.status(self._pid)["State"][0] != "Z"
        return False

    def kill(self) -> None:
        """kill -9 of the agent, if one was started; what it started goes on."""
        if not self._pid:
            return
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._pid, signal.SIGKILL)
        self.wait_for_end()

    def stop(self) -> None:
        """SIGTERM, and wait for the end."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self._pid, signal.SIGTERM)
        self.wait_for_end()

    def wait_for_end(self, seconds: float = 20) -> None:
        processes.wait_until(lambda: not self.is_alive(), seconds)

    def operate(self, action: str, queue_ids: list[str], wait: float = 30, **members: Any) -> Operation:
        return self.client.operate({"action": action, "actor": ACTOR, "queue_ids": queue_ids, "wait": wait, **members})

    def restore(self, queue_id: str, wait: float = 30, **members: Any) -> Operation:
        return self.client.restore({"queue_id": queue_id, "actor": ACTOR, "wait": wait, **members})

    def in_background(self, action: str, queue_ids: list[str], **members: Any) -> threading.Thread:
        """Ask, and do not mind that nobody answers: the agent is to be killed."""

        def ask() -> None:
            with contextlib.suppress(Error, OSError):
                self.operate(action, queue_ids, **members)

        thread = threading.Thread(target=ask)
        thread.start()
        return thread

    def newest(self) -> Operation:
        return self.journal.operations(1)[0]

    def wait_until_over(self, seconds: float = 30) -> Operation:
        """Wait until nothing is unfinished. Returns the newest operation."""
        assert self.is_over(seconds), f"{self.journal.unfinished()}\n{self.said.read_text()}"
        return self.newest()

    def is_over(self, seconds: float) -> bool:
        """Whether nothing is unfinished, or will be within that time."""
        with contextlib.suppress(CommandTimeout):
            processes.wait_until(lambda: not self.journal.unfinished(), seconds)
        return not self.journal.unfinished()

    def items(self, operation: Operation) -> dict[str, Item]:
        """What became of each message; the sums say the same."""
        items = self.journal.results(operation.operation_id, 1_000_000)
        outcomes = [item.outcome for item in items]
        assert None not in outcomes
        assert {each: outcomes.count(each) for each in outcomes} == operation.outcomes
        assert operation.requested == len(items)
        return {item.target.queue_id: item for item in items}

    def outcomes(self, operation: Operation) -> dict[str, str | None]:
        return {queue_id: item.outcome for queue_id, item in self.items(operation).items()}

    def trash(self) -> list[str]:
        """The queue IDs of what the trash has to give back."""
        with closing(sqlite3.connect(self.state_directory / "journal.sqlite")) as database:
            rows = database.execute("SELECT queue_id FROM trash WHERE state = 'kept'").fetchall()
            (unsettled,) = database.execute(
                "SELECT count(*) FROM trash WHERE state IN ('written', 'restoring')"
            ).fetchone()
        assert unsettled == 0
        return [queue_id for (queue_id,) in rows]

    def check_what_is_left(self) -> None:
        """No file of ours in the queue or beside it."""
        assert [path.name for path in self.box.queue_directory.glob("hold/.*")] == []
        assert [path.name for path in self.box.queue_directory.glob(".postqueue-api/*")] == []


@contextmanager
def agents(box: Sandbox, starter: Starter) -> Iterator[Agents]:
    with services.place() as directory:
        made = Agents(box, starter, directory)
        try:
            yield made
        finally:
            made.kill()
            said = made.said.read_text() if made.said.exists() else ""
        assert "Traceback" not in said, said


def postsupers(box: Sandbox) -> list[int]:
    """The processes of postsuper that work for this sandbox now."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            words = (entry / "cmdline").read_bytes().split(b"\0")
            if words[0].endswith(b"/postsuper") and str(box.config_directory).encode() in words:
                found.append(int(entry.name))
    return found


def kill_a_postsuper(box: Sandbox, seconds: float) -> bool:
    """kill -9 of the first postsuper that is met; False when none was."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        for pid in postsupers(box):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
                return True
    return False
