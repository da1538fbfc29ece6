"""Messages as a sender may write them: the usual, the broken and the hostile."""

import base64
import re
import time

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from postqueue_api.web import mime
from postqueue_api.web.mime import Attachment, Header, TextPart, body, headers


def decoded(value: str | bytes) -> str:
    raw = value if isinstance(value, bytes) else value.encode()
    return headers(b"Subject: " + raw + b"\n").headers[0].value


def text_of(content_type: str, content: bytes, encoding: str = "8bit") -> str:
    head = f"Content-Type: {content_type}\nContent-Transfer-Encoding: {encoding}\n\n".encode()
    return body(head + content).texts[0].text


def nested(levels: int, end: bool = False) -> bytes:
    parts = [f'Content-Type: multipart/mixed; boundary="b{n}"\n\n--b{n}\n' for n in range(levels)]
    ends = [f"\n--b{n}--\n" for n in reversed(range(levels))] if end else []
    return "".join([*parts, "\ninnermost\n", *ends]).encode()


def test_headers_keep_their_order_and_their_duplicates() -> None:
    block = b"Received: one\nFrom: a@example.com\nReceived: two\nfrom: b@example.com\n"
    found = headers(block)
    assert [(header.name, header.value) for header in found.headers] == [
        ("Received", "one"),
        ("From", "a@example.com"),
        ("Received", "two"),
        ("from", "b@example.com"),
    ]
    assert not found.truncated


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("plain", "plain"),
        ("folded\n over\n\tlines", "folded over lines"),
        ("=?utf-8?q?Gr=C3=BC=C3=9Fe_an_alle?=", "Grüße an alle"),
        ("=?ISO-8859-1?B?R3L832U=?= and more", "Grüße and more"),
        ("=?utf-8?b?w7w=?= =?utf-8?b?w7w=?=", "üü"),
        ("=?utf-8?b?ww==?=\n =?utf-8?b?vA==?=", "ü"),
        ("=?utf-8?q?a?= b =?utf-8?q?c?=", "a b c"),
        ("=?utf-8*en?q?=C3=BC?=", "ü"),
        ("=?utf-8?q?a?= =?iso-8859-1?q?=FC?=", "aü"),
        ("raw Grüße", "raw Grüße"),
        (b"latin \xfc", "latin \ufffd"),
        ("=?utf-8?q?=FF?=", "\ufffd"),
        ("=?rot13?q?uryyb?=", "uryyb"),
        ("=?unicode_escape?q?=5Cu0041?=", "\\u0041"),
        ("=?utf-8?q?a=0AX-Forged:_b=00=1B[31m?=", "a\ufffdX-Forged: b\ufffd\ufffd[31m"),
        ("\u202eesrever\u2028next\u0085", "\ufffdesrever\ufffdnext\ufffd"),
        ("", ""),
    ],
)
def test_a_header_value_is_shown_as_it_is_meant_and_on_one_line(value: str | bytes, shown: str) -> None:
    assert decoded(value) == shown


@pytest.mark.parametrize(
    "value", ["=?zlib?b?eJwDAAAAAAE=?=", "=?utf-8?b?not*base64?=", "=?idna?q?xn--a..?=", "=?hex?q?0?="]
)
def test_a_word_that_cannot_be_decoded_stays_on_one_visible_line(value: str) -> None:
    assert decoded(value)
    assert not re.search("[\0-\x1f\x7f-\x9f]", decoded(value))


def test_a_line_that_is_no_header_stays_without_a_name() -> None:
    assert headers(b"From nobody\nSubject : x\n").headers == [Header("", "From nobody"), Header("Subject", "x")]
    assert headers(b"").headers == []


def test_too_many_or_too_long_headers_are_cut_and_it_says_so() -> None:
    found = headers(b"X: 1\n" * 1001)
    assert (len(found.headers), found.truncated) == (1000, True)
    assert not headers(b"X: 1\n" * 1000).truncated
    long = headers(b"X: " + b"y" * 300_000)
    assert (len(long.headers[0].value), long.truncated) == (mime.HEADERS_LIMIT_BYTES - 3, True)


def test_a_message_is_split_at_its_first_empty_line() -> None:
    assert mime.split(b"A: b\n\nbody\n\nmore") == (b"A: b\n", b"body\n\nmore")
    assert mime.split(b"\nbody") == (b"", b"body")
    assert mime.split(b"A: b\n") == (b"A: b\n", b"")


def test_a_plain_message_is_one_text() -> None:
    assert body(b"Subject: x\n\nline\n").texts == [TextPart("text/plain", None, "line\n", False)]


