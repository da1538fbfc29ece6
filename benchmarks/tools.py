"""The same questions to the service, to `postqueue -j | jq` and to pymailq, on one real queue."""

import shlex
import statistics
import subprocess
import sys
from collections.abc import Callable
from functools import partial

from benchmarks.measure import side_by_side, table
from benchmarks.service import Client, real_queue, running

_MESSAGES = 100_000
_ROUNDS = 3
_DOMAIN = "example.com"
_JQ = {
    "list": "jq -c .",
    "filter by sender_domain": f"""jq -c 'select(.sender | ascii_downcase | endswith("@{_DOMAIN}"))'""",
    "count by sender_domain": "jq -r '.sender | ascii_downcase | split(\"@\") | last' | sort | uniq -c | sort -rn",
}
_PATHS = {
    "list": "/v1/messages",
    "filter by sender_domain": f"/v1/messages?sender_domain={_DOMAIN}",
    "count by sender_domain": "/v1/groups?by=sender_domain&limit=1000",
}
# pymailq 0.9.0 knows no long queue IDs and stops at a byte that is not UTF-8: both are mended from outside.
_PYMAILQ = """
import re, sys
from collections import Counter
from pymailq import store
listed = store.PostqueueStore()
listed.postqueue_cmd = ["/bin/sh", "-c", sys.argv[1] + " -p | iconv -c -f UTF-8 -t UTF-8"]
listed.mail_id_re = re.compile(r"^[0-9A-Za-z]{6,64}[*!]?$")
listed.load()
found = {
    "list": lambda: len(listed.mails),
    "filter by sender_domain": lambda: sum(each.sender.lower().endswith("@" + sys.argv[3]) for each in listed.mails),
    "count by sender_domain": lambda: Counter(each.sender.lower().rpartition("@")[2] for each in listed.mails),
}[sys.argv[2]]()
"""


def run() -> str:
    """A row for each question, with the time of each way, and their memory."""
    with real_queue(_MESSAGES) as box, running(box) as client:
        postqueue = f"postqueue -c {shlex.quote(str(box.config_directory))}"
        rows = [_compare(client, postqueue, question) for question in _JQ]
        peaks = [_peak(partial_command) for partial_command in (_jq(postqueue, "list"), _pymailq(postqueue, "list"))]
        with client.processes.watched():
            for question in _PATHS:
                _ask(client, question, "no-cache")
    megabytes = [f"{client.processes.peak:.0f} (all of agent and web)", "the same", *(f"{peak:.0f}" for peak in peaks)]
    header = ["question", "service, listing anew, s", "service, s", "`postqueue -j` and `jq`, s", "pymailq, s"]
    return table(header, [*rows, ["largest memory, MB", *megabytes]])


def _compare(client: Client, postqueue: str, question: str) -> list[object]:
    acts: list[Callable[[], object]] = [
        partial(_ask, client, question, "no-cache"),
        partial(_ask, client, question, "max-age=86400"),
        partial(subprocess.run, _jq(postqueue, question), check=True, stdout=subprocess.DEVNULL),
        partial(subprocess.run, _pymailq(postqueue, question), check=True, stdout=subprocess.DEVNULL),
    ]
    return [question, *(f"{statistics.median(times):.2f}" for times in side_by_side(acts, _ROUNDS))]


def _ask(client: Client, question: str, cache_control: str) -> None:
    """All that fit, as jq prints it, and not a page of it."""
    client.get(_PATHS[question], None, Accept="application/x-ndjson, application/json;q=0.5", **{
        "Cache-Control": cache_control
    })  # fmt: skip


def _jq(postqueue: str, question: str) -> list[str]:
    return ["/bin/sh", "-c", f"{postqueue} -j | {_JQ[question]}"]


def _pymailq(postqueue: str, question: str) -> list[str]:
    return [sys.executable, "-c", _PYMAILQ, postqueue, question, _DOMAIN]


def _peak(command: list[str]) -> float:
    """The largest resident set of any process of a command, in megabytes, as a process of its own sees it."""
    look = "import resource, subprocess, sys; subprocess.run(sys.argv[1:], check=True, stdout=subprocess.DEVNULL)"
    look += "; print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)"
    done = subprocess.run([sys.executable, "-c", look, *command], check=True, capture_output=True, text=True)
    return int(done.stdout) * 1024 / 1e6
