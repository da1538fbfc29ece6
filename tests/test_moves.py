"""Export and import of recorded queue files, and the book of both: each message once, no byte changed unseen."""

import io
import itertools
import math
import re
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest

from postqueue_api.agent import copy_file, parcel, tar
from postqueue_api.agent.move_in import Import, Limits
from postqueue_api.agent.move_out import Export
from postqueue_api.agent.trash import Bounds, Original, Trash
from postqueue_api.errors import Error, InvalidArgument, PayloadTooLarge, StorageFull
from postqueue_api.postfix.postconf import Instance
from postqueue_api.postfix.queue_file import read_envelope
from postqueue_api.queue.journal import Journal
from postqueue_api.queue.journal_reader import JournalReader
from postqueue_api.queue.moves import MoveBook, MoveReader, Receipt
from postqueue_api.queue.operation import Operation, Request, Settlement, Target
from postqueue_api.queue.trash import Copy, TrashBook

RECORDINGS = Path(__file__).parent / "recordings" / "queue_files"
FILES = ("several_recipients_one_done", "dsn_parameters", "forged_orcpt", "null_sender", "milter_pointers")
IDS = dict(zip(("4jY8mb1000zAAAA", "4jY8mb2000zAAAB", "4jY8mb3000zAAAC", "4jY8mb4000zAAAD", "4jY8mb5000zAAAE"), FILES,
               strict=True))  # fmt: skip
INSTANCE = Instance("3.7.11", Path("/spool"), "postfix", "relay.example.com", "", True, frozenset())
LIMITS = Limits(1 << 24, 1000)
BOUNDS = Bounds(86400, 1 << 24, 1000)


class Place:
    """A journal and a trash, as an agent has them."""

    def __init__(self, directory: Path, bounds: Bounds = BOUNDS) -> None:
        directory.mkdir()
        self.journal = Journal(directory / "journal.sqlite")
        self.book = TrashBook(self.journal)
        self.moves = MoveBook(self.journal)
        self.trash = Trash(self.book, directory / "trash", bounds)
        self.reader = JournalReader(directory / "journal.sqlite")
        self._numbers = itertools.count(1)

    def export(self, queue_ids: dict[str, str], *, to_move: bool = True) -> str:
        """Delete messages with copies, as the executor does. Returns:  the operation"""
        operation_id = f"op-{next(self._numbers):016x}"
        request = Request("export" if to_move else "delete", "alice", "admin", "{}")
        operation = self.journal.begin(operation_id, request, [Target(queue_id) for queue_id in queue_ids])
        with ExitStack() as files:
            originals = [
                Original(queue_id, "deferred", files.enter_context((RECORDINGS / name).open("rb")))
                for queue_id, name in queue_ids.items()
            ]
            self.trash.keep(operation_id, originals, to_move=to_move)
        self.journal.settle(operation.number, [Settlement(n, "removed") for n in range(1, len(queue_ids) + 1)])
        return operation_id

    def tar(self, operation_id: str | None = None, host: str = "relay.example.com") -> bytes:
        instance = replace(INSTANCE, myhostname=host)
        return b"".join(Export(self.moves, self.trash, instance, operation_id, {"actor": "alice"}).blocks())

    def bring_in(self, content: bytes, *, again: bool = False, limits: Limits = LIMITS) -> Operation:
        taking = Import(self.moves, self.trash, f"op-{next(self._numbers):016x}", again=again)
        return taking.run(io.BytesIO(content), Request("import", "alice", "admin", "{}"), limits)

    def copies(self) -> dict[str, bytes]:
        """What could be restored, byte for byte."""
        found = {}
        for copy in self.book.in_state("kept"):
            with self.trash.open(copy) as file:
                found[copy.queue_id] = copy_file.section(file, copy.offset, copy.length).read()
        return found

    def files(self) -> list[str]:
        return sorted(path.name for path in self.trash.directory.iterdir())


@pytest.fixture
def old(tmp_path: Path) -> Iterator[Place]:
    made = Place(tmp_path / "old")
    yield made
    made.journal.close()


