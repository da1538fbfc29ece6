"""Empty the queue before the task or the host goes, as far as Postfix can in the time that there is.

Postfix is asked to try everything; then the queue directories are looked at, at a bounded pace, until nothing but
held mail is left or the time is over. Held mail is never waited for: nobody delivers it. docs/drain.md has the rest.
"""

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Literal

import msgspec
from msgspec.structs import replace as update

from postqueue_api.audit import cut, write_line
from postqueue_api.errors import Conflict, Error
from postqueue_api.postfix import postqueue, spool
from postqueue_api.postfix.process import Postfix
from postqueue_api.queue.groups import group
from postqueue_api.queue.selection import Selection
from postqueue_api.queue.snapshot import Snapshot

log = logging.getLogger(__name__)

WAITED_FOR = ("maildrop", "incoming", "active", "deferred")
REASONS = 5

_PACE_SECONDS = 1.0
_LOOKING_SHARE = 10  # a look that takes long is followed by a rest of that many times its own length
_FLUSH_SECONDS = 20.0
_FLUSH_AGAIN_SECONDS = 2.0
_GIVE_UP_SECONDS = 6.0
_COMMAND_SECONDS = 10.0
_NOBODY_DELIVERS = ("mail_system_down", "not_installed")
_NAMES_LIMIT = 200_000
_REASON_LIMIT = 120

State = Literal["idle", "draining", "drained", "left"]


class Reason(msgspec.Struct, frozen=True):
    """A normalised delay reason and how many of the messages that are left it delays."""

    reason: str
    messages: int


class Problem(msgspec.Struct, frozen=True):
    """What Postfix or the spool said no to."""

    code: str
    detail: str


class DrainState(msgspec.Struct, frozen=True):
    """A drain as it stands. Times in seconds since the epoch; what is not known is None.

    `before`: messages that were there when it began, held ones not counted; `gone`: those of them that are not in
    the queue any more under their ID: delivered, returned to the sender, or deleted. `left` and `held` count what
    there is now; `reasons` are of what is left when it ended.
    """

    state: State
    seconds: int | None = None
    actor: str | None = None
    since: float | None = None
    ends_at: float | None = None
    ended_at: float | None = None
    before: int | None = None
    gone: int | None = None
    left: int | None = None
    queues: dict[str, int] | None = None
    held: int | None = None
    reasons: list[Reason] | None = None
    problem: Problem | None = None


class Asker(msgspec.Struct, frozen=True):
    """Who wants the drain: a principal, or the signal that ends the agent."""

    name: str
    address: str | None = None
    request_id: str | None = None
    reason: str | None = None


