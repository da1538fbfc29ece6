"""Carry out one action on a handful of messages, so that the outcome of each is true.

Acting on a message that Postfix is delivering lies: postsuper says "removed" and the mail goes out all the same.
Only `hold` gives a fixed point. So delete, hold, requeue and expire go this way:

    look        is it there, complete, and the message that was meant?
    hold        postsuper -h, after the journal knows that we are about to
    lock        wait until no delivery agent holds the file (they hold a shared flock), then keep it locked
    look again  is it still that message, and is anybody left to deliver it to?
    keep        before a delete: a copy into the trash
    act         postsuper -d, -r or -e, limited to the queue `hold`, after the journal knows that we are about to

What cannot be locked in time goes back to where it was and is `in_flight`. What has no recipient left has been
delivered: the empty file is removed, and the outcome says so. When the agent was killed on the way, the journal and
the queue tell what had happened (look.py, marks.py), and the rest is done again. An expire takes two steps: what it has
marked as expired, and noted so, goes back to its sender whoever releases it.
"""

import logging
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import Protocol

from postqueue_api.agent import failpoint
from postqueue_api.agent.look import Look
from postqueue_api.agent.marks import Marks
from postqueue_api.agent.message import HOLD, MAILDROP, Message, is_file, is_same, status, try_lock, unlock
from postqueue_api.agent.settling import Settling
from postqueue_api.errors import CommandFailed, Error, StorageFull
from postqueue_api.postfix import postqueue, postsuper, queue_file
from postqueue_api.postfix.arguments import QueueId
from postqueue_api.postfix.postsuper import Report
from postqueue_api.postfix.process import Postfix
from postqueue_api.queue.operation import Action, Item, Settlement

log = logging.getLogger(__name__)

_LOCK_PAUSE_SECONDS = 0.05
_AHEAD_SECONDS = 1.0
_BACK_AT_NEXT_ATTEMPT = "it goes back at its next delivery attempt"


class Records(Protocol):
    """Where a chunk writes down what it is about to do, before it does it."""

    @property
    def keeps_copies(self) -> bool:
        """Whether what is deleted goes into the trash first."""

    def intend(self, items: Iterable[tuple[int, bool]]) -> None:
        """These positions are about to be touched; each with whether it was on hold before."""

    def act(self, positions: Iterable[int]) -> None:
        """These are on hold and locked now, and about to be acted on."""

    def expire(self, positions: Iterable[int]) -> None:
        """These are marked as expired, and about to be released."""

    def keep(self, messages: Sequence[Message]) -> None:
        """These are about to be deleted: copy them into the trash. Raises StorageFull."""


