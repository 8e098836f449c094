"""Batches for trials: bounded, in order, and taken without the run noticing."""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils.data import DataLoader, RandomSampler, TensorDataset

from leyline import ConfigError
from tests.tolaria.plain_loops import streams
from tolaria.growth.batch_source import GivenBatches, KeptBatches

MIB = 1 << 20
BATCHES = [torch.full((4,), float(i)) for i in range(6)]
HELD = [torch.full((4,), 100.0 + i) for i in range(3)]


def _values(batches: list[Tensor]) -> list[float]:
    return [float(batch[0]) for batch in batches]


@pytest.mark.parametrize(
    "data",
    [
        (BATCHES, HELD),
        [BATCHES, HELD],
        {"train": BATCHES, "held_out": HELD},
        SimpleNamespace(train=BATCHES, held_out=HELD),
    ],
    ids=["tuple", "list", "mapping", "object"],
)
def test_a_pair_may_be_given_in_four_ways(data: Any) -> None:
    """The first max_batches of each are handed out, in order, as often as they are asked for."""
    source = GivenBatches(data, 4, MIB)
    for _ in range(2):
        assert _values(source.train_batches()) == [0, 1, 2, 3]
        assert _values(source.held_out_batches()) == [100, 101, 102]
        assert source.example() is BATCHES[0]


def test_no_data_means_no_batches() -> None:
    """Without data there is nothing to hand out and no example."""
    source = GivenBatches(None, 4, MIB)
    assert (source.train_batches(), source.held_out_batches(), source.example()) == ([], [], None)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (BATCHES, "data is a list"),
        ({"train": BATCHES}, "held_out"),
        (3, "data is a int"),
        ((BATCHES, None), "give a pair"),
        ((3, HELD), "training batches are a int"),
        ((iter(BATCHES), HELD), "iterated only once"),
        ((BATCHES, (b for b in HELD)), "iterated only once"),
    ],
)
def test_other_data_is_refused(data: Any, reason: str) -> None:
    """The error says what was given and what to give; an iterator would be empty at the second
    race."""
    with pytest.raises(ConfigError, match=reason):
        GivenBatches(data, 4, MIB)


def test_given_batches_are_bounded_in_bytes() -> None:
    """No further batch is asked for once the bytes are spent; one there always is."""
    asked: list[int] = []

    class Loader:
        def __iter__(self) -> Iterator[Tensor]:
            for i in range(9):
                asked.append(i)
                yield torch.zeros(256)

    assert len(GivenBatches((Loader(), HELD), 64, 2048).train_batches()) == 2
    assert asked == [0, 1]
    assert len(GivenBatches((Loader(), HELD), 64, 10).train_batches()) == 1


class _Noisy(TensorDataset):
    """Draws from every stream for each item, as augmentation does."""

    def __getitem__(self, index: int) -> tuple[Tensor, ...]:
        import random

        import numpy as np

        random.random()  # noqa: S311 - a stream that must not move
        np.random.rand()
        torch.rand(1)
        return super().__getitem__(index)


@pytest.mark.parametrize("own", ["none", "loader", "sampler"])
def test_taking_batches_moves_no_random_stream(own: str) -> None:
    """Neither the process's streams nor the loader's own, so that the order in which the run
    trains stays what it would be."""
    generator = torch.Generator().manual_seed(5)
    dataset = _Noisy(torch.arange(40.0))
    options: dict[str, Any] = {"batch_size": 4}
    if own == "sampler":
        options["sampler"] = RandomSampler(dataset, generator=generator)
    else:
        options |= {"shuffle": True, "generator": generator if own == "loader" else None}
    loader = DataLoader(dataset, **options)
    source = GivenBatches((loader, loader), 3, MIB)
    before = [*streams(), bytes(generator.get_state().tolist())]
    source.train_batches(), source.held_out_batches(), source.example()
    assert [*streams(), bytes(generator.get_state().tolist())] == before


def test_kept_batches_are_copies_of_what_passed_when_wanted() -> None:
    """A loader that reuses its memory cannot change what was kept; what was not wanted is not
    kept, and what is wanted anew starts empty."""
    source = KeptBatches(2, MIB, validates=True)
    reused = torch.zeros(4)
    source.offer_train(reused)
    assert source.train_batches() == []
    source.want(train=True, held_out=True)
    for value in (1.0, 2.0, 3.0):
        source.offer_train(reused.fill_(value))
        source.offer_held_out(reused.fill_(value + 10))
    assert _values(source.train_batches()) == [1, 2]
    assert _values(source.held_out_batches()) == [11, 12]
    example = source.example()
    assert example is not None
    assert float(example[0]) == 0.0

    source.begin_held_out()
    source.offer_held_out(reused.fill_(50.0))
    assert _values(source.held_out_batches()) == [50]
    source.want(train=False, held_out=False)
    source.offer_train(reused)
    source.offer_held_out(reused)
    assert (source.train_batches(), source.held_out_batches()) == ([], [])


def test_kept_batches_are_bounded_in_bytes() -> None:
    """A batch for which there is no room is not kept."""
    source = KeptBatches(10, 40, validates=True)
    source.want(train=True, held_out=False)
    for batch in BATCHES:
        source.offer_train(batch)
    assert _values(source.train_batches()) == [0, 1]


def test_held_out_batches_are_awaited_until_validation_has_run() -> None:
    """Where validation runs every few epochs, an epoch without it is no reason to give up; where
    there is none at all, or a list was given, there is nothing to wait for."""
    source = KeptBatches(2, MIB, validates=True)
    source.want(train=True, held_out=True)
    assert source.awaits_held_out()
    source.begin_held_out()
    assert not source.awaits_held_out()
    source.want(train=True, held_out=True)
    assert source.awaits_held_out()
    assert not KeptBatches(2, MIB, validates=False).awaits_held_out()
    assert not GivenBatches((BATCHES, HELD), 2, MIB).awaits_held_out()
