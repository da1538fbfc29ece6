"""What a file of credentials says, and whether it may be used. It is TOML, a table per principal:

    [alice]
    password_hash = "$2b$12$..."        bcrypt, cost 10 to 15
    roles = ["operator", "content"]

    [grafana]
    token_sha256 = "..."                64 hex digits
    roles = ["viewer"]

    [monitor]
    certificates = ["CN=monitor,O=Example", "DNS:monitor.example.com", "email:ops@example.com", "URI:spiffe://..."]
    roles = ["viewer"]                  exact subjects as RFC 4514 has them, or alternative names

A hash does not tell how long its password was: a short one is refused where it is made, by `postqueue-api credential`.
What can be known here is whether it was made of a well-known word, and for a token, since its hash is quick, whether
it is short enough to be tried.

No message here holds a hash, a password or a token, nor the path of a file.
"""

import hashlib
import os
import re
import stat
import tomllib
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from itertools import chain, product
from pathlib import Path
from string import ascii_lowercase, digits
from typing import Any

import bcrypt

from postqueue_api.errors import Misconfigured
from postqueue_api.web import certificate_names
from postqueue_api.web.certificate_names import Name

ROLES = ("viewer", "operator", "admin", "content")
NAME = re.compile(r"[A-Za-z0-9._@-]{1,64}", re.ASCII)
WELL_KNOWN = ("admin", "password", "changeme", "postqueue", "secret", "postfix", "root", "test", "123456")

_INCLUDED = {"operator": frozenset({"viewer"}), "admin": frozenset({"operator", "viewer"})}
_KEYS = ("password_hash", "token_sha256", "certificates", "roles")
_BCRYPT = re.compile(r"\$2[aby]\$(?P<cost>[0-9]{2})\$[./A-Za-z0-9]{21}[.Oeu][./A-Za-z0-9]{31}", re.ASCII)
_LEAST_COST, _GREATEST_COST = 10, 15
_FILE_LIMIT_BYTES = 1 << 20
# Others may neither read nor write it, and the group may only read.
_TOO_OPEN = stat.S_IWGRP | stat.S_IROTH | stat.S_IWOTH

Signature = tuple[int, ...]


@dataclass(frozen=True)
class Principal:
    """Who asks. `roles` holds the roles granted and all that they include."""

    name: str
    roles: frozenset[str]

    @property
    def role(self) -> str:
        """The highest role, for a record: `operator`, `content` or `operator+content`."""
        highest = [role for role in ("admin", "operator", "viewer") if role in self.roles][:1]
        return "+".join([*highest, *(["content"] if "content" in self.roles else [])])


@dataclass(frozen=True)
class Entry:
    """One principal and what proves it: a password, a token, a certificate, or any of them."""

    principal: Principal
    password_hash: bytes | None
    token_sha256: bytes | None
    certificates: frozenset[Name] = frozenset()


def parse(text: str) -> Mapping[str, Entry]:
    """Read the text of a credentials file: entries by name.

    Raises:   Misconfigured, naming the principal and what is wrong with it
    """
    try:
        tables = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise Misconfigured(f"The credentials are not TOML: {error}.") from None
    if not tables:
        raise Misconfigured("There is no credential.")
    entries = {name: _entry(name, table) for name, table in tables.items()}
    _refuse_shared_tokens(entries.values())
    _refuse_shared_certificates(entries.values())
    return entries


def refuse_well_known_passwords(entries: Iterable[Entry]) -> None:
    """Refuse a password that is its principal's name or a word that everybody tries first.

    Costs one bcrypt per word and password (ten of 0.2 to 0.4 s at cost 12), on all processors at once.

    Raises:   Misconfigured, naming the principal
    """
    guesses = [
        (entry.principal.name, entry.password_hash, word)
        for entry in entries
        if entry.password_hash is not None
        for word in sorted({*WELL_KNOWN, entry.principal.name})
    ]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        hits = list(pool.map(lambda guess: bcrypt.checkpw(guess[2].encode(), guess[1]), guesses))
    for (name, _, _), hit in zip(guesses, hits, strict=True):
        if hit:
            raise Misconfigured(f"[{name}] has a password that everybody tries first. Choose another.")


def read(path: Path) -> tuple[str, Signature]:
    """The text of a credentials file, and what changes when the file does.

    Raises:   Misconfigured when it is not there, cannot be read, or others may read or write it
    """
    try:
        # O_NONBLOCK: a FIFO in its place must not make us wait.
        with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:  # noqa: PTH123
            status = os.fstat(file.fileno())
            _judge_status(status)
            return file.read(_FILE_LIMIT_BYTES).decode(), signature(status)
    except UnicodeDecodeError:
        raise Misconfigured("The credentials file is not UTF-8.") from None
    except OSError as error:
        raise Misconfigured(f"The credentials file cannot be read: {error.strerror}.") from None


def signature(status: os.stat_result) -> Signature:
    """Times, size and identity; the change time too, so that a chmod which mends the file is noticed."""
    return (status.st_mtime_ns, status.st_ctime_ns, status.st_size, status.st_ino, status.st_dev)


