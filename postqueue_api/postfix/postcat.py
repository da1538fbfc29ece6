"""postcat(1): the content of a message.

Only headers and body are asked for, in one stream: its envelope output can be forged from outside (an ORCPT
parameter with an encoded newline), and its default output cannot be told from the body's own lines. The
envelope is read from the queue file's records instead: queue_file.py.
"""

from collections.abc import Iterator
from contextlib import contextmanager

from postqueue_api.errors import NoSuchMessage, UnexpectedOutput
from postqueue_api.postfix.arguments import QueueId
from postqueue_api.postfix.complaint import complaint
from postqueue_api.postfix.process import Finished, Postfix, Running, start


class Content:
    """A message on its way: read `chunks` to the end, where the command is judged."""

    def __init__(self, running: Running) -> None:
        self._running = running

    def chunks(self) -> Iterator[bytes]:
        """Headers, an empty line, the body, with LF line ends: byte for byte what is stored.

        Raises:   NoSuchMessage, CommandTimeout, UnexpectedOutput (any warning is a failure), CommandFailed
        """
        empty = True
        for chunk in self._running.chunks():
            empty = False
            yield chunk
        self._judge(self._running.finish(), empty)

    def _judge(self, finished: Finished, empty: bool) -> None:
        if b"open queue file" in finished.stderr and b"No such file" in finished.stderr:
            raise NoSuchMessage("There is no message with this queue ID in the queue.")
        if finished.returncode != 0:
            raise complaint(finished)
        if finished.stderr or empty:
            raise UnexpectedOutput("postcat could not read the whole queue file; it may be damaged.")


@contextmanager
def content(postfix: Postfix, queue_id: QueueId) -> Iterator[Content]:
    """Read one message's headers and body as they are stored.

    Runs:     postcat -bh -q ID
    Raises:   NotInstalled
    Source:   postcat(1), options -b, -h and -q; exit status 1 for an unknown ID, 0 and nothing for garbage
    """
    with start(postfix.argv("postcat", "-bh", "-q", queue_id), postfix.timeout_seconds) as running:
        yield Content(running)
