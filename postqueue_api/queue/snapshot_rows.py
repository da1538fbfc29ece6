"""What the tables of a snapshot hold of each message: rows that wait until there are enough to insert at once."""

import sqlite3
from collections.abc import Callable, Sequence
from itertools import chain, count

from postqueue_api.queue import listing
from postqueue_api.queue.reason import normalise
from postqueue_api.queue.selection import POSITION_BITS

_BATCH_ROWS = 1000
_STATEMENT_ROWS = 100
_TEXTS_REMEMBERED = 20_000

Row = tuple[object, ...]


class Rows:
    """Takes messages, one after the other, and inserts their rows; `insert` what is left when there are no more."""

    def __init__(self, database: sqlite3.Connection) -> None:
        self._database = database
        self._messages: list[Row] = []
        self._documents: list[Row] = []
        self._recipients: list[Row] = []
        self._destinations: list[Row] = []
        self._domains = _Texts(str)
        self._reasons = _Texts(str.lower)
        self._reason_groups = _Texts(str)
        self._rows_of_reasons: dict[str, tuple[int, int]] = {}

    def add(self, row: int, message: listing.Message, next_attempt_time: int | None) -> None:
        """Take a message; `row` is its number. Raises sqlite3.OperationalError when the disk is full."""
        sender = message.sender.lower()
        self._messages.append(
            (
                row,
                message.queue_id,
                message.queue_name,
                message.arrival_time,
                message.message_size,
                sender,
                listing.domain(sender),
                len(message.recipients),
                message.forced_expire,
                -1 if next_attempt_time is None else next_attempt_time,
            )
        )
        self._documents.append((row, message.document))
        self._add_recipients(row << POSITION_BITS, message)
        if len(self._messages) >= _BATCH_ROWS or len(self._recipients) >= 10 * _BATCH_ROWS:
            self.insert()

    def insert(self) -> None:
        """Insert what waits, and forget texts when they are many.

        Only between two messages: within one, a text has one row, else its message would be counted twice.
        """
        for table, rows in (
            ("domain", self._domains.waiting),
            ("reason", self._reasons.waiting),
            ("reason_group", self._reason_groups.waiting),
            ("message", self._messages),
            ("document", self._documents),
            ("recipient", self._recipients),
            ("destination", self._destinations),
        ):
            _insert_many(self._database, table, rows)
            rows.clear()
        if self._domains.is_full:
            self._domains.clear()
        if len(self._rows_of_reasons) >= _TEXTS_REMEMBERED:
            self._rows_of_reasons.clear()
            self._reason_groups.clear()

    def _add_recipients(self, first_row: int, message: listing.Message) -> None:
        addresses = [recipient.address.lower() for recipient in message.recipients]
        self._recipients.extend(zip(count(first_row), dict.fromkeys(addresses), strict=False))
        together: dict[tuple[str, str], int] = {}
        for address, recipient in zip(addresses, message.recipients, strict=True):
            where = (listing.domain(address), recipient.delay_reason or "")
            together[where] = together.get(where, 0) + 1
        seen: set[int] = set()  # rows of reason groups as negative numbers, so that one set does for both
        for row, ((name, text), recipients) in enumerate(together.items(), first_row):
            domain = self._domains.row(name)
            reason, group = self._reason(text)
            firsts = (domain not in seen) | (-group not in seen) << 1
            seen.update((domain, -group))
            sums = (recipients, message.arrival_time, message.message_size)
            self._destinations.append((row, domain, reason, group, firsts, *sums))

    def _reason(self, text: str) -> tuple[int, int]:
        rows = self._rows_of_reasons.get(text)
        if rows is None:
            rows = self._rows_of_reasons[text] = (self._reasons.add(text), self._reason_groups.row(normalise(text)))
        return rows


def _insert_many(database: sqlite3.Connection, table: str, rows: Sequence[Row]) -> None:
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
    """Texts that recur, each written once while it is remembered; `waiting` are the rows of new ones."""

    def __init__(self, stored: Callable[[str], str]) -> None:
        self.waiting: list[Row] = []
        self._stored = stored
        self._rows: dict[str, int] = {}
        self._last = 0

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
        self.waiting.append((self._last, self._stored(text)))
        return self._last
