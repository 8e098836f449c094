"""The Lightning callback: one callback for all of Esper, since each costs time on every step."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import msgspec
from lightning.pytorch.utilities.types import STEP_OUTPUT
from torch import Tensor

from kasmina import grow_on_load
from leyline import LIFECYCLE, ConfigError, Fault
from tolaria.config import EsperConfig
from tolaria.disk.run import RunDirectory
from tolaria.growth.batch_source import KeptBatches
from tolaria.growth.rollout import resolve
from tolaria.lightning.announce import announce
from tolaria.lightning.averaging import Averages, warn_of_order
from tolaria.lightning.checkpoint_io import DirectoryCheckpointIO
from tolaria.lightning.clipping import ClippedApart
from tolaria.lightning.idle_hooks import IdleHooks
from tolaria.lightning.step_boundaries import StepBoundaries
from tolaria.lightning.task import LightningTask
from tolaria.lightning.trainer import (
    begin_whole_epoch,
    forget_early_iterator,
    is_dry,
    is_fitting,
    last_epoch,
    loss_of,
    refuse_unsupported,
    rewind_batches,
    scaler_of,
    validates_nothing,
)
from tolaria.orchestrator import Orchestrator
from tolaria.plain_loop.handover import is_frozen
from tolaria.recorder import Listener
from tolaria.resume import growth_state, rng_state
from tolaria.rollback.regained import regain
from tolaria.rollback.state import Rewindable
from tolaria.session import Session


class EsperCallback(pl.Callback):
    """Grows the model of a `Trainer.fit`. Validation, test and predict runs are left alone.

    Args:
        config: a TOML file, a mapping or an EsperConfig.
        overrides: single fields of EsperConfig; they win. `sites` may also be a function from the
            list of sites found to those to use.

    Raises:
        ConfigError: a setting is unknown or out of range.
    """

    def __init__(
        self,
        config: str | Path | Mapping[str, Any] | EsperConfig | None = None,
        **overrides: Any,
    ):
        self.config, self._site_filter = resolve(config, overrides)
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
        self._averages: Averages | None = None
        self._idle: IdleHooks | None = None
        self._steps: StepBoundaries | None = None
        self._has_validated = False
        self._may_lag = False
        self._num_past = 0
        """Epochs of this run that the trainer has not counted: those of another trainer's fit."""
        self._streams: dict[str, Any] | None = None
        """Of a fit that goes on: the random streams before Lightning drew its first iterator from
        them, which an undisturbed run does after it has saved."""
        self._hooks: list[Any] = []

    def report(self) -> dict[str, Any]:
        """The last fit as plain values: `boundaries`, `seeds` and `decisions`."""
        if self.orchestrator is None:
            return {"boundaries": [], "seeds": [], "decisions": []}
        return self.orchestrator.report()

    # --- before a fit ------------------------------------------------------------------------

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Refuse what cannot be grown yet; make loading a checkpoint grow the model to fit it."""
        if stage == "fit":
            refuse_unsupported(trainer)
        self._averages = Averages(trainer, pl_module)
        self._hooks += [grow_on_load(pl_module), self._averages]
        strategy = trainer.strategy
        if not isinstance(strategy.checkpoint_io, DirectoryCheckpointIO):
            strategy.checkpoint_io = DirectoryCheckpointIO(strategy.checkpoint_io)

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Open the run. Optimizers exist by now, but their saved state is not loaded yet."""
        if is_dry(trainer):
            return
        config, previous, state = self.config, self.orchestrator, self._pending
        self._pending = None
        again = state is None and previous is not None and previous.model is pl_module
        if again:
            # A second fit of the same model goes on with its seeds, in the same directory.
            assert previous is not None
            _refuse_other_seeds(previous)
            state = growth_state.growth_state(previous)
            config = msgspec.structs.replace(config, run_dir=str(self.run_dir))
        goes_on = self.resume_run or again or self._is_own_run(state)
        session = Session.open(config, resume=goes_on)
        self.run_dir = session.run.path
        self._source = KeptBatches(
            config.max_kept_batches,
            config.max_kept_size_bytes,
            validates=trainer.enable_validation,
        )
        self._has_validated = False
        try:
            first_epoch = trainer.current_epoch
            if state is not None:
                first_epoch = growth_state.epoch_of(state)
            self.orchestrator = Orchestrator(
                pl_module,
                trainer.optimizers,
                config,
                session=session,
                task=LightningTask(trainer, pl_module),
                source=self._source,
                schedulers=[c.scheduler for c in trainer.lr_scheduler_configs],
                num_epochs=config.num_epochs or last_epoch(trainer, first_epoch if again else 0),
            )
            self._join(trainer, self.orchestrator)
            self.orchestrator.epoch = first_epoch
            if state is not None:
                growth_state.restore_growth(self.orchestrator, state, rng=not again)
                growth_state.rewind(self.orchestrator, state)
                forget_early_iterator(trainer)
            elif self.resume_run:
                # Nothing was saved: it all happens again.
                self.orchestrator.replay(session.recorder.rewind(0))
            self.orchestrator.start(resumed=state is not None)
            saved = state or {}
            now = trainer.current_epoch
            self._num_past = first_epoch - now if again else saved.get("num_past", 0)
            if saved.get("within_epoch"):
                self._may_lag = config.boundary_every_steps is None
                session.record(_not_exact(self.orchestrator))
            elif state is not None:
                self._streams = rng_state.capture()
        except BaseException:
            session.abandon()
            self.orchestrator = previous
            raise

    def _join(self, trainer: pl.Trainer, orchestrator: Orchestrator) -> None:
        """Bring a run and what a trainer has beside it together, for the length of the fit."""
        orchestrator.growth.search.site_filter = self._site_filter
        orchestrator.recovery.parts.scaler = scaler_of(trainer)
        session = orchestrator.session
        count = orchestrator.num_parameters
        url = None if session.exporters is None else session.exporters.url
        say = partial(announce, report=session.run.report, metrics_url=url, num_parameters=count)
        session.recorder.listeners.extend([say, *self.listeners])
        if self._averages is not None:
            self._averages.start(orchestrator)
            warn_of_order(trainer, self)
        self._idle = IdleHooks(self)
        self._hooks += [ClippedApart(trainer), self._idle]

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Remember the state to go back to: a resumed optimizer has its own only now."""
        if self.orchestrator is not None and not is_dry(trainer):
            loader = trainer.train_dataloader
            parts = self.orchestrator.recovery.parts
            parts.loader = loader if isinstance(loader, Rewindable) else None
            esper = self.orchestrator
            with rng_state.as_of(self._streams):
                esper.recovery.take_first(esper.epoch, esper.step)
                regain(esper)
            self._steps = StepBoundaries(trainer, self.orchestrator)
            self._steps.plan(self.orchestrator.epoch)

    def _is_own_run(self, state: Mapping[str, Any] | None) -> bool:
        """Whether the run that saved a state is the one in the directory that was asked for."""
        path = None if self.config.run_dir is None else Path(self.config.run_dir)
        if state is None or path is None or not (path / "run.json").is_file():
            return False
        with RunDirectory.open(path, lock=False) as run:
            return _identity(run) == state.get("run")

    # --- during a fit ------------------------------------------------------------------------

    def on_before_backward(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, loss: Tensor
    ) -> None:
        """Let the steps of a frozen host pass: without a seed at work its loss has no graph."""
        grows = self.orchestrator is not None and self.config.grows
        if grows and not loss.requires_grad and is_frozen(pl_module):
            loss.requires_grad_()

    def on_train_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: STEP_OUTPUT,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Tell the orchestrator of the step, and keep the batch if a race is coming."""
        if self.orchestrator is None or self._source is None or is_dry(trainer):
            return
        self._source.offer_train(batch)
        self.orchestrator.after_step(loss_of(outputs), batch)
        if self._steps is not None and self._steps.is_due():
            self.orchestrator.step_boundary()

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """A validation pass replaces the held-out batches of the one before."""
        if self._source is not None and is_fitting(trainer):
            self._source.begin_held_out()
            self._has_validated = True
        if self._averages is not None:
            self._averages.follow()

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
        if self._source is not None and dataloader_idx == 0 and is_fitting(trainer):
            self._source.offer_held_out(batch)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """The boundary. What it found goes to the user's own loggers, once."""
        if self.orchestrator is None or is_dry(trainer):
            return
        whole = self._has_validated or not trainer.enable_validation
        if self._source is not None and validates_nothing(trainer):
            self._source.never_validates()
        report = self.orchestrator.epoch_boundary(trainer.callback_metrics, whole=whole)
        if self._averages is not None:
            self._averages.follow()
        stages = self.orchestrator.executor.table.num_by_stage()
        logged: dict[str, float] = {f"esper/seeds_{n.lower()}": c for n, c in stages.items()}
        logged["esper/parameters"] = float(sum(p.numel() for p in pl_module.parameters()))
        logged["esper/commands"] = float(len(report.decision.commands))
        logged["esper/boundary_ms"] = report.total_ms
        for logger in trainer.loggers:
            logger.log_metrics(logged, step=trainer.global_step)

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Commit the epoch that has just ended: every scheduler and callback is done with it."""
        esper = self.orchestrator
        lags = esper is not None and esper.epoch - self._num_past < trainer.current_epoch
        if esper is not None and lags and self._may_lag:
            # Saved after an epoch's last step: Lightning does not end that epoch again.
            esper.epoch_boundary({}, whole=False)
        self._may_lag = False
        if esper is not None and not is_dry(trainer) and esper.epoch > 0:
            with rng_state.as_of(self._streams):
                self._commit(trainer)
            begin_whole_epoch(trainer)
        self._streams = None
        if self._idle is not None:
            unneeded = not (self.config.grows and is_frozen(pl_module))
            self._idle.rest("on_before_backward", idle=unneeded)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Commit the last epoch."""
        if self.orchestrator is not None and not is_dry(trainer) and self.orchestrator.epoch > 0:
            self._commit(trainer)

    def _commit(self, trainer: pl.Trainer) -> None:
        assert self.orchestrator is not None
        done = self.orchestrator.committed_epoch == self.orchestrator.epoch
        if done or not self.config.checkpoint:
            return
        dumped = trainer._checkpoint_connector.dump_checkpoint(weights_only=False)
        rewind_batches(dumped["loops"]["fit_loop"])
        self.orchestrator.checkpoint(dumped)

    # --- after a fit -------------------------------------------------------------------------

    def on_fit_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Close the run, unless more of it is to come from outside."""
        self._end("finished")

    def on_exception(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException
    ) -> None:
        """Close the run: Lightning calls no teardown after an exception."""
        self._let_go()
        if self.orchestrator is not None:
            self.orchestrator.__exit__(type(exception), exception, None)

    def teardown(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Close whatever is still open."""
        self._let_go()
        self._end("finished")

    def _end(self, status: str) -> None:
        if self.close_after_fit and self.orchestrator is not None:
            self.orchestrator.close(status)

    def _let_go(self) -> None:
        for hook in self._hooks:
            hook.remove()
        self._hooks.clear()
        if self._source is not None:
            self._source.want(train=False, held_out=False)  # the batches of a run that has ended
        self._source = self._pending = self._averages = self._idle = self._steps = None

    # --- checkpoints -------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """The growth state, for Lightning's own checkpoints and for Esper's."""
        if self.orchestrator is None:
            return {}
        esper = self.orchestrator
        return {
            **growth_state.growth_state(esper),
            "run": _identity(esper.session.run),
            "num_past": self._num_past,
            "within_epoch": esper.step > esper.epoch_end_step,
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Remember a saved growth state until the fit starts."""
        self._pending = state_dict or None


def _identity(run: RunDirectory) -> list[str]:
    """What tells a run from another one in a directory of the same name."""
    return [run.run_id, run.created.isoformat()]


def _not_exact(orchestrator: Orchestrator) -> Fault:
    """The word on a checkpoint that was saved between two boundaries."""
    return Fault(
        epoch=orchestrator.epoch,
        step=orchestrator.step,
        where="resume",
        what="the checkpoint is from within an epoch, of which not all is saved",
        action="training goes on from it, but does not end bit-identical",
    )


def _refuse_other_seeds(previous: Orchestrator) -> None:
    """A checkpoint that was loaded since the last fit may have changed what has grown."""
    table = previous.executor.table
    wanted = {name for name in table.names if LIFECYCLE[table.stage(name)].in_forward}
    held = set(previous.executor.live_seeds())
    if held != wanted:
        raise ConfigError(
            f"the model's seeds are {_listed(held)}, but its last fit ended with "
            f"{_listed(wanted)}; to go on from a checkpoint give it to fit() as ckpt_path"
        )


def _listed(names: set[str]) -> str:
    return ", ".join(sorted(names)) or "none"
