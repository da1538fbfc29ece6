"""Charts from plain data, made here so that no script is needed: a heat map, bars that are links, depth over time.

Colours come from classes alone. Sizes stand in attributes of SVG, which is stretched to the width there is, so text
stands beside it and never in it. Labels are text from anywhere.
"""

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby, pairwise
from statistics import median
from typing import Any

from markupsafe import Markup

from postqueue_api.web.dashboard.formats import foreign, visible

WIDTH, HEIGHT, FLOW_HEIGHT = 960, 200, 40
LEVELS = 6
QUEUES = ("hold", "deferred", "active", "incoming", "maildrop")  # from the bottom up; any other is on top of these
OTHER = "other"

_COLUMNS = 80
_STEP = WIDTH // _COLUMNS
_GAP = 3
_HOTTEST_AT_LEAST = 100

Sample = dict[str, Any]  # as /v1/samples has it


@dataclass(frozen=True)
class HeatRow:
    """A row of the heat map: where its label leads, and each count with where that leads."""

    label: str | Markup
    href: str
    total: int
    cells: Sequence[tuple[int, str]]


@dataclass(frozen=True)
class Bar:
    """A bar: what it counts, how many, where it leads; `note` is told besides."""

    label: str | Markup
    value: int
    href: str
    note: Markup = Markup()


def heat_map(
    head: Sequence[str | Markup], rows: Sequence[HeatRow], caption: str | Markup, total: HeatRow | None = None
) -> Markup:
    """A table whose cells are the darker the more they count. `head`: of the labels, the totals and each column.

    `total`: a row above the others, which says nothing about how dark these are, and is not coloured itself.
    """
    most = max((count for row in rows for count, _ in row.cells), default=0)
    columns = Markup().join(Markup('<th scope="col">{}</th>').format(_text(each)) for each in head)
    lines = Markup().join(_line(row, most) for row in rows)
    if total is not None:
        lines = _line(total, None) + lines
    return Markup(
        '<table class="rows counts heat"><caption class="quiet">{}</caption>'
        "<thead><tr>{}</tr></thead><tbody>{}</tbody></table>"
    ).format(_text(caption), columns, lines)


def _line(row: HeatRow, most: int | None) -> Markup:
    kind = Markup(' class="total"') if most is None else ""
    return Markup('<tr{}><th scope="row"><a href="{}">{}</a></th><td>{:,}</td>{}</tr>').format(
        kind, row.href, _text(row.label), row.total, Markup().join(_cell(*cell, most) for cell in row.cells)
    )


def level(count: int, most: int) -> int:
    """How dark a count is, 0 to LEVELS: by its magnitude, and a handful is never dark."""
    if count <= 0:
        return 0
    share = math.log1p(count) / math.log1p(max(most, count, _HOTTEST_AT_LEAST))
    return max(1, math.floor(LEVELS * share))


def bars(rows: Sequence[Bar]) -> Markup:
    """A list of links, each with its number and a bar below that is as long as its share of the largest."""
    most = max((row.value for row in rows), default=0) or 1
    items = (
        Markup(
            '<li><a href="{}">{} <b>{:,}</b></a>{}<svg aria-hidden="true"><rect width="{:.1f}%"/></svg></li>'
        ).format(row.href, _text(row.label), row.value, row.note, 100 * row.value / most)
        for row in rows
    )
    return Markup('<ol class="bars">{}</ol>').format(Markup().join(items))


def top_of(most: int) -> int:
    """Where the scale of a chart ends: an even number, a little above what is shown."""
    unit = 1
    while True:
        for step in (2, 4, 10):
            if step * unit >= most:
                return step * unit
        unit *= 10


