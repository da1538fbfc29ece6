"""postconf: where the commands are, and what this instance is."""

from dataclasses import replace
from pathlib import Path

import pytest

from postqueue_api.errors import CommandTimeout, Error, Misconfigured, NotInstalled, UnexpectedOutput
from postqueue_api.postfix import process
from postqueue_api.postfix.postconf import Instance, find_commands, read_instance, refuse_old
from postqueue_api.postfix.process import Postfix
from tests.fake_commands import COMPLAINTS, FakeCommands, commands

__all__ = ["commands"]

# Postfix 3.7.11
SAID = """\
mail_version = 3.7.11
queue_directory = /var/spool/postfix
mail_owner = postfix
myhostname = relay.example.com
multi_instance_name =
enable_long_queue_ids = yes
hash_queue_names = deferred, defer
"""
HASHED = frozenset({"deferred", "defer"})
INSTANCE = Instance("3.7.11", Path("/var/spool/postfix"), "postfix", "relay.example.com", "", True, HASHED)


def test_the_instance_is_read_by_one_command(commands: FakeCommands) -> None:
    commands.says("postconf", ("", 0), stdout=SAID)
    assert read_instance(commands.postfix) == INSTANCE
    assert commands.starts("postconf") == [
        ("-x", *(line.split()[0] for line in SAID.splitlines())),
    ]


@pytest.mark.parametrize(
    ("replaced", "by", "expected"),
    [
        ("queue_directory = /var", "queue_directory = /with = sign/var", Path("/with = sign/var/spool/postfix")),
        ("queue_directory = /var/spool/postfix", "queue_directory = /räum", Path("/räum")),
    ],
)
def test_a_value_is_all_that_stands_behind_the_first_sign(
    commands: FakeCommands, replaced: str, by: str, expected: Path
) -> None:
    commands.says("postconf", ("", 0), stdout=SAID.replace(replaced, by))
    assert read_instance(commands.postfix).queue_directory == expected


def test_a_warning_beside_the_values_is_no_failure(commands: FakeCommands) -> None:
    commands.says("postconf", ("postconf: warning: /etc/postfix/main.cf: unused parameter: x=y", 0), stdout=SAID)
    assert read_instance(commands.postfix) == INSTANCE


@pytest.mark.parametrize("line", SAID.splitlines(keepends=True))
def test_a_value_that_is_not_told_is_named(commands: FakeCommands, line: str) -> None:
    commands.says("postconf", ("", 0), stdout=SAID.replace(line, ""))
    with pytest.raises(UnexpectedOutput, match=line.split()[0]):
        read_instance(commands.postfix)


@pytest.mark.parametrize(("complaint", "error"), COMPLAINTS)
def test_each_complaint_is_its_own_error(
    commands: FakeCommands, complaint: tuple[str, int], error: type[Error]
) -> None:
    commands.says("postconf", complaint)
    with pytest.raises(Error) as caught:
        read_instance(commands.postfix)
    assert type(caught.value) is error


def test_a_missing_command_and_one_that_does_not_end_are_told_apart(commands: FakeCommands) -> None:
    with pytest.raises(NotInstalled):
        read_instance(commands.postfix)
    commands.write("postconf", "exec sleep 60")
    with pytest.raises(CommandTimeout):
        read_instance(Postfix(commands.directory, None, 0.2))


def test_a_directory_of_commands_that_is_given_is_not_asked_for(commands: FakeCommands) -> None:
    commands.write("postconf")
    assert find_commands(commands.directory, Path("/etc/two"), 5) == Postfix(commands.directory, Path("/etc/two"), 5)
    assert commands.starts("postconf") == []


def test_else_postconf_says_where_the_commands_of_that_instance_are(
    commands: FakeCommands, monkeypatch: pytest.MonkeyPatch
) -> None:
    commands.says("postconf", ("", 0), stdout="/opt/postfix/sbin\n")
    monkeypatch.setitem(process.ENVIRONMENT, "PATH", f"{commands.directory}:/usr/bin:/bin")
    assert find_commands(None, Path("/etc/two"), 5) == Postfix(Path("/opt/postfix/sbin"), Path("/etc/two"), 5)
    assert commands.starts("postconf") == [("-c", "/etc/two", "-h", "command_directory")]


def test_without_any_postconf_postfix_is_not_installed(commands: FakeCommands, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(process.ENVIRONMENT, "PATH", str(commands.directory))
    with pytest.raises(NotInstalled, match="POSTQUEUE_API_COMMAND_DIRECTORY"):
        find_commands(None, None, 5)


@pytest.mark.parametrize("stdout", ["", "\n", "sbin\n"])
def test_an_empty_or_relative_directory_of_commands_is_not_believed(
    commands: FakeCommands, monkeypatch: pytest.MonkeyPatch, stdout: str
) -> None:
    commands.says("postconf", ("", 0), stdout=stdout)
    monkeypatch.setitem(process.ENVIRONMENT, "PATH", f"{commands.directory}:/usr/bin:/bin")
    with pytest.raises(UnexpectedOutput):
        find_commands(None, None, 5)


@pytest.mark.parametrize(
    ("version", "is_old"),
    [("3.4.29", True), ("2.11.11", True), ("3.4-RC2", True), ("3.5.0", False), ("3.10.13", False), ("4.0.0", False),
     ("3.12-20260101", False), ("of a patched build", False)],
)  # fmt: skip
def test_a_postfix_before_3_5_is_refused(version: str, is_old: bool) -> None:
    instance = replace(INSTANCE, mail_version=version)
    if is_old:
        with pytest.raises(Misconfigured, match=r"is too old: install 3\.5 or later"):
            refuse_old(instance)
    else:
        refuse_old(instance)
