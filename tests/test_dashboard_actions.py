"""Counts and paces as people type them."""

import pytest

from postqueue_api.web.dashboard.actions import pace, whole_number
from postqueue_api.web.dashboard.inside import Problem


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("12345", 12345), ("12,345", 12345), ("12.345", 12345), ("12 345", 12345), ("12\u202f345", 12345),
        ("12\u2019345", 12345), ("\uff11\uff12", 12), (" 7 ", 7), ("0", 0),
        ("", None), ("-3", None), ("3e2", None), ("0x3", None), ("three", None), ("\u0663", None), ("9" * 13, None),
    ],
)  # fmt: skip
def test_a_count_is_read_as_people_type_it(text: str, number: int | None) -> None:
    assert whole_number(text) == number


@pytest.mark.parametrize(("text", "rate"), [("5", 5.0), ("0.5", 0.5), ("0,5", 0.5), ("\uff12", 2.0)])
def test_a_pace_is_read_as_people_type_it(text: str, rate: float) -> None:
    assert pace(text) == rate


@pytest.mark.parametrize("text", ["fast", "-1", "1e3", "nan", "inf", "1.2.3", "\u0663"])
def test_what_is_no_pace_is_refused(text: str) -> None:
    with pytest.raises(Problem) as refused:
        pace(text)
    assert (refused.value.status, refused.value.field) == (400, "max_per_second")
