"""Operations and their outcomes: intent is on disk before anything is touched, outcomes as they come.

One SQLite file, written by the agent alone, with every commit on disk before it returns. Web reads the same
file (journal_reader.py); a reader never delays the writer (write-ahead log).
"""

import sqlite3
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from importlib import resources
from pathlib import Path

from postqueue_api.errors import Misconfigured, StorageFull
from postqueue_api.queue.operation import (
    ACTING,
    TOUCHED,
    Item,
    Operation,
    Request,
    Settlement,
    State,
    Target,
    item_of,
    operation_by_id,
    operations_where,
)

# Written into the file; raised when an older program would misread what is in it. 0 is a file of before that, or new.
VERSION = 2
# SQLite itself would walk over all that is settled, and take the longer the further an operation is.
_UNSETTLED = "item INDEXED BY item_unfinished"


def schema() -> str:
    """The tables of the journal, as SQL."""
    return resources.files(__package__).joinpath("journal.sql").read_text("utf-8")


class Journal:
    """The agent's side: the only one that writes. Safe to use from several threads."""

    def __init__(self, path: Path) -> None:
        """Open or create the journal. Raises StorageFull, and Misconfigured for one that is not of this version."""
        self._path = path
        self._lock = threading.Lock()
        # First, because SQLite gives its log and index beside it the same mode, whatever the umask is.
        path.touch(0o640)
        path.chmod(0o640)
        with _opening(), _storage():
            self._database = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
            self._database.row_factory = sqlite3.Row
            version = _version(self._database)
            self._database.execute("PRAGMA journal_mode = WAL")
            self._database.execute("PRAGMA synchronous = FULL")
            self._database.execute("PRAGMA foreign_keys = ON")
            self._database.executescript(schema())
            if version != VERSION:
                _add_what_is_new(self._database)
                self._database.execute(f"PRAGMA user_version = {VERSION}")

    def close(self) -> None:
        """Fold the write-ahead log into the file and close it."""
        with self._lock:
            self._database.close()

    def begin(
        self, operation_id: str, request: Request, targets: Iterable[Target], key: tuple[str, str] | None = None
    ) -> Operation:
        """Write down an operation that is about to be carried out. Raises StorageFull, and then nothing was written.

        `key`: the client's idempotency key and the fingerprint of its request, which hold from the same moment on.
        """
        with self.transaction() as database:
            number = insert_operation(database, operation_id, request)
            database.executemany(
                "INSERT INTO item (operation, position, queue_id, arrival_time, sender) VALUES (?, ?, ?, ?, ?)",
                (
                    (number, position, target.queue_id, target.arrival_time, target.sender)
                    for position, target in enumerate(targets, 1)
                ),
            )
            database.execute(
                "UPDATE operation SET requested = (SELECT count(*) FROM item WHERE operation = :n) WHERE number = :n",
                {"n": number},
            )
            if key is not None:
                database.execute(
                    "INSERT INTO idempotency (key, actor, fingerprint, operation_id) VALUES (?, ?, ?, ?)",
                    (key[0], request.actor, key[1], operation_id),
                )
        return self.operation(operation_id)

    def request_of(self, key: str, actor: str) -> tuple[str, str] | None:
        """What an actor asked for under an idempotency key: (fingerprint of the request, operation_id)."""
        with self._lock:
            row = self._database.execute(
                "SELECT fingerprint, operation_id FROM idempotency WHERE key = ? AND actor = ?", (key, actor)
            ).fetchone()
        return None if row is None else (row["fingerprint"], row["operation_id"])

    def cancel(self, operation_id: str) -> Operation:
        """Note that an operation is to end before its next chunk. Raises NoSuchOperation."""
        with self.transaction() as database:
            database.execute("UPDATE operation SET cancel_requested = 1 WHERE operation_id = ?", (operation_id,))
        return self.operation(operation_id)

    def start(self, number: int) -> None:
        """Note that an operation runs."""
        with self.transaction() as database:
            database.execute(
                "UPDATE operation SET state = 'running', started_at = ifnull(started_at, ?) WHERE number = ?",
                (time.time(), number),
            )

    def intend(self, number: int, items: Iterable[tuple[int, bool, str | None]]) -> None:
        """Note, before the first command for them, which messages are about to be touched: (position, was_held,
        new_queue_id)."""
        with self.transaction() as database:
            database.executemany(
                f"UPDATE item SET was_held = ?, new_queue_id = ?, stage = {TOUCHED}"  # noqa: S608
                " WHERE operation = ? AND position = ?",
                ((was_held, new_queue_id, number, position) for position, was_held, new_queue_id in items),
            )

    def act(self, number: int, positions: Iterable[int], stage: int = ACTING) -> None:
        """Note which messages are on hold and locked now, and about to be acted on; or the stage that comes then."""
        with self.transaction() as database:
            database.executemany(
                "UPDATE item SET stage = ? WHERE operation = ? AND position = ?",
                ((stage, number, position) for position in positions),
            )

    def settle(self, number: int, settlements: Sequence[Settlement]) -> None:
        """Note what became of messages. An outcome that stands is never replaced.

        In the same moment a copy in the trash becomes one that can be restored, or void when its message was not
        removed: else it would be delivered, and again after a restore.
        """
        now = time.time()
        first: dict[int, Settlement] = {}
        by_outcome: dict[str, list[Settlement]] = {}
        for settlement in settlements:
            if first.setdefault(settlement.position, settlement) is settlement:
                by_outcome.setdefault(settlement.outcome, []).append(settlement)
        with self.transaction() as database:
            has_copies = database.execute("SELECT 1 FROM trash WHERE state = 'written' LIMIT 1").fetchone() is not None
            for outcome, settled in by_outcome.items():
                written = database.executemany(
                    "UPDATE item SET outcome = ?, detail = ?, new_queue_id = ?, finished_at = ?"
                    " WHERE operation = ? AND position = ? AND outcome IS NULL",
                    ((outcome, each.detail, each.new_queue_id, now, number, each.position) for each in settled),
                ).rowcount
                if written:
                    database.execute(
                        "INSERT INTO outcome VALUES (?1, ?2, ?3)"
                        " ON CONFLICT (operation, outcome) DO UPDATE SET messages = messages + ?3",
                        (number, outcome, written),
                    )
                if has_copies:
                    _settle_copies(database, number, settled)

    def finish(self, number: int, state: State, failure: str | None = None) -> None:
        """Note the end of an operation."""
        with self.transaction() as database:
            database.execute(
                "UPDATE operation SET state = ?, finished_at = ?, failure = ? WHERE number = ?",
                (state, time.time(), failure, number),
            )

    def unsettled(self, number: int, limit: int, after: int = 0) -> list[Item]:
        """The next messages of an operation whose outcome is not known; `after`: those behind that position."""
        with self._lock:
            rows = self._database.execute(
                f"SELECT * FROM {_UNSETTLED} WHERE operation = ? AND outcome IS NULL AND position > ?"  # noqa: S608
                " ORDER BY position LIMIT ?",
                (number, after, limit),
            ).fetchall()
        return [item_of(row) for row in rows]

    def touched(self, number: int) -> list[Item]:
        """The messages of an operation whose outcome is not known although they were touched: a chunk broke off."""
        with self._lock:
            rows = self._database.execute(
                f"SELECT * FROM {_UNSETTLED} WHERE operation = ? AND outcome IS NULL AND stage IS NOT NULL"  # noqa: S608
                " ORDER BY position",
                (number,),
            ).fetchall()
        return [item_of(row) for row in rows]

    def is_settled(self, operation_id: str, position: int) -> bool:
        """Whether a message of an operation has its outcome, or is not known at all."""
        with self._lock:
            row = self._database.execute(
                "SELECT outcome FROM item WHERE position = ?"
                " AND operation = (SELECT number FROM operation WHERE operation_id = ?)",
                (position, operation_id),
            ).fetchone()
        return row is None or row["outcome"] is not None

    def unfinished(self) -> list[Operation]:
        """Operations that are queued or running, in their order: after a restart, the ones to take up again."""
        with self._lock:
            return operations_where(self._database, "state IN ('queued', 'running') ORDER BY number")

    def operation(self, operation_id: str) -> Operation:
        """One operation as it stands. Raises NoSuchOperation."""
        with self._lock:
            return operation_by_id(self._database, operation_id)

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """Several writes that are on disk together, or not at all. Raises StorageFull, and then nothing was written."""
        with self._lock, _storage():
            self._database.execute("BEGIN IMMEDIATE")
            try:
                yield self._database
            except BaseException:
                if self._database.in_transaction:  # else SQLite rolled back itself: when the disk was full
                    self._database.execute("ROLLBACK")
                raise
            self._database.execute("COMMIT")


