"""postcat: its arguments, every byte of its output, and when it must not be believed."""

import pytest

from postqueue_api.errors import CommandTimeout, Error, NoSuchMessage, NotInstalled, UnexpectedOutput
from postqueue_api.postfix import postcat
from postqueue_api.postfix.arguments import QueueId
from postqueue_api.postfix.process import Postfix
from tests.fake_commands import COMPLAINTS, FakeCommands, commands

__all__ = ["commands"]

ID = QueueId.parse("4jY9Jt1qzWz2Ff8Q")


def read(postfix: Postfix) -> bytes:
    with postcat.content(postfix, ID) as message:
        return b"".join(message.chunks())


def test_headers_and_body_come_from_one_command_byte_for_byte(commands: FakeCommands) -> None:
    stored = b"Subject: \xff\r\n\nbody\x00\n\n*** MESSAGE CONTENTS\n.\nno end of line" * 5000
    (commands.directory / "message").write_bytes(stored)
    commands.write("postcat", "cat $here/message")
    assert read(commands.postfix) == stored
    assert commands.starts("postcat") == [("-bh", "-q", "4jY9Jt1qzWz2Ff8Q")]


@pytest.mark.parametrize(("complaint", "error"), COMPLAINTS)
def test_each_complaint_is_its_own_error(
    commands: FakeCommands, complaint: tuple[str, int], error: type[Error]
) -> None:
    commands.says("postcat", complaint)
    with pytest.raises(Error) as caught:
        read(commands.postfix)
    assert type(caught.value) is error


def test_an_unknown_id_is_no_such_message(commands: FakeCommands) -> None:
    commands.says("postcat", ("postcat: fatal: open queue file 4jY9Jt1qzWz2Ff8Q: No such file or directory", 1))
    with pytest.raises(NoSuchMessage):
        read(commands.postfix)


@pytest.mark.parametrize(
    ("words", "stdout"),
    [
        ("", ""),
        ("postcat: warning: uncommon record", "Subject: half\n"),
        ("postcat: warning: 4jY9Jt1qzWz2Ff8Q: invalid record", ""),
    ],
)
def test_a_warning_or_no_content_is_a_damaged_file_although_the_exit_status_is_0(
    commands: FakeCommands, words: str, stdout: str
) -> None:
    commands.says("postcat", (words, 0), stdout=stdout)
    with pytest.raises(UnexpectedOutput, match="damaged"):
        read(commands.postfix)


def test_what_came_before_a_failure_is_given_and_then_the_failure(commands: FakeCommands) -> None:
    commands.write("postcat", "echo Subject: half; exit 1")
    got: list[bytes] = []
    with postcat.content(commands.postfix, ID) as message, pytest.raises(Error):
        got.extend(message.chunks())
    assert got == [b"Subject: half\n"]


def test_a_reader_that_leaves_early_ends_the_command(commands: FakeCommands) -> None:
    commands.write("postcat", "exec yes")
    with postcat.content(commands.postfix, ID) as message:
        assert next(message.chunks()).startswith(b"y\n")


def test_a_missing_command_and_one_that_never_ends_are_told_apart(commands: FakeCommands) -> None:
    with pytest.raises(NotInstalled):
        read(commands.postfix)
    commands.write("postcat", "exec yes")
    with postcat.content(Postfix(commands.directory, None, 0.3), ID) as message, pytest.raises(CommandTimeout):
        for _ in message.chunks():
            pass
