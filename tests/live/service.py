"""The service under test: a process on a port of its own, for a sandbox; asked over HTTP, stopped, and read."""

import base64
import contextlib
import hashlib
import http.client
import itertools
import json
import os
import pwd
import secrets
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from email.message import Message
from pathlib import Path
from types import MappingProxyType
from typing import Any

import bcrypt

from postqueue_api.config import PREFIX
from postqueue_api.errors import Misconfigured
from postqueue_api.sandbox import Sandbox, processes
from postqueue_api.sandbox.sink import LOOPBACK, bound_socket

USER = "nobody"
_PORTS = itertools.count(secrets.randbelow(500))
# Within which a start that cannot be right is refused, on a machine that does nothing else: see refusal().
AT_ONCE_SECONDS = 5.0
COMMANDS = ("postqueue", "postsuper", "postcat", "postconf")
FRESH = {"Cache-Control": "no-cache"}
ROLES = {
    "viewer": ["viewer"], "operator": ["operator"], "admin": ["admin"], "reader": ["content"],
    "mover": ["admin", "content"],
}  # fmt: skip
SECRETS = {name: secrets.token_urlsafe(18) for name in ROLES}


def basic(name: str, password: str) -> str:
    return "Basic " + base64.b64encode(f"{name}:{password}".encode()).decode()


# The admin has a password; the others have tokens, because each password costs a start some tenths of a second.
AUTHORIZATION = {
    name: basic(name, secret) if name == "admin" else f"Bearer {secret}" for name, secret in SECRETS.items()
}


def hashed(password: str) -> str:
    """The bcrypt hash of a password, at the least cost that is accepted."""
    return bcrypt.hashpw(password.encode(), bcrypt.gensalt(10)).decode()


def credentials() -> str:
    """A principal for each role, named after it; the one who may read content is the reader, and the mover both."""
    text = ""
    for name, roles in ROLES.items():
        if name == "admin":
            proof = f'password_hash = "{hashed(SECRETS[name])}"'
        else:
            proof = f'token_sha256 = "{hashlib.sha256(SECRETS[name].encode()).hexdigest()}"'
        text += f"[{name}]\n{proof}\nroles = {json.dumps(roles)}\n"
    return text


CREDENTIALS = credentials()


@dataclass(frozen=True)
class Answer:
    """What came back. `json()` reads strictly: UTF-8, one document."""

    status: int
    headers: Message
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body.decode("utf-8", "strict"))

    @property
    def code(self) -> str:
        """The code of a problem document."""
        assert self.headers["Content-Type"] == "application/problem+json"
        return str(self.json()["code"])


