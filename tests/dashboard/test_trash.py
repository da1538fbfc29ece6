"""Trash and history in a browser: who did what, what can come back, and that it does come back."""

import re
from collections.abc import Callable
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from tests.dashboard import browsing
from tests.dashboard.browsing import Complaints, Site
from tests.dashboard.changing import alerts, operation_of, send
from tests.dashboard.conftest import Pages
from tests.live.mailbox import SENDER, Mailbox
from tests.live.test_operations import UNKNOWN_ID, sender_of, several

Login = Callable[..., None]


def delete(site: Site, queue_ids: list[str], **members: Any) -> str:
    """Delete messages by the API. Returns:  the path of the operation's page"""
    body = {"action": "delete", "selection": {"queue_ids": queue_ids}, "reason": "by mistake", **members}
    answer = site.ask("POST", "/v1/operations", body=body, prefer="wait=20")
    assert answer.json()["outcomes"] == {"removed": len(queue_ids)}
    return f"/operations/{answer.json()['operation_id']}"


def row_of(page: Page, queue_id: str) -> Any:
    return page.locator(f"tr[data-queue-id='{queue_id}']")


@pytest.mark.parametrize("to", ["", "hold", "deferred"])
def test_a_deleted_message_is_restored_to_where_it_was_or_was_asked_for(
    page: Page, login: Login, site: Site, mailbox: Mailbox, to: str
) -> None:
    queue_id = mailbox.deferred()
    operation = delete(site, [queue_id])
    login(page, "admin", "/trash")
    row = row_of(page, queue_id).inner_text()
    for part in (SENDER, "1 recipient", "deferred", "23 h 5"):
        assert part in row, part
    expect(page.get_by_role("link", name=operation.removeprefix("/operations/"))).to_have_attribute("href", operation)
    page.locator("select[name=to]").select_option(to)
    row_of(page, queue_id).get_by_role("button").click()
    page.wait_for_url(re.compile("/operations/op-"))
    expect(page.locator("h1")).to_have_text("Restore: 1 message")
    expect(page.locator(".op-state")).to_have_text("Done")
    where = to or "deferred"
    assert f"it is in {where} again" in row_of(page, queue_id).inner_text()
    mailbox.wait_for(queue_id, where)
    page.goto(f"{site.address}/trash")
    expect(row_of(page, queue_id)).to_have_count(0)
    page.fill("#queue_id", queue_id)
    page.get_by_role("button", name="Find").click()
    assert f"restored as {queue_id}" in row_of(page, queue_id).inner_text()
    expect(page.get_by_role("button", name="Restore")).to_have_count(0)


def test_a_second_restore_is_refused_plainly(
    page: Page, login: Login, site: Site, mailbox: Mailbox, complaints: Complaints
) -> None:
    complaints.expected |= {404, 409}
    queue_id = mailbox.deferred()
    delete(site, [queue_id])
    login(page, "admin", "/trash")
    page.goto(f"{site.address}/trash?queue_id={UNKNOWN_ID}")
    assert alerts(page) == ["The trash has no message of this queue ID."]
    page.goto(f"{site.address}/trash?queue_id={queue_id}")
    assert site.ask("POST", f"/v1/trash/{queue_id}/restore", body={"to": "hold"}).status == 200
    row_of(page, queue_id).get_by_role("button").click()
    assert alerts(page) == [f"{queue_id} was not restored. It was restored before, as {queue_id}"]
    assert mailbox.queue_name(queue_id) == "hold"
    page.locator(".languages a").last.click()
    page.wait_for_url(f"{site.address}/trash")


