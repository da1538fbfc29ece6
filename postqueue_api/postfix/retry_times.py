"""When deferred messages are tried next: the modification time of their queue files.

Where a file is depends on hash_queue_depth, now and when it came there: the depth is that at which the last one was.

Source: qmgr(8), "deferred queue"; src/qmgr/qmgr_active.c sets the file's time to the next attempt (Postfix 3.7.11)
"""

import os
from pathlib import Path

from postqueue_api.postfix import queue_file


class RetryTimes:
    """Looks up one message after the other. Where a file should be is guessed first, and looked for if it is not."""

    def __init__(self, queue_directory: Path) -> None:
        self._queue_directory = queue_directory
        self._deferred = str(queue_directory / "deferred")
        self._depth = 1  # Postfix's default

    def __call__(self, queue_name: str, queue_id: str) -> int | None:
        """Seconds since the epoch; None when the message is not deferred, or moved meanwhile."""
        if queue_name != "deferred":
            return None
        try:
            # os.stat, since a Path for each of a million messages takes longer than all the rest
            return int(os.stat(self._expected(queue_id)).st_mtime)  # noqa: PTH116
        except OSError:
            found = queue_file.find(self._queue_directory, queue_id, ("deferred",))
            if found is None:
                return None
            self._depth = len(Path(found.place).relative_to(self._deferred).parts) - 1
            return int(found.stat.st_mtime)

    def _expected(self, queue_id: str) -> str:
        directories = queue_file.hash_digits(queue_id)[: self._depth]
        return "/".join((self._deferred, *directories, queue_id))
