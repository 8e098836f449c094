"""LightningCLI: the callback named on the command line."""

from __future__ import annotations

import sys
from pathlib import Path

import lightning.pytorch as pl
import pytest
from lightning.pytorch.cli import LightningCLI
from torch.utils.data import DataLoader

from tests.tolaria.lightning.models import MLP, STEPS_PER_EPOCH, tabular
from tolaria import EsperCallback


class Plain(MLP):
    """The model without arguments that no command line could give."""

    def __init__(self) -> None:
        super().__init__()


class Points(pl.LightningDataModule):
    """The tabular points."""

    def train_dataloader(self) -> DataLoader:
        return DataLoader(tabular(48, 1), batch_size=8)

    def val_dataloader(self) -> DataLoader:
        return DataLoader(tabular(32, 2), batch_size=8)


def test_the_command_line_names_the_callback(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`--trainer.callbacks=tolaria.EsperCallback` with a config file trains with it."""
    config = tmp_path / "esper.toml"
    config.write_text(
        f'policy = "hold"\ntelemetry = "off"\ncheckpoint = false\nrun_dir = "{tmp_path / "run"}"\n'
    )
    quiet = ["logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary"]
    arguments = [
        "train.py",
        "fit",
        "--seed_everything=0",
        "--trainer.accelerator=cpu",
        "--trainer.max_epochs=1",
        *(f"--trainer.{name}=false" for name in quiet),
        "--trainer.callbacks=tolaria.EsperCallback",
        f"--trainer.callbacks.config={config}",
    ]
    monkeypatch.setattr(sys, "argv", arguments)
    # Lightning 2.6 calls what jsonargparse deprecates; it is theirs to mend.
    monkeypatch.setenv("JSONARGPARSE_DEPRECATION_WARNINGS", "off")
    cli = LightningCLI(Plain, Points, save_config_callback=None)
    (callback,) = [c for c in cli.trainer.callbacks if isinstance(c, EsperCallback)]
    assert callback.report()["status"] == "finished"
    assert callback.orchestrator.step == STEPS_PER_EPOCH