def insert_operation(database: sqlite3.Connection, operation_id: str, request: Request) -> int:
    """Write down who wants what, as queued. Returns the operation's number."""
    number = database.execute(
        "INSERT INTO operation (operation_id, action, state, actor, role, address, request_id, reason,"
        " selection, requested, created_at, shorthand, keep_copy, max_per_second)"
        " VALUES (:operation_id, :action, 'queued', :actor, :role, :address, :request_id, :reason,"
        " :selection, 0, :created_at, :shorthand, :keep_copy, :max_per_second)",
        {**asdict(request), "operation_id": operation_id, "created_at": time.time()},
    ).lastrowid
    assert number is not None
    return number


def _settle_copies(database: sqlite3.Connection, number: int, settled: Iterable[Settlement]) -> None:
    """The copies of these messages can be restored from now on, or are void; not of those whose outcome is another."""
    # The unary plus keeps SQLite from walking over all that this operation deleted before.
    database.executemany(
        "UPDATE trash SET state = iif(?1 = 'removed', 'kept', 'void') WHERE state = 'written'"
        " AND queue_id = (SELECT queue_id FROM item WHERE operation = ?2 AND position = ?3 AND outcome = ?1)"
        " AND +operation_id = (SELECT operation_id FROM operation WHERE number = ?2)",
        ((each.outcome, number, each.position) for each in settled),
    )


