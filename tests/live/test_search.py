"""Paging while mail moves, streams that end or visibly do not, what is kept and for how long, and what is refused."""

import csv
import http.client
import io
import json
import os
import signal
import socket
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest

from postqueue_api.sandbox import Sandbox, processes
from postqueue_api.sandbox.sink import LOOPBACK
from postqueue_api.sandbox.sites import REFUSING
from tests.live import service as services
from tests.live.mailbox import Mailbox
from tests.live.service import AUTHORIZATION, FRESH, Answer, Service

NDJSON = {"Accept": "application/x-ndjson"}
CSV = {"Accept": "text/csv"}
LARGE = 10_000  # more than all buffers between two processes hold


def page(service: Service, query: str, headers: dict[str, str] | None = None) -> Any:
    answer = service.ask("GET", f"/v1/messages?{query}", "viewer", headers)
    assert answer.status == 200, answer.body
    return answer.json()


def test_a_listing_is_paged_through_as_it_was_while_mail_comes_and_goes(service: Service, mailbox: Mailbox) -> None:
    sender = f"{mailbox.word}@example.com"
    sent = [mailbox.deferred(sender=sender) for _ in range(5)]
    query = f"sender={sender}&sort=-queue_id&limit=2"
    shown = page(service, query, FRESH)
    first, found = shown["snapshot"]["snapshot_id"], [row["queue_id"] for row in shown["messages"]]
    gone = next(queue_id for queue_id in sent if queue_id not in found)
    assert service.change("delete", gone).json()["outcome"] == "removed"
    new = mailbox.deferred(sender=sender)
    for _ in range(3):  # newer listings come, more than are kept for nobody
        assert page(service, "limit=1", FRESH)["snapshot"]["snapshot_id"] != first
    while shown["next"] is not None:
        shown = page(service, f"{query}&next={shown['next']}", FRESH)
        found += [row["queue_id"] for row in shown["messages"]]
        assert shown["snapshot"]["snapshot_id"] == first
        assert shown["total"] == 5
    assert found == sorted(sent, reverse=True)
    now = page(service, f"sender={sender}", FRESH)
    assert {row["queue_id"] for row in now["messages"]} == {*sent, new} - {gone}


def test_total_counts_messages_and_not_recipients(service: Service, mailbox: Mailbox) -> None:
    sender = f"{mailbox.word}@example.com"
    mailbox.deferred("a@full.example", "b@full.example", "c@strange.test", sender=sender)
    shown = page(service, f"sender={sender}&recipient_domain=full.example", FRESH)
    assert (shown["total"], len(shown["messages"]), len(shown["messages"][0]["recipients"])) == (1, 1, 3)


def test_the_next_attempt_is_the_time_of_the_deferred_file_and_not_known_of_held_mail(
    service: Service, mailbox: Mailbox
) -> None:
    sender = f"{mailbox.word}@example.com"
    deferred, held = mailbox.deferred(sender=sender), mailbox.deferred(sender=sender)
    assert service.change("hold", held).status == 200
    (path,) = mailbox.files(deferred)
    later = int(path.stat().st_mtime) + 1234
    os.utime(path, (later, later))
    found = page(service, f"sender={sender}&sort=next_attempt_time", FRESH)["messages"]
    assert [(row["queue_id"], row["next_attempt_time"]) for row in found] == [(held, None), (deferred, later)]
    row = service.ask("GET", f"/v1/messages/{deferred}", "viewer").json()["message"]
    assert row["next_attempt_time"] == later


def test_a_stream_has_all_that_fits_between_the_listing_and_a_last_line(service: Service, mailbox: Mailbox) -> None:
    sender = f"{mailbox.word}@example.com"
    sent = [mailbox.deferred(sender=sender) for _ in range(3)]
    answer = service.ask("GET", f"/v1/messages?sender={sender}&sort=-queue_id", "viewer", {**NDJSON, **FRESH})
    assert answer.headers["Content-Type"] == "application/x-ndjson"
    assert answer.headers["Transfer-Encoding"] == "chunked"
    assert answer.headers["Age"] == "0"
    first, *rows, last = [json.loads(line) for line in answer.body.decode().split("\n")[:-1]]
    assert first["snapshot"]["complete"] is True
    assert [row["queue_id"] for row in rows] == sorted(sent, reverse=True)
    assert last == {"complete": True, "messages": 3}
    shown = page(service, f"sender={sender}&sort=-queue_id&snapshot_id={first['snapshot']['snapshot_id']}")
    assert shown["messages"] == rows


