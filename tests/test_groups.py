"""Groups against a plain Python reference, and each group's selection against the group."""

import json
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from postqueue_api.queue import groups, page, plan, snapshot_sums
from postqueue_api.queue.grouping import GROUPINGS
from postqueue_api.queue.groups import SAMPLES, Group, group, group_of_list
from postqueue_api.queue.page import Order
from postqueue_api.queue.selection import Selection
from postqueue_api.queue.snapshot import TopReason
from tests.listings import MESSAGES, ONE_CONDITION, PLANS, PROPERTY, SELECTIONS, Row, listed, planned


def expected(rows: list[Row], by: str, selection: Selection) -> list[tuple[Any, ...]]:
    """Key, messages, bytes, oldest, newest and samples, group by group."""
    wanted = None if by == "queue_name" else getattr(selection, by)
    fitting = [row for row in rows if row.fits(selection)]
    keys = {key for row in fitting for key in row.keys(by)}
    if wanted is not None:
        keys &= {wanted if by == "reason_group" else wanted.lower()}
    found = []
    for key in keys:
        of_key = [row for row in fitting if key in row.keys(by)]
        arrivals = [row.message["arrival_time"] for row in of_key]
        oldest = sorted(of_key, key=lambda row: row.place("arrival_time"))[:SAMPLES]
        size = sum(row.message["message_size"] for row in of_key)
        samples = [row.message["queue_id"] for row in oldest]
        found.append((key, len(of_key), size, min(arrivals), max(arrivals), samples))
    return sorted(found, key=lambda each: (-each[1], each[0]))


def plain(found: Group) -> tuple[Any, ...]:
    times = (found.oldest_arrival_time, found.newest_arrival_time)
    return (found.key, found.messages, found.bytes, *times, found.sample_queue_ids)


def as_given(conditions: dict[str, Any]) -> Selection:
    """What a client's conditions mean."""
    meant = {**conditions, "queue_name": tuple(conditions.get("queue_name", ()))}
    for name in {"min_age", "max_age"} & set(conditions):
        meant[name] = int(conditions[name].removesuffix("s"))
    return Selection(**meant)


@pytest.mark.parametrize(
    ("by", "given_as", "key"),
    [
        ("sender", "Anna@Example.COM", "anna@example.com"),
        ("sender_domain", "EXAMPLE.com", "example.com"),
        ("recipient", "B@example.ORG", "b@example.org"),
        ("recipient_domain", "Example.org", "example.org"),
    ],
)
def test_a_group_of_a_selection_that_is_written_in_capitals_is_found(by: str, given_as: str, key: str) -> None:
    message = {
        "queue_name": "deferred", "queue_id": "4jY9mn3nLLz2F1", "arrival_time": 1, "message_size": 1,
        "sender": "anna@example.com", "recipients": [{"address": "b@example.org"}],
    }  # fmt: skip
    with listed([message]) as (snapshot, _):
        found, more = group(snapshot, Selection().with_(**{by: given_as}), by, 10)
        assert ([(each.key, each.messages) for each in found], more) == ([(key, 1)], False)


@pytest.mark.parametrize("how", PLANS)
@given(
    listing=MESSAGES,
    selection=ONE_CONDITION | SELECTIONS,
    by=st.sampled_from(list(GROUPINGS)),
    limit=st.integers(1, 40),
    texts_remembered=st.sampled_from([1, 20_000]),
)
@PROPERTY
def test_groups_are_what_python_counts_and_the_selection_of_each_finds_exactly_its_messages(
    how: str, listing: list[dict[str, Any]], selection: Selection, by: str, limit: int, texts_remembered: int
) -> None:
    with listed(listing, texts_remembered=texts_remembered) as (snapshot, rows), planned(how):
        found, more = group(snapshot, selection, by, limit)
        reference = expected(rows, by, selection)
        assert [plain(each) for each in found] == reference[:limit]
        assert more == (len(reference) > limit)
        for each in found:
            again = as_given(each.selection)
            documents = page.stream(snapshot, again, Order.parse("arrival_time"))
            assert [json.loads(document)["queue_id"] for document in documents] == [
                row.message["queue_id"]
                for row in sorted(rows, key=lambda row: row.place("arrival_time"))
                if row.fits(selection) and each.key in row.keys(by)
            ]


