"""A search for messages as an address has it: conditions, order and page, in the names of GET /v1/messages.

Nothing is checked here: the API does that, and says which field it does not accept. What the form sends is made
shorter first, because its empty fields mean nothing, and a link should say only what was searched for.
"""

from collections.abc import Iterable
from urllib.parse import urlencode

from flask import url_for

from postqueue_api.queue.selection import Selection

FIELDS = Selection.__struct_fields__
NAME = "search"  # the form sends it, an address never has it
NONE = "none"  # fields whose emptiness is what is searched for, as the form sends them
POSITION = "from"  # how many messages were on the pages before
DEFAULT_SORT = "arrival_time"  # the API's own
CHOOSE = "choose"  # `page`: all rows come chosen, for a browser without our module
_OWN = (NAME, NONE, POSITION, CHOOSE, "lang")
_OF_A_PAGE = ("next", "snapshot_id", POSITION, CHOOSE)

Pairs = tuple[tuple[str, str], ...]


class Search:
    """What is searched for; names may occur several times."""

    def __init__(self, pairs: Iterable[tuple[str, str]]) -> None:
        self.pairs: Pairs = tuple(pairs)

    @property
    def was_typed(self) -> bool:
        """Whether the form sent it as it stands there, empty fields and all."""
        return any(name == NAME for name, _ in self.pairs)

    def canonical(self) -> "Search":
        """The same without what says nothing."""
        given = [(name, value.strip()) for name, value in self.pairs if name not in _OWN and value.strip()]
        named = {name for name, _ in given}
        empty = [(name, "") for name in self.values(NONE) if name in FIELDS and name not in named]
        return Search([*given, *empty])

    def asked(self) -> Pairs:
        """What the API is asked; a name that nobody knows is for the API to refuse."""
        return tuple((name, value) for name, value in self.pairs if name not in _OWN)

    def conditions(self) -> Pairs:
        """Which messages are meant, without their order."""
        return tuple((name, value) for name, value in self.pairs if name in FIELDS)

    def values(self, wanted: str) -> list[str]:
        """All values of a name."""
        return [value for name, value in self.pairs if name == wanted]

    def value(self, wanted: str) -> str:
        """The first value of a name, or nothing."""
        return next(iter(self.values(wanted)), "")

    def is_empty_on_purpose(self, wanted: str) -> bool:
        """Whether a field is searched for with nothing in it."""
        return self.values(wanted) == [""]

    def number(self, wanted: str) -> int:
        """A count that we put into the address ourselves; 0 for anything else."""
        value = self.value(wanted)
        return int(value) if value.isascii() and value.isdigit() and len(value) < 10 else 0

    def with_(self, **changes: str | int | None) -> "Search":
        """The first page of a changed search, or the page that is named; None takes a name away."""
        kept = [pair for pair in self.pairs if pair[0] not in changes and pair[0] not in _OF_A_PAGE]
        return Search([*kept, *((name, str(value)) for name, value in changes.items() if value is not None)])

    def behind(self, cursor: str, position: int) -> "Search":
        """The page behind a cursor, `position` messages into the result."""
        place: dict[str, str | int | None] = {"next": cursor, POSITION: position}
        return self.with_(**place)

    def choosing_all(self) -> "Search":
        """The same page with all its rows chosen."""
        return Search([*(pair for pair in self.pairs if pair[0] != CHOOSE), (CHOOSE, "page")])

    @property
    def sort(self) -> str:
        """The order, as the API names it."""
        return self.value("sort") or DEFAULT_SORT

    def sorted_by(self, field: str) -> "Search":
        """In the order of a field, or the other way round when it is in that order already."""
        return self.with_(sort=f"-{field}" if self.sort == field else field)

    def direction(self, field: str) -> str | None:
        """How a column is sorted, as aria-sort says it."""
        return {field: "ascending", f"-{field}": "descending"}.get(self.sort)

    def address(self) -> str:
        """The page that shows it."""
        pairs = [(name, value) for name, value in self.pairs if name != NAME]
        path = url_for("dashboard.messages.show_messages")
        return f"{path}?{urlencode(pairs, safe='@:/,')}" if pairs else path
