"""Behind a real nginx that ends TLS and asks for client certificates; and what its headers are worth from elsewhere."""

import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from postqueue_api import config
from postqueue_api.sandbox import Sandbox
from tests.certificates import Authority, Pair
from tests.live import service as services
from tests.live.service import CREDENTIALS, Service
from tests.nginx import nginx, trusting

SUBJECT = "CN=monitor,O=Söhne"
MAPPED = f'[monitor]\ncertificates = ["{SUBJECT}"]\nroles = ["viewer"]\n'
DOCUMENT = (Path(__file__).parents[2] / "docs" / "tls.md").read_text()
# The proxy speaks from 127.0.0.1, and others who reach the service from 127.0.0.2.
TRUSTING = {
    "credentials": CREDENTIALS + MAPPED,
    "trusted_proxies": "127.0.0.1/32,10.0.0.0/8",
    "client_certificate_header": "X-Client-Subject",
    "lockout_refusals": "5",
    "lockout_seconds": "3600",
}


@pytest.fixture(scope="module")
def files() -> Iterator[Path]:
    with services.place() as directory:
        yield directory


@pytest.fixture(scope="module")
def authority(files: Path) -> Authority:
    return Authority(files)


@pytest.fixture(scope="module")
def client(authority: Authority) -> Pair:
    return authority.sign("client", "/O=Söhne/CN=monitor")


@pytest.fixture(scope="module")
def behind(box: Sandbox) -> Iterator[Service]:
    """The service, asked directly."""
    with services.started(box, TRUSTING) as made:
        yield made


@pytest.fixture(scope="module")
def front(behind: Service, authority: Authority, files: Path) -> Iterator[Service]:
    """The same through deploy/nginx.conf."""
    server = authority.sign("nginx", "/CN=localhost", alternative="DNS:localhost,IP:127.0.0.1")
    with nginx(files, behind.port, server, authority.certificate) as port:
        yield replace(behind, port=port, trust=trusting(authority.certificate))


def with_certificate(front: Service, authority: Authority, client: Pair) -> Service:
    return replace(front, trust=trusting(authority.certificate, client))


def test_the_certificate_that_nginx_verified_is_a_credential(
    front: Service, authority: Authority, client: Pair
) -> None:
    shown = with_certificate(front, authority, client)
    assert shown.ask("GET", "/v1/queues", None).status == 200
    forged = {"X-Client-Subject": "CN=somebody", "X-Forwarded-For": "203.0.113.7"}
    assert shown.ask("GET", "/v1/queues", None, forged).status == 200
    assert shown.ask("POST", "/v1/flush", None).status == 403
    assert front.audit()[-1]["actor"] == "monitor"
    assert front.ask("GET", "/v1/queues", "viewer").status == 200


def test_a_subject_that_the_client_sends_through_nginx_is_not_believed(front: Service) -> None:
    for text in (SUBJECT, SUBJECT.encode().decode("latin-1")):
        headers = {"X-Client-Subject": text, "X_Client_Subject": text}
        assert front.ask("GET", "/v1/queues", None, headers).status == 401


def test_nginx_does_not_compress_pages_which_hold_tokens(front: Service) -> None:
    page = front.ask("GET", "/login", None, {"Accept-Encoding": "gzip"})
    assert page.body.startswith(b"<!doctype html>")
    assert "Content-Encoding" not in page.headers


def test_a_certificate_of_another_ca_is_no_credential(front: Service, authority: Authority, files: Path) -> None:
    stranger = Authority(files, "other").sign("stranger", "/O=Söhne/CN=monitor")
    assert with_certificate(front, authority, stranger).ask("GET", "/v1/queues", "viewer").status == 400  # by nginx


def test_the_audit_has_the_address_that_the_last_proxy_wrote_not_one_that_a_client_claims(front: Service) -> None:
    assert front.ask("POST", "/v1/flush", "viewer", {"X-Forwarded-For": "203.0.113.7"}).status == 403
    assert front.audit()[-1]["address"] == "127.0.0.1"


DIRECTLY = {"X-Forwarded-For": "203.0.113.9", "X-Client-Subject": "CN=monitor,O=S\\C3\\B6hne"}


def test_from_a_trusted_address_the_headers_count(behind: Service) -> None:
    assert behind.ask("GET", "/v1/queues", None, DIRECTLY).status == 200
    assert behind.ask("POST", "/v1/flush", None, DIRECTLY).status == 403
    assert (behind.audit()[-1]["actor"], behind.audit()[-1]["address"]) == ("monitor", "203.0.113.9")