def _judge_status(status: os.stat_result) -> None:
    if not stat.S_ISREG(status.st_mode):
        raise Misconfigured("The credentials file is not a regular file.")
    if status.st_mode & _TOO_OPEN:
        mode = stat.S_IMODE(status.st_mode)
        raise Misconfigured(f"The credentials file has mode {mode:04o}, open to others. Say: chmod 0640.")
    if status.st_size > _FILE_LIMIT_BYTES:
        raise Misconfigured(f"The credentials file is larger than {_FILE_LIMIT_BYTES} bytes.")


def _entry(name: str, table: Any) -> Entry:
    if NAME.fullmatch(name) is None:
        raise Misconfigured(f"{name[:64]!a} is not a name: 1 to 64 letters, digits and . _ @ -")
    if not isinstance(table, dict):
        raise Misconfigured(f"{name} must be a table: a line [{name}], and its keys below it.")
    unknown = sorted(set(table) - set(_KEYS))
    if unknown:
        hint = f' A name with a dot stands in quotes: ["{name}.{unknown[0]}"].' if "." not in name else ""
        raise Misconfigured(
            f"[{name}] has the unknown key {unknown[0][:64]!a}. Known: {', '.join(_KEYS)}."
            + (hint if isinstance(table[unknown[0]], dict) else "")
        )
    if not {"password_hash", "token_sha256", "certificates"} & set(table):
        raise Misconfigured(f"[{name}] has neither password_hash nor token_sha256 nor certificates.")
    principal = Principal(name, _roles(name, table))
    return Entry(principal, _password_hash(name, table), _token_sha256(name, table), _certificates(name, table))


def _roles(name: str, table: dict[str, Any]) -> frozenset[str]:
    roles = table.get("roles")
    if not isinstance(roles, list) or not roles:
        raise Misconfigured(f'[{name}] has no roles. Say for example: roles = ["viewer"].')
    for role in roles:
        if role not in ROLES:
            raise Misconfigured(f"[{name}] has the unknown role {str(role)[:64]!a}. Known: {', '.join(ROLES)}.")
    return frozenset(roles).union(*(_INCLUDED.get(role, ()) for role in roles))


def _password_hash(name: str, table: dict[str, Any]) -> bytes | None:
    if "password_hash" not in table:
        return None
    found = _BCRYPT.fullmatch(str(table["password_hash"]))
    if found is None:
        raise Misconfigured(f"[{name}] has a password_hash that is not a bcrypt hash ($2b$12$...).")
    if not _LEAST_COST <= int(found["cost"]) <= _GREATEST_COST:
        accepted = f"{_LEAST_COST} to {_GREATEST_COST}"
        raise Misconfigured(f"[{name}] has a password_hash of cost {int(found['cost'])}; accepted: {accepted}.")
    return found[0].encode()


def _token_sha256(name: str, table: dict[str, Any]) -> bytes | None:
    if "token_sha256" not in table:
        return None
    text = str(table["token_sha256"])
    if re.fullmatch(r"[0-9A-Fa-f]{64}", text, re.ASCII) is None:
        raise Misconfigured(f"[{name}] has a token_sha256 that is not 64 hex digits.")
    digest = bytes.fromhex(text)
    words = (name, *WELL_KNOWN)
    if digest in {_sha256(cased) for word in words for cased in (word, word.capitalize(), word.upper())}:
        raise Misconfigured(f"[{name}] has a token that everybody tries first. `postqueue-api credential` makes one.")
    if digest in _short_tokens():
        raise Misconfigured(f"[{name}] has a token that is empty or short. `postqueue-api credential` makes one.")
    return digest


@cache
def _short_tokens() -> frozenset[bytes]:
    """The digests of all tokens of up to three letters or digits in small letters, and of up to four digits."""
    words = ("".join(letters) for length in range(4) for letters in product(ascii_lowercase + digits, repeat=length))
    numbers = (f"{number:04d}" for number in range(10_000))
    return frozenset(map(_sha256, chain(words, numbers)))


def _sha256(word: str) -> bytes:
    return hashlib.sha256(word.encode()).digest()


def _certificates(name: str, table: dict[str, Any]) -> frozenset[Name]:
    texts = table.get("certificates", [])
    if not isinstance(texts, list) or ("certificates" in table and not texts):
        raise Misconfigured(f'[{name}] has certificates that are no list. Say for example: ["CN=monitor,O=Example"].')
    try:
        return frozenset(certificate_names.parse(str(text)) for text in texts)
    except ValueError as error:
        raise Misconfigured(f"[{name}] has a name in certificates that is not {error}.") from None


def _refuse_shared_certificates(entries: Iterable[Entry]) -> None:
    owners: dict[Name, str] = {}
    for entry in entries:
        for each in entry.certificates:
            if each in owners:
                raise Misconfigured(f"[{owners[each]}] and [{entry.principal.name}] have the same certificate.")
            owners[each] = entry.principal.name


def _refuse_shared_tokens(entries: Iterable[Entry]) -> None:
    owners: dict[bytes, str] = {}
    for entry in entries:
        if entry.token_sha256 is not None:
            name = entry.principal.name
            if owners.setdefault(entry.token_sha256, name) != name:
                raise Misconfigured(f"[{owners[entry.token_sha256]}] and [{name}] have the same token.")
