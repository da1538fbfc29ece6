"""The three containers of the task definition, with mail in them; then the image by itself.

The checks stand in the order in which they run: the last one of the task stops it.
"""

import http.client
import json
import re
import smtplib
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from tests.image.conftest import FIGURES, TOKEN
from tests.image.task import FILE, Task, exit_status, logs, podman, run_in, wait_until, wait_until_healthy

LOOPBACK = "127.0.0.1"
HTTP, SMTP = 8025, 25
IMAGE = json.loads(FILE.read_text())["containerDefinitions"][0]["image"]
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
    wait_until(lambda: ask("GET", "/health/ready")[0] == 503, 60)
    podman("start", "postfix")
    wait_until_healthy("postfix")
    assert queue_id_of("survivor@example.net") == queue_id
    assert ask("DELETE", f"/v1/messages/{queue_id}")[1]["outcome"] == "removed"


def is_running(name: str) -> bool:
    return podman("inspect", "--format={{.State.Running}}", name).stdout == "true\n"


def attempts(name: str, recipient: str) -> int:
    """How often Postfix has tried to deliver to a recipient, as its log has it."""
    return len(re.findall(rf"to=<{recipient}>.* status=deferred", logs(name)))


def last_drain(name: str) -> tuple[dict[str, Any], str]:
    """The line of the last drain in the audit, and the last line that says that mail would be lost."""
    lines = logs(name).splitlines()
    drains = [json.loads(line) for line in lines if line.startswith("{") and '"event": "drain"' in line]
    return drains[-1], [line for line in lines if "lost with the task" in line][-1]


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


# A spool that outlives its task.


def test_the_next_task_waits_until_the_last_one_has_left_their_spool(volumes: Path) -> None:
    """As on EFS, when the old task is still being stopped: one spool, all else is each one's own."""
    spool = volumes / "outliving"
    spool.mkdir(mode=0o755)
    for name in ("last", "next"):
        podman("run", "--detach", f"--name={name}", "--network=none", f"--volume={spool}:/var/spool/postfix", IMAGE,
               "postfix")  # fmt: skip
        if name == "last":
            wait_until_healthy_smtp("last")
    wait_until(lambda: "another Postfix works on this spool" in logs("next"), 20)
    time.sleep(2)
    assert is_running("next")
    assert "daemon started" not in logs("next")
    podman("stop", "--time", "20", "last")
    wait_until_healthy_smtp("next")
    assert logs("next").count("another Postfix works on this spool") == 1
    podman("rm", "--force", "--time", "10", "last", "next")


# The image by itself.


def once(*arguments: str, **environment: str) -> tuple[int, str]:
    """Run a container to its end: exit status, and what it said."""
    told = [f"--env={name}={value}" for name, value in environment.items()]
    begun = time.monotonic()
    run = podman("run", "--rm", "--network=host", "--pull=never", *told, IMAGE, *arguments, check=False)
    assert time.monotonic() - begun < 12  # five on a machine of its own; podman takes two of them
    return run.returncode, run.stdout


@pytest.mark.parametrize(
    ("environment", "said"),
    [
        ({"POSTFIX_RELAYHOTS": "[relay.example.net]"}, "POSTFIX_RELAYHOTS is not a setting"),
        ({"POSTFIX_relayhost": "[relay.example.net]"}, "POSTFIX_relayhost is not a setting"),
        ({"POSTFIX_X[$(touch /tmp/x)]": "1"}, "is not a setting"),
        ({"POSTFIX_QUEUE_DIRECTORY": "/tmp"}, "POSTFIX_QUEUE_DIRECTORY cannot be set"),
        ({"POSTFIX_MAILLOG_FILE": "/tmp/log"}, "POSTFIX_MAILLOG_FILE cannot be set"),
        ({"POSTFIX_RELAYHOST": "a\nmynetworks=0.0.0.0/0"}, "POSTFIX_RELAYHOST holds a line end"),
        ({"POSTFIX_RELAY_USER": "me"}, "must be set together"),
        ({"POSTFIX_RELAY_USER": "me", "POSTFIX_RELAY_PASSWORD": "secret"}, "needs POSTFIX_RELAYHOST"),
        ({"POSTFIX_RELAY_USER": "m:e", "POSTFIX_RELAY_PASSWORD": "s", "POSTFIX_RELAYHOST": "a"}, "hold a colon"),
        ({"POSTFIX_RELAY_USER": "me", "POSTFIX_RELAY_PASSWORD": "s", "POSTFIX_RELAYHOST": "a b"}, "one word"),
    ],
)
def test_a_setting_of_postfix_that_is_wrong_stops_the_start(environment: dict[str, str], said: str) -> None:
    status, words = once("postfix", **environment)
    assert status == 1
    assert said in words.splitlines()[-1]
    assert "secret" not in words


