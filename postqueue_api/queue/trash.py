"""The book of the trash: which deleted messages are kept, where, and what became of the copies."""

import sqlite3
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from postqueue_api.errors import NoSuchMessage
from postqueue_api.queue.journal import Journal
from postqueue_api.queue.journal_reader import JournalReader
from postqueue_api.queue.operation import TOUCHED

TrashState = Literal["written", "kept", "restoring", "restored", "purged", "void"]
_INSERT = (
    "INSERT INTO trash (queue_id, operation_id, state, file, offset, length, digest, queue_name, arrival_time,"
    " sender, recipients, forced_expire, kept_at, expires_at) VALUES (:queue_id, :operation_id, :state, :file,"
    " :offset, :length, :digest, :queue_name, :arrival_time, :sender, :recipients, :forced_expire, :kept_at,"
    " :expires_at)"
)


@dataclass(frozen=True)
class Copy:
    """A copy of a message. `queue_name` is where it was; `recipients` counts those still due; times are seconds
    since the epoch; `restored_as` is the queue ID under which it came back. What waits to be moved expires never (inf);
    `origin`: the Postfix that an import brought it from; `exported_at`: somebody else has taken it over."""

    number: int
    queue_id: str
    operation_id: str
    state: TrashState
    file: str
    offset: int
    length: int
    digest: bytes
    queue_name: str
    arrival_time: int | None
    sender: str | None
    recipients: int
    forced_expire: bool
    kept_at: float
    expires_at: float
    restored_as: str | None = None
    origin: str | None = None
    exported_at: float | None = None


