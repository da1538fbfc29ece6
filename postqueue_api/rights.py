"""Who we are, and whose the directories are that both halves use."""

import os
import pwd
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from postqueue_api.config import variable
from postqueue_api.errors import Misconfigured

_SHARED_MODE = 0o2750
_OURS = {
    *("journal.sqlite", "journal.sqlite-wal", "journal.sqlite-shm", "samples.json", ".samples.json.partial"),
    *("snapshots", "trash", "lock", "lost+found"),
}


def group_of(user: str) -> int:
    """The primary group of a user. Raises Misconfigured when there is no such user."""
    try:
        return pwd.getpwnam(user).pw_gid
    except KeyError:
        raise Misconfigured(f"There is no user {user}: create it, or set POSTQUEUE_API_USER.") from None


def become(user: str) -> None:
    """Give up root for a user, for good. Does nothing for an ordinary user. Raises Misconfigured."""
    if os.geteuid() != 0:
        return
    group = group_of(user)
    os.initgroups(user, group)
    os.setgid(group)
    os.setuid(pwd.getpwnam(user).pw_uid)


@contextmanager
def acting_as(user: str) -> Iterator[None]:
    """Be a user for a while, as far as files are concerned. Does nothing for an ordinary user. Raises Misconfigured."""
    if os.geteuid() != 0:
        yield
        return
    groups, group = os.getgroups(), group_of(user)
    os.initgroups(user, group)
    os.setegid(group)
    os.seteuid(pwd.getpwnam(user).pw_uid)
    try:
        yield
    finally:
        os.seteuid(0)
        os.setegid(0)
        os.setgroups(groups)


def share(directory: Path, user: str) -> None:
    """Make a directory that web's user may read, and new files in it with it. Raises Misconfigured."""
    try:
        directory.mkdir(mode=0o750, parents=True, exist_ok=True)
        if os.geteuid() == 0:
            os.chown(directory, 0, group_of(user))
            directory.chmod(_SHARED_MODE)
    except OSError as error:
        raise Misconfigured(f"The agent cannot use its directory {directory.name}: {error.strerror}.") from None


def claim(directory: Path, user: str, setting: str) -> None:
    """The same for a directory that a setting names, unless it is somebody else's, or has other things in it.

    Raises:   Misconfigured, naming the setting, and then nothing was changed
    """
    name = variable(setting)
    try:
        found = directory.stat()
    except FileNotFoundError:
        share(directory, user)
        return
    except OSError as error:
        raise Misconfigured(f"{name} cannot be used: {error.strerror}.") from None
    if not stat.S_ISDIR(found.st_mode):
        raise Misconfigured(f"{name} is in the place of a file: name a directory of its own.")
    if os.geteuid() == 0:
        if found.st_uid != 0:
            raise Misconfigured(
                f"The directory of {name} belongs to {_name_of(found.st_uid)}, and must belong to root:"
                " chown it, or name another one."
            )
        if (found.st_gid, stat.S_IMODE(found.st_mode)) != (group_of(user), _SHARED_MODE):
            _refuse_what_is_not_ours(directory, name)
            share(directory, user)
    if not os.access(directory, os.W_OK | os.X_OK):  # for root: a file system that is read-only
        raise Misconfigured(f"The agent cannot write to the directory of {name}: mount it writable, or name another.")


def _refuse_what_is_not_ours(directory: Path, name: str) -> None:
    """Of /run or /tmp the rights would be changed for everybody."""
    for entry in directory.iterdir():
        if entry.name not in _OURS and not (entry.is_socket() and entry.name == "agent.sock"):
            raise Misconfigured(f"The directory of {name} holds other things than ours: name a directory of its own.")


def _name_of(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"user {uid}"
