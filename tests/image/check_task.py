"""The three containers of the task definition, with mail in them. check_alone.py tries the image by itself.

The checks stand in the order in which they run: the last one of the task stops it.
"""

import http.client
import json
import re
import smtplib
import time
from contextlib import closing
from typing import Any

import pytest

from tests.image.conftest import FIGURES, TOKEN
from tests.image.task import (
    Task,
    attempts,
    exit_status,
    is_running,
    last_drain,
    logs,
    podman,
    run_in,
    wait_until,
    wait_until_healthy,
)

LOOPBACK = "127.0.0.1"
HTTP, SMTP = 8025, 25
# Numbers of capabilities(7).
CHOWN, DAC_OVERRIDE, FOWNER, FSETID, KILL, SETGID, SETUID, NET_BIND_SERVICE = 0, 1, 3, 4, 5, 6, 7, 10
ROOT_WITHOUT = {CHOWN, DAC_OVERRIDE, FOWNER, KILL, SETGID, SETUID}


def ask(method: str, path: str, token: str | None = TOKEN) -> tuple[int, Any]:
    headers = {"Cache-Control": "no-cache", "Prefer": "wait=10"} | (
        {} if token is None else {"Authorization": f"Bearer {token}"}
    )
    with closing(http.client.HTTPConnection(LOOPBACK, HTTP, timeout=30)) as connection:
        connection.request(method, path, headers=headers)
        response = connection.getresponse()
        body = response.read()
        return response.status, json.loads(body) if "json" in str(response.headers["Content-Type"]) else body


def deferred(recipient: str) -> str:
    """Send a message, wait until it is deferred (no name can be resolved here), and give its queue ID."""
    with smtplib.SMTP(LOOPBACK, SMTP, local_hostname="tester", timeout=10) as server:
        server.sendmail("sender@example.com", [recipient], "Subject: for the image\n\nHello.\n")
    return queue_id_of(recipient)


def queue_id_of(recipient: str) -> str:
    found: list[str] = []

    def is_deferred() -> bool:
        status, page = ask("GET", f"/v1/messages?recipient={recipient}&queue_name=deferred")
        assert status == 200, page
        found.extend(message["queue_id"] for message in page["messages"])
        return bool(found)

    wait_until(is_deferred, 20)
    return found[0]


def status_of(name: str) -> dict[str, list[str]]:
    """What /proc says of the first process of a container."""
    lines = run_in(name, "cat", "/proc/1/status").stdout.splitlines()
    return {word: rest.split() for word, _, rest in (line.partition(":") for line in lines)}


def bits(text: str) -> set[int]:
    return {bit for bit in range(64) if int(text, 16) >> bit & 1}


def test_mail_by_smtp_is_listed_read_and_deleted_over_http(task: Task) -> None:
    queue_id = deferred("listed@example.net")
    assert len(queue_id) >= 10, "a long queue ID"
    assert b"Hello." in ask("GET", f"/v1/messages/{queue_id}/raw")[1]
    status, body = ask("DELETE", f"/v1/messages/{queue_id}")
    assert (status, body["outcome"]) == (200, "removed")
    assert ask("GET", f"/v1/messages/{queue_id}")[0] == 404
    assert re.search(rf"postsuper\[\d+\]: {queue_id}: removed", logs("postfix")), "one log, whoever acts"
    wait_until(lambda: queue_id in audited("removed"), 10)


def audited(outcome: str) -> list[str]:
    """The queue IDs with that outcome in the audit: the agent logs what it did, web whom it refused."""
    lines = [json.loads(line) for line in logs("agent").splitlines() if line.startswith("{")]
    return [line["queue_id"] for line in lines if line.get("outcome") == outcome]


def test_without_credentials_nothing_is_told(task: Task) -> None:
    assert ask("GET", "/v1/messages", None)[0] == 401
    assert ask("DELETE", "/v1/messages/4dCx3Y1Zq0z1", "wrong")[0] == 401


@pytest.mark.parametrize(
    ("action", "said"),
    [("hold", "held"), ("flush", "scheduled"), ("requeue", "requeued"), ("expire", "expired")],
)
def test_the_capabilities_of_the_agent_are_enough_to(task: Task, action: str, said: str) -> None:
    queue_id = deferred(f"{action}@example.net")
    assert ask("POST", f"/v1/messages/{queue_id}/{action}")[1]["outcome"] == said
    if action == "hold":
        assert ask("POST", f"/v1/messages/{queue_id}/release")[1]["outcome"] == "released"


def test_the_capabilities_of_the_agent_are_enough_to_restore(task: Task) -> None:
    queue_id = deferred("restored@example.net")
    operation_id = ask("DELETE", f"/v1/messages/{queue_id}")[1]["operation_id"]
    assert ask("POST", f"/v1/operations/{operation_id}/restore")[1]["outcomes"] == {"restored": 1}
    assert ask("GET", f"/v1/messages/{queue_id}")[0] == 200


@pytest.mark.parametrize(
    ("name", "uid", "left"),
    [
        ("postfix", "0", ROOT_WITHOUT | {NET_BIND_SERVICE}),
        ("agent", "0", ROOT_WITHOUT | {FSETID}),
        ("web", "903", set()),
    ],
)
def test_rights_of_a_container(task: Task, name: str, uid: str, left: set[int]) -> None:
    status = status_of(name)
    assert set(status["Uid"]) == {uid}
    assert bits(status["CapBnd"][0]) == left
    assert bits(status["CapEff"][0]) == left


