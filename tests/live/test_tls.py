"""web with TLS of its own: clients that stall, files that are wrong or replaced, and certificates for credentials."""

import contextlib
import json
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from postqueue_api.sandbox import Sandbox, fresh_directory, processes
from postqueue_api.sandbox.sink import LOOPBACK
from tests.certificates import Authority, Pair
from tests.live import service as services
from tests.live.service import CREDENTIALS, Service

STALLED = 200
MAPPED = """
[monitor]
certificates = ["CN=monitor,O=Example \\\\+ Söhne"]
roles = ["viewer"]
[mail-gate]
certificates = ["DNS:gate.example.com", "URI:spiffe://example.com/gate"]
roles = ["operator"]
"""


@pytest.fixture(scope="module")
def files() -> Iterator[Path]:
    with services.place() as directory:
        yield directory


@pytest.fixture(scope="module")
def authority(files: Path) -> Authority:
    return Authority(files)


@pytest.fixture(scope="module")
def server_pair(authority: Authority) -> Pair:
    return authority.sign("server", "/CN=localhost", alternative="DNS:localhost,IP:127.0.0.1")


def secured(pair: Pair, **more: str) -> dict[str, str]:
    return {"tls_certificate_file": str(pair.certificate), "tls_key_file": str(pair.key), **more}


def trusting(authority: Authority, client: Pair | None = None) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=authority.certificate)
    if client is not None:
        context.load_cert_chain(client.certificate, client.key)
    return context


@pytest.fixture(scope="module")
def tls(box: Sandbox, authority: Authority, server_pair: Pair) -> Iterator[Service]:
    with services.started(box, secured(server_pair)) as made:
        made.trust = trusting(authority)
        yield made


# --- clients that stall


def half_a_hello() -> bytes:
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    with contextlib.suppress(ssl.SSLWantReadError):
        ssl.create_default_context().wrap_bio(incoming, outgoing, server_hostname="localhost").do_handshake()
    return outgoing.read()[:100]


def half_a_request(line: str, *fields: str, body: bytes = b'{"action"') -> bytes:
    """A whole head, and too little of the body that it announces."""
    return "\r\n".join((line + " HTTP/1.1", "Host: localhost", *fields, "", "")).encode() + body


FORM = ("Origin: http://localhost", "Sec-Fetch-Site: same-origin", "Content-Type: application/x-www-form-urlencoded")
LENGTH, LARGE, CHUNKED = "Content-Length: 1000", "Content-Length: 9000000", "Transfer-Encoding: chunked"
CHUNK = b"3e8\r\nname=a"
HALF_A_HEAD = b"GET /health/live HTTP/1.1\r\nHost: localhost\r\nX-Half: "
BEGINNINGS = {
    "sends no byte": b"",
    "sends half a ClientHello": half_a_hello(),
    "sends half a head": HALF_A_HEAD,
    "ends the handshake and sends half a head": HALF_A_HEAD,
    "asks, and stays when it was answered": b"GET /nothing HTTP/1.0\r\n\r\n",
    "sends half a body, and no credential": half_a_request("POST /v1/operations", LENGTH),
    "sends half a body, and no credential, after it was asked for it": half_a_request(
        "POST /v1/operations", LENGTH, "Expect: 100-continue", body=b""
    ),
    "sends half a large body, and no credential": half_a_request("POST /v1/operations", LARGE),
    "sends half a chunk, and no credential": half_a_request("POST /v1/operations", CHUNKED, body=CHUNK),
    "sends half a body that nobody reads": half_a_request("GET /health/live", LENGTH),
    "sends half a large body that nobody reads": half_a_request("GET /health/live", LARGE),
    "sends half a chunk that nobody reads": half_a_request("GET /health/live", CHUNKED, body=CHUNK),
    "sends half a login": half_a_request("POST /login", LENGTH, *FORM, body=b"name=a"),
    "sends half a large login": half_a_request("POST /login", LARGE, *FORM, body=b"name=a"),
    "sends half a chunk of a login": half_a_request("POST /login", CHUNKED, *FORM, body=CHUNK),
    "sends half a chunk of a theme": half_a_request("POST /theme", CHUNKED, *FORM, body=CHUNK),
}
HALF_A_BODY = [(how, scheme) for how in BEGINNINGS if "sends half a " in how for scheme in ("http", "https")
               if "Hello" not in how and "head" not in how]  # fmt: skip


