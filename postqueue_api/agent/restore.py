"""The way back from the trash into the queue. docs/undo.md says why it is sound."""

import logging
import os
from dataclasses import dataclass
from pathlib import Path

from postqueue_api.agent import copy_file, failpoint
from postqueue_api.agent.aside import aside
from postqueue_api.agent.trash import Trash
from postqueue_api.errors import Conflict, Error, Gone, StorageFull
from postqueue_api.postfix import naming, postsuper, queue_file
from postqueue_api.postfix.arguments import QueueId
from postqueue_api.postfix.process import Postfix
from postqueue_api.queue.trash import Copy, TrashBook

log = logging.getLogger(__name__)

_TEMPORARY = "restore-"
# What was there may be in the memory of qmgr still, and is lost if it is back under its old name: taking_out.py.
_IN_MEMORY = ("active", "incoming")
_ATTEMPTS = 3


@dataclass(frozen=True)
class Order:
    """For which message of which operation something is restored, and to which queue if not where it was.

    `is_begun`: an earlier attempt of this very operation broke off after it had claimed the copy. `although_exported`:
    also when somebody else has taken it over. `long_queue_ids`: what Postfix would name a new message by.
    """

    operation: int
    position: int
    to: str | None
    is_begun: bool
    although_exported: bool = False
    long_queue_ids: bool = True


class Restorer:
    """Gives copies back. Only the executor's thread restores."""

    def __init__(self, trash: Trash, book: TrashBook) -> None:
        """`recover` must be called before anything else."""
        self._trash = trash
        self._book = book

    def restore(self, postfix: Postfix, queue_directory: Path, copy: Copy, order: Order) -> tuple[str, str]:
        """Put a message back into the queue: `hold` or `deferred`, by default where it was.

        Returns:  the queue ID that it has now, and the queue

        Raises:   Conflict when it was restored before or its ID is in use, Gone when its time is over,
                  NoSuchMessage, StorageFull, UnexpectedOutput when the copy is damaged
        """
        with self._trash.lock:
            if order.is_begun:
                copy = self._settle_broken(copy, queue_directory)
            if order.is_begun and copy.state == "restored" and copy.restored_as is not None:
                queue_id = copy.restored_as
            else:
                queue_id = self._put_into_queue(queue_directory, copy, order)
            self._trash.drop_unused({copy.file})
        to = order.to or ("hold" if copy.queue_name == "hold" else "deferred")
        return queue_id, _release(postfix, queue_directory, queue_id) if to == "deferred" else "hold"

    def recover(self, queue_directory: Path) -> None:
        """After a restart, before anything is restored: settle what broke off, and remove what nobody knows."""
        for copy in self._book.in_state("restoring"):
            self._settle_broken(copy, queue_directory)
        for left in aside(queue_directory).glob(f"{_TEMPORARY}*"):
            left.unlink(missing_ok=True)
        self._trash.sweep()

    def _put_into_queue(self, queue_directory: Path, copy: Copy, order: Order) -> str:
        """Write the file under another name; claim the copy; give the file its name in `hold`; note it.

        So the copy's state and the other name tell after a crash how far it came. The file never has both names for
        long: pickup throws a file away that has two links, should somebody requeue it.
        """
        self._check(copy, order, queue_directory)
        temporary = _temporary(queue_directory, copy)
        try:
            inode = self._write_queue_file(temporary, copy, (queue_directory / "hold").stat())
            queue_id = _queue_id(queue_directory, copy, order, inode)
            failpoint.reach("restore written")
            self._claim(copy, order, queue_id)
        except BaseException:  # an interrupt too: what was begun is undone, and it goes on
            temporary.unlink(missing_ok=True)
            raise
        failpoint.reach("restore claimed")
        try:
            os.link(temporary, queue_directory / "hold" / queue_id)
        except OSError as error:
            self._book.change(copy.number, "restoring", "kept")
            temporary.unlink()
            if isinstance(error, FileExistsError):
                raise Conflict("There is a message with this queue ID on hold.") from None
            raise StorageFull("There is no room in the queue to restore a message.") from error
        failpoint.reach("restore linked")
        temporary.unlink()
        copy_file.fsync_directory(queue_directory / "hold")
        failpoint.reach("restore named")
        # Only when the book says so may it be delivered: after a crash it is not given back again.
        self._book.change(copy.number, "restoring", "restored", queue_id)
        failpoint.reach("restore noted")
        return queue_id

    def _settle_broken(self, copy: Copy, queue_directory: Path) -> Copy:
        """Find out whether a restore that broke off had put the message into the queue; it may have left it since.

        If somebody released it, and Postfix delivered it, the other name is the last one of its file: the marks in
        there tell.
        """
        if copy.state != "restoring":
            return copy
        temporary = _temporary(queue_directory, copy)
        is_back = not temporary.exists() or temporary.stat().st_nlink > 1 or not _is_due(temporary)
        temporary.unlink(missing_ok=True)
        self._book.change(copy.number, "restoring", "restored" if is_back else "kept", copy.restored_as)
        return self._book.newest(copy.queue_id, copy.operation_id)

    def _check(self, copy: Copy, order: Order, queue_directory: Path) -> None:
        if copy.state == "purged":
            raise Gone("The time of this copy is over; it is not kept any more.")
        if copy.state != "kept":
            raise Conflict("This message was restored before.", restored_as=copy.restored_as)
        if copy.exported_at is not None and not order.although_exported:
            raise Conflict("Somebody else has taken this message over, and it may be delivered twice if restored here.")
        if copy.origin is None and queue_file.find(queue_directory, copy.queue_id) is not None:
            raise Conflict("There is a message with this queue ID in the queue.")
        self._trash.verify(copy)

    def _claim(self, copy: Copy, order: Order, queue_id: str) -> None:
        item = order.operation, order.position
        if not self._book.claim(copy.number, item, queue_id, although_exported=order.although_exported):
            raise Conflict("This message was restored or purged at that moment.")

    def _write_queue_file(self, temporary: Path, copy: Copy, owner: os.stat_result) -> int:
        """Write a complete queue file, owned by Postfix and safe on disk. Returns its inode."""
        try:
            temporary.parent.mkdir(mode=0o700, exist_ok=True)
            temporary.unlink(missing_ok=True)
            with copy_file.create(temporary) as file, self._trash.open(copy) as kept:
                kept.seek(copy.offset)
                for part in copy_file.parts(kept, copy.length):
                    file.write(part)
                file.flush()
                os.fchown(file.fileno(), owner.st_uid, owner.st_gid)
                # Ready before it has its name: what is not, Postfix may clean away.
                os.fchmod(file.fileno(), 0o710 if copy.forced_expire else 0o700)
                os.fsync(file.fileno())
                return os.fstat(file.fileno()).st_ino
        except OSError as error:
            raise StorageFull("There is no room in the queue to restore a message.") from error


