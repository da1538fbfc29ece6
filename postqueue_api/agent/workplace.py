"""What the agent has: its Postfix, its directories, and the two that work there."""

import fcntl
import logging
import os
import sqlite3
import threading
import time
from dataclasses import replace
from pathlib import Path

import msgspec

from postqueue_api.agent.aside import aside
from postqueue_api.agent.change import Chunk
from postqueue_api.agent.drain import Drain
from postqueue_api.agent.executor import Executor
from postqueue_api.agent.marks import MARK
from postqueue_api.agent.record import Record
from postqueue_api.agent.refresh import Refresher, Retention
from postqueue_api.agent.restore import Order, Restorer
from postqueue_api.agent.samples import Sampler
from postqueue_api.agent.trash import Bounds, Trash
from postqueue_api.config import Settings
from postqueue_api.errors import CommandTimeout, Conflict, Error, Gone, Misconfigured, NoSuchMessage, StorageFull
from postqueue_api.postfix.postconf import Instance, find_commands, read_instance, refuse_old
from postqueue_api.postfix.process import Postfix
from postqueue_api.postfix.retry_times import RetryTimes
from postqueue_api.queue import samples, snapshot
from postqueue_api.queue.journal import Journal
from postqueue_api.queue.moves import MoveBook
from postqueue_api.queue.operation import Item, Operation, Settlement
from postqueue_api.queue.snapshot import Snapshot
from postqueue_api.queue.trash import TrashBook
from postqueue_api.rights import share

_INSTANCE_SECONDS = 30.0
_FAILURE_SECONDS = 2.0
_RETRY_SECONDS = 2.0
_LOCK_SECONDS = 20.0
_PURGE_SECONDS = 300.0

log = logging.getLogger(__name__)


