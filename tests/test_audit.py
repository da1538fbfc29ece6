"""The audit: one line each, which nobody can forge, and none is lost quietly."""

import datetime
import json
import os
import select
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from flask import Flask, g

from postqueue_api.audit import TEXT_LIMIT, write_lines
from postqueue_api.web import audit
from postqueue_api.web.credentials import Principal

KEYS = ["time", "event", "actor", "role", "address", "request_id", "action", "reason", "queue_id", "outcome"]


@pytest.fixture
def descriptors() -> Iterator[list[int]]:
    """Standard output and error as they are, put back afterwards."""
    kept = [os.dup(1), os.dup(2)]
    yield kept
    for number, copy in enumerate(kept, 1):
        os.dup2(copy, number)
        os.close(copy)


def lines(capfd: pytest.CaptureFixture[str]) -> list[dict[str, object]]:
    return [json.loads(line) for line in capfd.readouterr().out.split("\n")[:-1]]


def test_a_change_is_one_line_with_who_what_where_and_why(capfd: pytest.CaptureFixture[str]) -> None:
    app = Flask(__name__)
    with app.test_request_context("/", headers={"X-Request-Id": "r-1"}, environ_base={"REMOTE_ADDR": "192.0.2.1"}):
        g.principal = Principal("alice", frozenset({"operator", "viewer", "content"}))
        audit.record(action="hold", outcome="held", queue_id="3xYzABC", reason="asked by the sender")
    (line,) = lines(capfd)
    assert list(line) == KEYS
    now = datetime.datetime.fromisoformat(str(line.pop("time")))
    assert abs(datetime.datetime.now(datetime.UTC) - now) < datetime.timedelta(seconds=10)
    assert line == {
        "event": "change",
        "actor": "alice",
        "role": "operator+content",
        "address": "192.0.2.1",
        "request_id": "r-1",
        "action": "hold",
        "reason": "asked by the sender",
        "queue_id": "3xYzABC",
        "outcome": "held",
    }


def test_a_change_outside_a_request_is_a_line_too(capfd: pytest.CaptureFixture[str]) -> None:
    audit.record(action="delete", outcome="removed", actor="alice", operation_id=7)
    (line,) = lines(capfd)
    assert (line["actor"], line["operation_id"], line["address"]) == ("alice", 7, None)


@pytest.mark.parametrize(
    "text",
    ['a\n{"event": "change"}', "a\r\nb", "\0\x1b[2J\x7f", "\u2028\u2029\x85", "\u202ereversed", '"}', "\udc80", "é😀"],
)
def test_no_text_of_a_client_ends_a_line_or_leaves_ascii(capfd: pytest.CaptureFixture[str], text: str) -> None:
    audit.record(action="hold", outcome="held", reason=text)
    out = capfd.readouterr().out
    assert out.count("\n") == 1
    assert out.endswith("\n")
    assert all(" " <= character <= "~" for character in out[:-1])
    assert json.loads(out)["reason"] == text


@pytest.mark.parametrize("letter", ["x", "\n", "é", "😀", "\u202e"])
def test_a_long_text_is_cut_and_the_line_fits_one_atomic_write(capfd: pytest.CaptureFixture[str], letter: str) -> None:
    audit.record(action="hold", outcome="held", reason=letter * 100_000, queue_id=letter * 5000, other=[letter] * 5000)
    out = capfd.readouterr().out
    assert len(out) <= select.PIPE_BUF
    assert json.loads(out)["reason"].endswith("...")
    assert len(json.loads(out)["reason"]) <= TEXT_LIMIT + 3


def test_a_text_of_the_greatest_length_is_whole(capfd: pytest.CaptureFixture[str]) -> None:
    audit.record(action="hold", outcome="held", reason="x" * TEXT_LIMIT)
    assert lines(capfd)[0]["reason"] == "x" * TEXT_LIMIT


def test_a_line_is_one_write(descriptors: list[int]) -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs:
        os.dup2(theirs.fileno(), 1)
        audit.record(action="hold", outcome="held", reason="x" * 500)
        os.dup2(descriptors[0], 1)
        assert ours.recv(65536).endswith(b"}\n")


