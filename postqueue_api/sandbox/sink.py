"""The SMTP servers that the sandbox's mail goes to: one port per site, all in one thread of this process.

smtp-sink(1) is not used, because its dump is not the message byte for byte (it adds headers and a line),
and because it cannot change its mind: a site here can refuse first and accept later.
"""

import asyncio
import contextlib
import itertools
import json
import random
import socket
import threading
import time
from collections.abc import Coroutine, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from postqueue_api.errors import InvalidArgument, Misconfigured
from postqueue_api.sandbox.sites import Site

LOOPBACK = "127.0.0.1"
_EHLO = b"250-sink.test\r\n250-8BITMIME\r\n250-SMTPUTF8\r\n250-DSN\r\n250 ENHANCEDSTATUSCODES"
_REPLIES = {
    b"EHLO": _EHLO,
    b"HELO": b"250 sink.test",
    b"MAIL": b"250 2.1.0 Ok",
    b"RCPT": b"250 2.1.5 Ok",
    b"RSET": b"250 2.0.0 Ok",
    b"NOOP": b"250 2.0.0 Ok",
    b"DATA": b"354 End data with <CR><LF>.<CR><LF>",
    b"QUIT": b"221 2.0.0 Bye",
}
_LINE_LIMIT_BYTES = 1 << 20
_PAUSE_SECONDS = 0.05


def bound_socket(port: int = 0) -> socket.socket:
    """A bound socket that does not listen yet: it keeps the port, and who connects is refused.

    Ports are taken below those that Linux gives to outgoing connections, so that nobody borrows one meanwhile.
    """
    for candidate in [port] if port else random.sample(range(20000, 32000), 200):
        found = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        # With this option at the bind, two sandboxes could get one port, and the second to listen would fail. It is
        # for a port of our own, whose last connections may not be forgotten yet (TIME_WAIT).
        found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1 if port else 0)
        try:
            found.bind((LOOPBACK, candidate))
        except OSError:
            found.close()
        else:
            found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            return found
    raise Misconfigured("The sandbox found no free port on 127.0.0.1.")


@dataclass
class _Listener:
    site: Site
    socket: socket.socket  # bound, so that nobody else gets the port
    port: int
    is_open: bool = False


