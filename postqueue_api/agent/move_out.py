"""Send copies as a tar, to be taken in by another Postfix's service. docs/fargate.md says how a queue is moved."""

import logging
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import BinaryIO

import msgspec

from postqueue_api.agent import copy_file, parcel, tar
from postqueue_api.agent.trash import Trash
from postqueue_api.audit import write_line
from postqueue_api.errors import UnexpectedOutput
from postqueue_api.postfix import queue_file
from postqueue_api.postfix.postconf import Instance
from postqueue_api.queue.moves import MoveBook
from postqueue_api.queue.trash import Copy

log = logging.getLogger(__name__)

_AT_ONCE = 500
_BLOCK_BYTES = 1 << 16
_SHOWN = 1000


@dataclass
class Export:
    """One tar, made while it is sent; it needs no more memory for more messages.

    `operation_id`: only what that operation put into the trash. `who`: of the audit's lines.
    """

    book: MoveBook
    trash: Trash
    instance: Instance
    operation_id: str | None
    who: dict[str, object]
    _total: parcel.Total = field(default_factory=parcel.Total)
    _left_out: list[str] = field(default_factory=list)

    def blocks(self) -> Iterator[bytes]:
        """The tar. What is restored or purged meanwhile may be in it or not; without its end it is worth nothing."""
        outcome = "cut"
        try:
            block = bytearray()
            for part in self._parts():
                block += part
                if len(block) >= _BLOCK_BYTES:
                    yield bytes(block)
                    block.clear()
            yield bytes(block)
            outcome = "sent"
        finally:
            counts = {"messages": self._total.messages, "bytes": self._total.bytes, "left_out": len(self._left_out)}
            write_line("export_end", **self.who, operation_id=self.operation_id, **counts, outcome=outcome)

    def _parts(self) -> Iterator[bytes]:
        after = 0
        while copies := self.book.waiting(self.operation_id, after, _AT_ONCE):
            for copy in copies:
                yield from self._message(copy)
            after = copies[-1].number
        yield from _member("manifest.json", msgspec.json.encode(self._total.manifest(self._left_out)), 0)
        yield tar.END

    def _message(self, copy: Copy) -> Iterator[bytes]:
        try:
            file = self.trash.open(copy)
        except FileNotFoundError:
            return  # restored or purged at this moment
        with file:
            metadata = self._metadata(copy, file)
            if metadata is None or not self.book.is_waiting(copy.number):
                return
            stem, modified = parcel.stem(copy.number, copy.queue_id), int(copy.kept_at)
            yield from _member(f"{stem}.json", metadata, modified)
            yield tar.header(f"{stem}.queue", copy.length, modified)
            file.seek(copy.offset)
            yield from copy_file.parts(file, copy.length)
            yield tar.padding(copy.length)
        self._total.add(metadata, copy.length)
        write_line("export", **self.who, operation_id=copy.operation_id, queue_id=copy.queue_id, outcome="sent")

    def _metadata(self, copy: Copy, file: BinaryIO) -> bytes | None:
        """None for a copy that is damaged, or that was already when it was made: nobody could take it in."""
        try:
            copy_file.verify(file, copy.offset, copy.length, copy.digest)
        except UnexpectedOutput as error:
            self._leave_out(copy, error.detail)
            return None
        envelope = queue_file.read_envelope(copy_file.section(file, copy.offset, copy.length))
        if not envelope.trusted or envelope.arrival_time is None or envelope.sender is None:
            self._leave_out(copy, "It is no whole queue file.")
            return None
        metadata = parcel.Metadata(
            queue_id=copy.queue_id,
            origin=self.instance.myhostname,
            mail_version=self.instance.mail_version,
            queue_name=copy.queue_name,
            arrival_time=envelope.arrival_time,
            sender=envelope.sender,
            recipients=[each.address[:_SHOWN] for each in envelope.recipients[: parcel.RECIPIENTS_SHOWN]],
            recipient_count=len(envelope.recipients),
            forced_expire=copy.forced_expire,
            bytes=copy.length,
            checksum=copy.digest.hex(),
        )
        return msgspec.json.format(msgspec.json.encode(metadata), indent=2)

    def _leave_out(self, copy: Copy, why: str) -> None:
        log.error("the copy of %s is left out of an export: %s", copy.queue_id, why)
        self._left_out.append(copy.queue_id)


def _member(name: str, content: bytes, modified: int) -> Iterator[bytes]:
    yield tar.header(name, len(content), modified)
    yield content
    yield tar.padding(len(content))
