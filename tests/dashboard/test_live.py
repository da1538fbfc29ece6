"""Pages stay up to date by themselves, and what the operator chose, typed or marked stays as it was.

The browser's clock is wound forward to its next poll; everything else takes its own time.
"""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest
from playwright.sync_api import Page, Request, Route

from postqueue_api.sandbox import Sandbox, fresh_directory
from tests.dashboard import browsing
from tests.dashboard.browsing import Complaints, Site
from tests.dashboard.conftest import Pages
from tests.live import service as services
from tests.live.mailbox import Mailbox

POLL, BACK_OFF = 5, 60
LINE = "#live"
STATUS = re.compile("/v1/status$")


@dataclass
class Watched:
    """A page, and what its script asked for."""

    page: Page
    asked: list[Request] = field(default_factory=list)
    answered: int = 0

    def __post_init__(self) -> None:
        self.page.on("request", lambda request: self.asked.append(request))
        self.page.on("response", lambda response: self._count(response.request))

    def _count(self, request: Request) -> None:
        self.answered += bool(STATUS.search(request.url))

    def open(self, address: str) -> None:
        """Open a page whose clock we have, and wait until its script has polled once."""
        with self.page.expect_response(STATUS):
            self.page.goto(address)
        self.page.evaluate("window.same = true")

    def is_same(self) -> bool:
        """Whether the page was never loaded again."""
        return self.page.evaluate("window.same === true")  # type: ignore[no-any-return]

    def poll(self, seconds: float = POLL + 1) -> None:
        """Let the script poll once; it sets its clock only after it has read the answer before."""
        before = self.answered
        for _ in range(200):
            self.page.clock.fast_forward(int(seconds * 1000))
            self.page.wait_for_timeout(25)
            if self.answered > before:
                return
        raise AssertionError("it did not poll")

    def poll_until(self, holds: Callable[[], object]) -> None:
        for _ in range(40):
            if holds():
                return
            self.poll()
            self.page.wait_for_timeout(100)
        raise AssertionError("it did not come")

    def count(self, address: str) -> int:
        """How often an address, or what begins with it, was asked for since."""
        return sum(request.url.startswith(address) for request in self.asked)


@pytest.fixture
def watched(page: Page) -> Watched:
    page.clock.install()
    return Watched(page)


@pytest.fixture(scope="module")
def quiet_box() -> Iterator[Sandbox]:
    """A Postfix of these tests' own, whose queue nobody else changes."""
    with Sandbox(fresh_directory()) as made:
        yield made


@pytest.fixture(scope="module")
def quiet(quiet_box: Sandbox) -> Iterator[Site]:
    with browsing.site_of(quiet_box, snapshot_max_age_seconds="0") as made:
        yield made


@pytest.fixture
def mailbox(quiet_box: Sandbox) -> Mailbox:
    return Mailbox(quiet_box)


@pytest.fixture
def seen(watched: Watched, quiet: Site, mailbox: Mailbox) -> tuple[Watched, str, str]:
    """The table of this test's own mail as an operator sees it, with one message. Returns:  page, sender, queue ID"""
    sender = f"{mailbox.word}@example.com"
    first = mailbox.deferred(sender=sender)
    browsing.log_in(watched.page, quiet, "operator")
    watched.open(f"{quiet.address}/messages?sender={sender}")
    row(watched.page, first).wait_for()
    return watched, sender, first


def row(page: Page, queue_id: str) -> Any:
    return page.locator(f'tr[data-queue-id="{queue_id}"]')


def arrives(watched: Watched, mailbox: Mailbox, sender: str) -> str:
    """Another message, and the script sees it."""
    queue_id = mailbox.deferred(sender=sender)
    watched.poll_until(lambda: row(watched.page, queue_id).count() == 1)
    return queue_id


Seen = tuple[Watched, str, str]


def test_new_mail_appears_and_what_has_gone_disappears_without_a_reload(seen: Seen, mailbox: Mailbox) -> None:
    watched, sender, first = seen
    second = arrives(watched, mailbox, sender)
    mailbox.postfix("postsuper", "-d", "-", stdin=f"{first}\n".encode())
    watched.poll_until(lambda: row(watched.page, first).count() == 0)
    assert row(watched.page, second).count() == 1
    assert watched.is_same()


