"""Which messages a form is about, and what is to be done to them, in the words of POST /v1/operations.

Nothing is checked here: the API does that, and says which field it does not accept.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, urlencode

from werkzeug.datastructures import MultiDict

from postqueue_api.queue.selection import Selection

# Action: what undoes it, and the outcome of the messages to which it was done.
OPPOSITES = {"hold": ("release", "held"), "release": ("hold", "released")}
FIELDS = Selection.__struct_fields__


@dataclass(frozen=True)
class Chosen:
    """An action, and the selection as JSON has it: conditions, or queue_ids, or everything."""

    action: str
    selection: dict[str, Any]

    @classmethod
    def of_form(cls, form: MultiDict[str, str]) -> "Chosen":
        """`queue_ids` may be given several times, and hold several IDs with spaces between them."""
        queue_ids = [queue_id for text in form.getlist("queue_ids") for queue_id in text.split()]
        selection: dict[str, Any] = {}
        for name in FIELDS:
            values = form.getlist(name)
            if values:
                selection[name] = values if name == "queue_name" or len(values) > 1 else values[0]
        if queue_ids:
            selection["queue_ids"] = queue_ids
        if "everything" in form:
            selection["everything"] = form["everything"]
        return cls(form.get("action", ""), selection)

    @property
    def is_final(self) -> bool:
        """Whether it takes messages out of the queue."""
        return self.action in ("delete", "expire")

    @property
    def needs_reason(self) -> bool:
        """Whether the API wants to know why."""
        queue_ids = self.selection.get("queue_ids")
        return self.is_final and (queue_ids is None or len(set(queue_ids)) > 1)

    def fields(self) -> Iterator[tuple[str, str]]:
        """Names and values that make the same of a form again."""
        yield "action", self.action
        for name, value in self.selection.items():
            if name == "queue_ids":
                yield name, " ".join(value)
            else:
                yield from ((name, each) for each in (value if isinstance(value, list) else [value]))

    @property
    def conditions(self) -> list[tuple[str, str]]:
        """What is searched for, for a person to read; empty for a list and for everything."""
        return conditions(self.selection)

    @property
    def address(self) -> str:
        """The page that shows them: one message, or a search."""
        queue_ids = self.selection.get("queue_ids", [])
        if len(queue_ids) == 1:
            return f"/messages/{quote(queue_ids[0], safe='')}"
        return f"/messages?{urlencode(self.conditions)}" if self.conditions else "/messages"


def conditions(selection: Mapping[str, Any]) -> list[tuple[str, str]]:
    """The conditions of a selection one by one, each as a name and a text."""
    given = [(name, value) for name, value in selection.items() if name in FIELDS]
    return [(name, _text(each)) for name, value in given for each in (value if isinstance(value, list) else [value])]


def _text(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
