"""A site to be looked at (a sandbox, a service for it, its principals), and what a browser complains about."""

import hashlib
import json
import os
import secrets
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

from axe_playwright_python.sync_playwright import Axe  # type: ignore[import-untyped]
from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Page, Response

from postqueue_api.sandbox import Sandbox
from tests.live import service as services
from tests.live.service import Answer, Service, hashed

FLAGS = (
    "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking", "--disable-component-update",
    "--disable-sync",
)  # fmt: skip
# Who there is: a principal for each role, with and without the right to read mail. The admin has a password.
ROLES = {
    **{role: [role] for role in ("viewer", "operator", "admin")},
    **{f"{role}-content": [role, "content"] for role in ("viewer", "operator", "admin")},
}
SECRETS = {name: secrets.token_urlsafe(18) for name in ROLES}
SERIOUS = ("serious", "critical")
_WATCH = """
window.refused = [];
document.addEventListener(
  'securitypolicyviolation', e => window.refused.push(`${e.effectiveDirective} ${e.blockedURI}`));
"""
_OVERLAPPING = """
document.querySelectorAll('main tbody .unseen').forEach(each => { each.hidden = true });
[...document.querySelectorAll('main tbody tr')].flatMap(row => {
  const cells = [...row.cells].flatMap(cell => {
    const range = document.createRange();
    range.selectNodeContents(cell);
    return [...range.getClientRects()].map(place => [cell, place]);
  });
  return cells.filter(([one, a]) => cells.some(([other, b]) => one !== other &&
    Math.min(a.right, b.right) - Math.max(a.left, b.left) > 1 &&
    Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top) > 1)).map(([cell]) => cell.outerHTML.slice(0, 100));
})
"""


def credentials(**others: str) -> str:
    """The text of a credentials file with all of them; `others`: further tables by name."""
    text = ""
    for name, roles in ROLES.items():
        proof = (
            f'password_hash = "{hashed(SECRETS[name])}"'
            if name == "admin"
            else f'token_sha256 = "{hashlib.sha256(SECRETS[name].encode()).hexdigest()}"'
        )
        text += f'["{name}"]\n{proof}\nroles = {json.dumps(roles)}\n'
    return text + "".join(f'["{name}"]\n{table}\n' for name, table in others.items())


@dataclass
class Site:
    """The service of a sandbox, and how to ask its API as one of the principals."""

    box: Sandbox
    service: Service

    @property
    def address(self) -> str:
        return f"http{'s' if self.service.has_tls else ''}://127.0.0.1:{self.service.port}"

    def ask(self, method: str, path: str, who: str = "admin-content", body: Any = None, **headers: str) -> Answer:
        """Ask the API as one of ROLES; a header X-Y is x_y."""
        token = SECRETS[who]
        proof = services.basic(who, token) if who == "admin" else f"Bearer {token}"
        given = {name.replace("_", "-"): value for name, value in headers.items()}
        return self.service.ask(method, path, None, {"Authorization": proof, **given}, body)


@contextmanager
def site_of(box: Sandbox, **settings: str) -> Iterator[Site]:
    """A service for a sandbox while the block lasts; `settings` in small letters."""
    with services.started(box, {"credentials": credentials(), "lock_wait_seconds": "1", **settings}) as service:
        yield Site(box, service)


@dataclass
class Complaints:
    """What the browser did not like. `expected`: the statuses that a test provokes."""

    found: list[str] = field(default_factory=list)
    expected: set[int] = field(default_factory=set)

    def watch(self, context: BrowserContext) -> None:
        context.add_init_script(_WATCH)
        context.on("page", self._watch_page)

    def _watch_page(self, page: Page) -> None:
        page.on("pageerror", lambda error: self.found.append(f"{page.url}: {error}"))
        page.on("console", lambda said: self._note(page, said))
        page.on("response", self._judge)

    def _note(self, page: Page, said: ConsoleMessage) -> None:
        # What failed to load is told by its status.
        if said.type in ("error", "warning") and "Failed to load resource" not in said.text:
            self.found.append(f"{page.url}: {said.text}")

    def _judge(self, response: Response) -> None:
        if response.status >= 400 and response.status not in self.expected:
            self.found.append(f"{response.status} {response.url}")

    def check(self, context: BrowserContext) -> None:
        """Nothing was complained about, and the policy refused nothing."""
        for page in context.pages:
            self.found += [f"{page.url}: refused {each}" for each in page.evaluate("window.refused || []")]
        assert self.found == []


def log_in(page: Page, site: Site, who: str, following: str = "/") -> None:
    """Log in by the form, and go to an address."""
    page.goto(f"{site.address}/login?next={quote(following)}")
    page.fill("#name", who)
    page.fill("#password", SECRETS[who])
    page.locator(".login button").click()
    page.wait_for_url(f"{site.address}{following}")


def enter(page: Page, site: Site, who: str) -> None:
    """Log in at once, without the form."""
    form = {"name": who, "password": SECRETS[who]}
    sent = {"Origin": site.address}
    answer = page.request.post(f"{site.address}/login", form=form, headers=sent, max_redirects=0)  # type: ignore[arg-type]
    assert answer.status == 303


def until(page: Page, holds: Callable[[], object], seconds: float = 40) -> None:
    """Have a page ask at once for what is new, again and again until something holds."""
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end, "it did not come"
        page.evaluate("dispatchEvent(new Event('online'))")
        page.wait_for_timeout(100)


def faults(page: Page, *rules: str) -> list[str]:
    """What axe finds serious or critical on a page, in the colours that it has now. `rules`: only by these."""
    options: dict[str, Any] = {"resultTypes": ["violations"], "preload": False}
    if rules:
        options["runOnly"] = {"type": "rule", "values": rules}
    found = Axe().run(page, options=options).response["violations"]
    return [
        f"{each['id']}: {node['target']} {node.get('failureSummary', '')}"
        for each in found
        if each["impact"] in SERIOUS
        for node in each["nodes"]
    ]


def overflow(page: Page) -> int:
    """How many pixels the page is wider than its window."""
    return int(page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth"))


def scrolled(page: Page) -> list[str]:
    """The tables of a page that are wider than their place, by name."""
    found: list[str] = page.eval_on_selector_all(
        ".scroll",
        "all => all.filter(each => each.scrollWidth > each.clientWidth).map(each =>"
        " `${each.getAttribute('aria-label') || each.getAttribute('aria-labelledby')} ${each.scrollWidth}`)",
    )
    return found


def overlapping(page: Page) -> list[str]:
    """Cells of one row of a table that lie upon one another."""
    return page.evaluate(_OVERLAPPING)  # type: ignore[no-any-return]


def outside(page: Page, selector: str) -> list[str]:
    """What of a page is not within the width of its window, and can be reached by scrolling a part of it at best."""
    found: list[str] = page.eval_on_selector_all(
        selector,
        "all => all.filter(each => { const place = each.getBoundingClientRect(); return place.width &&"
        " (place.left < 0 || place.right > document.documentElement.clientWidth) }).map(each => each.outerHTML)",
    )
    return found


def shots() -> Path:
    """Where screenshots go: POSTQUEUE_SHOTS, or a directory of its own."""
    found = Path(os.environ.get("POSTQUEUE_SHOTS") or tempfile.gettempdir() + "/postqueue-api-shots")
    found.mkdir(parents=True, exist_ok=True)
    return found


def contexts(browser: Browser, complaints: Complaints, **options: Any) -> BrowserContext:
    """A browser that has never been here, watched."""
    context = browser.new_context(**{"viewport": {"width": 1280, "height": 900}, "locale": "en-GB", **options})
    complaints.watch(context)
    return context
