"""Generated listings, and in plain Python what there is to be found in them."""

import json
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hypothesis import Phase, settings
from hypothesis import strategies as st

from postqueue_api.queue import groups, page, plan, snapshot, snapshot_rows
from postqueue_api.queue.reason import normalise
from postqueue_api.queue.selection import Selection
from postqueue_api.queue.snapshot import Snapshot
from postqueue_api.queue.snapshot_writer import SnapshotWriter

TAKEN_AT = 1_700_000_000.25
# The ways of plan.py: the one that counting chooses, and each of them by force, as how many messages are to be sorted.
PLANS = {"as counted": None, "walk": 1 << 40, "messages": 0, "recipients": 0}
# Without making a failing listing smaller: that takes minutes, and 25 messages can be read.
PROPERTY = settings(max_examples=40, deadline=None, phases=[Phase.explicit, Phase.reuse, Phase.generate])

ADDRESSES = (
    "MAILER-DAEMON", "", "a@x.example", "A@X.Example", "b@x.example", "a@y.example", "a%@x_.example", "aX@xy.example",
    "no-domain", "a@b@c.example", "@d.example", "ends@", "jürgen@Ä.example", "'; --@x.example", "\0@x.example",
)  # fmt: skip
REASONS = (
    None, "", "refused", "Connection REFUSED", "100% full", "100 percent full", "a_b", "axb", "Straße", "\0", "'",
    "host a.example[192.0.2.1] said: 421-4.7.28 try again in 297 s", "host a.example[192.0.2.9] said: 421-4.7.28 try"
    " again in 3 s", "host a.example[192.0.2.1] said: 450 4.2.1 <a@x.example> over quota",
)  # fmt: skip
AGES = (-5, 0, 1, 59, 60, 61, 299, 300, 301, 3600, 90_000, 10**9)
SIZES = (0, 1, 999, 1000, 1001, 10**7)
QUEUE_NAMES = ("maildrop", "incoming", "active", "deferred", "hold")


