"""Many pollers of /v1/status, each with its own token and connection, and what they cost Postfix."""

import asyncio
import statistics
import time
from collections import Counter
from itertools import pairwise

from benchmarks.measure import table
from benchmarks.service import Client, counted_commands, real_queue, running, token

_POLLERS = 500
_EVERY_SECONDS = 2.0
_RUN_SECONDS = 60.0
_MAX_AGE_SECONDS = 5
_SIZES = (1_000, 10_000, 100_000)


def run() -> str:
    """The table of polls, one row for each size of the queue."""
    rows = []
    for messages in _SIZES:
        with (
            real_queue(messages) as box,
            counted_commands(box) as (commands, starts),
            running(
                box, _POLLERS, command_directory=str(commands), snapshot_max_age_seconds=str(_MAX_AGE_SECONDS)
            ) as client,
        ):
            client.get("/v1/status")
            starts.write_text("")
            before = client.processes.cpu_seconds()
            took, statuses = asyncio.run(_poll(client))
            cpu = client.processes.cpu_seconds() - before
            listings = [float(line) for line in starts.read_text().split()]
        rows.append([f"{messages:,}", *_figures(sorted(took), statuses, listings), f"{cpu / len(took) * 1000:.1f}"])
    header = [
        "messages",
        "polls",
        "answers",
        "median, ms",
        "95 of 100, ms",
        "longest, ms",
        "`postqueue -j`",
        "apart, s",
        "CPU of each, ms",
    ]
    return table(header, rows)


def _figures(took: list[float], statuses: Counter[int], listings: list[float]) -> list[object]:
    apart = min((later - earlier for earlier, later in pairwise(listings)), default=0)
    return [
        f"{len(took):,}",
        ", ".join(f"{count:,} times {status}" for status, count in sorted(statuses.items())),
        f"{statistics.median(took) * 1000:.1f}",
        f"{took[len(took) * 95 // 100] * 1000:.0f}",
        f"{took[-1] * 1000:.0f}",
        len(listings),
        f"{apart:.1f} or more",
    ]


async def _poll(client: Client) -> tuple[list[float], Counter[int]]:
    took: list[float] = []
    statuses: Counter[int] = Counter()
    end = time.monotonic() + _RUN_SECONDS
    await asyncio.gather(*(_one(client.port, number, end, took, statuses) for number in range(_POLLERS)))
    return took, statuses


async def _one(port: int, number: int, end: float, took: list[float], statuses: Counter[int]) -> None:
    await asyncio.sleep(_EVERY_SECONDS * number / _POLLERS)
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    tag = b""
    while time.monotonic() < end:
        began = time.perf_counter()
        match = b"If-None-Match: " + tag + b"\r\n" if tag else b""
        writer.write(
            b"GET /v1/status HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer %s\r\n%s\r\n"
            % (token(number).encode(), match)
        )
        status, tag = await _answer(reader)
        taken = time.perf_counter() - began
        took.append(taken)
        statuses[status] += 1
        await asyncio.sleep(max(0, _EVERY_SECONDS - taken))
    writer.close()


async def _answer(reader: asyncio.StreamReader) -> tuple[int, bytes]:
    head = await reader.readuntil(b"\r\n\r\n")
    first, *lines = head.split(b"\r\n")
    headers = dict(line.lower().split(b": ", 1) for line in lines if b": " in line)
    tag = next((line[6:] for line in lines if line.lower().startswith(b"etag: ")), b"")
    await reader.readexactly(int(headers.get(b"content-length", b"0")))
    return int(first.split()[1]), tag
