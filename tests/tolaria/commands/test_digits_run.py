"""The default run, as a new user meets it: `esper train` on the digits, then the other commands."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import safetensors.torch
import torch

import kasmina
import oona
from leyline import RunEnded, limits
from tests.tolaria.commands import processes
from tolaria.data import load
from tolaria.disk.journal import read

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]


class FinishedRun(NamedTuple):
    """What is left of a run: its directory, what it printed, what `inspect --json` says of it."""

    path: Path
    printed: str
    inspected: dict[str, Any]


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> FinishedRun:
    """One whole default run, in a process of its own."""
    folder = tmp_path_factory.mktemp("digits")
    code, printed = processes.run("train", "--run-dir", "run", cwd=folder, timeout_s=170)
    assert code == 0, printed
    code, inspected = processes.run("inspect", "run", "--json", cwd=folder)
    assert code == 0, inspected
    return FinishedRun(folder / "run", printed, json.loads(inspected))


def test_grown_network_reads_digits(digits: FinishedRun) -> None:
    """From a host that stays below 70 %, growth reaches at least 93 % on the test split."""
    ended = [event for event in read(digits.path / "journal.bin") if isinstance(event, RunEnded)]

    assert ended[-1].metrics["test_acc"] >= 0.93
    assert f"{ended[-1].metrics['test_acc']:.4g}" in digits.printed


def test_a_seed_lives_its_whole_life(digits: FinishedRun) -> None:
    """At least one seed goes from DORMANT to FOSSILIZED through every stage between."""
    life = "DORMANT GERMINATED TRAINING GRAFTING STABILIZATION EVALUATING FINE_TUNING FOSSILIZED"

    assert life.split() in [seed["history"] for seed in digits.inspected["seeds"]]


def test_race_is_broad_and_explained(digits: FinishedRun) -> None:
    """The first race has at least 12 candidates of 5 kinds, each listed with gain and threshold."""
    scores = next(d["scores"] for d in digits.inspected["decisions"] if d["scores"])

    assert len(scores) >= 12
    assert len({score["blueprint"] for score in scores}) >= 5
    assert all(score["threshold"] > 0 for score in scores)
    assert sum(score["gain"] is not None for score in scores) >= 12
    chosen = [score for score in scores if score["chosen"]]
    assert all(score["gain"] > score["threshold"] for score in chosen)
    for score in chosen:
        assert f"{score['blueprint']}" in digits.printed


def test_boundary_is_far_below_its_limit(digits: FinishedRun) -> None:
    """The median boundary takes less than a quarter of its 18 ms, and its parts are printed."""
    totals = sorted(b["total_ms"] for b in digits.inspected["boundaries"])

    assert np.median(totals) < limits.BOUNDARY_MS / 4
    for part in ("gather", "decide", "apply", "p95"):
        assert part in digits.printed


def test_ledger_is_exact(digits: FinishedRun) -> None:
    """Every event offered was delivered, dropped or is queued, and none of them was lost here."""
    bus = digits.inspected["bus"]

    assert bus["offered"] == bus["delivered"] + bus["dropped"] + bus["queued"]
    assert bus["offered"] > 300
    assert bus["dropped"] == 0
    kept = list(oona.read(digits.path))
    assert len({envelope.sequence for envelope in kept}) == bus["delivered"]


def test_report_stands_alone(digits: FinishedRun) -> None:
    """The report is one file that fetches nothing, and names the grafted seeds."""
    page = (digits.path / "report.html").read_text()

    assert "<svg" in page
    assert "http" not in page
    fossils = [s for s in digits.inspected["seeds"] if s["stage"] == "FOSSILIZED"]
    assert all(seed["seed"] in page for seed in fossils)


def test_export_runs_with_torch_alone(digits: FinishedRun, tmp_path: Path) -> None:
    """The .pt2 file gives the live model's outputs, to the bit, where Esper cannot be imported."""
    code, said = processes.run("export", digits.path, "-o", "model.pt2", cwd=tmp_path)
    assert code == 0, said
    assert "any batch size" in said
    inputs = torch.rand(7, 1, 8, 8, generator=torch.Generator().manual_seed(3))
    torch.save(inputs, tmp_path / "inputs.pt")
    program = (
        "import sys, torch\n"
        "for name in ('kasmina', 'leyline', 'tolaria', 'oona', 'tamiyo'):\n"
        "    sys.modules[name] = None\n"
        "torch.set_num_threads(1)\n"  # another thread count sums in another order
        "model = torch.export.load('model.pt2').module()\n"
        "with torch.no_grad():\n"
        "    torch.save(model(torch.load('inputs.pt')), 'outputs.pt')"
    )
    subprocess.run([sys.executable, "-I", "-c", program], check=True, cwd=tmp_path)

    newest = sorted((digits.path / "checkpoints" / "active").iterdir())[-1]
    live = kasmina.load(load("digits").module, newest).eval()
    with torch.no_grad():
        assert torch.equal(torch.load(tmp_path / "outputs.pt"), live(inputs))


def test_weights_regrow_a_fresh_host(digits: FinishedRun, tmp_path: Path) -> None:
    """The .safetensors file grows a fresh host to the very network, weight for weight."""
    code, said = processes.run("export", digits.path, "-o", "model.safetensors", cwd=tmp_path)
    assert code == 0, said

    fresh = kasmina.load(load("digits", rng_seed=7).module, tmp_path / "model.safetensors")

    stored = safetensors.torch.load_file(tmp_path / "model.safetensors")
    assert all(torch.equal(value, stored[name]) for name, value in fresh.state_dict().items())
    assert set(fresh.state_dict()) == set(stored)
    assert kasmina.summary(fresh).grown_parameters > 0


def test_seeds_alone_make_the_same_network_of_the_trained_host(
    digits: FinishedRun, tmp_path: Path
) -> None:
    """--seeds-only writes no host weight; put on the host that the run has trained, the seeds give
    the whole network back. Another format is refused by name."""
    code, said = processes.run("export", digits.path, "-o", "a.safetensors", cwd=tmp_path)
    assert code == 0, said
    options = ("-o", "seeds.safetensors", "--seeds-only")
    code, said = processes.run("export", digits.path, *options, cwd=tmp_path)
    assert code == 0, said
    assert "the seeds alone" in said
    whole = kasmina.load(load("digits").module, tmp_path / "a.safetensors")
    host = kasmina.detach(kasmina.load(load("digits").module, tmp_path / "a.safetensors"))

    grown = kasmina.load(host, tmp_path / "seeds.safetensors").state_dict()

    stored = safetensors.torch.load_file(tmp_path / "seeds.safetensors")
    assert stored
    assert all(".esper." in name for name in stored)
    assert all(torch.equal(value, grown[name]) for name, value in whole.state_dict().items())
    options = ("-o", "seeds.pt2", "--seeds-only")
    code, said = processes.run("export", digits.path, *options, cwd=tmp_path)
    assert code != 0
    assert "seeds alone go to .safetensors" in said


def test_resume_of_a_finished_run_changes_nothing(digits: FinishedRun, tmp_path: Path) -> None:
    """Resuming a run that is over trains no further step and keeps its history."""
    before = len(list(read(digits.path / "journal.bin")))

    code, said = processes.run(
        "train", "--run-dir", digits.path, "--resume", "--telemetry", "off", cwd=tmp_path
    )

    assert code == 0, said
    assert len(list(read(digits.path / "journal.bin"))) >= before
    code, inspected = processes.run("inspect", digits.path, "--json", cwd=tmp_path)
    assert json.loads(inspected)["seeds"] == digits.inspected["seeds"]
