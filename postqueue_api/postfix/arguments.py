"""The only client text that may reach a command: three parsed types.

Each is a str that cannot hold anything but its own syntax, made by `parse`. What takes one of them needs no
further check; what builds an argv takes nothing else from a client.
"""

import re
from typing import Self

from postqueue_api.errors import InvalidArgument

_QUEUE_ID = re.compile(r"[0-9A-Za-z]{6,64}", re.ASCII)
_LABEL = r"[0-9A-Za-z_](?:[0-9A-Za-z_-]{0,61}[0-9A-Za-z_])?"
# valid_hostname() of src/util/valid_hostname.c has neither a dot at the end nor a name of digits alone.
_SITE = re.compile(rf"(?![0-9.]+\Z){_LABEL}(?:\.{_LABEL})*", re.ASCII)

QUEUE_NAMES = ("maildrop", "incoming", "active", "deferred", "hold")


class QueueId(str):
    """The name of a message in the queue, short or long form. `ALL`, `-` and paths do not fit it.

    Source: postqueue(1) and postconf(5), enable_long_queue_ids; mail_queue.h
    """

    __slots__ = ()

    @classmethod
    def parse(cls, text: str, field: str = "queue_id") -> Self:
        """Accept 6 to 64 ASCII letters and digits. Raises InvalidArgument."""
        if _QUEUE_ID.fullmatch(text) is None:
            raise InvalidArgument(
                f"{field} is not a queue ID.", field=field, accepted="6 to 64 ASCII letters and digits"
            )
        return cls(text)


class QueueName(str):
    """One of the queues that Postfix lists messages in."""

    __slots__ = ()

    @classmethod
    def parse(cls, text: str, field: str = "queue_name") -> Self:
        """Accept a name of QUEUE_NAMES. Raises InvalidArgument."""
        if text not in QUEUE_NAMES:
            raise InvalidArgument(f"{field} is not the name of a queue.", field=field, accepted=", ".join(QUEUE_NAMES))
        return cls(text)


class Site(str):
    """A destination, as `postqueue -s` takes it: a domain name."""

    __slots__ = ()

    @classmethod
    def parse(cls, text: str, field: str = "site") -> Self:
        """Accept a domain name of at most 253 characters. Raises InvalidArgument."""
        if len(text) > 253 or _SITE.fullmatch(text) is None:
            raise InvalidArgument(
                f"{field} is not a domain name.",
                field=field,
                accepted="a domain name, for example example.com",
            )
        return cls(text)
