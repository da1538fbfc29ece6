"""Places at which a test can end the agent as kill -9 would. Nothing but a test's own code can arm one."""

import os
import signal

armed: str | None = None


def reach(step: str) -> None:
    """End this process at once if a test asked for it."""
    if step == armed:
        os.kill(os.getpid(), signal.SIGKILL)
