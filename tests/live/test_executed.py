"""Which programs the service executes, seen from outside by strace(1), while every route is used."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from postqueue_api.sandbox import Sandbox, processes
from tests.live import service as services
from tests.live.mailbox import Mailbox
from tests.live.service import FRESH, Service
from tests.live.test_auth import PARAMETERS, RULES

_LINE = re.compile(r'^\d+ +execve\("([^"]+)", \[(.*)\], 0x[0-9a-f]+ /\* (\d+) vars? \*/\) += (-?\d+)', re.M)
_WORD = re.compile(r'"((?:[^"\\]|\\.)*)"')
ID, SITE = "<a queue ID>", "<a site>"
CONSTANT = {
    ("postqueue", "-j"),
    ("postqueue", "-f"),
    ("postqueue", "-i", ID),
    ("postqueue", "-s", SITE),
    ("postsuper", "-h", "-", "deferred"),
    ("postsuper", "-H", "-"),
    ("postsuper", "-d", "-", "hold"),
    ("postsuper", "-r", "-", "hold"),
    ("postsuper", "-d", "-", "maildrop"),
    ("postsuper", "-e", "-", "hold"),
    ("postcat", "-bh", "-q", ID),
    ("postconf", "-h", "command_directory"),
    ("postconf", "-x", "mail_version", "queue_directory", "mail_owner", "myhostname", "multi_instance_name",
     "enable_long_queue_ids", "hash_queue_names"),
}  # fmt: skip


@dataclass(frozen=True)
class Executed:
    path: str
    argv: tuple[str, ...]
    variables: int
    result: int


@pytest.fixture(scope="module")
def run(box: Sandbox, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[list[Executed], set[str], Service]]:
    """What was executed while every route was used on real messages, and which IDs were in use."""
    trace = tmp_path_factory.mktemp("strace") / "trace"
    before = ("strace", "-D", "-f", "-qq", "-s", "4096", "-e", "trace=execve", "-e", "signal=none", "-o", str(trace))
    with services.started(box, {"lock_wait_seconds": "1"}, before=before) as service:
        queue_ids = use_everything(service, Mailbox(box))
        assert service.stop() == 0
        yield executed(trace), queue_ids, service


def use_everything(service: Service, mailbox: Mailbox) -> set[str]:
    """Each action on a message for which it does something, then each rule of the URL map, then what is refused."""
    queue_ids = [mailbox.deferred() for _ in range(6)]
    flushed, held, requeued, expired, held_expired, deleted = queue_ids
    assert service.ask("GET", "/v1/messages", "viewer", FRESH).status == 200
    for part, who in (
        ("", "viewer"),
        ("/envelope", "viewer"),
        ("/headers", "reader"),
        ("/body", "reader"),
        ("/raw", "reader"),
    ):
        assert service.ask("GET", f"/v1/messages/{deleted}{part}", who).status == 200
    for action, queue_id in (
        ("flush", flushed), ("hold", held), ("release", held), ("requeue", requeued), ("expire", expired),
        ("hold", held_expired), ("expire", held_expired), ("delete", deleted),
    ):  # fmt: skip
        assert service.change(action, queue_id).status in (200, 202), action
        if action == "requeue":
            delete_from_maildrop(service, requeued)
    operate_and_undo(service, [mailbox.deferred() for _ in range(2)])
    service.ask("GET", "/health/ready", "viewer", FRESH)
    for method, path, role in RULES:
        who = "reader" if role == "content" else "admin"
        assert service.ask(method, path, who, FRESH).status < 500, (method, path)
    for bad in ("ALL", "-", "..%2fx", "ABCDEF%0A", "ABCDEF;id"):
        assert service.ask("DELETE", f"/v1/messages/{bad}", "admin").status == 400
    return {*queue_ids, PARAMETERS["queue_id"]}


def delete_from_maildrop(service: Service, queue_id: str) -> None:
    """Without a copy: one is made of what is on hold only, and from maildrop nothing can be put on hold."""
    body = {"action": "delete", "selection": {"queue_ids": [queue_id]}, "keep_copy": False}
    operation = service.ask("POST", "/v1/operations", "admin", {"Prefer": "wait=20"}, body).json()
    assert operation["outcomes"] == {"removed": 1}


def operate_and_undo(service: Service, queue_ids: list[str]) -> None:
    """Delete some by an operation, tried before, and restore one by one and the rest as a whole."""
    body = {"action": "delete", "selection": {"queue_ids": queue_ids}, "reason": "a test"}
    wait = {"Prefer": "wait=20"}
    assert service.ask("POST", "/v1/operations", "admin", wait, {**body, "dry_run": True}).status == 200
    operation = service.ask("POST", "/v1/operations", "admin", wait, body).json()
    assert operation["outcomes"] == {"removed": len(queue_ids)}
    assert service.ask("POST", f"/v1/trash/{queue_ids[0]}/restore", "admin").status == 200
    path = f"/v1/operations/{operation['operation_id']}/restore"
    assert service.ask("POST", path, "admin", wait).json()["outcomes"] == {"restored": len(queue_ids) - 1}


def executed(trace: Path) -> list[Executed]:
    def ended() -> bool:
        # strace is no child of ours (-D): it writes its last lines when the last process that it follows is gone.
        return all(
            not (entry / "cmdline").exists() or str(trace).encode() not in cmdline(entry)
            for entry in Path("/proc").glob("[0-9]*")
        )

    processes.wait_until(ended, 10)
    found = [
        Executed(path, tuple(word for word in _WORD.findall(words)), int(variables), int(result))
        for path, words, variables, result in _LINE.findall(trace.read_text())
    ]
    assert len(found) == trace.read_text().count("execve("), "a line that this test cannot read"
    return found


def cmdline(entry: Path) -> bytes:
    try:
        return (entry / "cmdline").read_bytes()
    except OSError:
        return b""


def test_only_the_four_commands_of_postfix_are_executed(run: tuple[list[Executed], set[str], Service]) -> None:
    first, *rest = run[0]
    assert Path(first.path).name.startswith("python")
    assert first.argv[1:] == ("-m", "postqueue_api", "serve")
    assert {each.path for each in rest} == {processes.command(name) for name in services.COMMANDS}
    assert {each.result for each in rest} == {0}


def test_their_arguments_are_constant_but_for_one_queue_id_or_site_at_the_end(
    run: tuple[list[Executed], set[str], Service], box: Sandbox
) -> None:
    found, queue_ids, _ = run
    seen = set()
    for each in found[1:]:
        path, option, directory, *words = each.argv
        assert (path, option, directory) == (each.path, "-c", str(box.config_directory))
        *constant, last = words
        word = ID if last in queue_ids else SITE if last == PARAMETERS["site"] else last
        seen.add((Path(path).name, *constant, word))
    assert seen == CONSTANT


def test_their_environment_is_fixed(run: tuple[list[Executed], set[str], Service]) -> None:
    assert {each.variables for each in run[0][1:]} == {3}
