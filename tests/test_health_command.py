"""`postqueue-api health` against servers that are well, unwell, mute or not there."""

import http.server
import socket
import socketserver
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from postqueue_api.cli import main
from postqueue_api.config import Address
from postqueue_api.web import health_command

LOOPBACK = "127.0.0.1"


def ask(*arguments: str, **settings: object) -> Result:
    environment = {f"POSTQUEUE_API_{name.upper()}": str(value) for name, value in settings.items()}
    return CliRunner().invoke(main, ["health", *arguments], env=environment)


@contextmanager
def serving(server: socketserver.BaseServer) -> Iterator[None]:
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@contextmanager
def web(answers: dict[str, int], host: str = LOOPBACK) -> Iterator[int]:
    """An HTTP server with these statuses by path; gives its port."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(answers[self.path])
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            pass

    with http.server.HTTPServer((host, 0), Handler) as server, serving(server):
        yield server.server_port


@contextmanager
def agent(path: Path, answer: bytes) -> Iterator[None]:
    class Handler(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            assert self.rfile.readline() == b"GET /instance HTTP/1.1\r\n"
            self.wfile.write(answer)

    with socketserver.UnixStreamServer(str(path), Handler) as server, serving(server):
        yield


@contextmanager
def mail_server(greeting: bytes) -> Iterator[Address]:
    class Handler(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            self.wfile.write(greeting)
            if self.rfile.readline().strip().lower() == b"quit":
                self.wfile.write(b"221 2.0.0 Bye\r\n")

    with socketserver.TCPServer((LOOPBACK, 0), Handler) as server, serving(server):
        yield Address(*server.server_address[:2])  # type: ignore[arg-type]


@pytest.fixture
def silent_port() -> Iterator[int]:
    """A port that is bound and never answers."""
    with socket.create_server((LOOPBACK, 0)) as listener:
        yield listener.getsockname()[1]


@pytest.fixture(autouse=True)
def short_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(health_command, "_TIMEOUT_SECONDS", 0.5)


@pytest.mark.parametrize(("arguments", "word"), [([], "live"), (["--ready"], "ready")])
def test_web_that_is_well_is_one_line_and_0(arguments: list[str], word: str) -> None:
    with web({f"/health/{word}": 200}) as port:
        said = ask(*arguments, bind=f"{LOOPBACK}:{port}")
    assert (said.exit_code, said.output) == (0, f"Web is {word}.\n")


def test_web_that_is_live_but_not_ready_is_1_when_asked_for_ready() -> None:
    with web({"/health/live": 200, "/health/ready": 503}) as port:
        assert ask(bind=f"{LOOPBACK}:{port}").exit_code == 0
        said = ask("--ready", bind=f"{LOOPBACK}:{port}")
    assert (said.exit_code, said.output) == (1, "Web is not ready: /health/ready answers 503.\n")


def test_web_that_listens_everywhere_is_asked_on_loopback() -> None:
    with web({"/health/live": 200}) as port:
        assert ask(bind=f"0.0.0.0:{port}").exit_code == 0


def test_web_that_is_not_there_is_1_and_one_line(silent_port: int) -> None:
    with socket.create_server((LOOPBACK, 0)) as listener:
        closed = listener.getsockname()[1]
    for port in (closed, silent_port):
        said = ask(bind=f"{LOOPBACK}:{port}")
        assert said.exit_code == 1
        assert said.output.startswith(f"Web does not answer on {LOOPBACK}:{port}: ")
        assert said.output.count("\n") == 1


WELL = b'HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n{"mail_version": "3.10.13", "myhostname": "relay"}'
UNWELL = (
    b'HTTP/1.1 500 No\r\nConnection: close\r\n\r\n{"code": "not_installed", "detail": "There is no postconf.",'
    b' "members": {}}'
)


@pytest.mark.parametrize(
    ("answer", "exit_code", "line"),
    [(WELL, 0, "The agent answers, for Postfix 3.10.13."), (UNWELL, 1, "There is no postconf.")],
)
def test_agent_is_asked_over_its_socket(tmp_path: Path, answer: bytes, exit_code: int, line: str) -> None:
    path = tmp_path / "agent.sock"
    with agent(path, answer):
        said = ask("--agent", agent_socket=path)
    assert (said.exit_code, said.output) == (exit_code, line + "\n")


def test_agent_that_is_not_there_is_1(tmp_path: Path) -> None:
    said = ask("--agent", agent_socket=tmp_path / "agent.sock")
    assert said.exit_code == 1
    assert said.output.startswith("The agent does not answer")


@pytest.mark.parametrize(
    ("greeting", "exit_code"),
    [(b"220 relay ESMTP Postfix\r\n", 0), (b"421 4.3.2 All server ports are busy\r\n", 1), (b"", 1)],
)
def test_mail_server_must_greet(monkeypatch: pytest.MonkeyPatch, greeting: bytes, exit_code: int) -> None:
    with mail_server(greeting) as address:
        monkeypatch.setattr(health_command, "_SMTP", address)
        said = ask("--smtp")
    assert said.exit_code == exit_code
    assert said.output.startswith("Postfix greets." if exit_code == 0 else f"Postfix does not greet on {address}: ")


def test_wrong_setting_is_1_and_names_it() -> None:
    said = ask(bind="everywhere")
    assert said.exit_code == 1
    assert "POSTQUEUE_API_BIND must be" in said.output


@pytest.mark.parametrize("module", ["flask", "gunicorn", "pydantic", "apiflask"])
def test_it_does_not_import_what_serves(module: str) -> None:
    code = f"import sys; from postqueue_api import cli; sys.exit({module!r} in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
