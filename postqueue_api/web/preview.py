"""What an operation would do: how many messages, how large, from whom, to where, and why they wait."""

from typing import Any

from postqueue_api.errors import Conflict
from postqueue_api.queue import page
from postqueue_api.queue.groups import group, group_of_list
from postqueue_api.queue.operation import too_many
from postqueue_api.queue.selection import Selection
from postqueue_api.queue.snapshot import Snapshot, as_json
from postqueue_api.web import schemas
from postqueue_api.web.context import context, raw_list

_GROUPS = ("sender", "recipient_domain", "reason_group")
_SHOWN_GROUPS = 5
_SHOWN_MESSAGES = 10


def preview(snapshot: Snapshot, body: schemas.OperationInput) -> dict[str, Any]:
    """The answer to a dry run, from a listing that was taken after the request; nothing is changed."""
    if body.selection.queue_ids is not None:
        counted = _of_list(snapshot, list(dict.fromkeys(body.selection.queue_ids)))
    else:
        counted = _of_selection(snapshot, body.selection.selection())
    if body.expected_count is not None and counted["expected_count"] != body.expected_count:
        count = counted["expected_count"]
        raise Conflict(f"Not {body.expected_count} but {count} messages fit by now.", expected_count=count)
    if counted["expected_count"] > (limit := context().settings.operation_limit_messages):
        raise too_many(limit)
    retention = context().settings.trash_retention_seconds
    kept = body.action == "delete" and body.keep_copy and retention > 0
    return {
        "dry_run": True,
        "action": body.action,
        "snapshot": as_json(snapshot.info),
        **counted,
        "trash_seconds": retention if kept else None,
    }


def _of_selection(snapshot: Snapshot, selection: Selection) -> dict[str, Any]:
    by_queue, _ = group(snapshot, selection, "queue_name", 10)
    shown = page.page(snapshot, selection, page.Order("arrival_time", descending=False), _SHOWN_MESSAGES)
    return {
        "messages": shown.total,
        "bytes": sum(each.bytes for each in by_queue),
        "expected_count": shown.total,
        "queues": {each.key: each.messages for each in by_queue},
        "groups": {by: group(snapshot, selection, by, _SHOWN_GROUPS)[0] for by in _GROUPS},
        "sample": raw_list(shown.documents),
    }


def _of_list(snapshot: Snapshot, queue_ids: list[str]) -> dict[str, Any]:
    """A list is counted as it was given; what is listed of it is summed up."""
    listed = page.summaries(snapshot, queue_ids)
    queues: dict[str, int] = {}
    for queue_name, _ in listed.values():
        queues[queue_name] = queues.get(queue_name, 0) + 1
    sample = [snapshot.document(queue_id) for queue_id in list(listed)[:_SHOWN_MESSAGES]]
    return {
        "messages": len(listed),
        "bytes": sum(size for _, size in listed.values()),
        "expected_count": len(queue_ids),
        "queues": queues,
        "groups": {by: group_of_list(snapshot, queue_ids, by, _SHOWN_GROUPS) for by in _GROUPS},
        "sample": raw_list(document for document in sample if document is not None),
    }
