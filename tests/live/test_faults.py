"""Everything that can end in mid-change ends there, once at each step; afterwards Postfix's own tools say the same as
the journal: each message has one true outcome, none is lost, none stays on hold, none is delivered twice."""

import contextlib
import json
import os
import re
import signal
import socket
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

import postqueue_api
from benchmarks.multiply import multiply
from postqueue_api.errors import Error
from postqueue_api.sandbox import Sandbox, fresh_directory, processes
from postqueue_api.sandbox.sites import REFUSING, SLOW
from tests.live import service as services
from tests.live.agent_with_failpoint import Starter
from tests.live.agents import Agents, agents, kill_a_postsuper, postsupers
from tests.live.disks import fill, small_disk
from tests.live.mailbox import Mailbox
from tests.live.service import AUTHORIZATION, FRESH, Service

CHANGING = ["begun", "intended", "taken out", "held", "locked"]
STEPS = {
    "delete": [*CHANGING, "trash written", "kept", "acting", "marked", "acted", "settling", "settled"],
    "hold": [*CHANGING, "settling", "settled"],
    "release": ["begun", "release intended", "settling", "settled"],
    "requeue": [*CHANGING, "acting", "acted", "settling", "settled"],
    "expire": [*CHANGING, "acting", "expire said", "expired", "expired released", "acted", "settling", "settled"],
    "flush": ["begun", "flush intended", "settling", "settled"],
    "restore": [f"restore {step}" for step in ("written", "claimed", "linked", "named", "noted")] + ["settling"],
    "delete from maildrop": ["maildrop intended", "settling"],
    "purge": ["purge told", "purged"],
    "import": ["import written", "import noted"],  # test_move.py has them
}
# The agent has looked at the second chunk when it is killed in the first.
IN_TWO_CHUNKS = [("delete", "held"), ("delete", "marked"), ("delete", "settled"), ("hold", "held"), ("expire", "acted")]
DONE = {"delete": "removed", "hold": "held", "requeue": "requeued", "expire": "expired", "flush": "scheduled"}


@pytest.fixture(scope="module")
def own_box() -> Iterator[Sandbox]:
    """A sandbox of its own: all of its mail is released, delivered and stopped here."""
    with Sandbox(fresh_directory()) as made:
        yield made


@pytest.fixture
def agent(own_box: Sandbox, starter: Starter) -> Iterator[Agents]:
    with agents(own_box, starter) as made:
        yield made


@pytest.fixture
def mail(own_box: Sandbox) -> Mailbox:
    return Mailbox(own_box)


def three(mail: Mailbox) -> tuple[str, str, str]:
    """Two deferred messages, and one that is on hold already; each with a recipient of its own."""
    first, second, held = (mail.send(f"{name}@{REFUSING}") for name in ("first", "second", "held"))
    for queue_id in (first, second, held):
        mail.wait_for(queue_id, "deferred")
    mail.postfix("postsuper", "-h", "-", stdin=held.encode())
    return first, second, held


def places(mail: Mailbox, queue_ids: tuple[str, ...]) -> list[str | None]:
    """Where each message is, by postqueue and by the file system alike."""
    return [mail.queue_name(queue_id) for queue_id in queue_ids]


def recipients(mail: Mailbox) -> list[str]:
    """To whom what arrived was, bounces left out, each once for each time."""
    to = [each.rcpt[0].split(":", 1)[1].strip("<>").split("@")[0] for each in mail.arrived() if "<>" not in each.mail]
    return sorted(to)


def let_all_go(mail: Mailbox) -> None:
    """Release everything, as somebody else may, and let it be delivered."""
    with mail.open_site():
        mail.postfix("postsuper", "-H", "ALL")
        mail.box.wait_until(lambda: is_empty(mail), 40)


def is_empty(mail: Mailbox) -> bool:
    """Whether nothing is queued; asks for another attempt first."""
    mail.pick_up()
    return not mail.box.queue()


def killed_at(agent: Agents, step: str, action: str, queue_ids: tuple[str, ...], **how: Any) -> None:
    agent.start(step, **how)
    thread = agent.in_background(action, list(queue_ids))
    agent.wait_for_end()
    thread.join()


def restore_that_breaks_off(agent: Agents, mail: Mailbox, step: str) -> str:
    """Restore a deleted message with an agent that is killed at that step. Returns:  its queue ID"""
    queue_id = mail.deferred(f"first@{REFUSING}")
    agent.start()
    agent.operate("delete", [queue_id])
    agent.stop()
    agent.start(step)
    with pytest.raises(Error):
        agent.restore(queue_id)
    agent.wait_for_end()
    return queue_id