def connected(port: int, tls: ssl.SSLContext | None, beginning: bytes) -> socket.socket:
    found = socket.create_connection((LOOPBACK, port), timeout=20)
    if tls is not None:
        found = tls.wrap_socket(found, server_hostname="localhost")
    found.sendall(beginning)
    return found


@pytest.mark.parametrize(
    ("how", "scheme"),
    [
        ("sends no byte", "http"),
        ("sends half a head", "http"),
        ("asks, and stays when it was answered", "http"),
        ("sends no byte", "https"),
        ("sends half a ClientHello", "https"),
        ("ends the handshake and sends half a head", "https"),
        *HALF_A_BODY,
    ],
)
def test_two_hundred_that_stall_leave_the_next_request_under_a_second(
    service: Service, tls: Service, authority: Authority, how: str, scheme: str
) -> None:
    target, context = (tls, trusting(authority)) if scheme == "https" else (service, None)
    with contextlib.ExitStack() as held:
        wrapped = context if how.startswith("ends the handshake") or (how, scheme) in HALF_A_BODY else None
        for _ in range(STALLED):
            held.enter_context(connected(target.port, wrapped, BEGINNINGS[how]))
        for _ in range(5):
            begun = time.monotonic()
            assert target.ask("GET", "/health/live", None).status == 200
            assert time.monotonic() - begun < 1


def answers_to(port: int, asked: bytes) -> bytes:
    """All that is answered until the connection ends."""
    with connected(port, None, asked) as client, client.makefile("rb") as answers:
        return answers.read()


END = "Connection: close"


def test_a_client_that_waits_to_be_asked_for_a_body_is_asked_once(service: Service) -> None:
    head = half_a_request("POST /v1/operations", "Content-Length: 4", "Expect: 100-continue", END, body=b"")
    with connected(service.port, None, head) as client, client.makefile("rb") as answers:
        assert answers.readline() == b"HTTP/1.1 100 Continue\r\n"
        client.sendall(b"null")
        assert answers.readline() + answers.readline() == b"\r\nHTTP/1.1 401 UNAUTHORIZED\r\n"
        assert b"100 Continue" not in answers.read()
    assert b"100 Continue" not in answers_to(service.port, head.replace(b"Expect", b"Expected") + b"null")


@pytest.mark.parametrize("line", ["POST /login", "POST /theme"])
def test_a_form_that_anybody_may_send_is_short_and_says_how_long_it_is(service: Service, line: str) -> None:
    for announced, status in ((CHUNKED, b"411"), ("Content-Length: 65537", b"413")):
        asked = half_a_request(line, announced, *FORM, END, body=b"")
        assert answers_to(service.port, asked).startswith(b"HTTP/1.1 " + status)
    assert b" 401 " in answers_to(
        service.port, half_a_request("POST /login", "Content-Length: 6", *FORM, END, body=b"name=a")
    )


def test_a_body_that_comes_in_pieces_is_read_and_the_next_request_behind_it_too(service: Service) -> None:
    body = b'{"action": "hold", "selection": {"queue_ids": ["4dCx3Y1Zq0z1"]}, "reason": "%s"}' % (b"x" * 400)
    who = f"Authorization: {services.AUTHORIZATION['operator']}"
    fields = ("Content-Type: application/json", f"Content-Length: {len(body)}", who, "Prefer: wait=10")
    head = half_a_request("POST /v1/operations", *fields, body=b"")
    with connected(service.port, None, head + body[:10]) as client, client.makefile("rb") as answers:
        for at in range(10, len(body), 50):
            time.sleep(0.02)
            client.sendall(body[at : at + 50])
        client.sendall(half_a_request("GET /health/live", END, body=b""))
        found = answers.read()
    assert found.startswith(b"HTTP/1.1 200 "), found
    assert found.count(b"HTTP/1.1 200 ") == 2


