"""Take in a tar of messages that another Postfix's service made: all of it is checked before any of it counts.

While the tar comes its queue files are written into the trash, where the book does not know them, and what is to be
said of each into a file beside. Only when the manifest has come and is right, one transaction makes them known. So
whatever ends an import before, a cut stream, a full disk or kill -9, leaves nothing of it but files that are removed.
"""

import math
import os
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO

import msgspec

from postqueue_api.agent import copy_file, failpoint, parcel, tar
from postqueue_api.agent.trash import Trash
from postqueue_api.errors import StorageFull
from postqueue_api.postfix import queue_file
from postqueue_api.queue.moves import Arrival, Identity, MoveBook
from postqueue_api.queue.operation import Operation, Request, too_many
from postqueue_api.queue.trash import Copy

_FILE_MESSAGES = 500
_FILE_BYTES = 64 << 20
_LENGTH_BYTES = 4


@dataclass(frozen=True)
class Limits:
    """What one import may be: bytes of the tar, and messages."""

    bytes: int
    messages: int


class Import:
    """One import. `again`: also of what was imported before."""

    def __init__(self, book: MoveBook, trash: Trash, operation_id: str, *, again: bool) -> None:
        self._book, self._trash, self._operation_id, self._again = book, trash, operation_id, again
        self._total = parcel.Total()
        self._file: BinaryIO | None = None
        self._written: list[Copy] = []  # in the present file
        self._files = 0
        self._room = trash.room()

    def run(self, stream: BinaryIO, request: Request, limits: Limits) -> Operation:
        """Take in a tar. The outcome of a message is `imported`; `no_change` or `changed` when it was imported before;
        `failed` when its queue file is damaged.

        Raises:   InvalidArgument for a tar that is cut or none of ours; PayloadTooLarge; StorageFull; nothing is
                  taken of it then
        """
        with self._trash.arrival(self._operation_id), ExitStack() as files:
            files.callback(self._close)
            try:
                with copy_file.create(self._path("rows")) as rows:
                    self._read(tar.Archive(stream, limits.bytes), rows, limits.messages)
                    self._end_file()
                    failpoint.reach("import written")
                    rows.seek(0)
                    operation = self._book.bring_in(self._operation_id, request, _arrivals(rows), again=self._again)
            except OSError as error:
                raise StorageFull("There is no room for the import, so nothing of it was taken.") from error
            failpoint.reach("import noted")
            return operation

    def _path(self, suffix: str) -> Path:
        return self._trash.directory / f"{self._operation_id}-{suffix}"

    def _read(self, archive: tar.Archive, rows: BinaryIO, messages: int) -> None:
        while (member := archive.next()) is not None and not parcel.is_manifest(member):
            stem = parcel.stem_of(member)
            content = _small(archive, member)
            metadata = parcel.read_metadata(content)
            member = archive.next()
            if member is None or not parcel.is_queue_file(member, stem) or member.size != metadata.bytes:
                raise tar.refused("A message in it has no queue file, or one of another size")
            row = msgspec.msgpack.encode(self._take(archive, metadata))
            rows.write(len(row).to_bytes(_LENGTH_BYTES) + row)
            self._total.add(content, metadata.bytes)
            if self._total.messages > messages:
                raise too_many(messages)
        if member is None:
            raise tar.refused("Its manifest is missing: it was cut")
        if not self._total.is_that_of(parcel.read_manifest(_small(archive, member))):
            raise tar.refused("What came is not what its manifest says: something is missing or was changed")
        if archive.next() is not None:
            raise tar.refused("It goes on behind its manifest")
        rows.flush()

    def _take(self, archive: tar.Archive, metadata: parcel.Metadata) -> Arrival:
        digest = bytes.fromhex(metadata.checksum)
        identity = Identity(metadata.queue_id, metadata.origin, metadata.arrival_time, digest)
        known = None if self._again else self._book.known(identity)
        file = None if known else self._open(metadata.bytes)
        offset = 0 if file is None else file.tell()
        found = copy_file.checksum()
        for part in archive.read():
            found.update(part)
            if file is not None:
                file.write(part)
        if found.digest() != digest:
            failure: str | None = "its bytes are not those of its checksum: it is damaged"
        elif file is None:
            assert known is not None
            return Arrival(identity, metadata.sender, None, *known)
        else:
            failure = _failure(file, offset, metadata)
        if failure is None and file is not None:
            self._written.append(self._copy(metadata, offset, digest))
            return Arrival(identity, metadata.sender, self._written[-1])
        if file is not None:
            file.truncate(offset)
            file.seek(offset)
        return Arrival(identity, metadata.sender, None, "failed", failure)

    def _copy(self, metadata: parcel.Metadata, offset: int, digest: bytes) -> Copy:
        return Copy(
            number=0,
            queue_id=metadata.queue_id,
            operation_id=self._operation_id,
            state="kept",
            file=self._path(str(self._files)).name,
            offset=offset,
            length=metadata.bytes,
            digest=digest,
            queue_name=metadata.queue_name,
            arrival_time=metadata.arrival_time,
            sender=metadata.sender,
            recipients=metadata.recipient_count,
            forced_expire=metadata.forced_expire,
            kept_at=time.time(),
            expires_at=0.0,  # never; see _arrivals
        )

    # --- files ----------------------------------------------------------------------------------------------

    def _open(self, size: int) -> BinaryIO:
        """The file for the next message, when there is room for it in the trash."""
        bytes_left, messages_left = self._room
        if size > bytes_left or not messages_left:
            raise StorageFull(
                "The trash has no room for this import, so nothing of it was taken: restore what is in it, or raise"
                " POSTQUEUE_API_TRASH_LIMIT_BYTES or POSTQUEUE_API_TRASH_LIMIT_MESSAGES."
            )
        self._room = bytes_left - size, messages_left - 1
        if self._file is not None and (self._file.tell() >= _FILE_BYTES or len(self._written) >= _FILE_MESSAGES):
            self._end_file()
        if self._file is None:
            self._files += 1
            self._file = copy_file.create(self._path(str(self._files)))
        return self._file

    def _end_file(self) -> None:
        """Make the present file safe on disk, and read it back."""
        if self._file is None:
            return
        self._file.flush()
        os.fsync(self._file.fileno())
        for copy in self._written:
            copy_file.verify(self._file, copy.offset, copy.length, copy.digest)
        copy_file.fsync_directory(self._trash.directory)
        self._close()
        self._written.clear()

    def _close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None