def test_lines_of_many_messages_are_whole_in_each_write(descriptors: list[int]) -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs:
        os.dup2(theirs.fileno(), 1)
        write_lines("change", {"actor": "alice", "reason": "é" * 300}, ({"queue_id": f"A{each}"} for each in range(40)))
        os.dup2(descriptors[0], 1)
        theirs.shutdown(socket.SHUT_WR)
        writes = list(iter(lambda: ours.recv(1 << 20), b""))
    assert len(writes) < 40
    assert all(len(write) <= select.PIPE_BUF and write.endswith(b"}\n") for write in writes)
    found = [json.loads(line) for line in b"".join(writes).splitlines()]
    assert [line["queue_id"] for line in found] == [f"A{each}" for each in range(40)]
    assert {(line["event"], line["actor"], line["reason"]) for line in found} == {("change", "alice", "é" * 300)}


@pytest.mark.parametrize("letter", ["x", "😀"])
def test_a_line_of_many_is_cut_until_it_fits_as_one_alone_is(capfd: pytest.CaptureFixture[str], letter: str) -> None:
    shared = dict.fromkeys(("actor", "reason", "request_id"), letter * 5000)
    write_lines("change", shared, [{"queue_id": letter * 5000}, {"queue_id": "short"}])
    out = capfd.readouterr().out
    assert all(len(line) < select.PIPE_BUF for line in out.split("\n"))
    assert [json.loads(line)["queue_id"] for line in out.splitlines()][1] == "short"


def _write_many(number: int) -> None:
    for turn in range(200):
        audit.record(action="hold", outcome="held", reason=str(number) * 500, turn=turn)


def test_lines_of_threads_and_processes_do_not_mix(descriptors: list[int]) -> None:
    readable, writable = os.pipe()
    os.dup2(writable, 1)
    os.close(writable)
    parts: list[bytes] = []

    def drain() -> None:
        while part := os.read(readable, 65536):
            parts.append(part)

    reader = threading.Thread(target=drain)
    reader.start()
    program = "import sys; from tests.test_audit import _write_many; _write_many(int(sys.argv[1]))"
    processes = [subprocess.Popen([sys.executable, "-c", program, number]) for number in "12"]
    threads = [threading.Thread(target=_write_many, args=(number,)) for number in (3, 4, 5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [process.wait(timeout=60) for process in processes] == [0, 0]
    os.dup2(descriptors[0], 1)
    reader.join()
    os.close(readable)
    found = [json.loads(line) for line in b"".join(parts).split(b"\n")[:-1]]
    assert len(found) == 5 * 200
    assert all(len(set(line["reason"])) == 1 for line in found)


def test_a_closed_standard_output_is_told_on_standard_error_and_stops_nothing(
    tmp_path: Path, descriptors: list[int]
) -> None:
    with (tmp_path / "error").open("wb") as error:
        os.dup2(error.fileno(), 2)
    readable, writable = os.pipe()
    os.dup2(writable, 1)
    os.close(writable)
    os.close(readable)
    audit.record(action="hold", outcome="held", queue_id="3xYzABC")
    os.dup2(descriptors[1], 2)
    told = (tmp_path / "error").read_text()
    assert told.startswith("Audit: standard output failed ('Broken pipe'): {")
    assert '"3xYzABC"' in told


def test_standard_output_and_error_both_closed_stop_nothing(descriptors: list[int]) -> None:
    os.close(1)
    os.close(2)
    try:
        audit.record(action="hold", outcome="held")
    finally:
        os.dup2(descriptors[0], 1)
        os.dup2(descriptors[1], 2)


def test_a_full_pipe_that_does_not_block_is_waited_for(descriptors: list[int]) -> None:
    readable, writable = os.pipe()
    os.set_blocking(writable, False)
    filled = 0
    while select.select([], [writable], [], 0)[1]:
        filled += os.write(writable, b"x" * 4096)
    os.dup2(writable, 1)
    os.close(writable)
    timer = threading.Timer(0.3, lambda: os.read(readable, filled))
    timer.start()
    audit.record(action="hold", outcome="held")
    os.dup2(descriptors[0], 1)
    timer.join()
    assert json.loads(os.read(readable, 65536))["outcome"] == "held"
    os.close(readable)
