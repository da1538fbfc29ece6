"""The last line and the exit status after a drain, as a table."""

from typing import Any

import pytest

from postqueue_api.config import Settings
from postqueue_api.drain_at_stop import MAIL_IS_LEFT, _outcome, drain

QUEUES = {"maildrop": 0, "incoming": 0, "active": 0, "deferred": 0}
DRAINED: dict[str, Any] = {
    **{"state": "drained", "since": 100.0, "ended_at": 130.4, "left": 0, "queues": QUEUES, "held": 0},
    **{"reasons": [], "problem": None},
}


@pytest.mark.parametrize(
    ("members", "status", "words"),
    [
        ({}, 0, ""),
        ({"held": 3}, 0, "Nothing is left in the queue but 3 messages on hold. Unless the spool"),
        ({"left": 1, "queues": {**QUEUES, "active": 1}}, 75, "1 message is left in the queue after 30 s"),
        (
            {"left": 9, "queues": {**QUEUES, "active": 2, "deferred": 7}, "held": 1,
             "reasons": [{"reason": "timed out", "messages": 7}]},
            75,
            "9 messages are left in the queue after 30 seconds (active 2, deferred 7). Delayed by: 7 x timed out."
            " Besides, 1 message on hold. Unless the spool",
        ),
        ({"left": 4, "reasons": None, "problem": {"code": "mail_system_down", "detail": "Postfix is down."}}, 75,
         "Postfix is down. Unless the spool"),
        ({"left": None, "queues": None, "held": None, "problem": {"code": "setup_error", "detail": "No spool."}}, 75,
         "what is left cannot be seen: No spool."),
    ],
)  # fmt: skip
def test_the_last_line_says_what_would_be_lost(members: dict[str, Any], status: int, words: str) -> None:
    found = _outcome({**DRAINED, **members})
    assert found.status == status
    assert words in found.sentence
    assert bool(words) == bool(found.sentence)
    assert "  " not in found.sentence


def test_an_agent_that_does_not_answer_is_mail_that_may_be_lost(tmp_path: Any) -> None:
    found = drain(Settings(agent_socket=tmp_path / "none.sock", drain_seconds=5), lambda: False)
    assert found.status == MAIL_IS_LEFT
    assert "what is left is not known" in found.sentence
