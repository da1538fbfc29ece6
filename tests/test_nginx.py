"""deploy/nginx.conf in a real nginx: what reaches the service, whatever a client claims."""

import http.client
import http.server
import json
import re
import threading
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from postqueue_api import config
from postqueue_api.sandbox.sink import LOOPBACK
from postqueue_api.web.certificate_names import parse_subject
from tests.certificates import Authority, Pair
from tests.nginx import FILE, NAME, nginx, trusting

FORGED = {
    "X-Forwarded-For": "192.0.2.1",
    "X-Forwarded-Proto": "gopher",
    "X-Forwarded-Host": "forged.example",
    "X-Forwarded-Port": "1",
    "X-Real-IP": "192.0.2.1",
    "Forwarded": "for=192.0.2.1",
    "X-Client-Subject": "CN=monitor",
    "X_Client_Subject": "CN=monitor",
    "x-client-subject": "CN=monitor",
}


@contextmanager
def service() -> Iterator[int]:
    """In the place of the service: answers with the headers that it was sent, as pairs."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = json.dumps(self.headers.items()).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_POST = do_GET  # noqa: N815 - what http.server asks for

        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer((LOOPBACK, 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield server.server_port
        finally:
            server.shutdown()
            thread.join()


@dataclass(frozen=True)
class Proxy:
    port: int
    authority: Authority

    def ask(
        self, headers: Mapping[str, str], client: Pair | None = None, method: str = "GET", path: str = "/v1/messages"
    ) -> tuple[int, list[tuple[str, str]]]:
        """The status, and the headers that the service got; a body is announced at the most."""
        context = trusting(self.authority.certificate, client)
        with closing(http.client.HTTPSConnection("localhost", self.port, timeout=10, context=context)) as connection:
            connection.request(method, path, headers={"Host": NAME, **headers})
            answer = connection.getresponse()
            body = answer.read()
            return answer.status, [] if answer.status != 200 else [(name, value) for name, value in json.loads(body)]


@pytest.fixture(scope="module")
def proxy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Proxy]:
    directory = tmp_path_factory.mktemp("nginx")
    authority = Authority(directory)
    server = authority.sign("server", "/CN=localhost")
    with service() as port, nginx(directory, port, server, authority.certificate) as tls:
        yield Proxy(tls, authority)


def told(headers: list[tuple[str, str]], name: str) -> list[str]:
    return [value for known, value in headers if known.lower() == name.lower()]


@pytest.mark.parametrize("forged", [{}, *({name: value} for name, value in FORGED.items())])
def test_who_asks_and_how_is_told_by_nginx_alone(proxy: Proxy, forged: dict[str, str]) -> None:
    status, headers = proxy.ask(forged)
    assert status == 200
    assert told(headers, "X-Forwarded-For") == [LOOPBACK]
    assert told(headers, "X-Forwarded-Proto") == ["https"]
    for name in ("X-Client-Subject", "X_Client_Subject", "X-Real-IP", "Forwarded", "X-Forwarded-Host"):
        assert told(headers, name) == [], name


def test_the_subject_of_a_verified_certificate_is_passed_on_in_place_of_a_forged_one(proxy: Proxy) -> None:
    client = proxy.authority.sign("client", r"/O=Söhne, Example/CN=gate")
    for forged in ({}, {"X-Client-Subject": "CN=monitor"}, {"X_Client_Subject": "CN=monitor"}):
        status, headers = proxy.ask(forged, client)
        assert status == 200
        (subject,) = told(headers, "X-Client-Subject")
        assert parse_subject(subject) == parse_subject(r"CN=gate,O=Söhne\, Example")
        assert told(headers, "X_Client_Subject") == []


@pytest.mark.parametrize("how", ["of another authority", "expired"])
def test_a_client_certificate_that_is_not_good_is_refused(proxy: Proxy, tmp_path: Path, how: str) -> None:
    other = Authority(tmp_path, "other").sign("stranger", "/CN=gate")
    expired = proxy.authority.sign("expired", "/CN=gate", days=-1)
    assert proxy.ask({}, {"of another authority": other, "expired": expired}[how]) == (400, [])


def test_the_settings_that_it_asks_for_are_settings_and_name_the_header_that_it_sends() -> None:
    text = FILE.read_text()
    named = dict(re.findall(r"^#   (POSTQUEUE_API_\w+)=(\S+)$", text, re.MULTILINE))
    settings = config.load(named)
    assert settings.client_certificate_header is not None
    assert f"proxy_set_header {settings.client_certificate_header} $postqueue_api_client_subject;" in text
    assert f"proxy_pass http://{settings.bind};" in text


def test_the_name_that_was_asked_for_and_credentials_are_kept(proxy: Proxy) -> None:
    _, headers = proxy.ask({"Authorization": "Bearer x"})
    assert told(headers, "Host") == [NAME]
    assert told(headers, "Authorization") == ["Bearer x"]


def test_an_import_may_be_large_and_is_streamed_with_the_same_headers_and_nothing_else_is(proxy: Proxy) -> None:
    announced = {**FORGED, "Content-Length": str(64 << 20)}
    assert proxy.ask(announced, method="POST", path="/v1/operations") == (413, [])
    assert proxy.ask({"Content-Length": str(2 << 30)}, method="POST", path="/v1/trash/import") == (413, [])
    status, headers = proxy.ask(announced, method="POST", path="/v1/trash/import")
    assert status == 200  # before any of the body came
    assert told(headers, "X-Forwarded-For") == [LOOPBACK]
    for name in ("X-Client-Certificate", "X-Real-IP", "Forwarded", "X-Forwarded-Host"):
        assert told(headers, name) == [], name
