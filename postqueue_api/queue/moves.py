"""The book of what moves from one Postfix to another: what was brought in, and what somebody else has taken over.

Each message once: what an import brought before is not brought again, and what somebody else confirmed to have is
not given back here. Both stand in the journal's file, beside the copies that they are about (trash.py).
"""

import sqlite3
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import astuple, dataclass

from postqueue_api.queue.journal import Journal, insert_operation
from postqueue_api.queue.journal_reader import JournalReader
from postqueue_api.queue.operation import Item, Operation, Request, Target, item_of, operation_by_id
from postqueue_api.queue.trash import Copy, copies_where, insert_copy

# Of an import: what the other side need not keep.
TAKEN_OVER = ("imported", "no_change")
_AT_ONCE = 1000


@dataclass(frozen=True)
class Identity:
    """A message where it comes from. Two of one origin, queue ID and arrival time are one in different states."""

    queue_id: str
    origin: str
    arrival_time: int
    digest: bytes


@dataclass(frozen=True)
class Arrival:
    """A message of an import. `copy` None: none was made, and `outcome` says why, with `detail`."""

    identity: Identity
    sender: str | None
    copy: Copy | None
    outcome: str = "imported"
    detail: str | None = None


@dataclass(frozen=True)
class Receipt:
    """A message that somebody else has by now."""

    queue_id: str
    digest: bytes


# A message of an operation, what became of it, and in a few words why.
Told = tuple[Target, str, str | None]


class MoveBook:
    """The agent's side of the book."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal

    def known(self, identity: Identity) -> tuple[str, str] | None:
        """Outcome and detail of a message that was imported before; None: it was not."""
        with self._journal.transaction() as database:
            return _known(database, identity)

    def bring_in(self, operation_id: str, request: Request, arrivals: Iterable[Arrival], *, again: bool) -> Operation:
        """Write down a whole import, with the outcome of each message; from now on its copies can be restored.

        `again`: also what another import brought before. Raises StorageFull, and then nothing was written.
        """

        def settle(database: sqlite3.Connection, number: int) -> Iterator[Told]:
            for position, arrival in enumerate(arrivals, 1):
                copy, outcome, detail = arrival.copy, arrival.outcome, arrival.detail
                known = _known(database, arrival.identity, number if again else None)
                if copy is not None and known is not None:
                    copy, (outcome, detail) = None, known
                kept = None if copy is None else insert_copy(database, copy)
                row = (number, position, *astuple(arrival.identity), kept)
                database.execute("INSERT INTO imported VALUES (?, ?, ?, ?, ?, ?, ?)", row)
                yield Target(arrival.identity.queue_id, arrival.identity.arrival_time, arrival.sender), outcome, detail

        return self._record(operation_id, request, settle)

    def confirm(self, operation_id: str, request: Request, receipts: Iterable[Receipt], retention: int) -> Operation:
        """Write down what somebody else has taken over; those copies are kept for so many seconds more.

        Raises StorageFull, and then nothing was written.
        """
        now = time.time()

        def settle(database: sqlite3.Connection, _: int) -> Iterator[Told]:
            for receipt in receipts:
                copy = _copy_of(database, receipt)
                outcome, detail = _judged(copy, receipt)
                if copy is not None and outcome == "exported":
                    database.execute("INSERT INTO exported VALUES (?, ?)", (copy.number, now))
                    database.execute("UPDATE trash SET expires_at = ? WHERE number = ?", (now + retention, copy.number))
                known = Target(receipt.queue_id)
                if copy is not None:
                    known = Target(receipt.queue_id, copy.arrival_time, copy.sender)
                yield known, outcome, detail

        return self._record(operation_id, request, settle)

    def waiting(self, operation_id: str | None, after: int, limit: int) -> list[Copy]:
        """The next copies that wait to be taken over, in order: of one operation, or all that are kept for that."""
        with self._journal.transaction() as database:
            return copies_where(
                database,
                "state = 'kept' AND number > :after AND NOT EXISTS (SELECT 1 FROM exported WHERE copy = number)"
                " AND iif(:operation_id IS NULL, expires_at = 9e999, operation_id = :operation_id)"
                " ORDER BY number LIMIT :limit",
                {"operation_id": operation_id, "after": after, "limit": limit},
            )

    def is_waiting(self, number: int) -> bool:
        """Whether a copy can still be restored here, and was not taken over."""
        with self._journal.transaction() as database:
            found = database.execute(
                "SELECT 1 FROM trash WHERE number = ? AND state = 'kept'"
                " AND NOT EXISTS (SELECT 1 FROM exported WHERE copy = number)",
                (number,),
            )
            return found.fetchone() is not None

    def items(self, number: int) -> Iterator[Item]:
        """What became of each message of an operation, in order."""
        after = 0
        while True:
            with self._journal.transaction() as database:
                rows = database.execute(
                    "SELECT * FROM item WHERE operation = ? AND position > ? ORDER BY position LIMIT ?",
                    (number, after, _AT_ONCE),
                ).fetchall()
            if not rows:
                return
            yield from map(item_of, rows)
            after = rows[-1]["position"]

    def _record(
        self, operation_id: str, request: Request, settle: Callable[[sqlite3.Connection, int], Iterator[Told]]
    ) -> Operation:
        """An operation that is over as soon as it is written down."""
        now = time.time()
        with self._journal.transaction() as database:
            number = insert_operation(database, operation_id, request)
            database.executemany(
                "INSERT INTO item (operation, position, queue_id, arrival_time, sender, outcome, detail, finished_at)"
                " VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                (
                    (number, position, target.queue_id, target.arrival_time, target.sender, outcome, detail, now)
                    for position, (target, outcome, detail) in enumerate(settle(database, number), 1)
                ),
            )
            database.execute(
                "INSERT INTO outcome SELECT operation, outcome, count(*) FROM item WHERE operation = ? GROUP BY 2",
                (number,),
            )
            database.execute(
                "UPDATE operation SET state = 'done', started_at = created_at, finished_at = ?,"
                " requested = (SELECT count(*) FROM item WHERE operation = number) WHERE number = ?",
                (now, number),
            )
            return operation_by_id(database, operation_id)


class MoveReader:
    """Web's side of the book."""

    def __init__(self, reader: JournalReader) -> None:
        self._reader = reader

    def receipts(self, operation_id: str) -> Iterator[tuple[str, str, str]]:
        """What an import answers to whoever sent it, message by message: queue ID there, checksum, outcome."""
        with self._reader.open() as database:
            rows = database.execute(
                "SELECT imported.queue_id, lower(hex(digest)), outcome"
                " FROM imported JOIN item USING (operation, position)"
                " WHERE operation = (SELECT number FROM operation WHERE operation_id = ?) ORDER BY position",
                (operation_id,),
            )
            yield from (tuple(row) for row in rows)


