"""Write a listing as an SQLite file: rows first, then indexes and sums, then the rename that makes it current."""

import os
import sqlite3
import time
from collections.abc import Callable, Iterable, Sequence
from importlib import resources
from itertools import chain
from pathlib import Path
from typing import Self

from postqueue_api.queue import listing, snapshot
from postqueue_api.queue.reason import normalise
from postqueue_api.queue.selection import POSITION_BITS
from postqueue_api.queue.snapshot import SnapshotInfo

SIZE_BOUNDS = (1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9)
AGE_BOUNDS = (1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8)

_BATCH_ROWS = 1000
_STATEMENT_ROWS = 50
_TEXTS_REMEMBERED = 20_000
_TOP_REASONS = 10
_UNIQUE = "CREATE UNIQUE INDEX message_queue_id ON message (queue_id)"
_PRAGMAS = ("page_size = 8192", "journal_mode = OFF", "synchronous = OFF", "cache_size = -16384", "temp_store = FILE")

NextAttempt = Callable[[str, str], int | None]


class SnapshotWriter:
    """Fills one snapshot: `add` lines, then `publish` it. Leaves nothing behind when it is closed before."""

    def __init__(self, directory: Path, next_attempt: NextAttempt = lambda queue_name, queue_id: None) -> None:
        """Begin a snapshot in `directory`.

        `next_attempt` tells when a message (queue_name, queue_id) is tried next, in seconds since the epoch.
        All methods raise sqlite3.OperationalError when the disk is full.
        """
        self.started = time.time()
        self.skipped_lines = 0
        self.messages = 0
        self.snapshot_id = f"{int(self.started * 1000):x}-{os.urandom(4).hex()}"
        self._next_attempt = next_attempt
        self._directory = directory
        self._path = directory / f".{self.snapshot_id}.partial"
        self._database = sqlite3.connect(self._path, isolation_level=None)
        for pragma in _PRAGMAS:
            self._database.execute(f"PRAGMA {pragma}")
        self._database.executescript(_sql("snapshot.sql"))
        self._database.execute("BEGIN")
        self._domains = _Texts(self._database, "INSERT INTO domain VALUES (?, ?)", str)
        self._reason_groups = _Texts(self._database, "INSERT INTO reason_group VALUES (?, ?)", str)
        self._reasons = _Texts(self._database, "INSERT INTO reason VALUES (?, ?)", str.lower)
        self._rows_of_reasons: dict[str, tuple[int, int]] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._database.close()
        self._path.unlink(missing_ok=True)

    def add(self, lines: Iterable[bytes]) -> None:
        """Read lines and keep what is readable. Counts the others in `skipped_lines`."""
        messages: list[tuple[object, ...]] = []
        documents: list[tuple[int, bytes]] = []
        recipients: list[tuple[object, ...]] = []
        for line in lines:
            message = listing.read(line)
            if message is None:
                self.skipped_lines += 1
                continue
            self.messages += 1
            self._forget()
            messages.append(self._message_row(message))
            documents.append((self.messages, message.document))
            self._add_recipients(message, recipients)
            if len(messages) >= _BATCH_ROWS or len(recipients) >= 10 * _BATCH_ROWS:
                self._insert(messages, documents, recipients)
                messages, documents, recipients = [], [], []
        self._insert(messages, documents, recipients)

    def publish(
        self, *, mail_system: str | None, problem: str | None = None, last_complete: str | None = None
    ) -> SnapshotInfo:
        """Index the rows, put the file in its place and make it the current one.

        `problem` is the code of the error that broke the listing off, and `last_complete` the last snapshot that
        was complete; without a problem this one is.
        """
        self._database.execute("COMMIT")
        self._index()
        self._sum_up()
        (count,) = self._database.execute("SELECT count(*) FROM message").fetchone()
        self._database.execute(
            "INSERT INTO snapshot VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (
                self.snapshot_id,
                round(self.started, 3),
                round(time.time() - self.started, 3),
                problem is None,
                self.skipped_lines,
                mail_system,
                count,
                problem,
                last_complete,
                os.urandom(16),
            ),
        )
        self._database.close()
        return snapshot.publish(self._path, self._directory, self.snapshot_id)

    def _message_row(self, message: listing.Message) -> tuple[object, ...]:
        sender = message.sender.lower()
        next_attempt = self._next_attempt(message.queue_name, message.queue_id)
        return (
            self.messages,
            message.queue_id,
            message.queue_name,
            message.arrival_time,
            message.message_size,
            sender,
            listing.domain(sender),
            len(message.recipients),
            message.forced_expire,
            -1 if next_attempt is None else next_attempt,
        )

    def _add_recipients(self, message: listing.Message, rows: list[tuple[object, ...]]) -> None:
        seen: set[str | int] = set()  # rows of reason groups as negative numbers, so that one set does for all
        first_row = self.messages << POSITION_BITS
        for row, recipient in enumerate(message.recipients, first_row):
            address = recipient.address.lower()
            domain = self._domains.row(listing.domain(address))
            reason, group = self._reason(recipient.delay_reason or "")
            firsts = (address not in seen) | (domain not in seen) << 1 | (-group not in seen) << 2
            if firsts:
                seen.update((address, domain, -group))
            rows.append((row, address, domain, reason, group, firsts, message.arrival_time, message.message_size))

    def _reason(self, text: str) -> tuple[int, int]:
        rows = self._rows_of_reasons.get(text)
        if rows is None:
            rows = self._rows_of_reasons[text] = (self._reasons.add(text), self._reason_groups.row(normalise(text)))
        return rows

    def _forget(self) -> None:
        """Between two messages only: within one, a text has one row, else its message would be counted twice."""
        if self._domains.is_full:
            self._domains.clear()
        if len(self._rows_of_reasons) >= _TEXTS_REMEMBERED:
            self._rows_of_reasons.clear()
            self._reason_groups.clear()

    def _insert(
        self,
        messages: list[tuple[object, ...]],
        documents: list[tuple[int, bytes]],
        recipients: list[tuple[object, ...]],
    ) -> None:
        for texts in (self._domains, self._reasons, self._reason_groups):
            texts.write()
        _insert_many(self._database, "message", messages)
        _insert_many(self._database, "document", documents)
        _insert_many(self._database, "recipient", recipients)

    def _index(self) -> None:
        try:
            self._database.execute(_UNIQUE)
        except sqlite3.IntegrityError:
            self._remove_doubles()
            self._database.execute(_UNIQUE)
        self._database.executescript(_sql("snapshot.index.sql"))

    def _remove_doubles(self) -> None:
        """Listed twice because it moved meanwhile: the later line is the truth."""
        self._database.execute("CREATE TEMP TABLE last AS SELECT max(row) AS row FROM message GROUP BY queue_id")
        for table, column in (("message", "row"), ("document", "row"), ("recipient", f"row >> {POSITION_BITS}")):
            self._database.execute(f"DELETE FROM {table} WHERE {column} NOT IN (SELECT row FROM last)")  # noqa: S608

    def _sum_up(self) -> None:
        self._database.execute(
            "INSERT INTO queue SELECT queue_name, count(*), sum(message_size), sum(recipients), min(arrival_time)"
            " FROM message GROUP BY queue_name"
        )
        self._database.execute(
            "INSERT INTO top_reason"
            " SELECT name, sum(messages), sum(bytes), min(oldest), max(newest) FROM"
            " (SELECT reason_group, count(*) AS messages, sum(message_size) AS bytes,"
            "  min(arrival_time) AS oldest, max(arrival_time) AS newest"
            "  FROM recipient WHERE firsts & 4 GROUP BY reason_group)"
            " JOIN reason_group ON row = reason_group WHERE name <> ''"
            " GROUP BY name ORDER BY 2 DESC, 1 LIMIT ?",
            (_TOP_REASONS,),
        )
        self._histogram("size", "message_size", SIZE_BOUNDS)
        self._histogram("age", f"({self.started!r} - arrival_time)", AGE_BOUNDS)

    def _histogram(self, measure: str, expression: str, bounds: tuple[float, ...]) -> None:
        sums = ", ".join(f"sum({expression} <= {bound!r})" for bound in bounds)
        rows = self._database.execute(
            f"SELECT queue_name, {sums}, count(*), sum({expression}) FROM message GROUP BY queue_name"  # noqa: S608
        )
        for queue_name, *counts, everything, total in rows.fetchall():
            self._database.executemany(
                "INSERT INTO histogram VALUES (?, ?, ?, ?)",
                [
                    *((queue_name, measure, bound, count) for bound, count in zip(bounds, counts, strict=True)),
                    (queue_name, measure, float("inf"), everything),
                    (queue_name, measure + "_sum", 0.0, total),
                ],
            )


