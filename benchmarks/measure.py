"""Time, memory and ratios, measured so that a busy machine disturbs both sides of a comparison alike."""

import os
import statistics
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

_SAMPLE_SECONDS = 0.1
# What agent starts is Postfix's own, and not counted as ours.
_PYTHON = "python"


def seconds(act: Callable[[], object]) -> float:
    """How long something takes."""
    began = time.perf_counter()
    act()
    return time.perf_counter() - began


def side_by_side(acts: Sequence[Callable[[], object]], rounds: int) -> list[list[float]]:
    """Times of each, taken in turns."""
    times: list[list[float]] = [[] for _ in acts]
    for _ in range(rounds):
        for act, taken in zip(acts, times, strict=True):
            taken.append(seconds(act))
    return times


def ratio(base: Sequence[float], ours: Sequence[float]) -> tuple[float, float, float]:
    """The median of our time in times of the base's, round by round, with the least and the largest."""
    each = [our / other for other, our in zip(base, ours, strict=True)]
    return statistics.median(each), min(each), max(each)


def table(header: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A table in Markdown; all columns but the first are set to the right."""
    lines = [header, ["---", *["---:"] * (len(header) - 1)], *rows]
    return "".join("| " + " | ".join(str(cell) for cell in line) + " |\n" for line in lines)


class Processes:
    """A process and its descendants, Python's only: the sum of their proportional set sizes, its peak, and CPU time."""

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self.peak = 0.0

    def now(self) -> float:
        """The sum of the proportional set sizes, in megabytes (10^6)."""
        found = sum(_pss_kilobytes(pid) for pid in _family(self._pid)) * 1024 / 1e6
        self.peak = max(self.peak, found)
        return found

    def cpu_seconds(self) -> float:
        """The CPU time so far; unlike seconds, other work on the machine hardly changes it."""
        return sum(_ticks(pid) for pid in _family(self._pid)) / os.sysconf("SC_CLK_TCK")

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Look often enough within the block to see the peak."""
        self.peak = 0.0
        over = threading.Event()

        def watch() -> None:
            while not over.wait(_SAMPLE_SECONDS):
                self.now()

        thread = threading.Thread(target=watch, daemon=True)
        thread.start()
        try:
            yield
        finally:
            self.now()
            over.set()
            thread.join()


def _family(pid: int) -> Iterator[int]:
    try:
        if (Path("/proc") / str(pid) / "exe").readlink().name.startswith(_PYTHON):
            yield pid
        children = (Path("/proc") / str(pid) / "task" / str(pid) / "children").read_text().split()
    except OSError:
        return
    for child in children:
        yield from _family(int(child))


def _ticks(pid: int) -> int:
    try:
        fields = (Path("/proc") / str(pid) / "stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0
    return int(fields[11]) + int(fields[12])


def _pss_kilobytes(pid: int) -> int:
    try:
        lines = (Path("/proc") / str(pid) / "smaps_rollup").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith("Pss:")), 0)
