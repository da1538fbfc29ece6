"""What a chunk writes down before it acts: in the journal, and for a delete in the trash."""

from collections.abc import Iterable, Sequence

from postqueue_api.agent.message import ACTIVE, Message
from postqueue_api.agent.trash import Original, Trash
from postqueue_api.queue.journal import Journal
from postqueue_api.queue.operation import EXPIRED, Operation


class Record:
    """The records of one operation (change.Records)."""

    def __init__(self, operation: Operation, journal: Journal, trash: Trash) -> None:
        self._operation = operation
        self._journal = journal
        self._trash = trash

    @property
    def keeps_copies(self) -> bool:
        """Whether what is deleted goes into the trash first."""
        return self._is_export or (self._operation.keep_copy and self._trash.keeps)

    def intend(self, items: Iterable[tuple[int, bool, str | None]]) -> None:
        """These positions are about to be touched; each with whether it was on hold before, and its new name."""
        self._journal.intend(self._operation.number, items)

    def act(self, positions: Iterable[int]) -> None:
        """These are on hold and locked now, and about to be acted on."""
        self._journal.act(self._operation.number, positions)

    def expire(self, positions: Iterable[int]) -> None:
        """These are marked as expired, and about to be released."""
        self._journal.act(self._operation.number, positions, EXPIRED)

    def keep(self, messages: Sequence[Message]) -> None:
        """Copy what is about to be deleted into the trash, unless the operation wants no copy. Raises StorageFull."""
        if self.keeps_copies:
            originals = [
                Original(message.item.target.queue_id, _home(message), message.file)
                for message in messages
                if message.file is not None
            ]
            self._trash.keep(self._operation.operation_id, originals, to_move=self._is_export)

    @property
    def _is_export(self) -> bool:
        return self._operation.action == "export"


def _home(message: Message) -> str:
    """The queue that a message was in before we touched it; now it is on hold."""
    if message.was_held:
        return "hold"
    if message.new_queue_id is not None:
        return ACTIVE
    return "deferred" if message.queue_name == "hold" else message.queue_name
