"""A real Prometheus with our configuration asks the real service: every query of the dashboard has an answer."""

import json
import math
import re
import socket
import struct
import subprocess
import threading
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from postqueue_api.sandbox import Sandbox, processes
from postqueue_api.sandbox.sink import LOOPBACK
from tests.certificates import Authority
from tests.live import service as services
from tests.live.mailbox import Mailbox
from tests.live.service import FRESH, SECRETS, Service

CLONE = Path(__file__).parents[2]
PAGE = (CLONE / "docs" / "monitoring.md").read_text()
DASHBOARD = json.loads((CLONE / "deploy" / "grafana" / "dashboard.json").read_text())
QUERIES = [(panel["title"], target["expr"]) for panel in DASHBOARD["panels"] for target in panel.get("targets", ())]
CLOUD_MAP = "relay.postqueue-api.internal"
RESOLVER = "127.83.79.1"
# Prometheus with another /etc/resolv.conf than the machine's: resolv.conf(5) knows no port, so ours is 53.
WITH_RESOLVER = 'mount --bind "$1" /etc/resolv.conf && shift && exec "$@"'


@contextmanager
def resolver() -> Iterator[None]:
    """Cloud Map's DNS: CLOUD_MAP has the address of loopback, and nothing else is known."""

    def serve(server: socket.socket) -> None:
        with suppress(OSError):  # it was shut down
            while True:
                query, client = server.recvfrom(512)
                if not query:
                    return
                server.sendto(answer(query), client)

    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind((RESOLVER, 53))
        thread = threading.Thread(target=serve, args=(server,))
        thread.start()
        try:
            yield
        finally:
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as last:
                last.sendto(b"", (RESOLVER, 53))
            thread.join()


def answer(query: bytes) -> bytes:
    """RFC 1035, section 4: one question in, its address or NXDOMAIN out."""
    end = query.index(b"\0", 12) + 5
    question = query[12:end]
    name = b"".join(struct.pack("B", len(part)) + part.encode() for part in CLOUD_MAP.split(".")) + b"\0"
    known = question.lower() == name + struct.pack(">HH", 1, 1)
    header = query[:2] + struct.pack(">5H", 0x8180 if known else 0x8183, 1, int(known), 0, 0)
    address = struct.pack(">HHHIH", 0xC00C, 1, 1, 10, 4) + socket.inet_aton(LOOPBACK)
    return header + question + (address if known else b"")


@dataclass(frozen=True)
class Prometheus:
    port: int

    def get(self, path: str, **query: str) -> Any:
        url = f"http://{LOOPBACK}:{self.port}/api/v1/{path}?{urllib.parse.urlencode(query)}"
        with urllib.request.urlopen(url, timeout=20) as found:
            document = json.load(found)
        assert document["status"] == "success"
        return document["data"]

    def values(self, query: str) -> list[float]:
        """What the query gives now; what is not a number left out."""
        found = [float(each["value"][1]) for each in self.get("query", query=query)["result"]]
        return [value for value in found if not math.isnan(value)]

    def targets(self) -> dict[str, str]:
        """The address that each job asks, of those that answered well."""
        found = self.get("targets")["activeTargets"]
        return {each["labels"]["job"]: each["scrapeUrl"] for each in found if each["health"] == "up"}


@pytest.fixture(scope="module")
def secured(box: Sandbox) -> Iterator[tuple[Service, Path]]:
    """A second service on that queue, with TLS of its own, and the CA of its certificate."""
    with services.place() as directory:
        authority = Authority(directory)
        pair = authority.sign("server", "/CN=localhost")
        files = {"tls_certificate_file": str(pair.certificate), "tls_key_file": str(pair.key)}
        with services.started(box, files) as made:
            yield made, authority.certificate


@pytest.fixture(scope="module")
def prometheus(service: Service, secured: tuple[Service, Path]) -> Iterator[Prometheus]:
    with services.place() as directory, resolver():
        configure(directory, service.port, secured[0].port, secured[1])
        port = services.free_port()
        places = (f"--config.file={directory}/prometheus.yml", f"--storage.tsdb.path={directory}/data")
        flags = (*places, f"--web.listen-address={LOOPBACK}:{port}", "--log.level=warn")
        program = ("sh", "-c", WITH_RESOLVER, "-", str(directory / "resolv.conf"), "/usr/bin/prometheus", *flags)
        with (directory / "log").open("wb") as log:
            process = subprocess.Popen(("unshare", "--mount", *program), stdout=log, stderr=log)
        made = Prometheus(port)

        def asks_both() -> bool:
            assert process.poll() is None, (directory / "log").read_text()
            with suppress(OSError):
                return len(made.targets()) == 2
            return False

        try:
            processes.wait_until(asks_both, 60)
            yield made
        finally:
            process.terminate()
            process.wait(20)


