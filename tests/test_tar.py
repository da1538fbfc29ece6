"""Tar archives, strictly: what real tools and hostile hands make, as Python's own module writes it."""

import io
import tarfile

import pytest

from postqueue_api.agent import tar
from postqueue_api.errors import InvalidArgument, PayloadTooLarge

LIMIT = 1 << 20
SIZES = (0, 1, 511, 512, 513, 70_000)


def ours() -> bytes:
    """An archive of files of all sizes that matter."""
    made = b"".join(
        tar.header(f"{size:09d}-4jY8mb6KfzzCSpf.queue", size, 1_700_000_000) + b"x" * size + tar.padding(size)
        for size in SIZES
    )
    return made + tar.END


def read(content: bytes, limit: int = LIMIT) -> dict[str, bytes]:
    archive = tar.Archive(io.BytesIO(content), limit)
    found = {}
    while (member := archive.next()) is not None:
        found[member.name] = b"".join(archive.read())
    return found


def made(*members: tuple[tarfile.TarInfo, bytes], form: int = tarfile.USTAR_FORMAT) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=form) as archive:
        for info, content in members:
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


def of_type(kind: bytes, **members: object) -> bytes:
    info = tarfile.TarInfo("000000001-4jY8mb6KfzzCSpf.queue")
    info.type = kind
    for name, value in members.items():
        setattr(info, name, value)
    return made((info, b""))


def with_size(field: bytes) -> bytes:
    """A header whose size field says that, with a checksum that fits."""
    block = bytearray(tar.header("x", 0, 0))
    block[124:136] = field.ljust(12, b"\0")
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block) + tar.END


def test_what_we_write_python_reads_and_we_do() -> None:
    with tarfile.open(fileobj=io.BytesIO(ours())) as archive:
        assert [(each.size, each.mode, each.uid, each.isreg()) for each in archive] == [
            (size, 0o600, 0, True) for size in SIZES
        ]
    assert list(map(len, read(ours()).values())) == list(SIZES)


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_what_python_writes_we_read_and_zeros_may_fill_a_record(form: int) -> None:
    content = made((tarfile.TarInfo("a.json"), b"{}"), (tarfile.TarInfo("a.queue"), b"x" * 1000), form=form)
    assert len(content) == 10240
    assert read(content) == {"a.json": b"{}", "a.queue": b"x" * 1000}


def test_a_file_that_is_not_read_is_skipped() -> None:
    archive = tar.Archive(io.BytesIO(ours()), LIMIT)
    names = []
    while (member := archive.next()) is not None:
        names.append(member.size)
    assert names == list(SIZES)


def test_a_cut_anywhere_is_refused() -> None:
    whole = ours()
    for length in [*range(0, 3000), *range(3000, len(whole), 777), len(whole) - 1]:
        with pytest.raises(InvalidArgument, match="cut"):
            read(whole[:length])


HOSTILE = {
    "nothing": b"",
    "no tar": b"\x1f\x8b\x08" + b"x" * 2000,
    "a symbolic link": of_type(tarfile.SYMTYPE, linkname="/etc/passwd"),
    "a hard link": of_type(tarfile.LNKTYPE, linkname="000000001-4jY8mb6KfzzCSpf.json"),
    "a device": of_type(tarfile.CHRTYPE, devmajor=1, devminor=5),
    "a block device": of_type(tarfile.BLKTYPE),
    "a pipe": of_type(tarfile.FIFOTYPE),
    "a directory": of_type(tarfile.DIRTYPE, name="queue"),
    "a directory above": of_type(tarfile.DIRTYPE, name="../"),
    "a contiguous file": of_type(tarfile.CONTTYPE),
    "a sparse file": of_type(tarfile.GNUTYPE_SPARSE),
    "a type of tomorrow": of_type(b"Q"),
    "a file with a link": of_type(tarfile.REGTYPE, linkname="x"),
    "a name of GNU's": made((tarfile.TarInfo("x" * 300), b""), form=tarfile.GNU_FORMAT),
    "a header of pax's": made((tarfile.TarInfo("x" * 300), b""), form=tarfile.PAX_FORMAT),
    "a negative size": with_size(b"\xff" * 12),
    "a size that is no number": with_size(b"12x4"),
    "a header with another checksum": ours()[:10] + b"y" + ours()[11:],
    "more behind the end": ours() + b"x",
    "more in the end": ours()[:-512] + b"x" * 512,
}


@pytest.mark.parametrize("content", HOSTILE.values(), ids=HOSTILE)
def test_whatever_is_no_plain_file_is_refused(content: bytes) -> None:
    with pytest.raises(InvalidArgument, match="Nothing of this tar was taken") as raised:
        read(content)
    assert raised.value.members["field"] == "body"


@pytest.mark.parametrize("field", [b"77777777777", b"\x80" + b"\0" * 3 + b"\x7f" * 8])
def test_a_size_beyond_the_limit_is_refused_before_any_of_it_is_read(field: bytes) -> None:
    with pytest.raises(PayloadTooLarge, match="POSTQUEUE_API_IMPORT_LIMIT_BYTES"):
        read(with_size(field))


def test_the_limit_is_on_all_of_it() -> None:
    assert read(ours(), len(ours()))
    with pytest.raises(PayloadTooLarge):
        read(ours(), len(ours()) - 1024)
    endless = _Endless(b"".join(tar.header("x", 1000, 0) + b"x" * 1000 + tar.padding(1000) for _ in range(4)))
    archive = tar.Archive(endless, LIMIT)  # type: ignore[arg-type]
    with pytest.raises(PayloadTooLarge):
        list(iter(archive.next, None))
    zeros = _Endless(b"\0" * 512)
    assert tar.Archive(zeros, LIMIT).next() is None  # type: ignore[arg-type]
    assert zeros.given <= LIMIT


def test_a_stream_that_breaks_off_is_a_cut_one() -> None:
    class Broken(io.RawIOBase):
        def read(self, size: int = -1) -> bytes:
            raise OSError("gone")

    with pytest.raises(InvalidArgument, match="cut"):
        tar.Archive(Broken(), LIMIT).next()  # type: ignore[arg-type]


class _Endless(io.RawIOBase):
    """The same bytes again and again."""

    def __init__(self, content: bytes) -> None:
        self.content, self.given = content, 0

    def read(self, size: int = -1) -> bytes:
        at = self.given % len(self.content)
        part = self.content[at : at + size]
        self.given += len(part)
        return part
