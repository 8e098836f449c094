"""A host with as many sites as there are seeds, and Esper attached to it in a hand-written loop."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import nn

from tolaria import Orchestrator

WIDTH = 64
NUM_SITES = 32


class Tower(nn.Module):
    """Residual layers, each a site."""

    def __init__(self, num_sites: int = NUM_SITES, width: int = WIDTH) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(width, width) for _ in range(num_sites))

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        for layer in self.layers:
            inputs = inputs + torch.tanh(layer(inputs))
        return inputs


@contextmanager
def attached(model: nn.Module | None = None, **settings: Any) -> Iterator[Orchestrator]:
    """Esper beside a tower, or another model of its width, in a run directory of its own."""
    model = model or Tower()
    optimizer = torch.optim.AdamW(model.parameters())
    with tempfile.TemporaryDirectory() as folder:
        run_dir = str(Path(folder) / "run")
        defaults: dict[str, Any] = {"run_dir": run_dir, "checkpoint": False, "num_epochs": 1000}
        defaults["example"] = torch.zeros(4, WIDTH)
        with Orchestrator.attach(model, optimizer, **defaults | settings) as esper:
            yield esper
