"""From the start of a listing to a readable snapshot, in times of `postqueue -j > /dev/null`."""

import os
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from benchmarks.measure import ratio, side_by_side, table
from benchmarks.service import real_queue
from postqueue_api.agent.refresh import Refresher
from postqueue_api.postfix.postconf import find_commands
from postqueue_api.postfix.process import Postfix
from postqueue_api.postfix.retry_times import RetryTimes
from postqueue_api.queue import listing
from postqueue_api.queue.snapshot_writer import SnapshotWriter
from postqueue_api.sandbox.box import Sandbox

_ROUNDS = {1_000: 15, 10_000: 9, 100_000: 7}


def run() -> str:
    """The table of refreshes, and where the time goes at the largest size."""
    rows = []
    for messages, rounds in _ROUNDS.items():
        with real_queue(messages) as box, tempfile.TemporaryDirectory(dir="/dev/shm") as directory:
            postfix = find_commands(None, box.config_directory, 600)
            rows.append(_compare(postfix, box, Path(directory), messages, rounds))
            parts, recipients = _parts(postfix, box, Path(directory))
    mail = f"{messages:,} messages with {recipients:.1f} recipients on average"
    return (
        table(["messages", "`postqueue -j`, s", "refresh, s", "times (least to most)", "our CPU, s"], rows)
        + f"\nWhere the time goes, on {mail}, listed beforehand:\n\n"
        + table(["part", "CPU, s"], parts)
    )


def _compare(postfix: Postfix, box: Sandbox, directory: Path, messages: int, rounds: int) -> list[object]:
    refresher = Refresher(lambda: postfix, directory, lambda: RetryTimes(box.queue_directory))
    spent: list[float] = []

    def refresh() -> None:
        before = time.process_time()
        refresher.ensure(0, 600)
        spent.append(time.process_time() - before)

    list_queue = partial(_list, postfix, subprocess.DEVNULL)
    list_queue()
    base, ours = side_by_side([list_queue, refresh], rounds)
    times, least, most = ratio(base, ours)
    return [
        f"{messages:,}",
        f"{statistics.median(base):.2f}",
        f"{statistics.median(ours):.2f}",
        f"{times:.2f} ({least:.2f} to {most:.2f})",
        f"{statistics.median(spent):.2f}",
    ]


def _parts(postfix: Postfix, box: Sandbox, directory: Path) -> tuple[list[tuple[str, str]], float]:
    """The CPU time of each step of the writer, each measured on the whole listing; and the recipients of a message."""
    listed = directory / "listed"
    with listed.open("wb") as file:
        _list(postfix, file.fileno())
    lines = listed.read_bytes().split(b"\n")[:-1]
    retry_times = RetryTimes(box.queue_directory)
    read = [message for message in map(listing.read, lines) if message is not None]
    parsing = _cpu(lambda: [listing.read(line) for line in lines])
    looking = _cpu(lambda: [retry_times(message.queue_name, message.queue_id) for message in read])
    with SnapshotWriter(directory) as writer:
        adding = _cpu(lambda: writer.add(lines))
        publishing = _cpu(lambda: writer.publish(mail_system="running"))
    listed.unlink()
    parts = [
        ("reading the lines", f"{parsing:.2f}"),
        ("stat of the queue files, for the next attempt", f"{looking:.2f}"),
        ("making and inserting rows", f"{adding - parsing:.2f}"),
        ("indexes and sums, after the listing has ended", f"{publishing:.2f}"),
    ]
    return parts, sum(len(message.recipients) for message in read) / len(read)


def _list(postfix: Postfix, output: int) -> None:
    subprocess.run(postfix.argv("postqueue", "-j"), stdout=output, check=True, env=os.environ)


def _cpu(act: Callable[[], object]) -> float:
    before = time.process_time()
    act()
    return time.process_time() - before