def test_every_step_at_which_the_agent_can_be_killed_is_in_the_table() -> None:
    folder = Path(postqueue_api.__file__).parent / "agent"
    found = {step for path in folder.glob("*.py") for step in re.findall(r'reach\("([^"]+)"\)', path.read_text())}
    assert found == {step for steps in STEPS.values() for step in steps}


@pytest.mark.parametrize(
    ("action", "step", "chunk"),
    [(action, step, 500) for action in (*DONE, "release") for step in STEPS[action]]
    + [(action, step, 2) for action, step in IN_TWO_CHUNKS],
)
def test_an_agent_killed_at_any_step_ends_the_operation_truly_when_it_is_back(
    agent: Agents, mail: Mailbox, action: str, step: str, chunk: int
) -> None:
    first, second, held = ids = three(mail)
    killed_at(agent, step, action, ids, chunk=chunk)
    agent.start(chunk=chunk)
    operation = agent.wait_until_over()
    assert operation.state == "done"
    said = agent.outcomes(operation)
    if action == "release":
        assert said == {first: "no_change", second: "no_change", held: "released"}
        assert places(mail, ids) == ["deferred"] * 3
    elif action in ("hold", "flush"):
        assert said == {first: DONE[action], second: DONE[action], held: "no_change"}
        assert places(mail, ids) == (["hold"] * 3 if action == "hold" else ["deferred", "deferred", "hold"])
    else:
        assert set(said.values()) == {DONE[action]}
    assert sorted(agent.trash()) == (sorted(ids) if action == "delete" else [])
    if action == "delete":
        assert places(mail, ids) == [None] * 3
    if action == "expire":
        mail.box.wait_until(lambda: places(mail, (first, second)) == [None, None])
        assert places(mail, (held,)) == ["hold"]
        mail.box.wait_until(lambda: len(mail.arrived()) == 2)  # both went back, once
    agent.check_what_is_left()
    let_all_go(mail)
    expected = {"delete": [], "expire": []}.get(action, ["first", "held", "second"])
    assert recipients(mail) == expected


@pytest.mark.parametrize(
    ("action", "step"),
    [("delete", "begun"), ("delete", "held"), ("delete", "kept"), ("delete", "marked"), ("delete", "acted"),
     ("hold", "held"), ("requeue", "acted"), ("expire", "acting"), ("expire", "expire said"), ("expire", "expired"),
     ("expire", "acted"), ("flush", "flush intended"), ("flush", "settling"), ("release", "settling")],
)  # fmt: skip
def test_an_agent_that_shall_not_resume_puts_back_what_it_had_touched_and_says_what_it_had_done(
    agent: Agents, mail: Mailbox, action: str, step: str
) -> None:
    first, second, held = ids = three(mail)
    killed_at(agent, step, action, ids)
    agent.start(resume_operations="no")
    operation = agent.wait_until_over()
    assert operation.state == "interrupted"
    said = agent.outcomes(operation)
    if action == "flush":
        assert said == {first: "scheduled", second: "scheduled", held: "skipped"}
    elif action == "release":
        assert said == {first: "skipped", second: "skipped", held: "released"}
    elif step in ("expire said", "expired", "acted"):
        assert set(said.values()) == {DONE[action]}
    else:
        assert set(said.values()) == {"skipped"}
        assert places(mail, ids) == ["deferred", "deferred", "hold"]
    assert sorted(agent.trash()) == (sorted(ids) if (action, step) == ("delete", "acted") else [])
    agent.check_what_is_left()
    let_all_go(mail)
    assert len(recipients(mail)) + len(agent.trash()) + len(mail.arrived()) - len(recipients(mail)) == 3
    assert len(set(recipients(mail))) == len(recipients(mail))


@pytest.mark.parametrize("step", ["kept", "acting", "marked", "acted"])
def test_what_somebody_released_while_no_agent_ran_is_not_said_to_be_removed(
    agent: Agents, mail: Mailbox, step: str
) -> None:
    """Its copy in the trash is void: a restore would deliver it again."""
    ids = three(mail)
    killed_at(agent, step, "delete", ids)
    let_all_go(mail)
    arrived = recipients(mail)
    assert arrived == ([] if step == "acted" else ["first", "held", "second"])
    agent.start()
    said = agent.outcomes(agent.wait_until_over())
    assert set(said.values()) <= ({"removed"} if step == "acted" else {"not_found", "already_delivered"})
    assert sorted(agent.trash()) == (sorted(ids) if step == "acted" else [])
    agent.check_what_is_left()
    for queue_id in ids if step != "acted" else ():
        with pytest.raises(Error):
            agent.restore(queue_id)
    let_all_go(mail)
    assert recipients(mail) == arrived


