"""Queue files are recordings of real ones (recordings/queue_files/README.md), whole, cut or changed."""

import io
import os
import tempfile
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.multiply import long_queue_id
from postqueue_api.postfix import queue_file
from postqueue_api.postfix.queue_file import (
    Identity,
    Recipient,
    find,
    glance,
    hash_directory,
    read_envelope,
    read_identity,
)

RECORDINGS = Path(__file__).parent / "recordings" / "queue_files"
WHOLE = (
    "several_recipients_one_done",
    "dsn_parameters",
    "forged_orcpt",
    "null_sender",
    "extracted_recipients",
    "in_maildrop",
    "milter_pointers",
)
QUEUE_ID = "4jY8mb6KfzzCSpf"


def recording(name: str) -> bytes:
    return (RECORDINGS / name).read_bytes()


def changed(name: str, changes: list[tuple[float, bytes]]) -> bytes:
    content = bytearray(recording(name))
    for where, new in changes:
        at = int(where * len(content))
        content[at : at + len(new)] = new
    return bytes(content)


def envelope_of(content: bytes) -> queue_file.Envelope:
    return read_envelope(io.BytesIO(content))


def record(kind: bytes, payload: bytes) -> bytes:
    length, groups = len(payload), bytearray()
    while True:
        length, group = length >> 7, length & 0x7F
        groups.append(group | (0x80 if length else 0))
        if not length:
            return kind + bytes(groups) + payload


def queue_file_of(*envelope: bytes, content: bytes = b"", extracted: bytes = b"") -> bytes:
    """A file as cleanup writes it, size record first."""
    content = content or record(b"N", b"Subject: x")
    before = b"".join((record(b"T", b"1700000000 123456"), *envelope)) + record(b"M", b"")
    offset = len(record(b"C", b" " * 95)) + len(before)
    size = f"{len(content):15d} {offset:15d} {1:15d} {0:15d} {len(content):15d} {0:15d}".encode()
    return record(b"C", size) + before + content + record(b"X", b"") + extracted + record(b"E", b"")


def addresses(recipients: list[Recipient]) -> list[str]:
    return [recipient.address for recipient in recipients]


@pytest.mark.parametrize("name", WHOLE)
def test_a_whole_file_is_trusted_whether_read_by_path_or_as_a_stream(name: str) -> None:
    envelope = read_envelope(RECORDINGS / name)
    assert envelope.trusted
    assert envelope == envelope_of(recording(name))
    assert envelope.arrival_time is not None
    assert envelope.sender is not None
    assert read_identity(RECORDINGS / name) == Identity(envelope.arrival_time, envelope.sender)


def test_a_delivered_recipient_is_done_and_the_others_are_due() -> None:
    envelope = read_envelope(RECORDINGS / "several_recipients_one_done")
    assert addresses(envelope.done_recipients) == ["fine@example.com"]
    assert addresses(envelope.recipients) == ["defer-one@example.com", "defer-two@example.com"]
    assert (envelope.sender, envelope.arrival_time) == ("several@example.com", 1795447295)
    assert (envelope.create_time, envelope.message_size, envelope.content_size) == (1795447295, 319, 319)
    assert envelope.attributes["client_address"] == "127.0.0.1"
    assert envelope.attributes["log_message_origin"] == "localhost[127.0.0.1]"
    assert envelope.attributes["rewrite_context"] == "local"


def test_dsn_parameters_belong_to_the_recipient_they_were_given_for() -> None:
    envelope = read_envelope(RECORDINGS / "dsn_parameters")
    assert (envelope.dsn_envid, envelope.dsn_ret) == ("QQ314159", "HDRS")
    assert envelope.recipients == [
        Recipient("defer-a@example.com", "defer-a@example.com", "rfc822;Original@example.org", ("SUCCESS", "DELAY")),
        Recipient("defer-b@example.com", "defer-b@example.com", "rfc822;defer-b@example.com", ("NEVER",)),
    ]


