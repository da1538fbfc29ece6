"""One page of the dashboard: the shell around it, what every template knows, and the headers of its answer."""

import re
import time
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlencode

from flask import Response, current_app, g, render_template, request
from werkzeug.exceptions import HTTPException, NotFound

from postqueue_api import __version__
from postqueue_api.errors import Error
from postqueue_api.web import audit, problem, session
from postqueue_api.web.credentials import Principal
from postqueue_api.web.dashboard import texts
from postqueue_api.web.dashboard.assets import address as asset
from postqueue_api.web.dashboard.inside import Problem

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self';"
    " form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
# What the script says, as data of the element in which it says it.
LIVE_TEXTS = ("old", "down", "stopped", "unknown", "silent", "forbidden", "limited", "refused", "gone", "became",
              "ended", "login", "other", "reload", "back")  # fmt: skip
THEME_COOKIE = "postqueue_api_theme"
THEMES = ("auto", "light", "dark")
# Address, the key of its name, and the key that is pressed after g.
PAGES = (("/", "shell.overview", "o"), ("/messages", "shell.messages", "m"), ("/operations", "shell.operations", "h"),
         ("/trash", "shell.trash", "t"))  # fmt: skip


def render(template: str, status: int = 200, **data: Any) -> Response:
    """A page. Every template has t(), and besides `data` roles, principal, csrf_token, now and what the shell needs.

    `resent`, if it is in `data`: where the page's form #change makes the same page again, in other colours for example.
    """
    return Response(render_template(template, **_known(), **data), status, mimetype="text/html")


def _known() -> dict[str, Any]:
    found = session.current()
    return {
        "language": texts.language(),
        "languages": texts.LANGUAGES,
        "theme": theme(),
        "themes": THEMES,
        "principal": g.get("principal"),
        "roles": roles(),
        "snapshot_id": g.get("snapshot_id"),
        "csrf_token": "" if found is None else found.token,
        "now": time.time(),
        "pages": [(address, key, press, _is_current(address)) for address, key, press in PAGES],
        "asset": asset,
        "told_as": _told_as,
        "with_language": _with_language,
        "live_texts": LIVE_TEXTS,
        "here": request.full_path.rstrip("?"),
        "version": __version__,
    }


def _told_as(members: Mapping[str, Any]) -> str:
    """The key of the texts for a problem: as the page says that met it, else by its code."""
    name = str(members.get("told_as") or members["code"])
    return name if f"problem.title.{name}" in texts.CATALOGUE else "error"


def roles() -> frozenset[str]:
    """The roles of who is logged in; none of nobody."""
    principal: Principal | None = g.get("principal")
    return frozenset() if principal is None else principal.roles


def _with_language(code: str) -> str:
    """This address in another language."""
    others = [(name, value) for name, value in request.args.items(multi=True) if name != "lang"]
    return f"{request.path}?{urlencode([*others, ('lang', code)])}"


def _is_current(address: str) -> bool:
    return request.path == address or (address != "/" and request.path.startswith(f"{address}/"))


def local(address: str | None, otherwise: str = "/") -> str:
    """An address of ours to go on to; another one instead of anything else."""
    if address is None or re.fullmatch(r"/(?![/\\])[\x21-\x5b\x5d-\x7e]*", address, re.ASCII) is None:
        return otherwise
    return address


def theme() -> str:
    """The colours that the reader chose; auto: those of the system."""
    chosen = g.get("theme") or request.cookies.get(THEME_COOKIE)
    return chosen if chosen in THEMES else "auto"


def choose_theme() -> None:
    """Take the colours that a form names, for this page and from now on."""
    if request.form.get("theme") in THEMES:
        g.theme = request.form["theme"]


def of_problem(error: Problem) -> Response:
    """The page of what /v1 refused."""
    response = render("problem.html", error.status, problem=error.members)
    if "retry_after" in error.members:
        response.headers["Retry-After"] = str(error.members["retry_after"])
    return response


def of_error(error: Error | HTTPException) -> Response:
    """The page of an error that a page itself met."""
    if isinstance(error, HTTPException) and error.response is not None:
        return current_app.make_response(error.response)
    return of_problem(Problem(_members(error)))


def of_nothing(error: NotFound) -> Response:
    """What is at an address where nothing is: a page for a browser, a problem document for everybody else."""
    if request.path.startswith("/v1/") or "text/html" not in request.accept_mimetypes.values():
        return problem.of(error)
    found = session.current()
    g.principal = None if found is None else found.principal
    return complete(of_error(error))


def of_a_bug(error: Exception) -> Response:
    """The page of a fault of ours, which tells nothing of itself."""
    current_app.logger.error("request %s met a fault", audit.request_id(), exc_info=error)
    return of_problem(Problem(_members(Error("A fault of the service; its log has it under the request_id."))))


def _members(error: Error | HTTPException) -> dict[str, Any]:
    found: dict[str, Any] = problem.of(error).get_json()
    return found


def complete(response: Response) -> Response:
    """Add what holds for every page: where scripts and styles come from, and that nobody frames it."""
    response.headers["Content-Security-Policy"] = POLICY
    response.headers["X-Frame-Options"] = "DENY"
    # Without a referrer, browsers say `Origin: null` for our own forms too.
    response.headers["Referrer-Policy"] = "same-origin"
    response.headers["Cross-Origin-Opener-Policy"] = "same-origin"
    if "theme" in g:
        keep(response, THEME_COOKIE, g.theme)
    if request.args.get("lang") in texts.LANGUAGES:
        keep(response, texts.COOKIE, request.args["lang"])
    return response


def keep(response: Response, cookie: str, value: str) -> None:
    """Remember a choice of the reader for a year."""
    response.set_cookie(cookie, value, max_age=365 * 86400, samesite="Lax", httponly=True, path="/")
