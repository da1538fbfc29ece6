"""Login, session and logout: who gets in, what a cookie is worth, and what a page of another site can do with it."""

import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from playwright.sync_api import Page

from postqueue_api.config import load
from postqueue_api.sandbox import Sandbox
from postqueue_api.web.app import create_app
from tests.dashboard import browsing
from tests.dashboard.browsing import ROLES, SECRETS, Complaints, Site
from tests.dashboard.visitor import COOKIE, Visitor

CHANGE = "/v1/messages/4zzzzzzzzzzzzzz9/hold"  # a message that there is not: past the door it is 404
FOREIGN = "https://evil.example"


@pytest.fixture
def visitor(site: Site) -> Visitor:
    return Visitor(site)


@pytest.fixture
def operator(visitor: Visitor) -> Visitor:
    """Somebody who is logged in as operator."""
    assert visitor.log_in("operator").status == 303
    return visitor


# In a browser.


def test_a_page_leads_to_the_login_and_from_there_back(page: Page, site: Site, login: Callable[..., None]) -> None:
    page.goto(f"{site.address}/operations?next=5")
    assert page.url == f"{site.address}/login?next=/operations%3Fnext%3D5"
    assert page.evaluate("document.activeElement.id") == "name"
    page.keyboard.type("operator")
    page.keyboard.press("Tab")
    page.keyboard.type(SECRETS["operator"])
    page.keyboard.press("Enter")
    page.wait_for_url(f"{site.address}/operations?next=5")
    assert "operator" in page.locator(".who").inner_text()


def test_a_wrong_password_is_said_plainly_and_the_name_stays(page: Page, site: Site, complaints: Complaints) -> None:
    complaints.expected.add(401)
    page.goto(f"{site.address}/login?next=/trash")
    page.fill("#name", "admin")
    page.fill("#password", "wrong")
    page.keyboard.press("Enter")
    page.get_by_role("alert").wait_for()
    assert "do not fit" in page.get_by_role("alert").inner_text()
    assert page.input_value("#name") == "admin"
    assert page.input_value("#password") == ""
    page.fill("#password", SECRETS["admin"])
    page.keyboard.press("Enter")
    page.wait_for_url(f"{site.address}/trash")


def test_logging_out_ends_the_session_in_every_tab(page: Page, site: Site, login: Callable[..., None]) -> None:
    login(page, "viewer")
    other = page.context.new_page()
    other.goto(f"{site.address}/trash")
    page.get_by_role("button", name="Log out").click()
    page.wait_for_url(f"{site.address}/login?notice=logged_out")
    assert "logged out" in page.get_by_role("main").inner_text()
    other.reload()
    assert other.url == f"{site.address}/login?next=/trash"
    page.go_back()
    page.reload()
    assert page.url == f"{site.address}/login?next=/"


def test_a_link_on_another_site_opens_the_page_for_who_is_logged_in(
    page: Page, site: Site, login: Callable[..., None]
) -> None:
    login(page, "viewer")
    elsewhere = f"http://localhost:{site.service.port}/login"  # another site than 127.0.0.1, for a browser
    page.goto(elsewhere)
    page.evaluate("address => { location.href = address }", f"{site.address}/trash?x=1")
    page.wait_for_url(f"{site.address}/trash?x=1")
    page.locator(".who").wait_for()


