"""Changes of many messages in a browser: first what would be done, then a reason and a count, then what was done."""

import re
from collections.abc import Callable

import pytest
from playwright.sync_api import Page, expect

from postqueue_api.config import Settings
from postqueue_api.sandbox import Sandbox
from postqueue_api.sandbox.sites import REFUSING
from tests.dashboard import browsing
from tests.dashboard.browsing import Complaints, Site
from tests.dashboard.changing import alerts, fields_of, newest_operation, operation_of, preview, send
from tests.dashboard.conftest import Pages
from tests.live.mailbox import Mailbox
from tests.live.test_operations import UNKNOWN_ID, sender_of, several, state_of

Login = Callable[..., None]
MANY = 10_000


@pytest.fixture
def admin(page: Page, login: Login) -> Page:
    """A page of an admin who may not read mail."""
    login(page, "admin", "/trash")
    return page


def confirm(page: Page) -> None:
    page.locator("#change button").click()


def test_a_preview_says_how_many_from_whom_to_where_and_why_and_does_nothing(
    admin: Page, site: Site, mailbox: Mailbox, accessible: Callable[[Page], None]
) -> None:
    queue_ids = several(mailbox, 3)
    before, last = state_of(mailbox, queue_ids), newest_or_none(site)
    preview(admin, ("action", "delete"), ("sender", sender_of(mailbox)), ("queue_name", "deferred"))
    expect(admin.locator("h1")).to_have_text("Delete 3 messages?")
    shown = admin.locator("main").inner_text()
    for part in (sender_of(mailbox), REFUSING, "Connection refused", "deferred 3", "trash for 1 d", "Type the number"):
        assert part in shown, part
    assert sorted(admin.locator("section:has(#sample) tbody th").all_inner_texts()) == sorted(queue_ids)
    accessible(admin)
    assert (state_of(mailbox, queue_ids), newest_or_none(site)) == (before, last)


def newest_or_none(site: Site) -> object:
    return site.ask("GET", "/v1/operations?limit=1").json()["operations"]


def test_a_delete_needs_the_count_typed_and_a_reason_and_keeps_what_was_typed(
    admin: Page, site: Site, mailbox: Mailbox, complaints: Complaints
) -> None:
    complaints.expected.add(400)
    queue_ids = several(mailbox, 3)
    before = state_of(mailbox, queue_ids)
    preview(admin, ("action", "delete"), ("sender", sender_of(mailbox)))
    admin.evaluate("document.querySelector('#change').noValidate = true")
    admin.fill("#count", "3")
    confirm(admin)
    assert alerts(admin) == ["A reason is needed: up to 1000 characters in one line."]
    expect(admin.locator("#why")).to_have_attribute("aria-invalid", "true")
    expect(admin.locator("#why")).to_be_focused()
    admin.fill("#why", 'spam <b>&"')
    admin.fill("#count", "4")
    confirm(admin)
    assert alerts(admin) == ["This is not the number of messages. Type 3 if these are the ones that you mean."]
    expect(admin.locator("#why")).to_have_value('spam <b>&"')
    assert state_of(mailbox, queue_ids) == before
    admin.fill("#count", "\N{FULLWIDTH DIGIT THREE}")  # as a Japanese keyboard types it
    confirm(admin)
    expect(admin.locator(".op-state")).to_have_text("Done")
    operation = operation_of(site, admin)
    assert (operation["outcomes"], operation["reason"], operation["actor"]) == ({"removed": 3}, 'spam <b>&"', "admin")
    assert [mailbox.queue_name(queue_id) for queue_id in queue_ids] == [None] * 3


def test_a_count_that_changed_meanwhile_shows_the_preview_anew_and_keeps_the_reason(
    admin: Page, site: Site, mailbox: Mailbox, complaints: Complaints
) -> None:
    complaints.expected.add(409)
    queue_ids = several(mailbox, 2)
    preview(admin, ("action", "delete"), ("sender", sender_of(mailbox)))
    queue_ids += several(mailbox, 1)
    before = state_of(mailbox, queue_ids)
    admin.fill("#why", "ticket 1")
    admin.fill("#count", "2")
    confirm(admin)
    assert alerts(admin) == ["Nothing was done: by now 3 messages fit. Look again, then confirm."]
    expect(admin.locator("h1")).to_have_text("Delete 3 messages?")
    expect(admin.locator("#why")).to_have_value("ticket 1")
    assert state_of(mailbox, queue_ids) == before
    admin.fill("#count", "3")
    confirm(admin)
    expect(admin.locator(".op-state")).to_have_text("Done")
    assert operation_of(site, admin)["outcomes"] == {"removed": 3}


