"""What fills the queue: messages by queue, sender, recipient, their domains, or the reason of the delay."""

import json
import sqlite3
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from postqueue_api.queue import page, plan
from postqueue_api.queue.selection import MESSAGE_OF_RECIPIENT, RECIPIENTS_OF_MESSAGE, Parameter, Selection
from postqueue_api.queue.snapshot import Snapshot

SAMPLES = 3
_SUMS = {
    "messages": "count(*)",
    "bytes": "sum(message_size)",
    "oldest": "min(arrival_time)",
    "newest": "max(arrival_time)",
}
# Up to so many messages are looked up with their recipients; more are met soon enough on a walk over the index.
_FEW = 20_000
_MERGED_BY = {"oldest": "min", "newest": "max"}  # what is not added up


class Source(NamedTuple):
    """Where a grouping is found: table, key column, what marks the rows that count a message once, key texts."""

    table: str
    column: str
    once: str
    texts: str | None

    def is_any_of(self, keys: str) -> str:
        """The condition for a list of keys."""
        rows = keys if self.texts is None else f"SELECT row FROM {self.texts} WHERE name IN ({keys})"  # noqa: S608
        return f"{self.column} IN ({rows})"

    def named(self, query: str, sums: Mapping[str, str]) -> str:
        """The same query with texts as its keys; the same text may stand in several rows of `texts`."""
        if self.texts is None:
            return query
        merged = ", ".join(f"{_MERGED_BY.get(name, 'sum')}({name}) AS {name}" for name in sums)
        return f"SELECT name AS key, {merged} FROM ({query}) JOIN {self.texts} ON {self.texts}.row = key GROUP BY name"  # noqa: S608


GROUPINGS = {
    "queue_name": Source("message", "queue_name", "TRUE", None),
    "sender": Source("message", "sender", "TRUE", None),
    "sender_domain": Source("message", "sender_domain", "TRUE", None),
    "recipient": Source("recipient", "address", "firsts & 1", None),
    "recipient_domain": Source("recipient", "domain", "firsts & 2", "domain"),
    "reason_group": Source("recipient", "reason_group", "firsts & 4", "reason_group"),
}


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
    source = GROUPINGS[by]
    given = None if by == "queue_name" else getattr(selection, by)
    # Which ones are the largest needs their counts only, and summing up the rest of a million would take the longest.
    query, parameters = select(snapshot, selection, source, {"messages": "count(*)"})
    with snapshot.open() as database:
        keys = database.execute(
            f"SELECT key FROM ({query}) WHERE :given IS NULL OR key = :given"  # noqa: S608 - our own names
            " ORDER BY messages DESC, key LIMIT :limit",
            {**parameters, "given": given, "limit": limit + 1},
        ).fetchall()
        query, parameters = select(snapshot, selection, source, _SUMS, [row["key"] for row in keys[:limit]])
        rows = database.execute(f"{query} ORDER BY messages DESC, key", parameters).fetchall()
    return [_group(snapshot, selection, by, row) for row in rows], len(keys) > limit


def group_of_list(snapshot: Snapshot, queue_ids: Sequence[str], by: str, limit: int) -> list[Count]:
    """The largest groups among those messages of a list that were listed."""
    source = GROUPINGS[by]
    sums = {name: _SUMS[name] for name in ("messages", "bytes")}
    rows, conditions = _of_few(source, "queue_id IN (SELECT value FROM json_each(:queue_ids))")
    parameters = {"queue_ids": json.dumps(queue_ids), "limit": limit}
    query = source.named(_summed(source, rows, conditions, sums), sums)
    with snapshot.open() as database:
        found = database.execute(f"{query} ORDER BY messages DESC, key LIMIT :limit", parameters).fetchall()
    return [Count(**row) for row in found]


def select(
    snapshot: Snapshot, selection: Selection, source: Source, sums: Mapping[str, str], keys: Sequence[str] | None = None
) -> tuple[str, dict[str, Parameter]]:
    """The query that sums up what fits, key by key: `sums` are names and aggregates, `keys` the only ones wanted."""
    few = source.table == "message" or plan.count(snapshot, selection) <= _FEW
    from_recipients = few and plan.for_all(snapshot, selection) is plan.Plan.RECIPIENTS
    where, parameters = selection.where(snapshot.info.taken_at, few=from_recipients)
    rows, conditions = source.table, [source.once]
    if few:
        rows, conditions = _of_few(source, where)
    elif not selection.is_empty:
        conditions.append(f"EXISTS (SELECT 1 FROM message WHERE row = {MESSAGE_OF_RECIPIENT} AND {where})")  # noqa: S608
    if keys is not None:
        wanted = {f"key_{number}": key for number, key in enumerate(keys)}
        condition = source.is_any_of(", ".join(f":{name}" for name in wanted))
        # The + keeps SQLite from taking the index of the key once for each message, which is quadratic.
        conditions.append(f"+{condition}" if few and source.table == "recipient" else condition)
        parameters |= wanted
    return source.named(_summed(source, rows, conditions, sums), sums), parameters


def _summed(source: Source, rows: str, conditions: Sequence[str], sums: Mapping[str, str]) -> str:
    aggregates = ", ".join(f"{aggregate} AS {name}" for name, aggregate in sums.items())
    return (
        f"SELECT {source.column} AS key, {aggregates} FROM {rows}"  # noqa: S608
        f" WHERE {' AND '.join(conditions)} GROUP BY {source.column}"
    )


def _of_few(source: Source, where: str) -> tuple[str, list[str]]:
    """Where the rows of some messages are, looked up message by message, and the conditions on them."""
    if source.table == "message":
        return source.table, [source.once, where]
    messages = f"(SELECT row FROM message WHERE {where}) AS message"  # noqa: S608
    return f"{messages} CROSS JOIN recipient ON {RECIPIENTS_OF_MESSAGE}", [source.once]


def _group(snapshot: Snapshot, selection: Selection, by: str, row: sqlite3.Row) -> Group:
    key: str = row["key"]
    found = selection.with_(**{by: (key,) if by == "queue_name" else key})
    return Group(
        key=key,
        messages=row["messages"],
        bytes=row["bytes"],
        oldest_arrival_time=row["oldest"],
        newest_arrival_time=row["newest"],
        sample_queue_ids=page.oldest(snapshot, found, SAMPLES),
        selection=found.as_query(),
    )
