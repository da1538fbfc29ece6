"""Read the journal: web's side, also while the agent writes, and when no agent runs."""

import json
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path

from postqueue_api.errors import AgentUnavailable
from postqueue_api.queue.journal import schema
from postqueue_api.queue.operation import Item, Operation, item_of, operation_by_id, operations_where


class JournalReader:
    """Web's side: reads what the agent wrote, also while it writes."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def operation(self, operation_id: str) -> Operation:
        """One operation as it stands. Raises NoSuchOperation."""
        with self.open() as database:
            return operation_by_id(database, operation_id)

    def operations(self, limit: int, before: int | None = None) -> list[Operation]:
        """The newest operations, newest first; `before`: only those with a smaller number."""
        with self.open() as database:
            return operations_where(
                database, "(:before IS NULL OR number < :before) ORDER BY number DESC LIMIT :limit",
                {"before": before, "limit": limit},
            )  # fmt: skip

    def unfinished(self) -> list[Operation]:
        """Operations that are queued or running, in their order."""
        with self.open() as database:
            return operations_where(database, "state IN ('queued', 'running') ORDER BY number")

    def totals(self) -> list[tuple[str, str, int]]:
        """How many messages all operations so far have settled: (action, outcome, messages)."""
        with self.open() as database:
            rows = database.execute(
                "SELECT action, outcome, sum(messages) FROM outcome JOIN operation ON number = operation GROUP BY 1, 2"
            )
            return [tuple(row) for row in rows]

    def states(self) -> dict[str, int]:
        """How many operations are in each state; a state that none is in is left out."""
        with self.open() as database:
            rows = database.execute("SELECT state, count(*) FROM operation GROUP BY state")
            return dict(rows.fetchall())

    def results(
        self, operation_id: str, limit: int, after: int = 0, outcomes: Sequence[str] | None = None
    ) -> list[Item]:
        """What became of each message, in order; `after`: only behind that position; `outcomes`: only with one of
        these. Raises NoSuchOperation."""
        with self.open() as database:
            number = operation_by_id(database, operation_id).number
            rows = database.execute(
                "SELECT * FROM item WHERE operation = :operation AND position > :after"
                " AND (:outcomes IS NULL OR outcome IN (SELECT value FROM json_each(:outcomes)))"
                " ORDER BY position LIMIT :limit",
                {
                    "operation": number,
                    "after": after,
                    "outcomes": None if outcomes is None else json.dumps(outcomes),
                    "limit": limit,
                },
            )
            return [item_of(row) for row in rows]

    @contextmanager
    def open(self) -> Iterator[sqlite3.Connection]:
        """The journal, to read from; an empty one when there is none yet. Raises AgentUnavailable."""
        with closing(self._connect()) as database:
            database.row_factory = sqlite3.Row
            yield database

    def _connect(self) -> sqlite3.Connection:
        if not self._path.exists():
            database = sqlite3.connect(":memory:")
            database.executescript(schema())
            return database
        try:
            return _opened(f"file:{self._path}?mode=ro")
        except sqlite3.OperationalError:
            # No agent has the log open, and this process may not make one. Without a log nothing is missed.
            if self._path.with_name(self._path.name + "-wal").exists():
                raise AgentUnavailable("The journal cannot be read until the agent runs again.") from None
            return _opened(f"file:{self._path}?mode=ro&immutable=1")


def _opened(uri: str) -> sqlite3.Connection:
    database = sqlite3.connect(uri, uri=True)
    try:
        database.execute("SELECT count(*) FROM sqlite_schema").fetchone()
    except sqlite3.OperationalError:
        database.close()
        raise
    return database