def _queue_id(queue_directory: Path, copy: Copy, order: Order, inode: int) -> str:
    """The queue ID for a restored message: its own if Postfix can keep it, else one as Postfix makes them.

    Source: src/global/mail_queue.c; a long queue ID names the file for ever, a short one must fit the inode
    """
    is_long = naming.is_long(copy.queue_id)
    if copy.origin is None and copy.queue_name not in _IN_MEMORY:
        return copy.queue_id if is_long else naming.short_queue_id(inode)
    is_free = queue_file.find(queue_directory, copy.queue_id) is None
    if copy.origin is not None and is_long and order.long_queue_ids and is_free:
        return copy.queue_id
    return naming.long_queue_id(inode) if order.long_queue_ids else naming.short_queue_id(inode)


def _is_due(path: Path) -> bool:
    with queue_file.open_file(path) as file:
        return queue_file.glance(file)[1]


def _temporary(queue_directory: Path, copy: Copy) -> Path:
    return aside(queue_directory) / f"{_TEMPORARY}{copy.number}"


def _release(postfix: Postfix, queue_directory: Path, queue_id: str) -> str:
    """Let what was put into `hold` go. Returns the queue that it is in: `hold` when postsuper did not do it."""
    for _ in range(_ATTEMPTS):
        if queue_file.find(queue_directory, queue_id, ("hold",)) is None:
            return "deferred"
        try:
            failure = postsuper.release(postfix, [QueueId.parse(queue_id)]).failure
        except Error as error:
            failure = error
        if failure is not None:
            log.error("postsuper, for restore: %s", failure)
    return "deferred" if queue_file.find(queue_directory, queue_id, ("hold",)) is None else "hold"