def _insert_many(database: sqlite3.Connection, table: str, rows: Sequence[tuple[object, ...]]) -> None:
    """Insert rows, many with each statement: that takes a third less time than one by one."""
    if not rows:
        return
    row = f"({', '.join('?' * len(rows[0]))})"
    whole = len(rows) - len(rows) % _STATEMENT_ROWS
    many = f"INSERT INTO {table} VALUES {', '.join([row] * _STATEMENT_ROWS)}"  # noqa: S608 - our own names
    for first in range(0, whole, _STATEMENT_ROWS):
        database.execute(many, list(chain.from_iterable(rows[first : first + _STATEMENT_ROWS])))
    database.executemany(f"INSERT INTO {table} VALUES {row}", rows[whole:])  # noqa: S608 - our own names


class _Texts:
    """Texts that recur, each written once while it is remembered."""

    def __init__(self, database: sqlite3.Connection, insert: str, stored: Callable[[str], str]) -> None:
        self._database = database
        self._statement = insert
        self._stored = stored
        self._rows: dict[str, int] = {}
        self._last = 0
        self._waiting: list[tuple[int, str]] = []

    @property
    def is_full(self) -> bool:
        """Whether it is time to forget them."""
        return len(self._rows) >= _TEXTS_REMEMBERED

    def clear(self) -> None:
        """Forget them: the next time each gets a new row."""
        self._rows.clear()

    def row(self, text: str) -> int:
        """The row of a text, a new one if need be."""
        row = self._rows.get(text)
        if row is None:
            row = self._rows[text] = self.add(text)
        return row

    def add(self, text: str) -> int:
        """A new row for a text."""
        self._last += 1
        self._waiting.append((self._last, self._stored(text)))
        return self._last

    def write(self) -> None:
        """Write the new ones down."""
        self._database.executemany(self._statement, self._waiting)
        self._waiting.clear()


def _sql(name: str) -> str:
    return resources.files(__package__).joinpath(name).read_text("utf-8")