def test_a_double_click_and_a_form_sent_again_make_one_operation(admin: Page, site: Site, mailbox: Mailbox) -> None:
    several(mailbox, 2)
    preview(admin, ("action", "hold"), ("sender", sender_of(mailbox)))
    fields = fields_of(admin, "#change")
    admin.locator("#change button").dblclick()
    admin.wait_for_url(re.compile("/operations/op-"))
    expect(admin.locator(".op-state")).to_have_text("Done")
    first = newest_operation(site)
    answer = send(admin, f"{site.address}/changes", fields)
    assert (answer.status, answer.headers["location"]) == (303, f"/operations/{first['operation_id']}")
    assert newest_operation(site) == first
    assert first["outcomes"] == {"held": 2}
    again = send(admin, f"{site.address}/changes", [("why", "another"), *fields])
    assert (again.status, "used for another request" in again.text()) == (409, True)


def test_a_form_without_what_a_preview_gives_does_nothing(admin: Page, site: Site, mailbox: Mailbox) -> None:
    (queue_id,) = several(mailbox, 1)
    before = state_of(mailbox, [queue_id])
    for fields in ([("expected_count", "1")], [("key", "k")], [("key", "k"), ("expected_count", "one")]):
        answer = send(admin, f"{site.address}/changes", [("action", "delete"), ("queue_ids", queue_id), *fields])
        assert (answer.status, "did not come from a preview" in answer.text()) == (400, True)
    assert state_of(mailbox, [queue_id]) == before


def test_one_message_needs_no_count_and_no_reason(admin: Page, site: Site, mailbox: Mailbox) -> None:
    queue_id = mailbox.deferred()
    preview(admin, ("action", "delete"), ("queue_ids", queue_id))
    expect(admin.locator("h1")).to_have_text("Delete 1 message?")
    expect(admin.locator("#count")).to_have_count(0)
    expect(admin.get_by_role("link", name="Back, and do nothing")).to_have_attribute("href", f"/messages/{queue_id}")
    confirm(admin)
    expect(admin.locator(".op-state")).to_have_text("Done")
    assert mailbox.queue_name(queue_id) is None


def test_what_was_not_done_stands_first_with_its_reason(admin: Page, site: Site, mailbox: Mailbox) -> None:
    queue_id, moving = mailbox.deferred(), mailbox.delivering(20)
    preview(admin, ("action", "hold"), ("queue_ids", f"{queue_id} {UNKNOWN_ID}"), ("queue_ids", moving))
    shown = admin.locator("main").inner_text()
    assert "1 of the chosen messages is not in the queue any more." in shown
    assert "1 message is being received or delivered at this moment." in shown
    confirm(admin)
    expect(admin.locator(".op-state")).to_have_text("Done")
    rows = admin.locator("#operation-not-done tbody tr")
    expect(rows).to_have_count(2)
    assert [each.split("\t")[1] for each in rows.all_inner_texts()] == [UNKNOWN_ID, moving]
    assert "not found" in rows.nth(0).inner_text()
    assert "in flight" in rows.nth(1).inner_text()
    assert operation_of(site, admin)["outcomes"] == {"held": 1, "not_found": 1, "in_flight": 1}
    admin.get_by_role("link", name="in flight").click()
    expect(admin.locator("#operation-results tbody tr")).to_have_count(1)
    with admin.expect_download() as started:
        admin.get_by_role("link", name="Save all as NDJSON").click()
    assert started.value.path().read_text().split("\n")[-2] == '{"complete":true,"results":3}'


