"""Files that hold no model: named, and no code in them runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from kasmina import load
from leyline import CheckpointError
from tests.kasmina.growing import everything
from tests.kasmina.hosts import conv_net


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (None, "does not exist"),
        (b"", "cannot be read"),
        (b"not a model at all", "cannot be read"),
        (b"\xff" * 64, "cannot be read"),
    ],
)
@pytest.mark.parametrize("suffix", [".safetensors", ".ckpt"])
def test_a_damaged_or_missing_file_is_named(
    content: bytes | None, reason: str, suffix: str, tmp_path: Path
) -> None:
    """One CheckpointError with the path, and the model is untouched."""
    file = tmp_path / f"model{suffix}"
    if content is not None:
        file.write_bytes(content)
    model = conv_net()
    before = everything(model)
    with pytest.raises(CheckpointError, match=f"{file.name} {reason}"):
        load(model, file)
    assert everything(model) == before


def test_a_pickle_that_runs_code_is_not_run(tmp_path: Path) -> None:
    """A hostile checkpoint is refused and its code does not run."""
    canary = tmp_path / "canary"
    file = tmp_path / "evil.ckpt"
    torch.save({"state_dict": {"weight": _Bomb(canary)}}, file)
    with pytest.raises(CheckpointError, match="cannot be read as a checkpoint of plain values"):
        load(conv_net(), file)
    assert not canary.exists()


class _Bomb:
    def __init__(self, canary: Path) -> None:
        self.canary = canary

    def __reduce__(self) -> Any:
        return Path.touch, (self.canary,)
