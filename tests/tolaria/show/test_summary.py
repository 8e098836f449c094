"""The summary of a run and the tables of `esper inspect`."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from rich.cells import cell_len
from rich.console import Console, RenderableType

import leyline
from oona import BusStatistics
from tests.tolaria.show.events import a_run
from tolaria.show.scores import scores_table
from tolaria.show.summary import decisions_table, seeds_table, summarise
from tolaria.show.view import RunView

LEDGER = BusStatistics(offered=9, delivered=6, dropped=1, queued=2, state="closed", url="unix:///x")


@pytest.fixture(scope="module")
def view() -> RunView:
    folded = RunView()
    for event in a_run():
        folded.apply(event)
    return folded


def printed(renderable: RenderableType, width: int = 80) -> str:
    console = Console(file=io.StringIO(), width=width, force_terminal=False)
    console.print(renderable)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_the_summary_says_what_the_run_came_to(view: RunView) -> None:
    """Growth, metrics before and after, fates, latency, ledger, paths and next commands."""
    run_dir = Path("runs/digits")
    text = printed(
        summarise(view, bus=LEDGER, run_dir=run_dir, report=run_dir / "report.html"), width=100
    )
    before, after = view.metrics[4]["val_loss"], view.metrics[30]["val_loss"]
    for words in (
        "28,938 -> 30,622 (+1,684, +5.8 %)",
        f"{before:.4g} at epoch 4, before growth -> {after:.4g}",
        "test_acc    0.943",
        "block1/0 names place 0 at the site block1; (life 2): number 2 of those tried there",
        "culled block3/3: without it the loss is lower",
        "40 candidates cancelled",
        f"{view.latency(95).total:.2f} ms  18 ms",
        "10.3 s race",
        "9 offered  6 delivered  1 dropped  2 queued",
        "runs/digits/report.html",
        "esper inspect runs/digits",
        "esper explain runs/digits",
        "esper export runs/digits -o model.pt2",
        "fault at epoch 14 in checkpoint",
    ):
        assert words in text, words


@pytest.mark.parametrize("width", [80, 120])
def test_the_summary_fits_the_terminal(view: RunView, width: int) -> None:
    """No line is wider than the terminal, and no gain is cut."""
    text = printed(summarise(view, bus=LEDGER, run_dir=Path("r")), width)
    assert max(cell_len(line) for line in text.splitlines()) <= width
    assert "+0.0253 +- 0.0033" in text
    assert "-0.0060 +- 0.0020" in text


@pytest.mark.parametrize("width", [60, 80])
def test_a_race_s_figures_are_whole_where_names_are_cut(width: int) -> None:
    """However long the names, every gain, threshold and count of parameters is there in full."""
    scores = [
        leyline.Score(
            seed=f"encoder.layers.{number}.attention.projection/0",
            site=f"encoder.layers.{number}.attention.projection",
            blueprint="dilated_depthwise_conv",
            parameters=1_234_567,
            gain=0.1234,
            gain_error=0.0123,
            threshold=0.0456,
            steps=50,
            chosen=False,
        )
        for number in range(12)
    ]
    lines = printed(scores_table(scores), width).splitlines()
    assert max(map(cell_len, lines)) <= width
    whole = [line for line in lines if line.rstrip().endswith("1,234,567")]
    assert len(whole) == 10
    assert all("+0.1234 +- 0.0123  +0.0456" in line for line in whole)


def test_a_run_without_events_can_be_summed_up() -> None:
    """Nothing known gives a summary all the same."""
    text = printed(summarise(RunView()))
    assert "running" in text
    assert "esper inspect RUN" in text
    assert "esper explain" not in text


def test_inspect_lists_cancelled_candidates_on_request(view: RunView) -> None:
    """Three lives touched the network; with the cancelled ones there are forty-three."""
    assert seeds_table(view).row_count == 3
    assert seeds_table(view, cancelled=True).row_count == 43


def test_inspect_joins_holds_for_one_cause(view: RunView) -> None:
    """Epochs 24 to 30 hold for one cause and take one row."""
    text = printed(decisions_table(view), width=120)
    assert "24-30  hold" in text
