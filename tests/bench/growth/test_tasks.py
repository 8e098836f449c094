"""What is trained on, chosen by and reported are three things, and the same for every arm."""

from __future__ import annotations

from dataclasses import replace
from itertools import islice

import numpy as np
import pytest
import torch

from bench.growth import nets, realised
from bench.growth.catalogue import draw, parameter_budget, parameters, planted
from bench.growth.task import DIVERGED, Task, num_parameters
from bench.growth.tasks import load
from bench.growth.tasks.signals import signals
from bench.growth.training import Course, batches
from tests.bench.growth.tiny import host, tiny_task
from tolaria.data.splits import mnist1d


def test_the_signals_are_the_published_ones() -> None:
    """RNG seed 42 gives MNIST-1D as it is shipped, to the rounding of that file."""
    made, labels = signals(5_000, 42)
    made = (made - made.mean()) / made.std()
    shipped = mnist1d()
    splits = (shipped.train, shipped.val, shipped.test)
    published = torch.cat([split.inputs for split in splits]).squeeze(1).numpy()
    assert np.abs(made - published).max() < 0.022
    assert (labels == torch.cat([split.labels for split in splits]).numpy()).all()


@pytest.mark.parametrize("name", ["mnist1d", "bytes"])
def test_no_example_is_in_two_splits(name: str) -> None:
    """Nor twice in val or test; source code does repeat itself, by a window in 200 at most."""
    splits = load(name, short=True).splits
    seen = [
        {x.numpy().tobytes() for x in split.inputs}
        for split in (splits.train, splits.val, splits.test)
    ]
    shared = len(seen[0] & seen[1]) + len(seen[0] & seen[2]) + len(seen[1] & seen[2])
    assert shared <= (0 if name == "mnist1d" else len(seen[1]) // 200)


def test_bytes_are_predicted_from_those_before() -> None:
    """The label of each byte is the next byte of its window."""
    val = load("bytes", short=True).splits.val
    assert torch.equal(val.inputs[:, 1:], val.labels[:, :-1])


def test_two_arms_see_the_same_batches() -> None:
    """In the same order for one RNG seed, over epochs; in another for another."""
    task = tiny_task()

    def seen(rng_seed: int) -> torch.Tensor:
        """Three epochs."""
        return torch.cat([inputs for inputs, _ in islice(batches(task, rng_seed), 15)])

    assert torch.equal(seen(3), seen(3))
    assert not torch.equal(seen(3), seen(4))
    assert not torch.equal(seen(3)[:40], seen(3)[40:80])
    first, second = ({x.numpy().tobytes() for x in part} for part in seen(3)[:80].split(40))
    assert first == second
    assert len(first) == 40


def test_every_arm_begins_with_the_same_host() -> None:
    """Whatever is planted on it adds nothing at birth: the outputs are those of the host."""
    task = tiny_task()
    inputs, _ = task.batch()
    host = nets.build(task, nets.HOST, 5)
    for planting in parameters(task):
        net = nets.build(task, nets.of_plan([planting]), 5)
        assert torch.equal(net(inputs), host(inputs)), planting
    assert not torch.equal(nets.build(task, nets.HOST, 6)(inputs), host(inputs))


def test_flops_are_those_counted_by_hand() -> None:
    """Of a step: two products forward, two for weights, and one for the inputs of the second."""
    task = tiny_task()
    convolution, linear = 2 * 8 * 6 * 4, 2 * 8 * 24 * 2
    assert task.step_flops(task.host()) == 2 * convolution + 3 * linear
    assert task.forward_flops(task.host()) == (convolution + linear) // 8


def test_counting_leaves_the_network_as_it_was() -> None:
    """Its gradients are None and its mode is kept."""
    task = tiny_task()
    model = task.host().eval()
    task.step_flops(model)
    assert not model.training
    assert all(parameter.grad is None for parameter in model.parameters())


def test_a_wider_host_has_the_parameters_asked_for() -> None:
    """As near as a whole number of channels comes."""
    task = tiny_task()
    for width in (1, 7, 30):
        wanted = num_parameters(task.widened(width)) + 2
        assert nets.widened(task, wanted) == {"kind": "widened", "width": width}


def test_draws_keep_to_the_budget_and_reach_everything() -> None:
    """No drawn network has more than growth may add; every planting is drawn sooner or later."""
    task = replace(tiny_task(), host=lambda: host(32))
    generator = torch.Generator().manual_seed(0)
    plans = [draw(task, generator) for _ in range(100)]
    sizes = parameters(task)
    assert max(sum(sizes[planting] for planting in plan) for plan in plans) <= parameter_budget(
        task
    )
    assert {planting for plan in plans for planting in plan} == set(sizes)
    added = num_parameters(planted(task, plans[0], 0)) - num_parameters(task.host())
    assert added == sum(sizes[planting] for planting in plans[0])


def test_the_rate_rises_stays_and_falls() -> None:
    """Up over 50 steps, 1 until 60 %, 1 % at the last step."""
    course = Course(1, 0.1, 0)
    factors = [course.factor(step, 1_000) for step in range(1_000)]
    assert factors[0] == pytest.approx(1 / 50)
    assert factors[49:601] == [1.0] * 552
    assert factors[-1] == pytest.approx(0.01)
    assert factors[600:] == sorted(factors[600:], reverse=True)


def test_a_metric_is_compared_in_its_own_sense() -> None:
    """More is better of shares, less of bits."""
    task = tiny_task()
    assert task.gain(90.0, 80.0) == 10.0
    bits = Task(**{**vars(task), "higher_is_better": False})
    assert bits.gain(2.0, 2.5) == 0.5
    assert bits._metric(np.log(2), 0.3) == pytest.approx(1.0)


def test_a_network_that_diverges_has_a_loss_that_can_be_kept() -> None:
    """NaN and infinity are not in JSON: it counts as very bad, and never as good."""
    task = tiny_task()
    model = task.host()
    torch.nn.init.constant_(model[0].weight, torch.nan)
    assert task.score(model, task.splits.val).loss == DIVERGED


def test_who_draws_at_random_has_the_budget_that_esper_has() -> None:
    """Where the task sets one nothing larger is drawn; what a candidate brings is still measured of
    every one, whatever its size.
    """
    task = tiny_task()
    smallest = min(parameters(task).values())
    tight = replace(task, esper={**task.esper, "param_budget": smallest})
    assert parameter_budget(tight) == smallest < parameter_budget(task)
    drawn = draw(tight, torch.Generator().manual_seed(0), num_plantings=4)
    assert [parameters(task)[planting] for planting in drawn] == [smallest]
    budgets = [job.settings["esper"]["param_budget"] for job in realised.jobs(tight)[1:]]
    assert budgets == list(parameters(task).values())
