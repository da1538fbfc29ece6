"""/metrics for Prometheus: the queue from the snapshot, operations from the journal, requests counted here.

What workers count lies in files that they share (prometheus_client's multiprocess mode, whose directory server.py
sets up before this module is imported), so that any worker can tell the sum.
"""

import os
from collections.abc import Iterable, Iterator
from contextlib import suppress
from itertools import groupby
from pathlib import Path
from typing import Any

from apiflask import APIBlueprint
from flask import Flask, Response, request
from prometheus_client import CollectorRegistry, Counter, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from prometheus_client.multiprocess import MultiProcessCollector

from postqueue_api.errors import AgentUnavailable, Error
from postqueue_api.queue.snapshot import Bucket, Snapshot
from postqueue_api.web import audit, schemas
from postqueue_api.web.auth import role
from postqueue_api.web.context import context, fresh_snapshot

metrics = APIBlueprint("metrics", __name__, tag="Metrics")

_REGISTRY = CollectorRegistry()
_REQUESTS = Counter("postqueue_api_requests", "Requests answered.", ["method", "route", "status"], registry=_REGISTRY)
_REFUSED = Counter("postqueue_api_refused_credentials", "Credentials refused.", ["kind"], registry=_REGISTRY)
_ENDS = ("done", "cancelled", "interrupted", "failed")
_RAW: dict[int | str, dict[str, str | dict[str, dict[str, Any]]]] = {
    200: {"description": "Prometheus text format", "content": {"text/plain": {"schema": {"type": "string"}}}}
}


@metrics.get("/metrics")
@metrics.input(schemas.NoQuery, location="query", arg_name="query")
@metrics.doc(summary="Metrics for Prometheus", responses=_RAW)
@role("viewer")
def show_metrics(query: schemas.NoQuery) -> Response:
    """The queue, the operations and the requests, in Prometheus's text format."""
    registry = CollectorRegistry()
    registry.register(_Collector())
    if "PROMETHEUS_MULTIPROC_DIR" in os.environ:
        registry.register(Counted(None, os.environ["PROMETHEUS_MULTIPROC_DIR"]))  # type: ignore[no-untyped-call]
        counted = b""
    else:
        counted = generate_latest(_REGISTRY)
    return Response(generate_latest(registry) + counted, content_type=CONTENT_TYPE_LATEST)


def install(app: Flask) -> None:
    """Count what the application answers and whom it refuses."""
    app.after_request(_count)
    audit.credential_refused.connect(_count_refused)
    for kind in audit.KINDS:
        _REFUSED.labels(kind)  # 0, so that the first ones are an increase


def _count(response: Response) -> Response:
    rule = request.url_rule
    # Never the path itself: anybody could make as many series as paths.
    route = "none" if rule is None else rule.rule
    method = request.method if request.method in ("GET", "HEAD", "POST", "DELETE", "OPTIONS") else "other"
    _REQUESTS.labels(method, route, str(response.status_code)).inc()
    return response


def _count_refused(sender: object, kind: str, **_: object) -> None:
    _REFUSED.labels(kind).inc()


class Counted(MultiProcessCollector):
    """What all workers counted. A file that one of them has only just made is empty, and the library fails on it."""

    def collect(self) -> Iterable[Metric]:
        """Prometheus's own name for it."""
        files = [str(path) for path in Path(self._path).glob("*.db") if path.stat().st_size]
        return self.merge(files)  # type: ignore[no-any-return, no-untyped-call]


class _Collector:
    """What is known at this moment; of a queue that cannot be asked only `postfix_up 0`."""

    def collect(self) -> Iterator[Metric]:
        """Prometheus's own name for it."""
        yield GaugeMetricFamily("postqueue_api_agent_up", "Whether the agent answers.", int(_agent_answers()))
        try:
            found = fresh_snapshot()
        except Error:
            yield _postfix_up(False)
        else:
            yield _postfix_up(found.info.mail_system == "running")
            yield from _of_snapshot(found)
            yield from _of_queues(found)
            yield from _of_messages(found.histograms())
        # The journal of an agent that was killed cannot be read until there is one again.
        with suppress(AgentUnavailable):
            yield from _of_operations()


def _agent_answers() -> bool:
    try:
        context().agent.instance()
    except Error as error:
        return not isinstance(error, AgentUnavailable)  # any other one is what it answered
    return True


def _postfix_up(is_up: bool) -> Metric:
    return GaugeMetricFamily("postfix_up", "Whether Postfix runs; 0 too when that cannot be asked.", int(is_up))


def _of_snapshot(found: Snapshot) -> Iterator[Metric]:
    info = found.info
    for name, text, value in (
        ("age_seconds", "Seconds since the listing began.", info.age),
        ("duration_seconds", "Seconds that the listing took.", info.duration),
        ("skipped_lines", "Lines of the listing that could not be read.", info.skipped_lines),
        ("complete", "Whether the listing came to its end.", int(info.complete)),
    ):
        yield GaugeMetricFamily(f"postqueue_api_snapshot_{name}", text, value)


def _of_queues(found: Snapshot) -> Iterator[Metric]:
    queues = found.queues()
    now = found.info.taken_at + found.info.age
    for name, text, values in (
        ("messages", "Messages in the queue.", [queue.messages for queue in queues]),
        ("bytes", "Bytes of the messages in the queue.", [queue.bytes for queue in queues]),
        ("recipients", "Recipients still due.", [queue.recipients for queue in queues]),
        (
            "oldest_age_seconds",
            "Age of the oldest message; 0 when there is none.",
            [0 if queue.oldest_arrival_time is None else now - queue.oldest_arrival_time for queue in queues],
        ),
    ):
        family = GaugeMetricFamily(f"postqueue_api_queue_{name}", text, labels=["queue"])
        for queue, value in zip(queues, values, strict=True):
            family.add_metric([queue.queue_name], value)
        yield family


def _of_messages(buckets: Iterable[Bucket]) -> Iterator[Metric]:
    """Under the names that postfix_exporter gave them, which dashboards know."""
    rows = {key: list(found) for key, found in groupby(buckets, lambda each: (each.queue_name, each.measure))}
    for measure, name, text in (
        ("size", "postfix_showq_message_size_bytes", "Size of messages in the queue."),
        ("age", "postfix_showq_message_age_seconds", "Age of messages in the queue when it was listed."),
    ):
        family = HistogramMetricFamily(name, text, labels=["queue"])
        for queue_name in sorted({key[0] for key in rows}):
            bounds = [(_bound(each.bound), each.messages) for each in rows[queue_name, measure]]
            family.add_metric([queue_name], bounds, rows[queue_name, f"{measure}_sum"][0].messages)
        yield family


def _bound(bound: float) -> str:
    return "+Inf" if bound == float("inf") else repr(bound)


def _of_operations() -> Iterator[Metric]:
    states = context().journal.states()
    totals = {("delete", "removed"): 0}  # so that the first ones are an increase
    totals |= {(action, outcome): count for action, outcome, count in context().journal.totals()}
    settled = CounterMetricFamily(
        "postqueue_api_operation_messages", "Messages that operations have settled.", labels=["action", "outcome"]
    )
    for labels, count in totals.items():
        settled.add_metric(labels, count)
    yield settled
    ended = CounterMetricFamily("postqueue_api_operations_ended", "Operations that are over.", labels=["state"])
    for state in _ENDS:
        ended.add_metric([state], states.pop(state, 0))
    yield ended
    unfinished = sum(states.values())
    yield GaugeMetricFamily("postqueue_api_operations_unfinished", "Operations that wait or run.", unfinished)