@pytest.fixture
def new(tmp_path: Path) -> Iterator[Place]:
    made = Place(tmp_path / "new")
    yield made
    made.journal.close()


def recorded(queue_ids: dict[str, str] = IDS) -> dict[str, bytes]:
    return {queue_id: (RECORDINGS / name).read_bytes() for queue_id, name in queue_ids.items()}


def test_what_is_exported_comes_byte_for_byte_and_waits(old: Place, new: Place) -> None:
    operation_id = old.export(IDS)
    content = old.tar(operation_id)
    assert content == old.tar()
    operation = new.bring_in(content)
    assert (operation.action, operation.state, operation.requested) == ("import", "done", len(IDS))
    assert operation.outcomes == {"imported": len(IDS)}
    assert new.copies() == recorded()
    copies = new.book.of_operation(operation.operation_id)
    assert {(copy.expires_at, copy.origin, copy.queue_name) for copy in copies} == {
        (math.inf, "relay.example.com", "deferred")
    }
    assert [item.outcome for item in new.reader.results(operation.operation_id, 100)] == ["imported"] * len(IDS)
    new.trash.purge()
    assert new.copies() == recorded()


def test_what_was_deleted_is_exported_only_when_its_operation_is_named(old: Place) -> None:
    operation_id = old.export(IDS, to_move=False)
    assert len(old.tar()) < len(old.tar(operation_id))
    assert b"4jY8mb1000zAAAA" not in old.tar()
    assert b"4jY8mb1000zAAAA" in old.tar(operation_id)


def test_an_export_of_an_import_moves_it_on(old: Place, new: Place, tmp_path: Path) -> None:
    old.export(IDS)
    content = old.tar()
    new.bring_in(content)
    third = Place(tmp_path / "third")
    operation = third.bring_in(new.tar())
    assert third.copies() == recorded()
    assert third.bring_in(content).outcomes == {"no_change": len(IDS)}  # straight from the first: it knows them
    assert {copy.origin for copy in third.book.of_operation(operation.operation_id)} == {"relay.example.com"}
    third.journal.close()


def test_a_second_import_writes_nothing_and_says_so(old: Place, new: Place) -> None:
    old.export(IDS)
    content = old.tar()
    first = new.bring_in(content)
    files = new.files()
    assert len(files) == 1
    second = new.bring_in(content)
    assert second.outcomes == {"no_change": len(IDS)}
    assert (new.files(), new.copies()) == (files, recorded())
    reader = MoveReader(new.reader)
    assert [row[:2] for row in reader.receipts(first.operation_id)] == [
        row[:2] for row in reader.receipts(second.operation_id)
    ]
    assert new.bring_in(content, again=True).outcomes == {"imported": len(IDS)}
    assert len(new.files()) == 2


@pytest.mark.parametrize("again", [False, True])
def test_a_message_that_is_twice_in_one_tar_comes_once(old: Place, new: Place, again: bool) -> None:
    one = dict(list(IDS.items())[:1])
    old.export(one)
    old.export(one)
    assert new.bring_in(old.tar(), again=again).outcomes == {"imported": 1, "no_change": 1}
    assert len(new.book.in_state("kept")) == 1


def test_one_queue_id_may_be_two_messages(old: Place, new: Place) -> None:
    """Short ones are used again, and two hosts may give the same one."""
    old.export({"ABCDEF012345": "dsn_parameters"})
    new.bring_in(old.tar())
    other = Place(new.trash.directory.parent / "other")
    other.export({"ABCDEF012345": "null_sender"})
    assert new.bring_in(other.tar(host="other.example.com")).outcomes == {"imported": 1}
    assert len(new.book.in_state("kept")) == 2
    other.journal.close()


