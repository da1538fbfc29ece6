"""How to find what fits in a snapshot: the cheapest of three ways, by counting first.

SQLite guesses from averages, and a queue full of spam has none. Counts of single conditions come from an index, and
the answer for a snapshot never changes, so they are remembered.
"""

from enum import Enum
from functools import lru_cache

from postqueue_api.queue.selection import MESSAGE_OF_RECIPIENT, Selection
from postqueue_api.queue.snapshot import Snapshot


class Plan(Enum):
    """WALK over the index of the sort order until a page is full. Or find everything and sort it: beginning with the
    MESSAGES that fit the conditions about messages, or with the RECIPIENTS that fit those about recipients."""

    WALK = "walk"
    MESSAGES = "messages"
    RECIPIENTS = "recipients"


def count(snapshot: Snapshot, selection: Selection) -> int:
    """How many messages fit."""
    return snapshot.info.messages if selection.is_empty else _count(snapshot, selection)


def for_page(snapshot: Snapshot, selection: Selection, wanted: int) -> Plan:
    """The way to the first `wanted` messages in some order: a walk when it passes fewer than there are to sort."""
    plan, candidates = _found_from(snapshot, selection)
    total = count(snapshot, selection)
    return plan if candidates * total <= wanted * snapshot.info.messages else Plan.WALK


def for_all(snapshot: Snapshot, selection: Selection) -> Plan:
    """The way to everything that fits: MESSAGES or RECIPIENTS."""
    return _found_from(snapshot, selection)[0]


def _found_from(snapshot: Snapshot, selection: Selection) -> tuple[Plan, int]:
    """Which conditions to begin with, since fewer messages fit them, and how many do."""
    names = selection.of_recipients
    others = count(snapshot, selection.with_(**dict.fromkeys(names))) if names else count(snapshot, selection)
    fewest = min((_count_alone(snapshot, name, selection.parameter(name)) for name in names), default=others)
    return (Plan.RECIPIENTS, fewest) if fewest < others else (Plan.MESSAGES, others)


@lru_cache(maxsize=512)
def _count(snapshot: Snapshot, selection: Selection) -> int:
    names = selection.of_recipients
    if names and selection == Selection(**{name: getattr(selection, name) for name in names[:1]}):
        return _count_alone(snapshot, names[0], selection.parameter(names[0]))
    few = bool(names) and for_all(snapshot, selection) is Plan.RECIPIENTS
    where, parameters = selection.where(snapshot.info.taken_at, few=few)
    with snapshot.open() as database:
        (found,) = database.execute(f"SELECT count(*) FROM message WHERE {where}", parameters).fetchone()  # noqa: S608
    return int(found)


@lru_cache(maxsize=512)
def _count_alone(snapshot: Snapshot, name: str, value: str) -> int:
    """How many messages fit one condition about recipients."""
    where = Selection.recipients_where(name, few=True)
    distinct = f"DISTINCT {MESSAGE_OF_RECIPIENT}" if name == "reason" else "*"
    with snapshot.open() as database:
        (found,) = database.execute(
            f"SELECT count({distinct}) FROM recipient WHERE {where}",  # noqa: S608
            {name: value},
        ).fetchone()
    return int(found)
