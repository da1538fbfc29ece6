"""postqueue(1): list the queue, and ask for delivery attempts.

Every failure exits 69, so its words are judged (complaint.py). Success of a flush means "asked".
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager

from postqueue_api.errors import Conflict
from postqueue_api.postfix.arguments import QueueId, Site
from postqueue_api.postfix.complaint import complaint
from postqueue_api.postfix.process import CHUNK_BYTES, Finished, Postfix, Running, run, start

_DIRECT_ACCESS = b"accessing queue directly"
_NO_SITE_LIST = b"Flush service is not configured for destination"
_PAUSE_SECONDS = 0.003
_PAUSE_SHARE = 0.02  # of the time so far, so that a short listing is not made longer


class Listing:
    """A listing on its way: read `chunks` to the end, then `judge` it."""

    def __init__(self, running: Running) -> None:
        self._running = running

    def chunks(self) -> Iterator[bytes]:
        """The lines as they come, in pieces that end anywhere.

        postqueue prints two kilobytes at a time, and to be woken for each of them costs five times what reading does,
        and postqueue some of its own time (65,000 reads for 100,000 messages, 0.8 s of CPU; 2,000 reads, 0.2 s). So
        what comes is left to gather in the pipe, for less time than it takes to fill.
        """
        began = time.monotonic()
        for chunk in self._running.chunks():
            yield chunk
            if len(chunk) < CHUNK_BYTES:
                time.sleep(min(_PAUSE_SECONDS, _PAUSE_SHARE * (time.monotonic() - began)))

    def judge(self) -> str:
        """Say whether the mail system was `running` or `down` while root read the queue by itself.

        Raises:   MailSystemDown, NotPermitted, Misconfigured, CommandFailed, CommandTimeout; the rows that came
                  before the failure are good, and the listing is incomplete
        """
        finished = self._running.finish()
        if finished.returncode != 0:
            raise complaint(finished)
        return "down" if _DIRECT_ACCESS in finished.stderr else "running"


@contextmanager
def listing(postfix: Postfix) -> Iterator[Listing]:
    """List the whole queue, one JSON object a line, in the order in which showq walks the queues.

    Runs:     postqueue -j
    Raises:   NotInstalled
    Source:   postqueue(1), "JSON object format"; not a snapshot: a message that moves may be missing or twice
    """
    with start(postfix.argv("postqueue", "-j"), postfix.timeout_seconds) as running:
        yield Listing(running)


def flush_all(postfix: Postfix) -> None:
    """Ask for an attempt to deliver everything that is deferred.

    Runs:     postqueue -f
    Raises:   MailSystemDown, NotPermitted, Misconfigured, CommandFailed, CommandTimeout
    Source:   postqueue(1), option -f; often slows all other mail
    """
    _judge(run(postfix.argv("postqueue", "-f"), postfix.timeout_seconds))


def flush_message(postfix: Postfix, queue_id: QueueId) -> None:
    """Ask for an attempt to deliver one message. Silent for an ID that is unknown or on hold: look first.

    Runs:     postqueue -i ID
    Raises:   MailSystemDown, NotPermitted, Misconfigured, CommandFailed, CommandTimeout
    Source:   postqueue(1), option -i
    """
    _judge(run(postfix.argv("postqueue", "-i", queue_id), postfix.timeout_seconds))


def flush_site(postfix: Postfix, site: Site) -> None:
    """Ask for an attempt to deliver all mail for one destination.

    Runs:     postqueue -s SITE
    Raises:   Conflict when fast_flush_domains does not name the site; else as flush_all
    Source:   postqueue(1), option -s; postconf(5), fast_flush_domains (default: $relay_domains)
    """
    finished = run(postfix.argv("postqueue", "-s", site), postfix.timeout_seconds)
    if _NO_SITE_LIST in finished.stderr:
        raise Conflict("Postfix keeps no list for this site: name it in fast_flush_domains, or flush messages.")
    _judge(finished)


def _judge(finished: Finished) -> None:
    if finished.returncode != 0:
        raise complaint(finished)
