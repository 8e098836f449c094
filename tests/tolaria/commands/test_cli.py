"""What the command line says to mistakes, and how fast it answers."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import lightning
import pytest
import torch

from tests.tolaria.disk.test_seed_records import no_file_larger_than
from tolaria.__main__ import main
from tolaria.disk.run import RunDirectory

Mistake = Callable[[Path], list[str]]

NAN_DATA = """
import torch, lightning.pytorch as pl
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

class Model(pl.LightningModule):
    def __init__(self):
        super().__init__()
        self.net = nn.Linear(4, 2)
    def training_step(self, batch, batch_idx):
        return nn.functional.cross_entropy(self.net(batch[0]), batch[1])
    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)

class Data(pl.LightningDataModule):
    def train_dataloader(self):
        inputs = torch.randn(8, 4, generator=torch.Generator().manual_seed(0))
        inputs[5, 2] = float("nan")
        labels = torch.zeros(8, dtype=torch.long)
        return DataLoader(TensorDataset(inputs, labels), batch_size=2)
"""


TINY = NAN_DATA.replace('float("nan")', "0.5").replace(
    "    def configure_optimizers",
    """    def on_train_end(self):
        import os, pathlib
        if os.environ["TINY_BLOCKS"]:
            pathlib.Path(os.environ["TINY_BLOCKS"], "report.html").mkdir()
    def configure_optimizers""",
)


def esper(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    """Run the command line in this process; the exit code."""
    monkeypatch.setattr(sys, "argv", ["esper", *arguments])
    with pytest.raises(SystemExit) as exit_info:
        main()
    assert isinstance(exit_info.value.code, int)
    return exit_info.value.code


def write(path: Path, text: str) -> str:
    path.write_text(text)
    return str(path)


MISTAKES: dict[str, tuple[Mistake, list[str]]] = {
    "unknown option": (lambda _: ["train", "--epoch", "3"], ["--epoch", "--epochs"]),
    "missing config": (lambda _: ["train", "none.toml"], ["none.toml", "does not exist"]),
    "config that is not TOML": (
        lambda d: ["train", write(d / "c.toml", "epochs = = 3")],
        ["c.toml", "TOML"],
    ),
    "unknown top-level key": (
        lambda d: ["train", write(d / "c.toml", "epoch = 3")],
        ["c.toml", "'epoch'", "did you mean 'epochs'?"],
    ),
    "unknown setting": (
        lambda d: ["train", write(d / "c.toml", "[esper]\nparam_buget = 3")],
        ["c.toml", "[esper]", "param_buget", "param_budget"],
    ),
    "setting at the top level": (
        lambda d: ["train", write(d / "c.toml", "epochs = 3\nparam_budget = 3")],
        ["c.toml", "param_budget", "under [esper]"],
    ),
    "a name where a list is meant": (
        lambda d: ["train", write(d / "c.toml", '[esper]\nblueprints = "gated"')],
        ["blueprints", "give a list: ['gated']"],
    ),
    "unknown blueprint": (
        lambda d: ["train", write(d / "c.toml", '[esper]\nblueprints = ["gatd_mlp"]')],
        ["'gatd_mlp'", "did you mean 'gated_mlp'?", "kasmina.register("],
    ),
    "wrong type": (
        lambda d: ["train", write(d / "c.toml", "[esper]\nveto = 3")],
        ["veto", "bool"],
    ),
    "no such module": (
        lambda _: ["train", "nowhere.at_all:Model", "--data", "digits"],
        ["nowhere", "module"],
    ),
    "no such class": (
        lambda _: ["train", "tolaria.data.classifier:Clasifier", "--data", "digits"],
        ["Clasifier", "Classifier"],
    ),
    "not a LightningModule": (
        lambda _: ["train", "tolaria.config:EsperConfig", "--data", "digits"],
        ["EsperConfig", "LightningModule"],
    ),
    "model without data": (
        lambda _: ["train", "tolaria.data.classifier:Classifier"],
        ["Classifier", "--data", "digits"],
    ),
    "neither config nor model": (
        lambda _: ["train", "proj.model"],
        ["proj.model", "CONFIG.toml", "package.module:"],
    ),
    "unknown data": (lambda _: ["train", "--data", "mnist"], ["mnist", "digits", "mnist1d"]),
    "data that is not there": (
        lambda d: ["train", "--data", "fashion-mnist", "--data-dir", str(d)],
        ["dataset-fashion-mnist", "--data-dir"],
    ),
    "no epochs": (lambda _: ["train", "--epochs", "0"], ["epochs", "0", "1"]),
    "negative rng_seed": (lambda _: ["train", "--rng-seed", "-1"], ["rng_seed", "-1", "0 to 9223"]),
    "rng_seed of 64 bits": (
        lambda _: ["train", "--rng-seed", str(2**63)],
        ["rng_seed", str(2**63), f"0 to {2**63 - 1}"],
    ),
    "malformed telemetry": (
        lambda _: ["train", "--telemetry", "http://x"],
        ["http", "redis://"],
    ),
    "unknown policy": (lambda _: ["train", "--policy", "grow"], ["grow", "heuristic", "hold"]),
    "a dry run of a resume": (
        lambda _: ["train", "--dry-run", "--resume"],
        ["--dry-run", "leave out --resume"],
    ),
    "settings of a file that is not there": (
        lambda _: ["config", "show", "none.toml"],
        ["none.toml", "does not exist"],
    ),
    "a start where there is one": (
        lambda d: ["init", str(Path(write(d / "esper.toml", "")).parent)],
        ["esper.toml", "would be overwritten", "esper init DIR"],
    ),
    "no such run": (lambda _: ["inspect", "runs/none"], ["runs/none"]),
    "export of nothing": (lambda _: ["export", "none", "-o", "m.pt2"], ["none"]),
    "unknown export format": (lambda _: ["export", "none", "-o", "m.onnx"], [".onnx", ".pt2"]),
    "watch of nothing": (lambda _: ["watch", "none"], ["none", "unix://"]),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistake_is_one_line_and_writes_nothing(
    mistake: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    """A user's mistake ends with exit code 2, one line that names it, and no new file."""
    monkeypatch.chdir(tmp_path)
    arguments, expected = MISTAKES[mistake][0](tmp_path), MISTAKES[mistake][1]
    before = sorted(tmp_path.rglob("*"))

    code = esper(monkeypatch, *arguments)

    said = capfd.readouterr().err.splitlines()
    assert code == 2
    assert len(said) == 1
    assert said[0].startswith("esper: ")
    assert all(word in said[0] for word in expected), said[0]
    assert sorted(tmp_path.rglob("*")) == before


