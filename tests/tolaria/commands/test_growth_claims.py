"""What growth finds, over several RNG seeds: the network that is missing, and nothing else."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pytest
import torch

from leyline import SeedReport, Stage
from tests.tolaria.commands import processes
from tolaria import EsperCallback
from tolaria.commands.quiet import QUIET_TRAINER
from tolaria.data import digits_host, load

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


def grow(
    folder: Path, rng_seed: int, *, net: torch.nn.Module | None = None, **data: Any
) -> tuple[EsperCallback, float]:
    """One digits run: the callback and the accuracy on the test split."""
    task = load("digits", rng_seed=rng_seed, **data)
    if net is not None:
        task.module.net = net
    return _fit(
        folder, task, [EsperCallback(run_dir=str(folder), telemetry="off", checkpoint=False)]
    )


def _fit(folder: Path, task: Any, callbacks: list[Any]) -> tuple[Any, float]:
    trainer = pl.Trainer(max_epochs=task.num_epochs, callbacks=callbacks, **QUIET_TRAINER)
    trainer.fit(task.module, task.data)
    tested = trainer.test(task.module, task.data, verbose=False)[0]
    return (callbacks[0] if callbacks else None), tested["test_acc"]


def grafted(callback: EsperCallback) -> list[dict[str, Any]]:
    return [seed for seed in callback.report()["seeds"] if "GRAFTING" in seed["history"]]


@pytest.mark.parametrize("rng_seed", [1, 2, 3])
def test_growth_finds_the_missing_network(tmp_path: Path, rng_seed: int) -> None:
    """For three RNG seeds the default run reaches 93 % and fossilizes at least one seed."""
    callback, accuracy = grow(tmp_path / "run", rng_seed)

    assert accuracy >= 0.93
    assert any(seed["stage"] == "FOSSILIZED" for seed in callback.report()["seeds"])
    assert any("conv" in seed["blueprint"] for seed in grafted(callback))  # it sees neighbours


def test_growth_finds_nothing_where_nothing_is(tmp_path: Path) -> None:
    """With shuffled labels at least four of five runs graft nothing."""
    runs = [grow(tmp_path / str(n), n, shuffle_labels=True)[0] for n in range(5)]

    assert sum(not grafted(callback) for callback in runs) >= 4


def test_host_that_sees_already_is_not_made_worse(tmp_path: Path) -> None:
    """A host of 3x3 convolutions ends no more than noise (1 point) below itself ungrown."""
    grown, alone = [], []
    for rng_seed in range(3):
        torch.manual_seed(rng_seed)
        host = digits_host(kernel_size=3)
        twin = digits_host(kernel_size=3)
        twin.load_state_dict(host.state_dict())
        grown.append(grow(tmp_path / str(rng_seed), rng_seed, net=host)[1])
        task = load("digits", rng_seed=rng_seed)
        task.module.net = twin
        alone.append(_fit(tmp_path, task, [])[1])

    assert sum(grown) / 3 >= sum(alone) / 3 - 0.01


def test_same_seed_same_growth(tmp_path: Path) -> None:
    """Two runs with the same RNG seed take the same decisions and end with the same accuracy."""
    seen = []
    for number in range(2):
        task = load("digits", rng_seed=5, num_epochs=8)
        callback = EsperCallback(run_dir=str(tmp_path / str(number)), telemetry="off")
        transitions: list[tuple[Any, ...]] = []
        callback.listeners.append(
            lambda event, kept=transitions: (
                kept.append((event.epoch, event.seed, event.was, event.now))
                if isinstance(event, SeedReport)
                else None
            )
        )
        _, accuracy = _fit(tmp_path, task, [callback])
        seen.append((transitions, accuracy))

    assert seen[0] == seen[1]
    assert any(now == Stage.GRAFTING for *_, now in seen[0][0])


def test_compare_prints_three_arms_on_the_test_split(tmp_path: Path) -> None:
    """`--compare` trains the host alone for the same epochs and for the same FLOPs."""
    arguments = ("train", "--epochs", "6", "--telemetry", "off", "--compare")
    code, printed = processes.run(*arguments, cwd=tmp_path, timeout_s=250)

    assert code == 0, printed
    table = printed[printed.index("test split") :].splitlines()
    rows = {line.split("  ")[0].strip(): line.split() for line in table if line.strip()}
    assert {"grown", "host alone, same epochs", "host alone, same FLOPs"} <= set(rows)
    flops = {arm: float(rows[arm][-3].replace(",", "")) for arm in rows if "alone" in arm}
    grown = float(rows["grown"][-3].replace(",", ""))
    assert flops["host alone, same epochs"] < grown
    assert flops["host alone, same FLOPs"] == pytest.approx(grown, rel=0.05)
