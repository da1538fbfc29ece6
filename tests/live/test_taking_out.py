"""What waits in the memory of qmgr for a free slot, with nobody who holds a lock on its file, is lost by Postfix's own
`postsuper -h` and `-H`. Whatever we do to it, it is delivered once, returned once, or gone."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from postqueue_api.postfix import naming
from postqueue_api.queue.operation import Item
from postqueue_api.sandbox import Sandbox, fresh_directory, processes
from postqueue_api.sandbox.sites import REFUSING, SLOW
from tests.live.agent_with_failpoint import Starter
from tests.live.agents import Agents, agents
from tests.live.mailbox import SENDER, Mailbox
from tests.live.test_faults import STEPS, commands, killed_at, let_all_go, recipients

ONE_AT_A_TIME = {"smtp_destination_concurrency_limit": "1", "initial_destination_concurrency": "1"}
BUSY = "busy.example"
CHANGES = ("delete", "hold", "requeue", "expire")
STAYING = [(action, step) for action in CHANGES for step in STEPS[action] if step not in ("begun", "settled")]


@pytest.fixture(scope="module")
def narrow_box() -> Iterator[Sandbox]:
    """A Postfix that delivers one message at a time to each site."""
    with Sandbox(fresh_directory(), extra_main_cf=ONE_AT_A_TIME) as made:
        yield made


@pytest.fixture
def agent(narrow_box: Sandbox, starter: Starter) -> Iterator[Agents]:
    with agents(narrow_box, starter) as made:
        yield made


@pytest.fixture
def mail(narrow_box: Sandbox) -> Mailbox:
    return Mailbox(narrow_box)


def waiting(mail: Mailbox, *others: str, sender: str = SENDER) -> str:
    """A message that waits until another one was delivered to the same site, which takes until `all_go`."""
    mail.delivering(60)
    queue_id = mail.send(*others, f"waiting@{SLOW}", sender=sender)
    mail.wait_for(queue_id, "active")
    return queue_id


def all_go(mail: Mailbox) -> list[str]:
    """Let all be delivered, and say to whom."""
    mail.box.open_site(SLOW)
    mail.box.open_site(BUSY)
    let_all_go(mail)
    return recipients(mail)


def item_of(agent: Agents, queue_id: str) -> Item:
    """What became of it, by the newest operation; where it is, it is under another name."""
    item = agent.items(agent.newest())[queue_id]
    assert item.new_queue_id is not None
    assert item.new_queue_id in (item.detail or "")
    assert item.new_queue_id != queue_id
    assert naming.is_long(item.new_queue_id) == naming.is_long(queue_id)
    return item


@pytest.mark.parametrize("by", ["us", "somebody"])
def test_what_was_held_and_is_released_at_once_is_delivered(agent: Agents, mail: Mailbox, by: str) -> None:
    queue_id = waiting(mail)
    agent.start()
    agent.operate("hold", [queue_id])
    item = item_of(agent, queue_id)
    assert (item.outcome, mail.queue_name(item.new_queue_id or "")) == ("held", "hold")
    if by == "us":
        assert agent.outcomes(agent.operate("release", [item.new_queue_id or ""])) == {item.new_queue_id: "released"}
    assert all_go(mail) == ["bert", "waiting"]


@pytest.mark.parametrize("to", ["hold", "deferred"])
def test_what_was_deleted_and_is_restored_at_once_is_delivered(agent: Agents, mail: Mailbox, to: str) -> None:
    queue_id = waiting(mail)
    agent.start()
    assert agent.outcomes(agent.operate("delete", [queue_id])) == {queue_id: "removed"}
    assert agent.outcomes(agent.restore(queue_id, to=to)) == {queue_id: "restored"}
    assert mail.queue_name(item_of(agent, queue_id).new_queue_id or "") in (to, "active")
    assert all_go(mail) == ["bert", "waiting"]


@pytest.mark.parametrize("action", ["requeue", "expire"])
def test_what_is_requeued_or_expired_is_delivered_or_returned_once(agent: Agents, mail: Mailbox, action: str) -> None:
    queue_id = waiting(mail)
    agent.start()
    agent.operate(action, [queue_id])
    assert item_of(agent, queue_id).outcome == {"requeue": "requeued", "expire": "expired"}[action]
    assert all_go(mail) == (["bert", "waiting"] if action == "requeue" else ["bert"])
    assert len(mail.arrived()) == 2


@pytest.mark.parametrize("action", CHANGES)
def test_of_one_that_is_being_delivered_to_somebody_else_the_rest_is_not_lost(
    agent: Agents, mail: Mailbox, action: str
) -> None:
    mail.box.open_site(BUSY, delay_seconds=60)
    queue_id = waiting(mail, f"busy@{BUSY}")
    agent.start(lock_wait_seconds="0")
    agent.operate(action, [queue_id])
    item = item_of(agent, queue_id)
    assert (item.outcome, mail.queue_name(item.new_queue_id or "")) == ("in_flight", "deferred")
    mail.flush(item.new_queue_id or "")
    mail.box.open_site(BUSY)
    mail.wait_for_arrival()
    mail.flush(item.new_queue_id or "")
    assert all_go(mail) == ["bert", "busy", "waiting"]


def test_what_could_not_be_kept_and_goes_back_is_delivered(agent: Agents, mail: Mailbox) -> None:
    queue_id = waiting(mail)
    agent.start(trash_limit_bytes="1")
    assert agent.operate("delete", [queue_id]).state == "failed"
    item = item_of(agent, queue_id)
    assert (item.outcome, mail.queue_name(item.new_queue_id or "")) == ("failed", "deferred")
    assert all_go(mail) == ["bert", "waiting"]


def test_what_was_deferred_when_we_looked_and_is_tried_since_is_not_lost(
    agent: Agents, mail: Mailbox, tmp_path: Path
) -> None:
    mail.box.close_site(SLOW, "RCPT", b"450 4.2.1 Later")
    queue_id = mail.deferred(f"waiting@{SLOW}")
    mail.delivering(60)
    script = f"""\
