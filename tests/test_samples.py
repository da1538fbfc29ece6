"""The ring of samples: what is counted between two listings, what is not known, and a file that nothing breaks."""

import json
import time
from pathlib import Path
from typing import Any

import pytest

from postqueue_api.agent.refresh import Refresher
from postqueue_api.agent.samples import Sampler
from postqueue_api.queue import samples, snapshot
from postqueue_api.queue.samples import Counted, Ring, Sample
from postqueue_api.queue.snapshot import Snapshot
from postqueue_api.queue.snapshot_writer import SnapshotWriter
from tests.fake_commands import BROKE_OFF, DOWN, FakeCommands, commands
from tests.test_snapshot import full_disk

__all__ = ["commands"]

FIRST, SECOND = 1_700_000_000.25, 1_700_000_060.75
EMPTY = dict.fromkeys(snapshot.QUEUE_NAMES, 0)


def line(queue_id: str, arrival_time: int = 1000, queue_name: str = "deferred") -> str:
    members = {
        "queue_name": queue_name,
        "queue_id": queue_id,
        "arrival_time": arrival_time,
        "message_size": 10,
        "sender": "a@example.com",
        "recipients": [{"address": "b@example.org"}],
    }
    return json.dumps(members) + "\n"


def listed(directory: Path, taken_at: float, **arrival_times: int) -> Snapshot:
    with SnapshotWriter(directory) as writer:
        writer.started = taken_at
        writer.add(line(queue_id, arrival_time).encode() for queue_id, arrival_time in arrival_times.items())
        return snapshot.by_id(directory, writer.publish(mail_system="running").snapshot_id)


@pytest.mark.parametrize(
    ("before", "now", "arrived", "removed"),
    [
        ({}, {}, 0, 0),
        ({"AAAAAA": 1000}, {"AAAAAA": 1000}, 0, 0),
        ({"AAAAAA": 1000}, {"BBBBBB": int(FIRST) + 30}, 1, 1),
        ({"AAAAAA": 1000, "BBBBBB": 1000}, {"CCCCCC": int(SECOND), "DDDDDD": int(FIRST) + 1}, 2, 2),
        ({"AAAAAA": int(FIRST)}, {"AAAAAA": int(FIRST)}, 0, 0),  # in the very second of the listing
        ({"AAAAAA": int(FIRST)}, {"BBBBBB": int(FIRST)}, 1, 1),
        ({"AAAAAA": int(FIRST) + 3}, {"AAAAAA": int(FIRST) + 3, "BBBBBB": int(FIRST) + 3}, 1, 0),  # while it was made
        ({"AAAAAA": 1000}, {"BBBBBB": 1000}, 0, 0),  # requeued: another ID, the same arrival time
        ({}, {"AAAAAA": 1000}, 0, None),  # it came back: what was removed besides cannot be told
    ],
)
def test_arrivals_and_removals_between_two_listings(
    tmp_path: Path, before: dict[str, int], now: dict[str, int], arrived: int, removed: int | None
) -> None:
    first = Counted(listed(tmp_path, FIRST, **before))
    assert (first.sample.arrived, first.sample.removed) == (None, None)
    sample = Counted(listed(tmp_path, SECOND, **now), first).sample
    assert (sample.arrived, sample.removed) == (arrived, removed)


def test_a_sample_says_how_long_each_queue_was(tmp_path: Path) -> None:
    sample = Counted(listed(tmp_path, FIRST, AAAAAA=1000, BBBBBB=900)).sample
    assert sample == Sample(FIRST, {**EMPTY, "deferred": 2}, 20, 900)
    assert sample.messages == 2
    assert Counted(listed(tmp_path, FIRST)).sample == Sample(FIRST, EMPTY, 0, None)


