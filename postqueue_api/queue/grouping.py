"""By what messages can be grouped, and where a snapshot has it."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from postqueue_api.queue.selection import message_of

SUMS = {
    "messages": "count(*)",
    "bytes": "sum(message_size)",
    "oldest": "min(arrival_time)",
    "newest": "max(arrival_time)",
}
COUNT_ONLY = {"messages": SUMS["messages"]}
_MERGED_BY = {"oldest": "min", "newest": "max"}  # what is not added up


class Grouping(NamedTuple):
    """The table, the key's column, what marks the rows that count a message once, the table of the keys' texts."""

    table: str
    column: str
    once: str
    texts: str | None

    @property
    def has_sums(self) -> bool:
        """Whether rows tell size and arrival of their message; else the message must be looked up for each of them."""
        return self.table != "recipient"

    def is_any_of(self, keys: str) -> str:
        """The condition for a list of keys."""
        rows = keys if self.texts is None else f"SELECT row FROM {self.texts} WHERE name IN ({keys})"  # noqa: S608
        return f"{self.column} IN ({rows})"

    def over_all(self, sums: Mapping[str, str]) -> str:
        """Where the rows of all messages are."""
        if self.has_sums or sums == COUNT_ONLY:
            return self.table
        return f"{self.table} CROSS JOIN message ON message.row = {message_of(self.table)}"

    def summed(self, rows: str, conditions: Sequence[str], sums: Mapping[str, str]) -> str:
        """The query that sums up rows, key by key."""
        aggregates = ", ".join(f"{aggregate} AS {name}" for name, aggregate in sums.items())
        query = (
            f"SELECT {self.column} AS key, {aggregates} FROM {rows}"  # noqa: S608 - our own names
            f" WHERE {' AND '.join(conditions)} GROUP BY {self.column}"
        )
        return query if self.texts is None else self._named(query, sums)

    def _named(self, query: str, sums: Mapping[str, str]) -> str:
        """The same query with texts as its keys; the same text may stand in several rows of `texts`."""
        merged = ", ".join(f"{_MERGED_BY.get(name, 'sum')}({name}) AS {name}" for name in sums)
        return f"SELECT name AS key, {merged} FROM ({query}) JOIN {self.texts} ON {self.texts}.row = key GROUP BY name"  # noqa: S608


GROUPINGS = {
    "queue_name": Grouping("message", "queue_name", "TRUE", None),
    "sender": Grouping("message", "sender", "TRUE", None),
    "sender_domain": Grouping("message", "sender_domain", "TRUE", None),
    "recipient": Grouping("recipient", "address", "TRUE", None),
    "recipient_domain": Grouping("destination", "domain", "firsts & 1", "domain"),
    "reason_group": Grouping("destination", "reason_group", "firsts & 2", "reason_group"),
}