class Drain:
    """One drain at a time, in a thread of its own. Safe to use from several threads."""

    def __init__(
        self,
        find_postfix: Callable[[], Postfix],
        find_queue_directory: Callable[[], Path],
        new_snapshot: Callable[[], Snapshot],
    ) -> None:
        self._find_postfix = find_postfix
        self._find_queue_directory = find_queue_directory
        self._new_snapshot = new_snapshot
        self._changed = threading.Condition()
        self._state = DrainState("idle")
        self._deadline = 0.0
        self._looking = threading.Lock()
        self._look: tuple[float, DrainState, DrainState] | None = None

    def begin(self, seconds: int, asker: Asker, *, take_over: bool = False) -> DrainState:
        """Begin; or with `take_over`, when one is under way, give that one as long from now.

        Raises:   Conflict when one is under way
        """
        with self._changed:
            under_way = self._state.state == "draining"
            if under_way and not take_over:
                raise Conflict("A drain is under way: GET /v1/drain tells how far it is.")
            self._deadline = time.monotonic() + seconds
            ends_at = time.time() + seconds
            if under_way:
                self._state = update(self._state, ends_at=ends_at)
                self._changed.notify_all()
            else:
                self._state = DrainState("draining", seconds, asker.name, since=time.time(), ends_at=ends_at)
                threading.Thread(target=self._run, args=(asker,), name="drain", daemon=True).start()
            return self._state

    def state(self) -> DrainState:
        """How far it is, and what is in the queue: when none is under way, looked at anew at a pace."""
        with self._looking:
            with self._changed:
                found = self._state
            if found.state == "draining":
                return found
            begun = time.monotonic()
            if self._look is None or self._look[1] is not found or begun >= self._look[0]:
                looked = self._looked(found)
                took = time.monotonic() - begun
                self._look = (begun + max(_PACE_SECONDS, _LOOKING_SHARE * took), found, looked)
            return self._look[2]

    # --- the thread -----------------------------------------------------------------------------------------

    def _run(self, asker: Asker) -> None:
        try:
            state = self._drain()
        except Exception:  # whoever waits must be told, and the log has the fault
            log.exception("the drain met a fault of the service")
            problem = Problem("error", "The drain met a fault of the service; the agent's log has it.")
            state = update(self._state, state="left", problem=problem, ended_at=time.time())
        _write(state, asker)
        with self._changed:
            self._state = state
            self._changed.notify_all()

    def _drain(self) -> DrainState:
        names = self._names()
        self._tell(before=None if names is None else len(names))
        flush_at, failing_since, was_empty = 0.0, None, False
        while True:
            now = time.monotonic()
            if now >= flush_at:
                problem = self._flush()
                is_down = problem is not None and problem.code in _NOBODY_DELIVERS
                failing_since = (failing_since or now) if is_down else None
                flush_at = now + (_FLUSH_SECONDS if problem is None else _FLUSH_AGAIN_SECONDS)
                self._tell(problem=problem)
            looking = time.monotonic()
            state = self._tell_looked()
            # Mail moves from queue to queue while it is looked at, so once is not enough.
            if state.left == 0 and was_empty:
                return self._ended(state, names)
            was_empty = state.left == 0
            gave_up = failing_since is not None and now - failing_since >= _GIVE_UP_SECONDS and not was_empty
            if gave_up or not self._rest(time.monotonic() - looking):
                last = self._tell_looked()
                return self._ended(self._tell_looked() if last.left == 0 else last, names)

    def _rest(self, looked_seconds: float) -> bool:
        """Wait until the next look; False when the time is over."""
        until = time.monotonic() + max(_PACE_SECONDS, _LOOKING_SHARE * min(looked_seconds, _COMMAND_SECONDS))
        with self._changed:
            while (now := time.monotonic()) < min(until, self._deadline):
                self._changed.wait(min(until, self._deadline) - now)
            return now < self._deadline

    def _flush(self) -> Problem | None:
        try:
            postfix = self._find_postfix()
            left = max(1.0, self._deadline - time.monotonic())
            postqueue.flush_all(replace(postfix, timeout_seconds=min(postfix.timeout_seconds, _COMMAND_SECONDS, left)))
        except Error as error:
            return Problem(error.code, error.detail)
        return None

    def _names(self) -> frozenset[str] | None:
        """What is there at the beginning; None when that cannot be seen, or is too much to remember."""
        found: set[str] = set()
        try:
            for queue_name in WAITED_FOR:
                for queue_id in spool.queue_ids(self._find_queue_directory(), queue_name):
                    found.add(queue_id)
                    if len(found) > _NAMES_LIMIT:
                        return None
        except (OSError, Error):
            return None
        return frozenset(found)

    def _looked(self, state: DrainState) -> DrainState:
        """The same with what is in the queue now; None where that cannot be seen."""
        try:
            counts = spool.count(self._find_queue_directory())
        except Error as error:
            return update(state, left=None, queues=None, held=None, problem=Problem(error.code, error.detail))
        except OSError as error:
            problem = Problem("setup_error", f"The queue directory cannot be read: {error.strerror}.")
            return update(state, left=None, queues=None, held=None, problem=problem)
        queues = {name: counts[name] for name in WAITED_FOR}
        return update(state, left=sum(queues.values()), queues=queues, held=counts["hold"])

    def _tell(self, **members: object) -> DrainState:
        with self._changed:
            self._state = update(self._state, **members)
            return self._state

    def _tell_looked(self) -> DrainState:
        found = self._looked(self._state)
        return self._tell(left=found.left, queues=found.queues, held=found.held, problem=found.problem)

    def _ended(self, state: DrainState, names: frozenset[str] | None) -> DrainState:
        there = self._names()
        gone = None if names is None or there is None else len(names - there)
        reasons = [] if state.left == 0 else self._reasons()
        over: State = "drained" if state.left == 0 else "left"
        return update(state, state=over, gone=gone, reasons=reasons, ended_at=time.time())

    def _reasons(self) -> list[Reason] | None:
        """Why the rest is left, most first; None when a listing cannot be had soon: the end must not wait for it."""
        found: list[list[Reason] | None] = []
        thread = threading.Thread(target=lambda: found.append(self._listed_reasons()), name="reasons", daemon=True)
        thread.start()
        thread.join(_COMMAND_SECONDS)
        return found[0] if found else None

    def _listed_reasons(self) -> list[Reason] | None:
        try:
            groups, _ = group(self._new_snapshot(), Selection(queue_name=WAITED_FOR), "reason_group", REASONS)
        except Error as error:
            log.error("why mail is left could not be found out: %s", error)
            return None
        return [Reason(each.key, each.messages) for each in groups if each.key]


def _write(state: DrainState, asker: Asker) -> None:
    """The one line that says how it ended. `gone` left the queue: delivered, returned or deleted."""
    ended_at, since = state.ended_at or time.time(), state.since or time.time()
    queues = state.queues or {}
    reasons = None if state.reasons is None else _in_words(state.reasons)
    write_line(
        "drain",
        actor=asker.name,
        address=asker.address,
        request_id=asker.request_id,
        action="drain",
        reason=asker.reason,
        outcome=state.state,
        seconds=round(ended_at - since, 1),
        before=state.before,
        gone=state.gone,
        left=state.left,
        **{f"left_{name}": queues.get(name) for name in WAITED_FOR},
        held=state.held,
        left_reasons=reasons,
        problem=None if state.problem is None else state.problem.code,
    )


def _in_words(reasons: list[Reason]) -> str:
    return "; ".join(f"{each.messages} x {cut(each.reason, _REASON_LIMIT)}" for each in reasons)
