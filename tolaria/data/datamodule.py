"""The built-in data sets as a LightningDataModule."""

from __future__ import annotations

from dataclasses import replace

import lightning as L
import torch

from tolaria.data.loader import EvalLoader, TrainLoader
from tolaria.data.splits import Examples, Splits

EVAL_BATCH_SIZE = 100  # divides every built-in val and test split
LABEL_SHUFFLE_SEED = 0


class ArrayDataModule(L.LightningDataModule):
    """Fixed splits in memory; `rng_seed` chooses the order of the training batches, nothing else.

    With `shuffle_labels` the labels of train and val are permuted together and test keeps its own:
    there is then nothing to learn.
    """

    def __init__(
        self, splits: Splits, *, batch_size: int, rng_seed: int, shuffle_labels: bool = False
    ) -> None:
        super().__init__()
        self.splits = _without_signal(splits) if shuffle_labels else splits
        self.batch_size = batch_size
        self.rng_seed = rng_seed

    def train_dataloader(self) -> TrainLoader:
        """A new loader of training batches, at epoch 0."""
        return TrainLoader(self.splits.train, self.batch_size, self.rng_seed)

    def val_dataloader(self) -> EvalLoader:
        """The batches that decisions may look at."""
        return EvalLoader(self.splits.val, EVAL_BATCH_SIZE)

    def test_dataloader(self) -> EvalLoader:
        """The batches that no decision sees."""
        return EvalLoader(self.splits.test, EVAL_BATCH_SIZE)


def _without_signal(splits: Splits) -> Splits:
    """The same inputs with the labels of train and val permuted."""
    labels = torch.cat([splits.train.labels, splits.val.labels])
    generator = torch.Generator().manual_seed(LABEL_SHUFFLE_SEED)
    labels = labels[torch.randperm(len(labels), generator=generator)]
    train, val = torch.split(labels, [len(splits.train), len(splits.val)])
    return replace(
        splits,
        train=Examples(splits.train.inputs, train),
        val=Examples(splits.val.inputs, val),
    )
