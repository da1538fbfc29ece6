"""What views share: the settings, the agent, the snapshot that a request is answered from, and JSON answers."""

import threading
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
from flask import Response, current_app, request

from postqueue_api.config import Settings
from postqueue_api.errors import CommandTimeout, Gone, InvalidArgument
from postqueue_api.queue import snapshot
from postqueue_api.queue.journal_reader import JournalReader
from postqueue_api.queue.moves import MoveReader
from postqueue_api.queue.snapshot import Snapshot
from postqueue_api.queue.trash import TrashReader
from postqueue_api.web.agent_client import AgentClient
from postqueue_api.web.limits import Limits

# A snapshot's time is in milliseconds.
# While a long queue is listed again and again, each listing is as old as two take when the next one is there.
_LISTINGS = 2
# One in so many threads may wait for a listing that a poller asked for, so that the others answer meanwhile.
_WAITING = 4


@dataclass(frozen=True)
class Context:
    """What the application has; views get it from `context()`."""

    settings: Settings
    agent: AgentClient
    journal: JournalReader
    trash: TrashReader
    moves: MoveReader
    limits: Limits
    waiting: threading.Semaphore  # places for those who poll and wait for a listing


def make(settings: Settings, limits: Limits) -> Context:
    """What an application with these settings has."""
    # A change may take a listing, the wait for a lock and some commands.
    patience = settings.listing_timeout_seconds + settings.command_timeout_seconds + settings.lock_wait_seconds
    journal = JournalReader(settings.state_directory / "journal.sqlite")
    return Context(
        settings=settings,
        agent=AgentClient(settings.agent_socket, patience),
        journal=journal,
        trash=TrashReader(journal),
        moves=MoveReader(journal),
        limits=limits,
        waiting=threading.Semaphore(max(1, settings.web_threads // _WAITING)),
    )


def context() -> Context:
    """What the application that answers this request has."""
    found: Context = current_app.extensions["postqueue_api"]
    return found


def new_snapshot() -> Snapshot:
    """A snapshot of a listing that began after now, however long it takes. Raises what kept it from being made."""
    asked = time.time()
    info = context().agent.snapshot(0, context().settings.listing_timeout_seconds)
    if not info.is_since(asked):
        raise CommandTimeout("The queue could not be listed in time.")
    return snapshot.by_id(_snapshots(), info.snapshot_id)


def fresh_snapshot(max_age: float | None = None) -> Snapshot:
    """The snapshot to answer from: no older than the request accepts, or the last one when a new one takes long.

    Without `max_age`, in seconds, the request's Cache-Control decides. If that says nothing either, as with those who
    poll, the setting does, and hardly anybody waits for what others have asked for: a long queue is listed all the
    while, and a listing that hangs must not take every thread.

    Raises:   AgentUnavailable, MailSystemDown and whatever else kept the queue from being listed
    """
    settings, places = context().settings, context().waiting
    asked = _asked_age() if max_age is None else max_age
    accepted = settings.snapshot_max_age_seconds if asked is None else asked
    found = snapshot.current(_snapshots())
    if found is not None and found.info.age <= accepted:
        return found
    if found is None or asked is not None:
        return _waited_for(accepted)
    is_relisted = found.info.age <= accepted + _LISTINGS * found.info.duration
    if is_relisted or not places.acquire(blocking=False):
        context().agent.refresh(accepted)
        return found
    try:
        return _waited_for(accepted)
    finally:
        places.release()


def _waited_for(max_age: float) -> Snapshot:
    info = context().agent.snapshot(max_age, context().settings.snapshot_wait_seconds)
    return Snapshot(_snapshots() / f"{info.snapshot_id}.sqlite")


def _snapshots() -> Path:
    return context().settings.state_directory / "snapshots"


def kept_snapshot(snapshot_id: str, field: str = "snapshot_id") -> Snapshot:
    """A snapshot by its name. Raises InvalidArgument for what is no name, Gone when it is not kept any more."""
    if snapshot.NAME.fullmatch(snapshot_id) is None:
        raise InvalidArgument(f"{field} is not one of ours.", field=field, accepted="what an answer said")
    try:
        return snapshot.by_id(_snapshots(), snapshot_id)
    except Gone as error:
        raise Gone(error.detail, field=field) from None


def _asked_age() -> float | None:
    """The greatest age in seconds that the request names."""
    asked = request.cache_control
    if asked.no_cache is not None and asked.no_cache is not False:
        return 0
    return None if asked.max_age is None else max(0, asked.max_age)


def answer(value: object, status: int = 200) -> Response:
    """A JSON document of plain values, dataclasses and structs."""
    return Response(msgspec.json.encode(value), status, mimetype="application/json")


def answer_from(found: Snapshot, members: dict[str, Any]) -> Response:
    """A JSON document made from a snapshot, which it names first; the Age header says how old it is."""
    response = answer({"snapshot": snapshot.as_json(found.info), **members})
    response.headers["Age"] = str(int(found.info.age))
    return response


def raw_list(documents: Iterable[bytes]) -> msgspec.Raw:
    """JSON objects that are text already, as a list."""
    return msgspec.Raw(b"[" + b",".join(documents) + b"]")
