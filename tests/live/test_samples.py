"""GET /v1/samples: what the agent wrote down of a real queue, also when nobody asked, and after a kill."""

import os
import signal
from typing import Any

import pytest

from postqueue_api.queue.samples import NAME
from postqueue_api.sandbox import Sandbox, processes
from tests.live import service as services
from tests.live.mailbox import Mailbox
from tests.live.service import Service

OFTEN = {"sample_interval_seconds": "1", "lock_wait_seconds": "1"}


def samples(service: Service, since: int = 0) -> Any:
    answer = service.ask("GET", f"/v1/samples?since={since}", "viewer")
    assert answer.status == 200
    return answer.json()["samples"]


def test_the_agent_samples_the_queue_by_itself_and_counts_what_arrived(short_box: Sandbox) -> None:
    mailbox = Mailbox(short_box)
    mailbox.postfix("postsuper", "-d", "ALL")
    with services.started(short_box, OFTEN) as service:
        assert service.ask("GET", "/v1/samples", "viewer").json() == {"interval_seconds": None, "samples": []}
        wait_for(service, 2)
        assert service.ask("GET", "/v1/samples", "viewer").json()["interval_seconds"] == 1
        assert all(sum(each["queues"].values()) == 0 for each in samples(service))
        assert samples(service)[0]["arrived"] is None
        queue_ids = [mailbox.deferred() for _ in range(3)]
        processes.wait_until(lambda: samples(service)[-1]["queues"]["deferred"] == 3, 60)
        assert sum(each["arrived"] or 0 for each in samples(service)) == 3
        mailbox.postfix("postsuper", "-d", "-", stdin="".join(f"{each}\n" for each in queue_ids).encode())
        processes.wait_until(lambda: samples(service)[-1]["queues"]["deferred"] == 0, 60)
        found = samples(service)
        assert sum(each["removed"] or 0 for each in found) == 3
        taken_at = [each["taken_at"] for each in found]
        assert taken_at == sorted(set(taken_at))
        since = int(taken_at[2])
        assert samples(service, since)[0]["taken_at"] == min(each for each in taken_at if each > since)


def test_an_agent_that_is_killed_leaves_its_samples_to_be_read_and_goes_on_with_them(box: Sandbox) -> None:
    with services.place() as directory:
        shared = {"state_directory": str(directory / "state"), "agent_socket": str(directory / "run" / "agent.sock")}
        for _ in range(3):
            with services.started(box, {**OFTEN, **shared}) as service:
                wait_for(service, len(samples(service)) + 2)
                for pid in service.tree():
                    os.kill(pid, signal.SIGKILL)
                service.process.wait()
        with services.started(box, {**OFTEN, **shared}, command="web", wait=False) as web:
            processes.wait_until(lambda: answers(web), 60)
            assert len(samples(web)) >= 6


def wait_for(service: Service, count: int) -> None:
    processes.wait_until(lambda: len(samples(service)) >= count, 60)


def answers(web: Service) -> bool:
    try:
        return web.ask("GET", "/health/live", None).status == 200
    except OSError:
        return False


def test_a_file_of_another_version_is_begun_anew_and_the_log_says_so(box: Sandbox) -> None:
    with services.place() as directory:
        state = directory / "state"
        state.mkdir()
        (state / NAME).write_text('{"version": 99}')
        with services.started(box, {**OFTEN, "state_directory": str(state)}) as service:
            wait_for(service, 1)
            assert "so the samples begin anew" in service.stderr


def test_with_an_interval_of_none_there_are_no_samples(service: Service) -> None:
    assert service.ask("GET", "/v1/samples", "viewer").json() == {"interval_seconds": None, "samples": []}


@pytest.mark.parametrize(
    ("query", "field"), [("since=-1", "since"), ("since=", "since"), ("since=1e3", "since"), ("until=1", "until")]
)
def test_a_time_that_is_none_is_refused(service: Service, query: str, field: str) -> None:
    answer = service.ask("GET", f"/v1/samples?{query}", "viewer")
    assert (answer.status, answer.code, answer.json()["field"]) == (400, "invalid_argument", field)


def test_nobody_without_a_role_sees_the_samples(service: Service) -> None:
    assert service.ask("GET", "/v1/samples", None).status == 401
    assert service.ask("GET", "/v1/samples", "reader").status == 403
