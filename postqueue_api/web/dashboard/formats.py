"""How times, durations, sizes and numbers are written, as filters of the templates: each gives safe HTML."""

import datetime
import re
import unicodedata
from typing import Any

from flask import Blueprint
from markupsafe import Markup, escape

from postqueue_api.web.dashboard.texts import t

_UNITS = ("B", "kB", "MB", "GB", "TB")
_BDI, _END_OF_BDI = Markup("<bdi>"), Markup("</bdi>")
_SPANS = ((86400, "day"), (3600, "hour"), (60, "minute"), (1, "second"))


def install(blueprint: Blueprint) -> None:
    """Add t() and the filters time, clock, age, since, size, number and foreign to the application's templates."""
    for name, write in (
        ("time", time),
        ("clock", clock),
        ("age", age),
        ("since", since),
        ("size", size),
        ("number", number),
        ("foreign", foreign),
    ):
        blueprint.add_app_template_filter(write, name)
    blueprint.add_app_template_global(t, "t")


def time(epoch: float | None) -> Markup:
    """A moment, in UTC; the script writes it in the reader's zone. The exact time is shown on hover."""
    if epoch is None:
        return _unknown()
    at = _utc(epoch)
    return _time(at, f"{at:%Y-%m-%d %H:%M} UTC", "")


def clock(epoch: float) -> Markup:
    """The same without its day, for a chart."""
    at = _utc(epoch)
    return _time(at, f"{at:%H:%M} UTC", "clock")


def _utc(epoch: float) -> datetime.datetime:
    return datetime.datetime.fromtimestamp(epoch, datetime.UTC)


def _time(at: datetime.datetime, shown: str, kind: str) -> Markup:
    return Markup(
        '<time datetime="{:%Y-%m-%dT%H:%M:%SZ}" title="{:%Y-%m-%d %H:%M:%S} UTC" data-time="{}">{}</time>'
    ).format(at, at, kind, shown)


def age(seconds: float | None) -> Markup:
    """A duration in its two largest units: 4 h 12 min. Less than nothing is nothing."""
    if seconds is None:
        return _unknown()
    return Markup('<span title="{}">{}</span>').format(
        t("format.seconds", count=max(0, int(seconds))), _duration(seconds)
    )


def since(epoch: float | None, now: float) -> Markup:
    """How long ago something was, with the moment on hover."""
    return _unknown() if epoch is None else _time(_utc(epoch), _duration(now - epoch), "since")


def _duration(seconds: float) -> Markup:
    left = max(0, int(seconds))
    parts: list[tuple[int, str]] = []
    for length, unit in _SPANS:
        count, left = divmod(left, length)
        if count or parts or unit == "second":
            parts.append((count, unit))
    shown = [t(f"format.{unit}", count=count) for count, unit in parts[:2] if count] or [t("format.second", count=0)]
    return Markup(str(t("format.between"))).join(shown)  # noqa: S704


def size(count: int | None) -> Markup:
    """A size in decimal units: 1.2 MB, with the exact bytes on hover."""
    if count is None:
        return _unknown()
    value, unit = float(count), 0
    while value >= 999.5 and unit < len(_UNITS) - 1:
        value, unit = value / 1000, unit + 1
    shown = f"{value:.1f}" if unit and value < 9.95 else f"{value:.0f}"
    return Markup('<span title="{}">{}\u00a0{}</span>').format(t("format.bytes", count=count), shown, _UNITS[unit])


def number(count: int | None) -> Markup:
    """A number with its thousands apart."""
    return _unknown() if count is None else Markup("{:,}").format(count)


def foreign(text: Any) -> Markup:
    """Text of a mail or of a remote server: isolated from the text around it, and nothing in it invisible."""
    return _unknown() if text is None else _BDI + escape(visible(str(text))) + _END_OF_BDI


def _unknown() -> Markup:
    """What is shown where nothing is known."""
    shown = '<span class="quiet"><span aria-hidden="true">\N{EN DASH}</span><span class="unseen">{}</span></span>'
    return Markup(shown).format(t("format.unknown"))  # noqa: S704 - a constant


def visible(text: str) -> str:
    """The text with control and format characters as their code: a bidi override turns nothing around."""
    if text.isprintable():  # as nearly all of it is
        return text
    return "".join(part if part.isprintable() else _written_out(part) for part in re.split("([\n\t])", text))


def _written_out(text: str) -> str:
    return "".join(each if _is_plain(each) else f"⟦U+{ord(each):04X}⟧" for each in text)


def _is_plain(character: str) -> bool:
    return character in "\n\t" or unicodedata.category(character) not in ("Cc", "Cf", "Cs", "Co", "Zl", "Zp")
