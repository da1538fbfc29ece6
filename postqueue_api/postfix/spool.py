"""What is in the queue directories, without a command: how much there is, also when Postfix does not run.

Cheaper than a listing, and it names no sender and no reason. Mail moves while it is counted, so one message may be
counted twice or not at all: who wants to know that nothing is left looks twice.
"""

import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from postqueue_api.postfix.queue_file import HASH_DEPTH_LIMIT, QUEUE_NAMES

_NAME = re.compile(r"[0-9A-Za-z]{6,64}", re.ASCII)


def queue_ids(queue_directory: Path, queue_name: str) -> Iterator[str]:
    """The names of the queue files in one queue, as they come.

    Raises:   OSError: not to be allowed to look is not the same as empty
    Source:   postconf(5), hash_queue_depth: directories of one character; maildrop and incoming have files that
              are still being written, which are mail too
    """
    return _walk(f"{queue_directory}/{queue_name}", HASH_DEPTH_LIMIT)


def count(queue_directory: Path, queue_names: Sequence[str] = QUEUE_NAMES) -> dict[str, int]:
    """How many messages are in each queue, with explicit zeros. Raises OSError."""
    return {name: sum(1 for _ in queue_ids(queue_directory, name)) for name in queue_names}


def _walk(directory: str, depth: int) -> Iterator[str]:
    with os.scandir(directory) as entries:
        for entry in entries:
            if len(entry.name) == 1 and depth:
                if entry.is_dir(follow_symlinks=False):
                    yield from _walk(entry.path, depth - 1)
            elif _NAME.fullmatch(entry.name) is not None:
                yield entry.name
