"""Who uses the dashboard: a signed cookie that names a session, and a table of the sessions that are alive.

The cookie alone opens nothing: its session must be in the table, which all workers share and from which a logout takes
it, so a copy of the cookie is worth nothing then. The key is random and lives as long as the process that forked the
workers. What the session may do is never in the cookie: roles come from the credentials as they are now.
"""

import hashlib
import hmac
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass

from flask import Flask, Response, current_app, g, request
from itsdangerous import BadData, URLSafeSerializer

from postqueue_api.web import origin
from postqueue_api.web.credentials import Entry, Principal, Store
from postqueue_api.web.shared_sessions import SharedSessions

COOKIE = "postqueue_api_session"
IDLE_SECONDS = 30 * 60
LIFE_SECONDS = 12 * 3600


@dataclass(frozen=True)
class Session:
    """One login. `token` is what a change must carry besides the cookie."""

    session_id: str
    principal: Principal
    token: str


class Sessions:
    """All sessions of one service; made before its workers are forked."""

    def __init__(self, store: Store, clock: Callable[[], float] = time.monotonic) -> None:
        self._store = store
        self._clock = clock
        self._key = secrets.token_bytes(32)
        signing = {"key_derivation": "hmac", "digest_method": hashlib.sha256}
        self._cookies = URLSafeSerializer(self._key, salt=b"session", signer_kwargs=signing)
        self._living = SharedSessions(IDLE_SECONDS, clock)

    def begin(self, name: str) -> str:
        """Begin a session of a principal whose credential was found good. Returns:  the cookie's value"""
        entry = self._store.entry(name)
        if entry is None:
            raise LookupError(name)
        session_id = secrets.token_urlsafe(18)
        self._living.add(session_id)
        return str(self._cookies.dumps([name, session_id, self._clock(), self._fingerprint(entry)]))

    def find(self, cookie: str) -> Session | None:
        """The session of a cookie, which is used by this; None when there is none, or not any more."""
        try:
            name, session_id, begun, fingerprint = self._cookies.loads(cookie)
        except BadData:
            return None
        entry = self._store.entry(name)
        if entry is None or not hmac.compare_digest(fingerprint, self._fingerprint(entry)):
            self._living.remove(session_id)
            return None
        if self._clock() >= begun + LIFE_SECONDS or not self._living.use(session_id):
            return None
        return Session(session_id, entry.principal, self._digest("token", session_id))

    def end(self, session: Session) -> None:
        """End a session for good: no copy of its cookie is worth anything any more."""
        self._living.remove(session.session_id)

    def _fingerprint(self, entry: Entry) -> str:
        """Another one when anything that proves the principal changes; the roles are not in it."""
        proofs = (entry.password_hash, entry.token_sha256, sorted(map(repr, entry.certificates)))
        return self._digest("credential", entry.principal.name, *map(repr, proofs))

    def _digest(self, *parts: str) -> str:
        return hmac.new(self._key, "\0".join(parts).encode(), hashlib.sha256).hexdigest()[:40]


def install(app: Flask, store: Store) -> None:
    """Give an application its sessions; before its workers are forked."""
    app.extensions["sessions"] = Sessions(store)


def sessions() -> Sessions:
    """The sessions of the application that answers this request."""
    found: Sessions = current_app.extensions["sessions"]
    return found


def current() -> Session | None:
    """The session of this request; None without a cookie, with a bad one, or from a page of another origin."""
    if "session" not in g:
        cookie = request.cookies.get(cookie_name())
        g.session = None if cookie is None or origin.is_foreign() else sessions().find(cookie)
    found: Session | None = g.session
    return found


def was_shown() -> bool:
    """Whether this request has a cookie of a session, good or bad."""
    return cookie_name() in request.cookies


def has_token(session: Session) -> bool:
    """Whether the request carries the session's token, in a header or as a field of a form."""
    shown = request.headers.get("X-CSRF-Token")
    if shown is None and request.mimetype == "application/x-www-form-urlencoded":
        shown = request.form.get("csrf_token")
    return shown is not None and hmac.compare_digest(shown.encode(), session.token.encode())


def cookie_name() -> str:
    """Over TLS browsers hold that nobody but this very host has set it (RFC 6265bis, section 4.1.3.2)."""
    return f"__Host-{COOKIE}" if origin.is_secure() else COOKIE


def give(response: Response, cookie: str) -> None:
    """Hand out a session's cookie. It ends with the browser, and much sooner here."""
    response.set_cookie(cookie_name(), cookie, httponly=True, secure=origin.is_secure(), samesite="Strict", path="/")


def take_away(response: Response) -> None:
    """Have the browser forget the cookie."""
    response.delete_cookie(cookie_name(), httponly=True, secure=origin.is_secure(), samesite="Strict", path="/")
