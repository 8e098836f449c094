"""A hand-written loop that is killed and run again ends in the same bits.

Run as a script, this file kills forked children: `kill_often`.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.optim import Optimizer

from leyline import CheckpointError, ConfigError, Decision, Event, RunError
from tests.golden.make import digests
from tests.reliability.plugin import Faults
from tests.tolaria.plain_loops import (
    HELD_OUT,
    TRAIN,
    adam,
    assert_tracked,
    attach,
    copy_of,
    evaluate,
    loss_fn,
    make_host,
    streams,
    train_epoch,
)
from tests.tolaria.plain_loops import one_thread as one_thread
from tolaria.disk.files import FileOps
from tolaria.disk.journal import read

ROOT = Path(__file__).parents[3]
NUM_EPOCHS = 5
SCHEDULE = ((1, "conv", "conv"), (2, "head", "low_rank"))
PRIMITIVES = ("mkdir", "write", "append", "truncate", "rename", "remove", "rmdir")
PRIMITIVES += ("fsync", "fsync_dir")


NO_TRIALS: dict[str, Any] = {"data": None, "loss_fn": None, "example": TRAIN[0][0]}
TRIALS: dict[str, Any] = {"data": (TRAIN, HELD_OUT), "loss_fn": loss_fn}


def one_cycle(optimizer: Optimizer) -> Any:
    total_steps = NUM_EPOCHS * len(TRAIN)
    return torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=0.05, total_steps=total_steps)


def script(
    run_dir: Path,
    num_epochs: int = NUM_EPOCHS,
    heard: list[Event] | None = None,
    **settings: Any,
) -> dict[str, Any]:
    """What a user's script does, the same at each start; returns what there is at its end.

    Args:
        heard: every event from the start on is added to it.
    """
    model = make_host()
    optimizer = adam(model)
    schedulers = [one_cycle(optimizer)]
    options = NO_TRIALS | {"schedule": SCHEDULE, "checkpoint": True, "num_epochs": NUM_EPOCHS}
    options |= settings
    esper = attach(model, optimizer, run_dir, resume=True, schedulers=schedulers, **options)
    with esper:
        started = esper.epoch
        if heard is not None:
            esper.session.recorder.listeners.append(heard.append)
        while esper.epoch < num_epochs:
            train_epoch(
                model,
                optimizer,
                esper,
                batches=random.sample(TRAIN, len(TRAIN)),
                after_step=lambda _: [s.step() for s in schedulers],
            )
            esper.epoch_boundary(evaluate(model))
        assert_tracked(model, optimizer)
        rates = [group["lr"] for group in optimizer.param_groups]
    decided = [e for e in read(run_dir / "journal.bin") if isinstance(e, Decision)]
    return {
        "started": started,
        "state": digests(model, optimizer),
        "rates": rates,
        "streams": [hashlib.sha256(stream).hexdigest() for stream in streams()],
        "decisions": [(d.epoch, d.cause, len(d.commands)) for d in decided],
    }


def fresh(run_dir: Path, *more: Any, **settings: Any) -> dict[str, Any]:
    """The script in a process of its own, as far as it can tell."""
    random.seed(3)
    np.random.seed(4)
    torch.manual_seed(5)
    return script(run_dir, *more, **settings)


def same(one: dict[str, Any], other: dict[str, Any]) -> bool:
    return all(one[name] == other[name] for name in one if name != "started")


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The end of a run that nothing happened to."""
    torch.set_num_threads(1)
    return fresh(tmp_path_factory.mktemp("whole") / "run")


@pytest.mark.slow
def test_a_script_that_is_run_again_ends_in_the_same_bits(tmp_path: Path) -> None:
    """Stopped after its 2nd and 4th epoch (trials, ramps), each time the same script goes on:
    weights, moments, rates, random streams and decisions are those of an undisturbed run."""
    whole = fresh(tmp_path / "whole", **TRIALS)
    assert whole["started"] == 0
    for stop in (2, 4, NUM_EPOCHS):
        parts = fresh(tmp_path / "parts", stop, **TRIALS)
    assert parts["started"] == 4
    assert same(whole, parts)


