"""The built-in tasks: fixed splits, batches that replay exactly, hosts with room to grow."""

from __future__ import annotations

import logging

import lightning as L
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from leyline import ConfigError
from tolaria import data
from tolaria.data.loader import EpochSampler

NUM_EPOCHS = 5

# Lightning 2.6 asks torch 2.13 in a way that torch deprecates; nothing of ours can change it.
pytestmark = pytest.mark.filterwarnings("ignore:.*LeafSpec:FutureWarning")


class SeenBatches(L.Callback):
    """Remembers the training inputs as they were handed out."""

    def __init__(self):
        self.by_epoch = {}

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        self.by_epoch.setdefault(trainer.current_epoch, []).append(batch[0].clone())


class SaveCheckpoints(L.Callback):
    """Saves at the given steps, and at the end of the given epoch after its validation."""

    def __init__(self, directory, steps, epoch):
        self.directory, self.steps, self.epoch = directory, steps, epoch

    def on_train_batch_end(self, trainer, *_):
        if trainer.global_step in self.steps:
            trainer.save_checkpoint(self.directory / f"step-{trainer.global_step}.ckpt")

    def on_train_epoch_end(self, trainer, pl_module):
        if trainer.current_epoch == self.epoch:
            trainer.save_checkpoint(self.directory / "epoch-end.ckpt")


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """Nets this small lose time to a second thread, and lose much when it has to wait."""
    num_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(num_threads)


def fit(task, *callbacks, num_epochs=NUM_EPOCHS, ckpt_path=None):
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    trainer = L.Trainer(
        max_epochs=num_epochs,
        accelerator="cpu",
        callbacks=list(callbacks),
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(task.module, task.data, ckpt_path=ckpt_path)
    return trainer


def same(ours, theirs):
    return len(ours) == len(theirs) and all(map(torch.equal, ours, theirs))


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """A whole run: its task, the batches it saw and checkpoints of its 3rd and 4th epoch."""
    seen, task = SeenBatches(), data.load("digits", num_epochs=NUM_EPOCHS)
    directory = tmp_path_factory.mktemp("checkpoints")
    fit(task, seen, SaveCheckpoints(directory, steps={111, 112, 131, 147}, epoch=2))
    return task, seen.by_epoch, directory


@pytest.mark.parametrize(
    ("name", "sizes", "shape"),
    [("digits", (1_197, 300, 300), (1, 8, 8)), ("mnist1d", (3_400, 600, 1_000), (1, 40))],
)
def test_splits_are_fixed(name, sizes, shape):
    """The splits have the stated sizes, hold all ten classes and no two share an example."""
    splits = data.load(name, rng_seed=1).data.splits
    other = data.load(name, rng_seed=2).data.splits
    parts = (splits.train, splits.val, splits.test)
    seen = [{row.numpy().tobytes() for row in part.inputs} for part in parts]
    for part, size in zip(parts, sizes, strict=True):
        assert part.inputs.shape == (size, *shape)
        assert part.inputs.dtype == torch.float32
        assert torch.equal(part.labels.unique(), torch.arange(10))
    assert len(set.union(*seen)) == sum(sizes)
    assert torch.equal(splits.train.inputs, other.train.inputs)
    assert torch.equal(splits.test.labels, other.test.labels)


def test_digits_are_scaled_to_the_unit_interval():
    """Pixels run from exactly 0 to exactly 1."""
    inputs = data.load("digits").data.splits.train.inputs
    assert (inputs.min(), inputs.max()) == (0, 1)


def test_mnist1d_has_unit_variance():
    """The quantised signals keep the mean 0 and the deviation 1 of the source."""
    inputs = data.load("mnist1d").data.splits.train.inputs
    assert abs(inputs.mean()) < 0.02
    assert abs(inputs.std() - 1) < 0.02


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**63), st.integers(0, 10_000), st.integers(1, 300))
def test_order_is_a_pure_function(rng_seed, epoch, num_examples):
    """Whatever came before, (rng_seed, epoch) gives one permutation of all examples."""
    used, fresh = EpochSampler(num_examples, rng_seed), EpochSampler(num_examples, rng_seed)
    used.set_epoch(epoch + 1)
    used.order()
    used.set_epoch(epoch)
    fresh.set_epoch(epoch)
    assert torch.equal(used.order(), fresh.order())
    assert torch.equal(used.order().sort().values, torch.arange(num_examples))


