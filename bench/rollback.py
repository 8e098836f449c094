"""What a snapshot and a restore cost beside one flat memcpy, a deepcopy, and DCP's async_save."""

from __future__ import annotations

import copy
import io
import os
import statistics
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from torch import nn

from bench.harness import Effort, Peer, Quantiles, Row
from kasmina import Executor
from tamiyo import Controller
from tolaria.config import EsperConfig
from tolaria.growth.policies import build_policy
from tolaria.rates.controller import UnifiedLRController
from tolaria.rollback.arena import Arena
from tolaria.rollback.state import Moment, Parts, RunState

TITLE = "Rollback: model and AdamW moments in memory, beside their limit and their peers"
_WIDTH: Final = 768
_NUM_SAVES: Final = 7
_LARGE_MB: Final = 500


class _Block(nn.Module):
    """The two large matrices and the norms of a transformer's MLP."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(_WIDTH)
        self.up = nn.Linear(_WIDTH, 2 * _WIDTH)
        self.down = nn.Linear(2 * _WIDTH, _WIDTH)

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        grown: torch.Tensor = hidden + self.down(torch.relu(self.up(self.norm(hidden))))
        return grown


def _run_of(size_mb: int) -> Parts:
    """A model that has trained one step, its AdamW, and what Esper has of a run."""
    per_block = 3 * sum(p.nbytes for p in _Block().parameters())
    model = nn.Sequential(*(_Block() for _ in range(max(1, round(size_mb * 1e6 / per_block)))))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    model(torch.randn(2, _WIDTH)).square().mean().backward()
    optimizer.step()
    optimizer.zero_grad()
    rates = UnifiedLRController(model, [optimizer], [])
    controller = Controller(build_policy(EsperConfig(policy="hold")), time.monotonic)
    return Parts(model, Executor(model, rng_seed=0), rates, controller)


def _snapshots(parts: Parts) -> Any:
    """Takes one state after the other in the same two buffers; returns how to take and restore."""
    arena = Arena()
    held = [RunState(arena, parts, Moment(0, 0, None))]

    def take() -> None:
        held.append(RunState(arena, parts, Moment(0, 0, None)))
        held.pop(0).release()

    def restore() -> None:
        held[0].restore(parts)

    take()  # both buffers are there from now on
    return take, restore, held[0].size_bytes


def rows(effort: Effort) -> Iterator[Row]:
    """A hundred megabytes in a quick run, a gigabyte too in a full one."""
    yield from _beside_memory(effort, 100)
    if not effort.is_quick:
        yield from _beside_memory(effort, 1000)
    yield _beside_dcp(effort, 100)


def _beside_memory(effort: Effort, size_mb: int) -> Iterator[Row]:
    parts = _run_of(size_mb)
    optimizer = parts.optimizers[0]
    take, restore, size_bytes = _snapshots(parts)
    source, target = np.ones(size_bytes, np.uint8), np.zeros(size_bytes, np.uint8)

    def memcpy() -> None:
        np.copyto(target, source)

    def deepcopy() -> object:
        return copy.deepcopy((parts.model.state_dict(), optimizer.state_dict()))

    def saved() -> None:
        torch.save((parts.model.state_dict(), optimizer.state_dict()), io.BytesIO())

    num_pairs = 15 if size_mb < _LARGE_MB else 5
    for name, action, peer_name, peer, most in (
        ("snapshot", take, "one flat memcpy", memcpy, 1.1),
        ("restore", restore, "one flat memcpy", memcpy, 1.1),
        ("snapshot", take, "copy.deepcopy of the state dicts", deepcopy, 1 / 4),
        ("snapshot", take, "torch.save to memory", saved, None),
    ):
        yield Row.timed(
            f"rollback/{name}/{size_mb}/{peer.__name__}",
            f"{name}, {size_bytes / 1e6:,.0f} MB",
            "ms",
            effort.compare(action, peer, num_pairs=num_pairs),
            peer=peer_name,
            most=most,
        )


@contextmanager
def _one_process() -> Iterator[None]:
    """The process group that DCP asks for."""
    with tempfile.TemporaryDirectory() as folder:
        store = dist.FileStore(str(Path(folder) / "store"), 1)
        dist.init_process_group("gloo", store=store, rank=0, world_size=1)
        try:
            yield
        finally:
            dist.destroy_process_group()


def _beside_dcp(effort: Effort, size_mb: int) -> Row:
    """How long training stands still: our snapshot against async_save, in turns."""
    parts = _run_of(size_mb)
    take, _, size_bytes = _snapshots(parts)
    state = {"model": parts.model.state_dict(), "optimizer": parts.optimizers[0].state_dict()}
    ours_s, theirs_s = [], []
    memory = Path("/dev/shm")  # noqa: S108 - their file in memory: only the stall is compared
    folder = str(memory) if os.access(memory, os.W_OK) else None
    with _one_process(), tempfile.TemporaryDirectory(dir=folder) as target:
        for number in range(1 + effort.num(_NUM_SAVES)):
            start_s = time.perf_counter()
            saving = dcp.async_save(state, checkpoint_id=f"{target}/{number % 2}")
            theirs_s.append(time.perf_counter() - start_s)
            saving.result()
            start_s = time.perf_counter()
            take()
            ours_s.append(time.perf_counter() - start_s)
    pairs = list(zip(ours_s[1:], theirs_s[1:], strict=True))  # the first of theirs sets up
    theirs_ms = statistics.median(theirs for _, theirs in pairs) * 1e3
    return Row(
        id=f"rollback/snapshot/{size_mb}/async_save",
        claim=f"snapshot, {size_bytes / 1e6:,.0f} MB: how long training stands still",
        unit="ms",
        ours=Quantiles.of([ours for ours, _ in pairs], 1e3),
        peer=Peer(
            "torch.distributed.checkpoint.async_save",
            statistics.median(ours / theirs for ours, theirs in pairs),
            theirs_ms,
            most=1 / 5,
        ),
    )
