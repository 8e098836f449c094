"""`esper train --dry-run`: it says what a run would do, and leaves no trace."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

import oona.servers.embedded
from tests.tolaria.commands.test_cli import NAN_DATA, esper

CONFIG = """
model = "small:Model"
data = "small:Data"
epochs = 20
[trainer]
logger = true
enable_checkpointing = true
[esper]
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory with a config and a model, in which no step may be trained."""
    model = NAN_DATA.replace('float("nan")', "0.5").replace("torch.optim.SGD", "Untrainable")
    model = model.replace(
        "class Model",
        "class Untrainable(torch.optim.AdamW):\n"
        "    def step(self, closure=None):\n"
        '        raise AssertionError("a step was trained")\n\n'
        "class Model",
    )
    model = model.replace(
        "class Data(pl.LightningDataModule):",
        "    def validation_step(self, batch, batch_idx):\n"
        '        self.log("val_loss", self.training_step(batch, batch_idx))\n\n'
        "class Data(pl.LightningDataModule):\n"
        "    def val_dataloader(self):\n"
        "        return self.train_dataloader()\n",
    )
    (tmp_path / "small.py").write_text(model)
    (tmp_path / "c.toml").write_text(CONFIG)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    monkeypatch.delitem(sys.modules, "small", raising=False)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    return tmp_path


def dry_run(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    return esper(monkeypatch, "train", "c.toml", "--dry-run", *arguments)


def test_it_says_what_would_happen_and_leaves_no_trace(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """No step is trained, no file written, no server started, also where the trainer's own options
    ask for logs and checkpoints; what is said is what the first race would be."""

    def refuse(*arguments: object) -> None:
        raise AssertionError("a server was started")

    monkeypatch.setattr(oona.servers.embedded.EmbeddedServer, "__init__", refuse)
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    assert dry_run(monkeypatch) == 0
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before
    said = capfd.readouterr().out
    assert "model: Model, 10 parameters; Untrainable" in said
    assert "data: small:Data; 20 epochs of 4 steps; validation data decides" in said
    assert "net: shape (2, 2)" in said
    assert "growth: first after epoch 2: race of " in said
    assert "trained for 50 steps; the best 16 to 100, the best 4 to 200" in said
    # 10 float32, their gradients, and the two moments that AdamW keeps of each.
    assert "the run about 160 B" in said
    assert "two snapshots 240 B" in said
    assert "18 ms at p95" in said
    assert "run: a new dated directory in runs/" in said


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ('sites = ["encoder.*"]', ["sites", "encoder.*", "net"]),
        ('policy = "schedule"\nschedule = [[1, "head", "norm"]]', ["schedule", "'head'", "net"]),
        ('policy = "schedule"\nschedule = [[1, "net", "conv"]]', ["'conv'", "does not fit", "net"]),
        ('run_dir = "."', ["not empty", "run-dir"]),
        ('grafting = "stability"\ngrafting_options = {hold = 3.0}', ["hold"]),
    ],
)
def test_what_a_run_would_refuse_is_refused(
    settings: str,
    expected: list[str],
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    """A pattern, schedule or directory that is wrong ends it with exit code 2 and one line."""
    (folder / "c.toml").write_text(CONFIG + settings)
    assert dry_run(monkeypatch) == 2
    last = capfd.readouterr().err.splitlines()[-1]
    assert last.startswith("esper: ")
    assert all(word in last for word in expected), last


def test_a_policy_that_would_not_grow_says_why(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Held, there are no sites; with a budget of nothing, no race is called, and why not."""
    assert dry_run(monkeypatch, "--policy", "hold") == 0
    assert "sites: none: nothing may grow" in capfd.readouterr().out
    (folder / "c.toml").write_text(CONFIG + "param_budget = 0")
    assert dry_run(monkeypatch) == 0
    (line,) = [line for line in capfd.readouterr().out.splitlines() if "growth: none: " in line]
    assert "; then no candidate fits the 0 parameters left; then the growth window has" in line


def test_boundaries_within_an_epoch_and_a_control_arm_are_told(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Growth is foretold in boundaries where they are not epochs: 40 of them warm up until 4."""
    (folder / "c.toml").write_text(CONFIG + "boundary_every_steps = 2\nrollout_percentage = 0")
    assert dry_run(monkeypatch) == 0
    said = capfd.readouterr().out
    assert "control arm: net" in said
    assert "draws its control arm anew" in said
    assert "growth: none: warming up until epoch 4; then " in said
    (folder / "c.toml").write_text(CONFIG + "boundary_every_steps = 2")
    assert dry_run(monkeypatch) == 0
    assert "growth: first after boundary 4: race of " in capfd.readouterr().out
