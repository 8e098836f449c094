"""The report: well-formed, self-contained, escaped, complete."""

from __future__ import annotations

import math
import re
import xml.etree.ElementTree as ET
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import leyline
from leyline import Stage
from tests.tolaria.show.events import a_run, schema, started
from tolaria.show import report
from tolaria.show.report import svg
from tolaria.show.report.page import render
from tolaria.show.view import RunView

RUN = a_run()
HOSTILE = "<script>alert('x')</script> & \"quoted\" \x00\x1b[2J ]]> -- http://example.invalid/"


def view_of(events: list[leyline.Event]) -> RunView:
    view = RunView()
    for event in events:
        view.apply(event)
    return view


def parsed(page: str) -> ET.Element:
    return ET.fromstring(page.removeprefix("<!DOCTYPE html>\n"))  # noqa: S314 - our own page


def words(page: str) -> str:
    return " ".join("".join(parsed(page).itertext()).split())


def hostile_events(text: str) -> list[leyline.Event]:
    """A run whose every name and cause is the same hostile text."""
    command = leyline.Germinate(seed=text, site=text, blueprint=text, cause=text)
    score = leyline.Score(
        seed=text,
        site=text,
        blueprint=text,
        parameters=1,
        gain=math.nan,
        gain_error=math.inf,
        threshold=math.nan,
        steps=1,
        chosen=True,
    )
    moves = [
        leyline.SeedReport(
            epoch=1,
            seed=text,
            site=text,
            blueprint=text,
            was=was,
            now=was + 1,
            parameters=1,
            alpha=0.5,
            cause=text,
        )
        for was in (Stage.DORMANT, Stage.GERMINATED, Stage.TRAINING)
    ]
    return [
        leyline.RunStarted(
            run_id=text, epoch=0, num_epochs=2, host_parameters=0, model=text, resumed=False
        ),
        leyline.Decision(epoch=1, policy=text, cause=text, commands=(command,), scores=(score,)),
        *moves,
        leyline.EpochMetrics(
            epoch=1,
            num_epochs=2,
            step=1,
            metrics={text: math.nan, f"{text} loss": math.inf, "acc": 0.5},
            parameters=1,
            stages={text: 1},
        ),
        leyline.BoundaryTiming(
            epoch=1, gather_ms=1, decide_ms=30, apply_ms=1, outside_ms={text: 1.0}
        ),
        leyline.Fault(epoch=1, step=1, where=text, what=text, action=text),
        leyline.RunEnded(run_id=text, epoch=1, status=text, parameters=1, metrics={text: 1.0}),
    ]


def test_the_file_is_the_page(tmp_path: Path) -> None:
    """`write` writes one UTF-8 file that parses."""
    view = view_of(RUN)
    report.write(view, tmp_path / "report.html")
    assert (tmp_path / "report.html").read_text(encoding="utf-8") == render(view)
    assert [path.name for path in tmp_path.iterdir()] == ["report.html"]


@pytest.mark.parametrize(
    "events",
    [[], RUN[:1], [started(), schema()], RUN[:40], RUN, RUN[200:], hostile_events(HOSTILE)],
    ids=["none", "started", "no epochs", "early", "whole", "late joiner", "hostile"],
)
def test_every_page_is_well_formed(events: list[leyline.Event]) -> None:
    """Empty, running, finished and hostile runs all give a page that an XML parser takes."""
    assert parsed(render(view_of(events))).tag == "html"


@settings(max_examples=40, deadline=None)
@given(st.text(max_size=60))
def test_any_text_is_escaped(text: str) -> None:
    """No text from an event adds an element or an attribute to the page."""

    def shape(page: str) -> list[tuple[str, tuple[str, ...]]]:
        return [(element.tag, tuple(sorted(element.attrib))) for element in parsed(page).iter()]

    harmless = render(view_of(hostile_events(re.sub(r"[^A-Za-z0-9]", "n", text))))
    assert shape(render(view_of(hostile_events(text)))) == shape(harmless)


