"""SIGINT and SIGTERM at any moment of `esper train`: it ends in order, and goes on as if not.

Run as a script, this file forks the runs and sends the signals.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest
import torch

from leyline import Decision, RunEnded
from tests.reliability.plugin import Faults
from tests.reliability.stopping import CONFIG, PHASES, Run
from tolaria.disk.checkpoint import load
from tolaria.disk.journal import read

ROOT: Final = Path(__file__).parents[2]
GRACE_S: Final = 5.0
AT_ONCE_S: Final = 1.0
MOST_PASSED: Final = {"set up": 1, "test": 4, "policy": 4, "checkpoint": 8, "journal": 8}
"""Times that a phase may be passed before the signal, fewer than a run passes it; others: 16."""
NAMES: Final = {"run", "seed_record", "checkpoint_id", "schema_id", "journal_position", "risk"}
"""Of this run: its identity, numbers of records that also tell of a resume, or of what came to
nothing, and a level that boundaries raise too which take long on a busy machine; it slows nothing
then (docs/risk.md)."""
LIGHTNINGS_OWN: Final = "/loops/fit_loop/epoch_progress/current/ready"
"""Which Lightning leaves one lower once it has resumed at an epoch's start; nothing goes by it."""


def place(folder: Path, name: str) -> Path:
    """A directory with the config in it."""
    (folder / name).mkdir()
    (folder / name / "config.toml").write_text(CONFIG)
    return folder / name


def end_of(folder: Path) -> dict[str, Any]:
    """What a finished run leaves: its whole state, and what was decided."""
    newest = sorted((folder / "run" / "checkpoints" / "active").iterdir())[-1]
    decided = [e for e in events(folder) if isinstance(e, Decision)]
    state = dict(_flat("", load(newest)))
    return state | {"decisions": [(d.epoch, d.cause, len(d.commands)) for d in decided]}


def stop(folder: Path, phase: str, kind: str, num_passed: int) -> None:
    """Stop a run, or two in a row with a signal, and let it go on to its end."""
    first = signal.SIGINT if kind == "SIGINT" else signal.SIGTERM
    twice = kind == "twice"
    run = Run(folder, phases=(phase, "end")[: 1 + twice], num_passed=num_passed)
    assert run.waits(), f"it never waited; {said(folder)}"
    since_s = time.monotonic()
    run.get(first)
    twice = twice and run.waits()  # a run that has not begun has nothing to end
    if twice:
        since_s = time.monotonic()
        run.get(signal.SIGTERM)
    code = run.end()
    took_s = time.monotonic() - since_s
    assert code == 128 + first, said(folder)
    assert took_s < (AT_ONCE_S if twice else GRACE_S), took_s
    assert ("stopped at once" if twice else "interrupted") in said(folder)
    ended = [e.status for e in events(folder) if isinstance(e, RunEnded)]
    assert ended in ([], ["interrupted"]), f"{phase}: {ended}"
    again = Run(folder, "--resume")
    assert again.end() == 0, said(folder)


def events(folder: Path) -> list[Any]:
    """The events of a run so far; none if it did not get to begin."""
    journal = folder / "run" / "journal.bin"
    return list(read(journal)) if journal.is_file() else []


def said(folder: Path) -> str:
    """What the commands printed there."""
    return (folder / "output").read_text()


def supervise(folder: Path, kind: str, rng_seed: str) -> int:
    """Stop a run in each phase; returns how many were stopped, resumed and ended alike."""
    chance = random.Random(rng_seed)  # noqa: S311  # moments need not be secret
    whole = place(folder, "whole")
    assert Run(whole).end() == 0, said(whole)
    undisturbed = end_of(whole)
    assert any(num_commands for *_, num_commands in undisturbed["decisions"])
    for phase in PHASES:
        here = place(folder, "stopped")
        num_passed = chance.randrange(MOST_PASSED.get(phase, 16))
        stop(here, phase, kind, num_passed)
        ended = end_of(here)
        differ = [name for name in undisturbed if ended.get(name) != undisturbed[name]]
        assert ended == undisturbed, f"{phase} after {num_passed}: {differ}\n{said(here)}"
        shutil.rmtree(here)
    return len(PHASES)


def _flat(path: str, value: Any) -> Iterator[tuple[str, Any]]:
    """Every value of nested ones by its path, without what names this run."""
    if isinstance(value, dict):
        for name in value.keys() - NAMES:
            yield from _flat(f"{path}/{name}", value[name])
    elif isinstance(value, list | tuple):
        for index, each in enumerate(value):
            yield from _flat(f"{path}/{index}", each)
    elif path != LIGHTNINGS_OWN:
        yield path, value.numpy().tobytes() if isinstance(value, torch.Tensor) else repr(value)


@pytest.mark.slow
@pytest.mark.timeout(240)
@pytest.mark.fault(14)
@pytest.mark.parametrize("kind", ["SIGINT", "SIGTERM", "twice"])
def test_a_signal_at_any_phase_ends_it_in_order(tmp_path: Path, kind: str, faults: Faults) -> None:
    """Stopped while it sets up, reads data, computes, tests, races, asks the policy or writes:
    `esper train` ends within its grace, at once after a second signal, with 130 or 143; resumed it
    ends in the bits and decisions of a run that was let alone."""
    done = subprocess.run(
        [sys.executable, str(Path(__file__)), str(tmp_path), kind, str(faults.random.random())],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=230,
    )
    assert done.returncode == 0, done.stderr[:4000]
    faults.injected(json.loads(done.stdout))


if __name__ == "__main__":
    print(supervise(Path(sys.argv[1]), sys.argv[2], sys.argv[3]))
