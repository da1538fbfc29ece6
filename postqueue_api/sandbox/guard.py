"""The process that removes the sandbox when the one who made it dies without doing so, even by SIGKILL.

It waits for the end of its standard input, a pipe that only the maker holds open.
"""

import contextlib
import signal
import subprocess
import sys
from pathlib import Path

from postqueue_api.sandbox import processes

_DISMISSED = b"dismissed"
_PROGRAM = "import sys; from postqueue_api.sandbox.guard import main; main(sys.argv[1])"


class Guard:
    """The maker's end: start one for a directory, and dismiss it when the directory is gone."""

    def __init__(self, directory: Path) -> None:
        argv = (sys.executable, "-c", _PROGRAM, str(directory))
        self._process = subprocess.Popen(argv, stdin=subprocess.PIPE, start_new_session=True)

    def dismiss(self) -> None:
        with contextlib.suppress(BrokenPipeError):
            self._process.communicate(_DISMISSED, timeout=30)


def main(directory: str) -> None:
    """Wait for the maker's end or its word; without the word, remove the sandbox."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    if sys.stdin.buffer.read() != _DISMISSED:
        processes.remove(Path(directory))
