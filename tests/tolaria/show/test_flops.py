"""What a run's FLOPs went into: counted at every boundary, shown at its end and in the report."""

from __future__ import annotations

import io
from pathlib import Path

import msgspec
import pytest
from rich.console import Console

import leyline
from tests.tolaria.commands.test_looking_back import run_with
from tests.tolaria.show.events import Run, a_run, started
from tests.tolaria.show.test_report import of_class, parsed
from tolaria.commands.watch import watch_run
from tolaria.disk.journal import read
from tolaria.show.phrases import flops_words
from tolaria.show.report.page import render
from tolaria.show.summary import summarise
from tolaria.show.view import RunView


def packet(epoch: int, training: int, search: int) -> leyline.StatePacket:
    spent = {"training_flops": training, "search_flops": search}
    return msgspec.structs.replace(Run().packet(epoch), **spent)


SPENT = [packet(1, 10**9, 0), packet(2, 2 * 10**9, 6 * 10**9)]


def view_of(*events: leyline.Event) -> RunView:
    view = RunView()
    for event in events:
        view.apply(event)
    return view


def test_a_real_run_counts_what_its_search_costs(grown_run: Path) -> None:
    """Training grows with every epoch, the search where a race was run; both are in the journal."""
    view = view_of(*read(grown_run / "journal.bin"))
    told = [view.flops[epoch] for epoch in sorted(view.flops)]
    assert len(told) == 8
    training = [flops["training"] for flops in told]
    search = [flops["search"] for flops in told]
    assert training == sorted(set(training))
    assert search == sorted(search)
    assert 1 < len(set(search)) < 8


def test_the_search_s_share_is_said_at_the_end() -> None:
    """In the summary: all FLOPs and the share of each use; nothing where none are known."""
    console = Console(file=io.StringIO(), width=80)
    console.print(summarise(view_of(started(), *SPENT)))
    assert isinstance(console.file, io.StringIO)
    assert "8 G: training 25 %, search 75 %" in console.file.getvalue()
    assert flops_words(view_of(*a_run()).flops_spent) == ""


def test_the_report_has_them_over_the_epochs() -> None:
    """A tile, and a chart with a line for each use; neither where none are known."""
    page = parsed(render(view_of(started(), *SPENT)))
    text = "".join(page.itertext()).replace("\u00a0", " ")
    assert "training 25 %, search 75 %" in text
    assert "FLOPs so far (billions)" in text
    ends = ["".join(label.itertext()) for label in of_class(page, "end")]
    assert {"training 2", "search 6"} <= set(ends)
    assert "FLOPs so far" not in render(view_of(*a_run()))


@pytest.mark.parametrize("last", [1, 2])
def test_a_resumed_run_counts_on_from_its_checkpoint(last: int) -> None:
    """What followed the epoch it goes on from is forgotten."""
    view = view_of(started(), *SPENT, started(epoch=last, resumed=True))
    assert view.flops_spent["training"] == last * 10**9


def test_watching_a_run_ends_with_them(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`esper watch` says the same once the run has ended, from what came through the bus."""
    events = [started(), *SPENT]
    watch_run(str(run_with(tmp_path / "run", events, bus="unix:///nowhere/bus.sock")))
    assert "FLOPs: 8 G: training 25 %, search 75 %" in capsys.readouterr().out.splitlines()
