"""Changes beside what an expert types: delete 10,000 of 100,000, hold all, delete one; and what a message costs."""

import json
import shlex
import statistics
import subprocess
import time
from functools import partial

from benchmarks.measure import ratio, seconds, table
from benchmarks.multiply import multiply
from benchmarks.service import Client, real_queue, running
from postqueue_api.sandbox.box import Sandbox
from postqueue_api.sandbox.sites import REFUSING

_MESSAGES = 100_000
_ROUNDS = 3
_SENDER = "bulk@example.com"
_RECIPIENT = f"anna@{REFUSING}"
_COUNT = 10_000
_COUNTS = (1_000, 10_000, 40_000)
_SINGLES = 60


def run() -> str:
    """The tables of changes."""
    with real_queue(_MESSAGES - _COUNT) as box, running(box) as client:
        return "\n".join((_deletes(box, client), _holds(box, client), _costs(box, client), _singles(box, client)))


def _deletes(box: Sandbox, client: Client) -> str:
    expert: list[float] = []
    ours: dict[bool, list[float]] = {False: [], True: []}
    for _ in range(_ROUNDS):
        _add(box, _COUNT)
        expert.append(seconds(partial(_by_hand, box, f'select(.sender == "{_SENDER}").queue_id', "-d")))
        for keep_copy, times in ours.items():
            _add(box, _COUNT)
            times.append(seconds(partial(_delete, client, _COUNT, keep_copy)))
    rows = [["`postqueue -j`, `jq` and `postsuper -d -`", f"{statistics.median(expert):.2f}", "1"]]
    names = {False: "an operation, with undo off", True: "an operation, with a copy for undo"}
    rows += [[names[keep_copy], *_compared(expert, times)] for keep_copy, times in ours.items()]
    return table([f"delete {_COUNT:,} of {_MESSAGES:,}", "s", "times (least to most)"], rows)


def _holds(box: Sandbox, client: Client) -> str:
    """All of the queue that is left, put on hold and released again."""
    messages = len(box.queue())
    expert, ours = [], []
    for _ in range(_ROUNDS):
        expert.append(seconds(partial(_by_hand, box, ".queue_id", "-h")))
        _release(box)
        body = {"action": "hold", "selection": {"everything": True}, "reason": "benchmark"}
        ours.append(seconds(partial(operate, client, body, {"held": messages})))
        _release(box)
    rows = [
        ["`postqueue -j`, `jq` and `postsuper -h -`", f"{statistics.median(expert):.2f}", "1"],
        ["an operation", *_compared(expert, ours)],
    ]
    return table([f"hold all of {messages:,}", "s", "times (least to most)"], rows)


def _costs(box: Sandbox, client: Client) -> str:
    """What the agent needs for each message, the listing left out."""
    rows = []
    for count in _COUNTS:
        taken = {}
        for keep_copy in (False, True):
            _add(box, count)
            done = _delete(client, count, keep_copy)
            taken[keep_copy] = (done["finished_at"] - done["started_at"]) / count * 1000
        rows.append([f"{count:,}", f"{taken[False]:.2f}", f"{taken[True]:.2f}"])
    return table(["messages of one delete", "each, undo off, ms", "each, with a copy, ms"], rows)


def _singles(box: Sandbox, client: Client) -> str:
    """One message after the other, and as many by Postfix's own two commands that each takes."""
    ids = _add(box, 2 * _SINGLES)
    ours = [seconds(partial(client.delete, f"/v1/messages/{queue_id}")) for queue_id in ids[:_SINGLES]]
    expert = [seconds(partial(_hold_and_delete, box, queue_id)) for queue_id in ids[_SINGLES:]]
    rows = [
        ["DELETE /v1/messages/{queue_id}, with a copy", f"{statistics.median(ours) * 1000:.0f}"],
        ["of it `postsuper -h -` and `postsuper -d - hold`", f"{statistics.median(expert) * 1000:.0f}"],
    ]
    return table([f"one deferred message of {_MESSAGES:,}", "median, ms"], rows)


def _compared(expert: list[float], ours: list[float]) -> list[str]:
    middle, least, most = ratio(expert, ours)
    return [f"{statistics.median(ours):.2f}", f"{middle:.2f} ({least:.2f} to {most:.2f})"]


def _add(box: Sandbox, count: int) -> list[str]:
    """One message from a sender of its own, deferred, and copies of it."""
    queue_id = box.send(_SENDER, [_RECIPIENT], b"Subject: bulk\n\nBuy now.\n")
    box.wait_until(lambda: list((box.queue_directory / "defer").glob(f"*/{queue_id}")), 60)
    box.wait_until(lambda: list((box.queue_directory / "deferred").glob(f"*/{queue_id}")), 60)
    return [queue_id, *multiply(box.queue_directory, count - 1, only=queue_id)]


def _by_hand(box: Sandbox, chosen: str, option: str) -> None:
    instance = f"-c {shlex.quote(str(box.config_directory))}"
    command = f"postqueue {instance} -j | jq -r '{chosen}' | postsuper {instance} {option} -"
    subprocess.run(["/bin/sh", "-c", command], check=True, stderr=subprocess.DEVNULL)


def _hold_and_delete(box: Sandbox, queue_id: str) -> None:
    for words in (("-h", "-"), ("-d", "-", "hold")):
        _postsuper(box, *words, ids=queue_id)


def _release(box: Sandbox) -> None:
    _postsuper(box, "-H", "ALL", "hold")


def _postsuper(box: Sandbox, *words: str, ids: str = "") -> None:
    command = ["postsuper", "-c", str(box.config_directory), *words]
    subprocess.run(command, check=True, stderr=subprocess.DEVNULL, input=f"{ids}\n".encode())


def _delete(client: Client, count: int, keep_copy: bool) -> dict[str, float]:
    body = {"action": "delete", "selection": {"sender": _SENDER}, "reason": "benchmark", "keep_copy": keep_copy}
    return operate(client, body, {"removed": count})


def operate(client: Client, body: dict[str, object], outcomes: dict[str, int]) -> dict[str, float]:
    """Carry an operation out, however long it takes. Raises RuntimeError when it had other outcomes."""
    done: dict[str, float] = json.loads(client.post("/v1/operations", body, Prefer="wait=60"))
    while done["finished_at"] is None:
        time.sleep(0.5)
        done = json.loads(client.get(f"/v1/operations/{done['operation_id']}"))
    if done["outcomes"] != outcomes:
        raise RuntimeError(f"not all were changed: {done}")
    return done
