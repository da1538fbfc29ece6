"""The sandbox itself, on a real Postfix: what the other live tests rely on."""

import json
import os
import random
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks.multiply import multiply
from postqueue_api.errors import CommandFailed, InvalidArgument, Misconfigured, NotInstalled, NotPermitted
from postqueue_api.sandbox import Sandbox, configuration, fresh_directory, mail, processes
from postqueue_api.sandbox.sink import bound_socket
from postqueue_api.sandbox.sites import REFUSING, SITES, SLOW, UNKNOWN

MESSAGE = "From: a@example.com\nSubject: =?utf-8?q?Gr=C3=BC=C3=9Fe?=\n\nÜber\n.\n..dots\n\nlast".encode()


@pytest.fixture(scope="module")
def box() -> Iterator[Sandbox]:
    with Sandbox(fresh_directory()) as made:
        yield made


@pytest.fixture(scope="module")
def filled(box: Sandbox) -> list[str]:
    return box.fill()


def postsuper(box: Sandbox, option: str, queue_ids: list[str]) -> str:
    command = (processes.command("postsuper"), "-c", str(box.config_directory), option, "-")
    return processes.run(*command, stdin="".join(f"{each}\n" for each in queue_ids).encode()).stderr.decode()


def flush(box: Sandbox, queue_id: str) -> None:
    assert not processes.run("postqueue", "-c", str(box.config_directory), "-i", queue_id).returncode


def row(box: Sandbox, queue_id: str) -> dict[str, object] | None:
    return {each["queue_id"]: each for each in box.queue()}.get(queue_id)


def test_a_full_sandbox_lists_every_message_that_was_sent(box: Sandbox, filled: list[str]) -> None:
    assert 40 <= len(filled) <= 60
    assert {each["queue_id"] for each in box.queue()} == set(filled)
    assert {each["queue_name"] for each in box.queue()} == {"deferred", "hold"}
    assert all(re.fullmatch(r"[0-9B-DF-HJ-NP-TV-Zb-df-hj-np-tv-z]{10,}z[0-9A-Za-z]+", each) for each in filled)


@pytest.mark.parametrize(
    "words",
    [
        "Connection refused",
        "421 4.7.0 Too many connections",
        "450 4.2.1 The mailbox receives mail at a rate",
        "451 4.7.1 Greylisting",
        "452 4.2.2 The mailbox is over quota",
        "virus scanner does not answer, try again later (in reply to end of DATA command)",
        "<script>alert(1)</script>",
        f"Name service error for name={UNKNOWN}",
    ],
)
def test_each_reason_to_wait_is_in_the_listing(box: Sandbox, filled: list[str], words: str) -> None:
    reasons = [address.get("delay_reason", "") for each in box.queue() for address in each["recipients"]]
    assert any(words in reason for reason in reasons)


def test_the_mail_differs_in_size_sender_recipients_and_site(box: Sandbox, filled: list[str]) -> None:
    listed = box.queue()
    sizes = sorted(each["message_size"] for each in listed)
    assert sizes[0] < 1024
    assert sizes[-1] > 400_000
    assert len({each["sender"] for each in listed}) > 10
    assert "MAILER-DAEMON" in {each["sender"] for each in listed}
    assert "zoë@example.com" in {each["sender"] for each in listed}
    assert max(len(each["recipients"]) for each in listed) == 80
    assert len({address["address"].rpartition("@")[2] for each in listed for address in each["recipients"]}) >= 8


def test_every_message_is_sent_from_and_to_a_name_that_is_reserved() -> None:
    reserved = re.compile(r"@(example\.(com|net|org)|([a-z]+\.)(test|example|invalid))$")
    for one in mail.everything():
        assert all(reserved.search(address) for address in (one.sender or "a@b.test", *one.recipients))


def test_a_site_that_refused_accepts_later_and_the_mail_arrives_byte_for_byte(box: Sandbox) -> None:
    queue_id = box.send("a@example.com", [f"b@{REFUSING}", f"c@{REFUSING}"], MESSAGE)
    box.wait_until_settled()
    before = len(box.deliveries())
    stored = processes.run("postcat", "-c", str(box.config_directory), "-bh", "-q", queue_id).stdout
    box.open_site(REFUSING)
    try:
        flush(box, queue_id)
        box.wait_until(lambda: row(box, queue_id) is None)
        arrived = box.deliveries()[before:]
        assert [(each.site, each.mail.split()[1]) for each in arrived] == [(REFUSING, "FROM:<a@example.com>")]
        assert [each.split()[1] for each in arrived[0].rcpt] == [f"TO:<b@{REFUSING}>", f"TO:<c@{REFUSING}>"]
        assert arrived[0].content == stored
        assert stored.endswith("\n\nÜber\n.\n..dots\n\nlast\n".encode())
    finally:
        box.close_site(REFUSING)
    queue_id = box.send("a@example.com", [f"b@{REFUSING}"], MESSAGE)
    box.wait_until_settled()
    found = row(box, queue_id)
    assert found is not None
    assert "Connection refused" in json.dumps(found)


