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

    def order(self, epoch: int | None = None) -> Tensor:
        """Every index once, shape (num_examples,) int64: of an epoch (0-based), or of the next."""
        epoch = self.epoch if epoch is None else epoch
        mixed = np.random.SeedSequence((self.rng_seed, epoch)).generate_state(1, np.uint64)
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
    The position is that of the iterator used last. When a run goes back so do the data: the same
    batches come again, and all later ones that much later, whatever epoch the trainer counts.
    """

    def __init__(self, examples: Examples, batch_size: int, rng_seed: int) -> None:
        self.examples = examples
        self.batch_size = batch_size
        self.sampler = EpochSampler(len(examples), rng_seed)
        self._position = (0, 0)  # epoch, batches handed out
        self._resume = (0, 0)
        self._num_repeated = 0  # batches by which the data lag behind the trainer's count
        self._order = (-1, torch.empty(0, dtype=torch.int64))  # the epoch used last, its order

    def __len__(self) -> int:
        return len(self.examples) // self.batch_size

    def __iter__(self) -> Iterator[Batch]:
        # A generator: Lightning makes the first iterator of a resumed run before set_epoch.
        epoch = self.sampler.epoch
        for num_done in range(self._take_start(epoch), len(self)):
            self._position = (epoch, num_done)
            batch = self._batch(self.next_batch)
            self._position = (epoch, num_done + 1)
            yield batch

    @property
    def next_batch(self) -> int:
        """The number, over all epochs and from 0, of the batch that comes next."""
        epoch, num_batches = self._position
        return epoch * len(self) + num_batches - self._num_repeated

    def go_back(self, next_batch: int) -> None:
        """Let the batch of this number come next, also from an iterator that is in use."""
        self._num_repeated += self.next_batch - next_batch

    def _batch(self, number: int) -> Batch:
        epoch, number = divmod(number, len(self))
        if self._order[0] != epoch:
            self._order = epoch, self.sampler.order(epoch)
        chosen = self._order[1][number * self.batch_size : (number + 1) * self.batch_size]
        inputs, labels = self.examples.inputs, self.examples.labels
        return inputs.index_select(0, chosen), labels.index_select(0, chosen)

    def state_dict(self) -> dict[str, int]:
        """The position: the epoch (0-based), how many of its batches were handed out, and by how
        many batches the data lag behind that."""
        epoch, num_batches = self._position
        return {"epoch": epoch, "num_batches": num_batches, "num_repeated": self._num_repeated}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Let the next iterator go on from `state`, if it iterates over that same epoch."""
        self._position = self._resume = (state["epoch"], state["num_batches"])
        self._num_repeated = state.get("num_repeated", 0)

    def _take_start(self, epoch: int) -> int:
        """The first batch of this iterator: not 0 only once, right after load_state_dict."""
        (resumed_epoch, num_batches), self._resume = self._resume, (0, 0)
        return num_batches if epoch == resumed_epoch and num_batches < len(self) else 0