def test_all_that_an_operation_deleted_comes_back_from_its_page(
    page: Page, login: Login, site: Site, mailbox: Mailbox, accessible: Callable[[Page], None]
) -> None:
    queue_ids = several(mailbox, 3)
    operation = delete(site, queue_ids)
    login(page, "admin", "/trash")
    page.locator(f"tbody:has([data-queue-id='{queue_ids[0]}'])").get_by_role("link", name="Restore all of it").click()
    page.wait_for_url(f"{site.address}{operation}/restore")
    expect(page.locator("h1")).to_have_text("Restore 3 messages?")
    size = sum(
        copy["queue_file_bytes"]
        for copy in site.ask("GET", "/v1/trash?limit=1000").json()["copies"]
        if copy["operation_id"] == operation.removeprefix("/operations/")
    )
    expect(page.locator(".facts [title$=' bytes']")).to_have_attribute("title", f"{size:,} bytes")
    assert sorted(page.locator("section:has(#sample) tbody th").all_inner_texts()) == sorted(queue_ids)
    assert [mailbox.queue_name(queue_id) for queue_id in queue_ids] == [None] * 3, "nothing is done yet"
    accessible(page)
    page.locator("select[name=to]").select_option("hold")
    page.fill("#why", "ticket 2")
    page.get_by_role("button", name="Restore 3 messages").click()
    expect(page.locator("h1")).to_have_text("Restore: 3 messages")
    expect(page.locator(".op-state")).to_have_text("Done")
    done = operation_of(site, page)
    assert (done["action"], done["outcomes"], done["reason"]) == ("restore", {"restored": 3}, "ticket 2")
    assert [mailbox.queue_name(queue_id) for queue_id in queue_ids] == ["hold"] * 3
    page.get_by_role("link", name=operation.removeprefix("/operations/")).click()
    assert "3 messages were removed. They can come back" in page.locator("main").inner_text()
    page.get_by_role("link", name="Restore all of it").click()
    expect(page.locator("main .note")).to_have_text("Nothing that this operation deleted is in the trash any more.")
    expect(page.get_by_role("button", name="Restore")).to_have_count(0)
    answer = send(page, f"{site.address}{operation}/restore", [])
    assert (answer.status, "Nothing that this operation deleted is in the trash" in answer.text()) == (409, True)


def test_without_copies_nothing_is_offered(page: Page, login: Login, site: Site, mailbox: Mailbox) -> None:
    operation = delete(site, [mailbox.deferred()], keep_copy=False)
    login(page, "admin", operation)
    assert "No copies were kept, so this cannot be undone." in page.locator("main").inner_text()
    expect(page.get_by_role("link", name="Restore all of it")).to_have_count(0)


def test_what_is_left_of_a_delete_is_told_from_what_it_removed(
    page: Page, login: Login, site: Site, mailbox: Mailbox
) -> None:
    queue_ids = several(mailbox, 2)
    operation = delete(site, queue_ids)
    assert site.ask("POST", f"/v1/trash/{queue_ids[0]}/restore", body={"to": "hold"}).status == 200
    login(page, "admin", f"{operation}/restore")
    expect(page.locator("h1")).to_have_text("Restore 1 message?")
    expect(page.locator("main")).to_contain_text("of 2 removed; the others are not in the trash any more")
    assert page.locator("section:has(#sample) tbody th").all_inner_texts() == queue_ids[1:]


def test_who_is_no_admin_sees_the_trash_without_buttons(
    page: Page, login: Login, site: Site, mailbox: Mailbox, complaints: Complaints
) -> None:
    complaints.expected |= {403, 404}
    queue_id = mailbox.deferred()
    operation = delete(site, [queue_id])
    for who in ("viewer", "operator"):
        login(page, who, "/trash")
        expect(row_of(page, queue_id)).to_have_count(1)
        expect(page.get_by_role("button", name="Restore")).to_have_count(0)
        assert "the role admin is needed" in page.locator("main").inner_text()
        assert send(page, f"{site.address}/trash/{queue_id}/restore", []).status == 403
        assert send(page, f"{site.address}{operation}/restore", [("to", "hold")]).status == 403
        page.locator(".logout button").click()
    assert mailbox.queue_name(queue_id) is None
    login(page, "admin", "/trash")
    assert send(page, f"{site.address}/trash/{UNKNOWN_ID}/restore", []).status == 404
    assert send(page, f"{site.address}/trash/{queue_id}/restore", [("to", "nowhere")]).status == 400
    assert mailbox.queue_name(queue_id) is None


