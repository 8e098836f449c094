"""Growth: the long work that decisions rest on, done between epochs and outside the boundary."""

from __future__ import annotations

import logging
from typing import Any

import torch
from torch import nn

from kasmina import (
    Executor,
    RaceRules,
    Shadow,
    Site,
    Survey,
    Task,
    choose,
    copy_module,
    count_flops,
    isolated_rng,
    live_untouched,
    survey,
)
from kasmina.guard import attempt, describe
from leyline import ConfigError, SeedReport, Stage, TrialError
from tolaria.batch_source import BatchSource
from tolaria.config import EsperConfig
from tolaria.learning_rate import UnifiedLRController

_LOG = logging.getLogger("esper")


class Growth:
    """Finds sites, runs races and counterfactuals, proves blueprints, and counts what it cost."""

    def __init__(
        self,
        model: nn.Module,
        executor: Executor,
        rates: UnifiedLRController,
        task: Task,
        source: BatchSource,
        config: EsperConfig,
        example: tuple[Any, ...] | None,
    ):
        self._model = model
        self._executor = executor
        self._rates = rates
        self._task = task
        self._source = source
        self._config = config
        self._rules = RaceRules(config.trial_steps, config.trial_keep)
        self.example = example
        """Positional arguments of the model's forward, for exports; None if it never was called."""
        self.trial_flops = 0
        self._step_flops: tuple[frozenset[str], int] | None = None

    def find_sites(self) -> None:
        """Find the sites by a dry run on a copy, and keep those that the config asks for.

        Raises:
            SiteError, ConfigError: the config or the schedule names a site that there is not.
        """
        try:
            with live_untouched(self._model):
                found = self._survey()
        except TrialError as error:
            self._executor.trials_waived = str(error)
            _LOG.warning("growth finds no sites: %s", error)
            return
        self.open_sites(choose(found.sites, self._config.sites))

    def _survey(self) -> Survey:
        if self.example is not None:
            arguments = self.example
            host = copy_module(self._model)
            found = attempt(lambda: survey(host, lambda copied: copied(*arguments)))
            if isinstance(found, Exception):
                raise ConfigError(
                    f"example: {type(self._model).__name__} cannot be called with it: "
                    f"{describe(found)}; give the positional arguments of one forward call, "
                    "as a tuple"
                ) from found
            return found
        batch, task = self._source.example(), self._task
        if batch is None:
            raise TrialError("no example of a forward call is known; give example= or data=")
        host = task.copy()
        with task.context():
            found = attempt(lambda: survey(host, lambda copied: task.dry_run(copied, batch)))
        if isinstance(found, TrialError):
            raise found
        if isinstance(found, Exception):
            raise TrialError(f"no trial: the loss fails on a copy: {describe(found)}") from found
        self.example = found.example
        return found

    def open_sites(self, sites: list[Site]) -> None:
        """Give the executor its sites and check the schedule against them."""
        self._executor.grounds.open(sites)
        known = {site.name: site for site in sites}
        for epoch, name, blueprint in self._config.schedule:
            if name not in known:
                raise ConfigError(
                    f"schedule: epoch {epoch} plants at {name!r}, which is not a site; "
                    f"sites are {', '.join(known) or 'none'}"
                )
            if not known[name].accepts(blueprint):
                raise ConfigError(
                    f"schedule: blueprint {blueprint!r} does not fit {name!r} of shape "
                    f"{tuple(known[name].shape)}; choose another blueprint or site"
                )

    def race(self) -> str | None:
        """Run the trials of all seeds in TRAINING, if there are any.

        Returns:
            Why no trial can be run here, or None.
        """
        if not self._executor.table.in_stage(Stage.TRAINING):
            return None
        if self._executor.trials_waived is not None or self._source.awaits_held_out():
            return None
        recipe = self._rates.recipe(self._config.trial_learning_rate)
        try:
            self.trial_flops += self._executor.race(
                self._task,
                self._source.train_batches(),
                self._source.held_out_batches(),
                recipe,
                self._rules,
            )
        except TrialError as error:
            self._executor.trials_waived = str(error)
            return str(error)
        return None

    def measure_counterfactuals(self) -> None:
        """Measure every seed in EVALUATING on the held-out batches of this epoch."""
        if not self._executor.table.in_stage(Stage.EVALUATING):
            return
        held_out = self._source.held_out_batches()
        outcome = attempt(lambda: self._executor.measure_counterfactuals(self._task, held_out))
        if isinstance(outcome, Exception):
            _LOG.warning("no counterfactual: %s", describe(outcome))

    def prove(self, epoch: int) -> list[SeedReport]:
        """Prove what was germinated."""
        reports = self._executor.prove(epoch)
        self.resume_wants()
        return reports

    def resume_wants(self) -> None:
        """Say what the coming epoch's batches are needed for."""
        training = bool(self._executor.table.in_stage(Stage.TRAINING))
        settling = bool(self._executor.table.in_stage(Stage.STABILIZATION, Stage.EVALUATING))
        self._source.want(train=training, held_out=training or settling)

    def step_flops(self) -> int:
        """FLOPs of one training step of the live model as it is, counted on a copy."""
        batch = self._source.example()
        structure = frozenset(self._executor.live_seeds())
        if batch is None or self._executor.trials_waived is not None:
            return 0
        if self._step_flops is None or self._step_flops[0] != structure:
            counted = attempt(lambda: self._count(batch))
            if isinstance(counted, Exception):
                _LOG.warning("FLOPs are not counted: %s", describe(counted))
                counted = 0
            self._step_flops = (structure, counted)
        return self._step_flops[1]

    def _count(self, batch: Any) -> int:
        shadow = Shadow(self._task)
        shadow.model.requires_grad_(True)
        shadow.mode(training=True)
        with isolated_rng(0):
            return count_flops(lambda: torch.autograd.backward(shadow.loss(batch)))