def test_forged_headers_from_elsewhere_are_worth_nothing(behind: Service) -> None:
    stranger = replace(behind, source="127.0.0.2")
    assert stranger.ask("GET", "/v1/queues", None, DIRECTLY).status == 401
    assert stranger.ask("POST", "/v1/flush", "viewer", DIRECTLY).status == 403
    assert behind.audit()[-1]["address"] == "127.0.0.2"


@pytest.mark.parametrize("header", [None, "", "somebody", "203.0.113.9,", "203.0.113.9, 999.1.1.1", "unknown"])
def test_a_trusted_proxy_that_does_not_say_whose_request_it_is_is_refused(behind: Service, header: str | None) -> None:
    headers = {} if header is None else {"X-Forwarded-For": header}
    answer = behind.ask("GET", "/v1/queues", "viewer", headers)
    assert (answer.status, answer.json()["field"]) == (400, "X-Forwarded-For")
    assert behind.ask("GET", "/health/live", None, headers).status == 200


def test_with_two_hops_the_client_is_the_second_from_the_right(box: Sandbox) -> None:
    with services.started(box, {**TRUSTING, "proxy_hops": "2"}) as service:
        for header, address in (
            ("10.9.9.9, 203.0.113.1, 198.51.100.2", "203.0.113.1"),
            ("2001:DB8::1, ::1", "2001:db8::1"),
        ):
            assert service.ask("POST", "/v1/flush", "viewer", {"X-Forwarded-For": header}).status == 403
            assert service.audit()[-1]["address"] == address
        assert service.ask("GET", "/v1/queues", "viewer", {"X-Forwarded-For": "203.0.113.1"}).status == 400


def test_a_lockout_is_of_the_clients_address_not_of_the_proxys(behind: Service, front: Service) -> None:
    def ask(address: str, **headers: str) -> int:
        return behind.ask("GET", "/v1/queues", None, {"X-Forwarded-For": address, **headers}).status

    wrong = {"Authorization": "Bearer wrong"}
    assert [ask("198.51.100.7", **wrong) for _ in range(6)] == [401] * 5 + [429]
    good = {"Authorization": services.AUTHORIZATION["viewer"]}
    assert ask("198.51.100.7", **good) == 429
    assert ask("198.51.100.8", **good) == 200
    assert front.ask("GET", "/v1/queues", "viewer").status == 200
    (line,) = [line for line in behind.audit() if line.get("reason") == "lockout"]
    assert (line["address"], line["outcome"]) == ("198.51.100.7", "too_many_requests")


def as_written(heading: str) -> dict[str, str]:
    """The settings that a section of docs/tls.md gives, by their names in small letters."""
    _, _, section = DOCUMENT.partition(f"## {heading}\n")
    found = dict(re.findall(r"^    POSTQUEUE_API_(\w+)=(\S+)$", section.partition("\n## ")[0], re.MULTILINE))
    return {name.lower(): value for name, value in found.items()}


@pytest.mark.parametrize("heading", ["Behind nginx", "Behind an Application Load Balancer"])
def test_the_settings_that_the_page_gives_are_accepted(heading: str) -> None:
    settings = config.load({config.variable(name): value for name, value in as_written(heading).items()})
    assert settings.trusted_proxies
    assert settings.client_certificate_header is not None


def test_behind_a_load_balancer_its_own_header_and_address_count_and_no_others(box: Sandbox) -> None:
    """As an Application Load Balancer sends them: its entry of X-Forwarded-For is the last, with a port if so set."""
    header = as_written("Behind an Application Load Balancer")["client_certificate_header"]
    settings = {
        "credentials": CREDENTIALS + MAPPED,
        "trusted_proxies": "127.0.0.1",
        "client_certificate_header": header,
    }
    with services.started(box, {**settings, "tls_ended_by_proxy": "yes"}) as service:
        for address in ("203.0.113.9", "198.51.100.1, 203.0.113.9", "CN=monitor, 203.0.113.9:50123"):
            sent = {"X-Forwarded-For": address, header: "CN=monitor,O=S\\C3\\B6hne"}
            assert service.ask("GET", "/v1/queues", None, sent).status == 200
            assert service.ask("POST", "/v1/flush", None, sent).status == 403
            assert (service.audit()[-1]["actor"], service.audit()[-1]["address"]) == ("monitor", "203.0.113.9")
            assert replace(service, source="127.0.0.2").ask("GET", "/v1/queues", None, sent).status == 401
        others = {"X-Client-Subject": SUBJECT.encode().decode("latin-1"), header.replace("-", "_"): "CN=monitor"}
        assert service.ask("GET", "/v1/queues", None, {"X-Forwarded-For": "203.0.113.9", **others}).status == 401