def test_the_history_says_who_did_what_when_and_why(
    page: Page, login: Login, site: Site, mailbox: Mailbox, accessible: Callable[[Page], None]
) -> None:
    reason = f"<i>{mailbox.word}</i> \u202e"
    body = {"action": "hold", "selection": {"queue_ids": [mailbox.deferred(), UNKNOWN_ID]}, "reason": reason}
    assert site.ask("POST", "/v1/operations", "operator", body, prefer="wait=20").status == 200
    login(page, "viewer", "/operations")
    row = page.locator("tr", has_text=mailbox.word).inner_text()
    for part in ("operator", "Hold", "Done", "2", "held 1", "not found 1", f"<i>{mailbox.word}</i> ⟦U+202E⟧"):
        assert part in row, part
    accessible(page)
    page.locator("tr", has_text=mailbox.word).get_by_role("link").click()
    facts = page.locator("#operation-facts").inner_text()
    for part in ("operator", "127.0.0.1", mailbox.word, "2 queue IDs"):
        assert part in facts, part


def test_the_history_and_the_results_come_page_by_page(page: Page, login: Login, site: Site) -> None:
    for number in range(51):
        why = {"reason": f"page by page {number}"}
        assert site.ask("POST", f"/v1/messages/{UNKNOWN_ID}/flush", body=why).status == 404
    body: Any = {"action": "hold", "selection": {"queue_ids": [f"4zzzzzzz{number:06}z9" for number in range(120)]}}
    many = site.ask("POST", "/v1/operations", body=body, prefer="wait=20").json()["operation_id"]
    login(page, "viewer", "/operations")
    rows = page.locator("#operations-list tbody tr")
    expect(rows).to_have_count(50)
    page.get_by_role("link", name="Older").click()
    expect(page.locator("tr", has_text="page by page 0")).to_have_count(1)
    page.get_by_role("link", name="Newest").click()
    rows.first.get_by_role("link").click()
    page.wait_for_url(f"{site.address}/operations/{many}")
    rows = page.locator("#operation-results tbody tr")
    page.locator("#operation-not-done").get_by_role("link", name="All 120 that were not done").click()
    positions = []
    for count in (50, 50, 20):
        expect(rows).to_have_count(count)
        positions += [int(each.split("\t")[0]) for each in rows.all_inner_texts()]
        if count == 50:
            first = rows.first.inner_text()
            page.get_by_role("link", name="More").click()
            expect(rows.first).not_to_have_text(first)
    assert positions == list(range(1, 121))


def test_an_operation_that_never_was_is_told_in_the_shell(
    page: Page, login: Login, site: Site, complaints: Complaints
) -> None:
    complaints.expected |= {400, 404}
    login(page, "viewer", "/trash")
    for name in ("op-0000000000000000", "nonsense", "a%3Fb"):
        page.goto(f"{site.address}/operations/{name}")
        expect(page.locator(".top nav")).to_have_count(1)
        assert len(alerts(page)) == 1


@pytest.mark.parametrize("width", [1280, 360])
@pytest.mark.parametrize("language", ["en", "ja"])
def test_operation_history_and_trash_look_well(
    new_page: Pages,
    login: Login,
    site: Site,
    mailbox: Mailbox,
    language: str,
    width: int,
    accessible: Callable[[Page], None],
) -> None:
    queue_ids = several(mailbox, 3)
    operation = delete(site, queue_ids)
    body: Any = {"action": "hold", "selection": {"sender": sender_of(mailbox)}, "reason": "look at it"}
    site.ask("POST", "/v1/operations", body=body)
    page = new_page(locale=language, viewport={"width": width, "height": 900})
    login(page, "admin", "/trash")
    for name, address in {"trash": "/trash", "operations": "/operations", "operation": operation}.items():
        page.goto(f"{site.address}{address}")
        for scheme in ("light", "dark"):
            page.emulate_media(color_scheme=scheme)
            page.screenshot(path=browsing.shots() / f"{name}-{language}-{width}-{scheme}.png", full_page=True)
        assert browsing.overflow(page) == 0, name
        assert browsing.scrolled(page) == [], name
        assert browsing.overlapping(page) == [], name
        accessible(page)
