"""The recorder: every event goes once to the journal, the bus, the view and whoever listens."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from leyline import BusReport, ContractError, Event, RunError, StepMetrics
from oona import Bus
from tolaria.disk.journal import Journal, read
from tolaria.resume.replay import FILE_NAME, Replay
from tolaria.show.view import RunView

Listener = Callable[[Event], None]

_STEPS_TOLD_AT_ONCE: Final = 64
_STEPS_INTERVAL_S: Final = 0.25
"""A step so long after the last that was told is told at once."""


class Recorder:
    """Fans events out.

    The journal keeps all but single steps and what the bus says of itself, so the view can be
    rebuilt, and the journal is the same without a bus.
    """

    def __init__(
        self,
        journal_path: Path,
        bus: Bus,
        run_id: str,
        clock_s: Callable[[], float] = time.monotonic,
    ):
        self._journal_path = journal_path
        self._journal = Journal.open(journal_path)
        self.bus = bus
        self.run_id = run_id
        self.view = RunView()
        self.listeners: list[Listener] = []
        self.num_unwritten = 0
        """Events that the disk refused or that are too large; the view has them all the same."""
        self._problem = ""
        self._clock_s = clock_s
        self._step = 0
        self._losses: list[float] = []
        self._told_s = -_STEPS_INTERVAL_S

    def record(self, event: Event) -> None:
        """Record one event. Neither a full disk nor a dead server reaches the training run."""
        self._tell_steps()
        if not isinstance(event, StepMetrics | BusReport):
            try:
                self._journal.append(event)
            except (RunError, ContractError) as error:
                self.num_unwritten += 1
                self._problem = f"{type(event).__name__} is not in the journal: {error}"
        self.view.apply(event)
        self._pass_on(event)

    def record_step(self, step: int, loss: float) -> None:
        """Record the loss of one training step, in a microsecond.

        The view has it at once. The bus and the listeners hear of steps that follow one another
        quickly together: of 64, after a quarter of a second, or before the next other event.
        """
        if self._losses and step != self._step + 1:
            self._tell_steps()
        self._step = step
        self._losses.append(loss)
        self.view.note_step(step, loss)
        if (
            len(self._losses) == _STEPS_TOLD_AT_ONCE
            or self._clock_s() - self._told_s >= _STEPS_INTERVAL_S
        ):
            self._tell_steps()

    def _tell_steps(self) -> None:
        if not self._losses:
            return
        *earlier, loss = self._losses
        self._losses.clear()
        self._told_s = self._clock_s()
        self._pass_on(StepMetrics(step=self._step, loss=loss, earlier=tuple(earlier)))

    def _pass_on(self, event: Event) -> None:
        self.bus.offer(event)
        for listener in self.listeners:
            listener(event)

    @property
    def position(self) -> int:
        """Where the journal ends now, in bytes; a checkpoint remembers it."""
        return self._journal.position

    def sync(self) -> None:
        """Make the journal durable; `take_problem` tells what the disk says against it."""
        try:
            self.require_sync()
        except RunError as error:
            self.num_unwritten += 1
            self._problem = str(error)

    def take_problem(self) -> str:
        """What was wrong with the last event that was lost since this was asked; "" for none."""
        problem, self._problem = self._problem, ""
        return problem

    def require_sync(self) -> None:
        """Make the journal durable.

        Raises:
            RunError: the disk refused.
        """
        self._journal.sync()

    def rewind(self, position: int) -> Replay:
        """Forget what happened after a checkpoint, because it will happen again.

        Args:
            position: end of the journal when the checkpoint was taken, in bytes.

        Returns:
            What was decided by time or chance: the resumed run must decide alike, or it would
            differ from the undisturbed one. It is kept beside the journal first, since the
            resumed run may itself be killed before it comes to those boundaries.
        """
        kept = self._journal_path.with_name(FILE_NAME)
        replay = Replay.load(kept).merged(Replay.of(read(self._journal_path)))
        replay.save(kept)
        self._journal.truncate(position)
        self.view = RunView()
        for event in read(self._journal_path):
            self.view.apply(event)
        return replay

    def close(self) -> None:
        """Close the journal; the bus is its owner's to close."""
        self._journal.close()