def test_a_run_that_saved_nothing_starts_over(tmp_path: Path) -> None:
    """Its journal begins anew; without resume=True the directory is refused, and resume=True
    needs one."""
    fresh(tmp_path / "run", 2, checkpoint=False)
    again = fresh(tmp_path / "run", 1)
    assert again["started"] == 0
    assert [epoch for epoch, *_ in again["decisions"]] == [1]
    model = make_host()
    with pytest.raises(RunError, match="already holds a run"):
        attach(model, adam(model), tmp_path / "run")
    with pytest.raises(ConfigError, match="resume=True goes on in run_dir"):
        attach(model, adam(model), None, resume=True)  # type: ignore[arg-type] # the point


@pytest.mark.parametrize("loss", ["deleted", "truncated"])
def test_a_run_whose_checkpoints_are_lost_is_not_begun_again(tmp_path: Path, loss: str) -> None:
    """It is refused, and its journal, which tells of what was done, is as it was."""
    fresh(tmp_path / "run", 3)
    for state in sorted((tmp_path / "run" / "checkpoints").rglob("state.safetensors")):
        if loss == "deleted":
            shutil.rmtree(state.parent)
        else:
            state.write_bytes(state.read_bytes()[:100])
    journal = (tmp_path / "run" / "journal.bin").read_bytes()
    with pytest.raises(CheckpointError, match="no whole checkpoint left"):
        fresh(tmp_path / "run")
    assert (tmp_path / "run" / "journal.bin").read_bytes() == journal


