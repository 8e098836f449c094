"""What a checkpoint costs the training thread, beside a copy of its bytes and torch.save."""

from __future__ import annotations

import io
import statistics
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from bench.pairs import Row, compare, once_us
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


def _stall_row(state: Callable[[], dict[str, Any]]) -> Row:
    staging = Staging()
    staged = staging.stage(state())
    size_bytes = sum(len(memory) for memory in staged.tensors.values())
    source, target = np.ones(size_bytes, np.uint8), np.ones(size_bytes, np.uint8)
    found = compare(
        lambda: staging.stage(state()), lambda: np.copyto(target, source), num_pairs=_NUM_PAIRS
    )
    return Row(
        claim=f"stall: {size_bytes / 1e6:.0f} MB gathered from the live state and copied",
        goal=f"<= {_STALL_GOAL} times one copy",
        found=f"{found.ours_us / 1e3:.1f} ms",
        beside=f"one copy {found.peer_us / 1e3:.1f} ms: {found.ratio:.2f} times "
        f"(the copy twice: {found.same[0]:.2f} to {found.same[1]:.2f})",
        met=found.ratio <= _STALL_GOAL,
    )


def _total_row(folder: Path, state: Callable[[], dict[str, Any]]) -> Row:
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

    found = compare(ours, peer, num_pairs=5)
    writer.close()
    return Row(
        claim="total: copied, hashed, written, synced, renamed, old ones removed",
        goal="<= 5 times torch.save",
        found=f"{found.ours_us / 1e3:.0f} ms",
        beside=f"torch.save, neither hashed nor synced, {found.peer_us / 1e3:.0f} ms: "
        f"{found.ratio:.2f} times",
        met=found.ratio <= 5.0,
    )


def _blocking_row(state: Callable[[], dict[str, Any]]) -> Row:
    staging = Staging()
    staging.stage(state())

    def in_memory() -> None:
        torch.save(state(), io.BytesIO())

    found = compare(lambda: staging.stage(state()), in_memory, num_pairs=5)
    return Row(
        claim="stall beside torch.save to memory",
        goal="<= 0.5 times",
        found=f"{found.ours_us / 1e3:.1f} ms",
        beside=f"torch.save {found.peer_us / 1e3:.0f} ms: {found.ratio:.2f} times",
        met=found.ratio <= 0.5,
    )


def _small_row() -> Row:
    """The part that does not grow with bytes."""
    state = {"state_dict": nn.Linear(8, 8).state_dict(), "rng": rng_state.capture()}
    staging = Staging()
    times_us = [once_us(lambda: staging.stage(state), 20) for _ in range(21)]
    return Row(
        claim="stall of a network of 72 parameters",
        goal="<= 10 ms (the ADR's limit for seed state)",
        found=f"{statistics.median(times_us):.0f} us",
        beside="",
        met=statistics.median(times_us) <= 10_000,
    )


def rows() -> list[Row]:
    with _run() as (folder, state):
        return [_stall_row(state), _blocking_row(state), _total_row(folder, state), _small_row()]