def test_mail_to_a_slow_site_is_in_the_active_queue_until_its_time_is_over(box: Sandbox) -> None:
    box.open_site(SLOW, delay_seconds=1.5)
    queue_id = box.send("a@example.com", [f"b@{SLOW}"], MESSAGE)
    box.wait_until(lambda: (row(box, queue_id) or {}).get("queue_name") == "active", 1)
    box.wait_until(lambda: row(box, queue_id) is None, 5)
    assert box.deliveries()[-1].site == SLOW


def test_dsn_options_reach_the_queue_and_the_site(box: Sandbox) -> None:
    box.send("a@example.com", ["b@example.net"], MESSAGE, ["RET=HDRS", "ENVID=one"], ["NOTIFY=DELAY,FAILURE"])
    box.wait_until_settled()
    last = box.deliveries()[-1]
    assert "RET=HDRS" in last.mail
    assert "NOTIFY=FAILURE,DELAY" in last.rcpt[0]


def test_a_reply_can_be_worded_by_the_test(box: Sandbox) -> None:
    box.close_site(SLOW, "RCPT", b"450 4.0.0 In words of the test")
    queue_id = box.send("a@example.com", [f"b@{SLOW}"], MESSAGE)
    box.wait_until_settled()
    assert "In words of the test" in json.dumps(row(box, queue_id))


def test_an_emptied_sandbox_has_no_mail_and_its_sites_are_as_at_the_start() -> None:
    with Sandbox(fresh_directory()) as box:
        box.open_site(REFUSING)
        for site in (REFUSING, SLOW, "full.example", "example.com"):
            box.send("a@example.com", [f"b@{site}"], MESSAGE)
        box.wait_until(lambda: len(box.deliveries()) == 2)
        begun = time.monotonic()
        box.empty()
        assert time.monotonic() - begun < 8, "it does not wait for the slow site"
        assert (box.queue(), box.deliveries(), box.conversations) == ([], [], 0)
        queue_ids = [box.send("a@example.com", [f"b@{site}"], MESSAGE) for site in (REFUSING, SLOW)]
        box.wait_until(
            lambda: [(row(box, each) or {}).get("queue_name") for each in queue_ids] == ["deferred", "active"]
        )


def test_a_message_that_postfix_does_not_take_is_an_error(box: Sandbox) -> None:
    with pytest.raises(CommandFailed, match="did not take"):
        box.send("a@example.com", ["b@example.net"], MESSAGE, ["SIZE=none"])


def test_a_site_that_is_not_there_cannot_be_opened(box: Sandbox) -> None:
    with pytest.raises(InvalidArgument):
        box.open_site(UNKNOWN)


def test_all_listeners_are_on_loopback(box: Sandbox) -> None:
    listening = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    hosts = {fields[1].split(":")[0] for fields in listening if int(fields[1].split(":")[1], 16) == box.smtp_port}
    assert hosts == {"0100007F"}


def test_postfix_stops_and_starts_again_with_its_queue(box: Sandbox, filled: list[str]) -> None:
    before = {each["queue_id"] for each in box.queue()}
    box.stop_postfix()
    assert processes.daemons(box.directory) == []
    with pytest.raises(OSError, match="refused"), socket.create_connection(("127.0.0.1", box.smtp_port)):
        pass
    assert {each["queue_id"] for each in box.queue()} == before
    box.start_postfix()
    assert {each["queue_id"] for each in box.queue()} == before


def test_multiplied_messages_are_listed_and_can_be_deleted_one_by_one(box: Sandbox, filled: list[str]) -> None:
    made = multiply(box.queue_directory, 2000)
    listed = {each["queue_id"]: each for each in box.queue()}
    assert set(made) <= set(listed)
    assert all(listed[each]["recipients"][0]["delay_reason"] for each in made)
    assert f"{made[7]}: removed" in postsuper(box, "-d", [made[7]])
    assert row(box, made[7]) is None
    assert postsuper(box, "-d", made).count(": removed") == len(made) - 1