def test_rng_seed_chooses_the_order():
    """Two rng_seeds, and two epochs of one, give different orders."""
    sampler, first = EpochSampler(100, 0), EpochSampler(100, 0).order()
    sampler.set_epoch(1)
    assert not torch.equal(first, sampler.order())
    assert not torch.equal(first, EpochSampler(100, 1).order())


def test_batches_pair_inputs_with_their_labels():
    """An epoch of training batches is full, without repeats, and keeps each input's label."""
    examples = data.Examples(torch.arange(100.0).unsqueeze(1), torch.arange(100))
    batches = list(data.TrainLoader(examples, 32, rng_seed=3))
    assert [len(labels) for _, labels in batches] == [32, 32, 32]
    labels = torch.cat([labels for _, labels in batches])
    assert torch.equal(torch.cat([inputs for inputs, _ in batches]).squeeze(1), labels.float())
    assert len(labels.unique()) == 96


def test_eval_batches_cover_the_split_in_order():
    """An evaluation sees every example once, the last batch being what is left."""
    examples = data.Examples(torch.arange(250.0).unsqueeze(1), torch.arange(250))
    loader = data.EvalLoader(examples, 100)
    batches = list(loader)
    assert [len(labels) for _, labels in batches] == [100, 100, 50]
    assert len(loader) == 3
    assert torch.equal(torch.cat([labels for _, labels in batches]), examples.labels)


def test_iterating_draws_from_no_global_generator():
    """Neither torch's nor numpy's global stream moves when loaders are iterated."""
    module = data.load("digits").data
    torch_before, numpy_before = torch.get_rng_state(), np.random.get_state()[1].copy()
    for loader in (module.train_dataloader(), module.val_dataloader(), module.test_dataloader()):
        list(loader)
    assert torch.equal(torch.get_rng_state(), torch_before)
    assert np.array_equal(np.random.get_state()[1], numpy_before)


def test_lightning_changes_the_order_every_epoch(undisturbed):
    """Under a real Trainer consecutive epochs differ, and each is the sampler's own order."""
    task, seen, _ = undisturbed
    assert sorted(seen) == list(range(NUM_EPOCHS))
    assert not any(same(seen[epoch], seen[epoch + 1]) for epoch in range(NUM_EPOCHS - 1))
    loader = task.data.train_dataloader()
    loader.sampler.set_epoch(3)
    assert same([inputs for inputs, _ in loader], seen[3])


@pytest.mark.parametrize(
    ("checkpoint", "num_into_epoch"),
    [("epoch-end", 0), ("step-111", 0), ("step-112", 1), ("step-131", 20), ("step-147", 36)],
)
def test_a_continued_run_is_the_undisturbed_run(undisturbed, checkpoint, num_into_epoch):
    """From an epoch's end or its middle, the batches and the last weights are bit-identical."""
    task, seen, directory = undisturbed
    continued, again = data.load("digits", num_epochs=NUM_EPOCHS), SeenBatches()
    fit(continued, again, ckpt_path=directory / f"{checkpoint}.ckpt")
    assert same(again.by_epoch[3], seen[3][num_into_epoch:])
    assert same(again.by_epoch[4], seen[4])
    assert sorted(again.by_epoch) == [3, 4]
    assert same(list(continued.module.parameters()), list(task.module.parameters()))


def test_peeking_does_not_move_the_position():
    """A second iterator neither disturbs the first nor what the first one saves."""
    loader = data.load("digits").data.train_dataloader()
    whole = [inputs for inputs, _ in loader]
    batches = iter(loader)
    first = next(batches)[0]
    next(iter(loader))
    rest = [inputs for inputs, _ in batches]
    assert same([first, *rest], whole)
    state = {"epoch": 0, "num_batches": len(loader), "num_repeated": 0}
    assert loader.state_dict() == state


def test_a_finished_epoch_is_not_resumed_into_the_next():
    """A position saved in one epoch, even cut short, leaves the next epoch whole."""
    loader = data.load("digits").data.train_dataloader()
    loader.load_state_dict({"epoch": 2, "num_batches": 5})
    loader.sampler.set_epoch(3)
    assert len(list(loader)) == len(loader)


