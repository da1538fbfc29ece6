"""Start a Postfix command, bound it, and hand over what it said. Nothing else here starts a process.

The environment is fixed (MAIL_CONFIG and its kin would change what the commands do), there is no shell, and
each command leads a process group of its own, which is killed as a whole at the time limit. Standard error
goes to an anonymous file: postsuper stops half-way when a pipe closes on it.
"""

import io
import logging
import os
import signal
import subprocess
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from postqueue_api.errors import CommandTimeout, NotInstalled, UnexpectedOutput

log = logging.getLogger(__name__)

ENVIRONMENT = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "TZ": "UTC", "LC_ALL": "C"}
STDERR_LIMIT_BYTES = 64 << 20
CHUNK_BYTES = 1 << 18
_PIPE_BYTES = 1 << 20  # so that a listing goes on while we write down what came before


@dataclass(frozen=True)
class Postfix:
    """One Postfix instance as its commands are told of it. `config_directory` None: Postfix's own default."""

    command_directory: Path
    config_directory: Path | None
    timeout_seconds: float
    guard: int | None = None  # a locked file that commands which change something inherit, while they live

    def argv(self, command: str, *arguments: str) -> tuple[str, ...]:
        """The words that start `command` for this instance."""
        instance = () if self.config_directory is None else ("-c", str(self.config_directory))
        return (str(self.command_directory / command), *instance, *arguments)


@dataclass(frozen=True)
class Finished:
    """What is left of a command: its exit status (negative: the signal that ended it) and its words."""

    command: str
    returncode: int
    stdout: bytes
    stderr: bytes


class Running:
    """A command that runs: read `stdout` to its end, then ask `finish`."""

    def __init__(
        self, command: str, process: subprocess.Popen[bytes], stderr_file: int, timeout_seconds: float
    ) -> None:
        self.command = command
        self._process = process
        self._stderr_file = stderr_file
        self._timer = threading.Timer(timeout_seconds, self._expire)
        self._timer.daemon = True
        self._timer.start()
        self._expired = False
        self._timeout_seconds = timeout_seconds

    @property
    def stdout(self) -> io.FileIO:
        """The unbuffered standard output."""
        assert isinstance(self._process.stdout, io.FileIO)
        return self._process.stdout

    def chunks(self) -> Iterator[bytes]:
        """Standard output as it comes, to its end."""
        while chunk := self.stdout.read(CHUNK_BYTES):
            yield chunk

    def finish(self, stdout: bytes = b"") -> Finished:
        """Wait for the end. Raises CommandTimeout when the time limit ended it, UnexpectedOutput when it complained
        of more than STDERR_LIMIT_BYTES."""
        returncode = self._process.wait()
        self._timer.cancel()
        stderr = os.pread(self._stderr_file, STDERR_LIMIT_BYTES, 0)
        if stderr:
            log.info("%s (exit status %d): %s", self.command, returncode, stderr[:2000].decode("utf-8", "replace"))
        if self._expired:
            raise CommandTimeout(
                f"{self.command} did not end within {self._timeout_seconds:g} seconds and was stopped."
            )
        if os.fstat(self._stderr_file).st_size > STDERR_LIMIT_BYTES:
            raise UnexpectedOutput(f"{self.command} said more than {STDERR_LIMIT_BYTES} bytes on standard error.")
        return Finished(self.command, returncode, stdout, stderr)

    def _expire(self) -> None:
        self._expired = True
        self.kill()

    def kill(self) -> None:
        """End the command and whatever it started; safe to call at any time before it is waited for."""
        if self._process.returncode is None:
            try:
                os.killpg(self._process.pid, signal.SIGKILL)
            except ProcessLookupError:
                log.debug("%s had ended already", self.command)

    def close(self) -> None:
        """Leave nothing behind: no process, no timer."""
        self._timer.cancel()
        self.kill()
        self._process.wait()
        self.stdout.close()


@contextmanager
def start(
    argv: Sequence[str], timeout_seconds: float, stdin: bytes | None = None, inherit: Sequence[int] = ()
) -> Iterator[Running]:
    """Run a command while the block lasts; at its end the command is gone.

    `stdin` is written to an anonymous file before the command starts, so that it never sees half a list.

    Raises:   NotInstalled when the command is not there or may not be run
    """
    command = Path(argv[0]).name
    with _anonymous_file("stdin", stdin or b"") as stdin_file, _anonymous_file("stderr", b"") as stderr_file:
        try:
            process = subprocess.Popen(
                argv,
                stdin=subprocess.DEVNULL if stdin is None else stdin_file,
                stdout=subprocess.PIPE,
                stderr=stderr_file,
                bufsize=0,
                pipesize=_PIPE_BYTES,
                env=ENVIRONMENT,
                cwd="/",
                start_new_session=True,
                pass_fds=inherit,
            )
        except (FileNotFoundError, PermissionError, NotADirectoryError):
            raise NotInstalled(
                f"{command} is not there or cannot be run: install Postfix, or correct POSTQUEUE_API_COMMAND_DIRECTORY."
            ) from None
        running = Running(command, process, stderr_file, timeout_seconds)
        try:
            yield running
        finally:
            running.close()


def run(
    argv: Sequence[str],
    timeout_seconds: float,
    *,
    stdin: bytes | None = None,
    limit_bytes: int = 1 << 20,
    inherit: Sequence[int] = (),
) -> Finished:
    """Run a command to its end and keep what it said.

    Raises:   NotInstalled, CommandTimeout, UnexpectedOutput when standard output exceeds `limit_bytes`
    """
    with start(argv, timeout_seconds, stdin, inherit) as running:
        parts: list[bytes] = []
        room = limit_bytes
        for chunk in running.chunks():
            room -= len(chunk)
            if room < 0:
                raise UnexpectedOutput(f"{running.command} printed more than {limit_bytes} bytes and was stopped.")
            parts.append(chunk)
        return running.finish(b"".join(parts))


@contextmanager
def _anonymous_file(name: str, content: bytes) -> Iterator[int]:
    descriptor = os.memfd_create(name, os.MFD_CLOEXEC)
    try:
        with open(descriptor, "wb", closefd=False) as file:
            file.write(content)
        os.lseek(descriptor, 0, os.SEEK_SET)
        yield descriptor
    finally:
        os.close(descriptor)
