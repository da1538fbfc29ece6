"""The overview: true to what Postfix lists, live, and honest when Postfix or the agent does not answer."""

import json
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import parse_qs, parse_qsl, urlsplit

import pytest
from playwright.sync_api import Page, expect

from postqueue_api.queue import samples
from postqueue_api.queue.samples import Ring, Sample
from postqueue_api.queue.snapshot import QUEUE_NAMES
from postqueue_api.sandbox import Sandbox, processes
from tests.dashboard import browsing
from tests.dashboard.browsing import Site
from tests.dashboard.conftest import Pages
from tests.fake_commands import BROKE_OFF, DOWN
from tests.live import service as services
from tests.live.mailbox import Mailbox

Login = Callable[..., None]
PHONE = {"width": 360, "height": 740}


def card(page: Page, queue_name: str) -> str:
    """The number on the card of a queue."""
    return (
        page.locator("#overview-queues li", has=page.get_by_role("link", name=queue_name))
        .locator("strong")
        .inner_text()
    )


def cards_after_a_reload(page: Page) -> dict[str, str]:
    """The numbers of all queues."""
    page.reload()
    return {name: card(page, name) for name in QUEUE_NAMES}


def counted(box: Sandbox) -> dict[str, str]:
    """The same, as postqueue lists them."""
    listed = box.queue()
    return {name: str(sum(row["queue_name"] == name for row in listed)) for name in QUEUE_NAMES}


def known_last(site: Site, queue_name: str) -> str:
    """How many messages of a queue the newest listing has, however old it is."""
    queues = site.ask("GET", "/v1/queues", Cache_Control="max-age=31536000").json()["queues"]
    return next(str(queue["messages"]) for queue in queues if queue["queue_name"] == queue_name)


def links(page: Page, part: str) -> list[tuple[str, int]]:
    """Where the bars or cells of a part lead, and what each counts."""
    found = page.locator(f"#overview-{part} .bars a, #overview-{part} td a").all()
    counts = [each.inner_text().split("\n")[-1].split()[-1] for each in found]
    return [
        (str(each.get_attribute("href")), int(count.replace(",", "")))
        for each, count in zip(found, counts, strict=True)
    ]


def total(page: Page, site: Site, address: str) -> int:
    """How many messages, of the listing that a page was made from, a link leads to."""
    path, query = urlsplit(address)[2:4]
    assert path == "/messages"
    parse_qsl(query, strict_parsing=True, keep_blank_values=True)
    listing = page.locator("body").get_attribute("data-snapshot")
    return int(site.ask("GET", f"/v1/messages?limit=1&snapshot_id={listing}&{query}").json()["total"])


def test_a_viewer_sees_what_postfix_lists_and_cannot_flush(page: Page, site: Site, box: Sandbox, login: Login) -> None:
    login(page, "viewer")
    processes.wait_until(lambda: cards_after_a_reload(page) == counted(box), 60)  # mail may move meanwhile
    assert "Postfix is running" in page.locator("#overview-state").inner_text()
    assert page.get_by_role("button", name="Flush now").count() == 0
    assert "takes the role operator" in page.locator("main").inner_text()
    page.get_by_role("link", name="deferred").click()
    page.wait_for_url("**/messages?queue_name=deferred")


def test_every_bar_and_every_cell_leads_to_as_many_messages_as_it_counts(
    new_page: Pages, site: Site, login: Login
) -> None:
    page = new_page(java_script_enabled=False)  # so that it stays as it is
    login(page, "viewer", "/?ages=sender_domain")
    for part in ("reasons", "sites", "senders", "ages"):
        found = links(page, part)
        assert len(found) >= 3, part
        assert [(address, total(page, site, address)) for address, _ in found] == found


