"""What the loop reads of a request before a thread begins: a real pair of sockets, a byte or a piece at a time."""

import contextlib
import socket
from collections.abc import Iterator

import pytest
from gunicorn.config import Config  # type: ignore[import-untyped]

from postqueue_api.client_socket import PlainSocket
from postqueue_api.reception import BODY_LIMIT_BYTES, HEAD_LIMIT_BYTES, Connection, HeadTooLarge, short_body

HEAD = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n\r\n"


@pytest.fixture
def pair() -> Iterator[tuple[Connection, socket.socket]]:
    ours, theirs = socket.socketpair()
    with PlainSocket(ours.family, ours.type, ours.proto, ours.detach()) as sock, theirs:
        conn = Connection(Config(), sock, ("192.0.2.1", 1), ("192.0.2.2", 80))
        conn.begin(b"")
        yield conn, theirs


def is_enough(conn: Connection) -> bool:
    with contextlib.suppress(BlockingIOError):
        conn.advance()
        return True
    return False


def test_a_thread_begins_with_the_last_byte_of_a_short_body_and_not_before(
    pair: tuple[Connection, socket.socket],
) -> None:
    conn, client = pair
    request = b"\r\n\r\n" + HEAD + b"body"
    for number in range(len(request)):
        client.sendall(request[number : number + 1])
        assert is_enough(conn) == (number == len(request) - 1)
    conn.hand_over()
    assert next(conn.parser).body.read() == b"body"
    assert not conn.has_more()


def test_what_comes_behind_a_body_is_the_next_request(pair: tuple[Connection, socket.socket]) -> None:
    conn, client = pair
    client.sendall(HEAD + b"bodyGET / ")
    assert is_enough(conn)
    conn.hand_over()
    assert next(conn.parser).body.read() == b"body"
    assert conn.has_more()
    assert conn.parser.unreader.take_buffered() == b"GET / "


def test_who_waits_to_be_asked_for_a_short_body_is_asked_once(pair: tuple[Connection, socket.socket]) -> None:
    conn, client = pair
    client.sendall(HEAD.replace(b"Host: x", b"expect: 100-Continue\r\nHost: x"))
    assert not is_enough(conn)
    assert client.recv(100) == b"HTTP/1.1 100 Continue\r\n\r\n"
    client.sendall(b"body")
    assert is_enough(conn)
    conn.hand_over()
    request = next(conn.parser)
    assert (request.headers, request.body.read()) == ([("HOST", "x"), ("CONTENT-LENGTH", "4")], b"body")


@pytest.mark.parametrize("endless", [b"x", b"\r\n"])
def test_a_head_without_end_is_given_up_also_when_nothing_of_it_is_kept(
    pair: tuple[Connection, socket.socket], endless: bytes
) -> None:
    conn, client = pair
    client.sendall(endless * (HEAD_LIMIT_BYTES // len(endless) + 100))
    with pytest.raises(HeadTooLarge):
        conn.advance()


@pytest.mark.parametrize(
    ("fields", "length"),
    [
        ("", 0),
        ("Content-Length: 12", 12),
        ("content-LENGTH:\t0012 ", 12),
        (f"Content-Length: {BODY_LIMIT_BYTES}", BODY_LIMIT_BYTES),
        (f"Content-Length: {'0' * 4000}7", 7),
        # A thread begins at once with what is long, or doubtful.
        (f"Content-Length: {BODY_LIMIT_BYTES + 1}", 0),
        (f"Content-Length: {'9' * 5000}", 0),
        ("Content-Length: 12\r\nContent-Length: 12", 0),
        ("Content-Length: 12\r\nTransfer-Encoding: chunked", 0),
        ("Transfer-Encoding: chunked", 0),
        *((f"Content-Length: {value}", 0) for value in ("", "+1", "-1", "1_0", "0x10", "1, 1", "1 1", "\u00b2")),
        ("X-Content-Length: 12", 0),
    ],
)
def test_the_length_of_a_short_body(fields: str, length: int) -> None:
    assert short_body(f"POST / HTTP/1.1\r\nHost: x\r\n{fields}\r\n".encode("latin-1")) == length
