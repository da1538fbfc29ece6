"""postsuper(1): change messages in the queue. One function per option.

The exit status says nothing: it is 0 for an ID that is unknown, malformed or already in that state. The truth
is one line per ID on standard error; an ID without a line was not acted on. So each function returns what was
said, ID by ID, and the caller looks up the rest. IDs go over standard input, where neither `ALL` nor `-` is
special, and from an anonymous file, so that postsuper never sees half a list. An empty list starts nothing:
a bare postsuper would repair the live queue.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from postqueue_api.errors import Error
from postqueue_api.postfix.arguments import QueueId, QueueName
from postqueue_api.postfix.complaint import complaint
from postqueue_api.postfix.process import Postfix, run

_LINE = re.compile(
    rb"postsuper: ([0-9A-Za-z]+): (removed|requeued|placed on hold|released from hold|expired)", re.ASCII
)


@dataclass
class Report:
    """What postsuper said: the words for each ID that it acted on, and why it stopped early, if it did."""

    said: dict[QueueId, list[str]] = field(default_factory=dict)
    failure: Error | None = None


def delete(postfix: Postfix, ids: Sequence[QueueId], queue_name: QueueName) -> Report:
    """Remove messages from one queue, for good. Each says `removed`.

    Runs:     postsuper -d - QUEUE, with the IDs on standard input
    Source:   postsuper(1), option -d. A message in `active` is delivered although "removed": name `hold`
    """
    return _act(postfix, ids, "-d", queue_name)


def hold(postfix: Postfix, ids: Sequence[QueueId]) -> Report:
    """Put messages on hold: no delivery attempt and no expiry until they are released.

    Runs:     postsuper -h -, with the IDs on standard input
    Source:   postsuper(1), option -h; nothing is said of a message that is on hold already
    """
    return _act(postfix, ids, "-h")


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


def _act(postfix: Postfix, ids: Sequence[QueueId], option: str, *queue_names: QueueName) -> Report:
    report = Report()
    if not ids:
        return report
    stdin = "".join(f"{queue_id}\n" for queue_id in ids).encode("ascii")
    inherit = () if postfix.guard is None else (postfix.guard,)
    argv = postfix.argv("postsuper", option, "-", *queue_names)
    finished = run(argv, postfix.timeout_seconds, stdin=stdin, inherit=inherit)
    for line in finished.stderr.split(b"\n"):
        if found := _LINE.fullmatch(line):
            report.said.setdefault(QueueId(found[1].decode("ascii")), []).append(found[2].decode("ascii"))
    if finished.returncode != 0:
        report.failure = complaint(finished)
    return report
