"""A run on the terminal while it happens: a live table, and one line per decision with its cause.

Where there is no terminal, plain lines: one per epoch, and the same lines for decisions.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from rich.console import Console, RenderableType
from rich.live import Live
from rich.padding import Padding
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

import leyline
from leyline import Stage
from leyline.limits import BOUNDARY_MS
from tolaria.show.bus import bus_words, dropped_words, latency_words
from tolaria.show.health import (
    alert_head,
    alert_why,
    breaker_head,
    breaker_why,
    health_words,
    risk_head,
    risk_why,
)
from tolaria.show.latency import boundary_ms
from tolaria.show.lives import Gain
from tolaria.show.phrases import (
    cause_words,
    clean,
    figure,
    gain_words,
    growth,
    headline,
    metric_words,
    pattern,
    stage_word,
)
from tolaria.show.scores import scores_table
from tolaria.show.view import RunView

if TYPE_CHECKING:
    from oona import BusStatistics

_REFRESH_S: Final = 0.1
"""Least time between two drawings of the live table."""
_BUS_S: Final = 1.0
"""Least time between two looks at the bus's ledger, which is counted by reading the outbox."""
_BAR_WIDTH: Final = 30
_CAUSE_CHARS: Final = 320
"""Characters of a decision's cause that its line has room for: four lines of a narrow terminal."""


