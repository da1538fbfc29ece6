"""The three types that client text must fit before it reaches a command."""

import re
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from postqueue_api.errors import InvalidArgument
from postqueue_api.postfix.arguments import QUEUE_NAMES, QueueId, QueueName, Site

ANYTHING = st.text() | st.text(alphabet="0123456789ABCDEFabcdefzAL-./ \n\r\0*_", max_size=70)

GOOD_IDS = ["ABCDEF", "4jY9Jt1qzWz2Ff8Q", "0123456789", "a" * 64, "ALLALL"]
BAD_IDS = [
    "", "ALL", "all", "-", "--", "-d", "ABCDE", "A" * 65, "../x", "../../etc/passwd", "ABCDEF/", "/ABCDEF",
    "deferred/ABCDEF", "ABCDEF\n", "\nABCDEF", "ABC\nDEF", "ABCDEF\r", "ABCDEF\0", "ABCDEF\0junk", "ABCDEF ", " ABCDEF",
    "ABC DEF",
    "ABC\tDEF", "-ABCDEF", "ABC-DEF", "ABC_DEF", "ABC.DEF", "ABCDEF*", "ABCDEF!", "ABCDEF;id", "$(id)xx",
    "`id`xx", "ABCDEF%0A",
    "\u0660\u0661\u0662\u0663\u0664\u0665", "\uff21\uff22\uff23\uff24\uff25\uff26", "ÄBCDEF", "ABCDEF\u2028",
    "ABCDEF\ud800",
]  # fmt: skip

GOOD_SITES = [
    "example.com",
    "localhost",
    "a",
    "xn--nxasmq6b.example",
    "_dmarc.example.com",
    "1a",
    "a.1",
    "A.B",
]
BAD_SITES = [
    "", ".", "..", "a..b", ".a", "-a.example", "a-.example", "-", "-f", "a b", "a;b", "a/b", "@example.com",
    "u@example.com", "[192.0.2.1]", "a,b", "a\n", "a\0", "*", "example.com\r", "a" * 64, ".".join(["a" * 60] * 5),
    "münchen.example",
    "example.com.",
    "0",
    "1.2.3.4",
    "a\u2028",
]  # fmt: skip

BAD_QUEUE_NAMES = ["", "corrupt", "saved", "defer", "Hold", "HOLD", "hold ", "hold\n", "-", "ALL", "../hold", "höld"]

PARSERS: dict[str, Callable[..., str]] = {"queue_id": QueueId.parse, "queue_name": QueueName.parse, "site": Site.parse}


@pytest.mark.parametrize(
    ("field", "text"),
    [
        *(("queue_id", text) for text in GOOD_IDS),
        *(("queue_name", text) for text in QUEUE_NAMES),
        *(("site", text) for text in GOOD_SITES),
    ],
)
def test_what_fits_is_the_text_itself(field: str, text: str) -> None:
    parsed = PARSERS[field](text)
    assert parsed == text
    assert type(parsed) in (QueueId, QueueName, Site)


@pytest.mark.parametrize(
    ("field", "text"),
    [
        *(("queue_id", text) for text in BAD_IDS),
        *(("queue_name", text) for text in BAD_QUEUE_NAMES),
        *(("site", text) for text in BAD_SITES),
    ],
    ids=lambda value: ascii(value)[:40],
)
def test_what_does_not_fit_is_refused_by_field_and_not_repeated(field: str, text: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        PARSERS[field](text)
    assert caught.value.members["field"] == field
    assert caught.value.members["accepted"]
    assert len(text) < 4 or text not in caught.value.detail


@pytest.mark.parametrize("field", PARSERS)
def test_the_field_can_bear_the_name_that_the_client_knows(field: str) -> None:
    with pytest.raises(InvalidArgument, match="ids is not") as caught:
        PARSERS[field]("?", "ids")
    assert caught.value.members["field"] == "ids"


@given(ANYTHING)
def test_a_queue_id_can_be_no_option_no_wildcard_no_path_and_no_second_line(text: str) -> None:
    try:
        parsed = QueueId.parse(text)
    except InvalidArgument:
        return
    assert set(parsed) <= set("0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz")
    assert parsed.upper() != "ALL"
    assert 6 <= len(parsed) <= 64


@given(st.from_regex(re.compile(r"[0-9A-Za-z]{6,64}", re.ASCII), fullmatch=True))
def test_every_queue_id_that_postfix_makes_is_accepted(text: str) -> None:
    assert QueueId.parse(text) == text


@given(ANYTHING | st.text(alphabet="aB0-._", max_size=300))
def test_a_site_can_be_no_option_and_holds_nothing_but_a_name(text: str) -> None:
    try:
        parsed = Site.parse(text)
    except InvalidArgument:
        return
    assert parsed.isascii()
    assert not parsed.startswith(("-", "."))
    assert re.search(r"[^0-9A-Za-z._-]", parsed) is None
    assert all(1 <= len(label) <= 63 for label in parsed.removesuffix(".").split("."))
