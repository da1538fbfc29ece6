"""The first look at a message, before anything is touched: is it there, complete, and the one that was meant?

For what an agent before this one had begun with, the journal and the queue tell what had happened; the rest is done
again.
"""

import os
import time
from pathlib import Path
from typing import BinaryIO

from postqueue_api.agent.marks import Marks
from postqueue_api.agent.message import HOLD, MAILDROP, Message, is_due, is_same
from postqueue_api.postfix import queue_file
from postqueue_api.postfix.arguments import QueueId
from postqueue_api.queue.operation import ACTING, EXPIRED, Action, Item, Settlement

LOOKS, LOOK_PAUSE_SECONDS = 20, 0.01
DONE = {"delete": "removed", "release": "released", "requeue": "requeued", "expire": "expired"}


class Look:
    """Looks at the messages of one operation."""

    def __init__(self, queue_directory: Path, action: Action, marks: Marks) -> None:
        self._queue_directory, self._action, self._marks = queue_directory, action, marks

    def at(self, item: Item) -> Message | Settlement:
        """A message to act on; or what became of it, when there is nothing to be done. Changes nothing."""
        queue_id = QueueId.parse(item.target.queue_id)
        found = self._find(queue_id, item)
        is_other = found is not None and not is_same(item.target, queue_file.read_identity(found.place))
        if is_other and item.stage is None:
            return Settlement(item.position, "changed", "this queue ID names another message by now")
        found = None if is_other else found
        if item.stage is not None and (outcome := self._happened_before(item, found)) is not None:
            return Settlement(item.position, outcome, "done just before the agent was stopped")
        if found is None:
            return Settlement(item.position, "not_found", "there is no message with this queue ID in the queue")
        if self._action == "expire" and item.stage is None and queue_file.is_force_expired(found.stat):
            return Settlement(item.position, "no_change", "it is expired already")
        if found.queue_name == "incoming" and not queue_file.is_ready(found.stat):
            return Settlement(item.position, "in_flight", "it is still being received")
        # An agent before this one may have put it on hold, to act on it, before it was killed: the journal knows.
        was_held = found.queue_name == HOLD if item.was_held is None else item.was_held
        return Message(item, queue_id, found.queue_name, found.place, was_held)

    def _find(self, queue_id: QueueId, item: Item) -> queue_file.Found | None:
        """Where a message is; when the second link says that it is in some queue, look until it is found."""
        for _ in range(LOOKS):
            found = queue_file.find(self._queue_directory, queue_id)
            if found is not None or not self._marks.is_in_queue(item):
                break
            time.sleep(LOOK_PAUSE_SECONDS)
        return found

    def _happened_before(self, item: Item, found: queue_file.Found | None) -> str | None:
        """The outcome that a message had already when the agent was killed; None: it is still to be acted on."""
        if self._action == "release":
            return released(found)
        if item.stage == EXPIRED:
            return "expired" if found is None or found.queue_name != HOLD or item.was_held else None
        if item.stage != ACTING:
            return None
        if self._action == "requeue":
            return "requeued" if found is None or found.queue_name == MAILDROP else None
        if self._action == "expire":
            return None
        try:
            with queue_file.open_file(self._marks.of(item)) as file:
                return happened(self._action, file, 1, found)
        except FileNotFoundError:
            return None  # killed before the second link was made, and so before the act


def released(found: queue_file.Found | None) -> str | None:
    """The outcome of a release, by where the message is."""
    return "released" if found is not None and found.queue_name != HOLD else None


def happened(action: Action, file: BinaryIO, links: int, found: queue_file.Found | None) -> str | None:
    """What became of a message that we had on hold and locked; None: nothing was done to it.

    `file` is its open queue file, which has `links` names of ours besides the one in a queue; `found`: where it is.
    """
    status = os.fstat(file.fileno())
    is_gone = status.st_nlink <= links
    is_requeued = found is not None and found.queue_name == MAILDROP
    done = {"delete": is_gone, "requeue": is_gone or is_requeued, "expire": queue_file.is_force_expired(status)}
    if done.get(action) and (action == "expire" or not is_gone or is_due(file)):
        return DONE[action]
    return "already_delivered" if is_gone and not is_due(file) else None
