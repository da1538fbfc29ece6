"""From what was asked for to a fixed list of messages, each with its identity, on a listing taken after the request."""

from collections.abc import Iterator

from postqueue_api.errors import CommandFailed, Conflict, InvalidArgument
from postqueue_api.postfix.arguments import QueueId
from postqueue_api.queue import page, plan
from postqueue_api.queue.operation import Target, too_many
from postqueue_api.queue.selection import Selection
from postqueue_api.queue.snapshot import Snapshot


def by_selection(snapshot: Snapshot, selection: Selection, expected_count: int | None, limit: int) -> Iterator[Target]:
    """The messages that fit, oldest first.

    Raises:   CommandFailed when the listing broke off, so that messages may be missing; Conflict when there are not
              as many as expected; PayloadTooLarge when there are more than `limit`
    """
    require_complete(snapshot)
    require_count(plan.count(snapshot, selection), expected_count, limit)
    return page.targets(snapshot, selection)


def by_queue_ids(snapshot: Snapshot, queue_ids: list[str], expected_count: int | None, limit: int) -> list[Target]:
    """The messages of a list, each once, in the order given. What is not listed has no identity beforehand.

    Raises:   InvalidArgument for an empty list or an ID that is none; Conflict; PayloadTooLarge
    """
    if not queue_ids:
        raise InvalidArgument("queue_ids is empty.", field="queue_ids", accepted="at least one queue ID")
    if len(queue_ids) > limit:
        raise too_many(limit)
    unique = list(dict.fromkeys(str(QueueId.parse(queue_id, "queue_ids")) for queue_id in queue_ids))
    require_count(len(unique), expected_count, limit)
    return page.identities(snapshot, unique)


def require_complete(snapshot: Snapshot) -> None:
    """Refuse to choose from a listing that broke off."""
    if not snapshot.info.complete:
        raise CommandFailed("The listing of the queue broke off, so nothing was chosen from it. Ask again.")


def require_count(count: int, expected_count: int | None, limit: int) -> None:
    """Refuse another number than was expected, with the new one; and one that is too large."""
    if expected_count is not None and count != expected_count:
        raise Conflict(f"Not {expected_count} but {count} messages fit by now.", expected_count=count)
    if count > limit:
        raise too_many(limit)
