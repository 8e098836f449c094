"""A run of `esper train` that says when it gets somewhere, and waits there for a signal."""

from __future__ import annotations

import os
import random
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import lightning.pytorch as pl
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from leyline import Decision, limits
from tamiyo import Controller, HeuristicPolicy, HeuristicRules, PolicyKind, State, policy_catalogue
from tests.tolaria.lightning.models import MLP, NUM_HELD_OUT, NUM_TRAIN
from tolaria.__main__ import main
from tolaria.disk.files import FileOps

CONFIG: Final = f"""\
model = "{__name__}:Model"
data = "{__name__}:Data"
epochs = 8
threads = 1
[esper]
policy = "waiting"
telemetry = "off"
trial_steps = [10, 30]
max_candidates = 4
"""
_LONG_MS: Final = 60_000.0
PHASES: Final = (
    "set up",
    "data",
    "forward",
    "backward",
    "optimizer",
    "validation",
    "trial",
    "policy",
    "journal",
    "checkpoint",
    "test",
)


class Barrier:
    """Tells the parent that a phase is reached for the n-th time, and waits for its word there."""

    def __init__(self) -> None:
        self._left: dict[str, int] = {}
        self._told = self._word = -1

    def arm(self, told: int, word: int, phases: Sequence[str], num_passed: int) -> None:
        """Wait at the first of the phases after it was passed so often, then at each other."""
        self._told, self._word = told, word
        self._left = dict.fromkeys(phases, 0) | {phases[0]: num_passed}

    def reach(self, phase: str) -> None:
        """Wait if it is time."""
        left = self._left.get(phase)
        if left is None:
            return
        self._left[phase] = left - 1
        if left == 0:
            os.write(self._told, b".")
            os.read(self._word, 1)


BARRIER: Final = Barrier()


class Waiting(HeuristicPolicy):
    """Waits while it is asked; the trainer waits for its answer then."""

    def decide(self, state: State) -> Decision:
        BARRIER.reach("policy")
        return super().decide(state)


class Slow(torch.optim.Adam):
    """Waits before a step."""

    def step(self, *arguments: Any, **options: Any) -> Any:
        BARRIER.reach("optimizer")
        return super().step(*arguments, **options)


class Points(Dataset[Any]):
    """Waits before it gives a point."""

    def __init__(self, points: Dataset[Any], length: int):
        self._points, self._length = points, length

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, index: int) -> Any:
        BARRIER.reach("data")
        return self._points[index]


class Data(pl.LightningDataModule):
    """Points in an order of the global stream."""

    def __init__(self, num_workers: int = 0):
        super().__init__()
        self._num_workers = num_workers

    def setup(self, stage: str) -> None:
        BARRIER.reach("set up")

    def train_dataloader(self) -> DataLoader[Any]:
        points = Points(MLP.data(NUM_TRAIN, 1), NUM_TRAIN)
        return DataLoader(points, batch_size=8, shuffle=True, num_workers=self._num_workers)

    def val_dataloader(self) -> DataLoader[Any]:
        return DataLoader(MLP.data(NUM_HELD_OUT, 2), batch_size=8)

    test_dataloader = val_dataloader


class Model(MLP):
    """Waits in its steps, those of its copies in a trial too."""

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        is_live = isinstance(self.trainer, pl.Trainer)
        BARRIER.reach("forward" if is_live else "trial")
        loss: Tensor = super().training_step(batch, batch_idx)
        if is_live:
            loss.register_hook(lambda _: BARRIER.reach("backward"))
        return loss

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        BARRIER.reach("validation")
        super().validation_step(batch, batch_idx)

    def test_step(self, batch: Any, batch_idx: int) -> None:
        BARRIER.reach("test")
        super().test_step(batch, batch_idx)

    def configure_optimizers(self) -> Any:
        return Slow(self.parameters(), lr=0.01)


def wait_for_files() -> None:
    """Wait before a journal's bytes, before a checkpoint's and before the report is written."""
    append, write = FileOps.append, FileOps.write

    def appended(self: FileOps, file: Any, data: Any) -> None:
        BARRIER.reach("journal" if str(file.name).endswith("journal.bin") else "")
        append(self, file, data)

    def written(self: FileOps, path: Path, data: Any) -> None:
        of_checkpoint = "checkpoints" in path.parts
        BARRIER.reach("checkpoint" if of_checkpoint else "end" if "report" in path.name else "")
        write(self, path, data)

    FileOps.append, FileOps.write = appended, written  # type: ignore[method-assign]


def give_time() -> None:
    """Let no decision be late for what else the machine does: that would be another run."""
    vars(limits)["DECIDE_MS"] = _LONG_MS
    Controller.__init__.__defaults__ = (_LONG_MS, time.thread_time)


class Run:
    """The command in a fork: where it waits, signals, and how it ends."""

    def __init__(
        self, folder: Path, *more: str, phases: Sequence[str] = ("none",), num_passed: int = 0
    ):
        told, word = os.pipe(), os.pipe()
        self._told, self._word = told[0], word[1]
        self.pid = os.fork()
        if self.pid == 0:
            try:
                BARRIER.arm(told[1], word[0], phases, num_passed)
                _command(folder, *more)
            finally:
                os._exit(99)
        os.close(told[1])
        os.close(word[0])

    def waits(self) -> bool:
        """Wait until it waits; whether it does, and has not ended."""
        return bool(os.read(self._told, 1))

    def get(self, number: signal.Signals) -> None:
        """Send it a signal, then let it go on."""
        os.kill(self.pid, number)
        os.write(self._word, b".")

    def end(self) -> int:
        """Wait for its end: the exit code."""
        code = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        os.close(self._told)
        os.close(self._word)
        return code


def _command(folder: Path, *more: str) -> None:
    """Be `esper train`, as a fresh process is."""
    random.seed(3)
    os.chdir(folder)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    output = os.open("output", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    for descriptor in (1, 2):
        os.dup2(output, descriptor)
    policy_catalogue.register(PolicyKind("waiting", Waiting, HeuristicRules))
    wait_for_files()
    give_time()
    sys.argv = ["esper", "train", "config.toml", "--run-dir", "run", *more]
    code: Any = None
    try:
        main()
    except SystemExit as error:
        code = error.code
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
