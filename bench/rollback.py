"""What a snapshot and a restore cost beside one flat memcpy, a deepcopy, and DCP's async_save.

Run it: python -m bench.rollback, or with --full for a gigabyte too.
"""

from __future__ import annotations

import copy
import os
import statistics
import sys
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

from bench.pairs import Row, compare, show
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


def _beside_memory(size_mb: int) -> list[Row]:
    parts = _run_of(size_mb)
    optimizer = parts.optimizers[0]
    take, restore, size_bytes = _snapshots(parts)
    source, target = np.ones(size_bytes, np.uint8), np.zeros(size_bytes, np.uint8)

    def memcpy() -> None:
        np.copyto(target, source)

    def deepcopy() -> object:
        return copy.deepcopy((parts.model.state_dict(), optimizer.state_dict()))

    rows = []
    num_pairs = 15 if size_mb < 500 else 5
    for name, ours in (("snapshot", take), ("restore", restore)):
        found = compare(ours, memcpy, num_pairs=num_pairs)
        rows.append(
            Row(
                f"{name}, {size_bytes / 1e6:,.0f} MB",
                "<= 1.1x one flat memcpy",
                f"{found.ours_us / 1e3:.1f} ms, {found.ratio:.2f}x",
                f"memcpy {found.peer_us / 1e3:.1f} ms (twice: {found.same[0]:.2f} to "
                f"{found.same[1]:.2f})",
                found.ratio <= 1.1,
            )
        )
    found = compare(take, deepcopy, num_pairs=num_pairs)
    rows.append(
        Row(
            f"snapshot, {size_bytes / 1e6:,.0f} MB",
            ">= 4x faster than deepcopy",
            f"{found.ours_us / 1e3:.1f} ms, {1 / found.ratio:.1f}x faster",
            f"copy.deepcopy of the state dicts {found.peer_us / 1e3:.1f} ms",
            found.ratio <= 1 / 4,
        )
    )
    return rows


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


def _beside_dcp(size_mb: int) -> Row:
    """How long training stands still: our snapshot against async_save, in turns."""
    parts = _run_of(size_mb)
    take, _, size_bytes = _snapshots(parts)
    state = {"model": parts.model.state_dict(), "optimizer": parts.optimizers[0].state_dict()}
    ours_s, theirs_s = [], []
    memory = Path("/dev/shm")  # noqa: S108 - their file in memory: only the stall is compared
    folder = str(memory) if os.access(memory, os.W_OK) else None
    with _one_process(), tempfile.TemporaryDirectory(dir=folder) as target:
        for number in range(_NUM_SAVES):
            start_s = time.perf_counter()
            saving = dcp.async_save(state, checkpoint_id=f"{target}/{number % 2}")
            theirs_s.append(time.perf_counter() - start_s)
            saving.result()
            start_s = time.perf_counter()
            take()
            ours_s.append(time.perf_counter() - start_s)
    ratio = statistics.median(
        theirs / ours for theirs, ours in zip(theirs_s[1:], ours_s[1:], strict=True)
    )
    return Row(
        f"stall, {size_bytes / 1e6:,.0f} MB",
        ">= 5x under DCP async_save",
        f"{statistics.median(ours_s) * 1e3:.1f} ms, {ratio:.1f}x under",
        f"torch.distributed.checkpoint.async_save {statistics.median(theirs_s) * 1e3:.1f} ms",
        ratio >= 5.0,
    )


def rows() -> list[Row]:
    return [*_beside_memory(100), _beside_dcp(100)]


def main() -> None:
    show(TITLE, lambda: [*rows(), *(_beside_memory(1000) if "--full" in sys.argv else [])])


if __name__ == "__main__":
    main()
