"""The orchestrator: what a training loop calls after each step and at each epoch's end."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any, Self

from torch import Tensor, nn
from torch.optim import Optimizer

from kasmina import LossFunction
from kasmina.lifecycle.manager import CallbackHandle, TransitionCallback
from leyline import RunEnded, RunError
from oona import BusStatistics
from tolaria.boundary.gather import check_monitor, numbers_of
from tolaria.boundary.report import BoundaryReport
from tolaria.boundary.stage_timer import StageTimer
from tolaria.boundary.stretch import end_stretch
from tolaria.live_run import LiveRun
from tolaria.plain_loop.attaching import attached
from tolaria.plain_loop.clipping import clip_gradients
from tolaria.plain_loop.handover import cause_of, check_text
from tolaria.resume.saving import save
from tolaria.rollback.response import respond
from tolaria.rollback.watch import Broken
from tolaria.run_begin import begin
from tolaria.show.plain import view_dict
from tolaria.step_pass import pass_step


class Orchestrator(LiveRun):
    """Grows one model during one run. Built by `attach`, or by EsperCallback under Lightning."""

    @classmethod
    def attach(
        cls,
        model: nn.Module,
        optimizer: Optimizer,
        config: Any = None,
        *,
        example: Any = None,
        loss_fn: LossFunction | None = None,
        data: Any = None,
        schedulers: Sequence[Any] = (),
        scaler: Any = None,
        resume: bool = False,
        **overrides: Any,
    ) -> Self:
        """Attach to a hand-written training loop.

        Args:
            model: the host; any module.
            optimizer: the one that trains it.
            config: a path, a mapping or an EsperConfig; `overrides` are single fields of it.
                `sites` may also be a function from the list of sites found to those to use.
            example: the positional arguments of one forward call, as a tuple (or one tensor).
            loss_fn: `loss_fn(model, batch) -> loss`, for trials.
            data: training and held-out batches, as a pair or a mapping with the keys `train` and
                `held_out`. Without loss_fn and data a planted seed skips its trial.
            schedulers: learning-rate schedulers to save and to resume; step them before the
                boundary that ends their epoch.
            scaler: the loop's gradient scaler, if it has one: it is saved, and goes back with the
                rest when the run does.
            resume: go on with the run in `run_dir` from its newest whole checkpoint: the model
                grows and is loaded in place, then the optimizer, the schedulers and the random
                streams. `epoch` says how many epochs are done; with `boundary_every_steps` it says
                how many boundaries: count epochs by `step` then. Where there is no run yet one
                begins, so that a script may always say so.

        A checkpoint is committed after every boundary.

        Raises:
            ConfigError, RunError, BusError: a setting or an argument, the run directory or the
                URL is not right.
            CheckpointError: what was saved does not fit the model or the optimizer.
        """
        given = (config, overrides, example, loss_fn, data, schedulers, scaler, resume)
        return attached(cls, model, optimizer, *given)

    def start(self, *, resumed: bool) -> None:
        """Announce the run and remember the state it starts from.

        Raises:
            ConfigError: the model carries seeds that this run knows nothing of.
        """
        begin(self, resumed=resumed)

    # --- called by the loop ------------------------------------------------------------------

    def after_step(
        self,
        loss: Tensor | float | None,
        batch: Any = None,
        *,
        grad_norm: Tensor | float | None = None,
    ) -> BoundaryReport | None:
        """Tell that one training step is done; call it after `optimizer.step()`.

        Args:
            loss: the step's loss; None for a step that had none.
            batch: the step's batch, if at hand: it is looked at only when the loss is not finite.
            grad_norm: the norm of the step's gradient where the loop has it, as from
                `clip_grad_norm_`; it is watched as the loss is.

        Returns:
            The report of the boundary that this step ends, if `boundary_every_steps` is set and
            so many steps are full; else None.

        Raises:
            NonFiniteError, RiskError: a bad loss that no seed explains; a critical boundary.
            ConfigError, SiteError: the loss is not one number, or at the first step, a setting
                names a site that there is not.
            OwnerError: another thread owns the run; nothing was changed.
            RunError: the run is closed, or the call comes from a callback; nothing was changed.
        """
        self._refuse_closed()
        with self.turnstile:
            pass_step(self, loss, batch, grad_norm)
            if self.in_plain_loop and self.boundary_is_due:
                return end_stretch(self, ends_epoch=False)
            return None

    def roll_back(self, cause: str | Exception) -> None:
        """Go back to the last good state, as a loss that is not finite makes the run do.

        For a loop that has caught an error of its own, such as `torch.OutOfMemoryError`; call it
        between two steps.

        Args:
            cause: why, in a few words, or the error itself; it goes into the report.

        Raises:
            ConfigError: the cause is neither; nothing was changed.
            NonFiniteError: it happened too often without a seed to blame.
            OwnerError, RunError: as for `after_step`.
        """
        self._refuse_closed()
        with self.turnstile:
            respond(self, Broken("request", cause_of(cause)), epoch=self.epoch + 1)

    def step_boundary(self) -> BoundaryReport:
        """Pass a boundary within an epoch, after an optimizer step and before the next forward.

        Whoever drives the loop calls it when `boundary_is_due`; in a hand-written loop
        `after_step` does.
        """
        self._refuse_closed()
        with self.turnstile:
            return end_stretch(self, ends_epoch=False)

    def epoch_boundary(self, metrics: Mapping[str, Any], *, whole: bool = True) -> BoundaryReport:
        """End an epoch: measure what is due, decide, change the model, report.

        An epoch whose last step has ended a boundary of `boundary_every_steps` adds its metrics
        to that one, and gets its report.

        Args:
            metrics: the epoch's metrics by name; what is not a number is left out.
            whole: False while the first validation, and so its metrics, is still to come.

        Raises:
            ConfigError: a setting names a metric, site or blueprint that there is not.
            OwnerError: another thread owns the run; nothing was changed.
            RunError: the run is closed, or the call comes from a callback; nothing was changed.
        """
        self._refuse_closed()
        with self.turnstile:
            numbers = numbers_of(metrics)
            if whole:
                check_monitor(self.config.monitor, numbers, self.session.recorder.view.metrics)
            self.metrics = numbers
            return end_stretch(self, ends_epoch=True)

    def clip_gradients(self, max_norm: float) -> Tensor:
        """Clip as `torch.nn.utils.clip_grad_norm_` does, but host and seeds apart.

        A hand-written loop calls it between `loss.backward()` and `optimizer.step()`, after a
        GradScaler's `unscale_`.

        Args:
            max_norm: the largest 2-norm that is left as it is, for the host and for every seed.

        Returns:
            The norm of the host's gradients before, 0-dim.
        """
        return clip_gradients(self.model, max_norm)

    def on_transition(self, callback: TransitionCallback) -> CallbackHandle:
        """Have a function told of every transition of a seed, by its SeedReport.

        Returns:
            A handle whose `remove()` ends this. What the function raises is reported as a fault.
        """
        return self.executor.lifecycle.on_transition(callback)

    def report(self) -> dict[str, Any]:
        """The run so far, as plain values: `boundaries`, `seeds` and `decisions`."""
        return view_dict(self.session.recorder.view)

    def checkpoint(self, state: Mapping[str, Any] | None = None) -> None:
        """Commit a checkpoint of the model, its optimizers and the growth state.

        Args:
            state: what to write; a hand-written loop leaves it out.

        Raises:
            OwnerError, RunError: as for `after_step`.
        """
        timer = StageTimer(self.clock_s)
        with self.turnstile:
            save(self, state, timer)
        self.carried_ms = timer.took_ms

    def close(
        self, status: str = "finished", metrics: Mapping[str, float] | None = None
    ) -> BusStatistics:
        """End the run: write the report, flush the bus, let go of the run directory.

        Further calls only return the bus's last statistics. The model keeps its seeds.

        Args:
            status: how the run ended, in a word.
            metrics: the last ones, by name; what is not a number is left out.

        Raises:
            ConfigError: the status is no text, or the metrics are no mapping; the run goes on.
        """
        numbers = numbers_of({} if metrics is None else metrics)
        check_text("status", status)
        if not self.is_closed:
            self.is_closed = True
            self.rates.release()
            self.recovery.release()
        ended = RunEnded(
            run_id=self.session.run.run_id,
            epoch=self.epoch,
            status=status,
            parameters=self.num_parameters(),
            metrics=numbers,
        )
        return self.session.close(ended)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        # A SystemExit is what a handler of SIGTERM raises, Lightning's too.
        stopped = kind is not None and issubclass(kind, KeyboardInterrupt | SystemExit)
        self.close("interrupted" if stopped else "finished" if kind is None else "failed")

    def _refuse_closed(self) -> None:
        if self.is_closed:
            raise RunError(f"the run in {self.run_dir} is closed; attach the model to a new one")
