"""Pages stay up to date by themselves, and what the operator chose, typed or marked stays as it was.

The browser's clock is wound forward to its next poll; everything else takes its own time.
"""

import re
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import pytest
from playwright.sync_api import Page, Request, Route, expect

from postqueue_api.sandbox import Sandbox
from tests.dashboard import browsing
from tests.dashboard.browsing import Complaints, Site
from tests.dashboard.changing import preview
from tests.dashboard.conftest import Pages
from tests.live import service as services
from tests.live.mailbox import Mailbox

POLL, BACK_OFF = 5, 60
LINE = "#live"
STATUS = re.compile("/v1/status$")
_REMEMBER = """
window.told = [];
new MutationObserver(() => window.told.push(document.getElementById('live').textContent))
  .observe(document.getElementById('live'), {childList: true});
"""


@dataclass
class Watched:
    """A page, what its script asked for, how often for the status, and which requests were answered or failed."""

    page: Page
    asked: list[Request] = field(default_factory=list)
    polls: list[Request] = field(default_factory=list)
    answered: set[Request] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.page.on("request", self._note)
        self.page.on("response", lambda response: self.answered.add(response.request))
        self.page.on("requestfailed", lambda request: self.answered.add(request))

    def _note(self, request: Request) -> None:
        self.asked.append(request)
        if STATUS.search(request.url):
            self.polls.append(request)

    def _is_answered(self) -> bool:
        return self.answered.issuperset(self.polls)

    def open(self, address: str) -> None:
        """Open a page whose clock we have, and wait until its script has polled once."""
        before = len(self.polls)
        self.page.goto(address)
        self._wait(lambda: len(self.polls) > before and self._is_answered())
        self.page.evaluate(_REMEMBER)

    def is_same(self) -> bool:
        """Whether the page was never loaded again."""
        return self.page.evaluate("window.told !== undefined")  # type: ignore[no-any-return]

    def told(self) -> list[str]:
        """All that its line said so far, one after the other."""
        return self.page.evaluate("window.told")  # type: ignore[no-any-return]

    def poll(self, seconds: float = POLL + 1) -> None:
        """Let the script poll once; it sets its clock only after it has read the answer before."""
        self._wait(self._is_answered)
        before = len(self.polls)

        def is_polled() -> bool:
            if len(self.polls) == before:
                self.page.clock.fast_forward(int(seconds * 1000))
            return len(self.polls) > before and self._is_answered()

        self._wait(is_polled)

    def settle(self) -> None:
        """Wait until all that the script asked for is there and put in place."""
        self._wait(lambda: self.answered.issuperset(self.asked))
        self.page.wait_for_timeout(300)

    def _wait(self, holds: Callable[[], object], seconds: float = 20) -> None:
        until = time.monotonic() + seconds
        while not holds():
            assert time.monotonic() < until, "it did not come"
            self.page.wait_for_timeout(25)

    def poll_until(self, holds: Callable[[], object]) -> None:
        for _ in range(40):
            if holds():
                return
            self.poll()
            self.page.wait_for_timeout(50)
        raise AssertionError("it did not come")

    def count(self, address: str) -> int:
        """How often an address, or what begins with it, was asked for since."""
        return sum(request.url.startswith(address) for request in self.asked)


@pytest.fixture
def watched(page: Page) -> Watched:
    page.clock.install()
    return Watched(page)


@pytest.fixture
def mailbox(quiet_box: Sandbox) -> Mailbox:
    return Mailbox(quiet_box)


@pytest.fixture
def seen(watched: Watched, quiet: Site, mailbox: Mailbox) -> tuple[Watched, str, str]:
    """The table of this test's own mail as an operator sees it, with one message. Returns:  page, sender, queue ID"""
    sender = f"{mailbox.word}@example.com"
    first = mailbox.deferred(sender=sender)
    browsing.enter(watched.page, quiet, "operator")
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


def focused(page: Page) -> list[str]:
    """The queue ID of the row that has the focus, and what of it."""
    found = "[document.activeElement.closest('tr')?.dataset.queueId, document.activeElement.tagName]"
    return page.evaluate(found)  # type: ignore[no-any-return]


