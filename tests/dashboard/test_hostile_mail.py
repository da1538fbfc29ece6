"""Mail from people who want to break the dashboard, sent by SMTP: each opens as text, in time, and runs nothing.

The fixture `new_page` fails a test for whatever the policy refused, for errors of scripts and for anything on the
console; dialogs fail it here.
"""

import base64
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from email.header import Header

import pytest
from playwright.sync_api import Page, expect

from postqueue_api.sandbox.sites import REFUSING
from tests.dashboard import browsing
from tests.dashboard.browsing import Site
from tests.dashboard.conftest import Pages
from tests.live.mailbox import Mailbox

SECONDS = 5
SCRIPT = "<script>window.pwned=1;alert(1)</script><img src=x onerror=alert(2)>\"'><svg onload=alert(3)>"
OVERRIDE = "\N{RIGHT-TO-LEFT OVERRIDE}exe.fdp\N{POP DIRECTIONAL FORMATTING}\N{RIGHT-TO-LEFT ISOLATE}"
LONG = 100_000
DEPTH = 3_000


@dataclass(frozen=True)
class Hostile:
    """Content, and what a reader must see of it as text."""

    content: bytes
    seen: tuple[str, ...]
    recipients: int = 1


def encoded(text: str) -> str:
    """A header value as RFC 2047 has it, on lines of legal length."""
    return Header(text, "utf-8", maxlinelen=70).encode()


def script() -> Hostile:
    word = base64.b64encode(SCRIPT.encode()).decode()
    content = (
        f"From: =?utf-8?b?{word}?= <a@example.com>\nTo: {SCRIPT} <b@example.com>\nSubject: =?utf-8?b?{word}?=\n"
        f"X-{'x' * 20}: {SCRIPT}\nMIME-Version: 1.0\nContent-Type: multipart/mixed; boundary=b\n\n--b\n"
        f"Content-Type: text/plain; charset={SCRIPT.replace(' ', '')}\n\n{SCRIPT}\n--b\nContent-Type: text/html\n\n"
        f"<html><base href=//evil.example><meta http-equiv=refresh content='0;url=//evil.example'>{SCRIPT}\n--b\n"
        f"Content-Type: application/x-{SCRIPT.split('>')[0]}; name*=utf-8''{'%3Cscript%3Ealert(4)%3C%2Fscript%3E'}\n"
        f"Content-Disposition: attachment\n\nx\n--b--\n"
    )
    return Hostile(content.encode(), (SCRIPT, "<base href=//evil.example>", "<script>alert(4)</script>"))


def bidi() -> Hostile:
    content = (
        f"From: {encoded(OVERRIDE)} <a@example.com>\nSubject: {encoded('Invoice ' + OVERRIDE)}\nMIME-Version: 1.0\n"
        "Content-Type: multipart/mixed; boundary=b\n\n--b\nContent-Type: text/plain; charset=utf-8\n"
        f"Content-Transfer-Encoding: 8bit\n\nRead {OVERRIDE} now\n--b\n"
        "Content-Type: application/octet-stream\n"
        "Content-Disposition: attachment; filename*=utf-8''a%E2%80%AEfdp.exe\n\nx\n--b--\n"
    )
    return Hostile(content.encode(), ("Invoice", "Read ", "U+202E"))