def _add_what_is_new(database: sqlite3.Connection) -> None:
    """Add what a file of an earlier version has not."""
    if "new_queue_id" not in {name for _, name, *_ in database.execute("PRAGMA table_info (item)")}:
        database.execute("ALTER TABLE item ADD COLUMN new_queue_id TEXT")


def _version(database: sqlite3.Connection) -> int:
    """What wrote the file last; 0 for a new one. Raises Misconfigured when it was a newer program."""
    version: int
    (version,) = database.execute("PRAGMA user_version").fetchone()
    if version > VERSION:
        database.close()
        raise Misconfigured(
            f"The journal in POSTQUEUE_API_STATE_DIRECTORY is of version {version}, and this program knows {VERSION}:"
            " run the newer program that wrote it, or name another directory."
        )
    return version


@contextmanager
def _opening() -> Iterator[None]:
    try:
        yield
    except sqlite3.DatabaseError as error:
        raise Misconfigured(
            f"The journal in POSTQUEUE_API_STATE_DIRECTORY cannot be opened: {error}."
            " If it is damaged, move it away, and a new one is begun."
        ) from error


@contextmanager
def _storage() -> Iterator[None]:
    try:
        yield
    except sqlite3.OperationalError as error:
        if error.sqlite_errorcode in (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR_WRITE, sqlite3.SQLITE_IOERR_FSYNC):
            raise StorageFull("There is no room for the journal, so nothing was changed. Free some space.") from error
        raise
