"""A listing that Postfix breaks off in the middle: partial, said to be, and the last complete one is kept at hand."""

import contextlib
import os
import signal
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from benchmarks.multiply import multiply
from postqueue_api.sandbox import Sandbox, processes
from tests.live import service as services
from tests.live.mailbox import Mailbox
from tests.live.service import FRESH, Service

COPIES = 5000
ATTEMPTS = 10


@pytest.fixture(scope="module")
def own_box() -> Iterator[Sandbox]:
    """A sandbox of its own, with a queue that takes some tenths of a second to list."""
    memory = "/dev/shm" if os.access("/dev/shm", os.W_OK) else "/var/tmp"
    directory = Path(tempfile.mkdtemp(prefix="postqueue-api-sandbox-", dir=memory))
    directory.chmod(0o755)
    # Else master starts no other showq for a minute after one was killed.
    with Sandbox(directory, extra_main_cf={"service_throttle_time": "1s"}) as made:
        mailbox = Mailbox(made)
        mailbox.deferred("a@full.example")
        multiply(made.queue_directory, COPIES, "hold")
        yield made


@pytest.fixture(scope="module")
def own_service(own_box: Sandbox) -> Iterator[Service]:
    with services.started(own_box) as made:
        yield made


def listed(service: Service) -> Any:
    return service.ask("GET", "/v1/messages?limit=1", "viewer", FRESH).json().get("snapshot")


def busy(box: Sandbox) -> list[int]:
    """The showq processes that are in the middle of the large queue: they have its directory open."""
    found = []
    for pid in processes.daemons(box.directory):
        with contextlib.suppress(OSError):
            process = Path(f"/proc/{pid}")
            places = {link.readlink() for link in process.joinpath("fd").iterdir()}
            if process.joinpath("exe").readlink().name == "showq" and box.queue_directory / "hold" in places:
                found.append(pid)
    return found


def broken_off(service: Service, box: Sandbox, break_off: Callable[[int], None]) -> tuple[Any, Any]:
    """A listing during which something happens to its showq, and the last one before it that was complete.

    It may come too early or too late: then once more.
    """
    complete = listed(service)
    assert (complete["complete"], complete["messages"]) == (True, COPIES + 1)
    for _ in range(ATTEMPTS):
        with ThreadPoolExecutor(1) as pool:
            reader = pool.submit(listed, service)
            while not busy(box) and not reader.done():
                time.sleep(0.005)
            time.sleep(0.03)
            for pid in busy(box):
                break_off(pid)
        found = reader.result()
        if found is not None and not found["complete"]:
            return found, complete
        complete = found or complete
    raise AssertionError("no listing was broken off in its middle")


def kill(pid: int) -> None:
    os.kill(pid, signal.SIGKILL)


def check(service: Service, partial: Any, complete: Any) -> None:
    assert 0 < partial["messages"] < complete["messages"]
    assert partial["problem"] == "command_failed"
    assert partial["last_complete"] == complete["snapshot_id"]
    kept = service.ask("GET", f"/v1/messages?limit=1&snapshot_id={complete['snapshot_id']}", "viewer").json()
    assert (kept["total"], kept["snapshot"]["complete"]) == (COPIES + 1, True)
    status = service.ask("GET", "/v1/status", "viewer", {"Cache-Control": "max-age=3600"}).json()
    assert status["problem"]["code"] == "command_failed"
    assert sum(queue["messages"] for queue in status["queues"]) == partial["messages"]


def test_a_showq_that_is_killed_leaves_a_partial_listing_and_the_last_complete_one(
    own_service: Service, own_box: Sandbox
) -> None:
    check(own_service, *broken_off(own_service, own_box, kill))
    processes.wait_until(lambda: (listed(own_service) or {}).get("complete"), 30)
    assert listed(own_service)["messages"] == COPIES + 1


def test_a_postfix_that_is_stopped_leaves_a_partial_listing_and_the_last_complete_one(
    own_service: Service, own_box: Sandbox
) -> None:
    def stop(_: int) -> None:
        """As `postfix stop` does it, but at once."""
        master = int((own_box.queue_directory / "pid" / "master.pid").read_text())
        os.kill(master, signal.SIGTERM)

    try:
        check(own_service, *broken_off(own_service, own_box, stop))
        own_box.stop_postfix()
        # As root, postqueue reads the queue past the mail system that is down.
        down = listed(own_service)
        assert (down["complete"], down["mail_system"], down["messages"]) == (True, "down", COPIES + 1)
    finally:
        own_box.stop_postfix()
        own_box.start_postfix()
    assert listed(own_service)["mail_system"] == "running"
