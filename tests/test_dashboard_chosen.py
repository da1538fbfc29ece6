"""What a form means: an action, and which messages, as POST /v1/operations has it."""

from typing import Any

import pytest
from werkzeug.datastructures import MultiDict

from postqueue_api.web.dashboard.chosen import Chosen
from postqueue_api.web.schemas import ChosenInput

Pairs = list[tuple[str, str]]


@pytest.mark.parametrize(
    ("pairs", "selection"),
    [
        ([], {}),
        ([("queue_ids", "")], {}),
        ([("everything", "true")], {"everything": "true"}),
        ([("queue_ids", "A1B2C3"), ("queue_ids", " D4E5F6\r\nA7B8C9 ")], {"queue_ids": ["A1B2C3", "D4E5F6", "A7B8C9"]}),
        ([("sender", "a@b"), ("min_age", "4h")], {"sender": "a@b", "min_age": "4h"}),
        ([("queue_name", "hold"), ("queue_name", "active")], {"queue_name": ["hold", "active"]}),
        ([("queue_name", "hold")], {"queue_name": ["hold"]}),
        ([("reason_group", "")], {"reason_group": ""}),
        ([("reason", "421"), ("why", "ticket"), ("csrf_token", "t"), ("back", "/")], {"reason": "421"}),
        ([("sender", "a@b"), ("sender", "c@d")], {"sender": ["a@b", "c@d"]}),  # which the API refuses
    ],
)
def test_a_form_is_read_and_made_again(pairs: Pairs, selection: dict[str, Any]) -> None:
    chosen = Chosen.of_form(MultiDict([("action", "hold"), *pairs]))
    assert (chosen.action, chosen.selection) == ("hold", selection)
    assert Chosen.of_form(MultiDict(chosen.fields())) == chosen


def test_what_a_form_says_is_what_the_api_takes() -> None:
    pairs = {
        "queue_name": "deferred", "sender": "a@b", "sender_domain": "", "recipient": "c@d", "recipient_domain": "d",
        "reason": "421", "reason_group": "", "min_age": "4h", "max_age": "3d", "min_size": "1", "max_size": "2",
        "forced_expire": "false",
    }  # fmt: skip
    chosen = Chosen.of_form(MultiDict(pairs))
    assert set(chosen.selection) == set(ChosenInput.model_fields) - {"queue_ids", "everything"}
    taken = ChosenInput.model_validate(chosen.selection)
    assert (taken.queue_name, taken.min_age, taken.max_size, taken.forced_expire) == (("deferred",), 14400, 2, False)


@pytest.mark.parametrize(
    ("action", "pairs", "needed"),
    [
        ("delete", [("sender", "a@b")], True),
        ("expire", [("everything", "true")], True),
        ("delete", [("queue_ids", "A1B2C3 D4E5F6")], True),
        ("delete", [("queue_ids", "A1B2C3 A1B2C3")], False),
        ("hold", [("everything", "true")], False),
    ],
)
def test_a_reason_is_needed_where_the_api_needs_one(action: str, pairs: Pairs, needed: bool) -> None:
    assert Chosen.of_form(MultiDict([("action", action), *pairs])).needs_reason is needed


@pytest.mark.parametrize(
    ("pairs", "address"),
    [
        ([("queue_ids", "A1B2C3")], "/messages/A1B2C3"),
        ([("queue_ids", "../x?y")], "/messages/..%2Fx%3Fy"),
        ([("queue_ids", "A1B2C3 D4E5F6")], "/messages"),
        ([("everything", "true")], "/messages"),
        ([("reason", "a&b"), ("queue_name", "hold"), ("queue_name", "active")],
         "/messages?queue_name=hold&queue_name=active&reason=a%26b"),
    ],
)  # fmt: skip
def test_they_are_found_again_where_they_were_chosen(pairs: Pairs, address: str) -> None:
    assert Chosen.of_form(MultiDict(pairs)).address == address