def test_a_stream_of_nothing_is_complete_too(service: Service) -> None:
    answer = service.ask("GET", "/v1/messages?sender=nobody@nowhere.example", "viewer", NDJSON)
    assert [json.loads(line) for line in answer.body.splitlines()][1:] == [{"complete": True, "messages": 0}]


def test_csv_has_a_line_for_each_message_and_nothing_that_a_spreadsheet_would_run(
    service: Service, mailbox: Mailbox
) -> None:
    sender = f"=1+1{mailbox.word}@example.com"
    queue_id = mailbox.deferred("a@strange.test", "b@strange.test", sender=sender)
    answer = service.ask("GET", f"/v1/messages?sender=%3D1%2B1{mailbox.word}@example.com", "viewer", {**CSV, **FRESH})
    assert answer.headers["Content-Type"] == "text/csv; charset=utf-8"
    *lines, last = csv.reader(io.StringIO(answer.body.decode(), newline=""))
    names, row = lines
    found = dict(zip(names, row, strict=True))
    listed = page(service, f"sender=%3D1%2B1{mailbox.word}@example.com")["messages"][0]
    assert found == {
        "queue_name": "deferred",
        "queue_id": queue_id,
        "arrival_time": str(listed["arrival_time"]),
        "message_size": str(listed["message_size"]),
        "sender": "'" + sender,
        "recipients": "a@strange.test b@strange.test",
        "next_attempt_time": str(listed["next_attempt_time"]),
        "forced_expire": "False",
        "delay_reason": listed["recipients"][0]["delay_reason"],
    }
    assert last == ["# complete: 1 messages"]


@contextmanager
def recorded(box: Sandbox, count: int, settings: dict[str, str]) -> Iterator[Service]:
    """A service whose postqueue prints a listing of so many messages, of a kilobyte each."""
    row = {
        "queue_name": "deferred",
        "arrival_time": 1000,
        "message_size": 10,
        "sender": "a@example.com",
        "recipients": [{"address": "b@example.org", "delay_reason": "refused " * 100}],
    }
    with services.place() as directory:
        commands = services.watched_commands(directory / "commands")
        lines = (json.dumps({**row, "queue_id": f"A{number:06}"}) + "\n" for number in range(count))
        (commands / "listing").write_text("".join(lines))
        (commands / "postqueue").write_text(f"#!/bin/sh\nexec cat {commands}/listing\n")
        with services.started(box, {"command_directory": str(commands), **settings}) as made:
            yield made


@pytest.fixture(scope="module")
def large(box: Sandbox) -> Iterator[Service]:
    with recorded(box, LARGE, {"web_workers": "1", "snapshot_max_age_seconds": "3600"}) as made:
        yield made


@contextmanager
def streaming(service: Service, accept: dict[str, str]) -> Iterator[http.client.HTTPResponse]:
    """A stream of which only the beginning was read, by a client with small buffers."""
    with closing(http.client.HTTPConnection(LOOPBACK, service.port, timeout=20)) as connection:
        connection.sock = socket.socket()
        connection.sock.settimeout(20)
        connection.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
        connection.sock.connect((LOOPBACK, service.port))
        connection.request("GET", "/v1/messages", None, {**accept, "Authorization": AUTHORIZATION["viewer"]})
        response = connection.getresponse()
        assert response.status == 200
        assert response.getheader("Transfer-Encoding") == "chunked"
        response.read(1000)
        yield response


def is_cut_off(response: http.client.HTTPResponse) -> bool:
    """Whether the rest breaks off, without the last line, in a way that a client of HTTP notices."""
    parts: list[bytes] = []
    try:
        while chunk := response.read(1 << 16):
            parts.append(chunk)
    except (http.client.IncompleteRead, OSError):
        return b"complete" not in b"".join(parts)[-200:]
    return False


@pytest.mark.parametrize("accept", [NDJSON, CSV], ids=["ndjson", "csv"])
def test_a_large_stream_is_whole(large: Service, accept: dict[str, str]) -> None:
    answer = large.ask("GET", "/v1/messages", "viewer", accept)
    assert all(answer.body.count(b"A%06d" % number) == 1 for number in range(0, LARGE, 97))
    assert answer.body.count(b"b@example.org") == LARGE
    assert answer.body[-100:].split(b"\n")[-2].strip() in (
        b'{"complete":true,"messages":10000}',
        b"# complete: 10000 messages",
    )


