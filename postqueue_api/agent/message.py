"""One message on its way through a change: its file, its lock, and whether it is the one that was meant."""

import fcntl
import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import BinaryIO

from postqueue_api.postfix import queue_file
from postqueue_api.postfix.arguments import QueueId, QueueName
from postqueue_api.queue.operation import Item, Target

HOLD, MAILDROP, INCOMING = QueueName("hold"), QueueName("maildrop"), QueueName("incoming")
ACTIVE, DEFERRED = QueueName("active"), QueueName("deferred")
_NULL_SENDER = "mailer-daemon"


@dataclass
class Message:
    """A message under our hands. `next_queue_id`: what it will be called when it is taken out of `active`."""

    item: Item
    queue_id: QueueId
    queue_name: str
    place: str  # where its file is
    was_held: bool
    file: BinaryIO | None = None
    is_marked: bool = False  # there is a second link to its file
    next_queue_id: QueueId | None = None

    @property
    def new_queue_id(self) -> QueueId | None:
        """What it is called since it was taken out of `active`; None while it has the name by which it was meant."""
        return None if self.queue_id == self.item.target.queue_id else self.queue_id

    @property
    def intent(self) -> tuple[int, bool, str | None]:
        """What the journal is to know of it before it is touched."""
        return self.item.position, self.was_held, self.next_queue_id or self.new_queue_id


def is_same(target: Target, found: queue_file.Identity | None) -> bool:
    """Whether it is the message that was chosen. What moved while we looked is taken for it until the second look."""
    if target.arrival_time is None or found is None:
        return True
    return found.arrival_time == target.arrival_time and (
        target.sender in (None, found.sender) or _comparable(found.sender) == _comparable(target.sender)
    )


def is_due(file: BinaryIO) -> bool:
    """Whether anybody is left to deliver it to, as far as the file can be read."""
    return queue_file.glance(file)[1]


def is_file(file: BinaryIO, place: str) -> bool:
    """Whether an open file is the one that has this path now."""
    try:
        return os.path.samestat(os.fstat(file.fileno()), os.lstat(place))
    except FileNotFoundError:
        return False


def status(message: Message) -> os.stat_result:
    """The status of its open file."""
    assert message.file is not None
    return os.fstat(message.file.fileno())


def try_lock(message: Message) -> bool:
    """Lock a file in hold or maildrop for ourselves; False when somebody works with it. Never for `active`."""
    assert message.file is not None
    try:
        fcntl.flock(message.file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def unlock(messages: Iterable[Message]) -> None:
    """Let go of what Postfix is to work with at once: pickup and qmgr pass over a file that is locked."""
    for message in messages:
        if message.file is not None:
            fcntl.flock(message.file, fcntl.LOCK_UN)


def _comparable(sender: str) -> str:
    """A sender without what differs between the queue file and a listing: case, quotes, unprintable characters."""
    if sender.lower() == _NULL_SENDER:
        return ""
    return re.sub(r"[^\x20-\x7e]+", "?", sender.lower().replace('"', "").replace("\\", ""))
