"""One operation on a million real messages: its memory, and what each message takes."""

from benchmarks.deletes import operate
from benchmarks.measure import seconds, table
from benchmarks.service import real_queue, running

_MESSAGES = 1_000_000


def run() -> str:
    """The table of one delete of everything."""
    body = {"action": "delete", "selection": {"everything": True}, "reason": "benchmark", "keep_copy": False}
    done: dict[str, float] = {}
    with real_queue(_MESSAGES) as box, running(box) as client, client.processes.watched():
        taken = seconds(lambda: done.update(operate(client, body, {"removed": _MESSAGES})))
    each = (done["finished_at"] - done["started_at"]) / _MESSAGES * 1000
    row = [f"{_MESSAGES:,}", f"{client.processes.peak:.0f}", f"{taken:.0f}", f"{each:.2f}"]
    return table(["messages of one delete", "memory, MB", "with the listing, s", "each, ms"], [row])
