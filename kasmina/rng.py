"""Random numbers for growth that leave the run's own streams untouched."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch


def derive_rng_seed(*parts: object) -> int:
    """A 63-bit RNG seed that is a pure function of the parts' text, on every machine."""
    text = "\x1f".join(str(part) for part in parts)
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little") >> 1


@contextmanager
def isolated_rng(rng_seed: int) -> Iterator[None]:
    """Run a block with its own Python, numpy and torch streams; the outer ones are put back."""
    python_state = random.getstate()
    numpy_state = np.random.get_state()
    devices = list(range(torch.cuda.device_count()))
    try:
        with torch.random.fork_rng(devices=devices):
            random.seed(rng_seed)
            np.random.seed(rng_seed % 2**32)
            _seed_torch(rng_seed, devices)
            yield
    finally:
        random.setstate(python_state)
        np.random.set_state(numpy_state)


def _seed_torch(rng_seed: int, devices: Sequence[int]) -> None:
    # torch.manual_seed formats the stack for every kind of device that there is not: 0.5 ms.
    torch.default_generator.manual_seed(rng_seed)
    for device in devices:
        torch.cuda.default_generators[device].manual_seed(rng_seed)
