"""Who asks, and how they want to be answered: what a request says besides its question."""

import re
from typing import Any

from flask import g, request

from postqueue_api.errors import InvalidArgument
from postqueue_api.web import audit


def actor() -> dict[str, Any]:
    """Who asks, for the journal and the audit."""
    return {
        "name": g.principal.name,
        "role": g.principal.role,
        "address": request.remote_addr,
        "request_id": audit.request_id(),
    }


def wait_seconds(limit: int) -> int:
    """How long `Prefer: wait=SECONDS` (RFC 7240) asks to wait for the end, at most `limit`; 0 without it."""
    found = re.search(r"(?:^|[,;\s])wait=([0-9]{1,6})(?:$|[,;\s])", request.headers.get("Prefer", ""), re.ASCII)
    return 0 if found is None else min(int(found[1]), limit)


def idempotency_key() -> str | None:
    """The client's Idempotency-Key. Raises InvalidArgument for one that is no short plain word."""
    key = request.headers.get("Idempotency-Key")
    if key is not None and re.fullmatch(r"[\x21-\x7e]{1,128}", key, re.ASCII) is None:
        raise InvalidArgument(
            "Idempotency-Key is not accepted.", field="Idempotency-Key", accepted="1 to 128 printable ASCII characters"
        )
    return key
