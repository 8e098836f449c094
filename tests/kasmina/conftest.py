"""One thread, because the number of threads changes bits; a fixed start; and a fresh grower."""

from __future__ import annotations

import random
from collections.abc import Iterator

import numpy as np
import pytest
import torch

from tests.kasmina.grower import Grower


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    num_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    np.random.seed(0)
    random.seed(0)
    yield
    torch.set_num_threads(num_threads)


@pytest.fixture
def grower() -> Grower:
    return Grower()
