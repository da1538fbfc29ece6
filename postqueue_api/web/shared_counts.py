"""Numbers that all workers of web count together, in memory that they inherit: so many of a kind, key and time.

The table has a fixed size, whoever asks and from how many addresses: a key is a keyed hash, and where a set of slots
is full, the one that counted least makes room. Made before the workers are forked.
"""

import fcntl
import hashlib
import mmap
import os
import secrets
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

_SLOT = struct.Struct("=QdQ")  # the key's hash, when its time is over, and how many so far
_WAYS = 4
_SETS = 1 << 14
_HOLDER = struct.Struct("=Q")


class SharedMemory:
    """Bytes that processes share, and a lock that lets one thread of one of them in."""

    def __init__(self, size: int) -> None:
        self._file = os.memfd_create("postqueue-api", os.MFD_CLOEXEC)
        os.ftruncate(self._file, size)
        self.memory = mmap.mmap(self._file, size)
        self._threads = threading.Lock()

    @contextmanager
    def locked(self) -> Iterator[mmap.mmap]:
        # The kernel gives the lock back when its process dies.
        with self._threads:
            fcntl.lockf(self._file, fcntl.LOCK_EX)
            try:
                yield self.memory
            finally:
                fcntl.lockf(self._file, fcntl.LOCK_UN)


class SharedCounts:
    """Counts by kind and key, each for a time that begins with the first."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._shared = SharedMemory(_SLOT.size * _WAYS * _SETS)
        self._secret = secrets.token_bytes(16)
        self._clock = clock

    def add(self, kind: str, key: str, seconds: float) -> tuple[int, float]:
        """Count one more. Returns:  how many it are now, and the seconds until they are forgotten"""
        return self._at(kind, key, seconds, 1)

    def look(self, kind: str, key: str) -> tuple[int, float]:
        """How many it are, without counting."""
        return self._at(kind, key, 0, 0)

    def _at(self, kind: str, key: str, seconds: float, more: int) -> tuple[int, float]:
        name = f"{kind}\0{key}".encode("utf-8", "surrogatepass")
        digest = hashlib.blake2b(name, key=self._secret, digest_size=8).digest()
        tag = int.from_bytes(digest, "little") or 1
        first = tag % _SETS * _WAYS * _SLOT.size
        now = self._clock()
        with self._shared.locked() as memory:
            slots = [
                (*_SLOT.unpack_from(memory, at), at) for at in range(first, first + _WAYS * _SLOT.size, _SLOT.size)
            ]
            for found, until, count, at in slots:
                if found == tag and until > now:
                    if more:
                        _SLOT.pack_into(memory, at, tag, until, count + more)
                    return count + more, until - now
            if more:
                _, _, _, at = min(slots, key=lambda slot: slot[2] if slot[1] > now else 0)
                _SLOT.pack_into(memory, at, tag, now + seconds, more)
        return more, float(seconds)


class SharedPlaces:
    """So many things at once, in all processes together; one that dies gives back what it holds."""

    def __init__(self, count: int) -> None:
        self._shared = SharedMemory(_HOLDER.size * count)
        self._offsets = range(0, _HOLDER.size * count, _HOLDER.size)

    def take(self) -> Callable[[], None] | None:
        """Take a place. Returns:  what gives it back, or None when there is none"""
        with self._shared.locked() as memory:
            for at in self._offsets:
                (holder,) = _HOLDER.unpack_from(memory, at)
                if holder == 0 or not _is_alive(holder):
                    _HOLDER.pack_into(memory, at, os.getpid())
                    return lambda: self._give_back(at)
        return None

    def _give_back(self, at: int) -> None:
        with self._shared.locked() as memory:
            _HOLDER.pack_into(memory, at, 0)


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
