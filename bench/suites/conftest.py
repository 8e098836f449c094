"""One thread, since two contended ones make small tensors ten times slower."""

from __future__ import annotations

import torch

torch.set_num_threads(1)