@pytest.mark.parametrize(("action", "step"), [("delete", "marked"), ("delete", "acted")])
def test_postfix_finds_nothing_strange_in_its_queue_after_the_agent_was_killed(
    agent: Agents, mail: Mailbox, action: str, step: str
) -> None:
    """A warning of postsuper's can keep Postfix from starting: it cannot log yet."""
    ids = three(mail)
    killed_at(agent, step, action, ids)
    assert list(mail.box.queue_directory.glob(".postqueue-api/mark-*"))
    for command, words in (("postsuper", ("-s", "-p")), ("postfix", ("check",))):
        done = processes.run(processes.command(command), "-c", str(mail.box.config_directory), *words)
        assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
    mail.box.stop_postfix()
    mail.box.start_postfix()
    agent.start()
    assert set(agent.outcomes(agent.wait_until_over()).values()) == {"removed"}
    agent.check_what_is_left()


@pytest.mark.parametrize("step", STEPS["restore"])
def test_a_restore_that_broke_off_anywhere_puts_the_message_back_once(agent: Agents, mail: Mailbox, step: str) -> None:
    first, *_ = ids = three(mail)
    agent.start()
    assert set(agent.outcomes(agent.operate("delete", list(ids))).values()) == {"removed"}
    deleted = agent.newest().operation_id
    agent.stop()
    agent.start(step)
    with pytest.raises(Error):
        agent.client.restore({"operation_id": deleted, "actor": {"name": "alice", "role": "admin"}, "wait": 20})
    agent.wait_for_end()
    agent.start()
    operation = agent.wait_until_over()
    assert (operation.action, set(agent.outcomes(operation).values())) == ("restore", {"restored"})
    assert places(mail, ids) == ["deferred", "deferred", "hold"]
    assert agent.trash() == []
    assert agent.outcomes(agent.restore(first)) == {first: "no_change"}
    agent.check_what_is_left()
    let_all_go(mail)
    assert recipients(mail) == ["first", "held", "second"]


@pytest.mark.parametrize("step", STEPS["restore"])
def test_what_somebody_released_after_a_restore_broke_off_is_delivered_once(
    agent: Agents, mail: Mailbox, step: str
) -> None:
    queue_id = restore_that_breaks_off(agent, mail, step)
    let_all_go(mail)
    agent.start()
    assert agent.outcomes(agent.wait_until_over()) == {queue_id: "restored"}
    let_all_go(mail)
    assert recipients(mail) == ["first"]
    assert agent.trash() == []
    agent.check_what_is_left()


@pytest.mark.parametrize("step", STEPS["purge"])
def test_an_agent_killed_while_it_forgets_a_copy_has_told_it(agent: Agents, mail: Mailbox, step: str) -> None:
    old, new = mail.deferred(f"first@{REFUSING}"), mail.deferred(f"second@{REFUSING}")
    agent.start(step, trash_limit_messages="1")
    agent.operate("delete", [old])
    thread = agent.in_background("delete", [new])
    agent.wait_for_end()
    thread.join()
    agent.start(trash_limit_messages="1")
    agent.wait_until_over()
    assert agent.trash() == [new]
    lines = [json.loads(line) for line in agent.said.read_text().split("\n") if line.startswith("{")]
    told = [line["queue_id"] for line in lines if line["event"] == "purge"]
    assert set(told) == {old}


@pytest.mark.parametrize("step", ["restore claimed", "restore named", "restore noted"])
def test_a_restore_that_is_not_resumed_leaves_nothing_on_hold_and_can_be_asked_for_again(
    agent: Agents, mail: Mailbox, step: str
) -> None:
    queue_id = restore_that_breaks_off(agent, mail, step)
    agent.start(resume_operations="no")
    said = agent.outcomes(agent.wait_until_over())
    assert said == {queue_id: "restored"}
    assert mail.queue_name(queue_id) == "deferred"
    agent.check_what_is_left()
    let_all_go(mail)
    assert agent.outcomes(agent.restore(queue_id)) == {queue_id: "no_change"}
    assert recipients(mail) == ["first"]


