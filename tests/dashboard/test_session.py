"""Sessions over time and over TLS: credentials that change, cookies for TLS alone, certificates that log in."""

import os
import re
import ssl
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser

from postqueue_api.sandbox import Sandbox
from tests.certificates import Authority
from tests.dashboard import browsing
from tests.dashboard.browsing import Complaints, Site
from tests.dashboard.visitor import COOKIE, Visitor
from tests.live import service as services

CHANGE = "/v1/messages/4zzzzzzzzzzzzzz9/hold"  # a message that there is not: past the door it is 404


# The credentials change.


@pytest.fixture(scope="module")
def file() -> Iterator[Path]:
    """A credentials file that the service can read."""
    with services.place() as directory:
        path = directory / "credentials.toml"
        path.touch(0o600)
        os.chown(path, *services.ids_of(services.USER))
        path.write_text(browsing.credentials())
        yield path


@pytest.fixture(scope="module")
def changeable(box: Sandbox, file: Path) -> Iterator[Site]:
    with browsing.site_of(box, credentials="", credentials_file=str(file)) as site:
        yield site


def test_a_session_has_the_roles_of_now(changeable: Site, file: Path) -> None:
    visitor, before = Visitor(changeable), file.read_text()
    visitor.log_in("operator")
    token = visitor.token()
    assert visitor.ask("POST", CHANGE, x_csrf_token=token).status == 404
    file.write_text(before.replace('roles = ["operator"]', 'roles = ["viewer"]'))
    changeable.box.wait_until(lambda: visitor.ask("POST", CHANGE, x_csrf_token=token).status == 403)
    assert visitor.is_in()
    file.write_text(before)
    changeable.box.wait_until(lambda: visitor.ask("POST", CHANGE, x_csrf_token=token).status == 404)


@pytest.mark.parametrize("kind", ["another password", "another token", "removed"])
def test_a_session_ends_with_its_credential_and_other_sessions_do_not(changeable: Site, file: Path, kind: str) -> None:
    who = "admin" if kind == "another password" else "operator"
    visitor, other, before = Visitor(changeable), Visitor(changeable), file.read_text()
    other.log_in("viewer")
    # Each worker looks at the file once a second: one that has not yet seen it as it was ends the session.
    changeable.box.wait_until(lambda: visitor.log_in(who).status == 303 and all(visitor.is_in() for _ in range(6)))
    tables = before.split("\n[")
    changed = {
        "another password": [re.sub(r'"\$2b.*"', f'"{services.hashed("another one")}"', each) for each in tables],
        "another token": [
            re.sub(r'"[0-9a-f]{64}"', f'"{"1" * 64}"', each) if each.startswith('"operator"]') else each
            for each in tables
        ],
        "removed": [each for each in tables if not each.startswith('"operator"]')],
    }[kind]
    file.write_text("\n[".join(changed))
    changeable.box.wait_until(lambda: not any(visitor.is_in() for _ in range(6)))
    file.write_text(before)
    changeable.box.wait_until(lambda: all(Visitor(changeable).log_in(who).status == 303 for _ in range(6)))
    assert not visitor.is_in(), "the old cookie stays worthless when the credential is as it was"
    assert other.is_in()


# TLS: cookies for it alone, and certificates that log in by themselves.

MAPPED = {"monitor": 'certificates = ["CN=monitor"]\nroles = ["viewer"]'}


@pytest.fixture(scope="module")
def authority() -> Iterator[Authority]:
    with services.place() as directory:
        yield Authority(directory)


@pytest.fixture(scope="module")
def secured(box: Sandbox, authority: Authority) -> Iterator[Site]:
    """A service that ends TLS itself and asks for certificates."""
    pair = authority.sign("server", "/CN=localhost", alternative="DNS:localhost,IP:127.0.0.1")
    settings = {
        "tls_certificate_file": str(pair.certificate),
        "tls_key_file": str(pair.key),
        "tls_client_ca_file": str(authority.certificate),
        "tls_client_certificates": "optional",
    }
    with browsing.site_of(box, credentials=browsing.credentials(**MAPPED), **settings) as site:
        yield site


def trusting(authority: Authority, subject: str | None = None) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=authority.certificate)
    if subject is not None:
        pair = authority.sign(subject, f"/CN={subject}")
        context.load_cert_chain(pair.certificate, pair.key)
    return context