def test_the_same_message_in_another_state_is_not_brought_in(old: Place, new: Place) -> None:
    """As when somebody restored it at the old place after all, and a recipient got it there."""
    old.export({"4jY8mb1000zAAAA": "several_recipients_one_done"})
    content = old.tar()
    whole = (RECORDINGS / "several_recipients_one_done").read_bytes()
    at = whole.index(b"R\x15defer-one@example.com")
    new.bring_in(content)
    later = Place(old.trash.directory.parent / "later")
    path = later.trash.directory.parent / "later_file"
    path.write_bytes(whole[:at] + b"D" + whole[at + 1 :])
    with path.open("rb") as file:
        request = Request("export", "alice", "admin", "{}")
        number = later.journal.begin("op-0000000000000001", request, [Target("4jY8mb1000zAAAA")]).number
        later.trash.keep("op-0000000000000001", [Original("4jY8mb1000zAAAA", "deferred", file)], to_move=True)
        later.journal.settle(number, [Settlement(1, "removed")])
    operation = new.bring_in(later.tar())
    assert operation.outcomes == {"changed": 1}
    assert [row[2] for row in MoveReader(new.reader).receipts(operation.operation_id)] == ["changed"]
    later.journal.close()


def test_no_byte_changes_unseen(old: Place, tmp_path: Path) -> None:
    """Bytes all over it, one at a time: the tar is refused, or one message, or the byte did not matter."""
    one = {"4jY8mb2000zAAAB": "dsn_parameters", "4jY8mb4000zAAAD": "null_sender"}
    old.export(one)
    content, whole = old.tar(), recorded(one)
    new = Place(tmp_path / "new-for-all", replace(BOUNDS, messages=100_000))
    seen = {"refused": 0, "failed": 0, "did not matter": 0}
    for place in range(0, len(content), 23):
        spoilt = bytearray(content)
        spoilt[place] ^= 0x41
        before = len(new.book.in_state("kept"))
        try:
            operation = new.bring_in(bytes(spoilt), again=True)
        except InvalidArgument:
            seen["refused"] += 1
            assert len(new.book.in_state("kept")) == before
        else:
            seen["failed" if "failed" in operation.outcomes else "did not matter"] += 1
            for copy in new.book.of_operation(operation.operation_id):
                with new.trash.open(copy) as file:
                    assert copy_file.section(file, copy.offset, copy.length).read() == whole[copy.queue_id], place
    new.journal.close()
    assert seen["refused"] > 100
    assert seen["failed"] > 50
    padding = content.count(b"\0")
    assert seen["did not matter"] * 23 < padding + 23


def packed(*files: tuple[str, bytes]) -> bytes:
    made = (tar.header(name, len(content), 0) + content + tar.padding(len(content)) for name, content in files)
    return b"".join(made) + tar.END


@pytest.fixture
def parts(old: Place) -> dict[str, bytes]:
    """The files of an export of one message, by their names."""
    old.export({"4jY8mb2000zAAAB": "dsn_parameters"})
    archive = tar.Archive(io.BytesIO(old.tar()), 1 << 24)
    found = {}
    while (member := archive.next()) is not None:
        found[member.name] = b"".join(archive.read())
    return found


