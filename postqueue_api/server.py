"""Run the two halves under gunicorn: each by itself, or both together under one small parent (supervisor.py)."""

import importlib
import logging
import os
import resource
import signal
import socket
from collections.abc import Callable
from functools import partial
from typing import Any

from flask import Flask
from gunicorn.app.base import BaseApplication  # type: ignore[import-untyped]
from gunicorn.arbiter import Arbiter  # type: ignore[import-untyped]
from gunicorn.config import Chdir  # type: ignore[import-untyped]

from postqueue_api.agent.app import create_app as create_agent
from postqueue_api.config import Settings
from postqueue_api.counters import SHARED_MEMORY, shared_counters
from postqueue_api.errors import Error, Misconfigured
from postqueue_api.rights import become, group_of
from postqueue_api.start_checks import check_agent, check_web
from postqueue_api.supervisor import STOP_SECONDS, supervise
from postqueue_api.tls import Tls
from postqueue_api.web.credentials import Store
from postqueue_api.worker import Worker

log = logging.getLogger(__name__)

# Not where it was started, which the user of web may be unable to enter; gunicorn looks there before it reads options.
Chdir.default = "/"

# Longer than a load balancer keeps an idle connection (deploy/cloudformation.yaml: 120): who closes first must be the
# one that sends requests, or one is lost now and then, and a client gets 502.
KEEPALIVE_SECONDS = 130
_CHUNK_SECONDS = 4
_CONNECTIONS = 2000
_COMMON = {
    "worker_class": "gthread",
    "graceful_timeout": STOP_SECONDS - 3,
    "control_socket_disable": True,
    "errorlog": "-",
    "loglevel": "warning",
    # What a proxy says is judged by web/proxy.py alone; gunicorn would believe any client on this machine.
    "forwarded_allow_ips": "",
    "forwarder_headers": "",
    "secure_scheme_headers": {},
    "worker_tmp_dir": SHARED_MEMORY,
}


# What gunicorn and APIFlask import only when they start.
_LATE_MODULES = (
    "apiflask.settings",
    "gunicorn.arbiter",
    "gunicorn.glogging",
    "gunicorn.http.wsgi",
    "gunicorn.reloader",
    "gunicorn.sock",
    "gunicorn.workers.gthread",
)


class _Server(BaseApplication):  # type: ignore[misc]
    def __init__(self, make: Callable[[], Flask], options: dict[str, Any]) -> None:
        self._make = make
        # gunicorn's own defaults date from its import, before root was given up.
        self._options = {**_COMMON, "user": os.geteuid(), "group": os.getegid(), **options}
        super().__init__()

    def load_config(self) -> None:
        for name, value in self._options.items():
            self.cfg.set(name, value)

    def load(self) -> Flask:
        try:
            return self._make()
        except Error as error:
            log.critical("%s", error.detail)
            raise SystemExit(Arbiter.WORKER_BOOT_ERROR) from None


class _WebArbiter(Arbiter):  # type: ignore[misc]
    """The master of web. gunicorn's own would end its workers on SIGHUP, and with them what they are answering."""

    def handle_hup(self) -> None:
        """Look at the certificate's files, and let the workers read them if they are good."""
        if self.app.tls is not None and self.app.tls.reload():
            self.kill_workers(signal.SIGHUP)


class _WebServer(_Server):
    def __init__(self, make: Callable[[], Flask], options: dict[str, Any], secured: Tls | None) -> None:
        self.tls = secured
        super().__init__(make, options)

    def run(self) -> None:
        """Run until SIGTERM."""
        _WebArbiter(self).run()


def run_agent(settings: Settings) -> int:
    """Run the agent until SIGTERM; it keeps the rights with which it was started. Returns the exit status.

    Raises:   Misconfigured, StorageFull
    """
    check_agent(settings)
    if settings.drain_seconds:
        return supervise(settings, {"agent": _run_agent})
    _run_agent(settings)
    return 0


