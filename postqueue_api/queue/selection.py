"""Which messages are meant: the filter that listing, grouping and operations share.

All conditions that are given must hold. Addresses and domains are compared whole and without case, a reason as
a literal part of the text, without case; a reason group is one that reason.py makes. An empty domain or reason
group means that there is none. Ages count from the time of the snapshot, so that paging through it always means
the same messages.
"""

from collections.abc import Collection
from typing import Any, NamedTuple, Self

import msgspec

Parameter = str | int | float


class Selection(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """Conditions on a message; ages in seconds, sizes in bytes, several queue names meaning any of them."""

    queue_name: tuple[str, ...] = ()
    sender: str | None = None
    sender_domain: str | None = None
    recipient: str | None = None
    recipient_domain: str | None = None
    reason: str | None = None
    reason_group: str | None = None
    min_age: int | None = None
    max_age: int | None = None
    min_size: int | None = None
    max_size: int | None = None
    forced_expire: bool | None = None

    @property
    def is_empty(self) -> bool:
        """Whether no condition is given, so that everything fits."""
        return self == type(self)()

    def with_(self, **conditions: Any) -> Self:
        """The same with further conditions."""
        return msgspec.structs.replace(self, **conditions)

    def as_dict(self) -> dict[str, Any]:
        """The conditions that are given, as plain values."""
        given: dict[str, Any] = msgspec.to_builtins(self)
        return given

    def as_query(self) -> dict[str, Any]:
        """The conditions as a client would give them: ages with their unit."""
        return {name: f"{value}s" if name in _AGES else value for name, value in self.as_dict().items()}

    @property
    def of_recipients(self) -> tuple[str, ...]:
        """The names of the conditions given that are about recipients."""
        return tuple(name for name in _OF_RECIPIENTS if getattr(self, name) is not None)

    @property
    def of_messages(self) -> Self:
        """The same without these."""
        return self.with_(**dict.fromkeys(_OF_RECIPIENTS))

    def where(self, taken_at: float, begin: str | None = None) -> tuple[str, dict[str, Parameter]]:
        """An SQL condition on the table message, and its named parameters.

        `begin`: the condition about recipients that messages are found by, which is quick when few fit it. Those of
        the others are looked at message by message, which is quick when few messages are left or a page fills soon.
        """
        conditions: list[str] = []
        parameters: dict[str, Parameter] = {}
        for name, value in self.as_dict().items():
            if name == "queue_name":
                names = {f"queue_name_{number}": queue_name for number, queue_name in enumerate(value)}
                conditions.append(f"queue_name IN ({', '.join(':' + key for key in names)})")
                parameters |= names
            elif name in _OF_RECIPIENTS:
                condition = _OF_RECIPIENTS[name]
                conditions.append(condition.found_by if name == begin else condition.of_message)
                parameters[name] = _folded(name, value)
            else:
                conditions.append(_OF_MESSAGE[name])
                parameters[name] = _folded(name, value)
        if self.min_age is not None or self.max_age is not None:
            parameters["taken_at"] = taken_at
        return " AND ".join(conditions) or "TRUE", parameters

    def only(self, names: Collection[str]) -> Self:
        """The same with these conditions and no others."""
        others = {name for name in self.as_dict() if name not in names}
        return self.with_(**{name: () if name == "queue_name" else None for name in others})

    @staticmethod
    def rows_that_fit(name: str) -> tuple[str, str]:
        """The table with the rows of recipients that one of `of_recipients` is about, and the SQL condition on them."""
        condition = _OF_RECIPIENTS[name]
        return condition.table, condition.rows

    def parameter(self, name: str) -> str:
        """The text that a condition compares with, as the snapshot has it."""
        return str(_folded(name, getattr(self, name)))


def _folded(name: str, value: Any) -> Any:
    return value.lower() if isinstance(value, str) and name != "reason_group" else value


_AGES = ("min_age", "max_age")
_OF_MESSAGE = {
    "sender": "sender = :sender",
    "sender_domain": "sender_domain = :sender_domain",
    "min_age": "arrival_time <= :taken_at - :min_age",
    "max_age": "arrival_time >= :taken_at - :max_age",
    "min_size": "message_size >= :min_size",
    "max_size": "message_size <= :max_size",
    "forced_expire": "forced_expire = :forced_expire",
}
# A row of recipient or destination is message.row and the position behind it; a line of LINE_LIMIT_BYTES has fewer than
# 2^20 recipients.
POSITION_BITS = 20


def message_of(table: str) -> str:
    """The row of the message that a row of recipient or destination belongs to."""
    return f"{table}.row >> {POSITION_BITS}"


def rows_of_message(table: str) -> str:
    """The condition for the rows of recipient or destination that belong to a message."""
    return f"{table}.row BETWEEN message.row << {POSITION_BITS} AND ((message.row + 1) << {POSITION_BITS}) - 1"


class _OfRecipients(NamedTuple):
    """A condition about recipients. `once` marks one row per message that fits, if there is such a mark."""

    table: str
    column: str
    test: str
    once: str = "TRUE"

    @property
    def rows(self) -> str:
        return f"{self.column} {self.test} AND {self.once}"

    @property
    def found_by(self) -> str:
        return f"message.row IN (SELECT {message_of(self.table)} FROM {self.table} WHERE {self.rows})"  # noqa: S608

    @property
    def of_message(self) -> str:
        # The + keeps SQLite from taking the index of that column where the message is known already.
        test = _REASON_BY_ROW if self.column == "reason" else f"+{self.column} {self.test}"
        return f"EXISTS (SELECT 1 FROM {self.table} WHERE {rows_of_message(self.table)} AND {test})"  # noqa: S608


_REASON_BY_ROW = "EXISTS (SELECT 1 FROM reason WHERE reason.row = destination.reason AND instr(folded, :reason) > 0)"
_OF_RECIPIENTS = {
    "recipient": _OfRecipients("recipient", "address", "= :recipient"),
    "recipient_domain": _OfRecipients(
        "destination", "domain", "IN (SELECT row FROM domain WHERE name = :recipient_domain)", "firsts & 1"
    ),
    # Neither index nor mark: too many texts may fit.
    "reason": _OfRecipients("destination", "reason", "IN (SELECT row FROM reason WHERE instr(folded, :reason) > 0)"),
    "reason_group": _OfRecipients(
        "destination", "reason_group", "IN (SELECT row FROM reason_group WHERE name = :reason_group)", "firsts & 2"
    ),
}
