"""The agent's few routes, on a unix socket: typed arguments in, values and errors out as JSON.

Only peers whose user is allowed are answered. Whatever arrives is checked again, as if web were an enemy.
"""

import os
import pwd
import socket
import struct
import threading
from collections.abc import Iterable, Iterator
from contextlib import nullcontext
from itertools import chain
from typing import Any, Literal

import msgspec
from flask import Blueprint, Flask, Response, current_app, request

from postqueue_api.agent import resolve
from postqueue_api.agent.ask import Actor
from postqueue_api.agent.ask import answer as _answer
from postqueue_api.agent.ask import read as _read
from postqueue_api.agent.ask import workplace as _workplace
from postqueue_api.agent.drain import Asker
from postqueue_api.agent.move_routes import moves
from postqueue_api.agent.workplace import Workplace
from postqueue_api.config import Settings
from postqueue_api.errors import Conflict, Error, Forbidden, InvalidArgument, NoSuchMessage
from postqueue_api.postfix import postcat, postqueue, queue_file
from postqueue_api.postfix.arguments import QueueId, Site
from postqueue_api.queue.operation import QueueAction, Request, Target, too_many
from postqueue_api.queue.selection import Selection

_PEER = struct.Struct("3i")
_IDS_RECORDED = 100
_once = threading.Lock()


class SnapshotRequest(msgspec.Struct, forbid_unknown_fields=True):
    """How old a listing may be, and how long to wait for a newer one; both in seconds."""

    max_age: float
    wait: float


class OperationRequest(msgspec.Struct, forbid_unknown_fields=True):
    """What to do to which messages, why, and how long to wait for the end, in seconds.

    Exactly one of `queue_ids`, `selection` and `everything` says which. `key` and `fingerprint`: the client's
    Idempotency-Key, and what it asked for.
    """

    action: QueueAction
    actor: Actor
    queue_ids: list[str] | None = None
    selection: Selection | None = None
    everything: bool = False
    reason: str | None = None
    expected_count: int | None = None
    keep_copy: bool = True
    max_per_second: float | None = None
    shorthand: bool = False
    key: str | None = None
    fingerprint: str = ""
    wait: float = 0.0


class RestoreRequest(msgspec.Struct, forbid_unknown_fields=True):
    """What to give back: one message, or all that an operation deleted; and to which queue, if not where it was."""

    actor: Actor
    to: Literal["hold", "deferred"] | None = None
    queue_id: str | None = None
    operation_id: str | None = None
    although_exported: bool = False
    reason: str | None = None
    wait: float = 0.0


class DrainRequest(msgspec.Struct, forbid_unknown_fields=True):
    """For how long to drain, in seconds. `take_over`: one that is under way goes on for as long from now."""

    seconds: int
    actor: Actor
    reason: str | None = None
    take_over: bool = False


agent = Blueprint("agent", __name__)
agent.register_blueprint(moves)


def create_app(settings: Settings) -> Flask:
    """Make the agent: its workplace and its routes. Raises Misconfigured."""
    app = Flask(__name__)
    app.config["ALLOWED_UIDS"] = {0, os.geteuid(), pwd.getpwnam(settings.user).pw_uid}
    app.config["WORKPLACE"] = Workplace(settings)
    app.register_blueprint(agent)
    return app


@agent.before_request
def refuse_strangers() -> None:
    if _peer_uid(request.environ.get("gunicorn.socket")) not in current_app.config["ALLOWED_UIDS"]:
        raise Forbidden("The agent answers only the user named in POSTQUEUE_API_USER.")


@agent.errorhandler(Error)
def tell(error: Error) -> Response:
    body = {"code": error.code, "detail": error.detail, "members": error.members}
    return _answer(body, error.status)


@agent.post("/snapshot")
def refresh() -> Response:
    wanted = _read(SnapshotRequest)
    return _answer(_workplace().refresher.ensure(wanted.max_age, wanted.wait))


@agent.post("/snapshots/<snapshot_id>/keep")
def keep(snapshot_id: str) -> Response:
    _workplace().refresher.keep(snapshot_id)
    return _answer({})


@agent.get("/messages/<queue_id>")
def look_up(queue_id: str) -> Response:
    found = _find(queue_id)
    identity = queue_file.read_identity(found.place)
    if identity is None:
        raise NoSuchMessage("The message left the queue at that moment, or its queue file is damaged.")
    return _answer({"queue_name": found.queue_name, "arrival_time": identity.arrival_time, "sender": identity.sender})


@agent.get("/messages/<queue_id>/envelope")
def envelope(queue_id: str) -> Response:
    found = _find(queue_id)
    try:
        read = queue_file.read_envelope(found.path)
    except FileNotFoundError:
        raise NoSuchMessage("The message left the queue at that moment.") from None
    return _answer(
        {
            "queue_id": queue_id,
            "queue_name": found.queue_name,
            "forced_expire": queue_file.is_force_expired(found.stat),
            **msgspec.structs.asdict(read),
        }
    )


@agent.get("/messages/<queue_id>/content")
def content(queue_id: str) -> Response:
    parsed = QueueId.parse(queue_id)
    _find(parsed)
    chunks = _content(parsed)
    first = next(chunks)  # a failure before the first byte is still an error document
    return Response(chain([first], chunks), mimetype="message/rfc822")