def _run_agent(settings: Settings) -> None:
    listener = _listen(settings)
    options = {
        "bind": f"fd://{listener.detach()}",
        "workers": 1,
        "threads": settings.web_workers * settings.web_threads + 8,
        "proc_name": "postqueue-api agent",
        "post_worker_init": _stop_in_order,
        "worker_exit": lambda _, worker: worker.wsgi and worker.wsgi.config["WORKPLACE"].executor.stop(_CHUNK_SECONDS),
    }
    _Server(lambda: create_agent(settings), options).run()


def _stop_in_order(worker: Any) -> None:
    """At SIGTERM let the agent end the handful of messages that it works on, so that none is left on hold."""
    executor = worker.wsgi.config["WORKPLACE"].executor
    leave = signal.getsignal(signal.SIGTERM)

    def stop(number: int, frame: Any) -> None:
        executor.stopping.set()
        leave(number, frame)  # type: ignore[operator, misc]

    signal.signal(signal.SIGTERM, stop)


def run_web(settings: Settings, store_is_checked: bool = False) -> None:
    """Run web until SIGTERM, without rights: when started as root it becomes the user of the settings.

    `store_is_checked`: its passwords were tried for well-known ones already, which takes seconds.

    Raises:   Misconfigured: a bind beyond loopback without TLS, broken TLS files, no such user, or no usable credential
    """
    store = check_web(settings)
    if not store_is_checked:
        store.check_at_start()
    with shared_counters(settings.user):
        _run_web(settings)


def _run_web(settings: Settings) -> None:
    create_app = _load_all()
    become(settings.user)
    secured = None if settings.tls_certificate_file is None else Tls(settings)
    app = create_app(settings, Store(settings))
    for name in app.jinja_env.list_templates():  # compiled once, for all workers
        app.jinja_env.get_template(name)
    options = {
        "bind": str(settings.bind),
        "worker_class": Worker,
        "worker_connections": _connections(settings.web_threads),
        "workers": settings.web_workers,
        "threads": settings.web_threads,
        "preload_app": True,
        "keepalive": KEEPALIVE_SECONDS,
        "proc_name": "postqueue-api web",
    }
    if secured is not None:
        # Worker makes the connections; gunicorn only needs to know that they are https.
        options |= {"certfile": str(settings.tls_certificate_file), "keyfile": str(settings.tls_key_file)}
    _WebServer(lambda: app, options, secured).run()


def _connections(threads: int) -> int:
    """How many connections a worker may have: as many as there are file descriptors for, within reason."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _CONNECTIONS + 8 * threads + 256
    allowed = wanted if most == resource.RLIM_INFINITY else min(most, wanted)
    resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, most))
    return max(2 * threads, min(_CONNECTIONS, allowed - 8 * threads - 256))


def _load_all() -> Callable[[Settings, Store], Flask]:
    """Import what web needs while the files can be read: its user may be unable to enter the place of the package.

    Not before the counters have their place, which prometheus_client looks up when it is imported.
    """
    for name in _LATE_MODULES:
        importlib.import_module(name)
    from postqueue_api.web.app import create_app

    return create_app


def serve(settings: Settings) -> int:
    """Run both until SIGTERM or SIGINT. When one ends by itself, stop the other. Returns the exit status.

    Raises:   Misconfigured, StorageFull, before anything is started
    """
    check_agent(settings)
    check_web(settings).check_at_start()
    return supervise(settings, {"agent": _run_agent, "web": partial(run_web, store_is_checked=True)})


def _listen(settings: Settings) -> socket.socket:
    path = settings.agent_socket
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    if path.is_socket():
        path.unlink()
    before = os.umask(0o117)
    try:
        listener.bind(str(path))
    except OSError as error:
        why = error.strerror or str(error)
        raise Misconfigured(f"The agent cannot listen on POSTQUEUE_API_AGENT_SOCKET: {why}.") from None
    finally:
        os.umask(before)
    if os.geteuid() == 0:
        os.chown(path, 0, group_of(settings.user))
    listener.listen(256)
    return listener
