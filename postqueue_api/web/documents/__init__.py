"""/openapi.json and /docs: the contract, and Swagger UI to read and try it, all served by ourselves."""

from importlib import resources
from pathlib import Path

import flask_swagger_ui  # type: ignore[import-untyped]
from flask import Blueprint, Response
from werkzeug.exceptions import NotFound

documents = Blueprint("documents", __name__)

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self';"
    " base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_WHEEL = Path(flask_swagger_ui.__file__).parent / "dist"
_MEDIA_TYPES = {".css": "text/css", ".js": "text/javascript", ".html": "text/html"}
# Read at import, so that they can be served when the disk cannot be reached any more.
_FILES = {
    **{name: (_WHEEL / name).read_bytes() for name in ("swagger-ui.css", "swagger-ui-bundle.js")},
    **{name: resources.files(__package__).joinpath(name).read_bytes() for name in ("docs.html", "docs.js", "docs.css")},
}


@documents.get("/docs")
def show_docs() -> Response:
    """The page."""
    return _file("docs.html")


@documents.get("/docs/<name>")
def show_file(name: str) -> Response:
    """What the page loads."""
    if name not in _FILES or name == "docs.html":
        raise NotFound
    return _file(name)


def _file(name: str) -> Response:
    response = Response(_FILES[name], mimetype=_MEDIA_TYPES[Path(name).suffix])
    response.headers["Content-Security-Policy"] = POLICY
    response.headers["Cache-Control"] = "no-cache"
    return response
