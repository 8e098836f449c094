"""The Lightning callback: one callback for all of Esper, since each costs time on every step."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.callbacks import StochasticWeightAveraging
from lightning.pytorch.utilities.types import STEP_OUTPUT

from kasmina import grow_on_load
from leyline import ConfigError
from tolaria import resume
from tolaria.batch_source import KeptBatches
from tolaria.checkpoint_io import DirectoryCheckpointIO
from tolaria.config import EsperConfig, load_config
from tolaria.lightning_task import LightningTask
from tolaria.orchestrator import Orchestrator
from tolaria.recorder import Listener
from tolaria.session import Session


class EsperCallback(pl.Callback):
    """Grows the model of a `Trainer.fit`. Validation, test and predict runs are left alone.

    Args:
        config: a TOML file, a mapping or an EsperConfig.
        overrides: single fields of EsperConfig; they win.

    Raises:
        ConfigError: a setting is unknown or out of range.
    """

    def __init__(
        self,
        config: str | Path | Mapping[str, Any] | EsperConfig | None = None,
        **overrides: Any,
    ):
        self.config = load_config(config, overrides)
        self.listeners: list[Listener] = []
        """Called with every event, in the training thread; keep them quick."""
        self.orchestrator: Orchestrator | None = None
        """The running or last fit's orchestrator."""
        self.run_dir: Path | None = None
        """The running or last fit's directory."""
        self.resume_run = False
        """Whether the next fit goes on in an existing run directory."""
        self.close_after_fit = True
        """Whether the run ends with the fit; else whoever drives the fit closes it."""
        self._source: KeptBatches | None = None
        self._pending: Mapping[str, Any] | None = None
        self._hooks: list[Any] = []

    def report(self) -> dict[str, Any]:
        """The last fit as plain values: `boundaries`, `seeds` and `decisions`."""
        if self.orchestrator is None:
            return {"boundaries": [], "seeds": [], "decisions": []}
        return self.orchestrator.report()

    # --- before a fit ------------------------------------------------------------------------

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Refuse what cannot be grown yet; make loading a checkpoint grow the model to fit it."""
        if stage != "fit" or _is_dry(trainer):
            return
        _refuse_unsupported(trainer)
        self._hooks.append(grow_on_load(pl_module))
        strategy = trainer.strategy
        if not isinstance(strategy.checkpoint_io, DirectoryCheckpointIO):
            strategy.checkpoint_io = DirectoryCheckpointIO(strategy.checkpoint_io)

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Open the run. Optimizers exist by now, but their saved state is not loaded yet."""
        if _is_dry(trainer):
            return
        previous = self.orchestrator
        if self._pending is None and previous is not None and previous.model is pl_module:
            # A second fit of the same model goes on with its seeds, in the same directory.
            self._pending = resume.growth_state(previous)
            again = True
        else:
            again = False
        config = self.config
        if again and self.run_dir is not None:
            config = load_config(config, {"run_dir": str(self.run_dir)})
        session = Session.open(config, resume=self.resume_run or again)
        self.run_dir = session.run.path
        self._source = KeptBatches(config.max_kept_batches, config.max_kept_size_bytes)
        try:
            self.orchestrator = Orchestrator(
                pl_module,
                trainer.optimizers,
                config,
                session=session,
                task=LightningTask(trainer, pl_module),
                source=self._source,
                schedulers=[c.scheduler for c in trainer.lr_scheduler_configs],
                num_epochs=config.num_epochs or max(0, trainer.max_epochs or 0),
            )
            session.recorder.listeners.extend(self.listeners)
            resumed = self._pending is not None
            if self._pending is not None:
                resume.restore_growth(self.orchestrator, self._pending, rng=not again)
                self._pending = None
            elif self.resume_run:
                session.recorder.rewind(0, 0)  # nothing was saved: it all happens again
        except BaseException:
            session.abandon()
            raise
        if not resumed or again:
            self.orchestrator.epoch = trainer.current_epoch
        self.orchestrator.start(resumed=resumed)

    # --- during a fit ------------------------------------------------------------------------

    def on_train_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: STEP_OUTPUT,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Tell the orchestrator of the step, and keep the batch if a race is coming."""
        if self.orchestrator is None or self._source is None or _is_dry(trainer):
            return
        self._source.offer_train(batch)
        loss = outputs.get("loss") if isinstance(outputs, Mapping) else outputs
        if loss is not None:
            self.orchestrator.after_step(loss, batch)

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """A validation pass replaces the held-out batches of the one before."""
        if self._source is not None and _is_fitting(trainer):
            self._source.begin_held_out()

    def on_validation_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: STEP_OUTPUT,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Keep held-out batches as they pass, if something is to be measured on them."""
        if self._source is not None and dataloader_idx == 0 and _is_fitting(trainer):
            self._source.offer_held_out(batch)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """The boundary. What it found goes to the user's own loggers, once."""
        if self.orchestrator is None or _is_dry(trainer):
            return
        report = self.orchestrator.epoch_boundary(trainer.callback_metrics)
        stages = self.orchestrator.executor.table.num_by_stage()
        logged: dict[str, float] = {f"esper/seeds_{n.lower()}": c for n, c in stages.items()}
        logged["esper/parameters"] = float(sum(p.numel() for p in pl_module.parameters()))
        logged["esper/commands"] = float(len(report.decision.commands))
        logged["esper/boundary_ms"] = report.total_ms
        for logger in trainer.loggers:
            logger.log_metrics(logged, step=trainer.global_step)

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Commit the epoch that has just ended: every scheduler and callback is done with it."""
        if self.orchestrator is not None and not _is_dry(trainer) and self.orchestrator.epoch > 0:
            self._commit(trainer)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Commit the last epoch."""
        if self.orchestrator is not None and not _is_dry(trainer) and self.orchestrator.epoch > 0:
            self._commit(trainer)

    def _commit(self, trainer: pl.Trainer) -> None:
        assert self.orchestrator is not None
        if self.orchestrator.committed_epoch == self.orchestrator.epoch:
            return
        dumped = trainer._checkpoint_connector.dump_checkpoint(weights_only=False)
        _rewind_batches(dumped["loops"]["fit_loop"])
        self.orchestrator.checkpoint(dumped)

    # --- after a fit -------------------------------------------------------------------------

    def on_fit_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Close the run, unless more of it is to come from outside."""
        self._end_fit("finished")

    def on_exception(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException
    ) -> None:
        """Close the run: Lightning calls no teardown after an exception."""
        interrupted = isinstance(exception, KeyboardInterrupt)
        self._close("interrupted" if interrupted else "failed")

    def teardown(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Close whatever is still open."""
        self._end_fit("finished")

    def _end_fit(self, status: str) -> None:
        if self.close_after_fit:
            self._close(status)

    def _close(self, status: str) -> None:
        for hook in self._hooks:
            hook.remove()
        self._hooks.clear()
        self._source = None
        if self.orchestrator is not None:
            self.orchestrator.close(status)

    # --- checkpoints -------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """The growth state, for Lightning's own checkpoints and for Esper's."""
        return {} if self.orchestrator is None else resume.growth_state(self.orchestrator)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Remember a saved growth state until the fit starts."""
        self._pending = state_dict or None


def _is_dry(trainer: pl.Trainer) -> bool:
    """A run that only checks that the code runs: nothing is opened and nothing grows."""
    return bool(getattr(trainer, "fast_dev_run", False))


def _is_fitting(trainer: pl.Trainer) -> bool:
    return trainer.state.fn == "fit" and not trainer.sanity_checking


def _refuse_unsupported(trainer: pl.Trainer) -> None:
    if trainer.world_size > 1:
        raise ConfigError(
            f"the trainer runs {trainer.world_size} processes, in which parameters added by one "
            "would silently diverge; use devices=1, or policy='hold' without this callback"
        )
    name = type(trainer.strategy).__name__
    if "FSDP" in name or "DeepSpeed" in name or "ModelParallel" in name:
        raise ConfigError(f"strategy {name} cannot grow yet; use the default strategy")
    if any(isinstance(callback, StochasticWeightAveraging) for callback in _callbacks(trainer)):
        raise ConfigError(
            "StochasticWeightAveraging averages parameters by position, which growth moves; "
            "remove one of the two callbacks"
        )


def _callbacks(trainer: pl.Trainer) -> list[Any]:
    return list(getattr(trainer, "callbacks", ()))


def _rewind_batches(fit_loop: dict[str, Any]) -> None:
    """Make a saved loop start its epoch from the first batch: the epoch before it is complete.

    Lightning itself clears these counts only when the next epoch begins, which is after the hook
    in which the checkpoint is taken.
    """
    for name, progress in fit_loop.items():
        if name.startswith("epoch_loop."):
            _clear_current(progress)
    validation = fit_loop.get("epoch_loop.val_loop.batch_progress", {}).get("total", {})
    validation.update(dict.fromkeys(validation, 0))


def _clear_current(progress: dict[str, Any]) -> None:
    if "is_last_batch" in progress:
        progress["is_last_batch"] = False
    for name, value in progress.items():
        if isinstance(value, dict):
            if name == "current":
                value.update(dict.fromkeys(value, 0))
            else:
                _clear_current(value)
