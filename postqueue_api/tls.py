"""TLS as the settings say it: made before web starts, and made again on SIGHUP for the connections that come then."""

import logging
import ssl
from pathlib import Path

from postqueue_api.client_socket import TLSSocket
from postqueue_api.config import Settings, variable
from postqueue_api.errors import Misconfigured

log = logging.getLogger(__name__)

_VERIFY = {"off": ssl.CERT_NONE, "optional": ssl.CERT_OPTIONAL, "required": ssl.CERT_REQUIRED}


class Tls:
    """The context for new connections. `context` is replaced as a whole; connections keep the one they began with."""

    def __init__(self, settings: Settings) -> None:
        """Raises Misconfigured: see make_context()."""
        self._settings = settings
        self.context = make_context(settings)

    def reload(self) -> bool:
        """Read the files again. When they cannot be used the old ones stay, and one line on standard error says why."""
        try:
            self.context = make_context(self._settings)
        except Misconfigured as error:
            log.error("%s The certificate read before stays in force.", error.detail)
            return False
        return True


def check(settings: Settings) -> None:
    """Refuse settings that do not make one whole.

    Raises:   Misconfigured, naming the settings
    """
    certificate, key, ca = (variable(name) for name in ("tls_certificate_file", "tls_key_file", "tls_client_ca_file"))
    clients = variable("tls_client_certificates")
    if (settings.tls_certificate_file is None) != (settings.tls_key_file is None):
        raise Misconfigured(f"{certificate} and {key} belong together: set both, or neither.")
    if (settings.tls_client_ca_file is None) != (settings.tls_client_certificates == "off"):
        raise Misconfigured(f"{ca} and {clients}=optional or required belong together: set both, or neither.")
    if settings.tls_client_ca_file is not None and settings.tls_certificate_file is None:
        raise Misconfigured(f"{ca} needs {certificate}: without TLS of our own no client can show a certificate.")


def make_context(settings: Settings) -> ssl.SSLContext:
    """TLS 1.2 or newer with the certificate, the key and the clients' CA of the settings.

    Raises:   Misconfigured, naming the setting and what is wrong with its file
    """
    check(settings)
    assert settings.tls_certificate_file is not None
    assert settings.tls_key_file is not None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_COMPRESSION
    context.sslsocket_class = TLSSocket
    _load_pair(context, settings.tls_certificate_file, settings.tls_key_file)
    if settings.tls_client_ca_file is not None:
        _load_ca(context, settings.tls_client_ca_file)
        context.verify_mode = _VERIFY[settings.tls_client_certificates]
        # A resumed session would not be verified again: an expired certificate would go on.
        context.options |= ssl.OP_NO_TICKET
        context.num_tickets = 0
    return context


def _load_pair(context: ssl.SSLContext, certificate: Path, key: Path) -> None:
    _holds("tls_certificate_file", certificate, "-----BEGIN CERTIFICATE-----", "certificate in PEM")
    _holds("tls_key_file", key, "PRIVATE KEY-----", "private key in PEM")
    try:
        context.load_cert_chain(certificate, key, password=_refuse_encrypted)
    except ssl.SSLError as error:
        if error.reason == "KEY_VALUES_MISMATCH":
            raise Misconfigured(
                f"The key in {variable('tls_key_file')} does not fit the certificate in"
                f" {variable('tls_certificate_file')}."
            ) from None
        raise Misconfigured(
            f"{variable('tls_certificate_file')} and {variable('tls_key_file')} cannot be used:"
            f" OpenSSL says {error.reason or 'that they are damaged'}."
        ) from None


def _load_ca(context: ssl.SSLContext, path: Path) -> None:
    _holds("tls_client_ca_file", path, "-----BEGIN CERTIFICATE-----", "CA certificate in PEM")
    try:
        context.load_verify_locations(path)
    except ssl.SSLError as error:
        raise Misconfigured(f"{variable('tls_client_ca_file')} cannot be used: OpenSSL says {error.reason}.") from None
    if not context.get_ca_certs():
        raise Misconfigured(f"{variable('tls_client_ca_file')} holds a certificate that is no CA's (basicConstraints).")


def _holds(setting: str, path: Path, mark: str, what: str) -> None:
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except OSError as error:
        raise Misconfigured(
            f"The file in {variable(setting)} cannot be read by web's user: {error.strerror}."
        ) from None
    if mark not in text:
        raise Misconfigured(f"The file in {variable(setting)} holds no {what}.")


def _refuse_encrypted() -> str:
    raise Misconfigured(
        f"The key in {variable('tls_key_file')} is encrypted, and nobody is there to type its password."
    )