def test_chosen_rows_stay_chosen_and_typed_text_stays_typed(seen: Seen, mailbox: Mailbox) -> None:
    watched, sender, first = seen
    page = watched.page
    row(page, first).locator("input[type=checkbox]").check()
    page.fill("#recipient", "half an addr")
    second = arrives(watched, mailbox, sender)
    assert row(page, first).locator("input[type=checkbox]").is_checked()
    assert not row(page, second).locator("input[type=checkbox]").is_checked()
    assert page.input_value("#recipient") == "half an addr"
    assert page.evaluate("document.activeElement.id") == "recipient"
    assert watched.is_same()


def test_a_table_in_use_is_left_alone_until_it_is_not(seen: Seen, mailbox: Mailbox) -> None:
    watched, sender, first = seen
    page = watched.page
    page.keyboard.press("j")
    assert page.evaluate("document.activeElement.closest('tr').dataset.queueId") == first
    second = mailbox.deferred(sender=sender)
    watched.poll_until(lambda: "2" in page.locator("#found-title").inner_text())
    assert row(page, second).count() == 0
    assert page.evaluate("document.activeElement.closest('tr').dataset.queueId") == first
    page.evaluate("document.activeElement.blur()")
    watched.poll_until(lambda: row(page, second).count() == 1)
    assert row(page, first).get_attribute("aria-current") == "true", "the keys go on where they were"


def test_marked_text_stays_marked(seen: Seen, mailbox: Mailbox) -> None:
    watched, sender, first = seen
    page = watched.page
    page.evaluate(
        "id => { const range = document.createRange(); range.selectNodeContents(document.querySelector("
        "`tr[data-queue-id='${id}'] .why`)); getSelection().addRange(range) }",
        first,
    )
    marked = page.evaluate("getSelection().toString()")
    assert marked
    mailbox.deferred(sender=sender)
    watched.poll_until(lambda: "2" in page.locator("#found-title").inner_text())
    assert page.evaluate("getSelection().toString()") == marked


def test_while_nothing_changes_the_status_alone_is_asked_for_with_its_etag(
    watched: Watched, box: Sandbox, site: Site
) -> None:
    with browsing.site_of(box, snapshot_max_age_seconds="3600") as made:  # one listing for the whole test
        browsing.log_in(watched.page, made, "viewer")
        watched.open(f"{made.address}/")
        watched.asked.clear()
        for _ in range(5):
            watched.poll()
        polls = [request for request in watched.asked if request.url.endswith("/v1/status")]
        assert len(watched.asked) == len(polls) == 5
        answers = [request.response() for request in polls]
        assert [answer.status if answer else None for answer in answers] == [304] * 5
        assert all(request.headers["if-none-match"].startswith('W/"') for request in polls)


def hide(page: Page, hidden: bool) -> None:
    page.evaluate(
        "hidden => { Object.defineProperty(document, 'hidden', {value: hidden, configurable: true});"
        " document.dispatchEvent(new Event('visibilitychange')) }",
        hidden,
    )


def test_a_hidden_tab_asks_for_nothing_and_catches_up_at_once_when_it_is_seen(seen: Seen, mailbox: Mailbox) -> None:
    watched, sender, _ = seen
    page = watched.page
    watched.poll()
    page.wait_for_load_state("networkidle")
    hide(page, True)
    second = mailbox.deferred(sender=sender)
    watched.asked.clear()
    page.clock.fast_forward(3600_000)
    page.wait_for_timeout(300)
    assert watched.asked == []
    hide(page, False)
    row(page, second).wait_for()


def test_a_service_that_does_not_answer_is_asked_less_and_less_and_the_page_says_so(
    watched: Watched, site: Site, complaints: Complaints
) -> None:
    page = watched.page
    browsing.log_in(page, site, "viewer")
    watched.open(f"{site.address}/")
    before = page.locator("main").inner_text()
    page.route("**/v1/status", lambda route: route.abort())
    watched.asked.clear()
    for _ in range(60):
        page.clock.fast_forward(POLL * 1000)
        page.wait_for_timeout(25)
    assert "does not answer" in page.locator(LINE).inner_text()
    assert re.search(r"\d+ minutes? old", page.locator(LINE).inner_text())
    assert 3 <= watched.count(f"{site.address}/v1/status") <= 12, "60 were due without a pause"
    assert page.locator("h1").inner_text() in before
    page.unroute("**/v1/status")
    watched.poll(BACK_OFF + 1)
    page.locator(f"{LINE}.good").wait_for()
    watched.poll()
    page.wait_for_function("document.getElementById('live').textContent === ''")
    assert watched.is_same()


