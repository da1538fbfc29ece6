"""The one door: whoever asks for anything below /v1 is known and has the role, or gets 401 or 403.

It stands on the parent blueprint, so no view can forget it; each view declares the role that it needs, and one
that does not is refused. Views find who asks in `flask.g.principal`.
"""

import base64
import re
from collections.abc import Callable
from typing import Any, TypeVar

from flask import Blueprint, Flask, Response, current_app, g, request
from flask_httpauth import HTTPBasicAuth, HTTPTokenAuth  # type: ignore[import-untyped]

from postqueue_api.errors import Forbidden, Unauthorized
from postqueue_api.web import audit, origin, proxy, session
from postqueue_api.web.certificate_names import Name
from postqueue_api.web.credentials import ROLES, Principal, Store
from postqueue_api.web.limits import Limits

# The last is no scheme that a browser knows: it opens no box when the dashboard's script is refused.
_SESSION_CHALLENGE = 'Session realm="postqueue-api"'
CHALLENGES = ('Basic realm="postqueue-api", charset="UTF-8"', 'Bearer realm="postqueue-api"')

_HEADER = re.compile(r"(?P<scheme>basic|bearer) +(?P<credential>[A-Za-z0-9._~+/-]+=*)", re.ASCII | re.IGNORECASE)
_HEADER_LIMIT = 4096
_SAFE = ("GET", "HEAD", "OPTIONS")

View = TypeVar("View", bound=Callable[..., Any])


AND = " and "


def role(*names: str) -> Callable[[View], View]:
    """Declare the role that a view needs, or the roles that it needs together. Stands below the route; a view that
    needs more at times calls require()."""
    for name in names:
        if name not in ROLES:
            raise ValueError(f"{name!r} is not a role")

    def declare(view: View) -> View:
        # functools.wraps copies it to whatever APIFlask wraps around the view.
        view.__dict__["required_role"] = AND.join(names)
        return view

    return declare


def require(name: str) -> None:
    """Go on only if who asks has that role.

    Raises:   Forbidden, after a line in the audit
    """
    principal: Principal = g.principal
    if name not in principal.roles:
        audit.refused("forbidden", name=principal.name, required_role=name)
        raise Forbidden(f"This needs the role {name}.", required_role=name)


def protect(blueprint: Blueprint, store: Store, limits: Limits | None = None) -> None:
    """Put the door on a blueprint and all that are nested in it.

    Also gives each request of the application its identifier (X-Request-Id), and each 401 its challenges.
    """

    def admit() -> None:
        proxy.check()
        g.principal = authenticate(store) if limits is None else within(limits, store)
        for name in declared_roles(current_app, request.endpoint):
            require(name)

    blueprint.before_app_request(_identify)
    blueprint.before_request(admit)
    blueprint.after_app_request(_complete)


def within(limits: Limits, store: Store) -> Principal:
    """Who asks. Raises as authenticate(), and TooManyRequests, that before anything is spent on a credential."""
    limits.admit_address()
    try:
        principal = authenticate(store)
    except Unauthorized:
        if "Authorization" in request.headers or session.was_shown() or proxy.certificate() is not None:
            limits.note_refusal()
        raise
    limits.admit_principal(principal.name)
    return principal


def check(app: Flask, blueprint: Blueprint) -> None:
    """Refuse to start when a view behind the door declares no role.

    Raises:   RuntimeError, naming the view
    """
    for rule in app.url_map.iter_rules():
        if rule.endpoint.startswith(f"{blueprint.name}."):
            declared_roles(app, rule.endpoint)


def declared_roles(app: Flask, endpoint: str | None) -> list[str]:
    """The roles that a view needs. Raises RuntimeError for one that declares none."""
    found = getattr(app.view_functions.get(endpoint or ""), "required_role", "").split(AND)
    if not set(found) <= set(ROLES):
        raise RuntimeError(f"the view {endpoint} declares no role")
    return list(found)


def _scheme(name: str, store: Store) -> Any:
    """One of Flask-HTTPAuth's schemes. Its MultiAuth would take `bearer` in lower case for Basic."""
    if name == "basic":
        basic = HTTPBasicAuth()
        basic.verify_password(store.verify_password)
        return basic
    bearer = HTTPTokenAuth()
    bearer.verify_token(store.verify_token)
    return bearer


def authenticate(store: Store) -> Principal:
    """Who asks: by the Authorization header, and only without one by what browsers send by themselves.

    Raises:   Unauthorized or Forbidden, after a line in the audit
    """
    header = request.headers.get("Authorization")
    if header is None:
        return _without_header(store)
    found = _HEADER.fullmatch(header) if len(header) <= _HEADER_LIMIT else None
    name = _claimed_name(found["credential"]) if found and found["scheme"].lower() == "basic" else None
    if found is None or name == "":
        audit.refused("malformed", name=None)
        raise Unauthorized("The Authorization header is neither Basic nor Bearer as RFC 7617 and RFC 6750 have them.")
    scheme = _scheme(found["scheme"].lower(), store)
    # Not login_required(): it lets OPTIONS through without a look.
    principal = scheme.authenticate(scheme.get_auth(), None)
    if not isinstance(principal, Principal):
        audit.refused("refused", name=store.known_name(name))
        raise Unauthorized("The credential is not accepted.")
    return principal


def _without_header(store: Store) -> Principal:
    """Who asks by a session of the dashboard, else by a certificate. A page of another site cannot change anything."""
    found = session.current()
    if found is not None:
        principal = found.principal
    elif (shown := proxy.certificate()) is not None:
        principal = _of_certificate(store, *shown)
    else:
        audit.refused("session" if session.was_shown() else "missing", name=None)
        raise Unauthorized("Send a credential: a name and password (Basic) or a token (Bearer).")
    if request.method not in _SAFE and (origin.is_foreign() or (found is not None and not session.has_token(found))):
        audit.refused("csrf", name=principal.name)
        raise Forbidden("A change with a session needs its token in the header X-CSRF-Token, from a page of our own.")
    return principal


def _of_certificate(store: Store, subject: str, names: set[Name]) -> Principal:
    principal = store.verify_certificate(names)
    if principal is None:
        audit.refused("certificate", name=None, certificate=subject)
        raise Unauthorized("The client certificate is not one that the credentials name, and there is no other.")
    return principal


def _claimed_name(credential: str) -> str:
    """The name before the colon; empty when this is not what RFC 7617 allows: UTF-8, no control characters."""
    try:
        name, colon, password = base64.b64decode(credential, validate=True).decode().partition(":")
    except ValueError:
        return ""
    return name if colon and re.search(r"[\x00-\x1f\x7f]", name + password) is None else ""


def _identify() -> None:
    audit.request_id()


def _complete(response: Response) -> Response:
    response.headers["X-Request-Id"] = audit.request_id()
    if response.status_code == 401 and response.mimetype != "text/html":  # a page leads to the login by itself
        by_script = session.was_shown() or "X-CSRF-Token" in request.headers
        response.headers.setlist("WWW-Authenticate", [_SESSION_CHALLENGE] if by_script else CHALLENGES)
    return response
