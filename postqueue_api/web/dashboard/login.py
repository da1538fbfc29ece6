"""Who may see the dashboard: the login page, the logout, and the guard before every other page."""

from urllib.parse import quote

from flask import Blueprint, Response, current_app, g, redirect, request

from postqueue_api.errors import Forbidden, Unauthorized
from postqueue_api.web import audit, origin, proxy, session
from postqueue_api.web.audit import NAME_LIMIT
from postqueue_api.web.context import context
from postqueue_api.web.credentials import Principal, Store
from postqueue_api.web.dashboard import page

login = Blueprint("login", __name__)

OPEN = {
    *(f"dashboard.login.{view}" for view in ("show_login", "log_in", "keep_theme")),
    "dashboard.assets.show_asset",
}


def guard() -> Response | None:
    """Let a request to a page pass, or send it to the login. A client certificate logs in by itself.

    Raises:   Unauthorized or Forbidden for a change without session or without its token
    """
    if request.endpoint in OPEN:
        return None
    proxy.check()
    context().limits.admit_address()
    found = session.current() or _by_certificate()
    if found is None:
        return _to_login()
    context().limits.admit_principal(found.principal.name)
    g.principal, g.session = found.principal, found
    if request.method not in ("GET", "HEAD") and (origin.is_foreign() or not session.has_token(found)):
        audit.refused("csrf", name=found.principal.name)
        kind = "foreign_form" if origin.is_foreign() else "stale_form"
        raise Forbidden("The form does not carry the token of this session, or another page sent it.", told_as=kind)
    return None


@login.get("/login")
def show_login() -> Response:
    """The form; who is logged in already, or has a certificate and did not just log out, is sent on."""
    proxy.check()
    context().limits.admit_address()
    if origin.is_foreign():
        return _again()
    following, notice = page.local(request.args.get("next")), request.args.get("notice")
    if session.current() is not None or (notice != "logged_out" and _by_certificate(is_asked=False) is not None):
        return _see(following)
    return page.render("login.html", following=following, notice=notice)


@login.post("/login")
def log_in() -> Response:
    """Begin a session, or say that name and password do not fit."""
    proxy.check()
    context().limits.admit_address()
    if not origin.is_ours():
        audit.refused("csrf", name=None)
        raise Forbidden("This form was sent by another page. Open the login page first.", told_as="foreign_form")
    name, following = request.form.get("name", ""), page.local(request.form.get("next"))
    principal = _known(name, request.form.get("password", ""))
    if principal is None:
        audit.refused("refused", name=_store().known_name(name))
        context().limits.note_refusal()
        return page.render("login.html", 401, following=following, notice="refused", name=name[:NAME_LIMIT])
    context().limits.admit_principal(principal.name)
    if (old := session.current()) is not None:
        session.sessions().end(old)
    response = _see(following)
    session.give(response, _begin(principal, "password"))
    return response


@login.post("/logout")
def log_out() -> Response:
    """End the session, for every copy of its cookie."""
    session.sessions().end(g.session)
    audit.record(event="session", action="log_out", outcome="ended")
    response = _see("/login?notice=logged_out")
    session.take_away(response)
    g.session_cookie = None
    return response


@login.post("/theme")
def keep_theme() -> Response:
    """Remember the colours that the reader chose. Anybody may, and nothing else is changed by it."""
    proxy.check()
    context().limits.admit_address()
    page.choose_theme()
    return _see(page.local(request.form.get("next")))


def hand_out(response: Response) -> Response:
    """Give the cookie of a session that a certificate began."""
    if g.get("session_cookie") is not None:
        session.give(response, g.session_cookie)
    return response


def _begin(principal: Principal, reason: str) -> str:
    """Begin a session, with a line in the audit. Returns:  its cookie"""
    who = {"actor": principal.name, "role": principal.role}
    audit.record(event="session", action="log_in", reason=reason, outcome="begun", **who)
    return session.sessions().begin(principal.name)


def _known(name: str, password: str) -> Principal | None:
    """The principal with that name and that password or token."""
    store = _store()
    found = store.verify_password(name, password) or store.verify_token(password)
    return found if found is not None and found.name == name else None


def _store() -> Store:
    store: Store = current_app.extensions["credentials"]
    return store


def _by_certificate(*, is_asked: bool = True) -> session.Session | None:
    """`is_asked`: a certificate that nobody knows is a refusal; the login shows its form instead."""
    shown = proxy.certificate()
    if shown is None or origin.is_foreign():
        return None
    subject, names = shown
    principal = _store().verify_certificate(names)
    if principal is None:
        if is_asked:
            audit.refused("certificate", name=None, certificate=subject)
            context().limits.note_refusal()
        return None
    g.session_cookie = _begin(principal, "certificate")
    return session.sessions().find(g.session_cookie)


def _to_login() -> Response:
    """The login, which leads back here; for a form that was sent a problem instead, for it would be lost."""
    if request.method not in ("GET", "HEAD"):
        raise Unauthorized("The session has ended. Log in again in another tab, then send this form again.")
    if origin.is_foreign():
        return _again()
    response = _see("/login?next=" + quote(request.full_path.rstrip("?"), safe="/"))
    if session.was_shown():
        session.take_away(response)
    return response


def _again() -> Response:
    """Has the browser ask again, from a page of ours: what a page of another origin made it ask uses no session.

    The cookie is left as it is. A browser keeps it to itself when a link of another site is followed, and of a link of
    another port or a sibling host, which is the same site, is not known whether a person followed it.
    """
    return page.render("again.html", address=page.local(request.full_path.rstrip("?")))


def _see(address: str) -> Response:
    return current_app.make_response(redirect(address, 303))
