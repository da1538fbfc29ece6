"""Make a queue of any size out of a few real deferred messages, by copying their files.

postqueue lists the copies, and postsuper and postcat find them by name. They share content, recipients and arrival
time, so they are good for measuring scale and for nothing else. A copy's inode does not fit its name: such
a queue must never see `postsuper -s`, which would rename them all.
"""

import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path

# Long queue IDs: seconds and microseconds in base 52, "z", the inode in base 51 (Postfix, mail_queue.h).
_DIGITS = "0123456789BCDFGHJKLMNPQRSTVWXYZbcdfghjklmnpqrstvwxyz"
_TEMPLATE_LIMIT_BYTES = 16_000


@dataclass(frozen=True)
class _Template:
    """The bytes of a deferred message and of its delay reasons, with what the files' status must say."""

    message: bytes
    reasons: bytes
    status: os.stat_result


def multiply(queue_directory: Path, count: int, queue_name: str = "deferred", only: str = "*") -> list[str]:
    """Add `count` copies of small deferred messages to a queue, deferred or hold; Postfix may run or not.

    `only`: the queue ID of the one message to copy.

    Returns:  the new queue IDs
    Raises:   LookupError when there is no deferred message to copy
    """
    templates = list(_templates(queue_directory, only))
    if not templates:
        raise LookupError("There is no small deferred message to copy: fill the sandbox first.")
    for digit in "0123456789ABCDEF":
        _make_directory(queue_directory / "deferred" / digit, templates[0].status)
        _make_directory(queue_directory / "defer" / digit, templates[0].status)
    created = []
    seconds = int(time.time())
    for number, template in zip(range(count), cycle(templates), strict=False):
        # A second for every thousand, and microseconds spread over all hash directories.
        microseconds = number % 1000 * 999 + 500
        queue_id = long_queue_id(seconds - number // 1000, microseconds, number + 1)
        digit = f"{microseconds:05X}"[0]
        folder = Path(queue_name, digit) if queue_name == "deferred" else Path(queue_name)
        _write(queue_directory / "defer" / digit / queue_id, template.reasons, template.status, 0o600)
        _write(queue_directory / folder / queue_id, template.message, template.status, 0o700)
        created.append(queue_id)
    return created


def long_queue_id(seconds: int, microseconds: int, inode: int) -> str:
    """A queue ID as `enable_long_queue_ids = yes` makes them."""
    return _digits(seconds, 52).rjust(6, "0") + _digits(microseconds, 52).rjust(4, "0") + "z" + _digits(inode, 51)


def _digits(number: int, base: int) -> str:
    text = ""
    while number or not text:
        number, digit = divmod(number, base)
        text = _DIGITS[digit] + text
    return text


def _templates(queue_directory: Path, name: str) -> Iterator[_Template]:
    # In the order of their arrival, which a queue ID begins with, so that every queue is of the same mail.
    for path in sorted(queue_directory.glob(f"deferred/**/{name}"), key=lambda path: path.name):
        status = path.lstat()
        reasons = queue_directory / "defer" / path.relative_to(queue_directory / "deferred")
        if path.is_file() and status.st_size <= _TEMPLATE_LIMIT_BYTES and reasons.is_file():
            yield _Template(path.read_bytes(), reasons.read_bytes(), status)


def _make_directory(path: Path, status: os.stat_result) -> None:
    if not path.exists():
        path.mkdir(mode=0o700)
        os.chown(path, status.st_uid, path.parent.stat().st_gid)


def _write(path: Path, content: bytes, status: os.stat_result, mode: int) -> None:
    """Write a file of Postfix's; qmgr takes a message for complete when it is executable, so that comes last."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        os.write(descriptor, content)
        os.fchown(descriptor, status.st_uid, status.st_gid)
        os.utime(descriptor, ns=(status.st_atime_ns, status.st_mtime_ns))  # the next attempt, in the future
        os.fchmod(descriptor, mode)
    finally:
        os.close(descriptor)