def test_more_than_can_be_remembered_arrived_during_a_listing_so_the_next_does_not_guess(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(samples, "_EDGE_LIMIT", 1)
    first = Counted(listed(tmp_path, FIRST, AAAAAA=int(FIRST), BBBBBB=int(FIRST)))
    sample = Counted(listed(tmp_path, SECOND), first).sample
    assert (sample.arrived, sample.removed) == (None, None)


def test_a_ring_is_bounded_and_a_clock_that_was_set_back_does_not_stop_it() -> None:
    ring = Ring(60)
    for minute in range(samples.LIMIT + 10):
        ring = ring.with_(Sample(60.0 * minute, {}, 0, None))
    assert len(ring.samples) == samples.LIMIT
    assert [ring.samples[0].taken_at, ring.samples[-1].taken_at] == [600.0, 60.0 * (samples.LIMIT + 9)]
    ring = ring.with_(Sample(700.0, {}, 0, None))
    assert [sample.taken_at for sample in ring.samples] == [600.0, 660.0, 700.0]


def test_what_was_written_is_read_and_is_for_its_group_and_for_nobody_else(tmp_path: Path) -> None:
    path = tmp_path / samples.NAME
    assert samples.read(path) is None
    ring = Ring(60, [Sample(1.5, {"deferred": 3}, 30, 1, None, 2), Sample(2.5, {}, 0, None)])
    samples.write(path, ring)
    assert samples.read(path) == ring
    assert path.stat().st_mode & 0o777 == 0o640
    assert list(tmp_path.iterdir()) == [path]


def test_a_day_of_samples_takes_less_than_three_hundred_kilobytes(tmp_path: Path) -> None:
    sample = Sample(
        1_700_000_000.123, dict.fromkeys(snapshot.QUEUE_NAMES, 1_000_000), 10**11, 1_699_000_000, 9999, 9999
    )
    samples.write(tmp_path / samples.NAME, Ring(60, [sample] * samples.LIMIT))
    assert (tmp_path / samples.NAME).stat().st_size < 300_000


def test_a_full_disk_leaves_the_ring_that_there_was(tmp_path: Path) -> None:
    path = tmp_path / samples.NAME
    samples.write(path, Ring(60))
    with full_disk(10), pytest.raises(OSError, match="too large"):
        samples.write(path, Ring(60, [Sample(1.5, {"deferred": 3}, 30, 1)]))
    assert samples.read(path) == Ring(60)
    assert list(tmp_path.iterdir()) == [path]


class Place:
    """A sampler on fake commands, and how often they listed."""

    def __init__(self, commands: FakeCommands, directory: Path) -> None:
        self.commands = commands
        self.path = directory / samples.NAME
        snapshots = directory / "snapshots"
        snapshots.mkdir()
        self.refresher = Refresher(lambda: commands.postfix, snapshots)
        self.sampler = Sampler(self.refresher, snapshots, self.path, 60)

    def lists(self, *queue_ids: str, script: str = "") -> None:
        (self.commands.directory / "rows").write_text("".join(line(each, int(time.time())) for each in queue_ids))
        self.commands.write("postqueue", f"{script}\ncat $here/rows")

    @property
    def listings(self) -> int:
        return len(self.commands.starts("postqueue"))

    def samples(self) -> list[dict[str, Any]]:
        ring = samples.read(self.path)
        return [] if ring is None else [sample.as_json() for sample in ring.samples]


@pytest.fixture
def place(commands: FakeCommands, tmp_path: Path) -> Place:
    return Place(commands, tmp_path)


def forget_listings(place: Place) -> None:
    """As when half an interval has gone by: what was listed before is too old for a sample."""
    place.refresher._last = None


def test_a_sample_takes_the_listing_of_a_reader_or_makes_one_of_its_own(place: Place) -> None:
    place.lists("AAAAAA")
    place.refresher.ensure(0, 10)
    assert place.sampler.take() == 60
    assert place.listings == 1
    place.lists("AAAAAA", "BBBBBB", "CCCCCC")
    forget_listings(place)
    assert place.sampler.take() == 60
    assert place.listings == 2
    assert [(each["queues"]["deferred"], each["arrived"], each["removed"]) for each in place.samples()] == [
        (1, None, None), (3, 2, 0),
    ]  # fmt: skip


def test_the_same_listing_is_no_second_sample(place: Place) -> None:
    place.lists("AAAAAA")
    for _ in range(3):
        place.sampler.take()
    assert (place.listings, len(place.samples())) == (1, 1)


def test_a_listing_that_takes_long_is_followed_by_twenty_times_as_much_rest(place: Place) -> None:
    place.sampler = Sampler(place.refresher, place.path.parent / "snapshots", place.path, 1)
    place.lists("AAAAAA", script="sleep 0.5")
    assert place.sampler.take() >= 10


def test_a_queue_that_cannot_be_listed_gives_no_sample_and_one_line(
    place: Place, caplog: pytest.LogCaptureFixture
) -> None:
    place.commands.says("postqueue", DOWN)
    for _ in range(3):
        assert place.sampler.take() >= 60
    assert place.samples() == []
    assert len(caplog.records) == 1


def test_a_listing_that_broke_off_gives_no_sample_and_the_next_is_compared_with_the_one_before_it(place: Place) -> None:
    place.lists("AAAAAA", "BBBBBB")
    place.sampler.take()
    forget_listings(place)
    place.commands.says("postqueue", BROKE_OFF, stdout=line("AAAAAA"))
    place.sampler.take()
    assert len(place.samples()) == 1
    forget_listings(place)
    place.lists("BBBBBB", "CCCCCC", "DDDDDD")
    place.sampler.take()
    assert [(each["arrived"], each["removed"]) for each in place.samples()] == [(None, None), (2, 1)]


def test_after_a_gap_nothing_is_said_of_what_came_and_went(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    place.lists("AAAAAA")
    place.sampler.take()
    forget_listings(place)
    now = time.time()
    monkeypatch.setattr("postqueue_api.queue.snapshot_writer.time.time", lambda: now + 181)
    place.sampler.take()
    assert [each["arrived"] for each in place.samples()] == [None, None]


@pytest.mark.parametrize(
    "content", [b"", b"garbage", b"\xff\0", b'{"interval_seconds":60,"samples":[],"version":2}', b'{"samples":[[1]]}']
)
def test_a_ring_that_cannot_be_read_is_begun_anew_with_a_line_in_the_log(
    place: Place, caplog: pytest.LogCaptureFixture, content: bytes
) -> None:
    place.path.write_bytes(content)
    assert samples.read(place.path) is None
    place.lists("AAAAAA")
    place.sampler.take()
    assert len(place.samples()) == 1
    assert [record.message for record in caplog.records] == [
        "samples.json cannot be read by this version, so the samples begin anew"
    ]


def test_on_a_full_disk_the_sampler_goes_on_when_there_is_room(place: Place, caplog: pytest.LogCaptureFixture) -> None:
    place.lists("AAAAAA")
    place.refresher.ensure(0, 10)
    with full_disk(10):
        place.sampler.take()
        place.sampler.take()
    assert (place.samples(), len(caplog.records)) == ([], 1)
    place.sampler.take()
    assert len(place.samples()) == 1


def test_with_an_interval_of_none_nothing_is_taken_and_what_was_there_goes(place: Place) -> None:
    samples.write(place.path, Ring(60))
    Sampler(place.refresher, place.path.parent / "snapshots", place.path, 0).start()
    assert not place.path.exists()
