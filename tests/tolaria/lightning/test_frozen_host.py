"""A pretrained host that takes no gradient: its seeds are adapters, and travel without it."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pytest
from torch import Tensor
from torch.utils.data import TensorDataset

import kasmina
from kasmina.slots.slot import attached_seeds
from leyline import ExportError
from tests.tolaria.lightning.models import (
    MLP,
    PLANT,
    SITE,
    Losses,
    assert_same_tensors,
    esper,
    fit,
    held_out_loader,
    quiet_trainer,
    stages,
    tabular,
    weights,
)

pytestmark = pytest.mark.filterwarnings("ignore:.*all frozen.*:UserWarning")


class Frozen(MLP):
    """All parameters are in the optimizer, and none of them takes a gradient."""

    def __init__(self) -> None:
        super().__init__()
        self.requires_grad_(False)


class Pretrained(Frozen):
    """With enough data that adapters of it hold on other data too."""

    @staticmethod
    def data(length: int, rng_seed: int) -> TensorDataset:
        return tabular(5 * length, rng_seed)


def host_of(model: pl.LightningModule) -> dict[str, Tensor]:
    return {name: value for name, value in weights(model).items() if ".esper." not in name}


def val_loss(model: pl.LightningModule) -> float:
    trainer = quiet_trainer()
    (metrics,) = trainer.validate(model, held_out_loader(model), verbose=False)
    return metrics["val_loss"]


def test_a_frozen_host_grows_adapters(tmp_path: Path) -> None:
    """By schedule, under the Trainer: the epochs before the graft pass without a graph, the seed
    is grafted and learns, the held-out loss falls, and every bit of the host stays; the seeds
    alone put the same network on a fresh host."""
    plan = ((1, SITE, "bottleneck_mlp"), (1, "head", "low_rank"))
    callback, losses = esper(tmp_path / "run", schedule=plan, veto=False), Losses()
    _, model = fit(Pretrained, [callback, losses], max_epochs=8)
    host = {name: value for name, value in losses.weights[0].items() if ".esper." not in name}
    assert set(stages(callback).values()) == {"FOSSILIZED"}
    assert_same_tensors(host_of(model), host)
    assert not any(p.requires_grad for n, p in model.named_parameters() if ".esper." not in n)
    bare = kasmina.detach(copy.deepcopy(model))
    assert val_loss(model) < val_loss(bare) - 0.02

    file = tmp_path / "adapters.safetensors"
    kasmina.save_seeds(model, file)
    fresh = Pretrained()
    fresh.load_state_dict(host)
    kasmina.load(fresh, file)
    assert_same_tensors(weights(fresh), weights(model))


def test_a_race_places_adapters_where_they_are_worth_most(tmp_path: Path) -> None:
    """The heuristic races on a frozen host as on any other: candidates have gains."""
    # By name, for other tests register blueprints that are meant to fail.
    kinds = ("low_rank", "bottleneck_mlp", "norm")
    settings = {"trial_steps": (4, 8), "blueprints": kinds}
    callback = esper(tmp_path / "run", policy="heuristic", **settings)
    fit(Frozen, [callback], max_epochs=6)
    scores = [s for d in callback.report()["decisions"] for s in d["scores"]]
    assert {score["site"] for score in scores} == {"net", SITE, "head"}
    assert any(score["gain"] is not None and score["gain"] > 0 for score in scores)
    assert callback.report()["faults"] == []


class Detached(MLP):
    """A mistake of the user's: the loss has lost its graph although the model trains."""

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        return super().training_step(batch, batch_idx).detach()


def test_other_losses_without_a_graph_still_fail(tmp_path: Path) -> None:
    """Only a wholly frozen model that may grow is let through; a lost graph is torch's error."""
    for build, settings in ((Detached, {"schedule": PLANT}), (Frozen, {"policy": "hold"})):
        with pytest.raises(RuntimeError, match="does not require grad"):
            fit(build, [esper(tmp_path / build.__name__, **settings)], max_epochs=1)


def test_a_model_without_seeds_has_none_to_save(tmp_path: Path) -> None:
    """Said by name, as is a file of another kind."""
    with pytest.raises(ExportError, match="Frozen carries no seeds"):
        kasmina.save_seeds(Frozen(), tmp_path / "adapters.safetensors")
    with pytest.raises(ExportError, match=r"'\.pt'; choose \.safetensors"):
        kasmina.save_seeds(Frozen(), tmp_path / "adapters.pt")


def test_seeds_of_a_frozen_host_are_all_that_trains(tmp_path: Path) -> None:
    """In FINE_TUNING the seed's parameters take gradients and the host's do not."""
    callback = esper(tmp_path / "run", schedule=PLANT, veto=False)
    _, model = fit(Frozen, [callback], max_epochs=5)
    assert stages(callback) == {f"{SITE}/0": "FINE_TUNING"}
    seed = attached_seeds(model)[f"{SITE}/0"][2]
    assert all(parameter.requires_grad for parameter in seed.parameters())
    trained = {id(p) for p in model.parameters() if p.requires_grad}
    assert trained == {id(p) for p in seed.parameters()}
