"""A second link to each queue file that is about to be deleted, to tell after a crash what became of the message.

That a message is gone does not tell who did it: while no agent runs, somebody may release everything, and Postfix
delivers it. So the link is made beside the queues, where Postfix does not look, and it is removed when the outcome is
in the journal. Postfix marks in the file itself who got the message: a file that is in no queue any more, and has
recipients without a mark, was removed and not delivered. (Before a delete only: pickup throws a file away that has two
links.)
"""

import os
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from postqueue_api.agent.aside import aside
from postqueue_api.agent.message import Message
from postqueue_api.errors import StorageFull
from postqueue_api.queue.operation import Item

MARK = "mark-"


class Marks:
    """The second links to the files of one operation."""

    def __init__(self, queue_directory: Path, operation_id: str) -> None:
        self._directory = aside(queue_directory)
        self._prefix = f"{self._directory}/{MARK}{operation_id}"

    def prepare(self) -> None:
        """Make the place for them."""
        self._directory.mkdir(mode=0o700, exist_ok=True)

    def make(self, message: Message) -> bool:
        """Make the second link, in a place that is prepared; False when the file is not there any more.

        Raises:   StorageFull
        """
        mark = self.of(message.item)
        try:
            try:
                os.link(message.place, mark)
            except FileExistsError:  # of an earlier attempt
                self.remove((message.item,))
                os.link(message.place, mark)
        except FileNotFoundError:
            return False
        except OSError as error:
            raise StorageFull("There is no room in the queue's file system, so nothing was done.") from error
        message.is_marked = True
        return True

    def remove(self, items: Iterable[Item]) -> None:
        """Remove the links to what these were."""
        for item in items:
            with suppress(FileNotFoundError):
                os.unlink(self.of(item))  # noqa: PTH108 - making a Path takes as long

    def is_in_queue(self, item: Item) -> bool:
        """Whether a file that has a second link is in a queue too."""
        try:
            return os.lstat(self.of(item)).st_nlink > 1
        except FileNotFoundError:
            return False

    def of(self, item: Item) -> str:
        """The path of a link, whether it is there or not."""
        return f"{self._prefix}-{item.position}"
