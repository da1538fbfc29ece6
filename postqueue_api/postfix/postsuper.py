"""postsuper(1): change messages in the queue. One function per option.

The exit status says nothing: it is 0 for an ID that is unknown, malformed or already in that state. The truth
is one line per ID on standard error; an ID without a line was not acted on. So each function returns what was
said, ID by ID, and the caller looks up the rest. IDs go over standard input, where neither `ALL` nor `-` is
special, and from an anonymous file, so that postsuper never sees half a list. An empty list starts nothing:
a bare postsuper would repair the live queue.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from postqueue_api.errors import Error
from postqueue_api.postfix.arguments import QueueId, QueueName
from postqueue_api.postfix.complaint import complaint
from postqueue_api.postfix.process import Postfix, start

_LINE = re.compile(
    rb"postsuper: ([0-9A-Za-z]+): (removed|requeued|placed on hold|released from hold|expired)", re.ASCII
)


@dataclass
class Report:
    """What postsuper said: the words for each ID that it acted on, and why it stopped early, if it did.

    `runs`: how often it was started. After the first, its silence may be about what it had done before.
    """

    said: dict[QueueId, list[str]] = field(default_factory=dict)
    failure: Error | None = None
    runs: int = 1


def delete(postfix: Postfix, ids: Sequence[QueueId], queue_name: QueueName) -> Report:
    """Remove messages from one queue, for good. Each says `removed`.

    Runs:     postsuper -d - QUEUE, with the IDs on standard input
    Source:   postsuper(1), option -d. A message in `active` is delivered although "removed": name `hold`
    """
    return _act(postfix, ids, "-d", queue_name)


def hold(
    postfix: Postfix, ids: Sequence[QueueId], queue_name: QueueName, meanwhile: Callable[[], object] | None = None
) -> Report:
    """Put messages of one queue on hold: no delivery attempt and no expiry until they are released.

    `meanwhile` is called while postsuper runs, which uses a processor of its own.

    Runs:     postsuper -h - QUEUE, with the IDs on standard input
    Source:   postsuper(1), option -h; nothing is said of a message that is not in that queue. One of `active` is lost
              if it is released too soon: agent/taking_out.py
    """
    return _act(postfix, ids, "-h", queue_name, meanwhile=meanwhile)


def release(postfix: Postfix, ids: Sequence[QueueId]) -> Report:
    """Move messages from `hold` to `deferred`. Each says `released from hold`.

    Runs:     postsuper -H -, with the IDs on standard input
    Source:   postsuper(1), option -H; nothing is said of a message that is not on hold
    """
    return _act(postfix, ids, "-H")


def requeue(postfix: Postfix, ids: Sequence[QueueId], queue_name: QueueName) -> Report:
    """Send messages through pickup and cleanup again, under a new queue ID. Each says `requeued`.

    Runs:     postsuper -r - QUEUE, with the IDs on standard input
    Source:   postsuper(1), option -r
    """
    return _act(postfix, ids, "-r", queue_name)


def expire(postfix: Postfix, ids: Sequence[QueueId], queue_name: QueueName) -> Report:
    """Mark messages as expired: they go back to their sender at the next attempt. Each says `expired`.

    Runs:     postsuper -e - QUEUE, with the IDs on standard input
    Source:   postsuper(1), option -e (Postfix 3.5 and later); a held message stays held
    """
    return _act(postfix, ids, "-e", queue_name)


def _act(
    postfix: Postfix,
    ids: Sequence[QueueId],
    option: str,
    *queue_names: QueueName,
    meanwhile: Callable[[], object] | None = None,
) -> Report:
    report = Report()
    if not ids:
        return report
    stdin = "".join(f"{queue_id}\n" for queue_id in ids).encode("ascii")
    inherit = () if postfix.guard is None else (postfix.guard,)
    argv = postfix.argv("postsuper", option, "-", *queue_names)
    with start(argv, postfix.timeout_seconds, stdin, inherit) as running:
        if meanwhile is not None:
            meanwhile()
        for _ in running.chunks():  # nothing is ever said there
            pass
        finished = running.finish()
    for line in finished.stderr.split(b"\n"):
        if found := _LINE.fullmatch(line):
            report.said.setdefault(QueueId(found[1].decode("ascii")), []).append(found[2].decode("ascii"))
    if finished.returncode != 0:
        report.failure = complaint(finished)
    return report
