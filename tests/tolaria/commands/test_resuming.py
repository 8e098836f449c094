"""Which run `esper train --resume` goes on with where none is named."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest

from tests.tolaria.commands.test_cli import NAN_DATA, esper
from tolaria.commands.runs import newest_run
from tolaria.disk.run import RunDirectory

pytestmark = pytest.mark.filterwarnings("ignore:.*val_dataloader.*", "ignore:.*validation_step.*")

TRAIN = ("train", "--telemetry", "off", "--policy", "hold")
"""Trains little and saves that."""


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory, with a model whose data is sound, or not, as a file says."""
    source = NAN_DATA.replace('float("nan")', 'float(pathlib.Path("value").read_text())')
    source = "import pathlib" + source
    (tmp_path / "some.py").write_text(source)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    monkeypatch.delitem(sys.modules, "some", raising=False)
    return tmp_path


def train(monkeypatch: pytest.MonkeyPatch, value: str, *more: str) -> int:
    """`esper train` on data with this value in it; "nan" fails in the first epoch."""
    Path("value").write_text(value)
    model = () if "--resume" in more else ("some:Model", "--data", "some:Data")
    return esper(monkeypatch, *TRAIN, *model, *more)


def test_runs_that_failed_before_anything_was_saved_are_passed_over(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """The run with a checkpoint goes on, and each newer one is named with why it does not."""
    assert train(monkeypatch, "0.5", "--epochs", "1", "--run-dir", "runs/good") == 0
    assert train(monkeypatch, "nan", "--epochs", "1", "--run-dir", "runs/bad") == 2
    Path("runs/empty").mkdir()
    capfd.readouterr()
    assert train(monkeypatch, "0.5", "--epochs", "2", "--resume") == 0
    said = capfd.readouterr().out
    assert "passed over runs/bad: it ended before anything was saved" in said
    assert "resuming runs/good from step-00000004" in said
    assert "good finished" in said


def test_a_failed_run_that_has_a_checkpoint_goes_on(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """What was saved before the failure is not passed over."""
    assert train(monkeypatch, "0.5", "--epochs", "1", "--run-dir", "runs/first") == 0
    assert train(monkeypatch, "0.5", "--epochs", "1", "--run-dir", "runs/second") == 0
    assert train(monkeypatch, "nan", "--epochs", "2", "--resume", "--run-dir", "runs/second") == 2
    assert newest_run() == (Path("runs/second"), [])


def test_where_all_failed_the_newest_begins_again(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """There is nothing better to go on with; the data may have been mended since."""
    assert newest_run() == (None, [])
    for run in ("runs/a", "runs/b"):
        assert train(monkeypatch, "nan", "--epochs", "1", "--run-dir", run) == 2
    capfd.readouterr()
    assert train(monkeypatch, "0.5", "--epochs", "1", "--resume") == 0
    assert "nothing saved yet in runs/b: starting from the beginning" in capfd.readouterr().out


def test_a_run_whose_checkpoints_are_gone_is_not_trained_over(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Its journal tells that it had some: an error, and the history stays."""
    assert train(monkeypatch, "0.5", "--epochs", "2", "--run-dir", "runs/a") == 0
    before = Path("runs/a/journal.bin").read_bytes()
    shutil.rmtree("runs/a/checkpoints")
    assert train(monkeypatch, "0.5", "--epochs", "3", "--resume") == 2
    assert "runs/a has no whole checkpoint left" in capfd.readouterr().err
    assert Path("runs/a/journal.bin").read_bytes() == before


def test_a_finished_run_is_said_to_be_finished(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Nothing is trained or summed up; the words name the option with which it does go on."""
    assert train(monkeypatch, "0.5", "--epochs", "1", "--run-dir", "runs/a") == 0
    before = Path("runs/a/journal.bin").read_bytes()
    capfd.readouterr()
    assert train(monkeypatch, "0.5", "--resume") == 0
    said = capfd.readouterr().out.splitlines()
    assert len(said) == 1
    assert said[0].startswith("runs/a is finished: 1 epoch done; --epochs N")
    assert Path("runs/a/journal.bin").read_bytes() == before
    assert train(monkeypatch, "0.5", "--resume", "--epochs", "2") == 0
    assert "resuming runs/a from step-00000004" in capfd.readouterr().out


def test_where_there_is_no_run_and_no_model_nothing_is_trained(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """A bare --resume in the wrong directory is an error, not a run of the built-in host."""
    assert train(monkeypatch, "0.5", "--resume") == 2
    assert "nothing to resume in ./runs" in capfd.readouterr().err
    assert not Path("runs").exists()


def test_a_run_in_use_is_refused_before_a_resume_is_announced(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """The only word is that it is in use."""
    assert train(monkeypatch, "0.5", "--epochs", "1", "--run-dir", "runs/a") == 0
    capfd.readouterr()
    with RunDirectory.open(Path("runs/a")):
        assert train(monkeypatch, "0.5", "--resume", "--epochs", "2") == 2
    said = capfd.readouterr()
    assert said.out == ""
    assert "already open in this process" in said.err
