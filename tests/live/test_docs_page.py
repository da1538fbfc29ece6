"""/docs in Debian's Chromium, on a real server: it shows every operation, breaks no policy, and asks no other host."""

import hashlib
import http.client
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest
from playwright.sync_api import Page, sync_playwright

from postqueue_api.config import PREFIX
from postqueue_api.sandbox import processes

TOKEN = "a-token-of-sufficient-length-for-the-page"
FLAGS = (
    "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking", "--disable-component-update",
    "--disable-sync",
)  # fmt: skip
# Told by the page itself, also when the browser would not print it.
WATCH = (
    "window.refused = []; document.addEventListener('securitypolicyviolation', e => window.refused.push(e.blockedURI))"
)


@dataclass
class Visit:
    """What the browser asked for, was told, and complained about while it showed a page."""

    page: Page
    address: str
    requests: list[str] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)
    statuses: dict[str, int] = field(default_factory=dict)


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Web on its own: the page needs neither agent nor Postfix."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    state = tmp_path_factory.mktemp("state")
    settings = {
        "bind": f"127.0.0.1:{port}",
        "user": "nobody",
        "state_directory": str(state),
        "agent_socket": str(state / "agent.sock"),
        "credentials": f'[reader]\ntoken_sha256 = "{hashlib.sha256(TOKEN.encode()).hexdigest()}"\nroles = ["viewer"]\n',
        "web_workers": "1",
    }
    environment = {**os.environ, **{PREFIX + name.upper(): value for name, value in settings.items()}}
    with subprocess.Popen([sys.executable, "-m", "postqueue_api", "web"], env=environment) as web:
        try:
            await_answer(web, port)
            yield f"http://127.0.0.1:{port}"
        finally:
            web.terminate()


def await_answer(web: "subprocess.Popen[bytes]", port: int) -> None:
    deadline = time.monotonic() + 20
    while web.poll() is None and time.monotonic() < deadline:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
        try:
            connection.request("GET", "/health/live")
            assert connection.getresponse().status == 200
        except OSError:
            time.sleep(0.05)
        else:
            return
        finally:
            connection.close()
    raise AssertionError("web did not answer")


@pytest.fixture(scope="module")
def visit(address: str) -> Iterator[Visit]:
    """The page, shown to its end."""
    chromium = shutil.which("chromium")
    assert chromium is not None, "this test needs Debian's chromium"
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=FLAGS)
        page = browser.new_context(viewport={"width": 1200, "height": 1600}).new_page()
        seen = Visit(page, address)
        page.add_init_script(WATCH)
        page.on("request", lambda request: seen.requests.append(request.url))
        page.on("response", lambda response: seen.statuses.__setitem__(response.url, response.status))
        page.on("requestfailed", lambda request: seen.complaints.append(f"failed: {request.url}"))
        page.on("pageerror", lambda error: seen.complaints.append(str(error)))
        page.on(
            "console", lambda said: seen.complaints.append(said.text) if said.type in ("error", "warning") else None
        )
        page.goto(f"{address}/docs")
        page.wait_for_selector(".opblock, .loading-container .errors-wrapper, .errors", timeout=20_000)
        page.wait_for_load_state("networkidle")
        yield seen
        browser.close()


def operations(visit: Visit) -> set[tuple[str, str]]:
    """What the service says that it has: method and path."""
    document = visit.page.request.get(f"{visit.address}/openapi.json").json()
    return {
        (method.upper(), path)
        for path, methods in document["paths"].items()
        for method in methods
        if method != "parameters"
    }


def test_every_operation_is_shown_with_method_and_path(visit: Visit) -> None:
    shown = visit.page.locator(".opblock-summary").evaluate_all(
        "all => all.map(one => [one.querySelector('.opblock-summary-method').textContent,"
        " one.querySelector('[data-path]').dataset.path])"
    )
    assert {(method, path) for method, path in shown} == operations(visit)
    assert len(shown) > 10


def test_the_title_is_shown_and_no_error(visit: Visit) -> None:
    assert "postqueue-api" in visit.page.locator(".info .title").inner_text()
    assert visit.page.locator(".errors-wrapper, .errors, .loading-container.failed").count() == 0


def test_an_operation_opens_and_tells_of_its_problem_documents(visit: Visit) -> None:
    visit.page.locator(".opblock-get .opblock-summary-control").first.click()
    opened = visit.page.locator(".opblock.is-open").first
    opened.wait_for()
    assert "application/problem+json" in opened.inner_text()


def test_the_page_breaks_no_policy_and_complains_of_nothing(visit: Visit) -> None:
    assert visit.page.evaluate("window.refused") == []
    assert visit.complaints == []
    assert {url: status for url, status in visit.statuses.items() if status != 200} == {}


def test_the_page_asks_no_other_host(visit: Visit) -> None:
    loaded = [url for url in visit.requests if not url.startswith("data:")]
    assert f"{visit.address}/openapi.json" in loaded
    assert [url for url in loaded if not url.startswith(f"{visit.address}/")] == []


def test_the_policy_of_the_page_lets_nothing_in_from_outside_and_no_inline_script(visit: Visit) -> None:
    policy = visit.page.request.get(f"{visit.address}/docs").headers["content-security-policy"]
    assert policy.startswith("default-src 'none'")
    assert "unsafe" not in policy
    assert "http" not in policy
    assert "*" not in policy


def test_a_script_that_is_put_into_the_page_does_not_run(visit: Visit) -> None:
    page = visit.page.context.new_page()
    page.add_init_script(WATCH)
    page.goto(f"{visit.address}/docs")
    page.evaluate("document.body.append(Object.assign(document.createElement('script'), {text: 'window.ran = true'}))")
    assert page.evaluate("window.ran") is None
    processes.wait_until(lambda: page.evaluate("window.refused.includes('inline')"), 10)
    page.close()
