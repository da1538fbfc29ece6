"""Queue IDs as Postfix makes them, for a file that becomes a message.

Source:   src/global/mail_queue.h and mail_queue.c; postconf(5), enable_long_queue_ids
"""

import time

_DIGITS = "0123456789BCDFGHJKLMNPQRSTVWXYZbcdfghjklmnpqrstvwxyz"
_SEPARATOR = "z"


def is_long(queue_id: str) -> bool:
    """Whether it names one message for ever; a short one is only right for the file with its inode."""
    return _SEPARATOR in queue_id


def short_queue_id(inode: int) -> str:
    """Five hexadecimal digits of microseconds, and the inode."""
    return f"{time.time_ns() // 1000 % 1_000_000:05X}{inode:X}"


def long_queue_id(inode: int) -> str:
    """Six digits of seconds and four of microseconds in base 52, the separator, and the inode in base 51."""
    seconds, microseconds = divmod(time.time_ns() // 1000, 1_000_000)
    return (
        _digits(seconds, 52).rjust(6, "0") + _digits(microseconds, 52).rjust(4, "0") + _SEPARATOR + _digits(inode, 51)
    )


def _digits(number: int, base: int) -> str:
    digits = ""
    while number:
        number, digit = divmod(number, base)
        digits = _DIGITS[digit] + digits
    return digits or "0"
