"""Writes a checkpoint of the format that this version writes, and what is in it.

Run it once for each format, with the version that brought it in, and keep what it wrote: later
versions must load those very bytes. python -m tests.golden.make tests/golden/format-2
"""

from __future__ import annotations

import hashlib
import json
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from tests.tolaria.plain_loops import adam, attach, make_host, run

NUM_EPOCHS = 10
SCHEDULE = ((1, "conv", "conv"), (8, "head", "low_rank"))
STAGES = {"conv/0": "FOSSILIZED", "head/0": "GRAFTING"}
"""After the last epoch the first seed is permanent, and the second one is half blended in."""


def digests(model: nn.Module, optimizer: Optimizer) -> dict[str, str]:
    """SHA-256 of every tensor of a model and its optimizer, by name."""
    tensors: dict[str, Any] = {f"model.{name}": t for name, t in model.state_dict().items()}
    for index, state in optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer.{index}.{key}": value for key, value in state.items()}
    return {name: digest(t) for name, t in tensors.items() if isinstance(t, Tensor)}


def digest(tensor: Tensor) -> str:
    """SHA-256 of a tensor's values."""
    return hashlib.sha256(tensor.detach().contiguous().numpy().tobytes()).hexdigest()


def main(folder: Path) -> None:
    torch.set_num_threads(1)
    model = make_host()
    optimizer = adam(model)
    settings = {"schedule": SCHEDULE, "ramp_epochs": 2, "checkpoint": True, "keep_checkpoints": 1}
    with tempfile.TemporaryDirectory() as scratch:
        run_dir = Path(scratch) / "run"
        with attach(model, optimizer, run_dir, seed_checkpoints=False, **settings) as esper:
            run(model, optimizer, esper, NUM_EPOCHS)
            newest = esper.session.newest_checkpoint()
            assert newest is not None
            table = esper.executor.table
            expected = {
                "epoch": esper.epoch,
                "step": esper.step,
                "stages": {name: table.stage(name).name for name in table.names},
                "tensors": digests(model, optimizer),
            }
            assert expected["stages"] == STAGES, expected["stages"]
            shutil.copytree(newest, folder / newest.name)
    (folder / "expected.json").write_text(json.dumps(expected, indent=1) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
