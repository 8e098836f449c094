"""Rebuild tolaria/data/digits.npz and mnist1d.npz from their sources.

Not run by the tests. In an environment of its own:

    pip install scikit-learn mnist1d==0.0.2.post1
    python bench/make_data.py
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from mnist1d.data import get_dataset_args, make_dataset
from sklearn.datasets import load_digits

DATA_DIR = Path(__file__).resolve().parent.parent / "tolaria" / "data"


def make_digits(path: Path) -> None:
    """Write the 8 x 8 digits of scikit-learn, shuffled, as bytes."""
    images, labels = load_digits(return_X_y=True)
    # The source is ordered by writer. RandomState, because its stream never changes with numpy.
    order = np.random.RandomState(0).permutation(len(labels))
    np.savez_compressed(
        path,
        images=images.reshape(-1, 8, 8).astype(np.uint8)[order],  # exact: counts from 0 to 16
        labels=labels.astype(np.uint8)[order],
    )


def make_mnist1d(path: Path) -> None:
    """Write MNIST-1D in steps of a 127th of its largest value, and print what that costs."""
    made = make_dataset(get_dataset_args())
    values = np.concatenate([made["x"], made["x_test"]])  # 4,000 to train on, then 1,000 to test
    step = np.float32(np.abs(values).max() / 127)
    signals = np.rint(values / step).astype(np.int8)
    np.savez_compressed(
        path,
        signals=signals,
        step=step,
        labels=np.concatenate([made["y"], made["y_test"]]).astype(np.uint8),
    )
    error = np.abs(signals * step - values).max()
    print(f"mnist1d: step {step:.5f}, largest error {error:.5f}, deviation {values.std():.3f}")


def main() -> None:
    """Rebuild both files and print their sizes."""
    for name, make in (("digits", make_digits), ("mnist1d", make_mnist1d)):
        path = DATA_DIR / f"{name}.npz"
        make(path)
        print(f"{path.name}: {path.stat().st_size} bytes")


if __name__ == "__main__":
    main()
