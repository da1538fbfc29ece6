"""The table of messages and the page of one, in a browser, held against what the API says."""

import base64
import json
import re
from collections.abc import Callable
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit

import pytest
from playwright.sync_api import Download, Page, expect

from postqueue_api.sandbox import Sandbox, processes
from postqueue_api.sandbox.sites import REFUSING
from tests.dashboard import browsing
from tests.dashboard.browsing import Complaints, Site
from tests.dashboard.conftest import Pages
from tests.live import service as services
from tests.live.mailbox import Mailbox

Login = Callable[..., None]
PHONE = {"viewport": {"width": 360, "height": 740}, "color_scheme": "dark", "locale": "ja"}


def listed(page: Page) -> list[str]:
    """The queue IDs on the page, in their order."""
    found: list[str] = page.eval_on_selector_all("tr[data-queue-id]", "rows => rows.map(row => row.dataset.queueId)")
    return found


def api(site: Site, pairs: list[tuple[str, str]], page: Page | None = None) -> Any:
    """What the API finds for the same question; in the listing that a page was made from."""
    listing = [] if page is None else [("snapshot_id", str(page.get_attribute("body", "data-snapshot")))]
    return site.ask("GET", "/v1/messages?" + urlencode([*pairs, *listing, ("limit", "1000")])).json()


def keep_as_it_is(page: Page) -> None:
    """No live update comes between a page and what the API says of its listing."""
    page.route("**/v1/status", lambda route: route.abort())


def asked(page: Page) -> list[tuple[str, str]]:
    """The names and values in the address."""
    return parse_qsl(urlsplit(page.url).query, keep_blank_values=True)


def search(page: Page) -> None:
    with page.expect_navigation():
        page.locator("#search button").click()


def mine(mailbox: Mailbox) -> str:
    return f"m{mailbox.word}@sender-{mailbox.word}.example"


def several(site: Site, mailbox: Mailbox, count: int) -> list[str]:
    """Deferred messages of a sender whom no other test has, listed. Returns:  their queue IDs, as they are listed"""
    sent = {mailbox.deferred(sender=mine(mailbox)) for _ in range(count)}
    rows = site.ask("GET", f"/v1/messages?sender={mine(mailbox)}&limit=1000", cache_control="no-cache").json()
    return [each["queue_id"] for each in rows["messages"] if each["queue_id"] in sent]


def count_of(page: Page, text: str) -> None:
    expect(page.locator("#chosen")).to_have_text(text)


def choose(page: Page, *queue_ids: str) -> None:
    for queue_id in queue_ids:
        page.locator(f"input[value='{queue_id}']").check()
    page.locator("h1").click()
    page.evaluate("document.activeElement.blur()")


def test_each_search_field_finds_what_the_api_finds_and_is_all_that_is_in_the_address(
    page: Page, site: Site, login: Login, mailbox: Mailbox
) -> None:
    (returned,) = several(site, mailbox, 1)
    mailbox.postfix("postsuper", "-h", "-", stdin=f"{returned}\n".encode())
    mailbox.postfix("postsuper", "-e", "-", stdin=f"{returned}\n".encode())
    site.ask("GET", "/v1/queues", cache_control="no-cache")  # the pages may show a listing for half a minute
    keep_as_it_is(page)
    group = next(
        each["key"]
        for each in site.ask("GET", "/v1/groups?by=reason_group").json()["groups"]
        if "over quota" in each["key"]
    )
    fields = {
        "sender": "club@example.net",
        "sender_domain": "EXAMPLE.net",
        "recipient": "d@missing.invalid",
        "recipient_domain": "full.example",
        "reason": "421",
        "reason_group": group,
        "min_size": "10000",
        "max_size": "600",
        "min_age": "0s",
        "max_age": "2h",
    }
    login(page, "viewer", "/messages")
    for name, value in fields.items():
        page.goto(f"{site.address}/messages")
        page.evaluate("document.querySelector('#search details').open = true")
        page.fill(f"#search [name={name}]", f" {value} ")
        search(page)
        assert asked(page) == [(name, value)]
        everything = api(site, [], page)["total"]
        expected = api(site, [(name, value)], page)
        assert listed(page) == [each["queue_id"] for each in expected["messages"]][:50], name
        assert 0 < expected["total"] <= everything, name
        assert expected["total"] < everything or name.endswith("_age"), name
        assert page.input_value(f"#search [name={name}]") == value
    page.goto(f"{site.address}/messages?forced_expire=true")
    assert listed(page) == [returned]
    page.goto(f"{site.address}/messages?min_age=3d")
    expect(page.locator("#rows")).to_contain_text("No message fits.")