def test_what_an_export_never_has_is_refused_as_a_whole(parts: dict[str, bytes], new: Place) -> None:
    (label, metadata), (name, content), (_, manifest) = parts.items()
    other_manifest = manifest.replace(b"export 1", b"export 2")
    last = ("manifest.json", manifest)
    hostile = {
        "a path": packed((f"../../{label}", metadata), (f"../../{name}", content), last),
        "an absolute path": packed((f"/tmp/{label}", metadata), (f"/tmp/{name}", content), last),
        "another file": packed(("passwd", b"x"), last),
        "no queue file": packed((label, metadata), last),
        "no metadata": packed((name, content), last),
        "the queue file of another": packed((label, metadata), (name.replace("1-", "2-"), content), last),
        "one of another size": packed((label, metadata), (name, content + b"x"), last),
        "no manifest": packed((label, metadata), (name, content)),
        "two manifests": packed((label, metadata), (name, content), last, last),
        "a message behind the manifest": packed(last, (label, metadata), (name, content)),
        "a message too much": packed((label, metadata), (name, content), (label, metadata), (name, content), last),
        "a message too few": packed(last),
        "metadata that are no JSON": packed((label, b"{"), (name, content), last),
        "metadata that are no object": packed((label, b"[]"), (name, content), last),
        "metadata without end": packed((label, b" " * (2 << 20)), (name, content), last),
        "a manifest of another kind": packed((label, metadata), (name, content), (last[0], other_manifest)),
        "a manifest without end": packed((label, metadata), (name, content), (last[0], b" " * (2 << 20))),
    }  # fmt: skip
    for field, other in (
        (b'"4jY8mb2000zAAAB"', b'"../../etc/hosts"'),
        (b'"4jY8mb2000zAAAB"', b'"ALL"'),
        (b'"deferred"', b'"corrupt"'),
        (b'"deferred"', b'"\xff\xfe"'),
        (b'"relay.example.com"', b'""'),
        (b'"relay.example.com"', b'"a\\nb"'),
        (b'"arrival_time": ', b'"arrival_time": -'),
        (b'"arrival_time": ', b'"arrival_time": 99999999999999999999'),
        (b'"checksum": "', b'"checksum": "zz'),
        (b'"forced_expire": false', b'"forced_expire": "no"'),
    ):
        assert field in metadata
        hostile[f"metadata with {other!r}"] = packed((label, metadata.replace(field, other)), (name, content), last)
    for what, made in hostile.items():
        with pytest.raises(InvalidArgument):
            new.bring_in(made)
        assert (new.files(), new.copies()) == ([], {}), what
    assert new.reader.operations(10) == []
    assert new.bring_in(packed((label, metadata), (name, content), last)).outcomes == {"imported": 1}


def resealed(parts: dict[str, bytes], metadata: bytes, content: bytes) -> bytes:
    """A tar that says of itself that all is well."""
    label, name, _ = parts
    total = parcel.Total()
    total.add(metadata, len(content))
    manifest = msgspec.json.encode(total.manifest([]))
    return packed((label, metadata), (name, content), ("manifest.json", manifest))


def test_what_no_postfix_could_deliver_fails_even_with_good_checksums(parts: dict[str, bytes], new: Place) -> None:
    metadata, content, _ = parts.values()

    def sealed(changed: bytes, metadata: bytes = metadata) -> bytes:
        """A tar that is as the sender says, whatever it says."""
        said = metadata.replace(f'"bytes": {len(content)}'.encode(), f'"bytes": {len(changed)}'.encode())
        return resealed(parts, said.replace(checksum_of(content), checksum_of(changed)), changed)

    tries = {
        "it is no whole queue file": sealed(content[:-10]),
        "its metadata are those of another message": sealed(content, metadata.replace(b'"sender": "', b'"sender": "x')),
        "nobody is left to deliver it to": sealed(
            without_due(content), re.sub(rb'"recipient_count": \d+', b'"recipient_count": 0', metadata)
        ),
    }
    for why, made in tries.items():
        operation = new.bring_in(made)
        (item,) = new.reader.results(operation.operation_id, 10)
        assert (item.outcome, item.detail) == ("failed", why)
    assert (new.files(), new.copies()) == ([], {})
    assert new.bring_in(sealed(content)).outcomes == {"imported": 1}  # a failed one may come again


def checksum_of(content: bytes) -> bytes:
    digest = copy_file.checksum()
    digest.update(content)
    return digest.hexdigest().encode()


def without_due(content: bytes) -> bytes:
    """A queue file all of whose recipients are done."""
    for recipient in read_envelope(io.BytesIO(content)).recipients:
        address = recipient.address.encode()
        record = bytes([len(address)]) + address
        assert content.count(b"R" + record) == 1
        content = content.replace(b"R" + record, b"D" + record)
    return content


def test_what_does_not_fit_is_refused_as_a_whole(old: Place, tmp_path: Path) -> None:
    old.export(IDS)
    content = old.tar()
    for number, (bounds, limits, error) in enumerate(
        [
            (replace(BOUNDS, messages=4), LIMITS, StorageFull),
            (replace(BOUNDS, bytes=sum(map(len, recorded().values())) - 1), LIMITS, StorageFull),
            (BOUNDS, Limits(len(content) - 1024, 1000), PayloadTooLarge),
            (BOUNDS, Limits(1 << 24, 4), PayloadTooLarge),
        ]
    ):
        place = Place(tmp_path / f"small-{number}", bounds)
        with pytest.raises(error):
            place.bring_in(content, limits=limits)
        assert (place.files(), place.copies()) == ([], {})
        assert place.reader.operations(10) == []
        place.journal.close()


