"""What a run with growth gives to the user's own loggers."""

from __future__ import annotations

import csv
from pathlib import Path

from lightning.pytorch.callbacks import LearningRateMonitor
from lightning.pytorch.loggers import CSVLogger

from tests.tolaria.lightning.models import MLP, PLANT, STEPS_PER_EPOCH, esper, fit


def test_loggers_get_growth_once_per_boundary(tmp_path: Path) -> None:
    """A CSVLogger has one row of esper/* for each boundary; callback_metrics has none."""
    logger = CSVLogger(tmp_path / "logs", name="", version="")
    callback = esper(tmp_path / "run", schedule=PLANT)
    trainer, model = fit(MLP, [callback], logger=logger, max_epochs=4)
    with (tmp_path / "logs" / "metrics.csv").open() as stream:
        rows = [row for row in csv.DictReader(stream) if row["esper/parameters"]]
    assert [int(row["step"]) for row in rows] == [STEPS_PER_EPOCH * n for n in (1, 2, 3, 4)]
    host = sum(p.numel() for p in MLP().parameters())
    grown = sum(p.numel() for p in model.parameters())
    assert [float(row["esper/parameters"]) for row in rows] == [host, grown, grown, grown]
    assert [row["esper/commands"] for row in rows] == ["1.0", "1.0", "1.0", "1.0"]
    assert rows[-1]["esper/seeds_evaluating"] == "1"
    assert not [name for name in trainer.callback_metrics if "esper" in name]
    assert not [name for name in trainer.logged_metrics if "esper" in name]


def test_learning_rates_of_seeds_can_be_watched(tmp_path: Path) -> None:
    """LearningRateMonitor goes on through graft and cull, with a key per group while there are
    several; the key of one group alone holds no value then."""
    logger = CSVLogger(tmp_path / "logs", name="", version="")
    callback = esper(tmp_path / "run", schedule=PLANT)
    fit(MLP, [callback, LearningRateMonitor()], logger=logger, max_epochs=6, log_every_n_steps=1)
    with (tmp_path / "logs" / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    keys = ("lr-AdamW", "lr-AdamW/pg1", "lr-AdamW/pg2")
    written = {tuple(bool(row[key]) for key in keys) for row in rows}
    assert written - {(False, False, False)} == {(True, False, False), (False, True, True)}


def test_a_resumed_run_logs_at_the_steps_of_an_undisturbed_one(tmp_path: Path) -> None:
    """From whichever boundary it goes on, its values stand at the same places of the axis."""

    def logged(name: str, ckpt_path: Path | None = None) -> list[str]:
        logger = CSVLogger(tmp_path / "logs", name="", version=name)
        callback = esper(tmp_path / name, checkpoint=True, keep_checkpoints=9)
        fit(MLP, [callback], logger=logger, ckpt_path=ckpt_path, log_every_n_steps=1)
        with (tmp_path / "logs" / name / "metrics.csv").open() as file:
            return [row["step"] for row in csv.DictReader(file) if row["train_loss"]]

    whole = logged("whole")
    assert whole == [str(step) for step in range(3 * STEPS_PER_EPOCH)]
    for num_done in (1, 2):
        num_steps = num_done * STEPS_PER_EPOCH
        path = tmp_path / "whole" / "checkpoints" / "active" / f"step-{num_steps:08d}"
        assert logged(f"after {num_done}", path) == whole[num_steps:]