if [ "$3" = -h ] && mkdir $(dirname $0)/once 2>/dev/null; then
    {processes.command("postqueue")} "$1" "$2" -i {queue_id}; sleep 0.5
fi
exec $real "$@"
"""
    agent.start(command_directory=str(commands(tmp_path / "commands", script)))
    agent.operate("hold", [queue_id])
    item = item_of(agent, queue_id)
    assert (item.outcome, mail.queue_name(item.new_queue_id or "")) == ("held", "hold")
    assert all_go(mail) == ["bert", "waiting"]


def test_why_it_was_delayed_goes_with_it_and_what_bounced_is_returned(agent: Agents, mail: Mailbox) -> None:
    for digit in "0123456789ABCDEF":  # as Postfix makes them, one by one, when it needs them
        (mail.box.queue_directory / "defer" / digit).mkdir(mode=0o700, exist_ok=True)
        shutil.chown(mail.box.queue_directory / "defer" / digit, "postfix", "postfix")
    mail.box.close_site(BUSY, "RCPT", b"550 5.1.1 No such user")
    queue_id = waiting(mail, f"refused@{REFUSING}", f"nobody@{BUSY}", sender="told@example.com")
    mail.box.wait_until(lambda: f"to=<nobody@{BUSY}>" in mail.box.log.read_text())
    mail.box.wait_until(lambda: any(mail.box.queue_directory.glob(f"defer/**/{queue_id}")))
    agent.start()
    agent.operate("hold", [queue_id])
    row = mail.row(item_of(agent, queue_id).new_queue_id or "")
    assert row is not None
    reasons = {each["address"].partition("@")[0]: each.get("delay_reason") for each in row["recipients"]}
    assert "refused" in (reasons["refused"] or "")
    assert (reasons["waiting"], len(reasons)) == (None, 2)
    assert list(mail.box.queue_directory.glob(f"defer/**/{queue_id}")) == []
    assert all_go(mail) == ["bert", "refused", "waiting"]
    told = [each for each in mail.box.deliveries() if "told@example.com" in each.rcpt[0]]
    assert [f"nobody@{BUSY}".encode() in each.content for each in told] == [True]


@pytest.mark.parametrize(("action", "step"), STAYING)
def test_an_agent_killed_at_any_step_loses_nothing_of_it(agent: Agents, mail: Mailbox, action: str, step: str) -> None:
    queue_id = waiting(mail)
    killed_at(agent, step, action, (queue_id,))
    agent.start()
    said = agent.outcomes(agent.wait_until_over())[queue_id]
    assert said == {"delete": "removed", "hold": "held", "requeue": "requeued", "expire": "expired"}[action]
    agent.check_what_is_left()
    assert all_go(mail) == (["bert"] if action in ("delete", "expire") else ["bert", "waiting"])
    assert len(mail.arrived()) + len(agent.trash()) == 2


@pytest.mark.parametrize(
    ("action", "step", "resume"),
    [(*each, "yes") for each in STAYING] + [("hold", "held", "no"), ("delete", "kept", "no")],
)
def test_what_somebody_releases_after_a_kill_at_any_step_is_delivered_once(
    agent: Agents, mail: Mailbox, action: str, step: str, resume: str
) -> None:
    queue_id = waiting(mail)
    killed_at(agent, step, action, (queue_id,))
    all_go(mail)
    agent.start(resume_operations=resume)
    said = agent.outcomes(agent.wait_until_over())[queue_id]
    agent.check_what_is_left()
    all_go(mail)
    assert len(recipients(mail)) == len(set(recipients(mail)))
    assert len(mail.arrived()) + len(agent.trash()) == 2
    # Of what postsuper had marked, and nobody noted, only Postfix's log tells that it was returned.
    is_gone = said in ("removed", "expired") or (action, step, said) == ("expire", "expire said", "not_found")
    assert ("waiting" in recipients(mail)) != is_gone


@pytest.mark.parametrize(("action", "step"), [each for each in STAYING if each[1] in ("taken out", "held", "locked")])
def test_an_agent_that_shall_not_resume_gives_it_back(agent: Agents, mail: Mailbox, action: str, step: str) -> None:
    queue_id = waiting(mail)
    killed_at(agent, step, action, (queue_id,))
    agent.start(resume_operations="no")
    agent.wait_until_over()
    item = item_of(agent, queue_id)
    assert (item.outcome, mail.queue_name(item.new_queue_id or "")) == ("skipped", "deferred")
    assert all_go(mail) == ["bert", "waiting"]


@pytest.mark.parametrize("action", CHANGES)
def test_with_short_queue_ids_it_is_the_same(starter: Starter, action: str) -> None:
    narrow = Sandbox(fresh_directory(), long_queue_ids=False, extra_main_cf=ONE_AT_A_TIME)
    with narrow as box, agents(box, starter) as agent:
        mail = Mailbox(box)
        queue_id = waiting(mail)
        agent.start()
        agent.operate(action, [queue_id])
        if action == "delete":
            agent.restore(queue_id, to="deferred")
        new_queue_id = item_of(agent, queue_id).new_queue_id or ""
        assert mail.queue_name(new_queue_id) in (
            {"hold"} if action == "hold" else {"deferred", "active", "maildrop", None}
        )
        for words in (("-s", "-p"), ("-H", "ALL")):
            mail.postfix("postsuper", *words)
        assert all_go(mail) == (["bert"] if action == "expire" else ["bert", "waiting"])
        assert len(mail.arrived()) == 2
