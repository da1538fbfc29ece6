"""Take a message out of `active`, into `hold`, under a new queue ID.

What is in `active` is in the memory of qmgr too, until it has tried all of its recipients. No lock shows that: one
that waits for a free delivery slot is opened by nobody. If its file leaves `active` and comes back under the same
queue ID meanwhile, qmgr takes its recipients for those that it has in that memory, logs `removed`, and the mail is
lost; `postsuper -h` and `-H` do just that. Under another queue ID it is another message to qmgr, and what is left of
the old one comes to nothing: a delivery agent that is sent for it logs `open active OLD: No such file or directory`.

A delivery that goes on meanwhile marks whom it has served in the file that it has open, whatever that is called, and
keeps its lock on it. What it has to tell the sender stays in `bounce/OLD` and `trace/OLD`, and qmgr sends it when it is
through with the old name. The reasons of delays in `defer/OLD` go with the message.

The new name is in the journal first. It is one rename(2), which is all that `postsuper -h` does, so that the
message never is on hold under its old name, when anybody may release everything.

Source:   Postfix 3.7.11, src/qmgr/qmgr_job.c: qmgr_job_obtain finds a job by its queue ID; src/postsuper/postsuper.c,
          hold_one; src/global/deliver_request.c; src/qmgr/qmgr_active.c: qmgr_active_done
"""

import logging
import os
from pathlib import Path

from postqueue_api.agent.message import HOLD, Message
from postqueue_api.postfix import naming, queue_file
from postqueue_api.postfix.arguments import QueueId

log = logging.getLogger(__name__)


def choose_name(message: Message, *, long_queue_ids: bool) -> QueueId | None:
    """A name that Postfix has for no other message, since the file has its inode to itself; None when it has gone."""
    try:
        inode = os.lstat(message.place).st_ino
    except FileNotFoundError:
        return None
    while True:
        name = naming.long_queue_id(inode) if long_queue_ids else naming.short_queue_id(inode)
        if name != message.queue_id:
            return QueueId(name)


def take_out(queue_directory: Path, message: Message) -> bool:
    """Put it on hold under its new name; False when it is not in `active` any more."""
    if message.next_queue_id is None:
        return False
    place = f"{queue_directory}/{HOLD}/{message.next_queue_id}"
    try:
        os.rename(message.place, place)  # noqa: PTH104 - places are texts
    except FileNotFoundError:
        return False
    message.queue_id, message.place = message.next_queue_id, place
    return True


def take_reasons_along(queue_directory: Path, message: Message) -> None:
    """Give the reasons of its delays its new name, as far as there are some, and a directory for it.

    Source:   postconf(5), hash_queue_names: `defer` is hashed by default
    """
    found = queue_file.find(queue_directory, message.item.target.queue_id, ("defer",))
    if found is None:
        return
    root = f"{queue_directory}/defer"
    depth = found.place.count("/") - root.count("/") - 1
    place = "/".join((root, *queue_file.hash_digits(message.queue_id)[:depth], message.queue_id))
    try:
        os.rename(found.place, place)  # noqa: PTH104
    except OSError as error:
        log.info("the reasons why %s was delayed are not kept: %s", message.queue_id, error.strerror)
        found.path.unlink(missing_ok=True)
