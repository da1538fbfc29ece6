"""Memory of agent and web together, by the length of the queue: a table and a plot."""

from collections.abc import Callable
from pathlib import Path

from benchmarks.measure import table
from benchmarks.service import Client, empty_queue, recorded_commands, running

_SIZES = (1_000, 10_000, 100_000, 1_000_000)
_PHASES = ("at rest", "refresh", "pages", "groups", "stream")
_LIMIT_MEGABYTES = 200
_OLD = {"Cache-Control": "max-age=86400"}
PLOT = Path(__file__).with_name("memory.png")


def run() -> str:
    """The table of the greatest sums of PSS; the plot is written beside it."""
    found = {messages: _measure(messages) for messages in _SIZES}
    _plot(found)
    rows = [[f"{messages:,}", *(f"{found[messages][phase]:.0f}" for phase in _PHASES)] for messages in _SIZES]
    return table(["messages", *_PHASES], rows) + f"\n![Memory by the length of the queue]({PLOT.name})\n"


def _measure(messages: int) -> dict[str, float]:
    with (
        empty_queue() as box,
        recorded_commands(box, messages) as commands,
        running(box, command_directory=str(commands)) as client,
    ):
        acts: dict[str, Callable[[], object]] = {
            "at rest": lambda: client.get("/health/live"),
            "refresh": lambda: [client.get("/v1/queues", None, **{"Cache-Control": "no-cache"}) for _ in range(2)],
            "pages": lambda: _page_through(client),
            "groups": lambda: _group(client),
            "stream": lambda: client.stream("/v1/messages?sort=-message_size", "application/x-ndjson"),
        }
        found = {}
        for phase in _PHASES:
            with client.processes.watched():
                acts[phase]()
            found[phase] = client.processes.peak
    return found


def _page_through(client: Client) -> None:
    for sort in ("arrival_time", "-message_size", "sender", "queue_id", "-recipients"):
        for domain in ("gmail.com", "corp.example"):
            client.get("/v1/messages", {"recipient_domain": domain, "sort": sort, "limit": 1000}, **_OLD)


def _group(client: Client) -> None:
    for by in ("queue_name", "sender", "sender_domain", "recipient", "recipient_domain", "reason_group"):
        client.get("/v1/groups", {"by": by, "limit": 1000}, **_OLD)


def _plot(found: dict[int, dict[str, float]]) -> None:
    import matplotlib.pyplot as plot  # late: the other benchmarks run without the extra `bench`

    figure, axes = plot.subplots(figsize=(7, 4), dpi=100)
    for phase in _PHASES:
        axes.plot(list(found), [each[phase] for each in found.values()], marker="o", label=phase)
    axes.axhline(_LIMIT_MEGABYTES, color="gray", linestyle="--", label="limit")
    axes.set(xscale="log", xlabel="messages in the queue", ylabel="sum of PSS, MB", ylim=(0, _LIMIT_MEGABYTES * 1.1))
    axes.legend(loc="lower right")
    figure.tight_layout()
    figure.savefig(PLOT)
    plot.close(figure)
