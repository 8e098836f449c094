"""What a Lightning user's own log says of growth."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.tolaria.lightning.models import (
    MLP,
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