def test_a_stopped_sandbox_leaves_no_process_no_port_and_no_file() -> None:
    box = Sandbox(fresh_directory(), long_queue_ids=False, extra_main_cf={"myhostname": "other.example.com"})
    box.start()
    short = box.send("", [f"a@{REFUSING}"], MESSAGE)
    assert re.fullmatch(r"[0-9A-F]{6,}", short)
    assert "other.example.com" in (box.config_directory / "main.cf").read_text()
    box.stop()
    assert not box.directory.exists()
    assert processes.daemons(box.directory) == []
    with pytest.raises(OSError, match="refused"), socket.create_connection(("127.0.0.1", box.smtp_port)):
        pass
    box.stop()


def test_a_sandbox_that_was_killed_is_removed_by_its_guard() -> None:
    directory = fresh_directory()
    program = (
        "import sys, time; from pathlib import Path; from postqueue_api.sandbox import Sandbox\n"
        "Sandbox(Path(sys.argv[1])).start(); print('up', flush=True); time.sleep(60)"
    )
    with subprocess.Popen((sys.executable, "-c", program, str(directory)), stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"up\n"
        assert processes.daemons(directory)
        process.kill()
    processes.wait_until(lambda: not directory.exists(), 20)
    assert processes.daemons(directory) == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_command_says_how_to_use_it_and_ends_without_a_trace(number: int) -> None:
    program = "from postqueue_api.sandbox.command import run; run()"
    with subprocess.Popen((sys.executable, "-c", program), stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        name, _, value = process.stdout.readline().decode().strip().partition("=")
        directory = Path(value).parent
        assert name == "POSTQUEUE_API_CONFIG_DIRECTORY"
        assert (directory / "spool" / "deferred").is_dir()
        process.send_signal(number)
        assert process.wait(30) == 0
    assert not directory.exists()
    assert processes.daemons(directory) == []


@pytest.mark.parametrize("seconds", [0.02, 0.3, 0.8])
def test_a_signal_while_it_still_starts_leaves_no_trace_either(seconds: float) -> None:
    directory = fresh_directory()
    program = (
        "import sys; from pathlib import Path; from postqueue_api.sandbox.command import run; run(Path(sys.argv[1]))"
    )
    with subprocess.Popen((sys.executable, "-c", program, str(directory)), stdout=subprocess.DEVNULL) as process:
        processes.wait_until(lambda: any(directory.iterdir()), 20)
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(seconds)
        process.terminate()
        assert process.wait(30) == 0
    assert not directory.exists()
    assert processes.daemons(directory) == []


def test_a_directory_with_something_in_it_is_refused_and_left_alone(tmp_path: Path) -> None:
    (tmp_path / "letter").write_text("mine")
    with pytest.raises(Misconfigured, match="new or empty"):
        Sandbox(tmp_path).start()
    assert (tmp_path / "letter").read_text() == "mine"


def test_a_directory_that_postfix_cannot_reach_is_refused_and_not_made(tmp_path: Path) -> None:
    (tmp_path / "closed").mkdir(mode=0o700)
    with pytest.raises(Misconfigured, match="cannot reach"):
        Sandbox(tmp_path / "closed" / "box").start()
    assert list((tmp_path / "closed").iterdir()) == []


def test_a_second_sandbox_in_the_same_directory_is_refused(box: Sandbox) -> None:
    with pytest.raises(Misconfigured, match="Another sandbox"):
        Sandbox(box.directory).start()
    assert box.queue()


def test_a_configuration_that_was_copied_elsewhere_is_never_stopped_or_removed(box: Sandbox, tmp_path: Path) -> None:
    (tmp_path / "postfix").mkdir()
    (tmp_path / "postfix" / "main.cf").write_bytes((box.config_directory / "main.cf").read_bytes())
    assert configuration.is_sandbox(box.directory)
    processes.remove(tmp_path)
    assert (tmp_path / "postfix" / "main.cf").exists()
    assert processes.daemons(box.directory)


def test_two_sandboxes_never_get_one_port(monkeypatch: pytest.MonkeyPatch) -> None:
    with bound_socket() as first, bound_socket() as spare:
        port, other = first.getsockname()[1], spare.getsockname()[1]
        spare.close()
        monkeypatch.setattr(random, "sample", lambda *_: [port, other])
        with bound_socket() as second:
            assert second.getsockname()[1] == other


def test_anybody_but_root_is_told_to_use_sudo(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(NotPermitted, match="sudo"):
        Sandbox(Path("/nowhere")).start()


def test_without_postfix_the_error_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "_PATH", "/nowhere")
    with pytest.raises(NotInstalled, match="apt-get install"):
        Sandbox(Path("/nowhere")).start()


def test_every_site_but_the_accepting_ones_has_words_or_refuses() -> None:
    assert {site.stage for site in SITES} == {"", "CONNECT", "MAIL", "RCPT", "END"}
    assert all(re.match(rb"4[0-9]{2} 4\.", site.reply) for site in SITES if site.reply)
