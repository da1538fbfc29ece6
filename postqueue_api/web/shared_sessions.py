"""The sessions that are alive, in memory that all workers share: a keyed hash of each, and when it was last used.

The table has a fixed size. Where a set of slots is full, the session unused for longest makes room: it ends too early,
and none lives longer than it may.
"""

import hashlib
import secrets
import struct
import time
from collections.abc import Callable
from mmap import mmap

from postqueue_api.web.shared_counts import SharedMemory

_SLOT = struct.Struct("=16sd")  # the hash, and the time of the last use
_WAYS = 8
_SETS = 1 << 10
_EMPTY = bytes(16)


class SharedSessions:
    """Sessions by identifier, each for so many seconds after its last use."""

    def __init__(self, idle_seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._shared = SharedMemory(_SLOT.size * _WAYS * _SETS)
        self._secret = secrets.token_bytes(16)
        self._idle_seconds = idle_seconds
        self._clock = clock

    def add(self, identifier: str) -> None:
        """Begin with one that was not there before."""
        digest, places = self._places(identifier)
        with self._shared.locked() as memory:
            oldest = min(places, key=lambda at: self._last_use(memory, at))
            _SLOT.pack_into(memory, oldest, digest, self._clock())

    def use(self, identifier: str) -> bool:
        """Whether it is alive; if so, it is used now."""
        digest, places = self._places(identifier)
        now = self._clock()
        with self._shared.locked() as memory:
            for at in places:
                if _SLOT.unpack_from(memory, at)[0] == digest and self._last_use(memory, at) > now - self._idle_seconds:
                    _SLOT.pack_into(memory, at, digest, now)
                    return True
        return False

    def remove(self, identifier: str) -> None:
        """End it."""
        digest, places = self._places(identifier)
        with self._shared.locked() as memory:
            for at in places:
                if _SLOT.unpack_from(memory, at)[0] == digest:
                    _SLOT.pack_into(memory, at, _EMPTY, 0.0)

    @staticmethod
    def _last_use(memory: mmap, at: int) -> float:
        return float(_SLOT.unpack_from(memory, at)[1])

    def _places(self, identifier: str) -> tuple[bytes, range]:
        digest = hashlib.blake2b(identifier.encode("utf-8", "surrogatepass"), key=self._secret, digest_size=16).digest()
        first = int.from_bytes(digest[:4], "little") % _SETS * _WAYS * _SLOT.size
        return digest, range(first, first + _WAYS * _SLOT.size, _SLOT.size)