def test_the_table_of_ages_is_that_of_the_api_by_either_domain(new_page: Pages, site: Site, login: Login) -> None:
    page = new_page(java_script_enabled=False)
    login(page, "viewer")
    for by, title in (("recipient_domain", "by recipient domain"), ("sender_domain", "by sender domain")):
        page.get_by_role("link", name=title).click()
        page.wait_for_url(f"**/?ages={by}")
        assert page.get_by_role("link", name=title).get_attribute("aria-current") == "true"
        body = site.ask("GET", f"/v1/ages?by={by}&first=15m&columns=9&limit=7", Cache_Control="max-age=3600").json()
        rows = [row.inner_text().replace(",", "").split() for row in page.locator(".heat tbody tr").all()]
        assert rows == [
            [row["key"] or "(none)", *(str(count) for count in (row["total"], *row["counts"]))]
            for row in ({**body["total"], "key": "TOTAL"}, *body["rows"])
        ]
        addresses = page.locator(".heat .total a").evaluate_all("all => all.map(each => each.getAttribute('href'))")
        first, *others = [(urlsplit(each).path, parse_qs(urlsplit(each).query)) for each in addresses]
        assert first == ("/messages", {})
        assert others
        assert all(path == "/messages" and set(query) <= {"min_age", "max_age"} and query for path, query in others)


def test_without_a_script_the_page_says_the_same(new_page: Pages, login: Login) -> None:
    told = []
    for scripts in (True, False):
        page = new_page(java_script_enabled=scripts)
        login(page, "viewer")
        told.append([page.locator(part).inner_text() for part in ("#overview-queues", ".heat", "#overview-senders")])
        page.get_by_role("link", name="24 h").click()
        page.wait_for_url("**/?hours=24")
    assert re.sub(r"\d+ (s|min)", "", told[0][0]) == re.sub(r"\d+ (s|min)", "", told[1][0])
    assert told[0][1:] == told[1][1:]


def test_a_flush_of_all_that_is_deferred_is_shown_first_and_is_an_operation_of_the_history(
    page: Page, site: Site, login: Login
) -> None:
    login(page, "operator")
    before = site.ask("GET", "/v1/operations?limit=1").json()["operations"]
    page.get_by_role("button", name="Flush now").click()
    page.wait_for_url("**/preview")
    count = site.ask("GET", "/v1/messages?queue_name=deferred&limit=1").json()["total"]
    expect(page.locator("h1")).to_have_text(f"Try to deliver {count} messages now?")
    assert page.locator(".conditions").inner_text() == "Queue deferred"
    expect(page.get_by_role("link", name="Back, and do nothing")).to_have_attribute("href", "/")
    assert site.ask("GET", "/v1/operations?limit=1").json()["operations"] == before, "nothing is done yet"
    page.fill("#why", "ticket 9")
    page.fill("#max_per_second", "0.5")
    page.locator("#change button").click()
    page.wait_for_url("**/operations/op-*")
    path = page.url.removeprefix(site.address)
    found = site.ask("GET", f"/v1{path}").json()
    assert site.ask("POST", f"/v1{path}/cancel").status == 200
    assert (found["action"], found["actor"], found["reason"], found["max_per_second"]) == (
        *("flush", "operator", "ticket 9", 0.5),
    )
    assert found["selection"] == {"queue_name": ["deferred"]}


def test_mail_that_arrives_is_shown_without_a_reload(page: Page, mailbox: Mailbox, login: Login) -> None:
    login(page, "viewer")
    before = int(card(page, "hold"))
    page.evaluate("window.stayed = true")
    mailbox.held()
    strong = page.locator("#overview-queues li", has=page.get_by_role("link", name="hold")).locator("strong")
    browsing.until(page, lambda: strong.inner_text() == str(before + 1))
    assert page.evaluate("window.stayed") is True


