"""Ages against a plain Python reference; tests/live/test_status.py holds them against the real qshape."""

from collections import Counter
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from postqueue_api.queue.ages import BY, ages, bounds
from postqueue_api.queue.selection import Selection
from tests.listings import MESSAGES, ONE_CONDITION, PROPERTY, SELECTIONS, TAKEN_AT, Row, domain, listed


def counted(rows: list[Row], by: str) -> list[tuple[str, int]]:
    """A domain and an age for each message, or for each recipient."""
    found = []
    for row in rows:
        age = int(TAKEN_AT) - row.message["arrival_time"]
        if by == "sender_domain":
            found.append((domain(row.message["sender"]), age))
        else:
            found += [(domain(each["address"]), age) for each in row.recipients]
    return found


def column(age: int, limits: tuple[int, ...]) -> int:
    return next((number for number, limit in enumerate(limits) if age < limit), len(limits))


@given(
    listing=MESSAGES,
    selection=ONE_CONDITION | SELECTIONS,
    by=st.sampled_from(BY),
    shape=st.tuples(st.integers(2, 12), st.sampled_from([1, 60, 300]), st.booleans()),
    limit=st.integers(1, 30),
    texts_remembered=st.sampled_from([1, 20_000]),
)
@PROPERTY
def test_ages_are_what_python_counts(
    listing: list[dict[str, Any]],
    selection: Selection,
    by: str,
    shape: tuple[int, int, bool],
    limit: int,
    texts_remembered: int,
) -> None:
    limits = bounds(*shape)
    with listed(listing, texts_remembered=texts_remembered) as (snapshot, rows):
        found = ages(snapshot, selection, by, limits, limit)
        pairs = counted([row for row in rows if row.fits(selection)], by)
        sums = Counter((name, column(age, limits)) for name, age in pairs)
        totals = Counter(name for name, _ in pairs)
        expected = [
            (name, total, [sums[name, number] for number in range(shape[0])])
            for name, total in sorted(totals.items(), key=lambda item: (-item[1], item[0]))
        ]
        assert [(row.key, row.total, row.counts) for row in found.rows] == expected[:limit]
        columns = Counter(column(age, limits) for _, age in pairs)
        assert (found.total.total, found.total.counts) == (len(pairs), [columns[number] for number in range(shape[0])])
        assert found.bounds == limits


@pytest.mark.parametrize(
    ("columns", "first", "linear", "expected"),
    [
        (2, 300, False, (300,)),
        (10, 300, False, (300, 600, 1200, 2400, 4800, 9600, 19200, 38400, 76800)),
        (4, 60, True, (60, 120, 180)),
    ],
)
def test_the_bounds_are_those_of_qshape(columns: int, first: int, linear: bool, expected: tuple[int, ...]) -> None:
    assert bounds(columns, first, linear) == expected


def test_the_widest_table_that_may_be_asked_for_is_one_that_sqlite_can_sum_up() -> None:
    with listed([]) as (snapshot, _):
        found = ages(snapshot, Selection(), "recipient_domain", bounds(32, 999_999_999 * 86_400, False), 1000)
        assert (found.total.total, found.rows, len(found.total.counts)) == (0, [], 32)