def test_over_tls_the_cookie_is_for_tls_and_this_host_alone(secured: Site, authority: Authority) -> None:
    visitor = Visitor(secured, trust=trusting(authority))
    written = visitor.log_in("viewer").headers["Set-Cookie"]
    assert written.startswith(f"__Host-{COOKIE}=")
    assert {"Secure", "HttpOnly", "SameSite=Strict", "Path=/"} <= set(written.split("; "))
    assert visitor.is_in()
    visitor.cookies = {COOKIE: visitor.cookie}
    assert not visitor.is_in(), "a name that another host could have set"


def test_a_known_certificate_logs_in_by_itself_and_its_session_needs_the_token(
    secured: Site, authority: Authority
) -> None:
    visitor = Visitor(secured, trust=trusting(authority, "monitor"))
    shown = visitor.ask("GET", "/operations")
    assert shown.status == 200
    assert "monitor" in shown.body.decode()
    before = visitor.cookie
    token = visitor.token()
    assert visitor.cookie == before, "one session, not one for each page"
    assert visitor.ask("POST", "/logout", {}).status == 403
    assert visitor.ask("POST", "/logout", {"csrf_token": token}).status == 303
    assert visitor.cookies == {}


def test_the_login_is_not_shown_to_a_known_certificate_but_after_a_logout(secured: Site, authority: Authority) -> None:
    visitor = Visitor(secured, trust=trusting(authority, "monitor"))
    for notice in ("", "&notice=ended"):
        answer = visitor.ask("GET", f"/login?next=/trash{notice}")
        assert (answer.status, answer.headers["Location"]) == (303, "/trash")
        visitor.cookies.clear()
    assert b"You are logged out." in visitor.ask("GET", "/login?notice=logged_out").body
    assert visitor.cookies == {}


def test_a_page_of_another_site_has_no_use_of_a_certificate(secured: Site, authority: Authority) -> None:
    visitor = Visitor(secured, trust=trusting(authority, "monitor"))
    assert visitor.ask("POST", "/v1/flush", origin="https://evil.example").status == 403
    assert visitor.ask("POST", "/v1/flush", sec_fetch_site="cross-site", origin=None).status == 403
    assert visitor.ask("POST", "/logout", {}, origin="https://evil.example").status == 401
    assert visitor.ask("GET", "/trash", sec_fetch_site="cross-site").headers.get("Set-Cookie") is None
    answer = visitor.ask("POST", "/v1/flush", origin=None)
    assert (answer.status, answer.json()["required_role"]) == (403, "operator"), "a program is told of its role"


def test_a_certificate_of_nobody_leads_to_the_login(secured: Site, authority: Authority) -> None:
    visitor, before = Visitor(secured, trust=trusting(authority, "stranger")), len(secured.service.audit())
    assert visitor.ask("GET", "/").headers["Location"] == "/login?next=/"
    assert visitor.ask("GET", "/login?next=/").status == 200
    assert visitor.cookies == {}
    (last,) = secured.service.audit()[before:]  # one refusal, not another for the login
    assert (last["event"], last["reason"], last["certificate"]) == ("refused", "certificate", "commonName=stranger")
    assert visitor.log_in("operator").status == 303
    assert "operator" in visitor.ask("GET", "/trash").body.decode()


def test_chromium_logs_in_over_tls_and_its_cookie_is_kept_from_scripts(
    secured: Site, browser: Browser, complaints: Complaints
) -> None:
    context = browsing.contexts(browser, complaints, ignore_https_errors=True)
    page = context.new_page()
    browsing.log_in(page, secured, "viewer", "/trash")
    (cookie,) = [each for each in context.cookies() if each["name"].endswith(COOKIE)]
    assert (cookie["name"], cookie["secure"], cookie["httpOnly"], cookie["sameSite"]) == (
        f"__Host-{COOKIE}",
        True,
        True,
        "Strict",
    )
    assert COOKIE not in page.evaluate("document.cookie")
    complaints.check(context)
    context.close()


HTTPS = {"X-Forwarded-For": "192.0.2.1", "X-Forwarded-Proto": "https"}


def test_behind_a_proxy_that_ends_tls_the_cookie_is_for_tls_if_the_proxy_is_trusted(box: Sandbox) -> None:
    with browsing.site_of(box, trusted_proxies="127.0.0.2") as site:
        trusted = Visitor(site, headers=HTTPS, source="127.0.0.2")
        assert "; Secure" in trusted.log_in("viewer").headers["Set-Cookie"]
        assert trusted.is_in()
        stranger = Visitor(site, headers=HTTPS, source="127.0.0.3")
        assert "; Secure" not in stranger.log_in("viewer").headers["Set-Cookie"]
    with browsing.site_of(box, tls_ended_by_proxy="yes") as site:
        told = Visitor(site)
        assert "; Secure" in told.log_in("viewer").headers["Set-Cookie"]
        assert told.is_in()
