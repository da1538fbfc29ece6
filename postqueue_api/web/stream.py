"""All messages that fit, as they come from the snapshot: NDJSON or CSV, in constant memory.

The first line of NDJSON is the snapshot, the last one `{"complete": true, "messages": N}`; CSV ends with a line
`# complete: N messages`. Where that line is missing, or the chunked body breaks off, something is missing.
"""

import csv
import io
from collections.abc import Callable, Iterator

import msgspec
from flask import Response

from postqueue_api.queue import page
from postqueue_api.queue.listing import Recipient
from postqueue_api.queue.page import Order
from postqueue_api.queue.selection import Selection
from postqueue_api.queue.snapshot import Snapshot, as_json

_BUFFER_BYTES = 1 << 16
RESPONSES: dict[int | str, dict[str, str | dict[str, dict[str, object]]]] = {
    200: {
        "description": "A page, or a stream of all that fit",
        "content": {"application/x-ndjson": {"schema": {"type": "string"}}, "text/csv": {"schema": {"type": "string"}}},
    }
}


class Row(msgspec.Struct):
    """What a line of CSV has."""

    queue_name: str
    queue_id: str
    arrival_time: int
    message_size: int
    sender: str
    recipients: list[Recipient]
    next_attempt_time: int | None = None
    forced_expire: bool = False


def answer(snapshot: Snapshot, selection: Selection, order: Order, media_type: str) -> Response:
    """Send all that fit in one of MEDIA_TYPES."""
    lines = MEDIA_TYPES[media_type](snapshot, page.stream(snapshot, selection, order))
    return Response(_in_blocks(lines), mimetype=media_type, headers={"Age": str(int(snapshot.info.age))})


def _ndjson(snapshot: Snapshot, documents: Iterator[bytes]) -> Iterator[bytes]:
    yield msgspec.json.encode({"snapshot": as_json(snapshot.info)}) + b"\n"
    sent = 0
    for sent, document in enumerate(documents, 1):  # noqa: B007 - the last number is the count
        yield document + b"\n"
    yield msgspec.json.encode({"complete": True, "messages": sent}) + b"\n"


def _csv(snapshot: Snapshot, documents: Iterator[bytes]) -> Iterator[bytes]:
    buffer = io.StringIO()
    writer = csv.writer(buffer)
    decode = msgspec.json.Decoder(Row).decode

    def line(cells: list[object]) -> bytes:
        writer.writerow(cells)
        text = buffer.getvalue()
        buffer.seek(0)
        buffer.truncate()
        return text.encode("utf-8", "replace")

    yield line([*Row.__struct_fields__, "delay_reason"])
    sent = 0
    for sent, document in enumerate(documents, 1):  # noqa: B007
        row = decode(document)
        addresses = " ".join(recipient.address for recipient in row.recipients)
        reason = next((each.delay_reason for each in row.recipients if each.delay_reason), "")
        cells = [row.queue_name, row.queue_id, row.arrival_time, row.message_size, row.sender, addresses]
        yield line([_harmless(cell) for cell in (*cells, row.next_attempt_time, row.forced_expire, reason)])
    yield f"# complete: {sent} messages\r\n".encode()


def _harmless(cell: object) -> object:
    """A text that a spreadsheet would take for a formula gets an apostrophe."""
    return f"'{cell}" if isinstance(cell, str) and cell.startswith(("=", "+", "-", "@", "\t", "\r")) else cell


def _in_blocks(lines: Iterator[bytes]) -> Iterator[bytes]:
    block = bytearray()
    for line in lines:
        block += line
        if len(block) >= _BUFFER_BYTES:
            yield bytes(block)
            block.clear()
    yield bytes(block)


MEDIA_TYPES: dict[str, Callable[[Snapshot, Iterator[bytes]], Iterator[bytes]]] = {
    "application/x-ndjson": _ndjson,
    "text/csv": _csv,
}