def huge_subject() -> Hostile:
    folded = "\n".join(" " + "W" * 900 for _ in range(LONG // 900))
    return Hostile(
        f"From: a@example.com\nSubject: begins\n{folded}\n\nbody\n".encode(), ("begins", "more characters", "body")
    )


def one_long_word() -> Hostile:
    return Hostile(
        b"From: " + b"a" * 900 + b"@example.com\nSubject: long\n\n" + b"\n".join([b"x" * 900] * 50) + b"\n",
        ("long", "x" * 900),
    )


def many_recipients() -> Hostile:
    return Hostile(b"From: a@example.com\nSubject: to all\n\nbody\n", ("to all", "8,000 recipients"), 8000)


def broken_mime() -> Hostile:
    content = (
        b'From: a@example.com\nSubject: broken\nMIME-Version: 1.0\nContent-Type: multipart/mixed; boundary="b\n'
        b'Content-Type: text/plain; charset="no-such-charset\nContent-Transfer-Encoding: 8-bits\nno header at all\n'
        b": no name\n\n--b\n--b--b\n--b\nContent-Type: multipart/mixed\n\n=?utf-8?b?AAAA?=\n\xff\xfe\xfd<b>text</b>\n--"
    )
    return Hostile(content, ("broken", "no header at all", "<b>text</b>"))


def nested() -> Hostile:
    """Multiparts in multiparts, 3,000 deep, with a zip at every hundredth level."""
    lines = ["From: a@example.com", "Subject: matryoshka", "MIME-Version: 1.0"]
    for level in range(DEPTH):
        lines += [f"Content-Type: multipart/mixed; boundary=b{level}", "", f"--b{level}"]
        if level % 100 == 0:
            lines += ["Content-Type: application/zip; name=bomb.zip", "Content-Transfer-Encoding: base64", ""]
            lines += [base64.b64encode(b"PK\3\4" + bytes(60)).decode(), f"--b{level}"]
    lines += ["Content-Type: text/plain", "", "the innermost"]
    return Hostile("\n".join(lines).encode() + b"\n", ("matryoshka", "Parts were left out"))


def many_parts() -> Hostile:
    parts = "".join(f"--b\nContent-Type: text/html\n\n<b>{number}</b>\n" for number in range(20_000))
    head = "From: a@example.com\nSubject: heap\nMIME-Version: 1.0\nContent-Type: multipart/mixed; boundary=b\n\n"
    return Hostile(f"{head}{parts}--b--\n".encode(), ("heap", "<b>0</b>", "Parts were left out"))


def control_characters() -> Hostile:
    content = (
        b"From: \x1b[31mred\x1b[0m\x07\x08 <a@example.com>\nSubject: caf\xe9 \xff\xfe \x9b2J \x01 end\n"
        b"X-Tab:\ta\tb\nContent-Type: text/plain; charset=latin-1\n\nbell \x07, escape \x1b[2J, c1 \x9b, next\x85line\n"
    )
    return Hostile(content, ("U+001B", "U+0007", "caf", "end"))


CASES = {
    "script": script,
    "bidi": bidi,
    "huge subject": huge_subject,
    "one long word": one_long_word,
    "eight thousand recipients": many_recipients,
    "broken MIME": broken_mime,
    "nested": nested,
    "many parts": many_parts,
    "control characters": control_characters,
}
WIDTHS = (1280, 360)


def sent(mailbox: Mailbox, mail: Hostile) -> tuple[str, str]:
    """Send it on hold's way to nowhere. Returns:  its queue ID and its sender"""
    sender = f"h{mailbox.word}@hostile.example"
    recipients = [f"r{number}@{REFUSING}" for number in range(mail.recipients)]
    queue_id = mailbox.box.send(sender, recipients, mail.content)
    mailbox.wait_for(queue_id, "deferred", 120)
    return queue_id, sender


@contextmanager
def in_time() -> Iterator[None]:
    began = time.monotonic()
    yield
    assert time.monotonic() - began < SECONDS


def holds(page: Page) -> None:
    """Nothing of it ran, nothing of it is an element of the page, and the layout stands at both widths."""
    assert page.evaluate("window.pwned") is None
    assert page.locator("main script, main img, main base, main meta, main svg[onload], main iframe").count() == 0
    assert page.evaluate("document.querySelectorAll('script').length") == 1
    for width in WIDTHS:
        page.set_viewport_size({"width": width, "height": 900})
        assert browsing.overflow(page) == 0


@pytest.mark.parametrize("name", CASES)
def test_hostile_mail_opens_as_text(
    new_page: Pages, site: Site, login: Callable[..., None], mailbox: Mailbox, name: str
) -> None:
    mail = CASES[name]()
    queue_id, sender = sent(mailbox, mail)
    page = new_page()
    page.on("dialog", lambda dialog: pytest.fail(f"a dialog: {dialog.message}"))
    login(page, "admin-content", "/trash")
    with in_time():
        page.goto(f"{site.address}/messages/{queue_id}")
    shown = page.locator("main").text_content() or ""
    assert [part for part in mail.seen if part not in shown] == []
    assert re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]", shown) is None
    holds(page)
    if mail.recipients > 1:
        assert page.locator("#waiting li").count() < mail.recipients / 4
        with in_time():
            page.goto(f"{site.address}/messages/{queue_id}?recipients=all")
        assert page.locator("#waiting li").count() == mail.recipients
    site.ask("GET", "/v1/queues", cache_control="no-cache")
    with in_time():
        page.goto(f"{site.address}/messages?sender={sender}")
    expect(page.locator("tr[data-queue-id]")).to_have_count(1)
    if mail.recipients > 1:
        expect(page.locator("tr[data-queue-id]")).to_contain_text(f"+{mail.recipients - 1:,}")
    holds(page)


def test_what_a_remote_server_says_is_text(
    new_page: Pages, site: Site, login: Callable[..., None], mailbox: Mailbox
) -> None:
    queue_id = mailbox.deferred("guest@strange.test", sender=f"h{mailbox.word}@hostile.example")
    site.ask("GET", "/v1/queues", cache_control="no-cache")
    page = new_page()
    page.on("dialog", lambda dialog: pytest.fail(f"a dialog: {dialog.message}"))
    login(page, "viewer", f"/messages?sender=h{mailbox.word}@hostile.example")
    expect(page.locator("td.why")).to_contain_text("<script>alert(1)</script>")
    holds(page)
    page.goto(f"{site.address}/messages/{queue_id}")
    expect(page.locator("#waiting")).to_contain_text("<script>alert(1)</script>")
    holds(page)
