"""How times, durations, sizes and foreign texts are written."""

import datetime

import pytest
from flask import Flask, g
from markupsafe import Markup

from postqueue_api.web.dashboard import formats


def plain(markup: Markup) -> str:
    return markup.striptags().replace("\N{NO-BREAK SPACE}", " ")


@pytest.mark.parametrize(
    ("seconds", "english", "japanese"),
    [
        (0, "0 s", "0秒"),
        (59.9, "59 s", "59秒"),
        (60, "1 min", "1分"),
        (61, "1 min 1 s", "1分1秒"),
        (3600, "1 h", "1時間"),
        (4 * 3600 + 12 * 60 + 59, "4 h 12 min", "4時間12分"),
        (86400 + 59, "1 d", "1日"),
        (40 * 86400 + 5 * 3600, "40 d 5 h", "40日5時間"),
        (-5, "0 s", "0秒"),
    ],
)
def test_a_duration_is_told_in_its_two_largest_units(seconds: float, english: str, japanese: str) -> None:
    with Flask(__name__).test_request_context():
        for language, expected in (("en", english), ("ja", japanese)):
            g.language = language
            assert plain(formats.age(seconds)) == expected


@pytest.mark.parametrize(
    ("count", "shown", "exact"),
    [
        (0, "0 B", "0 bytes"),
        (1, "1 B", "1 byte"),
        (999, "999 B", "999 bytes"),
        (1000, "1.0 kB", "1,000 bytes"),
        (9949, "9.9 kB", "9,949 bytes"),
        (9960, "10 kB", "9,960 bytes"),
        (999_499, "999 kB", "999,499 bytes"),
        (999_500, "1.0 MB", "999,500 bytes"),
        (1_234_567, "1.2 MB", "1,234,567 bytes"),
        (5 * 10**15, "5000 TB", "5,000,000,000,000,000 bytes"),
    ],
)
def test_a_size_is_told_roughly_and_exactly_on_hover(count: int, shown: str, exact: str) -> None:
    with Flask(__name__).test_request_context():
        made = formats.size(count)
        assert plain(made) == shown
        assert f'title="{exact}"' in made


def test_a_moment_is_a_time_that_programs_and_people_can_read() -> None:
    at = datetime.datetime(2026, 11, 23, 18, 5, 9, 700_000, datetime.UTC).timestamp()
    assert formats.time(at) == (
        '<time datetime="2026-11-23T18:05:09Z" title="2026-11-23 18:05:09 UTC" data-time="">2026-11-23 18:05 UTC</time>'
    )


def test_what_is_not_known_is_said_to_be_unknown_and_never_nought() -> None:
    with Flask(__name__).test_request_context():
        for write in (
            formats.time,
            formats.age,
            lambda epoch: formats.since(epoch, 0),
            formats.size,
            formats.number,
            formats.foreign,
        ):
            made = write(None)
            assert "unknown" in made
            assert "0" not in made


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("<script>alert(1)</script>", "&lt;script&gt;alert(1)&lt;/script&gt;"),
        ('" onmouseover="x', "&#34; onmouseover=&#34;x"),
        ("safe\u202egnp.exe", "safe⟦U+202E⟧gnp.exe"),
        ("a\0b\x1b[31m", "a⟦U+0000⟧b⟦U+001B⟧[31m"),
        ("zero\u200bwidth", "zero⟦U+200B⟧width"),
        ("line\u2028end", "line⟦U+2028⟧end"),
        ("lone \udc80 surrogate", "lone ⟦U+DC80⟧ surrogate"),
        ("Grüße 日本 😀", "Grüße 日本 😀"),
    ],
)
def test_foreign_text_is_text_and_nothing_in_it_is_invisible(text: str, shown: str) -> None:
    assert formats.foreign(text) == f"<bdi>{shown}</bdi>"


def test_a_number_has_its_thousands_apart() -> None:
    assert formats.number(1234567) == "1,234,567"
