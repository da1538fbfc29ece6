"""A client's connection while its next request comes: what the worker's loop reads before a thread begins with it.

That is the head, and a body that announces its length and is short. A body that is longer, or does not say how long it
is, comes while a thread works; who is behind the door asks for it only when it is known who sends it.
"""

import re
import socket
import ssl
from typing import Any

from gunicorn import http  # type: ignore[import-untyped]
from gunicorn.workers import gthread  # type: ignore[import-untyped]

HEAD_LIMIT_BYTES = 1 << 15
BODY_LIMIT_BYTES = 1 << 16
READ_BYTES = 1 << 14
_END_OF_HEAD = b"\r\n\r\n"
_FRAMING = re.compile(rb"\r\n(content-length|transfer-encoding)[ \t]*:([^\r\n]*)", re.IGNORECASE)
_EXPECT = re.compile(rb"\r\nexpect:[ \t]*100-continue[ \t]*(?=\r\n)", re.IGNORECASE)
_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


class HeadTooLarge(Exception):
    """More than HEAD_LIMIT_BYTES came without an end of the head."""


class Connection(gthread.TConn):  # type: ignore[misc]
    """A connection, and what has come of its next request."""

    def __init__(self, cfg: Any, sock: socket.socket, client: Any, server: Any) -> None:
        super().__init__(cfg, sock, client, server)
        self.parser: Any = None
        self.handshaking = False
        self.came = bytearray()
        self.received = 0  # in all, with what is left out of `came`
        self.counted = 0  # of `came`, in the sum that the worker keeps
        self.wanted = 0  # how many bytes of `came` a thread can begin with; 0 while the head is not whole
        self.events = 0  # for which the poller watches

    def begin(self, came: bytes) -> None:
        """Begin with the next request, of which some may have come already."""
        self.sock.setblocking(False)
        self.came, self.received, self.wanted = bytearray(came), len(came), 0

    def advance(self) -> None:
        """Go on until there is a request with which a thread can begin.

        Raises:   BlockingIOError, ssl.SSLWantReadError or ssl.SSLWantWriteError when more must come first;
                  HeadTooLarge; EOFError when the client has hung up; ssl.SSLError, OSError
        """
        if self.handshaking:
            self.sock.do_handshake()
            self.handshaking = False
        while not self._is_enough():
            data = self.sock.recv(READ_BYTES)
            if not data:
                raise EOFError
            self.came += data
            self.received += len(data)

    def _is_enough(self) -> bool:
        if not self.wanted:
            while self.came.startswith(b"\r\n"):  # RFC 9112 section 2.2: empty lines before a request are skipped
                del self.came[:2]
            end = self.came.find(_END_OF_HEAD)
            if end < 0:
                if self.received > HEAD_LIMIT_BYTES:
                    raise HeadTooLarge
                return False
            head = bytes(self.came[: end + 2])
            wanted = end + len(_END_OF_HEAD) + short_body(head)
            self.wanted = wanted - (self._invite(head) if len(self.came) < wanted else 0)
        return len(self.came) >= self.wanted

    def _invite(self, head: bytes) -> int:
        """Tell who waits to be asked for the body to send it; gunicorn would do it in a thread, and does not any more.

        Returns:  by how much the head became shorter
        """
        asked = _EXPECT.search(head)
        if asked is None or not head.partition(b"\r\n")[0].endswith(b" HTTP/1.1"):
            return 0
        self.sock.sendall(_CONTINUE)
        del self.came[asked.start() : asked.end()]
        return asked.end() - asked.start()

    def hand_over(self) -> None:
        """Give what has come to gunicorn's parser."""
        if self.parser is None:
            self.parser = http.get_parser(self.cfg, self.sock, self.client)
        self.parser.unreader.unread(bytes(self.came))
        self.came = bytearray()
        self.initialized = self.data_ready = True

    def has_more(self) -> bool:
        """Whether bytes of the next request are here already, where the poller does not see them."""
        return bool(self.parser.unreader.buf.getvalue()) or (
            isinstance(self.sock, ssl.SSLSocket) and self.sock.pending() > 0
        )


def short_body(head: bytes) -> int:
    """The length of the body that is read before a thread begins; 0 when there is none, or when it is not short.

    Whether a head is one, gunicorn judges afterwards: what is doubtful here it refuses without reading on.
    """
    found = _FRAMING.findall(head)
    if len(found) != 1 or found[0][0].lower() != b"content-length":
        return 0
    length = re.fullmatch(rb"[ \t]*0*([0-9]{1,9})[ \t]*", found[0][1])
    return int(length[1]) if length and int(length[1]) <= BODY_LIMIT_BYTES else 0
