"""Who a name and password, or a token, belongs to.

A broken file stops the start. When it breaks later, or is gone, the entries read last stay in force, one line
on standard error says why, and so does `Store.problem`.
"""

import hashlib
import hmac
import logging
import secrets
import shlex
import threading
import time
from collections.abc import Callable, Mapping, Set

import bcrypt

from postqueue_api.config import Settings, variable
from postqueue_api.errors import Misconfigured
from postqueue_api.web import credential_file
from postqueue_api.web.certificate_names import Name
from postqueue_api.web.credential_file import ROLES, Entry, Principal, Signature, parse

__all__ = ["PASSWORD_LIMIT_BYTES", "ROLES", "Entry", "Principal", "Store", "parse"]

# bcrypt looks at no more: bcrypt 4 cuts silently, bcrypt 5 raises.
PASSWORD_LIMIT_BYTES = 72

_LOOK_EVERY_SECONDS = 1.0
_REMEMBER_SECONDS = 60.0
_REMEMBER_PASSWORDS = 1024
# A salt and a digest that belong to no known password.
_NOBODY = "$2b$%02d$abcdefghijklmnopqrstuuabcdefghijklmnopqrstuvwxyz01234"

_log = logging.getLogger(__name__)


class Store:
    """The credentials of one process. Safe for any number of threads."""

    def __init__(self, settings: Settings, clock: Callable[[], float] = time.monotonic) -> None:
        """Read the credentials.

        Raises:   Misconfigured, with the command that makes a credential
        """
        self._path = None if settings.credentials is not None else settings.credentials_file
        self._origin = variable("credentials") if self._path is None else str(self._path)
        self._clock = clock
        self._look_again = 0.0
        self._signature: Signature | None = None
        self._problem: str | None = None
        self._reloading = threading.Lock()
        self._remembered = _Remembered(clock)
        self._entries: Mapping[str, Entry] = {}
        try:
            self._use(parse(settings.credentials if settings.credentials is not None else self._read()))
        except Misconfigured as error:
            raise self._stop(error) from None

    def check_at_start(self) -> None:
        """Refuse to start with a password that everybody tries first; once, before processes are forked.

        Raises:   Misconfigured, with the command that makes a credential
        """
        try:
            credential_file.refuse_well_known_passwords(self._entries.values())
        except Misconfigured as error:
            raise self._stop(error) from None

    @property
    def problem(self) -> str | None:
        """Why the file as it is now is not in use; None when it is."""
        self._current()
        return self._problem

    def entry(self, name: str) -> Entry | None:
        """What is known of a principal now."""
        return self._current().get(name)

    def known_name(self, claimed: str | None) -> str | None:
        """A name for a record, if anybody has it: else it may be a token or a password, sent in the wrong place."""
        return claimed if claimed is not None and claimed in self._current() else None

    def verify_password(self, name: str, password: str) -> Principal | None:
        """The principal of that name, if the password is right.

        An unknown name takes the time of a wrong password of the highest cost there is. A right one is remembered for
        a minute under a keyed hash of name, stored hash and password: nothing from which the password can be had, and
        nothing that matches once the entry has changed.
        """
        entry = self._current().get(name)
        secret = password.encode("utf-8", "surrogatepass")
        usable = 0 < len(secret) <= PASSWORD_LIMIT_BYTES and b"\0" not in secret
        if entry is None or entry.password_hash is None or not usable:
            bcrypt.checkpw(b"nobody", self._nobody)
            return None
        key = self._remembered.key(entry, secret)
        if key not in self._remembered:
            if not bcrypt.checkpw(secret, entry.password_hash):
                return None
            self._remembered.add(key)
        return entry.principal

    def verify_token(self, token: str) -> Principal | None:
        """The principal whose token that is.

        Every entry is compared, each in constant time, so that the answer's time tells neither how much of a
        digest fits nor where its entry stands.
        """
        digest = hashlib.sha256(token.encode("utf-8", "surrogatepass")).digest()
        found = None
        for entry in self._current().values():
            if entry.token_sha256 is not None and hmac.compare_digest(entry.token_sha256, digest):
                found = entry.principal
        return found if token else None

    def verify_certificate(self, names: Set[Name]) -> Principal | None:
        """The principal to whom a verified certificate's names belong; None also when they belong to several."""
        found = [entry.principal for entry in self._current().values() if entry.certificates & names]
        return found[0] if len(found) == 1 else None

    def _current(self) -> Mapping[str, Entry]:
        """The entries in force. One thread looks after the file, the others do not wait for it."""
        if self._path is not None and self._clock() >= self._look_again and self._reloading.acquire(blocking=False):
            try:
                self._look_again = self._clock() + _LOOK_EVERY_SECONDS
                self._reload_if_changed()
            finally:
                self._reloading.release()
        return self._entries

    def _reload_if_changed(self) -> None:
        assert self._path is not None
        try:
            now: Signature | None = credential_file.signature(self._path.stat())
        except OSError:
            now = None
        if now == self._signature:
            return
        self._signature = now
        try:
            entries = parse(self._read())
            # Only what is new is tried: what was there before was tried before.
            credential_file.refuse_well_known_passwords(set(entries.values()) - set(self._entries.values()))
        except Misconfigured as error:
            self._problem = f"{error.detail} The credentials read before stay in force."
            _log.error("%s: %s", self._origin, self._problem)
            return
        self._use(entries)
        self._problem = None

    def _read(self) -> str:
        assert self._path is not None
        text, self._signature = credential_file.read(self._path)
        return text

    def _use(self, entries: Mapping[str, Entry]) -> None:
        costs = [int(entry.password_hash[4:6]) for entry in entries.values() if entry.password_hash is not None]
        self._nobody = (_NOBODY % max(costs, default=10)).encode()
        self._entries = entries
        self._remembered.clear()

    def _stop(self, error: Misconfigured) -> Misconfigured:
        command = "postqueue-api credential admin --role admin --role content --file "
        if self._path is None:
            way_out = f"{command}FILE makes such a text."
        else:
            way_out = f"To make a credential: {command}{shlex.quote(str(self._path))}"
            if not self._path.exists():
                way_out = f"Its text can come from a secret, as {variable('credentials')}. {way_out}"
        return Misconfigured(f"{self._origin}: {error.detail} {way_out}")


class _Remembered:
    """Passwords found right within the last minute, as keyed hashes; the key lives and dies with the process."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._secret = secrets.token_bytes(32)
        self._until: dict[bytes, float] = {}
        self._lock = threading.Lock()

    def key(self, entry: Entry, password: bytes) -> bytes:
        assert entry.password_hash is not None
        # Neither a name nor a bcrypt hash holds a NUL, so the three parts cannot run into each other.
        parts = b"\0".join((entry.principal.name.encode(), entry.password_hash, password))
        return hashlib.blake2b(parts, key=self._secret, digest_size=32).digest()

    def __contains__(self, key: bytes) -> bool:
        return self._until.get(key, 0.0) > self._clock()

    def add(self, key: bytes) -> None:
        with self._lock:
            if len(self._until) >= _REMEMBER_PASSWORDS:
                self._until.clear()
            self._until[key] = self._clock() + _REMEMBER_SECONDS

    def clear(self) -> None:
        with self._lock:
            self._until.clear()
