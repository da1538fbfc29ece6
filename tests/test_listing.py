"""Cutting a listing into lines, and reading one."""

import itertools
import json
import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from postqueue_api.queue import listing

ROW = {
    "queue_name": "deferred",
    "queue_id": "4jY9Jt1qzWz2Ff8Q",
    "arrival_time": 1795448766,
    "message_size": 493653,
    "forced_expire": False,
    "sender": "tanaka@example.org",
    "recipients": [{"address": "archive@full.example", "delay_reason": "452 4.2.2 over quota"}],
}


def line(**changed: object) -> bytes:
    return json.dumps({**ROW, **changed}, ensure_ascii=False).encode()


@given(st.lists(st.binary(max_size=20) | st.sampled_from([b"\n", b"\n\n", b"\r\n", b"a\nb", b"\xe2\x80\xa8"])))
def test_lines_are_the_same_wherever_the_chunks_end(chunks: list[bytes]) -> None:
    whole = b"".join(chunks).split(b"\n")
    assert list(listing.lines(chunks)) == (whole if whole[-1] else whole[:-1])


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"", []),
        (b"\n", [b""]),
        (b"a", [b"a"]),
        (b"a\n", [b"a"]),
        (b"a\n\nb", [b"a", b"", b"b"]),
        (b"a\r\nb\n", [b"a\r", b"b"]),
        ("a\u2028b\u0085c\x0bd\x0ce\n".encode(), ["a\u2028b\u0085c\x0bd\x0ce".encode()]),
    ],
)
def test_a_line_ends_at_a_newline_and_nowhere_else(content: bytes, expected: list[bytes]) -> None:
    assert list(listing.lines([content])) == expected
    assert list(listing.lines(bytes([byte]) for byte in content)) == expected


@pytest.mark.parametrize("chunk_bytes", [1 << 16, 1 << 30])
@pytest.mark.parametrize("ended", [b"\nnext\n", b"\nnext"])
def test_a_line_of_ten_megabytes_is_kept(chunk_bytes: int, ended: bytes) -> None:
    long = b"x" * 10_000_000
    content = b"first\n" + long + ended
    chunks = [content[start : start + chunk_bytes] for start in range(0, len(content), chunk_bytes)]
    assert list(listing.lines(chunks)) == [b"first", long, b"next"]


def test_a_line_beyond_the_limit_becomes_one_unreadable_line_and_is_not_kept_in_memory() -> None:
    endless = (bytes(1 << 16) for _ in range(6 * listing.LINE_LIMIT_BYTES >> 16))
    tracemalloc.start()
    try:
        assert list(listing.lines(itertools.chain([b"first\n"], endless, [b"\nnext\n"]))) == [b"first", b"", b"next"]
        assert tracemalloc.get_traced_memory()[1] < 3 * listing.LINE_LIMIT_BYTES
    finally:
        tracemalloc.stop()


def test_a_last_line_beyond_the_limit_is_unreadable_too() -> None:
    chunk = b"x" * (1 << 20)
    assert list(listing.lines(itertools.repeat(chunk, 20))) == [b""]
    assert listing.read(b"") is None


def test_a_row_is_read_and_its_text_is_kept() -> None:
    message = listing.read(line())
    assert message is not None
    assert (message.queue_name, message.queue_id, message.arrival_time) == ("deferred", "4jY9Jt1qzWz2Ff8Q", 1795448766)
    assert (message.message_size, message.sender, message.forced_expire) == (493653, "tanaka@example.org", False)
    assert message.recipients == [listing.Recipient("archive@full.example", "452 4.2.2 over quota")]
    assert message.document == line()


def test_a_row_of_postfix_3_4_has_no_forced_expire_and_a_first_attempt_no_reason() -> None:
    row = {name: value for name, value in ROW.items() if name != "forced_expire"}
    message = listing.read(json.dumps({**row, "recipients": [{"address": "a@example.com"}]}).encode())
    assert message is not None
    assert message.forced_expire is False
    assert message.recipients == [listing.Recipient("a@example.com", None)]


def test_members_that_are_not_known_stay_in_the_document() -> None:
    row = line(recipients=[{"address": "a@example.com", "orig_address": "A@example.com"}], novelty={"deep": [1, 2]})
    message = listing.read(row)
    assert message is not None
    document = json.loads(message.document)
    assert document["novelty"] == {"deep": [1, 2]}
    assert document["recipients"][0]["orig_address"] == "A@example.com"


@pytest.mark.parametrize(
    ("stored", "shown"),
    [
        (b"\xff", "\ufffd"),
        (b"caf\xe9", "caf\ufffd"),
        (b"\xed\xa0\x80", "\ufffd\ufffd\ufffd"),
        ("\u2028\u202e\u0085<script>".encode(), "\u2028\u202e\u0085<script>"),
    ],
)
def test_a_row_with_any_bytes_in_its_reason_is_kept_and_is_valid_utf_8(stored: bytes, shown: str) -> None:
    message = listing.read(line().replace(b"452 4.2.2 over quota", stored))
    assert message is not None
    assert message.recipients[0].delay_reason == shown
    assert json.loads(message.document.decode())["recipients"][0]["delay_reason"] == shown


@pytest.mark.parametrize(
    "garbage",
    [
        b"",
        b"{",
        b"null",
        b"[]",
        b"{}",
        b"\xff\xfe",
        b"postqueue: warning: something",
        line()[:-5],
        line() + line(),
        line(queue_id="ALL"),
        line(queue_id="../../etc/passwd"),
        line(queue_id="ABCDEF\n"),
        line(queue_id="\u0660\u0661\u0662\u0663\u0664\u0665"),
        line(queue_id="A" * 65),
        line(queue_id=None),
        line(arrival_time="yesterday"),
        line(message_size=1.5),
        line(recipients=None),
        line(recipients=[{"delay_reason": "nobody"}]),
        line(recipients=["a@example.com"]),
        b"[" * 100_000,
    ],
    ids=lambda value: ascii(value)[:40],
)
def test_what_is_not_a_message_is_none(garbage: bytes) -> None:
    assert listing.read(garbage) is None


@given(st.binary())
def test_no_line_makes_reading_fail(content: bytes) -> None:
    assert listing.read(content) is None


@given(st.binary(max_size=30))
def test_every_document_that_is_kept_is_one_json_object_in_utf_8(reason: bytes) -> None:
    message = listing.read(line().replace(b"452 4.2.2 over quota", reason))
    if message is not None:
        assert isinstance(json.loads(message.document.decode()), dict)


@pytest.mark.parametrize(
    ("address", "expected"),
    [("a@example.com", "example.com"), ("MAILER-DAEMON", ""), ('"a@b"@c', "c"), ("a@", ""), ("", ""), ("@x", "x")],
)
def test_the_domain_is_behind_the_last_sign(address: str, expected: str) -> None:
    assert listing.domain(address) == expected
