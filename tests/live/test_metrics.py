"""/metrics: what promtool accepts, what Postfix lists, and counters that no number of workers changes."""

import os
import signal
from concurrent.futures import ThreadPoolExecutor

import pytest
from prometheus_client.parser import text_string_to_metric_families

from postqueue_api.sandbox import Sandbox, processes
from tests.live import service as services
from tests.live.mailbox import Mailbox
from tests.live.service import FRESH, Service

QUEUES = ("maildrop", "incoming", "active", "deferred", "hold")
KINDS = ("missing", "malformed", "refused", "forbidden")
REQUESTS = 120
Values = dict[tuple[str, frozenset[tuple[str, str]]], float]


def scrape(service: Service) -> Values:
    answer = service.ask("GET", "/metrics", "viewer", FRESH)
    assert answer.status == 200
    assert answer.headers["Content-Type"].startswith("text/plain; version=")
    families = text_string_to_metric_families(answer.body.decode())
    found = [
        (sample.name, frozenset(sample.labels.items()), sample.value) for each in families for sample in each.samples
    ]
    assert len({each[:2] for each in found}) == len(found)
    return {(name, labels): value for name, labels, value in found}


def value(values: Values, name: str, **labels: str) -> float:
    return values.get((name, frozenset(labels.items())), 0)


def answered(values: Values, route: str, status: str, method: str = "GET") -> float:
    return value(values, "postqueue_api_requests_total", method=method, route=route, status=status)


def test_promtool_has_nothing_to_say(service: Service, mailbox: Mailbox) -> None:
    mailbox.deferred()
    service.ask("GET", "/v1/queues", "viewer", FRESH)
    page = service.ask("GET", "/metrics", "viewer", FRESH).body
    done = processes.run("/usr/bin/promtool", "check", "metrics", stdin=page)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")


def test_the_queue_is_counted_as_postfix_lists_it_with_explicit_zeros(
    service: Service, box: Sandbox, mailbox: Mailbox
) -> None:
    mailbox.deferred("a@full.example", "b@full.example")
    mailbox.held()
    values, listed = scrape(service), box.queue()
    assert value(values, "postfix_up") == 1
    assert value(values, "postqueue_api_snapshot_complete") == 1
    assert value(values, "postqueue_api_snapshot_skipped_lines") == 0
    assert 0 < value(values, "postqueue_api_snapshot_duration_seconds") < 5
    assert 0 <= value(values, "postqueue_api_snapshot_age_seconds") < 5
    for name in QUEUES:
        rows = [row for row in listed if row["queue_name"] == name]
        expected = {
            "messages": len(rows),
            "bytes": sum(row["message_size"] for row in rows),
            "recipients": sum(len(row["recipients"]) for row in rows),
        }
        for what, number in expected.items():
            labels = frozenset({("queue", name)})
            assert values[f"postqueue_api_queue_{what}", labels] == number, (name, what)
        assert ("postqueue_api_queue_oldest_age_seconds", frozenset({("queue", name)})) in values
        if rows:
            size, age = "postfix_showq_message_size_bytes", "postfix_showq_message_age_seconds"
            assert value(values, f"{size}_count", queue=name) == len(rows)
            assert value(values, f"{size}_sum", queue=name) == expected["bytes"]
            assert value(values, f"{size}_bucket", queue=name, le="+Inf") == len(rows)
            below = sum(1 for row in rows if row["message_size"] <= 1000)
            assert value(values, f"{size}_bucket", queue=name, le="1000.0") == below
            assert value(values, f"{age}_count", queue=name) == len(rows)


def test_requests_over_many_connections_to_several_workers_are_counted_once_each(service: Service) -> None:
    before = scrape(service)
    with ThreadPoolExecutor(12) as pool:
        statuses = list(pool.map(lambda _: service.ask("GET", "/v1/queues", "viewer").status, range(REQUESTS)))
    assert statuses == [200] * REQUESTS
    scrapes = [scrape(service) for _ in range(6)]  # whichever worker answers
    counted = [answered(values, "/v1/queues", "200") - answered(before, "/v1/queues", "200") for values in scrapes]
    assert counted == [REQUESTS] * 6
    own = [answered(values, "/metrics", "200") for values in scrapes]
    assert own == sorted(own)
    assert own[-1] - own[0] == 5


