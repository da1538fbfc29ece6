"""Ask the agent, over its unix socket. What it raises, this raises."""

import http.client
import socket
import time
from collections.abc import Iterable, Iterator
from contextlib import closing
from itertools import chain
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from postqueue_api.errors import AgentLost, AgentUnavailable, Error, by_code
from postqueue_api.queue.operation import Operation
from postqueue_api.queue.snapshot import SnapshotInfo

_T = TypeVar("_T")
_CHUNK_BYTES = 1 << 16
_REMEMBERED_SECONDS = 60
_REFRESH_SECONDS = 1
_ERRORS = by_code()


class _Connection(http.client.HTTPConnection):
    def __init__(self, path: Path, timeout: float) -> None:
        super().__init__("agent", timeout=timeout)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self._path))


class AgentClient:
    """The agent as web sees it. `timeout_seconds` bounds what is not asked to wait."""

    def __init__(self, path: Path, timeout_seconds: float) -> None:
        self._path = path
        self._timeout_seconds = timeout_seconds
        self._known: tuple[float, dict[str, Any]] | None = None
        self._refreshed: tuple[float, Error | None] | None = None

    def snapshot(self, max_age: float, wait: float) -> SnapshotInfo:
        """See to it that there is a snapshot of at most that age. Raises what the listing raised."""
        return self._ask("POST", "/snapshot", {"max_age": max_age, "wait": wait}, SnapshotInfo, wait)

    def refresh(self, max_age: float) -> None:
        """Have a snapshot made if the last one is over that age, without waiting for it.

        Many ask for this at once, so the agent is asked once a second, and all of them are told the same.

        Raises:   what the last listing raised
        """
        if self._refreshed is None or time.monotonic() - self._refreshed[0] > _REFRESH_SECONDS:
            try:
                self.snapshot(max_age, 0)
            except Error as error:
                self._refreshed = (time.monotonic(), error)
            else:
                self._refreshed = (time.monotonic(), None)
        if self._refreshed[1] is not None:
            raise self._refreshed[1]

    def keep(self, snapshot_id: str) -> None:
        """Keep a snapshot a while longer, because somebody pages through it."""
        self._ask("POST", f"/snapshots/{snapshot_id}/keep", None, dict[str, Any])

    def operate(self, wanted: dict[str, Any]) -> Operation:
        """Make an operation; `wait` in it says for how many seconds its end is waited for."""
        return self._change("/operations", wanted, Operation, wanted["wait"])

    def cancel(self, operation_id: str) -> Operation:
        """End an operation before its next chunk. Raises Conflict when it is over."""
        return self._change(f"/operations/{operation_id}/cancel", None, Operation)

    def restore(self, wanted: dict[str, Any]) -> Operation:
        """Make an operation that gives messages back from the trash."""
        return self._change("/restore", wanted, Operation, wanted["wait"])

    def export(self, wanted: dict[str, Any]) -> Iterator[bytes]:
        """A tar of copies that wait to be moved, in chunks. Raises NoSuchOperation before the first one."""
        return self._stream("POST", "/export", wanted)

    def bring_in(self, wanted: dict[str, Any], tar: Iterable[bytes]) -> Operation:
        """Send a tar of messages to be taken in. Raises what the agent has against it, also before its end."""
        with closing(self._connect(0)) as connection:
            try:
                connection.request("POST", "/import", chain([msgspec.json.encode(wanted) + b"\n"], tar))
            except (BrokenPipeError, ConnectionResetError):
                pass  # it refuses before the end, and its answer is there
            except (OSError, http.client.HTTPException) as error:
                raise _unavailable(error) from error
            return self._changed(connection, Operation)

    def confirm(self, wanted: dict[str, Any]) -> Operation:
        """Note which copies somebody else has taken over."""
        return self._change("/confirm", wanted, Operation)

    def look_up(self, queue_id: str) -> dict[str, Any]:
        """Where a message is at this moment, and what it is. Raises NoSuchMessage."""
        return self._ask("GET", f"/messages/{queue_id}", None, dict[str, Any])

    def envelope(self, queue_id: str) -> dict[str, Any]:
        """The envelope from the queue file's records. Raises NoSuchMessage."""
        return self._ask("GET", f"/messages/{queue_id}/envelope", None, dict[str, Any])

    def content(self, queue_id: str) -> Iterator[bytes]:
        """Headers and body as they are stored, in chunks. Raises NoSuchMessage before the first one."""
        return self._stream("GET", f"/messages/{queue_id}/content", None)

    def flush(self) -> None:
        """Ask Postfix for an attempt to deliver all that is deferred. Raises MailSystemDown."""
        self._change("/flush", None, dict[str, Any])

    def flush_site(self, site: str) -> None:
        """Ask for an attempt to deliver what is for one destination. Raises Conflict when Postfix has no list of it."""
        self._change(f"/sites/{site}/flush", None, dict[str, Any])

    def begin_drain(self, wanted: dict[str, Any]) -> dict[str, Any]:
        """Begin a drain. Raises Conflict when one is under way and `take_over` is not wanted."""
        return self._change("/drain", wanted, dict[str, Any])

    def drain(self) -> dict[str, Any]:
        """How far the last drain is, and what is in the queue."""
        return self._ask("GET", "/drain", None, dict[str, Any])

    def instance(self) -> dict[str, Any]:
        """What Postfix says of itself. Raises NotInstalled, Misconfigured."""
        return self._ask("GET", "/instance", None, dict[str, Any])

    def known_instance(self) -> dict[str, Any]:
        """The same, remembered for a minute: for what is asked often."""
        if self._known is None or time.monotonic() - self._known[0] > _REMEMBERED_SECONDS:
            self._known = (time.monotonic(), self.instance())
        return self._known[1]

    def _ask(self, method: str, path: str, body: object, kind: type[_T], wait: float = 0) -> _T:
        with closing(self._connect(wait)) as connection:
            return self._answered(self._send(connection, method, path, body), kind)

    def _change(self, path: str, body: object, kind: type[_T], wait: float = 0) -> _T:
        """Ask for something that changes what is there. Raises AgentLost when nobody tells what became of it."""
        with closing(self._connect(wait)) as connection:
            self._request(connection, "POST", path, body)
            return self._changed(connection, kind)

    def _changed(self, connection: _Connection, kind: type[_T]) -> _T:
        try:
            return self._answered(self._response(connection), kind)
        except AgentUnavailable as error:
            raise AgentLost(
                "The agent was lost before it told what became of this: it may be done, or may be done yet."
                " Look at /v1/operations before you ask again."
            ) from error

    def _answered(self, response: http.client.HTTPResponse, kind: type[_T]) -> _T:
        content = self._read(response)
        if response.status != 200:
            raise _raised(content)
        return msgspec.json.decode(content, type=kind)

    def _stream(self, method: str, path: str, body: object) -> Iterator[bytes]:
        connection = self._connect(0)
        try:
            response = self._send(connection, method, path, body)
            if response.status != 200:
                raise _raised(response.read())
        except BaseException:  # an interrupt too: what was begun is undone, and it goes on
            connection.close()
            raise
        return self._chunks(connection, response)

    def _connect(self, wait: float) -> _Connection:
        return _Connection(self._path, self._timeout_seconds + wait)

    def _send(self, connection: _Connection, method: str, path: str, body: object) -> http.client.HTTPResponse:
        self._request(connection, method, path, body)
        return self._response(connection)

    def _request(self, connection: _Connection, method: str, path: str, body: object) -> None:
        try:
            connection.request(method, path, None if body is None else msgspec.json.encode(body))
        except (OSError, http.client.HTTPException) as error:
            raise _unavailable(error) from error

    def _response(self, connection: _Connection) -> http.client.HTTPResponse:
        try:
            return connection.getresponse()
        except (OSError, http.client.HTTPException) as error:
            raise _unavailable(error) from error

    def _chunks(self, connection: _Connection, response: http.client.HTTPResponse) -> Iterator[bytes]:
        with closing(connection):
            while chunk := self._read(response, _CHUNK_BYTES):
                yield chunk

    def _read(self, response: http.client.HTTPResponse, size: int | None = None) -> bytes:
        try:
            return response.read(size)
        except (OSError, http.client.HTTPException) as error:
            raise _unavailable(error) from error


def _unavailable(error: Exception) -> AgentUnavailable:
    if isinstance(error, PermissionError):
        return AgentUnavailable("web may not use the agent's socket: both must be told the same POSTQUEUE_API_USER.")
    return AgentUnavailable("The agent does not answer: see whether `postqueue-api agent` runs, and its log.")


def _raised(content: bytes) -> Error:
    try:
        told = msgspec.json.decode(content, type=dict[str, Any])
        kind, detail, members = _ERRORS[told["code"]], str(told["detail"]), dict(told["members"])
    except (msgspec.DecodeError, KeyError, TypeError):
        return AgentUnavailable("The agent met a fault of its own; its log has it.")
    return kind(detail, **members)