def test_an_operation_that_runs_is_shown_with_its_progress(page: Page, site: Site, login: Login) -> None:
    body = {"action": "flush", "selection": {"queue_name": ["deferred"]}, "max_per_second": 0.5, "reason": "a test"}
    started = site.ask("POST", "/v1/operations", body=body).json()["operation_id"]
    try:
        login(page, "viewer")
        shown = page.locator("#overview-operations")
        assert "Flush by admin-content" in shown.inner_text()
        progress = shown.get_by_role("progressbar")
        assert 0 <= int(progress.get_attribute("value") or -1) < int(progress.get_attribute("max") or 0)
        shown.get_by_role("link", name="flush").click()
        page.wait_for_url(f"**/operations/{started}")
    finally:
        site.ask("POST", f"/v1/operations/{started}/cancel")


def write_samples(site: Site) -> None:
    """A day of samples with a spam incident and a gap, so that there is something to be drawn."""
    now, deferred, found = int(time.time()), 40, []
    for minute in range(1439, -1, -1):
        arrived = 300 if 100 < minute < 130 else minute % 7
        removed = min(deferred, 100 if minute < 100 and deferred > 90 else minute % 7)
        deferred += arrived - removed
        if not 200 < minute < 230:
            queues = {"maildrop": 0, "incoming": minute % 3, "active": minute % 20, "deferred": deferred, "hold": 6}
            found.append(Sample(now - 60.0 * minute, queues, deferred * 9000, now - 9000, arrived, removed))
    samples.write(site.service.state_directory / samples.NAME, Ring(60, found))


@pytest.fixture(scope="module")
def quiet_site(box: Sandbox) -> Iterator[Site]:
    """A service that takes no samples, so that those of a test stay."""
    with browsing.site_of(box, sample_interval_seconds="0") as made:
        yield made


def test_the_length_of_the_queue_is_drawn_with_its_gap_and_told_as_a_table(page: Page, quiet_site: Site) -> None:
    browsing.enter(page, quiet_site, "viewer")
    page.goto(f"{quiet_site.address}/")
    assert "No samples of that time yet" in page.locator("#overview-depth").inner_text()
    write_samples(quiet_site)
    page.get_by_role("link", name="24 h").click()
    page.wait_for_url("**/?hours=24")
    assert page.locator(".chart.depth polygon.queue-deferred").count() == 2
    assert page.get_by_role("img", name="Messages in the queue over the last 24 hours").count() == 1
    page.get_by_text("As a table").click()
    rows = page.locator("#overview-depth tbody tr")
    assert rows.count() >= 6
    assert rows.first.locator("td").count() == 6
    page.get_by_role("link", name="1 h", exact=True).click()
    page.wait_for_url("**/?hours=1")
    assert page.locator(".chart.depth polygon.queue-deferred").count() == 1


LOOKS = [
    ("viewer", "en-GB", "light", {"width": 1280, "height": 900}),
    ("operator", "ja", "dark", {"width": 1280, "height": 900}),
    ("operator", "en-GB", "dark", PHONE),
    ("viewer", "ja", "light", PHONE),
    ("operator", "en-GB", "light", {"width": 640, "height": 450}),  # as at 200 % of 1280
]


@pytest.mark.parametrize(("who", "locale", "scheme", "viewport"), LOOKS)
def test_it_fits_any_window_in_both_languages_and_themes(
    new_page: Pages, quiet_site: Site, who: str, locale: str, scheme: str, viewport: dict[str, int]
) -> None:
    write_samples(quiet_site)
    page = new_page(locale=locale, color_scheme=scheme, viewport=viewport)
    browsing.enter(page, quiet_site, who)
    page.goto(f"{quiet_site.address}/")
    assert browsing.overflow(page) == 0
    name = f"overview-{locale[:2]}-{scheme}-{viewport['width']}.png"
    page.screenshot(path=browsing.shots() / name, full_page=True)


@pytest.mark.parametrize("viewport", [{"width": 1280, "height": 900}, PHONE], ids=["desk", "phone"])
def test_nobody_is_kept_from_using_it(
    new_page: Pages, quiet_site: Site, accessible: Callable[[Page], None], viewport: dict[str, int]
) -> None:
    write_samples(quiet_site)
    page = new_page(viewport=viewport)
    browsing.enter(page, quiet_site, "operator")
    page.goto(f"{quiet_site.address}/")
    page.get_by_text("As a table").click()
    accessible(page)


