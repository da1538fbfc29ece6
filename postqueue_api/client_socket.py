"""Sockets of clients on which a thread waits in bounded time: gunicorn's own wait without end.

gunicorn calls setblocking(True) when a thread takes a request. From then on the thread may wait STALL_SECONDS in all,
and a second more for every LEAST_RATE bytes that moved, for each direction by itself. What is slower than that is a
client that holds a thread, not one that uses it; its request ends with an error, and so does its connection.
"""

import errno
import socket
import ssl
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

STALL_SECONDS = 20.0
LEAST_RATE = 4096
_PIECE_BYTES = 1 << 16


class _Patience:
    """What one direction has cost so far."""

    def __init__(self) -> None:
        self.waited = 0.0
        self.moved = 0

    @property
    def left(self) -> float:
        return min(STALL_SECONDS, STALL_SECONDS + self.moved / LEAST_RATE - self.waited)


class _Bounded:
    """The half that plain sockets and those with TLS have in common; stands before the socket's own class."""

    settimeout: Callable[[float | None], None]
    gettimeout: Callable[[], float | None]
    _reading = _Patience()
    _writing = _Patience()

    def setblocking(self, flag: bool) -> None:
        """As gunicorn says it; a socket that blocks begins with fresh patience."""
        if flag:
            self._reading, self._writing = _Patience(), _Patience()
        self.settimeout(STALL_SECONDS if flag else 0)

    def recv(self, size: int = 1024, flags: int = 0) -> bytes:
        """Raises TimeoutError when the client sends too slowly."""
        if self.gettimeout() == 0:
            return self._recv(size, flags)
        with self._bounded(self._reading):
            data = self._recv(size, flags)
        self._reading.moved += len(data)
        return data

    def sendall(self, data: Any, flags: int = 0) -> None:
        """In pieces, so that a slow client of much data is told from one that has stopped. Raises BrokenPipeError."""
        if self.gettimeout() == 0:  # gunicorn's own answer to what is no request
            self._sendall(memoryview(data), flags)
            return
        whole = memoryview(data).cast("B")
        for start in range(0, len(whole), _PIECE_BYTES):
            piece = whole[start : start + _PIECE_BYTES]
            try:
                with self._bounded(self._writing):
                    self._sendall(piece, flags)
            except TimeoutError:
                # As if the client had hung up, which gunicorn takes for what it is: nothing to report.
                raise BrokenPipeError(errno.EPIPE, "the client takes the answer too slowly") from None
            self._writing.moved += len(piece)

    def _recv(self, size: int, flags: int) -> bytes:
        raise NotImplementedError

    def _sendall(self, data: memoryview, flags: int) -> None:
        raise NotImplementedError

    @contextmanager
    def _bounded(self, patience: _Patience) -> Iterator[None]:
        given = self.gettimeout()  # gunicorn sets a shorter one when it drains a body
        left = patience.left if given is None else min(given, patience.left)
        if left <= 0:
            raise TimeoutError("the client is too slow")
        self.settimeout(left)
        begun = time.monotonic()
        try:
            yield
        finally:
            patience.waited += time.monotonic() - begun
            self.settimeout(given)


class PlainSocket(_Bounded, socket.socket):
    """A client's connection without TLS."""

    def _recv(self, size: int, flags: int) -> bytes:
        return socket.socket.recv(self, size, flags)

    def _sendall(self, data: memoryview, flags: int) -> None:
        socket.socket.sendall(self, data, flags)


class TLSSocket(_Bounded, ssl.SSLSocket):
    """A client's connection with TLS; for ssl.SSLContext.sslsocket_class."""

    def _recv(self, size: int, flags: int) -> bytes:
        return ssl.SSLSocket.recv(self, size, flags)

    def _sendall(self, data: memoryview, flags: int) -> None:
        ssl.SSLSocket.sendall(self, data, flags)
