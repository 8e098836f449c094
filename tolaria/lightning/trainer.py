"""What Esper reads of a Lightning trainer, and what of one it cannot grow under."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import lightning.pytorch as pl
from lightning.pytorch.utilities.types import STEP_OUTPUT
from torch import Tensor

from leyline import ConfigError

_STOCHASTIC: Final = "StochasticWeightAveraging"


def is_dry(trainer: pl.Trainer) -> bool:
    """A run that only checks that the code runs: nothing is opened and nothing grows."""
    return bool(getattr(trainer, "fast_dev_run", False))


def is_fitting(trainer: pl.Trainer) -> bool:
    """Whether this is a fit past its sanity check."""
    return trainer.state.fn == "fit" and not trainer.sanity_checking


def last_epoch(trainer: pl.Trainer, num_past: int) -> int:
    """The run's last epoch, those of earlier fits counted; 0 if it has no end."""
    if trainer.max_epochs is None or trainer.max_epochs < 0:
        return 0
    return num_past - min(num_past, trainer.current_epoch) + trainer.max_epochs


def loss_of(outputs: STEP_OUTPUT) -> Tensor | float | None:
    """The loss in a step's output; None for a step that returned none, or not one number."""
    loss = outputs.get("loss") if isinstance(outputs, Mapping) else outputs
    if isinstance(loss, Tensor):
        return loss if loss.numel() == 1 else None
    return loss if isinstance(loss, int | float) else None


def scaler_of(trainer: pl.Trainer) -> Any:
    """The gradient scaler of a run in 16-bit precision; None in any other."""
    return getattr(trainer.precision_plugin, "scaler", None)


def refuse_unsupported(trainer: pl.Trainer) -> None:
    """Refuse by name what cannot grow yet.

    Raises:
        ConfigError: several processes, a strategy that splits the model, stochastic averaging.
    """
    if trainer.world_size > 1:
        raise ConfigError(
            f"the trainer runs {trainer.world_size} processes, in which parameters added by one "
            "would silently diverge; use devices=1, or leave EsperCallback out"
        )
    name = type(trainer.strategy).__name__
    if "FSDP" in name or "DeepSpeed" in name or "ModelParallel" in name:
        raise ConfigError(f"strategy {name} cannot grow yet; use the default strategy")
    for callback in getattr(trainer, "callbacks", ()):
        if _STOCHASTIC in {kind.__name__ for kind in type(callback).__mro__}:
            raise ConfigError(
                f"{type(callback).__name__} averages parameters by position, which growth moves, "
                "and puts a scheduler of its own in the place of yours; use EMAWeightAveraging or "
                "WeightAveraging, whose averages follow growth, or leave one of the two out"
            )


def rewind_batches(fit_loop: dict[str, Any]) -> None:
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


def begin_whole_epoch(trainer: pl.Trainer) -> None:
    """Tell a resumed loop that its epoch begins, where no batch of it is done yet.

    Lightning would spend a first round on nothing, and count it as a step of the loggers' axis.
    """
    fit_loop, loop = trainer.fit_loop, trainer.fit_loop.epoch_loop
    if loop.restarting and loop.batch_progress.current.ready == 0:
        # Past its setter, which goes by max_steps too: else a ReduceLROnPlateau is not stepped.
        fit_loop._restarting = False
        loop.restarting = False


def validates_nothing(trainer: pl.Trainer) -> bool:
    """Whether the validation loop has been set up and has no batches."""
    batches = list(trainer.num_val_batches)
    return bool(batches) and sum(batches) == 0


def forget_early_iterator(trainer: pl.Trainer) -> None:
    """Drop a training iterator that `configure_optimizers` has had made before the resume.

    `trainer.estimated_stepping_batches` sets the data up at once, so its iterator has drawn from
    random streams that are put back only now; the fit makes a new one.
    """
    if getattr(trainer.fit_loop, "_combined_loader", None) is not None:
        trainer.fit_loop._combined_loader = None
