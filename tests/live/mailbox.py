"""Mail of one test: sent to the sandbox, looked at with Postfix's own tools, found again where it arrived."""

import re
import secrets
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from postqueue_api.errors import CommandTimeout
from postqueue_api.sandbox import Delivery, Sandbox, processes
from postqueue_api.sandbox.sites import REFUSING, SLOW

SENDER = "anna@example.com"
_LOOKS, _LOOK_PAUSE_SECONDS = 20, 0.1
_LAST_LINES = 60


class Mailbox:
    """Sends messages that bear a word of their own, so that a test sees only its own mail."""

    def __init__(self, box: Sandbox) -> None:
        self.box = box
        self.word = secrets.token_hex(8)

    def send(
        self,
        *recipients: str,
        sender: str = SENDER,
        mail_options: Sequence[str] = (),
        rcpt_options: Sequence[str] = (),
    ) -> str:
        """Send a message, to the site that refuses when no recipient is named. Returns:  its queue ID"""
        to = recipients or (f"bert@{REFUSING}",)
        text = f"From: {sender}\nTo: {to[0]}\nSubject: Test {self.word}\n\nGrüße\n.\n..\n\nthe last line, {self.word}\n"
        return self.box.send(sender, to, text.encode(), mail_options, rcpt_options)

    def deferred(self, *recipients: str, **options: Any) -> str:
        """Send a message and wait until it rests in `deferred`."""
        queue_id = self.send(*recipients, **options)
        self.wait_for(queue_id, "deferred")
        return queue_id

    def held(self) -> str:
        """A message that is on hold already, by Postfix's own command."""
        queue_id = self.deferred()
        self.postfix("postsuper", "-h", "-", stdin=f"{queue_id}\n".encode())
        assert self.queue_name(queue_id) == "hold"
        return queue_id

    def delivering(self, seconds: float) -> str:
        """A message that a slow site takes `seconds` to accept: it is being delivered now."""
        self.box.open_site(SLOW, delay_seconds=seconds)
        queue_id = self.send(f"bert@{SLOW}")
        self.wait_for(queue_id, "active")
        return queue_id

    def row(self, queue_id: str) -> dict[str, Any] | None:
        """The message as postqueue -j lists it; None when it does not. A listing may miss what moves: look again."""
        for _ in range(_LOOKS):
            listed = {each["queue_id"]: each for each in self.box.queue()}
            if queue_id in listed or not self.files(queue_id):
                break
            time.sleep(_LOOK_PAUSE_SECONDS)
        return listed.get(queue_id)

    def shown(self, row: dict[str, Any]) -> dict[str, Any]:
        """A row of postqueue -j as the service should show it: with the time that Postfix gave the queue file."""
        (path,) = self.files(row["queue_id"])
        is_deferred = row["queue_name"] == "deferred"
        return {**row, "next_attempt_time": int(path.stat().st_mtime) if is_deferred else None}

    def queue_name(self, queue_id: str) -> str | None:
        """The queue that both postqueue -j and the file system say; None when there is no such message."""
        listed, files = self.row(queue_id), self.files(queue_id)
        assert {path.relative_to(self.box.queue_directory).parts[0] for path in files} == (
            set() if listed is None else {listed["queue_name"]}
        )
        return None if listed is None else str(listed["queue_name"])

    def files(self, queue_id: str) -> list[Path]:
        """Its queue file, wherever it is; the reasons that lie in `defer` are no queue file."""
        queues = ("maildrop", "incoming", "active", "deferred", "hold", "corrupt", "saved")
        return [path for name in queues for path in (self.box.queue_directory / name).rglob(queue_id)]

    def wait_for(self, queue_id: str, queue_name: str | None, seconds: float = 30) -> None:
        """Wait until postqueue -j lists the message there; None: until it does not list it."""
        self.wait_until(lambda: (self.row(queue_id) or {}).get("queue_name") == queue_name, seconds)

    def wait_until(self, predicate: Callable[[], object], seconds: float = 30) -> None:
        """Wait until `predicate()` is true; who waits in vain is told what Postfix logged last."""
        try:
            self.box.wait_until(predicate, seconds)
        except CommandTimeout as error:
            error.add_note("\n".join(self.box.log.read_text(errors="replace").splitlines()[-_LAST_LINES:]))
            raise

    def stored(self, queue_id: str) -> bytes:
        """The content as postcat prints it."""
        return self.postfix("postcat", "-bh", "-q", queue_id)

    def flush(self, queue_id: str) -> None:
        """Ask for a delivery attempt by Postfix's own command."""
        self.postfix("postqueue", "-i", queue_id)

    def let_go(self, queue_id: str) -> None:
        """Have Postfix try a deferred message until it is gone.

        Once may not do: a flush passes by what is being tried at that moment, and was begun before its site opened.
        """

        def is_gone() -> bool:
            self.flush(queue_id)
            return self.row(queue_id) is None

        self.wait_until(is_gone)

    def arrived(self) -> list[Delivery]:
        """What arrived anywhere of this test's own mail, bounces that quote it included."""
        return [each for each in self.box.deliveries() if self.word.encode() in each.content]

    def wait_for_arrival(self, seconds: float = 30) -> Delivery:
        """Wait for the first delivery of this test's mail."""
        self.wait_until(self.arrived, seconds)
        return self.arrived()[0]

    def taken_out(self, queue_id: str) -> str:
        """Wait until a message that was in `active` is on hold.

        Returns:  its new queue ID, which ends like its old one: with the inode of its file
        """
        inode = queue_id.rpartition("z")[2] if "z" in queue_id else queue_id[5:]
        found: list[str] = []

        def is_held() -> bool:
            held = [row["queue_id"] for row in self.box.queue() if row["queue_name"] == "hold"]
            found[:] = [each for each in held if each.endswith(inode) and each != queue_id]
            return bool(found)

        self.wait_until(is_held)
        return found[0]

    def new_id(self, queue_id: str) -> str:
        """The ID that Postfix's log gives to a message that was requeued."""
        found: list[str] = []

        def logged() -> bool:
            found[:] = re.findall(
                rf"pickup\[\d+\]: (\w+): .*orig_id={queue_id}$", self.box.log.read_text(errors="replace"), re.M
            )
            return bool(found)

        self.wait_until(logged)
        assert len(found) == 1
        return found[0]

    def pick_up(self) -> None:
        """Let pickup run now: it does so by itself once a minute only."""
        self.postfix("postqueue", "-f")

    def postfix(self, name: str, *options: str, stdin: bytes = b"") -> bytes:
        done = processes.run(processes.command(name), "-c", str(self.box.config_directory), *options, stdin=stdin)
        assert done.returncode == 0, done.stderr.decode()
        return done.stdout

    @contextmanager
    def open_site(self, site: str = REFUSING) -> Iterator[None]:
        """A site that takes mail while the block lasts, and refuses connections again afterwards."""
        self.box.open_site(site)
        try:
            yield
        finally:
            self.box.close_site(site)