def test_a_copy_that_is_damaged_is_left_out_and_named(old: Place, new: Place) -> None:
    old.export(IDS)
    (file,) = old.files()
    path = old.trash.directory / file
    content = bytearray(path.read_bytes())
    content[10] ^= 1
    path.write_bytes(content)
    exported = old.tar()
    assert b'"left_out":["4jY8mb1000zAAAA"]' in exported
    assert new.bring_in(exported).outcomes == {"imported": len(IDS) - 1}
    assert "4jY8mb1000zAAAA" not in new.copies()


def test_a_confirmed_copy_cannot_be_claimed_and_goes_at_its_time(old: Place, new: Place) -> None:
    operation_id = old.export(IDS)
    operation = new.bring_in(old.tar())
    receipts = list(MoveReader(new.reader).receipts(operation.operation_id))
    confirmed = [Receipt(queue_id, bytes.fromhex(checksum)) for queue_id, checksum, _ in receipts]
    request = Request("confirm", "alice", "admin", "{}")
    assert old.moves.confirm("op-00000000000000aa", request, confirmed, 0).outcomes == {"exported": len(IDS)}
    copy: Copy = old.book.newest("4jY8mb1000zAAAA")
    assert copy.exported_at is not None
    assert copy.expires_at < math.inf
    number = old.reader.operation(operation_id).number
    assert not old.book.claim(copy.number, (number, 1), copy.queue_id)
    assert old.tar(operation_id) == old.tar()  # nothing waits any more
    old.trash.purge()
    assert (old.files(), old.book.newest("4jY8mb1000zAAAA").state) == ([], "purged")
    assert old.moves.confirm("op-00000000000000ab", request, confirmed, 0).outcomes == {"no_change": len(IDS)}


def test_an_export_is_sent_in_blocks_whatever_its_size(old: Place) -> None:
    old.export(IDS)
    blocks = list(Export(old.moves, old.trash, INSTANCE, None, {"actor": "alice"}).blocks())
    assert b"".join(blocks) == old.tar()
    assert all(len(block) <= 1 << 21 for block in blocks)


def test_a_purge_while_an_import_goes_on_leaves_its_files(old: Place, new: Place) -> None:
    old.export(IDS)
    content = old.tar()

    class Slow(io.BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            new.trash.purge()
            return super().read(size)

    taking = Import(new.moves, new.trash, "op-00000000000000cc", again=False)
    taking.run(Slow(content), Request("import", "alice", "admin", "{}"), LIMITS)
    assert new.copies() == recorded()
    assert len(new.files()) == 1


def test_copies_that_wait_are_not_given_up_for_others(tmp_path: Path) -> None:
    place = Place(tmp_path / "small", replace(BOUNDS, messages=3))
    ids = dict(list(IDS.items())[:2])
    place.export(dict(list(IDS.items())[2:3]), to_move=False)
    place.export(ids)  # full now; what was deleted before goes, what waits does not
    place.export(dict(list(IDS.items())[3:4]), to_move=False)
    with pytest.raises(StorageFull):
        place.export(dict(list(IDS.items())[2:4]))
    assert set(ids) <= set(place.copies())
    place.journal.close()


def test_a_section_of_a_file_is_a_file(tmp_path: Path) -> None:
    path = tmp_path / "shared"
    path.write_bytes(b"before" + b"section" + b"behind")
    with path.open("rb") as file:
        section = copy_file.section(file, 6, 7)
        assert section.seek(0, 2) == 7
        assert section.read(4) == b""
        assert (section.seek(2), section.read(100)) == (2, b"ction")
        assert (section.seek(-3, 2), section.read()) == (4, b"ion")
        with pytest.raises(Error, match="shorter"):
            list(copy_file.parts(file, 100))
