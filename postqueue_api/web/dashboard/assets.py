"""The one script, the one stylesheet and the icon, made once from the files of their parts.

dashboard.js and dashboard.css come first. Each further `<part>.js` exports `start(dashboard)`, which is called once;
its names are its own. The address holds a digest of all of it, so browsers may keep the files for ever.
"""

import gzip
import hashlib
import re
from importlib import resources

from flask import Blueprint, Response, request, url_for
from werkzeug.exceptions import NotFound

assets = Blueprint("assets", __name__)

KINDS = {"dashboard.js": "text/javascript", "dashboard.css": "text/css", "icon.svg": "image/svg+xml"}


_TEXT = re.compile(rb"""("(?:\\.|[^"\\])*"|`[^`]*`)""")


def _read(name: str) -> bytes:
    """A file without its indentation; a script and a stylesheet without their comments and needless spaces."""
    lines = [line.strip() for line in resources.files(__package__).joinpath("static", name).read_bytes().splitlines()]
    if name.endswith(".css"):
        lines = [re.sub(rb"(?<=[:;,{}]) +| +(?=[{}])", b"", re.sub(rb" */\*.*?\*/", b"", line)) for line in lines]
    if name.endswith(".js"):
        lines = [_squeezed(line) for line in lines]
    ends = (b";", b"{", b"}", b",") if name.endswith(".css") else (b";", b"{", b",")
    return b"".join(line if line.endswith(ends) else line + b"\n" for line in lines if line)


def _squeezed(line: bytes) -> bytes:
    """A line of a script without its comment and without the spaces that only people need; its texts as they are.

    Of two signs the second keeps its space, because + + is another operator than ++.
    """
    parts = _TEXT.split(re.sub(rb"^//.*|(?<=[;{]) // .*", b"", line))
    parts[::2] = [re.sub(rb" ?([=<>!?:&|*/,;(){}\[\]]|[+-](?! ?[+-])) ?", rb"\1", part) for part in parts[::2]]
    return b"".join(parts)


def _parts(suffix: str) -> list[str]:
    names = sorted(each.name for each in resources.files(__package__).joinpath("static").iterdir())
    return [name for name in names if name.endswith(suffix) and name not in KINDS]


def _script() -> bytes:
    """The core, which calls start() of each part that `parts` holds."""
    parts = b"".join(
        b"parts.push((() => {\n%b\nreturn start; })());\n" % _read(name).replace(b"export ", b"")
        for name in _parts(".js")
    )
    return b"const parts = [];\n" + parts + _read("dashboard.js")


# Read at import, so that they can be served when the disk cannot be reached any more.
FILES = {
    "dashboard.js": _script(),
    "dashboard.css": b"".join(_read(name) for name in ("dashboard.css", *_parts(".css"))),
    "icon.svg": _read("icon.svg"),
}
VERSION = hashlib.sha256(b"".join(FILES.values())).hexdigest()[:12]
# Only these: a page has a token beside text that whoever sends mail chooses, and their compressed length would tell it.
_COMPRESSED = {name: gzip.compress(content, mtime=0) for name, content in FILES.items()}


def address(name: str) -> str:
    """Where a file is."""
    return url_for("dashboard.assets.show_asset", version=VERSION, name=name)


@assets.get("/dashboard/<version>/<name>")
def show_asset(version: str, name: str) -> Response:
    """One file. A page of the version before gets what there is now, and does not keep it."""
    if name not in FILES:
        raise NotFound
    response = Response(FILES[name], mimetype=KINDS[name])
    if request.accept_encodings["gzip"] > 0:
        response.data = _COMPRESSED[name]
        response.content_encoding = "gzip"
    response.vary.add("Accept-Encoding")
    response.headers["Cache-Control"] = "public, max-age=31536000, immutable" if version == VERSION else "no-cache"
    return response