@pytest.mark.parametrize("kind", [b"R", b"D", b"/"])
def test_what_one_recipient_was_given_ends_with_it_whatever_became_of_it(kind: bytes) -> None:
    parameters = (record(b"A", b"notify_flags=1"), record(b"A", b"dsn_orig_rcpt=rfc822;x"), record(b"O", b"x"))
    envelope = envelope_of(
        queue_file_of(record(b"S", b"a"), *parameters, record(kind, b"first"), record(b"R", b"second"))
    )
    assert envelope.recipients[-1] == Recipient("second")


def test_a_newline_in_orcpt_adds_no_recipient() -> None:
    envelope = read_envelope(RECORDINGS / "forged_orcpt")
    assert addresses(envelope.recipients) == ["defer-real@example.com"]
    assert envelope.recipients[0].orcpt == "rfc822;x@example.org\nrecipient: forged@example.com"


def test_the_null_sender_is_empty_and_not_missing() -> None:
    assert read_envelope(RECORDINGS / "null_sender").sender == ""


@pytest.mark.parametrize(("name", "size"), [("extracted_recipients", 320), ("in_maildrop", None)])
def test_recipients_from_headers_are_found_behind_the_content(name: str, size: int | None) -> None:
    envelope = read_envelope(RECORDINGS / name)
    assert {"defer-to@example.com", "defer-bcc@example.com"} <= set(addresses(envelope.recipients))
    assert envelope.message_size == size


def test_what_a_milter_changed_is_read_as_it_is_delivered() -> None:
    envelope = read_envelope(RECORDINGS / "milter_pointers")
    assert envelope.sender == "changed-sender@example.com"
    assert addresses(envelope.recipients) == ["defer-m@example.com"]
    assert addresses(envelope.done_recipients) == ["added-one@example.com", "added-two@example.com"]
    assert addresses(envelope.cancelled_recipients) == ["removed@example.com"]
    assert (envelope.message_size, envelope.content_size) == (353, 4312)


def test_a_file_that_was_cut_gives_what_is_there_and_no_trust() -> None:
    envelope = read_envelope(RECORDINGS / "truncated")
    assert not envelope.trusted
    assert envelope.sender == "several@example.com"
    assert len(envelope.recipients) == 2
    assert read_identity(RECORDINGS / "truncated") == Identity(1795447295, "several@example.com")


def test_a_recipient_that_was_cut_in_the_middle_is_not_shown() -> None:
    content = recording("several_recipients_one_done")
    envelope = envelope_of(content[: content.index(b"defer-two@example.com", 840) + 9])
    assert addresses(envelope.recipients) == ["defer-one@example.com"]


