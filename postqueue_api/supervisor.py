"""The small parent of both halves, or of an agent that is to drain: starts them, and stops them in order."""

import logging
import os
import signal
import sys
from collections.abc import Callable

from postqueue_api.config import Settings
from postqueue_api.drain_at_stop import drain
from postqueue_api.errors import Error
from postqueue_api.lifeline import Lifeline

log = logging.getLogger(__name__)

STOP_SECONDS = 8


def supervise(settings: Settings, halves: dict[str, Callable[[Settings], None]]) -> int:
    """Run these as children until a signal, and drain the queue then if the settings say so. Returns the exit status.

    During a drain both halves go on, so that web can tell how far it is. When this parent is killed, they end too.
    """
    children: dict[int, str] = {}
    asked: list[int] = []
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda number, _: asked.append(number))
    signal.signal(signal.SIGHUP, lambda *_: _send_on(signal.SIGHUP, "web", children))
    for name, run in halves.items():
        children[_fork(run, settings)] = name
    ended = _wait(children, asked)
    drained = drain(settings, lambda: len(asked) > 1) if ended is None and settings.drain_seconds else None
    for pid in reversed(children):  # web first: it still needs the agent for what it has begun
        _stop(pid)
    if drained is not None:
        return drained.tell()
    if ended is None:
        return 0
    log.critical("%s ended by itself (%s); the other half was stopped and the service ends.", *ended)
    return 1


def _fork(run: Callable[[Settings], None], settings: Settings) -> int:
    lifeline = Lifeline()
    pid = os.fork()
    if pid:
        lifeline.tie(pid)
        return pid
    status = 1
    try:
        lifeline.hold()  # those of the halves before it stay open, so they end after it
        os.setsid()  # a terminal's Ctrl-C reaches the parent alone, which stops us in order
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        signal.signal(signal.SIGHUP, signal.SIG_IGN)  # until gunicorn listens to it
        run(settings)
        status = 0
    except Error as error:
        log.critical("%s", error.detail)
    except SystemExit as exit_:
        status = exit_.code if isinstance(exit_.code, int) else 1
    except BaseException:
        log.exception("it met a fault of the service")
        raise
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def _send_on(number: int, to: str, children: dict[int, str]) -> None:
    for pid in [pid for pid, name in children.items() if name == to]:
        os.kill(pid, number)


def _wait(children: dict[int, str], asked: list[int]) -> tuple[str, str] | None:
    """Wait for a signal (None) or for a child that ends by itself (its name and how); takes it from `children`."""
    while not asked:
        signal.sigtimedwait({signal.SIGCHLD}, 0.5)
        for pid in children:
            ended, status = os.waitpid(pid, os.WNOHANG)
            if ended:
                code = os.waitstatus_to_exitcode(status)
                return children.pop(pid), f"signal {-code}" if code < 0 else f"exit status {code}"
    return None


def _stop(pid: int) -> None:
    os.kill(pid, signal.SIGTERM)
    for _ in range(STOP_SECONDS * 20):
        if os.waitpid(pid, os.WNOHANG)[0]:
            return
        signal.sigtimedwait({signal.SIGCHLD}, 0.05)
    log.critical("process %d did not stop in %d seconds and was killed", pid, STOP_SECONDS)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
