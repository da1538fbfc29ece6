"""postsuper: its arguments, its standard input, and the lines that are the only truth."""

from collections.abc import Callable

import pytest

from postqueue_api.errors import CommandFailed, CommandTimeout, Error, NotInstalled
from postqueue_api.postfix import postsuper
from postqueue_api.postfix.arguments import QueueId, QueueName
from postqueue_api.postfix.postsuper import Report
from postqueue_api.postfix.process import Postfix
from tests.fake_commands import COMPLAINTS, FakeCommands, commands

__all__ = ["commands"]

HOLD, DEFERRED = QueueName.parse("hold"), QueueName.parse("deferred")
IDS = [QueueId.parse(text) for text in ("ABCDEF12", "4jY9Jt1qzWz2Ff8Q", "0123456789")]


def hold(postfix: Postfix, ids: list[QueueId]) -> Report:
    return postsuper.hold(postfix, ids, DEFERRED)


Call = Callable[[Postfix, list[QueueId]], Report]
CALLS: dict[str, Call] = {
    "-d - hold": lambda postfix, ids: postsuper.delete(postfix, ids, HOLD),
    "-h - deferred": hold,
    "-H -": postsuper.release,
    "-r - hold": lambda postfix, ids: postsuper.requeue(postfix, ids, HOLD),
    "-e - hold": lambda postfix, ids: postsuper.expire(postfix, ids, HOLD),
}


@pytest.mark.parametrize("arguments", CALLS)
def test_the_arguments_are_constant_and_the_ids_are_on_standard_input(commands: FakeCommands, arguments: str) -> None:
    commands.write("postsuper", "cat >$here/stdin")
    assert CALLS[arguments](commands.postfix, IDS) == Report()
    assert commands.starts("postsuper") == [tuple(arguments.split())]
    assert (commands.directory / "stdin").read_bytes() == b"ABCDEF12\n4jY9Jt1qzWz2Ff8Q\n0123456789\n"


@pytest.mark.parametrize("arguments", CALLS)
def test_an_empty_list_starts_nothing(commands: FakeCommands, arguments: str) -> None:
    commands.write("postsuper")
    assert CALLS[arguments](commands.postfix, []) == Report()
    assert commands.starts("postsuper") == []


@pytest.mark.parametrize("words", ["removed", "requeued", "placed on hold", "released from hold", "expired"])
def test_only_an_id_with_a_line_of_its_own_was_acted_on(commands: FakeCommands, words: str) -> None:
    said = (
        f"postsuper: ABCDEF12: {words}\npostsuper: warning: invalid mail queue id: ../x\npostsuper: Deleted: 1 message"
    )
    commands.says("postsuper", (said, 0))
    assert hold(commands.postfix, IDS) == Report(said={IDS[0]: [words]})


def test_two_lines_for_one_id_are_both_kept_in_order(commands: FakeCommands) -> None:
    said = "postsuper: ABCDEF12: expired\npostsuper: ABCDEF12: released from hold\npostsuper: Force-expired: 1 message"
    commands.says("postsuper", (said, 0))
    assert postsuper.expire(commands.postfix, IDS, HOLD).said == {IDS[0]: ["expired", "released from hold"]}


@pytest.mark.parametrize(
    "line",
    [
        "postsuper: Placed on hold: 0 messages",
        "postsuper: ABCDEF12: removed and more",
        "postsuper: ABCDEF12:removed",
        "postsuper: warning: ABCDEF12: removed",
        "postsuper: AB/CDEF12: removed",
        "prefix postsuper: ABCDEF12: removed",
        "postsuper: ABCDEF12: removed\r",
        "ABCDEF12: removed",
    ],
)
def test_what_is_not_such_a_line_reports_nothing(commands: FakeCommands, line: str) -> None:
    commands.says("postsuper", (line, 0))
    assert hold(commands.postfix, IDS) == Report()


@pytest.mark.parametrize(
    ("end", "status"),
    [("exit 15", "exit status 15"), ("kill -9 $$", "exit status -9"), ("exit 1", "exit status 1")],
)
def test_a_run_that_ends_in_the_middle_reports_what_was_done_and_why_it_stopped(
    commands: FakeCommands, end: str, status: str
) -> None:
    commands.write("postsuper", f'read id; echo "postsuper: $id: removed" >&2; {end}')
    report = postsuper.delete(commands.postfix, IDS, HOLD)
    assert report.said == {IDS[0]: ["removed"]}
    assert isinstance(report.failure, CommandFailed)
    assert status in report.failure.detail


@pytest.mark.parametrize(("complaint", "error"), COMPLAINTS)
def test_each_complaint_is_its_own_error(
    commands: FakeCommands, complaint: tuple[str, int], error: type[Error]
) -> None:
    commands.says("postsuper", complaint)
    report = hold(commands.postfix, IDS)
    assert report.said == {}
    assert type(report.failure) is error


def test_a_missing_command_and_one_that_does_not_end_are_told_apart(commands: FakeCommands) -> None:
    with pytest.raises(NotInstalled):
        hold(commands.postfix, IDS)
    commands.write("postsuper", "exec sleep 60")
    with pytest.raises(CommandTimeout):
        hold(Postfix(commands.directory, None, 0.2), IDS)


def test_ten_thousand_ids_go_through_one_run(commands: FakeCommands) -> None:
    commands.write("postsuper", "sed 's/.*/postsuper: &: placed on hold/' >&2")
    many = [QueueId.parse(f"ABCDEF{number:06d}") for number in range(10_000)]
    assert list(hold(commands.postfix, many).said) == many
    assert len(commands.starts("postsuper")) == 1