def test_a_running_operation_shows_how_far_it_is_and_can_be_cancelled(
    admin: Page, site: Site, mailbox: Mailbox, complaints: Complaints, accessible: Callable[[Page], None]
) -> None:
    complaints.expected |= {400, 409}
    queue_ids = several(mailbox, 30)
    preview(admin, ("action", "flush"), ("queue_ids", " ".join(queue_ids)))
    admin.fill("#max_per_second", "fast")
    confirm(admin)
    assert alerts(admin) == ["A number above 0, at most 10,000; or leave it empty."]
    admin.fill("#max_per_second", "0,5")
    confirm(admin)
    expect(admin.locator(".op-state")).to_have_text("Running")
    expect(admin.locator("#progress-text")).to_have_text(re.compile("^[2-9] of 30"))  # without a reload
    expect(admin.locator("#operation-progress")).to_contain_text("per second")
    admin.screenshot(path=browsing.shots() / "operation-running.png", full_page=True)
    accessible(admin)
    address = admin.url
    admin.get_by_role("button", name="Cancel the rest").click()
    expect(admin.locator(".op-state")).to_have_text("Cancelled")
    expect(admin.get_by_role("button", name="Cancel the rest")).to_have_count(0)
    outcomes = operation_of(site, admin)["outcomes"]
    assert outcomes["scheduled"] + outcomes["skipped"] == 30
    assert outcomes["skipped"] > 0
    answer = send(admin, f"{address}/cancel", [])
    assert (answer.status, "The operation is over already." in answer.text()) == (409, True)


_HEAR = """
window.heard = [];
new MutationObserver(() => window.heard.push(document.getElementById('operation-said').textContent))
  .observe(document.getElementById('operation-said'), {childList: true, characterData: true, subtree: true});
"""


def test_the_end_of_an_operation_is_announced_and_not_each_of_its_steps(
    admin: Page, site: Site, mailbox: Mailbox
) -> None:
    queue_ids = several(mailbox, 8)
    preview(admin, ("action", "flush"), ("queue_ids", " ".join(queue_ids)))
    admin.fill("#max_per_second", "2")
    confirm(admin)
    expect(admin.locator(".op-state")).to_have_text("Running")
    said = admin.locator("#operation-said")
    expect(said).to_have_text("Running: scheduled")
    admin.evaluate(_HEAR)
    steps = re.compile("^[5-7] of 8")
    expect(admin.locator("#progress-text")).to_have_text(steps)
    expect(said).to_have_text("Done: scheduled 8")
    assert (said.get_attribute("role"), admin.evaluate("window.heard")) == ("status", ["Done: scheduled 8"])


def test_who_may_only_look_sees_no_buttons_and_what_they_forge_is_refused(
    page: Page, login: Login, site: Site, mailbox: Mailbox
) -> None:
    queue_ids = several(mailbox, 2)
    wanted = {"action": "delete", "selection": {"queue_ids": [queue_ids[0]]}}
    deleted = site.ask("POST", "/v1/operations", body=wanted, prefer="wait=20")
    operation = f"/operations/{deleted.json()['operation_id']}"
    mailbox.wait_for(queue_ids[0], None)
    before, last = state_of(mailbox, queue_ids), newest_operation(site)
    login(page, "viewer", operation)
    expect(page.locator("main form")).to_have_count(0)
    assert "the role admin is needed" in page.locator("main").inner_text()
    chosen = [("action", "hold"), ("queue_ids", queue_ids[1])]
    forged = {
        "/preview": chosen,
        "/changes": [*chosen, ("expected_count", "1"), ("key", "forged")],
        f"{operation}/cancel": [],
        f"{operation}/restore": [],
        f"/trash/{queue_ids[0]}/restore": [],
    }
    for address, fields in forged.items():
        answer = send(page, f"{site.address}{address}", fields)
        assert answer.status == 403, address
        assert '<form method="post" action="/changes"' not in answer.text()
    assert (state_of(mailbox, queue_ids), newest_operation(site)) == (before, last)


def test_an_operator_holds_and_undoes_that_but_does_not_delete(
    page: Page, login: Login, site: Site, mailbox: Mailbox
) -> None:
    queue_ids = several(mailbox, 2)
    login(page, "operator", "/operations")
    chosen = [("queue_ids", " ".join(queue_ids)), ("expected_count", "2"), ("key", mailbox.word)]
    delete = [*chosen, ("action", "delete"), ("why", "r"), ("count", "2")]
    assert send(page, f"{site.address}/changes", delete).status == 403
    assert [mailbox.queue_name(queue_id) for queue_id in queue_ids] == ["deferred"] * 2
    preview(page, ("action", "hold"), chosen[0])
    confirm(page)
    expect(page.locator(".op-state")).to_have_text("Done")
    assert [mailbox.queue_name(queue_id) for queue_id in queue_ids] == ["hold"] * 2
    page.get_by_role("button", name="Release the 2 that it held").click()
    expect(page.locator("h1")).to_have_text("Release 2 messages from hold?")
    confirm(page)
    expect(page.locator(".op-state")).to_have_text("Done")
    assert [mailbox.queue_name(queue_id) for queue_id in queue_ids] == ["deferred"] * 2