def test_several_queues_and_what_has_no_sender_can_be_searched_for(page: Page, site: Site, login: Login) -> None:
    keep_as_it_is(page)
    login(page, "viewer", "/messages")
    page.check("[name=queue_name][value=hold]")
    page.check("[name=queue_name][value=active]")
    search(page)
    assert asked(page) == [("queue_name", "active"), ("queue_name", "hold")]
    assert listed(page) == [each["queue_id"] for each in api(site, asked(page), page)["messages"]]
    page.goto(f"{site.address}/messages")
    page.locator("#search summary").click()
    page.check("[name=none][value=sender_domain]")
    search(page)
    assert asked(page) == [("sender_domain", "")]
    assert set(page.locator("td.address:nth-child(3)").all_inner_texts()) == {"MAILER-DAEMON"}
    expect(page.locator("[name=none][value=sender_domain]")).to_be_checked()


def test_a_click_on_a_head_sorts_and_another_turns_it_round(page: Page, site: Site, login: Login) -> None:
    keep_as_it_is(page)
    login(page, "viewer", "/messages?queue_name=deferred")
    expect(page.locator("th[aria-sort]")).to_have_text("Age")
    for head, sort in (("Size", "message_size"), ("Sender", "sender"), ("Recipients", "recipients"), ("Age", None)):
        for direction, sign in (("ascending", ""), ("descending", "-")):
            page.get_by_role("columnheader", name=head).get_by_role("link").click()
            field = f"{sign}{sort}" if sort else {"ascending": "arrival_time", "descending": "-arrival_time"}[direction]
            page.wait_for_url(re.compile(f"sort={field}$"))
            shown = direction if sort else {"ascending": "descending", "descending": "ascending"}[direction]
            expect(page.get_by_role("columnheader", name=head)).to_have_attribute("aria-sort", shown)
            expected = api(site, [("queue_name", "deferred"), ("sort", field)], page)
            assert listed(page) == [each["queue_id"] for each in expected["messages"]][:50]


def test_paging_shows_each_message_once_while_mail_moves(
    page: Page, site: Site, login: Login, mailbox: Mailbox
) -> None:
    queue_ids = several(site, mailbox, 5)
    login(page, "viewer", f"/messages?sender={mine(mailbox)}&limit=2")
    seen = listed(page)
    expect(page.locator("caption")).to_contain_text("1 to 2 of 5")
    for position in ("3 to 4 of 5", "5 to 5 of 5"):
        mailbox.postfix("postsuper", "-d", "-", stdin=f"{queue_ids[len(seen)]}\n".encode())
        several(site, mailbox, 1)
        page.get_by_role("link", name="Next page").click()
        expect(page.locator("caption")).to_contain_text(position)
        seen += listed(page)
    assert seen == queue_ids
    assert page.get_by_role("link", name="Next page").count() == 0
    expect(page.locator("#found")).to_contain_text("what came since is not in it")
    page.get_by_role("link", name="First page").click()
    page.wait_for_url(re.compile("limit=2$"))


def test_a_listing_that_is_gone_leads_to_the_first_page_with_a_word(
    page: Page, site: Site, login: Login, mailbox: Mailbox
) -> None:
    queue_ids = several(site, mailbox, 3)
    login(page, "viewer", f"/messages?sender={mine(mailbox)}&limit=2")
    following = page.get_by_role("link", name="Next page").get_attribute("href")
    assert following is not None
    cursor = dict(parse_qsl(urlsplit(following).query))["next"]
    snapshot, *_ = json.loads(base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4))[16:])
    (another,) = several(site, mailbox, 1)
    (site.service.state_directory / "snapshots" / f"{snapshot}.sqlite").unlink()
    page.goto(f"{site.address}{following}")
    expect(page.locator("main [role=status]").first).to_contain_text("is not kept any more")
    # Of those that came within one second, which is listed first is Postfix's to say.
    found = [each["queue_id"] for each in api(site, [("sender", mine(mailbox))], page)["messages"]]
    assert set(found) == {*queue_ids, another}
    assert listed(page) == found[:2]


