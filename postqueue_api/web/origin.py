"""Where a request comes from, as a browser tells: what a page of another site sends must not use this user's rights.

Browsers send cookies and client certificates by themselves, also with requests that another page makes. Programs send
neither of the headers looked at here.
"""

from urllib.parse import urlsplit

from flask import current_app, request

_OURS = ("same-origin", "none")  # none: typed, or from a bookmark


def is_foreign() -> bool:
    """Whether the browser says that a page of another origin made this request (Fetch Metadata; RFC 6454)."""
    if request.headers.get("Sec-Fetch-Site", "none") not in _OURS:
        return True
    claimed = request.headers.get("Origin")
    return claimed is not None and _host(claimed) != request.host.lower()


def is_ours() -> bool:
    """Whether the browser says that a page of this service made this request; False when it says nothing."""
    told = "Origin" in request.headers or request.headers.get("Sec-Fetch-Site") == "same-origin"
    return told and not is_foreign()


def _host(claimed: str) -> str | None:
    """Host and port of an origin; None for what is none, as `http://[x`."""
    try:
        return urlsplit(claimed).netloc.lower()
    except ValueError:
        return None


def is_secure() -> bool:
    """Whether the client speaks TLS, to us or to a proxy in front, by what the settings or a trusted proxy say."""
    return request.scheme == "https" or bool(current_app.config["SESSION_COOKIE_SECURE"])