@pytest.mark.parametrize("step", STEPS["delete from maildrop"])
def test_an_agent_killed_while_it_deletes_from_maildrop_says_what_became_of_it(
    agent: Agents, mail: Mailbox, step: str
) -> None:
    queue_id = mail.deferred(f"first@{REFUSING}")
    mail.postfix("postsuper", "-r", "-", stdin=queue_id.encode())
    killed_at(agent, step, "delete", (queue_id,), trash_retention_seconds="0")
    agent.start(trash_retention_seconds="0")
    said = agent.outcomes(agent.wait_until_over())[queue_id]
    let_all_go(mail)
    assert (said, recipients(mail)) in [("removed", []), ("not_found", []), ("not_found", ["first"])]
    assert mail.files(queue_id) == []


def test_a_delete_that_keeps_a_copy_leaves_what_is_in_maildrop(agent: Agents, mail: Mailbox) -> None:
    """It could not be given back from there."""
    queue_id = mail.deferred(f"first@{REFUSING}")
    mail.postfix("postsuper", "-r", "-", stdin=queue_id.encode())
    agent.start()
    assert agent.outcomes(agent.operate("delete", [queue_id])) == {queue_id: "in_flight"}
    let_all_go(mail)
    assert recipients(mail) == ["first"]


def test_a_delivery_that_ends_while_no_agent_runs_is_not_said_to_be_removed(agent: Agents, mail: Mailbox) -> None:
    other = mail.deferred(f"first@{REFUSING}")
    slow = mail.delivering(1.0)
    killed_at(agent, "held", "delete", (slow, other))
    mail.wait_for_arrival()
    time.sleep(0.3)
    agent.start()
    assert agent.outcomes(agent.wait_until_over()) == {slow: "already_delivered", other: "removed"}
    assert agent.trash() == [other]
    assert [mail.files(queue_id) for queue_id in (slow, other)] == [[], []]
    assert [each.site for each in mail.arrived()] == [SLOW]


def test_an_operation_that_was_cancelled_before_the_agent_was_killed_leaves_nothing_on_hold(
    agent: Agents, mail: Mailbox
) -> None:
    slow = mail.delivering(3.0)
    other = mail.deferred(f"first@{REFUSING}")
    agent.start()
    thread = agent.in_background("delete", [slow, other])
    mail.wait_for(other, "hold")
    agent.client.cancel(agent.newest().operation_id)
    agent.kill()
    thread.join()
    agent.start()
    operation = agent.wait_until_over()
    assert operation.state == "cancelled"
    assert set(agent.outcomes(operation).values()) <= {"skipped"}
    assert mail.queue_name(other) == "deferred"
    assert agent.trash() == []
    let_all_go(mail)
    assert recipients(mail) == ["bert", "first"]


def test_a_sigterm_in_mid_chunk_leaves_nothing_on_hold(agent: Agents, mail: Mailbox) -> None:
    slow = mail.delivering(3.0)
    agent.start(lock_wait_seconds="20")
    thread = agent.in_background("delete", [slow])
    new_queue_id = mail.taken_out(slow)
    agent.stop()
    thread.join()
    assert mail.queue_name(new_queue_id) == "deferred"
    agent.start()
    item = agent.items(agent.wait_until_over())[slow]
    assert (item.outcome, item.new_queue_id) == ("in_flight", new_queue_id)
    mail.wait_for_arrival()
    let_all_go(mail)
    assert recipients(mail) == ["bert"]


# --- postsuper ----------------------------------------------------------------------------------------------


def commands(directory: Path, postsuper: str) -> Path:
    """A directory of commands whose postsuper is a script."""
    directory.mkdir()
    for name in services.COMMANDS:
        (directory / name).symlink_to(processes.command(name))
    (directory / "postsuper").unlink()
    (directory / "postsuper").write_text(f"#!/bin/bash\nreal={processes.command('postsuper')}\n{postsuper}")
    (directory / "postsuper").chmod(0o755)
    return directory


BREAKS_OFF = """\
here=$(dirname $0)
if [ "$3" = "{option}" ] && mkdir $here/once 2>/dev/null; then
    head -n {done} | $real "$@"
    kill -9 $$
fi
exec $real "$@"
"""


@pytest.mark.parametrize("done", [0, 1, 2])
@pytest.mark.parametrize(
    ("action", "option"), [("delete", "-h"), ("delete", "-d"), ("requeue", "-r"), ("expire", "-e"), ("expire", "-H")]
)
def test_a_postsuper_that_is_killed_in_mid_batch_is_run_again_for_the_rest(
    agent: Agents, mail: Mailbox, tmp_path: Path, action: str, option: str, done: int
) -> None:
    ids = three(mail)
    script = BREAKS_OFF.format(option=option, done=done)
    agent.start(command_directory=str(commands(tmp_path / "commands", script)))
    said = agent.outcomes(agent.operate(action, list(ids)))
    assert (tmp_path / "commands" / "once").exists()
    assert set(said.values()) == {DONE[action]}
    assert sorted(agent.trash()) == (sorted(ids) if action == "delete" else [])
    agent.check_what_is_left()
    let_all_go(mail)
    assert recipients(mail) == (["first", "held", "second"] if action == "requeue" else [])