def test_a_setting_reaches_postfix_as_it_stands_and_no_shell() -> None:
    # $$ is Postfix's way to write one $.
    value = "relay.example.org ESMTP $$(touch /var/lib/postfix/x) `id` ; | & ' \" \\ * <>"
    podman("run", "--detach", "--name=configured", "--network=none", f"--env=POSTFIX_SMTPD_BANNER={value}",
           "--env=POSTFIX_RELAYHOST=[relay.example.net]:587", "--env=POSTFIX_RELAY_USER=me",
           "--env=POSTFIX_RELAY_PASSWORD=pass word:$x", "--env=POSTFIX_SMTP_TLS_CAFILE=/etc/ssl/other.pem",
           IMAGE, "postfix")  # fmt: skip
    wait_until_healthy_smtp("configured")
    assert run_in("configured", "postconf", "-hx", "smtp_tls_CAfile").stdout == "/etc/ssl/other.pem\n"
    assert run_in("configured", "postconf", "-h", "smtpd_banner").stdout == value + "\n"
    assert run_in("configured", "postconf", "-h", "smtp_tls_security_level").stdout == "encrypt\n"
    file = "/var/lib/postfix/relay-password"
    assert run_in("configured", "cat", file).stdout == "[relay.example.net]:587 me:pass word:$x\n"
    assert run_in("configured", "stat", "--format=%a %U", file).stdout == "600 root\n"
    found = run_in("configured", "postmap", "-q", "[relay.example.net]:587", f"texthash:{file}").stdout
    assert found == "me:pass word:$x\n"
    assert "pass word" not in run_in("configured", "postconf").stdout
    assert b"pass word" not in environment_of("configured")
    assert run_in("configured", "ls", "/var/lib/postfix").stdout.split() == ["master.lock", "relay-password"]
    podman("rm", "--force", "--time", "10", "configured")


def environment_of(name: str) -> bytes:
    pid = podman("inspect", "--format={{.State.Pid}}", name).stdout.strip()
    return Path(f"/proc/{pid}/environ").read_bytes()


def wait_until_healthy_smtp(name: str) -> None:
    wait_until(lambda: run_in(name, "postqueue-api", "health", "--smtp").returncode == 0, 20)


def test_web_without_a_secret_ends_with_one_line() -> None:
    status, words = once("web")
    assert status == 1
    assert len(words.splitlines()) == 1
    assert "credentials" in words.lower()


def test_an_unknown_command_is_refused() -> None:
    assert once("smtpd")[0] == 2


def start_all_in_one(credentials: str, **settings: str) -> None:
    podman("rm", "--force", "--ignore", "--time", "1", "all")
    told = [f"--env=POSTQUEUE_API_{name}={value}" for name, value in {"CREDENTIALS": credentials, **settings}.items()]
    podman("run", "--detach", "--name=all", "--network=none", *told, IMAGE)
    wait_until(lambda: run_in("all", "postqueue-api", "health", "--ready").returncode == 0, 20)


# Kill the one whose command line ends in the words given and whose parent is the one given, if any.
KILLING = """for p in /proc/[0-9]*; do
    [[ $(tr '\\0' ' ' <$p/cmdline) == *"$1 " && $(cut -d' ' -f4 $p/stat) == ${2:-*} ]] && kill -KILL ${p#/proc/} && exit
done
exit 1
"""


@pytest.mark.parametrize(
    ("process", "name"),
    [(("sbin/master -s",), "Postfix"), (("bin/postqueue-api serve", "1"), "postqueue-api serve")],
)
def test_all_in_one_ends_when_one_of_the_two_ends(credentials: str, process: tuple[str, ...], name: str) -> None:
    start_all_in_one(credentials)
    assert run_in("all", "bash", "-c", KILLING, "-", *process).returncode == 0
    wait_until(lambda: not is_running("all"), 15)
    assert exit_status("all") == 1
    assert f"{name} ended by itself" in logs("all").splitlines()[-1]


def test_all_in_one_ends_cleanly_when_asked(credentials: str) -> None:
    start_all_in_one(credentials)
    begun = time.monotonic()
    podman("stop", "--time", "30", "all")
    seconds = time.monotonic() - begun
    assert (exit_status("all"), seconds < 10) == (0, True), logs("all")
    FIGURES.append(f"all-in-one: stopped in {seconds:.1f} s")
    assert "stopping the Postfix mail system" in logs("all")


def test_all_in_one_drains_while_postfix_runs(credentials: str) -> None:
    start_all_in_one(credentials, DRAIN_SECONDS="90")
    assert run_in("all", "sh", "-c", "echo Hello. | sendmail left@example.net").returncode == 0
    wait_until(lambda: attempts("all", "left@example.net") == 1, 20)
    podman("kill", "--signal=TERM", "all")
    wait_until(lambda: attempts("all", "left@example.net") > 1, 30)
    podman("kill", "--signal=TERM", "all")
    wait_until(lambda: not is_running("all"), 40)
    assert exit_status("all") == 75, logs("all")
    assert last_drain("all")[0]["left"] == 1
