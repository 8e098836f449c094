"""The terminal: lines and live table, with and without a terminal."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator

import msgspec
import pytest
from rich.cells import cell_len
from rich.console import Console

import leyline
from leyline import Stage
from oona import BusStatistics
from tests.tolaria.show.events import RACES, a_run, started
from tolaria.show.phrases import headline
from tolaria.show.plain import view_dict
from tolaria.show.terminal import Terminal

RUN = a_run()
CODES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
COLOURS = re.compile(r"\x1b\[(?:[0-9]+;)*(?:3[0-7]|4[0-7]|9[0-7]|38;|48;)[0-9;]*m")
LEDGER = BusStatistics(
    offered=9, delivered=6, dropped=1, queued=2, state="delivering", url="unix:///x"
)


@pytest.fixture(autouse=True)
def _neutral(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("NO_COLOR", "FORCE_COLOR", "COLUMNS", "LINES", "TTY_COMPATIBLE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm-256color")


def shown(events: list[leyline.Event], *, live: bool, width: int = 80) -> str:
    """What a console receives for these events, with a drawing after each."""
    console = Console(file=io.StringIO(), width=width, height=50, force_terminal=live)
    with Terminal(console, bus=lambda: LEDGER) as terminal:
        for event in events:
            terminal.apply(event)
            terminal.on_batch(20, 45, 0.5)
            terminal.refresh()
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def decision(epoch: int, cause: str, *commands: leyline.Command) -> leyline.Decision:
    return leyline.Decision(epoch=epoch, policy="heuristic", cause=cause, commands=commands)


def report(now: Stage, seed: str = "a/0", refused: str = "") -> leyline.SeedReport:
    return leyline.SeedReport(
        epoch=3,
        seed=seed,
        site="a",
        blueprint="b",
        was=Stage.TRAINING,
        now=now,
        parameters=1,
        alpha=0.0,
        cause="its output was not finite",
        refused=refused,
    )


def test_plain_lines_carry_no_control_codes() -> None:
    """Where there is no terminal nothing but text is written, one line per epoch."""
    text = shown(RUN, live=False)
    assert "\x1b" not in text
    assert "\r" not in text
    assert [line for line in text.splitlines() if re.match(r"epoch \d+/30: ", line)] == [
        line for line in text.splitlines() if "/30: loss" in line
    ]
    assert text.count("/30: loss") == 30


@pytest.mark.parametrize("live", [False, True])
def test_every_decision_is_one_line_with_its_cause(live: bool) -> None:
    """Each decision with commands is printed once, with what it does and why."""
    text = CODES.sub("", shown(RUN, live=live, width=200))
    for event in RUN:
        if isinstance(event, leyline.Decision) and event.commands:
            lines = [line for line in text.splitlines() if f"{headline(event)}: " in line]
            mine = [line for line in lines if re.match(rf"epoch {event.epoch}\b", line)]
            assert len(mine) == 1
            assert event.cause in mine[0]


def test_a_race_is_one_line_and_its_scores_a_table() -> None:
    """Fifteen germinations are one line; the scores list the winner first and count the rest."""
    text = shown(RUN, live=False)
    assert f"epoch 3: race of {RACES[3]} candidates at 3 sites: val_loss fell" in text
    assert re.search(r"^ +\* +block2 +low_rank +\+0\.0253 \+- 0\.0033 +\+0\.0080", text, re.M)
    assert "+ 5 more" in text


def test_a_cause_stays_readable_however_much_there_is_to_say() -> None:
    """Of ten culls the causes of three are said, the rest counted; one that is endless is cut."""
    culls = [leyline.Cull(seed=f"a/{n}", cause=f"reason {n}", embargo_epochs=3) for n in range(10)]
    lines = shown([decision(3, "because", *culls)], live=False).splitlines()
    assert lines == [
        "epoch 3: cull 10 candidates: reason 0; reason 1; reason 2; and 7 more causes; because"
    ]
    (line,) = shown([decision(3, "much " * 500)], live=False).splitlines()
    assert line.endswith("much...")
    assert len(line) < 400


def test_the_live_table_says_what_comes_next() -> None:
    """As the last decision says; no row where it says nothing."""
    planned = msgspec.structs.replace(decision(3, "because"), next_step="a race in 2 epochs")
    assert "next" in shown([planned], live=True)
    assert "a race in 2 epochs" in shown([planned], live=True)
    assert "next" not in shown([decision(3, "because")], live=True)


def test_a_hold_speaks_when_its_cause_is_new() -> None:
    """Holds for one cause print once, figures aside; another cause prints again."""
    events: list[leyline.Event] = [
        decision(1, "fell by 0.020"),
        decision(2, "fell by 0.031"),
        decision(3, "budget spent"),
        decision(4, ""),
    ]
    lines = shown(events, live=False).splitlines()
    assert lines == ["epoch 1: hold: fell by 0.020", "epoch 3: hold: budget spent"]


def test_what_no_decision_says_is_said() -> None:
    """Faults, refusals and removals for a fault each get a line; a decided cull gets one only."""
    cull = leyline.Cull(seed="b/1", cause="not worth it", embargo_epochs=2)
    events: list[leyline.Event] = [
        leyline.Fault(epoch=3, step=9, where="bus", what="refused", action="queued"),
        report(Stage.CULLED),
        report(Stage.TRAINING, refused="no trial was measured"),
        decision(3, "not worth it", cull),
        report(Stage.CULLED, seed="b/1"),
    ]
    assert shown(events, live=False).splitlines() == [
        "epoch 3: fault in bus: refused -> queued",
        "epoch 3: a/0 culled: its output was not finite",
        "epoch 3: refused, a/0 stays training: no trial was measured",
        "epoch 3: cull b/1: not worth it",
    ]


@pytest.mark.parametrize("width", [80, 120])
def test_nothing_is_wider_than_the_terminal(width: int) -> None:
    """In a live table of 80 or 120 columns no line is broken by the terminal itself."""
    text = shown(RUN, live=True, width=width)
    lines = CODES.sub("", text).replace("\r", "\n").splitlines()
    assert max(map(cell_len, lines)) <= width
    for words in ("20/45 batches", "15 training", "28,938 -> 30,382", "of 18 ms", "1 dropped"):
        assert any(words in line for line in lines), words


def test_events_cannot_steer_the_terminal() -> None:
    """Escape sequences, line ends and markup in events are shown, not obeyed."""
    evil = "x\x1b[2J\x1b]0;owned\x07\r\n[red]y[/red]"
    clear = "\x1b[2J"
    score = leyline.Score(
        seed=evil,
        site=evil,
        blueprint=evil,
        parameters=1,
        gain=0.1,
        gain_error=0.01,
        threshold=0.0,
        steps=1,
        chosen=True,
    )
    events: list[leyline.Event] = [
        msgspec.structs.replace(started(), run_id=evil, model=evil),
        msgspec.structs.replace(decision(1, evil), scores=(score, score)),
        leyline.Fault(epoch=1, step=1, where=evil, what=evil, action=evil),
        leyline.EpochMetrics(
            epoch=1, num_epochs=2, step=1, metrics={evil: 1.0}, parameters=1, stages={evil: 1}
        ),
        report(Stage.TRAINING, seed=evil, refused=evil),
    ]
    for live in (False, True):
        text = shown(events, live=live, width=300)
        assert clear not in text
        assert "\x07" not in text
        assert text.count("[red]y[/red]") >= 8
        assert "[red]y[/red] 1" in text  # the metric
    assert "\x1b" not in shown(events, live=False)


def test_no_color_is_respected(monkeypatch: pytest.MonkeyPatch) -> None:
    """With NO_COLOR set the live table has no colour; without, it has."""
    assert COLOURS.search(shown(RUN, live=True))
    monkeypatch.setenv("NO_COLOR", "1")
    assert not COLOURS.search(shown(RUN, live=True))


def test_batches_are_drawn_at_most_ten_times_a_second() -> None:
    """A thousand batches in one second of the clock draw the table about ten times."""
    console = Console(file=io.StringIO(), width=80, height=50, force_terminal=True)
    ticks: Iterator[float] = iter(range(10_000))
    asked: list[None] = []

    def ledger() -> BusStatistics:
        asked.append(None)
        return LEDGER

    now = 0.0
    terminal = Terminal(console, clock=lambda: now, bus=ledger)
    assert isinstance(console.file, io.StringIO)
    with terminal:
        before = console.file.getvalue().count("bus")
        for index in range(1000):
            now = next(ticks) / 1000
            terminal.on_batch(index + 1, 1000, 0.5)
        drawn = console.file.getvalue().count("bus") - before
    assert 9 <= drawn <= 11
    assert len(asked) <= 2


def test_a_shared_view_is_shown_without_being_folded_twice() -> None:
    """`show` leaves the view to whoever keeps it."""
    console = Console(file=io.StringIO(), width=80, force_terminal=False)
    keeper = Terminal(console)
    for event in RUN:
        keeper.apply(event)
    before = view_dict(keeper.view)
    other = Terminal(console, keeper.view)
    for event in RUN:
        other.show(event)
    assert other.view is keeper.view
    assert view_dict(other.view) == before


def test_an_epoch_of_unknown_length_has_no_bar() -> None:
    """Where the number of batches is unknown the count is shown alone."""
    console = Console(file=io.StringIO(), width=80, height=50, force_terminal=True)
    with Terminal(console) as terminal:
        terminal.apply(started())
        terminal.on_batch(7, None, 0.5)
        terminal.refresh()
    assert isinstance(console.file, io.StringIO)
    assert "batch 7" in CODES.sub("", console.file.getvalue())