@pytest.mark.parametrize("name", WHOLE)
def test_no_beginning_of_a_file_is_trusted(name: str) -> None:
    content = recording(name)
    end = content.rindex(b"E\0", 0, len(content)) if name != "milter_pointers" else 1175
    assert not any(envelope_of(content[:length]).trusted for length in range(0, end + 2))


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"", "empty"),
        (b"no queue file at all\n" * 50, "text"),
        (queue_file_of(record(b"S", b"a@b"))[20:], "cut at the front"),
        (queue_file_of(), "no sender"),
        (record(b"S", b"a@b") + queue_file_of(record(b"S", b"a@b"))[97:], "another record first"),
        (queue_file_of(record(b"S", b"a@b"), record(b"R", b"x" * (1 << 21))), "an address of two megabytes"),
        (queue_file_of(record(b"S", b"a@b"), record(b"Q", b"")), "a record that Postfix does not know"),
        (queue_file_of(record(b"S", b"a@b"), record(b"A", b"no equals sign")), "an attribute that qmgr refuses"),
        (queue_file_of(record(b"S", b"a@b"), record(b"p", b"97")), "a pointer that leads in a circle"),
        (queue_file_of(record(b"S", b"a@b"), record(b"p", b"999999")), "a pointer out of the file"),
        (queue_file_of(record(b"S", b"a@b"), record(b"p", b"-1")), "a pointer that is no number"),
        (queue_file_of(record(b"S", b"a@b"), b"R\xff\xff\xff\xff\xff\x01"), "a length without end"),
        (queue_file_of(record(b"S", b"a@b"), b"R\xff\xff\xff\x7f"), "a length beyond the file"),
        (queue_file_of(record(b"S", b"a@b")).replace(b"X\0E", b"N\0E"), "a size that does not lead to the end"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_broken_structure_is_not_trusted(content: bytes, why: str) -> None:
    assert not envelope_of(content).trusted, why


def test_deleted_text_and_killed_records_and_text_after_a_nul_do_not_count() -> None:
    envelope = envelope_of(
        queue_file_of(
            record(b"S", b"a@example.com\0junk"), record(b"w", b"R\5trick"), record(b"K", b"x"), record(b"R", b"b@c\0d")
        )
    )
    assert envelope.trusted
    assert envelope.sender == "a@example.com"
    assert addresses(envelope.recipients) == ["b@c"]


def test_the_first_sender_and_time_count_and_the_last_filter_and_redirection() -> None:
    doubled = [record(kind, value) for kind in (b"S", b"T", b"L", b">") for value in (b"1", b"2")]
    envelope = envelope_of(queue_file_of(*doubled))
    assert (envelope.sender, envelope.arrival_time) == ("1", 1700000000)
    assert (envelope.content_filter, envelope.redirect_address) == ("2", "2")


def test_bytes_that_are_no_utf8_are_replaced() -> None:
    assert envelope_of(queue_file_of(record(b"S", b"\xff@example.com"))).sender == "\ufffd@example.com"


def test_a_large_content_is_stepped_over_and_not_read() -> None:
    content = b"".join(record(b"N", b"R" * 70) for _ in range(200_000))
    whole = queue_file_of(record(b"S", b"a"), content=content, extracted=record(b"R", b"b@c"))

    class Counting(io.BytesIO):
        count = 0

        def read(self, size: int | None = -1, /) -> bytes:
            part = super().read(size)
            self.count += len(part)
            return part

    file = Counting(whole)
    envelope = read_envelope(file)
    assert (envelope.trusted, addresses(envelope.recipients)) == (True, ["b@c"])
    assert file.count < 100_000


def test_a_million_records_end_soon_and_without_trust() -> None:
    started = time.monotonic()
    envelope = envelope_of(queue_file_of(record(b"S", b"a"), record(b"K", b"") * 1_000_000))
    assert not envelope.trusted
    assert time.monotonic() - started < 10


@settings(max_examples=300, deadline=1000)
@given(st.binary(max_size=400))
def test_random_bytes_never_raise(content: bytes) -> None:
    assert isinstance(envelope_of(content), queue_file.Envelope)
    assert isinstance(envelope_of(b"C" + content), queue_file.Envelope)


@settings(max_examples=400, deadline=1000)
@given(st.sampled_from(WHOLE), st.lists(st.tuples(st.floats(0, 0.999), st.binary(min_size=1, max_size=20)), max_size=4))
def test_random_changes_of_real_files_never_raise(name: str, changes: list[tuple[float, bytes]]) -> None:
    envelope = envelope_of(changed(name, changes))
    assert isinstance(envelope, queue_file.Envelope)


@pytest.mark.parametrize("place", ["deferred", "deferred/4", "deferred/4/A", "hold", "maildrop"])
def test_a_file_is_found_flat_and_at_any_depth(tmp_path: Path, place: str) -> None:
    for name in (*queue_file.QUEUE_NAMES, "deferred/0", "deferred/4", "deferred/4/A", "deferred/F"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / place / QUEUE_ID).write_bytes(b"x")
    found = find(tmp_path, QUEUE_ID)
    assert found is not None
    assert (found.queue_name, found.path) == (place.partition("/")[0], tmp_path / place / QUEUE_ID)
    assert found.stat.st_size == 1
    assert find(tmp_path, QUEUE_ID, ("active",)) is None
    assert find(tmp_path, QUEUE_ID + "X") is None


@pytest.mark.parametrize("place", [f"deferred/{hash_directory(QUEUE_ID)}", "deferred", "deferred/4/A"])
@pytest.mark.parametrize("look", ["_guess", "_walk"])
def test_a_message_that_moves_back_while_we_look_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str, look: str
) -> None:
    for name in (*queue_file.QUEUE_NAMES, place):
        (tmp_path / name).mkdir(parents=True, exist_ok=True)
    file = tmp_path / place / QUEUE_ID
    file.write_bytes(b"x")
    really = getattr(queue_file, look)

    def looking(queue: str, queue_id: str) -> object:
        seen = really(queue, queue_id)
        if queue == f"{tmp_path}/active" and file.exists():
            file.rename(f"{queue}/{queue_id}")
        return seen

    monkeypatch.setattr(queue_file, look, looking)
    found = find(tmp_path, QUEUE_ID)
    assert found is not None
    assert found.queue_name in ("active", "deferred")
    assert found.path.exists()


