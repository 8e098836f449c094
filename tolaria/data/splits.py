"""The built-in data sets, each as three fixed splits of tensors in memory."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from leyline import ConfigError
from tolaria.data.idx import read_idx

FASHION_DIR = Path("/usr/share/datasets/fashion-mnist")
FASHION_FILES = {
    "train-images-idx3-ubyte.gz": (60_000, 28, 28),
    "train-labels-idx1-ubyte.gz": (60_000,),
    "t10k-images-idx3-ubyte.gz": (10_000, 28, 28),
    "t10k-labels-idx1-ubyte.gz": (10_000,),
}
NUM_CLASSES = 10


@dataclass(frozen=True, eq=False)
class Examples:
    """Inputs of shape (num_examples, ...) float32 and labels of shape (num_examples,) int64."""

    inputs: Tensor
    labels: Tensor

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True, eq=False)
class Splits:
    """Who sees which examples: the optimizer `train`, decisions `val`, nobody `test`."""

    train: Examples
    val: Examples
    test: Examples

    @classmethod
    def cut(cls, inputs: Tensor, labels: Tensor, *, num_train: int, num_val: int) -> Splits:
        """Cut examples that are already in random order into three runs; the rest is `test`."""
        sizes = [num_train, num_val, len(labels) - num_train - num_val]
        parts = zip(torch.split(inputs, sizes), torch.split(labels, sizes), strict=True)
        return cls(*(Examples(part, names) for part, names in parts))


def digits() -> Splits:
    """Handwritten digits, inputs (n, 1, 8, 8) in [0, 1]: 1,197 / 300 / 300 examples."""
    stored = _stored("digits.npz")
    images = torch.from_numpy(stored["images"]).float().div_(16).unsqueeze(1)
    return Splits.cut(images, _labels(stored["labels"]), num_train=1_197, num_val=300)


def mnist1d() -> Splits:
    """MNIST-1D, inputs (n, 1, 40) of unit variance: 3,400 / 600 / 1,000 examples."""
    stored = _stored("mnist1d.npz")
    signals = torch.from_numpy(stored["signals"]).float().mul_(float(stored["step"])).unsqueeze(1)
    return Splits.cut(signals, _labels(stored["labels"]), num_train=3_400, num_val=600)


def fashion(data_dir: Path | None = None) -> Splits:
    """Fashion-MNIST, inputs (n, 1, 28, 28) in [0, 1]: 55,000 / 5,000 / 10,000 examples.

    Raises:
        ConfigError: A file is missing or malformed.
    """
    directory = FASHION_DIR if data_dir is None else data_dir
    for name in FASHION_FILES:
        if not (directory / name).is_file():
            raise ConfigError(
                f"Fashion-MNIST: {name} is missing; looked in {directory}; on Debian run "
                f"'apt-get install dataset-fashion-mnist', then pass --data-dir {FASHION_DIR}"
            )
    train_images, train_labels, test_images, test_labels = (
        read_idx(directory / name, shape) for name, shape in FASHION_FILES.items()
    )
    images = torch.from_numpy(np.concatenate([train_images, test_images])).float().div_(255)
    labels = np.concatenate([train_labels, test_labels])
    if labels.max() >= NUM_CLASSES:
        raise ConfigError(
            f"Fashion-MNIST: {directory} holds a label {labels.max()}; the labels are 0 to "
            f"{NUM_CLASSES - 1}; fetch the files again"
        )
    return Splits.cut(images.unsqueeze(1), _labels(labels), num_train=55_000, num_val=5_000)


def _stored(name: str) -> dict[str, NDArray[np.generic]]:
    """The arrays of a file of this package."""
    with np.load(Path(__file__).with_name(name), allow_pickle=False) as file:
        return dict(file)


def _labels(labels: NDArray[np.generic]) -> Tensor:
    return torch.from_numpy(labels).long()
