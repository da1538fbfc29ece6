"""What `postqueue-api sandbox` does, in pieces that `make run` can use too."""

import contextlib
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType

import click

from postqueue_api.config import variable
from postqueue_api.sandbox.box import Sandbox
from postqueue_api.sandbox.place import fresh_directory


@contextlib.contextmanager
def filled(directory: Path | None = None) -> Iterator[Sandbox]:
    """A sandbox that is started and full of mail; it ends with the block. Without a directory, in a fresh one."""
    with Sandbox(directory or fresh_directory()) as box:
        box.fill()
        yield box


@contextlib.contextmanager
def ended_by_signals() -> Iterator[None]:
    """Within the block, the first SIGINT or SIGTERM raises SystemExit, so that every `with` is left in order.

    Further ones are ignored: what is being cleaned up is cleaned up to the end. Only for the main thread.
    """
    watched = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

    def end(number: int, frame: FrameType | None) -> None:
        for each in watched:
            signal.signal(each, signal.SIG_IGN)
        raise SystemExit(0)

    before = {number: signal.signal(number, end) for number in watched}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def describe(box: Sandbox) -> str:
    """What a person needs to use the sandbox; the lines with = can be given to a shell as they are."""
    return (
        f"{variable('config_directory')}={box.config_directory}\n"
        f"# A private Postfix with {len(box.queue())} messages in its queue. Look at it:\n"
        f"#   sudo postqueue -c {box.config_directory} -p\n"
        f"# It takes more mail at 127.0.0.1:{box.smtp_port}, and logs to {box.log}.\n"
        "# Set the variable above to manage it with `postqueue-api serve`. Ctrl-C ends it and removes it.\n"
    )


def run(directory: Path | None = None, echo: Callable[[str], object] = click.echo) -> None:
    """Make a sandbox, fill it, say how to use it, and keep it until SIGINT or SIGTERM.

    Raises:   NotPermitted, NotInstalled, Misconfigured; SystemExit(0) when a signal ends it
    """
    with ended_by_signals(), filled(directory) as box:
        echo(describe(box))
        while True:
            signal.pause()
