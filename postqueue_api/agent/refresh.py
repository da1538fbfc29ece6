"""Keep the snapshot fresh: at most one `postqueue -j` at a time, and only when somebody wants newer data.

The listing is drained at full speed into a file, so that a slow HTTP client never holds a showq process.
"""

import logging
import math
import sqlite3
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from postqueue_api.errors import CommandTimeout, Error, StorageFull, UnexpectedOutput
from postqueue_api.postfix import postqueue
from postqueue_api.postfix.process import Postfix
from postqueue_api.queue import listing, snapshot
from postqueue_api.queue.snapshot import SnapshotInfo
from postqueue_api.queue.snapshot_writer import NextAttempt, SnapshotWriter

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Retention:
    """What is kept besides the newest snapshots: those that are paged through, bounded in three ways."""

    seconds: float = 600
    limit: int = 8
    bytes: int = 4 << 30


class Refresher:
    """The one place that lists the queue. Safe to use from several threads."""

    def __init__(
        self,
        find_postfix: Callable[[], Postfix],
        directory: Path,
        retry_times: Callable[[], NextAttempt] = lambda: lambda queue_name, queue_id: None,
        retention: Retention | None = None,
    ) -> None:
        """Start with an empty directory: what an agent before this one left is removed.

        `retry_times` gives, for each listing anew, what tells when a message is tried next.
        """
        self._find_postfix = find_postfix
        self._retry_times = retry_times
        self._retention = retention or Retention()
        self._kept: dict[str, float] = {}
        self._last_complete: str | None = None
        self._directory = directory
        self._changed = threading.Condition()
        self._running = False
        self._last: SnapshotInfo | None = None
        self._failure: tuple[float, Error] | None = None
        snapshot.sweep(directory, keep=())

    def ensure(self, max_age: float, wait: float) -> SnapshotInfo:
        """See to it that there is a snapshot no older than `max_age` seconds, and return it.

        After `wait` seconds the last one is returned, with its true age, while the refresh goes on, unless the last
        attempt failed; without a last one the wait is for as long as the listing may take.

        Raises:   what the listing raised, when it gave no message at all: MailSystemDown, NotPermitted,
                  NotInstalled, Misconfigured, CommandFailed, CommandTimeout, StorageFull
        """
        oldest = math.floor((time.time() - max_age) * 1000) / 1000  # taken_at is in milliseconds too
        deadline = time.monotonic() + wait
        with self._changed:
            while True:
                if self._last is not None and self._last.taken_at >= oldest:
                    return self._last
                if self._failure is not None and self._failure[0] >= oldest:
                    raise self._failure[1]
                if not self._running:
                    threading.Thread(target=self._refresh, name="refresh", daemon=True).start()
                    self._running = True  # only now: a thread may be refused
                if not self._changed.wait(self._remaining(deadline)) and time.monotonic() >= deadline:
                    if self._failure is not None:
                        raise self._failure[1]
                    if self._last is not None:
                        return self._last
                    raise CommandTimeout("The first listing of the queue is still under way: ask again.")

    def keep(self, snapshot_id: str) -> None:
        """Keep a snapshot for somebody who pages through it, from now on for the time of the settings."""
        with self._changed:
            self._kept[snapshot_id] = time.monotonic() + self._retention.seconds

    def _remaining(self, deadline: float) -> float:
        if self._last is None:
            return threading.TIMEOUT_MAX
        return max(0.0, deadline - time.monotonic())

    def _refresh(self) -> None:
        started = time.time()
        info, failure = None, None
        try:
            info = self._list()
        except Error as error:
            failure = error
        except sqlite3.OperationalError as error:
            log.error("snapshot: %s", error)
            failure = StorageFull("There is no room for a listing of the queue: free some space.")
        except BaseException:  # raised on, after those who wait were told of it
            failure = Error("The listing of the queue failed by a fault of the service; the agent's log has it.")
            raise
        finally:
            with self._changed:
                self._running = False
                self._last = info or self._last
                self._failure = None if failure is None else (started, failure)
                self._changed.notify_all()

    def _list(self) -> SnapshotInfo:
        postfix = self._find_postfix()
        with SnapshotWriter(self._directory, self._retry_times()) as writer:
            with postqueue.listing(postfix) as queue:
                writer.add(listing.lines(queue.chunks()))
                mail_system, problem = None, None
                try:
                    mail_system = queue.judge()
                    if writer.skipped_lines and not writer.messages:
                        raise UnexpectedOutput("postqueue listed something, and not one line of it could be read.")
                except Error as error:
                    if not writer.messages:
                        raise
                    problem = error.code
            last_complete = None if problem is None else self._last_complete
            info = writer.publish(mail_system=mail_system, problem=problem, last_complete=last_complete)
        with self._changed:
            self._sweep(info)
        return info

    def _sweep(self, newest: SnapshotInfo) -> None:
        """Keep the newest, the one before (a request may be about to open it), the last complete one, and the kept."""
        before = None if self._last is None else self._last.snapshot_id
        if newest.complete:
            self._last_complete = newest.snapshot_id
        now = time.monotonic()
        self._kept = {name: until for name, until in self._kept.items() if until > now}
        kept: list[str] = []
        room = self._retention.bytes
        for name in sorted(self._kept, key=lambda name: self._kept[name], reverse=True)[: self._retention.limit]:
            room -= snapshot.size(self._directory, name)
            if room < 0:
                break
            kept.append(name)
        always = {newest.snapshot_id, before, self._last_complete}
        snapshot.sweep(self._directory, keep={name for name in (*always, *kept) if name is not None})
