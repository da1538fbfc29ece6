"""How much one client may ask for: requests by principal and address, refused credentials, streams at once.

All workers count together, so a limit is what the setting says, whichever worker answers.
"""

import ipaddress
import math

from flask import Response, request

from postqueue_api.config import Settings, variable
from postqueue_api.errors import TooManyRequests
from postqueue_api.web import audit
from postqueue_api.web.shared_counts import SharedCounts, SharedPlaces

_MINUTE = 60.0
_STREAM_RETRY_SECONDS = 5


class Limits:
    """The limits of one service; made before its workers are."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._counts = SharedCounts()
        self._streams = SharedPlaces(settings.concurrent_streams)

    def admit_address(self) -> None:
        """Before anything is spent on a credential.

        Raises:   TooManyRequests for an address that is locked out, or that asks too often
        """
        address = _place(request.remote_addr)
        if self._settings.lockout_refusals:
            refusals, seconds = self._counts.look("refused", address)
            if refusals >= self._settings.lockout_refusals:
                raise TooManyRequests(
                    "Too many credentials from this address were refused.", retry_after=math.ceil(seconds)
                )
        self._count("requests_per_minute_per_address", address)

    def admit_principal(self, name: str) -> None:
        """Raises TooManyRequests when that principal asks too often."""
        self._count("requests_per_minute", name)

    def note_refusal(self) -> None:
        """Count a refused credential against the address it came from; the one that locks it out is audited."""
        if not self._settings.lockout_refusals:
            return
        refusals, seconds = self._counts.add("refused", _place(request.remote_addr), self._settings.lockout_seconds)
        if refusals == self._settings.lockout_refusals:
            audit.locked_out(math.ceil(seconds))

    def hold_stream(self, response: Response) -> Response:
        """Count a response as a stream until it is sent. Raises TooManyRequests."""
        give_back = self._streams.take()
        if give_back is None:
            raise TooManyRequests(
                f"{variable('concurrent_streams')} streams are being sent already.", retry_after=_STREAM_RETRY_SECONDS
            )
        response.call_on_close(give_back)
        return response

    def _count(self, setting: str, key: str) -> None:
        most = getattr(self._settings, setting)
        if not most:
            return
        count, seconds = self._counts.add(setting, key, _MINUTE)
        if count > most:
            raise TooManyRequests(f"More requests than {variable(setting)} allows.", retry_after=math.ceil(seconds))


def _place(address: str | None) -> str:
    """An address; of IPv6 its /64, for whoever has one of it has all."""
    try:
        parsed = ipaddress.ip_address(address or "")
    except ValueError:
        return str(address)
    if isinstance(parsed, ipaddress.IPv4Address):
        return str(parsed)
    return str(parsed.ipv4_mapped or ipaddress.ip_network((parsed, 64), strict=False))
