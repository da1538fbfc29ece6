"""Page through a snapshot, or stream all of it that fits: filter first, then sort, then limit.

A page ends with a cursor, which names the snapshot, so that nothing is shown twice or missed while mail moves. It
names the last message by its row, because what that is sorted by may be a text of any length that a sender chose. It is
signed with a key of the snapshot: what a client changed in it is noticed.
"""

import base64
import hashlib
import hmac
import sqlite3
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from postqueue_api.errors import InvalidArgument
from postqueue_api.queue import plan
from postqueue_api.queue.operation import Target
from postqueue_api.queue.plan import Plan
from postqueue_api.queue.selection import Selection
from postqueue_api.queue.snapshot import NAME, Snapshot, as_listed

# Sort field: the columns of its index, which end every order; the row comes last and makes it total.
SORTS = {
    "arrival_time": ("arrival_time", "message_size"),
    "message_size": ("message_size",),
    "queue_id": ("queue_id",),
    "queue_name": ("queue_name", "arrival_time", "message_size"),
    "recipients": ("recipients",),
    "next_attempt_time": ("next_attempt_time",),
    "sender": ("sender", "arrival_time", "message_size"),
    "sender_domain": ("sender_domain", "arrival_time", "message_size"),
}
_MAC_BYTES = 16
_read_cursor = msgspec.json.Decoder(tuple[str, str, int]).decode  # snapshot_id, question, row


@dataclass(frozen=True)
class Page:
    """How many messages fit in all, the JSON object of each on this page, and the cursor of the next (None: last)."""

    total: int
    documents: list[bytes]
    next: str | None


