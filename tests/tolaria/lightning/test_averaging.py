"""Averaged weights beside growth: every average follows the model by name, not by position."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import lightning.pytorch as pl
import pytest
import torch
from lightning.pytorch.callbacks import EMAWeightAveraging, ModelCheckpoint, WeightAveraging
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_avg_fn

from kasmina.slots.slot import attached_seeds
from tests.tolaria.lightning.models import (
    MLP,
    PLANT,
    SITE,
    AtEpochEnd,
    ConvNet,
    assert_same_run,
    assert_same_tensors,
    esper,
    fit,
    held_out_loader,
    quiet_trainer,
    stages,
    weights,
)
from tolaria.lightning.averaging import follow_growth

pytestmark = pytest.mark.filterwarnings("ignore:Checkpoint directory .* exists:UserWarning")

SEED = f"{SITE}/0"
TWO = ((1, "head", "low_rank"), (2, SITE, "bottleneck_mlp"))
DECAY = 0.9


class ByName(pl.Callback):
    """The same average kept by hand, by name; what is new starts as it is."""

    def __init__(self) -> None:
        self.average: dict[str, Tensor] = {}
        self.num_grown = 0

    def on_train_batch_end(self, trainer: Any, pl_module: nn.Module, *_: Any) -> None:
        update = get_ema_avg_fn(DECAY)
        live = _moving(pl_module)
        first = trainer.global_step == 1
        self.average = {
            name: value if first or name not in self.average else update(kept, value, 1)
            for name, value in live.items()
            if (kept := self.average.get(name, value)) is not None
        }

    def on_train_epoch_end(self, trainer: Any, pl_module: nn.Module) -> None:
        # A boundary has just passed: what it has blended in is an average of itself so far.
        live = _moving(pl_module)
        self.num_grown += len(live.keys() - self.average.keys())
        self.average = {name: self.average.get(name, value) for name, value in live.items()}


def _moving(model: nn.Module) -> dict[str, Tensor]:
    """What an average is made of: all but the alphas, and counts of batches."""
    tensors = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    return {
        name: tensor.detach().clone()
        for name, tensor in tensors.items()
        if tensor.is_floating_point() and not name.endswith(".alpha")
    }


def averages(callback: WeightAveraging) -> dict[str, Tensor]:
    assert callback._average_model is not None
    return weights(callback._average_model.module)


@pytest.mark.parametrize("first", ["esper", "average"])
def test_an_average_follows_growth_by_name(tmp_path: Path, first: str) -> None:
    """Through graft and fossilization of seeds at two sites, the average of every parameter and
    buffer is the one kept by hand, by name, and alphas are the live ones, also while the average is
    validated; in either order."""
    callback = esper(tmp_path / "run", schedule=TWO, veto=False)
    ema, by_hand = EMAWeightAveraging(decay=DECAY), ByName()
    compared: list[int] = []

    def compare(trainer: Any, model: nn.Module) -> None:
        found = averages(ema)
        assert list(found) == list(model.state_dict())
        for name, value in by_hand.average.items():
            torch.testing.assert_close(found[name], value, rtol=1e-5, atol=1e-6)
        for name, value in weights(model).items():
            if name.endswith((".alpha", "_extra_state")):
                assert torch.equal(found[name], value), name
        compared.append(len(found))

    class InValidation(pl.Callback):
        alphas: ClassVar[list[tuple[float, float]]] = []

        def on_validation_batch_start(self, trainer: Any, pl_module: Any, *_: Any) -> None:
            table = callback.orchestrator.executor.table
            for name, (_, _, seed) in attached_seeds(pl_module).items():
                self.alphas.append((float(seed.alpha), table.get(name, "alpha")))

    order = [callback, ema] if first == "esper" else [ema, callback]
    beside = [by_hand, AtEpochEnd(compare), in_validation := InValidation()]
    # The average is swapped in on_train_end; by then everything has been compared.
    _, model = fit(ConvNet, [*order, *beside], max_epochs=7)
    assert in_validation.alphas
    assert all(mine == tabled == 1.0 for mine, tabled in in_validation.alphas)
    assert by_hand.num_grown > 0
    assert len(compared) == 7
    assert compared[0] < compared[-1]
    assert set(stages(callback).values()) == {"FOSSILIZED"}
    seeds = [seed for _, _, seed in attached_seeds(model).values()]
    assert [(float(seed.alpha), seed.active) for seed in seeds] == [(1.0, True)] * 2
    assert_same_tensors(weights(model), averages(ema))


@pytest.mark.parametrize("first", ["esper", "average"])
def test_an_average_that_comes_first_is_warned_of(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, first: str
) -> None:
    """Listed first, it is swapped in before Esper's last checkpoint, which the log says; else
    nothing is said."""
    order: list[pl.Callback] = [esper(tmp_path / "run"), EMAWeightAveraging(decay=DECAY)]
    fit(MLP, order if first == "esper" else order[::-1], max_epochs=1)
    said = [r.getMessage() for r in caplog.records if "is listed before" in r.getMessage()]
    assert len(said) == (first == "average")
    for line in said:
        assert line.startswith("EMAWeightAveraging is listed before EsperCallback")
        assert line.endswith("list EsperCallback first")


def test_an_average_loses_a_seed_that_is_rolled_back(tmp_path: Path) -> None:
    """A seed taken out within an epoch is out of the average before the next validation."""

    class Breaks(MLP):
        def training_step(self, batch: Any, batch_idx: int) -> Any:
            loss = super().training_step(batch, batch_idx)
            grown = bool(attached_seeds(self)) and batch_idx == 4
            return loss * torch.nan if grown else loss

    callback = esper(tmp_path / "run", schedule=PLANT)
    ema = EMAWeightAveraging(decay=DECAY)
    fit(Breaks, [ema, callback], max_epochs=5, val_check_interval=0.5)
    assert stages(callback) == {SEED: "ROLLED_BACK"}
    assert list(averages(ema)) == list(MLP().state_dict())
    assert all(bool(torch.isfinite(value).all()) for value in averages(ema).values())


@pytest.mark.parametrize("first", ["esper", "average"])
def test_growth_that_is_off_changes_no_average(tmp_path: Path, first: str) -> None:
    """With policy='hold' a run that averages, and its average, are those without Esper."""
    plain = fit(ConvNet, [alone := EMAWeightAveraging(decay=DECAY)])
    callback, ema = esper(tmp_path / "run"), EMAWeightAveraging(decay=DECAY)
    order = [callback, ema] if first == "esper" else [ema, callback]
    assert_same_run(plain, fit(ConvNet, order))
    assert_same_tensors(averages(alone), averages(ema))


@pytest.mark.parametrize("first", ["esper", "average"])
def test_a_resumed_average_goes_on_bit_identical(tmp_path: Path, first: str) -> None:
    """From a .ckpt of a grown epoch, weights and averages end as in the run that never stopped."""

    def run(name: str, **options: Any) -> tuple[Any, EMAWeightAveraging]:
        callback = esper(tmp_path / name, schedule=TWO, veto=False)
        ema = EMAWeightAveraging(decay=DECAY)
        keep = ModelCheckpoint(tmp_path, filename="{epoch}", save_top_k=-1)
        order = [callback, ema] if first == "esper" else [ema, callback]
        return fit(partial(MLP, "sgd"), [*order, keep], max_epochs=6, **options), ema

    whole, average = run("whole")
    resumed, again = run("resumed", ckpt_path=tmp_path / "epoch=3.ckpt", rng_seed=7)
    assert_same_run(whole, resumed)
    assert_same_tensors(averages(average), averages(again))


def test_the_saved_average_of_a_grown_model_can_be_tested(tmp_path: Path) -> None:
    """`test(ckpt_path=...)` of a .ckpt saved beside an average gives what the average gives, with
    its seeds blended in."""
    callback = esper(tmp_path / "run", schedule=PLANT, veto=False)
    ema = EMAWeightAveraging(decay=DECAY, update_every_n_steps=5)
    options: dict[str, Any] = {"save_top_k": -1, "save_on_train_epoch_end": False}
    keep = ModelCheckpoint(tmp_path, filename="{epoch}", **options)
    kept: list[Any] = []

    class KeepAverage(pl.Callback):
        def on_validation_end(self, *_: Any) -> None:
            kept.append(averages(ema))

    # Epoch 2 is that of the graft: its seed comes at alpha 0 and is at 1 when this is saved.
    fit(MLP, [callback, ema, KeepAverage(), keep], max_epochs=3)
    fresh = MLP()
    other = quiet_trainer(callbacks=[esper(tmp_path / "none")])
    path = tmp_path / "epoch=2.ckpt"
    with pytest.warns(UserWarning, match="callbacks used to create the checkpoint"):
        other.test(fresh, held_out_loader(fresh), ckpt_path=path, verbose=False)
    assert_same_tensors(kept[2], weights(fresh))
    (seed,) = [seed for _, _, seed in attached_seeds(fresh).values()]
    assert seed.active
    assert float(seed.alpha) == 1.0


def test_an_average_of_ones_own_follows_growth(tmp_path: Path) -> None:
    """`follow_growth` gives an AveragedModel held by hand the live seeds and keeps its averages."""
    mine: list[AveragedModel] = []

    def follow(trainer: Any, model: nn.Module) -> None:
        if not mine:
            mine.append(AveragedModel(model, avg_fn=get_ema_avg_fn(DECAY), use_buffers=True))
        before = weights(mine[0].module)
        follow_growth(mine[0].module, model)
        after = weights(mine[0].module)
        assert list(after) == list(model.state_dict())
        moving = {name for name in before if not name.endswith(("alpha", "_extra_state"))}
        assert_same_tensors(*({n: t[n] for n in sorted(moving)} for t in (before, after)))
        mine[0].update_parameters(model)

    callback = esper(tmp_path / "run", schedule=PLANT, veto=False)
    fit(MLP, [callback, AtEpochEnd(follow)], max_epochs=4)
    assert len(attached_seeds(mine[0].module)) == 1
