"""The place where web's processes count together: whose it is, and when it goes."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from postqueue_api import counters

HOLDING = """
import sys, time
from postqueue_api import counters
counters.SHARED_MEMORY = sys.argv[1]
with counters.shared_counters("root"):
    print("here", flush=True)
    time.sleep(60)
"""
FORKING = """
import os, sys
from postqueue_api import counters
counters.SHARED_MEMORY = sys.argv[1]
with counters.shared_counters("root"):
    pid = os.fork()
    if pid == 0:
        sys.exit()  # leaves the block as gunicorn's workers do
    os.waitpid(pid, 0)
    print(os.path.isdir(os.environ["PROMETHEUS_MULTIPROC_DIR"]))
"""


@pytest.fixture
def memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(counters, "SHARED_MEMORY", str(tmp_path))
    monkeypatch.setenv(counters.VARIABLE, "")
    return tmp_path


def test_it_is_there_as_long_as_the_block_lasts(memory: Path) -> None:
    with counters.shared_counters("root"):
        (made,) = memory.iterdir()
        assert os.environ[counters.VARIABLE] == str(made)
        (made / "counter_1.db").touch()
    assert list(memory.iterdir()) == []


def test_it_goes_also_when_the_start_is_refused(memory: Path) -> None:
    with pytest.raises(SystemExit), counters.shared_counters("no-such-user" if os.geteuid() else "root"):
        raise SystemExit(1)
    assert list(memory.iterdir()) == []


def test_a_child_that_ends_leaves_it_alone(memory: Path) -> None:
    run = subprocess.run([sys.executable, "-c", FORKING, memory], capture_output=True, text=True, check=True)
    assert run.stdout == "True\n"
    assert list(memory.iterdir()) == []


def test_what_a_killed_process_left_goes_at_the_next_start_and_not_before(memory: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", HOLDING, memory], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"here\n"
        (its,) = memory.iterdir()
        with counters.shared_counters("root"):
            assert its.exists()
        process.kill()
        process.wait()
        assert its.exists()
        with counters.shared_counters("root"):
            assert not its.exists()


def test_what_others_put_there_under_that_name_is_left_alone(memory: Path) -> None:
    elsewhere = memory / "elsewhere"
    elsewhere.mkdir()
    (memory / f"{counters.PREFIX}link").symlink_to(elsewhere)
    (memory / f"{counters.PREFIX}file").touch()
    strangers = memory / f"{counters.PREFIX}strangers"
    strangers.mkdir()
    os.chown(strangers, 12345, 12345)
    before = set(memory.iterdir())
    with counters.shared_counters("root"):
        assert before < set(memory.iterdir())
    assert set(memory.iterdir()) == before
    assert elsewhere.is_dir()
