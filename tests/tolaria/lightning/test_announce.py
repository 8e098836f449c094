"""What a Lightning user's own log says of growth."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.tolaria.lightning.models import (
    MLP,
    PLANT,
    SITE,
    esper,
    fit,
)


def test_decisions_are_said_in_lightnings_own_log(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A script's user reads one line for the run, for each decision with its cause, and the end."""
    with caplog.at_level("INFO", logger="lightning.pytorch"):
        fit(MLP, [esper(tmp_path / "run", schedule=[(1, SITE, "norm")])], max_epochs=2)

    said = [r.getMessage() for r in caplog.records if r.getMessage().startswith("Esper: ")]
    assert said[0].startswith("Esper: run ")
    assert any("epoch 1: try norm" in line and "scheduled" in line for line in said)
    assert said[-1].startswith("Esper: finished after epoch 2")
    assert said[-1].endswith(f"report: {tmp_path / 'run' / 'report.html'}")


def test_a_resumed_run_says_where_it_goes_on(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Its line has the epoch, and the parameters of the model as it has grown."""
    options = {"schedule": PLANT, "veto": False, "checkpoint": True}
    _, model = fit(MLP, [esper(tmp_path / "run", **options)], max_epochs=4)
    grown = sum(p.numel() for p in model.parameters())
    assert grown > sum(p.numel() for p in MLP().parameters())
    newest = max((tmp_path / "run" / "checkpoints" / "active").iterdir())
    caplog.clear()
    with caplog.at_level("INFO", logger="lightning.pytorch"):
        fit(MLP, [esper(tmp_path / "run", **options)], max_epochs=5, ckpt_path=newest)

    said = [r.getMessage() for r in caplog.records if r.getMessage().startswith("Esper: ")]
    assert said[0] == f"Esper: run run goes on after epoch 4, {grown} parameters"
