"""Delay reasons without what varies, so that ten thousand refusals become one.

Addresses, IP addresses, times, queue IDs, tokens and numbers go; SMTP codes, enhanced codes, words, ports, the codes
that sites give to their policies and the names of remote sites stay.
`host mx17.example.com[192.0.2.7] said: 450 4.2.1 [TSS04] <a@b.c> try again in 297 s (4bXz9s1Kt)`
becomes `host mx#.example.com[IP] said: 450 4.2.1 [TSS04] <ADDRESS> try again in # s (#)`.
"""

import re
from functools import lru_cache

LIMIT_CHARACTERS = 400
# What is behind these is not looked at, so that time and memory are bounded whatever a server says.
_LOOK_LIMIT_CHARACTERS = 4000
_WORD_LIMIT_CHARACTERS = 200

# Behind these words a server's own reply begins, with its code.
_BEFORE_REPLY = ("said:", "me:")
_REPLY_CODE = re.compile(r"([245][0-9][0-9])(?![0-9])(.*)", re.DOTALL)
_ENHANCED_CODE = re.compile(r"[245]\.[0-9]{1,3}\.[0-9]{1,3}(?![0-9.])")
_DAYS = {f"{day}," for day in ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")}
_VARYING = re.compile(
    r"(?P<kept>(?<![0-9A-Za-z.])[245]\.[0-9]{1,3}\.[0-9]{1,3}(?![0-9.])|(?<=\]):[0-9]{1,5}(?![0-9])"
    # 421-4.7.28 and 421-Service within a reply of several lines
    r"|(?<![0-9A-Za-z.-])[245][0-9]{2}(?=-(?:[245]\.|[A-Za-z]))"
    # [TSS04] and (S77719) name a policy, not a session
    r"|(?<=[\[(])[A-Z]{1,4}[0-9]{1,6}(?=[\])]))"
    r"|(?P<url>https?://[^\s>)\"]+)"
    r"|(?P<address><?[^<>()\[\]@:;,\"]{1,64}@[0-9A-Za-z.-]{1,255}>?)"
    r"|(?P<ip>(?<![0-9A-Za-z.])[0-9]{1,3}(?:\.[0-9]{1,3}){3}(?![0-9A-Za-z])"
    r"|(?<=\[)(?:IPv6:)?[0-9A-Fa-f:.]*:[0-9A-Fa-f:.]*(?=\])"
    r"|(?<![0-9A-Za-z])[0-9a-f]{0,4}(?::[0-9a-f]{0,4}){3,7}(?![0-9A-Za-z]))"
    r"|(?P<time>[0-9]{4}-[0-9]{2}-[0-9]{2}(?:T[0-9:.]+Z?)?|[0-9]{1,2}:[0-9]{2}(?::[0-9]{2}(?:\.[0-9]+)?)?)"
    # DB5EUR03FT049.eop-EUR03: a machine of many, whose name varies in more than a number
    r"|(?P<machine>(?<![0-9A-Za-z._-])(?=[0-9A-Za-z-]{8,63}\.[A-Za-z])[A-Za-z-]*[0-9]+[A-Za-z-]+[0-9][0-9A-Za-z-]*)"
    r"|(?P<token>(?<![0-9A-Za-z.])(?=[0-9A-Za-z_-]*[0-9])(?:[0-9A-Za-z_-]{8,}|[0-9A-F]{6,7})(?:\.[0-9]+)?"
    r"(?![0-9A-Za-z.-]))"
    r"|(?P<number>[0-9]+)"
)
_NAMES = {"url": "URL", "address": "<ADDRESS>", "ip": "IP"}


def normalise(text: str) -> str:
    """The reason as its group is called; at most LIMIT_CHARACTERS long. An empty text stays empty."""
    # Runs of spaces too: Gmail pads a number with them, so that it is always as wide.
    words = text[:_LOOK_LIMIT_CHARACTERS].split()
    before = "said:"  # a reason may begin with the code
    for position, word in enumerate(words):
        if not word.isalpha():
            is_reply = before in _BEFORE_REPLY or (len(word) == 3 and _is_enhanced_code(words, position + 1))
            words[position] = (_reply if is_reply else _word)(word[:_WORD_LIMIT_CHARACTERS])
        before = word
    return " ".join(words)[:LIMIT_CHARACTERS].rstrip()


def _is_enhanced_code(words: list[str], position: int) -> bool:
    return position < len(words) and _ENHANCED_CODE.match(words[position]) is not None


def _reply(word: str) -> str:
    found = _REPLY_CODE.fullmatch(word)
    return _word(word) if found is None else found[1] + _behind_code(found[2])


def _behind_code(rest: str) -> str:
    # A reply of several lines: 421-4.7.0
    return "-" + _word(rest[1:]) if rest.startswith("-") else _word(rest)


@lru_cache(maxsize=4096)
def _word(word: str) -> str:
    return "#" if word in _DAYS else _VARYING.sub(_replace, word)


def _replace(found: "re.Match[str]") -> str:
    kind = found.lastgroup or "number"
    return found[0] if kind == "kept" else _NAMES.get(kind, "#")
