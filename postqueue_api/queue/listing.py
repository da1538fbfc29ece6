"""Lines of a listing, as `postqueue -j` prints them, and what we read from each.

Source: postqueue(1), "JSON object format". A line holds text that remote servers chose: it may be invalid UTF-8
and may hold any character, so lines end at a newline byte and nowhere else.
"""

from collections.abc import Iterable, Iterator

import msgspec

LINE_LIMIT_BYTES = 16 << 20
_LIMIT = 1 << 40  # no time and no size: what is beyond cannot be summed up either


class Recipient(msgspec.Struct):
    """One recipient that is still due; no delay_reason until an attempt failed."""

    address: str
    delay_reason: str | None = None


class Message(msgspec.Struct):
    """One message as it is listed. Members that are not named here stay in the document."""

    queue_name: str
    queue_id: str
    arrival_time: int
    message_size: int
    sender: str
    recipients: list[Recipient]
    forced_expire: bool = False
    document: bytes = b""


_decode = msgspec.json.Decoder(Message).decode


def lines(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """Cut a byte stream at its newlines; the last one may be a half line.

    A line longer than LINE_LIMIT_BYTES comes out as b"", which no reader accepts, so that it counts as skipped.
    """
    parts: list[bytes] = []
    size = 0
    for chunk in chunks:
        head, *rest = chunk.split(b"\n")
        if size <= LINE_LIMIT_BYTES:
            parts.append(head)
        size += len(head)
        if not rest:
            continue
        yield b"".join(parts) if size <= LINE_LIMIT_BYTES else b""
        yield from rest[:-1]
        parts, size = [rest[-1]], len(rest[-1])
    if size:
        yield b"".join(parts) if size <= LINE_LIMIT_BYTES else b""


def read(line: bytes) -> Message | None:
    """Read one line; None when it is not a message.

    Invalid UTF-8 is replaced, in the values and in the document, so that both can be shown.
    """
    try:
        message = _decode(line)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return _read_repaired(line)
    return _checked(message, line)


def _read_repaired(line: bytes) -> Message | None:
    repaired = line.decode("utf-8", "replace").encode()
    if repaired == line:
        return None
    try:
        return _checked(_decode(repaired), repaired)
    except msgspec.DecodeError:
        return None


def _checked(message: Message, line: bytes) -> Message | None:
    queue_id = message.queue_id
    if not (6 <= len(queue_id) <= 64 and queue_id.isascii() and queue_id.isalnum()):
        return None
    if not (0 <= message.arrival_time < _LIMIT and 0 <= message.message_size < _LIMIT):
        return None
    message.document = line.strip()
    return message


def domain(address: str) -> str:
    """The part of an address behind its last @, or an empty text."""
    return address.rpartition("@")[2] if "@" in address else ""
