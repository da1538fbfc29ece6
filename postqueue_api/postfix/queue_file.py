"""Find a queue file and read its envelope from its records, without a command.

A queue file is a sequence of records: a type byte, a length in groups of seven bits, a payload. What is
read here cannot be forged by text in the mail, as the output of postcat can: a newline in a payload stays
in its payload.

Only reading. A file that is being written, cut or damaged gives what could be read, marked as not trusted,
and reading always ends.

Source:   Postfix 3.7.11, src/global/rec_type.h, record.c, rec_attr_map.c; src/qmgr/qmgr_message.c for what counts when
"""

import io
import os
import stat as modes
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO, NamedTuple, cast

import msgspec

QUEUE_NAMES = ("maildrop", "incoming", "active", "deferred", "hold")
HASH_CHARACTERS = "0123456789ABCDEF"
HASH_DEPTH_LIMIT = 5  # the microseconds in a queue ID have five hexadecimal digits
_DIGITS = {digit: value for value, digit in enumerate("0123456789BCDFGHJKLMNPQRSTVWXYZbcdfghjklmnpqrstvwxyz")}

WINDOW_BYTES = 16384
GLANCE_BYTES = 4096  # where nearly every file has its first recipient
RECORD_LIMIT_BYTES = 1 << 20
ENVELOPE_LIMIT_BYTES = 64 << 20
ENVELOPE_LIMIT_RECORDS = 400_000
CONTENT_LIMIT_RECORDS = 1_000_000  # read one by one in maildrop only, where no size record says how far to seek
JUMPS_LIMIT = 20_000  # Postfix itself gives up after 10,000 jumps backwards
IDENTITY_LIMIT_RECORDS = 100

_FIRST = b"CT"
_ENVELOPE = b"CTcFILSDRO/WVA>K<ion"
_TIME, _SENDER, _RECIPIENT = b"TSR"
_EXTRACTED = b"DRO/PreAFIL>Kon"
_NOTIFY = {1: "NEVER", 2: "SUCCESS", 4: "FAILURE", 8: "DELAY"}
_NOTIFY_FLAGS = frozenset(str(flags) for flags in range(1, 16))
_RET = {"1": "FULL", "2": "HDRS"}


class Found(NamedTuple):
    """Where a queue file is. It may have moved since: Postfix moves files at any time but in hold.

    `place` is its path as a text, since a Path takes longer to make than the file to be found.
    """

    queue_name: str
    place: str
    stat: os.stat_result

    @property
    def path(self) -> Path:
        """The same as a Path."""
        return Path(self.place)


class Identity(msgspec.Struct, frozen=True):
    """What tells two messages of one queue ID apart. `sender` as in the file: empty for the null sender."""

    arrival_time: int
    sender: str


class Recipient(msgspec.Struct, frozen=True):
    """One recipient. `orcpt` is what ORCPT= named, decoded, and may hold any character, newlines too."""

    address: str
    original_address: str | None = None
    orcpt: str | None = None
    notify: tuple[str, ...] = ()


class Envelope(msgspec.Struct, frozen=True):
    """The envelope of a message. `trusted`: the structure was whole, from the first record to the end record.

    message_size is what `postqueue -j` says, None when the file does not say (maildrop: there it says the
    size of the file); content_size is what is delivered: it differs where a Milter replaced text. Times are
    seconds since the epoch. `attributes`: all others, as the file names them. What could not be read is
    None or missing; that is the case only when not trusted, or in maildrop.
    """

    trusted: bool
    arrival_time: int | None
    create_time: int | None
    sender: str | None
    recipients: list[Recipient]
    done_recipients: list[Recipient]
    cancelled_recipients: list[Recipient]
    message_size: int | None
    content_size: int | None
    dsn_envid: str | None
    dsn_ret: str | None
    content_filter: str | None
    redirect_address: str | None
    attributes: dict[str, str]


class _Broken(Exception):
    """The structure does not hold from here on."""


def is_ready(stat: os.stat_result) -> bool:
    """Whether the file is complete: the owner's execute bit comes last (mail_queue.h, MAIL_QUEUE_STAT_READY)."""
    return modes.S_ISREG(stat.st_mode) and stat.st_mode & modes.S_IRWXU == modes.S_IRWXU


def is_force_expired(stat: os.stat_result) -> bool:
    """Whether `postsuper -e` or `-f` marked it: the group's execute bit, 0710 for 0700."""
    return bool(stat.st_mode & modes.S_IXGRP)


