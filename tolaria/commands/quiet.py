"""A Lightning that says nothing but what matters: Esper has a terminal of its own."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Mapping
from typing import Any, Final

import lightning.pytorch as pl
from lightning.fabric.utilities.warnings import PossibleUserWarning

QUIET_TRAINER: Final = {
    "logger": False,
    "enable_checkpointing": False,
    "enable_progress_bar": False,
    "enable_model_summary": False,
    "num_sanity_val_steps": 0,
}


def quiet_trainer(
    num_epochs: int, callbacks: list[pl.Callback], options: Mapping[str, Any], rng_seed: int
) -> pl.Trainer:
    """The trainer of a run, with every global random stream seeded.

    Args:
        options: the user's own arguments of the Trainer; they win.
    """
    merged = {"max_epochs": num_epochs, **QUIET_TRAINER, **options, "callbacks": callbacks}
    trainer = pl.Trainer(**merged)
    # Lightning takes 32 bits.
    pl.seed_everything(rng_seed % 2**32, verbose=False)
    return trainer


def quiet_lightning() -> None:
    """Hardware banners and tips on small settings are not what the user came for."""
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", category=PossibleUserWarning)
    warnings.filterwarnings("ignore", message=".*LeafSpec.*", category=FutureWarning)
