"""Carry out operations, one after the other, in chunks, with every outcome in the journal and in the audit."""

import logging
import secrets
import sqlite3
import threading
import time
from collections.abc import Callable, Iterable, Sequence

from postqueue_api.agent import failpoint
from postqueue_api.agent.change import Chunk
from postqueue_api.agent.lines import tell_messages, tell_operation
from postqueue_api.errors import CommandFailed, Conflict, Error, StorageFull
from postqueue_api.queue.journal import Journal
from postqueue_api.queue.operation import Item, Operation, Request, Settlement, State, Target

log = logging.getLogger(__name__)

CHUNK_MESSAGES = 500
_FULL_DISK_PAUSE_SECONDS = 5.0
_STOP_PAUSE_SECONDS = 0.5
_FAULT = CommandFailed("The service met a fault of its own; the agent's log has it.")

# Make the Chunk that carries an operation's action out; give one of its messages back from the trash.
BeginChunk = Callable[[Operation], Chunk]
Restore = Callable[[Operation, Item], Settlement]


class Executor:
    """One thread that works through what is asked for, in the order in which it was asked."""

    def __init__(self, journal: Journal, begin_chunk: BeginChunk, restore: Restore) -> None:
        self._journal = journal
        self._begin_chunk = begin_chunk
        self._restore = restore
        self._changed = threading.Condition()
        self._queue: list[str] = []
        self._ahead: Chunk | None = None  # the next one of the operation that runs
        self._left = journal.unfinished()  # by an agent before this one; nobody can have asked this one for any yet
        self.stopping = threading.Event()
        self._thread = threading.Thread(target=self._work, name="executor", daemon=True)

    def start(self, *, resume: bool) -> None:
        """Take up what an agent before this one left, or with `resume` False mark it as interrupted; then work."""
        while self._left and not resume:
            self._end(self._left[0], "interrupted", None)
            self._left.pop(0)
        with self._changed:
            self._queue = [operation.operation_id for operation in self._left] + self._queue
        self._thread.start()

    def stop(self, seconds: float) -> None:
        """End the chunk that is being worked on, wait for nothing else, and begin no other; a restart goes on."""
        self.stopping.set()
        with self._changed:
            self._changed.notify_all()
        if self._thread.is_alive():
            self._thread.join(seconds)

    def submit(self, request: Request, targets: Iterable[Target], key: tuple[str, str] | None = None) -> Operation:
        """Write an operation down and queue it. Raises StorageFull, and then nothing happens."""
        operation = self._journal.begin(f"op-{secrets.token_hex(8)}", request, targets, key)
        failpoint.reach("begun")
        with self._changed:
            self._queue.append(operation.operation_id)
            self._changed.notify_all()
        return operation

    def wait(self, operation_id: str, seconds: float) -> Operation:
        """The operation when it is over, or as it stands after that time. Raises NoSuchOperation."""
        deadline = time.monotonic() + seconds
        with self._changed:
            while True:
                operation = self._journal.operation(operation_id)
                remaining = deadline - time.monotonic()
                if operation.is_over or remaining <= 0 or self.stopping.is_set():
                    return operation
                self._changed.wait(min(remaining, _STOP_PAUSE_SECONDS))

    def cancel(self, operation_id: str) -> Operation:
        """End an operation before its next chunk. Raises NoSuchOperation, and Conflict when it is over."""
        if self._journal.operation(operation_id).is_over:
            raise Conflict("The operation is over already.")
        with self._changed:
            operation = self._journal.cancel(operation_id)
            self._changed.notify_all()
        return operation

    def _work(self) -> None:
        while not self.stopping.is_set():
            with self._changed:
                while not self._queue and not self.stopping.is_set():
                    self._changed.wait()
                if self.stopping.is_set():
                    return
                operation_id = self._queue[0]
            try:
                self._carry_out(self._journal.operation(operation_id))
            except StorageFull:
                # Nothing is lost: what is not settled is taken up again, and nothing was touched without a record.
                log.error("no room for the journal: operation %s waits for some", operation_id)
                self.stopping.wait(_FULL_DISK_PAUSE_SECONDS)
                continue
            except Exception as error:  # one operation with a fault must not stop all others
                log.exception("operation %s met a fault of the service", operation_id)
                if not self._give_up(operation_id, error):
                    self.stopping.wait(_FULL_DISK_PAUSE_SECONDS)
                    continue
            with self._changed:
                if not self.stopping.is_set():
                    self._queue.pop(0)
                self._changed.notify_all()

    def _give_up(self, operation_id: str, fault: Exception) -> bool:
        """End an operation that cannot go on, with what it touched put back; False when that cannot be done now."""
        try:
            self._end(self._journal.operation(operation_id), "failed", fault if isinstance(fault, Error) else _FAULT)
        except Exception:  # logged, and tried again: what was touched must be put back
            log.exception("operation %s could not be ended; it is tried again", operation_id)
            return False
        return True

    def _carry_out(self, operation: Operation) -> None:
        if not operation.shorthand and operation.started_at is None:
            tell_operation("operation", operation, selection=operation.selection, messages=operation.requested)
        self._journal.start(operation.number)
        size = _chunk_size(operation)
        self._ahead = None
        while items := self._journal.unsettled(operation.number, size):
            if self.stopping.is_set():
                return
            if self._journal.operation(operation.operation_id).cancel_requested:
                self._end(operation, "cancelled", None)
                return
            began = time.monotonic()
            failure = self._settle_chunk(operation, items)
            if failure is not None:
                self._end(operation, "failed", failure)
                return
            self._keep_pace(operation, len(items), began)
        self._end(operation, "done", None)

    def _settle_chunk(self, operation: Operation, items: Sequence[Item]) -> Error | None:
        if operation.action == "restore":
            self._settle(operation, items, [self._restore(operation, item) for item in items])
            return None
        chunk, self._ahead = self._ahead or self._begin_chunk(operation), None
        chunk.meanwhile = lambda: self._look_ahead(operation, items)
        self._settle(operation, items, chunk.run(items))
        chunk.forget(items)
        return chunk.failure

    def _look_ahead(self, operation: Operation, items: Sequence[Item]) -> None:
        """Look at the next chunk, while postsuper works on this one: that takes about as long."""
        try:
            chunk = self._begin_chunk(operation)
            chunk.look_ahead(self._journal.unsettled(operation.number, len(items), items[-1].position))
        except (Error, OSError, sqlite3.Error):
            log.warning("operation %s: the next chunk is looked at in its turn", operation.operation_id)
        else:
            self._ahead = chunk

    def _settle(self, operation: Operation, items: Sequence[Item], settlements: Sequence[Settlement]) -> None:
        failpoint.reach("settling")
        while True:
            try:
                self._journal.settle(operation.number, settlements)
            except StorageFull:
                if self.stopping.is_set():
                    raise
                # These are facts, and known now only.
                log.error("no room for the journal: the outcomes of operation %s wait for some", operation.operation_id)
                self.stopping.wait(_FULL_DISK_PAUSE_SECONDS)
            else:
                break
        failpoint.reach("settled")
        queue_ids = {item.position: item.target.queue_id for item in items}
        tell_messages(operation, ((queue_ids[each.position], each.outcome, each.new_queue_id) for each in settlements))
        with self._changed:
            self._changed.notify_all()

    def _keep_pace(self, operation: Operation, messages: int, began: float) -> None:
        if operation.max_per_second is None:
            return
        due = began + messages / operation.max_per_second
        with self._changed:
            while (remaining := due - time.monotonic()) > 0:
                if self.stopping.is_set() or self._journal.operation(operation.operation_id).cancel_requested:
                    return
                self._changed.wait(remaining)

    def _end(self, operation: Operation, state: State, failure: Error | None) -> None:
        if touched := self._journal.touched(operation.number):
            self._put_back(operation, touched)
        why = "it was cancelled" if state == "cancelled" else "the operation had ended before it"
        while items := self._journal.unsettled(operation.number, 10_000):
            self._settle(operation, items, [Settlement(item.position, "skipped", why) for item in items])
        self._journal.finish(operation.number, state, None if failure is None else f"{failure.code}: {failure.detail}")
        if not operation.shorthand:
            ended = self._journal.operation(operation.operation_id)
            tell_operation("operation_end", ended, state=ended.state, outcomes=ended.outcomes)

    def _put_back(self, operation: Operation, items: Sequence[Item]) -> None:
        """Settle what was touched by a chunk that broke off: undone where it can be, and what is done is told.

        What a restore had begun is done, since it is in the queue perhaps.
        """
        if operation.action == "restore":
            self._settle(operation, items, [self._restore(operation, item) for item in items])
        else:
            chunk = self._begin_chunk(operation)
            self._settle(operation, items, chunk.put_back(items))
            chunk.forget(items)


def _chunk_size(operation: Operation) -> int:
    if operation.max_per_second is None:
        return CHUNK_MESSAGES
    return max(1, min(CHUNK_MESSAGES, int(operation.max_per_second / 4)))