def find(queue_directory: Path, queue_id: str, queue_names: Sequence[str] = QUEUE_NAMES) -> Found | None:
    """Look for the file of a (checked) queue ID; look twice before saying that there is none, since mail moves.

    Looks where it should be, most likely on hold or deferred, and then in each queue and in the hash directories that
    are there, whatever hash_queue_depth is or was, in the order in which mail moves.

    Raises:   PermissionError: not to be allowed to look is not the same as not there
    Source:   postconf(5), hash_queue_names and hash_queue_depth; src/global/mail_queue.c
    """
    for look, names in ((_guess, reversed(queue_names)), (_walk, queue_names), (_walk, queue_names)):
        for queue_name in names:
            found = look(f"{queue_directory}/{queue_name}", queue_id)
            if found is not None:
                return Found(queue_name, *found)
    return None


def hash_directory(queue_id: str) -> str:
    """The hash directory of a queue ID at the default depth, 1. Source: postconf(5), hash_queue_depth"""
    return hash_digits(queue_id)[0]


def hash_digits(queue_id: str) -> str:
    """The names of its hash directories, one below the other, each of one character.

    Source: postconf(5), hash_queue_depth; src/global/mail_queue.h: long IDs are hashed by their microseconds
    """
    inode_at = queue_id.rfind("z")
    if inode_at < 4:
        return queue_id[:HASH_DEPTH_LIMIT]
    microseconds = 0
    for digit in queue_id[inode_at - 4 : inode_at]:
        microseconds = microseconds * 52 + _DIGITS.get(digit, 0)
    return f"{microseconds:05X}"


def _guess(queue: str, queue_id: str) -> tuple[str, os.stat_result] | None:
    """Look where it is by default. A look that fails costs half of a stat that fails, and says no also when it may not
    look: so the next look is another one."""
    directories = (f"{queue}/{hash_directory(queue_id)}", queue) if queue.endswith("/deferred") else (queue,)
    for directory in directories:
        path = f"{directory}/{queue_id}"
        if os.access(path, os.F_OK) and (status := _stat(path)) is not None and modes.S_ISREG(status.st_mode):
            return path, status
    return None


def _walk(queue: str, queue_id: str) -> tuple[str, os.stat_result] | None:
    """Breadth first. Two links mean no directory inside; where the file system does not count them, there is one."""
    directories = [queue]
    for _ in range(HASH_DEPTH_LIMIT + 1):
        for directory in directories:
            path = f"{directory}/{queue_id}"
            if (status := _stat(path)) is not None and modes.S_ISREG(status.st_mode):
                return path, status
        parents = [name for name in directories if (status := _stat(name)) is not None and status.st_nlink != 2]
        directories = [f"{parent}/{character}" for parent in parents for character in HASH_CHARACTERS]
        if not directories:
            break
    return None


def _stat(path: str) -> os.stat_result | None:
    try:
        return os.lstat(path)
    except (FileNotFoundError, NotADirectoryError):
        return None


def read_identity(path: Path | str) -> Identity | None:
    """Read arrival time and sender from the first records; None when the file is gone or does not say both.

    Raises:   OSError, other than that the file is not there
    """
    try:
        with open_file(path) as file:
            return _quick_glance(file) or _identity(_Records(file, IDENTITY_LIMIT_RECORDS))
    except (FileNotFoundError, _Broken):
        return None


def open_file(path: Path | str, *, to_lock: bool = False) -> BinaryIO:
    """Open to read. Never waits, and never follows a link: what is named like a queue file need not be one.

    `to_lock`: for an exclusive lock; NFS gives none on a file that is not open to write (fs/nfs/file.c, EBADF).

    Raises:   OSError
    """
    flags = (os.O_RDWR if to_lock else os.O_RDONLY) | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
    return cast(BinaryIO, io.FileIO(os.open(path, flags), "r+" if to_lock else "r"))


def _identity(records: "_Records") -> Identity | None:
    arrival_time: int | None = None
    sender: str | None = None
    while arrival_time is None or sender is None:
        kind, payload = records.read()
        if kind in b"MXE":
            return None
        if kind == b"T" and arrival_time is None:
            arrival_time = _seconds(payload)
        elif kind == b"S" and sender is None:
            sender = _text(payload)
    return Identity(arrival_time, sender)


def glance(file: BinaryIO) -> tuple[Identity | None, bool]:
    """Who a message is, and whether it has a recipient that is still due; quick where the file is as most are.

    A file that cannot be read to its end may have such recipients.

    Raises:   OSError
    """
    if (identity := _quick_glance(file)) is not None:
        return identity, True
    envelope = read_envelope(file)
    if envelope.arrival_time is not None and envelope.sender is not None:
        identity = Identity(envelope.arrival_time, envelope.sender)
    return identity, bool(envelope.recipients) or not envelope.trusted


