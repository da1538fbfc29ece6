"""Read a message for a person: decoded headers, text parts, and a list of what is attached.

Pure functions of the bytes as Postfix stores them (lines end in LF). Nothing a sender can write raises,
recurses or grows without bound. Python's own MIME parser recurses per level (3,000 nested parts:
RecursionError, 3.11), so here a part is a range of the bytes, and `email` reads only the parameters of one
bounded header value. All text that is returned can be encoded as UTF-8.

Not opened: attachments, and message/rfc822 and its kin, which are listed as attachments with their size.
Text is never rendered: HTML is delivered as its source, with its content_type.

Source:   RFC 2045, 2046, 2047, 2231, 5322
"""

import binascii
import codecs
import re
from collections.abc import Iterator
from email.message import Message
from itertools import islice

import msgspec

HEADERS_LIMIT = 1000
HEADERS_LIMIT_BYTES = 256 << 10
PARTS_LIMIT = 1000
PARTS_HEADERS_LIMIT_BYTES = 1 << 20
DEPTH_LIMIT = 50
TEXT_LIMIT_BYTES = 1 << 20
VALUE_LIMIT = 1024  # characters of a header whose parameters are read: reading them takes quadratic time

_FIELD = re.compile(rb"([!-9;-~]+)[ \t]*:")
_EMPTY_LINE = re.compile(rb"\n\r?\n")
_NEWLINE = re.compile(rb"\r?\n")
_WORD = re.compile(r"=\?([^?\s]{1,64})\?([bBqQ])\?([^?]*)\?=")
_UNSEEN = re.compile("[\0-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
_SURROGATES = re.compile("[\ud800-\udfff]")
_TEXT_TYPES = ("message/delivery-status", "message/disposition-notification")
# By name, for three reasons: Python knows codecs that are no charsets (rot13, zlib, unicode_escape), some
# take quadratic time (punycode), and it remembers each unknown name for ever.
_CHARSETS = re.compile(
    r"utf-?(?:7|8|16|16-?[bl]e|32|32-?[bl]e)|iso-?8859-\d{1,2}(?:-[ei])?|latin-?\d{1,2}|windows-\d{3,4}|(?:cp-?|ibm)\d{3,4}"
    r"|koi8-[rtu]|kz-?1048|ptcp154|tis-?620|mac-?(?:cyrillic|greek|iceland|latin2|roman|turkish)|macintosh"
    r"|gb-?2312|gbk|gb-?18030|hz(?:-gb-2312)?|big5(?:-hkscs)?|euc-?(?:cn|jp|kr)|s(?:hift)?-?jis(?:-2004|x0213)?"
    r"|iso-2022-(?:jp(?:-[123]|-ext|-2004)?|kr)|ks-c-5601(?:-1987)?|johab"
)


class Header(msgspec.Struct, frozen=True):
    """One header, decoded and unfolded, on one line. The name is empty for a line that is no header."""

    name: str
    value: str


class Headers(msgspec.Struct, frozen=True):
    """Headers in their order, duplicates kept. `truncated`: there were more, or longer ones."""

    headers: list[Header]
    truncated: bool


class TextPart(msgspec.Struct, frozen=True):
    """A part to be read. `charset` as declared; where there is no such charset the text was read as UTF-8."""

    content_type: str
    charset: str | None
    text: str
    truncated: bool


class Attachment(msgspec.Struct, frozen=True):
    """A part that is not opened. `size`: bytes after transfer decoding."""

    filename: str | None
    content_type: str
    size: int
    content_id: str | None


class Body(msgspec.Struct, frozen=True):
    """The parts of a message in their order. `truncated`: parts or text were left out because of a limit."""

    texts: list[TextPart]
    attachments: list[Attachment]
    truncated: bool


def split(raw: bytes) -> tuple[bytes, bytes]:
    """Divide a message at its first empty line into header block and body."""
    return raw[: _head_end(raw, 0, len(raw))], raw[_body_start(raw, 0, len(raw)) :]


def headers(raw_header_block: bytes) -> Headers:
    """Decode a header block: RFC 2047 words, raw UTF-8; what cannot be seen or decoded becomes U+FFFD."""
    block = raw_header_block[:HEADERS_LIMIT_BYTES]
    fields = _fields(block)
    found = [Header(name, _shown(_words(_utf8(value)))) for name, value in fields[:HEADERS_LIMIT]]
    return Headers(found, len(fields) > HEADERS_LIMIT or len(raw_header_block) > HEADERS_LIMIT_BYTES)


def body(raw: bytes) -> Body:
    """Find the text parts and the attachments of a whole message, header block included.

    Text is what is text/* (or a delivery status) and neither named nor called an attachment, and a
    multipart that names no boundary, or none that is in it. Preamble and epilogue of a multipart are left
    out, as mail programs do. Where the last boundary is missing, a part ends where the part around it ends.
    """
    reading = _Reading(raw)
    pending = [_Part(0, len(raw), 0, "text/plain")]
    while pending and reading.parts_left > 0 and reading.headers_left > 0:
        pending.extend(reversed(reading.take(pending.pop())))
    return Body(reading.texts, reading.attachments, reading.truncated or bool(pending))


class _Part(msgspec.Struct, frozen=True):
    """A range of the message, header included."""

    start: int
    end: int
    depth: int
    default_type: str


class _Reading:
    """The parts found so far, and what is left of each limit."""

    def __init__(self, raw: bytes) -> None:
        self.raw, self.truncated = raw, False
        self.parts_left, self.text_left = PARTS_LIMIT, TEXT_LIMIT_BYTES
        self.headers_left = PARTS_HEADERS_LIMIT_BYTES
        self.texts: list[TextPart] = []
        self.attachments: list[Attachment] = []

    def take(self, part: _Part) -> list[_Part]:
        """Keep one part, or return the parts in it."""
        self.parts_left -= 1
        end = min(_head_end(self.raw, part.start, part.end), part.start + self.headers_left)
        self.headers_left -= end - part.start
        description = _Description(_fields(self.raw[part.start : end]), part.default_type)
        start = _body_start(self.raw, part.start, part.end)
        boundary = description.boundary()
        if not boundary or self.raw.find(b"--" + boundary, start, part.end) < 0:
            self._keep(description, self.raw[start : part.end])
            return []
        if part.depth >= DEPTH_LIMIT:
            self.truncated = True
            self.attachments.append(Attachment(None, description.content_type, part.end - start, None))
            return []
        default = "message/rfc822" if description.content_type == "multipart/digest" else "text/plain"
        ranges = _ranges(self.raw, start, part.end, boundary)
        return [_Part(*found, part.depth + 1, default) for found in islice(ranges, self.parts_left + 1)]

    def _keep(self, description: "_Description", encoded: bytes) -> None:
        content = _transferred(encoded, description.encoding)
        if not description.is_text():
            found = Attachment(description.filename, description.content_type, len(content), description.content_id)
            self.attachments.append(found)
            return
        cut = len(content) > self.text_left
        text = _decoded(content[: self.text_left], description.charset, final=not cut)
        self.text_left -= min(len(content), self.text_left)
        self.truncated = self.truncated or cut
        self.texts.append(TextPart(description.content_type, description.charset, text, cut))


class _Description:
    """What the header of a part says about it; the first of equal headers counts."""

    def __init__(self, fields: list[tuple[str, bytes]], default_type: str) -> None:
        values: dict[str, str] = {}
        for name, value in fields:
            values.setdefault(name.lower(), _utf8(value)[:VALUE_LIMIT])
        declared, self.parameters = _parameters(values.get("content-type", default_type))
        self.content_type = _shown(declared) if declared.count("/") == 1 else "text/plain"
        self.disposition, disposed = _parameters(values.get("content-disposition", ""))
        self.encoding = values.get("content-transfer-encoding", "").strip().lower()
        charset = self.parameters.get("charset")
        self.charset = _shown(charset) if charset else None
        filename = disposed.get("filename") or self.parameters.get("name")
        self.filename = _shown(_words(filename)) if filename else None
        content_id = values.get("content-id", "").strip()
        self.content_id = _shown(content_id).removeprefix("<").removesuffix(">") if content_id else None

    def boundary(self) -> bytes:
        """The boundary of a multipart; empty when it is no multipart, or names none."""
        if not self.content_type.startswith("multipart/"):
            return b""
        return self.parameters.get("boundary", "").rstrip().encode("utf-8", "surrogateescape")

    def is_text(self) -> bool:
        if self.content_type.startswith("multipart/"):
            return True
        if self.disposition == "attachment" or self.filename is not None:
            return False
        return self.content_type.startswith("text/") or self.content_type in _TEXT_TYPES


def _head_end(raw: bytes, start: int, end: int) -> int:
    """Where the header of a part ends, its last newline included."""
    if raw.startswith((b"\n", b"\r\n"), start, end):
        return start
    found = _EMPTY_LINE.search(raw, start, end)
    return found.start() + 1 if found else end


def _body_start(raw: bytes, start: int, end: int) -> int:
    found = _NEWLINE.match(raw, _head_end(raw, start, end), end)
    return found.end() if found else end


def _fields(block: bytes) -> list[tuple[str, bytes]]:
    """Names and raw values, unfolded. Postfix keeps any line, so one that is no header is kept without a name."""
    lines: list[list[bytes]] = []
    for line in block.removesuffix(b"\n").split(b"\n") if block else []:
        line = line.removesuffix(b"\r")
        if lines and line[:1] in (b" ", b"\t"):
            lines[-1].append(line)
        else:
            lines.append([line])
    return [_field(b"".join(folded)) for folded in lines]


def _field(line: bytes) -> tuple[str, bytes]:
    found = _FIELD.match(line)
    return (found[1].decode("ascii"), line[found.end() :].strip(b" \t")) if found else ("", line)


def _ranges(raw: bytes, start: int, end: int, boundary: bytes) -> Iterator[tuple[int, int]]:
    """The parts between lines of one boundary; a line that only begins like it is content."""
    delimiter = re.compile(rb"\n--" + re.escape(boundary) + rb"(--)?[ \t\r]*(?=\n|\Z)")
    part: int | None = None
    for found in delimiter.finditer(raw, max(start - 1, 0), end):  # a body begins after a newline
        if part is not None:
            yield part, max(found.start(), part)
        if found[1]:
            return
        part = min(found.end() + 1, end)
    if part is not None:
        yield part, end


def _parameters(value: str) -> tuple[str, dict[str, str]]:
    """The first word of a structured header in lower case, and its parameters by name, the first of equal ones."""
    message = Message()
    message["Content-Type"] = value
    parameters: dict[str, str] = {}
    try:
        found = message.get_params(failobj=[])
    except ValueError:
        found = [(value.partition(";")[0], "")]
    for name, text in found[1:]:
        if isinstance(text, tuple):
            text = _decoded(text[2].encode("latin-1", "replace"), text[0])
        parameters.setdefault(name.lower(), text)
    return found[0][0].strip().lower() if found else "", parameters


def _transferred(encoded: bytes, encoding: str) -> bytes:
    """Undo a transfer encoding, as far as it can be undone."""
    if encoding == "quoted-printable":
        return binascii.a2b_qp(encoded)
    return _base64(encoded) if encoding == "base64" else encoded


def _base64(encoded: bytes) -> bytes:
    try:
        return binascii.a2b_base64(encoded)
    except binascii.Error:
        letters = re.sub(rb"[^A-Za-z0-9+/]", b"", encoded)
        letters = letters[:-1] if len(letters) % 4 == 1 else letters
        return binascii.a2b_base64(letters + b"=" * (-len(letters) % 4))


def _decoded(content: bytes | bytearray, charset: str | None, *, final: bool = True) -> str:
    """Text in a declared charset; UTF-8 where it is none, and for ASCII, of which it is the superset."""
    try:
        text = codecs.getincrementaldecoder(_codec(charset or ""))("replace").decode(content, final)
    except UnicodeError:
        text = content.decode("utf-8", "replace")
    return _SURROGATES.sub("\ufffd", text)


def _codec(charset: str) -> str:
    name = charset.lower().replace("_", "-")
    try:
        return codecs.lookup(name).name if name.isascii() and _CHARSETS.fullmatch(name) else "utf-8"
    except LookupError:
        return "utf-8"


def _utf8(value: bytes) -> str:
    """A raw header value; bytes that are no UTF-8 stay apart as surrogates until it is shown."""
    return value.decode("utf-8", "surrogateescape")


def _words(value: str) -> str:
    """Decode RFC 2047 words; those that stand together are joined before decoding, since some split characters."""
    result: list[str] = []
    charset, content, end = "", bytearray(), 0
    for word in _WORD.finditer(value):
        between = value[end : word.start()]
        named = word[1].partition("*")[0].lower()
        if between.strip() or not end or named != charset:
            result += [_decoded(content, charset), between if between.strip() or not end else ""]
            charset, content = named, bytearray()
        content += _word(word[2], word[3])
        end = word.end()
    return "".join([*result, _decoded(content, charset), value[end:]])


def _word(encoding: str, text: str) -> bytes:
    encoded = text.encode("utf-8", "surrogateescape")
    return _base64(encoded) if encoding in "bB" else binascii.a2b_qp(encoded, header=True)


def _shown(text: str) -> str:
    """On one line, and nothing in it that hides, reorders or cannot be encoded."""
    return _UNSEEN.sub("\ufffd", text.replace("\t", " "))