def test_rows_come_while_one_has_the_focus_which_stays_where_it_was(seen: Seen, mailbox: Mailbox) -> None:
    watched, sender, first = seen
    page = watched.page
    page.keyboard.press("j")
    assert focused(page) == [first, "A"]
    second = arrives(watched, mailbox, sender)
    assert focused(page) == [first, "A"]
    assert row(page, first).get_attribute("aria-current") == "true"
    row(page, first).locator("input[type=checkbox]").check()
    mailbox.postfix("postsuper", "-d", "-", stdin=f"{second}\n".encode())
    watched.poll_until(lambda: row(page, second).count() == 0)
    assert "1" in page.locator("#found-title").inner_text()
    assert focused(page) == [first, "INPUT"]
    assert row(page, first).locator("input[type=checkbox]").is_checked()
    third = arrives(watched, mailbox, sender)
    page.keyboard.press("j")
    assert focused(page) == [third, "A"], "the keys go on where they were"
    mailbox.postfix("postsuper", "-d", "-", stdin=f"{third}\n".encode())
    watched.poll_until(lambda: row(page, third).count() == 0)
    assert page.evaluate("document.activeElement.className") == "scroll", "no other row is taken for it"
    page.keyboard.press("k")
    assert focused(page) == [first, "A"]


def test_a_table_with_the_pointer_in_it_is_left_alone_until_it_rests(seen: Seen, mailbox: Mailbox) -> None:
    watched, sender, first = seen
    page = watched.page
    page.evaluate("setInterval(() => dispatchEvent(new Event('pointermove')), 1000)")
    row(page, first).hover()
    second = mailbox.deferred(sender=sender)
    watched.poll_until(lambda: "2" in page.locator("#found-title").inner_text())
    assert row(page, second).count() == 0
    page.mouse.move(0, 0)
    watched.poll_until(lambda: row(page, second).count() == 1)


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
        browsing.enter(watched.page, made, "viewer")
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
    browsing.enter(page, site, "viewer")
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
    watched.poll_until(lambda: page.locator(LINE).inner_text() == "")
    assert watched.told()[-2:] == ["Up to date again.", ""]
    assert watched.is_same()


@pytest.mark.parametrize(
    ("status", "said"),
    [
        (403, "Your role does not allow this page any more."),
        (429, "Too many requests were made."),
        (410, "This page cannot be brought up to date (410)."),
        (500, "The service does not answer."),
    ],
)
def test_what_the_service_refuses_is_told_from_a_service_that_does_not_answer(
    watched: Watched, site: Site, complaints: Complaints, status: int, said: str
) -> None:
    complaints.expected.add(status)
    page = watched.page
    browsing.enter(page, site, "viewer")
    watched.open(f"{site.address}/trash")
    page.route("**/v1/status", lambda route: route.fulfill(status=status, headers={"Retry-After": "300"}))
    watched.poll()
    watched.poll_until(lambda: said in page.locator(LINE).inner_text())
    if status == 429:
        watched.asked.clear()
        page.clock.fast_forward(290_000)
        page.wait_for_timeout(100)
        assert watched.asked == [], "it was told when to ask again"
    page.unroute("**/v1/status")
    watched.poll(301)
    watched.poll_until(lambda: page.locator(LINE).inner_text() == "")


