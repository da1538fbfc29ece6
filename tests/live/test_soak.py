"""Everything at once, at random: afterwards every message is in one place, and was delivered at most once.

SOAK_SECONDS says how long (60), SOAK_SEED repeats a run that failed.
"""

import contextlib
import json
import os
import random
import re
import sqlite3
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing

import pytest

from postqueue_api.errors import Error
from postqueue_api.sandbox import Sandbox, fresh_directory, processes
from postqueue_api.sandbox.sites import REFUSING, SLOW
from tests.live.agent_with_failpoint import Starter
from tests.live.agents import ACTOR, Agents, agents, kill_a_postsuper
from tests.live.mailbox import Mailbox
from tests.live.test_faults import STEPS

SECONDS = float(os.environ.get("SOAK_SECONDS", "60"))
SEED = int(os.environ.get("SOAK_SEED", str(random.SystemRandom().randrange(10**9))))
ACTIONS = ("delete", "delete", "delete", "hold", "release", "requeue", "expire", "flush")
TRASH_MESSAGES = 40
# So that mail waits in the memory of qmgr for those before it, with nobody who holds a lock on it.
ONE_AT_A_TIME = {"smtp_destination_concurrency_limit": "1", "initial_destination_concurrency": "1"}
BOUNCE = "MAILER-DAEMON"


class Soak:
    """One run: what it can do, and what it knows."""

    def __init__(self, box: Sandbox, agent: Agents, choose: random.Random) -> None:
        self.box, self.agent, self.choose = box, agent, choose
        self.mail = Mailbox(box)
        self.sent = 0
        self.done: Counter[str] = Counter()

    def start_agent(self) -> None:
        if not self.agent.is_alive():
            step = self.choose.choice([step for steps in STEPS.values() for step in steps] + 20 * [""])
            self.agent.start(step, lock_wait_seconds="1", trash_limit_messages=str(TRASH_MESSAGES))

    def send(self) -> None:
        for _ in range(self.choose.randint(1, 3)):
            site = self.choose.choice((REFUSING, REFUSING, SLOW))
            self.mail.send(f"bert@{site}", sender=f"s{self.sent}@example.com")
            self.sent += 1

    def some(self) -> list[str]:
        listed = [row["queue_id"] for row in self.box.queue() if row["sender"] != BOUNCE]
        return self.choose.sample(listed, self.choose.randint(0, min(12, len(listed))))

    def operate(self) -> None:
        if queue_ids := self.some():
            self.agent.operate(self.choose.choice(ACTIONS), queue_ids, wait=self.choose.choice((0, 0.3)))

    def restore(self) -> None:
        with closing(self.database()) as database:
            kept = database.execute("SELECT queue_id, operation_id FROM trash WHERE state = 'kept'").fetchall()
        if kept:
            queue_id, operation_id = self.choose.choice(kept)
            which = self.choose.choice(({"queue_id": queue_id}, {"operation_id": operation_id}))
            self.agent.client.restore(
                {**which, "to": self.choose.choice((None, "deferred")), "actor": ACTOR, "wait": 0}
            )

    def cancel(self) -> None:
        for operation in self.agent.journal.unfinished()[:1]:
            self.agent.client.cancel(operation.operation_id)

    def deliver(self) -> None:
        with self.mail.open_site():
            self.mail.pick_up()
            time.sleep(0.3)

    def restart_postfix(self) -> None:
        """Only while nothing is being delivered: `postfix stop` cuts an SMTP dialogue off, and that delivers twice."""
        if not self.agent.is_over(5):
            return  # it ended itself at its step, and only the next one goes on
        self.box.wait_until(lambda: self.is_quiet() and self.is_quiet(), 5)
        try:
            self.box.stop_postfix()
            with contextlib.suppress(Error):
                self.operate()
        finally:
            self.run_postfix()

    def is_quiet(self) -> bool:
        """Whether nothing is being delivered; mail that moves may be missed, so look twice."""
        names = {row["queue_name"] for row in self.box.queue()}
        return names <= {"deferred", "hold"} and self.box.conversations == 0

    def run_postfix(self) -> None:
        for _ in range(10):
            try:
                self.box.start_postfix()
            except Error as error:  # it says that it runs still, or that it was not quick enough
                sys.stdout.write(f"{error}\n")
                with contextlib.suppress(Error):
                    self.box.stop_postfix()
            else:
                return
        pytest.fail("Postfix does not start again")

    def reload_postfix(self) -> None:
        self.mail.postfix("postfix", "reload")

    def kill_postsuper(self) -> None:
        with contextlib.suppress(Error):
            self.operate()
        kill_a_postsuper(self.box, 0.2)

    def run(self, seconds: float) -> None:
        things: list[tuple[int, Callable[[], None]]] = [
            (30, self.send), (40, self.operate), (12, self.restore), (4, self.cancel), (6, self.deliver),
            (6, self.mail.pick_up), (6, self.agent.kill), (3, self.agent.stop), (8, self.kill_postsuper),
            (1, self.restart_postfix), (1, self.reload_postfix),
        ]  # fmt: skip
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            (thing,) = self.choose.choices([each for _, each in things], [weight for weight, _ in things])
            self.done[thing.__name__] += 1
            with contextlib.suppress(Error, OSError, sqlite3.OperationalError):  # it ended itself, or only just begins
                self.start_agent()
                thing()

    def settle(self) -> None:
        """Let what is begun end; what is deferred stays."""
        self.agent.kill()
        self.agent.start(lock_wait_seconds="1", trash_limit_messages=str(TRASH_MESSAGES))
        self.agent.wait_until_over(60)

        def rests() -> bool:
            self.mail.pick_up()
            time.sleep(0.5)
            rows = self.box.queue()
            return all(row["queue_name"] in ("deferred", "hold") and row["recipients"] for row in rows)

        self.box.wait_until(rests, 60)

    def database(self) -> sqlite3.Connection:
        return sqlite3.connect(self.agent.state_directory / "journal.sqlite")

    def places(self) -> dict[str, list[str]]:
        """For each message, named by its sender, all the places at which it is, or was handed over."""
        found: dict[str, list[str]] = {f"s{number}": [] for number in range(self.sent)}
        for row in self.box.queue():
            is_bounce = row["sender"] == BOUNCE
            address = row["recipients"][0]["address"] if is_bounce else row["sender"]
            found[address.partition("@")[0]].append("bounced" if is_bounce else "queue")
        for each in self.box.deliveries():
            is_bounce = "<>" in each.mail
            name = re.search(r"<(s\d+)@", each.rcpt[0] if is_bounce else each.mail)
            assert name is not None
            found[name[1]].append("bounced" if is_bounce else "delivered")
        with closing(self.database()) as database:
            for sender, state in database.execute("SELECT sender, state FROM trash WHERE state IN ('kept', 'purged')"):
                found[sender.partition("@")[0]].append("trash" if state == "kept" else "purged")
        return found

    def history(self, name: str) -> str:
        """All that is known of a message, for whoever has to find out what went wrong."""
        with closing(self.database()) as database:
            sender = f"{name}@example.com"
            items = database.execute(
                "SELECT operation, action, state, queue_id, stage, was_held, outcome, detail, item.finished_at"
                " FROM item JOIN operation ON number = operation WHERE sender = ? ORDER BY operation",
                (sender,),
            ).fetchall()
            copies = database.execute(
                "SELECT number, queue_id, operation_id, state, queue_name, kept_at, restored_as"
                " FROM trash WHERE sender = ?",
                (sender,),
            ).fetchall()
        log = self.box.log.read_text()
        ids = dict.fromkeys(re.findall(rf"(\w+): from=<{sender}>", log))
        lines = [line for line in log.split("\n") if any(queue_id in line for queue_id in ids)]
        files = [str(path) for path in self.box.queue_directory.rglob("*") if path.name in ids]
        return "\n".join(["", name, *map(str, items), *map(str, copies), *files, *lines])

    def audited(self, event: str) -> list[str]:
        lines = [json.loads(line) for line in self.agent.said.read_text().split("\n") if line.startswith("{")]
        return [line["queue_id"] for line in lines if line["event"] == event]