def test_a_link_shows_a_colleague_the_same_with_the_buttons_of_the_role(
    new_page: Pages, site: Site, login: Login, mailbox: Mailbox
) -> None:
    queue_ids = several(site, mailbox, 2)
    mine_, theirs, third = new_page(), new_page(), new_page()
    login(mine_, "operator", "/messages")
    mine_.fill("#sender", mine(mailbox))
    mine_.fill("#reason", "refused")
    search(mine_)
    address = mine_.url.removeprefix(site.address)
    assert mine_.locator("#choosing button[name=action]").all_inner_texts() == ["Flush", "Hold", "Release", "Requeue"]
    login(theirs, "viewer", address)
    assert listed(mine_) == listed(theirs) == queue_ids
    assert theirs.locator("input[name=queue_ids], button[name=action]").count() == 0
    expect(theirs.locator("main")).to_contain_text("To change messages, the role operator is needed.")
    login(third, "admin", address)
    assert third.locator("#choosing button[name=action]").all_inner_texts()[4:] == ["Expire", "Delete"]


def test_chosen_rows_survive_a_live_update_and_paging_and_reach_the_preview(
    page: Page, site: Site, login: Login, mailbox: Mailbox
) -> None:
    queue_ids = several(site, mailbox, 3)
    login(page, "operator", f"/messages?sender={mine(mailbox)}&limit=4")
    count_of(page, "Chosen: 0")
    expect(page.locator("#choosing button[value=hold]")).to_be_disabled()
    choose(page, *queue_ids[:2])
    count_of(page, "Chosen: 2")
    page.fill("#reason", "typed, not sent")
    page.evaluate("window.stayed = true")
    queue_ids += several(site, mailbox, 2)
    browsing.until(page, page.locator(f"tr[data-queue-id='{queue_ids[3]}']").is_visible)
    expect(page.locator("#found-title")).to_have_text("5 messages match")
    assert page.evaluate("window.stayed")
    assert page.input_value("#reason") == "typed, not sent"
    assert [page.locator(f"input[value='{each}']").is_checked() for each in queue_ids[:4]] == [True, True, False, False]
    page.get_by_role("link", name="Next page").click()
    count_of(page, "Chosen: 2 (2 of them not on this page)")
    choose(page, queue_ids[4])
    count_of(page, "Chosen: 3 (2 of them not on this page)")
    page.locator("#choosing button[value=hold]").click()
    expect(page.locator("h1")).to_have_text("Put 3 messages on hold?")
    assert {mailbox.queue_name(each) for each in queue_ids} == {"deferred"}
    page.locator("#change button").click()
    page.wait_for_url(re.compile("/operations/op-"))
    expect(page.locator(".op-state")).to_have_text("Done")
    assert [mailbox.queue_name(each) for each in queue_ids] == ["hold", "hold", "deferred", "deferred", "hold"]
    page.goto(f"{site.address}/messages?sender={mine(mailbox)}&limit=4")
    count_of(page, "Chosen: 0")


def test_rows_all_of_a_page_and_all_that_match_are_three_ways(
    page: Page, site: Site, login: Login, mailbox: Mailbox
) -> None:
    queue_ids = several(site, mailbox, 3)
    address = f"{site.address}/messages?sender={mine(mailbox)}&limit=2"
    login(page, "admin", f"/messages?sender={mine(mailbox)}&limit=2")
    page.get_by_label("Choose all 2 on this page").check()
    count_of(page, "Chosen: 2")
    page.get_by_label("Choose all 2 on this page").uncheck()
    count_of(page, "Chosen: 0")
    page.get_by_label("Choose all 2 on this page").check()
    page.locator(f"input[value='{queue_ids[0]}']").uncheck()
    assert page.evaluate("document.getElementById('choose-page').indeterminate")
    page.get_by_label("Choose all 2 on this page").check()
    page.locator("#choosing button[value=delete]").click()
    expect(page.locator("h1")).to_have_text("Delete 2 messages?")
    page.goto(address)
    page.get_by_role("button", name="Choose none").click()
    page.get_by_text("All 3 that match").click()
    page.locator("details.bar button[value=delete]").click()
    expect(page.locator("h1")).to_have_text("Delete 3 messages?")
    page.get_by_role("link", name="Back, and do nothing").click()
    assert page.url == address
    assert [mailbox.queue_name(each) for each in queue_ids] == ["deferred"] * 3