def test_a_damaged_checkpoint_is_passed_over_by_name(
    tmp_path: Path, whole: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    """The newest one has a flipped bit: the log names the file, the one before it is used, and
    the end is the same."""
    fresh(tmp_path / "run", 4)
    newest = sorted((tmp_path / "run" / "checkpoints" / "active").iterdir())[-1]
    content = bytearray((newest / "state.safetensors").read_bytes())
    content[-9] ^= 1
    (newest / "state.safetensors").write_bytes(content)
    again = fresh(tmp_path / "run")
    assert again["started"] == 3
    assert f"passed over: {newest.name}: state.safetensors has other content" in caplog.text
    assert same(whole, again)


def test_another_optimizer_is_refused_before_anything_goes_on(tmp_path: Path) -> None:
    """Groups in another order, fewer schedulers, other kinds and another model are named."""
    fresh(tmp_path / "run", 3)

    def resume(model: nn.Module, optimizer: Optimizer, schedulers: Sequence[Any] = ()) -> None:
        options = NO_TRIALS | {"schedule": SCHEDULE, "schedulers": schedulers}
        attach(model, optimizer, tmp_path / "run", resume=True, **options)

    model = make_host()
    backwards = torch.optim.Adam(reversed(list(model.parameters())), lr=0.01)
    with pytest.raises(CheckpointError, match=r"optimizer 0 had 'conv\.weight' where it now has"):
        resume(model, backwards, [one_cycle(backwards)])
    model = make_host()
    with pytest.raises(CheckpointError, match="holds 1 schedulers and 0 were given"):
        resume(model, adam(model))
    model = make_host()
    sgd = torch.optim.SGD(model.parameters(), lr=0.01)
    with pytest.raises(CheckpointError, match="the scheduler LambdaLR cannot take its state"):
        resume(model, sgd, [torch.optim.lr_scheduler.LambdaLR(sgd, [lambda _: 1.0])])
    other = nn.Sequential(nn.Linear(2, 2))
    with pytest.raises(CheckpointError, match=r"step-00000012 does not fit Sequential: .*'conv'"):
        resume(other, adam(other))
    assert fresh(tmp_path / "run", 4)["started"] == 3


def test_elsewhere_it_goes_on_and_takes_the_promise_back(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """One line says what differs from when the checkpoint was written; at home there is none."""
    fresh(tmp_path / "run", 1)
    fresh(tmp_path / "run", 2)
    assert "may differ in bits" not in caplog.text
    torch.set_num_threads(2)
    assert fresh(tmp_path / "run", 2)["started"] == 2  # it has nothing left to do
    lines = [line for line in caplog.messages if "may differ in bits" in line]
    assert len(lines) == 1
    assert "since the checkpoint was written threads was 1 and is 2:" in lines[0]


def test_a_resume_grows_the_model_in_place(tmp_path: Path) -> None:
    """Parameters that the script already holds are the ones that are trained on."""
    fresh(tmp_path / "run", 3)
    model = make_host()
    held = dict(model.named_parameters())
    optimizer = adam(model)
    options = NO_TRIALS | {"schedule": SCHEDULE, "schedulers": [one_cycle(optimizer)]}
    with attach(model, optimizer, tmp_path / "run", resume=True, **options) as esper:
        before = copy_of(model)
        train_epoch(model, optimizer, esper)
    assert all(dict(model.named_parameters())[name] is p for name, p in held.items())
    assert not torch.equal(before["conv.weight"], held["conv.weight"])


# --- killed anywhere ---------------------------------------------------------------------------


def die_at(k: int) -> None:
    """Let this process die before the k-th operation on the disk, in whichever thread it is."""
    count = 0

    def dying(name: str) -> Callable[..., Any]:
        primitive = getattr(FileOps, name)

        def operation(self: FileOps, *arguments: Any) -> Any:
            nonlocal count
            count += 1
            if count == k:
                os._exit(9)
            # A killed process loses nothing that the kernel has.
            return None if name.startswith("fsync") else primitive(self, *arguments)

        return operation

    for name in PRIMITIVES:
        setattr(FileOps, name, dying(name))


def child(run_dir: Path, result: Path, k: int) -> bool:
    """Run the script in a fork that dies at operation k; whether it came to its end."""
    pid = os.fork()
    if pid == 0:
        try:
            die_at(k)
            result.write_text(json.dumps(fresh(run_dir)))
            os._exit(0)
        finally:
            os._exit(1)
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    assert code in (0, 9), code
    return code == 0


def kill_often(folder: Path, num_chains: int) -> int:
    """Chains of kills and new starts, each to its end; returns the number of kills."""
    torch.set_num_threads(1)
    chance = random.Random(11)  # noqa: S311  # kills need not be secret
    # In this process: what torch imports late need then not be imported by every child.
    whole = json.loads(json.dumps(fresh(folder / "whole")))
    num_kills = 0
    for chain in range(num_chains):
        run_dir, result = folder / str(chain), folder / f"{chain}.json"
        while not child(run_dir, result, chance.randrange(1, 60)):
            num_kills += 1
            assert num_kills < 40 * num_chains, "it does not come to an end"
        assert same(whole, json.loads(result.read_text())), chain
    return num_kills


@pytest.mark.slow
@pytest.mark.fault(1)
@pytest.mark.parametrize(
    ("num_chains", "num_kills"), [(1, 2), pytest.param(5, 20, marks=pytest.mark.slow)]
)
def test_killed_anywhere_and_run_again_it_ends_in_the_same_bits(
    tmp_path: Path, num_chains: int, num_kills: int, faults: Faults
) -> None:
    """Killed before any operation on the disk, by either thread, again and again."""
    done = subprocess.run(
        [sys.executable, str(Path(__file__)), str(tmp_path), str(num_chains)],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=110,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    assert int(done.stdout.split()[-1]) >= num_kills
    faults.injected(int(done.stdout.split()[-1]))


if __name__ == "__main__":
    with tempfile.TemporaryDirectory(dir=sys.argv[1]) as scratch:
        print(kill_often(Path(scratch), int(sys.argv[2])))