class TrashBook:
    """The agent's side of the book, in the journal's file."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal

    def add(self, copies: Sequence[Copy]) -> None:
        """Note copies that are on disk. An earlier copy by the same operation is void: it was of the same message.

        They are `written` until the journal has the outcomes of their messages (journal.Journal.settle).
        """
        with self._journal.transaction() as database:
            database.executemany(
                "UPDATE trash SET state = 'void' WHERE state = 'written' AND queue_id = ? AND +operation_id = ?",
                ((copy.queue_id, copy.operation_id) for copy in copies),
            )
            database.executemany(_INSERT, (vars(copy) for copy in copies))

    def claim(self, number: int, item: tuple[int, int], queue_id: str, *, although_exported: bool = False) -> bool:
        """Move a copy from kept to restoring, as that queue ID and for that message, by operation and position; False
        when it was not kept any more, or when somebody else has taken it over, unless that does not matter."""
        with self._journal.transaction() as database:
            moved = database.execute(
                "UPDATE trash SET state = 'restoring', restored_as = ? WHERE number = ? AND state = 'kept'"
                " AND (? OR NOT EXISTS (SELECT 1 FROM exported WHERE copy = number))",
                (queue_id, number, although_exported),
            ).rowcount
            if moved:
                database.execute(
                    f"UPDATE item SET stage = {TOUCHED}, was_held = 0 WHERE operation = ? AND position = ?",  # noqa: S608
                    item,
                )
        return moved == 1

    def change(self, number: int, before: TrashState, after: TrashState, restored_as: str | None = None) -> bool:
        """Move a copy from one state to another; False when it was not in that state, and then nothing changed."""
        with self._journal.transaction() as database:
            moved = database.execute(
                "UPDATE trash SET state = ?, restored_as = ? WHERE number = ? AND state = ?",
                (after, restored_as, number, before),
            ).rowcount
        return moved == 1

    def in_state(self, state: TrashState) -> list[Copy]:
        """All copies in a state, oldest first."""
        with self._journal.transaction() as database:
            return copies_where(database, "state = :state ORDER BY number", {"state": state})

    def of_operation(self, operation_id: str) -> list[Copy]:
        """What is kept of a delete and can come back."""
        with self._journal.transaction() as database:
            condition = "operation_id = :operation_id AND state = 'kept' ORDER BY number"
            return copies_where(database, condition, {"operation_id": operation_id})

    def newest(self, queue_id: str, operation_id: str | None = None) -> Copy:
        """The newest copy of a message, or the newest that one operation made. Raises NoSuchMessage."""
        with self._journal.transaction() as database:
            return _newest(database, queue_id, operation_id)

    def expired(self, now: float) -> list[Copy]:
        """What is kept beyond its time."""
        with self._journal.transaction() as database:
            return copies_where(database, "state = 'kept' AND expires_at <= :now ORDER BY number", {"now": now})

    def oldest_files(self) -> list[tuple[str, int, int]]:
        """The files that hold kept copies, oldest first: (file, bytes, messages)."""
        with self._journal.transaction() as database:
            rows = database.execute(
                "SELECT file, sum(length) AS bytes, count(*) AS messages FROM trash"
                " WHERE state IN ('written', 'kept', 'restoring') GROUP BY file ORDER BY min(number)"
            )
            return [tuple(row) for row in rows]

    def waiting_files(self) -> set[str]:
        """The files that hold copies which wait to be moved: not to be given up for others."""
        with self._journal.transaction() as database:
            rows = database.execute(
                "SELECT DISTINCT file FROM trash WHERE state IN ('written', 'kept', 'restoring') AND expires_at = 9e999"
            )
            return {file for (file,) in rows}

    def of_file(self, file: str) -> list[Copy]:
        """The kept copies that one file holds."""
        with self._journal.transaction() as database:
            return copies_where(database, "file = :file AND state = 'kept' ORDER BY number", {"file": file})


class TrashReader:
    """Web's side of the book."""

    def __init__(self, reader: JournalReader) -> None:
        self._reader = reader

    def page(self, limit: int, before: int | None) -> list[Copy]:
        """What is kept and can come back, newest first; `before`: only those with a smaller number."""
        with self._reader.open() as database:
            return copies_where(
                database,
                "state = 'kept' AND expires_at > :now AND (:before IS NULL OR number < :before)"
                " ORDER BY number DESC LIMIT :limit",
                {"now": time.time(), "before": before, "limit": limit},
            )

    def newest(self, queue_id: str) -> Copy:
        """The newest copy of a message. Raises NoSuchMessage."""
        with self._reader.open() as database:
            return _newest(database, queue_id)

    def totals(self) -> tuple[int, int]:
        """How much is kept: (messages, bytes)."""
        with self._reader.open() as database:
            row = database.execute("SELECT count(*), ifnull(sum(length), 0) FROM trash WHERE state = 'kept'").fetchone()
        return row[0], row[1]


def insert_copy(database: sqlite3.Connection, copy: Copy) -> int:
    """Note a copy that is on disk. Returns its number."""
    number = database.execute(_INSERT, vars(copy)).lastrowid
    assert number is not None
    return number


def copies_where(database: sqlite3.Connection, condition: str, parameters: dict[str, object]) -> list[Copy]:
    # The condition is our own words.
    select = "SELECT *, (SELECT origin FROM imported WHERE copy = number) AS origin,"
    select += " (SELECT exported_at FROM exported WHERE copy = number) AS exported_at FROM trash"
    rows = database.execute(f"{select} WHERE {condition}", parameters)
    return [Copy(**{**dict(row), "forced_expire": bool(row["forced_expire"])}) for row in rows]


def _newest(database: sqlite3.Connection, queue_id: str, operation_id: str | None = None) -> Copy:
    condition = (
        "queue_id = :queue_id AND state NOT IN ('written', 'void')"
        " AND (:operation_id IS NULL OR +operation_id = :operation_id) ORDER BY number DESC LIMIT 1"
    )
    found = copies_where(database, condition, {"queue_id": queue_id, "operation_id": operation_id})
    if not found:
        raise NoSuchMessage("The trash has no message of this queue ID.")
    return found[0]
