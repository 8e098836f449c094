"""`esper train --dry-run`: everything up to the first training step, and what would follow."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, Final

import lightning.pytorch as pl
from rich.console import Console
from torch import nn
from torch.optim import Optimizer

from kasmina import Executor
from kasmina.blueprints import catalogue
from kasmina.trials.batches import size_bytes
from leyline import ConfigError, Decision, TrialError
from oona import check_access
from tamiyo import State
from tolaria.boundary.gather import Gatherer
from tolaria.commands.building import build
from tolaria.commands.quiet import quiet_trainer
from tolaria.commands.spec import DEFAULT_SET, TrainSpec
from tolaria.config import EsperConfig
from tolaria.disk.run import refuse_used
from tolaria.growth.batch_source import KeptBatches
from tolaria.growth.grafting import grafting_recipe
from tolaria.growth.policies import build_policy
from tolaria.growth.site_search import SiteSearch
from tolaria.lightning.task import LightningTask
from tolaria.lightning.trainer import last_epoch, refuse_unsupported
from tolaria.rates import refuse_unfit
from tolaria.show.forecast import Forecast, forecast_lines

_FIXED: Final = {
    "logger": False,
    "enable_checkpointing": False,
    "num_sanity_val_steps": 0,
    "fast_dev_run": False,
}
_MAX_EPOCHS_ASKED: Final = 1_000
_RUN_ID: Final = "dry-run"


class _SeenError(Exception):
    """Ends the fit: all there is to see before the first step has been seen."""


def dry_run(console: Console, spec: TrainSpec, config: EsperConfig) -> None:
    """Print what a run would do; it writes nothing and opens no server.

    Raises:
        EsperError: what a run would raise at its start or at its first boundary.
    """
    check_access(config.telemetry)
    catalogue.require(config.blueprints)
    if config.run_dir is not None:
        refuse_used(Path(config.run_dir))
    module, data, num_epochs = build(spec, config.rng_seed)
    probe = _Probe(config, spec.data or DEFAULT_SET)
    trainer = quiet_trainer(num_epochs, [probe], {**spec.trainer, **_FIXED}, config.rng_seed)
    try:
        trainer.fit(module, data)
    except _SeenError:
        assert probe.forecast is not None
        for line in forecast_lines(probe.forecast):
            console.print(line, markup=False, soft_wrap=True)
        return
    raise ConfigError("training would end before its first step; look at the data and `epochs`")


class _Probe(pl.Callback):
    """Looks at all that is there when the first step is about to begin."""

    def __init__(self, config: EsperConfig, data: str):
        self._config = config
        self._data = data
        self.forecast: Forecast | None = None

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Refuse what a run would."""
        refuse_unsupported(trainer)

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Look for sites, ask the policy, and end the fit before its first step.

        Raises:
            _SeenError: always; the forecast is there.
            ConfigError, SiteError: as a run would.
        """
        config = self._config
        if config.grows:
            refuse_unfit(trainer.optimizers)
        executor = Executor(pl_module, rng_seed=config.rng_seed)
        executor.grounds.restrict(config.blueprints)
        executor.graft_by(grafting_recipe(config))
        limits = config.max_kept_batches, config.max_kept_size_bytes
        source = KeptBatches(*limits, validates=trainer.enable_validation)
        source.offer_train(batch)
        task = LightningTask(trainer, pl_module)
        search = SiteSearch(pl_module, executor, task, source, config, None)
        sites = None
        if config.grows:
            try:
                sites = search.look(_RUN_ID)
            except TrialError as error:
                executor.trials_waived = str(error)
        num_epochs = last_epoch(trainer, 0)
        gatherer = Gatherer(executor, run_id=_RUN_ID, param_budget=config.param_budget)
        gatherer.survey_done()
        parameters = sum(parameter.numel() for parameter in pl_module.parameters())
        steps = trainer.num_training_batches
        num_boundaries = config.num_epochs or num_epochs * _per_epoch(config, steps)
        first, causes = _first_growth(config, gatherer, num_boundaries, parameters)
        self.forecast = Forecast(
            config=config,
            data=self._data,
            model=type(pl_module).__name__,
            parameters=parameters,
            num_epochs=num_epochs,
            num_steps=int(steps) if math.isfinite(steps) else None,
            validates=trainer.enable_validation,
            optimizers=tuple(type(optimizer).__name__ for optimizer in trainer.optimizers),
            sites=None if sites is None else sites.event(0, config.rollout_percentage),
            no_sites=executor.trials_waived or "nothing may grow",
            places=executor.grounds.site_infos(),
            candidates=executor.grounds.candidates,
            first=first,
            causes=causes,
            model_size_bytes=_model_size_bytes(pl_module),
            optimizer_size_bytes=sum(map(_state_size_bytes, trainer.optimizers)),
            batch_size_bytes=size_bytes(batch),
        )
        raise _SeenError


def _per_epoch(config: EsperConfig, num_steps: float) -> int:
    """Boundaries of an epoch."""
    if config.boundary_every_steps is None or not math.isfinite(num_steps):
        return 1
    return math.ceil(num_steps / config.boundary_every_steps)


def _first_growth(
    config: EsperConfig,
    gatherer: Gatherer,
    num_boundaries: int,
    host_parameters: int,
) -> tuple[Decision | None, tuple[str, ...]]:
    """The first decision of the run's own policy that changes something, and why others do not."""
    policy = build_policy(config)
    schema = gatherer.schema(())
    causes: dict[str, None] = {}
    for epoch in range(1, (num_boundaries or _MAX_EPOCHS_ASKED) + 1):
        packet = gatherer.packet(
            {},
            epoch=epoch,
            step=0,
            num_epochs=num_boundaries,
            host_parameters=host_parameters,
            grown_parameters=0,
        )
        decision = policy.decide(State(packet, schema))
        if decision.commands:
            return decision, tuple(causes)
        causes[decision.cause] = None
    return None, tuple(causes)


def _model_size_bytes(module: nn.Module) -> int:
    return sum(t.nbytes for t in (*module.parameters(), *module.buffers()))


def _state_size_bytes(optimizer: Optimizer) -> int:
    """About what the optimizer will keep: two values for each parameter if it is an Adam."""
    size = 0
    for group in optimizer.param_groups:
        copies = 2 if "betas" in group else 1 if group.get("momentum") else 0
        size += copies * sum(p.nbytes for p in group["params"] if p.requires_grad)
    return size