@dataclass
class Service:
    """One process of postqueue-api, with what it said in two files."""

    process: "subprocess.Popen[bytes]"
    port: int
    directory: Path
    state_directory: Path
    agent_socket: Path
    command_log: Path
    body_limit_bytes: int
    has_tls: bool = False
    trust: ssl.SSLContext | None = None
    source: str = LOOPBACK  # the address to ask from

    @property
    def stdout(self) -> str:
        return (self.directory / "stdout").read_text()

    @property
    def stderr(self) -> str:
        return (self.directory / "stderr").read_text()

    def audit(self) -> list[dict[str, Any]]:
        """The lines of the audit so far."""
        return [json.loads(line) for line in self.stdout.split("\n")[:-1]]

    def commands(self) -> list[str]:
        """The Postfix commands that were started so far, each with its arguments behind `-c DIRECTORY`."""
        if not self.command_log.exists():
            return []
        return self.command_log.read_text().split("\n")[:-1]

    def ask(
        self,
        method: str,
        path: str,
        who: str | None = "admin",
        headers: Mapping[str, str] | None = None,
        body: bytes | Mapping[str, Any] | None = None,
    ) -> Answer:
        """Send one request as a principal; a mapping for a body is sent as JSON. By https if `trust` is set."""
        given = dict(headers or {})
        if who is not None:
            given["Authorization"] = AUTHORIZATION[who]
        if isinstance(body, Mapping):
            body = json.dumps(body).encode()
            given.setdefault("Content-Type", "application/json")
        with closing(self._connection()) as connection:
            connection.request(method, path, body, given)
            response = connection.getresponse()
            return Answer(response.status, response.headers, response.read())

    def _connection(self) -> http.client.HTTPConnection:
        source = (self.source, 0)
        if self.trust is None:
            return http.client.HTTPConnection(LOOPBACK, self.port, timeout=40, source_address=source)
        return http.client.HTTPSConnection(LOOPBACK, self.port, timeout=40, source_address=source, context=self.trust)

    def change(self, action: str, queue_id: str, who: str = "admin", **members: str) -> Answer:
        """Ask for a change of one message by the name of its action."""
        method, suffix = ("DELETE", "") if action == "delete" else ("POST", f"/{action}")
        return self.ask(method, f"/v1/messages/{queue_id}{suffix}", who, body=members or None)

    def tree(self) -> list[int]:
        """The process and all that come from it."""
        parents: dict[int, list[int]] = {}
        for entry in Path("/proc").glob("[0-9]*"):
            try:
                parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            except OSError:
                continue
            parents.setdefault(parent, []).append(int(entry.name))
        found = [self.process.pid]
        for pid in found:
            found += sorted(parents.get(pid, []))
        return found

    @property
    def shared(self) -> dict[str, str]:
        """The settings by which another process works with the same files."""
        return {"state_directory": str(self.state_directory), "agent_socket": str(self.agent_socket)}

    def halves(self) -> tuple[int, int]:
        """The masters of agent and web, in the order in which `serve` starts them."""
        master, *_ = self.tree()
        children = [pid for pid in self.tree()[1:] if parent(pid) == master]
        assert len(children) == 2
        return children[0], children[1]

    def wait_until_it_answers(self, seconds: float = 20) -> None:
        """Wait until web answers and somebody listens for the agent."""

        def answers() -> bool:
            assert self.process.poll() is None, self.stderr
            try:
                if self.has_tls:
                    socket.create_connection((LOOPBACK, self.port), 5).close()
                    return listens(self.agent_socket)
                return listens(self.agent_socket) and self.ask("GET", "/health/live", None).status == 200
            except OSError:
                return False

        processes.wait_until(answers, seconds)

    def check_what_it_said(self) -> None:
        """Whatever happened: no secret in any output, and no fault of the program."""
        said = self.stdout + self.stderr
        for name, secret in SECRETS.items():
            assert secret not in said
            assert AUTHORIZATION[name].partition(" ")[2] not in said
        assert "Traceback" not in said, said

    def stop(self) -> int:
        """Ask it to end; kill it when it does not. Returns its exit status."""
        self.process.terminate()
        try:
            return self.process.wait(15)
        finally:
            for pid in [] if self.process.poll() is not None else self.tree():
                os.kill(pid, signal.SIGKILL)


def listens(path: Path) -> bool:
    """Whether somebody listens on a unix socket."""
    with socket.socket(socket.AF_UNIX) as probe:
        return path.exists() and probe.connect_ex(str(path)) == 0


def parent(pid: int) -> int:
    """The parent of a process."""
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def status(pid: int) -> dict[str, list[str]]:
    """What /proc says of a process, word by word."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return {name: words.split() for name, _, words in (line.partition(":") for line in lines)}


def ids_of(user: str) -> tuple[int, int]:
    """The user's number and its group's."""
    found = pwd.getpwnam(user)
    return found.pw_uid, found.pw_gid


def watched_commands(directory: Path) -> Path:
    """A directory with Postfix's commands, each of which notes its arguments in the file `log` beside them first."""
    directory.mkdir()
    for name in COMMANDS:
        # One printf is one write(2) of a short line, so lines of several commands do not mix.
        script = f'#!/bin/sh\nprintf "%s\\n" "{name} $*" >> {directory}/log\nexec {processes.command(name)} "$@"\n'
        (directory / name).write_text(script)
        (directory / name).chmod(0o755)
    return directory


