"""A small disk, and how to fill it."""

import contextlib
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def small_disk(directory: Path) -> Iterator[Path]:
    """A file system of 1 MB, and on it a file that leaves no room as long as it is there."""
    directory.mkdir()
    directory.chmod(0o755)
    subprocess.run(("mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(directory)), check=True)
    try:
        yield directory / "filler"
    finally:
        subprocess.run(("umount", "-l", str(directory)), check=True)


def fill(filler: Path, leave_bytes: int = 0) -> None:
    """Take all the room but so many bytes."""
    with filler.open("ab", buffering=0) as file, contextlib.suppress(OSError):
        while file.write(b"x" * 512):
            pass
    with filler.open("rb+") as file:
        file.truncate(max(0, filler.stat().st_size - leave_bytes))
