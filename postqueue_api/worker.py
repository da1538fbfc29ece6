"""gunicorn's threaded worker, whose threads are given to requests only, never to somebody who might send one.

gthread gives a thread to each connection that sent a first byte, and waits in it for the rest: as many half-sent
handshakes or requests as there are threads stop the service. Here the loop itself does the handshake and reads until
the head of a request is there, and its body if it is short, without waiting (reception.py); a thread begins then. The
same holds for each further request of a connection, and for the end of one, where gthread waits two seconds in its
loop for the client to hang up, and before it five in a thread for a body that nobody asked for.
"""

import contextlib
import errno
import selectors
import signal
import socket
import ssl
import time
from collections import deque
from concurrent.futures import Future
from functools import partial
from http import HTTPStatus
from typing import Any

from gunicorn import util  # type: ignore[import-untyped]
from gunicorn.http.errors import ParseException  # type: ignore[import-untyped]
from gunicorn.workers import gthread  # type: ignore[import-untyped]

from postqueue_api import no_request
from postqueue_api.audit import write_line
from postqueue_api.client_socket import PlainSocket
from postqueue_api.reception import READ_BYTES, Connection, HeadTooLarge

RECEPTION_SECONDS = 10.0
LINGER_SECONDS = 2.0
_REST_OF_BODY_SECONDS = 0.05
_HELD_LIMIT_BYTES = 1 << 25
_LINGER_LIMIT_BYTES = 1 << 20
_FULL = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)
_PASSING = (errno.EAGAIN, errno.ECONNABORTED, errno.EINTR)


