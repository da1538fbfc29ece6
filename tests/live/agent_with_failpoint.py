"""Start agents that end themselves, as kill -9 would, at a step of their protocol. The product has no such setting.

`python -m tests.live.agent_with_failpoint` reads one JSON object a line: the step ("" for none), the size of a chunk,
the environment and the files for what the agent says. For each it forks an agent, which is quick, since everything is
imported already, and prints its process number.
"""

import errno
import fcntl
import json
import logging
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from postqueue_api import server
from postqueue_api.agent import executor, failpoint
from postqueue_api.config import load
from postqueue_api.errors import Error

_kernels_flock = fcntl.flock


class Starter:
    """The process that forks agents."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            (sys.executable, "-m", "tests.live.agent_with_failpoint"), stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )

    def start(self, environment: Mapping[str, str], said: Path, step: str, chunk: int) -> int:
        """Start an agent; all it says goes into one file. Returns its process number, which is its group's too."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        order = {"step": step, "chunk": chunk, "environment": dict(environment), "said": str(said)}
        self._process.stdin.write(json.dumps(order).encode() + b"\n")
        self._process.stdin.flush()
        return int(self._process.stdout.readline())

    def close(self) -> None:
        self._process.stdin.close()  # type: ignore[union-attr]
        self._process.stdout.close()  # type: ignore[union-attr]
        self._process.wait(10)


def _reach(step: str) -> None:
    if step == failpoint.armed:
        os.killpg(0, signal.SIGKILL)  # worker and master


def _flock(file: Any, operation: int) -> None:
    """As NFS does, and so EFS: no exclusive lock on a file that is not open to write (fs/nfs/nfs4proc.c)."""
    mode = fcntl.fcntl(file, fcntl.F_GETFL) & os.O_ACCMODE
    if operation & fcntl.LOCK_EX and mode == os.O_RDONLY:
        raise OSError(errno.EBADF, os.strerror(errno.EBADF))
    _kernels_flock(file, operation)


def _run(step: str, chunk: int, environment: dict[str, str], said: str) -> None:
    os.setsid()
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    output = os.open(said, os.O_CREAT | os.O_WRONLY | os.O_APPEND, 0o600)
    os.dup2(output, 1)
    os.dup2(output, 2)
    logging.basicConfig(stream=sys.stderr, format="postqueue-api: %(message)s", level=logging.WARNING)
    os.environ.clear()
    os.environ.update(environment)
    failpoint.armed = step
    failpoint.reach = _reach
    fcntl.flock = _flock
    executor.CHUNK_MESSAGES = chunk
    try:
        server.run_agent(load())
    except Error as error:
        logging.critical("%s", error.detail)
    finally:
        sys.stdout.flush()
        os._exit(0)


def main() -> None:
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # who ended leaves no zombie
    for line in sys.stdin:
        order = json.loads(line)
        pid = os.fork()
        if not pid:
            _run(**order)
        sys.stdout.write(f"{pid}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
