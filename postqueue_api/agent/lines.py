"""The lines of the audit about operations: who wanted what, and what became of each message."""

from postqueue_api.audit import write_line
from postqueue_api.queue.operation import Operation, Settlement


def tell_message(operation: Operation, queue_id: str, settlement: Settlement) -> None:
    """Write the line of one message, and what became of it."""
    outcome, operation_id = settlement.outcome, operation.operation_id
    write_line("change", **_wanted(operation), queue_id=queue_id, outcome=outcome, operation_id=operation_id)


def tell_operation(event: str, operation: Operation, **members: object) -> None:
    """Write a line about an operation as a whole: it begins, it ends."""
    write_line(event, **_wanted(operation), operation_id=operation.operation_id, **members)


def _wanted(operation: Operation) -> dict[str, object]:
    names = ("actor", "role", "address", "request_id", "action", "reason")
    return {name: getattr(operation, name) for name in names}
