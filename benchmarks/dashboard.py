"""The dashboard in Chromium, at a recorded listing of 100,000: how soon a page can be used, and what a tab costs."""

import statistics
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any
from urllib.parse import urlencode

from benchmarks.measure import seconds, table
from benchmarks.service import Client, empty_queue, recorded_commands, running, token

_MESSAGES = 100_000
_ROUNDS = 15
_POLLS = 720  # those of an hour
_POLL_SECONDS = 0.2
_SAMPLES = 6
_OLD = {"Cache-Control": "max-age=86400"}
_SELECTION = {"recipient_domain": "gmail.com", "reason": "421", "min_age": "4h", "sort": "-message_size"}
# Page: what it asks the API for.
_PAGES: dict[str, list[tuple[str, dict[str, object]]]] = {
    "/": [
        ("/v1/status", {}),
        ("/v1/samples", {}),
        ("/v1/ages", {"by": "recipient_domain", "columns": 9, "first": "15m", "limit": 8}),
        ("/v1/groups", {"by": "recipient_domain", "limit": 8}),
        ("/v1/groups", {"by": "sender", "limit": 8}),
    ],
    "/messages": [("/v1/messages", {"limit": 50})],
    f"/messages?{urlencode(_SELECTION)}": [("/v1/messages", {**_SELECTION, "limit": 50})],
}
_FLAGS = ("--no-sandbox", "--disable-gpu", "--js-flags=--expose-gc")
# Deferred modules have run before DOMContentLoaded ends: from then on everything answers.
_TIMES = """() => {
  const [page] = performance.getEntriesByType('navigation');
  return [page.domContentLoadedEventEnd, page.responseEnd - page.requestStart];
}"""
_FIRST = """() => performance.getEntriesByType('navigation').concat(performance.getEntriesByType('resource'))
  .filter(each => !each.name.includes('/v1/')).map(each => [new URL(each.name).pathname, each.encodedBodySize])"""
# Polls follow each other quickly, and each finds another status, so that the page is asked for and put in place anew.
_HASTE = f"""
const [later, ask] = [window.setTimeout, window.fetch];
let polls = 0;
window.setTimeout = (call, wait, ...rest) => later(call, wait >= 1000 ? {_POLL_SECONDS * 1000} : wait, ...rest);
window.fetch = async (address, options) => {{
  const response = await ask(address, options);
  if (!String(address).includes('/v1/status') || !response.ok) return response;
  const body = JSON.stringify({{ ...(await response.json()), polls: ++polls }});
  return new Response(body, {{ headers: {{ ETag: `"${{polls}}"` }} }});
}};
"""


def run() -> str:
    """Tables of times, of the first load, and of an hour in a tab."""
    with (
        empty_queue() as box,
        recorded_commands(box, _MESSAGES) as commands,
        running(box, command_directory=str(commands), snapshot_max_age_seconds="3600") as client,
        _listed(client),
        _tab(client) as page,
    ):
        return "\n".join((_times(client, page), _first_load(page, client), _hour(client, page)))


@contextmanager
def _listed(client: Client) -> Iterator[None]:
    client.get("/v1/queues")
    yield


@contextmanager
def _tab(client: Client) -> Iterator[Any]:
    """A tab of an admin who has logged in."""
    from playwright.sync_api import sync_playwright  # late: the other benchmarks run without the extra `test`

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path="/usr/bin/chromium", args=_FLAGS)
        page = browser.new_page(viewport={"width": 1280, "height": 900})
        page.goto(f"{_address(client)}/login")
        page.fill("#name", "p0")
        page.fill("#password", token(0))
        with page.expect_navigation():
            page.locator(".login button").click()
        yield page
        browser.close()


def _times(client: Client, page: Any) -> str:
    rows = []
    for address, asked in _PAGES.items():
        calls = [partial(client.get, path, query, **_OLD) for path, query in asked]
        page.goto(_address(client) + address)
        _all(calls)
        usable, answered, ratios = [], [], []
        for _ in range(_ROUNDS):
            below = seconds(partial(_all, calls)) * 1000
            page.goto("about:blank")
            page.goto(_address(client) + address)
            interactive, response = page.evaluate(_TIMES)
            usable.append(interactive)
            answered.append(response)
            ratios.append(response / below)
        rows.append(
            [
                f"`{address}`",
                f"{statistics.median(usable):.0f} ({min(usable):.0f} to {max(usable):.0f})",
                f"{statistics.median(answered):.0f}",
                f"{statistics.median(ratios):.1f}",
            ]
        )
    return table(["page at 100,000", "interactive, ms", "of it the answer, ms", "times the API calls below it"], rows)


def _first_load(page: Any, client: Client) -> str:
    rows = []
    for address in list(_PAGES)[:2]:
        # A new context has nothing in its cache.
        other = page.context.browser.new_context(storage_state=page.context.storage_state())
        fresh = other.new_page()
        fresh.goto(_address(client) + address)
        parts = fresh.evaluate(_FIRST)
        other.close()
        rows.append([f"`{address}`", f"{parts[0][1] / 1000:.1f}", f"{sum(size for _, size in parts) / 1000:.1f}"])
    return table(["first load", "HTML, kB", "with script, style and icon, compressed, kB"], rows)


def _hour(client: Client, page: Any) -> str:
    """The polls of an hour, one quickly after the other, all of which find news, as while mail moves."""
    page.add_init_script(_HASTE)
    polls = 0

    def count(response: Any) -> None:
        nonlocal polls
        polls += response.url.endswith("/v1/status")

    page.on("response", count)
    page.goto(f"{_address(client)}/messages")
    session = page.context.new_cdp_session(page)
    rows, cpu = [], client.processes.cpu_seconds()
    for sample in range(_SAMPLES + 1):
        while polls < _POLLS * sample / _SAMPLES:
            page.wait_for_timeout(_POLL_SECONDS * 1000)
        now = client.processes.cpu_seconds()
        rows.append([f"{polls}", *_heap(session), f"{client.processes.now():.0f}", f"{now - cpu:.1f}"])
    return table(["polls", "heap of the tab, MB", "nodes", "agent and web, MB", "their CPU, s"], rows)


def _heap(session: Any) -> tuple[str, str]:
    session.send("HeapProfiler.collectGarbage")
    counters = session.send("Memory.getDOMCounters")
    used = session.send("Runtime.getHeapUsage")["usedSize"]
    return f"{used / 1e6:.1f}", f"{counters['nodes']:,}"


def _all(calls: list[Callable[[], object]]) -> None:
    for call in calls:
        call()


def _address(client: Client) -> str:
    return f"http://127.0.0.1:{client.port}"
