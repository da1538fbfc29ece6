"""What views share: the settings, the agent, the snapshot that a request is answered from, and JSON answers."""

import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import msgspec
from flask import Response, current_app, request

from postqueue_api.config import Settings
from postqueue_api.errors import CommandTimeout, InvalidArgument
from postqueue_api.queue import snapshot
from postqueue_api.queue.journal_reader import JournalReader
from postqueue_api.queue.moves import MoveReader
from postqueue_api.queue.snapshot import Snapshot
from postqueue_api.queue.trash import TrashReader
from postqueue_api.web.agent_client import AgentClient
from postqueue_api.web.limits import Limits

# A snapshot's time is in milliseconds.
_CLOCK_GRAIN_SECONDS = 0.002
# While a long queue is listed again and again, each listing is as old as two take when the next one is there.
_LISTINGS = 2


@dataclass(frozen=True)
class Context:
    """What the application has; views get it from `context()`."""

    settings: Settings
    agent: AgentClient
    journal: JournalReader
    trash: TrashReader
    moves: MoveReader
    limits: Limits


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
    )


def context() -> Context:
    """What the application that answers this request has."""
    found: Context = current_app.extensions["postqueue_api"]
    return found


def new_snapshot() -> Snapshot:
    """A snapshot of a listing that began after now, however long it takes. Raises what kept it from being made."""
    asked = time.time()
    info = context().agent.snapshot(0, context().settings.listing_timeout_seconds)
    if info.taken_at < asked - _CLOCK_GRAIN_SECONDS:
        raise CommandTimeout("The queue could not be listed in time.")
    return snapshot.by_id(context().settings.state_directory / "snapshots", info.snapshot_id)


def fresh_snapshot(max_age: float | None = None) -> Snapshot:
    """The snapshot to answer from: no older than the request accepts, or the last one when a new one takes long.

    Without `max_age`, in seconds, the request's Cache-Control decides. If that says nothing either, as with those who
    poll, the setting does, and nobody waits for the listing of a long queue that others have asked for all the while.

    Raises:   AgentUnavailable, MailSystemDown and whatever else kept the queue from being listed
    """
    settings = context().settings
    directory = settings.state_directory / "snapshots"
    asked = _asked_age() if max_age is None else max_age
    accepted = settings.snapshot_max_age_seconds if asked is None else asked
    found = snapshot.current(directory)
    if found is not None:
        if found.info.age <= accepted:
            return found
        if asked is None and found.info.age <= accepted + _LISTINGS * found.info.duration:
            context().agent.refresh(accepted)
            return found
    info = context().agent.snapshot(accepted, settings.snapshot_wait_seconds)
    return Snapshot(directory / f"{info.snapshot_id}.sqlite")


def kept_snapshot(snapshot_id: str) -> Snapshot:
    """A snapshot by its name. Raises InvalidArgument for what is no name, Gone when it is not kept any more."""
    if snapshot.NAME.fullmatch(snapshot_id) is None:
        raise InvalidArgument("snapshot_id is not one of ours.", field="snapshot_id", accepted="what an answer said")
    return snapshot.by_id(context().settings.state_directory / "snapshots", snapshot_id)


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
