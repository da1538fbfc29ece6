"""How old a listing a page may show at first, so that nobody waits for a long queue to be listed.

The script asks for newer numbers at once and puts them in place, and the page says how old its own are. A listing from
before the end of the last operation is not shown: who has just deleted something does not see it any more.
"""

import time

from flask import request

from postqueue_api.web.dashboard import inside

PATIENCE_SECONDS = 30


def headers() -> dict[str, str]:
    """The Cache-Control for what a page is made from; none when the script asks, for which the settings decide."""
    if "X-Live" in request.headers:
        return {}
    age = float(PATIENCE_SECONDS)
    for operation in inside.ask("GET", "/v1/operations", query={"limit": 1}).body["operations"]:
        if operation["finished_at"] is not None:
            age = min(age, time.time() - operation["finished_at"])
    return {"Cache-Control": f"max-age={max(0, int(age))}"}