@agent.post("/operations")
def operate() -> Response:
    wanted = _read(OperationRequest)
    executor = _workplace().executor
    with _once if wanted.key is not None else nullcontext():  # two requests with one key make one operation
        known = None if wanted.key is None else _workplace().journal.request_of(wanted.key, wanted.actor.name)
        if known is None:
            key = None if wanted.key is None else (wanted.key, wanted.fingerprint)
            operation_id = executor.submit(_request(wanted), _targets(wanted), key).operation_id
        elif known[0] != wanted.fingerprint:
            raise Conflict("This Idempotency-Key was used for another request.")
        else:
            operation_id = known[1]
    return _answer(executor.wait(operation_id, wanted.wait))


@agent.post("/operations/<operation_id>/cancel")
def cancel(operation_id: str) -> Response:
    return _answer(_workplace().executor.cancel(operation_id))


@agent.post("/restore")
def restore() -> Response:
    wanted = _read(RestoreRequest)
    _workplace().require_plain_hold()
    book = _workplace().trash_book
    if wanted.operation_id is None:
        copies = [book.newest(QueueId.parse(wanted.queue_id or ""))]
    else:
        copies = book.of_operation(_workplace().journal.operation(wanted.operation_id).operation_id)
        if not copies:
            raise Conflict("Nothing that this operation deleted is in the trash any more.")
    selection = {
        "to": wanted.to,
        "queue_id": wanted.queue_id,
        "operation_id": wanted.operation_id,
        **({"although_exported": True} if wanted.although_exported else {}),
    }
    request_ = Request(
        action="restore",
        actor=wanted.actor.name,
        role=wanted.actor.role,
        selection=msgspec.json.encode(selection).decode(),
        address=wanted.actor.address,
        request_id=wanted.actor.request_id,
        reason=wanted.reason,
        shorthand=wanted.queue_id is not None,
    )
    targets = [Target(copy.queue_id, copy.arrival_time, copy.sender) for copy in copies]
    operation = _workplace().executor.submit(request_, targets)
    return _answer(_workplace().executor.wait(operation.operation_id, wanted.wait))


@agent.post("/flush")
def flush() -> Response:
    postqueue.flush_all(_workplace().postfix)
    return _answer({})


@agent.post("/sites/<site>/flush")
def flush_site(site: str) -> Response:
    postqueue.flush_site(_workplace().postfix, Site.parse(site))
    return _answer({})


@agent.post("/drain")
def drain() -> Response:
    wanted = _read(DrainRequest)
    asker = Asker(wanted.actor.name, wanted.actor.address, wanted.actor.request_id, wanted.reason)
    return _answer(_workplace().drain.begin(wanted.seconds, asker, take_over=wanted.take_over))


@agent.get("/drain")
def drain_state() -> Response:
    return _answer(_workplace().drain.state())


@agent.get("/instance")
def instance() -> Response:
    known = _workplace().instance
    return _answer({"mail_version": known.mail_version, "myhostname": known.myhostname})


def _content(queue_id: QueueId) -> Iterator[bytes]:
    with postcat.content(_workplace().postfix, queue_id) as message:
        yield from message.chunks()


def _find(queue_id: str) -> queue_file.Found:
    found = queue_file.find(_workplace().instance.queue_directory, QueueId.parse(queue_id))
    if found is None:
        raise NoSuchMessage("There is no message with this queue ID in the queue.")
    return found


def _request(wanted: OperationRequest) -> Request:
    chosen: dict[str, object] = {"everything": True}
    if wanted.selection is not None:
        chosen = wanted.selection.as_query()
    elif wanted.queue_ids is not None:
        chosen = {"queue_ids": wanted.queue_ids[:_IDS_RECORDED], "count": len(wanted.queue_ids)}
    return Request(
        action=wanted.action,
        actor=wanted.actor.name,
        role=wanted.actor.role,
        selection=msgspec.json.encode(chosen).decode(),
        address=wanted.actor.address,
        request_id=wanted.actor.request_id,
        reason=wanted.reason,
        shorthand=wanted.shorthand,
        keep_copy=wanted.keep_copy,
        max_per_second=wanted.max_per_second,
    )


def _targets(wanted: OperationRequest) -> Iterable[Target]:
    if wanted.shorthand:
        return [_target(QueueId.parse(queue_id)) for queue_id in wanted.queue_ids or ()]
    given = [wanted.queue_ids is not None, wanted.selection is not None, wanted.everything]
    if sum(given) != 1 or (wanted.selection is not None and wanted.selection.is_empty):
        raise InvalidArgument("Say which messages are meant.", field="selection", accepted="conditions or queue_ids")
    limit = _workplace().settings.operation_limit_messages
    if wanted.queue_ids is not None and len(wanted.queue_ids) > limit:
        raise too_many(limit)
    snapshot = _workplace().new_snapshot()
    if wanted.queue_ids is not None:
        return resolve.by_queue_ids(snapshot, wanted.queue_ids, wanted.expected_count, limit)
    return resolve.by_selection(snapshot, wanted.selection or Selection(), wanted.expected_count, limit)


def _target(queue_id: QueueId) -> Target:
    """The identity that a queue ID has at this moment, so that it is not another message later."""
    found = queue_file.find(_workplace().instance.queue_directory, queue_id)
    identity = None if found is None else queue_file.read_identity(found.place)
    return Target(str(queue_id)) if identity is None else Target(str(queue_id), identity.arrival_time, identity.sender)


def _peer_uid(connection: Any) -> int | None:
    if not hasattr(connection, "getsockopt"):
        return None
    _, uid, _ = _PEER.unpack(connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _PEER.size))
    return int(uid)
