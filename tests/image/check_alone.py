"""The image by itself: settings that are wrong or hostile, a spool that outlives its task, and all in one container."""

import time
from pathlib import Path

import pytest

from tests.image.conftest import FIGURES
from tests.image.task import IMAGE, attempts, exit_status, is_running, last_drain, logs, podman, run_in, wait_until

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


def once(*arguments: str, **environment: str) -> tuple[int, str]:
    """Run a container to its end: exit status, and what it said."""
    told = [f"--env={name}={value}" for name, value in environment.items()]
    begun = time.monotonic()
    run = podman("run", "--rm", "--network=host", "--pull=never", *told, IMAGE, *arguments, check=False)
    seconds = time.monotonic() - begun
    if seconds > 5:  # how much of it does this machine need at this moment for a container that does nothing?
        podman("run", "--rm", "--network=host", "--pull=never", "--entrypoint=true", IMAGE)
        seconds -= time.monotonic() - begun - seconds
    assert seconds < 5
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