def _quick_glance(file: BinaryIO) -> Identity | None:
    """Who a message is that has a recipient who is due; None where that takes a closer look."""
    try:
        return _glance(os.pread(file.fileno(), GLANCE_BYTES, 0))
    except IndexError:
        return None


def _glance(head: bytes) -> Identity | None:
    """Read up to the first recipient that is due, where only short records come before it; else None.

    Raises:   IndexError when there is none in these bytes
    """
    arrival_time: int | None = None
    sender: str | None = None
    at = 0
    while True:
        kind, length = head[at], head[at + 1]
        start, at = at + 2, at + 2 + length
        if kind not in _ENVELOPE or length >= 0x80:
            return None
        if kind == _TIME and arrival_time is None:
            arrival_time = _seconds(head[start:at])
        elif kind == _SENDER and sender is None:
            sender = _text(head[start:at])
        elif kind == _RECIPIENT:
            return None if arrival_time is None or sender is None else Identity(arrival_time, sender)


def read_envelope(source: Path | BinaryIO) -> Envelope:
    """Read the envelope of a queue file, or as much of it as its structure allows; the content is stepped over.

    Raises:   OSError: the file cannot be opened or read
    Source:   src/qmgr/qmgr_message.c: the first time and sender count, the last encoding, filter and redirection
    """
    if isinstance(source, Path):
        with open_file(source) as file:
            return read_envelope(file)
    reading = _Reading(_Records(source, ENVELOPE_LIMIT_RECORDS))
    try:
        reading.run()
    except _Broken:
        reading.whole = False
    return reading.envelope()


class _Records:
    """The records of one file in the order in which Postfix reads them: pointers followed, deleted text left out."""

    def __init__(self, file: BinaryIO, limit: int) -> None:
        self.file, self.left = file, limit
        self.size = file.seek(0, os.SEEK_END)
        self.offset = self.start = self.total = 0
        self.window = b""
        self.jumps: set[int] = set()

    def read(self) -> tuple[bytes, bytes]:
        """The next record as type and payload."""
        while True:
            at = self.offset
            kind, payload = self._short_record() or self._record()
            if kind == b"p":
                self._follow(at, payload)
            elif kind != b"w":
                return kind, payload

    def _short_record(self) -> tuple[bytes, bytes] | None:
        """A record as nearly all are: below 128 bytes, and in the window. Else None; then nothing was read."""
        window, at = self.window, self.offset - self.start
        if not 0 <= at < len(window) - 1 or (length := window[at + 1]) >= 0x80:
            return None
        end = at + 2 + length
        if end > len(window) or self.left <= 0 or self.total + length > ENVELOPE_LIMIT_BYTES:
            return None
        self.left -= 1
        self.total += length
        self.offset += 2 + length
        return window[at : at + 1], window[at + 2 : end]

    def _record(self) -> tuple[bytes, bytes]:
        self.left -= 1
        head = self._peek(6)
        length = shift = 0
        for position in range(1, len(head)):
            length |= (head[position] & 0x7F) << shift
            shift += 7
            if head[position] < 0x80:
                return head[:1], self._payload(position + 1, length)
        raise _Broken

    def _payload(self, head: int, length: int) -> bytes:
        self.total += length
        if length > RECORD_LIMIT_BYTES or self.total > ENVELOPE_LIMIT_BYTES or self.left < 0:
            raise _Broken
        payload = self._peek(head + length)[head:]
        if len(payload) < length:
            raise _Broken
        self.offset += head + length
        return payload

    def _peek(self, length: int) -> bytes:
        at = self.offset - self.start
        if at < 0 or at + length > len(self.window):
            self.file.seek(self.offset)
            room = max(0, self.size - self.offset)
            self.window, self.start, at = self.file.read(min(room, max(length, WINDOW_BYTES))), self.offset, 0
        return self.window[at : at + length]

    def _follow(self, at: int, payload: bytes) -> None:
        """Zero is a place kept free. The same jump twice is a loop: where a jump leads depends on nothing else."""
        target = _number(payload)
        if target is None or target >= self.size or at in self.jumps or len(self.jumps) >= JUMPS_LIMIT:
            raise _Broken
        if target:
            self.jumps.add(at)
            self.offset = target