class Answering:
    """A site whose postqueue says what a test wants."""

    def __init__(self, site: Site, commands: Path) -> None:
        self.site = site
        self._command = commands / "postqueue"
        self._real = self._command.read_text()

    def says(self, complaint: tuple[str, int], rows: str = "") -> None:
        words, status = complaint
        (self._command.parent / "rows").write_text(rows)
        # The words are of our own tables and hold no quote.
        script = f"#!/bin/sh\ncat {self._command.parent}/rows\necho '{words}' >&2\nexit {status}\n"
        self._replace(script)

    def is_real(self) -> None:
        self._replace(self._real)

    def _replace(self, script: str) -> None:
        partial = self._command.with_suffix(".partial")
        partial.write_text(script)
        partial.chmod(0o755)
        partial.rename(self._command)


@pytest.fixture
def answering(box: Sandbox) -> Iterator[Answering]:
    with services.place() as directory:
        commands = services.watched_commands(directory / "commands")
        given = {"command_directory": str(commands), "snapshot_max_age_seconds": "1", "sample_interval_seconds": "0"}
        with browsing.site_of(box, **given) as made:
            yield Answering(made, commands)


def test_when_postfix_is_down_what_was_known_last_is_shown_as_such_until_it_is_up_again(
    page: Page, answering: Answering, accessible: Callable[[Page], None]
) -> None:
    browsing.enter(page, answering.site, "operator")
    page.goto(f"{answering.site.address}/")
    answering.says(DOWN)
    browsing.until(page, lambda: "Postfix is down" in page.locator("#overview-state").inner_text())
    expect(page.locator("#overview-notes")).to_contain_text("Nothing is known of the queue now.")
    expect(page.locator("#overview-notes")).to_contain_text("Below is what was known")
    assert card(page, "deferred") == known_last(answering.site, "deferred")
    assert "old" in str(page.locator("#overview-queues").get_attribute("class"))
    expect(page.locator("#live")).to_have_text("Postfix is down. Nothing is known of the queue now.")
    assert "Not known." in page.locator("#overview-operations").inner_text()
    assert len(links(page, "reasons")) >= 3
    page.screenshot(path=browsing.shots() / "overview-down.png", full_page=True)
    accessible(page)
    answering.is_real()
    browsing.until(page, lambda: "Postfix is running" in page.locator("#overview-state").inner_text())
    expect(page.locator("#overview-notes")).not_to_contain_text("Nothing is known")


def test_when_nothing_was_ever_known_nothing_is_shown_as_zero(page: Page, answering: Answering) -> None:
    answering.says(DOWN)
    browsing.enter(page, answering.site, "viewer")
    page.goto(f"{answering.site.address}/")
    assert "mail_system_down" in page.locator("#overview-notes").inner_text()
    for part in ("queues", "ages", "reasons", "sites", "senders", "operations"):
        assert "Not known." in page.locator(f"#overview-{part}").inner_text()
        assert re.search(r"\d", page.locator(f"#overview-{part}").inner_text()) is None


def test_without_a_listing_the_last_sample_tells_what_was_known(page: Page, answering: Answering) -> None:
    answering.says(DOWN)
    write_samples(answering.site)
    browsing.enter(page, answering.site, "viewer")
    page.goto(f"{answering.site.address}/")
    assert card(page, "hold") == "6"
    assert "Below is what was known" in page.locator("#overview-notes").inner_text()
    assert "Size \N{EN DASH}" in page.locator("#overview-queues").inner_text()


