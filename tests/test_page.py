"""Pages and streams against a plain Python reference: the same messages, in the same order, each once."""

import base64
import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from postqueue_api.errors import Gone, InvalidArgument
from postqueue_api.queue import page, plan
from postqueue_api.queue.page import Order
from postqueue_api.queue.selection import Selection
from tests.listings import MESSAGES, NEXT_ATTEMPTS, ONE_CONDITION, PLANS, PROPERTY, SELECTIONS, listed, planned

EVERY_SORT = [f"{sign}{field}" for field in page.SORTS for sign in ("", "-")]
EVERYTHING = Selection()
OLDEST_FIRST = Order.parse("arrival_time")


def messages(count: int, **changed: Any) -> list[dict[str, Any]]:
    return [
        {
            "queue_name": "deferred",
            "queue_id": f"4jY9mn3nLLz2F{number:03}",
            "arrival_time": 1000,
            "message_size": 10,
            "sender": "a@example.com",
            "recipients": [{"address": "b@example.org", "delay_reason": "refused"}],
            **changed,
        }
        for number in range(count)
    ]


@pytest.mark.parametrize("how", PLANS)
@given(
    listing=MESSAGES,
    next_attempts=NEXT_ATTEMPTS,
    selection=ONE_CONDITION | SELECTIONS,
    sort=st.sampled_from(EVERY_SORT),
    limit=st.integers(1, 6),
    texts_remembered=st.sampled_from([1, 20_000]),
)
@PROPERTY
def test_the_pages_together_are_what_python_finds_in_the_same_order_each_message_once(
    how: str,
    listing: list[dict[str, Any]],
    next_attempts: dict[str, int],
    selection: Selection,
    sort: str,
    limit: int,
    texts_remembered: int,
) -> None:
    order = Order.parse(sort)
    with listed(listing, next_attempts, texts_remembered) as (snapshot, rows), planned(how):
        expected = sorted(
            (row for row in rows if row.fits(selection)),
            key=lambda row: row.place(order.field),
            reverse=order.descending,
        )
        found: list[bytes] = []
        cursor, sizes = None, []
        while True:
            shown = page.page(snapshot, selection, order, limit, cursor)
            assert shown.total == len(expected)
            found += shown.documents
            sizes.append(len(shown.documents))
            cursor = shown.next
            if cursor is None:
                break
        assert [json.loads(document) for document in found] == [row.document for row in expected]
        assert all(size == limit for size in sizes[:-1])
        assert sizes[-1] > 0 or not expected
        assert list(page.stream(snapshot, selection, order)) == found


@pytest.mark.parametrize("how", PLANS)
@pytest.mark.parametrize("sort", EVERY_SORT)
def test_where_all_is_equal_the_order_is_still_one_and_the_next_page_goes_on_in_it(sort: str, how: str) -> None:
    with listed(messages(7)) as (snapshot, rows), planned(how):
        order, cursor, found = Order.parse(sort), None, []
        for expected_size in (3, 3, 1):
            shown = page.page(snapshot, EVERYTHING, order, 3, cursor)
            assert len(shown.documents) == expected_size
            found += [json.loads(document)["queue_id"] for document in shown.documents]
            cursor = shown.next
        assert cursor is None
        expected = [row.message["queue_id"] for row in rows]
        assert found == (expected[::-1] if order.descending else expected)


def test_a_full_last_page_has_no_next() -> None:
    with listed(messages(4)) as (snapshot, _):
        first = page.page(snapshot, EVERYTHING, OLDEST_FIRST, 2)
        assert first.next is not None
        assert page.page(snapshot, EVERYTHING, OLDEST_FIRST, 2, first.next).next is None


def test_a_document_is_what_was_listed_to_the_byte_but_for_the_next_attempt() -> None:
    with listed(messages(1, novelty={"a": [1.50, "\u2028"]}), {"0": 77}) as (snapshot, (row,)):
        (document,) = page.page(snapshot, EVERYTHING, OLDEST_FIRST, 1).documents
        assert document == row.line[:-1] + b', "next_attempt_time": 77}'


@pytest.mark.parametrize("sort", EVERY_SORT)
def test_a_cursor_is_short_however_long_the_text_that_a_sender_chose(sort: str) -> None:
    """It goes into a URL, of which gunicorn takes four kilobytes."""
    listing = messages(2, sender="\u2028" * 3000 + "@" + "y" * 3000, queue_name="n" * 5000)
    with listed(listing) as (snapshot, _):
        first = page.page(snapshot, EVERYTHING, Order.parse(sort), 1)
        assert len(first.next or "") < 200
        assert len(page.page(snapshot, EVERYTHING, Order.parse(sort), 1, first.next).documents) == 1


