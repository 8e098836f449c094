"""The one module that reads Lightning's own checkpoints, which are pickled: weights only."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from kasmina.guard import attempt, describe
from leyline import CheckpointError


def read_state_dict(path: Path) -> dict[str, Tensor]:
    """Read the model's state dict from a `.ckpt` or a plain torch file, on the CPU.

    Raises:
        CheckpointError: the file is damaged, holds objects other than plain values and tensors,
            or has no state dict.
    """
    # The errors are pickle's own, which we must not import.
    content: Any = attempt(lambda: torch.load(path, map_location="cpu", weights_only=True))
    if isinstance(content, Exception):
        raise CheckpointError(
            f"{path} cannot be read as a checkpoint of plain values: {describe(content)}"
        ) from content
    state_dict = content.get("state_dict", content) if isinstance(content, dict) else None
    if not isinstance(state_dict, dict) or not all(
        isinstance(value, Tensor) for value in state_dict.values()
    ):
        raise CheckpointError(f"{path} holds no state dict of tensors")
    return state_dict