def test_texts_and_attachments_of_a_usual_message() -> None:
    raw = (
        b'Content-Type: multipart/mixed; boundary="out er"\n\npreamble\n--out er\n'
        b"Content-Type: multipart/alternative; boundary=in\n\n--in\nContent-Type: text/plain; charset=utf-8\n"
        b"Content-Transfer-Encoding: quoted-printable\n\nGr=C3=BC=C3=9Fe=\n!\n--in\n"
        b"Content-Type: text/html; charset=us-ascii\n\n<script>alert(1)</script>\n--in--\n--out er\n"
        b"Content-Type: application/pdf; name*=utf-8''R%C3%A9sum%C3%A9.pdf\nContent-ID: <1@example.com>\n"
        b"Content-Transfer-Encoding: base64\n\n" + base64.encodebytes(b"%PDF" * 100) + b"\n--out er\n"
        b"Content-Type: message/rfc822\n\nSubject: inner\n\nx\n--out er\n"
        b'Content-Type: text/plain\nContent-Disposition: ATTACHMENT; filename="=?utf-8?q?=C3=BC.txt?="\n\nabc\n'
        b"--out er--\nepilogue\n"
    )
    found = body(raw)
    assert [(part.content_type, part.charset, part.text) for part in found.texts] == [
        ("text/plain", "utf-8", "Grüße!"),
        ("text/html", "us-ascii", "<script>alert(1)</script>"),
    ]
    assert found.attachments == [
        Attachment("Résumé.pdf", "application/pdf", 400, "1@example.com"),
        Attachment(None, "message/rfc822", 17, None),
        Attachment("ü.txt", "text/plain", 3, None),
    ]
    assert not found.truncated


def test_a_bounce_shows_its_delivery_status_and_lists_the_message() -> None:
    raw = (
        b"Content-Type: multipart/report; boundary=r\n\n--r\n\nsorry\n--r\nContent-Type: message/delivery-status\n\n"
        b"Action: failed\n--r\nContent-Type: message/rfc822-headers\n\nSubject: x\n--r--\n"
    )
    found = body(raw)
    assert [part.content_type for part in found.texts] == ["text/plain", "message/delivery-status"]
    assert [part.content_type for part in found.attachments] == ["message/rfc822-headers"]


@pytest.mark.parametrize(
    ("content_type", "encoding", "content", "text"),
    [
        ("text/plain; charset=iso-8859-1", "8bit", b"\xfc", "ü"),
        ("text/plain; charset=us-ascii", "8bit", b"\xc3\xbc", "ü"),
        ("text/plain; charset=nonsense", "8bit", b"\xc3\xbc", "ü"),
        ("text/plain; charset=utf-8", "8bit", b"\xed\xa0\x80", "\ufffd\ufffd\ufffd"),
        ("text/plain; charset=utf-16", "base64", b"//5hAA==", "a"),
        ("text/plain; charset=utf-7", "7bit", b"+2AA-", "\ufffd"),
        ("text/plain; charset=idna", "7bit", b"xn--a..", "xn--a.."),
        ("text/plain; charset=rot13", "7bit", b"uryyb", "uryyb"),
        ("text/plain; charset=zlib", "7bit", b"x", "x"),
        ("text/plain; charset=unicode_escape", "7bit", b"\\ud800", "\\ud800"),
        ("text/plain; charset=undefined", "7bit", b"x", "x"),
        ("text/plain; charset=\0", "7bit", b"a\0b", "a\0b"),
        ("text/plain", "base64", b"YWJ", "ab"),
        ("text/plain", "base64", b"YWJjZ", "abc"),
        ("text/plain", "base64", b"*YW?Jj*", "abc"),
        ("text/plain", "quoted-printable", b"a=ZZ=", "a=ZZ"),
        ("text/plain", "invented", b"x", "x"),
        ("garbage", "8bit", b"x", "x"),
        ("", "8bit", b"x", "x"),
        ("multipart/mixed", "8bit", b"no boundary", "no boundary"),
        ('multipart/mixed; boundary=""', "8bit", b"empty boundary", "empty boundary"),
        ("multipart/mixed; boundary=b", "8bit", b"no part", "no part"),
        ('multipart/mixed; boundary="b', "8bit", b"--b\n\nno closing quote", "--b\n\nno closing quote"),
        ("multipart/mixed; boundary=b", "8bit", b"--b\n\nno end", "no end"),
        ("multipart/mixed; boundary=b", "8bit", b"--bb\n--b \t\n\n--bb\nx\n--b--", "--bb\nx"),
    ],
)
def test_broken_mime_is_read_as_far_as_it_goes(content_type: str, encoding: str, content: bytes, text: str) -> None:
    assert text_of(content_type, content, encoding) == text


def test_a_text_that_calls_itself_an_attachment_is_listed_even_without_a_name() -> None:
    found = body(b"Content-Type: text/plain\nContent-Disposition: attachment\n\nabc")
    assert found == mime.Body([], [Attachment(None, "text/plain", 3, None)], False)


