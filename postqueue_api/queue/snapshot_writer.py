"""Write a listing as an SQLite file: rows first, then indexes and sums, then the rename that makes it current."""

import os
import sqlite3
import time
from collections.abc import Callable, Iterable
from importlib import resources
from pathlib import Path
from typing import Self

from postqueue_api.queue import listing, snapshot
from postqueue_api.queue.selection import POSITION_BITS
from postqueue_api.queue.snapshot import SnapshotInfo
from postqueue_api.queue.snapshot_rows import Rows
from postqueue_api.queue.snapshot_sums import sum_up

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
        self._rows = Rows(self._database)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._database.close()
        self._path.unlink(missing_ok=True)

    def add(self, lines: Iterable[bytes]) -> None:
        """Read lines and keep what is readable. Counts the others in `skipped_lines`."""
        for line in lines:
            message = listing.read(line)
            if message is None:
                self.skipped_lines += 1
                continue
            self.messages += 1
            next_attempt_time = self._next_attempt(message.queue_name, message.queue_id)
            self._rows.add(self.messages, message, next_attempt_time)
        self._rows.insert()

    def publish(
        self, *, mail_system: str | None, problem: str | None = None, last_complete: str | None = None
    ) -> SnapshotInfo:
        """Index the rows, put the file in its place and make it the current one.

        `problem` is the code of the error that broke the listing off, and `last_complete` the last snapshot that
        was complete; without a problem this one is.
        """
        self._database.execute("COMMIT")
        self._index()
        sum_up(self._database, self.started)
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
        of_recipients = f"row >> {POSITION_BITS}"
        for table, column in (
            ("message", "row"),
            ("document", "row"),
            ("recipient", of_recipients),
            ("destination", of_recipients),
        ):
            self._database.execute(f"DELETE FROM {table} WHERE {column} NOT IN (SELECT row FROM last)")  # noqa: S608


def _sql(name: str) -> str:
    return resources.files(__package__).joinpath(name).read_text("utf-8")
