"""The web application: what is behind the door, what is in front of it, and what every answer carries."""

from apiflask import APIBlueprint, APIFlask
from flask import Flask, Response

from postqueue_api import __version__
from postqueue_api.config import Settings
from postqueue_api.web import auth, context, metrics, open_body, openapi, problem, proxy, session
from postqueue_api.web.changes import changes
from postqueue_api.web.content import content
from postqueue_api.web.credentials import Store
from postqueue_api.web.dashboard import dashboard
from postqueue_api.web.documents import documents
from postqueue_api.web.drain import drain
from postqueue_api.web.groups import groups
from postqueue_api.web.health import health
from postqueue_api.web.limits import Limits
from postqueue_api.web.messages import messages
from postqueue_api.web.moves import moves
from postqueue_api.web.operations import operations
from postqueue_api.web.queues import queues
from postqueue_api.web.samples import samples
from postqueue_api.web.status import status
from postqueue_api.web.trash import trash

_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
}


def create_app(settings: Settings, store: Store | None = None) -> Flask:
    """Make the web half.

    Raises:   Misconfigured when there is no usable credential
    """
    app = APIFlask(__name__, title="postqueue-api", version=__version__, docs_path=None, static_folder=None)  # type: ignore[arg-type]
    app.url_map.merge_slashes = False  # its redirects would come before the door, and to a host of the client's choice
    app.config["MAX_CONTENT_LENGTH"] = app.config["MAX_FORM_MEMORY_SIZE"] = settings.body_limit_bytes
    app.config["SESSION_COOKIE_SECURE"] = settings.tls_ended_by_proxy
    openapi.describe(app)
    if store is None:
        store = Store(settings)
        store.check_at_start()
    limits = Limits(settings)
    proxy.install(app, settings)
    app.extensions["postqueue_api"] = context.make(settings, limits)
    app.extensions["credentials"] = store
    session.install(app, store)
    problem.install(app)
    open_body.install(app)
    guarded = APIBlueprint("guarded", __name__, enable_openapi=True)
    auth.protect(guarded, store, limits)
    resources = (messages, content, changes, queues, groups, status, samples, operations, trash, moves, drain)
    for resource in (*resources, metrics.metrics):
        guarded.register_blueprint(resource)
    for blueprint in (guarded, health, documents, dashboard):
        app.register_blueprint(blueprint)
    auth.check(app, guarded)
    metrics.install(app)
    app.after_request(_complete)
    return app


def _complete(response: Response) -> Response:
    for name, value in _HEADERS.items():
        response.headers.setdefault(name, value)
    return response
