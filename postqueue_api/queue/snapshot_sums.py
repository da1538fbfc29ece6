"""What many readers ask of a snapshot, summed up once when it is written."""

import sqlite3

from postqueue_api.queue.grouping import COUNT_ONLY, GROUPINGS, SUMS

SIZE_BOUNDS = (1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9)
AGE_BOUNDS = (1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8)
LARGEST = 1001  # one more than a question for groups may ask for, so that it can tell whether there are more


def sum_up(database: sqlite3.Connection, taken_at: float) -> None:
    """Fill the tables queue, largest and histogram of a snapshot whose rows and indexes are there."""
    database.execute(
        "INSERT INTO queue SELECT queue_name, count(*), sum(message_size), sum(recipients), min(arrival_time)"
        " FROM message GROUP BY queue_name"
    )
    for name in GROUPINGS:
        _largest(database, name)
    _histogram(database, "size", "message_size", SIZE_BOUNDS)
    _histogram(database, "age", f"({taken_at!r} - arrival_time)", AGE_BOUNDS)


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


def _histogram(database: sqlite3.Connection, measure: str, expression: str, bounds: tuple[float, ...]) -> None:
    sums = ", ".join(f"sum({expression} <= {bound!r})" for bound in bounds)
    rows = database.execute(
        f"SELECT queue_name, {sums}, count(*), sum({expression}) FROM message GROUP BY queue_name"  # noqa: S608
    )
    for queue_name, *counts, everything, total in rows.fetchall():
        database.executemany(
            "INSERT INTO histogram VALUES (?, ?, ?, ?)",
            [
                *((queue_name, measure, bound, found) for bound, found in zip(bounds, counts, strict=True)),
                (queue_name, measure, float("inf"), everything),
                (queue_name, measure + "_sum", 0.0, total),
            ],
        )
