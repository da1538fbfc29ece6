"""Charts: well-formed whatever the labels are, true to the numbers, and gaps stay gaps."""

import re
from typing import Any
from xml.etree import ElementTree

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from markupsafe import Markup

from postqueue_api.web.dashboard import charts
from postqueue_api.web.dashboard.charts import Bar, HeatRow, Span
from postqueue_api.web.dashboard.formats import foreign

# What XML cannot hold at all, and no chart can help it.
TEXTS = st.text(st.characters(exclude_characters="\ufffe\uffff"), max_size=40)
HOSTILE = '"><script>alert(1)</script><svg onload=alert(1)>&\u202e{0}{}\0\x1b'
DAY = Span(0, 86_400)
PARTS = {"root", "svg", "title", "desc", "path", "polygon", "class", "d", "points", "id", "viewBox",
         "preserveAspectRatio", "role", "aria-labelledby"}  # fmt: skip
WORDS = ("title", "description")


def read(markup: Markup) -> ElementTree.Element:
    return ElementTree.fromstring(f"<root>{markup}</root>")


def names(markup: Markup) -> set[str]:
    """The elements and attributes that there are."""
    return {name for each in read(markup).iter() for name in (each.tag, *each.attrib)}


def sample(taken_at: float, arrived: int | None = 0, removed: int | None = 0, **queues: int) -> dict[str, Any]:
    return {"taken_at": taken_at, "queues": queues, "arrived": arrived, "removed": removed}


def heights(chart: Markup, queue: str) -> list[list[int]]:
    """The upper edges of each area of a queue, in units of the chart from below."""
    found = re.findall(rf'<polygon class="queue-{queue}" points="([^"]+)"', chart)
    return [[charts.HEIGHT - int(point.split(",")[1]) for point in points.split()[1:-1]] for points in found]


@given(label=TEXTS, address=TEXTS, counts=st.lists(st.integers(0, 10**9), min_size=1, max_size=4))
@example(label=HOSTILE, address=HOSTILE, counts=[1])
def test_no_text_breaks_out_of_a_chart(label: str, address: str, counts: list[int]) -> None:
    address = foreign(address).striptags()  # an address is encoded already, so it has no control characters
    rows = [HeatRow(label, address, sum(counts), [(count, address) for count in counts])]
    plain = [HeatRow("a", "/", 1, [(1, "/")])]
    table = charts.heat_map([label] * (len(counts) + 2), rows, label)
    assert names(table) <= names(charts.heat_map(["a"], plain, "a"))
    bars = charts.bars([Bar(label, count, address) for count in counts])
    assert names(bars) == names(charts.bars([Bar("a", 1, "/")]))
    samples = [sample(60.0 * number, count, count, **{label: count}) for number, count in enumerate(counts)]
    for chart in (charts.depth(samples, DAY, 60, (label, label)), charts.flow(samples, DAY, (label, label))):
        assert names(chart) <= PARTS


def test_a_chart_says_its_title_and_description_to_those_who_do_not_see_it() -> None:
    for chart in (charts.depth([], DAY, 60, WORDS), charts.flow([], DAY, WORDS)):
        svg = read(chart)[0]
        assert svg.attrib["role"] == "img"
        told = {each.attrib["id"]: each.text for each in svg if "id" in each.attrib}
        assert [told[name] for name in svg.attrib["aria-labelledby"].split()] == list(WORDS)


def test_a_bar_is_as_long_as_its_share_of_the_largest_and_leads_somewhere() -> None:
    root = read(charts.bars([Bar("a", 200, "/messages?x=1&y=2"), Bar("b", 50, "/b"), Bar("c", 0, "/c")]))
    assert [each.attrib["width"] for each in root.iter("rect")] == ["100.0%", "25.0%", "0.0%"]
    assert [each.attrib["href"] for each in root.iter("a")] == ["/messages?x=1&y=2", "/b", "/c"]
    assert [each.text for each in root.iter("b")] == ["200", "50", "0"]
    assert read(charts.bars([]))[0].attrib["class"] == "bars"


@pytest.mark.parametrize(
    ("count", "most", "level"),
    [(0, 0, 0), (0, 5, 0), (1, 1, 1), (5, 5, 2), (100, 100, 6), (1, 10**6, 1), (10**3, 10**6, 3), (10**6, 10**6, 6)],
)
def test_a_cell_is_as_dark_as_its_magnitude_and_a_handful_is_never_dark(count: int, most: int, level: int) -> None:
    assert charts.level(count, most) == level


