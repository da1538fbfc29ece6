"""Starting, bounding and ending a command, on small real ones."""

import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from postqueue_api.errors import CommandTimeout, NotInstalled, UnexpectedOutput
from postqueue_api.postfix import process
from postqueue_api.postfix.process import ENVIRONMENT, Postfix, run, start

Command = Callable[[str], Path]


@pytest.fixture
def command(tmp_path: Path) -> Command:
    """Writes a shell script that can be run."""

    def write(script: str) -> Path:
        path = tmp_path / "command"
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)
        return path

    return write


def is_running(pid: int) -> bool:
    """Whether a process is there and no zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def ends(pid: int) -> bool:
    """Whether a process ends within five seconds: a kill is not over when it is sent."""
    deadline = time.monotonic() + 5
    while is_running(pid) and time.monotonic() < deadline:
        time.sleep(0.01)
    return not is_running(pid)


@pytest.mark.parametrize(
    ("config_directory", "argv"),
    [
        (None, ("/usr/sbin/postqueue", "-i", "ABCDEF")),
        (Path("/etc/postfix-two"), ("/usr/sbin/postqueue", "-c", "/etc/postfix-two", "-i", "ABCDEF")),
    ],
)
def test_the_instance_stands_before_the_arguments(config_directory: Path | None, argv: tuple[str, ...]) -> None:
    assert Postfix(Path("/usr/sbin"), config_directory, 1).argv("postqueue", "-i", "ABCDEF") == argv


def test_what_a_command_said_and_how_it_ended_is_kept(command: Command) -> None:
    finished = run([str(command("printf out; printf err >&2; exit 7"))], 5)
    assert (finished.command, finished.returncode, finished.stdout, finished.stderr) == ("command", 7, b"out", b"err")


def test_a_signal_is_told_from_an_exit_status(command: Command) -> None:
    assert run([str(command("kill -15 $$"))], 5).returncode == -15


def test_the_time_limit_ends_the_command_and_what_it_started(command: Command, tmp_path: Path) -> None:
    script = command(f"sh -c 'echo $$ >{tmp_path}/grandchild; sleep 60; :' & echo $$ >{tmp_path}/child; wait")
    before = time.monotonic()
    with pytest.raises(CommandTimeout, match=r"command did not end within 0\.5 seconds"):
        run([str(script)], 0.5)
    assert time.monotonic() - before < 10
    for name in ("child", "grandchild"):
        assert ends(int((tmp_path / name).read_text()))


def test_the_time_limit_holds_for_a_command_that_closed_its_output(command: Command) -> None:
    with pytest.raises(CommandTimeout):
        run([str(command("exec >&- 2>&-; sleep 60"))], 0.3)


def test_the_time_limit_holds_for_what_a_command_left_behind(command: Command, tmp_path: Path) -> None:
    script = command(f"sh -c 'echo $$ >{tmp_path}/left; sleep 60; :' & exit 0")
    with pytest.raises(CommandTimeout):
        run([str(script)], 0.5)
    assert ends(int((tmp_path / "left").read_text()))


@pytest.mark.parametrize(("limit", "fits"), [(9, False), (10, True)])
def test_the_byte_limit_is_the_most_that_is_taken(command: Command, limit: int, fits: bool) -> None:
    script = str(command("printf 0123456789"))
    if fits:
        assert run([script], 5, limit_bytes=limit).stdout == b"0123456789"
    else:
        with pytest.raises(UnexpectedOutput, match="more than 9 bytes"):
            run([script], 5, limit_bytes=limit)


def test_endless_output_is_ended_at_the_byte_limit(command: Command, tmp_path: Path) -> None:
    script = command(f"echo $$ >{tmp_path}/pid; exec yes")
    with pytest.raises(UnexpectedOutput):
        run([str(script)], 30, limit_bytes=1 << 20)
    assert ends(int((tmp_path / "pid").read_text()))


def test_a_command_that_nobody_reads_to_the_end_is_gone_after_the_block(command: Command, tmp_path: Path) -> None:
    with start([str(command(f"echo $$ >{tmp_path}/pid; exec yes"))], 30) as running:
        assert running.stdout.read(2) == b"y\n"
    assert not is_running(int((tmp_path / "pid").read_text()))


def test_standard_error_is_a_file_so_that_no_reader_is_needed(command: Command) -> None:
    finished = run([str(command("test -p /dev/stderr && exit 1; head -c 3000000 /dev/zero >&2"))], 10)
    assert finished.returncode == 0
    assert len(finished.stderr) == 3_000_000


def test_a_command_that_complains_without_end_is_an_error(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "STDERR_LIMIT_BYTES", 1000)
    with pytest.raises(UnexpectedOutput, match="standard error"):
        run([str(command("head -c 1001 /dev/zero >&2"))], 10)


def test_the_environment_is_fixed(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MAIL_CONFIG", "/nowhere")
    finished = run(["/usr/bin/env"], 5)
    assert dict(line.split("=", 1) for line in finished.stdout.decode().splitlines()) == ENVIRONMENT
    assert {"TZ", "LC_ALL", "PATH"} == set(ENVIRONMENT)


def test_a_command_works_in_the_root_directory_and_leads_its_own_group(command: Command) -> None:
    finished = run([str(command("pwd; cut -d ' ' -f 5 /proc/$$/stat; echo $$"))], 5)
    directory, group, pid = finished.stdout.split()
    assert directory == b"/"
    assert group == pid


@pytest.mark.parametrize("stdin", [b"", b"ABCDEF", b"ABCDEF\n" * 300_000])
def test_standard_input_is_there_as_a_whole_before_the_command_reads(command: Command, stdin: bytes) -> None:
    finished = run([str(command("stat -L -c %s /dev/stdin; cat"))], 10, stdin=stdin, limit_bytes=1 << 23)
    size, _, content = finished.stdout.partition(b"\n")
    assert int(size) == len(stdin)
    assert content == stdin


def test_without_standard_input_there_is_nothing_to_read(command: Command) -> None:
    assert run([str(command("cat; readlink /proc/self/fd/0"))], 5).stdout == b"/dev/null\n"


def test_no_file_of_ours_is_open_in_the_command(command: Command, tmp_path: Path) -> None:
    with (tmp_path / "secret").open("w") as ours:
        os.set_inheritable(ours.fileno(), True)
        finished = run([str(command("ls /proc/$$/fd"))], 5, stdin=b"x")
    assert {int(name) for name in finished.stdout.split()} <= {0, 1, 2, 10, 255}  # a shell keeps its script open


@pytest.mark.parametrize("name", ["missing", "not-executable", "file/below-a-file"])
def test_a_command_that_cannot_be_started_is_not_installed(tmp_path: Path, name: str) -> None:
    (tmp_path / "not-executable").write_text("#!/bin/sh\n")
    (tmp_path / "file").write_text("")
    with pytest.raises(NotInstalled) as caught:
        run([str(tmp_path / name)], 5)
    assert str(tmp_path) not in caught.value.detail


def test_no_descriptor_is_left_after_commands_that_ended_in_every_way(command: Command, tmp_path: Path) -> None:
    before = len(list(Path("/proc/self/fd").iterdir()))
    run([str(command("exit 0"))], 5, stdin=b"x")
    with pytest.raises(NotInstalled):
        run([str(tmp_path / "missing")], 5)
    with pytest.raises(CommandTimeout):
        run([str(command("sleep 9"))], 0.1)
    with pytest.raises(UnexpectedOutput):
        run([str(command("echo too much"))], 5, limit_bytes=1)
    assert len(list(Path("/proc/self/fd").iterdir())) == before