class Workplace:
    """Made once in the agent's worker. Postfix is looked for at each use, so that one that comes later is found."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self._looking = threading.Lock()
        self._looked_at = 0.0
        self._known: tuple[Postfix, Instance] | None = None
        self._failure: Error | None = None
        snapshots = settings.state_directory / "snapshots"
        share(settings.state_directory, settings.user)
        share(snapshots, settings.user)
        self._guard = _sole_agent(settings.state_directory)
        self.journal = Journal(settings.state_directory / "journal.sqlite")
        self.refresher = Refresher(
            lambda: replace(self.postfix, timeout_seconds=settings.listing_timeout_seconds),
            snapshots,
            lambda: RetryTimes(self.instance.queue_directory),
            Retention(settings.snapshot_keep_seconds, settings.snapshot_keep_limit, settings.snapshot_keep_bytes),
        )
        self.trash_book = TrashBook(self.journal)
        self.trash = Trash(
            self.trash_book,
            settings.state_directory / "trash",
            Bounds(settings.trash_retention_seconds, settings.trash_limit_bytes, settings.trash_limit_messages),
        )
        self._restorer = Restorer(self.trash, self.trash_book)
        self.moves = MoveBook(self.journal)
        self.bringing_in = threading.Lock()
        self.drain = Drain(lambda: self.postfix, lambda: self.instance.queue_directory, self.new_snapshot)
        ring = settings.state_directory / samples.NAME
        Sampler(self.refresher, snapshots, ring, settings.sample_interval_seconds).start()
        self.executor = Executor(self.journal, self._begin_chunk, self._restore)
        threading.Thread(target=self._open, name="opening", daemon=True).start()

    def _open(self) -> None:
        """Take up what an agent before this one left, as soon as Postfix can be found; then purge now and then."""
        while True:
            try:
                queue_directory = self.instance.queue_directory
                self._restorer.recover(queue_directory)
                self._remove_marks(queue_directory)
                self.executor.start(resume=self.settings.resume_operations)
            except (Error, OSError, sqlite3.Error) as error:
                log.error("operations wait until Postfix can be found, and has room: %s", error)
                time.sleep(_RETRY_SECONDS)
                continue
            break
        while True:
            try:
                self.trash.purge()
            except (Error, OSError, sqlite3.Error) as error:
                log.error("the trash was not purged: %s", error)
            time.sleep(min(_PURGE_SECONDS, max(1, self.settings.trash_retention_seconds)))

    def _remove_marks(self, queue_directory: Path) -> None:
        """Remove the links by which a killed agent would have told what it did, where the journal has the outcome."""
        for mark in aside(queue_directory).glob(f"{MARK}*"):
            operation_id, _, position = mark.name.removeprefix(MARK).rpartition("-")
            if not position.isdecimal() or self.journal.is_settled(operation_id, int(position)):
                mark.unlink(missing_ok=True)

    def new_snapshot(self) -> Snapshot:
        """A snapshot of a listing that began after now. Raises what kept the queue from being listed."""
        asked = time.time()
        info = self.refresher.ensure(0, self.settings.listing_timeout_seconds)
        if not info.is_since(asked):
            raise CommandTimeout("The queue could not be listed in time, so nothing was chosen from it.")
        return snapshot.by_id(self.settings.state_directory / "snapshots", info.snapshot_id)

    def require_plain_hold(self) -> None:
        """Refuse to put files into `hold` where Postfix looks for them in directories below it. Raises Misconfigured.

        Source: postconf(5), hash_queue_names (by default deferred and defer); src/global/mail_queue.c
        """
        if "hold" in self.instance.hash_queue_names:
            raise Misconfigured("Nothing is restored while Postfix's hash_queue_names has hold in it: take it out.")

    @property
    def postfix(self) -> Postfix:
        """Where the commands are. Raises NotInstalled, Misconfigured."""
        return self._look()[0]

    @property
    def instance(self) -> Instance:
        """What Postfix says of itself, at most half a minute old. Raises NotInstalled, Misconfigured, CommandFailed."""
        return self._look()[1]

    def _look(self) -> tuple[Postfix, Instance]:
        """Ask once for all who want to know. A failure is remembered shortly: its commands take a second each."""
        with self._looking:
            age = time.monotonic() - self._looked_at
            if self._known is not None and age < _INSTANCE_SECONDS:
                return self._known
            if self._failure is not None and age < _FAILURE_SECONDS:
                raise self._failure
            self._known, self._failure = None, None
            try:
                self._known = self._ask()
            except Error as error:
                self._failure = error
                raise
            finally:
                self._looked_at = time.monotonic()
            return self._known

    def _ask(self) -> tuple[Postfix, Instance]:
        settings = self.settings
        postfix = find_commands(settings.command_directory, settings.config_directory, settings.command_timeout_seconds)
        instance = read_instance(postfix)
        refuse_old(instance)
        return replace(postfix, guard=self._guard), instance

    def _begin_chunk(self, operation: Operation) -> Chunk:
        instance = self.instance
        return Chunk(
            operation_id=operation.operation_id,
            postfix=self.postfix,
            queue_directory=instance.queue_directory,
            action="delete" if operation.action == "export" else operation.action,
            lock_wait_seconds=self.settings.lock_wait_seconds,
            records=Record(operation, self.journal, self.trash),
            long_queue_ids=instance.enable_long_queue_ids,
            plain_hold="hold" not in instance.hash_queue_names,
            stopping=self.executor.stopping,
        )

    def _restore(self, operation: Operation, item: Item) -> Settlement:
        """Give one message back, to the queue that the operation's selection names, or where it was."""
        wanted = msgspec.json.decode(operation.selection)
        made_by = wanted["operation_id"]
        try:
            self.require_plain_hold()
            copy = self.trash_book.newest(item.target.queue_id, made_by)
            order = Order(
                operation.number,
                item.position,
                wanted["to"],
                is_begun=item.stage is not None,
                although_exported=wanted.get("although_exported", False),
                long_queue_ids=self.instance.enable_long_queue_ids,
            )
            queue_id, to = self._restorer.restore(self.postfix, self.instance.queue_directory, copy, order)
        except NoSuchMessage as error:
            return Settlement(item.position, "not_found", error.detail)
        except (Conflict, Gone) as error:
            return Settlement(item.position, "no_change", error.detail)
        except StorageFull as error:
            if self.trash_book.newest(item.target.queue_id, made_by).state == "restoring":
                raise  # the journal is full: what became of it is found out when there is room
            return Settlement(item.position, "failed", error.detail)
        except Error as error:
            return Settlement(item.position, "failed", error.detail)
        if queue_id == item.target.queue_id:
            return Settlement(item.position, "restored", f"it is in {to} again")
        return Settlement(item.position, "restored", f"it is in {to} again, with the queue ID {queue_id}", queue_id)


def _sole_agent(directory: Path) -> int:
    """Hold a lock that the commands inherit: no two agents share a directory, and none acts beside a command that
    a killed one left running. Raises Misconfigured when it is not to be had in time."""
    lock = os.open(directory / "lock", os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
    deadline = time.monotonic() + _LOCK_SECONDS
    while True:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= deadline:
                raise Misconfigured("Another agent uses POSTQUEUE_API_STATE_DIRECTORY: stop it first.") from None
            time.sleep(0.1)
        else:
            return lock