@pytest.mark.parametrize("token", [None, "wrong", "another's"])
def test_without_the_token_of_the_session_nothing_is_changed(
    admin: Page, new_page: Pages, login: Login, site: Site, mailbox: Mailbox, token: str | None
) -> None:
    if token == "another's":
        other = new_page()
        login(other, "admin", "/trash")
        token = str(other.evaluate("document.body.dataset.csrf"))
    (queue_id,) = several(mailbox, 1)
    last = newest_or_none(site)
    chosen = [("action", "delete"), ("queue_ids", queue_id), ("expected_count", "1"), ("key", mailbox.word)]
    for address in ("/preview", "/changes", "/operations/op-0000000000000000/cancel", f"/trash/{queue_id}/restore"):
        assert send(admin, f"{site.address}{address}", chosen, token).status == 403
    assert (mailbox.queue_name(queue_id), newest_or_none(site)) == ("deferred", last)


def test_ten_thousand_chosen_rows_are_previewed_and_done(page: Page, box: Sandbox, mailbox: Mailbox) -> None:
    queue_id = mailbox.deferred()
    others = [f"4zzzzzzz{number:06}z9" for number in range(MANY - 1)]
    # The services of tests have a small limit.
    with browsing.site_of(box, body_limit_bytes=str(Settings().body_limit_bytes)) as site:
        browsing.log_in(page, site, "admin", "/trash")
        chosen = [("queue_ids", each) for each in (queue_id, *others)]
        assert (
            "Put 10,000 messages on hold?"
            in send(page, f"{site.address}/preview", [("action", "hold"), *chosen]).text()
        )
        # In one field, as our own script sends them: Chromium takes long for a form of so many.
        preview(page, ("action", "hold"), ("queue_ids", " ".join([queue_id, *others])))
        expect(page.locator("h1")).to_have_text("Put 10,000 messages on hold?")
        assert "9,999 of the chosen messages are not in the queue any more." in page.locator("main").inner_text()
        confirm(page)
        expect(page.locator(".op-state")).to_have_text("Done", timeout=60_000)
        assert operation_of(site, page)["outcomes"] == {"held": 1, "not_found": MANY - 1}
    assert mailbox.queue_name(queue_id) == "hold"


def test_a_preview_of_nothing_says_so(admin: Page, site: Site, complaints: Complaints) -> None:
    complaints.expected.add(400)
    preview(admin, ("action", "delete"), ("sender", "nobody@nowhere.example"))
    assert "No message in the queue fits." in admin.locator("main").inner_text()
    expect(admin.locator("#change")).to_have_count(0)
    preview(admin, ("action", "delete"))
    assert alerts(admin) == ["No message was chosen. Choose rows, or all that match, then an action."]
    preview(admin, ("action", "delete"), ("min_age", "soon"))
    assert "a duration: 90s, 15m, 2h or 3d" in alerts(admin)[0]
    admin.goto(f"{site.address}/preview")
    assert admin.url == f"{site.address}/messages"


@pytest.mark.parametrize("width", [1280, 360])
@pytest.mark.parametrize("language", ["en", "ja"])
def test_previews_look_well(
    new_page: Pages, login: Login, site: Site, language: str, width: int, accessible: Callable[[Page], None]
) -> None:
    page = new_page(locale=language, viewport={"width": width, "height": 900})
    login(page, "admin", "/trash")
    preview(page, ("action", "delete"), ("everything", "true"))
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme)
        page.screenshot(path=browsing.shots() / f"preview-{language}-{width}-{scheme}.png", full_page=True)
    assert browsing.overflow(page) == 0
    assert browsing.scrolled(page) == []
    assert browsing.overlapping(page) == []
    accessible(page)
