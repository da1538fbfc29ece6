"""How long the queue was, minute by minute: a ring of samples in one small file.

The agent writes the file under another name and renames it, so that web reads a whole one without a lock, and a
kill at any moment leaves nothing to repair.

Arrivals and removals are told from two listings. A message that came and went between them is in neither. One that
came back with its old arrival time, from the trash or by a requeue, is no arrival: it offsets a removal.
"""

import sqlite3
from pathlib import Path
from typing import Any

import msgspec

from postqueue_api.queue.snapshot import Snapshot

NAME = "samples.json"
LIMIT = 1440
_VERSION = 1
_EDGE_LIMIT = 100_000


class Sample(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """The queue at one time. Times in seconds since the epoch; `queues`: messages by queue name.

    `arrived` and `removed` count messages since the sample before; None when that cannot be told.
    """

    taken_at: float
    queues: dict[str, int]
    bytes: int
    oldest_arrival_time: int | None
    arrived: int | None = None
    removed: int | None = None

    @property
    def messages(self) -> int:
        """How many in all queues together."""
        return sum(self.queues.values())

    def as_json(self) -> dict[str, Any]:
        """Its members as an answer has them."""
        return {name: getattr(self, name) for name in self.__struct_fields__}


class Ring(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The newest samples, oldest first, and how far apart they are meant to be."""

    interval_seconds: int
    samples: list[Sample] = []
    version: int = _VERSION

    def with_(self, sample: Sample) -> "Ring":
        """The same with a newer one. What lies in its future, because a clock was set back, goes."""
        past = [each for each in self.samples if each.taken_at < sample.taken_at]
        return Ring(self.interval_seconds, [*past, sample][-LIMIT:])


class Counted:
    """A complete listing, counted: its sample, and what is needed to compare the next listing with it."""

    def __init__(self, snapshot: Snapshot, before: "Counted | None" = None) -> None:
        """Count a listing; `before`: an earlier one that it is compared with. Raises Gone."""
        queues = snapshot.queues()
        oldest = [queue.oldest_arrival_time for queue in queues if queue.oldest_arrival_time is not None]
        with snapshot.open() as database:
            self._edge = _edge(database, int(snapshot.info.taken_at))
            arrived, removed = (None, None) if before is None else _changes(database, before)
        self.sample = Sample(
            taken_at=snapshot.info.taken_at,
            queues={queue.queue_name: queue.messages for queue in queues},
            bytes=sum(queue.bytes for queue in queues),
            oldest_arrival_time=min(oldest, default=None),
            arrived=arrived,
            removed=removed,
        )


def read(path: Path) -> Ring | None:
    """The ring in a file; None when there is none, or none that this version can read."""
    try:
        ring = msgspec.json.decode(path.read_bytes(), type=Ring)
    except (OSError, msgspec.DecodeError):
        return None
    return ring if ring.version == _VERSION else None


def write(path: Path, ring: Ring) -> None:
    """Put a ring in the place of the one before. Raises OSError when the disk is full, and then that one stays."""
    partial = path.with_name(f".{path.name}.partial")
    try:
        partial.write_bytes(msgspec.json.encode(ring))
        partial.chmod(0o640)
        partial.rename(path)
    except OSError:
        partial.unlink(missing_ok=True)
        raise


def _edge(database: sqlite3.Connection, second: int) -> list[str] | None:
    """What is in the listing although it arrived when that was taken, or later; None when it is too much to remember.

    Postfix tells arrivals in whole seconds, and mail goes on arriving while it is listed.
    """
    query = "SELECT queue_id FROM message WHERE arrival_time >= ? LIMIT ?"
    found = [row["queue_id"] for row in database.execute(query, (second, _EDGE_LIMIT + 1))]
    return found if len(found) <= _EDGE_LIMIT else None


def _changes(database: sqlite3.Connection, before: Counted) -> tuple[int | None, int | None]:
    """How many arrived and how many were removed since that listing."""
    if before._edge is None:
        return None, None
    since = "SELECT count(*) FROM message WHERE arrival_time >= ?"
    (came,) = database.execute(since, (int(before.sample.taken_at),)).fetchone()
    (messages,) = database.execute("SELECT messages FROM snapshot").fetchone()
    known = "SELECT 1 FROM message WHERE queue_id = ?"
    arrived = came - sum(database.execute(known, (queue_id,)).fetchone() is not None for queue_id in before._edge)
    removed = before.sample.messages + arrived - messages
    return arrived, removed if removed >= 0 else None
