"""Ages as the real qshape counts them, on the same queue."""

import re

import pytest

from postqueue_api.sandbox import Sandbox, processes
from tests.live.mailbox import Mailbox
from tests.live.service import FRESH, Service

# Seconds, each far from the bounds of its column in all tables below.
AGES = (30, 150, 450, 890, 1790, 3000, 9000, 100_000, 10_000_000)


def qshape(box: Sandbox, *options: str) -> dict[str, list[int]]:
    """What qshape prints of the whole queue: by domain the total and the columns; "" for what has no domain."""
    queues = ("maildrop", "incoming", "active", "deferred", "hold")
    directory = str(box.config_directory)
    done = processes.run(processes.command("qshape"), "-w", "250", "-c", directory, *options, *queues)
    assert done.returncode == 0, done.stderr
    rows = [line.split() for line in done.stdout.decode().splitlines()[1:]]
    return {"" if name == "MAILER-DAEMON" else name: [int(cell) for cell in cells] for name, *cells in rows}


def ours(service: Service, query: str) -> dict[str, list[int]]:
    """Without what is forced to expire, which qshape passes over: its files have another mode."""
    document = service.ask("GET", f"/v1/ages?limit=1000&forced_expire=false&{query}", "viewer", FRESH).json()
    rows = [document["total"], *document["rows"]]
    assert {len(row["counts"]) for row in rows} == {len(document["bounds"]) + 1}
    return {row["key"]: [row["total"], *row["counts"]] for row in rows}


def make_older(mailbox: Mailbox, queue_id: str, seconds: int) -> None:
    """Let a message have arrived that long before: the first time record of its queue file."""
    (path,) = mailbox.files(queue_id)
    content = path.read_bytes()
    found = re.search(rb"T.(\d{10}) ", content, re.DOTALL)
    assert found is not None
    time = b"%010d" % (int(found[1]) - seconds)
    path.write_bytes(content[: found.start(1)] + time + content[found.end(1) :])


@pytest.fixture(scope="module")
def aged(box: Sandbox) -> Mailbox:
    """Messages of many ages, on hold so that nothing looks at them meanwhile."""
    mailbox = Mailbox(box)
    domains = ("full.example", "greylist.example", "strange.test")
    sent = []
    for number in range(len(AGES)):
        recipients = [f"r{each}@{domains[(number + each // 2) % 3]}" for each in range(1 + number % 4)]
        sender = "" if number % 4 == 3 else f"s@{mailbox.word[number % 2 :]}.example.com"
        sent.append(mailbox.send(*recipients, sender=sender))
    box.wait_until_settled()
    mailbox.postfix("postsuper", "-h", "-", stdin="".join(f"{queue_id}\n" for queue_id in sent).encode())
    for queue_id, age in zip(sent, AGES, strict=True):
        make_older(mailbox, queue_id, age)
    return mailbox


@pytest.mark.parametrize(
    ("options", "query"),
    [
        ((), ""),
        (("-s",), "by=sender_domain"),
        (("-l",), "linear=true"),
        (("-l", "-b", "20", "-t", "15"), "linear=true&columns=20&first=15m"),
        (("-s", "-b", "6", "-t", "1"), "by=sender_domain&columns=6&first=1m"),
    ],
    ids=["recipients", "senders", "linear", "linear-wide", "senders-narrow"],
)
def test_ages_are_those_of_qshape(service: Service, aged: Mailbox, options: tuple[str, ...], query: str) -> None:
    for _ in range(10):
        before, found, after = qshape(aged.box, *options), ours(service, query), qshape(aged.box, *options)
        if before == after:  # nothing of the other tests grew into another column meanwhile
            break
    assert before == after
    assert found == before
    assert sum(1 for count in found["TOTAL"][1:] if count) >= 4