class Terminal:
    """Shows a run on a console; enter it, feed it events and batches, leave it.

    Whoever folds events into the view calls `show` afterwards; `apply` does both.

    Args:
        console: where to write; whether it is a terminal decides between table and plain lines.
        view: the model to show, if another part of the run keeps it; a new one otherwise.
        clock: monotonic seconds, for the limit on drawings.
        bus: asked for the bus's ledger now and then; None where there is no bus.
    """

    def __init__(
        self,
        console: Console,
        view: RunView | None = None,
        *,
        clock: Callable[[], float] = time.monotonic,
        bus: Callable[[], BusStatistics | None] | None = None,
    ) -> None:
        self.view = view or RunView()
        self._console = console
        self._clock = clock
        self._bus = bus
        self._drawn_at = self._asked_at = -math.inf
        self._ledger = ""
        self._num_dropped = 0
        self._batch: tuple[int, int | None] | None = None
        self._loss = math.nan
        self._held = ""
        self._live: Live | None = None
        if console.is_terminal and not console.is_dumb_terminal:
            self._live = Live(
                get_renderable=self._table, console=console, auto_refresh=False, transient=True
            )

    def __enter__(self) -> Terminal:
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(self, *exception: object) -> None:
        if self._live is not None:
            self._live.stop()

    def apply(self, event: leyline.Event) -> None:
        """Fold an event into the view and show it."""
        self.view.apply(event)
        self.show(event)

    def show(self, event: leyline.Event) -> None:
        """Show what a reader should know of an event that the view has seen."""
        match event:
            case leyline.RunStarted():
                self._say_start(event)
            case leyline.Decision():
                self._say_decision(event)
            case leyline.SeedReport():
                self._say_report(event)
            case leyline.FieldReport():
                self._say_field(event)
            case leyline.Fault():
                what = f"{clean(event.what)} -> {clean(event.action)}"
                self._say(event.epoch, f"fault in {clean(event.where)}", what, "bold red")
            case leyline.BreakerChange():
                style = "bold red" if event.now == "open" else "yellow"
                self._say(event.epoch, breaker_head(event), breaker_why(event), style)
            case leyline.RiskChanged():
                style = "bold red" if event.now > event.was else "yellow"
                self._say(event.epoch, risk_head(event), risk_why(event), style)
            case leyline.LatencyAlert():
                style = "yellow" if event.resolved else "bold red"
                self._say(event.epoch, alert_head(event), alert_why(event), style)
            case leyline.BusReport():
                self._say_bus(event)
            case leyline.EpochMetrics():
                self._batch, self._loss = None, math.nan
                if self._live is None:
                    self._console.print(Text(self._epoch_line(event)), soft_wrap=True)
        self._draw_if_due()

    def on_batch(self, index: int, total: int | None, loss: float) -> None:
        """Note that `index` of `total` batches (None: unknown) of this epoch are done."""
        self._batch, self._loss = (index, total), loss
        self._draw_if_due()

    def refresh(self) -> None:
        """Draw the live table now; for callers about to wait."""
        if self._live is not None and self._live.is_started:
            self._drawn_at = self._clock()
            self._live.refresh()

    # --- lines -----------------------------------------------------------------------------

    def _draw_if_due(self) -> None:
        if self._live is not None and self._clock() - self._drawn_at >= _REFRESH_S:
            self.refresh()

    def _say(self, epoch: int, what: str, why: str, style: str) -> None:
        """Print one line above the table; where nothing else may wrap it, it hangs by its text."""
        text = Text.assemble((what, style), f": {why}" if why else "")
        if self._live is None:
            self._console.print(Text(f"epoch {epoch}: ") + text, soft_wrap=True)
            return
        line = Table.grid(padding=(0, 1))
        line.add_column(no_wrap=True, style="dim", min_width=9)
        line.add_column(ratio=1, overflow="fold")
        line.add_row(f"epoch {epoch}", text)
        self._console.print(line)

    def _say_start(self, event: leyline.RunStarted) -> None:
        resumed = f", resumed after epoch {event.epoch}" if event.resumed else ""
        epochs = f", {event.num_epochs} epochs" if event.num_epochs else ""
        parameters = f"{event.host_parameters:,} parameters"
        words = f": {clean(event.model)}, {parameters}{epochs}{resumed}"
        run = Text.assemble("run ", (clean(event.run_id), "bold"), words)
        self._console.print(run, soft_wrap=self._live is None)

    def _say_decision(self, decision: leyline.Decision) -> None:
        """One line and, after a race, its scores; a hold speaks only when its cause is new."""
        if not decision.commands:
            before, self._held = self._held, pattern(decision)
            if before == self._held or not decision.cause:
                return
        style = "bold green" if decision.commands else "dim"
        why = cause_words(decision)
        why = why if len(why) <= _CAUSE_CHARS else f"{why[:_CAUSE_CHARS].rstrip()}..."
        self._say(decision.epoch, headline(decision), why, style)
        if len(decision.scores) > 1:
            self._console.print(Padding(scores_table(decision.scores), (0, 0, 0, 10)))

    def _say_report(self, report: leyline.SeedReport) -> None:
        """Speak of what no decision says: a refusal, or a seed put out for a fault."""
        seed, stage = clean(report.seed), _stage_name(report.now)
        if report.refused:
            self._say(
                report.epoch, f"refused, {seed} stays {stage}", clean(report.refused), "yellow"
            )
        elif report.now in (Stage.CULLED, Stage.ROLLED_BACK) and not self._decided(report):
            self._say(report.epoch, f"{seed} {stage}", clean(report.cause), "bold red")

    def _decided(self, report: leyline.SeedReport) -> bool:
        last = self.view.decisions[-1] if self.view.decisions else None
        if last is None or last.epoch != report.epoch:
            return False
        return any(command.seed == report.seed for command in last.commands)

    def _say_field(self, report: leyline.FieldReport) -> None:
        expected = gain_words(Gain(report.expected_gain, report.expected_error))
        found = gain_words(Gain(report.counterfactual_gain, report.counterfactual_error))
        verdict = clean(report.verdict)
        verdict = stage_word(verdict) if verdict in Stage.__members__ else verdict
        seen = f" after {report.steps:,} steps" if report.steps else ""
        words = f"trial {expected}, counterfactual {found}{seen}: {verdict}"
        self._say(report.epoch, clean(report.seed), words, "cyan")

    def _say_bus(self, report: leyline.BusReport) -> None:
        """Speak when more events were dropped than the last time."""
        before, self._num_dropped = self._num_dropped, report.dropped
        if report.dropped > before:
            self._say(report.epoch, "events dropped", dropped_words(report), "yellow")

    def _epoch_line(self, event: leyline.EpochMetrics) -> str:
        of = f"/{event.num_epochs}" if event.num_epochs else ""
        parts = [f"epoch {event.epoch}{of}: {metric_words(event.metrics)}".rstrip(" :")]
        parts += [self._seed_words(), f"{event.parameters:,} parameters"]
        return ", ".join(part for part in parts if part)

    # --- table -----------------------------------------------------------------------------

    def _table(self) -> RenderableType:
        view = self.view
        rows: list[tuple[str, RenderableType]] = [("epoch", self._progress())]
        loss = self._loss if self._batch else view.loss
        if not math.isnan(loss):
            rows.append(("loss", figure(loss)))
        if view.metrics:
            rows.append(("metrics", metric_words(view.metrics_at(None))))
        rows.append(("seeds", self._seed_words() or "none planted"))
        if view.host_parameters:
            rows.append(("parameters", growth(view.host_parameters, view.parameters)))
        if view.decisions and view.decisions[-1].next_step:
            rows.append(("next", clean(view.decisions[-1].next_step)))
        if view.boundaries:
            last, p95 = boundary_ms(view.boundaries[-1]).total, view.latency(95).total
            late = "" if p95 <= BOUNDARY_MS else "  over the limit"
            words = f"{last:.2f} ms  p95 {p95:.2f} of {BOUNDARY_MS:g} ms{late}"
            rows.append(("boundary", Text(words, style="red" if late else "")))
        if health := health_words(view):
            rows.append(("health", Text(health, style="red")))
        if ledger := self._ledger_words():
            rows.append(("bus", ledger))
        if view.bus is not None and view.bus.latency_ms:
            rows.append(("bus took", latency_words(view.bus)))
        grid = Table.grid(padding=(0, 2))
        grid.add_column(style="dim", no_wrap=True)
        grid.add_column(ratio=1)
        for label, value in rows:
            grid.add_row(label, Text(value) if isinstance(value, str) else value)
        title = Text(clean(view.run_id) or "waiting for the run", style="bold", overflow="ellipsis")
        return Panel(grid, title=title, title_align="left", border_style="dim")

    def _ledger_words(self) -> str:
        """The bus's ledger, at most a second old; for who reads the bus, as it last told of it."""
        if self._bus is not None and self._clock() - self._asked_at >= _BUS_S:
            self._asked_at, statistics = self._clock(), self._bus()
            self._ledger = bus_words(statistics) if statistics is not None else ""
        if self._bus is None and self.view.bus is not None:
            return bus_words(self.view.bus)
        return self._ledger

    def _progress(self) -> RenderableType:
        view, batch = self.view, self._batch
        done = view.epochs[-1] if view.epochs else view.epoch
        now = min(done + 1, view.num_epochs or done + 1) if batch else done
        label = f"{now}/{view.num_epochs}" if view.num_epochs else str(now)
        if batch is None:
            return Text(label)
        index, total = batch
        bar = Table.grid(padding=(0, 2))
        if total is None:
            bar.add_row(label, f"batch {index:,}")
        else:
            progress = ProgressBar(total=max(total, 1), completed=index, width=_BAR_WIDTH)
            bar.add_row(label, progress, f"{index:,}/{total:,} batches")
        return bar

    def _seed_words(self) -> str:
        by_number = sorted(self.view.stages.items(), key=lambda item: _number(item[0]))
        return "  ".join(f"{num} {stage_word(clean(name))}" for name, num in by_number if num)


def _number(stage: str) -> int:
    return Stage[stage].value if stage in Stage.__members__ else len(Stage)


def _stage_name(number: int) -> str:
    return stage_word(Stage(number).name) if number in list(Stage) else f"stage {number}"