def test_everything_in_the_queue_is_called_that(page: Page, site: Site, login: Login) -> None:
    login(page, "operator", "/messages")
    total = api(site, [])["total"]
    page.get_by_text(f"All {total} in the queue").click()
    page.locator("details.bar button[value=hold]").click()
    expect(page.locator("main")).to_contain_text("Everything in the queue")


def test_all_of_it_works_without_our_script(new_page: Pages, site: Site, login: Login, mailbox: Mailbox) -> None:
    queue_ids = several(site, mailbox, 3)
    page = new_page(java_script_enabled=False)
    login(page, "operator", "/messages")
    page.fill("#sender", mine(mailbox))
    search(page)
    assert asked(page) == [("sender", mine(mailbox))]
    page.get_by_role("link", name="Choose all 3 on this page").click()
    page.locator(f"input[value='{queue_ids[1]}']").uncheck()
    page.locator("#choosing button[value=hold]").click()
    expect(page.locator("h1")).to_have_text("Put 2 messages on hold?")
    page.goto(f"{site.address}/messages?sender={mine(mailbox)}")
    page.get_by_text("All 3 that match").click()
    page.locator("details.bar button[value=hold]").click()
    expect(page.locator("h1")).to_have_text("Put 3 messages on hold?")


def test_columns_are_chosen_and_kept(page: Page, site: Site, login: Login) -> None:
    login(page, "viewer", "/messages?queue_name=deferred&sort=-message_size")
    page.get_by_text("Columns", exact=True).click()
    page.locator("[name=column][value=reason]").uncheck()
    page.locator("[name=column][value=next_attempt_time]").check()
    page.locator(".column-choice button").click()
    heads = ["Queue ID", "Queue", "Sender", "Recipients", "Age", "Next attempt", "Size"]
    assert page.locator("thead th").all_inner_texts() == heads
    assert asked(page) == [("queue_name", "deferred"), ("sort", "-message_size")]
    page.goto(f"{site.address}/messages")
    assert page.locator("thead th").all_inner_texts() == heads


def test_the_keyboard_goes_through_the_rows_chooses_and_opens(
    page: Page, site: Site, login: Login, mailbox: Mailbox
) -> None:
    queue_ids = several(site, mailbox, 3)
    login(page, "operator", f"/messages?sender={mine(mailbox)}")
    for key in "jjkjx":
        page.keyboard.press(key)
    expect(page.locator("tr[aria-current=true]")).to_have_attribute("data-queue-id", queue_ids[1])
    count_of(page, "Chosen: 1")
    expect(page.locator(f"input[value='{queue_ids[1]}']")).to_be_checked()
    page.keyboard.press("/")
    expect(page.locator("#sender")).to_be_focused()
    page.keyboard.type("jx")
    assert "jx" in page.input_value("#sender")
    count_of(page, "Chosen: 1")
    page.keyboard.press("Tab")
    page.evaluate("document.activeElement.blur()")
    page.keyboard.press("j")
    page.keyboard.press("Enter")
    page.wait_for_url(re.compile(f"/messages/{queue_ids[2]}$"))


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("min_age", "1x", "a duration: 90s, 15m, 2h or 3d"),
        ("min_size", "-1", "a whole number"),
        ("reason", "x" * 1001, "1000"),
    ],
)
def test_wrong_input_is_told_at_its_field_and_kept(
    page: Page, site: Site, login: Login, complaints: Complaints, name: str, value: str, said: str
) -> None:
    complaints.expected.add(400)
    login(page, "viewer", "/messages")
    page.fill("#sender", "Anna <b>&\"'@example.com")
    page.evaluate("document.querySelector('#search details').open = true")
    page.fill(f"#search [name={name}]", value)
    search(page)
    field = page.locator(f"#search [name={name}]")
    expect(field).to_have_attribute("aria-invalid", "true")
    expect(field).to_be_visible()
    expect(page.locator(f"#{field.get_attribute('aria-describedby')}")).to_contain_text(said)
    assert (field.input_value(), page.input_value("#sender")) == (value, "Anna <b>&\"'@example.com")


