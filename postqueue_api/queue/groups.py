"""What fills the queue: messages by queue, sender, recipient, their domains, or the reason of the delay."""

import json
import sqlite3
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from postqueue_api.queue import page, plan
from postqueue_api.queue.grouping import COUNT_ONLY, GROUPINGS, SUMS, Grouping
from postqueue_api.queue.selection import Parameter, Selection, message_of, rows_of_message
from postqueue_api.queue.snapshot import Snapshot
from postqueue_api.queue.snapshot_sums import LARGEST

SAMPLES = 3
# Up to so many messages are looked up with their recipients; more are met soon enough on a walk over the index.
_FEW = 20_000


@dataclass(frozen=True)
class Group:
    """Messages that have something in common, and the selection that finds exactly these again."""

    key: str
    messages: int
    bytes: int
    oldest_arrival_time: int
    newest_arrival_time: int
    sample_queue_ids: list[str]
    selection: dict[str, Any]


@dataclass(frozen=True)
class Count:
    """Messages of a list that have something in common."""

    key: str
    messages: int
    bytes: int


def group(snapshot: Snapshot, selection: Selection, by: str, limit: int) -> tuple[list[Group], bool]:
    """The largest groups of GROUPINGS, most messages first, and whether there are more.

    A message with recipients in two groups is counted in both. An empty key: no domain, or not delayed.
    """
    grouping = GROUPINGS[by]
    over_all = selection.is_empty and limit < LARGEST
    with snapshot.open() as database:
        if over_all:
            found = _largest(database, by, limit + 1)
        else:
            found = _counted(database, snapshot, selection, by, limit + 1)
        rows = found[:limit]
        if not (over_all and grouping.has_sums):
            # Now only of the largest: summing up the rest of a million, too, would take the longest.
            query, parameters = select(snapshot, selection, grouping, SUMS, [row["key"] for row in rows])
            rows = database.execute(f"{query} ORDER BY messages DESC, key", parameters).fetchall()
    return [_group(snapshot, selection, by, row) for row in rows], len(found) > limit


def group_of_list(snapshot: Snapshot, queue_ids: Sequence[str], by: str, limit: int) -> list[Count]:
    """The largest groups among those messages of a list that were listed."""
    grouping = GROUPINGS[by]
    sums = {name: SUMS[name] for name in ("messages", "bytes")}
    rows, conditions = _of_few(grouping, "queue_id IN (SELECT value FROM json_each(:queue_ids))")
    parameters = {"queue_ids": json.dumps(queue_ids), "limit": limit}
    query = grouping.summed(rows, conditions, sums)
    with snapshot.open() as database:
        found = database.execute(f"{query} ORDER BY messages DESC, key LIMIT :limit", parameters).fetchall()
    return [Count(**row) for row in found]


def select(
    snapshot: Snapshot,
    selection: Selection,
    grouping: Grouping,
    sums: Mapping[str, str],
    keys: Sequence[str] | None = None,
) -> tuple[str, dict[str, Parameter]]:
    """The query that sums up what fits, key by key: `sums` are names and aggregates, `keys` the only ones wanted."""
    few = grouping.table == "message" or plan.count(snapshot, selection) <= _FEW
    begin = plan.begin(snapshot, selection) if few else None
    where, parameters = selection.where(snapshot.info.taken_at, begin)
    rows, conditions = grouping.over_all(sums), [grouping.once]
    if few:
        rows, conditions = _of_few(grouping, where)
    elif not selection.is_empty:
        conditions.append(f"EXISTS (SELECT 1 FROM message WHERE row = {message_of(grouping.table)} AND {where})")  # noqa: S608
    if keys is not None:
        wanted = {f"key_{number}": key for number, key in enumerate(keys)}
        condition = grouping.is_any_of(", ".join(f":{name}" for name in wanted))
        # The + keeps SQLite from taking the index of the key once for each message, which is quadratic.
        conditions.append(f"+{condition}" if few and grouping.table != "message" else condition)
        parameters |= wanted
    return grouping.summed(rows, conditions, sums), parameters


def _largest(database: sqlite3.Connection, by: str, limit: int) -> list[sqlite3.Row]:
    """Of all messages, with their sums where a grouping has these."""
    return database.execute(
        "SELECT key, messages, bytes, oldest, newest FROM largest WHERE grouping = ?"
        " ORDER BY messages DESC, key LIMIT ?",
        (by, limit),
    ).fetchall()


def _counted(
    database: sqlite3.Connection, snapshot: Snapshot, selection: Selection, by: str, limit: int
) -> list[sqlite3.Row]:
    """Of what fits, without sums."""
    given = None if by == "queue_name" or getattr(selection, by) is None else selection.parameter(by)
    query, parameters = select(snapshot, selection, GROUPINGS[by], COUNT_ONLY)
    return database.execute(
        f"SELECT key FROM ({query}) WHERE :given IS NULL OR key = :given"  # noqa: S608 - our own names
        " ORDER BY messages DESC, key LIMIT :limit",
        {**parameters, "given": given, "limit": limit},
    ).fetchall()


def _of_few(grouping: Grouping, where: str) -> tuple[str, list[str]]:
    """Where the rows of some messages are, looked up message by message, and the conditions on them."""
    table = grouping.table
    if table == "message":
        return table, [grouping.once, where]
    columns = "row" if grouping.has_sums else "row, arrival_time, message_size"
    messages = f"(SELECT {columns} FROM message WHERE {where}) AS message"  # noqa: S608
    return f"{messages} CROSS JOIN {table} ON {rows_of_message(table)}", [grouping.once]


def _group(snapshot: Snapshot, selection: Selection, by: str, row: sqlite3.Row) -> Group:
    key: str = row["key"]
    found = selection.with_(**{by: (key,) if by == "queue_name" else key})
    return Group(
        key=key,
        messages=row["messages"],
        bytes=row["bytes"],
        oldest_arrival_time=row["oldest"],
        newest_arrival_time=row["newest"],
        sample_queue_ids=page.oldest(snapshot, found, SAMPLES, row["messages"]),
        selection=found.as_query(),
    )
