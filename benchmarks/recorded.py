"""A listing as `postqueue -j` prints it, of any length: a spam incident on a relay, the same for the same seed."""

import json
import random
from collections.abc import Iterator

_DOMAINS = ("gmail.com", "outlook.com", "yahoo.com", "icloud.com", "web.example", "post.example", "corp.example")
_WEIGHTS = (40, 20, 12, 6, 5, 3, 2)
_REASONS = (
    "host mx{n}.{domain}[192.0.2.{n}] said: 421-4.7.0 [198.51.100.{n}] Our system has detected an unusual rate of"
    " unsolicited mail originating from your IP address. {token} - gsmtp (in reply to end of DATA command)",
    "host mx{n}.{domain}[192.0.2.{n}] said: 450 4.2.1 The user you are trying to contact is receiving mail too"
    " quickly. Please resend your message at a later time. (in reply to RCPT TO command)",
    "connect to mx.{domain}[192.0.2.{n}]:25: Connection timed out",
    "connect to mx.{domain}[192.0.2.{n}]:25: Connection refused",
    "Host or domain name not found. Name service error for name={domain} type=MX: Host not found, try again",
    "host mx.{domain}[192.0.2.{n}] refused to talk to me: 554 5.7.1 Service unavailable; Client host"
    " [198.51.100.{n}] blocked",
    "delivery temporarily suspended: lost connection with mx{n}.{domain}[192.0.2.{n}] while receiving the initial"
    " server greeting",
)  # fmt: skip
_DIGITS = "0123456789BCDFGHJKLMNPQRSTVWXYZbcdfghjklmnpqrstvwxyz"


def lines(count: int, seed: int = 1, newest: int = 1_790_000_000) -> Iterator[bytes]:
    """`count` lines: most of them from three spammers, to many recipients, for seven kinds of reason."""
    draw = random.Random(seed)
    for number in range(count):
        domain = draw.choices(_DOMAINS, _WEIGHTS)[0] if draw.random() < 0.9 else f"d{draw.randrange(20_000)}.example"
        spam = draw.random() < 0.8
        sender = f"promo{draw.randrange(3)}@spam.example" if spam else f"user{draw.randrange(5000)}@corp.example"
        message: dict[str, object] = {
            "queue_name": draw.choices(("deferred", "active", "incoming", "hold"), (94, 4, 1, 1))[0],
            "queue_id": _queue_id(number),
            "arrival_time": newest - draw.randrange(4 * 86400),
            "message_size": int(draw.lognormvariate(8.5, 1)) + 300,
            "forced_expire": False,
            "sender": sender,
            "recipients": [_recipient(draw, domain) for _ in range(1 if draw.random() < 0.95 else 5)],
        }
        yield json.dumps(message).encode() + b"\n"


def _recipient(draw: random.Random, domain: str) -> dict[str, str]:
    reason = draw.choices(_REASONS, (40, 20, 10, 10, 5, 10, 5))[0]
    token = f"{draw.getrandbits(40):010x}si{draw.randrange(10**6)}"
    return {
        "address": f"person{draw.randrange(10**6)}@{domain}",
        "delay_reason": reason.format(n=draw.randrange(1, 255), domain=domain, token=token),
    }


def _queue_id(number: int) -> str:
    digits = ""
    for _ in range(6):
        number, digit = divmod(number, 52)
        digits = _DIGITS[digit] + digits
    return f"4{digits}zBcD"
