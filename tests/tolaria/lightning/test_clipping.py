"""Clipped gradients: the host's are those of a run in which seeds have no gradients."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pytest
import torch
from lightning.pytorch.plugins import MixedPrecision
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils import clip_grad_norm_, clip_grad_value_

from tests.tolaria.lightning.models import (
    MLP,
    SITE,
    ConvNet,
    assert_same_run,
    esper,
    fit,
    stages,
)

LIMIT = 0.05
TWO = ((1, SITE, "bottleneck_mlp"), (1, "head", "low_rank"))
Grads = dict[str, Tensor]


class ByHand(MLP):
    """Clips its own steps, through Lightning."""

    algorithm = "norm"

    def __init__(self) -> None:
        super().__init__("sgd")
        self.automatic_optimization = False

    def training_step(self, batch: Any, batch_idx: int) -> None:
        inputs, labels = batch
        optimizer = self.optimizers()
        optimizer.zero_grad()
        self.manual_backward(functional.cross_entropy(self(inputs), labels))
        self.raw = _gradients(self)
        self.clip_gradients(
            optimizer, gradient_clip_val=LIMIT, gradient_clip_algorithm=self.algorithm
        )
        optimizer.step()


class ByHandValue(ByHand):
    algorithm = "value"


class Own(MLP):
    """Has a rule of its own, which ends in Lightning's."""

    def configure_gradient_clipping(
        self, optimizer: Any, gradient_clip_val: Any = None, gradient_clip_algorithm: Any = None
    ) -> None:
        self.clip_gradients(optimizer, LIMIT, "norm")


class Watch(pl.Callback):
    """Keeps gradients as they were before and after clipping, of steps in which seeds have some."""

    def __init__(self) -> None:
        self.steps: list[tuple[nn.Module, Grads, Grads]] = []
        self._raw: Grads = {}

    def on_before_optimizer_step(self, trainer: Any, pl_module: Any, optimizer: Any) -> None:
        self._raw = _gradients(pl_module)

    def on_train_batch_end(self, trainer: Any, pl_module: Any, *_: Any) -> None:
        raw = getattr(pl_module, "raw", self._raw)
        if any("esper" in name for name in raw):
            self.steps.append((pl_module, raw, _gradients(pl_module)))
        self._raw = {}


def _gradients(model: nn.Module) -> Grads:
    named = model.named_parameters()
    return {name: p.grad.clone() for name, p in named if p.grad is not None}


def _clipped(gradients: list[Tensor], algorithm: str) -> list[Tensor]:
    """What torch itself makes of a list of gradients."""
    parameters = [nn.Parameter(torch.zeros_like(gradient)) for gradient in gradients]
    for parameter, gradient in zip(parameters, gradients, strict=True):
        parameter.grad = gradient.clone()
    clip = clip_grad_norm_ if algorithm == "norm" else clip_grad_value_
    clip(parameters, LIMIT)
    return [parameter.grad for parameter in parameters if parameter.grad is not None]


def _parts(names: list[str]) -> list[list[str]]:
    """The host's names, then those of every seed."""
    host = [name for name in names if ".esper." not in name]
    seeds: dict[str, list[str]] = {}
    for name in (n for n in names if ".esper." in n):
        seeds.setdefault(name.split(".body.")[0], []).append(name)
    return [host, *seeds.values()]


SCALED = MixedPrecision("16-mixed", "cpu", torch.amp.GradScaler("cpu", init_scale=64.0))
RUNS: dict[str, tuple[Any, str, dict[str, Any]]] = {
    "norm": (partial(MLP, "sgd"), "norm", {"gradient_clip_val": LIMIT}),
    "value": (
        partial(MLP, "sgd"),
        "value",
        {"gradient_clip_val": LIMIT, "gradient_clip_algorithm": "value"},
    ),
    "accumulating": (MLP, "norm", {"gradient_clip_val": LIMIT, "accumulate_grad_batches": 4}),
    "own rule": (Own, "norm", {}),
    "by hand": (ByHand, "norm", {}),
    "by hand, by value": (ByHandValue, "value", {}),
    "scaled": (partial(MLP, "sgd"), "norm", {"gradient_clip_val": LIMIT, "plugins": [SCALED]}),
}


@pytest.mark.parametrize("name", RUNS)
def test_host_and_seeds_are_clipped_apart(tmp_path: Path, name: str) -> None:
    """In every step with two seeds at work the host's gradients are clipped, bit for bit, as if
    theirs were not there, and each seed's by themselves; then the plugin is as it was."""
    build, algorithm, options = RUNS[name]
    callback = esper(tmp_path / "run", schedule=TWO, veto=False)
    watch = Watch()
    trainer, _ = fit(build, [watch, callback], max_epochs=3, **options)
    assert len(watch.steps) >= 2
    changed = [0, 0, 0]
    for _, raw, clipped in watch.steps:
        parts = _parts(list(raw))
        assert len(parts) == 3
        for part, names in enumerate(parts):
            expected = _clipped([raw[n] for n in names], algorithm)
            found = [clipped[n] for n in names]
            assert all(map(torch.equal, found, expected)), names
            changed[part] += not all(torch.equal(raw[n], clipped[n]) for n in names)
    assert changed[0] > 0, "the limit is one that the host meets"
    assert changed[1] + changed[2] > 0, "and so do seeds"
    assert "clip_gradients" not in vars(trainer.precision_plugin)


@pytest.mark.parametrize("name", ["norm", "by hand"])
def test_growth_that_is_off_clips_as_ever(tmp_path: Path, name: str) -> None:
    """With policy='hold' a clipped run is that without Esper, bit for bit."""
    build, _, options = RUNS[name]
    assert_same_run(fit(build, **options), fit(build, [esper(tmp_path / "run")], **options))


def test_a_scaled_run_grows_between_whole_steps(tmp_path: Path) -> None:
    """With a GradScaler and accumulation every boundary falls between an optimizer step and the
    next forward: no gradient is pending, nothing is unscaled, and every weight stays finite."""
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**15, growth_interval=3)
    plugin = MixedPrecision("16-mixed", "cpu", scaler)
    callback = esper(tmp_path / "run", schedule=TWO, veto=False)
    pending: list[bool] = []

    class AtBoundary(pl.Callback):
        def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
            pending.append(trainer.fit_loop._should_accumulate())
            pending.append(bool(scaler._per_optimizer_states))

    options = {"plugins": [plugin], "accumulate_grad_batches": 4, "gradient_clip_val": LIMIT}
    _, model = fit(ConvNet, [AtBoundary(), callback], max_epochs=7, **options)
    assert pending == [False] * 14
    assert set(stages(callback).values()) == {"FOSSILIZED"}
    assert all(bool(torch.isfinite(value).all()) for value in model.state_dict().values())
    assert callback.report()["faults"] == []
