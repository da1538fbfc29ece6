"""`postqueue-api serve`, agent and web as processes: how they start, what rights they have, how they end."""

import json
import os
import signal
import socket
import stat
import struct
import subprocess
import sys
import time

import pytest

from postqueue_api.sandbox import Sandbox, processes
from tests.live import service as services
from tests.live.service import SECRETS, Service

STRANGER = 12345
ASK_AS_STRANGER = """\
import json, os, socket, sys
os.setgroups([]); os.setgid({uid}); os.setuid({uid})
connection = socket.socket(socket.AF_UNIX)
connection.connect(sys.argv[1])
connection.sendall(sys.argv[2].encode())
print(connection.makefile().read())
"""


def is_there(pid: int) -> bool:
    try:
        return services.status(pid)["State"][0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_web_has_no_right_and_the_agent_alone_is_root(service: Service) -> None:
    agent, web = service.halves()
    nobody = [str(number) for number in services.ids_of(services.USER)]

    def workers() -> list[int]:
        return [pid for pid in service.tree() if pid != service.process.pid and services.parent(pid) == web]

    processes.wait_until(lambda: len(workers()) == 2, 10)
    of_web = [web, *workers()]
    for pid in of_web:
        found = services.status(pid)
        assert found["Uid"] == 4 * [nobody[0]]
        assert found["Gid"] == 4 * [nobody[1]]
        assert set(found["Groups"]) <= {nobody[1]}
        assert {found[name][0] for name in ("CapInh", "CapPrm", "CapEff", "CapAmb")} == {"0" * 16}
    assert services.status(agent)["Uid"][0] == "0"


def test_web_cannot_read_the_spool_and_the_socket_is_for_its_group_only(service: Service, box: Sandbox) -> None:
    found = service.agent_socket.stat()
    assert stat.S_IMODE(found.st_mode) == 0o660
    assert (found.st_uid, found.st_gid) == (0, services.ids_of(services.USER)[1])
    done = processes.run("/bin/ls", str(box.queue_directory / "deferred"), user=services.USER)
    assert done.returncode != 0


@pytest.mark.parametrize(
    "request_line", ["GET /instance", "POST /flush", "POST /operations", "POST /snapshot", "GET /nothing"]
)
def test_a_stranger_who_reaches_the_agents_socket_is_refused(service: Service, request_line: str) -> None:
    before = service.commands()
    folder = service.agent_socket.parent
    service.agent_socket.chmod(0o666)
    folder.chmod(0o755)
    try:
        program = ASK_AS_STRANGER.format(uid=STRANGER)
        text = f"{request_line} HTTP/1.0\r\nContent-Length: 2\r\n\r\n{{}}"
        done = subprocess.run(
            (sys.executable, "-c", program, str(service.agent_socket), text),
            capture_output=True,
            timeout=20,
            check=True,
        )
    finally:
        service.agent_socket.chmod(0o660)
        folder.chmod(0o2750)
    answer = done.stdout.decode()
    if request_line == "GET /nothing":
        assert answer.split()[1] == "404"  # no route, so nothing to guard
    else:
        assert answer.split()[1] == "403", answer
        assert json.loads(answer.rpartition("\n\n")[2])["code"] == "forbidden"
    assert service.commands() == before


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_both_halves_cleanly(box: Sandbox, number: int) -> None:
    with services.started(box) as service:
        assert service.ask("GET", "/v1/queues", "viewer").status == 200
        tree = service.tree()
        assert len(tree) >= 5
        begun = time.monotonic()
        service.process.send_signal(number)
        assert service.process.wait(12) == 0
        assert time.monotonic() - begun < 10
        assert [pid for pid in tree if is_there(pid)] == []
        assert not services.listens(service.agent_socket)
        assert service.stderr == ""


@pytest.mark.parametrize("name", ["agent", "web"])
def test_when_one_half_dies_the_other_is_stopped_and_the_last_line_says_which(box: Sandbox, name: str) -> None:
    with services.started(box) as service:
        tree = service.tree()
        os.kill(service.halves()[("agent", "web").index(name)], signal.SIGKILL)
        assert service.process.wait(12) not in (0, None)
        last = service.stderr.splitlines()[-1]
        assert f"{name} ended by itself (signal 9)" in last
        processes.wait_until(lambda: not any(is_there(pid) for pid in tree), 10)
        if name == "agent":  # whose socket is still there
            with services.started(box, service.shared) as again:
                assert again.ask("GET", "/v1/queues", "viewer").status == 200


def test_when_the_parent_is_killed_both_halves_end(box: Sandbox) -> None:
    with services.started(box) as service:
        tree = service.tree()
        service.process.kill()
        assert service.process.wait(5) == -signal.SIGKILL
        processes.wait_until(lambda: not any(is_there(pid) for pid in tree), 20)


def test_a_second_agent_on_the_same_socket_is_refused_and_the_first_goes_on(box: Sandbox, service: Service) -> None:
    status, stderr, _ = services.refusal("agent", {"config_directory": str(box.config_directory), **service.shared})
    assert status == 1
    assert "Another agent" in stderr
    assert service.ask("GET", "/v1/queues", "viewer", services.FRESH).status == 200


WELL_KNOWN = '[admin]\npassword_hash = "{}"\nroles = ["admin"]\n'


@pytest.mark.parametrize("command", ["serve", "web"])
def test_a_password_that_everybody_tries_stops_each_way_to_start_web(command: str) -> None:
    settings = {"credentials": WELL_KNOWN.format(services.hashed("changeme"))}
    status, stderr, seconds = services.refusal(command, settings)
    assert status == 1
    assert seconds < services.AT_ONCE_SECONDS
    assert "everybody tries" in stderr
    assert len(stderr.splitlines()) == 1


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"credentials": ""}, "postqueue-api credential"),
        ({"credentials": '[a]\ntoken_sha256 = "short"\nroles = ["viewer"]\n'}, "postqueue-api credential"),
        ({"bind": "0.0.0.0:8025"}, "POSTQUEUE_API_TLS_ENDED_BY_PROXY"),
        ({"binds": "127.0.0.1:1"}, "POSTQUEUE_API_BINDS is not a setting"),
        ({"user": "no-such-user"}, "POSTQUEUE_API_USER"),
        ({"state_directory": "/proc/nothing"}, "cannot use its directory nothing"),
        ({"agent_socket": "/proc/nothing/agent.sock"}, "cannot use its directory nothing"),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else "",
)
def test_what_cannot_be_right_stops_the_start_with_one_clear_line(settings: dict[str, str], words: str) -> None:
    status, stderr, seconds = services.refusal("serve", {"credentials_file": "/nonexistent/file", **settings})
    lines = stderr.splitlines()
    assert status == 1
    assert seconds < services.AT_ONCE_SECONDS
    assert words in lines[0]
    assert "Traceback" not in stderr
    assert len(lines) == 1
    assert not any(secret in stderr for secret in SECRETS.values())


@pytest.mark.parametrize("drain_seconds", ["0", "1"])
def test_systemd_is_told_when_the_agent_listens(drain_seconds: str) -> None:
    """By a child of the first process when there is a drain to lead: hence NotifyAccess=all in the unit."""
    with services.place() as directory, socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(str(directory / "notify"))
        systemd.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        systemd.settimeout(20)
        telling = ("env", f"NOTIFY_SOCKET={directory}/notify")
        settings = {"drain_seconds": drain_seconds, "config_directory": "/nonexistent"}
        with services.started(None, settings, command="agent", before=telling, wait=False) as agent:
            message, (ancillary,), _, _ = systemd.recvmsg(4096, socket.CMSG_SPACE(12))
            pid, _, _ = struct.unpack("3i", ancillary[2])
            assert message.startswith(b"READY=1")
            assert services.listens(agent.agent_socket)
            assert (pid == agent.process.pid) == (drain_seconds == "0")
            assert pid in agent.tree()
