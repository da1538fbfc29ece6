"""Copies of messages before they are deleted; restore.py is the way back. docs/undo.md says why it is sound.

A copy is the queue file byte for byte: records, done-marks and content are all there is to a message. It is made
only of a file that is in `hold`, locked by us, so that no delivery changes it meanwhile. The copies of one chunk
share a file, so that one fsync makes all of them safe.
"""

import math
import os
import secrets
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from postqueue_api.agent import copy_file, failpoint
from postqueue_api.audit import write_line
from postqueue_api.errors import StorageFull
from postqueue_api.postfix import queue_file
from postqueue_api.queue.trash import Copy, TrashBook


@dataclass(frozen=True)
class Bounds:
    """How long copies are kept, and how much of them; 0 seconds keep none."""

    seconds: int
    bytes: int
    messages: int


@dataclass(frozen=True)
class Original:
    """A message that is about to be deleted: its file is open and locked."""

    queue_id: str
    queue_name: str
    file: BinaryIO


class Trash:
    """Keeps and forgets copies. Only the executor's thread keeps."""

    def __init__(self, book: TrashBook, directory: Path, bounds: Bounds) -> None:
        """Open the trash directory, 0700."""
        self._book = book
        self._directory = directory
        self._bounds = bounds
        self.lock = threading.Lock()
        self._arriving: set[str] = set()
        self._at_most: tuple[int, int] | None = None  # so many bytes and messages are kept, or fewer; None: not known
        directory.mkdir(mode=0o700, exist_ok=True)
        directory.chmod(0o700)

    @property
    def keeps(self) -> bool:
        """Whether anything is kept at all."""
        return self._bounds.seconds > 0

    @property
    def directory(self) -> Path:
        """Where the files are."""
        return self._directory

    def keep(self, operation_id: str, originals: list[Original], *, to_move: bool = False) -> None:
        """Copy messages, so that they are safely on disk when this returns. `to_move`: until somebody else has them.

        Raises:   StorageFull, and then nothing is kept; UnexpectedOutput when what was written reads back otherwise
        """
        if not originals or not (self.keeps or to_move):
            return
        with self.lock:
            self._make_room(originals)
            path = self._directory / f"{operation_id}-{secrets.token_hex(4)}"
            try:
                copies = self._write(path, operation_id, originals, math.inf if to_move else self._bounds.seconds)
                failpoint.reach("trash written")
                self._book.add(copies)
            except OSError as error:
                path.unlink(missing_ok=True)
                raise StorageFull("There is no room in the trash, so nothing was deleted.") from error
            except BaseException:
                path.unlink(missing_ok=True)
                raise

    def purge(self) -> None:
        """Forget what is kept beyond its time, each with a line in the audit."""
        with self.lock:
            self._forget(self._book.expired(time.time()), "its time was over")
            self.sweep()

    def sweep(self) -> None:
        """Remove files of which the book has no copy that is good for anything. Needs the lock."""
        known = {file for file, _, _ in self._book.oldest_files()}
        for path in self._directory.iterdir():
            if path.name not in known and not path.name.startswith(tuple(self._arriving)):
                path.unlink(missing_ok=True)

    def drop_unused(self, files: set[str]) -> None:
        """Remove these files, as far as no copy in them is good for anything. Needs the lock."""
        in_use = {file for file, _, _ in self._book.oldest_files()}
        for name in files - in_use:
            (self._directory / name).unlink(missing_ok=True)

    def open(self, copy: Copy) -> BinaryIO:
        """The file that a copy lies in, to read from."""
        return (self._directory / copy.file).open("rb")

    def verify(self, copy: Copy) -> None:
        """Read a copy again. Raises UnexpectedOutput when it is damaged."""
        with self.open(copy) as file:
            copy_file.verify(file, copy.offset, copy.length, copy.digest)

    def room(self) -> tuple[int, int]:
        """How much more may be kept without giving up what is: bytes and messages."""
        files = self._book.oldest_files()
        size, messages = sum(each[1] for each in files), sum(each[2] for each in files)
        return self._bounds.bytes - size, self._bounds.messages - messages

    @contextmanager
    def arrival(self, operation_id: str) -> Iterator[None]:
        """Leave files alone whose names begin so, while the block lasts; then those that the book does not know go."""
        self._arriving.add(operation_id)
        try:
            yield
        finally:
            self._arriving.discard(operation_id)
            with self.lock:
                self._at_most = None
                self.sweep()

    # --- keeping --------------------------------------------------------------------------------------------

    def _write(self, path: Path, operation_id: str, originals: Iterable[Original], seconds: float) -> list[Copy]:
        now = time.time()
        copies = []
        with copy_file.create(path) as file:
            for original in originals:
                offset = file.tell()
                digest = copy_file.copy(original.file, file)
                envelope = queue_file.read_envelope(original.file)
                status = os.fstat(original.file.fileno())
                copies.append(
                    Copy(
                        number=0,
                        queue_id=original.queue_id,
                        operation_id=operation_id,
                        state="written",
                        file=path.name,
                        offset=offset,
                        length=file.tell() - offset,
                        digest=digest,
                        queue_name=original.queue_name,
                        arrival_time=envelope.arrival_time,
                        sender=envelope.sender,
                        recipients=len(envelope.recipients),
                        forced_expire=queue_file.is_force_expired(status),
                        kept_at=now,
                        expires_at=now + seconds,
                    )
                )
            file.flush()
            os.fsync(file.fileno())
        copy_file.fsync_directory(self._directory)
        for copy in copies:
            self.verify(copy)
        return copies

    def _make_room(self, originals: list[Original]) -> None:
        """Forget the oldest copies when these would be too many; refuse when these alone are.

        What is kept is summed up only when there may be no room: a walk over all of it for each chunk would make a
        delete the slower, the more it has deleted.
        """
        needed = sum(os.fstat(original.file.fileno()).st_size for original in originals)
        if needed > self._bounds.bytes or len(originals) > self._bounds.messages:
            raise StorageFull("The trash is smaller than what would be deleted: make it larger, or keep no copy.")
        if self._at_most is None or not self._fits(self._at_most[0] + needed, self._at_most[1] + len(originals)):
            self._at_most = self._forget_until(needed, len(originals))
        self._at_most = self._at_most[0] + needed, self._at_most[1] + len(originals)

    def _fits(self, size: int, messages: int) -> bool:
        return size <= self._bounds.bytes and messages <= self._bounds.messages

    def _forget_until(self, more_bytes: int, more_messages: int) -> tuple[int, int]:
        """Forget the oldest copies until there is room. Returns the bytes and messages that are left."""
        files, waiting = self._book.oldest_files(), self._book.waiting_files()
        size, messages = sum(each[1] for each in files), sum(each[2] for each in files)
        for name, its_bytes, its_messages in files:
            if self._fits(size + more_bytes, messages + more_messages):
                break
            if name not in waiting:
                self._forget(self._book.of_file(name), "newer copies needed its room")
                size, messages = size - its_bytes, messages - its_messages
        if not self._fits(size + more_bytes, messages + more_messages):
            raise StorageFull("The trash is full of copies that wait to be moved or restored: make it larger.")
        return size, messages

    def _forget(self, copies: list[Copy], why: str) -> None:
        """The line comes first: after a kill between the two it is written again, and none is missing."""
        for copy in copies:
            write_line("purge", queue_id=copy.queue_id, operation_id=copy.operation_id, reason=why, outcome="purged")
            failpoint.reach("purge told")
            self._book.change(copy.number, "kept", "purged")
            failpoint.reach("purged")
        self.drop_unused({copy.file for copy in copies})
