"""deploy/container-entry, where it can be tried without a container: Postfix waits until its spool is free."""

import contextlib
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from postqueue_api.sandbox import Sandbox, fresh_directory, processes
from tests.live import service as services

ENTRY = Path(__file__).parents[2] / "deploy" / "container-entry"
# The functions of the script, and then one of them: the script itself acts on /etc/postfix.
CALL = """set -euo pipefail
source <(sed -n '/^[a-z_]*() {$/,/^}$/p' "$1")
configuration=$3
"$2" "$4"
"""
LINE = "another Postfix works on this spool"


def call(function: str, directory: Path, seconds: int) -> "subprocess.Popen[str]":
    """One function of the script, for the configuration in a directory."""
    argv = ("bash", "-c", CALL, "-", str(ENTRY), function, str(directory), str(seconds))
    path = "/usr/sbin:/usr/bin:/sbin:/bin"
    environment = {"PATH": path, "MAIL_CONFIG": str(directory)}
    return subprocess.Popen(argv, env=environment, stderr=subprocess.PIPE, text=True)


@pytest.fixture
def running() -> Iterator[Sandbox]:
    with Sandbox(fresh_directory()) as made:
        yield made


@pytest.fixture
def next_one(running: Sandbox) -> Iterator[Path]:
    """The configuration of another Postfix on the same spool, whose data directory is its own, as in another task."""
    with services.place() as place:
        (place / "data").mkdir()
        text = (running.config_directory / "main.cf").read_text()
        lines = [line for line in text.splitlines() if not line.startswith("data_directory")]
        (place / "main.cf").write_text("\n".join([*lines, f"data_directory = {place}/data", ""]))
        (place / "master.cf").write_text((running.config_directory / "master.cf").read_text())
        yield place


def end_of(process: "subprocess.Popen[str]", seconds: float = 20) -> tuple[int, str]:
    _, said = process.communicate(timeout=seconds)
    return process.returncode, said


def children_of(pid: int) -> set[str]:
    """The names of a process's children; of one that has just ended, none."""
    found = set()
    for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
        with contextlib.suppress(OSError):
            found.add(Path(f"/proc/{child}/comm").read_text().strip())
    return found


def test_postfix_waits_until_the_one_of_the_last_task_has_ended_and_says_so_once(
    running: Sandbox, next_one: Path
) -> None:
    waiting = call("wait_for_spool", next_one, 60)
    time.sleep(3)
    assert waiting.poll() is None
    running.stop_postfix()
    status, said = end_of(waiting)
    assert (status, said.count("\n")) == (0, 1), said
    assert LINE in said


def test_a_spool_that_stays_in_use_is_refused_with_a_last_line(running: Sandbox, next_one: Path) -> None:
    status, said = end_of(call("wait_for_spool", next_one, 1))
    assert status == 1
    assert said.splitlines()[-1].endswith("Stop it: two on one spool destroy it.")
    assert len(said.splitlines()) == 2


def test_a_task_that_is_stopped_while_it_waits_ends_at_once(running: Sandbox, next_one: Path) -> None:
    waiting = call("wait_for_spool", next_one, 60)
    assert waiting.stderr is not None
    assert LINE in waiting.stderr.readline()
    begun = time.monotonic()
    waiting.send_signal(signal.SIGTERM)
    assert end_of(waiting)[0] == 0
    assert time.monotonic() - begun < 5


def test_a_free_spool_is_taken_without_a_word(running: Sandbox, next_one: Path) -> None:
    running.stop_postfix()
    assert end_of(call("wait_for_spool", next_one, 60)) == (0, "")


def test_the_agent_waits_for_the_settings_which_postfix_writes_when_the_spool_is_its_own() -> None:
    with services.place() as place:
        waiting = call("wait_for_configuration", place, 60)
        time.sleep(1)
        assert waiting.poll() is None
        (place / "main.cf").write_text("")
        assert end_of(waiting) == (0, "")
        (place / "main.cf").unlink()
        status, said = end_of(call("wait_for_configuration", place, 1))
        assert (status, said.count("\n")) == (1, 1)
        assert "main.cf is not there" in said
        waiting = call("wait_for_configuration", place, 60)
        processes.wait_until(lambda: "sleep" in children_of(waiting.pid), 10)
        waiting.send_signal(signal.SIGTERM)
        assert end_of(waiting, 5)[0] == 0
