"""How to find what fits in a snapshot: the cheapest way, by counting first.

SQLite guesses from averages, and a queue full of spam has none. Counts of single conditions were made with the snapshot
or come from an index, and the answer for a snapshot never changes, so they are remembered.
"""

import sys
from functools import lru_cache
from typing import NamedTuple

from postqueue_api.queue.grouping import GROUPINGS
from postqueue_api.queue.selection import Parameter, Selection, message_of
from postqueue_api.queue.snapshot import Snapshot

# Up to so many messages are looked at one by one before a reason's words are looked for in all texts.
_FEW = 100_000


# In the index of each of these, messages of one sender, say, stand in the order of arrival.
_BY_ARRIVAL = ("sender", "sender_domain", "queue_name")


class Plan(NamedTuple):
    """Walk over an index that has messages in the order asked for, until a page is full; or find all and sort them.

    `walk`: the field whose index that is; None: sort. `begin`: the condition about recipients that messages are found
    by then; None: those about messages are.
    """

    walk: str | None
    begin: str | None = None


def count(snapshot: Snapshot, selection: Selection) -> int:
    """How many messages fit."""
    return snapshot.info.messages if selection.is_empty else _count(snapshot, selection)


def for_page(snapshot: Snapshot, selection: Selection, field: str, wanted: int, total: int) -> Plan:
    """The way to the first `wanted` of `total` messages that fit: a walk when it passes fewer than are to sort.

    How many it passes is guessed: those that fit may all stand at the far end. By arrival, where spam stands
    together, the walk passes only messages that fit a condition on queue or sender.
    """
    first, candidates = _fewest(snapshot, selection)
    length, walk = snapshot.info.messages, field
    if field == "arrival_time":
        ways = [(count(snapshot, selection.only({name})), name) for name in _BY_ARRIVAL if _is_one(selection, name)]
        length, walk = min(ways, default=(length, walk))
    return Plan(None, first) if candidates * total <= wanted * length else Plan(walk)


def begin(snapshot: Snapshot, selection: Selection) -> str | None:
    """The condition about recipients to find everything that fits by; None: begin with those about messages."""
    return _fewest(snapshot, selection)[0]


def table(begun_by: str | None) -> str:
    """The table message, for a query whose condition begins with `begun_by`: SQLite is kept from another way."""
    return "message" if begun_by is None else "message NOT INDEXED"


def _is_one(selection: Selection, name: str) -> bool:
    given = getattr(selection, name)
    return len(given) == 1 if name == "queue_name" else given is not None


def _fewest(snapshot: Snapshot, selection: Selection) -> tuple[str | None, int]:
    """Which condition to begin with, since fewer messages fit it, and how many do."""
    of_messages, names = selection.of_messages, selection.of_recipients
    first: str | None = None
    fewest = sys.maxsize if of_messages.is_empty and names else count(snapshot, of_messages)
    for name in sorted(names, key=lambda name: name == "reason"):
        if name != "reason" or fewest > _FEW:
            found = count(snapshot, selection.only({name}))
            first, fewest = (name, found) if found < fewest else (first, fewest)
    return first, fewest


@lru_cache(maxsize=512)
def _count(snapshot: Snapshot, selection: Selection) -> int:
    if len(selection.as_dict()) == 1:
        return _count_alone(snapshot, selection)
    names = selection.of_recipients
    first = begin(snapshot, selection) if names else None
    if first is not None or not names:
        where, parameters = selection.where(snapshot.info.taken_at, first)
        return _number(snapshot, f"SELECT count(*) FROM {table(first)} WHERE {where}", parameters)  # noqa: S608
    # In the order of the rows, which is that of their recipients too: three times as quick as in that of an index.
    where, parameters = selection.of_messages.where(snapshot.info.taken_at)
    messages = f"(SELECT row FROM message WHERE {where} ORDER BY row LIMIT -1) AS message"  # noqa: S608
    where, more = selection.only(names).where(snapshot.info.taken_at)
    return _number(snapshot, f"SELECT count(*) FROM {messages} WHERE {where}", parameters | more)  # noqa: S608


def _count_alone(snapshot: Snapshot, selection: Selection) -> int:
    """How many messages fit the only condition: what was summed up with the snapshot, or else are not many."""
    (name,) = selection.as_dict()
    where, parameters = selection.where(snapshot.info.taken_at)
    if name in GROUPINGS and len(parameters) == 1:
        (key,) = parameters.values()
        query = "SELECT coalesce(sum(messages), 0) FROM largest WHERE grouping = :name AND key = :key"
        known = _number(snapshot, query, {"name": name, "key": key})
        if known:
            return known
    if name not in selection.of_recipients:
        return _number(snapshot, f"SELECT count(*) FROM message WHERE {where}", parameters)  # noqa: S608
    rows, fit = selection.rows_that_fit(name)
    distinct = f"DISTINCT {message_of(rows)}" if name == "reason" else "*"
    return _number(snapshot, f"SELECT count({distinct}) FROM {rows} WHERE {fit}", parameters)  # noqa: S608


def _number(snapshot: Snapshot, query: str, parameters: dict[str, Parameter]) -> int:
    with snapshot.open() as database:
        (found,) = database.execute(query, parameters).fetchone()
    return int(found)
