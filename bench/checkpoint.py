"""What a checkpoint costs the training thread, beside a copy of its bytes and torch.save."""

from __future__ import annotations

import io
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from bench.harness import Effort, Quantiles, Row, Target, once_us
from tolaria import Orchestrator
from tolaria.disk.manifest import Occasion
from tolaria.disk.staging import Staging
from tolaria.disk.store import CheckpointStore
from tolaria.disk.writer import CheckpointWriter
from tolaria.resume import rng_state

TITLE = "checkpoints of a run of 100 MB: a Transformer encoder of 8.4 M parameters and its AdamW"
_STALL_GOAL = 1.2
_NUM_PAIRS = 15


def _host() -> tuple[nn.Module, torch.optim.Optimizer]:
    layer = nn.TransformerEncoderLayer(512, 8, 1024, batch_first=True)
    model = nn.TransformerEncoder(layer, 4)
    optimizer = torch.optim.AdamW(model.parameters())
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    return model, optimizer


def _states(folder: Path) -> tuple[Callable[[], dict[str, Any]], Orchestrator]:
    """Makes the state that a hand-written loop commits."""
    from tolaria.resume.growth_state import loop_state

    model, optimizer = _host()
    settings = {"telemetry": "off", "policy": "hold", "run_dir": str(folder / "run")}
    esper = Orchestrator.attach(model, optimizer, **settings)
    return lambda: loop_state(esper), esper


@contextmanager
def _run() -> Iterator[tuple[Path, Callable[[], dict[str, Any]]]]:
    with tempfile.TemporaryDirectory() as folder:
        state, esper = _states(Path(folder))
        try:
            yield Path(folder), state
        finally:
            esper.close()


def rows(effort: Effort) -> Iterator[Row]:
    """How long training stands still, and how long the writer needs."""
    with _run() as (folder, state):
        yield from _stall_rows(effort, state)
        yield _total_row(effort, folder, state)
    yield _small_row(effort)


def _stall_rows(effort: Effort, state: Callable[[], dict[str, Any]]) -> Iterator[Row]:
    staging = Staging()
    staged = staging.stage(state())
    size_bytes = sum(len(memory) for memory in staged.tensors.values())
    source, target = np.ones(size_bytes, np.uint8), np.ones(size_bytes, np.uint8)

    def stage() -> None:
        staging.stage(state())

    def saved() -> None:
        torch.save(state(), io.BytesIO())

    claim = f"stall: {size_bytes / 1e6:.0f} MB of live state gathered and copied"
    found = effort.compare(stage, lambda: np.copyto(target, source), num_pairs=_NUM_PAIRS)
    yield Row.timed("checkpoint/stall/copy", claim, "ms", found, peer="one copy", most=_STALL_GOAL)
    found = effort.compare(stage, saved, num_pairs=5)
    yield Row.timed(
        "checkpoint/stall/torch.save", claim, "ms", found, peer="torch.save to memory", most=0.5
    )


def _total_row(effort: Effort, folder: Path, state: Callable[[], dict[str, Any]]) -> Row:
    store = CheckpointStore(folder / "checkpoints")
    writer = CheckpointWriter(store, lambda: None, background=True)
    step = 0

    def ours() -> None:
        nonlocal step
        step += 1
        problem = writer.save(step, state(), Occasion())
        assert problem is None, problem
        writer.wait()

    def peer() -> None:
        with (folder / "peer.pt").open("wb") as file:
            torch.save(state(), file)
            file.flush()

    found = effort.compare(ours, peer, num_pairs=5)
    writer.close()
    return Row.timed(
        "checkpoint/total",
        "copied, hashed, written, synced, renamed, old ones removed",
        "ms",
        found,
        peer="torch.save, neither hashed nor synced",
        most=5.0,
    )


def _small_row(effort: Effort) -> Row:
    """The part that does not grow with bytes."""
    state = {"state_dict": nn.Linear(8, 8).state_dict(), "rng": rng_state.capture()}
    staging = Staging()
    times_us = [once_us(lambda: staging.stage(state), 20) for _ in range(effort.num(21))]
    return Row(
        id="checkpoint/stall/small",
        claim="stall of a network of 72 parameters",
        unit="ms",
        ours=Quantiles.of(times_us, 1e-3),
        target=Target(p95=10.0),
        note="the ADR's limit for seed state",
    )
