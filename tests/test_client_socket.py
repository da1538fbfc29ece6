"""How long a thread waits for a client: a real pair of sockets, with a patience of tenths of a second."""

import contextlib
import socket
import threading
import time
from collections.abc import Iterator

import pytest

from postqueue_api import client_socket
from postqueue_api.client_socket import PlainSocket

STALL = 0.4


@pytest.fixture
def pair(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[PlainSocket, socket.socket]]:
    monkeypatch.setattr(client_socket, "STALL_SECONDS", STALL)
    ours, theirs = socket.socketpair()
    patient = PlainSocket(ours.family, ours.type, ours.proto, ours.detach())
    with patient, theirs:
        patient.setblocking(True)
        yield patient, theirs


def test_a_client_that_sends_nothing_is_waited_for_so_long_and_no_longer(
    pair: tuple[PlainSocket, socket.socket],
) -> None:
    begun = time.monotonic()
    with pytest.raises(TimeoutError):
        pair[0].recv(10)
    assert STALL * 0.9 < time.monotonic() - begun < STALL * 3


def read_for_ten_seconds(patient: PlainSocket) -> None:
    begun = time.monotonic()
    while time.monotonic() - begun < 10:
        patient.recv(10)


def test_a_client_that_drips_is_not_waited_for_longer(pair: tuple[PlainSocket, socket.socket]) -> None:
    enough = threading.Event()

    def drip() -> None:
        with contextlib.suppress(OSError):
            while not enough.wait(0.05):
                pair[1].send(b"x")

    dripping = threading.Thread(target=drip)
    dripping.start()
    begun = time.monotonic()
    try:
        with pytest.raises(TimeoutError):
            read_for_ten_seconds(pair[0])
    finally:
        enough.set()
        dripping.join()
    assert time.monotonic() - begun < STALL * 4


def test_a_client_that_takes_nothing_has_hung_up(pair: tuple[PlainSocket, socket.socket]) -> None:
    begun = time.monotonic()
    with pytest.raises(BrokenPipeError):
        pair[0].sendall(b"x" * (8 << 20))
    assert time.monotonic() - begun < STALL * 3


def test_what_moves_fast_enough_may_take_longer_than_one_patience(pair: tuple[PlainSocket, socket.socket]) -> None:
    def take() -> None:
        left = 1 << 20
        while left:
            time.sleep(0.03)
            left -= len(pair[1].recv(1 << 15))

    taking = threading.Thread(target=take)
    taking.start()
    begun = time.monotonic()
    pair[0].sendall(b"x" * (1 << 20))
    taking.join()
    assert time.monotonic() - begun > STALL


def test_the_next_request_begins_with_fresh_patience_and_a_socket_that_does_not_block_has_none(
    pair: tuple[PlainSocket, socket.socket],
) -> None:
    with pytest.raises(TimeoutError):
        pair[0].recv(10)
    with pytest.raises(TimeoutError, match="too slow"):
        pair[0].recv(10)
    pair[0].setblocking(False)
    with pytest.raises(BlockingIOError):
        pair[0].recv(10)
    pair[0].setblocking(True)
    pair[1].send(b"more")
    assert pair[0].recv(10) == b"more"
