"""Who the client is when a proxy stands in front: its address, its scheme, and the certificate that was verified there.

What a proxy says counts only when the connection comes from one of TRUSTED_PROXIES. Everybody else's headers are
worth nothing: they are taken away before anything reads them.
"""

import ipaddress
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from flask import Flask, request

from postqueue_api.config import IPNetwork, Settings
from postqueue_api.errors import InvalidArgument
from postqueue_api.web import certificate_names
from postqueue_api.web.certificate_names import Name

_FORWARDED, _SUBJECT = "postqueue_api.forwarded", "postqueue_api.certificate_subject"
_PROBLEM = "postqueue_api.forwarding_problem"


def install(app: Flask, settings: Settings) -> None:
    """Make REMOTE_ADDR the client's address, for everything that reads it."""
    app.wsgi_app = _Proxied(app.wsgi_app, settings)  # type: ignore[method-assign]


def check() -> None:
    """Refuse a request of which a trusted proxy did not say whose it is.

    Raises:   InvalidArgument
    """
    problem = request.environ.get(_PROBLEM)
    if problem is not None:
        raise InvalidArgument(
            str(problem), field="X-Forwarded-For", accepted="an address from each of POSTQUEUE_API_PROXY_HOPS proxies"
        )


def certificate() -> tuple[str, set[Name]] | None:
    """The client's verified certificate: its subject as a text for the record, and its names. None without one.

    A connection from a trusted proxy has the certificate that the proxy names and no other: its own is not its
    clients'.
    """
    if _FORWARDED in request.environ:
        return _named(request.environ.get(_SUBJECT))
    show = getattr(request.environ.get("gunicorn.socket"), "getpeercert", None)
    found = None if show is None else show()
    if not found:
        return None
    subject = ",".join(f"{kind}={value}" for relative in reversed(found["subject"]) for kind, value in relative)
    return subject, certificate_names.of_certificate(found)


def _named(subject: str | None) -> tuple[str, set[Name]] | None:
    if subject is None:
        return None
    try:
        return subject, {certificate_names.parse_subject(subject)}
    except ValueError:
        return subject, set()


class _Proxied:
    def __init__(self, app: Callable[..., Iterable[bytes]], settings: Settings) -> None:
        self._app = app
        self._trusted: tuple[IPNetwork, ...] = settings.trusted_proxies or ()
        self._hops = settings.proxy_hops
        header = settings.client_certificate_header
        self._header = None if header is None else "HTTP_" + header.upper().replace("-", "_")

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        forwarded, scheme = environ.pop("HTTP_X_FORWARDED_FOR", None), environ.pop("HTTP_X_FORWARDED_PROTO", None)
        subject = None if self._header is None else environ.pop(self._header, None)
        if self._is_trusted(environ):
            environ[_FORWARDED] = True
            if scheme == "https":
                environ["wsgi.url_scheme"] = scheme
            client = _entry(forwarded or "", self._hops)
            if client is None:
                environ[_PROBLEM] = f"The proxy sent no X-Forwarded-For with at least {self._hops} addresses."
            else:
                environ["REMOTE_ADDR"] = client
                if subject:  # nginx sends an empty one for a client without certificate
                    environ[_SUBJECT] = _utf8(subject)
        return self._app(environ, start_response)

    def _is_trusted(self, environ: Mapping[str, Any]) -> bool:
        try:
            peer = ipaddress.ip_address(str(environ.get("REMOTE_ADDR")))
        except ValueError:
            return False
        peer = getattr(peer, "ipv4_mapped", None) or peer
        return any(peer in network for network in self._trusted)


def _utf8(header: str) -> str:
    """WSGI hands header bytes on as Latin-1."""
    return header.encode("latin-1", "replace").decode("utf-8", "replace")


def _entry(forwarded: str, hops: int) -> str | None:
    """The address that the outermost proxy has written, in its plain form; None when there is none."""
    entries = forwarded.split(",")
    if len(entries) < hops:
        return None
    text = entries[-hops].strip()
    with_port = re.fullmatch(r"\[([0-9A-Fa-f:.]+)\](?::[0-9]+)?|([0-9.]+):[0-9]+", text, re.ASCII)  # AWS can add one
    try:
        return str(ipaddress.ip_address(text if with_port is None else with_port[1] or with_port[2]))
    except ValueError:
        return None