@dataclass(frozen=True)
class Row:
    """A message as it should be found: where its line stood, the line itself, when it is tried next."""

    position: int
    line: bytes
    message: dict[str, Any]
    next_attempt_time: int | None

    @property
    def recipients(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.message["recipients"]
        return found

    @property
    def reasons(self) -> list[str]:
        return [each.get("delay_reason") or "" for each in self.recipients]

    @property
    def document(self) -> dict[str, Any]:
        """What an answer has of it."""
        return {**self.message, "next_attempt_time": self.next_attempt_time}

    def fits(self, selection: Selection, taken_at: float = TAKEN_AT) -> bool:
        """Whether all conditions that are given hold."""
        conditions: dict[str, Callable[[Any], bool]] = {
            "queue_name": lambda names: self.message["queue_name"] in names,
            "sender": lambda text: self.message["sender"].lower() == text.lower(),
            "sender_domain": lambda text: domain(self.message["sender"]) == text.lower(),
            "recipient": lambda text: any(each["address"].lower() == text.lower() for each in self.recipients),
            "recipient_domain": lambda text: any(domain(each["address"]) == text.lower() for each in self.recipients),
            "reason": lambda text: any(text.lower() in reason.lower() for reason in self.reasons),
            "reason_group": lambda text: any(normalise(reason) == text for reason in self.reasons),
            "min_age": lambda seconds: taken_at - self.message["arrival_time"] >= seconds,
            "max_age": lambda seconds: taken_at - self.message["arrival_time"] <= seconds,
            "min_size": lambda size: self.message["message_size"] >= size,
            "max_size": lambda size: self.message["message_size"] <= size,
            "forced_expire": lambda wanted: self.message.get("forced_expire", False) is wanted,
        }
        return all(conditions[name](value) for name, value in selection.as_dict().items())

    def place(self, field: str) -> tuple[Any, ...]:
        """What it is sorted by."""
        values: dict[str, Any] = {
            **self.message,
            "sender": self.message["sender"].lower(),
            "sender_domain": domain(self.message["sender"]),
            "recipients": len(self.recipients),
            "next_attempt_time": -1 if self.next_attempt_time is None else self.next_attempt_time,
        }
        return (*(values[column] for column in page.SORTS[field]), self.position)

    def keys(self, by: str) -> set[str]:
        """The groups that it is in."""
        found: dict[str, set[str]] = {
            "queue_name": {self.message["queue_name"]},
            "sender": {self.message["sender"].lower()},
            "sender_domain": {domain(self.message["sender"])},
            "recipient": {each["address"].lower() for each in self.recipients},
            "recipient_domain": {domain(each["address"]) for each in self.recipients},
            "reason_group": {normalise(reason) for reason in self.reasons},
        }
        return found[by]


def domain(address: str) -> str:
    return address.lower().split("@")[-1] if "@" in address else ""


def _recipient() -> st.SearchStrategy[dict[str, Any]]:
    return st.builds(
        lambda address, reason: {"address": address, **({} if reason is None else {"delay_reason": reason})},
        st.sampled_from(ADDRESSES) | st.text(max_size=8),
        st.sampled_from(REASONS) | st.text(max_size=12),
    )


def _message() -> st.SearchStrategy[dict[str, Any]]:
    return st.fixed_dictionaries(
        {
            "queue_name": st.sampled_from((*QUEUE_NAMES, "novelty")),
            "queue_id": st.sampled_from([f"4jY9mn3nLLz2Ff{letter}{number}" for letter in "Aa" for number in range(30)]),
            "arrival_time": st.sampled_from([int(TAKEN_AT) - age for age in AGES]),
            "message_size": st.sampled_from(SIZES),
            "sender": st.sampled_from(ADDRESSES) | st.text(max_size=8),
            "recipients": st.lists(_recipient(), max_size=4),
        },
        optional={"forced_expire": st.booleans(), "novelty": st.just([None, {"a": 1.5}])},
    )


MESSAGES = st.lists(_message(), max_size=25)
NEXT_ATTEMPTS = st.dictionaries(st.sampled_from("0123456789"), st.sampled_from([5, 6, 10**9]))
# Some of these fit some message: they are what the messages are made of.
SELECTIONS = st.builds(
    Selection,
    queue_name=st.just(()) | st.lists(st.sampled_from(QUEUE_NAMES), min_size=1, max_size=5).map(tuple),
    sender=st.none() | st.sampled_from(ADDRESSES),
    sender_domain=st.none() | st.sampled_from([domain(address) for address in ADDRESSES]),
    recipient=st.none() | st.sampled_from(ADDRESSES),
    recipient_domain=st.none() | st.sampled_from([*(domain(address) for address in ADDRESSES), "X.EXAMPLE"]),
    reason=st.none() | st.sampled_from(["%", "_", "a_b", "REFUSED", "100", "straSSe", "'", "try again in 2"]),
    reason_group=st.none() | st.sampled_from([normalise(reason or "") for reason in REASONS]),
    min_age=st.none() | st.sampled_from(AGES[1:]),
    max_age=st.none() | st.sampled_from(AGES[1:]),
    min_size=st.none() | st.sampled_from(SIZES),
    max_size=st.none() | st.sampled_from(SIZES),
    forced_expire=st.none() | st.booleans(),
)
# Each condition alone, so that not all examples find nothing.
ONE_CONDITION = st.builds(
    lambda selection, name: Selection(**{key: value for key, value in selection.as_dict().items() if key == name}),
    SELECTIONS,
    st.sampled_from(Selection.__struct_fields__),
)


@contextmanager
def listed(
    messages: Sequence[dict[str, Any]], next_attempts: dict[str, int] | None = None, texts_remembered: int = 20_000
) -> Iterator[tuple[Snapshot, list[Row]]]:
    """A snapshot of these messages, and the rows that it should have: of two with one queue ID the later."""
    known = next_attempts or {}

    def next_attempt(queue_name: str, queue_id: str) -> int | None:
        return known.get(queue_id[-1]) if queue_name == "deferred" else None

    lines = [json.dumps(message, ensure_ascii=position % 2 == 0).encode() for position, message in enumerate(messages)]
    with tempfile.TemporaryDirectory() as name, pytest.MonkeyPatch.context() as patch:
        patch.setattr(snapshot_rows, "_TEXTS_REMEMBERED", texts_remembered)
        patch.setattr(snapshot_rows, "_BATCH_ROWS", 7)
        with SnapshotWriter(Path(name), next_attempt) as writer:
            writer.started = TAKEN_AT
            writer.add(lines)
            assert writer.skipped_lines == 0
            info = writer.publish(mail_system="running")
        rows = {
            message["queue_id"]: Row(position, line, message, next_attempt(message["queue_name"], message["queue_id"]))
            for position, (line, message) in enumerate(zip(lines, messages, strict=True))
        }
        assert info.messages == len(rows)
        yield snapshot.by_id(Path(name), info.snapshot_id), sorted(rows.values(), key=lambda row: row.position)


@contextmanager
def planned(how: str) -> Iterator[None]:
    """One of the three ways to find messages, whatever their number; what was counted another way is forgotten."""
    candidates = PLANS[how]

    def fewest(snapshot: Snapshot, selection: Selection) -> tuple[str | None, int | None]:
        return next(iter(selection.of_recipients), None) if how == "recipients" else None, candidates

    plan._count.cache_clear()
    with pytest.MonkeyPatch.context() as patch:
        if candidates is not None:
            patch.setattr(plan, "_fewest", fewest)
            patch.setattr(groups, "_FEW", -1 if how == "walk" else 1 << 40)
        yield
