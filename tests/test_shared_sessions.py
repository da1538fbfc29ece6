"""The table of sessions that are alive, in memory that processes share."""

import os

from postqueue_api.web import shared_sessions
from postqueue_api.web.shared_sessions import SharedSessions


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_a_session_is_alive_from_its_beginning_to_its_end() -> None:
    table = SharedSessions(60)
    assert not table.use("one")
    table.add("one")
    assert table.use("one")
    assert not table.use("two")
    table.remove("one")
    assert not table.use("one")


def test_an_end_of_what_is_not_there_ends_nothing_else() -> None:
    table = SharedSessions(60)
    table.add("one")
    table.remove("two")
    assert table.use("one")


def test_each_use_lets_it_live_on_and_idleness_ends_it() -> None:
    clock = Clock()
    table = SharedSessions(60, clock)
    table.add("one")
    for _ in range(5):
        clock.now += 59
        assert table.use("one")
    clock.now += 60
    assert not table.use("one")
    assert not table.use("one"), "a look must not wake it up"


def test_a_full_table_ends_the_session_that_was_unused_for_longest() -> None:
    clock = Clock()
    table = SharedSessions(60, clock)
    many = [str(number) for number in range(shared_sessions._WAYS * shared_sessions._SETS * 2)]
    for name in many:
        clock.now += 0.0001
        table.add(name)
    alive = [name for name in many if table.use(name)]
    assert len(many) // 3 < len(alive) <= len(many) // 2
    assert set(many[-shared_sessions._SETS // 4 :]) <= set(alive)


def test_another_process_sees_begin_and_end() -> None:
    table = SharedSessions(60)
    table.add("begun here")
    child = os.fork()
    if not child:
        found = table.use("begun here")
        table.remove("begun here")
        table.add("begun there")
        os._exit(0 if found else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert not table.use("begun here")
    assert table.use("begun there")