def test_an_address_that_names_no_field_says_so(page: Page, site: Site, login: Login, complaints: Complaints) -> None:
    complaints.expected.add(400)
    login(page, "viewer", "/messages?sendr=anna")
    expect(page.locator("main [role=alert]")).to_contain_text("sendr is not known here.")
    page.goto(f"{site.address}/messages?next=nonsense")
    expect(page.locator("main [role=alert]")).to_contain_text("next is not a cursor of ours.")
    page.get_by_role("link", name="First page").click()
    assert listed(page)


def test_with_postfix_down_the_page_shows_what_lies_there_and_says_so(
    page: Page, quiet: Site, quiet_box: Sandbox
) -> None:
    mailbox = Mailbox(quiet_box)
    (queue_id,) = several(quiet, mailbox, 1)
    browsing.enter(page, quiet, "viewer")
    page.goto(f"{quiet.address}/messages?sender={mine(mailbox)}")
    assert listed(page) == [queue_id]
    said, found = "Postfix is not running", page.locator("#found")
    quiet_box.stop_postfix()
    try:
        browsing.until(page, lambda: said in found.inner_text())
        assert listed(page) == [queue_id]
    finally:
        quiet_box.start_postfix()
    browsing.until(page, lambda: said not in found.inner_text())


def test_a_listing_that_broke_off_says_so(new_page: Pages, box: Sandbox) -> None:
    with services.place() as directory:
        commands = services.watched_commands(directory / "commands")
        real = processes.command("postqueue")
        said = "postqueue: fatal: malformed showq server response"
        (commands / "postqueue").write_text(f'#!/bin/sh\n{real} "$@" | head -n 3\necho "{said}" >&2\nexit 69\n')
        with browsing.site_of(box, command_directory=str(commands)) as site:
            page = new_page()
            browsing.log_in(page, site, "viewer", "/messages")
            expect(page.locator("#found .note")).to_contain_text("The listing broke off, so messages may be missing.")
            assert len(listed(page)) == 3


def test_one_message_says_why_it_waits_and_what_it_says_to_who_may_read_it(
    new_page: Pages, site: Site, login: Login, mailbox: Mailbox
) -> None:
    queue_id = mailbox.deferred(
        f"bert@{REFUSING}", "d@missing.invalid", mail_options=["RET=HDRS", f"ENVID=env-{mailbox.word}"]
    )
    reader, viewer = new_page(), new_page()
    login(reader, "operator-content", f"/messages/{queue_id}")
    login(viewer, "viewer", f"/messages/{queue_id}")
    for page in (reader, viewer):
        waiting = page.locator("#waiting")
        for part in (f"bert@{REFUSING}", "d@missing.invalid", "Connection refused", "Host not found", "Tried next"):
            expect(waiting).to_contain_text(part)
        expect(page.locator("#facts")).to_contain_text(f"ENVID=env-{mailbox.word}")
    expect(reader.locator("pre.mail")).to_contain_text(f"the last line, {mailbox.word}")
    expect(reader.locator("section:has(> #mail)")).to_contain_text(f"Test {mailbox.word}")
    expect(viewer.locator("main")).to_contain_text("To read what it says, the role content is needed.")
    assert mailbox.word not in viewer.locator("main").inner_text().replace(f"env-{mailbox.word}", "")
    assert viewer.locator("pre, a[download], #change").count() == 0
    with reader.expect_download() as saved:
        reader.get_by_role("link", name="Save the raw message").click()
    download: Download = saved.value
    assert download.suggested_filename == f"{queue_id}.eml"
    assert download.path().read_bytes() == mailbox.stored(queue_id)


def test_the_way_back_leads_to_the_search_that_one_came_from_and_nowhere_else(
    page: Page, site: Site, login: Login
) -> None:
    login(page, "viewer", "/messages?queue_name=deferred")
    page.locator("tr[data-queue-id] a").first.click()
    page.wait_for_url("**/messages/*")
    expect(page.locator(".up a")).to_have_attribute("href", f"{site.address}/messages?queue_name=deferred")
    page.goto(page.url, referer="http://evil.test/messages?queue_name=hold")
    expect(page.locator(".up a")).to_have_attribute("href", "/messages")


