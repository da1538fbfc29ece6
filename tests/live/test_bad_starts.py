"""A start that cannot be right: refused at once, with one line that says what is wrong and what to do."""

import os
import signal
import socket
import sqlite3
import stat
import subprocess
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from pathlib import Path

import pytest

from postqueue_api import counters
from postqueue_api.queue import journal
from postqueue_api.sandbox import Sandbox, processes
from postqueue_api.sandbox.sink import LOOPBACK
from tests.certificates import Authority
from tests.live import service as services
from tests.live.disks import fill, small_disk
from tests.live.service import SECRETS, USER

Change = Callable[[Path], dict[str, str]]


@pytest.fixture
def place() -> Iterator[Path]:
    with services.place() as directory:
        yield directory


def check_refused(command: str, settings: Mapping[str, str], *words: str) -> None:
    status, stderr, seconds = services.refusal(command, settings)
    assert (status, len(stderr.splitlines())) == (1, 1), stderr
    for word in words:
        assert word in stderr
    assert not any(secret in stderr for secret in SECRETS.values())
    assert seconds < services.AT_ONCE_SECONDS


@pytest.mark.parametrize(("command", "credentials"), [("web", ""), ("serve", "\n")], ids=["missing", "empty"])
def test_without_a_secret(command: str, credentials: str) -> None:
    settings = {"credentials": credentials, "credentials_file": "/nonexistent/file"}
    check_refused(command, settings, "POSTQUEUE_API_CREDENTIALS", "postqueue-api credential admin")


def test_with_credentials_that_the_user_of_web_may_not_read(place: Path) -> None:
    file = place / "credentials.toml"
    file.write_text(services.CREDENTIALS)
    file.chmod(0o600)
    check_refused("serve", {"credentials": "", "credentials_file": str(file)}, "cannot be read", "Permission denied")


def test_with_a_certificate_that_the_user_of_web_may_not_read(place: Path) -> None:
    pair = Authority(place).sign("server", "/CN=localhost")
    pair.certificate.chmod(0o600)
    settings = {"tls_certificate_file": str(pair.certificate), "tls_key_file": str(pair.key)}
    check_refused("web", settings, "POSTQUEUE_API_TLS_CERTIFICATE_FILE cannot be read by web's user")


@pytest.mark.parametrize("command", ["web", "serve"])
def test_on_a_port_that_is_taken(command: str) -> None:
    with socket.create_server((LOOPBACK, 0)) as other:
        bind = f"{LOOPBACK}:{other.getsockname()[1]}"
        check_refused(
            command, {"bind": bind}, f"POSTQUEUE_API_BIND is {bind}", "another program listens there: stop it"
        )


def test_on_an_address_that_is_not_ours() -> None:
    settings = {"bind": "192.0.2.1:8025", "tls_ended_by_proxy": "yes"}
    check_refused("web", settings, "POSTQUEUE_API_BIND is 192.0.2.1:8025", "name one of its own")


def owned_by_another(place: Path) -> dict[str, str]:
    state = place / "state"
    state.mkdir()
    os.chown(state, *services.ids_of(USER))
    return {"state_directory": str(state)}


def with_things_of_others(place: Path) -> dict[str, str]:
    state = place / "state"
    (state / "important").mkdir(parents=True)
    return {"state_directory": str(state)}


def beside_things_of_others(place: Path) -> dict[str, str]:
    (place / "run" / "other").mkdir(parents=True)
    return {"agent_socket": str(place / "run" / "agent.sock")}


NEWER = f"of version {journal.VERSION + 1}"


def of_a_newer_version(place: Path) -> dict[str, str]:
    with closing(sqlite3.connect(place / "journal.sqlite")) as database:
        database.execute(f"PRAGMA user_version = {journal.VERSION + 1}")
        database.execute("CREATE TABLE future (x)")
    return {"state_directory": str(place)}


def with_a_journal_that_is_none(place: Path) -> dict[str, str]:
    (place / "journal.sqlite").write_bytes(b"not a database" * 1000)
    return {"state_directory": str(place)}


def with_a_socket_of_too_long_a_name(place: Path) -> dict[str, str]:
    return {"agent_socket": f"{place}/{'x' * 100}/agent.sock"}


@pytest.mark.parametrize(
    ("command", "change", "words"),
    [
        ("agent", owned_by_another, ("POSTQUEUE_API_STATE_DIRECTORY", f"belongs to {USER}", "chown it")),
        ("serve", with_things_of_others, ("POSTQUEUE_API_STATE_DIRECTORY", "holds other things", "of its own")),
        ("agent", beside_things_of_others, ("POSTQUEUE_API_AGENT_SOCKET", "holds other things", "of its own")),
        (
            "serve",
            of_a_newer_version,
            ("POSTQUEUE_API_STATE_DIRECTORY", NEWER, "newer program"),
        ),
        (
            "agent",
            of_a_newer_version,
            ("POSTQUEUE_API_STATE_DIRECTORY", NEWER, "newer program"),
        ),
        ("serve", with_a_journal_that_is_none, ("POSTQUEUE_API_STATE_DIRECTORY", "not a database", "move it away")),
        ("agent", with_a_socket_of_too_long_a_name, ("POSTQUEUE_API_AGENT_SOCKET", "107 bytes")),
    ],
    ids=lambda value: value.__name__ if callable(value) else "",
)
def test_in_a_directory(place: Path, command: str, change: Change, words: tuple[str, ...]) -> None:
    settings = change(place)
    before = {path: path.stat() for path in place.rglob("*") if path.is_dir()}
    check_refused(command, settings, *words)
    for path, found in before.items():
        assert (path.stat().st_mode, path.stat().st_uid) == (found.st_mode, found.st_uid), path


