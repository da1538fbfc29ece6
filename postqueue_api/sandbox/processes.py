"""Starting and ending the sandbox's Postfix. Constant argv, but for the sandbox's own directory."""

import contextlib
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

from postqueue_api.errors import CommandFailed, CommandTimeout, NotInstalled, NotPermitted
from postqueue_api.sandbox.configuration import FOLDER, SPOOL, is_sandbox

_PATH = "/usr/sbin:/usr/bin:/sbin:/bin:/usr/local/sbin:/usr/local/bin"
_ENVIRONMENT = {"PATH": _PATH, "TZ": "UTC", "LC_ALL": "C"}


def run(*argv: str, stdin: bytes = b"", user: str | None = None) -> subprocess.CompletedProcess[bytes]:
    """Run a command to its end, in a session of its own, so that Ctrl-C reaches us and not it."""
    try:
        return subprocess.run(
            argv,
            input=stdin,
            capture_output=True,
            env=_ENVIRONMENT,
            user=user,
            extra_groups=None if user is None else [],
            start_new_session=True,
            timeout=60,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise CommandTimeout(f"{Path(argv[0]).name} did not end within 60 seconds in the sandbox.") from None


def command(name: str) -> str:
    """The path of a Postfix command.

    Raises:   NotPermitted for anybody but root; NotInstalled, with the way to install
    """
    if os.geteuid() != 0:
        raise NotPermitted("Postfix can only be started by root: run the sandbox with sudo.")
    found = shutil.which(name, path=_PATH)
    if found is None:
        raise NotInstalled(
            f"The sandbox needs Postfix, and {name} is not installed:"
            " sudo apt-get install --no-install-recommends postfix"
        )
    return found


def start(directory: Path) -> None:
    """Start the instance of the sandbox in `directory`.

    Runs:     postfix -c DIRECTORY start
    Raises:   CommandFailed with Postfix's own words
    """
    done = run(command("postfix"), "-c", str(directory / FOLDER), "start")
    if done.returncode:
        words = done.stderr.decode("utf-8", "replace").strip()
        raise CommandFailed(f"The sandbox's Postfix did not start: {words}")


def stop(directory: Path) -> None:
    """Stop the instance and wait until its last process is gone, also when it does not run."""
    run(command("postfix"), "-c", str(directory / FOLDER), "stop")
    with contextlib.suppress(CommandTimeout):
        wait_until(lambda: not daemons(directory), 5)
    for process in daemons(directory):
        with contextlib.suppress(ProcessLookupError):
            os.kill(process, signal.SIGKILL)
    wait_until(lambda: not daemons(directory), 5)


def remove(directory: Path) -> None:
    """Stop the instance in `directory` and remove everything; a directory that is not a sandbox is left alone."""
    if is_sandbox(directory):
        stop(directory)
        shutil.rmtree(directory)


def daemons(directory: Path) -> list[int]:
    """Postfix daemons that work in the spool of this sandbox: their working directory or their chroot is in it."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            places = (entry / "cwd").readlink(), (entry / "root").readlink()
            # The link says "/path/smtp (deleted)" after an upgrade; the folder is what counts.
            is_daemon = "postfix" in (entry / "exe").readlink().parts
        except OSError:
            continue
        if is_daemon and any(place.is_relative_to(directory / SPOOL) for place in places):
            found.append(int(entry.name))
    return found


def wait_until(predicate: Callable[[], object], seconds: float) -> None:
    """Ask again and again until the answer is yes.

    Raises:   CommandTimeout after `seconds`
    """
    end = time.monotonic() + seconds
    while not predicate():
        if time.monotonic() > end:
            raise CommandTimeout(f"What the sandbox waited for did not happen within {seconds:g} seconds.")
        time.sleep(0.05)
