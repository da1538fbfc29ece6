"""The files that copies of messages lie in: several share one, so that one fsync makes all of them safe."""

import hashlib
import io
import os
from collections.abc import Iterable
from pathlib import Path
from typing import BinaryIO, cast

from postqueue_api.errors import UnexpectedOutput

CHUNK_BYTES = 1 << 20


def create(path: Path) -> BinaryIO:
    """A new file, for us alone, to write and to read back."""
    return os.fdopen(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600), "w+b")


def checksum() -> "hashlib.blake2b":
    """What tells whether a copy is still what it was: BLAKE2b of 256 bits, as `b2sum -l 256` prints it."""
    return hashlib.blake2b(digest_size=32)


def copy(source: BinaryIO, target: BinaryIO) -> bytes:
    """Copy a whole file behind what the other one has. Returns its checksum."""
    digest = checksum()
    source.seek(0)
    while part := source.read(CHUNK_BYTES):
        digest.update(part)
        target.write(part)
    return digest.digest()


def parts(file: BinaryIO, length: int) -> Iterable[bytes]:
    """The next so many bytes of a file. Raises UnexpectedOutput when there are not so many."""
    while length > 0 and (part := file.read(min(length, CHUNK_BYTES))):
        length -= len(part)
        yield part
    if length:
        raise UnexpectedOutput("A copy in the trash is shorter than it was; nothing was done.")


def verify(file: BinaryIO, offset: int, length: int, expected: bytes) -> None:
    """Read a copy again. Raises UnexpectedOutput when it is not what its checksum says."""
    file.seek(offset)
    digest = checksum()
    for part in parts(file, length):
        digest.update(part)
    if digest.digest() != expected:
        raise UnexpectedOutput("A copy in the trash does not read back as it was written; nothing was done.")


def section(file: BinaryIO, offset: int, length: int) -> BinaryIO:
    """One copy as a file of its own, to read from; it shares the position of the file that it lies in."""
    return cast(BinaryIO, _Section(file, offset, length))


class _Section(io.RawIOBase):
    def __init__(self, file: BinaryIO, offset: int, length: int) -> None:
        self._file, self._offset, self._length, self._at = file, offset, length, 0

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        start = {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._length}[whence]
        self._at = max(0, start + offset)
        return self._at

    def read(self, size: int = -1) -> bytes:
        left = max(0, self._length - self._at)
        self._file.seek(self._offset + self._at)
        data = self._file.read(left if size < 0 else min(size, left))
        self._at += len(data)
        return data


def fsync_directory(directory: Path) -> None:
    """Make the names in a directory safe on disk."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