class _Reading:
    """An envelope in the making."""

    def __init__(self, records: _Records) -> None:
        self.records, self.whole = records, True
        self.sizes: tuple[int, int, int] | None = None
        self.times: dict[bytes, int] = {}
        self.texts: dict[bytes, str] = {}
        self.attributes: dict[str, str] = {}
        self.pending: dict[str, str] = {}
        self.recipients: dict[bytes, list[Recipient]] = {b"R": [], b"D": [], b"/": []}

    def run(self) -> None:
        kind, payload = self.records.read()
        if kind not in _FIRST:
            raise _Broken
        while kind != b"M":
            self._take(kind, payload, _ENVELOPE)
            kind, payload = self.records.read()
        self._skip_content()
        kind, payload = self.records.read()
        while kind != b"E":
            self._take(kind, payload, _EXTRACTED)
            kind, payload = self.records.read()
        self.whole = self.whole and b"T" in self.times and b"S" in self.texts

    def _skip_content(self) -> None:
        """Seek over the content, as qmgr does; where no size record says how far, step over its lines."""
        if self.sizes is not None:
            if self.records.offset != self.sizes[1]:
                raise _Broken
            self.records.offset += self.sizes[0]
            if self.records.read()[0] != b"X":
                raise _Broken
            return
        left, self.records.left = self.records.left, CONTENT_LIMIT_RECORDS
        while (kind := self.records.read()[0]) != b"X":
            self.records.total = 0
            if kind not in b"NL":
                raise _Broken
        self.records.left = left

    def _take(self, kind: bytes, payload: bytes, allowed: bytes) -> None:
        if kind not in allowed:
            self.whole = False
        elif kind in self.recipients:
            self._take_recipient(kind, _text(payload))
        elif kind == b"A":
            self._take_attribute(*_attribute(payload))
        elif kind == b"C":
            self._take_sizes(payload)
        elif kind == b"T":
            self._take_time(b"T", payload)
        elif kind == b"O":
            self.pending["O"] = _text(payload)
        elif kind in b"L>":
            self.texts[kind] = _text(payload)
        elif kind in b"SF":
            self.texts.setdefault(kind, _text(payload))

    def _take_recipient(self, kind: bytes, address: str) -> None:
        bits, self.pending, pending = self.pending.get("notify_flags", ""), {}, self.pending
        flags = int(bits) if bits in _NOTIFY_FLAGS else 0
        notify = tuple(name for bit, name in _NOTIFY.items() if flags & bit)
        recipient = Recipient(address, pending.get("O") or None, pending.get("dsn_orig_rcpt") or None, notify)
        self.recipients[kind].append(recipient)

    def _take_attribute(self, name: str, value: str) -> None:
        if not name:
            self.whole = False
        elif name in ("notify_flags", "dsn_orig_rcpt"):
            self.pending[name] = value
        elif name == "create_time":
            self._take_time(b"c", value.encode())
        elif name == "encoding":
            self.attributes[name] = value
        else:
            self.attributes.setdefault(name, value)

    def _take_time(self, kind: bytes, payload: bytes) -> None:
        seconds = _seconds(payload)
        if seconds is None:
            self.whole = False
        else:
            self.times.setdefault(kind, seconds)

    def _take_sizes(self, payload: bytes) -> None:
        """Size of the content on disk, where it begins, and its size with all replacements (0 before Postfix 2.4)."""
        numbers = [_number(word) for word in payload.split()[:5]]
        size, offset = [*numbers, None, None][:2]
        content = numbers[4] if len(numbers) > 4 else size
        if not size or not offset or content is None or size + offset > self.records.size:
            self.whole = False
        elif self.sizes is None:
            self.sizes = size, offset, content or size

    def envelope(self) -> Envelope:
        attributes = dict(self.attributes)
        envid, ret = attributes.pop("envelope_id", None), attributes.pop("ret_flags", "")
        return Envelope(
            trusted=self.whole,
            arrival_time=self.times.get(b"T"),
            create_time=self.times.get(b"c"),
            sender=self.texts.get(b"S"),
            recipients=self.recipients[b"R"],
            done_recipients=self.recipients[b"D"],
            cancelled_recipients=self.recipients[b"/"],
            message_size=self.sizes[0] if self.sizes else None,
            content_size=self.sizes[2] if self.sizes else None,
            dsn_envid=envid,
            dsn_ret=_RET.get(ret),
            content_filter=self.texts.get(b"L"),
            redirect_address=self.texts.get(b">"),
            attributes=attributes,
        )


def _text(payload: bytes) -> str:
    """A payload as Postfix takes it: up to the first NUL."""
    return (payload.partition(b"\0")[0] if b"\0" in payload else payload).decode("utf-8", "replace")


def _number(text: bytes) -> int | None:
    text = text.strip()
    return int(text) if text.isdigit() and len(text) < 19 else None


def _seconds(payload: bytes) -> int | None:
    """Whole seconds of a time record, `seconds microseconds`."""
    return _number(payload.partition(b" ")[0])


def _attribute(payload: bytes) -> tuple[str, str]:
    """Name and value; an empty name when it is no attribute (src/util/split_nameval.c)."""
    name, equals, value = _text(payload).partition("=")
    return (name.strip() if equals else ""), value.strip(" \t\r\n")