@pytest.mark.parametrize("accept", [NDJSON, CSV], ids=["ndjson", "csv"])
def test_a_stream_whose_server_dies_is_cut_off_and_not_ended(large: Service, accept: dict[str, str]) -> None:
    _, web = large.halves()
    with streaming(large, accept) as response:
        (worker,) = [pid for pid in large.tree() if services.parent(pid) == web]
        os.kill(worker, signal.SIGKILL)
        assert is_cut_off(response)
    large.wait_until_it_answers()


def test_a_stream_whose_snapshot_breaks_is_cut_off_and_the_log_says_why(box: Sandbox) -> None:
    with recorded(box, LARGE, {}) as service:
        with streaming(service, NDJSON) as response:
            (path,) = service.state_directory.glob("snapshots/*.sqlite")
            os.truncate(path, 1 << 20)
            assert is_cut_off(response)
        processes.wait_until(lambda: "sqlite3.DatabaseError" in service.stderr, 5)
        (service.directory / "stderr").write_text("")  # else the end of the service would complain of it


def gone(answer: Answer) -> bool:
    assert (answer.status, answer.code) == (410, "gone"), answer.body
    assert "/" not in answer.json()["detail"]
    assert answer.json()["field"] in ("next", "snapshot_id")
    return True


def test_only_so_many_listings_are_kept_for_those_who_page_and_an_older_one_is_gone(box: Sandbox) -> None:
    with recorded(box, 5, {"snapshot_keep_limit": "2"}) as service:
        cursors, listings = [], []
        for _ in range(3):
            shown = page(service, "limit=2", FRESH)
            cursors.append(shown["next"])
            listings.append(shown["snapshot"]["snapshot_id"])
        for _ in range(3):
            page(service, "limit=5", FRESH)
        for cursor in cursors[1:]:
            assert len(page(service, f"limit=2&next={cursor}")["messages"]) == 2
        assert gone(service.ask("GET", f"/v1/messages?limit=2&next={cursors[0]}", "viewer"))
        assert gone(service.ask("GET", f"/v1/messages?snapshot_id={listings[0]}", "viewer"))
        assert gone(service.ask("GET", f"/v1/messages?snapshot_id={listings[0]}", "viewer", NDJSON))
        assert len(list(service.state_directory.glob("snapshots/*.sqlite"))) <= 2 + 3


DIGITS = "9" * 31
CONDITIONS = "&".join(f"queue_name={name}" for name in ("hold", "deferred") * 50)
REFUSED = [
    ("next=AAAA", "next"), ("next=", "next"), ("next=%00", "next"), ("next=" + "A" * 1001, "next"),
    ("next={cursor}A", "next"), ("next={cursor}&sort=queue_id", "next"), ("next={cursor}&min_size=1", "next"),
    ("next={cursor}&snapshot_id=1-00000000", "next"), ("next={cursor}&next={cursor}", "next"),
    ("snapshot_id=../../etc/passwd", "snapshot_id"), ("snapshot_id=", "snapshot_id"),
    ("snapshot_id=%00", "snapshot_id"),
    ("min_age=2h&max_age=1h", "min_age"), ("min_size=2&max_size=1", "min_size"),
    ("min_age=1x", "min_age"), ("max_age=-5m", "max_age"), (f"max_age={DIGITS}s", "max_age"), ("min_age=5", "min_age"),
    ("min_age=", "min_age"), ("min_age=1.5h", "min_age"), ("min_age=%D9%A1h", "min_age"), ("min_age=1h%0A", "min_age"),
    (f"min_size={DIGITS}", "min_size"), ("max_size=-1", "max_size"), ("max_size=1e3", "max_size"),
    ("reason=a%00b", "reason"), ("reason=", "reason"), ("reason_group=a%00b", "reason_group"),
    ("reason=" + "a" * 1001, "reason"), ("sender_domain=%00", "sender_domain"),
    ("sort=sender&sort=queue_id", "sort"), ("sort=sender,queue_id", "sort"), ("sort=--sender", "sort"),
    ("forced_expire=1", "forced_expire"), ("forced_expire=yes", "forced_expire"),
    (CONDITIONS, "queue_name"), ("&".join(f"x{number}=1" for number in range(100)), "x0"),
]  # fmt: skip


