"""A listing as an SQLite file: written once by the agent, then only read.

The writer (snapshot_writer.py) fills a file under a temporary name and renames it, so that a reader sees a whole
snapshot or none. `current` is a link to the newest one. The file is never changed afterwards, so readers open it
as immutable and need neither locks nor a right to write.
"""

import re
import sqlite3
import time
from collections.abc import Collection, Iterator
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

from postqueue_api.errors import Gone

QUEUE_NAMES = ("maildrop", "incoming", "active", "deferred", "hold")

NAME = re.compile(r"[0-9a-f]{1,16}-[0-9a-f]{8}", re.ASCII)
_CURRENT = "current"
_TOP_REASONS = 10
_CLOCK_GRAIN_SECONDS = 0.002


@dataclass(frozen=True)
class SnapshotInfo:
    """What every answer that is made from a snapshot says of it. Times in seconds since the epoch."""

    snapshot_id: str
    taken_at: float
    complete: bool
    skipped_lines: int
    mail_system: Literal["running", "down"] | None
    messages: int
    duration: float
    problem: str | None
    last_complete: str | None

    @property
    def age(self) -> float:
        """Seconds since the listing began."""
        return max(0.0, time.time() - self.taken_at)

    def is_since(self, moment: float) -> bool:
        """Whether the listing began after a moment, as far as milliseconds tell."""
        return self.taken_at >= moment - _CLOCK_GRAIN_SECONDS


@dataclass(frozen=True)
class QueueCount:
    """How much is in one queue. `bytes` sums the message sizes; `oldest_arrival_time` is None when it is empty."""

    queue_name: str
    messages: int
    bytes: int
    recipients: int
    oldest_arrival_time: int | None


@dataclass(frozen=True)
class TopReason:
    """A normalised reason (reason.py) and what it delays."""

    name: str
    messages: int
    bytes: int
    oldest_arrival_time: int
    newest_arrival_time: int


@dataclass(frozen=True)
class Bucket:
    """How many messages of a queue are not above a bound: `size` in bytes, `age` in seconds, or the sum of either."""

    queue_name: str
    measure: str
    bound: float
    messages: float


class Snapshot:
    """A snapshot to read from. Cheap to make; each question opens the file for itself."""

    def __init__(self, path: Path) -> None:
        """Open a snapshot. Raises Gone when the file is not there any more."""
        self._path = path
        with self.open() as database:
            row = database.execute("SELECT * FROM snapshot").fetchone()
        self.cursor_key: bytes = row["cursor_key"]
        self.info = SnapshotInfo(
            snapshot_id=row["snapshot_id"],
            taken_at=row["taken_at"],
            complete=bool(row["complete"]),
            skipped_lines=row["skipped_lines"],
            mail_system=row["mail_system"],
            messages=row["messages"],
            duration=row["duration"],
            problem=row["problem"],
            last_complete=row["last_complete"],
        )

    def top_reasons(self) -> list[TopReason]:
        """The reasons that delay the most messages, most first."""
        with self.open() as database:
            rows = database.execute(
                "SELECT key, messages, bytes, oldest, newest FROM largest WHERE grouping = 'reason_group' AND key <> ''"
                " ORDER BY messages DESC, key LIMIT ?",
                (_TOP_REASONS,),
            )
            return [TopReason(*row) for row in rows]

    def histograms(self) -> list[Bucket]:
        """Message sizes and ages, queue by queue; bounds ascending."""
        with self.open() as database:
            return [
                Bucket(**row) for row in database.execute("SELECT * FROM histogram ORDER BY queue_name, measure, bound")
            ]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Snapshot) and other._path == self._path

    def __hash__(self) -> int:
        return hash(self._path)

    def document(self, queue_id: str) -> bytes | None:
        """The JSON object of one message, or None."""
        with self.open() as database:
            row = database.execute(
                "SELECT json, next_attempt_time FROM message JOIN document USING (row) WHERE queue_id = ?", (queue_id,)
            ).fetchone()
        return None if row is None else as_listed(row["json"], row["next_attempt_time"])

    def queues(self) -> list[QueueCount]:
        """How much is in each queue, with explicit zeros, in the order in which mail moves through them."""
        with self.open() as database:
            found = {row["queue_name"]: QueueCount(**row) for row in database.execute("SELECT * FROM queue")}
        names = [*QUEUE_NAMES, *(name for name in sorted(found) if name not in QUEUE_NAMES)]
        return [found.get(name) or QueueCount(name, 0, 0, 0, None) for name in names]

    @contextmanager
    def open(self) -> Iterator[sqlite3.Connection]:
        """The database, to read from. Raises Gone when the file is not there any more."""
        try:
            database = sqlite3.connect(f"file:{self._path}?mode=ro&immutable=1", uri=True)
        except sqlite3.OperationalError:
            raise Gone("This snapshot is not kept any more: ask again without it.") from None
        with closing(database):
            database.row_factory = sqlite3.Row
            yield database


def publish(finished: Path, directory: Path, snapshot_id: str) -> SnapshotInfo:
    """Give a finished file its name and make it the current snapshot."""
    finished.chmod(0o640)
    path = finished.rename(directory / f"{snapshot_id}.sqlite")
    link = directory / f".{snapshot_id}.link"
    link.symlink_to(path.name)
    link.rename(directory / _CURRENT)
    return Snapshot(path).info


def current(directory: Path) -> Snapshot | None:
    """The newest snapshot in a directory; None when there is none yet."""
    try:
        path = directory / (directory / _CURRENT).readlink()
        return _load(path) if path.exists() else None
    except (FileNotFoundError, Gone):
        return None


@lru_cache(maxsize=16)
def _load(path: Path) -> Snapshot:
    """A snapshot never changes and its name is never used again: what was read of it stays true."""
    return Snapshot(path)


def by_id(directory: Path, snapshot_id: str) -> Snapshot:
    """A snapshot that was named before. Raises Gone when it is not kept any more."""
    path = directory / f"{snapshot_id}.sqlite"
    return _load(path) if path.exists() else Snapshot(path)


def size(directory: Path, snapshot_id: str) -> int:
    """How many bytes a snapshot takes; 0 when it is gone."""
    try:
        return (directory / f"{snapshot_id}.sqlite").stat().st_size
    except FileNotFoundError:
        return 0


def sweep(directory: Path, keep: Collection[str]) -> None:
    """Remove all snapshots but those to keep, and what an interrupted writer left behind."""
    superseded = [path for path in directory.glob("*.sqlite") if path.stem not in keep]
    for path in [*superseded, *directory.glob(".*.partial*"), *directory.glob(".*.link")]:
        path.unlink(missing_ok=True)


def as_listed(json: bytes, next_attempt_time: int) -> bytes:
    """A message's JSON object as postqueue printed it, with what we add; -1 for a time that is not known."""
    known = b"null" if next_attempt_time < 0 else b"%d" % next_attempt_time
    return json[:-1] + b', "next_attempt_time": ' + known + b"}"


def as_json(info: SnapshotInfo) -> dict[str, Any]:
    """The members of a snapshot in an answer, `age` among them."""
    return asdict(info) | {"age": round(info.age, 3)}