@pytest.mark.parametrize("name", ["postfix", "agent", "web"])
def test_a_root_cannot_be_written(task: Task, name: str) -> None:
    for path in ("/written", "/etc/written", "/tmp/written", "/opt/postqueue-api/written"):
        run = run_in(name, "touch", path)
        assert run.returncode != 0
        assert re.search("Read-only file system|Permission denied", run.stdout), run.stdout
    if name != "web":
        assert "Read-only file system" in run_in(name, "touch", "/written").stdout


def test_web_sees_no_spool_and_writes_neither_state_nor_configuration(task: Task) -> None:
    queue_id = deferred("unseen@example.net")
    assert queue_id in run_in("agent", "find", "/var/spool/postfix").stdout
    assert queue_id not in run_in("web", "find", "/var/spool/postfix").stdout
    for path in ("/var/lib/postqueue-api/written", "/run/postqueue-api/written"):
        assert run_in("web", "touch", path).returncode != 0
    assert "Read-only file system" in run_in("agent", "touch", "/etc/postfix/written").stdout


def test_web_has_room_for_large_sorts(task: Task) -> None:
    assert run_in("web", "mktemp").stdout.startswith("/var/tmp/")
    assert run_in("web", "stat", "--format=%a %U", "/var/tmp").stdout == "1777 root\n"


def test_the_password_of_the_relay_is_not_shown_to_the_agent(task: Task) -> None:
    assert run_in("agent", "ls", "/var/lib/postfix").stdout.split() == []


def test_only_the_commands_of_postfix_give_rights(task: Task) -> None:
    found = run_in("postfix", "find", "/", "-xdev", "-type", "f", "-perm", "/6000").stdout
    assert sorted(line for line in found.split("\n") if line.startswith("/usr")) == [
        "/usr/sbin/postdrop",
        "/usr/sbin/postqueue",
    ]


def test_there_is_no_compiler_and_no_installer_of_packages_from_elsewhere(task: Task) -> None:
    for tool in ("cc", "gcc", "c++", "make", "pip", "pip3", "curl", "wget"):
        assert run_in("web", "sh", "-c", f"command -v {tool}").returncode != 0, tool


def test_an_agent_that_is_gone_is_told_and_its_return_heals(task: Task) -> None:
    podman("kill", "--signal=KILL", "agent")
    wait_until(lambda: not is_running("agent"), 10)
    status, problem = ask("GET", "/v1/messages")
    assert (status, problem["code"]) == (503, "agent_unavailable")
    assert ask("GET", "/health/live")[0] == 200
    assert run_in("web", "postqueue-api", "health", "--ready").returncode == 1
    podman("start", "agent")
    wait_until_healthy("agent")
    assert ask("GET", "/v1/messages")[0] == 200


def test_mail_outlives_postfix_which_outlives_a_kill(task: Task) -> None:
    queue_id = deferred("survivor@example.net")
    podman("kill", "--signal=KILL", "postfix")
    # Asked for what is true now: else /health/ready is content with what was half a minute ago.
    wait_until(lambda: ask("GET", "/v1/queues")[1]["snapshot"]["mail_system"] == "down", 60)
    assert ask("GET", "/health/ready")[0] == 503
    podman("start", "postfix")
    wait_until_healthy("postfix")
    assert queue_id_of("survivor@example.net") == queue_id
    assert ask("DELETE", f"/v1/messages/{queue_id}")[1]["outcome"] == "removed"


def test_a_stop_of_the_agent_drains_first_and_says_what_would_be_lost(task: Task) -> None:
    """As ECS does it: while the agent has its stopTimeout, Postfix runs."""
    deferred("left@example.net")
    before = attempts("postfix", "left@example.net")
    podman("kill", "--signal=TERM", "agent")
    wait_until(lambda: attempts("postfix", "left@example.net") > before, 30)
    assert is_running("agent")
    podman("kill", "--signal=TERM", "agent")  # a second one ends the drain at its next step
    wait_until(lambda: not is_running("agent"), 40)
    assert exit_status("agent") == 75
    line, sentence = last_drain("agent")
    assert (line["actor"], line["outcome"], line["problem"]) == ("SIGTERM", "left", None)
    assert line["left"] >= 1
    assert line["left_reasons"]
    assert f"{line['left']} message" in sentence
    podman("start", "agent")
    wait_until_healthy("agent")


def test_told_to_stop_all_at_once_the_agent_does_not_wait_for_a_postfix_that_is_gone(task: Task) -> None:
    """Not as ECS does it, but as a supervisor that knows no order."""
    deferred("stranded@example.net")
    begun = time.monotonic()
    for name in task.containers:
        podman("kill", "--signal=TERM", name)
    wait_until(lambda: not any(is_running(name) for name in task.containers), 60)
    FIGURES.append(f"all at once, with mail that cannot be delivered: stopped in {time.monotonic() - begun:.1f} s")
    assert [exit_status(name) for name in task.containers] == [0, 75, 0]
    line, sentence = last_drain("agent")
    assert (line["outcome"], line["problem"]) == ("left", "mail_system_down")
    assert line["left"] >= 1
    assert "not running" in sentence
    for name in task.containers:
        podman("start", name)
        wait_until_healthy(name)
    assert queue_id_of("stranded@example.net")


def test_with_nothing_left_each_stops_in_time_with_status_0(task: Task) -> None:
    assert run_in("postfix", "postsuper", "-d", "ALL").returncode == 0
    for name, status, seconds in task.stop():
        FIGURES.append(f"{name}: stopped in {seconds:.1f} s")
        assert status == 0, logs(name)
        assert seconds < 10
    assert '"outcome": "drained"' in logs("agent")
