"""Queue IDs that we make are such as Postfix makes: recorded ones hold the time and the inode that we would write."""

import re
import time

from postqueue_api.postfix import naming

DIGITS = "0123456789BCDFGHJKLMNPQRSTVWXYZbcdfghjklmnpqrstvwxyz"


def value(digits: str, base: int) -> int:
    number = 0
    for digit in digits:
        number = number * base + DIGITS.index(digit)
    return number


def test_a_long_one_has_seconds_microseconds_and_the_inode() -> None:
    before = time.time()
    queue_id = naming.long_queue_id(1_234_567)
    found = re.fullmatch(r"(.{6})(.{4})z([^z]+)", queue_id, re.ASCII)
    assert found is not None
    seconds, microseconds = value(found[1], 52), value(found[2], 52)
    assert before - 1 <= seconds + microseconds / 1e6 <= time.time()
    assert value(found[3], 51) == 1_234_567
    assert naming.is_long(queue_id)
    assert naming.long_queue_id(0).endswith("z0")


def test_a_short_one_has_five_digits_of_microseconds_and_the_inode() -> None:
    queue_id = naming.short_queue_id(0xABCDEF)
    assert re.fullmatch(r"[0-9A-F]{5}ABCDEF", queue_id, re.ASCII)
    assert int(queue_id[:5], 16) < 1_000_000
    assert not naming.is_long(queue_id)


def test_one_that_postfix_made_reads_the_same_way() -> None:
    """The recordings were made at 1795447295; the microseconds of this one end in z, which is a digit there."""
    stem, _, inode = "4jY8mb6KfzzCSpf".rpartition("z")
    assert value(stem[:6], 52) == 1795447295
    assert value(stem[6:], 52) < 1_000_000
    assert value(inode, 51) > 0
