"""The lines of the audit about operations: who wanted what, and what became of each message."""

from collections.abc import Iterable

from postqueue_api.audit import write_line, write_lines
from postqueue_api.queue.operation import Operation


def tell_messages(operation: Operation, outcomes: Iterable[tuple[str, str | None, str | None]]) -> None:
    """Write a line for each message, by its queue ID, what became of it, and its new queue ID if it has one."""
    shared = {**_wanted(operation), "operation_id": operation.operation_id}
    write_lines("change", shared, (_members(*each) for each in outcomes))


def tell_operation(event: str, operation: Operation, **members: object) -> None:
    """Write a line about an operation as a whole: it begins, it ends."""
    write_line(event, **_wanted(operation), operation_id=operation.operation_id, **members)


def _members(queue_id: str, outcome: str | None, new_queue_id: str | None) -> dict[str, object]:
    members: dict[str, object] = {"queue_id": queue_id, "outcome": outcome}
    return members if new_queue_id is None else {**members, "new_queue_id": new_queue_id}


def _wanted(operation: Operation) -> dict[str, object]:
    names = ("actor", "role", "address", "request_id", "action", "reason")
    return {name: getattr(operation, name) for name in names}