@pytest.fixture
def soak(starter: Starter) -> Iterator[Soak]:
    with Sandbox(fresh_directory(), extra_main_cf=ONE_AT_A_TIME) as box, agents(box, starter) as agent:
        box.open_site(SLOW, delay_seconds=0.4)
        yield Soak(box, agent, random.Random(SEED))


def test_whatever_happens_every_message_is_in_one_place_and_was_delivered_at_most_once(soak: Soak) -> None:
    sys.stdout.write(f"SOAK_SEED={SEED} SOAK_SECONDS={SECONDS:g}\n")
    soak.run(SECONDS)
    soak.settle()
    places = soak.places()
    sys.stdout.write(f"{soak.sent} messages; {dict(soak.done)}; {Counter(map(tuple, places.values()))}\n")
    wrong = {name: found for name, found in places.items() if len(found) != 1}
    assert wrong == {}, "\n".join(map(soak.history, wrong))
    held_by_us, purged = set(), []
    with closing(soak.database()) as database:
        assert database.execute("SELECT count(*) FROM item WHERE outcome IS NULL").fetchone() == (0,)
        (settled,) = database.execute("SELECT count(*) FROM item").fetchone()
        assert database.execute("SELECT sum(messages) FROM outcome").fetchone() == (settled,)
        held_by_us = {
            row[0] for row in database.execute("SELECT ifnull(new_queue_id, queue_id) FROM item WHERE outcome = 'held'")
        }
        purged = [row[0] for row in database.execute("SELECT queue_id FROM trash WHERE state = 'purged'")]
    assert {row["queue_id"] for row in soak.box.queue() if row["queue_name"] == "hold"} <= held_by_us
    assert Counter(purged) <= Counter(soak.audited("purge"))
    soak.agent.trash()
    soak.agent.check_what_is_left()
    assert processes.daemons(soak.box.directory)
