"""Carry out one action on a handful of messages, so that the outcome of each is true.

Acting on a message that Postfix is delivering lies: postsuper says "removed" and the mail goes out all the same.
Only `hold` gives a fixed point. So delete, hold, requeue and expire go this way:

    look        is it there, complete, and the message that was meant?
    hold        postsuper -h from the queue where it was seen, after the journal knows that we are about to; what qmgr
                has in its memory gets a new name on the way (taking_out.py)
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
import os
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import Protocol

from postqueue_api.agent import failpoint
from postqueue_api.agent.look import ASKED_BEFORE, Look, untouchable
from postqueue_api.agent.marks import Marks
from postqueue_api.agent.message import (
    ACTIVE,
    DEFERRED,
    HOLD,
    INCOMING,
    MAILDROP,
    Message,
    is_file,
    is_same,
    status,
    try_lock,
    unlock,
)
from postqueue_api.agent.settling import Settling
from postqueue_api.agent.taking_out import choose_name, take_out, take_reasons_along
from postqueue_api.errors import CommandFailed, Error, StorageFull
from postqueue_api.postfix import postqueue, postsuper, queue_file
from postqueue_api.postfix.arguments import QueueId
from postqueue_api.postfix.postsuper import Report
from postqueue_api.postfix.process import Postfix
from postqueue_api.queue.operation import ACTING, EXPIRED, Action, Item, Settlement

log = logging.getLogger(__name__)

_MOVES = 3
_LOCK_PAUSE_SECONDS = 0.05
_AHEAD_SECONDS = 1.0
_RETURN_SECONDS = 2.0
_ASKED_TO_RETURN = "Postfix was asked to return it now"
_BACK_AT_NEXT_ATTEMPT = "it goes back at its next delivery attempt"


class Records(Protocol):
    """Where a chunk writes down what it is about to do, before it does it."""

    @property
    def keeps_copies(self) -> bool:
        """Whether what is deleted goes into the trash first."""

    def intend(self, items: Iterable[tuple[int, bool, str | None]]) -> None:
        """These positions are about to be touched; each with whether it was on hold before, and its new name."""

    def act(self, positions: Iterable[int]) -> None:
        """These are on hold and locked now, and about to be acted on."""

    def expire(self, positions: Iterable[int]) -> None:
        """These are marked as expired, and about to be released."""

    def keep(self, messages: Sequence[Message]) -> None:
        """These are about to be deleted: copy them into the trash. Raises StorageFull."""


@dataclass
class Chunk:
    """A handful of messages on their way through one action; `run` settles each of them, and when the journal has
    the outcomes, `forget` removes what would have told them after a crash. `long_queue_ids`: what Postfix would name a
    new message by; `plain_hold`: it looks for what is on hold in no directory below. `stopping`: do not wait for locks
    then."""

    operation_id: str
    postfix: Postfix
    queue_directory: Path
    action: Action
    lock_wait_seconds: float
    records: Records
    long_queue_ids: bool
    plain_hold: bool
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
        if self.action == "flush":  # an attempt cannot be taken back: what may have been asked for is
            self._flush(messages)
        if self.action == "expire":  # nor can what postsuper has marked
            self._return(list(filter(_is_marked_as_expired, messages)))
        left = self._settling.unsettled(messages)
        self._settling.give_back(left, "skipped", "the agent was stopped before it came to this message")
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
                    self._send_back_if_deferred(item, QueueId(seen.new_queue_id or item.target.queue_id))
        return messages

    # --- flush and release: nothing to lock -----------------------------------------------------------------

    def _flush(self, messages: list[Message]) -> None:
        for message in messages:
            if message.queue_name == HOLD:
                self._settling.settle(message, "no_change", "it is on hold: release it first")
            elif message.queue_name != DEFERRED:
                self._settling.settle(message, "in_flight", "Postfix is working on it now")
        deferred = self._settling.unsettled(messages)
        self.records.intend(message.intent for message in deferred)
        failpoint.reach("flush intended")
        for message in deferred:
            try:
                if self._settling.failure is None:
                    postqueue.flush_message(self.postfix, message.queue_id)
            except Error as error:
                self._settling.failure = error
            if self._settling.failure is None:
                self._settling.settle(message, "scheduled", "a delivery attempt was asked for")
            elif message.item.stage is not None:
                self._settling.settle(message, "scheduled", ASKED_BEFORE)
            else:
                self._settling.settle(message, "failed", self._settling.failure.detail)

    def _release(self, messages: list[Message]) -> None:
        held = [message for message in messages if message.queue_name == HOLD]
        for message in messages:
            if message.queue_name != HOLD:
                self._settling.settle(message, "no_change", "it is not on hold")
        self.records.intend(message.intent for message in held)
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
                    self._settling.settle(message, "in_flight", "pickup is about to take it in, under another queue ID")
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
        self._settling.failure = error
        self._settling.give_back(self._settling.unsettled(messages), "failed", error.detail)
        self._settling.failure = error

    def _without_no_change(self, messages: list[Message]) -> list[Message]:
        if self.action != "hold":
            return messages
        for message in messages:
            if message.was_held:
                self._settling.settle(message, "no_change", "it is on hold already")
        return [message for message in messages if not message.was_held]

    def _hold(self, messages: list[Message]) -> list[Message]:
        """Move to hold what is not there; return what is there now."""
        waiting = messages
        for _ in range(_MOVES):
            if not waiting:
                break
            silent = self._move_to_hold(waiting)
            # What moved from queue to queue just then was missed: it is met where it is now.
            waiting = [message for message in silent if not self._settling.is_held(message) and self._seek(message)]
        failpoint.reach("held")
        for message in waiting:
            if message.queue_name == ACTIVE:
                self._settling.settle(message, "in_flight", "Postfix is working on it now")
            else:
                self._settling.settle_silence(message)
        return self._settling.unsettled(messages)

    def _move_to_hold(self, messages: list[Message]) -> list[Message]:
        """Move each from the queue where it was seen, and from no other. Returns those that were not moved."""
        active = [message for message in messages if message.queue_name == ACTIVE]
        for message in messages:
            message.next_queue_id = None
        for message in active if self.plain_hold else ():
            message.next_queue_id = choose_name(message, long_queue_ids=self.long_queue_ids)
        self.records.intend(message.intent for message in messages)
        failpoint.reach("intended")
        said = {message.queue_id for message in active if take_out(self.queue_directory, message)}
        failpoint.reach("taken out")
        runs = 1
        for queue_name, meanwhile in ((INCOMING, None), (DEFERRED, self.meanwhile)):
            hold = partial(postsuper.hold, queue_name=queue_name, meanwhile=meanwhile)
            report = self._settling.say(hold, [each for each in messages if each.queue_name == queue_name])
            said.update(report.said)
            runs = max(runs, report.runs)
        silent = [message for message in messages if message.queue_id not in said]
        if runs == 1:
            self._leave_to_others([message for message in silent if message.queue_name != HOLD])
        return silent

    def _leave_to_others(self, messages: list[Message]) -> None:
        """What is on hold, and not by us, somebody else has held since we looked: it is to stay there."""
        theirs = [message for message in messages if not message.was_held and self._settling.is_held(message)]
        for message in theirs:
            message.was_held = True
        if theirs:
            self.records.intend(message.intent for message in theirs)

    def _seek(self, message: Message) -> bool:
        """Find out where it went, and whether it can be met there; settle it if not."""
        found = queue_file.find(self.queue_directory, message.queue_id)
        if found is None or found.queue_name == MAILDROP:
            self._settling.settle_silence(message)
            return False
        if (why := untouchable(message.item, message.queue_id, found)) is not None:
            self._settling.settle(message, "in_flight", why)
            return False
        message.queue_name, message.place = found.queue_name, found.place
        # What was on hold and is not any more was released by somebody else: it goes back to where that one wanted it.
        message.was_held = False
        return True

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
        for message in messages:
            if message.new_queue_id is not None:
                take_reasons_along(self.queue_directory, message)
        self._settling.give_back(waiting, "in_flight", "it was being delivered all the while")
        return locked

    def _open(self, message: Message, queue_name: str, files: ExitStack) -> bool:
        """Open it where it is to be; what is not in that queue any more is settled."""
        message.place = f"{self.queue_directory}/{queue_name}/{message.queue_id}"
        for _ in range(2):
            try:
                message.file = files.enter_context(queue_file.open_file(message.place, to_lock=True))
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
            self._settling.settle(message, "already_delivered", "every recipient had been dealt with")
            return False
        return True

    def _act(self, messages: list[Message]) -> None:
        if self.action == "hold":
            for message in messages:
                self._settling.settle(message, "held")
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
        failpoint.reach("expire said")
        self._return(expired)

    def _return(self, expired: list[Message]) -> None:
        """Let what is marked as expired go back to its sender; what was on hold before does so when it is released."""
        try:
            self.records.expire([message.item.position for message in expired])
        except StorageFull:  # too late to refuse; the outcome waits until there is room for it
            log.exception("no room to note what is expired")
        failpoint.reach("expired")
        for message in expired:
            if message.was_held:
                self._settling.settle(message, "expired", "it is on hold, and goes back when it is released")
        released = [message for message in expired if not message.was_held]
        unlock(released)
        self._settling.say(postsuper.release, released)
        failpoint.reach("expired released")
        held = [message for message in released if self._settling.is_held(message)]
        self._settling.give_back(held, "expired", _BACK_AT_NEXT_ATTEMPT)
        asked = {message.queue_id: self._send_back(message.queue_id) for message in self._settling.unsettled(released)}
        self._wait_for_returns([queue_id for queue_id, said in asked.items() if said == _ASKED_TO_RETURN])
        for message in self._settling.unsettled(released):
            self._settling.settle(message, "expired", asked[message.queue_id])

    def _wait_for_returns(self, queue_ids: list[QueueId]) -> None:
        """Wait a while until they are gone. qmgr returns them without a lock on their files: who acts on them after
        this operation would not see it."""
        deadline = time.monotonic() + _RETURN_SECONDS
        while queue_ids and time.monotonic() < deadline and not self.stopping.is_set():
            time.sleep(_LOCK_PAUSE_SECONDS)
            queue_ids = [queue_id for queue_id in queue_ids if queue_file.find(self.queue_directory, queue_id)]

    def _send_back_if_deferred(self, item: Item, queue_id: QueueId) -> None:
        found = queue_file.find(self.queue_directory, queue_id, (DEFERRED,))
        if found is not None and is_same(item.target, queue_file.read_identity(found.place)):
            self._send_back(queue_id)

    def _send_back(self, queue_id: QueueId) -> str:
        """Ask for the attempt that returns an expired message, which else waits for its next retry time."""
        try:
            postqueue.flush_message(self.postfix, queue_id)
        except Error as error:
            log.warning("an expired message could not be flushed: %s", error)
            return _BACK_AT_NEXT_ATTEMPT
        return _ASKED_TO_RETURN

    def _delete_from_maildrop(self, messages: list[Message], files: ExitStack) -> None:
        tried = [(message, try_lock(message)) for message in messages if self._open(message, MAILDROP, files)]
        free = [message for message, locked in tried if locked]
        for message, locked in tried:
            if not locked:
                self._settling.settle(message, "in_flight", "pickup is taking it in, under another queue ID")
        if free:
            # Not noted as acted on: if the agent is killed now, pickup may take it in, and nobody can tell afterwards.
            self.records.intend(message.intent for message in free)
            failpoint.reach("maildrop intended")
            self._settling.judge(free, self._settling.say(_delete_from_maildrop, free))


def _is_marked_as_expired(message: Message) -> bool:
    """Whether an expire that broke off had come that far."""
    is_begun = message.item.stage in (ACTING, EXPIRED)
    try:
        return is_begun and queue_file.is_force_expired(os.lstat(message.place))
    except FileNotFoundError:
        return False


def _delete_from_hold(postfix: Postfix, ids: Sequence[QueueId]) -> Report:
    return postsuper.delete(postfix, ids, HOLD)


def _delete_from_maildrop(postfix: Postfix, ids: Sequence[QueueId]) -> Report:
    return postsuper.delete(postfix, ids, MAILDROP)


def _requeue_from_hold(postfix: Postfix, ids: Sequence[QueueId]) -> Report:
    return postsuper.requeue(postfix, ids, HOLD)


def _expire_in_hold(postfix: Postfix, ids: Sequence[QueueId]) -> Report:
    return postsuper.expire(postfix, ids, HOLD)