def test_with_a_damaged_journal_nothing_of_it_is_lost(place: Path) -> None:
    settings = with_a_journal_that_is_none(place)
    check_refused("agent", settings, "not a database")
    assert (place / "journal.sqlite").read_bytes() == b"not a database" * 1000


@contextmanager
def read_only(directory: Path) -> Iterator[Path]:
    directory.mkdir()
    subprocess.run(("mount", "-t", "tmpfs", "-o", "ro", "tmpfs", str(directory)), check=True)
    try:
        yield directory
    finally:
        subprocess.run(("umount", "-l", str(directory)), check=True)


@pytest.mark.parametrize(("command", "setting"), [("agent", "state_directory"), ("serve", "agent_socket")])
def test_in_a_directory_that_cannot_be_written(place: Path, command: str, setting: str) -> None:
    with read_only(place / "mounted") as mounted:
        value = mounted if setting == "state_directory" else mounted / "agent.sock"
        check_refused(command, {setting: str(value)}, "Read-only file system")


@pytest.mark.parametrize("command", ["agent", "serve"])
def test_on_a_full_volume(box: Sandbox, place: Path, command: str) -> None:
    settings = {"config_directory": str(box.config_directory), "state_directory": str(place / "small")}
    with small_disk(place / "small") as filler:
        filler = filler.with_name("snapshots") / "filler"
        filler.parent.mkdir()
        fill(filler)
        check_refused(command, settings, "no room left", "POSTQUEUE_API_STATE_DIRECTORY", "free some space")
        filler.unlink()
        with services.started(box, settings) as service:
            assert service.ask("GET", "/v1/queues", "viewer").status == 200


def test_what_a_killed_listing_left_on_a_full_volume_does_not_stop_the_start(box: Sandbox, place: Path) -> None:
    with small_disk(place / "small") as filler:
        left = filler.with_name("snapshots") / ".1a2b3c.partial"
        left.parent.mkdir()
        fill(left)
        with services.started(box, {"state_directory": str(place / "small")}) as service:
            assert service.ask("GET", "/v1/queues", "viewer").status == 200


@pytest.mark.parametrize(("command", "version"), [("agent", "3.4.29"), ("serve", "2.11.0")])
def test_with_a_postfix_that_is_too_old(box: Sandbox, place: Path, command: str, version: str) -> None:
    commands = services.watched_commands(place / "commands")
    real = processes.command("postconf")
    (commands / "postconf").write_text(
        f"#!/bin/sh\n{real} \"$@\" | sed 's/^mail_version = .*/mail_version = {version}/'\n"
    )
    settings = {"config_directory": str(box.config_directory), "command_directory": str(commands)}
    check_refused(command, settings, f"Postfix {version.rpartition('.')[0]} is too old", "install 3.5 or later")


def held(directory: Path) -> bool:
    """Whether some process uses a place of counters."""
    return subprocess.run(("flock", "--nonblock", directory, "true"), check=False).returncode != 0


def of(service: services.Service) -> list[Path]:
    """The places of counters that the processes of a service have open; others on this machine have theirs."""
    found = set()
    for pid in service.tree():
        for link in Path(f"/proc/{pid}/fd").glob("*"):
            with suppress(OSError):
                found.add(link.readlink())
    return sorted(path for path in found if path.name.startswith(counters.PREFIX))


def all_are_used(found: set[Path]) -> bool:
    return all(held(path) for path in found if path.exists())


def places() -> set[Path]:
    return set(Path(counters.SHARED_MEMORY or "/tmp").glob(f"{counters.PREFIX}*"))


def test_no_start_leaves_a_place_of_counters_whether_refused_ended_or_killed(place: Path) -> None:
    before = places()
    check_refused("web", {"credentials": "\n"}, "no credential")
    processes.wait_until(lambda: all_are_used(places() - before), 10)
    settings = {"config_directory": "/nonexistent"}
    with services.started(None, settings) as service:
        (mine,) = of(service)
        _, web = service.halves()
        workers = [pid for pid in service.tree() if services.parent(pid) == web]
        os.kill(workers[0], signal.SIGTERM)  # a worker that ends takes nothing with it
        processes.wait_until(lambda: not Path(f"/proc/{workers[0]}").exists(), 10)
        assert mine.exists()
        assert service.ask("GET", "/metrics", "viewer").status == 200
    assert not mine.exists()
    with services.started(None, settings) as service:
        (killed,) = of(service)
        for pid in reversed(service.tree()):
            os.kill(pid, signal.SIGKILL)
        service.process.wait(10)
        assert stat.S_ISDIR(killed.stat().st_mode)
        with services.started(None, settings):
            assert not killed.exists()
