"""A child that ends when its parent is gone, however that went: SIGKILL too, which nobody can answer.

The child holds the reading end of a pipe, and the parent alone the other. When that closes, the kernel itself sends the
child a SIGTERM. Neither a thread nor a look now and then is needed, and it holds after the child gave up root, which
PR_SET_PDEATHSIG would not.

Source: fcntl(2), F_SETOWN and F_SETSIG; pipe(7), O_ASYNC
"""

import fcntl
import os
import signal


class Lifeline:
    """Made before the child, tied to it once its process number is known; `child_end` is for the child to keep open."""

    def __init__(self) -> None:
        self.child_end, self._own_end = os.pipe2(os.O_CLOEXEC)

    def tie(self, pid: int) -> None:
        """The parent's part: from now on that child ends with this process."""
        fcntl.fcntl(self.child_end, fcntl.F_SETOWN, pid)
        fcntl.fcntl(self.child_end, fcntl.F_SETSIG, signal.SIGTERM)
        flags = fcntl.fcntl(self.child_end, fcntl.F_GETFL)
        fcntl.fcntl(self.child_end, fcntl.F_SETFL, flags | os.O_ASYNC)
        os.close(self.child_end)

    def hold(self) -> None:
        """The part of a child that was forked: only the parent may hold the other end."""
        os.close(self._own_end)

    def close(self) -> None:
        """Let go: a child that is still there gets its SIGTERM now."""
        os.close(self._own_end)