@pytest.mark.parametrize(
    ("asked", "status"),
    [
        (b"GET /v1/m\xe9ssages-of-mine HTTP/1.1\r\nHost: x\r\n\r\n", b"400"),
        (b"GET /of-mine\0 HTTP/1.1\r\nHost: x\r\n\r\n", b"400"),
        (b"of-mine\r\n\r\n", b"400"),
        (b"GET / HTTP/9.9\r\nHost: of-mine\r\n\r\n", b"400"),
        (b"GET / HTTP/1.1\r\nof mine: x\r\n\r\n", b"400"),
        (b"GET / HTTP/1.1\r\nHost: x\r\nAuthorization: of-mine\x01\r\n\r\n", b"400"),
        (b"POST /of-mine HTTP/1.1\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", b"400"),
        (b"POST /of-mine HTTP/1.1\r\nTransfer-Encoding: of-mine\r\n\r\n", b"501"),
        (b"GET /of-mine HTTP/1.1\r\nExpect: of-mine\r\n\r\n", b"417"),
        (b"GET /" + b"of-mine" * 700 + b" HTTP/1.1\r\n\r\n", b"414"),
        (b"GET / HTTP/1.1\r\n" + b"of-mine: x\r\n" * 200 + b"\r\n", b"431"),
        (HALF_A_HEAD + b"of-mine" * 7000, b"431"),
    ],
    ids=lambda value: value[:30] if isinstance(value, bytes) else None,
)
def test_what_is_no_request_gets_a_problem_document_that_repeats_none_of_it(
    service: Service, asked: bytes, status: bytes
) -> None:
    before = len(service.stderr)
    head, _, body = answers_to(service.port, asked).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 " + status + b" ")
    assert b"\r\nContent-Type: application/problem+json" in head
    problem = json.loads(body)
    assert (problem["status"], problem["code"]) == (int(status), "invalid_argument")
    assert b"mine" not in body
    assert "mine" not in service.stderr[before:]


def test_two_hundred_that_drip_a_byte_a_second_leave_it_under_a_second_and_are_closed_after_ten(
    service: Service, tls: Service, authority: Authority
) -> None:
    targets = [(service, None), (tls, trusting(authority))]
    with contextlib.ExitStack() as held:
        clients = {
            target.port: [held.enter_context(connected(target.port, context, HALF_A_HEAD)) for _ in range(STALLED)]
            for target, context in targets
        }
        begun = time.monotonic()
        closed = dict.fromkeys(clients, 0)
        while min(closed.values()) < STALLED // 2 and time.monotonic() - begun < 15:
            for port, dripping in clients.items():
                closed[port] = sum(not drips(client) for client in dripping)
            for target, _ in targets:
                asked = time.monotonic()
                assert target.ask("GET", "/health/live", None).status == 200
                assert time.monotonic() - asked < 1
            time.sleep(1)
        assert min(closed.values()) >= STALLED // 2


def drips(client: socket.socket) -> bool:
    """Send one byte more. Returns whether the service still takes it."""
    try:
        client.sendall(b"x")
    except OSError:
        return False
    return True


def test_requests_that_were_sent_together_are_answered_one_after_the_other(tls: Service, authority: Authority) -> None:
    ask = b"GET /health/live HTTP/1.1\r\nHost: localhost\r\n\r\n"
    with (
        connected(
            tls.port, trusting(authority), ask + ask + ask.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n")
        ) as client,
        client.makefile("rb") as answers,
    ):
        assert answers.read().count(b"HTTP/1.1 200") == 3


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_a_head_without_end_is_refused(service: Service, tls: Service, authority: Authority, scheme: str) -> None:
    target, context = (tls, trusting(authority)) if scheme == "https" else (service, None)
    with connected(target.port, context, HALF_A_HEAD + b"x" * 50_000) as client:
        assert client.recv(100).startswith(b"HTTP/1.1 431 ")


