"""How old the mail for each domain is, as qshape(1) counts it.

By sender domain messages are counted, by recipient domain recipients. Column 0 is the total; then come ages below
each bound; the last column has what is older than the last bound.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from heapq import nsmallest
from itertools import pairwise
from typing import Any

from postqueue_api.queue import groups
from postqueue_api.queue.grouping import GROUPINGS
from postqueue_api.queue.selection import Selection
from postqueue_api.queue.snapshot import Snapshot

BY = ("recipient_domain", "sender_domain")


@dataclass(frozen=True)
class Row:
    """One domain: how many in all, and how many in each column of ages."""

    key: str
    total: int
    counts: list[int]


@dataclass(frozen=True)
class Ages:
    """`bounds` in seconds, one fewer than `counts` has columns; rows with the most first; all of them summed up."""

    bounds: tuple[int, ...]
    total: Row
    rows: list[Row]


def bounds(columns: int, first: int, linear: bool) -> tuple[int, ...]:
    """The upper bounds of all columns but the last: multiples of the first one, or each twice the one before."""
    return tuple(first * (number if linear else 1 << (number - 1)) for number in range(1, columns))


def ages(snapshot: Snapshot, selection: Selection, by: str, limits: tuple[int, ...], limit: int) -> Ages:
    """Sum up a domain's mail by age, for the `limit` domains with the most."""
    # What is younger than each bound, since one comparison a column is quick; the columns are their differences.
    taken_at = int(snapshot.info.taken_at)
    grouping = GROUPINGS[by]._replace(once="TRUE")
    counted = "count(*)" if grouping.table == "message" else f"sum({grouping.table}.recipients)"
    sums = {"total": counted} | {
        f"below_{number}": f"coalesce({counted} FILTER (WHERE arrival_time > {taken_at - bound:d}), 0)"
        for number, bound in enumerate(limits)
    }
    query, parameters = groups.select(snapshot, selection, grouping, sums)
    overall = [0] * len(sums)
    with snapshot.open() as database:
        largest = nsmallest(limit, _added(database.execute(query, parameters), overall), key=_most_first)
    return Ages(limits, _row(("TOTAL", *overall)), [_row(found) for found in largest])


def _added(rows: Iterable[Sequence[Any]], overall: list[int]) -> Iterator[Sequence[Any]]:
    """The same rows, each added to the sums of all when it is taken."""
    for row in rows:
        for number, value in enumerate(row[1:]):
            overall[number] += value
        yield row


def _most_first(row: Sequence[Any]) -> tuple[int, str]:
    return -row[1], row[0]


def _row(found: Sequence[Any]) -> Row:
    """Of a key, a total, and what is below each bound."""
    key, total, *below = found
    return Row(key, total, [high - low for low, high in pairwise([0, *below, total])])