@pytest.fixture
def neighbour(site: Site) -> Iterator[str]:
    """A page on another port of the same host, which for browsers is another origin of the same site."""
    text = f'<title>x</title><img alt="" src="{site.address}/trash"><a href="{site.address}/trash?x=1">Trash</a>'

    class Page(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200 if self.path == "/" else 204)
            self.send_header("Content-Type", "text/html")
            self.end_headers()
            self.wfile.write(text.encode() if self.path == "/" else b"")

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - as it is named there
            """Says nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Page) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()


def test_a_link_of_another_port_opens_the_page_and_logs_nobody_out(page: Page, site: Site, neighbour: str) -> None:
    browsing.enter(page, site, "viewer")
    with page.expect_request(f"{site.address}/trash"):  # the image
        page.goto(neighbour, wait_until="load")
    page.get_by_role("link", name="Trash").click()
    page.wait_for_url(f"{site.address}/trash?x=1")
    page.locator(".who").wait_for()


def test_a_form_on_another_site_changes_nothing(
    page: Page, site: Site, login: Callable[..., None], complaints: Complaints
) -> None:
    complaints.expected |= {401, 403}
    login(page, "operator")
    token = page.get_attribute("body", "data-csrf")
    page.route(
        "http://evil.test/",
        lambda route: route.fulfill(
            content_type="text/html",
            body=f'<form method=post action="{site.address}/logout"><input name=csrf_token value="{token}"></form>'
            "<script>document.forms[0].submit()</script>",
        ),
    )
    with page.expect_response(f"{site.address}/logout") as answered:
        page.goto("http://evil.test/")
    assert answered.value.status in (401, 403)
    page.goto(f"{site.address}/trash")
    page.locator(".who").wait_for()


@pytest.mark.parametrize("path", ["/", "/trash", "/login?next=/trash"])
@pytest.mark.parametrize("headers", [{"sec_fetch_site": "same-site"}, {"sec_fetch_site": "cross-site"}])
def test_a_page_that_another_origin_asks_for_leaves_the_cookie_alone_and_comes_at_the_second_try(
    operator: Visitor, path: str, headers: dict[str, str]
) -> None:
    answer = operator.ask("GET", path, **headers)
    assert (answer.status, answer.headers.get("Set-Cookie")) == (200, None)
    assert f'content="0;url={path}"' in answer.body.decode()
    assert "operator" not in answer.body.decode()
    assert operator.is_in()


# What a cookie is worth.


def test_the_cookie_is_for_browsers_alone_and_never_leaves_for_another_site(visitor: Visitor) -> None:
    written = visitor.log_in("viewer").headers["Set-Cookie"]
    assert written.startswith(f"{COOKIE}=")
    assert {"HttpOnly", "SameSite=Strict", "Path=/"} <= set(written.split("; "))
    assert "Secure" not in written


@pytest.mark.parametrize("who", ROLES)
def test_each_role_logs_in_and_may_what_its_roles_say(site: Site, who: str) -> None:
    visitor = Visitor(site)
    assert visitor.log_in(who).status == 303
    can_change = visitor.ask("POST", CHANGE, x_csrf_token=visitor.token())
    assert can_change.status == (403 if "viewer" in who else 404)
    raw = visitor.ask("GET", "/v1/messages/4zzzzzzzzzzzzzz9/raw")
    assert raw.status == (404 if "content" in who else 403)


@pytest.mark.parametrize(
    ("name", "secret"),
    [
        ("operator", ""),
        ("operator", "wrong"),
        ("operator", SECRETS["admin"]),
        ("admin", SECRETS["operator"]),
        ("admin", SECRETS["admin"] + "\0"),
        ("admin", SECRETS["admin"] + "x" * 72),
        ("ADMIN", SECRETS["admin"]),
        ("nobody", SECRETS["admin"]),
        ("", SECRETS["operator"]),
        ("viewer\n", SECRETS["viewer"]),
    ],
    ids=range(10),  # secrets are none
)
def test_nobody_else_gets_in(visitor: Visitor, name: str, secret: str) -> None:
    answer = visitor.log_in(name, secret)
    assert answer.status == 401
    assert "WWW-Authenticate" not in answer.headers
    assert visitor.cookies == {}
    assert secret == "" or secret not in answer.body.decode()


def test_no_forged_cookie_opens_the_door(operator: Visitor) -> None:
    good = operator.cookie
    payload, _, signature = good.rpartition(".")
    for forged in ("", "x", payload, f"{payload}.", f"{payload}.{signature[::-1]}", f"{payload[::-1]}.{signature}"):
        operator.cookies[COOKIE] = forged
        assert not operator.is_in(), forged
        assert operator.ask("GET", "/").status == 303
    operator.cookies[COOKIE] = good
    assert operator.is_in()


def test_a_cookie_of_another_service_opens_nothing(box: Sandbox, operator: Visitor) -> None:
    with browsing.site_of(box) as other:
        stranger = Visitor(other, dict(operator.cookies))
        assert not stranger.is_in()
    assert operator.is_in()


def test_a_copy_of_the_cookie_is_worth_nothing_after_the_logout_whichever_worker_is_asked(operator: Visitor) -> None:
    copy = Visitor(operator.site, dict(operator.cookies))
    assert copy.is_in()
    assert operator.ask("POST", "/logout", {"csrf_token": operator.token()}).status == 303
    assert operator.cookies == {}
    assert [copy.is_in() for _ in range(12)] == [False] * 12
    assert copy.ask("GET", "/").headers["Location"] == "/login?next=/"


def test_a_new_login_ends_the_session_before(operator: Visitor) -> None:
    copy = Visitor(operator.site, dict(operator.cookies))
    operator.log_in("viewer")
    assert operator.is_in()
    assert not copy.is_in()


# What a page of another site can do.


def test_a_change_needs_the_token_of_its_own_session(operator: Visitor) -> None:
    other = Visitor(operator.site)
    other.log_in("operator")
    for token in (None, "", "wrong", other.token(), operator.cookie):
        answer = operator.ask("POST", CHANGE, x_csrf_token=token)
        assert (answer.status, answer.code) == (403, "forbidden"), token
    assert operator.ask("POST", CHANGE, x_csrf_token=operator.token()).status == 404


@pytest.mark.parametrize("token", ["", "wrong", "of another session"])
def test_a_form_needs_the_token_of_its_own_session(operator: Visitor, token: str) -> None:
    if token == "of another session":
        other = Visitor(operator.site)
        other.log_in("operator")
        token = other.token()
    assert operator.ask("POST", "/logout", {"csrf_token": token}).status == 403
    assert operator.ask("POST", "/logout", {}).status == 403
    assert operator.ask("POST", "/logout", b"", content_type="text/plain").status == 403
    assert operator.is_in()


@pytest.mark.parametrize(
    "headers",
    [
        {"origin": FOREIGN},
        {"origin": "null"},
        {"sec_fetch_site": "cross-site"},
        {"sec_fetch_site": "same-site"},
    ],
)
def test_a_request_of_another_origin_has_no_use_of_the_cookie(operator: Visitor, headers: dict[str, str]) -> None:
    token = operator.token()
    assert operator.ask("GET", "/v1/operations", **headers).status == 401
    assert operator.ask("POST", CHANGE, x_csrf_token=token, **headers).status == 401
    assert operator.ask("POST", "/logout", {"csrf_token": token}, **headers).status in (401, 403)
    assert operator.is_in()


@pytest.mark.parametrize(
    "headers", [{"origin": FOREIGN}, {"origin": "null"}, {"origin": None}, {"sec_fetch_site": "cross-site"}]
)
def test_nobody_is_logged_in_by_a_form_of_another_site(visitor: Visitor, headers: dict[str, str | None]) -> None:
    answer = visitor.log_in("viewer", **headers)
    assert answer.status == 403
    assert visitor.cookies == {}


@pytest.mark.parametrize(
    "address",
    [
        FOREIGN,
        "//evil.example",
        "/\\evil.example",
        "/\t/evil.example",
        "\\\\evil.example",
        "https:evil.example",
        "javascript:alert(1)",
        "/x\r\nSet-Cookie: a=b",
        "evil.example",
        "",
        " /",
    ],
)
def test_the_login_goes_on_to_a_page_of_ours_only(visitor: Visitor, address: str) -> None:
    answer = visitor.log_in("viewer", None, address)
    assert (answer.status, answer.headers["Location"]) == (303, "/")
    assert "a" not in visitor.cookies


# What pages say to browsers.


@pytest.mark.parametrize("path", ["/login", "/", "/trash", "/operations", "/operations/op-nothing"])
def test_no_page_is_stored_framed_or_open_to_foreign_scripts(operator: Visitor, path: str) -> None:
    for visitor in (operator, Visitor(operator.site)):
        headers = visitor.ask("GET", path).headers
        assert headers["Cache-Control"] == "no-store"
        assert headers["X-Frame-Options"] == "DENY"
        policy = headers["Content-Security-Policy"]
        assert policy.startswith("default-src 'none'; ")
        assert "frame-ancestors 'none'" in policy
        assert "unsafe" not in policy
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert headers["Referrer-Policy"] == "same-origin"
        assert "WWW-Authenticate" not in headers


def test_the_api_opens_no_box_of_the_browser_when_a_page_asks(operator: Visitor) -> None:
    operator.cookies[COOKIE] = "ended"
    challenged = operator.ask("GET", "/v1/status").headers.get_all("WWW-Authenticate")
    assert challenged == ['Session realm="postqueue-api"']
    operator.cookies.clear()
    assert operator.ask("GET", "/v1/status", x_csrf_token="x").headers.get_all("WWW-Authenticate") == challenged
    assert len(operator.ask("GET", "/v1/status").headers.get_all("WWW-Authenticate") or []) == 2


OPEN = ("dashboard.login.show_login", "dashboard.login.log_in", "dashboard.login.keep_theme", "dashboard.assets.")
VALUES = {"queue_id": "4zzzzzzzzzzzzzz9", "operation_id": "op-0000000000000000", "change": "cancel", "action": "hold"}


def pages() -> Iterator[tuple[str, str]]:
    """Method and path of every page but those that anybody may see."""
    app = create_app(load({"POSTQUEUE_API_CREDENTIALS": browsing.credentials()}))
    adapter = app.url_map.bind("")
    for rule in app.url_map.iter_rules():
        if rule.endpoint.startswith("dashboard.") and not rule.endpoint.startswith(OPEN):
            for method in sorted((rule.methods or set()) - {"OPTIONS"}):
                yield method, adapter.build(rule.endpoint, {name: VALUES[name] for name in rule.arguments}, method)


def test_every_page_is_for_those_who_are_logged_in(visitor: Visitor) -> None:
    found = list(pages())
    assert len(found) > 15
    for method, path in found:
        answer = visitor.ask(method, path, {} if method == "POST" else None)
        if method == "POST":
            assert answer.status == 401, path
        else:
            assert (answer.status, answer.headers["Location"].partition("?")[0]) == (303, "/login"), path


def test_every_form_needs_the_token(operator: Visitor) -> None:
    for path in [path for method, path in pages() if method == "POST"]:
        assert operator.ask("POST", path, {}).status == 403, path
    assert operator.is_in()


@pytest.mark.parametrize(
    ("language", "title", "sentence"),
    [
        ("en", "The form belongs to a session that has ended", "Nothing was done. Go back, load that page again,"),
        ("ja", "フォームのセッションは終了しています", "何も実行していません。"),
    ],
)
def test_a_form_of_another_session_is_told_as_such_with_the_way_out(
    operator: Visitor, language: str, title: str, sentence: str
) -> None:
    text = operator.ask("POST", "/preview", {"csrf_token": "old"}, accept_language=language).body.decode()
    assert f'<h1 id="problem-title">{title}</h1>' in text
    assert sentence in text
    assert 'lang="en">The form does not carry the token' in text
    foreign = operator.ask("POST", "/login", {}, origin=FOREIGN, accept_language=language).body.decode()
    assert (
        "The form was sent by another page" if language == "en" else "別のページから送信されたフォームです"
    ) in foreign


# The record and the limits.


def refusals(site: Site) -> list[tuple[str | None, str, str]]:
    return [
        (line["actor"], line["reason"], line["action"]) for line in site.service.audit() if line["event"] == "refused"
    ]


def test_refusals_are_in_the_audit_without_a_secret(operator: Visitor) -> None:
    site = operator.site
    before = len(refusals(site))
    Visitor(site).log_in("mallory", "a guess")
    operator.ask("POST", CHANGE)
    operator.ask("POST", "/logout", {})
    operator.cookies[COOKIE] = "forged"
    operator.ask("GET", "/v1/operations")
    assert refusals(site)[before:] == [
        (None, "refused", "POST /login"),
        ("operator", "csrf", "POST /v1/messages/<queue_id>/hold"),
        ("operator", "csrf", "POST /logout"),
        (None, "session", "GET /v1/operations"),
    ]
    said = site.service.stdout + site.service.stderr
    assert "a guess" not in said
    assert not any(secret in said for secret in SECRETS.values())


def test_login_and_logout_are_in_the_audit(visitor: Visitor) -> None:
    audit = visitor.site.service.audit
    before = len(audit())
    visitor.log_in("operator-content")
    visitor.ask("POST", "/logout", {"csrf_token": visitor.token()})
    lines = [line for line in audit()[before:] if line["event"] == "session"]
    assert [(line["actor"], line["role"], line["action"], line["reason"], line["outcome"]) for line in lines] == [
        ("operator-content", "operator+content", "log_in", "password", "begun"),
        ("operator-content", "operator+content", "log_out", None, "ended"),
    ]
    assert all(line["address"] == "127.0.0.1" and line["request_id"] for line in lines)


def test_an_address_that_guesses_is_locked_out_of_login_and_api_alike(box: Sandbox) -> None:
    with browsing.site_of(box, lockout_refusals="3") as site:
        inside = Visitor(site)
        inside.log_in("viewer")
        for _ in range(3):
            assert Visitor(site).log_in("viewer", "wrong").status == 401
        for answer in (
            Visitor(site).log_in("viewer"),
            inside.ask("GET", "/v1/operations"),
            inside.ask("GET", "/trash"),
        ):
            assert answer.status == 429
            assert int(answer.headers["Retry-After"]) > 0


def test_pages_and_their_requests_count_as_those_of_the_principal(box: Sandbox) -> None:
    with browsing.site_of(box, requests_per_minute="5") as site:
        visitor = Visitor(site)
        visitor.log_in("viewer")
        assert [visitor.ask("GET", "/v1/operations").status for _ in range(6)].count(429) == 2
        assert visitor.ask("GET", "/trash").status == 429