def _small(archive: tar.Archive, member: tar.Member) -> bytes:
    if member.size > parcel.METADATA_LIMIT_BYTES:
        raise tar.refused("It has metadata of more than a mebibyte")
    return b"".join(archive.read())


def _failure(file: BinaryIO, offset: int, metadata: parcel.Metadata) -> str | None:
    """Why a queue file that came as it was sent cannot be a message here."""
    envelope = queue_file.read_envelope(copy_file.section(file, offset, metadata.bytes))
    file.seek(offset + metadata.bytes)
    if not envelope.trusted:
        return "it is no whole queue file"
    told = (metadata.arrival_time, metadata.sender, metadata.recipient_count)
    if (envelope.arrival_time, envelope.sender, len(envelope.recipients)) != told:
        return "its metadata are those of another message"
    if not envelope.recipients:
        return "nobody is left to deliver it to"
    return None


def _arrivals(rows: BinaryIO) -> Iterator[Arrival]:
    while length := rows.read(_LENGTH_BYTES):
        arrival = msgspec.msgpack.decode(rows.read(int.from_bytes(length)), type=Arrival)
        if arrival.copy is not None:
            # Nobody else may have it: it waits until it is restored, or moved on.
            arrival = replace(arrival, copy=replace(arrival.copy, expires_at=math.inf))
        yield arrival