def test_an_empty_multipart_has_no_parts() -> None:
    assert body(b"Content-Type: multipart/mixed; boundary=b\n\n--b--\n--b\n\nx") == mime.Body([], [], False)


def test_parts_of_a_digest_are_messages() -> None:
    found = body(b"Content-Type: multipart/digest; boundary=b\n\n--b\n\nSubject: x\n\ny\n--b--\n")
    assert [part.content_type for part in found.attachments] == ["message/rfc822"]


def test_nesting_ends_at_the_limit_and_it_says_so() -> None:
    assert [part.text for part in body(nested(mime.DEPTH_LIMIT, end=True)).texts] == ["innermost\n"]
    found = body(nested(mime.DEPTH_LIMIT + 1, end=True))
    assert (found.texts, found.truncated) == ([], True)
    assert [part.content_type for part in found.attachments] == ["multipart/mixed"]


def test_the_number_of_parts_ends_at_the_limit_and_it_says_so() -> None:
    found = body(b"Content-Type: multipart/mixed; boundary=b\n\n" + b"--b\n\nx\n" * 100_000)
    assert (len(found.texts), found.truncated) == (mime.PARTS_LIMIT - 1, True)


def test_text_ends_at_the_limit_without_half_a_character_and_it_says_so() -> None:
    found = body(b"Content-Type: text/plain; charset=utf-8\n\na" + "ü".encode() * mime.TEXT_LIMIT_BYTES)
    assert found.truncated
    assert found.texts[0].truncated
    assert found.texts[0].text == "a" + "ü" * (mime.TEXT_LIMIT_BYTES // 2 - 1)


@pytest.mark.parametrize(
    "raw",
    [
        nested(100_000),
        nested(100_000, end=True),
        b"Content-Type: multipart/mixed; boundary=b\n\n" + b"--b\n" * 1_000_000,
        b"Content-Type: multipart/mixed; boundary=b\n\n"
        + b"--b\nContent-Type: "
        + b"multipart/mixed; boundary=b\n\n" * 50_000,
        b"Content-Type: text/plain; x=" + b'";' * 500_000 + b"\n\nx",
        b"Content-Type: multipart/mixed; boundary=b\n\n"
        + (b"--b\nContent-Type: text/plain; x=" + b'";' * 1000 + b"\n\nx\n") * 1000,
        b"Content-Type: text/plain; " + b"".join(b"a*%d*=x;" % n for n in range(100_000)) + b"\n\nx",
        b"Content-Type: text/plain; a*" + b"9" * 100_000 + b"*=x\n\nx",
        b"Content-Disposition: attachment; filename=" + b"=?a?q?b?= " * 50_000 + b"\n\nx",
        b"Content-Type: text/plain; charset=punycode\n\n" + b"a" * 1_000_000,
        b"\n" * 1_000_000,
        b"A:" * 1_000_000,
    ],
    ids=lambda raw: raw[:12].decode(),
)
def test_hostile_messages_take_less_than_a_few_seconds(raw: bytes) -> None:
    started = time.process_time()
    encodable(raw)
    assert time.process_time() - started < 3


def encodable(raw: bytes) -> None:
    """Both results become JSON, which a lone surrogate would not, and no header holds what cannot be seen."""
    found = headers(mime.split(raw)[0])
    msgspec.json.encode(found)
    msgspec.json.encode(body(raw))
    assert not re.search("[\0-\x1f\x7f-\x9f]", "".join(header.value for header in found.headers))


WORDS = [
    *(
        b"Content-Type: ",
        b"multipart/mixed",
        b"; boundary=b",
        b"text/plain",
        b"; charset=",
        b"utf-7",
        b"utf-16",
        b"\n",
        b"\n\n",
    ),
    *(
        b"--b",
        b"--b--",
        b"Content-Transfer-Encoding: base64",
        b"=?utf-8?b?",
        b"?=",
        b"name*0*=",
        b"\xff",
        b"\0",
        b" ",
        b"%ud800",
    ),
    *(b"iso-2022-jp", b"hz", b"message/rfc822", b"+2AA-", b'"', b"Content-Disposition: attachment; filename*=utf-7''"),
]


@settings(max_examples=300, deadline=2000)
@given(st.binary(max_size=300))
def test_random_bytes_never_raise(raw: bytes) -> None:
    encodable(raw)
    encodable(b"Content-Type: " + raw)


@settings(max_examples=600, deadline=2000)
@given(st.lists(st.one_of(st.sampled_from(WORDS), st.binary(max_size=4)), max_size=30))
def test_random_mime_never_raises(words: list[bytes]) -> None:
    encodable(b"Content-Type: " + b"".join(words))