def test_postfix_down_is_said_plainly_and_so_is_its_return(
    watched: Watched, quiet: Site, quiet_box: Sandbox, complaints: Complaints
) -> None:
    complaints.expected.add(503)
    page = watched.page
    browsing.log_in(page, quiet, "viewer", "/messages")
    watched.open(f"{quiet.address}/messages")
    quiet_box.stop_postfix()
    try:
        watched.poll_until(lambda: "Postfix is down" in page.locator(LINE).inner_text())
        assert page.locator(LINE).get_attribute("role") == "status"
        assert watched.is_same()
    finally:
        quiet_box.start_postfix()
    watched.poll_until(lambda: page.locator(LINE).inner_text() == "")


def test_old_numbers_are_said_to_be_old(watched: Watched, site: Site) -> None:
    page = watched.page
    browsing.log_in(page, site, "viewer")
    watched.open(f"{site.address}/")

    def grow_old(route: Route) -> None:
        answer = route.fetch()
        route.fulfill(response=answer, headers={**answer.headers, "age": "240"})

    page.route("**/v1/status", grow_old)
    watched.poll()
    page.wait_for_function("document.getElementById('live').textContent.includes('4 minutes old')")


def test_the_end_of_the_session_is_said_with_the_way_back(watched: Watched, site: Site, complaints: Complaints) -> None:
    complaints.expected.add(401)
    page = watched.page
    browsing.log_in(page, site, "viewer")
    watched.open(f"{site.address}/trash?x=1")
    page.context.clear_cookies()
    watched.poll()
    page.locator(LINE).get_by_role("link").wait_for()
    watched.asked.clear()
    page.clock.fast_forward(600_000)
    page.wait_for_timeout(200)
    assert watched.asked == [], "nobody asks in the name of nobody"
    page.locator(LINE).get_by_role("link").click()
    page.wait_for_url(f"{site.address}/login?notice=ended&next=%2Ftrash%3Fx%3D1")
    page.fill("#name", "viewer")
    page.fill("#password", browsing.SECRETS["viewer"])
    page.keyboard.press("Enter")
    page.wait_for_url(f"{site.address}/trash?x=1")


def test_times_are_in_the_reader_s_zone_with_the_exact_time_on_hover(
    new_page: Pages, quiet: Site, mailbox: Mailbox
) -> None:
    queue_id = mailbox.deferred()
    page = new_page(timezone_id="Asia/Tokyo", locale="ja")
    browsing.log_in(page, quiet, "viewer", f"/messages/{queue_id}")
    shown = page.locator("time").first
    utc = shown.get_attribute("datetime")
    assert utc is not None
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", utc)
    in_tokyo = page.evaluate(
        "utc => new Date(utc).toLocaleString('ja', {timeZone: 'Asia/Tokyo', dateStyle: 'medium', timeStyle: 'short'})",
        utc,
    )
    assert shown.inner_text() == in_tokyo
    assert utc[:19].replace("T", " ") + " UTC" in (shown.get_attribute("title") or "")


def resident(site: Site) -> int:
    """Bytes in memory of all processes of the service."""
    found = (services.status(pid)["VmRSS"][0] for pid in site.service.tree())
    return sum(map(int, found)) * 1024


def test_a_tab_that_is_left_open_makes_neither_itself_nor_the_service_grow(watched: Watched, site: Site) -> None:
    page = watched.page
    browsing.log_in(page, site, "admin-content")
    watched.open(f"{site.address}/")
    session = page.context.new_cdp_session(page)
    session.send("Performance.enable")

    def weight() -> dict[str, float]:
        session.send("HeapProfiler.collectGarbage")
        found = {each["name"]: each["value"] for each in session.send("Performance.getMetrics")["metrics"]}
        return {name: found[name] for name in ("Nodes", "JSEventListeners", "JSHeapUsedSize")}

    def polls(count: int) -> None:
        for _ in range(count):
            watched.poll(BACK_OFF + 1)  # so that each brings a page anew
            watched.asked.clear()

    polls(30)
    before, memory = weight(), resident(site)
    polls(60)
    after = weight()
    assert after["Nodes"] <= before["Nodes"] * 1.2 + 50
    assert after["JSEventListeners"] <= before["JSEventListeners"] + 5
    assert after["JSHeapUsedSize"] <= before["JSHeapUsedSize"] + 1_000_000
    assert resident(site) <= memory + 30_000_000