@dataclass
class Chunk:
    """A handful of messages on their way through one action; `run` settles each of them, and when the journal has
    the outcomes, `forget` removes what would have told them after a crash. `stopping`: do not wait for locks then."""

    operation_id: str
    postfix: Postfix
    queue_directory: Path
    action: Action
    lock_wait_seconds: float
    records: Records
    stopping: threading.Event = field(default_factory=threading.Event)
    meanwhile: Callable[[], object] | None = None  # to be done while postsuper runs
    _ahead: tuple[float, Sequence[Item], list[Message | Settlement]] = (0.0, (), [])

    def look_ahead(self, items: Sequence[Item]) -> None:
        """Look at messages before their turn. `run` goes by that if it is soon, and they are still as they were."""
        self._ahead = time.monotonic(), items, self._look_at(items)

    def run(self, items: Sequence[Item]) -> list[Settlement]:
        """Carry out the action.

        Raises:   StorageFull when not even the intent could be written down; nothing was touched then
        """
        messages = self._to_act_on(items)
        match self.action:
            case "flush":
                self._flush(messages)
            case "release":
                self._release(messages)
            case _:
                self._change(messages)
        return self._settling.settlements

    def put_back(self, items: Sequence[Item]) -> list[Settlement]:
        """Settle what was touched before a restart without going on: what we put on hold is released."""
        messages = self._to_act_on(items)
        self._settling.give_back(messages, "skipped", "the agent was stopped before it came to this message")
        return self._settling.settlements

    def forget(self, items: Sequence[Item]) -> None:
        """Remove the second links: the outcomes are in the journal."""
        if self.action == "delete":
            self._marks.remove(items)

    @property
    def failure(self) -> Error | None:
        """Why the operation cannot go on, if so."""
        return self._settling.failure

    @cached_property
    def _marks(self) -> Marks:
        return Marks(self.queue_directory, self.operation_id)

    @cached_property
    def _settling(self) -> Settling:
        return Settling(self.postfix, self.queue_directory, self.action)

    def _look_at(self, items: Sequence[Item]) -> list[Message | Settlement]:
        look = Look(self.queue_directory, self.action, self._marks)
        return [look.at(item) for item in items]

    def _to_act_on(self, items: Sequence[Item]) -> list[Message]:
        """Look at each, unless that was done just now; settle those with which there is nothing to be done."""
        when, looked_at, found = self._ahead
        if looked_at != items or time.monotonic() > when + _AHEAD_SECONDS:
            found = self._look_at(items)
        messages = []
        for item, seen in zip(items, found, strict=True):
            if isinstance(seen, Message):
                messages.append(seen)
            else:
                self._settling.settlements.append(seen)
                if seen.outcome == "expired":
                    self._send_back_if_deferred(item)
        return messages

    # --- flush and release: nothing to lock -----------------------------------------------------------------

    def _flush(self, messages: list[Message]) -> None:
        for message in messages:
            if message.queue_name == HOLD:
                self._settling.settle(message.item, "no_change", "it is on hold: release it first")
            elif message.queue_name != "deferred":
                self._settling.settle(message.item, "in_flight", "Postfix is working on it now")
            elif self._settling.failure is not None:
                self._settling.settle(message.item, "failed", self._settling.failure.detail)
            else:
                try:
                    postqueue.flush_message(self.postfix, message.queue_id)
                except Error as error:
                    self._settling.failure = error
                    self._settling.settle(message.item, "failed", error.detail)
                else:
                    self._settling.settle(message.item, "scheduled", "a delivery attempt was asked for")

    def _release(self, messages: list[Message]) -> None:
        held = [message for message in messages if message.queue_name == HOLD]
        for message in messages:
            if message.queue_name != HOLD:
                self._settling.settle(message.item, "no_change", "it is not on hold")
        self.records.intend((message.item.position, True) for message in held)
        failpoint.reach("release intended")
        self._settling.judge(held, self._settling.say(postsuper.release, held))

    # --- delete, hold, requeue, expire: by way of hold ------------------------------------------------------

    def _change(self, messages: list[Message]) -> None:
        in_maildrop = [message for message in messages if message.queue_name == MAILDROP]
        others = [message for message in messages if message.queue_name != MAILDROP]
        with ExitStack() as files:
            if self.action == "delete" and not self.records.keeps_copies:
                self._delete_from_maildrop(in_maildrop, files)
            else:  # a file in maildrop is not yet what could be kept and restored: no sizes, no cleanup
                for message in in_maildrop:
                    self._settling.settle(
                        message.item, "in_flight", "pickup is about to take it in, under another queue ID"
                    )
            held = self._hold(self._without_no_change(others))
            try:
                fixed = [message for message in self._lock(held, files) if self._look_again(message)]
                failpoint.reach("locked")
                if self.action == "delete":
                    self.records.keep(fixed)
                    failpoint.reach("kept")
                self._act(fixed)
            except Error as error:
                self._abandon(held, error)
            except OSError as error:
                log.exception("a chunk of %s broke off", self.operation_id)
                self._abandon(held, CommandFailed(f"The agent could not work on it: {error.strerror}."))

    def _abandon(self, messages: list[Message], error: Error) -> None:
        """No room for a copy, or for a record: what was not settled goes back, untouched."""
        settled = {settlement.position for settlement in self._settling.settlements}
        left = [message for message in messages if message.item.position not in settled]
        self._settling.failure = error
        self._settling.give_back(left, "failed", error.detail)
        self._settling.failure = error

    def _without_no_change(self, messages: list[Message]) -> list[Message]:
        if self.action != "hold":
            return messages
        for message in messages:
            if message.was_held:
                self._settling.settle(message.item, "no_change", "it is on hold already")
        return [message for message in messages if not message.was_held]

    def _hold(self, messages: list[Message]) -> list[Message]:
        """Move to hold what is not there; return what is there now."""
        if not messages:
            return []
        self.records.intend((message.item.position, message.was_held) for message in messages)
        failpoint.reach("intended")
        others = [message for message in messages if message.queue_name != HOLD]
        report = self._settling.say(partial(postsuper.hold, meanwhile=self.meanwhile), others)
        # What moved from queue to queue just then was missed; it is met at the second attempt. What was on hold and is
        # not any more was released by somebody else, and what postsuper need not hold was held by somebody else, since
        # we looked: it is to go back to where that one wanted it.
        silent = [message for message in messages if message.queue_id not in report.said]
        missed = [message for message in silent if not self._settling.is_held(message)]
        turned = [message for message in missed if message.was_held]
        if report.runs == 1:
            positions = {message.item.position for message in missed}
            theirs = [message for message in silent if message.item.position not in positions]
            turned += [message for message in theirs if message.queue_name != HOLD and not message.was_held]
        for message in turned:
            message.was_held = not message.was_held
        if turned:
            self.records.intend((message.item.position, message.was_held) for message in turned)
        self._settling.say(postsuper.hold, missed)
        failpoint.reach("held")
        gone = [message for message in missed if not self._settling.is_held(message)]
        for message in gone:
            self._settling.settle_silence(message)
        positions = {message.item.position for message in gone}
        return [message for message in messages if message.item.position not in positions]

    def _lock(self, messages: list[Message], files: ExitStack) -> list[Message]:
        """Lock what is in hold; what a delivery agent still has after the waiting time goes back."""
        waiting = [message for message in messages if self._open(message, HOLD, files)]
        locked: list[Message] = []
        deadline = time.monotonic() + self.lock_wait_seconds
        while True:
            tried = [(message, try_lock(message)) for message in waiting]
            locked += [message for message, free in tried if free]
            waiting = [message for message, free in tried if not free]
            if not waiting or time.monotonic() >= deadline or self.stopping.is_set():
                break
            time.sleep(_LOCK_PAUSE_SECONDS)
        self._settling.give_back(waiting, "in_flight", "it was being delivered all the while")
        return locked

    def _open(self, message: Message, queue_name: str, files: ExitStack) -> bool:
        """Open it where it is to be; what is not in that queue any more is settled."""
        message.place = f"{self.queue_directory}/{queue_name}/{message.queue_id}"
        for _ in range(2):
            try:
                message.file = files.enter_context(queue_file.open_file(message.place))
            except FileNotFoundError:  # or the queue has hash directories
                found = queue_file.find(self.queue_directory, message.queue_id, (queue_name,))
                if found is None:
                    break
                message.place = found.place
            else:
                return True
        self._settling.settle_silence(message)
        return False

    def _look_again(self, message: Message) -> bool:
        """Whether the locked file is the message that was meant, with somebody left to deliver it to."""
        assert message.file is not None
        if not is_file(message.file, message.place):
            self._settling.settle_silence(message)
            return False
        identity, is_due = queue_file.glance(message.file)
        if not is_same(message.item.target, identity):
            self._settling.give_back([message], "changed", "this queue ID names another message by now")
            return False
        if not is_due:
            self._settling.say(_delete_from_hold, [message])
            self._settling.settle(message.item, "already_delivered", "every recipient had been dealt with")
            return False
        return True

    def _act(self, messages: list[Message]) -> None:
        if self.action == "hold":
            for message in messages:
                self._settling.settle(message.item, "held")
            return
        self.records.act(message.item.position for message in messages)
        failpoint.reach("acting")
        match self.action:
            case "delete":
                marked = self._mark(messages)
                failpoint.reach("marked")
                self._settling.judge(marked, self._settling.say(_delete_from_hold, marked))
            case "requeue":
                unlock(messages)
                self._settling.judge(messages, self._settling.say(_requeue_from_hold, messages))
            case "expire":
                self._expire(messages)
        failpoint.reach("acted")

    def _mark(self, messages: list[Message]) -> list[Message]:
        self._marks.prepare()
        marked = []
        for message in messages:
            if self._marks.make(message):
                marked.append(message)
            else:
                self._settling.settle_silence(message)
        return marked

    def _expire(self, messages: list[Message]) -> None:
        """Mark it as expired while it is on hold, note that, then let go what was not on hold before."""
        report = self._settling.say(_expire_in_hold, messages)
        expired = []
        for message in messages:
            # What somebody else had expired before, postsuper passes over in silence.
            if report.said.get(message.queue_id) or queue_file.is_force_expired(status(message)):
                expired.append(message)
            else:
                self._settling.settle_silence(message)
        try:
            self.records.expire([message.item.position for message in expired])
        except StorageFull:  # too late to refuse; the outcome waits until there is room for it
            log.exception("no room to note what is expired")
        failpoint.reach("expired")
        for message in expired:
            if message.was_held:
                self._settling.settle(message.item, "expired", "it is on hold, and goes back when it is released")
        released = [message for message in expired if not message.was_held]
        unlock(released)
        self._settling.say(postsuper.release, released)
        failpoint.reach("expired released")
        for message in released:
            if self._settling.is_held(message):
                self._settling.give_back([message], "expired", _BACK_AT_NEXT_ATTEMPT)
            else:
                self._settling.settle(message.item, "expired", self._send_back(message.queue_id))

    def _send_back_if_deferred(self, item: Item) -> None:
        found = queue_file.find(self.queue_directory, item.target.queue_id, ("deferred",))
        if found is not None and is_same(item.target, queue_file.read_identity(found.place)):
            self._send_back(QueueId(item.target.queue_id))

    def _send_back(self, queue_id: QueueId) -> str:
        """Ask for the attempt that returns an expired message, which else waits for its next retry time."""
        try:
            postqueue.flush_message(self.postfix, queue_id)
        except Error as error:
            log.warning("an expired message could not be flushed: %s", error)
            return _BACK_AT_NEXT_ATTEMPT
        return "Postfix was asked to return it now"

    def _delete_from_maildrop(self, messages: list[Message], files: ExitStack) -> None:
        tried = [(message, try_lock(message)) for message in messages if self._open(message, MAILDROP, files)]
        free = [message for message, locked in tried if locked]
        for message, locked in tried:
            if not locked:
                self._settling.settle(message.item, "in_flight", "pickup is taking it in, under another queue ID")
        if free:
            # Not noted as acted on: if the agent is killed now, pickup may take it in, and nobody can tell afterwards.
            self.records.intend((message.item.position, False) for message in free)
            failpoint.reach("maildrop intended")
            self._settling.judge(free, self._settling.say(_delete_from_maildrop, free))


def _delete_from_hold(postfix: Postfix, ids: Sequence[QueueId]) -> Report:
    return postsuper.delete(postfix, ids, HOLD)


def _delete_from_maildrop(postfix: Postfix, ids: Sequence[QueueId]) -> Report:
    return postsuper.delete(postfix, ids, MAILDROP)


def _requeue_from_hold(postfix: Postfix, ids: Sequence[QueueId]) -> Report:
    return postsuper.requeue(postfix, ids, HOLD)


def _expire_in_hold(postfix: Postfix, ids: Sequence[QueueId]) -> Report:
    return postsuper.expire(postfix, ids, HOLD)
