"""The SMTP servers of the sandbox, without Postfix."""

import socket
import threading
import time
from collections import Counter
from pathlib import Path

from postqueue_api.sandbox.sink import LOOPBACK, Sinks
from postqueue_api.sandbox.sites import REFUSING, Site

CLIENTS, SECONDS = 8, 2.0


def visit(port: int, end: float, met: Counter[str]) -> None:
    """Connect again and again, and note what becomes of it."""
    while time.monotonic() < end:
        with socket.socket() as client:
            client.settimeout(5)
            try:
                client.connect((LOOPBACK, port))
                met["greeted" if client.recv(100) else "sent away"] += 1
            except TimeoutError:
                met["left waiting"] += 1
            except ConnectionError as error:
                met["refused" if isinstance(error, ConnectionRefusedError) else "sent away"] += 1


def test_a_site_that_opens_and_closes_leaves_no_client_waiting(tmp_path: Path) -> None:
    """Postfix would wait for five minutes, and all other mail for that site behind it."""
    sinks = Sinks([Site(REFUSING, "CONNECT")], tmp_path)
    sinks.start()
    met: Counter[str] = Counter()
    end = time.monotonic() + SECONDS
    clients = [threading.Thread(target=visit, args=(sinks.ports[REFUSING], end, met)) for _ in range(CLIENTS)]
    for client in clients:
        client.start()
    while time.monotonic() < end:
        sinks.set(REFUSING, Site(REFUSING))
        time.sleep(0.02)
        sinks.set(REFUSING, Site(REFUSING, "CONNECT"))
        time.sleep(0.005)
    for client in clients:
        client.join()
    sinks.stop()
    assert met["left waiting"] == 0
    assert min(met["greeted"], met["refused"]) > 100
    assert sinks.conversations == 0
