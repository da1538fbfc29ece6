"""Which messages are meant: the filter that listing, grouping and operations share.

All conditions that are given must hold. Addresses and domains are compared whole and without case, a reason as
a literal part of the text, without case; a reason group is one that reason.py makes. An empty domain or reason
group means that there is none. Ages count from the time of the snapshot, so that paging through it always means
the same messages.
"""

from typing import Any, Self

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

    def where(self, taken_at: float, *, few: bool) -> tuple[str, dict[str, Parameter]]:
        """An SQL condition on the table message, and its named parameters.

        `few`: the messages are found from their recipients, which is quick when few fit; otherwise recipients are
        looked at message by message, which is quick when a page fills soon.
        """
        conditions: list[str] = []
        parameters: dict[str, Parameter] = {}
        for name, value in self.as_dict().items():
            if name == "queue_name":
                names = {f"queue_name_{number}": queue_name for number, queue_name in enumerate(value)}
                conditions.append(f"queue_name IN ({', '.join(':' + key for key in names)})")
                parameters |= names
            elif name in _OF_RECIPIENTS:
                conditions.append(
                    (_FROM_RECIPIENTS if few else _BY_MESSAGE).format(self.recipients_where(name, few=few))
                )
                parameters[name] = _folded(name, value)
            else:
                conditions.append(_OF_MESSAGE[name])
                parameters[name] = _folded(name, value)
        if self.min_age is not None or self.max_age is not None:
            parameters["taken_at"] = taken_at
        return " AND ".join(conditions) or "TRUE", parameters

    @staticmethod
    def recipients_where(name: str, *, few: bool) -> str:
        """The SQL condition of one name of `of_recipients`, on the table recipient."""
        column, test, once = _OF_RECIPIENTS[name]
        # The + keeps SQLite from taking the index of that column where the message is known already.
        if few:
            return f"{column} {test} AND {once}"
        return _REASON_BY_ROW if name == "reason" else f"+{column} {test}"

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
# Column, test, and the mark that makes the partial index usable: true of some recipient whenever any one fits.
# A reason has neither index nor mark: too many texts may fit.
_OF_RECIPIENTS = {
    "recipient": ("address", "= :recipient", "firsts & 1"),
    "recipient_domain": ("domain", "IN (SELECT row FROM domain WHERE name = :recipient_domain)", "firsts & 2"),
    "reason": ("reason", "IN (SELECT row FROM reason WHERE instr(folded, :reason) > 0)", "TRUE"),
    "reason_group": (
        "reason_group",
        "IN (SELECT row FROM reason_group WHERE name = :reason_group)",
        "firsts & 4",
    ),
}
_REASON_BY_ROW = "EXISTS (SELECT 1 FROM reason WHERE reason.row = recipient.reason AND instr(folded, :reason) > 0)"
# recipient.row is message.row and the position behind it; a line of LINE_LIMIT_BYTES has fewer than 2^20 recipients.
POSITION_BITS = 20
MESSAGE_OF_RECIPIENT = f"recipient.row >> {POSITION_BITS}"
RECIPIENTS_OF_MESSAGE = (
    f"recipient.row BETWEEN message.row << {POSITION_BITS} AND ((message.row + 1) << {POSITION_BITS}) - 1"
)
_FROM_RECIPIENTS = f"message.row IN (SELECT {MESSAGE_OF_RECIPIENT} FROM recipient WHERE {{}})"  # noqa: S608
_BY_MESSAGE = f"EXISTS (SELECT 1 FROM recipient WHERE {RECIPIENTS_OF_MESSAGE} AND {{}})"  # noqa: S608
