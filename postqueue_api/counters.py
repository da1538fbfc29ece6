"""The place in memory where web's processes count together, for prometheus_client's multiprocess mode.

Whoever holds the lock of such a directory, or is a child of that process, uses it; without a holder it is what a
process left that was killed.
"""

import fcntl
import os
import pwd
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from postqueue_api.rights import group_of

SHARED_MEMORY = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None  # noqa: S108 - heartbeats and counters
PREFIX = "postqueue-api-counters-"
VARIABLE = "PROMETHEUS_MULTIPROC_DIR"


@contextmanager
def shared_counters(user: str) -> Iterator[None]:
    """Make the place, tell prometheus_client of it, and remove it when this very process leaves the block."""
    maker, place = os.getpid(), Path(tempfile.gettempdir() if SHARED_MEMORY is None else SHARED_MEMORY)
    _remove_left(place, {0, os.geteuid(), *_uids(user)})
    directory, lock = _made(place)
    try:
        if os.geteuid() == 0:
            os.chown(directory, pwd.getpwnam(user).pw_uid, group_of(user))
        os.environ[VARIABLE] = str(directory)
        yield
    finally:
        if os.getpid() == maker:  # gunicorn's workers come along here too
            shutil.rmtree(directory, ignore_errors=True)
            os.close(lock)


def _uids(user: str) -> list[int]:
    """For who is not root, that user need not be there."""
    return [each.pw_uid for each in pwd.getpwall() if each.pw_name == user]


def _made(place: Path) -> tuple[Path, int]:
    while True:
        directory = Path(tempfile.mkdtemp(prefix=PREFIX, dir=place))
        lock = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        fcntl.flock(lock, fcntl.LOCK_EX)
        if directory.exists():  # else another start took it for one that was left
            return directory, lock
        os.close(lock)


def _remove_left(place: Path, owners: set[int]) -> None:
    """Remove what nobody holds, of those to whom it may belong: others could put anything there."""
    for directory in place.glob(f"{PREFIX}*"):
        with suppress(OSError):
            lock = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
            try:
                if os.fstat(lock).st_uid in owners:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    shutil.rmtree(directory)
            finally:
                os.close(lock)