class Worker(gthread.ThreadWorker):  # type: ignore[misc]
    """The worker of web. `pending_conns` are those whose request is still to come, the one that began first first."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.lingering: deque[Connection] = deque()
        self.held = 0  # bytes of requests that are not whole

    def init_signals(self) -> None:
        """SIGHUP, which the master sends on: read certificate and key again."""
        super().init_signals()
        signal.signal(signal.SIGHUP, lambda *_: self.method_queue.defer(self._reload))
        signal.siginterrupt(signal.SIGHUP, False)

    def _reload(self) -> None:
        if self.app.tls is not None:
            self.app.tls.reload()

    def accept(self, listener: Any) -> None:
        """Take a connection and begin with its first request."""
        try:
            sock, client = listener.accept()
        except OSError as error:
            if error.errno in _FULL:
                self._make_room()
            elif error.errno not in _PASSING:
                raise
            return
        self.nr_conns += 1
        plain = PlainSocket(sock.family, sock.type, sock.proto, sock.detach())
        conn = Connection(self.cfg, plain, client, listener.getsockname())
        if self.nr_conns >= self.worker_connections:
            self._make_room()
        if self.app.tls is not None:
            try:
                conn.sock = self.app.tls.context.wrap_socket(plain, server_side=True, do_handshake_on_connect=False)
            except (OSError, ValueError):  # gone already
                self._close(conn)
                return
            conn.handshaking = True
        self._receive(conn)

    def on_client_socket_readable(self, conn: Connection, client: Any) -> None:
        """A connection that was kept sends its next request."""
        self.poller.unregister(client)
        self.keepalived_conns.remove(conn)
        self._receive(conn)

    def finish_request(self, conn: Connection, fs: "Future[object]") -> None:
        """Keep the connection for its next request, or end it; without waiting for the client."""
        if fs.cancelled() or fs.exception() is not None or not fs.result():
            self._linger(conn)
        elif conn.has_more():
            self._receive(conn, conn.parser.unreader.take_buffered())
        else:
            super().finish_request(conn, fs)

    def _keepalive_after(self, conn: Connection, keepalive: bool) -> bool:
        """Whether the connection has another request: not when it still has a body that nobody asked for to send."""
        try:
            return bool(keepalive and conn.parser.finish_body(deadline=time.monotonic() + _REST_OF_BODY_SECONDS))
        except (ParseException, OSError):  # it was answered already
            return False

    def handle_error(self, req: Any, client: Any, addr: Any, exc: Exception) -> None:
        """Answer what is no request, or what has met a fault. What was sent is neither in the answer nor in the log."""
        status = no_request.status_of(exc)
        if status == HTTPStatus.INTERNAL_SERVER_ERROR:
            self.log.error("a request met a fault", exc_info=exc)
        else:
            self.log.warning("what %s sent is no request: %s", addr[0], type(exc).__name__)
        with contextlib.suppress(OSError):
            util.write_nonblock(client, no_request.answer(status))

    def murder_pending(self) -> None:
        """Close whose request did not come in time, and who did not hang up after the last answer."""
        now = time.monotonic()
        for waiting in (self.pending_conns, self.lingering):
            while waiting and waiting[0].timeout <= now:
                self._close(waiting[0])

    def _cap_keepalive(self, deadline: float) -> None:
        """A worker that stops waits no longer for a request than for the next request."""
        super()._cap_keepalive(deadline)
        for conn in self.pending_conns:
            conn.timeout = min(conn.timeout, deadline)

    def _receive(self, conn: Connection, came: bytes = b"") -> None:
        conn.begin(came)
        conn.timeout = time.monotonic() + (RECEPTION_SECONDS if self.alive else LINGER_SECONDS)
        self.pending_conns.append(conn)
        self._go_on(conn)

    def _go_on(self, conn: Connection, _: object = None) -> None:
        try:
            conn.advance()
        except (BlockingIOError, ssl.SSLWantReadError):
            self._watch(conn, selectors.EVENT_READ)
            self._count(conn)
        except ssl.SSLWantWriteError:
            self._watch(conn, selectors.EVENT_WRITE)
        except HeadTooLarge:
            with contextlib.suppress(OSError):
                conn.sock.send(no_request.answer(no_request.TOO_LARGE))
            self._leave(conn)
            self._linger(conn)
        except (OSError, EOFError) as error:
            if conn.handshaking and isinstance(error, ssl.SSLError):
                self._note_refusal(conn, error)
            self._close(conn)
        else:
            self._leave(conn)
            conn.hand_over()
            self.enqueue_req(conn)

    def _count(self, conn: Connection) -> None:
        """Keep what half a request takes of memory within bounds."""
        self.held += len(conn.came) - conn.counted
        conn.counted = len(conn.came)
        while self.held > _HELD_LIMIT_BYTES:
            self._close(self.pending_conns[0])

    def _note_refusal(self, conn: Connection, error: ssl.SSLError) -> None:
        """The audit's line for a client certificate that is not accepted; by a thread, for it may have to wait."""
        if isinstance(error, ssl.SSLCertVerificationError):
            detail = error.verify_message
        elif error.reason == "PEER_DID_NOT_RETURN_A_CERTIFICATE":
            detail = "no certificate was shown"
        else:
            return
        members = {"actor": None, "role": None, "address": conn.client[0], "request_id": None}
        members |= {"action": "TLS handshake", "reason": "certificate", "queue_id": None, "outcome": "unauthorized"}
        self.tpool.submit(write_line, "refused", **members, detail=detail)

    def _linger(self, conn: Connection) -> None:
        """Say that nothing more comes, and wait on the poller for the client to say the same (RFC 9112 section 9.6)."""
        try:
            conn.sock.setblocking(False)
            conn.sock.shutdown(socket.SHUT_WR)
        except OSError:
            self._close(conn)
            return
        conn.received = 0
        conn.timeout = time.monotonic() + LINGER_SECONDS
        self.lingering.append(conn)
        self._watch(conn, selectors.EVENT_READ, self._drain)

    def _drain(self, conn: Connection, _: object) -> None:
        try:
            count = len(conn.sock.recv(READ_BYTES))
        except BlockingIOError:
            return
        except OSError:
            count = 0
        conn.received += count
        if count == 0 or conn.received > _LINGER_LIMIT_BYTES:
            self._close(conn)

    def _make_room(self) -> None:
        """Close the one that has waited longest of those that nobody works for."""
        for waiting in (self.lingering, self.pending_conns, self.keepalived_conns):
            if waiting:
                self._close(waiting[0])
                return

    def _watch(self, conn: Connection, events: int, callback: Any = None) -> None:
        if conn.events == events:
            return
        call = self.poller.modify if conn.events else self.poller.register
        call(conn.sock, events, partial(callback or self._go_on, conn))
        conn.events = events

    def _leave(self, conn: Connection) -> None:
        """Take a connection from the poller and from whatever it waits in."""
        if conn in self.keepalived_conns or conn.events:
            with contextlib.suppress(OSError, KeyError, ValueError):
                self.poller.unregister(conn.sock)
        conn.events = 0
        self.held -= conn.counted
        conn.counted = 0
        for waiting in (self.lingering, self.pending_conns, self.keepalived_conns):
            if conn in waiting:
                waiting.remove(conn)

    def _close(self, conn: Connection) -> None:
        self._leave(conn)
        self.nr_conns -= 1
        conn.close()