@pytest.mark.parametrize(("query", "field"), REFUSED, ids=[query[:40] for query, _ in REFUSED])
def test_what_is_not_accepted_is_named(large: Service, query: str, field: str) -> None:
    cursor = page(large, "limit=1")["next"] if "{cursor}" in query else ""
    answer = large.ask("GET", "/v1/messages?" + query.replace("{cursor}", cursor), "viewer")
    assert (answer.status, answer.code, answer.json()["field"]) == (400, "invalid_argument", field), answer.body
    assert answer.json()["accepted"]


@pytest.mark.parametrize(
    ("path", "field"),
    [
        ("/v1/groups", "by"), ("/v1/groups?by=reason", "by"), ("/v1/groups?by=sender&by=recipient", "by"),
        ("/v1/groups?by=sender&limit=0", "limit"), ("/v1/groups?by=sender&min_age=2h&max_age=1h", "min_age"),
        ("/v1/groups?by=sender&sort=key", "sort"), ("/v1/ages?by=sender", "by"), ("/v1/ages?columns=1", "columns"),
        ("/v1/ages?columns=33", "columns"), ("/v1/ages?first=0s", "first"), ("/v1/ages?first=5", "first"),
        ("/v1/ages?linear=yes", "linear"), ("/v1/ages?min_size=2&max_size=1", "min_size"), ("/v1/status?x=1", "x"),
        ("/metrics?name=up", "name"),
    ],
)  # fmt: skip
def test_what_groups_ages_status_and_metrics_do_not_accept_is_named(large: Service, path: str, field: str) -> None:
    answer = large.ask("GET", path, "viewer")
    assert (answer.status, answer.code, answer.json()["field"]) == (400, "invalid_argument", field), answer.body


@pytest.mark.parametrize("name", ["limit", "next"])
@pytest.mark.parametrize("accept", [NDJSON, CSV], ids=["ndjson", "csv"])
def test_a_stream_takes_nothing_that_is_for_pages(large: Service, name: str, accept: dict[str, str]) -> None:
    value = {"limit": "5", "next": page(large, "limit=1")["next"]}[name]
    answer = large.ask("GET", f"/v1/messages?{name}={value}", "viewer", accept)
    assert (answer.status, answer.code, answer.json()["field"]) == (400, "invalid_argument", name)


@pytest.mark.parametrize(
    ("text", "found"), [("%25", 1), ("_", 0), ("plein%20%26%2050%25", 1), ("PLEIN", 1), ("plein_", 0), (".*", 0)]
)
def test_a_part_of_a_reason_means_itself(service: Service, mailbox: Mailbox, text: str, found: int) -> None:
    sender = f"{mailbox.word}@example.com"
    mailbox.deferred("a@strange.test", sender=sender)
    mailbox.deferred(f"a@{REFUSING}", sender=sender)
    assert page(service, f"sender={sender}&reason={text}", FRESH)["total"] == found


def test_a_group_of_a_real_reason_finds_its_messages_again(service: Service, box: Sandbox, mailbox: Mailbox) -> None:
    sender = f"{mailbox.word}@example.com"
    sent = {mailbox.deferred("a@greylist.example", sender=sender) for _ in range(2)}
    mailbox.deferred("a@full.example", sender=sender)
    answer = service.ask("GET", f"/v1/groups?by=reason_group&sender={sender}", "viewer", FRESH)
    first, second = answer.json()["groups"]
    assert (first["messages"], second["messages"], answer.json()["more"]) == (2, 1, False)
    assert "451 4.7.1" in first["key"]
    assert "# seconds" in first["key"]
    assert set(first["sample_queue_ids"]) == sent
    query = "&".join(f"{name}={http_quoted(value)}" for name, value in first["selection"].items())
    assert {row["queue_id"] for row in page(service, query)["messages"]} == sent


def http_quoted(text: str) -> str:
    return "".join(f"%{byte:02X}" for byte in text.encode())


def test_the_snapshots_are_for_web_alone(large: Service) -> None:
    for path in Path(large.state_directory, "snapshots").glob("*.sqlite"):
        assert path.stat().st_mode & 0o007 == 0
