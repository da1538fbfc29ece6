"""What an operation is: who wants what done to which messages, and what became of each."""

import sqlite3
from dataclasses import dataclass
from typing import Any, Literal

import msgspec

from postqueue_api.errors import NoSuchOperation, PayloadTooLarge

# What messages in the queue are operated on for; restore, import and confirm have routes of their own.
QueueAction = Literal["delete", "hold", "release", "requeue", "expire", "flush", "export"]
Action = Literal[QueueAction, "restore", "import", "confirm"]
State = Literal["queued", "running", "done", "cancelled", "interrupted", "failed"]
TOUCHED, ACTING, EXPIRED = 1, 2, 3
ACTIONS = ("delete", "hold", "release", "requeue", "expire", "flush")
OUTCOMES = (
    "removed", "held", "released", "requeued", "expired", "scheduled", "no_change", "not_found", "changed",
    "in_flight", "already_delivered", "restored", "exported", "imported", "failed", "skipped",
)  # fmt: skip


# There is one of these for each of a million messages: a Struct is made in a fifth of a dataclass's time.
class Target(msgspec.Struct, frozen=True):
    """A message that is meant, with the identity by which it was chosen (None where it was not known)."""

    queue_id: str
    arrival_time: int | None = None
    sender: str | None = None


@dataclass(frozen=True)
class Request:
    """Who wants what, and why.

    `shorthand`: asked for by the route of one message; `keep_copy`: what is deleted goes into the trash first;
    `max_per_second`: the pace of a flush.
    """

    action: Action
    actor: str
    role: str
    selection: str
    address: str | None = None
    request_id: str | None = None
    reason: str | None = None
    shorthand: bool = False
    keep_copy: bool = True
    max_per_second: float | None = None


@dataclass(frozen=True)
class Operation:
    """An operation as it stands. Times in seconds since the epoch; `outcomes` counts messages by outcome."""

    number: int
    operation_id: str
    action: Action
    state: State
    actor: str
    role: str
    address: str | None
    request_id: str | None
    reason: str | None
    selection: str
    requested: int
    created_at: float
    started_at: float | None
    finished_at: float | None
    failure: str | None
    shorthand: bool
    keep_copy: bool
    max_per_second: float | None
    cancel_requested: bool
    outcomes: dict[str, int]

    @property
    def finished(self) -> int:
        """How many messages have their outcome."""
        return sum(self.outcomes.values())

    @property
    def is_over(self) -> bool:
        """Whether nothing will change any more."""
        return self.finished_at is not None


class Item(msgspec.Struct, frozen=True):
    """One message of an operation. `outcome` None: not yet known.

    `stage`: None while it was not touched; TOUCHED when it is about to be put on hold; ACTING when it is on hold,
    locked, with recipients left, and about to be acted on; EXPIRED when it is marked as expired. `was_held`: whether it
    was on hold before we touched it. `new_queue_id`: what it is called since we took it out of the hands of qmgr, or is
    about to be called; with an outcome, what it was called when that came about, where that is another name.
    """

    position: int
    target: Target
    stage: int | None
    was_held: bool | None
    outcome: str | None
    detail: str | None
    finished_at: float | None
    new_queue_id: str | None = None


class Settlement(msgspec.Struct, frozen=True):
    """What became of one message, and in a few words why; and what it is called, where that is another name by now."""

    position: int
    outcome: str
    detail: str | None = None
    new_queue_id: str | None = None


def too_many(limit: int) -> PayloadTooLarge:
    """More messages than one operation may be about."""
    return PayloadTooLarge(
        f"One operation is about {limit} messages at the most: see POSTQUEUE_API_OPERATION_LIMIT_MESSAGES."
    )


def operation_by_id(database: sqlite3.Connection, operation_id: str) -> Operation:
    found = operations_where(database, "operation_id = :operation_id", {"operation_id": operation_id})
    if not found:
        raise NoSuchOperation("There is no operation of this identifier.")
    return found[0]


def operations_where(
    database: sqlite3.Connection, condition: str, parameters: dict[str, Any] | None = None
) -> list[Operation]:
    rows = database.execute(f"SELECT * FROM operation WHERE {condition}", parameters or {}).fetchall()  # noqa: S608
    found = []
    for row in rows:
        counts = database.execute("SELECT outcome, messages FROM outcome WHERE operation = ?", (row["number"],))
        found.append(Operation(**_typed(row), outcomes=dict(tuple(count) for count in counts)))
    return found


def item_of(row: sqlite3.Row) -> Item:
    return Item(
        position=row["position"],
        target=Target(row["queue_id"], row["arrival_time"], row["sender"]),
        stage=row["stage"],
        was_held=None if row["was_held"] is None else bool(row["was_held"]),
        outcome=row["outcome"],
        detail=row["detail"],
        finished_at=row["finished_at"],
        new_queue_id=row["new_queue_id"],
    )


def _typed(row: sqlite3.Row) -> dict[str, Any]:
    flags = ("shorthand", "keep_copy", "cancel_requested")
    return {name: bool(row[name]) if name in flags else row[name] for name in row.keys()}  # noqa: SIM118 - a Row is no dict
