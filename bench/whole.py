"""A whole Lightning run: with growth, with the callback but no growth, and without it.

Each runs in a process of its own, by turns, for its memory is measured too. Time is the CPU time of
the process from its first epoch to its last, so that what else the machine does counts for nothing.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, NamedTuple

from bench.harness import Effort, Peer, Quantiles, Row

TITLE = "A whole run under Lightning, the digits host"
_NUM_ROUNDS: Final = 5
_NUM_EPOCHS: Final = {"quick": 10, "full": 30}
_MOST: Final = {"held": 1.05, "grown": None}
_CLAIMS: Final = {"held": "the callback, nothing grows", "grown": "the callback, growth"}


class _Ran(NamedTuple):
    """What a process tells of its run."""

    epoch_ms: float
    peak_mb: float
    race_share: float


def rows(effort: Effort) -> Iterator[Row]:
    """Time of an epoch, then memory, each beside the run without Esper."""
    num_epochs = _NUM_EPOCHS["quick" if effort.is_quick else "full"]
    rounds = [
        {kind: _run(kind, num_epochs) for kind in ("bare", "held", "grown", "again")}
        for _ in range(2 if effort.is_quick else _NUM_ROUNDS)
    ]
    for kind in _CLAIMS:
        yield _time_row(kind, rounds)
    for kind in _CLAIMS:
        yield _memory_row(kind, rounds)


def _time_row(kind: str, rounds: list[dict[str, _Ran]]) -> Row:
    same = sorted(each["again"].epoch_ms / each["bare"].epoch_ms for each in rounds)
    ratios = [2 * e[kind].epoch_ms / (e["bare"].epoch_ms + e["again"].epoch_ms) for e in rounds]
    share = statistics.median(each[kind].race_share for each in rounds)
    return Row(
        id=f"whole/time/{kind}",
        claim=f"an epoch: {_CLAIMS[kind]}, CPU time",
        unit="ms",
        ours=Quantiles(statistics.median(each[kind].epoch_ms for each in rounds)),
        peer=Peer(
            "without Esper",
            statistics.median(ratios),
            statistics.median(each["bare"].epoch_ms for each in rounds),
            (same[0], same[-1]),
            _MOST[kind],
        ),
        note=f"trials are {share:.0%} of its FLOPs" if kind == "grown" else "",
    )


def _memory_row(kind: str, rounds: list[dict[str, _Ran]]) -> Row:
    bare = statistics.median(each["bare"].peak_mb for each in rounds)
    ours = statistics.median(each[kind].peak_mb for each in rounds)
    return Row(
        id=f"whole/memory/{kind}",
        claim=f"peak memory: {_CLAIMS[kind]}",
        unit="MB",
        ours=Quantiles(ours),
        peer=Peer("without Esper", ours / bare, bare),
    )


def _run(kind: str, num_epochs: int) -> _Ran:
    command = [sys.executable, "-m", "bench.whole", kind, str(num_epochs)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)  # noqa: S603
    return _Ran(**json.loads(done.stdout.splitlines()[-1]))


def _child(kind: str, num_epochs: int) -> None:
    """Train once in this process, and print what it took."""
    import time

    import lightning.pytorch as pl
    import torch

    from tolaria import EsperCallback
    from tolaria.commands.quiet import QUIET_TRAINER, quiet_lightning
    from tolaria.data import load

    class Clock(pl.Callback):
        """CPU time of the process from the first epoch's start."""

        def __init__(self) -> None:
            self.start_s = self.end_s = 0.0

        def on_train_start(self, *args: Any) -> None:
            self.start_s = time.process_time()

        def on_train_end(self, *args: Any) -> None:
            self.end_s = time.process_time()

    torch.set_num_threads(1)
    quiet_lightning()
    with tempfile.TemporaryDirectory() as folder:
        clock, callbacks = Clock(), list[pl.Callback]()
        if kind in _CLAIMS:
            policy = "hold" if kind == "held" else "heuristic"
            callbacks = [EsperCallback(run_dir=f"{folder}/run", policy=policy)]
        task = load("digits", rng_seed=0, num_epochs=num_epochs)
        trainer = pl.Trainer(max_epochs=num_epochs, callbacks=[*callbacks, clock], **QUIET_TRAINER)
        trainer.fit(task.module, task.data)
        report = callbacks[0].report() if callbacks else {}  # type: ignore[attr-defined]
    # Not ru_maxrss, which begins with what the parent had when it forked.
    status = Path("/proc/self/status").read_text()
    peak_mb = int(status.split("VmHWM:")[1].split()[0]) / 1e3
    epoch_ms = (clock.end_s - clock.start_s) / num_epochs * 1e3
    found = _Ran(epoch_ms, peak_mb, _race_share(report))
    print(json.dumps(found._asdict()))


def _race_share(report: dict[str, Any]) -> float:
    """Of all FLOPs of a run, those of trials and counterfactuals."""
    flops = report.get("flops", {})
    return flops.get("search", 0) / max(1, sum(flops.values()))


if __name__ == "__main__":
    _child(sys.argv[1], int(sys.argv[2]))