def _known(database: sqlite3.Connection, identity: Identity, only_by: int | None = None) -> tuple[str, str] | None:
    row = database.execute(
        "SELECT digest FROM imported WHERE queue_id = ?1 AND copy IS NOT NULL AND (?5 IS NULL OR operation = ?5)"
        " AND (digest = ?4 OR (origin = ?2 AND arrival_time = ?3)) ORDER BY digest = ?4 DESC LIMIT 1",
        (*astuple(identity), only_by),
    ).fetchone()
    if row is None:
        return None
    if row["digest"] == identity.digest:
        return "no_change", "it was imported before"
    return "changed", "it was imported before, in another state; to have it twice may deliver it twice"


def _copy_of(database: sqlite3.Connection, receipt: Receipt) -> Copy | None:
    """The copy that a receipt is for; where there are several of one state, the one that could still be restored."""
    found = copies_where(
        database,
        "queue_id = :queue_id AND digest = :digest AND state NOT IN ('written', 'void')"
        " ORDER BY state = 'kept' DESC, number DESC LIMIT 1",
        {"queue_id": receipt.queue_id, "digest": receipt.digest},
    )
    return found[0] if found else None


def _judged(copy: Copy | None, receipt: Receipt) -> tuple[str, str | None]:
    if copy is None:
        return "not_found", "the trash has no copy of this queue ID and checksum"
    if copy.state == "purged":
        return "no_change", "the copy here is not kept any more"
    if copy.state != "kept":
        return "failed", f"it was restored here, as {copy.restored_as}: do not restore it there too"
    if copy.exported_at is not None:
        return "no_change", "it was confirmed before"
    return "exported", None