def test_html_is_shown_as_text_and_attachments_by_name_and_size(page: Page, site: Site, login: Login) -> None:
    (letter,) = api(site, [("sender", "bounces+0@example.net")])["messages"]
    login(page, "viewer-content", f"/messages/{letter['queue_id']}")
    html = page.locator(".part-of-mail").nth(1)
    expect(html).to_contain_text("HTML, shown as its source")
    expect(html.locator("pre")).to_contain_text("<h1>Spring sale</h1>")
    assert page.locator("pre h1, pre b").count() == 0
    (drawings,) = api(site, [("sender", "tanaka@example.org"), ("min_size", "100000")])["messages"]
    page.goto(f"{site.address}/messages/{drawings['queue_id']}")
    rows = page.locator("[aria-labelledby=attachments] tbody tr")
    assert [row.split("\t") for row in rows.all_inner_texts()] == [
        ["図面.png", "image/png", "250\N{NO-BREAK SPACE}kB"],
        ["drawings.zip", "application/zip", "110\N{NO-BREAK SPACE}kB"],
    ]


def test_one_message_is_held_and_released_from_its_page(page: Page, site: Site, login: Login, mailbox: Mailbox) -> None:
    queue_id = mailbox.deferred()
    login(page, "operator", f"/messages/{queue_id}")
    expect(page.locator("main")).to_contain_text("To delete it or return it, the role admin is needed.")
    page.fill("#why", "ticket 7")
    page.get_by_role("button", name="Hold").click()
    expect(page.locator("main .note").first).to_contain_text("Hold: held.")
    expect(page.locator("#waiting")).to_contain_text("not before it is released")
    assert mailbox.queue_name(queue_id) == "hold"
    operation = site.ask("GET", "/v1/operations?limit=1").json()["operations"][0]
    assert (operation["action"], operation["actor"], operation["reason"]) == ("hold", "operator", "ticket 7")
    page.get_by_role("button", name="Release").click()
    expect(page.locator("main .note").first).to_contain_text("Release: released.")
    assert mailbox.queue_name(queue_id) == "deferred"


def test_a_message_that_is_gone_says_so_and_where_its_copy_is(
    page: Page, site: Site, login: Login, mailbox: Mailbox, complaints: Complaints
) -> None:
    complaints.expected.add(404)
    queue_id = mailbox.deferred()
    login(page, "admin", f"/messages/{queue_id}")
    page.get_by_role("button", name="Delete").click()
    expect(page.locator("h1")).to_have_text("Delete 1 message?")
    page.locator("#change button").click()
    page.wait_for_url(re.compile("/operations/op-"))
    expect(page.locator(".op-state")).to_have_text("Done")
    page.goto(f"{site.address}/messages/{queue_id}")
    expect(page.locator("h1")).to_have_text(f"Message {queue_id} is not in the queue")
    expect(page.locator("main")).to_contain_text("a copy is in the trash")
    page.get_by_role("link", name="Who deleted it").click()
    page.wait_for_url(re.compile("/operations/op-"))
    page.goto(f"{site.address}/messages/4ZZZZZ0ZZZZZZZZ")
    expect(page.locator("main")).to_contain_text("there never was one of this ID")


@pytest.mark.parametrize("who", ["admin-content", "viewer"])
def test_the_pages_are_for_everyone(
    new_page: Pages, site: Site, login: Login, accessible: Callable[[Page], None], who: str
) -> None:
    (mixed,) = [
        each for each in api(site, [("sender", "club@example.net")])["messages"] if len(each["recipients"]) == 5
    ]
    addresses = {"messages": "/messages?queue_name=deferred", "message": f"/messages/{mixed['queue_id']}"}
    desk, phone = new_page(), new_page(**PHONE)
    for page, kind in ((desk, "desk"), (phone, "phone")):
        login(page, who, "/messages")
        for name, address in addresses.items():
            page.goto(f"{site.address}{address}")
            assert browsing.overflow(page) == 0
            if who == "admin-content":
                page.screenshot(path=browsing.shots() / f"{name}-{kind}.png", full_page=kind == "phone")
            accessible(page)
    desk.set_viewport_size({"width": 640, "height": 450})  # 200 % of 1280
    desk.goto(f"{site.address}{addresses['messages']}")
    assert browsing.overflow(desk) == 0