def test_numbers_of_a_listing_that_broke_off_are_said_to_be_least_numbers(
    page: Page, answering: Answering, accessible: Callable[[Page], None]
) -> None:
    row = {
        "queue_name": "deferred",
        "arrival_time": 1000,
        "message_size": 10,
        "sender": "a@example.com",
        "recipients": [],
    }
    answering.says(BROKE_OFF, "".join(json.dumps({**row, "queue_id": f"A00000{number}"}) + "\n" for number in range(3)))
    browsing.enter(page, answering.site, "viewer")
    page.goto(f"{answering.site.address}/")
    assert card(page, "deferred") == "at least 3"
    assert "These numbers are not complete." in page.locator("#overview-notes").inner_text()
    accessible(page)


def test_without_an_agent_the_last_numbers_stay_and_the_reason_is_told(page: Page, box: Sandbox) -> None:
    with services.place() as directory:
        shared = {"state_directory": str(directory / "state"), "agent_socket": str(directory / "run" / "agent.sock")}
        given = {**shared, "credentials": browsing.credentials()}
        with services.started(box, given, command="agent", wait=False) as agent:
            processes.wait_until(lambda: services.listens(agent.agent_socket), 30)
            with services.started(box, given, command="web") as web:
                site = Site(box, web)
                browsing.enter(page, site, "viewer")
                page.goto(f"{site.address}/")
                agent.stop()
                notes = page.locator("#overview-notes")
                browsing.until(page, lambda: "agent_unavailable" in notes.inner_text())
                assert card(page, "deferred") == known_last(site, "deferred")
                assert "Whether Postfix runs is not known" in page.locator("#overview-state").inner_text()


def test_a_postfix_that_is_stopped_is_said_to_be_down_though_its_queue_can_be_read(
    page: Page, quiet: Site, quiet_box: Sandbox
) -> None:
    Mailbox(quiet_box).held()
    quiet.ask("GET", "/v1/queues", cache_control="no-cache")  # the page may show a listing for half a minute
    browsing.enter(page, quiet, "operator")
    page.goto(f"{quiet.address}/")
    held = card(page, "hold")
    quiet_box.stop_postfix()
    try:
        browsing.until(page, lambda: "Postfix is down" in page.locator("#overview-state").inner_text())
        expect(page.locator("#overview-notes")).to_contain_text("Nothing is delivered")
        expect(page.locator("#live")).to_have_text(
            "Postfix is down: nothing is delivered. The queue itself could be read."
        )
        assert card(page, "hold") == held != "0"
    finally:
        quiet_box.start_postfix()


def full_listing() -> str:
    """Mail for eight domains, some in each column of ages, with long reasons."""
    sites = [f"mail-{number}.customers.example.com" for number in range(8)]
    ages = [60, *(60 * 20 << number for number in range(8))]
    reason = "host {}[192.0.2.1] said: 421-4.7.0 [TSS0{}] An unusual rate of mail from your address was seen (in reply)"
    rows = [
        {
            "queue_name": ("deferred", "hold", "active", "incoming")[number % 4],
            "queue_id": f"A{number:06}",
            "arrival_time": int(time.time()) - ages[number // 8],
            "message_size": 1000,
            "sender": f"somebody-{number % 8}@department.example.com",
            "recipients": [
                {"address": f"a@{sites[number % 8]}", "delay_reason": reason.format(sites[number % 8], number % 8)}
            ],
        }
        for number in range(8 * len(ages))
    ]
    return "".join(json.dumps(row) + "\n" for row in rows)


def test_the_first_load_of_a_queue_with_all_there_can_be_is_small(page: Page, answering: Answering) -> None:
    answering.says(("", 0), full_listing())
    write_samples(answering.site)
    browsing.log_in(page, answering.site, "operator", "/operations")
    loaded: dict[str, int] = {}
    page.on("response", lambda response: loaded.update({response.url: len(response.body())}))
    page.goto(f"{answering.site.address}/?hours=24", wait_until="networkidle")
    page.reload(wait_until="networkidle")
    assert page.locator(".heat td a").count() == 72
    assert page.locator("#overview-reasons .bars li").count() == 8
    assert len([url for url in loaded if "/dashboard/" in url]) >= 3
    assert sum(size for url, size in loaded.items() if "/v1/" not in url) < 60_000, loaded
