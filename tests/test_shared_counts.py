"""Counts that processes share."""

import os

import pytest
from flask import Response

from postqueue_api.config import Settings
from postqueue_api.errors import TooManyRequests
from postqueue_api.web.limits import Limits, _place
from postqueue_api.web.shared_counts import SharedCounts, SharedPlaces


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


def in_another_process(*steps: object) -> None:
    """Run callables in a child that ends without giving anything back."""
    pid = os.fork()
    if pid == 0:
        for step in steps:
            step()  # type: ignore[operator]
        os._exit(0)
    assert os.waitpid(pid, 0)[1] == 0


def test_a_count_begins_with_the_first_and_is_forgotten_after_its_time() -> None:
    clock = Clock()
    counts = SharedCounts(clock)
    assert counts.look("refused", "a") == (0, 0)
    assert counts.add("refused", "a", 60) == (1, 60)
    clock.now += 40
    assert counts.add("refused", "a", 60) == (2, 20)
    assert counts.look("refused", "a") == (2, 20)
    assert counts.look("refused", "b") == (0, 0)
    assert counts.look("asked", "a") == (0, 0)
    clock.now += 20
    assert counts.look("refused", "a") == (0, 0)
    assert counts.add("refused", "a", 60) == (1, 60)


def test_processes_count_together() -> None:
    counts = SharedCounts()
    counts.add("refused", "a", 60)
    in_another_process(lambda: counts.add("refused", "a", 60))
    assert counts.look("refused", "a")[0] == 2


def test_any_number_of_addresses_takes_no_more_memory_and_those_who_counted_most_stay() -> None:
    counts = SharedCounts()
    for _ in range(20):
        counts.add("refused", "the one", 600)
    for number in range(30_000):
        counts.add("refused", f"10.0.{number}", 600)
    assert counts.look("refused", "the one")[0] == 20


def test_a_place_is_given_back_also_by_a_process_that_died() -> None:
    places = SharedPlaces(2)
    in_another_process(places.take, places.take)
    first, second = places.take(), places.take()
    assert first is not None
    assert second is not None
    assert places.take() is None
    first()
    assert places.take() is not None


@pytest.fixture
def limits() -> Limits:
    return Limits(Settings(concurrent_streams=2))


def test_a_stream_keeps_its_place_until_it_is_closed(limits: Limits) -> None:
    held = [limits.hold_stream(Response(iter([b""]))) for _ in range(2)]
    with pytest.raises(TooManyRequests, match="CONCURRENT_STREAMS"):
        limits.hold_stream(Response(iter([b""])))
    held[0].close()
    limits.hold_stream(Response(iter([b""])))


@pytest.mark.parametrize(
    ("address", "counted_as"),
    [("192.0.2.1", "192.0.2.1"), ("2001:db8:1:2:3::4", "2001:db8:1:2::/64"), ("::ffff:192.0.2.1", "192.0.2.1")],
)
def test_an_ipv6_address_is_counted_with_its_neighbours(address: str, counted_as: str) -> None:
    assert _place(address) == counted_as
