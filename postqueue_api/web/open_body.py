"""What may be sent by anybody, before it is known who it is: a short form of announced length.

Such a body is whole before a thread begins (reception.py). For another one a thread would have to wait.
"""

from flask import Flask, request
from werkzeug.exceptions import LengthRequired

from postqueue_api.errors import PayloadTooLarge
from postqueue_api.reception import BODY_LIMIT_BYTES
from postqueue_api.web.dashboard.login import OPEN


def install(app: Flask) -> None:
    """Refuse other bodies on routes that are open to all, before anything reads them."""
    app.before_request(_check)


def _check() -> None:
    if request.endpoint not in OPEN:
        return
    if "Transfer-Encoding" in request.headers:
        raise LengthRequired
    if (request.content_length or 0) > BODY_LIMIT_BYTES:
        raise PayloadTooLarge(f"A form that anybody may send is at most {BODY_LIMIT_BYTES} bytes long.")