def test_a_message_that_cannot_be_released_is_said_to_be_on_hold(agent: Agents, mail: Mailbox, tmp_path: Path) -> None:
    slow = mail.delivering(2.5)
    script = '[ "$3" = -H ] && kill -9 $$\nexec $real "$@"\n'
    agent.start(command_directory=str(commands(tmp_path / "commands", script)), lock_wait_seconds="0")
    operation = agent.operate("delete", [slow])
    item = agent.items(operation)[slow]
    assert (item.outcome, mail.queue_name(item.new_queue_id or slow)) == ("failed", "hold")
    assert "on hold" in (item.detail or "")
    let_all_go(mail)
    assert recipients(mail) == ["bert"]


def test_what_somebody_else_put_on_hold_since_the_look_is_known_to_be_theirs(
    agent: Agents, mail: Mailbox, tmp_path: Path
) -> None:
    ids = [mail.deferred(f"{name}@{REFUSING}") for name in ("first", "second")]
    script = f'[ "$3" = -h ] && echo {ids[1]} | $real "$1" "$2" -h - 2>/dev/null\nexec $real "$@"\n'
    agent.start(command_directory=str(commands(tmp_path / "commands", script)))
    items = agent.items(agent.operate("delete", ids))
    assert [items[each].outcome for each in ids] == ["removed", "removed"]
    assert [items[each].was_held for each in ids] == [False, True]


@pytest.mark.parametrize("action", ["delete", "hold", "requeue", "expire"])
@pytest.mark.parametrize("queue_name", ["active", "incoming"])
def test_what_is_being_returned_because_it_is_expired_is_in_flight(
    agent: Agents, mail: Mailbox, action: str, queue_name: str
) -> None:
    """Its bounce goes out without a delivery agent, and so without a lock."""
    queue_id = mail.deferred(f"first@{REFUSING}")
    agent.start()
    mail.box.stop_postfix()  # so that it stays where it is only for a moment else
    try:
        (path,) = mail.files(queue_id)
        path.touch()  # its next attempt is due
        path.chmod(0o710)
        moved = path.rename(mail.box.queue_directory / queue_name / queue_id)
        told = "no_change" if action == "expire" else "in_flight"
        assert agent.outcomes(agent.operate(action, [queue_id])) == {queue_id: told}
        assert moved.exists()
    finally:
        mail.box.start_postfix()
    mail.box.wait_until(mail.arrived)
    let_all_go(mail)
    assert ["<>" in each.mail for each in mail.arrived()] == [True]


def test_an_expire_ends_when_the_message_is_returned(agent: Agents, mail: Mailbox) -> None:
    ids = [mail.deferred(f"first@{REFUSING}") for _ in range(3)]
    agent.start()
    assert set(agent.outcomes(agent.operate("expire", ids)).values()) == {"expired"}
    assert [mail.files(queue_id) for queue_id in ids] == [[], [], []]


@pytest.mark.parametrize("action", ["delete", "hold", "requeue", "expire"])
def test_queue_files_are_open_to_write_where_they_are_locked_as_nfs_wants_it(
    agent: Agents, mail: Mailbox, action: str
) -> None:
    """The agents of these tests refuse the lock otherwise (agent_with_failpoint.py)."""
    queue_id = mail.deferred()
    agent.start()
    assert agent.outcomes(agent.operate(action, [queue_id])) == {queue_id: DONE[action]}


def is_down_to(box: Sandbox, messages: int) -> bool:
    return len(box.queue()) <= messages


def test_a_real_postsuper_that_is_killed_again_and_again_loses_none_of_thousands(agent: Agents, mail: Mailbox) -> None:
    kept = mail.deferred(f"first@{REFUSING}")
    ids = multiply(mail.box.queue_directory, 2000)
    agent.start()
    thread = agent.in_background("delete", ids)
    killed = 0
    for left in (1800, 1200, 600):  # one that gets no further three times in a row may give up
        mail.box.wait_until(partial(is_down_to, mail.box, left), 60)
        killed += kill_a_postsuper(mail.box, 2)
    thread.join()
    operation = agent.wait_until_over()
    assert killed > 1
    assert operation.outcomes == {"removed": 2000}
    assert sorted(agent.trash()) == sorted(ids)
    queued = {row["queue_id"] for row in mail.box.queue()}  # what other tests left may be among it
    assert kept in queued
    assert queued.isdisjoint(ids)
    agent.check_what_is_left()
    let_all_go(mail)
    assert recipients(mail) == ["first"]


