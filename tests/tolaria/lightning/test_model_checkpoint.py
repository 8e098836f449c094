"""Lightning's ModelCheckpoint beside growth: when it saves, what is best, and loading it again."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import nn

import kasmina
import tolaria
from kasmina.slots.slot import attached_seeds
from leyline import CheckpointError, Fault
from tests.tolaria.lightning.models import (
    MLP,
    NUM_CLASSES,
    NUM_FEATURES,
    SITE,
    STEPS_PER_EPOCH,
    Classifier,
    assert_same_run,
    assert_same_tensors,
    esper,
    fit,
    held_out_loader,
    listen,
    stages,
    weights,
)

# Lightning warns of the directory that a resumed run goes on in.
pytestmark = pytest.mark.filterwarnings("ignore:Checkpoint directory .* exists:UserWarning")

SEED = f"{SITE}/0"
PLANT = ((2, SITE, "bottleneck_mlp"),)
"""TRAINING in epoch 3, GRAFTING in 4, FOSSILIZED at the end of 7."""


def _saver(folder: Path, **options: Any) -> ModelCheckpoint:
    return ModelCheckpoint(folder, filename="{epoch}-{step}", save_top_k=-1, **options)


WITHIN: dict[str, dict[str, Any]] = {
    "after validation": {"save_on_train_epoch_end": False},
    "every epoch's steps": {"every_n_train_steps": STEPS_PER_EPOCH},
}


@pytest.mark.parametrize("kind", WITHIN)
@pytest.mark.parametrize("epoch", [1, 4])
def test_a_checkpoint_from_before_its_boundary_misses_none(
    tmp_path: Path, kind: str, epoch: int
) -> None:
    """Saved after an epoch's last step but before its boundary, a .ckpt says that it is not exact;
    the run that goes on from it passes that boundary and every later one, once, and grows."""
    first = esper(tmp_path / "first", schedule=PLANT, veto=False)
    fit(MLP, [first, _saver(tmp_path, **WITHIN[kind])], max_epochs=epoch)
    second = esper(tmp_path / "second", schedule=PLANT, veto=False)
    events = listen(second)
    (path,) = tmp_path.glob(f"epoch={epoch - 1}-step={epoch * STEPS_PER_EPOCH}.ckpt")
    keep = _saver(tmp_path, **WITHIN[kind])
    trainer, _ = fit(MLP, [second, keep], max_epochs=8, ckpt_path=path)
    passed = [boundary["epoch"] for boundary in second.report()["boundaries"]]
    assert passed == list(range(epoch, 9))
    assert second.orchestrator.step == trainer.global_step == 8 * STEPS_PER_EPOCH
    assert stages(second) == {SEED: "FOSSILIZED"}
    (fault,) = [event for event in events if isinstance(event, Fault)]
    assert "from within an epoch" in fault.what


def test_the_last_of_a_monitored_run_goes_on_bit_identical(tmp_path: Path) -> None:
    """`save_last` beside a monitor saves after the boundary: resumed, it ends as if never left."""

    def run(name: str, num_epochs: int, **options: Any) -> Any:
        callback = esper(tmp_path / name, schedule=PLANT, veto=False)
        keep = ModelCheckpoint(tmp_path / "kept", monitor="val_loss", save_last=True)
        return fit(MLP, [keep, callback], max_epochs=num_epochs, **options), callback

    whole, _ = run("whole", 6)
    run("first", 4)
    (last,) = sorted((tmp_path / "kept").glob("last*.ckpt"), key=lambda p: p.stat().st_mtime_ns)[
        -1:
    ]
    resumed, callback = run("resumed", 6, ckpt_path=last, rng_seed=7)
    assert_same_run(whole, resumed)
    assert callback.report()["faults"] == []


class Sized(Classifier):
    """Its layers depend on an argument that the checkpoint remembers."""

    def __init__(self, width: int, best_epoch: int = 0):
        super().__init__()
        self.save_hyperparameters()
        self.net = nn.Sequential(nn.Linear(NUM_FEATURES, width), nn.ReLU())
        self.head = nn.Linear(width, NUM_CLASSES)

    def on_validation_epoch_end(self) -> None:
        best = self.current_epoch == self.hparams["best_epoch"]
        self.log("score", float(best))


class SilentInEval(nn.Module):
    """Worth nothing on held-out data, so its counterfactual culls it."""

    def __init__(self, shape: Any):
        super().__init__()
        self.mix = nn.Linear(shape.channels, shape.channels)
        nn.init.zeros_(self.mix.weight)

    def forward(self, host: torch.Tensor) -> torch.Tensor:
        grown: torch.Tensor = self.mix(host)
        return grown if self.training else torch.zeros_like(grown)


kasmina.register("never_worth_it", SilentInEval)


@pytest.mark.parametrize(
    ("best_epoch", "num_epochs", "held", "live"),
    [(0, 5, 0, 1), (3, 7, 1, 0)],
    ids=["fewer seeds", "more seeds"],
)
def test_the_best_checkpoint_can_be_tested(
    tmp_path: Path, best_epoch: int, num_epochs: int, held: int, live: int
) -> None:
    """`test(ckpt_path="best")` gives the best epoch's very weights, with fewer or more seeds than
    the model ended with."""
    schedule = ((2, SITE, "bottleneck_mlp" if live else "never_worth_it"),)
    at_end: list[Any] = []

    class Keep(tolaria.EsperCallback):
        def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
            super().on_train_epoch_end(trainer, pl_module)
            at_end.append(weights(pl_module))

    callback = esper(tmp_path / "run", schedule=schedule)
    callback.__class__ = Keep
    keep = ModelCheckpoint(tmp_path / "kept", monitor="score", mode="max")
    trainer, model = fit(lambda: Sized(8, best_epoch), [callback, keep], max_epochs=num_epochs)
    assert len(attached_seeds(model)) == live
    loader = held_out_loader(model)
    (first,) = trainer.test(model, loader, ckpt_path="best", verbose=False)
    assert len(attached_seeds(model)) == held
    assert_same_tensors(at_end[best_epoch], weights(model))
    assert trainer.test(model, loader, verbose=False) == [first]


def test_a_grown_checkpoint_is_loaded_in_one_line(tmp_path: Path) -> None:
    """`tolaria.load_from_checkpoint` builds the class from its saved arguments, grown, with the
    same weights and outputs; Lightning's own call refuses the file and names what is too many."""
    callback = esper(tmp_path / "run", schedule=PLANT, veto=False)
    _, model = fit(lambda: Sized(5), [callback, _saver(tmp_path)], max_epochs=5)
    (path,) = tmp_path.glob("epoch=4-*.ckpt")
    loaded = tolaria.load_from_checkpoint(Sized, path)
    assert type(loaded) is Sized
    assert loaded.hparams["width"] == 5
    assert_same_tensors(weights(model), weights(loaded))
    inputs = torch.randn(4, NUM_FEATURES)
    assert torch.equal(model.eval()(inputs), loaded.eval()(inputs))
    with pytest.raises(RuntimeError, match=r"Unexpected key.*net\.0\.esper"):
        Sized.load_from_checkpoint(path)