def test_a_cell_that_counts_something_is_a_link_and_an_empty_one_is_not() -> None:
    root = read(
        charts.heat_map(["domain", "all", "5 min", "older"], [HeatRow("x", "/x", 3, [(3, "/3"), (0, "/0")])], "c")
    )
    assert [each.attrib["href"] for each in root.iter("a")] == ["/x", "/3"]
    assert [each.attrib.get("class") for each in root.iter("td")] == [None, "h1", None]


@pytest.mark.parametrize(
    ("most", "top"), [(0, 2), (1, 2), (2, 2), (3, 4), (5, 10), (10, 10), (11, 20), (39, 40), (41, 100), (10**6, 10**6)]
)
def test_a_scale_ends_a_little_above_what_is_shown(most: int, top: int) -> None:
    assert charts.top_of(most) == top


def test_areas_lie_upon_each_other_and_end_at_their_sums() -> None:
    samples = [sample(0, hold=10, deferred=30, active=0), sample(40_000, hold=10, deferred=90, active=0)]
    chart = charts.depth(samples, DAY, 40_000, WORDS)
    assert heights(chart, "hold") == [[20, 20]]
    assert heights(chart, "deferred") == [[80, 200]]
    assert heights(chart, "active") == []


def test_a_queue_that_nobody_knows_lies_on_top() -> None:
    chart = charts.depth([sample(0, hold=1, novelty=1), sample(60, hold=1, novelty=1)], Span(0, 60), 60, WORDS)
    assert heights(chart, "other") == [[200, 200]]


def test_where_samples_are_missing_there_is_a_gap() -> None:
    minutes = [0, 1, 2, 10, 11, 30]
    samples = [sample(60.0 * minute, deferred=1) for minute in minutes]
    assert [[each["taken_at"] // 60 for each in part] for part in charts.parts(samples, 60)] == [
        [0, 1, 2],
        [10, 11],
        [30],
    ]
    chart = charts.depth(samples, Span(0, 1800), 60, WORDS)
    assert len(heights(chart, "deferred")) == 3
    assert charts.parts([], 60) == []


def test_samples_of_a_queue_so_long_that_they_are_seldom_are_no_gaps() -> None:
    assert len(charts.parts([sample(1200.0 * number) for number in range(5)], 60)) == 1


def test_no_peak_is_lost_when_there_are_more_samples_than_columns() -> None:
    samples = [sample(60.0 * minute, deferred=1000 if minute == 777 else 1) for minute in range(1440)]
    chart = charts.depth(samples, DAY, 60, WORDS)
    assert max(heights(chart, "deferred")[0]) == charts.HEIGHT
    assert len(chart) < 3000


def test_arrivals_go_up_removals_down_and_what_is_not_known_goes_nowhere() -> None:
    samples = [sample(0, 100, 50), sample(10, None, None), sample(43_200, None, 25)]
    root = read(charts.flow(samples, DAY, WORDS))
    paths = {each.attrib["class"]: each.attrib["d"] for each in root.iter("path")}
    assert paths["arrived"] == "M0 20v-20h11v20z"
    assert paths["removed"] == "M0 20v10h11v-10zM480 20v5h11v-5z"


def test_a_day_of_samples_of_every_queue_stays_small() -> None:
    queues = dict.fromkeys(charts.QUEUES, 123_456)
    samples = [sample(60.0 * minute, minute, minute, **queues) for minute in range(1440)]
    assert len(charts.depth(samples, DAY, 60, WORDS)) + len(charts.flow(samples, DAY, WORDS)) < 9_000


@given(st.lists(st.tuples(st.floats(0, 86_400), st.integers(0, 10**7)), max_size=30))
def test_every_point_lies_within_the_chart(found: list[tuple[float, int]]) -> None:
    samples = [sample(at, count, count, deferred=count) for at, count in sorted(found)]
    chart = charts.depth(samples, DAY, 60, WORDS)
    for x, y in re.findall(r"(\d+),(-?\d+)", chart.partition("<polygon")[2]):
        assert 0 <= int(x) <= charts.WIDTH
        assert 0 <= int(y) <= charts.HEIGHT
