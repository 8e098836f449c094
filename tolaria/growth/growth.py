"""Growth: the long work around a boundary, which decisions rest on and which they call for."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from torch import nn

from kasmina import Executor, RaceRules, Task, compiled_modules, prewarm
from kasmina.guard import attempt, describe
from leyline import SeedReport, Stage, TrialError
from tolaria.boundary.gather import Gatherer
from tolaria.boundary.stage_timer import StageTimer
from tolaria.config import EsperConfig
from tolaria.growth.batch_source import BatchSource
from tolaria.growth.flop_count import FlopCount
from tolaria.growth.grafting import grafting_recipe
from tolaria.growth.site_search import SiteSearch
from tolaria.rates import UnifiedLRController
from tolaria.session import Session

_LOG = logging.getLogger("esper")
Fault = Callable[[str, str, str], None]
"""Told where something failed, what, and what was done."""


class Growth:
    """Finds sites, runs races and counterfactuals before a boundary; proves and compiles after."""

    def __init__(
        self,
        model: nn.Module,
        executor: Executor,
        rates: UnifiedLRController,
        gatherer: Gatherer,
        task: Task,
        source: BatchSource,
        config: EsperConfig,
        example: tuple[Any, ...] | None,
        fault: Fault,
    ):
        self._model = model
        self._executor = executor
        self._rates = rates
        self._gatherer = gatherer
        self._task = task
        self._source = source
        self._config = config
        self._fault = fault
        self.is_surveyed = not config.grows
        """Whether there is nothing left to find."""
        self._rules = RaceRules(
            config.trial_steps,
            config.trial_keep,
            config.trial_batch_pieces,
            control=config.trial_control,
            max_shared_size_bytes=config.max_shared_size_bytes,
        )
        executor.grounds.restrict(config.blueprints)
        executor.graft_by(grafting_recipe(config))
        self.search = SiteSearch(model, executor, task, source, config, example)
        self.flops = gatherer.flops = FlopCount(executor, task, source)

    # --- before the boundary -----------------------------------------------------------------

    def survey(self, session: Session, timer: StageTimer, epoch: int) -> None:
        """Find the sites, once, as soon as there is an example of a forward call.

        Args:
            epoch: the one that the next boundary ends.

        Raises:
            SiteError, ConfigError: the config or the schedule names a site that there is not.
        """
        has_sites = bool(self._executor.grounds.sites)
        if self.is_surveyed or (self._source.awaits_example() and not has_sites):
            return
        with timer.stage("survey"):
            if not has_sites:
                self.search.find(session, epoch)
            self._gatherer.survey_done()
        self.is_surveyed = True

    def measure(
        self, session: Session, timer: StageTimer, *, epoch: int, num_steps: int, ready: bool
    ) -> None:
        """Measure what the coming decision needs.

        Args:
            num_steps: training steps since the last boundary.
            ready: whether there will be a decision.
        """
        self.survey(session, timer, epoch)
        if ready:
            with timer.stage("race"):
                waived = self._race()
            if waived is not None:
                what = "candidates are given up; planted seeds skip trials"
                self._fault("race", waived, what)
            for seed, fault in self._executor.trial_faults().items():
                self._fault(f"trial of {seed}", fault, "it leaves the race")
            with timer.stage("counterfactual"):
                self._measure_counterfactuals()
        with timer.stage("flops"):
            self.flops.add_steps(num_steps)

    def _race(self) -> str | None:
        """Run the trials of all seeds in TRAINING; returns why none can be run here, or None."""
        if not self._executor.table.in_stage(Stage.TRAINING):
            return None
        if self._executor.trials_waived is not None or self._source.awaits_held_out():
            return None
        recipe = self._rates.recipe(self._config.trial_learning_rate)
        try:
            self.flops.trials += self._executor.race(
                self._task,
                self._source.train_batches(),
                self._source.held_out_batches(),
                recipe,
                self._rules,
            )
        except TrialError as error:
            self._executor.trials_waived = str(error)
            return str(error)
        _LOG.debug("race: %s", self._executor.nursery.race_report)
        return None

    def _measure_counterfactuals(self) -> None:
        """Measure every seed in EVALUATING on the held-out batches of this epoch."""
        if not self._executor.table.in_stage(Stage.EVALUATING):
            return
        held_out = self._source.held_out_batches()
        outcome = attempt(lambda: self._executor.measure_counterfactuals(self._task, held_out))
        if isinstance(outcome, Exception):
            _LOG.warning("no counterfactual: %s", describe(outcome))
        else:
            self.flops.counterfactuals += outcome

    # --- after the boundary ------------------------------------------------------------------

    def follow_up(
        self, reports: Sequence[SeedReport], timer: StageTimer, epoch: int, *, ends_epoch: bool
    ) -> list[SeedReport]:
        """Prove what was germinated, compile what was grafted, and ask for the batches needed.

        Args:
            ends_epoch: whether batches are kept afresh from here; within an epoch those stay.
        """
        with timer.stage("race"):
            self._executor.nursery.clear()  # what was grafted has its weights; the rest may go
        with timer.stage("germination"):
            proofs = self._executor.prove(epoch)
        for proof in proofs:
            if proof.now == Stage.CANCELLED:
                where = f"{proof.blueprint} at {proof.site}"
                self._fault(where, proof.cause, "it is cancelled")
        grafted = [r for r in reports if r.now == Stage.GRAFTING and not r.refused]
        if grafted and any(compiled_modules(self._model)):
            with timer.stage("prewarm"):
                self._prewarm(grafted)
        self.resume_wants(afresh=ends_epoch)
        return proofs

    def _prewarm(self, grafted: Sequence[SeedReport]) -> None:
        batch = self._source.example()
        for report in grafted if batch is not None else ():
            seed = self._executor.like(report.seed)
            action = partial(prewarm, self._model, self._task, batch, report.site, seed)
            outcome = attempt(action)
            if isinstance(outcome, Exception):
                what = "its first steps compile instead"
                _LOG.warning("%s is not prewarmed (%s); %s", report.seed, describe(outcome), what)

    def resume_wants(self, *, afresh: bool = True) -> None:
        """Say what the coming batches are needed for."""
        training = bool(self._executor.table.in_stage(Stage.TRAINING))
        settling = bool(self._executor.table.in_stage(Stage.STABILIZATION, Stage.EVALUATING))
        self._source.want(train=training, held_out=training or settling, afresh=afresh)
