"""What the tests of changes share: a preview without the page of messages before it, and forms that nobody typed."""

from typing import Any
from urllib.parse import urlencode

from playwright.sync_api import APIResponse, Page

from tests.dashboard.browsing import Site

Fields = list[tuple[str, str]]
_SEND = """fields => {
  const form = document.createElement('form');
  form.method = 'post';
  form.action = '/preview';
  for (const [name, value] of [...fields, ['csrf_token', document.body.dataset.csrf]]) {
    const input = document.createElement('input');
    [input.type, input.name, input.value] = ['hidden', name, value];
    form.append(input);
  }
  document.body.append(form);
  form.submit();
}"""


def preview(page: Page, *fields: tuple[str, str]) -> None:
    """Send a form to /preview, from a page of somebody who is logged in."""
    with page.expect_navigation():
        page.evaluate(_SEND, [list(each) for each in fields])


def send(page: Page, address: str, fields: Fields, token: str | None = "") -> APIResponse:
    """A POST with the session of this page but without its forms. `token`: "" for the right one, None for none."""
    shown = [] if token is None else [("csrf_token", token or str(page.evaluate("document.body.dataset.csrf")))]
    headers = {
        "Origin": "/".join(address.split("/")[:3]),
        "Content-Type": "application/x-www-form-urlencoded",
    }
    return page.request.post(address, data=urlencode([*fields, *shown]), max_redirects=0, headers=headers)


def fields_of(page: Page, form: str) -> Fields:
    """What a form would send."""
    found: Fields = page.evaluate("form => [...new FormData(document.querySelector(form))]", form)
    return [(name, value) for name, value in found]


def alerts(page: Page) -> list[str]:
    """What the page says is wrong."""
    return page.locator("main [role=alert]").all_inner_texts()


def newest_operation(site: Site) -> dict[str, Any]:
    """The operation that was asked for last."""
    found: dict[str, Any] = site.ask("GET", "/v1/operations?limit=1").json()["operations"][0]
    return found


def operation_of(site: Site, page: Page) -> dict[str, Any]:
    """The operation whose page this is."""
    found: dict[str, Any] = site.ask("GET", f"/v1{page.url.removeprefix(site.address).split('?')[0]}").json()
    return found