@dataclass(frozen=True)
class Span:
    """From when to when a chart goes, in seconds since the epoch."""

    start: float
    end: float

    def x(self, at: float) -> int:
        """Where a moment is, within the chart."""
        return round(min(1, max(0, (at - self.start) / (self.end - self.start))) * WIDTH)

    def column(self, at: float) -> int:
        """Which of the columns it belongs to."""
        return min(_COLUMNS - 1, self.x(at) * _COLUMNS // WIDTH)

    def ticks(self, count: int = 5) -> list[float]:
        """Moments at equal distances, the first and the last one among them."""
        return [self.start + (self.end - self.start) * number / (count - 1) for number in range(count)]


def depth(samples: Sequence[Sample], span: Span, interval: float, words: tuple[str | Markup, str | Markup]) -> Markup:
    """How long the queues were, one area upon the other. Where samples are missing there is a gap.

    `interval`: how far apart the samples are meant to be, in seconds; `words`: title and description.
    """
    top = top_of(max((sum(each["queues"].values()) for each in samples), default=0))
    areas = Markup().join(
        area for part in parts(samples, interval) for area in _areas(list(_peaks(part, span)), span, top)
    )
    grid = Markup().join(
        Markup('<path class="grid" d="M0 {0}H{1}"/>').format(HEIGHT * n // 4, WIDTH) for n in range(1, 4)
    )
    return _svg("depth", HEIGHT, words, grid + areas)


def flow(samples: Sequence[Sample], span: Span, words: tuple[str | Markup, str | Markup]) -> Markup:
    """What arrived, upwards, and what was removed, downwards; nothing where it is not known. `words` as for depth."""
    columns = {
        column: (_sum(each, "arrived"), _sum(each, "removed"))
        for column, found in groupby(samples, lambda each: span.column(each["taken_at"]))
        for each in [list(found)]
    }
    top = most_flow(samples, span)
    half = FLOW_HEIGHT // 2
    paths = []
    for place, (name, sign) in enumerate((("arrived", -1), ("removed", 1))):
        heights = ((column, round(values[place] / top * half)) for column, values in columns.items())
        path = "".join(
            f"M{column * _STEP} {half}v{sign * high}h{_STEP - 1}v{-sign * high}z" for column, high in heights if high
        )
        paths.append(Markup('<path class="{}" d="{}"/>').format(name, path))
    middle = Markup('<path class="grid" d="M0 {}H{}"/>').format(half, WIDTH)
    return _svg("flow", FLOW_HEIGHT, words, middle + Markup().join(paths))


def most_flow(samples: Sequence[Sample], span: Span) -> int:
    """Where the scale of `flow` ends."""
    columns = (list(found) for _, found in groupby(samples, lambda each: span.column(each["taken_at"])))
    return top_of(max((max(_sum(each, "arrived"), _sum(each, "removed")) for each in columns), default=0))


def parts(samples: Sequence[Sample], interval: float) -> list[list[Sample]]:
    """The samples, split where some are missing."""
    distances = [later["taken_at"] - earlier["taken_at"] for earlier, later in pairwise(samples)]
    gap = _GAP * max(interval, median(distances)) if distances else math.inf
    starts = [0, *(place for place, distance in enumerate(distances, 1) if distance > gap), len(samples)]
    return [list(samples[start:end]) for start, end in pairwise(starts) if start < end]


def _peaks(samples: Iterable[Sample], span: Span) -> Iterator[Sample]:
    """Of each column the sample with the most messages, so that no peak is lost."""
    for _, found in groupby(samples, lambda each: span.column(each["taken_at"])):
        yield max(found, key=lambda each: sum(each["queues"].values()))


def _areas(samples: Sequence[Sample], span: Span, top: int) -> Iterator[Markup]:
    """The sums of the queues from the bottom up to each, the highest first, so that the lower ones lie before it."""
    places = [span.x(each["taken_at"]) for each in samples]
    if places[-1] == places[0]:  # one sample alone would have no width
        start = min(places[0], WIDTH - _STEP)
        samples, places = [samples[0]] * 2, [start, start + _STEP]
    names = (*QUEUES, OTHER)
    for number, name in reversed(list(enumerate(names, 1))):
        if any(_of_queue(each["queues"], name) for each in samples):
            sums = (sum(_of_queue(each["queues"], below) for below in names[:number]) for each in samples)
            edge = [(x, HEIGHT - round(HEIGHT * y / top)) for x, y in zip(places, sums, strict=True)]
            points = [(places[0], HEIGHT), *_bends(edge), (places[-1], HEIGHT)]
            path = " ".join(f"{x},{y}" for x, y in points)
            yield Markup('<polygon class="{}" points="{}"/>').format(f"queue-{name}", path)


def _bends(edge: Sequence[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    """The points of a line without those in the middle of a level stretch."""
    for place, point in enumerate(edge):
        if (
            point[1] != edge[place - 1][1]
            or point[1] != edge[(place + 1) % len(edge)][1]
            or place in (0, len(edge) - 1)
        ):
            yield point


def _of_queue(queues: dict[str, int], name: str) -> int:
    if name != OTHER:
        return queues.get(name, 0)
    return sum(count for queue, count in queues.items() if queue not in QUEUES)


def _sum(samples: Iterable[Sample], member: str) -> int:
    return sum(each[member] or 0 for each in samples)


def _svg(name: str, height: int, words: tuple[str | Markup, str | Markup], content: Markup) -> Markup:
    return Markup(
        '<svg class="chart {0}" viewBox="0 0 {1} {2}" preserveAspectRatio="none" role="img"'
        ' aria-labelledby="{0}-title {0}-description"><title id="{0}-title">{3}</title>'
        '<desc id="{0}-description">{4}</desc>{5}</svg>'
    ).format(name, WIDTH, height, *(each if isinstance(each, Markup) else visible(each) for each in words), content)


def _text(label: str | Markup) -> Markup:
    return Markup("<bdi>{}</bdi>").format(label) if isinstance(label, Markup) else foreign(label)


def _cell(count: int, href: str, most: int | None) -> Markup:
    if not count:
        return Markup("<td>0</td>")
    if most is None:
        return Markup('<td><a href="{}">{:,}</a></td>').format(href, count)
    return Markup('<td class="h{}"><a href="{}">{:,}</a></td>').format(level(count, most), href, count)
