"""The task of a LightningModule: copies that reach nothing of the live run."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import lightning.pytorch as pl
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from leyline import TrialError
from tests.tolaria.lightning.models import (
    MLP,
    ByHand,
    Classifier,
    TwoOptimizers,
    held_out_loader,
    quiet_trainer,
    seed_streams,
    train_loader,
    weights,
)
from tolaria.lightning.task import LightningTask, ReadOnlyTrainer


class InFit(pl.Callback):
    """Runs a check in the second epoch of a live fit, where a task is asked for copies."""

    def __init__(self, check: Callable[[LightningTask, Any, Any], None]):
        self.check = check
        self.num_checked = 0

    def on_train_batch_end(
        self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if trainer.current_epoch == 1 and batch_idx == 1:
            self.check(LightningTask(trainer, pl_module), pl_module, batch)
            self.num_checked += 1


def in_fit(
    model_class: Callable[[], Classifier],
    check: Callable[[LightningTask, Any, Any], None],
    **options: Any,
) -> Any:
    seed_streams(5)
    model = model_class()
    callback = InFit(check)
    trainer = quiet_trainer(2, callbacks=[callback], **options)
    trainer.fit(model, train_loader(model), held_out_loader(model))
    assert callback.num_checked == 1
    return trainer


def loss_of(task: LightningTask, batch: Any) -> Tensor:
    return task.loss(task.copy(), batch)


# --- what a copy may and may not do --------------------------------------------------------------


def test_the_loss_is_the_modules_own() -> None:
    """In eval mode a copy's loss is what the live module's training step gives, bit for bit."""

    def check(task: LightningTask, live: Any, batch: Any) -> None:
        copied = task.copy().eval()
        live.eval()
        assert torch.equal(
            task.loss(copied, batch), functional.cross_entropy(live(batch[0]), batch[1])
        )
        live.train()

    in_fit(MLP, check)


def test_a_copy_shares_nothing_with_the_live_module() -> None:
    """Training a copy moves no weight, gradient or buffer of the live one, and logs nothing."""

    def check(task: LightningTask, live: Any, batch: Any) -> None:
        before, metrics = weights(live), dict(live.trainer.callback_metrics)
        copied = task.copy()
        assert all(parameter.grad is None for parameter in copied.parameters())
        gradients = [parameter.grad for parameter in live.parameters()]
        optimizer = torch.optim.SGD(copied.parameters(), lr=1.0)
        task.loss(copied, batch).backward()
        optimizer.step()
        assert not torch.equal(copied.head.weight, live.head.weight)
        for name, value in weights(live).items():
            assert torch.equal(value, before[name])
        assert all(p.grad is g for p, g in zip(live.parameters(), gradients, strict=True))
        after = live.trainer.callback_metrics
        assert {n: float(v) for n, v in after.items()} == {n: float(v) for n, v in metrics.items()}

    in_fit(MLP, check)


class Talks(MLP):
    """Uses everything a training step may read and say."""

    said: list[str]

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        self.log("mine", 1.0, prog_bar=True, on_epoch=True)
        self.log_dict({"a": 1.0, "b": 2.0})
        self.print("never seen on a copy")
        if self.logger is not None:
            self.logger.log_metrics({"x": 1.0}, step=self.global_step)
            self.logger.experiment.anything(1)
        assert self.trainer.max_epochs == 2
        assert self.current_epoch == self.trainer.current_epoch
        assert self.trainer.is_global_zero
        assert self.global_rank == 0
        assert self.device.type == "cpu"
        assert self.trainer.training
        assert len(self.trainer.train_dataloader) == self.trainer.num_training_batches
        return super().training_step(batch, batch_idx)


def test_logging_is_muted_and_reading_works(capsys: pytest.CaptureFixture[str]) -> None:
    """On a copy all logging goes nowhere, and what the trainer knows can be read."""

    def check(task: LightningTask, live: Any, batch: Any) -> None:
        capsys.readouterr()
        assert torch.isfinite(loss_of(task, batch))
        assert capsys.readouterr().out == ""

    in_fit(Talks, check)


REACHES: dict[str, Callable[[Any], Any]] = {
    "trainer.optimizers": lambda module: module.trainer.optimizers,
    "trainer.strategy": lambda module: module.trainer.strategy,
    "trainer.callbacks": lambda module: module.trainer.callbacks,
    "trainer.lightning_module": lambda module: module.trainer.lightning_module,
    "trainer.save_checkpoint": lambda module: module.trainer.save_checkpoint("x.ckpt"),
    "sets trainer.should_stop": lambda module: setattr(module.trainer, "should_stop", True),
    "touches optimizers": lambda module: module.optimizers(),
    "touches optimizers or schedulers": lambda module: module.lr_schedulers(),
}


@pytest.mark.parametrize("reach", list(REACHES))
def test_reaching_the_live_run_is_refused_by_name(reach: str) -> None:
    """A step that reaches for what is live raises TrialError with the name of it."""

    class Reaches(MLP):
        def training_step(self, batch: Any, batch_idx: int) -> Any:
            if isinstance(self.trainer, ReadOnlyTrainer):
                REACHES[reach](self)
            return super().training_step(batch, batch_idx)

    def check(task: LightningTask, live: Any, batch: Any) -> None:
        with pytest.raises(TrialError, match=f"no trial: .*{reach}"):
            loss_of(task, batch)

    trainer = in_fit(Reaches, check)
    assert not trainer.should_stop


def test_nested_lightning_modules_are_muted_too() -> None:
    """A LightningModule inside another one cannot reach the run through its own trainer."""

    class Part(pl.LightningModule):
        def forward(self, inputs: Tensor) -> Tensor:
            if isinstance(self.trainer, ReadOnlyTrainer):
                self.log("part", 1.0)  # which Lightning refuses in a part, but a copy mutes
                self.trainer.should_stop = True
            return inputs

    class Nests(MLP):
        def __init__(self) -> None:
            super().__init__()
            self.net = nn.Sequential(*self.net, Part())

    def check(task: LightningTask, live: Any, batch: Any) -> None:
        with pytest.raises(TrialError, match=r"sets trainer\.should_stop"):
            loss_of(task, batch)

    seed_streams(5)
    model = Nests()
    callback = InFit(check)
    trainer = quiet_trainer(2, callbacks=[callback])
    model.net[-1].trainer = trainer
    trainer.fit(model, train_loader(model), held_out_loader(model))
    assert callback.num_checked == 1


# --- signatures and outputs ----------------------------------------------------------------------


def steps() -> dict[str, Callable[..., Any]]:
    def value(self: Any, batch: Any) -> Tensor:
        return functional.cross_entropy(self(batch[0]), batch[1])

    def batch_only(self: Any, batch: Any) -> Any:
        return value(self, batch)

    def with_index(self: Any, batch: Any, batch_idx: int) -> Any:
        assert isinstance(batch_idx, int)
        return value(self, batch)

    def mapping(self: Any, batch: Any, batch_idx: int) -> Any:
        return {"loss": value(self, batch), "extra": "kept"}

    def keyword(self: Any, batch: Any, batch_idx: int, *, scale: float = 1.0) -> Any:
        return value(self, batch) * scale

    return {f.__name__: f for f in (batch_only, with_index, mapping, keyword)}


@pytest.mark.parametrize("name", list(steps()))
def test_every_signature_and_output_has_its_loss(name: str) -> None:
    """training_step may take (batch) or (batch, batch_idx) and return a tensor or a mapping."""
    kind = type("Own", (MLP,), {"training_step": steps()[name]})

    def check(task: LightningTask, live: Any, batch: Any) -> None:
        copied = task.copy().eval()
        expected = functional.cross_entropy(copied(batch[0]), batch[1])
        assert torch.equal(task.loss(copied, batch), expected)

    in_fit(kind, check)


@pytest.mark.filterwarnings("ignore:.*`training_step` returned `None`:UserWarning")
def test_no_loss_is_no_trial() -> None:
    """A step that returns None, or a mapping without a loss, is refused by name."""

    class Skips(MLP):
        def training_step(self, batch: Any, batch_idx: int) -> Any:
            return None

    def check(task: LightningTask, live: Any, batch: Any) -> None:
        with pytest.raises(TrialError, match="training_step of Skips returned no loss"):
            loss_of(task, batch)

    in_fit(Skips, check)


@pytest.mark.parametrize("model", [ByHand, TwoOptimizers])
def test_steps_by_hand_have_no_loss_but_can_be_run_dry(model: Any) -> None:
    """Manual optimization is no trial, by name; its dry run calls the model and moves nothing."""

    def check(task: LightningTask, live: Any, batch: Any) -> None:
        with pytest.raises(TrialError, match=f"{model.__name__} optimizes by hand"):
            loss_of(task, batch)
        copied, before, calls = task.copy(), weights(live), []
        copied.net.register_forward_hook(lambda *_: calls.append(1))
        for context in (torch.enable_grad, torch.no_grad):
            with context():
                task.dry_run(copied, batch)
        assert len(calls) == 2 * len(live.trainer.optimizers)
        for one in (copied, live):
            assert all(torch.equal(value, before[name]) for name, value in weights(one).items())

    in_fit(model, check)


# --- precision -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("precision", "dtype"), [("bf16-mixed", torch.bfloat16), ("32-true", torch.float32)]
)
def test_the_context_is_the_runs_precision(precision: str, dtype: torch.dtype) -> None:
    """In its context a copy computes in the precision of the run's own training steps."""
    live_dtypes: list[torch.dtype] = []

    class Notes(MLP):
        def forward(self, inputs: Tensor) -> Tensor:
            output = super().forward(inputs)
            live_dtypes.append(output.dtype)
            return output

    def check(task: LightningTask, live: Any, batch: Any) -> None:
        live_dtypes.clear()
        with task.context():
            loss_of(task, batch)
        assert live_dtypes == [dtype]

    in_fit(Notes, check, precision=precision)
