"""A filled sandbox with its service, one Chromium, and for each test a browser that fails it for any complaint.

The scope is this package: two of Playwright's loops cannot run at once, and other tests have one of their own.
"""

import shutil
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright

from postqueue_api.sandbox import Sandbox, fresh_directory
from tests.dashboard import browsing
from tests.dashboard.browsing import Complaints, Site
from tests.live.mailbox import Mailbox

Pages = Callable[..., Page]


@pytest.fixture(scope="package")
def box() -> Iterator[Sandbox]:
    with Sandbox(fresh_directory(), extra_main_cf={"smtpd_recipient_limit": "10000"}) as made:
        made.fill()
        yield made


@pytest.fixture(scope="package")
def site(box: Sandbox) -> Iterator[Site]:
    """The service that most tests look at. What a test changes, it changes on mail of its own."""
    with browsing.site_of(box) as made:
        yield made


@pytest.fixture(scope="package")
def quiet_box() -> Iterator[Sandbox]:
    """A Postfix whose queue nobody changes but the test that runs; it may stop it, and starts it again."""
    with Sandbox(fresh_directory()) as made:
        yield made


@pytest.fixture(scope="package")
def quiet(quiet_box: Sandbox) -> Iterator[Site]:
    """Its service, which lists anew for each who asks."""
    with browsing.site_of(quiet_box, snapshot_max_age_seconds="0") as made:
        yield made


@pytest.fixture(scope="package")
def browser() -> Iterator[Browser]:
    chromium = shutil.which("chromium")
    assert chromium is not None, "these tests need Debian's chromium"
    expect.set_options(timeout=20_000)  # what is live is asked for every five seconds
    with sync_playwright() as playwright:
        made = playwright.chromium.launch(executable_path=chromium, args=browsing.FLAGS)
        yield made
        made.close()


@pytest.fixture
def complaints() -> Complaints:
    """What the browsers of this test complained about; a test that provokes a status adds it to `expected`."""
    return Complaints()


@pytest.fixture
def new_page(browser: Browser, complaints: Complaints) -> Iterator[Pages]:
    """Makes pages, each in a browser of its own: `new_page(locale="ja", color_scheme="dark", viewport={...})`."""
    made: list[Any] = []

    def make(**options: Any) -> Page:
        made.append(browsing.contexts(browser, complaints, **options))
        page: Page = made[-1].new_page()
        page.set_default_timeout(20_000)
        return page

    yield make
    for context in made:
        complaints.check(context)
        context.close()


@pytest.fixture
def page(new_page: Pages) -> Page:
    return new_page()


@pytest.fixture
def login(site: Site) -> Callable[..., None]:
    """Logs in and opens a page: `login(page, "operator-content", "/messages")`. For the form see test_login.py."""

    def enter(page: Page, who: str, following: str = "/") -> None:
        browsing.enter(page, site, who)
        page.goto(f"{site.address}{following}")

    return enter


@pytest.fixture
def accessible() -> Callable[[Page], None]:
    """Fails for what axe finds serious or critical, in both themes: in the second of them nothing else is other."""

    def check(page: Page) -> None:
        page.emulate_media(color_scheme="light")
        assert browsing.faults(page) == []
        page.emulate_media(color_scheme="dark")
        assert browsing.faults(page, "color-contrast", "link-in-text-block") == []

    return check


@pytest.fixture
def mailbox(box: Sandbox) -> Mailbox:
    """Mail of this test alone."""
    return Mailbox(box)