def test_a_worker_that_dies_takes_no_count_with_it() -> None:
    with services.started(None, {"config_directory": "/nonexistent", "web_workers": "3"}) as service:
        for _ in range(30):
            service.ask("GET", "/health/live", None)
        before = answered(scrape(service), "/health/live", "200")
        _, web = service.halves()
        for pid in [pid for pid in service.tree() if services.parent(pid) == web]:
            os.kill(pid, signal.SIGKILL)
        service.wait_until_it_answers()
        assert answered(scrape(service), "/health/live", "200") > before >= 30


def test_what_anybody_can_choose_is_no_label(service: Service) -> None:
    before = scrape(service)
    for path in ("/nothing/1", "/nothing/2", "/v1/nothing"):
        assert service.ask("GET", path, "viewer").status == 404
    assert service.ask("FOO", "/v1/messages", "viewer").status in (405, 501)
    values = scrape(service)
    assert answered(values, "none", "404") - answered(before, "none", "404") == 3
    labels = {label for _, pairs in values for _, label in pairs}
    assert not any("nothing" in label or label == "FOO" for label in labels)


@pytest.mark.parametrize(
    ("authorization", "status", "kind"),
    [
        (services.basic("admin", "wrong"), 401, "refused"),
        (services.basic("nobody", "wrong"), 401, "refused"),
        ("Bearer wrong", 401, "refused"),
        ("Basic !", 401, "malformed"),
        (services.AUTHORIZATION["reader"], 403, "forbidden"),
    ],
    ids=["password", "name", "token", "malformed", "forbidden"],
)
def test_a_refused_credential_is_counted_by_its_kind(
    service: Service, authorization: str, status: int, kind: str
) -> None:
    name = "postqueue_api_refused_credentials_total"
    before = scrape(service)
    for _ in range(3):
        assert service.ask("GET", "/v1/queues", None, {"Authorization": authorization}).status == status
    assert service.ask("GET", "/v1/queues", None).status == 401
    after = scrape(service)
    counted = {each: value(after, name, kind=each) - value(before, name, kind=each) for each in KINDS}
    assert counted == {**dict.fromkeys(KINDS, 0), "missing": 1, kind: 3}


def test_operations_are_counted_by_action_and_outcome(service: Service, mailbox: Mailbox) -> None:
    name, queue_id = "postqueue_api_operation_messages_total", mailbox.deferred()
    before = scrape(service)
    assert service.change("hold", queue_id).json()["outcome"] == "held"
    assert service.change("hold", queue_id).json()["outcome"] == "no_change"
    after = scrape(service)
    for outcome in ("held", "no_change"):
        labels = {"action": "hold", "outcome": outcome}
        assert value(after, name, **labels) == value(before, name, **labels) + 1


def test_operations_that_are_over_are_counted_by_their_state_with_zeros(service: Service, mailbox: Mailbox) -> None:
    name = "postqueue_api_operations_ended_total"
    before = scrape(service)
    service.change("hold", mailbox.deferred())
    after = scrape(service)
    for state, more in (("done", 1), ("cancelled", 0), ("interrupted", 0), ("failed", 0)):
        assert (name, frozenset({("state", state)})) in after
        assert value(after, name, state=state) == value(before, name, state=state) + more
    assert after["postqueue_api_operations_unfinished", frozenset()] == 0


def test_what_an_alert_counts_from_is_there_before_the_first_of_it() -> None:
    with services.started(None, {"config_directory": "/nonexistent"}) as service:
        values = scrape(service)
    deletes = frozenset({"action": "delete", "outcome": "removed"}.items())
    assert values["postqueue_api_operation_messages_total", deletes] == 0
    for kind in (*KINDS, "certificate"):
        assert values["postqueue_api_refused_credentials_total", frozenset({("kind", kind)})] == 0


def test_a_postfix_that_cannot_be_asked_is_told_from_an_agent_that_is_killed(box: Sandbox) -> None:
    with services.started(None, {"config_directory": "/nonexistent"}) as service:
        values = scrape(service)
        assert (value(values, "postfix_up"), value(values, "postqueue_api_agent_up")) == (0, 1)
    with (
        services.started(box, command="agent", wait=False) as agent,
        services.started(box, agent.shared, command="web") as web,
    ):
        assert value(scrape(web), "postqueue_api_agent_up") == 1
        for pid in agent.tree():  # the master first, which would put another in the place of its worker
            os.kill(pid, signal.SIGKILL)
        agent.process.wait(10)
        values = scrape(web)
        assert values["postqueue_api_agent_up", frozenset()] == 0
        assert {name for name, _ in values if name.startswith(("postqueue_api_queue", "postqueue_api_snap"))} == set()
