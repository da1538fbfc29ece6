"""Take a sample of the queue now and then, from the listing that readers asked for, or from one of our own.

Never more than one listing an interval, and at most a twentieth of the time is spent listing.
"""

import logging
import sqlite3
import threading
import time
from pathlib import Path

from postqueue_api.agent.refresh import Refresher
from postqueue_api.errors import Error
from postqueue_api.queue import samples, snapshot
from postqueue_api.queue.samples import Counted, Ring

log = logging.getLogger(__name__)

_FIRST_SECONDS = 5.0  # Postfix may be starting beside us
_LISTING_SHARE = 20
_GAP = 3


class Sampler:
    """One thread that writes the ring."""

    def __init__(self, refresher: Refresher, snapshots: Path, path: Path, interval_seconds: int) -> None:
        """Write to `path` from what is in `snapshots`; with an interval of 0 nothing, and what was there is removed.

        Raises:   OSError when it cannot be removed
        """
        self._refresher = refresher
        self._snapshots = snapshots
        self._path = path
        self._interval = interval_seconds
        self._rest = float(interval_seconds)
        self._duration = 0.0
        self._last: tuple[str, Counted] | None = None
        self._complaint: str | None = None
        if not interval_seconds:
            path.unlink(missing_ok=True)

    def start(self) -> None:
        """Begin, unless the interval is 0."""
        if self._interval:
            threading.Thread(target=self._work, name="samples", daemon=True).start()

    def _work(self) -> None:
        ring = samples.read(self._path)
        due = 0.0 if ring is None or not ring.samples else ring.samples[-1].taken_at + self._interval - time.time()
        time.sleep(max(_FIRST_SECONDS, min(due, self._interval)))
        while True:
            time.sleep(self.take())

    def take(self) -> float:
        """Take a sample if the queue can be listed. Returns:  for how many seconds to rest then"""
        begun = time.monotonic()
        try:
            self._take()
            complaint = None
        except Error as error:
            complaint = error.detail
        except (OSError, sqlite3.Error) as error:
            complaint = str(error)
        if complaint is not None and complaint != self._complaint:
            log.warning("no sample of the queue was taken: %s", complaint)
        self._complaint = complaint
        self._rest = max(self._interval, _LISTING_SHARE * (time.monotonic() - begun))
        return self._rest

    def _take(self) -> None:
        """Nothing is taken from a listing that broke off, nor twice from the same."""
        info = self._refresher.ensure(self._interval / 2 + self._duration, threading.TIMEOUT_MAX)
        self._duration = info.duration
        if not info.complete or (self._last is not None and self._last[0] == info.snapshot_id):
            return
        found = snapshot.by_id(self._snapshots, info.snapshot_id)
        before = None if self._last is None else self._last[1]
        if before is not None and not 0 < info.taken_at - before.sample.taken_at <= _GAP * self._rest:
            before = None
        counted = Counted(found, before)
        samples.write(self._path, self._ring().with_(counted.sample))
        self._last = (info.snapshot_id, counted)

    def _ring(self) -> Ring:
        """What was kept so far: nothing of a file that this version cannot read, which is begun anew."""
        ring = samples.read(self._path)
        if ring is None and self._path.exists():
            log.warning("%s cannot be read by this version, so the samples begin anew", self._path.name)
        return Ring(self._interval, [] if ring is None else ring.samples)
