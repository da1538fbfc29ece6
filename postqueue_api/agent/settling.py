"""What postsuper says, and what its silence means: how each message of a chunk comes to its one true outcome."""

import logging
import os
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from postqueue_api.agent.look import DONE, LOOK_PAUSE_SECONDS, LOOKS, happened, released, settlement
from postqueue_api.agent.message import HOLD, Message, is_file
from postqueue_api.errors import CommandTimeout, Error
from postqueue_api.postfix import postsuper, queue_file
from postqueue_api.postfix.arguments import QueueId
from postqueue_api.postfix.postsuper import Report
from postqueue_api.postfix.process import Postfix
from postqueue_api.queue.operation import Action, Settlement

log = logging.getLogger(__name__)

_ATTEMPTS = 3
_WORDS = {"delete": "removed", "release": "released from hold", "requeue": "requeued", "expire": "expired"}


class Settling:
    """The settlements of a chunk. `failure`: why its operation cannot go on, if so."""

    def __init__(self, postfix: Postfix, queue_directory: Path, action: Action) -> None:
        self._postfix, self._queue_directory, self._action = postfix, queue_directory, action
        self.settlements: list[Settlement] = []
        self.failure: Error | None = None

    def settle(self, message: Message, outcome: str, detail: str | None = None) -> None:
        """This is what became of it."""
        self.settlements.append(settlement(message.item, message.queue_id, outcome, detail))

    def unsettled(self, messages: Iterable[Message]) -> list[Message]:
        """Those of which it is not known yet."""
        settled = {settlement.position for settlement in self.settlements}
        return [message for message in messages if message.item.position not in settled]

    def is_held(self, message: Message) -> bool:
        """Whether it is on hold now."""
        return queue_file.find(self._queue_directory, message.queue_id, (HOLD,)) is not None

    def say(self, command: Callable[[Postfix, Sequence[QueueId]], Report], messages: list[Message]) -> Report:
        """Run postsuper; again for what it did not come to, as long as it comes further, and a few times if not."""
        said: dict[QueueId, list[str]] = {}
        waiting = [message.queue_id for message in messages]
        stalled = runs = 0
        while True:
            runs += 1
            try:
                report = command(self._postfix, waiting)
            except Error as error:
                report = Report(failure=error)
            said |= report.said
            if report.failure is None:
                return Report(said, runs=runs)
            log.error("postsuper, for %s: %s", self._action, report.failure)
            waiting = [queue_id for queue_id in waiting if queue_id not in report.said]
            stalled = 0 if report.said else stalled + 1
            if not waiting or stalled == _ATTEMPTS or (stalled and isinstance(report.failure, CommandTimeout)):
                self.failure = report.failure if waiting else self.failure
                return Report(said, report.failure, runs)

    def judge(self, messages: list[Message], report: Report) -> None:
        """Settle messages by what postsuper said of each."""
        for message in messages:
            if _WORDS[self._action] in report.said.get(message.queue_id, ()):
                self.settle(message, DONE[self._action])
            else:
                self.settle_silence(message)

    def settle_silence(self, message: Message) -> None:
        """What postsuper said nothing of is looked up."""
        outcome, found = self._look_up(message)
        if outcome is not None:
            self.settle(message, outcome, "postsuper did not say so, but so it is")
        elif found is None:
            self.settle(message, "not_found", "it left the queue at that moment")
        else:
            why = "postsuper did not act on it" if self.failure is None else self.failure.detail
            self.give_back([message], "failed", why)

    def _look_up(self, message: Message) -> tuple[str | None, queue_file.Found | None]:
        found = queue_file.find(self._queue_directory, message.queue_id)
        if message.file is None:
            return (released(found) if self._action == "release" else None), found
        links = 1 if message.is_marked else 0
        for _ in range(LOOKS):
            if found is not None and not is_file(message.file, found.place):
                found = None
            if found is not None or os.fstat(message.file.fileno()).st_nlink <= links:
                break
            time.sleep(LOOK_PAUSE_SECONDS)
            found = queue_file.find(self._queue_directory, message.queue_id)
        return happened(self._action, message.file, links, found), found

    def give_back(self, messages: Sequence[Message], outcome: str, detail: str) -> None:
        """Release what is on hold by our doing, and settle it; what Postfix does not release is said to be there."""
        for _ in range(_ATTEMPTS):
            ours = [message for message in messages if not message.was_held and self.is_held(message)]
            if not ours:
                break
            self.say(postsuper.release, ours)
        left = {message.item.position for message in messages if not message.was_held and self.is_held(message)}
        for message in messages:
            if message.item.position in left:
                self.settle(message, "failed", f"it is on hold and could not be released; {detail}")
            else:
                self.settle(message, outcome, detail)
