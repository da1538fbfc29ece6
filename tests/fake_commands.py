"""Commands in a directory of their own, for what the real ones cannot be made to do. The seam is command_directory."""

from dataclasses import dataclass
from pathlib import Path

import pytest

from postqueue_api.errors import CommandFailed, Error, MailSystemDown, Misconfigured, NotPermitted
from postqueue_api.postfix.process import Postfix

# What the commands said, with the exit status. Postfix 3.7.11; postqueue's name and the paths as they were printed.
DOWN = ("postqueue: fatal: Queue report unavailable - mail system is down", 69)
CANNOT_FLUSH = ("postqueue: fatal: Cannot flush mail queue - mail system is down", 69)
NOT_ALLOWED = ("postqueue: fatal: User nobody(65534) is not allowed to view the mail queue", 69)
NO_SETGID = ("postqueue: fatal: Connect to the Postfix showq service: Permission denied", 69)
BROKE_OFF = ("postqueue: fatal: malformed showq server response", 69)
RESERVED = ("postsuper: fatal: use of this command is reserved for the superuser", 1)
NO_MAIN_CF = ("postqueue: fatal: open /nonexistent/main.cf: No such file or directory", 69)
BAD_NUMBER = ("postqueue: fatal: bad numerical configuration: message_size_limit = xx", 69)
BAD_BOOLEAN = ("postsuper: fatal: bad boolean configuration: enable_long_queue_ids = maybe", 1)
BAD_TIME = ("postqueue: fatal: parameter ipc_timeout: bad time value or unit: 5y", 69)
BAD_LENGTH = ("postqueue: fatal: bad string length 0 < 1: hash_queue_names = ", 69)
BAD_PROTOCOL = ('postqueue: fatal: unknown inet_protocols value "ipv9" in "ipv9"', 69)
BAD_LEVEL = ('postqueue: fatal: malformed compatibility level syntax: "foo"', 69)
BAD_OWNER = ("postsuper: fatal: file /etc/main.cf: parameter mail_owner: unknown user name value: nosuch", 1)
NO_SPOOL = ("postqueue: fatal: chdir /nonexistent: No such file or directory", 69)

COMPLAINTS: list[tuple[tuple[str, int], type[Error]]] = [
    (DOWN, MailSystemDown),
    (CANNOT_FLUSH, MailSystemDown),
    (NOT_ALLOWED, NotPermitted),
    (NO_SETGID, NotPermitted),
    (RESERVED, NotPermitted),
    (NO_MAIN_CF, Misconfigured),
    (BAD_NUMBER, Misconfigured),
    (BAD_BOOLEAN, Misconfigured),
    (BAD_TIME, Misconfigured),
    (BAD_LENGTH, Misconfigured),
    (BAD_PROTOCOL, Misconfigured),
    (BAD_LEVEL, Misconfigured),
    (BAD_OWNER, Misconfigured),
    (NO_SPOOL, Misconfigured),
    (BROKE_OFF, CommandFailed),
    (("", 69), CommandFailed),
    (("postqueue: fatal: something new", 15), CommandFailed),
]


@dataclass(frozen=True)
class FakeCommands:
    """Writes commands, and tells how they were started."""

    directory: Path

    @property
    def postfix(self) -> Postfix:
        """An instance with these commands, and five seconds for each."""
        return Postfix(self.directory, None, 5)

    def write(self, name: str, script: str = "") -> None:
        """Make a command out of shell lines; it notes its arguments and, in `stdin`, what it reads."""
        log = self.directory / f"{name}.log"
        path = self.directory / name
        path.write_text(f'#!/bin/sh\nhere={self.directory}\necho "$*" >>{log}\n{script}\n')
        path.chmod(0o755)

    def says(self, name: str, complaint: tuple[str, int], stdout: str = "") -> None:
        """Make a command that prints these words on standard error and ends with that status."""
        words, status = complaint
        (self.directory / "words").write_text(f"{words}\n" if words else "")
        (self.directory / "stdout").write_text(stdout)
        self.write(name, f"cat {self.directory}/stdout; cat {self.directory}/words >&2; exit {status}")

    def starts(self, name: str) -> list[tuple[str, ...]]:
        """The arguments of each start so far."""
        log = self.directory / f"{name}.log"
        return [tuple(line.split(" ")) for line in log.read_text().splitlines()] if log.exists() else []


@pytest.fixture
def commands(tmp_path: Path) -> FakeCommands:
    """An empty directory of commands."""
    directory = tmp_path / "commands"
    directory.mkdir()
    return FakeCommands(directory)
