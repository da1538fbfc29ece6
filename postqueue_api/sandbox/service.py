"""`postqueue-api sandbox --serve`: a sandbox and the service for it, to be tried at once."""

import os
import secrets
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import bcrypt
import click

from postqueue_api.config import PREFIX, Address, Settings
from postqueue_api.lifeline import Lifeline
from postqueue_api.sandbox.box import Sandbox
from postqueue_api.sandbox.command import ended_by_signals, filled

NAME = "admin"
_ANYBODY = "nobody"
_STOP_SECONDS = 20


def run(settings: Settings, directory: Path | None = None) -> int:
    """Start both, print address and login, and end both at SIGINT or SIGTERM. Returns the service's exit status.

    Raises:   NotPermitted, NotInstalled, Misconfigured
    """
    password = secrets.token_urlsafe(18)
    with ended_by_signals(), filled(directory) as box, started(box, credentials(password)) as service:
        if not answers(service, settings.bind):
            return service.wait()
        click.echo(
            f"\nThe service manages a private Postfix with {len(box.queue())} messages: http://{settings.bind}\n"
            f"Log in as {NAME} with the password {password}\n\n"
            f"    curl -u {NAME}:{password} http://{settings.bind}/v1/queues\n\n"
            "Ctrl-C ends and removes it all.\n"
        )
        return service.wait()


@contextmanager
def started(box: Sandbox, credentials: str, **settings: str) -> Iterator["subprocess.Popen[bytes]"]:
    """The service for a sandbox, as a process of its own; stopped at the end of the block.

    `settings` are further ones, in small letters; those of the environment hold as well.
    """
    given = {
        "config_directory": str(box.config_directory),
        "state_directory": str(box.directory / "state"),
        "agent_socket": str(box.directory / "run" / "agent.sock"),
        "user": _ANYBODY,
        "credentials": credentials,
        **settings,
    }
    environment = {**os.environ, **{PREFIX + name.upper(): value for name, value in given.items()}}
    lifeline = Lifeline()
    argv = (sys.executable, "-m", "postqueue_api", "serve")
    service = subprocess.Popen(argv, env=environment, pass_fds=(lifeline.child_end,))
    lifeline.tie(service.pid)
    try:
        yield service
    finally:
        lifeline.close()
        try:
            service.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            service.kill()
            service.wait()


def answers(service: "subprocess.Popen[bytes]", address: Address) -> bool:
    """Wait until the service answers; False when it ended instead."""
    while service.poll() is None:
        try:
            with urllib.request.urlopen(f"http://{address}/health/live", timeout=5):
                return True
        except OSError:
            time.sleep(0.05)
    return False


def credentials(password: str) -> str:
    """The text of a credentials file with one principal, who may do everything."""
    hashed = bcrypt.hashpw(password.encode(), bcrypt.gensalt(10)).decode()
    return f'[{NAME}]\npassword_hash = "{hashed}"\nroles = ["admin", "content"]\n'
