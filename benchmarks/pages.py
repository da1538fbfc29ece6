"""Pages, groups and ages of a recorded listing of a million, as a client gets them."""

import statistics
from collections import defaultdict
from functools import partial

from benchmarks.measure import seconds, table
from benchmarks.service import Client, empty_queue, recorded_commands, running

_MESSAGES = 1_000_000
_WARM_ROUNDS = 9
_GROUP_ROUNDS = 5
_PAGES: list[dict[str, object]] = [
    {},
    {"sort": "-message_size"},
    {"sort": "sender"},
    {"sort": "-next_attempt_time", "queue_name": "deferred"},
    {"sender": "promo1@spam.example", "sort": "-arrival_time"},
    {"sender_domain": "corp.example", "sort": "-message_size"},
    {"recipient": "person453789@icloud.com"},
    {"recipient_domain": "gmail.com", "sort": "-message_size"},
    {"recipient_domain": "gmail.com", "sender_domain": "corp.example", "sort": "recipients"},
    {"reason": "connection refused", "sort": "-arrival_time"},
    {"min_age": "2d", "max_age": "3d", "sort": "queue_id"},
    {"min_size": 50_000, "sort": "sender_domain"},
    {"queue_name": "hold", "recipient_domain": "outlook.com", "sort": "-arrival_time"},
]
_GROUPS = ("queue_name", "sender", "sender_domain", "recipient", "recipient_domain", "reason_group")
_OLD = {"Cache-Control": "max-age=86400"}


def run() -> str:
    """Tables of pages and of groups."""
    with (
        empty_queue() as box,
        recorded_commands(box, _MESSAGES) as commands,
        running(box, command_directory=str(commands), web_workers="1") as client,
    ):
        client.get("/v1/queues", None, **_OLD)
        return _pages(client) + "\n" + _groups(client)


def _pages(client: Client) -> str:
    cold, warm = [], defaultdict(list)
    rows = []
    for number, query in enumerate(_PAGES):
        ask = partial(client.get, "/v1/messages", {**query, "limit": 100}, **_OLD)
        cold.append(seconds(ask) * 1000)
        warm[number] = [seconds(ask) * 1000 for _ in range(_WARM_ROUNDS)]
        shown = "&".join(f"{name}={value}" for name, value in query.items()) or "(nothing)"
        rows.append([f"`{shown}`", f"{cold[-1]:.1f}", f"{statistics.median(warm[number]):.1f}"])
    every = [taken for times in warm.values() for taken in times]
    rows.append(["**median**", f"**{statistics.median(cold):.1f}**", f"**{statistics.median(every):.1f}**"])
    return table(["page of 100 at a million", "first time, ms", "again, ms"], rows)


def _groups(client: Client) -> str:
    rows = []
    asked = [("/v1/groups", by) for by in _GROUPS] + [("/v1/ages", by) for by in ("sender_domain", "recipient_domain")]
    for path, by in asked:
        # Not so few that the service remembers them.
        ask = partial(client.get, path, {"by": by, "limit": 100}, **_OLD)
        before = client.processes.cpu_seconds()
        first, *again = [seconds(ask) for _ in range(_GROUP_ROUNDS)]
        cpu = (client.processes.cpu_seconds() - before) / _GROUP_ROUNDS
        rows.append([f"`{path}?by={by}`", f"{first:.2f}", f"{statistics.median(again):.2f}", f"{cpu:.2f}"])
    return table(["over all of a million", "first time, s", "again, s", "CPU of each, s"], rows)
