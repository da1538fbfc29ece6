"""Tar archives of plain files, one after the other: written as POSIX.1-1988 has them (ustar), read strictly.

Only a header of 512 bytes and the bytes of the file are understood. Whatever else a tar may have is refused: links,
devices, sparse files, headers that stand for other headers (pax, GNU). A name is a label, never a path.

Source:   POSIX.1-2001, pax, "ustar Interchange Format"; tar(5)
"""

import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

from postqueue_api.errors import InvalidArgument, PayloadTooLarge

END = b"\0" * 1024
_BLOCK = 512
_CHUNK_BYTES = 1 << 16
_SHOWN = 64


@dataclass(frozen=True)
class Member:
    """A file in a tar: its name, a label, and how many bytes it has."""

    name: str
    size: int


def header(name: str, size: int, modified: int) -> bytes:
    """The block before a file's bytes; for root's eyes where it is unpacked. `modified`: seconds since the epoch."""
    made = tarfile.TarInfo(name)
    made.size, made.mtime, made.mode = size, modified, 0o600
    return made.tobuf(tarfile.USTAR_FORMAT, "ascii", "strict")


def padding(size: int) -> bytes:
    """The zeros behind a file's bytes."""
    return b"\0" * (-size % _BLOCK)


class Archive:
    """A tar that comes as a stream of at most `limit` bytes. Reading past the limit raises PayloadTooLarge."""

    def __init__(self, stream: BinaryIO, limit: int) -> None:
        self._stream, self._left, self._limit = stream, limit, limit
        self._member_left = self._padding = 0

    def next(self) -> Member | None:
        """The next file; what was not read of the one before is skipped. None: the archive ended as it should.

        Raises:   InvalidArgument for a cut archive and for whatever is no plain file; PayloadTooLarge
        """
        while True:
            for _ in self.read():
                pass
            self._exactly(self._padding)
            block = self._exactly(_BLOCK)
            if block == b"\0" * _BLOCK:
                self._end()
                return None
            found = self._parse(block)
            if found is not None:
                self._member_left, self._padding = found.size, len(padding(found.size))
                return found

    def read(self) -> Iterator[bytes]:
        """The bytes of the present file, in parts. Raises InvalidArgument when the archive is cut."""
        while self._member_left:
            part = self._some(min(self._member_left, _CHUNK_BYTES))
            self._member_left -= len(part)
            yield part

    def _parse(self, block: bytes) -> Member | None:
        try:
            found = tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
        except tarfile.HeaderError:
            raise refused("It has a header that is none") from None
        label = found.name[:_SHOWN].encode("ascii", "backslashreplace").decode()
        if found.type == tarfile.DIRTYPE and found.size == 0 and found.name in (".", "./"):
            return None  # what a tar of an unpacked one begins with
        if found.type not in (tarfile.REGTYPE, tarfile.AREGTYPE) or found.linkname:
            raise refused(f"{label} in it is no plain file")
        if found.size < 0:
            raise refused(f"{label} in it has no size")
        if found.size > self._left:
            raise self._too_large()
        return Member(found.name, found.size)

    def _end(self) -> None:
        """Nothing but zeros follows the end: one block at least, and what fills a record."""
        if any(self._exactly(_BLOCK)):
            raise refused("It goes on behind its end")
        while self._left and (part := self._receive(min(self._left, _CHUNK_BYTES))):
            self._left -= len(part)
            if any(part):
                raise refused("It goes on behind its end")

    def _exactly(self, size: int) -> bytes:
        found = bytearray()
        while len(found) < size:
            found += self._some(size - len(found))
        return bytes(found)

    def _some(self, size: int) -> bytes:
        if size > self._left:
            raise self._too_large()
        part = self._receive(size)
        if not part:
            raise refused("It is cut: bytes are missing at its end")
        self._left -= len(part)
        return part

    def _receive(self, size: int) -> bytes:
        try:
            return self._stream.read(size)
        except OSError:  # gunicorn's words for a client that is gone
            return b""

    def _too_large(self) -> PayloadTooLarge:
        return PayloadTooLarge(f"The tar is larger than {self._limit} bytes: see POSTQUEUE_API_IMPORT_LIMIT_BYTES.")


def refused(why: str) -> InvalidArgument:
    """An archive of which nothing is taken."""
    return InvalidArgument(
        f"{why}. Nothing of this tar was taken.", field="body", accepted="a tar as GET /v1/trash/export made it"
    )