# --- files


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"tls_key_file": ""}, "belong together"),
        ({"tls_certificate_file": "/nonexistent/cert.pem"}, "TLS_CERTIFICATE_FILE"),
        ({"tls_certificate_file": "{key}"}, "holds no certificate"),
        ({"tls_key_file": "{certificate}"}, "holds no private key"),
        ({"tls_key_file": "{unreadable}"}, "Permission denied"),
        ({"tls_key_file": "{other}"}, "does not fit"),
        ({"tls_client_ca_file": "{certificate}", "tls_client_certificates": "required"}, "no CA"),
        ({"tls_client_ca_file": "{key}", "tls_client_certificates": "optional"}, "holds no CA"),
        ({"tls_client_certificates": "required"}, "TLS_CLIENT_CA_FILE"),
        ({"tls_client_certificates": "yes"}, "off or optional or required"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_tls_that_cannot_work_stops_the_start_with_one_line(
    authority: Authority, server_pair: Pair, files: Path, wrong: dict[str, str], words: str
) -> None:
    unreadable = files / "unreadable.key"
    unreadable.write_bytes(server_pair.key.read_bytes())
    unreadable.chmod(0o600)
    places = {
        "certificate": server_pair.certificate,
        "key": server_pair.key,
        "other": authority.sign("other", "/CN=other").key,
        "unreadable": unreadable,
    }
    settings = {name: text.format(**places) for name, text in {**secured(server_pair), **wrong}.items()}
    status, stderr, seconds = services.refusal("serve", settings)
    assert (status, len(stderr.splitlines())) == (1, 1), stderr
    assert words in stderr
    assert seconds < services.AT_ONCE_SECONDS


def test_with_tls_web_listens_beyond_loopback(box: Sandbox, server_pair: Pair, authority: Authority) -> None:
    port = services.free_port()
    with services.started(box, secured(server_pair, bind=f"0.0.0.0:{port}")) as service:
        service.trust = trusting(authority)
        assert service.ask("GET", "/v1/queues", "viewer").status == 200


REQUIRED = {"tls_client_certificates": "required"}


def health(service: Service, word: str, **settings: str) -> tuple[int, str]:
    """What `postqueue-api health` makes of a service with TLS: its exit status and its line."""
    pair = {"tls_certificate_file": "/any", "tls_key_file": "/any", "bind": f"{LOOPBACK}:{service.port}"}
    known = {"user": services.USER, "credentials": CREDENTIALS, **service.shared, **pair, **settings}
    argv = (sys.executable, "-m", "postqueue_api", "health", *(["--ready"] if word == "ready" else []))
    done = subprocess.run(argv, env=services.environment(known), capture_output=True, timeout=20, check=False)
    return done.returncode, (done.stdout + done.stderr).decode()


@pytest.mark.parametrize("word", ["live", "ready"])
def test_the_health_command_asks_by_tls(tls: Service, required: Service, word: str) -> None:
    assert health(tls, word) == (0, f"Web is {word}.\n")
    for _ in range(3):
        assert health(required, word, **REQUIRED) == (0, f"Web is {word}: it wants a client certificate.\n")
    status, said = health(tls, word, **REQUIRED)
    assert (status, said.count("\n")) == (1, 1), said


def test_who_wants_a_client_certificate_is_not_ready_without_what_web_needs(required: Service, files: Path) -> None:
    for settings, words in (
        ({**REQUIRED, "agent_socket": str(files / "no.sock")}, "The agent does not answer"),
        ({**REQUIRED, "credentials": "[admin]\n"}, "[admin] has neither password_hash"),
    ):
        status, said = health(required, "ready", **settings)
        assert (status, said.count("\n")) == (1, 1)
        assert words in said
        assert health(required, "live", **settings)[0] == 0


def test_who_wants_a_client_certificate_is_not_ready_while_postfix_is_down(
    authority: Authority, server_pair: Pair
) -> None:
    ca = {"tls_client_ca_file": str(authority.certificate), "tls_client_certificates": "required"}
    with Sandbox(fresh_directory()) as box:
        box.stop_postfix()
        with services.started(box, secured(server_pair, **ca)) as service:
            assert health(service, "ready", **REQUIRED) == (1, "Web is not ready: Postfix is not running.\n")
            assert health(service, "live", **REQUIRED)[0] == 0


def test_old_tls_is_refused(tls: Service, authority: Authority) -> None:
    context = trusting(authority)
    context.set_ciphers("DEFAULT:@SECLEVEL=0")
    context.minimum_version = ssl.TLSVersion.MINIMUM_SUPPORTED
    with pytest.warns(DeprecationWarning, match="TLS"):
        context.maximum_version = ssl.TLSVersion.TLSv1_1
    with pytest.raises(OSError, match=r"(?i)alert|reset|protocol"):
        connected(tls.port, context, b"")


def serial(port: int, authority: Authority) -> str:
    with connected(port, trusting(authority), b"") as client:
        found = client.getpeercert()  # type: ignore[attr-defined]
        return str(found["serialNumber"])


def test_a_hangup_changes_the_certificate_and_drops_no_request_and_a_broken_one_is_not_taken(
    box: Sandbox, authority: Authority, files: Path
) -> None:
    pair = authority.sign("changing", "/CN=localhost", alternative="DNS:localhost,IP:127.0.0.1")
    with services.started(box, secured(pair)) as service:
        service.trust = trusting(authority)
        before = serial(service.port, authority)
        failures: list[BaseException | int] = []
        enough = threading.Event()

        def keep_asking() -> None:
            while not enough.is_set():
                try:
                    status = service.ask("GET", "/v1/queues", "viewer").status
                except OSError as error:
                    failures.append(error)
                else:
                    failures.extend([status] if status != 200 else [])

        askers = [threading.Thread(target=keep_asking) for _ in range(4)]
        for asker in askers:
            asker.start()
        try:
            good = pair.key.read_bytes()
            pair.key.write_bytes(authority.pair.key.read_bytes())
            service.process.send_signal(signal.SIGHUP)
            processes.wait_until(lambda: "does not fit" in service.stderr, 10)
            assert {serial(service.port, authority) for _ in range(10)} == {before}
            pair.key.write_bytes(good)
            authority.sign("changing", "/CN=localhost", alternative="DNS:localhost,IP:127.0.0.1")
            service.process.send_signal(signal.SIGHUP)
            processes.wait_until(lambda: serial(service.port, authority) != before, 10)
            time.sleep(0.5)
            assert before not in {serial(service.port, authority) for _ in range(20)}
        finally:
            enough.set()
            for asker in askers:
                asker.join()
        assert failures == []
        assert len(service.stderr.splitlines()) == 1


# --- certificates for credentials


@pytest.fixture(scope="module")
def clients(authority: Authority) -> dict[str, Pair]:
    gate = "DNS:Gate.example.com,URI:spiffe://example.com/other"
    return {
        "monitor": authority.sign("monitor", r"/O=Example \+ Söhne/CN=monitor"),
        "gate": authority.sign("gate", "/CN=whoever", alternative=gate),
        "unknown": authority.sign("unknown", "/O=Example/CN=unknown"),
        "turned": authority.sign("turned", r"/CN=monitor/O=Example \+ Söhne"),
        "expired": authority.sign("expired", r"/O=Example \+ Söhne/CN=monitor", days=-1),
    }


def client_certificates(pair: Pair, authority: Authority, how: str) -> dict[str, str]:
    more = {"tls_client_ca_file": str(authority.certificate), "tls_client_certificates": how}
    return secured(pair, credentials=CREDENTIALS + MAPPED, **more)


@pytest.fixture(scope="module")
def optional(box: Sandbox, server_pair: Pair, authority: Authority) -> Iterator[Service]:
    with services.started(box, client_certificates(server_pair, authority, "optional")) as made:
        yield made


@pytest.fixture(scope="module")
def required(box: Sandbox, server_pair: Pair, authority: Authority) -> Iterator[Service]:
    with services.started(box, client_certificates(server_pair, authority, "required")) as made:
        yield made


def refusals(service: Service) -> list[dict[str, object]]:
    return [line for line in service.audit() if line["event"] == "refused"]


@pytest.mark.parametrize(("client", "status"), [("monitor", 200), ("gate", 200), ("unknown", 401), ("turned", 401)])
@pytest.mark.parametrize("how", ["optional", "required"])
def test_a_certificate_is_a_credential_if_its_exact_subject_or_another_name_is_known(
    request: pytest.FixtureRequest, clients: dict[str, Pair], how: str, client: str, status: int
) -> None:
    service: Service = request.getfixturevalue(how)
    service.trust = trusting(request.getfixturevalue("authority"), clients[client])
    before = len(refusals(service))
    assert service.ask("GET", "/v1/queues", None).status == status
    found = [(line["reason"], line["outcome"]) for line in refusals(service)[before:]]
    assert found == ([("certificate", "unauthorized")] if status == 401 else [])


def test_a_certificate_has_the_roles_of_its_principal_and_is_the_actor(
    optional: Service, authority: Authority, clients: dict[str, Pair]
) -> None:
    optional.trust = trusting(authority, clients["monitor"])
    assert optional.ask("POST", "/v1/flush", None).status == 403
    line = refusals(optional)[-1]
    assert (line["actor"], line["reason"]) == ("monitor", "forbidden")
    optional.trust = trusting(authority, clients["gate"])
    assert optional.ask("POST", "/v1/flush", None).status == 202
    assert optional.audit()[-1]["actor"] == "mail-gate"


def test_an_authorization_header_decides_whatever_the_certificate_says(
    optional: Service, authority: Authority, clients: dict[str, Pair]
) -> None:
    optional.trust = trusting(authority, clients["monitor"])
    assert optional.ask("POST", "/v1/flush", "operator").status == 202
    assert optional.ask("GET", "/v1/queues", None, {"Authorization": "Bearer wrong"}).status == 401
    assert optional.ask("GET", "/v1/queues", None, {"Authorization": ""}).status == 401


def test_a_header_that_names_a_subject_is_worth_nothing_without_a_proxy(
    optional: Service, authority: Authority
) -> None:
    optional.trust = trusting(authority)
    assert optional.ask("GET", "/v1/queues", None, {"X-Client-Subject": r"CN=monitor,O=Example \+ Söhne"}).status == 401
    assert optional.ask("GET", "/v1/queues", "viewer").status == 200


@pytest.mark.parametrize("who", ["of another CA", "expired", "without any"])
def test_a_certificate_that_is_not_good_is_refused_at_the_handshake_and_audited(
    required: Service, authority: Authority, clients: dict[str, Pair], files: Path, who: str
) -> None:
    other = Authority(files, "other-ca").sign("stranger", r"/O=Example \+ Söhne/CN=monitor")
    required.trust = trusting(authority, {"of another CA": other, "expired": clients["expired"]}.get(who))
    before = len(refusals(required))
    with pytest.raises(OSError, match=r"(?i)alert|reset|eof"):
        required.ask("GET", "/v1/queues", "admin")
    processes.wait_until(lambda: len(refusals(required)) > before, 5)
    (line,) = refusals(required)[before:]
    assert (line["action"], line["reason"], line["address"]) == ("TLS handshake", "certificate", LOOPBACK)
    said = {"of another CA": "unable to get local issuer certificate", "expired": "certificate has expired"}
    assert line["detail"] == said.get(who, "no certificate was shown")
