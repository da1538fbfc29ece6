"""The agent's routes for messages that move from one Postfix to another."""

import secrets
from collections.abc import Iterator
from typing import BinaryIO, cast

import msgspec
from flask import Blueprint, Response, request

from postqueue_api.agent.ask import Actor, answer, decoded, read, workplace
from postqueue_api.agent.lines import tell_messages, tell_operation
from postqueue_api.agent.move_in import Import, Limits
from postqueue_api.agent.move_out import Export
from postqueue_api.errors import Conflict, InvalidArgument
from postqueue_api.queue.moves import Receipt
from postqueue_api.queue.operation import Action, Operation, Request, too_many

_LINE_LIMIT_BYTES = 1 << 16

moves = Blueprint("moves", __name__)


class ExportRequest(msgspec.Struct, forbid_unknown_fields=True):
    """What to send: all that waits to be moved, or what one operation put into the trash."""

    actor: Actor
    operation_id: str | None = None


class ImportRequest(msgspec.Struct, forbid_unknown_fields=True):
    """The first line of an import's body; the tar follows. `again`: also what was imported before."""

    actor: Actor
    reason: str | None = None
    again: bool = False


class ReceiptRequest(msgspec.Struct, forbid_unknown_fields=True):
    """Queue ID and checksum, in hexadecimal digits, of a message that somebody else has by now."""

    queue_id: str
    checksum: str


class ConfirmRequest(msgspec.Struct, forbid_unknown_fields=True):
    """What somebody else has by now."""

    actor: Actor
    copies: list[ReceiptRequest]
    reason: str | None = None


@moves.post("/export")
def export() -> Response:
    wanted = read(ExportRequest)
    place = workplace()
    if wanted.operation_id is not None:
        place.journal.operation(wanted.operation_id)
    who = {"actor": wanted.actor.name, "role": wanted.actor.role, "address": wanted.actor.address}
    who |= {"request_id": wanted.actor.request_id, "action": "export"}
    blocks = Export(place.moves, place.trash, place.instance, wanted.operation_id, dict(who)).blocks()
    first = next(blocks)  # a failure before the first byte is still an error document
    return Response(_both(first, blocks), mimetype="application/x-tar")


@moves.post("/import")
def bring_in() -> Response:
    wanted = decoded(_line(), ImportRequest)
    place = workplace()
    if not place.bringing_in.acquire(blocking=False):
        raise Conflict("Another import is under way: wait for its end.")
    try:
        limits = Limits(place.settings.import_limit_bytes, place.settings.operation_limit_messages)
        taking = Import(place.moves, place.trash, f"op-{secrets.token_hex(8)}", again=wanted.again)
        selection: dict[str, object] = {"although_imported": True} if wanted.again else {}
        asked = _request("import", wanted.actor, wanted.reason, selection)
        operation = taking.run(cast(BinaryIO, request.stream), asked, limits)
    finally:
        place.bringing_in.release()
    _tell(operation)
    return answer(operation)


@moves.post("/confirm")
def confirm() -> Response:
    wanted = read(ConfirmRequest)
    place = workplace()
    if len(wanted.copies) > place.settings.operation_limit_messages:
        raise too_many(place.settings.operation_limit_messages)
    receipts = [_receipt(each) for each in wanted.copies]
    asked = _request("confirm", wanted.actor, wanted.reason, {"count": len(receipts)})
    retention = place.settings.trash_retention_seconds
    operation = place.moves.confirm(f"op-{secrets.token_hex(8)}", asked, receipts, retention)
    _tell(operation)
    return answer(operation)


def _line() -> bytes:
    try:
        return request.stream.readline(_LINE_LIMIT_BYTES)
    except OSError:  # gunicorn's words for a web that has given up
        return b""


def _both(first: bytes, rest: Iterator[bytes]) -> Iterator[bytes]:
    """One generator, so that closing it before its end closes the rest, which writes its line then."""
    try:
        yield first
        yield from rest
    finally:
        rest.close()  # type: ignore[attr-defined]


def _request(action: Action, actor: Actor, reason: str | None, selection: dict[str, object]) -> Request:
    return Request(
        action=action,
        actor=actor.name,
        role=actor.role,
        selection=msgspec.json.encode(selection).decode(),
        address=actor.address,
        request_id=actor.request_id,
        reason=reason,
    )


def _receipt(wanted: ReceiptRequest) -> Receipt:
    try:
        return Receipt(wanted.queue_id, bytes.fromhex(wanted.checksum))
    except ValueError:
        raise InvalidArgument("A checksum is none.", field="copies", accepted="64 hexadecimal digits") from None


def _tell(operation: Operation) -> None:
    """The lines of an operation that was over as soon as it was written down."""
    tell_operation("operation", operation, selection=operation.selection, messages=operation.requested)
    items = workplace().moves.items(operation.number)
    tell_messages(operation, ((item.target.queue_id, item.outcome, None) for item in items))
    tell_operation("operation_end", operation, state=operation.state, outcomes=operation.outcomes)
