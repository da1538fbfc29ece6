"""One throw-away Postfix with its sinks: started, filled, asked, stopped."""

import json
import re
import smtplib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

from postqueue_api.errors import CommandFailed, Misconfigured
from postqueue_api.sandbox import configuration, mail, processes
from postqueue_api.sandbox.guard import Guard
from postqueue_api.sandbox.place import claim
from postqueue_api.sandbox.sink import LOOPBACK, Sinks, bound_socket
from postqueue_api.sandbox.sites import SITES, Site


@dataclass(frozen=True)
class Delivery:
    """A message that arrived at a sink: the MAIL and RCPT commands as they came, the content with LF line ends."""

    site: str
    mail: str
    rcpt: tuple[str, ...]
    content: bytes


class Sandbox:
    """A private Postfix on 127.0.0.1, in a directory of its own, that no mail can leave.

    Nothing is done before start(). The directory may be missing or empty; stop() removes it. If this process dies
    before, a guard process removes it.
    """

    def __init__(
        self, directory: Path, long_queue_ids: bool = True, extra_main_cf: Mapping[str, str] | None = None
    ) -> None:
        self.directory = directory.resolve()
        self.config_directory = self.directory / configuration.FOLDER
        self.queue_directory = self.directory / configuration.SPOOL
        self.accepted = self.directory / "accepted"
        self.log = self.directory / "mail.log"
        self.smtp_port = 0
        self._settings = {"enable_long_queue_ids": "yes" if long_queue_ids else "no", **(extra_main_cf or {})}
        self._sinks: Sinks | None = None
        self._guard: Guard | None = None
        self._lock: IO[str] | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def start(self) -> None:
        """Make the instance, start it and the sinks, and wait until it answers SMTP.

        Raises:   NotPermitted, NotInstalled, Misconfigured (the directory cannot work), CommandFailed, CommandTimeout;
                  nothing is left behind then
        """
        self._lock = claim(self.directory)
        try:
            self._guard = Guard(self.directory)
            self.accepted.mkdir()
            self._sinks = Sinks(SITES, self.accepted)
            self._sinks.start()
            with bound_socket() as free:
                self.smtp_port = free.getsockname()[1]
            configuration.write(self.directory, self.smtp_port, self._sinks.ports, self._settings)
            self.start_postfix()
        except BaseException:  # an interrupt too: what was begun is undone, and it goes on
            self.stop()
            raise

    def stop(self) -> None:
        """End everything and remove the directory. Does nothing when it was not started."""
        if self._sinks is not None:
            self._sinks.stop()
        if self._lock is not None:
            processes.remove(self.directory)
            self._lock.close()
        if self._guard is not None:
            self._guard.dismiss()
        self._sinks = self._guard = self._lock = None

    def start_postfix(self) -> None:
        """Start Postfix (again) and wait until it answers SMTP."""
        processes.start(self.directory)
        self.wait_until(self._answers, 60)

    def stop_postfix(self) -> None:
        """Stop Postfix and wait for its last process; queue and sinks stay."""
        processes.stop(self.directory)

    def fill(self) -> list[str]:
        """Send all of mail.py by SMTP, wait until none of it moves any more, and put two deferred messages on hold.

        Returns:  the queue IDs, in the order sent
        """
        sent = [self.send(one.sender, one.recipients, one.content, one.mail_options) for one in mail.everything()]
        self.wait_until_settled(60)
        held = f"{sent[0]}\n{sent[4]}\n".encode()
        self._postfix("postsuper", "-h", "-", stdin=held)
        return sent

    def send(
        self,
        sender: str,
        recipients: Sequence[str],
        content: bytes,
        mail_options: Sequence[str] = (),
        rcpt_options: Sequence[str] = (),
    ) -> str:
        """Send one message by SMTP; the options are added to its MAIL command and to each RCPT command.

        Returns:  its queue ID, from Postfix's reply
        Raises:   CommandFailed with the reply, when Postfix does not take it
        """
        with smtplib.SMTP(LOOPBACK, self.smtp_port, "client.example.com", timeout=30) as client:
            client.ehlo()
            _accepted(client.mail(sender, mail_options))
            for recipient in recipients:
                _accepted(client.rcpt(recipient, rcpt_options))
            reply = _accepted(client.data(re.sub(rb"\r?\n", b"\r\n", content)))
        return reply.rpartition(" ")[2]

    def queue(self) -> list[dict[str, Any]]:
        """What postqueue -j lists now, one dictionary per message."""
        lines = self._postfix("postqueue", "-j").split(b"\n")
        return [json.loads(line.decode("utf-8", "replace")) for line in lines if line]

    def empty(self) -> None:
        """Remove all mail, what arrived too, once nothing is being delivered; each site is as at the start then."""

        def is_empty() -> bool:
            self._postfix("postsuper", "-d", "ALL")
            return not self.queue() and not self.conversations

        for site in SITES:
            self._set(site.name, replace(site, delay_seconds=0))
        self.wait_until(is_empty)
        for path in self.accepted.iterdir():
            path.unlink()
        for site in SITES:
            self._set(site.name, site)

    def deliveries(self) -> list[Delivery]:
        """What the accepting sites have got so far, in order."""
        found = []
        for path in sorted(self.accepted.glob("*.eml")):
            record = json.loads(path.with_suffix(".json").read_text())
            found.append(Delivery(record["site"], record["mail"][0], tuple(record["rcpt"]), path.read_bytes()))
        return found

    def wait_until(self, predicate: Callable[[], object], seconds: float = 20) -> None:
        """Wait until `predicate()` is true, or raise CommandTimeout."""
        processes.wait_until(predicate, seconds)

    def wait_until_settled(self, seconds: float = 30) -> None:
        """Wait until every message is deferred or held."""
        self.wait_until(lambda: {row["queue_name"] for row in self.queue()} <= {"deferred", "hold"}, seconds)

    def open_site(self, site: str, delay_seconds: float = 0.0) -> None:
        """Let a site accept mail from now on, each message only after `delay_seconds`. Postfix must be told to try.

        Without a delay, what waits for an earlier one is accepted at once.
        """
        self._set(site, Site(site, delay_seconds=delay_seconds))

    def close_site(self, site: str, stage: str = "CONNECT", reply: bytes = b"", delay_seconds: float = 0.0) -> None:
        """Let a site say no from now on: at `stage` with `reply` (see sites.Site), or refuse connections.

        What it says at the END of a message, it says `delay_seconds` after it.
        """
        self._set(site, Site(site, stage, reply, delay_seconds))

    @property
    def conversations(self) -> int:
        """How many conversations Postfix has with the sites now."""
        return 0 if self._sinks is None else self._sinks.conversations

    def _set(self, name: str, site: Site) -> None:
        if self._sinks is None:
            raise Misconfigured("The sandbox is not started.")
        self._sinks.set(name, site)

    def _answers(self) -> bool:
        try:
            with smtplib.SMTP(LOOPBACK, self.smtp_port, "client.example.com", timeout=5):
                return True
        except (OSError, smtplib.SMTPException):
            return False

    def _postfix(self, name: str, *options: str, stdin: bytes = b"") -> bytes:
        done = processes.run(processes.command(name), "-c", str(self.config_directory), *options, stdin=stdin)
        if done.returncode:
            raise CommandFailed(f"{name} failed in the sandbox: {done.stderr.decode('utf-8', 'replace').strip()}")
        return done.stdout


def _accepted(answer: tuple[int, bytes]) -> str:
    code, reply = answer
    text = reply.decode("utf-8", "replace")
    if not 200 <= code < 300:
        raise CommandFailed(f"The sandbox's Postfix did not take the message: {code} {text}")
    return text
