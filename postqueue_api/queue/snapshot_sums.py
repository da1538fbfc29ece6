"""What many readers ask of a snapshot, summed up once when it is written."""

import sqlite3

from postqueue_api.queue.grouping import COUNT_ONLY, GROUPINGS, SUMS

_BOUNDS = {
    "size": (1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9),
    "age": (1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8),
}
LARGEST = 1001  # one more than a question for groups may ask for, so that it can tell whether there are more


def sum_up(database: sqlite3.Connection, taken_at: float) -> None:
    """Fill the tables queue, largest and histogram of a snapshot whose rows and indexes are there."""
    _queues(database, {"size": "message_size", "age": f"({taken_at!r} - arrival_time)"})
    for name in GROUPINGS:
        _largest(database, name)


def _queues(database: sqlite3.Connection, measures: dict[str, str]) -> None:
    """Queue by queue, all in one walk over the index that begins with its name."""
    bounds = [(measure, bound) for measure in measures for bound in _BOUNDS[measure]]
    sums = ", ".join(f"sum({measures[measure]} <= {bound!r})" for measure, bound in bounds)
    totals = ", ".join(f"sum({expression})" for expression in measures.values())
    rows = database.execute(
        "SELECT queue_name, count(*), sum(message_size), sum(recipients), min(arrival_time),"  # noqa: S608 - our own names
        f" {totals}, {sums} FROM message GROUP BY queue_name"
    )
    for queue_name, messages, size, recipients, oldest, *counts in rows.fetchall():
        database.execute("INSERT INTO queue VALUES (?, ?, ?, ?, ?)", (queue_name, messages, size, recipients, oldest))
        found = [
            *zip(bounds, counts[len(measures) :], strict=True),
            *(((measure, float("inf")), messages) for measure in measures),
            *(((f"{measure}_sum", 0.0), total) for measure, total in zip(measures, counts, strict=False)),
        ]
        database.executemany(
            "INSERT INTO histogram VALUES (?, ?, ?, ?)", [(queue_name, *where, value) for where, value in found]
        )


def _largest(database: sqlite3.Connection, name: str) -> None:
    grouping = GROUPINGS[name]
    sums = SUMS if grouping.has_sums else COUNT_ONLY
    columns = ", ".join(("key", *sums))
    query = grouping.summed(grouping.over_all(sums), [grouping.once], sums)
    database.execute(
        f"INSERT INTO largest (grouping, {columns}) SELECT ?, {columns} FROM ({query})"  # noqa: S608 - our own names
        " ORDER BY messages DESC, key LIMIT ?",
        (name, LARGEST),
    )
