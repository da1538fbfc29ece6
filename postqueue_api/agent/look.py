"""The first look at a message, before anything is touched: is it there, complete, and the one that was meant?

For what an agent before this one had begun with, the journal and the queue tell what had happened; the rest is done
again.
"""

import os
import time
from pathlib import Path
from typing import BinaryIO

from postqueue_api.agent.marks import Marks
from postqueue_api.agent.message import ACTIVE, DEFERRED, HOLD, INCOMING, MAILDROP, Message, is_due, is_same
from postqueue_api.postfix import queue_file
from postqueue_api.postfix.arguments import QueueId
from postqueue_api.queue.operation import ACTING, EXPIRED, Action, Item, Settlement

LOOKS, LOOK_PAUSE_SECONDS = 20, 0.01
DONE = {"delete": "removed", "release": "released", "requeue": "requeued", "expire": "expired"}
DONE_BEFORE = "done just before the agent was stopped"
ASKED_BEFORE = "a delivery attempt was asked for, or about to be, when the agent was stopped"


class Look:
    """Looks at the messages of one operation."""

    def __init__(self, queue_directory: Path, action: Action, marks: Marks) -> None:
        self._queue_directory, self._action, self._marks = queue_directory, action, marks

    def at(self, item: Item) -> Message | Settlement:
        """A message to act on; or what became of it, when there is nothing to be done. Changes nothing."""
        queue_id, found = self._find(item)
        is_other = found is not None and not is_same(item.target, queue_file.read_identity(found.place))
        if is_other and item.stage is None:
            return Settlement(item.position, "changed", "this queue ID names another message by now")
        found = None if is_other else found
        if item.stage is not None and (outcome := self._happened_before(item, found)) is not None:
            return settlement(item, queue_id, outcome, ASKED_BEFORE if outcome == "scheduled" else DONE_BEFORE)
        if found is None:
            return Settlement(item.position, "not_found", "there is no message with this queue ID in the queue")
        if self._action == "expire" and item.stage is None and queue_file.is_force_expired(found.stat):
            return Settlement(item.position, "no_change", "it is expired already")
        if (why := untouchable(item, queue_id, found)) is not None:
            return settlement(item, queue_id, "in_flight", why)
        # An agent before this one may have put it on hold, to act on it, before it was killed: the journal knows. What
        # that one meant to take out of `active`, and has its old name, it did not come to.
        is_known = item.was_held is not None and item.new_queue_id in (None, queue_id)
        was_held = bool(item.was_held) if is_known else found.queue_name == HOLD
        return Message(item, queue_id, found.queue_name, found.place, was_held)

    def _find(self, item: Item) -> tuple[QueueId, queue_file.Found | None]:
        """By which name a message is where; when the second link says that it is in some queue, look until found."""
        names = [QueueId.parse(name) for name in (item.new_queue_id, item.target.queue_id) if name is not None]
        for _ in range(LOOKS):
            for name in names:
                found = queue_file.find(self._queue_directory, name)
                if found is not None:
                    return name, found
            if not self._marks.is_in_queue(item):
                break
            time.sleep(LOOK_PAUSE_SECONDS)
        return names[0], None

    def _happened_before(self, item: Item, found: queue_file.Found | None) -> str | None:
        """The outcome that a message had already when the agent was killed; None: it is still to be acted on."""
        if self._action == "release":
            return released(found)
        if self._action == "flush":
            return "scheduled" if found is None or found.queue_name != DEFERRED else None
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


def settlement(item: Item, queue_id: str, outcome: str, detail: str | None = None) -> Settlement:
    """What became of a message that is, or was, called so. The detail says it where that is a new name."""
    if queue_id == item.target.queue_id:
        return Settlement(item.position, outcome, detail)
    words = [] if detail is None else [detail]
    return Settlement(item.position, outcome, "; ".join([*words, f"its queue ID became {queue_id}"]), queue_id)


def untouchable(item: Item, queue_id: str, found: queue_file.Found) -> str | None:
    """Why a message cannot be taken out of the hands of Postfix, if so.

    What is marked as expired, qmgr returns without a delivery agent, and so without a lock on the file, once it has
    begun; what it has got under the new name that we gave, somebody released.
    """
    if found.queue_name == INCOMING and not queue_file.is_ready(found.stat):
        return "it is still being received"
    if found.queue_name in (INCOMING, ACTIVE) and queue_file.is_force_expired(found.stat):
        return "it is expired, and being returned"
    if found.queue_name == ACTIVE and queue_id != item.target.queue_id:
        return "somebody released it, and Postfix is working on it now"
    return None


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