def configure(directory: Path, port: int, tls_port: int, ca: Path) -> None:
    """Our files, with this machine's ports and places in them, and asked every two seconds."""
    (directory / "resolv.conf").write_text(f"nameserver {RESOLVER}\n")
    (directory / "postqueue-api.token").write_text(f"{SECRETS['viewer']}\n")
    (directory / "postqueue-api-ca.pem").write_bytes(ca.read_bytes())
    (directory / "alerts.yml").write_text((CLONE / "deploy" / "prometheus" / "alerts.yml").read_text())
    text = (CLONE / "deploy" / "prometheus" / "prometheus.yml").read_text()
    for ours, here, count in (
        ("/etc/prometheus/", f"{directory}/", 3),
        ("port: 8025", f"port: {port}", 1),
        ("mail-queue.example.org:443", f"localhost:{tls_port}", 1),
        ("scrape_interval: 30s", "scrape_interval: 2s", 1),
        ("evaluation_interval: 30s", "evaluation_interval: 2s", 1),
        ("scrape_timeout: 20s", "scrape_timeout: 2s", 1),
        ("refresh_interval: 15s", "refresh_interval: 1s", 1),
    ):
        assert text.count(ours) == count, ours
        text = text.replace(ours, here)
    (directory / "prometheus.yml").write_text(text)


@pytest.fixture(scope="module")
def busy(service: Service, box: Sandbox, prometheus: Prometheus) -> None:
    """Mail in the queue, on hold and deleted, and a credential that was refused, while Prometheus looks on."""
    mailbox = Mailbox(box)
    mailbox.deferred("a@full.example", "b@full.example")
    queue_id = mailbox.deferred()
    assert service.change("hold", mailbox.deferred()).status == 200
    assert service.change("delete", queue_id).status == 200
    assert service.ask("GET", "/v1/queues", None, {"Authorization": "Bearer wrong"}).status == 401


def test_the_task_is_found_by_its_name_in_cloud_map_and_the_host_is_asked_by_tls(
    prometheus: Prometheus, service: Service, secured: tuple[Service, Path]
) -> None:
    assert prometheus.targets() == {
        "postqueue-api": f"http://{LOOPBACK}:{service.port}/metrics",
        "postqueue-api-host": f"https://localhost:{secured[0].port}/metrics",
    }


@pytest.mark.parametrize(("title", "query"), QUERIES, ids=[title for title, _ in QUERIES])
def test_every_query_of_the_dashboard_has_an_answer(prometheus: Prometheus, busy: None, title: str, query: str) -> None:
    for name, value in (("$job", ".+"), ("$instance", ".+"), ("$__rate_interval", "1m")):
        query = query.replace(name, value)
    assert "$" not in query
    processes.wait_until(lambda: prometheus.values(query), 30)


def test_what_the_dashboard_chooses_from_is_there(prometheus: Prometheus) -> None:
    variables = DASHBOARD["templating"]["list"]
    assert [each["definition"] for each in variables[1:]] == [
        "label_values(postfix_up, job)",
        'label_values(postfix_up{job=~"$job"}, instance)',
    ]
    found = prometheus.get("series", **{"match[]": "postfix_up"})
    assert {each["job"] for each in found} == {"postqueue-api", "postqueue-api-host"}


def test_every_alert_is_evaluated_and_none_fires_while_all_is_well(prometheus: Prometheus) -> None:
    def rules() -> list[dict[str, Any]]:
        return [rule for group in prometheus.get("rules")["groups"] for rule in group["rules"]]

    processes.wait_until(lambda: all(rule["health"] == "ok" for rule in rules()), 30)
    # A fault of the service, or an operation that a test of its own broke off, would be seen here as well.
    assert {rule["name"] for rule in rules() if rule["state"] == "firing"} <= {"OperationNotFinished"}


def test_the_table_of_metrics_is_what_the_service_shows(service: Service, busy: None) -> None:
    page = service.ask("GET", "/metrics", "viewer", FRESH).body.decode()
    shown = {}
    for family in text_string_to_metric_families(page):
        name = f"{family.name}_total" if family.type == "counter" else family.name
        labels = {label for sample in family.samples for label in sample.labels} - {"le"}
        shown[name] = (family.type, family.documentation, labels)
    rows = re.findall(r"^\| `([a-z_]+)` \| (\w+) \| ([^|]*) \| ([^|]*) \|$", PAGE, re.MULTILINE)
    written = {name: (kind, text, set(re.findall(r"`(\w+)`", labels))) for name, kind, labels, text in rows}
    assert written == shown


def test_what_alerts_and_dashboard_ask_for_is_in_the_table() -> None:
    """Also where a query would be answered with nothing."""
    alerts = (CLONE / "deploy" / "prometheus" / "alerts.yml").read_text()
    asked = set(re.findall(r"\b(?:postqueue_api|postfix)_[a-z_]+", alerts + "".join(query for _, query in QUERIES)))
    known = set(re.findall(r"^\| `([a-z_]+)` \|", PAGE, re.MULTILINE))
    assert {name.removesuffix("_bucket") for name in asked} <= known
    assert len(asked) > 12
