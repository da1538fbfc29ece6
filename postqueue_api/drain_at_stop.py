"""Have the agent drain the queue before the service stops, and say what is left, in a sentence and an exit status."""

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from postqueue_api.config import Settings
from postqueue_api.errors import AgentUnavailable, Error
from postqueue_api.web.agent_client import AgentClient

log = logging.getLogger(__name__)

MAIL_IS_LEFT = 75  # EX_TEMPFAIL of sysexits.h, which Postfix too uses for what may work later

_ANSWER_SECONDS = 30.0
_PACE_SECONDS = 0.2
_MORE_SECONDS = 60.0  # beyond its time a drain may finish a flush, a look and a listing
_LOST = "Unless the spool is on a volume that stays, such as EFS, this mail is lost with the task."


@dataclass(frozen=True)
class Outcome:
    """How a drain ended: the exit status of the service, and the last line on standard error, if any."""

    status: int
    sentence: str

    def tell(self) -> int:
        """Write the sentence and return the status."""
        if self.sentence:
            log.critical("%s", self.sentence)
        return self.status


def drain(settings: Settings, is_hurried: Callable[[], bool]) -> Outcome:
    """Begin a drain, or go on with one that was begun over HTTP, and wait for its end.

    `is_hurried`: whether somebody asked a second time for the end; then the drain ends at its next step.
    """
    agent = AgentClient(settings.agent_socket, _ANSWER_SECONDS)
    try:
        return _outcome(_drained(agent, settings.drain_seconds, is_hurried))
    except Error as error:
        return Outcome(
            MAIL_IS_LEFT, f"The queue could not be drained, and what is left is not known: {error.detail} {_LOST}"
        )


def _drained(agent: AgentClient, seconds: int, is_hurried: Callable[[], bool]) -> dict[str, Any]:
    wanted = {"seconds": seconds, "actor": {"name": "SIGTERM", "role": "admin"}, "take_over": True}
    state = agent.begin_drain(wanted)
    limit = time.monotonic() + seconds + _MORE_SECONDS
    hurried = False
    while state["state"] == "draining":
        if is_hurried() and not hurried:
            hurried = True
            agent.begin_drain({**wanted, "seconds": 0})
        if time.monotonic() > limit:
            raise AgentUnavailable("The drain did not come to its end in time.")
        time.sleep(_PACE_SECONDS)
        state = agent.drain()
    if state["state"] == "idle":
        raise AgentUnavailable("The agent began anew during the drain.")
    return state


def _outcome(state: dict[str, Any]) -> Outcome:
    problem = "" if state["problem"] is None else f" {state['problem']['detail']}"
    if state["left"] is None:
        return Outcome(MAIL_IS_LEFT, f"The queue was drained, but what is left cannot be seen:{problem} {_LOST}")
    held = f" {_messages(state['held'])} on hold." if state["held"] else ""
    if state["left"] == 0:
        return Outcome(0, f"Nothing is left in the queue but{held} {_LOST}" if held else "")
    queues = ", ".join(f"{name} {count}" for name, count in state["queues"].items() if count)
    reasons = "; ".join(f"{each['messages']} x {each['reason']}" for each in (state["reasons"] or [])[:3])
    why = f" Delayed by: {reasons}." if reasons else ""
    also = f" Besides,{held}" if held else ""
    seconds = round(state["ended_at"] - state["since"])
    verb = "is" if state["left"] == 1 else "are"
    return Outcome(
        MAIL_IS_LEFT,
        f"{_messages(state['left'])} {verb} left in the queue after {seconds} seconds ({queues}).{why}{problem}{also}"
        f" {_LOST}",
    )


def _messages(count: int) -> str:
    return "1 message" if count == 1 else f"{count} messages"