def test_shuffled_labels_keep_everything_but_the_pairing():
    """The inputs, the counts of labels and the test split stay; the pairing is chance."""
    plain = data.load("digits").data.splits
    shuffled = data.load("digits", shuffle_labels=True).data.splits
    ours = torch.cat([plain.train.labels, plain.val.labels])
    theirs = torch.cat([shuffled.train.labels, shuffled.val.labels])
    assert torch.equal(plain.train.inputs, shuffled.train.inputs)
    assert torch.equal(plain.test.labels, shuffled.test.labels)
    assert torch.equal(ours.bincount(), theirs.bincount())
    assert (ours == theirs).float().mean() < 0.15


def test_load_is_deterministic_and_leaves_the_generators_alone():
    """Equal arguments give equal weights, another rng_seed others; no global stream moves."""
    before = torch.get_rng_state()
    first, again, other = (data.load("digits", rng_seed=rng_seed) for rng_seed in (7, 7, 8))
    assert torch.equal(torch.get_rng_state(), before)
    assert same(list(first.module.parameters()), list(again.module.parameters()))
    assert not same(list(first.module.parameters()), list(other.module.parameters()))


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"name": "digit"}, r"'digit'.*digits, mnist1d, fashion.*package\.module:Class"),
        ({"name": "digits", "rng_seed": -1}, "rng_seed is -1.*0 or more"),
        ({"name": "digits", "num_epochs": 0}, "num_epochs is 0.*1 or more"),
    ],
)
def test_load_says_what_it_takes(arguments, says):
    """A wrong argument is refused by name with what was allowed."""
    with pytest.raises(ConfigError, match=says):
        data.load(**arguments)


@pytest.mark.parametrize(
    ("host", "num_parameters", "shape"),
    [
        (data.digits_host, 954, (2, 1, 8, 8)),
        (data.mnist1d_host, 954, (2, 1, 40)),
        (data.fashion_host, 6_274, (2, 1, 28, 28)),
    ],
)
def test_hosts_are_as_small_as_stated(host, num_parameters, shape):
    """Each host has its stated number of parameters and returns ten logits."""
    net = host()
    assert sum(parameter.numel() for parameter in net.parameters()) == num_parameters
    assert net(torch.zeros(shape)).shape == (2, 10)


@pytest.mark.parametrize(("kernel_size", "is_blind"), [(1, True), (3, False)])
def test_pointwise_host_is_blind_to_neighbours(kernel_size, is_blind):
    """Rearranging the pixels of each pooled quadrant changes nothing for kernel_size 1 only."""
    images = data.load("digits").data.splits.val.inputs[:20]
    rearranged = images.unflatten(2, (2, 4)).flip(3).flatten(2, 3)
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(0)
        net = data.digits_host(kernel_size=kernel_size)
        assert torch.allclose(net(images), net(rearranged), atol=1e-6) is is_blind


def test_learning_rate_is_constant_then_falls():
    """60 % of the epochs run at the full rate, the last one at 1 %, never rising."""
    module = data.Classifier(nn.Linear(1, 1), learning_rate=0.5, num_epochs=10)
    configured = module.configure_optimizers()
    rates = []
    for _ in range(12):
        rates.append(configured["lr_scheduler"].get_last_lr()[0])
        configured["optimizer"].step()
        configured["lr_scheduler"].step()
    assert rates[:7] == [0.5] * 7
    assert rates[7] < 0.5
    assert rates == sorted(rates, reverse=True)
    assert rates[9:] == pytest.approx([0.005] * 3)


@pytest.mark.parametrize("num_epochs", [1, 2, 3])
def test_short_runs_have_a_learning_rate(num_epochs):
    """However short the run, in it and after it the rate is positive and never above the given."""
    module = data.Classifier(nn.Linear(1, 1), learning_rate=1.0, num_epochs=num_epochs)
    scheduler = module.configure_optimizers()["lr_scheduler"]
    factors = [scheduler.lr_lambdas[0](epoch) for epoch in range(num_epochs + 3)]
    assert factors[0] == 1
    assert all(0 < factor <= 1 for factor in factors)


@pytest.mark.slow
def test_digits_need_neighbours():
    """The blind host stays under 75 % where the seeing host passes 90 %, on unseen digits."""
    accuracy = {}
    for kernel_size in (1, 3):
        task = data.load("digits", num_epochs=15)
        if kernel_size == 3:
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(0)
                task.module.net = data.digits_host(kernel_size=3)
        trainer = fit(task, num_epochs=15)
        accuracy[kernel_size] = trainer.test(task.module, task.data, verbose=False)[0]["test_acc"]
    assert 0.3 < accuracy[1] < 0.75
    assert accuracy[3] > 0.9