def test_a_real_postsuper_keeps_the_lock_that_a_new_agent_waits_for(agent: Agents, mail: Mailbox) -> None:
    mail.deferred(f"first@{REFUSING}")
    ids = multiply(mail.box.queue_directory, 1500)
    agent.start()
    thread = agent.in_background("hold", ids)
    kept: set[bool] = set()
    lock = agent.state_directory / "lock"
    while not kept:
        for pid in postsupers(mail.box):
            try:
                names = {(entry).readlink() for entry in Path(f"/proc/{pid}/fd").iterdir()}
                is_started = b"postsuper" in Path(f"/proc/{pid}/exe").readlink().name.encode()
            except OSError:
                continue
            if is_started:
                kept.add(lock in names)
    assert kept == {True}
    agent.kill()
    thread.join()
    agent.start()
    assert agent.wait_until_over().outcomes == {"held": 1500}
    mail.postfix("postsuper", "-d", "-", stdin="".join(f"{queue_id}\n" for queue_id in ids).encode())
    let_all_go(mail)


def test_a_new_agent_waits_for_the_postsuper_of_the_killed_one(agent: Agents, mail: Mailbox, tmp_path: Path) -> None:
    ids = three(mail)
    script = 'here=$(dirname $0)\necho begin >> $here/log\n[ "$3" = -d ] && mkdir $here/once 2>/dev/null && sleep 2\n'
    script += '$real "$@"\necho end >> $here/log\n'
    directory = commands(tmp_path / "commands", script)
    agent.start(command_directory=str(directory))
    thread = agent.in_background("delete", list(ids))
    mail.box.wait_until((directory / "once").exists)
    agent.kill()
    thread.join()
    agent.start(command_directory=str(directory))
    assert set(agent.outcomes(agent.wait_until_over()).values()) == {"removed"}
    lines = (directory / "log").read_text().split()
    assert lines == ["begin", "end"] * (len(lines) // 2)
    assert sorted(agent.trash()) == sorted(ids)
    agent.check_what_is_left()


# --- others who work on the same queue ----------------------------------------------------------------------


SOMEBODY_ACTS = """\
here=$(dirname $0)
if [ "$3" = -d ] && mkdir $here/once 2>/dev/null; then {act}; fi
exec $real "$@"
"""


def test_a_release_of_everything_in_the_middle_of_a_delete_saves_what_was_not_removed(
    agent: Agents, mail: Mailbox, tmp_path: Path
) -> None:
    ids = three(mail)
    script = SOMEBODY_ACTS.format(act='$real "$1" "$2" -H ALL')
    agent.start(command_directory=str(commands(tmp_path / "commands", script)))
    said = agent.outcomes(agent.operate("delete", list(ids)))
    assert set(said.values()) == {"failed"}
    assert agent.trash() == []
    assert places(mail, ids) == ["deferred"] * 3
    agent.check_what_is_left()
    let_all_go(mail)
    assert recipients(mail) == ["first", "held", "second"]


def test_postfix_that_is_stopped_in_mid_batch_makes_no_outcome_untrue(
    agent: Agents, mail: Mailbox, tmp_path: Path
) -> None:
    ids = three(mail)
    script = SOMEBODY_ACTS.format(act=f'{processes.command("postfix")} "$1" "$2" stop >/dev/null 2>&1; sleep 1')
    agent.start(command_directory=str(commands(tmp_path / "commands", script)))
    try:
        said = agent.outcomes(agent.operate("delete", list(ids)))
        gone = [queue_id for queue_id in ids if not mail.files(queue_id)]
        assert gone == [queue_id for queue_id, outcome in said.items() if outcome == "removed"]
        assert sorted(agent.trash()) == sorted(gone)
    finally:
        mail.box.start_postfix()
    agent.check_what_is_left()


def test_a_release_in_mid_listing_takes_no_message_out_of_an_operation_on_a_list(
    agent: Agents, mail: Mailbox, tmp_path: Path
) -> None:
    """postqueue -j misses what moves behind its back; whoever is named in the list is looked up all the same."""
    ids = three(mail)
    directory = commands(tmp_path / "commands", 'exec $real "$@"\n')
    (directory / "postqueue").unlink()
    (directory / "postqueue").write_text("#!/bin/sh\nexit 0\n")  # a listing that missed everything
    (directory / "postqueue").chmod(0o755)
    agent.start(command_directory=str(directory))
    said = agent.outcomes(agent.operate("delete", list(ids)))
    assert set(said.values()) == {"removed"}
    assert places(mail, ids) == [None] * 3


def test_with_short_queue_ids_another_message_of_the_same_name_is_left_alone(starter: Starter) -> None:
    with Sandbox(fresh_directory(), long_queue_ids=False) as box, agents(box, starter) as agent:
        mail = Mailbox(box)
        slow = mail.delivering(1.5)
        victim = mail.deferred(f"first@{REFUSING}")
        other = mail.deferred(f"second@{REFUSING}", sender="chris@example.org")
        agent.start(lock_wait_seconds="10")
        thread = agent.in_background("delete", [slow])
        mail.taken_out(slow)
        waiting = agent.operate("delete", [victim], wait=0)
        (path,), (others,) = mail.files(victim), mail.files(other)
        others.rename(path)  # as if the victim were gone and its name given away
        thread.join()
        mail.box.wait_until(lambda: agent.journal.operation(waiting.operation_id).is_over)
        operation = agent.journal.operation(waiting.operation_id)
        assert agent.outcomes(operation) == {victim: "changed"}
        assert mail.queue_name(victim) == "deferred"
        assert (mail.row(victim) or {})["sender"] == "chris@example.org"
        assert agent.trash() == []


def test_a_restore_under_a_short_queue_id_that_broke_off_is_done_once(starter: Starter) -> None:
    with Sandbox(fresh_directory(), long_queue_ids=False) as box, agents(box, starter) as agent:
        mail = Mailbox(box)
        ids = [mail.deferred(f"{step.replace(' ', '.')}@{REFUSING}") for step in STEPS["restore"]]
        agent.start()
        agent.operate("delete", ids)
        agent.stop()
        for queue_id, step in zip(ids, STEPS["restore"], strict=True):
            agent.start(step)
            with pytest.raises(Error):
                agent.restore(queue_id)
            agent.wait_for_end()
            agent.start()
            assert agent.outcomes(agent.wait_until_over()) == {queue_id: "restored"}
            agent.stop()
        assert agent.trash() == []
        let_all_go(mail)
        assert recipients(mail) == sorted(step.replace(" ", ".") for step in STEPS["restore"])


# --- web, serve, and a client that goes ---------------------------------------------------------------------


def served(service: Service, operation_id: str) -> dict[str, str]:
    """What the web half tells of each message of an operation that is over."""

    def is_over() -> bool:
        return service.ask("GET", f"/v1/operations/{operation_id}").json()["finished_at"] is not None

    processes.wait_until(is_over, 20)
    rows = service.ask("GET", f"/v1/operations/{operation_id}/results?limit=1000").json()["results"]
    return {row["queue_id"]: row["outcome"] for row in rows}


def begun(service: Service, mail: Mailbox, ids: list[str]) -> str:
    """A delete of many that waits for a delivery at this moment. Returns its operation_id."""
    body = {"action": "delete", "selection": {"queue_ids": ids}, "reason": "a test"}
    answer = service.ask("POST", "/v1/operations", body=body)
    assert answer.status == 202, answer.body
    mail.taken_out(ids[0])
    return str(answer.json()["operation_id"])


@pytest.mark.parametrize("killed", ["web", "everything", "everything by SIGTERM"])
def test_an_operation_survives_what_it_was_asked_through(own_box: Sandbox, mail: Mailbox, killed: str) -> None:
    with services.started(own_box, {"lock_wait_seconds": "10"}) as service:
        ids = [mail.delivering(2.0), mail.deferred(f"first@{REFUSING}")]
        operation_id = begun(service, mail, ids)
        for pid in service.tree() if killed != "web" else [service.halves()[1]]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGTERM if killed.endswith("SIGTERM") else signal.SIGKILL)
        service.process.wait(20)
        with services.started(own_box, {**service.shared, "lock_wait_seconds": "10"}) as again:
            said = served(again, operation_id)
    assert said[ids[1]] == "removed"
    assert said[ids[0]] in ("already_delivered", "in_flight")
    mail.wait_for_arrival()
    let_all_go(mail)
    assert recipients(mail) == ["bert"]


