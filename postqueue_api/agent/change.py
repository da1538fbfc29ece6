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
the queue tell what had happened, and the rest is done again.

That a message is gone does not tell who did it: while no agent runs, somebody may release everything, and Postfix
delivers it. So before a delete a second link to each queue file is made, beside the queues where Postfix does not
look, and it is removed when the outcome is in the journal. Postfix marks in the file itself who got the message: a file
that is in no queue any more, and has recipients without a mark, was removed and not delivered. (Before a delete only:
pickup throws a file away that has two links.) An expire takes two steps: what it has marked as expired, and noted so,
goes back to its sender whoever releases it.
"""

import fcntl
import logging
import os
import re
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import BinaryIO, Protocol

from postqueue_api.agent import failpoint
from postqueue_api.agent.aside import aside
from postqueue_api.errors import CommandFailed, CommandTimeout, Error, StorageFull
from postqueue_api.postfix import postqueue, postsuper, queue_file
from postqueue_api.postfix.arguments import QueueId, QueueName
from postqueue_api.postfix.postsuper import Report
from postqueue_api.postfix.process import Postfix
from postqueue_api.queue.operation import ACTING, EXPIRED, Action, Item, Settlement, Target

log = logging.getLogger(__name__)

HOLD, MAILDROP = QueueName("hold"), QueueName("maildrop")
MARK = "mark-"
_LOCK_PAUSE_SECONDS = 0.05
_ATTEMPTS = 3
_LOOKS, _LOOK_PAUSE_SECONDS = 20, 0.01
_NULL_SENDER = "mailer-daemon"
_DONE_WORDS = {
    "delete": "removed",
    "release": "released from hold",
    "requeue": "requeued",
    "expire": "expired",
}
_OUTCOMES = {"delete": "removed", "release": "released", "requeue": "requeued", "expire": "expired"}
_BACK_AT_NEXT_ATTEMPT = "it goes back at its next delivery attempt"


@dataclass
class Message:
    """A message under our hands."""

    item: Item
    queue_id: QueueId
    queue_name: str
    place: str  # where its file is
    was_held: bool
    file: BinaryIO | None = None
    is_marked: bool = False  # there is a second link to its file


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
    settlements: list[Settlement] = field(default_factory=list)
    failure: Error | None = None

    def run(self, items: Sequence[Item]) -> list[Settlement]:
        """Carry out the action.

        `failure` tells afterwards why the operation cannot go on, if so.

        Raises:   StorageFull when not even the intent could be written down; nothing was touched then
        """
        messages = [message for item in items if (message := self._look(item)) is not None]
        match self.action:
            case "flush":
                self._flush(messages)
            case "release":
                self._release(messages)
            case _:
                self._change(messages)
        return self.settlements

    def put_back(self, items: Sequence[Item]) -> list[Settlement]:
        """Settle what was touched before a restart without going on: what we put on hold is released."""
        messages = [message for item in items if (message := self._look(item)) is not None]
        self._give_back(messages, "skipped", "the agent was stopped before it came to this message")
        return self.settlements

    def forget(self, items: Sequence[Item]) -> None:
        """Remove the second links: the outcomes are in the journal."""
        if self.action == "delete":
            for item in items:
                with suppress(FileNotFoundError):
                    os.unlink(self._mark(item))  # noqa: PTH108 - a Path takes as long as the rest

    # --- look -----------------------------------------------------------------------------------------------

    def _look(self, item: Item) -> Message | None:
        queue_id = QueueId.parse(item.target.queue_id)
        found = self._find(queue_id, item)
        is_other = found is not None and not _is_same(item.target, queue_file.read_identity(found.place))
        if is_other and item.stage is None:
            self._settle(item, "changed", "this queue ID names another message by now")
            return None
        found = None if is_other else found
        if item.stage is not None and (outcome := self._happened_before(item, found)) is not None:
            self._settle(item, outcome, "done just before the agent was stopped")
            if outcome == "expired" and found is not None and found.queue_name == "deferred":
                self._send_back(queue_id)
        elif found is None:
            self._settle(item, "not_found", "there is no message with this queue ID in the queue")
        elif self.action == "expire" and item.stage is None and queue_file.is_force_expired(found.stat):
            self._settle(item, "no_change", "it is expired already")
        elif found.queue_name == "incoming" and not queue_file.is_ready(found.stat):
            self._settle(item, "in_flight", "it is still being received")
        else:
            # An agent before this one may have put it on hold, to act on it, before it was killed: the journal knows.
            was_held = found.queue_name == HOLD if item.was_held is None else item.was_held
            return Message(item, queue_id, found.queue_name, found.place, was_held)
        return None

    def _find(self, queue_id: QueueId, item: Item) -> queue_file.Found | None:
        """Where a message is; when the second link says that it is in some queue, look until it is found."""
        for _ in range(_LOOKS):
            found = queue_file.find(self.queue_directory, queue_id)
            if found is not None or not self._is_marked_in_queue(item):
                break
            time.sleep(_LOOK_PAUSE_SECONDS)
        return found

    def _is_marked_in_queue(self, item: Item) -> bool:
        try:
            return os.lstat(self._mark(item)).st_nlink > 1
        except FileNotFoundError:
            return False

    def _happened_before(self, item: Item, found: queue_file.Found | None) -> str | None:
        """The outcome that a message had already when the agent was killed; None: it is still to be acted on."""
        if self.action == "release":
            return _released(found)
        if item.stage == EXPIRED:
            return "expired" if found is None or found.queue_name != HOLD or item.was_held else None
        if item.stage != ACTING:
            return None
        if self.action == "requeue":
            return "requeued" if found is None or found.queue_name == MAILDROP else None
        if self.action == "expire":
            return None
        try:
            with queue_file.open_file(self._mark(item)) as file:
                return _happened(self.action, file, 1, found)
        except FileNotFoundError:
            return None  # killed before the second link was made, and so before the act

    def _mark(self, item: Item) -> str:
        return f"{self._aside}/{MARK}{self.operation_id}-{item.position}"

    @cached_property
    def _aside(self) -> Path:
        return aside(self.queue_directory)

    # --- flush and release: nothing to lock -----------------------------------------------------------------

    def _flush(self, messages: list[Message]) -> None:
        for message in messages:
            if message.queue_name == HOLD:
                self._settle(message.item, "no_change", "it is on hold: release it first")
            elif message.queue_name != "deferred":
                self._settle(message.item, "in_flight", "Postfix is working on it now")
            elif self.failure is not None:
                self._settle(message.item, "failed", self.failure.detail)
            else:
                try:
                    postqueue.flush_message(self.postfix, message.queue_id)
                except Error as error:
                    self.failure = error
                    self._settle(message.item, "failed", error.detail)
                else:
                    self._settle(message.item, "scheduled", "a delivery attempt was asked for")

    def _release(self, messages: list[Message]) -> None:
        held = [message for message in messages if message.queue_name == HOLD]
        for message in messages:
            if message.queue_name != HOLD:
                self._settle(message.item, "no_change", "it is not on hold")
        self.records.intend((message.item.position, True) for message in held)
        failpoint.reach("release intended")
        self._judge(held, self._say(postsuper.release, held))

    # --- delete, hold, requeue, expire: by way of hold ------------------------------------------------------

    def _change(self, messages: list[Message]) -> None:
        in_maildrop = [message for message in messages if message.queue_name == MAILDROP]
        others = [message for message in messages if message.queue_name != MAILDROP]
        with ExitStack() as files:
            if self.action == "delete" and not self.records.keeps_copies:
                self._delete_from_maildrop(in_maildrop, files)
            else:  # a file in maildrop is not yet what could be kept and restored: no sizes, no cleanup
                for message in in_maildrop:
                    self._settle(message.item, "in_flight", "pickup is about to take it in, under another queue ID")
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
        settled = {settlement.position for settlement in self.settlements}
        left = [message for message in messages if message.item.position not in settled]
        self.failure = error
        self._give_back(left, "failed", error.detail)
        self.failure = error

    def _without_no_change(self, messages: list[Message]) -> list[Message]:
        if self.action != "hold":
            return messages
        for message in messages:
            if message.was_held:
                self._settle(message.item, "no_change", "it is on hold already")
        return [message for message in messages if not message.was_held]

    def _hold(self, messages: list[Message]) -> list[Message]:
        """Move to hold what is not there; return what is there now."""
        if not messages:
            return []
        self.records.intend((message.item.position, message.was_held) for message in messages)
        failpoint.reach("intended")
        report = self._say(postsuper.hold, [message for message in messages if message.queue_name != HOLD])
        # What moved from queue to queue just then was missed; it is met at the second attempt. What was on hold and is
        # not any more was released by somebody else: it is to go back to where that one wanted it.
        silent = [message for message in messages if message.queue_id not in report.said]
        missed = [message for message in silent if not self._is_held(message)]
        released = [message for message in missed if message.was_held]
        for message in released:
            message.was_held = False
        if released:
            self.records.intend((message.item.position, False) for message in released)
        self._say(postsuper.hold, missed)
        failpoint.reach("held")
        gone = [message for message in missed if not self._is_held(message)]
        for message in gone:
            self._settle_silence(message)
        positions = {message.item.position for message in gone}
        return [message for message in messages if message.item.position not in positions]

    def _is_held(self, message: Message) -> bool:
        return queue_file.find(self.queue_directory, message.queue_id, (HOLD,)) is not None

    def _lock(self, messages: list[Message], files: ExitStack) -> list[Message]:
        """Lock what is in hold; what a delivery agent still has after the waiting time goes back."""
        waiting = [message for message in messages if self._open(message, HOLD, files)]
        locked: list[Message] = []
        deadline = time.monotonic() + self.lock_wait_seconds
        while True:
            tried = [(message, _try_lock(message)) for message in waiting]
            locked += [message for message, free in tried if free]
            waiting = [message for message, free in tried if not free]
            if not waiting or time.monotonic() >= deadline or self.stopping.is_set():
                break
            time.sleep(_LOCK_PAUSE_SECONDS)
        self._give_back(waiting, "in_flight", "it was being delivered all the while")
        return locked

    def _open(self, message: Message, queue_name: str, files: ExitStack) -> bool:
        """Open it where it is to be; what is not in that queue any more is settled."""
        found = queue_file.find(self.queue_directory, message.queue_id, (queue_name,))
        try:
            if found is not None:
                message.place = found.place
                message.file = files.enter_context(queue_file.open_file(found.place))
                return True
        except FileNotFoundError:
            log.debug("%s left %s just then", message.queue_id, queue_name)
        self._settle_silence(message)
        return False

    def _look_again(self, message: Message) -> bool:
        """Whether the locked file is the message that was meant, with somebody left to deliver it to."""
        assert message.file is not None
        if not _is_file(message.file, message.place):
            self._settle_silence(message)
            return False
        identity, is_due = queue_file.glance(message.file)
        if not _is_same(message.item.target, identity):
            self._give_back([message], "changed", "this queue ID names another message by now")
            return False
        if not is_due:
            self._say(_delete_from_hold, [message])
            self._settle(message.item, "already_delivered", "every recipient had been dealt with")
            return False
        return True

    def _act(self, messages: list[Message]) -> None:
        if self.action == "hold":
            for message in messages:
                self._settle(message.item, "held")
            return
        self.records.act(message.item.position for message in messages)
        failpoint.reach("acting")
        match self.action:
            case "delete":
                self._aside.mkdir(mode=0o700, exist_ok=True)
                messages = [message for message in messages if self._make_mark(message)]
                failpoint.reach("marked")
                self._judge(messages, self._say(_delete_from_hold, messages))
            case "requeue":
                _unlock(messages)
                self._judge(messages, self._say(_requeue_from_hold, messages))
            case "expire":
                self._expire(messages)
        failpoint.reach("acted")

    def _make_mark(self, message: Message) -> bool:
        mark = self._mark(message.item)
        try:
            try:
                os.link(message.place, mark)
            except FileExistsError:  # of an earlier attempt
                os.unlink(mark)  # noqa: PTH108
                os.link(message.place, mark)
        except FileNotFoundError:
            self._settle_silence(message)
            return False
        except OSError as error:
            raise StorageFull("There is no room in the queue's file system, so nothing was done.") from error
        message.is_marked = True
        return True

    def _expire(self, messages: list[Message]) -> None:
        """Mark it as expired while it is on hold, note that, then let go what was not on hold before."""
        report = self._say(_expire_in_hold, messages)
        expired = []
        for message in messages:
            # What somebody else had expired before, postsuper passes over in silence.
            if report.said.get(message.queue_id) or queue_file.is_force_expired(_status(message)):
                expired.append(message)
            else:
                self._settle_silence(message)
        try:
            self.records.expire([message.item.position for message in expired])
        except StorageFull:  # too late to refuse; the outcome waits until there is room for it
            log.exception("no room to note what is expired")
        failpoint.reach("expired")
        for message in expired:
            if message.was_held:
                self._settle(message.item, "expired", "it is on hold, and goes back when it is released")
        released = [message for message in expired if not message.was_held]
        _unlock(released)
        self._say(postsuper.release, released)
        failpoint.reach("expired released")
        for message in released:
            if self._is_held(message):
                self._give_back([message], "expired", _BACK_AT_NEXT_ATTEMPT)
            else:
                self._settle(message.item, "expired", self._send_back(message.queue_id))

    def _send_back(self, queue_id: QueueId) -> str:
        """Ask for the attempt that returns an expired message, which else waits for its next retry time."""
        try:
            postqueue.flush_message(self.postfix, queue_id)
        except Error as error:
            log.warning("an expired message could not be flushed: %s", error)
            return _BACK_AT_NEXT_ATTEMPT
        return "Postfix was asked to return it now"

    def _delete_from_maildrop(self, messages: list[Message], files: ExitStack) -> None:
        tried = [(message, _try_lock(message)) for message in messages if self._open(message, MAILDROP, files)]
        free = [message for message, locked in tried if locked]
        for message, locked in tried:
            if not locked:
                self._settle(message.item, "in_flight", "pickup is taking it in, under another queue ID")
        if free:
            # Not noted as acted on: if the agent is killed now, pickup may take it in, and nobody can tell afterwards.
            self.records.intend((message.item.position, False) for message in free)
            failpoint.reach("maildrop intended")
            self._judge(free, self._say(_delete_from_maildrop, free))

    def _give_back(self, messages: Sequence[Message], outcome: str, detail: str) -> None:
        """Release what is on hold by our doing, and settle it; what Postfix does not release is said to be there."""
        for _ in range(_ATTEMPTS):
            ours = [message for message in messages if not message.was_held and self._is_held(message)]
            if not ours:
                break
            self._say(postsuper.release, ours)
        left = {message.item.position for message in messages if not message.was_held and self._is_held(message)}
        for message in messages:
            if message.item.position in left:
                self._settle(message.item, "failed", f"it is on hold and could not be released; {detail}")
            else:
                self._settle(message.item, outcome, detail)

    # --- what postsuper said --------------------------------------------------------------------------------

    def _say(self, command: Callable[[Postfix, Sequence[QueueId]], Report], messages: list[Message]) -> Report:
        """Run postsuper; again for what it did not come to, as long as it comes further, and a few times if not."""
        said: dict[QueueId, list[str]] = {}
        waiting = [message.queue_id for message in messages]
        stalled = 0
        while True:
            try:
                report = command(self.postfix, waiting)
            except Error as error:
                report = Report(failure=error)
            said |= report.said
            if report.failure is None:
                return Report(said)
            log.error("postsuper, for %s: %s", self.action, report.failure)
            waiting = [queue_id for queue_id in waiting if queue_id not in report.said]
            stalled = 0 if report.said else stalled + 1
            if not waiting or stalled == _ATTEMPTS or (stalled and isinstance(report.failure, CommandTimeout)):
                self.failure = report.failure if waiting else self.failure
                return Report(said, report.failure)

    def _judge(self, messages: list[Message], report: Report, detail: str | None = None) -> None:
        for message in messages:
            if _DONE_WORDS[self.action] in report.said.get(message.queue_id, ()):
                self._settle(message.item, _OUTCOMES[self.action], detail)
            else:
                self._settle_silence(message)

    def _settle_silence(self, message: Message) -> None:
        """What postsuper said nothing of is looked up."""
        outcome, found = self._look_up(message)
        if outcome is not None:
            self._settle(message.item, outcome, "postsuper did not say so, but so it is")
        elif found is None:
            self._settle(message.item, "not_found", "it left the queue at that moment")
        else:
            why = "postsuper did not act on it" if self.failure is None else self.failure.detail
            self._give_back([message], "failed", why)

    def _look_up(self, message: Message) -> tuple[str | None, queue_file.Found | None]:
        found = queue_file.find(self.queue_directory, message.queue_id)
        if message.file is None:
            return (_released(found) if self.action == "release" else None), found
        links = 1 if message.is_marked else 0
        for _ in range(_LOOKS):
            if found is not None and not _is_file(message.file, found.place):
                found = None
            if found is not None or os.fstat(message.file.fileno()).st_nlink <= links:
                break
            time.sleep(_LOOK_PAUSE_SECONDS)
            found = queue_file.find(self.queue_directory, message.queue_id)
        return _happened(self.action, message.file, links, found), found

    def _settle(self, item: Item, outcome: str, detail: str | None = None) -> None:
        self.settlements.append(Settlement(item.position, outcome, detail))


def _delete_from_hold(postfix: Postfix, ids: Sequence[QueueId]) -> Report:
    return postsuper.delete(postfix, ids, HOLD)


def _delete_from_maildrop(postfix: Postfix, ids: Sequence[QueueId]) -> Report:
    return postsuper.delete(postfix, ids, MAILDROP)


def _requeue_from_hold(postfix: Postfix, ids: Sequence[QueueId]) -> Report:
    return postsuper.requeue(postfix, ids, HOLD)


def _expire_in_hold(postfix: Postfix, ids: Sequence[QueueId]) -> Report:
    return postsuper.expire(postfix, ids, HOLD)


def _status(message: Message) -> os.stat_result:
    assert message.file is not None
    return os.fstat(message.file.fileno())


def _released(found: queue_file.Found | None) -> str | None:
    return "released" if found is not None and found.queue_name != HOLD else None


def _happened(action: Action, file: BinaryIO, links: int, found: queue_file.Found | None) -> str | None:
    """What became of a message that we had on hold and locked; None: nothing was done to it.

    `file` is its open queue file, which has `links` names of ours besides the one in a queue; `found`: where it is.
    """
    status = os.fstat(file.fileno())
    is_gone = status.st_nlink <= links
    is_requeued = found is not None and found.queue_name == MAILDROP
    done = {"delete": is_gone, "requeue": is_gone or is_requeued, "expire": queue_file.is_force_expired(status)}
    if done.get(action) and (action == "expire" or not is_gone or _is_due(file)):
        return _OUTCOMES[action]
    return "already_delivered" if is_gone and not _is_due(file) else None


def _is_same(target: Target, found: queue_file.Identity | None) -> bool:
    """Whether it is the message that was chosen. What moved while we looked is taken for it until the second look."""
    if target.arrival_time is None or found is None:
        return True
    return found.arrival_time == target.arrival_time and (
        target.sender in (None, found.sender) or _comparable(found.sender) == _comparable(target.sender)
    )


def _is_due(file: BinaryIO) -> bool:
    """Whether anybody is left to deliver it to, as far as the file can be read."""
    return queue_file.glance(file)[1]


def _try_lock(message: Message) -> bool:
    """Lock a file in hold or maildrop for ourselves; False when somebody works with it. Never for `active`."""
    assert message.file is not None
    try:
        fcntl.flock(message.file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _is_file(file: BinaryIO, place: str) -> bool:
    try:
        return os.path.samestat(os.fstat(file.fileno()), os.lstat(place))
    except FileNotFoundError:
        return False


def _unlock(messages: Iterable[Message]) -> None:
    """Let go of what Postfix is to work with at once: pickup and qmgr pass over a file that is locked."""
    for message in messages:
        assert message.file is not None
        fcntl.flock(message.file, fcntl.LOCK_UN)


def _comparable(sender: str) -> str:
    """A sender without what differs between the queue file and a listing: case, quotes, unprintable characters."""
    if sender.lower() == _NULL_SENDER:
        return ""
    return re.sub(r"[^\x20-\x7e]+", "?", sender.lower().replace('"', "").replace("\\", ""))
