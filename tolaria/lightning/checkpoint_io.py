"""Lets Lightning load Esper's checkpoint directories wherever it takes a `ckpt_path`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lightning.fabric.plugins import CheckpointIO

from leyline import CheckpointError
from tolaria.disk.checkpoint import load


class DirectoryCheckpointIO(CheckpointIO):
    """Reads a directory as an Esper checkpoint and leaves everything else to the one it wraps."""

    def __init__(self, inner: CheckpointIO):
        self._inner = inner

    def load_checkpoint(self, path: Any, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """Load a checkpoint; a directory with a manifest is one of ours.

        Raises:
            CheckpointError: it is damaged, or of a hand-written loop.
        """
        if (Path(path) / "manifest.json").is_file():
            loaded = load(Path(path))
            if "pytorch-lightning_version" not in loaded:
                raise CheckpointError(
                    f"{path} was saved by a hand-written loop, which a Trainer cannot go on with; "
                    "resume it with Orchestrator.attach(..., resume=True)"
                )
            return loaded
        return self._inner.load_checkpoint(path, *args, **kwargs)

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, *args: Any, **kw: Any) -> None:
        """Save as the wrapped one does."""
        self._inner.save_checkpoint(checkpoint, path, *args, **kw)

    def remove_checkpoint(self, path: Any) -> None:
        """Remove as the wrapped one does."""
        self._inner.remove_checkpoint(path)

    def teardown(self) -> None:
        """Tear the wrapped one down."""
        self._inner.teardown()