def test_an_operation_whose_client_went_away_goes_on(own_box: Sandbox, mail: Mailbox) -> None:
    with services.started(own_box, {"lock_wait_seconds": "10"}) as service:
        ids = [mail.delivering(1.5), mail.deferred(f"first@{REFUSING}")]
        body = json.dumps({"action": "delete", "selection": {"queue_ids": ids}, "reason": "a test"})
        with socket.create_connection(("127.0.0.1", service.port)) as client:
            head = (
                f"POST /v1/operations HTTP/1.1\r\nHost: a\r\nAuthorization: {AUTHORIZATION['admin']}\r\nPrefer: wait=30"
            )
            head += f"\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n{body}"
            client.sendall(head.encode())
            mail.taken_out(ids[0])
        (operation,) = service.ask("GET", "/v1/operations").json()["operations"]
        assert served(service, operation["operation_id"]) == {ids[0]: "already_delivered", ids[1]: "removed"}
    let_all_go(mail)
    assert recipients(mail) == ["bert"]


# --- a full disk --------------------------------------------------------------------------------------------


@pytest.fixture
def small(own_box: Sandbox) -> Iterator[tuple[Service, Path]]:
    with services.place() as place, small_disk(place / "small") as filler:
        state = filler.parent / "state"
        with services.started(own_box, {"state_directory": str(state), "lock_wait_seconds": "2"}) as service:
            yield service, filler