def test_a_misspelt_variable_is_named_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """`esper train` says of a variable that it changes nothing, before anything is trained."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ESPER_PARAM_BUGET", "3")
    assert esper(monkeypatch, "train", "--telemetry", "http://x") == 2
    said = [r.getMessage() for r in caplog.records if "ESPER_PARAM_BUGET" in r.getMessage()]
    assert len(said) == 1
    assert "did you mean ESPER_PARAM_BUDGET?" in said[0]


def test_held_run_directory_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """A run directory that a live process holds is refused by its number, and left as it was."""
    monkeypatch.chdir(tmp_path)
    with RunDirectory.create(tmp_path / "held", now=datetime.now(tz=UTC)):
        before = sorted(tmp_path.rglob("*"))
        code = esper(monkeypatch, "train", "--run-dir", "held", "--resume", "--telemetry", "off")

        assert sorted(tmp_path.rglob("*")) == before
    said = capfd.readouterr().err
    assert code == 2
    assert "held" in said.splitlines()[-1]


def test_existing_run_is_not_overwritten(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Training into an existing run without --resume is refused and says so."""
    RunDirectory.create(tmp_path / "old", now=datetime.now(tz=UTC)).close()
    monkeypatch.chdir(tmp_path)

    code = esper(monkeypatch, "train", "--run-dir", "old", "--telemetry", "off")

    assert code == 2
    assert "--resume" in capfd.readouterr().err


def test_a_report_that_the_disk_refuses_is_one_line_and_costs_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """`esper report` ends like every mistake, and the report there was is as it was."""
    with RunDirectory.create(tmp_path / "run", now=datetime.now(tz=UTC)) as run:
        run.report.write_text("the old one")
    before = sorted(tmp_path.rglob("*"))
    with no_file_larger_than(1000):
        code = esper(monkeypatch, "report", str(tmp_path / "run"))
    assert code == 2
    (line,) = capfd.readouterr().err.splitlines()
    assert line.startswith("esper: ")
    assert "report.html could not be written" in line
    assert "free some space" in line
    assert run.report.read_text() == "the old one"
    assert sorted(tmp_path.rglob("*")) == before


def test_the_summary_lists_only_a_report_that_was_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """With its place taken the run ends well, says why there is none, and names no report."""
    (tmp_path / "tiny.py").write_text(TINY)
    monkeypatch.chdir(tmp_path)
    arguments = ["train", "tiny:Model", "--data", "tiny:Data", "--epochs", "1", "--rng-seed"]
    # Above the 32 bits that Lightning takes.
    arguments += [str(2**40), "--telemetry", "off", "--policy", "hold", "--run-dir"]
    listed = []
    for name in ("whole", "refused"):
        monkeypatch.setenv("TINY_BLOCKS", name if name == "refused" else "")
        assert esper(monkeypatch, *arguments, name) == 0
        listed.append("report.html" in capfd.readouterr().out)
    assert listed == [True, False]


@pytest.mark.filterwarnings("ignore:.*val_dataloader.*", "ignore:.*validation_step.*")
def test_nan_in_the_data_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """A NaN in a training batch ends the run with one line that names the epoch and the step."""
    (tmp_path / "nan_data.py").write_text(NAN_DATA)
    monkeypatch.chdir(tmp_path)

    code = esper(
        monkeypatch, "train", "nan_data:Model", "--data", "nan_data:Data", "--telemetry", "off"
    )

    last = capfd.readouterr().err.splitlines()[-1]
    assert code == 2
    assert last.startswith("esper: ")
    assert "epoch 1, step 3" in last
    assert "NaN" in last


def test_the_versions_are_those_of_the_packages(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """`esper --version` has a line for each of the four that a bug report needs."""
    assert esper(monkeypatch, "--version") == 0
    said = dict(line.split() for line in capsys.readouterr().out.splitlines())
    assert said == {
        "esper": version("esper-morphogenesis"),
        "torch": torch.__version__,
        "lightning": lightning.__version__,
        "python": ".".join(map(str, sys.version_info[:3])),
    }


@pytest.mark.parametrize("option", ["--help", "--version"])
def test_help_is_fast_and_imports_no_torch(option: str) -> None:
    """It answers in under half a second, because it imports neither torch nor numpy."""
    program = (
        f"import sys\nsys.argv = ['esper', '{option}']\nfrom tolaria.__main__ import main\n"
        "try:\n    main()\nexcept SystemExit as done:\n"
        "    heavy = {'torch', 'numpy', 'lightning'} & set(sys.modules)\n"
        "    sys.exit(done.code or sorted(heavy) or 0)"
    )
    took_s = []
    for _ in range(4):
        start_s = time.perf_counter()
        subprocess.run([sys.executable, "-c", program], check=True, stdout=subprocess.DEVNULL)
        took_s.append(time.perf_counter() - start_s)

    assert min(took_s[1:]) < 0.5