@pytest.mark.parametrize(
    ("queue_id", "name"),
    [
        ("4A1F3C2", "4"),
        (long_queue_id(1_795_457_000, 500, 77), "0"),
        (long_queue_id(1_795_457_000, 300_000, 77), "4"),  # 300000 is 493E0
        (long_queue_id(1_795_457_000, 999_999, 77), "F"),
    ],
)
def test_the_hash_directory_comes_from_the_microseconds_of_a_long_queue_id(queue_id: str, name: str) -> None:
    assert hash_directory(queue_id) == name


def test_a_glance_says_what_the_whole_envelope_says() -> None:
    for path in sorted(RECORDINGS.iterdir()):
        envelope = read_envelope(path)
        with path.open("rb") as file:
            identity, due = glance(file)
        assert due is (bool(envelope.recipients) or not envelope.trusted), path.name
        if envelope.arrival_time is None or envelope.sender is None:
            assert identity is None, path.name
        else:
            assert identity == Identity(envelope.arrival_time, envelope.sender), path.name


@settings(max_examples=400, deadline=1000)
@given(st.sampled_from(WHOLE), st.lists(st.tuples(st.floats(0, 0.999), st.binary(min_size=1, max_size=20)), max_size=4))
def test_a_glance_at_a_damaged_file_says_what_the_whole_envelope_says(
    name: str, changes: list[tuple[float, bytes]]
) -> None:
    content = changed(name, changes)
    with tempfile.TemporaryFile() as file:
        file.write(content)
        file.flush()
        _, due = glance(file)
    envelope = envelope_of(content)
    assert due is (bool(envelope.recipients) or not envelope.trusted)


def test_a_directory_or_link_of_that_name_is_no_message(tmp_path: Path) -> None:
    (tmp_path / "hold" / QUEUE_ID).mkdir(parents=True)
    (tmp_path / "active").mkdir()
    (tmp_path / "active" / QUEUE_ID).symlink_to(RECORDINGS / "null_sender")
    assert find(tmp_path, QUEUE_ID) is None


def test_there_is_no_identity_of_what_is_no_queue_file(tmp_path: Path) -> None:
    (tmp_path / "garbage").write_bytes(b"garbage")
    os.mkfifo(tmp_path / "fifo")
    assert read_identity(tmp_path / "gone") is None
    assert read_identity(tmp_path / "garbage") is None
    with pytest.raises(OSError, match="Illegal seek"):
        read_identity(tmp_path / "fifo")
    with pytest.raises(FileNotFoundError):
        read_envelope(tmp_path / "gone")


@pytest.mark.parametrize(
    ("mode", "ready", "expired"),
    [(0o600, False, False), (0o700, True, False), (0o710, True, True), (0o740, True, False), (0o610, False, True)],
)
def test_the_mode_says_whether_a_file_is_complete_and_force_expired(
    tmp_path: Path, mode: int, ready: bool, expired: bool
) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"")
    path.chmod(mode)
    assert queue_file.is_ready(path.stat()) is ready
    assert queue_file.is_force_expired(path.stat()) is expired
