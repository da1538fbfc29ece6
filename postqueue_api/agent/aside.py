"""A place of ours in the file system of the queue, for links to queue files, and for files that become some."""

from pathlib import Path


def aside(queue_directory: Path) -> Path:
    """A directory beside the queues; who needs it makes it.

    Not in `hold`: postsuper, which `postfix start` runs, warns of each strange name in a queue, and where Postfix may
    not log at that moment (maillog_file, Postfix 3.7.11), a warning keeps it from starting.
    """
    return queue_directory / ".postqueue-api"
