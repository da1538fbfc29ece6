"""Whose a directory is before the agent uses it. As root, as the agent is."""

import os
import pwd
import socket
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from postqueue_api.errors import Misconfigured
from postqueue_api.rights import acting_as, claim, group_of

USER = "nobody"


def shared(directory: Path) -> tuple[int, int, int]:
    found = directory.stat()
    return stat.S_IMODE(found.st_mode), found.st_uid, found.st_gid


@pytest.mark.parametrize("entries", [None, [], ["journal.sqlite", "snapshots", "lost+found"], ["agent.sock"]])
def test_a_directory_of_ours_is_shared_with_the_group_of_web(tmp_path: Path, entries: list[str] | None) -> None:
    directory = tmp_path / "ours"
    if entries is not None:
        directory.mkdir(0o755)
        for name in entries:
            if name.endswith(".sock"):
                with socket.socket(socket.AF_UNIX) as listener:
                    listener.bind(str(directory / name))
            else:
                (directory / name).touch()
    for _ in range(2):
        claim(directory, USER, "state_directory")
        assert shared(directory) == (0o2750, 0, group_of(USER))


def test_what_else_came_into_it_afterwards_does_no_harm(tmp_path: Path) -> None:
    claim(tmp_path / "ours", USER, "state_directory")
    (tmp_path / "ours" / "tmpfile").touch()
    claim(tmp_path / "ours", USER, "state_directory")


def a_file(directory: Path) -> None:
    directory.touch()


def with_other_things(directory: Path) -> None:
    (directory / "ssh").mkdir(parents=True)


def with_a_socket_of_others(directory: Path) -> None:
    directory.mkdir()
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(directory / "docker.sock"))


def of_another(directory: Path) -> None:
    directory.mkdir()
    os.chown(directory, 12345, 0)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (a_file, "in the place of a file"),
        (with_other_things, "holds other things"),
        (with_a_socket_of_others, "holds other things"),
        (of_another, "belongs to user 12345"),
    ],
)
def test_what_is_not_ours_is_refused_and_left_as_it_is(
    tmp_path: Path, make: Callable[[Path], None], words: str
) -> None:
    directory = tmp_path / "theirs"
    make(directory)
    before = shared(directory)
    with pytest.raises(Misconfigured, match=rf"POSTQUEUE_API_AGENT_SOCKET .*{words}"):
        claim(directory, USER, "agent_socket")
    assert shared(directory) == before


def test_acting_as_a_user_ends_with_the_block_and_also_when_it_raises(tmp_path: Path) -> None:
    groups = os.getgroups()
    file = tmp_path / "file"
    file.touch(0o600)
    with acting_as(USER):
        assert os.geteuid() == pwd.getpwnam(USER).pw_uid
    with pytest.raises(PermissionError), acting_as(USER):
        file.read_text()
    assert (os.geteuid(), os.getegid(), os.getgroups()) == (0, 0, groups)
    assert file.read_text() == ""
