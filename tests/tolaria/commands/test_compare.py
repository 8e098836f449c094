"""`esper train --compare`: what it says while it trains the host alone."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.tolaria.commands.test_cli import TINY, esper

TESTED = TINY.replace(
    "    def configure_optimizers",
    "    def test_step(self, batch, batch_idx):\n"
    '        self.log("test_loss", self.training_step(batch, batch_idx))\n'
    "    def configure_optimizers",
).replace(
    "    def train_dataloader",
    "    def test_dataloader(self):\n"
    "        return self.train_dataloader()\n    def train_dataloader",
)
TRAIN = ("train", "tested:Model", "--data", "tested:Data", "--telemetry", "off", "--policy", "hold")


@pytest.fixture(autouse=True)
def _tiny(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TINY_BLOCKS", "")


@pytest.mark.filterwarnings("ignore:.*val_dataloader.*", "ignore:.*validation_step.*")
def test_it_says_what_it_costs_and_how_far_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Before the run, that the work is done again; then one line for each tenth of an arm, how
    long it took, and the table."""
    (tmp_path / "tested.py").write_text(TESTED)
    assert esper(monkeypatch, *TRAIN, "--epochs", "20", "--compare") == 0
    said = capfd.readouterr().out.splitlines()
    assert said[0].startswith("compare: after this run the host alone is trained twice")
    assert "as much work again" in said[0]
    arm = "host alone, same epochs"
    told = [line for line in said if line.startswith(f"{arm}: epoch ")]
    assert told == [f"{arm}: epoch {done} of 20" for done in range(2, 21, 2)]
    (took,) = [line for line in said if re.fullmatch(rf"{arm}: 20 epochs in [\d.]+ m?s", line)]
    (heading,) = [line for line in said if "test_loss" in line and "GFLOPs" in line]
    assert said.index(told[-1]) < said.index(took) < said.index(heading)


def test_without_a_test_split_nothing_is_trained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """It is refused before the run, which leaves no directory."""
    (tmp_path / "untested.py").write_text(TINY)
    data = ("--data", "untested:Data", "--telemetry", "off")
    assert esper(monkeypatch, "train", "untested:Model", *data, "--compare") == 2
    assert "give the model a test_step" in capfd.readouterr().err
    assert not (tmp_path / "runs").exists()