class Sinks:
    """One server per site. Delivered messages are files in `accepted`, see _keep."""

    def __init__(self, sites: Iterable[Site], accepted: Path) -> None:
        self._accepted = accepted
        self._numbers = itertools.count(1)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="sandbox-sinks", daemon=True)
        self._listeners: dict[str, _Listener] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        for site in sites:
            bound = bound_socket()
            self._listeners[site.name] = _Listener(site, bound, bound.getsockname()[1])

    @property
    def ports(self) -> dict[str, int]:
        """The port of each site, whether or not somebody listens there."""
        return {name: listener.port for name, listener in self._listeners.items()}

    @property
    def conversations(self) -> int:
        """How many are open now."""
        return len(self._tasks)

    def start(self) -> None:
        self._thread.start()
        for name, listener in self._listeners.items():
            self.set(name, listener.site)

    def stop(self) -> None:
        """End all conversations, even slow ones, and give all ports back."""
        if self._thread.is_alive():
            self._await(self._end())
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join()
        self._loop.close()
        for listener in self._listeners.values():
            listener.socket.close()

    def set(self, name: str, site: Site) -> None:
        """Let the server of `name` behave as `site` does, from the next command of each conversation on."""
        if name not in self._listeners:
            raise InvalidArgument(f"{name} is not a site of the sandbox.", field="site")
        self._await(self._set(self._listeners[name], replace(site, name=name)))

    def _await(self, work: Coroutine[Any, Any, None]) -> None:
        asyncio.run_coroutine_threadsafe(work, self._loop).result(timeout=10)

    async def _set(self, listener: _Listener, site: Site) -> None:
        listener.site = site
        refuses = site.stage == "CONNECT" and not site.reply
        if refuses and listener.is_open:
            self._shut(listener)
            listener.socket = bound_socket(listener.port)
        elif not refuses and not listener.is_open:
            listener.socket.setblocking(False)
            listener.socket.listen(100)
            # No asyncio.Server: one that closes while it lets somebody in leaves that client without an answer (3.11).
            self._loop.add_reader(listener.socket, self._let_in, listener)
            listener.is_open = True

    def _shut(self, listener: _Listener) -> None:
        """Let nobody in any more; who is in goes on."""
        self._loop.remove_reader(listener.socket)
        listener.socket.close()
        listener.is_open = False

    def _let_in(self, listener: _Listener) -> None:
        try:
            connection, _ = listener.socket.accept()
        except (BlockingIOError, ConnectionAbortedError):  # it went away meanwhile
            return
        task = self._loop.create_task(self._answer(listener, connection))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _end(self) -> None:
        for listener in self._listeners.values():
            if listener.is_open:
                self._shut(listener)
        await _catch_up()  # the task of who was just let in has begun
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await _catch_up()  # what was closed is closed

    async def _answer(self, listener: _Listener, connection: socket.socket) -> None:
        reader, writer = await asyncio.open_connection(sock=connection, limit=_LINE_LIMIT_BYTES)
        try:
            await self._converse(listener, reader, writer)
        except (ConnectionError, ValueError, asyncio.CancelledError):
            pass  # the client went away, said something endless, or the sandbox ends
        finally:
            writer.close()
            with contextlib.suppress(ConnectionError, asyncio.CancelledError):
                await writer.wait_closed()

    async def _converse(self, listener: _Listener, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        objection = _objection(listener.site, b"CONNECT")
        writer.write((objection or b"220 sink.test ESMTP sandbox") + b"\r\n")
        envelope: list[bytes] = []
        while not objection and (line := await reader.readline()):
            verb = line[:4].upper().strip()
            objection_here = _objection(listener.site, verb)
            reply = objection_here or _REPLIES.get(verb, b"502 5.5.2 Error: command not recognized")
            if verb in (b"MAIL", b"RSET", b"EHLO", b"HELO"):
                envelope.clear()
            if verb in (b"MAIL", b"RCPT") and not objection_here:
                envelope.append(line.strip())
            writer.write(reply + b"\r\n")
            if verb == b"DATA":
                writer.write(await self._receive(listener, reader, envelope) + b"\r\n")
            await writer.drain()
            if verb == b"QUIT":
                return
        await writer.drain()

    async def _receive(self, listener: _Listener, reader: asyncio.StreamReader, envelope: list[bytes]) -> bytes:
        lines: list[bytes] = []
        while (line := await reader.readline()) != b".\r\n":
            if not line:
                raise ConnectionError
            lines.append(line.removeprefix(b".").removesuffix(b"\r\n") + b"\n")
        await _delay(listener)
        objection = _objection(listener.site, b"END")
        if not objection:
            self._keep(listener.site.name, envelope, b"".join(lines))
        return objection or b"250 2.0.0 Ok: kept"

    def _keep(self, site: str, envelope: list[bytes], content: bytes) -> None:
        """Write N.json (site, MAIL and RCPT commands), then N.eml: the message with LF line ends, as postcat has it."""
        name = f"{next(self._numbers):06d}"
        commands = [command.decode("utf-8", "surrogateescape") for command in envelope]
        record = {"site": site, "mail": commands[:1], "rcpt": commands[1:]}
        (self._accepted / f"{name}.json").write_text(json.dumps(record))
        (self._accepted / f"{name}.part").write_bytes(content)
        (self._accepted / f"{name}.part").rename(self._accepted / f"{name}.eml")


async def _catch_up() -> None:
    """Let the loop do what it has begun; a connection takes some rounds to be made or closed."""
    for _ in range(10):
        await asyncio.sleep(0)


async def _delay(listener: _Listener) -> None:
    """Wait as long as the site does, or until it is open without a delay."""
    until = time.monotonic() + listener.site.delay_seconds
    while (left := until - time.monotonic()) > 0 and (listener.site.delay_seconds or listener.site.stage):
        await asyncio.sleep(min(left, _PAUSE_SECONDS))


def _objection(site: Site, stage: bytes) -> bytes:
    return site.reply if site.stage.encode() == stage else b""
