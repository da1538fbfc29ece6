"""postqueue: its arguments, and what its words mean."""

from collections.abc import Callable

import pytest

from postqueue_api.errors import CommandTimeout, Conflict, Error, MailSystemDown, NotInstalled, UnexpectedOutput
from postqueue_api.postfix import postqueue
from postqueue_api.postfix.arguments import QueueId, Site
from postqueue_api.postfix.process import Postfix
from tests.fake_commands import BROKE_OFF, CANNOT_FLUSH, COMPLAINTS, DOWN, FakeCommands, commands

__all__ = ["commands"]

ROW = '{"queue_name": "hold", "queue_id": "ABCDEF12"}\n'
DIRECT = (
    "postqueue: warning: Mail system is down -- accessing queue directly"
    " (Connect to the Postfix showq service: No such file or directory)"
)


def flush_all(postfix: Postfix) -> None:
    postqueue.flush_all(postfix)


def flush_message(postfix: Postfix) -> None:
    postqueue.flush_message(postfix, QueueId.parse("4jY9Jt1qzWz2Ff8Q"))


def flush_site(postfix: Postfix) -> None:
    postqueue.flush_site(postfix, Site.parse("example.com"))


def list_all(postfix: Postfix) -> None:
    with postqueue.listing(postfix) as listing:
        b"".join(listing.chunks())
        listing.judge()


EVERY_CALL = [flush_all, flush_message, flush_site, list_all]


@pytest.mark.parametrize(
    ("call", "arguments"),
    [
        (flush_all, ("-f",)),
        (flush_message, ("-i", "4jY9Jt1qzWz2Ff8Q")),
        (flush_site, ("-s", "example.com")),
        (list_all, ("-j",)),
    ],
)
def test_each_function_starts_one_command(
    commands: FakeCommands, call: Callable[[Postfix], None], arguments: tuple[str, ...]
) -> None:
    commands.write("postqueue")
    call(commands.postfix)
    assert commands.starts("postqueue") == [arguments]


@pytest.mark.parametrize(("complaint", "error"), COMPLAINTS)
@pytest.mark.parametrize("call", EVERY_CALL)
def test_each_complaint_is_its_own_error(
    commands: FakeCommands, call: Callable[[Postfix], None], complaint: tuple[str, int], error: type[Error]
) -> None:
    commands.says("postqueue", complaint)
    with pytest.raises(Error) as caught:
        call(commands.postfix)
    assert type(caught.value) is error
    assert "nonexistent" not in caught.value.detail


@pytest.mark.parametrize("call", EVERY_CALL)
def test_a_missing_command_and_one_that_does_not_end_are_told_apart(
    commands: FakeCommands, call: Callable[[Postfix], None]
) -> None:
    with pytest.raises(NotInstalled):
        call(commands.postfix)
    commands.write("postqueue", "exec sleep 60")
    with pytest.raises(CommandTimeout):
        call(Postfix(commands.directory, None, 0.2))


@pytest.mark.parametrize(
    ("words", "mail_system"),
    [("", "running"), ("postqueue: warning: some other thing", "running"), (DIRECT, "down")],
)
def test_a_listing_says_whether_the_mail_system_runs(commands: FakeCommands, words: str, mail_system: str) -> None:
    commands.says("postqueue", (words, 0), stdout=ROW)
    with postqueue.listing(commands.postfix) as listing:
        assert b"".join(listing.chunks()) == ROW.encode()
        assert listing.judge() == mail_system


@pytest.mark.parametrize("complaint", [BROKE_OFF, DOWN])
def test_a_listing_that_breaks_off_gives_its_rows_and_then_the_error(
    commands: FakeCommands, complaint: tuple[str, int]
) -> None:
    commands.says("postqueue", complaint, stdout=ROW * 3)
    with postqueue.listing(commands.postfix) as listing:
        assert b"".join(listing.chunks()) == ROW.encode() * 3
        with pytest.raises(Error):
            listing.judge()


def test_a_listing_gives_what_it_has_before_it_is_over(commands: FakeCommands) -> None:
    commands.write("postqueue", "echo first; exec sleep 60")
    with postqueue.listing(commands.postfix) as listing:
        assert next(listing.chunks()) == b"first\n"


def test_an_endless_listing_ends_at_the_time_limit(commands: FakeCommands) -> None:
    commands.write("postqueue", "exec yes")
    with postqueue.listing(Postfix(commands.directory, None, 0.3)) as listing:
        for _ in listing.chunks():
            pass
        with pytest.raises(CommandTimeout):
            listing.judge()


def test_a_flush_that_never_stops_talking_is_ended(commands: FakeCommands) -> None:
    commands.write("postqueue", "exec yes")
    with pytest.raises(UnexpectedOutput):
        flush_all(commands.postfix)


def test_a_site_that_postfix_keeps_no_list_for_is_a_conflict_that_says_what_to_set(commands: FakeCommands) -> None:
    commands.says("postqueue", ("postqueue: fatal: Flush service is not configured for destination example.com", 69))
    with pytest.raises(Conflict, match="fast_flush_domains"):
        flush_site(commands.postfix)


def test_a_flush_of_a_stopped_mail_system_is_not_taken_for_asked(commands: FakeCommands) -> None:
    commands.says("postqueue", CANNOT_FLUSH)
    with pytest.raises(MailSystemDown):
        flush_message(commands.postfix)
