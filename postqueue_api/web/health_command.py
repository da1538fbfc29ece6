"""`postqueue-api health`: what the health check of a container or of a supervisor runs.

It imports little, because it runs every few seconds on a fraction of a processor; web's own route is in health.py.
"""

import http.client
import smtplib
import socket
import ssl
import sys
from contextlib import closing

import click

from postqueue_api import config
from postqueue_api.config import Address, Settings
from postqueue_api.errors import AgentUnavailable, Error, MailSystemDown
from postqueue_api.web.agent_client import AgentClient
from postqueue_api.web.credentials import Store

_TIMEOUT_SECONDS = 5.0
_ACCEPTED_AGE_SECONDS = 30.0  # of a listing, as health.py has it
_EVERY_ADDRESS = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - nothing is bound here
_SMTP = Address("127.0.0.1", 25)


@click.command()
@click.option("--ready", "kind", flag_value="ready", help="Whether agent, Postfix and credentials can be used too.")
@click.option("--agent", "kind", flag_value="agent", help="Ask the agent, over its socket, instead of web.")
@click.option("--smtp", "kind", flag_value="smtp", help="Ask the mail server on 127.0.0.1, port 25, for its greeting.")
def health(kind: str | None) -> None:
    """Ask a part of the service whether it is well: one line, and exit status 0 or 1. Web, unless told otherwise."""
    asks = {None: _live, "ready": _ready, "agent": _agent, "smtp": _smtp}
    try:
        click.echo(asks[kind](config.load()))
    except Error as error:
        click.echo(error.detail, err=True)
        sys.exit(1)


def _live(settings: Settings) -> str:
    return _ask_web(settings, "live")


def _ready(settings: Settings) -> str:
    return _ask_web(settings, "ready")


def _ask_web(settings: Settings, word: str) -> str:
    """Raises AgentUnavailable for want of a better name: web does not answer, or says no."""
    host = _EVERY_ADDRESS.get(settings.bind.host, settings.bind.host)
    try:
        if settings.tls_client_certificates == "required":
            _see_that_it_wants_a_certificate(settings, host)
            return _without_certificate(settings, word)
        with closing(_connection(settings, host)) as connection:
            connection.request("GET", f"/health/{word}")
            status = connection.getresponse().status
    except (OSError, http.client.HTTPException) as error:
        raise AgentUnavailable(f"Web does not answer on {Address(host, settings.bind.port)}: {error}.") from None
    if status != 200:
        raise AgentUnavailable(f"Web is not {word}: /health/{word} answers {status}.")
    return f"Web is {word}."


def _see_that_it_wants_a_certificate(settings: Settings, host: str) -> None:
    """Its refusal is its sign of life. Nothing is sent after the handshake: who hangs up on unread bytes sends a reset,
    and with it the refusal can be lost. Raises OSError."""
    with (
        socket.create_connection((host, settings.bind.port), _TIMEOUT_SECONDS) as plain,
        _context().wrap_socket(plain) as connection,
    ):
        try:
            connection.recv(1)
        except ssl.SSLError as error:
            if error.reason == "TLSV13_ALERT_CERTIFICATE_REQUIRED":
                return
            raise
        raise OSError("it hung up without asking for a client certificate")


def _without_certificate(settings: Settings, word: str) -> str:
    """See to the rest as web would."""
    if word == "ready":
        agent = AgentClient(settings.agent_socket, _TIMEOUT_SECONDS)
        agent.instance()
        if agent.snapshot(_ACCEPTED_AGE_SECONDS, _TIMEOUT_SECONDS).mail_system == "down":
            raise MailSystemDown("Web is not ready: Postfix is not running.")
        Store(settings)
    return f"Web is {word}: it wants a client certificate."


def _connection(settings: Settings, host: str) -> http.client.HTTPConnection:
    if settings.tls_certificate_file is None:
        return http.client.HTTPConnection(host, settings.bind.port, timeout=_TIMEOUT_SECONDS)
    return http.client.HTTPSConnection(host, settings.bind.port, timeout=_TIMEOUT_SECONDS, context=_context())


def _context() -> ssl.SSLContext:
    """The certificate is for the name by which clients know the service, and nothing secret is sent."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def _agent(settings: Settings) -> str:
    found = AgentClient(settings.agent_socket, _TIMEOUT_SECONDS).instance()
    return f"The agent answers, for Postfix {found['mail_version']}."


def _smtp(_: Settings) -> str:
    try:
        with smtplib.SMTP(_SMTP.host, _SMTP.port, local_hostname="localhost", timeout=_TIMEOUT_SECONDS):
            return "Postfix greets."
    except (OSError, smtplib.SMTPException) as error:
        raise MailSystemDown(f"Postfix does not greet on {_SMTP}: {error}.") from None
