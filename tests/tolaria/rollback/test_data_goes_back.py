"""Where the training loader is Esper's own, the data go back with the run."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from leyline import Fault
from tests.tolaria.lightning.models import (
    MLP,
    PLANT,
    SITE,
    esper,
    held_out_loader,
    listen,
    quiet_trainer,
    seed_streams,
    stages,
)
from tolaria.data import TrainLoader
from tolaria.data.splits import Examples

# Lightning 2.6 asks torch 2.13 in a way that torch deprecates; nothing of ours can change it.
pytestmark = pytest.mark.filterwarnings("ignore:.*LeafSpec:FutureWarning")
NUM_BATCHES = 6


def loader_of_numbers() -> TrainLoader:
    examples = Examples(torch.arange(float(4 * NUM_BATCHES)), torch.arange(4 * NUM_BATCHES))
    return TrainLoader(examples, 4, rng_seed=1)


def epochs_of(loader: TrainLoader, first: int, last: int) -> list[list[int]]:
    """The labels of every batch of these epochs (0-based), as a trainer goes through them."""
    batches = []
    for epoch in range(first, last + 1):
        loader.sampler.set_epoch(epoch)
        batches += [labels.tolist() for _, labels in loader]
    return batches


@pytest.mark.parametrize("num_lost", [1, 2, 6, 8])
def test_the_same_batches_come_again_and_all_later_ones_so_much_later(num_lost: int) -> None:
    """From within an epoch, also into the one before: none is left out, none comes twice more."""
    plain = epochs_of(loader_of_numbers(), 0, 4)
    loader = loader_of_numbers()
    epochs_of(loader, 0, 0)
    loader.sampler.set_epoch(1)
    seen = []
    for number, (_, labels) in enumerate(loader):
        seen.append(labels.tolist())
        if number == 2:
            loader.go_back(loader.next_batch - num_lost)
    assert len(seen) == NUM_BATCHES
    after = seen[3:] + epochs_of(loader, 2, 3)
    assert after == plain[9 - num_lost :][: len(after)]


def test_going_back_twice_goes_back_by_both() -> None:
    """What was lost in all is what the data lag behind."""
    plain, loader = epochs_of(loader_of_numbers(), 0, 2), loader_of_numbers()
    epochs_of(loader, 0, 0)
    for first in (4, 7):
        loader.go_back(first)
        assert loader.next_batch == first
        assert epochs_of(loader, 1 + first // 7, 1 + first // 7) == plain[first:][:NUM_BATCHES]


def test_a_loader_that_went_back_goes_on_alike_after_a_resume() -> None:
    """From its saved state, within an epoch or at its end."""
    loader = loader_of_numbers()
    epochs_of(loader, 0, 1)
    loader.go_back(3)
    at_end = loader.state_dict()
    loader.sampler.set_epoch(2)
    batches = iter(loader)
    next(batches)
    within = loader.state_dict()
    rest = [labels.tolist() for _, labels in batches]
    for state, num_left in ((at_end, NUM_BATCHES), (within, NUM_BATCHES - 1)):
        again = loader_of_numbers()
        again.load_state_dict(state)
        resumed = epochs_of(again, 2, 2)
        assert len(resumed) == num_left
        assert resumed[-len(rest) :] == rest


class _Breaks(MLP):
    """Its loss is NaN in one step, counted from 1; it remembers the batches that it was given."""

    def __init__(self, step: int):
        super().__init__()
        self.bad_step, self.seen = step, []

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        self.seen.append(batch[1].tolist())
        loss = super().training_step(batch, batch_idx)
        return loss * math.nan if len(self.seen) == self.bad_step else loss


def seen_by(bad_step: int, run_dir: Path, **settings: Any) -> tuple[_Breaks, Any, list[Any]]:
    seed_streams(3)
    model, callback = _Breaks(bad_step), esper(run_dir, **settings)
    events = listen(callback)
    inputs, labels = model.data(8 * NUM_BATCHES, 1).tensors
    loader = TrainLoader(Examples(inputs, labels), 8, rng_seed=1)
    quiet_trainer(max_epochs=5, callbacks=[callback]).fit(model, loader, held_out_loader(model))
    return model, callback, [e for e in events if isinstance(e, Fault)]


def test_once_the_seed_is_out_its_batches_are_trained_on_again(tmp_path: Path) -> None:
    """A graft breaks an epoch later, in the middle of one: the batch after that is the first one
    after the graft, and from there on they are those that followed the first time."""
    whole, _, _ = seen_by(0, tmp_path / "whole", schedule=PLANT)
    bad_step = 3 * NUM_BATCHES + 2
    broken, callback, (fault,) = seen_by(bad_step, tmp_path / "run", schedule=PLANT)
    assert stages(callback) == {f"{SITE}/0": "ROLLED_BACK"}
    assert "1 epoch, 8 steps lost" in fault.action
    assert len(broken.seen) == len(whole.seen)
    assert broken.seen[:bad_step] == whole.seen[:bad_step]
    assert broken.seen[bad_step:] == whole.seen[bad_step - 8 :][: len(broken.seen) - bad_step]


def test_with_nobody_to_blame_the_batches_are_skipped(tmp_path: Path) -> None:
    """The same ones would break the same run again: training goes on with the next."""
    whole, _, _ = seen_by(0, tmp_path / "whole")
    broken, _, (fault,) = seen_by(2 * NUM_BATCHES + 2, tmp_path / "run")
    assert "2 steps lost; taken out: no seed to blame" in fault.action
    assert broken.seen == whole.seen
