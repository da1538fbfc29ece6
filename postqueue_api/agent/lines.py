"""The lines of the audit about operations: who wanted what, and what became of each message."""

from collections.abc import Iterable

from postqueue_api.audit import write_line, write_lines
from postqueue_api.queue.operation import Operation


def tell_messages(operation: Operation, outcomes: Iterable[tuple[str, str | None]]) -> None:
    """Write a line for each message, by its queue ID, and what became of it."""
    shared = {**_wanted(operation), "operation_id": operation.operation_id}
    write_lines("change", shared, ({"queue_id": queue_id, "outcome": outcome} for queue_id, outcome in outcomes))


def tell_operation(event: str, operation: Operation, **members: object) -> None:
    """Write a line about an operation as a whole: it begins, it ends."""
    write_line(event, **_wanted(operation), operation_id=operation.operation_id, **members)


def _wanted(operation: Operation) -> dict[str, object]:
    names = ("actor", "role", "address", "request_id", "action", "reason")
    return {name: getattr(operation, name) for name in names}