@dataclass(frozen=True)
class Order:
    """A sort field of SORTS, and whether it descends; read from `-arrival_time` and the like."""

    field: str
    descending: bool

    @classmethod
    def parse(cls, text: str) -> "Order":
        """Read `field` or `-field`. Raises InvalidArgument."""
        field = text.removeprefix("-")
        if field not in SORTS:
            accepted = ", ".join(SORTS) + "; each with - before it for descending"
            raise InvalidArgument("sort is not a field to sort by.", field="sort", accepted=accepted)
        return cls(field, text.startswith("-"))

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns that make the order total."""
        return (*SORTS[self.field], "row")

    @property
    def names(self) -> str:
        """The same as SQL has them."""
        return ", ".join(f"message.{column}" for column in self.columns)

    def sql(self, *, by_index: bool) -> str:
        """The ORDER BY clause; without `by_index` its + keeps SQLite from walking an index to the last message."""
        direction = "DESC" if self.descending else "ASC"
        sign = "" if by_index else "+"
        return "ORDER BY " + ", ".join(f"{sign}message.{column} {direction}" for column in self.columns)

    @property
    def behind(self) -> str:
        """The condition for what comes behind a position: parameters :after_0, :after_1 and so on."""
        places = ", ".join(f":after_{number}" for number in range(len(self.columns)))
        return f"({self.names}) {'<' if self.descending else '>'} ({places})"


def page(snapshot: Snapshot, selection: Selection, order: Order, limit: int, cursor: str | None = None) -> Page:
    """The first messages that fit, or those behind a cursor.

    Raises:   InvalidArgument for a cursor that was changed or belongs to another question
    """
    after = None if cursor is None else _position(snapshot, selection, order, cursor)
    total = plan.count(snapshot, selection)
    if not total:
        return Page(0, [], None)
    chosen = plan.for_page(snapshot, selection, order.field, limit + 1, total)
    with snapshot.open() as database:
        rows = _rows(database, snapshot, (selection, order, after), limit + 1, chosen)
        found = rows.fetchall()
    shown = found[:limit]
    more = len(found) > limit
    following = _cursor(snapshot, selection, order, shown[-1]) if more else None
    return Page(total, [as_listed(row["json"], row["next_attempt_time"]) for row in shown], following)


def stream(snapshot: Snapshot, selection: Selection, order: Order) -> Iterator[bytes]:
    """The JSON object of every message that fits, one after the other, in constant memory. Raises Gone at once."""
    documents = _documents(snapshot, selection, order)
    next(documents)
    return documents


def _documents(snapshot: Snapshot, selection: Selection, order: Order) -> Iterator[bytes]:
    with snapshot.open() as database:
        yield b""  # open: whatever goes wrong from now on breaks off what has begun
        for row in _rows(database, snapshot, (selection, order, None), -1, Plan(order.field)):
            yield as_listed(row["json"], row["next_attempt_time"])


def oldest(snapshot: Snapshot, selection: Selection, limit: int, total: int) -> list[str]:
    """The queue IDs of the oldest messages that fit, which are `total`."""
    order = Order("arrival_time", descending=False)
    chosen = plan.for_page(snapshot, selection, order.field, limit, total)
    with snapshot.open() as database:
        rows = _rows(database, snapshot, (selection, order, None), limit, chosen)
        return [row["queue_id"] for row in rows]


def targets(snapshot: Snapshot, selection: Selection) -> Iterator[Target]:
    """Every message that fits, with its identity, oldest first."""
    begin = plan.begin(snapshot, selection)
    where, parameters = selection.where(snapshot.info.taken_at, begin)
    with snapshot.open() as database:
        rows = database.execute(
            f"SELECT queue_id, arrival_time, sender FROM {plan.table(begin)}"  # noqa: S608 - our names
            f" WHERE {where} ORDER BY arrival_time, row",
            parameters,
        )
        for row in rows:
            yield Target(row["queue_id"], row["arrival_time"], row["sender"])


def summaries(snapshot: Snapshot, queue_ids: Sequence[str]) -> dict[str, tuple[str, int]]:
    """Queue name and message size of those messages of a list that were listed."""
    found = {}
    with snapshot.open() as database:
        for queue_id in queue_ids:
            row = database.execute(
                "SELECT queue_name, message_size FROM message WHERE queue_id = ?", (queue_id,)
            ).fetchone()
            if row is not None:
                found[queue_id] = (row["queue_name"], row["message_size"])
    return found


def identities(snapshot: Snapshot, queue_ids: Sequence[str]) -> list[Target]:
    """These messages with the identity that they were listed with; without one what was not listed."""
    found = []
    with snapshot.open() as database:
        for queue_id in queue_ids:
            row = database.execute(
                "SELECT arrival_time, sender FROM message WHERE queue_id = ?", (queue_id,)
            ).fetchone()
            found.append(Target(queue_id) if row is None else Target(queue_id, row["arrival_time"], row["sender"]))
    return found


def cursor_snapshot(cursor: str) -> str:
    """The snapshot_id that a cursor names, unverified. Raises InvalidArgument."""
    (snapshot_id, _, _), _, _ = _decode(cursor)
    if NAME.fullmatch(snapshot_id) is None:
        raise _refused()
    return snapshot_id


def _rows(
    database: sqlite3.Connection,
    snapshot: Snapshot,
    question: tuple[Selection, Order, list[Any] | None],
    limit: int,
    chosen: Plan,
) -> sqlite3.Cursor:
    selection, order, after = question
    where, parameters = selection.where(snapshot.info.taken_at, chosen.begin)
    if after is not None:
        where += f" AND {order.behind}"
        parameters |= {f"after_{number}": value for number, value in enumerate(after)}
    messages = plan.table(chosen.begin) if chosen.walk is None else f"message INDEXED BY message_{chosen.walk}"
    # A queue, a sender or its domain has an index in which messages stand in the order of arrival, too.
    by_index = chosen.walk is not None or not selection.only(("queue_name", "sender", "sender_domain")).is_empty
    return database.execute(
        "SELECT json, queue_id, next_attempt_time, message.row AS row"  # noqa: S608 - our names
        f" FROM {messages} CROSS JOIN document"
        f" ON document.row = message.row WHERE {where} {order.sql(by_index=by_index)} LIMIT {limit:d}",
        parameters,
    )


def _cursor(snapshot: Snapshot, selection: Selection, order: Order, last: sqlite3.Row) -> str:
    payload = msgspec.json.encode([snapshot.info.snapshot_id, _question(selection, order), last["row"]])
    return base64.urlsafe_b64encode(_mac(snapshot, payload) + payload).rstrip(b"=").decode()


def _position(snapshot: Snapshot, selection: Selection, order: Order, cursor: str) -> list[Any]:
    (_, question, row), mac, payload = _decode(cursor)
    if not hmac.compare_digest(mac, _mac(snapshot, payload)):
        raise _refused()
    if question != _question(selection, order):
        raise InvalidArgument(
            "next belongs to another selection or sort.",
            field="next",
            accepted="the same conditions as the page before",
        )
    with snapshot.open() as database:
        return list(database.execute(f"SELECT {order.names} FROM message WHERE row = ?", (row,)).fetchone())  # noqa: S608


def _decode(cursor: str) -> tuple[tuple[str, str, int], bytes, bytes]:
    try:
        raw = base64.b64decode(cursor.encode("ascii") + b"=" * (-len(cursor) % 4), altchars=b"-_", validate=True)
        mac, payload = raw[:_MAC_BYTES], raw[_MAC_BYTES:]
        return _read_cursor(payload), mac, payload
    except (ValueError, msgspec.DecodeError):
        raise _refused() from None


def _question(selection: Selection, order: Order) -> str:
    asked = msgspec.json.encode([selection.as_dict(), order.field, order.descending])
    return hashlib.blake2s(asked, digest_size=12).hexdigest()


def _mac(snapshot: Snapshot, payload: bytes) -> bytes:
    return hashlib.blake2s(payload, key=snapshot.cursor_key, digest_size=_MAC_BYTES).digest()


def _refused() -> InvalidArgument:
    return InvalidArgument("next is not a cursor of ours.", field="next", accepted="what the page before said")