def test_a_directory_is_not_loaded_in_one_line(tmp_path: Path) -> None:
    """The error says which checkpoints are taken, and where a directory may be given."""
    with pytest.raises(CheckpointError, match=r"is a directory.*takes .*\.ckpt.*as ckpt_path"):
        tolaria.load_from_checkpoint(Sized, tmp_path)


@pytest.mark.parametrize("epoch", [1, 4])
def test_whatever_was_saved_is_loaded(tmp_path: Path, epoch: int) -> None:
    """Ungrown checkpoints load as ever; one that does not fit the class is refused."""
    callback = esper(tmp_path / "run", schedule=PLANT, veto=False)
    fit(lambda: Sized(5), [callback, _saver(tmp_path)], max_epochs=epoch)
    (path,) = tmp_path.glob(f"epoch={epoch - 1}-*.ckpt")
    loaded = tolaria.load_from_checkpoint(Sized, path, best_epoch=3)
    assert loaded.hparams["best_epoch"] == 3
    assert len(attached_seeds(loaded)) == int(epoch == 4)
    refusal: Callable[..., Any] = tolaria.load_from_checkpoint
    expected = CheckpointError if epoch == 4 else RuntimeError
    with pytest.raises(expected, match=r"5 channels|size mismatch"):
        refusal(Sized, path, width=6)