@given(
    listing=MESSAGES,
    by=st.sampled_from(list(GROUPINGS)),
    stored=st.integers(1, 6),
    limit=st.integers(1, 9),
    texts_remembered=st.sampled_from([1, 20_000]),
)
@PROPERTY
def test_groups_over_all_are_the_same_whether_they_were_summed_up_with_the_snapshot_or_not(
    listing: list[dict[str, Any]], by: str, stored: int, limit: int, texts_remembered: int
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(snapshot_sums, "LARGEST", stored)
        patch.setattr(groups, "LARGEST", stored)
        with listed(listing, texts_remembered=texts_remembered) as (snapshot, rows), planned("as counted"):
            found, more = group(snapshot, Selection(), by, limit)
            reference = expected(rows, by, Selection())
            assert [plain(each) for each in found] == reference[:limit]
            assert more == (len(reference) > limit)
            for each in found:
                assert plan.count(snapshot, as_given(each.selection)) == each.messages


@given(listing=MESSAGES, by=st.sampled_from(list(GROUPINGS)), step=st.integers(1, 3), limit=st.integers(1, 9))
@PROPERTY
def test_groups_of_a_list_count_those_of_it_that_are_listed(
    listing: list[dict[str, Any]], by: str, step: int, limit: int
) -> None:
    with listed(listing, texts_remembered=1) as (snapshot, rows):
        chosen = rows[::step]
        found = group_of_list(snapshot, [*(row.message["queue_id"] for row in chosen), "NOTLISTED"], by, limit)
        assert [(each.key, each.messages, each.bytes) for each in found] == [
            each[:3] for each in expected(chosen, by, Selection())[:limit]
        ]


@given(listing=MESSAGES, texts_remembered=st.sampled_from([1, 20_000]))
@PROPERTY
def test_the_top_reasons_of_status_are_the_largest_groups_of_reasons(
    listing: list[dict[str, Any]], texts_remembered: int
) -> None:
    with listed(listing, texts_remembered=texts_remembered) as (snapshot, _):
        largest = [each for each in group(snapshot, Selection(), "reason_group", 1000)[0] if each.key]
        assert snapshot.top_reasons() == [
            TopReason(each.key, each.messages, each.bytes, each.oldest_arrival_time, each.newest_arrival_time)
            for each in largest[:10]
        ]


@pytest.mark.parametrize("selection", [Selection(), Selection(recipient_domain="example.org"), Selection(min_size=1)])
def test_ten_thousand_refusals_become_one_row_in_no_time(selection: Selection) -> None:
    listing = [
        {
            "queue_name": "deferred",
            "queue_id": f"ABCDEF{number:05}",
            "arrival_time": 1000 + number,
            "message_size": 10,
            "sender": "a@example.com",
            "recipients": [
                {
                    "address": f"user{number}@example.org",
                    "delay_reason": f"host mx{number % 7}.example.org[192.0.2.{number % 250}] said: 421-4.7.28"
                    f" {number:08X} <user{number}@example.org> try again in {number} seconds",
                }
            ],
        }
        for number in range(10_000)
    ]
    with listed(listing) as (snapshot, _):
        begun = time.process_time()
        (only,), more = group(snapshot, selection, "reason_group", 10)
        assert time.process_time() - begun < 1
        assert (only.messages, only.bytes, more) == (10_000, 100_000, False)
        assert (only.oldest_arrival_time, only.newest_arrival_time) == (1000, 10_999)
        assert only.sample_queue_ids == ["ABCDEF00000", "ABCDEF00001", "ABCDEF00002"]
        assert "421-4.7.28" in only.key
        assert "example.org" in only.key
