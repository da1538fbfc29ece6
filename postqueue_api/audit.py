"""One line of JSON on standard output for each thing that somebody did. Both halves write such lines.

A line is ASCII and at most PIPE_BUF bytes, written whole by one write(2), alone or with others: lines of threads and
processes do not mix, and no text of a client can end a line, begin one, or turn what a reader sees.
"""

import contextlib
import datetime
import json
import os
import select
import threading
from collections.abc import Iterable, Mapping

TEXT_LIMIT = 512

_STANDARD_OUTPUT, _STANDARD_ERROR = 1, 2
_WAIT_SECONDS = 5.0
_writing = threading.Lock()


def write_line(event: str, **members: object) -> None:
    """Write a line: the time (RFC 3339, UTC), the event, and what else is known of it.

    A mapping of plain values stays one. Texts are cut after 512 characters, and further if the line would not fit
    PIPE_BUF. When standard output fails, the line goes to standard error, and whoever wrote it goes on.
    """
    _write(_encode({"time": _now(), "event": event, **members}))


def write_lines(event: str, shared: Mapping[str, object], each: Iterable[Mapping[str, object]]) -> None:
    """Write a line for each of many things of one event and one moment, with the members that all of them share.

    Like so many calls of write_line, but that as many lines as fit PIPE_BUF are one write.
    """
    common = {"time": _now(), "event": event, **shared}
    head = _encode(common)[:-2]
    lines = b""
    for members in each:
        line = head + b", " + _encode(members)[1:]
        if len(line) > select.PIPE_BUF:
            line = _encode({**common, **members})
        if len(lines) + len(line) > select.PIPE_BUF:
            _write(lines)
            lines = b""
        lines += line
    _write(lines)


def cut(text: str, limit: int) -> str:
    """The text, or its beginning with three dots."""
    return text if len(text) <= limit else text[:limit] + "..."


def _now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _encode(members: Mapping[str, object]) -> bytes:
    line = b""
    for limit in (TEXT_LIMIT, 256, 128, 64, 16, 4):
        line = json.dumps({name: _plain(value, limit) for name, value in members.items()}).encode() + b"\n"
        if len(line) <= select.PIPE_BUF:
            break
    return line


def _plain(value: object, limit: int) -> object:
    if isinstance(value, dict):
        return {str(name): _plain(each, limit) for name, each in value.items()}
    return value if value is None or isinstance(value, (bool, int, float)) else cut(str(value), limit)


def _write(line: bytes) -> None:
    try:
        with _writing:
            _write_all(line)
    except OSError as error:
        with contextlib.suppress(OSError):
            os.write(_STANDARD_ERROR, b"Audit: standard output failed (%a): %b" % (error.strerror, line))


def _write_all(line: bytes) -> None:
    """One write; more only for what a full disk or a full non-blocking pipe left over."""
    while line:
        try:
            line = line[os.write(_STANDARD_OUTPUT, line) :]
        except BlockingIOError:
            if not select.select([], [_STANDARD_OUTPUT], [], _WAIT_SECONDS)[1]:
                raise
