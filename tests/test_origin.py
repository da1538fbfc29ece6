"""Where a request comes from, as browsers tell."""

import pytest
from flask import Flask

from postqueue_api.web import origin

CASES: list[tuple[dict[str, str], bool, bool]] = [
    ({}, False, False),
    ({"Sec-Fetch-Site": "none"}, False, False),
    ({"Sec-Fetch-Site": "same-origin"}, False, True),
    ({"Sec-Fetch-Site": "same-site"}, True, False),
    ({"Sec-Fetch-Site": "cross-site"}, True, False),
    ({"Origin": "http://mail.example.org:8025"}, False, True),
    ({"Origin": "http://MAIL.example.org:8025"}, False, True),
    ({"Origin": "http://mail.example.org"}, True, False),
    ({"Origin": "http://mail.example.org:8025.evil.example"}, True, False),
    ({"Origin": "http://evil.example"}, True, False),
    ({"Origin": "null"}, True, False),
    ({"Origin": ""}, True, False),
    ({"Origin": "http://[x"}, True, False),
    ({"Origin": "http://[mail.example.org]:8025"}, True, False),
    ({"Origin": "http://mail.example.org:8025", "Sec-Fetch-Site": "cross-site"}, True, False),
    ({"Origin": "http://evil.example", "Sec-Fetch-Site": "same-origin"}, True, False),
]


@pytest.mark.parametrize(("headers", "is_foreign", "is_ours"), CASES)
def test_what_a_browser_tells_is_taken_at_its_word(headers: dict[str, str], is_foreign: bool, is_ours: bool) -> None:
    with Flask(__name__).test_request_context("/", base_url="http://mail.example.org:8025", headers=headers):
        assert (origin.is_foreign(), origin.is_ours()) == (is_foreign, is_ours)
