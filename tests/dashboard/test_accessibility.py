"""For everybody: axe on every page in both themes, a phone's width, 200 % zoom, the keyboard, reduced motion."""

import re
from collections.abc import Callable

import pytest
from playwright.sync_api import Page, expect

from postqueue_api.sandbox import Sandbox
from postqueue_api.sandbox.sites import REFUSING
from tests.dashboard import browsing
from tests.dashboard.browsing import Complaints, Site
from tests.dashboard.changing import preview
from tests.dashboard.conftest import Pages
from tests.live.mailbox import Mailbox
from tests.live.test_operations import UNKNOWN_ID

LONG = "a" * 60
SENDER = f"{LONG}@{LONG}.example.com"


@pytest.fixture(scope="module")
def queue_id(box: Sandbox) -> str:
    """A message whose addresses have no place to break."""
    return Mailbox(box).deferred(f"{LONG}@{REFUSING}", *(f"r{each}@{REFUSING}" for each in range(80)), sender=SENDER)


@pytest.fixture(scope="module")
def operation_id(site: Site, queue_id: str) -> str:
    """An operation that did something, and something not."""
    body = {"action": "hold", "selection": {"queue_ids": [queue_id, UNKNOWN_ID]}, "reason": LONG * 3}
    return str(site.ask("POST", "/v1/operations", body=body, prefer="wait=20").json()["operation_id"])


@pytest.fixture(scope="module")
def deleted(site: Site, box: Sandbox) -> str:
    """An operation that deleted a message whose addresses have no place to break."""
    queue_id = Mailbox(box).deferred(f"{LONG}@{REFUSING}", sender=SENDER)
    body = {"action": "delete", "selection": {"queue_ids": [queue_id]}, "reason": LONG * 3}
    return str(site.ask("POST", "/v1/operations", body=body, prefer="wait=20").json()["operation_id"])


PAGES = ("/login", "/", "/messages", "/messages?min_age=nonsense", "/messages/{queue_id}", "/operations",
         "/operations/{operation_id}", "/operations/{deleted}/restore", "/trash", "/nothing-here", "preview",
         "help")  # fmt: skip


TABLES = ("/messages", "/operations", "/operations/{operation_id}", "/operations/{deleted}", "/trash",
          "/operations/{deleted}/restore")  # fmt: skip


def visit(page: Page, site: Site, name: str, **names: str) -> None:
    """Open one of PAGES as somebody who is logged in, but for the login itself."""
    if name == "preview":
        page.goto(f"{site.address}/messages?sender={SENDER}")
        page.locator("tr[data-queue-id] input[type=checkbox]").first.check()
        page.locator("#choosing button[value=delete]").click()
        page.wait_for_url(f"{site.address}/preview")
    elif name == "help":
        page.goto(f"{site.address}/trash")
        page.keyboard.press("?")
        page.locator("#help").wait_for()
    else:
        page.goto(site.address + name.format(**names))


@pytest.fixture
def see(
    new_page: Pages, site: Site, complaints: Complaints, queue_id: str, operation_id: str, deleted: str
) -> Callable[..., Page]:
    """Opens one of PAGES in a browser with these options: `see("/trash", locale="ja")`."""
    complaints.expected |= {400, 404}

    def open_(name: str, **options: object) -> Page:
        page = new_page(**options)
        if name != "/login":
            browsing.enter(page, site, "admin-content")
        visit(page, site, name, queue_id=queue_id, operation_id=operation_id, deleted=deleted)
        return page

    return open_


@pytest.mark.parametrize("name", PAGES)
def test_axe_finds_nothing_serious_in_either_theme(
    see: Callable[..., Page], accessible: Callable[[Page], None], name: str
) -> None:
    page = see(name)
    accessible(page)
    assert page.locator("h1").count() == 1
    assert page.locator("main").count() == 1
    assert page.title().endswith(" · postqueue")


@pytest.mark.parametrize("language", ["en", "ja"])
@pytest.mark.parametrize("name", PAGES)
def test_on_a_phone_nothing_is_wider_than_the_page(see: Callable[..., Page], name: str, language: str) -> None:
    page = see(name, viewport={"width": 360, "height": 740}, locale=language)
    assert page.get_attribute("html", "lang") == language
    assert browsing.overflow(page) <= 0, widest(page)


