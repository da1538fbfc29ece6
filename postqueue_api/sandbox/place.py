"""The directory of a sandbox: a new one, a claimed one, and whether Postfix can work in it."""

import fcntl
import pwd
import tempfile
from pathlib import Path
from typing import IO

from postqueue_api.errors import Misconfigured
from postqueue_api.sandbox import configuration, processes


def fresh_directory() -> Path:
    """A new, empty directory that Postfix's own user can reach; pytest's and mktemp's defaults often are not."""
    directory = Path(tempfile.mkdtemp(prefix="postqueue-api-sandbox-", dir="/var/tmp"))
    directory.chmod(0o755)
    return directory


def claim(directory: Path) -> IO[str]:
    """Make the directory, see that it can work, and mark it as a sandbox, to be removed whatever happens next.

    A sandbox that was left behind there, by a machine that went down, is removed first.

    Returns:  the open lock, which keeps others out until it is closed
    Raises:   NotPermitted, NotInstalled, Misconfigured; the directory is then as it was
    """
    processes.command("postfix")
    created = not directory.exists()
    if not created and any(directory.iterdir()) and not configuration.is_sandbox(directory):
        raise Misconfigured("The directory of a sandbox must be new or empty, because it is removed at the end.")
    directory.mkdir(mode=0o755, parents=True, exist_ok=True)
    try:
        _check_reachable(directory)
    except Misconfigured:
        if created:
            directory.rmdir()
        raise
    lock = _lock(directory)
    if configuration.is_sandbox(directory):
        processes.remove(directory)
        lock.close()
        directory.mkdir(mode=0o755)
        lock = _lock(directory)
    configuration.mark(directory)
    return lock


def _check_reachable(directory: Path) -> None:
    """Some daemons open files by their full path after they gave up root, so Postfix's own user must get there."""
    try:
        pwd.getpwnam("postfix")
    except KeyError:
        raise Misconfigured("There is no user postfix. Is Postfix installed completely?") from None
    if processes.run("/usr/bin/test", "-x", str(directory), user="postfix").returncode:
        raise Misconfigured(
            "Postfix's own user cannot reach the directory of the sandbox, because one above it is closed to"
            " others. Leave the directory out, or choose one below /var/tmp."
        )


def _lock(directory: Path) -> IO[str]:
    lock = (directory / "lock").open("w")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        lock.close()
        raise Misconfigured("Another sandbox runs in this directory.") from None
    return lock
