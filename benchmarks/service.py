"""A queue to measure on, real or recorded, and the service for it with a client."""

import hashlib
import http.client
import json
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlencode

from benchmarks import recorded
from benchmarks.measure import Processes
from benchmarks.multiply import multiply
from postqueue_api.config import Address
from postqueue_api.postfix.postconf import find_commands
from postqueue_api.sandbox.box import Sandbox
from postqueue_api.sandbox.command import filled
from postqueue_api.sandbox.service import answers, started

_MEMORY = Path("/dev/shm")
_LISTING_SECONDS = 600
_COMMANDS = ("postconf", "postsuper", "postcat")


@dataclass(frozen=True)
class Client:
    """One kept-alive connection to a running service, with a token."""

    port: int
    token: str
    processes: Processes
    connection: http.client.HTTPConnection

    def get(self, path: str, query: dict[str, object] | None = None, **headers: str) -> bytes:
        """The body of an answer that must be 200."""
        return self._ask("GET", f"{path}?{urlencode(query)}" if query else path, None, headers)

    def post(self, path: str, body: object, **headers: str) -> bytes:
        """The same for a change."""
        return self._ask("POST", path, json.dumps(body), {"Content-Type": "application/json", **headers})

    def delete(self, path: str) -> bytes:
        """The same for one message."""
        return self._ask("DELETE", path, None, {})

    def stream(self, path: str, accept: str) -> int:
        """Read an answer block by block; how many bytes it had."""
        self.connection.request("GET", path, headers={"Authorization": f"Bearer {self.token}", "Accept": accept})
        answer = self.connection.getresponse()
        size = 0
        while block := answer.read(1 << 20):
            size += len(block)
        return size

    def _ask(self, method: str, path: str, body: str | None, headers: dict[str, str]) -> bytes:
        self.connection.request(method, path, body, {"Authorization": f"Bearer {self.token}", **headers})
        answer = self.connection.getresponse()
        content = answer.read()
        if answer.status not in (200, 202):
            raise RuntimeError(f"{method} {path}: {answer.status} {content[:500]!r}")
        return content


@contextmanager
def real_queue(messages: int) -> Iterator[Sandbox]:
    """A private Postfix on the memory file system, with so many deferred messages."""
    with filled(_directory()) as box:
        multiply(box.queue_directory, messages - len(box.queue()))
        yield box


def empty_queue() -> Sandbox:
    """The same without mail."""
    return Sandbox(_directory())


@contextmanager
def recorded_commands(box: Sandbox, messages: int) -> Iterator[Path]:
    """A directory of commands in which postqueue prints a recorded listing; the others are Postfix's own."""
    commands, _ = _commands(box)
    listing = commands / "listing"
    with listing.open("wb") as file:
        file.writelines(recorded.lines(messages))
    _script(commands / "postqueue", f"exec cat {listing}")
    yield commands


@contextmanager
def counted_commands(box: Sandbox) -> Iterator[tuple[Path, Path]]:
    """Postfix's own commands, and a file that gets a line with the time whenever postqueue is started."""
    commands, real = _commands(box)
    starts = commands / "starts"
    _script(commands / "postqueue", f'date +%s.%N >>{starts}; exec {real}/postqueue "$@"')
    starts.touch()
    yield commands, starts


@contextmanager
def running(box: Sandbox, tokens: int = 1, **settings: str) -> Iterator[Client]:
    """The service for a queue; principals p0, p1 and so on may do everything, with the tokens of `token`."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port: int = free.getsockname()[1]
    credentials = "".join(
        f'[p{number}]\ntoken_sha256 = "{hashlib.sha256(token(number).encode()).hexdigest()}"\nroles = ["admin"]\n'
        for number in range(tokens)
    )
    address = Address("127.0.0.1", port)
    # The limit for commands is for real ones; a million on a busy machine may take longer than a minute.
    given = {"bind": str(address), "command_timeout_seconds": "600", **settings}
    with started(box, credentials, **given) as service:
        if not answers(service, address):
            raise RuntimeError("the service did not start")
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=_LISTING_SECONDS)
        yield Client(port, token(0), Processes(service.pid), connection)


def token(number: int) -> str:
    """The token of one principal; worth nothing outside the benchmark."""
    return f"benchmark-{number:04d}-" + hashlib.sha256(str(number).encode()).hexdigest()


def _directory() -> Path:
    return _MEMORY / f"postqueue-api-benchmark-{os.getpid()}"


def _commands(box: Sandbox) -> tuple[Path, Path]:
    """A directory with Postfix's own commands but for postqueue, and the one where these are."""
    made, real = box.directory / "commands", find_commands(None, box.config_directory, 10).command_directory
    made.mkdir()
    for name in _COMMANDS:
        (made / name).symlink_to(real / name)
    return made, real


def _script(path: Path, line: str) -> None:
    path.write_text(f"#!/bin/sh\n{line}\n")
    path.chmod(0o755)
