"""One run that is killed fifty times and started again each time.

Run as a script, this file is the run's supervisor: it forks, kills and starts again.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import numpy as np
import pytest
import torch

from tests.golden.make import digests
from tests.reliability.plugin import Faults
from tests.tolaria.plain_loops import (
    TRAIN,
    adam,
    attach,
    evaluate,
    make_host,
    streams,
    train_epoch,
)
from tests.tolaria.rollback.loops import GROWN
from tolaria.disk.journal import read

ROOT: Final = Path(__file__).parents[2]
NUM_KILLS: Final = 50
NUM_EPOCHS: Final = 60


def train(run_dir: Path, passed: Callable[[int], None]) -> dict[str, Any]:
    """What a user's script does, the same at each start; returns what there is at its end.

    Args:
        passed: told of every epoch that is over when an epoch begins, the first time at the start.
    """
    random.seed(3)
    np.random.seed(4)
    torch.manual_seed(5)
    model = make_host()
    optimizer = adam(model)
    cosine = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=NUM_EPOCHS)
    options = {**GROWN, "checkpoint": True, "num_epochs": NUM_EPOCHS}
    with attach(model, optimizer, run_dir, resume=True, schedulers=[cosine], **options) as esper:
        while esper.epoch < NUM_EPOCHS:
            passed(esper.epoch)
            train_epoch(model, optimizer, esper, batches=random.sample(TRAIN, len(TRAIN)))
            cosine.step()
            esper.epoch_boundary(evaluate(model))
    decided = [type(event).__name__ for event in read(run_dir / "journal.bin")]
    return {
        "state": digests(model, optimizer),
        "rates": [group["lr"] for group in optimizer.param_groups],
        "streams": [hashlib.sha256(stream).hexdigest() for stream in streams()],
        "num_decisions": decided.count("Decision"),
    }


class Profile:
    """Counts the calls of Python's functions in this process, which is killed at one of them.

    So a kill comes anywhere in a step, a boundary or a start, and comes back with its number.
    """

    def __init__(self, kill_at: int | None = None):
        self.num_calls = 0
        self.at_epoch: dict[int, int] = {}
        """Calls before each epoch that this process began."""
        self._kill_at = kill_at

    def train(self, run_dir: Path) -> None:
        """Train under it, and write what there is at the end."""
        sys.setprofile(self._count)
        try:
            end = train(run_dir, self._note)
        finally:
            sys.setprofile(None)
        (run_dir / "end.json").write_text(json.dumps(end))

    def _note(self, epoch: int) -> None:
        self.at_epoch[epoch] = self.num_calls

    def _count(self, frame: Any, event: str, argument: Any) -> None:
        if event == "call":
            self.num_calls += 1
            if self.num_calls == self._kill_at:
                os.kill(os.getpid(), signal.SIGKILL)


def died(run_dir: Path, kill_at: int | None) -> bool:
    """Start the run in a fork; whether it was killed."""
    pid = os.fork()
    if pid == 0:
        try:
            Profile(kill_at).train(run_dir)
            os._exit(0)
        finally:
            os._exit(1)
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    assert code in (0, -signal.SIGKILL), code
    return code != 0


def supervise(folder: Path, rng_seed: str) -> int:
    """Kill one run so often, let it come to its end, and compare.

    Returns:
        The number of checkpoints that the run went on from.
    """
    torch.set_num_threads(1)
    chance = random.Random(rng_seed)  # noqa: S311  # kills need not be secret
    Profile().train(folder / "first")  # what is imported late is not called again
    undisturbed = Profile()
    undisturbed.train(folder / "whole")
    start = undisturbed.at_epoch[1]
    epoch = (undisturbed.num_calls - start) // (NUM_EPOCHS - 1)
    newest: set[str] = set()
    for _ in range(NUM_KILLS):
        kill_at = chance.choice((chance.randrange(1, start), start + chance.randrange(4 * epoch)))
        assert died(folder / "chain", kill_at), "it ended before it was killed"
        newest |= set(sorted(path.name for path in folder.glob("chain/**/step-*"))[-1:])
    assert not died(folder / "chain", None)
    first, whole, chain = (
        json.loads((folder / name / "end.json").read_text()) for name in ("first", "whole", "chain")
    )
    assert first == whole == chain
    return len(newest)


@pytest.mark.slow
@pytest.mark.timeout(240)
@pytest.mark.fault(15)
def test_fifty_kills_leave_no_trace(tmp_path: Path, faults: Faults) -> None:
    """Killed fifty times, each time before any call of any function, the one run ends with the
    weights, moments, rates, random streams and number of decisions of a run that was let alone."""
    done = subprocess.run(
        [sys.executable, str(Path(__file__)), str(tmp_path), str(faults.random.random())],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=230,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    assert int(done.stdout.split()[-1]) > NUM_KILLS // 5, "most kills came before it got anywhere"
    faults.injected(NUM_KILLS)


if __name__ == "__main__":
    print(supervise(Path(sys.argv[1]), sys.argv[2]))