@contextmanager
def place() -> Iterator[Path]:
    """A directory that everybody can reach, for what a service keeps; removed at the end."""
    with tempfile.TemporaryDirectory(prefix="postqueue-api-test-", dir="/var/tmp") as name:
        Path(name).chmod(0o755)
        yield Path(name)


def settings_of(directory: Path, config_directory: Path | None, port: int) -> dict[str, str]:
    """The settings that every service under test has, in small letters."""
    return {
        "bind": f"{LOOPBACK}:{port}",
        "state_directory": str(directory / "state"),
        "agent_socket": str(directory / "run" / "agent.sock"),
        "user": USER,
        "credentials": CREDENTIALS,
        "body_limit_bytes": str(1 << 18),
        "lockout_refusals": "0",
        **({} if config_directory is None else {"config_directory": str(config_directory)}),
    }


def environment(settings: Mapping[str, str]) -> dict[str, str]:
    """The environment of a service: ours, and its settings instead of ours."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(PREFIX)}
    return {**inherited, **{PREFIX + name.upper(): value for name, value in settings.items()}}


def free_port() -> int:
    """A port on which nobody listens, below those of sandboxes. No other process of the tests gets it meanwhile."""
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    for number in _PORTS:
        with contextlib.suppress(Misconfigured), closing(bound_socket(15000 + 500 * worker + number % 500)) as found:
            return int(found.getsockname()[1])
    raise AssertionError("no port is free")


@contextmanager
def started(
    box: Sandbox | None,
    settings: Mapping[str, str] = MappingProxyType({}),
    *,
    command: str = "serve",
    before: Sequence[str] = (),
    wait: bool = True,
) -> Iterator[Service]:
    """The service for a sandbox, while the block lasts. `before`: words that start the interpreter, as of strace."""
    with place() as directory:
        port = free_port()
        given = {**settings_of(directory, None if box is None else box.config_directory, port), **settings}
        given = {name: value for name, value in given.items() if value != ""}
        commands = Path(given.get("command_directory", directory))
        argv = (*before, sys.executable, "-m", "postqueue_api", command)
        with (directory / "stdout").open("wb") as stdout, (directory / "stderr").open("wb") as stderr:
            process = subprocess.Popen(argv, env=environment(given), stdout=stdout, stderr=stderr)
        service = Service(
            process,
            int(given["bind"].rpartition(":")[2]),
            directory,
            Path(given["state_directory"]),
            Path(given["agent_socket"]),
            commands / "log",
            int(given["body_limit_bytes"]),
            "tls_certificate_file" in given,
        )
        try:
            if wait:
                service.wait_until_it_answers()
            yield service
        finally:
            if process.poll() is None:
                service.stop()
        service.check_what_it_said()


def refusal(command: str, settings: Mapping[str, str]) -> tuple[int, str, float]:
    """Start what must not start. Returns:  exit status, standard error, seconds

    The seconds are those of a machine of its own: time that a start waits for something counts in full, and what others
    on this machine take of it is left out.
    """
    begun = time.monotonic()
    with place() as directory:
        given = {**settings_of(directory, None, free_port()), **settings}
        environ = environment({name: value for name, value in given.items() if value != ""})
        argv = (sys.executable, "-m", "postqueue_api", command)
        done = subprocess.run(argv, env=environ, capture_output=True, timeout=20, check=False)
    seconds = time.monotonic() - begun
    return done.returncode, done.stderr.decode(), seconds if seconds < AT_ONCE_SECONDS else seconds / slowness()


def slowness() -> float:
    """How many times its processor time a start takes at this moment that waits for nothing: 1 on an idle machine."""
    before, begun = os.times(), time.monotonic()
    subprocess.run((sys.executable, "-m", "postqueue_api", "--help"), capture_output=True, timeout=60, check=True)
    after = os.times()
    used = after.children_user + after.children_system - before.children_user - before.children_system
    return max(1.0, (time.monotonic() - begun) / used)