def test_nothing_is_fetched_and_nothing_runs() -> None:
    """No script, no link, no source, no import, no address: the file stands alone."""
    page = render(view_of(RUN))
    assert "http" not in page
    tags = {element.tag for element in parsed(page).iter()}
    assert not tags & {"script", "link", "img", "iframe", "object", "embed", "image", "use"}
    attributes = {name for element in parsed(page).iter() for name in element.attrib}
    assert not attributes & {"src", "href", "srcset", "data", "action"}
    assert not any(name.startswith("on") for name in attributes)
    assert "url(" not in page
    assert "@import" not in page


def test_the_page_tells_the_whole_run() -> None:
    """Key figures, every grafted seed, every cause, the fault and the limit are on the page."""
    view = view_of(RUN)
    text = words(render(view))
    assert f"{view.latency(95).total:.2f} ms" in text
    assert "limit 18 ms" in text
    assert "28,938" in text
    assert "40 more candidates from 3 races" in text
    assert "disk full" in text
    for life in view.seeds:
        if life.touched_host:
            assert f"{life.blueprint}, {life.parameters:,} params" in text
    for decision in view.decisions:
        if decision.commands:
            assert decision.cause.replace("+-", "\u00b1") in text
    for stage in Stage:
        if stage not in (Stage.DORMANT, Stage.CANCELLED):
            assert stage.name.lower().replace("_", " ") in text


def of_class(page: ET.Element, name: str) -> list[ET.Element]:
    return [element for element in page.iter() if name in (element.get("class") or "").split()]


def test_each_strip_shows_the_stages_its_seed_passed() -> None:
    """The culled seed's strip has a segment for each stage, and its alpha stops at the cull."""
    view = view_of(RUN)
    culled = next(life for life in view.seeds if life.stage == Stage.CULLED)
    page = parsed(render(view))
    titles = [element.get("title") or "" for element in of_class(page, "stage")]
    mine = [title for title in titles if title.startswith(f"{culled.seed}: ")]
    assert [title.split(": ")[1].split(" after")[0] for title in mine] == [
        "training",
        "grafting",
        "stabilization",
        "evaluating",
        "culled",
    ]
    row = next(r for r in of_class(page, "life") if culled.seed in "".join(r.itertext()))
    (alpha,) = of_class(row, "alpha")
    last = (alpha.get("points") or "").split()[-1]
    assert float(last.split(",")[0]) == pytest.approx(100 * 23 / 30, abs=1e-3)
    assert "culled after epoch 23" in "".join(row.itertext())


@pytest.mark.parametrize("events", [RUN, hostile_events(HOSTILE)], ids=["whole", "hostile"])
def test_drawings_are_as_wide_as_the_page_lets_them_be(events: list[leyline.Event]) -> None:
    """Across, all that is drawn is measured in percent of its place, and lies within it."""
    page = parsed(render(view_of(events)))
    drawings = of_class(page, "plot") + of_class(page, "interval")
    assert len(drawings) >= 4
    shares = []
    for drawing in drawings:
        assert not {"width", "viewBox"} & set(drawing.attrib)
        for element in drawing.iter():
            places = [element.get(name) for name in ("x", "x1", "x2", "cx") if element.get(name)]
            assert all(str(place).endswith("%") for place in places)
            shares += [float(str(place)[:-1]) for place in places]
            points = (element.get("points") or "").split()
            shares += [float(point.split(",")[0]) for point in points]
    for stage in of_class(page, "stage"):
        lengths = re.findall(r"([\d.]+)%", stage.get("style") or "")
        shares.append(sum(map(float, lengths)))
    assert min(shares) >= -2
    assert max(shares) <= 102


def test_a_narrow_page_can_name_every_cell() -> None:
    """Each cell of a table that is turned into cards carries the heading of its column."""
    page = parsed(render(view_of(RUN)))
    tables = of_class(page, "cards")
    assert len(tables) == 2
    for table in tables:
        heads = ["".join(head.itertext()) for head in table.iter("th")]
        for row in table.findall("tbody/tr"):
            assert [cell.get("data-of") for cell in row] == heads
            assert all(heads)