@pytest.mark.parametrize("name", ["/", "/messages", "/messages/{queue_id}", "preview"])
def test_at_twice_the_size_everything_is_still_there(see: Callable[..., Page], name: str) -> None:
    # What a browser does at 200 % of 1280 pixels.
    page = see(name, viewport={"width": 640, "height": 450}, device_scale_factor=2)
    assert browsing.overflow(page) <= 0, widest(page)
    assert page.get_by_role("button", name="Log out").is_visible()


@pytest.mark.parametrize("language", ["en", "ja"])
@pytest.mark.parametrize("width", [360, 1280])
@pytest.mark.parametrize("name", [*TABLES, "/messages?sender=" + SENDER, "preview"])
def test_all_of_a_table_can_be_seen_and_nothing_lies_upon_anything(
    see: Callable[..., Page], name: str, width: int, language: str
) -> None:
    page = see(name, viewport={"width": width, "height": 740}, locale=language)
    assert page.locator("main tbody tr").count() > 0
    assert browsing.scrolled(page) == []
    assert browsing.overlapping(page) == []
    assert browsing.outside(page, "main tbody :is(th, td, button, a)") == []
    sizes = "all => all.map(each => [each.offsetWidth, each.parentElement.offsetWidth, each.offsetHeight])"
    for caption, table, height in page.locator("main caption").evaluate_all(sizes):
        assert (caption, height < 100) == (table, True)
    if width == 360:
        cells = page.locator(".stack tbody td").evaluate_all("all => all.map(each => getComputedStyle(each).textAlign)")
        assert set(cells) <= {"left"}, "labels stand one below the other"


def test_all_columns_of_the_messages_have_a_place_on_a_phone(see: Callable[..., Page], site: Site) -> None:
    page = see("/messages", viewport={"width": 360, "height": 740})
    page.get_by_text("Columns", exact=True).click()
    for box in page.locator("[name=column]").all():
        box.check()
    page.locator(".column-choice button").click()
    page.wait_for_url(f"{site.address}/messages")
    assert page.locator("thead th").count() == 10
    assert browsing.overlapping(page) == []
    assert browsing.overflow(page) == 0


@pytest.mark.parametrize("scripts", [True, False])
def test_on_a_phone_the_search_is_folded_away_until_it_is_wanted(see: Callable[..., Page], scripts: bool) -> None:
    page = see("/messages", viewport={"width": 360, "height": 740}, java_script_enabled=scripts)
    first = page.locator("tr[data-queue-id]").first.bounding_box()
    assert first is not None
    assert first["y"] + 60 < 740, "the first message is on the first screen"
    expect(page.locator("#search")).to_be_hidden()
    page.get_by_role("link", name="Search").click()
    expect(page.locator("#search")).to_be_visible()
    expect(page.locator("#sender")).to_be_focused()
    page.keyboard.type(SENDER)
    page.keyboard.press("Enter")
    page.wait_for_url("**/messages?sender=*")
    expect(page.locator("#search")).to_be_visible()


def test_the_search_key_unfolds_the_search_of_a_phone(see: Callable[..., Page]) -> None:
    page = see("/messages", viewport={"width": 360, "height": 740})
    page.keyboard.press("/")
    expect(page.locator("#sender")).to_be_focused()
    page.keyboard.type("j")
    assert page.input_value("#sender") == "j"


def widest(page: Page) -> list[str]:
    """What sticks out, for the message of a failure."""
    return page.evaluate(  # type: ignore[no-any-return]
        "[...document.querySelectorAll('main *')].filter(each => !each.parentElement.closest('.scroll') &&"
        " each.getBoundingClientRect().right > document.documentElement.clientWidth + 1)"
        ".slice(0, 5).map(each => each.outerHTML.slice(0, 120))"
    )


def focused(page: Page) -> str:
    return str(page.evaluate("document.activeElement.outerHTML.slice(0, 200)"))


def test_the_focus_is_always_seen_and_the_first_stop_leads_to_the_content(see: Callable[..., Page]) -> None:
    page = see("/messages")
    page.keyboard.press("Tab")
    assert "#main" in focused(page)
    assert page.locator(".skip").bounding_box()["x"] >= 0  # type: ignore[index]
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.id") == "main"
    unseen = []
    for _ in range(30):
        page.keyboard.press("Tab")
        style = page.evaluate(
            "(() => { const s = getComputedStyle(document.activeElement); return [s.outlineStyle, s.outlineWidth] })()"
        )
        if style[0] == "none" or style[1] == "0px":
            unseen.append(focused(page))
    assert unseen == []


def current(page: Page) -> str | None:
    return page.evaluate("document.querySelector('tr[aria-current=true]')?.dataset.queueId ?? null")  # type: ignore[no-any-return]


