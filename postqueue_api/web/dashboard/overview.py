"""GET /: is Postfix up, how much is queued where, since when and why, and what is being done about it."""

import time
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlencode

from flask import Blueprint, Response, request
from markupsafe import Markup

from postqueue_api.web.dashboard import charts, formats, freshness, inside, page
from postqueue_api.web.dashboard.charts import Bar, HeatRow, Span
from postqueue_api.web.dashboard.inside import Problem
from postqueue_api.web.dashboard.texts import t

overview = Blueprint("overview", __name__)

AGES = ("recipient_domain", "sender_domain")
HOURS = (1, 6, 24)
_ROWS = 8
_LABEL_CHARACTERS = 96
_UNITS = ((3600, "h"), (60, "m"), (1, "s"))
_COLUMNS = {"columns": 9, "first": "15m", "limit": _ROWS - 1}  # and a row of all
_ANY_AGE = {"Cache-Control": "max-age=31536000"}  # the listing that status was made from, or the last there was

Body = Mapping[str, Any]


@overview.get("/")
def show_overview() -> Response:
    """The page. Whatever cannot be found out is shown as unknown, beside the last that was known."""
    state: Body = inside.ask("GET", "/v1/status", headers=freshness.headers()).body
    by = _chosen("ages", AGES, AGES[0])
    hours = int(_chosen("hours", [str(each) for each in HOURS], "6"))
    ring: Body = inside.ask("GET", "/v1/samples", {"since": int(time.time() - HOURS[-1] * 3600)}).body
    known = _known(state, ring)
    return page.render(
        "overview.html",
        state=state,
        known=known,
        ages=_heat_map(by),
        ages_choices=[(t(f"overview.by_{each}"), each == by, _here(ages=each)) for each in AGES],
        depth=_depth(ring, hours),
        hours_choices=[(t("overview.last_hours", count=each), each == hours, _here(hours=each)) for each in HOURS],
        reasons=_reasons(state, known),
        sites=_groups("recipient_domain"),
        senders=_groups("sender"),
        queue_names=charts.QUEUES,
        link=messages,
    )


def messages(selection: Body) -> str:
    """Where the messages of a selection are listed."""
    return "/messages?" + urlencode(selection, doseq=True, safe="@:/,") if selection else "/messages"


def _chosen(name: str, values: Any, otherwise: str) -> str:
    value = request.args.get(name, otherwise)
    return value if value in values else otherwise


def _here(**changes: object) -> str:
    """This page with another choice."""
    kept = {name: value for name, value in request.args.items() if name in ("ages", "hours")}
    return "/?" + urlencode({**kept, **changes})


def _last(path: str, query: Body) -> Any:
    """What /v1 says from the newest listing there is, however old; None when there is none."""
    try:
        return inside.ask("GET", path, query, headers=_ANY_AGE).body
    except Problem:
        return None


def _known(state: Body, ring: Body) -> Body | None:
    """The queues with `taken_at`: as they are, else from the last listing, else from the last sample, else None.

    `is_old`: it is not how they are now; `is_partial`: messages may be missing.
    """
    found = state if state["queues"] is not None else _last("/v1/queues", {})
    if found is not None:
        snapshot = found["snapshot"]
        return {
            "queues": found["queues"],
            "taken_at": snapshot["taken_at"],
            "is_old": found is not state,
            "is_partial": not snapshot["complete"],
        }
    if not ring["samples"]:
        return None
    sample = ring["samples"][-1]
    queues = [{"queue_name": name, "messages": count} for name, count in sample["queues"].items()]
    return {"queues": queues, "taken_at": sample["taken_at"], "is_old": True, "is_partial": False}


def _heat_map(by: str) -> Body | None:
    found = _last("/v1/ages", {"by": by, **_COLUMNS})
    if found is None:
        return None
    bounds: list[int] = found["bounds"]
    spans = [
        {"min_age": least and _duration(least), "max_age": most and _duration(most)}
        for least, most in zip([None, *bounds], [*bounds, None], strict=True)
    ]
    rows = [
        HeatRow(
            label=row["key"] or t("overview.no_domain"),
            href=messages({by: row["key"]}),
            total=row["total"],
            cells=[
                (count, messages({by: row["key"], **_given(span)}))
                for count, span in zip(row["counts"], spans, strict=True)
            ],
        )
        for row in found["rows"]
    ]
    total = HeatRow(
        label=t("overview.all_domains"),
        href=messages({}),
        total=found["total"]["total"],
        cells=[(count, messages(_given(span))) for count, span in zip(found["total"]["counts"], spans, strict=True)],
    )
    older = t("overview.older", age=formats.age(bounds[-1]))
    head = [t(f"overview.column_{by}"), t("overview.total"), *(formats.age(bound) for bound in bounds), older]
    return {"total": found["total"]["total"], "table": charts.heat_map(head, rows, t(f"overview.ages_{by}"), total)}


def _duration(seconds: int) -> str:
    """As a selection has it, short: links of a table are many."""
    return next(f"{seconds // length}{unit}" for length, unit in _UNITS if seconds % length == 0)


def _given(conditions: Body) -> Body:
    return {name: value for name, value in conditions.items() if value is not None}


def _depth(ring: Body, hours: int) -> Body | None:
    end = time.time()
    span = Span(end - hours * 3600, end)
    samples = [each for each in ring["samples"] if span.start <= each["taken_at"] <= span.end]
    if not samples:
        return None
    totals = [sum(each["queues"].values()) for each in samples]
    arrived, removed = (sum(each[name] or 0 for each in samples) for name in ("arrived", "removed"))
    summary = t("overview.depth_summary", now=totals[-1], most=max(totals), least=min(totals))
    flowed = t("overview.flow_summary", arrived=arrived, removed=removed)
    title = t("overview.depth_title", count=hours)
    return {
        "chart": charts.depth(samples, span, ring["interval_seconds"] or 0, (title, summary)),
        "flow": charts.flow(samples, span, (t("overview.flow"), flowed)),
        "top": charts.top_of(max(totals)),
        "flow_top": charts.most_flow(samples, span),
        "ticks": span.ticks(),
        "queues": [name for name in charts.QUEUES if any(each["queues"].get(name) for each in samples)],
        "summary": Markup(" ").join((summary, flowed)),
        "rows": samples[:: -max(1, len(samples) // 6)],
    }


def _reasons(state: Body, known: Body | None) -> Markup | None:
    """The reasons that status has counted already; of an older listing they are counted anew."""
    if state["top_reasons"] is None:
        return None if known is None else _groups("reason_group")
    return _bars([(each["name"], each, {"reason_group": each["name"]}) for each in state["top_reasons"][:_ROWS]])


def _groups(by: str) -> Markup | None:
    found = _last("/v1/groups", {"by": by, "limit": _ROWS})
    if found is None:
        return None
    empty = t("overview.not_delayed") if by == "reason_group" else t("overview.no_domain")
    return _bars([(each["key"] or empty, each, each["selection"]) for each in found["groups"]])


def _bars(groups: list[tuple[Any, Body, Body]]) -> Markup:
    return charts.bars([Bar(_cut(label), group["messages"], messages(selection)) for label, group, selection in groups])


def _cut(label: str) -> str:
    """No longer than is shown; a text of ours is never that long."""
    return label if len(label) <= _LABEL_CHARACTERS else label[:_LABEL_CHARACTERS] + "…"
