"""Loaders over tensors in memory: a batch is one index_select, and no global RNG is drawn from.

Torch's own DataLoader is not used because Lightning warns about one without worker processes,
which data in memory has no work for.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from tolaria.data.splits import Examples

Batch = tuple[Tensor, Tensor]


class EpochSampler:
    """An order of examples that depends on (rng_seed, epoch) and on nothing else.

    Lightning calls `set_epoch` with the 0-based epoch on a loader's attribute `sampler`.
    """

    def __init__(self, num_examples: int, rng_seed: int) -> None:
        self.num_examples = num_examples
        self.rng_seed = rng_seed
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch (0-based) whose order comes next."""
        self.epoch = epoch

    def order(self) -> Tensor:
        """Every index once, shape (num_examples,) int64."""
        mixed = np.random.SeedSequence((self.rng_seed, self.epoch)).generate_state(1, np.uint64)
        generator = torch.Generator().manual_seed(int(mixed[0]))
        return torch.randperm(self.num_examples, generator=generator)


class EvalLoader:
    """Batches in the examples' own order, the last one possibly smaller."""

    def __init__(self, examples: Examples, batch_size: int) -> None:
        self.examples = examples
        self.batch_size = batch_size

    def __len__(self) -> int:
        return -(-len(self.examples) // self.batch_size)

    def __iter__(self) -> Iterator[Batch]:
        inputs = torch.split(self.examples.inputs, self.batch_size)
        return zip(inputs, torch.split(self.examples.labels, self.batch_size), strict=True)


class TrainLoader:
    """Shuffled batches of one size; the examples that do not fill a batch sit an epoch out.

    Has a `state_dict`, so that Lightning and Esper resume from the middle of an epoch exactly.
    The position is that of the iterator used last.
    """

    def __init__(self, examples: Examples, batch_size: int, rng_seed: int) -> None:
        self.examples = examples
        self.batch_size = batch_size
        self.sampler = EpochSampler(len(examples), rng_seed)
        self._position = (0, 0)  # epoch, batches handed out
        self._resume = (0, 0)

    def __len__(self) -> int:
        return len(self.examples) // self.batch_size

    def __iter__(self) -> Iterator[Batch]:
        # A generator: Lightning makes the first iterator of a resumed run before set_epoch.
        epoch = self.sampler.epoch
        order = self.sampler.order()
        for num_done in range(self._take_start(epoch), len(self)):
            chosen = order[num_done * self.batch_size : (num_done + 1) * self.batch_size]
            self._position = (epoch, num_done + 1)
            inputs, labels = self.examples.inputs, self.examples.labels
            yield inputs.index_select(0, chosen), labels.index_select(0, chosen)

    def state_dict(self) -> dict[str, int]:
        """The position: the epoch (0-based) and how many of its batches were handed out."""
        epoch, num_batches = self._position
        return {"epoch": epoch, "num_batches": num_batches}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Let the next iterator go on from `state`, if it iterates over that same epoch."""
        self._position = self._resume = (state["epoch"], state["num_batches"])

    def _take_start(self, epoch: int) -> int:
        """The first batch of this iterator: not 0 only once, right after load_state_dict."""
        (resumed_epoch, num_batches), self._resume = self._resume, (0, 0)
        return num_batches if epoch == resumed_epoch and num_batches < len(self) else 0