def test_rows_are_walked_chosen_and_opened_with_keys(see: Callable[..., Page], site: Site) -> None:
    page = see("/messages")
    ids = page.locator("tr[data-queue-id]").evaluate_all("rows => rows.map(row => row.dataset.queueId)")
    for key, expected in (("j", 0), ("j", 1), ("j", 2), ("k", 1), ("k", 0), ("k", 0), ("j", 1)):
        page.keyboard.press(key)
        assert current(page) == ids[expected]
    box = page.locator(f'tr[data-queue-id="{ids[1]}"] input[type=checkbox]')
    page.keyboard.press("x")
    assert box.is_checked()
    page.keyboard.press("x")
    assert not box.is_checked()
    page.keyboard.press("Enter")
    page.wait_for_url(f"{site.address}/messages/{ids[1]}*")


def test_rows_of_two_tables_that_name_the_same_message_are_walked_one_after_the_other(see: Callable[..., Page]) -> None:
    page = see("/operations/{operation_id}")
    ids = page.locator("tr[data-queue-id]").evaluate_all("rows => rows.map(row => row.dataset.queueId)")
    assert ids.count(UNKNOWN_ID) == 2
    walked = []
    for key in "jjj":
        page.keyboard.press(key)
        walked.append(current(page))
        assert page.locator("tr[aria-current=true]").count() == 1
        assert page.evaluate("document.activeElement.closest('tr').getAttribute('aria-current')") == "true"
    assert walked == ids
    page.keyboard.press("k")
    assert page.locator("#operation-results tr[aria-current=true]").count() == 1


def test_a_row_without_a_link_gets_the_focus_itself(see: Callable[..., Page], site: Site, box: Sandbox) -> None:
    queue_id = Mailbox(box).deferred()
    assert site.ask("DELETE", f"/v1/messages/{queue_id}").status == 200
    page = see("/trash")
    page.keyboard.press("j")
    assert page.evaluate("document.activeElement.dataset.queueId") == current(page) == queue_id
    assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"
    page.keyboard.press("Enter")
    assert page.url == f"{site.address}/trash", "nothing is restored by a key too many"


@pytest.mark.parametrize("name", ["/", "/operations", "/messages/{queue_id}", "preview"])
def test_the_search_key_leads_to_the_search_of_messages_where_there_is_none(
    see: Callable[..., Page], site: Site, name: str
) -> None:
    page = see(name)
    page.keyboard.press("/")
    page.wait_for_url(f"{site.address}/messages#sender")
    expect(page.locator("#sender")).to_be_focused()


def test_keys_lead_to_the_pages_to_the_search_and_to_the_help(see: Callable[..., Page], site: Site) -> None:
    page = see("/")
    for key, address in (("m", "/messages"), ("t", "/trash"), ("h", "/operations"), ("o", "/")):
        page.keyboard.press("g")
        page.keyboard.press(key)
        page.wait_for_url(site.address + address)
    page.goto(f"{site.address}/messages")
    page.keyboard.press("/")
    assert page.evaluate("document.activeElement.closest('form').id") == "search"
    page.keyboard.type("gjx?/")
    assert page.evaluate("document.activeElement.value") == "gjx?/", "none while somebody types"
    assert current(page) is None
    page.evaluate("document.activeElement.blur()")
    page.keyboard.press("?")
    assert page.locator("#help").is_visible()
    page.keyboard.press("j")
    assert current(page) is None, "none behind the help"
    page.keyboard.press("Escape")
    assert not page.locator("#help").is_visible()


def test_who_likes_no_motion_gets_none(see: Callable[..., Page]) -> None:
    page = see("/", reduced_motion="reduce")
    moving = page.evaluate(
        "[...document.querySelectorAll('*')].filter(each => { const s = getComputedStyle(each);"
        " return s.animationName !== 'none' || parseFloat(s.transitionDuration) > 0.01 })"
        ".map(each => each.outerHTML.slice(0, 100))"
    )
    assert moving == []


@pytest.mark.parametrize("system", ["light", "dark"])
def test_colours_are_those_of_the_system_until_somebody_chooses(
    see: Callable[..., Page], site: Site, system: str
) -> None:
    page = see("/trash", color_scheme=system)
    ground = "getComputedStyle(document.body).backgroundColor"
    at_first = page.evaluate(ground)
    other = "Dark" if system == "light" else "Light"
    page.get_by_role("button", name=other, exact=True).click()
    page.wait_for_url(f"{site.address}/trash")
    assert page.get_attribute("html", "data-theme") == other.lower()
    assert page.evaluate(ground) != at_first
    page.reload()
    assert page.evaluate(ground) != at_first
    page.get_by_role("button", name="Auto", exact=True).click()
    page.wait_for_url(f"{site.address}/trash")
    expect(page.locator("html")).to_have_attribute("data-theme", "auto")
    assert page.evaluate(ground) == at_first


