"""What would make a half fail later, found before it starts: at once, in one line that says what to do."""

import errno
import fcntl
import os
import socket
import tempfile
import time
from contextlib import suppress
from pathlib import Path

from postqueue_api import tls
from postqueue_api.config import Settings, variable
from postqueue_api.errors import Error, Misconfigured, StorageFull
from postqueue_api.postfix import postconf
from postqueue_api.queue import snapshot
from postqueue_api.queue.journal import Journal
from postqueue_api.rights import acting_as, claim, group_of
from postqueue_api.web.credentials import Store

_PROBE_BYTES = 1 << 16
_POSTCONF_SECONDS = 3.0
_LONGEST_SOCKET = 107
_DYING_SECONDS = 2.0  # the worker of an agent that was killed may be a moment behind its master
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT)


def check_agent(settings: Settings) -> None:
    """Make the agent's directories, and see that it can work in them.

    Raises:   Misconfigured, StorageFull
    """
    group_of(settings.user)
    if len(os.fsencode(settings.agent_socket)) > _LONGEST_SOCKET:
        raise Misconfigured(f"POSTQUEUE_API_AGENT_SOCKET is longer than {_LONGEST_SOCKET} bytes: see unix(7).")
    claim(settings.agent_socket.parent, settings.user, "agent_socket")
    _refuse_another_agent(settings.agent_socket)
    claim(settings.state_directory, settings.user, "state_directory")
    _require_room(settings.state_directory)
    Journal(settings.state_directory / "journal.sqlite").close()
    _refuse_old_postfix(settings)


def check_web(settings: Settings) -> Store:
    """See that web can listen, with TLS if it is set, and has credentials: all as the user that it becomes.

    Returns:  the credentials, whose passwords are still to be tried (Store.check_at_start), which takes seconds
    Raises:   Misconfigured
    """
    tls.check(settings)
    with acting_as(settings.user):
        if settings.tls_certificate_file is not None:
            tls.make_context(settings)
        elif not settings.bind.is_loopback and not settings.tls_ended_by_proxy:
            raise Misconfigured(
                f"POSTQUEUE_API_BIND is {settings.bind}, and passwords would cross the network in plain HTTP. Bind to"
                " 127.0.0.1, or set POSTQUEUE_API_TLS_CERTIFICATE_FILE and POSTQUEUE_API_TLS_KEY_FILE, or"
                " POSTQUEUE_API_TLS_ENDED_BY_PROXY=yes when a proxy in front ends TLS."
            )
        store = Store(settings)
        _require_port(settings)
    return store


def _refuse_another_agent(path: Path) -> None:
    deadline = time.monotonic() + _DYING_SECONDS
    while _answers(path):
        if time.monotonic() > deadline:
            raise Misconfigured("Another agent listens on POSTQUEUE_API_AGENT_SOCKET: stop it first.")
        time.sleep(0.1)


def _answers(path: Path) -> bool:
    """Whether somebody listens on a unix socket."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        try:
            probe.connect(str(path))
        except OSError:
            return False
    return True


def _require_port(settings: Settings) -> None:
    """gunicorn would try for five seconds, and say less."""
    bind = settings.bind
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(bind.host, bind.port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
    except OSError as error:
        why = {
            errno.EADDRINUSE: "another program listens there: stop it, or name another port",
            errno.EACCES: f"user {settings.user} may not listen there: name a port from 1024 on",
            errno.EADDRNOTAVAIL: "this machine has no such address: name one of its own",
        }.get(error.errno or 0, f"nobody can listen there: {error.strerror}")
        raise Misconfigured(f"{variable('bind')} is {bind}, and {why}.") from None


def _require_room(directory: Path) -> None:
    """As much as the journal and a short listing need at first. Raises StorageFull, Misconfigured."""
    try:
        _remove_leftovers(directory)
        with tempfile.TemporaryFile(dir=directory) as probe:
            probe.write(bytes(_PROBE_BYTES))
            probe.flush()
    except OSError as error:
        name = variable("state_directory")
        if error.errno in _NO_ROOM:
            raise StorageFull(f"There is no room left in the directory of {name}: free some space there.") from None
        raise Misconfigured(f"The agent cannot write to the directory of {name}: {error.strerror}.") from None


def _remove_leftovers(directory: Path) -> None:
    """What a listing that was killed left may be all that is in the way, and nobody may be able to log in."""
    lock = os.open(directory / "lock", os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
    try:
        with suppress(BlockingIOError):
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            snapshots = directory / "snapshots"
            snapshot.sweep(snapshots, {path.stem for path in snapshots.glob("*.sqlite")})
    finally:
        os.close(lock)


def _refuse_old_postfix(settings: Settings) -> None:
    """A Postfix that cannot be asked yet is waited for; one that is too old never gets better. Raises Misconfigured."""
    try:
        found = postconf.find_commands(settings.command_directory, settings.config_directory, _POSTCONF_SECONDS)
        instance = postconf.read_instance(found)
    except Error:
        return
    postconf.refuse_old(instance)
