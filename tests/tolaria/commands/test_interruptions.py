"""Runs that are killed, interrupted or robbed of their server end as if nothing had happened."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import pytest
import safetensors.torch
import torch
from torch import Tensor

import oona
from leyline import Fault, RunEnded, StepMetrics
from tests.tolaria.commands import processes
from tolaria.disk.journal import read

pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]

NUM_EPOCHS = 12
ROOT = Path(__file__).parents[3]
WITH_WORKERS = """\
model = "tests.reliability.stopping:Model"
data = "tests.reliability.stopping:Data"
data_args = {num_workers = 2}
epochs = 1000
threads = 1
[esper]
policy = "hold"
keep_checkpoints = 1000
"""


def train(run: str, *more: str) -> tuple[str, ...]:
    return ("train", "--epochs", str(NUM_EPOCHS), "--run-dir", run, *more)


def weights(run_dir: Path) -> dict[str, Tensor]:
    """The weights of a run's newest checkpoint."""
    newest = sorted((run_dir / "checkpoints" / "active").iterdir())[-1]
    return safetensors.torch.load_file(newest / "model.safetensors")


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return list(one) == list(other) and all(torch.equal(one[n], other[n]) for n in one)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that nothing happened to."""
    folder = tmp_path_factory.mktemp("undisturbed")
    code, printed = processes.run(*train("run", "--telemetry", "off"), cwd=folder)
    assert code == 0, printed
    assert "graft " in printed
    return folder / "run"


@pytest.mark.parametrize("killed_after", [1, 5])
def test_killed_run_resumes_exactly(undisturbed: Path, tmp_path: Path, killed_after: int) -> None:
    """SIGKILL in the middle of an epoch, then --resume: the final weights are the same bits.

    Epoch 5 is in the middle of a graft's ramp, with a race before it and another to come.
    """
    process = processes.start(*train("run"), cwd=tmp_path)
    processes.wait_until(processes.checkpoint(tmp_path / "run", killed_after).is_dir)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    assert not same(weights(tmp_path / "run"), weights(undisturbed))

    code, printed = processes.run(*train("run", "--resume"), cwd=tmp_path)

    assert code == 0, printed
    assert "resuming" in printed
    assert same(weights(tmp_path / "run"), weights(undisturbed))
    ledger = oona.ledger(tmp_path / "run")
    assert ledger.offered == ledger.delivered + ledger.dropped + ledger.queued


def test_resume_with_nothing_saved_starts_over(undisturbed: Path, tmp_path: Path) -> None:
    """A run killed before its first checkpoint, or none at all, starts from the beginning."""
    process = processes.start(*train("run"), cwd=tmp_path)
    processes.wait_until((tmp_path / "run" / "spec.json").is_file)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()

    code, printed = processes.run(*train("run", "--resume", "--telemetry", "off"), cwd=tmp_path)

    assert code == 0, printed
    assert "beginning" in printed
    assert same(weights(tmp_path / "run"), weights(undisturbed))


def test_flags_of_a_run_are_kept(tmp_path: Path) -> None:
    """A bare --resume goes on with the settings that flags gave; a changed one is named."""
    flags = ("--policy", "hold", "--telemetry", "off", "--epochs", "3")
    code, printed = processes.run("train", "--run-dir", "r", *flags, cwd=tmp_path)
    assert code == 0, printed
    resume = ("train", "--resume", "--run-dir", "r", "--epochs")
    code, printed = processes.run(*resume, "5", cwd=tmp_path)
    assert code == 0, printed
    assert "race" not in printed
    code, printed = processes.run(*resume, "6", "--telemetry", "memory", cwd=tmp_path)
    assert code == 0, printed
    assert "telemetry was off, now memory" in printed


def test_interrupt_leaves_a_resumable_run(undisturbed: Path, tmp_path: Path) -> None:
    """Ctrl-C ends the run in order; a bare --resume goes on with it to the same bits."""
    process = processes.start(*train("runs/run"), cwd=tmp_path)
    processes.wait_until(processes.checkpoint(tmp_path / "runs" / "run", 4).is_dir)
    os.kill(process.pid, signal.SIGINT)
    printed, _ = process.communicate(timeout=60)
    assert process.returncode == 130, printed
    assert "--resume" in printed
    ended = [e for e in read(tmp_path / "runs" / "run" / "journal.bin") if isinstance(e, RunEnded)]
    assert [event.status for event in ended] == ["interrupted"]

    code, printed = processes.run("train", "--resume", cwd=tmp_path)

    assert code == 0, printed
    assert same(weights(tmp_path / "runs" / "run"), weights(undisturbed))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_to_workers_too_ends_the_run_in_order(
    number: signal.Signals, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a terminal and `timeout` send it, to every process of the group: a loader's workers die,
    the embedded server is stopped, and the run is interrupted, not failed, whatever breaks."""
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    (tmp_path / "c.toml").write_text(WITH_WORKERS)
    for attempt in range(3):
        run = tmp_path / f"run{attempt}"
        process = processes.start("train", "c.toml", "--run-dir", run, cwd=tmp_path)
        processes.wait_until(processes.checkpoint(run, 2 + attempt, steps_per_epoch=6).is_dir)
        os.killpg(process.pid, number)
        printed, _ = process.communicate(timeout=60)
        assert process.returncode == 128 + number, printed
        assert "interrupted; the same command" in printed
        ended = [e.status for e in read(run / "journal.bin") if isinstance(e, RunEnded)]
        assert ended == ["interrupted"]


def test_death_of_the_server_does_not_change_the_weights(undisturbed: Path, tmp_path: Path) -> None:
    """With the embedded server killed early, training ends alike and the ledger stays exact."""
    process = processes.start(*train("run"), cwd=tmp_path)
    processes.wait_until(processes.checkpoint(tmp_path / "run", 1).is_dir)
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    names = {int(pid): Path(f"/proc/{pid}/comm").read_text().strip() for pid in children}
    server = next(pid for pid, name in names.items() if name == "valkey-server")
    os.kill(server, signal.SIGKILL)

    printed, _ = process.communicate(timeout=120)

    assert process.returncode == 0, printed
    assert same(weights(tmp_path / "run"), weights(undisturbed))
    code, inspected = processes.run("inspect", "run", "--json", cwd=tmp_path)
    assert code == 0, inspected
    bus = json.loads(inspected)["bus"]
    assert bus["offered"] == bus["delivered"] + bus["dropped"] + bus["queued"]
    assert bus["queued"] + bus["dropped"] >= 100
    assert not [e for e in read(tmp_path / "run" / "journal.bin") if isinstance(e, Fault)]
    # What the server never got is still there for the next reader.
    events = [envelope.event for envelope in oona.read(tmp_path / "run")]
    num_steps = sum(1 + len(e.earlier) for e in events if isinstance(e, StepMetrics))
    assert num_steps == NUM_EPOCHS * 37


def test_watch_follows_from_the_url_alone(tmp_path: Path) -> None:
    """`esper watch URL` shows the decisions of a live run that it knows nothing else of."""
    process = processes.start(*train("run"), cwd=tmp_path)
    address = tmp_path / "run" / "bus.json"
    processes.wait_until(address.is_file)
    url = json.loads(address.read_text())["url"]

    code, watched = processes.run("watch", url, cwd=tmp_path)
    printed, _ = process.communicate(timeout=60)

    assert code == 0, watched
    assert process.returncode == 0
    assert f"epoch {NUM_EPOCHS}/{NUM_EPOCHS}" in watched
    decided = [line for line in printed.splitlines() if ": race of " in line or ": graft " in line]
    assert decided
    assert all(line in watched for line in decided)