def test_the_language_is_that_of_the_browser_until_somebody_chooses(see: Callable[..., Page], site: Site) -> None:
    page = see("/messages?sort=-message_size", locale="ja-JP")
    assert page.locator("h1").inner_text() == "メッセージ"
    page.get_by_role("link", name="English").click()
    page.wait_for_url(re.compile("lang=en"))
    assert "sort=-message_size" in page.url
    assert page.locator("h1").inner_text() == "Messages"
    page.goto(f"{site.address}/trash")
    assert page.get_attribute("html", "lang") == "en", "it is remembered"


@pytest.mark.parametrize("scripts", [True, False])
def test_other_colours_and_words_leave_a_preview_as_it_was_with_all_that_was_typed(
    see: Callable[..., Page], site: Site, scripts: bool
) -> None:
    page = see("/messages?sender=" + SENDER, java_script_enabled=scripts)
    page.get_by_text(re.compile("that match")).click()
    page.locator("details.bar button[value=delete]").click()
    page.wait_for_url(f"{site.address}/preview")
    title = page.locator("h1").inner_text()
    page.fill("#why", "half a reason")
    page.locator("[name=no_copy]").check()
    page.get_by_role("button", name="Dark", exact=True).click()
    expect(page.locator("html")).to_have_attribute("data-theme", "dark")
    page.get_by_role("button", name="日本語").click()
    expect(page.locator("html")).to_have_attribute("lang", "ja")
    page.get_by_role("button", name="English").click()
    expect(page.locator("html")).to_have_attribute("lang", "en")
    assert page.get_attribute("html", "data-theme") == "dark"
    assert page.locator("h1").inner_text() == title
    assert page.locator(".conditions").inner_text() == f"Sender {SENDER}"
    assert (page.input_value("#why"), page.locator("[name=no_copy]").is_checked()) == ("half a reason", True)
    expect(page.get_by_role("link", name="Back, and do nothing")).to_have_attribute(
        "href", f"/messages?sender={SENDER}"
    )
    page.goto(f"{site.address}/trash")
    assert (page.get_attribute("html", "data-theme"), page.get_attribute("html", "lang")) == ("dark", "en")


def test_enter_in_a_field_of_a_preview_does_what_its_button_says(
    see: Callable[..., Page], site: Site, box: Sandbox
) -> None:
    queue_id = Mailbox(box).deferred()
    page = see("/trash")
    preview(page, ("action", "hold"), ("queue_ids", queue_id))
    page.focus("#why")
    page.keyboard.press("Enter")
    page.wait_for_url(f"{site.address}/operations/op-*")


def test_everything_works_without_a_script(new_page: Pages, site: Site) -> None:
    page = new_page(java_script_enabled=False)
    browsing.log_in(page, site, "operator")
    page.get_by_role("link", name="Messages").click()
    page.wait_for_url(f"{site.address}/messages")
    assert page.locator("tr[data-queue-id]").count() > 10
    page.locator("tr[data-queue-id] a").first.click()
    page.wait_for_url(f"{site.address}/messages/*")
    page.get_by_role("button", name="Log out").click()
    page.wait_for_url(f"{site.address}/login?notice=logged_out")


def test_the_first_load_is_below_sixty_kilobytes_and_nothing_comes_from_elsewhere(new_page: Pages, site: Site) -> None:
    page = new_page()
    browsing.log_in(page, site, "admin-content")
    fresh = page.context.new_page()
    loaded: dict[str, int] = {}
    fresh.on("response", lambda answer: loaded.__setitem__(answer.url, len(answer.body())))
    client = page.context.new_cdp_session(fresh)
    client.send("Network.setCacheDisabled", {"cacheDisabled": True})
    fresh.goto(f"{site.address}/")
    fresh.wait_for_load_state("networkidle")
    first = {url: size for url, size in loaded.items() if "/v1/" not in url}
    assert {url.rpartition("/")[2] for url in first} == {"", "dashboard.js", "dashboard.css", "icon.svg"}
    assert sum(first.values()) < 60_000, first
    assert all(url.startswith(f"{site.address}/") for url in loaded)
