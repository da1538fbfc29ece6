"""The names in a client's certificate: its subject as RFC 4514 writes it, and its alternative names.

A subject is compared piece by piece, not as a text: `CN=monitor, O=Example`, `commonName=monitor,O=Example` and what
nginx and AWS make of it (non-ASCII letters as \\C3\\B6) are one.
"""

import re
from collections.abc import Iterable, Mapping
from typing import Any

# A name in a form that two spellings share: a kind and a value, or the relative names of a subject in RFC 4514's order.
Name = tuple[str, str] | tuple[frozenset[tuple[str, str]], ...]

_ALTERNATIVE = {"DNS": "DNS", "email": "email", "URI": "URI"}
_SHORT = {
    "commonname": "cn",
    "localityname": "l",
    "stateorprovincename": "st",
    "organizationname": "o",
    "organizationalunitname": "ou",
    "countryname": "c",
    "streetaddress": "street",
    "domaincomponent": "dc",
    "userid": "uid",
    "surname": "sn",
    "givenname": "gn",
}
_ATTRIBUTE = re.compile(r"\s*([A-Za-z][A-Za-z0-9-]*|[0-9]+(?:\.[0-9]+)+)\s*=\s*", re.ASCII)
_VALUE = re.compile(r'(?:\\[0-9A-Fa-f]{2}|\\[ "#+,;<=>\\]|[^\\,+"<>;\x00])*')
_ESCAPED = re.compile(rb'\\([0-9A-Fa-f]{2}|[ "#+,;<=>\\])')


def parse(text: str) -> Name:
    """A name as the credentials or a proxy's header have it: a subject, or DNS:, email: or URI: and a value.

    Raises:   ValueError, saying what it is not
    """
    kind, colon, value = text.partition(":")
    if colon and kind in _ALTERNATIVE:
        if not value:
            raise ValueError("a name with a value")
        return _alternative(kind, value)
    return parse_subject(text)


def of_certificate(found: Mapping[str, Any]) -> set[Name]:
    """The names in what ssl.SSLSocket.getpeercert() returns."""
    names = {_alternative(kind, value) for kind, value in found.get("subjectAltName", ()) if kind in _ALTERNATIVE}
    subject = found.get("subject", ())
    if subject:
        names.add(tuple(_relative(pairs) for pairs in reversed(subject)))
    return names


def _alternative(kind: str, value: str) -> Name:
    return (kind, value.lower() if kind == "DNS" else value)


def _relative(pairs: Iterable[tuple[str, str]]) -> frozenset[tuple[str, str]]:
    return frozenset((_SHORT.get(kind.lower(), kind.lower()), value) for kind, value in pairs)


def parse_subject(text: str) -> Name:
    """A subject as RFC 4514 writes it. Raises ValueError, saying what it is not."""
    relatives: list[list[tuple[str, str]]] = [[]]
    position = 0
    while True:
        kind = _ATTRIBUTE.match(text, position)
        if kind is None:
            raise ValueError("a subject as RFC 4514 writes it, for example CN=monitor,O=Example")
        value = _VALUE.match(text, kind.end())
        assert value is not None
        relatives[-1].append((kind[1], _plain(value[0])))
        position = value.end()
        if position == len(text):
            return tuple(_relative(pairs) for pairs in relatives)
        if text[position] not in ",+":
            raise ValueError("a subject whose special characters are escaped by a backslash")
        if text[position] == ",":
            relatives.append([])
        position += 1


def _plain(value: str) -> str:
    """Without escapes, and without the blanks around it that are not escaped."""
    bare = re.sub(r"(?<!\\) +$", "", value).encode()

    def unescaped(found: re.Match[bytes]) -> bytes:
        return bytes.fromhex(found[1].decode()) if len(found[1]) == 2 else found[1]

    try:
        return _ESCAPED.sub(unescaped, bare).decode()
    except UnicodeDecodeError:
        raise ValueError("a subject in UTF-8") from None