def large(mail: Mailbox, name: str) -> str:
    text = f"From: a\nSubject: {mail.word}\n\n" + 4000 * "the quick brown fox jumps over the lazy dog, again\n"
    queue_id = mail.box.send("anna@example.com", [f"{name}@{REFUSING}"], text.encode())
    mail.wait_for(queue_id, "deferred")
    return queue_id


def test_on_a_full_disk_nothing_is_removed_and_the_service_goes_on_when_there_is_room(
    small: tuple[Service, Path], mail: Mailbox
) -> None:
    service, filler = small
    ids = three(mail)
    fill(filler)
    for action, queue_id in (("delete", ids[0]), ("hold", ids[1]), ("release", ids[2])):
        answer = service.change(action, queue_id)
        assert (answer.status, answer.code) == (507, "storage_full"), answer.body
    many = {"action": "delete", "selection": {"everything": True}, "reason": "a test"}
    answer = service.ask("POST", "/v1/operations", body=many)
    assert (answer.status, answer.code) == (507, "storage_full"), answer.body
    listed = service.ask("GET", "/v1/messages", "viewer", FRESH)
    assert listed.status in (200, 507)
    assert places(mail, ids) == ["deferred", "deferred", "hold"]
    filler.unlink()
    assert len(service.ask("GET", "/v1/messages", "viewer", FRESH).json()["messages"]) == 3
    assert service.change("delete", ids[0]).status == 200
    assert places(mail, ids) == [None, "deferred", "hold"]
    let_all_go(mail)
    assert recipients(mail) == ["held", "second"]


def test_a_trash_without_room_for_the_copies_keeps_the_messages(small: tuple[Service, Path], mail: Mailbox) -> None:
    service, filler = small
    ids = (*(large(mail, name) for name in ("first", "second", "third", "fourth")),)
    fill(filler, leave_bytes=560_000)
    body = {"action": "delete", "selection": {"queue_ids": list(ids)}, "reason": "a test"}
    answer = service.ask("POST", "/v1/operations", headers={"Prefer": "wait=20"}, body=body).json()
    assert (answer["state"], answer["outcomes"]) == ("failed", {"failed": 4})
    assert answer["failure"].startswith("storage_full")
    assert places(mail, ids) == ["deferred"] * 4
    assert service.ask("GET", "/v1/trash").json()["messages"] == 0
    answer = service.change("delete", ids[0])
    assert answer.status == 200, answer.body  # this one has room
    filler.unlink()
    assert service.ask("POST", f"/v1/trash/{ids[0]}/restore").status == 200
    assert places(mail, ids) == ["deferred"] * 4
    let_all_go(mail)
    assert recipients(mail) == ["first", "fourth", "second", "third"]


def test_a_journal_that_fills_up_in_mid_operation_waits_and_forgets_nothing(
    small: tuple[Service, Path], mail: Mailbox
) -> None:
    service, filler = small
    ids = [mail.delivering(1.5), mail.deferred(f"first@{REFUSING}")]
    operation_id = begun(service, mail, ids)
    fill(filler)  # while it waits for the delivery
    mail.wait_for_arrival()
    time.sleep(1)
    assert service.ask("GET", f"/v1/operations/{operation_id}").json()["finished_at"] is None
    filler.unlink()
    said = served(service, operation_id)
    assert said[ids[0]] == "already_delivered"
    assert (said[ids[1]], mail.queue_name(ids[1])) in [("removed", None), ("failed", "deferred")]
    let_all_go(mail)
    assert recipients(mail) == (["bert"] if said[ids[1]] == "removed" else ["bert", "first"])
