"""An incident from beginning to end: a stolen account fills the queue with spam, and the good mail waits too."""

import re
from collections.abc import Iterator
from email.message import EmailMessage

import pytest
from playwright.sync_api import Page, expect

from postqueue_api.sandbox import Sandbox, fresh_directory
from postqueue_api.sandbox.sites import REFUSING
from tests.dashboard import browsing
from tests.dashboard.browsing import Site
from tests.dashboard.changing import operation_of

STOLEN = "carla@example.org"
SPAM = 250
GOOD = {f"good{number}@{REFUSING}": f"{name}@example.com" for number, name in enumerate(("anna", "bert", "zoe") * 4)}
CONTRACT = f"notary@{REFUSING}"


@pytest.fixture
def site() -> Iterator[Site]:
    """A Postfix of its own, with nothing in its queue yet, and a site that does not take mail for now."""
    with Sandbox(fresh_directory()) as box, browsing.site_of(box) as made:
        yield made


def mail(box: Sandbox, sender: str, recipient: str, subject: str) -> str:
    message = EmailMessage()
    message["From"], message["To"], message["Subject"] = sender, recipient, subject
    message.set_content("Hello.\n")
    return box.send(sender, [recipient], message.as_bytes())


def count(text: str | None) -> int:
    """The first number of a text."""
    found = re.search(r"[0-9,]+", text or "")
    assert found is not None, text
    return int(found[0].replace(",", ""))


def fill(box: Sandbox) -> str:
    """Good mail, spam of a stolen account, and one good message of its owner. Returns:  the queue ID of the last"""
    for recipient, sender in GOOD.items():
        mail(box, sender, recipient, "The minutes")
    for number in range(SPAM):
        mail(box, STOLEN, f"victim{number}@{REFUSING}", "YOU HAVE WON")
    wanted = mail(box, STOLEN, CONTRACT, "The contract")
    box.wait_until_settled(120)
    return wanted


def test_the_spam_goes_the_rest_is_delivered_and_what_was_deleted_wrongly_comes_back(page: Page, site: Site) -> None:
    box, number = site.box, SPAM + 1
    wanted = fill(box)
    browsing.log_in(page, site, "admin-content", "/")

    # The queue is full: whose mail is it?
    expect(page.locator("#overview-queues li", has_text="deferred")).to_contain_text(str(len(GOOD) + number))
    bar = page.locator("#overview-senders a", has_text=STOLEN)
    assert count(bar.locator("b").inner_text()) == number
    bar.click()
    expect(page.locator("#found-title")).to_have_text(f"{number} messages match")
    expect(page.locator("#rows tbody tr")).to_have_count(50)

    # All that match: first the preview, then the count typed.
    page.locator("#all-matching").click()
    page.locator("details:has(#all-matching)").get_by_role("button", name="Delete").click()
    expect(page.locator("h1")).to_have_text(f"Delete {number} messages?")
    assert STOLEN in page.locator("main").inner_text()
    page.fill("#why", "ticket 7: the account was stolen")
    page.fill("#count", str(number))
    page.locator("#change button").click()
    page.wait_for_url(re.compile("/operations/op-"))
    expect(page.locator(".op-state")).to_have_text("Done", timeout=60_000)  # without a reload
    assert operation_of(site, page)["outcomes"] == {"removed": number}
    assert {row["sender"] for row in box.queue()} == set(GOOD.values())
    assert len(box.queue()) == len(GOOD)

    # One of them was no spam: it comes back, and is looked at before it goes.
    page.goto(f"{site.address}/trash")
    expect(page.locator("#trash-title")).to_contain_text(f"{number} deleted messages can come back")
    page.fill("#queue_id", wanted)
    page.get_by_role("button", name="Find").click()
    row = page.locator(f"tr[data-queue-id='{wanted}']")
    page.locator("select[name=to]").select_option("hold")
    row.get_by_role("button").click()
    expect(page.locator(".op-state")).to_have_text("Done")
    page.get_by_role("link", name=wanted).first.click()
    expect(page.locator("main")).to_contain_text("The contract")
    assert [row["queue_id"] for row in box.queue() if row["queue_name"] == "hold"] == [wanted]
    page.get_by_role("button", name="Release", exact=True).click()
    box.wait_until(lambda: all(row["queue_name"] == "deferred" for row in box.queue()))

    # The site takes mail again: the rest is delivered.
    box.open_site(REFUSING)
    page.goto(f"{site.address}/messages")
    page.locator("#all-matching").click()
    page.locator("details:has(#all-matching)").get_by_role("button", name="Flush").click()
    expect(page.locator("h1")).to_have_text(f"Try to deliver {len(GOOD) + 1} messages now?")
    page.locator("#change button").click()
    expect(page.locator(".op-state")).to_have_text("Done", timeout=30_000)
    box.wait_until(lambda: box.queue() == [], 60)
    arrived = [tuple(re.findall("<(.*?)>", " ".join([each.mail, *each.rcpt]))) for each in box.deliveries()]
    expected = {**GOOD, CONTRACT: STOLEN}
    assert sorted(arrived) == sorted((sender, recipient) for recipient, sender in expected.items())
    page.goto(f"{site.address}/")
    expect(page.locator("#overview-queues li", has_text="deferred").locator("strong")).to_have_text("0")

    # And it is written down.
    page.goto(f"{site.address}/operations")
    history = page.locator("#operations-list tbody tr").all_inner_texts()
    assert [line.split("\t")[2].split()[0] for line in history] == ["Flush", "Release", "Restore", "Delete"]
    assert "ticket 7: the account was stolen" in history[3]