def test_names_of_blueprints_are_not_broken() -> None:
    """A blueprint's name stays in one piece; names of sites may be broken at any place."""
    page = parsed(render(view_of(RUN)))
    blueprints = [cell for cell in page.iter("td") if cell.get("data-of") == "blueprint"]
    assert len(blueprints) > 3
    assert {cell.get("class") for cell in blueprints} == {"word"}
    (style,) = page.iter("style")
    assert ".num, .word { white-space: nowrap;" in (style.text or "")
    assert ".name { overflow-wrap: anywhere;" in (style.text or "")


def test_metrics_that_end_alike_have_labels_apart() -> None:
    """Six losses at the foot of a plot have labels 16 pixels or more apart, above its axis."""
    metrics = {f"loss_{number}": 2.0 * (number == 0) for number in range(7)}
    event = leyline.EpochMetrics(
        epoch=1, num_epochs=1, step=1, metrics=metrics, parameters=1, stages={}
    )
    page = parsed(render(view_of([event])))
    heights = sorted(float(label.get("y") or "") for label in of_class(page, "end"))
    assert len(heights) == 7
    assert all(b - a >= 16 for a, b in pairwise(heights))
    (axis,) = {float(line.get("y1") or "") for line in of_class(page, "axis")}
    assert heights[-1] < axis


def test_a_seed_s_name_is_explained_where_it_stands() -> None:
    """The report says what the name of a seed with an earlier life is made of."""
    assert "block1/0 names place 0 at the site block1; (life 2): number 2" in words(
        render(view_of(RUN))
    )


def test_a_line_does_not_bridge_what_was_not_measured() -> None:
    """A NaN in a metric breaks its line in two."""
    events: list[leyline.Event] = [
        leyline.EpochMetrics(
            epoch=epoch,
            num_epochs=9,
            step=epoch,
            metrics={"loss": math.nan if epoch == 5 else 1.0 / epoch},
            parameters=1,
            stages={},
        )
        for epoch in range(1, 10)
    ]
    lines = list(parsed(render(view_of(events))).iter("polyline"))
    assert [len((line.get("points") or "").split()) for line in lines] == [4, 4]


@settings(max_examples=60, deadline=None)
@given(st.floats(-1e6, 1e6), st.floats(1e-3, 1e6))
def test_ticks_are_few_round_and_inside(low: float, span: float) -> None:
    """Between 2 and 11 ticks inside the range, evenly spaced by 1, 2 or 5 times a power of ten."""
    found = svg.ticks(low, low + span, 5)
    assert 2 <= len(found) <= 11
    assert all(low - span * 1e-6 <= tick <= low + span * (1 + 1e-6) for tick in found)
    step = found[1] - found[0]
    digit = step / 10 ** math.floor(math.log10(step) + 1e-6)
    assert min(abs(digit - round_one) for round_one in (1, 2, 5, 10)) < 1e-2


@settings(max_examples=60, deadline=None)
@given(st.floats(allow_nan=False, allow_infinity=False), st.floats(-1.79e308, 1.79e308))
def test_any_finite_values_can_be_drawn(one: float, other: float) -> None:
    """Also where their difference is not finite: few ticks, and every place is on the plot."""
    low, high = sorted((one, other))
    found = svg.ticks(low, high, 5)
    assert 1 <= len(found) <= 12
    axis = svg.Scale(low, high, 0.0, 100.0)
    assert all(-1e-6 <= axis(value) <= 100.0 + 1e-6 for value in (low, high))


@settings(max_examples=60, deadline=None)
@given(st.lists(st.floats(0, 300), min_size=1, max_size=10))
def test_labels_at_the_ends_of_lines_never_overlap(wanted: list[float]) -> None:
    """Labels keep their distance and stay on the plot."""
    placed = sorted(svg.spread(wanted, 15, 0, 300))
    assert all(b - a >= 15 - 1e-6 for a, b in pairwise(placed))
    assert placed[0] >= -1e-6
    assert placed[-1] <= 300