CHANGES: dict[str, Callable[[str], str]] = {
    "a letter more": lambda cursor: cursor + "A",
    "a letter less": lambda cursor: cursor[:-1],
    "nothing": lambda cursor: "",
    "spaces around": lambda cursor: f" {cursor} ",
    "not base64": lambda cursor: cursor[:10] + "!" + cursor[11:],
    "not ASCII": lambda cursor: cursor + "\u0661",
    "no JSON": lambda cursor: encoded(b"x" * 40),
    "other JSON": lambda cursor: encoded(b"x" * 16 + b'{"a": 1}'),
    "short list": lambda cursor: encoded(b"x" * 16 + b"[]"),
    "deep": lambda cursor: encoded(b"x" * 16 + b"[" * 5000),
    "another row": lambda cursor: encoded(decoded(cursor)[:-2] + b"9]"),
    "another key": lambda cursor: encoded(bytes(16) + decoded(cursor)[16:]),
}


def encoded(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def decoded(cursor: str) -> bytes:
    return base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4))


@pytest.mark.parametrize(
    ("conditions", "walk"),
    [
        ({"sender": "spam@example.net"}, "sender"),
        ({"sender_domain": "example.net", "min_size": 1}, "sender_domain"),
        ({"queue_name": ("hold",)}, "queue_name"),
        ({"queue_name": ("hold",), "sender": "spam@example.net"}, "queue_name"),
        ({"queue_name": ("deferred", "hold"), "min_size": 1}, "arrival_time"),
    ],
)
def test_spam_that_came_last_is_paged_through_without_a_walk_over_all_that_came_before(
    conditions: dict[str, Any], walk: str
) -> None:
    last = messages(900, queue_name="hold", sender="spam@example.net", arrival_time=2000)[400:]
    with listed(messages(400) + last) as (snapshot, rows):
        selection = Selection(**conditions)
        total = plan.count(snapshot, selection)
        assert plan.for_page(snapshot, selection, "arrival_time", 11, total).walk == walk
        found = page.page(snapshot, selection, OLDEST_FIRST, 10)
        assert found.total == total == sum(row.fits(selection) for row in rows)


@pytest.mark.parametrize("change", CHANGES)
def test_a_cursor_that_was_changed_is_refused_and_named(change: str) -> None:
    with listed(messages(3)) as (snapshot, _):
        cursor = page.page(snapshot, EVERYTHING, OLDEST_FIRST, 1).next
        assert cursor is not None
        changed = CHANGES[change](cursor)
        assert changed != cursor
        with pytest.raises(InvalidArgument) as caught:
            page.page(snapshot, EVERYTHING, OLDEST_FIRST, 1, changed)
        assert caught.value.members["field"] == "next"


def test_no_letter_of_a_cursor_can_be_another() -> None:
    with listed(messages(3)) as (snapshot, _):
        cursor = page.page(snapshot, EVERYTHING, OLDEST_FIRST, 1).next
        assert cursor is not None
        for place in range(len(cursor)):
            for letter in "AZaz09-_":
                changed = cursor[:place] + letter + cursor[place + 1 :]
                if decoded(changed) != decoded(cursor):  # the last letter holds bits that say nothing
                    with pytest.raises(InvalidArgument):
                        page.page(snapshot, EVERYTHING, OLDEST_FIRST, 1, changed)


@pytest.mark.parametrize(
    ("selection", "sort"),
    [
        (EVERYTHING, "-arrival_time"),
        (EVERYTHING, "queue_id"),
        (Selection(queue_name=("deferred",)), "arrival_time"),
        (Selection(min_size=0), "arrival_time"),
    ],
)
def test_a_cursor_of_another_question_is_refused_and_named(selection: Selection, sort: str) -> None:
    with listed(messages(3)) as (snapshot, _):
        cursor = page.page(snapshot, EVERYTHING, OLDEST_FIRST, 1).next
        with pytest.raises(InvalidArgument, match="another selection or sort") as caught:
            page.page(snapshot, selection, Order.parse(sort), 1, cursor)
        assert caught.value.members["field"] == "next"


def test_a_cursor_of_another_snapshot_is_refused_and_names_its_own() -> None:
    with listed(messages(3)) as (one, _), listed(messages(3)) as (other, _):
        cursor = page.page(one, EVERYTHING, OLDEST_FIRST, 1).next
        assert cursor is not None
        assert page.cursor_snapshot(cursor) == one.info.snapshot_id
        with pytest.raises(InvalidArgument):
            page.page(other, EVERYTHING, OLDEST_FIRST, 1, cursor)


def test_a_snapshot_that_is_not_kept_any_more_is_gone() -> None:
    with listed(messages(3)) as (snapshot, _):
        cursor = page.page(snapshot, EVERYTHING, OLDEST_FIRST, 1).next
    with pytest.raises(Gone):
        page.page(snapshot, EVERYTHING, OLDEST_FIRST, 1, cursor)
    with pytest.raises(Gone):
        list(page.stream(snapshot, EVERYTHING, OLDEST_FIRST))


@pytest.mark.parametrize("text", ["", "-", "size", "--arrival_time", "arrival_time ", "row", "arrival_time,sender"])
def test_what_is_no_sort_is_refused_and_what_is_accepted_named(text: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        Order.parse(text)
    assert caught.value.members["field"] == "sort"
    assert all(field in str(caught.value.members["accepted"]) for field in page.SORTS)
