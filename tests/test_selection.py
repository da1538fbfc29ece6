"""What a selection finds, condition by condition."""

import json
from typing import Any

import pytest

from postqueue_api.queue import page, plan
from postqueue_api.queue.page import Order
from postqueue_api.queue.selection import Selection
from tests.listings import PLANS, TAKEN_AT, listed, planned


def message(number: int, **changed: Any) -> dict[str, Any]:
    return {
        "queue_name": "deferred",
        "queue_id": f"ABCDEF{number}",
        "arrival_time": int(TAKEN_AT) - 60 * number,
        "message_size": 100 * number,
        "sender": "anna@example.com",
        "recipients": [{"address": "bert@example.org"}],
        **changed,
    }


def to(*recipients: tuple[str, str | None]) -> list[dict[str, Any]]:
    return [{"address": address, **({"delay_reason": reason} if reason else {})} for address, reason in recipients]


LISTING = [
    message(0, queue_name="hold", sender="Anna@Example.COM", forced_expire=True),
    message(1, sender="MAILER-DAEMON", recipients=to(("a%b@x.example", "mailbox 100% full"))),
    message(2, recipients=to(("a_b@x_y.example", "file a_b is locked"), ("c@z.example", None))),
    message(3, recipients=to(("aXb@xzy.example", "file aXb is LOCKED"), ("c@X.EXAMPLE", "Refused (100 times)"))),
    message(4, queue_name="active", recipients=[]),
]

CASES: list[tuple[Selection, set[int]]] = [
    (Selection(), {0, 1, 2, 3, 4}),
    (Selection(queue_name=("hold", "active")), {0, 4}),
    (Selection(sender="ANNA@example.com"), {0, 2, 3, 4}),
    (Selection(sender="mailer-daemon"), {1}),
    (Selection(sender="anna@example.co_"), set()),
    (Selection(sender="%"), set()),
    (Selection(sender_domain="EXAMPLE.com"), {0, 2, 3, 4}),
    (Selection(sender_domain=""), {1}),
    (Selection(recipient="a%b@x.example"), {1}),
    (Selection(recipient="a_b@x_y.example"), {2}),
    (Selection(recipient="AxB@xzy.example"), {3}),
    (Selection(recipient_domain="x.example"), {1, 3}),
    (Selection(recipient_domain="x_y.example"), {2}),
    (Selection(recipient_domain="%"), set()),
    (Selection(recipient_domain=""), set()),
    (Selection(reason="%"), {1}),
    (Selection(reason="a_b"), {2}),
    (Selection(reason="A_B IS"), {2}),
    (Selection(reason="locked"), {2, 3}),
    (Selection(reason="*"), set()),
    (Selection(reason="(100"), {3}),
    (Selection(reason="mailbox .*"), set()),
    (Selection(reason_group="mailbox #% full"), {1}),
    (Selection(reason_group=""), {0, 2}),
    (Selection(min_age=60), {1, 2, 3, 4}),
    (Selection(min_age=61), {2, 3, 4}),
    (Selection(max_age=60), {0}),
    (Selection(max_age=61), {0, 1}),
    (Selection(min_age=10**14), set()),
    (Selection(max_age=10**14), {0, 1, 2, 3, 4}),
    (Selection(min_size=200), {2, 3, 4}),
    (Selection(max_size=200), {0, 1, 2}),
    (Selection(min_size=10**15), set()),
    (Selection(forced_expire=True), {0}),
    (Selection(forced_expire=False), {1, 2, 3, 4}),
    # Two recipients of one message may each fulfil a condition.
    (Selection(recipient_domain="z.example", reason="a_b"), {2}),
    (Selection(recipient_domain="x.example", reason="aXb"), {3}),
    (Selection(sender="anna@example.com", queue_name=("deferred",), min_size=300, reason="refused"), {3}),
]


@pytest.mark.parametrize("how", PLANS)
@pytest.mark.parametrize(("selection", "expected"), CASES, ids=[str(case[0].as_dict()) for case in CASES])
def test_a_condition_means_itself_and_nothing_more(selection: Selection, expected: set[int], how: str) -> None:
    with listed(LISTING) as (snapshot, rows), planned(how):
        shown = page.page(snapshot, selection, Order.parse("queue_id"), 10)
        assert {int(json.loads(document)["queue_id"][-1]) for document in shown.documents} == expected
        assert shown.total == len(expected)
        assert {row.position for row in rows if row.fits(selection)} == expected


def test_every_field_has_a_case() -> None:
    assert {name for selection, _ in CASES for name in selection.as_dict()} == set(Selection.__struct_fields__)


def test_a_selection_says_what_is_given_and_a_further_condition_leaves_it_as_it_was() -> None:
    given = Selection(queue_name=("hold",), max_size=0)
    assert {name: list(value) if name == "queue_name" else value for name, value in given.as_dict().items()} == {
        "queue_name": ["hold"],
        "max_size": 0,
    }
    assert given.with_(sender="a").as_dict() == {**given.as_dict(), "sender": "a"}
    assert (Selection().is_empty, given.is_empty, Selection(sender_domain="").is_empty) == (True, False, False)


@pytest.mark.parametrize("how", PLANS)
def test_a_text_that_looks_like_sql_is_text(how: str) -> None:
    hostile = "') OR 1=1; DROP TABLE message; --"
    listing = [*LISTING, message(5, sender=hostile, recipients=to((hostile, hostile)))]
    with listed(listing) as (snapshot, _), planned(how):
        for name in ("sender", "recipient", "reason"):
            assert plan.count(snapshot, Selection().with_(**{name: hostile})) == 1
        assert plan.count(snapshot, Selection()) == 6