@contextmanager
def stalling() -> Iterator[str]:
    """A server that begins to answer and does not end."""
    held: list[socket.socket] = []
    with socket.create_server(("127.0.0.1", 0)) as server:

        def accept() -> None:
            with suppress(OSError):
                while True:
                    held.append(server.accept()[0])
                    held[-1].recv(1 << 16)
                    held[-1].sendall(
                        b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 99\r\n\r\n{"
                    )

        threading.Thread(target=accept, daemon=True).start()
        yield f"http://127.0.0.1:{server.getsockname()[1]}/v1/status"
        server.shutdown(socket.SHUT_RDWR)
    for each in held:
        each.close()


@pytest.mark.parametrize("begins", [False, True])
def test_an_answer_that_does_not_end_is_noticed(watched: Watched, site: Site, begins: bool) -> None:
    page = watched.page
    page.add_init_script(
        "const wait = AbortSignal.timeout; AbortSignal.timeout = milliseconds =>"
        " { window.patience = milliseconds; return wait.call(AbortSignal, milliseconds / 20) }"
    )
    browsing.enter(page, site, "viewer")
    watched.open(f"{site.address}/trash")
    assert page.evaluate("window.patience") == 20_000
    with stalling() as address:
        page.route("**/v1/status", lambda route: route.continue_(url=address) if begins else None)
        watched.poll()
        watched.poll_until(lambda: "does not answer" in page.locator(LINE).inner_text())
        page.unroute("**/v1/status")
        watched.poll(BACK_OFF + 1)
        watched.poll_until(lambda: page.locator(LINE).inner_text() == "")
    assert watched.is_same()


def test_a_message_that_left_the_queue_is_said_to_be_gone_and_asked_for_no_more(
    watched: Watched, quiet: Site, mailbox: Mailbox, complaints: Complaints
) -> None:
    complaints.expected.add(404)
    page, queue_id = watched.page, mailbox.deferred()
    address = f"{quiet.address}/messages/{queue_id}"
    browsing.enter(page, quiet, "operator")
    watched.open(address)
    mailbox.postfix("postsuper", "-d", "-", stdin=f"{queue_id}\n".encode())
    watched.poll_until(lambda: "This message is not in the queue any more." in page.locator(LINE).inner_text())
    watched.asked.clear()
    mailbox.deferred()
    for _ in range(3):
        watched.poll()
    assert watched.count(address) == 0
    assert watched.is_same()
    page.locator(LINE).get_by_role("link", name="What is known of it").click()
    page.get_by_role("heading", name=f"Message {queue_id} is not in the queue").wait_for()
    assert page.locator(LINE).inner_text() == ""


def test_postfix_down_is_said_plainly_and_so_is_its_return(
    watched: Watched, quiet: Site, quiet_box: Sandbox, complaints: Complaints
) -> None:
    complaints.expected.add(503)
    page = watched.page
    browsing.enter(page, quiet, "viewer")
    watched.open(f"{quiet.address}/messages")
    quiet_box.stop_postfix()
    try:
        watched.poll_until(lambda: "Postfix is down" in page.locator(LINE).inner_text())
        assert page.locator(LINE).inner_text() == (
            "Postfix is down: nothing is delivered. The queue itself could be read."
        )
        assert page.locator(LINE).get_attribute("role") == "status"
        assert watched.is_same()
    finally:
        quiet_box.start_postfix()
    watched.poll_until(lambda: page.locator(LINE).inner_text() == "")


def test_old_numbers_are_said_to_be_old(watched: Watched, site: Site) -> None:
    page = watched.page
    browsing.enter(page, site, "viewer")
    watched.open(f"{site.address}/")

    def grow_old(route: Route) -> None:
        answer = route.fetch()
        route.fulfill(response=answer, headers={**answer.headers, "age": "240"})

    page.route("**/v1/status", grow_old)
    watched.poll()
    # Not wait_for_function(): our policy lets it look once, and no second time.
    expect(page.locator(LINE)).to_contain_text("4 minutes old")
    page.unroute_all(behavior="wait")


def test_nothing_known_of_the_queue_is_told_from_a_postfix_that_is_down(watched: Watched, site: Site) -> None:
    page = watched.page
    browsing.enter(page, site, "viewer")
    watched.open(f"{site.address}/trash")

    def say_down(route: Route) -> None:
        status = {"mail_system": "down", "queues": None, "problem": {"code": "mail_system_down", "detail": "x"}}
        route.fulfill(json=status)

    page.route("**/v1/status", say_down)
    watched.poll()
    expect(page.locator(LINE)).to_have_text("Postfix is down. Nothing is known of the queue now.")


def test_the_end_of_the_session_is_said_with_the_way_back(watched: Watched, site: Site, complaints: Complaints) -> None:
    complaints.expected.add(401)
    page = watched.page
    browsing.enter(page, site, "viewer")
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


def look_at(page: Page) -> None:
    """What a browser does when its window is clicked on. A second after the last time the page may not care."""
    page.clock.fast_forward((POLL + 1) * 1000)
    page.evaluate("dispatchEvent(new Event('focus'))")


def log_in_anew(page: Page, site: Site, who: str) -> None:
    """In another tab, by hand."""
    other = page.context.new_page()
    other.goto(f"{site.address}/trash")
    other.locator(".logout button").click()
    other.wait_for_url("**/login?notice=logged_out")
    browsing.log_in(other, site, who, "/trash")
    other.close()


def hold(page: Page) -> None:
    """Send the form of a message's page."""
    page.get_by_role("button", name="Hold").click()
    expect(page.locator("main .note").first).to_contain_text("Hold: held.")


def test_a_page_whose_session_ended_goes_on_when_somebody_logged_in_in_another_tab(
    watched: Watched, quiet: Site, mailbox: Mailbox, complaints: Complaints
) -> None:
    complaints.expected.add(401)
    page, queue_id = watched.page, mailbox.deferred()
    browsing.enter(page, quiet, "operator")
    watched.open(f"{quiet.address}/messages/{queue_id}")
    page.fill("#why", "half a reas")
    cookies = page.context.cookies()
    page.context.clear_cookies()
    watched.poll()
    expect(page.locator(LINE)).to_contain_text("The session has ended.")
    look_at(page)
    page.wait_for_timeout(200)
    expect(page.locator(LINE)).to_contain_text("The session has ended.")
    page.context.add_cookies(cookies)  # type: ignore[arg-type]
    log_in_anew(page, quiet, "operator")
    look_at(page)
    expect(page.locator(LINE)).not_to_contain_text("ended")
    assert "Up to date again." in watched.told()
    assert page.input_value("#why") == "half a reas"
    assert watched.is_same()
    hold(page)


def test_a_page_takes_the_token_of_a_session_that_began_anew_in_another_tab(
    watched: Watched, quiet: Site, mailbox: Mailbox
) -> None:
    page, queue_id = watched.page, mailbox.deferred()
    browsing.enter(page, quiet, "operator")
    watched.open(f"{quiet.address}/messages/{queue_id}")
    hide(page, True)
    page.fill("#why", "half a reas")
    log_in_anew(page, quiet, "operator")
    page.clock.fast_forward(60_000)
    with page.expect_response(f"{quiet.address}/messages/{queue_id}"):
        hide(page, False)
    watched.poll()
    assert page.input_value("#why") == "half a reas"
    assert watched.is_same()
    hold(page)


def test_a_preview_takes_the_new_token_too_and_keeps_what_was_typed(
    watched: Watched, quiet: Site, mailbox: Mailbox
) -> None:
    page, queue_ids = watched.page, [mailbox.deferred(), mailbox.deferred()]
    browsing.enter(page, quiet, "admin")
    watched.open(f"{quiet.address}/trash")
    preview(page, ("action", "delete"), ("queue_ids", " ".join(queue_ids)))
    page.fill("#why", "half a reason")
    page.fill("#count", "2")
    log_in_anew(page, quiet, "admin")
    with page.expect_response(f"{quiet.address}/messages"):  # a preview cannot be asked for again
        look_at(page)
    watched.poll()
    page.locator("#change button").click()
    page.wait_for_url("**/operations/op-*")
    expect(page.locator("#operation-facts")).to_contain_text("half a reason")


def test_when_somebody_else_logged_in_the_page_does_nothing_in_their_name(
    watched: Watched, quiet: Site, mailbox: Mailbox
) -> None:
    page, queue_id = watched.page, mailbox.deferred()
    browsing.enter(page, quiet, "operator")
    watched.open(f"{quiet.address}/messages/{queue_id}")
    token = page.get_attribute("#change [name=csrf_token]", "value")
    log_in_anew(page, quiet, "admin")
    look_at(page)
    expect(page.locator(LINE)).to_contain_text("Somebody else is logged in")
    assert page.get_attribute("#change [name=csrf_token]", "value") == token
    page.locator(LINE).get_by_role("link", name="Load the page again").click()
    expect(page.locator(".who")).to_contain_text("admin")


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
    browsing.enter(page, site, "admin-content")
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
        watched.settle()

    polls(30)
    before, memory = weight(), resident(site)
    polls(60)
    after = weight()
    assert after["Nodes"] <= before["Nodes"] * 1.2 + 50
    assert after["JSEventListeners"] <= before["JSEventListeners"] + 5
    assert after["JSHeapUsedSize"] <= before["JSHeapUsedSize"] + 1_000_000
    assert resident(site) <= memory + 30_000_000
